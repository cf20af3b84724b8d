/* test_cli_bench.c - the parts of the benchmark that can be wrong without anybody noticing: bytes, sizes, counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cli/bench.h"

#define KIB UINT64_C(1024)

/* ---- bytes */

static void bytes_depend_on_the_key_and_the_place(void **state)
{
    (void)state;
    struct bench_pattern *p = bench_pattern_create(), *q = bench_pattern_create();
    uint64_t a = bench_seed(STR_LIT("p/a")), b = bench_seed(STR_LIT("p/b"));
    uint8_t *copy = malloc(3 * BENCH_POOL);

    assert_true(a != b && a < BENCH_POOL && b < BENCH_POOL);
    assert_memory_equal(bench_bytes(p, a, 12345), bench_bytes(q, a, 12345), BENCH_POOL); /* in every run */
    for (size_t at = 0; at < 3 * BENCH_POOL; at += BENCH_POOL) memcpy(copy + at, bench_bytes(p, a, at), BENCH_POOL);
    assert_true(bench_check(p, a, 0, copy, 3 * BENCH_POOL));
    assert_true(bench_check(p, a, BENCH_POOL - 7, copy + BENCH_POOL - 7, BENCH_POOL + 99));
    assert_true(bench_check(p, a, 5, copy + 5, 0));
    assert_false(bench_check(p, b, 0, copy, 64));
    static const size_t places[] = {1, 4096, 65536, 1 << 20, 8 << 20}; /* bytes of another slice or part */
    for (unsigned i = 0; i < ARRAY_LEN(places); i++) assert_false(bench_check(p, a, places[i], copy, 64));
    copy[2 * BENCH_POOL + 1] ^= 1;
    assert_false(bench_check(p, a, 0, copy, 3 * BENCH_POOL));
    assert_true(bench_check(p, a, 0, copy, 2 * BENCH_POOL + 1));
    free(copy);
    bench_pattern_destroy(p);
    bench_pattern_destroy(q);
}

static void a_body_has_these_bytes(void **state)
{
    (void)state;
    struct bench_pattern *p = bench_pattern_create();
    uint64_t seed = BENCH_POOL - 3, length = 2 * BENCH_POOL + 77, at = 0;
    struct body *b = bench_body(p, seed, length);
    struct chunk c;
    unsigned n;
    enum err e;

    assert_int_equal(b->length, length);
    while ((e = body_pull(b, &c, 1, 1000003, &n)) == ERR_OK) {
        assert_true(n == 1 && c.len > 0 && c.len <= 1000003);
        assert_true(bench_check(p, seed, at, c.data, c.len));
        at += c.len;
    }
    assert_int_equal(e, ERR_END);
    assert_int_equal(at, length);
    body_close(b);
    bench_pattern_destroy(p);
}

/* ---- objects */

static void sizes_that_are_understood(void **state)
{
    (void)state;
    struct bench_sizes s;

    assert_true(bench_sizes_parse("1MiB", &s) && s.min == KIB * KIB && s.max == KIB * KIB);
    assert_true(bench_sizes_parse("0", &s) && s.min == 0 && s.max == 0);
    assert_true(bench_sizes_parse("4KiB:1MiB", &s) && s.min == 4 * KIB && s.max == KIB * KIB);
    assert_true(bench_sizes_parse("5GiB", &s));
    static const char *const bad[] = {"", ":", "1KiB:", ":1KiB", "x", "2KiB:1KiB", "0:1KiB", "1KiB:2KiB:3KiB", "-1", "6GiB", "1KiB:6GiB"};
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) assert_false(bench_sizes_parse(bad[i], &s));
}

static void sizes_are_log_uniform_and_the_same_always(void **state)
{
    (void)state;
    struct bench_objects o;
    struct strbuf key;
    uint64_t size, again;
    unsigned below_geometric_mean = 0;

    strbuf_init(&key, 4096);
    assert_true(bench_objects_init(&o, STR_LIT("b"), STR_LIT("p"), 10000, (struct bench_sizes){KIB, KIB * KIB}));
    for (uint64_t i = 0; i < o.n; i++) {
        bench_object(&o, i, &key, &size);
        bench_object(&o, i, &key, &again);
        assert_int_equal(size, again);
        assert_true(size >= KIB && size <= KIB * KIB);
        below_geometric_mean += size < 32 * KIB;
    }
    assert_in_range(below_geometric_mean, 4700, 5300);
    bench_objects_free(&o);
    strbuf_free(&key);
}

static void names_lie_below_the_prefix(void **state)
{
    (void)state;
    static const struct {
        const char *prefix, *key;
    } rows[] = {{"", "s3dlio-bench-00000007"}, {"p", "p/s3dlio-bench-00000007"}, {"p/q/", "p/q/s3dlio-bench-00000007"}};

    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench_objects o;
        struct strbuf key;
        uint64_t size;
        strbuf_init(&key, 4096);
        assert_true(bench_objects_init(&o, STR_LIT("b"), str_c(rows[i].prefix), 8, (struct bench_sizes){100, 100}));
        bench_object(&o, 7, &key, &size);
        assert_int_equal(size, 100);
        assert_true(str_eq(strbuf_get(&key), str_c(rows[i].key)));
        bench_objects_free(&o);
        strbuf_free(&key);
    }
}

static void marks_of_objects(void **state)
{
    (void)state;
    struct bench_objects o;

    assert_true(bench_objects_init(&o, STR_LIT("b"), STR_LIT("p"), 17, (struct bench_sizes){1, 1}));
    bench_bit_set(o.made, 16);
    bench_bit_set(o.made, 8);
    for (uint64_t i = 0; i < o.n; i++) assert_int_equal(bench_bit(o.made, i), i == 8 || i == 16);
    bench_objects_free(&o);
}

/* ---- counts */

static void what_the_cache_did(void **state)
{
    (void)state;
    uint64_t n[BENCH_OUTCOME_N] = {0};

    assert_int_equal(bench_outcome_of(STR_LIT("HIT")), BENCH_HIT);
    assert_int_equal(bench_outcome_of(STR_LIT("BYPASS")), BENCH_BYPASS);
    assert_int_equal(bench_outcome_of(STR_LIT("Hit from cloudfront")), BENCH_UNTOLD);
    assert_int_equal(bench_outcome_of((struct str){NULL, 0}), BENCH_UNTOLD);
    assert_true(bench_hit_ratio(n) < 0);
    n[BENCH_BYPASS] = n[BENCH_UNTOLD] = 100;
    assert_true(bench_hit_ratio(n) < 0); /* who asked no cache has no ratio, not one of zero */
    n[BENCH_HIT] = n[BENCH_STALE] = n[BENCH_REVALIDATED] = n[BENCH_PARTIAL] = n[BENCH_MISS] = 1;
    assert_true(bench_hit_ratio(n) > .599 && bench_hit_ratio(n) < .601);
}

static void a_series_of_any_length_loses_nothing(void **state)
{
    (void)state;
    static struct bench_series s;
    uint64_t ops = 0, bytes = 0, last_ms = 0;

    bench_series_init(&s);
    for (uint64_t ms = 0; ms < 3600 * 1000; ms += 250, last_ms = ms) {
        struct bench_step *t = bench_series_at(&s, ms);
        t->ops++;
        t->bytes += 10;
        t->errors += ms % 1000 == 0;
    }
    assert_int_equal(s.step_ms, 8000);
    assert_int_equal(s.n, 450);
    uint64_t errors = 0;
    for (unsigned i = 0; i < BENCH_SERIES; i++) {
        ops += s.steps[i].ops, bytes += s.steps[i].bytes, errors += s.steps[i].errors;
        assert_int_equal(s.steps[i].ops, i < s.n ? 32 : 0);
    }
    assert_int_equal(ops, last_ms / 250);
    assert_int_equal(bytes, 10 * ops);
    assert_int_equal(errors, 3600);
    bench_series_at(&s, UINT64_C(10) * 365 * 86400 * 1000)->ops++; /* far away */
    assert_true(s.n <= BENCH_SERIES);
}

static void reasons_are_bounded(void **state)
{
    (void)state;
    static struct bench_reasons r;
    char why[1000];

    for (unsigned round = 0; round < 3; round++)
        for (unsigned i = 0; i < 2 * BENCH_REASONS; i++) {
            memset(why, 'x', sizeof why);
            why[0] = (char)('a' + i);
            why[sizeof why - 1] = '\0';
            bench_reason_add(&r, why);
        }
    assert_int_equal(r.n, BENCH_REASONS);
    for (unsigned i = 0; i < r.n; i++) assert_int_equal(r.rows[i].count, 3);
    assert_int_equal(r.others, 3 * BENCH_REASONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_depend_on_the_key_and_the_place),
        cmocka_unit_test(a_body_has_these_bytes),
        cmocka_unit_test(sizes_that_are_understood),
        cmocka_unit_test(sizes_are_log_uniform_and_the_same_always),
        cmocka_unit_test(names_lie_below_the_prefix),
        cmocka_unit_test(marks_of_objects),
        cmocka_unit_test(what_the_cache_did),
        cmocka_unit_test(a_series_of_any_length_loses_nothing),
        cmocka_unit_test(reasons_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
