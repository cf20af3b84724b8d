/* http.h - what origins of types http and s3 share: calls over pooled connections, HTTP/1.1 and HTTP/2 (included by http.c
 * and s3.c only). A type differs in how it is opened and in the request it builds. */
#ifndef S3P_ORIGIN_HTTP_H
#define S3P_ORIGIN_HTTP_H

#include "origin/choice.h"
#include "origin/h2_pool.h"
#include "origin/impl.h"
#include "origin/pool.h"
#include "origin/replay.h"
#include "s3/sigv4.h"

struct http_call;
struct http_origin {
    struct dns *dns;
    struct slots *slots;
    struct tls_ctx *tls, *tls_h2; /* NULL: plain; tls_h2 offers h2 */
    struct choice choice;
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
    struct conn_pool *pool;  /* HTTP/1.1 */
    struct h2_pool *h2_pool; /* NULL: this origin never speaks HTTP/2 */
    uint64_t bulk_in_flight;
    unsigned pools_closing;
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
    struct h2_wait h2_wait;
    struct h2_link *h2_link; /* while a request is on it, */
    struct h2_call *h2;    /* as this stream */
    uint64_t h2_left;        /* bytes booked as outstanding there */
    enum proto proto;
    bool h1_only, h2_only;   /* over the other it was tried in vain */
    bool bulk;
    uint64_t expect_bytes;
    uint64_t got_bytes;
    uint64_t start_ns;
    unsigned free_tries;     /* without having been processed */
    struct pool *mem;
    struct client_request creq;
    struct body body; /* stands in for r.body: counts, and leaves one open that can be sent again */
    struct replay replay;
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
const struct choice *http_choice(const struct origin *o);
/* The caller's fields, Range and If-Match into creq, with room for `more`. */
enum err http_build_hdrs(struct http_call *call, unsigned more, struct hdr **end);

#endif
