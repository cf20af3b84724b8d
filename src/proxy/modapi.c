/* modapi.c - what modules can do (s3p_module.h), on top of requests and the process. The functions of the table that
 * concern the process take no handle, so the process's root is kept here: set once before any worker runs. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "proxy/warm.h"
#include "s3/sigv4.h"
#include "version.h"

#define WARM_CONCURRENCY 8u

static struct proxy *the_proxy;

void modapi_set_proxy(struct proxy *p) { the_proxy = p; }
struct proxy *modapi_proxy(void) { return the_proxy; }

static struct request *req(const s3p_request *r) { return (struct request *)(uintptr_t)r; }
static s3p_request *pub(struct request *r) { return (s3p_request *)r; }
static s3p_str out(struct str s) { return (s3p_str){s.p, s.n}; }
static struct str in(s3p_str s) { return (struct str){s.p, s.n}; }

/* ---- hooks */

enum s3p_result modapi_access(struct request *r)
{
    for (const s3p_module *const *m = modules_access(r->worker->proxy->modules); *m; m++) {
        enum s3p_result e = (*m)->access(pub(r));
        if (e != S3P_OK || r->responded) return e;
    }
    return S3P_OK;
}

void modapi_handler(struct request *r)
{
    switch (r->handler->handler(pub(r))) {
    case S3P_OK: break;
    case S3P_DECLINED: request_fail(r, ERR_NOT_FOUND); break;
    case S3P_DENY: request_fail(r, ERR_ACCESS_DENIED); break;
    case S3P_ERROR: request_fail(r, ERR_INTERNAL); break;
    }
}

void modapi_head_filters(struct request *r)
{
    for (const s3p_module *const *m = modules_head_filters(r->worker->proxy->modules); *m; m++)
        if ((*m)->head_filter(pub(r)) == S3P_ERROR) log_info("module %s: head filter failed", (*m)->name);
}

void modapi_log(struct request *r)
{
    for (const s3p_module *const *m = modules_log(r->worker->proxy->modules); *m; m++) (*m)->log(pub(r));
}

/* ---- requests */

static struct str peer_text(struct request *r, const struct address *a)
{
    char *buf = pool_alloc(r->x->pool, 64);
    if (!buf || !a) return STR_LIT("");
    return str_c(address_format((const struct sockaddr *)&a->ss, buf, 64));
}

static const char *operation(const struct request *r)
{
    if (r->handler || !r->route) return "";
    if (r->conf->origins[r->origin_index].type == ORIGIN_HTTP || r->s3.op == OP_OTHER) {
        switch (r->x->req.method) {
        case METHOD_GET: return "GET";
        case METHOD_HEAD: return "HEAD";
        case METHOD_PUT: return "PUT";
        case METHOD_POST: return "POST";
        case METHOD_DELETE: return "DELETE";
        default: return "";
        }
    }
    if (r->s3.op == OP_DELETE_MANY || (r->s3.op == OP_WRITE_OBJECT && r->x->req.method == METHOD_DELETE)) return "DELETE";
    return op_name(r->s3.op);
}

static void api_request_info(const s3p_request *pr, s3p_request_info *o)
{
    struct request *r = req(pr);
    const struct exchange *x = r->x;
    const struct conf *c = r->conf;

    memset(o, 0, sizeof *o);
    o->method = out(x->req.method_text);
    o->target = out(x->req.target);
    o->path = out(r->target.path);
    o->query = r->target.query.n ? out(sigv4_mask_query(x->pool, r->target.query)) : out(r->target.query);
    o->host = out(r->host);
    o->user_agent = out(head_value(&x->req, HDR_USER_AGENT));
    o->referer = out(head_value(&x->req, HDR_REFERER));
    o->range = out(head_value(&x->req, HDR_RANGE));
    o->peer = out(peer_text(r, x->peer));
    o->local = out(peer_text(r, x->local));
    o->protocol = out(x->proto == PROTO_H2 ? STR_LIT("HTTP/2") : x->req.minor ? STR_LIT("HTTP/1.1") : STR_LIT("HTTP/1.0"));
    o->operation = out(r->origin_index >= 0 ? str_c(operation(r)) : STR_LIT(""));
    o->bucket = out(r->s3.address.bucket);
    o->key = out(r->s3.address.key);
    if (r->origin_index >= 0) o->origin = out(str_c(c->origins[r->origin_index].name));
    if (r->cache_index >= 0) o->cache = out(str_c(c->caches[r->cache_index].name));
    o->cache_result = out(cache_result_text(r->result));
    if (r->route) o->route = out(str_c(r->route->path));
    o->request_id = out(str_make(r->id_text, 16));
    if (r->error != ERR_OK) o->error = out(str_c(err_text(r->error)));
    o->tls = x->tls;
    o->status = r->status;
    o->sent_bytes = x->sent_bytes;
    o->received_bytes = x->received_bytes;
    o->origin_bytes = r->origin_bytes;
    o->start_unix_ns = r->start_unix_ns;
    o->start_ns = x->begin_ns;
    o->first_byte_ns = x->first_byte_ns;
    o->end_ns = r->end_ns;
    if (x->tls_version) o->tls_protocol = out(x->tls_version == 12 ? STR_LIT("TLSv1.2") : STR_LIT("TLSv1.3"));
    if (x->tls_client) o->tls_client = out(str_c(x->tls_client));
}

static s3p_str api_request_header(const s3p_request *r, const char *lower_name)
{
    const struct hdr *h = head_find_name(&req(r)->x->req, str_c(lower_name));
    return h ? out(h->value) : (s3p_str){NULL, 0};
}

/* The one answer of a request is not given yet, and not just going out. */
static bool may_answer(struct request *r, const char *what)
{
    if (!r->responded && !r->filtering) return true;
    if (r->status) /* else the client has left */
        log_error("module %s: %s after the request was answered; ignored", r->handler ? r->handler->name : "(access)", what);
    return false;
}

static void body_done(struct request *r, s3p_str body)
{
    void (*done)(s3p_request *, s3p_str, void *) = r->body_done;
    r->body_done = NULL;
    if (done) done(pub(r), body, r->body_arg);
}

/* Reads the whole body into memory for a handler. */
static void body_more(void *arg)
{
    struct request *r = arg;
    struct body *b = &r->x->req_body;

    while (r->body_done) {
        struct chunk c[8];
        unsigned n;
        enum err e = body_pull(b, c, ARRAY_LEN(c), 65536, &n);
        for (unsigned i = 0; i < n; i++) {
            strbuf_add(&r->body_text, c[i].data, c[i].len);
            chunk_release(&c[i], CHUNK_COPIED);
        }
        if (e == ERR_AGAIN) return;
        if (e == ERR_OK && !r->body_text.failed) continue;
        bool whole = e == ERR_END && !r->body_text.failed;
        static const char nothing[1] = "";
        s3p_str text = {r->body_text.p ? r->body_text.p : nothing, r->body_text.n};
        body_done(r, whole ? text : (s3p_str){NULL, 0});
    }
}

static void api_request_body(s3p_request *pr, size_t max, void (*done)(s3p_request *, s3p_str, void *), void *arg)
{
    struct request *r = req(pr);

    if (!r->x->req_body.ops) {
        done(pr, (s3p_str){"", 0}, arg);
        return;
    }
    int64_t length = r->x->req_body.length;
    uint64_t most = length >= 0 && (uint64_t)length < max ? (uint64_t)length : max;
    if (r->body_done || r->body_text.max || (length >= 0 && (uint64_t)length > max) || !request_account(r, most)) {
        done(pr, (s3p_str){NULL, 0}, arg); /* asked twice, or more than there is room for */
        return;
    }
    strbuf_init(&r->body_text, max ? max : 1);
    r->body_done = done;
    r->body_arg = arg;
    r->x->req_body.notify = body_more;
    r->x->req_body.notify_arg = r;
    body_more(r);
}

void modapi_end(struct request *r)
{
    if (!r->body_done) return;
    r->responded = true; /* whatever it would say now, nobody hears it */
    body_done(r, (s3p_str){NULL, 0});
}

/* RFC 9110 sections 5.1 and 5.5: nothing a module says can end the field it says it in. */
static bool is_field(struct str name, struct str value)
{
    static const char others[] = "!#$%&'*+-.^_`|~";

    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        bool alnum = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!alnum && (c == '\0' || !strchr(others, c))) return false;
    }
    for (size_t i = 0; i < value.n; i++) {
        unsigned char c = (unsigned char)value.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) return false;
    }
    return name.n > 0;
}

static bool api_response_set(s3p_request *pr, const char *name, s3p_str value)
{
    struct request *r = req(pr);
    if (r->responded || !is_field(str_c(name), in(value))) return false;
    struct str n = pool_str(r->x->pool, str_c(name)), v;

    if (!n.p) return false;
    respond_remove(r, n);
    if (!value.p) return true;
    v = pool_str(r->x->pool, in(value));
    return v.p && respond_header(r, n, v) == ERR_OK;
}

static unsigned api_response_status(const s3p_request *r) { return req(r)->status; }

static void api_respond(s3p_request *pr, unsigned status, const char *content_type, s3p_str body)
{
    struct request *r = req(pr);

    if (!may_answer(r, "respond")) return;
    if (!request_account(r, body.n)) {
        request_fail(r, ERR_OVERLOAD);
        return;
    }
    struct str copy = pool_str(r->x->pool, in(body));
    struct str type = content_type ? pool_str(r->x->pool, str_c(content_type)) : STR_LIT("");
    if (!copy.p) { /* larger than a request's memory: kept in a buffer of its own, freed with the request */
        strbuf_init(&r->answer_text, body.n + 1);
        strbuf_add(&r->answer_text, body.p, body.n);
        if (!r->answer_text.failed) copy = strbuf_get(&r->answer_text);
    }
    if (!copy.p || !type.p || status < 200 || status > 599 || !is_field(STR_LIT("Content-Type"), type))
        request_fail(r, copy.p && type.p ? ERR_INTERNAL : ERR_NOMEM);
    else
        respond_text(r, status, content_type ? type.p : NULL, copy);
}

static void api_respond_error(s3p_request *r, unsigned status, const char *s3_code, const char *message)
{
    if (may_answer(req(r), "respond_error"))
        respond_error(req(r), status >= 400 && status <= 599 ? status : 500, s3_code, message);
}

static void *api_alloc(s3p_request *r, size_t n) { return pool_alloc(req(r)->x->pool, n); }

static void *api_worker_data(const s3p_request *r, const struct s3p_module *m)
{
    const struct worker *w = req(r)->worker;
    int i = modules_index(w->proxy->modules, m);
    return i < 0 ? NULL : w->module_data[i];
}

/* ---- the process */

static char *api_stats_json(void) { return stats_json(the_proxy); }
static char *api_config_yaml(void) { return conf_dump(the_proxy->conf); }
static bool api_ready(void) { return proxy_is_ready(the_proxy); }

/* All names of one place: what is cached for it from each origin. Counts; false: out of memory. */
static bool purge_place(struct pool *pool, enum purge_kind kind, struct str path, uint64_t *count)
{
    const struct conf *c = the_proxy->conf;

    for (unsigned o = 0; o < c->norigins; o++) {
        struct str base, marks;
        if (key_make(pool, &c->origins[o], (struct str){NULL, 0}, path, &base, &marks) != ERR_OK) return false;
        for (unsigned i = 0; i < c->ncaches; i++) *count += cache_purge(the_proxy->caches[i], kind, base);
    }
    return true;
}

static int64_t api_purge(const char *kind, s3p_str what)
{
    const struct conf *c = the_proxy->conf;
    bool uri = strcmp(kind, "uri") == 0, prefix = strcmp(kind, "prefix") == 0;
    uint64_t n = 0;

    if (strcmp(kind, "all") == 0) {
        for (unsigned i = 0; i < c->ncaches; i++) n += cache_purge(the_proxy->caches[i], PURGE_ALL, (struct str){NULL, 0});
        return (int64_t)n;
    }
    if (!uri && !prefix) return -1;
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str path = {NULL, 0};
    /* All representations go, whatever query stands behind the path. */
    if (pool) path = pool_f(pool, "%s" STR_FMT, what.n && what.p[0] == '/' ? "" : "/",
                            (int)str_find(in(what), '?'), what.p ? what.p : "");
    bool ok = path.p && purge_place(pool, uri ? PURGE_BASE : PURGE_PREFIX, path, &n);
    pool_destroy(pool);
    return ok ? (int64_t)n : -1;
}

static const char *api_version(void) { return S3P_VERSION; }
static uint64_t api_uptime_ms(void) { return clock_ns() / 1000000 - the_proxy->started_ms; }
static void api_log(int level, const char *text)
{
    enum log_level l = level <= 0 ? LOG_ERROR : level >= 3 ? LOG_DEBUG : (enum log_level)level;
    log_line(l, "%s", text);
}

static void *api_file_open(const char *path, char *why, size_t n)
{
    struct log_file *f;
    if (log_file_open(path, &f) == ERR_OK) return f;
    snprintf(why, n, "%s: %s", path, strerror(errno));
    return NULL;
}
static void api_file_write(void *f, const char *line, size_t n) { log_file_write(f, line, n); }
static void api_file_reopen(void *f) { log_file_reopen(f); }
static void api_file_close(void *f) { log_file_close(f); }
static const char *api_config(const char *path) { return conf_get(the_proxy->conf, path); }

static enum s3p_outcome outcome(enum err e)
{
    switch (e) {
    case ERR_OK: return S3P_DONE;
    case ERR_BAD_REQUEST: return S3P_MALFORMED;
    case ERR_NOT_FOUND: return S3P_UNKNOWN;
    case ERR_OVERLOAD: return S3P_FULL;
    default: return S3P_NO_MEMORY;
    }
}

static char *api_metrics(void) { return metrics_text(the_proxy); }
static enum s3p_outcome api_mark(s3p_str label, char **json) { return outcome(mark_set(the_proxy, in(label), json)); }
static enum s3p_outcome api_objects_json(s3p_str prefix, unsigned max, s3p_str after, char **json)
{
    return outcome(objects_json(the_proxy, in(prefix), max < 10000 ? max : 10000, in(after), json));
}
static enum s3p_outcome api_warm(s3p_request *pr, const s3p_warm *w, char **json)
{
    struct request *r = req(pr);
    uint64_t most = r->conf->max_warm_concurrency, wanted = w->concurrency ? w->concurrency : WARM_CONCURRENCY;
    _Static_assert(sizeof(s3p_str) == sizeof(struct str) && offsetof(s3p_str, n) == offsetof(struct str, n), "the same");
    struct warm_what what = {.paths = (const struct str *)(const void *)w->paths, .npaths = w->npaths, .prefix = in(w->prefix),
                             .manifest = in(w->manifest), .pin = w->pin,
                             .concurrency = (unsigned)(wanted < most ? wanted : most)};
    return outcome(warm_start(r, &what, json));
}
static enum s3p_outcome api_warm_json(s3p_str id, char **json) { return outcome(warm_json(the_proxy, in(id), json)); }
static char *api_warm_list_json(void) { return warm_list_json(the_proxy); }
static enum s3p_outcome api_warm_cancel(s3p_str id, char **json) { return outcome(warm_cancel(the_proxy, in(id), json)); }
static char *api_marks_json(void) { return marks_json(the_proxy); }
static enum s3p_outcome api_stats_since_json(s3p_str label, char **json)
{
    return outcome(stats_since_json(the_proxy, in(label), json));
}

const s3p_api module_api = {
    .abi = S3P_ABI_VERSION,
    .request_info = api_request_info,
    .request_header = api_request_header,
    .request_body = api_request_body,
    .response_set = api_response_set,
    .response_status = api_response_status,
    .respond = api_respond,
    .respond_error = api_respond_error,
    .alloc = api_alloc,
    .worker_data = api_worker_data,
    .stats_json = api_stats_json,
    .config_yaml = api_config_yaml,
    .ready = api_ready,
    .purge = api_purge,
    .version = api_version,
    .uptime_ms = api_uptime_ms,
    .log = api_log,
    .file_open = api_file_open,
    .file_write = api_file_write,
    .file_reopen = api_file_reopen,
    .file_close = api_file_close,
    .config = api_config,
    .metrics = api_metrics,
    .mark = api_mark,
    .marks_json = api_marks_json,
    .stats_since_json = api_stats_since_json,
    .objects_json = api_objects_json,
    .warm = api_warm,
    .warm_json = api_warm_json,
    .warm_list_json = api_warm_list_json,
    .warm_cancel = api_warm_cancel,
};
