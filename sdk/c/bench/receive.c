/* The receiving end of `make bench`: receive FOLDER CHANNEL COUNT BYTES. Takes a first message, then COUNT of so many
 * zero bytes each, checks them, and tells what it has seen as a line of JSON. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <sealcast.h>
#include <sealcast_curl.h>

enum { BATCH = 512, BUFFER = 1 << 20, WAIT = 10000000 };

static uint8_t buffer[BUFFER], expected[65536];
static sealcast_message messages[BATCH];

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static int fail(const char *what, sealcast_status status) {
    char text[512];
    sealcast_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, sealcast_status_name(status), text);
    return 1;
}

static uint64_t lost(sealcast_subscriber *subscriber) {
    uint64_t count = 0;
    sealcast_event event;
    while (sealcast_subscriber_next_event(subscriber, 0, &event, sizeof event) == SEALCAST_STATUS_OK) {
        if (event.kind == SEALCAST_EVENT_KIND_GAP) {
            count += event.last == UINT64_MAX ? 1 : event.last - event.first + 1;
        } else if (event.kind == SEALCAST_EVENT_KIND_MESSAGE_LOST) {
            count++;
        }
    }
    return count;
}

static int receive(sealcast_subscriber *subscriber, uint64_t count, size_t bytes) {
    size_t got = 0;
    sealcast_status status = sealcast_subscriber_recv(subscriber, SEALCAST_FOREVER, buffer, sizeof buffer, messages,
                                                      sizeof *messages);
    if (status != SEALCAST_STATUS_OK) {
        return fail("recv", status);
    }
    puts("{\"heard\": true}");
    fflush(stdout);
    uint64_t next = messages[0].message_id + 1, received = 0, wrong = 0, gone = 0;
    sealcast_subscriber_counters before, after;
    sealcast_subscriber_get_counters(subscriber, &before, sizeof before);
    double cpu = cpu_seconds(), last = 0;
    while (received + gone < count) {
        status = sealcast_subscriber_recv_many(subscriber, WAIT, buffer, sizeof buffer, messages, sizeof *messages, BATCH,
                                               &got);
        if (status != SEALCAST_STATUS_OK) {
            return fail("recv_many", status);
        }
        last = seconds();
        for (size_t i = 0; i < got; i++) {
            wrong += messages[i].message_id != next || messages[i].length != bytes ||
                     memcmp(messages[i].data, expected, bytes) != 0;
            next = messages[i].message_id + 1;
        }
        received += got;
        gone += lost(subscriber);
    }
    cpu = cpu_seconds() - cpu;
    sealcast_subscriber_get_counters(subscriber, &after, sizeof after);
    printf("{\"last\": %.9f, \"received\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"wrong\": %" PRIu64
           ", \"cpu\": %.6f, \"counters\": {\"repaired\": %" PRIu64 ", \"dropped-by-kernel\": %" PRIu64 "}}\n",
           last, received, gone, wrong, cpu, after.repaired - before.repaired,
           after.dropped_by_kernel - before.dropped_by_kernel);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s FOLDER CHANNEL COUNT BYTES\n", argv[0]);
        return 2;
    }
    double began = seconds();
    sealcast_identity *identity = NULL;
    sealcast_subscriber *subscriber = NULL;
    sealcast_curl *https = NULL;
    sealcast_subscriber_options options;
    sealcast_status status = sealcast_identity_open(argv[1], NULL, &identity);
    sealcast_subscriber_options_init(&options, sizeof options);
    options.channel = argv[2];
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_subscriber_new(identity, &options, 0, &subscriber);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_curl_serve_subscriber(identity, subscriber, NULL, &https);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_subscriber_join(subscriber, WAIT);
    }
    if (status != SEALCAST_STATUS_OK) {
        return fail(argv[2], status);
    }
    printf("{\"ready\": true, \"start\": %.6f}\n", seconds() - began);
    fflush(stdout);
    int code = receive(subscriber, strtoull(argv[3], NULL, 10), (size_t)atol(argv[4]));
    sealcast_subscriber_leave(subscriber);
    sealcast_event event;
    while (sealcast_subscriber_next_event(subscriber, 2000000, &event, sizeof event) == SEALCAST_STATUS_OK) {
    }
    sealcast_subscriber_free(subscriber);
    sealcast_curl_free(https);
    sealcast_identity_free(identity);
    return code;
}
