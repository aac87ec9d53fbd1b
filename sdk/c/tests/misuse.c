/* Wrong calls give a status, and never more: what the conventions promise. `misuse FOLDER [OPENINGS]` */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sealcast.h>

#include "expect.h"
#include "process.h"

static const char *folder;
static uint8_t buffer[1 << 17];

static sealcast_identity *open_identity(void) {
    sealcast_identity *identity = NULL;
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(folder, NULL, &identity));
    return identity;
}

static sealcast_subscriber *make_subscriber(sealcast_identity *identity) {
    sealcast_subscriber_options options;
    sealcast_subscriber *subscriber = NULL;
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_options_init(&options, sizeof options));
    options.channel = "ward/ecg";
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    return subscriber;
}

static sealcast_publisher *make_publisher(sealcast_identity *identity) {
    sealcast_publisher_options options;
    sealcast_publisher *publisher = NULL;
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_options_init(&options, sizeof options));
    options.channel = "ward/ecg";
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_new(identity, &options, 0, &publisher));
    return publisher;
}

static void null_arguments(void) {
    sealcast_identity *identity = open_identity();
    sealcast_subscriber *subscriber = make_subscriber(identity);
    sealcast_request request;
    sealcast_message message;
    sealcast_bytes nothing = {NULL, 5};
    size_t length;
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_identity_open(NULL, NULL, &identity));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_identity_open(folder, NULL, NULL));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_identity_free(NULL));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_identity_get_certificate(identity, 0, NULL, 9, &length));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_identity_sign(identity, nothing, buffer, 9, &length));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_new(identity, NULL, 0, &subscriber));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT,
           sealcast_subscriber_next_request(subscriber, 0, NULL, 9, &request, sizeof request));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT,
           sealcast_subscriber_next_request(subscriber, 0, buffer, 9, NULL, sizeof request));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_recv(subscriber, 0, NULL, 9, &message, sizeof message));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_verify_server(subscriber, 1, NULL, 1));
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_join(NULL, 0));
    sealcast_subscriber_free(subscriber);
    sealcast_identity_free(identity);
}

static void freed_and_foreign_handles(void) {
    sealcast_identity *identity = open_identity();
    sealcast_subscriber *subscriber = make_subscriber(identity);
    sealcast_publisher *publisher = make_publisher(identity);
    sealcast_event event;
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_publisher_join((sealcast_publisher *)subscriber, 0));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_subscriber_free((sealcast_subscriber *)publisher));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_subscriber_free((sealcast_subscriber *)(uintptr_t)buffer));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_identity_free(identity));
    EXPECT(SEALCAST_STATUS_TIMEOUT, sealcast_subscriber_next_event(subscriber, 0, &event, sizeof event));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_subscriber_free(subscriber));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_subscriber_next_event(subscriber, 0, &event, sizeof event));
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_free(publisher));
    EXPECT(SEALCAST_STATUS_INVALID_HANDLE, sealcast_publisher_finish(publisher, 0));
}

static void wrong_sizes(void) {
    sealcast_identity *identity = open_identity();
    sealcast_subscriber *subscriber = make_subscriber(identity);
    sealcast_subscriber_options options;
    sealcast_identity_info info;
    sealcast_message message;
    EXPECT(SEALCAST_STATUS_WRONG_SIZE, sealcast_subscriber_options_init(&options, 8));
    EXPECT(SEALCAST_STATUS_WRONG_SIZE, sealcast_subscriber_options_init(&options, sizeof options - 1));
    /* A header that is older than the library. */
    options.side_channel = 7;
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_options_init(&options, sizeof options - 8));
    CHECK(options.size == sizeof options - 8 && options.side_channel == 7);
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_options_init(&options, sizeof options));
    options.channel = "ward/ecg";
    options.size = 0;
    EXPECT(SEALCAST_STATUS_WRONG_SIZE, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    EXPECT(SEALCAST_STATUS_WRONG_SIZE, sealcast_identity_get_info(identity, &info, sizeof info + 8));
    EXPECT(SEALCAST_STATUS_WRONG_SIZE, sealcast_subscriber_recv(subscriber, 0, buffer, 64, &message, 8));
    sealcast_request request;
    EXPECT(SEALCAST_STATUS_BUFFER_TOO_SMALL,
           sealcast_subscriber_next_request(subscriber, 0, buffer, 8, &request, sizeof request));
    EXPECT(SEALCAST_STATUS_OK,
           sealcast_subscriber_next_request(subscriber, 0, buffer, sizeof buffer, &request, sizeof request));
    sealcast_bytes body = {NULL, 0};
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_subscriber_respond(subscriber, request.id, 7, body));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_respond(subscriber, request.id, 0, body));
    EXPECT(SEALCAST_STATUS_UNKNOWN_REQUEST, sealcast_subscriber_respond(subscriber, request.id, 0, body));
    sealcast_subscriber_free(subscriber);
    sealcast_identity_free(identity);
}

static void sizes(void) {
    CHECK(sealcast_id_bytes() == SEALCAST_ID_BYTES);
    CHECK(sealcast_datagram_bytes() == SEALCAST_DATAGRAM_BYTES);
    CHECK(sealcast_subscriber_request_bytes() == SEALCAST_SUBSCRIBER_REQUEST_BYTES);
    CHECK(sealcast_publisher_request_bytes() == SEALCAST_PUBLISHER_REQUEST_BYTES);
    CHECK(sealcast_identity_options_size() == sizeof(sealcast_identity_options));
    CHECK(sealcast_identity_info_size() == sizeof(sealcast_identity_info));
    CHECK(sealcast_request_size() == sizeof(sealcast_request));
    CHECK(sealcast_event_size() == sizeof(sealcast_event));
    CHECK(sealcast_message_size() == sizeof(sealcast_message));
    CHECK(sealcast_subscriber_options_size() == sizeof(sealcast_subscriber_options));
    CHECK(sealcast_subscriber_counters_size() == sizeof(sealcast_subscriber_counters));
    CHECK(sealcast_publisher_options_size() == sizeof(sealcast_publisher_options));
    CHECK(sealcast_publisher_counters_size() == sizeof(sealcast_publisher_counters));
}

static void *end_late(void *key) {
    pthread_setspecific(*(pthread_key_t *)key, (void *)1);
    /* Makes what the library keeps for a thread. */
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_leave(NULL));
    return NULL;
}

static void call_at_the_end(void *value) {
    (void)value;
    char text[64];
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_leave(NULL));
    CHECK(sealcast_last_error(text, sizeof text) == 0);
}

/* As destructors of a thread's own objects do, when what the library keeps for it is gone. */
static void a_thread_that_ends(void) {
    static pthread_key_t key;
    pthread_t thread;
    pthread_key_create(&key, call_at_the_end);
    pthread_create(&thread, NULL, end_late, &key);
    pthread_join(thread, NULL);
    pthread_key_delete(key);
}

static void values_out_of_range(void) {
    sealcast_identity *identity = open_identity();
    sealcast_subscriber *subscriber = NULL;
    sealcast_publisher *publisher = NULL;
    sealcast_subscriber_options options;
    sealcast_publisher_options sending;
    sealcast_subscriber_options_init(&options, sizeof options);
    EXPECT(SEALCAST_STATUS_NULL_ARGUMENT, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    options.channel = "\xff";
    EXPECT(SEALCAST_STATUS_INVALID_TEXT, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    options.channel = "no channel's name";
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    options.channel = "ward/ecg";
    options.delivery = 77;
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    sealcast_subscriber_options_init(&options, sizeof options);
    options.channel = "ward/ecg";
    options.listen = "nowhere";
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_subscriber_new(identity, &options, 0, &subscriber));
    sealcast_publisher_options_init(&sending, sizeof sending);
    sending.channel = "ward/ecg";
    sending.mtu = 99;
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_publisher_new(identity, &sending, 0, &publisher));
    EXPECT(SEALCAST_STATUS_NO_DEVICE, sealcast_identity_open("/", NULL, &identity));
    sealcast_identity_free(identity);
}

static void *take_one(void *subscriber) {
    static sealcast_message message;
    static uint8_t room[64];
    sealcast_status status;
    do {
        status = sealcast_subscriber_recv(subscriber, SEALCAST_FOREVER, room, sizeof room, &message, sizeof message);
    } while (status == SEALCAST_STATUS_IN_USE);
    return (void *)(intptr_t)status;
}

static void two_threads(void) {
    sealcast_identity *identity = open_identity();
    sealcast_subscriber *subscriber = make_subscriber(identity);
    sealcast_message message;
    pthread_t taker;
    pthread_create(&taker, NULL, take_one, subscriber);
    sealcast_status status;
    do {
        status = sealcast_subscriber_recv(subscriber, 0, buffer, sizeof buffer, &message, sizeof message);
    } while (status == SEALCAST_STATUS_TIMEOUT);
    EXPECT(SEALCAST_STATUS_IN_USE, status);
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
    void *result;
    pthread_join(taker, &result);
    EXPECT(SEALCAST_STATUS_CLOSED, (sealcast_status)(intptr_t)result);
    sealcast_identity_free(identity);
}

struct waiter {
    sealcast_status (*wait)(void *);
    void *handle;
    sealcast_status status;
    pthread_t thread;
};

static void *wait_on(void *context) {
    struct waiter *self = context;
    self->status = self->wait(self->handle);
    return NULL;
}

/* What waits without end: for whatever each end has. */
#define WAITS(END)                                                                                              \
    static sealcast_status END##_joins(void *handle) { return sealcast_##END##_join(handle, SEALCAST_FOREVER); }  \
    static sealcast_status END##_takes_events(void *handle) {                                                   \
        sealcast_event event;                                                                                   \
        return sealcast_##END##_next_event(handle, SEALCAST_FOREVER, &event, sizeof event);                     \
    }                                                                                                           \
    static sealcast_status END##_takes_requests(void *handle) {                                                 \
        static uint8_t room[SEALCAST_PUBLISHER_REQUEST_BYTES];                                                  \
        sealcast_request request;                                                                               \
        sealcast_status status;                                                                                 \
        do {                                                                                                    \
            status = sealcast_##END##_next_request(handle, SEALCAST_FOREVER, room, sizeof room, &request,       \
                                                   sizeof request);                                             \
        } while (status == SEALCAST_STATUS_OK);                                                                 \
        return status;                                                                                          \
    }

WAITS(subscriber)
WAITS(publisher)

static sealcast_status subscriber_receives(void *handle) { return (sealcast_status)(intptr_t)take_one(handle); }
static sealcast_status publisher_finishes(void *handle) { return sealcast_publisher_finish(handle, SEALCAST_FOREVER); }

static void freed_while_others_wait(void) {
    enum { WAITERS = 8, ROUNDS = 5, AT_ONCE = 500000 };
    sealcast_identity *identity = open_identity();
    uint64_t fastest = UINT64_MAX;
    for (int round = 0; round < ROUNDS; round++) {
        sealcast_subscriber *subscriber = make_subscriber(identity);
        sealcast_publisher *publisher = make_publisher(identity);
        struct waiter waiters[WAITERS] = {
            {.wait = subscriber_joins, .handle = subscriber},
            {.wait = subscriber_receives, .handle = subscriber},
            {.wait = subscriber_takes_events, .handle = subscriber},
            {.wait = subscriber_takes_requests, .handle = subscriber},
            {.wait = publisher_joins, .handle = publisher},
            {.wait = publisher_finishes, .handle = publisher},
            {.wait = publisher_takes_events, .handle = publisher},
            {.wait = publisher_takes_requests, .handle = publisher},
        };
        for (int i = 0; i < WAITERS; i++) {
            pthread_create(&waiters[i].thread, NULL, wait_on, &waiters[i]);
        }
        while (sleeping_threads() < WAITERS) {
            sched_yield();
        }
        uint64_t begun = sealcast_now();
        EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_free(subscriber));
        EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_free(publisher));
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(waiters[i].thread, NULL);
            /* Whoever slept before it got that far comes too late. */
            CHECK(waiters[i].status == SEALCAST_STATUS_CLOSED || waiters[i].status == SEALCAST_STATUS_INVALID_HANDLE);
        }
        uint64_t took = sealcast_now() - begun;
        fastest = took < fastest ? took : fastest;
    }
    /* Waits look up each second by themselves. */
    CHECK(fastest < AT_ONCE);
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_free(identity));
}

struct callback {
    sealcast_identity *identity;
    sealcast_status inside;
    int code;
};

static int32_t sign(void *context, const uint8_t *message, size_t length, uint8_t *signature, size_t *size) {
    struct callback *self = context;
    size_t written;
    sealcast_bytes again = {message, length};
    self->inside = sealcast_identity_sign(self->identity, again, signature, *size, &written);
    *size = 64;
    return self->code;
}

static void callbacks(void) {
    struct callback callback = {NULL, SEALCAST_STATUS_OK, 0};
    sealcast_identity_options options = {sizeof options, sign, &callback, SEALCAST_ALGORITHM_ED25519};
    sealcast_bytes message = {(const uint8_t *)"x", 1};
    size_t length;
    char text[256];
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(folder, &options, &callback.identity));
    /* Not of the key of the device's certificate. */
    EXPECT(SEALCAST_STATUS_SIGNING, sealcast_identity_sign(callback.identity, message, buffer, sizeof buffer, &length));
    CHECK(sealcast_last_error(text, sizeof text) > 0 && strstr(text, "gave no signature by the key of "));
    EXPECT(SEALCAST_STATUS_REENTRANT, callback.inside);
    callback.code = -1;
    EXPECT(SEALCAST_STATUS_SIGNING, sealcast_identity_sign(callback.identity, message, buffer, sizeof buffer, &length));
    CHECK(sealcast_last_error(text, sizeof text) > 0 && strstr(text, "says -1"));
    sealcast_identity_free(callback.identity);
    options.algorithm = 99;
    EXPECT(SEALCAST_STATUS_INVALID_ARGUMENT, sealcast_identity_open(folder, &options, &callback.identity));
}

static void open_and_close(long count) {
    long warm = count / 10, before = 0;
    sealcast_identity *identity = open_identity();
    for (long i = 0; i < count; i++) {
        sealcast_subscriber_free(make_subscriber(identity));
        sealcast_publisher_free(make_publisher(identity));
        if (i % 10 == 0) {
            sealcast_identity_free(identity);
            identity = open_identity();
        }
        if (i == warm) {
            before = resident_kib();
        }
    }
    sealcast_identity_free(identity);
    printf("%ld openings, %ld KiB more\n", count, resident_kib() - before);
    /* Of few, what an allocator keeps for itself would count. */
    if (count >= 1000 && resident_kib() - before > 1024) {
        failures++;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: %s FOLDER [OPENINGS]\n", argv[0]);
        return 2;
    }
    folder = argv[1];
    null_arguments();
    freed_and_foreign_handles();
    wrong_sizes();
    sizes();
    a_thread_that_ends();
    values_out_of_range();
    two_threads();
    freed_while_others_wait();
    callbacks();
    if (argc > 2) {
        open_and_close(atol(argv[2]));
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
