package io.sealcast;

/**
 * What a publisher has counted since it was made.
 *
 * @param messages messages that were taken
 * @param abandoned of these, dropped by a hasty end
 * @param packets packets that were sent
 * @param parity of these, parity
 * @param blocks signatures
 * @param bytes bytes of all packets
 * @param repairsServed packets that were sent again on demand
 * @param queuedBytes bytes of messages that wait
 * @param pace thousandths of the policy's rate that are used now
 * @param sendErrors sends that the system refused; their packets come back by repair
 * @param droppedEvents events that nobody took
 */
public record PublisherCounters(
        long messages,
        long abandoned,
        long packets,
        long parity,
        long blocks,
        long bytes,
        long repairsServed,
        long queuedBytes,
        long pace,
        long sendErrors,
        long droppedEvents) {
    static final int SIZE = 88;

    static PublisherCounters read(Memory memory) {
        return new PublisherCounters(
                memory.getLong(0),
                memory.getLong(8),
                memory.getLong(16),
                memory.getLong(24),
                memory.getLong(32),
                memory.getLong(40),
                memory.getLong(48),
                memory.getLong(56),
                memory.getLong(64),
                memory.getLong(72),
                memory.getLong(80));
    }
}
