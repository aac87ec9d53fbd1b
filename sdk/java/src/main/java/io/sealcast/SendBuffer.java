package io.sealcast;

import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Memory that messages are given to the library in, many with one call. It is used again and again; one thread at a
 * time.
 */
final class SendBuffer {
    private static final int BYTES_SIZE = 16;
    /** What one call gives: enough that its cost does not show. */
    private static final int MAX_MESSAGES = 512;
    private static final int BYTES = 1 << 20;

    private final Memory list = new Memory(MAX_MESSAGES * BYTES_SIZE);
    private final Memory taken = new Memory(Long.BYTES);
    private Memory bytes = new Memory(BYTES);
    /** The topic that was used last: mostly the next message has the same. */
    private String topic;
    private Memory topicText;

    /** Queues as many as fit into one call; returns the status. */
    int send(long publisher, List<ByteBuffer> messages, String toTopic) {
        int count = 0;
        int used = 0;
        for (ByteBuffer message : messages) {
            int length = message.remaining();
            if (count == MAX_MESSAGES || (count > 0 && length > bytes.size() - used)) {
                break;
            }
            if (length > bytes.size()) {
                bytes = new Memory(length);
            }
            bytes.put(used, message);
            list.putLong(count * BYTES_SIZE, bytes.address() + used);
            list.putLong(count * BYTES_SIZE + Long.BYTES, length);
            used += length;
            count++;
        }
        if (toTopic != null && !toTopic.equals(topic)) {
            topicText = Memory.ofText(toTopic);
            topic = toTopic;
        }
        long topicAddress = toTopic == null ? 0 : topicText.address();
        int status = Native.library()
                .publisherSendMany(publisher, list.address(), count, topicAddress, taken.address());
        Reference.reachabilityFence(this);
        return status;
    }

    /** How many the last call has queued. */
    int taken() {
        return Math.toIntExact(taken.getLong(0));
    }
}
