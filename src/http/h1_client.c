/* h1_client.c - one HTTP/1.1 connection to an origin (RFC 9112), one request at a time.
 *
 * All work happens in client_run, called from the stream's callback, the timers and the task; send, resume and cancel
 * only change state and schedule it. So the receiver's callbacks are never called from inside its own calls, and the
 * one place where the owner may destroy the client, released(), is the last thing client_run does.
 *
 * Body bytes are read straight into the receiver's memory. Only what came together with the head, and chunk framing with
 * small chunks, goes through the connection's buffer and is copied. A direct read of a body whose end is known offers
 * that buffer as a last piece: a read that ends before it has drained the socket, and bytes that fall into it after the
 * end of the body were not asked for. Otherwise the socket is read until ERR_AGAIN, so that a reset that came together
 * with the last bytes is noticed at once and not by a timeout.
 *
 *   IDLE -send-> HEAD -final head-> BODY -end, error, cancel-> over -released-> IDLE (reusable) or waits for destroy */
#include "http/h1_client.h"

#include <stdlib.h>

#include "http/h1_out.h"

#define CLIENT_MAGIC 0x68314343u

enum {
    IN_MIN_BYTES = 16 * 1024,   /* also the largest first read: what of it is body must be copied */
    SPACE_IOVS = 16,
    READ_BYTES = 1 << 20,
    ROUND_BYTES = 2 << 20,      /* read in one go before the others get their turn */
    DIRECT_MIN_BYTES = 8 * 1024, /* a chunk with more left than this is read directly */
    EXPECT_WAIT_MS = 1000,
    MAX_INTERIM = 16            /* 1xx responses before the final one */
};

enum client_state { CLIENT_IDLE, CLIENT_HEAD, CLIENT_BODY };
enum body_kind { BODY_LENGTH, BODY_CHUNKED, BODY_UNTIL_CLOSE };
enum timer_kind { TIMER_NONE, TIMER_SEND, TIMER_FIRST_BYTE, TIMER_STALL };

struct h1_client {
    uint32_t magic;
    enum client_state state;
    struct stream *stream;
    struct h1_limits limits;
    struct client_timeouts timeouts;
    const struct h1_client_owner *owner;
    void *owner_arg;
    struct task task;
    struct timer timer, expect_timer;
    enum timer_kind timer_kind;
    bool readable, writable, closed_seen, tls;
    bool running, kicked, destroyed;
    /* the request */
    const struct client_events *ev;
    void *arg;
    struct body *req_body;
    struct h1_out out;
    bool hold_body;    /* waiting for 100 Continue */
    bool sending;      /* the request is not yet with the socket */
    bool broken;       /* cannot be used again */
    bool over;         /* ended, but not yet told */
    bool cancelled;
    enum err result;
    enum method method;
    /* the response */
    char *in;
    size_t in_cap, in_start, in_end, scanned;
    struct hdr *hdrs;
    unsigned interim;
    enum body_kind kind;
    uint64_t left; /* not yet received: of the body, or of the current chunk */
    struct h1_chunked chunked;
    struct iovec space[SPACE_IOVS];
    unsigned spaces; /* > 0: given by the receiver and not filled yet */
    bool paused;
    size_t budget;
    bool got_bytes, sent_body;
    uint64_t requests, idle_since_ms;
};

static void client_kick(struct h1_client *c)
{
    if (c->running) c->kicked = true;
    else task_schedule(&c->task);
}

static void client_timer(struct h1_client *c, enum timer_kind kind)
{
    c->timer_kind = kind;
    if (kind == TIMER_NONE) return; /* if it fires it finds nothing to do */
    timer_set(&c->timer, kind == TIMER_FIRST_BYTE ? c->timeouts.first_byte_ms : c->timeouts.stall_ms);
}

static void client_finish(struct h1_client *c, enum err e)
{
    if (c->over) return;
    c->over = true;
    c->result = e;
    if (e != ERR_OK) c->broken = true;
}

/* ---- sending */

/* No more of the request is sent. */
static void sending_stop(struct h1_client *c)
{
    c->sending = false;
    c->hold_body = false;
    h1_out_reset(&c->out);
    timer_stop(&c->expect_timer);
    if (c->req_body && c->req_body->ops) body_close(c->req_body);
    c->req_body = NULL;
}

static void sending_done(struct h1_client *c)
{
    sending_stop(c);
    if (c->state == CLIENT_HEAD) client_timer(c, TIMER_FIRST_BYTE);
}

/* The origin may have answered before it closed, so a failed write is not the end: what it sent is read first. */
static void sending_failed(struct h1_client *c)
{
    sending_done(c);
    c->broken = true;
    c->readable = true;
}

static void send_step(struct h1_client *c)
{
    struct h1_out *o = &c->out;
    while (c->sending && !c->over) {
        bool pull = !c->hold_body && c->writable && !o->complete && !o->blocked && !h1_out_has_chunks(o) && !o->tail_n;
        enum err e = ERR_OK;
        if (pull) {
            e = h1_out_fill(o, c->req_body);
            c->sent_body |= o->count > 0;
            if (c->over) return;
            if (e == ERR_TRUNCATED) e = ERR_INCOMPLETE_BODY;
            if (e != ERR_OK && e != ERR_AGAIN) return client_finish(c, e);
            if (e == ERR_AGAIN && !o->blocked) task_schedule(&c->task);
        }
        if (!h1_out_pending(o)) {
            if (o->complete) return sending_done(c);
            /* Waiting for the producer, or for 100 Continue: not the origin's fault. */
            if (o->blocked || e == ERR_AGAIN || c->hold_body || !c->writable) return client_timer(c, TIMER_NONE);
            continue;
        }
        if (!c->writable) return;
        e = h1_out_flush(o, c->stream);
        if (e == ERR_OK || (e == ERR_AGAIN && c->timer_kind != TIMER_SEND)) client_timer(c, TIMER_SEND);
        if (e == ERR_AGAIN) c->writable = false;
        else if (e != ERR_OK) return sending_failed(c);
    }
}

/* ---- receiving */

/* The end of the stream is ERR_END only where it is the end of a body. */
static enum err conn_read(struct h1_client *c, const struct iovec *iov, unsigned n, size_t *got)
{
    *got = 0;
    if (!c->readable) return ERR_AGAIN;
    enum err e = stream_readv(c->stream, iov, n, got);
    if (e == ERR_AGAIN) c->readable = false;
    if (e == ERR_END && c->state == CLIENT_HEAD) return ERR_CLOSED;
    if (e == ERR_END && c->kind != BODY_UNTIL_CLOSE) return ERR_TRUNCATED;
    if (e != ERR_OK) return e;
    c->got_bytes = true;
    c->budget -= *got < c->budget ? *got : c->budget;
    if (c->state == CLIENT_BODY) client_timer(c, TIMER_STALL);
    return ERR_OK;
}

/* Reads into the connection's buffer. */
static enum err buffer_read(struct h1_client *c)
{
    if (c->in_start) {
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    size_t got, room = c->in_cap - c->in_end;
    if (room > IN_MIN_BYTES) room = IN_MIN_BYTES;
    if (room == 0) return ERR_PROTOCOL;
    struct iovec iov = {c->in + c->in_end, room};
    enum err e = conn_read(c, &iov, 1, &got);
    c->in_end += got;
    return e;
}

static enum err interim_response(struct h1_client *c, const struct head *h)
{
    if (h->status == 101 || ++c->interim > MAX_INTERIM) return ERR_PROTOCOL;
    if (h->status == 100 && c->hold_body) {
        c->hold_body = false;
        timer_stop(&c->expect_timer);
        c->kicked = true;
    }
    if (!c->sending) client_timer(c, TIMER_FIRST_BYTE);
    return ERR_OK;
}

static enum err final_response(struct h1_client *c, const struct head *h)
{
    int64_t length;
    c->state = CLIENT_BODY;
    c->kind = BODY_LENGTH;
    c->left = 0;
    if (c->method == METHOD_HEAD || h->status == 204 || h->status == 304) {
        length = 0;
    } else if (h->chunked) {
        c->kind = BODY_CHUNKED;
        h1_chunked_init(&c->chunked);
        length = -1;
    } else if (h->content_length >= 0) {
        length = h->content_length;
        c->left = (uint64_t)length;
    } else {
        c->kind = BODY_UNTIL_CLOSE;
        length = -1;
    }
    if (!h->keep_alive || c->kind == BODY_UNTIL_CLOSE || c->sending) c->broken = true;
    if (c->sending) sending_stop(c);
    client_timer(c, TIMER_STALL);
    c->ev->head(c->arg, h, length);
    return ERR_OK;
}

static enum err recv_head(struct h1_client *c)
{
    if (c->in_start < c->in_end) {
        struct head h;
        size_t used = 0;
        memset(&h, 0, sizeof(h));
        enum err e = h1_parse_response(c->in + c->in_start, c->in_end - c->in_start, &c->scanned, &c->limits, c->hdrs,
                                       &h, &used);
        if (e == ERR_OK) {
            c->in_start += used;
            c->scanned = 0;
            return h.status < 200 ? interim_response(c, &h) : final_response(c, &h);
        }
        if (e != ERR_AGAIN) return e;
    }
    return buffer_read(c);
}

static size_t space_bytes(const struct h1_client *c)
{
    size_t n = 0;
    for (unsigned i = 0; i < c->spaces; i++) n += c->space[i].iov_len;
    return n;
}

/* Asks the receiver for space unless there is some. ERR_AGAIN: it has none, or it cancelled. */
static enum err want_space(struct h1_client *c)
{
    if (c->spaces) return ERR_OK;
    unsigned n = c->ev->space(c->arg, c->space, SPACE_IOVS);
    if (c->over) return ERR_AGAIN;
    CHECK(n <= SPACE_IOVS);
    c->spaces = n;
    if (space_bytes(c) > 0) return ERR_OK;
    c->spaces = 0;
    c->paused = true;
    client_timer(c, TIMER_NONE);
    return ERR_AGAIN;
}

/* n bytes of body were put into the space. */
static void body_took(struct h1_client *c, size_t n)
{
    if (c->kind != BODY_UNTIL_CLOSE) c->left -= n;
    if (c->kind == BODY_CHUNKED) h1_chunked_took(&c->chunked, n);
    c->spaces = 0;
    c->ev->filled(c->arg, n);
}

/* Copies what the buffer holds of the body, at most `limit` bytes of it. */
static enum err body_copy(struct h1_client *c, uint64_t limit)
{
    enum err e = want_space(c);
    if (e != ERR_OK) return e;
    size_t have = c->in_end - c->in_start, done = 0;
    if (have > limit) have = (size_t)limit;
    for (unsigned i = 0; i < c->spaces && done < have; i++) {
        size_t n = have - done < c->space[i].iov_len ? have - done : c->space[i].iov_len;
        memcpy(c->space[i].iov_base, c->in + c->in_start + done, n);
        done += n;
    }
    c->in_start += done;
    body_took(c, done);
    return ERR_OK;
}

/* Reads at most `limit` bytes of body into the space; `spill`: what follows them may go to the (empty) buffer. */
static enum err body_read(struct h1_client *c, uint64_t limit, bool spill)
{
    struct iovec iov[SPACE_IOVS + 1];
    unsigned n = 0;
    size_t room = 0, got;
    if (!c->readable) return ERR_AGAIN;
    enum err e = want_space(c);
    if (e != ERR_OK) return e;
    if (limit > READ_BYTES) {
        limit = READ_BYTES;
        spill = false;
    }
    for (unsigned i = 0; i < c->spaces && room < limit; i++) {
        size_t take = c->space[i].iov_len < limit - room ? c->space[i].iov_len : (size_t)limit - room;
        iov[n++] = (struct iovec){c->space[i].iov_base, take};
        room += take;
    }
    spill = spill && room == limit;
    c->in_start = c->in_end = 0;
    if (spill) iov[n++] = (struct iovec){c->in, IN_MIN_BYTES};
    e = conn_read(c, iov, n, &got);
    if (e != ERR_OK) return e;
    if (spill && got < room + IN_MIN_BYTES && !c->closed_seen && !c->tls && got >= room) c->readable = false;
    if (got > room) {
        c->in_end = got - room;
        got = room;
    }
    body_took(c, got);
    return ERR_OK;
}

static enum err recv_chunked(struct h1_client *c)
{
    if (c->left == 0) {
        size_t used = 0;
        enum err e = ERR_AGAIN;
        if (c->in_start < c->in_end)
            e = h1_chunked_next(&c->chunked, c->in + c->in_start, c->in_end - c->in_start, &used);
        c->in_start += used;
        if (e == ERR_AGAIN) return buffer_read(c);
        if (e == ERR_BAD_CHUNK) return ERR_PROTOCOL;
        if (e == ERR_OK) c->left = c->chunked.left;
        return e;
    }
    if (c->in_start < c->in_end) return body_copy(c, c->left);
    if (c->left >= DIRECT_MIN_BYTES) return body_read(c, c->left, true);
    return buffer_read(c);
}

/* ERR_OK: go on; ERR_AGAIN; ERR_END: the body is whole; else broken. */
static enum err recv_body(struct h1_client *c)
{
    if (c->kind == BODY_CHUNKED) return recv_chunked(c);
    if (c->kind == BODY_LENGTH && c->left == 0) return ERR_END;
    uint64_t limit = c->kind == BODY_LENGTH ? c->left : UINT64_MAX;
    if (c->in_start < c->in_end) return body_copy(c, limit);
    return body_read(c, limit, c->kind == BODY_LENGTH);
}

static void recv_step(struct h1_client *c)
{
    while (!c->over && !c->paused) {
        if (c->budget == 0) return task_schedule(&c->task);
        enum err e = c->state == CLIENT_HEAD ? recv_head(c) : recv_body(c);
        if (c->over || e == ERR_AGAIN) return;
        if (e != ERR_OK) client_finish(c, e == ERR_END ? ERR_OK : e);
    }
}

/* ---- one round, and the end of a request */

static void client_free(struct h1_client *c)
{
    sending_stop(c);
    timer_stop(&c->timer);
    task_cancel(&c->task);
    h1_out_free(&c->out);
    stream_destroy(c->stream);
    free(c->in);
    free(c->hdrs);
    c->magic = 0;
    free(c);
}

static bool connection_is_clean(struct h1_client *c)
{
    if (c->broken || c->closed_seen || c->in_start < c->in_end) return false;
    return !c->readable || !stream_idle_broken(c->stream);
}

/* The client may be freed, or busy with the next request, when this returns. */
static void client_conclude(struct h1_client *c)
{
    if (c->sending) c->broken = true;
    sending_stop(c);
    client_timer(c, TIMER_NONE);
    c->broken = !connection_is_clean(c);
    c->state = CLIENT_IDLE;
    c->over = false;
    c->spaces = 0;
    if (!c->cancelled) c->ev->end(c->arg, c->result);
    c->running = false;
    if (c->destroyed) return client_free(c);
    c->requests++;
    c->idle_since_ms = loop_now_ms(stream_loop(c->stream));
    c->owner->released(c->owner_arg, c, !c->broken);
}

static void client_run(struct h1_client *c)
{
    CHECK_OBJ(c, CLIENT_MAGIC);
    CHECK(!c->running);
    if (c->state == CLIENT_IDLE) return;
    c->running = true;
    c->budget = ROUND_BYTES;
    do {
        c->kicked = false;
        send_step(c);
        recv_step(c);
        if (c->over) return client_conclude(c);
    } while (c->kicked);
    c->running = false;
}

/* ---- events */

static void client_on_ready(struct stream *st, unsigned ready, void *arg)
{
    struct h1_client *c = arg;
    (void)st;
    CHECK_OBJ(c, CLIENT_MAGIC);
    if (ready & READY_WRITE) c->writable = true;
    if (ready & READY_CLOSED) c->closed_seen = true;
    if (ready & (READY_READ | READY_CLOSED)) c->readable = true;
    if (c->state != CLIENT_IDLE) return client_run(c);
    if (c->broken || !c->readable) return;
    if (!c->closed_seen && !stream_idle_broken(c->stream)) return;
    c->broken = true;
    c->owner->idle_closed(c->owner_arg, c);
}

static void client_on_task(struct task *t)
{
    client_run(container_of(t, struct h1_client, task));
}

static void client_on_timer(struct timer *t)
{
    struct h1_client *c = container_of(t, struct h1_client, timer);
    enum timer_kind kind = c->timer_kind;
    c->timer_kind = TIMER_NONE;
    if (kind == TIMER_NONE || c->state == CLIENT_IDLE) return;
    client_finish(c, kind == TIMER_FIRST_BYTE ? ERR_FIRST_BYTE_TIMEOUT : ERR_STALL_TIMEOUT);
    client_run(c);
}

static void client_on_expect_timer(struct timer *t)
{
    struct h1_client *c = container_of(t, struct h1_client, expect_timer);
    c->hold_body = false;
    client_run(c);
}

/* ---- what the owner and the receiver call */

enum err h1_client_create(struct stream *s, const struct h1_limits *limits, const struct client_timeouts *t,
                          const struct h1_client_owner *owner, void *owner_arg, struct h1_client **out)
{
    struct loop *l = stream_loop(s);
    struct h1_client *c = calloc(1, sizeof(*c));
    if (!c) return ERR_NOMEM;
    c->magic = CLIENT_MAGIC;
    c->in_cap = limits->head_bytes + 4096 > IN_MIN_BYTES ? limits->head_bytes + 4096 : IN_MIN_BYTES;
    c->in = malloc(c->in_cap);
    c->hdrs = calloc(limits->headers ? limits->headers : 1, sizeof(*c->hdrs));
    if (!c->in || !c->hdrs) {
        free(c->in);
        free(c->hdrs);
        free(c);
        return ERR_NOMEM;
    }
    c->stream = s;
    c->limits = *limits;
    c->timeouts = *t;
    c->owner = owner;
    c->owner_arg = owner_arg;
    c->tls = stream_is_tls(s);
    c->readable = c->tls; /* what TLS has buffered makes no edge */
    c->writable = true;
    c->idle_since_ms = loop_now_ms(l);
    h1_out_init(&c->out);
    task_init(&c->task, l, client_on_task);
    timer_init(&c->timer, l, client_on_timer);
    timer_init(&c->expect_timer, l, client_on_expect_timer);
    stream_set_callback(s, client_on_ready, c);
    *out = c;
    return ERR_OK;
}

static void put_str(char **p, struct str s)
{
    if (s.n) memcpy(*p, s.p, s.n);
    *p += s.n;
}

static bool write_head(struct h1_out *o, const struct client_request *req)
{
    size_t size = req->method.n + req->target.n + req->authority.n + 192;
    for (unsigned i = 0; i < req->nhdrs; i++) size += req->hdrs[i].name.n + req->hdrs[i].value.n + 4;
    char *start = h1_out_room(o, size), *p = start;
    if (!p) return false;
    put_str(&p, req->method);
    *p++ = ' ';
    put_str(&p, req->target);
    put_str(&p, STR_LIT(" HTTP/1.1\r\nHost: "));
    put_str(&p, req->authority);
    put_str(&p, STR_LIT("\r\n"));
    for (unsigned i = 0; i < req->nhdrs; i++) {
        put_str(&p, req->hdrs[i].name);
        put_str(&p, STR_LIT(": "));
        put_str(&p, req->hdrs[i].value);
        put_str(&p, STR_LIT("\r\n"));
    }
    if (req->body && req->body_length < 0) {
        put_str(&p, STR_LIT("Transfer-Encoding: chunked\r\n"));
    } else if (req->body || req->send_zero_length) {
        put_str(&p, STR_LIT("Content-Length: "));
        p += u64_to_dec(req->body ? (uint64_t)req->body_length : 0, p);
        put_str(&p, STR_LIT("\r\n"));
    }
    if (req->body && req->body_length != 0 && req->expect_continue) put_str(&p, STR_LIT("Expect: 100-continue\r\n"));
    put_str(&p, STR_LIT("\r\n"));
    o->n += (size_t)(p - start);
    return true;
}

static void on_request_body(void *arg)
{
    struct h1_client *c = arg;
    CHECK_OBJ(c, CLIENT_MAGIC);
    h1_out_notified(&c->out);
    client_kick(c);
}

void h1_client_send(struct h1_client *c, const struct client_request *req, const struct client_events *ev, void *arg)
{
    CHECK_OBJ(c, CLIENT_MAGIC);
    CHECK(c->state == CLIENT_IDLE && !c->running && !c->broken);
    c->ev = ev;
    c->arg = arg;
    c->state = CLIENT_HEAD;
    c->method = req->method_id;
    c->result = ERR_OK;
    c->over = c->cancelled = c->paused = c->got_bytes = c->sent_body = false;
    c->in_start = c->in_end = c->scanned = 0;
    c->interim = c->spaces = 0;
    c->req_body = req->body;
    c->sending = true;
    c->hold_body = req->body && req->expect_continue && req->body_length != 0;
    if (c->hold_body) timer_set(&c->expect_timer, EXPECT_WAIT_MS);
    if (req->body) {
        req->body->notify = on_request_body;
        req->body->notify_arg = c;
    }
    bool chunked = req->body && req->body_length < 0;
    h1_out_begin_body(&c->out, chunked ? H1_FRAME_CHUNKED : H1_FRAME_LENGTH,
                      req->body && !chunked ? (uint64_t)req->body_length : 0);
    if (!write_head(&c->out, req)) client_finish(c, ERR_NOMEM);
    task_schedule(&c->task);
}

void h1_client_resume(struct h1_client *c)
{
    CHECK_OBJ(c, CLIENT_MAGIC);
    if (c->state != CLIENT_BODY || !c->paused) return;
    c->paused = false;
    client_timer(c, TIMER_STALL);
    client_kick(c);
}

void h1_client_cancel(struct h1_client *c)
{
    CHECK_OBJ(c, CLIENT_MAGIC);
    if (c->state == CLIENT_IDLE || c->cancelled) return;
    bool whole = c->state == CLIENT_BODY && c->kind == BODY_LENGTH && c->left == 0;
    c->cancelled = true;
    if (!whole) c->broken = true;
    client_finish(c, ERR_OK);
    c->spaces = 0;
    sending_stop(c);
    client_kick(c);
}

bool h1_client_got_bytes(const struct h1_client *c)
{
    return c->got_bytes;
}

bool h1_client_sent_body(const struct h1_client *c)
{
    return c->sent_body;
}

uint64_t h1_client_requests(const struct h1_client *c)
{
    return c->requests;
}

uint64_t h1_client_idle_since_ms(const struct h1_client *c)
{
    return c->idle_since_ms;
}

void h1_client_destroy(struct h1_client *c)
{
    CHECK_OBJ(c, CLIENT_MAGIC);
    if (!c->running) return client_free(c);
    /* From inside one of the receiver's callbacks: the round on the stack frees it. */
    c->destroyed = true;
    h1_client_cancel(c);
}
