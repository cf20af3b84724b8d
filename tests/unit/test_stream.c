/* test_stream.c - plain streams over loopback TCP, and the listener that accepts them. */
#include "stream_util.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "base/log.h"

/* ---- addresses and the listener */

static void addresses_parse_and_format(void **state)
{
    (void)state;
    static const struct {
        const char *text, *formatted;
    } rows[] = {
        {"127.0.0.1:8080", "127.0.0.1:8080"}, {"[::1]:8080", "[::1]:8080"}, {"*:1", "0.0.0.0:1"},
        {":65535", "0.0.0.0:65535"},          {"[::]:0", "[::]:0"},         {"[2001:DB8::1]:80", "[2001:db8::1]:80"},
    };
    struct address a;
    char buf[64];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(address_parse(rows[i].text, &a), ERR_OK);
        assert_string_equal(address_format((struct sockaddr *)&a.ss, buf, sizeof buf), rows[i].formatted);
    }
    static const char *const bad[] = {
        "", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:80x", "localhost:80", "::1:80",
        "[::1]", "[::1]:", "[::1:80", "[::1]80", "[]:80", "[", "[127.0.0.1]:80", "1.2.3:80", "256.0.0.1:80",
        "1111:2222:3333:4444:5555:6666:7777:8888", "[1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa]:1", ":",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_int_equal(address_parse(bad[i], &a), ERR_CONFIG);
    assert_int_equal(address_parse("unix:/run/x", &a), ERR_NOT_SUPPORTED);
}

static void two_listeners_share_a_port_and_a_taken_one_is_told(void **state)
{
    (void)state;
    struct address a;
    int first = listen_any(&a), second, other;
    assert_int_equal(listen_open(&a, 8, &second), ERR_OK);
    close(second);
    close(first);
    int plain = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); /* without SO_REUSEPORT: in the way */
    assert_int_equal(bind(plain, (struct sockaddr *)&a.ss, a.len), 0);
    assert_int_equal(listen(plain, 1), 0);
    assert_int_equal(listen_open(&a, 8, &other), ERR_IO);
    assert_int_equal(errno, EADDRINUSE);
    close(plain);
}

static struct listener *stopping_listener;
static unsigned accepts;

static void on_accept_stop(void *arg, int fd, const struct address *peer)
{
    (void)arg;
    char buf[64];
    assert_memory_equal(address_format((const struct sockaddr *)&peer->ss, buf, sizeof buf), "127.0.0.1:", 10);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
    if (++accepts == 2) listener_stop(stopping_listener);
    loop_stop(loop);
}

static void a_listener_may_stop_in_its_callback(void **state)
{
    (void)state;
    struct address a;
    int fds[3], fd = listen_any(&a);
    accepts = 0;
    for (int i = 0; i < 3; i++) fds[i] = connect_blocking(&a);
    assert_int_equal(listener_start(loop, fd, on_accept_stop, NULL, &stopping_listener), ERR_OK);
    while (accepts < 2) wait_ready();
    assert_int_equal(accepts, 2);
    for (int i = 0; i < 3; i++) close(fds[i]);
}

static void on_accept_count(void *arg, int fd, const struct address *peer)
{
    (void)arg;
    (void)peer;
    close(fd);
    if (++accepts == 200) loop_stop(loop);
}

static void more_connections_than_one_turn_takes(void **state)
{
    (void)state;
    struct address a;
    struct listener *ls;
    int fds[200];
    assert_int_equal(address_parse("127.0.0.1:0", &a), ERR_OK);
    int fd;
    assert_int_equal(listen_open(&a, 256, &fd), ERR_OK);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a.ss, &a.len), 0);
    accepts = 0;
    for (int i = 0; i < 200; i++) fds[i] = connect_blocking(&a);
    assert_int_equal(listener_start(loop, fd, on_accept_count, NULL, &ls), ERR_OK);
    wait_ready();
    listener_stop(ls);
    for (int i = 0; i < 200; i++) close(fds[i]);
}

static void no_descriptors_left_pauses_and_recovers(void **state)
{
    (void)state;
    struct address a;
    struct listener *ls;
    struct rlimit old, tight;
    char byte;
    int fd = listen_any(&a);
    accepts = 199; /* on_accept_count stops the loop at the next one */
    assert_int_equal(log_open("off", LOG_INFO), ERR_OK);
    assert_int_equal(listener_start(loop, fd, on_accept_count, NULL, &ls), ERR_OK);
    struct timer soon;
    timer_init(&soon, loop, on_patience_over);
    timer_set(&soon, 10);
    loop_run(loop); /* the watch has had its first edge */

    int shed = connect_blocking(&a), waiting = connect_blocking(&a);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = old;
    tight.rlim_cur = 3; /* everything open stays open, but nothing new fits */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    timer_set(&soon, 50);
    loop_run(loop);
    assert_int_equal(accepts, 199);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    wait_ready(); /* the pause is over: the rest is accepted without a new edge */
    assert_true(accepts >= 200);
    listener_stop(ls);
    assert_int_equal(recv(shed, &byte, 1, 0), 0);
    close(shed);
    close(waiting);
    log_close();
}

/* ---- plain streams */

static void bytes_go_both_ways_until_the_end(void **state)
{
    (void)state;
    struct stream *c, *s;
    char buf[16];
    size_t got, put;
    make_pair(&c, &s);
    assert_false(stream_is_tls(c));
    assert_string_equal(stream_alpn(c), "");
    assert_ptr_equal(stream_loop(c), loop);
    assert_int_equal(stream_read(c, buf, sizeof buf, &got), ERR_AGAIN);
    assert_int_equal(write_all_of(s, "hello", 5), ERR_OK);
    expect_bytes(c, "hello");
    stream_shutdown_write(s);
    assert_int_equal(read_some(c, buf, sizeof buf, &got), ERR_END);
    assert_int_equal(got, 0);
    struct iovec v[2] = {{"half ", 5}, {"open", 4}}; /* the other direction still works */
    assert_int_equal(stream_writev(c, v, 2, &put), ERR_OK);
    assert_int_equal(put, 9);
    expect_bytes(s, "half open");
    stream_destroy(c);
    assert_int_equal(read_some(s, buf, sizeof buf, &got), ERR_END);
    stream_destroy(s);
}

static void short_writes_lose_nothing(void **state)
{
    (void)state;
    struct stream *c, *s;
    make_pair(&c, &s);
    shrink_buffers(c);
    shrink_buffers(s);
    exchange(c, s, (size_t)4 << 20);
    stream_destroy(c);
    stream_destroy(s);
}

static void a_reset_is_a_reset_and_raises_no_signal(void **state)
{
    (void)state;
    struct stream *c, *s;
    char buf[16];
    size_t got, put;
    make_pair(&c, &s);
    signal(SIGPIPE, SIG_DFL);
    stream_reset_on_close(s);
    stream_destroy(s);
    assert_int_equal(read_some(c, buf, sizeof buf, &got), ERR_RESET);
    assert_true(stream_error(c)[0] != '\0');
    struct iovec v = {"x", 1};
    assert_int_equal(stream_writev(c, &v, 1, &put), ERR_RESET);
    assert_int_equal(put, 0);
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(stream_sendfile(c, fd, 0, 100, &put), ERR_RESET);
    close(fd);
    stream_destroy(c);
}

/* The kernel tells of a reset once. When the write is told, the read must not look like an orderly end. */
static void a_reset_told_to_a_write_is_no_end_for_reads(void **state)
{
    (void)state;
    struct stream *c, *s;
    char buf[16];
    size_t got, put;
    make_pair(&c, &s);
    stream_reset_on_close(s);
    stream_destroy(s);
    struct iovec v = {"x", 1};
    enum err e;
    while ((e = stream_writev(c, &v, 1, &put)) == ERR_OK) wait_ready();
    assert_int_equal(e, ERR_RESET);
    assert_int_equal(stream_read(c, buf, sizeof buf, &got), ERR_RESET);
    stream_destroy(c);
}

static void nobody_listens_is_refused(void **state)
{
    (void)state;
    struct address a;
    struct stream *c;
    close(listen_any(&a));
    enum err e = stream_connect(loop, (struct sockaddr *)&a.ss, a.len, on_stream, NULL, &c);
    if (e == ERR_OK) {
        e = finish_connect(c);
        assert_string_equal(stream_error(c), "Connection refused");
        stream_destroy(c);
    }
    assert_int_equal(e, ERR_REFUSED);
}

static void sendfile_sends_and_tells_a_short_file(void **state)
{
    (void)state;
    struct stream *c, *s;
    size_t put;
    make_pair(&c, &s);
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_int_equal(write(fd, "0123456789", 10), 10);
    assert_true(stream_can_sendfile(s));
    assert_int_equal(stream_sendfile(s, fd, 2, 5, &put), ERR_OK);
    assert_int_equal(put, 5);
    expect_bytes(c, "23456");
    assert_int_equal(stream_sendfile(s, fd, 10, 5, &put), ERR_IO);
    close(fd);
    stream_destroy(c);
    stream_destroy(s);
}

static void idle_connections_that_broke_are_noticed(void **state)
{
    (void)state;
    struct stream *c, *s;
    for (int how = 0; how < 3; how++) {
        make_pair(&c, &s);
        assert_false(stream_idle_broken(c));
        if (how == 0) assert_int_equal(write_all_of(s, "x", 1), ERR_OK);
        if (how == 1) stream_shutdown_write(s);
        if (how == 2) stream_reset_on_close(s);
        if (how == 2) stream_destroy(s);
        while (!stream_idle_broken(c)) wait_ready();
        if (how == 0) expect_bytes(c, "x"); /* not consumed by the check */
        stream_destroy(c);
        if (how != 2) stream_destroy(s);
    }
}

static void on_stream_destroy(struct stream *s, unsigned ready, void *arg)
{
    (void)ready;
    ++*(unsigned *)arg;
    loop_stop(stream_loop(s));
    stream_destroy(s);
}

static void a_stream_may_be_destroyed_in_its_callback(void **state)
{
    (void)state;
    struct stream *c, *s;
    unsigned calls = 0;
    make_pair(&c, &s);
    stream_set_callback(c, on_stream_destroy, &calls);
    stream_shutdown_write(s);
    while (calls == 0) wait_ready();
    assert_int_equal(calls, 1);
    stream_destroy(s);
    stream_destroy(NULL);
}

int main(void)
{
#define PLAIN(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        PLAIN(addresses_parse_and_format),
        PLAIN(two_listeners_share_a_port_and_a_taken_one_is_told),
        PLAIN(a_listener_may_stop_in_its_callback),
        PLAIN(more_connections_than_one_turn_takes),
        PLAIN(no_descriptors_left_pauses_and_recovers),
        PLAIN(bytes_go_both_ways_until_the_end),
        PLAIN(short_writes_lose_nothing),
        PLAIN(a_reset_is_a_reset_and_raises_no_signal),
        PLAIN(a_reset_told_to_a_write_is_no_end_for_reads),
        PLAIN(nobody_listens_is_refused),
        PLAIN(sendfile_sends_and_tells_a_short_file),
        PLAIN(idle_connections_that_broke_are_noticed),
        PLAIN(a_stream_may_be_destroyed_in_its_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
