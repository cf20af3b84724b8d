/* memory.c - extents of one memfd.
 *
 * Blocks. A bitmap (1 = free) with a summary bit per word. Whole blocks are looked for next-fit, because slices come and
 * go in fetch order and long free runs then lie ahead of the cursor; if no run is long enough within a bounded
 * search, the longest ones seen are put together. Blocks for slabs are taken lowest first, which keeps the small
 * stuff in one corner and the long runs long.
 *
 * Slabs. A block is cut into n equal slots, n = 128 .. 2: 8 classes per doubling down to n = 8, every n below. Where that
 * is too coarse (rests above 8 KiB) a rest is made of up to three slots of falling classes; the cheapest combinations are
 * worked out once, at create. A slot's charge is its full share of the block, tail included, so the charges of a full
 * slab add up to the block. Slabs of a class are listed by how many slots are free and the fullest is used first: sparse
 * ones drain, and an empty one is a block again at once.
 *
 * Invariants, under the mutex: a block is free in the bitmap, or part of a block run, or a slab, or being punched, or
 * retired. A slab is in list[nfree] of its class if 0 < nfree < n, and in no list if full. An extent's slots keep
 * their slab's class unchanged, so memory_at() may read it without the mutex.
 *
 * No huge pages. FALLOC_FL_PUNCH_HOLE of a part of a huge page that the kernel has a reference on (a socket, after
 * sendfile) cannot split it: the range is zeroed in place and reused, and the client that is still to read it gets the
 * next owner's bytes. Hence MADV_NOHUGEPAGE, whatever the system-wide setting is. */
#include "cache/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/check.h"
#include "cache/room.h"

#define MAGIC 0x4d454d31u
#define CLASSES 39u
#define SLOTS_MAX MEMORY_SLOTS_MAX
#define GRAIN 16u      /* slot sizes are multiples of it */
#define PLAN_STEP 256u /* resolution of the table of combined slots */
#define PIECES_MAX 3u  /* slots that make up one rest */
#define NO_BLOCK UINT32_MAX
#define NO_CLASS 0xffu
#define SEARCH_WORDS 512u /* bound of a search for a long run, in bitmap words that have anything free */
#define STACK_RUNS 64u
#define SPARSE_TRIES 4u

struct block {
    uint64_t free[2];       /* slab: 1 = slot is free */
    _Atomic(void *) *owner; /* slab: who holds each slot, for memory_sparse */
    uint32_t next, prev;    /* slab: in its class's list */
    uint8_t class;          /* NO_CLASS: not a slab */
    uint8_t nfree;
};

struct slab_class {
    uint32_t slots, slot_bytes, charge;
    uint32_t list[SLOTS_MAX]; /* by free slots; heads of circular lists of block numbers */
    uint64_t nonempty[2];     /* which lists are */
};

/* One way to make up a rest. */
struct plan {
    uint32_t charge;
    uint8_t class[PIECES_MAX];
};

struct memory {
    uint32_t magic;
    int fd;
    uint8_t *base;
    uint32_t blocks, words;
    uint8_t class_of[MEMORY_BLOCK_BYTES / GRAIN + 1];                     /* smallest class for so many grains */
    struct plan plan[PIECES_MAX + 1][MEMORY_BLOCK_BYTES / PLAN_STEP + 1]; /* by pieces and size in steps, rounded up */
    pthread_mutex_t lock;
    /* under the lock */
    uint64_t *free_bits, *free_words;
    struct block *block;
    uint32_t cursor; /* next-fit: where the last run ended */
    uint32_t low;    /* no free block in words below it */
    struct slab_class class[CLASSES];
    uint64_t slab_blocks, slab_live_bytes, punched_bytes, retired_blocks;
    /* written under the lock, read by anyone */
    _Atomic uint64_t free_blocks;
};

/* ---- classes and plans ---- */

static void classes_init(struct memory *m)
{
    unsigned c = 0;
    for (unsigned n = SLOTS_MAX, step; n >= 2; n -= step) {
        struct slab_class *k = &m->class[c++];
        step = n > 64 ? 8 : n > 32 ? 4 : n > 16 ? 2 : 1;
        k->slots = n;
        k->charge = MEMORY_BLOCK_BYTES / n;
        k->slot_bytes = k->charge / GRAIN * GRAIN;
        for (unsigned i = 0; i < ARRAY_LEN(k->list); i++) k->list[i] = NO_BLOCK;
    }
    CHECK(c == CLASSES);
    for (unsigned g = 0, i = 0; i < ARRAY_LEN(m->class_of); i++) {
        while (g < CLASSES && m->class[g].slot_bytes < i * GRAIN) g++;
        m->class_of[i] = g < CLASSES ? (uint8_t)g : NO_CLASS;
    }
}

static void plan_offer(struct memory *m, unsigned pieces, unsigned a, unsigned b, unsigned c)
{
    unsigned class[PIECES_MAX] = {a, b, c};
    uint32_t bytes = 0, charge = 0;
    for (unsigned i = 0; i < pieces; i++) {
        bytes += m->class[class[i]].slot_bytes;
        charge += m->class[class[i]].charge;
    }
    if (bytes > MEMORY_BLOCK_BYTES) return; /* a whole block is better */
    struct plan *p = &m->plan[pieces][bytes / PLAN_STEP];
    if (p->charge <= charge) return;
    *p = (struct plan){.charge = charge, .class = {(uint8_t)a, (uint8_t)b, (uint8_t)c}};
}

static void plans_init(struct memory *m)
{
    for (unsigned k = 0; k <= PIECES_MAX; k++)
        for (unsigned i = 0; i < ARRAY_LEN(m->plan[k]); i++) m->plan[k][i].charge = UINT32_MAX;
    for (unsigned a = 0; a < CLASSES; a++)
        for (unsigned b = 0; b <= a; b++) {
            plan_offer(m, 2, a, b, 0);
            for (unsigned c = 0; c <= b; c++) plan_offer(m, 3, a, b, c);
        }
    /* what serves more serves less */
    for (unsigned k = 2; k <= PIECES_MAX; k++)
        for (unsigned i = ARRAY_LEN(m->plan[k]) - 1; i-- > 0;)
            if (m->plan[k][i + 1].charge < m->plan[k][i].charge) m->plan[k][i] = m->plan[k][i + 1];
}

/* How to hold `bytes`: so many blocks, then so many slots of these classes. Few pieces are better than few bytes as long
 * as under a tenth of the whole is lost: each piece is an iovec for every reader, and slots cannot be sent without a
 * copy. */
static unsigned plan_make(const struct memory *m, uint32_t bytes, uint32_t *blocks, uint8_t class[PIECES_MAX])
{
    uint32_t rest = bytes % MEMORY_BLOCK_BYTES, spare = bytes / 10;
    const struct plan *best = NULL;
    unsigned pieces = 0;

    *blocks = bytes / MEMORY_BLOCK_BYTES;
    if (rest == 0) return 0;
    if (MEMORY_BLOCK_BYTES - rest <= bytes / 16) {
        ++*blocks;
        return 0;
    }
    class[0] = m->class_of[(rest + GRAIN - 1) / GRAIN];
    uint32_t least = class[0] != NO_CLASS ? m->class[class[0]].charge : MEMORY_BLOCK_BYTES;
    for (unsigned k = 2; k <= PIECES_MAX && least - rest > spare && rest > 8192; k++) {
        const struct plan *p = &m->plan[k][(rest + PLAN_STEP - 1) / PLAN_STEP];
        if (p->charge >= least) continue;
        least = p->charge;
        best = p;
        pieces = k;
    }
    if (best) {
        memcpy(class, best->class, PIECES_MAX);
        return pieces;
    }
    if (class[0] != NO_CLASS) return 1;
    ++*blocks;
    return 0;
}

/* ---- blocks ---- */

static uint64_t bits_mask(unsigned from, unsigned n)
{
    return (n < 64 ? (UINT64_C(1) << n) - 1 : ~UINT64_C(0)) << from;
}

/* First bitmap word at or after w that has a free block; m->words if there is none. */
static uint32_t word_next(const struct memory *m, uint32_t w)
{
    uint32_t s = w / 64, end = (m->words + 63) / 64;
    if (w >= m->words) return m->words;
    uint64_t bits = m->free_words[s] & ~UINT64_C(0) << w % 64;
    while (!bits) {
        if (++s == end) return m->words;
        bits = m->free_words[s];
    }
    return s * 64 + (uint32_t)__builtin_ctzll(bits);
}

static void blocks_mark(struct memory *m, uint32_t first, uint32_t n, bool is_free)
{
    uint64_t count = atomic_load_explicit(&m->free_blocks, memory_order_relaxed);
    atomic_store_explicit(&m->free_blocks, is_free ? count + n : count - n, memory_order_relaxed);
    if (is_free && first / 64 < m->low) m->low = first / 64;
    while (n) {
        uint32_t w = first / 64, at = first % 64, some = 64 - at < n ? 64 - at : n;
        uint64_t mask = bits_mask(at, some);
        CHECK((m->free_bits[w] & mask) == (is_free ? 0 : mask));
        m->free_bits[w] ^= mask;
        if (m->free_bits[w])
            m->free_words[w / 64] |= UINT64_C(1) << w % 64;
        else
            m->free_words[w / 64] &= ~(UINT64_C(1) << w % 64);
        first += some;
        n -= some;
    }
}

struct span {
    uint32_t first, blocks;
};

/* Joins the free runs of one word to the run that ends before it; true when `want` is reached. */
static bool span_scan_word(uint32_t word, uint64_t bits, uint32_t want, struct span *cur, struct span *best)
{
    while (bits) {
        unsigned at = (unsigned)__builtin_ctzll(bits);
        uint64_t up = ~(bits >> at);
        unsigned n = up ? (unsigned)__builtin_ctzll(up) : 64;
        uint32_t first = word * 64 + at;
        if (cur->blocks && cur->first + cur->blocks == first)
            cur->blocks += n;
        else
            *cur = (struct span){first, n};
        if (cur->blocks > best->blocks) *best = *cur;
        if (best->blocks >= want) return true;
        bits &= ~bits_mask(at, n);
    }
    return false;
}

/* A run of `want` blocks from the cursor on, around the end once, or the longest one met in a bounded search. At least one
 * block is free. */
static struct span span_find(const struct memory *m, uint32_t want)
{
    struct span cur = {0, 0}, best = {0, 0};
    uint32_t start = m->cursor / 64, w = word_next(m, start);
    uint64_t mask = ~UINT64_C(0) << m->cursor % 64;
    bool wrapped = false;

    for (unsigned looked = 0; looked < SEARCH_WORDS || best.blocks == 0; looked++) {
        if (w == m->words) {
            if (wrapped) break;
            wrapped = true;
            cur = (struct span){0, 0};
            w = word_next(m, 0);
            CHECK(w < m->words);
        }
        if (wrapped && w > start) break;
        if (span_scan_word(w, m->free_bits[w] & (w == start && !wrapped ? mask : ~UINT64_C(0)), want, &cur, &best))
            break;
        w = word_next(m, w + 1);
    }
    if (best.blocks > want) best.blocks = want;
    CHECK(best.blocks > 0);
    return best;
}

/* n free blocks as runs; the caller knows that there are n. Returns how many runs were written. */
static unsigned blocks_take(struct memory *m, uint32_t n, struct run *runs)
{
    unsigned nruns = 0;
    uint32_t want = n;
    while (n) {
        struct span s = span_find(m, want < n ? want : n);
        blocks_mark(m, s.first, s.blocks, false);
        runs[nruns++] =
            (struct run){.block = s.first, .blocks = (uint16_t)s.blocks, .bytes = s.blocks * MEMORY_BLOCK_BYTES};
        m->cursor = s.first + s.blocks < m->blocks ? s.first + s.blocks : 0;
        n -= s.blocks;
        want = s.blocks; /* nothing longer was met: do not look for it again */
    }
    return nruns;
}

static uint32_t block_take_lowest(struct memory *m)
{
    uint32_t w = word_next(m, m->low);
    if (w == m->words) return NO_BLOCK;
    m->low = w;
    uint32_t b = w * 64 + (uint32_t)__builtin_ctzll(m->free_bits[w]);
    blocks_mark(m, b, 1, false);
    return b;
}

/* ---- slabs ---- */

static void slab_unlist(struct memory *m, uint32_t b)
{
    struct block *s = &m->block[b];
    struct slab_class *k = &m->class[s->class];
    if (s->next == b) {
        k->list[s->nfree] = NO_BLOCK;
        k->nonempty[s->nfree / 64] &= ~(UINT64_C(1) << s->nfree % 64);
        return;
    }
    m->block[s->prev].next = s->next;
    m->block[s->next].prev = s->prev;
    if (k->list[s->nfree] == b) k->list[s->nfree] = s->next;
}

/* To the end of the list for its number of free slots. */
static void slab_list(struct memory *m, uint32_t b)
{
    struct block *s = &m->block[b];
    struct slab_class *k = &m->class[s->class];
    uint32_t head = k->list[s->nfree];
    if (head == NO_BLOCK) {
        s->next = s->prev = b;
        k->list[s->nfree] = b;
        k->nonempty[s->nfree / 64] |= UINT64_C(1) << s->nfree % 64;
        return;
    }
    struct block *h = &m->block[head];
    s->next = head;
    s->prev = h->prev;
    m->block[h->prev].next = b;
    h->prev = b;
}

static uint32_t slab_fullest(const struct slab_class *k)
{
    if (k->nonempty[0]) return k->list[__builtin_ctzll(k->nonempty[0])];
    if (k->nonempty[1]) return k->list[64 + __builtin_ctzll(k->nonempty[1])];
    return NO_BLOCK;
}

static uint32_t slab_sparsest(const struct slab_class *k)
{
    if (k->nonempty[1]) return k->list[127 - __builtin_clzll(k->nonempty[1])];
    if (k->nonempty[0]) return k->list[63 - __builtin_clzll(k->nonempty[0])];
    return NO_BLOCK;
}

static uint32_t slab_new(struct memory *m, uint8_t class)
{
    uint32_t n = m->class[class].slots, b;
    _Atomic(void *) *owner = calloc(n, sizeof *owner);
    if (!owner) return NO_BLOCK;
    if ((b = block_take_lowest(m)) == NO_BLOCK) {
        free((void *)owner);
        return NO_BLOCK;
    }
    struct block *s = &m->block[b];
    *s = (struct block){.owner = owner, .class = class, .nfree = (uint8_t)n};
    s->free[0] = bits_mask(0, n < 64 ? n : 64);
    if (n > 64) s->free[1] = bits_mask(0, n - 64);
    m->slab_blocks++;
    return b;
}

static bool slot_take(struct memory *m, uint8_t class, struct run *r)
{
    struct slab_class *k = &m->class[class];
    uint32_t b = slab_fullest(k);
    if (b != NO_BLOCK)
        slab_unlist(m, b);
    else if ((b = slab_new(m, class)) == NO_BLOCK)
        return false;

    struct block *s = &m->block[b];
    unsigned half = s->free[0] ? 0 : 1, bit = (unsigned)__builtin_ctzll(s->free[half]);
    s->free[half] &= s->free[half] - 1;
    if (--s->nfree) slab_list(m, b);
    m->slab_live_bytes += k->charge;
    *r = (struct run){.block = b, .slot = (uint16_t)(half * 64 + bit), .bytes = k->slot_bytes};
    return true;
}

static void slot_give(struct memory *m, const struct run *r)
{
    struct block *s = &m->block[r->block];
    CHECK(s->class < CLASSES && r->slot < m->class[s->class].slots);
    struct slab_class *k = &m->class[s->class];
    uint64_t bit = UINT64_C(1) << r->slot % 64;
    CHECK(!(s->free[r->slot / 64] & bit));

    if (s->nfree) slab_unlist(m, r->block);
    s->free[r->slot / 64] |= bit;
    atomic_store_explicit(&s->owner[r->slot], NULL, memory_order_relaxed);
    m->slab_live_bytes -= k->charge;
    if (++s->nfree < k->slots) {
        slab_list(m, r->block);
        return;
    }
    free((void *)s->owner);
    s->owner = NULL;
    s->class = NO_CLASS;
    m->slab_blocks--;
    blocks_mark(m, r->block, 1, true);
}

/* ---- extents ---- */

/* All or nothing. Slots first: they may need blocks themselves, and giving them back costs little. */
static bool runs_take_locked(struct memory *m, uint32_t blocks, const uint8_t *class, unsigned pieces, struct run *runs,
                             unsigned *nruns)
{
    struct run slot[PIECES_MAX];
    unsigned got = 0;
    while (got < pieces && slot_take(m, class[got], &slot[got])) got++;
    if (got < pieces || atomic_load_explicit(&m->free_blocks, memory_order_relaxed) < blocks) {
        while (got) slot_give(m, &slot[--got]);
        return false;
    }
    *nruns = blocks_take(m, blocks, runs);
    for (unsigned i = 0; i < pieces; i++) runs[(*nruns)++] = slot[i];
    return true;
}

static void runs_give_locked(struct memory *m, const struct run *runs, unsigned nruns)
{
    for (unsigned i = 0; i < nruns; i++) {
        if (runs[i].blocks)
            blocks_mark(m, runs[i].block, runs[i].blocks, true);
        else
            slot_give(m, &runs[i]);
    }
}

/* What an extent is charged, and its last run cut to what was asked for. */
static void extent_finish(const struct memory *m, struct extent *e, uint32_t bytes)
{
    uint32_t left = bytes;
    e->bytes = bytes;
    e->charge = 0;
    for (unsigned i = 0; i < e->nruns; i++) {
        struct run *r = &e->runs[i];
        e->charge += r->blocks ? r->blocks * MEMORY_BLOCK_BYTES : m->class[m->block[r->block].class].charge;
        if (r->bytes > left) r->bytes = left;
        left -= r->bytes;
    }
    CHECK(left == 0);
}

enum err memory_alloc(struct memory *m, uint32_t bytes, struct extent *out)
{
    CHECK_OBJ(m, MAGIC);
    CHECK(bytes >= 1);
    struct run small[STACK_RUNS], *runs = small;
    uint8_t class[PIECES_MAX];
    uint32_t blocks;
    unsigned nruns = 0;
    bool ok;

    *out = (struct extent){0};
    if (bytes > MEMORY_EXTENT_MAX) return ERR_NOMEM;
    unsigned pieces = plan_make(m, bytes, &blocks, class);
    if (blocks > memory_free_bytes(m) / MEMORY_BLOCK_BYTES) return ERR_NOMEM; /* the common refusal, without the lock */
    if (blocks + pieces > STACK_RUNS && !(runs = malloc((blocks + pieces) * sizeof *runs))) return ERR_NOMEM;

    pthread_mutex_lock(&m->lock);
    ok = runs_take_locked(m, blocks, class, pieces, runs, &nruns);
    pthread_mutex_unlock(&m->lock);

    if (ok && (out->runs = malloc(nruns * sizeof *runs))) {
        memcpy(out->runs, runs, nruns * sizeof *runs);
        out->nruns = (uint16_t)nruns;
        extent_finish(m, out, bytes);
    } else if (ok) {
        pthread_mutex_lock(&m->lock);
        runs_give_locked(m, runs, nruns);
        pthread_mutex_unlock(&m->lock);
    }
    if (runs != small) free(runs);
    return out->runs ? ERR_OK : ERR_NOMEM;
}

/* Fresh pages in place of the ones a socket may still refer to. */
static bool run_punch(const struct memory *m, const struct run *r)
{
    off_t at = (off_t)memory_offset(m, r), n = (off_t)r->blocks * MEMORY_BLOCK_BYTES;
    int rc;
    do {
        rc = fallocate(m->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n);
    } while (rc < 0 && errno == EINTR);
    return rc == 0 || madvise(m->base + at, (size_t)n, MADV_REMOVE) == 0;
}

void memory_free(struct memory *m, struct extent *e, bool punch)
{
    CHECK_OBJ(m, MAGIC);
    uint64_t punched = 0, retired = 0;
    unsigned keep = 0;

    for (unsigned i = 0; i < e->nruns; i++) {
        struct run r = e->runs[i];
        if (punch && r.blocks) {
            if (!run_punch(m, &r)) {
                retired += r.blocks; /* never to be reused: better less memory than a wrong byte */
                continue;
            }
            punched += (uint64_t)r.blocks * MEMORY_BLOCK_BYTES;
        }
        e->runs[keep++] = r;
    }
    pthread_mutex_lock(&m->lock);
    m->punched_bytes += punched;
    m->retired_blocks += retired;
    runs_give_locked(m, e->runs, keep);
    pthread_mutex_unlock(&m->lock);
    free(e->runs);
    *e = (struct extent){0};
}

uint8_t *memory_at(const struct memory *m, const struct run *r) { return m->base + memory_offset(m, r); }

int memory_fd(const struct memory *m) { return m->fd; }

uint64_t memory_offset(const struct memory *m, const struct run *r)
{
    uint64_t at = (uint64_t)r->block * MEMORY_BLOCK_BYTES;
    return r->blocks ? at : at + (uint64_t)r->slot * m->class[m->block[r->block].class].slot_bytes;
}

unsigned memory_iov(const struct memory *m, const struct extent *e, uint32_t from, uint32_t len, struct iovec *iov,
                    unsigned max)
{
    unsigned n = 0;
    CHECK(from <= e->bytes && len <= e->bytes - from);
    for (unsigned i = 0; i < e->nruns && len && n < max; i++) {
        const struct run *r = &e->runs[i];
        if (from >= r->bytes) {
            from -= r->bytes;
            continue;
        }
        uint32_t some = r->bytes - from < len ? r->bytes - from : len;
        iov[n++] = (struct iovec){.iov_base = memory_at(m, r) + from, .iov_len = some};
        len -= some;
        from = 0;
    }
    return n;
}

/* ---- sparse slabs ---- */

void memory_set_owner(struct memory *m, const struct extent *e, void *owner)
{
    CHECK_OBJ(m, MAGIC);
    for (unsigned i = 0; i < e->nruns; i++) {
        const struct run *r = &e->runs[i];
        if (!r->blocks) atomic_store_explicit(&m->block[r->block].owner[r->slot], owner, memory_order_release);
    }
}

static unsigned slab_hold(struct memory *m, uint32_t b, memory_hold_fn *hold, void **owners, unsigned max)
{
    struct block *s = &m->block[b];
    unsigned n = 0;
    for (unsigned i = 0; i < m->class[s->class].slots && n < max; i++) {
        void *owner = atomic_load_explicit(&s->owner[i], memory_order_acquire);
        unsigned j = 0;
        if (!owner) continue;
        while (j < n && owners[j] != owner) j++; /* an extent may have two slots here */
        if (j == n && hold(owner)) owners[n++] = owner;
    }
    return n;
}

/* The slab with the greatest free share that was not tried; NO_BLOCK when none has a quarter. */
static uint32_t slab_sparsest_of_all(const struct memory *m, uint64_t tried)
{
    uint32_t best = NO_BLOCK, best_free = 1, best_slots = 4;
    for (unsigned c = 0; c < CLASSES; c++) {
        uint32_t b = tried >> c & 1 ? NO_BLOCK : slab_sparsest(&m->class[c]);
        if (b == NO_BLOCK || m->block[b].nfree * best_slots < best_free * m->class[c].slots) continue;
        best = b;
        best_free = m->block[b].nfree;
        best_slots = m->class[c].slots;
    }
    return best;
}

unsigned memory_sparse(struct memory *m, memory_hold_fn *hold, void **owners, unsigned max)
{
    CHECK_OBJ(m, MAGIC);
    unsigned n = 0;
    uint64_t tried = 0;
    pthread_mutex_lock(&m->lock);
    uint64_t waste = m->slab_blocks * MEMORY_BLOCK_BYTES - m->slab_live_bytes;
    if (waste / MEMORY_BLOCK_BYTES > m->blocks / MEMORY_SPARSE_SHARE) {
        for (unsigned i = 0; i < SPARSE_TRIES && n == 0; i++) {
            uint32_t b = slab_sparsest_of_all(m, tried);
            if (b == NO_BLOCK) break;
            tried |= UINT64_C(1) << m->block[b].class;
            n = slab_hold(m, b, hold, owners, max);
            slab_unlist(m, b); /* to the end, so that the next call sees another one if this one is stuck */
            slab_list(m, b);
        }
    }
    pthread_mutex_unlock(&m->lock);
    return n;
}

/* ---- life ---- */

static enum err map_memfd(struct memory *m, uint64_t bytes, char *msg, size_t n)
{
    m->fd = memfd_create("s3dlio-proxy-cache", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (m->fd < 0) {
        snprintf(msg, n, "memfd_create: %s", strerror(errno));
        return ERR_NOMEM;
    }
    if (ftruncate(m->fd, (off_t)bytes) < 0) {
        snprintf(msg, n, "cannot size the cache's memfd: %s", strerror(errno));
        return ERR_NOMEM;
    }
    /* Nobody may shrink it under the mapping (SIGBUS). Punching stays allowed. An old kernel may refuse: no harm. */
    (void)fcntl(m->fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m->fd, 0);
    if (p == MAP_FAILED) {
        snprintf(msg, n, "cannot map the cache's memory: %s", strerror(errno));
        return ERR_NOMEM;
    }
    m->base = p;
    /* EINVAL: a kernel without huge pages. */
    if (madvise(p, (size_t)bytes, MADV_NOHUGEPAGE) < 0 && errno != EINVAL) {
        snprintf(msg, n, "cannot keep the cache's memory off huge pages: %s", strerror(errno));
        return ERR_NOMEM;
    }
    (void)madvise(p, (size_t)bytes, MADV_DONTDUMP); /* a core need not hold clients' objects */
    return ERR_OK;
}

static void memory_unmake(struct memory *m)
{
    if (m->block)
        for (uint32_t b = 0; b < m->blocks; b++)
            if (m->block[b].class != NO_CLASS) free((void *)m->block[b].owner);
    if (m->base) munmap(m->base, (size_t)m->blocks * MEMORY_BLOCK_BYTES);
    if (m->fd >= 0) close(m->fd);
    free(m->block);
    free(m->free_bits);
    free(m->free_words);
    free(m);
}

enum err memory_create(uint64_t capacity, struct memory **out, char *msg, size_t n)
{
    uint64_t blocks = capacity / MEMORY_BLOCK_BYTES;
    *out = NULL;
    if (blocks == 0 || blocks >= NO_BLOCK - 64) {
        snprintf(msg, n, "cache memory of %llu bytes: must be from 64KiB to 255TiB", (unsigned long long)capacity);
        return ERR_NOMEM;
    }
    capacity = blocks * MEMORY_BLOCK_BYTES;
    if (!room_for(capacity, msg, n)) return ERR_NOMEM;

    struct memory *m = calloc(1, sizeof *m);
    if (!m) goto no_memory;
    m->magic = MAGIC;
    m->fd = -1;
    m->blocks = (uint32_t)blocks;
    m->words = (m->blocks + 63) / 64;
    m->free_bits = calloc(m->words, sizeof *m->free_bits);
    m->free_words = calloc((m->words + 63) / 64, sizeof *m->free_words);
    m->block = malloc(blocks * sizeof *m->block);
    if (m->block)
        for (uint32_t b = 0; b < m->blocks; b++) m->block[b] = (struct block){.class = NO_CLASS};
    if (!m->free_bits || !m->free_words || !m->block) goto no_memory;
    classes_init(m);
    plans_init(m);
    blocks_mark(m, 0, m->blocks, true);
    enum err e = map_memfd(m, capacity, msg, n);
    if (e) {
        memory_unmake(m);
        return e;
    }
    pthread_mutex_init(&m->lock, NULL);
    *out = m;
    return ERR_OK;

no_memory:
    if (m) memory_unmake(m);
    snprintf(msg, n, "no memory for the cache's own tables");
    return ERR_NOMEM;
}

void memory_destroy(struct memory *m)
{
    if (!m) return;
    CHECK_OBJ(m, MAGIC);
    pthread_mutex_destroy(&m->lock);
    m->magic = 0;
    memory_unmake(m);
}

void memory_get_stats(struct memory *m, struct memory_stats *out)
{
    CHECK_OBJ(m, MAGIC);
    pthread_mutex_lock(&m->lock);
    out->capacity = (uint64_t)m->blocks * MEMORY_BLOCK_BYTES;
    out->used = out->capacity - memory_free_bytes(m);
    out->slab_bytes = m->slab_blocks * MEMORY_BLOCK_BYTES;
    out->slab_wasted = out->slab_bytes - m->slab_live_bytes;
    out->punched = m->punched_bytes;
    out->retired = m->retired_blocks * MEMORY_BLOCK_BYTES;
    pthread_mutex_unlock(&m->lock);
}

uint64_t memory_free_bytes(const struct memory *m)
{
    return atomic_load_explicit(&m->free_blocks, memory_order_relaxed) * MEMORY_BLOCK_BYTES;
}
