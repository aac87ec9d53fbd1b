package io.sealcast;

import java.io.IOException;
import java.net.http.HttpClient;
import java.net.http.HttpResponse;
import java.security.GeneralSecurityException;
import java.time.Duration;
import java.util.concurrent.Executor;

/**
 * Connections to one peer, with one certificate of the device: no connection that was judged as somebody's is used for
 * another.
 */
final class PeerClient {
    private static final Duration CONNECT = Duration.ofSeconds(5);

    private final HttpClient http;
    private final PeerJudge judge;

    PeerClient(SessionCalls calls, DeviceCredentials credentials, Executor executor)
            throws GeneralSecurityException {
        // It must not lead back here: a client of JDK 17 ends when nothing refers to it.
        judge = new PeerJudge(calls);
        http = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .followRedirects(HttpClient.Redirect.NEVER)
                .proxy(HttpClient.Builder.NO_PROXY)
                .connectTimeout(CONNECT)
                .sslContext(PeerTls.context(credentials, judge))
                .sslParameters(PeerTls.parameters())
                .executor(executor)
                .build();
    }

    /** Says that a request is under way, so that whoever answers is judged by it. */
    void begin(Request request) {
        judge.begin(request.id());
    }

    HttpResponse<byte[]> send(Request request) throws IOException, InterruptedException {
        return http.send(request.http(), answer -> new BoundedBody());
    }

    /** Says that a request is not under way any more, before the library hears of it. */
    void done(Request request) {
        judge.end(request.id());
    }

    boolean isIdle() {
        return judge.isIdle();
    }

    void end() {
        Backend.end(http);
    }
}
