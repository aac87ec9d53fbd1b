package io.sealcast;

import java.lang.ref.Reference;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;

/** Memory that messages are taken into, many with one call. It is used again and again, and grows with what comes. */
final class MessageBuffer {
    private static final int MESSAGE_SIZE = 72;
    /** What one call takes: enough that its cost does not show, and stays in the processor's cache. */
    private static final int MAX_MESSAGES = 512;
    private static final int BYTES = 1 << 20;

    private final Memory messages = new Memory(MAX_MESSAGES * MESSAGE_SIZE);
    private final Memory count = new Memory(Long.BYTES);
    private Memory bytes = new Memory(BYTES);
    /** The texts that were met last: mostly the next message has the same. */
    private long streamHigh;
    private long streamLow;
    private String stream;
    private String publisher;

    /** Waits for messages, so many microseconds and messages at most; returns the status. */
    int fill(long subscriber, long timeout, int limit) {
        int status = Native.library().subscriberRecvMany(
                subscriber,
                timeout,
                bytes.address(),
                bytes.size(),
                messages.address(),
                MESSAGE_SIZE,
                Math.min(limit, MAX_MESSAGES),
                count.address());
        Reference.reachabilityFence(this);
        return status;
    }

    /** What the last call has brought. */
    List<Message> messages() {
        int number = Math.toIntExact(count.getLong(0));
        List<Message> read = new ArrayList<>(number);
        for (int place = 0; place < number; place++) {
            read.add(message(place * MESSAGE_SIZE));
        }
        return read;
    }

    /** Makes room for the message that did not fit: the last call has told its length. */
    void grow() {
        bytes = new Memory(Math.toIntExact(messages.getLong(8)));
    }

    private Message message(int at) {
        int length = Math.toIntExact(messages.getLong(at + 8));
        byte[] data = length == 0 ? new byte[0] : bytes.bytes(bytes.offset(messages.getLong(at)), length);
        long topic = messages.getLong(at + 16);
        long high = messages.getLong(at + 32);
        long low = messages.getLong(at + 40);
        if (stream == null || high != streamHigh || low != streamLow) {
            streamHigh = high;
            streamLow = low;
            stream = messages.hex(at + 32);
            publisher = bytes.text(bytes.offset(messages.getLong(at + 24)));
        }
        long time = messages.getLong(at + 64);
        return new Message(
                data,
                topic == 0 ? null : bytes.text(bytes.offset(topic)),
                publisher,
                stream,
                messages.getLong(at + 48),
                messages.getLong(at + 56),
                Instant.ofEpochSecond(time / 1_000_000, time % 1_000_000 * 1000));
    }
}
