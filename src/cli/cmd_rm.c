/* cmd_rm.c - deletes objects. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/remove.h"

struct rm_opts {
    bool recursive, dry_run;
    const char *pattern;
    uint64_t jobs;
};

static void rm_defaults(void *opts) { ((struct rm_opts *)opts)->jobs = 16; }

static int remove_trees(struct cli *cli, const struct remove_options *o, const struct place *places, int n, struct removed *sum)
{
    int worst = EXIT_OK;

    for (int i = 0; i < n; i++) {
        const struct place *p = &places[i];
        int code = remove_tree(cli, o, p, sum);
        if (code == EXIT_INTERRUPTED) return code;
        if (code == EXIT_NOT_THERE && (p->key.n || o->pattern)) /* an error has been told, or: */
            cli_note(cli, "nothing to delete in s3://" STR_FMT "/" STR_FMT, STR_ARG(p->bucket), STR_ARG(p->key));
        if (worst == EXIT_OK || code == EXIT_FAILED) worst = code == EXIT_OK ? worst : code;
    }
    return worst;
}

static void tell(const struct cli *cli, const struct removed *sum)
{
    if (cli->json)
        cli_print_json(json_pack("{sIsI}", "deleted", (json_int_t)sum->deleted, "failed", (json_int_t)sum->failed));
    else if (!cli->quiet)
        printf("%llu object%s deleted\n", (unsigned long long)sum->deleted, sum->deleted == 1 ? "" : "s");
}

static bool read_places(const struct rm_opts *o, int nargs, char **args, struct place *places)
{
    for (int i = 0; i < nargs; i++) {
        if (!cli_read_place(args[i], false, &places[i])) return false;
        if (places[i].key.n || o->recursive) continue;
        cli_error("%s names no object: with -r all that is in the bucket is deleted", args[i]);
        return false;
    }
    if (!o->pattern || o->recursive) return true;
    cli_error("--pattern chooses among what -r finds: give both");
    return false;
}

static int run_rm(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct rm_opts *o = opts;
    struct place *places = calloc((size_t)nargs, sizeof *places);
    struct pattern *pattern = NULL;
    struct removed sum = {0};
    char msg[256];
    int code = EXIT_USAGE;

    if (!places) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    if (read_places(o, nargs, args, places)) {
        if (o->pattern && !pattern_open(o->pattern, &pattern, msg, sizeof msg)) {
            cli_error("--pattern %s: %s", o->pattern, msg);
        } else {
            struct remove_options how = {(unsigned)o->jobs, o->dry_run, pattern};
            code = o->recursive ? remove_trees(cli, &how, places, nargs, &sum)
                                : remove_named(cli, &how, places, (size_t)nargs, &sum);
            if (!o->dry_run) tell(cli, &sum);
        }
    }
    pattern_close(pattern);
    free(places);
    return code;
}

static const struct opt rm_options[] = {
    {'r', "recursive", OPT_FLAG, NULL, offsetof(struct rm_opts, recursive), 0, 0, "the object KEY and everything below KEY/"},
    {'p', "pattern", OPT_TEXT, "REGEX", offsetof(struct rm_opts, pattern), 0, 0, "with -r: only keys in which it is found"},
    {'j', "jobs", OPT_UINT, "N", offsetof(struct rm_opts, jobs), 1, REMOVE_JOBS_MAX, "requests at a time (default 16)"},
    {'n', "dry-run", OPT_FLAG, NULL, offsetof(struct rm_opts, dry_run), 0, 0, "only print what would be deleted"},
    {.name = NULL},
};
const struct command command_rm = {
    .name = "rm",
    .alias = "delete",
    .args = "s3://BUCKET/KEY...",
    .summary = "Delete objects",
    .details = "Named objects are deleted one by one; with -r, those that a listing finds, a thousand with a request. Then the\n"
               "proxy drops all of that bucket from its cache; a named object leaves it alone. A KEY ends at a slash: with -r\n"
               "s3://b/run1 means s3://b/run1 and s3://b/run1/..., never s3://b/run10. Deleting what is not there is no error\n"
               "without -r, as in S3. In a bucket with versions, delete markers are what is made.\n"
               "Every key that could not be deleted is told. With --json one document: deleted, failed; with --dry-run one\n"
               "object per line: uri. Exit status 3: -r found nothing.\n" PATTERN_HELP,
    .opts = rm_options,
    .opts_bytes = sizeof(struct rm_opts),
    .min_args = 1,
    .max_args = -1,
    .run = run_rm,
    .defaults = rm_defaults,
};
