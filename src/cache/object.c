/* object.c - objects: life from the first question to the origin until the last reader, meta, validation, waiters. */
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
    struct list dead;

    list_init(&dead);
    pthread_mutex_lock(&o->shard->lock);
    CHECK(!atomic_load(&o->indexed) && list_empty(&o->waiters));
    for (uint64_t i = 0; o->table && i < o->nslices; i++)
        if (o->table[i]) slice_unlink_locked(o->table[i], &dead);
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
uint64_t object_furthest_reader(const struct object *o) { return atomic_load(&((struct object *)o)->furthest); }
void object_reader_at(struct object *o, uint64_t offset)
{
    uint64_t seen = atomic_load_explicit(&o->furthest, memory_order_relaxed);
    while (seen < offset && !atomic_compare_exchange_weak(&o->furthest, &seen, offset)) continue;
}
void object_set_sequential(struct object *o) { atomic_store(&o->sequential, true); }
bool object_sequential(const struct object *o) { return atomic_load(&((struct object *)o)->sequential); }
bool object_filler_begin(struct object *o) { return !atomic_exchange(&o->has_filler, true); }
void object_filler_end(struct object *o) { atomic_store(&o->has_filler, false); }
