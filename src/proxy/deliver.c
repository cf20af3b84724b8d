/* deliver.c - the body of a response out of an object's slices: pulled by the socket, slice after slice, also from slices
 * that are still filling. Asks for what is missing ahead of itself (fetch.c). Holds one lease: on the slice it is in;
 * chunks given out hold their own. */
#include <stdlib.h>

#include "proxy/proxy.h"

#define STALL_MS 2000
#define MEMORY_RETRY_MS 20
#define MEMORY_PATIENCE_MS 10000 /* before the head: then it can be told */
#define MEMORY_PATIENCE_LATER_MS 60000
#define MAX_LOST_SLICES 64

struct deliver {
    struct body body;
    struct request *request;
    struct object *object;
    uint64_t pos, last; /* next byte; last byte, inclusive */
    uint64_t next, end; /* what is not asked for yet; end of the wanted slices */
    struct slice *cur;
    struct waiter *waiter;
    struct timer timer; /* memory was short */
    struct timer stall; /* looks whether the reader still reads */
    uint64_t pos_at_stall;
    struct task task;   /* a part ended: look again */
    uint64_t short_since_ms;
    unsigned lost;
    bool all_present, starving, begun;
    enum err failed;
    void (*primed)(struct request *r, enum err e);
};

static enum err deliver_step(struct deliver *d);

/* Asks for what is missing from `needed` on. A hit never gets here, so only now the request is copied for the origin. */
static enum err deliver_fetch(struct deliver *d, uint64_t needed)
{
    struct request *r = d->request;
    enum err e = r->fetch.error; /* a part was given up: what others have is still of use, but we ask no more */
    if (e == ERR_OK) e = request_make_source(r);
    return e == ERR_OK ? fetch_pump(&r->fetch, d->object, r->source, &d->next, d->end, needed) : e;
}

static void deliver_wake(void *arg)
{
    struct deliver *d = arg;

    if (!d->primed) {
        body_notify(&d->body);
        return;
    }
    enum err e = deliver_step(d);
    if (e == ERR_AGAIN) return;
    void (*primed)(struct request *, enum err) = d->primed;
    d->primed = NULL;
    primed(d->request, e);
}

static void deliver_timer(struct timer *t) { deliver_wake(container_of(t, struct deliver, timer)); }

static void deliver_task(struct task *t)
{
    struct deliver *d = container_of(t, struct deliver, task);
    uint32_t ss = object_slice_bytes(d->object);

    if (d->pos <= d->last && d->failed == ERR_OK)
        deliver_fetch(d, d->pos / ss * ss);
    if (!d->cur) deliver_wake(d);
}

void deliver_part_ended(struct deliver *d) { task_schedule(&d->task); }

/* A reader that stands still, though it could go on, keeps only the slice it is in: what was read ahead for it may be
 * evicted, and is asked for again should it go on. */
static void deliver_stalled(struct timer *t)
{
    struct deliver *d = container_of(t, struct deliver, stall);

    if (d->pos > d->last) return;
    bool waits = waiter_pending(d->waiter) || d->timer.due_ms != 0;
    if (d->pos == d->pos_at_stall && !waits) fetch_release(&d->request->fetch);
    d->pos_at_stall = d->pos;
    timer_set(&d->stall, STALL_MS);
}

static void deliver_release_slice(struct deliver *d)
{
    if (!d->cur) return;
    slice_forget(d->cur);
    slice_unref(d->cur);
    d->cur = NULL;
}

static void deliver_starve(struct deliver *d, bool starving)
{
    if (d->starving == starving) return;
    d->starving = starving;
    object_starving(d->object, starving);
}

/* No memory, or somebody else streams towards us: look again soon, but not for ever. */
static enum err deliver_patience(struct deliver *d, bool memory)
{
    uint64_t now = loop_now_ms(d->request->worker->loop);

    if (d->short_since_ms == 0) d->short_since_ms = now;
    if (memory && now - d->short_since_ms > (d->begun ? MEMORY_PATIENCE_LATER_MS : MEMORY_PATIENCE_MS)) return ERR_OVERLOAD;
    deliver_starve(d, memory);
    timer_set(&d->timer, MEMORY_RETRY_MS);
    return ERR_AGAIN;
}

/* Gets a lease on the slice at pos, asking for it if nobody has. ERR_OK: d->cur. */
static enum err deliver_lease(struct deliver *d)
{
    uint32_t ss = object_slice_bytes(d->object);
    uint64_t index = d->pos / ss;

    d->cur = object_lease(d->object, index, true);
    if (d->cur) return ERR_OK;
    if (d->request->fetch.error != ERR_OK) return d->request->fetch.error;
    if (++d->lost > MAX_LOST_SLICES) return ERR_OVERLOAD;
    d->all_present = false;
    d->next = index * ss;
    enum err e = deliver_fetch(d, index * ss);
    if (e == ERR_NOMEM) { /* our own read-ahead is of no use while this is missing */
        fetch_release(&d->request->fetch);
        e = deliver_fetch(d, index * ss);
    }
    d->cur = object_lease(d->object, index, true);
    if (d->cur) return ERR_OK;
    if (e == ERR_CHANGED) return e;
    d->lost--;
    return deliver_patience(d, e != ERR_AGAIN);
}

/* ERR_OK: bytes at pos are there. ERR_AGAIN: something will wake us. */
static enum err deliver_step(struct deliver *d)
{
    uint32_t ss = object_slice_bytes(d->object);

    for (;;) {
        if (!d->cur) {
            enum err e = deliver_lease(d);
            if (e != ERR_OK) return e;
            d->short_since_ms = 0;
            deliver_starve(d, false);
        }
        uint32_t in = (uint32_t)(d->pos % ss);
        if (slice_filled(d->cur) > in) return ERR_OK;
        if (slice_state(d->cur) == SLICE_DEAD) {
            enum err why = slice_error(d->cur);
            slice_unref(d->cur);
            d->cur = NULL;
            if (why == ERR_CHANGED || why == ERR_NOT_FOUND) return why;
            /* Given up by another request's part is no answer to us: we ask once for ourselves. */
        } else if (slice_wait(d->cur, in, d->waiter)) {
            return ERR_AGAIN;
        }
    }
}

static void chunk_owner_release(void *owner, enum chunk_end how)
{
    (void)how;
    slice_unref(owner);
}

static void chunk_lent_release(void *owner, enum chunk_end how)
{
    struct slice *s = owner;
    if (how == CHUNK_UNPROVEN) slice_mark_unproven(s);
    slice_lend_end(s);
    slice_unref(s);
}

/* Chunks for [pos, pos + len) of the current slice, one for each run of its memory. */
static unsigned deliver_chunks(struct deliver *d, struct chunk *out, unsigned max, size_t len)
{
    const struct memory *m = object_memory(d->object);
    const struct extent *e = slice_extent(d->cur);
    uint32_t in = (uint32_t)(d->pos % object_slice_bytes(d->object)), at = 0;
    uint64_t after = d->request->conf->caches[d->request->cache_index].sendfile_after;
    bool hot = after && slice_uses(d->cur) > after && slice_state(d->cur) == SLICE_READY;
    unsigned n = 0;

    for (unsigned i = 0; i < e->nruns && n < max && len > 0; at += e->runs[i].bytes, i++) {
        const struct run *r = &e->runs[i];
        if (in >= at + r->bytes) continue;
        uint32_t skip = in > at ? in - at : 0;
        size_t take = r->bytes - skip < len ? r->bytes - skip : len;
        bool lent = hot && r->blocks && slice_lend(d->cur);
        out[n++] = (struct chunk){.data = memory_at(m, r) + skip, .len = take,
                                  .fd = lent ? memory_fd(m) : -1,
                                  .fd_off = lent ? memory_offset(m, r) + skip : 0,
                                  .owner = slice_ref(d->cur),
                                  .release = lent ? chunk_lent_release : chunk_owner_release};
        in += (uint32_t)take;
        len -= take;
        d->pos += take;
    }
    return n;
}

/* Bytes of one slice at most: what a slow reader holds is then no more than that. */
static enum err deliver_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct deliver *d = container_of(b, struct deliver, body);
    uint32_t ss = object_slice_bytes(d->object);

    if (d->pos > d->last) return ERR_END;
    d->begun = true;
    enum err e = d->failed != ERR_OK ? d->failed : deliver_step(d);
    if (e == ERR_AGAIN) return e;
    if (e != ERR_OK) {
        d->failed = d->request->error = e;
        return e;
    }
    uint64_t len = slice_filled(d->cur) - (uint32_t)(d->pos % ss);
    if (len > d->last - d->pos + 1) len = d->last - d->pos + 1;
    if (len > max_bytes) len = max_bytes;
    *n = deliver_chunks(d, out, max, (size_t)len);
    d->lost = 0;
    object_reader_at(d->object, d->pos);
    fetch_reader_at(&d->request->fetch, d->pos, d->pos / ss);
    if (d->pos % ss == 0 || d->pos > d->last) {
        deliver_release_slice(d);
        if (!d->all_present && d->pos <= d->last) deliver_fetch(d, d->pos);
    }
    return ERR_OK;
}

static void deliver_close(struct body *b) { (void)b; }

static const struct body_ops deliver_ops = {deliver_pull, deliver_close};

enum err deliver_create(struct request *r, uint64_t first, uint64_t last, struct deliver **out)
{
    uint32_t ss = object_slice_bytes(r->object);
    struct deliver *d = pool_zalloc(r->x->pool, sizeof *d);
    uint64_t ready, absent;

    if (!d) return ERR_NOMEM;
    d->waiter = waiter_create(r->worker->mailbox, deliver_wake, d);
    if (!d->waiter) return ERR_NOMEM;
    d->request = r;
    d->object = object_ref(r->object);
    d->pos = first;
    d->last = last;
    d->next = first / ss * ss;
    d->end = (last / ss + 1) * ss;
    if (d->end > object_size(r->object)) d->end = object_size(r->object);
    d->body = (struct body){.ops = &deliver_ops, .length = (int64_t)(last - first + 1)};
    timer_init(&d->timer, r->worker->loop, deliver_timer);
    timer_init(&d->stall, r->worker->loop, deliver_stalled);
    task_init(&d->task, r->worker->loop, deliver_task);
    object_reader_enter(d->object);
    object_reader_at(d->object, first);
    fetch_reader_at(&r->fetch, first, first / ss);
    object_count(d->object, first / ss, last / ss, &ready, &absent);
    d->all_present = absent == 0;
    if (r->result == RESULT_NONE)
        r->result = ready == last / ss - first / ss + 1 ? RESULT_HIT : ready > 0 ? RESULT_PARTIAL : RESULT_MISS;
    timer_set(&d->stall, STALL_MS);
    if (!d->all_present && object_stream_missed(d->object, first / ss, last / ss)) {
        object_drop(d->object);
        d->failed = ERR_CHANGED;
    } else if (!d->all_present) {
        deliver_fetch(d, d->next);
    }
    *out = d;
    return ERR_OK;
}

void deliver_prime(struct deliver *d, void (*ready)(struct request *r, enum err e))
{
    enum err e = d->failed != ERR_OK ? d->failed : deliver_step(d);

    if (e == ERR_AGAIN)
        d->primed = ready;
    else
        ready(d->request, e);
}

struct body *deliver_body(struct deliver *d) { return &d->body; }

void deliver_destroy(struct deliver *d)
{
    waiter_destroy(d->waiter);
    timer_stop(&d->timer);
    timer_stop(&d->stall);
    task_cancel(&d->task);
    fetch_release(&d->request->fetch);
    deliver_starve(d, false);
    if (d->cur) slice_unref(d->cur);
    object_reader_leave(d->object);
    object_unref(d->object);
}
