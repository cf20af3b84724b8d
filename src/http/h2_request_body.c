/* h2_request_body.c - the request body of an HTTP/2 exchange as a body source.
 *
 * DATA is copied from the connection's read buffer into buffers of the stream, small ones first, so that a stream with
 * few bytes holds little. What is held is bounded by the flow-control windows: a buffer's bytes are given back to the
 * client's window only when they were pulled and their chunks released. A chunk may outlive its exchange; its bytes are
 * given back to the connection's window when the exchange ends.
 *
 * The stream window begins moderate. While bodies come in, a PING now and then measures how much arrives in a round
 * trip: when that is most of the window, the window is what limits, and it is doubled. */
#include <stdlib.h>

#include "http/h2_conn.h"

enum {
    BUF_MIN_BYTES = 4 * 1024,
    BUF_MAX_BYTES = 64 * 1024,
    FREE_BUFS = 64,
    GRACE_BYTES = 64 * 1024, /* what is taken of a body after the answer, and for how long */
    GRACE_MS = 1000
};

/* ---- buffers */

static struct h2_body_buf *buf_create(struct h2_stream *s)
{
    struct h2_server *sv = s->conn->server;
    struct h2_request_body *r = &s->in;
    struct list *last = list_last(&r->bufs);
    uint32_t cap = last ? container_of(last, struct h2_body_buf, link)->cap * 4 : BUF_MIN_BYTES;
    if (cap > BUF_MAX_BYTES) cap = BUF_MAX_BYTES;
    struct list *n = cap == BUF_MAX_BYTES ? list_pop_front(&sv->free_bufs) : NULL;
    struct h2_body_buf *b = n ? container_of(n, struct h2_body_buf, link) : malloc(sizeof(*b) + cap);
    if (!b) return NULL;
    if (n) sv->free_buf_count--;
    list_init(&b->link);
    b->server = sv;
    b->stream = s;
    b->refs = 1;
    b->held = true;
    b->cap = cap;
    b->start = b->end = 0;
    list_push_back(&r->bufs, &b->link);
    if (!r->from) r->from = b;
    return b;
}

static void buf_free(struct h2_body_buf *b)
{
    struct h2_server *sv = b->server;
    list_remove(&b->link);
    if (b->cap != BUF_MAX_BYTES || sv->free_buf_count >= FREE_BUFS) {
        free(b);
        return;
    }
    list_push_front(&sv->free_bufs, &b->link);
    sv->free_buf_count++;
}

void h2_request_bodies_free(struct h2_server *sv)
{
    for (struct list *n; (n = list_pop_front(&sv->free_bufs));) free(container_of(n, struct h2_body_buf, link));
    sv->free_buf_count = 0;
}

static void window_give(struct h2_stream *s, size_t n)
{
    if (!n) return;
    if (nghttp2_session_consume(s->conn->session, s->id, n) != 0) h2_conn_fail(s->conn, ERR_NOMEM);
    h2_conn_kick(s->conn);
}

/* Nobody looks at what was given out of it any more. */
static void buf_emptied(struct h2_body_buf *b)
{
    if (b->stream) window_give(b->stream, b->end);
    b->start = b->end = 0;
}

static void buf_unref(struct h2_body_buf *b)
{
    b->refs--;
    if (b->refs == 0) {
        buf_emptied(b);
        buf_free(b);
    } else if (b->refs == 1 && b->held && b->start == b->end) {
        buf_emptied(b);
    }
}

static void buf_release(void *owner, enum chunk_end how)
{
    (void)how; /* never has a file descriptor, so never by sendfile */
    buf_unref(owner);
}

/* The stream's first buffer has given out all, and gets no more. */
static void buf_leave(struct h2_request_body *r)
{
    struct h2_body_buf *b = r->from;
    r->from = b->link.next == &r->bufs ? NULL : container_of(b->link.next, struct h2_body_buf, link);
    b->held = false;
    buf_unref(b);
}

/* ---- the stream window */

const uint8_t h2_probe_ping[8] = {'p', 'r', 'o', 'b', 'i', 'n', 'g', '!'};

static void window_probe(struct h2_conn *c, size_t n)
{
    c->probe_bytes += n;
    if (c->probing || c->probe_bytes < c->stream_window / 2 || c->terminating) return;
    if (c->stream_window >= c->conf->stream_window_max_bytes) return;
    c->probing = h2_conn_ping(c, h2_probe_ping);
    c->probe_bytes = 0;
}

void h2_window_probed(struct h2_conn *c)
{
    uint32_t max = c->conf->stream_window_max_bytes;
    if (!c->probing) return;
    c->probing = false;
    if (c->probe_bytes < c->stream_window / 3 * 2 || c->stream_window >= max) return;
    c->stream_window = c->stream_window > max / 2 ? max : c->stream_window * 2;
    const nghttp2_settings_entry larger = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->stream_window};
    if (nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &larger, 1) != 0) h2_conn_fail(c, ERR_NOMEM);
    h2_conn_kick(c);
}

/* ---- what comes in */

static void body_hint(struct h2_stream *s)
{
    struct h2_request_body *r = &s->in;
    if (!r->waiting) return;
    r->waiting = false;
    timer_stop(&s->body_timer);
    if (!list_linked(&r->hint)) list_push_back(&s->conn->hints, &r->hint);
    h2_conn_kick(s->conn);
}

/* What the handler will not take. */
static void body_discard(struct h2_stream *s)
{
    struct h2_request_body *r = &s->in;
    while (r->from) {
        r->from->start = r->from->end;
        buf_leave(r);
    }
}

static void body_refuse(struct h2_stream *s)
{
    h2_stream_reset(s, NGHTTP2_NO_ERROR, ERR_OK);
}

/* Whoever got the whole answer need not send the rest, and RST_STREAM says so (RFC 9113 section 8.1). But there are clients
 * that take a reset for a failure whatever they have got before, and most often the little that is left is on its way. */
void h2_request_body_decline(struct h2_stream *s)
{
    struct h2_request_body *r = &s->in;
    uint64_t most_ms = s->conn->conf->body_timeout_ms, length = (uint64_t)s->x.req.content_length;
    bool known = s->x.req.content_length >= 0 && length >= r->received;
    bool much = (known ? length - r->received : r->received) > GRACE_BYTES; /* not known: as much again */
    if (s->x.req.expect_continue && !r->received) much = true; /* the client holds it back */
    r->declined = true;
    r->grace = GRACE_BYTES;
    body_hint(s);
    body_discard(s);
    if (much) body_refuse(s);
    else timer_set(&s->body_timer, most_ms < GRACE_MS ? most_ms : GRACE_MS);
}

bool h2_request_body_data(struct h2_stream *s, const uint8_t *p, size_t n)
{
    struct h2_request_body *r = &s->in;
    uint64_t bound = s->conn->conf->max_body_bytes;
    r->received += n;
    if (r->declined) {
        window_give(s, n);
        if (n > r->grace) body_refuse(s);
        r->grace -= n < r->grace ? n : r->grace;
        return true;
    }
    if (bound && r->received > bound && !r->error && r->present) {
        r->error = ERR_BODY_TOO_LARGE;
        body_discard(s);
        body_hint(s);
    }
    if (!s->begun || !r->present || r->dropped || r->error) {
        window_give(s, n);
        return true;
    }
    window_probe(s->conn, n);
    while (n) {
        struct list *last = list_last(&r->bufs);
        struct h2_body_buf *b = last ? container_of(last, struct h2_body_buf, link) : NULL;
        if (!b || !b->held || b->end == b->cap) b = buf_create(s);
        if (!b) return false;
        size_t take = b->cap - b->end < n ? b->cap - b->end : n;
        memcpy(b->data + b->end, p, take);
        b->end += (uint32_t)take;
        p += take;
        n -= take;
    }
    body_hint(s);
    return true;
}

void h2_request_body_ended(struct h2_stream *s)
{
    s->in_done = s->in.ended = true;
    body_hint(s);
}

void h2_request_body_timer(struct timer *t)
{
    struct h2_stream *s = container_of(t, struct h2_stream, body_timer);
    if (s->in.declined) {
        body_refuse(s);
        return;
    }
    stat_add(&s->conn->server->stats.timeouts, 1);
    s->in.error = ERR_REQUEST_TIMEOUT;
    body_hint(s);
}

/* ---- the body source */

static enum err body_pull_h2(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct h2_stream *s = h2_stream_of(container_of(b, struct exchange, req_body));
    struct h2_request_body *r = &s->in;
    if (r->waiting) {
        r->waiting = false;
        if (!r->declined) timer_stop(&s->body_timer);
    }
    if (r->error != ERR_OK) return r->error;
    h2_request_body_continue(s);
    while (*n < max && max_bytes && r->from) {
        struct h2_body_buf *buf = r->from;
        size_t take = buf->end - buf->start;
        if (!take) break;
        if (take > max_bytes) take = max_bytes;
        out[(*n)++] = (struct chunk){buf->data + buf->start, take, -1, 0, buf, buf_release};
        buf->refs++;
        buf->start += (uint32_t)take;
        max_bytes -= take;
        s->x.received_bytes += take;
        if (buf->start == buf->end && buf->end == buf->cap) buf_leave(r);
    }
    if (*n) return ERR_OK;
    if (max == 0 || max_bytes == 0) return ERR_AGAIN;
    if (r->ended) return ERR_END;
    if (s->is_closed || r->declined) return r->error = ERR_INCOMPLETE_BODY;
    r->waiting = true;
    timer_set(&s->body_timer, s->conn->conf->body_timeout_ms);
    return ERR_AGAIN;
}

static void body_close_h2(struct body *b)
{
    struct h2_stream *s = h2_stream_of(container_of(b, struct exchange, req_body));
    struct h2_request_body *r = &s->in;
    if (!r->declined) timer_stop(&s->body_timer);
    list_remove(&r->hint);
    r->waiting = false;
    r->dropped = true;
    body_discard(s);
}

static const struct body_ops request_body_ops = {body_pull_h2, body_close_h2};

enum err h2_request_body_begin(struct h2_stream *s)
{
    const struct head *req = &s->x.req;
    struct h2_request_body *r = &s->in;
    uint64_t bound = s->conn->conf->max_body_bytes;
    r->present = !s->in_done && req->content_length != 0;
    if (!r->present) return ERR_OK;
    if (bound && req->content_length >= 0 && (uint64_t)req->content_length > bound) return ERR_BODY_TOO_LARGE;
    s->x.req_body.length = req->content_length;
    s->x.req_body.ops = &request_body_ops;
    r->want_continue = req->expect_continue;
    return ERR_OK;
}

void h2_request_body_continue(struct h2_stream *s)
{
    struct h2_request_body *r = &s->in;
    static uint8_t name[] = ":status", value[] = "100";
    const nghttp2_nv nv = {name, value, sizeof(name) - 1, sizeof(value) - 1,
                           NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
    if (!r->want_continue) return;
    r->want_continue = false;
    if (r->received || r->ended || s->is_closed || s->resetting) return; /* the client did not wait, or does no more */
    int rv = nghttp2_submit_headers(s->conn->session, NGHTTP2_FLAG_NONE, s->id, NULL, &nv, 1, NULL);
    if (rv != 0) h2_conn_fail(s->conn, ERR_NOMEM);
    h2_conn_kick(s->conn);
}

void h2_request_body_end(struct h2_stream *s)
{
    struct h2_request_body *r = &s->in;
    timer_stop(&s->body_timer);
    list_remove(&r->hint);
    body_discard(s);
    LIST_EACH_SAFE(n, tmp, &r->bufs) {
        struct h2_body_buf *b = container_of(n, struct h2_body_buf, link);
        window_give(s, b->end);
        b->stream = NULL;
        list_remove(&b->link);
    }
}
