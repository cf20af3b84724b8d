/* h2_client_call.c - one request on an HTTP/2 connection: its body on the way out, the response's on the way in, its
 * window, its end.
 *
 * Out: nghttp2 asks how many bytes it may frame, then asks for them to be put behind the frame's head in the output: one
 * copy. A batch is pulled from the producer only when the one before it is gone.
 * In: bytes are copied to where the receiver wants them. Those it has no space for are held until resume; they are not
 * given back to the window before, so the peer can never send more than the window of them. */
#include "http/h2_client_impl.h"

#include <stdlib.h>

/* ---- timers */

void h2_call_timer(struct h2_call *s, enum h2_timer_kind kind)
{
    const struct client_timeouts *t = &s->client->timeouts;
    s->timer_kind = kind;
    switch (kind) {
    case H2_TIMER_NONE: return; /* if it fires it finds nothing to do */
    case H2_TIMER_EXPECT: return timer_set(&s->timer, H2_EXPECT_WAIT_MS);
    case H2_TIMER_FIRST_BYTE: return timer_set(&s->timer, t->first_byte_ms);
    case H2_TIMER_SEND:
    case H2_TIMER_STALL: return timer_set(&s->timer, t->stall_ms);
    }
}

/* ---- the request body */

void h2_call_stop_request(struct h2_call *s)
{
    for (; s->first < s->count; s->first++) chunk_release(&s->chunks[s->first], CHUNK_COPIED);
    s->have = s->first_off = 0;
    s->hold_body = false;
    if (s->body && s->body->ops) body_close(s->body);
    s->body = NULL;
}

/* ERR_OK: there are bytes, or the end is known. */
static enum err body_fill(struct h2_call *s)
{
    size_t room = s->length_known && s->left < H2_PULL_BYTES ? (size_t)s->left : H2_PULL_BYTES;
    unsigned n = 0;
    s->first = s->count = 0;
    s->first_off = s->have = 0;
    s->notified = false;
    enum err e = body_pull(s->body, s->chunks, H2_CHUNKS, room, &n);
    if (e == ERR_END) {
        if (s->length_known) return ERR_INCOMPLETE_BODY;
        s->body_end = true;
        return ERR_OK;
    }
    if (e != ERR_OK) return e == ERR_TRUNCATED ? ERR_INCOMPLETE_BODY : e;
    s->sent_body = true;
    s->count = n;
    if (s->told) { /* cancelled by the producer: nobody else will release them */
        h2_call_stop_request(s);
        return ERR_CANCELLED;
    }
    CHECK(n <= H2_CHUNKS);
    for (unsigned i = 0; i < n; i++) s->have += s->chunks[i].len;
    if (s->have == 0 || s->have > room) return ERR_INTERNAL;
    if (!s->length_known) return ERR_OK;
    s->left -= s->have;
    s->body_end = s->left == 0;
    return ERR_OK;
}

ssize_t h2_call_read_cb(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                          nghttp2_data_source *source, void *arg)
{
    struct h2_call *s = source->ptr;
    (void)session, (void)id, (void)buf, (void)arg;
    CHECK_OBJ(s, H2_CALL_MAGIC);
    s->deferred = true;
    if (!s->body || s->hold_body || !s->client->peer_settled || !h2_call_is_live(s)) return NGHTTP2_ERR_DEFERRED;
    enum err e = s->have || s->body_end ? ERR_OK : body_fill(s);
    if (!h2_call_is_live(s)) return NGHTTP2_ERR_DEFERRED;
    if (e == ERR_AGAIN) { /* waiting for the producer is not the origin's fault; on_request_body pokes */
        h2_call_timer(s, H2_TIMER_NONE);
        return NGHTTP2_ERR_DEFERRED;
    }
    if (e != ERR_OK) {
        h2_call_finish(s, e);
        return NGHTTP2_ERR_DEFERRED;
    }
    s->deferred = false;
    size_t n = s->have < length ? s->have : length;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == s->have && s->body_end) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

bool h2_call_put_body(struct h2_call *s, size_t n)
{
    CHECK(n <= s->have);
    s->have -= n;
    while (n) {
        struct chunk *c = &s->chunks[s->first];
        size_t part = c->len - s->first_off < n ? c->len - s->first_off : n;
        if (!h2_client_out_add(s->client, c->data + s->first_off, part)) return false;
        n -= part;
        s->first_off += part;
        if (s->first_off < c->len) continue;
        chunk_release(c, CHUNK_COPIED);
        s->first++;
        s->first_off = 0;
    }
    return true;
}

/* ---- the window */

static void window_set(struct h2_call *s, uint32_t window)
{
    struct h2_client *c = s->client;
    uint32_t budget = (uint32_t)(H2_GROWN_MAX - c->grown_bytes);
    if (window > H2_WINDOW_MAX) window = H2_WINDOW_MAX;
    if (window <= s->window || meter_is_tight(&c->memory)) return;
    if (window - s->window > budget) window = s->window + budget;
    if (window == s->window || s->closed || s->whole || !c->settled) return;
    if (nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, s->id, (int32_t)window) != 0) return;
    c->grown_bytes += window - s->window;
    s->window = window;
}

void h2_call_window_open(struct h2_call *s)
{
    s->epoch_ns = loop_now_ns(s->client->loop);
    if (s->expect_bytes <= H2_WINDOW_MIN) return;
    window_set(s, s->expect_bytes < H2_WINDOW_EXPECT_MAX ? (uint32_t)s->expect_bytes : H2_WINDOW_EXPECT_MAX);
}

static void window_close(struct h2_call *s)
{
    s->client->grown_bytes -= s->window - H2_WINDOW_MIN;
    s->window = H2_WINDOW_MIN;
}

/* The receiver took n bytes. Half a window within two round trips: the window is what slows the peer down. */
static void window_took(struct h2_call *s, size_t n)
{
    struct h2_client *c = s->client;
    if (s->closed || s->whole || c->lost != ERR_OK) return;
    s->taken += n;
    if (s->taken >= s->window / 2) {
        uint64_t now = loop_now_ns(c->loop);
        bool more = s->body_length < 0 || (uint64_t)s->body_length - s->received > s->window;
        if (more && now - s->epoch_ns < 2 * c->rtt_ns) window_set(s, s->window * 2);
        s->taken = 0;
        s->epoch_ns = now;
    }
    nghttp2_session_consume_stream(c->session, s->id, n);
}

/* ---- the response body */

/* Copies to the receiver as long as it has space; returns how many bytes it took. */
static size_t deliver(struct h2_call *s, const uint8_t *data, size_t n)
{
    size_t done = 0;
    while (done < n && !s->told) {
        struct iovec iov[H2_SPACE_IOVS];
        unsigned k = s->ev->space(s->arg, iov, H2_SPACE_IOVS);
        if (s->told) break;
        CHECK(k <= H2_SPACE_IOVS);
        size_t put = 0;
        for (unsigned i = 0; i < k && done + put < n; i++) {
            size_t part = n - done - put < iov[i].iov_len ? n - done - put : iov[i].iov_len;
            if (part) memcpy(iov[i].iov_base, data + done + put, part);
            put += part;
        }
        if (put == 0) {
            s->paused = true;
            h2_call_timer(s, H2_TIMER_NONE);
            break;
        }
        done += put;
        window_took(s, put);
        s->ev->filled(s->arg, put);
    }
    return done;
}

/* Held bytes move only when at least as many places before them are free, so each moves once on average. */
static bool hold_add(struct h2_call *s, const uint8_t *data, size_t n)
{
    if (s->hold_off && s->hold_off >= s->hold_n) {
        memmove(s->hold, s->hold + s->hold_off, s->hold_n);
        s->hold_off = 0;
    }
    if (s->hold_cap - s->hold_off - s->hold_n < n) {
        size_t cap = s->hold_cap ? s->hold_cap : 16 * 1024;
        while (cap - s->hold_off - s->hold_n < n) cap *= 2;
        uint8_t *hold = realloc(s->hold, cap);
        if (!hold) return false;
        meter_add(&s->client->memory, cap - s->hold_cap);
        s->hold = hold;
        s->hold_cap = cap;
    }
    memcpy(s->hold + s->hold_off + s->hold_n, data, n);
    s->hold_n += n;
    return true;
}

void h2_call_receive(struct h2_call *s, const uint8_t *data, size_t n)
{
    s->received += n;
    s->client->received_bytes += n;
    if (!s->paused) h2_call_timer(s, H2_TIMER_STALL);
    size_t done = s->paused || s->hold_n ? 0 : deliver(s, data, n);
    if (s->told || done == n) return;
    if (!hold_add(s, data + done, n - done)) h2_call_finish(s, ERR_NOMEM);
}

static void hold_free(struct h2_call *s)
{
    meter_sub(&s->client->memory, s->hold_cap);
    free(s->hold);
    s->hold = NULL;
    s->hold_off = s->hold_n = s->hold_cap = 0;
}

static void drain(struct h2_call *s)
{
    size_t done = deliver(s, s->hold + s->hold_off, s->hold_n);
    s->hold_off += done;
    s->hold_n -= done;
    if (s->hold_n == 0) hold_free(s);
}

/* ---- the end */

void h2_call_finish(struct h2_call *s, enum err e)
{
    struct h2_client *c = s->client;
    if (!h2_call_is_live(s)) return;
    s->over = true;
    s->result = e;
    h2_call_timer(s, H2_TIMER_NONE);
    if (!s->closed && (e != ERR_OK || !s->request_sent))
        nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, s->id, e == ERR_OK ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL);
    h2_call_due(s);
}

/* From here on the receiver knows nothing of the stream. */
static void retire(struct h2_call *s)
{
    struct h2_client *c = s->client;
    h2_call_stop_request(s);
    timer_stop(&s->timer);
    window_close(s);
    s->told = true;
    c->live--;
    c->changed = true;
    c->idle_since_ms = loop_now_ms(c->loop);
    if (!s->closed) return;
    c->nstreams--; /* a request sent from end() finds room */
    list_remove(&s->link);
}

void h2_call_step(struct h2_call *s)
{
    CHECK_OBJ(s, H2_CALL_MAGIC);
    if (s->poke && s->deferred && h2_call_is_live(s) && !s->closed) {
        s->deferred = false;
        h2_call_timer(s, H2_TIMER_SEND);
        nghttp2_session_resume_data(s->client->session, s->id);
    }
    s->poke = false;
    bool sound = !s->told && (!s->over || s->result == ERR_OK);
    if (sound && s->hold_n && !s->paused) drain(s);
    if (!s->told && s->over && (s->result != ERR_OK || s->hold_n == 0)) {
        retire(s);
        s->ev->end(s->arg, s->result);
    }
    if (s->told && s->closed) h2_call_free(s);
}

void h2_call_free(struct h2_call *s)
{
    if (list_linked(&s->link)) {
        list_remove(&s->link);
        s->client->nstreams--;
    }
    list_remove(&s->due);
    h2_call_stop_request(s);
    timer_stop(&s->timer);
    hold_free(s);
    s->magic = 0;
    free(s);
}

/* ---- what the receiver calls */

void h2_call_resume(struct h2_call *s)
{
    CHECK_OBJ(s, H2_CALL_MAGIC);
    if (!s->paused || s->told) return;
    s->paused = false;
    if (!s->over) h2_call_timer(s, H2_TIMER_STALL);
    h2_call_due(s);
    h2_client_kick(s->client);
}

void h2_call_cancel(struct h2_call *s)
{
    CHECK_OBJ(s, H2_CALL_MAGIC);
    if (s->told) return;
    if (!s->over && !s->closed)
        nghttp2_submit_rst_stream(s->client->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL);
    retire(s);
    h2_call_due(s);
    h2_client_kick(s->client);
}

bool h2_call_got_bytes(const struct h2_call *s) { return s->got_bytes; }

bool h2_call_sent_body(const struct h2_call *s) { return s->sent_body; }

bool h2_call_unprocessed(const struct h2_call *s) { return s->unprocessed; }

bool h2_call_bystander(const struct h2_call *s) { return s->bystander; }

bool h2_call_refused(const struct h2_call *s) { return s->refused; }

bool h2_call_wants_h1(const struct h2_call *s) { return s->wants_h1; }
