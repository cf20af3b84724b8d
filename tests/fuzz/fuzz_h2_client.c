/* fuzz_h2_client.c - libFuzzer target: an origin's frames into the HTTP/2 client session, over a socket pair.
 *
 * The first byte of an input chooses: bit 0 raw bytes, else records that become frames behind a SETTINGS; bit 1 small
 * pieces; bit 2 a receiver that pauses; bit 3 the second request has a body; bit 4 the first request is cancelled inside
 * an event, which one says the second byte; bit 5 the third is a HEAD; bit 6 a further request is sent from end(); bit 7
 * the peer closes before the loop has turned. A record is type, flags, stream, length, payload; type bit 7: a header
 * block of a 200 stands before the payload, with bit 6 a Content-Length too; stream bit 7: let the loop turn first.
 * Whatever comes: events in their order, one end each, no byte beyond the space given, nothing left. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "http/h2_client.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define REQUIRE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __LINE__))
static void fuzz_fail(const char *what, int line)
{
    fprintf(stderr, "fuzz_h2_client.c:%d: not so: %s\n", line, what);
    abort();
}

enum { REQUESTS = 5, FIRST = 4 }; /* FIRST at the start, one more from end() */
enum { F_RAW = 1, F_PIECES = 2, F_PAUSE = 4, F_BODY = 8, F_CANCEL = 16, F_HEAD = 32, F_AGAIN = 64, F_CLOSE = 128 };

static struct loop *loop;
static struct h2_client *client;
static bool gone;
static size_t open_chunks;
static const uint8_t bytes[5000];
static uint8_t flags, cancel_where;

struct call {
    struct h2_call *h2;
    struct client_request req;
    struct body body;
    size_t body_left;
    unsigned heads, ends;
    bool started, cancelled, paused;
    size_t got, space;
    int64_t length;
    uint8_t room[700]; /* exact: beyond it AddressSanitizer looks */
};
static struct call *calls;

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

/* ---- the receiver */

static void call_start(struct call *c);

static bool cancel_at(struct call *c, unsigned where)
{
    if (c != calls || !(flags & F_CANCEL) || cancel_where % 3 != where) return false;
    h2_call_cancel(c->h2);
    c->cancelled = true;
    return true;
}
static void on_head(void *arg, const struct head *h, int64_t length)
{
    struct call *c = arg;
    REQUIRE(!c->cancelled && !c->ends && c->heads++ == 0);
    REQUIRE(h->status >= 200 && h->status <= 999);
    for (unsigned i = 0; i < h->nhdrs; i++) {
        REQUIRE(h->hdrs[i].name.n > 0 && h->hdrs[i].name.p[0] != ':');
        for (size_t k = 0; k < h->hdrs[i].value.n; k++) {
            char b = h->hdrs[i].value.p[k];
            REQUIRE(b != '\r' && b != '\n' && b != '\0');
        }
    }
    c->length = length;
    cancel_at(c, 0);
}
static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    struct call *c = arg;
    REQUIRE(!c->cancelled && !c->ends && c->heads == 1 && max > 1);
    if (cancel_at(c, 1)) return 0;
    if (flags & F_PAUSE && (c->got / 512 + c->heads) % 2 && !c->paused) {
        c->paused = true;
        return 0;
    }
    c->paused = false;
    c->space = sizeof c->room;
    iov[0] = (struct iovec){c->room, 1};
    iov[1] = (struct iovec){c->room + 1, sizeof c->room - 1};
    return 2;
}
static void on_filled(void *arg, size_t n)
{
    struct call *c = arg;
    REQUIRE(!c->cancelled && !c->ends && n > 0 && n <= c->space);
    c->space = 0;
    c->got += n;
    REQUIRE(c->length < 0 || c->got <= (size_t)c->length);
    cancel_at(c, 2);
}
static void on_end(void *arg, enum err why)
{
    struct call *c = arg;
    REQUIRE(!c->cancelled && c->ends++ == 0);
    if (why == ERR_OK) REQUIRE(c->heads == 1 && (c->length < 0 || c->got == (size_t)c->length));
    if (h2_call_unprocessed(c->h2)) REQUIRE(c->heads == 0 && why != ERR_OK);
    if (flags & F_AGAIN && !calls[FIRST].started && h2_client_room(client) > 0) call_start(&calls[FIRST]);
}
static const struct client_events events = {on_head, on_space, on_filled, on_end};

/* ---- the request body */

static void chunk_done(void *owner, enum chunk_end how)
{
    (void)owner, (void)how;
    open_chunks--;
}
static enum err body_more(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct call *c = container_of(b, struct call, body);
    REQUIRE(max > 0 && max_bytes > 0);
    if (c->body_left == 0) return ERR_END;
    size_t len = c->body_left < sizeof bytes ? c->body_left : sizeof bytes;
    if (len > max_bytes) len = max_bytes;
    c->body_left -= len;
    open_chunks++;
    out[0] = (struct chunk){bytes, len, -1, 0, c, chunk_done};
    *n = 1;
    return ERR_OK;
}
static const struct body_ops body_ops = {body_more, NULL};

static void call_start(struct call *c)
{
    c->started = true;
    c->req = (struct client_request){.method = STR_LIT("GET"), .method_id = METHOD_GET, .target = STR_LIT("/k"),
                                     .authority = STR_LIT("o.test")};
    if (c == &calls[1] && flags & F_BODY) {
        c->req.method = STR_LIT("PUT");
        c->req.method_id = METHOD_PUT;
        c->body_left = 100000;
        c->body = (struct body){.ops = &body_ops, .length = 100000};
        c->req.body = &c->body;
        c->req.body_length = cancel_where & 8 ? -1 : 100000;
        c->req.expect_continue = cancel_where & 16;
    }
    if (c == &calls[2] && flags & F_HEAD) {
        c->req.method = STR_LIT("HEAD");
        c->req.method_id = METHOD_HEAD;
    }
    REQUIRE(h2_client_send(client, &c->req, 1 << 20, &events, c, &c->h2) == ERR_OK);
}

/* ---- the peer */

static void on_changed(void *arg, struct h2_client *c) { (void)arg, (void)c; }
static void on_closed(void *arg, struct h2_client *c)
{
    (void)arg;
    REQUIRE(!gone && h2_client_streams(c) == 0);
    gone = true;
    client = NULL;
    h2_client_destroy(c);
}
static const struct h2_client_owner owner = {on_changed, on_closed};

static void resume_all(void)
{
    for (unsigned i = 0; i < REQUESTS; i++)
        if (calls[i].started && !calls[i].ends && !calls[i].cancelled) h2_call_resume(calls[i].h2);
}

static void put(int fd, const void *p, size_t n)
{
    for (const uint8_t *at = p; n;) {
        size_t step = flags & F_PIECES && n > 7 ? 7 : n;
        char sink[4096];
        ssize_t w = send(fd, at, step, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (w < 0) w = 0;
        at += w;
        n -= (size_t)w;
        if (w == 0 || flags & F_PIECES) {
            pump(2);
            resume_all();
            if (w == 0 && gone) return;
        }
        while (recv(fd, sink, sizeof sink, MSG_DONTWAIT) > 0) {}
    }
}

static void put_frame(int fd, uint8_t type, uint8_t fl, uint8_t stream, const uint8_t *p, size_t n)
{
    static const uint8_t ok[] = {0x88}, ok_length[] = {0x88, 0x5c, 0x03, '6', '0', '0'};
    uint8_t frame[9 + sizeof ok_length + 256];
    size_t at = 9;
    if (type & 0x80) {
        size_t k = type & 0x40 ? sizeof ok_length : sizeof ok;
        memcpy(frame + at, type & 0x40 ? ok_length : ok, k);
        at += k;
    }
    if (n) memcpy(frame + at, p, n);
    at += n;
    const uint8_t head[9] = {0, (uint8_t)((at - 9) >> 8), (uint8_t)(at - 9), type & 0x0f, fl, 0, 0, 0, stream & 0x7f};
    memcpy(frame, head, sizeof head);
    put(fd, frame, at);
}

static void feed(int fd, const uint8_t *data, size_t n)
{
    if (flags & F_RAW) return put(fd, data, n);
    put_frame(fd, 4, 0, 0, NULL, 0);
    while (n >= 4) {
        size_t len = data[3] < n - 4 ? data[3] : n - 4;
        if (data[2] & 0x80) {
            pump(4);
            resume_all();
        }
        put_frame(fd, data[0], data[1], data[2], data + 4, len);
        data += 4 + len;
        n -= 4 + len;
    }
}

static void finish(int fd)
{
    for (int i = 0; i < 30; i++) {
        pump(4);
        resume_all();
    }
    close(fd);
    for (int i = 0; i < 40 && !gone; i++) { /* held bytes go a little at a time */
        resume_all();
        pump(40);
    }
    REQUIRE(gone && open_chunks == 0);
    for (unsigned i = 0; i < REQUESTS; i++) REQUIRE(!calls[i].started || calls[i].ends + calls[i].cancelled == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct h1_limits limits = {.head_bytes = 2000, .target_bytes = 1000, .headers = 12};
    static const struct client_timeouts timeouts = {60000, 60000, 60000, 60000};
    int fds[2], big = 1 << 20;
    struct stream *s = NULL;
    if (!loop) {
        log_open("off", LOG_ERROR);
        REQUIRE(loop_create(&loop) == ERR_OK);
    }
    if (n < 2) return 0;
    flags = data[0];
    cancel_where = data[1];
    gone = false;
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    calls = calloc(REQUESTS, sizeof *calls);
    REQUIRE(calls && stream_create(loop, fds[0], NULL, NULL, &s) == ERR_OK);
    REQUIRE(h2_client_create(s, &limits, &timeouts, 0, &owner, NULL, &client) == ERR_OK);
    for (unsigned i = 0; i < FIRST; i++) call_start(&calls[i]);
    if (!(flags & F_CLOSE)) pump(4);
    feed(fds[1], data + 2, n - 2);
    finish(fds[1]);
    free(calls);
    return 0;
}
