/* bench_pattern.c - the bytes of a benchmark's objects. See bench.h. */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "cli/bench.h"

struct bench_pattern {
    uint8_t pool[2 * BENCH_POOL]; /* the same bytes twice: any run of BENCH_POOL is in a row */
};

/* xorshift64*: the same bytes in every run and on every machine, and nothing that compresses. */
struct bench_pattern *bench_pattern_create(void)
{
    struct bench_pattern *p = malloc(sizeof *p);
    uint64_t x = UINT64_C(0x9e3779b97f4a7c15);

    if (!p) return NULL;
    for (size_t i = 0; i < BENCH_POOL; i++) {
        x ^= x >> 12, x ^= x << 25, x ^= x >> 27;
        p->pool[i] = (uint8_t)(x * UINT64_C(2685821657736338717) >> 56);
    }
    memcpy(p->pool + BENCH_POOL, p->pool, BENCH_POOL);
    return p;
}

void bench_pattern_destroy(struct bench_pattern *p) { free(p); }

uint64_t bench_seed(struct str key) { return XXH3_64bits(key.n ? key.p : "", key.n) % BENCH_POOL; }

const uint8_t *bench_bytes(const struct bench_pattern *p, uint64_t seed, uint64_t at) { return p->pool + (seed + at) % BENCH_POOL; }

bool bench_check(const struct bench_pattern *p, uint64_t seed, uint64_t at, const uint8_t *bytes, size_t n)
{
    while (n) {
        size_t part = n < BENCH_POOL ? n : BENCH_POOL;
        if (memcmp(bytes, bench_bytes(p, seed, at), part) != 0) return false;
        bytes += part;
        at += part;
        n -= part;
    }
    return true;
}

/* ---- as a request's body: nothing is copied */

struct pattern_body {
    struct body body;
    const struct bench_pattern *pattern;
    uint64_t seed, at, length;
};

static enum err pattern_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct pattern_body *p = container_of(b, struct pattern_body, body);
    uint64_t left = p->length - p->at;
    size_t take = left < BENCH_POOL ? (size_t)left : BENCH_POOL;

    if (left == 0 || max == 0) return ERR_END;
    if (take > max_bytes) take = max_bytes;
    out[0] = (struct chunk){.data = bench_bytes(p->pattern, p->seed, p->at), .len = take, .fd = -1};
    p->at += take;
    *n = 1;
    return ERR_OK;
}

static void pattern_close(struct body *b) { free(container_of(b, struct pattern_body, body)); }

struct body *bench_body(const struct bench_pattern *pattern, uint64_t seed, uint64_t length)
{
    static const struct body_ops ops = {pattern_pull, pattern_close};
    struct pattern_body *p = calloc(1, sizeof *p);

    if (!p) return NULL;
    p->body = (struct body){.ops = &ops, .length = (int64_t)length};
    p->pattern = pattern;
    p->seed = seed;
    p->length = length;
    return &p->body;
}
