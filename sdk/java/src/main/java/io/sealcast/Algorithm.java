package io.sealcast;

/** Algorithm of a device key. */
public enum Algorithm {
    /** ECDSA on P-256 with SHA-256; signatures in DER. */
    ECDSA_P256(1, "SHA256withECDSA"),
    /** Ed25519; signatures of 64 bytes. */
    ED25519(2, "Ed25519"),
    /** ECDSA on P-384 with SHA-384; signatures in DER. */
    ECDSA_P384(3, "SHA384withECDSA");

    private final int code;
    private final String signatureName;

    Algorithm(int code, String signatureName) {
        this.code = code;
        this.signatureName = signatureName;
    }

    int code() {
        return code;
    }

    /**
     * Its name in {@link java.security.Signature}.
     *
     * @return such as {@code SHA256withECDSA}
     */
    public String signatureName() {
        return signatureName;
    }
}
