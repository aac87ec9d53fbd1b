/* openssl_key.h: for each line of input, the URI of a P-256 key, tell the number of the certificate that TLS shows with it.
 * `openssl_key FOLDER` */
#include "../examples/openssl_key.h"
#include "expect.h"

#include <openssl/x509v3.h>

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
        return 2;
    }
    openssl_key key = {NULL, NULL};
    sealcast_identity_options options = {sizeof options, openssl_key_sign, &key, SEALCAST_ALGORITHM_ECDSA_P256};
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(argv[1], &options, &key.identity));
    char uri[4096];
    while (fgets(uri, sizeof uri, stdin)) {
        uri[strcspn(uri, "\n")] = 0;
        key.key = openssl_key_load(uri);
        CHECK(key.key && openssl_key_algorithm(key.key) == options.algorithm);
        SSL_CTX *context = SSL_CTX_new(TLS_client_method());
        CHECK(openssl_key_configure(&key, context) == 0);
        char *number = i2s_ASN1_INTEGER(NULL, X509_get0_serialNumber(SSL_CTX_get0_certificate(context)));
        puts(number);
        fflush(stdout);
        OPENSSL_free(number);
        SSL_CTX_free(context);
        EVP_PKEY_free(key.key);
    }
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(key.identity));
    return failures != 0;
}
