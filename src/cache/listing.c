/* listing.c - what is in the index, a shard at a time; objects that were asked for to be there, and pinned ones.
 *
 * A shard is listed by its buckets, in the order of their numbers' reversed bits. In that order a bucket that was split,
 * as the table grew, stands where it stood as a whole. So an object has one place (its name) for as long as it is there:
 * whoever goes on where it stopped misses none that stayed and sees none twice, and pays for what it sees only. The lock is
 * let go every few buckets. */
#include <stdlib.h>

#include "cache/internal.h"

#define BITE 64u          /* buckets under one lock */
#define LOOKS_MAX 16384u  /* buckets for one question: some milliseconds where nothing matches */

static uint64_t reversed(uint64_t v)
{
    v = (v >> 1 & UINT64_C(0x5555555555555555)) | (v & UINT64_C(0x5555555555555555)) << 1;
    v = (v >> 2 & UINT64_C(0x3333333333333333)) | (v & UINT64_C(0x3333333333333333)) << 2;
    v = (v >> 4 & UINT64_C(0x0f0f0f0f0f0f0f0f)) | (v & UINT64_C(0x0f0f0f0f0f0f0f0f)) << 4;
    return __builtin_bswap64(v);
}

unsigned cache_shards(void) { return SHARDS; }
uint64_t object_name(const struct object *o) { return reversed(o->hash.lo / SHARDS); } /* see index.c, bucket_of */
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

struct walk {
    const struct str *prefixes;
    unsigned nprefixes;
    uint64_t from; /* names below have been seen */
    bool end;      /* so have all */
    struct found found;
};

/* One bucket, and its place in the order. False: no memory. */
static bool walk_bucket_locked(struct walk *w, const struct shard *sh)
{
    unsigned bits = (unsigned)__builtin_ctzll(sh->nbuckets);
    uint64_t place = w->from >> (64 - bits);
    const struct list *b = &sh->buckets[reversed(place) >> (64 - bits)];
    size_t first = w->found.n;

    for (struct list *l = b->next; l != b; l = l->next) {
        struct object *o = container_of(l, struct object, chain);
        if (atomic_load(&o->state) != OBJECT_READY || object_name(o) < w->from) continue;
        if (begins_with_one_of(o, w->prefixes, w->nprefixes) && !found_add(&w->found, o)) return false;
    }
    if (w->found.n > first + 1) qsort(w->found.all + first, w->found.n - first, sizeof(struct object *), by_name);
    w->end = place + 1 == sh->nbuckets;
    w->from = w->end ? UINT64_MAX : (place + 1) << (64 - bits);
    return true;
}

/* No more than max, but objects of one base are not separated. */
static void walk_cut(struct walk *w, size_t max)
{
    struct found *f = &w->found;
    size_t keep = max;

    while (keep < f->n && object_name(f->all[keep]) == object_name(f->all[keep - 1])) keep++;
    if (keep >= f->n) return;
    w->from = object_name(f->all[keep - 1]) + 1;
    w->end = false;
    while (f->n > keep) object_unref(f->all[--f->n]);
}

enum err cache_list(struct cache *c, unsigned shard, const struct str *prefixes, unsigned nprefixes, uint64_t *from, size_t max,
                    struct object ***out, size_t *n, bool *end)
{
    CHECK_OBJ(c, CACHE_MAGIC);
    CHECK(shard < SHARDS && max > 0);
    struct shard *sh = &c->shards[shard];
    struct walk w = {.prefixes = prefixes, .nprefixes = nprefixes, .from = *from};
    bool ok = true;

    for (unsigned looks = 0; ok && !w.end && w.found.n < max && looks < LOOKS_MAX; looks += BITE) {
        pthread_mutex_lock(&sh->lock);
        for (unsigned i = 0; ok && i < BITE && !w.end && w.found.n < max; i++) ok = walk_bucket_locked(&w, sh);
        pthread_mutex_unlock(&sh->lock);
    }
    if (!ok) {
        cache_list_free(w.found.all, w.found.n);
        return ERR_NOMEM;
    }
    walk_cut(&w, max);
    *from = w.from;
    *end = w.end;
    *out = w.found.all;
    *n = w.found.n;
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
