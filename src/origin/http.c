/* http.c - calls over pooled connections: the origin type http, and the machinery of s3.
 *
 *   a call is | holds            | goes on by
 *   WAITING   | a wait queued    | ready -> SENT; failed, operation timeout -> its end
 *   SENT      | conn, or h2      | the events of its connection; a free retry leads back to WAITING
 *   FAILING   | task scheduled   | its end: failures found in submit are told from the loop
 *   ENDING    | nothing          | freed when the receiver's end() returns; cancel is a no-op
 *
 * Which protocol carries a call is decided when it starts to wait (choice.h); the two differ in where they wait, in how
 * they are sent, and in what a connection can tell about a request that failed.
 *
 * Free retries, which nobody is told of: once, what was sent on a connection that the origin had closed while it rested;
 * a few times, what an HTTP/2 origin says it has not looked at.
 *
 * Memory: call->mem holds the request as it is written and lives as long as the call. The receiver may cancel inside any
 * event, which frees the call: nothing touches it after having called out. */
#include "origin/http.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define CALL_MAGIC 0x6863616cu
#define CALL_MEMORY_BYTES ((size_t)1 << 20)
#define FREE_TRIES_MAX 4u

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

/* With the head the caller's request may go away; sending has stopped before. What was taken from cannot be sent by
 * anybody else. */
static void body_let_go(struct http_call *call)
{
    struct body *real = call->r.body;
    call->r.body = NULL;
    if (!real || real->notify_arg != call) return;
    real->notify = NULL;
    real->notify_arg = NULL;
    if (call->replay.touched && real->ops) body_close(real);
}

static void call_free(struct http_call *call)
{
    body_let_go(call);
    replay_free(&call->replay);
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
    if (call->bulk) call->hw->bulk_in_flight--;
}

static void call_finish(struct http_call *call, enum err e)
{
    call_unlink(call);
    count_error(&call->base.worker->stats, e);
    call->ending = true;
    body_let_go(call);
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
    enum err e = replay_pull(&call->replay, call->proto == PROTO_H2, out, max, max_bytes, n);
    for (unsigned i = 0; e == ERR_OK && i < *n; i++) stat_add(&call->base.worker->stats.bytes_sent, out[i].len);
    return e;
}

/* One that can still be sent stays open: for the free retry, or the caller's. */
static void body_close_lost(struct body *b)
{
    struct http_call *call = container_of(b, struct http_call, body);
    if (call->replay.lost && call->r.body && call->r.body->ops) body_close(call->r.body);
}

static const struct body_ops counted_ops = {.pull = body_pull_counted, .close = body_close_lost};

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
    replay_rewind(&call->replay);
    call->r.body->notify = body_more;
    call->r.body->notify_arg = call;
    call->creq.body = &call->body;
}

/* ---- events of the connection */

static uint64_t booked(struct http_call *call, uint64_t n)
{
    if (n > call->h2_left) n = call->h2_left;
    call->h2_left -= n;
    return n;
}

/* The request is no longer on a connection. */
static void call_detach(struct http_call *call)
{
    if (call->h2_link) h2_link_got(call->h2_link, booked(call, UINT64_MAX));
    call->h2_link = NULL;
    call->h2 = NULL;
    call->conn = NULL;
}

/* The length is known from here on: what was booked is put right, and the next of its kind profits. */
static void head_learn(struct http_call *call, const struct head *resp, int64_t body_length, uint64_t now)
{
    struct choice *choice = &call->hw->shared->choice;
    bool good = resp->status >= 200 && resp->status < 300;
    if (call->h2_link && body_length >= 0) {
        h2_link_got(call->h2_link, booked(call, UINT64_MAX));
        call->h2_left = (uint64_t)body_length;
        h2_link_expect(call->h2_link, call->h2_left);
    }
    if (good && call->r.method == METHOD_GET && call->r.if_match.n == 0 && body_length >= 0)
        choice_learn_usual(choice, (uint64_t)body_length);
    if (good && !call->bulk && !call->r.body) choice_learn_small(choice, call->proto, (now - call->start_ns) / 1000);
}

static void on_head(void *arg, const struct head *resp, int64_t body_length)
{
    struct http_call *call = arg;
    struct origin_stats *st = &call->base.worker->stats;
    CHECK_OBJ(call, CALL_MAGIC);
    uint64_t now = clock_ns();
    if (call->proto == PROTO_H1) choice_h1_answered(&call->hw->shared->choice);
    hist_add(&st->first_byte_us, (now - call->sent_ns) / 1000);
    head_learn(call, resp, body_length, now);
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
    call->got_bytes += n;
    if (call->h2_link) h2_link_got(call->h2_link, booked(call, n));
    call->ev.filled(call->arg, n);
}

static void call_start(struct http_call *call);

/* RFC 9110 section 9.2.2: what may be repeated without asking. */
static bool is_idempotent(enum method m)
{
    return m == METHOD_GET || m == METHOD_HEAD || m == METHOD_PUT || m == METHOD_DELETE || m == METHOD_OPTIONS ||
           m == METHOD_TRACE;
}

/* If it was carried out after all, a write with a condition fails the second time. */
static bool is_conditional_write(const struct http_call *call)
{
    if (call->r.method == METHOD_GET || call->r.method == METHOD_HEAD) return false;
    for (unsigned i = 0; i < call->r.nhdrs; i++) {
        enum hdr_id id = call->r.hdrs[i].id;
        if (id == HDR_IF_MATCH || id == HDR_IF_NONE_MATCH || id == HDR_IF_UNMODIFIED_SINCE) return true;
    }
    return call->r.if_match.n > 0;
}

static bool is_broken_off(enum err e)
{
    return e == ERR_CLOSED || e == ERR_RESET || e == ERR_TRUNCATED || e == ERR_IO || e == ERR_TLS;
}

static bool may_retry_free(const struct http_call *call, enum err e)
{
    const struct h1_client *h1 = call->conn ? conn_h1(call->conn) : NULL;
    if (call->replay.lost) return false;
    if (call->h2 && h2_call_unprocessed(call->h2)) return call->free_tries < FREE_TRIES_MAX;
    if (call->replay.touched || !is_idempotent(call->r.method) || is_conditional_write(call)) return false;
    if (call->h2 && h2_call_bystander(call->h2) && is_broken_off(e)) return call->free_tries < FREE_TRIES_MAX;
    if (call->retried) return false;
    if (h1 && (!conn_reused(call->conn) || h1_client_got_bytes(h1) || h1_client_sent_body(h1))) return false;
    if (!h1 && (!h2_link_reused(call->h2_link) || h2_call_got_bytes(call->h2))) return false;
    return is_broken_off(e);
}

/* Nothing ever came over HTTP/1.1: perhaps the origin speaks HTTP/2 only. */
static bool may_turn_to_h2(struct http_call *call, enum err e)
{
    if (call->proto != PROTO_H1 || !call->hw->h2_pool || call->h1_only || call->replay.touched) return false;
    if (call->conn && (h1_client_got_bytes(conn_h1(call->conn)) || !is_idempotent(call->r.method))) return false;
    return is_broken_off(e) && choice_h1_failed(&call->hw->shared->choice, clock_ns() / 1000000);
}

static void retry_prepare(struct http_call *call)
{
    if (call->h2 && (h2_call_unprocessed(call->h2) || h2_call_bystander(call->h2))) {
        call->free_tries++;
        call->h2_wait.again = true;
        if (h2_call_refused(call->h2)) h2_link_refused(call->h2_link);
        if (h2_call_wants_h1(call->h2)) call->h1_only = true;
        return;
    }
    call->retried = true;
    call->wait.fresh = true;
    call->h2_wait.again = true;
}

static void on_end(void *arg, enum err e)
{
    struct http_call *call = arg;
    CHECK_OBJ(call, CALL_MAGIC);
    bool turn = e != ERR_OK && may_turn_to_h2(call, e), again = turn || (e != ERR_OK && may_retry_free(call, e));
    if (e == ERR_OK && call->bulk && call->got_bytes >= CHOICE_BULK_BYTES)
        choice_learn_bulk(&call->hw->shared->choice, call->proto, call->got_bytes,
                          (clock_ns() - call->start_ns) / 1000, call->hw->bulk_in_flight);
    if (turn) call->h2_only = true;
    else if (again) retry_prepare(call);
    call_detach(call); /* its client tells the pool what becomes of the connection */
    if (!again) {
        call_finish(call, e);
        return;
    }
    stat_add(&call->base.worker->stats.retries, 1);
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

/* Everything about the request but the connection. */
static enum err call_build(struct http_call *call)
{
    const struct origin_request *r = &call->r;
    pool_reset(call->mem);
    call->creq = (struct client_request){.method = r->method_text,
                                         .method_id = r->method,
                                         .body_length = r->body_length,
                                         .send_zero_length = r->send_zero_length,
                                         .expect_continue = r->expect_continue};
    enum err e = call->hw->shared->build(call);
    if (e != ERR_OK) return e;
    body_set_up(call);
    call->sent_ns = clock_ns();
    return ERR_OK;
}

static void call_send(struct http_call *call, struct conn *c)
{
    enum err e = call_build(call);
    if (e != ERR_OK) {
        conn_pool_put(call->hw->pool, c);
        call_fail_later(call, e);
        return;
    }
    call->conn = c;
    h1_client_send(conn_h1(c), &call->creq, &call_events, call);
}

static void call_send_h2(struct http_call *call, struct h2_link *c)
{
    uint64_t expect = call->r.body ? 0 : call->expect_bytes;
    enum err e = call_build(call);
    if (e == ERR_OK) e = h2_link_send(c, &call->creq, expect, &call_events, call, &call->h2);
    if (e != ERR_OK) {
        call_fail_later(call, e);
        return;
    }
    stat_add(&call->base.worker->stats.h2_requests, 1);
    call->h2_link = c;
    call->h2_left = expect;
}

/* How many bytes the call will move, as far as that can be known. */
static uint64_t call_bytes(const struct http_call *call)
{
    const struct origin_request *r = &call->r;
    uint64_t usual = choice_usual(&call->hw->shared->choice);
    if (r->body) return r->body_length >= 0 ? (uint64_t)r->body_length : CHOICE_BULK_BYTES;
    if (r->method != METHOD_GET) return 0;
    if (!r->has_range) return usual;
    uint64_t span = r->last - r->first + 1;
    return r->if_match.n || span < usual ? span : usual; /* with If-Match the object, and so its size, is known */
}

static void call_start(struct http_call *call)
{
    struct http_worker *hw = call->hw;
    call->proto = PROTO_H1;
    if (call->h2_only && !call->h1_only) call->proto = PROTO_H2;
    else if (hw->h2_pool && !call->h1_only)
        call->proto = choice_pick(&hw->shared->choice, call->expect_bytes, loop_now_ms(hw->w->loop));
    if (call->proto == PROTO_H2) {
        struct h2_link *c = h2_pool_get(hw->h2_pool, &call->h2_wait);
        if (c) call_send_h2(call, c);
    } else {
        struct conn *c = conn_pool_get(hw->pool, &call->wait);
        if (c) call_send(call, c);
    }
}

static void wait_ready(struct conn_wait *w, struct conn *c)
{
    struct http_call *call = container_of(w, struct http_call, wait);
    CHECK_OBJ(call, CALL_MAGIC);
    call_send(call, c);
}

static void h2_wait_ready(struct h2_wait *w, struct h2_link *c)
{
    struct http_call *call = container_of(w, struct http_call, h2_wait);
    CHECK_OBJ(call, CALL_MAGIC);
    call_send_h2(call, c);
}

static void h2_wait_failed(struct h2_wait *w, enum err why)
{
    struct http_call *call = container_of(w, struct http_call, h2_wait);
    CHECK_OBJ(call, CALL_MAGIC);
    if (why != ERR_NOT_SUPPORTED) {
        call_finish(call, why);
        return;
    }
    call->h1_only = true;
    call_start(call);
}

static void wait_failed(struct conn_wait *w, enum err why)
{
    struct http_call *call = container_of(w, struct http_call, wait);
    CHECK_OBJ(call, CALL_MAGIC);
    if (!may_turn_to_h2(call, why)) {
        call_finish(call, why);
        return;
    }
    call->h2_only = true;
    call_start(call);
}

/* ---- the caller's side */

/* Off its connection, or out of its queue: no event comes any more. */
static void call_take_back(struct http_call *call)
{
    struct conn *h1 = call->conn;
    struct h2_call *h2 = call->h2;
    call_detach(call);
    if (h1) h1_client_cancel(conn_h1(h1));
    if (h2) h2_call_cancel(h2);
    conn_pool_withdraw(call->hw->pool, &call->wait);
    if (call->hw->h2_pool) h2_pool_withdraw(call->hw->h2_pool, &call->h2_wait);
}

static void operation_due(struct timer *t)
{
    struct http_call *call = container_of(t, struct http_call, operation);
    CHECK_OBJ(call, CALL_MAGIC);
    enum err e = ERR_OPERATION_TIMEOUT;
    if (call->wait.queued && !conn_wait_connecting(&call->wait)) e = ERR_OVERLOAD;
    if (call->h2_wait.queued && !h2_pool_connecting(call->hw->h2_pool)) e = ERR_OVERLOAD;
    call_take_back(call);
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
    replay_init(&call->replay, r->body);
    conn_wait_init(&call->wait);
    call->wait.ready = wait_ready;
    call->wait.failed = wait_failed;
    h2_wait_init(&call->h2_wait);
    call->h2_wait.ready = h2_wait_ready;
    call->h2_wait.failed = h2_wait_failed;
    call->start_ns = clock_ns();
    call->expect_bytes = call_bytes(call);
    call->h2_wait.bytes = r->body ? 0 : call->expect_bytes;
    call->bulk = load_of(call->expect_bytes) == LOAD_BULK;
    if (call->bulk) hw->bulk_in_flight++;
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
    if (call->h2) h2_call_resume(call->h2);
}

void http_cancel(struct origin_call *c)
{
    struct http_call *call = container_of(c, struct http_call, base);
    CHECK_OBJ(call, CALL_MAGIC);
    if (call->ending) return; /* from inside its end() */
    call_unlink(call);
    call_take_back(call);
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
    if (!conf->endpoint.https) return ERR_OK;
    enum err e = tls_client_ctx_create(&opt, &ho->tls, msg, n);
    if (e != ERR_OK || conf->http2 == HTTP2_OFF) return e;
    opt.alpn = conf->http2 == HTTP2_PRIOR_KNOWLEDGE ? "h2" : "h2,http/1.1";
    return tls_client_ctx_create(&opt, &ho->tls_h2, msg, n);
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
    choice_init(&ho->choice, conf->http2, conf->endpoint.https);
    host_without_brackets(&conf->endpoint, ho->host, sizeof ho->host);
    enum err e = tls_open(ho, conf, msg, n);
    if (e != ERR_OK) goto fail;
    e = dns_create(ho->host, conf->endpoint.port, &ho->dns);
    if (e == ERR_OK) e = slots_create(conf->connections_max, 2 * nworkers, &ho->slots) /* two pools each */;
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
    if (ho->tls_h2) tls_ctx_destroy(ho->tls_h2);
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
                                .index = 2 * index,
                                .mailbox = w->mailbox,
                                .stats = &w->stats,
                                .memory = w->origin->memory};
    bool h2 = conf->http2 == HTTP2_PRIOR_KNOWLEDGE || (conf->http2 == HTTP2_AUTO && ho->tls_h2);
    enum err e = conn_pool_create(&pc, &hw->pool);
    if (e == ERR_OK && h2) {
        pc.tls = ho->tls_h2;
        pc.index = 2 * index + 1;
        e = h2_pool_create(&pc, conf->http2 == HTTP2_AUTO ? hw->pool : NULL, &ho->choice, &hw->h2_pool);
    }
    if (e != ERR_OK) {
        if (hw->pool) conn_pool_discard(hw->pool);
        free(hw);
        return e;
    }
    w->priv = hw;
    return ERR_OK;
}

static void worker_pool_closed(void *arg)
{
    struct http_worker *hw = arg;
    if (--hw->pools_closing) return;
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
    hw->pools_closing = hw->h2_pool ? 2 : 1;
    if (hw->h2_pool) h2_pool_close(hw->h2_pool, worker_pool_closed, hw);
    conn_pool_close(hw->pool, worker_pool_closed, hw);
}

const struct choice *http_choice(const struct origin *o)
{
    const struct http_origin *ho = o->priv;
    return &ho->choice;
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
    .choice = http_choice,
};
