/* serve.c - a known object answers a GET or HEAD: preconditions, range, head, then the body by deliver.c. */
#include "http/cond.h"
#include "proxy/proxy.h"

struct answer {
    unsigned status;
    uint64_t first, last, length;
    bool whole;
};

static bool is_checksum_field(struct str name)
{
    struct str prefix = STR_LIT("x-amz-checksum-");
    return name.n > prefix.n && str_eq_ci(str_make(name.p, prefix.n), prefix);
}

static bool is_for_304(const struct hdr *h)
{
    switch (h->id) {
    case HDR_ETAG:
    case HDR_LAST_MODIFIED:
    case HDR_CACHE_CONTROL:
    case HDR_EXPIRES:
    case HDR_VARY:
    case HDR_VIA: return true;
    case HDR_OTHER: return str_eq_ci(h->name, STR_LIT("content-location"));
    default: return false;
    }
}

/* Current age (RFC 9111 section 4.2.3), in seconds. */
static enum err serve_age(struct request *r, const struct repr *m)
{
    uint64_t now = loop_now_ms(r->worker->loop);
    uint64_t age = m->initial_age_s + (now > m->received_ms ? (now - m->received_ms) / 1000 : 0);
    /* The field says that the origin was not asked for this answer (section 5.1). */
    bool asked = r->result == RESULT_MISS || r->result == RESULT_BYPASS || r->result == RESULT_REVALIDATED;
    if (asked && age == 0) return ERR_OK;
    char *buf = pool_alloc(r->x->pool, 20);
    return buf ? respond_header(r, STR_LIT("Age"), str_make(buf, u64_to_dec(age, buf))) : ERR_NOMEM;
}

/* A cookie is for who caused the answer, never for those who get it from the cache; and other caches were asked only then. */
static bool serve_has_field(const struct request *r, const struct answer *a, const struct hdr *h)
{
    if (a->status == 304) return is_for_304(h);
    if (h->id == HDR_SET_COOKIE || h->id == HDR_CACHE_STATUS)
        return r->leader && (r->result == RESULT_MISS || r->result == RESULT_BYPASS);
    return a->whole || !is_checksum_field(h->name);
}

static enum err serve_fields(struct request *r, const struct answer *a)
{
    const struct repr *m = repr_of(r->meta);
    enum err e = ERR_OK;

    if (r->cap_hdrs < m->nhdrs + 12) {
        r->cap_hdrs = m->nhdrs + 12;
        r->hdrs = pool_alloc(r->x->pool, r->cap_hdrs * sizeof *r->hdrs);
        if (!r->hdrs) return ERR_NOMEM;
    }
    for (unsigned i = 0; e == ERR_OK && i < m->nhdrs; i++) {
        if (!serve_has_field(r, a, &m->hdrs[i])) continue;
        e = respond_header(r, m->hdrs[i].name, m->hdrs[i].value);
    }
    if (e == ERR_OK && a->status != 304) e = respond_header(r, STR_LIT("Accept-Ranges"), STR_LIT("bytes"));
    if (e == ERR_OK && a->status == 206) {
        struct str cr = pool_f(r->x->pool, "bytes %llu-%llu/%llu", (unsigned long long)a->first,
                               (unsigned long long)a->last, (unsigned long long)r->meta->size);
        e = cr.p ? respond_header(r, STR_LIT("Content-Range"), cr) : ERR_NOMEM;
    }
    if (e == ERR_OK) e = serve_age(r, m);
    if (e == ERR_OK) e = respond_header(r, STR_LIT("x-amz-request-id"), str_c(r->id_text));
    if (e == ERR_OK) respond_cache_headers(r);
    return e;
}

static void serve_count(struct request *r, uint64_t length)
{
    struct worker_stats *s = &r->worker->stats;
    unsigned c = (unsigned)r->cache_index;
    bool hit = r->result == RESULT_HIT || r->result == RESULT_REVALIDATED || r->result == RESULT_STALE;

    if (r->x->inner) return;
    stat_add(&s->per_cache_lookups[c], 1);
    stat_add(&s->per_cache_bytes[c], length);
    if (hit) {
        stat_add(&s->per_cache_hits[c], 1);
        stat_add(&s->per_cache_hit_bytes[c], length);
    }
}

static void serve_label(struct request *r)
{
    if (r->result == RESULT_NONE) r->result = r->leader ? RESULT_MISS : RESULT_HIT;
}

/* Half a head must not get into the error's. */
static void serve_no_memory(struct request *r)
{
    r->nhdrs = 0;
    request_fail(r, ERR_NOMEM);
}

static void serve_without_body(struct request *r, const struct answer *a)
{
    serve_label(r);
    serve_count(r, 0);
    if (serve_fields(r, a) != ERR_OK) {
        serve_no_memory(r);
        return;
    }
    respond_send(r, a->status, a->status == 304 ? -1 : (int64_t)a->length, NULL);
}

static void serve_unsatisfiable(struct request *r)
{
    serve_label(r);
    serve_count(r, 0);
    struct str cr = pool_f(r->x->pool, "bytes */%llu", (unsigned long long)r->meta->size);
    if (cr.p) respond_header(r, STR_LIT("Content-Range"), cr);
    request_fail(r, ERR_RANGE);
}

/* The body's first bytes are there (or never will be): only now the head goes out, so that until here a changed object
 * can be asked for anew and a failure can be told as one. */
static void serve_primed(struct request *r, enum err e)
{
    if (e != ERR_OK) {
        deliver_destroy(r->deliver);
        r->deliver = NULL;
        if (e == ERR_CHANGED)
            request_restart(r);
        else
            request_fail(r, e);
        return;
    }
    const struct body *b = deliver_body(r->deliver);
    struct answer a = {.status = 200, .length = (uint64_t)b->length, .whole = (uint64_t)b->length == r->meta->size};
    uint64_t first, last;
    if (r->range.kind != RANGE_NONE && range_resolve(&r->range, r->meta->size, &first, &last) == ERR_OK)
        a = (struct answer){.status = 206, .first = first, .last = last, .length = last - first + 1};
    serve_count(r, a.length);
    if (serve_fields(r, &a) != ERR_OK) {
        serve_no_memory(r);
        return;
    }
    respond_send(r, a.status, (int64_t)a.length, deliver_body(r->deliver));
}

/* Clients that want checksums get them on whole objects: if the entry was made without, the origin is asked once. */
static bool serve_needs_checksums(struct request *r)
{
    const struct repr *m = repr_of(r->meta);
    struct str mode = head_value(&r->x->req, HDR_AMZ_CHECKSUM_MODE);

    if (r->asked_checksums || m->checksums_asked || r->range.kind != RANGE_NONE) return false;
    return str_eq_ci(mode, STR_LIT("ENABLED")) && r->conf->origins[r->origin_index].type == ORIGIN_S3;
}

static bool serve_ask_checksums(struct request *r)
{
    r->asked_checksums = true; /* once is enough, whoever it was who asked */
    if (!object_validate_begin(r->object)) return object_wait(r->object, r->waiter);
    if (discovery_start(r, CHECKSUMS, NULL, r->object) != ERR_OK) {
        object_validate_end(r->object, NULL);
        return false;
    }
    return object_wait(r->object, r->waiter);
}

static bool serve_has_bytes(struct request *r, const struct answer *a)
{
    uint64_t ss = object_slice_bytes(r->object), ready, absent;
    object_count(r->object, a->first / ss, a->last / ss, &ready, &absent);
    return ready == a->last / ss - a->first / ss + 1;
}

void serve_object(struct request *r)
{
    const struct repr *m = repr_of(r->meta);
    struct answer a = {.status = 200, .length = r->meta->size, .whole = true};

    switch (cond_check(&r->x->req, m->etag, m->last_modified_s)) {
    case COND_NOT_MODIFIED: a.status = 304; serve_without_body(r, &a); return;
    case COND_FAILED:
        serve_label(r);
        serve_count(r, 0);
        request_fail(r, ERR_PRECONDITION);
        return;
    case COND_PASS: break;
    }
    if (!cond_if_range(&r->x->req, m->etag, m->last_modified_s)) r->range.kind = RANGE_NONE;
    if (!r->asked.only_if_cached && serve_needs_checksums(r) && serve_ask_checksums(r)) return;
    if (r->range.kind != RANGE_NONE) {
        if (range_resolve(&r->range, r->meta->size, &a.first, &a.last) != ERR_OK) {
            serve_unsatisfiable(r);
            return;
        }
        a = (struct answer){206, a.first, a.last, a.last - a.first + 1, a.last - a.first + 1 == r->meta->size};
    } else {
        a.last = r->meta->size - 1;
    }
    if (r->head_only || a.length == 0) {
        serve_without_body(r, &a);
        return;
    }
    if (r->asked.only_if_cached && !serve_has_bytes(r, &a)) {
        request_not_cached(r);
        return;
    }
    enum err e = deliver_create(r, a.first, a.last, &r->deliver);
    if (e != ERR_OK)
        request_fail(r, e);
    else
        deliver_prime(r->deliver, serve_primed);
}
