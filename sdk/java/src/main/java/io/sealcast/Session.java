package io.sealcast;

import java.time.Duration;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import java.util.function.Consumer;

/** What publishers and subscribers share: a handle, its requests and its events. */
final class Session {
    private static final Duration LISTEN = Duration.ofSeconds(1);

    private final String what;
    private final SessionCalls calls;
    private final Identity identity;
    private final Requests requests;
    private final AtomicBoolean isClosed = new AtomicBoolean();
    private final Thread listener;
    /** Memory for an event, where no thread uses it. */
    private final AtomicReference<Memory> spareEvent = new AtomicReference<>();

    /**
     * Begins to make requests. {@code what}: as in "subscriber of channel ward/ecg". {@code listener}: null for none.
     */
    Session(String what, SessionCalls calls, Identity identity, Consumer<Event> listener) {
        this.what = what;
        this.calls = calls;
        this.identity = identity;
        requests = new Requests(calls, identity, what);
        this.listener = listener == null ? null : new Thread(() -> listen(listener), "sealcast-events " + what);
        requests.start();
        if (this.listener != null) {
            this.listener.setDaemon(true);
            this.listener.start();
        }
    }

    // -- joining ----------------------------------------------------------------------------------------------------

    /** Waits for the key server's word; fails where there is none. */
    void join(Duration timeout) throws InterruptedException {
        int status = Native.await(timeout, Status.UNREACHABLE, calls::join);
        if (status == Status.UNREACHABLE.code()) {
            throw Native.failure(
                    Status.UNREACHABLE, Native.failure(status).getMessage(), requests.lastFailure());
        }
        check(status);
    }

    /** Throws unless the status is 0. Call it on the thread, and right after the call, whose status it is. */
    void check(int status) {
        if (status == Status.OK.code()) {
            return;
        }
        if (isClosed.get() && status == Status.INVALID_HANDLE.code()) {
            throw closed();
        }
        if (status == Status.CLOSED.code()) {
            throw Native.failure(Status.CLOSED, isClosed.get() ? closed().getMessage() : "the " + what + " has ended");
        }
        Throwable cause = identity.signFailure();
        if (status == Status.SIGNING.code() && cause != null) {
            throw Native.failure(Status.SIGNING, "the device key did not sign: " + cause, cause);
        }
        throw Native.failure(status);
    }

    private SealcastException closed() {
        return Native.failure(Status.CLOSED, "the " + what + " has been closed");
    }

    // -- events -----------------------------------------------------------------------------------------------------

    boolean hasListener() {
        return listener != null;
    }

    /** The next event; null where none came in time. */
    Event nextEvent(Duration timeout) throws InterruptedException {
        Memory spare = spareEvent.getAndSet(null);
        Memory event = spare == null ? new Memory(Event.SIZE) : spare;
        try {
            int status = Native.await(timeout, wait -> calls.nextEvent(wait, event.address(), Event.SIZE));
            if (status == Status.TIMEOUT.code()) {
                return null;
            }
            check(status);
            return Event.read(event);
        } finally {
            spareEvent.set(event);
        }
    }

    private void listen(Consumer<Event> consumer) {
        while (true) {
            try {
                Event event = nextEvent(LISTEN);
                if (event != null) {
                    consumer.accept(event);
                }
            } catch (SealcastException | InterruptedException end) {
                return;
            } catch (RuntimeException error) {
                // A listener that fails once is told of what comes next, too.
                Thread thread = Thread.currentThread();
                thread.getUncaughtExceptionHandler().uncaughtException(thread, error);
            }
        }
    }

    // -- the end ----------------------------------------------------------------------------------------------------

    boolean isClosed() {
        return isClosed.get();
    }

    /** Waits until the library has no request any more, as after a good-bye. */
    void awaitEnd(long milliseconds) throws InterruptedException {
        requests.awaitEnd(milliseconds);
    }

    /** True for the one who is to close it. */
    boolean beginClose() {
        return isClosed.compareAndSet(false, true);
    }

    /** Frees the handle and ends all threads. */
    void close() {
        calls.free();
        requests.close();
        if (listener != null && listener != Thread.currentThread()) {
            try {
                listener.join(2000);
            } catch (InterruptedException error) {
                Thread.currentThread().interrupt();
            }
        }
        identity.release();
    }
}
