import io.sealcast.Algorithm;
import io.sealcast.Fec;
import io.sealcast.Identity;
import io.sealcast.Publisher;
import io.sealcast.SealcastException;
import io.sealcast.Signer;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPairGenerator;
import java.security.PrivateKey;
import java.security.Signature;
import java.time.Duration;

/** Fails in several ways, and prints what is said of each: Failures FOLDER CHANNEL STRANGER */
public final class Failures {
    private static final Duration PATIENCE = Duration.ofSeconds(2);

    private Failures() {}

    private interface Call {
        void run() throws Exception;
    }

    /**
     * Runs it.
     *
     * @param arguments a device's folder, a channel of its site, and the folder of a device that the site does not know
     * @throws Exception where something fails that is not to
     */
    public static void main(String[] arguments) throws Exception {
        Path folder = Path.of(arguments[0]);
        String channel = arguments[1];
        try (Identity identity = Identity.open(folder)) {
            Publisher.Builder builder = identity.publisher(channel);
            tell("negative", () -> builder.mtu(-1));
            tell("negative", () -> builder.maxBlock(-2));
            tell("negative", () -> builder.ttl(-3));
            tell("negative", () -> builder.dscp(-4));
            tell("negative", () -> builder.retain(-5, 1));
            tell("negative", () -> Fec.fixed(-6, 1));
            tell("negative", () -> Fec.fixed(1, -7));
            tell("nobody listens", () -> identity.subscriber(channel).keysUrl("https://127.0.0.1:1").join(PATIENCE));
        }
        try (Identity identity = Identity.open(Path.of(arguments[2]))) {
            tell("not admitted", () -> identity.subscriber(channel).join(PATIENCE));
        }
        try (Identity identity = Identity.open(folder, new Unplugged())) {
            tell("nobody signs", () -> identity.subscriber(channel).join(PATIENCE));
        }
        try (Identity identity = Identity.open(folder, new Stray())) {
            tell("another key signs", () -> identity.subscriber(channel).join(PATIENCE));
        }
        System.exit(0);
    }

    private static void tell(String what, Call call) throws Exception {
        try {
            call.run();
            System.out.println(what + ": nothing fails");
        } catch (SealcastException error) {
            System.out.println(what + ": " + error.status().label() + ": " + error.getMessage());
            for (Throwable cause = error.getCause(); cause != null; cause = cause.getCause()) {
                System.out.println(what + ": of " + cause);
            }
        }
    }

    /** Has a key that no certificate is of. */
    private static final class Stray implements Signer {
        private final PrivateKey key;

        Stray() throws GeneralSecurityException {
            KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
            generator.initialize(256);
            key = generator.generateKeyPair().getPrivate();
        }

        @Override
        public Algorithm algorithm() {
            return Algorithm.ECDSA_P256;
        }

        @Override
        public byte[] sign(byte[] message) throws GeneralSecurityException {
            Signature signature = Signature.getInstance(algorithm().signatureName());
            signature.initSign(key);
            signature.update(message);
            return signature.sign();
        }
    }

    private static final class Unplugged implements Signer {
        @Override
        public Algorithm algorithm() {
            return Algorithm.ECDSA_P256;
        }

        @Override
        public byte[] sign(byte[] message) throws IOException {
            throw new IOException("the token is unplugged");
        }
    }
}
