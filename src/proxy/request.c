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
#define REQUEST_COST 24576u

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

const struct conf *request_conf(const struct request *r) { return r->conf; }

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
    uint64_t age_s = m->initial_age_s + (now > m->received_ms ? (now - m->received_ms) / 1000 : 0);
    const struct cache_request *q = &r->asked;

    if (m->validated_ns >= r->x->begin_ns) return true;
    if (m->no_cache || q->no_cache) return false;
    if (q->max_age_s >= 0 && age_s > (uint64_t)q->max_age_s) return false;
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
        request_fail(r, ERR_FIRST_BYTE_TIMEOUT);
        return;
    }
    if (!object_validate_begin(r->object)) {
        r->collapsed = true;
        r->fwd = "stale";
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

static void request_found(struct request *r, bool created)
{
    enum object_state state = object_state(r->object);

    if (created) {
        if (r->asked.only_if_cached) {
            object_fail(r->object, NULL);
            request_fail(r, ERR_FIRST_BYTE_TIMEOUT);
            return;
        }
        request_lead(r, DISCOVER, r->object, NULL);
    } else if (state == OBJECT_NEW) {
        r->collapsed = true;
        r->result = RESULT_MISS;
        stat_add(&r->worker->stats.per_cache_coalesced[r->cache_index], 1);
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
        if (request_may_use(r, repr_of(r->meta)))
            serve_object(r);
        else
            request_validate(r);
    } else {
        request_lookup(r);
    }
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

/* What this request waited for has come to something. */
static void request_woken(void *arg)
{
    struct request *r = arg;

    if (r->responded) return;
    if (r->failed) {
        respond_failure(r, repr_of(r->failed));
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
    case OBJECT_DEAD: {
        struct meta *failure = object_failure(r->object);
        if (failure && !(repr_of(failure)->head_only && !r->head_only)) {
            respond_failure(r, repr_of(failure));
            meta_unref(failure);
            return;
        }
        meta_unref(failure);
        request_lookup(r);
        return;
    }
    case OBJECT_READY: {
        struct meta *m = object_meta(r->object);
        bool mine = repr_matches(&r->x->req, m) && (object_indexed(r->object) || r->leader) &&
                    repr_of(m)->validated_ns >= r->x->begin_ns;
        meta_unref(m);
        if (mine) {
            if (r->collapsed && r->result == RESULT_NONE && r->fwd) r->result = RESULT_REVALIDATED;
            request_serve(r);
        } else {
            request_lookup(r);
        }
        return;
    }
    default: request_lookup(r);
    }
}

/* The object changed before any byte of it was sent: ask for the new one. */
void request_restart(struct request *r)
{
    fetch_leave(&r->fetch);
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

/* Objects are the same whichever way their bucket was addressed. */
static enum err request_make_key(struct request *r)
{
    const char *origin = r->conf->origins[r->origin_index].name;
    bool s3 = r->conf->origins[r->origin_index].type == ORIGIN_S3;
    size_t n = strlen(origin) + 1, path = s3 ? r->s3.address.bucket.n + r->s3.address.key.n + 2 : r->target.path.n;
    char *p = pool_alloc(r->x->pool, n + path), *at = p;

    if (!p) return ERR_NOMEM;
    memcpy(at, origin, n);
    at += n;
    if (s3) {
        *at++ = '/';
        if (r->s3.address.bucket.n) memcpy(at, r->s3.address.bucket.p, r->s3.address.bucket.n);
        at += r->s3.address.bucket.n;
        if (r->s3.address.key.n) {
            *at++ = '/';
            memcpy(at, r->s3.address.key.p, r->s3.address.key.n);
            at += r->s3.address.key.n;
        }
    } else {
        memcpy(at, r->target.path.p, r->target.path.n);
        at += r->target.path.n;
    }
    r->key.base = str_make(p, (size_t)(at - p));
    r->key.variant = s3 ? r->s3.key_query : r->target.query;
    return ERR_OK;
}

static enum err request_classify(struct request *r)
{
    const struct route_conf *rt = r->route;
    const struct head *h = &r->x->req;

    if (r->conf->origins[r->origin_index].type != ORIGIN_HTTP)
        return op_classify(h, r->host, r->target.path, r->target.query, (const char *const *)rt->base_domains,
                           rt->nbase_domains, r->x->pool, &r->s3);
    address_from_request((struct str){NULL, 0}, r->target.path, NULL, 0, &r->s3.address);
    bool get = h->method == METHOD_GET, head = h->method == METHOD_HEAD;
    r->s3.op = get ? OP_GET_OBJECT : head ? OP_HEAD_OBJECT : h->method == METHOD_OPTIONS ? OP_OTHER : OP_WRITE_OBJECT;
    r->s3.cacheable = r->s3.whole_object = get || head;
    return ERR_OK;
}

static void request_go(struct request *r)
{
    if (r->handler) {
        modapi_handler(r);
        return;
    }
    bool cached = r->cache && r->cacheable && !r->x->req_body.ops;
    if (!cached) {
        pass_start(r);
        return;
    }
    r->waiter = waiter_create(r->worker->mailbox, request_woken, r);
    if (!r->waiter) {
        request_fail(r, ERR_NOMEM);
        return;
    }
    cache_request_parse(&r->x->req, &r->asked);
    r->range = range_parse(head_value(&r->x->req, HDR_RANGE));
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
    authority = r->target.authority.n ? r->target.authority : head_value(h, HDR_HOST);
    if (authority.n && !authority_parse(authority, &r->host, &port)) return ERR_BAD_REQUEST;
    r->route = route_find(r->server, r->host, r->target.path);
    if (!r->route) return ERR_NOT_FOUND;
    e = request_method_error(r);
    if (e == ERR_OK && !route_allows(r->route, r->x->peer)) e = ERR_ACCESS_DENIED;
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
    const struct listener_ref *ref = h1_exchange_listener_data(x);
    struct request *r = pool_zalloc(x->pool, sizeof *r);

    if (!r) return NULL;
    r->magic = REQUEST_MAGIC;
    r->x = x;
    r->worker = ref->worker;
    r->server = ref->server;
    r->conf = conf_ref(r->worker->proxy->conf);
    r->origin_index = r->cache_index = -1;
    r->head_only = x->req.method == METHOD_HEAD;
    r->fetch.request = r;
    list_init(&r->fetch.parts);
    timer_init(&r->timer, r->worker->loop, request_timer);
    request_identify(r);
    return r;
}

static void request_begin(struct exchange *x)
{
    struct request *r = request_create(x);

    x->handler_data = r;
    if (!r) {
        exchange_reset(x);
        return;
    }
    struct worker_stats *s = &r->worker->stats;
    stat_add(&s->requests, 1);
    stat_add(&s->in_flight, 1);
    stat_add(&s->methods[x->req.method], 1);
    struct proxy *p = r->worker->proxy;
    const struct listener_ref *ref = h1_exchange_listener_data(x);
    if (ref->over_limit || !proxy_account(p, REQUEST_COST)) {
        stat_add(&s->shed, 1);
        x->close_after = true;
        request_fail(r, ERR_OVERLOAD);
        return;
    }
    r->accounted_bytes += REQUEST_COST;
    enum err e = request_route(r);
    if (e != ERR_OK) {
        request_fail(r, e);
        return;
    }
    enum s3p_result a = modapi_access(r);
    if (r->responded) return;
    if (a != S3P_OK)
        request_fail(r, a == S3P_DENY ? ERR_ACCESS_DENIED : ERR_INTERNAL);
    else
        request_go(r);
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
    uint64_t saved = x->sent_bytes > r->origin_bytes && r->cache_index >= 0 ? x->sent_bytes - r->origin_bytes : 0;
    stat_add(&s->saved_bytes, saved);
    if (x->first_byte_ns) hist_add(&s->first_byte_us, (x->first_byte_ns - x->begin_ns) / 1000);
    hist_add(&s->total_us, (now - x->begin_ns) / 1000);
    if (r->origin_index >= 0 && r->s3.address.bucket.n && r->status >= 200 && r->status < 300)
        bucket_stats_add(r->worker->buckets, r->s3.address.bucket, r->s3.op == OP_WRITE_OBJECT || r->s3.op == OP_WRITE_PART,
                         x->sent_bytes, saved);
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
    if (r->deliver)
        deliver_destroy(r->deliver);
    else if (r->leader && r->object && object_state(r->object) == OBJECT_READY)
        object_settle(r->object, 0, UINT64_MAX); /* its first part came, and it left before it could read */
    r->deliver = NULL;
    if (r->pass) pass_destroy(r->pass);
    request_count(r);
    modapi_log(r);
    strbuf_free(&r->body_text);
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
