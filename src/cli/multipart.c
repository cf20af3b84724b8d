/* multipart.c - see the header.
 *
 * A second CompleteMultipartUpload after a first whose answer was lost finds no upload any more, although all went well: then
 * HEAD tells whether the object is there with the right number of parts in its ETag. */
#include "cli/multipart.h"

#include <stdlib.h>

#include "http/uri.h"
#include "s3/error_xml.h"
#include "s3/listing.h"

#define DOC_BYTES ((size_t)8 << 20)
#define ABORT_AGAIN_MS 100u

static const struct hdr xml_type = {{"content-type", 12}, {"application/xml", 15}, HDR_CONTENT_TYPE};

static void abort_again(struct timer *t);

void multipart_init(struct multipart *m, struct transfer *t, const struct item *item, bool summed,
                    void (*done)(struct multipart *m, const struct call_result *r))
{
    *m = (struct multipart){.t = t, .item = item, .summed = summed, .done = done};
    strbuf_init(&m->doc, DOC_BYTES);
    timer_init(&m->again, t->net->loop, abort_again);
}

void multipart_free(struct multipart *m)
{
    if (!m->t) return;
    timer_stop(&m->again);
    for (unsigned i = 0; i < m->nparts; i++) free(m->parts[i].etag);
    free(m->parts);
    free(m->id);
    ask_free(&m->ask);
    strbuf_free(&m->doc);
    m->t = NULL;
}

uint64_t multipart_part_bytes(uint64_t size, uint64_t wanted)
{
    const uint64_t mib = 1u << 20;
    uint64_t least = (size + MULTIPART_PARTS_MAX - 1) / MULTIPART_PARTS_MAX;
    return least <= wanted ? wanted : (least + mib - 1) / mib * mib;
}

enum err multipart_note(struct multipart *m, unsigned number, const char *etag, uint32_t crc32c, uint64_t bytes)
{
    if (number > m->cap) {
        unsigned cap = number < 64 ? 64 : 2 * number;
        struct multipart_part *p = realloc(m->parts, cap * sizeof *p);
        if (!p) return ERR_NOMEM;
        memset(p + m->cap, 0, (cap - m->cap) * sizeof *p);
        m->parts = p;
        m->cap = cap;
    }
    m->parts[number - 1] = (struct multipart_part){strdup(etag), crc32c, bytes};
    if (number > m->nparts) m->nparts = number;
    m->noted++;
    return m->parts[number - 1].etag ? ERR_OK : ERR_NOMEM;
}

struct str multipart_query(const struct multipart *m, unsigned number, struct strbuf *buf)
{
    buf->n = 0;
    if (number) strbuf_f(buf, "partNumber=%u&", number);
    strbuf_f(buf, "uploadId=%s", m->id);
    return strbuf_get(buf);
}

/* ---- begin */

static void take_id(struct multipart *m, struct call_result *r)
{
    char *id = listing_text(strbuf_get(&m->ask.text), "UploadId");
    struct pool *mem = pool_create((size_t)1 << 20);
    struct str encoded = id && mem ? uri_encode(mem, str_c(id), false) : str_make(NULL, 0);

    if (encoded.n) m->id = str_dup(encoded);
    if (!m->id) r->err = ERR_PROTOCOL;
    pool_destroy(mem);
    free(id);
}

static void begun(struct ask *a, const struct call_result *result)
{
    struct multipart *m = container_of(a, struct multipart, ask);
    struct call_result r = *result;

    m->beginning = false;
    if (r.err == ERR_OK) take_id(m, &r);
    m->done(m, &r);
}

enum err multipart_begin(struct multipart *m, const struct hdr *hdrs, unsigned nhdrs)
{
    struct hdr all[32];
    struct call_request q = {.method = METHOD_POST, .bucket = m->item->bucket, .key = m->item->key, .query = STR_LIT("uploads"),
                             .hdrs = all, .nhdrs = nhdrs};

    CHECK(nhdrs + 2 <= ARRAY_LEN(all));
    memcpy(all, hdrs, nhdrs * sizeof *hdrs);
    if (m->summed) {
        all[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-checksum-algorithm"), STR_LIT("CRC32C"), HDR_OTHER};
        all[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-checksum-type"), STR_LIT("FULL_OBJECT"), HDR_OTHER};
    }
    m->beginning = true;
    return ask_start(m->t, &m->ask, "POST", &q, begun);
}

/* ---- complete */

static struct body *doc_body(void *arg)
{
    const struct multipart *m = arg;
    return body_of_memory(strbuf_get(&m->doc));
}

static void crc_value(uint32_t crc, struct sum_value *v)
{
    *v = (struct sum_value){.kind = SUM_CRC32C};
    for (unsigned i = 0; i < 4; i++) v->bytes[i] = (uint8_t)(crc >> (24 - 8 * i));
}

/* The document; *whole: the checksum of the object. */
static void write_doc(struct multipart *m, struct sum_value *whole)
{
    uint32_t crc = 0;
    char text[48];

    m->doc.n = 0;
    strbuf_z(&m->doc, "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (unsigned i = 0; i < m->nparts; i++) {
        const struct multipart_part *p = &m->parts[i];
        strbuf_f(&m->doc, "<Part><PartNumber>%u</PartNumber><ETag>", i + 1);
        xml_text(&m->doc, str_c(p->etag));
        strbuf_z(&m->doc, "</ETag>");
        crc = sum_crc32c_join(crc, p->crc32c, p->bytes);
        crc_value(p->crc32c, whole);
        if (m->summed) strbuf_f(&m->doc, "<ChecksumCRC32C>%s</ChecksumCRC32C>", sum_base64(whole, text));
        strbuf_z(&m->doc, "</Part>");
    }
    strbuf_z(&m->doc, "</CompleteMultipartUpload>");
    crc_value(crc, whole);
}

static void looked(struct ask *a, const struct call_result *result)
{
    struct multipart *m = container_of(a, struct multipart, ask);
    struct call_result r = *result;
    char ending[16];
    size_t n = strlen(a->etag);

    snprintf(ending, sizeof ending, "-%u\"", m->nparts);
    m->completing = false;
    if (r.err == ERR_OK && (n < strlen(ending) || strcmp(a->etag + n - strlen(ending), ending) != 0)) r.err = ERR_CHANGED;
    m->done(m, &r);
}

static void completed(struct ask *a, const struct call_result *r)
{
    struct multipart *m = container_of(a, struct multipart, ask);
    struct call_request q = {.method = METHOD_HEAD, .bucket = m->item->bucket, .key = m->item->key};

    if (r->status == 404 && r->tries > 1 && ask_start(m->t, a, "HEAD", &q, looked) == ERR_OK) return;
    m->completing = false;
    m->done(m, r);
}

enum err multipart_complete(struct multipart *m)
{
    struct hdr hdrs[3] = {xml_type};
    struct call_request q = {.method = METHOD_POST, .bucket = m->item->bucket, .key = m->item->key, .hdrs = hdrs, .nhdrs = 1,
                             .body = doc_body, .body_arg = m};
    struct strbuf query;
    struct sum_value whole;
    char text[48];
    enum err e = ERR_NOMEM;

    strbuf_init(&query, 0);
    q.query = multipart_query(m, 0, &query);
    write_doc(m, &whole);
    q.body_length = (int64_t)m->doc.n;
    if (m->summed) {
        hdrs[q.nhdrs++] = (struct hdr){sum_header(SUM_CRC32C), str_c(sum_base64(&whole, text)), HDR_OTHER};
        hdrs[q.nhdrs++] = (struct hdr){STR_LIT("x-amz-checksum-type"), STR_LIT("FULL_OBJECT"), HDR_OTHER};
    }
    m->completing = true;
    if (!m->doc.failed && !query.failed) e = ask_start(m->t, &m->ask, "POST", &q, completed);
    strbuf_free(&query);
    return e;
}

/* ---- abort */

static void aborted(struct ask *a, const struct call_result *r)
{
    struct multipart *m = container_of(a, struct multipart, ask);

    if (m->parts_cut_off) {
        m->parts_cut_off = false;
        timer_set(&m->again, ABORT_AGAIN_MS);
        return;
    }
    m->aborting = false;
    free(m->id);
    m->id = NULL;
    m->done(m, r);
}

enum err multipart_abort(struct multipart *m)
{
    struct call_request q = {.method = METHOD_DELETE, .bucket = m->item->bucket, .key = m->item->key};
    struct strbuf query;

    strbuf_init(&query, 0);
    q.query = multipart_query(m, 0, &query);
    m->aborting = true;
    enum err e = query.failed ? ERR_NOMEM : ask_start(m->t, &m->ask, "DELETE", &q, aborted);
    strbuf_free(&query);
    return e;
}

static void abort_again(struct timer *t)
{
    struct multipart *m = container_of(t, struct multipart, again);
    struct call_result none = {.err = ERR_NOMEM};

    if (multipart_abort(m) == ERR_OK) return;
    m->aborting = false;
    m->done(m, &none);
}
