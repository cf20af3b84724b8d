/* source.c - how a request's object is named: to the cache (its key) and to the origin (what it takes to ask for its bytes,
 * copied out of the client's request). */
#include "proxy/proxy.h"

/* ---- the cache key */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The byte that an escape at s[i] stands for; -1: it is none. */
static int escaped_byte(struct str s, size_t i)
{
    if (s.n - i < 3) return -1;
    int high = hex_value(s.p[i + 1]), low = hex_value(s.p[i + 2]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* Decodes s to *to. A plus is a plus to one server and a space to another, and a lone '%' may be a literal one: such bytes
 * come out alike, and a letter in *marks says how they were written. */
static void key_decode(struct str s, char **to, char **marks)
{
    char *w = *to, *m = *marks;

    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (c == '+') {
            c = ' ';
            *m++ = 'r';
        } else if (c == '%') {
            int v = escaped_byte(s, i);
            if (v >= 0) {
                i += 2;
                c = (char)v;
            }
            if (c == '%') *m++ = v < 0 ? 'l' : 'e';
            if (c == ' ') *m++ = 's';
            if (c == '+') {
                c = ' ';
                *m++ = 'p';
            }
        }
        *w++ = c;
    }
    *to = w;
    *marks = m;
}

enum err key_make(struct pool *pool, const struct origin_conf *o, struct str host_bucket, struct str path, struct str *base,
                  struct str *marks)
{
    size_t name = strlen(o->name) + 1, most = host_bucket.n + 1 + path.n;
    char *p = pool_alloc(pool, name + 2 * most), *w, *m;

    if (!p) return ERR_NOMEM;
    memcpy(p, o->name, name);
    w = p + name;
    char *const first_mark = m = w + most;
    if (host_bucket.n) {
        *w++ = '/';
        key_decode(host_bucket, &w, &m);
    }
    key_decode(path, &w, &m);
    *base = str_make(p, (size_t)(w - p));
    *marks = str_make(first_mark, (size_t)(m - first_mark));
    /* What a plain web server makes of escapes is its own business. */
    if (o->type == ORIGIN_HTTP) *marks = str_find(path, '%') < path.n ? path : (struct str){NULL, 0};
    return ERR_OK;
}

/* What selects among the representations at one place: the query, how the path was written if that may matter, and for S3
 * the page that a browser asks for: its answers carry CORS fields then, without always saying so in Vary. */
static enum err make_variant(struct request *r, struct str query, struct str marks, bool s3, struct str *out)
{
    const struct hdr *origin = s3 ? head_find_name(&r->x->req, STR_LIT("origin")) : NULL;
    size_t n = query.n + marks.n + (origin ? origin->value.n + 1 : 0) + 2;

    *out = query;
    if (!marks.n && !origin) return ERR_OK;
    char *p = pool_alloc(r->x->pool, n), *w = p;
    if (!p) return ERR_NOMEM;
    if (query.n) memcpy(w, query.p, query.n);
    w += query.n;
    *w++ = '\n';
    if (marks.n) memcpy(w, marks.p, marks.n);
    w += marks.n;
    if (origin) {
        *w++ = '\n';
        if (origin->value.n) memcpy(w, origin->value.p, origin->value.n);
        w += origin->value.n;
    }
    *out = str_make(p, (size_t)(w - p));
    return ERR_OK;
}

enum err request_make_key(struct request *r)
{
    const struct origin_conf *o = &r->conf->origins[r->origin_index];
    struct str marks;
    enum err e = key_make(r->x->pool, o, r->host_bucket, r->target.path, &r->key.base, &marks);

    if (e != ERR_OK) return e;
    return make_variant(r, o->type == ORIGIN_HTTP ? r->target.query : r->s3.key_query, marks, o->type == ORIGIN_S3,
                        &r->key.variant);
}

/* ---- Via */

/* The comment tells us from other proxies of this name that may well stand in the same chain. */
struct str source_via(const struct proxy *p, const struct exchange *x, struct pool *pool)
{
    bool two = x->proto == PROTO_H2;
    return pool_f(pool, "%u.%u " PROXY_NAME " (%s)", two ? 2 : 1, two ? 0 : x->req.minor, p->via_id);
}

bool source_loops(const struct proxy *p, const struct head *req)
{
    for (unsigned i = 0; i < req->nhdrs; i++) {
        struct str v = req->hdrs[i].value;
        if (req->hdrs[i].id == HDR_VIA && v.n && memmem(v.p, v.n, p->via_id, strlen(p->via_id))) return true;
    }
    return false;
}

/* ---- the source */

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
static bool is_own_business(const struct hdr *h, bool s3)
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
    case HDR_AMZ_CHECKSUM_MODE: return true;
    case HDR_AMZ_DATE:
    case HDR_AMZ_CONTENT_SHA256:
    case HDR_AMZ_SECURITY_TOKEN: return s3;
    default: return false;
    }
}

static bool starts_ci(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq_ci(str_make(s.p, prefix.n), prefix);
}

/* S3 answers the same whatever a browser says of itself; only its own fields and CORS' matter to it. */
static bool matters_to_s3(const struct hdr *h)
{
    return starts_ci(h->name, STR_LIT("x-amz-")) || str_eq_ci(h->name, STR_LIT("origin")) || h->id == HDR_USER_AGENT ||
           h->id == HDR_VIA || starts_ci(h->name, STR_LIT("access-control-"));
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
    struct str via = source_via(r->worker->proxy, r->x, p);
    if (e != ERR_OK || !s->path.p || !s->query.p || !s->address.bucket.p || !s->address.key.p || !s->hdrs || !via.p) {
        pool_destroy(p);
        return ERR_NOMEM;
    }
    if (s->query.n == 0) s->query = (struct str){NULL, 0};
    for (unsigned i = 0; i < s->req.nhdrs; i++) {
        const struct hdr *h = &s->req.hdrs[i];
        if (is_own_business(h, s3) || hdr_is_hop_by_hop(&s->req, h)) continue;
        if (h->id == HDR_AUTHORIZATION) s->authorized = r->conf->origins[r->origin_index].type == ORIGIN_HTTP;
        if (s3 && !matters_to_s3(h)) continue;
        s->hdrs[s->nhdrs++] = *h;
    }
    s->hdrs[s->nhdrs++] = (struct hdr){STR_LIT("via"), via, HDR_VIA};
    r->source = s;
    return ERR_OK;
}
