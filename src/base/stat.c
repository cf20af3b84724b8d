/* stat.c - log-linear histograms.
 *
 * Bucket of v: below 16 v itself; above, 16 equal steps within each power of two. Readers may see a histogram in the
 * middle of an addition; they count the buckets they copied, so a sum is always consistent in itself. */
#include "base/stat.h"

#include "base/check.h"

#define HIST_STEPS 16u
#define HIST_VALUE_MAX ((UINT64_C(1) << 41) - 1)

static unsigned bucket_of(uint64_t v)
{
    if (v < HIST_STEPS) return (unsigned)v;
    if (v > HIST_VALUE_MAX) v = HIST_VALUE_MAX;
    unsigned e = 63u - (unsigned)__builtin_clzll(v);
    return (e - 3) * HIST_STEPS + (unsigned)(v >> (e - 4) & (HIST_STEPS - 1));
}

static void bucket_bounds(unsigned i, uint64_t *low, uint64_t *width)
{
    if (i < HIST_STEPS) {
        *low = i;
        *width = 1;
        return;
    }
    unsigned shift = i / HIST_STEPS - 1;
    *low = (uint64_t)(HIST_STEPS + i % HIST_STEPS) << shift;
    *width = UINT64_C(1) << shift;
}

void hist_add(struct hist *h, uint64_t value)
{
    stat_add(&h->bucket[bucket_of(value)], 1);
    stat_add(&h->count, 1);
    stat_add(&h->sum, value);
    if (value > stat_get(&h->max)) atomic_store_explicit(&h->max, value, memory_order_relaxed);
}

void hist_collect(struct hist_sum *into, const struct hist *h)
{
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = stat_get(&h->bucket[i]);
        into->bucket[i] += n;
        into->count += n;
    }
    into->sum += stat_get(&h->sum);
    uint64_t max = stat_get(&h->max);
    if (max > into->max) into->max = max;
}

uint64_t hist_quantile(const struct hist_sum *s, double q)
{
    if (s->count == 0) return 0;
    if (!(q > 0)) q = 0;
    if (q > 1) q = 1;

    double rank = q * (double)s->count;
    uint64_t below = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        uint64_t n = s->bucket[i];
        if (n == 0 || (double)(below + n) < rank) {
            below += n;
            continue;
        }
        uint64_t low, width;
        bucket_bounds(i, &low, &width);
        double inside = (rank - (double)below) / (double)n; /* 0..1 */
        uint64_t v = low + (uint64_t)(inside * (double)(width - 1));
        return v < s->max ? v : s->max;
    }
    return s->max;
}

void hist_subtract(struct hist_sum *from, const struct hist_sum *what)
{
    uint64_t top = 0;
    from->count = 0;
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        uint64_t low, width, n = from->bucket[i];
        from->bucket[i] = n > what->bucket[i] ? n - what->bucket[i] : 0;
        from->count += from->bucket[i];
        bucket_bounds(i, &low, &width);
        if (from->bucket[i]) top = low + width - 1;
    }
    from->sum = from->sum > what->sum ? from->sum - what->sum : 0;
    if (top < from->max) from->max = top;
}

uint64_t hist_at_most(const struct hist_sum *s, uint64_t value)
{
    uint64_t n = 0;
    /* Not "all of them" from max on: of the same values it would be fewer once a larger one came. */
    for (unsigned i = 0; i < HIST_BUCKETS; i++) {
        uint64_t low, width;
        bucket_bounds(i, &low, &width);
        if (low > value) break;
        uint64_t of_width = value - low + 1 < width ? value - low + 1 : width;
        n += (uint64_t)((double)s->bucket[i] * ((double)of_width / (double)width));
    }
    return n;
}
