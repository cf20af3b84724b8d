/* bench_run.c - the phases of a benchmark, each so many slots side by side that take the next operation as they end one.
 *
 * At its deadline the load counts no more: reads under way are cancelled (what came of them was counted as it came), writes
 * may end, uncounted, so that no object is left half written where that is possible.
 *
 * All slots read into one scratch buffer: the stack fills it and tells so (filled) before it asks anybody else for space. */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "cli/bench.h"

#define SCRATCH_BYTES ((size_t)256 << 10)
#define GRACE_MS 10000u    /* for writes under way at the deadline */
#define GIVE_UP 256u       /* so many failures in a row: it will not get better */
#define WRONG_SHOWN 5u

enum phase { PREPARE, LOAD, CLEANUP };
struct runner;
struct slot {
    struct runner *r;
    unsigned index;
    struct call *call;         /* NULL: idle */
    enum bench_kind kind;
    uint64_t object, size;
    struct strbuf key;
    uint64_t seed, first, want, got; /* what of the object is asked for, and how much of it came */
    uint64_t start_ns;
    enum bench_outcome outcome;
    bool wrong;
};
struct runner {
    struct bench *b;
    enum phase phase;
    struct slot *slots;
    unsigned nslots, active;
    uint64_t next, issued;
    bool over;                 /* past the deadline, or given up */
    uint64_t failed_in_a_row, wrong_shown;
    uint64_t start_ns, end_ns;
    struct timer deadline, grace;
    struct progress *progress;
    struct call_result failure; /* the first one that ends PREPARE or CLEANUP; status and err zero: none */
    bool failed;
    uint8_t *scratch;
};

static void slot_next(struct slot *s);

static const char *verb_of(enum bench_kind k) { return k == BENCH_GETS ? "GET" : k == BENCH_PUTS ? "PUT" : "DELETE"; }

static struct bench_step *step_now(struct runner *r)
{
    return bench_series_at(&r->b->series, (loop_now_ns(r->b->cli->net.loop) - r->start_ns) / 1000000);
}

/* ---- what is next */

static bool pick_marked(struct runner *r, struct slot *s, const uint8_t *bits, bool set, enum bench_kind kind)
{
    while (r->next < r->b->objects.n && bench_bit(bits, r->next) != set) r->next++;
    if (r->next == r->b->objects.n) return false;
    s->kind = kind;
    s->object = r->next++;
    return true;
}

static bool pick_load(struct runner *r, struct slot *s)
{
    const struct bench_conf *c = &r->b->conf;

    if (c->ops && r->issued == c->ops) return false;
    s->kind = c->gets && c->puts ? (random_u64() % 100 < c->put_percent ? BENCH_PUTS : BENCH_GETS) : c->gets ? BENCH_GETS : BENCH_PUTS;
    s->object = c->gets ? random_u64() % r->b->objects.n : r->issued % r->b->objects.n;
    return true;
}

static bool pick(struct runner *r, struct slot *s)
{
    const struct bench_objects *o = &r->b->objects;

    if (r->over) return false;
    bool some = r->phase == PREPARE   ? pick_marked(r, s, o->there, false, BENCH_PUTS)
                : r->phase == CLEANUP ? pick_marked(r, s, o->made, true, BENCH_DELETES)
                                      : pick_load(r, s);
    r->issued += some;
    return some;
}

/* ---- what came of one */

static void log_end(const struct slot *s, const struct call_result *result, const char *error)
{
    const struct bench *b = s->r->b;
    char why[512];
    struct op o = {.op = verb_of(s->kind), .thread = s->index, .n_objects = 1, .bucket = b->objects.bucket, .key = strbuf_get(&s->key),
                   .error = error, .start_ns = s->start_ns, .end_ns = clock_ns()};

    if (!b->cli->oplog) return;
    o.bytes = s->kind == BENCH_GETS ? s->got : s->kind == BENCH_PUTS ? s->size : 0;
    if (result) {
        o.start_ns = result->start_ns;
        o.end_ns = result->end_ns;
        if (result->bytes) o.first_byte_ns = result->first_byte_ns;
        if (!error && result->err != ERR_OK) o.error = call_why(result, why, sizeof why);
    }
    oplog_add(b->cli->oplog, &o);
}

static const char *what_is_wrong(const struct slot *s, char *buf, size_t n)
{
    if (s->kind != BENCH_GETS) return NULL;
    if (s->wrong) snprintf(buf, n, "wrong bytes");
    else if (s->got != s->want) snprintf(buf, n, "another length than it should have");
    else return NULL;
    return buf;
}

static void show_wrong(const struct slot *s, const char *what)
{
    struct runner *r = s->r;
    struct strbuf name;

    if (r->wrong_shown++ >= WRONG_SHOWN) return;
    strbuf_init(&name, 0);
    progress_line(r->progress, CLI_NAME ": s3://" STR_FMT "/%s: %s (asked for %llu bytes from %llu on, got %llu)",
                  STR_ARG(r->b->objects.bucket), printable(strbuf_get(&s->key), &name), what, (unsigned long long)s->want,
                  (unsigned long long)s->first, (unsigned long long)s->got);
    strbuf_free(&name);
}

static void count_load(struct slot *s, const struct call_result *result, const char *wrong)
{
    struct bench *b = s->r->b;
    struct bench_side *side = &b->sides[s->kind];
    struct bench_step *step = step_now(s->r);
    char why[512];
    uint64_t bytes = s->kind == BENCH_GETS ? s->got : s->size;

    side->retries += result->tries > 1 ? result->tries - 1 : 0;
    if (result->err != ERR_OK || wrong) {
        side->errors++;
        side->wrong += wrong != NULL;
        step->errors++;
        bench_reason_add(&b->reasons, wrong ? wrong : call_why(result, why, sizeof why));
        return;
    }
    side->ops++;
    step->ops++;
    if (s->kind == BENCH_PUTS) side->bytes += bytes, step->bytes += bytes;
    if (result->first_byte_ns > result->start_ns) hist_add(&side->first_byte_us, (result->first_byte_ns - result->start_ns) / 1000);
    hist_add(&side->total_us, (result->end_ns - result->start_ns) / 1000);
    if (s->kind != BENCH_GETS) return;
    side->outcomes[s->outcome]++;
    side->outcome_bytes[s->outcome] += bytes;
    step->asked += s->outcome != BENCH_BYPASS && s->outcome != BENCH_UNTOLD;
    step->hits += s->outcome == BENCH_HIT || s->outcome == BENCH_REVALIDATED || s->outcome == BENCH_STALE;
}

/* ---- a call's events */

static bool on_head(void *arg, const struct head *h, int64_t length)
{
    struct slot *s = arg;

    (void)length;
    s->outcome = bench_outcome_of(head_value(h, HDR_X_CACHE));
    return true;
}

static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    const struct slot *s = arg;

    (void)max;
    iov[0] = (struct iovec){s->r->scratch, SCRATCH_BYTES};
    return 1;
}

static void on_filled(void *arg, size_t n)
{
    struct slot *s = arg;
    struct bench *b = s->r->b;

    if (s->kind != BENCH_GETS) return;
    if (b->conf.verify && !s->wrong && !bench_check(b->pattern, s->seed, s->first + s->got, s->r->scratch, n)) s->wrong = true;
    s->got += n;
    b->sides[BENCH_GETS].bytes += n;
    step_now(s->r)->bytes += n;
    progress_add(s->r->progress, 0, (int64_t)n);
}

static void phase_failed(struct slot *s, const struct call_result *result)
{
    struct runner *r = s->r;

    if (!r->failed) {
        r->failure = *result;
        cli_failed(result, s->kind == BENCH_PUTS ? "put" : "delete", r->b->objects.bucket, strbuf_get(&s->key));
    }
    r->failed = true;
    if (r->phase == PREPARE) r->over = true; /* the load would only fail */
}

static void on_end(void *arg, const struct call_result *result)
{
    struct slot *s = arg;
    struct runner *r = s->r;
    char buf[64];
    const char *wrong = result->err == ERR_OK ? what_is_wrong(s, buf, sizeof buf) : NULL;
    bool done = (result->err == ERR_OK && !wrong) || (s->kind == BENCH_DELETES && call_not_found(result));

    s->call = NULL;
    r->active--;
    log_end(s, result, wrong);
    if (wrong) show_wrong(s, wrong);
    if (r->phase == LOAD && !r->over) count_load(s, result, wrong);
    else if (r->phase == PREPARE) r->b->prepared += done;
    else if (r->phase == CLEANUP) r->b->removed += done;
    if (!done && r->phase != LOAD) phase_failed(s, result);
    if (s->kind == BENCH_PUTS && done) progress_add(r->progress, 0, (int64_t)s->size);
    progress_add(r->progress, done, 0);
    r->failed_in_a_row = done ? 0 : r->failed_in_a_row + 1;
    if (r->failed_in_a_row == GIVE_UP + r->nslots) r->over = true;
    slot_next(s);
}

/* ---- starting one */

static struct body *make_body(void *arg)
{
    const struct slot *s = arg;
    return bench_body(s->r->b->pattern, s->seed, s->size);
}

static void choose_range(struct slot *s)
{
    uint64_t range = s->r->b->conf.range_bytes;

    s->first = 0;
    s->want = s->size;
    if (!range || range >= s->size) return;
    s->want = range;
    s->first = random_u64() % (s->size - range + 1);
}

static enum err slot_start(struct slot *s)
{
    static const struct hdr bypass = {{"s3dlio-cache", 12}, {"bypass", 6}, HDR_S3DLIO_CACHE};
    static const struct call_events events = {on_head, on_space, on_filled, on_end};
    struct bench *b = s->r->b;
    struct call_request q = {.bucket = b->objects.bucket};

    bench_object(&b->objects, s->object, &s->key, &s->size);
    if (s->key.failed) return ERR_URI_TOO_LONG;
    q.key = strbuf_get(&s->key);
    s->seed = bench_seed(q.key);
    s->got = 0;
    s->wrong = false;
    s->outcome = BENCH_UNTOLD;
    s->start_ns = clock_ns();
    if (s->kind == BENCH_GETS) {
        q.method = METHOD_GET;
        choose_range(s);
        q.has_range = s->want < s->size;
        q.first = s->first;
        q.last = s->first + s->want - 1;
        if (b->conf.bypass) q.hdrs = &bypass, q.nhdrs = 1;
    } else if (s->kind == BENCH_PUTS) {
        q.method = METHOD_PUT;
        if (s->size) q.body = make_body;
        q.body_arg = s;
        q.body_length = (int64_t)s->size;
        if (!bench_bit(b->objects.there, s->object)) bench_bit_set(b->objects.made, s->object);
    } else {
        q.method = METHOD_DELETE;
    }
    return call_start(&b->cli->net, &q, &events, s, &s->call);
}

static void slot_next(struct slot *s)
{
    struct runner *r = s->r;

    if (pick(r, s)) {
        enum err e = slot_start(s);
        if (e == ERR_OK) {
            r->active++;
            return;
        }
        struct call_result failed = {.err = e};
        phase_failed(s, &failed);
        r->over = true;
    }
    if (r->active == 0) net_stop(&r->b->cli->net);
}

/* ---- a phase */

static void cancel(struct runner *r, bool all)
{
    for (unsigned i = 0; i < r->nslots; i++) {
        struct slot *s = &r->slots[i];
        if (!s->call || (!all && s->kind != BENCH_GETS)) continue;
        call_cancel(s->call);
        s->call = NULL;
        r->active--;
        log_end(s, NULL, err_text(ERR_CANCELLED));
    }
}

static void deadline_came(struct timer *t)
{
    struct runner *r = container_of(t, struct runner, deadline);

    r->over = true;
    r->end_ns = clock_ns();
    cancel(r, false);
    if (r->active == 0) net_stop(&r->b->cli->net);
    else timer_set(&r->grace, GRACE_MS);
}

static void grace_came(struct timer *t)
{
    struct runner *r = container_of(t, struct runner, grace);

    cancel(r, true);
    net_stop(&r->b->cli->net);
}

static bool runner_init(struct runner *r, struct bench *b, enum phase phase)
{
    *r = (struct runner){.b = b, .phase = phase, .nslots = b->conf.concurrency};
    timer_init(&r->deadline, b->cli->net.loop, deadline_came);
    timer_init(&r->grace, b->cli->net.loop, grace_came);
    r->slots = calloc(r->nslots, sizeof *r->slots);
    r->scratch = malloc(SCRATCH_BYTES);
    for (unsigned i = 0; r->slots && i < r->nslots; i++) {
        r->slots[i].r = r;
        r->slots[i].index = i;
        strbuf_init(&r->slots[i].key, 4096);
    }
    return r->slots && r->scratch;
}

static void runner_free(struct runner *r)
{
    for (unsigned i = 0; r->slots && i < r->nslots; i++) strbuf_free(&r->slots[i].key);
    free(r->slots);
    free(r->scratch);
}

/* An exit code of what the phase as such came to; failures of the load's operations are not part of it. */
static int run_phase(struct bench *b, enum phase phase, const char *what, uint64_t total)
{
    struct runner r;
    struct net *net = &b->cli->net;
    int code = EXIT_OK;

    if (!runner_init(&r, b, phase)) {
        cli_error("%s", err_text(ERR_NOMEM));
        runner_free(&r);
        return EXIT_FAILED;
    }
    r.progress = progress_start(b->cli, what);
    if (total) progress_total(r.progress, total, 0, true);
    r.start_ns = clock_ns();
    if (phase == LOAD && b->conf.duration_ms) timer_set(&r.deadline, b->conf.duration_ms);
    for (unsigned i = 0; i < r.nslots; i++) slot_next(&r.slots[i]);
    if (r.active) net_run(net);
    if (!r.end_ns) r.end_ns = clock_ns();
    cancel(&r, true);
    timer_stop(&r.deadline);
    timer_stop(&r.grace);
    progress_end(r.progress, false);
    if (phase == LOAD) b->seconds = (double)(r.end_ns - r.start_ns) / 1e9;
    if (r.failed_in_a_row >= GIVE_UP) cli_error("%s: given up after %llu failures in a row", what, (unsigned long long)r.failed_in_a_row);
    if (net->interrupted) code = EXIT_INTERRUPTED;
    else if (r.failed) code = call_not_found(&r.failure) ? EXIT_NOT_THERE : EXIT_FAILED;
    runner_free(&r);
    return code;
}

int bench_prepare(struct bench *b)
{
    uint64_t missing = 0;

    for (uint64_t i = 0; i < b->objects.n; i++) missing += !bench_bit(b->objects.there, i);
    return missing ? run_phase(b, PREPARE, "putting objects", missing) : EXIT_OK;
}

int bench_load(struct bench *b)
{
    char what[32];

    snprintf(what, sizeof what, "bench %s", b->conf.kind);
    bench_series_init(&b->series);
    int code = run_phase(b, LOAD, what, b->conf.ops);
    b->interrupted = code == EXIT_INTERRUPTED;
    return code;
}

int bench_cleanup(struct bench *b)
{
    struct net *net = &b->cli->net;
    uint64_t made = 0;
    bool before = net->interrupted;

    for (uint64_t i = 0; i < b->objects.n; i++) made += bench_bit(b->objects.made, i);
    if (!made) return EXIT_OK;
    if (before) cli_note(b->cli, "removing %llu objects; another interrupt leaves them there", (unsigned long long)made);
    net->interrupted = false;
    int code = run_phase(b, CLEANUP, "removing objects", made);
    if (code != EXIT_OK)
        cli_error("%llu of %llu objects are left", (unsigned long long)(made > b->removed ? made - b->removed : 0), (unsigned long long)made);
    net->interrupted = before || net->interrupted;
    return code;
}
