/* test_snapshot.c - differences of statistics, and how they are written for Prometheus. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/proxy/metrics.c"

/* The statistics come from here. */
static struct snapshot *(*make)(void);
enum err stats_snapshot(struct proxy *p, struct snapshot **out)
{
    (void)p;
    *out = make();
    return *out ? ERR_OK : ERR_NOMEM;
}

static struct snapshot *snapshot_of(uint64_t gets, uint64_t hits, uint64_t open, const uint64_t *us, unsigned n)
{
    struct snapshot *s;
    struct hist h = {0};
    assert_int_equal(snapshot_create(1, &s), ERR_OK);
    json_t *bucket = json_object(), *buckets = json_object(), *caches = json_object(), *cache = json_object(),
           *latency = json_object(), *connections = json_object();
    snapshot_count(bucket, "gets", gets);
    json_object_set_new(buckets, "a\"b\\c\nd", bucket);
    json_object_set_new(buckets, "$hist", json_object());
    json_object_set_new(s->tree, "buckets", buckets);
    snapshot_ratio(cache, "hit_ratio", hits, gets);
    json_object_set_new(caches, "main", cache);
    json_object_set_new(s->tree, "caches", caches);
    snapshot_level(connections, "open", open);
    json_object_set_new(s->tree, "connections", connections);
    snapshot_gauge(s->tree, "version", json_string("1"));
    for (unsigned i = 0; i < n; i++) hist_add(&h, us[i]);
    hist_collect(snapshot_hist(s, latency, "total", 1000.0), &h);
    assert_null(snapshot_hist(s, latency, "more", 1.0));
    json_object_set_new(s->tree, "latency_ms", latency);
    return s;
}

static const json_t *at(const json_t *o, const char *a, const char *b, const char *c)
{
    o = json_object_get(o, a);
    if (b) o = json_object_get(o, b);
    return c ? json_object_get(o, c) : o;
}

static void test_a_later_one_less_an_earlier_one(void **state)
{
    static const uint64_t first[] = {100, 5000000}, later[] = {100, 5000000, 2000, 2000, 3000};
    (void)state;
    struct snapshot *then = snapshot_of(10, 5, 7, first, 2), *now = snapshot_of(30, 20, 3, later, 5);
    snapshot_subtract(now, then);
    json_t *o = snapshot_render(now);
    assert_int_equal(json_integer_value(at(o, "buckets", "a\"b\\c\nd", "gets")), 20);
    assert_true(json_real_value(at(o, "caches", "main", "hit_ratio")) == 0.75);
    assert_int_equal(json_integer_value(at(o, "connections", "open", NULL)), 3);
    assert_string_equal(json_string_value(at(o, "version", NULL, NULL)), "1");
    double p50 = json_real_value(at(o, "latency_ms", "total", "p50")), max = json_real_value(at(o, "latency_ms", "total", "max"));
    assert_true(p50 > 1.8 && p50 < 2.2);
    assert_true(max >= 3.0 && max < 3.3); /* not the 5 s of before */
    json_decref(o);
    snapshot_free(then);
    snapshot_free(now);
}

static void test_what_was_not_there_before_is_whole_and_nothing_is_negative(void **state)
{
    (void)state;
    struct snapshot *now = snapshot_of(4, 4, 1, NULL, 0), *empty, *later = snapshot_of(9, 9, 1, NULL, 0);
    assert_int_equal(snapshot_create(0, &empty), ERR_OK);
    snapshot_subtract(now, empty);
    json_t *o = snapshot_render(now);
    assert_int_equal(json_integer_value(at(o, "buckets", "a\"b\\c\nd", "gets")), 4);
    json_decref(o);
    snapshot_subtract(now, later);
    o = snapshot_render(now);
    assert_int_equal(json_integer_value(at(o, "buckets", "a\"b\\c\nd", "gets")), 0);
    assert_true(json_real_value(at(o, "caches", "main", "hit_ratio")) == 0);
    json_decref(o);
    snapshot_free(now);
    snapshot_free(empty);
    snapshot_free(later);
}

static struct snapshot *of_three(void)
{
    static const uint64_t us[] = {400, 20000, 99000000};
    return snapshot_of(3, 2, 1, us, 3);
}
static struct snapshot *of_none(void) { return NULL; }

static void test_the_text_format(void **state)
{
    static const char *const lines[] = {
        "# TYPE s3dlio_proxy_bucket_gets_total counter\ns3dlio_proxy_bucket_gets_total{bucket=\"a\\\"b\\\\c\\nd\"} 3\n",
        "s3dlio_proxy_cache_hits_total{cache=\"main\"} 2\n",
        "s3dlio_proxy_cache_lookups_total{cache=\"main\"} 3\n",
        "# TYPE s3dlio_proxy_client_connections gauge\ns3dlio_proxy_client_connections 1\n",
        "# TYPE s3dlio_proxy_request_duration_seconds histogram\n",
        "s3dlio_proxy_request_duration_seconds_bucket{le=\"0.0005\"} 1\n",
        "s3dlio_proxy_request_duration_seconds_bucket{le=\"0.025\"} 2\n",
        "s3dlio_proxy_request_duration_seconds_bucket{le=\"60\"} 2\n",
        "s3dlio_proxy_request_duration_seconds_bucket{le=\"+Inf\"} 3\n",
        "s3dlio_proxy_request_duration_seconds_sum 99.020400\n",
        "s3dlio_proxy_request_duration_seconds_count 3\n",
    };
    (void)state;
    make = of_three;
    char *text = metrics_text(NULL);
    assert_non_null(text);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (!strstr(text, lines[i])) fail_msg("missing: %sin:\n%s", lines[i], text);
    assert_null(strstr(text, "version"));
    free(text);
    make = of_none;
    assert_null(metrics_text(NULL));
}

static void test_values_at_most(void **state)
{
    (void)state;
    struct hist h = {0};
    struct hist_sum s = {0};
    for (uint64_t v = 0; v < 1000; v++) hist_add(&h, v);
    hist_collect(&s, &h);
    assert_int_equal(hist_at_most(&s, 0), 1);
    assert_int_equal(hist_at_most(&s, 15), 16);
    assert_in_range(hist_at_most(&s, 499), 480, 500);
    assert_int_equal(hist_at_most(&s, 5000), 1000);
    uint64_t before = 0;
    for (uint64_t v = 0; v < 1100; v++) {
        uint64_t n = hist_at_most(&s, v);
        assert_true(n >= before && n <= 1000);
        before = n;
    }
}

/* A counter that falls looks like a restart to Prometheus: rates jump. */
static void test_values_at_most_never_become_fewer(void **state)
{
    (void)state;
    struct hist h = {0};
    struct hist_sum before = {0}, after = {0};
    for (unsigned i = 0; i < 100; i++) hist_add(&h, 1000); /* in a bucket that a bound cuts */
    hist_collect(&before, &h);
    hist_add(&h, 70000000);
    hist_collect(&after, &h);
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        assert_true(hist_at_most(&after, bounds[i].us) >= hist_at_most(&before, bounds[i].us));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_later_one_less_an_earlier_one),
        cmocka_unit_test(test_what_was_not_there_before_is_whole_and_nothing_is_negative),
        cmocka_unit_test(test_the_text_format),
        cmocka_unit_test(test_values_at_most),
        cmocka_unit_test(test_values_at_most_never_become_fewer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
