/* index.c - the shards that find objects by key, and what changes membership: create, publish, drop, purge, bounds.
 *
 * The hash is of the key's base only: all variants of an object are neighbours in one bucket, and a write drops them in
 * one walk. Full keys are compared. Each shard bounds its number of objects and the bytes of their keys and heads:
 * past it the least recently found objects that nobody holds go. */
#include "cache/internal.h"

#include <stdio.h>
#include <stdlib.h>

#define FIRST_BUCKETS 256u
#define MAX_SLICES (UINT64_C(1) << 31) /* of one object: more is an origin's lie, not a size */
#define BOUND_LOOKS 32

static struct shard *shard_of(struct cache *c, struct hash128 h) { return &c->shards[h.lo % SHARDS]; }
static struct list *bucket_of(struct shard *sh, struct hash128 h) { return &sh->buckets[(h.lo / SHARDS) & (sh->nbuckets - 1)]; }

static bool shard_init(struct shard *sh)
{
    if (pthread_mutex_init(&sh->lock, NULL) != 0) return false;
    list_init(&sh->lru);
    sh->buckets = malloc(FIRST_BUCKETS * sizeof *sh->buckets);
    if (!sh->buckets) return false;
    sh->nbuckets = FIRST_BUCKETS;
    for (size_t i = 0; i < sh->nbuckets; i++) list_init(&sh->buckets[i]);
    return true;
}

enum err cache_create(const struct cache_options *o, struct cache **out, char *msg, size_t n)
{
    struct cache *c = aligned_alloc(64, (sizeof *c + 63) / 64 * 64);

    if (!c) {
        snprintf(msg, n, "out of memory");
        return ERR_NOMEM;
    }
    memset(c, 0, sizeof *c);
    c->magic = CACHE_MAGIC;
    c->slice_bytes = o->slice_bytes;
    c->max_objects_per_shard = o->max_objects / SHARDS + 1;
    c->max_bytes_per_shard = o->index_bytes / SHARDS;
    enum err e = memory_create(o->memory_bytes, &c->memory, msg, n);
    if (e != ERR_OK) {
        free(c);
        return e;
    }
    struct memory_stats ms;
    memory_get_stats(c->memory, &ms);
    c->capacity = ms.capacity;
    c->max_pinned_bytes = o->pinned_bytes ? o->pinned_bytes : c->capacity / 2;
    c->evict = evict_create(c->capacity, c->slice_bytes);
    bool ok = c->evict != NULL;
    for (unsigned i = 0; i < SHARDS; i++) ok = shard_init(&c->shards[i]) && ok;
    if (!ok) {
        snprintf(msg, n, "out of memory");
        cache_destroy(c);
        return ERR_NOMEM;
    }
    *out = c;
    return ERR_OK;
}

void cache_destroy(struct cache *c)
{
    CHECK_OBJ(c, CACHE_MAGIC);
    if (c->evict) cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
    CHECK(atomic_load(&c->nslices) == 0);
    for (unsigned i = 0; i < SHARDS; i++) {
        free(c->shards[i].buckets);
        pthread_mutex_destroy(&c->shards[i].lock);
    }
    if (c->evict) evict_destroy(c->evict);
    memory_destroy(c->memory);
    c->magic = 0;
    free(c);
}

uint32_t cache_slice_bytes(const struct cache *c) { return c->slice_bytes; }
const struct memory *cache_memory(const struct cache *c) { return c->memory; }

static bool key_is(const struct object *o, const struct cache_key *k)
{
    return o->base_len == k->base.n && o->key_len == k->base.n + k->variant.n &&
           memcmp(o->key, k->base.p, k->base.n) == 0 &&
           (k->variant.n == 0 || memcmp(o->key + o->base_len, k->variant.p, k->variant.n) == 0);
}

static struct object *find_locked(struct shard *sh, struct hash128 h, const struct cache_key *k, object_match_fn *match,
                                  void *arg)
{
    struct list *b = bucket_of(sh, h);
    for (struct list *n = b->next; n != b; n = n->next) {
        struct object *o = container_of(n, struct object, chain);
        if (o->hash.lo != h.lo || o->hash.hi != h.hi || !key_is(o, k)) continue;
        if (o->meta && match && !match(arg, o->meta)) continue;
        list_remove(&o->lru);
        list_push_back(&sh->lru, &o->lru);
        return object_ref(o);
    }
    return NULL;
}

/* Doubling is done in one go; a shard of a million objects takes some ten milliseconds once. Failing is harmless. */
static void shard_grow_locked(struct shard *sh)
{
    size_t n = sh->nbuckets * 4;
    struct list *b = malloc(n * sizeof *b);

    if (!b) return;
    for (size_t i = 0; i < n; i++) list_init(&b[i]);
    struct list *old = sh->buckets;
    size_t nold = sh->nbuckets;
    sh->buckets = b;
    sh->nbuckets = n;
    for (size_t i = 0; i < nold; i++) {
        struct list *e;
        while ((e = list_pop_front(&old[i])) != NULL)
            list_push_back(bucket_of(sh, container_of(e, struct object, chain)->hash), e);
    }
    free(old);
}

/* Out of the index. Its slices stay with it, and in the policy, for those who read it now; they go with the object. The
 * index's reference is handed to the caller through *gone, to be dropped without the lock. */
static void unindex_locked(struct object *o, struct object **gone)
{
    if (!atomic_load(&o->indexed)) return;
    atomic_store(&o->indexed, false);
    list_remove(&o->chain);
    list_remove(&o->lru);
    o->shard->count--;
    o->shard->bytes -= o->charged;
    if (object_pinned(o)) {
        o->shard->pinned--;
        o->shard->pinned_bytes -= o->pin_charged;
    }
    *gone = o;
}

void object_charge_locked(struct object *o)
{
    if (!atomic_load(&o->indexed)) return;
    o->shard->bytes -= o->charged;
    o->charged = sizeof *o + o->key_len + (o->meta ? o->meta->bytes : 0);
    o->shard->bytes += o->charged;
}

static void index_locked(struct object *o)
{
    struct shard *sh = o->shard;
    if (sh->count >= sh->nbuckets * 2) shard_grow_locked(sh);
    list_push_back(bucket_of(sh, o->hash), &o->chain);
    list_push_back(&sh->lru, &o->lru);
    sh->count++;
    atomic_store(&o->indexed, true);
    o->charged = 0;
    object_charge_locked(o);
    object_ref(o);
}

/* Objects that nobody holds leave while the shard is over its bounds; looks at a few only. Those that are held go to the
 * end, so that the next one looks at others. *gone: linked by their lru, with the index's references. */
static void bound_locked(const struct cache *c, struct shard *sh, struct list *gone)
{
    for (unsigned looked = 0; looked < BOUND_LOOKS && !list_empty(&sh->lru); looked++) {
        if (sh->count <= c->max_objects_per_shard && sh->bytes <= c->max_bytes_per_shard) return;
        struct object *o = container_of(list_first(&sh->lru), struct object, lru), *out = NULL;
        if (atomic_load(&o->refs) == 1 && !object_pinned(o)) {
            unindex_locked(o, &out);
            list_push_back(gone, &o->lru);
        } else {
            list_remove(&o->lru);
            list_push_back(&sh->lru, &o->lru);
        }
    }
}

static void unref_list(struct list *gone)
{
    struct list *n;
    while ((n = list_pop_front(gone)) != NULL) object_unref(container_of(n, struct object, lru));
}

static struct object *object_new(struct cache *c, const struct cache_key *k, struct hash128 h)
{
    struct object *o = calloc(1, sizeof *o);
    if (!o) return NULL;
    o->key = malloc(k->base.n + k->variant.n + 1);
    if (!o->key) {
        free(o);
        return NULL;
    }
    memcpy(o->key, k->base.p, k->base.n);
    if (k->variant.n) memcpy(o->key + k->base.n, k->variant.p, k->variant.n);
    o->magic = OBJECT_MAGIC;
    atomic_init(&o->refs, 1);
    atomic_init(&o->state, OBJECT_NEW);
    o->cache = c;
    o->shard = shard_of(c, h);
    o->hash = h;
    o->base_len = k->base.n;
    o->key_len = k->base.n + k->variant.n;
    list_init(&o->chain);
    list_init(&o->lru);
    list_init(&o->waiters);
    list_init(&o->slices);
    return o;
}

struct object *cache_find(struct cache *c, const struct cache_key *k, object_match_fn *match, void *arg)
{
    struct hash128 h = hash_bytes(k->base.p, k->base.n);
    struct shard *sh = shard_of(c, h);

    pthread_mutex_lock(&sh->lock);
    struct object *o = find_locked(sh, h, k, match, arg);
    pthread_mutex_unlock(&sh->lock);
    return o;
}

enum err cache_find_or_create(struct cache *c, const struct cache_key *k, object_match_fn *match, void *arg,
                              struct object **out, bool *created)
{
    struct hash128 h = hash_bytes(k->base.p, k->base.n);
    struct shard *sh = shard_of(c, h);
    struct object *fresh;
    struct list gone;

    list_init(&gone);
    *created = false;
    pthread_mutex_lock(&sh->lock);
    *out = find_locked(sh, h, k, match, arg);
    pthread_mutex_unlock(&sh->lock);
    if (*out) return ERR_OK;
    fresh = object_new(c, k, h);
    if (!fresh) return ERR_NOMEM;
    pthread_mutex_lock(&sh->lock);
    *out = find_locked(sh, h, k, match, arg); /* somebody may have been quicker */
    if (!*out) {
        index_locked(fresh);
        *out = fresh;
        *created = true;
        bound_locked(c, sh, &gone);
    }
    pthread_mutex_unlock(&sh->lock);
    if (!*created) object_unref(fresh);
    unref_list(&gone);
    return ERR_OK;
}

enum err object_create_private(struct cache *c, const struct cache_key *k, struct object **out)
{
    *out = object_new(c, k, hash_bytes(k->base.p, k->base.n));
    if (!*out) return ERR_NOMEM;
    (*out)->single_use = true;
    return ERR_OK;
}

enum err object_create_successor(struct object *old, struct object **out)
{
    struct cache_key k = {str_make(old->key, old->base_len), str_make(old->key + old->base_len, old->key_len - old->base_len)};
    *out = object_new(old->cache, &k, old->hash);
    if (!*out) return ERR_NOMEM;
    (*out)->replaces = object_ref(old);
    return ERR_OK;
}

/* Only the first slice is what somebody waits for; the others must leave memory to other readers. */
static unsigned publish_claim(struct object *o, uint64_t first, uint64_t nslices, unsigned n, struct slice **out)
{
    unsigned claimed = 0;

    while (claimed < n && first + claimed < nslices && (out[claimed] = slice_new(o, first + claimed, claimed == 0)) != NULL)
        claimed++;
    return claimed;
}

enum err object_publish(struct object *o, struct meta *m, uint64_t first, unsigned *n, struct slice **out)
{
    CHECK_OBJ(o, OBJECT_MAGIC);
    CHECK(atomic_load(&o->state) == OBJECT_NEW);
    struct slice **table = NULL;
    struct object *gone = NULL, *replaced = o->replaces;
    struct list over;
    uint64_t nslices = m->size / o->cache->slice_bytes + (m->size % o->cache->slice_bytes != 0);

    list_init(&over);
    if (nslices > MAX_SLICES) return ERR_NOMEM;
    if (nslices) {
        table = calloc((size_t)nslices, sizeof *table);
        if (!table) return ERR_NOMEM;
    }
    o->size = m->size;
    *n = publish_claim(o, first, nslices, *n, out);
    pthread_mutex_lock(&o->shard->lock);
    o->table = table;
    o->nslices = nslices;
    for (unsigned i = 0; i < *n; i++) slice_link_locked(o, out[i]);
    o->meta = m;
    atomic_store(&o->state, OBJECT_READY);
    o->replaces = NULL;
    /* A successor takes the place only if the old one still holds it: otherwise a write came in between. */
    if (replaced && atomic_load(&replaced->indexed)) {
        unindex_locked(replaced, &gone);
        index_locked(o);
    }
    object_charge_locked(o);
    bound_locked(o->cache, o->shard, &over);
    waiters_wake_locked(&o->waiters, true, 0);
    pthread_mutex_unlock(&o->shard->lock);
    unref_list(&over);
    object_unref(gone);
    object_unref(replaced);
    return ERR_OK;
}

void object_fail(struct object *o, struct meta *failure)
{
    struct object *gone = NULL;

    CHECK_OBJ(o, OBJECT_MAGIC);
    pthread_mutex_lock(&o->shard->lock);
    CHECK(atomic_load(&o->state) == OBJECT_NEW);
    o->failure = failure;
    atomic_store(&o->state, OBJECT_DEAD);
    unindex_locked(o, &gone);
    waiters_wake_locked(&o->waiters, true, 0);
    pthread_mutex_unlock(&o->shard->lock);
    object_unref(gone);
}

void object_drop(struct object *o)
{
    struct object *gone = NULL;

    CHECK_OBJ(o, OBJECT_MAGIC);
    pthread_mutex_lock(&o->shard->lock);
    unindex_locked(o, &gone);
    pthread_mutex_unlock(&o->shard->lock);
    object_unref(gone);
}

static bool purge_matches(const struct object *o, enum purge_kind kind, struct str base)
{
    switch (kind) {
    case PURGE_ALL: return true;
    case PURGE_BASE: return str_eq(str_make(o->key, o->base_len), base);
    case PURGE_PREFIX: return str_starts(str_make(o->key, o->base_len), base);
    }
    return false;
}

/* The matching objects of a list of the index leave it for *gone, linked by their lru; with them the index's references. */
static void purge_locked(struct list *l, bool chain, enum purge_kind kind, struct str base, struct list *gone)
{
    LIST_EACH_SAFE(e, tmp, l) {
        struct object *o = chain ? container_of(e, struct object, chain) : container_of(e, struct object, lru), *out = NULL;
        if (!purge_matches(o, kind, base)) continue;
        unindex_locked(o, &out);
        list_push_back(gone, &o->lru);
    }
}

static uint64_t purge_shard(struct shard *sh, const struct hash128 *only, enum purge_kind kind, struct str base)
{
    struct list gone;
    uint64_t total = 0;

    list_init(&gone);
    pthread_mutex_lock(&sh->lock);
    purge_locked(only ? bucket_of(sh, *only) : &sh->lru, only != NULL, kind, base, &gone);
    pthread_mutex_unlock(&sh->lock);
    for (struct list *n = gone.next; n != &gone; n = n->next) total++;
    unref_list(&gone);
    return total;
}

uint64_t cache_purge(struct cache *c, enum purge_kind kind, struct str base)
{
    CHECK_OBJ(c, CACHE_MAGIC);
    if (kind == PURGE_BASE) {
        struct hash128 h = hash_bytes(base.p, base.n);
        return purge_shard(shard_of(c, h), &h, kind, base);
    }
    uint64_t total = 0;
    for (unsigned i = 0; i < SHARDS; i++)
        if (c->shards[i].buckets) total += purge_shard(&c->shards[i], NULL, kind, base);
    return total;
}

void cache_get_stats(struct cache *c, struct cache_stats *out)
{
    struct memory_stats ms;
    struct evict_stats es;

    memory_get_stats(c->memory, &ms);
    evict_get_stats(c->evict, &es);
    *out = (struct cache_stats){.used = ms.used, .capacity = ms.capacity, .slices = atomic_load(&c->nslices),
                                .evictions = es.evictions, .rejected = es.rejected,
                                .reserved_bytes = atomic_load(&c->reserved_bytes), .punched = ms.punched,
                                .pinned_bytes = atomic_load(&c->pinned_bytes)};
    for (unsigned i = 0; i < SHARDS; i++) {
        pthread_mutex_lock(&c->shards[i].lock);
        out->objects += c->shards[i].count;
        out->index_bytes += c->shards[i].bytes;
        pthread_mutex_unlock(&c->shards[i].lock);
    }
}
