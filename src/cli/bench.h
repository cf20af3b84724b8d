/* bench.h - load on the proxy, measured: what is asked for, what came of it, and who may touch which part.
 *
 *   bench_pattern.c   the bytes of the objects: computed from their keys, so that every one of them can be checked
 *   bench_objects.c   which objects there are, and how large
 *   bench_run.c       the slots that work side by side, phase by phase (prepare, load, clean up)
 *   bench_count.c     what is counted, bounded whatever the duration
 *   bench_report.c    that as text and as JSON
 *   cmd_bench.c       the command line
 *
 * Main thread only. Memory: slots, one pool of pattern bytes, one scratch buffer, two bits an object, and names of at most
 * --objects listed ones. */
#ifndef S3P_CLI_BENCH_H
#define S3P_CLI_BENCH_H

#include <jansson.h>

#include "base/stat.h"
#include "cli/cli.h"
#include "cli/oplog.h"
#include "cli/progress.h"

#define BENCH_NAME "s3dlio-bench-" /* names of the objects it makes begin so */
#define BENCH_OBJECT_MAX (UINT64_C(5) << 30) /* S3's bound of one PUT */

/* ---- bench_pattern.c: byte i of the object with key K is POOL[(XXH3(K) + i) mod BENCH_POOL], the pool being the same always */

#define BENCH_POOL ((size_t)(4 << 20) + 4093u) /* no multiple of any slice or part: misplaced bytes never compare equal */
struct bench_pattern; /* the pool, about 8 MiB */
struct bench_pattern *bench_pattern_create(void); /* NULL: out of memory */
void bench_pattern_destroy(struct bench_pattern *p);
uint64_t bench_seed(struct str key);
/* The bytes from `at` on, as many as lie in a row (at least BENCH_POOL). */
const uint8_t *bench_bytes(const struct bench_pattern *p, uint64_t seed, uint64_t at);
bool bench_check(const struct bench_pattern *p, uint64_t seed, uint64_t at, const uint8_t *bytes, size_t n);
struct body *bench_body(const struct bench_pattern *p, uint64_t seed, uint64_t length); /* NULL: out of memory */

/* ---- bench_objects.c */

struct bench_sizes {
    uint64_t min, max; /* bytes, both included; log-uniform between them */
};
/* "1MiB" or "4KiB:1MiB". */
bool bench_sizes_parse(const char *text, struct bench_sizes *out);

struct bench_objects {
    uint64_t n;
    struct bench_sizes sizes;
    struct str bucket, prefix;  /* the prefix as it was given */
    /* of listed ones; NULL: names and sizes are computed */
    struct pool *mem;
    uint64_t most;              /* rows of listed */
    struct bench_listed {
        const char *key;
        uint32_t key_n;
        uint64_t size;
    } *listed;
    uint8_t *there, *made;      /* bits: was there with its size before; is from this run */
};
bool bench_objects_init(struct bench_objects *o, struct str bucket, struct str prefix, uint64_t n, struct bench_sizes sizes);
void bench_objects_free(struct bench_objects *o);
/* The key of object i < n into key (a buffer of the caller's), and its size. */
void bench_object(const struct bench_objects *o, uint64_t i, struct strbuf *key, uint64_t *size);
/* Finds out which computed objects are there; an exit code, what is wrong was said. */
int bench_objects_find(struct cli *cli, struct bench_objects *o);
/* Takes what is there below the prefix, at most o->n objects; the same. EXIT_NOT_THERE: nothing. */
int bench_objects_list(struct cli *cli, struct bench_objects *o);
static inline bool bench_bit(const uint8_t *bits, uint64_t i) { return bits[i / 8] >> (i % 8) & 1; }
static inline void bench_bit_set(uint8_t *bits, uint64_t i) { bits[i / 8] = (uint8_t)(bits[i / 8] | 1u << (i % 8)); }

/* ---- bench_count.c */

#define BENCH_OUTCOMES(X) X(HIT) X(PARTIAL) X(MISS) X(REVALIDATED) X(STALE) X(BYPASS)
enum bench_outcome { /* of X-Cache */
#define X(name) BENCH_##name,
    BENCH_OUTCOMES(X)
#undef X
    BENCH_UNTOLD, /* no such header: not the proxy's, or not through a cache */
    BENCH_OUTCOME_N
};
extern const char *const bench_outcome_names[BENCH_OUTCOME_N];
enum bench_outcome bench_outcome_of(struct str x_cache);

/* All of one kind of operation. */
struct bench_side {
    uint64_t ops, errors, retries, bytes; /* ops: done well; bytes: of whole operations and, of GETs, of those cut off by the end */
    uint64_t wrong;                       /* errors that were wrong bytes or a wrong length */
    uint64_t outcomes[BENCH_OUTCOME_N], outcome_bytes[BENCH_OUTCOME_N];
    struct hist first_byte_us, total_us;  /* of those done well */
};
/* Of those that asked a cache, found all (HIT, REVALIDATED, STALE); < 0: none asked. */
double bench_hit_ratio(const uint64_t outcomes[BENCH_OUTCOME_N]);

#define BENCH_SERIES 600u
struct bench_series { /* when it is full, pairs are added up and the step doubles */
    uint64_t step_ms;
    unsigned n;
    struct bench_step {
        uint64_t ops, errors, bytes, hits, asked;
    } steps[BENCH_SERIES];
};
void bench_series_init(struct bench_series *s);
/* The step of a moment, ms since the begin. */
struct bench_step *bench_series_at(struct bench_series *s, uint64_t ms);

#define BENCH_REASONS 8u
struct bench_reasons { /* of failures; those that find no row are counted in `others` */
    unsigned n;
    uint64_t others;
    struct {
        char why[256];
        uint64_t count;
    } rows[BENCH_REASONS];
};
void bench_reason_add(struct bench_reasons *r, const char *why);

/* ---- bench_run.c */

enum bench_kind { BENCH_GETS, BENCH_PUTS, BENCH_DELETES };
struct bench_conf {
    const char *kind;           /* "get", "put", "mixed" */
    bool gets, puts;
    unsigned put_percent;       /* of mixed */
    unsigned concurrency;
    uint64_t duration_ms, ops;  /* 0: no bound; never both */
    uint64_t range_bytes;       /* 0: whole objects */
    bool verify, bypass;
};
struct bench {
    struct cli *cli;
    struct bench_conf conf;
    struct bench_objects objects;
    struct bench_pattern *pattern;
    struct bench_side sides[2]; /* [BENCH_GETS], [BENCH_PUTS]: of the load */
    struct bench_series series;
    struct bench_reasons reasons;
    double seconds;             /* that the load took */
    bool interrupted;
    uint64_t prepared, removed;
};
/* Each an exit code; what is wrong was said. */
int bench_prepare(struct bench *b); /* puts what is not there */
int bench_load(struct bench *b);
int bench_cleanup(struct bench *b); /* removes what is from this run; also after an interrupt, then until the next one */

/* ---- bench_report.c */

void bench_print(const struct bench *b, FILE *f);
json_t *bench_json(const struct bench *b); /* NULL: out of memory */

#endif
