/* test_range.c - Range as S3 answers it, Content-Range as origins send it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/range.h"

static void ranges_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        enum range_kind kind;
        uint64_t first, last;
    } t[] = {
        {"bytes=0-9", RANGE_SPAN, 0, 9},
        {"BYTES=5-5", RANGE_SPAN, 5, 5},
        {" bytes=1-2 ", RANGE_SPAN, 1, 2},
        {"bytes=007-010", RANGE_SPAN, 7, 10},
        {"bytes=0-", RANGE_FROM, 0, 0},
        {"bytes=100-", RANGE_FROM, 100, 0},
        {"bytes=-5", RANGE_SUFFIX, 0, 5},
        {"bytes=-0", RANGE_SUFFIX, 0, 0},
        {"bytes=0-18446744073709551615", RANGE_SPAN, 0, UINT64_MAX},
        {"bytes=0-99999999999999999999999999", RANGE_SPAN, 0, UINT64_MAX},
        {"bytes=99999999999999999999999999-", RANGE_FROM, UINT64_MAX, 0},
        {"bytes=-99999999999999999999999999", RANGE_SUFFIX, 0, UINT64_MAX},
        {"", RANGE_NONE, 0, 0},
        {"bytes", RANGE_NONE, 0, 0},
        {"bytes=", RANGE_NONE, 0, 0},
        {"bytes=-", RANGE_NONE, 0, 0},
        {"bytes=5", RANGE_NONE, 0, 0},
        {"bytes=5-2", RANGE_NONE, 0, 0},
        {"bytes=0-0,2-3", RANGE_NONE, 0, 0},
        {"bytes=0-0, -1", RANGE_NONE, 0, 0},
        {"bytes=0-9,", RANGE_NONE, 0, 0},
        {"bytes= 0-9", RANGE_NONE, 0, 0},
        {"bytes =0-9", RANGE_NONE, 0, 0},
        {"bytes=0 -9", RANGE_NONE, 0, 0},
        {"bytes=0--9", RANGE_NONE, 0, 0},
        {"bytes=--9", RANGE_NONE, 0, 0},
        {"bytes=+0-9", RANGE_NONE, 0, 0},
        {"bytes=0x0-9", RANGE_NONE, 0, 0},
        {"bytes=99999999999999999999999999x-", RANGE_NONE, 0, 0},
        {"bytes=a-b", RANGE_NONE, 0, 0},
        {"items=0-9", RANGE_NONE, 0, 0},
        {"bytes 0-9", RANGE_NONE, 0, 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct range r = range_parse(str_c(t[i].in));
        if (r.kind != t[i].kind) fail_msg("%s: kind %d", t[i].in, (int)r.kind);
        if (r.kind == RANGE_NONE) continue;
        assert_true(r.first == t[i].first && r.last == t[i].last);
    }
    assert_int_equal(range_parse((struct str){NULL, 0}).kind, RANGE_NONE);
}

static void ranges_resolve(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        uint64_t size;
        enum err e;
        uint64_t first, last;
    } t[] = {
        {"bytes=0-9", 100, ERR_OK, 0, 9},
        {"bytes=0-9", 5, ERR_OK, 0, 4},
        {"bytes=99-99", 100, ERR_OK, 99, 99},
        {"bytes=100-100", 100, ERR_RANGE, 0, 0},
        {"bytes=100-", 100, ERR_RANGE, 0, 0},
        {"bytes=99-", 100, ERR_OK, 99, 99},
        {"bytes=0-", 100, ERR_OK, 0, 99},
        {"bytes=-1", 100, ERR_OK, 99, 99},
        {"bytes=-100", 100, ERR_OK, 0, 99},
        {"bytes=-101", 100, ERR_OK, 0, 99},
        {"bytes=-0", 100, ERR_RANGE, 0, 0},
        {"bytes=0-0", 0, ERR_RANGE, 0, 0},
        {"bytes=0-", 0, ERR_RANGE, 0, 0},
        {"bytes=-1", 0, ERR_RANGE, 0, 0},
        {"bytes=0-18446744073709551615", UINT64_MAX, ERR_OK, 0, UINT64_MAX - 1},
        {"bytes=18446744073709551615-", UINT64_MAX, ERR_RANGE, 0, 0},
        {"garbage", 100, ERR_OK, 0, 99},
        {"garbage", 0, ERR_OK, 0, UINT64_MAX},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct range r = range_parse(str_c(t[i].in));
        uint64_t first, last;
        enum err e = range_resolve(&r, t[i].size, &first, &last);
        if (e != t[i].e) fail_msg("%s of %llu: %s", t[i].in, (unsigned long long)t[i].size, err_name(e));
        if (e == ERR_OK) assert_true(first == t[i].first && last == t[i].last);
    }
}

static void content_ranges_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        struct content_range want;
    } good[] = {
        {"bytes 0-9/100", {0, 9, 100, false}},     {"Bytes 0-0/1", {0, 0, 1, false}},
        {"bytes 5-9/*", {5, 9, UINT64_MAX, false}}, {"bytes */100", {0, 0, 100, true}},
        {"bytes */0", {0, 0, 0, true}},
    };
    static const char *const bad[] = {
        "", "bytes", "bytes ", "bytes=0-9/100", "bytes 0-9", "bytes 0-9/", "bytes /100", "bytes 9-0/100",
        "bytes 0-100/100", "bytes 0-9/5", "bytes */*", "bytes -9/100", "bytes 0-/100", "bytes 0-9/100x",
        "bytes 0-9 /100", "bytes  0-9/100", "items 0-9/100", "bytes 0-18446744073709551615/*",
        "bytes 0-9/18446744073709551615", "bytes 0-9/18446744073709551616", "bytes +0-9/10", "bytes 0-9/100/1",
    };
    struct content_range r;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(content_range_parse(str_c(good[i].in), &r), ERR_OK);
        assert_true(r.first == good[i].want.first && r.last == good[i].want.last && r.size == good[i].want.size);
        assert_int_equal(r.unsatisfied, good[i].want.unsatisfied);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (content_range_parse(str_c(bad[i]), &r) != ERR_PROTOCOL) fail_msg("accepted: %s", bad[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_parse),
        cmocka_unit_test(ranges_resolve),
        cmocka_unit_test(content_ranges_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
