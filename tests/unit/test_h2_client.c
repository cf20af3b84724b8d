/* test_h2_client.c - the HTTP/2 client connection: responses, what goes wrong, health. */
#include "h2_client_support.h"

/* ---- whole responses */

static void test_bodies_arrive_whole(void **state)
{
    (void)state;
    const char *paths[] = {"/size/3000000", "/nolen/3000000", "/size/0", "/nolen/0"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        size_t n = i < 2 ? 3000000 : 0;
        struct get g;
        get_init(&g, paths[i], n);
        g.step = 100003;
        get_send(&g);
        for (int k = 0; k < 400 && !g.ends; k++) run(1);
        assert_int_equal(g.ends, 1);
        assert_int_equal(g.why, ERR_OK);
        assert_int_equal(g.heads, 1);
        assert_int_equal(g.status, 200);
        assert_int_equal(g.length, i % 2 ? -1 : (int64_t)n);
        assert_true(is_pattern(&g, n));
        get_free(&g);
    }
    assert_int_equal(h2_client_streams(client), 0);
    assert_true(changes > 0);
}

static void test_many_at_once_each_byte_checked(void **state)
{
    (void)state;
    enum { MANY = 100 };
    static struct get g[MANY];
    static char path[MANY][32];
    run(2);
    assert_int_equal(h2_client_room(client), 100);
    for (unsigned i = 0; i < MANY; i++) {
        size_t n = i * 1999;
        snprintf(path[i], sizeof path[i], "/size/%zu", n);
        get_init(&g[i], path[i], n);
        get_send(&g[i]);
    }
    assert_int_equal(h2_client_room(client), 0);
    for (int k = 0; k < 2000 && h2_client_streams(client); k++) run(1);
    for (unsigned i = 0; i < MANY; i++) {
        assert_int_equal(g[i].ends, 1);
        assert_int_equal(g[i].why, ERR_OK);
        assert_true(is_pattern(&g[i], i * 1999));
        get_free(&g[i]);
    }
    assert_true(atomic_load(&shared.streams_max) > 50);
    assert_int_equal(h2_client_room(client), 100);
}

static void test_a_request_from_end_finds_room(void **state)
{
    (void)state;
    struct get a, b;
    shared.max_streams = 1;
    run(2);
    get_init(&a, "/size/10", 10);
    get_init(&b, "/size/20", 20);
    a.then = &b;
    get_send(&a);
    run(6);
    assert_int_equal(a.why, ERR_OK);
    assert_true(is_pattern(&b, 20));
    get_free(&a);
    get_free(&b);
}

static void test_peers_stream_limit_is_room(void **state)
{
    (void)state;
    teardown(NULL);
    setup(NULL);
    peer_free(&peer);
    h2_client_destroy(client);
    struct stream *s;
    shared.max_streams = 3;
    peer_init(&peer, connect_pair(&s), NULL, &shared);
    assert_int_equal(h2_client_create(s, &head_limits, &timeouts, 0, &owner, NULL, &client), ERR_OK);
    run(3);
    assert_int_equal(h2_client_room(client), 3);
    struct get g;
    get_init(&g, "/mute", 0);
    get_send(&g);
    assert_int_equal(h2_client_room(client), 2);
    run(2);
    h2_call_cancel(g.stream);
    run(2);
    assert_int_equal(h2_client_room(client), 3);
    assert_int_equal(g.ends, 0);
    assert_int_equal(atomic_load(&shared.resets), 1);
    get_free(&g);
}

static void test_responses_without_a_body(void **state)
{
    (void)state;
    assert_int_equal(end_of("/204", 0), ERR_OK);
    assert_int_equal(one.length, 0);
    assert_int_equal(end_of("/304", 0), ERR_OK);
    assert_int_equal(one.status, 304);
    get_init(&one, "/cut/1234/0", 0);
    one.req.method = STR_LIT("HEAD");
    one.req.method_id = METHOD_HEAD;
    get_send(&one);
    run(4);
    assert_int_equal(one.ends, 1);
    assert_int_equal(one.why, ERR_OK);
    assert_int_equal(one.length, 0);
    get_free(&one);
}

static void test_interim_and_trailers_are_skipped(void **state)
{
    (void)state;
    assert_int_equal(end_of("/interim", 2), ERR_OK);
    assert_int_equal(one.heads, 1);
    assert_int_equal(one.status, 200);
    assert_int_equal(end_of("/trailers", 1000), ERR_OK);
    assert_int_equal(one.heads, 1);
    assert_int_equal(one.n, 1000);
}

static void test_what_is_sent(void **state)
{
    (void)state;
    const struct hdr extra[] = {{STR_LIT("X-Mine"), STR_LIT("1"), HDR_OTHER},
                                {STR_LIT("Connection"), STR_LIT("close"), HDR_CONNECTION},
                                {STR_LIT("TE"), STR_LIT("gzip"), HDR_TE},
                                {STR_LIT("Host"), STR_LIT("other"), HDR_HOST},
                                {STR_LIT("Authorization"), STR_LIT("secret"), HDR_AUTHORIZATION}};
    get_init(&one, "/echo", 4096);
    one.req.hdrs = extra;
    one.req.nhdrs = ARRAY_LEN(extra);
    get_send(&one);
    run(4);
    const char *t = (const char *)one.buf;
    assert_int_equal(one.why, ERR_OK);
    assert_non_null(strstr(t, ":method: GET\n"));
    assert_non_null(strstr(t, ":scheme: http\n"));
    assert_non_null(strstr(t, ":authority: origin.test\n"));
    assert_non_null(strstr(t, ":path: /echo\n"));
    assert_non_null(strstr(t, "x-mine: 1\n"));
    assert_non_null(strstr(t, "authorization: secret\n"));
    assert_null(strstr(t, "connection"));
    assert_null(strstr(t, "host"));
    assert_null(strstr(t, "te:"));
    get_free(&one);
}

/* ---- failures */

static void test_malformed_is_a_protocol_error_of_one_stream(void **state)
{
    (void)state;
    assert_int_equal(end_of("/badname", 10), ERR_PROTOCOL);
    assert_int_equal(end_of("/badvalue", 10), ERR_PROTOCOL);
    assert_int_equal(end_of("/badstatus", 10), ERR_PROTOCOL);
    assert_int_equal(one.heads, 0);
    assert_int_equal(end_of("/long/100", 200), ERR_PROTOCOL);
    assert_int_equal(end_of("/head/63", 10), ERR_OK);
    assert_int_equal(one.nhdrs, 64);
    assert_int_equal(end_of("/head/64", 10), ERR_PROTOCOL); /* one more than the limit */
    assert_int_equal(end_of("/head/290", 10), ERR_PROTOCOL);
    assert_int_equal(end_of("/size/1000", 1000), ERR_OK); /* the connection lives on */
}

static void test_short_body_is_truncated(void **state)
{
    (void)state;
    assert_int_equal(end_of("/cut/100000/70000", 100000), ERR_TRUNCATED);
    assert_int_equal(one.n, 70000);
    assert_int_equal(end_of("/cut/100/0", 100), ERR_TRUNCATED);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
}

static void test_reset_within_a_body(void **state)
{
    (void)state;
    assert_int_equal(end_of("/rst/100000/50000", 100000), ERR_RESET);
    assert_int_equal(one.n, 50000);
    assert_false(one.unprocessed);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
}

static void test_refused_is_unprocessed(void **state)
{
    (void)state;
    shared.refuse = 1;
    assert_int_equal(end_of("/refuse", 10), ERR_RESET);
    assert_true(one.unprocessed && one.refused);
    assert_int_equal(end_of("/refuse", 10), ERR_OK);
    assert_int_equal(end_of("/h1", 10), ERR_RESET);
    assert_true(one.unprocessed && one.wants_h1);
}

static void test_goaway_leaves_the_older_streams(void **state)
{
    (void)state;
    struct get slow, above;
    get_init(&slow, "/late/50", 10);
    get_send(&slow);
    run(2);
    get_init(&above, "/goaway", 10);
    get_send(&above);
    run(4);
    assert_int_equal(above.ends, 1);
    assert_int_equal(above.why, ERR_RESET);
    assert_true(above.unprocessed);
    assert_int_equal(h2_client_room(client), 0);
    assert_false(client_gone);
    for (int i = 0; i < 50 && !slow.ends; i++) {
        pump_ms(10);
        run(1);
    }
    assert_int_equal(slow.why, ERR_OK);
    run(4);
    assert_true(client_gone);
    get_free(&slow);
    get_free(&above);
}

static void test_graceful_goaway_ends_an_idle_connection(void **state)
{
    (void)state;
    assert_int_equal(end_of("/bye", 10), ERR_OK);
    run(3);
    assert_true(client_gone);
}

static void test_close_and_reset_of_the_connection(void **state)
{
    (void)state;
    struct get half;
    get_init(&half, "/stall/1000/10", 1000);
    get_send(&half);
    run(4);
    assert_int_equal(half.n, 10);
    enum err e = end_of("/close", 10);
    assert_true(e == ERR_CLOSED || e == ERR_RESET);
    assert_false(one.unprocessed);
    assert_int_equal(half.ends, 1);
    assert_true(half.why == ERR_TRUNCATED || half.why == ERR_RESET);
    assert_true(client_gone);
    get_free(&half);
}

static void test_garbage_instead_of_http2(void **state)
{
    (void)state;
    peer_alive = false;
    get_init(&one, "/size/1", 10);
    get_send(&one);
    assert_true(send(peer.fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28, 0) == 28);
    run(3);
    assert_int_equal(one.ends, 1);
    assert_int_equal(one.why, ERR_PROTOCOL);
    assert_true(client_gone);
    get_free(&one);
}

static void test_continuation_flood(void **state)
{
    (void)state;
    get_init(&one, "/mute", 10);
    get_send(&one);
    run(3);
    peer_alive = false;
    const uint8_t head[] = {0, 0, 1, 1, 0, 0, 0, 0, 1, 0x88}, more[] = {0, 0, 0, 9, 0, 0, 0, 0, 1};
    assert_true(send(peer.fd, head, sizeof head, 0) > 0);
    for (int i = 0; i < 100; i++) assert_true(send(peer.fd, more, sizeof more, MSG_NOSIGNAL) > 0);
    run(3);
    assert_int_equal(one.ends, 1);
    assert_int_equal(one.why, ERR_PROTOCOL);
    assert_true(client_gone);
    get_free(&one);
}

static void test_each_timeout(void **state)
{
    (void)state;
    client->timeouts.first_byte_ms = 60;
    client->timeouts.stall_ms = 90;
    struct get mute, stall;
    get_init(&mute, "/mute", 10);
    get_init(&stall, "/stall/1000/10", 1000);
    get_send(&mute);
    get_send(&stall);
    run(3);
    for (int i = 0; i < 40 && !(mute.ends && stall.ends); i++) {
        pump_ms(10);
        run(1);
    }
    assert_int_equal(mute.why, ERR_FIRST_BYTE_TIMEOUT);
    assert_int_equal(stall.why, ERR_STALL_TIMEOUT);
    run(2);
    assert_int_equal(atomic_load(&shared.resets), 2);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
    get_free(&mute);
    get_free(&stall);
}

/* ---- health */

static void test_ping_finds_a_dead_peer(void **state)
{
    (void)state;
    run(3);
    client->last_recv_ms -= H2_PING_QUIET_MS;
    on_health(&client->health);
    assert_true(client->ping_ms != 0);
    run(3);
    assert_int_equal(client->ping_ms, 0); /* answered */
    assert_int_equal(atomic_load(&shared.pings), 1);
    shared.no_ping_ack = true;
    get_init(&one, "/mute", 0);
    get_send(&one);
    run(3);
    client->last_recv_ms -= H2_PING_QUIET_MS;
    on_health(&client->health);
    run(3);
    assert_true(client->ping_ms != 0);
    client->ping_ms -= H2_PING_SLOW_MS;
    assert_int_equal(h2_client_room(client), 0);
    client->ping_ms -= H2_PING_WAIT_MS;
    on_health(&client->health);
    run(2);
    assert_int_equal(one.why, ERR_RESET);
    assert_true(client_gone);
    get_free(&one);
}

static void test_a_rested_connection_is_pinged_with_the_next_request(void **state)
{
    (void)state;
    run(3);
    client->last_recv_ms -= H2_PING_RESTED_MS;
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
    assert_int_equal(atomic_load(&shared.pings), 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_bodies_arrive_whole),
        T(test_many_at_once_each_byte_checked),
        T(test_a_request_from_end_finds_room),
        T(test_peers_stream_limit_is_room),
        T(test_responses_without_a_body),
        T(test_interim_and_trailers_are_skipped),
        T(test_what_is_sent),
        T(test_malformed_is_a_protocol_error_of_one_stream),
        T(test_short_body_is_truncated),
        T(test_reset_within_a_body),
        T(test_refused_is_unprocessed),
        T(test_goaway_leaves_the_older_streams),
        T(test_graceful_goaway_ends_an_idle_connection),
        T(test_close_and_reset_of_the_connection),
        T(test_garbage_instead_of_http2),
        T(test_continuation_flood),
        T(test_each_timeout),
        T(test_ping_finds_a_dead_peer),
        T(test_a_rested_connection_is_pinged_with_the_next_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
