/* retry.c - which failures are worth another try, and when. The rules are in the header; this file holds no state. */
#include "origin/retry.h"

#include "base/hash.h"

#define BUDGET_MAX 50.0
#define BUDGET_PER_REQUEST 0.2
#define BUDGET_PER_RETRY 1.0
#define FREE_PROGRESS (16 * 1024) /* bytes */

void retry_budget_init(struct retry_budget *b) { b->tokens = BUDGET_MAX; }

void retry_budget_request(struct retry_budget *b)
{
    b->tokens += BUDGET_PER_REQUEST;
    if (b->tokens > BUDGET_MAX) b->tokens = BUDGET_MAX;
}

/* OPERATION_TIMEOUT and OVERLOAD have used up the time the caller was promised; PROTOCOL and CHANGED would come again. */
static bool err_worth_retry(enum err e)
{
    switch (e) {
    case ERR_IO:
    case ERR_CLOSED:
    case ERR_RESET:
    case ERR_REFUSED:
    case ERR_UNREACHABLE:
    case ERR_DNS:
    case ERR_TLS:
    case ERR_TRUNCATED:
    case ERR_CONNECT_TIMEOUT:
    case ERR_FIRST_BYTE_TIMEOUT:
    case ERR_STALL_TIMEOUT: return true;
    default: return false;
    }
}

/* Some answers come with a status of their own (RequestTimeout is a 400, RequestTimeTooSkewed a 403). */
static bool code_worth_retry(struct str code)
{
    static const struct str codes[] = {
        {"SlowDown", 8},        {"ServiceUnavailable", 18},   {"InternalError", 13},
        {"RequestTimeout", 14}, {"RequestTimeTooSkewed", 20},
    };
    for (size_t i = 0; i < ARRAY_LEN(codes); i++)
        if (str_eq(code, codes[i])) return true;
    return false;
}

static bool status_worth_retry(unsigned status, struct str code)
{
    switch (status) {
    case 429:
    case 500:
    case 502:
    case 503:
    case 504: return true;
    default: return code_worth_retry(code);
    }
}

/* Uniform over 0..limit: full jitter, so that those who failed together do not come back together. */
static uint64_t jitter(uint64_t limit) { return limit == UINT64_MAX ? random_u64() : random_u64() % (limit + 1); }

static uint64_t backoff_ms(const struct origin_conf *conf, unsigned failures)
{
    unsigned shift = failures - 1;
    uint64_t limit = conf->retry_cap_ms;
    if (shift < 63 && conf->retry_base_ms <= conf->retry_cap_ms >> shift) limit = conf->retry_base_ms << shift;
    return jitter(limit);
}

bool retry_next(struct retry *r, struct retry_budget *b, const struct origin_conf *conf, enum err e, unsigned status,
                struct str code, int64_t retry_after_s, uint64_t progress, uint64_t *delay_ms)
{
    /* A response that began well and broke is judged by what broke it. */
    bool worth = status < 400 ? err_worth_retry(e) : status_worth_retry(status, code);
    if (!worth) return false;
    double price = progress >= FREE_PROGRESS ? 0 : BUDGET_PER_RETRY;
    if (progress) r->attempt = 0;
    if (r->attempt + 1 >= conf->retry_attempts) {
        if (r->attempt < UINT32_MAX) r->attempt++;
        return false;
    }
    if (b->tokens < price) return false;
    b->tokens -= price;
    r->attempt++;
    *delay_ms = backoff_ms(conf, r->attempt);
    if (retry_after_s > 0) { /* the origin's wish is a lower bound, the configured cap still an upper one */
        uint64_t wish = (uint64_t)retry_after_s > UINT64_MAX / 1000 ? UINT64_MAX : (uint64_t)retry_after_s * 1000;
        if (wish > conf->retry_cap_ms) wish = conf->retry_cap_ms;
        if (*delay_ms < wish) *delay_ms = wish;
    }
    return true;
}
