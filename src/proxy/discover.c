/* discover.c - the first question about an object: a ranged GET that is also the delivery of its first part.
 *
 * A discovery belongs to its worker. The request that started it (the leader) and all others wait on the object; when the
 * head of the answer has come, the object is published (or fails) and everyone wakes. The body goes on as a part.
 *
 *   answer                       | outcome
 *   206, 200 of known length     | object published, its body becomes a part (200 longer than a part: a sequential one)
 *   206 without good validators  | asked again for the whole: answers could not be told to be of one version
 *   200 of unknown length        | only the leader gets it, as it comes; the others ask for themselves
 *   not storable (RFC 9111)      | the leader gets a private object; the key is marked so that nobody waits in line for it
 *   304 to a validation          | the old object's head is refreshed; if its tag is another one: asked anew
 *   416                          | asked again by HEAD: an empty object, or a range past the end
 *   5xx, 429, broken connections | tried again with back-off, then stale if allowed, then the failure is everyone's
 *   other                        | the failure is everyone's, as it came
 *
 * While the call's body is not handed over it is the discovery's, and ends with it. */
#include <stdlib.h>

#include "base/log.h"
#include "http/cond.h"
#include "proxy/proxy.h"
#include "s3/error_xml.h"

#define CAPTURE_BYTES 65536u
#define JUNK_BYTES (1u << 20) /* of an error answer read to keep its connection */
#define PRIVATE_SHARE 4       /* of the memory: more than that is not shared if only one answer may fill it */
#define UNCACHEABLE_MS 10000

struct discovery {
    struct list link;
    struct worker *worker;
    struct source *src;
    struct request *leader;
    enum discovery_kind kind;
    struct object *object; /* NEW */
    struct object *old;
    struct meta *old_meta;
    struct upcall *call;
    struct origin_request req;
    struct hdr *hdrs;
    bool unconditional;  /* even if there is an old version */
    bool by_head, whole; /* HEAD; GET without a range */
    uint64_t first, last;
    uint64_t fresh_for_ms, stale_if_error_ms, started_ns;
    struct retry retry;
    struct timer timer;
    /* an error answer being read */
    unsigned status;
    struct meta *failure_head;
    char *capture;
    size_t captured;
    uint64_t junk;
    int64_t retry_after_s;
};

static void discovery_submit(struct discovery *d);
static void discovery_failed(struct discovery *d, enum err e);
static void discovery_pass_on(struct discovery *d);

static const struct origin_conf *discovery_conf(const struct discovery *d)
{
    return origin_conf(origin_worker_origin(d->src->origin));
}

static struct object *discovery_waited_on(const struct discovery *d) { return d->old ? d->old : d->object; }

static void discovery_free(struct discovery *d)
{
    timer_stop(&d->timer);
    upcall_cancel(d->call);
    if (d->leader) d->leader->discovery = NULL;
    list_remove(&d->link);
    object_unref(d->object);
    object_unref(d->old);
    meta_unref(d->old_meta);
    meta_unref(d->failure_head);
    source_unref(d->src);
    free(d->capture);
    free(d);
}

/* Ends without an answer that anybody can use: those who wait look again. */
static void discovery_abandon(struct discovery *d)
{
    if (d->object && object_state(d->object) == OBJECT_NEW) object_fail(d->object, NULL);
    if (d->old) object_validate_end(d->old, NULL);
    discovery_free(d);
}

/* ---- failure */

static bool discovery_may_serve_stale(const struct discovery *d)
{
    if (d->kind != VALIDATE) return false;
    const struct repr *r = repr_of(d->old_meta);
    if (r->must_revalidate || r->no_cache) return false;
    uint64_t allowed = r->stale_if_error_ms != UINT64_MAX ? r->stale_if_error_ms : d->stale_if_error_ms;
    uint64_t now = loop_now_ms(d->worker->loop);
    return allowed > 0 && (now < r->fresh_until_ms || now - r->fresh_until_ms <= allowed);
}

/* Everyone who waits gets this. Takes the reference. */
static void discovery_tell_failure(struct discovery *d, struct meta *failure)
{
    if (d->old) {
        if (d->leader && failure) d->leader->failed = meta_ref(failure);
        if (d->kind == VALIDATE && object_state(d->object) == OBJECT_NEW) object_fail(d->object, NULL);
        object_validate_end(d->old, NULL);
        meta_unref(failure);
    } else {
        object_fail(d->object, failure);
    }
    discovery_free(d);
}

static void discovery_give_up(struct discovery *d, enum err e)
{
    struct meta *failure = NULL, *same = NULL;
    bool server_side = d->status == 0 || d->status >= 500 || d->status == 429;

    if (server_side && discovery_may_serve_stale(d) &&
        repr_refresh(d->old_meta, d->src, NULL, &same) == ERR_OK) {
        if (d->leader) d->leader->result = RESULT_STALE;
        object_fail(d->object, NULL);
        object_validate_end(d->old, same);
        discovery_free(d);
        return;
    }
    if (d->kind == CHECKSUMS && server_side) { /* the object itself is fine: go on without */
        object_validate_end(d->old, NULL);
        if (d->leader) d->leader->asked_checksums = true;
        discovery_free(d);
        return;
    }
    if (d->old && !server_side) object_drop(d->old);
    if (d->failure_head && d->junk >= CAPTURE_BYTES) {
        discovery_pass_on(d);
        return;
    }
    if (d->failure_head) {
        const struct repr *h = repr_of(d->failure_head);
        struct head head = {.status = d->status, .hdrs = h->hdrs, .nhdrs = h->nhdrs};
        repr_create_failure(&head, str_make(d->capture, d->capture ? d->captured : 0), d->by_head, ERR_OK, &failure);
    } else {
        repr_create_failure(NULL, (struct str){NULL, 0}, false, e == ERR_OK ? ERR_NOMEM : e, &failure);
    }
    discovery_tell_failure(d, failure);
}

static void discovery_failed(struct discovery *d, enum err e)
{
    uint64_t delay_ms;
    struct object *o = discovery_waited_on(d);
    bool wanted = d->leader || object_has_waiters(o);
    struct str code = d->status && d->capture ? error_xml_code(str_make(d->capture, d->captured)) : (struct str){NULL, 0};

    if (wanted && retry_next(&d->retry, &d->worker->budgets[d->src->origin_index], discovery_conf(d),
                             d->status ? ERR_OK : e, d->status, code, d->retry_after_s, 0, &delay_ms)) {
        log_info("GET " STR_FMT ": %s (status %u), trying again in %llu ms", STR_ARG(d->src->path), err_text(e),
                 d->status, (unsigned long long)delay_ms);
        stat_add(&origin_worker_stats(d->src->origin)->retries, 1);
        timer_set(&d->timer, delay_ms);
        return;
    }
    discovery_give_up(d, e);
}

/* ---- success */

static void discovery_judge(const struct discovery *d, const struct head *resp, struct cache_verdict *v)
{
    cache_judge(&d->src->req, resp, d->src->authorized, d->fresh_for_ms, (int64_t)(wallclock_ms() / 1000),
                (clock_ns() - d->started_ns) / 1000000, v);
}

/* The body that is coming becomes a part of its object, or ends here when there is none. */
static void discovery_hand_over(struct discovery *d, struct adoption *a)
{
    a->call = d->call;
    if (a->end > a->start && part_adopt(d->leader ? &d->leader->fetch : NULL, a) == ERR_OK) {
        d->call = NULL;
        return;
    }
    if (a->stream) object_stream_end(a->object, a->stream);
    for (unsigned i = 0; i < a->n; i++) {
        slice_fail(a->slices[i], ERR_AGAIN);
        slice_unref(a->slices[i]);
    }
}

/* What is claimed of the body's slices before anybody sees the object, so that nobody asks for the same bytes: all, or of a
 * stream longer than a part the first. A range part ends where memory did. What nothing ties to another answer has its one
 * stream now: if this was a HEAD, whoever wants the body must ask anew. */
static enum err discovery_publish(struct discovery *d, struct meta *m, struct adoption *a)
{
    struct object *o = a->object;
    uint64_t ss = object_slice_bytes(o), length = a->end - a->start;
    bool once = !repr_joinable(repr_of(m)), large = length > discovery_conf(d)->part_bytes;
    uint64_t want = length == 0 ? 0 : large ? 1 : (a->end - 1) / ss - a->start / ss + 1;

    if (once || large) object_set_sequential(o, once);
    if (once || large) a->stream = object_stream_first(o, a->start / ss);
    a->n = want < MAX_RUN ? (unsigned)want : MAX_RUN;
    enum err e = object_publish(o, m, a->start / ss, &a->n, a->slices);
    if (e == ERR_OK && !a->stream && a->n < want) {
        a->end = a->n ? (a->start / ss + a->n) * ss : a->start;
        a->longer = true;
    }
    return e;
}

/* It is to be shared. */
static void discovery_share(struct discovery *d, struct meta *m, uint64_t start, uint64_t end)
{
    struct adoption a = {.source = d->src, .object = d->object, .start = start, .end = end};

    if (discovery_publish(d, m, &a) != ERR_OK) {
        meta_unref(m);
        discovery_give_up(d, ERR_NOMEM);
        return;
    }
    discovery_hand_over(d, &a);
    if (d->old) object_validate_end(d->old, NULL);
    discovery_free(d);
}

/* Not to be shared: the leader gets an object of its own, the key is marked. */
static void discovery_private(struct discovery *d, struct meta *m, uint64_t start, uint64_t end)
{
    struct adoption a = {.source = d->src, .start = start, .end = end};
    enum err e = ERR_OK;

    if (d->old) object_drop(d->old);
    if (!d->leader) {
        meta_unref(m);
        discovery_abandon(d);
        return;
    }
    if (object_indexed(d->object))
        e = object_create_private(d->leader->cache, &d->leader->key, &a.object);
    else /* private already, or a successor */
        a.object = object_ref(d->object);
    if (e == ERR_OK) e = discovery_publish(d, m, &a);
    if (e != ERR_OK) {
        meta_unref(m);
        object_unref(a.object);
        discovery_give_up(d, ERR_NOMEM);
        return;
    }
    d->leader->handed = a.object;
    discovery_hand_over(d, &a);
    if (a.object != d->object) object_mark_uncacheable(d->object, loop_now_ms(d->worker->loop), UNCACHEABLE_MS);
    if (d->old) object_validate_end(d->old, NULL);
    discovery_free(d);
}

/* The leader goes its own way, and nobody is to wait in line for this key. The call, if it is still there, is the
 * caller's. */
static struct request *discovery_dissolve(struct discovery *d)
{
    struct request *r = d->leader;

    r->discovery = NULL;
    d->leader = NULL;
    waiter_cancel(r->waiter);
    if (d->old) {
        object_drop(d->old);
        object_validate_end(d->old, NULL);
    }
    if (d->object && object_indexed(d->object))
        object_mark_uncacheable(d->object, loop_now_ms(d->worker->loop), UNCACHEABLE_MS);
    else if (d->object && object_state(d->object) == OBJECT_NEW)
        object_fail(d->object, NULL);
    discovery_free(d);
    return r;
}

/* The answer as it comes, to the leader alone. */
static void discovery_stream(struct discovery *d, const struct head *resp, int64_t length)
{
    struct upcall *call = d->call;

    if (!d->leader) {
        discovery_abandon(d);
        return;
    }
    d->call = NULL;
    pass_adopt(discovery_dissolve(d), resp, length, call);
}

/* An error answer too long to keep for everyone: the leader asks past the cache. */
static void discovery_pass_on(struct discovery *d)
{
    upcall_cancel(d->call);
    d->call = NULL;
    if (d->leader)
        pass_start(discovery_dissolve(d));
    else
        discovery_abandon(d);
}

static enum err discovery_extent(const struct discovery *d, const struct head *resp, int64_t length, uint64_t *size,
                                 uint64_t *start, uint64_t *end)
{
    struct content_range cr;

    *start = *end = 0;
    if (resp->status == 206) {
        if (content_range_parse(head_value(resp, HDR_CONTENT_RANGE), &cr) != ERR_OK || cr.unsatisfied ||
            cr.size == UINT64_MAX || cr.first != d->first || cr.last >= cr.size || cr.last > d->last || d->by_head || d->whole ||
            (cr.last != d->last && cr.last != cr.size - 1) ||
            (length >= 0 && (uint64_t)length != cr.last - cr.first + 1))
            return ERR_PROTOCOL;
        *size = cr.size;
        *start = cr.first;
        *end = cr.last + 1;
        return ERR_OK;
    }
    int64_t n = d->by_head ? resp->content_length : length;
    if (n < 0) return ERR_NOT_SUPPORTED;
    *size = (uint64_t)n;
    if (!d->by_head) *end = (uint64_t)n;
    return ERR_OK;
}

/* Asks for it in another way. */
static void discovery_again(struct discovery *d, bool by_head, bool whole)
{
    upcall_cancel(d->call);
    d->call = NULL;
    d->by_head = by_head;
    d->whole = whole;
    discovery_submit(d);
}

/* The head says what the object is, of which bytes [start, end) are coming. */
static void discovery_learnt(struct discovery *d, const struct head *resp, struct meta *m, bool storable, uint64_t start,
                             uint64_t end)
{
    struct repr *r = m->user;
    bool whole = start == 0 && end == m->size, once = !repr_joinable(r);

    if (once && (d->by_head ? d->leader && !d->leader->head_only : !whole)) {
        meta_unref(m);
        discovery_again(d, false, true);
        return;
    }
    r->checksums_asked = d->by_head || whole;
    if (d->leader) d->leader->fwd_status = resp->status;
    /* Readers of different speed could not share what does not stay: those left behind could not ask for it again. */
    if (!storable || (once && m->size > object_capacity(d->object) / PRIVATE_SHARE))
        discovery_private(d, m, start, end);
    else
        discovery_share(d, m, start, end);
}

static void discovery_found(struct discovery *d, const struct head *resp, int64_t length)
{
    uint64_t size, start, end;
    struct cache_verdict v;
    struct meta *m;
    enum err e = discovery_extent(d, resp, length, &size, &start, &end);

    if (e == ERR_NOT_SUPPORTED) {
        if (d->by_head && d->leader && !d->leader->head_only)
            discovery_again(d, false, true); /* HEAD did not tell the length, and there is a body to come */
        else
            discovery_stream(d, resp, length);
        return;
    }
    if (e == ERR_OK) {
        discovery_judge(d, resp, &v);
        e = repr_create(d->src, resp, size, &v, loop_now_ms(d->worker->loop), &m);
    }
    if (e != ERR_OK) {
        upcall_cancel(d->call);
        d->call = NULL;
        discovery_failed(d, e);
        return;
    }
    discovery_learnt(d, resp, m, v.storable, start, end);
}

/* Freshness of a validated representation follows the stored fields with the 304's over them. */
static bool discovery_judge_refreshed(const struct discovery *d, struct meta *m, const struct head *resp,
                                      struct cache_verdict *v)
{
    const struct repr *r = repr_of(m);
    struct hdr *all = malloc((r->nhdrs + 2) * sizeof *all);
    struct head merged = {.status = 200, .hdrs = all, .content_length = -1};

    if (!all) {
        meta_unref(m);
        return false;
    }
    for (unsigned i = 0; i < r->nhdrs; i++) all[merged.nhdrs++] = r->hdrs[i];
    const struct hdr *date = head_find(resp, HDR_DATE), *age = head_find(resp, HDR_AGE);
    if (date) all[merged.nhdrs++] = *date;
    if (age) all[merged.nhdrs++] = *age;
    discovery_judge(d, &merged, v);
    free(all);
    return true;
}

/* A 304 with a strong tag that is not the stored one is about another representation (RFC 9111 section 4.3.4). */
static bool is_about_another(const struct repr *old, const struct head *resp)
{
    struct str tag = head_value(resp, HDR_ETAG);
    return old->etag_strong && etag_is_strong(tag) && !str_eq(tag, old->etag);
}

static void discovery_not_modified(struct discovery *d, const struct head *resp)
{
    struct cache_verdict v;
    struct meta *m;

    upcall_cancel(d->call);
    d->call = NULL;
    if (d->kind != VALIDATE) {
        discovery_failed(d, ERR_PROTOCOL);
        return;
    }
    if (is_about_another(repr_of(d->old_meta), resp)) {
        object_drop(d->old);
        discovery_abandon(d);
        return;
    }
    if (repr_refresh(d->old_meta, d->src, resp, &m) != ERR_OK || !discovery_judge_refreshed(d, m, resp, &v)) {
        discovery_give_up(d, ERR_NOMEM);
        return;
    }
    repr_set_freshness(m, &v, loop_now_ms(d->worker->loop));
    if (d->leader) {
        d->leader->result = RESULT_REVALIDATED;
        d->leader->fwd_status = 304;
    }
    object_fail(d->object, NULL);
    object_validate_end(d->old, m);
    discovery_free(d);
}

/* The HEAD that asked for checksums has come. */
static void discovery_checksums(struct discovery *d, const struct head *resp)
{
    struct meta *m = NULL;
    const struct repr *old = repr_of(d->old_meta);
    bool same = str_eq(old->etag, head_value(resp, HDR_ETAG)) && resp->content_length == (int64_t)d->old_meta->size;

    upcall_cancel(d->call);
    d->call = NULL;
    if (!same) {
        object_drop(d->old); /* another version by now: those who wait ask anew */
    } else if (repr_refresh(d->old_meta, d->src, resp, &m) == ERR_OK) {
        ((struct repr *)m->user)->checksums_asked = true;
    }
    if (d->leader) d->leader->asked_checksums = true;
    object_validate_end(d->old, m);
    discovery_free(d);
}

/* ---- events */

static void discovery_capture_begin(struct discovery *d, const struct head *resp)
{
    uint64_t s;

    d->status = resp->status;
    d->captured = 0;
    d->junk = 0;
    d->retry_after_s = str_to_u64(head_value(resp, HDR_RETRY_AFTER), &s) && s < 3600 ? (int64_t)s : -1;
    meta_unref(d->failure_head);
    d->failure_head = NULL;
    repr_create_failure(resp, (struct str){NULL, 0}, d->by_head, ERR_OK, &d->failure_head);
    if (!d->capture) d->capture = malloc(CAPTURE_BYTES);
}

static void discovery_head(void *arg, const struct head *resp, int64_t length)
{
    struct discovery *d = arg;

    if (resp->status == 200 || resp->status == 206) {
        if (d->kind == CHECKSUMS)
            discovery_checksums(d, resp);
        else
            discovery_found(d, resp, length);
    } else if (resp->status == 304) {
        discovery_not_modified(d, resp);
    } else if (resp->status == 416 && !d->by_head && !d->whole) {
        discovery_again(d, true, false);
    } else {
        discovery_capture_begin(d, resp);
        if (!d->capture) discovery_give_up(d, ERR_NOMEM);
    }
}

static unsigned discovery_space(void *arg, struct iovec *iov, unsigned max)
{
    struct discovery *d = arg;

    (void)max;
    if (d->captured == CAPTURE_BYTES) d->captured = 0; /* too long to keep: read on only to keep the connection */
    iov->iov_base = d->capture + d->captured;
    iov->iov_len = CAPTURE_BYTES - d->captured;
    return 1;
}

static void discovery_filled(void *arg, size_t n)
{
    struct discovery *d = arg;

    d->captured += n;
    d->junk += n;
    if (d->captured == CAPTURE_BYTES && !(d->status >= 500 || d->status == 429)) {
        discovery_pass_on(d);
        return;
    }
    if (d->junk <= JUNK_BYTES) return;
    upcall_cancel(d->call);
    d->call = NULL;
    discovery_failed(d, ERR_OK);
}

static void discovery_end(void *arg, enum err why)
{
    struct discovery *d = arg;

    d->call = NULL;
    if (why != ERR_OK) {
        d->status = 0;
        meta_unref(d->failure_head);
        d->failure_head = NULL;
    }
    discovery_failed(d, why);
}

static const struct client_events discovery_events = {discovery_head, discovery_space, discovery_filled, discovery_end};

/* ---- asking */

static void discovery_conditions(struct discovery *d, unsigned *n)
{
    if (d->kind != VALIDATE || d->unconditional) return;
    const struct repr *r = repr_of(d->old_meta);
    if (r->etag.n)
        d->hdrs[(*n)++] = (struct hdr){STR_LIT("If-None-Match"), r->etag, HDR_IF_NONE_MATCH};
    if (r->last_modified.n)
        d->hdrs[(*n)++] = (struct hdr){STR_LIT("If-Modified-Since"), r->last_modified, HDR_IF_MODIFIED_SINCE};
}

static void discovery_submit(struct discovery *d)
{
    unsigned n = d->src->nhdrs;

    d->status = 0;
    d->retry_after_s = -1;
    d->started_ns = clock_ns();
    if (n) memcpy(d->hdrs, d->src->hdrs, n * sizeof d->hdrs[0]);
    if (discovery_conf(d)->type == ORIGIN_S3)
        d->hdrs[n++] = (struct hdr){STR_LIT("x-amz-checksum-mode"), STR_LIT("ENABLED"), HDR_AMZ_CHECKSUM_MODE};
    discovery_conditions(d, &n);
    d->req = (struct origin_request){.method = d->by_head ? METHOD_HEAD : METHOD_GET,
                                     .method_text = d->by_head ? STR_LIT("HEAD") : STR_LIT("GET"),
                                     .address = d->src->address, .path = d->src->path, .query = d->src->query,
                                     .hdrs = d->hdrs, .nhdrs = n, .has_range = !d->by_head && !d->whole,
                                     .first = d->first, .last = d->last};
    retry_budget_request(&d->worker->budgets[d->src->origin_index]);
    enum err e = upcall_start(d->src->origin, &d->req, &discovery_events, d, &d->call);
    if (e != ERR_OK) discovery_give_up(d, e);
}

static void discovery_retry(struct timer *t) { discovery_submit(container_of(t, struct discovery, timer)); }

/* Whole slices around what the client wants, at most a part; by HEAD when the end is counted from. */
static void discovery_span(struct discovery *d, const struct request *r)
{
    uint64_t ss = r->conf->caches[r->cache_index].slice_bytes, part = discovery_conf(d)->part_bytes;
    const struct range *g = &r->range;

    d->by_head = d->kind == CHECKSUMS || r->head_only || g->kind == RANGE_SUFFIX;
    if (g->kind == RANGE_FROM || g->kind == RANGE_SPAN) d->first = g->first / ss * ss;
    if (d->first > INT64_MAX / 2) d->by_head = true;
    d->last = d->first + part - 1;
    if (g->kind == RANGE_SPAN && g->last >= g->first && g->last < d->last) d->last = (g->last / ss + 1) * ss - 1;
}

enum err discovery_start(struct request *r, enum discovery_kind kind, struct object *o, struct object *old)
{
    enum err e = request_make_source(r);
    struct discovery *d = e == ERR_OK ? calloc(1, sizeof *d + (r->source->nhdrs + 4) * sizeof d->hdrs[0]) : NULL;

    if (!d) return ERR_NOMEM;
    d->hdrs = (struct hdr *)(d + 1);
    d->worker = r->worker;
    d->kind = kind;
    d->unconditional = r->refresh;
    d->src = source_ref(r->source);
    d->object = o ? object_ref(o) : NULL;
    d->old = old ? object_ref(old) : NULL;
    d->old_meta = old ? object_meta(old) : NULL;
    d->fresh_for_ms = r->conf->caches[r->cache_index].fresh_for_ms;
    d->stale_if_error_ms = r->conf->caches[r->cache_index].stale_if_error_ms;
    d->leader = r;
    r->discovery = d;
    discovery_span(d, r);
    timer_init(&d->timer, r->worker->loop, discovery_retry);
    list_push_back(&r->worker->discoveries, &d->link);
    discovery_submit(d);
    return ERR_OK;
}

void discovery_leader_left(struct discovery *d)
{
    d->leader = NULL;
    if (!object_has_waiters(discovery_waited_on(d))) discovery_abandon(d);
}

void worker_cancel_discoveries(struct worker *w)
{
    while (!list_empty(&w->discoveries)) {
        struct discovery *d = container_of(list_first(&w->discoveries), struct discovery, link);
        discovery_abandon(d);
    }
}
