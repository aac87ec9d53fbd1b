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

/** Is called with each new SSL_CTX, for a key that is in no file: load certificate and key into it and return 0. */
typedef int (*sealcast_curl_configure)(void *context, void *ssl_ctx);

/** How the requests are made. */
typedef struct sealcast_curl_options {
    size_t size;                       /**< sizeof(sealcast_curl_options) */
    unsigned threads;                  /**< Requests that are under way at once; 0: 4, or 12 for a publisher. */
    sealcast_curl_configure configure; /**< NULL: certificate and key of the device's folder. */
    void *configure_context;           /**< For `configure`. */
} sealcast_curl_options;

/** Make the requests of a subscriber, from now until it is closed. `options`: NULL for the defaults. What is written to
 * `curl` is to be freed by sealcast_curl_free, before the identity is. */
sealcast_status sealcast_curl_serve_subscriber(sealcast_identity *identity, sealcast_subscriber *subscriber,
                                               const sealcast_curl_options *options, sealcast_curl **curl);

/** Make the requests of a publisher: as sealcast_curl_serve_subscriber. */
sealcast_status sealcast_curl_serve_publisher(sealcast_identity *identity, sealcast_publisher *publisher,
                                              const sealcast_curl_options *options, sealcast_curl **curl);

/** Stop, and wait for requests that are under way, which end at once. NULL is nothing; SEALCAST_STATUS_INVALID_HANDLE:
 * it has been freed already. */
sealcast_status sealcast_curl_free(sealcast_curl *curl);

#ifdef __cplusplus
}
#endif

#endif
