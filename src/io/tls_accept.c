/* tls_accept.c - one TLS handshake after another, and a bound for how long and how many.
 *
 *   handshake | added            | until it is done (handed on), fails, or its time is over
 *   lingering | it failed        | what the client still sends is dropped until it has closed, so that our alert, which
 *             |                  | says why, is not thrown away with a reset */
#include "io/tls_accept.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define TLS_ACCEPTOR_MAGIC 0x746c7361u
#define LINGER_MS 1000
#define LINGER_BYTES ((size_t)262144)

struct tls_acceptor {
    uint32_t magic;
    struct loop *loop;
    struct tls_acceptor_conf conf;
    struct list all;
    struct tls_acceptor_stats stats;
};

struct greeting {
    struct list link;
    struct tls_acceptor *acceptor;
    struct stream *stream;
    struct timer timer;
    struct task first; /* the client's first bytes may be there already */
    struct address peer;
    void *ref;
    bool lingering;
    size_t dropped;
};

/* The stream is somebody else's by then, or destroyed. */
static void greeting_free(struct greeting *g)
{
    list_remove(&g->link);
    timer_stop(&g->timer);
    task_cancel(&g->first);
    stat_sub(&g->acceptor->stats.pending, 1);
    free(g);
}

static void leave(struct tls_acceptor *a)
{
    if (a->conf.leave) a->conf.leave(a->conf.owner);
}

static void greeting_end(struct greeting *g)
{
    struct tls_acceptor *a = g->acceptor;
    stream_destroy(g->stream);
    greeting_free(g);
    leave(a);
}

static void linger(struct greeting *g)
{
    char drop[4096];
    ssize_t got;
    do {
        got = recv(stream_fd(g->stream), drop, sizeof drop, MSG_DONTWAIT);
        if (got > 0) g->dropped += (size_t)got;
    } while (got > 0 && g->dropped < LINGER_BYTES);
    if (got >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) greeting_end(g);
}

static void fail(struct greeting *g, enum err e, const char *why)
{
    struct tls_acceptor *a = g->acceptor;
    stat_add(e == ERR_REQUEST_TIMEOUT ? &a->stats.timeouts : &a->stats.failed, 1);
    if (a->conf.failed) a->conf.failed(g->ref, &g->peer, e, why);
    g->lingering = true;
    shutdown(stream_fd(g->stream), SHUT_WR);
    timer_set(&g->timer, LINGER_MS);
    linger(g);
}

static void count(struct tls_acceptor *a, const struct stream *s)
{
    char subject[8];
    stat_add(&a->stats.accepted, 1);
    stat_add(stream_tls_version(s) == 13 ? &a->stats.tls13 : &a->stats.tls12, 1);
    if (stream_tls_resumed(s)) stat_add(&a->stats.resumed, 1);
    if (stream_ktls(s)) stat_add(&a->stats.ktls, 1);
    if (stream_peer_subject(s, subject, sizeof subject)[0]) stat_add(&a->stats.client_certificates, 1);
}

static void step(struct greeting *g)
{
    struct tls_acceptor *a = g->acceptor;
    enum err e = stream_handshake(g->stream);
    if (e == ERR_AGAIN) return;
    if (e != ERR_OK) {
        fail(g, e, stream_error(g->stream));
        return;
    }
    struct stream *s = g->stream;
    struct address peer = g->peer;
    void *ref = g->ref;
    count(a, s);
    greeting_free(g);
    a->conf.ready(ref, s, &peer);
    leave(a);
}

static void on_stream(struct stream *s, unsigned ready, void *arg)
{
    struct greeting *g = arg;
    (void)s, (void)ready;
    if (g->lingering)
        linger(g);
    else
        step(g);
}

static void on_first(struct task *t) { step(container_of(t, struct greeting, first)); }

static void on_timer(struct timer *t)
{
    struct greeting *g = container_of(t, struct greeting, timer);
    if (g->lingering)
        greeting_end(g);
    else
        fail(g, ERR_REQUEST_TIMEOUT, "the TLS handshake took too long");
}

enum err tls_acceptor_create(struct loop *l, const struct tls_acceptor_conf *conf, struct tls_acceptor **out)
{
    struct tls_acceptor *a = *out = calloc(1, sizeof *a);
    if (!a) return ERR_NOMEM;
    a->magic = TLS_ACCEPTOR_MAGIC;
    a->loop = l;
    a->conf = *conf;
    list_init(&a->all);
    return ERR_OK;
}

struct tls_acceptor_stats *tls_acceptor_stats(struct tls_acceptor *a) { return &a->stats; }

/* Without memory fd is closed. */
static struct greeting *greeting_new(struct tls_acceptor *a, int fd, struct tls_ctx *ctx)
{
    struct greeting *g = calloc(1, sizeof *g);
    if (!g || stream_create(a->loop, fd, on_stream, g, &g->stream) != ERR_OK) {
        free(g);
        close(fd);
        return NULL;
    }
    if (stream_tls_server(g->stream, ctx) == ERR_OK) return g;
    stream_destroy(g->stream);
    free(g);
    return NULL;
}

void tls_acceptor_add(struct tls_acceptor *a, int fd, const struct address *peer, struct tls_ctx *ctx, void *ref)
{
    CHECK_OBJ(a, TLS_ACCEPTOR_MAGIC);
    if (a->conf.enter && !a->conf.enter(a->conf.owner)) {
        stat_add(&a->stats.refused, 1);
        close(fd);
        return;
    }
    struct greeting *g = greeting_new(a, fd, ctx);
    if (!g) {
        stat_add(&a->stats.refused, 1);
        leave(a);
        return;
    }
    g->acceptor = a;
    g->peer = *peer;
    g->ref = ref;
    timer_init(&g->timer, a->loop, on_timer);
    timer_set(&g->timer, a->conf.handshake_ms);
    task_init(&g->first, a->loop, on_first);
    task_schedule(&g->first);
    list_push_back(&a->all, &g->link);
    stat_add(&a->stats.pending, 1);
}

void tls_acceptor_close_all(struct tls_acceptor *a)
{
    LIST_EACH_SAFE(n, next, &a->all) greeting_end(container_of(n, struct greeting, link));
}

void tls_acceptor_destroy(struct tls_acceptor *a)
{
    if (!a) return;
    CHECK_OBJ(a, TLS_ACCEPTOR_MAGIC);
    tls_acceptor_close_all(a);
    a->magic = 0;
    free(a);
}
