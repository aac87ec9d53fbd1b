package io.sealcast;

/**
 * What went wrong, on one line with the value and the cure. It holds no secret.
 *
 * <p>Decide by {@link #category()}, which knows every status, also those that are younger than this version.
 */
public final class SealcastException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    /** What happened. */
    private final Status status;
    /** What can be done about it. */
    private final Category category;

    SealcastException(Status status, Category category, String text, Throwable cause) {
        super(text, cause);
        this.status = status;
        this.category = category;
    }

    /**
     * What happened, exactly.
     *
     * @return {@link Status#UNKNOWN} where this version has no name for it
     */
    public Status status() {
        return status;
    }

    /**
     * What a caller can do about it.
     *
     * @return the category of the status
     */
    public Category category() {
        return category;
    }
}
