package io.sealcast;

import java.io.IOException;
import java.io.InputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.Principal;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.InvalidKeySpecException;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Arrays;
import java.util.Base64;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedKeyManager;

/** What a device shows to the other side of a TLS connection: its chain, whoever asks, and the key for it. */
final class DeviceCredentials extends X509ExtendedKeyManager {
    private static final String ALIAS = "device";
    private static final String BEGIN = "-----BEGIN PRIVATE KEY-----";
    private static final String END = "-----END PRIVATE KEY-----";

    private final X509Certificate[] chain;
    private final PrivateKey key;
    private final long generation;

    private DeviceCredentials(X509Certificate[] chain, PrivateKey key, long generation) {
        this.chain = chain;
        this.key = key;
        this.generation = generation;
    }

    /** Reads what the folder holds now. */
    static DeviceCredentials read(Identity identity) throws IOException, GeneralSecurityException {
        Identity.Info info = identity.info();
        X509Certificate[] chain;
        try (InputStream file = Files.newInputStream(info.certificateFile())) {
            chain = CertificateFactory.getInstance("X.509").generateCertificates(file).toArray(new X509Certificate[0]);
        }
        if (chain.length == 0) {
            throw new IOException(info.certificateFile() + " holds no certificate: enrol the device again");
        }
        String algorithm = chain[0].getPublicKey().getAlgorithm();
        PrivateKey key = identity.signer() == null
                ? readKey(info.keyFile(), algorithm)
                : SignerProvider.key(identity.signer(), chain[0].getPublicKey());
        return new DeviceCredentials(chain, key, info.generation());
    }

    /** What of the key passes through arrays is wiped, as far as they are ours: those of the JDK's own classes stay. */
    private static PrivateKey readKey(Path file, String algorithm) throws IOException, GeneralSecurityException {
        byte[] text = Files.readAllBytes(file);
        byte[] base64 = new byte[0];
        byte[] encoded = new byte[0];
        try {
            base64 = body(text);
            encoded = Base64.getDecoder().decode(base64);
            if (encoded.length == 0) {
                throw new IOException(file + " holds no PKCS#8 key in PEM without a passphrase");
            }
            return KeyFactory.getInstance(algorithm).generatePrivate(new PKCS8EncodedKeySpec(encoded));
        } catch (IllegalArgumentException error) {
            throw new IOException(file + " is damaged: its key is no base64", error);
        } catch (InvalidKeySpecException error) {
            throw new InvalidKeySpecException(file + " holds no key of the certificate's kind, " + algorithm, error);
        } finally {
            Arrays.fill(text, (byte) 0);
            Arrays.fill(base64, (byte) 0);
            Arrays.fill(encoded, (byte) 0);
        }
    }

    /** The base64 of the first key, without blanks: the decoder that passes over them makes copies. Empty for none. */
    private static byte[] body(byte[] text) {
        int begin = find(BEGIN, text) + BEGIN.length();
        int end = find(END, text);
        byte[] body = new byte[Math.max(0, end - begin)];
        int length = 0;
        for (int place = begin; place < end; place++) {
            if (text[place] > ' ') {
                body[length++] = text[place];
            }
        }
        byte[] whole = Arrays.copyOf(body, length);
        Arrays.fill(body, (byte) 0);
        return whole;
    }

    /** Where a word is; behind all where it is not. */
    private static int find(String word, byte[] text) {
        byte[] wanted = word.getBytes(StandardCharsets.US_ASCII);
        for (int place = 0; place + wanted.length <= text.length; place++) {
            if (Arrays.equals(text, place, place + wanted.length, wanted, 0, wanted.length)) {
                return place;
            }
        }
        return text.length;
    }

    /** Of the identity: another one means other files. */
    long generation() {
        return generation;
    }

    @Override
    public String chooseEngineClientAlias(String[] keyTypes, Principal[] issuers, SSLEngine engine) {
        return chooseClientAlias(keyTypes, issuers, null);
    }

    @Override
    public String chooseClientAlias(String[] keyTypes, Principal[] issuers, Socket socket) {
        for (String type : keyTypes) {
            if (type.equalsIgnoreCase(key.getAlgorithm())) {
                return ALIAS;
            }
        }
        return null;
    }

    @Override
    public String[] getClientAliases(String keyType, Principal[] issuers) {
        return new String[] {ALIAS};
    }

    @Override
    public X509Certificate[] getCertificateChain(String alias) {
        return chain.clone();
    }

    @Override
    public PrivateKey getPrivateKey(String alias) {
        return key;
    }

    @Override
    public String[] getServerAliases(String keyType, Principal[] issuers) {
        return null;
    }

    @Override
    public String chooseServerAlias(String keyType, Principal[] issuers, Socket socket) {
        return null;
    }
}
