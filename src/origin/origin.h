/* origin.h - where objects come from: a method table for each type, one `struct origin` per configured origin shared by
 * all workers (immutable config, credentials, TLS context, a few atomics), and one `struct origin_worker` per worker and
 * origin that holds the connections. One call = one attempt on one connection (plus the free retry on a reused
 * connection that fails before any response byte); retrying with back-off is the caller's (retry.h). */
#ifndef S3P_ORIGIN_ORIGIN_H
#define S3P_ORIGIN_ORIGIN_H

#include "base/meter.h"
#include "base/stat.h"
#include "conf/conf.h"
#include "http/client.h"
#include "io/disk.h"
#include "s3/op.h"

struct origin;
struct origin_worker;
struct origin_call; /* one request under way; opaque */

/* What the caller wants. All of it must live until head() or end() came, or origin_cancel was called. */
struct origin_request {
    enum method method;
    struct str method_text;
    struct s3_address address; /* s3, virtual addressing: bucket and key */
    struct str path, query;    /* raw, as the client sent them (path-style for s3) */
    const struct hdr *hdrs;    /* end-to-end fields to send on, without Host, Authorization, x-amz-date,
                                  x-amz-content-sha256, x-amz-security-token, Content-Length, Expect */
    unsigned nhdrs;
    bool has_range;            /* adds Range: bytes=first-last */
    uint64_t first, last;
    struct str if_match;       /* adds If-Match; {NULL,0} none */
    struct body *body;         /* NULL none. Closed by the call once anything was pulled from it; one that was not
                                  touched stays open when the call ends, fit for another try */
    int64_t body_length;       /* -1 = chunked (s3: needs a known length, else ERR_LENGTH_REQUIRED) */
    bool send_zero_length;
    bool expect_continue;
    struct str payload_hash;   /* s3: what to sign as x-amz-content-sha256; {NULL,0}: UNSIGNED-PAYLOAD with a body, the
                                  hash of nothing without */
};

/* Counters of one worker and origin. X(name): written by the worker only. */
#define ORIGIN_STATS(X)                                                                                    \
    X(requests) X(bytes) X(bytes_sent) X(errors_connect) X(errors_tls) X(errors_dns) X(errors_timeout)      \
    X(errors_protocol) X(errors_reset) X(status_5xx) X(slow_down) X(retries) X(conn_created) X(conn_reused) \
    X(conn_open) X(conn_idle) X(in_flight) X(waiting) X(h2_requests) X(h2_open) X(h2_refused) X(h2_goaways)
struct origin_stats {
#define X(name) stat_t name;
    ORIGIN_STATS(X)
#undef X
    struct hist first_byte_us;
};

/* Start: builds the TLS context, loads credentials, opens the root directory. Reasons go to msg as one line. */
enum err origin_create(const struct origin_conf *c, unsigned nworkers, struct disk *disk, struct origin **out, char *msg,
                       size_t n);
void origin_destroy(struct origin *o); /* after all its workers are gone */
/* Where to count bytes that came over HTTP/2 and whose receiver had no room for them. Before the first worker. */
void origin_set_meter(struct origin *o, struct meter memory);
const struct origin_conf *origin_conf(const struct origin *o);
/* HTTP/1.1 or HTTP/2, and why: texts that live for ever. Any thread. */
void origin_protocol_choice(const struct origin *o, const char **choice, const char **why);
/* What that is based on: averages of what a request got over HTTP/1.1 [0] and HTTP/2 [1]; 0 = none yet. Any thread. */
struct origin_protocol_seen {
    uint64_t first_byte_us[2], bulk_bytes_per_s[2];
};
void origin_protocol_seen(const struct origin *o, struct origin_protocol_seen *out);

/* Called on the worker's own thread. index: 0..nworkers-1. */
enum err origin_worker_create(struct origin *o, unsigned index, struct mailbox *mb, struct origin_worker **out);
/* Closes idle connections; calls must have ended or been cancelled. `done` may come later (disk jobs under way). */
void origin_worker_destroy(struct origin_worker *w, void (*done)(void *arg), void *arg);
struct origin_stats *origin_worker_stats(struct origin_worker *w);
struct origin *origin_worker_origin(const struct origin_worker *w);

/* Starts a call. Events come later, never from inside. Failure to even start is reported through end(). ERR_NOMEM is the
 * only direct error (no event comes then). */
enum err origin_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                       struct origin_call **out);
void origin_resume(struct origin_call *c);
/* No event comes any more; c is gone. Also legal inside its events; after end() c is gone by itself. */
void origin_cancel(struct origin_call *c);

#endif
