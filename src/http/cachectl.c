/* cachectl.c - what a shared cache may keep and for how long (RFC 9111).
 *
 * One rule for everything a sender got wrong: the reading that keeps less, or keeps it for a shorter time, wins. So
 * repeated directives count with their smallest value, a lifetime that is no number is 0, and a field whose quoting is
 * broken (it could hide anything behind the quote) is no-store.
 *
 * Only 200 and 206 are stored. To refresh a stored response from a 304, judge the merged head with the stored status. */
#include "http/cachectl.h"

#include "http/date.h"

#define DELTA_MAX (INT64_C(1) << 31) /* 1.2.2: larger values count as this */
#define ABSENT (-1)

/* All Cache-Control fields of a head, whichever side sent it. Numbers: ABSENT, or seconds. */
struct directives {
    bool present, no_store, no_cache, private, public, must_revalidate, proxy_revalidate, must_understand;
    bool only_if_cached, broken;
    int64_t max_age, s_maxage, stale_if_error, min_fresh, max_stale;
};

/* 1*DIGIT, plain or quoted; ABSENT when it is not that. */
static int64_t delta_parse(struct str v)
{
    if (v.n >= 2 && v.p[0] == '"' && v.p[v.n - 1] == '"') v = str_make(v.p + 1, v.n - 2);
    if (v.n == 0) return ABSENT;
    int64_t n = 0;
    for (size_t i = 0; i < v.n; i++) {
        if (v.p[i] < '0' || v.p[i] > '9') return ABSENT;
        n = n * 10 + (v.p[i] - '0');
        if (n > DELTA_MAX) n = DELTA_MAX;
    }
    return n;
}

static void keep_least(int64_t *slot, int64_t v)
{
    if (*slot == ABSENT || v < *slot) *slot = v;
}

/* A lifetime: what is no number is none. */
static void lifetime_add(int64_t *slot, struct str value)
{
    int64_t v = delta_parse(value);
    keep_least(slot, v == ABSENT ? 0 : v);
}

static void max_stale_add(struct directives *d, bool has_value, struct str value)
{
    int64_t v = has_value ? delta_parse(value) : INT64_MAX;
    if (v != ABSENT) keep_least(&d->max_stale, v);
}

static void min_fresh_add(struct directives *d, struct str value)
{
    int64_t v = delta_parse(value);
    if (v > d->min_fresh) d->min_fresh = v;
}

static bool quoting_broken(struct str value)
{
    size_t quotes = 0;
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '\\' && quotes % 2 == 1) {
            i++;
        } else if (value.p[i] == '"') {
            quotes++;
        }
    }
    return quotes % 2 == 1;
}

static void directive_add(struct directives *d, struct str name, bool has_value, struct str value)
{
    static const struct {
        struct str name;
        size_t offset;
    } flags[] = {
        /* no-cache and private with a list of fields are taken for the plain ones: we do not cut up heads. */
        {STR_LIT("no-store"), offsetof(struct directives, no_store)},
        {STR_LIT("no-cache"), offsetof(struct directives, no_cache)},
        {STR_LIT("private"), offsetof(struct directives, private)},
        {STR_LIT("public"), offsetof(struct directives, public)},
        {STR_LIT("must-revalidate"), offsetof(struct directives, must_revalidate)},
        {STR_LIT("proxy-revalidate"), offsetof(struct directives, proxy_revalidate)},
        {STR_LIT("must-understand"), offsetof(struct directives, must_understand)},
        {STR_LIT("only-if-cached"), offsetof(struct directives, only_if_cached)},
    };
    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        if (str_eq_ci(name, flags[i].name)) *(bool *)((char *)d + flags[i].offset) = true;
    }
    if (str_eq_ci(name, STR_LIT("max-age"))) lifetime_add(&d->max_age, value);
    if (str_eq_ci(name, STR_LIT("s-maxage"))) lifetime_add(&d->s_maxage, value);
    if (str_eq_ci(name, STR_LIT("stale-if-error"))) lifetime_add(&d->stale_if_error, value);
    if (str_eq_ci(name, STR_LIT("min-fresh"))) min_fresh_add(d, value);
    if (str_eq_ci(name, STR_LIT("max-stale"))) max_stale_add(d, has_value, value);
}

static void directives_parse(const struct head *h, struct directives *d)
{
    *d = (struct directives){.max_age = ABSENT, .s_maxage = ABSENT, .stale_if_error = ABSENT, .min_fresh = ABSENT,
                             .max_stale = ABSENT};
    for (unsigned i = 0; i < h->nhdrs; i++) {
        if (h->hdrs[i].id != HDR_CACHE_CONTROL) continue;
        struct str rest = h->hdrs[i].value, member;
        d->present = true;
        if (quoting_broken(rest)) d->broken = d->no_store = true;
        while (hdr_list_next(&rest, &member)) {
            size_t eq = str_find(member, '=');
            bool has_value = eq < member.n;
            struct str value = has_value ? str_make(member.p + eq + 1, member.n - eq - 1) : (struct str){NULL, 0};
            directive_add(d, str_trim(str_make(member.p, eq)), has_value, value);
        }
    }
}

/* 5.3: what is no date lies in the past; of several the earliest. ABSENT when there is no Expires. */
static int64_t expires_lifetime(const struct head *resp, int64_t date_s)
{
    int64_t least = ABSENT;
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        if (resp->hdrs[i].id != HDR_EXPIRES) continue;
        int64_t at = date_parse(resp->hdrs[i].value);
        keep_least(&least, at > date_s ? at - date_s : 0);
    }
    return least;
}

/* The largest one; members that are no number are ignored (5.1). */
static int64_t age_value(const struct head *resp)
{
    int64_t most = 0;
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        if (resp->hdrs[i].id != HDR_AGE) continue;
        struct str rest = resp->hdrs[i].value, member;
        while (hdr_list_next(&rest, &member)) {
            int64_t v = delta_parse(member);
            if (v > most) most = v;
        }
    }
    return most;
}

/* 4.2.3; in milliseconds, so that a response delay of some of them does not cost a second. */
static uint64_t initial_age_ms(const struct head *resp, int64_t date_s, int64_t now_s, uint64_t response_delay_ms)
{
    uint64_t apparent_ms = date_s < now_s ? (uint64_t)(now_s - date_s) * 1000 : 0;
    uint64_t corrected_ms = (uint64_t)age_value(resp) * 1000;
    if (__builtin_add_overflow(corrected_ms, response_delay_ms, &corrected_ms)) corrected_ms = UINT64_MAX;
    return apparent_ms > corrected_ms ? apparent_ms : corrected_ms;
}

/* Section 3, for the statuses we store; both of them are cacheable by default, so no explicit lifetime is needed. */
static bool may_store(const struct head *req, const struct head *resp, const struct directives *d, bool authorized)
{
    struct directives asked;
    directives_parse(req, &asked);
    if (req->method != METHOD_GET && req->method != METHOD_HEAD) return false;
    if (resp->status != 200 && resp->status != 206) return false;
    if (asked.no_store || d->private) return false;
    /* 5.2.2.3: whoever knows must-understand and the status does as if no-store were not there. */
    if (d->broken || (d->no_store && !d->must_understand)) return false;
    if (authorized && !d->must_revalidate && !d->public && d->s_maxage == ABSENT) return false; /* 3.5 */
    return !head_has_token(resp, HDR_VARY, STR_LIT("*"));
}

void cache_judge(const struct head *req, const struct head *resp, bool authorized, uint64_t fresh_for_ms, int64_t now_s,
                 uint64_t response_delay_ms, struct cache_verdict *out)
{
    struct directives d;
    directives_parse(resp, &d);
    int64_t date_s = date_parse(head_value(resp, HDR_DATE));
    if (date_s < 0) date_s = now_s;

    int64_t lifetime_s = d.s_maxage != ABSENT ? d.s_maxage : d.max_age;
    if (lifetime_s == ABSENT) lifetime_s = expires_lifetime(resp, date_s);
    uint64_t lifetime_ms = lifetime_s == ABSENT ? fresh_for_ms : (uint64_t)lifetime_s * 1000;
    if (d.no_cache) lifetime_ms = 0;
    uint64_t age_ms = initial_age_ms(resp, date_s, now_s, response_delay_ms);

    *out = (struct cache_verdict){
        .storable = may_store(req, resp, &d, authorized),
        .must_revalidate = d.must_revalidate || d.proxy_revalidate || d.s_maxage != ABSENT || d.no_cache,
        .no_cache = d.no_cache,
        .vary_any = head_has_token(resp, HDR_VARY, STR_LIT("*")),
        .fresh_ms = lifetime_ms > age_ms ? lifetime_ms - age_ms : 0,
        .initial_age_s = age_ms / 1000,
        .stale_if_error_s = d.stale_if_error,
    };
}

void cache_request_parse(const struct head *req, struct cache_request *out)
{
    struct directives d;
    directives_parse(req, &d);
    *out = (struct cache_request){
        .no_store = d.no_store,
        /* 5.4: Pragma speaks only where Cache-Control is silent. */
        .no_cache = d.no_cache || (!d.present && head_has_token(req, HDR_PRAGMA, STR_LIT("no-cache"))),
        .only_if_cached = d.only_if_cached,
        .max_age_s = d.max_age,
        .min_fresh_s = d.min_fresh,
        .max_stale_s = d.max_stale,
    };
}
