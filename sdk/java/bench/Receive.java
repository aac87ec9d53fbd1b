import com.sun.management.OperatingSystemMXBean;
import io.sealcast.Event;
import io.sealcast.EventKind;
import io.sealcast.Identity;
import io.sealcast.Message;
import io.sealcast.Subscriber;
import io.sealcast.SubscriberCounters;
import java.lang.management.ManagementFactory;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * The receiving end of {@code make bench}: takes a first message, then COUNT of so many zero bytes each, checks them,
 * and tells what it has seen as a line of JSON.
 */
public final class Receive {
    private static final Duration PATIENCE = Duration.ofSeconds(10);
    private static final Duration FOREVER = Duration.ofDays(1);
    private static final int BATCH = 512;
    private static final OperatingSystemMXBean SYSTEM =
            ManagementFactory.getPlatformMXBean(OperatingSystemMXBean.class);

    private Receive() {}

    /**
     * Runs it.
     *
     * @param arguments FOLDER CHANNEL COUNT BYTES
     * @throws InterruptedException never
     */
    public static void main(String[] arguments) throws InterruptedException {
        if (arguments.length != 4) {
            System.err.println("usage: receive FOLDER CHANNEL COUNT BYTES");
            System.exit(2);
        }
        try (Identity identity = Identity.open(Path.of(arguments[0]));
                Subscriber subscriber = identity.subscriber(arguments[1]).join(PATIENCE)) {
            System.out.println("{\"ready\": true}");
            receive(subscriber, Long.parseLong(arguments[2]), new byte[Integer.parseInt(arguments[3])]);
        }
    }

    private static void receive(Subscriber subscriber, long count, byte[] expected) throws InterruptedException {
        long next = subscriber.recvMany(FOREVER, 1).get(0).messageId() + 1;
        System.out.println("{\"heard\": true}");
        SubscriberCounters before = subscriber.counters();
        long cpu = SYSTEM.getProcessCpuTime();
        long received = 0;
        long gone = 0;
        long wrong = 0;
        long last = 0;
        while (received + gone < count) {
            List<Message> messages = subscriber.recvMany(PATIENCE, BATCH);
            if (messages.isEmpty()) {
                throw new IllegalStateException("nothing came for 10 s, " + received + " had come");
            }
            last = System.nanoTime();
            for (Message message : messages) {
                if (message.messageId() != next || !Arrays.equals(message.data(), expected)) {
                    wrong++;
                }
                next = message.messageId() + 1;
            }
            received += messages.size();
            gone += lost(subscriber);
        }
        cpu = SYSTEM.getProcessCpuTime() - cpu;
        SubscriberCounters after = subscriber.counters();
        System.out.printf(
                Locale.ROOT,
                "{\"last\": %.9f, \"received\": %d, \"lost\": %d, \"wrong\": %d, \"cpu\": %.6f,"
                        + " \"counters\": {\"repaired\": %d, \"dropped-by-kernel\": %d}}%n",
                last / 1e9,
                received,
                gone,
                wrong,
                cpu / 1e9,
                after.repaired() - before.repaired(),
                after.droppedByKernel() - before.droppedByKernel());
    }

    private static long lost(Subscriber subscriber) throws InterruptedException {
        long count = 0;
        for (Event event = null; (event = subscriber.nextEvent(Duration.ZERO)) != null; ) {
            if (event.kind() == EventKind.GAP) {
                count += event.last() == -1 ? 1 : event.last() - event.first() + 1;
            } else if (event.kind() == EventKind.MESSAGE_LOST) {
                count++;
            }
        }
        return count;
    }
}
