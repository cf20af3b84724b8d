/* cmd_stats.c - what the proxy counts, as a table, as JSON, once or again and again. */
#include <jansson.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/admin.h"
#include "cli/commands.h"
#include "cli/stats_view.h"
#include "cli/stats_watch.h"
#include "http/uri.h"

struct stats_options {
    const char *since;
    bool watch;
    uint64_t interval_ms, count;
};

static void print_table(const struct cli *cli, json_t *stats)
{
    struct winsize s;
    struct strbuf text;
    struct stats_view v = {.now = stats, .url = cli->net.url, .columns = 1000};

    if (isatty(STDOUT_FILENO)) {
        v.bold = true;
        v.columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &s) == 0 && s.ws_col >= 2 ? s.ws_col : 80;
    }
    strbuf_init(&text, (size_t)1 << 20);
    stats_render(&v, &text);
    fwrite(text.p, 1, text.n, stdout);
    strbuf_free(&text);
}

static int print_once(struct cli *cli, struct str query)
{
    json_t *stats;
    int code = admin_ask_json(cli, METHOD_GET, "stats", query, NULL, &stats);

    if (code != EXIT_OK) return code;
    if (cli->json) return cli_print_json(stats) ? EXIT_OK : EXIT_FAILED;
    print_table(cli, stats);
    json_decref(stats);
    return EXIT_OK;
}

static int run_stats(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct stats_options *o = opts;
    struct watch_options w = {.interval_ms = o->interval_ms ? o->interval_ms : 1000, .count = o->count};
    struct pool *mem = pool_create(65536);
    struct str label;
    int code = EXIT_FAILED;

    (void)nargs;
    (void)args;
    if (mem && o->since && (label = uri_encode(mem, str_c(o->since), false)).p)
        w.query = pool_f(mem, "since=" STR_FMT, STR_ARG(label));
    if (!o->watch && (o->interval_ms || o->count)) {
        cli_error("stats: --%s needs --watch", o->count ? "count" : "interval");
        code = EXIT_USAGE;
    } else if (!mem || (o->since && !w.query.p)) {
        cli_error("%s", o->since && strlen(o->since) > 1024 ? "--since: the label is too long" : err_text(ERR_NOMEM));
    } else {
        code = o->watch ? stats_watch(cli, &w) : print_once(cli, w.query);
    }
    pool_destroy(mem);
    return code;
}

static const struct opt options[] = {
    {0, "since", OPT_TEXT, "LABEL", offsetof(struct stats_options, since), 0, 0, "what was counted since that mark (see mark)"},
    {'w', "watch", OPT_FLAG, NULL, offsetof(struct stats_options, watch), 0, 0,
     "show it again and again; on a terminal a live screen, which q or Ctrl-C leaves"},
    {'i', "interval", OPT_DURATION, "TIME", offsetof(struct stats_options, interval_ms), 100, 86400000,
     "of --watch (default 1s)"},
    {'n', "count", OPT_UINT, "N", offsetof(struct stats_options, count), 1, 0, "end --watch after so many times"},
    {.name = NULL},
};

const struct command command_stats = {
    .name = "stats",
    .args = "",
    .summary = "Show what the proxy counts: requests, hits, bytes, latencies, caches, origins",
    .details = "Rates are averages since the start of the proxy or since the mark; with --watch those of the last interval.\n"
               "With --json: the proxy's own document; with --watch too, one on a line for each interval.\n",
    .opts = options,
    .opts_bytes = sizeof(struct stats_options),
    .max_args = 0,
    .run = run_stats,
};
