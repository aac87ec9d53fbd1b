package io.sealcast;

/**
 * What a subscriber has counted since it was made.
 *
 * @param accepted packets that were taken
 * @param repaired of these, by repair
 * @param rebuilt of these, made from parity
 * @param lost packets that are lost for good
 * @param rejected packets that were refused, whatever the reason
 * @param rejectedSignature of these, whose signature is not their publisher's
 * @param datagrams datagrams that the socket received
 * @param droppedByKernel datagrams that the system dropped because nobody took them
 * @param droppedEvents events that nobody took
 * @param streams streams that run
 */
public record SubscriberCounters(
        long accepted,
        long repaired,
        long rebuilt,
        long lost,
        long rejected,
        long rejectedSignature,
        long datagrams,
        long droppedByKernel,
        long droppedEvents,
        long streams) {
    static final int SIZE = 80;

    static SubscriberCounters read(Memory memory) {
        return new SubscriberCounters(
                memory.getLong(0),
                memory.getLong(8),
                memory.getLong(16),
                memory.getLong(24),
                memory.getLong(32),
                memory.getLong(40),
                memory.getLong(48),
                memory.getLong(56),
                memory.getLong(64),
                memory.getLong(72));
    }
}
