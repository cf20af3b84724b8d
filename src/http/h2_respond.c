/* h2_respond.c - what the handler calls on an HTTP/2 exchange: respond, inform, reset; response heads, and the way of
 * response bodies into DATA frames.
 *
 * The session asks how much of a body may go (h2_read_length), then for that much (read_body: chunks are pulled and
 * kept in the stream), then to put a frame header and these bytes into the out queue (h2_send_data: references). A body
 * that has nothing yet is deferred; its notification puts the stream on the connection's list of those to resume. */
#include "base/log.h"
#include "http/date.h"
#include "http/h2_conn.h"

enum {
    FRAME_BYTES_ALONE = 256 * 1024, /* largest DATA frame, where the client allows it */
    FRAME_BYTES_SHARED = 64 * 1024, /* when other streams wait for their turn */
    PULL_BYTES = 256 * 1024,        /* at once, of one stream */
    HELD_BYTES = 1 << 20,           /* about: pulled and not yet framed, of all streams of a connection */
    COPY_BYTES = 2048,              /* smaller payloads are copied: cheaper than one more iovec */
    STACK_FIELDS = 48
};

/* ---- heads */

static struct str date_value(struct h2_server *s)
{
    uint64_t now = loop_now_ms(s->loop);
    if (now >= s->date_until_ms) {
        uint64_t wall = wallclock_ms();
        date_format((int64_t)(wall / 1000), s->date);
        s->date_until_ms = now + (1000 - wall % 1000);
    }
    return str_make(s->date, 29);
}

/* Connection-specific fields make a message malformed (RFC 9113 section 8.2.2); the length we write ourselves. */
static bool is_dropped(enum hdr_id id)
{
    return id == HDR_CONNECTION || id == HDR_CONTENT_LENGTH || id == HDR_TRANSFER_ENCODING || id == HDR_KEEP_ALIVE ||
           id == HDR_PROXY_CONNECTION || id == HDR_UPGRADE;
}

/* Names the library copies it also turns to lower case. */
static nghttp2_nv field(struct str name, struct str value, bool name_stays)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p, name.n, value.n,
                        name_stays ? NGHTTP2_NV_FLAG_NO_COPY_NAME : NGHTTP2_NV_FLAG_NONE};
}

static size_t fields_fill(struct h2_server *sv, nghttp2_nv *nv, const struct head *resp, struct str status,
                          struct str length)
{
    size_t n = 0;
    bool have_date = false;
    nv[n++] = field(STR_LIT(":status"), status, true);
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        const struct hdr *h = &resp->hdrs[i];
        if (is_dropped(h->id)) continue;
        have_date |= h->id == HDR_DATE;
        nv[n++] = h->id == HDR_OTHER ? field(h->name, h->value, false) : field(hdr_name(h->id), h->value, true);
    }
    if (!have_date) nv[n++] = field(STR_LIT("date"), date_value(sv), true);
    if (length.n) nv[n++] = field(STR_LIT("content-length"), length, true);
    return n;
}

static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user);

/* with_body: DATA follows. The fields are copied by the library before it returns. */
static void submit(struct h2_stream *s, const struct head *resp, bool send_length, bool with_body)
{
    struct h2_conn *c = s->conn;
    nghttp2_nv on_stack[STACK_FIELDS], *nv = on_stack;
    char status[20], length[20];
    size_t status_n = u64_to_dec(resp->status, status);
    size_t length_n = send_length ? u64_to_dec((uint64_t)resp->content_length, length) : 0;
    if (resp->nhdrs > STACK_FIELDS - 3) nv = pool_alloc(s->x.pool, (resp->nhdrs + 3) * sizeof(*nv));
    if (!nv) {
        h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, ERR_NOMEM);
        return;
    }
    size_t n = fields_fill(c->server, nv, resp, str_make(status, status_n), str_make(length, length_n));
    nghttp2_data_provider provider = {.source = {.ptr = s}, .read_callback = read_body};
    int rv = nghttp2_submit_response(c->session, s->id, nv, n, with_body ? &provider : NULL);
    if (rv != 0) h2_conn_fail(c, rv == NGHTTP2_ERR_NOMEM ? ERR_NOMEM : ERR_INTERNAL);
    h2_conn_kick(c);
}

/* ---- bodies */

void h2_response_drop(struct h2_stream *s)
{
    for (; s->first < s->count; s->first++) chunk_release(&s->chunks[s->first], CHUNK_COPIED);
    s->first = s->count = 0;
    s->have = 0;
}

/* The producer may have more: a hint, so only lists are changed here. */
static void on_response_body(void *arg)
{
    struct h2_stream *s = arg;
    CHECK_OBJ(s, H2_STREAM_MAGIC);
    s->notified = true;
    if (!s->deferred || s->is_closed) return;
    if (!list_linked(&s->resume)) list_push_back(&s->conn->resumes, &s->resume);
    h2_conn_kick(s->conn);
}

static void chunks_make_room(struct h2_stream *s)
{
    if (s->first == 0) return;
    memmove(s->chunks, s->chunks + s->first, (s->count - s->first) * sizeof(s->chunks[0]));
    s->count -= s->first;
    s->first = 0;
}

/* Pulls until there are `length` bytes. A little more is asked for at once, as long as the client will take it. */
static enum err body_fetch(struct h2_stream *s, size_t length)
{
    struct h2_conn *c = s->conn;
    size_t share = HELD_BYTES / (c->live ? c->live : 1), want = share < PULL_BYTES ? share : PULL_BYTES;
    int32_t window = nghttp2_session_get_stream_remote_window_size(c->session, s->id);
    int32_t all = nghttp2_session_get_remote_window_size(c->session);
    if (all < window) window = all;
    if (window < 0) window = 0;
    if (want > (size_t)window) want = (size_t)window;
    if (want < length) want = length;
    chunks_make_room(s);
    while (s->have < length && s->count < H2_STREAM_CHUNKS) {
        size_t room = want - s->have, got = 0;
        unsigned n;
        if (s->bounded && s->left < room) room = (size_t)s->left;
        if (room == 0) return ERR_OK;
        s->notified = false;
        enum err e = body_pull(s->body, s->chunks + s->count, H2_STREAM_CHUNKS - s->count, room, &n);
        if (e != ERR_OK) return e;
        if (n == 0 || n > H2_STREAM_CHUNKS - s->count) return ERR_INTERNAL;
        for (unsigned i = s->count; i < s->count + n; i++) got += s->chunks[i].len;
        s->count += n;
        if (got == 0 || got > room) return ERR_INTERNAL;
        s->have += got;
        if (s->bounded) s->left -= got;
    }
    return ERR_OK;
}

static ssize_t body_broke(struct h2_stream *s, enum err e)
{
    if (e == ERR_INTERNAL) log_error("a response body gave more than it was asked for: stream reset");
    else log_info("response cut off, stream reset: %s", err_text(e));
    if (!s->fail) s->fail = e;
    s->resetting = true;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* the library sends RST_STREAM */
}

/* Called inside of the session's sending. */
static ssize_t read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    struct h2_stream *s = source->ptr;
    (void)session, (void)id, (void)buf, (void)user;
    CHECK_OBJ(s, H2_STREAM_MAGIC);
    bool all_pulled = s->pull_end || (s->bounded && s->left == 0);
    s->deferred = false;
    if (s->have < length && !all_pulled) {
        enum err e = body_fetch(s, length);
        if (e == ERR_END) {
            if (s->bounded && s->left) return body_broke(s, ERR_TRUNCATED);
            s->pull_end = true;
        } else if (e == ERR_AGAIN) {
            if (!s->have) {
                s->deferred = true;
                if (s->notified) on_response_body(s); /* from inside the pull: after the others had their turn */
                return NGHTTP2_ERR_DEFERRED;
            }
        } else if (e != ERR_OK) {
            return body_broke(s, e);
        }
        all_pulled = s->pull_end || (s->bounded && s->left == 0);
    }
    *flags = NGHTTP2_DATA_FLAG_NO_COPY;
    if (s->have <= length && all_pulled) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)(s->have < length ? s->have : length);
}

ssize_t h2_read_length(nghttp2_session *session, uint8_t frame_type, int32_t id, int32_t session_window,
                       int32_t stream_window, uint32_t max_frame_size, void *user)
{
    const struct h2_conn *c = user;
    uint32_t most = c->live > 1 ? FRAME_BYTES_SHARED : FRAME_BYTES_ALONE;
    (void)session, (void)frame_type, (void)id, (void)session_window, (void)stream_window;
    return (ssize_t)(max_frame_size < most ? max_frame_size : most);
}

static bool payload_copy(struct h2_stream *s, size_t length)
{
    struct h2_out *out = s->conn->out;
    while (length) {
        struct chunk *ch = &s->chunks[s->first];
        size_t n = ch->len - s->first_off < length ? ch->len - s->first_off : length;
        if (!h2_out_add(out, ch->data + s->first_off, n, &s->x)) return false;
        s->first_off += n;
        s->have -= n;
        length -= n;
        if (s->first_off < ch->len) continue;
        /* Referred to before: then it goes when those bytes are out. */
        if (s->first_shared) h2_out_refer(out, ch, 0, 0, true, &s->x);
        else chunk_release(ch, CHUNK_COPIED);
        s->first++;
        s->first_off = 0;
        s->first_shared = false;
    }
    return true;
}

static void payload_refer(struct h2_stream *s, size_t length)
{
    while (length) {
        struct chunk *ch = &s->chunks[s->first];
        size_t n = ch->len - s->first_off < length ? ch->len - s->first_off : length;
        bool last = n == ch->len - s->first_off;
        h2_out_refer(s->conn->out, ch, s->first_off, n, last, &s->x);
        s->have -= n;
        length -= n;
        s->first_off = last ? 0 : s->first_off + n;
        s->first_shared = !last;
        s->first += last;
    }
}

int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                 nghttp2_data_source *source, void *user)
{
    struct h2_conn *c = user;
    struct h2_stream *s = source->ptr;
    (void)session, (void)frame;
    CHECK_OBJ(s, H2_STREAM_MAGIC);
    /* A copied payload may need two segments per chunk. */
    if (!h2_out_has_room(c->out, 1 + 2 * H2_STREAM_CHUNKS, c->batch)) return NGHTTP2_ERR_WOULDBLOCK;
    CHECK(length <= s->have);
    if (!h2_out_add(c->out, framehd, 9, NULL)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (length > COPY_BYTES) payload_refer(s, length);
    else if (!payload_copy(s, length)) return NGHTTP2_ERR_CALLBACK_FAILURE;
    s->framed += length;
    c->framed += length;
    h2_guard_sent(&c->guard, length);
    s->last_out = h2_conn_queued(c);
    return 0;
}

/* ---- the handler's calls */

static bool is_over(const struct h2_stream *s)
{
    return s->is_closed || s->resetting || s->conn->fail != ERR_OK || !s->conn->session;
}

static void exchange_respond_h2(struct exchange *x, const struct head *resp, struct body *body)
{
    struct h2_stream *s = h2_stream_of(x);
    CHECK(s->begun && !s->responded);
    s->responded = true;
    s->body = body;
    if (body) {
        body->notify = on_response_body;
        body->notify_arg = s;
    }
    s->in.want_continue = false;
    if (x->close_after) h2_conn_drain(s->conn);
    if (is_over(s)) return; /* end() comes soon and closes the body */

    unsigned status = resp->status;
    bool no_content = status < 200 || status == 204; /* not even a length */
    bool no_body = no_content || status == 304 || x->req.method == METHOD_HEAD;
    bool empty = no_body || resp->content_length == 0 || (!body && resp->content_length < 0);
    bool send_length = !no_content && (resp->content_length >= 0 || (empty && !no_body));
    if (status < 200 || (!empty && !body)) {
        log_error("response %u of %lld bytes without a body: stream reset", status, (long long)resp->content_length);
        h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, ERR_INTERNAL);
        return;
    }
    struct head with_length = *resp;
    if (send_length && with_length.content_length < 0) with_length.content_length = 0;
    s->bounded = resp->content_length >= 0;
    s->left = s->bounded ? (uint64_t)resp->content_length : 0;
    submit(s, &with_length, send_length, !empty);
}

static void exchange_inform_h2(struct exchange *x)
{
    h2_request_body_continue(h2_stream_of(x));
}

static void exchange_reset_h2(struct exchange *x)
{
    struct h2_stream *s = h2_stream_of(x);
    if (s->complete) return; /* it has left, or will with what is before it */
    h2_stream_reset(s, NGHTTP2_INTERNAL_ERROR, ERR_CANCELLED);
}

const struct exchange_ops h2_exchange_ops = {exchange_respond_h2, exchange_inform_h2, exchange_reset_h2};

void h2_respond_error(struct h2_stream *s, enum err e)
{
    const struct h2_server_conf *conf = s->conn->conf;
    struct strbuf text;
    char id[ERROR_ID_BYTES] = "";
    struct hdr fields[2];
    struct head resp = {.status = err_status(e), .hdrs = fields};
    struct str type = str_c(conf->error_content_type);
    strbuf_init(&text, 0);
    if (conf->error_body) conf->error_body(e, &text, id);
    struct str kept = pool_str(s->x.pool, text.failed ? str_make(NULL, 0) : strbuf_get(&text));
    strbuf_free(&text);
    if (kept.n && type.n) fields[resp.nhdrs++] = (struct hdr){STR_LIT("Content-Type"), type, HDR_CONTENT_TYPE};
    if (id[0]) fields[resp.nhdrs++] = (struct hdr){STR_LIT("x-amz-request-id"), str_c(id), HDR_AMZ_REQUEST_ID};
    resp.content_length = (int64_t)kept.n;
    s->responded = s->bounded = true;
    bool with_body = kept.n && method_of(s->x.req.method_text) != METHOD_HEAD;
    if (with_body) {
        s->chunks[0] = (struct chunk){(const uint8_t *)kept.p, kept.n, -1, 0, NULL, NULL};
        s->count = 1;
        s->have = kept.n;
    }
    submit(s, &resp, true, with_body);
}
