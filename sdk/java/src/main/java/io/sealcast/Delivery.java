package io.sealcast;

/** In what order messages come, and whether they wait for what is lost. */
public enum Delivery {
    /** All of them, in order. */
    RELIABLE(0),
    /** In order; what is not there a deadline after it was sent is passed over. */
    REALTIME(1),
    /** All of them, as they come. */
    UNORDERED(2);

    private final int code;

    Delivery(int code) {
        this.code = code;
    }

    int code() {
        return code;
    }
}
