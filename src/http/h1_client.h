/* h1_client.h - one HTTP/1.1 connection to an origin: one request at a time. The pool (origin/pool.h) owns it. */
#ifndef S3P_HTTP_H1_CLIENT_H
#define S3P_HTTP_H1_CLIENT_H

#include "http/client.h"
#include "http/h1_parse.h"
#include "io/stream.h"

struct client_timeouts {
    uint64_t connect_ms, tls_ms, first_byte_ms, stall_ms;
};
struct h1_client;
/* Called when the connection's fate after a request is known: reusable, or to be destroyed. */
struct h1_client_owner {
    /* A request has ended (its end callback has been called, or it was cancelled). reusable: idle and clean. */
    void (*released)(void *arg, struct h1_client *c, bool reusable);
    /* The peer closed, or sent bytes unasked, while idle. The owner destroys it. */
    void (*idle_closed)(void *arg, struct h1_client *c);
};
/* Takes over a connected (and, for TLS, shaken) stream. */
enum err h1_client_create(struct stream *s, const struct h1_limits *limits, const struct client_timeouts *t,
                          const struct h1_client_owner *owner, void *owner_arg, struct h1_client **out);
/* Only when idle. Everything in req must live until end, its strings until the head was written (= until head()). Never
 * calls back from inside. */
void h1_client_send(struct h1_client *c, const struct client_request *req, const struct client_events *ev, void *arg);
void h1_client_resume(struct h1_client *c); /* space is there again */
void h1_client_cancel(struct h1_client *c); /* closes the connection unless the response was already whole */
bool h1_client_got_bytes(const struct h1_client *c); /* any response byte of the current or last request */
bool h1_client_sent_body(const struct h1_client *c); /* any byte of the request body was pulled */
uint64_t h1_client_requests(const struct h1_client *c); /* how many it has served: > 0 means reused */
uint64_t h1_client_idle_since_ms(const struct h1_client *c);
void h1_client_destroy(struct h1_client *c);

#endif
