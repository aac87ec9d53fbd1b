/** @file
 * libsealcast: secure, reliable multicast for C and whatever can call it. Made from rust/capi; do not edit.
 *
 * What all functions keep to, and what a host has to keep to, is in CONVENTIONS.md beside this folder. */

#ifndef SEALCAST_H
#define SEALCAST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/**
 * The interface of this header. Another number means that structs or functions are not what they were.
 */
#define SEALCAST_ABI_VERSION 1

/**
 * A wait without end.
 */
#define SEALCAST_FOREVER UINT64_MAX

/**
 * Bytes of a stream's id, and of a site's.
 */
#define SEALCAST_ID_BYTES 16

/**
 * Bytes of a buffer that holds any datagram.
 */
#define SEALCAST_DATAGRAM_BYTES 65507

/**
 * Bytes of a buffer that holds any request of a subscriber.
 */
#define SEALCAST_SUBSCRIBER_REQUEST_BYTES 66560

/**
 * Bytes of a buffer that holds any request of a publisher.
 */
#define SEALCAST_PUBLISHER_REQUEST_BYTES 1049600

/**
 * What became of a call. 0 is success; 1 and 2 are no errors either.
 */
enum sealcast_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * Done.
     */
    SEALCAST_STATUS_OK = 0,
    /**
     * Nothing came in the time that was given.
     */
    SEALCAST_STATUS_TIMEOUT = 1,
    /**
     * It has ended: nothing will come any more.
     */
    SEALCAST_STATUS_CLOSED = 2,
    /**
     * A pointer that must not be NULL is.
     */
    SEALCAST_STATUS_NULL_ARGUMENT = 10,
    /**
     * No such handle: it has been freed, or it is one of another kind.
     */
    SEALCAST_STATUS_INVALID_HANDLE = 11,
    /**
     * The `size` of a struct is none that this library knows.
     */
    SEALCAST_STATUS_WRONG_SIZE = 12,
    /**
     * A value is out of its range.
     */
    SEALCAST_STATUS_INVALID_ARGUMENT = 13,
    /**
     * A string is no UTF-8.
     */
    SEALCAST_STATUS_INVALID_TEXT = 14,
    /**
     * The buffer is too small; what it should have held is still there, and how long it is has been written.
     */
    SEALCAST_STATUS_BUFFER_TOO_SMALL = 15,
    /**
     * Another thread is in a call of this handle that only one may be in.
     */
    SEALCAST_STATUS_IN_USE = 16,
    /**
     * A callback must not call the library.
     */
    SEALCAST_STATUS_REENTRANT = 17,
    /**
     * The queue of messages is full: try again when some have been sent.
     */
    SEALCAST_STATUS_QUEUE_FULL = 19,
    /**
     * The message or topic is too long.
     */
    SEALCAST_STATUS_TOO_LONG = 20,
    /**
     * There is no such request: it has been answered, or given up.
     */
    SEALCAST_STATUS_UNKNOWN_REQUEST = 21,
    /**
     * The stream has used up its numbers.
     */
    SEALCAST_STATUS_EXHAUSTED = 22,
    /**
     * The stream has been ended: nothing more can be sent on it.
     */
    SEALCAST_STATUS_ENDED = 23,
    /**
     * The network interface or address cannot be used.
     */
    SEALCAST_STATUS_INTERFACE = 30,
    /**
     * The folder holds no device.
     */
    SEALCAST_STATUS_NO_DEVICE = 40,
    /**
     * The certificate is refused, of this device or of another side.
     */
    SEALCAST_STATUS_CERTIFICATE = 50,
    /**
     * The device has been removed from its site.
     */
    SEALCAST_STATUS_REVOKED = 51,
    /**
     * The device key did not sign.
     */
    SEALCAST_STATUS_SIGNING = 52,
    /**
     * The policy does not let the device do this.
     */
    SEALCAST_STATUS_NOT_ALLOWED = 60,
    /**
     * The site has no such channel.
     */
    SEALCAST_STATUS_UNKNOWN_CHANNEL = 61,
    /**
     * Nobody answers.
     */
    SEALCAST_STATUS_UNREACHABLE = 71,
    /**
     * A file or folder cannot be read or written, or is damaged.
     */
    SEALCAST_STATUS_STORAGE = 80,
    /**
     * Not everything could be done, as an end that nobody could be told.
     */
    SEALCAST_STATUS_INCOMPLETE = 90,
    /**
     * A fault of the library.
     */
    SEALCAST_STATUS_INTERNAL = 100,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_status sealcast_status;
#else
typedef int32_t sealcast_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What a caller can do about it: the exit codes of the command line.
 */
enum sealcast_category
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * No error.
     */
    SEALCAST_CATEGORY_NONE = 0,
    /**
     * A fault of the library.
     */
    SEALCAST_CATEGORY_INTERNAL = 1,
    /**
     * The caller's.
     */
    SEALCAST_CATEGORY_USAGE = 2,
    /**
     * Configuration, interface.
     */
    SEALCAST_CATEGORY_CONFIGURATION = 3,
    /**
     * Enrolment.
     */
    SEALCAST_CATEGORY_ENROLMENT = 4,
    /**
     * Certificate, trust.
     */
    SEALCAST_CATEGORY_CERTIFICATE = 5,
    /**
     * The channel is unknown or not allowed.
     */
    SEALCAST_CATEGORY_CHANNEL = 6,
    /**
     * Network, unreachable.
     */
    SEALCAST_CATEGORY_NETWORK = 7,
    /**
     * Storage.
     */
    SEALCAST_CATEGORY_STORAGE = 8,
    /**
     * Incomplete.
     */
    SEALCAST_CATEGORY_INCOMPLETE = 9,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_category sealcast_category;
#else
typedef int32_t sealcast_category;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The algorithm of the device key (registry.md).
 */
enum sealcast_algorithm
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    SEALCAST_ALGORITHM_ECDSA_P256 = 1,
    SEALCAST_ALGORITHM_ED25519 = 2,
    SEALCAST_ALGORITHM_ECDSA_P384 = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_algorithm sealcast_algorithm;
#else
typedef int32_t sealcast_algorithm;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * In what order messages come, and whether they wait for what is lost.
 */
enum sealcast_delivery
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * All of them, in order.
     */
    SEALCAST_DELIVERY_RELIABLE = 0,
    /**
     * In order; what is not there `deadline` after it was sent is passed over.
     */
    SEALCAST_DELIVERY_REALTIME = 1,
    /**
     * All of them, as they come.
     */
    SEALCAST_DELIVERY_UNORDERED = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_delivery sealcast_delivery;
#else
typedef int32_t sealcast_delivery;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * From where on streams that run already are delivered.
 */
enum sealcast_start
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * From now on.
     */
    SEALCAST_START_NOW = 0,
    /**
     * The last value of each topic first, where publishers retain them.
     */
    SEALCAST_START_LAST = 1,
    /**
     * From the beginning, as far as publishers retain it and this device was a member.
     */
    SEALCAST_START_START = 2,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_start sealcast_start;
#else
typedef int32_t sealcast_start;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * Which parity goes with the packets.
 */
enum sealcast_fec
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * What the channel's policy says.
     */
    SEALCAST_FEC_POLICY = 0,
    SEALCAST_FEC_OFF = 1,
    /**
     * As much as subscribers' losses ask for.
     */
    SEALCAST_FEC_ADAPTIVE = 2,
    /**
     * `fec_parities` packets after `fec_sources` of data.
     */
    SEALCAST_FEC_FIXED = 3,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_fec sealcast_fec;
#else
typedef int32_t sealcast_fec;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event is about. A host passes over those that it does not know.
 */
enum sealcast_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
    /**
     * The key server took the device in.
     */
    SEALCAST_EVENT_KIND_JOINED = 1,
    /**
     * The packets `first` to `last` of a stream are lost, for good; `last` is UINT64_MAX where its publisher is gone.
     */
    SEALCAST_EVENT_KIND_GAP = 2,
    /**
     * The message `first` will not be delivered, though its packets came or were told of.
     */
    SEALCAST_EVENT_KIND_MESSAGE_LOST = 3,
    SEALCAST_EVENT_KIND_STREAM_STARTED = 4,
    /**
     * It ended as its publisher wished; `first`: the sequence behind its last packet.
     */
    SEALCAST_EVENT_KIND_STREAM_ENDED = 5,
    /**
     * A running stream is not accepted any more: its publisher was removed, or its certificate has ended.
     */
    SEALCAST_EVENT_KIND_STREAM_CLOSED = 6,
    /**
     * Two signed words for the packet `first` of a stream: an alarm.
     */
    SEALCAST_EVENT_KIND_EQUIVOCATION = 7,
    /**
     * A second successor of a stream: an alarm.
     */
    SEALCAST_EVENT_KIND_SUCCESSION_CONFLICT = 8,
    /**
     * Packets are sealed under other keys.
     */
    SEALCAST_EVENT_KIND_EPOCH_CHANGED = 9,
    /**
     * A secret is not what the key server signed for: an alarm.
     */
    SEALCAST_EVENT_KIND_COMMITMENT_MISMATCH = 10,
    /**
     * `first`: its version.
     */
    SEALCAST_EVENT_KIND_POLICY_CHANGED = 11,
    /**
     * The key server refuses the device.
     */
    SEALCAST_EVENT_KIND_REFUSED = 12,
    /**
     * No word of the key server since `first`, in microseconds since 1970.
     */
    SEALCAST_EVENT_KIND_OUT_OF_CONTACT = 13,
    /**
     * A source of repair did not give what it should hold.
     */
    SEALCAST_EVENT_KIND_SOURCE_PASSED_OVER = 14,
    /**
     * A publisher cannot seal just now, or its device key did not sign.
     */
    SEALCAST_EVENT_KIND_BLOCKED = 15,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sealcast_event_kind sealcast_event_kind;
#else
typedef int32_t sealcast_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * The device whose folder this is. Made by sealcast_identity_open.
 */
typedef struct sealcast_identity sealcast_identity;

/**
 * A publisher. Made by sealcast_publisher_new.
 */
typedef struct sealcast_publisher sealcast_publisher;

/**
 * A subscriber. Made by sealcast_subscriber_new.
 */
typedef struct sealcast_subscriber sealcast_subscriber;

/**
 * Signs `message` with the device key: writes the signature and its length, and returns 0, or anything else on failure.
 *
 * `signature` has room for `*signature_length` bytes. ECDSA signatures are in DER (X9.62), over SHA-256 for P-256 and SHA-384
 * for P-384; those of Ed25519 have 64 bytes. It must not call the library.
 */
typedef int32_t (*sealcast_sign)(void *context,
                                 const uint8_t *message,
                                 size_t message_length,
                                 uint8_t *signature,
                                 size_t *signature_length);

/**
 * How a device signs.
 */
typedef struct sealcast_identity_options {
    /**
     * sizeof(sealcast_identity_options).
     */
    size_t size;
    /**
     * Signs with the device key, wherever that is; NULL: the key file in the folder is read.
     */
    sealcast_sign sign;
    /**
     * Is given to `sign`. Both have to be fit for any thread, and live until the identity and all that was made from it
     * are freed.
     */
    void *sign_context;
    /**
     * A sealcast_algorithm: what `sign` makes. Ignored without it.
     */
    int32_t algorithm;
} sealcast_identity_options;

/**
 * What a device is called, and what its HTTPS client needs. All texts are NUL-terminated UTF-8.
 */
typedef struct sealcast_identity_info {
    /**
     * Name of the device.
     */
    char name[64];
    /**
     * Its site.
     */
    uint8_t site_id[16];
    /**
     * The site's key server, "https://host:port".
     */
    char keys_url[512];
    /**
     * The device's certificate and its issuers, PEM.
     */
    char certificate_file[4096];
    /**
     * The device's key, PKCS#8 in PEM, without a passphrase. It may be absent where the host signs.
     */
    char key_file[4096];
    /**
     * Changes with every renewal: an HTTPS client begins anew with the files that are named then.
     */
    uint64_t generation;
} sealcast_identity_info;

/**
 * Bytes of the host, only looked at during a call. NULL with a length of 0 is empty.
 */
typedef struct sealcast_bytes {
    /**
     * The first of them.
     */
    const uint8_t *data;
    /**
     * How many.
     */
    size_t length;
} sealcast_bytes;

/**
 * How a publisher sends. sealcast_publisher_options_init sets the defaults.
 */
typedef struct sealcast_publisher_options {
    /**
     * sizeof(sealcast_publisher_options).
     */
    size_t size;
    /**
     * Name of the channel.
     */
    const char *channel;
    /**
     * The channel's site; all zeros: the device's own.
     */
    uint8_t site_id[16];
    /**
     * The site's key server; NULL: that of the device's own site.
     */
    const char *keys_url;
    /**
     * Name or address of the network interface; NULL: the policy's, or loopback where the key server is there.
     */
    const char *interface_name;
    /**
     * "ADDR:PORT" to send to in place of the policy's group; NULL: the policy's.
     */
    const char *send_to;
    /**
     * One of several publishers of this device on the channel; NULL: the only one.
     */
    const char *instance;
    /**
     * Bytes of the path's MTU, 576 to 9000.
     */
    uint32_t mtu;
    /**
     * Packets that one signature covers at most, 1 to 64.
     */
    uint32_t max_block;
    /**
     * Routers that packets may pass, plus 1; 1 to 255.
     */
    uint32_t ttl;
    /**
     * Differentiated services code point, 0 to 63.
     */
    uint32_t dscp;
    /**
     * A sealcast_fec.
     */
    int32_t fec;
    /**
     * Packets of a group, with SEALCAST_FEC_FIXED: 1 to 64.
     */
    uint32_t fec_sources;
    /**
     * Parity packets for them.
     */
    uint32_t fec_parities;
    /**
     * Topics whose last value is kept for who joins later; 0: none.
     */
    uint32_t retain_topics;
    /**
     * What these values may hold.
     */
    uint64_t retain_bytes;
    /**
     * The longest message that is taken.
     */
    uint64_t max_message_bytes;
    /**
     * What may wait for the rate.
     */
    uint64_t queue_bytes;
    /**
     * 0: the policy's rate is kept to, whatever subscribers lose.
     */
    int32_t adaptive_rate;
    /**
     * Not 0: the host has sockets and clock of its own, and calls sealcast_publisher_poll_datagram and
     * sealcast_publisher_handle_deadline.
     */
    int32_t host_sockets;
} sealcast_publisher_options;

/**
 * A request that a host is to make. What is pointed to lies in the host's buffer.
 */
typedef struct sealcast_request {
    /**
     * To be given back with the answer.
     */
    uint64_t id;
    /**
     * "GET", "POST" or "PUT".
     */
    const char *method;
    /**
     * "https://host:port/path".
     */
    const char *url;
    /**
     * Who has to answer. A connection may be kept for requests to the same host and port with the same `peer` alone.
     */
    const char *peer;
    /**
     * Content-Type of the body: "application/cbor", or "" where there is none.
     */
    const char *content_type;
    /**
     * What to send.
     */
    const uint8_t *body;
    /**
     * Its bytes; 0 for none.
     */
    size_t body_length;
    /**
     * Microseconds after which the host gives up.
     */
    uint64_t timeout;
    /**
     * As in sealcast_identity_info: another one than before means another certificate, and new connections.
     */
    uint64_t identity_generation;
} sealcast_request;

/**
 * One fact. Numbers that a kind does not use are 0, texts empty.
 */
typedef struct sealcast_event {
    /**
     * A sealcast_event_kind.
     */
    int32_t kind;
    /**
     * Its id.
     */
    uint8_t stream[16];
    /**
     * What the kind says.
     */
    uint64_t first;
    /**
     * What the kind says.
     */
    uint64_t last;
    /**
     * Whose stream it is: the device's name as the policy writes it.
     */
    char publisher[128];
    /**
     * One line for a person, without secrets.
     */
    char text[256];
} sealcast_event;

/**
 * What a publisher has counted since it was made.
 */
typedef struct sealcast_publisher_counters {
    /**
     * Messages that were taken.
     */
    uint64_t messages;
    /**
     * Of these, dropped by a hasty end.
     */
    uint64_t abandoned;
    /**
     * Packets that were sealed.
     */
    uint64_t packets;
    /**
     * Of these, parity.
     */
    uint64_t parity;
    /**
     * Signatures.
     */
    uint64_t blocks;
    /**
     * Of all packets.
     */
    uint64_t bytes;
    /**
     * Packets that were given for repair.
     */
    uint64_t repairs_served;
    /**
     * Bytes of messages that wait.
     */
    uint64_t queued_bytes;
    /**
     * Thousandths of the policy's rate that are used now.
     */
    uint64_t pace;
    /**
     * Sends that the system refused; their packets come back by repair.
     */
    uint64_t send_errors;
    /**
     * Events that nobody took.
     */
    uint64_t dropped_events;
} sealcast_publisher_counters;

/**
 * How a subscriber receives. sealcast_subscriber_options_init sets the defaults.
 */
typedef struct sealcast_subscriber_options {
    /**
     * sizeof(sealcast_subscriber_options).
     */
    size_t size;
    /**
     * Name of the channel.
     */
    const char *channel;
    /**
     * The channel's site; all zeros: the device's own.
     */
    uint8_t site_id[16];
    /**
     * The site's key server; NULL: that of the device's own site.
     */
    const char *keys_url;
    /**
     * Name or address of the network interface; NULL: the policy's, or loopback where the key server is there.
     */
    const char *interface_name;
    /**
     * "ADDR:PORT" to receive on in place of the policy's group; NULL: the policy's.
     */
    const char *listen;
    /**
     * The only host that is listened to (source-specific multicast); NULL: any.
     */
    const char *source;
    /**
     * A sealcast_delivery.
     */
    int32_t delivery;
    /**
     * A sealcast_start.
     */
    int32_t start;
    /**
     * Microseconds, with SEALCAST_DELIVERY_REALTIME alone.
     */
    uint64_t deadline;
    /**
     * The longest message that is taken.
     */
    uint64_t max_message_bytes;
    /**
     * What may wait to be taken.
     */
    uint64_t buffer_bytes;
    /**
     * Bytes of the socket's receive buffer.
     */
    uint64_t socket_buffer_bytes;
    /**
     * Not 0: no multicast; everything comes by requests.
     */
    int32_t side_channel;
    /**
     * Not 0: the host has sockets and clock of its own, and calls sealcast_subscriber_receive_datagrams and
     * sealcast_subscriber_handle_deadline.
     */
    int32_t host_sockets;
} sealcast_subscriber_options;

/**
 * A verified message. What is pointed to lies in the host's buffer.
 */
typedef struct sealcast_message {
    /**
     * What was sent.
     */
    const uint8_t *data;
    /**
     * Its bytes.
     */
    size_t length;
    /**
     * NUL-terminated; NULL where there is none.
     */
    const char *topic;
    /**
     * The publisher as the policy writes it: its name, or "<site id>:<name>" of another site.
     */
    const char *publisher;
    /**
     * Id of the publisher's stream.
     */
    uint8_t stream[16];
    /**
     * Sequence of the packet that completed it.
     */
    uint64_t sequence;
    /**
     * Its number in the stream.
     */
    uint64_t message_id;
    /**
     * When it was sealed, microseconds since 1970.
     */
    uint64_t time;
} sealcast_message;

/**
 * What a subscriber has counted since it was made.
 */
typedef struct sealcast_subscriber_counters {
    /**
     * Packets that were taken.
     */
    uint64_t accepted;
    /**
     * Of these, by repair.
     */
    uint64_t repaired;
    /**
     * Of these, made from parity.
     */
    uint64_t rebuilt;
    /**
     * Packets that are lost for good.
     */
    uint64_t lost;
    /**
     * Packets that were refused, whatever the reason.
     */
    uint64_t rejected;
    /**
     * Of these, whose signature is not their publisher's.
     */
    uint64_t rejected_signature;
    /**
     * Datagrams that the socket received.
     */
    uint64_t datagrams;
    /**
     * Datagrams that the system dropped because nobody took them.
     */
    uint64_t dropped_by_kernel;
    /**
     * Events that nobody took.
     */
    uint64_t dropped_events;
    /**
     * Streams that run.
     */
    uint64_t streams;
} sealcast_subscriber_counters;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The interface that the library has: to be compared with SEALCAST_ABI_VERSION before anything else.
 */
uint32_t sealcast_abi_version(void);

/**
 * The library's version, NUL-terminated: "0.1.0". It lives as long as the library.
 */
const char *sealcast_version(void);

/**
 * Microseconds by a clock that is never set: the time that the library goes by where it runs the clock.
 */
uint64_t sealcast_now(void);

/**
 * Read a device's folder, as `sealcast device enroll` makes it.
 *
 * `folder`: its path. `options`: NULL for the defaults. What is written to `identity` is to be freed by
 * sealcast_identity_free. Fails with SEALCAST_STATUS_NO_DEVICE, SEALCAST_STATUS_STORAGE; where no function is given that signs,
 * with SEALCAST_STATUS_SIGNING if the folder has no key, or another one than its certificate's.
 *
 * # Safety
 * As the conventions say of strings, options and results.
 */
sealcast_status sealcast_identity_open(const char *folder,
                                       const struct sealcast_identity_options *options,
                                       struct sealcast_identity **identity);

/**
 * Free an identity. What was made from it goes on.
 */
sealcast_status sealcast_identity_free(struct sealcast_identity *identity);

/**
 * What the folder holds now. `info_size`: sizeof(sealcast_identity_info).
 *
 * # Safety
 * `info` is NULL or valid for a write.
 */
sealcast_status sealcast_identity_get_info(struct sealcast_identity *identity,
                                           struct sealcast_identity_info *info,
                                           size_t info_size);

/**
 * One certificate of the device's chain, DER: `index` 0 is its own. SEALCAST_STATUS_CLOSED: there are no more.
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `length` for one.
 */
sealcast_status sealcast_identity_get_certificate(struct sealcast_identity *identity,
                                                  size_t index,
                                                  uint8_t *buffer,
                                                  size_t capacity,
                                                  size_t *length);

/**
 * One certificate that a TLS client may build paths with, DER: the roots, then the site CAs. Whom it leads to is judged by
 * sealcast_*_verify_server alone. SEALCAST_STATUS_CLOSED: there are no more.
 *
 * # Safety
 * As sealcast_identity_get_certificate.
 */
sealcast_status sealcast_identity_get_authority(struct sealcast_identity *identity,
                                                size_t index,
                                                uint8_t *buffer,
                                                size_t capacity,
                                                size_t *length);

/**
 * Sign with the device key, for TLS clients whose key the host holds elsewhere, and for tests of the callback.
 *
 * # Safety
 * As the conventions say of bytes and buffers.
 */
sealcast_status sealcast_identity_sign(struct sealcast_identity *identity,
                                       struct sealcast_bytes message,
                                       uint8_t *buffer,
                                       size_t capacity,
                                       size_t *length);

/**
 * Answer a case of the known answers (the files of vectors/) as this library does, to be compared with the file.
 *
 * `concept_name`: that of a file without its ending, such as "varint". `question`: a CBOR map of the inputs of a case
 * and of its group, with the names and values that the file has; bytes are text in hexadecimal there and here. What is
 * written to `buffer` is a CBOR map of the results in the same way, "result" and "reason" among them. `length` is how
 * long it is, also where the buffer is too small. No handle is touched and nothing is kept. Fails with
 * SEALCAST_STATUS_INVALID_ARGUMENT if there is no such concept or it is none of its cases.
 *
 * # Safety
 * As the conventions say of strings, bytes and buffers.
 */
sealcast_status sealcast_known_answer(const char *concept_name,
                                      struct sealcast_bytes question,
                                      uint8_t *buffer,
                                      size_t capacity,
                                      size_t *length);

/**
 * Set the defaults. `size`: sizeof(sealcast_publisher_options).
 *
 * # Safety
 * `options` is NULL or valid for a write of `size` bytes.
 */
sealcast_status sealcast_publisher_options_init(struct sealcast_publisher_options *options, size_t size);

/**
 * Make a publisher. Nothing happens before its first request is taken.
 *
 * `now`: the time, where the host runs the clock; else it is ignored. What is written to `publisher` is to be freed by
 * sealcast_publisher_free.
 *
 * # Safety
 * As the conventions say of handles, options and results.
 */
sealcast_status sealcast_publisher_new(struct sealcast_identity *identity,
                                       const struct sealcast_publisher_options *options,
                                       uint64_t now,
                                       struct sealcast_publisher **publisher);

/**
 * Free a publisher: its sockets are closed, and calls that wait return SEALCAST_STATUS_CLOSED. A stream that was not
 * finished ends without a word.
 */
sealcast_status sealcast_publisher_free(struct sealcast_publisher *publisher);

/**
 * Wait until the key server has taken the device in and lists its stream; requests have to be made meanwhile, by another
 * thread.
 *
 * Fails with SEALCAST_STATUS_NOT_ALLOWED, SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED,
 * SEALCAST_STATUS_CERTIFICATE, SEALCAST_STATUS_SIGNING, SEALCAST_STATUS_INTERFACE; with SEALCAST_STATUS_UNREACHABLE if no
 * answer that holds has come in that time: whoever calls again waits on. A device key that did not sign is asked again.
 */
sealcast_status sealcast_publisher_join(struct sealcast_publisher *publisher,
                                        uint64_t timeout);

/**
 * Wait for the next request that the host is to make: as sealcast_subscriber_next_request; SEALCAST_PUBLISHER_REQUEST_BYTES hold any.
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `request` for one.
 */
sealcast_status sealcast_publisher_next_request(struct sealcast_publisher *publisher,
                                                uint64_t timeout,
                                                uint8_t *buffer,
                                                size_t capacity,
                                                struct sealcast_request *request,
                                                size_t request_size);

/**
 * Judge who has answered the connection for a request: as sealcast_subscriber_verify_server.
 *
 * # Safety
 * As the conventions say of bytes.
 */
sealcast_status sealcast_publisher_verify_server(struct sealcast_publisher *publisher,
                                                 uint64_t id,
                                                 const struct sealcast_bytes *chain,
                                                 size_t count);

/**
 * Give the answer to a request: as sealcast_subscriber_respond.
 *
 * # Safety
 * As the conventions say of bytes.
 */
sealcast_status sealcast_publisher_respond(struct sealcast_publisher *publisher,
                                           uint64_t id,
                                           int32_t http_status,
                                           struct sealcast_bytes body);

/**
 * Queue a message; it is copied. SEALCAST_STATUS_QUEUE_FULL: try again after sealcast_publisher_wait_room. Fails when the
 * key server refuses the device, with SEALCAST_STATUS_TOO_LONG, SEALCAST_STATUS_ENDED, SEALCAST_STATUS_EXHAUSTED; with
 * SEALCAST_STATUS_SIGNING once what the device key signed last has ended.
 *
 * `topic`: NULL for none, up to 255 bytes, at a small MTU fewer.
 *
 * # Safety
 * As the conventions say of bytes and strings.
 */
sealcast_status sealcast_publisher_send(struct sealcast_publisher *publisher,
                                        struct sealcast_bytes message,
                                        const char *topic);

/**
 * Queue messages until the queue is full, in order, and write how many were taken, which may be none: a full queue is no
 * failure here. Else as sealcast_publisher_send.
 *
 * # Safety
 * As the conventions say of bytes and strings; `taken` is valid for a write.
 */
sealcast_status sealcast_publisher_send_many(struct sealcast_publisher *publisher,
                                             const struct sealcast_bytes *messages,
                                             size_t count,
                                             const char *topic,
                                             size_t *taken);

/**
 * Wait until half of the queue is free, and there is room for the message that was refused last.
 */
sealcast_status sealcast_publisher_wait_room(struct sealcast_publisher *publisher, uint64_t timeout);

/**
 * Send what is queued and say the end of the stream; then the host goes on with requests for as long as subscribers are to
 * be mended, and frees the publisher. SEALCAST_STATUS_INCOMPLETE: not done in that time, as at a
 * slow rate or without a key; whoever calls again waits on.
 */
sealcast_status sealcast_publisher_finish(struct sealcast_publisher *publisher,
                                          uint64_t timeout);

/**
 * The stream's id.
 *
 * # Safety
 * `stream` is valid for writes of 16 bytes.
 */
sealcast_status sealcast_publisher_get_stream(struct sealcast_publisher *publisher, uint8_t (*stream)[16]);

/**
 * Wait for the next event. `event_size`: sizeof(sealcast_event).
 *
 * # Safety
 * `event` is valid for a write.
 */
sealcast_status sealcast_publisher_next_event(struct sealcast_publisher *publisher,
                                              uint64_t timeout,
                                              struct sealcast_event *event,
                                              size_t event_size);

/**
 * What has been counted. `size`: sizeof(sealcast_publisher_counters).
 *
 * # Safety
 * `counters` is valid for a write.
 */
sealcast_status sealcast_publisher_get_counters(struct sealcast_publisher *publisher,
                                                struct sealcast_publisher_counters *counters,
                                                size_t size);

/**
 * Take one datagram for the group, where the host has the sockets; more is sealed when none is ready.
 * SEALCAST_STATUS_TIMEOUT: there is none now.
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `length` for one.
 */
sealcast_status sealcast_publisher_poll_datagram(struct sealcast_publisher *publisher,
                                                 uint64_t now,
                                                 uint8_t *buffer,
                                                 size_t capacity,
                                                 size_t *length);

/**
 * Do what is due, where the host runs the clock, and write when the next thing is: UINT64_MAX: nothing is.
 *
 * # Safety
 * `deadline` is valid for a write.
 */
sealcast_status sealcast_publisher_handle_deadline(struct sealcast_publisher *publisher,
                                                   uint64_t now,
                                                   uint64_t *deadline);

/**
 * SEALCAST_ID_BYTES of this library.
 */
size_t sealcast_id_bytes(void);

/**
 * SEALCAST_DATAGRAM_BYTES of this library.
 */
size_t sealcast_datagram_bytes(void);

/**
 * SEALCAST_SUBSCRIBER_REQUEST_BYTES of this library.
 */
size_t sealcast_subscriber_request_bytes(void);

/**
 * SEALCAST_PUBLISHER_REQUEST_BYTES of this library.
 */
size_t sealcast_publisher_request_bytes(void);

/**
 * sizeof(sealcast_identity_options) of this library.
 */
size_t sealcast_identity_options_size(void);

/**
 * sizeof(sealcast_identity_info) of this library.
 */
size_t sealcast_identity_info_size(void);

/**
 * sizeof(sealcast_request) of this library.
 */
size_t sealcast_request_size(void);

/**
 * sizeof(sealcast_event) of this library.
 */
size_t sealcast_event_size(void);

/**
 * sizeof(sealcast_message) of this library.
 */
size_t sealcast_message_size(void);

/**
 * sizeof(sealcast_subscriber_options) of this library.
 */
size_t sealcast_subscriber_options_size(void);

/**
 * sizeof(sealcast_subscriber_counters) of this library.
 */
size_t sealcast_subscriber_counters_size(void);

/**
 * sizeof(sealcast_publisher_options) of this library.
 */
size_t sealcast_publisher_options_size(void);

/**
 * sizeof(sealcast_publisher_counters) of this library.
 */
size_t sealcast_publisher_counters_size(void);

/**
 * Name of a status, such as "timeout"; NULL of a number that is none. It lives as long as the library.
 */
const char *sealcast_status_name(int32_t status);

/**
 * What a caller can do about a status; of a number that is none SEALCAST_CATEGORY_INTERNAL.
 */
sealcast_category sealcast_status_category(int32_t status);

/**
 * Write what the last failed call of this thread has to say, NUL-terminated and cut to `capacity`, and return how long
 * it is without the NUL. It is one line without secrets. `buffer` may be NULL with a `capacity` of 0.
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes.
 */
size_t sealcast_last_error(char *buffer,
                           size_t capacity);

/**
 * Set the defaults. `size`: sizeof(sealcast_subscriber_options).
 *
 * # Safety
 * `options` is NULL or valid for a write of `size` bytes.
 */
sealcast_status sealcast_subscriber_options_init(struct sealcast_subscriber_options *options, size_t size);

/**
 * Make a subscriber. Nothing happens before its first request is taken.
 *
 * `now`: the time, where the host runs the clock; else it is ignored. What is written to `subscriber` is to be freed by
 * sealcast_subscriber_free.
 *
 * # Safety
 * As the conventions say of handles, options and results.
 */
sealcast_status sealcast_subscriber_new(struct sealcast_identity *identity,
                                        const struct sealcast_subscriber_options *options,
                                        uint64_t now,
                                        struct sealcast_subscriber **subscriber);

/**
 * Free a subscriber: its sockets are closed, and calls that wait return SEALCAST_STATUS_CLOSED.
 */
sealcast_status sealcast_subscriber_free(struct sealcast_subscriber *subscriber);

/**
 * Wait until the key server has taken the device in; requests have to be made meanwhile, by another thread.
 *
 * Fails with SEALCAST_STATUS_NOT_ALLOWED, SEALCAST_STATUS_UNKNOWN_CHANNEL, SEALCAST_STATUS_REVOKED,
 * SEALCAST_STATUS_CERTIFICATE (which the key server refuses, or its own is refused), SEALCAST_STATUS_INTERFACE; with
 * SEALCAST_STATUS_UNREACHABLE if no answer that holds has come in that time: whoever calls again waits on.
 */
sealcast_status sealcast_subscriber_join(struct sealcast_subscriber *subscriber,
                                         uint64_t timeout);

/**
 * Wait for the next request that the host is to make. Requests are independent: several may be under way at once, and
 * have to be, since one of them waits for news.
 *
 * `buffer`: for what `request` points to; SEALCAST_SUBSCRIBER_REQUEST_BYTES hold any. SEALCAST_STATUS_BUFFER_TOO_SMALL: it stays, and
 * `request->body_length` is the capacity that it needs. Call it again and again: it also does what time
 * brings. SEALCAST_STATUS_CLOSED: there will be none any more. `request_size`: sizeof(sealcast_request).
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `request` for one.
 */
sealcast_status sealcast_subscriber_next_request(struct sealcast_subscriber *subscriber,
                                                 uint64_t timeout,
                                                 uint8_t *buffer,
                                                 size_t capacity,
                                                 struct sealcast_request *request,
                                                 size_t request_size);

/**
 * Judge who has answered the connection for a request: before a byte of it is sent.
 *
 * `chain`: DER, as the other side has shown it, its own certificate first. It proves who that is; that it holds the key the
 * host's TLS has proven. SEALCAST_STATUS_CERTIFICATE: end the connection, and answer the request with `http_status` 0.
 *
 * # Safety
 * As the conventions say of bytes.
 */
sealcast_status sealcast_subscriber_verify_server(struct sealcast_subscriber *subscriber,
                                                  uint64_t id,
                                                  const struct sealcast_bytes *chain,
                                                  size_t count);

/**
 * Give the answer to a request. `http_status`: 0 where nobody could be reached, or was believed; `body` may then say why, as
 * text of up to 512 bytes, for whoever waits for the join.
 *
 * # Safety
 * As the conventions say of bytes.
 */
sealcast_status sealcast_subscriber_respond(struct sealcast_subscriber *subscriber,
                                            uint64_t id,
                                            int32_t http_status,
                                            struct sealcast_bytes body);

/**
 * Wait for messages, and write as many as are there and fit, at most `limit`.
 *
 * `buffer`: for what they point to. SEALCAST_STATUS_BUFFER_TOO_SMALL: the next message alone is longer; it stays, and
 * `messages[0].length` is the capacity that it needs. SEALCAST_STATUS_CLOSED: it has left. One thread at a time: another gets
 * SEALCAST_STATUS_IN_USE. Fails as sealcast_subscriber_join when the key server refuses the device from now on; whoever
 * calls again waits for it to be admitted anew. `message_size`: sizeof(sealcast_message).
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `messages` of `limit` messages, `count` for one.
 */
sealcast_status sealcast_subscriber_recv_many(struct sealcast_subscriber *subscriber,
                                              uint64_t timeout,
                                              uint8_t *buffer,
                                              size_t capacity,
                                              struct sealcast_message *messages,
                                              size_t message_size,
                                              size_t limit,
                                              size_t *count);

/**
 * Wait for one message: sealcast_subscriber_recv_many with a limit of 1.
 *
 * # Safety
 * `buffer` is valid for writes of `capacity` bytes, `message` for one.
 */
sealcast_status sealcast_subscriber_recv(struct sealcast_subscriber *subscriber,
                                         uint64_t timeout,
                                         uint8_t *buffer,
                                         size_t capacity,
                                         struct sealcast_message *message,
                                         size_t message_size);

/**
 * Wait for the next event. They are told in their order among messages, once the messages before them have been taken.
 * `event_size`: sizeof(sealcast_event).
 *
 * # Safety
 * `event` is valid for a write.
 */
sealcast_status sealcast_subscriber_next_event(struct sealcast_subscriber *subscriber,
                                               uint64_t timeout,
                                               struct sealcast_event *event,
                                               size_t event_size);

/**
 * What has been counted. `size`: sizeof(sealcast_subscriber_counters).
 *
 * # Safety
 * `counters` is valid for a write.
 */
sealcast_status sealcast_subscriber_get_counters(struct sealcast_subscriber *subscriber,
                                                 struct sealcast_subscriber_counters *counters,
                                                 size_t size);

/**
 * Leave the channel: a last request tells the key server, and with its answer all waits end with SEALCAST_STATUS_CLOSED. While other
 * subscribers of the device go on, in whatever process, the device stays a member, and there is no request.
 */
sealcast_status sealcast_subscriber_leave(struct sealcast_subscriber *subscriber);

/**
 * Give datagrams that came from the group, where the host has the sockets. What is refused is counted.
 *
 * # Safety
 * As the conventions say of bytes.
 */
sealcast_status sealcast_subscriber_receive_datagrams(struct sealcast_subscriber *subscriber,
                                                      const struct sealcast_bytes *datagrams,
                                                      size_t count,
                                                      uint64_t now);

/**
 * Do what is due, where the host runs the clock, and write when the next thing is: UINT64_MAX: nothing is.
 *
 * # Safety
 * `deadline` is valid for a write.
 */
sealcast_status sealcast_subscriber_handle_deadline(struct sealcast_subscriber *subscriber,
                                                    uint64_t now,
                                                    uint64_t *deadline);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SEALCAST_H */
