/* transfer.c - see the header. */
#include "cli/transfer.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#define STOP_MS 400          /* what an interrupt waits for jobs and requests that clean up */
#define DISK_THREADS_MAX 4u
#define PARTS_START 2u /* one reads while another is written */
#define SLOTS(t) (3 * (unsigned)(t)->o.jobs) /* requests that clean up do not wait for their turn */

/* ---- items */

static char *put_text(char **w, struct str s, struct str *out)
{
    if (s.n) memcpy(*w, s.p, s.n);
    *out = str_make(*w, s.n);
    *w += s.n;
    *(*w)++ = '\0';
    return *w;
}

struct item *item_make(struct str bucket, struct str key, const char *dir, struct str name)
{
    struct str joined = str_c(dir);
    bool slash = dir && joined.n && joined.p[joined.n - 1] != '/';
    struct item *i = malloc(sizeof *i + bucket.n + key.n + joined.n + name.n + 5);

    if (!i) return NULL;
    *i = (struct item){.modified_s = -1};
    char *w = (char *)(i + 1);
    put_text(&w, bucket, &i->bucket);
    put_text(&w, key, &i->key);
    if (!name.p) return i;
    i->path = w;
    if (joined.n) memcpy(w, joined.p, joined.n);
    w += joined.n;
    if (slash) *w++ = '/';
    memcpy(w, name.p, name.n);
    w[name.n] = '\0';
    return i;
}

struct item *item_make_copy(struct str bucket, struct str key, struct str from_bucket, struct str from_key)
{
    struct item *i = malloc(sizeof *i + bucket.n + key.n + from_bucket.n + from_key.n + 5);

    if (!i) return NULL;
    *i = (struct item){.modified_s = -1};
    char *w = (char *)(i + 1);
    put_text(&w, bucket, &i->bucket);
    put_text(&w, key, &i->key);
    put_text(&w, from_bucket, &i->from_bucket);
    put_text(&w, from_key, &i->from_key);
    return i;
}

/* ---- the pump */

void transfer_pump(struct transfer *t) { task_schedule(&t->pump); }

/* What may hang is not waited for. */
static bool is_over(const struct transfer *t)
{
    bool jobs = t->njobs && !t->blocked_io;
    return t->nactive == 0 && !jobs && t->nrequests == 0 && (t->source_ended || t->stopping);
}

static void say_bad(struct transfer *t, struct item *i)
{
    struct strbuf a;

    strbuf_init(&a, 0);
    cli_error("s3://" STR_FMT "/%s: %s", STR_ARG(i->bucket), printable(i->key, &a), i->bad);
    strbuf_free(&a);
    t->failed++;
    free(i);
}

/* False: nothing more for now. */
static bool take_item(struct transfer *t)
{
    struct item *i;
    int code = EXIT_OK;
    enum err e = t->source_ended ? ERR_END : t->source->next(t->source, &i, &code);

    if (e == ERR_AGAIN) return false;
    if (e != ERR_OK) {
        t->source_ended = true;
        if (code != EXIT_OK) t->code = code;
        progress_total(t->progress, t->total_objects, t->total_bytes, true);
        return false;
    }
    if (i->bad) {
        say_bad(t, i);
        return true;
    }
    t->total_objects++;
    if (i->has_size) t->total_bytes += i->size;
    progress_total(t->progress, t->total_objects, t->total_bytes, false);
    if (t->begin(t, i)) return true;
    cli_error("%s", err_text(ERR_NOMEM));
    t->failed++;
    t->source_ended = true;
    return false;
}

/* Somebody who was told of a buffer may have ended instead of taking it. */
static void buffers_offer(struct transfer *t)
{
    struct list *b = t->buffers.next, *n;

    for (; b != &t->buffers && (n = list_pop_front(&t->hungry)) != NULL; b = b->next) {
        struct buffer_wait *w = container_of(n, struct buffer_wait, link);
        w->ready(w);
    }
}

static void pump(struct task *task)
{
    struct transfer *t = container_of(task, struct transfer, pump);
    unsigned max_active = 2 * (unsigned)t->o.jobs;

    LIST_EACH_SAFE(n, tmp, &t->active)
    {
        struct xfer *x = container_of(n, struct xfer, link);
        while (t->nrequests < t->o.jobs && !t->stopping && x->ops->more(x)) {}
    }
    while (!t->stopping && t->nrequests < t->o.jobs && t->nactive < max_active && take_item(t)) {
        struct list *last = list_last(&t->active);
        struct xfer *x = last ? container_of(last, struct xfer, link) : NULL;
        while (x && t->nrequests < t->o.jobs && x->ops->more(x)) {}
    }
    buffers_offer(t);
    if (is_over(t)) net_stop(t->net);
}

static void source_changed(void *arg) { transfer_pump(arg); }

/* ---- xfers */

void xfer_init(struct xfer *x, struct transfer *t, const struct xfer_ops *ops, struct item *item)
{
    *x = (struct xfer){.t = t, .ops = ops, .item = item};
    list_push_back(&t->active, &x->link);
    t->nactive++;
}

void xfer_end(struct xfer *x, enum xfer_end how)
{
    struct transfer *t = x->t;

    list_remove(&x->link);
    t->nactive--;
    t->objects += how == XFER_DONE;
    t->skipped += how == XFER_SKIPPED;
    t->failed += how == XFER_FAILED || how == XFER_MISSING;
    t->missing += how == XFER_MISSING;
    progress_add(t->progress, 1, 0);
    free(x->item);
    x->item = NULL;
    transfer_pump(t);
}

void transfer_progress(struct transfer *t, int64_t bytes)
{
    progress_add(t->progress, 0, bytes);
    if (bytes > 0) t->period_bytes += (uint64_t)bytes;
}

/* ---- how many parts of large objects at once: more are slower where one processor serves and reads them all */

bool transfer_part_may_start(struct transfer *t)
{
    if (!t->o.climb || t->nparts < t->climb.target) return true;
    t->period_busy = true;
    return false;
}

void transfer_part_count(struct transfer *t, int by)
{
    t->nparts += (unsigned)by;
    if (!t->o.climb || by < 0 || t->period.due_ms) return;
    t->period_ns = clock_ns();
    t->period_bytes = 0;
    timer_set(&t->period, CLIMB_PERIOD_MS);
}

static void period_over(struct timer *timer)
{
    struct transfer *t = container_of(timer, struct transfer, period);
    uint64_t now = clock_ns();

    climb_period(&t->climb, now / 1000000, t->nparts, t->period_bytes, (now - t->period_ns) / 1000000, t->period_busy);
    t->period_busy = t->nparts >= t->climb.target;
    t->period_bytes = 0;
    t->period_ns = now;
    if (t->nparts) timer_set(&t->period, CLIMB_PERIOD_MS);
    transfer_pump(t);
}

enum err request_start(struct transfer *t, struct request *r, const struct call_request *q, const struct call_events *ev,
                       void *arg)
{
    enum err e = call_start(t->net, q, ev, arg, &r->call);

    if (e != ERR_OK) return e;
    r->slot = t->slots[t->nrequests++];
    return ERR_OK;
}

static void request_over(struct transfer *t, struct request *r)
{
    r->call = NULL;
    t->slots[--t->nrequests] = r->slot;
    transfer_pump(t);
}

void request_ended(struct transfer *t, struct request *r, const char *op, struct str bucket, struct str key, uint64_t bytes,
                   const struct call_result *result)
{
    oplog_call(t->cli->oplog, op, r->slot, bucket, key, bytes, result);
    request_over(t, r);
}

void request_cancel(struct transfer *t, struct request *r)
{
    if (!r->call) return;
    call_cancel(r->call);
    request_over(t, r);
}

void job_start(struct transfer *t, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg)
{
    *j = (struct disk_job){.op = DISK_RUN, .run = run, .done = done, .arg = arg};
    t->njobs++;
    disk_submit(t->disk, j, t->net->mailbox);
}

void job_returned(struct transfer *t)
{
    t->njobs--;
    transfer_pump(t);
}

/* ---- buffers */

void buffer_wait_init(struct buffer_wait *w, void (*ready)(struct buffer_wait *w))
{
    list_init(&w->link);
    w->ready = ready;
}

static struct buffer *buffer_make(struct transfer *t)
{
    struct buffer *b = calloc(1, sizeof *b);

    if (b) b->bytes = malloc(BUFFER_BYTES);
    if (b && b->bytes) {
        t->nbuffers++;
        return b;
    }
    free(b);
    return NULL;
}

struct buffer *buffer_get(struct transfer *t, struct buffer_wait *w)
{
    struct list *n = list_pop_front(&t->buffers);
    struct buffer *b = n ? container_of(n, struct buffer, link) : NULL;

    if (!b && t->nbuffers < t->max_buffers) b = buffer_make(t);
    if (b) {
        list_init(&b->link);
        b->n = 0;
    } else if (!list_linked(&w->link)) {
        list_push_back(&t->hungry, &w->link);
    }
    return b;
}

void buffer_put(struct transfer *t, struct buffer *b)
{
    list_push_front(&t->buffers, &b->link); /* warm */
    struct list *n = list_pop_front(&t->hungry);
    if (!n) return;
    struct buffer_wait *w = container_of(n, struct buffer_wait, link);
    w->ready(w);
}

static void buffers_free(struct transfer *t)
{
    struct list *n;

    while ((n = list_pop_front(&t->buffers)) != NULL) {
        struct buffer *b = container_of(n, struct buffer, link);
        free(b->bytes);
        free(b);
    }
}

/* ---- the whole run */

static bool start(struct transfer *t)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cpus < 2 ? 2 : cpus > (long)DISK_THREADS_MAX ? DISK_THREADS_MAX : (unsigned)cpus;

    list_init(&t->active);
    list_init(&t->buffers);
    list_init(&t->hungry);
    task_init(&t->pump, t->net->loop, pump);
    timer_init(&t->period, t->net->loop, period_over);
    climb_init(&t->climb, t->o.climb_from ? t->o.climb_from : PARTS_START, (unsigned)t->o.jobs);
    if (!t->max_buffers) t->max_buffers = 2 * (unsigned)t->o.jobs + 8;
    t->slots = calloc(SLOTS(t), sizeof *t->slots);
    if (!t->slots || disk_create(threads, &t->disk) != ERR_OK) return false;
    for (unsigned i = 0; i < SLOTS(t); i++) t->slots[i] = i;
    t->source->changed = source_changed;
    t->source->changed_arg = t;
    return true;
}

static void stop_late(struct timer *timer) { loop_stop(timer->loop); }

/* After an interrupt: requests that clean up on the far side and jobs that still hold files get a moment. */
static void wind_down(struct transfer *t)
{
    struct timer late;

    t->stopping = true;
    LIST_EACH_SAFE(n, tmp, &t->active)
    {
        struct xfer *x = container_of(n, struct xfer, link);
        x->ops->cancel(x);
    }
    t->net->interrupted = false;
    timer_init(&late, t->net->loop, stop_late);
    timer_set(&late, STOP_MS);
    if (!is_over(t)) net_run(t->net);
    timer_stop(&late);
    t->net->interrupted = true;
}

/* Something hangs that nobody can call back: a read of standard input, a disk that does not answer, a server that was asked
 * to take an upload back. */
static _Noreturn void leave(struct transfer *t, int code)
{
    char msg[256];

    if (t->nrequests || !t->njobs) cli_error("the server did not answer in time: parts of an upload may be left there");
    if (!oplog_close(t->cli->oplog, msg, sizeof msg)) cli_error("--op-log: %s", msg);
    fflush(stdout);
    _exit(code);
}

static void summary(struct transfer *t, uint64_t start_ns)
{
    if (!t->cli->json) return;
    cli_print_json(json_pack("{sIsIsIsIsf}", "objects", (json_int_t)t->objects, "bytes", (json_int_t)t->bytes, "failed",
                             (json_int_t)t->failed, "skipped", (json_int_t)t->skipped, "seconds",
                             (double)(clock_ns() - start_ns) / 1e9));
}

static int exit_code(const struct transfer *t)
{
    if (t->stopping) return EXIT_INTERRUPTED;
    if (t->quiet_end) return EXIT_OK;
    if (t->failed) return t->failed == t->missing && !t->objects && !t->skipped ? EXIT_NOT_THERE : EXIT_FAILED;
    return t->code;
}

int transfer_run(struct transfer *t, const char *what)
{
    uint64_t start_ns = clock_ns();

    if (!start(t)) {
        cli_error("%s", err_text(ERR_NOMEM));
        t->source->close(t->source);
        return EXIT_FAILED;
    }
    t->progress = progress_start(t->cli, what);
    transfer_pump(t);
    if (!net_run(t->net)) wind_down(t);
    progress_end(t->progress, !t->stopping);
    if (!t->stopping || t->objects) summary(t, start_ns);
    int code = exit_code(t);
    if (t->njobs || t->nrequests || t->nactive) leave(t, code);
    t->source->close(t->source);
    task_cancel(&t->pump);
    timer_stop(&t->period);
    disk_destroy(t->disk);
    buffers_free(t);
    free(t->slots);
    return code;
}
