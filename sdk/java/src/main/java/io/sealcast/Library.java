package io.sealcast;

import java.nio.ByteBuffer;
import java.util.function.Consumer;

/**
 * The C interface as a back end offers it: addresses and sizes are longs, the memory is {@link Memory}'s.
 *
 * <p>Each method is the function of its name in {@code sealcast.h}. What a struct holds is nobody's business here.
 */
interface Library {
    /** A function that signs, for the library to call. Keep it for as long as the library may. */
    record SignFunction(long address, Object held) {}

    /** Address of the first byte of a direct buffer. */
    long addressOf(ByteBuffer direct);

    /** The NUL-terminated text at an address. */
    String textAt(long address);

    /** Makes a signer callable; a failure is given to {@code failed}, and null where it has signed. */
    SignFunction signFunction(Signer signer, Consumer<Throwable> failed);

    int abiVersion();

    long version();

    int statusCategory(int status);

    long lastError(long buffer, long capacity);

    int knownAnswer(long concept, long question, long questionLength, long buffer, long capacity, long length);

    int identityOpen(long folder, long options, long identity);

    int identityFree(long identity);

    int identityGetInfo(long identity, long info, long size);

    int subscriberOptionsInit(long options, long size);

    int subscriberNew(long identity, long options, long subscriber);

    int subscriberFree(long subscriber);

    int subscriberJoin(long subscriber, long timeout);

    int subscriberNextRequest(long subscriber, long timeout, long buffer, long capacity, long request, long size);

    int subscriberVerifyServer(long subscriber, long id, long chain, long count);

    int subscriberRespond(long subscriber, long id, int httpStatus, long body, long length);

    int subscriberRecvMany(
            long subscriber,
            long timeout,
            long buffer,
            long capacity,
            long messages,
            long messageSize,
            long limit,
            long count);

    int subscriberNextEvent(long subscriber, long timeout, long event, long size);

    int subscriberGetCounters(long subscriber, long counters, long size);

    int subscriberLeave(long subscriber);

    int publisherOptionsInit(long options, long size);

    int publisherNew(long identity, long options, long publisher);

    int publisherFree(long publisher);

    int publisherJoin(long publisher, long timeout);

    int publisherNextRequest(long publisher, long timeout, long buffer, long capacity, long request, long size);

    int publisherVerifyServer(long publisher, long id, long chain, long count);

    int publisherRespond(long publisher, long id, int httpStatus, long body, long length);

    int publisherSendMany(long publisher, long messages, long count, long topic, long taken);

    int publisherWaitRoom(long publisher, long timeout);

    int publisherFinish(long publisher, long timeout);

    int publisherGetStream(long publisher, long stream);

    int publisherNextEvent(long publisher, long timeout, long event, long size);

    int publisherGetCounters(long publisher, long counters, long size);
}
