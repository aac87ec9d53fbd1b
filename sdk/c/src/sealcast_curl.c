#include "sealcast_curl.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <winsock2.h>
#define close closesocket
#define SHUT_RDWR SD_BOTH
#else
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>
#endif

#include <curl/curl.h>
#include <openssl/ssl.h>

enum {
    SUBSCRIBER_THREADS = 4,  /* one waits for news; joins, keys and repairs go beside it */
    PUBLISHER_THREADS = 12,  /* one waits at each of up to eight repair nodes as well */
    MAX_THREADS = 64,
    MAX_CHAIN = 16,
    REQUEST_BYTES = (1 << 20) + 4096, /* the largest request, a publisher's packets for a repair node */
    CONNECT_MILLISECONDS = 5000,
    WAIT_MICROSECONDS = 500000, /* how soon a thread sees that it is to stop */
};
static const size_t MAX_ANSWER_BYTES = (size_t)64 << 20;

/* What the two kinds of end have in common. */
typedef struct end {
    void *handle;
    sealcast_status (*probe)(void *);
    sealcast_status (*next_request)(void *, uint64_t, uint8_t *, size_t, sealcast_request *);
    sealcast_status (*verify_server)(void *, uint64_t, const sealcast_bytes *, size_t);
    sealcast_status (*respond)(void *, uint64_t, int32_t, sealcast_bytes);
} end;

struct sealcast_curl {
    end end;
    sealcast_identity *identity;
    sealcast_curl_options options;
    atomic_bool stopped;
    unsigned count;
    pthread_t threads[MAX_THREADS];
    pthread_mutex_t open; /* for `sockets`: what is shut down must not be closed meanwhile, and its number another's */
    curl_socket_t sockets[MAX_THREADS]; /* of each thread's connection, or CURL_SOCKET_BAD */
    atomic_uint places;
    sealcast_curl *next; /* of those that live */
};

/* What this thread's last call has to say; "" where it went well, or libsealcast has the words. */
static _Thread_local char said[512];

static sealcast_status fail(sealcast_status status, const char *format, ...) {
    va_list values;
    va_start(values, format);
    vsnprintf(said, sizeof said, format, values);
    va_end(values);
    return status;
}

size_t sealcast_curl_last_error(char *buffer, size_t capacity) {
    return said[0] ? (size_t)snprintf(buffer, capacity, "%s", said) : sealcast_last_error(buffer, capacity);
}

/* Those that were not freed: whoever frees one twice is told so. */
static sealcast_curl *living;
static pthread_mutex_t living_lock = PTHREAD_MUTEX_INITIALIZER;

/* One thread and its connection. */
typedef struct worker {
    sealcast_curl *owner;
    unsigned place; /* among the owner's sockets */
    CURL *easy;
    uint64_t generation; /* of the identity that `easy` shows */
    char peer[256];      /* whom its connection leads to */
    uint64_t id;         /* of the request under way */
    char reason[CURL_ERROR_SIZE]; /* why it got no answer */
    uint8_t *answer;
    size_t length, capacity;
} worker;

static size_t take_answer(char *data, size_t size, size_t count, void *context) {
    worker *self = context;
    size_t bytes = size * count;
    if (bytes > MAX_ANSWER_BYTES - self->length) {
        return 0;
    }
    if (self->length + bytes > self->capacity) {
        size_t capacity = self->capacity ? self->capacity : 4096;
        while (capacity < self->length + bytes) {
            capacity *= 2;
        }
        uint8_t *grown = realloc(self->answer, capacity);
        if (!grown) {
            return 0;
        }
        self->answer = grown;
        self->capacity = capacity;
    }
    memcpy(self->answer + self->length, data, bytes);
    self->length += bytes;
    return bytes;
}

static curl_socket_t open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
    (void)purpose;
    worker *self = context;
    curl_socket_t made = socket(address->family, address->socktype, address->protocol);
    pthread_mutex_lock(&self->owner->open);
    self->owner->sockets[self->place] = made;
    pthread_mutex_unlock(&self->owner->open);
    return made;
}

static int close_socket(void *context, curl_socket_t old) {
    worker *self = context;
    pthread_mutex_lock(&self->owner->open);
    if (self->owner->sockets[self->place] == old) {
        self->owner->sockets[self->place] = CURL_SOCKET_BAD;
    }
    int done = close(old);
    pthread_mutex_unlock(&self->owner->open);
    return done;
}

/* libcurl asks about once a second whether to go on. */
static int is_stopped(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d) {
    (void)a, (void)b, (void)c, (void)d;
    return atomic_load(&((worker *)context)->owner->stopped);
}

/* OpenSSL's own verdict is replaced: who the other side is, the library judges by the site's roots and lists. */
static int judge(X509_STORE_CTX *store, void *context) {
    worker *self = context;
    STACK_OF(X509) *shown = X509_STORE_CTX_get0_untrusted(store);
    sealcast_bytes chain[MAX_CHAIN];
    unsigned char *encoded[MAX_CHAIN] = {0};
    size_t count = 0;
    int good = 1;
    for (int place = 0; place < sk_X509_num(shown) && count < MAX_CHAIN; place++) {
        int length = i2d_X509(sk_X509_value(shown, place), &encoded[count]);
        if (length <= 0) {
            good = 0;
            break;
        }
        chain[count].data = encoded[count];
        chain[count].length = (size_t)length;
        count++;
    }
    if (good) {
        const end *end = &self->owner->end;
        good = end->verify_server(end->handle, self->id, chain, count) == SEALCAST_STATUS_OK;
    }
    for (size_t place = 0; place < count; place++) {
        OPENSSL_free(encoded[place]);
    }
    X509_STORE_CTX_set_error(store, good ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return good;
}

static CURLcode prepare_tls(CURL *easy, void *ssl_ctx, void *context) {
    (void)easy;
    worker *self = context;
    SSL_CTX_set_cert_verify_callback(ssl_ctx, judge, self);
    const sealcast_curl_options *options = &self->owner->options;
    if (options->configure && options->configure(options->configure_context, ssl_ctx) != 0) {
        return CURLE_SSL_CERTPROBLEM;
    }
    return CURLE_OK;
}

/* A handle for the identity as it is now; connections of the one before end with it. */
static int renew(worker *self) {
    sealcast_identity_info info;
    if (sealcast_identity_get_info(self->owner->identity, &info, sizeof info) != SEALCAST_STATUS_OK) {
        sealcast_last_error(self->reason, sizeof self->reason);
        return 0;
    }
    if (self->easy && self->generation == info.generation) {
        return 1;
    }
    curl_easy_cleanup(self->easy);
    self->easy = curl_easy_init();
    self->peer[0] = 0;
    self->generation = info.generation;
    if (!self->easy) {
        return 0;
    }
    CURL *easy = self->easy;
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, self->reason);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, self);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, self);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https");
#else
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS, (long)CURLPROTO_HTTPS);
#endif
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_MAXCONNECTS, 1L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MILLISECONDS);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, prepare_tls);
    curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, self);
    /* The name of the host is no part of the verdict; who it is stands in the certificate. */
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    /* Without a session that is resumed every connection is judged. */
    curl_easy_setopt(easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
    if (!self->owner->options.configure) {
        curl_easy_setopt(easy, CURLOPT_SSLCERT, info.certificate_file);
        curl_easy_setopt(easy, CURLOPT_SSLKEY, info.key_file);
    }
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, self);
    curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, is_stopped);
    curl_easy_setopt(easy, CURLOPT_XFERINFODATA, self);
    return 1;
}

/* Returns the HTTP status; 0 where there was none, and the reason instead. */
static int32_t perform(worker *self, const sealcast_request *request) {
    self->length = 0;
    self->reason[0] = 0;
    self->id = request->id;
    if (!renew(self)) {
        return 0;
    }
    CURL *easy = self->easy;
    char type[128];
    struct curl_slist *headers = NULL;
    if (request->content_type[0]) {
        snprintf(type, sizeof type, "Content-Type: %s", request->content_type);
        headers = curl_slist_append(headers, type);
    }
    /* Else libcurl asks before it sends a long body, and waits a second for who does not answer that. */
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)(request->timeout / 1000));
    if (request->body_length || strcmp(request->method, "GET") != 0) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, (const char *)request->body);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_length);
    } else {
        curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L);
    }
    curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    int is_same = strcmp(self->peer, request->peer) == 0;
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, is_same ? 0L : 1L);
    long status = 0;
    CURLcode done = curl_easy_perform(easy);
    if (done == CURLE_OK) {
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        snprintf(self->peer, sizeof self->peer, "%s", request->peer);
    } else {
        self->peer[0] = 0;
        if (!self->reason[0]) {
            snprintf(self->reason, sizeof self->reason, "%s", curl_easy_strerror(done));
        }
    }
    curl_slist_free_all(headers);
    return (int32_t)status;
}

/* OpenSSL writes to connections that have ended; with CURLOPT_NOSIGNAL an older libcurl lets that end the process. */
static void block_broken_pipe(void) {
#ifndef _WIN32
    sigset_t broken_pipe;
    sigemptyset(&broken_pipe);
    sigaddset(&broken_pipe, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &broken_pipe, NULL);
#endif
}

static void *work(void *context) {
    block_broken_pipe();
    worker self = {.owner = context};
    self.place = atomic_fetch_add(&self.owner->places, 1);
    const end *end = &self.owner->end;
    uint8_t *buffer = malloc(REQUEST_BYTES);
    while (buffer && !atomic_load(&self.owner->stopped)) {
        sealcast_request request;
        sealcast_status status =
            end->next_request(end->handle, WAIT_MICROSECONDS, buffer, REQUEST_BYTES, &request);
        if (status == SEALCAST_STATUS_TIMEOUT) {
            continue;
        }
        if (status != SEALCAST_STATUS_OK) {
            break;
        }
        int32_t code = perform(&self, &request);
        sealcast_bytes body = {self.answer, self.length};
        if (code == 0) {
            body = (sealcast_bytes){(const uint8_t *)self.reason, strlen(self.reason)};
        }
        end->respond(end->handle, request.id, code, body);
    }
    curl_easy_cleanup(self.easy);
    free(self.answer);
    free(buffer);
    return NULL;
}

/* Whether the struct of some version of this header may have as many bytes. */
static int is_size(size_t size) {
    return size >= 2 * sizeof(size_t) && size <= 4096 && size % sizeof(size_t) == 0;
}

static sealcast_status wrong_size(size_t size) {
    return fail(SEALCAST_STATUS_WRONG_SIZE, "a sealcast_curl_options of %zu bytes: this library has %zu", size,
                sizeof(sealcast_curl_options));
}

sealcast_status sealcast_curl_options_init(sealcast_curl_options *options, size_t size) {
    said[0] = 0;
    if (!options) {
        return fail(SEALCAST_STATUS_NULL_ARGUMENT, "options is NULL");
    }
    if (!is_size(size)) {
        return wrong_size(size);
    }
    memset(options, 0, size);
    options->size = size;
    return SEALCAST_STATUS_OK;
}

/* An older header has the defaults of what it does not know; a newer one may leave at 0 what is not known here. */
static sealcast_status read_options(const sealcast_curl_options *given, sealcast_curl_options *options) {
    sealcast_curl_options_init(options, sizeof *options);
    if (!given) {
        return SEALCAST_STATUS_OK;
    }
    if (!is_size(given->size)) {
        return wrong_size(given->size);
    }
    for (size_t place = sizeof *options; place < given->size; place++) {
        if (((const uint8_t *)given)[place]) {
            return wrong_size(given->size);
        }
    }
    memcpy(options, given, given->size < sizeof *options ? given->size : sizeof *options);
    if (options->threads > MAX_THREADS) {
        return fail(SEALCAST_STATUS_INVALID_ARGUMENT, "threads is %u: up to %d", options->threads, MAX_THREADS);
    }
    return SEALCAST_STATUS_OK;
}

static pthread_once_t begun = PTHREAD_ONCE_INIT;

static void begin(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

static sealcast_status serve(sealcast_identity *identity, end end, unsigned threads,
                             const sealcast_curl_options *options, sealcast_curl **curl) {
    said[0] = 0;
    if (!curl) {
        return fail(SEALCAST_STATUS_NULL_ARGUMENT, "curl is NULL");
    }
    /* Handles are the library's to judge, and it has the words for it. */
    sealcast_identity_info info;
    sealcast_status status = sealcast_identity_get_info(identity, &info, sizeof info);
    if (status == SEALCAST_STATUS_OK) {
        status = end.probe(end.handle);
    }
    if (status != SEALCAST_STATUS_OK) {
        return status;
    }
    sealcast_curl_options given;
    status = read_options(options, &given);
    if (status != SEALCAST_STATUS_OK) {
        return status;
    }
    pthread_once(&begun, begin);
    sealcast_curl *made = calloc(1, sizeof *made);
    if (!made) {
        return fail(SEALCAST_STATUS_INTERNAL, "there is no memory");
    }
    made->end = end;
    made->identity = identity;
    made->options = given;
    pthread_mutex_init(&made->open, NULL);
    for (unsigned place = 0; place < MAX_THREADS; place++) {
        made->sockets[place] = CURL_SOCKET_BAD;
    }
    pthread_mutex_lock(&living_lock);
    made->next = living;
    living = made;
    pthread_mutex_unlock(&living_lock);
    unsigned wanted = given.threads ? given.threads : threads;
    while (made->count < wanted && pthread_create(&made->threads[made->count], NULL, work, made) == 0) {
        made->count++;
    }
    if (made->count < wanted) {
        unsigned started = made->count;
        sealcast_curl_free(made);
        return fail(SEALCAST_STATUS_INTERNAL, "the system gives %u threads of %u", started, wanted);
    }
    *curl = made;
    return SEALCAST_STATUS_OK;
}

static sealcast_status subscriber_probe(void *handle) {
    sealcast_subscriber_counters counters;
    return sealcast_subscriber_get_counters(handle, &counters, sizeof counters);
}

static sealcast_status subscriber_next(void *handle, uint64_t timeout, uint8_t *buffer, size_t capacity,
                                       sealcast_request *request) {
    return sealcast_subscriber_next_request(handle, timeout, buffer, capacity, request, sizeof *request);
}

static sealcast_status subscriber_verify(void *handle, uint64_t id, const sealcast_bytes *chain, size_t count) {
    return sealcast_subscriber_verify_server(handle, id, chain, count);
}

static sealcast_status subscriber_respond(void *handle, uint64_t id, int32_t code, sealcast_bytes body) {
    return sealcast_subscriber_respond(handle, id, code, body);
}

static sealcast_status publisher_probe(void *handle) {
    sealcast_publisher_counters counters;
    return sealcast_publisher_get_counters(handle, &counters, sizeof counters);
}

static sealcast_status publisher_next(void *handle, uint64_t timeout, uint8_t *buffer, size_t capacity,
                                      sealcast_request *request) {
    return sealcast_publisher_next_request(handle, timeout, buffer, capacity, request, sizeof *request);
}

static sealcast_status publisher_verify(void *handle, uint64_t id, const sealcast_bytes *chain, size_t count) {
    return sealcast_publisher_verify_server(handle, id, chain, count);
}

static sealcast_status publisher_respond(void *handle, uint64_t id, int32_t code, sealcast_bytes body) {
    return sealcast_publisher_respond(handle, id, code, body);
}

sealcast_status sealcast_curl_serve_subscriber(sealcast_identity *identity, sealcast_subscriber *subscriber,
                                               const sealcast_curl_options *options, sealcast_curl **curl) {
    end end = {subscriber, subscriber_probe, subscriber_next, subscriber_verify, subscriber_respond};
    return serve(identity, end, SUBSCRIBER_THREADS, options, curl);
}

sealcast_status sealcast_curl_serve_publisher(sealcast_identity *identity, sealcast_publisher *publisher,
                                              const sealcast_curl_options *options, sealcast_curl **curl) {
    end end = {publisher, publisher_probe, publisher_next, publisher_verify, publisher_respond};
    return serve(identity, end, PUBLISHER_THREADS, options, curl);
}

static int is_thread_of(const sealcast_curl *curl) {
    unsigned place = 0;
    while (place < curl->count && !pthread_equal(curl->threads[place], pthread_self())) {
        place++;
    }
    return place < curl->count;
}

sealcast_status sealcast_curl_free(sealcast_curl *curl) {
    said[0] = 0;
    if (!curl) {
        return SEALCAST_STATUS_OK;
    }
    pthread_mutex_lock(&living_lock);
    sealcast_curl **place_of = &living;
    while (*place_of && *place_of != curl) {
        place_of = &(*place_of)->next;
    }
    sealcast_status status = SEALCAST_STATUS_OK;
    if (*place_of != curl) {
        status = fail(SEALCAST_STATUS_INVALID_HANDLE, "the sealcast_curl has been freed");
    } else if (is_thread_of(curl)) {
        status = fail(SEALCAST_STATUS_REENTRANT, "configure must not free the sealcast_curl that calls it");
    } else {
        *place_of = curl->next;
    }
    pthread_mutex_unlock(&living_lock);
    if (status != SEALCAST_STATUS_OK) {
        return status;
    }
    atomic_store(&curl->stopped, true);
    /* What waits for an answer gets none any more. */
    pthread_mutex_lock(&curl->open);
    for (unsigned place = 0; place < curl->count; place++) {
        if (curl->sockets[place] != CURL_SOCKET_BAD) {
            shutdown(curl->sockets[place], SHUT_RDWR);
        }
    }
    pthread_mutex_unlock(&curl->open);
    for (unsigned place = 0; place < curl->count; place++) {
        pthread_join(curl->threads[place], NULL);
    }
    pthread_mutex_destroy(&curl->open);
    free(curl);
    return SEALCAST_STATUS_OK;
}
