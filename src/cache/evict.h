/* evict.h - which slices stay: the one policy seam of the memory tier.
 *
 * W-TinyLFU with a margin (DESIGN 5): new entries come into a small window; when memory is needed, the window's oldest is
 * compared with the main area's victim and stays only if it was used at least 2 times more. Counts live in a sketch
 * and are halved every 4 x capacity uses. A use (`evict_touch`) is lock-free: it bumps the sketch and sets a mark in the
 * entry; order is worked out when something must go (second chance instead of list moves). Everything else needs the
 * policy's own mutex, taken inside.
 *
 * What was asked for to be there (`wanted`) wins against what was not, or what was asked for earlier, whatever the counts;
 * among those asked for together, and against whatever comes later unasked, counts decide.
 *
 * Residents that stop being hit (a job ended, the popular set moved) are noticed and replaced at once, without margin.
 *
 * The policy never frees: it names victims through a callback, which may refuse (entry in use). */
#ifndef S3P_CACHE_EVICT_H
#define S3P_CACHE_EVICT_H

#include <stdatomic.h>

#include "base/hash.h"
#include "base/list.h"

struct evict;
/* Embedded in what can be evicted, zeroed by its owner before first use. Policy-owned but for reading `charge`. */
struct evict_entry {
    struct list link;
    uint64_t hash;           /* identity for the sketch; survives eviction */
    uint32_t charge;         /* bytes of memory it holds */
    uint8_t area;            /* 0 = not in the policy */
    _Atomic uint8_t used;    /* touched since last looked at: when (0 = not) */
    _Atomic uint16_t born;   /* when it came in, or was last found to be alive */
    _Atomic uint16_t wanted; /* the owner's: somebody asked for it to be resident; the higher, the later (0: nobody) */
};
/* capacity_bytes: memory managed; unit_bytes: the typical entry (slice size), for sizing the sketch. NULL when out of memory. */
struct evict *evict_create(uint64_t capacity_bytes, uint64_t unit_bytes);
void evict_destroy(struct evict *e);
/* Count a use without an entry (a miss: the slice is about to be fetched). Lock-free, any thread. */
void evict_note(struct evict *e, uint64_t hash);
/* Count a use of a resident entry. Lock-free, any thread; the caller holds a lease or the shard lock. */
void evict_touch(struct evict *e, struct evict_entry *n);
/* The entry has become resident (filled). The entry starts in the window. */
void evict_insert(struct evict *e, struct evict_entry *n, uint64_t hash, uint32_t charge);
/* The entry leaves for another reason (object dropped). No-op when it is not in. */
void evict_remove(struct evict *e, struct evict_entry *n);
/* try_evict is called with the policy's mutex held on proposed victims, in order, until it has freed at least `bytes` or
 * gives up after a bounded number of refusals. It returns true if the victim is gone (the policy has then unlinked it
 * already) or false if it is in use (it stays, second chance). It must not call the policy. Returns the bytes freed. */
typedef bool evict_fn(void *arg, struct evict_entry *n);
uint64_t evict_run(struct evict *e, uint64_t bytes, evict_fn *try_evict, void *arg);
struct evict_stats {
    uint64_t entries, window_bytes, main_bytes, evictions, rejected; /* rejected: candidates that lost to the victim */
};
void evict_get_stats(struct evict *e, struct evict_stats *out);

#endif
