/**
 * Sealcast: secure, reliable multicast.
 *
 * <p>Open an {@link io.sealcast.Identity} on a device's folder, and join a channel with {@link
 * io.sealcast.Identity#subscriber} or {@link io.sealcast.Identity#publisher}. All classes are fit for any thread.
 * What goes wrong is a {@link io.sealcast.SealcastException}; durations are {@link java.time.Duration}s, to the
 * microsecond; bytes are bytes.
 *
 * <p>It is a face of libsealcast, which is found by the system property {@code sealcast.library}, else by {@code
 * SEALCAST_LIBRARY} in the environment, each the path of the file, else in the jar, else where the system's loader
 * looks. HTTPS to the key server and to peers is made with {@link java.net.http.HttpClient}.
 */
package io.sealcast;
