/* Tries examples/cng_key.h: what it signs, OpenSSL verifies; and with it a TLS client proves its certificate.
 *
 * The key is one of BCrypt, whose signatures have the form of NCrypt's: that of Wine 8 signs with RSA alone. So all is
 * tried but NCryptOpenKey and NCryptSignHash themselves. */
#include <winsock2.h>

#include <windows.h>

#include <bcrypt.h>
#include <ncrypt.h>
#define NCryptSignHash(key, ...) BCryptSignHash((BCRYPT_KEY_HANDLE)(key), __VA_ARGS__)
#include "../c/examples/cng_key.h"

#include <stdio.h>
#include <stdlib.h>

#include <openssl/pem.h>

enum { MESSAGES = 2000 }; /* numbers that begin with a zero come once in 128 */

#define CHECK(condition)                                                                                                  \
    do {                                                                                                                  \
        if (!(condition)) {                                                                                               \
            printf("%d: %s\n", __LINE__, #condition);                                                                     \
            exit(1);                                                                                                      \
        }                                                                                                                 \
    } while (0)

static BCRYPT_KEY_HANDLE make_key(void) {
    BCRYPT_ALG_HANDLE algorithm = NULL;
    BCRYPT_KEY_HANDLE key = NULL;
    CHECK(BCryptOpenAlgorithmProvider(&algorithm, BCRYPT_ECDSA_P256_ALGORITHM, NULL, 0) == 0);
    CHECK(BCryptGenerateKeyPair(algorithm, &key, 256, 0) == 0);
    CHECK(BCryptFinalizeKeyPair(key, 0) == 0);
    return key;
}

static EVP_PKEY *public_key(BCRYPT_KEY_HANDLE key) {
    uint8_t blob[sizeof(BCRYPT_ECCKEY_BLOB) + 2 * CNG_KEY_NUMBER];
    ULONG length = 0;
    CHECK(BCryptExportKey(key, NULL, BCRYPT_ECCPUBLIC_BLOB, blob, sizeof blob, &length, 0) == 0);
    CHECK(length == sizeof blob);
    uint8_t *point = blob + sizeof(BCRYPT_ECCKEY_BLOB) - 1;
    *point = POINT_CONVERSION_UNCOMPRESSED;
    EC_KEY *half = EC_KEY_new_by_curve_name(NID_X9_62_prime256v1);
    CHECK(EC_KEY_oct2key(half, point, 1 + 2 * CNG_KEY_NUMBER, NULL) == 1);
    EVP_PKEY *public = EVP_PKEY_new();
    CHECK(EVP_PKEY_assign_EC_KEY(public, half) == 1);
    return public;
}

static void try_messages(cng_key *key, EVP_PKEY *public) {
    int lengths = 0;
    for (int number = 0; number < MESSAGES; number++) {
        uint8_t signature[144];
        size_t length = sizeof signature;
        CHECK(cng_key_sign(key, (const uint8_t *)&number, sizeof number, signature, &length) == 0);
        EVP_MD_CTX *verifying = EVP_MD_CTX_new();
        CHECK(EVP_DigestVerifyInit(verifying, NULL, EVP_sha256(), NULL, public) == 1);
        CHECK(EVP_DigestVerify(verifying, signature, length, (const uint8_t *)&number, sizeof number) == 1);
        signature[length - 1] ^= 1;
        CHECK(EVP_DigestVerify(verifying, signature, length, (const uint8_t *)&number, sizeof number) != 1);
        EVP_MD_CTX_free(verifying);
        lengths |= 1 << (length - 60);
    }
    CHECK(lengths & 1 << 9 && lengths & 1 << 10 && lengths & 1 << 11 && lengths & 1 << 12); /* 69 to 72 bytes */
}

static X509 *certificate(EVP_PKEY *subject, EVP_PKEY *issuer) {
    X509 *made = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(made), 0);
    X509_gmtime_adj(X509_getm_notAfter(made), 3600);
    CHECK(X509_set_pubkey(made, subject) == 1 && X509_sign(made, issuer, EVP_sha256()) > 0);
    return made;
}

/* TLS checks the signature; whom the certificate is of is not asked here. */
static int take_anyone(X509_STORE_CTX *store, void *context) {
    (void)store, (void)context;
    return 1;
}

static void try_tls(cng_key *key, EVP_PKEY *public, const char *file) {
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509 *shown = certificate(public, other), *server_certificate = certificate(other, other);
    FILE *out = fopen(file, "wb");
    CHECK(out && PEM_write_X509(out, shown) == 1 && fclose(out) == 0);
    SSL_CTX *client_context = SSL_CTX_new(TLS_client_method()), *server_context = SSL_CTX_new(TLS_server_method());
    CHECK(cng_key_show(key, client_context, file) == 0);
    CHECK(SSL_CTX_use_certificate(server_context, server_certificate) == 1);
    CHECK(SSL_CTX_use_PrivateKey(server_context, other) == 1);
    SSL_CTX_set_verify(server_context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_cert_verify_callback(server_context, take_anyone, NULL);
    SSL *client = SSL_new(client_context), *server = SSL_new(server_context);
    BIO *client_end = NULL, *server_end = NULL;
    CHECK(BIO_new_bio_pair(&client_end, 0, &server_end, 0) == 1);
    SSL_set_bio(client, client_end, client_end);
    SSL_set_bio(server, server_end, server_end);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    for (int turn = 0; turn < 10; turn++) {
        SSL_do_handshake(client);
        SSL_do_handshake(server);
    }
    CHECK(SSL_is_init_finished(client) && SSL_is_init_finished(server) && SSL_version(server) == TLS1_3_VERSION);
    X509 *seen = SSL_get1_peer_certificate(server);
    CHECK(seen && X509_cmp(seen, shown) == 0);
    X509_free(seen);
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(client_context);
    SSL_CTX_free(server_context);
    X509_free(shown);
    X509_free(server_certificate);
    EVP_PKEY_free(other);
}

int main(int argc, char **argv) {
    CHECK(argc == 2); /* a file to write a certificate to */
    BCRYPT_KEY_HANDLE held = make_key();
    cng_key key = {(NCRYPT_KEY_HANDLE)(uintptr_t)held, cng_key_method(), NULL};
    EVP_PKEY *public = public_key(held);
    try_messages(&key, public);
    try_tls(&key, public, argv[1]);
    EVP_PKEY_free(public);
    EC_KEY_METHOD_free(key.method);
    BCryptDestroyKey(held);
    puts("the key signed");
    return 0;
}
