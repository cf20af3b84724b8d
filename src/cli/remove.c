/* remove.c - see the header.
 *
 * A remover starts jobs (requests) while fewer than so many run and there are keys to be had, and ends when neither is left.
 * Keys come from the operands or from a listing. A batch that fails as a whole ends it: the next one would fail likewise. */
#include "cli/remove.h"

#include <jansson.h>
#include <stdlib.h>

#include "cli/delete_doc.h"
#include "cli/lister.h"
#include "cli/oplog.h"
#include "cli/progress.h"
#include "s3/listing.h"

#define REPLY_BYTES ((size_t)8 << 20)
#define SPACE_BYTES 16384u

struct remover {
    struct cli *cli;
    const struct remove_options *o;
    struct removed *sum;
    struct progress *progress;
    const struct place *places; /* named */
    size_t nplaces, next;
    struct place root;          /* of a tree */
    struct lister *lister;
    struct list jobs;
    unsigned running;
    uint64_t matched;
    bool no_more;               /* keys */
    int code;
    bool busy[REMOVE_JOBS_MAX]; /* threads, for the op-log */
};
struct job {
    struct list link;
    struct remover *r;
    struct call *call;
    unsigned thread;
    uint64_t started_ns;
    bool is_batch;
    struct delete_doc doc;
    struct str bucket, key;     /* key of one object: a copy */
    struct strbuf reply;
    uint64_t key_failures;
    char space[SPACE_BYTES];
};

static void step(struct remover *r);

/* ---- outcomes */

static void worse(struct remover *r, int code)
{
    if (r->code == EXIT_OK || code == EXIT_FAILED) r->code = code;
}

static bool key_failed(void *arg, struct str key, struct str code, struct str message)
{
    struct job *j = arg;

    j->key_failures++;
    cli_error("cannot delete s3://" STR_FMT "/" STR_FMT ": " STR_FMT "%s" STR_FMT, STR_ARG(j->bucket), STR_ARG(key), STR_ARG(code),
              message.n ? ": " : "", STR_ARG(message));
    return true;
}

static void batch_ended(struct job *j, struct call_result *r)
{
    struct remover *rm = j->r;

    if (r->err == ERR_OK) r->err = listing_deleted(strbuf_get(&j->reply), key_failed, j);
    if (r->err != ERR_OK) {
        cli_error("%u objects could not be deleted", j->doc.keys);
        worse(rm, cli_failed(r, "delete from", j->bucket, STR_LIT("")));
        rm->no_more = true;
        j->key_failures = j->doc.keys;
    }
    if (j->key_failures > j->doc.keys) j->key_failures = j->doc.keys;
    if (j->key_failures) worse(rm, EXIT_FAILED);
    rm->sum->failed += j->key_failures;
    rm->sum->deleted += j->doc.keys - j->key_failures;
    progress_add(rm->progress, j->doc.keys, 0);
}

static void single_ended(struct job *j, const struct call_result *r)
{
    struct remover *rm = j->r;
    /* an earlier try whose answer got lost may have done it; S3 itself answers 204 */
    bool gone = r->err == ERR_OK || (call_not_found(r) && strcmp(r->code, "NoSuchKey") == 0);

    if (gone) rm->sum->deleted++;
    else {
        rm->sum->failed++;
        worse(rm, cli_failed(r, "delete", j->bucket, j->key));
    }
    progress_add(rm->progress, 1, 0);
}

static void job_free(struct job *j)
{
    list_remove(&j->link);
    j->r->running--;
    if (j->thread < REMOVE_JOBS_MAX) j->r->busy[j->thread] = false;
    if (j->is_batch) delete_doc_free(&j->doc);
    free((char *)(uintptr_t)j->key.p);
    strbuf_free(&j->reply);
    free(j);
}

static void job_log(const struct job *j, const struct call_result *r)
{
    char why[512];
    struct op o = {.op = "DELETE", .thread = j->thread, .n_objects = j->is_batch ? j->doc.keys : 1, .bucket = j->bucket,
                   .key = j->key, .start_ns = r->start_ns, .first_byte_ns = r->bytes ? r->first_byte_ns : 0, .end_ns = r->end_ns};

    if (r->err != ERR_OK) o.error = call_why(r, why, sizeof why);
    oplog_add(j->r->cli->oplog, &o);
}

static void job_over(struct job *j, const struct call_result *result)
{
    struct call_result r = *result;

    j->call = NULL;
    if (j->is_batch) batch_ended(j, &r);
    else single_ended(j, &r);
    job_log(j, &r);
    job_free(j);
}

/* ---- a job */

static unsigned job_space(void *arg, struct iovec *iov, unsigned max)
{
    struct job *j = arg;
    (void)max;
    iov[0] = (struct iovec){j->space, sizeof j->space};
    return 1;
}

static void job_filled(void *arg, size_t n)
{
    struct job *j = arg;
    struct remover *r = j->r;
    struct call_result too_large = {.err = ERR_BODY_TOO_LARGE, .start_ns = j->started_ns, .end_ns = clock_ns()};

    strbuf_add(&j->reply, j->space, n);
    if (!j->reply.failed) return;
    call_cancel(j->call);
    job_over(j, &too_large);
    step(r);
}

static void job_end(void *arg, const struct call_result *result)
{
    struct job *j = arg;
    struct remover *r = j->r;

    job_over(j, result);
    step(r);
}

static struct body *job_body(void *arg)
{
    const struct job *j = arg;
    return body_of_memory(strbuf_get(&j->doc.xml));
}

static unsigned free_thread(struct remover *r)
{
    unsigned t = 0;

    while (t < REMOVE_JOBS_MAX && r->busy[t]) t++;
    if (t < REMOVE_JOBS_MAX) r->busy[t] = true;
    return t;
}

static struct job *job_new(struct remover *r, struct str bucket, bool is_batch)
{
    struct job *j = malloc(sizeof *j); /* without its space it is small, with it not worth zeroing */

    if (!j) return NULL;
    memset(j, 0, offsetof(struct job, space));
    j->r = r;
    j->bucket = bucket;
    j->is_batch = is_batch;
    j->thread = free_thread(r);
    j->started_ns = clock_ns();
    strbuf_init(&j->reply, REPLY_BYTES);
    if (is_batch) delete_doc_begin(&j->doc);
    list_push_back(&r->jobs, &j->link);
    r->running++;
    return j;
}

static void out_of_memory(struct remover *r)
{
    cli_error("%s", err_text(ERR_NOMEM));
    r->no_more = true;
    worse(r, EXIT_FAILED);
}

static void job_start(struct job *j)
{
    static const struct call_events events = {NULL, job_space, job_filled, job_end};
    struct remover *r = j->r;
    struct call_request q = {.method = METHOD_DELETE, .bucket = j->bucket, .key = j->key};
    bool ok = !j->is_batch || delete_doc_end(&j->doc);

    if (j->is_batch) {
        q = (struct call_request){.method = METHOD_POST, .bucket = j->bucket, .query = STR_LIT("delete"), .body = job_body,
                                  .body_arg = j, .body_length = (int64_t)j->doc.xml.n, .payload_hash = str_c(j->doc.sha256),
                                  .hdrs = j->doc.hdrs, .nhdrs = ARRAY_LEN(j->doc.hdrs)};
    }
    if (ok && call_start(&r->cli->net, &q, &events, j, &j->call) == ERR_OK) return;
    job_free(j);
    out_of_memory(r);
}

/* ---- keys */

static void tell_dry(struct remover *r, struct str bucket, struct str key)
{
    struct strbuf b;

    strbuf_init(&b, 0);
    if (r->cli->json) {
        strbuf_z(&b, "s3://");
        strbuf_str(&b, bucket);
        strbuf_ch(&b, '/');
        strbuf_str(&b, key);
        if (!cli_print_json_line(json_pack("{so}", "uri", cli_json_str(strbuf_get(&b))))) r->no_more = true;
    } else {
        printf("would delete s3://" STR_FMT "/%s\n", STR_ARG(bucket), printable(key, &b));
    }
    strbuf_free(&b);
    if (ferror(stdout)) r->no_more = true;
}

static void single_start(struct remover *r, struct str bucket, struct str key)
{
    bool batch = key_has_dot_segment(key);

    if (batch && !delete_doc_fits(key)) {
        cli_error("cannot delete s3://" STR_FMT "/" STR_FMT ": neither a path nor XML can hold this key safely", STR_ARG(bucket),
                  STR_ARG(key));
        r->sum->failed++;
        worse(r, EXIT_FAILED);
        return;
    }
    struct job *j = job_new(r, bucket, batch);
    if (j && batch) delete_doc_add(&j->doc, key);
    if (j && !batch) j->key = (struct str){str_dup(key), key.n};
    if (j && (batch || j->key.p)) {
        job_start(j);
        return;
    }
    if (j) job_free(j);
    out_of_memory(r);
}

static bool is_below(const struct remover *r, struct str key)
{
    struct str root = r->root.key;
    return str_starts(key, root) && (root.n == 0 || root.p[root.n - 1] == '/' || key.n == root.n || key.p[root.n] == '/');
}

/* A key of the listing: into the batch, or by itself where no batch can hold it. */
static void take_listed(struct remover *r, struct str key, struct job **batch)
{
    if (!is_below(r, key) || !pattern_matches(r->o->pattern, key)) return;
    r->matched++;
    if (r->o->dry_run) {
        tell_dry(r, r->root.bucket, key);
    } else if (!delete_doc_fits(key)) {
        single_start(r, r->root.bucket, key);
    } else {
        if (!*batch) *batch = job_new(r, r->root.bucket, true);
        if (*batch) delete_doc_add(&(*batch)->doc, key);
        else out_of_memory(r);
    }
    progress_total(r->progress, r->matched, 0, false);
}

/* What waits in the lister becomes one job at most; a batch is not held back for keys that are still to come. */
static void step_listing(struct remover *r)
{
    struct job *batch = NULL;
    struct listed *e = NULL;
    enum err why = ERR_OK;

    while (!r->no_more && r->running < r->o->jobs + (batch ? 1 : 0) && (!batch || !delete_doc_is_full(&batch->doc)) &&
           (why = lister_next(r->lister, &e)) == ERR_OK) {
        take_listed(r, e->key, &batch);
        free(e);
        e = NULL;
    }
    if (batch) job_start(batch);
    if (why == ERR_OK || why == ERR_AGAIN) return;
    r->no_more = true;
    if (why == ERR_END) progress_total(r->progress, r->matched, 0, true);
    else worse(r, cli_failed(lister_failure(r->lister), "list", r->root.bucket, r->root.key));
}

static void step(struct remover *r)
{
    unsigned before;

    if (r->cli->net.interrupted) return;
    do {
        before = r->running;
        if (r->lister) {
            step_listing(r);
        } else if (!r->no_more && before < r->o->jobs) {
            const struct place *p = &r->places[r->next++];
            r->no_more = r->next >= r->nplaces;
            single_start(r, p->bucket, p->key);
        }
    } while (!r->no_more && r->running < r->o->jobs && (!r->lister || r->running > before));
    if (r->no_more && r->running == 0) net_stop(&r->cli->net);
}

static void more_listed(void *arg) { step(arg); }

/* Nothing more is begun; requests that are out are no longer waited for. */
static void cancel_jobs(struct remover *r)
{
    while (!list_empty(&r->jobs)) {
        struct job *j = container_of(list_first(&r->jobs), struct job, link);
        call_cancel(j->call);
        job_free(j);
    }
}

static int remove_run(struct remover *r)
{
    step(r);
    while (!(r->no_more && r->running == 0) && net_run(&r->cli->net)) {
    }
    bool broken_off = r->cli->net.interrupted && !(r->no_more && r->running == 0);
    cancel_jobs(r);
    lister_close(r->lister);
    progress_end(r->progress, false);
    return broken_off ? EXIT_INTERRUPTED : r->code;
}

static struct remover remover_make(struct cli *cli, const struct remove_options *o, struct removed *sum)
{
    return (struct remover){.cli = cli, .o = o, .sum = sum};
}

int remove_named(struct cli *cli, const struct remove_options *o, const struct place *places, size_t n, struct removed *sum)
{
    struct remover r = remover_make(cli, o, sum);

    list_init(&r.jobs);
    for (size_t i = 0; o->dry_run && i < n; i++) tell_dry(&r, places[i].bucket, places[i].key);
    if (o->dry_run) return EXIT_OK;
    r.places = places;
    r.nplaces = n;
    if (n > 1) r.progress = progress_start(cli, "deleting");
    progress_total(r.progress, n, 0, true);
    return remove_run(&r);
}

int remove_tree(struct cli *cli, const struct remove_options *o, const struct place *root, struct removed *sum)
{
    struct remover r = remover_make(cli, o, sum);

    list_init(&r.jobs);
    r.root = *root;
    if (lister_open(&cli->net, root->bucket, root->key, STR_LIT(""), 0, more_listed, &r, &r.lister) != ERR_OK) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    if (!o->dry_run) r.progress = progress_start(cli, "deleting");
    int code = remove_run(&r);
    return code == EXIT_OK && r.matched == 0 ? EXIT_NOT_THERE : code;
}
