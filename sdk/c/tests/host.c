/* The engine alone: the host has the clock, and in place of sockets hands each datagram over, but for every third of data.
 * `host PUBLISHER SUBSCRIBER CHANNEL COUNT`: folders of two devices, and how many messages are sent. */
#include <stdlib.h>
#include <string.h>

#include <sealcast_curl.h>

#include "expect.h"

enum { PATIENCE = 20000000, MESSAGES = 64 };

static sealcast_publisher *publisher;
static sealcast_subscriber *subscriber;
static unsigned passed, dropped;

/* What is sealed by now, to the other end. */
static void carry(void) {
    static uint8_t datagram[SEALCAST_DATAGRAM_BYTES];
    size_t length;
    uint64_t deadline, now = sealcast_now();
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_handle_deadline(publisher, now, &deadline));
    sealcast_status status;
    while ((status = sealcast_publisher_poll_datagram(publisher, now, datagram, sizeof datagram, &length)) ==
           SEALCAST_STATUS_OK) {
        sealcast_bytes one = {datagram, length};
        int is_data = length > 5 && datagram[5] == 1;
        if (is_data && ++passed % 3 == 0) {
            dropped++;
        } else {
            EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_receive_datagrams(subscriber, &one, 1, now));
        }
    }
    EXPECT(SEALCAST_STATUS_TIMEOUT, status);
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_handle_deadline(subscriber, now, &deadline));
}

static unsigned take(unsigned expected) {
    static uint8_t room[1 << 16];
    static sealcast_message messages[MESSAGES];
    size_t count = 0;
    /* Waits a little, as there is nothing else to do. */
    sealcast_status status = sealcast_subscriber_recv_many(subscriber, 2000, room, sizeof room, messages,
                                                           sizeof *messages, MESSAGES, &count);
    if (status == SEALCAST_STATUS_TIMEOUT) {
        return expected;
    }
    EXPECT(SEALCAST_STATUS_OK, status);
    for (size_t i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "message %u", expected++);
        CHECK(messages[i].length == strlen(text) && memcmp(messages[i].data, text, strlen(text)) == 0);
    }
    return expected;
}

/* What is lost before is mended by nobody: parity counts from there on, and this publisher does not listen. */
static int knows_the_stream(void) {
    sealcast_subscriber_counters counters;
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_get_counters(subscriber, &counters, sizeof counters));
    return counters.streams > 0;
}

static void run(const char *channel, unsigned count) {
    unsigned sent = 0, taken = 0;
    int has_joined = 0;
    for (uint64_t end = sealcast_now() + PATIENCE; taken < count && sealcast_now() < end;) {
        carry();
        if (!has_joined) {
            has_joined = sealcast_subscriber_join(subscriber, 0) == SEALCAST_STATUS_OK &&
                         sealcast_publisher_join(publisher, 0) == SEALCAST_STATUS_OK;
        } else if (sent < count && knows_the_stream()) {
            char text[32];
            snprintf(text, sizeof text, "message %u", sent++);
            sealcast_bytes message = {(const uint8_t *)text, strlen(text)};
            EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_send(publisher, message, NULL));
        }
        taken = take(taken);
    }
    CHECK(taken == count);
    CHECK(dropped > 0);
    printf("%u messages of channel %s, %u datagrams lost\n", taken, channel, dropped);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: %s PUBLISHER SUBSCRIBER CHANNEL COUNT\n", argv[0]);
        return 2;
    }
    sealcast_identity *sender = NULL, *receiver = NULL;
    sealcast_curl *sending = NULL, *receiving = NULL;
    sealcast_publisher_options from;
    sealcast_subscriber_options to;
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(argv[1], NULL, &sender));
    EXPECT(SEALCAST_STATUS_OK, sealcast_identity_open(argv[2], NULL, &receiver));
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_options_init(&from, sizeof from));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_options_init(&to, sizeof to));
    from.channel = to.channel = argv[3];
    from.host_sockets = to.host_sockets = 1;
    from.fec = SEALCAST_FEC_FIXED;
    from.fec_sources = from.fec_parities = 2;
    EXPECT(SEALCAST_STATUS_OK, sealcast_publisher_new(sender, &from, sealcast_now(), &publisher));
    EXPECT(SEALCAST_STATUS_OK, sealcast_subscriber_new(receiver, &to, sealcast_now(), &subscriber));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_publisher(sender, publisher, NULL, &sending));
    EXPECT(SEALCAST_STATUS_OK, sealcast_curl_serve_subscriber(receiver, subscriber, NULL, &receiving));
    run(argv[3], (unsigned)atoi(argv[4]));
    sealcast_publisher_free(publisher);
    sealcast_subscriber_free(subscriber);
    sealcast_curl_free(sending);
    sealcast_curl_free(receiving);
    sealcast_identity_free(sender);
    sealcast_identity_free(receiver);
    printf("%d failures\n", failures);
    return failures != 0;
}
