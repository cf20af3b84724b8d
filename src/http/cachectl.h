/* cachectl.h - storability and freshness for a shared cache (RFC 9111). */
#ifndef S3P_HTTP_CACHECTL_H
#define S3P_HTTP_CACHECTL_H

#include "http/msg.h"

struct cache_verdict {
    bool storable;
    bool must_revalidate;  /* no stale serving: must-revalidate, proxy-revalidate, s-maxage, no-cache */
    bool no_cache;         /* stored, but every use needs validation */
    bool vary_any;         /* Vary: * (not storable either) */
    uint64_t fresh_ms;     /* how long it is fresh, counted from its receipt, initial age already subtracted */
    uint64_t initial_age_s; /* corrected_initial_age (4.2.3) */
    int64_t stale_if_error_s; /* from the response (RFC 5861); -1: not said */
};
/* `authorized`: the client's request carried an Authorization that the cache may not look behind (3.5); routes that
 * re-sign for everyone pass false. `fresh_for_ms`: heuristic lifetime where the origin says nothing. now_s: wall clock. */
void cache_judge(const struct head *req, const struct head *resp, bool authorized, uint64_t fresh_for_ms, int64_t now_s,
                 uint64_t response_delay_ms, struct cache_verdict *out);
/* What the request asks of a stored response (5.2.1, Pragma). */
struct cache_request {
    bool no_store, no_cache, only_if_cached;
    int64_t max_age_s, min_fresh_s, max_stale_s; /* -1 absent; max_stale without value: INT64_MAX */
};
void cache_request_parse(const struct head *req, struct cache_request *out);

#endif
