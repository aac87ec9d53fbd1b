package io.sealcast;

import java.net.URI;
import java.net.http.HttpRequest;
import java.time.Duration;
import java.time.temporal.ChronoUnit;

/** A request that the library wants made. */
record Request(long id, HttpRequest http, String peer, Duration timeout, long identityGeneration) {
    static final int SIZE = 72;

    /** Reads a {@code sealcast_request}, whose pointers lead to {@code buffer}. */
    static Request read(Memory request, Memory buffer) {
        String contentType = buffer.text(buffer.offset(request.getLong(32)));
        int length = Math.toIntExact(request.getLong(48));
        HttpRequest.BodyPublisher body = length == 0
                ? HttpRequest.BodyPublishers.noBody()
                : HttpRequest.BodyPublishers.ofByteArray(buffer.bytes(buffer.offset(request.getLong(40)), length));
        Duration timeout = Duration.of(request.getLong(56), ChronoUnit.MICROS);
        HttpRequest.Builder http = HttpRequest.newBuilder()
                .uri(URI.create(buffer.text(buffer.offset(request.getLong(16)))))
                .method(buffer.text(buffer.offset(request.getLong(8))), body)
                .timeout(timeout);
        if (!contentType.isEmpty()) {
            http.header("Content-Type", contentType);
        }
        String peer = buffer.text(buffer.offset(request.getLong(24)));
        return new Request(request.getLong(0), http.build(), peer, timeout, request.getLong(64));
    }
}
