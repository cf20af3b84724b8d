/* request.c - a request's way through the phases: target, route, access, then a module's handler, the cached path, or the
 * way past the cache.
 *
 * The cached path is a loop around request_lookup: find the object or become its leader, wait for what others are asking,
 * look again. It ends in serve_object, a failure, or (not storable, no ranges) a private object or plain relay.
 * A request that waited for an answer which arrived after it did may use it whatever its freshness: one question to the
 * origin is enough for all who stood in line. */
#include "http/cond.h"
#include "base/log.h"
#include "proxy/proxy.h"

#define MAX_LOOKUPS 32
#define MAX_RESTARTS 3
/* What a request takes besides the buffer for its head: fields, pool, response head. */
#define REQUEST_COST 16384u

static void request_woken(void *arg);

static void request_timer(struct timer *t)
{
    struct request *r = container_of(t, struct request, timer);
    void (*fn)(struct request *) = r->timer_fn;
    r->timer_fn = NULL;
    if (fn) fn(r);
}

void request_wait_timer(struct request *r, uint64_t ms, void (*fn)(struct request *r))
{
    r->timer_fn = fn;
    timer_set(&r->timer, ms);
}

bool request_account(struct request *r, uint64_t bytes)
{
    if (!proxy_account(r->worker->proxy, bytes)) return false;
    r->accounted_bytes += bytes;
    return true;
}

/* ---- the cached path */

static void request_forget_object(struct request *r)
{
    object_unref(r->object);
    meta_unref(r->meta);
    r->object = NULL;
    r->meta = NULL;
}

static void request_serve(struct request *r)
{
    meta_unref(r->meta);
    r->meta = object_meta(r->object);
    serve_object(r);
}

void request_not_cached(struct request *r)
{
    r->result = RESULT_MISS;
    r->fwd = ""; /* a miss that went nowhere */
    respond_error(r, 504, "GatewayTimeout", "Only a stored response was asked for, and there is none.");
}

static bool request_wait_object(struct request *r)
{
    return object_wait(r->object, r->waiter);
}

static void request_lead(struct request *r, enum discovery_kind kind, struct object *o, struct object *old)
{
    r->leader = true;
    if (!r->fwd) r->fwd = kind == VALIDATE ? "stale" : "uri-miss";
    if (kind == DISCOVER && r->result == RESULT_NONE) r->result = RESULT_MISS;
    enum err e = discovery_start(r, kind, o, old);
    if (e != ERR_OK) {
        if (kind == VALIDATE) object_validate_end(old, NULL);
        if (o && object_state(o) == OBJECT_NEW) object_fail(o, NULL);
        request_fail(r, e);
        return;
    }
    if (!request_wait_object(r)) request_woken(r); /* over before it began */
}

/* Outside the index: nobody else may have what comes. */
static void request_private(struct request *r, const char *why)
{
    struct object *o;

    r->fwd = why;
    r->result = RESULT_BYPASS;
    request_forget_object(r);
    if (object_create_private(r->cache, &r->key, &o) != ERR_OK) {
        request_fail(r, ERR_NOMEM);
        return;
    }
    r->object = o;
    request_lead(r, DISCOVER, o, NULL);
}

/* Fresh enough for this request (RFC 9111 sections 4.2, 5.2.1)? */
static bool request_may_use(const struct request *r, const struct repr *m)
{
    uint64_t now = loop_now_ms(r->worker->loop);
    uint64_t age_ms = m->initial_age_s * 1000 + (now > m->received_ms ? now - m->received_ms : 0);
    const struct cache_request *q = &r->asked;

    if (m->validated_ns >= r->x->begin_ns) return true;
    if (m->no_cache || q->no_cache || r->refresh) return false;
    if (q->max_age_s >= 0 && age_ms > (uint64_t)q->max_age_s * 1000) return false;
    if (now < m->fresh_until_ms) {
        return q->min_fresh_s < 0 || m->fresh_until_ms - now >= (uint64_t)q->min_fresh_s * 1000;
    }
    if (m->must_revalidate || q->max_stale_s < 0) return false;
    return q->max_stale_s == INT64_MAX || (now - m->fresh_until_ms) / 1000 <= (uint64_t)q->max_stale_s;
}

static void request_validate(struct request *r)
{
    struct object *successor;

    if (r->asked.only_if_cached) {
        request_not_cached(r);
        return;
    }
    r->fwd = loop_now_ms(r->worker->loop) < repr_of(r->meta)->fresh_until_ms ? "request" : "stale";
    if (!object_validate_begin(r->object)) {
        r->collapsed = true;
        if (!r->x->inner) stat_add(&r->worker->stats.per_cache_coalesced[r->cache_index], 1);
        if (!request_wait_object(r)) request_lookup(r);
        return;
    }
    if (object_create_successor(r->object, &successor) != ERR_OK) {
        object_validate_end(r->object, NULL);
        request_fail(r, ERR_NOMEM);
        return;
    }
    request_lead(r, VALIDATE, successor, r->object);
    object_unref(successor);
}

/* What the cache did, where neither the discovery nor the bytes that are there tell: an object that came while this
 * request stood in line is no hit, and a stale one is served as such. */
static void request_label(struct request *r, const struct repr *m)
{
    if (r->result != RESULT_NONE) return;
    if (m->stale)
        r->result = RESULT_STALE;
    else if (r->leader || r->collapsed)
        r->result = RESULT_MISS;
    else if (loop_now_ms(r->worker->loop) >= m->fresh_until_ms && m->validated_ns < r->x->begin_ns)
        r->result = RESULT_STALE;
}

static void request_found(struct request *r, bool created)
{
    enum object_state state = object_state(r->object);

    if (created) {
        request_lead(r, DISCOVER, r->object, NULL);
    } else if (state == OBJECT_NEW) {
        r->collapsed = true;
        r->result = RESULT_MISS;
        if (!r->x->inner) stat_add(&r->worker->stats.per_cache_coalesced[r->cache_index], 1);
        if (!request_wait_object(r)) request_lookup(r);
    } else if (state == OBJECT_UNCACHEABLE) {
        if (object_uncacheable_expired(r->object, loop_now_ms(r->worker->loop))) {
            object_drop(r->object);
            request_lookup(r);
        } else {
            request_private(r, "uri-miss");
        }
    } else if (state == OBJECT_READY) {
        meta_unref(r->meta);
        r->meta = object_meta(r->object);
        if (request_may_use(r, repr_of(r->meta))) {
            request_label(r, repr_of(r->meta));
            serve_object(r);
        } else {
            request_validate(r);
        }
    } else {
        request_lookup(r);
    }
}

/* What is being asked for by others is not stored either. */
static void request_lookup_only(struct request *r)
{
    r->object = cache_find(r->cache, &r->key, repr_matches, &r->x->req);
    if (r->object && object_state(r->object) == OBJECT_READY)
        request_found(r, false);
    else
        request_not_cached(r);
}

void request_lookup(struct request *r)
{
    bool created;
    struct object *o;

    request_forget_object(r);
    if (++r->lookups > MAX_LOOKUPS) {
        request_fail(r, ERR_UNAVAILABLE);
        return;
    }
    if (r->asked.only_if_cached) {
        request_lookup_only(r);
        return;
    }
    if (r->asked.no_store) {
        request_private(r, "request");
        return;
    }
    if (cache_find_or_create(r->cache, &r->key, repr_matches, &r->x->req, &o, &created) != ERR_OK) {
        request_fail(r, ERR_NOMEM);
        return;
    }
    r->object = o;
    request_found(r, created);
}

static bool is_personal(const struct request *r)
{
    return r->conf->origins[r->origin_index].type == ORIGIN_HTTP &&
           (head_find(&r->x->req, HDR_AUTHORIZATION) || head_find_name(&r->x->req, STR_LIT("cookie")));
}

/* May those who stood in line have the leader's answer? From s3 and file everybody gets the same. Another origin may have
 * looked at who asked: then only for what is no answer to a person. */
static bool failure_is_for_all(const struct request *r, const struct repr *f)
{
    if (f->status == 0 || r->conf->origins[r->origin_index].type != ORIGIN_HTTP) return true;
    bool plain = f->status == 404 || f->status == 410 || f->status == 416 || f->status == 429 || f->status >= 500;
    return plain && !f->personal && !is_personal(r);
}

/* What was learnt by HEAD has no document to show: that is had by asking as the client did. */
static void request_tell_failure(struct request *r, const struct repr *f)
{
    if (r->head_only || !f->head_only)
        respond_failure(r, f);
    else
        pass_start(r);
}

static void request_woken_dead(struct request *r)
{
    struct meta *failure = object_failure(r->object);

    if (!failure)
        request_lookup(r);
    else if (!r->leader && !failure_is_for_all(r, repr_of(failure)))
        request_private(r, "miss");
    else if (!r->leader && !r->head_only && repr_of(failure)->head_only && r->range.kind != RANGE_SUFFIX)
        request_lookup(r); /* would not ask by HEAD */
    else
        request_tell_failure(r, repr_of(failure));
    meta_unref(failure);
}

/* Somebody else asked whether it had changed, and it had not: that is no new fetch. */
static void request_refresh_again(struct request *r)
{
    if (++r->lookups > MAX_LOOKUPS) {
        request_fail(r, ERR_UNAVAILABLE);
        return;
    }
    meta_unref(r->meta);
    r->meta = object_meta(r->object);
    r->collapsed = false;
    request_validate(r);
}

static void request_woken_ready(struct request *r)
{
    struct meta *m = object_meta(r->object);
    const struct repr *p = repr_of(m);
    bool indexed = object_indexed(r->object), in_line = r->collapsed && r->fwd; /* for a validation, not a discovery */

    if (r->refresh && in_line && indexed && !r->leader && m != r->meta) {
        meta_unref(m);
        request_refresh_again(r);
        return;
    }
    bool replaced = r->refresh && !indexed && m == r->meta; /* however lately it was validated */

    if (!replaced && repr_matches(&r->x->req, m) && (indexed || r->leader) && p->validated_ns >= r->x->begin_ns) {
        if (in_line && r->result == RESULT_NONE) r->result = p->stale ? RESULT_STALE : RESULT_REVALIDATED;
        request_serve(r);
    } else if (in_line && indexed && m == r->meta && !request_may_use(r, p)) {
        request_private(r, r->fwd); /* it came to nothing; to ask in turn would make everybody wait for all before */
    } else {
        request_lookup(r);
    }
    meta_unref(m);
}

/* What this request waited for has come to something. */
static void request_woken(void *arg)
{
    struct request *r = arg;

    if (r->responded) return;
    if (r->failed) {
        request_tell_failure(r, repr_of(r->failed));
        return;
    }
    if (r->handed) {
        object_unref(r->object);
        r->object = r->handed;
        r->handed = NULL;
        r->result = RESULT_BYPASS;
        request_serve(r);
        return;
    }
    switch (object_state(r->object)) {
    case OBJECT_DEAD: request_woken_dead(r); return;
    case OBJECT_READY: request_woken_ready(r); return;
    default: request_lookup(r);
    }
}

/* The object changed before any byte of it was sent: ask for the new one. */
void request_restart(struct request *r)
{
    fetch_leave(&r->fetch);
    r->fetch.error = ERR_OK;
    if (++r->restarts > MAX_RESTARTS) {
        request_fail(r, ERR_CHANGED);
        return;
    }
    stat_add(&r->worker->stats.restarts, 1);
    r->result = RESULT_NONE;
    r->nhdrs = 0;
    if (r->object) object_drop(r->object);
    request_lookup(r);
}

/* ---- the way in */

/* The bucket of a virtual-hosted request comes from a host name, and those have no case. */
static enum err request_host_bucket(struct request *r)
{
    struct str b = r->s3.address.bucket, path = r->target.path;

    if (b.n == 0 || (b.p >= path.p && b.p < path.p + path.n)) return ERR_OK;
    char *p = pool_alloc(r->x->pool, b.n);
    if (!p) return ERR_NOMEM;
    for (size_t i = 0; i < b.n; i++) p[i] = b.p[i] >= 'A' && b.p[i] <= 'Z' ? (char)(b.p[i] | 0x20) : b.p[i];
    r->host_bucket = r->s3.address.bucket = str_make(p, b.n);
    return ERR_OK;
}

/* "Only if it is that account's bucket": the answer is for this client alone, and only the origin knows it. */
static bool asks_for_owner(const struct head *h)
{
    for (unsigned i = 0; i < h->nhdrs; i++)
        if (h->hdrs[i].id == HDR_OTHER && str_eq_ci(h->hdrs[i].name, STR_LIT("x-amz-expected-bucket-owner"))) return true;
    return false;
}

static enum err request_classify(struct request *r)
{
    const struct route_conf *rt = r->route;
    const struct head *h = &r->x->req;

    if (r->conf->origins[r->origin_index].type != ORIGIN_HTTP) {
        enum err e = op_classify(h, r->host, r->target.path, r->target.query, (const char *const *)rt->base_domains,
                                 rt->nbase_domains, r->x->pool, &r->s3);
        if (e == ERR_OK && asks_for_owner(h)) r->s3.cacheable = false;
        return e == ERR_OK ? request_host_bucket(r) : e;
    }
    address_from_request((struct str){NULL, 0}, r->target.path, NULL, 0, &r->s3.address);
    bool get = h->method == METHOD_GET, head = h->method == METHOD_HEAD;
    r->s3.op = get ? OP_GET_OBJECT : head ? OP_HEAD_OBJECT : h->method == METHOD_OPTIONS ? OP_OTHER : OP_WRITE_OBJECT;
    r->s3.cacheable = r->s3.whole_object = get || head;
    return ERR_OK;
}

/* Several fields make a list, and several ranges are answered with the whole. */
static struct range request_range(const struct head *h)
{
    const struct hdr *only = NULL;

    for (unsigned i = 0; i < h->nhdrs; i++) {
        if (h->hdrs[i].id != HDR_RANGE) continue;
        if (only) return (struct range){.kind = RANGE_NONE};
        only = &h->hdrs[i];
    }
    return range_parse(only ? only->value : (struct str){NULL, 0});
}

static void request_go(struct request *r)
{
    if (r->handler) {
        modapi_handler(r);
        return;
    }
    bool cached = r->cache && r->cacheable && !r->x->req_body.ops && !r->bypass;
    if (!cached) {
        if (r->bypass) r->fwd = "bypass";
        pass_start(r);
        return;
    }
    r->waiter = waiter_create(r->worker->mailbox, request_woken, r);
    if (!r->waiter) {
        request_fail(r, ERR_NOMEM);
        return;
    }
    cache_request_parse(&r->x->req, &r->asked);
    r->range = request_range(&r->x->req);
    request_lookup(r);
}

static enum err request_method_error(const struct request *r)
{
    switch (r->x->req.method) {
    case METHOD_CONNECT:
    case METHOD_TRACE: return ERR_METHOD_NOT_ALLOWED;
    case METHOD_OTHER: return ERR_NOT_IMPLEMENTED;
    default: return route_allows_method(r->route, r->x->req.method_text) ? ERR_OK : ERR_METHOD_NOT_ALLOWED;
    }
}

static enum err request_route(struct request *r)
{
    const struct head *h = &r->x->req;
    struct str authority;
    unsigned port;
    enum err e = target_parse(h->target, &r->target);

    if (e != ERR_OK) return h->method == METHOD_CONNECT ? ERR_METHOD_NOT_ALLOWED : e;
    if (r->target.path.p[0] != '/' && h->method != METHOD_OPTIONS) return ERR_BAD_URI;
    authority = r->target.authority.n ? r->target.authority : head_value(h, HDR_HOST);
    if (authority.n && !authority_parse(authority, &r->host, &port)) return ERR_BAD_REQUEST;
    r->route = route_find(r->server, r->host, r->target.path);
    if (!r->route) return ERR_NOT_FOUND;
    if (!route_allows(r->route, r->x->peer)) return ERR_ACCESS_DENIED;
    e = request_method_error(r);
    if (e != ERR_OK) return e;
    if (r->route->handler) {
        r->handler = modules_handler(r->worker->proxy->modules, r->route->handler);
        return r->handler ? ERR_OK : ERR_NOT_FOUND;
    }
    r->origin_index = r->route->origin;
    r->cache_index = r->route->cache;
    if (r->cache_index >= 0) r->cache = r->worker->proxy->caches[r->cache_index];
    e = request_classify(r);
    if (e == ERR_OK) e = request_make_key(r);
    r->cacheable = e == ERR_OK && r->s3.cacheable && r->s3.whole_object &&
                   (r->s3.op == OP_GET_OBJECT || r->s3.op == OP_HEAD_OBJECT);
    return e;
}

/* What the client asks of the cache with a field of our own. Only where the route lets it: a bypass, or a new fetch of what
 * is there, is the origin's cost. */
static bool request_cache_header(struct request *r)
{
    const struct head *q = &r->x->req;
    const struct hdr *h = r->handler ? NULL : head_find(q, HDR_S3DLIO_CACHE);
    enum cache_header may = r->route->cache_header;
    unsigned fields = 0;

    if (!h) return true;
    for (unsigned i = 0; i < q->nhdrs; i++) fields += q->hdrs[i].id == HDR_S3DLIO_CACHE;
    r->bypass = str_eq_ci(h->value, STR_LIT("bypass"));
    r->refresh = str_eq_ci(h->value, STR_LIT("refresh"));
    if (fields > 1 || (!r->bypass && !r->refresh)) {
        r->error = ERR_BAD_REQUEST;
        respond_error(r, 400, "InvalidArgument", "Expected S3dlio-Cache to be bypass or refresh.");
        return false;
    }
    if (may == CACHE_HEADER_ALL || may == (r->bypass ? CACHE_HEADER_BYPASS : CACHE_HEADER_REFRESH)) return true;
    r->error = ERR_ACCESS_DENIED;
    respond_error(r, 403, "AccessDenied", "This route does not let clients ask for that with S3dlio-Cache.");
    return false;
}

static void request_identify(struct request *r)
{
    static const char hex[] = "0123456789ABCDEF";
    r->id = random_u64();
    for (unsigned i = 0; i < 16; i++) r->id_text[i] = hex[(r->id >> (60 - 4 * i)) & 15];
    uint64_t since = clock_ns() - r->x->begin_ns;
    r->start_unix_ns = (int64_t)(wallclock_ms() * 1000000 - since);
}

static struct request *request_create(struct exchange *x)
{
    const struct listener_ref *ref = x->listener_data;
    struct request *r = pool_zalloc(x->pool, sizeof *r);

    if (!r) return NULL;
    r->magic = REQUEST_MAGIC;
    r->x = x;
    r->worker = ref->worker;
    r->server = ref->server;
    r->conf = conf_ref(r->worker->proxy->conf);
    r->origin_index = r->cache_index = -1;
    r->head_only = x->req.method == METHOD_HEAD;
    fetch_init(&r->fetch, r);
    timer_init(&r->timer, r->worker->loop, request_timer);
    request_identify(r);
    return r;
}

/* RFC 9110 section 15.5.6 wants to know what would be allowed. */
static void request_refuse(struct request *r, enum err e)
{
    static const char *const all[] = {"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"};
    bool some = r->route && r->route->nmethods;
    const char *const *names = some ? (const char *const *)r->route->methods : all;
    struct strbuf b;

    if (e == ERR_METHOD_NOT_ALLOWED) {
        strbuf_init(&b, 4096);
        for (unsigned i = 0; i < (some ? r->route->nmethods : ARRAY_LEN(all)); i++) {
            if (i) strbuf_z(&b, ", ");
            strbuf_z(&b, names[i]);
        }
        struct str list = pool_str(r->x->pool, strbuf_get(&b));
        if (!b.failed && list.p) respond_header(r, STR_LIT("Allow"), list);
        strbuf_free(&b);
    }
    request_fail(r, e);
}

static void request_count_begin(struct request *r)
{
    struct worker_stats *s = &r->worker->stats;
    stat_add(&s->requests, 1);
    stat_add(&s->in_flight, 1);
    stat_add(&s->methods[r->x->req.method], 1);
}

static void request_begin(struct exchange *x)
{
    struct request *r = request_create(x);

    x->handler_data = r;
    if (!r) {
        exchange_reset(x);
        return;
    }
    if (!x->inner) request_count_begin(r);
    const struct listener_ref *ref = x->listener_data;
    if (ref->over_limit || !request_account(r, REQUEST_COST + r->conf->head_bytes)) {
        x->close_after = true;
        request_fail(r, ERR_OVERLOAD);
        return;
    }
    enum err e = request_route(r);
    if (e != ERR_OK) {
        request_refuse(r, e);
        return;
    }
    if (source_loops(r->worker->proxy, &x->req)) {
        r->error = ERR_BAD_REQUEST;
        respond_error(r, 508, "InvalidRequest", "The request came here from here: an origin leads back to this proxy.");
        return;
    }
    enum s3p_result a = modapi_access(r);
    if (r->responded) return;
    if (a == S3P_OK && !request_cache_header(r)) return;
    if (a != S3P_OK)
        request_fail(r, a == S3P_DENY ? ERR_ACCESS_DENIED : ERR_INTERNAL);
    else
        request_go(r);
}

/* Object data that came: whole objects, parts, forms. */
static bool is_put(const struct request *r)
{
    bool method = r->x->req.method == METHOD_PUT || r->x->req.method == METHOD_POST;
    return method && (r->s3.op == OP_WRITE_OBJECT || r->s3.op == OP_WRITE_PART);
}

static void request_count(struct request *r)
{
    struct worker_stats *s = &r->worker->stats;
    struct exchange *x = r->x;
    uint64_t now = clock_ns();

    stat_sub(&s->in_flight, 1);
    stat_add(&s->statuses[r->status / 100 < 6 ? r->status / 100 : 0], 1);
    stat_add(&s->results[r->result], 1);
    stat_add(&s->sent_bytes, x->sent_bytes);
    stat_add(&s->received_bytes, x->received_bytes);
    bool good = r->status >= 200 && r->status < 300;
    uint64_t saved = good && r->cache_index >= 0 && x->sent_bytes > r->origin_bytes ? x->sent_bytes - r->origin_bytes : 0;
    stat_add(&s->saved_bytes, saved);
    if (x->first_byte_ns) hist_add(&s->first_byte_us, (x->first_byte_ns - x->begin_ns) / 1000);
    hist_add(&s->total_us, (now - x->begin_ns) / 1000);
    if (r->origin_index >= 0 && r->s3.address.bucket.n && r->status)
        bucket_stats_add(r->worker->buckets, r->s3.address.bucket, good, r->s3.op == OP_GET_OBJECT, is_put(r), x->sent_bytes,
                         saved);
}

static void request_end(struct exchange *x, enum err why)
{
    struct request *r = x->handler_data;

    if (!r) return;
    CHECK_OBJ(r, REQUEST_MAGIC);
    timer_stop(&r->timer);
    if (why != ERR_OK && r->error == ERR_OK) r->error = why;
    if (r->waiter) waiter_destroy(r->waiter);
    if (r->discovery) discovery_leader_left(r->discovery);
    fetch_leave(&r->fetch);
    if (r->deliver) deliver_destroy(r->deliver);
    r->deliver = NULL;
    if (r->pass) pass_destroy(r->pass);
    modapi_end(r);
    if (!x->inner) request_count(r);
    r->end_ns = clock_ns();
    if (!x->inner) modapi_log(r);
    strbuf_free(&r->body_text);
    strbuf_free(&r->answer_text);
    object_unref(r->object);
    object_unref(r->handed);
    meta_unref(r->meta);
    meta_unref(r->failed);
    source_unref(r->source);
    proxy_unaccount(r->worker->proxy, r->accounted_bytes);
    conf_unref(r->conf);
    r->magic = 0;
}

const struct exchange_handler request_handler = {request_begin, request_end};
