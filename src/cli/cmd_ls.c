/* cmd_ls.c - what is in a bucket, printed as it comes: memory holds a few pages of the listing, whatever its length. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/buckets.h"
#include "cli/commands.h"
#include "cli/lister.h"
#include "cli/pattern.h"

struct ls_opts {
    bool recursive, count_only, bytes, uris, null;
    const char *pattern;
};
struct listing {
    struct cli *cli;
    const struct ls_opts *o;
    struct place place;
    struct pattern *pattern;
    struct strbuf text;
    uint64_t objects, prefixes, bytes;
};

static void print_text(struct listing *w, const struct listed *e)
{
    char size[32];

    if (e->is_prefix) snprintf(size, sizeof size, "DIR");
    else if (w->o->bytes) snprintf(size, sizeof size, "%llu", (unsigned long long)e->size);
    else human_bytes((double)e->size, size, sizeof size);
    printf("%-20s  %12s  ", printable_time(e->modified, &w->text), size);
}

static void print_uri(struct listing *w, const struct listed *e)
{
    printf("s3://" STR_FMT "/", STR_ARG(w->place.bucket));
    if (w->o->null) {
        fwrite(e->key.p, 1, e->key.n, stdout);
        putchar('\0');
    } else {
        puts(printable(e->key, &w->text));
    }
}

static json_t *entry_json(struct listing *w, const struct listed *e)
{
    w->text.n = 0;
    strbuf_z(&w->text, "s3://");
    strbuf_str(&w->text, w->place.bucket);
    strbuf_ch(&w->text, '/');
    strbuf_str(&w->text, e->key);
    json_t *uri = w->text.failed ? NULL : cli_json_str(strbuf_get(&w->text));
    if (e->is_prefix) return json_pack("{sososb}", "uri", uri, "key", cli_json_str(e->key), "prefix", 1);
    return json_pack("{sososIsososo}", "uri", uri, "key", cli_json_str(e->key), "size", (json_int_t)e->size, "etag",
                     cli_json_str(e->etag), "modified", cli_json_str(e->modified), "storage_class", cli_json_str(e->storage_class));
}

/* False: nobody takes what is printed any more. */
static bool take(struct listing *w, const struct listed *e)
{
    if (!pattern_matches(w->pattern, e->key)) return true;
    if (e->is_prefix) w->prefixes++;
    else w->objects++;
    w->bytes += e->size;
    if (w->o->count_only) return true;
    if (w->cli->json) return cli_print_json_line(entry_json(w, e));
    if (!w->o->uris && !w->o->null) print_text(w, e);
    print_uri(w, e);
    return !ferror(stdout);
}

/* EXIT_OK: the listing came to its end, or the reader left. */
static int list_all(struct listing *w)
{
    struct lister *l;
    struct listed *e = NULL;
    enum err why = lister_open(&w->cli->net, w->place.bucket, w->place.key, w->o->recursive ? STR_LIT("") : STR_LIT("/"), 0, NULL,
                               NULL, &l);
    bool going = why == ERR_OK;

    if (why != ERR_OK) {
        cli_error("%s", err_text(why));
        return EXIT_FAILED;
    }
    while (going) {
        why = lister_next(l, &e);
        if (why == ERR_AGAIN) {
            fflush(stdout); /* what is there is shown before the next page is waited for */
            why = lister_wait(l, &e);
        }
        going = why == ERR_OK && take(w, e);
        free(e);
    }
    int code = why == ERR_OK || why == ERR_END    ? EXIT_OK
               : why == ERR_CANCELLED ? EXIT_INTERRUPTED
                                      : cli_failed(lister_failure(l), "list", w->place.bucket, w->place.key);
    lister_close(l);
    return code;
}

static void print_count(const struct listing *w)
{
    char human[32];

    if (w->cli->json) {
        cli_print_json(json_pack("{sIsIsI}", "objects", (json_int_t)w->objects, "bytes", (json_int_t)w->bytes, "prefixes",
                                 (json_int_t)w->prefixes));
        return;
    }
    printf("%llu objects, ", (unsigned long long)w->objects);
    if (w->o->bytes) printf("%llu bytes", (unsigned long long)w->bytes);
    else printf("%s", human_bytes((double)w->bytes, human, sizeof human));
    if (w->prefixes) printf(", %llu directories", (unsigned long long)w->prefixes);
    putchar('\n');
}

static int ls_place(struct listing *w)
{
    int code = list_all(w);

    if (code != EXIT_OK) return code;
    if (w->o->count_only) {
        print_count(w);
    } else if (w->objects + w->prefixes == 0 && !ferror(stdout) && (w->place.key.n || w->pattern)) {
        cli_error("nothing %s s3://" STR_FMT "/" STR_FMT, w->pattern ? "matches in" : "begins with", STR_ARG(w->place.bucket),
                  STR_ARG(w->place.key));
        return EXIT_NOT_THERE;
    }
    return EXIT_OK;
}

static int run_ls(struct cli *cli, const void *opts, int nargs, char **args)
{
    struct listing w = {.cli = cli, .o = opts};
    char msg[256];

    if (nargs == 0 || strcmp(args[0], "s3://") == 0) return buckets_list(cli);
    if (!cli_read_place(args[0], false, &w.place)) return EXIT_USAGE;
    if (w.o->pattern && !pattern_open(w.o->pattern, &w.pattern, msg, sizeof msg)) {
        cli_error("--pattern %s: %s", w.o->pattern, msg);
        return EXIT_USAGE;
    }
    strbuf_init(&w.text, 0);
    int code = ls_place(&w);
    strbuf_free(&w.text);
    pattern_close(w.pattern);
    return code;
}

static const struct opt ls_options[] = {
    {'r', "recursive", OPT_FLAG, NULL, offsetof(struct ls_opts, recursive), 0, 0, "everything below, not only one level"},
    {'p', "pattern", OPT_TEXT, "REGEX", offsetof(struct ls_opts, pattern), 0, 0, "only keys in which it is found"},
    {'c', "count-only", OPT_FLAG, NULL, offsetof(struct ls_opts, count_only), 0, 0, "print how many there are, and their bytes"},
    {'b', "bytes", OPT_FLAG, NULL, offsetof(struct ls_opts, bytes), 0, 0, "sizes in bytes"},
    {'1', "uris", OPT_FLAG, NULL, offsetof(struct ls_opts, uris), 0, 0, "print URIs only, one to a line"},
    {'0', "null", OPT_FLAG, NULL, offsetof(struct ls_opts, null), 0, 0,
     "print URIs only, as they are, each with a zero byte behind it (xargs -0)"},
    {.name = NULL},
};
const struct command command_ls = {
    .name = "ls",
    .alias = "list",
    .args = "[s3://BUCKET[/PREFIX]]",
    .summary = "List objects whose keys begin with a prefix, or all buckets",
    .details = "Prints time (UTC), size and URI, DIR for what several keys share up to a slash. Control characters in keys are\n"
               "shown as \\xNN. With --json one object per line: uri, key, size, etag, modified, storage_class, or uri, key,\n"
               "prefix. Exit status 3: nothing begins with PREFIX, or nothing matches the pattern.\n" PATTERN_HELP,
    .opts = ls_options,
    .opts_bytes = sizeof(struct ls_opts),
    .max_args = 1,
    .run = run_ls,
};
