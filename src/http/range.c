/* range.c - byte ranges as S3 answers them.
 *
 * Whatever is not exactly one well-formed byte range is ignored (RFC 9110 14.2 lets a server do that, S3 does it), so
 * parsing never fails; only a well-formed range that selects nothing does, and only once the size is known. */
#include "http/range.h"

#define SIZE_UNKNOWN UINT64_MAX

/* 1*DIGIT, a position beyond 64 bits becomes the highest one: it is past every object's end all the same. */
static bool position_parse(struct str s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        unsigned digit = (unsigned)(s.p[i] - '0');
        if (__builtin_mul_overflow(v, 10u, &v) || __builtin_add_overflow(v, digit, &v)) v = UINT64_MAX;
    }
    *out = v;
    return true;
}

struct range range_parse(struct str value)
{
    const struct range none = {.kind = RANGE_NONE};
    const struct str unit = STR_LIT("bytes=");
    struct range r = none;
    value = str_trim(value);
    if (value.n < unit.n || !str_eq_ci(str_make(value.p, unit.n), unit)) return none;
    struct str spec = str_make(value.p + unit.n, value.n - unit.n);
    size_t dash = str_find(spec, '-');
    if (dash == spec.n) return none;
    struct str first = str_make(spec.p, dash);
    struct str last = str_make(spec.p + dash + 1, spec.n - dash - 1);
    if (first.n == 0) {
        if (!position_parse(last, &r.last)) return none;
        r.kind = RANGE_SUFFIX;
        return r;
    }
    if (!position_parse(first, &r.first)) return none;
    if (last.n == 0) {
        r.kind = RANGE_FROM;
        return r;
    }
    if (!position_parse(last, &r.last) || r.last < r.first) return none;
    r.kind = RANGE_SPAN;
    return r;
}

enum err range_resolve(const struct range *r, uint64_t size, uint64_t *first, uint64_t *last)
{
    *first = 0;
    *last = size - 1; /* for size 0: UINT64_MAX, so that last - first + 1 is still the length */
    switch (r->kind) {
    case RANGE_NONE: return ERR_OK;
    case RANGE_SUFFIX:
        if (r->last == 0 || size == 0) return ERR_RANGE;
        if (r->last < size) *first = size - r->last;
        return ERR_OK;
    case RANGE_SPAN:
    case RANGE_FROM: break;
    }
    if (r->first >= size) return ERR_RANGE;
    *first = r->first;
    if (r->kind == RANGE_SPAN && r->last < *last) *last = r->last;
    return ERR_OK;
}

/* "*" is an unknown size. */
static bool size_parse(struct str s, uint64_t *out)
{
    if (str_eq(s, STR_LIT("*"))) {
        *out = SIZE_UNKNOWN;
        return true;
    }
    return str_to_u64(s, out) && *out <= INT64_MAX;
}

enum err content_range_parse(struct str value, struct content_range *out)
{
    const struct str unit = STR_LIT("bytes ");
    struct content_range r = {0};
    value = str_trim(value);
    if (value.n < unit.n || !str_eq_ci(str_make(value.p, unit.n), unit)) return ERR_PROTOCOL;
    struct str rest = str_make(value.p + unit.n, value.n - unit.n);
    size_t slash = str_find(rest, '/');
    if (slash == rest.n) return ERR_PROTOCOL;
    struct str span = str_make(rest.p, slash);
    if (!size_parse(str_make(rest.p + slash + 1, rest.n - slash - 1), &r.size)) return ERR_PROTOCOL;
    if (str_eq(span, STR_LIT("*"))) {
        if (r.size == SIZE_UNKNOWN) return ERR_PROTOCOL;
        r.unsatisfied = true;
        *out = r;
        return ERR_OK;
    }
    size_t dash = str_find(span, '-');
    if (dash == span.n) return ERR_PROTOCOL;
    if (!str_to_u64(str_make(span.p, dash), &r.first)) return ERR_PROTOCOL;
    if (!str_to_u64(str_make(span.p + dash + 1, span.n - dash - 1), &r.last)) return ERR_PROTOCOL;
    if (r.last < r.first || r.last >= INT64_MAX || r.last >= r.size) return ERR_PROTOCOL;
    *out = r;
    return ERR_OK;
}
