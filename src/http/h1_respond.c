/* h1_respond.c - what the handler calls on an HTTP/1.x exchange: respond, inform, reset; and response heads
 * (RFC 9112 sections 4, 6 and 9.3). Nothing is written to the socket here: heads go to the out queue. */
#include "base/log.h"
#include "http/date.h"
#include "http/h1_conn.h"

/* "Date: ...\r\n", formatted anew when the wall clock's second has passed. */
static struct str date_line(struct h1_server *s)
{
    uint64_t now = loop_now_ms(s->loop);
    if (now >= s->date_until_ms) {
        uint64_t wall = wallclock_ms();
        char text[30];
        date_format((int64_t)(wall / 1000), text);
        memcpy(s->date_line, "Date: ", 6);
        memcpy(s->date_line + 6, text, 29);
        memcpy(s->date_line + 35, "\r\n", 2);
        s->date_until_ms = now + (1000 - wall % 1000);
    }
    return str_make(s->date_line, 37);
}

static char *put(char *p, const char *from, size_t n)
{
    memcpy(p, from, n);
    return p + n;
}
#define PUT_LIT(p, s) put((p), (s), sizeof(s) - 1)

/* Fields this server writes itself. */
static bool is_framing(enum hdr_id id)
{
    return id == HDR_CONNECTION || id == HDR_CONTENT_LENGTH || id == HDR_TRANSFER_ENCODING || id == HDR_KEEP_ALIVE;
}

struct framing {
    bool send_length, chunked, close, keep_alive_1_0;
    uint64_t length;
};

/* The head is at most: status line, the given fields, and under 256 bytes of our own. */
static bool write_head(struct h1_conn *c, const struct head *resp, const struct framing *f)
{
    struct str reason = resp->reason.n ? resp->reason : str_c(status_reason(resp->status));
    size_t size = 256 + reason.n;
    bool have_date = false;
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        size += resp->hdrs[i].name.n + resp->hdrs[i].value.n + 4;
        have_date |= resp->hdrs[i].id == HDR_DATE;
    }
    char *start = h1_out_room(&c->work->out, size), *p = start;
    if (!p) return false;
    p = PUT_LIT(p, "HTTP/1.1 ");
    p += u64_to_dec(resp->status, p);
    *p++ = ' ';
    p = put(p, reason.p, reason.n);
    p = PUT_LIT(p, "\r\n");
    if (!have_date) {
        struct str date = date_line(c->server);
        p = put(p, date.p, date.n);
    }
    for (unsigned i = 0; i < resp->nhdrs; i++) {
        const struct hdr *h = &resp->hdrs[i];
        if (is_framing(h->id)) continue;
        p = put(p, h->name.p, h->name.n);
        *p++ = ':';
        *p++ = ' ';
        if (h->value.n) p = put(p, h->value.p, h->value.n);
        p = PUT_LIT(p, "\r\n");
    }
    if (f->send_length) {
        p = PUT_LIT(p, "Content-Length: ");
        p += u64_to_dec(f->length, p);
        p = PUT_LIT(p, "\r\n");
    }
    if (f->chunked) p = PUT_LIT(p, "Transfer-Encoding: chunked\r\n");
    if (f->close) p = PUT_LIT(p, "Connection: close\r\n");
    else if (f->keep_alive_1_0) p = PUT_LIT(p, "Connection: keep-alive\r\n");
    p = PUT_LIT(p, "\r\n");
    c->work->out.n += (size_t)(p - start);
    return true;
}

/* The producer may have more: a hint, so only the flag is changed here. */
static void on_response_body(void *arg)
{
    struct h1_conn *c = arg;
    CHECK_OBJ(c, H1_CONN_MAGIC);
    if (!c->work) return;
    h1_out_notified(&c->work->out);
    h1_conn_kick(c);
}

static bool may_keep_alive(const struct h1_conn *c)
{
    const struct h1_server_conf *conf = c->conf;
    return c->x.req.keep_alive && !c->x.close_after && !c->server->draining &&
           (conf->max_requests == 0 || c->requests < conf->max_requests) && h1_request_body_at_hand(c);
}

static void allow_sendfile(struct h1_conn *c)
{
    struct h1_out *out = &c->work->out;
    if (!c->conf->sendfile_min || c->requests < 2 || c->ever_pipelined || !c->keep_alive) return;
    if (!stream_can_sendfile(c->stream)) return;
    out->held = &c->held;
    out->file_min = c->conf->sendfile_min;
    out->file_max_held = c->conf->sendfile_max_unproven;
}

static void exchange_respond_h1(struct exchange *x, const struct head *resp, struct body *body)
{
    struct h1_conn *c = h1_conn_of(x);
    CHECK(c->state == H1_CONN_EXCHANGE && !c->responded);
    c->responded = true;
    c->resp_body = body;
    if (body) {
        body->notify = on_response_body;
        body->notify_arg = c;
    }
    c->body.want_continue = false;
    if (c->fail) return; /* end() comes soon and closes the body */

    unsigned status = resp->status;
    bool no_content = status < 200 || status == 204; /* not even a length */
    bool no_body = no_content || status == 304 || x->req.method == METHOD_HEAD;
    bool empty = no_body || resp->content_length == 0 || (!body && resp->content_length < 0);
    struct framing f = {0};
    enum h1_framing framing = H1_FRAME_LENGTH;
    c->keep_alive = may_keep_alive(c);
    if (!no_content && resp->content_length >= 0) {
        f.send_length = true;
        f.length = (uint64_t)resp->content_length;
    } else if (empty) {
        f.send_length = !no_body;
    } else if (x->req.minor >= 1) {
        f.chunked = true;
        framing = H1_FRAME_CHUNKED;
    } else {
        framing = H1_FRAME_CLOSE;
        c->keep_alive = false;
    }
    f.close = !c->keep_alive;
    f.keep_alive_1_0 = x->req.minor == 0;
    if (!empty && !body) {
        log_error("response of %lld bytes without a body: connection reset", (long long)resp->content_length);
        h1_conn_fail(c, ERR_INTERNAL);
        return;
    }
    if (!write_head(c, resp, &f)) {
        h1_conn_fail(c, ERR_NOMEM);
        return;
    }
    h1_out_begin_body(&c->work->out, framing, empty ? 0 : f.length);
    if (!empty) allow_sendfile(c);
    h1_conn_kick(c);
}

static void exchange_inform_h1(struct exchange *x)
{
    h1_request_body_continue(h1_conn_of(x));
}

static void exchange_reset_h1(struct exchange *x)
{
    h1_conn_fail(h1_conn_of(x), ERR_CANCELLED);
}

const struct exchange_ops h1_exchange_ops = {exchange_respond_h1, exchange_inform_h1, exchange_reset_h1};

bool h1_respond_error(struct h1_conn *c, enum err e, bool with_body)
{
    struct strbuf text;
    char id[ERROR_ID_BYTES] = "";
    struct hdr fields[2];
    struct head resp = {.status = err_status(e), .hdrs = fields, .nhdrs = 0, .content_length = 0};
    struct str type = str_c(c->conf->error_content_type);
    strbuf_init(&text, 0);
    if (c->conf->error_body) c->conf->error_body(e, &text, id);
    if (text.failed) text.n = 0;
    if (text.n && type.n) fields[resp.nhdrs++] = (struct hdr){STR_LIT("Content-Type"), type, HDR_CONTENT_TYPE};
    if (id[0]) fields[resp.nhdrs++] = (struct hdr){STR_LIT("x-amz-request-id"), str_c(id), HDR_AMZ_REQUEST_ID};
    struct framing f = {.send_length = true, .close = true, .length = text.n};
    struct h1_out *out = &c->work->out;
    bool ok = write_head(c, &resp, &f) && (!with_body || h1_out_add(out, text.p, text.n));
    strbuf_free(&text);
    return ok;
}
