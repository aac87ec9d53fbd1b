package io.sealcast;

import java.nio.charset.StandardCharsets;
import java.time.Instant;

/**
 * A verified message.
 *
 * @param data its bytes, which are the receiver's own
 * @param topic its topic; null where it has none
 * @param publisher who sent it, as the policy writes it: a device's name, or {@code <site id>:<name>} of another site
 * @param stream id of the publisher's stream, 32 hexadecimal digits
 * @param sequence sequence of the packet that completed it
 * @param messageId its number in the stream
 * @param time when it was sealed, to the microsecond
 */
public record Message(
        byte[] data, String topic, String publisher, String stream, long sequence, long messageId, Instant time) {
    /**
     * The bytes as text.
     *
     * @return {@code data} as UTF-8; what is none is replaced
     */
    public String text() {
        return new String(data, StandardCharsets.UTF_8);
    }
}
