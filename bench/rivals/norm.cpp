/* One file through NORM (RFC 5740, NRL's library): `send` or `receive`, GROUP PORT INTERFACE PATH [BITS_PER_SECOND].
 *
 * A receiver takes a file into the folder PATH. Reports are lines of JSON with times of CLOCK_MONOTONIC. */
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <normApi.h>

#include "clock.h"

enum {
    SENDER = 1,
    RECEIVER = 2,
    BUFFER_BYTES = 64 << 20,
    SOCKET_BYTES = 4 << 20,
    SEGMENT_BYTES = 1400,
    /* The shape that the library's own examples have. */
    BLOCK_SEGMENTS = 64,
    PARITY_SEGMENTS = 16,
};

static void check(bool is_well, const char *what) {
    if (is_well) return;
    fprintf(stderr, "norm: %s\n", what);
    exit(1);
}

/* Waits for an event of one of two types and says whether it was the first. */
static bool wait_for(NormInstanceHandle instance, NormEventType first, NormEventType other) {
    NormEvent event;
    while (NormGetNextEvent(instance, &event, true))
        if (event.type == first || event.type == other) return event.type == first;
    check(false, "no more events");
    return false;
}

int main(int argc, char **argv) {
    bool sends = argc == 7 && strcmp(argv[1], "send") == 0;
    if (!sends && !(argc == 6 && strcmp(argv[1], "receive") == 0)) {
        fprintf(stderr, "usage: norm send|receive GROUP PORT INTERFACE PATH [BITS_PER_SECOND]\n");
        return 64;
    }
    NormInstanceHandle instance = NormCreateInstance(false);
    NormSessionHandle session = NormCreateSession(instance, argv[2], (UINT16)atoi(argv[3]), sends ? SENDER : RECEIVER);
    check(session != NORM_SESSION_INVALID, "no session");
    check(NormSetMulticastInterface(session, argv[4]), "no such interface");
    if (!sends) {
        check(NormSetCacheDirectory(instance, argv[5]), "no such folder");
        check(NormStartReceiver(session, BUFFER_BYTES), "cannot receive");
        NormSetRxSocketBuffer(session, SOCKET_BYTES);
        puts("{\"ready\": true}");
        fflush(stdout);
        wait_for(instance, NORM_RX_OBJECT_NEW, NORM_RX_OBJECT_NEW);
        double before = cpu();
        check(wait_for(instance, NORM_RX_OBJECT_COMPLETED, NORM_RX_OBJECT_ABORTED), "the transfer was aborted");
        printf("{\"last\": %.6f, \"cpu\": %.6f}\n", now(), cpu() - before);
        fflush(stdout);
        /* The sender asks once more whether all is here. */
        getchar();
    } else {
        NormSetTxRate(session, atof(argv[6]));
        /* Of one switch, not of the Internet, which the library begins with. */
        NormSetGrttEstimate(session, 0.001);
        check(NormStartSender(session, 1, BUFFER_BYTES, SEGMENT_BYTES, BLOCK_SEGMENTS, PARITY_SEGMENTS, 0), "cannot send");
        NormSetTxSocketBuffer(session, SOCKET_BYTES);
        NormAddAckingNode(session, RECEIVER);
        puts("{\"ready\": true}");
        fflush(stdout);
        if (getchar() == EOF) return 1;
        double before = cpu(), start = now();
        const char name[] = "received";
        NormObjectHandle file = NormFileEnqueue(session, argv[5], name, sizeof name - 1);
        check(file != NORM_OBJECT_INVALID, "cannot read the file");
        check(NormSetWatermark(session, file, false), "no watermark");
        wait_for(instance, NORM_TX_WATERMARK_COMPLETED, NORM_TX_WATERMARK_COMPLETED);
        printf("{\"start\": %.6f, \"seconds\": %.6f, \"cpu\": %.6f}\n", start, now() - start, cpu() - before);
        fflush(stdout);
    }
    NormDestroySession(session);
    NormDestroyInstance(instance);
    return 0;
}
