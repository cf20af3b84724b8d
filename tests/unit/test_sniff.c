/* test_sniff.c - which protocol a connection speaks, by its first bytes; and that these are not lost. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_support.h"
#include "http/h1_server.h"
#include "http/sniff.h"

static struct sniffer *sniffer;
static struct sniff_conf conf;
static int held;
static unsigned calls;
static enum proto decided;
static char got[SNIFF_BYTES + 1];
static size_t got_n;
static struct h1_server *h1;
static struct h1_server_conf h1_conf;
static unsigned requests;

static void hold(void *owner)
{
    ++*(int *)owner;
}
static void unhold(void *owner)
{
    --*(int *)owner;
}
static void sniffed(void *arg, void *tag, struct stream *st, const struct address *peer, enum proto proto,
                    const void *bytes, size_t n)
{
    assert_ptr_equal(arg, &calls);
    assert_ptr_equal(tag, &conf);
    assert_int_equal(peer->ss.ss_family, AF_INET);
    calls++;
    decided = proto;
    memcpy(got, bytes, n);
    got[n] = 0;
    got_n = n;
    bool served = h1 && proto == PROTO_H1 && h1_server_accept_with(h1, st, peer, &h1_conf, &conf, bytes, n) == ERR_OK;
    if (!served) stream_destroy(st);
}

static int setup(void **state)
{
    (void)state;
    calls = requests = 0;
    held = 0;
    conf = (struct sniff_conf){60000, 60000, hold, unhold, &held};
    assert_int_equal(loop_create(&loop), ERR_OK);
    assert_int_equal(sniffer_create(loop, sniffed, &calls, &sniffer), ERR_OK);
    return 0;
}
static int teardown(void **state)
{
    (void)state;
    sniffer_destroy(sniffer);
    assert_int_equal(held, 0);
    loop_destroy(loop);
    return 0;
}
static int add(void)
{
    struct stream *s;
    struct address peer = {.len = sizeof(peer.ss)};
    int fd = connect_pair(&s);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&peer.ss, &peer.len), 0);
    assert_int_equal(sniffer_add(sniffer, s, &peer, &conf, &conf), ERR_OK);
    assert_int_equal(held, sniffer_waiting(sniffer));
    return fd;
}
static void say(int fd, const char *p, size_t n)
{
    assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), (ssize_t)n);
    pump();
}
static bool is_closed(int fd)
{
    char c;
    pump();
    ssize_t r = recv(fd, &c, 1, 0);
    return r == 0 || (r < 0 && errno != EAGAIN);
}

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void preface_is_http_2(void **state)
{
    (void)state;
    for (size_t cut = 1; cut <= 24; cut++) {
        int fd = add();
        calls = 0;
        say(fd, preface, cut);
        if (cut < 24) {
            assert_int_equal(calls, 0);
            say(fd, preface + cut, 24 - cut);
        }
        assert_int_equal(calls, 1);
        assert_int_equal(decided, PROTO_H2);
        assert_string_equal(got, preface);
        assert_int_equal(sniffer_waiting(sniffer), 0);
        close(fd);
    }
}

static void anything_else_is_http_1(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "G", "GET / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\nx",
        "GET /b/k\r\n\r\n", "\x16\x03\x01",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int fd = add();
        calls = 0;
        say(fd, texts[i], strlen(texts[i]));
        assert_int_equal(calls, 1);
        assert_int_equal(decided, PROTO_H1);
        assert_string_equal(got, texts[i]);
        close(fd);
    }
    int fd = add();
    say(fd, preface, 10);
    shutdown(fd, SHUT_WR);
    calls = 0;
    pump();
    assert_int_equal(calls, 1);
    assert_int_equal(decided, PROTO_H1);
    close(fd);
}

static void neither_is_closed(void **state)
{
    (void)state;
    int fd = add();
    say(fd, "INVALID CONNECTION PREFACE\r\n\r\n", 30);
    assert_int_equal(calls, 0);
    assert_true(is_closed(fd));
    close(fd);
}

static void waiting_has_its_bounds(void **state)
{
    (void)state;
    conf.idle_timeout_ms = 50;
    conf.head_timeout_ms = 120;
    int silent = add(), slow = add();
    say(slow, preface, 5);
    pump_ms(80);
    assert_true(is_closed(silent));
    assert_false(is_closed(slow));
    pump_ms(100);
    assert_true(is_closed(slow));
    int gone = add(), left = add();
    close(gone);
    pump();
    assert_int_equal(sniffer_waiting(sniffer), 1);
    sniffer_close_all(sniffer);
    assert_true(is_closed(left));
    assert_int_equal(calls, 0);
    close(silent);
    close(slow);
    close(left);
}

static void on_request(struct exchange *x)
{
    struct head resp = {.status = 204, .content_length = -1};
    assert_ptr_equal(x->listener_data, &conf);
    requests++;
    exchange_respond(x, &resp, NULL);
}
static void on_end(struct exchange *x, enum err e)
{
    (void)x;
    assert_int_equal(e, ERR_OK);
}
static void http_1_goes_on_where_the_bytes_end(void **state)
{
    (void)state;
    static const struct exchange_handler handler = {on_request, on_end};
    static const char text[] = "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n";
    h1_conf = (struct h1_server_conf){.limits = {8192, 1024, 32}, .idle_timeout_ms = 60000, .head_timeout_ms = 60000,
                                      .body_timeout_ms = 60000, .send_timeout_ms = 60000};
    assert_int_equal(h1_server_create(loop, &handler, NULL, &h1), ERR_OK);
    for (size_t cut = 1; cut < sizeof(text) - 1; cut++) {
        int fd = add();
        requests = 0;
        say(fd, text, cut);
        say(fd, text + cut, sizeof(text) - 1 - cut);
        assert_int_equal(requests, 2);
        close(fd);
        pump();
    }
    h1_server_kill(h1);
    h1_server_destroy(h1);
    h1 = NULL;
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(preface_is_http_2),
        T(anything_else_is_http_1),
        T(neither_is_closed),
        T(waiting_has_its_bounds),
        T(http_1_goes_on_where_the_bytes_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
