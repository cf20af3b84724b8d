/* cmd_purge.c - drops objects from the proxy's cache; what the origin holds is not touched. */
#include <jansson.h>
#include <string.h>

#include "cli/admin.h"
#include "cli/commands.h"

struct purge_opts {
    bool all, recursive;
    const char *prefix;
};

static int purge_one(struct cli *cli, const char *kind, const char *what, int64_t *purged)
{
    json_t *answer, *body = what ? json_pack("{so}", kind, admin_place(what)) : json_pack("{sb}", kind, 1);
    int code = admin_post_json(cli, "purge", body, &answer);

    if (code != EXIT_OK) return code;
    const json_t *n = json_object_get(answer, "purged");
    if (json_is_integer(n)) *purged += json_integer_value(n);
    else code = admin_not_understood(cli, "purge");
    json_decref(answer);
    return code;
}

static bool check(const struct purge_opts *o, int nargs, char **args)
{
    if ((nargs > 0) + (o->prefix != NULL) + o->all != 1) {
        cli_error("purge: expected objects, --prefix PREFIX or --all, one of them");
        return false;
    }
    if (o->recursive && nargs == 0) {
        cli_error("purge: -r makes prefixes of arguments, and there are none");
        return false;
    }
    for (int i = 0; i < nargs; i++)
        if (!admin_read_place(args[i], !o->recursive)) return false;
    return !o->prefix || admin_read_place(o->prefix, false);
}

static int run_purge(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct purge_opts *o = opts;
    int64_t purged = 0;
    int code = EXIT_OK;

    if (!check(o, nargs, args)) return EXIT_USAGE;
    if (o->all) code = purge_one(cli, "all", NULL, &purged);
    else if (o->prefix) code = purge_one(cli, "prefix", o->prefix, &purged);
    for (int i = 0; i < nargs && code == EXIT_OK; i++) code = purge_one(cli, o->recursive ? "prefix" : "uri", args[i], &purged);
    if (code != EXIT_OK) return code;
    if (cli->json) cli_print_json(json_pack("{sI}", "purged", (json_int_t)purged));
    else if (!cli->quiet) printf("%lld object%s dropped from the cache\n", (long long)purged, purged == 1 ? "" : "s");
    return EXIT_OK;
}

static const struct opt purge_options[] = {
    {'r', "recursive", OPT_FLAG, NULL, offsetof(struct purge_opts, recursive), 0, 0, "the arguments are prefixes"},
    {0, "prefix", OPT_TEXT, "PREFIX", offsetof(struct purge_opts, prefix), 0, 0, "all objects whose URIs begin with it"},
    {0, "all", OPT_FLAG, NULL, offsetof(struct purge_opts, all), 0, 0, "the whole cache"},
    {.name = NULL},
};
const struct command command_purge = {
    .name = "purge",
    .args = "[s3://BUCKET/KEY...]",
    .summary = "Drop objects from the proxy's cache",
    .details = "Pinned ones, too. The origin is not touched: the next reader fetches them anew. Prints how many were cached; none is\n"
               "no error. With --json one document: purged.\n",
    .opts = purge_options,
    .opts_bytes = sizeof(struct purge_opts),
    .max_args = -1,
    .run = run_purge,
};
