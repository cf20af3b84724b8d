/* h2_client.h - one HTTP/2 connection to an origin (RFC 9113), many requests at once, each with the events of client.h.
 * The pool (origin/h2_pool.h) owns it.
 *
 * Nothing here calls back from inside its own calls. A request is gone after its end() has returned, or with
 * h2_call_cancel; its questions below may be asked until then, also inside end(). */
#ifndef S3P_HTTP_H2_CLIENT_H
#define S3P_HTTP_H2_CLIENT_H

#include "base/meter.h"
#include "http/client.h"
#include "http/h1_client.h" /* client_timeouts, h1_limits */

enum { H2_CLIENT_STREAMS_MAX = 100 }; /* at once on a connection, whatever the peer allows */

struct h2_client;
struct h2_call; /* one request */
struct h2_client_owner {
    /* What h2_client_room says may have changed: a request has ended, the peer's settings or its GOAWAY came. */
    void (*changed)(void *arg, struct h2_client *c);
    /* The connection is of no more use and no request is on it. The owner destroys it. */
    void (*closed)(void *arg, struct h2_client *c);
};
/* Takes over a connected (and, for TLS, shaken) stream. limit: how many requests the peer is taken to allow at once until
 * it has said so; 0: no idea. */
enum err h2_client_create(struct stream *s, const struct h1_limits *limits, const struct client_timeouts *t,
                          unsigned limit, const struct h2_client_owner *owner, void *owner_arg, struct h2_client **out);
/* Where to count what is held for receivers without space. Windows do not grow while it is tight. Before the first request. */
void h2_client_set_meter(struct h2_client *c, struct meter memory);
unsigned h2_client_limit(const struct h2_client *c); /* what the peer allows; 0: it has not said yet */
/* How many more requests may be sent now. 0 for good once the peer has said GOAWAY or the connection is broken. */
unsigned h2_client_room(const struct h2_client *c);
bool h2_client_admits_none(const struct h2_client *c); /* the peer has said that it allows no request at all, for now */
bool h2_client_is_over(const struct h2_client *c); /* no request will ever be sent on it again */
/* Only with room. Strings of req are copied; its body must live until head or end came. expect_bytes: how long the
 * response will be, as far as the caller knows (0: no idea): sizes the receive window. ERR_NOMEM: nothing was sent. */
enum err h2_client_send(struct h2_client *c, const struct client_request *req, uint64_t expect_bytes,
                        const struct client_events *ev, void *arg, struct h2_call **out);
void h2_call_resume(struct h2_call *s); /* space is there again */
void h2_call_cancel(struct h2_call *s); /* resets it unless the response was already whole */
bool h2_call_got_bytes(const struct h2_call *s); /* any byte of the response */
bool h2_call_sent_body(const struct h2_call *s); /* any byte of the request body was pulled */
/* The peer has certainly not looked at the request (never sent, above GOAWAY's last stream, REFUSED_STREAM): it may be
 * sent again whatever its method. */
bool h2_call_unprocessed(const struct h2_call *s);
/* The connection broke under several requests after it had been a good one, no byte of this one's response had come, and
 * another of them is the one that failed: a try again is not a sign of trouble at the origin. It may have been processed. */
bool h2_call_bystander(const struct h2_call *s);
bool h2_call_refused(const struct h2_call *s);  /* by REFUSED_STREAM: the peer is busy, not going away */
bool h2_call_wants_h1(const struct h2_call *s); /* by HTTP_1_1_REQUIRED; also unprocessed */
unsigned h2_client_streams(const struct h2_client *c);         /* requests on it that have not ended */
uint64_t h2_client_requests(const struct h2_client *c);        /* requests whose response has begun */
uint64_t h2_client_received_bytes(const struct h2_client *c);  /* of bodies, ever */
uint64_t h2_client_idle_since_ms(const struct h2_client *c);
bool h2_client_got_goaway(const struct h2_client *c);
void h2_client_destroy(struct h2_client *c); /* every request has ended or was cancelled */

#endif
