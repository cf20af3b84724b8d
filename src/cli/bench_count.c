/* bench_count.c - what a benchmark counts. See bench.h. */
#include <stdio.h>
#include <string.h>

#include "cli/bench.h"

const char *const bench_outcome_names[BENCH_OUTCOME_N] = {
#define X(name) #name,
    BENCH_OUTCOMES(X)
#undef X
    "untold",
};

enum bench_outcome bench_outcome_of(struct str x_cache)
{
    for (unsigned i = 0; i < BENCH_UNTOLD; i++)
        if (str_eq(str_c(bench_outcome_names[i]), x_cache)) return (enum bench_outcome)i;
    return BENCH_UNTOLD;
}

double bench_hit_ratio(const uint64_t outcomes[BENCH_OUTCOME_N])
{
    uint64_t found = outcomes[BENCH_HIT] + outcomes[BENCH_REVALIDATED] + outcomes[BENCH_STALE];
    uint64_t all = found + outcomes[BENCH_PARTIAL] + outcomes[BENCH_MISS];

    return all ? (double)found / (double)all : -1;
}

void bench_series_init(struct bench_series *s)
{
    memset(s, 0, sizeof *s);
    s->step_ms = 1000;
}

static void fold(struct bench_series *s)
{
    for (unsigned i = 0; i < BENCH_SERIES / 2; i++) {
        const struct bench_step *a = &s->steps[2 * i], *b = a + 1;
        s->steps[i] = (struct bench_step){a->ops + b->ops, a->errors + b->errors, a->bytes + b->bytes, a->hits + b->hits,
                                          a->asked + b->asked};
    }
    memset(s->steps + BENCH_SERIES / 2, 0, sizeof s->steps / 2);
    s->n = (s->n + 1) / 2;
    s->step_ms *= 2;
}

struct bench_step *bench_series_at(struct bench_series *s, uint64_t ms)
{
    while (ms / s->step_ms >= BENCH_SERIES) fold(s);
    unsigned i = (unsigned)(ms / s->step_ms);
    if (s->n <= i) s->n = i + 1;
    return &s->steps[i];
}

void bench_reason_add(struct bench_reasons *r, const char *why)
{
    for (unsigned i = 0; i < r->n; i++)
        if (strncmp(r->rows[i].why, why, sizeof r->rows[i].why - 1) == 0) {
            r->rows[i].count++;
            return;
        }
    if (r->n == BENCH_REASONS) {
        r->others++;
        return;
    }
    snprintf(r->rows[r->n].why, sizeof r->rows[0].why, "%s", why);
    r->rows[r->n++].count = 1;
}
