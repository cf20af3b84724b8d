/* cache.h - objects made of slices, in memory: what the proxy sees of the cache. Knows neither HTTP nor S3.
 *
 * An object is one version of one representation: a key, a size, and a table of slices. The index (64 shards, each with a
 * mutex) finds it. All state below an object - the slice table, states, waiters - is guarded by its shard's lock, which is
 * held for map operations only; the bytes themselves are not: the one filler of a slice writes them, then raises `filled`
 * (release), and readers that hold a lease look at `filled` (acquire).
 *
 *   object       | meaning                                                      | leaves it by
 *   NEW          | in the index, one leader is asking the origin                | object_publish, object_fail
 *   READY        | has meta; may be in the index or not (replaced, purged, private)
 *   UNCACHEABLE  | in the index as a note "do not wait here" until it expires   | object_drop
 *   DEAD         | discovery failed                                             | -
 *
 *   slice        | in the table | in the policy        | memory
 *   FILLING      | yes          | no                   | its filler holds a lease
 *   READY        | yes          | unless reserved      | evictable when only the table refers to it
 *   DEAD         | no           | no                   | freed with the last lease
 *
 * Lock order: shard -> policy (evict.h) -> memory. The policy calls back with its mutex held and therefore only tries the
 * shard's lock: a busy shard refuses the eviction. */
#ifndef S3P_CACHE_CACHE_H
#define S3P_CACHE_CACHE_H

#include <pthread.h>

#include "base/hash.h"
#include "base/list.h"
#include "base/stat.h"
#include "base/str.h"
#include "cache/evict.h"
#include "cache/memory.h"
#include "io/mailbox.h"

struct cache_options {
    uint64_t memory_bytes, max_objects;
    uint64_t index_bytes; /* of keys, stored heads and what belongs to an object besides its slices */
    uint64_t pinned_bytes; /* what pinned objects may keep; 0: half of the memory */
    uint32_t slice_bytes;
};
struct cache;
struct shard;

enum err cache_create(const struct cache_options *o, struct cache **out, char *msg, size_t n);
void cache_destroy(struct cache *c); /* nothing may refer to its objects any more */
uint32_t cache_slice_bytes(const struct cache *c);
const struct memory *cache_memory(const struct cache *c);

/* ---- keys: base names the object (origin, path), variant selects a representation of it (query, version). All variants of
 * a base live in one shard, so that a write can drop them together. */
struct cache_key {
    struct str base, variant;
};

/* ---- waiters: one-shot wake-ups carried to the waiting worker's loop. */
struct waiter;
typedef void waiter_fn(void *arg);
/* Owner: one worker; fn runs on its loop. NULL when out of memory. */
struct waiter *waiter_create(struct mailbox *mb, waiter_fn *fn, void *arg);
void waiter_destroy(struct waiter *w); /* no call any more */
void waiter_cancel(struct waiter *w);  /* withdraws a pending wait; may be used again */
bool waiter_pending(const struct waiter *w);

/* ---- what is known of an object besides its bytes. Immutable, refcounted, one malloc. `user` is the proxy's. */
struct meta {
    _Atomic unsigned refs;
    uint64_t size;
    uint64_t bytes; /* of memory that it takes, with what user points to */
    void *user;
    void (*user_free)(void *user);
};
struct meta *meta_ref(struct meta *m);
void meta_unref(struct meta *m);

/* ---- objects */
struct slice;
enum object_state { OBJECT_NEW, OBJECT_READY, OBJECT_UNCACHEABLE, OBJECT_DEAD };
struct object;
/* Chooses among objects of one key (Vary): true = this one serves the request. */
typedef bool object_match_fn(void *arg, const struct meta *m);

/* A reference to the object in the index that matches (an object without meta matches everyone), or NULL. */
struct object *cache_find(struct cache *c, const struct cache_key *k, object_match_fn *match, void *arg);
/* The same, creating a NEW one if there is none: *created - the caller is its leader. */
enum err cache_find_or_create(struct cache *c, const struct cache_key *k, object_match_fn *match, void *arg,
                              struct object **out, bool *created);
/* An object outside the index: for one request only. */
enum err object_create_private(struct cache *c, const struct cache_key *k, struct object **out);
/* A NEW object of the same key that takes old's place in the index when it is published. */
enum err object_create_successor(struct object *old, struct object **out);
struct object *object_ref(struct object *o);
void object_unref(struct object *o);
enum object_state object_state(const struct object *o);
bool object_indexed(const struct object *o);
struct str object_key_base(const struct object *o);
struct meta *object_meta(struct object *o); /* a reference; NULL while NEW */
uint64_t object_size(const struct object *o); /* READY only */
uint32_t object_slice_bytes(const struct object *o);
uint64_t object_capacity(const struct object *o); /* of its cache */
const struct memory *object_memory(const struct object *o);

/* NEW -> READY. Takes the caller's reference to m. Wakes waiters. An object dropped from the index meanwhile (a write came
 * through) stays out of it: only those who already hold it see it. The caller becomes the filler of up to *n slices from
 * first on, before anybody else can see the object: leases in out, how many in *n. ERR_NOMEM: table could not be made,
 * still NEW. */
enum err object_publish(struct object *o, struct meta *m, uint64_t first, unsigned *n, struct slice **out);
/* NEW -> DEAD, out of the index. failure (may be NULL) is handed to whoever asks with object_failure. */
void object_fail(struct object *o, struct meta *failure);
struct meta *object_failure(struct object *o); /* a reference, or NULL */
/* NEW -> UNCACHEABLE in the index for ttl_ms: later requests do not wait for one another. Wakes waiters. */
void object_mark_uncacheable(struct object *o, uint64_t now_ms, uint64_t ttl_ms);
bool object_uncacheable_expired(const struct object *o, uint64_t now_ms);
/* Out of the index; whoever holds it may go on. */
void object_drop(struct object *o);
/* Waits until the object's state, or a validation under way, has changed. False: nothing to wait for. */
bool object_wait(struct object *o, struct waiter *w);
bool object_has_waiters(struct object *o);
/* One validation at a time: true = the caller leads it and must end it. m: the refreshed meta (same version; reference
 * taken over) or NULL to leave the old. */
bool object_validate_begin(struct object *o);
void object_validate_end(struct object *o, struct meta *m);
/* A note on the meta itself: swap it without a validation (same version). Takes the reference. */
void object_set_meta(struct object *o, struct meta *m);

void object_reader_enter(struct object *o);
void object_reader_leave(struct object *o);
bool object_has_readers(const struct object *o);

/* ---- streams. A sequential object (its origin ignores ranges, or nothing tells its versions apart) is filled from some
 * slice on to its end. One stream at a time is the object's own, and readers wait while it is on its way to them; where it
 * has passed them by (its slices are evicted again) the next one takes its place. `once`: bytes of two answers must not be
 * joined, so there is one stream ever. */
void object_set_sequential(struct object *o, bool once);
bool object_sequential(const struct object *o);
/* Before the object is published: the stream that comes with the discovery. Returns its name (not 0). */
uint64_t object_stream_first(struct object *o, uint64_t index);
/* The caller's stream becomes the object's, and it the filler of the slice it begins with. ERR_AGAIN: the slice is there,
 * or a stream is on its way to it (which from now on knows that it is waited for); ERR_CHANGED: only another answer could
 * fill it, and there may be none; ERR_NOMEM as object_claim. */
enum err object_stream_claim(struct object *o, uint64_t index, uint64_t *stream, struct slice **out);
void object_stream_at(struct object *o, uint64_t stream, uint64_t index); /* it is past all slices below index */
bool object_stream_is(const struct object *o, uint64_t stream);           /* still the object's own? */
void object_stream_end(struct object *o, uint64_t stream);
/* Nobody may, or will, ever fill all that is missing in [first, last]. */
bool object_stream_missed(struct object *o, uint64_t first, uint64_t last);
/* How far the furthest reader has got that follows the object's stream. */
void object_reader_at(struct object *o, uint64_t offset);
uint64_t object_furthest_reader(const struct object *o);

/* ---- slices */
enum slice_state { SLICE_FILLING, SLICE_READY, SLICE_DEAD };
struct slice;
/* A lease on what is at that index, or NULL: nobody has or fills it. Counts a use when `use`. */
struct slice *object_lease(struct object *o, uint64_t index, bool use);
/* The caller becomes the one filler and gets a lease. ERR_AGAIN: somebody has or fills it; ERR_NOMEM: no memory now
 * (essential: the bytes a reader is waiting for; others are refused earlier, so that read-ahead cannot starve readers).
 * What is filling or in a reserve is the cache's reserved memory: at most half of it for read-ahead. */
enum err object_claim(struct object *o, uint64_t index, bool essential, struct slice **out);
/* A reader begins, or ends, to wait for memory: as long as there is one, nothing is read ahead. */
void object_starving(struct object *o, bool begins);
uint64_t object_room(const struct object *o); /* how many bytes may be read ahead now */
/* A reserve: what was claimed for a reader that has not come to it yet. It holds leases, in the order of claiming, so that
 * read-ahead is not evicted before it is read. A plain list; the filler's worker owns it. */
void reserve_add(struct list *reserve, struct slice *s); /* the filler only, FILLING */
/* Lets go what is below slice `index`, from the front on; UINT64_MAX: everything. */
void reserve_settle(struct list *reserve, uint64_t index);
/* How many of [first, last] are READY / absent; stops counting where both are not 0. */
void object_count(struct object *o, uint64_t first, uint64_t last, uint64_t *ready, uint64_t *absent);
struct slice *slice_ref(struct slice *s);
void slice_unref(struct slice *s);
enum slice_state slice_state(const struct slice *s);
enum err slice_error(const struct slice *s); /* why it is DEAD; ERR_OK if it simply left the cache */
uint32_t slice_length(const struct slice *s);
uint32_t slice_filled(const struct slice *s); /* acquire */
const struct extent *slice_extent(const struct slice *s);
unsigned slice_uses(const struct slice *s);   /* how often it was leased for use, saturating */
/* Lending a slice's pages to sendfile: pages lent keep their slice, perhaps for long, so not all of the memory may be.
 * False: send a copy. Each success is ended by slice_lend_end. */
bool slice_lend(struct slice *s);
void slice_lend_end(struct slice *s);
void slice_mark_unproven(struct slice *s);    /* its pages may still be referred to: punch before reuse */
/* The filler only: */
void slice_progress(struct slice *s, uint32_t filled); /* raises filled, wakes; complete -> READY */
void slice_fail(struct slice *s, enum err why);        /* -> DEAD, out of the table, wakes; the lease stays the caller's */
/* Takes a READY slice of a private object out of its table: its only reader is past it. */
void slice_forget(struct slice *s);
/* Waits until filled > want or the state changed. False: already so. */
bool slice_wait(struct slice *s, uint32_t want, struct waiter *w);

/* ---- pins: slices of a pinned object, those there and those to come, are not evicted as long as all pinned slices of the
 * cache take at most pinned_bytes; beyond that they are as any others. For as long as the object lives; once it is out of
 * the index it lives for its readers only. False: not all that is there could be pinned. */
bool object_pin(struct object *o);
bool object_pinned(const struct object *o);

/* Somebody asked for this object to be there: its slices, and those that come until object_want(o, 0), displace those that
 * nobody asked for, or whose batch (1.., a serial number that may wrap) is an earlier one. See evict.h. */
void object_want(struct object *o, uint16_t batch);
/* Bytes so far of slices of a batch that had to make room. The batches of one time should differ in their lower 8 bits. */
uint64_t cache_displaced(const struct cache *c, uint16_t batch);

/* ---- looking around. READY objects of one shard (0 .. cache_shards() - 1) whose base begins with one of the prefixes, by
 * rising name from *from on (0: from the start), which moves behind what was looked at: an array of references for
 * cache_list_free. At most max (1..), or as many as have one base and so one name; fewer, even none, where few match: it
 * takes no longer than some milliseconds. *end: there are no more. ERR_NOMEM. */
unsigned cache_shards(void);
enum err cache_list(struct cache *c, unsigned shard, const struct str *prefixes, unsigned nprefixes, uint64_t *from, size_t max,
                    struct object ***out, size_t *n, bool *end);
void cache_list_free(struct object **all, size_t n);
uint64_t object_name(const struct object *o);
struct str object_key_variant(const struct object *o);
uint64_t object_cached_bytes(struct object *o); /* in whole slices */

/* ---- the whole cache */
enum purge_kind { PURGE_BASE, PURGE_PREFIX, PURGE_ALL };
/* Drops objects whose base equals / starts with `base`; returns how many. Never blocks long: shard by shard. */
uint64_t cache_purge(struct cache *c, enum purge_kind kind, struct str base);
struct cache_stats {
    uint64_t used, capacity, slices, objects, evictions, rejected, reserved_bytes, punched, index_bytes, pinned_bytes; /* reserved: filling or in a reserve */
};
void cache_get_stats(struct cache *c, struct cache_stats *out);

#endif
