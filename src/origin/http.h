/* http.h - what origins of types http and s3 share: calls over pooled HTTP/1.1 connections (included by http.c and s3.c
 * only). A type differs in how it is opened and in the request it builds. */
#ifndef S3P_ORIGIN_HTTP_H
#define S3P_ORIGIN_HTTP_H

#include "origin/impl.h"
#include "origin/pool.h"
#include "s3/sigv4.h"

struct http_call;
struct http_origin {
    struct dns *dns;
    struct slots *slots;
    struct tls_ctx *tls;
    char host[256]; /* of the endpoint, without brackets */
    /* Fills call->creq: method, target, authority, hdrs. Memory from call->mem. Runs anew for the free retry. */
    enum err (*build)(struct http_call *call);
    /* Told of every response head; NULL: nothing to learn. */
    void (*learn)(struct http_origin *ho, const struct head *resp);
    /* s3 */
    struct credentials creds;
    char region[64];
    _Atomic int64_t skew_s; /* what to add to our clock to get the origin's */
};
struct http_worker {
    struct origin_worker *w;
    struct http_origin *shared;
    struct conn_pool *pool;
    struct list calls;
    struct sigv4_key key; /* s3 */
    void (*closed)(void *arg);
    void *closed_arg;
};
struct http_call {
    struct origin_call base;
    uint32_t magic;
    struct list link;
    struct http_worker *hw;
    struct origin_request r; /* its strings are the caller's */
    struct client_events ev;
    void *arg;
    struct conn_wait wait;
    struct conn *conn; /* while a request is on it */
    struct pool *mem;
    struct client_request creq;
    struct body body; /* stands in for r.body: counts, and leaves an untouched one open */
    bool body_touched;
    bool retried, ending;
    struct timer operation;
    struct task failing;
    enum err why; /* of failing */
    uint64_t sent_ns;
};

enum err http_open(struct origin *o, struct disk *disk, unsigned nworkers, char *msg, size_t n);
void http_close(struct origin *o);
enum err http_worker_open(struct origin_worker *w, unsigned index);
void http_worker_close(struct origin_worker *w, void (*done)(void *arg), void *arg);
enum err http_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                     struct origin_call **out);
void http_resume(struct origin_call *c);
void http_cancel(struct origin_call *c);
/* The caller's fields, Range and If-Match into creq, with room for `more`. */
enum err http_build_hdrs(struct http_call *call, unsigned more, struct hdr **end);

#endif
