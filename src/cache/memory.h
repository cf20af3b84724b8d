/* memory.h - the memory tier's bytes: one memfd, mapped once, given out as extents.
 *
 * The memfd is cut into blocks of 64 KiB. A request for n bytes gets whole blocks (in as few contiguous runs as can be had)
 * and, for a rest below a block, a slot in a slab block of a size class (8 classes per doubling, so that rounding loses
 * under 12.5 %). Runs need not be contiguous, so nothing ever fails for fragmentation; an emptied slab block is a block
 * again. Any thread; one mutex inside, held for short operations only (never for a hole punch).
 *
 * "Unproven" extents (see io/body.h CHUNK_UNPROVEN): the kernel may still refer to their pages, so before they are reused
 * their pages are replaced: fallocate(FALLOC_FL_PUNCH_HOLE) outside the lock, whole pages only - slab slots therefore are
 * never given to sendfile (fd = -1 in chunks of theirs). */
#ifndef S3P_CACHE_MEMORY_H
#define S3P_CACHE_MEMORY_H

#include <sys/uio.h>

#include "base/err.h"
#include <stdbool.h>
#include <stdint.h>

#define MEMORY_BLOCK_BYTES 65536u
#define MEMORY_EXTENT_MAX (UINT32_C(65535) * MEMORY_BLOCK_BYTES) /* a run counts its blocks in 16 bits */
#define MEMORY_SLOTS_MAX 128u                                    /* slots in a slab block */
#define MEMORY_SPARSE_SHARE 16u /* memory_sparse helps once free slots take more than 1/16 of the capacity */

struct memory;
struct run {
    uint32_t block;  /* first block */
    uint16_t blocks; /* count; 0: a slab slot inside `block` */
    uint16_t slot;   /* slab: which slot */
    uint32_t bytes;  /* usable bytes of this run */
};
struct extent {
    uint32_t bytes;  /* usable in all: what was asked for */
    uint32_t charge; /* bytes really taken (rounding included) */
    uint16_t nruns;
    struct run *runs; /* malloc'ed by memory_alloc, freed by memory_free; runs[0..nruns) in order */
};
/* capacity rounded down to blocks. Fails with ERR_NOMEM (address space, memfd limit, or more than the machine / cgroup
 * has) and a reason in msg. */
enum err memory_create(uint64_t capacity, struct memory **out, char *msg, size_t n);
void memory_destroy(struct memory *m);
/* ERR_NOMEM: not enough free memory now (evict and try again). bytes >= 1. */
enum err memory_alloc(struct memory *m, uint32_t bytes, struct extent *out);
/* punch: the pages may still be referred to by the kernel. */
void memory_free(struct memory *m, struct extent *e, bool punch);
uint8_t *memory_at(const struct memory *m, const struct run *r);
int memory_fd(const struct memory *m);
/* Offset in the memfd of a block run. */
uint64_t memory_offset(const struct memory *m, const struct run *r);
/* iovecs for bytes [from, from+len) of the extent; returns how many (at most max). */
unsigned memory_iov(const struct memory *m, const struct extent *e, uint32_t from, uint32_t len, struct iovec *iov,
                    unsigned max);
struct memory_stats {
    uint64_t capacity;
    uint64_t used;        /* blocks that are not free: block runs, slabs, blocks being punched */
    uint64_t slab_bytes;  /* blocks that are slabs */
    uint64_t slab_wasted; /* of these, not in a slot that is taken */
    uint64_t punched;     /* bytes given fresh pages, ever */
    uint64_t retired;     /* bytes never to be used again, because the kernel refused to punch them; normally 0 */
};
void memory_get_stats(struct memory *m, struct memory_stats *out);
uint64_t memory_free_bytes(const struct memory *m); /* lock-free estimate: free blocks (free slots do not count) */

/* Sparse slabs. When sizes shift from small to large, small survivors keep many slabs nearly empty, and evicting by
 * the policy's order alone frees hundreds of slots for each block. So when memory_alloc fails: first ask memory_sparse
 * whose slots keep the sparsest slab and drop these owners (or move them: alloc, copy, swap), then evict_run.
 *
 * memory_set_owner names the owner of the extent's slots (no-op for whole blocks). Lock-free; the caller owns the extent.
 * memory_free forgets it, so an owner named here must stay valid until memory_free has returned.
 * memory_sparse calls hold(owner) under memory's mutex (a leaf lock: hold must not take locks, say a try-pin) and
 * returns those held, each once, at most max (MEMORY_SLOTS_MAX is always enough). 0: nothing worth it, evict as usual. */
void memory_set_owner(struct memory *m, const struct extent *e, void *owner);
typedef bool memory_hold_fn(void *owner);
unsigned memory_sparse(struct memory *m, memory_hold_fn *hold, void **owners, unsigned max);

#endif
