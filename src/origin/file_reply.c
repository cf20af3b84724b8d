/* file_reply.c - see the header. Preconditions before ranges (RFC 9110 section 13.2.2), ranges as S3 answers them. */
#include "origin/file_reply.h"

#include <stdio.h>

#include "base/hash.h"
#include "http/cond.h"
#include "http/date.h"
#include "http/range.h"
#include "http/uri.h"
#include "origin/file_list.h"
#include "s3/error_xml.h"

void file_reply_init(struct file_reply *p)
{
    *p = (struct file_reply){0};
    strbuf_init(&p->doc, 0);
}

void file_reply_free(struct file_reply *p) { strbuf_free(&p->doc); }

void file_reply_hdr(struct file_reply *p, enum hdr_id id, struct str value)
{
    if (!value.p) {
        p->failed = true;
        return;
    }
    for (unsigned i = 0; i < p->nhdrs; i++)
        if (p->hdrs[i].id == id) {
            p->hdrs[i].value = value;
            return;
        }
    CHECK(p->nhdrs < FILE_REPLY_HDRS);
    p->hdrs[p->nhdrs++] = (struct hdr){hdr_name(id), value, id};
}

static void put_length(struct file_reply *p, struct pool *mem, uint64_t n)
{
    p->content_length = (int64_t)n;
    file_reply_hdr(p, HDR_CONTENT_LENGTH, pool_f(mem, "%llu", (unsigned long long)n));
}

static void put_date(struct file_reply *p, struct pool *mem, enum hdr_id id, int64_t t)
{
    char text[30];
    date_format(t, text);
    file_reply_hdr(p, id, pool_str(mem, str_c(text)));
}

static struct str request_id(struct pool *mem) { return pool_f(mem, "%016llX", (unsigned long long)random_u64()); }

void file_reply_error(struct file_reply *p, struct pool *mem, enum err e, struct str resource)
{
    struct str id = request_id(mem);
    p->status = err_status(e);
    p->doc.n = 0;
    p->first = p->end = 0;
    if (error_xml_build(&p->doc, err_s3_code(e), err_text(e), resource, id) != ERR_OK) p->failed = true;
    file_reply_hdr(p, HDR_AMZ_REQUEST_ID, id);
    file_reply_hdr(p, HDR_CONTENT_TYPE, STR_LIT("application/xml"));
    put_date(p, mem, HDR_DATE, (int64_t)(wallclock_ms() / 1000));
    put_length(p, mem, p->doc.n);
}

void file_reply_document(struct file_reply *p, struct pool *mem)
{
    p->status = 200;
    file_reply_hdr(p, HDR_AMZ_REQUEST_ID, request_id(mem));
    file_reply_hdr(p, HDR_CONTENT_TYPE, STR_LIT("application/xml"));
    put_date(p, mem, HDR_DATE, (int64_t)(wallclock_ms() / 1000));
    put_length(p, mem, p->doc.n);
}

/* ---- objects */

static struct str content_type(const char *path)
{
    static const struct {
        const char *suffix, *type;
    } types[] = {
        {"txt", "text/plain"},
        {"html", "text/html"},
        {"htm", "text/html"},
        {"css", "text/css"},
        {"csv", "text/csv"},
        {"tsv", "text/tab-separated-values"},
        {"md", "text/markdown"},
        {"js", "text/javascript"},
        {"json", "application/json"},
        {"jsonl", "application/jsonl"},
        {"xml", "application/xml"},
        {"yaml", "application/yaml"},
        {"yml", "application/yaml"},
        {"pdf", "application/pdf"},
        {"zip", "application/zip"},
        {"gz", "application/gzip"},
        {"tar", "application/x-tar"},
        {"zst", "application/zstd"},
        {"parquet", "application/vnd.apache.parquet"},
        {"png", "image/png"},
        {"jpg", "image/jpeg"},
        {"jpeg", "image/jpeg"},
        {"gif", "image/gif"},
        {"webp", "image/webp"},
        {"svg", "image/svg+xml"},
        {"wav", "audio/wav"},
        {"flac", "audio/flac"},
        {"mp3", "audio/mpeg"},
        {"mp4", "video/mp4"},
    };
    const char *name = strrchr(path, '/'), *dot = strrchr(name ? name : path, '.');
    for (size_t i = 0; dot && i < ARRAY_LEN(types); i++)
        if (str_eq_ci(str_c(dot + 1), str_c(types[i].suffix))) return str_c(types[i].type);
    return STR_LIT("binary/octet-stream"); /* S3's own default */
}

static bool value_is_clean(struct str v)
{
    for (size_t i = 0; i < v.n; i++)
        if ((unsigned char)v.p[i] < 0x20 || v.p[i] == 0x7f) return false;
    return true;
}

/* response-content-type and the like; partNumber. */
static enum err query_read(struct file_reply *p, struct pool *mem, struct str query, uint64_t *part)
{
    static const struct {
        const char *name;
        enum hdr_id id;
    } overrides[] = {
        {"response-content-type", HDR_CONTENT_TYPE},
        {"response-content-encoding", HDR_CONTENT_ENCODING},
        {"response-cache-control", HDR_CACHE_CONTROL},
        {"response-expires", HDR_EXPIRES},
    };
    struct str name, raw;
    *part = 0;
    while (query_next(&query, &name, &raw)) {
        if (str_eq(name, STR_LIT("partNumber")) && (!str_to_u64(raw, part) || *part == 0)) return ERR_BAD_REQUEST;
        for (size_t i = 0; i < ARRAY_LEN(overrides); i++) {
            if (!str_eq(name, str_c(overrides[i].name))) continue;
            struct str v = uri_decode(mem, raw);
            if (!v.p || !value_is_clean(v)) return ERR_BAD_REQUEST;
            file_reply_hdr(p, overrides[i].id, v);
        }
        const bool disposition = str_eq(name, STR_LIT("response-content-disposition"));
        if (!disposition && !str_eq(name, STR_LIT("response-content-language"))) continue;
        struct str v = uri_decode(mem, raw);
        if (!v.p || !value_is_clean(v)) return ERR_BAD_REQUEST;
        if (p->nhdrs + 8 > FILE_REPLY_HDRS) return ERR_BAD_REQUEST;
        p->hdrs[p->nhdrs++] =
            (struct hdr){disposition ? STR_LIT("content-disposition") : STR_LIT("content-language"), v, HDR_OTHER};
    }
    return ERR_OK;
}

static enum err conditions(const struct origin_request *r, struct pool *mem, struct str etag, int64_t mtime,
                           struct head *req)
{
    struct hdr *h = pool_alloc(mem, (r->nhdrs + 1) * sizeof *h);
    if (!h) return ERR_NOMEM;
    *req =
        (struct head){.method = r->method, .method_text = r->method_text, .minor = 1, .hdrs = h, .content_length = -1};
    for (unsigned i = 0; i < r->nhdrs; i++)
        if (!(r->if_match.n && r->hdrs[i].id == HDR_IF_MATCH)) h[req->nhdrs++] = r->hdrs[i];
    if (r->if_match.n) h[req->nhdrs++] = (struct hdr){STR_LIT("if-match"), r->if_match, HDR_IF_MATCH};
    switch (cond_check(req, etag, mtime)) {
    case COND_FAILED: return ERR_PRECONDITION;
    case COND_NOT_MODIFIED: return ERR_END;
    case COND_PASS: break;
    }
    return ERR_OK;
}

static struct range range_asked(const struct origin_request *r, const struct head *req, struct str etag, int64_t mtime)
{
    if (r->has_range) return (struct range){RANGE_SPAN, r->first, r->last};
    if (!cond_if_range(req, etag, mtime)) return (struct range){RANGE_NONE, 0, 0};
    return range_parse(head_value(req, HDR_RANGE));
}

/* Status, Content-Range and [first, end). */
static enum err extent_set(struct file_reply *p, struct pool *mem, struct range range, uint64_t part, uint64_t size)
{
    uint64_t first = 0, last = 0;
    p->status = 200;
    p->first = 0;
    p->end = size;
    bool whole_part = part == 1 && range.kind == RANGE_NONE && size > 0; /* S3: 206, though it is all of it */
    if (part > 1) return ERR_RANGE;
    if (range.kind == RANGE_NONE && !whole_part) return ERR_OK;
    if (whole_part)
        last = size - 1;
    else if (range_resolve(&range, size, &first, &last) != ERR_OK)
        return ERR_RANGE;
    p->status = 206;
    p->first = first;
    p->end = last + 1;
    file_reply_hdr(p, HDR_CONTENT_RANGE,
                   pool_f(mem, "bytes %llu-%llu/%llu", (unsigned long long)first, (unsigned long long)last,
                          (unsigned long long)size));
    return ERR_OK;
}

void file_reply_object(struct file_reply *p, struct pool *mem, const struct origin_request *r, const struct stat *st,
                       const char *path)
{
    char text[80];
    struct head req;
    uint64_t part, size = (uint64_t)st->st_size;
    int64_t mtime = st->st_mtim.tv_sec;
    struct str etag = pool_str(mem, file_etag(st->st_dev, st->st_ino, size, st->st_mtim, text));
    struct str resource = r->path;

    enum err e = etag.p ? conditions(r, mem, etag, mtime, &req) : ERR_NOMEM;
    if (e == ERR_NOMEM) p->failed = true;
    if (p->failed) return;
    if (e != ERR_OK && e != ERR_END) {
        file_reply_error(p, mem, e, resource);
        return;
    }
    file_reply_hdr(p, HDR_ETAG, etag);
    put_date(p, mem, HDR_LAST_MODIFIED, mtime);
    put_date(p, mem, HDR_DATE, (int64_t)(wallclock_ms() / 1000));
    file_reply_hdr(p, HDR_ACCEPT_RANGES, STR_LIT("bytes"));
    file_reply_hdr(p, HDR_AMZ_REQUEST_ID, request_id(mem));
    if (e == ERR_END) {
        p->status = 304;
        return;
    }
    file_reply_hdr(p, HDR_CONTENT_TYPE, content_type(path));
    e = query_read(p, mem, r->query, &part);
    if (e == ERR_OK) e = extent_set(p, mem, range_asked(r, &req, etag, mtime), part, size);
    if (e == ERR_OK) {
        put_length(p, mem, p->end - p->first);
        return;
    }
    p->nhdrs = 0;
    file_reply_error(p, mem, e, resource);
    if (e == ERR_RANGE) file_reply_hdr(p, HDR_CONTENT_RANGE, pool_f(mem, "bytes */%llu", (unsigned long long)size));
}
