package io.sealcast;

import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * The sending end of a channel.
 *
 * <p>Fit for any thread. A waiting call ends with {@link InterruptedException} when its thread is interrupted, and with
 * {@link Status#CLOSED} when another thread closes the publisher.
 */
public final class Publisher implements AutoCloseable {
    /** How long {@link #close} tries to say the end that nobody has said. */
    private static final Duration END = Duration.ofSeconds(5);
    private static final Duration FOREVER = Duration.ofSeconds(Long.MAX_VALUE);

    private final Session session;
    private final long handle;
    private final Duration linger;
    private final SendBuffer buffer = new SendBuffer();
    private volatile boolean hasJoined;
    /** When the end was said, by System.nanoTime; null before. */
    private volatile Long finished;

    private Publisher(Builder builder) {
        Library library = Native.library();
        Memory options = builder.options(library);
        Memory result = new Memory(Long.BYTES);
        builder.identity.hold();
        try {
            Native.check(library.publisherNew(builder.identity.handle(), options.address(), result.address()));
        } catch (SealcastException error) {
            builder.identity.release();
            throw error;
        }
        options.keep();
        handle = result.getLong(0);
        linger = builder.linger;
        session = new Session(
                "publisher of channel " + builder.channel,
                SessionCalls.ofPublisher(library, handle),
                builder.identity,
                builder.listener);
    }

    /**
     * Waits until the key server has taken the device in and lists its stream.
     *
     * @param timeout how long at most
     * @throws SealcastException {@link Status#NOT_ALLOWED}, {@link Status#UNKNOWN_CHANNEL}, {@link Status#REVOKED},
     *     {@link Status#CERTIFICATE}, {@link Status#SIGNING}, {@link Status#INTERFACE}; {@link Status#UNREACHABLE}
     *     where nothing was heard in time
     * @throws InterruptedException if the thread is interrupted
     */
    public void join(Duration timeout) throws InterruptedException {
        session.join(timeout);
        hasJoined = true;
    }

    /**
     * Queues a message without a topic, and waits for room where there is none.
     *
     * @param message its bytes, which are copied
     * @throws SealcastException as {@link #send(byte[], String)}
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public void send(byte[] message) throws InterruptedException {
        send(message, null);
    }

    /**
     * Queues a message, and waits for room where there is none.
     *
     * @param message its bytes, which are copied
     * @param topic up to 255 bytes of UTF-8; null for none
     * @throws SealcastException {@link Status#TOO_LONG}, {@link Status#CLOSED} after the end,
     *     {@link Status#EXHAUSTED}; as {@link #join} when the key server refuses the device
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public void send(byte[] message, String topic) throws InterruptedException {
        send(ByteBuffer.wrap(message), topic);
    }

    /**
     * Queues what is between position and limit of a buffer, which stay as they are; as {@link #send(byte[], String)}.
     *
     * @param message its bytes, which are copied
     * @param topic up to 255 bytes of UTF-8; null for none
     * @throws SealcastException as {@link #send(byte[], String)}
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public void send(ByteBuffer message, String topic) throws InterruptedException {
        while (!trySend(message, topic)) {
            awaitRoom();
        }
    }

    /**
     * Queues a message if there is room.
     *
     * @param message its bytes, which are copied
     * @param topic up to 255 bytes of UTF-8; null for none
     * @return whether there was
     * @throws SealcastException as {@link #send(byte[], String)}
     */
    public boolean trySend(ByteBuffer message, String topic) {
        return offer(List.of(message), topic) == 1;
    }

    /**
     * Queues messages in their order, and waits for room where there is none. With many short messages it is faster
     * than one call for each.
     *
     * @param messages their bytes, which are copied
     * @param topic of all of them, up to 255 bytes of UTF-8; null for none
     * @throws SealcastException as {@link #send(byte[], String)}; messages before the one that failed have been queued
     * @throws InterruptedException if the thread is interrupted while it waits
     */
    public void sendMany(List<byte[]> messages, String topic) throws InterruptedException {
        List<ByteBuffer> left = messages.stream().map(ByteBuffer::wrap).toList();
        while (!left.isEmpty()) {
            int taken = offer(left, topic);
            if (taken == 0) {
                awaitRoom();
            }
            left = left.subList(taken, left.size());
        }
    }

    private int offer(List<ByteBuffer> messages, String topic) {
        synchronized (buffer) {
            session.check(buffer.send(handle, messages, topic));
            return buffer.taken();
        }
    }

    private void awaitRoom() throws InterruptedException {
        session.check(Native.await(FOREVER, wait -> Native.library().publisherWaitRoom(handle, wait)));
    }

    /**
     * Sends what is queued and says the end of the stream; until it is closed the publisher goes on to mend what
     * subscribers miss.
     *
     * @param timeout how long at most
     * @throws SealcastException {@link Status#INCOMPLETE}: the end could not be said in time, as without a key
     * @throws InterruptedException if the thread is interrupted
     */
    public void finish(Duration timeout) throws InterruptedException {
        session.check(Native.await(
                timeout, Status.INCOMPLETE, wait -> Native.library().publisherFinish(handle, wait)));
        finished = System.nanoTime();
    }

    /**
     * Waits for the next event.
     *
     * @param timeout how long to wait at most; zero looks and returns
     * @return the event; null where none came in time
     * @throws SealcastException {@link Status#CLOSED} when it has been closed; {@link Status#IN_USE} where a listener
     *     gets the events
     * @throws InterruptedException if the thread is interrupted
     */
    public Event nextEvent(Duration timeout) throws InterruptedException {
        if (session.hasListener()) {
            throw Native.failure(Status.IN_USE, "the listener that was given gets the events");
        }
        return session.nextEvent(timeout);
    }

    /**
     * What has been counted.
     *
     * @return the counters as they are now
     * @throws SealcastException {@link Status#CLOSED}
     */
    public PublisherCounters counters() {
        Memory memory = new Memory(PublisherCounters.SIZE);
        session.check(
                Native.library().publisherGetCounters(handle, memory.address(), PublisherCounters.SIZE));
        return PublisherCounters.read(memory);
    }

    /**
     * The stream's id.
     *
     * @return 32 hexadecimal digits
     * @throws SealcastException {@link Status#CLOSED}
     */
    public String stream() {
        Memory memory = new Memory(16);
        session.check(Native.library().publisherGetStream(handle, memory.address()));
        return memory.hex(0);
    }

    /**
     * Ends it and all its threads. The end of the stream is said first, where {@link #finish} has not done so, for 5
     * seconds at most; then it goes on to mend what subscribers miss for as long as {@link Builder#linger} says. A
     * second call does nothing; an interrupt makes it short.
     */
    @Override
    public void close() {
        if (!session.beginClose()) {
            return;
        }
        boolean isInterrupted = Thread.interrupted();
        try {
            if (hasJoined && finished == null && !isInterrupted) {
                finish(END);
            }
            if (finished != null && !isInterrupted) {
                long left = Native.microseconds(linger) / 1000 - (System.nanoTime() - finished) / 1_000_000;
                if (left > 0) {
                    session.awaitEnd(left);
                }
            }
        } catch (SealcastException error) {
            // Whoever has to know calls finish.
        } catch (InterruptedException error) {
            isInterrupted = true;
        }
        session.close();
        if (isInterrupted) {
            Thread.currentThread().interrupt();
        }
    }

    // -- options ----------------------------------------------------------------------------------------------------

    /** How a publisher sends; what is not set has the library's default. Made by {@link Identity#publisher}. */
    public static final class Builder {
        private static final int SIZE = 128;

        private final Identity identity;
        private final String channel;
        private byte[] site;
        private String keysUrl;
        private String networkInterface;
        private String sendTo;
        private String instance;
        private int mtu = 1500;
        private int maxBlock = 64;
        private int ttl = 1;
        private int dscp;
        private Fec fec = Fec.POLICY;
        private int retainTopics;
        private long retainBytes;
        private long maxMessageBytes;
        private long queueBytes;
        private boolean adaptiveRate = true;
        private Duration linger = Duration.ofSeconds(2);
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
         * Where to send in place of the policy's group.
         *
         * @param address {@code ADDR:PORT}
         * @return this
         */
        public Builder sendTo(String address) {
            sendTo = address;
            return this;
        }

        /**
         * Which of several publishers of this device on the channel it is; the only one by default.
         *
         * @param name up to 63 bytes
         * @return this
         */
        public Builder instance(String name) {
            instance = name;
            return this;
        }

        /**
         * The path's MTU; 1500 by default.
         *
         * @param bytes 576 to 9000
         * @return this
         */
        public Builder mtu(int bytes) {
            mtu = Native.notNegative("mtu", bytes);
            return this;
        }

        /**
         * How many packets one signature covers at most; 64 by default.
         *
         * @param packets 1 to 64
         * @return this
         */
        public Builder maxBlock(int packets) {
            maxBlock = Native.notNegative("maxBlock", packets);
            return this;
        }

        /**
         * How many routers packets may pass, plus 1; 1 by default.
         *
         * @param hops 1 to 255
         * @return this
         */
        public Builder ttl(int hops) {
            ttl = Native.notNegative("ttl", hops);
            return this;
        }

        /**
         * Differentiated services code point; 0 by default.
         *
         * @param codePoint 0 to 63
         * @return this
         */
        public Builder dscp(int codePoint) {
            dscp = Native.notNegative("dscp", codePoint);
            return this;
        }

        /**
         * Which parity goes with the packets; {@link Fec#POLICY} by default.
         *
         * @param parity which
         * @return this
         */
        public Builder fec(Fec parity) {
            fec = Objects.requireNonNull(parity, "fec");
            return this;
        }

        /**
         * Of how many topics the last value is kept, for who joins later. It gets values from before its admission by
         * that: that is yours to allow.
         *
         * @param topics how many; 0, the default, for none
         * @param bytes what their values may hold
         * @return this
         */
        public Builder retain(int topics, long bytes) {
            retainTopics = Native.notNegative("retain", topics);
            retainBytes = Subscriber.Builder.positive("retain", bytes);
            return this;
        }

        /**
         * The longest message that is taken; 16 MiB by default, which is also what subscribers take by default.
         *
         * @param bytes 1 to 1 GiB
         * @return this
         */
        public Builder maxMessageBytes(long bytes) {
            maxMessageBytes = Subscriber.Builder.positive("maxMessageBytes", bytes);
            return this;
        }

        /**
         * What may wait for the rate; 64 MiB by default.
         *
         * @param bytes at least 1
         * @return this
         */
        public Builder queueBytes(long bytes) {
            queueBytes = Subscriber.Builder.positive("queueBytes", bytes);
            return this;
        }

        /**
         * Whether it goes slower where most subscribers lose packets; it does by default.
         *
         * @param isWanted false: the policy's rate is kept to
         * @return this
         */
        public Builder adaptiveRate(boolean isWanted) {
            adaptiveRate = isWanted;
            return this;
        }

        /**
         * For how long {@link Publisher#close} goes on to mend after the end; 2 seconds by default.
         *
         * @param time zero for not at all
         * @return this
         */
        public Builder linger(Duration time) {
            linger = Objects.requireNonNull(time, "linger");
            return this;
        }

        /**
         * Who is told of events, on a thread of its own, in place of {@link Publisher#nextEvent}.
         *
         * @param consumer is called with one event at a time
         * @return this
         */
        public Builder onEvent(Consumer<Event> consumer) {
            listener = consumer;
            return this;
        }

        /**
         * Makes the publisher and waits until the key server has taken the device in.
         *
         * @param timeout how long at most
         * @return the publisher, to be closed
         * @throws SealcastException as {@link #open} and {@link Publisher#join}
         * @throws InterruptedException if the thread is interrupted
         */
        public Publisher join(Duration timeout) throws InterruptedException {
            Publisher publisher = open();
            try {
                publisher.join(timeout);
                return publisher;
            } catch (SealcastException | InterruptedException error) {
                publisher.close();
                throw error;
            }
        }

        /**
         * Makes the publisher, which begins to join.
         *
         * @return the publisher, to be joined and closed
         * @throws SealcastException {@link Status#INVALID_ARGUMENT}, {@link Status#CERTIFICATE},
         *     {@link Status#STORAGE}; {@link Status#CLOSED} where the identity has been closed
         */
        public Publisher open() {
            return new Publisher(this);
        }

        private Memory options(Library library) {
            Memory options = new Memory(SIZE);
            Native.check(library.publisherOptionsInit(options.address(), SIZE));
            options.putText(8, channel);
            if (site != null) {
                options.put(16, site);
            }
            options.putText(32, keysUrl);
            options.putText(40, networkInterface);
            options.putText(48, sendTo);
            options.putText(56, instance);
            options.putInt(64, mtu);
            options.putInt(68, maxBlock);
            options.putInt(72, ttl);
            options.putInt(76, dscp);
            options.putInt(80, fec.code());
            options.putInt(84, fec.sources());
            options.putInt(88, fec.parities());
            options.putInt(92, retainTopics);
            Subscriber.Builder.putUnlessZero(options, 96, retainBytes);
            Subscriber.Builder.putUnlessZero(options, 104, maxMessageBytes);
            Subscriber.Builder.putUnlessZero(options, 112, queueBytes);
            options.putInt(120, adaptiveRate ? 1 : 0);
            return options;
        }
    }
}
