package io.sealcast;

/** From where on streams that run already are delivered. */
public enum Start {
    /** From now on. */
    NOW(0),
    /** The last value of each topic first, where publishers retain them. */
    LAST(1),
    /** From the beginning, as far as publishers retain it and this device was a member. */
    START(2);

    private final int code;

    Start(int code) {
        this.code = code;
    }

    int code() {
        return code;
    }
}
