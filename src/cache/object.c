/* object.c - objects: life from the first question to the origin until the last reader, meta, validation, waiters,
 * streams. */
#include "cache/internal.h"

#include <stdlib.h>

struct meta *meta_ref(struct meta *m)
{
    atomic_fetch_add(&m->refs, 1);
    return m;
}

void meta_unref(struct meta *m)
{
    if (!m || atomic_fetch_sub(&m->refs, 1) != 1) return;
    if (m->user_free) m->user_free(m->user);
    free(m);
}

struct object *object_ref(struct object *o)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    atomic_fetch_add(&o->refs, 1);
    return o;
}

/* The last reference is gone, so nobody else can reach it: no lock is contended, but the table's slices may still be
 * leased by sockets, and only the lock orders us with their last reader. */
static void object_free(struct object *o)
{
    struct list dead, *n;

    list_init(&dead);
    pthread_mutex_lock(&o->shard->lock);
    CHECK(!atomic_load(&o->indexed) && list_empty(&o->waiters));
    while ((n = list_first(&o->slices)) != NULL) slice_unlink_locked(container_of(n, struct slice, sibling), &dead);
    pthread_mutex_unlock(&o->shard->lock);
    slice_free_list(&dead);
    meta_unref(o->meta);
    meta_unref(o->failure);
    if (o->replaces) object_unref(o->replaces);
    free(o->table);
    free(o->key);
    o->magic = 0;
    free(o);
}

void object_unref(struct object *o)
{
    if (!o) return;
    CHECK_OBJ(o, OBJECT_MAGIC);
    if (atomic_fetch_sub(&o->refs, 1) == 1) object_free(o);
}

enum object_state object_state(const struct object *o)
{
    return (enum object_state)atomic_load(&((struct object *)o)->state);
}
bool object_indexed(const struct object *o) { return atomic_load(&((struct object *)o)->indexed); }
struct str object_key_base(const struct object *o) { return str_make(o->key, o->base_len); }
uint64_t object_size(const struct object *o) { return o->size; }
uint32_t object_slice_bytes(const struct object *o) { return o->cache->slice_bytes; }
uint64_t object_capacity(const struct object *o) { return o->cache->capacity; }
const struct memory *object_memory(const struct object *o) { return o->cache->memory; }

static struct meta *object_get_meta(struct object *o, struct meta **which)
{
    pthread_mutex_lock(&o->shard->lock);
    struct meta *m = *which ? meta_ref(*which) : NULL;
    pthread_mutex_unlock(&o->shard->lock);
    return m;
}
struct meta *object_meta(struct object *o) { return object_get_meta(o, &o->meta); }
struct meta *object_failure(struct object *o) { return object_get_meta(o, &o->failure); }

bool object_wait(struct object *o, struct waiter *w)
{
    waiter_cancel(w);
    pthread_mutex_lock(&o->shard->lock);
    bool wait = atomic_load(&o->state) == OBJECT_NEW || o->validating;
    if (wait) waiter_link_locked(w, o->shard, &o->waiters, NULL, 0);
    pthread_mutex_unlock(&o->shard->lock);
    return wait;
}

bool object_has_waiters(struct object *o)
{
    pthread_mutex_lock(&o->shard->lock);
    bool some = !list_empty(&o->waiters);
    pthread_mutex_unlock(&o->shard->lock);
    return some;
}

bool object_validate_begin(struct object *o)
{
    pthread_mutex_lock(&o->shard->lock);
    bool mine = !o->validating;
    o->validating = true;
    pthread_mutex_unlock(&o->shard->lock);
    return mine;
}

void object_set_meta(struct object *o, struct meta *m)
{
    pthread_mutex_lock(&o->shard->lock);
    CHECK(m->size == o->size);
    struct meta *old = o->meta;
    o->meta = m;
    object_charge_locked(o);
    pthread_mutex_unlock(&o->shard->lock);
    meta_unref(old);
}

void object_validate_end(struct object *o, struct meta *m)
{
    struct meta *old = NULL;

    pthread_mutex_lock(&o->shard->lock);
    CHECK(o->validating);
    o->validating = false;
    if (m) {
        CHECK(m->size == o->size);
        old = o->meta;
        o->meta = m;
        object_charge_locked(o);
    }
    waiters_wake_locked(&o->waiters, true, 0);
    pthread_mutex_unlock(&o->shard->lock);
    meta_unref(old);
}

void object_mark_uncacheable(struct object *o, uint64_t now_ms, uint64_t ttl_ms)
{
    pthread_mutex_lock(&o->shard->lock);
    CHECK(atomic_load(&o->state) == OBJECT_NEW);
    o->expires_ms = now_ms + ttl_ms;
    atomic_store(&o->state, OBJECT_UNCACHEABLE);
    waiters_wake_locked(&o->waiters, true, 0);
    pthread_mutex_unlock(&o->shard->lock);
}

bool object_uncacheable_expired(const struct object *o, uint64_t now_ms)
{
    return atomic_load(&((struct object *)o)->state) == OBJECT_UNCACHEABLE && now_ms >= o->expires_ms;
}

void object_reader_enter(struct object *o) { atomic_fetch_add(&o->readers, 1); }
void object_reader_leave(struct object *o) { atomic_fetch_sub(&o->readers, 1); }
bool object_has_readers(const struct object *o) { return atomic_load(&((struct object *)o)->readers) != 0; }

/* ---- streams */

void object_set_sequential(struct object *o, bool once)
{
    pthread_mutex_lock(&o->shard->lock);
    o->once = o->once || once;
    pthread_mutex_unlock(&o->shard->lock);
    atomic_store(&o->sequential, true);
}

bool object_sequential(const struct object *o) { return atomic_load(&((struct object *)o)->sequential); }

static uint64_t stream_begin_locked(struct object *o, uint64_t index)
{
    atomic_store(&o->stream_index, index);
    atomic_store(&o->furthest, index * o->cache->slice_bytes);
    atomic_store(&o->stream, ++o->streams);
    return o->streams;
}

uint64_t object_stream_first(struct object *o, uint64_t index)
{
    pthread_mutex_lock(&o->shard->lock);
    CHECK(o->streams == 0);
    uint64_t stream = stream_begin_locked(o, index);
    pthread_mutex_unlock(&o->shard->lock);
    return stream;
}

static bool stream_comes_locked(const struct object *o, uint64_t index)
{
    return atomic_load(&((struct object *)o)->stream) && index >= atomic_load(&((struct object *)o)->stream_index);
}

static void furthest_raise(struct object *o, uint64_t offset)
{
    uint64_t seen = atomic_load(&o->furthest);
    while (seen < offset && !atomic_compare_exchange_weak(&o->furthest, &seen, offset)) continue;
}

/* ERR_OK: a stream may begin there. */
static enum err stream_check_locked(struct object *o, uint64_t index)
{
    if (o->table[index]) return ERR_AGAIN;
    if (stream_comes_locked(o, index)) {
        furthest_raise(o, index * o->cache->slice_bytes);
        return ERR_AGAIN;
    }
    return o->once && o->streams ? ERR_CHANGED : ERR_OK;
}

enum err object_stream_claim(struct object *o, uint64_t index, uint64_t *stream, struct slice **out)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    CHECK(atomic_load(&o->state) == OBJECT_READY && index < o->nslices);

    pthread_mutex_lock(&o->shard->lock);
    enum err e = stream_check_locked(o, index);
    pthread_mutex_unlock(&o->shard->lock);
    if (e != ERR_OK) return e;

    struct slice *s = slice_new(o, index, true);
    if (!s) return ERR_NOMEM;
    pthread_mutex_lock(&o->shard->lock);
    e = stream_check_locked(o, index); /* somebody may have been quicker */
    if (e == ERR_OK) {
        slice_link_locked(o, s);
        *stream = stream_begin_locked(o, index);
        *out = s;
    }
    pthread_mutex_unlock(&o->shard->lock);
    if (e != ERR_OK) {
        slice_fail(s, ERR_CANCELLED);
        slice_unref(s);
    }
    return e;
}

void object_stream_at(struct object *o, uint64_t stream, uint64_t index)
{
    pthread_mutex_lock(&o->shard->lock);
    if (atomic_load(&o->stream) == stream && atomic_load(&o->stream_index) < index) atomic_store(&o->stream_index, index);
    pthread_mutex_unlock(&o->shard->lock);
}

bool object_stream_is(const struct object *o, uint64_t stream)
{
    return atomic_load(&((struct object *)o)->stream) == stream;
}

void object_stream_end(struct object *o, uint64_t stream)
{
    pthread_mutex_lock(&o->shard->lock);
    if (atomic_load(&o->stream) == stream) atomic_store(&o->stream, 0);
    pthread_mutex_unlock(&o->shard->lock);
}

bool object_stream_missed(struct object *o, uint64_t first, uint64_t last)
{
    bool missed = false;

    pthread_mutex_lock(&o->shard->lock);
    for (uint64_t i = first; o->once && o->streams && !missed && i <= last && i < o->nslices; i++) {
        if (stream_comes_locked(o, i)) break;
        missed = !o->table[i];
    }
    pthread_mutex_unlock(&o->shard->lock);
    return missed;
}

/* Who is ahead of the stream does not follow it. */
void object_reader_at(struct object *o, uint64_t offset)
{
    if (!atomic_load_explicit(&o->sequential, memory_order_relaxed)) return;
    if (offset <= atomic_load(&o->stream_index) * o->cache->slice_bytes) furthest_raise(o, offset);
}

uint64_t object_furthest_reader(const struct object *o) { return atomic_load(&((struct object *)o)->furthest); }
