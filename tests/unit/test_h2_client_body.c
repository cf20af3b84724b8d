/* test_h2_client_body.c - the HTTP/2 client connection: back-pressure, cancels everywhere, request bodies. */
#include "h2_client_support.h"

/* ---- backpressure */

static void test_pause_holds_the_stream_back_but_no_other(void **state)
{
    (void)state;
    enum { SLOW = 64, BIG = 4 << 20 };
    static struct get slow[SLOW];
    struct get fast;
    for (unsigned i = 0; i < SLOW; i++) {
        get_init(&slow[i], "/size/4194304", BIG);
        slow[i].pause_at = 1000;
        get_send(&slow[i]);
    }
    run(200);
    uint64_t held = 0;
    for (unsigned i = 0; i < SLOW; i++) {
        assert_true(slow[i].paused);
        assert_int_equal(slow[i].n, 1000);
        assert_true(slow[i].stream->hold_n <= slow[i].stream->window);
        held += slow[i].stream->hold_n;
    }
    assert_true(held <= H2_CONN_WINDOW);
    get_init(&fast, "/size/4194304", BIG);
    get_send(&fast);
    for (int k = 0; k < 500 && !fast.ends; k++) run(1);
    assert_int_equal(fast.why, ERR_OK);
    assert_true(is_pattern(&fast, BIG));
    for (unsigned i = 0; i < SLOW; i++) {
        assert_int_equal(slow[i].n, 1000);
        slow[i].pause_at = SIZE_MAX;
        h2_call_resume(slow[i].stream);
        assert_int_equal(slow[i].n, 1000); /* nothing from inside resume */
    }
    for (int k = 0; k < 3000 && h2_client_streams(client); k++) run(1);
    for (unsigned i = 0; i < SLOW; i++) {
        assert_int_equal(slow[i].why, ERR_OK);
        assert_true(is_pattern(&slow[i], BIG));
        get_free(&slow[i]);
    }
    assert_int_equal(client->grown_bytes, 0);
    get_free(&fast);
}

static void test_a_whole_response_waits_for_its_receiver(void **state)
{
    (void)state;
    get_init(&one, "/size/50000", 50000);
    one.pause_at = 100;
    get_send(&one);
    run(5);
    assert_int_equal(one.n, 100);
    assert_int_equal(one.ends, 0);
    shutdown(peer.fd, SHUT_RDWR); /* it is here already */
    peer_alive = false;
    run(2);
    assert_int_equal(one.ends, 0);
    assert_false(client_gone);
    one.pause_at = SIZE_MAX;
    h2_call_resume(one.stream);
    run(1);
    assert_int_equal(one.why, ERR_OK);
    assert_true(is_pattern(&one, 50000));
    assert_true(client_gone);
    get_free(&one);
}

static void test_stall_is_not_counted_while_paused(void **state)
{
    (void)state;
    client->timeouts.stall_ms = 50;
    get_init(&one, "/size/1000000", 1000000);
    one.pause_at = 10;
    get_send(&one);
    run(5);
    pump_ms(200);
    assert_int_equal(one.ends, 0);
    one.pause_at = SIZE_MAX;
    h2_call_resume(one.stream);
    for (int k = 0; k < 100 && !one.ends; k++) run(1);
    assert_int_equal(one.why, ERR_OK);
    get_free(&one);
}

static void test_window_grows_for_long_responses(void **state)
{
    (void)state;
    client->rtt_ns = 1000000000; /* a far peer */
    get_init(&one, "/nolen/30000000", 30000000);
    get_send(&one);
    uint32_t most = 0;
    for (int k = 0; k < 3000 && !one.ends; k++) {
        run(1);
        client->rtt_ns = 1000000000;
        if (!one.ends && one.stream->window > most) most = one.stream->window;
    }
    assert_int_equal(one.why, ERR_OK);
    assert_int_equal(most, H2_WINDOW_MAX);
    assert_int_equal(client->grown_bytes, 0);
    get_free(&one);
}

/* ---- cancels */

static void test_cancel_inside_every_event(void **state)
{
    (void)state;
    const char *paths[] = {"/size/500000", "/nolen/500000", "/size/10"};
    for (int where = CANCEL_HEAD; where <= CANCEL_END; where++)
        for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
            get_init(&one, paths[i], 500000);
            one.cancel_in = where;
            get_send(&one);
            run(40);
            assert_int_equal(one.ends, where == CANCEL_END);
            assert_int_equal(h2_client_streams(client), 0);
            get_free(&one);
        }
    assert_int_equal(end_of("/size/1000", 1000), ERR_OK);
    assert_int_equal(client->nstreams, 0);
}

static void test_cancel_inside_held_bytes(void **state)
{
    (void)state;
    for (int where = CANCEL_SPACE; where <= CANCEL_FILLED; where++) {
        get_init(&one, "/size/100000", 100000);
        one.pause_at = 5;
        get_send(&one);
        run(10);
        assert_true(one.paused);
        one.cancel_in = where;
        one.pause_at = SIZE_MAX;
        h2_call_resume(one.stream);
        run(3);
        assert_int_equal(one.ends, 0);
        assert_int_equal(client->nstreams, 0);
        get_free(&one);
    }
}

static void test_cancel_before_anything_went_out(void **state)
{
    (void)state;
    for (int i = 0; i < 10; i++) {
        get_init(&one, "/size/100", 100);
        get_send(&one);
        h2_call_cancel(one.stream);
        if (i % 2) run(2);
        get_free(&one);
    }
    run(3);
    assert_int_equal(atomic_load(&shared.requests), 0);
    assert_int_equal(client->nstreams, 0);
    assert_int_equal(end_of("/size/100", 100), ERR_OK);
}

/* ---- request bodies */

struct source {
    struct body body;
    uint64_t at, size;
    bool slow, closed, fail;
    struct get *cancels; /* this request, from inside pull */
    unsigned out;        /* chunks not released */
    uint8_t data[50000];
};
static void source_release(void *who, enum chunk_end how)
{
    (void)how;
    ((struct source *)who)->out--;
}
static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    (void)max;
    if (s->cancels) h2_call_cancel(s->cancels->stream);
    if (s->slow) return ERR_AGAIN;
    if (s->fail && s->at) return ERR_TRUNCATED;
    if (s->at == s->size) return ERR_END;
    if (s->out) return ERR_AGAIN; /* its one buffer is in use */
    size_t len = s->size - s->at < sizeof s->data ? (size_t)(s->size - s->at) : sizeof s->data;
    if (len > max_bytes) len = max_bytes;
    for (size_t i = 0; i < len; i++) s->data[i] = h2_pattern_at(s->at + i);
    s->at += len;
    *n = len > 1 ? 2 : 1;
    out[0] = (struct chunk){s->data, len > 1 ? 1 : len, -1, 0, s, source_release};
    if (len > 1) out[1] = (struct chunk){s->data + 1, len - 1, -1, 0, s, source_release};
    s->out += *n;
    return ERR_OK;
}
static void source_close(struct body *b) { container_of(b, struct source, body)->closed = true; }
static const struct body_ops source_ops = {source_pull, source_close};

static struct source src;
static void put_init(const char *path, uint64_t n, bool known)
{
    get_init(&one, path, 4096);
    src = (struct source){.size = n, .body = {.ops = &source_ops, .length = known ? (int64_t)n : -1}};
    one.req.method = STR_LIT("PUT");
    one.req.method_id = METHOD_PUT;
    one.req.body = &src.body;
    one.req.body_length = known ? (int64_t)n : -1;
}

static void test_put_streams_its_body(void **state)
{
    (void)state;
    const uint64_t sizes[] = {0, 1, 65535, 65536, 5000000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
        for (int known = 0; known < 2; known++) {
            char want[32];
            put_init("/sink", sizes[i], known);
            get_send(&one);
            for (int k = 0; k < 1000 && !one.ends; k++) run(1);
            snprintf(want, sizeof want, "%llu", (unsigned long long)sizes[i]);
            assert_int_equal(one.why, ERR_OK);
            assert_string_equal((char *)one.buf, want);
            assert_true(src.closed);
            assert_int_equal(src.out, 0);
            get_free(&one);
        }
}

static void test_put_waits_for_a_slow_source(void **state)
{
    (void)state;
    client->timeouts.stall_ms = 50;
    put_init("/sink", 1000, true);
    src.slow = true;
    get_send(&one);
    run(3);
    pump_ms(150);
    assert_int_equal(one.ends, 0);
    src.slow = false;
    body_notify(&src.body);
    run(4);
    assert_int_equal(one.why, ERR_OK);
    assert_string_equal((char *)one.buf, "1000");
    get_free(&one);
}

static void test_put_with_expect(void **state)
{
    (void)state;
    put_init("/sink", 1000, true);
    one.req.expect_continue = true;
    get_send(&one);
    pump();
    assert_int_equal(src.at, 0);
    run(5);
    assert_int_equal(one.why, ERR_OK);
    assert_string_equal((char *)one.buf, "1000");
    get_free(&one);
    put_init("/other", 1000, true); /* says nothing: after a second the body goes out all the same */
    one.req.expect_continue = true;
    get_send(&one);
    run(3);
    assert_int_equal(src.at, 0);
    pump_ms(1050);
    run(3);
    assert_int_equal(src.at, 1000);
    assert_int_equal(one.why, ERR_OK);
    get_free(&one);
}

static void test_early_answer_stops_the_body(void **state)
{
    (void)state;
    put_init("/early", 50000000, true);
    get_send(&one);
    for (int k = 0; k < 100 && !one.ends; k++) run(1);
    assert_int_equal(one.why, ERR_OK);
    assert_int_equal(one.status, 403);
    assert_true(src.closed && src.out == 0);
    assert_true(src.at < 50000000);
    get_free(&one);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
    assert_int_equal(client->nstreams, 0);
}

static void test_a_body_that_breaks(void **state)
{
    (void)state;
    put_init("/sink", 1000000, true);
    src.fail = true;
    get_send(&one);
    for (int k = 0; k < 100 && !one.ends; k++) run(1);
    assert_int_equal(one.why, ERR_INCOMPLETE_BODY);
    get_free(&one);
    put_init("/sink", 1000, true);
    src.size = 10; /* ends before its length */
    get_send(&one);
    for (int k = 0; k < 100 && !one.ends; k++) {
        run(1);
        if (!src.closed) body_notify(&src.body);
    }
    assert_int_equal(one.why, ERR_INCOMPLETE_BODY);
    assert_int_equal(src.out, 0);
    get_free(&one);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
}

static void test_cancel_from_inside_pull(void **state)
{
    (void)state;
    put_init("/sink", 100000, true);
    src.cancels = &one;
    get_send(&one);
    run(4);
    assert_int_equal(one.ends, 0);
    assert_true(src.closed);
    assert_int_equal(src.out, 0);
    assert_int_equal(client->nstreams, 0);
    get_free(&one);
    assert_int_equal(end_of("/size/10", 10), ERR_OK);
}

static void test_put_that_the_peer_does_not_read_stalls(void **state)
{
    (void)state;
    client->timeouts.stall_ms = 80;
    put_init("/sink", 50000000, true);
    get_send(&one);
    run(2);
    peer_alive = false; /* it no longer reads: window, then socket are full */
    for (int i = 0; i < 60 && !one.ends; i++) {
        pump_ms(10);
        if (!one.ends && !src.closed) body_notify(&src.body);
    }
    assert_int_equal(one.why, ERR_STALL_TIMEOUT);
    assert_true(src.closed && src.out == 0);
    get_free(&one);
}

static void test_destroy_from_the_last_end(void **state)
{
    (void)state; /* the owner closes everything as soon as the last request is over */
    get_init(&one, "/late/1", 10);
    get_send(&one);
    run(2);
    h2_call_cancel(one.stream);
    h2_client_destroy(client);
    client = NULL;
    get_free(&one);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_pause_holds_the_stream_back_but_no_other),
        T(test_a_whole_response_waits_for_its_receiver),
        T(test_stall_is_not_counted_while_paused),
        T(test_window_grows_for_long_responses),
        T(test_cancel_inside_every_event),
        T(test_cancel_inside_held_bytes),
        T(test_cancel_before_anything_went_out),
        T(test_put_streams_its_body),
        T(test_put_waits_for_a_slow_source),
        T(test_put_with_expect),
        T(test_early_answer_stops_the_body),
        T(test_a_body_that_breaks),
        T(test_cancel_from_inside_pull),
        T(test_put_that_the_peer_does_not_read_stalls),
        T(test_destroy_from_the_last_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
