/* hash.h - 128-bit keyed hash (XXH3 with a random per-process secret, from libxxhash). Thread-safe after hash_init. */
#ifndef S3P_BASE_HASH_H
#define S3P_BASE_HASH_H

#include "base/err.h"
#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t lo, hi;
};

/* Once, before any thread starts: draws the secret from getrandom(2). ERR_IO when it cannot. */
enum err hash_init(void);
struct hash128 hash_bytes(const void *p, size_t n);
/* Random 64 bits, thread-local generator seeded from getrandom(2); not for secrets. */
uint64_t random_u64(void);

#endif
