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
 *   NULL       | filled and given away (before pos), or not claimed (after pos)
 *
 * Two kinds. A range part has claimed all its slices before it asks and never waits for memory, so that parts that wait for
 * a connection and parts that wait for memory cannot wait for each other. A stream (see cache.h) claims them when it gets
 * there; if somebody else has one by then, its bytes are read and dropped. It keeps what it has filled in a reserve until
 * the furthest of its readers has come to it, stays only so far ahead of that one, and gives up when it gets no memory for
 * long. */
#include <stdlib.h>

#include "base/log.h"
#include "proxy/proxy.h"

#define SCRATCH_BYTES 65536u
#define PAUSE_MS 10
#define PATIENCE_MS 10000
#define SPACE_BYTES (4u << 20)
#define JUNK_BYTES (1u << 20) /* of an error answer read to keep its connection */
#define STREAM_SHARE 8        /* of the memory: how far a stream may be ahead */

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
    uint64_t stream;    /* not 0: it is, or was, the object's stream of that name */
    struct list reserve; /* a stream's own, for its readers */
    uint64_t short_since_ms;
    bool longer;        /* the present answer goes on after `end`: it is cut off there */
    bool drop_slice;    /* the slice at pos is somebody else's: drop its bytes */
    bool paused;        /* space() gave nothing */
    unsigned bad_status; /* an error answer is being read to its end */
    uint64_t junk;
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
    if (p->stream) object_stream_end(p->object, p->stream);
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
    if (f)
        list_splice_back(&f->reserve, &p->reserve);
    else
        reserve_settle(&p->reserve, UINT64_MAX);
    part_free(p);
    if (f) {
        f->in_flight--;
        if (e != ERR_OK && e != ERR_AGAIN && e != ERR_CANCELLED && e != ERR_NOMEM) f->error = e;
        if (f->request->deliver) deliver_part_ended(f->request->deliver);
    }
}

/* How far the reader has got that a stream runs for: the furthest that follows it, or where another stream has taken its
 * place, the one of its own request. False: nobody. */
static bool part_stream_reader(const struct part *p, uint64_t *at)
{
    bool current = object_stream_is(p->object, p->stream);

    if (!p->fetch && !(current && object_has_readers(p->object))) return false;
    *at = current ? object_furthest_reader(p->object) : 0;
    if (p->fetch && p->fetch->reader_at > *at) *at = p->fetch->reader_at;
    return true;
}

static void part_resume_timer(struct timer *t)
{
    struct part *p = container_of(t, struct part, timer);
    uint64_t at;

    if (p->waiting_retry) {
        p->waiting_retry = false;
        part_submit(p);
    } else if (p->paused && p->call) {
        p->paused = false;
        if (p->stream && !part_stream_reader(p, &at)) {
            part_finish(p, ERR_CANCELLED);
        } else if (p->short_since_ms && loop_now_ms(p->worker->loop) - p->short_since_ms > PATIENCE_MS) {
            part_finish(p, ERR_AGAIN);
        } else {
            upcall_resume(p->call);
        }
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

/* How many bytes before its reader a stream may be, but always in the slice that is waited for. */
static uint64_t part_ahead_bytes(const struct part *p)
{
    uint64_t ahead = origin_conf(origin_worker_origin(p->src->origin))->read_ahead_bytes;
    uint64_t share = object_capacity(p->object) / STREAM_SHARE;
    return ahead < share ? ahead : share;
}

/* Makes sure the slice at pos is ours or known to be somebody else's. False: no memory now, or far enough ahead. */
static bool part_ready_slice(struct part *p)
{
    struct slice **s = part_slot(p);
    uint32_t ss = object_slice_bytes(p->object);
    uint64_t at = 0;

    if (*s || p->drop_slice) return true;
    if (part_stream_reader(p, &at)) reserve_settle(&p->reserve, at / ss);
    if (p->pos > at && p->pos - at > part_ahead_bytes(p)) return false;
    enum err e = object_claim(p->object, p->pos / ss, p->pos <= at, s);
    if (e == ERR_NOMEM) {
        if (!p->short_since_ms) p->short_since_ms = loop_now_ms(p->worker->loop);
        return false;
    }
    p->short_since_ms = 0;
    if (e == ERR_OK)
        reserve_add(&p->reserve, *s);
    else
        p->drop_slice = true;
    object_stream_at(p->object, p->stream, p->pos / ss + 1);
    return true;
}

static unsigned part_space(void *arg, struct iovec *iov, unsigned max)
{
    struct part *p = arg;
    uint32_t ss = object_slice_bytes(p->object);
    unsigned n = 0;
    size_t total = 0;

    if (p->bad_status) return part_scratch(p, iov, SCRATCH_BYTES);
    if (p->skip) return part_scratch(p, iov, p->skip);
    if (p->pos == p->end) { /* more than the head has promised */
        part_finish(p, ERR_OK);
        return 0;
    }
    if (!part_ready_slice(p)) return part_pause(p);
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

static void part_skipped(struct part *p, size_t n)
{
    if (!p->bad_status) {
        p->skip -= n;
        return;
    }
    p->junk += n;
    if (p->junk <= JUNK_BYTES) return;
    upcall_cancel(p->call);
    p->call = NULL;
    part_failed(p, ERR_UNAVAILABLE, p->bad_status);
}

static void part_filled(void *arg, size_t n)
{
    struct part *p = arg;
    uint32_t ss = object_slice_bytes(p->object);

    if (p->fetch) p->fetch->request->origin_bytes += n;
    if (p->bad_status || p->skip) {
        part_skipped(p, n);
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
    } else if (p->pos == p->end) { /* whatever went wrong after the last byte */
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

/* The whole object instead of a range: nobody asks in parallel again. A stream reads and drops what stands before it; of
 * range parts that would be many times the same, so they leave it to a stream. */
static enum err part_check_whole(struct part *p, int64_t length)
{
    if (length >= 0 && (uint64_t)length != object_size(p->object)) return ERR_CHANGED;
    if (p->pos != 0 || p->end != object_size(p->object)) object_set_sequential(p->object, false);
    if (p->pos != 0 && !p->stream) return ERR_AGAIN;
    p->skip = p->pos;
    p->longer = length < 0 || p->end < object_size(p->object);
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
    p->junk = 0;
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

/* Where nothing tells versions apart, bytes of two answers must not meet. */
static bool part_can_resume(const struct part *p)
{
    return p->pos == p->start || repr_joinable(repr_of(p->meta));
}

static void part_failed(struct part *p, enum err e, unsigned status)
{
    const struct origin_conf *oc = origin_conf(origin_worker_origin(p->src->origin));
    uint64_t delay_ms;
    bool wanted = p->fetch || object_has_readers(p->object);
    uint64_t progress = p->pos > p->pos_at_try ? p->pos - p->pos_at_try : 0;
    /* The object has been answered for properly before: garbage is one sick connection's. */
    enum err again = e == ERR_PROTOCOL ? ERR_RESET : e;

    timer_stop(&p->timer);
    if (e == ERR_CHANGED || e == ERR_NOT_FOUND) {
        object_drop(p->object);
        part_finish(p, e);
    } else if (e == ERR_AGAIN) {
        part_finish(p, e);
    } else if (wanted && part_can_resume(p) &&
               retry_next(&p->retry, &p->worker->budgets[p->src->origin_index], oc, status ? ERR_OK : again, status,
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
    list_init(&p->reserve);
    if (f) {
        list_push_back(&f->parts, &p->fetch_link);
        f->in_flight++;
    }
    return p;
}

/* The slices are the part's, and kept for its reader. */
static void part_take(struct part *p, struct slice *const *slices, unsigned n)
{
    struct list *reserve = p->stream ? &p->reserve : p->fetch ? &p->fetch->reserve : NULL;

    for (unsigned i = 0; i < n; i++) {
        p->slices[i] = slices[i];
        if (reserve) reserve_add(reserve, slices[i]);
    }
}

enum err part_adopt(struct fetch *f, const struct adoption *a)
{
    struct part *p = part_new(a->source, a->object, f, a->start, a->end);

    if (!p) return ERR_NOMEM;
    p->stream = a->stream;
    p->longer = a->longer;
    part_take(p, a->slices, a->n);
    if (p->stream) object_stream_at(p->object, p->stream, p->first_index + a->n);
    p->call = a->call;
    upcall_retarget(p->call, &part_events, p);
    return ERR_OK;
}

static void slices_give_up(struct slice **slices, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        slice_fail(slices[i], ERR_AGAIN);
        slice_unref(slices[i]);
    }
}

/* A new stream from the needed slice to the object's end, unless it is there or one is on its way. Streams of ours that
 * have passed it by are of no use any more. */
static enum err pump_sequential(struct fetch *f, struct object *o, struct source *src, uint64_t needed)
{
    uint32_t ss = object_slice_bytes(o);
    struct slice *s;
    uint64_t stream;
    enum err e = object_stream_claim(o, needed / ss, &stream, &s);

    if (e == ERR_CHANGED) object_drop(o);
    if (e != ERR_OK) return e;
    LIST_EACH_SAFE(n, tmp, &f->parts) {
        struct part *old = container_of(n, struct part, fetch_link);
        if (old->stream) part_finish(old, ERR_CANCELLED);
    }
    struct part *p = part_new(src, o, f, needed / ss * ss, object_size(o));
    if (!p) {
        slices_give_up(&s, 1);
        object_stream_end(o, stream);
        return ERR_NOMEM;
    }
    p->stream = stream;
    part_take(p, &s, 1);
    object_stream_at(o, stream, needed / ss + 1);
    part_submit(p);
    return ERR_OK;
}

/* Claims the first run of missing slices from *index on that begins before `stop`, at most max long; *index moves to what
 * was not looked at yet. */
static unsigned claim_run(struct object *o, uint64_t *index, uint64_t stop, uint64_t last, uint64_t needed, unsigned max,
                          struct slice **out, enum err *why)
{
    unsigned n = 0;

    *why = ERR_OK;
    while (*index <= (n ? last : stop) && n < max) {
        enum err e = object_claim(o, *index, *index == needed, &out[n]);
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

/* Rather none than a part of one slice for every slice that is read: where read-ahead is held up by memory it goes on when
 * there is room for a whole part, or for a fair share of a small cache. */
static bool room_ahead(const struct object *o, uint64_t bytes, uint64_t part_bytes)
{
    uint64_t share = object_capacity(o) / 16, enough = part_bytes < share ? part_bytes : share;
    return object_room(o) >= (bytes < enough ? bytes : enough);
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
        if (*next > needed && !room_ahead(o, end - *next, (uint64_t)run * ss)) break;
        unsigned n = claim_run(o, &index, (stop - 1) / ss, (end - 1) / ss, needed / ss, run, claimed, &why);
        if (n == 0) {
            *next = index * ss;
            if (why == ERR_NOMEM) return *next <= needed ? ERR_NOMEM : ERR_OK;
            continue;
        }
        /* The run ends at index: either a slice of somebody else's, or no memory, or the run is long enough. */
        uint64_t start = (index - n) * ss, stop_at = index * ss < object_size(o) ? index * ss : object_size(o);
        struct part *p = part_new(src, o, f, start, stop_at);
        if (!p) {
            slices_give_up(claimed, n);
            return ERR_NOMEM;
        }
        part_take(p, claimed, n);
        *next = index * ss;
        part_submit(p);
        if (why == ERR_NOMEM) break;
    }
    return ERR_OK;
}

void fetch_init(struct fetch *f, struct request *r)
{
    *f = (struct fetch){.request = r};
    list_init(&f->parts);
    list_init(&f->reserve);
}

void fetch_reader_at(struct fetch *f, uint64_t offset, uint64_t index)
{
    f->reader_at = offset;
    if (!list_empty(&f->reserve)) reserve_settle(&f->reserve, index);
}

void fetch_release(struct fetch *f) { reserve_settle(&f->reserve, UINT64_MAX); }

void fetch_leave(struct fetch *f)
{
    LIST_EACH_SAFE(n, tmp, &f->parts) {
        struct part *p = container_of(n, struct part, fetch_link);
        list_remove(&p->fetch_link);
        p->fetch = NULL;
    }
    f->in_flight = 0;
    f->reader_at = 0;
    fetch_release(f);
}

void worker_cancel_parts(struct worker *w)
{
    while (!list_empty(&w->parts)) part_finish(container_of(list_first(&w->parts), struct part, link), ERR_CANCELLED);
}
