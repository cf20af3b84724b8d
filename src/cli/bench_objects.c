/* bench_objects.c - which objects a benchmark works on. See bench.h.
 *
 * Its own ones have names and sizes that are computed from their number: nothing is kept of them but two bits. */
#include <math.h>
#include <stdlib.h>

#include "base/pool.h"
#include "base/units.h"
#include "cli/bench.h"
#include "cli/lister.h"

#define NAMES_BYTES ((size_t)1 << 30) /* of listed objects */

bool bench_sizes_parse(const char *text, struct bench_sizes *out)
{
    struct str all = str_c(text);
    size_t colon = str_find(all, ':');

    if (units_parse_size(str_make(all.p, colon), &out->min) != ERR_OK) return false;
    out->max = out->min;
    if (colon == all.n) return out->max <= BENCH_OBJECT_MAX;
    if (units_parse_size(str_make(all.p + colon + 1, all.n - colon - 1), &out->max) != ERR_OK) return false;
    return out->min >= 1 && out->min <= out->max && out->max <= BENCH_OBJECT_MAX;
}

/* Uniform in [0, 1), the same for the same number always (splitmix64). */
static double fraction_of(uint64_t i)
{
    uint64_t z = (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (double)((z ^ z >> 31) >> 11) / (double)(UINT64_C(1) << 53);
}

static uint64_t size_of(const struct bench_sizes *s, uint64_t i)
{
    if (s->min == s->max) return s->min;
    double size = (double)s->min * pow((double)s->max / (double)s->min, fraction_of(i));
    return size >= (double)s->max ? s->max : size <= (double)s->min ? s->min : (uint64_t)size;
}

bool bench_objects_init(struct bench_objects *o, struct str bucket, struct str prefix, uint64_t n, struct bench_sizes sizes)
{
    *o = (struct bench_objects){.n = n, .sizes = sizes, .bucket = bucket, .prefix = prefix};
    o->there = calloc((size_t)(n / 8 + 1), 1);
    o->made = calloc((size_t)(n / 8 + 1), 1);
    return o->there && o->made;
}

void bench_objects_free(struct bench_objects *o)
{
    pool_destroy(o->mem);
    free(o->listed);
    free(o->there);
    free(o->made);
}

/* "s3://b/p" and "s3://b/p/" mean the same place here. */
static void put_prefix(const struct bench_objects *o, struct strbuf *b)
{
    strbuf_str(b, o->prefix);
    if (o->prefix.n && o->prefix.p[o->prefix.n - 1] != '/') strbuf_ch(b, '/');
}

void bench_object(const struct bench_objects *o, uint64_t i, struct strbuf *key, uint64_t *size)
{
    char number[24];

    key->n = 0;
    if (o->listed) {
        strbuf_add(key, o->listed[i].key, o->listed[i].key_n);
        *size = o->listed[i].size;
        return;
    }
    put_prefix(o, key);
    snprintf(number, sizeof number, "%08llu", (unsigned long long)i);
    strbuf_z(key, BENCH_NAME);
    strbuf_z(key, number);
    *size = size_of(&o->sizes, i);
}

/* ---- what is there */

static int list_failed(const struct bench_objects *o, const struct lister *l, enum err e)
{
    struct call_result r = *lister_failure(l);

    if (e == ERR_CANCELLED) return EXIT_INTERRUPTED;
    r.err = e;
    return cli_failed(&r, "list", o->bucket, o->prefix);
}

/* Calls `each` for what is below the prefix, until it says that it wants no more. */
static int each_listed(struct cli *cli, struct bench_objects *o, struct str prefix,
                       bool (*each)(struct bench_objects *o, const struct listed *d))
{
    struct lister *l;
    struct listed *d;
    enum err e = lister_open(&cli->net, o->bucket, prefix, (struct str){NULL, 0}, 0, NULL, NULL, &l);
    bool more = true;

    if (e != ERR_OK) {
        cli_error("%s", err_text(e));
        return EXIT_FAILED;
    }
    while (more && (e = lister_wait(l, &d)) == ERR_OK) {
        more = each(o, d);
        free(d);
    }
    int code = e == ERR_OK || e == ERR_END ? EXIT_OK : list_failed(o, l, e);
    lister_close(l);
    return code;
}

static bool note_there(struct bench_objects *o, const struct listed *d)
{
    uint64_t i;

    if (d->key.n >= 8 && str_to_u64(str_make(d->key.p + d->key.n - 8, 8), &i) && i < o->n && d->size == size_of(&o->sizes, i)) {
        struct strbuf key;
        uint64_t size;
        strbuf_init(&key, 4096);
        bench_object(o, i, &key, &size);
        if (str_eq(strbuf_get(&key), d->key)) bench_bit_set(o->there, i);
        strbuf_free(&key);
    }
    return true;
}

int bench_objects_find(struct cli *cli, struct bench_objects *o)
{
    struct strbuf prefix;

    strbuf_init(&prefix, 4096);
    put_prefix(o, &prefix);
    strbuf_z(&prefix, BENCH_NAME);
    int code = prefix.failed ? EXIT_FAILED : each_listed(cli, o, strbuf_get(&prefix), note_there);
    if (prefix.failed) cli_error("the prefix is too long");
    strbuf_free(&prefix);
    return code;
}

static bool take(struct bench_objects *o, const struct listed *d)
{
    struct str key = pool_str(o->mem, d->key);

    if (d->key.n == 0 || !key.p) return false; /* what fits is taken */
    o->listed[o->n++] = (struct bench_listed){key.p, (uint32_t)key.n, d->size};
    return o->n < o->most;
}

int bench_objects_list(struct cli *cli, struct bench_objects *o)
{
    o->most = o->n;
    o->mem = pool_create(NAMES_BYTES);
    o->listed = calloc((size_t)o->most, sizeof *o->listed);
    if (!o->mem || !o->listed) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    o->n = 0;
    int code = each_listed(cli, o, o->prefix, take);
    if (code == EXIT_OK && o->n == 0) {
        cli_error("there are no objects below s3://" STR_FMT "/" STR_FMT, STR_ARG(o->bucket), STR_ARG(o->prefix));
        code = EXIT_NOT_THERE;
    }
    return code;
}
