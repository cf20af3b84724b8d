/* pool.h - bump memory freed all at once: one per request. Not thread-safe. */
#ifndef S3P_BASE_POOL_H
#define S3P_BASE_POOL_H

#include "base/str.h"

struct pool;

/* max_bytes bounds all that is ever taken from it. NULL when out of memory. */
struct pool *pool_create(size_t max_bytes);
/* For something that stays: the first block has room for that much and little more. */
struct pool *pool_create_for(size_t bytes, size_t max_bytes);
size_t pool_bytes(const struct pool *p); /* of memory that it holds */
void pool_destroy(struct pool *p);
/* Forget everything but the first block, for reuse by the next request on the connection. */
void pool_reset(struct pool *p);
/* 16-byte aligned, not zeroed. NULL when the bound or memory ran out. */
void *pool_alloc(struct pool *p, size_t n);
void *pool_zalloc(struct pool *p, size_t n);
/* Copy into the pool; the copy is NUL-terminated (not counted in n). {NULL,0} on failure (check p). */
struct str pool_str(struct pool *p, struct str s);
/* printf into the pool; {NULL,0} on failure. */
struct str pool_f(struct pool *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
