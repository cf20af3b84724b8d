/* stream_util.h - for tests of streams: they read like blocking code. When a call answers AGAIN, wait_ready() runs the
 * loop until a stream's callback comes. Included once per test program. */
#ifndef TEST_STREAM_UTIL_H
#define TEST_STREAM_UTIL_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "base/hash.h"
#include "base/iov.h"
#include "io/listen.h"
#include "io/stream.h"

#define PATIENCE_MS 20000

static struct loop *loop;
static bool timed_out;

static inline void on_patience_over(struct timer *t)
{
    timed_out = true;
    loop_stop(t->loop);
}

static inline void wait_ready(void)
{
    struct timer patience;
    timer_init(&patience, loop, on_patience_over);
    timer_set(&patience, PATIENCE_MS);
    timed_out = false;
    loop_run(loop);
    timer_stop(&patience);
    assert_false(timed_out);
}

static inline void on_stream(struct stream *s, unsigned ready, void *arg)
{
    (void)ready;
    if (arg) ++*(unsigned *)arg;
    loop_stop(stream_loop(s));
}

static inline int setup(void **state)
{
    (void)state;
    return loop_create(&loop) == ERR_OK ? 0 : -1;
}

static inline int teardown(void **state)
{
    (void)state;
    loop_destroy(loop);
    return 0;
}

/* ---- helpers on plain sockets */

static inline int listen_any(struct address *bound)
{
    int fd;
    assert_int_equal(address_parse("127.0.0.1:0", bound), ERR_OK);
    assert_int_equal(listen_open(bound, 64, &fd), ERR_OK);
    bound->len = sizeof bound->ss;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&bound->ss, &bound->len), 0);
    return fd;
}

static inline enum err finish_connect(struct stream *s)
{
    enum err e;
    while ((e = stream_connect_result(s)) == ERR_AGAIN) wait_ready();
    return e;
}

static int accepted_fd;

static inline void on_accept(void *arg, int fd, const struct address *peer)
{
    (void)arg;
    (void)peer;
    accepted_fd = fd;
    loop_stop(loop);
}

/* A connected pair: `client` came from stream_connect, `server` from the listener. */
static inline void make_pair(struct stream **client, struct stream **server)
{
    struct address a;
    struct listener *ls;
    int fd = listen_any(&a);
    accepted_fd = -1;
    assert_int_equal(listener_start(loop, fd, on_accept, NULL, &ls), ERR_OK);
    assert_int_equal(stream_connect(loop, (struct sockaddr *)&a.ss, a.len, on_stream, NULL, client), ERR_OK);
    while (accepted_fd < 0) wait_ready();
    assert_int_equal(finish_connect(*client), ERR_OK);
    listener_stop(ls);
    assert_int_equal(stream_create(loop, accepted_fd, on_stream, NULL, server), ERR_OK);
}

static inline enum err read_some(struct stream *s, void *buf, size_t n, size_t *got)
{
    enum err e;
    while ((e = stream_read(s, buf, n, got)) == ERR_AGAIN) wait_ready();
    return e;
}

static inline enum err write_all_of(struct stream *s, const void *p, size_t n)
{
    struct iovec v = {.iov_base = (void *)(uintptr_t)p, .iov_len = n}, *at = &v;
    unsigned left = 1;
    while (left) {
        size_t put;
        enum err e = stream_writev(s, at, left, &put);
        if (e == ERR_AGAIN) {
            wait_ready();
            continue;
        }
        if (e != ERR_OK) return e;
        left = iov_advance(&at, left, put);
    }
    return ERR_OK;
}

static inline void expect_bytes(struct stream *s, const char *want)
{
    char buf[256];
    size_t n = 0, got;
    while (n < strlen(want)) {
        assert_int_equal(read_some(s, buf + n, strlen(want) - n, &got), ERR_OK);
        n += got;
    }
    assert_memory_equal(buf, want, n);
}

static inline unsigned char pattern(size_t i)
{
    return (unsigned char)(i * 2654435761u >> 24);
}

/* Everything both ways at once, in random pieces, over sockets whose buffers are far too small for it. */
static inline void exchange(struct stream *a, struct stream *b, size_t total)
{
    struct {
        struct stream *s;
        size_t put, got;
    } side[2] = {{a, 0, 0}, {b, 0, 0}};
    unsigned char *data = malloc(total), *in = malloc(100000);
    for (size_t i = 0; i < total; i++) data[i] = pattern(i);

    while (side[0].got < total || side[1].got < total) {
        bool moved = false;
        for (int i = 0; i < 2; i++) {
            struct iovec v[5];
            unsigned n = 0;
            size_t at = side[i].put, want = 0, put, got;
            while (n < 5 && at < total) {
                size_t part = random_u64() % 4 == 0 ? 1 + random_u64() % 200000 : random_u64() % 3000;
                if (part > total - at) part = total - at;
                v[n++] = (struct iovec){data + at, part};
                at += part;
                want += part;
            }
            /* A retry after AGAIN must offer at least the same bytes: always offer a record's worth. */
            if (n && want < 20000 && at < total) {
                size_t part = total - at < 20000 ? total - at : 20000;
                v[n - 1].iov_len += part;
                want += part;
            }
            if (want) {
                enum err e = stream_writev_more(side[i].s, v, n, &put, random_u64() % 2);
                assert_true(e == ERR_OK || e == ERR_AGAIN);
                side[i].put += put;
                moved = moved || e == ERR_OK;
            }
            size_t room = 1 + random_u64() % 100000;
            struct iovec r[2] = {{in, room / 2}, {in + room / 2, room - room / 2}};
            enum err e = stream_readv(side[i].s, r, 2, &got);
            assert_true(e == ERR_OK || (e == ERR_AGAIN && got == 0));
            for (size_t k = 0; k < got; k++) {
                if (in[k] != pattern(side[i].got + k)) fail_msg("wrong byte at %zu", side[i].got + k);
            }
            side[i].got += got;
            moved = moved || e == ERR_OK;
        }
        if (!moved) wait_ready();
    }
    assert_int_equal(side[0].got, total);
    assert_int_equal(side[1].got, total);
    free(data);
    free(in);
}

/* Only the sender's: with a small receive window loopback TCP waits for delayed ACKs, 40 ms each. */
static inline void shrink_buffers(struct stream *s)
{
    int bytes = 16384;
    setsockopt(stream_fd(s), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static inline int connect_blocking(const struct address *a)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&a->ss, a->len), 0);
    return fd;
}

#endif
