/* What a call gives, compared with what it should; main returns `failures != 0`. */
#ifndef SEALCAST_TEST_EXPECT_H
#define SEALCAST_TEST_EXPECT_H

#include <stdio.h>

#include <sealcast.h>

static int failures;

#define EXPECT(wanted, call)                                                                                     \
    do {                                                                                                         \
        sealcast_status got = (call);                                                                            \
        if (got != (wanted)) {                                                                                   \
            char text[256];                                                                                      \
            sealcast_last_error(text, sizeof text);                                                              \
            fprintf(stderr, "%s:%d: %s gives %s, not %s: %s\n", __FILE__, __LINE__, #call,                       \
                    sealcast_status_name(got), sealcast_status_name(wanted), text);                              \
            failures++;                                                                                          \
        }                                                                                                        \
    } while (0)

#define CHECK(what)                                                                                              \
    do {                                                                                                         \
        if (!(what)) {                                                                                           \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #what);                                   \
            failures++;                                                                                          \
        }                                                                                                        \
    } while (0)

#endif
