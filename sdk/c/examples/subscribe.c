/* Receive from a channel: subscribe FOLDER CHANNEL [INTERFACE] */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include <sealcast.h>
#include <sealcast_curl.h>

enum { INTERRUPTED = 130 }; /* an exit code; the others are categories of the library */

static volatile sig_atomic_t is_interrupted;

static void interrupt(int number) {
    (void)number;
    is_interrupted = 1;
}

static int fail(const char *what, sealcast_status status) {
    char text[512];
    sealcast_curl_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, sealcast_status_name(status), text);
    return (int)sealcast_status_category(status);
}

/* For ten seconds, and not all at once: Ctrl-C ends it. */
static sealcast_status join(sealcast_subscriber *subscriber) {
    uint64_t deadline = sealcast_now() + 10000000;
    sealcast_status status;
    do {
        status = sealcast_subscriber_join(subscriber, 200000);
    } while (status == SEALCAST_STATUS_UNREACHABLE && !is_interrupted && sealcast_now() < deadline);
    return status;
}

static sealcast_status receive(sealcast_subscriber *subscriber) {
    static uint8_t buffer[(16 << 20) + 1024];
    static sealcast_message messages[256];
    while (!is_interrupted) {
        size_t count = 0;
        sealcast_status status = sealcast_subscriber_recv_many(subscriber, 200000, buffer, sizeof buffer, messages,
                                                               sizeof *messages, 256, &count);
        for (size_t i = 0; i < count; i++) {
            printf("%s: ", messages[i].publisher);
            fwrite(messages[i].data, 1, messages[i].length, stdout);
            putchar('\n');
        }
        fflush(stdout);
        sealcast_event event;
        while (sealcast_subscriber_next_event(subscriber, 0, &event, sizeof event) == SEALCAST_STATUS_OK) {
            fprintf(stderr, "%s\n", event.text);
        }
        if (status != SEALCAST_STATUS_OK && status != SEALCAST_STATUS_TIMEOUT) {
            return status;
        }
    }
    return SEALCAST_STATUS_OK;
}

/* Until the key server knows that this device has left. */
static void leave(sealcast_subscriber *subscriber) {
    sealcast_event event;
    sealcast_subscriber_leave(subscriber);
    while (sealcast_subscriber_next_event(subscriber, 2000000, &event, sizeof event) == SEALCAST_STATUS_OK) {
    }
}

int main(int argc, char **argv) {
    if (argc < 3 || sealcast_abi_version() != SEALCAST_ABI_VERSION) {
        fprintf(stderr, "usage: %s FOLDER CHANNEL [INTERFACE]\n", argv[0]);
        return 2;
    }
    signal(SIGINT, interrupt);
    signal(SIGTERM, interrupt);
    sealcast_identity *identity = NULL;
    sealcast_status status = sealcast_identity_open(argv[1], NULL, &identity);
    if (status != SEALCAST_STATUS_OK) {
        return fail(argv[1], status);
    }
    sealcast_subscriber_options options;
    sealcast_subscriber_options_init(&options, sizeof options);
    options.channel = argv[2];
    options.interface_name = argc > 3 ? argv[3] : NULL;
    sealcast_subscriber *subscriber = NULL;
    sealcast_curl *https = NULL;
    status = sealcast_subscriber_new(identity, &options, 0, &subscriber);
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_curl_serve_subscriber(identity, subscriber, NULL, &https);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = join(subscriber);
    }
    if (status == SEALCAST_STATUS_OK) {
        fprintf(stderr, "joined channel %s\n", argv[2]);
        status = receive(subscriber);
    }
    if (status == SEALCAST_STATUS_OK) {
        leave(subscriber);
    }
    int code = is_interrupted ? INTERRUPTED : status == SEALCAST_STATUS_OK ? 0 : fail(argv[2], status);
    sealcast_subscriber_free(subscriber);
    sealcast_curl_free(https);
    sealcast_identity_free(identity);
    return code;
}
