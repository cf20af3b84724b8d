/* file.c - the origin type file: a directory of buckets, read as S3 would answer (GET, HEAD, listings).
 *
 * Nothing blocks the worker: opening, reading, listing and closing are disk jobs, one at a time per call. Every read is
 * checked on the disk's thread against size and time of the file as it was opened, before its bytes are given on: what
 * was changed meanwhile ends the call, and what is missing is never made up.
 *
 *   a call is            | ends by
 *   JOB  a job is under way | its done(), on the loop
 *   PAUSED the receiver has no space | resume
 *   READY the step task is scheduled | step
 *   gone (ended or cancelled) | freed when its last job is done; its descriptor is closed by one more job */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "http/uri.h"
#include "origin/file_list.h"
#include "origin/file_reply.h"
#include "origin/impl.h"

#define CALL_MAGIC 0x6663616cu
#define READ_BYTES ((size_t)256 << 10)
#define CALL_MEMORY_BYTES ((size_t)1 << 20)
#define SPACE_IOVS 16
#define KEY_BYTES_MAX 4000 /* with the bucket below PATH_MAX */

struct file_origin {
    int root_fd;
    struct disk *disk;
};
struct file_worker {
    struct origin_worker *w;
    struct file_origin *shared;
    unsigned calls; /* those gone but not yet freed as well */
    bool closing;
    void (*closed)(void *arg);
    void *closed_arg;
};
struct file_call {
    struct origin_call base;
    uint32_t magic;
    struct file_worker *fw;
    struct origin_request r;
    struct client_events ev;
    void *arg;
    struct pool *mem;
    const char *bucket, *path; /* decoded; path: bucket/key, NULL when no file can have that name */
    bool gone, in_event, job_busy;
    void (*after_job)(struct file_call *call);
    struct disk_job job;
    struct task step;
    void (*step_fn)(struct file_call *call);
    struct timer operation;
    int fd;
    struct stat st;
    struct file_reply reply;
    struct file_list list;
    struct bucket_list buckets;
    bool has_list;
    const uint8_t *out; /* what is given to the receiver: read_buf or the document */
    size_t out_n;
    uint8_t *read_buf;
    uint64_t started_ns;
};

/* ---- life of a call */

static void call_free(struct file_call *call)
{
    struct file_worker *fw = call->fw;
    file_reply_free(&call->reply);
    strbuf_free(&call->buckets.out);
    if (call->has_list) file_list_free(&call->list);
    disk_list_free(&call->job.list);
    pool_destroy(call->mem);
    free(call->read_buf);
    call->magic = 0;
    free(call);
    fw->calls--;
    if (!fw->closing || fw->calls) return;
    void (*closed)(void *) = fw->closed;
    void *arg = fw->closed_arg;
    fw->w->priv = NULL;
    free(fw);
    closed(arg);
}

static void job_done(struct disk_job *j);

static void job_start(struct file_call *call, void (*after)(struct file_call *))
{
    CHECK(!call->job_busy);
    call->job_busy = true;
    call->after_job = after;
    call->job.done = job_done;
    call->job.arg = call;
    disk_submit(call->fw->shared->disk, &call->job, call->base.worker->mailbox);
}

/* Nobody is interested any more: closes what is open, then frees. */
static void call_dispose(struct file_call *call)
{
    CHECK(call->gone);
    if (call->job_busy || call->in_event) return; /* whoever ends that comes here again */
    if (call->fd < 0) {
        call_free(call);
        return;
    }
    call->job.op = DISK_CLOSE;
    call->job.fd = call->fd;
    call->fd = -1;
    job_start(call, NULL);
}

static void job_done(struct disk_job *j)
{
    struct file_call *call = j->arg;
    CHECK_OBJ(call, CALL_MAGIC);
    call->job_busy = false;
    if (j->op == DISK_OPEN_STAT && j->result == ERR_OK) {
        call->fd = j->fd;
        call->st = j->st;
    }
    if (call->gone)
        call_dispose(call);
    else
        call->after_job(call);
}

static void call_leave(struct file_call *call)
{
    call->gone = true;
    timer_stop(&call->operation);
    task_cancel(&call->step);
    stat_sub(&call->base.worker->stats.in_flight, 1);
}

static void call_end(struct file_call *call, enum err e)
{
    struct origin_stats *st = &call->base.worker->stats;
    call_leave(call);
    if (e == ERR_OPERATION_TIMEOUT) stat_add(&st->errors_timeout, 1);
    if (e == ERR_CHANGED || e == ERR_TRUNCATED || e == ERR_IO) stat_add(&st->errors_reset, 1);
    call->in_event = true;
    call->ev.end(call->arg, e);
    call->in_event = false;
    call_dispose(call);
}

static void call_step(struct task *t)
{
    struct file_call *call = container_of(t, struct file_call, step);
    CHECK_OBJ(call, CALL_MAGIC);
    call->step_fn(call);
}

static void step_later(struct file_call *call, void (*fn)(struct file_call *))
{
    call->step_fn = fn;
    task_schedule(&call->step);
}

/* ---- the body */

/* Runs on a disk thread and touches what belongs to the job only. */
static void read_verified(struct disk_job *j)
{
    struct stat now;
    j->got = 0;
    j->result = ERR_OK;
    while (j->got < j->iov.iov_len) {
        ssize_t n =
            pread(j->fd, (char *)j->iov.iov_base + j->got, j->iov.iov_len - j->got, (off_t)(j->offset + j->got));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            j->result = ERR_IO;
            return;
        }
        if (n == 0) break;
        j->got += (size_t)n;
    }
    if (fstat(j->fd, &now) != 0)
        j->result = ERR_IO;
    else if (now.st_size != j->st.st_size || now.st_mtim.tv_sec != j->st.st_mtim.tv_sec ||
             now.st_mtim.tv_nsec != j->st.st_mtim.tv_nsec)
        j->result = ERR_CHANGED;
    else if (j->got < j->iov.iov_len)
        j->result = ERR_TRUNCATED;
}

static void body_step(struct file_call *call);

static void read_done(struct file_call *call)
{
    if (call->job.result != ERR_OK) {
        call_end(call, call->job.result);
        return;
    }
    call->out = call->read_buf;
    call->out_n = call->job.got;
    body_step(call);
}

static void read_next(struct file_call *call)
{
    uint64_t left = call->reply.end - call->reply.first;
    if (!call->read_buf) call->read_buf = malloc(left < READ_BYTES ? (size_t)left : READ_BYTES);
    if (!call->read_buf) {
        call_end(call, ERR_NOMEM);
        return;
    }
    call->job.op = DISK_RUN;
    call->job.run = read_verified;
    call->job.fd = call->fd;
    call->job.st = call->st;
    call->job.iov = (struct iovec){call->read_buf, left < READ_BYTES ? (size_t)left : READ_BYTES};
    call->job.offset = call->reply.first;
    call->reply.first += call->job.iov.iov_len;
    job_start(call, read_done);
}

/* Copies into the receiver's space. False: it has none, or it is gone. */
static bool give(struct file_call *call)
{
    struct iovec iov[SPACE_IOVS];
    size_t done = 0;
    unsigned n = call->ev.space(call->arg, iov, SPACE_IOVS);
    if (call->gone) return false;
    for (unsigned i = 0; i < n && done < call->out_n; i++) {
        size_t len = iov[i].iov_len < call->out_n - done ? iov[i].iov_len : call->out_n - done;
        memcpy(iov[i].iov_base, call->out + done, len);
        done += len;
    }
    if (done == 0) return false;
    call->out += done;
    call->out_n -= done;
    stat_add(&call->base.worker->stats.bytes, done);
    call->ev.filled(call->arg, done);
    return !call->gone;
}

static void body_step(struct file_call *call)
{
    bool more = true;
    call->in_event = true;
    while (call->out_n && more) more = give(call);
    call->in_event = false;
    if (call->gone)
        call_dispose(call);
    else if (call->out_n)
        return; /* until resume */
    else if (call->reply.first < call->reply.end)
        read_next(call);
    else
        call_end(call, ERR_OK);
}

/* ---- the head */

static void reply_send(struct file_call *call)
{
    struct file_reply *p = &call->reply;
    struct origin_stats *st = &call->base.worker->stats;
    if (p->failed) {
        call_end(call, ERR_NOMEM);
        return;
    }
    bool bodyless = call->r.method == METHOD_HEAD || p->status == 304;
    struct head h = {.status = p->status,
                     .reason = str_c(status_reason(p->status)),
                     .minor = 1,
                     .hdrs = p->hdrs,
                     .nhdrs = p->nhdrs,
                     .content_length = p->status == 304 ? -1 : p->content_length,
                     .keep_alive = true};
    if (bodyless) {
        p->first = p->end;
    } else if (p->first == p->end) {
        call->out = (const uint8_t *)p->doc.p;
        call->out_n = p->doc.n;
    }
    hist_add(&st->first_byte_us, (clock_ns() - call->started_ns) / 1000);
    if (p->status >= 500) stat_add(&st->status_5xx, 1);
    if (p->status == 503) stat_add(&st->slow_down, 1);
    call->in_event = true;
    call->ev.head(call->arg, &h, bodyless ? 0 : p->content_length);
    call->in_event = false;
    if (call->gone)
        call_dispose(call);
    else
        body_step(call);
}

static void reply_error(struct file_call *call, enum err e)
{
    file_reply_error(&call->reply, call->mem, e, call->r.path);
    reply_send(call);
}

/* ---- objects */

static void bucket_checked(struct file_call *call)
{
    enum err e = call->job.result;
    if (e == ERR_OK)
        e = ERR_NOT_FOUND;
    else if (e == ERR_NOT_FOUND)
        e = ERR_NO_BUCKET;
    reply_error(call, e);
}

/* No such file: because there is no such bucket? */
static void bucket_check(struct file_call *call, void (*after)(struct file_call *))
{
    call->job.op = DISK_OPEN_STAT;
    call->job.dir_fd = call->fw->shared->root_fd;
    call->job.path = call->bucket;
    call->job.want_dir = true;
    job_start(call, after);
}

static void object_opened(struct file_call *call)
{
    enum err e = call->job.result;
    if (e == ERR_NOT_FOUND) {
        bucket_check(call, bucket_checked);
        return;
    }
    if (e != ERR_OK) {
        reply_error(call, e);
        return;
    }
    file_reply_object(&call->reply, call->mem, &call->r, &call->st, call->path);
    reply_send(call);
}

static void object_open(struct file_call *call)
{
    call->job.op = DISK_OPEN_STAT;
    call->job.dir_fd = call->fw->shared->root_fd;
    call->job.path = call->path;
    call->job.want_dir = false;
    job_start(call, object_opened);
}

/* ---- buckets and the service */

static void head_ok(struct file_call *call)
{
    enum err e = call->job.result;
    if (e != ERR_OK) {
        reply_error(call, e == ERR_NOT_FOUND ? ERR_NO_BUCKET : e);
        return;
    }
    call->reply.status = 200;
    file_reply_document(&call->reply, call->mem);
    reply_send(call);
}

static void list_round(struct file_call *call);

static void list_done(struct file_call *call)
{
    enum err e = call->job.result;
    if (e != ERR_OK) {
        reply_error(call, e == ERR_NOT_FOUND ? ERR_NO_BUCKET : e);
        return;
    }
    bool last = file_list_take(&call->list, &call->job.list);
    disk_list_free(&call->job.list);
    if (!last) {
        list_round(call);
        return;
    }
    if (file_list_write(&call->list, str_c(call->bucket), &call->reply.doc) != ERR_OK) {
        call_end(call, ERR_NOMEM);
        return;
    }
    file_reply_document(&call->reply, call->mem);
    reply_send(call);
}

static void list_round(struct file_call *call)
{
    call->job.dir_fd = call->fw->shared->root_fd;
    call->job.path = call->bucket;
    if (file_list_ask(&call->list, &call->job) != ERR_OK)
        call_end(call, ERR_NOMEM);
    else
        job_start(call, list_done);
}

/* Subresources that a directory has no answer for; anything else unknown is ignored as S3 does. */
static bool is_subresource(struct str name)
{
    static const char *const names[] = {"accelerate",
                                        "acl",
                                        "analytics",
                                        "attributes",
                                        "cors",
                                        "encryption",
                                        "intelligent-tiering",
                                        "inventory",
                                        "legal-hold",
                                        "lifecycle",
                                        "location",
                                        "logging",
                                        "metrics",
                                        "notification",
                                        "object-lock",
                                        "ownershipControls",
                                        "policy",
                                        "policyStatus",
                                        "publicAccessBlock",
                                        "replication",
                                        "requestPayment",
                                        "retention",
                                        "tagging",
                                        "torrent",
                                        "uploadId",
                                        "uploads",
                                        "versionId",
                                        "versioning",
                                        "versions",
                                        "website"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(name, str_c(names[i]))) return true;
    return false;
}

static bool asks_subresource(struct str query)
{
    struct str name, value;
    while (query_next(&query, &name, &value)) {
        bool null_version = str_eq(name, STR_LIT("versionId")) && str_eq(value, STR_LIT("null"));
        if (is_subresource(name) && !null_version) return true;
    }
    return false;
}

static bool query_has(struct str query, struct str wanted)
{
    struct str name, value;
    while (query_next(&query, &name, &value))
        if (str_eq(name, wanted)) return true;
    return false;
}

/* GetBucketLocation: clients ask it before anything else. Empty is us-east-1. */
static void location_checked(struct file_call *call)
{
    enum err e = call->job.result;
    if (e != ERR_OK) {
        reply_error(call, e == ERR_NOT_FOUND ? ERR_NO_BUCKET : e);
        return;
    }
    strbuf_z(&call->reply.doc, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<LocationConstraint "
                               "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"/>");
    call->reply.failed |= call->reply.doc.failed;
    file_reply_document(&call->reply, call->mem);
    reply_send(call);
}

static void list_begin(struct file_call *call)
{
    enum err e = file_list_init(&call->list, call->r.query, call->mem);
    call->has_list = true;
    if (e != ERR_OK)
        reply_error(call, e);
    else
        list_round(call);
}

static void buckets_run(struct disk_job *j)
{
    struct file_call *call = j->arg;
    j->result = bucket_list_read(&call->buckets);
}

static void buckets_done(struct file_call *call)
{
    if (call->job.result != ERR_OK) {
        reply_error(call, call->job.result);
        return;
    }
    strbuf_str(&call->reply.doc, strbuf_get(&call->buckets.out));
    call->reply.failed |= call->reply.doc.failed;
    file_reply_document(&call->reply, call->mem);
    reply_send(call);
}

static void buckets_begin(struct file_call *call)
{
    call->buckets.root_fd = call->fw->shared->root_fd;
    call->job.op = DISK_RUN;
    call->job.run = buckets_run;
    job_start(call, buckets_done);
}

/* ---- what is asked for */

static bool segment_ok(struct str s)
{
    if (s.n == 0 || s.n > 255) return false;
    if (memchr(s.p, 0, s.n)) return false;
    return !str_eq(s, STR_LIT(".")) && !str_eq(s, STR_LIT(".."));
}

/* A file system would take a//b, a/./b and a/b for one file: here only the last is a name. */
static bool key_ok(struct str key)
{
    struct str rest = key, segment;
    if (key.n > KEY_BYTES_MAX || key.p[key.n - 1] == '/') return false;
    while (str_split(&rest, '/', &segment))
        if (!segment_ok(segment)) return false;
    return true;
}

/* Splits and decodes. ERR_OK, ERR_NO_BUCKET, ERR_BAD_URI, ERR_NOMEM; key n == 0: the bucket itself. */
static enum err name_split(struct file_call *call, struct str *bucket, struct str *key)
{
    const struct origin_request *r = &call->r;
    struct s3_address a = r->address;
    if (!a.bucket.p && r->path.n && r->path.p[0] == '/') {
        struct str rest = str_make(r->path.p + 1, r->path.n - 1);
        size_t n = str_find(rest, '/');
        a.bucket = str_make(rest.p, n);
        a.key = n < rest.n ? str_make(rest.p + n + 1, rest.n - n - 1) : (struct str){NULL, 0};
    }
    *bucket = a.bucket.n ? uri_decode(call->mem, a.bucket) : (struct str){NULL, 0};
    *key = a.key.n ? uri_decode(call->mem, a.key) : (struct str){NULL, 0};
    if ((a.bucket.n && !bucket->p) || (a.key.n && !key->p)) return ERR_BAD_URI;
    if (!bucket->n) return key->n ? ERR_NO_BUCKET : ERR_OK;
    if (!segment_ok(*bucket) || str_find(*bucket, '/') < bucket->n || bucket->p[0] == '.') return ERR_NO_BUCKET;
    call->bucket = pool_str(call->mem, *bucket).p;
    if (key->n && key_ok(*key)) {
        call->path = pool_f(call->mem, STR_FMT "/" STR_FMT, STR_ARG(*bucket), STR_ARG(*key)).p;
        if (!call->path) return ERR_NOMEM;
    }
    return call->bucket ? ERR_OK : ERR_NOMEM;
}

static void call_begin(struct file_call *call)
{
    struct str bucket, key;
    enum method m = call->r.method;
    if (m != METHOD_GET && m != METHOD_HEAD) {
        reply_error(call, ERR_METHOD_NOT_ALLOWED);
        return;
    }
    enum err e = name_split(call, &bucket, &key);
    if (e == ERR_NOMEM)
        call_end(call, e);
    else if (e != ERR_OK)
        reply_error(call, e);
    else if (bucket.n && !key.n && query_has(call->r.query, STR_LIT("location")))
        bucket_check(call, location_checked);
    else if (asks_subresource(call->r.query))
        reply_error(call, ERR_NOT_IMPLEMENTED);
    else if (!bucket.n)
        buckets_begin(call);
    else if (key.n && call->path)
        object_open(call);
    else if (key.n)
        bucket_check(call, bucket_checked);
    else if (m == METHOD_HEAD)
        bucket_check(call, head_ok);
    else
        list_begin(call);
}

/* ---- the caller's side */

static void operation_due(struct timer *t)
{
    call_end(container_of(t, struct file_call, operation), ERR_OPERATION_TIMEOUT);
}

static enum err file_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev,
                            void *arg, struct origin_call **out)
{
    struct file_worker *fw = w->priv;
    struct file_call *call = calloc(1, sizeof *call);
    if (!call) return ERR_NOMEM;
    call->mem = pool_create(CALL_MEMORY_BYTES);
    if (!call->mem) {
        free(call);
        return ERR_NOMEM;
    }
    call->base.worker = w;
    call->magic = CALL_MAGIC;
    call->fw = fw;
    call->r = *r;
    call->ev = *ev;
    call->arg = arg;
    call->fd = -1;
    file_reply_init(&call->reply);
    strbuf_init(&call->buckets.out, 0);
    task_init(&call->step, w->loop, call_step);
    timer_init(&call->operation, w->loop, operation_due);
    timer_set(&call->operation, w->origin->conf->operation_ms);
    call->started_ns = clock_ns();
    fw->calls++;
    stat_add(&w->stats.requests, 1);
    stat_add(&w->stats.in_flight, 1);
    step_later(call, call_begin);
    *out = &call->base;
    return ERR_OK;
}

static void file_resume(struct origin_call *c)
{
    struct file_call *call = container_of(c, struct file_call, base);
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->gone || call->in_event || call->job_busy || call->out_n == 0) return; /* not paused */
    step_later(call, body_step);
}

static void file_cancel(struct origin_call *c)
{
    struct file_call *call = container_of(c, struct file_call, base);
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->gone) return; /* from inside its end() */
    call_leave(call);
    call_dispose(call);
}

/* ---- life of the origin */

static enum err file_open(struct origin *o, struct disk *disk, unsigned nworkers, char *msg, size_t n)
{
    (void)nworkers;
    struct file_origin *fo = calloc(1, sizeof *fo);
    if (!fo) {
        snprintf(msg, n, "out of memory");
        return ERR_NOMEM;
    }
    fo->disk = disk;
    fo->root_fd = open(o->conf->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fo->root_fd < 0) {
        snprintf(msg, n, "cannot open directory %s: %s", o->conf->root, strerror(errno));
        free(fo);
        return ERR_IO;
    }
    o->priv = fo;
    return ERR_OK;
}

static void file_close(struct origin *o)
{
    struct file_origin *fo = o->priv;
    close(fo->root_fd);
    free(fo);
    o->priv = NULL;
}

static enum err file_worker_open(struct origin_worker *w, unsigned index)
{
    (void)index;
    struct file_worker *fw = calloc(1, sizeof *fw);
    if (!fw) return ERR_NOMEM;
    fw->w = w;
    fw->shared = w->origin->priv;
    w->priv = fw;
    return ERR_OK;
}

static void file_worker_close(struct origin_worker *w, void (*done)(void *arg), void *arg)
{
    struct file_worker *fw = w->priv;
    fw->closing = true;
    fw->closed = done;
    fw->closed_arg = arg;
    if (fw->calls) return; /* cancelled ones whose jobs are under way: the last one tells */
    w->priv = NULL;
    free(fw);
    done(arg);
}

const struct origin_type_ops origin_file_ops = {
    .name = "file",
    .open = file_open,
    .close = file_close,
    .worker_open = file_worker_open,
    .worker_close = file_worker_close,
    .submit = file_submit,
    .resume = file_resume,
    .cancel = file_cancel,
};
