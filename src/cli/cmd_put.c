/* cmd_put.c - put and upload: files and standard input into objects. */
#include <ctype.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cmd_transfer.h"
#include "cli/commands.h"
#include "cli/paths.h"
#include "cli/sources.h"
#include "cli/upload.h"

#define PART_BYTES_MIN ((uint64_t)5 << 20) /* S3 takes no smaller parts but the last */

#define AT(field) offsetof(struct put_opts, field)
static const struct opt put_opts[] = {
    TRANSFER_OPTS(struct put_opts, common),
    {'r', "recursive", OPT_FLAG, NULL, AT(recursive), 0, 0, "what is in directories, however deep"},
    PUT_OPTS(struct put_opts, ),
    {.name = NULL},
};
#undef AT

static void put_defaults(void *opts) { transfer_defaults(&((struct put_opts *)opts)->common); }

/* ---- headers */

static bool is_text(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < ' ' || *s == 0x7f) return false;
    return true;
}

static bool add_hdr(struct hdr *hdrs, unsigned *n, const char *name, const char *value)
{
    if (!value) return true;
    if (!is_text(value) || !*value) {
        cli_error("%s: control characters, or nothing, cannot be its value", name);
        return false;
    }
    hdrs[(*n)++] = (struct hdr){str_c(name), str_c(value), hdr_id_of(str_c(name))};
    return true;
}

static bool is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) return false;
    return n > 0;
}

/* One "name=value", put as "x-amz-meta-name\0value\0". */
static bool add_metadata(struct hdr *hdrs, unsigned *n, struct str pair, char **w)
{
    size_t eq = str_find(pair, '=');
    char *name = *w;

    if (eq == pair.n || !is_token(pair.p, eq) || *n == PUT_HDRS_MAX) {
        cli_error("--metadata " STR_FMT ": expected NAME=VALUE[,NAME=VALUE]..., at most %u of them", STR_ARG(pair), PUT_HDRS_MAX - 3);
        return false;
    }
    *w += sprintf(*w, "x-amz-meta-%.*s", (int)eq, pair.p);
    for (char *p = name; *p; p++) *p = (char)tolower((unsigned char)*p);
    char *value = ++*w;
    *w += sprintf(*w, "%.*s", (int)(pair.n - eq - 1), pair.p + eq + 1) + 1;
    if (!*value) value = name + strlen(name); /* empty: kept so */
    if (!is_text(value)) {
        cli_error("--metadata %s: control characters cannot be in its value", name);
        return false;
    }
    hdrs[(*n)++] = (struct hdr){str_c(name), str_c(value), HDR_OTHER};
    return true;
}

bool put_hdrs(const struct put_opts *o, struct hdr *hdrs, unsigned *n, char **text)
{
    struct str rest = str_c(o->metadata), pair;
    char *w;

    *n = 0;
    *text = w = malloc(14 * (rest.n + 1) + 16);
    if (!w) {
        cli_error("%s", err_text(ERR_NOMEM));
        return false;
    }
    if (!add_hdr(hdrs, n, "content-type", o->content_type) || !add_hdr(hdrs, n, "cache-control", o->cache_control) ||
        !add_hdr(hdrs, n, "x-amz-storage-class", o->storage_class))
        return false;
    while (o->metadata && str_split(&rest, ',', &pair))
        if (!add_metadata(hdrs, n, pair, &w)) return false;
    return true;
}

/* ---- where to */

static int check_target(const char *uri, bool many, struct place *to)
{
    if (place_parse(uri, to) != ERR_OK || to->bucket.n == 0) {
        cli_error("%s: expected s3://BUCKET/KEY or s3://BUCKET/PREFIX/", uri);
        return EXIT_USAGE;
    }
    if (many && to->key.n && to->key.p[to->key.n - 1] != '/') {
        cli_error("%s: several files need a prefix that ends with a slash", uri);
        return EXIT_USAGE;
    }
    return -1;
}

static int start(struct cli *cli, const struct put_opts *o, struct upload_conf *conf, struct source *source)
{
    struct transfer t = {.cli = cli, .net = &cli->net, .begin = upload_begin, .arg = conf, .source = source,
                         .blocked_io = conf->from_stdin};

    if (!source) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    transfer_take_opts(&t.o, &o->common);
    return transfer_run(&t, "uploading");
}

/* The only item: standard input. */
struct one {
    struct source base;
    struct item *item;
};

static enum err one_next(struct source *s, struct item **out, int *code)
{
    struct one *one = container_of(s, struct one, base);

    (void)code;
    *out = one->item;
    one->item = NULL;
    return *out ? ERR_OK : ERR_END;
}

static void one_close(struct source *s)
{
    struct one *one = container_of(s, struct one, base);
    free(one->item);
    free(one);
}

static struct source *source_stdin(const struct place *to)
{
    struct one *one = calloc(1, sizeof *one);

    if (!one) return NULL;
    one->base.next = one_next;
    one->base.close = one_close;
    one->item = item_make(to->bucket, to->key, NULL, (struct str){NULL, 0});
    if (one->item) return &one->base;
    free(one);
    return NULL;
}

int put_run(struct cli *cli, const struct put_opts *o, int nargs, char **args)
{
    bool from_stdin = strcmp(args[0], "-") == 0, patterns = false;
    struct hdr hdrs[PUT_HDRS_MAX];
    struct upload_conf conf = {.hdrs = hdrs, .from_stdin = from_stdin};
    struct place to;
    char *text = NULL;
    int code = check_target(args[nargs - 1], nargs > 2, &to);

    if (code >= 0) return code;
    if (from_stdin && (nargs > 2 || to.key.n == 0 || to.key.p[to.key.n - 1] == '/')) {
        cli_error("standard input goes to one object: name its key");
        return EXIT_USAGE;
    }
    for (int i = 0; i < nargs - 1; i++) patterns |= place_has_glob(str_c(args[i]));
    if (!o->recursive && !patterns && paths_collide(args, nargs - 1, "object")) return EXIT_USAGE;
    if (o->common.part_size < PART_BYTES_MIN) {
        cli_error("--part-size: uploads need parts of at least 5MiB");
        return EXIT_USAGE;
    }
    struct strbuf key;
    strbuf_init(&key, 0);
    strbuf_str(&key, to.key);
    if (o->recursive && to.key.n && to.key.p[to.key.n - 1] != '/') strbuf_ch(&key, '/');
    struct local_source_conf local = {.paths = args, .npaths = nargs - 1, .bucket = to.bucket, .key = strbuf_get(&key), .recursive = o->recursive};
    code = EXIT_USAGE;
    if (put_hdrs(o, hdrs, &conf.nhdrs, &text)) code = start(cli, o, &conf, from_stdin ? source_stdin(&to) : source_local(&local));
    free(text);
    strbuf_free(&key);
    return code;
}

static int run_put(struct cli *cli, const void *opts, int nargs, char **args) { return put_run(cli, opts, nargs, args); }

#define PUT_DETAILS                                                                                                            \
    "Every request says the CRC-32C of its bytes, so that the store can refuse others; what it answers is compared. Files\n"   \
    "larger than --part-size go in parts, side by side; if one fails, or you interrupt, the parts are taken back.\n"

const struct command command_put = {
    .name = "put",
    .args = "FILE|- s3://BUCKET/KEY",
    .summary = "Write a file, or standard input, into an object",
    .details = "Without a key, or with one that ends with a slash, objects get the names of the files; then several files, with -r\n"
               "directories, can be given.\n" PUT_DETAILS,
    .opts = put_opts,
    .opts_bytes = sizeof(struct put_opts),
    .min_args = 2,
    .max_args = -1,
    .defaults = put_defaults,
    .adjust = transfer_adjust,
    .run = run_put,
};

const struct command command_upload = {
    .name = "upload",
    .args = "FILE|PATTERN|DIRECTORY... s3://BUCKET/PREFIX/",
    .summary = "Write files and directories into objects below a prefix",
    .details = "With -r what is in a directory, however deep, goes below the prefix by its path in the directory. Patterns are\n"
               "those of the shell, if it has left them. Links to files are followed, links to directories are not.\n" PUT_DETAILS,
    .opts = put_opts,
    .opts_bytes = sizeof(struct put_opts),
    .min_args = 2,
    .max_args = -1,
    .defaults = put_defaults,
    .adjust = transfer_adjust,
    .run = run_put,
};
