package io.sealcast;

/** The calls that publishers and subscribers have in common, on one handle. Each is the function of its name. */
interface SessionCalls {
    /** Bytes that hold any request: the longest are a publisher's packets for a repair node. */
    int requestBytes();

    int free();

    int join(long timeout);

    int nextRequest(long timeout, long buffer, long capacity, long request, long size);

    int verifyServer(long id, long chain, long count);

    int respond(long id, int httpStatus, long body, long length);

    int nextEvent(long timeout, long event, long size);

    static SessionCalls ofSubscriber(Library library, long handle) {
        return new SessionCalls() {
            @Override
            public int requestBytes() {
                return (1 << 16) + 4096;
            }

            @Override
            public int free() {
                return library.subscriberFree(handle);
            }

            @Override
            public int join(long timeout) {
                return library.subscriberJoin(handle, timeout);
            }

            @Override
            public int nextRequest(long timeout, long buffer, long capacity, long request, long size) {
                return library.subscriberNextRequest(handle, timeout, buffer, capacity, request, size);
            }

            @Override
            public int verifyServer(long id, long chain, long count) {
                return library.subscriberVerifyServer(handle, id, chain, count);
            }

            @Override
            public int respond(long id, int httpStatus, long body, long length) {
                return library.subscriberRespond(handle, id, httpStatus, body, length);
            }

            @Override
            public int nextEvent(long timeout, long event, long size) {
                return library.subscriberNextEvent(handle, timeout, event, size);
            }
        };
    }

    static SessionCalls ofPublisher(Library library, long handle) {
        return new SessionCalls() {
            @Override
            public int requestBytes() {
                return (1 << 20) + 4096;
            }

            @Override
            public int free() {
                return library.publisherFree(handle);
            }

            @Override
            public int join(long timeout) {
                return library.publisherJoin(handle, timeout);
            }

            @Override
            public int nextRequest(long timeout, long buffer, long capacity, long request, long size) {
                return library.publisherNextRequest(handle, timeout, buffer, capacity, request, size);
            }

            @Override
            public int verifyServer(long id, long chain, long count) {
                return library.publisherVerifyServer(handle, id, chain, count);
            }

            @Override
            public int respond(long id, int httpStatus, long body, long length) {
                return library.publisherRespond(handle, id, httpStatus, body, length);
            }

            @Override
            public int nextEvent(long timeout, long event, long size) {
                return library.publisherNextEvent(handle, timeout, event, size);
            }
        };
    }
}
