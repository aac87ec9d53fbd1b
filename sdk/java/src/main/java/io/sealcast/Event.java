package io.sealcast;

/**
 * One fact that is no message. Numbers that a kind does not use are 0, texts empty.
 *
 * @param kind what it is about, and what {@code first} and {@code last} mean
 * @param stream id of the stream, 32 hexadecimal digits; empty where none is concerned
 * @param first see {@link EventKind}
 * @param last see {@link EventKind}
 * @param publisher whose stream it is, as the policy writes it
 * @param text one line for a person, without secrets
 */
public record Event(EventKind kind, String stream, long first, long last, String publisher, String text) {
    static final int SIZE = 424;
    private static final int STREAM = 4;
    private static final int FIRST = 24;
    private static final int LAST = 32;
    private static final int PUBLISHER = 40;
    private static final int TEXT = 168;

    static Event read(Memory memory) {
        String stream = memory.hex(STREAM);
        return new Event(
                EventKind.of(memory.getInt(0)),
                stream.equals("0".repeat(stream.length())) ? "" : stream,
                memory.getLong(FIRST),
                memory.getLong(LAST),
                memory.text(PUBLISHER),
                memory.text(TEXT));
    }
}
