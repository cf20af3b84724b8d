/* copy.c - one object copied by the far side. See copy.h.
 *
 *   its size is known and not too large -> CopyObject
 *   else HEAD -> CopyObject, or a multipart upload whose parts are ranges of the source: UploadPartCopy, of the version that
 *   HEAD saw; what CopyObject would carry over (type, metadata) is said again */
#include <stdarg.h>
#include <stdlib.h>

#include "cli/copy.h"
#include "cli/multipart.h"
#include "http/uri.h"
#include "s3/listing.h"

#define COPY_MAGIC 0x79706f63u
#define KEPT_HDRS 24u

struct copy;
struct cpart {
    struct list link;
    struct copy *c;
    struct ask ask;
    unsigned number;
    uint64_t first, n;
};
struct copy {
    uint32_t magic;
    struct xfer x;
    const struct copy_conf *conf;
    struct task settle;
    struct pool *mem;
    struct str source;       /* "/bucket/key", encoded */
    char etag[128];
    uint64_t size, next, part_bytes;
    bool sized;              /* HEAD has told, or the listing and that is enough */
    bool multi, failing, finished, aborted;
    enum xfer_end how;
    struct ask ask;          /* HEAD, CopyObject */
    struct hdr kept[KEPT_HDRS + 1]; /* and a storage class */
    unsigned nkept;
    bool lost;               /* there was more to keep */
    struct multipart multipart;
    struct list parts;
    unsigned number;
};

static void copy_settle(struct copy *c) { task_schedule(&c->settle); }

__attribute__((format(printf, 3, 4))) static void copy_fail(struct copy *c, enum xfer_end how, const char *fmt, ...)
{
    const struct item *i = c->x.item;
    char why[600];
    va_list args;

    if (c->failing) return;
    c->failing = true;
    c->how = how;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    cli_error("cannot copy s3://" STR_FMT "/" STR_FMT " to s3://" STR_FMT "/" STR_FMT ": %s", STR_ARG(i->from_bucket),
              STR_ARG(i->from_key), STR_ARG(i->bucket), STR_ARG(i->key), why);
    copy_settle(c);
}

static void answer_failed(struct copy *c, const struct call_result *r)
{
    char why[512];
    copy_fail(c, call_not_found(r) ? XFER_MISSING : XFER_FAILED, "%s", call_why(r, why, sizeof why));
}

/* ---- the end */

static void destroy(struct copy *c)
{
    if (c->finished) c->x.t->bytes += c->size;
    multipart_free(&c->multipart);
    ask_free(&c->ask);
    xfer_end(&c->x, c->how);
    task_cancel(&c->settle);
    pool_destroy(c->mem);
    c->magic = 0;
    free(c);
}

static void cpart_free(struct cpart *p)
{
    list_remove(&p->link);
    ask_free(&p->ask);
    free(p);
}

static void fail_step(struct copy *c)
{
    struct multipart *m = &c->multipart;

    ask_cancel(&c->ask);
    LIST_EACH_SAFE(n, tmp, &c->parts)
    {
        struct cpart *p = container_of(n, struct cpart, link);
        m->parts_cut_off |= ask_busy(&p->ask);
        ask_cancel(&p->ask);
        cpart_free(p);
    }
    if (m->beginning || m->aborting) return;
    if (m->completing) {
        ask_cancel(&m->ask);
        m->completing = false;
    }
    if (m->t && m->id && !c->aborted) {
        c->aborted = true;
        if (multipart_abort(m) == ERR_OK) return;
    }
    destroy(c);
}

static void settle_due(struct task *task)
{
    struct copy *c = container_of(task, struct copy, settle);

    CHECK_OBJ(c, COPY_MAGIC);
    if (c->failing) {
        fail_step(c);
    } else if (c->finished) {
        c->how = XFER_DONE;
        destroy(c);
    } else {
        transfer_pump(c->x.t);
    }
}

/* ---- HEAD of the source */

/* Something is said of what CopyObject would carry over: then all of that is replaced. A storage class is not of it. */
static bool replaces(const struct copy_conf *f)
{
    for (unsigned i = 0; i < f->nhdrs; i++)
        if (!str_eq_ci(f->hdrs[i].name, STR_LIT("x-amz-storage-class"))) return true;
    return false;
}

static void keep_hdr(struct copy *c, const struct hdr *h)
{
    static const char *const names[] = {"content-type", "cache-control", "content-encoding", "content-disposition", "content-language",
                                        "expires"};
    bool wanted = str_starts(h->name, STR_LIT("x-amz-meta-"));

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) wanted |= str_eq_ci(h->name, str_c(names[i]));
    if (!wanted) return;
    struct hdr copy = {pool_str(c->mem, h->name), pool_str(c->mem, h->value), h->id};
    if (c->nkept < KEPT_HDRS && copy.name.p && copy.value.p) c->kept[c->nkept++] = copy;
    else c->lost = true;
}

static void source_head(struct ask *a, const struct head *h)
{
    struct copy *c = container_of(a, struct copy, ask);

    c->sized = h->status == 200 && str_to_u64(head_value(h, HDR_CONTENT_LENGTH), &c->size);
    for (unsigned i = 0; i < h->nhdrs && h->status == 200 && !replaces(c->conf); i++) keep_hdr(c, &h->hdrs[i]);
}

static void source_known(struct ask *a, const struct call_result *r)
{
    struct copy *c = container_of(a, struct copy, ask);

    a->head = NULL;
    snprintf(c->etag, sizeof c->etag, "%s", a->etag);
    if (r->err != ERR_OK) answer_failed(c, r);
    else if (!c->sized) copy_fail(c, XFER_FAILED, "%s", err_text(ERR_PROTOCOL));
    c->multi = c->size > c->conf->whole_max;
    c->part_bytes = multipart_part_bytes(c->size, c->x.t->o.part_bytes);
    if (c->multi && !c->etag[0]) copy_fail(c, XFER_FAILED, "the source has no ETag: its parts could not be told from another version's");
    if (c->multi && c->lost) copy_fail(c, XFER_FAILED, "the source has more than %u headers to carry over", KEPT_HDRS);
    if (!replaces(c->conf) && c->conf->nhdrs) c->kept[c->nkept++] = c->conf->hdrs[0];
    copy_settle(c);
}

static enum err ask_source(struct copy *c)
{
    /* the store copies what is there now: another version out of a cache would be refused as long as that one is fresh */
    static const struct hdr now = {{"cache-control", 13}, {"no-cache", 8}, HDR_CACHE_CONTROL};
    struct call_request q = {.method = METHOD_HEAD, .bucket = c->x.item->from_bucket, .key = c->x.item->from_key, .hdrs = &now, .nhdrs = 1};

    c->ask.head = source_head;
    return ask_start(c->x.t, &c->ask, "HEAD", &q, source_known);
}

/* ---- CopyObject */

static void copied(struct ask *a, const struct call_result *r)
{
    struct copy *c = container_of(a, struct copy, ask);

    if (r->err != ERR_OK) {
        answer_failed(c, r);
        return;
    }
    c->finished = true;
    transfer_progress(c->x.t, (int64_t)c->size);
    copy_settle(c);
}

static enum err copy_whole(struct copy *c)
{
    struct hdr hdrs[32] = {{STR_LIT("x-amz-copy-source"), c->source, HDR_AMZ_COPY_SOURCE}};
    struct call_request q = {.method = METHOD_PUT, .bucket = c->x.item->bucket, .key = c->x.item->key, .hdrs = hdrs, .nhdrs = 1};

    for (unsigned i = 0; i < c->conf->nhdrs; i++) hdrs[q.nhdrs++] = c->conf->hdrs[i];
    if (replaces(c->conf)) hdrs[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-metadata-directive"), STR_LIT("REPLACE"), HDR_OTHER};
    if (c->etag[0]) hdrs[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-copy-source-if-match"), str_c(c->etag), HDR_OTHER};
    return ask_start(c->x.t, &c->ask, "PUT", &q, copied);
}

/* ---- in parts */

static void multipart_done(struct multipart *m, const struct call_result *r)
{
    struct copy *c = container_of(m, struct copy, multipart);

    CHECK_OBJ(c, COPY_MAGIC);
    copy_settle(c);
    if (c->failing) return;
    if (r->err != ERR_OK) answer_failed(c, r);
    else if (c->next == c->size && m->noted == c->number && list_empty(&c->parts)) c->finished = true;
}

static void part_copied(struct ask *a, const struct call_result *r)
{
    struct cpart *p = container_of(a, struct cpart, ask);
    struct copy *c = p->c;

    CHECK_OBJ(c, COPY_MAGIC);
    if (c->failing) return;
    if (r->err != ERR_OK) {
        answer_failed(c, r);
        return;
    }
    char *etag = listing_text(strbuf_get(&a->text), "ETag");
    if (!etag) copy_fail(c, XFER_FAILED, "the answer to a part has no ETag");
    else if (multipart_note(&c->multipart, p->number, etag, 0, p->n) != ERR_OK) copy_fail(c, XFER_FAILED, "%s", err_text(ERR_NOMEM));
    transfer_progress(c->x.t, (int64_t)p->n);
    free(etag);
    cpart_free(p);
    copy_settle(c);
}

static enum err copy_part(struct copy *c)
{
    struct cpart *p = calloc(1, sizeof *p);
    struct strbuf query;
    char range[64];
    struct hdr hdrs[3] = {{STR_LIT("x-amz-copy-source"), c->source, HDR_AMZ_COPY_SOURCE}};
    struct call_request q = {.method = METHOD_PUT, .bucket = c->x.item->bucket, .key = c->x.item->key, .hdrs = hdrs, .nhdrs = 2};

    if (!p) return ERR_NOMEM;
    p->c = c;
    p->first = c->next;
    p->n = c->size - c->next < c->part_bytes ? c->size - c->next : c->part_bytes;
    p->number = c->number + 1;
    snprintf(range, sizeof range, "bytes=%llu-%llu", (unsigned long long)p->first, (unsigned long long)(p->first + p->n - 1));
    hdrs[1] = (struct hdr){STR_LIT("x-amz-copy-source-range"), str_c(range), HDR_OTHER};
    if (c->etag[0]) hdrs[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-copy-source-if-match"), str_c(c->etag), HDR_OTHER};
    strbuf_init(&query, 0);
    q.query = multipart_query(&c->multipart, p->number, &query);
    enum err e = query.failed ? ERR_NOMEM : ask_start(c->x.t, &p->ask, "PUT", &q, part_copied);
    strbuf_free(&query);
    if (e != ERR_OK) {
        free(p);
        return e;
    }
    list_push_back(&c->parts, &p->link);
    c->number++;
    c->next += p->n;
    return ERR_OK;
}

/* ERR_AGAIN: nothing to start now. */
static enum err multi_step(struct copy *c)
{
    struct multipart *m = &c->multipart;
    enum err e;

    if (!m->t) {
        multipart_init(m, c->x.t, c->x.item, false, multipart_done);
        bool own = replaces(c->conf);
        e = multipart_begin(m, own ? c->conf->hdrs : c->kept, own ? c->conf->nhdrs : c->nkept);
        m->beginning = e == ERR_OK;
        return e;
    }
    if (!m->id || m->completing) return ERR_AGAIN;
    if (c->next < c->size) return copy_part(c);
    if (!list_empty(&c->parts)) return ERR_AGAIN;
    e = multipart_complete(m);
    m->completing = e == ERR_OK;
    return e;
}

/* ---- the engine's side */

static bool copy_more(struct xfer *x)
{
    struct copy *c = container_of(x, struct copy, x);
    enum err e;

    if (c->failing || c->finished || ask_busy(&c->ask)) return false;
    if (!c->sized) e = ask_source(c);
    else if (!c->multi) e = copy_whole(c);
    else e = multi_step(c);
    if (e != ERR_OK && e != ERR_AGAIN) copy_fail(c, XFER_FAILED, "%s", err_text(e));
    return e == ERR_OK;
}

static void copy_cancel(struct xfer *x)
{
    struct copy *c = container_of(x, struct copy, x);

    c->failing = true;
    c->how = XFER_STOPPED;
    copy_settle(c);
}

bool copy_begin(struct transfer *t, struct item *item)
{
    static const struct xfer_ops ops = {"copy", copy_more, copy_cancel};
    struct copy *c = calloc(1, sizeof *c);

    if (c) c->mem = pool_create((size_t)256 << 10);
    if (c && c->mem) {
        struct str key = uri_encode(c->mem, item->from_key, true);
        if (key.p) c->source = pool_f(c->mem, "/" STR_FMT "/" STR_FMT, STR_ARG(item->from_bucket), STR_ARG(key));
    }
    if (!c || !c->mem || !c->source.p) {
        if (c) pool_destroy(c->mem);
        free(c);
        free(item);
        return false;
    }
    c->magic = COPY_MAGIC;
    c->conf = t->arg;
    list_init(&c->parts);
    task_init(&c->settle, t->net->loop, settle_due);
    c->size = item->size;
    c->sized = item->has_size && item->size <= c->conf->whole_max;
    xfer_init(&c->x, t, &ops, item);
    return true;
}
