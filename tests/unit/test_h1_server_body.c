/* test_h1_server_body.c - bodies on HTTP/1.x client connections, both ways: framing, backpressure, what breaks, and what
 * sendfile needs to be safe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h1_server_support.h"

static void unknown_length_is_chunked_or_close_delimited(void **state)
{
    (void)state;
    on_begin = answer_source;
    answer_length = -1;
    source_init(&source, "hello, world", 12);
    source.stop_at = 5;
    source.stop_err = ERR_AGAIN;
    int fd = client_connect();
    ask(fd, GET("/"));
    assert_heard("Transfer-Encoding: chunked\r\n");
    assert_not_heard("Content-Length");
    assert_heard("\r\n\r\n5\r\nhello\r\n");
    source.stop_at = 12;
    body_notify(&source.body);
    hear(fd);
    assert_string_equal(heard, "7\r\n, world\r\n");
    source.stop_err = ERR_OK;
    body_notify(&source.body);
    hear(fd);
    assert_string_equal(heard, "0\r\n\r\n");
    assert_int_equal(source.closed, 1);
    assert_int_equal(source.open_chunks, 0);

    source_init(&source, "hello, world", 12);
    ask(fd, GET("/")); /* in one go: the end goes out with the data */
    assert_heard("\r\n\r\nc\r\nhello, world\r\n0\r\n\r\n");

    source_init(&source, "", 0);
    ask(fd, GET("/"));
    assert_heard("\r\n\r\n0\r\n\r\n");

    source_init(&source, "hello, world", 12);
    ask(fd, "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_not_heard("chunked");
    assert_heard("Connection: close\r\n");
    assert_heard("\r\n\r\nhello, world");
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void no_body_for_head_204_304(void **state)
{
    (void)state;
    int fd = client_connect();
    on_begin = answer_source;
    answer_length = 12;
    source_init(&source, "hello, world", 12);
    ask(fd, "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_heard("Content-Length: 12\r\n");
    assert_string_equal(heard + heard_n - 4, "\r\n\r\n");
    assert_int_equal(source.pulls, 0);
    assert_int_equal(source.closed, 1);
    on_begin = answer_empty;
    ask(fd, GET("/"));
    assert_heard("HTTP/1.1 204 No Content\r\n");
    assert_not_heard("Content-Length");
    on_begin = answer_later;
    ask(fd, GET("/"));
    answer(current, 304, 12, NULL);
    hear(fd);
    assert_heard("HTTP/1.1 304 Not Modified\r\n");
    assert_heard("Content-Length: 12\r\n");
    assert_string_equal(heard + heard_n - 4, "\r\n\r\n");
    on_begin = answer_target;
    ask(fd, GET("/still"));
    assert_heard("\r\n\r\n/still");
    close(fd);
}

static void big_body_arrives_right_and_bounded(void **state)
{
    (void)state;
    on_begin = answer_source;
    answer_length = PATTERN;
    source_init(&source, pattern, PATTERN);
    source.piece = 300 * 1000;
    int fd = client_connect();
    say(fd, GET("/"));
    pump();
    /* The reader sleeps: no more than one batch is held, whatever the sockets took. */
    unsigned pulls = source.pulls;
    pump();
    assert_int_equal(source.pulls, pulls);
    assert_true(source.at < PATTERN);
    assert_true(source.open_bytes <= H1_OUT_BATCH);
    size_t at = 0;
    bool body = false;
    for (;;) {
        ssize_t r = recv(fd, heard, 100 * 1000, 0);
        if (r < 0) {
            if (at == PATTERN) break;
            pump();
            continue;
        }
        char *p = heard;
        size_t n = (size_t)r;
        if (!body) {
            char *e = memmem(p, n, "\r\n\r\n", 4);
            assert_non_null(e);
            n -= (size_t)(e + 4 - p);
            p = e + 4;
            body = true;
        }
        assert_memory_equal(p, pattern + at, n);
        at += n;
    }
    assert_true(source.max_open_bytes <= H1_OUT_BATCH);
    assert_int_equal(why[0], ERR_OK);
    assert_int_equal(last_sent_bytes, PATTERN);
    close(fd);
}

static void request_body_with_length_is_read(void **state)
{
    (void)state;
    on_begin = collect_body;
    int fd = client_connect();
    ask(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n01234");
    assert_int_equal(heard_n, 0);
    ask(fd, "56789" GET("/next"));
    assert_int_equal(got_body_err, ERR_END);
    assert_memory_equal(got_body, "0123456789", 10);
    assert_int_equal(count_of("HTTP/1.1 200 OK"), 2);
    assert_heard("/next");
    assert_not_heard("Connection: close");
    close(fd);
}

static void chunked_request_body_is_decoded_and_leaves_the_next_request(void **state)
{
    (void)state;
    on_begin = collect_body;
    const char *text = "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "5;x=y\r\n01234\r\n1\r\n5\r\n4\r\n6789\r\n0\r\nTrailer: v\r\n\r\n" GET("/next");
    int fd = client_connect();
    ask(fd, text);
    assert_int_equal(got_body_n, 10);
    assert_memory_equal(got_body, "0123456789", 10);
    assert_int_equal(count_of("HTTP/1.1 200 OK"), 2);
    assert_heard("/next");
    got_body_n = 0;
    for (const char *p = text; *p; p++) {
        say_n(fd, p, 1);
        pump();
    }
    hear(fd);
    assert_int_equal(got_body_n, 10);
    assert_memory_equal(got_body, "0123456789", 10);
    assert_int_equal(count_of("HTTP/1.1 200 OK"), 2);
    ask(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n012345\r\n");
    assert_int_equal(got_body_err, ERR_BAD_CHUNK);
    assert_heard("HTTP/1.1 400 ");
    assert_heard("Connection: close");
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void upload_without_pulls_is_not_read(void **state)
{
    (void)state;
    on_begin = answer_later;
    int fd = client_connect();
    say(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n");
    pump();
    size_t sent = 0;
    for (;;) {
        ssize_t w = send(fd, pattern + sent, PATTERN - sent, MSG_NOSIGNAL);
        pump();
        if (w < 0) break;
        sent += (size_t)w;
    }
    assert_true(sent < PATTERN);
    assert_true(stat_get(&h1_server_stats(server)->bytes_received) <= 8192 + 4096);
    struct chunk c[4];
    unsigned n;
    size_t got = 0;
    assert_non_null(current);
    while (got < PATTERN) {
        enum err e = body_pull(&current->req_body, c, 4, 1 << 20, &n);
        if (e == ERR_AGAIN) {
            ssize_t w = send(fd, pattern + sent, PATTERN - sent, MSG_NOSIGNAL);
            if (w > 0) sent += (size_t)w;
            pump();
            continue;
        }
        assert_int_equal(e, ERR_OK);
        for (unsigned i = 0; i < n; i++) {
            assert_memory_equal(c[i].data, pattern + got, c[i].len);
            got += c[i].len;
            chunk_release(&c[i], CHUNK_COPIED);
        }
    }
    assert_int_equal(body_pull(&current->req_body, c, 4, 100, &n), ERR_END);
    answer(current, 200, 0, NULL);
    hear(fd);
    assert_heard("200 OK");
    assert_not_heard("Connection: close");
    assert_int_equal(last_received_bytes, PATTERN);
    close(fd);
}

static void chunks_of_a_request_body_outlive_later_pulls(void **state)
{
    (void)state;
    on_begin = answer_later;
    int fd = client_connect();
    say(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    pump();
    struct chunk c[64];
    unsigned n, count = 0;
    size_t got = 0, sent = 0;
    while (got < 1000000) {
        ssize_t w = send(fd, pattern + sent, 1000000 - sent > 20000 ? 20000 : 1000000 - sent, MSG_NOSIGNAL);
        if (w > 0) sent += (size_t)w;
        pump();
        assert_true(count < 64);
        enum err e = body_pull(&current->req_body, c + count, 64 - count, 1 << 20, &n);
        if (e == ERR_AGAIN) continue;
        assert_int_equal(e, ERR_OK);
        for (unsigned i = 0; i < n; i++) got += c[count + i].len;
        count += n;
    }
    answer(current, 200, 0, NULL);
    hear(fd);
    close(fd);
    pump();
    assert_true(list_empty(&server->conns)); /* the connection is gone, the chunks are not */
    got = 0;
    for (unsigned i = 0; i < count; i++) {
        assert_memory_equal(c[i].data, pattern + got, c[i].len);
        got += c[i].len;
        chunk_release(&c[i], CHUNK_COPIED);
    }
}

static void expect_100_is_answered_on_the_first_pull(void **state)
{
    (void)state;
    on_begin = collect_body;
    int fd = client_connect();
    const char *head = "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    ask(fd, head);
    assert_string_equal(heard, "HTTP/1.1 100 Continue\r\n\r\n");
    ask(fd, "01234");
    assert_memory_equal(heard, "HTTP/1.1 200 OK", 15);
    assert_not_heard("Connection: close");
    /* the body is here already: no 100 */
    say(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n01234");
    hear(fd);
    assert_not_heard("100 Continue");
    assert_heard("200 OK");
    /* inform */
    on_begin = answer_later;
    ask(fd, head);
    assert_int_equal(heard_n, 0);
    current->ops->inform(current);
    current->ops->inform(current);
    hear(fd);
    assert_string_equal(heard, "HTTP/1.1 100 Continue\r\n\r\n");
    collect_body(current);
    ask(fd, "01234");
    assert_memory_equal(heard, "HTTP/1.1 200 OK", 15);
    /* refused without reading: close */
    on_begin = answer_empty;
    ask(fd, head);
    assert_not_heard("100 Continue");
    assert_heard("204");
    assert_heard("Connection: close");
    close(fd);
}

static void too_large_bodies_are_413(void **state)
{
    (void)state;
    on_begin = collect_body;
    conf.max_body_bytes = 9;
    int fd = client_connect();
    ask(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    assert_memory_equal(heard, "HTTP/1.1 413 ", 13);
    assert_int_equal(begins, 0);
    close(fd);
    fd = client_connect();
    ask(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
    assert_int_equal(got_body_err, ERR_BODY_TOO_LARGE);
    assert_memory_equal(heard, "HTTP/1.1 413 ", 13);
    assert_heard("Connection: close");
    close(fd);
}

static void slow_request_body_ends_the_pull(void **state)
{
    (void)state;
    on_begin = collect_body;
    conf.body_timeout_ms = 400;
    int fd = client_connect();
    say(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n");
    for (int i = 0; i < 5; i++) {
        say(fd, "1");
        pump_ms(100); /* each byte starts it anew */
    }
    assert_int_equal(got_body_n, 5);
    assert_int_equal(got_body_err, ERR_OK);
    pump_ms(600);
    assert_int_equal(got_body_err, ERR_REQUEST_TIMEOUT);
    hear(fd);
    assert_memory_equal(heard, "HTTP/1.1 408 ", 13);
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void early_answer_reaches_a_client_that_still_sends(void **state)
{
    (void)state;
    on_begin = answer_later;
    conf.linger_bytes = 64 << 20;
    int fd = client_connect();
    say(fd, "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n");
    pump();
    size_t sent = 0;
    for (bool answered = false; sent < PATTERN;) {
        ssize_t w = send(fd, pattern + sent, PATTERN - sent, MSG_NOSIGNAL);
        if (w > 0) sent += (size_t)w;
        else assert_int_equal(errno, EAGAIN);
        pump();
        if (!answered) answer(current, 403, 0, NULL);
        answered = true;
    }
    hear(fd);
    assert_memory_equal(heard, "HTTP/1.1 403 ", 13);
    assert_heard("Connection: close");
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void ignored_body_at_hand_keeps_the_connection(void **state)
{
    (void)state;
    int fd = client_connect();
    ask(fd, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n01234" GET("/b"));
    assert_not_heard("Connection: close");
    assert_heard("\r\n\r\n/aHTTP/1.1 200 OK");
    assert_heard("\r\n\r\n/b");
    ask(fd, "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n0123");
    assert_heard("Connection: close");
    close(fd);
}

static void request_body_cut_short_is_incomplete(void **state)
{
    (void)state;
    on_begin = collect_body;
    static const char *const heads[] = {
        "PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123",
        "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01",
        "PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n0\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
        got_body_err = ERR_OK;
        int fd = client_connect();
        say(fd, heads[i]);
        pump();
        shutdown(fd, SHUT_WR);
        hear(fd);
        assert_int_equal(got_body_err, ERR_INCOMPLETE_BODY);
        assert_memory_equal(heard, "HTTP/1.1 400 ", 13);
        assert_int_equal(heard_errno, -1);
        close(fd);
    }
}

static void broken_response_bodies_end_in_a_reset(void **state)
{
    (void)state;
    on_begin = answer_source;
    static const struct {
        int64_t length;
        size_t stop_at;
        enum err stop_err, why;
        bool lie;
    } cases[] = {
        {12, 5, ERR_END, ERR_TRUNCATED, false},   {12, 5, ERR_CHANGED, ERR_CHANGED, false},
        {-1, 5, ERR_STALL_TIMEOUT, ERR_STALL_TIMEOUT, false}, {5, 0, ERR_OK, ERR_INTERNAL, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        answer_length = cases[i].length;
        source_init(&source, "hello, world", 12);
        source.lie = cases[i].lie;
        source.stop_at = cases[i].stop_at;
        source.stop_err = cases[i].stop_err ? ERR_AGAIN : ERR_OK;
        ends = begins = 0;
        int fd = client_connect();
        ask(fd, GET("/"));
        source.stop_err = cases[i].stop_err;
        if (source.stop_err) {
            body_notify(&source.body);
            hear(fd);
        }
        assert_int_equal(heard_errno, ECONNRESET);
        assert_int_equal(ends, 1);
        assert_int_equal(why[0], cases[i].why);
        assert_int_equal(source.closed, 1);
        assert_int_equal(source.open_chunks, 0);
        close(fd);
    }
    on_begin = answer_200_no_body;
    ends = begins = 0;
    int fd = client_connect();
    ask(fd, GET("/"));
    assert_int_equal(heard_errno, ECONNRESET);
    assert_int_equal(why[0], ERR_INTERNAL);
    close(fd);
}

/* ---- sendfile */
static int memory_file(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, pattern, 1 << 20), 1 << 20);
    return fd;
}
static void sendfile_setup(void)
{
    on_begin = answer_source;
    answer_length = 300000;
    conf.sendfile_min = 64 * 1024;
    conf.sendfile_max_unproven = 1 << 20;
    source_init(&source, pattern, 300000);
    source.fd = memory_file();
    source.piece = 100000;
}
static void source_again(void)
{
    source.at = 0;
    source.body.ops = &source_ops;
}
static uint64_t sent_by_file(void)
{
    return stat_get(&h1_server_stats(server)->sendfile_bytes);
}

static void sendfile_chunks_wait_for_the_proof(void **state)
{
    (void)state;
    sendfile_setup();
    int fd = client_connect();
    ask(fd, GET("/"));
    assert_int_equal(sent_by_file(), 0); /* the first request on the connection */
    assert_int_equal(source.copied, 3);
    source_again();
    ask(fd, GET("/"));
    assert_int_equal(sent_by_file(), 300000);
    assert_int_equal(heard_errno, 0);
    assert_memory_equal(heard + heard_n - 300000, pattern, 300000);
    assert_int_equal(source.copied, 3);
    assert_int_equal(source.open_chunks, 3); /* held although the exchange has ended */
    source_again();
    say(fd, "GET / HT");
    pump();
    assert_int_equal(source.copied, 3); /* not yet a request */
    ask(fd, "TP/1.1\r\nHost: h\r\n\r\n");
    assert_int_equal(source.copied, 6);
    assert_int_equal(source.unproven, 0);
    assert_int_equal(source.open_chunks, 3);
    close(fd);
    pump();
    assert_int_equal(source.unproven, 3);
    assert_int_equal(source.open_chunks, 0);
    close(source.fd);
}

static void pipelined_request_proves_nothing(void **state)
{
    (void)state;
    sendfile_setup();
    int fd = client_connect();
    ask(fd, GET("/"));
    source_again();
    on_begin = answer_later;
    say(fd, GET("/"));
    pump();
    say(fd, GET("/")); /* while the one before is being answered */
    pump();
    answer_source(current);
    pump();
    assert_int_equal(sent_by_file(), 300000);
    assert_int_equal(begins, 3);
    assert_int_equal(source.copied, 3);
    assert_int_equal(source.open_chunks, 3);
    source_again();
    answer_source(current); /* from now on copied */
    hear(fd);
    assert_int_equal(sent_by_file(), 300000);
    assert_int_equal(source.copied, 6);
    assert_int_equal(source.open_chunks, 3);
    source_again();
    on_begin = answer_source;
    ask(fd, GET("/")); /* this one was not pipelined */
    assert_int_equal(source.copied, 12);
    assert_int_equal(source.open_chunks, 0);
    close(fd);
    pump();
    assert_int_equal(source.unproven, 0);
    close(source.fd);
}

/* A small window needs time. */
static void read_all(int fd)
{
    for (int quiet = 0; quiet < 20;) {
        if (recv(fd, heard, sizeof(heard), 0) > 0) quiet = 0;
        else quiet++, pump_ms(5);
    }
}
static void request_sent_before_reading_proves_nothing(void **state)
{
    (void)state;
    sendfile_setup();
    int fd = client_connect(), small = 65536;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    say(fd, GET("/"));
    read_all(fd);
    source_again();
    answer_length = 300000;
    say(fd, GET("/"));
    pump();
    assert_int_equal(ends, 2); /* the socket has taken the response, the client has not */
    assert_int_equal(source.open_chunks, 3);
    source_again();
    say(fd, GET("/"));
    pump();
    assert_int_equal(begins, 3);
    assert_int_equal(source.open_chunks, 3);
    assert_int_equal(sent_by_file(), 300000);
    read_all(fd);
    assert_int_equal(ends, 3);
    source_again();
    say(fd, GET("/")); /* sent after reading: that counts */
    read_all(fd);
    assert_int_equal(ends, 4);
    assert_int_equal(source.open_chunks, 0);
    assert_int_equal(source.unproven, 0);
    close(fd);
    close(source.fd);
}

static void sendfile_is_not_used_when_it_cannot_be_proved(void **state)
{
    (void)state;
    sendfile_setup();
    conf.sendfile_max_unproven = 250000;
    int fd = client_connect();
    ask(fd, GET("/"));
    source_again();
    ask(fd, GET("/"));
    assert_int_equal(sent_by_file(), 200000); /* two chunks fit the bound */
    assert_memory_equal(heard + heard_n - 300000, pattern, 300000);
    assert_int_equal(source.copied, 4);
    source_again();
    ask(fd, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_int_equal(sent_by_file(), 200000); /* the connection ends after it */
    assert_int_equal(source.unproven, 0);
    assert_int_equal(source.copied, 9);
    close(fd);
    close(source.fd);
}

static void sendfile_cut_off_is_unproven(void **state)
{
    (void)state;
    sendfile_setup();
    conf.sendfile_max_unproven = 64 << 20;
    int fd = client_connect();
    ask(fd, GET("/"));
    int mem = source.fd;
    assert_int_equal(ftruncate(mem, 0), 0);
    for (size_t at = 0; at < PATTERN;) at += (size_t)pwrite(mem, pattern + at, PATTERN - at, (off_t)at);
    source_init(&source, pattern, PATTERN);
    source.fd = mem;
    source.piece = 1 << 18;
    answer_length = PATTERN;
    say(fd, GET("/"));
    pump();
    assert_true(sent_by_file() > 0 && sent_by_file() < PATTERN);
    unsigned chunks = source.open_chunks;
    size_t touched = (size_t)(sent_by_file() + (1 << 18) - 1) >> 18;
    close(fd);
    pump();
    assert_int_equal(source.open_chunks, 0);
    assert_true(source.unproven == touched && source.copied == chunks - touched);
    close(mem);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(unknown_length_is_chunked_or_close_delimited),
        T(no_body_for_head_204_304),
        T(big_body_arrives_right_and_bounded),
        T(request_body_with_length_is_read),
        T(chunked_request_body_is_decoded_and_leaves_the_next_request),
        T(upload_without_pulls_is_not_read),
        T(chunks_of_a_request_body_outlive_later_pulls),
        T(expect_100_is_answered_on_the_first_pull),
        T(too_large_bodies_are_413),
        T(slow_request_body_ends_the_pull),
        T(early_answer_reaches_a_client_that_still_sends),
        T(ignored_body_at_hand_keeps_the_connection),
        T(request_body_cut_short_is_incomplete),
        T(broken_response_bodies_end_in_a_reset),
        T(sendfile_chunks_wait_for_the_proof),
        T(pipelined_request_proves_nothing),
        T(request_sent_before_reading_proves_nothing),
        T(sendfile_is_not_used_when_it_cannot_be_proved),
        T(sendfile_cut_off_is_unproven),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    return failed;
}
