/* h2_server_support.h - for the tests of HTTP/2 client connections: a server with scripted handlers and response
 * bodies, a client made of an nghttp2 session, and a client that writes its frames by hand. One thread: the test
 * writes to its end, lets the loop turn, and looks at what came. */
#ifndef S3P_TESTS_H2_SERVER_SUPPORT_H
#define S3P_TESTS_H2_SERVER_SUPPORT_H

/* Not every program uses every handler. */
#pragma GCC diagnostic ignored "-Wunused-function"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_support.h"
#include "http/h2_conn.h"

enum { MAX_ENDS = 8192, MAX_IDS = 4096, BODY_MAX = 4 << 20 };

/* ---- a scripted response body: pattern[0 .. size) */
struct source {
    struct body body;
    struct list link;       /* sources */
    size_t size, at, piece; /* piece: largest chunk given; 0: any */
    size_t stop_at;         /* answer `stop_err` from here on */
    enum err stop_err;      /* ERR_OK: never */
    unsigned pulls, closed;
    bool lie; /* gives more than asked for */
};
struct piece {
    size_t len;
};
static size_t open_bytes, max_open_bytes; /* given and not released, of all sources */

static void piece_release(void *owner, enum chunk_end how)
{
    struct piece *p = owner;
    assert_int_equal(how, CHUNK_COPIED);
    open_bytes -= p->len;
    free(p);
}

static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    size_t total = 0;
    s->pulls++;
    assert_true(max > 0 && max_bytes > 0);
    while (*n < max && total < max_bytes) {
        size_t limit = s->stop_err ? s->stop_at : s->size, len = limit - s->at;
        if (len == 0) break;
        if (s->piece && len > s->piece) len = s->piece;
        if (len > max_bytes - total && !s->lie) len = max_bytes - total;
        struct piece *p = malloc(sizeof(*p));
        *p = (struct piece){len};
        out[(*n)++] = (struct chunk){pattern + s->at % PATTERN, len, -1, 0, p, piece_release};
        s->at += len;
        total += len;
        open_bytes += len;
        if (open_bytes > max_open_bytes) max_open_bytes = open_bytes;
    }
    if (*n) return ERR_OK;
    return s->stop_err ? s->stop_err : ERR_END;
}

static void source_close(struct body *b)
{
    container_of(b, struct source, body)->closed++;
}
static const struct body_ops source_ops = {source_pull, source_close};

static struct source *source_new(struct exchange *x, size_t size)
{
    struct source *s = pool_zalloc(x->pool, sizeof(*s));
    assert_true(size <= PATTERN);
    s->body.ops = &source_ops;
    s->body.length = (int64_t)size;
    s->size = size;
    return s;
}

/* ---- the handler */
static struct h2_server *server;
static struct h2_server_conf conf;
static struct exchange_handler handler;
static void (*on_begin)(struct exchange *x);
static struct exchange *current; /* the last one begun and not ended */
static struct source *current_source;
static unsigned begins, ends;
static enum err why[MAX_ENDS];
static uint64_t last_sent_bytes, last_received_bytes;
static char got_body[1 << 20];
static size_t got_body_n;
static enum err got_body_err;

static void handler_begin(struct exchange *x)
{
    begins++;
    current = x;
    assert_true(x->begin_ns > 0);
    assert_ptr_equal(x->handler, &handler);
    assert_int_equal(x->proto, PROTO_H2);
    on_begin(x);
}
static void handler_end(struct exchange *x, enum err e)
{
    assert_true(ends < MAX_ENDS);
    assert_null(x->req_body.ops);
    why[ends++] = e;
    last_sent_bytes = x->sent_bytes;
    last_received_bytes = x->received_bytes;
    if (current == x) current = NULL;
}

static void answer(struct exchange *x, unsigned status, int64_t length, struct body *body)
{
    struct hdr h[3] = {{STR_LIT("ETag"), STR_LIT("\"e\""), HDR_ETAG},
                       {STR_LIT("X-Custom-Name"), STR_LIT("Value"), HDR_OTHER},
                       {STR_LIT("Connection"), STR_LIT("close"), HDR_CONNECTION}};
    struct head resp = {.status = status, .hdrs = h, .nhdrs = 3, .content_length = length};
    exchange_respond(x, &resp, body);
}
/* "/N": N bytes of the pattern; "/slow/N": none of them before they are asked for; "/parts/N": in pieces of 1000. */
static void answer_size(struct exchange *x)
{
    struct str t = x->req.target, slow = STR_LIT("/slow/"), parts = STR_LIT("/parts/");
    bool is_slow = str_starts(t, slow), is_parts = str_starts(t, parts);
    size_t skip = is_slow ? slow.n : is_parts ? parts.n : 1;
    uint64_t size = 5;
    (void)str_to_u64(str_make(t.p + skip, t.n - skip), &size);
    struct source *s = source_new(x, size);
    if (is_slow) s->stop_err = ERR_AGAIN;
    if (is_parts) s->piece = 1000;
    current_source = s;
    answer(x, 200, (int64_t)size, size ? &s->body : NULL);
}
static void answer_unknown_length(struct exchange *x)
{
    current_source = source_new(x, 100000);
    answer(x, 200, -1, &current_source->body);
}
static void answer_later(struct exchange *x)
{
    (void)x;
}
static void answer_204(struct exchange *x)
{
    answer(x, 204, -1, NULL);
}
static void answer_304(struct exchange *x)
{
    answer(x, 304, 1234, NULL);
}
static void answer_200_no_body(struct exchange *x)
{
    answer(x, 200, 5, NULL);
}
static void answer_reset(struct exchange *x)
{
    exchange_reset(x);
}

/* Pulls the request body into got_body; answers 200 at its end, or the error's status. */
static void collect(void *arg)
{
    struct exchange *x = arg;
    struct chunk c[4];
    unsigned n;
    for (;;) {
        enum err e = body_pull(&x->req_body, c, 4, 64 * 1024, &n);
        if (e == ERR_AGAIN) return;
        for (unsigned i = 0; i < n; i++) {
            size_t room = sizeof(got_body) - got_body_n, take = c[i].len < room ? c[i].len : room;
            memcpy(got_body + got_body_n, c[i].data, take);
            got_body_n += take;
            chunk_release(&c[i], CHUNK_COPIED);
        }
        if (e == ERR_OK) continue;
        got_body_err = e;
        body_close(&x->req_body);
        answer(x, e == ERR_END ? 200 : err_status(e), 0, NULL);
        return;
    }
}
static void collect_body(struct exchange *x)
{
    if (!x->req_body.ops) {
        answer_size(x);
        return;
    }
    x->req_body.notify = collect;
    x->req_body.notify_arg = x;
    collect(x);
}
static void error_body(enum err e, struct strbuf *out, char id[ERROR_ID_BYTES])
{
    snprintf(id, ERROR_ID_BYTES, "ID%u", err_status(e));
    strbuf_f(out, "<Error><Code>%s</Code></Error>", err_s3_code(e));
}

/* ---- connections */
static int client_fd(void)
{
    struct stream *s;
    struct address peer = {.len = sizeof(peer.ss)};
    int fd = connect_pair(&s);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&peer.ss, &peer.len), 0);
    assert_int_equal(h2_server_accept(server, s, &peer, &conf, &conf, NULL, 0), ERR_OK);
    return fd;
}

static void say_n(int fd, const void *from, size_t n)
{
    const char *p = from;
    unsigned tries = 0;
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EAGAIN && tries++ < 200) {
            pump();
            continue;
        }
        if (w < 0 && (errno == EPIPE || errno == ECONNRESET)) return; /* the test sees it when it reads */
        assert_true(w > 0);
        p += w;
        n -= (size_t)w;
    }
}

static struct h2_conn *only_conn(void)
{
    assert_false(list_empty(&server->conns));
    return container_of(server->conns.next, struct h2_conn, link);
}

/* ---- a client session */
struct seen {
    unsigned status, informs;
    bool head, closed;
    uint32_t error;
    size_t body_n;
    bool body_wrong;
    unsigned frames;
    size_t largest_frame;
    char fields[512];
    size_t fields_n;
    uint64_t closed_at; /* order */
};
struct client {
    int fd;
    nghttp2_session *session;
    struct seen *seen; /* by id / 2 */
    unsigned goaways;
    int32_t goaway_last[4];
    uint32_t goaway_error[4];
    bool eof, broken, stop_reading;
    const char *upload; /* body of the next request */
    size_t upload_n, upload_at;
    bool upload_hold; /* no more for now */
    uint64_t order;
    int32_t data_order[4096]; /* ids of DATA frames as they came */
    unsigned data_frames;
};

static struct seen *seen_of(struct client *c, int32_t id)
{
    assert_true(id > 0 && id / 2 < MAX_IDS);
    return &c->seen[id / 2];
}
static int client_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                            const uint8_t *value, size_t value_n, uint8_t flags, void *user)
{
    struct seen *s = seen_of(user, frame->hd.stream_id);
    (void)session, (void)flags;
    if (name_n == 7 && memcmp(name, ":status", 7) == 0) s->status = (unsigned)atoi((const char *)value);
    int n = snprintf(s->fields + s->fields_n, sizeof(s->fields) - s->fields_n, "%.*s: %.*s\n", (int)name_n,
                     (const char *)name, (int)value_n, (const char *)value);
    s->fields_n += (size_t)n;
    return 0;
}
static int client_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct client *c = user;
    (void)session;
    if (frame->hd.type == NGHTTP2_HEADERS) {
        struct seen *s = seen_of(c, frame->hd.stream_id);
        if (s->status == 100) s->informs++;
        else s->head = true;
    } else if (frame->hd.type == NGHTTP2_DATA) {
        struct seen *s = seen_of(c, frame->hd.stream_id);
        s->frames++;
        if (frame->hd.length > s->largest_frame) s->largest_frame = frame->hd.length;
        if (c->data_frames < ARRAY_LEN(c->data_order)) c->data_order[c->data_frames++] = frame->hd.stream_id;
    } else if (frame->hd.type == NGHTTP2_GOAWAY) {
        if (c->goaways < 4) {
            c->goaway_last[c->goaways] = frame->goaway.last_stream_id;
            c->goaway_error[c->goaways] = frame->goaway.error_code;
        }
        c->goaways++;
    }
    return 0;
}
static int client_on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                          void *user)
{
    struct seen *s = seen_of(user, id);
    (void)session, (void)flags;
    if (s->status == 200 && memcmp(data, pattern + s->body_n, n) != 0) s->body_wrong = true;
    s->body_n += n;
    return 0;
}
static int client_on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user)
{
    struct client *c = user;
    struct seen *s = seen_of(c, id);
    (void)session;
    s->closed = true;
    s->error = error;
    s->closed_at = ++c->order;
    return 0;
}

static void client_send(struct client *c)
{
    const uint8_t *p;
    ssize_t n;
    while (!c->broken && (n = nghttp2_session_mem_send(c->session, &p)) > 0) say_n(c->fd, p, (size_t)n);
}
/* Everything there is, both ways. */
static void client_turn(struct client *c)
{
    static uint8_t buf[1 << 18];
    for (unsigned idle = 0; idle < 3;) {
        client_send(c);
        pump();
        if (c->stop_reading) {
            idle++;
            continue;
        }
        ssize_t r = recv(c->fd, buf, sizeof(buf), 0);
        if (r > 0) {
            idle = 0;
            assert_true(nghttp2_session_mem_recv(c->session, buf, (size_t)r) == r);
            continue;
        }
        if (r == 0) c->eof = true;
        else if (errno != EAGAIN) c->broken = true;
        if (c->eof || c->broken) return;
        idle++;
    }
}

static void client_open_with(struct client *c, int fd, const nghttp2_settings_entry *iv, size_t niv, bool auto_window)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    memset(c, 0, sizeof(*c));
    c->fd = fd;
    c->seen = calloc(MAX_IDS, sizeof(*c->seen));
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, client_on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, client_on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, client_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, client_on_close);
    nghttp2_option_new(&opt);
    nghttp2_option_set_no_auto_window_update(opt, !auto_window);
    assert_int_equal(nghttp2_session_client_new2(&c->session, cb, c, opt), 0);
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(opt);
    assert_int_equal(nghttp2_submit_settings(c->session, 0, iv, niv), 0);
}
static void client_open(struct client *c)
{
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    client_open_with(c, client_fd(), iv, 1, true);
    client_turn(c);
}
static void client_close(struct client *c)
{
    nghttp2_session_del(c->session);
    close(c->fd);
    free(c->seen);
    pump();
}

static ssize_t client_upload(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                             nghttp2_data_source *source, void *user)
{
    struct client *c = user;
    (void)session, (void)id, (void)source;
    if (c->upload_hold) return NGHTTP2_ERR_DEFERRED;
    size_t n = c->upload_n - c->upload_at < length ? c->upload_n - c->upload_at : length;
    memcpy(buf, c->upload + c->upload_at, n);
    c->upload_at += n;
    if (c->upload_at == c->upload_n) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}
static nghttp2_nv nv_of(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value), 0};
}
/* A request with up to eight more fields, name and value in turn, ended by NULL. */
static int32_t client_request(struct client *c, const char *method, const char *path, ...)
{
    nghttp2_nv nv[12] = {nv_of(":method", method), nv_of(":scheme", "http"), nv_of(":authority", "host"),
                         nv_of(":path", path)};
    size_t n = 4;
    va_list ap;
    va_start(ap, path);
    for (const char *name; (name = va_arg(ap, const char *));) nv[n++] = nv_of(name, va_arg(ap, const char *));
    va_end(ap);
    nghttp2_data_provider upload = {.read_callback = client_upload};
    int32_t id = nghttp2_submit_request(c->session, NULL, nv, n, c->upload ? &upload : NULL, NULL);
    assert_true(id > 0);
    return id;
}
#define client_get(c, path) client_request((c), "GET", (path), NULL)

#define assert_field(s, text) assert_non_null(strstr((s)->fields, text))
#define assert_no_field(s, text) assert_null(strstr((s)->fields, text))
static void assert_whole(struct client *c, int32_t id, size_t size)
{
    struct seen *s = seen_of(c, id);
    assert_int_equal(s->status, 200);
    assert_true(s->closed);
    assert_int_equal(s->error, NGHTTP2_NO_ERROR);
    assert_int_equal(s->body_n, size);
    assert_false(s->body_wrong);
}

/* ---- frames by hand */
static uint8_t heard[4 << 20];
static size_t heard_n;
static int heard_errno; /* 0: open; -1: end */

static size_t frame_put(uint8_t *p, size_t length, unsigned type, unsigned flags, uint32_t id, const void *payload)
{
    const uint8_t h[9] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)type,
                          (uint8_t)flags, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    memcpy(p, h, 9);
    if (payload) memcpy(p + 9, payload, length);
    else memset(p + 9, 0, length);
    return 9 + length;
}
static void frame_say(int fd, size_t length, unsigned type, unsigned flags, uint32_t id, const void *payload)
{
    uint8_t *p = malloc(9 + length);
    say_n(fd, p, frame_put(p, length, type, flags, id, payload));
    free(p);
}
/* GET http /4 host: all from the static table or literal without indexing */
static const uint8_t get_block[] = {0x82, 0x86, 0x04, 2, '/', '4', 0x01, 1, 'h'};
static const uint8_t post_block[] = {0x83, 0x86, 0x04, 2, '/', '4', 0x01, 1, 'h'};
static int raw_open(void)
{
    int fd = client_fd();
    say_n(fd, NGHTTP2_CLIENT_MAGIC, NGHTTP2_CLIENT_MAGIC_LEN);
    frame_say(fd, 0, NGHTTP2_SETTINGS, 0, 0, NULL);
    return fd;
}
static void raw_get(int fd, uint32_t id)
{
    unsigned flags = NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM;
    frame_say(fd, sizeof(get_block), NGHTTP2_HEADERS, flags, id, get_block);
}
/* Appends what has come by now. */
static void hear(int fd)
{
    heard_errno = 0;
    pump();
    for (;;) {
        ssize_t r = recv(fd, heard + heard_n, sizeof(heard) - heard_n, 0);
        if (r > 0) {
            heard_n += (size_t)r;
            pump();
            continue;
        }
        if (r == 0) heard_errno = -1;
        else if (errno != EAGAIN) heard_errno = errno;
        return;
    }
}
/* The nth frame of that type (on a stream, or on any with 0) that was heard; its payload's offset, or 0. */
static size_t heard_frame(unsigned type, uint32_t id, unsigned nth, size_t *length)
{
    for (size_t at = 0; at + 9 <= heard_n;) {
        const uint8_t *h = heard + at;
        size_t n = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        uint32_t on = ((uint32_t)h[5] << 24 | (uint32_t)h[6] << 16 | (uint32_t)h[7] << 8 | h[8]) & 0x7fffffff;
        if (h[3] == type && (!id || on == id) && nth-- == 0) {
            if (length) *length = n;
            return at + 9;
        }
        at += 9 + n;
    }
    return 0;
}
static uint32_t heard_u32(size_t at)
{
    return (uint32_t)heard[at] << 24 | (uint32_t)heard[at + 1] << 16 | (uint32_t)heard[at + 2] << 8 | heard[at + 3];
}
/* The error of the GOAWAY that was heard; UINT32_MAX: none. */
static uint32_t heard_goaway(void)
{
    size_t at = heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL);
    return at ? heard_u32(at + 4) : UINT32_MAX;
}

static int setup(void **state)
{
    (void)state;
    handler = (struct exchange_handler){handler_begin, handler_end};
    conf = (struct h2_server_conf){
        .limits = {.head_bytes = 8192, .target_bytes = 1024, .headers = 32},
        .idle_timeout_ms = 60000, .head_timeout_ms = 60000, .body_timeout_ms = 60000, .send_timeout_ms = 60000,
        .linger_ms = 60000, .linger_bytes = 1 << 20, .error_body = error_body, .error_content_type = "application/xml",
    };
    h2_server_conf_defaults(&conf);
    on_begin = answer_size;
    begins = ends = 0;
    current = NULL;
    current_source = NULL;
    got_body_n = heard_n = 0;
    got_body_err = ERR_OK;
    open_bytes = max_open_bytes = 0;
    assert_int_equal(loop_create(&loop), ERR_OK);
    assert_int_equal(h2_server_create(loop, &handler, &conf, &server), ERR_OK);
    pattern_fill();
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    h2_server_kill(server);
    assert_int_equal(begins, ends);
    assert_int_equal(open_bytes, 0);
    assert_int_equal(stat_get(&h2_server_stats(server)->open), 0);
    assert_int_equal(stat_get(&h2_server_stats(server)->in_flight), 0);
    h2_server_destroy(server);
    loop_destroy(loop);
    return 0;
}

#endif
