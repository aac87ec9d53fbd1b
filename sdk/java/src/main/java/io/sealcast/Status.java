package io.sealcast;

import java.util.Locale;

/** What became of a call of the library, by its stable number. */
public enum Status {
    /** Done. */
    OK(0),
    /** Nothing came in the time that was given. */
    TIMEOUT(1),
    /** It has ended: nothing will come any more. */
    CLOSED(2),
    /** A pointer that must not be NULL is. */
    NULL_ARGUMENT(10),
    /** No such handle. */
    INVALID_HANDLE(11),
    /** The size of a struct is none that the library knows. */
    WRONG_SIZE(12),
    /** A value is out of its range. */
    INVALID_ARGUMENT(13),
    /** A string is no UTF-8. */
    INVALID_TEXT(14),
    /** A buffer is too small. */
    BUFFER_TOO_SMALL(15),
    /** Another thread is in a call that only one may be in. */
    IN_USE(16),
    /** A callback called the library. */
    REENTRANT(17),
    /** The queue of messages is full. */
    QUEUE_FULL(19),
    /** The message or topic is too long. */
    TOO_LONG(20),
    /** There is no such request. */
    UNKNOWN_REQUEST(21),
    /** The stream has used up its numbers. */
    EXHAUSTED(22),
    /** The network interface or address cannot be used. */
    INTERFACE(30),
    /** The folder holds no device. */
    NO_DEVICE(40),
    /** The certificate is refused, of this device or of another side. */
    CERTIFICATE(50),
    /** The device has been removed from its site. */
    REVOKED(51),
    /** The device key did not sign. */
    SIGNING(52),
    /** The policy does not let the device do this. */
    NOT_ALLOWED(60),
    /** The site has no such channel. */
    UNKNOWN_CHANNEL(61),
    /** Nobody answers. */
    UNREACHABLE(71),
    /** A file or folder cannot be read or written, or is damaged. */
    STORAGE(80),
    /** Not everything could be done. */
    INCOMPLETE(90),
    /** A fault of the library. */
    INTERNAL(100),
    /** One that this version does not know: go by its {@link SealcastException#category() category}. */
    UNKNOWN(-1);

    private final int code;

    Status(int code) {
        this.code = code;
    }

    /**
     * The library's number for it.
     *
     * @return a number that never changes; -1 of {@link #UNKNOWN}
     */
    public int code() {
        return code;
    }

    /**
     * The name that the command line and the other languages use.
     *
     * @return such as {@code not-allowed}
     */
    public String label() {
        return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }

    static Status of(int code) {
        for (Status status : values()) {
            if (status.code == code) {
                return status;
            }
        }
        return UNKNOWN;
    }
}
