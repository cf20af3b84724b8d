/* test_tls_accept.c - between accept and a TLS connection: good clients, slow ones, wrong ones, too many. */
#include "tls_util.h"

#include "io/tls_accept.h"

static struct tls_acceptor *acceptor;
static struct tls_ctx *sctx, *cctx;
static struct stream *got;
static unsigned failures;
static char why_last[200];
static enum err failed_last;
static struct address server_address;
static struct listener *listener;

static void on_any(struct stream *s, unsigned ready, void *arg)
{
    (void)ready, (void)arg;
    loop_stop(stream_loop(s));
}

static void on_accepted(void *ref, struct stream *s, const struct address *peer)
{
    assert_ptr_equal(ref, &server_address);
    assert_true(peer->len > 0);
    got = s;
    stream_set_callback(s, on_any, NULL);
    loop_stop(loop);
}

static void on_failed(void *ref, const struct address *peer, enum err e, const char *why)
{
    assert_ptr_equal(ref, &server_address);
    assert_true(peer->len > 0);
    failures++;
    failed_last = e;
    snprintf(why_last, sizeof why_last, "%s", why);
    loop_stop(loop);
}

static void on_connection(void *arg, int fd, const struct address *peer)
{
    tls_acceptor_add(acceptor, fd, peer, sctx, arg);
}

static unsigned inside, most_inside;
static bool enter(void *owner)
{
    assert_ptr_equal(owner, &inside);
    if (inside == 3) return false;
    if (++inside > most_inside) most_inside = inside;
    return true;
}
static void leave(void *owner)
{
    assert_ptr_equal(owner, &inside);
    assert_true(inside > 0);
    inside--;
}

static int begin(void **state)
{
    struct tls_acceptor_conf conf = {.handshake_ms = 300, .enter = enter, .leave = leave, .owner = &inside,
                                      .ready = on_accepted, .failed = on_failed};
    if (setup(state) != 0) return -1;
    sctx = server_default();
    cctx = client_of(0, "h2");
    got = NULL;
    failures = inside = most_inside = 0;
    assert_int_equal(tls_acceptor_create(loop, &conf, &acceptor), ERR_OK);
    int fd = listen_any(&server_address);
    return listener_start(loop, fd, on_connection, &server_address, &listener) == ERR_OK ? 0 : -1;
}

static int end(void **state)
{
    listener_stop(listener);
    tls_acceptor_destroy(acceptor);
    assert_int_equal(inside, 0);
    tls_ctx_destroy(sctx);
    tls_ctx_destroy(cctx);
    return teardown(state);
}

static struct stream *dial(void)
{
    struct stream *s;
    const struct address *a = &server_address;
    assert_int_equal(stream_connect(loop, (const struct sockaddr *)&a->ss, a->len, on_any, NULL, &s), ERR_OK);
    assert_int_equal(finish_connect(s), ERR_OK);
    return s;
}

static uint64_t pending(void) { return stat_get(&tls_acceptor_stats(acceptor)->pending); }

static void a_good_client_comes_through(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    for (unsigned i = 0; i < 3; i++) {
        struct stream *c = dial();
        got = NULL;
        assert_int_equal(stream_tls_client(c, cctx, "a.test"), ERR_OK);
        while (stream_handshake(c) == ERR_AGAIN) wait_ready();
        assert_int_equal(write_all_of(c, "early", 5), ERR_OK); /* lies in the TLS layer by the time it is handed on */
        while (!got) wait_ready();
        assert_string_equal(stream_alpn(got), "h2");
        expect_bytes(got, "early");
        assert_int_equal(write_all_of(got, "late", 4), ERR_OK);
        expect_bytes(c, "late");
        stream_shutdown_write(c);
        assert_int_equal(read_some(got, buf, sizeof buf, &n), ERR_END);
        stream_destroy(c);
        stream_destroy(got);
        assert_int_equal(stat_get(&tls_acceptor_stats(acceptor)->accepted), i + 1);
        assert_int_equal(stat_get(&tls_acceptor_stats(acceptor)->tls13), i + 1);
        assert_int_equal(stat_get(&tls_acceptor_stats(acceptor)->resumed), i);
    }
    assert_int_equal(failures, 0);
    assert_int_equal(pending(), 0);
    assert_int_equal(inside, 0);
    assert_int_equal(most_inside, 1);
}

static void a_slow_client_is_ended(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct stream *c = dial();
    uint64_t start = clock_ns();
    while (!failures) wait_ready();
    assert_true(clock_ns() - start > 250 * UINT64_C(1000000));
    assert_int_equal(failed_last, ERR_REQUEST_TIMEOUT);
    assert_int_equal(stat_get(&tls_acceptor_stats(acceptor)->timeouts), 1);
    assert_int_equal(read_some(c, buf, sizeof buf, &n), ERR_END);
    assert_int_equal(pending(), 1); /* lingers until the client closes */
    stream_destroy(c);
    struct stream *drip = dial(); /* a byte now and then does not help */
    start = clock_ns();
    while (failures < 2) {
        struct timer t;
        timer_init(&t, loop, on_patience_over);
        timer_set(&t, 40);
        loop_run(loop);
        timer_stop(&t);
        struct iovec v = {(void *)(uintptr_t) "\x16\x03\x01\x02\x00\x01\x00", 1};
        stream_writev(drip, &v, 1, &n);
    }
    assert_true(clock_ns() - start < 3000 * UINT64_C(1000000));
    stream_destroy(drip);
}

static void a_wrong_client_is_told_why(void **state)
{
    (void)state;
    char buf[64];
    size_t n;
    struct stream *c = dial();
    assert_int_equal(write_all_of(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27), ERR_OK);
    while (!failures) wait_ready();
    assert_int_equal(failed_last, ERR_TLS);
    assert_non_null(strstr(why_last, "http request"));
    assert_int_equal(read_some(c, buf, sizeof buf, &n), ERR_END);
    stream_destroy(c);

    struct tls_ctx *wrong = client_of(0, "spdy/3");
    c = dial();
    assert_int_equal(stream_tls_client(c, wrong, "a.test"), ERR_OK);
    enum err e;
    while ((e = stream_handshake(c)) == ERR_AGAIN) wait_ready();
    assert_int_equal(e, ERR_TLS);
    assert_non_null(strstr(stream_error(c), "no application protocol")); /* the alert got through */
    stream_destroy(c);
    tls_ctx_destroy(wrong);
    assert_int_equal(failures, 2);
    c = dial();
    stream_destroy(c); /* came and went */
    while (failures < 3) wait_ready();
    assert_int_equal(stat_get(&tls_acceptor_stats(acceptor)->failed), 3);
}

static void only_so_many_at_a_time(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct stream *c[5];
    for (int i = 0; i < 5; i++) c[i] = dial();
    while (stat_get(&tls_acceptor_stats(acceptor)->refused) < 2) wait_ready();
    assert_int_equal(pending(), 3);
    enum err e = read_some(c[4], buf, sizeof buf, &n);
    assert_true(e == ERR_END || e == ERR_RESET);
    tls_acceptor_close_all(acceptor);
    assert_int_equal(pending(), 0);
    assert_int_equal(failures, 0);
    e = read_some(c[0], buf, sizeof buf, &n);
    assert_true(e == ERR_END || e == ERR_RESET);
    for (int i = 0; i < 5; i++) stream_destroy(c[i]);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(a_good_client_comes_through),
        TEST(a_slow_client_is_ended),
        TEST(a_wrong_client_is_told_why),
        TEST(only_so_many_at_a_time),
    };
    return cmocka_run_group_tests(tests, tls_dir_make, tls_dir_remove);
}
