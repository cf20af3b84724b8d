/* h2_pool.h - the HTTP/2 connections of one worker to one origin, each shared by many calls.
 *
 * A call goes to the connection with the fewest bytes outstanding that has room for it; so long responses spread over
 * what is open, and short ones keep out of their way. Further connections are opened when none has room (the peer's
 * limit of streams) and when more of them are worth it (climb.h), as far as the slots shared with all other connections
 * to the origin allow; bulk waits a moment for one that is on its way rather than queue behind much else. An origin that
 * turns out not to speak h2 gives its connection to the pool of HTTP/1.1 connections. */
#ifndef S3P_ORIGIN_H2_POOL_H
#define S3P_ORIGIN_H2_POOL_H

#include "http/h2_client.h"
#include "origin/choice.h"
#include "origin/pool.h"

struct h2_pool;
struct h2_link;
struct h2_wait;

/* Caller-owned; idle, or queued from h2_pool_get until one of its functions was called or it was withdrawn. */
struct h2_wait {
    bool again;                                          /* it has waited before: to the front */
    uint64_t bytes;                                      /* what is expected in answer */
    void (*ready)(struct h2_wait *w, struct h2_link *c); /* c has room for it now */
    void (*failed)(struct h2_wait *w, enum err why);     /* ERR_NOT_SUPPORTED: the origin speaks HTTP/1.1 */
    /* private */
    struct list link;
    bool queued, holds_out;
};

/* conf->tls: offers h2 (or NULL: prior knowledge). index: another than that of the worker's HTTP/1.1 pool. h1: for
 * connections that turn out to be HTTP/1.1; NULL with prior knowledge. */
enum err h2_pool_create(const struct conn_pool_conf *conf, struct conn_pool *h1, struct choice *choice,
                        struct h2_pool **out);
/* Nobody waits and nothing is on any connection. done is called later, from the loop; p is gone then. */
void h2_pool_close(struct h2_pool *p, void (*done)(void *arg), void *arg);

void h2_wait_init(struct h2_wait *w);
/* A connection with room at once, or NULL: w is queued and one of its functions will be called, never from inside. */
struct h2_link *h2_pool_get(struct h2_pool *p, struct h2_wait *w);
void h2_pool_withdraw(struct h2_pool *p, struct h2_wait *w); /* no-op when not queued */
bool h2_pool_connecting(const struct h2_pool *p); /* a connect is under way, or those who wait merely stand in line */

/* As h2_client_send. What is expected is booked as outstanding on c. */
enum err h2_link_send(struct h2_link *c, const struct client_request *req, uint64_t expect_bytes,
                      const struct client_events *ev, void *arg, struct h2_call **out);
void h2_link_expect(struct h2_link *c, uint64_t bytes); /* so much more is outstanding */
void h2_link_got(struct h2_link *c, uint64_t bytes);    /* so much less */
bool h2_link_reused(const struct h2_link *c); /* it may have been closed by the origin while it rested */
/* The peer refused a stream: no more for a moment, somebody else may have room. */
void h2_link_refused(struct h2_link *c);

#endif
