/* Send each line of standard input to a channel: publish FOLDER CHANNEL [INTERFACE] */
#include <signal.h>
#include <stdbool.h>
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
    sealcast_curl_last_error(text, sizeof text);
    fprintf(stderr, "%s: %s: %s\n", what, sealcast_status_name(status), text);
    return (int)sealcast_status_category(status);
}

/* For ten seconds, and not all at once: Ctrl-C ends it. */
static sealcast_status join(sealcast_publisher *publisher) {
    uint64_t deadline = sealcast_now() + 10000000;
    sealcast_status status;
    do {
        status = sealcast_publisher_join(publisher, 200000);
    } while (status == SEALCAST_STATUS_UNREACHABLE && !is_interrupted && sealcast_now() < deadline);
    return status;
}

/* A line without its end, and of a longer one as much as there is room for. */
static bool read_line(char *line, size_t capacity, size_t *length) {
    int byte = 0;
    for (*length = 0; *length < capacity && (byte = getc(stdin)) != '\n' && byte != EOF; ++*length) {
        line[*length] = (char)byte;
    }
    return byte != EOF || *length > 0;
}

static sealcast_status send_lines(sealcast_publisher *publisher, size_t longest) {
    /* With room for one byte too many the library tells what is too long. */
    char *line = malloc(longest + 1);
    sealcast_status status = line ? SEALCAST_STATUS_OK : SEALCAST_STATUS_INTERNAL;
    unsigned number = 0;
    size_t length;
    while (status == SEALCAST_STATUS_OK && read_line(line, longest + 1, &length) && !is_interrupted) {
        sealcast_bytes message = {(const uint8_t *)line, length};
        number++;
        while ((status = sealcast_publisher_send(publisher, message, NULL)) == SEALCAST_STATUS_QUEUE_FULL &&
               !is_interrupted) {
            sealcast_publisher_wait_room(publisher, 200000);
        }
    }
    free(line);
    if (status == SEALCAST_STATUS_TOO_LONG) {
        fprintf(stderr, "line %u is not sent, nor what follows it\n", number);
    }
    sealcast_status ended = sealcast_publisher_finish(publisher, 10000000);
    return ended == SEALCAST_STATUS_OK ? status : ended;
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
        status = join(publisher);
    }
    if (status == SEALCAST_STATUS_OK) {
        fprintf(stderr, "publishing on channel %s\n", argv[2]);
        status = send_lines(publisher, options.max_message_bytes);
    }
    int code = is_interrupted ? INTERRUPTED : status == SEALCAST_STATUS_OK ? 0 : fail(argv[2], status);
    sealcast_publisher_free(publisher);
    sealcast_curl_free(https);
    sealcast_identity_free(identity);
    return code;
}
