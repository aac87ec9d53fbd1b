/* A device key that does not sign: it is not asked again and again, and whoever publishes is told.
 * `signing FOLDER CHANNEL`; what is to be done meanwhile it says in a line: "renew". */
#include <stdatomic.h>
#include <string.h>

#include <sealcast_curl.h>

#include "../examples/openssl_key.h"
#include "expect.h"

enum { PATIENCE = 30000000, CALLS = 1000 };

static openssl_key key;
static atomic_bool is_there;
static atomic_int asked;

static int32_t sign(void *context, const uint8_t *message, size_t length, uint8_t *signature, size_t *size) {
    asked++;
    return is_there ? openssl_key_sign(context, message, length, signature, size) : 7;
}

static void find_key(sealcast_identity *identity) {
    sealcast_identity_info info;
    char uri[sizeof info.key_file + 5];
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_get_info(identity, &info, sizeof info));
    snprintf(uri, sizeof uri, "file:%s", info.key_file);
    EVP_PKEY_free(key.key);
    key.key = openssl_key_load(uri);
    CHECK(key.key != NULL);
}

/* What threads that make requests do all the time. */
static void make_requests(sealcast_publisher *publisher) {
    static uint8_t buffer[SEALCAST_PUBLISHER_REQUEST_BYTES];
    sealcast_request request;
    sealcast_bytes nothing = {NULL, 0};
    for (int call = 0; call < CALLS; call++) {
        sealcast_status status =
            sealcast_publisher_next_request(publisher, 0, buffer, sizeof buffer, &request, sizeof request);
        if (status == SEALCAST_STATUS_OK) {
            EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_respond(publisher, request.id, 0, nothing));
        } else {
            EXPECT(SEALCAST_STATUS_TIMEOUT, status);
        }
    }
}

static void wait_for_word(sealcast_publisher *publisher) {
    sealcast_event event;
    do {
        EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_next_event(publisher, PATIENCE, &event, sizeof event));
    } while (!failures && !(event.kind == SEALCAST_EVENT_KIND_BLOCKED && strstr(event.text, "; tried again in ")));
}

int main(int count, char **words) {
    sealcast_identity_options options = {sizeof options, sign, &key, 0};
    sealcast_publisher_options how;
    sealcast_identity *identity = NULL;
    sealcast_publisher *publisher = NULL;
    sealcast_curl *curl = NULL;
    sealcast_bytes message = {(const uint8_t *)"word", 4};
    (void)openssl_key_configure;
    if (count != 3) {
        return 2;
    }
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(words[1], NULL, &identity));
    find_key(identity);
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
    options.algorithm = openssl_key_algorithm(key.key);
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(words[1], &options, &identity));
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_options_init(&how, sizeof how));
    how.channel = words[2];
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_new(identity, &how, 0, &publisher));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_publisher(identity, publisher, NULL, &curl));

    /* Each join asks once; nothing else does, and nothing can be sent. */
    EXPECT(SEALCAST_STATUS_SIGNING, sealcast_publisher_join(publisher, PATIENCE));
    make_requests(publisher);
    EXPECT(SEALCAST_STATUS_SIGNING, sealcast_publisher_send(publisher, message, NULL));
    CHECK(asked == 1);
    EXPECT(SEALCAST_STATUS_SIGNING, sealcast_publisher_join(publisher, PATIENCE));
    CHECK(asked == 2);
    wait_for_word(publisher);
    wait_for_word(publisher);

    is_there = true;
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_join(publisher, PATIENCE));
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_send(publisher, message, NULL));
    CHECK(asked == 3);

    /* A certificate that the key does not answer for: what was signed goes on. */
    is_there = false;
    puts("renew");
    fflush(stdout);
    wait_for_word(publisher);
    make_requests(publisher);
    CHECK(asked == 4);
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_send(publisher, message, NULL));
    find_key(identity);
    is_there = true;
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_join(publisher, PATIENCE));
    CHECK(asked == 5);
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_finish(publisher, PATIENCE));

    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_free(publisher));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
    EVP_PKEY_free(key.key);
    printf("%d failures\n", failures);
    return failures != 0;
}
