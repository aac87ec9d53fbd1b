package io.sealcast;

/** The library that this package stands on. */
public final class Sealcast {
    private Sealcast() {}

    /**
     * Version of libsealcast, which is loaded if it is not yet.
     *
     * @return such as {@code 0.1.0}
     * @throws UnsatisfiedLinkError if it cannot be loaded, or is not of this package's interface
     */
    public static String libraryVersion() {
        return Native.library().textAt(Native.library().version());
    }
}
