/* tls_server.c - contexts of listeners: certificates, the choice among them, protocols, clients' certificates, tickets.
 *
 * One SSL_CTX per certificate, all set up alike; the name a client asks for (SNI) chooses one before anything else is
 * negotiated: an exact name before a wildcard, the first certificate where none fits. Nothing changes after creation
 * but the ticket keys, which have a lock of their own.
 *
 * Resumption keeps nothing here: tickets only. A ticket carries the session id context, which is made from who may
 * connect (`verify` and the client CA): a ticket from before a reload that changed this starts a full handshake. */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "io/tls_cert.h"
#include "io/tls_impl.h"

/* AES-128 first: the fastest where there are AES instructions. Who has none asks for ChaCha20 first, and gets it. */
#define CIPHERS_DEFAULT                                          \
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:" \
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:" \
    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
#define CIPHERSUITES_DEFAULT "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define SECURITY_LEVEL 2 /* 112 bits */
#define VERIFY_DEPTH 8
#define SESSION_SECONDS_MAX (7u * 24 * 3600) /* RFC 8446, 4.6.1 */

void tls_server_free(struct tls_server *s)
{
    for (unsigned i = 0; s->ssl_ctxs && i < s->n; i++) SSL_CTX_free(s->ssl_ctxs[i]);
    for (unsigned i = 0; s->certs && i < s->n; i++) tls_cert_clear(&s->certs[i]);
    free(s->certs);
    free(s->ssl_ctxs);
    free(s->alpn);
    tls_tickets_unref(s->tickets);
    free(s);
}

/* ---- during handshakes: any thread */

static int on_server_name(SSL *ssl, int *alert, void *arg)
{
    const struct tls_server *s = arg;
    char lower[TLS_NAME_BYTES];
    const char *asked = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    size_t n = asked ? strlen(asked) : 0;
    unsigned best = 0;
    int best_fit = 0;
    (void)alert;

    if (n == 0 || n >= sizeof lower) return SSL_TLSEXT_ERR_NOACK;
    for (size_t i = 0; i <= n; i++) lower[i] = (char)(asked[i] >= 'A' && asked[i] <= 'Z' ? asked[i] | 0x20 : asked[i]);
    if (lower[n - 1] == '.') lower[n - 1] = '\0';
    for (unsigned i = 0; i < s->n && best_fit < 2; i++) {
        int fit = tls_cert_fits(&s->certs[i], lower);
        if (fit <= best_fit) continue;
        best = i;
        best_fit = fit;
    }
    if (best_fit == 0) return SSL_TLSEXT_ERR_NOACK;
    return SSL_set_SSL_CTX(ssl, s->ssl_ctxs[best]) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* Ours by preference; RFC 7301, 3.2: who offers only others is refused. */
static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_n, const unsigned char *in, unsigned in_n,
                   void *arg)
{
    const struct tls_server *s = arg;
    unsigned char *chosen;
    (void)ssl;
    if (SSL_select_next_proto(&chosen, out_n, s->alpn, s->alpn_n, in, in_n) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac,
                     int enc)
{
    const struct tls_conn *t = SSL_get_app_data(ssl);
    return tls_tickets_use(t->ctx->server->tickets, name, iv, cipher, mac, enc);
}

/* The key updates a client sends are work for us and nothing to it: they are counted, and the BIO ends it (tls_out.c). */
static void on_message(int writing, int version, int type, const void *buf, size_t n, SSL *ssl, void *arg)
{
    (void)version, (void)arg;
    struct tls_conn *t = SSL_get_app_data(ssl);
    if (writing || type != SSL3_RT_HANDSHAKE || n == 0 || !t) return;
    if (*(const unsigned char *)buf == SSL3_MT_KEY_UPDATE) t->key_updates++;
}

/* ---- set-up */

static enum err failed(char *msg, size_t n, const char *what, const char *value)
{
    snprintf(msg, n, "%s%s%s: %s", what, *value ? " " : "", value, tls_openssl_reason());
    ERR_clear_error();
    return ERR_CONFIG;
}

/* A socket that is not connected is refused for that if the kernel knows the protocol, and for another reason if not. */
static bool ktls_offered(void)
{
#ifdef OPENSSL_NO_KTLS
    return false;
#else
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    bool known = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0 || errno == ENOTCONN;
    close(fd);
    return known;
#endif
}

static enum err set_ciphers(SSL_CTX *x, const struct tls_server_options *o, char *msg, size_t n)
{
    const char *ciphers = o->ciphers ? o->ciphers : CIPHERS_DEFAULT;
    const char *suites = o->ciphersuites ? o->ciphersuites : CIPHERSUITES_DEFAULT;
    SSL_CTX_set_security_level(x, SECURITY_LEVEL);
    if (!SSL_CTX_set_cipher_list(x, ciphers)) return failed(msg, n, "ciphers", ciphers);
    if (!SSL_CTX_set_ciphersuites(x, suites)) return failed(msg, n, "ciphersuites", suites);
    if (o->tls13_only && !SSL_CTX_set_min_proto_version(x, TLS1_3_VERSION)) return failed(msg, n, "min_version", "");
    return ERR_OK;
}

static bool digest_file(EVP_MD_CTX *md, const char *path)
{
    char block[4096];
    size_t got;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = true;
    while (ok && (got = fread(block, 1, sizeof block, f)) > 0) ok = EVP_DigestUpdate(md, block, got);
    ok = ok && !ferror(f);
    fclose(f);
    return ok;
}

/* Which sessions may be resumed here: those of clients that were looked at in the same way, for the same CAs. */
static bool set_session_context(SSL_CTX *x, const struct tls_server_options *o)
{
    unsigned char id[EVP_MAX_MD_SIZE], mode = (unsigned char)o->verify;
    unsigned id_n = 0;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = md && EVP_DigestInit_ex2(md, EVP_sha256(), NULL) && EVP_DigestUpdate(md, &mode, 1);
    if (o->verify != TLS_VERIFY_OFF) ok = ok && digest_file(md, o->client_ca);
    ok = ok && EVP_DigestFinal_ex(md, id, &id_n) && SSL_CTX_set_session_id_context(x, id, id_n);
    EVP_MD_CTX_free(md);
    return ok;
}

static enum err set_clients(SSL_CTX *x, const struct tls_server_options *o, char *msg, size_t n)
{
    static const int modes[] = {[TLS_VERIFY_OFF] = SSL_VERIFY_NONE,
                                [TLS_VERIFY_OPTIONAL] = SSL_VERIFY_PEER,
                                [TLS_VERIFY_REQUIRED] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT};
    STACK_OF(X509_NAME) *names = NULL;
    SSL_CTX_set_verify(x, modes[o->verify], NULL);
    if (o->verify != TLS_VERIFY_OFF) {
        SSL_CTX_set_verify_depth(x, VERIFY_DEPTH);
        if (!o->client_ca) {
            snprintf(msg, n, "client_ca: missing, expected with verify");
            return ERR_CONFIG;
        }
        if (!SSL_CTX_load_verify_file(x, o->client_ca) || !(names = SSL_load_client_CA_file(o->client_ca)))
            return failed(msg, n, "client_ca", o->client_ca);
    }
    if (names) SSL_CTX_set_client_CA_list(x, names); /* owns them */
    if (set_session_context(x, o)) return ERR_OK;
    return failed(msg, n, "client_ca", o->client_ca ? o->client_ca : "");
}

static void set_sessions(SSL_CTX *x, const struct tls_server *s, const struct tls_server_options *o)
{
    uint64_t seconds = o->ticket_rotation_ms / 1000;
    SSL_CTX_set_session_cache_mode(x, SSL_SESS_CACHE_OFF);
    if (!s->tickets) {
        SSL_CTX_set_options(x, SSL_OP_NO_TICKET);
        SSL_CTX_set_num_tickets(x, 0);
        return;
    }
    SSL_CTX_set_timeout(x, (long)(seconds < 1 ? 1 : seconds < SESSION_SECONDS_MAX ? seconds : SESSION_SECONDS_MAX));
    SSL_CTX_set_tlsext_ticket_key_evp_cb(x, on_ticket);
}

static enum err set_certificate(SSL_CTX *x, const struct tls_certificate *files, struct tls_cert *c, char *msg,
                                size_t n)
{
    enum err e = tls_cert_load(files, c, msg, n);
    if (e != ERR_OK) return e;
    if (!SSL_CTX_use_certificate(x, c->leaf) || (c->chain && !SSL_CTX_set1_chain(x, c->chain)))
        return failed(msg, n, "certificate", files->certificate);
    if (!SSL_CTX_use_PrivateKey(x, c->key)) return failed(msg, n, "key", files->key ? files->key : files->certificate);
    return ERR_OK;
}

static enum err set_up(struct tls_server *s, unsigned i, const struct tls_server_options *o, bool ktls, char *msg,
                       size_t n)
{
    SSL_CTX *x = s->ssl_ctxs[i];
    SSL_CTX_set_options(x, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    if (ktls) SSL_CTX_set_options(x, SSL_OP_ENABLE_KTLS);
    /* An idle connection keeps no buffers: there may be ten thousand. */
    SSL_CTX_set_mode(x, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_tlsext_servername_callback(x, on_server_name);
    SSL_CTX_set_tlsext_servername_arg(x, s);
    SSL_CTX_set_msg_callback(x, on_message);
    if (s->alpn) SSL_CTX_set_alpn_select_cb(x, on_alpn, s);
    set_sessions(x, s, o);
    enum err e = set_ciphers(x, o, msg, n);
    if (e == ERR_OK) e = set_clients(x, o, msg, n);
    if (e == ERR_OK) e = set_certificate(x, &o->certificates[i], &s->certs[i], msg, n);
    if (e == ERR_OK && i > 0 && s->certs[i].nnames == 0) {
        snprintf(msg, n, "certificate %s: no DNS name in it, expected one, as only the first is used without",
                 o->certificates[i].certificate);
        e = ERR_CONFIG;
    }
    return e;
}

static struct tls_tickets *tickets_of(const struct tls_server_options *o)
{
    struct tls_tickets *old = o->previous && o->previous->server ? o->previous->server->tickets : NULL;
    return old ? tls_tickets_share(old, o->ticket_rotation_ms) : tls_tickets_create(o->ticket_rotation_ms);
}

static enum err server_new(const struct tls_server_options *o, struct tls_ctx *c, char *msg, size_t n)
{
    struct tls_server *s = c->server = calloc(1, sizeof *s);
    snprintf(msg, n, "cannot set up TLS: out of memory");
    if (!s) return ERR_NOMEM;
    s->certs = calloc(o->ncertificates, sizeof *s->certs);
    s->ssl_ctxs = calloc(o->ncertificates, sizeof *s->ssl_ctxs);
    if (!s->certs || !s->ssl_ctxs) return ERR_NOMEM;
    s->n = o->ncertificates;
    if (o->ticket_rotation_ms && !(s->tickets = tickets_of(o))) return ERR_NOMEM;
    if (o->alpn && !(s->alpn = tls_alpn_wire(o->alpn, &s->alpn_n))) {
        snprintf(msg, n, "not a list of ALPN protocols: %s", o->alpn);
        return ERR_CONFIG;
    }
    s->ssl_ctxs[0] = c->ssl_ctx;
    SSL_CTX_up_ref(c->ssl_ctx);
    for (unsigned i = 1; i < s->n; i++)
        if (!(s->ssl_ctxs[i] = tls_ssl_ctx_new(TLS_server_method()))) return ERR_NOMEM;
    return ERR_OK;
}

enum err tls_server_ctx_create(const struct tls_server_options *o, struct tls_ctx **out, char *msg, size_t n)
{
    *out = NULL;
    CHECK(o->ncertificates > 0);
    ERR_clear_error();
    struct tls_ctx *c = tls_ctx_new(TLS_server_method());
    if (!c) {
        snprintf(msg, n, "cannot set up TLS: %s", tls_openssl_reason());
        return ERR_NOMEM;
    }
    bool ktls = ktls_offered();
    enum err e = server_new(o, c, msg, n);
    for (unsigned i = 0; e == ERR_OK && i < o->ncertificates; i++) e = set_up(c->server, i, o, ktls, msg, n);
    if (e != ERR_OK) {
        ERR_clear_error();
        tls_ctx_destroy(c);
        return e;
    }
    *msg = '\0';
    *out = c;
    return ERR_OK;
}
