/* cmd_warm.c - has the proxy read objects into its cache, and watches how far it is.
 *
 * The job is the proxy's (warm.c): it goes on when this process ends, also by Ctrl-C, until it is done or cancelled. */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "cli/admin.h"
#include "cli/commands.h"
#include "cli/progress.h"

#define ASK_FIRST_MS 50u
#define ASK_MOST_MS 1000u

struct warm_opts {
    bool recursive, pin, no_wait, status;
    const char *prefix, *manifest, *cancel;
    uint64_t concurrency;
};
struct numbers {
    const char *id, *state;
    uint64_t total, done, failed, bytes;
};

/* False: that is no job. The strings are o's. */
static bool job_read(const json_t *o, struct numbers *n)
{
    json_int_t total, done, failed, bytes;

    if (json_unpack((json_t *)(uintptr_t)o, "{sssss{sIsIsI}s{sI}}", "id", &n->id, "state", &n->state, "objects", "total", &total,
                    "done", &done, "failed", &failed, "bytes", "done", &bytes) != 0)
        return false;
    if (total < 0 || done < 0 || failed < 0 || bytes < 0) return false;
    n->total = (uint64_t)total;
    n->done = (uint64_t)done;
    n->failed = (uint64_t)failed;
    n->bytes = (uint64_t)bytes;
    return true;
}

static void print_job(const struct numbers *n)
{
    char bytes[32];
    printf("%s  %s, %llu of %llu objects, %s", n->id, n->state, (unsigned long long)n->done, (unsigned long long)n->total,
           human_bytes((double)n->bytes, bytes, sizeof bytes));
    if (n->failed) printf(", %llu failed", (unsigned long long)n->failed);
    putchar('\n');
}

static void tell_errors(const json_t *job)
{
    const json_t *e, *errors = json_object_get(job, "errors");
    size_t i;

    json_array_foreach(errors, i, e)
    {
        const char *uri = json_string_value(json_object_get(e, "uri")), *m = json_string_value(json_object_get(e, "message"));
        cli_error("%s%s%s", uri ? uri : "", uri ? ": " : "", m ? m : "?");
    }
}

static bool id_is_valid(const char *id)
{
    size_t n = strlen(id);
    for (const char *c = id; *c; c++)
        if (!isalnum((unsigned char)*c)) n = 0;
    if (n && n <= 64) return true;
    cli_error("warm: '%s' is no job's id", id);
    return false;
}

/* GET or DELETE warm/ID. */
static int ask_job(struct cli *cli, enum method method, const char *id, json_t **job, struct numbers *n)
{
    char name[80];

    snprintf(name, sizeof name, "warm/%s", id);
    int code = admin_ask_json(cli, method, name, (struct str){NULL, 0}, NULL, job);
    if (code == EXIT_OK && !job_read(*job, n)) {
        code = admin_not_understood(cli, "warm");
        json_decref(*job);
        *job = NULL;
    }
    return code;
}

/* ---- watching */

struct nap {
    struct timer timer;
    struct net *net;
};
static void nap_over(struct timer *t) { net_stop(container_of(t, struct nap, timer)->net); }

/* False: interrupted. */
static bool nap(struct net *net, unsigned ms)
{
    struct nap n = {.net = net};

    timer_init(&n.timer, net->loop, nap_over);
    timer_set(&n.timer, ms);
    bool on = net_run(net);
    timer_stop(&n.timer);
    return on;
}

static int outcome(struct cli *cli, json_t *job, const struct numbers *n)
{
    bool good = strcmp(n->state, "done") == 0 && n->failed == 0;

    if (!good) tell_errors(job);
    if (cli->json) cli_print_json(json_incref(job));
    else if (!cli->quiet) print_job(n);
    return good ? EXIT_OK : EXIT_FAILED;
}

static int watch_job(struct cli *cli, const char *id, bool all_named)
{
    struct progress *p = progress_start(cli, "warming");
    struct numbers now, shown = {0};
    unsigned pause = ASK_FIRST_MS;
    json_t *job = NULL;
    int code;

    while ((code = ask_job(cli, METHOD_GET, id, &job, &now)) == EXIT_OK) {
        progress_total(p, now.total, 0, all_named);
        progress_add(p, now.done + now.failed - shown.done - shown.failed, (int64_t)(now.bytes - shown.bytes));
        shown = now;
        if (strcmp(now.state, "running") != 0) break;
        json_decref(job);
        job = NULL;
        if (!nap(&cli->net, pause)) break;
        pause = pause * 2 < ASK_MOST_MS ? pause * 2 : ASK_MOST_MS;
    }
    progress_end(p, false);
    if (cli->net.interrupted && !job) {
        cli_note(cli, "the proxy goes on with job %s: `" CLI_NAME " warm --status %s` tells how far it is, --cancel %s ends it", id, id, id);
        return EXIT_INTERRUPTED;
    }
    if (code == EXIT_OK) code = outcome(cli, job, &now);
    else if (code == EXIT_NOT_THERE) code = EXIT_FAILED; /* it was there: the proxy has been started anew */
    json_decref(job);
    return code;
}

/* ---- starting one */

static json_t *uris_json(int nargs, char **args)
{
    json_t *a = json_array();

    for (int i = 0; i < nargs && a; i++) {
        if (json_array_append_new(a, admin_place(args[i])) == 0) continue;
        json_decref(a);
        a = NULL;
    }
    return a;
}

static json_t *what_to_warm(const struct warm_opts *o, int nargs, char **args)
{
    json_t *body = o->manifest ? json_pack("{so}", "manifest", admin_place(o->manifest))
                   : o->prefix || o->recursive ? json_pack("{so}", "prefix", admin_place(o->prefix ? o->prefix : args[0]))
                                               : json_pack("{so}", "uris", uris_json(nargs, args));
    if (body && o->pin) json_object_set_new(body, "pin", json_true());
    if (body && o->concurrency) json_object_set_new(body, "concurrency", json_integer((json_int_t)o->concurrency));
    return body;
}

static int start_job(struct cli *cli, const struct warm_opts *o, int nargs, char **args)
{
    json_t *answer;
    int code = admin_post_json(cli, "warm", what_to_warm(o, nargs, args), &answer);

    if (code != EXIT_OK) return code;
    const char *id = json_string_value(json_object_get(answer, "id"));
    if (!id || !id_is_valid(id)) code = admin_not_understood(cli, "warm");
    else if (!o->no_wait) code = watch_job(cli, id, !o->manifest && !o->prefix && !o->recursive);
    else if (cli->json) cli_print_json(json_incref(answer));
    else printf("%s\n", id);
    json_decref(answer);
    return code;
}

/* ---- asking about them */

static int list_jobs(struct cli *cli)
{
    json_t *answer, *job;
    struct numbers n;
    size_t i;
    int code = admin_ask_json(cli, METHOD_GET, "warm", (struct str){NULL, 0}, NULL, &answer);

    if (code != EXIT_OK) return code;
    const json_t *jobs = json_object_get(answer, "jobs");
    if (!json_is_array(jobs)) code = admin_not_understood(cli, "warm");
    else if (cli->json) cli_print_json(json_incref(answer));
    else json_array_foreach(jobs, i, job)
    {
        if (job_read(job, &n)) print_job(&n);
        else code = admin_not_understood(cli, "warm");
    }
    json_decref(answer);
    return code;
}

static int show_job(struct cli *cli, const char *id, bool cancel)
{
    struct numbers n;
    json_t *job;
    int code = ask_job(cli, cancel ? METHOD_DELETE : METHOD_GET, id, &job, &n);

    if (code != EXIT_OK) return code;
    if (!cancel) tell_errors(job);
    if (cli->json) cli_print_json(json_incref(job));
    else if (!cli->quiet) print_job(&n);
    json_decref(job);
    return EXIT_OK;
}

static bool check_start(const struct warm_opts *o, int nargs, char **args)
{
    if ((nargs > 0) + (o->prefix != NULL) + (o->manifest != NULL) != 1) {
        cli_error("warm: expected objects, --prefix PREFIX or --manifest OBJECT, one of them");
        return false;
    }
    if (o->recursive && nargs != 1) {
        cli_error("warm: -r takes one prefix");
        return false;
    }
    for (int i = 0; i < nargs; i++)
        if (!admin_read_place(args[i], !o->recursive)) return false;
    return (!o->prefix || admin_read_place(o->prefix, false)) && (!o->manifest || admin_read_place(o->manifest, true));
}

static int run_warm(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct warm_opts *o = opts;
    bool starts = o->recursive || o->pin || o->no_wait || o->prefix || o->manifest || o->concurrency;

    if (o->status || o->cancel) {
        if (starts || (o->status && o->cancel) || nargs > (o->status ? 1 : 0)) {
            cli_error("warm: --status [ID] and --cancel ID stand by themselves");
            return EXIT_USAGE;
        }
        const char *id = o->cancel ? o->cancel : nargs ? args[0] : NULL;
        if (id && !id_is_valid(id)) return EXIT_USAGE;
        return id ? show_job(cli, id, o->cancel != NULL) : list_jobs(cli);
    }
    return check_start(o, nargs, args) ? start_job(cli, o, nargs, args) : EXIT_USAGE;
}

static const struct opt warm_options[] = {
    {'r', "recursive", OPT_FLAG, NULL, offsetof(struct warm_opts, recursive), 0, 0, "the argument is a prefix: all objects that begin with it"},
    {0, "prefix", OPT_TEXT, "PREFIX", offsetof(struct warm_opts, prefix), 0, 0, "the same"},
    {0, "manifest", OPT_TEXT, "URI", offsetof(struct warm_opts, manifest), 0, 0, "an object with a URI on each line"},
    {0, "pin", OPT_FLAG, NULL, offsetof(struct warm_opts, pin), 0, 0, "and keep them in the cache until they are purged or change"},
    {0, "concurrency", OPT_UINT, "N", offsetof(struct warm_opts, concurrency), 1, 10000, "objects at a time"},
    {0, "no-wait", OPT_FLAG, NULL, offsetof(struct warm_opts, no_wait), 0, 0, "print the job's id and leave it running"},
    {0, "status", OPT_FLAG, NULL, offsetof(struct warm_opts, status), 0, 0, "how far all jobs are, or the one whose id is given"},
    {0, "cancel", OPT_TEXT, "ID", offsetof(struct warm_opts, cancel), 0, 0, "end a job"},
    {.name = NULL},
};
const struct command command_warm = {
    .name = "warm",
    .args = "[s3://BUCKET/KEY...]",
    .summary = "Have the proxy read objects into its cache",
    .details = "Waits until they are there, with progress. The job is the proxy's: interrupted with Ctrl-C, this command says the\n"
               "job's id and leaves it running; --cancel ends it. With --json one document: id, state, objects (total, done,\n"
               "failed), bytes, errors; with --no-wait: id; with --status and no ID: jobs. Exit status 1: not all could be read.\n",
    .opts = warm_options,
    .opts_bytes = sizeof(struct warm_opts),
    .max_args = -1,
    .run = run_warm,
};
