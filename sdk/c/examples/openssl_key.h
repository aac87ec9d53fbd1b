/* A device key that OpenSSL holds: in a file elsewhere, or in a token by PKCS#11.
 *
 * The key is named by a URI: "file:/run/keys/bedside.pem", "pkcs11:token=ward;object=bedside?pin-source=/run/keys/pin".
 * A token is found by OpenSSL's provider for PKCS#11 where there is one, else by the engine of that name. */
#ifndef SEALCAST_EXAMPLE_OPENSSL_KEY_H
#define SEALCAST_EXAMPLE_OPENSSL_KEY_H

/* Engines are how OpenSSL 3.0 reaches a token: the provider came later. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/opensslconf.h>
#ifndef OPENSSL_NO_ENGINE
#include <openssl/engine.h>
#endif
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/store.h>
#include <string.h>

#include <sealcast.h>

typedef struct openssl_key {
    EVP_PKEY *key;
    sealcast_identity *identity; /* for TLS: once it is open */
} openssl_key;

static EVP_PKEY *openssl_key_of_engine(const char *uri) {
#ifdef OPENSSL_NO_ENGINE
    (void)uri;
    return NULL;
#else
    ENGINE *engine = ENGINE_by_id("pkcs11");
    EVP_PKEY *key = engine && ENGINE_init(engine) ? ENGINE_load_private_key(engine, uri, NULL, NULL) : NULL;
    ENGINE_free(engine);
    return key;
#endif
}

/* NULL where there is none of that name. */
static EVP_PKEY *openssl_key_load(const char *uri) {
    OSSL_STORE_CTX *store = OSSL_STORE_open(uri, NULL, NULL, NULL, NULL);
    EVP_PKEY *key = NULL;
    while (store && !key && !OSSL_STORE_eof(store)) {
        OSSL_STORE_INFO *info = OSSL_STORE_load(store);
        if (info && OSSL_STORE_INFO_get_type(info) == OSSL_STORE_INFO_PKEY) {
            key = OSSL_STORE_INFO_get1_PKEY(info);
        }
        OSSL_STORE_INFO_free(info);
    }
    OSSL_STORE_close(store);
    return key || strncmp(uri, "pkcs11:", 7) != 0 ? key : openssl_key_of_engine(uri);
}

/* A sealcast_algorithm, or 0. */
static int32_t openssl_key_algorithm(const EVP_PKEY *key) {
    if (EVP_PKEY_is_a(key, "ED25519")) {
        return SEALCAST_ALGORITHM_ED25519;
    }
    if (EVP_PKEY_is_a(key, "EC")) {
        return EVP_PKEY_get_bits(key) == 256   ? SEALCAST_ALGORITHM_ECDSA_P256
               : EVP_PKEY_get_bits(key) == 384 ? SEALCAST_ALGORITHM_ECDSA_P384
                                               : 0;
    }
    return 0;
}

/* A sealcast_sign. */
static int32_t openssl_key_sign(void *context, const uint8_t *message, size_t length, uint8_t *signature, size_t *size) {
    EVP_PKEY *key = ((openssl_key *)context)->key;
    const EVP_MD *hash = EVP_PKEY_is_a(key, "ED25519")    ? NULL
                         : EVP_PKEY_get_bits(key) == 384 ? EVP_sha384()
                                                         : EVP_sha256();
    EVP_MD_CTX *signing = EVP_MD_CTX_new();
    int is_good = signing && EVP_DigestSignInit(signing, NULL, hash, NULL, key) == 1 &&
                  EVP_DigestSign(signing, signature, size, message, length) == 1;
    EVP_MD_CTX_free(signing);
    return is_good ? 0 : 1;
}

/* A sealcast_curl_configure. The certificate is the present one: a renewal makes another file. */
static int openssl_key_configure(void *context, void *ssl_ctx) {
    openssl_key *self = context;
    sealcast_identity_info info;
    return sealcast_identity_get_info(self->identity, &info, sizeof info) == SEALCAST_STATUS_OK &&
                   SSL_CTX_use_certificate_chain_file(ssl_ctx, info.certificate_file) == 1 &&
                   SSL_CTX_use_PrivateKey(ssl_ctx, self->key) == 1
               ? 0
               : 1;
}

#endif
