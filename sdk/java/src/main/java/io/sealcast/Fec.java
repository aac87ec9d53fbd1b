package io.sealcast;

/** Which parity goes with the packets of a publisher: from it subscribers mend losses without asking. */
public final class Fec {
    /** What the channel's policy says. */
    public static final Fec POLICY = new Fec(0, 0, 0);
    /** None. */
    public static final Fec OFF = new Fec(1, 0, 0);
    /** As much as subscribers' losses ask for. */
    public static final Fec ADAPTIVE = new Fec(2, 0, 0);

    private final int code;
    private final int sources;
    private final int parities;

    private Fec(int code, int sources, int parities) {
        this.code = code;
        this.sources = sources;
        this.parities = parities;
    }

    /**
     * A fixed share.
     *
     * @param sources packets of data
     * @param parities packets of parity after them
     * @return the parity; whether there is such a one is told when the publisher is made
     * @throws SealcastException {@link Status#INVALID_ARGUMENT}: one of them is negative
     */
    public static Fec fixed(int sources, int parities) {
        return new Fec(
                3, Native.notNegative("sources", sources), Native.notNegative("parities", parities));
    }

    int code() {
        return code;
    }

    int sources() {
        return sources;
    }

    int parities() {
        return parities;
    }
}
