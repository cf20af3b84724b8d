/* download.c - one object on its way to this machine. See download.h.
 *
 * The first request is the discovery: the whole object where a listing said that it is small, else a range of one part, whose
 * answer says how large the object is and which version. Further parts carry If-Match. Whatever shows another version -
 * 412, another ETag, another size - makes the download start again from nothing, RESTARTS_MAX times.
 *
 *   small: one buffer -> a job checks it, writes it, gives it its name
 *   large: parts -> buffers -> jobs write them where they belong; jobs read the file in order to check it; a job names it
 *   stream: parts -> buffers, written in order by one job at a time, which sums them on the way
 *
 * Every event only notes what happened and schedules `settle`, the one place that decides: fail, start again, check, finish.
 * Nothing is freed while a job is out. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/download_impl.h"
#include "http/date.h"

#define RESTARTS_MAX 3u

/* ---- ends */

void download_settle(struct download *d) { task_schedule(&d->settle); }

void download_fail(struct download *d, enum xfer_end how, const char *fmt, ...)
{
    const struct item *i = d->x.item;
    char why[600];
    va_list args;

    if (d->failing) return;
    d->failing = true;
    d->how = how;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    if (how != XFER_STOPPED)
        cli_error("cannot get s3://" STR_FMT "/" STR_FMT ": %s", STR_ARG(i->bucket), STR_ARG(i->key), why);
    download_settle(d);
}

void download_file_failed(struct download *d, int why)
{
    const char *name = is_stream(d) ? d->c->stream_name : d->x.item->path;

    if (is_stream(d) && why == EPIPE) {
        d->x.t->quiet_end = true;
        download_fail(d, XFER_STOPPED, "the reader has left");
    } else if (why == EBUSY && d->x.t->o.resume) {
        download_fail(d, XFER_FAILED, "another run is downloading %s", name);
    } else {
        download_fail(d, XFER_FAILED, "cannot %s %s: %s", is_stream(d) ? "write" : d->file.doing, name, strerror(why));
    }
}

void download_restart(struct download *d)
{
    if (d->restarts == RESTARTS_MAX) {
        download_fail(d, XFER_FAILED, "the object changed %u times while it was read", d->restarts + 1);
        return;
    }
    if (is_stream(d) && (d->written > d->begin || d->writing)) { /* a write that is out may have written already */
        download_fail(d, XFER_FAILED, "the object changed while it was read, and a part of it has been written");
        return;
    }
    d->restarting = true;
    download_settle(d);
}

void download_job(struct download *d, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg)
{
    d->jobs++;
    job_start(d->x.t, j, run, done, arg);
}

bool download_job_returned(struct download *d)
{
    CHECK_OBJ(d, DOWNLOAD_MAGIC);
    d->jobs--;
    job_returned(d->x.t);
    if (d->detached) return false;
    download_settle(d);
    return true;
}

/* ---- teardown */

static void requests_stop(struct download *d)
{
    request_cancel(d->x.t, &d->head);
    LIST_EACH_SAFE(n, tmp, &d->parts)
    {
        struct part *p = container_of(n, struct part, link);
        request_cancel(d->x.t, &p->request);
        if (p->writes == 0) part_free(p);
    }
}

static void forget(struct download *d)
{
    bool keep = d->failing && d->state.path;

    transfer_progress(d->x.t, d->failing ? 0 : -(int64_t)d->shown);
    d->shown = 0;
    state_drop(d, keep);
    outfile_drop(&d->file, keep);
    sum_drop(&d->sum);
    free(d->have);
    d->have = NULL;
}

static void destroy(struct download *d)
{
    forget(d);
    xfer_end(&d->x, d->how);
    task_cancel(&d->settle);
    free(d->sum_bytes);
    d->magic = 0;
    free(d);
}

/* A job hangs in a write that nobody can call back: the process ends around it (transfer.c). */
static void detach(struct download *d)
{
    d->detached = true;
    xfer_end(&d->x, d->how);
}

static void again(struct download *d)
{
    forget(d);
    d->restarts++;
    d->restarting = d->started = d->probing = d->single = d->small = d->resuming = false;
    d->head_wanted = d->head_done = d->want_known = d->sum_wrong = false;
    d->want.kind = SUM_NONE;
    d->etag[0] = '\0';
    d->end = UINT64_MAX;
    d->next = d->written = d->begin;
    d->ready = d->summed = d->crc = d->sum_from = 0;
    d->nparts = 0;
    d->part_bytes = d->x.t->o.part_bytes;
    outfile_init(&d->file, d->x.item->path);
    transfer_pump(d->x.t);
}

static void settle_due(struct task *task)
{
    struct download *d = container_of(task, struct download, settle);

    CHECK_OBJ(d, DOWNLOAD_MAGIC);
    if (d->failing || d->restarting) {
        requests_stop(d);
        if (d->jobs == 0 && d->failing) destroy(d);
        else if (d->jobs == 0) again(d);
        else if (is_stream(d) && d->failing && d->writing && !d->detached) detach(d);
        return;
    }
    if (is_stream(d)) stream_push(d);
    else if (d->small && !d->finishing) finish_small(d);
    else if (!d->finishing && !d->resuming) sum_step(d); /* until a job has looked at what is there, it is the job's */
    if (d->failing) return;
    if (d->finished && d->jobs == 0) {
        d->how = XFER_DONE;
        d->x.t->bytes += d->end - d->begin;
        destroy(d);
        return;
    }
    bool all = d->started && !d->probing && !d->resuming && list_empty(&d->parts) && d->next >= d->end && !d->head.call;
    if (all && !d->small && !d->finishing && d->want_known && sum_is_over(d) && d->jobs == 0) finish_start(d);
    else transfer_pump(d->x.t);
}

/* ---- HEAD: what to check, and whether to go on with what is there */

static bool head_head(void *arg, const struct head *h, int64_t length)
{
    struct download *d = arg;
    struct str tag = head_value(h, HDR_ETAG);
    int64_t date = date_parse(head_value(h, HDR_LAST_MODIFIED));

    (void)length; /* HEAD has no body */
    if (d->resuming) {
        if (tag.n > 2 && tag.p[0] == '"' && tag.n < sizeof d->etag) snprintf(d->etag, sizeof d->etag, STR_FMT, STR_ARG(tag));
        d->end = UINT64_MAX;
        str_to_u64(head_value(h, HDR_CONTENT_LENGTH), &d->end);
        d->mtime_s = date;
    }
    if (str_eq(tag, str_c(d->etag))) sum_expected(h, &d->want);
    return true;
}

static unsigned head_space(void *arg, struct iovec *iov, unsigned max)
{
    static char nowhere[512];
    (void)arg;
    (void)max;
    iov[0] = (struct iovec){nowhere, sizeof nowhere};
    return 1;
}

static void head_filled(void *arg, size_t n)
{
    (void)arg;
    (void)n;
}

static void head_end(void *arg, const struct call_result *r)
{
    struct download *d = arg;
    const struct item *i = d->x.item;
    char why[512];

    CHECK_OBJ(d, DOWNLOAD_MAGIC);
    request_ended(d->x.t, &d->head, "HEAD", i->bucket, i->key, 0, r);
    d->head_done = true;
    if (d->resuming) {
        if (r->err == ERR_OK && d->etag[0]) state_resume(d);
        else if (r->err == ERR_OK) download_restart(d);
        else download_fail(d, call_not_found(r) ? XFER_MISSING : XFER_FAILED, "%s", call_why(r, why, sizeof why));
    } else if (r->err == ERR_PRECONDITION || call_not_found(r)) {
        download_restart(d);
    }
    if (!d->x.t->o.check) d->want.kind = SUM_NONE;
    d->want_known = true; /* without an answer: what the first one said */
    download_settle(d);
}

static bool head_start(struct download *d)
{
    static const struct call_events events = {head_head, head_space, head_filled, head_end};
    static const struct hdr mode = {{"x-amz-checksum-mode", 19}, {"ENABLED", 7}, HDR_AMZ_CHECKSUM_MODE};
    struct call_request q = {.method = METHOD_HEAD, .bucket = d->x.item->bucket, .key = d->x.item->key, .hdrs = &mode, .nhdrs = 1};

    if (!d->resuming) q.if_match = str_c(d->etag);
    enum err e = request_start(d->x.t, &d->head, &q, &events, d);
    if (e != ERR_OK) download_fail(d, XFER_FAILED, "%s", err_text(e));
    return e == ERR_OK;
}

/* ---- interface */

static void begin_requests(struct download *d)
{
    d->started = true;
    d->resuming = d->restarts == 0 && d->x.t->o.resume && !is_stream(d) && !d->c->ranged && state_exists(d);
    d->head_wanted = d->resuming;
    d->probing = !d->resuming;
}

static bool download_more(struct xfer *x)
{
    struct download *d = container_of(x, struct download, x);

    if (d->failing || d->restarting || d->finishing) return false;
    if (!d->started) begin_requests(d);
    if (d->head_wanted && !d->head_done && !d->head.call) return head_start(d);
    if (d->resuming) return false;
    if (d->probing) return list_empty(&d->parts) && part_start(d);
    uint64_t from = d->next;
    while (d->next < d->end && d->have && d->have[(d->next - d->begin) / d->part_bytes]) d->next += d->part_bytes;
    if (d->next != from) download_settle(d); /* nothing else may be left to happen, and the end waits for this */
    if (d->single || d->next >= d->end) return false;
    if (is_stream(d) && d->next >= d->written + STREAM_AHEAD_BYTES) return false;
    if (!transfer_part_may_start(d->x.t)) return false;
    return part_start(d);
}

static void download_cancel(struct xfer *x)
{
    struct download *d = container_of(x, struct download, x);

    d->failing = true;
    d->how = XFER_STOPPED;
    /* At once, since a write may hang. Jobs that give the file its name, or look at what is kept, have it for themselves. */
    if (!d->finishing && !d->resuming && d->file.temp && !d->state.path) unlink(d->file.temp);
    download_settle(d);
}

/* --no-clobber, and with --continue what an earlier run has finished. */
static bool is_there(const struct transfer *t, const struct item *i)
{
    struct stat st;

    if (!i->path || (!t->o.no_clobber && !t->o.resume) || stat(i->path, &st) != 0) return false;
    if (t->o.no_clobber) return true;
    return S_ISREG(st.st_mode) && i->has_size && i->modified_s >= 0 && (uint64_t)st.st_size == i->size &&
           st.st_mtim.tv_sec >= i->modified_s;
}

bool download_begin(struct transfer *t, struct item *item)
{
    static const struct xfer_ops ops = {"get", download_more, download_cancel};
    struct download *d = calloc(1, sizeof *d);

    if (!d) {
        free(item);
        return false;
    }
    d->magic = DOWNLOAD_MAGIC;
    d->c = t->arg;
    task_init(&d->settle, t->net->loop, settle_due);
    list_init(&d->parts);
    outfile_init(&d->file, item->path);
    d->state.fd = -1;
    d->begin = d->next = d->written = d->c->ranged ? d->c->offset : 0;
    d->end = UINT64_MAX;
    d->mtime_s = -1;
    d->part_bytes = t->o.part_bytes;
    xfer_init(&d->x, t, &ops, item);
    if (is_there(t, item)) {
        if (t->o.no_clobber) cli_note(t->cli, "%s is there already", item->path);
        d->failing = true; /* the short way out */
        d->how = XFER_SKIPPED;
        download_settle(d);
    }
    return true;
}

unsigned download_stream_buffers(const struct transfer_options *o)
{
    uint64_t parts = STREAM_AHEAD_BYTES / o->part_bytes + 2, each = o->part_bytes / BUFFER_BYTES + 2;
    return (unsigned)(parts * each + o->jobs);
}
