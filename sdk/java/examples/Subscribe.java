import io.sealcast.Identity;
import io.sealcast.Message;
import io.sealcast.SealcastException;
import io.sealcast.Subscriber;
import java.nio.file.Path;
import java.time.Duration;

/** Prints what comes on a channel: Subscribe FOLDER CHANNEL [INTERFACE] */
public final class Subscribe {
    private Subscribe() {}

    /**
     * Runs until it is interrupted, and leaves then.
     *
     * @param arguments the device's folder, the channel, and the network interface where the policy names none
     * @throws Exception where something fails that is not Sealcast's
     */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: Subscribe FOLDER CHANNEL [INTERFACE]");
            System.exit(2);
        }
        try (Identity identity = Identity.open(Path.of(arguments[0]))) {
            Subscriber.Builder builder = identity.subscriber(arguments[1])
                    .networkInterface(arguments.length > 2 ? arguments[2] : null)
                    .onEvent(event -> System.err.println(event.text()));
            Subscriber subscriber = builder.join(Duration.ofSeconds(10));
            // Ctrl-C ends the JVM by its hooks; this one says good-bye.
            Runtime.getRuntime().addShutdownHook(new Thread(subscriber::close));
            System.err.println("joined channel " + arguments[1]);
            while (true) {
                for (Message message : subscriber.recvMany(Duration.ofSeconds(1), 256)) {
                    System.out.println(message.publisher() + ": " + message.text());
                }
            }
        } catch (SealcastException error) {
            if (error.category().code() != 0) {
                System.err.println(arguments[1] + ": " + error.status().label() + ": " + error.getMessage());
                System.exit(error.category().code());
            }
        }
    }
}
