/* cmd_stat.c - what a HEAD says of objects (S3 API Reference, HeadObject), and of buckets. */
#include <jansson.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/oplog.h"

/* How the connection or the proxy fared, not what the object is. */
static bool is_passing(const struct hdr *h)
{
    static const struct str names[] = {{"x-amz-id-2", 10},      {"x-amz-request-id", 16}, {"cache-status", 12}, {"via", 3},
                                       {"connection", 10},      {"keep-alive", 10},       {"date", 4},          {"server", 6},
                                       {"accept-ranges", 13},   {"content-length", 14},   {"strict-transport-security", 25},
                                       {"transfer-encoding", 17}};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq_ci(h->name, names[i])) return true;
    return false;
}

struct stat_answer {
    const struct cli *cli;
    const char *uri;
    bool is_bucket;
    json_t *json;
    bool failed; /* memory ran out */
};

static bool has_meta(struct str name, struct str *rest)
{
    static const struct str prefix = {"x-amz-meta-", 11};

    if (name.n <= prefix.n || !str_eq_ci(str_make(name.p, prefix.n), prefix)) return false;
    *rest = str_make(name.p + prefix.n, name.n - prefix.n);
    return true;
}

static char lower_case(char c) { return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c; }

static void set(json_t *o, struct str name, struct str value)
{
    char key[256];

    snprintf(key, sizeof key, STR_FMT, STR_ARG(name));
    for (char *c = key; *c; c++) *c = lower_case(*c);
    if (!json_object_get(o, key)) json_object_set_new_nocheck(o, key, cli_json_str(value));
}

static bool stat_json(void *arg, const struct head *h, int64_t length)
{
    struct stat_answer *a = arg;
    json_t *headers = json_object(), *meta = json_object();

    (void)length;
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct str rest;
        if (has_meta(h->hdrs[i].name, &rest)) set(meta, rest, h->hdrs[i].value);
        else if (!is_passing(&h->hdrs[i])) set(headers, h->hdrs[i].name, h->hdrs[i].value);
    }
    if (a->is_bucket) {
        a->json = json_pack("{sososo}", "uri", cli_json_str(str_c(a->uri)), "headers", headers, "metadata", meta);
    } else {
        a->json = json_pack("{sososososososo}", "uri", cli_json_str(str_c(a->uri)), "size",
                            h->content_length >= 0 ? json_integer((json_int_t)h->content_length) : json_null(), "etag",
                            cli_json_str(head_value(h, HDR_ETAG)), "last_modified", cli_json_str(head_value(h, HDR_LAST_MODIFIED)),
                            "content_type", cli_json_str(head_value(h, HDR_CONTENT_TYPE)), "headers", headers, "metadata", meta);
    }
    a->failed = !a->json;
    return true;
}

static void line(const char *name, const char *value) { printf("  %-22s %s\n", name, value); }

static bool stat_text(void *arg, const struct head *h, int64_t length)
{
    const struct stat_answer *a = arg;
    struct strbuf name, value;
    char human[32], size[96];

    (void)length;
    strbuf_init(&name, 0);
    strbuf_init(&value, 0);
    printf("%s\n", printable(str_c(a->uri), &value));
    if (!a->is_bucket && h->content_length >= 0) {
        snprintf(size, sizeof size, "%lld (%s)", (long long)h->content_length,
                 human_bytes((double)h->content_length, human, sizeof human));
        line("size", size);
    }
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct str lower = h->hdrs[i].name;
        if (is_passing(&h->hdrs[i])) continue;
        name.n = 0;
        for (size_t k = 0; k < lower.n; k++) strbuf_ch(&name, lower_case(lower.p[k]));
        strbuf_ch(&name, '\0');
        line(name.failed ? "?" : name.p, printable(h->hdrs[i].value, &value));
    }
    strbuf_free(&name);
    strbuf_free(&value);
    return true;
}

static int stat_one(struct cli *cli, const char *uri)
{
    static const struct hdr mode = {{"x-amz-checksum-mode", 19}, {"ENABLED", 7}, HDR_AMZ_CHECKSUM_MODE};
    struct stat_answer a = {.cli = cli, .uri = uri};
    struct call_sync s = {.head = cli->json ? stat_json : stat_text, .arg = &a};
    struct call_result r;
    struct place p;

    if (!cli_read_place(uri, false, &p)) return EXIT_USAGE;
    a.is_bucket = p.key.n == 0;
    struct call_request q = {.method = METHOD_HEAD, .bucket = p.bucket, .key = p.key, .hdrs = &mode, .nhdrs = a.is_bucket ? 0 : 1};
    call_wait(&cli->net, &q, &s, &r);
    oplog_call(cli->oplog, "HEAD", 0, p.bucket, p.key, 0, &r);
    if (r.err != ERR_OK || a.failed) {
        json_decref(a.json);
        if (a.failed) cli_error("%s", err_text(ERR_NOMEM));
        return a.failed ? EXIT_FAILED : cli_failed(&r, "stat", p.bucket, p.key);
    }
    if (cli->json) cli_print_json_line(a.json);
    return EXIT_OK;
}

static int run_stat(struct cli *cli, const void *opts, int nargs, char **args)
{
    int worst = EXIT_OK;
    struct place p;

    (void)opts;
    for (int i = 0; i < nargs; i++)
        if (!cli_read_place(args[i], false, &p)) return EXIT_USAGE;
    for (int i = 0; i < nargs && !cli->net.interrupted && !ferror(stdout); i++) {
        int code = stat_one(cli, args[i]);
        if (code == EXIT_INTERRUPTED) return code;
        if (worst == EXIT_OK || code == EXIT_FAILED) worst = code == EXIT_OK ? worst : code;
    }
    return worst;
}

const struct command command_stat = {
    .name = "stat",
    .args = "s3://BUCKET/KEY...",
    .summary = "Show what is known of objects: size, time, ETag, type, checksums, metadata",
    .details = "Asks by HEAD; s3://BUCKET asks for the bucket itself. With --json one object per line: uri, size, etag,\n"
               "last_modified, content_type, headers, metadata. Exit status 3: one of them is not there.\n",
    .min_args = 1,
    .max_args = -1,
    .run = run_stat,
};
