/* connect.h - one new connection to an origin: resolve, connect, TLS handshake, each with its bound.
 *
 * The addresses are tried in the order dns.c gives; the next one starts when one failed, or when it has not answered
 * within 250 ms (RFC 8305 in small), and the first to connect wins. */
#ifndef S3P_ORIGIN_CONNECT_H
#define S3P_ORIGIN_CONNECT_H

#include "io/stream.h"
#include "io/tls.h"
#include "origin/dns.h"

/* What all connects of one worker to one origin share; owned by the pool. */
struct connect_env {
    struct loop *loop;
    struct mailbox *mailbox;
    struct dns *dns;
    struct tls_ctx *tls;     /* NULL: plain */
    const char *server_name; /* with tls: SNI and verification */
    const char *name;        /* of the origin, for logs */
    uint64_t connect_ms;     /* name and TCP together */
    uint64_t tls_ms;
    bool peer_speaks_first; /* HTTP/2 (with tls: if ALPN chose it): bytes before ours are no bad sign */
    /* Cancelled connectors whose lookup result is still on its way; zombie_gone is told when one is gone. */
    unsigned zombies;
    uint64_t warned_ms; /* failures are logged once per second */
    void (*zombie_gone)(void *arg);
    void *arg;
};

struct connector;
/* Once, never from inside connector_start; the connector is gone. ERR_OK: the stream is the receiver's. Else ERR_DNS,
 * ERR_REFUSED, ERR_UNREACHABLE, ERR_CONNECT_TIMEOUT, ERR_TLS, ERR_CLOSED, ERR_IO, ERR_NOMEM. */
typedef void connect_fn(void *arg, enum err e, struct stream *s);

enum err connector_start(struct connect_env *env, connect_fn *fn, void *arg, struct connector **out); /* ERR_NOMEM */
void connector_cancel(struct connector *c); /* fn will not be called */

#endif
