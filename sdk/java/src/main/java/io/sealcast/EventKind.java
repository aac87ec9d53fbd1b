package io.sealcast;

import java.util.Locale;

/** What an event is about. */
public enum EventKind {
    /** The key server took the device in. */
    JOINED(1),
    /**
     * The packets {@code first} to {@code last} of a stream are lost for good; {@code last} is -1 where its publisher
     * is gone.
     */
    GAP(2),
    /** The message {@code first} will not be delivered, though its packets came or were told of. */
    MESSAGE_LOST(3),
    /** A publisher began a stream. */
    STREAM_STARTED(4),
    /** A stream ended as its publisher wished; {@code first} is the sequence behind its last packet. */
    STREAM_ENDED(5),
    /** A running stream is not accepted any more: its publisher was removed, or its certificate has ended. */
    STREAM_CLOSED(6),
    /** Two signed words for the packet {@code first} of a stream: an alarm. */
    EQUIVOCATION(7),
    /** A second successor of a stream: an alarm. */
    SUCCESSION_CONFLICT(8),
    /** Packets are sealed under other keys. */
    EPOCH_CHANGED(9),
    /** A secret is not what the key server signed for: an alarm. */
    COMMITMENT_MISMATCH(10),
    /** The policy has changed; {@code first} is its version. */
    POLICY_CHANGED(11),
    /** The key server refuses the device. */
    REFUSED(12),
    /** No word of the key server since {@code first}, in microseconds since 1970-01-01 UTC. */
    OUT_OF_CONTACT(13),
    /** A source of repair did not give what it should hold. */
    SOURCE_PASSED_OVER(14),
    /** A publisher cannot seal just now. */
    BLOCKED(15),
    /** One that this version does not know: pass over it. */
    UNKNOWN(-1);

    private final int code;

    EventKind(int code) {
        this.code = code;
    }

    /**
     * The name that the command line and the other languages use.
     *
     * @return such as {@code stream-started}
     */
    public String label() {
        return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }

    static EventKind of(int code) {
        for (EventKind kind : values()) {
            if (kind.code == code) {
                return kind;
            }
        }
        return UNKNOWN;
    }
}
