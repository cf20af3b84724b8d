/* stat.h - counters and histograms: one writer (the worker that owns them), any reader.
 *
 * A counter is a relaxed atomic that only its owner changes, so adding is a plain load and store. A histogram is
 * log-linear: 16 buckets per power of two, values 0 .. 2^40, error below 1/16; unit is the caller's (microseconds by
 * convention). Readers add up the workers' copies. */
#ifndef S3P_BASE_STAT_H
#define S3P_BASE_STAT_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic uint64_t stat_t;

static inline void stat_add(stat_t *s, uint64_t v)
{
    atomic_store_explicit(s, atomic_load_explicit(s, memory_order_relaxed) + v, memory_order_relaxed);
}
static inline void stat_sub(stat_t *s, uint64_t v) { stat_add(s, (uint64_t)0 - v); }
static inline uint64_t stat_get(const stat_t *s) { return atomic_load_explicit((stat_t *)s, memory_order_relaxed); }

#define HIST_BUCKETS (16 * 37 + 16)
struct hist {
    stat_t bucket[HIST_BUCKETS], count, sum, max;
};
void hist_add(struct hist *h, uint64_t value); /* owner only */
/* A reader's plain copy. */
struct hist_sum {
    uint64_t bucket[HIST_BUCKETS], count, sum, max;
};
void hist_collect(struct hist_sum *into, const struct hist *h); /* into += h */
/* Value at quantile q (0..1), interpolated inside its bucket, never above max; 0 when empty. */
uint64_t hist_quantile(const struct hist_sum *s, double q);

/* from -= what, a copy of the same histograms taken earlier. The largest value since is not known exactly: max becomes the
 * top of the highest bucket that is left, at most what it was. */
void hist_subtract(struct hist_sum *from, const struct hist_sum *what);
/* How many values are at most `value`, interpolated inside its bucket. Never fewer after more were added. */
uint64_t hist_at_most(const struct hist_sum *s, uint64_t value);

#endif
