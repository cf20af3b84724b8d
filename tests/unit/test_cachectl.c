/* test_cachectl.c - tables of responses and what a shared cache may do with them. */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/cachectl.h"
#include "http/date.h"

#define NOW INT64_C(784111777) /* Sun, 06 Nov 1994 08:49:37 GMT */
#define NOW_TEXT "Sun, 06 Nov 1994 08:49:37 GMT"
#define MINUTE_AGO "Sun, 06 Nov 1994 08:48:37 GMT"
#define IN_AN_HOUR "Sun, 06 Nov 1994 09:49:37 GMT"
#define FRESH_FOR UINT64_C(10000)

static struct head head_of(struct hdr *hdrs, const char *const pairs[][2], unsigned max)
{
    unsigned n = 0;
    for (; n < max && pairs[n][0]; n++) {
        hdrs[n] = (struct hdr){.name = str_c(pairs[n][0]), .value = str_c(pairs[n][1]), .id = hdr_id_of(str_c(pairs[n][0]))};
    }
    return (struct head){.method = METHOD_GET, .status = 200, .hdrs = hdrs, .nhdrs = n};
}

static struct cache_verdict judge(const char *const pairs[][2], unsigned max, bool authorized, uint64_t delay_ms)
{
    struct hdr hdrs[8];
    struct head req = {.method = METHOD_GET}, resp = head_of(hdrs, pairs, max);
    struct cache_verdict v;
    cache_judge(&req, &resp, authorized, FRESH_FOR, NOW, delay_ms, &v);
    return v;
}

#define CC "Cache-Control"
static void lifetimes_are_worked_out(void **state)
{
    (void)state;
    static const struct {
        const char *hdrs[5][2];
        uint64_t fresh_ms;
        uint64_t age_s;
    } t[] = {
        {{{0}}, FRESH_FOR, 0},
        {{{"Date", NOW_TEXT}}, FRESH_FOR, 0},
        {{{CC, "max-age=60"}}, 60000, 0},
        {{{CC, "max-age=60, s-maxage=10"}}, 10000, 0},
        {{{CC, "s-maxage=100, max-age=10"}}, 100000, 0},
        {{{CC, "MAX-AGE=60"}}, 60000, 0},
        {{{CC, "max-age=\"60\""}}, 60000, 0},
        {{{CC, "max-age=60"}, {"Expires", "0"}}, 60000, 0},
        {{{"Expires", IN_AN_HOUR}, {"Date", NOW_TEXT}}, 3600000, 0},
        {{{"Expires", IN_AN_HOUR}}, 3600000, 0},
        {{{"Expires", "0"}}, 0, 0},
        {{{"Expires", "-1"}}, 0, 0},
        {{{"Expires", ""}}, 0, 0},
        {{{"Expires", MINUTE_AGO}, {"Date", NOW_TEXT}}, 0, 0},
        {{{"Expires", IN_AN_HOUR}, {"Expires", "0"}}, 0, 0},
        /* several: the shortest; no number: none */
        {{{CC, "max-age=60, max-age=30"}}, 30000, 0},
        {{{CC, "max-age=30"}, {CC, "max-age=60"}}, 30000, 0},
        {{{CC, "max-age=60, max-age=x"}}, 0, 0},
        {{{CC, "max-age"}}, 0, 0},
        {{{CC, "max-age="}}, 0, 0},
        {{{CC, "max-age=-1"}}, 0, 0},
        {{{CC, "max-age=1.5"}}, 0, 0},
        {{{CC, "max-age= 60"}}, 0, 0},
        {{{CC, "max-age=60x"}}, 0, 0},
        {{{CC, "max-age=\"60"}}, 0, 0},
        {{{CC, "max-age=60, s-maxage=x"}}, 0, 0},
        {{{CC, "foo=\"max-age=1, s-maxage=2\", max-age=60"}}, 60000, 0},
        {{{CC, "xmax-age=1"}}, FRESH_FOR, 0},
        /* overflow: 2^31 */
        {{{CC, "max-age=2147483648"}}, 2147483648000, 0},
        {{{CC, "max-age=99999999999999999999999999"}}, 2147483648000, 0},
        {{{CC, "max-age=100"}, {"Age", "99999999999999999999999999"}}, 0, 2147483648},
        /* age */
        {{{CC, "max-age=100"}, {"Age", "30"}}, 70000, 30},
        {{{CC, "max-age=100"}, {"Age", "100"}}, 0, 100},
        {{{CC, "max-age=100"}, {"Age", "101"}}, 0, 101},
        {{{CC, "max-age=100"}, {"Date", MINUTE_AGO}}, 40000, 60},
        {{{CC, "max-age=100"}, {"Date", MINUTE_AGO}, {"Age", "30"}}, 40000, 60},
        {{{CC, "max-age=100"}, {"Date", MINUTE_AGO}, {"Age", "90"}}, 10000, 90},
        {{{CC, "max-age=100"}, {"Date", IN_AN_HOUR}}, 100000, 0},
        {{{CC, "max-age=100"}, {"Date", "rubbish"}}, 100000, 0},
        {{{CC, "max-age=100"}, {"Age", "-5"}}, 100000, 0},
        {{{CC, "max-age=100"}, {"Age", "x"}}, 100000, 0},
        {{{CC, "max-age=100"}, {"Age", "10, 20"}}, 80000, 20},
        {{{CC, "max-age=100"}, {"Age", "10"}, {"Age", "20"}}, 80000, 20},
        {{{"Expires", IN_AN_HOUR}, {"Date", MINUTE_AGO}}, 3600000, 60},
        {{{"Age", "4"}}, FRESH_FOR - 4000, 4},
        /* no-cache is never fresh */
        {{{CC, "no-cache, max-age=60"}}, 0, 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct cache_verdict v = judge(t[i].hdrs, 5, false, 0);
        if (v.fresh_ms != t[i].fresh_ms || v.initial_age_s != t[i].age_s)
            fail_msg("row %zu (%s: %s): fresh %" PRIu64 " ms, age %" PRIu64 " s", i, t[i].hdrs[0][0], t[i].hdrs[0][1],
                     v.fresh_ms, v.initial_age_s);
    }
}

static void response_delay_counts_as_age(void **state)
{
    (void)state;
    static const char *const with_age[][2] = {{CC, "max-age=100"}, {"Age", "10"}, {NULL, NULL}};
    static const char *const with_date[][2] = {{CC, "max-age=100"}, {"Date", MINUTE_AGO}, {NULL, NULL}};
    struct cache_verdict v = judge(with_age, 3, false, 2500);
    assert_true(v.fresh_ms == 87500 && v.initial_age_s == 12);
    v = judge(with_date, 3, false, 2500);
    assert_true(v.fresh_ms == 40000 && v.initial_age_s == 60);
    v = judge(with_age, 3, false, UINT64_MAX);
    assert_true(v.fresh_ms == 0);
}

enum { NO_CACHE = 1, REVALIDATE = 2, ANY = 4 };
static void storability_is_judged(void **state)
{
    (void)state;
    static const struct {
        const char *hdrs[3][2];
        bool storable, storable_authorized;
        int flags;
    } t[] = {
        {{{0}}, true, false, 0},
        {{{CC, ""}}, true, false, 0},
        {{{CC, "no-store"}}, false, false, 0},
        {{{CC, "No-Store, max-age=60"}}, false, false, 0},
        {{{CC, "no-store=foo"}}, false, false, 0},
        {{{CC, "max-age=60"}, {CC, "no-store"}}, false, false, 0},
        {{{CC, "private"}}, false, false, 0},
        {{{CC, "private=\"set-cookie\""}}, false, false, 0},
        {{{CC, "public, private"}}, false, false, 0},
        {{{CC, "no-cache"}}, true, false, NO_CACHE | REVALIDATE},
        {{{CC, "no-cache=\"set-cookie, x\""}}, true, false, NO_CACHE | REVALIDATE},
        {{{CC, "public"}}, true, true, 0},
        {{{CC, "must-revalidate"}}, true, true, REVALIDATE},
        {{{CC, "proxy-revalidate"}}, true, false, REVALIDATE},
        {{{CC, "s-maxage=0"}}, true, true, REVALIDATE},
        {{{CC, "max-age=60"}}, true, false, 0},
        {{{CC, "must-understand"}}, true, false, 0},
        {{{CC, "must-understand, no-store"}}, true, false, 0},
        {{{CC, "must-understand, no-store, private"}}, false, false, 0},
        {{{CC, "x=\"no-store, private\""}}, true, false, 0},
        {{{CC, "x=\"open, no-store"}}, false, false, 0},
        {{{CC, "must-understand, x=\"open"}}, false, false, 0},
        {{{CC, "x=\"a\\\"b\", public"}}, true, true, 0},
        {{{"Pragma", "no-cache"}}, true, false, 0},
        {{{"Vary", "*"}}, false, false, ANY},
        {{{"Vary", "Origin, *"}, {CC, "public"}}, false, false, ANY},
        {{{"Vary", "Accept-Encoding"}, {"Vary", "*"}}, false, false, ANY},
        {{{"Vary", "Accept-Encoding"}}, true, false, 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct cache_verdict v = judge(t[i].hdrs, 3, false, 0), a = judge(t[i].hdrs, 3, true, 0);
        int flags = (v.no_cache ? NO_CACHE : 0) | (v.must_revalidate ? REVALIDATE : 0) | (v.vary_any ? ANY : 0);
        if (v.storable != t[i].storable || a.storable != t[i].storable_authorized || flags != t[i].flags)
            fail_msg("row %zu: %s: %s", i, t[i].hdrs[0][0], t[i].hdrs[0][1]);
    }
}

static void only_200_and_206_of_get_and_head_are_stored(void **state)
{
    (void)state;
    struct cache_verdict v;
    for (unsigned status = 100; status < 600; status++) {
        struct head req = {.method = METHOD_GET}, resp = {.status = status};
        cache_judge(&req, &resp, false, FRESH_FOR, NOW, 0, &v);
        assert_int_equal(v.storable, status == 200 || status == 206);
    }
    for (int m = METHOD_OTHER; m <= METHOD_CONNECT; m++) {
        struct head req = {.method = (enum method)m}, resp = {.status = 200};
        cache_judge(&req, &resp, false, FRESH_FOR, NOW, 0, &v);
        assert_int_equal(v.storable, m == METHOD_GET || m == METHOD_HEAD);
    }
}

static void request_no_store_is_obeyed(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {{CC, "no-store"}, {NULL, NULL}};
    struct hdr hdrs[2];
    struct head req = head_of(hdrs, pairs, 2), resp = {.status = 200};
    struct cache_verdict v;
    cache_judge(&req, &resp, false, FRESH_FOR, NOW, 0, &v);
    assert_false(v.storable);
}

static void stale_if_error_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        int64_t want;
    } t[] = {
        {"max-age=1", -1}, {"stale-if-error=60", 60}, {"stale-if-error=60, stale-if-error=30", 30},
        {"stale-if-error", 0}, {"stale-if-error=x", 0}, {"stale-if-error=0", 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        const char *const pairs[][2] = {{CC, t[i].value}, {NULL, NULL}};
        assert_true(judge(pairs, 2, false, 0).stale_if_error_s == t[i].want);
    }
}

static void requests_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *hdrs[3][2];
        struct cache_request want;
    } t[] = {
        {{{0}}, {false, false, false, -1, -1, -1}},
        {{{CC, "no-cache"}}, {false, true, false, -1, -1, -1}},
        {{{CC, "no-store, only-if-cached"}}, {true, false, true, -1, -1, -1}},
        {{{CC, "max-age=0"}}, {false, false, false, 0, -1, -1}},
        {{{CC, "max-age=x"}}, {false, false, false, 0, -1, -1}},
        {{{CC, "min-fresh=5, min-fresh=9"}}, {false, false, false, -1, 9, -1}},
        {{{CC, "max-stale"}}, {false, false, false, -1, -1, INT64_MAX}},
        {{{CC, "max-stale=5"}}, {false, false, false, -1, -1, 5}},
        {{{CC, "max-stale, max-stale=5"}}, {false, false, false, -1, -1, 5}},
        {{{CC, "max-stale=x"}}, {false, false, false, -1, -1, -1}},
        {{{CC, "max-stale=99999999999999999999"}}, {false, false, false, -1, -1, INT64_C(2147483648)}},
        {{{"Pragma", "no-cache"}}, {false, true, false, -1, -1, -1}},
        {{{"Pragma", "no-cache"}, {CC, "max-age=5"}}, {false, false, false, 5, -1, -1}},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[3];
        struct head req = head_of(hdrs, t[i].hdrs, 3);
        struct cache_request r;
        cache_request_parse(&req, &r);
        const struct cache_request *w = &t[i].want;
        if (r.no_store != w->no_store || r.no_cache != w->no_cache || r.only_if_cached != w->only_if_cached ||
            r.max_age_s != w->max_age_s || r.min_fresh_s != w->min_fresh_s || r.max_stale_s != w->max_stale_s)
            fail_msg("row %zu", i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lifetimes_are_worked_out),
        cmocka_unit_test(response_delay_counts_as_age),
        cmocka_unit_test(storability_is_judged),
        cmocka_unit_test(only_200_and_206_of_get_and_head_are_stored),
        cmocka_unit_test(request_no_store_is_obeyed),
        cmocka_unit_test(stale_if_error_is_read),
        cmocka_unit_test(requests_are_understood),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
