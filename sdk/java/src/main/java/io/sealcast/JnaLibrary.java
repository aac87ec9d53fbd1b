package io.sealcast;

import com.sun.jna.Callback;
import com.sun.jna.CallbackReference;
import com.sun.jna.Native;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import com.sun.jna.Structure;
import java.nio.ByteBuffer;
import java.util.function.Consumer;

/** The library by JNA's direct mapping. Addresses and sizes are longs: it is for 64-bit systems. */
final class JnaLibrary implements Library {
    JnaLibrary(String name) {
        if (Native.POINTER_SIZE != 8) {
            throw new UnsatisfiedLinkError("Sealcast needs a 64-bit JVM");
        }
        Native.register(JnaLibrary.class, NativeLibrary.getInstance(name));
    }

    /** A {@code sealcast_bytes} that is passed by value. JNA wants it public. */
    @Structure.FieldOrder({"data", "length"})
    public static final class Bytes extends Structure implements Structure.ByValue {
        /** Address of the first byte. */
        public long data;
        /** How many there are. */
        public long length;

        /** Nothing. */
        public Bytes() {}

        Bytes(long data, long length) {
            this.data = data;
            this.length = length;
        }
    }

    /** A {@code sealcast_sign}. JNA wants it public. */
    public interface Sign extends Callback {
        /**
         * Signs.
         *
         * @param context not used
         * @param message address of what is signed
         * @param messageLength its length in bytes
         * @param signature address of the room for the signature
         * @param signatureLength address of the bytes of that room, and then of the signature
         * @return 0, or anything else on failure
         */
        int invoke(Pointer context, Pointer message, long messageLength, Pointer signature, Pointer signatureLength);
    }

    @Override
    public long addressOf(ByteBuffer direct) {
        return Pointer.nativeValue(Native.getDirectBufferPointer(direct));
    }

    @Override
    public String textAt(long address) {
        return new Pointer(address).getString(0, "UTF-8");
    }

    @Override
    public SignFunction signFunction(Signer signer, Consumer<Throwable> failed) {
        Sign sign = (context, message, messageLength, signature, signatureLength) -> {
            try {
                byte[] made = signer.sign(message.getByteArray(0, Math.toIntExact(messageLength)));
                if (made.length > signatureLength.getLong(0)) {
                    throw new IllegalArgumentException("a signature of " + made.length + " bytes is too long");
                }
                signature.write(0, made, 0, made.length);
                signatureLength.setLong(0, made.length);
                failed.accept(null);
                return 0;
            } catch (Throwable error) {
                // Nothing must be thrown through the library.
                failed.accept(error);
                return 1;
            }
        };
        return new SignFunction(Pointer.nativeValue(CallbackReference.getFunctionPointer(sign)), sign);
    }

    private static native int sealcast_abi_version();

    private static native long sealcast_version();

    private static native int sealcast_status_category(int status);

    private static native long sealcast_last_error(long buffer, long capacity);

    private static native int sealcast_known_answer(
            long concept, Bytes question, long buffer, long capacity, long length);

    private static native int sealcast_identity_open(long folder, long options, long identity);

    private static native int sealcast_identity_free(long identity);

    private static native int sealcast_identity_get_info(long identity, long info, long size);

    private static native int sealcast_subscriber_options_init(long options, long size);

    private static native int sealcast_subscriber_new(long identity, long options, long now, long subscriber);

    private static native int sealcast_subscriber_free(long subscriber);

    private static native int sealcast_subscriber_join(long subscriber, long timeout);

    private static native int sealcast_subscriber_next_request(
            long subscriber, long timeout, long buffer, long capacity, long request, long size);

    private static native int sealcast_subscriber_verify_server(long subscriber, long id, long chain, long count);

    private static native int sealcast_subscriber_respond(long subscriber, long id, int httpStatus, Bytes body);

    private static native int sealcast_subscriber_recv_many(
            long subscriber,
            long timeout,
            long buffer,
            long capacity,
            long messages,
            long messageSize,
            long limit,
            long count);

    private static native int sealcast_subscriber_next_event(long subscriber, long timeout, long event, long size);

    private static native int sealcast_subscriber_get_counters(long subscriber, long counters, long size);

    private static native int sealcast_subscriber_leave(long subscriber);

    private static native int sealcast_publisher_options_init(long options, long size);

    private static native int sealcast_publisher_new(long identity, long options, long now, long publisher);

    private static native int sealcast_publisher_free(long publisher);

    private static native int sealcast_publisher_join(long publisher, long timeout);

    private static native int sealcast_publisher_next_request(
            long publisher, long timeout, long buffer, long capacity, long request, long size);

    private static native int sealcast_publisher_verify_server(long publisher, long id, long chain, long count);

    private static native int sealcast_publisher_respond(long publisher, long id, int httpStatus, Bytes body);

    private static native int sealcast_publisher_send_many(
            long publisher, long messages, long count, long topic, long taken);

    private static native int sealcast_publisher_wait_room(long publisher, long timeout);

    private static native int sealcast_publisher_finish(long publisher, long timeout);

    private static native int sealcast_publisher_get_stream(long publisher, long stream);

    private static native int sealcast_publisher_next_event(long publisher, long timeout, long event, long size);

    private static native int sealcast_publisher_get_counters(long publisher, long counters, long size);

    @Override
    public int abiVersion() {
        return sealcast_abi_version();
    }

    @Override
    public long version() {
        return sealcast_version();
    }

    @Override
    public int statusCategory(int status) {
        return sealcast_status_category(status);
    }

    @Override
    public long lastError(long buffer, long capacity) {
        return sealcast_last_error(buffer, capacity);
    }

    @Override
    public int knownAnswer(
            long concept, long question, long questionLength, long buffer, long capacity, long length) {
        return sealcast_known_answer(concept, new Bytes(question, questionLength), buffer, capacity, length);
    }

    @Override
    public int identityOpen(long folder, long options, long identity) {
        return sealcast_identity_open(folder, options, identity);
    }

    @Override
    public int identityFree(long identity) {
        return sealcast_identity_free(identity);
    }

    @Override
    public int identityGetInfo(long identity, long info, long size) {
        return sealcast_identity_get_info(identity, info, size);
    }

    @Override
    public int subscriberOptionsInit(long options, long size) {
        return sealcast_subscriber_options_init(options, size);
    }

    @Override
    public int subscriberNew(long identity, long options, long subscriber) {
        return sealcast_subscriber_new(identity, options, 0, subscriber);
    }

    @Override
    public int subscriberFree(long subscriber) {
        return sealcast_subscriber_free(subscriber);
    }

    @Override
    public int subscriberJoin(long subscriber, long timeout) {
        return sealcast_subscriber_join(subscriber, timeout);
    }

    @Override
    public int subscriberNextRequest(
            long subscriber, long timeout, long buffer, long capacity, long request, long size) {
        return sealcast_subscriber_next_request(subscriber, timeout, buffer, capacity, request, size);
    }

    @Override
    public int subscriberVerifyServer(long subscriber, long id, long chain, long count) {
        return sealcast_subscriber_verify_server(subscriber, id, chain, count);
    }

    @Override
    public int subscriberRespond(long subscriber, long id, int httpStatus, long body, long length) {
        return sealcast_subscriber_respond(subscriber, id, httpStatus, new Bytes(body, length));
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
        return sealcast_subscriber_recv_many(
                subscriber, timeout, buffer, capacity, messages, messageSize, limit, count);
    }

    @Override
    public int subscriberNextEvent(long subscriber, long timeout, long event, long size) {
        return sealcast_subscriber_next_event(subscriber, timeout, event, size);
    }

    @Override
    public int subscriberGetCounters(long subscriber, long counters, long size) {
        return sealcast_subscriber_get_counters(subscriber, counters, size);
    }

    @Override
    public int subscriberLeave(long subscriber) {
        return sealcast_subscriber_leave(subscriber);
    }

    @Override
    public int publisherOptionsInit(long options, long size) {
        return sealcast_publisher_options_init(options, size);
    }

    @Override
    public int publisherNew(long identity, long options, long publisher) {
        return sealcast_publisher_new(identity, options, 0, publisher);
    }

    @Override
    public int publisherFree(long publisher) {
        return sealcast_publisher_free(publisher);
    }

    @Override
    public int publisherJoin(long publisher, long timeout) {
        return sealcast_publisher_join(publisher, timeout);
    }

    @Override
    public int publisherNextRequest(
            long publisher, long timeout, long buffer, long capacity, long request, long size) {
        return sealcast_publisher_next_request(publisher, timeout, buffer, capacity, request, size);
    }

    @Override
    public int publisherVerifyServer(long publisher, long id, long chain, long count) {
        return sealcast_publisher_verify_server(publisher, id, chain, count);
    }

    @Override
    public int publisherRespond(long publisher, long id, int httpStatus, long body, long length) {
        return sealcast_publisher_respond(publisher, id, httpStatus, new Bytes(body, length));
    }

    @Override
    public int publisherSendMany(long publisher, long messages, long count, long topic, long taken) {
        return sealcast_publisher_send_many(publisher, messages, count, topic, taken);
    }

    @Override
    public int publisherWaitRoom(long publisher, long timeout) {
        return sealcast_publisher_wait_room(publisher, timeout);
    }

    @Override
    public int publisherFinish(long publisher, long timeout) {
        return sealcast_publisher_finish(publisher, timeout);
    }

    @Override
    public int publisherGetStream(long publisher, long stream) {
        return sealcast_publisher_get_stream(publisher, stream);
    }

    @Override
    public int publisherNextEvent(long publisher, long timeout, long event, long size) {
        return sealcast_publisher_next_event(publisher, timeout, event, size);
    }

    @Override
    public int publisherGetCounters(long publisher, long counters, long size) {
        return sealcast_publisher_get_counters(publisher, counters, size);
    }
}
