package io.sealcast;

import java.nio.file.Path;
import java.util.Objects;
import java.util.function.Supplier;

/**
 * The device whose folder this is, as {@code sealcast device enroll} makes it.
 *
 * <p>Fit for any thread. What was made from it goes on when it is closed, and goes on over renewals of its certificate,
 * which it finds in the folder by itself.
 */
public final class Identity implements AutoCloseable {
    private static final int OPTIONS_SIZE = 32;

    private final Path folder;
    private final Signer signer;
    private final Library.SignFunction function;
    private final long handle;
    private volatile Throwable signFailure;
    /** Itself, and each publisher and subscriber that was made from it. */
    private int users = 1;
    private boolean isClosed;

    private Identity(Path folder, Signer signer) {
        this.folder = folder;
        this.signer = signer;
        Memory options = new Memory(OPTIONS_SIZE);
        if (signer == null) {
            function = null;
        } else {
            function = Native.library().signFunction(signer, error -> signFailure = error);
            options.putLong(0, OPTIONS_SIZE);
            options.putLong(8, function.address());
            options.putInt(24, signer.algorithm().code());
        }
        Memory path = Memory.ofText(folder.toString());
        Memory result = new Memory(Long.BYTES);
        long given = signer == null ? 0 : options.address();
        Native.check(Native.library().identityOpen(path.address(), given, result.address()));
        path.keep();
        options.keep();
        handle = result.getLong(0);
    }

    /**
     * Reads a device's folder.
     *
     * @param folder its path
     * @return the identity, to be closed
     * @throws SealcastException {@link Status#NO_DEVICE}, {@link Status#STORAGE}; {@link Status#SIGNING} where the folder
     *     has no key, or another one than its certificate's
     * @throws UnsatisfiedLinkError if libsealcast cannot be loaded
     */
    public static Identity open(Path folder) {
        return new Identity(Objects.requireNonNull(folder, "folder"), null);
    }

    /**
     * Reads the folder of a device whose key is elsewhere; the folder needs no key file.
     *
     * @param folder its path
     * @param signer has the key; it is used for as long as this identity and what was made from it
     * @return the identity, to be closed
     * @throws SealcastException {@link Status#NO_DEVICE}, {@link Status#STORAGE}
     * @throws UnsatisfiedLinkError if libsealcast cannot be loaded
     */
    public static Identity open(Path folder, Signer signer) {
        return new Identity(Objects.requireNonNull(folder, "folder"), Objects.requireNonNull(signer, "signer"));
    }

    /**
     * Name of the device.
     *
     * @return its name in its site
     * @throws SealcastException {@link Status#CLOSED}, {@link Status#STORAGE}
     */
    public String name() {
        return use(this::info).name();
    }

    /**
     * Its site.
     *
     * @return 32 hexadecimal digits
     * @throws SealcastException {@link Status#CLOSED}, {@link Status#STORAGE}
     */
    public String siteId() {
        return use(this::info).siteId();
    }

    /**
     * The site's key server.
     *
     * @return {@code https://host:port}
     * @throws SealcastException {@link Status#CLOSED}, {@link Status#STORAGE}
     */
    public String keysUrl() {
        return use(this::info).keysUrl();
    }

    /**
     * Begins a subscriber.
     *
     * @param channel name of the channel
     * @return its options, to be joined
     */
    public Subscriber.Builder subscriber(String channel) {
        return new Subscriber.Builder(this, channel);
    }

    /**
     * Begins a publisher.
     *
     * @param channel name of the channel
     * @return its options, to be joined
     */
    public Publisher.Builder publisher(String channel) {
        return new Publisher.Builder(this, channel);
    }

    /** Closes it; publishers and subscribers that were made from it go on. */
    @Override
    public synchronized void close() {
        if (!isClosed) {
            isClosed = true;
            release();
        }
    }

    private <T> T use(Supplier<T> action) {
        hold();
        try {
            return action.get();
        } finally {
            release();
        }
    }

    // -- for what is made from it -----------------------------------------------------------------------------------

    /** What the folder holds now. */
    record Info(String name, String siteId, String keysUrl, Path certificateFile, Path keyFile, long generation) {
        private static final int SIZE = 8792;

        private static Info read(Memory memory) {
            return new Info(
                    memory.text(0),
                    memory.hex(64),
                    memory.text(80),
                    Path.of(memory.text(592)),
                    Path.of(memory.text(4688)),
                    memory.getLong(8784));
        }
    }

    Info info() {
        Memory memory = new Memory(Info.SIZE);
        Native.check(Native.library().identityGetInfo(handle, memory.address(), Info.SIZE));
        return Info.read(memory);
    }

    /** Null where the key is in the folder. */
    Signer signer() {
        return signer;
    }

    long handle() {
        return handle;
    }

    /** Why the signer did not sign last, for a failure that comes of it. */
    Throwable signFailure() {
        return signFailure;
    }

    /** Keeps the folder looked after until {@link #release}. */
    synchronized void hold() {
        if (isClosed) {
            throw Native.failure(Status.CLOSED, "the identity of folder " + folder + " has been closed");
        }
        users++;
    }

    synchronized void release() {
        users--;
        if (users == 0) {
            Native.library().identityFree(handle);
        }
    }
}
