/* h2_client_frames.c - what nghttp2 reports about a connection to an origin: heads, bodies, the ends of streams.
 *
 * nghttp2 enforces the message rules (RFC 9113, 8.1 to 8.3: pseudo fields, lower case, no connection fields, Content-Length
 * against DATA) by resetting the stream itself. So a stream that ends without END_STREAM and without a reset by the peer or
 * by us was malformed. */
#include "http/h2_client_impl.h"

#include <stdlib.h>

static struct h2_call *stream_of(nghttp2_session *session, int32_t id)
{
    struct h2_call *s = id > 0 ? nghttp2_session_get_stream_user_data(session, id) : NULL;
    if (s) CHECK_OBJ(s, H2_CALL_MAGIC);
    return s;
}

/* ---- heads */

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct h2_client *c = arg;
    if (hd->type == NGHTTP2_CONTINUATION) {
        if (++c->continuations > H2_MAX_CONTINUATIONS) return NGHTTP2_ERR_CALLBACK_FAILURE;
    } else if (hd->type == NGHTTP2_HEADERS) {
        c->continuations = 0;
    } else if (hd->type == NGHTTP2_DATA) {
        struct h2_call *s = stream_of(session, hd->stream_id);
        if (s) s->announced += hd->length;
    }
    return 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_client *c = arg;
    struct h2_call *s = stream_of(session, frame->hd.stream_id);
    c->text_n = 0;
    c->nhdrs = c->status = 0;
    c->content_length = -1;
    if (!s || frame->hd.type != NGHTTP2_HEADERS) return 0;
    if (!s->got_bytes) c->requests++;
    s->got_bytes = true;
    return 0;
}

/* The slice stays valid until the next header block. {NULL, 0}: no room. */
static struct str text_add(struct h2_client *c, const uint8_t *p, size_t n)
{
    if (n > c->limits.head_bytes - c->text_n) return (struct str){NULL, 0};
    char *to = c->text + c->text_n;
    if (n) memcpy(to, p, n);
    c->text_n += n;
    return str_make(to, n);
}

static bool field_add(struct h2_client *c, const uint8_t *name, size_t name_n, const uint8_t *value, size_t value_n)
{
    uint64_t n;
    if (name_n > 0 && name[0] == ':') {
        if (!str_to_u64(str_make((const char *)value, value_n), &n) || n < 100 || n > 999) return false;
        c->status = (unsigned)n;
        return true;
    }
    if (c->nhdrs == c->limits.headers) return false;
    struct hdr *h = &c->hdrs[c->nhdrs];
    h->name = text_add(c, name, name_n);
    h->value = text_add(c, value, value_n);
    if (!h->name.p || !h->value.p) return false;
    h->id = hdr_id_of(h->name);
    c->nhdrs++;
    if (h->id != HDR_CONTENT_LENGTH) return true;
    if (!str_to_u64(h->value, &n) || n > INT64_MAX) return false;
    c->content_length = (int64_t)n;
    return true;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct h2_call *s = stream_of(session, frame->hd.stream_id);
    (void)flags;
    if (!s || !h2_call_is_live(s)) return 0;
    if (field_add(arg, name, name_n, value, value_n)) return 0;
    h2_call_finish(s, ERR_PROTOCOL);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* nghttp2 would drop such a field and go on. */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                             const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct h2_call *s = stream_of(session, frame->hd.stream_id);
    (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)arg;
    if (s) h2_call_finish(s, ERR_PROTOCOL);
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void interim_response(struct h2_call *s, unsigned status)
{
    if (++s->interim > H2_MAX_INTERIM) return h2_call_finish(s, ERR_PROTOCOL);
    if (status == 100 && s->hold_body) {
        s->hold_body = false;
        s->poke = true;
        h2_call_timer(s, H2_TIMER_SEND);
        h2_call_due(s);
    }
    if (s->request_sent) h2_call_timer(s, H2_TIMER_FIRST_BYTE);
}

static void final_response(struct h2_call *s, bool end)
{
    struct h2_client *c = s->client;
    struct head h = {.status = c->status,
                     .reason = str_c(status_reason(c->status)),
                     .minor = 1,
                     .hdrs = c->hdrs,
                     .nhdrs = c->nhdrs,
                     .content_length = c->content_length,
                     .keep_alive = true};
    bool no_body = s->method == METHOD_HEAD || h.status == 204 || h.status == 304;
    s->head_told = true;
    s->body_length = no_body ? 0 : h.content_length >= 0 ? h.content_length : end ? 0 : -1;
    h2_call_stop_request(s);
    h2_call_timer(s, end ? H2_TIMER_NONE : H2_TIMER_STALL);
    s->ev->head(s->arg, &h, s->body_length);
}

static void on_headers(struct h2_call *s, bool end)
{
    unsigned status = s->client->status;
    if (s->head_told) return; /* trailers */
    if (status < 200) interim_response(s, status);
    else final_response(s, end);
}

/* ---- frames */

static void rtt_sample(struct h2_client *c)
{
    if (!c->rtt_from_ns) return;
    uint64_t rtt = clock_ns() - c->rtt_from_ns;
    c->rtt_ns = c->rtt_ns ? (7 * c->rtt_ns + rtt) / 8 : rtt;
    c->rtt_from_ns = 0;
}

/* Until now a stream's window was counted from another size. */
static void settled(struct h2_client *c)
{
    rtt_sample(c);
    c->settled = true;
    LIST_EACH_SAFE(n, tmp, &c->streams) {
        struct h2_call *s = container_of(n, struct h2_call, link);
        if (h2_call_is_live(s) && s->headers_sent) h2_call_window_open(s);
    }
}

/* A body that was begun cannot be sent again if the peer refuses the stream for being one too many. */
static void peer_settled(struct h2_client *c)
{
    c->peer_settled = true;
    LIST_EACH_SAFE(n, tmp, &c->streams) {
        struct h2_call *s = container_of(n, struct h2_call, link);
        s->poke = true;
        h2_call_due(s);
    }
}

static void on_reset(struct h2_call *s, uint32_t code)
{
    s->peer_reset = true;
    s->refused = code == NGHTTP2_REFUSED_STREAM && !s->got_bytes;
    s->wants_h1 = code == NGHTTP2_HTTP_1_1_REQUIRED && !s->got_bytes;
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_client *c = arg;
    struct h2_call *s = stream_of(session, frame->hd.stream_id);
    bool live = s && h2_call_is_live(s), end = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        if (!live) break;
        s->whole = end;
        if (frame->hd.type == NGHTTP2_HEADERS) on_headers(s, end);
        if (end) h2_call_finish(s, ERR_OK);
        break;
    case NGHTTP2_RST_STREAM:
        if (live) on_reset(s, frame->rst_stream.error_code);
        break;
    case NGHTTP2_SETTINGS:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) settled(c);
        else if (!c->peer_settled) peer_settled(c);
        c->changed = true;
        break;
    case NGHTTP2_PING:
        if (frame->hd.flags & NGHTTP2_FLAG_ACK) rtt_sample(c);
        break;
    case NGHTTP2_GOAWAY:
        c->goaway = c->changed = true;
        break;
    default: break;
    }
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n, void *arg)
{
    struct h2_call *s = stream_of(session, id);
    (void)flags, (void)arg;
    nghttp2_session_consume_connection(session, n);
    if (s && h2_call_is_live(s)) h2_call_receive(s, data, n);
    return 0;
}

static enum err close_result(const struct h2_call *s)
{
    if (s->client->terminated) return ERR_PROTOCOL;
    if (s->unprocessed || s->peer_reset) return ERR_RESET;
    bool cut = s->head_told && s->body_length >= 0 && s->announced < (uint64_t)s->body_length;
    return cut ? ERR_TRUNCATED : ERR_PROTOCOL;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct h2_client *c = arg;
    struct h2_call *s = stream_of(session, id);
    if (!s) return 0;
    if (h2_call_is_live(s)) {
        /* nghttp2 itself closes so those above GOAWAY's last stream. */
        bool above = code == NGHTTP2_REFUSED_STREAM && !s->got_bytes;
        s->unprocessed = !c->terminated && (!s->headers_sent || above || s->refused || s->wants_h1);
        s->closed = true;
        h2_call_finish(s, close_result(s));
    }
    s->closed = true;
    h2_call_due(s);
    return 0;
}

/* ---- what went out */

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_client *c = arg;
    struct h2_call *s = stream_of(session, frame->hd.stream_id);
    bool ack = frame->hd.flags & NGHTTP2_FLAG_ACK;
    if ((frame->hd.type == NGHTTP2_SETTINGS || frame->hd.type == NGHTTP2_PING) && !ack) c->rtt_from_ns = clock_ns();
    if (frame->hd.type == NGHTTP2_GOAWAY) c->terminated = true;
    if (!s || !h2_call_is_live(s)) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        s->headers_sent = true;
        if (c->settled) h2_call_window_open(s);
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) {
        s->request_sent = true;
        h2_call_stop_request(s);
        if (!s->head_told) h2_call_timer(s, H2_TIMER_FIRST_BYTE);
    } else if (!s->hold_body) {
        h2_call_timer(s, H2_TIMER_SEND);
    }
    return 0;
}

static int on_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head, size_t n,
                        nghttp2_data_source *source, void *arg)
{
    struct h2_call *s = source->ptr;
    (void)session, (void)frame;
    CHECK_OBJ(s, H2_CALL_MAGIC);
    if (n > s->have) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* ended meanwhile */
    if (!h2_client_out_add(arg, head, 9) || !h2_call_put_body(s, n)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    return 0;
}

/* ---- the session */

static void callbacks_fill(nghttp2_session_callbacks *cb)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(cb, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(cb, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_send_data_callback(cb, on_send_data);
}

static bool settings_queue(struct h2_client *c)
{
    const nghttp2_settings_entry ours[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_WINDOW_MIN},
        {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, H2_FRAME_MAX},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)c->limits.head_bytes},
    };
    return nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, ours, ARRAY_LEN(ours)) == 0 &&
           nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, H2_CONN_WINDOW) == 0;
}

enum err h2_client_session(struct h2_client *c)
{
    nghttp2_session_callbacks *cb = NULL;
    nghttp2_option *opt = NULL;
    bool ok = nghttp2_session_callbacks_new(&cb) == 0 && nghttp2_option_new(&opt) == 0;
    if (ok) {
        callbacks_fill(cb);
        nghttp2_option_set_no_auto_window_update(opt, 1);
        nghttp2_option_set_max_reserved_remote_streams(opt, 0);
        nghttp2_option_set_max_send_header_block_length(opt, H2_REQUEST_HEAD_MAX); /* what clients may send is bounded */
        ok = nghttp2_session_client_new2(&c->session, cb, c, opt) == 0 && settings_queue(c);
    }
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(opt);
    return ok ? ERR_OK : ERR_NOMEM;
}
