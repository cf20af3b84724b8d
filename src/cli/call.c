/* call.c - see the header.
 *
 * A call owns a copy of its request (mem) for all its tries. The origin is given a body that is part of the call (`sent`) and
 * outlives whatever it does with it; the caller's, made for one try, is behind that one and gone when it has been closed. While an error's body comes (failing) it goes into `text`,
 * bounded; one that is longer is not read on. */
#include "cli/call.h"

#include <stdio.h>
#include <stdlib.h>

#include "http/range.h"
#include "s3/error_xml.h"
#include "s3/listing.h"

#define CALL_MAGIC 0x6c6c6163u
#define ERROR_BYTES ((size_t)64 << 10)
#define DROP_BYTES 4096u

struct call {
    uint32_t magic;
    struct net *net;
    struct pool *mem;
    struct origin_request r;
    struct call_request q;
    const struct call_events *ev;
    void *arg;
    struct origin_call *at;    /* while a try is under way */
    struct body sent, *real;   /* real NULL: closed, or none */
    struct retry retry;
    struct timer timer;
    struct task begin;
    struct strbuf text;        /* of an error */
    char drop[DROP_BYTES];
    struct str if_match;       /* the caller's */
    char etag[256];            /* of the first good answer; "" when it cannot be resumed */
    uint64_t body_first;       /* position in the object of the body's first byte */
    uint64_t body_bytes;       /* of the whole body, as the first answer said; UINT64_MAX: unknown */
    uint64_t got_before;       /* bytes passed on when the last failure came */
    int64_t retry_after_s;
    bool answered;             /* head was told */
    bool failing;
    bool passed_on;            /* the answer went through some proxy: it has a Via */
    bool unwanted;
    enum err broken;           /* why a good answer cannot be used: it is another version */
    struct call_result result;
};

static void try_start(struct call *c);

/* ---- the request body */

static enum err sent_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct call *c = container_of(b, struct call, sent);
    return c->real ? body_pull(c->real, out, max, max_bytes, n) : ERR_INCOMPLETE_BODY;
}

static void sent_close(struct body *b)
{
    struct call *c = container_of(b, struct call, sent);
    struct body *real = c->real;

    c->real = NULL;
    if (real) body_close(real);
}

static void sent_more(void *arg) { body_notify(arg); }

/* The origin leaves one open that it has not touched. */
static void body_end(struct call *c)
{
    if (c->sent.ops) body_close(&c->sent);
    c->r.body = NULL;
}

static bool body_begin(struct call *c)
{
    static const struct body_ops ops = {sent_pull, sent_close};

    if (!c->q.body) return true;
    body_end(c);
    c->real = c->q.body(c->q.body_arg);
    if (!c->real) return false;
    c->real->notify = sent_more;
    c->real->notify_arg = &c->sent;
    c->sent = (struct body){.ops = &ops, .length = c->q.body_length};
    c->r.body = &c->sent;
    return true;
}

static void call_free(struct call *c)
{
    body_end(c);
    timer_stop(&c->timer);
    task_cancel(&c->begin);
    strbuf_free(&c->text);
    pool_destroy(c->mem);
    c->magic = 0;
    free(c);
}

static void copy_text(char *to, size_t n, struct str s)
{
    snprintf(to, n, STR_FMT, STR_ARG(s));
    for (char *p = to; *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) *p = '?';
        if ((unsigned char)p[0] == 0xc2 && ((unsigned char)p[1] & 0xe0) == 0x80) p[0] = p[1] = '?'; /* U+0080..U+009F */
    }
}

/* ---- the end */

static enum err err_of_status(const struct call *c)
{
    switch (c->result.status) {
    case 403: return ERR_ACCESS_DENIED;
    case 404: return ERR_NOT_FOUND;
    case 405: return ERR_METHOD_NOT_ALLOWED;
    case 412: return ERR_PRECONDITION;
    case 416: return ERR_RANGE;
    case 503: return ERR_UNAVAILABLE;
    default: return c->result.status >= 500 ? ERR_INTERNAL : ERR_BAD_REQUEST;
    }
}

static void read_error(struct call *c)
{
    struct str doc = strbuf_get(&c->text);
    char *message = listing_text(doc, "Message"), *host = listing_text(doc, "HostId");

    copy_text(c->result.code, sizeof c->result.code, error_xml_code(doc));
    copy_text(c->result.message, sizeof c->result.message, str_c(message));
    c->result.by_proxy = host && strcmp(host, "s3dlio-proxy") == 0 && !c->passed_on;
    free(message);
    free(host);
}

static void call_end(struct call *c, enum err e)
{
    const struct call_events *ev = c->ev;
    void *arg = c->arg;
    struct call_result r = c->result;

    r.err = e;
    r.end_ns = clock_ns();
    call_free(c);
    ev->end(arg, &r);
}

/* What is left of a body that broke off; false: nobody can tell which bytes those would be. */
static bool can_resume(struct call *c)
{
    uint64_t got = c->result.bytes;

    if (c->q.method != METHOD_GET || !c->etag[0] || c->body_bytes == UINT64_MAX || got >= c->body_bytes) return false;
    c->r.has_range = true;
    c->r.first = c->body_first + got;
    c->r.last = c->body_first + c->body_bytes - 1;
    c->r.if_match = str_c(c->etag);
    return true;
}

/* A request that may have been carried out is not sent again when that would do harm. */
static bool may_repeat(const struct call *c, enum err e)
{
    bool never_sent = e == ERR_REFUSED || e == ERR_UNREACHABLE || e == ERR_DNS || e == ERR_CONNECT_TIMEOUT;
    return !c->q.once || never_sent || c->result.status == 503 || c->result.status == 429;
}

/* Forgets what came of the body. */
static void begin_anew(struct call *c)
{
    c->answered = false;
    c->etag[0] = '\0';
    c->body_bytes = UINT64_MAX;
    c->result.bytes = c->got_before = 0;
    c->r.has_range = c->q.has_range;
    c->r.first = c->q.first;
    c->r.last = c->q.last;
    c->r.if_match = c->if_match;
}

static void try_failed(struct call *c, enum err e)
{
    bool resumes = c->answered && can_resume(c), anew = c->answered && !resumes && c->q.afresh;
    uint64_t delay_ms, progress = anew ? 0 : c->result.bytes - c->got_before;
    struct str code = str_c(c->result.code);
    unsigned status = c->failing ? c->result.status : 0;

    c->got_before = c->result.bytes;
    bool again = may_repeat(c, e) && (!c->answered || resumes || anew) &&
                 retry_next(&c->retry, &c->net->budget, &c->net->conf, c->failing ? ERR_OK : e, status, code, c->retry_after_s,
                            progress, &delay_ms);
    if (again) {
        if (anew) begin_anew(c);
        timer_set(&c->timer, delay_ms);
        return;
    }
    if (c->failing && !c->answered) e = err_of_status(c);
    else if (c->failing) e = c->result.status == 412 || c->result.status == 404 ? ERR_CHANGED : err_of_status(c);
    call_end(c, e == ERR_OK ? ERR_INTERNAL : e);
}

/* ---- a try's events */

static uint64_t total_of(const struct head *h, uint64_t *first)
{
    struct content_range r;
    struct str text = head_value(h, HDR_CONTENT_RANGE);

    *first = 0;
    if (h->status != 206 || content_range_parse(text, &r) != ERR_OK || r.unsatisfied) return UINT64_MAX;
    *first = r.first;
    return r.last - r.first + 1;
}

static void first_answer(struct call *c, const struct head *h, int64_t length)
{
    uint64_t span = total_of(h, &c->body_first);
    struct str tag = head_value(h, HDR_ETAG);

    c->body_bytes = length >= 0 ? (uint64_t)length : span;
    if (c->q.method == METHOD_GET && span != UINT64_MAX && c->body_bytes != span) { /* which of the two is right nobody knows */
        c->broken = ERR_PROTOCOL;
        return;
    }
    if (tag.n > 2 && tag.p[0] == '"' && tag.n < sizeof c->etag) copy_text(c->etag, sizeof c->etag, tag);
    c->answered = true;
    if (c->ev->head && !c->ev->head(c->arg, h, length)) c->unwanted = true;
}

/* The rest of a body that broke off must be that rest, of that version. */
static void next_answer(struct call *c, const struct head *h)
{
    uint64_t first, span = total_of(h, &first);
    struct str tag = head_value(h, HDR_ETAG);

    if (h->status != 206 || first != c->r.first || span != c->body_bytes - c->result.bytes) c->broken = ERR_PROTOCOL;
    else if (!str_eq(tag, str_c(c->etag))) c->broken = ERR_CHANGED;
}

static void stop_try(struct call *c, enum err e)
{
    origin_cancel(c->at);
    c->at = NULL;
    call_end(c, e);
}

static void on_head(void *arg, const struct head *h, int64_t length)
{
    struct call *c = arg;
    uint64_t s;

    CHECK_OBJ(c, CALL_MAGIC);
    c->result.status = h->status;
    copy_text(c->result.request_id, sizeof c->result.request_id, head_value(h, HDR_AMZ_REQUEST_ID));
    c->retry_after_s = str_to_u64(head_value(h, HDR_RETRY_AFTER), &s) && s < 86400 ? (int64_t)s : -1;
    if (!c->result.first_byte_ns) c->result.first_byte_ns = clock_ns();
    c->failing = h->status >= 300;
    c->passed_on = head_find(h, HDR_VIA) != NULL;
    if (c->failing) return;
    if (c->answered) next_answer(c, h);
    else first_answer(c, h, length);
    /* at once: what nobody wants may be endless, or never come */
    if (c->unwanted) stop_try(c, ERR_CANCELLED);
    else if (c->broken) stop_try(c, c->broken);
}

static unsigned on_space(void *arg, struct iovec *iov, unsigned max)
{
    struct call *c = arg;

    if (!c->failing) return c->ev->space(c->arg, iov, max);
    iov[0] = (struct iovec){c->drop, sizeof c->drop};
    return 1;
}

static void on_end(void *arg, enum err e);

/* Nobody reads so much of an error, which may be endless: this try ends here. */
static void error_is_long(struct call *c)
{
    origin_cancel(c->at);
    on_end(c, ERR_OK);
}

static void on_filled(void *arg, size_t n)
{
    struct call *c = arg;

    if (c->failing) {
        if (c->text.n + n <= ERROR_BYTES) strbuf_add(&c->text, c->drop, n);
        else error_is_long(c);
    } else if (c->body_bytes != UINT64_MAX && n > c->body_bytes - c->result.bytes) {
        stop_try(c, ERR_PROTOCOL); /* what goes beyond the range would end up in the place of other bytes */
    } else {
        if (c->result.bytes == 0) c->result.first_byte_ns = clock_ns();
        c->result.bytes += n;
        c->ev->filled(c->arg, n);
    }
}

static void on_end(void *arg, enum err e)
{
    struct call *c = arg;

    CHECK_OBJ(c, CALL_MAGIC);
    c->at = NULL;
    body_end(c);
    if (c->failing) read_error(c);
    if (e == ERR_OK && !c->failing && c->answered && c->body_bytes != UINT64_MAX && c->q.method != METHOD_HEAD &&
        c->result.bytes < c->body_bytes)
        e = ERR_TRUNCATED;
    if (e == ERR_OK && !c->failing) call_end(c, e);
    else try_failed(c, e);
}

static const struct client_events try_events = {on_head, on_space, on_filled, on_end};

/* ---- a try */

static void try_start(struct call *c)
{
    enum err e = ERR_NOMEM;

    c->failing = false;
    c->text.n = 0;
    c->retry_after_s = -1;
    c->result.status = 0;
    c->result.code[0] = c->result.message[0] = '\0';
    c->result.by_proxy = false;
    c->result.tries++;
    if (body_begin(c)) e = origin_submit(c->net->worker, &c->r, &try_events, c, &c->at);
    if (e != ERR_OK) call_end(c, e);
}

static void timer_due(struct timer *t) { try_start(container_of(t, struct call, timer)); }
static void task_due(struct task *t) { try_start(container_of(t, struct call, begin)); }

static struct str method_text(enum method m)
{
    static const struct str names[] = {
#define X(name) [METHOD_##name] = {#name, sizeof #name - 1},
        METHOD_TABLE(X)
#undef X
    };
    return names[m];
}

static bool copy_hdrs(struct call *c, const struct call_request *q)
{
    struct hdr *h = pool_alloc(c->mem, (q->nhdrs + 1) * sizeof *h);

    if (!h) return false;
    for (unsigned i = 0; i < q->nhdrs; i++) {
        h[i] = (struct hdr){pool_str(c->mem, q->hdrs[i].name), pool_str(c->mem, q->hdrs[i].value), hdr_id_of(q->hdrs[i].name)};
        if (!h[i].name.p || !h[i].value.p) return false;
    }
    c->r.hdrs = h;
    c->r.nhdrs = q->nhdrs;
    return true;
}

static bool copy_request(struct call *c, const struct call_request *q)
{
    struct origin_request *r = &c->r;

    c->q = *q;
    r->method = q->method;
    r->method_text = method_text(q->method);
    if (q->bucket.n) r->address.bucket = pool_str(c->mem, q->bucket); /* empty and none are not the same: "//" and "/" */
    if (q->key.n) r->address.key = uri_encode(c->mem, q->key, true);
    if (q->query.p) r->query = pool_str(c->mem, q->query);
    r->has_range = q->has_range;
    r->first = q->first;
    r->last = q->last;
    if (q->if_match.n) r->if_match = c->if_match = pool_str(c->mem, q->if_match);
    if (q->payload_hash.n) r->payload_hash = pool_str(c->mem, q->payload_hash);
    r->body_length = q->body ? q->body_length : 0;
    r->send_zero_length = !q->body && (q->method == METHOD_PUT || q->method == METHOD_POST);
    c->q.bucket = r->address.bucket;
    bool ok = (q->bucket.n == 0 || r->address.bucket.p) && (q->key.n == 0 || r->address.key.p) && (!q->query.p || r->query.p) &&
              (!q->if_match.n || r->if_match.p) && (!q->payload_hash.n || r->payload_hash.p);
    return ok && copy_hdrs(c, q);
}

enum err call_start(struct net *net, const struct call_request *q, const struct call_events *ev, void *arg, struct call **out)
{
    struct call *c = calloc(1, sizeof *c);

    *out = NULL;
    if (!c) return ERR_NOMEM;
    c->magic = CALL_MAGIC;
    c->net = net;
    c->ev = ev;
    c->arg = arg;
    c->body_bytes = UINT64_MAX;
    c->result.start_ns = clock_ns();
    strbuf_init(&c->text, ERROR_BYTES);
    timer_init(&c->timer, net->loop, timer_due);
    task_init(&c->begin, net->loop, task_due);
    c->mem = pool_create((size_t)1 << 20);
    if (!c->mem || !copy_request(c, q)) {
        call_free(c);
        return ERR_NOMEM;
    }
    retry_budget_request(&net->budget);
    task_schedule(&c->begin);
    *out = c;
    return ERR_OK;
}

void call_resume(struct call *c)
{
    CHECK_OBJ(c, CALL_MAGIC);
    if (c->at) origin_resume(c->at);
}

void call_cancel(struct call *c)
{
    if (!c) return;
    CHECK_OBJ(c, CALL_MAGIC);
    if (c->at) origin_cancel(c->at);
    call_free(c);
}

/* ---- one call, waited for */

struct waited {
    struct net *net;
    const struct call_sync *s;
    struct call *call;
    struct call_result *out;
    char space[16384];
    bool too_large;
};

static bool waited_head(void *arg, const struct head *h, int64_t length)
{
    const struct waited *w = arg;

    if (w->s && w->s->body) w->s->body->n = 0; /* this may be another try */
    return !w->s || !w->s->head || w->s->head(w->s->arg, h, length);
}

static unsigned waited_space(void *arg, struct iovec *iov, unsigned max)
{
    struct waited *w = arg;
    (void)max;
    iov[0] = (struct iovec){w->space, sizeof w->space};
    return 1;
}

static void waited_filled(void *arg, size_t n)
{
    struct waited *w = arg;

    if (!w->s || !w->s->body) return;
    strbuf_add(w->s->body, w->space, n);
    if (!w->s->body->failed) return;
    w->too_large = true;
    call_cancel(w->call);
    w->call = NULL;
    net_stop(w->net);
}

static void waited_end(void *arg, const struct call_result *r)
{
    struct waited *w = arg;
    w->call = NULL;
    *w->out = *r;
    net_stop(w->net);
}

void call_wait(struct net *net, const struct call_request *q, const struct call_sync *s, struct call_result *out)
{
    static const struct call_events events = {waited_head, waited_space, waited_filled, waited_end};
    struct waited w = {.net = net, .s = s, .out = out};
    struct call_request mine = *q;

    mine.afresh = s && s->body;
    memset(out, 0, sizeof *out);
    out->err = call_start(net, &mine, &events, &w, &w.call);
    if (out->err != ERR_OK) return;
    while (w.call && net_run(net)) {
    }
    if (w.too_large) out->err = ERR_BODY_TOO_LARGE;
    else if (w.call) out->err = ERR_CANCELLED;
    call_cancel(w.call);
}

/* ---- words */

/* What the proxy calls its origin is the proxy here, or what else the endpoint names. */
static void failure_text(enum err e, char *buf, size_t n)
{
    const char *text = err_text(e), *at = strstr(text, "origin");

    if (at) snprintf(buf, n, "%.*sserver%s", (int)(at - text), text, at + 6);
    else snprintf(buf, n, "%s", text);
}

const char *call_why(const struct call_result *r, char *buf, size_t n)
{
    if (r->status < 300) failure_text(r->err, buf, n);
    else if (r->code[0]) snprintf(buf, n, "%u %s%s%s", r->status, r->code, r->message[0] ? ": " : "", r->message);
    else snprintf(buf, n, "%u %s", r->status, status_reason(r->status));
    return buf;
}

bool call_not_found(const struct call_result *r) { return r->status == 404; }
