/* h2_peer.h - for the tests of HTTP/2 to origins: one connection's other end, an nghttp2 server session on a non-blocking
 * socket, plain or TLS, that does what the path says. It is stepped by hand, or by a server's threads (h2_origin).
 *
 *   /size/N      N bytes of the pattern     /nolen/N     without Content-Length   /head/N     N header fields
 *   /cut/N/M     ends after M of N          /long/N      ends after N + 10        /rst/N/M    reset after M of N
 *   /stall/N/M   stops after M of N         /mute        never answers            /late/MS    answers later
 *   /refuse      REFUSED_STREAM `refuse` times, then 200                          /h1         HTTP_1_1_REQUIRED
 *   /goaway      GOAWAY below this stream   /bye         200, then GOAWAY         /echo       the request's fields
 *   /sink        how many body bytes came   /early       403 at once, RST(NO_ERROR) /interim  103, 103, 200
 *   /204 /304    without a body             /close       closes the socket        /once       closes it, once per server
 *   /trailers    body and trailers          /badname /badvalue /badstatus         malformed heads */
#ifndef S3P_TESTS_H2_PEER_H
#define S3P_TESTS_H2_PEER_H

#pragma GCC diagnostic ignored "-Wunused-function"

#include <errno.h>
#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct h2_shared { /* by all connections of a server */
    _Atomic unsigned accepted, open, open_max, requests, refused, resets, once, pings, threads, h1;
    _Atomic unsigned streams_max; /* at once on a connection, seen */
    unsigned refuse;              /* how many requests to /refuse are refused */
    uint32_t max_streams;         /* SETTINGS_MAX_CONCURRENT_STREAMS */
    uint64_t bytes_per_step;      /* of bodies; 0 = no bound */
    bool no_ping_ack;
};

struct h2_peer_stream {
    struct h2_peer_stream *next;
    int32_t id;
    char path[256], text[8192];
    size_t text_n;
    uint64_t at, size, body_bytes, late_ns;
    bool late, no_end, reset_at_end, answered, trailers;
};

struct h2_peer {
    int fd;
    SSL *ssl;
    nghttp2_session *session;
    struct h2_shared *shared;
    struct h2_peer_stream *streams;
    unsigned nstreams;
    uint8_t *out;
    size_t out_n, out_cap;
    bool closing;  /* after what is queued */
    bool hang_up;  /* at once */
    uint64_t budget;
};

static uint8_t h2_pattern_at(uint64_t i) { return (uint8_t)(i * 131 + (i >> 8) * 7 + (i >> 16)); }

static uint64_t peer_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- answers */

static ssize_t peer_read_body(nghttp2_session *session, int32_t id, uint8_t *buf, size_t n, uint32_t *flags,
                              nghttp2_data_source *source, void *arg)
{
    struct h2_peer *p = arg;
    struct h2_peer_stream *s = source->ptr;
    (void)id;
    if (s->text_n) { /* texts are short */
        size_t k = s->text_n < n ? s->text_n : n;
        memcpy(buf, s->text, k);
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        return (ssize_t)k;
    }
    if (s->at == s->size) {
        if (s->no_end) return NGHTTP2_ERR_DEFERRED;
        if (s->reset_at_end) {
            nghttp2_submit_rst_stream(session, 0, s->id, NGHTTP2_INTERNAL_ERROR);
            return NGHTTP2_ERR_DEFERRED;
        }
    }
    if (p->shared->bytes_per_step) {
        if (p->budget == 0) return NGHTTP2_ERR_PAUSE;
        if (n > p->budget) n = (size_t)p->budget;
    }
    if (n > s->size - s->at) n = (size_t)(s->size - s->at);
    for (size_t i = 0; i < n; i++) buf[i] = h2_pattern_at(s->at + i);
    s->at += n;
    if (p->shared->bytes_per_step) p->budget -= n;
    if (s->at == s->size && !s->no_end && !s->reset_at_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers) {
            nghttp2_nv t = {(uint8_t *)"x-sum", (uint8_t *)"1", 5, 1, 0};
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            nghttp2_submit_trailer(session, s->id, &t, 1);
        }
    }
    return (ssize_t)n;
}

#define PEER_NV(n, v) ((nghttp2_nv){(uint8_t *)(uintptr_t)(n), (uint8_t *)(uintptr_t)(v), strlen(n), strlen(v), 0})

static void peer_answer(struct h2_peer *p, struct h2_peer_stream *s, const char *status, int64_t length, bool body)
{
    char text[24];
    nghttp2_nv nv[300];
    size_t n = 0;
    unsigned long long many = 0;
    nghttp2_data_provider d = {.source = {.ptr = s}, .read_callback = peer_read_body};
    nv[n++] = PEER_NV(":status", status);
    snprintf(text, sizeof text, "%lld", (long long)length);
    if (length >= 0) nv[n++] = PEER_NV("content-length", text);
    if (strcmp(s->path, "/badname") == 0) nv[n++] = PEER_NV("connection", "close");
    if (strcmp(s->path, "/badvalue") == 0) nv[n++] = PEER_NV("x-bad", "a\001b");
    if (sscanf(s->path, "/head/%llu", &many) == 1)
        while (many-- && n < 300) nv[n++] = PEER_NV("x-field", "some value of a field that is not very short");
    s->answered = true;
    nghttp2_submit_response(p->session, s->id, nv, n, body ? &d : NULL);
}

static void peer_text(struct h2_peer *p, struct h2_peer_stream *s, const char *text)
{
    s->text_n = (size_t)snprintf(s->text, sizeof s->text, "%s", text);
    peer_answer(p, s, "200", (int64_t)s->text_n, true);
}

static void peer_special(struct h2_peer *p, struct h2_peer_stream *s)
{
    const char *path = s->path;
    nghttp2_nv early = PEER_NV(":status", "103");
    if (strcmp(path, "/refuse") == 0) {
        if (atomic_fetch_add(&p->shared->refused, 1) < p->shared->refuse)
            nghttp2_submit_rst_stream(p->session, 0, s->id, NGHTTP2_REFUSED_STREAM);
        else peer_text(p, s, "ok");
    } else if (strcmp(path, "/h1") == 0) {
        nghttp2_submit_rst_stream(p->session, 0, s->id, NGHTTP2_HTTP_1_1_REQUIRED);
    } else if (strcmp(path, "/goaway") == 0 && atomic_fetch_add(&p->shared->once, 1) == 0) {
        nghttp2_submit_goaway(p->session, 0, s->id - 2, NGHTTP2_NO_ERROR, NULL, 0);
        s->answered = true;
    } else if (strcmp(path, "/bye") == 0) {
        peer_text(p, s, "bye");
        nghttp2_submit_goaway(p->session, 0, s->id, NGHTTP2_NO_ERROR, NULL, 0);
    } else if (strcmp(path, "/interim") == 0) {
        nghttp2_submit_headers(p->session, 0, s->id, NULL, &early, 1, NULL);
        nghttp2_submit_headers(p->session, 0, s->id, NULL, &early, 1, NULL);
        peer_text(p, s, "ok");
    } else if (strcmp(path, "/204") == 0 || strcmp(path, "/304") == 0) {
        peer_answer(p, s, path + 1, -1, false);
    } else if (strcmp(path, "/badstatus") == 0) {
        peer_answer(p, s, "2x0", 0, false);
    } else if (strcmp(path, "/close") == 0 || (strcmp(path, "/once") == 0 && atomic_fetch_add(&p->shared->once, 1) == 0)) {
        p->hang_up = true;
    } else if (strcmp(path, "/mute") == 0) {
        s->answered = true;
    } else {
        peer_text(p, s, "ok");
    }
}

static void peer_request_done(struct h2_peer *p, struct h2_peer_stream *s)
{
    unsigned long long a = 0, b = 0;
    char text[64];
    int64_t length = -1;
    if (s->answered) return;
    atomic_fetch_add(&p->shared->requests, 1);
    if (sscanf(s->path, "/size/%llu", &a) == 1) length = (int64_t)(s->size = a);
    else if (sscanf(s->path, "/nolen/%llu", &a) == 1) s->size = a;
    else if (sscanf(s->path, "/cut/%llu/%llu", &a, &b) == 2 || sscanf(s->path, "/rst/%llu/%llu", &a, &b) == 2 ||
             sscanf(s->path, "/stall/%llu/%llu", &a, &b) == 2) {
        length = (int64_t)a;
        s->size = b;
        s->no_end = s->path[1] == 's';
        s->reset_at_end = s->path[1] == 'r';
    } else if (sscanf(s->path, "/long/%llu", &a) == 1) {
        length = (int64_t)a;
        s->size = a + 10;
    } else if (sscanf(s->path, "/late/%llu", &a) == 1) {
        s->late = true;
        s->late_ns = peer_now_ns() + a * 1000000;
        return;
    } else if (strcmp(s->path, "/echo") == 0) {
        return peer_answer(p, s, "200", (int64_t)s->text_n, true);
    } else if (strcmp(s->path, "/sink") == 0) {
        snprintf(text, sizeof text, "%llu", (unsigned long long)s->body_bytes);
        return peer_text(p, s, text);
    } else if (strcmp(s->path, "/trailers") == 0) {
        s->size = 1000;
        s->trailers = true;
    } else {
        return peer_special(p, s);
    }
    s->text_n = 0;
    peer_answer(p, s, "200", length, true);
}

/* ---- nghttp2's callbacks */

static int peer_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_peer *p = arg;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    struct h2_peer_stream *s = calloc(1, sizeof *s);
    s->id = frame->hd.stream_id;
    s->next = p->streams;
    p->streams = s;
    if (++p->nstreams > atomic_load(&p->shared->streams_max)) atomic_store(&p->shared->streams_max, p->nstreams);
    nghttp2_session_set_stream_user_data(session, s->id, s);
    return 0;
}

static int peer_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                       const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct h2_peer_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    (void)arg, (void)flags;
    if (!s) return 0;
    if (name_n == 5 && memcmp(name, ":path", 5) == 0) snprintf(s->path, sizeof s->path, "%.*s", (int)value_n, value);
    size_t room = sizeof s->text - s->text_n;
    int n = snprintf(s->text + s->text_n, room, "%.*s: %.*s\n", (int)name_n, name, (int)value_n, value);
    if (n > 0 && (size_t)n < room) s->text_n += (size_t)n;
    return 0;
}

static int peer_frame(nghttp2_session *session, const nghttp2_frame *frame, void *arg)
{
    struct h2_peer *p = arg;
    struct h2_peer_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (frame->hd.type == NGHTTP2_RST_STREAM) atomic_fetch_add(&p->shared->resets, 1);
    if (frame->hd.type == NGHTTP2_PING && !(frame->hd.flags & NGHTTP2_FLAG_ACK)) {
        atomic_fetch_add(&p->shared->pings, 1);
        if (!p->shared->no_ping_ack) nghttp2_submit_ping(session, NGHTTP2_FLAG_ACK, frame->ping.opaque_data);
    }
    if (!s) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && strcmp(s->path, "/early") == 0) {
        peer_answer(p, s, "403", 0, false);
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS && strstr(s->text, "expect: 100-continue") && strcmp(s->path, "/sink") == 0) {
        nghttp2_nv go = PEER_NV(":status", "100");
        nghttp2_submit_headers(session, 0, s->id, NULL, &go, 1, NULL);
    }
    bool over = frame->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (over && (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA)) peer_request_done(p, s);
    return 0;
}

static int peer_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data, size_t n, void *arg)
{
    struct h2_peer_stream *s = nghttp2_session_get_stream_user_data(session, id);
    (void)flags, (void)arg;
    for (size_t i = 0; s && i < n; i++)
        if (data[i] != h2_pattern_at(s->body_bytes + i)) s->body_bytes = 1u << 31; /* wrong bytes: a wrong count */
    if (s) s->body_bytes += n;
    return 0;
}

static int peer_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct h2_peer *p = arg;
    (void)session, (void)code;
    for (struct h2_peer_stream **at = &p->streams; *at; at = &(*at)->next)
        if ((*at)->id == id) {
            struct h2_peer_stream *s = *at;
            *at = s->next;
            p->nstreams--;
            free(s);
            break;
        }
    return 0;
}

/* ---- bytes */

static void peer_init(struct h2_peer *p, int fd, SSL *ssl, struct h2_shared *shared)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *opt;
    *p = (struct h2_peer){.fd = fd, .ssl = ssl, .shared = shared};
    nghttp2_session_callbacks_new(&cb);
    nghttp2_option_new(&opt);
    nghttp2_option_set_no_http_messaging(opt, 1); /* or it would not send what is malformed */
    nghttp2_option_set_no_auto_ping_ack(opt, 1);
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, peer_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, peer_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, peer_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, peer_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, peer_stream_close);
    nghttp2_session_server_new2(&p->session, cb, p, opt);
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(opt);
    nghttp2_settings_entry e = {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, shared->max_streams ? shared->max_streams : 100};
    nghttp2_submit_settings(p->session, 0, &e, 1);
}

static void peer_free(struct h2_peer *p)
{
    while (p->streams) peer_stream_close(p->session, p->streams->id, 0, p);
    nghttp2_session_del(p->session);
    if (p->ssl) SSL_free(p->ssl);
    close(p->fd);
    free(p->out);
}

static ssize_t peer_sock_read(struct h2_peer *p, void *buf, size_t n)
{
    if (!p->ssl) return recv(p->fd, buf, n, MSG_DONTWAIT);
    int r = SSL_read(p->ssl, buf, (int)n);
    if (r > 0) return r;
    int e = SSL_get_error(p->ssl, r);
    errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
    return e == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t peer_sock_write(struct h2_peer *p, const void *buf, size_t n)
{
    if (!p->ssl) return send(p->fd, buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    int r = SSL_write(p->ssl, buf, (int)n);
    if (r > 0) return r;
    int e = SSL_get_error(p->ssl, r);
    errno = e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
    return -1;
}

/* Whatever can be done now; false: the connection is over. */
static bool peer_step(struct h2_peer *p)
{
    static _Thread_local uint8_t buf[65536];
    uint64_t now = peer_now_ns();
    ssize_t n;
    p->budget = p->shared->bytes_per_step;
    while ((n = peer_sock_read(p, buf, sizeof buf)) > 0)
        if (nghttp2_session_mem_recv(p->session, buf, (size_t)n) < 0 || p->hang_up) return false;
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
    for (struct h2_peer_stream *s = p->streams; s; s = s->next)
        if (s->late && now >= s->late_ns) {
            s->late = false;
            peer_text(p, s, "ok");
        }
    for (;;) {
        const uint8_t *data;
        while (p->out_n < 65536 && (n = nghttp2_session_mem_send(p->session, &data)) > 0) {
            if (p->out_n + (size_t)n > p->out_cap) p->out = realloc(p->out, p->out_cap = (p->out_n + (size_t)n) * 2);
            memcpy(p->out + p->out_n, data, (size_t)n);
            p->out_n += (size_t)n;
        }
        if (p->out_n == 0) return !p->closing && (nghttp2_session_want_read(p->session) || nghttp2_session_want_write(p->session));
        n = peer_sock_write(p, p->out, p->out_n);
        if (n < 0) return errno == EAGAIN || errno == EINTR;
        memmove(p->out, p->out + n, p->out_n - (size_t)n);
        p->out_n -= (size_t)n;
    }
}

#endif
