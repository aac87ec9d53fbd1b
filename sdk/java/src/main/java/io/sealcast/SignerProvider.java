package io.sealcast;

import java.io.ByteArrayOutputStream;
import java.security.GeneralSecurityException;
import java.security.InvalidKeyException;
import java.security.PrivateKey;
import java.security.Provider;
import java.security.PublicKey;
import java.security.Security;
import java.security.Signature;
import java.security.SignatureException;
import java.security.SignatureSpi;
import java.util.List;
import java.util.Map;

/** Lets the JDK's TLS sign with a key that a {@link Signer} has. It knows no other keys, and is in nobody's way. */
final class SignerProvider extends Provider {
    private static final long serialVersionUID = 1L;
    private static final String NAME = "SealcastSigner";

    private SignerProvider() {
        super(NAME, "1.0", "Signatures of device keys that are elsewhere");
        for (Algorithm algorithm : Algorithm.values()) {
            putService(new SignatureService(this, algorithm.signatureName()));
        }
    }

    /** A key that stands for the signer's, whose signatures have to hold by {@code shown}. TLS finds this provider by it. */
    static PrivateKey key(Signer signer, PublicKey shown) {
        synchronized (SignerProvider.class) {
            if (Security.getProvider(NAME) == null) {
                Security.addProvider(new SignerProvider());
            }
        }
        return new SignerKey(signer, shown);
    }

    /** It has nothing to be encoded. */
    private static final class SignerKey implements PrivateKey {
        private static final long serialVersionUID = 1L;

        private final transient Signer signer;
        private final PublicKey shown;

        SignerKey(Signer signer, PublicKey shown) {
            this.signer = signer;
            this.shown = shown;
        }

        /** Whether a signature is one by the key that the other side is shown: it would refuse any other without a word. */
        boolean holds(byte[] message, byte[] signature) {
            try {
                Signature check = Signature.getInstance(signer.algorithm().signatureName());
                check.initVerify(shown);
                check.update(message);
                return check.verify(signature);
            } catch (GeneralSecurityException error) {
                return false;
            }
        }

        @Override
        public String getAlgorithm() {
            return shown.getAlgorithm();
        }

        @Override
        public String getFormat() {
            return null;
        }

        @Override
        public byte[] getEncoded() {
            return null;
        }
    }

    private static final class SignatureService extends Provider.Service {
        SignatureService(Provider provider, String name) {
            super(provider, "Signature", name, SignerSignature.class.getName(), List.of(), Map.of());
        }

        @Override
        public Object newInstance(Object parameter) {
            return new SignerSignature();
        }

        @Override
        public boolean supportsParameter(Object key) {
            return key instanceof SignerKey;
        }
    }

    private static final class SignerSignature extends SignatureSpi {
        private final ByteArrayOutputStream message = new ByteArrayOutputStream();
        private SignerKey key;

        @Override
        protected void engineInitSign(PrivateKey given) throws InvalidKeyException {
            if (!(given instanceof SignerKey known)) {
                throw new InvalidKeyException("it signs with a Sealcast Signer only");
            }
            key = known;
            message.reset();
        }

        @Override
        protected void engineInitVerify(PublicKey key) throws InvalidKeyException {
            throw new InvalidKeyException("it verifies nothing");
        }

        @Override
        protected void engineUpdate(byte one) {
            message.write(one);
        }

        @Override
        protected void engineUpdate(byte[] bytes, int offset, int length) {
            message.write(bytes, offset, length);
        }

        @Override
        protected byte[] engineSign() throws SignatureException {
            byte[] signed = message.toByteArray();
            message.reset();
            byte[] signature;
            try {
                signature = key.signer.sign(signed);
            } catch (Exception error) {
                throw new SignatureException("the device key did not sign", error);
            }
            if (!key.holds(signed, signature)) {
                throw new SignatureException("the signer gave no signature by the key of the device's certificate: see which "
                        + "key it finds, and whether its algorithm and the encoding are that key's");
            }
            return signature;
        }

        @Override
        protected boolean engineVerify(byte[] signature) throws SignatureException {
            throw new SignatureException("it verifies nothing");
        }

        @Override
        @Deprecated
        protected void engineSetParameter(String name, Object value) {
            throw new UnsupportedOperationException();
        }

        @Override
        @Deprecated
        protected Object engineGetParameter(String name) {
            throw new UnsupportedOperationException();
        }
    }
}
