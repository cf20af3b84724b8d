/* tls_accept.h - connections between accept and the end of their TLS handshake. One acceptor per worker; everything
 * happens on its loop. */
#ifndef S3P_IO_TLS_ACCEPT_H
#define S3P_IO_TLS_ACCEPT_H

#include "base/stat.h"
#include "io/listen.h"
#include "io/stream.h"
#include "io/tls.h"

struct tls_acceptor_stats {
    stat_t pending, accepted, failed, timeouts, refused;     /* refused: too many, or no memory */
    stat_t tls12, tls13, resumed, ktls, client_certificates; /* of the accepted ones */
};
struct tls_acceptor_conf {
    uint64_t handshake_ms; /* from accept to the end of the handshake */
    /* Asked for each connection; false: there are too many, it is refused. Each one let in is given back with `leave`
     * when its handshake is over, either way: after `ready`. Both NULL: no bound. */
    bool (*enter)(void *owner);
    void (*leave)(void *owner);
    void *owner;
    /* The handshake is done, the stream the callee's: stream_alpn tells the protocol. Read at once: what the client
     * sent with its handshake causes no further event. */
    void (*ready)(void *ref, struct stream *s, const struct address *peer);
    /* A client came to nothing, and why (one line, without the peer's name); e is ERR_REQUEST_TIMEOUT when it was slow.
     * May be NULL. */
    void (*failed)(void *ref, const struct address *peer, enum err e, const char *why);
};
struct tls_acceptor;
/* conf is copied. ERR_NOMEM. */
enum err tls_acceptor_create(struct loop *l, const struct tls_acceptor_conf *conf, struct tls_acceptor **out);
struct tls_acceptor_stats *tls_acceptor_stats(struct tls_acceptor *a);
/* Takes over fd (also on failure, when it is closed). The connection keeps ctx. */
void tls_acceptor_add(struct tls_acceptor *a, int fd, const struct address *peer, struct tls_ctx *ctx, void *ref);
/* Ends all handshakes: none of them has asked for anything yet. No callback comes. */
void tls_acceptor_close_all(struct tls_acceptor *a);
void tls_acceptor_destroy(struct tls_acceptor *a); /* closes all */

#endif
