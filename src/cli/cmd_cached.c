/* cmd_cached.c - what the proxy has in its caches: asked for page by page, printed as it comes. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/admin.h"
#include "cli/commands.h"

struct cached_opts {
    bool summary, bytes;
};
struct totals {
    uint64_t objects, bytes, cached, whole, pinned;
};

static uint64_t number(const json_t *o, const char *name)
{
    json_int_t v = json_integer_value(json_object_get(o, name));
    return v > 0 ? (uint64_t)v : 0;
}

static void size_text(bool exact, uint64_t v, char *buf, size_t n)
{
    if (exact) snprintf(buf, n, "%llu", (unsigned long long)v);
    else human_bytes((double)v, buf, n);
}

static void print_line(const struct cached_opts *o, const json_t *e, struct strbuf *text)
{
    uint64_t size = number(e, "size"), cached = number(e, "cached"), age = number(e, "age_s");
    const json_t *uri = json_object_get(e, "uri"), *query = json_object_get(e, "query");
    char is[32], of[32], old[32];

    size_text(o->bytes, cached, is, sizeof is);
    size_text(o->bytes, size, of, sizeof of);
    if (age < 60) snprintf(old, sizeof old, "%llu s", (unsigned long long)age);
    else human_duration((double)age, old, sizeof old);
    printf("%3u%%  %10s of %10s  %10s %s %s  ", size ? (unsigned)((double)cached * 100 / (double)size) : 100u, is, of, old,
           json_is_true(json_object_get(e, "fresh")) ? "fresh" : "stale", json_is_true(json_object_get(e, "pinned")) ? "pinned" : "      ");
    printf("%s", printable(str_make(json_string_value(uri), json_string_length(uri)), text));
    if (json_is_string(query))
        printf("?%s", printable(str_make(json_string_value(query), json_string_length(query)), text));
    putchar('\n');
}

static void count(struct totals *t, const json_t *e)
{
    uint64_t size = number(e, "size"), cached = number(e, "cached");

    t->objects++;
    t->bytes += size;
    t->cached += cached;
    if (cached >= size) t->whole++;
    if (json_is_true(json_object_get(e, "pinned"))) t->pinned++;
}

static struct str page_query(struct pool *mem, const char *prefix, struct str after)
{
    struct str p = uri_encode(mem, str_c(prefix), false), a = uri_encode(mem, after, false);

    if (!p.p || !a.p) return (struct str){NULL, 0};
    return pool_f(mem, "max=1000&prefix=" STR_FMT "%s" STR_FMT, STR_ARG(p), a.n ? "&after=" : "", STR_ARG(a));
}

static bool print_page(const struct cli *cli, const struct cached_opts *o, const json_t *objects, struct totals *t)
{
    struct strbuf text;
    const json_t *e;
    size_t i;

    strbuf_init(&text, 0);
    json_array_foreach(objects, i, e)
    {
        count(t, e);
        if (o->summary) continue;
        if (cli->json) cli_print_json_line(json_incref((json_t *)(uintptr_t)e));
        else print_line(o, e, &text);
    }
    strbuf_free(&text);
    return fflush(stdout) == 0;
}

static int all_pages(struct cli *cli, const struct cached_opts *o, const char *prefix, struct totals *t)
{
    struct str after = {NULL, 0};
    json_t *answer = NULL, *before = NULL;
    int code = EXIT_OK;

    for (bool more = true; more && code == EXIT_OK;) {
        struct pool *mem = pool_create((size_t)1 << 20);
        struct str query = mem ? page_query(mem, prefix, after) : (struct str){NULL, 0};
        if (query.p) code = admin_ask_json(cli, METHOD_GET, "objects", query, NULL, &answer);
        else cli_error("%s", err_text(ERR_NOMEM)), code = EXIT_FAILED;
        pool_destroy(mem);
        if (code != EXIT_OK) break;
        const json_t *objects = json_object_get(answer, "objects"), *next = json_object_get(answer, "next");
        struct str token = {json_string_value(next), json_string_length(next)};
        bool goes_on = token.p && !str_eq(token, after); /* a page that leads to itself would never end */
        if (!json_is_array(objects) || (token.p && !goes_on)) code = admin_not_understood(cli, "objects");
        else more = print_page(cli, o, objects, t) && token.p;
        json_decref(before);
        before = answer; /* after points into it */
        after = token;
    }
    json_decref(before);
    return code;
}

static void print_totals(const struct cli *cli, const struct totals *t)
{
    char cached[32], bytes[32];

    if (cli->json) {
        cli_print_json(json_pack("{sIsIsIsIsI}", "objects", (json_int_t)t->objects, "whole", (json_int_t)t->whole, "pinned",
                                 (json_int_t)t->pinned, "bytes", (json_int_t)t->bytes, "cached", (json_int_t)t->cached));
        return;
    }
    printf("%llu object%s, %llu whole, %llu pinned; %s of %s cached\n", (unsigned long long)t->objects, t->objects == 1 ? "" : "s",
           (unsigned long long)t->whole, (unsigned long long)t->pinned, human_bytes((double)t->cached, cached, sizeof cached),
           human_bytes((double)t->bytes, bytes, sizeof bytes));
}

static int run_cached(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct cached_opts *o = opts;
    struct totals t = {0};
    bool all = nargs == 0 || strcmp(args[0], "s3://") == 0;

    if (!all && !admin_read_place(args[0], false)) return EXIT_USAGE;
    const char *prefix = all ? "/" : args[0];
    char *path = NULL;
    json_t *place = all ? NULL : admin_place(prefix);
    if (place) prefix = path = strdup(json_string_value(place));
    json_decref(place);
    if (!prefix) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    int code = all_pages(cli, o, prefix, &t);
    if (code == EXIT_OK && !ferror(stdout) && (o->summary || !cli->json)) print_totals(cli, &t);
    free(path);
    return code;
}

static const struct opt cached_options[] = {
    {'c', "count-only", OPT_FLAG, NULL, offsetof(struct cached_opts, summary), 0, 0, "only the line of totals"},
    {'b', "bytes", OPT_FLAG, NULL, offsetof(struct cached_opts, bytes), 0, 0, "sizes in bytes"},
    {.name = NULL},
};
const struct command command_cached = {
    .name = "cached",
    .args = "[s3://BUCKET[/PREFIX]]",
    .summary = "Show which objects the proxy has in its cache, and how much of them",
    .details = "Per object: how much of it is cached, its age, whether it is fresh and whether it is pinned; then a line of totals.\n"
               "With --json one object per line, as the admin route tells them (uri, size, cached, fraction, age_s, fresh, pinned,\n"
               "origin, cache), without totals; with -c one document: objects, whole, pinned, bytes, cached.\n",
    .opts = cached_options,
    .opts_bytes = sizeof(struct cached_opts),
    .max_args = 1,
    .run = run_cached,
};
