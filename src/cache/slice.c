/* slice.c - slices: their memory, states, leases and waiters.
 *
 * Only the filler writes a slice's bytes and raises `filled`; it tells waiters by looking at their number after the store
 * (both sequentially consistent, as is the waiter's order: link, then look at `filled` again), so no wake-up is lost and
 * the common case takes no lock. The table's reference and membership in the policy change under the shard's lock. */
#include "cache/internal.h"

#include <limits.h>
#include <stdlib.h>

#include "base/log.h"

/* Every round frees something; a big slice among very small ones takes many. */
#define MAX_ALLOC_TRIES 256
#define MAX_EMPTY_TRIES 4 /* the policy gives up early where much is leased, and then goes on where it stood */

struct victims {
    struct list dead;
};

/* It makes room, though somebody may have asked for it to be there. */
static void slice_displaced(struct slice *s)
{
    uint16_t batch = atomic_load_explicit(&s->entry.wanted, memory_order_relaxed);
    if (batch) atomic_fetch_add_explicit(&s->cache->displaced_bytes[batch % BATCHES], s->length, memory_order_relaxed);
}

/* The policy's mutex is held: the shard's lock is only tried (see cache.h, lock order). */
static bool slice_try_evict(void *arg, struct evict_entry *n)
{
    struct slice *s = container_of(n, struct slice, entry);
    struct victims *v = arg;
    bool gone = false;

    if (pthread_mutex_trylock(&s->shard->lock) != 0) return false;
    if (s->linked && atomic_load(&s->refs) == 1) {
        s->in_policy = false; /* the policy unlinks it itself when we say so */
        slice_displaced(s);
        slice_unlink_locked(s, &v->dead);
        gone = true;
    }
    pthread_mutex_unlock(&s->shard->lock);
    return gone;
}

/* Memory's mutex is held: only an atomic pin. A slice on its way out (no reference left) cannot be pinned. */
static bool slice_try_pin(void *owner)
{
    struct slice *s = owner;
    uint32_t refs = atomic_load(&s->refs);

    while (refs == 1)
        if (atomic_compare_exchange_weak(&s->refs, &refs, 2)) return true;
    return false;
}

/* Empties the sparsest slab of small slices, so that its block can be had whole. */
static uint64_t slice_drop_sparse(struct cache *c)
{
    void *owners[MEMORY_SLOTS_MAX];
    unsigned n = memory_sparse(c->memory, slice_try_pin, owners, MEMORY_SLOTS_MAX);
    uint64_t freed = 0;

    for (unsigned i = 0; i < n; i++) {
        struct slice *s = owners[i];
        struct list dead;
        list_init(&dead);
        pthread_mutex_lock(&s->shard->lock);
        if (s->linked && !s->pinned && atomic_load(&s->state) == SLICE_READY && atomic_load(&s->refs) == 2) {
            freed += s->extent.charge;
            slice_displaced(s);
            slice_unlink_locked(s, &dead);
        }
        pthread_mutex_unlock(&s->shard->lock);
        slice_free_list(&dead);
        slice_unref(s);
    }
    return freed;
}

/* Read-ahead of many readers together may not take all memory, and what a filler has reserved counts as in use. */
static uint64_t cache_room(const struct cache *cache)
{
    struct cache *c = (struct cache *)cache;
    uint64_t reserved = atomic_load(&c->reserved_bytes), most = c->capacity / 2;
    return atomic_load(&c->starving) || reserved > most ? 0 : most - reserved;
}

uint64_t object_room(const struct object *o) { return cache_room(o->cache); }

enum err slice_alloc(struct cache *c, uint32_t bytes, bool essential, struct extent *out)
{
    if (!essential && bytes > cache_room(c)) return ERR_NOMEM;
    for (int tries = 0, empty = 0; tries < MAX_ALLOC_TRIES && empty < MAX_EMPTY_TRIES; tries++) {
        if (memory_alloc(c->memory, bytes, out) == ERR_OK) return ERR_OK;
        if (slice_drop_sparse(c) > 0) continue;
        struct victims v;
        list_init(&v.dead);
        uint64_t freed = evict_run(c->evict, bytes, slice_try_evict, &v);
        slice_free_list(&v.dead);
        if (freed == 0) empty++;
    }
    return memory_alloc(c->memory, bytes, out);
}

/* Filling, or in a reserve; with the last of these its bytes are the policy's. */
static void slice_unhold(struct slice *s, uint8_t hold)
{
    uint8_t held = atomic_fetch_and(&s->holds, (uint8_t)~hold);
    if (held == hold) atomic_fetch_sub(&s->cache->reserved_bytes, s->length);
}

/* Whole, and nobody's any more: from now on the policy decides how long it stays. */
static void slice_to_policy_locked(struct slice *s)
{
    if (!s->linked || s->in_policy || s->pinned || atomic_load(&s->holds) || atomic_load(&s->state) != SLICE_READY) return;
    if (object_pinned(s->object) && slice_pin_locked(s)) return;
    s->in_policy = true;
    if (s->object->wanted) atomic_store_explicit(&s->entry.wanted, s->object->wanted, memory_order_relaxed);
    evict_insert(s->cache->evict, &s->entry, s->hash, s->extent.charge);
}

void object_starving(struct object *o, bool begins)
{
    atomic_fetch_add(&o->cache->starving, begins ? 1u : UINT_MAX);
}

void reserve_add(struct list *reserve, struct slice *s)
{
    CHECK(atomic_load(&s->state) == SLICE_FILLING && !list_linked(&s->reserve_link));
    slice_ref(s);
    atomic_fetch_or(&s->holds, HOLD_RESERVE);
    list_push_back(reserve, &s->reserve_link);
}

void reserve_settle(struct list *reserve, uint64_t index)
{
    struct list *n;

    while ((n = list_first(reserve)) != NULL) {
        struct slice *s = container_of(n, struct slice, reserve_link);
        if (index != UINT64_MAX && s->index >= index) break;
        list_remove(n);
        slice_unhold(s, HOLD_RESERVE);
        pthread_mutex_lock(&s->shard->lock);
        slice_to_policy_locked(s);
        pthread_mutex_unlock(&s->shard->lock);
        slice_unref(s);
    }
}

void slice_unlink_locked(struct slice *s, struct list *dead)
{
    CHECK_OBJ(s, SLICE_MAGIC);
    if (!s->linked) return;
    s->linked = false;
    slice_unpin_locked(s);
    if (s->in_policy) {
        s->in_policy = false;
        evict_remove(s->cache->evict, &s->entry);
    }
    s->object->table[s->index] = NULL;
    list_remove(&s->sibling);
    s->object = NULL;
    list_push_back(dead, &s->free_link);
}

void slice_free_list(struct list *dead)
{
    struct list *n;
    while ((n = list_pop_front(dead)) != NULL) slice_unref(container_of(n, struct slice, free_link));
}

struct slice *slice_ref(struct slice *s)
{
    CHECK_OBJ(s, SLICE_MAGIC);
    atomic_fetch_add(&s->refs, 1);
    return s;
}

void slice_unref(struct slice *s)
{
    CHECK_OBJ(s, SLICE_MAGIC);
    if (atomic_fetch_sub(&s->refs, 1) != 1) return;
    CHECK(!s->linked && !s->in_policy && !s->pinned);
    memory_free(s->cache->memory, &s->extent, atomic_load(&s->unproven));
    atomic_fetch_sub(&s->cache->nslices, 1);
    s->magic = 0;
    free(s);
}

enum slice_state slice_state(const struct slice *s) { return (enum slice_state)atomic_load(&((struct slice *)s)->state); }
enum err slice_error(const struct slice *s) { return (enum err)atomic_load(&((struct slice *)s)->error); }
uint32_t slice_length(const struct slice *s) { return s->length; }
uint32_t slice_filled(const struct slice *s)
{
    return atomic_load_explicit(&((struct slice *)s)->filled, memory_order_acquire);
}
const struct extent *slice_extent(const struct slice *s) { return &s->extent; }
unsigned slice_uses(const struct slice *s) { return atomic_load_explicit(&((struct slice *)s)->uses, memory_order_relaxed); }

/* Counted in whole slices, whatever part of one is lent: too many rather than too few. */
bool slice_lend(struct slice *s)
{
    struct cache *c = s->cache;
    if (atomic_fetch_add_explicit(&c->lent_bytes, s->length, memory_order_relaxed) + s->length <= c->capacity / 4) return true;
    atomic_fetch_sub_explicit(&c->lent_bytes, s->length, memory_order_relaxed);
    return false;
}
void slice_lend_end(struct slice *s)
{
    atomic_fetch_sub_explicit(&s->cache->lent_bytes, s->length, memory_order_relaxed);
}
void slice_mark_unproven(struct slice *s) { atomic_store(&s->unproven, true); }

struct slice *slice_new(struct object *o, uint64_t index, bool essential)
{
    struct cache *c = o->cache;
    uint64_t from = index * c->slice_bytes;
    uint32_t length = o->size - from < c->slice_bytes ? (uint32_t)(o->size - from) : c->slice_bytes;
    struct slice *s = calloc(1, sizeof *s);

    if (!s) return NULL;
    if (slice_alloc(c, length, essential, &s->extent) != ERR_OK) {
        free(s);
        return NULL;
    }
    s->magic = SLICE_MAGIC;
    s->cache = c;
    s->shard = o->shard;
    s->index = index;
    s->length = length;
    s->single_use = o->single_use;
    s->hash = o->hash.hi ^ ((index + 1) * 0x9e3779b97f4a7c15ull);
    atomic_init(&s->refs, 1);
    atomic_init(&s->state, SLICE_FILLING);
    atomic_init(&s->holds, HOLD_FILLING);
    list_init(&s->sibling);
    list_init(&s->waiters);
    list_init(&s->free_link);
    list_init(&s->reserve_link);
    list_init(&s->entry.link);
    atomic_fetch_add(&c->nslices, 1);
    atomic_fetch_add(&c->reserved_bytes, length);
    evict_note(c->evict, s->hash);
    memory_set_owner(c->memory, &s->extent, s); /* from here on it may be pinned */
    return s;
}

enum err object_claim(struct object *o, uint64_t index, bool essential, struct slice **out)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    CHECK(atomic_load(&o->state) == OBJECT_READY && index < o->nslices);

    pthread_mutex_lock(&o->shard->lock);
    bool taken = o->table[index] != NULL;
    pthread_mutex_unlock(&o->shard->lock);
    if (taken) return ERR_AGAIN;

    struct slice *s = slice_new(o, index, essential);
    if (!s) return ERR_NOMEM;
    pthread_mutex_lock(&o->shard->lock);
    taken = o->table[index] != NULL;
    if (!taken) slice_link_locked(o, s);
    pthread_mutex_unlock(&o->shard->lock);
    if (taken) {
        slice_fail(s, ERR_CANCELLED);
        slice_unref(s);
        return ERR_AGAIN;
    }
    *out = s;
    return ERR_OK;
}

void slice_link_locked(struct object *o, struct slice *s)
{
    o->table[s->index] = s;
    list_push_back(&o->slices, &s->sibling);
    s->object = o;
    s->linked = true;
    atomic_fetch_add(&s->refs, 1);
}

struct slice *object_lease(struct object *o, uint64_t index, bool use)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    CHECK(index < o->nslices);
    pthread_mutex_lock(&o->shard->lock);
    struct slice *s = o->table[index];
    if (s) {
        atomic_fetch_add(&s->refs, 1);
        if (use && s->in_policy) evict_touch(o->cache->evict, &s->entry);
    }
    pthread_mutex_unlock(&o->shard->lock);
    if (s && use) {
        uint8_t uses = atomic_load_explicit(&s->uses, memory_order_relaxed);
        if (uses < UINT8_MAX) atomic_store_explicit(&s->uses, (uint8_t)(uses + 1), memory_order_relaxed);
    }
    return s;
}

/* Of an object with millions of slices the lock is let go now and then. */
#define COUNT_BATCH 1024
static uint64_t count_batch(struct object *o, uint64_t first, uint64_t end, uint64_t *ready, uint64_t *absent)
{
    uint64_t stop = end - first < COUNT_BATCH ? end : first + COUNT_BATCH;

    pthread_mutex_lock(&o->shard->lock);
    if (list_empty(&o->slices)) {
        *absent += end - first;
        stop = end;
    } else {
        for (uint64_t i = first; i < stop; i++) {
            struct slice *s = o->table[i];
            *absent += !s;
            *ready += s && atomic_load(&s->state) == SLICE_READY;
        }
    }
    pthread_mutex_unlock(&o->shard->lock);
    return stop;
}

void object_count(struct object *o, uint64_t first, uint64_t last, uint64_t *ready, uint64_t *absent)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    uint64_t end = last < o->nslices ? last + 1 : o->nslices;

    *ready = *absent = 0;
    while (first < end && (*ready == 0 || *absent == 0)) first = count_batch(o, first, end, ready, absent);
}

/* The slice is whole: everyone wakes. */
static void slice_complete(struct slice *s)
{
    slice_unhold(s, HOLD_FILLING);
    pthread_mutex_lock(&s->shard->lock);
    atomic_store(&s->state, SLICE_READY);
    slice_to_policy_locked(s);
    waiters_wake_locked(&s->waiters, true, 0);
    pthread_mutex_unlock(&s->shard->lock);
}

void slice_progress(struct slice *s, uint32_t filled)
{
    CHECK_OBJ(s, SLICE_MAGIC);
    CHECK(atomic_load(&s->state) == SLICE_FILLING && filled <= s->length);
    atomic_store(&s->filled, filled);
    if (filled == s->length) {
        slice_complete(s);
        return;
    }
    if (atomic_load(&s->nwaiters) == 0) return;
    pthread_mutex_lock(&s->shard->lock);
    waiters_wake_locked(&s->waiters, false, filled);
    pthread_mutex_unlock(&s->shard->lock);
}

void slice_fail(struct slice *s, enum err why)
{
    struct list dead;

    CHECK_OBJ(s, SLICE_MAGIC);
    if (atomic_load(&s->state) != SLICE_FILLING) return;
    list_init(&dead);
    slice_unhold(s, HOLD_FILLING);
    pthread_mutex_lock(&s->shard->lock);
    atomic_store(&s->error, (int)why);
    atomic_store(&s->state, SLICE_DEAD);
    slice_unlink_locked(s, &dead);
    waiters_wake_locked(&s->waiters, true, 0);
    pthread_mutex_unlock(&s->shard->lock);
    slice_free_list(&dead);
}

void slice_forget(struct slice *s)
{
    struct list dead;

    CHECK_OBJ(s, SLICE_MAGIC);
    if (!s->single_use) return;
    list_init(&dead);
    pthread_mutex_lock(&s->shard->lock);
    if (s->linked && atomic_load(&s->state) == SLICE_READY)
        slice_unlink_locked(s, &dead);
    pthread_mutex_unlock(&s->shard->lock);
    slice_free_list(&dead);
}

bool slice_wait(struct slice *s, uint32_t want, struct waiter *w)
{
    bool waiting = false;

    CHECK_OBJ(s, SLICE_MAGIC);
    waiter_cancel(w); /* it may still wait from the last time it was asked */
    pthread_mutex_lock(&s->shard->lock);
    if (atomic_load(&s->state) == SLICE_FILLING) {
        waiter_link_locked(w, s->shard, &s->waiters, &s->nwaiters, want);
        waiting = true;
        if (atomic_load(&s->filled) > want) waiters_wake_locked(&s->waiters, false, want + 1);
    }
    pthread_mutex_unlock(&s->shard->lock);
    return waiting;
}
