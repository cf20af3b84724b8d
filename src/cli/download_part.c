/* download_part.c - requests for parts, and where their bytes go. See download.c. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/download_impl.h"
#include "http/date.h"
#include "http/range.h"

#define DISCARD_BYTES ((size_t)64 << 10) /* what is thrown away is read into the same few pages again and again */

void part_free(struct part *p)
{
    struct transfer *t = p->d->x.t;
    struct list *n;

    CHECK(!p->request.call && p->writes == 0);
    list_remove(&p->link);
    list_remove(&p->wait.link);
    if (!p->ended) transfer_part_count(t, -1);
    while ((n = list_pop_front(&p->full)) != NULL) buffer_put(t, container_of(n, struct buffer, link));
    if (p->cur) buffer_put(t, p->cur);
    free(p);
}

/* All of its bytes are where they belong. */
static void part_done(struct part *p)
{
    struct download *d = p->d;
    uint64_t index = (p->first - d->begin) / d->part_bytes;

    if (d->have) {
        d->have[index] |= PART_HERE | (p->crc != SUM_NONE ? PART_SUMMED : 0);
        if (p->crc != SUM_NONE) d->summed += p->got;
        while (d->ready < d->end - d->begin && d->have[d->ready / d->part_bytes]) d->ready += d->part_bytes;
        if (d->ready > d->end - d->begin) d->ready = d->end - d->begin;
        if (d->state.path) state_mark(d, index);
    }
    if (is_stream(d)) d->written = p->first + p->got;
    part_free(p);
}

static bool is_quiet(const struct download *d) { return d->failing || d->restarting; }

/* ---- into the file */

static void write_run(struct disk_job *j)
{
    struct buffer *b = container_of(j, struct buffer, job);
    const struct part *p = b->owner;
    struct outfile f = {.fd = b->fd};
    struct sum s;

    if (p->crc != SUM_NONE && sum_begin(&s, p->crc)) { /* while it is warm; of a CRC this never fails */
        sum_add(&s, b->bytes, b->n);
        b->crc = sum_crc_moved(p->crc, s.crc, p->d->end - p->d->begin - b->at - b->n);
    }
    b->error = outfile_write(&f, b->bytes, b->n, b->at);
}

static void write_done(struct disk_job *j)
{
    struct buffer *b = container_of(j, struct buffer, job);
    struct part *p = b->owner;
    struct download *d = p->d;
    int error = b->error;

    p->writes--;
    if (p->crc != SUM_NONE) d->crc ^= b->crc;
    buffer_put(d->x.t, b);
    if (!download_job_returned(d)) return;
    if (error && !is_quiet(d)) {
        d->file.doing = "write";
        download_file_failed(d, error);
    }
    if (p->whole && p->writes == 0 && !is_quiet(d)) part_done(p);
}

/* ---- into the stream */

static void stream_run(struct disk_job *j)
{
    struct buffer *b = container_of(j, struct buffer, job);
    struct download *d = ((struct part *)b->owner)->d;

    sum_add(&d->sum, b->bytes, b->n);
    for (b->wrote = 0; b->wrote < b->n;) {
        ssize_t put = write(b->fd, b->bytes + b->wrote, b->n - b->wrote);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EAGAIN) { /* whoever shares the pipe with us may have made it so */
            poll(&(struct pollfd){.fd = b->fd, .events = POLLOUT}, 1, -1);
            continue;
        }
        if (put <= 0) {
            b->error = put < 0 ? errno : EIO;
            return;
        }
        b->wrote += (size_t)put;
    }
}

static void stream_done(struct disk_job *j)
{
    struct buffer *b = container_of(j, struct buffer, job);
    struct part *p = b->owner;
    struct download *d = p->d;
    int error = b->error;

    p->writes--;
    d->writing = false;
    if (!download_job_returned(d)) return;
    d->written += b->wrote;
    buffer_put(d->x.t, b);
    if (error && !is_quiet(d)) download_file_failed(d, error);
}

void stream_push(struct download *d)
{
    while (!d->writing && d->want_known && !is_quiet(d)) {
        struct list *n = list_first(&d->parts);
        struct part *p = n ? container_of(n, struct part, link) : NULL;
        if (!p) return;
        n = list_pop_front(&p->full);
        if (n) {
            struct buffer *b = container_of(n, struct buffer, link);
            if (d->sum.kind == SUM_NONE && d->want.kind != SUM_NONE && !sum_begin(&d->sum, d->want.kind)) d->want.kind = SUM_NONE;
            b->owner = p;
            b->fd = d->c->stream_fd;
            b->error = 0;
            p->writes++;
            d->writing = true;
            download_job(d, &b->job, stream_run, stream_done, b);
        } else if (p->whole && p->writes == 0) {
            part_done(p);
        } else {
            return;
        }
    }
}

/* ---- bytes */

static void flush(struct part *p)
{
    struct download *d = p->d;
    struct buffer *b = p->cur;

    p->cur = NULL;
    if (is_stream(d)) {
        list_push_back(&p->full, &b->link);
        stream_push(d);
        return;
    }
    if (!p->flushed && d->want_known && is_summed_apart(d)) p->crc = d->want.kind;
    p->flushed = true;
    b->owner = p;
    b->fd = d->file.fd;
    b->error = 0;
    b->at = p->first + p->got - b->n - d->begin;
    p->writes++;
    download_job(d, &b->job, write_run, write_done, b);
}

static void buffer_there(struct buffer_wait *w)
{
    struct part *p = container_of(w, struct part, wait);
    if (p->request.call) call_resume(p->request.call);
}

static unsigned part_space(void *arg, struct iovec *iov, unsigned max)
{
    struct part *p = arg;

    (void)max;
    if (is_quiet(p->d)) return 0;
    if (!p->cur) p->cur = buffer_get(p->d->x.t, &p->wait);
    if (!p->cur) return 0;
    size_t room = BUFFER_BYTES - p->cur->n;
    if (p->d->c->discard && room > DISCARD_BYTES) room = DISCARD_BYTES;
    iov[0] = (struct iovec){p->cur->bytes + p->cur->n, room};
    return 1;
}

static void part_filled(void *arg, size_t n)
{
    struct part *p = arg;
    struct download *d = p->d;

    p->cur->n += n;
    p->got += n;
    d->shown += n;
    transfer_progress(d->x.t, (int64_t)n);
    if (d->c->discard) p->cur->n = 0;
    if (p->cur->n == BUFFER_BYTES && !d->small) flush(p);
}

/* ---- heads */

bool download_open(struct download *d)
{
    bool there;
    int why;

    if (d->x.t->o.resume && !d->c->ranged && d->etag[0] && d->end > d->part_bytes && !d->single) {
        why = outfile_open_kept(&d->file, &there);
        if (!why && there && ftruncate(d->file.fd, 0) != 0) why = errno;
        if (!why) why = state_create(d);
    } else {
        why = outfile_open(&d->file);
    }
    if (why) download_file_failed(d, why);
    return !why;
}

static void take_identity(struct download *d, const struct head *h)
{
    struct str tag = head_value(h, HDR_ETAG);

    d->etag[0] = '\0';
    if (tag.n > 2 && tag.p[0] == '"' && tag.n < sizeof d->etag) snprintf(d->etag, sizeof d->etag, STR_FMT, STR_ARG(tag));
    d->mtime_s = date_parse(head_value(h, HDR_LAST_MODIFIED));
    sum_expected(h, &d->want);
}

/* What is there: position and length of the answer, end of what is wanted. ERR_NOT_SUPPORTED: ranges are ignored. */
static enum err take_size(struct part *p, const struct head *h, int64_t length)
{
    struct download *d = p->d;
    struct content_range r;

    if (h->status != 206) {
        if (d->c->ranged) return ERR_NOT_SUPPORTED;
        d->single = true;
        p->bytes = length < 0 ? UINT64_MAX : (uint64_t)length;
        d->end = p->bytes;
        if (length > 0) d->part_bytes = (uint64_t)length;
        return ERR_OK;
    }
    if (content_range_parse(head_value(h, HDR_CONTENT_RANGE), &r) != ERR_OK || r.unsatisfied || r.first != p->first ||
        r.size == UINT64_MAX || r.last >= r.size)
        return ERR_PROTOCOL;
    d->end = r.size;
    if (d->c->ranged && d->c->length < r.size - d->begin) d->end = d->begin + d->c->length;
    uint64_t want = d->end - p->first < p->bytes ? d->end - p->first : p->bytes;
    p->bytes = r.last - r.first + 1;
    return p->bytes == want ? ERR_OK : ERR_PROTOCOL;
}

/* Whether the sum to compare with is known, or HEAD has to tell it. */
static void choose_check(struct download *d, bool whole)
{
    if (!d->x.t->o.check || d->c->ranged || d->c->discard) {
        d->want.kind = SUM_NONE;
        d->want_known = true;
        return;
    }
    bool asked = d->single; /* with x-amz-checksum-mode */
    d->want_known = asked || !d->etag[0] || (whole && d->want.kind != SUM_NONE);
    d->head_wanted = !d->want_known;
}

static enum err first_head(struct part *p, const struct head *h, int64_t length)
{
    struct download *d = p->d;
    enum err e = take_size(p, h, length);

    if (e != ERR_OK) return e;
    take_identity(d, h);
    bool whole = p->bytes == UINT64_MAX || p->first + p->bytes == d->end;
    if (!whole && !d->etag[0]) return ERR_AGAIN; /* parts could not be told from those of another version */
    d->probing = false;
    d->next = whole ? d->end : p->first + p->bytes;
    d->small = whole && p->bytes <= BUFFER_BYTES && !is_stream(d) && !d->c->discard;
    choose_check(d, whole);
    if (d->end != UINT64_MAX && d->end > d->begin && !is_stream(d)) {
        d->nparts = (d->end - d->begin + d->part_bytes - 1) / d->part_bytes;
        d->have = calloc(d->nparts, 1);
        if (!d->have) return ERR_NOMEM;
    }
    if (!d->small && !is_stream(d) && !d->c->discard && !download_open(d)) return ERR_CANCELLED;
    return ERR_OK;
}

static enum err next_head(const struct part *p, const struct head *h)
{
    struct content_range r;

    if (h->status != 206 || content_range_parse(head_value(h, HDR_CONTENT_RANGE), &r) != ERR_OK || r.unsatisfied) return ERR_CHANGED;
    if (!str_eq(head_value(h, HDR_ETAG), str_c(p->d->etag))) return ERR_CHANGED;
    return r.first == p->first && r.last == p->first + p->bytes - 1 ? ERR_OK : ERR_CHANGED;
}

static bool part_head(void *arg, const struct head *h, int64_t length)
{
    struct part *p = arg;

    if (is_quiet(p->d)) p->refused = ERR_CANCELLED;
    else p->refused = p->d->probing ? first_head(p, h, length) : next_head(p, h);
    return p->refused == ERR_OK;
}

/* ---- the end of a request */

static void part_failed(struct part *p, const struct call_result *r)
{
    struct download *d = p->d;
    char why[512];
    enum err e = p->refused != ERR_OK ? p->refused : r->err;

    if (is_quiet(d)) return;
    if (e == ERR_AGAIN || (e == ERR_RANGE && d->probing && !d->c->ranged && !d->whole_try)) {
        d->whole_try = true; /* has no ranges, or is empty */
        d->restarting = true;
        d->restarts--;       /* nothing has changed */
    } else if (e == ERR_CHANGED || e == ERR_PRECONDITION || (!d->probing && (e == ERR_RANGE || e == ERR_NOT_FOUND))) {
        download_restart(d);
    } else if (e == ERR_NOT_SUPPORTED) {
        download_fail(d, XFER_FAILED, "the server ignores ranges");
    } else if (p->refused != ERR_OK) {
        download_fail(d, XFER_FAILED, "%s", err_text(e));
    } else {
        download_fail(d, call_not_found(r) ? XFER_MISSING : XFER_FAILED, "%s", call_why(r, why, sizeof why));
    }
}

static void part_whole(struct part *p)
{
    struct download *d = p->d;

    p->whole = true;
    if (p->bytes == UINT64_MAX) {
        p->bytes = p->got;
        d->end = d->next = p->got;
        d->ready = is_stream(d) ? 0 : p->got;
    }
    if (d->small) return; /* settle takes it */
    if (p->cur && p->cur->n) flush(p);
    if (!is_stream(d) && p->writes == 0) part_done(p);
}

static void part_end(void *arg, const struct call_result *r)
{
    struct part *p = arg;
    struct download *d = p->d;
    const struct item *i = d->x.item;

    CHECK_OBJ(d, DOWNLOAD_MAGIC);
    request_ended(d->x.t, &p->request, "GET", i->bucket, i->key, p->got, r);
    p->ended = true;
    transfer_part_count(d->x.t, -1);
    if (r->err != ERR_OK || p->refused != ERR_OK) part_failed(p, r);
    else if (!is_quiet(d)) part_whole(p);
    download_settle(d);
}

bool part_start(struct download *d)
{
    static const struct call_events events = {part_head, part_space, part_filled, part_end};
    static const struct hdr mode = {{"x-amz-checksum-mode", 19}, {"ENABLED", 7}, HDR_AMZ_CHECKSUM_MODE};
    const struct item *i = d->x.item;
    struct call_request q = {.method = METHOD_GET, .bucket = i->bucket, .key = i->key};
    struct part *p = calloc(1, sizeof *p);
    uint64_t want = d->c->ranged ? d->c->length : UINT64_MAX;

    if (!p) {
        download_fail(d, XFER_FAILED, "%s", err_text(ERR_NOMEM));
        return false;
    }
    p->d = d;
    p->first = d->next;
    list_init(&p->full);
    buffer_wait_init(&p->wait, buffer_there);
    list_push_back(&d->parts, &p->link);
    transfer_part_count(d->x.t, 1);
    bool all = d->probing && !d->c->ranged && (d->whole_try || (i->has_size && i->size <= d->part_bytes));
    if (!d->probing) want = d->end - d->next;
    p->bytes = all ? UINT64_MAX : want < d->part_bytes ? want : d->part_bytes;
    if (!all) {
        q.has_range = true;
        q.first = p->first;
        q.last = p->first + p->bytes - 1;
    } else if (d->x.t->o.check) {
        q.hdrs = &mode;
        q.nhdrs = 1;
    }
    if (!d->probing) q.if_match = str_c(d->etag);
    enum err e = request_start(d->x.t, &p->request, &q, &events, p);
    if (e != ERR_OK) {
        part_free(p);
        download_fail(d, XFER_FAILED, "%s", err_text(e));
        return false;
    }
    if (!d->probing) d->next += p->bytes;
    return true;
}
