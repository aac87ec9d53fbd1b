package io.sealcast;

import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;

/** A piece of memory outside the heap, which the library reads and writes. It is freed when nothing refers to it. */
final class Memory {
    private final ByteBuffer buffer;
    private final long address;
    /** What addresses in this piece lead to. */
    private final List<Memory> held = new ArrayList<>();

    Memory(int size) {
        this(ByteBuffer.allocateDirect(size));
    }

    private Memory(ByteBuffer direct) {
        buffer = direct.order(ByteOrder.nativeOrder());
        address = Native.library().addressOf(direct);
    }

    /** The text with its NUL. */
    static Memory ofText(String text) {
        if (text.indexOf('\0') >= 0) {
            throw Native.usage("a text must not hold the character NUL: " + text.replace('\0', '?'));
        }
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        Memory memory = new Memory(bytes.length + 1);
        memory.put(0, bytes);
        return memory;
    }

    long address() {
        return address;
    }

    int size() {
        return buffer.capacity();
    }

    /** Offset of an address that the library has written. */
    int offset(long of) {
        return Math.toIntExact(of - address);
    }

    int getInt(int at) {
        return buffer.getInt(at);
    }

    long getLong(int at) {
        return buffer.getLong(at);
    }

    void putInt(int at, int value) {
        buffer.putInt(at, value);
    }

    void putLong(int at, long value) {
        buffer.putLong(at, value);
    }

    void put(int at, byte[] bytes) {
        buffer.put(at, bytes);
    }

    void put(int at, ByteBuffer bytes) {
        buffer.put(at, bytes, bytes.position(), bytes.remaining());
    }

    /** Writes the address of a text; null leaves the NULL that is there. */
    void putText(int at, String text) {
        if (text != null) {
            Memory memory = ofText(text);
            held.add(memory);
            buffer.putLong(at, memory.address);
        }
    }

    byte[] bytes(int at, int length) {
        byte[] bytes = new byte[length];
        buffer.get(at, bytes);
        return bytes;
    }

    /** The NUL-terminated text at an offset. */
    String text(int at) {
        int end = at;
        while (buffer.get(end) != 0) {
            end++;
        }
        return new String(bytes(at, end - at), StandardCharsets.UTF_8);
    }

    /** The 16 bytes of an id, as hexadecimal digits. */
    String hex(int at) {
        return HexFormat.of().formatHex(bytes(at, 16));
    }

    /** Says that the library was allowed to use this until here. */
    void keep() {
        Reference.reachabilityFence(this);
    }
}
