/* fetch.c - parts: runs of missing slices on their way from the origin into the cache.
 *
 * A part belongs to its worker and to nobody else: it holds the object, leases of the slices it fills and what it takes to
 * ask again (struct source). The request that caused it only counts it against its window; when that request ends, the
 * part goes on alone. What comes is read straight into the slices' memory. A failed part resumes at its position on
 * another connection as long as retry.h allows; every answer is checked against the object's identity, so bytes of two
 * versions cannot meet.
 *
 *   slices[i]  | meaning
 *   a lease    | claimed: ours to fill
 *   NULL       | filled and given away (before pos), or not claimed (after pos): claimed when the stream gets there; if
 *              | somebody else has it by then, its bytes are read and dropped */
#include <stdlib.h>

#include "base/log.h"
#include "proxy/proxy.h"

#define SCRATCH_BYTES 65536u
#define PAUSE_MS 10
#define SPACE_BYTES (4u << 20)

struct part {
    struct list link, fetch_link;
    struct worker *worker;
    struct source *src;
    struct object *object;
    struct meta *meta;
    struct fetch *fetch;
    struct upcall *call;
    struct origin_request req;
    uint64_t start, end, pos;
    uint64_t skip;      /* bytes of the present answer before pos: a 200 to a ranged request */
    uint64_t first_index;
    unsigned nslices;
    bool filler;        /* the object's one sequential filler */
    bool longer;        /* the present answer goes on after `end`: it is cut off there */
    bool drop_slice;    /* the slice at pos is somebody else's: drop its bytes */
    bool paused;        /* space() gave nothing */
    unsigned bad_status; /* an error answer is being read to its end */
    int64_t retry_after_s;
    struct retry retry;
    struct timer timer;
    bool waiting_retry;
    uint64_t pos_at_try, started_ns, first_byte_us;
    uint8_t *scratch;
    struct slice *slices[];
};

static void part_submit(struct part *p);
static void part_failed(struct part *p, enum err e, unsigned status);
static const struct client_events part_events;

static struct slice **part_slot(struct part *p)
{
    return &p->slices[p->pos / object_slice_bytes(p->object) - p->first_index];
}

static void part_free(struct part *p)
{
    timer_stop(&p->timer);
    if (p->filler) object_filler_end(p->object);
    list_remove(&p->link);
    list_remove(&p->fetch_link);
    object_unref(p->object);
    meta_unref(p->meta);
    source_unref(p->src);
    free(p->scratch);
    free(p);
}

/* Nothing more comes from this part: what it claimed and did not fill goes back, with the reason for those who wait. */
static void part_finish(struct part *p, enum err e)
{
    struct fetch *f = p->fetch;

    upcall_cancel(p->call);
    p->call = NULL;
    for (unsigned i = 0; i < p->nslices; i++) {
        if (!p->slices[i]) continue;
        slice_fail(p->slices[i], e == ERR_OK ? ERR_AGAIN : e);
        slice_unref(p->slices[i]);
        p->slices[i] = NULL;
    }
    part_free(p);
    if (f) {
        f->in_flight--;
        if (f->request->deliver) deliver_part_ended(f->request->deliver);
    }
}

static void part_resume_timer(struct timer *t)
{
    struct part *p = container_of(t, struct part, timer);

    if (p->waiting_retry) {
        p->waiting_retry = false;
        part_submit(p);
    } else if (p->paused && p->call) {
        p->paused = false;
        if (p->filler && !p->fetch && !object_has_readers(p->object)) {
            part_finish(p, ERR_CANCELLED);
            return;
        }
        upcall_resume(p->call);
    }
}

static unsigned part_pause(struct part *p)
{
    p->paused = true;
    timer_set(&p->timer, PAUSE_MS);
    return 0;
}

static unsigned part_scratch(struct part *p, struct iovec *iov, uint64_t bytes)
{
    if (!p->scratch) p->scratch = malloc(SCRATCH_BYTES);
    if (!p->scratch) return part_pause(p);
    iov->iov_base = p->scratch;
    iov->iov_len = bytes < SCRATCH_BYTES ? (size_t)bytes : SCRATCH_BYTES;
    return 1;
}

/* Makes sure the slice at pos is ours or known to be somebody else's; false: no memory now. */
static bool part_ready_slice(struct part *p)
{
    struct slice **s = part_slot(p);
    uint32_t ss = object_slice_bytes(p->object);

    if (*s || p->drop_slice) return true;
    switch (object_claim(p->object, p->pos / ss, true, object_has_readers(p->object), s)) {
    case ERR_OK: return true;
    case ERR_AGAIN: p->drop_slice = true; return true;
    default: return false;
    }
}

static bool part_too_far_ahead(const struct part *p)
{
    if (!p->filler) return false;
    uint64_t horizon = object_furthest_reader(p->object) + origin_conf(origin_worker_origin(p->src->origin))->read_ahead_bytes;
    return p->pos > horizon && p->pos % object_slice_bytes(p->object) == 0;
}

static unsigned part_space(void *arg, struct iovec *iov, unsigned max)
{
    struct part *p = arg;
    uint32_t ss = object_slice_bytes(p->object);
    unsigned n = 0;
    size_t total = 0;

    if (p->bad_status) return part_scratch(p, iov, SCRATCH_BYTES);
    if (p->skip) return part_scratch(p, iov, p->skip);
    if (part_too_far_ahead(p) || !part_ready_slice(p)) return part_pause(p);
    if (p->drop_slice) {
        uint64_t next = (p->pos / ss + 1) * ss;
        return part_scratch(p, iov, (next < p->end ? next : p->end) - p->pos);
    }
    for (uint64_t off = p->pos; off < p->end && n < max && total < SPACE_BYTES;) {
        struct slice *s = p->slices[off / ss - p->first_index];
        if (!s) break;
        uint32_t in = (uint32_t)(off % ss), len = slice_length(s) - in;
        unsigned k = memory_iov(object_memory(p->object), slice_extent(s), in, len, iov + n, max - n);
        for (unsigned i = 0; i < k; i++) {
            total += iov[n + i].iov_len;
            off += iov[n + i].iov_len;
        }
        n += k;
    }
    return n;
}

static void part_filled(void *arg, size_t n)
{
    struct part *p = arg;
    uint32_t ss = object_slice_bytes(p->object);

    if (p->fetch) p->fetch->request->origin_bytes += n;
    if (p->bad_status) return;
    if (p->skip) {
        p->skip -= n;
        return;
    }
    while (n > 0) {
        struct slice **s = part_slot(p);
        uint64_t slice_end = (p->pos / ss + 1) * ss;
        if (slice_end > p->end) slice_end = p->end;
        size_t take = slice_end - p->pos < n ? (size_t)(slice_end - p->pos) : n;
        uint32_t filled = (uint32_t)(p->pos % ss + take);
        struct slice *mine = *s;
        bool whole = mine && filled == slice_length(mine);
        if (whole) *s = NULL;
        p->pos += take;
        n -= take;
        if (p->pos == slice_end) p->drop_slice = false;
        if (mine) slice_progress(mine, filled);
        if (whole) slice_unref(mine);
    }
    if (p->pos == p->end && p->longer) part_finish(p, ERR_OK);
}

static void part_end(void *arg, enum err why)
{
    struct part *p = arg;

    p->call = NULL;
    p->paused = false;
    if (p->bad_status) {
        part_failed(p, ERR_UNAVAILABLE, p->bad_status);
    } else if (why == ERR_OK && p->pos == p->end) {
        window_part_done(&p->worker->windows[p->src->origin_index], p->end - p->start, p->first_byte_us,
                         (clock_ns() - p->started_ns) / 1000);
        part_finish(p, ERR_OK);
    } else {
        part_failed(p, why == ERR_OK ? ERR_TRUNCATED : why, 0);
    }
}

/* ---- the answer's head */

static enum err part_check_identity(const struct part *p, const struct head *resp)
{
    const struct repr *r = repr_of(p->meta);
    struct str etag = head_value(resp, HDR_ETAG), modified = head_value(resp, HDR_LAST_MODIFIED);

    if (r->etag.n && etag.n && !str_eq(r->etag, etag)) return ERR_CHANGED;
    if (r->etag.n && !etag.n) return ERR_CHANGED;
    if (!r->etag.n && r->last_modified.n && !str_eq(r->last_modified, modified)) return ERR_CHANGED;
    return ERR_OK;
}

static enum err part_check_partial(struct part *p, const struct head *resp, int64_t length)
{
    struct content_range cr;

    if (content_range_parse(head_value(resp, HDR_CONTENT_RANGE), &cr) != ERR_OK || cr.unsatisfied) return ERR_PROTOCOL;
    if (cr.size != UINT64_MAX && cr.size != object_size(p->object)) return ERR_CHANGED;
    if (cr.first != p->pos || cr.last != p->end - 1) return ERR_PROTOCOL;
    if (length >= 0 && (uint64_t)length != p->end - p->pos) return ERR_PROTOCOL;
    return ERR_OK;
}

/* The whole object instead of a range: what stands before us is read and dropped, and nobody asks in parallel again. */
static enum err part_check_whole(struct part *p, int64_t length)
{
    if (length < 0) return ERR_PROTOCOL;
    if ((uint64_t)length != object_size(p->object)) return ERR_CHANGED;
    if (p->pos != 0 || p->end != object_size(p->object)) {
        object_set_sequential(p->object);
        if (!p->filler) p->filler = object_filler_begin(p->object);
    }
    p->skip = p->pos;
    p->longer = p->end < object_size(p->object);
    return ERR_OK;
}

static enum err part_error_of(unsigned status)
{
    switch (status) {
    case 401:
    case 403: return ERR_ACCESS_DENIED;
    case 404:
    case 410: return ERR_NOT_FOUND;
    case 412:
    case 416: return ERR_CHANGED;
    default: return status == 429 || status >= 500 ? ERR_UNAVAILABLE : ERR_PROTOCOL;
    }
}

static int64_t retry_after_of(const struct head *resp)
{
    uint64_t s;
    return str_to_u64(head_value(resp, HDR_RETRY_AFTER), &s) && s < 3600 ? (int64_t)s : -1;
}

static void part_head(void *arg, const struct head *resp, int64_t length)
{
    struct part *p = arg;
    enum err e;

    p->first_byte_us = (clock_ns() - p->started_ns) / 1000;
    if (resp->status == 206 || resp->status == 200) {
        e = part_check_identity(p, resp);
        if (e == ERR_OK) e = resp->status == 206 ? part_check_partial(p, resp, length) : part_check_whole(p, length);
    } else {
        e = part_error_of(resp->status);
        if (e == ERR_UNAVAILABLE) { /* read the answer out: the connection stays good for the next try */
            p->bad_status = resp->status;
            p->retry_after_s = retry_after_of(resp);
            return;
        }
    }
    if (e == ERR_OK) return;
    upcall_cancel(p->call);
    p->call = NULL;
    part_failed(p, e, resp->status);
}

static const struct client_events part_events = {part_head, part_space, part_filled, part_end};

/* ---- asking */

static void part_submit(struct part *p)
{
    const struct repr *r = repr_of(p->meta);

    p->bad_status = 0;
    p->skip = 0;
    p->longer = false;
    p->retry_after_s = -1;
    p->pos_at_try = p->pos;
    p->started_ns = clock_ns();
    p->req = (struct origin_request){.method = METHOD_GET, .method_text = STR_LIT("GET"), .address = p->src->address,
                                     .path = p->src->path, .query = p->src->query, .hdrs = p->src->hdrs,
                                     .nhdrs = p->src->nhdrs, .has_range = true, .first = p->pos, .last = p->end - 1};
    if (r->etag_strong) p->req.if_match = r->etag;
    retry_budget_request(&p->worker->budgets[p->src->origin_index]);
    enum err e = upcall_start(p->src->origin, &p->req, &part_events, p, &p->call);
    if (e != ERR_OK) part_failed(p, e, 0);
}

/* Nobody could ever tell the versions apart: such an object cannot be resumed, only asked for from the start. */
static bool part_can_resume(const struct part *p)
{
    const struct repr *r = repr_of(p->meta);
    return p->pos == p->start || r->etag_strong || r->last_modified.n > 0;
}

static void part_failed(struct part *p, enum err e, unsigned status)
{
    const struct origin_conf *oc = origin_conf(origin_worker_origin(p->src->origin));
    uint64_t delay_ms;
    bool wanted = p->fetch || object_has_readers(p->object);
    bool progress = p->pos > p->pos_at_try;

    timer_stop(&p->timer);
    if (e == ERR_CHANGED || e == ERR_NOT_FOUND) {
        object_drop(p->object);
        part_finish(p, e);
    } else if (wanted && part_can_resume(p) &&
               retry_next(&p->retry, &p->worker->budgets[p->src->origin_index], oc, status ? ERR_OK : e, status,
                          (struct str){NULL, 0}, p->retry_after_s, progress, &delay_ms)) {
        log_info("part of " STR_FMT " at %llu: %s (status %u), trying again in %llu ms",
                 STR_ARG(p->src->path), (unsigned long long)p->pos, err_text(e), status, (unsigned long long)delay_ms);
        stat_add(&origin_worker_stats(p->src->origin)->retries, 1);
        p->waiting_retry = true;
        timer_set(&p->timer, delay_ms);
    } else {
        log_warn("part of " STR_FMT " at %llu given up: %s (status %u)", STR_ARG(p->src->path),
                 (unsigned long long)p->pos, err_text(e), status);
        part_finish(p, e);
    }
}

static struct part *part_new(struct source *src, struct object *o, struct fetch *f, uint64_t start, uint64_t end)
{
    uint32_t ss = object_slice_bytes(o);
    uint64_t n = (end - 1) / ss - start / ss + 1;
    struct part *p = calloc(1, sizeof *p + (size_t)n * sizeof p->slices[0]);

    if (!p) return NULL;
    p->worker = src->worker;
    p->src = source_ref(src);
    p->object = object_ref(o);
    p->meta = object_meta(o);
    p->fetch = f;
    p->start = p->pos = start;
    p->end = end;
    p->first_index = start / ss;
    p->nslices = (unsigned)n;
    p->started_ns = clock_ns();
    p->retry_after_s = -1;
    timer_init(&p->timer, p->worker->loop, part_resume_timer);
    list_push_back(&p->worker->parts, &p->link);
    list_init(&p->fetch_link);
    if (f) {
        list_push_back(&f->parts, &p->fetch_link);
        f->in_flight++;
    }
    return p;
}

enum err part_adopt(struct source *src, struct object *o, struct fetch *f, uint64_t start, uint64_t end,
                    struct upcall *call, struct slice **slices, unsigned n)
{
    struct part *p = part_new(src, o, f, start, end);

    if (!p) return ERR_NOMEM;
    if (object_sequential(o)) p->filler = object_filler_begin(o);
    if (n) memcpy(p->slices, slices, n * sizeof slices[0]);
    p->call = call;
    upcall_retarget(call, &part_events, p);
    return ERR_OK;
}

/* One sequential stream from the needed slice to the object's end, unless one is under way. */
static enum err pump_sequential(struct fetch *f, struct object *o, struct source *src, uint64_t needed)
{
    uint32_t ss = object_slice_bytes(o);

    if (!object_filler_begin(o)) return ERR_AGAIN;
    struct part *p = part_new(src, o, f, needed / ss * ss, object_size(o));
    if (!p) {
        object_filler_end(o);
        return ERR_NOMEM;
    }
    p->filler = true;
    part_submit(p);
    return ERR_OK;
}

/* Claims the run of missing slices at *index, at most max long; *index moves to what was not looked at yet. */
static unsigned claim_run(struct object *o, uint64_t *index, uint64_t last, uint64_t needed, unsigned max,
                          struct slice **out, enum err *why)
{
    unsigned n = 0;

    *why = ERR_OK;
    while (*index <= last && n < max) {
        enum err e = object_claim(o, *index, *index == needed, true, &out[n]);
        if (e == ERR_OK) {
            n++;
        } else if (e == ERR_NOMEM) {
            *why = e;
            break;
        } else if (n > 0) {
            break; /* somebody has this one: the run ends before it */
        }
        ++*index;
    }
    return n;
}

enum err fetch_pump(struct fetch *f, struct object *o, struct source *src, uint64_t *next, uint64_t end, uint64_t needed)
{
    const struct origin_conf *oc = origin_conf(origin_worker_origin(src->origin));
    uint32_t ss = object_slice_bytes(o);
    unsigned limit = window_limit(&src->worker->windows[src->origin_index]);
    uint64_t horizon = needed + oc->read_ahead_bytes, stop = end < horizon ? end : horizon;
    unsigned run = (unsigned)(oc->part_bytes / ss);

    if (object_sequential(o)) return *next <= needed ? pump_sequential(f, o, src, needed) : ERR_OK;
    if (run == 0) run = 1;
    if (run > MAX_RUN) run = MAX_RUN;
    while (*next < stop && (f->in_flight < limit || *next <= needed)) {
        struct slice *claimed[MAX_RUN];
        enum err why;
        uint64_t index = *next / ss;
        unsigned n = claim_run(o, &index, (end - 1) / ss, needed / ss, run, claimed, &why);
        if (n == 0) {
            *next = index * ss;
            if (why == ERR_NOMEM) return *next <= needed ? ERR_NOMEM : ERR_OK;
            continue;
        }
        /* The run ends at index: either a slice of somebody else's, or no memory, or the run is long enough. */
        uint64_t start = (index - n) * ss, stop_at = index * ss < object_size(o) ? index * ss : object_size(o);
        struct part *p = part_new(src, o, f, start, stop_at);
        if (!p) {
            for (unsigned i = 0; i < n; i++) {
                slice_fail(claimed[i], ERR_AGAIN);
                slice_unref(claimed[i]);
            }
            return ERR_NOMEM;
        }
        memcpy(p->slices, claimed, n * sizeof claimed[0]);
        *next = index * ss;
        part_submit(p);
        if (why == ERR_NOMEM) break;
    }
    return ERR_OK;
}

void fetch_leave(struct fetch *f)
{
    LIST_EACH_SAFE(n, tmp, &f->parts) {
        struct part *p = container_of(n, struct part, fetch_link);
        list_remove(&p->fetch_link);
        p->fetch = NULL;
        object_settle(p->object, p->first_index, p->first_index + p->nslices - 1);
    }
    f->in_flight = 0;
}

void worker_cancel_parts(struct worker *w)
{
    while (!list_empty(&w->parts)) part_finish(container_of(list_first(&w->parts), struct part, link), ERR_CANCELLED);
}
