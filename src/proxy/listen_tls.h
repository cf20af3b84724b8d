/* listen_tls.h - from a listener's `tls:` to the context its connections use. */
#ifndef S3P_PROXY_LISTEN_TLS_H
#define S3P_PROXY_LISTEN_TLS_H

#include "conf/conf.h"

/* Loads the files of l->tls. `http2`: of the server, whether h2 is offered at all. `previous`: the context in use for
 * this address before a reload, whose session tickets stay good, or NULL. On failure msg is one line that begins with
 * the address ("127.0.0.1:8443: key k.pem: ..."), and whatever is in use goes on. Blocks: main thread only. */
enum err listen_tls_create(const struct listen_conf *l, bool http2, struct tls_ctx *previous, struct tls_ctx **out,
                           char *msg, size_t n);

#endif
