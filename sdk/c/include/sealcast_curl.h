/** @file
 * The HTTPS of a publisher or subscriber, made with libcurl on OpenSSL.
 *
 * Optional: a host may make the requests with any client that speaks TLS 1.3, shows the device's certificate and
 * lets sealcast_*_verify_server judge the other side. This one runs a few threads, each with one connection. */
#ifndef SEALCAST_CURL_H
#define SEALCAST_CURL_H

#include "sealcast.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The threads that make requests. */
typedef struct sealcast_curl sealcast_curl;

/** Is called with each new SSL_CTX, for a key that is in no file: load the certificate that sealcast_identity_get_info
 * names now, and the key, into it and return 0. It may call libsealcast, but not free the sealcast_curl it is of. */
typedef int (*sealcast_curl_configure)(void *context, void *ssl_ctx);

/** How the requests are made. sealcast_curl_options_init sets the defaults. */
typedef struct sealcast_curl_options {
    size_t size;                       /**< sizeof(sealcast_curl_options) */
    unsigned threads;                  /**< Requests that are under way at once; 0: 4, or 12 for a publisher. */
    sealcast_curl_configure configure; /**< NULL: certificate and key of the device's folder. */
    void *configure_context;           /**< For `configure`. */
} sealcast_curl_options;

/** Set the defaults. `size`: sizeof(sealcast_curl_options). */
sealcast_status sealcast_curl_options_init(sealcast_curl_options *options, size_t size);

/** Make the requests of a subscriber, from now until it is closed. `options`: NULL for the defaults. What is written to
 * `curl` is to be freed by sealcast_curl_free, before the identity is. */
sealcast_status sealcast_curl_serve_subscriber(sealcast_identity *identity, sealcast_subscriber *subscriber,
                                               const sealcast_curl_options *options, sealcast_curl **curl);

/** Make the requests of a publisher: as sealcast_curl_serve_subscriber. */
sealcast_status sealcast_curl_serve_publisher(sealcast_identity *identity, sealcast_publisher *publisher,
                                              const sealcast_curl_options *options, sealcast_curl **curl);

/** Stop, and wait for requests that are under way, which end at once. NULL is nothing; SEALCAST_STATUS_INVALID_HANDLE:
 * it has been freed already; SEALCAST_STATUS_REENTRANT: its own `configure` asks, and it goes on. */
sealcast_status sealcast_curl_free(sealcast_curl *curl);

/** As sealcast_last_error, which it asks unless the last call of these functions on this thread has failed: then it is
 * that failure. */
size_t sealcast_curl_last_error(char *buffer, size_t capacity);

#ifdef __cplusplus
}
#endif

#endif
