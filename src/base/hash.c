/* hash.c - the keyed 128-bit hash and the cheap random numbers.
 *
 * The secret is drawn once per process, so that nobody outside can aim keys at one shard or bucket. It is written
 * before any thread starts and only read afterwards. */
#define XXH_STATIC_LINKING_ONLY /* XXH3_generateSecret */
#include "base/hash.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/random.h>
#include <time.h>
#include <xxhash.h>

#include "base/check.h"

static unsigned char secret[XXH3_SECRET_DEFAULT_SIZE];
static bool secret_ready;

static bool random_fill(void *p, size_t n)
{
    unsigned char *at = p;
    while (n) {
        ssize_t r = getrandom(at, n, 0);
        if (r < 0) {
            if (errno == EINTR) continue;
            return false;
        }
        at += r;
        n -= (size_t)r;
    }
    return true;
}

enum err hash_init(void)
{
    unsigned char seed[64];
    if (!random_fill(seed, sizeof seed)) return ERR_IO;
    if (XXH3_generateSecret(secret, sizeof secret, seed, sizeof seed) != XXH_OK) return ERR_INTERNAL;
    secret_ready = true;
    return ERR_OK;
}

struct hash128 hash_bytes(const void *p, size_t n)
{
    CHECK(secret_ready);
    XXH128_hash_t h = XXH3_128bits_withSecret(n ? p : "", n, secret, sizeof secret);
    return (struct hash128){.lo = h.low64, .hi = h.high64};
}

/* splitmix64: one add and two multiplies, passes BigCrush; enough for jitter, sampling and shuffles. */
uint64_t random_u64(void)
{
    static _Thread_local uint64_t state;
    static _Thread_local bool seeded;

    if (unlikely(!seeded)) {
        if (!random_fill(&state, sizeof state)) {
            struct timespec ts; /* not for secrets, so any start will do */
            clock_gettime(CLOCK_MONOTONIC, &ts);
            state = (uint64_t)ts.tv_nsec ^ (uint64_t)ts.tv_sec << 32 ^ (uint64_t)(uintptr_t)&state;
        }
        seeded = true;
    }
    uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
