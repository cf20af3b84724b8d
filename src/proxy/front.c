/* front.c - a worker's side to clients: listening sockets, what becomes of an accepted connection (TLS handshake, sniffing
 * for HTTP/2, the server that takes it), and how it all ends.
 *
 * A connection counts against the limit from accept on, in whoever's hands it is: each of them holds and unholds. Those
 * over the limit are taken all the same, up to a slack, to be told so. */
#include "proxy/front.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"

/* Connections over the limit get a proper answer each; further ones beyond this many do not. */
#define REFUSE_SLACK 64u
#define BACKLOG 4096
#define SENDFILE_MIN 65536u
#define SENDFILE_MAX_UNPROVEN (64u << 20)
#define LINGER_MS 5000u
#define LINGER_BYTES (1u << 20)

/* One server of the configuration, as its parts here want it. */
struct face {
    struct h1_server_conf h1[2]; /* [1]: over TLS, counted apart */
    struct h2_server_conf h2[2];
    struct sniff_conf sniff;
    struct tls_acceptor *tls; /* NULL: no listen address of it speaks TLS */
};

/* Far over the limit: not even a request is read. To a client that wants TLS there is nothing to say. */
static void worker_refuse(struct worker *w, int fd, bool tls)
{
    stat_add(&w->stats.shed, 1);
    ssize_t n = tls ? 0 : send(fd, w->refusal, strlen(w->refusal), MSG_NOSIGNAL | MSG_DONTWAIT);
    (void)n; /* as much as goes at once: the connection ends here anyway */
    shutdown(fd, SHUT_WR);
    close(fd);
}

void front_make_refusal(struct worker *w)
{
    struct strbuf b;
    char id[ERROR_ID_BYTES];

    strbuf_init(&b, 1024);
    respond_error_body(ERR_OVERLOAD, &b, id);
    snprintf(w->refusal, sizeof w->refusal,
             "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nRetry-After: 1\r\n"
             "x-amz-request-id: %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%.*s",
             id, b.n, (int)b.n, b.p ? b.p : "");
    strbuf_free(&b);
}

static void connection_begins(void *owner) { atomic_fetch_add(&((struct proxy *)owner)->connections, 1); }
static void connection_ends(void *owner) { atomic_fetch_sub(&((struct proxy *)owner)->connections, 1); }
static void tls_connection_begins(void *owner)
{
    connection_begins(owner);
    atomic_fetch_add(&((struct proxy *)owner)->tls_connections, 1);
}
static void tls_connection_ends(void *owner)
{
    connection_ends(owner);
    atomic_fetch_sub(&((struct proxy *)owner)->tls_connections, 1);
}

/* A client in its TLS handshake is a connection like any other, and one of limits.handshakes. */
static bool handshake_begins(void *owner)
{
    struct proxy *p = owner;
    if (atomic_fetch_add(&p->handshakes, 1) >= p->conf->max_handshakes) {
        atomic_fetch_sub(&p->handshakes, 1);
        return false;
    }
    connection_begins(p);
    return true;
}
static void handshake_ends(void *owner)
{
    connection_ends(owner);
    atomic_fetch_sub(&((struct proxy *)owner)->handshakes, 1);
}

/* ---- accepting */

static void serve_h1(struct listener_ref *ref, struct stream *st, const struct address *peer, const void *bytes, size_t n)
{
    if (h1_server_accept_with(ref->worker->h1, st, peer, &ref->face->h1[ref->tls != NULL], ref, bytes, n) != ERR_OK) stream_destroy(st);
}

static void serve_h2(struct listener_ref *ref, struct stream *st, const struct address *peer, const void *bytes, size_t n)
{
    if (h2_server_accept(ref->worker->h2, st, peer, &ref->face->h2[ref->tls != NULL], ref, bytes, n) != ERR_OK) stream_destroy(st);
}

static void front_sniffed(void *arg, void *tag, struct stream *st, const struct address *peer, enum proto proto,
                          const void *bytes, size_t n)
{
    (void)arg;
    (proto == PROTO_H2 ? serve_h2 : serve_h1)(tag, st, peer, bytes, n);
}

static void front_shaken(void *arg, struct stream *st, const struct address *peer)
{
    bool h2 = strcmp(stream_alpn(st), "h2") == 0;
    (h2 ? serve_h2 : serve_h1)(arg, st, peer, NULL, 0);
}

static void front_not_shaken(void *arg, const struct address *peer, enum err e, const char *why)
{
    char text[64];
    (void)arg;
    (void)e;
    log_info("%s: TLS handshake: %s", address_format((const struct sockaddr *)&peer->ss, text, sizeof text), why);
}

static void front_accepted(void *arg, int fd, const struct address *peer)
{
    struct listener_ref *ref = arg;
    struct worker *w = ref->worker;
    struct stream *st;

    uint64_t open = atomic_load(&w->proxy->connections), most = w->proxy->conf->max_connections;
    stat_add(&w->stats.accepted, 1);
    if (open >= most + REFUSE_SLACK) {
        worker_refuse(w, fd, ref->tls != NULL);
        return;
    }
    if (open >= most) ref = ref->over;
    if (ref->tls) {
        struct tls_ctx *ctx = listen_tls_take(ref->tls);
        tls_acceptor_add(ref->face->tls, fd, peer, ctx, ref);
        tls_ctx_destroy(ctx);
        return;
    }
    if (stream_create(w->loop, fd, NULL, NULL, &st) != ERR_OK) {
        close(fd);
        return;
    }
    if (!ref->server->http2.enabled)
        serve_h1(ref, st, peer, NULL, 0);
    else if (sniffer_add(w->sniffer, st, peer, &ref->face->sniff, ref) != ERR_OK)
        stream_destroy(st);
}

/* ---- building up */

static struct h1_server_conf h1_conf_of(struct proxy *p, const struct server_conf *s)
{
    const struct conf *c = p->conf;
    return (struct h1_server_conf){
        .limits = {.head_bytes = (size_t)c->head_bytes, .target_bytes = (size_t)c->target_bytes,
                   .headers = (unsigned)c->max_headers},
        .idle_timeout_ms = s->idle_ms,
        .head_timeout_ms = s->head_ms,
        .body_timeout_ms = s->body_ms,
        .send_timeout_ms = s->send_ms,
        .linger_ms = LINGER_MS,
        .linger_bytes = LINGER_BYTES,
        .max_body_bytes = c->max_body_bytes,
        .max_requests = c->requests_per_connection,
        .request_memory_bytes = (size_t)c->request_memory_bytes,
        .sendfile_min = SENDFILE_MIN,
        .sendfile_max_unproven = SENDFILE_MAX_UNPROVEN,
        .error_body = respond_error_body,
        .error_content_type = "application/xml",
        .hold = connection_begins,
        .unhold = connection_ends,
        .owner = p,
    };
}

static uint32_t at_most_u32(uint64_t v) { return v > UINT32_MAX ? UINT32_MAX : (uint32_t)v; }

static struct h2_server_conf h2_conf_of(const struct h1_server_conf *h1, const struct http2_conf *c)
{
    struct h2_server_conf o = {.limits = h1->limits, .idle_timeout_ms = h1->idle_timeout_ms,
                               .head_timeout_ms = h1->head_timeout_ms, .body_timeout_ms = h1->body_timeout_ms,
                               .send_timeout_ms = h1->send_timeout_ms, .linger_ms = h1->linger_ms,
                               .linger_bytes = h1->linger_bytes, .max_body_bytes = h1->max_body_bytes,
                               .max_requests = h1->max_requests,
                               .request_memory_bytes = h1->request_memory_bytes, .error_body = h1->error_body,
                               .error_content_type = h1->error_content_type, .hold = h1->hold, .unhold = h1->unhold,
                               .owner = h1->owner};

    h2_server_conf_defaults(&o);
    o.max_streams = at_most_u32(c->max_streams);
    o.max_frame_bytes = at_most_u32(c->max_frame_bytes);
    o.header_table_bytes = at_most_u32(c->header_table_bytes);
    o.stream_window_bytes = at_most_u32(c->stream_window_bytes);
    if (o.stream_window_max_bytes < o.stream_window_bytes) o.stream_window_max_bytes = o.stream_window_bytes;
    o.connection_window_bytes = at_most_u32(c->connection_window_bytes);
    o.max_queued_frames = (size_t)c->max_queued_frames;
    o.send_min_bytes = c->send_min_bytes;
    o.guard.continuations = at_most_u32(c->continuations);
    o.guard.settings_entries = at_most_u32(c->settings_entries);
    o.guard.header_block_bytes = (size_t)c->header_block_bytes;
    for (unsigned i = 0; i < H2_FLOODS; i++)
        o.guard.rates[i] = (struct h2_rate){at_most_u32(c->floods[i].burst), at_most_u32(c->floods[i].per_second)};
    return o;
}

/* SO_REUSEPORT would let a second proxy of the same user share our port unnoticed: ask without it first. */
static bool port_is_free(const struct address *a)
{
    int on = 1, fd = socket(a->ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool ok = setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
              (a->ss.ss_family != AF_INET6 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) == 0) &&
              bind(fd, (const struct sockaddr *)&a->ss, a->len) == 0;
    int why = errno;
    close(fd);
    errno = why;
    return ok;
}

static enum err face_init(struct worker *w, struct face *f, const struct server_conf *s)
{
    bool tls = false;

    f->h1[0] = f->h1[1] = h1_conf_of(w->proxy, s);
    f->h1[1].hold = tls_connection_begins;
    f->h1[1].unhold = tls_connection_ends;
    for (unsigned i = 0; i < 2; i++) f->h2[i] = h2_conf_of(&f->h1[i], &s->http2);
    f->sniff = (struct sniff_conf){.idle_timeout_ms = s->idle_ms, .head_timeout_ms = s->head_ms,
                                   .hold = connection_begins, .unhold = connection_ends, .owner = w->proxy};
    for (unsigned i = 0; i < s->nlistens; i++) tls = tls || s->listens[i].tls;
    if (!tls) return ERR_OK;
    struct tls_acceptor_conf conf = {.handshake_ms = s->handshake_ms, .enter = handshake_begins, .leave = handshake_ends,
                                     .owner = w->proxy, .ready = front_shaken, .failed = front_not_shaken};
    return tls_acceptor_create(w->loop, &conf, &f->tls);
}

/* One socket per listen address and worker (SO_REUSEPORT). */
static enum err listener_init(struct worker *w, unsigned at, unsigned total, const struct server_conf *s, struct face *f,
                              const struct listen_conf *l, char *msg, size_t n)
{
    struct listener_ref *ref = &w->listener_refs[at], *over = &w->listener_refs[total + at];

    if ((w->index == 0 && !port_is_free(&l->address)) || listen_open(&l->address, BACKLOG, &w->listen_fds[at]) != ERR_OK) {
        snprintf(msg, n, "cannot listen on %s: %s", l->text, strerror(errno));
        return ERR_IO;
    }
    *over = (struct listener_ref){.worker = w, .server = s, .face = f, .tls = w->proxy->tls[at], .over_limit = true};
    *ref = (struct listener_ref){.worker = w, .server = s, .face = f, .tls = w->proxy->tls[at], .over = over};
    return ERR_OK;
}

enum err front_create(struct worker *w, char *msg, size_t n)
{
    const struct conf *c = w->proxy->conf;
    unsigned total = conf_listens(c), at = 0;

    snprintf(msg, n, "out of memory or descriptors for worker %u", w->index);
    front_make_refusal(w);
    w->listeners = calloc(total + 1, sizeof *w->listeners);
    w->listen_fds = calloc(total + 1, sizeof *w->listen_fds);
    w->listener_refs = calloc(2 * total + 1, sizeof *w->listener_refs);
    w->faces = calloc(c->nservers + 1, sizeof *w->faces);
    if (!w->listeners || !w->listen_fds || !w->listener_refs || !w->faces ||
        h1_server_create(w->loop, &request_handler, w, &w->h1) != ERR_OK ||
        h2_server_create(w->loop, &request_handler, w, &w->h2) != ERR_OK ||
        sniffer_create(w->loop, front_sniffed, w, &w->sniffer) != ERR_OK)
        return ERR_NOMEM;
    for (unsigned i = 0; i < c->nservers; i++) {
        const struct server_conf *s = &c->servers[i];
        if (face_init(w, &w->faces[i], s) != ERR_OK) return ERR_NOMEM;
        for (unsigned k = 0; k < s->nlistens; k++, at++) {
            enum err e = listener_init(w, at, total, s, &w->faces[i], &s->listens[k], msg, n);
            if (e != ERR_OK) return e;
            w->nlisteners = at + 1;
        }
    }
    return ERR_OK;
}

enum err front_open(struct worker *w)
{
    for (unsigned i = 0; i < w->nlisteners; i++)
        if (listener_start(w->loop, w->listen_fds[i], front_accepted, &w->listener_refs[i], &w->listeners[i]) != ERR_OK)
            return ERR_NOMEM;
    return ERR_OK;
}

/* ---- ending */

static void front_server_drained(void *arg)
{
    struct worker *w = arg;
    if (--w->servers_draining == 0) w->front_drained(w);
}

void front_drain(struct worker *w, void (*done)(void *arg))
{
    for (unsigned i = 0; i < w->nlisteners; i++) {
        if (w->listeners[i]) listener_stop(w->listeners[i]);
        w->listeners[i] = NULL;
    }
    sniffer_close_all(w->sniffer);
    for (unsigned i = 0; i < w->proxy->conf->nservers; i++)
        if (w->faces[i].tls) tls_acceptor_close_all(w->faces[i].tls);
    w->front_drained = done;
    w->servers_draining = 2;
    h1_server_drain(w->h1, front_server_drained, w);
    h2_server_drain(w->h2, front_server_drained, w);
}

void front_kill(struct worker *w)
{
    h1_server_kill(w->h1);
    h2_server_kill(w->h2);
}

void front_destroy(struct worker *w)
{
    for (unsigned i = 0; i < w->nlisteners; i++)
        if (!w->started) close(w->listen_fds[i]);
    if (w->sniffer) sniffer_destroy(w->sniffer);
    for (unsigned i = 0; w->faces && i < w->proxy->conf->nservers; i++)
        if (w->faces[i].tls) tls_acceptor_destroy(w->faces[i].tls);
    if (w->h1) h1_server_destroy(w->h1);
    if (w->h2) h2_server_destroy(w->h2);
    free(w->listeners);
    free(w->listen_fds);
    free(w->listener_refs);
    free(w->faces);
}

uint64_t front_tls_stat(const struct worker *w, size_t offset)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < w->proxy->conf->nservers; i++)
        if (w->faces[i].tls) sum += stat_get((const stat_t *)(const void *)((const char *)tls_acceptor_stats(w->faces[i].tls) + offset));
    return sum;
}

/* ---- the addresses that speak TLS: one context each, shared by all workers */

unsigned conf_listens(const struct conf *c)
{
    unsigned total = 0;
    for (unsigned i = 0; i < c->nservers; i++) total += c->servers[i].nlistens;
    return total;
}

enum err front_tls_create(const struct conf *c, struct listen_tls ***out, char *msg, size_t n)
{
    struct listen_tls **all = calloc(conf_listens(c) + 1, sizeof(void *));
    unsigned at = 0;

    *out = all;
    if (!all) return ERR_NOMEM;
    for (unsigned i = 0; i < c->nservers; i++)
        for (unsigned k = 0; k < c->servers[i].nlistens; k++, at++) {
            const struct listen_conf *l = &c->servers[i].listens[k];
            if (!l->tls) continue;
            enum err e = listen_tls_create(l, c->servers[i].http2.enabled, &all[at], msg, n);
            if (e != ERR_OK) return e;
        }
    return ERR_OK;
}

void front_tls_destroy(struct listen_tls **all, unsigned n)
{
    for (unsigned i = 0; all && i < n; i++) listen_tls_destroy(all[i]);
    free(all);
}

void front_tls_reload(struct listen_tls **all, unsigned n)
{
    char msg[512];
    for (unsigned i = 0; i < n; i++)
        if (all[i] && listen_tls_reload(all[i], msg, sizeof msg) != ERR_OK) log_error("%s; the old one stays in use", msg);
}
