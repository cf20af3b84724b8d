/* pool.c - bump memory: a chain of blocks, the first kept over resets so that a keep-alive connection's requests
 * usually cost no malloc at all.
 *
 * The bound counts what callers took (rounded to 16), not the blocks, so that what fits does not depend on how the
 * blocks happened to be cut. Under AddressSanitizer everything not handed out is poisoned: an overrun inside a block is
 * found like one outside. */
#include "base/pool.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define POISON(p, n) ((void)0)
#define UNPOISON(p, n) ((void)0)
#endif

#define POOL_ALIGN ((size_t)16)
#define POOL_BLOCK_BYTES ((size_t)4096)
#define POOL_MAGIC 0x706f6f6cu

struct block {
    struct block *next;
    size_t used, cap; /* of data */
    _Alignas(16) char data[];
};

struct pool {
    uint32_t magic;
    size_t taken, max;
    struct block *first, *last; /* the pool itself lives at the head of the first block */
};

#define POOL_HEAD_BYTES ((sizeof(struct pool) + POOL_ALIGN - 1) & ~(POOL_ALIGN - 1))

static struct block *block_create(size_t cap)
{
    struct block *b = malloc(sizeof *b + cap);
    if (!b) return NULL;
    b->next = NULL;
    b->used = 0;
    b->cap = cap;
    POISON(b->data, cap);
    return b;
}

static void block_free(struct block *b)
{
    UNPOISON(b->data, b->cap);
    free(b);
}

static struct pool *pool_create_in(size_t cap, size_t max_bytes)
{
    struct block *b = block_create(cap);
    if (!b) return NULL;
    UNPOISON(b->data, sizeof(struct pool));
    struct pool *p = (struct pool *)(void *)b->data;
    b->used = POOL_HEAD_BYTES;
    *p = (struct pool){.magic = POOL_MAGIC, .max = max_bytes, .first = b, .last = b};
    return p;
}

struct pool *pool_create(size_t max_bytes)
{
    return pool_create_in(POOL_BLOCK_BYTES - sizeof(struct block), max_bytes);
}

struct pool *pool_create_for(size_t bytes, size_t max_bytes)
{
    return pool_create_in(POOL_HEAD_BYTES + (bytes < max_bytes ? bytes : max_bytes), max_bytes);
}

size_t pool_bytes(const struct pool *p)
{
    size_t n = 0;
    for (const struct block *b = p->first; b; b = b->next) n += sizeof *b + b->cap;
    return n;
}

static void free_after_first(struct pool *p)
{
    for (struct block *b = p->first->next, *next; b; b = next) {
        next = b->next;
        block_free(b);
    }
    p->first->next = NULL;
    p->last = p->first;
}

void pool_destroy(struct pool *p)
{
    if (!p) return;
    CHECK_OBJ(p, POOL_MAGIC);
    free_after_first(p);
    struct block *first = p->first;
    p->magic = 0;
    block_free(first);
}

void pool_reset(struct pool *p)
{
    CHECK_OBJ(p, POOL_MAGIC);
    free_after_first(p);
    p->first->used = POOL_HEAD_BYTES;
    p->taken = 0;
    POISON(p->first->data + POOL_HEAD_BYTES, p->first->cap - POOL_HEAD_BYTES);
}

static struct block *block_for(struct pool *p, size_t n)
{
    if (n <= p->last->cap - p->last->used) return p->last;

    size_t cap = POOL_BLOCK_BYTES * 2 - sizeof(struct block);
    struct block *b = block_create(n > cap ? n : cap);
    if (!b) return NULL;
    p->last->next = b;
    p->last = b;
    return b;
}

void *pool_alloc(struct pool *p, size_t n)
{
    if (n > p->max - p->taken) return NULL;
    /* Zero bytes still get an address of their own. */
    size_t rounded = n ? (n + POOL_ALIGN - 1) & ~(POOL_ALIGN - 1) : POOL_ALIGN;
    if (rounded < n || rounded > p->max - p->taken) return NULL;
    struct block *b = block_for(p, rounded);
    if (!b) return NULL;
    void *at = b->data + b->used;
    UNPOISON(at, n);
    b->used += rounded;
    p->taken += rounded;
    return at;
}

void *pool_zalloc(struct pool *p, size_t n)
{
    void *at = pool_alloc(p, n);
    if (at) memset(at, 0, n);
    return at;
}

struct str pool_str(struct pool *p, struct str s)
{
    char *at = s.n < SIZE_MAX ? pool_alloc(p, s.n + 1) : NULL;
    if (!at) return (struct str){NULL, 0};
    if (s.n) memcpy(at, s.p, s.n);
    at[s.n] = '\0';
    return (struct str){at, s.n};
}

struct str pool_f(struct pool *p, const char *fmt, ...)
{
    char small[512];
    va_list ap;

    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) return (struct str){NULL, 0};
    if ((size_t)n < sizeof small) return pool_str(p, str_make(small, (size_t)n));

    char *at = pool_alloc(p, (size_t)n + 1);
    if (!at) return (struct str){NULL, 0};
    va_start(ap, fmt);
    vsnprintf(at, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return (struct str){at, (size_t)n};
}
