/* origin_env.h - what the tests of src/origin share: a small scripted server with a thread per connection, and a worker
 * (loop, mailbox, origin_worker) on the test's own thread.
 *
 * The server does what the path says:
 *   /size/N           200 with N bytes of the pattern           /chunked/N   the same, chunked
 *   /cut/N/M          promises N bytes, sends M, closes         /until/N     N bytes until close
 *   /stall/N/M        promises N, sends M, then nothing         /mute        never answers
 *   /close            closes without an answer                  /late/MS     answers after MS milliseconds
 *   /idle/MS          answers, closes the connection MS later   /garbage     no HTTP
 *   /echo             200, the request's head as body           /sink        reads the body, answers its length
 *   /skew             403 with a Date an hour ahead
 *   /once             closes without an answer when the connection has served before */
#ifndef S3P_TESTS_ORIGIN_ENV_H
#define S3P_TESTS_ORIGIN_ENV_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"
#include "http/date.h"
#include "io/loop.h"
#include "io/mailbox.h"
#include "origin/impl.h"

static inline uint8_t pattern_at(uint64_t i) { return (uint8_t)(i * 131 + (i >> 8) * 7 + (i >> 16)); }

/* ---- the server */

struct server {
    int fd;
    unsigned port;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic unsigned accepted, open, open_max, requests, threads;
    _Atomic unsigned late, late_max; /* requests being answered late, at once */
};
struct server_conn {
    struct server *s;
    int fd;
    unsigned served;
};

static inline void sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

static inline void count_max(_Atomic unsigned *n, _Atomic unsigned *most)
{
    unsigned now = atomic_fetch_add(n, 1) + 1, max = atomic_load(most);
    while (now > max && !atomic_compare_exchange_weak(most, &max, now)) {
    }
}

static inline bool send_all(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t put = send(fd, at, n, MSG_NOSIGNAL);
        if (put <= 0) return false;
        at += put;
        n -= (size_t)put;
    }
    return true;
}

static inline bool send_text(int fd, const char *text) { return send_all(fd, text, strlen(text)); }

static inline bool send_pattern(int fd, uint64_t n, bool chunked)
{
    uint8_t buf[16384];
    for (uint64_t at = 0; at < n;) {
        size_t len = n - at < sizeof buf ? (size_t)(n - at) : sizeof buf;
        char line[32];
        for (size_t i = 0; i < len; i++) buf[i] = pattern_at(at + i);
        snprintf(line, sizeof line, "%zx\r\n", len);
        if (chunked && !send_text(fd, line)) return false;
        if (!send_all(fd, buf, len)) return false;
        if (chunked && !send_text(fd, "\r\n")) return false;
        at += len;
    }
    return !chunked || send_text(fd, "0\r\n\r\n");
}

static inline bool send_ok(int fd, const char *more, uint64_t length)
{
    char head[256];
    snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\n%sContent-Length: %llu\r\n\r\n", more, (unsigned long long)length);
    return send_text(fd, head);
}

/* Reads the rest of a request body; `have` bytes of it came with the head. */
static inline uint64_t read_body(int fd, const char *head, uint64_t have)
{
    char buf[65536];
    const char *at = strcasestr(head, "content-length:");
    uint64_t want = at ? strtoull(at + 15, NULL, 10) : 0;
    while (have < want) {
        ssize_t n = recv(fd, buf, sizeof buf, 0);
        if (n <= 0) break;
        have += (uint64_t)n;
    }
    return have;
}

/* Waits for the peer or the end of the test. */
static inline void wait_closed(struct server_conn *c)
{
    char b[4096];
    while (!atomic_load(&c->s->stop)) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, 20) > 0 && recv(c->fd, b, sizeof b, 0) <= 0) return;
    }
}

/* False: the connection is to be closed. */
static inline bool serve_one(struct server_conn *c, char *head, size_t have)
{
    unsigned long long a = 0, b = 0;
    char text[256], *path = strchr(head, ' ') + 1;
    int fd = c->fd;
    bool is_head = strncmp(head, "HEAD", 4) == 0;
    if (sscanf(path, "/size/%llu", &a) == 1) return send_ok(fd, "", a) && (is_head || send_pattern(fd, a, false));
    if (sscanf(path, "/chunked/%llu", &a) == 1)
        return send_text(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") && send_pattern(fd, a, true);
    if (sscanf(path, "/until/%llu", &a) == 1) {
        if (send_text(fd, "HTTP/1.1 200 OK\r\n\r\n")) send_pattern(fd, a, false);
        return false;
    }
    if (sscanf(path, "/cut/%llu/%llu", &a, &b) == 2) {
        if (send_ok(fd, "", a)) send_pattern(fd, b, false);
        return false;
    }
    if (sscanf(path, "/stall/%llu/%llu", &a, &b) == 2) {
        if (send_ok(fd, "", a) && send_pattern(fd, b, false)) wait_closed(c);
        return false;
    }
    if (sscanf(path, "/late/%llu", &a) == 1) {
        count_max(&c->s->late, &c->s->late_max);
        sleep_ms((unsigned)a);
        atomic_fetch_sub(&c->s->late, 1);
        return send_ok(fd, "", 2) && send_text(fd, "ok");
    }
    if (sscanf(path, "/idle/%llu", &a) == 1) {
        if (send_ok(fd, "", 2) && send_text(fd, "ok")) sleep_ms((unsigned)a);
        return false;
    }
    if (strncmp(path, "/mute", 5) == 0) {
        wait_closed(c);
        return false;
    }
    if (strncmp(path, "/close", 6) == 0) return false;
    if (strncmp(path, "/once", 5) == 0) return c->served == 0 && send_ok(fd, "", 2) && send_text(fd, "ok");
    if (strncmp(path, "/garbage", 8) == 0) {
        send_text(fd, "SSH-2.0-nothing\r\n\r\n");
        return false;
    }
    if (strncmp(path, "/echo", 5) == 0) return send_ok(fd, "", strlen(head)) && send_text(fd, head);
    if (strncmp(path, "/sink", 5) == 0) {
        int n = snprintf(text, sizeof text, "%llu", (unsigned long long)read_body(fd, head, have));
        return send_ok(fd, "", (uint64_t)n) && send_text(fd, text);
    }
    if (strncmp(path, "/skew", 5) == 0) {
        char date[30];
        date_format((int64_t)time(NULL) + 3600, date);
        snprintf(text, sizeof text, "HTTP/1.1 403 Forbidden\r\nDate: %s\r\nContent-Length: 0\r\n\r\n", date);
        return send_text(fd, text);
    }
    return send_text(fd, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
}

static inline void *server_conn_main(void *arg)
{
    struct server_conn *c = arg;
    char head[16384];
    size_t n = 0;
    for (;;) {
        char *end;
        head[n] = '\0';
        while (!(end = strstr(head, "\r\n\r\n"))) {
            struct pollfd p = {.fd = c->fd, .events = POLLIN};
            while (!atomic_load(&c->s->stop) && poll(&p, 1, 20) == 0) {
            }
            ssize_t got = atomic_load(&c->s->stop) ? 0 : recv(c->fd, head + n, sizeof head - 1 - n, 0);
            if (got <= 0) goto done;
            n += (size_t)got;
            head[n] = '\0';
        }
        size_t have = n - (size_t)(end + 4 - head);
        end[2] = '\0';
        atomic_fetch_add(&c->s->requests, 1);
        if (!serve_one(c, head, have)) break;
        c->served++;
        n = 0;
    }
done:
    atomic_fetch_sub(&c->s->open, 1);
    close(c->fd);
    atomic_fetch_sub(&c->s->threads, 1);
    free(c);
    return NULL;
}

static inline void *server_main(void *arg)
{
    struct server *s = arg;
    for (;;) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        while (!atomic_load(&s->stop) && poll(&p, 1, 20) == 0) {
        }
        if (atomic_load(&s->stop)) return NULL;
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0) continue;
        struct server_conn *c = calloc(1, sizeof *c);
        pthread_t t;
        *c = (struct server_conn){.s = s, .fd = fd};
        atomic_fetch_add(&s->accepted, 1);
        atomic_fetch_add(&s->threads, 1);
        count_max(&s->open, &s->open_max);
        if (pthread_create(&t, NULL, server_conn_main, c) != 0) abort();
        pthread_detach(t);
    }
}

/* A port nobody listens on (bound for a moment). */
static inline int listen_any(unsigned *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) != 0) abort();
    getsockname(fd, (struct sockaddr *)&a, &len);
    *port = ntohs(a.sin_port);
    return fd;
}

static inline void server_start(struct server *s)
{
    memset(s, 0, sizeof *s);
    s->fd = listen_any(&s->port);
    if (listen(s->fd, 256) != 0 || pthread_create(&s->thread, NULL, server_main, s) != 0) abort();
}

static inline void server_stop(struct server *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 500 && atomic_load(&s->threads); i++) sleep_ms(10);
    assert_int_equal(atomic_load(&s->threads), 0);
    close(s->fd);
}

/* ---- a worker */

struct env {
    struct loop *loop;
    struct mailbox *mailbox;
    struct origin *origin;
    struct origin_worker *worker;
    struct timer guard;
    bool guarded; /* the guard fired */
    bool closed;
};

static inline struct origin_conf env_conf(unsigned port)
{
    struct origin_conf c = {.name = (char *)"test",
                            .type = ORIGIN_HTTP,
                            .connections_max = 16,
                            .idle_timeout_ms = 10000,
                            .connect_ms = 2000,
                            .tls_ms = 2000,
                            .first_byte_ms = 5000,
                            .stall_ms = 5000,
                            .operation_ms = 20000,
                            .retry_attempts = 5,
                            .retry_base_ms = 100,
                            .retry_cap_ms = 5000,
                            .max_in_flight = 16,
                            .tls_verify = true};
    strcpy(c.endpoint.host, "127.0.0.1");
    c.endpoint.port = port;
    return c;
}

static inline void env_guard(struct timer *t)
{
    struct env *e = container_of(t, struct env, guard);
    e->guarded = true;
    loop_stop(e->loop);
}

/* Runs until somebody calls loop_stop; false when ms passed before. */
static inline bool env_run(struct env *e, uint64_t ms)
{
    e->guarded = false;
    timer_set(&e->guard, ms);
    loop_run(e->loop);
    timer_stop(&e->guard);
    return !e->guarded;
}

static inline void env_open_worker(struct env *e, struct origin *o, unsigned index)
{
    memset(e, 0, sizeof *e);
    e->origin = o;
    if (loop_create(&e->loop) != ERR_OK || mailbox_create(e->loop, &e->mailbox) != ERR_OK) abort();
    timer_init(&e->guard, e->loop, env_guard);
    if (origin_worker_create(o, index, e->mailbox, &e->worker) != ERR_OK) abort();
}

static inline void env_open(struct env *e, const struct origin_conf *c, struct disk *disk)
{
    char msg[256] = "";
    struct origin *o = NULL;
    if (origin_create(c, 1, disk, &o, msg, sizeof msg) != ERR_OK) {
        fprintf(stderr, "origin_create: %s\n", msg);
        abort();
    }
    env_open_worker(e, o, 0);
}

static inline void env_closed(void *arg)
{
    struct env *e = arg;
    e->closed = true;
    loop_stop(e->loop);
}

static inline void env_close_worker(struct env *e)
{
    origin_worker_destroy(e->worker, env_closed, e);
    if (!e->closed && !env_run(e, 5000)) abort();
    mailbox_destroy(e->mailbox);
    loop_destroy(e->loop);
}

static inline void env_close(struct env *e)
{
    env_close_worker(e);
    origin_destroy(e->origin);
}

/* ---- a call that remembers what happened */

enum { CANCEL_NONE, CANCEL_HEAD, CANCEL_SPACE, CANCEL_FILLED, CANCEL_END };
struct get {
    struct env *env;
    struct origin_call *call;
    struct origin_request r;
    uint8_t *buf;
    size_t cap, n, step; /* step: at most so much space at a time; 0 = all */
    unsigned status, heads, ends;
    int64_t body_length, content_length;
    enum err end;
    char text[512]; /* "name: value\n" of the head, cut */
    bool done;
    /* behaviour */
    size_t pause_at; /* no space from there on until resumed; SIZE_MAX never */
    bool paused;
    int cancel_in; /* CANCEL_... */
    bool cancelled;
    void (*on_end)(struct get *g);
    void *arg;
    unsigned *left; /* stops the loop when it comes to 0 */
};

static inline void get_over(struct get *g)
{
    g->done = true;
    g->call = NULL;
    if (!g->left || --*g->left == 0) loop_stop(g->env->loop);
}

static inline bool get_cancel_in(struct get *g, int where)
{
    if (g->cancel_in != where) return false;
    origin_cancel(g->call);
    g->cancelled = true;
    if (where != CANCEL_END) get_over(g);
    return true;
}

static inline void get_head(void *arg, const struct head *resp, int64_t body_length)
{
    struct get *g = arg;
    g->heads++;
    g->status = resp->status;
    g->body_length = body_length;
    g->content_length = resp->content_length;
    g->text[0] = '\0';
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        size_t at = strlen(g->text);
        snprintf(g->text + at, sizeof g->text - at, STR_FMT ": " STR_FMT "\n", STR_ARG(resp->hdrs[i].name),
                 STR_ARG(resp->hdrs[i].value));
    }
    get_cancel_in(g, CANCEL_HEAD);
}

static inline unsigned get_space(void *arg, struct iovec *iov, unsigned max)
{
    struct get *g = arg;
    (void)max;
    if (get_cancel_in(g, CANCEL_SPACE)) return 0;
    if (g->n >= g->pause_at) {
        g->paused = true;
        return 0;
    }
    size_t room = g->cap - g->n;
    if (g->step && room > g->step) room = g->step;
    if (room > g->pause_at - g->n) room = g->pause_at - g->n;
    if (room == 0) abort(); /* more than was promised */
    iov[0] = (struct iovec){g->buf + g->n, room > 1 ? room / 2 : room};
    if (room == 1) return 1;
    iov[1] = (struct iovec){g->buf + g->n + room / 2, room - room / 2};
    return 2;
}

static inline void get_filled(void *arg, size_t n)
{
    struct get *g = arg;
    g->n += n;
    get_cancel_in(g, CANCEL_FILLED);
}

static inline void get_end(void *arg, enum err why)
{
    struct get *g = arg;
    g->ends++;
    g->end = why;
    get_cancel_in(g, CANCEL_END);
    void (*on_end)(struct get *) = g->on_end;
    get_over(g);
    if (on_end) on_end(g);
}

static const struct client_events get_events = {
    .head = get_head, .space = get_space, .filled = get_filled, .end = get_end};

static inline void get_init(struct get *g, struct env *e, const char *path, size_t cap)
{
    memset(g, 0, sizeof *g);
    g->env = e;
    g->buf = malloc(cap ? cap : 1);
    g->cap = cap;
    g->pause_at = SIZE_MAX;
    g->r.method = METHOD_GET;
    g->r.method_text = STR_LIT("GET");
    const char *q = strchr(path, '?');
    g->r.path = q ? str_make(path, (size_t)(q - path)) : str_c(path);
    if (q) g->r.query = str_c(q + 1);
}

static inline void get_free(struct get *g)
{
    free(g->buf);
    g->buf = NULL;
}

static inline void get_submit(struct get *g)
{
    if (origin_submit(g->env->worker, &g->r, &get_events, g, &g->call) != ERR_OK) abort();
}

static inline bool get_is_pattern(const struct get *g, uint64_t from, size_t n)
{
    if (g->n != n) return false;
    for (size_t i = 0; i < n; i++)
        if (g->buf[i] != pattern_at(from + i)) return false;
    return true;
}

/* Submits and waits for the end. */
static inline void get_run(struct get *g)
{
    get_submit(g);
    if (!env_run(g->env, 15000)) {
        fprintf(stderr, "no end: " STR_FMT "\n", STR_ARG(g->r.path));
        abort();
    }
}

static inline void get_path(struct get *g, struct env *e, const char *path, size_t cap)
{
    get_init(g, e, path, cap);
    get_run(g);
}

#endif
