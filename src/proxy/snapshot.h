/* snapshot.h - the statistics at one moment, raw enough that an earlier snapshot can be taken off a later one.
 *
 * The tree is what `stats` shows, but for its leaves: a counter is an integer; a gauge is an array of its one value; a ratio
 * is {"$ratio": [part, whole]}, both counters; a histogram is {"$hist": index into hists, "$unit": what a value is divided
 * by}. Names that come from outside (buckets) are keys of objects, so they cannot be taken for leaves. Built and read by one
 * thread at a time; afterwards immutable. A member that memory did not suffice for is missing. */
#ifndef S3P_PROXY_SNAPSHOT_H
#define S3P_PROXY_SNAPSHOT_H

#include <jansson.h>

#include "base/err.h"
#include "base/stat.h"

struct snapshot {
    json_t *tree;
    struct hist_sum *hists;
    unsigned nhists, cap_hists;
    uint64_t taken_ms;  /* of the loop's clock */
    int64_t taken_unix_ms;
};
/* Empty; cap_hists: of the most that will be added. */
enum err snapshot_create(unsigned cap_hists, struct snapshot **out);
void snapshot_free(struct snapshot *s);

void snapshot_count(json_t *o, const char *name, uint64_t v);
void snapshot_gauge(json_t *o, const char *name, json_t *v); /* takes v */
void snapshot_level(json_t *o, const char *name, uint64_t v); /* a gauge that is a whole number */
void snapshot_ratio(json_t *o, const char *name, uint64_t part, uint64_t whole);
/* A zeroed histogram to collect into, shown at o.name; values are shown divided by unit. */
struct hist_sum *snapshot_hist(struct snapshot *s, json_t *o, const char *name, double unit);

/* now -= then, an earlier one of the same process: counters and histograms become differences, gauges stay. */
void snapshot_subtract(struct snapshot *now, const struct snapshot *then);
/* As `stats` shows it; a new reference, NULL without memory. */
json_t *snapshot_render(const struct snapshot *s);

/* What a leaf is, for those who walk the tree. */
enum leaf { LEAF_NONE, LEAF_COUNT, LEAF_GAUGE, LEAF_RATIO, LEAF_HIST };
enum leaf snapshot_leaf(const json_t *v);
const struct hist_sum *snapshot_hist_of(const struct snapshot *s, const json_t *leaf);

#endif
