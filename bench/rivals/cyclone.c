/* Samples through Cyclone DDS, reliable, each in a datagram of its own: `publish` or `subscribe`, COUNT and BYTES.
 *
 * Network and security are told by CYCLONEDDS_URI. Reports are lines of JSON with times of CLOCK_MONOTONIC. */
#include <dds/dds.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "sample.h"

enum { DOMAIN = 7, TAKE = 256, PATIENCE_SECONDS = 60 };

static dds_entity_t checked(dds_entity_t result, const char *what) {
    if (result < 0) {
        fprintf(stderr, "cyclone: %s: %s\n", what, dds_strretcode(-result));
        exit(1);
    }
    return result;
}

static void say_ready(void) {
    puts("{\"ready\": true}");
    fflush(stdout);
}

/* Waits for a status of an entity, or ends the program. */
static void wait_for(dds_entity_t participant, dds_entity_t entity, uint32_t status) {
    checked(dds_set_status_mask(entity, status), "status mask");
    dds_entity_t set = checked(dds_create_waitset(participant), "waitset");
    checked(dds_waitset_attach(set, entity, entity), "attach");
    if (checked(dds_waitset_wait(set, NULL, 0, DDS_SECS(PATIENCE_SECONDS)), "wait") == 0) {
        fprintf(stderr, "cyclone: nobody came within %d s\n", PATIENCE_SECONDS);
        exit(1);
    }
    dds_delete(set);
}

static dds_qos_t *reliable(void) {
    dds_qos_t *qos = dds_create_qos();
    dds_qset_reliability(qos, DDS_RELIABILITY_RELIABLE, DDS_SECS(PATIENCE_SECONDS));
    dds_qset_history(qos, DDS_HISTORY_KEEP_ALL, 0);
    return qos;
}

static void publish(dds_entity_t participant, dds_entity_t topic, unsigned long count, unsigned long bytes) {
    dds_entity_t writer = checked(dds_create_writer(participant, topic, reliable(), NULL), "writer");
    wait_for(participant, writer, DDS_PUBLICATION_MATCHED_STATUS);
    say_ready();
    char order[16];
    if (fgets(order, sizeof order, stdin) == NULL) exit(1);
    Sample_Payload sample = {.data = {._maximum = (uint32_t)bytes, ._length = (uint32_t)bytes, ._buffer = calloc(bytes, 1)}};
    double before = cpu(), start = now();
    for (unsigned long sent = 0; sent < count; sent++) checked(dds_write(writer, &sample), "write");
    checked(dds_wait_for_acks(writer, DDS_SECS(PATIENCE_SECONDS)), "acknowledgements");
    printf("{\"start\": %.6f, \"seconds\": %.6f, \"cpu\": %.6f}\n", start, now() - start, cpu() - before);
    fflush(stdout);
    /* The reader must have taken all before its writer goes. */
    if (fgets(order, sizeof order, stdin) == NULL) exit(0);
}

static void subscribe(dds_entity_t participant, dds_entity_t topic, unsigned long count, unsigned long bytes) {
    dds_entity_t reader = checked(dds_create_reader(participant, topic, reliable(), NULL), "reader");
    wait_for(participant, reader, DDS_SUBSCRIPTION_MATCHED_STATUS);
    say_ready();
    checked(dds_set_status_mask(reader, DDS_DATA_AVAILABLE_STATUS), "status mask");
    dds_entity_t set = checked(dds_create_waitset(participant), "waitset");
    checked(dds_waitset_attach(set, reader, reader), "attach");
    double before = cpu();
    unsigned long received = 0, wrong = 0;
    while (received < count) {
        void *samples[TAKE] = {0};
        dds_sample_info_t infos[TAKE];
        int taken = checked(dds_take(reader, samples, infos, TAKE, TAKE), "take");
        for (int at = 0; at < taken; at++) {
            if (!infos[at].valid_data) continue;
            received++;
            if (((Sample_Payload *)samples[at])->data._length != bytes) wrong++;
        }
        if (taken > 0) {
            checked(dds_return_loan(reader, samples, taken), "return");
        } else if (checked(dds_waitset_wait(set, NULL, 0, DDS_SECS(PATIENCE_SECONDS)), "wait") == 0) {
            fprintf(stderr, "cyclone: %lu of %lu came\n", received, count);
            exit(1);
        }
    }
    printf("{\"last\": %.6f, \"received\": %lu, \"wrong\": %lu, \"cpu\": %.6f}\n", now(), received, wrong, cpu() - before);
    fflush(stdout);
}

/* Answers each sample of the one topic by one of the other: `ping` measures, `pong` answers. */
static void round_trips(dds_entity_t participant, dds_entity_t out, dds_entity_t in, bool asks, unsigned long count,
                        unsigned long bytes) {
    dds_entity_t writer = checked(dds_create_writer(participant, out, reliable(), NULL), "writer");
    dds_entity_t reader = checked(dds_create_reader(participant, in, reliable(), NULL), "reader");
    wait_for(participant, writer, DDS_PUBLICATION_MATCHED_STATUS);
    wait_for(participant, reader, DDS_SUBSCRIPTION_MATCHED_STATUS);
    say_ready();
    char order[16];
    if (asks && fgets(order, sizeof order, stdin) == NULL) exit(1);
    checked(dds_set_status_mask(reader, DDS_DATA_AVAILABLE_STATUS), "status mask");
    dds_entity_t set = checked(dds_create_waitset(participant), "waitset");
    checked(dds_waitset_attach(set, reader, reader), "attach");
    Sample_Payload sample = {.data = {._maximum = (uint32_t)bytes, ._length = (uint32_t)bytes, ._buffer = calloc(bytes, 1)}};
    if (asks) printf("{\"micros\": [");
    for (unsigned long done = 0; done < count;) {
        double start = now();
        if (asks) checked(dds_write(writer, &sample), "write");
        void *samples[1] = {0};
        dds_sample_info_t infos[1];
        while (checked(dds_take(reader, samples, infos, 1, 1), "take") == 0)
            if (checked(dds_waitset_wait(set, NULL, 0, DDS_SECS(PATIENCE_SECONDS)), "wait") == 0) {
                fprintf(stderr, "cyclone: no answer\n");
                exit(1);
            }
        bool is_sample = infos[0].valid_data;
        checked(dds_return_loan(reader, samples, 1), "return");
        if (!is_sample) continue;
        if (!asks) checked(dds_write(writer, &sample), "write");
        if (asks) printf("%s%.1f", done > 0 ? ", " : "", (now() - start) * 1e6);
        done++;
        if (asks) dds_sleepfor(DDS_MSECS(2));
    }
    if (asks) puts("]}");
    fflush(stdout);
    if (!asks && fgets(order, sizeof order, stdin) == NULL) exit(0);
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: cyclone publish|subscribe|ping|pong COUNT BYTES\n");
        return 64;
    }
    unsigned long count = strtoul(argv[2], NULL, 10), bytes = strtoul(argv[3], NULL, 10);
    dds_entity_t participant = checked(dds_create_participant(DOMAIN, NULL, NULL), "participant");
    dds_entity_t topic = checked(dds_create_topic(participant, &Sample_Payload_desc, "out", NULL, NULL), "topic");
    dds_entity_t back = checked(dds_create_topic(participant, &Sample_Payload_desc, "back", NULL, NULL), "topic");
    if (strcmp(argv[1], "publish") == 0)
        publish(participant, topic, count, bytes);
    else if (strcmp(argv[1], "subscribe") == 0)
        subscribe(participant, topic, count, bytes);
    else
        round_trips(participant, argv[1][1] == 'i' ? topic : back, argv[1][1] == 'i' ? back : topic, argv[1][1] == 'i',
                    count, bytes);
    dds_delete(participant);
    return 0;
}
