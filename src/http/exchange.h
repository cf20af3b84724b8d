/* exchange.h - one request and its response on a client connection, whatever protocol carries it.
 *
 * The server (h1_server, h2_server) makes exchanges and calls the handler (proxy/request.c); the handler answers. All on
 * the connection's worker.
 *
 *   server -> handler:  begin(x) once, head complete; end(x, why) once, the last call ever: the handler frees what it
 *                       has; a response body not yet closed has been closed before. why: ERR_OK = the response went out
 *                       whole; else what broke (ERR_CLOSED/ERR_RESET/...: client left).
 *   handler -> server:  exchange_respond once (any time after begin, from any callback of the loop);
 *                       body_notify(x's response body) when more can be pulled; pull from x->req_body;
 *                       exchange_reset instead of, or after, respond: the client sees a broken connection or stream.
 * respond and reset never call end before they return. The server closes req_body itself if the handler did not. */
#ifndef S3P_HTTP_EXCHANGE_H
#define S3P_HTTP_EXCHANGE_H

#include "base/pool.h"
#include "http/msg.h"
#include "io/body.h"
#include "io/listen.h"
#include "io/loop.h"

enum proto { PROTO_H1, PROTO_H2 };
struct exchange;

struct exchange_handler {
    void (*begin)(struct exchange *x);
    void (*end)(struct exchange *x, enum err why);
};
struct exchange_ops {
    void (*respond)(struct exchange *x, const struct head *resp, struct body *body);
    void (*inform)(struct exchange *x); /* 100 Continue, if it was asked for and is still useful */
    void (*reset)(struct exchange *x);
};
struct exchange {
    /* server writes, handler reads */
    const struct exchange_ops *ops;
    struct loop *loop;
    struct pool *pool;     /* request memory, gone after end() */
    struct head req;       /* slices stay valid until end() */
    struct body req_body;  /* ops NULL: no body. length -1: unknown. The first pull sends 100 Continue when expected. */
    const struct address *peer, *local;
    void *listener_data;   /* what the connection was accepted with */
    enum proto proto;
    bool tls;
    bool inner;               /* nobody's: the proxy asks itself (proxy/inner.h) */
    unsigned tls_version;     /* 12, 13; 0: cleartext */
    const char *tls_client;   /* subject of the client's verified certificate, NULL: none; the connection's */
    uint64_t begin_ns;      /* when the first byte of the head came */
    uint64_t first_byte_ns; /* when the first byte of the response was handed to the socket; 0 = not yet */
    uint64_t sent_bytes;    /* response body bytes handed to the socket */
    uint64_t received_bytes; /* request body bytes */
    /* handler writes */
    const struct exchange_handler *handler;
    void *handler_data;
    bool close_after;  /* handler: do not reuse the connection (h1) */
};

/* resp: status, hdrs (end-to-end only), content_length (-1: chunked or until close; >= 0 with body NULL for HEAD or 304:
 * the field is sent, no bytes). Everything in it is copied or written before respond returns. The server adds Date,
 * Connection, Content-Length / Transfer-Encoding. body is caller-owned and must stay until end(). */
static inline void exchange_respond(struct exchange *x, const struct head *resp, struct body *body)
{
    x->ops->respond(x, resp, body);
}
static inline void exchange_reset(struct exchange *x) { x->ops->reset(x); }

/* An error that a server answers itself, as the request reached no handler: appends the body, and sets the id the body
 * names, NUL-terminated, which goes into the head as x-amz-request-id; an id left empty does not. */
enum { ERROR_ID_BYTES = 24 };
typedef void exchange_error_fn(enum err e, struct strbuf *body, char id[ERROR_ID_BYTES]);

#endif
