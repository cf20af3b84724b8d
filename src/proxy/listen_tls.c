/* listen_tls.c - the configuration of a TLS listener in the terms of io/tls.h, which knows no configuration; and the one
 * place where a context is swapped under a lock, so that no connection sees half a reload. */
#include "proxy/listen_tls.h"

#include <pthread.h>
#include <stdlib.h>

struct listen_tls {
    const struct listen_conf *conf;
    bool http2;
    pthread_mutex_t lock;
    struct tls_ctx *ctx; /* under lock */
};

/* What speaks HTTP/1.1 takes HTTP/1.0 as well, also from a client that offers nothing else. */
static const char *alpn_of(const struct listen_tls_conf *t, bool http2)
{
    bool first_h2 = t->nalpn == 0 || t->alpn[0] == PROTOCOL_H2;
    bool h2 = http2 && (first_h2 || t->nalpn == 2), http11 = t->nalpn != 1 || !first_h2;
    if (h2 && http11) return first_h2 ? "h2,http/1.1,http/1.0" : "http/1.1,h2,http/1.0";
    return h2 ? "h2" : "http/1.1,http/1.0";
}

static enum err load(const struct listen_tls *t, struct tls_ctx *previous, struct tls_ctx **out, char *msg, size_t n)
{
    const struct listen_tls_conf *c = t->conf->tls;
    char why[1024] = "out of memory";
    unsigned count = 0;
    struct tls_certificate *all = calloc(c->ncertificates + 1, sizeof *all);
    enum err e = ERR_NOMEM;

    *out = NULL;
    if (c->certificate && all) all[count++] = (struct tls_certificate){c->certificate, c->key};
    for (unsigned i = 0; all && i < c->ncertificates; i++)
        all[count++] = (struct tls_certificate){c->certificates[i].certificate, c->certificates[i].key};
    if (all) {
        struct tls_server_options o = {
            .certificates = all,
            .ncertificates = count,
            .client_ca = c->client_ca,
            .verify = c->verify,
            .tls13_only = c->tls13_only,
            .ciphers = c->ciphers,
            .ciphersuites = c->ciphersuites,
            .alpn = alpn_of(c, t->http2),
            .ticket_rotation_ms = c->ticket_rotation_ms,
            .previous = previous,
        };
        e = tls_server_ctx_create(&o, out, why, sizeof why);
    }
    if (e != ERR_OK) snprintf(msg, n, "%s: %s", t->conf->text, why);
    free(all);
    return e;
}

enum err listen_tls_create(const struct listen_conf *l, bool http2, struct listen_tls **out, char *msg, size_t n)
{
    struct listen_tls *t = *out = calloc(1, sizeof *t);
    if (!t) {
        snprintf(msg, n, "%s: out of memory", l->text);
        return ERR_NOMEM;
    }
    t->conf = l;
    t->http2 = http2;
    pthread_mutex_init(&t->lock, NULL);
    enum err e = load(t, NULL, &t->ctx, msg, n);
    if (e == ERR_OK) return ERR_OK;
    listen_tls_destroy(t);
    *out = NULL;
    return e;
}

enum err listen_tls_reload(struct listen_tls *t, char *msg, size_t n)
{
    struct tls_ctx *fresh, *old = listen_tls_take(t);
    enum err e = load(t, old, &fresh, msg, n);
    if (e == ERR_OK) {
        pthread_mutex_lock(&t->lock);
        tls_ctx_destroy(t->ctx); /* `old` still holds it: nothing is freed under the lock */
        t->ctx = fresh;
        pthread_mutex_unlock(&t->lock);
    }
    tls_ctx_destroy(old);
    return e;
}

struct tls_ctx *listen_tls_take(struct listen_tls *t)
{
    pthread_mutex_lock(&t->lock);
    struct tls_ctx *c = tls_ctx_ref(t->ctx);
    pthread_mutex_unlock(&t->lock);
    return c;
}

void listen_tls_destroy(struct listen_tls *t)
{
    if (!t) return;
    tls_ctx_destroy(t->ctx);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
