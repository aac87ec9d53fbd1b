/* A P-256 device key in Windows' key storage (CNG), which never leaves it: in a file of the system, a TPM, a smart card.
 *
 *   cng_key key = {0};
 *   cng_key_open(&key, MS_PLATFORM_CRYPTO_PROVIDER, L"bedside-7", 0);
 *   sealcast_identity_options options = {sizeof options, cng_key_sign, &key, SEALCAST_ALGORITHM_ECDSA_P256};
 *
 * For TLS OpenSSL is given the public key of the certificate with a method that signs here. Link with ncrypt and bcrypt.
 */
#ifndef SEALCAST_EXAMPLE_CNG_KEY_H
#define SEALCAST_EXAMPLE_CNG_KEY_H

#include <winsock2.h>

#include <windows.h>

#include <bcrypt.h>
#include <ncrypt.h>

/* A key by method is deprecated since OpenSSL 3.0, which would have a provider written for each. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/ec.h>
#include <openssl/ssl.h>
#include <string.h>

#include <sealcast.h>

enum {
    CNG_KEY_HASH = 32,
    CNG_KEY_NUMBER = 32,
    CNG_KEY_PLACE = 0, /* of the data that OpenSSL keeps with a key: the one for programs */
};

typedef struct cng_key {
    NCRYPT_KEY_HANDLE key;
    EC_KEY_METHOD *method;
    sealcast_identity *identity; /* for TLS: once it is open */
} cng_key;

/* CNG gives the two numbers of a signature one after the other. */
static inline int cng_key_sign_hash(const cng_key *self, const uint8_t *hash, uint8_t numbers[2 * CNG_KEY_NUMBER]) {
    DWORD size = 0;
    SECURITY_STATUS status = NCryptSignHash(self->key, NULL, (PBYTE)(uintptr_t)hash, CNG_KEY_HASH, numbers,
                                            2 * CNG_KEY_NUMBER, &size, 0);
    return status == ERROR_SUCCESS && size == 2 * CNG_KEY_NUMBER;
}

/* Writes a number as DER has it: without zeros in front, but for one where it would be negative. */
static inline size_t cng_key_encode(const uint8_t *number, uint8_t *der) {
    size_t length = CNG_KEY_NUMBER;
    while (length > 1 && *number == 0) {
        number++;
        length--;
    }
    size_t zero = *number >> 7;
    der[0] = 2;
    der[1] = (uint8_t)(zero + length);
    der[2] = 0;
    memcpy(der + 2 + zero, number, length);
    return 2 + zero + length;
}

/* A sealcast_sign. */
static inline int32_t cng_key_sign(void *context, const uint8_t *message, size_t length, uint8_t *signature, size_t *size) {
    uint8_t hash[CNG_KEY_HASH], numbers[2 * CNG_KEY_NUMBER];
    BCRYPT_ALG_HANDLE sha256 = NULL;
    if (*size < 2 + 2 * (3 + CNG_KEY_NUMBER) || length > MAXDWORD ||
        BCryptOpenAlgorithmProvider(&sha256, BCRYPT_SHA256_ALGORITHM, NULL, 0) != 0) {
        return 1;
    }
    NTSTATUS hashed = BCryptHash(sha256, NULL, 0, (PUCHAR)(uintptr_t)message, (ULONG)length, hash, sizeof hash);
    BCryptCloseAlgorithmProvider(sha256, 0);
    if (hashed != 0 || !cng_key_sign_hash(context, hash, numbers)) {
        return 1;
    }
    size_t end = 2;
    end += cng_key_encode(numbers, signature + end);
    end += cng_key_encode(numbers + CNG_KEY_NUMBER, signature + end);
    signature[0] = 0x30;
    signature[1] = (uint8_t)(end - 2);
    *size = end;
    return 0;
}

/* How OpenSSL has a hash signed for TLS. */
static inline ECDSA_SIG *cng_key_sign_tls(const unsigned char *hash, int length, const BIGNUM *inverse, const BIGNUM *r,
                                          EC_KEY *key) {
    (void)inverse, (void)r;
    uint8_t numbers[2 * CNG_KEY_NUMBER];
    const cng_key *self = EC_KEY_get_ex_data(key, CNG_KEY_PLACE);
    if (length != CNG_KEY_HASH || !cng_key_sign_hash(self, hash, numbers)) {
        return NULL;
    }
    ECDSA_SIG *signature = ECDSA_SIG_new();
    ECDSA_SIG_set0(signature, BN_bin2bn(numbers, CNG_KEY_NUMBER, NULL),
                   BN_bin2bn(numbers + CNG_KEY_NUMBER, CNG_KEY_NUMBER, NULL));
    return signature;
}

/* How OpenSSL signs with a key that is here. */
static inline EC_KEY_METHOD *cng_key_method(void) {
    int (*sign)(int, const unsigned char *, int, unsigned char *, unsigned *, const BIGNUM *, const BIGNUM *, EC_KEY *);
    int (*setup)(EC_KEY *, BN_CTX *, BIGNUM **, BIGNUM **);
    EC_KEY_METHOD *method = EC_KEY_METHOD_new(EC_KEY_OpenSSL());
    if (method) {
        EC_KEY_METHOD_get_sign(method, &sign, &setup, NULL);
        EC_KEY_METHOD_set_sign(method, sign, setup, cng_key_sign_tls);
    }
    return method;
}

/* `flags`: NCRYPT_MACHINE_KEY_FLAG for a key of the machine. Returns 0 on success. */
static inline SECURITY_STATUS cng_key_open(cng_key *self, const wchar_t *provider, const wchar_t *name, DWORD flags) {
    NCRYPT_PROV_HANDLE store = 0;
    SECURITY_STATUS status = NCryptOpenStorageProvider(&store, provider, 0);
    if (status == ERROR_SUCCESS) {
        status = NCryptOpenKey(store, &self->key, name, 0, flags);
        NCryptFreeObject(store);
    }
    if (status == ERROR_SUCCESS) {
        self->method = cng_key_method();
    }
    return status;
}

/* After what signs with it. */
static inline void cng_key_close(cng_key *self) {
    if (self->key) {
        NCryptFreeObject(self->key);
    }
    EC_KEY_METHOD_free(self->method);
}

/* Gives TLS the key, and its certificate of a file: the device's chain, PEM. Returns 0 on success. */
static inline int cng_key_show(cng_key *self, SSL_CTX *ssl_ctx, const char *certificate_file) {
    if (SSL_CTX_use_certificate_chain_file(ssl_ctx, certificate_file) != 1) {
        return 1;
    }
    EC_KEY *key = EVP_PKEY_get1_EC_KEY(X509_get0_pubkey(SSL_CTX_get0_certificate(ssl_ctx)));
    EVP_PKEY *wrapped = EVP_PKEY_new();
    int is_good = key && wrapped && EC_KEY_set_method(key, self->method) == 1 &&
                  EC_KEY_set_ex_data(key, CNG_KEY_PLACE, self) == 1 && EVP_PKEY_set1_EC_KEY(wrapped, key) == 1 &&
                  SSL_CTX_use_PrivateKey(ssl_ctx, wrapped) == 1;
    EVP_PKEY_free(wrapped);
    EC_KEY_free(key);
    return is_good ? 0 : 1;
}

/* A sealcast_curl_configure. The certificate is the present one: a renewal makes another file. */
static inline int cng_key_configure(void *context, void *ssl_ctx) {
    cng_key *self = context;
    sealcast_identity_info info;
    sealcast_status status = sealcast_identity_get_info(self->identity, &info, sizeof info);
    return status == SEALCAST_STATUS_OK ? cng_key_show(self, ssl_ctx, info.certificate_file) : 1;
}

#endif
