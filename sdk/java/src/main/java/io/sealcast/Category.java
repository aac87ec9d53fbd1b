package io.sealcast;

/** What a caller can do about a failure. The codes are the exit codes of the {@code sealcast} command. */
public enum Category {
    /** No error. */
    NONE(0),
    /** A fault of the library. */
    INTERNAL(1),
    /** The caller's. */
    USAGE(2),
    /** Configuration, network interface. */
    CONFIGURATION(3),
    /** Enrolment. */
    ENROLMENT(4),
    /** Certificate, trust. */
    CERTIFICATE(5),
    /** The channel is unknown, or not allowed. */
    CHANNEL(6),
    /** Network, unreachable. */
    NETWORK(7),
    /** Storage. */
    STORAGE(8),
    /** Incomplete. */
    INCOMPLETE(9),
    /** One that this version does not know. */
    UNKNOWN(-1);

    private final int code;

    Category(int code) {
        this.code = code;
    }

    /**
     * The exit code of the command line.
     *
     * @return 0 to 9; -1 of {@link #UNKNOWN}
     */
    public int code() {
        return code;
    }

    static Category of(int code) {
        for (Category category : values()) {
            if (category.code == code) {
                return category;
            }
        }
        return UNKNOWN;
    }
}
