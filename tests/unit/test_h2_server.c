/* test_h2_server.c - HTTP/2 client connections: heads, answers, time limits, leaving, draining. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "h2_server_support.h"

static struct client cl;

/* ---- requests and answers */

static void streams_are_answered(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t a = client_get(&cl, "/4"), b = client_get(&cl, "/100000"), c = client_get(&cl, "/0");
    client_turn(&cl);
    assert_whole(&cl, a, 4);
    assert_whole(&cl, b, 100000);
    assert_whole(&cl, c, 0);
    struct seen *s = seen_of(&cl, a);
    assert_field(s, "etag: \"e\"\n");
    assert_field(s, "x-custom-name: Value\n");
    assert_field(s, "content-length: 4\n");
    assert_field(s, "date: ");
    assert_no_field(s, "connection");
    assert_field(seen_of(&cl, c), "content-length: 0\n");
    assert_int_equal(ends, 3);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(why[i], ERR_OK);
    assert_null(only_conn()->out); /* idle connections hold no buffers */
    assert_int_equal(stat_get(&h2_server_stats(server)->requests), 3);
    assert_int_equal(open_bytes, 0);
    client_close(&cl);
    assert_true(list_empty(&server->conns));
}

static struct head seen_head;
static char seen_text[4096];
static void look_at_request(struct exchange *x)
{
    seen_head = x->req;
    size_t n = 0;
    for (unsigned i = 0; i < x->req.nhdrs; i++) {
        const struct hdr *h = &x->req.hdrs[i];
        assert_int_equal(h->id, hdr_id_of(h->name));
        n += (size_t)snprintf(seen_text + n, sizeof(seen_text) - n, STR_FMT ": " STR_FMT "\n", STR_ARG(h->name),
                              STR_ARG(h->value));
    }
    assert_ptr_equal(x->listener_data, &conf);
    assert_ptr_equal(h2_exchange_listener_data(x), &conf);
    assert_ptr_equal(h2_exchange_server_arg(x), &conf);
    assert_int_equal(x->peer->ss.ss_family, AF_INET);
    assert_int_equal(x->local->ss.ss_family, AF_INET);
    assert_false(x->tls);
    answer(x, 200, 0, NULL);
}

static void head_is_like_one_of_http_1(void **state)
{
    (void)state;
    on_begin = look_at_request;
    client_open(&cl);
    client_request(&cl, "GET", "/a%20b?c=d", "range", "bytes=0-9", "cookie", "a=1", "x-one", "1", "cookie", "b=2",
                   "cookie", "c=3", "te", "trailers", NULL);
    client_turn(&cl);
    assert_int_equal(begins, 1);
    assert_int_equal(seen_head.method, METHOD_GET);
    assert_int_equal(seen_head.minor, 1);
    assert_int_equal(seen_head.content_length, -1);
    assert_false(seen_head.chunked);
    assert_true(seen_head.keep_alive);
    assert_string_equal(seen_text, "host: host\nrange: bytes=0-9\ncookie: a=1; b=2; c=3\nx-one: 1\nte: trailers\n");
    client_request(&cl, "GET", "/", "host", "HOST", NULL);
    client_turn(&cl);
    assert_string_equal(seen_text, "host: HOST\n");
    client_request(&cl, "BREW", "/", NULL);
    client_turn(&cl);
    assert_int_equal(seen_head.method, METHOD_OTHER);
    client_close(&cl);
}

static void many_fields_are_kept(void **state)
{
    (void)state;
    on_begin = look_at_request;
    conf.limits.headers = 60;
    client_open(&cl);
    nghttp2_nv nv[64] = {nv_of(":method", "GET"), nv_of(":scheme", "http"), nv_of(":authority", "host"),
                         nv_of(":path", "/")};
    char names[60][16];
    for (unsigned i = 0; i < 60; i++) {
        snprintf(names[i], sizeof(names[i]), "x-%u", i);
        nv[4 + i] = nv_of(names[i], "v");
    }
    nghttp2_submit_request(cl.session, NULL, nv, 64, NULL, NULL);
    client_turn(&cl);
    assert_int_equal(begins, 1);
    assert_int_equal(seen_head.nhdrs, 61);
    assert_non_null(strstr(seen_text, "x-0: v\n"));
    assert_non_null(strstr(seen_text, "x-59: v\n"));
    client_close(&cl);
}

static void malformed_requests_are_protocol_errors(void **state)
{
    (void)state;
    static const char *const fields[][2] = {
        {"connection", "close"}, {"transfer-encoding", "chunked"}, {"keep-alive", "1"},  {"upgrade", "h2c"},
        {"te", "gzip"},          {"Upper", "case"},                {"host", "other"},    {"proxy-connection", "x"},
        {"x-bad", "a\nb"},       {"content-length", "5"},          {"content-length", "-1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        int fd = raw_open();
        uint8_t block[128];
        memcpy(block, get_block, sizeof(get_block));
        size_t n = sizeof(get_block);
        block[n++] = 0;
        for (unsigned k = 0; k < 2; k++) {
            block[n++] = (uint8_t)strlen(fields[i][k]);
            memcpy(block + n, fields[i][k], strlen(fields[i][k]));
            n += strlen(fields[i][k]);
        }
        heard_n = 0;
        frame_say(fd, n, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, block);
        raw_get(fd, 3); /* the connection goes on */
        hear(fd);
        size_t rst = heard_frame(NGHTTP2_RST_STREAM, 1, 0, NULL);
        if (!rst) fail_msg("%s: %s was let pass", fields[i][0], fields[i][1]);
        assert_int_equal(heard_u32(rst), NGHTTP2_PROTOCOL_ERROR);
        assert_true(heard_frame(NGHTTP2_DATA, 3, 0, NULL) > 0);
        assert_int_equal(begins, i + 1);
        close(fd);
        pump();
    }
}

static void wrong_requests_are_told_why(void **state)
{
    (void)state;
    char big[9000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    char target[2000] = "/";
    memset(target + 1, 'y', sizeof(target) - 2);
    conf.max_body_bytes = 1000;
    client_open(&cl);
    const struct {
        int32_t id;
        unsigned status;
    } asked[] = {
        {client_request(&cl, "GET", "/", "x", big, NULL), 431},
        {client_request(&cl, "GET", target, NULL), 414},
        {client_request(&cl, "PUT", "/", "content-length", "1001", "expect", "100-continue", NULL), 400}, /* below */
        {client_request(&cl, "GET", "/", "expect", "the-spanish-inquisition", NULL), 417},
        {client_request(&cl, "HEAD", "/", "x", big, NULL), 431},
    };
    client_turn(&cl);
    assert_int_equal(begins, 0);
    for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
        struct seen *s = seen_of(&cl, asked[i].id);
        if (i == 2) { /* ended at once although it promised bytes */
            assert_int_equal(s->error, NGHTTP2_PROTOCOL_ERROR);
            continue;
        }
        assert_int_equal(s->status, asked[i].status);
        assert_true(s->closed);
        assert_field(s, "content-type: application/xml\n");
        assert_true(i == 4 ? s->body_n == 0 : s->body_n > 10);
    }
    assert_int_equal(stat_get(&h2_server_stats(server)->heads_too_large), 3);
    int32_t id = client_get(&cl, "/7");
    client_turn(&cl);
    assert_whole(&cl, id, 7);
    client_close(&cl);
}

static void bodiless_answers_end_with_the_head(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t head = client_request(&cl, "HEAD", "/1000", NULL);
    client_turn(&cl);
    struct seen *s = seen_of(&cl, head);
    assert_field(s, "content-length: 1000\n");
    assert_true(s->closed && s->frames == 0);
    on_begin = answer_204;
    int32_t id = client_get(&cl, "/");
    client_turn(&cl);
    s = seen_of(&cl, id);
    assert_int_equal(s->status, 204);
    assert_no_field(s, "content-length");
    assert_true(s->closed && s->frames == 0);
    on_begin = answer_304;
    id = client_get(&cl, "/");
    client_turn(&cl);
    s = seen_of(&cl, id);
    assert_field(s, "content-length: 1234\n");
    assert_true(s->closed && s->frames == 0);
    assert_int_equal(ends, 3);
    for (unsigned i = 0; i < 3; i++) assert_int_equal(why[i], ERR_OK);
    client_close(&cl);
}

static void unknown_length_ends_with_the_body(void **state)
{
    (void)state;
    on_begin = answer_unknown_length;
    client_open(&cl);
    int32_t id = client_get(&cl, "/");
    client_turn(&cl);
    assert_whole(&cl, id, 100000);
    assert_no_field(seen_of(&cl, id), "content-length");
    client_close(&cl);
}

static void answers_may_come_later_and_in_any_order(void **state)
{
    (void)state;
    on_begin = answer_later;
    client_open(&cl);
    int32_t a = client_get(&cl, "/1");
    client_turn(&cl);
    struct exchange *first = current;
    int32_t b = client_get(&cl, "/2");
    client_turn(&cl);
    answer_size(current);
    client_turn(&cl);
    assert_whole(&cl, b, 2);
    assert_false(seen_of(&cl, a)->head);
    answer_size(first);
    client_turn(&cl);
    assert_whole(&cl, a, 1);
    client_close(&cl);
}

/* ---- connections */

static void byte_at_a_time_is_the_same(void **state)
{
    (void)state;
    uint8_t all[256];
    size_t n = NGHTTP2_CLIENT_MAGIC_LEN;
    memcpy(all, NGHTTP2_CLIENT_MAGIC, n);
    n += frame_put(all + n, 0, NGHTTP2_SETTINGS, 0, 0, NULL);
    n += frame_put(all + n, sizeof(get_block), NGHTTP2_HEADERS, 5, 1, get_block);
    n += frame_put(all + n, 8, NGHTTP2_PING, 0, 0, "12345678");
    int fd = client_fd();
    for (size_t i = 0; i < n; i++) {
        say_n(fd, all + i, 1);
        pump();
    }
    hear(fd);
    assert_true(heard_frame(NGHTTP2_DATA, 1, 0, NULL) > 0);
    assert_true(heard_frame(NGHTTP2_PING, 0, 0, NULL) > 0);
    close(fd);
}

static void bytes_read_before_are_not_lost(void **state)
{
    (void)state;
    uint8_t all[256];
    struct stream *s;
    struct address peer = {.len = sizeof(peer.ss)};
    size_t n = NGHTTP2_CLIENT_MAGIC_LEN;
    memcpy(all, NGHTTP2_CLIENT_MAGIC, n);
    n += frame_put(all + n, 0, NGHTTP2_SETTINGS, 0, 0, NULL);
    n += frame_put(all + n, sizeof(get_block), NGHTTP2_HEADERS, 5, 1, get_block);
    for (size_t early = 1; early <= n; early += 7) {
        int fd = connect_pair(&s);
        getsockname(fd, (struct sockaddr *)&peer.ss, &peer.len);
        assert_int_equal(h2_server_accept(server, s, &peer, &conf, &conf, all, early), ERR_OK);
        assert_int_equal(begins, ends);
        heard_n = 0;
        say_n(fd, all + early, n - early);
        hear(fd);
        assert_true(heard_frame(NGHTTP2_DATA, 1, 0, NULL) > 0);
        close(fd);
        pump();
    }
}

static void wrong_preface_ends_the_connection(void **state)
{
    (void)state;
    int fd = client_fd();
    say_n(fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n", 27);
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_PROTOCOL_ERROR);
    assert_int_equal(heard_errno, -1);
    close(fd);
}

static void errors_end_in_goaway_and_a_clean_close(void **state)
{
    (void)state;
    int fd = raw_open();
    raw_get(fd, 1);
    hear(fd);
    frame_say(fd, 5, NGHTTP2_DATA, 0, 1, "12345"); /* the stream is closed */
    frame_say(fd, 5, NGHTTP2_DATA, 0, 1, "12345");
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_STREAM_CLOSED);
    assert_int_equal(heard_errno, -1); /* our FIN, while we still read */
    assert_false(list_empty(&server->conns));
    frame_say(fd, 5, NGHTTP2_DATA, 0, 1, "12345");
    pump();
    assert_false(list_empty(&server->conns));
    assert_int_equal(stat_get(&h2_server_stats(server)->protocol_errors), 1);
    close(fd);
    pump();
    assert_true(list_empty(&server->conns));
}

static void idle_connection_is_told_and_closed(void **state)
{
    (void)state;
    conf.idle_timeout_ms = 60;
    client_open(&cl);
    int32_t id = client_get(&cl, "/slow/5");
    client_turn(&cl);
    pump_ms(150);
    client_turn(&cl);
    assert_int_equal(cl.goaways, 0); /* busy */
    current_source->stop_err = ERR_OK;
    body_notify(&current_source->body);
    client_turn(&cl);
    assert_whole(&cl, id, 5);
    pump_ms(150);
    client_turn(&cl);
    assert_int_equal(cl.goaways, 1);
    assert_int_equal(cl.goaway_error[0], NGHTTP2_NO_ERROR);
    assert_int_equal(cl.goaway_last[0], id);
    assert_true(cl.eof);
    client_close(&cl);
}

static void half_open_heads_end_the_connection(void **state)
{
    (void)state;
    conf.head_timeout_ms = 60;
    int fd = client_fd();
    say_n(fd, NGHTTP2_CLIENT_MAGIC, 20);
    pump_ms(150);
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_SETTINGS_TIMEOUT);
    close(fd);
    pump();
    heard_n = 0;
    fd = raw_open();
    frame_say(fd, sizeof(get_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, get_block);
    pump_ms(150);
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_int_equal(stat_get(&h2_server_stats(server)->timeouts), 2);
    close(fd);
    pump();
}

/* The last byte of a HEADERS frame never comes: in time this is as bad as a CONTINUATION that does not. */
static void head_without_its_last_byte_ends_the_connection(void **state)
{
    (void)state;
    conf.head_timeout_ms = 80;
    int fd = raw_open();
    uint8_t frame[64];
    size_t n = frame_put(frame, sizeof(get_block), NGHTTP2_HEADERS, 5, 1, get_block);
    for (size_t i = 0; i < n - 1; i++) { /* dripping does not help */
        say_n(fd, frame + i, 1);
        pump_ms(10);
    }
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_int_equal(begins, 0);
    assert_int_equal(stat_get(&h2_server_stats(server)->timeouts), 1);
    close(fd);
    pump();
    assert_true(list_empty(&server->conns));
}

static void answers_of_our_own_name_an_id(void **state)
{
    (void)state;
    client_open(&cl);
    int32_t id = client_request(&cl, "GET", "/", "expect", "the-spanish-inquisition", NULL);
    client_turn(&cl);
    assert_field(seen_of(&cl, id), "x-amz-request-id: ID417\n");
    client_close(&cl);
}

/* limits.request_memory is theirs, too. */
static void memory_of_a_request_is_bounded(void **state)
{
    (void)state;
    conf.request_memory_bytes = 16384;
    conf.limits.head_bytes = 100000;
    char big[9000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = 0;
    client_open(&cl);
    int32_t id = client_request(&cl, "GET", "/5", "x", big, "y", big, NULL);
    client_turn(&cl);
    assert_int_equal(seen_of(&cl, id)->status, 503);
    id = client_get(&cl, "/5");
    client_turn(&cl);
    assert_whole(&cl, id, 5);
    client_close(&cl);
}

/* Origins' heads may be large; what is larger than can be sent must not leave the client waiting. */
static char *large_value;
static unsigned large_values;
static void answer_large_head(struct exchange *x)
{
    struct hdr h[40];
    for (unsigned i = 0; i < large_values; i++) h[i] = (struct hdr){STR_LIT("x-large"), str_make(large_value, 30000), HDR_OTHER};
    struct head resp = {.status = 200, .hdrs = h, .nhdrs = large_values, .content_length = 0};
    exchange_respond(x, &resp, NULL);
}
static void large_heads_are_sent_or_the_stream_is_reset(void **state)
{
    (void)state;
    large_value = malloc(30000);
    memset(large_value, '~', 30000); /* as long in Huffman's code as it can be */
    on_begin = answer_large_head;
    for (large_values = 3; large_values < 40; large_values += 36) {
        int fd = raw_open();
        heard_n = 0;
        raw_get(fd, 1);
        hear(fd);
        size_t rst = heard_frame(NGHTTP2_RST_STREAM, 1, 0, NULL);
        if (large_values == 3) {
            assert_true(heard_frame(NGHTTP2_HEADERS, 1, 0, NULL) > 0);
            assert_true(heard_frame(NGHTTP2_CONTINUATION, 1, 4, NULL) > 0);
            assert_int_equal(rst, 0);
            assert_int_equal(why[0], ERR_OK);
        } else {
            assert_true(rst > 0);
            assert_int_equal(heard_u32(rst), NGHTTP2_INTERNAL_ERROR);
            assert_int_equal(why[1], ERR_INTERNAL);
        }
        close(fd);
        pump();
    }
    assert_int_equal(ends, 2);
    free(large_value);
}

static void reader_that_stops_is_reset(void **state)
{
    (void)state;
    conf.send_timeout_ms = 100;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 30}};
    client_open_with(&cl, client_fd(), iv, 1, true);
    nghttp2_session_set_local_window_size(cl.session, 0, 0, 1 << 30);
    client_turn(&cl);
    cl.stop_reading = true;
    for (unsigned i = 0; i < 4; i++) client_get(&cl, "/8000000");
    client_turn(&cl);
    assert_int_equal(ends, 0);
    pump_ms(250);
    assert_int_equal(ends, 4);
    assert_int_equal(why[0], ERR_REQUEST_TIMEOUT);
    assert_true(list_empty(&server->conns));
    client_close(&cl);
}

static void zero_window_streams_are_reset(void **state)
{
    (void)state;
    conf.send_timeout_ms = 100;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0}};
    client_open_with(&cl, client_fd(), iv, 1, false);
    client_turn(&cl);
    int32_t ids[200];
    for (unsigned i = 0; i < 200; i++) ids[i] = client_get(&cl, "/8000000");
    client_turn(&cl);
    assert_true(max_open_bytes <= 200 * 16384);
    pump_ms(300);
    client_turn(&cl);
    for (unsigned i = 0; i < 200; i++) assert_int_equal(seen_of(&cl, ids[i])->error, NGHTTP2_CANCEL);
    assert_int_equal(ends, 200);
    assert_int_equal(why[0], ERR_REQUEST_TIMEOUT);
    assert_int_equal(stat_get(&h2_server_stats(server)->stalled), 200);
    client_close(&cl);
}

static void one_byte_windows_are_no_progress(void **state)
{
    (void)state;
    conf.send_timeout_ms = 150;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1}};
    client_open_with(&cl, client_fd(), iv, 1, false);
    client_turn(&cl);
    int32_t id = client_get(&cl, "/8000000");
    for (unsigned i = 0; i < 60 && !seen_of(&cl, id)->closed; i++) {
        client_turn(&cl);
        pump_ms(10);
        nghttp2_submit_window_update(cl.session, 0, id, 1);
    }
    assert_int_equal(seen_of(&cl, id)->error, NGHTTP2_CANCEL);
    assert_true(seen_of(&cl, id)->body_n > 3);
    assert_int_equal(stat_get(&h2_server_stats(server)->stalled), 1);
    client_close(&cl);
}

/* A client that takes its time is none that stalls. */
static void slow_but_honest_reader_is_served(void **state)
{
    (void)state;
    conf.send_timeout_ms = 100;
    nghttp2_settings_entry iv[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 4096}};
    client_open_with(&cl, client_fd(), iv, 1, false);
    client_turn(&cl);
    int32_t id = client_get(&cl, "/60000");
    for (unsigned i = 0; i < 20 && !seen_of(&cl, id)->closed; i++) {
        client_turn(&cl);
        pump_ms(30);
        nghttp2_session_consume(cl.session, id, 4096);
        nghttp2_submit_window_update(cl.session, 0, id, 4096);
    }
    assert_whole(&cl, id, 60000);
    client_close(&cl);
}

static void waiting_for_the_origin_is_not_the_clients_fault(void **state)
{
    (void)state;
    conf.send_timeout_ms = 60;
    client_open(&cl);
    int32_t id = client_get(&cl, "/slow/8");
    client_turn(&cl);
    pump_ms(250);
    current_source->stop_err = ERR_OK;
    body_notify(&current_source->body);
    client_turn(&cl);
    assert_whole(&cl, id, 8);
    client_close(&cl);
}

static unsigned drains;
static void on_drained(void *arg)
{
    assert_ptr_equal(arg, &drains);
    drains++;
}
static void drain_says_goaway_twice_and_ends_streams_whole(void **state)
{
    (void)state;
    drains = 0;
    client_open(&cl);
    int32_t a = client_get(&cl, "/slow/300000");
    client_turn(&cl);
    struct source *slow = current_source;
    h2_server_drain(server, on_drained, &drains);
    client_send(&cl);
    pump();
    /* as if it had been on its way: before the client has seen the first GOAWAY */
    int32_t b = client_get(&cl, "/9");
    client_turn(&cl);
    assert_int_equal(cl.goaways, 2);
    assert_int_equal(cl.goaway_last[0], INT32_MAX);
    assert_int_equal(cl.goaway_error[0], NGHTTP2_NO_ERROR);
    assert_int_equal(cl.goaway_last[1], b);
    assert_whole(&cl, b, 9);
    assert_int_equal(drains, 0);
    assert_false(cl.eof);
    slow->stop_err = ERR_OK;
    body_notify(&slow->body);
    client_turn(&cl);
    assert_whole(&cl, a, 300000);
    assert_true(cl.eof);
    client_close(&cl);
    assert_int_equal(drains, 1);
}

/* The client would ask for them again elsewhere. Whether or not the GOAWAY has reached the socket. */
static void streams_behind_the_final_goaway_do_not_happen(void **state)
{
    (void)state;
    uint8_t frames[200];
    drains = 0;
    on_begin = answer_later;
    int fd = raw_open();
    raw_get(fd, 1);
    hear(fd);
    h2_server_drain(server, on_drained, &drains);
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_NO_ERROR);
    size_t n = frame_put(frames, sizeof(get_block), NGHTTP2_HEADERS, 5, 3, get_block); /* sent before it heard: counts */
    n += frame_put(frames + n, 8, NGHTTP2_PING, 1, 0, "draining");
    n += frame_put(frames + n, sizeof(get_block), NGHTTP2_HEADERS, 5, 5, get_block);
    n += frame_put(frames + n, sizeof(post_block), NGHTTP2_HEADERS, 4, 7, post_block);
    n += frame_put(frames + n, 5, NGHTTP2_DATA, 1, 7, "12345");
    say_n(fd, frames, n);
    hear(fd);
    assert_int_equal(begins, 2);
    size_t last = heard_frame(NGHTTP2_GOAWAY, 0, 1, NULL);
    assert_true(last > 0);
    assert_int_equal(heard_u32(last), 3);
    assert_int_equal(stat_get(&h2_server_stats(server)->floods[H2_FLOOD_RESET]), 0);
    answer_size(current);
    hear(fd);
    assert_true(heard_frame(NGHTTP2_DATA, 3, 0, NULL) > 0);
    close(fd);
    pump();
    assert_int_equal(ends, 2);
}

static void drain_does_not_wait_for_a_ping_for_ever(void **state)
{
    (void)state;
    drains = 0;
    conf.linger_ms = 50;
    int fd = raw_open();
    hear(fd);
    h2_server_drain(server, on_drained, &drains);
    hear(fd);
    assert_true(heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL) > 0);
    assert_int_equal(heard_frame(NGHTTP2_GOAWAY, 0, 1, NULL), 0);
    pump_ms(1100);
    hear(fd);
    assert_true(heard_frame(NGHTTP2_GOAWAY, 0, 1, NULL) > 0);
    assert_int_equal(heard_errno, -1);
    pump_ms(100);
    assert_int_equal(drains, 1);
    close(fd);
    h2_server_drain(server, on_drained, &drains); /* nothing left: at once */
    assert_int_equal(drains, 2);
}

static void requests_on_their_way_when_an_idle_connection_drains_are_answered(void **state)
{
    (void)state;
    drains = 0;
    int fd = raw_open();
    hear(fd);
    h2_server_drain(server, on_drained, &drains);
    hear(fd);
    assert_int_equal(heard_u32(heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL)), INT32_MAX);
    raw_get(fd, 1);
    size_t ping = heard_frame(NGHTTP2_PING, 0, 0, NULL);
    uint8_t opaque[8];
    memcpy(opaque, heard + ping, 8);
    frame_say(fd, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, "12345678"); /* not ours */
    hear(fd);
    assert_true(heard_frame(NGHTTP2_DATA, 1, 0, NULL) > 0);
    assert_int_equal(heard_frame(NGHTTP2_GOAWAY, 0, 1, NULL), 0);
    frame_say(fd, 8, NGHTTP2_PING, NGHTTP2_FLAG_ACK, 0, opaque);
    hear(fd);
    assert_int_equal(heard_u32(heard_frame(NGHTTP2_GOAWAY, 0, 1, NULL)), 1);
    assert_int_equal(heard_errno, -1);
    close(fd);
    pump();
    assert_int_equal(drains, 1);
}

static void max_requests_drains_the_connection(void **state)
{
    (void)state;
    conf.max_requests = 3;
    client_open(&cl);
    int32_t ids[3];
    for (unsigned i = 0; i < 3; i++) ids[i] = client_get(&cl, "/7");
    client_turn(&cl);
    for (unsigned i = 0; i < 3; i++) assert_whole(&cl, ids[i], 7);
    assert_true(cl.goaways >= 1); /* the client's library does not look at what comes later */
    assert_int_equal(cl.goaway_error[0], NGHTTP2_NO_ERROR);
    assert_true(cl.eof);
    client_close(&cl);
}

static void client_that_leaves_ends_its_exchanges(void **state)
{
    (void)state;
    client_open(&cl);
    client_get(&cl, "/slow/100");
    client_get(&cl, "/slow/100");
    client_turn(&cl);
    client_close(&cl);
    assert_int_equal(ends, 2);
    assert_true(why[0] == ERR_CLOSED || why[0] == ERR_RESET);
    assert_true(list_empty(&server->conns));
}

static void kill_ends_everything(void **state)
{
    (void)state;
    client_open(&cl);
    client_get(&cl, "/slow/100");
    on_begin = answer_later;
    client_get(&cl, "/1");
    client_turn(&cl);
    h2_server_kill(server);
    assert_int_equal(ends, 2);
    assert_int_equal(why[0], ERR_CANCELLED);
    assert_true(list_empty(&server->conns));
    client_close(&cl);
}

static unsigned held_confs;
static void hold(void *owner)
{
    ++*(unsigned *)owner;
}
static void unhold(void *owner)
{
    --*(unsigned *)owner;
}
static void conf_is_held_as_long_as_a_connection_lives(void **state)
{
    (void)state;
    conf.hold = hold;
    conf.unhold = unhold;
    conf.owner = &held_confs;
    struct client other;
    client_open(&cl);
    client_open(&other);
    assert_int_equal(held_confs, 2);
    client_close(&cl);
    assert_int_equal(held_confs, 1);
    client_close(&other);
    assert_int_equal(held_confs, 0);
}

static void two_hundred_streams_at_once(void **state)
{
    (void)state;
    client_open(&cl);
    static int32_t ids[1000];
    for (unsigned i = 0; i < 1000; i++) {
        char path[32];
        snprintf(path, sizeof(path), i % 3 ? "/%u" : "/parts/%u", i * 37);
        ids[i] = client_get(&cl, path);
    }
    client_turn(&cl);
    for (unsigned i = 0; i < 1000; i++) assert_whole(&cl, ids[i], i * 37);
    assert_int_equal(ends, 1000);
    client_close(&cl);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(streams_are_answered),
        T(head_is_like_one_of_http_1),
        T(many_fields_are_kept),
        T(malformed_requests_are_protocol_errors),
        T(wrong_requests_are_told_why),
        T(bodiless_answers_end_with_the_head),
        T(unknown_length_ends_with_the_body),
        T(answers_may_come_later_and_in_any_order),
        T(byte_at_a_time_is_the_same),
        T(bytes_read_before_are_not_lost),
        T(wrong_preface_ends_the_connection),
        T(errors_end_in_goaway_and_a_clean_close),
        T(idle_connection_is_told_and_closed),
        T(half_open_heads_end_the_connection),
        T(head_without_its_last_byte_ends_the_connection),
        T(answers_of_our_own_name_an_id),
        T(large_heads_are_sent_or_the_stream_is_reset),
        T(streams_behind_the_final_goaway_do_not_happen),
        T(memory_of_a_request_is_bounded),
        T(reader_that_stops_is_reset),
        T(zero_window_streams_are_reset),
        T(one_byte_windows_are_no_progress),
        T(slow_but_honest_reader_is_served),
        T(waiting_for_the_origin_is_not_the_clients_fault),
        T(drain_says_goaway_twice_and_ends_streams_whole),
        T(drain_does_not_wait_for_a_ping_for_ever),
        T(requests_on_their_way_when_an_idle_connection_drains_are_answered),
        T(max_requests_drains_the_connection),
        T(client_that_leaves_ends_its_exchanges),
        T(kill_ends_everything),
        T(conf_is_held_as_long_as_a_connection_lives),
        T(two_hundred_streams_at_once),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    return failed;
}
