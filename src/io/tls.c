/* tls.c - TLS with OpenSSL 3: client contexts, connections, handshake, reading. Writing is tls_out.c, servers' contexts
 * are tls_server.c.
 *
 * Client and server contexts are one struct: `tls_ctx_new` sets what both need, `tls_client_ctx_create` adds
 * verification, ALPN offer and the session store. A connection holds a reference to its context, so a reload may drop a
 * context while connections still use it.
 *
 * Session store: the newest session per server name, at most SESSIONS_MAX names, least recently used first out, under
 * `lock`. What is stored or handed out is a private copy: OpenSSL changes sessions in use, and one of them may be used
 * by many threads' handshakes at once.
 *
 * States of a connection: handshaking -> open -> (close_notify seen: END) or broken. Broken is final and `broken` keeps
 * saying why. */
#include "io/tls.h"

#include <arpa/inet.h>
#include <limits.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"
#include "io/tls_impl.h"

#define SESSIONS_MAX 64
#define READ_BUFFER_BYTES ((size_t)65536) /* several records with one recv */

struct session_entry {
    struct list link;
    SSL_SESSION *session;
    char name[TLS_NAME_BYTES];
};

/* ---- sessions */

static void entry_free_locked(struct tls_ctx *c, struct session_entry *entry)
{
    list_remove(&entry->link);
    SSL_SESSION_free(entry->session);
    free(entry);
    c->n_sessions--;
}

static struct session_entry *entry_find_locked(struct tls_ctx *c, const char *name)
{
    LIST_EACH_SAFE(n, next, &c->sessions)
    {
        struct session_entry *entry = container_of(n, struct session_entry, link);
        if (strcmp(entry->name, name) == 0) return entry;
    }
    return NULL;
}

static struct session_entry *entry_add_locked(struct tls_ctx *c, const char *name)
{
    struct session_entry *entry = calloc(1, sizeof *entry);
    if (!entry) return NULL;
    snprintf(entry->name, sizeof entry->name, "%s", name);
    list_push_front(&c->sessions, &entry->link);
    if (++c->n_sessions > SESSIONS_MAX)
        entry_free_locked(c, container_of(list_last(&c->sessions), struct session_entry, link));
    return entry;
}

/* Called by OpenSSL for each session (TLS 1.3: each ticket) of a connection. 0: we took no reference to `session`. */
static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls_conn *t = SSL_get_app_data(ssl);
    SSL_SESSION *copy = t && SSL_SESSION_is_resumable(session) ? SSL_SESSION_dup(session) : NULL;
    if (!copy) return 0; /* the next handshake is a full one, no harm */

    pthread_mutex_lock(&t->ctx->lock);
    struct session_entry *entry = entry_find_locked(t->ctx, t->name);
    if (!entry) entry = entry_add_locked(t->ctx, t->name);
    if (entry) {
        SSL_SESSION_free(entry->session);
        entry->session = copy;
        copy = NULL;
    }
    pthread_mutex_unlock(&t->ctx->lock);
    SSL_SESSION_free(copy);
    return 0;
}

static void session_offer(struct tls_conn *t)
{
    SSL_SESSION *copy = NULL;
    pthread_mutex_lock(&t->ctx->lock);
    struct session_entry *entry = entry_find_locked(t->ctx, t->name);
    if (entry) {
        copy = SSL_SESSION_dup(entry->session);
        list_remove(&entry->link);
        list_push_front(&t->ctx->sessions, &entry->link);
    }
    pthread_mutex_unlock(&t->ctx->lock);
    if (copy) SSL_set_session(t->ssl, copy);
    SSL_SESSION_free(copy);
}

/* After a failed handshake the next attempt must not stumble over the same session. */
static void session_forget(struct tls_conn *t)
{
    pthread_mutex_lock(&t->ctx->lock);
    struct session_entry *entry = entry_find_locked(t->ctx, t->name);
    if (entry) entry_free_locked(t->ctx, entry);
    pthread_mutex_unlock(&t->ctx->lock);
}

/* ---- contexts */

static void ctx_unref(struct tls_ctx *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    LIST_EACH_SAFE(n, next, &c->sessions) entry_free_locked(c, container_of(n, struct session_entry, link));
    SSL_CTX_free(c->ssl_ctx);
    if (c->server) tls_server_free(c->server);
    BIO_meth_free(c->bio_method);
    pthread_mutex_destroy(&c->lock);
    c->magic = 0;
    free(c);
}

SSL_CTX *tls_ssl_ctx_new(const SSL_METHOD *method)
{
    SSL_CTX *x = SSL_CTX_new(method);
    if (!x) return NULL;
    if (!SSL_CTX_set_min_proto_version(x, TLS1_2_VERSION)) {
        SSL_CTX_free(x);
        return NULL;
    }
    SSL_CTX_set_options(x, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(x, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(x, 1);
    SSL_CTX_set_default_read_buffer_len(x, READ_BUFFER_BYTES);
    return x;
}

struct tls_ctx *tls_ctx_new(const SSL_METHOD *method)
{
    struct tls_ctx *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->magic = TLS_CTX_MAGIC;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->sessions);
    c->bio_method = tls_bio_method_new();
    c->ssl_ctx = tls_ssl_ctx_new(method);
    if (c->bio_method && c->ssl_ctx) return c;
    ctx_unref(c);
    return NULL;
}

unsigned char *tls_alpn_wire(const char *text, unsigned *n)
{
    struct str rest = str_c(text), name;
    struct strbuf wire;
    bool ok = true;
    strbuf_init(&wire, 256);
    while (ok && str_split(&rest, ',', &name)) {
        name = str_trim(name);
        ok = name.n > 0 && name.n <= 255;
        strbuf_ch(&wire, (char)name.n);
        strbuf_str(&wire, name);
    }
    if (ok && !wire.failed && wire.n > 0) {
        *n = (unsigned)wire.n;
        return (unsigned char *)wire.p;
    }
    strbuf_free(&wire);
    return NULL;
}

static bool ctx_set_alpn(struct tls_ctx *c, const char *alpn)
{
    unsigned n;
    unsigned char *wire = tls_alpn_wire(alpn, &n);
    /* The one call of this family in which 0 means success. */
    bool ok = wire && SSL_CTX_set_alpn_protos(c->ssl_ctx, wire, n) == 0;
    free(wire);
    return ok;
}

const char *tls_openssl_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;
    if (text) return text;
    return code && ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : "unknown error";
}

static enum err ctx_set_trust(struct tls_ctx *c, const struct tls_client_options *o, char *msg, size_t n)
{
    SSL_CTX_set_verify(c->ssl_ctx, o->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    c->verify = o->verify;
    if (o->ca_file) {
        if (SSL_CTX_load_verify_file(c->ssl_ctx, o->ca_file)) return ERR_OK;
        snprintf(msg, n, "cannot load the CA certificates of %s: %s", o->ca_file, tls_openssl_reason());
        return ERR_CONFIG;
    }
    if (SSL_CTX_set_default_verify_paths(c->ssl_ctx)) return ERR_OK;
    snprintf(msg, n, "cannot use the system's CA certificates: %s", tls_openssl_reason());
    return ERR_CONFIG;
}

enum err tls_client_ctx_create(const struct tls_client_options *o, struct tls_ctx **out, char *msg, size_t n)
{
    *out = NULL;
    ERR_clear_error();
    struct tls_ctx *c = tls_ctx_new(TLS_client_method());
    if (!c) {
        snprintf(msg, n, "cannot set up TLS: %s", tls_openssl_reason());
        return ERR_NOMEM;
    }
    enum err e = ctx_set_trust(c, o, msg, n);
    if (e == ERR_OK && o->alpn && !ctx_set_alpn(c, o->alpn)) {
        snprintf(msg, n, "not a list of ALPN protocols: %s", o->alpn);
        e = ERR_CONFIG;
    }
    if (e != ERR_OK) {
        ERR_clear_error();
        ctx_unref(c);
        return e;
    }
    SSL_CTX_set_session_cache_mode(c->ssl_ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(c->ssl_ctx, on_new_session);
    *out = c;
    return ERR_OK;
}

struct tls_ctx *tls_ctx_ref(struct tls_ctx *c)
{
    CHECK_OBJ(c, TLS_CTX_MAGIC);
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

void tls_ctx_destroy(struct tls_ctx *c)
{
    if (!c) return;
    CHECK_OBJ(c, TLS_CTX_MAGIC);
    ctx_unref(c);
}

/* ---- connections */

static enum err conn_new(struct tls_ctx *c, int fd, struct tls_conn **out)
{
    CHECK_OBJ(c, TLS_CTX_MAGIC);
    *out = NULL;
    struct tls_conn *t = calloc(1, sizeof *t);
    if (!t) return ERR_NOMEM;
    t->magic = TLS_CONN_MAGIC;
    t->fd = fd;
    t->broken = t->write_broken = ERR_OK;
    t->ctx = c;
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    t->ssl = SSL_new(c->ssl_ctx);
    BIO *bio = t->ssl ? BIO_new(c->bio_method) : NULL;
    if (!bio) {
        ERR_clear_error();
        tls_conn_destroy(t);
        return ERR_NOMEM;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    SSL_set_app_data(t->ssl, t);
    *out = t;
    return ERR_OK;
}

/* The host without the brackets of an IPv6 literal and without the dot of a fully qualified name. */
static bool host_name(const char *server_name, char *buf, size_t cap)
{
    struct str s = str_c(server_name);
    if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']') s = str_make(s.p + 1, s.n - 2);
    if (s.n && s.p[s.n - 1] == '.') s.n--;
    if (s.n == 0 || s.n >= cap) return false;
    memcpy(buf, s.p, s.n);
    buf[s.n] = '\0';
    return true;
}

static bool is_ip_address(const char *host)
{
    unsigned char raw[16];
    return inet_pton(AF_INET, host, raw) == 1 || inet_pton(AF_INET6, host, raw) == 1;
}

/* RFC 9525: an address is compared with the certificate's iPAddress names, a name with dNSName only; RFC 6066, 3: an
 * address is no SNI. */
static bool conn_set_peer(struct tls_conn *t)
{
    X509_VERIFY_PARAM *param = SSL_get0_param(t->ssl);
    if (is_ip_address(t->name)) return !t->ctx->verify || X509_VERIFY_PARAM_set1_ip_asc(param, t->name);
    if (!SSL_set_tlsext_host_name(t->ssl, t->name)) return false;
    X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return !t->ctx->verify || SSL_set1_host(t->ssl, t->name);
}

enum err tls_conn_client(struct tls_ctx *c, int fd, const char *server_name, struct tls_conn **out)
{
    struct tls_conn *t;
    *out = NULL;
    enum err e = conn_new(c, fd, &t);
    if (e != ERR_OK) return e;
    ERR_clear_error();
    if (!host_name(server_name, t->name, sizeof t->name) || !conn_set_peer(t)) {
        ERR_clear_error();
        tls_conn_destroy(t);
        return ERR_TLS;
    }
    session_offer(t);
    SSL_set_connect_state(t->ssl);
    *out = t;
    return ERR_OK;
}

enum err tls_conn_server(struct tls_ctx *c, int fd, struct tls_conn **out)
{
    enum err e = conn_new(c, fd, out);
    if (e == ERR_OK) SSL_set_accept_state((*out)->ssl);
    return e;
}

void tls_conn_destroy(struct tls_conn *t)
{
    if (!t) return;
    CHECK_OBJ(t, TLS_CONN_MAGIC);
    SSL_free(t->ssl);
    tls_out_free(t);
    ctx_unref(t->ctx);
    free(t->peer_subject);
    t->magic = 0;
    free(t);
}

/* ---- results */

static enum err conn_break(struct tls_conn *t, enum err e, const char *why)
{
    t->broken = e;
    snprintf(t->error, sizeof t->error, "%s", why);
    ERR_clear_error();
    return e;
}

/* The end of the connection below TLS. */
static enum err conn_lost(struct tls_conn *t)
{
    /* A reset is reported once; if a write got it, reads see a mere end. */
    if (t->eof && t->write_broken != ERR_OK) return conn_break(t, t->write_broken, "connection lost");
    if (t->eof) return conn_break(t, ERR_TRUNCATED, "connection closed without a TLS close_notify");
    int number = t->error_number;
    return conn_break(t, tls_lost(number) ? ERR_RESET : ERR_IO, number ? strerror(number) : "connection lost");
}

/* What a failed SSL call means; never ERR_OK. */
enum err tls_conn_result(struct tls_conn *t, int rc, bool *needs_other)
{
    int what = SSL_get_error(t->ssl, rc);
    switch (what) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        if (needs_other) *needs_other = true;
        return ERR_AGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return ERR_END;
    case SSL_ERROR_SYSCALL:
        return conn_lost(t);
    default:
        if (t->eof || t->error_number) return conn_lost(t);
        return conn_break(t, ERR_TLS, tls_openssl_reason());
    }
}

/* ---- handshake */

static enum err handshake_failed(struct tls_conn *t, int rc)
{
    char why[sizeof t->error];
    long verdict = SSL_get_verify_result(t->ssl);
    enum err e = ERR_TLS;

    if (t->ctx->verify && verdict != X509_V_OK) {
        snprintf(why, sizeof why, "certificate for %.64s not accepted: %.64s", t->name,
                 X509_verify_cert_error_string(verdict));
    } else if (t->ctx->server && verdict != X509_V_OK) {
        snprintf(why, sizeof why, "client's certificate not accepted: %.64s", X509_verify_cert_error_string(verdict));
    } else if (t->eof) {
        snprintf(why, sizeof why, "connection closed during the TLS handshake");
    } else {
        e = tls_conn_result(t, rc, NULL);
        snprintf(why, sizeof why, "TLS handshake: %.128s", t->error);
        if (e == ERR_AGAIN || e == ERR_END) e = ERR_TLS;
    }
    if (t->name[0]) session_forget(t);
    return conn_break(t, e, why);
}

enum err tls_conn_handshake(struct tls_conn *t)
{
    if (t->broken != ERR_OK) return t->broken;
    ERR_clear_error();
    int rc = SSL_do_handshake(t->ssl);
    if (rc == 1) return ERR_OK;
    int what = SSL_get_error(t->ssl, rc);
    if (what == SSL_ERROR_WANT_READ || what == SSL_ERROR_WANT_WRITE) return ERR_AGAIN;
    return handshake_failed(t, rc);
}

/* ---- bytes */

enum err tls_conn_read(struct tls_conn *t, void *buf, size_t n, size_t *got)
{
    *got = 0;
    if (t->broken != ERR_OK) return t->broken;
    t->read_needs_write = false;
    ERR_clear_error();
    int rc = SSL_read_ex(t->ssl, buf, n, got);
    if (rc == 1) return ERR_OK;
    *got = 0;
    if (SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_WRITE) return tls_conn_result(t, rc, &t->read_needs_write);
    return tls_conn_result(t, rc, NULL);
}

bool tls_conn_idle_broken(struct tls_conn *t)
{
    char byte;
    size_t got;
    if (t->broken != ERR_OK || t->write_broken != ERR_OK) return true;
    ERR_clear_error();
    int rc = SSL_peek_ex(t->ssl, &byte, 1, &got);
    if (rc == 1) return true;
    return tls_conn_result(t, rc, NULL) != ERR_AGAIN;
}

bool tls_conn_read_needs_write(const struct tls_conn *t)
{
    return t->read_needs_write;
}

bool tls_conn_write_needs_read(const struct tls_conn *t)
{
    return t->write_needs_read;
}

bool tls_conn_resumed(const struct tls_conn *t)
{
    return SSL_session_reused(t->ssl);
}

unsigned tls_conn_version(const struct tls_conn *t)
{
    if (!SSL_is_init_finished(t->ssl)) return 0;
    return SSL_version(t->ssl) == TLS1_3_VERSION ? 13 : 12;
}

bool tls_conn_ktls(const struct tls_conn *t)
{
    return t->ktls;
}

char *tls_conn_peer_subject(const struct tls_conn *t, char *buf, size_t n)
{
    X509 *cert = SSL_get0_peer_certificate(t->ssl);
    buf[0] = '\0';
    /* Of a certificate that nobody vouches for the name says nothing. */
    if (!cert || SSL_get_verify_mode(t->ssl) == SSL_VERIFY_NONE || SSL_get_verify_result(t->ssl) != X509_V_OK)
        return buf;
    BIO *text = BIO_new(BIO_s_mem());
    if (text && X509_NAME_print_ex(text, X509_get_subject_name(cert), 0, XN_FLAG_RFC2253) >= 0) {
        int got = BIO_read(text, buf, n - 1 < INT_MAX ? (int)(n - 1) : INT_MAX);
        buf[got > 0 ? got : 0] = '\0';
    }
    BIO_free(text);
    ERR_clear_error();
    return buf;
}

const char *tls_conn_peer(struct tls_conn *t)
{
    char subject[TLS_SUBJECT_BYTES];
    if (!t->peer_subject && tls_conn_peer_subject(t, subject, sizeof subject)[0]) t->peer_subject = strdup(subject);
    return t->peer_subject;
}

const char *tls_conn_alpn(const struct tls_conn *t)
{
    const unsigned char *name;
    unsigned n;
    SSL_get0_alpn_selected(t->ssl, &name, &n);
    /* Kept as text only for the protocols that this program can speak. */
    if (n == 2 && memcmp(name, "h2", 2) == 0) return "h2";
    if (n == 8 && memcmp(name, "http/1.1", 8) == 0) return "http/1.1";
    return "";
}

const char *tls_conn_error(const struct tls_conn *t)
{
    return t->error;
}
