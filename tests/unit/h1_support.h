/* h1_support.h - for the tests of HTTP/1.x connections: a loop that is turned by hand, a TCP connection over loopback, and
 * bytes to send. Included by one test program each, after cmocka.h. */
#ifndef S3P_TESTS_H1_SUPPORT_H
#define S3P_TESTS_H1_SUPPORT_H

#pragma GCC diagnostic ignored "-Wunused-function"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include "io/stream.h"

enum { PATTERN = 8 << 20 };
static uint8_t *pattern; /* PATTERN bytes */
static struct loop *loop;

static void pattern_fill(void)
{
    if (pattern) return;
    pattern = malloc(PATTERN);
    for (size_t i = 0; i < PATTERN; i++) pattern[i] = (uint8_t)(i * 2654435761u >> 13);
}

/* ---- turning the loop: pump() until nothing can be left to do without waiting, pump_ms() for some time */
static unsigned turns_left;
static void turn(struct task *t)
{
    if (turns_left-- == 0) loop_stop(loop);
    else task_schedule(t);
}
static void pump(void)
{
    struct task t;
    task_init(&t, loop, turn);
    turns_left = 60; /* several per turn of the loop */
    task_schedule(&t);
    loop_run(loop);
}
static void stop_loop(struct timer *t)
{
    (void)t;
    loop_stop(loop);
}
static void pump_ms(uint64_t ms)
{
    struct timer t;
    timer_init(&t, loop, stop_loop);
    timer_set(&t, ms);
    loop_run(loop);
}

static void nothing(struct stream *s, unsigned ready, void *arg)
{
    (void)s, (void)ready, (void)arg;
}
/* *ours is the stream under test, the result the test's end of it; both non-blocking. */
static int connect_pair(struct stream **ours)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(sa);
    int on = 1, l = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&sa, sizeof(sa)), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    int accepted = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    assert_true(accepted >= 0);
    close(l);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    /* or Nagle holds small pieces back for longer than a test waits */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    assert_int_equal(stream_create(loop, accepted, nothing, NULL, ours), ERR_OK);
    return fd;
}

#endif
