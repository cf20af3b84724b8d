/* internal.h - the cache's structs, for the files of this room only. */
#ifndef S3P_CACHE_INTERNAL_H
#define S3P_CACHE_INTERNAL_H

#include "cache/cache.h"

#define SHARDS 64u
#define CACHE_MAGIC 0xcac4e001u
#define OBJECT_MAGIC 0x0b1ec701u
#define SLICE_MAGIC 0x511ce001u
#define BATCHES 256u /* told apart at a time */

struct shard {
    _Alignas(64) pthread_mutex_t lock;
    struct list *buckets;
    size_t nbuckets; /* power of two */
    size_t count;
    uint64_t bytes; /* sum of charged */
    size_t pinned;  /* of count */
    uint64_t pinned_bytes; /* of bytes, when they were pinned */
    struct list lru; /* most recently found at the end */
};
struct cache {
    uint32_t magic, slice_bytes;
    struct memory *memory;
    struct evict *evict;
    uint64_t capacity, max_objects_per_shard, max_bytes_per_shard;
    _Atomic uint64_t reserved_bytes, nslices, lent_bytes, pinned_bytes;
    uint64_t max_pinned_bytes;
    _Atomic uint64_t displaced_bytes[BATCHES]; /* by object_want's batch */
    _Atomic unsigned starving;
    struct shard shards[SHARDS];
};
struct object {
    uint32_t magic;
    _Atomic unsigned refs; /* one is the index's while `indexed` */
    struct cache *cache;
    struct shard *shard;
    struct hash128 hash;
    char *key; /* base, variant */
    size_t base_len, key_len;
    /* shard lock: */
    struct list chain, lru;
    struct list waiters;
    struct meta *meta, *failure;
    struct slice **table; /* sparse: its pages are only touched where slices are */
    uint64_t nslices;
    struct list slices; /* those in the table */
    uint64_t charged; /* to the shard while indexed */
    uint64_t pin_charged; /* of it, to what is pinned */
    uint16_t wanted; /* for slices that come, see evict.h */
    bool validating, once;
    bool single_use; /* set before anybody else sees it */
    struct object *replaces; /* a successor's predecessor, until published */
    uint64_t streams;        /* ever begun */
    _Atomic uint64_t stream; /* the present one, 0 none */
    _Atomic uint64_t stream_index, furthest;
    _Atomic bool indexed, sequential, pinned;
    _Atomic unsigned readers;
    _Atomic int state;
    uint64_t size; /* set before READY */
    uint64_t expires_ms; /* UNCACHEABLE */
};
struct slice {
    uint32_t magic;
    _Atomic uint32_t refs; /* one is the table's while `linked` */
    struct cache *cache;
    struct shard *shard; /* stays valid after the object is gone */
    struct object *object; /* shard lock; NULL when not linked */
    struct evict_entry entry;
    struct extent extent;
    uint64_t index, hash;
    uint32_t length;
    bool single_use;
    _Atomic uint32_t filled;
    _Atomic int state;
    _Atomic int error;
    _Atomic bool unproven;
    _Atomic uint8_t holds; /* HOLD_*: counted as reserved while there is one */
    _Atomic uint8_t uses;
    /* shard lock: */
    bool linked, in_policy, pinned; /* pinned: counted as such, and not in the policy */
    struct list sibling; /* in object.slices */
    struct list waiters;
    _Atomic unsigned nwaiters;
    struct list free_link; /* on its way out */
    /* the worker of its filler: */
    struct list reserve_link;
};
enum { HOLD_FILLING = 1, HOLD_RESERVE = 2 };

enum waiter_state { WAITER_IDLE, WAITER_LINKED, WAITER_POSTED };
struct waiter {
    struct mail mail;
    struct mailbox *mailbox;
    waiter_fn *fn;
    void *arg;
    bool orphan, cancelled; /* owner thread only */
    _Atomic int state;
    struct shard *shard;      /* where it is linked */
    _Atomic unsigned *counter; /* the list's counter, or NULL */
    struct list link;
    uint32_t want;
};
/* Shard lock held: link (a waiter whose cancelled wake-up is still on its way just accepts that one), and post those of
 * a list (all, or only those with want < filled). */
void waiter_link_locked(struct waiter *w, struct shard *sh, struct list *l, _Atomic unsigned *counter, uint32_t want);
void waiters_wake_locked(struct list *l, bool all, uint32_t filled);

enum err slice_alloc(struct cache *c, uint32_t bytes, bool essential, struct extent *out);
/* A FILLING slice with one reference, the caller's, not in any table. NULL: no memory. o->size must be set. */
struct slice *slice_new(struct object *o, uint64_t index, bool essential);
void object_charge_locked(struct object *o); /* what it takes now, to its shard */
void slice_link_locked(struct object *o, struct slice *s); /* into the table, which takes a reference */
/* Shard lock held: out of its object's table and the policy; the table's reference goes to *dead for slice_free_list. */
void slice_unlink_locked(struct slice *s, struct list *dead);
void slice_free_list(struct list *dead); /* no lock held */
bool slice_pin_locked(struct slice *s); /* instead of the policy; false: too much is pinned */
void slice_unpin_locked(struct slice *s);

#endif
