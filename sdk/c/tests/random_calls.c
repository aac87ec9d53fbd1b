/* Calls at random: handles that live, were freed, are of another kind or none; sizes and values of every sort.
 * Whatever comes of it is a status, and what is delivered is what was sent.
 * `random_calls FOLDER SEED COUNT`: one thread, and nothing joins.
 * `random_calls FOLDER SEED COUNT SUBSCRIBER CHANNEL`: at least COUNT calls of each of several threads, on ends of two
 * devices that join; at last a publisher and a subscriber that were made anew have to work. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sealcast_curl.h>

enum {
    HANDLES = 8,
    BYTES = 1 << 16,
    STATUSES = 128,
    THREADS = 4,
    RARE = 256,          /* of the calls that end or make something, one in so many, where it would be missed */
    WANTED = 50,         /* messages */
    DEADLINE = 300,      /* seconds after which it hangs */
    PATIENCE = 20000000, /* microseconds */
};

static uint64_t seed;
static atomic_uint generators;
static _Thread_local uint64_t state;

static uint64_t draw(uint64_t below) {
    /* xorshift64*: the same calls for the same seed, everywhere; each thread has its own. */
    if (!state) {
        state = seed * 2 + 1 + ((uint64_t)atomic_fetch_add(&generators, 1) << 32);
    }
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(2685821657736338717)) % below;
}

static void fail(const char *what, const char *text) {
    fprintf(stderr, "seed %" PRIu64 ": %s: %s\n", seed, what, text);
    _exit(1);
}

static atomic_long counts[STATUSES];

static sealcast_status judge(sealcast_status status) {
    char text[512];
    if (status < 0 || status >= STATUSES || !sealcast_status_name(status)) {
        snprintf(text, sizeof text, "%d", (int)status);
        fail("a status", text);
    }
    if (status == SEALCAST_STATUS_INTERNAL) {
        sealcast_last_error(text, sizeof text);
        fail("internal", text);
    }
    atomic_fetch_add(&counts[status], 1);
    return status;
}

static void must(sealcast_status status, const char *what) {
    char text[512];
    if (status != SEALCAST_STATUS_OK) {
        sealcast_last_error(text, sizeof text);
        fail(what, status == SEALCAST_STATUS_TIMEOUT ? "nothing came" : text);
    }
}

enum { IDENTITY, SUBSCRIBER, PUBLISHER, KINDS };
static struct {
    _Atomic(void *) handle;
    sealcast_curl *curl; /* what makes its requests */
} ends[KINDS][HANDLES];
static pthread_mutex_t changing = PTHREAD_MUTEX_INITIALIZER;
static size_t places = HANDLES;
static const char *folders[2], *channel;
static _Thread_local uint8_t buffer[BYTES], given[BYTES];
static const char *const TEXTS[] = {NULL, "", "ward/ecg", "ward/\xff", "239.1.2.3:5000", "127.0.0.1", "nonsense", "lo"};
enum { MANY_TEXTS = sizeof TEXTS / sizeof *TEXTS };

static void *any_handle(int kind) {
    switch (draw(24)) {
    case 0:
        return NULL;
    case 1:
        return buffer;
    case 2:
        return (void *)(uintptr_t)draw(UINT64_MAX);
    case 3:
        return atomic_load(&ends[draw(KINDS)][draw(places)].handle);
    default:
        return atomic_load(&ends[kind][draw(places)].handle);
    }
}

static size_t any_size(size_t right) { return draw(8) ? right : (size_t)draw(4 * right); }

static uint64_t any_number(void) {
    uint64_t bits = draw(64);
    return draw(UINT64_MAX) >> bits;
}

static uint64_t any_time(void) { return draw(RARE) ? sealcast_now() : any_number(); }

static uint64_t any_timeout(void) { return channel && draw(4) == 0 ? draw(3000) : 0; }

static const char *any_text(void) { return TEXTS[draw(MANY_TEXTS)]; }

/* Whether an option is to be what is good for nothing. Of too many no end would come to life. */
static int is_odd(void) { return draw(channel ? 32 : 4) == 0; }

static const char *odd_text(void) { return is_odd() ? any_text() : NULL; }

static uint8_t *any_buffer(size_t *capacity) {
    *capacity = draw(3) ? BYTES : (size_t)draw(BYTES);
    return draw(64) ? buffer : NULL;
}

/* Genuine bytes that came by: bodies of answers, datagrams, certificates. */
enum { BODIES, DATAGRAMS, CERTIFICATES, SORTS, KEPT = 16 };
static struct {
    size_t length;
    uint8_t data[BYTES];
} genuine[SORTS][KEPT];
static pthread_mutex_t keeping = PTHREAD_MUTEX_INITIALIZER;

static void remember(int sort, const uint8_t *data, size_t length) {
    if (length <= BYTES) {
        size_t place = draw(KEPT);
        pthread_mutex_lock(&keeping);
        memcpy(genuine[sort][place].data, data, length);
        genuine[sort][place].length = length;
        pthread_mutex_unlock(&keeping);
    }
}

/* Genuine as they were, or changed a little, or none of it. */
static sealcast_bytes any_bytes(int sort) {
    sealcast_bytes bytes = {draw(64) ? given : NULL, draw(2) ? (size_t)draw(64) : (size_t)draw(BYTES)};
    if (draw(4) && bytes.data) {
        size_t place = draw(KEPT);
        pthread_mutex_lock(&keeping);
        memcpy(given, genuine[sort][place].data, genuine[sort][place].length);
        bytes.length = genuine[sort][place].length;
        pthread_mutex_unlock(&keeping);
        if (draw(2) && bytes.length) {
            given[draw(bytes.length)] ^= (uint8_t)(1 << draw(8));
            bytes.length -= draw(4) ? 0 : draw(bytes.length);
        }
    } else {
        for (int i = 0; i < 16; i++) {
            given[i] = (uint8_t)draw(256);
        }
    }
    return bytes;
}

static int32_t any_code(void) { return draw(2) ? 200 : (int32_t)draw(600); }

static atomic_bool is_wild;             /* answers may be changed */
static _Thread_local bool is_at_random; /* all that this thread calls */

/* What sealcast_curl has to say goes through these (-Wl,--wrap): it is remembered, and now and then changed. */
#define WRAP(END)                                                                                               \
    sealcast_status __real_sealcast_##END##_respond(sealcast_##END *, uint64_t, int32_t, sealcast_bytes);       \
    sealcast_status __wrap_sealcast_##END##_respond(sealcast_##END *end, uint64_t id, int32_t code,             \
                                                    sealcast_bytes body) {                                      \
        if (!is_at_random && code == 200 && body.data) {                                                        \
            remember(BODIES, body.data, body.length);                                                           \
        }                                                                                                       \
        if (!is_at_random && atomic_load(&is_wild) && draw(16) == 0) {                                          \
            judge(__real_sealcast_##END##_respond(end, id, any_code(), any_bytes(BODIES)));                     \
        }                                                                                                       \
        return judge(__real_sealcast_##END##_respond(end, id, code, body));                                     \
    }                                                                                                           \
    sealcast_status __real_sealcast_##END##_verify_server(sealcast_##END *, uint64_t, const sealcast_bytes *,   \
                                                          size_t);                                              \
    sealcast_status __wrap_sealcast_##END##_verify_server(sealcast_##END *end, uint64_t id,                     \
                                                          const sealcast_bytes *chain, size_t count) {          \
        for (size_t place = 0; !is_at_random && place < count; place++) {                                       \
            remember(CERTIFICATES, chain[place].data, chain[place].length);                                     \
        }                                                                                                       \
        return judge(__real_sealcast_##END##_verify_server(end, id, chain, count));                             \
    }

WRAP(subscriber)
WRAP(publisher)

/* A message begins with a number, from which its topic and with its length the other bytes follow. */
static void compose(uint8_t *message, size_t length, uint64_t number) {
    uint64_t word = number;
    for (size_t i = 0; i < length; i++) {
        if (i >= 8 && i % 8 == 0) {
            word = (word + length) * UINT64_C(0x9e3779b97f4a7c15);
            word ^= word >> 29;
        }
        message[i] = (uint8_t)(word >> i % 8 * 8);
    }
}

static atomic_long delivered;

static void check(const sealcast_message *message) {
    static _Thread_local uint8_t wanted[BYTES];
    uint64_t number = 0;
    for (size_t i = 0; i < 8 && i < message->length; i++) {
        number |= (uint64_t)message->data[i] << i * 8;
    }
    const char *topic = message->length < 8 ? NULL : TEXTS[number % MANY_TEXTS];
    compose(wanted, message->length <= BYTES ? message->length : 0, number);
    if (message->length > BYTES || memcmp(wanted, message->data, message->length) != 0 ||
        strcmp(topic ? topic : "", message->topic ? message->topic : "") != 0) {
        fail("delivered and never sent", message->publisher);
    }
    atomic_fetch_add(&delivered, 1);
}

static sealcast_status take(sealcast_subscriber *subscriber, uint64_t timeout, uint8_t *place, size_t capacity,
                            size_t size, size_t limit) {
    sealcast_message messages[4];
    size_t count = 0;
    sealcast_status status =
        sealcast_subscriber_recv_many(subscriber, timeout, place, capacity, messages, size, limit, &count);
    for (size_t i = 0; status == SEALCAST_STATUS_OK && i < count; i++) {
        check(&messages[i]);
    }
    return status;
}

static sealcast_status send_some(sealcast_publisher *publisher) {
    sealcast_bytes messages[4];
    size_t length = draw(16) ? draw(3000) : draw(BYTES / 4), taken;
    /* All of one topic; too short for a number, and of none. */
    uint64_t topic = length < 8 ? 0 : draw(MANY_TEXTS);
    for (size_t i = 0; i < 4; i++) {
        uint8_t *place = given + i * (BYTES / 4);
        compose(place, length, draw(UINT64_MAX) / MANY_TEXTS * MANY_TEXTS + topic);
        messages[i] = (sealcast_bytes){draw(64) ? place : NULL, length};
    }
    return draw(2) ? sealcast_publisher_send(publisher, messages[0], TEXTS[topic])
                   : sealcast_publisher_send_many(publisher, messages, draw(5), TEXTS[topic], &taken);
}

static void release(int kind, void *handle, sealcast_curl *curl) {
    int is_first = draw(2) != 0;
    if (is_first) {
        sealcast_curl_free(curl);
    }
    if (kind == IDENTITY) {
        judge(sealcast_identity_free(handle));
    } else if (kind == SUBSCRIBER) {
        judge(sealcast_subscriber_free(handle));
    } else {
        judge(sealcast_publisher_free(handle));
    }
    if (!is_first) {
        sealcast_curl_free(curl);
    }
}

static void put(int kind, size_t place, void *handle, sealcast_curl *curl) {
    pthread_mutex_lock(&changing);
    void *before = atomic_exchange(&ends[kind][place].handle, handle);
    sealcast_curl *served = ends[kind][place].curl;
    ends[kind][place].curl = curl;
    pthread_mutex_unlock(&changing);
    /* Other threads are in calls with it. */
    release(kind, before, served);
}

static void release_all(void) {
    for (int kind = 0; kind < KINDS; kind++) {
        for (size_t place = 0; place < HANDLES; place++) {
            put(kind, place, NULL, NULL);
        }
    }
}

static sealcast_curl *serve(int kind, sealcast_identity *identity, void *made) {
    sealcast_curl_options options = {sizeof options, 4, NULL, NULL};
    sealcast_curl *curl = NULL;
    judge(kind == SUBSCRIBER ? sealcast_curl_serve_subscriber(identity, made, &options, &curl)
                             : sealcast_curl_serve_publisher(identity, made, &options, &curl));
    return curl;
}

static void keep(int kind, sealcast_status status, void *made) {
    if (status == SEALCAST_STATUS_OK) {
        size_t place = draw(places);
        int is_served = channel && kind != IDENTITY;
        put(kind, place, made, is_served ? serve(kind, atomic_load(&ends[IDENTITY][draw(places)].handle), made) : NULL);
    }
}

static sealcast_status make_subscriber(void) {
    /* As long as a size may say that it is. */
    static _Thread_local sealcast_subscriber_options room[4];
    sealcast_subscriber_options *options = room;
    sealcast_subscriber *made = NULL;
    sealcast_subscriber_options_init(options, any_size(sizeof *options));
    memset(room, 0, is_odd() ? sizeof room : 0);
    if (!is_odd()) {
        sealcast_subscriber_options_init(options, sizeof *options);
        options->channel = channel ? channel : is_odd() ? any_text() : "ward/ecg";
        options->listen = odd_text();
        options->interface_name = odd_text();
        options->source = odd_text();
        options->delivery = (int32_t)draw(is_odd() ? 4 : 3);
        options->deadline = is_odd() ? any_number() : options->delivery == SEALCAST_DELIVERY_REALTIME ? 100000 : 0;
        options->start = (int32_t)draw(is_odd() ? 4 : 3);
        options->buffer_bytes = is_odd() ? any_number() : options->buffer_bytes;
        options->host_sockets = draw(2) ? 1 : 0;
        options->side_channel = draw(4) ? 0 : 1;
    }
    options = draw(16) ? options : NULL;
    sealcast_status status = sealcast_subscriber_new(any_handle(IDENTITY), options, any_time(), &made);
    keep(SUBSCRIBER, status, made);
    return status;
}

static sealcast_status make_publisher(void) {
    sealcast_publisher_options options;
    sealcast_publisher *made = NULL;
    sealcast_publisher_options_init(&options, sizeof options);
    options.channel = channel ? channel : is_odd() ? any_text() : "ward/ecg";
    options.instance = odd_text();
    options.mtu = is_odd() ? (uint32_t)any_number() : 1500;
    options.max_block = is_odd() ? (uint32_t)any_number() : 64;
    options.fec = (int32_t)draw(is_odd() ? 5 : 3);
    options.fec_sources = (uint32_t)draw(80);
    options.fec_parities = (uint32_t)draw(40);
    options.retain_topics = (uint32_t)draw(3);
    options.queue_bytes = is_odd() ? any_number() : 1 << 20;
    options.host_sockets = draw(2) ? 1 : 0;
    const sealcast_publisher_options *given_options = draw(16) ? &options : NULL;
    sealcast_status status = sealcast_publisher_new(any_handle(IDENTITY), given_options, any_time(), &made);
    keep(PUBLISHER, status, made);
    return status;
}

/* Takes a request away from whoever makes them, and seldom leaves it without an answer. */
static sealcast_status take_request(int kind, void *end, uint8_t *place, size_t capacity) {
    sealcast_request request;
    size_t size = any_size(sizeof request);
    int is_subscriber = kind == SUBSCRIBER;
    sealcast_status status =
        is_subscriber ? sealcast_subscriber_next_request(end, any_timeout(), place, capacity, &request, size)
                      : sealcast_publisher_next_request(end, any_timeout(), place, capacity, &request, size);
    for (size_t answers = draw(8) ? 1 + draw(2) : 0; status == SEALCAST_STATUS_OK && answers > 0; answers--) {
        judge(is_subscriber ? sealcast_subscriber_respond(end, request.id, any_code(), any_bytes(BODIES))
                            : sealcast_publisher_respond(end, request.id, any_code(), any_bytes(BODIES)));
    }
    return status;
}

/* What opens, ends or takes something: too much of it would leave nothing to call. */
static sealcast_status call_with_consequences(void) {
    sealcast_identity *identity = NULL;
    sealcast_status status;
    size_t capacity;
    uint8_t *place = any_buffer(&capacity);
    switch (draw(12)) {
    case 0:
        status = sealcast_identity_open(draw(8) ? folders[draw(2)] : any_text(), NULL, &identity);
        keep(IDENTITY, status, identity);
        return status;
    case 1:
        return sealcast_identity_free(channel || draw(4) ? NULL : any_handle(IDENTITY));
    case 2:
    case 3:
        return make_subscriber();
    case 4:
    case 5:
        return make_publisher();
    case 6:
        return sealcast_subscriber_free(channel || draw(4) ? NULL : any_handle(SUBSCRIBER));
    case 7:
        return sealcast_publisher_free(channel || draw(4) ? NULL : any_handle(PUBLISHER));
    case 8:
        return take_request(SUBSCRIBER, any_handle(SUBSCRIBER), place, capacity);
    case 9:
        return take_request(PUBLISHER, any_handle(PUBLISHER), place, capacity);
    case 10:
        return sealcast_publisher_finish(any_handle(PUBLISHER), any_timeout());
    default:
        return sealcast_subscriber_leave(any_handle(SUBSCRIBER));
    }
}

static sealcast_status call(void) {
    if (draw(channel ? RARE : 3) == 0) {
        return call_with_consequences();
    }
    sealcast_event event;
    sealcast_identity_info info;
    sealcast_publisher_counters sending;
    sealcast_subscriber_counters receiving;
    sealcast_bytes bytes = any_bytes((int)draw(SORTS));
    sealcast_status status;
    size_t capacity, length;
    uint64_t deadline;
    uint8_t *place = any_buffer(&capacity), stream[16];
    void *identities = any_handle(IDENTITY), *subscribers = any_handle(SUBSCRIBER);
    void *publishers = any_handle(PUBLISHER);
    switch (draw(28)) {
    case 0:
        return sealcast_identity_get_info(identities, &info, any_size(sizeof info));
    case 1:
        return sealcast_identity_get_certificate(identities, (size_t)any_number(), place, capacity, &length);
    case 2:
        return sealcast_identity_get_authority(identities, (size_t)draw(4), place, capacity, &length);
    case 3:
        return sealcast_identity_sign(identities, bytes, place, capacity, &length);
    case 4:
        return sealcast_subscriber_join(subscribers, any_timeout());
    case 5:
        return sealcast_publisher_join(publishers, any_timeout());
    case 6:
        bytes = any_bytes(CERTIFICATES);
        return sealcast_subscriber_verify_server(subscribers, draw(64), &bytes, draw(2));
    case 7:
        bytes = any_bytes(CERTIFICATES);
        return sealcast_publisher_verify_server(publishers, draw(64), &bytes, draw(2));
    case 8:
        return sealcast_subscriber_respond(subscribers, draw(64), any_code(), bytes);
    case 9:
        return sealcast_publisher_respond(publishers, draw(64), any_code(), bytes);
    case 10:
        return sealcast_subscriber_next_event(subscribers, any_timeout(), &event, any_size(sizeof event));
    case 11:
        return sealcast_publisher_next_event(publishers, any_timeout(), &event, any_size(sizeof event));
    case 12:
        return sealcast_subscriber_get_counters(subscribers, &receiving, any_size(sizeof receiving));
    case 13:
        return sealcast_publisher_get_counters(publishers, &sending, any_size(sizeof sending));
    case 14:
    case 15:
        bytes = any_bytes(DATAGRAMS);
        return sealcast_subscriber_receive_datagrams(subscribers, &bytes, draw(2), any_time());
    case 16:
        return sealcast_subscriber_handle_deadline(subscribers, any_time(), &deadline);
    case 17:
        return sealcast_publisher_handle_deadline(publishers, any_time(), &deadline);
    case 18:
    case 19:
        status = sealcast_publisher_poll_datagram(publishers, any_time(), place, capacity, &length);
        if (status == SEALCAST_STATUS_OK) {
            remember(DATAGRAMS, place, length);
        }
        return status;
    case 20:
    case 21:
        return send_some(publishers);
    case 22:
        return sealcast_publisher_wait_room(publishers, any_timeout());
    case 23:
        return sealcast_publisher_get_stream(publishers, draw(8) ? &stream : NULL);
    default:
        return take(subscribers, any_timeout(), place, capacity, any_size(sizeof(sealcast_message)), (size_t)draw(5));
    }
}

static void *call_often(void *count) {
    is_at_random = true;
    for (long left = *(long *)count; left > 0 || (channel && atomic_load(&delivered) < WANTED); left--) {
        judge(call());
    }
    return NULL;
}

/* A publisher and a subscriber that join, and a message that comes. */
static void begin_pair(void) {
    sealcast_publisher_options from;
    sealcast_subscriber_options to;
    sealcast_identity *identities[2] = {NULL, NULL};
    sealcast_publisher *publisher = NULL;
    sealcast_subscriber *subscriber = NULL;
    for (size_t place = 0; place < 2; place++) {
        must(sealcast_identity_open(folders[place], NULL, &identities[place]), "identity");
        put(IDENTITY, place, identities[place], NULL);
    }
    must(sealcast_publisher_options_init(&from, sizeof from), "options");
    must(sealcast_subscriber_options_init(&to, sizeof to), "options");
    from.channel = to.channel = channel;
    must(sealcast_publisher_new(identities[0], &from, 0, &publisher), "publisher");
    must(sealcast_subscriber_new(identities[1], &to, 0, &subscriber), "subscriber");
    put(PUBLISHER, 0, publisher, serve(PUBLISHER, identities[0], publisher));
    put(SUBSCRIBER, 0, subscriber, serve(SUBSCRIBER, identities[1], subscriber));
    must(sealcast_subscriber_join(subscriber, PATIENCE), "the subscriber's join");
    must(sealcast_publisher_join(publisher, PATIENCE), "the publisher's join");
    /* The first may be gone before the subscriber knows of the stream, and nobody is there who repairs. */
    sealcast_status status = SEALCAST_STATUS_TIMEOUT;
    for (uint64_t end = sealcast_now() + PATIENCE; status == SEALCAST_STATUS_TIMEOUT && sealcast_now() < end;) {
        compose(given, 1000, 0);
        must(sealcast_publisher_send(publisher, (sealcast_bytes){given, 1000}, NULL), "send");
        status = take(subscriber, 10000, buffer, sizeof buffer, sizeof(sealcast_message), 1);
    }
    must(status, "recv");
}

static void call_in_threads(long count) {
    pthread_t threads[THREADS];
    places = 4;
    begin_pair();
    printf("joined\n");
    fflush(stdout);
    atomic_store(&is_wild, true);
    for (size_t i = 1; i < places; i++) {
        make_subscriber();
        make_publisher();
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_create(&threads[i], NULL, call_often, &count);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&is_wild, false);
    release_all();
    begin_pair();
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) {
        fprintf(stderr, "usage: %s FOLDER SEED COUNT [SUBSCRIBER CHANNEL]\n", argv[0]);
        return 2;
    }
    alarm(DEADLINE);
    seed = strtoull(argv[2], NULL, 10);
    long count = atol(argv[3]);
    folders[0] = folders[1] = argv[1];
    if (argc == 6) {
        folders[1] = argv[4];
        channel = argv[5];
        call_in_threads(count);
    } else {
        call_often(&count);
    }
    release_all();
    for (int i = 0; i < STATUSES; i++) {
        if (counts[i]) {
            printf("%s %ld\n", sealcast_status_name(i), counts[i]);
        }
    }
    return 0;
}
