/* test_h1_server.c - HTTP/1.x client connections: keep-alive, pipelining, refusals, time limits, leaving, draining. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_server_support.h"

static void keep_alive_serves_one_after_the_other(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, GET("/one"));
    assert_heard("HTTP/1.1 200 OK\r\n");
    assert_heard("Content-Length: 4\r\n");
    assert_heard("\r\nDate: ");
    assert_heard("ETag: \"e\"\r\n");
    assert_not_heard("Connection:");
    assert_heard("\r\n\r\n/one");
    assert_null(only_conn()->work); /* idle connections hold no buffers */
    ask(fd, GET("/two"));
    assert_heard("\r\n\r\n/two");
    assert_int_equal(ends, 2);
    assert_int_equal(why[1], ERR_OK);
    assert_int_equal(last_sent_bytes, 4);
    close(fd);
    pump();
    assert_true(list_empty(&server->conns));
}

static void byte_at_a_time_request_is_whole(void **state)
{
    (void)state;
    int fd = client_connect();
    const char *text = "\r\n" GET("/slowly");
    for (const char *p = text; *p; p++) {
        say_n(fd, p, 1);
        pump();
    }
    hear(fd);
    assert_heard("\r\n\r\n/slowly");
    close(fd);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, GET("/1") GET("/2") "GET /3 HTTP/1.1\r\nHo");
    assert_int_equal(count_of("HTTP/1.1 200 OK"), 2);
    assert_true(strstr(heard, "\r\n\r\n/1HTTP") && strstr(heard, "\r\n\r\n/2"));
    ask(fd, "st: h\r\n\r\n");
    assert_heard("\r\n\r\n/3");
    close(fd);
}

static void three_hundred_pipelined_requests_do_not_starve(void **state)
{
    (void)state;
    int fd = client_connect();
    for (int i = 0; i < 300; i++) say(fd, GET("/x"));
    hear(fd);
    assert_int_equal(count_of("HTTP/1.1 200 OK"), 300);
    close(fd);
}

static void http_1_0_closes_unless_asked(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, "GET /a HTTP/1.0\r\n\r\n");
    assert_heard("HTTP/1.1 200 OK\r\n");
    assert_heard("Connection: close\r\n");
    assert_int_equal(heard_errno, -1);
    close(fd);
    fd = client_connect();
    ask(fd, "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_heard("Connection: keep-alive\r\n");
    assert_int_equal(heard_errno, 0);
    ask(fd, "GET /b HTTP/1.0\r\n\r\n");
    assert_heard("\r\n\r\n/b");
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void connection_close_is_honoured(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_heard("Connection: close\r\n");
    assert_int_equal(heard_errno, -1);
    assert_true(list_empty(&server->conns));
    close(fd);
}

static void unknown_expectation_is_417(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, "GET /a HTTP/1.1\r\nHost: h\r\nExpect: the-spanish-inquisition\r\n\r\n");
    assert_memory_equal(heard, "HTTP/1.1 417 ", 13);
    assert_int_equal(begins, 0);
    close(fd);
}

static void bad_requests_are_told_why(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *status;
    } bad[] = {
        {"GET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "HTTP/1.1 400 "},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", "HTTP/1.1 505 "},
        {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.1 501 "},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        int fd = client_connect();
        ask(fd, bad[i].text);
        assert_memory_equal(heard, bad[i].status, strlen(bad[i].status));
        assert_heard("Connection: close\r\n");
        assert_heard("Content-Type: application/xml\r\n");
        assert_heard("<Error><Code>");
        assert_int_equal(heard_errno, -1); /* our FIN, while we still read */
        assert_false(list_empty(&server->conns));
        say(fd, "more that is dropped");
        pump();
        assert_false(list_empty(&server->conns));
        close(fd);
        pump();
        assert_true(list_empty(&server->conns));
    }
    assert_int_equal(stat_get(&h1_server_stats(server)->bad_requests), ARRAY_LEN(bad));
    assert_int_equal(begins, 0);
}

static void oversized_heads_are_431_and_414(void **state)
{
    (void)state;
    int fd = client_connect();
    say(fd, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
    for (int i = 0; i < 100; i++) say(fd, "0123456789012345678901234567890123456789012345678901234567890123456789"
                                          "01234567890123456789012345678901234567890123456789");
    hear(fd);
    assert_memory_equal(heard, "HTTP/1.1 431 ", 13);
    close(fd);
    fd = client_connect();
    say(fd, "GET /");
    for (int i = 0; i < 40; i++) say(fd, "01234567890123456789012345678901234567890123456789");
    ask(fd, " HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_memory_equal(heard, "HTTP/1.1 414 ", 13);
    close(fd);
}

static void idle_connection_is_closed_silently(void **state)
{
    (void)state;
    conf.idle_timeout_ms = 30;
    int fd = client_connect();
    pump_ms(80);
    hear(fd);
    assert_int_equal(heard_n, 0);
    assert_int_equal(heard_errno, -1);
    close(fd);
    fd = client_connect();
    ask(fd, GET("/"));
    assert_int_equal(heard_errno, 0);
    pump_ms(80);
    hear(fd);
    assert_int_equal(heard_n, 0);
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void slow_head_is_408(void **state)
{
    (void)state;
    conf.head_timeout_ms = 60;
    int fd = client_connect();
    for (int i = 0; i < 6; i++) { /* dripping does not extend it */
        ssize_t w = send(fd, "G", 1, MSG_NOSIGNAL);
        (void)w;
        pump_ms(20);
    }
    hear(fd);
    assert_memory_equal(heard, "HTTP/1.1 408 ", 13);
    assert_heard("RequestTimeout");
    assert_int_equal(heard_errno, -1);
    assert_int_equal(stat_get(&h1_server_stats(server)->timeouts), 1);
    close(fd);
}

static void reader_that_stops_is_reset(void **state)
{
    (void)state;
    on_begin = answer_source;
    answer_length = PATTERN;
    source_init(&source, pattern, PATTERN);
    conf.send_timeout_ms = 60;
    int fd = client_connect();
    say(fd, GET("/"));
    pump_ms(200);
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_REQUEST_TIMEOUT);
    assert_int_equal(source.closed, 1);
    assert_int_equal(source.open_chunks, 0);
    hear(fd);
    assert_int_equal(heard_errno, ECONNRESET);
    close(fd);
}

static void lingering_ends_by_time_and_by_bytes(void **state)
{
    (void)state;
    conf.linger_ms = 50;
    int fd = client_connect();
    ask(fd, "NONSENSE\r\n\r\n");
    assert_false(list_empty(&server->conns));
    pump_ms(120);
    assert_true(list_empty(&server->conns));
    close(fd);
    conf.linger_ms = 60000;
    fd = client_connect();
    ask(fd, "NONSENSE\r\n\r\n");
    size_t sent = 0;
    for (int i = 0; i < 100 && !list_empty(&server->conns); i++) {
        ssize_t w = send(fd, pattern, 100000, MSG_NOSIGNAL);
        if (w > 0) sent += (size_t)w;
        pump();
    }
    assert_true(list_empty(&server->conns));
    assert_true(sent > 1 << 20);
    close(fd);
}

static void half_closed_client_gets_its_answer(void **state)
{
    (void)state;
    on_begin = answer_later;
    int fd = client_connect();
    say(fd, GET("/a") GET("/b"));
    shutdown(fd, SHUT_WR);
    pump();
    pump();
    assert_int_equal(ends, 0);
    answer_target(current);
    pump();
    answer_target(current);
    hear(fd);
    assert_heard("\r\n\r\n/a");
    assert_heard("\r\n\r\n/b");
    assert_int_equal(heard_errno, -1);
    assert_int_equal(why[1], ERR_OK);
    assert_true(list_empty(&server->conns));
    close(fd);
}

static void client_that_resets_ends_the_exchange(void **state)
{
    (void)state;
    on_begin = answer_later;
    int fd = client_connect();
    say(fd, GET("/a"));
    pump();
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    close(fd);
    pump();
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_RESET);
    assert_true(list_empty(&server->conns));
}

static void client_that_leaves_while_we_write_ends_the_exchange(void **state)
{
    (void)state;
    on_begin = answer_source;
    answer_length = PATTERN;
    source_init(&source, pattern, PATTERN);
    int fd = client_connect();
    say(fd, GET("/"));
    pump();
    close(fd);
    pump();
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_RESET);
    assert_int_equal(source.closed, 1);
    assert_int_equal(source.open_chunks, 0);
}

static void handler_can_reset_before_and_after_respond(void **state)
{
    (void)state;
    on_begin = answer_reset;
    int fd = client_connect();
    ask(fd, GET("/"));
    assert_int_equal(heard_errno, ECONNRESET);
    assert_int_equal(ends, 1);
    close(fd);
    on_begin = answer_source;
    answer_length = 12;
    source_init(&source, "hello, world", 12);
    source.stop_at = 5;
    source.stop_err = ERR_AGAIN;
    fd = client_connect();
    ask(fd, GET("/"));
    assert_heard("\r\n\r\nhello");
    exchange_reset(current);
    assert_int_equal(ends, 1); /* not from inside */
    hear(fd);
    assert_int_equal(heard_errno, ECONNRESET);
    assert_int_equal(ends, 2);
    assert_int_equal(source.closed, 1);
    close(fd);
}

static void max_requests_closes(void **state)
{
    (void)state;
    conf.max_requests = 2;
    int fd = client_connect();
    ask(fd, GET("/a"));
    assert_not_heard("Connection: close");
    ask(fd, GET("/b"));
    assert_heard("Connection: close");
    assert_heard("\r\n\r\n/b");
    assert_int_equal(heard_errno, -1);
    close(fd);
}

/* ---- draining */
static unsigned drained;
static void on_drained(void *arg)
{
    (void)arg;
    drained++;
}
static void drain_ends_idle_now_and_busy_after_the_response(void **state)
{
    (void)state;
    drained = 0;
    int idle = client_connect(), busy = client_connect(), partial = client_connect();
    ask(idle, GET("/"));
    on_begin = answer_later;
    ask(busy, GET("/busy"));
    ask(partial, "GET /late HTTP/1.1\r\n");
    h1_server_drain(server, on_drained, NULL);
    hear(idle);
    assert_int_equal(heard_errno, -1);
    hear(busy);
    assert_int_equal(heard_errno, 0);
    answer_target(current);
    hear(busy);
    assert_heard("Connection: close");
    assert_heard("/busy");
    assert_int_equal(heard_errno, -1);
    on_begin = answer_target;
    ask(partial, "Host: h\r\n\r\n");
    assert_heard("Connection: close");
    assert_heard("/late");
    assert_int_equal(drained, 0);
    close(idle);
    close(busy);
    close(partial);
    pump();
    assert_int_equal(drained, 1);
    h1_server_drain(server, on_drained, NULL);
    assert_int_equal(drained, 2);
}

static void kill_ends_everything(void **state)
{
    (void)state;
    on_begin = answer_later;
    int a = client_connect(), b = client_connect();
    ask(a, GET("/"));
    pump();
    h1_server_kill(server);
    assert_int_equal(ends, 1);
    assert_int_equal(why[0], ERR_CANCELLED);
    hear(a);
    assert_int_equal(heard_errno, ECONNRESET);
    close(a);
    close(b);
}

static unsigned held_confs;
static void hold(void *owner)
{
    assert_ptr_equal(owner, &held_confs);
    held_confs++;
}
static void unhold(void *owner)
{
    assert_ptr_equal(owner, &held_confs);
    held_confs--;
}
static void look_at_exchange(struct exchange *x)
{
    assert_ptr_equal(h1_exchange_listener_data(x), &conf);
    assert_ptr_equal(h1_exchange_server_arg(x), &conf);
    assert_int_equal(x->peer->ss.ss_family, AF_INET);
    assert_int_equal(x->local->ss.ss_family, AF_INET);
    assert_int_equal(x->proto, PROTO_H1);
    assert_false(x->tls);
    answer_target(x);
}
static void conf_is_held_as_long_as_a_connection_lives(void **state)
{
    (void)state;
    conf.hold = hold;
    conf.unhold = unhold;
    conf.owner = &held_confs;
    on_begin = look_at_exchange;
    int a = client_connect(), b = client_connect();
    assert_int_equal(held_confs, 2);
    ask(a, GET("/"));
    close(a);
    pump();
    assert_int_equal(held_confs, 1);
    close(b);
    pump();
    assert_int_equal(held_confs, 0);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(keep_alive_serves_one_after_the_other),
        T(byte_at_a_time_request_is_whole),
        T(pipelined_requests_are_answered_in_order),
        T(three_hundred_pipelined_requests_do_not_starve),
        T(http_1_0_closes_unless_asked),
        T(connection_close_is_honoured),
        T(unknown_expectation_is_417),
        T(bad_requests_are_told_why),
        T(oversized_heads_are_431_and_414),
        T(idle_connection_is_closed_silently),
        T(slow_head_is_408),
        T(reader_that_stops_is_reset),
        T(lingering_ends_by_time_and_by_bytes),
        T(half_closed_client_gets_its_answer),
        T(client_that_resets_ends_the_exchange),
        T(client_that_leaves_while_we_write_ends_the_exchange),
        T(handler_can_reset_before_and_after_respond),
        T(max_requests_closes),
        T(drain_ends_idle_now_and_busy_after_the_response),
        T(kill_ends_everything),
        T(conf_is_held_as_long_as_a_connection_lives),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    return failed;
}
