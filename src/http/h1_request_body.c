/* h1_request_body.c - the request body of an HTTP/1.x exchange as a body source (RFC 9112 sections 6 and 7).
 *
 * Bytes are read from the socket only when the handler pulls, into a buffer of their own (the head buffer must keep the
 * request's head until end()), and given out in place. One buffer is refilled as long as the consumer has released what
 * it got before; otherwise the next one is taken, so what is held is what the consumer holds plus one buffer.
 * With Content-Length never a byte beyond the body is read; with chunked what was read too far goes back to the head
 * buffer when the exchange ends - it fits, because one read is never larger than that buffer. */
#include <stdlib.h>

#include "http/h1_conn.h"

enum {
    BODY_BUF_BYTES = 256 * 1024,
    BODY_BUF_LOW = 16 * 1024, /* less room than this: take another buffer */
    FREE_BUFS = 16
};

static void buf_unref(struct h1_body_buf *b)
{
    if (--b->refs) return;
    struct h1_server *s = b->server;
    if (s->free_buf_count >= FREE_BUFS) {
        free(b);
        return;
    }
    b->next = s->free_bufs;
    s->free_bufs = b;
    s->free_buf_count++;
}

static void buf_release(void *owner, enum chunk_end how)
{
    (void)how; /* never has a file descriptor, so never by sendfile */
    buf_unref(owner);
}

static struct h1_body_buf *buf_get(struct h1_server *s, size_t min)
{
    struct h1_body_buf *b = s->free_bufs;
    if (b && b->cap >= min) {
        s->free_bufs = b->next;
        s->free_buf_count--;
    } else {
        size_t cap = min > BODY_BUF_BYTES ? min : BODY_BUF_BYTES;
        b = malloc(sizeof(*b) + cap);
        if (!b) return NULL;
        b->server = s;
        b->cap = cap;
    }
    b->refs = 1;
    b->start = b->end = 0;
    return b;
}

void h1_request_bodies_free(struct h1_server *s)
{
    while (s->free_bufs) {
        struct h1_body_buf *b = s->free_bufs;
        s->free_bufs = b->next;
        free(b);
    }
    s->free_buf_count = 0;
}

/* Room to read into; only called when everything in the buffer was given out. */
static enum err buf_prepare(struct h1_conn *c)
{
    struct h1_request_body *r = &c->body;
    if (r->buf && r->buf->refs == 1) r->buf->start = r->buf->end = 0;
    if (r->buf && r->buf->cap - r->buf->end >= BODY_BUF_LOW) return ERR_OK;
    struct h1_body_buf *b = buf_get(c->server, c->work->cap);
    if (!b) return ERR_NOMEM;
    if (r->buf) buf_unref(r->buf);
    r->buf = b;
    return ERR_OK;
}

/* What came together with the head. */
static void take_leftover(struct h1_conn *c)
{
    struct h1_request_body *r = &c->body;
    size_t n = c->in_end - c->in_start;
    if (!r->is_chunked && n > r->left) n = (size_t)r->left;
    if (n > r->buf->cap) n = r->buf->cap;
    memcpy(r->buf->data, c->work->in + c->in_start, n);
    c->in_start += n;
    r->buf->end = n;
}

static enum err read_more(struct h1_conn *c)
{
    struct h1_request_body *r = &c->body;
    bool first = r->buf == NULL;
    enum err e = buf_prepare(c);
    if (e != ERR_OK) return e;
    if (first && c->in_start < c->in_end) {
        take_leftover(c);
        return ERR_OK;
    }
    if (!c->readable) return ERR_AGAIN;
    struct h1_body_buf *b = r->buf;
    size_t room = b->cap - b->end, got = 0;
    if (r->is_chunked) room = room < c->work->cap ? room : c->work->cap;
    else if (room > r->left) room = (size_t)r->left;
    e = stream_read(c->stream, b->data + b->end, room, &got);
    if (e == ERR_OK) {
        b->end += got;
        stat_add(&c->server->stats.bytes_received, got);
    } else if (e == ERR_AGAIN) {
        c->readable = false;
    } else if (e == ERR_END) {
        c->peer_eof = true;
        e = ERR_INCOMPLETE_BODY;
    } else {
        h1_conn_fail(c, e);
    }
    return e;
}

static void emit(struct h1_conn *c, struct chunk *out, size_t n)
{
    struct h1_body_buf *b = c->body.buf;
    *out = (struct chunk){b->data + b->start, n, -1, 0, b, buf_release};
    b->refs++;
    b->start += n;
    c->x.received_bytes += n;
}

static enum err take_plain(struct h1_conn *c, struct chunk *out, size_t max_bytes, unsigned *n)
{
    struct h1_request_body *r = &c->body;
    size_t have = r->buf ? r->buf->end - r->buf->start : 0;
    if (have > max_bytes) have = max_bytes;
    if (have > r->left) have = (size_t)r->left;
    if (!have) return ERR_AGAIN;
    emit(c, out, have);
    *n = 1;
    r->left -= have;
    r->done = r->left == 0;
    return ERR_OK;
}

/* ERR_OK, ERR_AGAIN, ERR_END or what is wrong; with *n chunks given out before it. */
static enum err take_chunked(struct h1_conn *c, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct h1_request_body *r = &c->body;
    uint64_t bound = c->conf->max_body_bytes;
    while (*n < max && max_bytes) {
        struct h1_body_buf *b = r->buf;
        if (!b || b->start == b->end) return ERR_AGAIN;
        if (r->left == 0) {
            size_t used = 0;
            enum err e = h1_chunked_next(&r->chunked, (const char *)b->data + b->start, b->end - b->start, &used);
            b->start += used;
            if (e != ERR_OK) return e;
            r->left = r->chunked.left;
            if (bound && r->left > bound - c->x.received_bytes) return ERR_BODY_TOO_LARGE;
            continue;
        }
        size_t take = b->end - b->start;
        if (take > r->left) take = (size_t)r->left;
        if (take > max_bytes) take = max_bytes;
        emit(c, &out[(*n)++], take);
        h1_chunked_took(&r->chunked, take);
        r->left -= take;
        max_bytes -= take;
    }
    return ERR_OK;
}

static enum err take(struct h1_conn *c, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct h1_request_body *r = &c->body;
    if (!r->is_chunked) return take_plain(c, out, max_bytes, n);
    enum err e = take_chunked(c, out, max, max_bytes, n);
    if (e == ERR_END) r->done = true;
    else if (e != ERR_OK && e != ERR_AGAIN) r->error = e;
    return *n ? ERR_OK : e;
}

static enum err body_pull_h1(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct h1_conn *c = h1_conn_of(container_of(b, struct exchange, req_body));
    struct h1_request_body *r = &c->body;
    if (r->waiting) {
        r->waiting = false;
        h1_conn_timer(c, H1_TIMER_NONE, 0);
    }
    if (r->error != ERR_OK) return r->error;
    if (r->done) return ERR_END;
    if (max == 0 || max_bytes == 0) return ERR_AGAIN;
    h1_request_body_continue(c);
    for (;;) {
        enum err e = take(c, out, max, max_bytes, n);
        if (e != ERR_AGAIN) return e;
        e = read_more(c);
        if (e == ERR_OK) continue;
        if (e == ERR_AGAIN) {
            r->waiting = true;
            h1_conn_timer(c, H1_TIMER_BODY, c->conf->body_timeout_ms);
        } else {
            r->error = e;
        }
        return e;
    }
}

static void body_close_h1(struct body *b)
{
    struct h1_conn *c = h1_conn_of(container_of(b, struct exchange, req_body));
    if (c->body.waiting) h1_conn_timer(c, H1_TIMER_NONE, 0);
    c->body.waiting = c->body.hint = false;
}

static const struct body_ops request_body_ops = {body_pull_h1, body_close_h1};

enum err h1_request_body_begin(struct h1_conn *c)
{
    const struct head *req = &c->x.req;
    struct h1_request_body *r = &c->body;
    *r = (struct h1_request_body){.is_chunked = req->chunked};
    r->present = req->chunked || req->content_length > 0;
    if (req->minor >= 1 && !req->expect_continue && head_find(req, HDR_EXPECT)) return ERR_EXPECTATION;
    if (!r->present) return ERR_OK;
    if (req->chunked) {
        h1_chunked_init(&r->chunked);
        c->x.req_body.length = -1;
    } else {
        r->left = (uint64_t)req->content_length;
        if (c->conf->max_body_bytes && r->left > c->conf->max_body_bytes) return ERR_BODY_TOO_LARGE;
        c->x.req_body.length = req->content_length;
    }
    r->want_continue = req->expect_continue && req->minor >= 1;
    c->x.req_body.ops = &request_body_ops;
    return ERR_OK;
}

void h1_request_body_continue(struct h1_conn *c)
{
    struct h1_request_body *r = &c->body;
    if (!r->want_continue) return;
    r->want_continue = false;
    if (c->in_start < c->in_end) return; /* the client did not wait */
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (h1_out_add(&c->work->out, text, sizeof(text) - 1)) h1_conn_kick(c);
    else h1_conn_fail(c, ERR_NOMEM);
}

bool h1_request_body_at_hand(const struct h1_conn *c)
{
    const struct h1_request_body *r = &c->body;
    if (!r->present || r->done) return true;
    if (r->is_chunked || r->error != ERR_OK) return false;
    size_t have = (r->buf ? r->buf->end - r->buf->start : 0) + (c->in_end - c->in_start);
    return r->left <= have;
}

void h1_request_body_end(struct h1_conn *c)
{
    struct h1_request_body *r = &c->body;
    if (!r->present) return;
    struct h1_body_buf *b = r->buf;
    if (!r->is_chunked && !r->done && h1_request_body_at_hand(c)) {
        /* The buffer never holds more than the body, so what it lacks is at the start of the head buffer's rest. */
        size_t have = b ? b->end - b->start : 0;
        c->in_start += (size_t)r->left - have;
    } else if (r->is_chunked && b && b->start < b->end) {
        /* Everything that followed the head was moved to the body's buffer, or read there. */
        size_t n = b->end - b->start;
        CHECK(c->in_start == c->in_end && n <= c->work->cap);
        memcpy(c->work->in, b->data + b->start, n);
        c->in_start = 0;
        c->in_end = n;
    }
    if (b) buf_unref(b);
    r->buf = NULL;
    r->present = false;
}
