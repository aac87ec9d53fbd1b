package io.sealcast;

import java.io.IOException;
import java.net.ConnectException;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.NoSuchFileException;
import java.security.GeneralSecurityException;
import java.util.HashMap;
import java.util.Iterator;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Makes the requests of one publisher or subscriber: one thread asks the library for the next, several are under way.
 *
 * <p>All threads are daemons, and end with {@link #close}.
 */
final class Requests {
    /** How soon the thread sees that a request has had its time; microseconds. */
    private static final long WAIT = 250_000;
    /** More than the engine has under way at once, whatever happens: one waits for news at each source. */
    private static final int MAX_UNDER_WAY = 64;
    /** Peers whose connections are kept. */
    private static final int MAX_CLIENTS = 16;
    /** How long a thread waits for another request. */
    private static final long IDLE_SECONDS = 5;
    /** How long the end of what is under way is waited for. */
    private static final long END_MILLISECONDS = 2000;

    private static final AtomicInteger COUNT = new AtomicInteger();

    private final SessionCalls calls;
    private final Identity identity;
    private final ThreadPoolExecutor executor;
    private final Thread thread;
    private final Map<Long, UnderWay> underWay = new ConcurrentHashMap<>();
    private final CountDownLatch ended = new CountDownLatch(1);
    private final Object answerLock = new Object();
    private volatile boolean isStopped;
    private volatile IOException lastFailure;
    /** Used under its lock. */
    private Memory answer = new Memory(1 << 16);
    // What follows is the thread's own.
    private final Map<String, PeerClient> clients = new HashMap<>();
    private DeviceCredentials credentials;
    private long generation;

    Requests(SessionCalls calls, Identity identity, String name) {
        this.calls = calls;
        this.identity = identity;
        int number = COUNT.incrementAndGet();
        // A thread for each request that is under way, and for the client's own work, which must never wait for those.
        executor = new ThreadPoolExecutor(
                0, Integer.MAX_VALUE, IDLE_SECONDS, TimeUnit.SECONDS, new SynchronousQueue<>(), task -> {
                    Thread made = new Thread(task, "sealcast-https-" + number);
                    made.setDaemon(true);
                    return made;
                });
        thread = new Thread(this::run, "sealcast-requests-" + number + " " + name);
        thread.setDaemon(true);
    }

    void start() {
        thread.start();
    }

    /** Why a request failed last, for whoever waits in vain; null where none did. */
    IOException lastFailure() {
        return lastFailure;
    }

    /** Waits until the library has no request any more, as after a good-bye. */
    void awaitEnd(long milliseconds) throws InterruptedException {
        ended.await(milliseconds, TimeUnit.MILLISECONDS);
    }

    /** Ends all; the handle has been freed, so that nothing waits in the library. */
    void close() {
        isStopped = true;
        boolean isInterrupted = false;
        try {
            thread.join(END_MILLISECONDS);
            underWay.values().forEach(UnderWay::giveUp);
            clients.values().forEach(PeerClient::end);
            executor.shutdown();
            if (!executor.awaitTermination(END_MILLISECONDS, TimeUnit.MILLISECONDS)) {
                executor.shutdownNow();
            }
        } catch (InterruptedException error) {
            isInterrupted = true;
            executor.shutdownNow();
        }
        clients.clear();
        if (isInterrupted) {
            Thread.currentThread().interrupt();
        }
    }

    private void run() {
        Memory buffer = new Memory(calls.requestBytes());
        Memory request = new Memory(Request.SIZE);
        try {
            while (!isStopped) {
                int status = calls.nextRequest(
                        WAIT, buffer.address(), buffer.size(), request.address(), Request.SIZE);
                giveUpLate();
                if (status == Status.OK.code()) {
                    make(request, buffer);
                } else if (status != Status.TIMEOUT.code()) {
                    return;
                }
            }
        } finally {
            ended.countDown();
            buffer.keep();
            request.keep();
        }
    }

    /** Has a request made. What keeps one from being made must not keep the others, and the library tries again. */
    private void make(Memory told, Memory buffer) {
        long id = told.getLong(0);
        try {
            if (underWay.size() >= MAX_UNDER_WAY) {
                throw new IOException("too many requests are under way");
            }
            Request request = Request.read(told, buffer);
            UnderWay one = new UnderWay(request, client(request));
            underWay.put(id, one);
            executor.execute(one);
        } catch (IOException | GeneralSecurityException | RuntimeException | OutOfMemoryError error) {
            underWay.remove(id);
            respond(id, new IOException(reason(error), error));
        }
    }

    /**
     * One request, on a thread of its own. The client's asynchronous calls would tell of their answers on the threads
     * that all of the process shares, which its application may have busy.
     */
    private final class UnderWay implements Runnable {
        private final Request request;
        private final PeerClient client;
        private final long until;
        private Thread worker;
        private boolean isGivenUp;

        UnderWay(Request request, PeerClient client) {
            this.request = request;
            this.client = client;
            until = System.nanoTime() + request.timeout().toNanos();
            client.begin(request);
        }

        @Override
        public void run() {
            HttpResponse<byte[]> response = null;
            Exception failure = null;
            try {
                if (begin()) {
                    response = client.send(request);
                }
            } catch (IOException | RuntimeException | InterruptedException error) {
                failure = error;
            }
            end();
            client.done(request);
            underWay.remove(request.id());
            if (response == null) {
                String peer = request.http().uri().getAuthority();
                respond(request.id(), new IOException(peer + ": " + reason(failure), failure));
            } else {
                respond(request.id(), response.statusCode(), response.body());
            }
        }

        /**
         * Has it fail, wherever it is: the timeout of the client ends with the head of an answer, this with the whole.
         */
        synchronized void giveUp() {
            isGivenUp = true;
            if (worker != null) {
                worker.interrupt();
            }
        }

        private synchronized boolean begin() {
            worker = Thread.currentThread();
            return !isGivenUp;
        }

        private synchronized void end() {
            worker = null;
        }
    }

    private void respond(long id, IOException failure) {
        lastFailure = failure;
        respond(id, 0, failure.getMessage().getBytes(StandardCharsets.UTF_8));
    }

    private void respond(long id, int httpStatus, byte[] body) {
        synchronized (answerLock) {
            if (body.length > answer.size()) {
                answer = new Memory(Integer.highestOneBit(body.length) << 1);
            }
            answer.put(0, body);
            // A handle that was freed meanwhile needs no answer.
            calls.respond(id, httpStatus, answer.address(), body.length);
        }
    }

    /** What a failure says on one line: that of the client, and what was the cause of it all. */
    private static String reason(Throwable failure) {
        if (failure == null || failure instanceof InterruptedException) {
            return "given up";
        }
        Throwable root = failure;
        while (root.getCause() != null && root.getCause().getMessage() != null) {
            root = root.getCause();
        }
        String text = words(failure);
        String cause = words(root);
        return text.contains(cause) ? text : text + " (" + cause + ")";
    }

    private static String words(Throwable failure) {
        String text = failure.getMessage();
        if (failure instanceof NoSuchFileException) {
            return text + " is not there";
        }
        if (failure instanceof ConnectException && text == null) {
            return "nobody takes connections there";
        }
        return text == null ? failure.getClass().getSimpleName() : text;
    }

    private void giveUpLate() {
        long now = System.nanoTime();
        for (UnderWay one : underWay.values()) {
            if (now - one.until > 0) {
                one.giveUp();
            }
        }
    }

    // -- clients ----------------------------------------------------------------------------------------------------

    private PeerClient client(Request request) throws IOException, GeneralSecurityException {
        if (credentials == null || generation != request.identityGeneration()) {
            credentials = DeviceCredentials.read(identity);
            generation = request.identityGeneration();
        }
        endIdle();
        String key = credentials.generation() + " " + request.peer();
        PeerClient known = clients.get(key);
        if (known == null) {
            known = new PeerClient(calls, credentials, executor);
            clients.put(key, known);
        }
        return known;
    }

    /** Ends clients of an earlier certificate, and all where there are many, unless they have a request. */
    private void endIdle() {
        String present = credentials.generation() + " ";
        Iterator<Map.Entry<String, PeerClient>> entries = clients.entrySet().iterator();
        while (entries.hasNext()) {
            Map.Entry<String, PeerClient> entry = entries.next();
            boolean isUnwanted = clients.size() > MAX_CLIENTS || !entry.getKey().startsWith(present);
            if (isUnwanted && entry.getValue().isIdle()) {
                entries.remove();
                entry.getValue().end();
            }
        }
    }
}
