/* test_tls_server.c - TLS to clients: protocols, names, clients' certificates, tickets and their keys, what is refused at
 * load, and the way out: records in batches, the backlog, the end. */
#include "tls_util.h"

#include <sys/stat.h>

#include "io/tls_ticket.c"

#pragma push_macro("fail") /* cmocka's */
#undef fail
#define fail stream_fail
#include "io/stream.c"
#undef fail
#pragma pop_macro("fail")

/* ---- protocols */

static void both_versions_work_and_one_can_be_asked_for(void **state)
{
    (void)state;
    struct tls_server_options o = options();
    struct tls_ctx *sctx = server_of(&o);
    o.tls13_only = true;
    struct tls_ctx *only13 = server_of(&o);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ctx *cctx = client_of(version, NULL);
        struct pair p = pair_open(cctx, sctx, "a.test");
        assert_int_equal(tls_conn_version(p.s), version == TLS1_3_VERSION ? 13 : 12);
        assert_false(tls_conn_ktls(p.s));
        pair_close(&p);
        p = pair_shake(cctx, only13, "a.test");
        assert_int_equal(p.se, version == TLS1_3_VERSION ? ERR_OK : ERR_TLS);
        if (p.se != ERR_OK) assert_non_null(strstr(tls_conn_error(p.s), "unsupported protocol"));
        pair_close(&p);
        tls_ctx_destroy(cctx);
    }
    struct tls_ctx *old = client_of(0, NULL);
    SSL_CTX_set_security_level(old->ssl_ctx, 0);
    SSL_CTX_set_min_proto_version(old->ssl_ctx, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(old->ssl_ctx, TLS1_1_VERSION);
    struct pair p = pair_shake(old, sctx, "a.test");
    assert_int_equal(p.se, ERR_TLS);
    pair_close(&p);
    tls_ctx_destroy(old);
    tls_ctx_destroy(sctx);
    tls_ctx_destroy(only13);
}

static void alpn_is_chosen_by_the_server(void **state)
{
    (void)state;
    static const struct {
        const char *server, *client, *chosen; /* NULL: refused */
    } cases[] = {
        {"h2,http/1.1", "h2,http/1.1", "h2"},
        {"h2,http/1.1", "http/1.1,h2", "h2"},
        {"http/1.1,h2", "h2,http/1.1", "http/1.1"},
        {"h2,http/1.1", "http/1.1", "http/1.1"},
        {"http/1.1", "h2,http/1.1", "http/1.1"},
        {"h2", "h2", "h2"},
        {"h2,http/1.1", NULL, ""},
        {NULL, "h2,http/1.1", ""},
        {"http/1.1", "h2", NULL},
        {"h2,http/1.1", "spdy/3", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tls_server_options o = options();
        o.alpn = cases[i].server;
        struct tls_ctx *sctx = server_of(&o);
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            struct tls_ctx *cctx = client_of(version, cases[i].client);
            struct pair p = pair_shake(cctx, sctx, "a.test");
            assert_int_equal(p.se, cases[i].chosen ? ERR_OK : ERR_TLS);
            if (cases[i].chosen) {
                assert_string_equal(tls_conn_alpn(p.s), cases[i].chosen);
                assert_string_equal(tls_conn_alpn(p.c), cases[i].chosen);
            }
            pair_close(&p);
            tls_ctx_destroy(cctx);
        }
        tls_ctx_destroy(sctx);
    }
}

static void ciphers_can_be_chosen(void **state)
{
    (void)state;
    struct tls_server_options o = options();
    o.ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384";
    o.ciphersuites = "TLS_AES_256_GCM_SHA384";
    struct tls_ctx *chosen = server_of(&o), *usual = server_default();
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ctx *cctx = client_of(version, NULL);
        struct pair p = pair_open(cctx, chosen, "a.test");
        assert_non_null(strstr(SSL_get_cipher_name(p.s->ssl), "256"));
        pair_close(&p);
        p = pair_open(cctx, usual, "a.test");
        assert_non_null(strstr(SSL_get_cipher_name(p.s->ssl), "128"));
        pair_close(&p);
        tls_ctx_destroy(cctx);
    }
    struct tls_ctx *weak = client_of(TLS1_2_VERSION, NULL);
    SSL_CTX_set_cipher_list(weak->ssl_ctx, "AES128-SHA:ECDHE-ECDSA-AES128-SHA");
    struct pair p = pair_shake(weak, usual, "a.test");
    assert_int_equal(p.se, ERR_TLS);
    pair_close(&p);
    tls_ctx_destroy(weak);
    tls_ctx_destroy(chosen);
    tls_ctx_destroy(usual);
}

/* ---- names */

static void the_certificate_is_chosen_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *asked, *shown;
    } cases[] = {
        {"a.test", "a"},
        {"b.test", "b"},
        {"B.TEST", "b"},
        {"b.test.", "b"},
        {"x.b.test", "wild"},
        {"X.b.Test", "wild"},
        {"special.b.test", "special"},
        {"x.y.b.test", "a"},
        {".b.test", "a"},
        {"c.test", "a"},
        {"127.0.0.1", "a"},
        {"*.b.test", "wild"},
        {"test", "a"},
    };
    make((struct recipe){.file = "b", .cn = "b", .issuer = "ca", .alt_names = "DNS:B.test,DNS:bb.test"});
    make((struct recipe){.file = "wild", .cn = "wild", .issuer = "ca", .alt_names = "DNS:*.b.test"});
    make((struct recipe){
        .file = "special", .cn = "special", .issuer = "ca", .alt_names = "DNS:special.b.test", .rsa_bits = 2048});
    struct tls_certificate certs[] = {{in_dir("a.pem"), in_dir("a.key")},
                                      {in_dir("b.pem"), in_dir("b.key")},
                                      {in_dir("wild.pem"), in_dir("wild.key")},
                                      {in_dir("special.pem"), in_dir("special.key")}};
    struct tls_server_options o = options();
    o.certificates = certs;
    o.ncertificates = ARRAY_LEN(certs);
    struct tls_ctx *sctx = server_of(&o);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            struct tls_ctx *cctx = client_of(version, "h2");
            struct pair p = pair_open(cctx, sctx, cases[i].asked);
            assert_string_equal(shown_to(&p), cases[i].shown);
            assert_string_equal(tls_conn_alpn(p.s), "h2");
            pair_close(&p);
            p = pair_open(cctx, sctx, cases[i].asked);
            assert_true(tls_conn_resumed(p.s)); /* whichever certificate it was */
            pair_close(&p);
            tls_ctx_destroy(cctx);
        }
    }
    tls_ctx_destroy(sctx);
}

/* ---- clients' certificates */

static void clients_are_verified(void **state)
{
    (void)state;
    enum { OFF = TLS_VERIFY_OFF, OPTIONAL = TLS_VERIFY_OPTIONAL, REQUIRED = TLS_VERIFY_REQUIRED };
    make((struct recipe){.file = "client", .cn = "loader-7", .issuer = "ca"});
    make((struct recipe){.file = "stranger", .cn = "stranger", .issuer = "other_ca"});
    make((struct recipe){.file = "late", .cn = "late", .issuer = "ca", .from_s = -2 * DAY_S, .to_s = -DAY_S});
    static const struct {
        int verify;
        const char *client, *subject; /* NULL: refused */
        const char *why;
    } cases[] = {
        {OFF, NULL, "", NULL},
        {OFF, "client", "", NULL},
        {OPTIONAL, NULL, "", NULL},
        {OPTIONAL, "client", "CN=loader-7", NULL},
        {REQUIRED, "client", "CN=loader-7", NULL},
        {OPTIONAL, "stranger", NULL, "unable to get local issuer"},
        {REQUIRED, "stranger", NULL, "unable to get local issuer"},
        {REQUIRED, "late", NULL, "expired"},
        {REQUIRED, NULL, NULL, "did not return a certificate"},
    };
    for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
        const size_t k = i / 2;
        char subject[64];
        struct tls_server_options o = options();
        o.verify = (enum tls_verify)cases[k].verify;
        o.client_ca = in_dir("ca.pem");
        struct tls_ctx *sctx = server_of(&o), *cctx = client_of(i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, NULL);
        if (cases[k].client) use_client_cert(cctx, cases[k].client);
        struct pair p = pair_shake(cctx, sctx, "a.test");
        assert_int_equal(p.se, cases[k].subject ? ERR_OK : ERR_TLS);
        if (cases[k].why && !strstr(tls_conn_error(p.s), cases[k].why)) fail_msg("%s", tls_conn_error(p.s));
        if (cases[k].subject) {
            assert_string_equal(tls_conn_peer_subject(p.s, subject, sizeof subject), cases[k].subject);
            pair_close(&p);
            p = pair_open(cctx, sctx, "a.test"); /* which leaves a ticket */
            pair_close(&p);
            p = pair_open(cctx, sctx, "a.test");
            assert_true(tls_conn_resumed(p.s));
            assert_string_equal(tls_conn_peer_subject(p.s, subject, sizeof subject), cases[k].subject);
            assert_string_equal(tls_conn_peer_subject(p.s, subject, 6), cases[k].subject[0] ? "CN=lo" : "");
        }
        pair_close(&p);
        tls_ctx_destroy(cctx);
        tls_ctx_destroy(sctx);
    }
}

static void a_subject_cannot_break_a_log_line(void **state)
{
    (void)state;
    char subject[128];
    make((struct recipe){.file = "odd", .cn = "a\nb\"c,d\x01", .issuer = "ca"});
    struct tls_server_options o = options();
    o.verify = TLS_VERIFY_REQUIRED;
    o.client_ca = in_dir("ca.pem");
    struct tls_ctx *sctx = server_of(&o), *cctx = client_of(0, NULL);
    use_client_cert(cctx, "odd");
    struct pair p = pair_open(cctx, sctx, "a.test");
    assert_string_equal(tls_conn_peer_subject(p.s, subject, sizeof subject), "CN=a\\0Ab\\\"c\\,d\\01");
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

/* ---- tickets */

static bool resumes(struct tls_ctx *cctx, struct tls_ctx *sctx)
{
    struct pair p = pair_open(cctx, sctx, "a.test");
    bool yes = tls_conn_resumed(p.s);
    assert_int_equal(yes, tls_conn_resumed(p.c));
    pair_close(&p);
    return yes;
}

/* As if so much time had passed. */
static void age(struct tls_ctx *sctx, uint64_t ms) { sctx->server->tickets->made_ms -= ms; }

static void tickets_live_for_two_keys(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ctx *sctx = server_default(), *cctx = client_of(version, NULL);
        const uint64_t hour = 3600000;
        assert_false(resumes(cctx, sctx));
        assert_true(resumes(cctx, sctx));
        age(sctx, hour);
        assert_true(resumes(cctx, sctx)); /* by the previous key; and a new ticket came with it */
        age(sctx, hour);
        assert_int_equal(resumes(cctx, sctx), version == TLS1_3_VERSION); /* which OpenSSL's client drops in TLS 1.2 */
        age(sctx, 2 * hour);                                              /* nobody came for two periods */
        assert_false(resumes(cctx, sctx));
        assert_true(resumes(cctx, sctx));
        tls_ctx_destroy(cctx);

        cctx = client_of(version, NULL); /* who stays away while the key changes twice */
        struct tls_ctx *other = client_of(version, NULL);
        assert_false(resumes(cctx, sctx));
        age(sctx, hour);
        assert_false(resumes(other, sctx));
        age(sctx, hour);
        assert_true(resumes(other, sctx));
        assert_false(resumes(cctx, sctx));
        tls_ctx_destroy(cctx);
        tls_ctx_destroy(other);
        tls_ctx_destroy(sctx);
    }
}

static void tickets_can_be_switched_off(void **state)
{
    (void)state;
    struct tls_server_options o = options();
    o.ticket_rotation_ms = 0;
    struct tls_ctx *sctx = server_of(&o);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ctx *cctx = client_of(version, NULL);
        assert_false(resumes(cctx, sctx));
        assert_false(resumes(cctx, sctx));
        tls_ctx_destroy(cctx);
    }
    tls_ctx_destroy(sctx);
}

static void a_reload_keeps_tickets_unless_others_may_connect(void **state)
{
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_server_options o = options();
        struct tls_ctx *first = server_of(&o), *cctx = client_of(version, NULL);
        assert_false(resumes(cctx, first));
        o.previous = first;
        struct tls_ctx *second = server_of(&o);
        tls_ctx_destroy(first);
        assert_true(resumes(cctx, second));
        o.previous = NULL;
        struct tls_ctx *stranger = server_of(&o);
        assert_false(resumes(cctx, stranger));
        tls_ctx_destroy(stranger);

        assert_false(resumes(cctx, second));
        o.previous = second;
        o.verify = TLS_VERIFY_REQUIRED;
        o.client_ca = in_dir("ca.pem");
        struct tls_ctx *third = server_of(&o);
        struct pair p = pair_shake(cctx, third, "a.test"); /* the ticket says nothing about a certificate */
        assert_int_equal(p.se, ERR_TLS);
        pair_close(&p);
        use_client_cert(cctx, "client");
        assert_false(resumes(cctx, third));
        assert_true(resumes(cctx, third));
        o.previous = third;
        o.client_ca = in_dir("other_ca.pem");
        struct tls_ctx *fourth = server_of(&o);
        p = pair_shake(cctx, fourth, "a.test");
        assert_int_equal(p.se, ERR_TLS);
        pair_close(&p);
        tls_ctx_destroy(cctx);
        tls_ctx_destroy(second);
        tls_ctx_destroy(third);
        tls_ctx_destroy(fourth);
    }
}

static void a_reload_leaves_connections_alone(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct iovec bye = {(void *)(uintptr_t) "bye", 3};
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    tls_ctx_destroy(sctx);
    assert_int_equal(tls_conn_writev(p.s, &bye, 1, false, &n), ERR_OK);
    assert_int_equal(tls_conn_read(p.c, buf, sizeof buf, &n), ERR_OK);
    assert_int_equal(n, 3);
    pair_close(&p);
    tls_ctx_destroy(cctx);
}

/* ---- what is refused at load */

static void refused(const struct tls_server_options *o, const char *fmt, const char *a, const char *b)
{
    char msg[600] = "", want[600];
    struct tls_ctx *ctx = (void *)&msg;
    assert_int_equal(tls_server_ctx_create(o, &ctx, msg, sizeof msg), ERR_CONFIG);
    assert_null(ctx);
    assert_null(strchr(msg, '\n'));
    snprintf(want, sizeof want, fmt, a, b);
    if (strncmp(msg, want, strlen(want)) != 0) fail_msg("got:  %s\nwant: %s", msg, want);
    assert_int_equal(ERR_peek_error(), 0);
}

static void refused_files(const char *certificate, const char *key, const char *fmt, const char *a, const char *b)
{
    struct tls_server_options o = options();
    struct tls_certificate c = {in_dir(certificate), key ? in_dir(key) : NULL};
    o.certificates = &c;
    refused(&o, fmt, in_dir(a), b ? in_dir(b) : "");
}

static void bad_certificates_are_one_clear_line(void **state)
{
    (void)state;
    make((struct recipe){.file = "expired", .cn = "x", .issuer = "ca", .from_s = -2 * DAY_S, .to_s = -DAY_S});
    make((struct recipe){.file = "early", .cn = "x", .issuer = "ca", .from_s = DAY_S, .to_s = 2 * DAY_S});
    make((struct recipe){.file = "short", .cn = "x", .issuer = "ca", .rsa_bits = 1024});
    make((struct recipe){.file = "sha1", .cn = "x", .issuer = "ca", .digest = "SHA1"});
    make((struct recipe){.file = "sha1_self", .cn = "x", .digest = "SHA1"});
    make((struct recipe){
        .file = "old_ca", .cn = "old between", .issuer = "ca", .is_ca = true, .from_s = -2, .to_s = -1});
    make((struct recipe){.file = "sha1_ca", .cn = "sha1 between", .issuer = "ca", .is_ca = true, .digest = "SHA1"});
    make((struct recipe){.file = "sha1_root", .cn = "sha1 root", .is_ca = true, .digest = "SHA1"});
    join("old_chain.pem", "a.pem", "old_ca.pem");
    join("sha1_chain.pem", "a.pem", "sha1_ca.pem");
    join("root_chain.pem", "a.pem", "sha1_root.pem");
    file_put("empty.pem", "");
    file_put("text.pem", "not a certificate\n");
    file_put("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    file_put("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n");
    join("broken_chain.pem", "a.pem", "broken.pem");

    refused_files("none.pem", "a.key", "certificate %s: cannot be read: No such file or directory", "none.pem", NULL);
    refused_files("", "a.key", "certificate %s: cannot be read: Is a directory", "", NULL);
    refused_files("empty.pem", "a.key", "certificate %s: no certificate in it, expected PEM", "empty.pem", NULL);
    refused_files("text.pem", "a.key", "certificate %s: no certificate in it, expected PEM", "text.pem", NULL);
    refused_files("a.key", "a.key", "certificate %s: no certificate in it, expected PEM", "a.key", NULL);
    refused_files("broken.pem", "a.key", "certificate %s: malformed: ", "broken.pem", NULL);
    refused_files("cut.pem", "a.key", "certificate %s: malformed: ", "cut.pem", NULL);
    refused_files("broken_chain.pem", "a.key", "certificate %s: malformed: ", "broken_chain.pem", NULL);
    refused_files("expired.pem", "expired.key", "certificate %s: expired since 20", "expired.pem", NULL);
    refused_files("early.pem", "early.key", "certificate %s: not valid before 20", "early.pem", NULL);
    refused_files(
        "short.pem", "short.key",
        "certificate %s: weak, its RSA key has 1024 bits, expected RSA of at least 2048 or EC of at least 224",
        "short.pem", NULL);
    refused_files("sha1.pem", "sha1.key", "certificate %s: weak, signed over SHA1, expected SHA-256", "sha1.pem", NULL);
    refused_files("sha1_self.pem", "sha1_self.key", "certificate %s: weak, signed over SHA1", "sha1_self.pem", NULL);
    refused_files("old_chain.pem", "a.key", "certificate %s: '/CN=old between' in its chain is expired since",
                  "old_chain.pem", NULL);
    refused_files("sha1_chain.pem", "a.key",
                  "certificate %s: '/CN=sha1 between' in its chain is weak, signed over SHA1", "sha1_chain.pem", NULL);
    struct tls_server_options o = options();
    struct tls_certificate fine = {in_dir("root_chain.pem"), in_dir("a.key")}; /* a root's signature says nothing */
    o.certificates = &fine;
    tls_ctx_destroy(server_of(&o));
}

static void bad_keys_are_one_clear_line(void **state)
{
    (void)state;
    EVP_PKEY *key = key_read("a");
    FILE *f = file_make("locked.key");
    assert_int_equal(PEM_write_PKCS8PrivateKey(f, key, EVP_aes_256_cbc(), "geheim", 6, NULL, NULL), 1);
    fclose(f);
    BIO *old = BIO_new_file(in_dir("locked_old.key"), "w");
    unsigned char phrase[] = "geheim";
    assert_int_equal(PEM_write_bio_PrivateKey_traditional(old, key, EVP_aes_256_cbc(), phrase, 6, NULL, NULL), 1);
    BIO_free(old);
    EVP_PKEY_free(key);
    file_put("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    join("both.pem", "a.pem", "a.key");
    join("both_turned.pem", "a.key", "a.pem");
    make((struct recipe){.file = "rsa", .cn = "rsa", .issuer = "ca", .rsa_bits = 2048});

    refused_files("a.pem", "none.key", "key %s: cannot be read: No such file or directory", "none.key", NULL);
    refused_files("a.pem", "locked.key", "key %s: encrypted, expected a key without passphrase", "locked.key", NULL);
    refused_files("a.pem", "locked_old.key", "key %s: encrypted, expected a key without passphrase", "locked_old.key",
                  NULL);
    refused_files("a.pem", "broken.key", "key %s: malformed, or", "broken.key", NULL);
    refused_files("a.pem", "a.pem", "key %s: no private key in it, expected PEM", "a.pem", NULL);
    refused_files("a.pem", NULL, "key %s: no private key in it", "a.pem", NULL);
    refused_files("a.pem", "client.key", "key %s: does not belong to certificate %s", "client.key", "a.pem");
    refused_files("a.pem", "rsa.key", "key %s: does not belong to certificate %s", "rsa.key", "a.pem");
    static const char *const good[] = {"both.pem", "both_turned.pem"};
    for (int i = 0; i < 2; i++) {
        struct tls_server_options o = options();
        struct tls_certificate fine = {in_dir(good[i]), NULL};
        o.certificates = &fine;
        tls_ctx_destroy(server_of(&o));
    }
}

static void other_bad_options_are_one_clear_line(void **state)
{
    (void)state;
    struct tls_server_options o = options();
    o.ciphers = "NO-SUCH";
    refused(&o, "ciphers NO-SUCH: no cipher match", "", "");
    o = options();
    o.ciphersuites = "TLS_NO_SUCH";
    refused(&o, "ciphersuites TLS_NO_SUCH: no cipher match", "", "");
    o = options();
    o.alpn = "h2,,x";
    refused(&o, "not a list of ALPN protocols: h2,,x", "", "");
    o = options();
    o.verify = TLS_VERIFY_REQUIRED;
    refused(&o, "client_ca: missing", "", "");
    o.client_ca = "/nonexistent/ca.pem";
    refused(&o, "client_ca /nonexistent/ca.pem: ", "", "");
    o.client_ca = in_dir("empty.pem");
    refused(&o, "client_ca %s: ", o.client_ca, "");
    o = options();
    make((struct recipe){.file = "nameless", .cn = "nameless", .issuer = "ca"});
    struct tls_certificate certs[] = {{in_dir("nameless.pem"), in_dir("nameless.key")},
                                      {in_dir("a.pem"), in_dir("a.key")},
                                      {in_dir("nameless.pem"), in_dir("nameless.key")}};
    o.certificates = certs;
    o.ncertificates = 2;
    tls_ctx_destroy(server_of(&o));
    o.ncertificates = 3;
    refused(&o, "certificate %s: no DNS name in it", certs[2].certificate, "");
}

/* ---- the end, and what clients may not */

static void the_end_is_told_from_a_cut(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct tls_ctx *sctx = server_default();
    for (int i = 0; i < 4; i++) {
        struct tls_ctx *cctx = client_of(i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, NULL);
        struct pair p = pair_open(cctx, sctx, "a.test");
        if (i < 2) assert_int_equal(tls_conn_shutdown(p.c), ERR_OK);
        close(p.fds[0]);
        p.fds[0] = -1;
        assert_int_equal(tls_conn_read(p.s, buf, sizeof buf, &n), i < 2 ? ERR_END : ERR_TRUNCATED);
        pair_close(&p);
        tls_ctx_destroy(cctx);
    }
    tls_ctx_destroy(sctx);
}

static void renegotiation_is_refused(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct iovec more = {(void *)(uintptr_t) "more", 4};
    struct tls_ctx *sctx = server_default(), *cctx = client_of(TLS1_2_VERSION, NULL);
    SSL_CTX_clear_options(cctx->ssl_ctx, SSL_OP_NO_RENEGOTIATION);
    struct pair p = pair_open(cctx, sctx, "a.test");
    assert_int_equal(SSL_renegotiate(p.c->ssl), 1);
    for (int i = 0; i < 4; i++) {
        SSL_do_handshake(p.c->ssl);
        tls_conn_read(p.s, buf, sizeof buf, &n);
        ERR_clear_error();
    }
    assert_int_equal(SSL_num_renegotiations(p.s->ssl), 0);
    assert_int_equal(SSL_get_state(p.s->ssl), TLS_ST_OK);
    assert_int_equal(tls_conn_writev(p.s, &more, 1, false, &n), ERR_TLS);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void endless_key_updates_end_the_connection(void **state)
{
    (void)state;
    char buf[8];
    size_t n;
    struct iovec dot = {(void *)(uintptr_t) ".", 1};
    enum err e = ERR_OK;
    unsigned sent = 0;
    struct tls_ctx *sctx = server_default(), *cctx = client_of(TLS1_3_VERSION, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    for (; sent < 100; sent++) { /* a few are fine */
        SSL_key_update(p.c->ssl, SSL_KEY_UPDATE_REQUESTED);
        assert_int_equal(tls_conn_writev(p.c, &dot, 1, false, &n), ERR_OK);
        assert_int_equal(tls_conn_read(p.s, buf, sizeof buf, &n), ERR_OK);
        assert_int_equal(tls_conn_read(p.c, buf, sizeof buf, &n), ERR_AGAIN);
    }
    for (; e == ERR_OK && sent < 5000; sent++) {
        SSL_key_update(p.c->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
        if (tls_conn_writev(p.c, &dot, 1, false, &n) != ERR_OK) break;
        e = tls_conn_read(p.s, buf, sizeof buf, &n);
    }
    assert_int_equal(e, ERR_IO);
    assert_true(sent > 900 && sent < 1100);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void plain_http_is_no_handshake(void **state)
{
    (void)state;
    struct tls_ctx *sctx = server_default();
    static const char *const sent[] = {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                       "\x16\x03\x01\xff\xff\x01", ""};
    for (size_t i = 0; i < ARRAY_LEN(sent); i++) {
        int fds[2];
        struct tls_conn *s;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        assert_int_equal(tls_conn_server(sctx, fds[1], &s), ERR_OK);
        assert_int_equal(tls_conn_handshake(s), ERR_AGAIN);
        assert_int_equal(write(fds[0], sent[i], strlen(sent[i])), strlen(sent[i]));
        shutdown(fds[0], SHUT_WR);
        assert_int_equal(tls_conn_handshake(s), ERR_TLS);
        assert_true(strlen(tls_conn_error(s)) > 10);
        tls_conn_destroy(s);
        close(fds[0]);
        close(fds[1]);
    }
    tls_ctx_destroy(sctx);
}

/* ---- the way out */

static void little_send_buffer(struct pair *p)
{
    int bytes = 4096;
    setsockopt(p->fds[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

/* Writes and reads until `total` bytes are through, with retries of all shapes; each byte is checked, and nothing may be
 * reported that was not received in the end. */
static void push_through(struct pair *p, size_t total)
{
    unsigned char *data = malloc(total), *elsewhere = malloc(total), *in = malloc(70000);
    size_t put = 0, got = 0, n;
    for (size_t i = 0; i < total; i++) data[i] = pattern(i);
    memcpy(elsewhere, data, total);
    while (got < total) {
        for (int tries = 0; put < total && tries < 3; tries++) {
            struct iovec v[6];
            unsigned count = 0;
            size_t at = put, piece_max = random_u64() % 3 ? 300000 : 900;
            const unsigned char *from = random_u64() % 2 ? data : elsewhere;
            while (count < ARRAY_LEN(v) && at < total) {
                size_t piece = random_u64() % piece_max;
                if (piece > total - at) piece = total - at;
                v[count++] = (struct iovec){(void *)(uintptr_t)(from + at), piece};
                at += piece;
            }
            enum err e = tls_conn_writev(p->s, v, count, random_u64() % 4 == 0, &n);
            assert_true(e == ERR_OK || (e == ERR_AGAIN && n == 0));
            assert_true(n <= at - put);
            put += n;
        }
        size_t room = 1 + random_u64() % 69999, budget = random_u64() % 400000;
        while (budget > 0) {
            enum err e = tls_conn_read(p->c, in, room, &n);
            if (e == ERR_AGAIN) break;
            assert_int_equal(e, ERR_OK);
            for (size_t i = 0; i < n; i++)
                if (in[i] != pattern(got + i)) fail_msg("wrong byte at %zu", got + i);
            got += n;
            budget -= n < budget ? n : budget;
        }
        assert_true(put <= total);
    }
    while (put < total) { /* what left with the backlog is reported to who asks */
        struct iovec rest = {data + put, total - put};
        assert_int_equal(tls_conn_writev(p->s, &rest, 1, false, &n), ERR_OK);
        put += n;
    }
    assert_int_equal(put, total);
    assert_int_equal(p->s->sealed_bytes, 0);
    assert_int_equal(p->s->credit_bytes, 0);
    assert_null(p->s->backlog);
    free(data);
    free(elsewhere);
    free(in);
}

static void big_writes_come_through_whatever_the_socket_takes(void **state)
{
    (void)state;
    struct tls_ctx *sctx = server_default();
    for (int i = 0; i < 4; i++) {
        struct tls_ctx *cctx = client_of(i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, NULL);
        struct pair p = pair_open(cctx, sctx, "a.test");
        if (i >= 2) little_send_buffer(&p);
        push_through(&p, (size_t)6 << 20);
        assert_int_equal(tls_conn_shutdown(p.s), ERR_OK);
        char buf[8];
        size_t n;
        assert_int_equal(tls_conn_read(p.c, buf, sizeof buf, &n), ERR_END);
        pair_close(&p);
        tls_ctx_destroy(cctx);
    }
    tls_ctx_destroy(sctx);
}

static size_t fill(struct pair *p, void *data, size_t n)
{
    size_t put, total = 0;
    struct iovec v = {data, n};
    enum err e;
    while ((e = tls_conn_writev(p->s, &v, 1, false, &put)) == ERR_OK) total += put;
    assert_int_equal(e, ERR_AGAIN);
    return total;
}

/* Whole records that were reported, then nothing: what was not reported must not look like an end. */
static void who_gives_up_leaves_a_truncated_stream(void **state)
{
    (void)state;
    static char data[1 << 20], in[65536];
    size_t n, received = 0;
    enum err e;
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    size_t sent = fill(&p, data, sizeof data);
    assert_true(p.s->sealed_bytes > 0);
    assert_int_equal(tls_conn_shutdown(p.s), ERR_OK);
    shutdown(p.fds[1], SHUT_WR);
    while ((e = tls_conn_read(p.c, in, sizeof in, &n)) == ERR_OK) received += n;
    assert_int_equal(e, ERR_TRUNCATED);
    assert_int_equal(received, sent);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void a_retry_may_offer_less(void **state)
{
    (void)state;
    static char data[1 << 20], in[65536];
    size_t n, received = 0, put = 0;
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    size_t sent = fill(&p, data, sizeof data);
    size_t sealed = p.s->sealed_bytes;
    assert_true(sealed > 1000);
    while (tls_conn_read(p.c, in, sizeof in, &n) == ERR_OK) received += n;
    for (size_t at = 0; at < sealed + 5; at += put) { /* in pieces of 999 bytes, and beyond what was sealed */
        struct iovec v = {data, 999};
        enum err e = tls_conn_writev(p.s, &v, 1, false, &put);
        assert_int_equal(e, ERR_OK);
        assert_int_equal(put, 999);
        sent += put;
    }
    while (tls_conn_read(p.c, in, sizeof in, &n) == ERR_OK) received += n;
    assert_int_equal(received, sent);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void openssl_s_own_records_keep_their_place(void **state)
{
    (void)state;
    static char data[1 << 20], in[65536];
    char buf[8];
    size_t n, received = 0, put;
    struct iovec dot = {(void *)(uintptr_t) ".", 1};
    struct tls_ctx *sctx = server_default(), *cctx = client_of(TLS1_3_VERSION, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    size_t sent = fill(&p, data, sizeof data);
    SSL_key_update(p.c->ssl, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_conn_writev(p.c, &dot, 1, false, &n), ERR_OK);
    assert_int_equal(tls_conn_read(p.s, buf, sizeof buf, &n), ERR_OK); /* answers with the next write */
    assert_false(tls_conn_flush_wanted(p.s));                          /* the writer will come back for its bytes */
    while (tls_conn_read(p.c, in, sizeof in, &n) == ERR_OK) received += n;
    struct iovec v = {data, 100000};
    assert_int_equal(tls_conn_writev(p.s, &v, 1, false, &put), ERR_OK);
    sent += put;
    while (tls_conn_read(p.c, in, sizeof in, &n) == ERR_OK) received += n;
    assert_int_equal(received, sent);
    pair_close(&p);
    tls_ctx_destroy(cctx);

    cctx = client_of(TLS1_2_VERSION, NULL); /* an alert, for a renegotiation, in the midst of data */
    SSL_CTX_clear_options(cctx->ssl_ctx, SSL_OP_NO_RENEGOTIATION);
    p = pair_open(cctx, sctx, "a.test");
    sent = fill(&p, data, sizeof data);
    size_t kept = p.s->backlog_n;
    received = 0;
    SSL_renegotiate(p.c->ssl);
    SSL_do_handshake(p.c->ssl);
    ERR_clear_error();
    assert_int_equal(tls_conn_read(p.s, buf, sizeof buf, &n), ERR_TLS);
    assert_true(p.s->backlog_n > kept);
    while (tls_conn_flush(p.s) == ERR_AGAIN)
        while (SSL_read(p.c->ssl, in, sizeof in) > 0) {
        }
    assert_null(p.s->backlog);
    assert_true(p.s->credit_bytes > 0);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void a_lost_peer_ends_the_writer_too(void **state)
{
    (void)state;
    static char data[1 << 20];
    size_t put;
    struct iovec v = {data, sizeof data};
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    struct pair p = pair_open(cctx, sctx, "a.test");
    fill(&p, data, sizeof data);
    close(p.fds[0]);
    p.fds[0] = -1;
    assert_int_equal(tls_conn_writev(p.s, &v, 1, false, &put), ERR_RESET);
    assert_int_equal(tls_conn_writev(p.s, &v, 1, false, &put), ERR_RESET);
    assert_true(tls_conn_error(p.s)[0] != '\0');
    assert_int_equal(tls_conn_shutdown(p.s), ERR_OK);
    pair_close(&p);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

/* ---- streams */

static void stream_pair(struct stream **c, struct stream **s, struct tls_ctx *cctx, struct tls_ctx *sctx)
{
    make_pair(c, s);
    assert_int_equal(stream_tls_client(*c, cctx, "a.test"), ERR_OK);
    assert_int_equal(stream_tls_server(*s, sctx), ERR_OK);
    enum err ce = ERR_AGAIN, se = ERR_AGAIN;
    while (ce == ERR_AGAIN || se == ERR_AGAIN) {
        ce = stream_handshake(*c);
        se = stream_handshake(*s);
        if (ce == ERR_AGAIN || se == ERR_AGAIN) wait_ready();
    }
    assert_int_equal(ce, ERR_OK);
    assert_int_equal(se, ERR_OK);
}

static void streams_carry_bulk_both_ways(void **state)
{
    (void)state;
    char subject[16] = "x";
    struct tls_ctx *sctx = server_default();
    for (int i = 0; i < 4; i++) {
        struct stream *c, *s;
        struct tls_ctx *cctx = client_of(i % 2 ? TLS1_3_VERSION : TLS1_2_VERSION, "h2");
        stream_pair(&c, &s, cctx, sctx);
        if (i >= 2) {
            shrink_buffers(c);
            shrink_buffers(s);
        }
        assert_string_equal(stream_alpn(s), "h2");
        assert_string_equal(stream_peer_subject(s, subject, sizeof subject), "");
        assert_int_equal(stream_tls_version(s), i % 2 ? 13 : 12);
        assert_false(stream_ktls(s)); /* as no kernel here has it; else this test says so */
        exchange(c, s, (size_t)3 << 20);
        stream_destroy(c);
        stream_destroy(s);
        tls_ctx_destroy(cctx);
    }
    tls_ctx_destroy(sctx);
}

/* The kernel's part is played by a plain socket: what is written comes out as it is, in the order of the calls. */
static void with_kernel_tls_data_takes_the_plain_path(void **state)
{
    (void)state;
    struct stream *c, *s;
    char buf[16];
    size_t put;
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    stream_pair(&c, &s, cctx, sctx);
    s->tls->ktls = true;
    assert_true(stream_ktls(s));
    assert_true(stream_can_sendfile(s));
    while (recv(stream_fd(c), buf, sizeof buf, MSG_DONTWAIT) > 0) {
    } /* the tickets */
    struct iovec v[2] = {{(void *)(uintptr_t) "plain", 5}, {(void *)(uintptr_t) "text", 4}};
    assert_int_equal(stream_writev(s, v, 2, &put), ERR_OK);
    assert_int_equal(put, 9);
    file_put("file", "from a file");
    FILE *f = fopen(in_dir("file"), "r");
    assert_int_equal(stream_sendfile(s, fileno(f), 5, 6, &put), ERR_OK);
    fclose(f);
    assert_int_equal(put, 6);
    ssize_t n = 0;
    for (int i = 0; i < 100 && n < 15; i++, usleep(1000)) {
        ssize_t got = recv(stream_fd(c), buf + n, sizeof buf - (size_t)n, MSG_DONTWAIT);
        if (got > 0) n += got;
    }
    assert_int_equal(n, 15);
    assert_memory_equal(buf, "plaintexta file", 15);
    tls_conn_ktls_wrote(s->tls, ERR_OK, false); /* a writer that did not finish */
    stream_shutdown_write(s);
    for (int i = 0; i < 100 && (n = recv(stream_fd(c), buf, sizeof buf, MSG_DONTWAIT)) < 0; i++) usleep(1000);
    assert_int_equal(n, 0); /* no close_notify */
    stream_destroy(c);
    stream_destroy(s);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

static void throughput_is_sane(void **state)
{
    (void)state;
    const size_t total = (size_t)64 << 20;
    struct stream *c, *s;
    static char data[1 << 20], in[1 << 18];
    size_t sent = 0, received = 0, n;
    struct tls_ctx *sctx = server_default(), *cctx = client_of(0, NULL);
    stream_pair(&c, &s, cctx, sctx);
    uint64_t start = clock_ns();
    while (received < total) {
        struct iovec v = {data, total - sent < sizeof data ? total - sent : sizeof data};
        bool moved = v.iov_len && stream_writev(s, &v, 1, &n) == ERR_OK;
        if (moved) sent += n;
        while (stream_read(c, in, sizeof in, &n) == ERR_OK) {
            received += n;
            moved = true;
        }
        if (!moved) wait_ready();
    }
    uint64_t ms = (clock_ns() - start) / 1000000;
    print_message("64 MiB sealed, sent, received and opened by one thread in %llu ms\n", (unsigned long long)ms);
    assert_true(ms < 15000);
    stream_destroy(c);
    stream_destroy(s);
    tls_ctx_destroy(cctx);
    tls_ctx_destroy(sctx);
}

/* ---- threads */

static struct tls_ctx *shared_server;
static atomic_uint full, resumed;

static void *shake_many(void *arg)
{
    int version = *(int *)arg;
    struct tls_ctx *cctx = client_of(version, "h2,http/1.1");
    for (int i = 0; i < 60; i++) {
        struct pair p = pair_open(cctx, shared_server, i % 3 ? "a.test" : "b.test");
        atomic_fetch_add(tls_conn_resumed(p.s) ? &resumed : &full, 1);
        pair_close(&p);
    }
    tls_ctx_destroy(cctx);
    return NULL;
}

static void one_context_serves_many_threads_while_keys_change(void **state)
{
    (void)state;
    int versions[2] = {TLS1_2_VERSION, TLS1_3_VERSION};
    pthread_t threads[2];
    struct tls_certificate certs[] = {{in_dir("a.pem"), in_dir("a.key")}, {in_dir("b.pem"), in_dir("b.key")}};
    struct tls_server_options o = options();
    o.certificates = certs;
    o.ncertificates = 2;
    o.ticket_rotation_ms = 20; /* sessions themselves live for a second at least */
    shared_server = server_of(&o);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, shake_many, &versions[i]), 0);
    for (int i = 0; i < 5; i++) { /* reloads beside it */
        usleep(10000);
        o.previous = shared_server;
        tls_ctx_destroy(server_of(&o));
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    tls_ctx_destroy(shared_server);
    print_message("%u full handshakes, %u resumed\n", atomic_load(&full), atomic_load(&resumed));
    assert_int_equal(atomic_load(&full) + atomic_load(&resumed), 120);
    assert_true(atomic_load(&full) >= 4);
}

int main(void)
{
#define LOOP(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_versions_work_and_one_can_be_asked_for),
        cmocka_unit_test(alpn_is_chosen_by_the_server),
        cmocka_unit_test(ciphers_can_be_chosen),
        cmocka_unit_test(the_certificate_is_chosen_by_name),
        cmocka_unit_test(clients_are_verified),
        cmocka_unit_test(a_subject_cannot_break_a_log_line),
        cmocka_unit_test(tickets_live_for_two_keys),
        cmocka_unit_test(tickets_can_be_switched_off),
        cmocka_unit_test(a_reload_keeps_tickets_unless_others_may_connect),
        cmocka_unit_test(a_reload_leaves_connections_alone),
        cmocka_unit_test(bad_certificates_are_one_clear_line),
        cmocka_unit_test(bad_keys_are_one_clear_line),
        cmocka_unit_test(other_bad_options_are_one_clear_line),
        cmocka_unit_test(the_end_is_told_from_a_cut),
        cmocka_unit_test(renegotiation_is_refused),
        cmocka_unit_test(endless_key_updates_end_the_connection),
        cmocka_unit_test(plain_http_is_no_handshake),
        cmocka_unit_test(big_writes_come_through_whatever_the_socket_takes),
        cmocka_unit_test(who_gives_up_leaves_a_truncated_stream),
        cmocka_unit_test(a_retry_may_offer_less),
        cmocka_unit_test(openssl_s_own_records_keep_their_place),
        cmocka_unit_test(a_lost_peer_ends_the_writer_too),
        LOOP(streams_carry_bulk_both_ways),
        LOOP(with_kernel_tls_data_takes_the_plain_path),
        LOOP(throughput_is_sane),
        cmocka_unit_test(one_context_serves_many_threads_while_keys_change),
    };
    return cmocka_run_group_tests(tests, tls_dir_make, tls_dir_remove);
}
