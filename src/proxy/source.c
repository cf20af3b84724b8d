/* source.c - what it takes to ask an origin for an object's bytes, copied out of the client's request. */
#include "proxy/proxy.h"

struct source *source_ref(struct source *s)
{
    s->refs++;
    return s;
}

void source_unref(struct source *s)
{
    if (s && --s->refs == 0) pool_destroy(s->pool);
}

/* Fields that are about this message or this hop, or that the proxy works out itself when it asks. */
static bool is_own_business(const struct hdr *h)
{
    switch (h->id) {
    case HDR_HOST:
    case HDR_RANGE:
    case HDR_IF_RANGE:
    case HDR_IF_MATCH:
    case HDR_IF_NONE_MATCH:
    case HDR_IF_MODIFIED_SINCE:
    case HDR_IF_UNMODIFIED_SINCE:
    case HDR_EXPECT:
    case HDR_CONTENT_LENGTH:
    case HDR_CACHE_CONTROL:
    case HDR_PRAGMA:
    case HDR_AMZ_DATE:
    case HDR_AMZ_CONTENT_SHA256:
    case HDR_AMZ_SECURITY_TOKEN:
    case HDR_AMZ_CHECKSUM_MODE: return true;
    default: return false;
    }
}

/* S3 answers the same whatever a browser says of itself; only its own fields and CORS' matter to it. */
static bool matters_to_s3(const struct hdr *h)
{
    return str_starts(h->name, STR_LIT("x-amz-")) || str_starts(h->name, STR_LIT("X-Amz-")) ||
           str_eq_ci(h->name, STR_LIT("origin")) || h->id == HDR_USER_AGENT ||
           str_starts(h->name, STR_LIT("access-control-")) || str_starts(h->name, STR_LIT("Access-Control-"));
}

static enum err copy_head(struct source *s, const struct head *req)
{
    s->req = *req;
    s->req.method_text = pool_str(s->pool, req->method_text);
    s->req.target = pool_str(s->pool, req->target);
    s->req.hdrs = pool_alloc(s->pool, (req->nhdrs + 1) * sizeof *s->req.hdrs);
    if (!s->req.hdrs || !s->req.method_text.p || !s->req.target.p) return ERR_NOMEM;
    for (unsigned i = 0; i < req->nhdrs; i++) {
        struct hdr *h = &s->req.hdrs[i];
        h->id = req->hdrs[i].id;
        h->name = pool_str(s->pool, req->hdrs[i].name);
        h->value = pool_str(s->pool, req->hdrs[i].value);
        if (!h->name.p || !h->value.p) return ERR_NOMEM;
    }
    return ERR_OK;
}

enum err request_make_source(struct request *r)
{
    if (r->source) return ERR_OK;
    struct pool *p = pool_create(r->conf->request_memory_bytes + 65536);
    struct source *s = p ? pool_zalloc(p, sizeof *s) : NULL;
    if (!s) {
        if (p) pool_destroy(p);
        return ERR_NOMEM;
    }
    s->pool = p;
    s->refs = 1;
    s->worker = r->worker;
    s->origin_index = (unsigned)r->origin_index;
    s->origin = r->worker->origins[r->origin_index];
    bool s3 = r->conf->origins[r->origin_index].type == ORIGIN_S3;
    enum err e = copy_head(s, &r->x->req);
    s->path = pool_str(p, r->target.path);
    s->query = r->s3.key_query.n || s3 ? pool_str(p, r->s3.key_query) : pool_str(p, r->target.query);
    s->address.bucket = pool_str(p, r->s3.address.bucket);
    s->address.key = pool_str(p, r->s3.address.key);
    s->hdrs = pool_alloc(p, (s->req.nhdrs + 1) * sizeof *s->hdrs);
    if (e != ERR_OK || !s->path.p || !s->query.p || !s->address.bucket.p || !s->address.key.p || !s->hdrs) {
        pool_destroy(p);
        return ERR_NOMEM;
    }
    if (s->query.n == 0) s->query = (struct str){NULL, 0};
    for (unsigned i = 0; i < s->req.nhdrs; i++) {
        const struct hdr *h = &s->req.hdrs[i];
        if (is_own_business(h) || hdr_is_hop_by_hop(&s->req, h)) continue;
        if (h->id == HDR_AUTHORIZATION && !s3) s->authorized = true;
        if (s3 && !matters_to_s3(h)) continue;
        s->hdrs[s->nhdrs++] = *h;
    }
    r->source = s;
    return ERR_OK;
}
