/* h2_origin.h - for the tests of origins: h2_peer.h behind a listening socket, a thread per connection. With TLS the
 * protocol is what ALPN gives; what comes as HTTP/1.1 is served /size/N and "ok" for all else. */
#ifndef S3P_TESTS_H2_ORIGIN_H
#define S3P_TESTS_H2_ORIGIN_H

#include "h2_peer.h"

#include <openssl/err.h>
#include <openssl/x509.h>

enum { H2_TLS_NONE, H2_TLS_BOTH, H2_TLS_H1_ONLY, H2_TLS_H2_ONLY };
struct h2_origin {
    int fd, tls;
    unsigned port;
    pthread_t thread;
    SSL_CTX *ctx;
    _Atomic bool stop;
    struct h2_shared shared;
};
struct h2_origin_conn {
    struct h2_origin *server;
    int fd;
};

static int server_choose(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                         unsigned in_n, void *arg)
{
    static const unsigned char both[] = "\x02h2\x08http/1.1", h1[] = "\x08http/1.1";
    struct h2_origin *s = arg;
    unsigned char *chosen;
    (void)ssl;
    const unsigned char *ours = s->tls == H2_TLS_H1_ONLY ? h1 : both;
    unsigned n = s->tls == H2_TLS_H1_ONLY ? sizeof h1 - 1 : s->tls == H2_TLS_H2_ONLY ? 3 : sizeof both - 1;
    if (SSL_select_next_proto(&chosen, out_n, ours, n, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static SSL_CTX *server_ctx(struct h2_origin *s)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"t", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    if (X509_sign(cert, key, EVP_sha256()) <= 0 || !SSL_CTX_use_certificate(ctx, cert) || !SSL_CTX_use_PrivateKey(ctx, key))
        abort();
    X509_free(cert);
    EVP_PKEY_free(key);
    SSL_CTX_set_alpn_select_cb(ctx, server_choose, s);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static void server_h1(struct h2_origin *s, SSL *ssl)
{
    char head[8192], answer[256];
    atomic_fetch_add(&s->shared.h1, 1);
    for (size_t n = 0; !atomic_load(&s->stop);) {
        head[n] = '\0';
        char *end = strstr(head, "\r\n\r\n");
        if (!end) {
            struct pollfd p = {.fd = SSL_get_fd(ssl), .events = POLLIN};
            if (!SSL_pending(ssl) && poll(&p, 1, 20) == 0) continue;
            int got = SSL_read(ssl, head + n, (int)(sizeof head - 1 - n));
            if (got <= 0) return;
            n += (size_t)got;
            continue;
        }
        unsigned long long size = 2;
        bool sized = sscanf(strchr(head, ' ') + 1, "/size/%llu", &size) == 1;
        int len = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nContent-Length: %llu\r\n\r\n%s", size, sized ? "" : "ok");
        atomic_fetch_add(&s->shared.requests, 1);
        if (SSL_write(ssl, answer, len) <= 0) return;
        for (uint64_t at = 0; sized && at < size;) {
            static _Thread_local uint8_t buf[16384];
            size_t k = size - at < sizeof buf ? (size_t)(size - at) : sizeof buf;
            for (size_t i = 0; i < k; i++) buf[i] = h2_pattern_at(at + i);
            if (SSL_write(ssl, buf, (int)k) <= 0) return;
            at += k;
        }
        n = 0;
    }
}

static void server_h2(struct h2_origin *s, int fd, SSL *ssl)
{
    struct h2_peer p;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    peer_init(&p, fd, ssl, &s->shared);
    while (!atomic_load(&s->stop) && peer_step(&p)) {
        bool late = false;
        for (struct h2_peer_stream *st = p.streams; st; st = st->next) late |= st->late;
        bool more = p.shared->bytes_per_step && nghttp2_session_want_write(p.session);
        struct pollfd w = {.fd = fd, .events = (short)(POLLIN | (p.out_n ? POLLOUT : 0))};
        poll(&w, 1, more || late ? 1 : 20);
    }
    if (p.hang_up || !ssl) shutdown(fd, SHUT_RDWR);
    else SSL_shutdown(ssl);
    peer_free(&p);
}

static void *server_conn_thread(void *arg)
{
    struct h2_origin_conn *c = arg;
    struct h2_origin *s = c->server;
    SSL *ssl = NULL;
    const unsigned char *alpn = NULL;
    unsigned n = 0;
    if (s->tls) {
        ssl = SSL_new(s->ctx);
        SSL_set_fd(ssl, c->fd);
        if (SSL_accept(ssl) != 1) {
            SSL_free(ssl);
            close(c->fd);
            goto done;
        }
        SSL_get0_alpn_selected(ssl, &alpn, &n);
    }
    if (s->tls == H2_TLS_H2_ONLY && n != 2) { /* as some do: not a word */
        SSL_shutdown(ssl);
        SSL_free(ssl);
        close(c->fd);
    } else if (s->tls && n != 2) {
        server_h1(s, ssl);
        SSL_shutdown(ssl);
        SSL_free(ssl);
        close(c->fd);
    } else {
        server_h2(s, c->fd, ssl);
    }
done:
    ERR_clear_error();
    atomic_fetch_sub(&s->shared.open, 1);
    free(c);
    atomic_fetch_sub(&s->shared.threads, 1);
    return NULL;
}

static void *h2_origin_main(void *arg)
{
    struct h2_origin *s = arg;
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, 20) == 0) continue;
        int fd = accept(s->fd, NULL, NULL), on = 1;
        if (fd < 0) continue;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct h2_origin_conn *c = malloc(sizeof *c);
        pthread_t t;
        *c = (struct h2_origin_conn){s, fd};
        atomic_fetch_add(&s->shared.accepted, 1);
        atomic_fetch_add(&s->shared.threads, 1);
        unsigned open = atomic_fetch_add(&s->shared.open, 1) + 1;
        if (open > atomic_load(&s->shared.open_max)) atomic_store(&s->shared.open_max, open);
        if (pthread_create(&t, NULL, server_conn_thread, c) != 0) abort();
        pthread_detach(t);
    }
    return NULL;
}

static void h2_origin_start(struct h2_origin *s, int tls)
{
    memset(s, 0, sizeof *s);
    s->tls = tls;
    s->fd = listen_any(&s->port);
    if (tls) s->ctx = server_ctx(s);
    if (listen(s->fd, 256) != 0 || pthread_create(&s->thread, NULL, h2_origin_main, s) != 0) abort();
}

static void h2_origin_stop(struct h2_origin *s)
{
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 500 && atomic_load(&s->shared.threads); i++) sleep_ms(10);
    assert_int_equal(atomic_load(&s->shared.threads), 0);
    close(s->fd);
    if (s->ctx) SSL_CTX_free(s->ctx);
}

#endif
