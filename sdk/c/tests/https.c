/* sealcast-curl: wrong calls give a status, a refusal reaches whoever waits, and what has joined leaves nothing behind.
 * `https FOLDER CHANNEL ROUNDS STRANGER URL`: the folder of a device that the site does not know, the site's listener for
 * enrolment. */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include <sealcast_curl.h>

#include "expect.h"
#include "process.h"

#define EXPECT_SAID(part, wanted, call)                                                                          \
    do {                                                                                                         \
        char said[512];                                                                                          \
        EXPECT(SEALCAST_STATUS_##wanted, call);                                                                  \
        sealcast_curl_last_error(said, sizeof said);                                                             \
        CHECK(strstr(said, part) || !fprintf(stderr, "%s\n", said));                                              \
    } while (0)

enum { PATIENCE = 20000000, IMPATIENCE = 1000000 };

static sealcast_identity *identity;

static sealcast_subscriber *subscriber_at(const char *keys_url, const char *channel) {
    sealcast_subscriber_options options;
    sealcast_subscriber *made = NULL;
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_options_init(&options, sizeof options));
    options.keys_url = keys_url;
    options.channel = channel;
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_new(identity, &options, 0, &made));
    return made;
}

static sealcast_subscriber *subscriber_of(const char *channel) { return subscriber_at(NULL, channel); }

static void wrong_calls(const char *folder, const char *channel) {
    sealcast_identity *other = NULL;
    sealcast_curl *curl = NULL;
    sealcast_subscriber *subscriber = subscriber_of(channel);
    EXPECT_SAID("identity is NULL", NULL_ARGUMENT, sealcast_curl_serve_subscriber(NULL, subscriber, NULL, &curl));
    EXPECT_SAID("subscriber is NULL", NULL_ARGUMENT, sealcast_curl_serve_subscriber(identity, NULL, NULL, &curl));
    EXPECT_SAID("curl is NULL", NULL_ARGUMENT, sealcast_curl_serve_subscriber(identity, subscriber, NULL, NULL));
    EXPECT_SAID("no ", INVALID_HANDLE,
                sealcast_curl_serve_publisher(identity, (sealcast_publisher *)subscriber, NULL, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(folder, NULL, &other));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(other));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_curl_serve_subscriber(other, subscriber, NULL, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, NULL, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
    EXPECT_SAID("has been freed", INVALID_HANDLE, sealcast_curl_free(curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(NULL));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_curl_serve_subscriber(identity, subscriber, NULL, &curl));
}

/* As those of the library: of an older header, of a newer one, and of none. */
static void options_of_other_sizes(const char *channel) {
    struct {
        sealcast_curl_options known;
        size_t unknown;
    } newer;
    sealcast_curl *curl = NULL;
    sealcast_curl_options *options = &newer.known;
    sealcast_subscriber *subscriber = subscriber_of(channel);
    EXPECT_SAID("options is NULL", NULL_ARGUMENT, sealcast_curl_options_init(NULL, sizeof *options));
    EXPECT_SAID("of 8 bytes", WRONG_SIZE, sealcast_curl_options_init(options, 8));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_options_init(options, sizeof newer));
    CHECK(options->size == sizeof newer && !options->threads && !options->configure && !newer.unknown);
    options->threads = 65;
    EXPECT_SAID("threads is 65: up to 64", INVALID_ARGUMENT,
                sealcast_curl_serve_subscriber(identity, subscriber, options, &curl));
    options->threads = 1;
    newer.unknown = 1;
    EXPECT_SAID("of 40 bytes", WRONG_SIZE, sealcast_curl_serve_subscriber(identity, subscriber, options, &curl));
    newer.unknown = 0;
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, options, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
    /* What stands behind the size is not looked at. */
    memset((void *)&options->configure, 0xff, sizeof options->configure);
    options->size = offsetof(sealcast_curl_options, configure);
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, options, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_join(subscriber, PATIENCE));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
    options->size = 8;
    EXPECT_SAID("of 8 bytes", WRONG_SIZE, sealcast_curl_serve_subscriber(identity, subscriber, options, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
}

static pthread_mutex_t serving = PTHREAD_MUTEX_INITIALIZER;

/* It frees what calls it, is signalled as by a write to a connection that has ended, and gives no certificate. */
static int free_own(void *context, void *ssl_ctx) {
    (void)ssl_ctx;
    raise(SIGPIPE);
    pthread_mutex_lock(&serving);
    EXPECT_SAID("configure must not", REENTRANT, sealcast_curl_free(*(sealcast_curl **)context));
    pthread_mutex_unlock(&serving);
    return 1;
}

static void a_callback_cannot_free_its_own(const char *channel) {
    sealcast_curl *curl = NULL;
    sealcast_curl_options options = {sizeof options, 0, free_own, &curl};
    sealcast_subscriber *subscriber = subscriber_of(channel);
    pthread_mutex_lock(&serving);
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, &options, &curl));
    pthread_mutex_unlock(&serving);
    EXPECT(SEALCAST_STATUS_UNREACHABLE, sealcast_subscriber_join(subscriber, IMPATIENCE));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
}

/* Whoever takes events does not take the refusal from those who join or receive. */
static void a_refusal_is_told_whoever_takes_events(void) {
    sealcast_subscriber *subscriber = subscriber_of("no/such/channel");
    sealcast_curl *curl = NULL;
    sealcast_event event;
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, NULL, &curl));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_next_event(subscriber, PATIENCE, &event, sizeof event));
    CHECK(event.kind == SEALCAST_EVENT_KIND_REFUSED);
    EXPECT(SEALCAST_STATUS_UNKNOWN_CHANNEL, sealcast_subscriber_join(subscriber, PATIENCE));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
}

/* What libcurl has to say comes to who joins, in place of the library's own advice. */
static void nobody_answers(const char *keys_url, const char *channel, const char *says) {
    sealcast_subscriber *subscriber = subscriber_at(keys_url, channel);
    sealcast_curl *curl = NULL;
    char text[1024];
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, NULL, &curl));
    EXPECT(SEALCAST_STATUS_UNREACHABLE, sealcast_subscriber_join(subscriber, IMPATIENCE));
    sealcast_last_error(text, sizeof text);
    fprintf(stderr, "%s\n", text);
    CHECK(strstr(text, says) && !strstr(text, "see whether it runs"));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(curl));
}

static void join_and_free(const char *channel, int rounds) {
    int files = 0, threads = 0;
    long resident = 0;
    sealcast_publisher_options options;
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_options_init(&options, sizeof options));
    options.channel = channel;
    for (int round = 0; round < rounds; round++) {
        sealcast_subscriber *subscriber = subscriber_of(channel);
        sealcast_publisher *publisher = NULL;
        sealcast_curl *receiving = NULL, *sending = NULL;
        EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_new(identity, &options, 0, &publisher));
        EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(identity, subscriber, NULL, &receiving));
        EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_publisher(identity, publisher, NULL, &sending));
        EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_join(subscriber, PATIENCE));
        EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_join(publisher, PATIENCE));
        EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
        EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_free(publisher));
        EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(receiving));
        EXPECT(SEALCAST_STATUS_OK, sealcast_curl_free(sending));
        if (round == 0) {
            files = entries("/proc/self/fd");
            threads = entries("/proc/self/task");
        }
        if (round == rounds / 2) {
            resident = resident_kib();
        }
    }
    CHECK(entries("/proc/self/fd") == files);
    CHECK(entries("/proc/self/task") == threads);
    /* Of few, what an allocator keeps for each thread would count. */
    CHECK(rounds < 100 || resident_kib() - resident < 8192);
    printf("%d joins of both, %ld KiB more in the second half\n", rounds, resident_kib() - resident);
}

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "usage: %s FOLDER CHANNEL ROUNDS STRANGER URL\n", argv[0]);
        return 2;
    }
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(argv[1], NULL, &identity));
    wrong_calls(argv[1], argv[2]);
    options_of_other_sizes(argv[2]);
    a_callback_cannot_free_its_own(argv[2]);
    a_refusal_is_told_whoever_takes_events();
    nobody_answers("https://127.0.0.1:1", argv[2], "127.0.0.1 port 1 ");
    nobody_answers(argv[5], argv[2], " answered with the HTTP status 4");
    join_and_free(argv[2], atoi(argv[3]));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(argv[4], NULL, &identity));
    /* The connection ends after the handshake, without a word: by libcurl's an empty reply, or a reset. */
    nobody_answers(NULL, argv[2], "believed: ");
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
    printf("%d failures\n", failures);
    return failures != 0;
}
