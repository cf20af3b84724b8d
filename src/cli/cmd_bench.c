/* cmd_bench.c - a load like warp's, through the proxy. See bench.h. */
#include <stdlib.h>

#include "base/units.h"
#include "cli/bench.h"
#include "cli/commands.h"

struct bench_options {
    uint64_t objects, concurrency, duration_ms, ops, range_bytes, put_percent;
    const char *size;
    bool ranges, prepare, no_prepare, cleanup, verify, bypass;
};

static void defaults(void *opts)
{
    struct bench_options *o = opts;

    o->objects = 1000;
    o->size = "1MiB";
    o->concurrency = 32;
}

/* As many connections as there are slots, unless another number was asked for. */
static void adjust(struct cli *cli, const void *opts)
{
    const struct bench_options *o = opts;

    if (!cli->net_options.connections) cli->net_options.connections = o->concurrency;
}

/* ---- what is asked for */

static bool usage(const char *what)
{
    cli_error("bench: %s", what);
    return false;
}

static bool read_kind(struct bench_conf *c, const char *kind)
{
    c->gets = strcmp(kind, "get") == 0 || strcmp(kind, "mixed") == 0;
    c->puts = strcmp(kind, "put") == 0 || strcmp(kind, "mixed") == 0;
    c->kind = kind;
    if (c->gets || c->puts) return true;
    cli_error("bench %s: expected get, put or mixed", kind);
    return false;
}

static bool fits(const struct bench_conf *c, const struct bench_options *o)
{
    bool get = c->gets && !c->puts;

    if (o->duration_ms && o->ops) return usage("--duration and --ops exclude each other");
    if (o->range_bytes && !o->ranges) return usage("--range-size is of --ranges");
    if (!c->gets && (o->ranges || o->verify || o->bypass)) return usage("--ranges, --verify and --bypass are of get and mixed");
    if (o->put_percent && !(c->gets && c->puts)) return usage("--puts is of mixed");
    if (o->no_prepare && !get) return usage("--no-prepare is of get: it writes nothing over objects that are not its own");
    if (o->prepare && !c->gets) return usage("--prepare is of get and mixed");
    if (o->no_prepare && o->prepare) return usage("--prepare and --no-prepare exclude each other");
    if (o->no_prepare && o->cleanup) return usage("--cleanup removes what was put: with --no-prepare there is nothing");
    if (o->prepare && o->cleanup) return usage("--prepare leaves its objects there for another run: not with --cleanup");
    return true;
}

static bool read_conf(struct bench *b, const struct bench_options *o, char **args)
{
    struct bench_conf *c = &b->conf;
    struct bench_sizes sizes;
    struct place place;

    if (!read_kind(c, args[0]) || !fits(c, o)) return false;
    if (place_parse(args[1], &place) != ERR_OK || !place.bucket.n) {
        cli_error("bench: %s: expected s3://BUCKET/PREFIX", args[1]);
        return false;
    }
    if (!bench_sizes_parse(o->size, &sizes)) {
        cli_error("--size %s: expected a size such as 1MiB of at most 5GiB, or two such as 4KiB:1MiB", o->size);
        return false;
    }
    c->concurrency = (unsigned)o->concurrency;
    c->ops = o->ops;
    c->duration_ms = o->ops ? 0 : o->duration_ms ? o->duration_ms : 10000;
    c->range_bytes = o->ranges ? o->range_bytes ? o->range_bytes : 64 << 10 : 0;
    c->put_percent = o->put_percent ? (unsigned)o->put_percent : 30;
    c->verify = o->verify;
    c->bypass = o->bypass;
    if (!bench_objects_init(&b->objects, place.bucket, place.key, o->objects, sizes)) return usage(err_text(ERR_NOMEM));
    return true;
}

/* ---- the phases */

static int make_ready(struct bench *b, const struct bench_options *o)
{
    int code = EXIT_OK;

    if (o->no_prepare) return bench_objects_list(b->cli, &b->objects);
    if (b->conf.gets || o->cleanup) code = bench_objects_find(b->cli, &b->objects);
    if (code != EXIT_OK || !b->conf.gets) return code;
    code = bench_prepare(b);
    if (b->prepared) cli_note(b->cli, "put %llu objects", (unsigned long long)b->prepared);
    return code;
}

static int measure(struct bench *b)
{
    int code = bench_load(b);

    if (b->cli->json) {
        if (!cli_print_json(bench_json(b)) && code == EXIT_OK) code = EXIT_FAILED;
    } else {
        bench_print(b, stdout);
        fflush(stdout);
    }
    if (code == EXIT_OK && b->sides[BENCH_GETS].errors + b->sides[BENCH_PUTS].errors) code = EXIT_FAILED;
    return code;
}

static int run_all(struct bench *b, const struct bench_options *o)
{
    int code = make_ready(b, o), clean;

    if (code == EXIT_OK && o->prepare) {
        if (!b->cli->quiet && !b->cli->json)
            printf("%llu objects are there, %llu of them new\n", (unsigned long long)b->objects.n, (unsigned long long)b->prepared);
        if (b->cli->json)
            cli_print_json(json_pack("{sIsI}", "objects", (json_int_t)b->objects.n, "prepared", (json_int_t)b->prepared));
        return code;
    }
    if (code == EXIT_OK) code = measure(b);
    if (!o->cleanup) return code;
    clean = bench_cleanup(b);
    if (b->removed) cli_note(b->cli, "removed %llu objects", (unsigned long long)b->removed);
    return code == EXIT_OK ? clean : code;
}

static int run_bench(struct cli *cli, const void *opts, int nargs, char **args)
{
    struct bench *b = calloc(1, sizeof *b);
    int code = EXIT_USAGE;

    (void)nargs;
    if (b) b->pattern = bench_pattern_create();
    if (!b || !b->pattern) {
        cli_error("%s", err_text(ERR_NOMEM));
        free(b);
        return EXIT_FAILED;
    }
    b->cli = cli;
    if (read_conf(b, opts, args)) code = run_all(b, opts);
    bench_objects_free(&b->objects);
    bench_pattern_destroy(b->pattern);
    free(b);
    return code;
}

static const struct opt options[] = {
    {'n', "objects", OPT_UINT, "N", offsetof(struct bench_options, objects), 1, 100000000, "so many objects (default 1000)"},
    {'s', "size", OPT_TEXT, "SIZE", offsetof(struct bench_options, size), 0, 0,
     "of an object (default 1MiB); 4KiB:1MiB: log-uniform between the two"},
    {'c', "concurrency", OPT_UINT, "N", offsetof(struct bench_options, concurrency), 1, 1024, "operations side by side (default 32)"},
    {'d', "duration", OPT_DURATION, "TIME", offsetof(struct bench_options, duration_ms), 1, 31536000000, "of the load (default 10s)"},
    {0, "ops", OPT_UINT, "N", offsetof(struct bench_options, ops), 1, 0, "so many operations instead of a duration"},
    {0, "ranges", OPT_FLAG, NULL, offsetof(struct bench_options, ranges), 0, 0, "read random ranges, not whole objects"},
    {0, "range-size", OPT_SIZE, "SIZE", offsetof(struct bench_options, range_bytes), 1, BENCH_OBJECT_MAX, "of --ranges (default 64KiB)"},
    {0, "puts", OPT_UINT, "PERCENT", offsetof(struct bench_options, put_percent), 1, 99, "of the operations of mixed (default 30)"},
    {0, "prepare", OPT_FLAG, NULL, offsetof(struct bench_options, prepare), 0, 0,
     "only put the objects, for runs with the same --objects and --size"},
    {0, "no-prepare", OPT_FLAG, NULL, offsetof(struct bench_options, no_prepare), 0, 0,
     "put nothing: read what is below the prefix, at most --objects"},
    {0, "cleanup", OPT_FLAG, NULL, offsetof(struct bench_options, cleanup), 0, 0, "remove the objects that this run put"},
    {0, "verify", OPT_FLAG, NULL, offsetof(struct bench_options, verify), 0, 0, "check every byte that is read"},
    {0, "bypass", OPT_FLAG, NULL, offsetof(struct bench_options, bypass), 0, 0,
     "ask past the cache (S3dlio-Cache: bypass; the route must allow it)"},
    {.name = NULL},
};

const struct command command_bench = {
    .name = "bench",
    .args = "get|put|mixed s3://BUCKET/PREFIX",
    .summary = "Load the proxy and measure throughput, latencies and hit ratio",
    .details =
        "Works on objects PREFIX/" BENCH_NAME "NNNNNNNN, and puts those that are missing first (get, mixed). They stay, unless\n"
        "--cleanup is given. Their bytes are computed from their names, so that --verify can check each of them.\n"
        "get reads objects at random, put writes one after the other, mixed does both.\n"
        "The answers' X-Cache headers tell what came out of the cache and what did not: a repeated run measures the cache.\n"
        "An interrupt prints what was measured so far. Exit status 1: at least one operation failed.\n",
    .opts = options,
    .opts_bytes = sizeof(struct bench_options),
    .min_args = 2,
    .max_args = 2,
    .run = run_bench,
    .defaults = defaults,
    .adjust = adjust,
};
