/* pass.c - everything that is not a cacheable GET or HEAD: streamed through, both ways, with backpressure.
 *
 * Writes that succeed - or may have - drop what they changed from every cache before the client is told:
 *
 *   answer of the origin                  | dropped
 *   2xx, 3xx, "there is none" (404 ...)   | when its head has come; and if its length is not known then (S3 begins to answer
 *                                         | slow operations before they are done) again before each of its bytes is passed on
 *   other 4xx                             | nothing: it did not happen
 *   5xx, or none, or the client left      | at once; and where it may still happen, the key is not cached for a while */
#include <stdlib.h>

#include "base/log.h"
#include "http/cond.h"
#include "http/date.h"
#include "proxy/relay.h"
#include "s3/aws_chunked.h"

#define UNSETTLED_MS 60000 /* how long a write may take effect after we have lost sight of it */
#define UNSETTLED_TRIES 4
#define SKEW_S 300 /* as origin/s3.c */

struct pass {
    struct request *request;
    struct origin_request req;
    struct upcall *call;
    struct relay *relay;
    struct retry retry;
    uint64_t retries; /* the origin's counter when it was asked */
    bool skewed;      /* tried again with the origin's clock */
    bool doubt;       /* a write was sent and its outcome is not known: it may have happened, or happen yet */
    bool doubted;     /* the same, of earlier tries */
};

static void pass_submit(struct request *r);
static const struct client_events pass_events;

static bool pass_is_s3(const struct request *r) { return r->conf->origins[r->origin_index].type == ORIGIN_S3; }

static struct origin_stats *pass_origin_stats(const struct request *r)
{
    return origin_worker_stats(r->worker->origins[r->origin_index]);
}

/* ---- what goes out */

static bool is_signature_param(struct pool *pool, struct str name)
{
    static const char *const names[] = {"X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
                                        "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token",
                                        "X-Amz-Content-Sha256", "AWSAccessKeyId", "Signature", "Expires"};
    struct str plain = str_find(name, '%') < name.n ? uri_decode(pool, name) : name;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (str_eq(plain, str_c(names[i]))) return true;
    return false;
}

/* The query without a presigned URL's authentication: we sign for ourselves. */
static enum err pass_query(struct request *r, struct str *out)
{
    struct strbuf b;
    struct str rest = r->target.query, name, value;

    *out = r->target.query;
    if (r->target.query.n == 0 || !pass_is_s3(r)) return ERR_OK;
    strbuf_init(&b, 0);
    while (query_next(&rest, &name, &value)) {
        if (is_signature_param(r->x->pool, name)) continue;
        if (b.n) strbuf_ch(&b, '&');
        strbuf_str(&b, name);
        if (value.p) {
            strbuf_ch(&b, '=');
            strbuf_str(&b, value);
        }
    }
    *out = b.failed || b.n == 0 ? (struct str){NULL, 0} : pool_str(r->x->pool, strbuf_get(&b));
    bool ok = !b.failed && (b.n == 0 || out->p);
    strbuf_free(&b);
    return ok ? ERR_OK : ERR_NOMEM;
}

static bool pass_drops(const struct request *r, const struct hdr *h, enum aws_chunked_kind kind)
{
    bool s3 = pass_is_s3(r);

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
    struct str via = source_via(r->worker->proxy, r->x, r->x->pool);

    if (!out || !via.p) return ERR_NOMEM;
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct hdr f = h->hdrs[i];
        if (pass_drops(r, &f, kind)) continue;
        if (f.id == HDR_CONTENT_ENCODING && kind == AWS_CHUNKED_SIGNED && pass_is_s3(r)) {
            f.value = without_aws_chunked(r, f.value);
            if (f.value.n == 0) continue;
        }
        out[p->req.nhdrs++] = f;
    }
    out[p->req.nhdrs++] = (struct hdr){STR_LIT("via"), via, HDR_VIA};
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
 * and goes out unsigned (its trailing checksum, if there is one, is kept). So is one whose length on the wire is not known,
 * as S3 wants to know it. */
static enum err pass_body(struct request *r, struct pass *p, enum aws_chunked_kind kind)
{
    struct body *body = r->x->req_body.ops ? &r->x->req_body : NULL;
    struct str sha = head_value(&r->x->req, HDR_AMZ_CONTENT_SHA256);
    bool s3 = pass_is_s3(r);
    uint64_t decoded;

    p->req.send_zero_length = !body && (r->x->req.method == METHOD_PUT || r->x->req.method == METHOD_POST);
    if (s3 && kind == AWS_CHUNKED_NONE && str_starts(sha, STR_LIT("STREAMING-"))) return ERR_NOT_IMPLEMENTED;
    if (s3 && (is_hex64(sha) || str_eq(sha, STR_LIT("UNSIGNED-PAYLOAD")))) p->req.payload_hash = sha;
    if (!body) return ERR_OK;
    if (s3 && kind != AWS_CHUNKED_NONE) {
        if (!str_to_u64(head_value(&r->x->req, HDR_AMZ_DECODED_LENGTH), &decoded)) return ERR_LENGTH_REQUIRED;
        p->req.payload_hash = kind == AWS_CHUNKED_SIGNED ? STR_LIT("UNSIGNED-PAYLOAD")
                                                         : STR_LIT("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        if (kind != AWS_CHUNKED_UNSIGNED_TRAILER || body->length < 0) {
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

static bool same_place(const struct origin_conf *a, const struct origin_conf *b)
{
    if (a->type != b->type) return false;
    if (a->type == ORIGIN_FILE) return strcmp(a->root, b->root) == 0;
    return a->endpoint.https == b->endpoint.https && a->endpoint.port == b->endpoint.port &&
           strcmp(a->endpoint.host, b->endpoint.host) == 0 && strcmp(a->endpoint.prefix, b->endpoint.prefix) == 0;
}

/* From all caches, and under the names of all origins that are the same place. path: a base without its origin. */
static void drop(const struct request *r, enum purge_kind kind, struct str path)
{
    const struct conf *c = r->conf;

    for (unsigned o = 0; o < c->norigins; o++) {
        struct strbuf b;
        if (!same_place(&c->origins[o], &c->origins[r->origin_index])) continue;
        strbuf_init(&b, 0);
        strbuf_add(&b, c->origins[o].name, strlen(c->origins[o].name) + 1);
        strbuf_str(&b, path);
        enum purge_kind what = b.failed ? PURGE_ALL : kind; /* no memory to say what: everything is safe to drop */
        for (unsigned i = 0; i < c->ncaches; i++) cache_purge(r->worker->proxy->caches[i], what, strbuf_get(&b));
        strbuf_free(&b);
    }
}

/* All that is in a bucket, and what a name like bucket%2Fkey may have meant. */
static void drop_bucket(const struct request *r, struct str path)
{
    struct strbuf b;

    while (path.n && path.p[path.n - 1] == '/') path.n--;
    drop(r, PURGE_BASE, path);
    strbuf_init(&b, 0);
    strbuf_str(&b, path);
    strbuf_ch(&b, '/');
    drop(r, b.failed ? PURGE_ALL : PURGE_PREFIX, strbuf_get(&b));
    strbuf_free(&b);
}

static struct str bucket_path(const struct request *r, struct str path)
{
    size_t n = r->s3.address.bucket.n + 1;
    return path.n > n ? str_make(path.p, n) : path;
}

void pass_invalidate(struct request *r)
{
    size_t name = strlen(r->conf->origins[r->origin_index].name) + 1;
    struct str path = str_make(r->key.base.p + name, r->key.base.n - name);

    switch (r->s3.op) {
    case OP_WRITE_OBJECT:
        drop(r, PURGE_BASE, path);
        /* A renamed object is gone from where it was, somewhere in the same bucket. */
        if (head_find_name(&r->x->req, STR_LIT("x-amz-rename-source"))) drop_bucket(r, bucket_path(r, path));
        return;
    case OP_DELETE_MANY: /* the keys are in the body: all of the bucket goes */
    case OP_WRITE_BUCKET: drop_bucket(r, path); return;
    default: return;
    }
}

static void note_unsettled(struct request *r, struct cache *c, const struct cache_key *key)
{
    struct object *o;
    bool created = false;

    /* Somebody may begin to ask between the dropping and the note. */
    for (unsigned i = 0; i < UNSETTLED_TRIES && !created; i++) {
        if (cache_find_or_create(c, key, repr_matches, &r->x->req, &o, &created) != ERR_OK) return;
        if (created) object_mark_uncacheable(o, loop_now_ms(r->worker->loop), UNSETTLED_MS);
        bool noted = created || object_state(o) == OBJECT_UNCACHEABLE;
        object_unref(o);
        if (noted) return;
        pass_invalidate(r);
    }
}

/* Until the write can be expected to be over nobody's answer about this key is kept: not that to the same request, nor that
 * to a plain one. */
static void pass_unsettled(struct request *r)
{
    struct cache_key plain = {r->key.base, {NULL, 0}};

    r->pass->doubt = false;
    pass_invalidate(r);
    if (r->s3.op != OP_WRITE_OBJECT) return;
    for (unsigned i = 0; i < r->conf->ncaches; i++) {
        note_unsettled(r, r->worker->proxy->caches[i], &r->key);
        if (r->key.variant.n) note_unsettled(r, r->worker->proxy->caches[i], &plain);
    }
}

/* ---- what comes back */

/* A write with a condition that was carried out and not answered would fail the second time. */
static bool pass_may_retry(const struct request *r, const struct pass *p, bool answered)
{
    if (p->req.body) return false;
    bool reads = r->x->req.method == METHOD_GET || r->x->req.method == METHOD_HEAD;
    if (!reads && !answered && cond_any(&r->x->req)) return false;
    switch (r->x->req.method) {
    case METHOD_GET:
    case METHOD_HEAD:
    case METHOD_OPTIONS:
    case METHOD_PUT:
    case METHOD_DELETE: return true;
    default: return false;
    }
}

static bool pass_retry(struct request *r, enum err e, unsigned status, struct str code, int64_t retry_after_s)
{
    struct pass *p = r->pass;
    uint64_t delay_ms;

    if (!pass_may_retry(r, p, status != 0)) return false;
    if (!retry_next(&p->retry, &r->worker->budgets[r->origin_index], &r->conf->origins[r->origin_index],
                    status ? ERR_OK : e, status, code, retry_after_s, 0, &delay_ms))
        return false;
    stat_add(&pass_origin_stats(r)->retries, 1);
    request_wait_timer(r, delay_ms, pass_submit);
    return true;
}

static void pass_answer(struct request *r, const struct head *resp, int64_t length)
{
    struct pass *p = r->pass;

    for (unsigned i = 0; i < resp->nhdrs; i++) {
        const struct hdr *h = &resp->hdrs[i];
        if (h->id == HDR_CONTENT_LENGTH || h->id == HDR_X_CACHE || hdr_is_hop_by_hop(resp, h)) continue;
        if (respond_header(r, h->name, h->value) == ERR_OK) continue;
        r->nhdrs = 0;
        request_fail(r, ERR_NOMEM);
        return;
    }
    r->fwd_status = resp->status;
    r->result = RESULT_BYPASS;
    if (!r->fwd) r->fwd = r->x->req.method == METHOD_GET || r->x->req.method == METHOD_HEAD ? "bypass" : "method";
    respond_cache_headers(r);
    bool bodyless = r->head_only || resp->status == 204 || resp->status == 304;
    respond_send(r, resp->status, bodyless ? resp->content_length : length, bodyless ? NULL : relay_body(p->relay, length));
}

/* Before more of the answer to a write is passed on. */
static void pass_before(void *arg, enum err what)
{
    struct request *r = arg;

    if (what == ERR_AGAIN && r->s3.op != OP_WRITE_OBJECT) return; /* looking through all of a cache once is enough */
    if (what != ERR_AGAIN && what != ERR_OK) {
        pass_unsettled(r);
        return;
    }
    if (what == ERR_OK) r->pass->doubt = false;
    pass_invalidate(r);
}

/* No answer, and perhaps none to come. What has not got its whole body cannot have been carried out. */
static void pass_lost(struct request *r)
{
    if (!r->pass->doubt) return;
    if (r->x->req.content_length > 0 && r->x->received_bytes < (uint64_t)r->x->req.content_length) {
        r->pass->doubt = false;
        pass_invalidate(r);
    } else {
        pass_unsettled(r);
    }
}

/* What the answer's head says about a write. */
static void pass_judge(struct request *r, unsigned status, int64_t length)
{
    struct pass *p = r->pass;

    if (status >= 400 && (p->doubted || (status >= 500 && status != 501 && status != 503))) {
        pass_unsettled(r);
        return;
    }
    /* Being told that the object is not there, or another one, is as good as a write. */
    if (status < 400 || status >= 500 || status == 404 || status == 410 || status == 412) pass_invalidate(r);
    if (status >= 300 || length >= 0)
        p->doubt = false;
    else if (p->doubt)
        relay_watch(p->relay, pass_before, r);
}

/* The request never left. */
static bool was_not_sent(enum err e)
{
    switch (e) {
    case ERR_REFUSED:
    case ERR_UNREACHABLE:
    case ERR_DNS:
    case ERR_CONNECT_TIMEOUT:
    case ERR_OVERLOAD:
    case ERR_CREDENTIALS:
    case ERR_LENGTH_REQUIRED: return true;
    default: return false;
    }
}

/* Refused, and with a clock so far from ours that this will be why: the origin has learnt the difference by now. */
static bool is_skewed(const struct request *r, const struct head *resp)
{
    if (resp->status != 403 || !pass_is_s3(r)) return false;
    int64_t date = date_parse(head_value(resp, HDR_DATE)), now = (int64_t)(wallclock_ms() / 1000);
    return date >= 0 && (date - now > SKEW_S || now - date > SKEW_S);
}

static void pass_head(void *arg, const struct head *resp, int64_t length)
{
    struct pass *p = arg;
    struct request *r = p->request;
    uint64_t s;
    int64_t after = str_to_u64(head_value(resp, HDR_RETRY_AFTER), &s) && s < 3600 ? (int64_t)s : -1;

    struct str code = {NULL, 0};
    if (!p->skewed && is_skewed(r, resp)) {
        p->skewed = true;
        code = STR_LIT("RequestTimeTooSkewed");
    }
    if ((resp->status >= 500 || resp->status == 429 || code.n) && pass_retry(r, ERR_OK, resp->status, code, after)) {
        upcall_cancel(p->call);
        p->call = NULL;
        return;
    }
    pass_judge(r, resp->status, length);
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
    /* Unless the origin's free retry was at work: then it may have left the first time. */
    if (was_not_sent(why) && p->retries == stat_get(&pass_origin_stats(r)->retries)) p->doubt = p->doubted;
    if (pass_retry(r, why, 0, (struct str){NULL, 0}, -1)) return;
    pass_lost(r);
    request_fail(r, why);
}

static const struct client_events pass_events = {pass_head, pass_space, pass_filled, pass_end};

static void pass_submit(struct request *r)
{
    struct pass *p = r->pass;

    p->doubted = p->doubt;
    p->doubt = r->s3.op >= OP_WRITE_OBJECT;
    p->retries = stat_get(&pass_origin_stats(r)->retries);
    retry_budget_request(&r->worker->budgets[r->origin_index]);
    enum err e = upcall_start(r->worker->origins[r->origin_index], &p->req, &pass_events, p, &p->call);
    if (e == ERR_OK) return;
    p->doubt = p->doubted;
    request_fail(r, e);
}

static struct pass *pass_create(struct request *r)
{
    struct pass *p = pool_zalloc(r->x->pool, sizeof *p);
    size_t ring = (size_t)r->conf->body_buffer_bytes;

    /* The answer's ring, and what of the request's body is under way. */
    if (!p || !request_account(r, r->x->req_body.ops ? 2 * ring : ring)) return NULL;
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
                                     .address = r->s3.address, .path = r->target.path};
    enum err e = pass_query(r, &p->req.query);
    if (e == ERR_OK) e = pass_body(r, p, kind);
    if (e == ERR_OK) e = pass_fields(r, p, kind);
    if (e != ERR_OK)
        request_fail(r, e);
    else
        pass_submit(r);
}

/* The answer without its body. */
static void adopt_not_modified(struct request *r, const struct head *resp)
{
    struct head same = *resp;

    same.status = 304;
    same.content_length = -1;
    pass_answer(r, &same, -1);
}

void pass_adopt(struct request *r, const struct head *resp, int64_t length, struct upcall *call)
{
    struct pass *p = pass_create(r);
    enum cond_result c = cond_check(&r->x->req, head_value(resp, HDR_ETAG), date_parse(head_value(resp, HDR_LAST_MODIFIED)));

    if (!p || c != COND_PASS) {
        upcall_cancel(call);
        if (!p)
            request_fail(r, ERR_OVERLOAD);
        else if (c == COND_FAILED)
            request_fail(r, ERR_PRECONDITION);
        else
            adopt_not_modified(r, resp);
        return;
    }
    relay_set_call(p->relay, call);
    upcall_retarget(call, &relay_events, p->relay);
    pass_answer(r, resp, length);
}

void pass_destroy(struct pass *p)
{
    struct request *r = p->request;

    upcall_cancel(p->call);
    pass_lost(r); /* the client left before the origin's last word */
    r->origin_bytes += relay_received(p->relay);
    relay_destroy(p->relay);
}
