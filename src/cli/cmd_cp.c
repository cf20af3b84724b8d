/* cmd_cp.c - cp: between here and there, and from there to there. */
#include <stdlib.h>

#include "cli/cmd_transfer.h"
#include "cli/commands.h"
#include "cli/copy.h"
#include "cli/paths.h"
#include "cli/sources.h"

struct cp_opts {
    struct put_opts put;
    bool resume, no_clobber, keep_mtime;
};

#define AT(field) offsetof(struct cp_opts, field)
static const struct opt cp_opts[] = {
    TRANSFER_OPTS(struct cp_opts, put.common),
    {'r', "recursive", OPT_FLAG, NULL, AT(put.recursive), 0, 0, "everything in a directory, or below KEY/"},
    {0, "continue", OPT_FLAG, NULL, AT(resume), 0, 0, "to here: go on with what an earlier run left"},
    {0, "no-clobber", OPT_FLAG, NULL, AT(no_clobber), 0, 0, "to here: leave files that exist alone"},
    {0, "preserve-mtime", OPT_FLAG, NULL, AT(keep_mtime), 0, 0, "to here: files get the time of the object"},
    PUT_OPTS(struct cp_opts, put.),
    {.name = NULL},
};
#undef AT

static void cp_defaults(void *opts)
{
    struct cp_opts *o = opts;
    o->put.common.part_size = 0; /* told from one that was given */
}

static int copy_run(struct cli *cli, const struct cp_opts *o, int nargs, char **args)
{
    struct hdr hdrs[PUT_HDRS_MAX];
    struct copy_conf conf = {.hdrs = hdrs, .whole_max = o->put.common.part_size ? o->put.common.part_size : COPY_WHOLE_MAX};
    struct transfer t = {.cli = cli, .net = &cli->net, .begin = copy_begin, .arg = &conf};
    struct remote_source_conf from = {.cli = cli, .uris = args, .nuris = nargs - 1, .recursive = o->put.recursive, .globs = true};
    struct place to, p;
    struct strbuf key;
    char *text = NULL;
    int code = EXIT_USAGE;

    place_parse(args[nargs - 1], &to);
    bool prefix = to.key.n == 0 || to.key.p[to.key.n - 1] == '/';
    place_parse(args[0], &p);
    from.to_exact = !prefix && !o->put.recursive && nargs == 2 && !place_has_glob(p.key);
    if (!o->put.recursive && !have_pattern(args, nargs - 1) && paths_collide(args, nargs - 1, "object")) return EXIT_USAGE;
    strbuf_init(&key, 0);
    strbuf_str(&key, to.key);
    if (!prefix && !from.to_exact) strbuf_ch(&key, '/');
    from.to_bucket = to.bucket;
    from.to_prefix = key.n ? strbuf_get(&key) : STR_LIT("");
    transfer_take_opts(&t.o, &o->put.common);
    if (!o->put.common.part_size) t.o.part_bytes = (uint64_t)512 << 20; /* nothing of it comes here */
    if (put_hdrs(&o->put, hdrs, &conf.nhdrs, &text)) {
        t.source = source_remote(&from);
        if (t.source) code = transfer_run(&t, "copying");
        else cli_error("%s", err_text(ERR_NOMEM));
    }
    free(text);
    strbuf_free(&key);
    return code;
}

static int check_places(int nargs, char **args)
{
    bool to_remote = place_is_remote(args[nargs - 1]), from_remote = place_is_remote(args[0]);
    struct place p;

    for (int i = 0; i < nargs; i++) {
        bool remote = place_is_remote(args[i]);
        if (remote && (place_parse(args[i], &p) != ERR_OK || p.bucket.n == 0)) {
            cli_error("%s: expected s3://BUCKET/KEY", args[i]);
            return EXIT_USAGE;
        }
        if (i < nargs - 1 && remote != from_remote) {
            cli_error("sources are either all s3:// or all files");
            return EXIT_USAGE;
        }
    }
    if (to_remote || from_remote) return -1;
    cli_error("neither side is an s3:// URI");
    return EXIT_USAGE;
}

static int run_cp(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct cp_opts *o = opts;
    int code = check_places(nargs, args);
    struct put_opts put = o->put;

    if (code >= 0) return code;
    if (place_is_remote(args[0]) && place_is_remote(args[nargs - 1])) return copy_run(cli, o, nargs, args);
    if (!put.common.part_size) put.common.part_size = TRANSFER_PART_BYTES;
    if (!place_is_remote(args[0])) return put_run(cli, &put, nargs, args);
    struct get_opts get = {.common = put.common, .output = args[nargs - 1], .recursive = put.recursive, .resume = o->resume,
                           .no_clobber = o->no_clobber, .keep_mtime = o->keep_mtime, .length = UINT64_MAX};
    return get_run(cli, &get, nargs - 1, args, true);
}

const struct command command_cp = {
    .name = "cp",
    .args = "SOURCE... TARGET",
    .summary = "Copy files to objects, objects to files, objects to objects",
    .details = "Files to objects as put and upload do, objects to files as download does, and objects to objects without their\n"
               "bytes coming here: those of more than 5 GiB (or --part-size, where given) in parts. A target that ends with a\n"
               "slash, several sources, and -r keep the paths behind the last slash of the source.\n",
    .opts = cp_opts,
    .opts_bytes = sizeof(struct cp_opts),
    .min_args = 2,
    .max_args = -1,
    .defaults = cp_defaults,
    .adjust = transfer_adjust,
    .run = run_cp,
};
