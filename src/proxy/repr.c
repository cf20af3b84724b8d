/* repr.c - stored heads: what of a response is kept, replayed, refreshed, and by which request fields it was selected. */
#include <stdlib.h>

#include "http/cond.h"
#include "http/date.h"
#include "proxy/proxy.h"

struct str cache_result_text(enum cache_result r)
{
    static const struct str texts[] = {
#define X(id, text) STR_LIT(text),
        CACHE_RESULTS(X)
#undef X
    };
    return texts[r];
}

struct stored {
    struct repr repr;
    struct pool *pool;
};

static void repr_free(void *user)
{
    struct repr *r = user;
    struct stored *s = container_of(r, struct stored, repr);
    pool_destroy(s->pool);
}

/* Fields of this one message, of the hop, or that are written anew for every answer. */
static bool is_stored(const struct head *resp, const struct hdr *h)
{
    switch (h->id) {
    case HDR_CONTENT_LENGTH:
    case HDR_CONTENT_RANGE:
    case HDR_TRANSFER_ENCODING:
    case HDR_DATE:
    case HDR_AGE:
    case HDR_SERVER:
    case HDR_ACCEPT_RANGES:
    case HDR_X_CACHE:
    case HDR_AMZ_REQUEST_ID:
    case HDR_AMZ_ID_2: return false;
    default: return !hdr_is_hop_by_hop(resp, h);
    }
}

static bool is_checksum(struct str name)
{
    struct str prefix = STR_LIT("x-amz-checksum-");
    return name.n > prefix.n && str_eq_ci(str_make(name.p, prefix.n), prefix);
}

#define ROUNDED(n) (((n) + 16) & ~(size_t)15) /* what the pool takes for a string */
#define HEAD_MAX_BYTES ((size_t)256 * 1024)

/* What copies of these fields will take, nearly: a million stored heads should not be a million pages. */
static size_t fields_bytes(const struct hdr *hdrs, unsigned n)
{
    size_t sum = 16;
    for (unsigned i = 0; i < n; i++) sum += sizeof *hdrs + ROUNDED(hdrs[i].name.n) + ROUNDED(hdrs[i].value.n);
    return sum;
}

static enum err stored_create(size_t bytes, struct stored **out)
{
    struct pool *p = pool_create_for(ROUNDED(sizeof(struct stored)) + sizeof(struct hdr) + bytes, HEAD_MAX_BYTES);
    struct stored *s = p ? pool_zalloc(p, sizeof *s) : NULL;

    if (!s) {
        if (p) pool_destroy(p);
        return ERR_NOMEM;
    }
    s->pool = p;
    s->repr.last_modified_s = -1;
    s->repr.status = 200;
    *out = s;
    return ERR_OK;
}

static bool stored_add(struct stored *s, const struct hdr *h)
{
    struct hdr *d = &s->repr.hdrs[s->repr.nhdrs];
    d->id = h->id;
    d->name = pool_str(s->pool, h->name);
    d->value = pool_str(s->pool, h->value);
    if (!d->name.p || !d->value.p) return false;
    s->repr.nhdrs++;
    if (d->id == HDR_ETAG) s->repr.etag = d->value;
    if (d->id == HDR_LAST_MODIFIED) s->repr.last_modified = d->value;
    if (d->id == HDR_CONTENT_TYPE) s->repr.content_type = d->value;
    return true;
}

/* The request's value of a field, lines joined; NULL: no such line. False: out of memory. */
static bool request_value(struct pool *p, const struct head *req, struct str name, struct str *out)
{
    *out = (struct str){NULL, 0};
    for (unsigned i = 0; i < req->nhdrs; i++) {
        if (!str_eq_ci(req->hdrs[i].name, name)) continue;
        struct str v = req->hdrs[i].value;
        *out = out->p ? pool_f(p, STR_FMT ", " STR_FMT, STR_ARG(*out), STR_ARG(v)) : pool_str(p, v);
        if (!out->p) return false;
    }
    return true;
}

/* The same comparison without memory: this is on the way of every hit of such an object. */
static bool request_value_is(const struct head *req, const struct hdr *want)
{
    struct str left = want->value;
    bool first = true;

    for (unsigned i = 0; i < req->nhdrs; i++) {
        if (req->hdrs[i].id != want->id || !str_eq_ci(req->hdrs[i].name, want->name)) continue;
        struct str v = req->hdrs[i].value;
        if (!first) {
            if (!str_starts(left, STR_LIT(", "))) return false;
            left = str_make(left.p + 2, left.n - 2);
        }
        if (!left.p || !str_starts(left, v)) return false;
        left = str_make(left.p + v.n, left.n - v.n);
        first = false;
    }
    return first ? want->value.p == NULL : left.n == 0;
}

/* The request's values of the fields that Vary names. */
static bool stored_vary(struct stored *s, const struct source *src)
{
    unsigned n = 0;
    struct str rest, member;

    for (unsigned i = 0; i < s->repr.nhdrs; i++)
        if (s->repr.hdrs[i].id == HDR_VARY)
            for (rest = s->repr.hdrs[i].value; hdr_list_next(&rest, &member);) n++;
    if (n == 0) return true;
    s->repr.vary = pool_alloc(s->pool, n * sizeof *s->repr.vary);
    if (!s->repr.vary) return false;
    for (unsigned i = 0; i < s->repr.nhdrs; i++) {
        if (s->repr.hdrs[i].id != HDR_VARY) continue;
        for (rest = s->repr.hdrs[i].value; hdr_list_next(&rest, &member);) {
            struct hdr *v = &s->repr.vary[s->repr.nvary++];
            v->name = member;
            v->id = hdr_id_of(member);
            if (!request_value(s->pool, &src->req, member, &v->value)) return false;
        }
    }
    return true;
}

static void freshness_set(struct repr *r, const struct cache_verdict *v, uint64_t now_ms)
{
    r->received_ms = now_ms;
    r->fresh_until_ms = v->fresh_ms > UINT64_MAX - now_ms ? UINT64_MAX : now_ms + v->fresh_ms;
    r->initial_age_s = v->initial_age_s;
    r->must_revalidate = v->must_revalidate;
    r->no_cache = v->no_cache;
    r->stale_if_error_ms = v->stale_if_error_s < 0 ? UINT64_MAX : (uint64_t)v->stale_if_error_s * 1000;
    r->validated_ns = clock_ns();
}

void repr_set_freshness(struct meta *m, const struct cache_verdict *v, uint64_t now_ms)
{
    freshness_set(m->user, v, now_ms);
}

/* A date is as good as a strong tag when it is well before the answer (RFC 9110 section 8.8.2.2). */
static void stored_validators(struct stored *s, const struct head *resp)
{
    s->repr.etag_strong = etag_is_strong(s->repr.etag);
    s->repr.last_modified_s = s->repr.last_modified.n ? date_parse(s->repr.last_modified) : -1;
    if (s->repr.etag.n || s->repr.last_modified_s < 0) return;
    int64_t date = date_parse(head_value(resp, HDR_DATE));
    if (date < 0 || date - s->repr.last_modified_s < 60) s->repr.last_modified = (struct str){NULL, 0};
}

static enum err stored_finish(struct stored *s, uint64_t size, struct meta **out)
{
    struct meta *m = calloc(1, sizeof *m);
    if (!m) return ERR_NOMEM;
    atomic_init(&m->refs, 1);
    m->size = size;
    m->bytes = sizeof *m + pool_bytes(s->pool);
    m->user = &s->repr;
    m->user_free = repr_free;
    *out = m;
    return ERR_OK;
}

/* Checksums that come with a part of an object may be that part's. */
static bool covers_object(const struct head *resp, uint64_t size)
{
    struct content_range cr;
    if (resp->status != 206) return true;
    if (content_range_parse(head_value(resp, HDR_CONTENT_RANGE), &cr) != ERR_OK || cr.unsatisfied) return false;
    return cr.first == 0 && cr.last + 1 == size;
}

enum err repr_create(const struct source *src, const struct head *resp, uint64_t size, const struct cache_verdict *v,
                     uint64_t now_ms, struct meta **out)
{
    struct stored *s;
    if (stored_create(fields_bytes(resp->hdrs, resp->nhdrs), &s) != ERR_OK) return ERR_NOMEM;
    bool ok = (s->repr.hdrs = pool_alloc(s->pool, (resp->nhdrs + 1) * sizeof *s->repr.hdrs)) != NULL;
    bool whole = covers_object(resp, size);
    for (unsigned i = 0; ok && i < resp->nhdrs; i++)
        if (is_stored(resp, &resp->hdrs[i]) && (whole || !is_checksum(resp->hdrs[i].name)))
            ok = stored_add(s, &resp->hdrs[i]);
    ok = ok && stored_vary(s, src);
    if (ok) {
        stored_validators(s, resp);
        freshness_set(&s->repr, v, now_ms);
        ok = stored_finish(s, size, out) == ERR_OK;
    }
    if (!ok) pool_destroy(s->pool);
    return ok ? ERR_OK : ERR_NOMEM;
}

static bool has_field(const struct hdr *hdrs, unsigned n, const struct hdr *h)
{
    for (unsigned i = 0; i < n; i++)
        if (str_eq_ci(hdrs[i].name, h->name)) return true;
    return false;
}

/* What belongs to the bytes that we have stays with them, whatever a 304 says of it (RFC 9111 section 3.2). */
static bool stays_with_bytes(const struct hdr *h)
{
    return h->id == HDR_ETAG || h->id == HDR_CONTENT_TYPE || h->id == HDR_CONTENT_ENCODING || h->id == HDR_CONTENT_MD5;
}

/* Does the update h replace what the old head says? */
static bool replaces(const struct head *resp, const struct hdr *h, const struct repr *o)
{
    if (!is_stored(resp, h)) return false;
    return !stays_with_bytes(h) || !has_field(o->hdrs, o->nhdrs, h);
}

enum err repr_refresh(const struct meta *old, const struct source *src, const struct head *resp, struct meta **out)
{
    const struct repr *o = repr_of(old);
    struct stored *s;

    unsigned most = o->nhdrs + (resp ? resp->nhdrs : 0) + 1;
    size_t bytes = fields_bytes(o->hdrs, o->nhdrs) + (resp ? fields_bytes(resp->hdrs, resp->nhdrs) : 0);

    if (stored_create(bytes, &s) != ERR_OK) return ERR_NOMEM;
    bool ok = (s->repr.hdrs = pool_alloc(s->pool, most * sizeof *s->repr.hdrs)) != NULL;
    for (unsigned i = 0; ok && i < o->nhdrs; i++) {
        const struct hdr *h = &o->hdrs[i];
        if (h->id == HDR_SET_COOKIE || h->id == HDR_CACHE_STATUS) continue; /* of the first answer only */
        bool replaced = resp && has_field(resp->hdrs, resp->nhdrs, h) && replaces(resp, h, o);
        if (!replaced) ok = stored_add(s, h);
    }
    for (unsigned i = 0; ok && resp && i < resp->nhdrs; i++)
        if (replaces(resp, &resp->hdrs[i], o)) ok = stored_add(s, &resp->hdrs[i]);
    ok = ok && stored_vary(s, src);
    if (ok) {
        s->repr.etag_strong = o->etag_strong;
        s->repr.last_modified_s = o->last_modified_s;
        s->repr.last_modified = o->last_modified.n ? s->repr.last_modified : o->last_modified;
        s->repr.checksums_asked = o->checksums_asked;
        s->repr.received_ms = o->received_ms;
        s->repr.fresh_until_ms = o->fresh_until_ms;
        s->repr.initial_age_s = o->initial_age_s;
        s->repr.must_revalidate = o->must_revalidate;
        s->repr.no_cache = o->no_cache;
        s->repr.stale_if_error_ms = o->stale_if_error_ms;
        s->repr.validated_ns = clock_ns();
        s->repr.stale = resp == NULL;
        ok = stored_finish(s, old->size, out) == ERR_OK;
    }
    if (!ok) pool_destroy(s->pool);
    return ok ? ERR_OK : ERR_NOMEM;
}

enum err repr_create_failure(const struct head *resp, struct str body, bool head_only, enum err err, struct meta **out)
{
    struct stored *s;
    unsigned n = resp ? resp->nhdrs : 0;
    if (stored_create(ROUNDED(body.n) + (resp ? fields_bytes(resp->hdrs, n) : 0), &s) != ERR_OK) return ERR_NOMEM;
    bool ok = (s->repr.hdrs = pool_alloc(s->pool, (n + 1) * sizeof *s->repr.hdrs)) != NULL;
    for (unsigned i = 0; ok && i < n; i++) {
        const struct hdr *h = &resp->hdrs[i];
        if (h->id == HDR_CONTENT_LENGTH || h->id == HDR_X_CACHE || hdr_is_hop_by_hop(resp, h)) continue;
        ok = stored_add(s, h);
        if (h->id == HDR_SET_COOKIE) s->repr.personal = true;
    }
    if (resp)
        s->repr.personal |= head_has_token(resp, HDR_CACHE_CONTROL, STR_LIT("private")) ||
                            head_has_token(resp, HDR_CACHE_CONTROL, STR_LIT("no-store"));
    s->repr.status = resp ? resp->status : 0;
    s->repr.err = err;
    s->repr.head_only = head_only;
    if (ok && body.n) {
        s->repr.body = pool_str(s->pool, body);
        ok = s->repr.body.p != NULL;
    }
    ok = ok && stored_finish(s, 0, out) == ERR_OK;
    if (!ok) pool_destroy(s->pool);
    return ok ? ERR_OK : ERR_NOMEM;
}

bool repr_matches(void *head, const struct meta *m)
{
    const struct repr *r = repr_of(m);
    const struct head *req = head;

    for (unsigned i = 0; i < r->nvary; i++)
        if (!request_value_is(req, &r->vary[i])) return false;
    return true;
}
