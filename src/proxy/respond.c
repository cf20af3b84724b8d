/* respond.c - response heads and small bodies. Strings of header fields live in the request's memory or longer. */
#include "proxy/proxy.h"
#include "s3/error_xml.h"

enum err respond_header(struct request *r, struct str name, struct str value)
{
    if (r->nhdrs == r->cap_hdrs) {
        unsigned cap = r->cap_hdrs ? r->cap_hdrs * 2 : 32;
        struct hdr *h = pool_alloc(r->x->pool, cap * sizeof *h);
        if (!h) return ERR_NOMEM;
        if (r->nhdrs) memcpy(h, r->hdrs, r->nhdrs * sizeof *h);
        r->hdrs = h;
        r->cap_hdrs = cap;
    }
    r->hdrs[r->nhdrs++] = (struct hdr){name, value, hdr_id_of(name)};
    return ERR_OK;
}

void respond_remove(struct request *r, struct str lower_name)
{
    unsigned n = 0;
    for (unsigned i = 0; i < r->nhdrs; i++)
        if (!str_eq_ci(r->hdrs[i].name, lower_name)) r->hdrs[n++] = r->hdrs[i];
    r->nhdrs = n;
}

void respond_send(struct request *r, unsigned status, int64_t content_length, struct body *body)
{
    CHECK(!r->responded && !r->filtering);
    r->status = status;
    r->filtering = true;
    modapi_head_filters(r);
    r->filtering = false;
    struct head h = {.status = status, .hdrs = r->hdrs, .nhdrs = r->nhdrs, .content_length = content_length, .minor = 1};
    r->responded = true;
    exchange_respond(r->x, &h, body);
}

static enum err text_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct request *r = container_of(b, struct request, text_body);

    if (r->text.n == 0) return ERR_END;
    if (max == 0 || max_bytes == 0) return ERR_AGAIN;
    size_t take = r->text.n < max_bytes ? r->text.n : max_bytes;
    out[0] = (struct chunk){.data = (const uint8_t *)r->text.p, .len = take, .fd = -1};
    r->text.p += take;
    r->text.n -= take;
    *n = 1;
    return ERR_OK;
}

static const struct body_ops text_ops = {text_pull, NULL};

/* body lives in the request's memory */
void respond_text(struct request *r, unsigned status, const char *content_type, struct str body)
{
    if (content_type) respond_remove(r, STR_LIT("content-type"));
    if (content_type && respond_header(r, STR_LIT("Content-Type"), str_c(content_type)) != ERR_OK) {
        exchange_reset(r->x);
        return;
    }
    r->text = body;
    r->text_body = (struct body){.ops = &text_ops, .length = (int64_t)body.n};
    respond_send(r, status, (int64_t)body.n, r->head_only || body.n == 0 ? NULL : &r->text_body);
}

void respond_error(struct request *r, unsigned status, const char *code, const char *message)
{
    struct strbuf b;

    if (r->responded) {
        exchange_reset(r->x);
        return;
    }
    strbuf_init(&b, 65536);
    enum err e = error_xml_build(&b, code, message, r->target.path, str_c(r->id_text));
    struct str text = e == ERR_OK ? pool_str(r->x->pool, strbuf_get(&b)) : (struct str){NULL, 0};
    strbuf_free(&b);
    if (!text.p || respond_header(r, STR_LIT("x-amz-request-id"), str_c(r->id_text)) != ERR_OK) {
        exchange_reset(r->x);
        return;
    }
    if (status == 503 || status == 429) respond_header(r, STR_LIT("Retry-After"), STR_LIT("1"));
    respond_cache_headers(r);
    respond_text(r, status, "application/xml", text);
}

void respond_error_body(enum err e, struct strbuf *out, char id[ERROR_ID_BYTES])
{
    size_t n = 0;
    for (uint64_t v = random_u64(); n < 16; v >>= 4) id[n++] = "0123456789ABCDEF"[v & 15];
    id[n] = '\0';
    error_xml_build(out, err_s3_code(e), err_text(e), (struct str){NULL, 0}, str_make(id, n));
}

void request_fail(struct request *r, enum err e)
{
    if (err_status(e) >= 500) r->error = e; /* what is simply so is no failure */
    if (e == ERR_OVERLOAD) stat_add(&r->worker->stats.shed, 1);
    respond_error(r, err_status(e), err_s3_code(e), err_text(e));
}

void respond_failure(struct request *r, const struct repr *f)
{
    if (f->status == 0) {
        request_fail(r, f->err);
        return;
    }
    for (unsigned i = 0; i < f->nhdrs; i++) {
        if (f->hdrs[i].id == HDR_SET_COOKIE && !r->leader) continue;
        if (respond_header(r, f->hdrs[i].name, f->hdrs[i].value) == ERR_OK) continue;
        r->nhdrs = 0;
        request_fail(r, ERR_NOMEM);
        return;
    }
    r->fwd_status = f->status;
    respond_cache_headers(r);
    struct str body = pool_str(r->x->pool, f->body);
    if (!body.p && f->body.n) {
        exchange_reset(r->x);
        return;
    }
    respond_text(r, f->status, NULL, body);
}

/* RFC 9211. */
static struct str cache_status(struct request *r)
{
    struct pool *p = r->x->pool;
    struct strbuf b;

    strbuf_init(&b, 256);
    strbuf_z(&b, PROXY_NAME);
    if (r->result == RESULT_HIT || r->result == RESULT_STALE) {
        strbuf_z(&b, "; hit");
        if (r->meta) {
            const struct repr *m = repr_of(r->meta);
            uint64_t now = loop_now_ms(r->worker->loop);
            bool fresh = m->fresh_until_ms >= now;
            uint64_t s = (fresh ? m->fresh_until_ms - now : now - m->fresh_until_ms) / 1000;
            strbuf_z(&b, fresh ? "; ttl=" : "; ttl=-");
            strbuf_u64(&b, s);
        }
    } else if (r->fwd && *r->fwd) {
        strbuf_z(&b, "; fwd=");
        strbuf_z(&b, r->fwd);
        if (r->fwd_status) {
            strbuf_z(&b, "; fwd-status=");
            strbuf_u64(&b, r->fwd_status);
        }
        if (r->collapsed) strbuf_z(&b, "; collapsed");
        if (r->object && object_indexed(r->object)) strbuf_z(&b, "; stored");
    }
    struct str s = b.failed ? (struct str){NULL, 0} : pool_str(p, strbuf_get(&b));
    strbuf_free(&b);
    return s;
}

void respond_cache_headers(struct request *r)
{
    if (r->origin_index < 0) return;
    if (r->result != RESULT_NONE) respond_header(r, STR_LIT("X-Cache"), cache_result_text(r->result));
    if (r->result == RESULT_MISS && !r->fwd) r->fwd = r->collapsed ? "miss" : "uri-miss";
    if (r->result == RESULT_PARTIAL && !r->fwd) r->fwd = "partial";
    if (r->result == RESULT_REVALIDATED && !r->fwd) r->fwd = "stale";
    if (r->result == RESULT_BYPASS && !r->fwd) r->fwd = "bypass";
    if (r->result == RESULT_NONE && !r->fwd) return; /* the cache was not asked (RFC 9211 section 2) */
    struct str status = cache_status(r);
    if (status.p) respond_header(r, STR_LIT("Cache-Status"), status);
    respond_header(r, STR_LIT("Via"), STR_LIT("1.1 " PROXY_NAME));
}
