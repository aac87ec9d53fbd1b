/* Calls at random: handles that live, were freed, are of another kind or none; sizes and values of every sort.
 * Whatever comes of it is a status. `random_calls FOLDER SEED COUNT` */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sealcast.h>

enum { HANDLES = 8, BYTES = 1 << 16, STATUSES = 128 };

static uint64_t state;

static uint64_t draw(uint64_t below) {
    /* xorshift64*: the same calls for the same seed, everywhere. */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * UINT64_C(2685821657736338717)) % below;
}

enum { IDENTITY, SUBSCRIBER, PUBLISHER, KINDS };
static void *handles[KINDS][HANDLES];
static uint8_t buffer[BYTES], given[BYTES];
static const char *const TEXTS[] = {NULL, "", "ward/ecg", "ward/\xff", "239.1.2.3:5000", "127.0.0.1", "nonsense", "lo"};

static void *any_handle(int kind) {
    switch (draw(24)) {
    case 0:
        return NULL;
    case 1:
        return buffer;
    case 2:
        return (void *)(uintptr_t)draw(UINT64_MAX);
    case 3:
        return handles[draw(KINDS)][draw(HANDLES)];
    default:
        return handles[kind][draw(HANDLES)];
    }
}

static size_t any_size(size_t right) { return draw(8) ? right : (size_t)draw(4 * right); }

static uint64_t any_number(void) {
    uint64_t bits = draw(64);
    return draw(UINT64_MAX) >> bits;
}

static const char *any_text(void) { return TEXTS[draw(sizeof TEXTS / sizeof *TEXTS)]; }

static uint8_t *any_buffer(size_t *capacity) {
    *capacity = draw(3) ? BYTES : (size_t)draw(BYTES);
    return draw(16) ? buffer : NULL;
}

static sealcast_bytes any_bytes(void) {
    sealcast_bytes bytes = {draw(16) ? given : NULL, draw(2) ? (size_t)draw(64) : (size_t)draw(BYTES)};
    for (int i = 0; i < 16; i++) {
        given[i] = (uint8_t)draw(256);
    }
    return bytes;
}

static void release(int kind, void *handle) {
    if (kind == IDENTITY) {
        sealcast_identity_free(handle);
    } else if (kind == SUBSCRIBER) {
        sealcast_subscriber_free(handle);
    } else {
        sealcast_publisher_free(handle);
    }
}

static void keep(int kind, sealcast_status status, void *made) {
    if (status == SEALCAST_STATUS_OK) {
        size_t place = draw(HANDLES);
        release(kind, handles[kind][place]);
        handles[kind][place] = made;
    }
}

static sealcast_status make_subscriber(void) {
    /* As long as a size may say that it is. */
    static sealcast_subscriber_options room[4];
    sealcast_subscriber_options *options = room;
    sealcast_subscriber *made = NULL;
    sealcast_subscriber_options_init(options, any_size(sizeof *options));
    memset(room, 0, draw(4) ? 0 : sizeof room);
    if (draw(4)) {
        sealcast_subscriber_options_init(options, sizeof *options);
        options->channel = draw(4) ? "ward/ecg" : any_text();
        options->listen = draw(4) ? NULL : any_text();
        options->interface_name = any_text();
        options->source = draw(4) ? NULL : any_text();
        options->delivery = (int32_t)draw(4);
        options->deadline = draw(2) ? 0 : any_number();
        options->start = (int32_t)draw(4);
        options->buffer_bytes = draw(4) ? options->buffer_bytes : any_number();
        options->host_sockets = draw(2) ? 1 : 0;
        options->side_channel = draw(4) ? 0 : 1;
    }
    sealcast_status status = sealcast_subscriber_new(any_handle(IDENTITY), draw(16) ? options : NULL, any_number(), &made);
    keep(SUBSCRIBER, status, made);
    return status;
}

static sealcast_status make_publisher(void) {
    sealcast_publisher_options options;
    sealcast_publisher *made = NULL;
    sealcast_publisher_options_init(&options, sizeof options);
    options.channel = draw(4) ? "ward/ecg" : any_text();
    options.instance = any_text();
    options.mtu = draw(4) ? 1500 : (uint32_t)any_number();
    options.max_block = draw(4) ? 64 : (uint32_t)any_number();
    options.fec = (int32_t)draw(5);
    options.fec_sources = (uint32_t)draw(80);
    options.fec_parities = (uint32_t)draw(40);
    options.queue_bytes = draw(2) ? any_number() : options.queue_bytes;
    options.host_sockets = draw(2) ? 1 : 0;
    sealcast_status status = sealcast_publisher_new(any_handle(IDENTITY), draw(16) ? &options : NULL, any_number(), &made);
    keep(PUBLISHER, status, made);
    return status;
}

static sealcast_status call(const char *folder) {
    sealcast_request request;
    sealcast_message messages[4];
    sealcast_event event;
    sealcast_identity_info info;
    sealcast_publisher_counters sending;
    sealcast_subscriber_counters receiving;
    sealcast_identity *identity = NULL;
    sealcast_bytes bytes = any_bytes();
    sealcast_status status;
    size_t capacity, length;
    uint64_t deadline;
    uint8_t *place = any_buffer(&capacity), stream[16];
    void *identities = any_handle(IDENTITY), *subscribers = any_handle(SUBSCRIBER);
    void *publishers = any_handle(PUBLISHER);
    switch (draw(32)) {
    case 0:
        status = sealcast_identity_open(draw(8) ? folder : any_text(), NULL, &identity);
        keep(IDENTITY, status, identity);
        return status;
    case 1:
        return sealcast_identity_free(draw(4) ? NULL : identities);
    case 2:
        return sealcast_identity_get_info(identities, &info, any_size(sizeof info));
    case 3:
        return sealcast_identity_get_certificate(identities, (size_t)any_number(), place, capacity, &length);
    case 4:
        return sealcast_identity_get_authority(identities, (size_t)draw(4), place, capacity, &length);
    case 5:
        return sealcast_identity_sign(identities, bytes, place, capacity, &length);
    case 6:
    case 7:
        return make_subscriber();
    case 8:
    case 9:
        return make_publisher();
    case 10:
        return sealcast_subscriber_free(draw(4) ? NULL : subscribers);
    case 11:
        return sealcast_publisher_free(draw(4) ? NULL : publishers);
    case 12:
        return sealcast_subscriber_join(subscribers, 0);
    case 13:
        return sealcast_publisher_join(publishers, 0);
    case 14:
        return sealcast_subscriber_next_request(subscribers, 0, place, capacity, &request, any_size(sizeof request));
    case 15:
        return sealcast_publisher_next_request(publishers, 0, place, capacity, &request, any_size(sizeof request));
    case 16:
        return sealcast_subscriber_verify_server(subscribers, draw(8), &bytes, draw(2));
    case 17:
        return sealcast_publisher_verify_server(publishers, draw(8), &bytes, draw(2));
    case 18:
        return sealcast_subscriber_respond(subscribers, draw(8), (int32_t)draw(600), bytes);
    case 19:
        return sealcast_publisher_respond(publishers, draw(8), (int32_t)draw(600), bytes);
    case 20:
        return sealcast_subscriber_recv_many(subscribers, 0, place, capacity, messages, any_size(sizeof *messages), draw(5),
                                             &length);
    case 21:
        return sealcast_subscriber_next_event(subscribers, 0, &event, any_size(sizeof event));
    case 22:
        return sealcast_publisher_next_event(publishers, 0, &event, any_size(sizeof event));
    case 23:
        return sealcast_subscriber_get_counters(subscribers, &receiving, any_size(sizeof receiving));
    case 24:
        return sealcast_publisher_get_counters(publishers, &sending, any_size(sizeof sending));
    case 25:
        return sealcast_subscriber_receive_datagrams(subscribers, &bytes, draw(2), any_number());
    case 26:
        return sealcast_subscriber_handle_deadline(subscribers, any_number(), &deadline);
    case 27:
        return sealcast_publisher_handle_deadline(publishers, any_number(), &deadline);
    case 28:
        return sealcast_publisher_poll_datagram(publishers, any_number(), place, capacity, &length);
    case 29:
        return sealcast_publisher_send_many(publishers, &bytes, draw(2), any_text(), &length);
    case 30:
        return sealcast_publisher_get_stream(publishers, draw(8) ? &stream : NULL);
    default:
        return draw(8) ? sealcast_publisher_finish(publishers, 0) : sealcast_subscriber_leave(subscribers);
    }
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s FOLDER SEED COUNT\n", argv[0]);
        return 2;
    }
    state = strtoull(argv[2], NULL, 10) * 2 + 1;
    long counts[STATUSES] = {0};
    for (long left = atol(argv[3]); left > 0; left--) {
        sealcast_status status = call(argv[1]);
        if (status < 0 || status >= STATUSES || !sealcast_status_name(status)) {
            fprintf(stderr, "seed %s: the status %d\n", argv[2], (int)status);
            return 1;
        }
        if (status == SEALCAST_STATUS_INTERNAL) {
            char text[512];
            sealcast_last_error(text, sizeof text);
            fprintf(stderr, "seed %s: %s\n", argv[2], text);
            return 1;
        }
        counts[status]++;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < HANDLES; i++) {
            release(kind, handles[kind][i]);
        }
    }
    for (int i = 0; i < STATUSES; i++) {
        if (counts[i]) {
            printf("%s %ld\n", sealcast_status_name(i), counts[i]);
        }
    }
    return 0;
}
