package io.sealcast;

import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.Signature;

/**
 * A device key that is in no file: in a token, the platform's store, another process.
 *
 * <p>It is asked from several threads: for each TLS connection, and about twice a day for a publisher's credential.
 */
public interface Signer {
    /**
     * Which signatures it makes.
     *
     * @return the algorithm of the key in the device's certificate
     */
    Algorithm algorithm();

    /**
     * Signs with the device key. It must not call this library.
     *
     * @param message what is signed, not hashed yet
     * @return the signature: DER (X9.62) for ECDSA, 64 bytes for Ed25519
     * @throws Exception if it cannot; the call that needed it fails with {@link Status#SIGNING} and this as its cause
     */
    byte[] sign(byte[] message) throws Exception;

    /**
     * A signer of a key that a security provider holds, as that of a PKCS#11 token.
     *
     * @param key the key
     * @param algorithm what it signs with
     * @return a signer that is fit for any thread
     */
    static Signer of(PrivateKey key, Algorithm algorithm) {
        return new Signer() {
            @Override
            public Algorithm algorithm() {
                return algorithm;
            }

            @Override
            public byte[] sign(byte[] message) throws GeneralSecurityException {
                Signature signature = Signature.getInstance(algorithm.signatureName());
                signature.initSign(key);
                signature.update(message);
                return signature.sign();
            }
        };
    }
}
