/* h2_stream.c - what the session tells about a client's streams: request heads (RFC 9113 section 8), the beginning and
 * the end of exchanges.
 *
 * nghttp2 has checked what RFC 9113 asks of a header section (pseudo fields, no connection-specific fields, lower case,
 * Content-Length against DATA). What is checked here is what the HTTP/1.1 parser would not let through either. */
#include <stdlib.h>

#include "base/log.h"
#include "http/h2_conn.h"
#include "http/uri.h"

enum {
    REQUEST_POOL_BYTES = 4 << 20, /* bound of one request's memory where the configuration sets none */
    FREE_STREAMS = 256,
    FIRST_HEADERS = 24,
    FIELD_OVERHEAD = 32, /* RFC 9113 section 6.5.2 */
    BOMB_FACTOR = 16     /* a header list this much over the bound is no mistake any more */
};

/* ---- streams */

static struct h2_stream *stream_new(struct h2_conn *c, int32_t id)
{
    struct h2_server *sv = c->server;
    struct list *n = list_pop_front(&sv->free_streams);
    struct h2_stream *s = n ? container_of(n, struct h2_stream, link) : NULL;
    size_t memory = c->conf->request_memory_bytes;
    struct pool *pool = s ? s->x.pool : pool_create(memory ? memory : REQUEST_POOL_BYTES);
    if (s) sv->free_stream_count--;
    else if (pool) s = malloc(sizeof(*s));
    if (!s) {
        if (pool) pool_destroy(pool);
        return NULL;
    }
    memset(s, 0, sizeof(*s));
    s->magic = H2_STREAM_MAGIC;
    s->id = id;
    s->conn = c;
    s->x.pool = pool;
    list_init(&s->resume);
    list_init(&s->in.hint);
    list_init(&s->in.bufs);
    timer_init(&s->body_timer, sv->loop, h2_request_body_timer);
    list_push_back(&c->streams, &s->link);
    c->live++;
    return s;
}

static void stream_free(struct h2_stream *s)
{
    struct h2_server *sv = s->conn->server;
    list_remove(&s->link);
    list_remove(&s->resume);
    list_remove(&s->in.hint);
    timer_stop(&s->body_timer);
    s->magic = 0;
    if (sv->free_stream_count >= FREE_STREAMS) {
        pool_destroy(s->x.pool);
        free(s);
        return;
    }
    pool_reset(s->x.pool);
    list_push_front(&sv->free_streams, &s->link);
    sv->free_stream_count++;
}

void h2_streams_free(struct h2_server *sv)
{
    for (struct list *n; (n = list_pop_front(&sv->free_streams));) {
        struct h2_stream *s = container_of(n, struct h2_stream, link);
        pool_destroy(s->x.pool);
        free(s);
    }
}

void h2_stream_reset(struct h2_stream *s, uint32_t error, enum err why)
{
    if (s->is_closed || s->resetting) return;
    s->resetting = true;
    s->fail = why;
    int rv = nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, error);
    if (rv != 0) h2_conn_fail(s->conn, ERR_NOMEM);
    h2_conn_kick(s->conn);
}

static void stream_closed(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    s->is_closed = true;
    /* The position behind a last frame is known only when the session has handed it over. */
    s->closed_at = s->complete ? UINT64_MAX : s->last_out;
    list_remove(&s->resume);
    list_remove(&s->link);
    list_push_back(&c->closed, &s->link);
    c->live--;
    if (c->in_head == s) c->in_head = NULL;
}

static void stream_end(struct h2_stream *s)
{
    struct exchange *x = &s->x;
    bool whole = s->complete && s->fail == ERR_OK && s->closed_at <= s->conn->sent;
    h2_response_drop(s);
    if (s->begun) {
        if (whole && !x->first_byte_ns) x->first_byte_ns = clock_ns();
        if (s->body && s->body->ops) body_close(s->body);
        if (x->req_body.ops) body_close(&x->req_body);
        stat_sub(&s->conn->server->stats.in_flight, 1);
        s->begun = false;
        x->handler->end(x, whole ? ERR_OK : s->fail ? s->fail : s->conn->fail ? s->conn->fail : ERR_RESET);
    }
    h2_request_body_end(s);
    stream_free(s);
}

void h2_streams_reap(struct h2_conn *c, bool hard)
{
    LIST_EACH_SAFE(n, tmp, &c->closed) {
        struct h2_stream *s = container_of(n, struct h2_stream, link);
        if (s->closed_at == UINT64_MAX) s->closed_at = h2_conn_queued(c);
        if (hard || s->closed_at <= c->sent) stream_end(s);
        else if (!s->complete && s->body && s->body->ops) body_close(s->body); /* nobody waits for the rest */
    }
}

void h2_streams_close_all(struct h2_conn *c)
{
    LIST_EACH_SAFE(n, tmp, &c->streams) stream_closed(container_of(n, struct h2_stream, link));
}

/* ---- heads */

static bool field_add(struct h2_stream *s, struct str name, struct str value)
{
    struct head *h = &s->x.req;
    struct pool *p = s->x.pool;
    if (h->nhdrs == s->hdr_cap) {
        unsigned cap = s->hdr_cap ? s->hdr_cap * 2 : FIRST_HEADERS;
        struct hdr *v = pool_alloc(p, cap * sizeof(*v));
        if (!v) return false;
        if (h->nhdrs) memcpy(v, h->hdrs, h->nhdrs * sizeof(*v));
        else v[h->nhdrs++] = (struct hdr){.id = HDR_OTHER}; /* the first place is kept for Host */
        h->hdrs = v;
        s->hdr_cap = cap;
    }
    struct hdr *f = &h->hdrs[h->nhdrs];
    f->id = hdr_id_of(name);
    f->name = f->id == HDR_OTHER ? pool_str(p, name) : hdr_name(f->id);
    f->value = pool_str(p, str_trim(value));
    if (!f->name.p || !f->value.p) return false;
    h->nhdrs++;
    if (f->id == HDR_PRIORITY) s->said_priority = true;
    if (f->id == HDR_OTHER && str_eq(f->name, STR_LIT("cookie"))) {
        s->cookies++;
        s->cookie_bytes += f->value.n + 2;
    }
    return true;
}

static bool pseudo_add(struct h2_stream *s, struct str name, struct str value)
{
    struct str copy = pool_str(s->x.pool, value);
    if (!copy.p) return false;
    if (str_eq(name, STR_LIT(":method"))) s->x.req.method_text = copy;
    else if (str_eq(name, STR_LIT(":path"))) s->path = copy;
    else if (str_eq(name, STR_LIT(":scheme"))) s->scheme = copy;
    else if (str_eq(name, STR_LIT(":authority"))) s->authority = copy;
    else s->malformed = true;
    return true;
}

/* The final GOAWAY may still wait for the socket, but it names the last stream: the client will ask elsewhere for what comes
 * behind it, so it must not happen here. */
static int stream_is_too_late(struct h2_conn *c, int32_t id)
{
    c->resets_counted++; /* no fault of the client's */
    return nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_REFUSED_STREAM) == 0
               ? 0 : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    c->in_head = NULL;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (c->drain == H2_DRAIN_FINAL && frame->hd.stream_id > c->drain_last) return stream_is_too_late(c, frame->hd.stream_id);
    struct h2_stream *s = stream_new(c, frame->hd.stream_id);
    if (!s) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    s->x.begin_ns = c->read_ns;
    nghttp2_session_set_stream_user_data(session, s->id, s);
    c->in_head = s;
    return 0;
}

static void head_is_too_large(struct h2_conn *c)
{
    stat_add(&c->server->stats.heads_too_large, 1);
    h2_conn_count(c, H2_FLOOD_HEAD);
}

/* Trailers are not used, but what they inflate to costs time: beyond the bound of a head the stream is reset, and the
 * session only keeps its table up to date for the rest. */
static int trailer_field(struct h2_conn *c, struct h2_stream *s, size_t n)
{
    s->trailer_bytes += n + FIELD_OVERHEAD;
    if (s->trailer_bytes <= c->conf->limits.head_bytes) return 0;
    head_is_too_large(c);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* Over the bound nothing is kept any more, only counted: an answer will say so. */
static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *s = c->in_head;
    const struct h1_limits *limits = &c->conf->limits;
    (void)session, (void)flags;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        s = h2_stream_find(c, frame->hd.stream_id);
        return s ? trailer_field(c, s, name_n + value_n) : 0;
    }
    if (!s) return 0;
    struct str n = {(const char *)name, name_n}, v = {(const char *)value, value_n};
    bool pseudo = name_n && name[0] == ':';
    s->head_bytes += name_n + value_n + FIELD_OVERHEAD;
    if (s->head_bytes > limits->head_bytes) {
        s->refuse = ERR_HEAD_TOO_LARGE;
        if (s->head_bytes / BOMB_FACTOR <= limits->head_bytes) return 0;
        stat_add(&c->server->stats.heads_too_large, 1);
        h2_conn_fault(c, &(struct h2_fault){NGHTTP2_ENHANCE_YOUR_CALM, H2_FLOOD_HEAD, "header list bomb"});
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (!pseudo && s->x.req.nhdrs > limits->headers) s->refuse = ERR_HEAD_TOO_LARGE;
    if (pseudo && str_eq(n, STR_LIT(":path")) && value_n > limits->target_bytes) s->refuse = ERR_URI_TOO_LONG;
    if (s->refuse) return 0;
    if (pseudo ? pseudo_add(s, n, v) : field_add(s, n, v)) return 0;
    s->refuse = ERR_NOMEM;
    return 0;
}

/* By default such fields would be dropped; what would have to be malformed in HTTP/1.1 is here as well. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                             const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    struct h2_conn *c = user;
    (void)session, (void)frame, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags;
    if (c->in_head) c->in_head->malformed = true;
    return 0;
}

/* RFC 9113 section 8.2.3: crumbs are one field to whoever does not speak HTTP/2. */
static bool cookies_join(struct h2_stream *s)
{
    struct head *h = &s->x.req;
    char *all = pool_alloc(s->x.pool, s->cookie_bytes);
    struct hdr *first = NULL;
    unsigned to = 0;
    size_t n = 0;
    if (!all) return false;
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct hdr f = h->hdrs[i];
        if (f.id != HDR_OTHER || !str_eq(f.name, STR_LIT("cookie"))) {
            h->hdrs[to++] = f;
            continue;
        }
        if (n) {
            memcpy(all + n, "; ", 2);
            n += 2;
        }
        memcpy(all + n, f.value.p, f.value.n);
        n += f.value.n;
        if (!first) {
            first = &h->hdrs[to];
            h->hdrs[to++] = f;
        }
    }
    first->value = str_make(all, n);
    h->nhdrs = to;
    return true;
}

/* :authority is the Host field; a Host field that says something else is malformed. */
static enum err host_settle(struct h2_stream *s)
{
    struct head *h = &s->x.req;
    struct str host;
    unsigned port;
    if (!s->hdr_cap) { /* not a single field */
        h->hdrs = pool_alloc(s->x.pool, sizeof(*h->hdrs));
        if (!h->hdrs) return ERR_NOMEM;
        h->nhdrs = 1;
    }
    h->hdrs[0] = (struct hdr){hdr_name(HDR_HOST), s->authority, HDR_HOST};
    const struct hdr *given = NULL;
    for (unsigned i = 1; i < h->nhdrs && !given; i++) given = h->hdrs[i].id == HDR_HOST ? &h->hdrs[i] : NULL;
    if (given && s->authority.n && !str_eq_ci(given->value, s->authority)) s->malformed = true;
    struct str value = given ? given->value : s->authority;
    if (given || !s->authority.n) {
        h->hdrs++;
        h->nhdrs--;
    }
    return authority_parse(value, &host, &port) ? ERR_OK : ERR_BAD_REQUEST;
}

static enum err framing_settle(struct h2_stream *s)
{
    struct head *h = &s->x.req;
    uint64_t length;
    h->content_length = -1;
    for (unsigned i = 0; i < h->nhdrs; i++) {
        const struct hdr *f = &h->hdrs[i];
        if (f->id == HDR_EXPECT) {
            if (!str_eq_ci(f->value, STR_LIT("100-continue"))) return ERR_EXPECTATION;
            h->expect_continue = true;
        } else if (f->id == HDR_CONTENT_LENGTH) {
            if (h->content_length >= 0 || !str_to_u64(f->value, &length) || length > INT64_MAX) return ERR_BAD_REQUEST;
            h->content_length = (int64_t)length;
        }
    }
    return ERR_OK;
}

static enum err target_settle(struct h2_stream *s)
{
    struct head *h = &s->x.req;
    if (h->method == METHOD_CONNECT) { /* as in HTTP/1.1; the handler refuses it */
        h->target = s->authority;
        return ERR_OK;
    }
    if (!str_eq_ci(s->scheme, STR_LIT("http")) && !str_eq_ci(s->scheme, STR_LIT("https"))) return ERR_BAD_REQUEST;
    h->target = s->path;
    if (h->target.n == 0 || (h->target.p[0] != '/' && !str_eq(h->target, STR_LIT("*")))) return ERR_BAD_REQUEST;
    for (size_t i = 0; i < h->target.n; i++) {
        unsigned char b = (unsigned char)h->target.p[i];
        if (b <= 0x20 || b == 0x7f) return ERR_BAD_REQUEST;
    }
    return ERR_OK;
}

static enum err head_settle(struct h2_stream *s)
{
    struct head *h = &s->x.req;
    if (s->refuse) return s->refuse;
    h->minor = 1;
    h->keep_alive = true;
    h->method = method_of(h->method_text);
    if (s->cookies > 1 && !cookies_join(s)) return ERR_NOMEM;
    enum err e = host_settle(s);
    if (e == ERR_OK) e = target_settle(s);
    if (e == ERR_OK) e = framing_settle(s);
    return e;
}

static void exchange_begin(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    struct exchange *x = &s->x;
    stat_add(&c->server->stats.requests, 1);
    stat_add(&c->server->stats.in_flight, 1);
    s->begun = true;
    x->ops = &h2_exchange_ops;
    x->loop = c->server->loop;
    x->peer = &c->peer;
    x->local = &c->local;
    x->listener_data = c->listener_data;
    x->proto = PROTO_H2;
    x->tls = c->tls;
    x->tls_version = stream_tls_version(c->stream);
    x->tls_client = stream_peer(c->stream);
    x->handler = c->server->handler;
    x->handler->begin(x);
}

/* The head is whole. */
static void request_begin(struct h2_stream *s, const nghttp2_frame *frame)
{
    struct h2_conn *c = s->conn;
    s->in_done = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    c->requests++;
    h2_guard_request(&c->guard);
    s->progress_ms = loop_now_ms(c->server->loop);
    if (!s->said_priority) {
        /* The default of RFC 9218 would send one response after the other. */
        nghttp2_extpri shared = {.urgency = NGHTTP2_EXTPRI_DEFAULT_URGENCY, .inc = 1};
        nghttp2_session_change_extpri_stream_priority(c->session, s->id, &shared, 0);
    }
    enum err e = s->malformed ? ERR_OK : head_settle(s);
    if (s->malformed) {
        stat_add(&c->server->stats.bad_requests, 1);
        h2_stream_reset(s, NGHTTP2_PROTOCOL_ERROR, ERR_BAD_REQUEST);
        h2_conn_count(c, H2_FLOOD_RESET);
        return;
    }
    if (e == ERR_OK) e = h2_request_body_begin(s);
    if (e == ERR_OK) {
        exchange_begin(s);
    } else {
        stat_add(&c->server->stats.bad_requests, 1);
        if (e == ERR_HEAD_TOO_LARGE || e == ERR_URI_TOO_LONG) head_is_too_large(c);
        h2_respond_error(s, e);
    }
    if (c->conf->max_requests && c->requests >= c->conf->max_requests) h2_conn_drain(c);
}

/* ---- what the session received */

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *s;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
            s = c->in_head;
            c->in_head = NULL;
            if (s) request_begin(s, frame);
            return 0;
        }
        /* of DATA or of trailers */
        s = frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? h2_stream_find(c, frame->hd.stream_id) : NULL;
        if (s) h2_request_body_ended(s);
        return 0;
    case NGHTTP2_RST_STREAM:
        s = h2_stream_find(c, frame->hd.stream_id);
        stat_add(&c->server->stats.resets_received, 1);
        if (s && !s->complete && !s->fail) s->fail = ERR_RESET;
        return 0;
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK)) c->settings_seen = true;
        return 0;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) h2_conn_ping_acked(c, frame->ping.opaque_data);
        return 0;
    default: return 0;
    }
}

/* The session answers with RST_STREAM (or ends the connection). Counted here and not when that is sent: before the socket
 * takes it, very many could wait. */
static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user)
{
    struct h2_conn *c = user;
    (void)session, (void)frame, (void)error;
    if (c->terminating) return 0;
    c->resets_counted++;
    h2_conn_count(c, H2_FLOOD_RESET);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *s = h2_stream_find(c, id);
    (void)flags;
    if (s) return h2_request_body_data(s, data, n) ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
    return nghttp2_session_consume(session, id, n) == 0 ? 0 : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    struct h2_stream *s = nghttp2_session_get_stream_user_data(session, id);
    (void)error, (void)user;
    if (s) stream_closed(s);
    return 0;
}

/* ---- what the session sent */

static void end_stream_sent(struct h2_stream *s)
{
    s->complete = true;
    if (s->begun) h2_guard_answered(&s->conn->guard);
    if (!s->in_done) h2_request_body_decline(s);
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *s;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        s = frame->hd.flags & NGHTTP2_FLAG_END_STREAM ? h2_stream_find(c, frame->hd.stream_id) : NULL;
        if (s) end_stream_sent(s);
        return 0;
    case NGHTTP2_RST_STREAM:
        s = h2_stream_find(c, frame->hd.stream_id);
        stat_add(&c->server->stats.resets_sent, 1);
        if (s && !s->complete && !s->fail) s->fail = ERR_RESET;
        if (s && s->resetting) return 0; /* our own; where the client provoked it, it was counted then */
        if (c->resets_counted) c->resets_counted--;
        else h2_conn_count(c, H2_FLOOD_RESET);
        return 0;
    case NGHTTP2_GOAWAY:
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) c->goaway_error = true;
        if (c->goaway_error && frame->goaway.error_code != NGHTTP2_ENHANCE_YOUR_CALM)
            stat_add(&c->server->stats.protocol_errors, 1);
        return 0;
    default: return 0;
    }
}

/* A head too large for the library to send: nothing else would end the stream. */
static int on_frame_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int error, void *user)
{
    struct h2_stream *s = h2_stream_find(user, frame->hd.stream_id);
    (void)session;
    if (!s || frame->hd.type != NGHTTP2_HEADERS || error != NGHTTP2_ERR_FRAME_SIZE_ERROR) return 0;
    log_error("the head of a response is too large for HTTP/2: stream reset");
    h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, ERR_INTERNAL);
    return 0;
}

nghttp2_session_callbacks *h2_callbacks_create(void)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb) != 0) return NULL;
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(cb, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_frame_not_sent);
    nghttp2_session_callbacks_set_send_data_callback(cb, h2_send_data);
    nghttp2_session_callbacks_set_data_source_read_length_callback(cb, h2_read_length);
    return cb;
}
