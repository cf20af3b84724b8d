/* stats_view.h - the proxy's statistics for people: text out of what /stats answered. Knows no terminal and no network. */
#ifndef S3P_CLI_STATS_VIEW_H
#define S3P_CLI_STATS_VIEW_H

#include <jansson.h>

#include "base/str.h"

#define STATS_HISTORY 240u

/* What a watched proxy did, one entry for each interval; a ring. */
struct stats_history {
    struct {
        double requests_per_s, bytes_per_s, hit_ratio; /* hit_ratio < 0: nothing was asked */
    } entries[STATS_HISTORY];
    unsigned long long n; /* added so far */
};
struct stats_view {
    json_t *now;
    json_t *before;         /* of the same proxy, earlier: rates are those since then; NULL: since its start, or since the mark */
    const char *url;
    const struct stats_history *history; /* NULL: none is shown */
    const char *trouble;    /* a line on why `now` is old; NULL: it is not */
    unsigned columns;       /* no line is longer */
    bool utf8, bold;        /* what the terminal can show */
};
/* Lines, each with its line end, into out. */
void stats_render(const struct stats_view *v, struct strbuf *out);
/* False: it restarted between the two, there is nothing to compare. */
bool stats_comparable(const json_t *now, const json_t *before);
void stats_history_add(struct stats_history *h, const json_t *now, const json_t *before);

#endif
