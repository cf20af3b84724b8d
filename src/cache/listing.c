/* listing.c - what is in the index, a shard at a time; objects that were asked for to be there, and pinned ones.
 *
 * A shard is listed by the hash of its objects' bases, which does not change while others come and go: whoever goes on
 * behind the last one it saw misses none that stayed. */
#include <stdlib.h>

#include "cache/internal.h"

unsigned cache_shards(void) { return SHARDS; }
uint64_t object_name(const struct object *o) { return o->hash.hi; }
struct str object_key_variant(const struct object *o) { return str_make(o->key + o->base_len, o->key_len - o->base_len); }

struct found {
    struct object **all;
    size_t n, cap;
};

static bool found_add(struct found *f, struct object *o)
{
    if (f->n == f->cap) {
        size_t cap = f->cap ? f->cap * 2 : 256;
        struct object **all = realloc(f->all, cap * sizeof(struct object *));
        if (!all) return false;
        f->all = all;
        f->cap = cap;
    }
    f->all[f->n++] = object_ref(o);
    return true;
}

static bool begins_with_one_of(const struct object *o, const struct str *prefixes, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (str_starts(str_make(o->key, o->base_len), prefixes[i])) return true;
    return false;
}

static int by_name(const void *a, const void *b)
{
    uint64_t x = object_name(*(struct object *const *)a), y = object_name(*(struct object *const *)b);
    return x < y ? -1 : x > y;
}

enum err cache_list(struct cache *c, unsigned shard, const struct str *prefixes, unsigned nprefixes, const uint64_t *after,
                    struct object ***out, size_t *n)
{
    CHECK_OBJ(c, CACHE_MAGIC);
    CHECK(shard < SHARDS);
    struct shard *sh = &c->shards[shard];
    struct found f = {0};
    bool ok = true;

    pthread_mutex_lock(&sh->lock);
    for (struct list *l = sh->lru.next; ok && l != &sh->lru; l = l->next) {
        struct object *o = container_of(l, struct object, lru);
        if (atomic_load(&o->state) != OBJECT_READY || (after && object_name(o) <= *after)) continue;
        if (begins_with_one_of(o, prefixes, nprefixes)) ok = found_add(&f, o);
    }
    pthread_mutex_unlock(&sh->lock);
    if (!ok) {
        cache_list_free(f.all, f.n);
        return ERR_NOMEM;
    }
    if (f.n) qsort(f.all, f.n, sizeof(struct object *), by_name);
    *out = f.all;
    *n = f.n;
    return ERR_OK;
}

void cache_list_free(struct object **all, size_t n)
{
    for (size_t i = 0; i < n; i++) object_unref(all[i]);
    free(all);
}

uint64_t object_cached_bytes(struct object *o)
{
    uint64_t bytes = 0;

    CHECK_OBJ(o, OBJECT_MAGIC);
    pthread_mutex_lock(&o->shard->lock);
    for (struct list *l = o->slices.next; l != &o->slices; l = l->next) {
        const struct slice *s = container_of(l, struct slice, sibling);
        enum slice_state state = slice_state(s); /* one that is just becoming READY is there, too */
        if (state == SLICE_READY || (state == SLICE_FILLING && slice_filled(s) == s->length)) bytes += s->length;
    }
    pthread_mutex_unlock(&o->shard->lock);
    return bytes;
}

void object_want(struct object *o, uint16_t batch)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    pthread_mutex_lock(&o->shard->lock);
    uint16_t mark = batch ? batch : o->wanted;
    for (struct list *l = o->slices.next; mark && l != &o->slices; l = l->next)
        atomic_store_explicit(&container_of(l, struct slice, sibling)->entry.wanted, mark, memory_order_relaxed);
    o->wanted = batch;
    pthread_mutex_unlock(&o->shard->lock);
}

uint64_t cache_displaced(const struct cache *c, uint16_t batch)
{
    return atomic_load_explicit(&((struct cache *)(uintptr_t)c)->displaced_bytes[batch % BATCHES], memory_order_relaxed);
}

/* ---- pins */

bool slice_pin_locked(struct slice *s)
{
    struct cache *c = s->cache;

    if (atomic_fetch_add(&c->pinned_bytes, s->extent.charge) + s->extent.charge <= c->max_pinned_bytes) {
        s->pinned = true;
        return true;
    }
    atomic_fetch_sub(&c->pinned_bytes, s->extent.charge);
    return false;
}

void slice_unpin_locked(struct slice *s)
{
    if (!s->pinned) return;
    s->pinned = false;
    atomic_fetch_sub(&s->cache->pinned_bytes, s->extent.charge);
}

/* Pinned objects stay in the index, so they may be half of it at most. */
static bool object_pin_locked(struct object *o)
{
    struct shard *sh = o->shard;

    if (object_pinned(o)) return true;
    if (!atomic_load(&o->indexed) || sh->pinned >= o->cache->max_objects_per_shard / 2 + 1 ||
        sh->pinned_bytes + o->charged > o->cache->max_bytes_per_shard / 2)
        return false;
    sh->pinned++;
    sh->pinned_bytes += o->pin_charged = o->charged;
    atomic_store(&o->pinned, true);
    return true;
}

bool object_pin(struct object *o)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    pthread_mutex_lock(&o->shard->lock);
    bool all = object_pin_locked(o), pinned = all;
    for (struct list *l = o->slices.next; pinned && l != &o->slices; l = l->next) {
        struct slice *s = container_of(l, struct slice, sibling);
        if (s->in_policy && slice_pin_locked(s)) {
            s->in_policy = false;
            evict_remove(s->cache->evict, &s->entry);
        }
        all &= s->pinned || slice_state(s) != SLICE_READY || atomic_load(&s->holds);
    }
    pthread_mutex_unlock(&o->shard->lock);
    return all;
}

bool object_pinned(const struct object *o) { return atomic_load(&((struct object *)o)->pinned); }
