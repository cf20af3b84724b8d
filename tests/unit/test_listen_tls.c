/* test_listen_tls.c - a TLS listener from its configuration, and what a reload changes and does not. */
#include "tls_util.h"

#include "proxy/listen_tls.h"

static struct listen_cert_conf further[1];
static struct listen_tls_conf tls;
static struct listen_conf listen_conf = {.text = "127.0.0.1:8443", .tls = &tls, .ntls = 1};

static int begin(void **state)
{
    (void)state;
    tls = (struct listen_tls_conf){.certificate = (char *)(uintptr_t)in_dir("live.pem"),
                                   .key = (char *)(uintptr_t)in_dir("live.key"),
                                   .ticket_rotation_ms = 3600000};
    make((struct recipe){.file = "live", .cn = "first", .issuer = "ca", .alt_names = "DNS:a.test"});
    return 0;
}

static struct pair talk(struct listen_tls *t, struct tls_ctx *cctx)
{
    struct tls_ctx *ctx = listen_tls_take(t);
    struct pair p = pair_open(cctx, ctx, "a.test");
    tls_ctx_destroy(ctx);
    return p;
}

static void a_reload_is_for_new_connections(void **state)
{
    (void)state;
    char msg[300], buf[8];
    size_t n;
    struct iovec v = {(void *)(uintptr_t) "again", 5};
    struct listen_tls *t;
    struct tls_ctx *cctx = client_of(0, "h2"), *other = client_of(0, "h2");
    assert_int_equal(listen_tls_create(&listen_conf, true, &t, msg, sizeof msg), ERR_OK);
    struct pair old = talk(t, cctx);
    assert_string_equal(shown_to(&old), "first");
    assert_string_equal(tls_conn_alpn(old.s), "h2");

    make((struct recipe){.file = "live", .cn = "second", .issuer = "ca", .alt_names = "DNS:a.test"});
    assert_int_equal(listen_tls_reload(t, msg, sizeof msg), ERR_OK);
    struct pair fresh = talk(t, other);
    assert_string_equal(shown_to(&fresh), "second");
    pair_close(&fresh);
    fresh = talk(t, cctx);
    assert_true(tls_conn_resumed(fresh.s));
    pair_close(&fresh);

    make((struct recipe){.file = "live", .cn = "late", .issuer = "ca", .from_s = -2 * DAY_S, .to_s = -DAY_S});
    assert_int_equal(listen_tls_reload(t, msg, sizeof msg), ERR_CONFIG);
    assert_int_equal(strncmp(msg, "127.0.0.1:8443: certificate /", 29), 0);
    assert_non_null(strstr(msg, "expired since"));
    tls_ctx_destroy(other);
    other = client_of(0, "h2");
    fresh = talk(t, other);
    assert_string_equal(shown_to(&fresh), "second");
    pair_close(&fresh);

    assert_int_equal(tls_conn_writev(old.s, &v, 1, false, &n), ERR_OK);
    assert_int_equal(tls_conn_read(old.c, buf, sizeof buf, &n), ERR_OK);
    assert_int_equal(n, 5);
    listen_tls_destroy(t);
    pair_close(&old);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(other);
}

static void protocols_follow_the_configuration(void **state)
{
    (void)state;
    static const struct {
        unsigned n;
        enum listen_protocol alpn[2];
        bool http2;
        const char *chosen; /* by a client that takes both */
    } cases[] = {
        {0, {0, 0}, true, "h2"},
        {0, {0, 0}, false, "http/1.1"},
        {1, {PROTOCOL_H2, 0}, true, "h2"},
        {1, {PROTOCOL_HTTP11, 0}, true, "http/1.1"},
        {2, {PROTOCOL_HTTP11, PROTOCOL_H2}, true, "http/1.1"},
        {2, {PROTOCOL_H2, PROTOCOL_HTTP11}, true, "h2"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char msg[300];
        struct listen_tls *t;
        enum listen_protocol alpn[2] = {cases[i].alpn[0], cases[i].alpn[1]};
        tls.alpn = alpn;
        tls.nalpn = cases[i].n;
        struct tls_ctx *cctx = client_of(0, "h2,http/1.1");
        assert_int_equal(listen_tls_create(&listen_conf, cases[i].http2, &t, msg, sizeof msg), ERR_OK);
        struct pair p = talk(t, cctx);
        assert_string_equal(tls_conn_alpn(p.s), cases[i].chosen);
        pair_close(&p);
        listen_tls_destroy(t);
        tls_ctx_destroy(cctx);
    }
}

static void certificates_need_no_first_one_beside_them(void **state)
{
    (void)state;
    char msg[300];
    struct listen_tls *t;
    further[0] = (struct listen_cert_conf){tls.certificate, tls.key};
    tls.certificates = further;
    tls.ncertificates = 1;
    tls.certificate = tls.key = NULL;
    struct tls_ctx *cctx = client_of(0, NULL);
    assert_int_equal(listen_tls_create(&listen_conf, true, &t, msg, sizeof msg), ERR_OK);
    struct pair p = talk(t, cctx);
    assert_string_equal(shown_to(&p), "first");
    pair_close(&p);
    listen_tls_destroy(t);
    tls_ctx_destroy(cctx);
    further[0].key = (char *)(uintptr_t) "/nonexistent";
    assert_int_equal(listen_tls_create(&listen_conf, true, &t, msg, sizeof msg), ERR_CONFIG);
    assert_null(t);
    assert_string_equal(msg, "127.0.0.1:8443: key /nonexistent: cannot be read: No such file or directory");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup(f, begin)
    const struct CMUnitTest tests[] = {
        TEST(a_reload_is_for_new_connections),
        TEST(protocols_follow_the_configuration),
        TEST(certificates_need_no_first_one_beside_them),
    };
    return cmocka_run_group_tests(tests, tls_dir_make, tls_dir_remove);
}
