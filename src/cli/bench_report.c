/* bench_report.c - what a benchmark found, for people and for programs. See bench.h. */
#include <string.h>

#include "cli/bench.h"

static const double quantiles[] = {.5, .9, .99, .999};

static double in_ms(const struct hist_sum *h, double q) { return (double)hist_quantile(h, q) / 1000; }

static uint64_t total_of(const uint64_t n[BENCH_OUTCOME_N])
{
    uint64_t all = 0;
    for (unsigned i = 0; i < BENCH_OUTCOME_N; i++) all += n[i];
    return all;
}

/* ---- for people */

static void print_latency(FILE *f, const char *label, const struct hist *h)
{
    struct hist_sum s = {.count = 0};

    hist_collect(&s, h);
    if (!s.count) return;
    fprintf(f, "    %-12s", label);
    for (unsigned i = 0; i < ARRAY_LEN(quantiles); i++) fprintf(f, "%10.2f", in_ms(&s, quantiles[i]));
    fprintf(f, "%10.2f%10.2f\n", (double)s.max / 1000, (double)s.sum / (double)s.count / 1000);
}

static void print_cache(FILE *f, const struct bench_side *s)
{
    double ratio = bench_hit_ratio(s->outcomes), by_byte = bench_hit_ratio(s->outcome_bytes);
    uint64_t all = total_of(s->outcomes);

    if (!all) return;
    fprintf(f, "    %-12s", "cache");
    for (unsigned i = 0; i < BENCH_OUTCOME_N; i++)
        if (s->outcomes[i])
            fprintf(f, "  %s %llu (%.1f%%)", bench_outcome_names[i], (unsigned long long)s->outcomes[i],
                    100 * (double)s->outcomes[i] / (double)all);
    fprintf(f, "\n");
    if (ratio >= 0) fprintf(f, "    %-12s  %.1f%% of requests, %.1f%% of bytes\n", "hit ratio", ratio * 100, by_byte < 0 ? 0 : by_byte * 100);
    if (ratio >= 0.5) fprintf(f, "    most of it came out of the cache: these are the numbers of the cache, not of the origin (--bypass asks past it)\n");
    else if (s->outcomes[BENCH_UNTOLD] * 2 > all) fprintf(f, "    most answers had no X-Cache header: they did not come through a cache\n");
}

static void print_side(FILE *f, const struct bench *b, const char *name, const struct bench_side *s)
{
    double seconds = b->seconds > 0 ? b->seconds : 1e-9;
    char human[32];

    fprintf(f, "  %s: %llu done, %llu failed", name, (unsigned long long)s->ops, (unsigned long long)s->errors);
    if (s->retries) fprintf(f, ", %llu tried again", (unsigned long long)s->retries);
    if (s->wrong) fprintf(f, ", %llu WRONG", (unsigned long long)s->wrong);
    else if (b->conf.verify && s == &b->sides[BENCH_GETS] && s->ops) fprintf(f, ", all bytes as they should be");
    fprintf(f, "\n    %-12s%10.2f MB/s (%s/s), %.1f objects/s\n", "throughput", (double)s->bytes / 1e6 / seconds,
            human_bytes((double)s->bytes / seconds, human, sizeof human), (double)s->ops / seconds);
    if (s->ops) fprintf(f, "    %-12s%10s%10s%10s%10s%10s%10s\n", "ms", "p50", "p90", "p99", "p99.9", "max", "mean");
    if (s == &b->sides[BENCH_GETS]) print_latency(f, "first byte", &s->first_byte_us);
    print_latency(f, "total", &s->total_us);
    print_cache(f, s);
}

static void print_what(const struct bench *b, FILE *f)
{
    char min[32], max[32];
    const struct bench_objects *o = &b->objects;
    struct strbuf prefix;

    strbuf_init(&prefix, 0);
    fprintf(f, "bench %s of s3://" STR_FMT "/%s at %s: %llu objects", b->conf.kind, STR_ARG(o->bucket), printable(o->prefix, &prefix),
            b->cli->net.url, (unsigned long long)o->n);
    strbuf_free(&prefix);
    if (!o->listed) fprintf(f, " of %s", human_bytes((double)o->sizes.min, min, sizeof min));
    if (!o->listed && o->sizes.max != o->sizes.min) fprintf(f, " to %s", human_bytes((double)o->sizes.max, max, sizeof max));
    if (b->conf.range_bytes) fprintf(f, ", in ranges of %s", human_bytes((double)b->conf.range_bytes, min, sizeof min));
    fprintf(f, ", %u at a time, %.1f s%s%s\n", b->conf.concurrency, b->seconds, b->conf.bypass ? ", past the cache" : "",
            b->interrupted ? " (interrupted)" : "");
}

void bench_print(const struct bench *b, FILE *f)
{
    print_what(b, f);
    if (b->conf.gets) print_side(f, b, "GET", &b->sides[BENCH_GETS]);
    if (b->conf.puts) print_side(f, b, "PUT", &b->sides[BENCH_PUTS]);
    for (unsigned i = 0; i < b->reasons.n; i++)
        fprintf(f, "  failed %llu times: %s\n", (unsigned long long)b->reasons.rows[i].count, b->reasons.rows[i].why);
    if (b->reasons.others) fprintf(f, "  failed %llu times for other reasons\n", (unsigned long long)b->reasons.others);
}

/* ---- for programs */

static json_t *json_count(uint64_t n) { return json_integer((json_int_t)n); }

static json_t *json_latency(const struct hist *h)
{
    static const char *const names[] = {"p50", "p90", "p99", "p999"};
    struct hist_sum s = {.count = 0};
    json_t *o = json_object();

    hist_collect(&s, h);
    for (unsigned i = 0; i < ARRAY_LEN(quantiles); i++) json_object_set_new(o, names[i], json_real(in_ms(&s, quantiles[i])));
    json_object_set_new(o, "max", json_real((double)s.max / 1000));
    json_object_set_new(o, "mean", json_real(s.count ? (double)s.sum / (double)s.count / 1000 : 0));
    return o;
}

static json_t *json_ratio(double ratio) { return ratio < 0 ? json_null() : json_real(ratio); }

static json_t *json_side(const struct bench *b, const struct bench_side *s)
{
    double seconds = b->seconds > 0 ? b->seconds : 1e-9;
    json_t *o = json_object(), *cache = json_object();

    json_object_set_new(o, "operations", json_count(s->ops));
    json_object_set_new(o, "errors", json_count(s->errors));
    json_object_set_new(o, "wrong", json_count(s->wrong));
    json_object_set_new(o, "retries", json_count(s->retries));
    json_object_set_new(o, "bytes", json_count(s->bytes));
    json_object_set_new(o, "bytes_per_s", json_real((double)s->bytes / seconds));
    json_object_set_new(o, "objects_per_s", json_real((double)s->ops / seconds));
    if (s == &b->sides[BENCH_GETS]) json_object_set_new(o, "first_byte_ms", json_latency(&s->first_byte_us));
    json_object_set_new(o, "total_ms", json_latency(&s->total_us));
    if (s == &b->sides[BENCH_GETS]) {
        for (unsigned i = 0; i < BENCH_OUTCOME_N; i++) json_object_set_new(cache, bench_outcome_names[i], json_count(s->outcomes[i]));
        json_object_set_new(o, "cache", json_incref(cache));
        json_object_set_new(o, "hit_ratio", json_ratio(bench_hit_ratio(s->outcomes)));
        json_object_set_new(o, "byte_hit_ratio", json_ratio(bench_hit_ratio(s->outcome_bytes)));
    }
    json_decref(cache);
    return o;
}

static json_t *json_series(const struct bench_series *s)
{
    json_t *steps = json_array();

    for (unsigned i = 0; i < s->n; i++) {
        const struct bench_step *t = &s->steps[i];
        json_array_append_new(steps, json_pack("{sIsIsIso}", "operations", (json_int_t)t->ops, "errors", (json_int_t)t->errors, "bytes",
                                               (json_int_t)t->bytes, "hit_ratio",
                                               json_ratio(t->asked ? (double)t->hits / (double)t->asked : -1)));
    }
    return json_pack("{sfso}", "step_s", (double)s->step_ms / 1000, "steps", steps);
}

static json_t *json_reasons(const struct bench_reasons *r)
{
    json_t *all = json_array();

    for (unsigned i = 0; i < r->n; i++)
        json_array_append_new(all, json_pack("{sosI}", "why", cli_json_str(str_c(r->rows[i].why)), "count", (json_int_t)r->rows[i].count));
    if (r->others) json_array_append_new(all, json_pack("{sssI}", "why", "others", "count", (json_int_t)r->others));
    return all;
}

json_t *bench_json(const struct bench *b)
{
    const struct bench_objects *o = &b->objects;
    json_t *all = json_object(), *sizes = json_null();

    if (!o->listed) sizes = json_pack("{sIsI}", "min", (json_int_t)o->sizes.min, "max", (json_int_t)o->sizes.max);
    json_object_set_new(all, "bench", json_string(b->conf.kind));
    json_object_set_new(all, "endpoint", json_string(b->cli->net.url));
    json_object_set_new(all, "bucket", cli_json_str(o->bucket));
    json_object_set_new(all, "prefix", cli_json_str(o->prefix));
    json_object_set_new(all, "objects", json_count(o->n));
    json_object_set_new(all, "object_bytes", sizes);
    json_object_set_new(all, "range_bytes", b->conf.range_bytes ? json_count(b->conf.range_bytes) : json_null());
    json_object_set_new(all, "concurrency", json_count(b->conf.concurrency));
    json_object_set_new(all, "bypass", json_boolean(b->conf.bypass));
    json_object_set_new(all, "verified", json_boolean(b->conf.verify));
    json_object_set_new(all, "prepared", json_count(b->prepared));
    json_object_set_new(all, "seconds", json_real(b->seconds));
    json_object_set_new(all, "interrupted", json_boolean(b->interrupted));
    if (b->conf.gets) json_object_set_new(all, "get", json_side(b, &b->sides[BENCH_GETS]));
    if (b->conf.puts) json_object_set_new(all, "put", json_side(b, &b->sides[BENCH_PUTS]));
    json_object_set_new(all, "failures", json_reasons(&b->reasons));
    json_object_set_new(all, "series", json_series(&b->series));
    return all;
}
