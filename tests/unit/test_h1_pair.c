/* test_h1_pair.c - our HTTP/1.1 client against our HTTP/1.1 server: many exchanges over a few connections at once, with
 * sizes, framing, piece sizes, pauses and delays drawn at random (same draw in every run). Every byte is compared, both
 * ways, and everything handed out must have come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sys/mman.h>

#include "h1_support.h"
#include "http/h1_client.h"
#include "http/h1_server.h"

enum { CONNS = 4, REQUESTS = 2000, MAX_BODY = 1 << 20 };

static uint64_t seed = 88172645463325252u;
static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % below;
}
/* Small, middling and large sizes equally often. */
static size_t draw_size(void)
{
    return draw(2) ? draw(3000) : draw(2) ? draw(70000) : draw(MAX_BODY);
}

/* ---- a body of pattern bytes that is sometimes not ready */
static unsigned chunks_out, exchanges_ended, requests_left;
static int pattern_fd;
struct source {
    struct body body;
    struct task task;
    size_t size, at;
    bool lazy, by_file;
};
static void source_release(void *owner, enum chunk_end how)
{
    (void)owner, (void)how;
    chunks_out--;
}
static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    if (s->at == s->size) return ERR_END;
    if (s->lazy && draw(3) == 0) {
        task_schedule(&s->task);
        return ERR_AGAIN;
    }
    unsigned want = 1 + draw(max);
    while (*n < want && s->at < s->size && max_bytes) {
        size_t len = s->size - s->at, most = draw(4) ? 1 + draw(200000) : 1 + draw(10);
        if (len > most) len = most;
        if (len > max_bytes) len = max_bytes;
        out[(*n)++] = (struct chunk){pattern + s->at, len, s->by_file ? pattern_fd : -1, s->at, s, source_release};
        chunks_out++;
        s->at += len;
        max_bytes -= len;
    }
    return ERR_OK;
}
static void source_close(struct body *b)
{
    task_cancel(&container_of(b, struct source, body)->task);
}
static const struct body_ops source_ops = {source_pull, source_close};
static void source_wake(struct task *t)
{
    body_notify(&container_of(t, struct source, task)->body);
}
static void source_start(struct source *s, size_t size)
{
    *s = (struct source){.body = {.ops = &source_ops, .length = (int64_t)size}, .size = size};
    s->lazy = draw(2);
    task_init(&s->task, loop, source_wake);
}

/* ---- the server's side: reads the body to its end, then answers with as many bytes as the target says */
struct service {
    struct exchange *x;
    struct source source;
    struct task task;
    size_t got;
};
static void service_answer(struct service *v)
{
    struct exchange *x = v->x;
    uint64_t size = 0;
    assert_true(str_to_u64(str_make(x->req.target.p + 1, x->req.target.n - 1), &size));
    source_start(&v->source, (size_t)size);
    v->source.by_file = draw(2);
    struct head resp = {.status = 200, .content_length = draw(2) ? (int64_t)size : -1};
    exchange_respond(x, &resp, &v->source.body);
}
static void service_read(void *arg)
{
    struct service *v = arg;
    struct chunk c[5];
    unsigned n;
    for (;;) {
        enum err e = body_pull(&v->x->req_body, c, 1 + draw(5), 1 + draw(300000), &n);
        if (e == ERR_AGAIN) return;
        if (e == ERR_END) return service_answer(v);
        assert_int_equal(e, ERR_OK);
        for (unsigned i = 0; i < n; i++) {
            assert_memory_equal(c[i].data, pattern + v->got, c[i].len);
            v->got += c[i].len;
            chunk_release(&c[i], CHUNK_COPIED);
        }
        if (draw(4)) continue;
        task_schedule(&v->task); /* a pause */
        return;
    }
}
static void service_go_on(struct task *t)
{
    service_read(container_of(t, struct service, task));
}
static void service_begin(struct exchange *x)
{
    struct service *v = pool_zalloc(x->pool, sizeof(*v));
    v->x = x;
    x->handler_data = v;
    task_init(&v->task, loop, service_go_on);
    if (!x->req_body.ops) return service_answer(v);
    x->req_body.notify = service_read;
    x->req_body.notify_arg = v;
    service_read(v);
}
static void service_end(struct exchange *x, enum err why)
{
    struct service *v = x->handler_data;
    assert_int_equal(why, ERR_OK);
    assert_int_equal(x->received_bytes, v->got);
    assert_int_equal(x->sent_bytes, v->source.size);
    task_cancel(&v->task);
    exchanges_ended++;
}
static const struct exchange_handler handler = {service_begin, service_end};

/* ---- the client's side */
struct peer {
    struct h1_client *client;
    struct client_request req;
    struct source source;
    struct task resume, next;
    char target[32];
    size_t size, got;
    uint8_t *body;
    bool ended;
};
static struct peer peers[CONNS];
static unsigned busy;

static void peer_next(struct peer *p);
static void on_head(void *arg, const struct head *resp, int64_t body_length)
{
    struct peer *p = arg;
    assert_int_equal(resp->status, 200);
    assert_true(body_length == -1 || (size_t)body_length == p->size);
}
static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    struct peer *p = arg;
    unsigned n = 0, want = 1 + draw(max);
    if (draw(8) == 0) {
        task_schedule(&p->resume);
        return 0;
    }
    for (size_t at = p->got; n < want && at < MAX_BODY; n++) {
        size_t len = 1 + (draw(3) ? draw(400000) : draw(20));
        if (len > MAX_BODY - at) len = MAX_BODY - at;
        iov[n] = (struct iovec){p->body + at, len};
        at += len;
    }
    return n;
}
static void on_filled(void *arg, size_t n)
{
    struct peer *p = arg;
    p->got += n;
    assert_true(p->got <= p->size);
}
static void on_end(void *arg, enum err e)
{
    struct peer *p = arg;
    assert_int_equal(e, ERR_OK);
    assert_int_equal(p->got, p->size);
    assert_memory_equal(p->body, pattern, p->size);
    p->ended = true;
}
static const struct client_events events = {on_head, on_space, on_filled, on_end};
static void on_released(void *arg, struct h1_client *c, bool reusable)
{
    struct peer *p = arg;
    (void)c;
    assert_true(reusable && p->ended);
    if (draw(3)) peer_next(p); /* from inside */
    else task_schedule(&p->next);
}
static void on_idle_closed(void *arg, struct h1_client *c)
{
    (void)arg, (void)c;
    fail();
}
static const struct h1_client_owner owner = {on_released, on_idle_closed};

static void peer_next(struct peer *p)
{
    if (requests_left == 0) {
        if (--busy == 0) loop_stop(loop);
        return;
    }
    requests_left--;
    p->size = draw_size();
    p->got = 0;
    p->ended = false;
    memset(p->body, 0, p->size);
    snprintf(p->target, sizeof(p->target), "/%zu", p->size);
    p->req = (struct client_request){.method = STR_LIT("POST"), .target = str_c(p->target), .method_id = METHOD_POST,
                                     .authority = STR_LIT("h")};
    if (draw(3)) {
        source_start(&p->source, draw_size());
        p->req.body = &p->source.body;
        p->req.body_length = draw(2) ? (int64_t)p->source.size : -1;
        p->req.expect_continue = draw(4) == 0;
    } else {
        p->req.send_zero_length = true;
    }
    h1_client_send(p->client, &p->req, &events, p);
}
static void peer_resume(struct task *t)
{
    h1_client_resume(container_of(t, struct peer, resume)->client);
}
static void peer_go_on(struct task *t)
{
    peer_next(container_of(t, struct peer, next));
}
static void give_up(struct timer *t)
{
    (void)t;
    fail_msg("stuck with %u requests to go", requests_left);
}

static void everything_arrives_both_ways(void **state)
{
    (void)state;
    static struct h1_server_conf conf = {
        .limits = {8192, 1024, 32}, .idle_timeout_ms = 60000, .head_timeout_ms = 60000, .body_timeout_ms = 60000,
        .send_timeout_ms = 60000, .sendfile_min = 1000, .sendfile_max_unproven = 300000,
    };
    static const struct client_timeouts timeouts = {60000, 60000, 60000, 60000};
    struct h1_server *server;
    struct timer guard;
    pattern_fill();
    pattern_fd = memfd_create("pattern", MFD_CLOEXEC);
    for (size_t at = 0; at < MAX_BODY;) at += (size_t)write(pattern_fd, pattern + at, MAX_BODY - at);
    requests_left = REQUESTS;
    assert_int_equal(loop_create(&loop), ERR_OK);
    assert_int_equal(h1_server_create(loop, &handler, NULL, &server), ERR_OK);
    for (unsigned i = 0; i < CONNS; i++) {
        struct stream *ours, *theirs;
        struct address from = {.len = 0};
        struct peer *p = &peers[i];
        int fd = connect_pair(&ours);
        assert_int_equal(h1_server_accept(server, ours, &from, &conf, NULL), ERR_OK);
        assert_int_equal(stream_create(loop, fd, nothing, NULL, &theirs), ERR_OK);
        assert_int_equal(h1_client_create(theirs, &conf.limits, &timeouts, &owner, p, &p->client), ERR_OK);
        task_init(&p->resume, loop, peer_resume);
        task_init(&p->next, loop, peer_go_on);
        p->body = malloc(MAX_BODY);
        task_schedule(&p->next);
        busy++;
    }
    timer_init(&guard, loop, give_up);
    timer_set(&guard, 60000);
    loop_run(loop);
    timer_stop(&guard);
    assert_int_equal(exchanges_ended, REQUESTS);
    assert_true(stat_get(&h1_server_stats(server)->sendfile_bytes) > 0);
    for (unsigned i = 0; i < CONNS; i++) {
        assert_true(h1_client_requests(peers[i].client) > REQUESTS / CONNS / 4);
        h1_client_destroy(peers[i].client);
        free(peers[i].body);
    }
    pump();
    assert_int_equal(stat_get(&h1_server_stats(server)->open), 0);
    assert_int_equal(chunks_out, 0);
    h1_server_destroy(server);
    loop_destroy(loop);
    close(pattern_fd);
    free(pattern);
}

int main(int argc, char **argv)
{
    if (argc > 1) seed ^= strtoull(argv[1], NULL, 0); /* another draw */
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_arrives_both_ways)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
