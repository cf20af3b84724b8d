/* retry.h - which failures are worth another try, and when (S3 User Guide, "Error retries and exponential backoff").
 *
 * Worth it: connection errors, timeouts before the end, truncated bodies, 500, 502, 503, 504, 429, S3 codes SlowDown,
 * ServiceUnavailable, InternalError, RequestTimeout, RequestTimeTooSkewed. 403/404/412/416 are answers. Exponential
 * back-off with full jitter, and a budget per origin and worker (token bucket: every request adds 0.2, every retry takes 1,
 * at most 50) so that retries cannot multiply an outage. A retry that goes on where a good piece of the body has come is
 * not charged: it repeats nothing. */
#ifndef S3P_ORIGIN_RETRY_H
#define S3P_ORIGIN_RETRY_H

#include "conf/conf.h"

struct retry_budget {
    double tokens;
};
void retry_budget_init(struct retry_budget *b);
void retry_budget_request(struct retry_budget *b); /* a first try was made */
struct retry {
    unsigned attempt; /* tries made so far; start with zeroed memory */
};
/* After a failed try. status 0 = no response (e tells). code: S3 <Code> if known. retry_after_s: -1 none. True: wait
 * *delay_ms and try again. Attempts are bounded by conf->retry_attempts; progress (bytes that came since the last failure and
 * are not asked for again) resets the attempt count, so a long transfer over a flaky path goes on. */
bool retry_next(struct retry *r, struct retry_budget *b, const struct origin_conf *conf, enum err e, unsigned status,
                struct str code, int64_t retry_after_s, uint64_t progress, uint64_t *delay_ms);

#endif
