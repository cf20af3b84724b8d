/* h2_server.c - HTTP/2 client connections: reading and writing, time limits, the end of connections. See h2_conn.h
 * for the rule that all work happens in conn_run.
 *
 * A round: read and hand to the guard and the session (which calls the handler), tell waiting request bodies, resume
 * responses that were notified, then gather what the session has to send into the out queue and write it, until the
 * socket is full or there is nothing more; last, end the exchanges whose bytes are all written.
 *
 * A client that does not read is not read either once too many frames of ours wait for it, so that what it provokes
 * cannot pile up. Everything else it can make us hold is bounded by max_streams, the windows, and the out queue.
 *
 * Leaving. An error ends in a GOAWAY that says so; then, as with any connection that we close while the client may
 * still be sending, our side is shut down and the client read for a while, else a reset could destroy our last words.
 * A client that ends its side has left: it could not even open a window any more. */
#include "http/h2_server.h"

#include "config.h"

#include <poll.h>
#include <stdlib.h>

#include "base/log.h"
#include "http/h2_conn.h"

enum {
    SCRATCH_BYTES = 128 * 1024,
    ROUND_BYTES = 4 << 20, /* a connection writes at most this much before the others get their turn */
    ROUND_READS = 8,
    ROUNDS = 16,
    TLS_BATCH_BYTES = 256 * 1024,
    HEAD_BYTES_MAX = 1 << 20, /* of an answer, compressed or not; more than an origin may send */
    FREE_OUTS = 32,
    DRAIN_ROUND_MS = 1000,
    STALL_CHECKS = 4 /* per send timeout */
};

static const uint8_t drain_ping[8] = {'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'};

void h2_server_conf_defaults(struct h2_server_conf *c)
{
    c->max_streams = 256;
    c->max_frame_bytes = 16 * 1024;
    c->header_table_bytes = 4096;
    c->stream_window_bytes = 1 << 20;
    c->stream_window_max_bytes = 8 << 20;
    c->connection_window_bytes = 16 << 20;
    c->max_queued_frames = 1000;
    c->send_min_bytes = 1024;
    h2_guard_conf_defaults(&c->guard);
}

/* ---- the out queue's memory: the most recently used one first, it is still in the CPU's cache */

static bool out_get(struct h2_conn *c)
{
    struct h2_server *s = c->server;
    if (c->out) return true;
    c->out = s->free_outs;
    if (c->out) {
        s->free_outs = c->out->next;
        s->free_out_count--;
    } else {
        c->out = h2_out_create();
    }
    return c->out != NULL;
}

static void out_put(struct h2_conn *c)
{
    struct h2_server *s = c->server;
    struct h2_out *o = c->out;
    if (!o) return;
    c->out = NULL;
    h2_out_reset(o);
    if (s->free_out_count >= FREE_OUTS) {
        h2_out_free(o);
        return;
    }
    o->next = s->free_outs;
    s->free_outs = o;
    s->free_out_count++;
}

/* ---- the end of connections */

static void conn_destroy(struct h2_conn *c)
{
    struct h2_server *s = c->server;
    const struct h2_server_conf *conf = c->conf;
    CHECK(list_empty(&c->streams) && list_empty(&c->closed));
    timer_stop(&c->timer);
    timer_stop(&c->send_timer);
    timer_stop(&c->stall_timer);
    timer_stop(&c->drain_timer);
    task_cancel(&c->task);
    out_put(c);
    nghttp2_session_del(c->session);
    stream_destroy(c->stream);
    free(c->early);
    list_remove(&c->link);
    stat_sub(&s->stats.open, 1);
    c->magic = 0;
    free(c);
    if (conf->unhold) conf->unhold(conf->owner);
    if (s->drained && list_empty(&s->conns)) task_schedule(&s->drained_task);
}

static void exchanges_end(struct h2_conn *c)
{
    if (c->out) h2_out_reset(c->out);
    h2_streams_close_all(c);
    h2_streams_reap(c, true);
}

/* The client must not take what it got for the whole. */
static void conn_abort(struct h2_conn *c, enum err why)
{
    c->running = true;
    if (!c->fail) c->fail = why;
    stream_reset_on_close(c->stream);
    exchanges_end(c);
    conn_destroy(c);
}

/* Everything has been given to the socket. True: the connection is freed. */
static bool conn_close(struct h2_conn *c)
{
    exchanges_end(c);
    if (c->peer_eof || !c->conf->linger_ms) {
        conn_destroy(c);
        return true;
    }
    stream_shutdown_write(c->stream);
    timer_stop(&c->send_timer);
    timer_stop(&c->stall_timer);
    timer_stop(&c->drain_timer);
    out_put(c);
    c->lingering = true;
    c->readable = true;
    c->timer_kind = H2_TIMER_LINGER;
    /* One that drains has had a round trip's time to hear of it, and the process may be waiting. */
    bool hurry = c->drain == H2_DRAIN_FINAL && c->conf->linger_ms > DRAIN_ROUND_MS;
    timer_set(&c->timer, hurry ? DRAIN_ROUND_MS : c->conf->linger_ms);
    return false;
}

/* True: the connection is freed. */
static bool conn_linger(struct h2_conn *c)
{
    struct h2_server *s = c->server;
    while (c->readable && c->lingered <= c->conf->linger_bytes) {
        size_t got = 0;
        enum err e = stream_read(c->stream, s->scratch, SCRATCH_BYTES, &got);
        if (e == ERR_AGAIN) c->readable = false;
        else if (e != ERR_OK) break;
        c->lingered += got;
        stat_add(&s->stats.bytes_received, got);
    }
    if (!c->readable) return false;
    conn_destroy(c);
    return true;
}

/* GOAWAY; the connection is closed once it is out. */
static void conn_terminate(struct h2_conn *c, uint32_t error)
{
    if (c->terminating) return;
    c->terminating = true;
    if (nghttp2_session_terminate_session(c->session, error) != 0) h2_conn_fail(c, ERR_NOMEM);
    h2_conn_kick(c);
}

void h2_conn_count(struct h2_conn *c, enum h2_flood kind)
{
    struct h2_fault fault;
    if (!h2_guard_take(&c->guard, kind, loop_now_ms(c->server->loop), &fault)) h2_conn_fault(c, &fault);
}

/* Called from inside the session's calls, too: what lies behind the fault in the same read must not become streams, nor
 * frames of ours that wait in the session. */
void h2_conn_fault(struct h2_conn *c, const struct h2_fault *fault)
{
    if (c->terminating) return;
    if (fault->flood < H2_FLOODS) stat_add(&c->server->stats.floods[fault->flood], 1);
    log_info("HTTP/2 connection ended: %s", fault->text);
    conn_terminate(c, fault->error);
}

/* ---- draining */

static void drain_final(struct h2_conn *c)
{
    if (c->drain != H2_DRAIN_NOTICE || c->lingering) return;
    c->drain = H2_DRAIN_FINAL;
    timer_stop(&c->drain_timer);
    c->drain_last = nghttp2_session_get_last_proc_stream_id(c->session);
    if (nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE, c->drain_last, NGHTTP2_NO_ERROR, NULL, 0) != 0)
        h2_conn_fail(c, ERR_NOMEM);
    h2_conn_kick(c);
}

static void conn_on_drain_timer(struct timer *t)
{
    drain_final(container_of(t, struct h2_conn, drain_timer));
}

void h2_conn_drain(struct h2_conn *c)
{
    if (c->drain != H2_DRAIN_NO || c->terminating || c->lingering) return;
    c->drain = H2_DRAIN_NOTICE;
    timer_set(&c->drain_timer, DRAIN_ROUND_MS);
    if (nghttp2_submit_shutdown_notice(c->session) != 0) h2_conn_fail(c, ERR_NOMEM);
    h2_conn_ping(c, drain_ping);
}

bool h2_conn_ping(struct h2_conn *c, const uint8_t *opaque)
{
    bool ok = nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, opaque) == 0;
    if (ok) h2_guard_pinged(&c->guard);
    else h2_conn_fail(c, ERR_NOMEM);
    h2_conn_kick(c);
    return ok;
}

void h2_conn_ping_acked(struct h2_conn *c, const uint8_t *opaque)
{
    if (memcmp(opaque, drain_ping, sizeof(drain_ping)) == 0) drain_final(c);
    else if (memcmp(opaque, h2_probe_ping, sizeof(h2_probe_ping)) == 0) h2_window_probed(c);
}

/* ---- reading */

static void session_recv(struct h2_conn *c, const uint8_t *p, size_t n)
{
    struct h2_fault fault;
    size_t good = h2_guard_scan(&c->guard, p, n, loop_now_ms(c->server->loop), &fault);
    ssize_t rv = good ? nghttp2_session_mem_recv(c->session, p, good) : 0;
    if (rv < 0) {
        if (rv == NGHTTP2_ERR_FLOODED) fault = (struct h2_fault){NGHTTP2_ENHANCE_YOUR_CALM, H2_FLOOD_PING, "flooded"};
        else if (nghttp2_is_fatal((int)rv) && rv != NGHTTP2_ERR_BAD_CLIENT_MAGIC) h2_conn_fail(c, ERR_NOMEM);
        else fault = (struct h2_fault){NGHTTP2_PROTOCOL_ERROR, H2_FLOODS, nghttp2_strerror((int)rv)};
        if (!c->fail) h2_conn_fault(c, &fault);
    } else if (good < n) {
        h2_conn_fault(c, &fault);
    }
}

/* Our frames wait because the client does not read: what it sends would only make more of them. */
static bool is_clogged(const struct h2_conn *c)
{
    return !c->writable && nghttp2_session_get_outbound_queue_size(c->session) > c->conf->max_queued_frames;
}

static void peer_left(struct h2_conn *c, enum err e)
{
    bool idle = list_empty(&c->streams) && list_empty(&c->closed);
    c->peer_eof = true;
    if (e != ERR_END || !idle) h2_conn_fail(c, e == ERR_END ? ERR_CLOSED : e);
}

static void conn_input(struct h2_conn *c)
{
    struct h2_server *s = c->server;
    if (c->early) {
        c->read_ns = clock_ns();
        session_recv(c, c->early, c->early_n);
        free(c->early);
        c->early = NULL;
    }
    for (unsigned reads = 0; c->readable && !c->fail && !c->peer_eof && !c->terminating && !is_clogged(c); reads++) {
        size_t got = 0;
        if (reads == ROUND_READS) {
            task_schedule(&c->task);
            return;
        }
        enum err e = stream_read(c->stream, s->scratch, SCRATCH_BYTES, &got);
        if (e == ERR_AGAIN) {
            c->readable = false;
        } else if (e != ERR_OK) {
            peer_left(c, e);
        } else {
            c->read_ns = clock_ns();
            stat_add(&s->stats.bytes_received, got);
            /* A read that left room has drained the socket: the next edge will tell (see h1_server.c). */
            c->unsure = got < SCRATCH_BYTES && !c->tls && !c->closed_seen;
            if (c->unsure) c->readable = false;
            session_recv(c, s->scratch, got);
        }
    }
}

/* ---- writing */

/* True: there is something to write. Not asked: nghttp2_session_want_write, which would not send a GOAWAY after another
 * once there are no streams. */
static bool conn_gather(struct h2_conn *c)
{
    if (!out_get(c)) {
        h2_conn_fail(c, ERR_NOMEM);
        return false;
    }
    size_t batch = c->tls && c->batch > TLS_BATCH_BYTES ? TLS_BATCH_BYTES : c->batch;
    while (h2_out_has_room(c->out, 4, batch)) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(c->session, &p);
        if (n == 0) break;
        if (n < 0 || !h2_out_add(c->out, p, (size_t)n, NULL)) {
            h2_conn_fail(c, ERR_NOMEM);
            return false;
        }
    }
    return c->out->pending > 0;
}

static void batch_adapt(struct h2_conn *c, size_t offered, size_t put)
{
    if (put == offered && put >= c->batch) c->batch *= 2;
    else if (put < offered / 2) c->batch /= 2;
    if (c->batch > H2_OUT_BATCH_MAX) c->batch = H2_OUT_BATCH_MAX;
    if (c->batch < H2_OUT_BATCH_MIN) c->batch = H2_OUT_BATCH_MIN;
}

static void conn_flush(struct h2_conn *c)
{
    size_t put = 0, offered = c->out->pending;
    enum err e = h2_out_flush(c->out, c->stream, &put);
    if (e == ERR_AGAIN) {
        c->writable = false;
        if (!c->send_timer.due_ms) timer_set(&c->send_timer, c->conf->send_timeout_ms);
        return;
    }
    if (e != ERR_OK) {
        h2_conn_fail(c, e);
        return;
    }
    if (c->send_timer.due_ms) timer_stop(&c->send_timer);
    batch_adapt(c, offered, put);
    c->sent += put;
    c->budget -= put < c->budget ? put : c->budget;
    stat_add(&c->server->stats.bytes_sent, put);
}

static void conn_output(struct h2_conn *c)
{
    c->all_out = false;
    while (c->writable && !c->fail) {
        if ((!c->out || !c->out->pending) && !conn_gather(c)) {
            c->all_out = true;
            break;
        }
        if (c->fail) return;
        if (c->budget == 0) {
            task_schedule(&c->task);
            return;
        }
        conn_flush(c);
    }
    if (c->out && !c->out->pending) out_put(c);
}

/* ---- rounds */

static void hints_give(struct h2_conn *c)
{
    for (struct list *n; (n = list_pop_front(&c->hints));) {
        struct h2_stream *s = container_of(n, struct h2_stream, in.hint);
        if (s->x.req_body.ops) body_notify(&s->x.req_body);
    }
}

static void streams_resume(struct h2_conn *c)
{
    for (struct list *n; (n = list_pop_front(&c->resumes));) {
        struct h2_stream *s = container_of(n, struct h2_stream, resume);
        if (s->is_closed || !s->deferred) continue;
        s->deferred = false;
        s->progress_ms = loop_now_ms(c->server->loop);
        if (nghttp2_session_resume_data(c->session, s->id) == NGHTTP2_ERR_NOMEM) h2_conn_fail(c, ERR_NOMEM);
    }
}

static void timer_kind_set(struct h2_conn *c, enum h2_timer_kind kind, uint64_t ms)
{
    c->timer_kind = kind;
    if (kind != H2_TIMER_NONE) timer_set(&c->timer, ms);
}

static void timers_update(struct h2_conn *c)
{
    if (!c->settings_seen || c->guard.in_block || c->in_head) {
        if (c->timer_kind != H2_TIMER_HEAD || c->blocks_seen != c->guard.blocks)
            timer_kind_set(c, H2_TIMER_HEAD, c->conf->head_timeout_ms);
        c->blocks_seen = c->guard.blocks;
    } else if (c->live || !list_empty(&c->closed)) {
        timer_kind_set(c, H2_TIMER_NONE, 0);
        if (c->live && !c->stall_timer.due_ms) timer_set(&c->stall_timer, c->conf->send_timeout_ms / STALL_CHECKS + 1);
    } else if (c->timer_kind != H2_TIMER_IDLE) {
        timer_kind_set(c, H2_TIMER_IDLE, c->conf->idle_timeout_ms);
    }
}

static bool conn_is_over(const struct h2_conn *c)
{
    if (!c->all_out || nghttp2_session_want_read(c->session)) return false;
    /* After the first GOAWAY the library wants nothing more, but requests may be on their way. */
    if (c->drain == H2_DRAIN_NOTICE && !c->terminating && !c->goaway_error) return false;
    return list_empty(&c->closed);
}

/* True: the connection is freed. */
static bool conn_step(struct h2_conn *c)
{
    if (c->fail) {
        conn_abort(c, c->fail);
        return true;
    }
    if (c->lingering) return conn_linger(c);
    conn_input(c);
    if (c->peer_eof && !c->fail) {
        conn_destroy(c);
        return true;
    }
    hints_give(c);
    streams_resume(c);
    conn_output(c);
    h2_streams_reap(c, false);
    if (c->fail) return false;
    if (conn_is_over(c)) return conn_close(c);
    return false;
}

/* A reset that came together with bytes makes no edge of its own, and not always READY_CLOSED: it is the next read that
 * tells. That read is made only where streams wait, for nothing else would tell that nobody waits for them any more. */
static bool conn_doubts(struct h2_conn *c)
{
    bool again = c->unsure && c->live && c->all_out;
    c->unsure = false;
    if (again) c->readable = true;
    return again;
}

static void conn_run(struct h2_conn *c)
{
    CHECK_OBJ(c, H2_CONN_MAGIC);
    CHECK(!c->running);
    c->running = true;
    c->budget = ROUND_BYTES;
    for (unsigned round = 0;; round++) {
        c->kicked = false;
        if (conn_step(c)) return;
        if (c->fail) continue;
        if (!c->kicked && !conn_doubts(c)) break;
        if (round >= ROUNDS || c->budget == 0) {
            task_schedule(&c->task);
            break;
        }
    }
    if (!c->lingering) timers_update(c);
    c->running = false;
}

/* ---- events */

/* RST or both directions closed, as opposed to a client that has only ended its sending side. */
static bool peer_is_gone(const struct h2_conn *c)
{
    struct pollfd p = {.fd = stream_fd(c->stream), .events = 0};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
}

static void conn_on_ready(struct stream *st, unsigned ready, void *arg)
{
    struct h2_conn *c = arg;
    (void)st;
    CHECK_OBJ(c, H2_CONN_MAGIC);
    if (ready & READY_WRITE) c->writable = true;
    if (ready & READY_CLOSED) c->closed_seen = true;
    if (ready & (READY_READ | READY_CLOSED)) c->readable = true;
    bool deaf = is_clogged(c) || c->terminating; /* would not find out by reading */
    if (ready & READY_CLOSED && !c->lingering && deaf && peer_is_gone(c)) c->fail = ERR_RESET;
    conn_run(c);
}

static void conn_on_task(struct task *t)
{
    conn_run(container_of(t, struct h2_conn, task));
}

static void conn_on_timer(struct timer *t)
{
    struct h2_conn *c = container_of(t, struct h2_conn, timer);
    enum h2_timer_kind kind = c->timer_kind;
    c->timer_kind = H2_TIMER_NONE;
    switch (kind) {
    case H2_TIMER_NONE: return;
    case H2_TIMER_LINGER: conn_destroy(c); return;
    case H2_TIMER_IDLE: conn_terminate(c, NGHTTP2_NO_ERROR); break;
    case H2_TIMER_HEAD:
        stat_add(&c->server->stats.timeouts, 1);
        conn_terminate(c, c->settings_seen ? NGHTTP2_ENHANCE_YOUR_CALM : NGHTTP2_SETTINGS_TIMEOUT);
        break;
    }
    conn_run(c);
}

static void conn_on_send_timer(struct timer *t)
{
    struct h2_conn *c = container_of(t, struct h2_conn, send_timer);
    stat_add(&c->server->stats.timeouts, 1);
    conn_abort(c, ERR_REQUEST_TIMEOUT);
}

/* The client leaves no room: its window for the stream, or for all of them, is used up. */
static bool is_starved(const struct h2_conn *c, const struct h2_stream *s, bool conn_moves)
{
    int64_t min = (int64_t)c->conf->send_min_bytes;
    if (!s->responded || s->complete || s->deferred || s->resetting) return false;
    if (c->out && c->out->pending) return false; /* the socket is full; the send timer looks after that */
    if (s->framed - s->progress_bytes >= c->conf->send_min_bytes) return false;
    if (nghttp2_session_get_stream_remote_window_size(c->session, s->id) < min) return true;
    return !conn_moves && nghttp2_session_get_remote_window_size(c->session) < min;
}

static void conn_on_stall_timer(struct timer *t)
{
    struct h2_conn *c = container_of(t, struct h2_conn, stall_timer);
    uint64_t now_ms = loop_now_ms(c->server->loop);
    bool conn_moves = c->framed - c->framed_before >= c->conf->send_min_bytes;
    c->framed_before = c->framed;
    LIST_EACH_SAFE(n, tmp, &c->streams) {
        struct h2_stream *s = container_of(n, struct h2_stream, link);
        if (!is_starved(c, s, conn_moves)) {
            s->progress_ms = now_ms;
            s->progress_bytes = s->framed;
        } else if (now_ms - s->progress_ms >= c->conf->send_timeout_ms) {
            stat_add(&c->server->stats.stalled, 1);
            h2_stream_reset(s, NGHTTP2_CANCEL, ERR_REQUEST_TIMEOUT);
        }
    }
    conn_run(c);
}

/* ---- the server */

static void server_on_drained(struct task *t)
{
    struct h2_server *s = container_of(t, struct h2_server, drained_task);
    void (*fn)(void *arg) = s->drained;
    s->drained = NULL;
    if (fn) fn(s->drained_arg);
}

/* What the library would do on its own account without a counter, and beyond what the configuration says, is the guard's. */
static void library_leave_to_guard(nghttp2_option *option)
{
    nghttp2_option_set_max_settings(option, UINT32_MAX);
#ifdef HAVE_NGHTTP2_OPTION_SET_MAX_CONTINUATIONS
    nghttp2_option_set_max_continuations(option, UINT32_MAX);
#endif
#ifdef HAVE_NGHTTP2_OPTION_SET_STREAM_RESET_RATE_LIMIT
    nghttp2_option_set_stream_reset_rate_limit(option, UINT64_MAX, UINT64_MAX);
#endif
}

static bool library_init(struct h2_server *s)
{
    s->callbacks = h2_callbacks_create();
    if (!s->callbacks || nghttp2_option_new(&s->option) != 0) return false;
    library_leave_to_guard(s->option);
    nghttp2_option_set_max_send_header_block_length(s->option, HEAD_BYTES_MAX);
    nghttp2_option_set_no_auto_window_update(s->option, 1);
    nghttp2_option_set_no_closed_streams(s->option, 1);
    nghttp2_option_set_builtin_recv_extension_type(s->option, NGHTTP2_PRIORITY_UPDATE);
    return true;
}

enum err h2_server_create(struct loop *l, const struct exchange_handler *handler, void *handler_arg,
                          struct h2_server **out)
{
    struct h2_server *s = calloc(1, sizeof(*s));
    if (!s) return ERR_NOMEM;
    s->loop = l;
    s->handler = handler;
    s->handler_arg = handler_arg;
    list_init(&s->conns);
    list_init(&s->free_streams);
    list_init(&s->free_bufs);
    task_init(&s->drained_task, l, server_on_drained);
    s->scratch = malloc(SCRATCH_BYTES);
    if (!s->scratch || !library_init(s)) {
        h2_server_destroy(s);
        return ERR_NOMEM;
    }
    *out = s;
    return ERR_OK;
}

struct h2_server_stats *h2_server_stats(struct h2_server *s)
{
    return &s->stats;
}

void *h2_server_arg(struct h2_server *s)
{
    return s->handler_arg;
}

static bool session_create(struct h2_conn *c)
{
    const struct h2_server_conf *conf = c->conf;
    const nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, conf->max_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, conf->stream_window_bytes},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, conf->max_frame_bytes},
        {NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, conf->header_table_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)conf->limits.head_bytes},
        {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
    };
    int32_t window = (int32_t)conf->connection_window_bytes;
    return nghttp2_session_server_new2(&c->session, c->server->callbacks, c, c->server->option) == 0 &&
           nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, ARRAY_LEN(settings)) == 0 &&
           nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, window) == 0;
}

static struct h2_conn *conn_create(struct h2_server *s, const struct h2_server_conf *conf, const void *bytes, size_t n)
{
    struct h2_conn *c = calloc(1, sizeof(*c));
    if (!c) return NULL;
    c->server = s;
    c->conf = conf;
    if (n) {
        c->early = malloc(n);
        c->early_n = n;
        if (c->early) memcpy(c->early, bytes, n);
    }
    if ((n && !c->early) || !session_create(c)) {
        nghttp2_session_del(c->session);
        free(c->early);
        free(c);
        return NULL;
    }
    return c;
}

enum err h2_server_accept(struct h2_server *s, struct stream *st, const struct address *peer,
                          const struct h2_server_conf *conf, void *listener_data, const void *bytes, size_t n)
{
    struct h2_conn *c = conn_create(s, conf, bytes, n);
    if (!c) return ERR_NOMEM;
    c->magic = H2_CONN_MAGIC;
    c->stream = st;
    c->listener_data = listener_data;
    c->peer = *peer;
    c->local.len = sizeof(c->local.ss);
    if (getsockname(stream_fd(st), (struct sockaddr *)&c->local.ss, &c->local.len) != 0) c->local.len = 0;
    c->tls = stream_is_tls(st);
    c->readable = c->writable = true;
    c->batch = H2_OUT_BATCH_MIN;
    c->stream_window = conf->stream_window_bytes;
    list_init(&c->streams);
    list_init(&c->closed);
    list_init(&c->resumes);
    list_init(&c->hints);
    h2_guard_init(&c->guard, &conf->guard, loop_now_ms(s->loop));
    task_init(&c->task, s->loop, conn_on_task);
    timer_init(&c->timer, s->loop, conn_on_timer);
    timer_init(&c->send_timer, s->loop, conn_on_send_timer);
    timer_init(&c->stall_timer, s->loop, conn_on_stall_timer);
    timer_init(&c->drain_timer, s->loop, conn_on_drain_timer);
    list_push_back(&s->conns, &c->link);
    if (conf->hold) conf->hold(conf->owner);
    stat_add(&s->stats.accepted, 1);
    stat_add(&s->stats.open, 1);
    stat_add(&s->stats.bytes_received, n);
    if (s->draining) h2_conn_drain(c);
    stream_set_callback(st, conn_on_ready, c);
    task_schedule(&c->task);
    return ERR_OK;
}

void *h2_exchange_listener_data(const struct exchange *x)
{
    return x->listener_data;
}

void *h2_exchange_server_arg(const struct exchange *x)
{
    return h2_stream_of(x)->conn->server->handler_arg;
}

void h2_server_drain(struct h2_server *s, void (*drained)(void *arg), void *arg)
{
    s->draining = true;
    s->drained = drained;
    s->drained_arg = arg;
    LIST_EACH_SAFE(n, tmp, &s->conns) h2_conn_drain(container_of(n, struct h2_conn, link));
    if (!list_empty(&s->conns) || !s->drained) return;
    task_cancel(&s->drained_task);
    s->drained = NULL;
    if (drained) drained(arg);
}

void h2_server_kill(struct h2_server *s)
{
    LIST_EACH_SAFE(n, tmp, &s->conns) {
        struct h2_conn *c = container_of(n, struct h2_conn, link);
        if (c->running) h2_conn_fail(c, ERR_CANCELLED);
        else conn_abort(c, ERR_CANCELLED);
    }
}

void h2_server_destroy(struct h2_server *s)
{
    CHECK(list_empty(&s->conns));
    task_cancel(&s->drained_task);
    while (s->free_outs) {
        struct h2_out *o = s->free_outs;
        s->free_outs = o->next;
        h2_out_free(o);
    }
    h2_streams_free(s);
    h2_request_bodies_free(s);
    nghttp2_session_callbacks_del(s->callbacks);
    nghttp2_option_del(s->option);
    free(s->scratch);
    free(s);
}
