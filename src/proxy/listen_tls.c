/* listen_tls.c - the configuration of a TLS listener in the terms of io/tls.h, which knows no configuration. */
#include "proxy/listen_tls.h"

#include <stdlib.h>

static const char *alpn_of(const struct listen_tls_conf *t, bool http2)
{
    bool first_h2 = t->nalpn == 0 || t->alpn[0] == PROTOCOL_H2;
    bool h2 = http2 && (first_h2 || t->nalpn == 2), http11 = t->nalpn != 1 || !first_h2;
    if (h2 && http11) return first_h2 ? "h2,http/1.1" : "http/1.1,h2";
    return h2 ? "h2" : "http/1.1";
}

enum err listen_tls_create(const struct listen_conf *l, bool http2, struct tls_ctx *previous, struct tls_ctx **out,
                           char *msg, size_t n)
{
    const struct listen_tls_conf *t = l->tls;
    char why[1024] = "out of memory";
    unsigned count = 0;
    struct tls_certificate *all = calloc(t->ncertificates + 1, sizeof *all);
    enum err e = ERR_NOMEM;

    *out = NULL;
    if (t->certificate && all) all[count++] = (struct tls_certificate){t->certificate, t->key};
    for (unsigned i = 0; all && i < t->ncertificates; i++)
        all[count++] = (struct tls_certificate){t->certificates[i].certificate, t->certificates[i].key};
    if (all) {
        struct tls_server_options o = {
            .certificates = all,
            .ncertificates = count,
            .client_ca = t->client_ca,
            .verify = t->verify,
            .tls13_only = t->tls13_only,
            .ciphers = t->ciphers,
            .ciphersuites = t->ciphersuites,
            .alpn = alpn_of(t, http2),
            .ticket_rotation_ms = t->ticket_rotation_ms,
            .previous = previous,
        };
        e = tls_server_ctx_create(&o, out, why, sizeof why);
    }
    if (e != ERR_OK) snprintf(msg, n, "%s: %s", l->text, why);
    free(all);
    return e;
}
