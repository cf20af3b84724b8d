/* listen_tls.h - a listen address that speaks TLS: from its `tls:` to the context new connections use, which a reload
 * replaces. One per address, shared by all workers. */
#ifndef S3P_PROXY_LISTEN_TLS_H
#define S3P_PROXY_LISTEN_TLS_H

#include "conf/conf.h"

struct listen_tls;
/* Loads the files. `l` must stay as long as this does. `http2`: of the server, whether h2 is offered at all. On failure
 * *out is NULL and msg one line that begins with the address ("127.0.0.1:8443: key k.pem: ..."). Blocks: not on a
 * worker. */
enum err listen_tls_create(const struct listen_conf *l, bool http2, struct listen_tls **out, char *msg, size_t n);
/* Reads the files again: new connections get what is in them now, the others keep what they have; session tickets stay
 * good. On failure (msg as above) all stays as it was. Blocks; one thread at a time. */
enum err listen_tls_reload(struct listen_tls *t, char *msg, size_t n);
/* The context for a new connection: a reference, given back with tls_ctx_destroy. Any thread. */
struct tls_ctx *listen_tls_take(struct listen_tls *t);
void listen_tls_destroy(struct listen_tls *t); /* NULL is fine */

#endif
