package io.sealcast;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.StructLayout;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.nio.ByteBuffer;
import java.util.function.Consumer;

/** The library by the JDK's own foreign functions. Addresses and sizes are longs: it is for 64-bit systems. */
final class ForeignLibrary implements Library {
    private static final StructLayout BYTES =
            MemoryLayout.structLayout(JAVA_LONG.withName("data"), JAVA_LONG.withName("length"));
    private static final Linker LINKER = Linker.nativeLinker();
    /** Known before this class is: only as constants are the handles below fast. */
    private static final SymbolLookup LOOKUP = Backend.lookup;

    private static final MethodHandle ABI_VERSION = find("sealcast_abi_version", JAVA_INT);
    private static final MethodHandle VERSION = find("sealcast_version", JAVA_LONG);
    private static final MethodHandle STATUS_CATEGORY = find("sealcast_status_category", JAVA_INT, JAVA_INT);
    private static final MethodHandle LAST_ERROR = find("sealcast_last_error", JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle KNOWN_ANSWER =
            find("sealcast_known_answer", JAVA_INT, JAVA_LONG, BYTES, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle IDENTITY_OPEN =
            find("sealcast_identity_open", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle IDENTITY_FREE = find("sealcast_identity_free", JAVA_INT, JAVA_LONG);
    private static final MethodHandle IDENTITY_GET_INFO =
            find("sealcast_identity_get_info", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_OPTIONS_INIT =
            find("sealcast_subscriber_options_init", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_NEW =
            find("sealcast_subscriber_new", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_FREE = find("sealcast_subscriber_free", JAVA_INT, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_JOIN =
            find("sealcast_subscriber_join", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_NEXT_REQUEST =
            find(
                    "sealcast_subscriber_next_request",
                    JAVA_INT,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_VERIFY_SERVER =
            find("sealcast_subscriber_verify_server", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_RESPOND =
            find("sealcast_subscriber_respond", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT, BYTES);
    private static final MethodHandle SUBSCRIBER_RECV_MANY =
            find(
                    "sealcast_subscriber_recv_many",
                    JAVA_INT,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_NEXT_EVENT =
            find("sealcast_subscriber_next_event", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_GET_COUNTERS =
            find("sealcast_subscriber_get_counters", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle SUBSCRIBER_LEAVE = find("sealcast_subscriber_leave", JAVA_INT, JAVA_LONG);
    private static final MethodHandle PUBLISHER_OPTIONS_INIT =
            find("sealcast_publisher_options_init", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_NEW =
            find("sealcast_publisher_new", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_FREE = find("sealcast_publisher_free", JAVA_INT, JAVA_LONG);
    private static final MethodHandle PUBLISHER_JOIN =
            find("sealcast_publisher_join", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_NEXT_REQUEST =
            find(
                    "sealcast_publisher_next_request",
                    JAVA_INT,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG,
                    JAVA_LONG);
    private static final MethodHandle PUBLISHER_VERIFY_SERVER =
            find("sealcast_publisher_verify_server", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_RESPOND =
            find("sealcast_publisher_respond", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT, BYTES);
    private static final MethodHandle PUBLISHER_SEND_MANY =
            find("sealcast_publisher_send_many", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_WAIT_ROOM =
            find("sealcast_publisher_wait_room", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_FINISH =
            find("sealcast_publisher_finish", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_GET_STREAM =
            find("sealcast_publisher_get_stream", JAVA_INT, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_NEXT_EVENT =
            find("sealcast_publisher_next_event", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG);
    private static final MethodHandle PUBLISHER_GET_COUNTERS =
            find("sealcast_publisher_get_counters", JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_LONG);

    private static MethodHandle find(String name, MemoryLayout result, MemoryLayout... parameters) {
        MemorySegment function = LOOKUP.find(name)
                .orElseThrow(() -> new UnsatisfiedLinkError("libsealcast has no " + name));
        return LINKER.downcallHandle(function, FunctionDescriptor.of(result, parameters));
    }

    private static MemorySegment bytes(Arena arena, long data, long length) {
        MemorySegment bytes = arena.allocate(BYTES);
        bytes.set(JAVA_LONG, 0, data);
        bytes.set(JAVA_LONG, Long.BYTES, length);
        return bytes;
    }

    /** The library throws nothing: what a call throws is the JDK's. */
    private static RuntimeException unexpected(Throwable error) {
        if (error instanceof Error serious) {
            throw serious;
        }
        return error instanceof RuntimeException known ? known : new IllegalStateException(error);
    }

    @Override
    public long addressOf(ByteBuffer direct) {
        return MemorySegment.ofBuffer(direct).address();
    }

    @Override
    public String textAt(long address) {
        return MemorySegment.ofAddress(address).reinterpret(Long.MAX_VALUE).getString(0);
    }

    @Override
    public SignFunction signFunction(Signer signer, Consumer<Throwable> failed) {
        Arena arena = Arena.ofAuto();
        MethodType type = MethodType.methodType(
                int.class,
                MemorySegment.class,
                MemorySegment.class,
                long.class,
                MemorySegment.class,
                MemorySegment.class);
        try {
            MethodHandle method =
                    MethodHandles.lookup().bind(new Callback(signer, failed), "sign", type);
            FunctionDescriptor description =
                    FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS, JAVA_LONG, ADDRESS, ADDRESS);
            MemorySegment stub = LINKER.upcallStub(method, description, arena);
            return new SignFunction(stub.address(), stub);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }

    /** What the library calls to have something signed. */
    private record Callback(Signer signer, Consumer<Throwable> failed) {
        int sign(
                MemorySegment context,
                MemorySegment message,
                long messageLength,
                MemorySegment signature,
                MemorySegment signatureLength) {
            try {
                byte[] made = signer.sign(message.reinterpret(messageLength).toArray(JAVA_BYTE));
                MemorySegment length = signatureLength.reinterpret(Long.BYTES);
                long room = length.get(JAVA_LONG, 0);
                if (made.length > room) {
                    throw new IllegalArgumentException("a signature of " + made.length + " bytes is too long");
                }
                MemorySegment.copy(made, 0, signature.reinterpret(room), JAVA_BYTE, 0, made.length);
                length.set(JAVA_LONG, 0, made.length);
                failed.accept(null);
                return 0;
            } catch (Throwable error) {
                // Nothing must be thrown through the library.
                failed.accept(error);
                return 1;
            }
        }
    }

    @Override
    public int abiVersion() {
        try {
            return (int) ABI_VERSION.invokeExact();
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public long version() {
        try {
            return (long) VERSION.invokeExact();
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int statusCategory(int status) {
        try {
            return (int) STATUS_CATEGORY.invokeExact(status);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public long lastError(long buffer, long capacity) {
        try {
            return (long) LAST_ERROR.invokeExact(buffer, capacity);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int knownAnswer(
            long concept, long question, long questionLength, long buffer, long capacity, long length) {
        try (Arena arena = Arena.ofConfined()) {
            MemorySegment bytes = bytes(arena, question, questionLength);
            return (int) KNOWN_ANSWER.invokeExact(concept, bytes, buffer, capacity, length);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int identityOpen(long folder, long options, long identity) {
        try {
            return (int) IDENTITY_OPEN.invokeExact(folder, options, identity);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int identityFree(long identity) {
        try {
            return (int) IDENTITY_FREE.invokeExact(identity);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int identityGetInfo(long identity, long info, long size) {
        try {
            return (int) IDENTITY_GET_INFO.invokeExact(identity, info, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberOptionsInit(long options, long size) {
        try {
            return (int) SUBSCRIBER_OPTIONS_INIT.invokeExact(options, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberNew(long identity, long options, long subscriber) {
        try {
            return (int) SUBSCRIBER_NEW.invokeExact(identity, options, 0L, subscriber);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberFree(long subscriber) {
        try {
            return (int) SUBSCRIBER_FREE.invokeExact(subscriber);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberJoin(long subscriber, long timeout) {
        try {
            return (int) SUBSCRIBER_JOIN.invokeExact(subscriber, timeout);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberNextRequest(
            long subscriber, long timeout, long buffer, long capacity, long request, long size) {
        try {
            return (int) SUBSCRIBER_NEXT_REQUEST.invokeExact(subscriber, timeout, buffer, capacity, request, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberVerifyServer(long subscriber, long id, long chain, long count) {
        try {
            return (int) SUBSCRIBER_VERIFY_SERVER.invokeExact(subscriber, id, chain, count);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberRespond(long subscriber, long id, int httpStatus, long body, long length) {
        try (Arena arena = Arena.ofConfined()) {
            return (int) SUBSCRIBER_RESPOND.invokeExact(subscriber, id, httpStatus, bytes(arena, body, length));
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberRecvMany(
            long subscriber,
            long timeout,
            long buffer,
            long capacity,
            long messages,
            long messageSize,
            long limit,
            long count) {
        try {
            return (int)
                    SUBSCRIBER_RECV_MANY.invokeExact(
                            subscriber, timeout, buffer, capacity, messages, messageSize, limit, count);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberNextEvent(long subscriber, long timeout, long event, long size) {
        try {
            return (int) SUBSCRIBER_NEXT_EVENT.invokeExact(subscriber, timeout, event, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberGetCounters(long subscriber, long counters, long size) {
        try {
            return (int) SUBSCRIBER_GET_COUNTERS.invokeExact(subscriber, counters, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int subscriberLeave(long subscriber) {
        try {
            return (int) SUBSCRIBER_LEAVE.invokeExact(subscriber);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherOptionsInit(long options, long size) {
        try {
            return (int) PUBLISHER_OPTIONS_INIT.invokeExact(options, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherNew(long identity, long options, long publisher) {
        try {
            return (int) PUBLISHER_NEW.invokeExact(identity, options, 0L, publisher);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherFree(long publisher) {
        try {
            return (int) PUBLISHER_FREE.invokeExact(publisher);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherJoin(long publisher, long timeout) {
        try {
            return (int) PUBLISHER_JOIN.invokeExact(publisher, timeout);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherNextRequest(
            long publisher, long timeout, long buffer, long capacity, long request, long size) {
        try {
            return (int) PUBLISHER_NEXT_REQUEST.invokeExact(publisher, timeout, buffer, capacity, request, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherVerifyServer(long publisher, long id, long chain, long count) {
        try {
            return (int) PUBLISHER_VERIFY_SERVER.invokeExact(publisher, id, chain, count);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherRespond(long publisher, long id, int httpStatus, long body, long length) {
        try (Arena arena = Arena.ofConfined()) {
            return (int) PUBLISHER_RESPOND.invokeExact(publisher, id, httpStatus, bytes(arena, body, length));
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherSendMany(long publisher, long messages, long count, long topic, long taken) {
        try {
            return (int) PUBLISHER_SEND_MANY.invokeExact(publisher, messages, count, topic, taken);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherWaitRoom(long publisher, long timeout) {
        try {
            return (int) PUBLISHER_WAIT_ROOM.invokeExact(publisher, timeout);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherFinish(long publisher, long timeout) {
        try {
            return (int) PUBLISHER_FINISH.invokeExact(publisher, timeout);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherGetStream(long publisher, long stream) {
        try {
            return (int) PUBLISHER_GET_STREAM.invokeExact(publisher, stream);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherNextEvent(long publisher, long timeout, long event, long size) {
        try {
            return (int) PUBLISHER_NEXT_EVENT.invokeExact(publisher, timeout, event, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }

    @Override
    public int publisherGetCounters(long publisher, long counters, long size) {
        try {
            return (int) PUBLISHER_GET_COUNTERS.invokeExact(publisher, counters, size);
        } catch (Throwable error) {
            throw unexpected(error);
        }
    }
}
