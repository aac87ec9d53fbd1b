/* The peer of sdk/scenarios, in C on the public interface alone. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#endif

#include <sealcast.h>
#include <sealcast_curl.h>

#include "../examples/openssl_key.h"

enum { PATIENCE = 60000000, FINISH = 20000000, LOOK = 100000 };

static const char *const KINDS[] = {
    "unknown",          "joined",        "gap",                 "message-lost",  "stream-started",
    "stream-ended",     "stream-closed", "equivocation",        "succession-conflict", "epoch-changed",
    "commitment-mismatch", "policy-changed", "refused",         "out-of-contact", "source-passed-over",
    "blocked",
};

static atomic_bool is_over;

/* With --key URI: the device key is not in the folder. */
static openssl_key elsewhere;
static sealcast_curl_options curl_options = {sizeof curl_options, 0, NULL, NULL};

static void tell_event(const sealcast_event *event) {
    size_t kind = (size_t)event->kind < sizeof KINDS / sizeof *KINDS ? (size_t)event->kind : 0;
    printf("event %s %" PRIu64 " %" PRIu64 " %s\n", KINDS[kind], event->first, event->last,
           event->publisher[0] ? event->publisher : "-");
    fflush(stdout);
}

static int fail(sealcast_status status) {
    char text[1024];
    sealcast_last_error(text, sizeof text);
    printf("error %s %s\n", sealcast_status_name(status), text);
    fflush(stdout);
    return (int)sealcast_status_category(status);
}

static const char *option(int argc, char **argv, const char *name) {
    for (int i = 4; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], name) == 0) {
            return argv[i + 1];
        }
    }
    return NULL;
}

/* -- subscribe ---------------------------------------------------------------------------------------------------- */

static void *wait_for_leave(void *subscriber) {
    char line[256];
    while (fgets(line, sizeof line, stdin) && strcmp(line, "leave\n") != 0) {
    }
    atomic_store(&is_over, true);
    sealcast_subscriber_leave(subscriber);
    return NULL;
}

static void tell_message(const sealcast_message *message) {
    printf("message %s %s %.*s\n", message->publisher, message->topic ? message->topic : "-", (int)message->length,
           (const char *)message->data);
}

static sealcast_status receive(sealcast_subscriber *subscriber) {
    static uint8_t buffer[(16 << 20) + 1024];
    static sealcast_message messages[512];
    for (;;) {
        size_t count = 0;
        sealcast_status status = sealcast_subscriber_recv_many(subscriber, LOOK, buffer, sizeof buffer, messages,
                                                               sizeof *messages, 512, &count);
        for (size_t i = 0; status == SEALCAST_STATUS_OK && i < count; i++) {
            tell_message(&messages[i]);
        }
        fflush(stdout);
        sealcast_event event;
        while (sealcast_subscriber_next_event(subscriber, 0, &event, sizeof event) == SEALCAST_STATUS_OK) {
            tell_event(&event);
        }
        if (status != SEALCAST_STATUS_OK && status != SEALCAST_STATUS_TIMEOUT) {
            return status;
        }
    }
}

static int subscribe(sealcast_identity *identity, int argc, char **argv) {
    sealcast_subscriber_options options;
    sealcast_subscriber_options_init(&options, sizeof options);
    const char *start = option(argc, argv, "--start");
    options.channel = argv[3];
    options.listen = option(argc, argv, "--listen");
    if (start) {
        options.start = strcmp(start, "last") == 0    ? SEALCAST_START_LAST
                        : strcmp(start, "start") == 0 ? SEALCAST_START_START
                                                      : SEALCAST_START_NOW;
    }
    sealcast_subscriber *subscriber = NULL;
    sealcast_curl *https = NULL;
    pthread_t reader;
    sealcast_status status = sealcast_subscriber_new(identity, &options, 0, &subscriber);
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_curl_serve_subscriber(identity, subscriber, &curl_options, &https);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_subscriber_join(subscriber, PATIENCE);
    }
    if (status == SEALCAST_STATUS_OK) {
        puts("joined");
        fflush(stdout);
        pthread_create(&reader, NULL, wait_for_leave, subscriber);
        status = receive(subscriber);
    }
    int code = 0;
    if (status == SEALCAST_STATUS_CLOSED && atomic_load(&is_over)) {
        sealcast_subscriber_counters counters = {0};
        sealcast_subscriber_get_counters(subscriber, &counters, sizeof counters);
        printf("rejected %" PRIu64 "\nleft\n", counters.rejected_signature);
        fflush(stdout);
        pthread_join(reader, NULL);
    } else {
        code = fail(status);
    }
    sealcast_subscriber_free(subscriber);
    sealcast_curl_free(https);
    return code;
}

/* -- publish ------------------------------------------------------------------------------------------------------ */

static void *tell_events(void *publisher) {
    sealcast_event event;
    sealcast_status status;
    while (!atomic_load(&is_over) &&
           (status = sealcast_publisher_next_event(publisher, LOOK, &event, sizeof event),
            status == SEALCAST_STATUS_OK || status == SEALCAST_STATUS_TIMEOUT)) {
        if (status == SEALCAST_STATUS_OK) {
            tell_event(&event);
        }
    }
    return NULL;
}

static sealcast_status send_line(sealcast_publisher *publisher, char *line) {
    char *topic = line + strlen("send ");
    char *text = strchr(topic, ' ');
    if (!text) {
        return SEALCAST_STATUS_INVALID_ARGUMENT;
    }
    *text++ = 0;
    sealcast_bytes message = {(const uint8_t *)text, strlen(text)};
    sealcast_status status;
    do {
        status = sealcast_publisher_send(publisher, message, strcmp(topic, "-") == 0 ? NULL : topic);
    } while (status == SEALCAST_STATUS_QUEUE_FULL &&
             sealcast_publisher_wait_room(publisher, SEALCAST_FOREVER) == SEALCAST_STATUS_OK);
    return status;
}

static sealcast_status obey(sealcast_publisher *publisher) {
    static char line[1 << 20];
    unsigned count = 0;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        sealcast_status status = SEALCAST_STATUS_OK;
        if (strncmp(line, "send ", 5) == 0) {
            status = send_line(publisher, line);
            printf("sent %u\n", ++count);
        } else if (strcmp(line, "finish") == 0) {
            status = sealcast_publisher_finish(publisher, FINISH);
            puts("finished");
        } else if (strcmp(line, "exit") == 0) {
            break;
        }
        if (status != SEALCAST_STATUS_OK) {
            return status;
        }
        fflush(stdout);
    }
    return SEALCAST_STATUS_OK;
}

static int publish(sealcast_identity *identity, int argc, char **argv) {
    sealcast_publisher_options options;
    sealcast_publisher_options_init(&options, sizeof options);
    options.channel = argv[3];
    options.send_to = option(argc, argv, "--send-to");
    sealcast_publisher *publisher = NULL;
    sealcast_curl *https = NULL;
    pthread_t teller;
    sealcast_status status = sealcast_publisher_new(identity, &options, 0, &publisher);
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_curl_serve_publisher(identity, publisher, &curl_options, &https);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_publisher_join(publisher, PATIENCE);
    }
    if (status == SEALCAST_STATUS_OK) {
        puts("joined");
        fflush(stdout);
        pthread_create(&teller, NULL, tell_events, publisher);
        status = obey(publisher);
        atomic_store(&is_over, true);
        pthread_join(teller, NULL);
    }
    int code = status == SEALCAST_STATUS_OK ? 0 : fail(status);
    sealcast_publisher_free(publisher);
    sealcast_curl_free(https);
    return code;
}

static sealcast_status open_identity(const char *folder, const char *uri, sealcast_identity **identity) {
    if (!uri) {
        return sealcast_identity_open(folder, NULL, identity);
    }
    elsewhere.key = openssl_key_load(uri);
    if (!elsewhere.key) {
        return SEALCAST_STATUS_SIGNING;
    }
    sealcast_identity_options options = {sizeof options, openssl_key_sign, &elsewhere,
                                         openssl_key_algorithm(elsewhere.key)};
    sealcast_status status = sealcast_identity_open(folder, &options, identity);
    elsewhere.identity = *identity;
    curl_options.configure = openssl_key_configure;
    curl_options.configure_context = &elsewhere;
    return status;
}

/* -- vectors ------------------------------------------------------------------------------------------------------ */

enum { LINE = 4 << 20 };

static uint8_t half_byte(char digit) { return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10); }

static void tell_answer(const char *concept_name, const char *digits) {
    static uint8_t question[LINE / 2], answer[LINE / 2];
    size_t length = 0, count = 0;
    for (; digits[2 * count] && digits[2 * count + 1]; count++) {
        question[count] = (uint8_t)(half_byte(digits[2 * count]) << 4 | half_byte(digits[2 * count + 1]));
    }
    sealcast_bytes bytes = {question, count};
    sealcast_status status = sealcast_known_answer(concept_name, bytes, answer, sizeof answer, &length);
    printf("%s ", sealcast_status_name(status));
    if (status != SEALCAST_STATUS_OK) {
        char text[1024];
        sealcast_last_error(text, sizeof text);
        printf("%s\n", text);
        return;
    }
    for (size_t i = 0; i < length; i++) {
        printf("%02x", answer[i]);
    }
    printf("\n");
}

static int answer_vectors(void) {
    static char line[LINE];
    while (fgets(line, sizeof line, stdin)) {
        char *digits = line + strcspn(line, " ");
        line[strcspn(line, "\r\n")] = 0;
        if (*digits) {
            *digits++ = 0;
        }
        tell_answer(line, digits);
        fflush(stdout);
    }
    return 0;
}

int main(int argc, char **argv) {
#ifdef _WIN32 /* lines end in \n everywhere */
    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
#endif
    if (argc == 2 && strcmp(argv[1], "vectors") == 0) {
        return answer_vectors();
    }
    int is_publish = argc >= 4 && strcmp(argv[1], "publish") == 0;
    if (!is_publish && (argc < 4 || strcmp(argv[1], "subscribe") != 0)) {
        fprintf(stderr, "usage: %s subscribe|publish FOLDER CHANNEL [--start WORD] [--listen ADDR] [--send-to ADDR] [--key URI]"
                        "\n       %s vectors\n",
                argv[0], argv[0]);
        return 2;
    }
    if (sealcast_abi_version() != SEALCAST_ABI_VERSION) {
        fprintf(stderr, "the library has interface %" PRIu32 ", the header %d\n", sealcast_abi_version(),
                SEALCAST_ABI_VERSION);
        return 2;
    }
    sealcast_identity *identity = NULL;
    sealcast_status status = open_identity(argv[2], option(argc, argv, "--key"), &identity);
    if (status != SEALCAST_STATUS_OK) {
        return fail(status);
    }
    int code = is_publish ? publish(identity, argc, argv) : subscribe(identity, argc, argv);
    sealcast_identity_free(identity);
    EVP_PKEY_free(elsewhere.key);
    return code;
}
