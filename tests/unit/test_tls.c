/* test_tls.c - TLS streams. The peer is plain OpenSSL on a thread of its own, with certificates of a CA made here; bulk
 * transfer runs against our own server side. Includes tls.c to build a server's context from its parts. */
#include "stream_util.h"

#include <fcntl.h>
#include <openssl/pem.h>
#include <signal.h>

#include "io/tls.c"

/* ---- certificates */

static EVP_PKEY *ca_key, *leaf_key;
static X509 *ca, *leaf;
static char ca_path[] = "/tmp/test_stream_ca.XXXXXX", other_ca_path[] = "/tmp/test_stream_other.XXXXXX";

static void cert_extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static X509 *cert_make(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key, const char *alt_names)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), (long)(random_u64() >> 34) + 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer ? issuer : cert));
    cert_extend(cert, issuer ? issuer : cert, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
    cert_extend(cert, cert, NID_subject_key_identifier, "hash");
    if (alt_names) cert_extend(cert, issuer, NID_subject_alt_name, alt_names);
    assert_true(X509_sign(cert, issuer_key ? issuer_key : key, EVP_sha256()) > 0);
    return cert;
}

static void pem_write(char *path, X509 *cert)
{
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
}

static int certs_setup(void **state)
{
    (void)state;
    ca_key = EVP_EC_gen("P-256");
    leaf_key = EVP_EC_gen("P-256");
    EVP_PKEY *other_key = EVP_EC_gen("P-256");
    ca = cert_make(ca_key, "test CA", NULL, NULL, NULL);
    X509 *other = cert_make(other_key, "other CA", NULL, NULL, NULL);
    leaf = cert_make(leaf_key, "only.in.cn.test", ca, ca_key, "DNS:origin.test,DNS:*.wild.test,IP:127.0.0.1,IP:::1");
    pem_write(ca_path, ca);
    pem_write(other_ca_path, other);
    X509_free(other);
    EVP_PKEY_free(other_key);
    return 0;
}

static int certs_teardown(void **state)
{
    (void)state;
    unlink(ca_path);
    unlink(other_ca_path);
    X509_free(ca);
    X509_free(leaf);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(leaf_key);
    return 0;
}

/* ---- the OpenSSL peer: does what the first byte it reads says */

static struct {
    pthread_t thread;
    int fd;
    struct address address;
    SSL_CTX *ctx;
    atomic_bool stop;
} peer;

static int peer_choose_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in,
                            unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void)ssl;
    (void)arg;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_n, ours, sizeof ours - 1, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void peer_talk(SSL *ssl, int fd)
{
    char command;
    struct linger now = {1, 0};
    while (SSL_read(ssl, &command, 1) == 1) {
        switch (command) {
        case 'h': /* greet and stay */
            SSL_write(ssl, "hello", 5);
            break;
        case 's': /* tell which name was asked for */
            SSL_write(ssl, SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name) ? "name" : "none", 4);
            break;
        case 'k':
            SSL_key_update(ssl, SSL_KEY_UPDATE_REQUESTED);
            SSL_write(ssl, "key", 3);
            break;
        case 'q': /* an orderly end */
            SSL_write(ssl, "bye", 3);
            SSL_shutdown(ssl);
            return;
        case 't': /* the bytes, but no close_notify */
            SSL_write(ssl, "cut", 3);
            return;
        case 'r':
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
            return;
        default:
            return;
        }
    }
}

static void *peer_main(void *arg)
{
    sigset_t all;
    (void)arg;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;) {
        int fd = accept(peer.fd, NULL, NULL);
        if (fd < 0) continue;
        if (atomic_load(&peer.stop)) {
            close(fd);
            return NULL;
        }
        SSL *ssl = SSL_new(peer.ctx);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) == 1) peer_talk(ssl, fd);
        SSL_free(ssl);
        ERR_clear_error();
        close(fd);
    }
}

static int peer_start(void **state)
{
    if (setup(state) != 0) return -1;
    peer.fd = listen_any(&peer.address);
    fcntl(peer.fd, F_SETFL, 0); /* it may block */
    peer.ctx = SSL_CTX_new(TLS_server_method());
    SSL_CTX_use_certificate(peer.ctx, leaf);
    SSL_CTX_use_PrivateKey(peer.ctx, leaf_key);
    SSL_CTX_set_session_id_context(peer.ctx, (const unsigned char *)"t", 1);
    SSL_CTX_set_alpn_select_cb(peer.ctx, peer_choose_alpn, NULL);
    atomic_store(&peer.stop, false);
    return pthread_create(&peer.thread, NULL, peer_main, NULL);
}

static int peer_end(void **state)
{
    atomic_store(&peer.stop, true);
    close(connect_blocking(&peer.address));
    pthread_join(peer.thread, NULL);
    close(peer.fd);
    SSL_CTX_free(peer.ctx);
    return teardown(state);
}

static struct tls_ctx *client_ctx(const char *ca_file, bool verify, const char *alpn)
{
    struct tls_client_options o = {.ca_file = ca_file, .verify = verify, .alpn = alpn};
    struct tls_ctx *ctx;
    char msg[200];
    assert_int_equal(tls_client_ctx_create(&o, &ctx, msg, sizeof msg), ERR_OK);
    return ctx;
}

static enum err handshake(struct stream *s)
{
    enum err e;
    while ((e = stream_handshake(s)) == ERR_AGAIN) wait_ready();
    return e;
}

static struct stream *tls_connect(struct tls_ctx *ctx, const char *name, enum err want)
{
    struct stream *s;
    struct address *a = &peer.address;
    assert_int_equal(stream_connect(loop, (struct sockaddr *)&a->ss, a->len, on_stream, NULL, &s), ERR_OK);
    assert_int_equal(finish_connect(s), ERR_OK);
    assert_int_equal(stream_tls_client(s, ctx, name), ERR_OK);
    enum err e = handshake(s);
    if (e != want) print_message("%s: %s\n", name, stream_error(s));
    assert_int_equal(e, want);
    return s;
}

/* ---- TLS */

static void a_verified_peer_talks(void **state)
{
    (void)state;
    char buf[8];
    size_t got;
    struct tls_ctx *ctx = client_ctx(ca_path, true, "h2,http/1.1");
    struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
    assert_true(stream_is_tls(s));
    assert_false(stream_can_sendfile(s));
    assert_string_equal(stream_alpn(s), "http/1.1");
    assert_int_equal(stream_read(s, buf, sizeof buf, &got), ERR_AGAIN);
    assert_false(stream_idle_broken(s));
    assert_int_equal(write_all_of(s, "h", 1), ERR_OK);
    expect_bytes(s, "hello");
    assert_int_equal(write_all_of(s, "s", 1), ERR_OK);
    expect_bytes(s, "name");
    assert_int_equal(write_all_of(s, "k", 1), ERR_OK);
    expect_bytes(s, "key");
    assert_false(stream_idle_broken(s));
    assert_int_equal(write_all_of(s, "q", 1), ERR_OK);
    expect_bytes(s, "bye");
    assert_int_equal(read_some(s, buf, sizeof buf, &got), ERR_END);
    assert_int_equal(stream_read(s, buf, sizeof buf, &got), ERR_END);
    assert_true(stream_idle_broken(s));
    stream_destroy(s);
    tls_ctx_destroy(ctx);
}

static void names_and_addresses_that_match(void **state)
{
    (void)state;
    static const char *const names[] = {"origin.test", "ORIGIN.test", "origin.test.", "a.wild.test", "127.0.0.1",
                                        "[::1]", "::1"};
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct stream *s = tls_connect(ctx, names[i], ERR_OK);
        assert_string_equal(stream_alpn(s), "");
        if (i == 4) {
            assert_int_equal(write_all_of(s, "s", 1), ERR_OK);
            expect_bytes(s, "none"); /* an address is not a server name */
        }
        stream_destroy(s);
    }
    tls_ctx_destroy(ctx);
}

static void names_that_do_not_match_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"other.test", "a.b.wild.test", "wild.test", "127.0.0.2", "::2",
                                        "only.in.cn.test"};
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct stream *s = tls_connect(ctx, names[i], ERR_TLS);
        assert_non_null(strstr(stream_error(s), "mismatch"));
        assert_non_null(strstr(stream_error(s), names[i]));
        assert_int_equal(stream_handshake(s), ERR_TLS); /* stays so */
        stream_destroy(s);
    }
    struct stream *s; /* names that cannot be */
    struct address *a = &peer.address;
    char big[300];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(stream_connect(loop, (struct sockaddr *)&a->ss, a->len, on_stream, NULL, &s), ERR_OK);
    assert_int_equal(stream_tls_client(s, ctx, ""), ERR_TLS);
    assert_int_equal(stream_tls_client(s, ctx, big), ERR_TLS);
    stream_destroy(s);
    tls_ctx_destroy(ctx);
}

static void an_untrusted_issuer_is_refused_unless_told_otherwise(void **state)
{
    (void)state;
    struct tls_ctx *ctx = client_ctx(other_ca_path, true, NULL);
    struct stream *s = tls_connect(ctx, "origin.test", ERR_TLS);
    assert_non_null(strstr(stream_error(s), "certificate"));
    stream_destroy(s);
    tls_ctx_destroy(ctx);
    ctx = client_ctx(NULL, true, NULL); /* the system's store does not know it either */
    stream_destroy(tls_connect(ctx, "origin.test", ERR_TLS));
    tls_ctx_destroy(ctx);
    ctx = client_ctx(NULL, false, NULL);
    stream_destroy(tls_connect(ctx, "whatever.test", ERR_OK));
    tls_ctx_destroy(ctx);
}

static void an_end_without_close_notify_is_truncation(void **state)
{
    (void)state;
    char buf[8];
    size_t got;
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        SSL_CTX_set_max_proto_version(ctx->ssl_ctx, version);
        struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
        assert_int_equal(write_all_of(s, "t", 1), ERR_OK);
        expect_bytes(s, "cut");
        assert_int_equal(read_some(s, buf, sizeof buf, &got), ERR_TRUNCATED);
        assert_true(stream_error(s)[0] != '\0');
        assert_int_equal(stream_read(s, buf, sizeof buf, &got), ERR_TRUNCATED);
        assert_true(stream_idle_broken(s));
        stream_destroy(s);
    }
    tls_ctx_destroy(ctx);
}

static void a_reset_below_tls_is_a_reset(void **state)
{
    (void)state;
    char buf[8];
    size_t got, put;
    signal(SIGPIPE, SIG_DFL);
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
    assert_int_equal(write_all_of(s, "r", 1), ERR_OK);
    assert_int_equal(read_some(s, buf, sizeof buf, &got), ERR_RESET);
    struct iovec v = {"x", 1};
    assert_int_equal(stream_writev(s, &v, 1, &put), ERR_RESET);
    stream_destroy(s);
    tls_ctx_destroy(ctx);
}

/* The peer answers early and closes while we still send: the write fails, the answer must be readable. */
static void an_early_answer_survives_a_failed_write(void **state)
{
    (void)state;
    char buf[8];
    size_t got, put;
    static char big[1 << 20];
    struct iovec v = {big, sizeof big};
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
    assert_int_equal(write_all_of(s, "q", 1), ERR_OK);
    enum err e = ERR_OK;
    for (int i = 0; i < 1000 && (e == ERR_OK || e == ERR_AGAIN); i++) {
        e = stream_writev(s, &v, 1, &put);
        if (e == ERR_AGAIN) wait_ready();
    }
    assert_int_equal(e, ERR_RESET);
    e = stream_read(s, buf, sizeof buf, &got);
    /* The kernel may already have thrown the bytes away with the reset; but never anything else. */
    assert_true(e == ERR_OK || e == ERR_RESET);
    if (e == ERR_OK) assert_memory_equal(buf, "bye", got);
    stream_destroy(s);
    tls_ctx_destroy(ctx);
}

static void sessions_are_resumed_per_name(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
        SSL_CTX_set_max_proto_version(ctx->ssl_ctx, version);
        long before = SSL_CTX_sess_hits(peer.ctx);
        for (int i = 0; i < 3; i++) {
            struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
            assert_int_equal(write_all_of(s, "h", 1), ERR_OK);
            expect_bytes(s, "hello"); /* TLS 1.3: the tickets come before it */
            assert_int_equal(SSL_CTX_sess_hits(peer.ctx) - before, i);
            stream_destroy(s); /* without close_notify: the session must stay good */
        }
        struct stream *s = tls_connect(ctx, "a.wild.test", ERR_OK); /* another name: a handshake of its own */
        assert_int_equal(SSL_CTX_sess_hits(peer.ctx) - before, 2);
        stream_destroy(s);
        tls_ctx_destroy(ctx);
    }
}

static void the_session_store_is_bounded(void **state)
{
    (void)state;
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    pthread_mutex_lock(&ctx->lock);
    for (unsigned i = 0; i < 3 * SESSIONS_MAX; i++) {
        char name[32];
        snprintf(name, sizeof name, "host-%u.test", i);
        struct session_entry *entry = entry_add_locked(ctx, name);
        assert_non_null(entry);
        entry->session = SSL_SESSION_new();
    }
    assert_int_equal(ctx->n_sessions, SESSIONS_MAX);
    assert_null(entry_find_locked(ctx, "host-0.test"));
    assert_non_null(entry_find_locked(ctx, "host-191.test"));
    pthread_mutex_unlock(&ctx->lock);
    tls_ctx_destroy(ctx);
}

static void a_context_outlives_its_owner_s_reference(void **state)
{
    (void)state;
    struct tls_ctx *ctx = client_ctx(ca_path, true, NULL);
    struct stream *s = tls_connect(ctx, "origin.test", ERR_OK);
    tls_ctx_destroy(ctx);
    assert_int_equal(write_all_of(s, "h", 1), ERR_OK);
    expect_bytes(s, "hello");
    stream_destroy(s);
}

static void bad_options_are_told(void **state)
{
    (void)state;
    struct tls_ctx *ctx;
    char msg[200] = "";
    struct tls_client_options o = {.ca_file = "/nonexistent/ca.pem", .verify = true};
    assert_int_equal(tls_client_ctx_create(&o, &ctx, msg, sizeof msg), ERR_CONFIG);
    assert_null(ctx);
    assert_non_null(strstr(msg, "/nonexistent/ca.pem"));
    o.ca_file = "/dev/null";
    assert_int_equal(tls_client_ctx_create(&o, &ctx, msg, sizeof msg), ERR_CONFIG);
    o.ca_file = ca_path;
    o.alpn = "h2,,http/1.1";
    assert_int_equal(tls_client_ctx_create(&o, &ctx, msg, sizeof msg), ERR_CONFIG);
    assert_non_null(strstr(msg, "ALPN"));
}

/* ---- TLS between two streams of ours */

static struct tls_ctx *server_ctx(void)
{
    struct tls_ctx *ctx = tls_ctx_new(TLS_server_method());
    assert_non_null(ctx);
    assert_int_equal(SSL_CTX_use_certificate(ctx->ssl_ctx, leaf), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(ctx->ssl_ctx, leaf_key), 1);
    return ctx;
}

static void make_tls_pair(struct stream **c, struct stream **s, struct tls_ctx *cctx, struct tls_ctx *sctx)
{
    make_pair(c, s);
    shrink_buffers(*c);
    shrink_buffers(*s);
    assert_int_equal(stream_tls_client(*c, cctx, "origin.test"), ERR_OK);
    assert_int_equal(stream_tls_server(*s, sctx), ERR_OK);
    enum err ce, se;
    for (;;) {
        ce = stream_handshake(*c);
        se = stream_handshake(*s);
        if (ce != ERR_AGAIN && se != ERR_AGAIN) break;
        wait_ready();
    }
    assert_int_equal(ce, ERR_OK);
    assert_int_equal(se, ERR_OK);
}

static void bulk_data_goes_both_ways(void **state)
{
    (void)state;
    struct tls_ctx *cctx = client_ctx(ca_path, true, NULL), *sctx = server_ctx();
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct stream *c, *s;
        SSL_CTX_set_max_proto_version(cctx->ssl_ctx, version);
        make_tls_pair(&c, &s, cctx, sctx);
        exchange(c, s, (size_t)3 << 20);
        stream_destroy(c);
        stream_destroy(s);
    }
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

/* Who gives up on bytes that did not go out must not seem to have ended in order. */
static void an_abandoned_write_is_truncation(void **state)
{
    (void)state;
    static char buf[65536];
    struct tls_ctx *cctx = client_ctx(ca_path, true, NULL), *sctx = server_ctx();
    struct stream *c, *s;
    size_t put, got, sent = 0, received = 0;
    make_tls_pair(&c, &s, cctx, sctx);
    enum err e;
    struct iovec v = {buf, sizeof buf};
    while ((e = stream_writev(s, &v, 1, &put)) == ERR_OK) sent += put;
    assert_int_equal(e, ERR_AGAIN);
    stream_shutdown_write(s);
    while ((e = read_some(c, buf, sizeof buf, &got)) == ERR_OK) received += got;
    assert_int_equal(e, ERR_TRUNCATED);
    assert_int_equal(received, sent);
    stream_destroy(c);
    stream_destroy(s);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void close_notify_waits_for_room(void **state)
{
    (void)state;
    struct tls_ctx *cctx = client_ctx(ca_path, true, NULL), *sctx = server_ctx();
    struct tls_conn *c, *s;
    int fds[2], full[2];
    char buf[4096] = {0};
    size_t got;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, full), 0);
    while (write(full[0], buf, sizeof buf) > 0) {}
    assert_int_equal(tls_conn_client(cctx, fds[0], "origin.test", &c), ERR_OK);
    assert_int_equal(tls_conn_server(sctx, fds[1], &s), ERR_OK);
    enum err ce = ERR_AGAIN, se = ERR_AGAIN;
    while (ce == ERR_AGAIN || se == ERR_AGAIN) {
        ce = tls_conn_handshake(c);
        se = tls_conn_handshake(s);
    }
    assert_int_equal(tls_conn_shutdown(s), ERR_OK); /* what was accepted is out */
    assert_int_equal(tls_conn_read(c, buf, sizeof buf, &got), ERR_END);
    c->fd = full[0];
    assert_int_equal(tls_conn_shutdown(c), ERR_AGAIN);
    assert_int_equal(tls_conn_shutdown(c), ERR_AGAIN);
    c->fd = fds[0];
    assert_int_equal(tls_conn_shutdown(c), ERR_OK);
    assert_int_equal(tls_conn_read(s, buf, sizeof buf, &got), ERR_END);
    tls_conn_destroy(c);
    tls_conn_destroy(s);
    for (int i = 0; i < 2; i++) {
        close(fds[i]);
        close(full[i]);
    }
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void plain_bytes_are_no_handshake(void **state)
{
    (void)state;
    struct tls_ctx *cctx = client_ctx(ca_path, true, NULL);
    static const char *const answers[] = {"HTTP/1.1 400 Bad Request\r\n\r\n", ""};
    for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
        struct stream *c, *s;
        make_pair(&c, &s);
        assert_int_equal(stream_tls_client(c, cctx, "origin.test"), ERR_OK);
        assert_int_equal(stream_handshake(c), ERR_AGAIN);
        assert_int_equal(write_all_of(s, answers[i], strlen(answers[i])), ERR_OK);
        stream_shutdown_write(s);
        assert_int_equal(handshake(c), ERR_TLS);
        assert_true(strlen(stream_error(c)) > 10);
        stream_destroy(c);
        stream_destroy(s);
    }
    tls_ctx_destroy(cctx);
}

int main(void)
{
#define PLAIN(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
#define PEER(f) cmocka_unit_test_setup_teardown(f, peer_start, peer_end)
    const struct CMUnitTest tests[] = {
        PEER(a_verified_peer_talks),
        PEER(names_and_addresses_that_match),
        PEER(names_that_do_not_match_are_refused),
        PEER(an_untrusted_issuer_is_refused_unless_told_otherwise),
        PEER(an_end_without_close_notify_is_truncation),
        PEER(a_reset_below_tls_is_a_reset),
        PEER(an_early_answer_survives_a_failed_write),
        PEER(sessions_are_resumed_per_name),
        PLAIN(the_session_store_is_bounded),
        PEER(a_context_outlives_its_owner_s_reference),
        PLAIN(bad_options_are_told),
        PLAIN(bulk_data_goes_both_ways),
        PLAIN(an_abandoned_write_is_truncation),
        PLAIN(close_notify_waits_for_room),
        PLAIN(plain_bytes_are_no_handshake),
    };
    return cmocka_run_group_tests(tests, certs_setup, certs_teardown);
}
