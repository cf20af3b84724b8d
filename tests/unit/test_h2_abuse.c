/* test_h2_abuse.c - HTTP/2 clients that mean harm: each flood ends in GOAWAY ENHANCE_YOUR_CALM and a counter, memory
 * stays bounded, and another client is served meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <malloc.h>

#include "h2_server_support.h"

static struct client other;

static void other_is_served(void)
{
    int32_t id = client_get(&other, "/50000");
    client_turn(&other);
    assert_whole(&other, id, 50000);
}

/* Says `n` bytes over and over until the server has had enough; how often. */
static unsigned flood(int fd, const uint8_t *frames, size_t n, unsigned most)
{
    for (unsigned i = 0; i < most; i++) {
        say_n(fd, frames, n);
        if (i % 16 && i + 1 < most) continue;
        hear(fd);
        if (heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL)) return i;
        if (heard_n > sizeof(heard) / 2) heard_n = 0;
    }
    return most;
}

static void assert_calmed(int fd, enum h2_flood kind)
{
    hear(fd);
    assert_int_equal(heard_goaway(), NGHTTP2_ENHANCE_YOUR_CALM);
    assert_true(heard_errno != 0);
    assert_int_equal(stat_get(&h2_server_stats(server)->floods[kind]), 1);
    assert_int_equal(stat_get(&h2_server_stats(server)->protocol_errors), 0);
    assert_int_equal(begins, ends);
    other_is_served();
    close(fd);
    pump();
}

static void begin_with_another(void)
{
    client_open(&other);
    other_is_served();
}

static void rapid_reset(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = answer_later;
    int fd = raw_open();
    uint8_t frames[64];
    uint32_t id = 1;
    unsigned n = 0;
    for (; n < 100000 && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); n++, id += 2) {
        size_t k = frame_put(frames, sizeof(get_block), NGHTTP2_HEADERS, 5, id, get_block);
        k += frame_put(frames + k, 4, NGHTTP2_RST_STREAM, 0, id, "\0\0\0\10");
        say_n(fd, frames, k);
        if (n % 16 == 0) hear(fd);
    }
    assert_true(n < conf.guard.rates[H2_FLOOD_RESET].burst + 100);
    on_begin = answer_size;
    assert_calmed(fd, H2_FLOOD_RESET);
    client_close(&other);
}

/* The same with the server's own resets: a window that overflows makes it send one for every stream. */
static void made_you_reset(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = answer_later;
    int fd = raw_open();
    uint8_t frames[64];
    uint32_t id = 1;
    unsigned n = 0;
    for (; n < 100000 && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); n++, id += 2) {
        size_t k = frame_put(frames, sizeof(get_block), NGHTTP2_HEADERS, 5, id, get_block);
        k += frame_put(frames + k, 4, NGHTTP2_WINDOW_UPDATE, 0, id, "\177\377\377\377");
        say_n(fd, frames, k);
        if (n % 16 == 0) hear(fd);
    }
    assert_true(n < conf.guard.rates[H2_FLOOD_RESET].burst + 100);
    on_begin = answer_size;
    assert_calmed(fd, H2_FLOOD_RESET);
    client_close(&other);
}

static void too_many_streams(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = answer_later;
    int fd = raw_open(); /* SETTINGS never acknowledged: streams are refused, not yet an error */
    unsigned n = 0;
    for (; n < 100000 && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); n++) {
        raw_get(fd, 2 * n + 1);
        if (n % 16 == 0) hear(fd);
    }
    assert_true(begins <= conf.max_streams + 1);
    assert_true(n < conf.max_streams + conf.guard.rates[H2_FLOOD_RESET].burst + 100);
    on_begin = answer_size;
    assert_calmed(fd, H2_FLOOD_RESET);
    client_close(&other);
}

static void continuation_flood(void **state)
{
    (void)state;
    begin_with_another();
    int fd = raw_open();
    uint8_t one[16384 + 9];
    frame_say(fd, sizeof(get_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_STREAM, 1, get_block);
    size_t n = frame_put(one, 0, NGHTTP2_CONTINUATION, 0, 1, NULL);
    assert_true(flood(fd, one, n, 10000) <= 32);
    assert_calmed(fd, H2_FLOOD_CONTINUATION);
    client_close(&other);
}

static void simple_floods(void **state)
{
    (void)state;
    static const struct {
        enum h2_flood kind;
        unsigned type, flags;
        uint32_t id;
        size_t length;
        const char *payload;
    } kinds[] = {
        {H2_FLOOD_SETTINGS, NGHTTP2_SETTINGS, 0, 0, 6, "\0\4\0\0\0\1"},
        {H2_FLOOD_PING, NGHTTP2_PING, 0, 0, 8, "12345678"},
        {H2_FLOOD_PING, NGHTTP2_PING, 1, 0, 8, "12345678"},
        {H2_FLOOD_PRIORITY, NGHTTP2_PRIORITY, 0, 3, 5, "\0\0\0\0\20"},
        {H2_FLOOD_PRIORITY, 0x10, 0, 0, 7, "\0\0\0\1u=1"},
        {H2_FLOOD_PRIORITY, 0xbe, 0, 0, 1, "x"},
        {H2_FLOOD_WINDOW, NGHTTP2_WINDOW_UPDATE, 0, 0, 4, "\0\0\0\1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        begin_with_another();
        int fd = raw_open();
        uint8_t one[64];
        size_t n = frame_put(one, kinds[i].length, kinds[i].type, kinds[i].flags, kinds[i].id, kinds[i].payload);
        heard_n = 0;
        unsigned said = flood(fd, one, n, 20000);
        assert_true(said <= conf.guard.rates[kinds[i].kind].burst + 64);
        hear(fd);
        assert_int_equal(heard_goaway(), NGHTTP2_ENHANCE_YOUR_CALM);
        other_is_served();
        close(fd);
        client_close(&other);
    }
    struct h2_server_stats *s = h2_server_stats(server);
    assert_int_equal(stat_get(&s->floods[H2_FLOOD_SETTINGS]), 1);
    assert_int_equal(stat_get(&s->floods[H2_FLOOD_PING]), 2);
    assert_int_equal(stat_get(&s->floods[H2_FLOOD_PRIORITY]), 3);
    assert_int_equal(stat_get(&s->floods[H2_FLOOD_WINDOW]), 1);
}

static void empty_data_flood(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = collect_body;
    int fd = raw_open();
    frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 1, post_block);
    uint8_t one[16];
    size_t n = frame_put(one, 0, NGHTTP2_DATA, 0, 1, NULL);
    assert_true(flood(fd, one, n, 20000) <= conf.guard.rates[H2_FLOOD_EMPTY].burst + 64);
    assert_calmed(fd, H2_FLOOD_EMPTY);
    client_close(&other);
}

/* Each byte of the block stands for the largest entry the table can hold. */
static void hpack_bomb(void **state)
{
    (void)state;
    begin_with_another();
    int fd = raw_open();
    uint8_t *block = malloc(16384);
    memcpy(block, get_block, sizeof(get_block));
    size_t n = sizeof(get_block);
    const size_t value = 4000;
    block[n++] = 0x40; /* literal with incremental indexing */
    block[n++] = 1;
    block[n++] = 'x';
    block[n++] = 0x7f; /* 127 + 3873: 0x21 | 0x80, 0x1e */
    block[n++] = (uint8_t)((value - 127) & 127) | 128;
    block[n++] = (uint8_t)((value - 127) >> 7);
    memset(block + n, 'y', value);
    n += value;
    memset(block + n, 0xbe, 16384 - n); /* index 62, again and again */
    frame_say(fd, 16384, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 1, block);
    free(block);
    assert_calmed(fd, H2_FLOOD_HEAD);
    assert_int_equal(begins, 2); /* the other's */
    assert_int_equal(stat_get(&h2_server_stats(server)->heads_too_large), 1);
    client_close(&other);
}

/* The same as trailers, which nobody uses: the first stream is reset, the sixteenth ends the connection. */
static void hpack_bombs_in_trailers(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = answer_later;
    int fd = raw_open();
    uint8_t block[4200];
    const size_t value = 4000;
    size_t n = 0, first;
    static const uint8_t field[] = {0x40, 1, 'x', 0x7f, ((4000 - 127) & 127) | 128, (4000 - 127) >> 7};
    memcpy(block, field, sizeof(field));
    n = sizeof(field);
    memset(block + n, 'y', value);
    first = n += value;
    memset(block + n, 0xbe, 100);
    unsigned i = 0;
    for (; i < 1000 && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); i++) {
        frame_say(fd, sizeof(post_block), NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS, 2 * i + 1, post_block);
        if (i == 0) frame_say(fd, first + 100, NGHTTP2_HEADERS, 5, 1, block);
        else frame_say(fd, 100, NGHTTP2_HEADERS, 5, 2 * i + 1, block + first);
        hear(fd);
        if (i == 0) {
            size_t rst = heard_frame(NGHTTP2_RST_STREAM, 1, 0, NULL);
            assert_true(rst > 0);
            assert_int_equal(heard_u32(rst), NGHTTP2_INTERNAL_ERROR);
        }
    }
    assert_true(i > 3 && i <= conf.guard.rates[H2_FLOOD_HEAD].burst + 3);
    assert_int_equal(stat_get(&h2_server_stats(server)->heads_too_large), i);
    on_begin = answer_size;
    assert_calmed(fd, H2_FLOOD_HEAD);
    client_close(&other);
}

static void header_lists_over_the_bound_again_and_again(void **state)
{
    (void)state;
    begin_with_another();
    int fd = raw_open();
    uint8_t block[10000];
    memcpy(block, get_block, sizeof(get_block));
    size_t n = sizeof(get_block);
    for (unsigned i = 0; i < 80; i++) { /* 80 * (1 + 100 + 32) > 8192 */
        block[n++] = 0;
        block[n++] = 1;
        block[n++] = 'x';
        block[n++] = 100;
        memset(block + n, 'y', 100);
        n += 100;
    }
    unsigned i = 0;
    for (; i < 1000 && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); i++) {
        frame_say(fd, n, NGHTTP2_HEADERS, NGHTTP2_FLAG_END_HEADERS | NGHTTP2_FLAG_END_STREAM, 2 * i + 1, block);
        hear(fd);
    }
    assert_true(i > 3 && i <= conf.guard.rates[H2_FLOOD_HEAD].burst + 3);
    assert_calmed(fd, H2_FLOOD_HEAD);
    client_close(&other);
}

/* Asks for what makes answers and never reads: it is not read any more, and time ends it. */
static void client_that_only_writes(void **state)
{
    (void)state;
    begin_with_another();
    conf.send_timeout_ms = 200;
    conf.max_queued_frames = 50;
    conf.guard.rates[H2_FLOOD_PING].burst = 1000000;
    int fd = raw_open();
    say_n(fd, "\0\0\4\10\0\0\0\0\0\177\0\0\0", 13);
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    uint8_t settings[16];
    frame_say(fd, 6, NGHTTP2_SETTINGS, 0, 0, memcpy(settings, "\0\4\177\377\377\377", 6));
    for (uint32_t i = 0; i < 200; i++) {
        uint8_t block[] = {0x82, 0x86, 0x04, 8, '/', '8', '0', '0', '0', '0', '0', '0', 0x01, 1, 'h'};
        frame_say(fd, sizeof(block), NGHTTP2_HEADERS, 5, 2 * i + 1, block);
    }
    pump();
    uint8_t pings[1700];
    for (size_t at = 0; at < sizeof(pings); at += 17) frame_put(pings + at, 8, NGHTTP2_PING, 0, 0, "12345678");
    size_t said = 0;
    for (unsigned i = 0; i < 10000; i++) {
        ssize_t w = send(fd, pings, sizeof(pings), MSG_NOSIGNAL);
        if (w > 0) said += (size_t)w;
        if (i % 100 == 0) pump();
    }
    struct h2_conn *c = container_of(server->conns.prev, struct h2_conn, link);
    assert_int_equal(c->server->stats.open, 2);
    /* one read beyond the bound at most */
    assert_true(nghttp2_session_get_outbound_queue_size(c->session) < 50 + 128 * 1024 / 17 + 250);
    assert_true(max_open_bytes < (3u << 20) + 200 * 16384);
    other_is_served();
    pump_ms(400);
    assert_int_equal(stat_get(&h2_server_stats(server)->open), 1);
    other_is_served();
    close(fd);
    client_close(&other);
}

/* What lies behind the frame that was too much, in the same read, becomes nothing. */
static void streams_behind_a_fault_are_not_begun(void **state)
{
    (void)state;
    begin_with_another();
    static uint8_t all[100000];
    size_t n = 0;
    uint32_t id = 1;
    conf.guard.rates[H2_FLOOD_HEAD].burst = 1;
    conf.limits.target_bytes = 1;
    int fd = raw_open();
    pump();
    for (; n + 64 < sizeof(all); id += 2) n += frame_put(all + n, sizeof(get_block), NGHTTP2_HEADERS, 5, id, get_block);
    say_n(fd, all, n); /* all of them too long: the second is one too many */
    hear(fd);
    conf.limits.target_bytes = 1024;
    assert_true(stat_get(&h2_server_stats(server)->heads_too_large) <= 2);
    assert_int_equal(heard_frame(NGHTTP2_HEADERS, 5, 0, NULL), 0);
    assert_calmed(fd, H2_FLOOD_HEAD);
    client_close(&other);
}

/* Streams beyond max_streams of a client that has acknowledged no SETTINGS and does not read: their resets are counted
 * when they are due, not when the socket takes them, and so do not fill the memory. */
static void refused_streams_do_not_pile_up(void **state)
{
    (void)state;
    begin_with_another();
    on_begin = answer_later;
    conf.max_streams = 10;
    int fd = raw_open();
    pump();
    static uint8_t all[120000];
    size_t n = 0;
    for (uint32_t id = 1; n + 64 < sizeof(all); id += 2)
        n += frame_put(all + n, sizeof(get_block), NGHTTP2_HEADERS, 5, id, get_block);
    struct h2_conn *c = container_of(server->conns.prev, struct h2_conn, link);
    size_t most = 0;
    for (size_t at = 0; at < n && !heard_frame(NGHTTP2_GOAWAY, 0, 0, NULL); at += 60000) {
        c->writable = false; /* as if its socket were full */
        say_n(fd, all + at, 60000);
        pump();
        size_t queued = nghttp2_session_get_outbound_queue_size(c->session);
        if (queued > most) most = queued;
        if (c->terminating) break;
    }
    assert_true(c->terminating);
    assert_true(most <= conf.guard.rates[H2_FLOOD_RESET].burst + 64);
    c->writable = true;
    task_schedule(&c->task);
    hear(fd);
    on_begin = answer_size;
    assert_calmed(fd, H2_FLOOD_RESET);
    client_close(&other);
}

/* Three rounds of everything must not make the process grow. */
static void memory_comes_back(void **state)
{
    (void)state;
    size_t used[4];
    for (unsigned round = 0; round < 4; round++) {
        client_open(&other);
        for (unsigned i = 0; i < 200; i++) client_get(&other, "/100000");
        client_turn(&other);
        for (unsigned i = 0; i < 200; i++) client_get(&other, "/slow/100");
        client_turn(&other);
        client_close(&other);
        used[round] = mallinfo2().uordblks;
    }
    assert_true(used[3] <= used[1] + 65536);
}

int main(int argc, char **argv)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(rapid_reset),
        T(made_you_reset),
        T(too_many_streams),
        T(continuation_flood),
        T(simple_floods),
        T(empty_data_flood),
        T(hpack_bomb),
        T(hpack_bombs_in_trailers),
        T(streams_behind_a_fault_are_not_begun),
        T(refused_streams_do_not_pile_up),
        T(header_lists_over_the_bound_again_and_again),
        T(client_that_only_writes),
        T(memory_comes_back),
    };
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(pattern);
    return failed;
}
