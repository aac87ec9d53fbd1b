import io.sealcast.Identity;
import io.sealcast.Publisher;
import io.sealcast.SealcastException;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;

/** Sends each line of standard input to a channel: Publish FOLDER CHANNEL [INTERFACE] */
public final class Publish {
    private Publish() {}

    /**
     * Runs until its input ends, or it is interrupted.
     *
     * @param arguments the device's folder, the channel, and the network interface where the policy names none
     * @throws Exception where something fails that is not Sealcast's
     */
    public static void main(String[] arguments) throws Exception {
        if (arguments.length < 2) {
            System.err.println("usage: Publish FOLDER CHANNEL [INTERFACE]");
            System.exit(2);
        }
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Identity identity = Identity.open(Path.of(arguments[0]));
                Publisher publisher = identity.publisher(arguments[1])
                        .networkInterface(arguments.length > 2 ? arguments[2] : null)
                        .onEvent(event -> System.err.println(event.text()))
                        .join(Duration.ofSeconds(10))) {
            // Ctrl-C ends the JVM by its hooks; this one says the stream's end.
            Runtime.getRuntime().addShutdownHook(new Thread(publisher::close));
            System.err.println("publishing on channel " + arguments[1]);
            for (String line = null; (line = input.readLine()) != null; ) {
                publisher.send(line.getBytes(StandardCharsets.UTF_8));
            }
            publisher.finish(Duration.ofSeconds(10));
        } catch (SealcastException error) {
            System.err.println(arguments[1] + ": " + error.status().label() + ": " + error.getMessage());
            System.exit(error.category().code());
        }
    }
}
