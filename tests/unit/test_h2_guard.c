/* test_h2_guard.c - the look at frame headers in front of an HTTP/2 session. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "http/h2_guard.h"

enum { DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, WITH_PRIORITY = 0x20 };

static struct h2_guard_conf conf;
static struct h2_guard guard;
static struct h2_fault fault;
static uint64_t now_ms;
static uint8_t bytes[1 << 20];
static size_t bytes_n;

static int setup(void **state)
{
    (void)state;
    h2_guard_conf_defaults(&conf);
    now_ms = 1000;
    h2_guard_init(&guard, &conf, now_ms);
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    assert_int_equal(h2_guard_scan(&guard, (const uint8_t *)preface, 24, now_ms, &fault), 24);
    bytes_n = 0;
    return 0;
}

static void add(unsigned type, unsigned flags, uint32_t id, size_t length, const void *payload)
{
    uint8_t *p = bytes + bytes_n;
    const uint8_t h[9] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)type,
                          (uint8_t)flags, (uint8_t)(id >> 24), (uint8_t)(id >> 16), (uint8_t)(id >> 8), (uint8_t)id};
    assert_true(bytes_n + 9 + length <= sizeof(bytes));
    memcpy(p, h, 9);
    if (payload) memcpy(p + 9, payload, length);
    else memset(p + 9, 0, length);
    bytes_n += 9 + length;
}
/* Whether all that was added is let pass. */
static bool passes(void)
{
    size_t n = h2_guard_scan(&guard, bytes, bytes_n, now_ms, &fault);
    bool all = n == bytes_n;
    bytes_n = 0;
    if (!all) guard.head_n = guard.peek_want = 0, guard.payload_left = 0; /* tests go on with the next frame */
    return all;
}
static bool frame(unsigned type, unsigned flags, uint32_t id, size_t length)
{
    add(type, flags, id, length, NULL);
    return passes();
}
static void opens(uint32_t id)
{
    assert_true(frame(HEADERS, END_HEADERS, id, 5));
}
static void assert_fault(uint32_t error)
{
    assert_int_equal(fault.flood, H2_FLOODS);
    assert_int_equal(fault.error, error);
}
static void assert_flood(enum h2_flood kind)
{
    assert_int_equal(fault.flood, kind);
    assert_int_equal(fault.error, 0xb);
}

static void frames_on_an_ended_half_are_stream_closed(void **state)
{
    (void)state;
    opens(1);
    assert_true(frame(DATA, 0, 1, 10));
    assert_true(frame(DATA, END_STREAM, 1, 10));
    assert_true(frame(WINDOW, 0, 1, 4)); /* may still come */
    assert_true(frame(PRIORITY, 0, 1, 5));
    assert_false(frame(DATA, 0, 1, 10));
    assert_fault(5);
    assert_false(frame(HEADERS, END_HEADERS | END_STREAM, 1, 10));
    assert_fault(5);
    assert_true(frame(HEADERS, END_HEADERS | END_STREAM, 3, 5));
    assert_false(frame(DATA, 0, 3, 1));
    assert_fault(5);
    opens(5);
    assert_true(frame(RST, 0, 5, 4));
    assert_true(frame(RST, 0, 5, 4));
    assert_false(frame(DATA, 0, 5, 1));
    assert_fault(5);
}

static void trailers_are_let_pass_once(void **state)
{
    (void)state;
    opens(1);
    assert_true(frame(HEADERS, END_HEADERS | END_STREAM, 1, 3));
    assert_false(frame(HEADERS, END_HEADERS | END_STREAM, 1, 3));
    assert_fault(5);
}

static void skipped_streams_cannot_be_opened_later(void **state)
{
    (void)state;
    opens(7);
    assert_false(frame(HEADERS, END_HEADERS, 3, 5));
    assert_fault(1);
    assert_false(frame(DATA, 0, 5, 5));
    assert_fault(1);
    opens(9);
}

static void old_streams_are_left_to_the_session(void **state)
{
    (void)state;
    opens(1);
    assert_true(frame(DATA, END_STREAM, 1, 1));
    opens(2 * H2_GUARD_STREAMS - 1);
    assert_false(frame(DATA, 0, 1, 1)); /* the oldest it remembers */
    opens(2 * H2_GUARD_STREAMS + 1);
    assert_true(frame(DATA, 0, 1, 1));
    opens(0x7ffffffd);
    opens(0x7fffffff);
    assert_true(frame(DATA, 0, 5, 1));
    assert_false(frame(DATA, 0, 0x7ffffff1, 1));
}

static void ids_come_round_without_mixing_up(void **state)
{
    (void)state;
    for (uint32_t id = 1; id < 20 * H2_GUARD_STREAMS; id += 2) {
        opens(id);
        if (id % 4 == 1) assert_true(frame(DATA, END_STREAM, id, 0));
        if (id < 9) continue;
        assert_true(frame(DATA, 0, id - (id % 4 == 1 ? 2 : 0), 1));
        assert_false(frame(DATA, 0, id - (id % 4 == 1 ? 0 : 2), 1));
    }
}

static void stream_cannot_depend_on_itself(void **state)
{
    (void)state;
    static const uint8_t on_3[5] = {0, 0, 0, 3, 16}, exclusive_on_3[5] = {0x80, 0, 0, 3, 16};
    static const uint8_t padded[] = {0, 0, 0, 0, 3, 16, 0x82};
    add(PRIORITY, 0, 1, 5, on_3);
    assert_true(passes());
    add(PRIORITY, 0, 3, 5, exclusive_on_3);
    assert_false(passes());
    assert_fault(1);
    setup(NULL);
    add(HEADERS, END_HEADERS | WITH_PRIORITY, 3, 5, on_3);
    assert_false(passes());
    setup(NULL);
    add(HEADERS, END_HEADERS | WITH_PRIORITY | PADDED, 3, sizeof(padded), padded);
    assert_false(passes());
    setup(NULL);
    add(HEADERS, END_HEADERS | WITH_PRIORITY | PADDED, 5, sizeof(padded), padded);
    assert_true(passes());
    assert_false(frame(PRIORITY, 0, 0, 5));
    assert_fault(1);
}

/* Whatever the cuts, the verdict is the same and comes at the same frame. */
static void cuts_do_not_matter(void **state)
{
    (void)state;
    static const uint8_t on_5[5] = {0, 0, 0, 5, 16};
    add(SETTINGS, 0, 0, 12, NULL);
    add(HEADERS, END_HEADERS | WITH_PRIORITY, 1, 20, NULL);
    add(DATA, 0, 1, 300, NULL);
    add(DATA, END_STREAM, 1, 0, NULL);
    add(PING, 0, 0, 8, NULL);
    add(PRIORITY, 0, 5, 5, on_5);
    size_t all = bytes_n, whole = h2_guard_scan(&guard, bytes, all, now_ms, &fault);
    assert_true(whole < all);
    for (size_t step = 1; step < 40; step++) {
        setup(NULL);
        size_t at = 0;
        bool found = false;
        while (at < all && !found) {
            size_t n = all - at < step ? all - at : step;
            size_t good = h2_guard_scan(&guard, bytes + at, n, now_ms, &fault);
            assert_true(good <= n);
            found = good < n;
            at += n;
        }
        assert_true(found);
        assert_fault(1);
        assert_true(at + 1 >= all);
    }
}

static void each_kind_has_its_bound_and_its_rate(void **state)
{
    (void)state;
    static const struct {
        enum h2_flood kind;
        unsigned type, flags;
        uint32_t id;
        size_t length;
    } kinds[] = {
        {H2_FLOOD_RESET, RST, 0, 1, 4},        {H2_FLOOD_SETTINGS, SETTINGS, 0, 0, 6},
        {H2_FLOOD_PING, PING, 0, 0, 8},        {H2_FLOOD_PING, PING, ACK, 0, 8},
        {H2_FLOOD_PRIORITY, PRIORITY, 0, 1, 5}, {H2_FLOOD_PRIORITY, 0x77, 0, 0, 5},
        {H2_FLOOD_WINDOW, WINDOW, 0, 0, 4},    {H2_FLOOD_EMPTY, DATA, 0, 1, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        setup(NULL);
        opens(1);
        guard.buckets[kinds[i].kind].tokens = conf.rates[kinds[i].kind].burst; /* what the request earned */
        for (unsigned n = 0; n < conf.rates[kinds[i].kind].burst; n++)
            assert_true(frame(kinds[i].type, kinds[i].flags, kinds[i].id, kinds[i].length));
        assert_false(frame(kinds[i].type, kinds[i].flags, kinds[i].id, kinds[i].length));
        assert_flood(kinds[i].kind);
        /* a second later the rate's worth, and no more */
        now_ms += 1000;
        unsigned rate = conf.rates[kinds[i].kind].per_second;
        for (unsigned n = 0; n < rate; n++)
            assert_true(frame(kinds[i].type, kinds[i].flags, kinds[i].id, kinds[i].length));
        assert_false(frame(kinds[i].type, kinds[i].flags, kinds[i].id, kinds[i].length));
    }
}

static void acknowledged_settings_are_not_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) assert_true(frame(SETTINGS, ACK, 0, 0));
}

static void padding_does_not_hide_empty_data(void **state)
{
    (void)state;
    uint8_t nothing[4] = {3, 0, 0, 0}, something[5] = {3, 1, 0, 0, 0};
    opens(1);
    for (unsigned i = 0; i < 1000; i++) {
        add(DATA, PADDED, 1, 5, something);
        assert_true(passes());
    }
    for (unsigned i = 0; i < conf.rates[H2_FLOOD_EMPTY].burst; i++) {
        add(DATA, PADDED, 1, 4, nothing);
        assert_true(passes());
    }
    add(DATA, PADDED, 1, 4, nothing);
    assert_false(passes());
    assert_flood(H2_FLOOD_EMPTY);
}

static void header_blocks_are_bounded_in_frames_and_bytes(void **state)
{
    (void)state;
    assert_true(frame(HEADERS, 0, 1, 10));
    assert_true(guard.in_block);
    for (unsigned i = 0; i < conf.continuations; i++) assert_true(frame(CONTINUATION, 0, 1, 10));
    assert_false(frame(CONTINUATION, 0, 1, 10));
    assert_flood(H2_FLOOD_CONTINUATION);
    setup(NULL);
    assert_true(frame(HEADERS, 0, 1, 16384));
    for (unsigned i = 0; i < 3; i++) assert_true(frame(CONTINUATION, 0, 1, 16384));
    assert_false(frame(CONTINUATION, END_HEADERS, 1, 1));
    assert_flood(H2_FLOOD_CONTINUATION);
    setup(NULL);
    assert_true(frame(HEADERS, 0, 1, 10));
    assert_true(frame(CONTINUATION, END_HEADERS, 1, 10));
    assert_false(guard.in_block);
    assert_false(frame(HEADERS, END_HEADERS, 3, 70000));
}

static void settings_are_bounded_in_entries(void **state)
{
    (void)state;
    assert_true(frame(SETTINGS, 0, 0, 6 * (size_t)conf.settings_entries));
    assert_false(frame(SETTINGS, 0, 0, 6 * (size_t)conf.settings_entries + 6));
    assert_flood(H2_FLOOD_SETTINGS);
    conf.settings_entries = 100;
    assert_true(frame(SETTINGS, 0, 0, 600));
    assert_false(frame(SETTINGS, 0, 0, 601));
    assert_flood(H2_FLOOD_SETTINGS);
}

static void work_earns(void **state)
{
    (void)state;
    /* an honest reader: windows of 32 KiB, two updates for each */
    for (unsigned i = 0; i < 20000; i++) {
        h2_guard_sent(&guard, 32768);
        assert_true(frame(WINDOW, 0, 0, 4));
        assert_true(frame(WINDOW, 0, 1, 4));
        assert_true(frame(PING, 0, 0, 8));
    }
    /* small answers */
    for (unsigned i = 0; i < 20000; i++) {
        h2_guard_request(&guard);
        assert_true(frame(WINDOW, 0, 0, 4));
        assert_true(frame(WINDOW, 0, 1, 4));
        assert_true(frame(PRIORITY, 0, 1, 5));
        h2_guard_answered(&guard);
        assert_true(frame(RST, 0, 1, 4));
    }
    /* one byte at a time earns next to nothing */
    unsigned i = 0;
    for (; i < 100000; i++) {
        h2_guard_sent(&guard, 1);
        if (!frame(WINDOW, 0, 1, 4)) break;
    }
    assert_flood(H2_FLOOD_WINDOW);
    assert_true(i < 3000);
    h2_guard_sent(&guard, SIZE_MAX / 2); /* no overflow */
    assert_int_equal(guard.buckets[H2_FLOOD_WINDOW].tokens, conf.rates[H2_FLOOD_WINDOW].burst);
}

static void clock_may_stand_still_or_leap(void **state)
{
    (void)state;
    for (unsigned i = 0; i < conf.rates[H2_FLOOD_PING].burst; i++) assert_true(frame(PING, 0, 0, 8));
    now_ms -= 500;
    assert_false(frame(PING, 0, 0, 8));
    now_ms = UINT64_MAX / 2;
    for (unsigned i = 0; i < conf.rates[H2_FLOOD_PING].burst; i++) assert_true(frame(PING, 0, 0, 8));
    assert_false(frame(PING, 0, 0, 8));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup(f, setup)
    const struct CMUnitTest tests[] = {
        T(frames_on_an_ended_half_are_stream_closed),
        T(trailers_are_let_pass_once),
        T(skipped_streams_cannot_be_opened_later),
        T(old_streams_are_left_to_the_session),
        T(ids_come_round_without_mixing_up),
        T(stream_cannot_depend_on_itself),
        T(cuts_do_not_matter),
        T(each_kind_has_its_bound_and_its_rate),
        T(acknowledged_settings_are_not_counted),
        T(padding_does_not_hide_empty_data),
        T(header_blocks_are_bounded_in_frames_and_bytes),
        T(settings_are_bounded_in_entries),
        T(work_earns),
        T(clock_may_stand_still_or_leap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
