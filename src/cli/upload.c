/* upload.c - one file on its way to an object. See upload.h.
 *
 *   a look at the file (a job: opens it, sums it when it is small) -> one PUT
 *                                                                  -> multipart: begun, parts summed by jobs and sent, completed
 *
 * Every PUT says the CRC-32C of its bytes, so that the far side can refuse others; what it answers is compared with it, or, where
 * it does not answer with one, its ETag with an MD5. A multipart upload that fails, or is interrupted, is aborted.
 *
 * Standard input is read a part at a time into memory, as many parts as STDIN_BYTES allow. As in download.c, events only note
 * what happened, and `settle` decides. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/upload_impl.h"

#define PARTS_AHEAD 3u                      /* summed, or being summed, and not sent yet */
#define STDIN_BYTES ((uint64_t)64 << 20)
#define STDIN_DOUBLE_PARTS 2000u            /* parts of standard input double so often: there may be 10,000 */

void upload_settle(struct upload *u) { task_schedule(&u->settle); }

const char *upload_name(const struct upload *u) { return u->c->from_stdin ? "standard input" : u->x.item->path; }

void upload_fail(struct upload *u, enum xfer_end how, const char *fmt, ...)
{
    const struct item *i = u->x.item;
    char why[600];
    va_list args;

    if (u->failing) return;
    u->failing = true;
    u->how = how;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    if (how != XFER_STOPPED)
        cli_error("cannot put %s to s3://" STR_FMT "/" STR_FMT ": %s", upload_name(u), STR_ARG(i->bucket), STR_ARG(i->key), why);
    upload_settle(u);
}

void upload_job(struct upload *u, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg)
{
    u->jobs++;
    job_start(u->x.t, j, run, done, arg);
}

bool upload_job_returned(struct upload *u)
{
    CHECK_OBJ(u, UPLOAD_MAGIC);
    u->jobs--;
    job_returned(u->x.t);
    if (u->detached) return false;
    upload_settle(u);
    return true;
}

/* ---- the end */

static void destroy(struct upload *u)
{
    struct transfer *t = u->x.t;

    if (u->finished) t->bytes += u->size;
    multipart_free(&u->multipart);
    if (u->fd > STDERR_FILENO) close(u->fd);
    if (u->buffer) buffer_put(t, u->buffer);
    xfer_end(&u->x, u->how);
    task_cancel(&u->settle);
    u->magic = 0;
    free(u);
}

static void parts_stop(struct upload *u)
{
    LIST_EACH_SAFE(n, tmp, &u->parts)
    {
        struct upart *p = container_of(n, struct upart, link);
        if (ask_busy(&p->ask) && p->number) {
            transfer_part_count(u->x.t, -1);
            u->multipart.parts_cut_off = true;
        }
        ask_cancel(&p->ask);
        if (p->state == UPART_READY || p->state == UPART_SENT) upart_free(p);
    }
}

/* True: gone. */
static bool fail_step(struct upload *u)
{
    struct multipart *m = &u->multipart;

    parts_stop(u);
    if (m->beginning || m->aborting) return false; /* its answer is needed */
    if (m->completing) {
        ask_cancel(&m->ask);
        m->completing = false;
    }
    if (m->t && m->id && !u->aborted) {
        u->aborted = true;
        if (multipart_abort(m) == ERR_OK) return false;
        m->aborting = false;
    }
    if (u->jobs && u->c->from_stdin && u->reading && !u->detached) { /* the process ends around it */
        u->detached = true;
        xfer_end(&u->x, u->how);
        return true;
    }
    if (u->jobs || u->detached) return false;
    destroy(u);
    return true;
}

/* ---- multipart */

static void multipart_done(struct multipart *m, const struct call_result *r)
{
    struct upload *u = container_of(m, struct upload, multipart);
    char why[512];

    CHECK_OBJ(u, UPLOAD_MAGIC);
    upload_settle(u);
    if (u->failing) return; /* aborted, or begun too late */
    if (r->err != ERR_OK) upload_fail(u, call_not_found(r) ? XFER_MISSING : XFER_FAILED, "%s", call_why(r, why, sizeof why));
    else if (u->ended_input && u->next == u->size && m->noted == u->number && list_empty(&u->parts)) u->finished = true;
}

static unsigned parts_waiting(const struct upload *u)
{
    unsigned n = 0;
    for (const struct list *l = u->parts.next; l != &u->parts; l = l->next)
        n += container_of(l, const struct upart, link)->state <= UPART_READY;
    return n;
}

static void feed_file(struct upload *u)
{
    while (!u->failing && u->next < u->size && parts_waiting(u) < PARTS_AHEAD) {
        uint64_t n = u->size - u->next < u->part_bytes ? u->size - u->next : u->part_bytes;
        struct upart *p = upart_make(u, ++u->number, u->next, n);
        if (!p) return;
        u->next += n;
        upart_sum(p);
    }
}

static void feed_stdin(struct upload *u)
{
    uint64_t bytes = u->part_bytes << u->number / STDIN_DOUBLE_PARTS;
    unsigned at_once = bytes < STDIN_BYTES / 2 ? (unsigned)(STDIN_BYTES / bytes) : 2;

    if (u->failing || u->reading || u->ended_input || u->nparts >= at_once) return;
    if (u->number == MULTIPART_PARTS_MAX) {
        upload_fail(u, XFER_FAILED, "more than %u parts: give a larger --part-size", MULTIPART_PARTS_MAX);
        return;
    }
    struct upart *p = upart_make(u, ++u->number, u->size, bytes);
    if (!p) return;
    u->reading = true;
    upart_read(p);
}

/* ---- the first look */

static void prepare_run(struct disk_job *j)
{
    struct upload *u = container_of(j, struct upload, job);
    struct stat st;

    u->fd = open(u->x.item->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    u->error = u->fd < 0 || fstat(u->fd, &st) != 0 ? errno : 0;
    if (!u->error && S_ISDIR(st.st_mode)) u->error = EISDIR;
    else if (!u->error && !S_ISREG(st.st_mode)) u->error = EINVAL;
    if (u->error) return;
    u->size = (uint64_t)st.st_size;
    u->mtime = st.st_mtim;
    if (!u->buffer || u->size > BUFFER_BYTES) return;
    u->error = read_at(u->fd, u->buffer->bytes, (size_t)u->size, 0);
    u->crc32c = sum_crc32c(0, u->buffer->bytes, (size_t)u->size);
    close(u->fd);
    u->fd = -1;
}

static void prepare_single(struct upload *u)
{
    struct upart *p = upart_make(u, 0, 0, u->size);

    if (!p) return;
    u->next = u->size;
    if (u->fd >= 0) {
        upart_sum(p);
        return;
    }
    p->bytes = u->buffer->bytes;
    p->crc32c = u->crc32c;
    p->state = UPART_READY;
}

static void prepare_done(struct disk_job *j)
{
    struct upload *u = container_of(j, struct upload, job);

    if (!upload_job_returned(u) || u->failing) return;
    if (u->error) {
        upload_fail(u, u->error == ENOENT ? XFER_MISSING : XFER_FAILED, "%s",
                    u->error == EINVAL ? "not a regular file" : strerror(u->error));
        return;
    }
    u->prepared = u->ended_input = true;
    if (u->buffer && u->size > BUFFER_BYTES) {
        buffer_put(u->x.t, u->buffer);
        u->buffer = NULL;
    }
    u->part_bytes = multipart_part_bytes(u->size, u->part_bytes);
    u->multi = u->size > u->part_bytes;
    if (!u->multi) prepare_single(u);
}

/* ---- the engine's side */

static void settle_due(struct task *task)
{
    struct upload *u = container_of(task, struct upload, settle);

    CHECK_OBJ(u, UPLOAD_MAGIC);
    if (u->failing) {
        fail_step(u);
        return;
    }
    if (u->finished && u->jobs == 0) {
        u->how = XFER_DONE;
        destroy(u);
        return;
    }
    if (u->c->from_stdin && (u->multi || u->number == 0)) feed_stdin(u);
    else if (u->multi && u->multipart.id) feed_file(u);
    transfer_pump(u->x.t);
}

/* Each part is right for itself: only this tells that they are not of one version. */
static bool file_changed(const struct upload *u)
{
    struct stat st;
    return !u->c->from_stdin && (fstat(u->fd, &st) != 0 || st.st_mtim.tv_sec != u->mtime.tv_sec ||
                                 st.st_mtim.tv_nsec != u->mtime.tv_nsec);
}

static bool multipart_more(struct upload *u)
{
    struct multipart *m = &u->multipart;
    enum err e;

    if (!m->t) {
        multipart_init(m, u->x.t, u->x.item, u->x.t->o.check, multipart_done);
        e = multipart_begin(m, u->c->hdrs, u->c->nhdrs);
        m->beginning = e == ERR_OK;
    } else if (u->ended_input && u->next == u->size && list_empty(&u->parts) && m->id && !m->completing && !u->finished) {
        if (file_changed(u)) {
            upload_fail(u, XFER_FAILED, "the file changed while it was read");
            return false;
        }
        e = multipart_complete(m);
        m->completing = e == ERR_OK;
    } else {
        return false;
    }
    if (e != ERR_OK) upload_fail(u, XFER_FAILED, "%s", err_text(e));
    return e == ERR_OK;
}

static bool upload_more(struct xfer *x)
{
    struct upload *u = container_of(x, struct upload, x);

    if (u->failing || u->finished || !u->prepared) return false;
    if (u->multi && !u->multipart.id) return !u->multipart.beginning && multipart_more(u);
    if (!u->multi || transfer_part_may_start(u->x.t))
        LIST_EACH_SAFE(n, tmp, &u->parts)
        {
            struct upart *p = container_of(n, struct upart, link);
            if (p->state == UPART_READY) return upart_send(p);
        }
    return u->multi && multipart_more(u);
}

static void upload_cancel(struct xfer *x)
{
    struct upload *u = container_of(x, struct upload, x);

    u->failing = true;
    u->how = XFER_STOPPED;
    upload_settle(u);
}

static void nobody_waits(struct buffer_wait *w) { (void)w; }

bool upload_begin(struct transfer *t, struct item *item)
{
    static const struct xfer_ops ops = {"put", upload_more, upload_cancel};
    struct upload *u = calloc(1, sizeof *u);

    if (!u) {
        free(item);
        return false;
    }
    u->magic = UPLOAD_MAGIC;
    u->c = t->arg;
    u->fd = -1;
    u->part_bytes = t->o.part_bytes;
    list_init(&u->parts);
    task_init(&u->settle, t->net->loop, settle_due);
    xfer_init(&u->x, t, &ops, item);
    if (u->c->from_stdin) {
        u->fd = STDIN_FILENO;
        u->prepared = true;
        upload_settle(u);
        return true;
    }
    buffer_wait_init(&u->no_wait, nobody_waits);
    if (!item->has_size || item->size <= BUFFER_BYTES) u->buffer = buffer_get(t, &u->no_wait);
    list_remove(&u->no_wait.link);
    upload_job(u, &u->job, prepare_run, prepare_done, NULL);
    return true;
}
