/* h1_server_support.h - for the tests of HTTP/1.x client connections: a server with scripted handlers and response
 * bodies, and a scripted client. One thread: the test writes to its end, lets the loop turn, and looks at what came. */
#ifndef S3P_TESTS_H1_SERVER_SUPPORT_H
#define S3P_TESTS_H1_SERVER_SUPPORT_H

/* Not every program uses every handler. */
#pragma GCC diagnostic ignored "-Wunused-function"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/mman.h>

#include "h1_support.h"
#include "http/h1_conn.h"

enum { MAX_ENDS = 512 };

/* ---- a scripted response body */
struct source {
    struct body body;
    const uint8_t *data;
    size_t size, at, piece; /* piece: largest chunk given */
    size_t stop_at;         /* answer `stop_err` from here on (AGAIN until it is moved) */
    enum err stop_err;
    int fd;
    bool lie; /* gives more than asked for */
    unsigned pulls, closed, open_chunks, copied, unproven;
    size_t open_bytes, max_open_bytes;
};
struct piece {
    struct source *from;
    size_t len;
};

static void piece_release(void *owner, enum chunk_end how)
{
    struct piece *p = owner;
    p->from->open_chunks--;
    p->from->open_bytes -= p->len;
    if (how == CHUNK_COPIED) p->from->copied++;
    else p->from->unproven++;
    free(p);
}

static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    size_t total = 0;
    s->pulls++;
    while (*n < max && total < max_bytes) {
        size_t limit = s->stop_err ? s->stop_at : s->size, len = limit - s->at;
        if (len == 0) break;
        if (s->piece && len > s->piece) len = s->piece;
        if (len > max_bytes - total && !s->lie) len = max_bytes - total;
        struct piece *p = malloc(sizeof(*p));
        *p = (struct piece){s, len};
        out[(*n)++] = (struct chunk){s->data + s->at, len, s->fd, s->at, p, piece_release};
        s->at += len;
        total += len;
        s->open_chunks++;
        s->open_bytes += len;
        if (s->open_bytes > s->max_open_bytes) s->max_open_bytes = s->open_bytes;
    }
    if (*n) return ERR_OK;
    return s->stop_err ? s->stop_err : ERR_END;
}

static void source_close(struct body *b)
{
    container_of(b, struct source, body)->closed++;
}

static const struct body_ops source_ops = {source_pull, source_close};

static void source_init(struct source *s, const void *data, size_t size)
{
    memset(s, 0, sizeof(*s));
    s->body.ops = &source_ops;
    s->body.length = (int64_t)size;
    s->data = data;
    s->size = size;
    s->fd = -1;
}

/* ---- the handler */
static struct h1_server *server;
static struct h1_server_conf conf;
static struct exchange_handler handler;
static void (*on_begin)(struct exchange *x);
static struct exchange *current; /* the last one begun and not ended */
static unsigned begins, ends;
static enum err why[MAX_ENDS];
static struct source source;
static int64_t answer_length; /* for answer_source */
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
    on_begin(x);
}
static void handler_end(struct exchange *x, enum err e)
{
    assert_true(ends < MAX_ENDS);
    why[ends++] = e;
    last_sent_bytes = x->sent_bytes;
    last_received_bytes = x->received_bytes;
    if (current == x) current = NULL;
}

static void answer(struct exchange *x, unsigned status, int64_t length, struct body *body)
{
    struct hdr h = {STR_LIT("ETag"), STR_LIT("\"e\""), HDR_ETAG};
    struct head resp = {.status = status, .hdrs = &h, .nhdrs = 1, .content_length = length};
    exchange_respond(x, &resp, body);
}
static void answer_source(struct exchange *x)
{
    answer(x, 200, answer_length, &source.body);
}
/* 200 with the request target as body */
static void answer_target(struct exchange *x)
{
    struct source *s = pool_alloc(x->pool, sizeof(*s));
    source_init(s, x->req.target.p, x->req.target.n);
    answer(x, 200, (int64_t)x->req.target.n, &s->body);
}
static void answer_later(struct exchange *x)
{
    (void)x;
}
static void answer_empty(struct exchange *x)
{
    answer(x, 204, -1, NULL);
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
            assert_true(got_body_n + c[i].len <= sizeof(got_body));
            memcpy(got_body + got_body_n, c[i].data, c[i].len);
            got_body_n += c[i].len;
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
        answer_target(x);
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

/* ---- the client */
static int client_connect(void)
{
    struct stream *s;
    struct address peer = {.len = sizeof(peer.ss)};
    int fd = connect_pair(&s);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&peer.ss, &peer.len), 0);
    assert_int_equal(h1_server_accept(server, s, &peer, &conf, &conf), ERR_OK);
    return fd;
}

static void say_n(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EAGAIN) {
            pump();
            continue;
        }
        assert_true(w > 0);
        p += w;
        n -= (size_t)w;
    }
}
static void say(int fd, const char *text)
{
    say_n(fd, text, strlen(text));
}

static char heard[4 << 20];
static size_t heard_n;
static int heard_errno; /* 0: open; -1: end */

/* What has come by now. */
static const char *hear(int fd)
{
    heard_n = 0;
    heard_errno = 0;
    pump();
    for (;;) {
        ssize_t r = recv(fd, heard + heard_n, sizeof(heard) - 1 - heard_n, 0);
        if (r > 0) {
            heard_n += (size_t)r;
            pump();
            continue;
        }
        if (r == 0) heard_errno = -1;
        else if (errno != EAGAIN) heard_errno = errno;
        heard[heard_n] = 0;
        return heard;
    }
}
static const char *ask(int fd, const char *text)
{
    say(fd, text);
    return hear(fd);
}
#define assert_heard(part) assert_non_null(strstr(heard, part))
#define assert_not_heard(part) assert_null(strstr(heard, part))

static struct h1_conn *only_conn(void)
{
    assert_false(list_empty(&server->conns));
    return container_of(server->conns.next, struct h1_conn, link);
}
static unsigned count_of(const char *part)
{
    unsigned n = 0;
    for (const char *p = heard; (p = strstr(p, part)); p += strlen(part)) n++;
    return n;
}

static int setup(void **state)
{
    (void)state;
    handler = (struct exchange_handler){handler_begin, handler_end};
    conf = (struct h1_server_conf){
        .limits = {.head_bytes = 8192, .target_bytes = 1024, .headers = 32},
        .idle_timeout_ms = 60000, .head_timeout_ms = 60000, .body_timeout_ms = 60000, .send_timeout_ms = 60000,
        .linger_ms = 60000, .linger_bytes = 1 << 20, .error_body = error_body, .error_content_type = "application/xml",
    };
    on_begin = answer_target;
    begins = ends = 0;
    current = NULL;
    got_body_n = 0;
    got_body_err = ERR_OK;
    assert_int_equal(loop_create(&loop), ERR_OK);
    assert_int_equal(h1_server_create(loop, &handler, &conf, &server), ERR_OK);
    pattern_fill();
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    h1_server_kill(server);
    assert_int_equal(begins, ends);
    assert_int_equal(stat_get(&h1_server_stats(server)->open), 0);
    assert_int_equal(stat_get(&h1_server_stats(server)->in_flight), 0);
    h1_server_destroy(server);
    loop_destroy(loop);
    return 0;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: h\r\n\r\n"

#endif
