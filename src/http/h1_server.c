/* h1_server.c - HTTP/1.x client connections: reading heads, running exchanges one after the other, writing responses,
 * time limits, closing (RFC 9112 section 9). See h1_conn.h for the states and the rule that all work happens in
 * conn_run.
 *
 * Reading. Watches are edge-triggered: `readable` remembers that there may be more. When a whole head came with a read
 * that left room in the buffer, the socket was drained by it and no further read is tried before the next edge, which
 * saves one system call per request. READY_CLOSED voids that, as the end of the stream makes no second edge; TLS too,
 * as it buffers. While an exchange runs nothing is read unless the handler pulls the request body.
 *
 * Leaving. A response that broke ends in a reset, never in a clean end. A connection that we close while the client may
 * still be sending is shut down for writing and read for a while, else the reset that the kernel answers to late bytes
 * could destroy the response on its way (RFC 9112 section 9.6).
 *
 * sendfile hands the kernel references to pages (ARCHITECTURE.md, "sendfile"), so its chunks stay held until the client
 * has proved that it read them: by a request whose first byte came after the socket had accepted the last byte of the
 * complete response, and that finds all of it acknowledged. A client that pipelines proves nothing and is not served by
 * sendfile again. */
#include "http/h1_server.h"

#include <linux/sockios.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "base/log.h"
#include "http/h1_conn.h"

enum {
    IN_SLACK_BYTES = 4096,       /* in the read buffer beyond a largest head: pipelined requests */
    REQUEST_POOL_BYTES = 4 << 20, /* bound of one request's memory where the configuration sets none */
    ROUND_BYTES = 4 << 20,       /* a connection writes at most this much before the others get their turn */
    ROUND_REQUESTS = 64,
    FREE_WORKS = 64
};

/* What a state's step says to conn_run. */
enum step {
    STEP_NEXT, /* go on */
    STEP_WAIT, /* for an event */
    STEP_YIELD, /* could go on, but others wait */
    STEP_GONE  /* the connection was freed */
};

/* ---- request memory */

static void work_free(struct h1_work *w)
{
    if (w->pool) pool_destroy(w->pool);
    h1_out_free(&w->out);
    free(w->hdrs);
    free(w->in);
    free(w);
}

static struct h1_work *work_create(size_t cap, unsigned headers, size_t memory)
{
    struct h1_work *w = calloc(1, sizeof(*w));
    if (!w) return NULL;
    h1_out_init(&w->out);
    w->cap = cap;
    w->max_hdrs = headers;
    w->in = malloc(cap);
    w->hdrs = calloc(headers ? headers : 1, sizeof(*w->hdrs));
    w->pool = pool_create(memory ? memory : REQUEST_POOL_BYTES);
    if (w->in && w->hdrs && w->pool) return w;
    work_free(w);
    return NULL;
}

/* The most recently used one first: its memory is still in the CPU's cache. */
static bool work_get(struct h1_conn *c)
{
    struct h1_server *s = c->server;
    size_t cap = c->conf->limits.head_bytes + IN_SLACK_BYTES;
    unsigned headers = c->conf->limits.headers;
    if (c->work) return true;
    if (s->free_work && s->free_work->cap >= cap && s->free_work->max_hdrs >= headers) {
        c->work = s->free_work;
        s->free_work = c->work->next;
        s->free_works--;
    } else {
        c->work = work_create(cap, headers, c->conf->request_memory_bytes);
    }
    return c->work != NULL;
}

static void work_put(struct h1_conn *c)
{
    struct h1_server *s = c->server;
    struct h1_work *w = c->work;
    if (!w) return;
    c->work = NULL;
    c->in_start = c->in_end = c->scanned = 0;
    h1_out_reset(&w->out);
    pool_reset(w->pool);
    if (s->free_works >= FREE_WORKS) {
        work_free(w);
        return;
    }
    w->next = s->free_work;
    s->free_work = w;
    s->free_works++;
}

/* ---- the end of exchanges and connections */

static void exchange_end(struct h1_conn *c, enum err why)
{
    if (why != ERR_OK) h1_out_reset(&c->work->out);
    if (c->resp_body && c->resp_body->ops) body_close(c->resp_body);
    c->resp_body = NULL;
    if (c->x.req_body.ops) body_close(&c->x.req_body);
    stat_sub(&c->server->stats.in_flight, 1);
    c->state = H1_CONN_HEAD;
    c->x.handler->end(&c->x, why);
    h1_request_body_end(c);
}

static void conn_destroy(struct h1_conn *c)
{
    struct h1_server *s = c->server;
    const struct h1_server_conf *conf = c->conf;
    timer_stop(&c->timer);
    timer_stop(&c->send_timer);
    task_cancel(&c->task);
    work_put(c);
    h1_held_release(&c->held, CHUNK_UNPROVEN);
    h1_held_free(&c->held);
    stream_destroy(c->stream);
    list_remove(&c->link);
    stat_sub(&s->stats.open, 1);
    c->magic = 0;
    free(c);
    if (conf->unhold) conf->unhold(conf->owner);
    if (s->drained && list_empty(&s->conns)) task_schedule(&s->drained_task);
}

/* The client must not take what it got for the whole. */
static enum step conn_abort(struct h1_conn *c, enum err why)
{
    stream_reset_on_close(c->stream);
    if (c->state == H1_CONN_EXCHANGE) exchange_end(c, why);
    conn_destroy(c);
    return STEP_GONE;
}

/* Everything has been given to the socket. may_send: the client is perhaps still sending. */
static enum step conn_close(struct h1_conn *c, bool may_send)
{
    if (!may_send || c->peer_eof || !c->conf->linger_ms) {
        conn_destroy(c);
        return STEP_GONE;
    }
    stream_shutdown_write(c->stream);
    timer_stop(&c->send_timer);
    work_put(c);
    c->state = H1_CONN_LINGER;
    c->readable = true;
    h1_conn_timer(c, H1_TIMER_LINGER, c->conf->linger_ms);
    return STEP_NEXT;
}

/* A request that does not reach the handler. */
static enum step conn_refuse(struct h1_conn *c, enum err e)
{
    bool with_body = c->x.req.method != METHOD_HEAD;
    stat_add(e == ERR_REQUEST_TIMEOUT ? &c->server->stats.timeouts : &c->server->stats.bad_requests, 1);
    h1_conn_timer(c, H1_TIMER_NONE, 0);
    c->state = H1_CONN_REFUSE;
    if (!h1_respond_error(c, e, with_body)) return conn_abort(c, ERR_NOMEM);
    return STEP_NEXT;
}

/* ---- writing */

/* Whether a byte of the next request is here before the response's last bytes go out. Asked only before the write that may
 * finish it: a quick client answers the last byte before we are back from that write. Asking the kernel is worth it only
 * where the answer matters. */
static void note_early_request(struct h1_conn *c)
{
    const struct h1_out *out = &c->work->out;
    int queued = 0;
    bool early = c->in_start < c->in_end;
    if (!c->responded || !h1_out_last_flush(out)) return;
    if (!early && (c->held.n || out->by_file || c->readable))
        early = ioctl(stream_fd(c->stream), FIONREAD, &queued) != 0 || queued > 0;
    c->next_pipelined = early;
    c->ever_pipelined |= early;
}

/* STEP_NEXT: all that was queued is with the socket. */
static enum step conn_flush(struct h1_conn *c)
{
    struct h1_out *out = &c->work->out;
    while (h1_out_pending(out)) {
        if (!c->writable) return STEP_WAIT;
        if (c->budget == 0) return STEP_YIELD;
        note_early_request(c);
        enum err e = h1_out_flush(out, c->stream);
        if (e == ERR_AGAIN) {
            c->writable = false;
            if (!c->send_timer.due_ms) timer_set(&c->send_timer, c->conf->send_timeout_ms);
            return STEP_WAIT;
        }
        if (e != ERR_OK) {
            c->fail = e;
            return STEP_NEXT;
        }
        if (c->send_timer.due_ms) timer_stop(&c->send_timer);
        c->budget -= out->put < c->budget ? out->put : c->budget;
        stat_add(&c->server->stats.bytes_sent, out->put);
        if (out->put_file) stat_add(&c->server->stats.sendfile_bytes, out->put_file);
        if (c->responded) {
            c->x.sent_bytes += out->put_body;
            if (!c->x.first_byte_ns) c->x.first_byte_ns = clock_ns();
        }
    }
    return STEP_NEXT;
}

/* ---- heads */

/* The proof for sendfile, asked when the next request is here. A request that was sent before the response was read is
 * caught when it came early, or while the response is still on its way. */
static bool response_was_read(struct h1_conn *c)
{
    int unread = 0;
    if (!c->next_pipelined && ioctl(stream_fd(c->stream), SIOCOUTQ, &unread) == 0 && unread == 0) return true;
    c->ever_pipelined = true;
    return false;
}

static enum step exchange_finish(struct h1_conn *c)
{
    bool whole = h1_request_body_at_hand(c), asked_close = !c->x.req.keep_alive;
    exchange_end(c, ERR_OK);
    if (c->fail) return STEP_NEXT;
    c->responded = false;
    bool more_input = c->in_start < c->in_end;
    if (!c->keep_alive || c->server->draining) return conn_close(c, !whole || !asked_close || more_input);
    c->next_pipelined |= more_input;
    c->ever_pipelined |= c->next_pipelined;
    if (!more_input) {
        work_put(c);
    } else {
        h1_out_reset(&c->work->out);
        pool_reset(c->work->pool);
        c->head_begin_ns = clock_ns();
    }
    return STEP_NEXT;
}

/* Begins the exchange whose head takes `used` bytes of the input. */
static enum step exchange_begin(struct h1_conn *c, size_t used)
{
    struct exchange *x = &c->x;
    struct h1_server *s = c->server;
    h1_conn_timer(c, H1_TIMER_NONE, 0);
    c->in_start += used;
    c->scanned = 0;
    if (c->held.n && response_was_read(c)) h1_held_release(&c->held, CHUNK_COPIED);
    enum err e = h1_request_body_begin(c);
    if (e != ERR_OK) return conn_refuse(c, e);
    c->requests++;
    c->responded = false;
    c->keep_alive = false;
    stat_add(&s->stats.requests, 1);
    stat_add(&s->stats.in_flight, 1);
    x->ops = &h1_exchange_ops;
    x->loop = s->loop;
    x->pool = c->work->pool;
    x->peer = &c->peer;
    x->local = &c->local;
    x->listener_data = c->listener_data;
    x->proto = PROTO_H1;
    x->tls = c->tls;
    x->tls_version = stream_tls_version(c->stream);
    x->tls_client = stream_peer(c->stream);
    x->begin_ns = c->head_begin_ns;
    x->handler = s->handler;
    c->state = H1_CONN_EXCHANGE;
    x->handler->begin(x);
    return STEP_NEXT;
}

/* Reads into the rest of the head buffer; *drained: the socket had no more. */
static enum err head_read(struct h1_conn *c, bool *drained)
{
    if (!work_get(c)) return ERR_NOMEM;
    if (c->in_start) {
        memmove(c->work->in, c->work->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    size_t got = 0, room = c->work->cap - c->in_end;
    if (!room) return ERR_HEAD_TOO_LARGE;
    enum err e = stream_read(c->stream, c->work->in + c->in_end, room, &got);
    if (e == ERR_AGAIN) c->readable = false;
    if (e == ERR_END) c->peer_eof = true;
    if (e != ERR_OK) return e;
    if (c->in_end == 0) c->head_begin_ns = clock_ns();
    c->in_end += got;
    *drained = got < room && !c->tls && !c->closed_seen;
    stat_add(&c->server->stats.bytes_received, got);
    return ERR_OK;
}

/* No whole head, and nothing to read now. */
static enum step head_wait(struct h1_conn *c)
{
    if (c->in_start < c->in_end) {
        if (c->timer_kind != H1_TIMER_HEAD) h1_conn_timer(c, H1_TIMER_HEAD, c->conf->head_timeout_ms);
        return STEP_WAIT;
    }
    if (c->server->draining) return conn_close(c, false);
    work_put(c);
    if (c->timer_kind != H1_TIMER_IDLE) h1_conn_timer(c, H1_TIMER_IDLE, c->conf->idle_timeout_ms);
    return STEP_WAIT;
}

static enum step head_step(struct h1_conn *c)
{
    bool drained = false;
    for (;;) {
        if (c->in_start < c->in_end) {
            size_t used = 0;
            memset(&c->x, 0, sizeof(c->x));
            enum err e = h1_parse_request(c->work->in + c->in_start, c->in_end - c->in_start, &c->scanned,
                                          &c->conf->limits, c->work->hdrs, &c->x.req, &used);
            if (e == ERR_OK) {
                /* With a body to come it is not worth missing a reset that came together with the bytes. */
                if (drained && !c->x.req.chunked && c->x.req.content_length <= 0) c->readable = false;
                return exchange_begin(c, used);
            }
            if (e != ERR_AGAIN) return conn_refuse(c, e);
        }
        if (!c->readable) return head_wait(c);
        enum err e = head_read(c, &drained);
        if (e == ERR_HEAD_TOO_LARGE) return conn_refuse(c, e);
        if (e == ERR_END) return conn_close(c, false);
        if (e != ERR_OK && e != ERR_AGAIN) return conn_abort(c, e);
    }
}

/* ---- the other states */

/* Pulls the next batch. *more: there may be another one at once. */
static void pull_response(struct h1_conn *c, bool *more)
{
    struct h1_out *out = &c->work->out;
    if (!c->writable || out->complete || out->blocked || h1_out_has_chunks(out) || out->tail_n) return;
    enum err e = h1_out_fill(out, c->resp_body);
    if (e == ERR_OK) return;
    *more = false;
    if (e == ERR_AGAIN) {
        /* Notified from inside the pull: look again, but let the others have their turn first. */
        if (!out->blocked) task_schedule(&c->task);
        return;
    }
    if (e == ERR_INTERNAL) log_error("a response body gave more than it was asked for: connection reset");
    else log_info("response cut off, connection reset: %s", err_text(e));
    c->fail = e;
}

static enum step exchange_step(struct h1_conn *c)
{
    struct h1_out *out = &c->work->out;
    if (c->body.hint) {
        c->body.hint = false;
        if (c->x.req_body.ops) body_notify(&c->x.req_body);
    }
    for (;;) {
        bool more = c->responded;
        if (c->fail) return STEP_NEXT;
        if (c->responded) pull_response(c, &more);
        if (c->fail) return STEP_NEXT;
        enum step step = conn_flush(c);
        if (step != STEP_NEXT) return step;
        if (c->fail) return STEP_NEXT;
        if (c->responded && out->complete) return exchange_finish(c);
        if (!more || out->blocked || !c->writable) return STEP_WAIT;
        if (c->budget == 0) return STEP_YIELD;
    }
}

static enum step refuse_step(struct h1_conn *c)
{
    enum step step = conn_flush(c);
    if (step != STEP_NEXT || c->fail) return step;
    return conn_close(c, true);
}

static enum step linger_step(struct h1_conn *c)
{
    struct h1_server *s = c->server;
    while (c->readable && c->lingered <= c->conf->linger_bytes) {
        size_t got = 0;
        enum err e = stream_read(c->stream, s->scratch, H1_SCRATCH_BYTES, &got);
        if (e == ERR_AGAIN) c->readable = false;
        else if (e != ERR_OK) break;
        c->lingered += got;
        stat_add(&s->stats.bytes_received, got);
    }
    if (!c->readable) return STEP_WAIT;
    conn_destroy(c);
    return STEP_GONE;
}

static enum step conn_step(struct h1_conn *c)
{
    if (c->fail) return conn_abort(c, c->fail);
    switch (c->state) {
    case H1_CONN_HEAD: return head_step(c);
    case H1_CONN_EXCHANGE: return exchange_step(c);
    case H1_CONN_REFUSE: return refuse_step(c);
    case H1_CONN_LINGER: return linger_step(c);
    }
    return STEP_WAIT;
}

static void conn_run(struct h1_conn *c)
{
    uint64_t requests = c->requests;
    CHECK_OBJ(c, H1_CONN_MAGIC);
    CHECK(!c->running);
    c->running = true;
    c->budget = ROUND_BYTES;
    for (;;) {
        c->kicked = false;
        enum step step = conn_step(c);
        if (step == STEP_GONE) return;
        if (step == STEP_WAIT && !c->kicked && !c->fail) break;
        if (step == STEP_YIELD || c->requests - requests >= ROUND_REQUESTS) {
            task_schedule(&c->task);
            break;
        }
    }
    c->running = false;
}

/* ---- events */

/* RST or both directions closed, as opposed to a client that has only ended its sending side. */
static bool peer_is_gone(const struct h1_conn *c)
{
    struct pollfd p = {.fd = stream_fd(c->stream), .events = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

static void conn_on_ready(struct stream *st, unsigned ready, void *arg)
{
    struct h1_conn *c = arg;
    (void)st;
    CHECK_OBJ(c, H1_CONN_MAGIC);
    if (ready & READY_WRITE) c->writable = true;
    if (ready & READY_CLOSED) c->closed_seen = true;
    if (ready & (READY_READ | READY_CLOSED)) {
        c->readable = true;
        if (c->body.waiting) {
            c->body.waiting = false;
            c->body.hint = true;
            h1_conn_timer(c, H1_TIMER_NONE, 0);
        } else if (c->state == H1_CONN_EXCHANGE && peer_is_gone(c)) {
            c->fail = ERR_RESET;
        }
    }
    conn_run(c);
}

static void conn_on_task(struct task *t)
{
    conn_run(container_of(t, struct h1_conn, task));
}

static void conn_on_timer(struct timer *t)
{
    struct h1_conn *c = container_of(t, struct h1_conn, timer);
    enum h1_timer_kind kind = c->timer_kind;
    c->timer_kind = H1_TIMER_NONE;
    switch (kind) {
    case H1_TIMER_NONE: return;
    case H1_TIMER_IDLE:
    case H1_TIMER_LINGER: conn_destroy(c); return;
    case H1_TIMER_HEAD:
        memset(&c->x, 0, sizeof(c->x));
        if (conn_refuse(c, ERR_REQUEST_TIMEOUT) == STEP_GONE) return;
        break;
    case H1_TIMER_BODY:
        stat_add(&c->server->stats.timeouts, 1);
        c->body.error = ERR_REQUEST_TIMEOUT;
        c->body.waiting = false;
        c->body.hint = true;
        break;
    }
    conn_run(c);
}

static void conn_on_send_timer(struct timer *t)
{
    struct h1_conn *c = container_of(t, struct h1_conn, send_timer);
    stat_add(&c->server->stats.timeouts, 1);
    conn_abort(c, ERR_REQUEST_TIMEOUT);
}

/* ---- the server */

static void server_on_drained(struct task *t)
{
    struct h1_server *s = container_of(t, struct h1_server, drained_task);
    void (*fn)(void *arg) = s->drained;
    s->drained = NULL;
    if (fn) fn(s->drained_arg);
}

enum err h1_server_create(struct loop *l, const struct exchange_handler *handler, void *handler_arg,
                          struct h1_server **out)
{
    struct h1_server *s = calloc(1, sizeof(*s));
    if (!s) return ERR_NOMEM;
    s->scratch = malloc(H1_SCRATCH_BYTES);
    if (!s->scratch) {
        free(s);
        return ERR_NOMEM;
    }
    s->loop = l;
    s->handler = handler;
    s->handler_arg = handler_arg;
    list_init(&s->conns);
    task_init(&s->drained_task, l, server_on_drained);
    *out = s;
    return ERR_OK;
}

struct h1_server_stats *h1_server_stats(struct h1_server *s)
{
    return &s->stats;
}

void *h1_server_arg(struct h1_server *s)
{
    return s->handler_arg;
}

enum err h1_server_accept(struct h1_server *s, struct stream *st, const struct address *peer,
                          const struct h1_server_conf *conf, void *listener_data)
{
    return h1_server_accept_with(s, st, peer, conf, listener_data, NULL, 0);
}

/* As if they had been read just now. */
static bool conn_preload(struct h1_conn *c, const void *bytes, size_t n)
{
    if (!n) return true;
    if (!work_get(c)) return false;
    CHECK(n <= c->work->cap);
    memcpy(c->work->in, bytes, n);
    c->in_end = n;
    c->head_begin_ns = clock_ns();
    stat_add(&c->server->stats.bytes_received, n);
    return true;
}

enum err h1_server_accept_with(struct h1_server *s, struct stream *st, const struct address *peer,
                               const struct h1_server_conf *conf, void *listener_data, const void *bytes, size_t n)
{
    struct h1_conn *c = calloc(1, sizeof(*c));
    if (!c) return ERR_NOMEM;
    c->magic = H1_CONN_MAGIC;
    c->server = s;
    c->stream = st;
    c->conf = conf;
    if (!conn_preload(c, bytes, n)) {
        free(c);
        return ERR_NOMEM;
    }
    c->listener_data = listener_data;
    c->peer = *peer;
    c->local.len = sizeof(c->local.ss);
    if (getsockname(stream_fd(st), (struct sockaddr *)&c->local.ss, &c->local.len) != 0) c->local.len = 0;
    c->tls = stream_is_tls(st);
    c->readable = c->writable = true;
    task_init(&c->task, s->loop, conn_on_task);
    timer_init(&c->timer, s->loop, conn_on_timer);
    timer_init(&c->send_timer, s->loop, conn_on_send_timer);
    list_push_back(&s->conns, &c->link);
    if (conf->hold) conf->hold(conf->owner);
    stat_add(&s->stats.accepted, 1);
    stat_add(&s->stats.open, 1);
    stream_set_callback(st, conn_on_ready, c);
    task_schedule(&c->task);
    return ERR_OK;
}

void *h1_exchange_listener_data(const struct exchange *x)
{
    return x->listener_data;
}

void *h1_exchange_server_arg(const struct exchange *x)
{
    return h1_conn_of(x)->server->handler_arg;
}

void h1_server_drain(struct h1_server *s, void (*drained)(void *arg), void *arg)
{
    s->draining = true;
    s->drained = drained;
    s->drained_arg = arg;
    LIST_EACH_SAFE(n, tmp, &s->conns) {
        struct h1_conn *c = container_of(n, struct h1_conn, link);
        if (!c->running && c->state == H1_CONN_HEAD && c->in_start == c->in_end) conn_destroy(c);
    }
    if (!list_empty(&s->conns) || !s->drained) return;
    task_cancel(&s->drained_task);
    s->drained = NULL;
    if (drained) drained(arg);
}

void h1_server_kill(struct h1_server *s)
{
    LIST_EACH_SAFE(n, tmp, &s->conns) {
        struct h1_conn *c = container_of(n, struct h1_conn, link);
        if (c->running) h1_conn_fail(c, ERR_CANCELLED);
        else conn_abort(c, ERR_CANCELLED);
    }
}

void h1_server_destroy(struct h1_server *s)
{
    CHECK(list_empty(&s->conns));
    task_cancel(&s->drained_task);
    while (s->free_work) {
        struct h1_work *w = s->free_work;
        s->free_work = w->next;
        work_free(w);
    }
    h1_request_bodies_free(s);
    free(s->scratch);
    free(s);
}
