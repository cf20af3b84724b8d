/* pool.h - the warm connections of one worker to one origin.
 *
 * Calls ask for a connection and, when none is idle, wait in the order they came. An idle connection goes to the first
 * who waits, most recently used first; connects are started for those who still wait, as far as the slots shared with
 * the other workers allow (slots.h). A connect that is no longer needed when it succeeds leaves a warm connection. */
#ifndef S3P_ORIGIN_POOL_H
#define S3P_ORIGIN_POOL_H

#include "conf/conf.h"
#include "http/h1_client.h"
#include "origin/connect.h"
#include "origin/impl.h"
#include "origin/slots.h"

struct conn_pool;
struct conn;
struct conn_wait;

/* Caller-owned; idle, or queued from conn_pool_get until one of its functions was called or it was withdrawn. */
struct conn_wait {
    bool fresh;                                         /* only a newly made connection will do */
    void (*ready)(struct conn_wait *w, struct conn *c); /* c is the caller's until it was sent on and released */
    void (*failed)(struct conn_wait *w, enum err why);  /* connecting for it failed */
    /* private */
    struct list link;
    struct conn *connecting;
    bool queued;
};

struct conn_pool_conf {
    const struct origin_conf *conf;
    struct dns *dns;
    struct tls_ctx *tls; /* NULL: plain */
    const char *server_name;
    struct slots *slots;
    unsigned index; /* of the worker */
    struct mailbox *mailbox;
    struct origin_stats *stats;
    struct meter memory; /* HTTP/2: of what is held */
};
enum err conn_pool_create(const struct conn_pool_conf *c, struct conn_pool **out);
/* Nobody waits any more; connections in use are waited for. done is called later, from the loop; p is gone then. */
void conn_pool_close(struct conn_pool *p, void (*done)(void *arg), void *arg);
void conn_pool_discard(struct conn_pool *p); /* one that was never used */

void conn_wait_init(struct conn_wait *w);
/* An idle connection at once, or NULL: w is queued and one of its functions will be called, never from inside. */
struct conn *conn_pool_get(struct conn_pool *p, struct conn_wait *w);
void conn_pool_withdraw(struct conn_pool *p, struct conn_wait *w); /* no-op when not queued */
/* Whether a connect is under way for w, or it merely stands in line. */
bool conn_wait_connecting(const struct conn_wait *w);
/* Gives back a connection on which nothing was sent. */
void conn_pool_put(struct conn_pool *p, struct conn *c);

/* Takes over a connected stream whose slot the caller holds: it becomes an idle connection. Not ERR_OK: nothing
 * was taken. */
enum err conn_pool_adopt(struct conn_pool *p, struct stream *s);

struct h1_client *conn_h1(const struct conn *c);
bool conn_reused(const struct conn *c); /* it was idle before, so the origin may have closed it meanwhile */

#endif
