package io.sealcast;

import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.Consumer;

/**
 * The receiving end of a channel.
 *
 * <p>Fit for any thread; one at a time may take messages. A waiting call ends with {@link InterruptedException} when
 * its thread is interrupted, and with {@link Status#CLOSED} when another thread closes the subscriber.
 */
public final class Subscriber implements AutoCloseable {
    /** How long a good-bye may take, milliseconds. */
    private static final long LEAVE = 2500;
    /** What {@link #recv} takes at once. */
    private static final int AHEAD = 64;

    private final Session session;
    private final long handle;
    private final MessageBuffer buffer;
    private final AtomicBoolean isTaking = new AtomicBoolean();
    /** Messages that the library has given and {@link #recv} has not returned yet; its own lock. */
    private final ArrayDeque<Message> ahead = new ArrayDeque<>();

    private Subscriber(Builder builder) {
        Library library = Native.library();
        Memory options = builder.options(library);
        Memory result = new Memory(Long.BYTES);
        builder.identity.hold();
        try {
            Native.check(library.subscriberNew(builder.identity.handle(), options.address(), result.address()));
        } catch (SealcastException error) {
            builder.identity.release();
            throw error;
        }
        options.keep();
        handle = result.getLong(0);
        buffer = new MessageBuffer();
        session = new Session(
                "subscriber of channel " + builder.channel,
                SessionCalls.ofSubscriber(library, handle),
                builder.identity,
                builder.listener);
    }

    /**
     * Waits until the key server has taken the device in.
     *
     * @param timeout how long at most
     * @throws SealcastException {@link Status#NOT_ALLOWED}, {@link Status#UNKNOWN_CHANNEL}, {@link Status#REVOKED},
     *     {@link Status#CERTIFICATE}, {@link Status#INTERFACE}; {@link Status#UNREACHABLE} where nothing was heard in
     *     time
     * @throws InterruptedException if the thread is interrupted
     */
    public void join(Duration timeout) throws InterruptedException {
        session.join(timeout);
    }

    /**
     * Takes the next message. It has a few more brought from the library at once, and returns them one by one.
     *
     * @param timeout how long to wait at most; zero looks and returns
     * @return the message; null where none came in time
     * @throws SealcastException {@link Status#CLOSED} when it has left; {@link Status#IN_USE} while another thread
     *     takes messages; as {@link #join} when the key server refuses the device from now on: whoever calls again
     *     waits for it to be admitted anew
     * @throws InterruptedException if the thread is interrupted
     */
    public Message recv(Duration timeout) throws InterruptedException {
        return taking(() -> {
            Message next = nextAhead();
            if (next != null) {
                return next;
            }
            List<Message> messages = fill(timeout, AHEAD);
            if (messages.isEmpty()) {
                return null;
            }
            synchronized (ahead) {
                ahead.addAll(messages.subList(1, messages.size()));
            }
            return messages.get(0);
        });
    }

    /**
     * Waits for messages, and takes as many as are there.
     *
     * @param timeout how long to wait at most for the first; zero looks and returns
     * @param limit how many at most, 1 to 65536
     * @return the messages; none where none came in time
     * @throws SealcastException as {@link #recv}
     * @throws InterruptedException if the thread is interrupted
     */
    public List<Message> recvMany(Duration timeout, int limit) throws InterruptedException {
        if (limit < 1 || limit > 1 << 16) {
            throw Native.usage("limit is " + limit + ": 1 to 65536");
        }
        return taking(() -> {
            List<Message> messages = new ArrayList<>();
            for (Message next = null; messages.size() < limit && (next = nextAhead()) != null; ) {
                messages.add(next);
            }
            return messages.isEmpty() ? fill(timeout, limit) : messages;
        });
    }

    /**
     * Waits for the next event. Events are told in their order among messages: those behind a message once that has
     * been taken, so somebody has to take messages.
     *
     * @param timeout how long to wait at most; zero looks and returns
     * @return the event; null where none came in time
     * @throws SealcastException {@link Status#CLOSED} when it has left; {@link Status#IN_USE} where a listener gets the
     *     events
     * @throws InterruptedException if the thread is interrupted
     */
    public Event nextEvent(Duration timeout) throws InterruptedException {
        if (session.hasListener()) {
            throw Native.failure(Status.IN_USE, "the listener that was given gets the events");
        }
        long until = System.nanoTime() + Native.nanoseconds(timeout);
        synchronized (ahead) {
            while (!ahead.isEmpty() && !session.isClosed()) {
                long left = (until - System.nanoTime()) / 1_000_000;
                if (left <= 0) {
                    return null;
                }
                ahead.wait(left);
            }
        }
        return session.nextEvent(Duration.ofNanos(Math.max(0, until - System.nanoTime())));
    }

    /**
     * What has been counted.
     *
     * @return the counters as they are now
     * @throws SealcastException {@link Status#CLOSED}
     */
    public SubscriberCounters counters() {
        Memory memory = new Memory(SubscriberCounters.SIZE);
        session.check(
                Native.library().subscriberGetCounters(handle, memory.address(), SubscriberCounters.SIZE));
        return SubscriberCounters.read(memory);
    }

    /**
     * Leaves the channel: the key server is told, for 2.5 seconds at most, and all threads of the subscriber end.
     * Waiting calls end with {@link Status#CLOSED}. A second call does nothing.
     */
    @Override
    public void close() {
        if (!session.beginClose()) {
            return;
        }
        Native.library().subscriberLeave(handle);
        boolean isInterrupted = Thread.interrupted();
        try {
            session.awaitEnd(LEAVE);
        } catch (InterruptedException error) {
            isInterrupted = true;
        }
        session.close();
        synchronized (ahead) {
            ahead.notifyAll();
        }
        if (isInterrupted) {
            Thread.currentThread().interrupt();
        }
    }

    // -- taking -----------------------------------------------------------------------------------------------------

    @FunctionalInterface
    private interface Take<T> {
        T take() throws InterruptedException;
    }

    /** One at a time: there is one buffer, and an order. */
    private <T> T taking(Take<T> take) throws InterruptedException {
        if (!isTaking.compareAndSet(false, true)) {
            throw Native.failure(Status.IN_USE, "another thread takes messages of this subscriber");
        }
        try {
            return take.take();
        } finally {
            isTaking.set(false);
        }
    }

    private Message nextAhead() {
        synchronized (ahead) {
            Message next = ahead.poll();
            if (next != null && ahead.isEmpty()) {
                ahead.notifyAll();
            }
            return next;
        }
    }

    private List<Message> fill(Duration timeout, int limit) throws InterruptedException {
        while (true) {
            int status = Native.await(timeout, wait -> buffer.fill(handle, wait, limit));
            if (status == Status.TIMEOUT.code()) {
                return List.of();
            }
            if (status != Status.BUFFER_TOO_SMALL.code()) {
                session.check(status);
                return buffer.messages();
            }
            buffer.grow();
        }
    }

    // -- options ----------------------------------------------------------------------------------------------------

    /** How a subscriber receives; what is not set has the library's default. Made by {@link Identity#subscriber}. */
    public static final class Builder {
        private static final int SIZE = 112;

        private final Identity identity;
        private final String channel;
        private byte[] site;
        private String keysUrl;
        private String networkInterface;
        private String listen;
        private String source;
        private Delivery delivery = Delivery.RELIABLE;
        private Start start = Start.NOW;
        private Duration deadline = Duration.ZERO;
        private long maxMessageBytes;
        private long bufferBytes;
        private long socketBufferBytes;
        private boolean sideChannel;
        private Consumer<Event> listener;

        Builder(Identity identity, String channel) {
            this.identity = identity;
            this.channel = Objects.requireNonNull(channel, "channel");
        }

        /**
         * The channel's site, where it is not the device's own.
         *
         * @param siteId 32 hexadecimal digits
         * @return this
         * @throws SealcastException {@link Status#INVALID_ARGUMENT}
         */
        public Builder site(String siteId) {
            site = SiteId.parse(siteId);
            return this;
        }

        /**
         * The site's key server, where it is not that of the device's own site.
         *
         * @param url {@code https://host:port}
         * @return this
         */
        public Builder keysUrl(String url) {
            keysUrl = url;
            return this;
        }

        /**
         * The network interface, where it is not the policy's; loopback where the key server is there.
         *
         * @param nameOrAddress such as {@code eth0}
         * @return this
         */
        public Builder networkInterface(String nameOrAddress) {
            networkInterface = nameOrAddress;
            return this;
        }

        /**
         * Where to receive in place of the policy's group.
         *
         * @param address {@code ADDR:PORT}
         * @return this
         */
        public Builder listen(String address) {
            listen = address;
            return this;
        }

        /**
         * The only host that is listened to: source-specific multicast.
         *
         * @param address its address
         * @return this
         */
        public Builder source(String address) {
            source = address;
            return this;
        }

        /**
         * In what order messages come; {@link Delivery#RELIABLE} by default.
         *
         * @param order with {@link Delivery#REALTIME} give a {@link #deadline}, too
         * @return this
         */
        public Builder delivery(Delivery order) {
            delivery = Objects.requireNonNull(order, "delivery");
            return this;
        }

        /**
         * After what time what is lost is passed over, with {@link Delivery#REALTIME} alone.
         *
         * @param time to the microsecond
         * @return this
         */
        public Builder deadline(Duration time) {
            deadline = Objects.requireNonNull(time, "deadline");
            return this;
        }

        /**
         * From where on streams that run already are delivered; {@link Start#NOW} by default.
         *
         * @param from from where
         * @return this
         */
        public Builder start(Start from) {
            start = Objects.requireNonNull(from, "start");
            return this;
        }

        /**
         * The longest message that is taken; 16 MiB by default.
         *
         * @param bytes 1 to 1 GiB
         * @return this
         */
        public Builder maxMessageBytes(long bytes) {
            maxMessageBytes = positive("maxMessageBytes", bytes);
            return this;
        }

        /**
         * What may wait to be taken; 64 MiB by default.
         *
         * @param bytes 64 KiB to 1 TiB
         * @return this
         */
        public Builder bufferBytes(long bytes) {
            bufferBytes = positive("bufferBytes", bytes);
            return this;
        }

        /**
         * The socket's receive buffer; 16 MiB by default.
         *
         * @param bytes at least 1
         * @return this
         */
        public Builder socketBufferBytes(long bytes) {
            socketBufferBytes = positive("socketBufferBytes", bytes);
            return this;
        }

        /**
         * Has everything come by requests, where there is no multicast.
         *
         * @param isWanted whether it has
         * @return this
         */
        public Builder sideChannel(boolean isWanted) {
            sideChannel = isWanted;
            return this;
        }

        /**
         * Who is told of events, on a thread of its own, in place of {@link Subscriber#nextEvent}.
         *
         * @param consumer is called with one event at a time
         * @return this
         */
        public Builder onEvent(Consumer<Event> consumer) {
            listener = consumer;
            return this;
        }

        /**
         * Makes the subscriber and waits until the key server has taken the device in.
         *
         * @param timeout how long at most
         * @return the subscriber, to be closed
         * @throws SealcastException as {@link #open} and {@link Subscriber#join}
         * @throws InterruptedException if the thread is interrupted
         */
        public Subscriber join(Duration timeout) throws InterruptedException {
            Subscriber subscriber = open();
            try {
                subscriber.join(timeout);
                return subscriber;
            } catch (SealcastException | InterruptedException error) {
                subscriber.close();
                throw error;
            }
        }

        /**
         * Makes the subscriber, which begins to join.
         *
         * @return the subscriber, to be joined and closed
         * @throws SealcastException {@link Status#INVALID_ARGUMENT}, {@link Status#CERTIFICATE},
         *     {@link Status#STORAGE}; {@link Status#CLOSED} where the identity has been closed
         */
        public Subscriber open() {
            return new Subscriber(this);
        }

        private Memory options(Library library) {
            Memory options = new Memory(SIZE);
            Native.check(library.subscriberOptionsInit(options.address(), SIZE));
            options.putText(8, channel);
            if (site != null) {
                options.put(16, site);
            }
            options.putText(32, keysUrl);
            options.putText(40, networkInterface);
            options.putText(48, listen);
            options.putText(56, source);
            options.putInt(64, delivery.code());
            options.putInt(68, start.code());
            options.putLong(72, Native.microseconds(deadline));
            putUnlessZero(options, 80, maxMessageBytes);
            putUnlessZero(options, 88, bufferBytes);
            putUnlessZero(options, 96, socketBufferBytes);
            options.putInt(104, sideChannel ? 1 : 0);
            return options;
        }

        static long positive(String name, long bytes) {
            if (bytes <= 0) {
                throw Native.usage(name + " is " + bytes + ": at least 1");
            }
            return bytes;
        }

        static void putUnlessZero(Memory options, int at, long value) {
            if (value != 0) {
                options.putLong(at, value);
            }
        }
    }
}
