/* h2_client.c - one HTTP/2 connection to an origin: bytes in and out, health, and what the pool asks. See
 * h2_client_impl.h for how the parts work together.
 *
 * Output is gathered: nghttp2's frames and the bodies' bytes are put one after the other into a buffer that one write
 * takes. Input goes through a buffer of the connection and is copied once, into the receiver's memory. */
#include "http/h2_client_impl.h"

#include <stdlib.h>

/* ---- output */

bool h2_client_out_add(struct h2_client *c, const void *p, size_t n)
{
    if (c->out_off == c->out_n) c->out_off = c->out_n = 0;
    if (c->out_cap - c->out_n < n && c->out_off) {
        memmove(c->out, c->out + c->out_off, c->out_n - c->out_off);
        c->out_n -= c->out_off;
        c->out_off = 0;
    }
    if (c->out_cap - c->out_n < n) {
        size_t cap = c->out_cap ? c->out_cap : 4096;
        while (cap - c->out_n < n) cap *= 2;
        uint8_t *out = realloc(c->out, cap);
        if (!out) return false;
        c->out = out;
        c->out_cap = cap;
    }
    memcpy(c->out + c->out_n, p, n);
    c->out_n += n;
    return true;
}

/* How the end of the connection looks to one request. A peer that has spoken HTTP/2 before and then breaks it does so for
 * one request's sake: those it has not answered yet are bystanders, and may try elsewhere. */
static enum err lost_result(const struct h2_call *s, enum err e)
{
    if (e == ERR_PROTOCOL && s->client->peer_settled && !s->got_bytes) return ERR_RESET;
    if (e == ERR_END) return s->got_bytes ? ERR_TRUNCATED : ERR_CLOSED;
    return e;
}

/* A connection on which the peer has answered breaks for one request's sake, or for none's: one of them pays for a retry,
 * not all that happened to share it. */
static bool conn_has_bystanders(const struct h2_client *c, enum err e)
{
    return e != ERR_NOMEM && e != ERR_INTERNAL && h2_client_requests(c) > 0;
}

/* nghttp2 is not asked again: its streams are as good as closed. Those that came whole are still handed out. */
static void conn_lost(struct h2_client *c, enum err e)
{
    if (c->lost != ERR_OK) return;
    c->lost = e;
    c->changed = true;
    timer_stop(&c->health);
    bool paid = false, shared = conn_has_bystanders(c, e);
    for (struct list *n = c->streams.next; n != &c->streams; n = n->next) paid |= container_of(n, struct h2_call, link)->got_bytes;
    LIST_EACH_SAFE(n, tmp, &c->streams) {
        struct h2_call *s = container_of(n, struct h2_call, link);
        s->closed = true;
        if (h2_call_is_live(s)) {
            s->bystander = shared && paid && !s->got_bytes;
            paid = true;
            s->unprocessed = !s->headers_sent && !c->terminated && e != ERR_PROTOCOL;
            h2_call_finish(s, lost_result(s, e));
        }
        h2_call_due(s);
    }
}

/* Asks nghttp2 for frames until there are enough for a write. False: it has none left. */
static bool out_fill(struct h2_client *c)
{
    while (c->out_n - c->out_off < H2_OUT_BYTES) {
        const uint8_t *p;
        size_t before = c->out_n - c->out_off;
        ssize_t n = nghttp2_session_mem_send(c->session, &p);
        if (n < 0 || (n > 0 && !h2_client_out_add(c, p, (size_t)n))) {
            conn_lost(c, n < 0 && n != NGHTTP2_ERR_NOMEM ? ERR_INTERNAL : ERR_NOMEM);
            return false;
        }
        if (n == 0 && c->out_n - c->out_off == before) return false;
    }
    return true;
}

/* What the peer sent before it closed is read first, so a failed write is not the end. */
static void write_failed(struct h2_client *c)
{
    c->write_broken = true;
    c->readable = true;
    c->out_n = c->out_off = 0;
    h2_client_kick(c);
}

static void send_step(struct h2_client *c)
{
    bool more = true;
    while (c->lost == ERR_OK && c->writable && !c->write_broken) {
        if (more) more = out_fill(c);
        if (c->lost != ERR_OK || c->out_off == c->out_n) return;
        if (c->budget == 0) return h2_client_kick(c);
        size_t put, n = c->out_n - c->out_off;
        struct iovec iov = {c->out + c->out_off, n};
        enum err e = stream_writev(c->stream, &iov, 1, &put);
        if (e == ERR_AGAIN) c->writable = false;
        else if (e != ERR_OK) return write_failed(c);
        c->out_off += put;
        c->budget -= put < c->budget ? put : c->budget;
    }
}

/* ---- input */

static void recv_step(struct h2_client *c)
{
    while (c->lost == ERR_OK && c->readable) {
        if (c->budget == 0) return h2_client_kick(c);
        size_t got;
        enum err e = stream_read(c->stream, c->in, H2_IN_BYTES, &got);
        if (e == ERR_AGAIN) {
            c->readable = false;
            return;
        }
        if (e != ERR_OK) return conn_lost(c, e);
        c->last_recv_ms = loop_now_ms(c->loop);
        if (c->ping_ms) c->changed = true;
        c->ping_ms = 0;
        c->budget -= got < c->budget ? got : c->budget;
        ssize_t n = nghttp2_session_mem_recv(c->session, c->in, got);
        if (n < 0) return conn_lost(c, n == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_PROTOCOL);
    }
}

/* nghttp2 has nothing to do with the peer any more: after GOAWAY either way, when the last stream is gone. */
static void over_step(struct h2_client *c)
{
    if (c->lost != ERR_OK || c->out_off < c->out_n) return;
    if (nghttp2_session_want_read(c->session) || nghttp2_session_want_write(c->session)) return;
    conn_lost(c, c->goaway && !c->terminated ? ERR_END : ERR_PROTOCOL);
}

/* ---- one round */

static void due_step(struct h2_client *c)
{
    struct list *n;
    while ((n = list_pop_front(&c->due)) != NULL) h2_call_step(container_of(n, struct h2_call, due));
}

static void client_free(struct h2_client *c)
{
    LIST_EACH_SAFE(n, tmp, &c->streams) h2_call_free(container_of(n, struct h2_call, link));
    timer_stop(&c->health);
    task_cancel(&c->task);
    nghttp2_session_del(c->session);
    stream_destroy(c->stream);
    free(c->text);
    free(c->hdrs);
    free(c->in);
    free(c->out);
    c->magic = 0;
    free(c);
}

/* The client may be freed when this returns. */
static void client_run(struct h2_client *c)
{
    CHECK_OBJ(c, H2_CLIENT_MAGIC);
    CHECK(!c->running);
    c->running = true;
    c->budget = H2_ROUND_BYTES;
    recv_step(c);
    due_step(c);
    c->budget = H2_ROUND_BYTES;
    send_step(c);
    over_step(c);
    due_step(c);
    c->running = false;
    if (c->destroyed) return client_free(c);
    if (h2_client_is_over(c) && c->live == 0) {
        c->owner->closed(c->owner_arg, c);
    } else if (c->changed) {
        c->changed = false;
        c->owner->changed(c->owner_arg, c);
    }
}

/* ---- events */

static void on_ready(struct stream *st, unsigned ready, void *arg)
{
    struct h2_client *c = arg;
    (void)st;
    CHECK_OBJ(c, H2_CLIENT_MAGIC);
    if (ready & READY_WRITE) c->writable = true;
    if (ready & (READY_READ | READY_CLOSED)) c->readable = true;
    client_run(c);
}

static void on_task(struct task *t) { client_run(container_of(t, struct h2_client, task)); }

static void ping_send(struct h2_client *c)
{
    if (nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL) != 0) return;
    c->ping_ms = loop_now_ms(c->loop);
    timer_set(&c->health, H2_PING_WAIT_MS);
    h2_client_kick(c);
}

/* Any byte is a sign of life; without one for a while the peer is asked for one. */
static void on_health(struct timer *t)
{
    struct h2_client *c = container_of(t, struct h2_client, health);
    uint64_t now = loop_now_ms(c->loop), quiet = now - c->last_recv_ms;
    CHECK_OBJ(c, H2_CLIENT_MAGIC);
    if (c->ping_ms && now - c->ping_ms >= H2_PING_WAIT_MS) {
        conn_lost(c, ERR_RESET);
        h2_client_kick(c);
    } else if (c->ping_ms) {
        timer_set(t, H2_PING_WAIT_MS - (now - c->ping_ms));
    } else if (quiet >= H2_PING_QUIET_MS) {
        ping_send(c);
    } else {
        timer_set(t, H2_PING_QUIET_MS - quiet);
    }
}

/* ---- what the owner calls */

enum err h2_client_create(struct stream *s, const struct h1_limits *limits, const struct client_timeouts *t,
                          unsigned limit, const struct h2_client_owner *owner, void *owner_arg, struct h2_client **out)
{
    struct h2_client *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    c->magic = H2_CLIENT_MAGIC;
    c->loop = stream_loop(s);
    c->limits = *limits;
    c->text = malloc(limits->head_bytes);
    c->hdrs = calloc(limits->headers ? limits->headers : 1, sizeof *c->hdrs);
    c->in = malloc(H2_IN_BYTES);
    if (!c->text || !c->hdrs || !c->in || h2_client_session(c) != ERR_OK) {
        nghttp2_session_del(c->session);
        free(c->text);
        free(c->hdrs);
        free(c->in);
        free(c);
        return ERR_NOMEM;
    }
    c->stream = s;
    c->timeouts = *t;
    c->limit = limit && limit < H2_CLIENT_STREAMS_MAX ? limit : H2_CLIENT_STREAMS_MAX;
    c->owner = owner;
    c->owner_arg = owner_arg;
    list_init(&c->streams);
    list_init(&c->due);
    task_init(&c->task, c->loop, on_task);
    timer_init(&c->health, c->loop, on_health);
    c->last_recv_ms = c->idle_since_ms = loop_now_ms(c->loop);
    timer_set(&c->health, H2_PING_QUIET_MS);
    /* The peer may have spoken before our callback was set, and what TLS has buffered makes no edge. */
    c->readable = c->writable = true;
    stream_set_callback(s, on_ready, c);
    h2_client_kick(c);
    *out = c;
    return ERR_OK;
}

bool h2_client_is_over(const struct h2_client *c)
{
    return c->lost != ERR_OK || c->goaway || nghttp2_session_check_request_allowed(c->session) == 0;
}

void h2_client_set_meter(struct h2_client *c, struct meter memory)
{
    CHECK(list_empty(&c->streams));
    c->memory = memory;
}

bool h2_client_admits_none(const struct h2_client *c) { return c->peer_settled && h2_client_limit(c) == 0; }

bool h2_client_got_goaway(const struct h2_client *c) { return c->goaway; }

unsigned h2_client_limit(const struct h2_client *c)
{
    if (!c->peer_settled) return 0;
    uint32_t limit = nghttp2_session_get_remote_settings(c->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
    return limit < H2_CLIENT_STREAMS_MAX ? limit : H2_CLIENT_STREAMS_MAX;
}

unsigned h2_client_room(const struct h2_client *c)
{
    if (h2_client_is_over(c) || c->write_broken || c->destroyed) return 0;
    if (c->ping_ms && loop_now_ms(c->loop) - c->ping_ms >= H2_PING_SLOW_MS) return 0;
    unsigned limit = c->peer_settled ? h2_client_limit(c) : c->limit;
    return c->nstreams < limit ? limit - c->nstreams : 0;
}

/* Fields that HTTP/2 has no place for, or other places (RFC 9113, 8.2.2 and 8.3.1). */
static bool is_connection_field(const struct hdr *h)
{
    switch (h->id) {
    case HDR_HOST:
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRANSFER_ENCODING:
    case HDR_UPGRADE:
    case HDR_HTTP2_SETTINGS:
    case HDR_TE:
    case HDR_CONTENT_LENGTH:
    case HDR_EXPECT: return true;
    default: return false;
    }
}

/* What differs with every request would only push what repeats out of the peer's table. */
static uint8_t nv_flags(const struct hdr *h)
{
    switch (h->id) {
    case HDR_AUTHORIZATION:
    case HDR_AMZ_DATE:
    case HDR_RANGE:
    case HDR_IF_MATCH: return NGHTTP2_NV_FLAG_NO_INDEX;
    default: return NGHTTP2_NV_FLAG_NONE;
    }
}

static nghttp2_nv nv_make(struct str name, struct str value, uint8_t flags)
{
    /* The casts drop a const that nghttp2 does not write through: it copies, and makes names lower-case. */
    return (nghttp2_nv){.name = (uint8_t *)(uintptr_t)name.p,
                        .namelen = name.n,
                        .value = (uint8_t *)(uintptr_t)(value.p ? value.p : ""),
                        .valuelen = value.n,
                        .flags = flags};
}

static int32_t submit(struct h2_client *c, const struct client_request *req, struct h2_call *s)
{
    char length[20];
    size_t n = 0;
    nghttp2_nv *nv = malloc((req->nhdrs + 6) * sizeof *nv);
    if (!nv) return NGHTTP2_ERR_NOMEM;
    nv[n++] = nv_make(STR_LIT(":method"), req->method, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_make(STR_LIT(":scheme"), stream_is_tls(c->stream) ? STR_LIT("https") : STR_LIT("http"),
                      NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_make(STR_LIT(":authority"), req->authority, NGHTTP2_NV_FLAG_NONE);
    nv[n++] = nv_make(STR_LIT(":path"), req->target, NGHTTP2_NV_FLAG_NONE);
    for (unsigned i = 0; i < req->nhdrs; i++)
        if (!is_connection_field(&req->hdrs[i]))
            nv[n++] = nv_make(req->hdrs[i].name, req->hdrs[i].value, nv_flags(&req->hdrs[i]));
    if (req->body ? req->body_length >= 0 : req->send_zero_length) {
        size_t len = u64_to_dec(req->body ? (uint64_t)req->body_length : 0, length);
        nv[n++] = nv_make(STR_LIT("content-length"), str_make(length, len), NGHTTP2_NV_FLAG_NONE);
    }
    if (s->hold_body) nv[n++] = nv_make(STR_LIT("expect"), STR_LIT("100-continue"), NGHTTP2_NV_FLAG_NONE);
    nghttp2_data_provider body = {.source = {.ptr = s}, .read_callback = h2_call_read_cb};
    int32_t id = nghttp2_submit_request(c->session, NULL, nv, n, s->body_end ? NULL : &body, s);
    free(nv);
    return id;
}

static void on_stream_timer(struct timer *t)
{
    struct h2_call *s = container_of(t, struct h2_call, timer);
    enum h2_timer_kind kind = s->timer_kind;
    CHECK_OBJ(s, H2_CALL_MAGIC);
    s->timer_kind = H2_TIMER_NONE;
    if (kind == H2_TIMER_NONE || !h2_call_is_live(s)) return;
    if (kind == H2_TIMER_EXPECT) {
        s->client->no_continue = true;
        s->hold_body = false;
        s->poke = true;
        h2_call_timer(s, H2_TIMER_SEND);
        h2_call_due(s);
    } else {
        h2_call_finish(s, kind == H2_TIMER_FIRST_BYTE ? ERR_FIRST_BYTE_TIMEOUT : ERR_STALL_TIMEOUT);
    }
    h2_client_kick(s->client);
}

static void on_request_body(void *arg)
{
    struct h2_call *s = arg;
    CHECK_OBJ(s, H2_CALL_MAGIC);
    s->notified = s->poke = true;
    h2_call_due(s);
    h2_client_kick(s->client);
}

static void request_init(struct h2_call *s, const struct client_request *req)
{
    s->method = req->method_id;
    s->body = req->body;
    s->length_known = req->body && req->body_length >= 0;
    s->left = s->length_known ? (uint64_t)req->body_length : 0;
    s->body_end = !req->body || (s->length_known && s->left == 0);
    s->hold_body = !s->body_end && req->expect_continue && !s->client->no_continue;
    if (!req->body) return;
    req->body->notify = on_request_body;
    req->body->notify_arg = s;
}

enum err h2_client_send(struct h2_client *c, const struct client_request *req, uint64_t expect_bytes,
                        const struct client_events *ev, void *arg, struct h2_call **out)
{
    CHECK_OBJ(c, H2_CLIENT_MAGIC);
    CHECK(!c->destroyed && c->lost == ERR_OK);
    struct h2_call *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    s->magic = H2_CALL_MAGIC;
    s->client = c;
    s->ev = ev;
    s->arg = arg;
    s->expect_bytes = expect_bytes;
    s->body_length = -1;
    s->window = H2_WINDOW_MIN;
    list_init(&s->link);
    list_init(&s->due);
    timer_init(&s->timer, c->loop, on_stream_timer);
    request_init(s, req);
    s->id = submit(c, req, s);
    if (s->id < 0) {
        if (req->body) req->body->notify = NULL;
        s->magic = 0;
        free(s);
        return ERR_NOMEM;
    }
    if (c->live == 0 && !c->ping_ms && loop_now_ms(c->loop) - c->last_recv_ms >= H2_PING_RESTED_MS) ping_send(c);
    list_push_back(&c->streams, &s->link);
    c->nstreams++;
    c->live++;
    if (s->body_end) h2_call_stop_request(s);
    h2_call_timer(s, s->hold_body ? H2_TIMER_EXPECT : H2_TIMER_SEND);
    h2_client_kick(c);
    *out = s;
    return ERR_OK;
}

unsigned h2_client_streams(const struct h2_client *c) { return c->live; }

uint64_t h2_client_requests(const struct h2_client *c) { return c->requests; }

uint64_t h2_client_received_bytes(const struct h2_client *c) { return c->received_bytes; }

uint64_t h2_client_idle_since_ms(const struct h2_client *c) { return c->idle_since_ms; }

void h2_client_destroy(struct h2_client *c)
{
    CHECK_OBJ(c, H2_CLIENT_MAGIC);
    CHECK(c->live == 0);
    if (c->running) { /* from inside somebody's end(): the round on the stack frees it */
        c->destroyed = true;
        return;
    }
    if (c->lost == ERR_OK && nghttp2_session_terminate_session(c->session, NGHTTP2_NO_ERROR) == 0) {
        c->budget = H2_ROUND_BYTES;
        send_step(c); /* a word of goodbye, if the socket takes it */
    }
    client_free(c);
}
