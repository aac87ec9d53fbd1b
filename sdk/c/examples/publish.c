/* Send each line of standard input to a channel: publish FOLDER CHANNEL [INTERFACE] */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sealcast.h>
#include <sealcast_curl.h>

static volatile sig_atomic_t is_interrupted;

static void interrupt(int number) {
    (void)number;
    is_interrupted = 1;
}

/* Ctrl-C ends the wait for a line: without SA_RESTART the read is not begun anew, and never is on Windows. */
static void end_by(int number) {
#ifdef _WIN32
    signal(number, interrupt);
#else
    struct sigaction action = {.sa_handler = interrupt};
    sigaction(number, &action, NULL);
#endif
}

static int fail(const char *what, sealcast_status status) {
    char text[512];
    sealcast_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, sealcast_status_name(status), text);
    return (int)sealcast_status_category(status);
}

static sealcast_status send_lines(sealcast_publisher *publisher) {
    static char line[65536];
    while (!is_interrupted && fgets(line, sizeof line, stdin)) {
        sealcast_bytes message = {(const uint8_t *)line, strcspn(line, "\n")};
        sealcast_status status;
        while ((status = sealcast_publisher_send(publisher, message, NULL)) == SEALCAST_STATUS_QUEUE_FULL) {
            sealcast_publisher_wait_room(publisher, 1000000);
        }
        if (status != SEALCAST_STATUS_OK) {
            return status;
        }
    }
    return sealcast_publisher_finish(publisher, 10000000);
}

int main(int argc, char **argv) {
    if (argc < 3 || sealcast_abi_version() != SEALCAST_ABI_VERSION) {
        fprintf(stderr, "usage: %s FOLDER CHANNEL [INTERFACE]\n", argv[0]);
        return 2;
    }
    end_by(SIGINT);
    end_by(SIGTERM);
    sealcast_identity *identity = NULL;
    sealcast_status status = sealcast_identity_open(argv[1], NULL, &identity);
    if (status != SEALCAST_STATUS_OK) {
        return fail(argv[1], status);
    }
    sealcast_publisher_options options;
    sealcast_publisher_options_init(&options, sizeof options);
    options.channel = argv[2];
    options.interface_name = argc > 3 ? argv[3] : NULL;
    sealcast_publisher *publisher = NULL;
    sealcast_curl *https = NULL;
    status = sealcast_publisher_new(identity, &options, 0, &publisher);
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_curl_serve_publisher(identity, publisher, NULL, &https);
    }
    if (status == SEALCAST_STATUS_OK) {
        status = sealcast_publisher_join(publisher, 10000000);
    }
    if (status == SEALCAST_STATUS_OK) {
        fprintf(stderr, "publishing on channel %s\n", argv[2]);
        status = send_lines(publisher);
    }
    int code = status == SEALCAST_STATUS_OK ? 0 : fail(argv[2], status);
    sealcast_publisher_free(publisher);
    sealcast_curl_free(https);
    sealcast_identity_free(identity);
    return code;
}
