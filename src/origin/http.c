/* http.c - calls over pooled HTTP/1.1 connections: the origin type http, and the machinery of s3.
 *
 *   a call is | holds            | goes on by
 *   WAITING   | wait queued      | wait.ready -> SENT; wait.failed, operation timeout -> its end
 *   SENT      | conn             | the events of h1_client; the free retry leads back to WAITING
 *   FAILING   | task scheduled   | its end: failures found in submit are told from the loop
 *   ENDING    | nothing          | freed when the receiver's end() returns; cancel is a no-op
 *
 * Memory: call->mem holds the request as it is written and lives as long as the call. The receiver may cancel inside any
 * event, which frees the call: nothing touches it after having called out. */
#include "origin/http.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define CALL_MAGIC 0x6863616cu
#define CALL_MEMORY_BYTES ((size_t)1 << 20)

/* ---- ends */

static void count_error(struct origin_stats *st, enum err e)
{
    switch (e) {
    case ERR_FIRST_BYTE_TIMEOUT:
    case ERR_STALL_TIMEOUT:
    case ERR_OPERATION_TIMEOUT:
    case ERR_OVERLOAD: stat_add(&st->errors_timeout, 1); break;
    case ERR_PROTOCOL: stat_add(&st->errors_protocol, 1); break;
    case ERR_CLOSED:
    case ERR_RESET:
    case ERR_TRUNCATED:
    case ERR_IO: stat_add(&st->errors_reset, 1); break;
    default: /* connecting has been counted by the pool; the rest is not the origin's doing */ break;
    }
}

/* With the head the caller's request may go away; sending has stopped before. */
static void body_let_go(struct http_call *call)
{
    struct body *real = call->r.body;
    call->r.body = NULL;
    if (!real || real->notify_arg != call) return;
    real->notify = NULL;
    real->notify_arg = NULL;
}

static void call_free(struct http_call *call)
{
    body_let_go(call);
    pool_destroy(call->mem);
    call->magic = 0;
    free(call);
}

static void call_unlink(struct http_call *call)
{
    list_remove(&call->link);
    timer_stop(&call->operation);
    task_cancel(&call->failing);
    stat_sub(&call->base.worker->stats.in_flight, 1);
}

static void call_finish(struct http_call *call, enum err e)
{
    call_unlink(call);
    count_error(&call->base.worker->stats, e);
    call->ending = true;
    call->ev.end(call->arg, e);
    call_free(call);
}

static void call_fail_later(struct http_call *call, enum err e)
{
    call->why = e;
    task_schedule(&call->failing);
}

static void call_failing(struct task *t)
{
    struct http_call *call = container_of(t, struct http_call, failing);
    CHECK_OBJ(call, CALL_MAGIC);
    call_finish(call, call->why);
}

/* ---- the request body */

static enum err body_pull_counted(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct http_call *call = container_of(b, struct http_call, body);
    if (!call->r.body || !call->r.body->ops) return ERR_INCOMPLETE_BODY; /* the caller has closed it under us */
    enum err e = body_pull(call->r.body, out, max, max_bytes, n);
    if (e != ERR_AGAIN) call->body_touched = true;
    for (unsigned i = 0; e == ERR_OK && i < *n; i++) stat_add(&call->base.worker->stats.bytes_sent, out[i].len);
    return e;
}

/* One that nothing was taken from can still be sent: by the free retry, or by the caller's. */
static void body_close_touched(struct body *b)
{
    struct http_call *call = container_of(b, struct http_call, body);
    if (call->body_touched && call->r.body) body_close(call->r.body);
}

static const struct body_ops counted_ops = {.pull = body_pull_counted, .close = body_close_touched};

static void body_more(void *arg)
{
    struct http_call *call = arg;
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->body.ops) body_notify(&call->body);
}

static void body_set_up(struct http_call *call)
{
    if (!call->r.body) return;
    call->body = (struct body){.ops = &counted_ops, .length = call->r.body->length};
    call->r.body->notify = body_more;
    call->r.body->notify_arg = call;
    call->creq.body = &call->body;
}

/* ---- events of the connection */

static void on_head(void *arg, const struct head *resp, int64_t body_length)
{
    struct http_call *call = arg;
    struct origin_stats *st = &call->base.worker->stats;
    CHECK_OBJ(call, CALL_MAGIC);
    hist_add(&st->first_byte_us, (clock_ns() - call->sent_ns) / 1000);
    if (resp->status >= 500) stat_add(&st->status_5xx, 1);
    if (resp->status == 503 || resp->status == 429) stat_add(&st->slow_down, 1);
    if (call->hw->shared->learn) call->hw->shared->learn(call->hw->shared, resp);
    body_let_go(call);
    call->ev.head(call->arg, resp, body_length);
}

static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    struct http_call *call = arg;
    return call->ev.space(call->arg, iov, max);
}

static void on_filled(void *arg, size_t n)
{
    struct http_call *call = arg;
    stat_add(&call->base.worker->stats.bytes, n);
    call->ev.filled(call->arg, n);
}

static void call_start(struct http_call *call);

/* RFC 9110 section 9.2.2: what may be repeated without asking. */
static bool is_idempotent(enum method m)
{
    return m == METHOD_GET || m == METHOD_HEAD || m == METHOD_PUT || m == METHOD_DELETE || m == METHOD_OPTIONS ||
           m == METHOD_TRACE;
}

static bool may_retry_free(const struct http_call *call, enum err e)
{
    const struct h1_client *h1 = conn_h1(call->conn);
    if (call->retried || !conn_reused(call->conn) || !is_idempotent(call->r.method)) return false;
    if (h1_client_got_bytes(h1) || h1_client_sent_body(h1) || call->body_touched) return false;
    return e == ERR_CLOSED || e == ERR_RESET || e == ERR_TRUNCATED || e == ERR_IO || e == ERR_TLS;
}

static void on_end(void *arg, enum err e)
{
    struct http_call *call = arg;
    CHECK_OBJ(call, CALL_MAGIC);
    bool again = e != ERR_OK && may_retry_free(call, e);
    call->conn = NULL; /* its h1 client tells the pool what becomes of it */
    if (!again) {
        call_finish(call, e);
        return;
    }
    stat_add(&call->base.worker->stats.retries, 1);
    call->retried = true;
    call->wait.fresh = true;
    call_start(call);
}

static const struct client_events call_events = {
    .head = on_head, .space = on_space, .filled = on_filled, .end = on_end};

/* ---- building and sending */

static struct str range_text(struct http_call *call)
{
    return pool_f(call->mem, "bytes=%llu-%llu", (unsigned long long)call->r.first, (unsigned long long)call->r.last);
}

enum err http_build_hdrs(struct http_call *call, unsigned more, struct hdr **end)
{
    const struct origin_request *r = &call->r;
    struct hdr *h = pool_alloc(call->mem, (r->nhdrs + 2 + more) * sizeof *h);
    unsigned n = 0;
    if (!h) return ERR_NOMEM;
    for (unsigned i = 0; i < r->nhdrs; i++) {
        if (r->has_range && r->hdrs[i].id == HDR_RANGE) continue;
        if (r->if_match.n && r->hdrs[i].id == HDR_IF_MATCH) continue;
        h[n++] = r->hdrs[i];
    }
    if (r->has_range) {
        h[n] = (struct hdr){STR_LIT("range"), range_text(call), HDR_RANGE};
        if (!h[n++].value.p) return ERR_NOMEM;
    }
    if (r->if_match.n) h[n++] = (struct hdr){STR_LIT("if-match"), r->if_match, HDR_IF_MATCH};
    call->creq.hdrs = h;
    call->creq.nhdrs = n;
    *end = h + n;
    return ERR_OK;
}

static struct str endpoint_authority(struct http_call *call)
{
    const struct origin_conf *conf = call->base.worker->origin->conf;
    const struct endpoint *ep = &conf->endpoint;
    const char *host = call->hw->shared->host;
    bool v6 = strchr(host, ':') != NULL, usual = ep->port == (ep->https ? 443u : 80u);
    if (conf->host_header) return str_c(conf->host_header);
    if (usual) return pool_f(call->mem, v6 ? "[%s]" : "%s", host);
    return pool_f(call->mem, v6 ? "[%s]:%u" : "%s:%u", host, ep->port);
}

static enum err http_build(struct http_call *call)
{
    const struct origin_request *r = &call->r;
    struct client_request *q = &call->creq;
    struct str prefix = str_c(call->base.worker->origin->conf->endpoint.prefix);
    struct hdr *end;
    q->authority = endpoint_authority(call);
    if (r->path.n && r->path.p[0] != '/') prefix.n = 0; /* OPTIONS * */
    q->target = pool_f(call->mem, STR_FMT STR_FMT "%s" STR_FMT, STR_ARG(prefix), STR_ARG(r->path),
                       r->query.p ? "?" : "", STR_ARG(r->query));
    if (!q->authority.p || !q->target.p) return ERR_NOMEM;
    return http_build_hdrs(call, 0, &end);
}

static void call_send(struct http_call *call, struct conn *c)
{
    const struct origin_request *r = &call->r;
    pool_reset(call->mem);
    call->creq = (struct client_request){.method = r->method_text,
                                         .method_id = r->method,
                                         .body_length = r->body_length,
                                         .send_zero_length = r->send_zero_length,
                                         .expect_continue = r->expect_continue};
    enum err e = call->hw->shared->build(call);
    if (e != ERR_OK) {
        conn_pool_put(call->hw->pool, c);
        call_fail_later(call, e);
        return;
    }
    body_set_up(call);
    call->conn = c;
    call->sent_ns = clock_ns();
    h1_client_send(conn_h1(c), &call->creq, &call_events, call);
}

static void call_start(struct http_call *call)
{
    struct conn *c = conn_pool_get(call->hw->pool, &call->wait);
    if (c) call_send(call, c);
}

static void wait_ready(struct conn_wait *w, struct conn *c)
{
    struct http_call *call = container_of(w, struct http_call, wait);
    CHECK_OBJ(call, CALL_MAGIC);
    call_send(call, c);
}

static void wait_failed(struct conn_wait *w, enum err why)
{
    struct http_call *call = container_of(w, struct http_call, wait);
    CHECK_OBJ(call, CALL_MAGIC);
    call_finish(call, why);
}

/* ---- the caller's side */

static void operation_due(struct timer *t)
{
    struct http_call *call = container_of(t, struct http_call, operation);
    CHECK_OBJ(call, CALL_MAGIC);
    enum err e = ERR_OPERATION_TIMEOUT;
    if (call->conn)
        h1_client_cancel(conn_h1(call->conn));
    else if (call->wait.queued && !conn_wait_connecting(&call->wait))
        e = ERR_OVERLOAD;
    call->conn = NULL;
    conn_pool_withdraw(call->hw->pool, &call->wait);
    call_finish(call, e);
}

enum err http_submit(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                     struct origin_call **out)
{
    struct http_worker *hw = w->priv;
    struct http_call *call = calloc(1, sizeof *call);
    if (!call) return ERR_NOMEM;
    call->mem = pool_create(CALL_MEMORY_BYTES);
    if (!call->mem) {
        free(call);
        return ERR_NOMEM;
    }
    call->base.worker = w;
    call->magic = CALL_MAGIC;
    call->hw = hw;
    call->r = *r;
    call->ev = *ev;
    call->arg = arg;
    conn_wait_init(&call->wait);
    call->wait.ready = wait_ready;
    call->wait.failed = wait_failed;
    timer_init(&call->operation, w->loop, operation_due);
    task_init(&call->failing, w->loop, call_failing);
    list_push_back(&hw->calls, &call->link);
    stat_add(&w->stats.requests, 1);
    stat_add(&w->stats.in_flight, 1);
    timer_set(&call->operation, w->origin->conf->operation_ms);
    *out = &call->base;
    call_start(call);
    return ERR_OK;
}

void http_resume(struct origin_call *c)
{
    struct http_call *call = container_of(c, struct http_call, base);
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->conn) h1_client_resume(conn_h1(call->conn));
}

void http_cancel(struct origin_call *c)
{
    struct http_call *call = container_of(c, struct http_call, base);
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->ending) return; /* from inside its end() */
    call_unlink(call);
    if (call->conn) h1_client_cancel(conn_h1(call->conn));
    conn_pool_withdraw(call->hw->pool, &call->wait);
    call_free(call);
}

/* ---- life */

static void host_without_brackets(const struct endpoint *ep, char *out, size_t n)
{
    size_t len = strlen(ep->host);
    bool brackets = len >= 2 && ep->host[0] == '[' && ep->host[len - 1] == ']';
    snprintf(out, n, "%.*s", (int)(brackets ? len - 2 : len), ep->host + brackets);
}

static enum err tls_open(struct http_origin *ho, const struct origin_conf *conf, char *msg, size_t n)
{
    struct tls_client_options opt = {.ca_file = conf->ca_file, .verify = conf->tls_verify, .alpn = "http/1.1"};
    return conf->endpoint.https ? tls_client_ctx_create(&opt, &ho->tls, msg, n) : ERR_OK;
}

enum err http_open(struct origin *o, struct disk *disk, unsigned nworkers, char *msg, size_t n)
{
    const struct origin_conf *conf = o->conf;
    struct http_origin *ho = calloc(1, sizeof *ho);
    (void)disk;
    if (!ho) {
        snprintf(msg, n, "out of memory");
        return ERR_NOMEM;
    }
    o->priv = ho;
    ho->build = http_build;
    host_without_brackets(&conf->endpoint, ho->host, sizeof ho->host);
    enum err e = tls_open(ho, conf, msg, n);
    if (e != ERR_OK) goto fail;
    e = dns_create(ho->host, conf->endpoint.port, &ho->dns);
    if (e == ERR_OK) e = slots_create(conf->connections_max, nworkers, &ho->slots);
    if (e == ERR_OK) return ERR_OK;
    snprintf(msg, n, "%s", err_text(e));
fail:
    http_close(o);
    return e;
}

void http_close(struct origin *o)
{
    struct http_origin *ho = o->priv;
    if (!ho) return;
    if (ho->slots) slots_destroy(ho->slots);
    if (ho->dns) dns_destroy(ho->dns);
    if (ho->tls) tls_ctx_destroy(ho->tls);
    creds_wipe(&ho->creds);
    free(ho);
    o->priv = NULL;
}

enum err http_worker_open(struct origin_worker *w, unsigned index)
{
    struct http_origin *ho = w->origin->priv;
    const struct origin_conf *conf = w->origin->conf;
    struct http_worker *hw = calloc(1, sizeof *hw);
    if (!hw) return ERR_NOMEM;
    hw->w = w;
    hw->shared = ho;
    list_init(&hw->calls);
    struct conn_pool_conf pc = {.conf = conf,
                                .dns = ho->dns,
                                .tls = ho->tls,
                                .server_name = conf->tls_server_name ? conf->tls_server_name : ho->host,
                                .slots = ho->slots,
                                .index = index,
                                .mailbox = w->mailbox,
                                .stats = &w->stats};
    enum err e = conn_pool_create(&pc, &hw->pool);
    if (e != ERR_OK) {
        free(hw);
        return e;
    }
    w->priv = hw;
    return ERR_OK;
}

static void worker_pool_closed(void *arg)
{
    struct http_worker *hw = arg;
    void (*closed)(void *) = hw->closed;
    void *closed_arg = hw->closed_arg;
    hw->w->priv = NULL;
    explicit_bzero(&hw->key, sizeof hw->key);
    free(hw);
    closed(closed_arg);
}

void http_worker_close(struct origin_worker *w, void (*done)(void *arg), void *arg)
{
    struct http_worker *hw = w->priv;
    CHECK(list_empty(&hw->calls));
    hw->closed = done;
    hw->closed_arg = arg;
    conn_pool_close(hw->pool, worker_pool_closed, hw);
}

const struct origin_type_ops origin_http_ops = {
    .name = "http",
    .open = http_open,
    .close = http_close,
    .worker_open = http_worker_open,
    .worker_close = http_worker_close,
    .submit = http_submit,
    .resume = http_resume,
    .cancel = http_cancel,
};
