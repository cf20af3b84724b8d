/* fuzz_h2_server.c - libFuzzer target: frames into the HTTP/2 server session, over a socket pair.
 *
 * The first byte of an input chooses: bit 0 raw bytes from the preface on, else records that become frames; bit 1 a
 * client that does not read; bit 2 small pieces; bit 3 a drain in the middle. A record is type, flags, stream,
 * length, payload; type bit 7: a whole GET or POST header block stands before the payload; stream bit 7: let the loop
 * turn first. What is asked for decides what the handler does (see begin). Afterwards nothing may be left: no
 * exchange, no chunk. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "http/h2_server.h"
#include "http/sniff.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define REQUIRE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __LINE__))
static void fuzz_fail(const char *what, int line)
{
    fprintf(stderr, "fuzz_h2_server.c:%d: not so: %s\n", line, what);
    abort();
}

static struct loop *loop;
static struct h2_server *server;
static struct sniffer *sniffer;
static struct h2_server_conf conf;
static struct sniff_conf sniff_conf;
static uint64_t begins, ends;
static size_t open_chunks;
static uint8_t bytes[1 << 20];

/* ---- the loop by hand */

static unsigned turns_left;
static void turn(struct task *t)
{
    if (turns_left-- == 0) loop_stop(loop);
    else task_schedule(t);
}
static void pump(unsigned turns)
{
    struct task t;
    task_init(&t, loop, turn);
    turns_left = turns;
    task_schedule(&t);
    loop_run(loop);
}

/* ---- the handler */

struct source {
    struct body body;
    struct task task; /* gives more, later */
    size_t left, burst, piece;
    enum err at_end;
};

static void chunk_done(void *owner, enum chunk_end how)
{
    (void)owner, (void)how;
    open_chunks--;
}
static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    REQUIRE(max > 0 && max_bytes > 0);
    while (*n < max && max_bytes && s->left && s->burst) {
        size_t len = s->piece;
        if (len > s->left) len = s->left;
        if (len > s->burst) len = s->burst;
        if (len > max_bytes) len = max_bytes;
        out[(*n)++] = (struct chunk){bytes, len, -1, 0, s, chunk_done};
        open_chunks++;
        s->left -= len;
        s->burst -= len;
        max_bytes -= len;
    }
    if (*n) return ERR_OK;
    if (!s->left) return s->at_end;
    task_schedule(&s->task);
    return ERR_AGAIN;
}
static void source_close(struct body *b)
{
    task_cancel(&container_of(b, struct source, body)->task);
}
static const struct body_ops source_ops = {source_pull, source_close};
static void source_more(struct task *t)
{
    struct source *s = container_of(t, struct source, task);
    s->burst = 20000;
    body_notify(&s->body);
}

static void answer(struct exchange *x, size_t size, size_t piece, enum err at_end, bool known)
{
    struct source *s = pool_zalloc(x->pool, sizeof(*s));
    struct hdr h = {STR_LIT("ETag"), STR_LIT("\"e\""), HDR_ETAG};
    struct head resp = {.status = 200, .hdrs = &h, .nhdrs = 1, .content_length = known ? (int64_t)size : -1};
    if (!s) {
        exchange_reset(x);
        return;
    }
    s->body.ops = &source_ops;
    s->body.length = known ? (int64_t)size : -1;
    s->left = at_end == ERR_END ? size : size / 2;
    s->burst = piece;
    s->piece = piece;
    s->at_end = at_end;
    task_init(&s->task, loop, source_more);
    exchange_respond(x, &resp, &s->body);
}

static void body_more(void *arg)
{
    struct exchange *x = arg;
    struct chunk c[3];
    unsigned n;
    enum err e;
    while ((e = body_pull(&x->req_body, c, 3, 7000, &n)) == ERR_OK) {
        for (unsigned i = 0; i < n; i++) {
            REQUIRE(c[i].len > 0);
            chunk_release(&c[i], CHUNK_COPIED);
        }
    }
    if (e == ERR_AGAIN) return;
    body_close(&x->req_body);
    answer(x, 10, 10, ERR_END, true);
}

static void begin(struct exchange *x)
{
    struct str t = x->req.target;
    begins++;
    REQUIRE(x->req.method_text.n > 0);
    for (unsigned i = 0; i < x->req.nhdrs; i++) REQUIRE(x->req.hdrs[i].name.n > 0);
    switch (t.n > 1 ? t.p[1] : 0) {
    case 'b': answer(x, 300000, 5000, ERR_END, true); return;
    case 'u': answer(x, 50000, 50000, ERR_END, false); return;
    case 't': answer(x, 50000, 1000, ERR_END, false); return;
    case 'x': answer(x, 40000, 5000, ERR_CHANGED, true); return;
    case 'r': exchange_reset(x); return;
    case 'n': return; /* never */
    case 'c': x->close_after = true; break;
    default: break;
    }
    if (x->req_body.ops) {
        x->req_body.notify = body_more;
        x->req_body.notify_arg = x;
        body_more(x);
        return;
    }
    answer(x, 1000, 1000, ERR_END, true);
}
static void end(struct exchange *x, enum err why)
{
    (void)why;
    REQUIRE(!x->req_body.ops);
    ends++;
}
static const struct exchange_handler handler = {begin, end};

static void error_body(enum err e, struct strbuf *out, char id[ERROR_ID_BYTES])
{
    memcpy(id, "1", 2);
    strbuf_z(out, err_s3_code(e));
}

static void sniffed(void *arg, void *tag, struct stream *st, const struct address *peer, enum proto proto,
                    const void *p, size_t n)
{
    (void)arg, (void)tag;
    if (proto != PROTO_H2 || h2_server_accept(server, st, peer, &conf, NULL, p, n) != ERR_OK) stream_destroy(st);
}

static void start(void)
{
    conf = (struct h2_server_conf){
        .limits = {.head_bytes = 4096, .target_bytes = 300, .headers = 20},
        .idle_timeout_ms = 3600000, .head_timeout_ms = 3600000, .body_timeout_ms = 3600000, .send_timeout_ms = 3600000,
        .max_body_bytes = 100000, .max_requests = 500, .error_body = error_body, .error_content_type = "text/plain",
    };
    h2_server_conf_defaults(&conf);
    conf.max_streams = 20;
    sniff_conf = (struct sniff_conf){3600000, 3600000, NULL, NULL, NULL};
    REQUIRE(log_open("stderr", LOG_WARN) == ERR_OK);
    REQUIRE(loop_create(&loop) == ERR_OK);
}

/* ---- input */

struct feed {
    int fd;
    bool deaf;
    size_t step;
};

static void listen_to(struct feed *f)
{
    static uint8_t sink[1 << 16];
    if (f->deaf) return;
    while (recv(f->fd, sink, sizeof(sink), MSG_DONTWAIT) > 0) {}
}

static void feed(struct feed *f, const uint8_t *p, size_t n)
{
    for (unsigned stuck = 0; n && stuck < 20;) {
        size_t take = n < f->step ? n : f->step;
        ssize_t w = send(f->fd, p, take, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w <= 0) stuck++;
        else p += w, n -= (size_t)w;
        if (w <= 0 || f->step < 1000) {
            pump(8);
            listen_to(f);
        }
    }
}

static void feed_records(struct feed *f, const uint8_t *p, size_t n)
{
    static const uint8_t get_block[] = {0x82, 0x86, 0x01, 1, 'h'}, post_block[] = {0x83, 0x86, 0x01, 1, 'h'};
    static const char hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    feed(f, (const uint8_t *)hello, sizeof(hello) - 1);
    while (n >= 4) {
        uint8_t frame[9 + 16 + 256];
        size_t len = p[3] < n - 4 ? p[3] : n - 4, total = len, at = 9;
        if (p[2] & 0x80) {
            pump(8);
            listen_to(f);
        }
        if (p[0] & 0x80) {
            memcpy(frame + at, p[0] & 0x40 ? post_block : get_block, sizeof(get_block));
            at += sizeof(get_block);
            total += sizeof(get_block);
        }
        uint8_t type = p[0] & 0x80 ? 1 : p[0] & 0x3f;
        const uint8_t head[9] = {0, (uint8_t)(total >> 8), (uint8_t)total, type, p[1], 0, 0, 0, p[2] & 0x7f};
        memcpy(frame, head, 9);
        memcpy(frame + at, p + 4, len);
        feed(f, frame, 9 + total);
        p += 4 + len;
        n -= 4 + len;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    int pair[2];
    struct stream *st;
    struct address peer = {.len = 0};
    if (n < 2) return 0;
    if (!loop) start();
    /* A server for each input: what is left over is seen as a leak at once. */
    REQUIRE(h2_server_create(loop, &handler, NULL, &server) == ERR_OK);
    REQUIRE(sniffer_create(loop, sniffed, NULL, &sniffer) == ERR_OK);
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair) == 0);
    REQUIRE(stream_create(loop, pair[0], NULL, NULL, &st) == ERR_OK);
    REQUIRE(sniffer_add(sniffer, st, &peer, &sniff_conf, NULL) == ERR_OK);
    struct feed f = {pair[1], data[0] & 2, data[0] & 4 ? 11 : 1 << 20};
    size_t half = data[0] & 8 ? n / 2 : n;
    if (data[0] & 1) {
        feed(&f, data + 1, half - 1);
        if (half < n) {
            h2_server_drain(server, NULL, NULL);
            feed(&f, data + half, n - half);
        }
    } else {
        feed_records(&f, data + 1, half - 1);
        if (half < n) h2_server_drain(server, NULL, NULL);
    }
    pump(60);
    listen_to(&f);
    pump(60);
    close(pair[1]);
    pump(20);
    h2_server_kill(server);
    REQUIRE(begins == ends);
    REQUIRE(open_chunks == 0);
    struct h2_server_stats *s = h2_server_stats(server);
    REQUIRE(stat_get(&s->open) == 0 && stat_get(&s->in_flight) == 0);
    sniffer_destroy(sniffer);
    h2_server_destroy(server);
    return 0;
}
