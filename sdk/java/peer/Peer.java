import io.sealcast.Category;
import io.sealcast.Event;
import io.sealcast.Identity;
import io.sealcast.Message;
import io.sealcast.Publisher;
import io.sealcast.Sealcast;
import io.sealcast.SealcastException;
import io.sealcast.Start;
import io.sealcast.Status;
import io.sealcast.Subscriber;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Locale;

/** The peer of the scenarios: it says on standard output what happens, one line a fact. */
public final class Peer {
    private static final Duration JOIN = Duration.ofSeconds(20);
    private static final Duration FINISH = Duration.ofSeconds(20);
    private static final Duration LOOK = Duration.ofMillis(200);
    private static final int USAGE = 2;
    private static final int BATCH = 256;

    private static final PrintStream OUT =
            new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
    private static final BufferedReader IN =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private final String role;
    private final Path folder;
    private final String channel;
    private Start start = Start.NOW;
    private String listen;
    private String sendTo;

    private Peer(String[] arguments) {
        if (arguments.length < 3) {
            throw new IllegalArgumentException("PEER subscribe|publish FOLDER CHANNEL [OPTIONS], or PEER vectors");
        }
        role = arguments[0];
        folder = Path.of(arguments[1]);
        channel = arguments[2];
        for (int place = 3; place < arguments.length; place += 2) {
            if (place + 1 == arguments.length) {
                throw new IllegalArgumentException(arguments[place] + " has no value");
            }
            String value = arguments[place + 1];
            switch (arguments[place]) {
                case "--start" -> start = Start.valueOf(value.toUpperCase(Locale.ROOT));
                case "--listen" -> listen = value;
                case "--send-to" -> sendTo = value;
                default -> throw new IllegalArgumentException("there is no option " + arguments[place]);
            }
        }
    }

    /**
     * Runs it.
     *
     * @param arguments as the protocol of the scenarios says
     * @throws Exception where something fails that is not Sealcast's
     */
    public static void main(String[] arguments) throws Exception {
        int code = 0;
        try {
            if (arguments.length == 1 && arguments[0].equals("vectors")) {
                answerVectors();
                return;
            }
            Peer peer = new Peer(arguments);
            switch (peer.role) {
                case "subscribe" -> peer.subscribe();
                case "publish" -> peer.publish();
                default -> throw new IllegalArgumentException("there is no role " + peer.role);
            }
        } catch (IllegalArgumentException error) {
            System.err.println(error.getMessage());
            code = USAGE;
        } catch (SealcastException error) {
            OUT.println("error " + error.status().label() + " " + error.getMessage());
            Category category = error.category();
            code = category == Category.UNKNOWN ? Category.INTERNAL.code() : category.code();
        }
        // A reader may wait for a line that never comes.
        System.exit(code);
    }

    // -- subscriber -------------------------------------------------------------------------------------------------

    private void subscribe() throws InterruptedException {
        try (Identity identity = Identity.open(folder)) {
            Subscriber.Builder builder = identity.subscriber(channel).start(start);
            if (listen != null) {
                builder.listen(listen);
            }
            try (Subscriber subscriber = builder.join(JOIN)) {
                OUT.println("joined");
                receive(subscriber);
                OUT.println("rejected " + subscriber.counters().rejectedSignature());
            }
        }
        OUT.println("left");
    }

    private static void receive(Subscriber subscriber) throws InterruptedException {
        Thread receiver = Thread.currentThread();
        Thread reader = new Thread(() -> {
            awaitWord("leave");
            receiver.interrupt();
        });
        reader.setDaemon(true);
        reader.start();
        try {
            while (true) {
                try {
                    for (Message message : subscriber.recvMany(LOOK, BATCH)) {
                        String topic = message.topic() == null ? "-" : message.topic();
                        OUT.println("message " + message.publisher() + " " + topic + " " + message.text());
                    }
                } catch (SealcastException refused) {
                    tell(subscriber);
                    throw refused;
                }
                tell(subscriber);
            }
        } catch (InterruptedException wantsToLeave) {
            // The one who interrupts is the reader.
        }
    }

    private static void tell(Subscriber subscriber) throws InterruptedException {
        try {
            for (Event event = null; (event = subscriber.nextEvent(Duration.ZERO)) != null; ) {
                tell(event);
            }
        } catch (SealcastException error) {
            if (error.status() != Status.CLOSED) {
                throw error;
            }
        }
    }

    private static void tell(Event event) {
        String publisher = event.publisher().isEmpty() ? "-" : event.publisher();
        OUT.println("event " + event.kind().label() + " " + Long.toUnsignedString(event.first()) + " "
                + Long.toUnsignedString(event.last()) + " " + publisher);
    }

    private static void awaitWord(String word) {
        try {
            for (String line = null; (line = IN.readLine()) != null && !line.equals(word); ) {
                // What is no word of the protocol is passed over.
            }
        } catch (IOException error) {
            System.err.println(error.getMessage());
        }
    }

    // -- vectors ----------------------------------------------------------------------------------------------------

    private static void answerVectors() throws IOException {
        for (String line = null; (line = IN.readLine()) != null; ) {
            String[] words = line.split(" ", 2);
            try {
                byte[] answer = Sealcast.knownAnswer(words[0], HexFormat.of().parseHex(words[1]));
                OUT.println("ok " + HexFormat.of().formatHex(answer));
            } catch (SealcastException error) {
                OUT.println(error.status().label() + " " + error.getMessage());
            }
        }
    }

    // -- publisher --------------------------------------------------------------------------------------------------

    private void publish() throws InterruptedException, IOException {
        try (Identity identity = Identity.open(folder)) {
            Publisher.Builder builder =
                    identity.publisher(channel).linger(Duration.ZERO).onEvent(Peer::tell);
            if (sendTo != null) {
                builder.sendTo(sendTo);
            }
            try (Publisher publisher = builder.join(JOIN)) {
                OUT.println("joined");
                send(publisher);
            }
        }
    }

    private static void send(Publisher publisher) throws InterruptedException, IOException {
        int count = 0;
        for (String line = null; (line = IN.readLine()) != null && !line.equals("exit"); ) {
            if (line.equals("finish")) {
                publisher.finish(FINISH);
                OUT.println("finished");
                continue;
            }
            String[] words = line.split(" ", 3);
            if (words.length == 3 && words[0].equals("send")) {
                String topic = words[1].equals("-") ? null : words[1];
                publisher.send(words[2].getBytes(StandardCharsets.UTF_8), topic);
                count++;
                OUT.println("sent " + count);
            } else {
                System.err.println("there is no command " + line);
            }
        }
    }
}
