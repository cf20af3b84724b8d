/* upload_part.c - one PUT of an upload: its bytes, its sum, its answer. See upload.c. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/upload_impl.h"

#define READ_BYTES ((size_t)128 << 10)

struct upart *upart_make(struct upload *u, unsigned number, uint64_t at, uint64_t n)
{
    struct upart *p = calloc(1, sizeof *p);

    if (!p) {
        upload_fail(u, XFER_FAILED, "%s", err_text(ERR_NOMEM));
        return NULL;
    }
    p->u = u;
    p->number = number;
    p->at = at;
    p->n = n;
    list_push_back(&u->parts, &p->link);
    u->nparts++;
    return p;
}

void upart_free(struct upart *p)
{
    CHECK(!ask_busy(&p->ask));
    list_remove(&p->link);
    p->u->nparts--;
    ask_free(&p->ask);
    if (!p->u->buffer) free(p->bytes);
    free(p);
}

/* ---- bytes */

int read_at(int fd, void *p, size_t n, uint64_t at)
{
    uint8_t *to = p;

    while (n) {
        ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return got < 0 ? errno : ENODATA;
        to += got;
        at += (uint64_t)got;
        n -= (size_t)got;
    }
    return 0;
}

/* Of what stands in the file, by pieces. */
static int sum_file(const struct upart *p, struct sum *s)
{
    uint8_t *piece = malloc(READ_BYTES);
    int why = piece ? 0 : ENOMEM;

    for (uint64_t done = 0; done < p->n && !why;) {
        size_t n = p->n - done < READ_BYTES ? (size_t)(p->n - done) : READ_BYTES;
        why = read_at(p->u->fd, piece, n, p->at + done);
        sum_add(s, piece, why ? 0 : n);
        done += n;
    }
    free(piece);
    return why;
}

static int sum_part(const struct upart *p, enum sum_kind kind, struct sum_value *out)
{
    struct sum s;
    int why = 0;

    if (!sum_begin(&s, kind)) return ENOMEM;
    if (p->bytes) sum_add(&s, p->bytes, (size_t)p->n);
    else why = sum_file(p, &s);
    sum_end(&s, out);
    return why;
}

static void file_failed(struct upart *p)
{
    upload_fail(p->u, XFER_FAILED, "%s", p->error == ENODATA ? "the file has become shorter" : strerror(p->error));
}

static uint32_t crc_of(const struct sum_value *v)
{
    return (uint32_t)v->bytes[0] << 24 | (uint32_t)v->bytes[1] << 16 | (uint32_t)v->bytes[2] << 8 | v->bytes[3];
}

static void sum_run(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);
    struct sum_value v = {.kind = SUM_CRC32C};

    p->error = p->u->x.t->o.check ? sum_part(p, SUM_CRC32C, &v) : 0;
    p->crc32c = crc_of(&v);
}

static void sum_done(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);

    p->state = UPART_READY;
    if (!upload_job_returned(p->u) || p->u->failing) return;
    if (p->error) file_failed(p);
}

void upart_sum(struct upart *p)
{
    p->state = UPART_SUMMING;
    upload_job(p->u, &p->job, sum_run, sum_done, NULL);
}

/* ---- standard input */

static void read_run(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);
    uint64_t n = 0;

    p->bytes = malloc((size_t)p->n);
    p->error = p->bytes ? 0 : ENOMEM;
    while (!p->error && n < p->n) {
        ssize_t got = read(STDIN_FILENO, p->bytes + n, (size_t)(p->n - n));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) { /* whoever shares the pipe with us may have made it so */
            poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, -1);
            continue;
        }
        if (got < 0) p->error = errno;
        if (got <= 0) break;
        n += (uint64_t)got;
    }
    p->at_end = n < p->n;
    p->n = n;
    p->crc32c = p->error ? 0 : sum_crc32c(0, p->bytes, (size_t)n);
}

static void read_done(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);
    struct upload *u = p->u;

    u->reading = false;
    p->state = UPART_READY;
    if (!upload_job_returned(u) || u->failing) return;
    if (p->error) {
        file_failed(p);
        return;
    }
    u->size += p->n;
    u->next = u->size;
    u->ended_input = p->at_end;
    u->multi = u->number > 1 || !p->at_end;
    if (!u->multi) {
        p->number = 0;
    } else if (p->n == 0) { /* it ended where a part did */
        u->number--;
        upart_free(p);
    }
}

void upart_read(struct upart *p)
{
    p->state = UPART_SUMMING;
    upload_job(p->u, &p->job, read_run, read_done, NULL);
}

/* ---- the answer */

static void part_done(struct upart *p)
{
    struct upload *u = p->u;

    if (p->number == 0) u->finished = true;
    else if (multipart_note(&u->multipart, p->number, p->ask.etag, p->crc32c, p->n) != ERR_OK)
        upload_fail(u, XFER_FAILED, "%s", err_text(ERR_NOMEM));
    upart_free(p);
    upload_settle(u);
}

static void check_run(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);
    p->error = sum_part(p, SUM_MD5, &p->md5);
}

static void say_wrong(struct upart *p) { upload_fail(p->u, XFER_FAILED, "the far side has stored other bytes than were sent"); }

static void check_done(struct disk_job *j)
{
    struct upart *p = container_of(j, struct upart, job);

    p->state = UPART_SENT;
    if (!upload_job_returned(p->u) || p->u->failing) return;
    if (p->error) file_failed(p);
    else if (!sum_equal(&p->md5, &p->ask.sum)) say_wrong(p);
    else part_done(p);
}

/* What is stored is what was sent, as far as the answer tells. */
static void check_answer(struct upart *p)
{
    const struct sum_value *s = &p->ask.sum;

    if (p->u->x.t->o.check && s->kind == SUM_CRC32C && crc_of(s) != p->crc32c) {
        say_wrong(p);
    } else if (p->u->x.t->o.check && s->kind == SUM_MD5) {
        p->state = UPART_CHECKING;
        upload_job(p->u, &p->job, check_run, check_done, NULL);
    } else {
        part_done(p);
    }
}

static void sent(struct ask *a, const struct call_result *r)
{
    struct upart *p = container_of(a, struct upart, ask);
    struct upload *u = p->u;
    char why[512];

    CHECK_OBJ(u, UPLOAD_MAGIC);
    if (p->number) transfer_part_count(u->x.t, -1);
    if (u->failing) return;
    if (r->err != ERR_OK) {
        upload_fail(u, call_not_found(r) ? XFER_MISSING : XFER_FAILED, "%s", call_why(r, why, sizeof why));
        return;
    }
    if (p->number && !a->etag[0]) {
        upload_fail(u, XFER_FAILED, "the answer to a part has no ETag");
        return;
    }
    transfer_progress(u->x.t, (int64_t)p->n);
    check_answer(p);
}

/* ---- sending */

static struct body *part_body(void *arg)
{
    const struct upart *p = arg;
    if (p->bytes) return body_of_memory(str_make((const char *)p->bytes, (size_t)p->n));
    return body_of_file(p->u->fd, p->at, p->n);
}

bool upart_send(struct upart *p)
{
    struct upload *u = p->u;
    const struct item *i = u->x.item;
    struct hdr hdrs[32];
    struct call_request q = {.method = METHOD_PUT, .bucket = i->bucket, .key = i->key, .hdrs = hdrs,
                             .body = p->n ? part_body : NULL, .body_arg = p, .body_length = (int64_t)p->n};
    struct sum_value v = {.kind = SUM_CRC32C, .bytes = {(uint8_t)(p->crc32c >> 24), (uint8_t)(p->crc32c >> 16),
                                                        (uint8_t)(p->crc32c >> 8), (uint8_t)p->crc32c}};
    struct strbuf query;
    char text[48];

    strbuf_init(&query, 0);
    if (p->number) q.query = multipart_query(&u->multipart, p->number, &query);
    for (; p->number == 0 && q.nhdrs < u->c->nhdrs; q.nhdrs++) hdrs[q.nhdrs] = u->c->hdrs[q.nhdrs];
    if (u->x.t->o.check) hdrs[q.nhdrs++] = (struct hdr){sum_header(SUM_CRC32C), str_c(sum_base64(&v, text)), HDR_OTHER};
    enum err e = query.failed ? ERR_NOMEM : ask_start(u->x.t, &p->ask, "PUT", &q, sent);
    strbuf_free(&query);
    if (e != ERR_OK) {
        upload_fail(u, XFER_FAILED, "%s", err_text(e));
        return false;
    }
    p->state = UPART_SENT;
    if (p->number) transfer_part_count(u->x.t, 1);
    return true;
}
