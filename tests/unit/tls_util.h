/* tls_util.h - for tests of TLS servers: certificates and keys made on the spot as files of a temporary directory, and
 * pairs of connections of ours, joined by a socketpair and driven by one thread. Included once per test program. */
#ifndef TEST_TLS_UTIL_H
#define TEST_TLS_UTIL_H

#include "stream_util.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>

#include "io/tls_impl.h"

#define DAY_S 86400L

static char tls_dir[] = "/tmp/test_tls_server.XXXXXX";

static inline const char *in_dir(const char *name)
{
    static _Thread_local char paths[16][128];
    static _Thread_local unsigned at;
    char *path = paths[at++ % ARRAY_LEN(paths)];
    snprintf(path, sizeof paths[0], "%s/%s", tls_dir, name);
    return path;
}

static inline FILE *file_make(const char *name)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    return f;
}

static inline void file_put(const char *name, const char *text)
{
    FILE *f = file_make(name);
    fputs(text, f);
    fclose(f);
}

struct recipe {
    const char *file; /* NAME.pem and NAME.key are made */
    const char *cn, *alt_names;
    const char *issuer; /* file of an earlier one; NULL: self-signed */
    const char *digest; /* SHA256 */
    unsigned rsa_bits;  /* 0: EC P-256 */
    long from_s, to_s;  /* from now; 0, 0: an hour ago, in a day */
    bool is_ca;
};

static inline void extend(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(ext);
    assert_int_equal(X509_add_ext(cert, ext, -1), 1);
    X509_EXTENSION_free(ext);
}

static inline X509 *cert_read(const char *file)
{
    char name[64];
    snprintf(name, sizeof name, "%s.pem", file);
    FILE *f = fopen(in_dir(name), "r");
    assert_non_null(f);
    X509 *cert = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    assert_non_null(cert);
    return cert;
}

static inline EVP_PKEY *key_read(const char *file)
{
    char name[64];
    snprintf(name, sizeof name, "%s.key", file);
    FILE *f = fopen(in_dir(name), "r");
    assert_non_null(f);
    EVP_PKEY *key = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    assert_non_null(key);
    return key;
}

static inline void make(struct recipe r)
{
    char name[64];
    static long serial;
    EVP_PKEY *key = r.rsa_bits ? EVP_RSA_gen(r.rsa_bits) : EVP_EC_gen("P-256");
    EVP_PKEY *issuer_key = r.issuer ? key_read(r.issuer) : key;
    X509 *cert = X509_new(), *issuer = r.issuer ? cert_read(r.issuer) : cert;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), r.from_s || r.to_s ? r.from_s : -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), r.from_s || r.to_s ? r.to_s : DAY_S);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)r.cn, -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(issuer));
    extend(cert, issuer, NID_basic_constraints, r.is_ca ? "critical,CA:TRUE" : "CA:FALSE");
    extend(cert, cert, NID_subject_key_identifier, "hash");
    if (r.alt_names) extend(cert, issuer, NID_subject_alt_name, r.alt_names);
    assert_true(X509_sign(cert, issuer_key, EVP_get_digestbyname(r.digest ? r.digest : "SHA256")) > 0);

    snprintf(name, sizeof name, "%s.pem", r.file);
    FILE *f = file_make(name);
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
    snprintf(name, sizeof name, "%s.key", r.file);
    f = file_make(name);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    if (issuer != cert) X509_free(issuer);
    if (issuer_key != key) EVP_PKEY_free(issuer_key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static inline void join(const char *to, const char *a, const char *b)
{
    char command[512];
    snprintf(command, sizeof command, "cat %s %s > %s", in_dir(a), in_dir(b), in_dir(to));
    assert_int_equal(system(command), 0);
}

/* ---- contexts */

static struct tls_certificate one_cert[1];

static inline struct tls_server_options options(void)
{
    one_cert[0] = (struct tls_certificate){in_dir("a.pem"), in_dir("a.key")};
    return (struct tls_server_options){
        .certificates = one_cert, .ncertificates = 1, .alpn = "h2,http/1.1", .ticket_rotation_ms = 3600000};
}

static inline struct tls_ctx *server_of(const struct tls_server_options *o)
{
    char msg[600];
    struct tls_ctx *ctx;
    if (tls_server_ctx_create(o, &ctx, msg, sizeof msg) != ERR_OK) fail_msg("%s", msg);
    return ctx;
}

static inline struct tls_ctx *server_default(void)
{
    struct tls_server_options o = options();
    return server_of(&o);
}

static inline struct tls_ctx *client_of(int version, const char *alpn)
{
    char msg[600];
    struct tls_client_options o = {.ca_file = in_dir("ca.pem"), .verify = false, .alpn = alpn};
    struct tls_ctx *ctx;
    if (tls_client_ctx_create(&o, &ctx, msg, sizeof msg) != ERR_OK) fail_msg("%s", msg);
    if (version) {
        SSL_CTX_set_min_proto_version(ctx->ssl_ctx, version);
        SSL_CTX_set_max_proto_version(ctx->ssl_ctx, version);
    }
    return ctx;
}

/* ---- pairs */

struct pair {
    int fds[2];
    struct tls_conn *c, *s;
    enum err ce, se; /* of the handshakes */
};

static inline struct pair pair_shake(struct tls_ctx *cctx, struct tls_ctx *sctx, const char *name)
{
    struct pair p = {.ce = ERR_AGAIN, .se = ERR_AGAIN};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p.fds), 0);
    assert_int_equal(tls_conn_client(cctx, p.fds[0], name, &p.c), ERR_OK);
    assert_int_equal(tls_conn_server(sctx, p.fds[1], &p.s), ERR_OK);
    for (int i = 0; i < 20 && (p.ce == ERR_AGAIN || p.se == ERR_AGAIN); i++) {
        if (p.ce == ERR_AGAIN) p.ce = tls_conn_handshake(p.c);
        if (p.se == ERR_AGAIN) p.se = tls_conn_handshake(p.s);
    }
    return p;
}

/* Both handshakes are good, and bytes (with the tickets before them) come through. */
static inline struct pair pair_open(struct tls_ctx *cctx, struct tls_ctx *sctx, const char *name)
{
    char buf[8];
    size_t n;
    struct iovec hello = {(void *)(uintptr_t) "hello", 5};
    struct pair p = pair_shake(cctx, sctx, name);
    if (p.ce != ERR_OK || p.se != ERR_OK) fail_msg("client: %s, server: %s", tls_conn_error(p.c), tls_conn_error(p.s));
    assert_int_equal(tls_conn_writev(p.s, &hello, 1, false, &n), ERR_OK);
    assert_int_equal(n, 5);
    assert_int_equal(tls_conn_read(p.c, buf, sizeof buf, &n), ERR_OK);
    assert_int_equal(n, 5);
    assert_memory_equal(buf, "hello", 5);
    return p;
}

static inline void pair_close(struct pair *p)
{
    tls_conn_destroy(p->c);
    tls_conn_destroy(p->s);
    for (int i = 0; i < 2; i++)
        if (p->fds[i] >= 0) close(p->fds[i]);
}

/* CN of the certificate the client was shown. */
static inline const char *shown_to(struct pair *p)
{
    static char cn[64];
    X509 *cert = SSL_get0_peer_certificate(p->c->ssl);
    assert_non_null(cert);
    X509_NAME_get_text_by_NID(X509_get_subject_name(cert), NID_commonName, cn, sizeof cn);
    return cn;
}

static inline void use_client_cert(struct tls_ctx *cctx, const char *file)
{
    X509 *cert = cert_read(file);
    EVP_PKEY *key = key_read(file);
    assert_int_equal(SSL_CTX_use_certificate(cctx->ssl_ctx, cert), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(cctx->ssl_ctx, key), 1);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static inline int tls_dir_make(void **state)
{
    (void)state;
    if (!mkdtemp(tls_dir)) return -1;
    make((struct recipe){.file = "ca", .cn = "test CA", .is_ca = true});
    make((struct recipe){.file = "other_ca", .cn = "other CA", .is_ca = true});
    make((struct recipe){.file = "a", .cn = "a", .issuer = "ca", .alt_names = "DNS:a.test,IP:127.0.0.1"});
    return 0;
}

static inline int tls_dir_remove(void **state)
{
    char command[64];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", tls_dir);
    return system(command);
}

#endif
