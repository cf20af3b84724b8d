/* cmd_buckets.c - buckets: listed, made, removed (S3 API Reference: ListBuckets, CreateBucket, DeleteBucket). */
#include <jansson.h>
#include <stdlib.h>

#include "cli/buckets.h"
#include "cli/commands.h"
#include "cli/oplog.h"
#include "cli/remove.h"
#include "s3/listing.h"

#define LIST_BYTES ((size_t)64 << 20)

/* ---- list-buckets */

struct bucket_list {
    const struct cli *cli;
    uint64_t n;
    json_t *json;
    struct strbuf text;
    bool failed;
};

static bool print_bucket(void *arg, struct str name, struct str created)
{
    struct bucket_list *w = arg;

    w->n++;
    if (w->cli->json) {
        json_t *o = json_pack("{soso}", "name", cli_json_str(name), "created", cli_json_str(created));
        return json_array_append_new(w->json, o) == 0;
    }
    printf("%-20s  ", printable_time(created, &w->text));
    printf("s3://%s\n", printable(name, &w->text));
    return true;
}

static int print_buckets(struct cli *cli, struct str document)
{
    struct bucket_list w = {.cli = cli};
    char *token;

    strbuf_init(&w.text, 0);
    w.json = cli->json ? json_array() : NULL;
    enum err e = listing_buckets(document, print_bucket, &w);
    strbuf_free(&w.text);
    if (e != ERR_OK) {
        cli_error("cannot list the buckets at %s: %s", cli->net.url, e == ERR_PROTOCOL ? "the answer is no list of buckets" : err_text(e));
        json_decref(w.json);
        return EXIT_FAILED;
    }
    if (cli->json) cli_print_json(json_pack("{so}", "buckets", w.json));
    token = listing_text(document, "ContinuationToken");
    if (token) cli_error("there are more buckets than the server tells at once");
    free(token);
    return token ? EXIT_FAILED : EXIT_OK;
}

int buckets_list(struct cli *cli)
{
    struct strbuf body;
    struct call_request q = {.method = METHOD_GET};
    struct call_sync s = {.body = &body};
    struct call_result r;
    char why[512];
    int code = EXIT_FAILED;

    strbuf_init(&body, LIST_BYTES);
    call_wait(&cli->net, &q, &s, &r);
    oplog_call(cli->oplog, "LIST", 0, STR_LIT(""), STR_LIT(""), 0, &r);
    if (r.err == ERR_OK) code = print_buckets(cli, strbuf_get(&body));
    else if (cli->net.interrupted) code = EXIT_INTERRUPTED;
    else cli_error("cannot list the buckets at %s: %s", cli->net.url, call_why(&r, why, sizeof why));
    strbuf_free(&body);
    return code;
}

static int run_list_buckets(struct cli *cli, const void *opts, int nargs, char **args)
{
    (void)opts;
    (void)nargs;
    (void)args;
    return buckets_list(cli);
}

const struct command command_list_buckets = {
    .name = "list-buckets",
    .args = "",
    .summary = "List all buckets",
    .details = "As ls does without an argument. With --json one document: buckets, each with name and created.\n",
    .run = run_list_buckets,
};

/* ---- create-bucket, delete-bucket */

/* "s3://BUCKET", "s3://BUCKET/" or "BUCKET". */
static bool read_bucket(const char *text, struct place *out)
{
    char uri[300];

    if (!place_is_remote(text) && (size_t)snprintf(uri, sizeof uri, "s3://%s", text) < sizeof uri && !strchr(text, '/') &&
        place_parse(uri, out) == ERR_OK && out->bucket.n) {
        *out = (struct place){.bucket = str_c(text)};
        return true;
    }
    if (place_parse(text, out) == ERR_OK && out->bucket.n && out->key.n == 0) return true;
    cli_error("%s: expected a bucket, s3://BUCKET or BUCKET", text);
    return false;
}

static struct body *constraint_body(void *arg)
{
    const struct strbuf *b = arg;
    return body_of_memory(strbuf_get(b));
}

static int bucket_call(struct cli *cli, const struct call_request *q, const char *what, const char *done)
{
    struct call_sync s = {0};
    struct call_result r;
    char text[128];

    call_wait(&cli->net, q, &s, &r);
    bool is_put = q->method == METHOD_PUT;
    oplog_call(cli->oplog, is_put ? "PUT" : "DELETE", 0, q->bucket, STR_LIT(""), 0, &r);
    /* an earlier try whose answer got lost may have done it */
    bool there = is_put && strcmp(r.code, "BucketAlreadyOwnedByYou") == 0;
    bool gone = !is_put && r.tries > 1 && strcmp(r.code, "NoSuchBucket") == 0;
    if (r.err != ERR_OK && !there && !gone) {
        snprintf(text, sizeof text, "%s bucket", what);
        return cli_failed(&r, text, q->bucket, STR_LIT(""));
    }
    if (cli->json) cli_print_json(json_pack("{so}", done, cli_json_str(q->bucket)));
    else if (!cli->quiet) printf("s3://" STR_FMT " %s\n", STR_ARG(q->bucket), there ? "is there already" : done);
    return EXIT_OK;
}

static int run_create_bucket(struct cli *cli, const void *opts, int nargs, char **args)
{
    const char *region = cli->net_options.region;
    struct strbuf xml;
    struct place p;

    (void)opts;
    (void)nargs;
    if (!read_bucket(args[0], &p)) return EXIT_USAGE;
    struct call_request q = {.method = METHOD_PUT, .bucket = p.bucket};
    strbuf_init(&xml, 0);
    if (region && strcmp(region, "us-east-1") != 0) {
        for (const char *c = region; *c; c++) {
            if ((*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (*c >= '0' && *c <= '9') || strchr("-_.", *c)) continue;
            cli_error("--region %s: expected a region such as eu-central-1", region);
            return EXIT_USAGE;
        }
        strbuf_f(&xml, "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><LocationConstraint>%s"
                       "</LocationConstraint></CreateBucketConfiguration>", region);
        q.body = constraint_body;
        q.body_arg = &xml;
        q.body_length = (int64_t)xml.n;
    }
    int code = bucket_call(cli, &q, "create", "created");
    strbuf_free(&xml);
    return code;
}

const struct command command_create_bucket = {
    .name = "create-bucket",
    .args = "BUCKET",
    .summary = "Create a bucket",
    .details = "BUCKET or s3://BUCKET. With --region it is made there (LocationConstraint). One that is yours already is no error.\n",
    .min_args = 1,
    .max_args = 1,
    .run = run_create_bucket,
};

struct delete_bucket_opts {
    bool force;
};

static int run_delete_bucket(struct cli *cli, const void *opts, int nargs, char **args)
{
    const struct delete_bucket_opts *o = opts;
    struct removed sum = {0};
    struct place p;

    (void)nargs;
    if (!read_bucket(args[0], &p)) return EXIT_USAGE;
    if (o->force) {
        struct remove_options how = {.jobs = 16};
        int code = remove_tree(cli, &how, &p, &sum);
        if (code != EXIT_OK && !(code == EXIT_NOT_THERE && sum.failed == 0)) return code;
        if (sum.deleted) cli_note(cli, "%llu objects deleted", (unsigned long long)sum.deleted);
    }
    struct call_request q = {.method = METHOD_DELETE, .bucket = p.bucket};
    return bucket_call(cli, &q, "delete", "deleted");
}

static const struct opt delete_bucket_options[] = {
    {'f', "force", OPT_FLAG, NULL, offsetof(struct delete_bucket_opts, force), 0, 0, "delete all that is in it before"},
    {.name = NULL},
};
const struct command command_delete_bucket = {
    .name = "delete-bucket",
    .args = "BUCKET",
    .summary = "Delete a bucket, which must be empty",
    .details = "BUCKET or s3://BUCKET. -f empties it first, but for old versions and unfinished uploads, which S3 keeps apart.\n",
    .opts = delete_bucket_options,
    .opts_bytes = sizeof(struct delete_bucket_opts),
    .min_args = 1,
    .max_args = 1,
    .run = run_delete_bucket,
};
