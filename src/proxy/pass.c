/* pass.c - everything that is not a cacheable GET or HEAD: streamed through, both ways, with backpressure. Writes that
 * succeed - or may have - drop what they changed from every cache before the client is told. */
#include <stdlib.h>

#include "base/log.h"
#include "proxy/relay.h"
#include "s3/aws_chunked.h"

struct pass {
    struct request *request;
    struct origin_request req;
    struct upcall *call;
    struct relay *relay;
    struct retry retry;
    uint64_t started_ns;
    bool body_given, invalidated;
};

static void pass_submit(struct request *r);
static const struct client_events pass_events;

/* ---- what goes out */

static bool is_signature_param(struct str name)
{
    static const char *const names[] = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
                                        "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token",
                                        "X-Amz-Content-Sha256", "AWSAccessKeyId", "Signature", "Expires"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(name, str_c(names[i]))) return true;
    return false;
}

/* The query without a presigned URL's authentication: we sign for ourselves. */
static struct str pass_query(struct request *r)
{
    struct strbuf b;
    struct str rest = r->target.query, name, value;

    if (r->target.query.n == 0 || r->conf->origins[r->origin_index].type != ORIGIN_S3) return r->target.query;
    strbuf_init(&b, 0);
    while (query_next(&rest, &name, &value)) {
        if (is_signature_param(name)) continue;
        if (b.n) strbuf_ch(&b, '&');
        strbuf_str(&b, name);
        if (value.p) {
            strbuf_ch(&b, '=');
            strbuf_str(&b, value);
        }
    }
    struct str q = b.failed ? (struct str){NULL, 0} : pool_str(r->x->pool, strbuf_get(&b));
    strbuf_free(&b);
    return q;
}

static bool pass_drops(const struct request *r, const struct hdr *h, enum aws_chunked_kind kind)
{
    bool s3 = r->conf->origins[r->origin_index].type == ORIGIN_S3;

    switch (h->id) {
    case HDR_HOST:
    case HDR_EXPECT:
    case HDR_CONTENT_LENGTH: return true;
    case HDR_AUTHORIZATION:
    case HDR_AMZ_DATE:
    case HDR_AMZ_CONTENT_SHA256:
    case HDR_AMZ_SECURITY_TOKEN: return s3;
    case HDR_DATE: return s3; /* clients of the older signatures send it; ours is x-amz-date */
    case HDR_AMZ_DECODED_LENGTH: return s3 && kind == AWS_CHUNKED_SIGNED;
    case HDR_AMZ_TRAILER: return s3 && kind == AWS_CHUNKED_SIGNED;
    default: return hdr_is_hop_by_hop(&r->x->req, h);
    }
}

/* Content-Encoding without its aws-chunked member: the origin gets the decoded bytes. */
static struct str without_aws_chunked(struct request *r, struct str value)
{
    struct strbuf b;
    struct str member;

    strbuf_init(&b, 4096);
    while (hdr_list_next(&value, &member)) {
        if (str_eq_ci(member, STR_LIT("aws-chunked"))) continue;
        if (b.n) strbuf_z(&b, ", ");
        strbuf_str(&b, member);
    }
    struct str out = b.failed ? (struct str){NULL, 0} : pool_str(r->x->pool, strbuf_get(&b));
    strbuf_free(&b);
    return out;
}

static enum err pass_fields(struct request *r, struct pass *p, enum aws_chunked_kind kind)
{
    const struct head *h = &r->x->req;
    struct hdr *out = pool_alloc(r->x->pool, (h->nhdrs + 1) * sizeof *out);

    if (!out) return ERR_NOMEM;
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct hdr f = h->hdrs[i];
        if (pass_drops(r, &f, kind)) continue;
        if (f.id == HDR_CONTENT_ENCODING && kind == AWS_CHUNKED_SIGNED && r->conf->origins[r->origin_index].type == ORIGIN_S3) {
            f.value = without_aws_chunked(r, f.value);
            if (f.value.n == 0) continue;
        }
        out[p->req.nhdrs++] = f;
    }
    p->req.hdrs = out;
    return ERR_OK;
}

static bool is_hex64(struct str s)
{
    if (s.n != 64) return false;
    for (size_t i = 0; i < s.n; i++)
        if (!strchr("0123456789abcdef", s.p[i])) return false;
    return true;
}

/* The body, and under which hash it is signed anew. Chunk signatures of the client cannot be sent on: the body is decoded
 * and goes out unsigned (its trailing checksum, if there is one, is kept). */
static enum err pass_body(struct request *r, struct pass *p, enum aws_chunked_kind kind)
{
    struct body *body = r->x->req_body.ops ? &r->x->req_body : NULL;
    struct str sha = head_value(&r->x->req, HDR_AMZ_CONTENT_SHA256);
    bool s3 = r->conf->origins[r->origin_index].type == ORIGIN_S3;
    uint64_t decoded;

    p->req.send_zero_length = !body && (r->x->req.method == METHOD_PUT || r->x->req.method == METHOD_POST);
    if (s3 && (is_hex64(sha) || str_eq(sha, STR_LIT("UNSIGNED-PAYLOAD")))) p->req.payload_hash = sha;
    if (!body) return ERR_OK;
    if (s3 && kind != AWS_CHUNKED_NONE) {
        if (!str_to_u64(head_value(&r->x->req, HDR_AMZ_DECODED_LENGTH), &decoded)) return ERR_LENGTH_REQUIRED;
        p->req.payload_hash = kind == AWS_CHUNKED_SIGNED ? STR_LIT("UNSIGNED-PAYLOAD")
                                                         : STR_LIT("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        if (kind != AWS_CHUNKED_UNSIGNED_TRAILER) {
            enum err e = aws_chunked_filter(body, kind, decoded, head_value(&r->x->req, HDR_AMZ_TRAILER), r->x->pool, &body);
            if (e != ERR_OK) return e;
        }
    }
    if (s3 && body->length < 0) return ERR_LENGTH_REQUIRED;
    p->req.body = body;
    p->req.body_length = body->length;
    return ERR_OK;
}

/* ---- invalidation */

void pass_invalidate(struct request *r)
{
    struct strbuf b;
    enum purge_kind kind = PURGE_BASE;

    strbuf_init(&b, 0);
    strbuf_str(&b, r->key.base);
    switch (r->s3.op) {
    case OP_WRITE_OBJECT: break;
    case OP_DELETE_MANY: /* the keys are in the body: all of the bucket goes */
    case OP_WRITE_BUCKET:
        kind = PURGE_PREFIX;
        if (r->key.base.n && r->key.base.p[r->key.base.n - 1] != '/') strbuf_ch(&b, '/');
        break;
    default: strbuf_free(&b); return;
    }
    if (b.failed) kind = PURGE_ALL; /* no memory to say what: everything is safe to drop */
    for (unsigned i = 0; i < r->conf->ncaches; i++) cache_purge(r->worker->proxy->caches[i], kind, strbuf_get(&b));
    strbuf_free(&b);
}

/* ---- what comes back */

static bool pass_may_retry(const struct request *r, const struct pass *p)
{
    if (p->req.body || p->body_given) return false;
    switch (r->x->req.method) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_OPTIONS:
    case METHOD_PUT:
    case METHOD_DELETE: return true;
    default: return false;
    }
}

static bool pass_retry(struct request *r, enum err e, unsigned status, int64_t retry_after_s)
{
    struct pass *p = r->pass;
    uint64_t delay_ms;

    if (!pass_may_retry(r, p)) return false;
    if (!retry_next(&p->retry, &r->worker->budgets[r->origin_index], &r->conf->origins[r->origin_index],
                    status ? ERR_OK : e, status, (struct str){NULL, 0}, retry_after_s, false, &delay_ms))
        return false;
    stat_add(&origin_worker_stats(r->worker->origins[r->origin_index])->retries, 1);
    request_wait_timer(r, delay_ms, pass_submit);
    return true;
}

static void pass_answer(struct request *r, const struct head *resp, int64_t length)
{
    struct pass *p = r->pass;

    for (unsigned i = 0; i < resp->nhdrs; i++) {
        const struct hdr *h = &resp->hdrs[i];
        if (h->id == HDR_CONTENT_LENGTH || h->id == HDR_DATE || hdr_is_hop_by_hop(resp, h)) continue;
        if (respond_header(r, h->name, h->value) != ERR_OK) {
            request_fail(r, ERR_NOMEM);
            return;
        }
    }
    r->fwd_status = resp->status;
    r->result = RESULT_BYPASS;
    if (!r->fwd) r->fwd = r->x->req.method == METHOD_GET || r->x->req.method == METHOD_HEAD ? "bypass" : "method";
    respond_cache_headers(r);
    bool bodyless = r->head_only || resp->status == 204 || resp->status == 304;
    respond_send(r, resp->status, bodyless ? resp->content_length : length, bodyless ? NULL : relay_body(p->relay, length));
}

static void pass_head(void *arg, const struct head *resp, int64_t length)
{
    struct pass *p = arg;
    struct request *r = p->request;
    uint64_t s;
    int64_t after = str_to_u64(head_value(resp, HDR_RETRY_AFTER), &s) && s < 3600 ? (int64_t)s : -1;

    if ((resp->status >= 500 || resp->status == 429) && pass_retry(r, ERR_OK, resp->status, after)) {
        upcall_cancel(p->call);
        p->call = NULL;
        return;
    }
    if ((resp->status >= 200 && resp->status < 300) || resp->status >= 500) {
        p->invalidated = true;
        pass_invalidate(r);
    }
    struct upcall *call = p->call;
    p->call = NULL;
    relay_set_call(p->relay, call);
    upcall_retarget(call, &relay_events, p->relay);
    pass_answer(r, resp, length);
}

static unsigned pass_space(void *arg, struct iovec *iov, unsigned max)
{
    (void)arg;
    (void)iov;
    (void)max;
    return 0; /* never asked: the relay takes over with the head */
}

static void pass_filled(void *arg, size_t n)
{
    (void)arg;
    (void)n;
}

/* Ended without a head. Whether a write happened is unknown: the cache forgets. */
static void pass_end(void *arg, enum err why)
{
    struct pass *p = arg;
    struct request *r = p->request;

    p->call = NULL;
    if (why == ERR_OK) why = ERR_PROTOCOL;
    if (!p->invalidated) pass_invalidate(r);
    if (!pass_retry(r, why, 0, -1)) request_fail(r, why);
}

static const struct client_events pass_events = {pass_head, pass_space, pass_filled, pass_end};

static void pass_submit(struct request *r)
{
    struct pass *p = r->pass;

    p->started_ns = clock_ns();
    retry_budget_request(&r->worker->budgets[r->origin_index]);
    enum err e = upcall_start(r->worker->origins[r->origin_index], &p->req, &pass_events, p, &p->call);
    if (e != ERR_OK) request_fail(r, e);
}

static struct pass *pass_create(struct request *r)
{
    struct pass *p = pool_zalloc(r->x->pool, sizeof *p);
    size_t ring = (size_t)r->conf->body_buffer_bytes;

    if (!p || !proxy_account(r->worker->proxy, ring)) return NULL;
    r->accounted_bytes += ring;
    p->relay = relay_create(ring);
    if (!p->relay) return NULL;
    p->request = r;
    r->pass = p;
    return p;
}

void pass_start(struct request *r)
{
    struct pass *p = pass_create(r);
    enum aws_chunked_kind kind = aws_chunked_kind_of(&r->x->req);

    r->result = RESULT_BYPASS;
    if (!p) {
        request_fail(r, ERR_OVERLOAD);
        return;
    }
    p->req = (struct origin_request){.method = r->x->req.method, .method_text = r->x->req.method_text,
                                     .address = r->s3.address, .path = r->target.path, .query = pass_query(r)};
    enum err e = r->target.query.n && !p->req.query.p ? ERR_NOMEM : pass_body(r, p, kind);
    if (e == ERR_OK) e = pass_fields(r, p, kind);
    if (e != ERR_OK)
        request_fail(r, e);
    else
        pass_submit(r);
}

void pass_adopt(struct request *r, const struct head *resp, int64_t length, struct upcall *call)
{
    struct pass *p = pass_create(r);

    if (!p) {
        upcall_cancel(call);
        request_fail(r, ERR_OVERLOAD);
        return;
    }
    relay_set_call(p->relay, call);
    upcall_retarget(call, &relay_events, p->relay);
    pass_answer(r, resp, length);
}

void pass_destroy(struct pass *p)
{
    struct request *r = p->request;

    if (p->call) {
        upcall_cancel(p->call);
        if (!p->invalidated) pass_invalidate(r); /* the write may have happened */
    }
    r->origin_bytes += relay_received(p->relay);
    relay_destroy(p->relay);
}
