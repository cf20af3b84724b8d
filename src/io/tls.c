/* tls.c - TLS with OpenSSL 3.
 *
 * Client and server contexts are one struct: `ctx_new` sets what both need, `tls_client_ctx_create` adds verification,
 * ALPN offer and the session store. A connection holds a reference to its context, so a reload may drop a context while
 * connections still use it.
 *
 * Bytes go through a BIO of our own: the one of OpenSSL writes with write(2), which raises SIGPIPE, and it does not tell
 * an end of file from an error afterwards.
 *
 * Session store: the newest session per server name, at most SESSIONS_MAX names, least recently used first out, under
 * `lock`. What is stored or handed out is a private copy: OpenSSL changes sessions in use, and one of them may be used
 * by many threads' handshakes at once.
 *
 * States of a connection: handshaking -> open -> (close_notify seen: END) or broken. Broken is final and `broken` keeps
 * saying why. */
#include "io/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/check.h"
#include "base/list.h"
#include "base/str.h"

#define TLS_CTX_MAGIC 0x746c7363u
#define TLS_CONN_MAGIC 0x746c736eu
#define SESSIONS_MAX 64
#define RECORD_BYTES ((size_t)16384)      /* RFC 8446, 5.1: at most 2^14 bytes of plaintext in a record */
#define READ_BUFFER_BYTES ((size_t)65536) /* several records with one recv */
#define NAME_BYTES 256                    /* a DNS name is at most 253 */

struct session_entry {
    struct list link;
    SSL_SESSION *session;
    char name[NAME_BYTES];
};

struct tls_ctx {
    uint32_t magic;
    atomic_uint refs;
    SSL_CTX *ssl_ctx;
    BIO_METHOD *bio_method;
    bool verify;
    /* under lock */
    pthread_mutex_t lock;
    struct list sessions; /* most recently used first */
    unsigned n_sessions;
};

struct tls_conn {
    uint32_t magic;
    int fd;
    SSL *ssl;
    struct tls_ctx *ctx;
    size_t pending_bytes; /* plaintext of a record that waits for room: a retry must offer at least so much */
    int error_number;     /* of the last failed recv or send */
    bool eof;             /* the peer's FIN was read */
    bool read_needs_write, write_needs_read;
    enum err broken;       /* ERR_OK: not */
    enum err write_broken; /* the socket takes no more; what the peer sent before can still be read (an early answer) */
    char name[NAME_BYTES];
    char error[160];
};

/* ---- the BIO */

static int bio_result(BIO *b, ssize_t r, int retry_flag)
{
    struct tls_conn *t = BIO_get_data(b);
    if (r >= 0) return (int)r;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        BIO_set_flags(b, retry_flag | BIO_FLAGS_SHOULD_RETRY);
    else
        t->error_number = errno;
    return -1;
}

static int bio_read(BIO *b, char *buf, int n)
{
    struct tls_conn *t = BIO_get_data(b);
    ssize_t r;
    BIO_clear_retry_flags(b);
    do
        r = recv(t->fd, buf, (size_t)n, 0);
    while (r < 0 && errno == EINTR);
    if (r == 0) t->eof = true;
    return bio_result(b, r, BIO_FLAGS_READ);
}

static int bio_write(BIO *b, const char *buf, int n)
{
    struct tls_conn *t = BIO_get_data(b);
    ssize_t w;
    BIO_clear_retry_flags(b);
    do
        w = send(t->fd, buf, (size_t)n, MSG_NOSIGNAL);
    while (w < 0 && errno == EINTR);
    return bio_result(b, w, BIO_FLAGS_WRITE);
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    struct tls_conn *t = BIO_get_data(b);
    (void)num;
    (void)ptr;
    switch (cmd) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return t && t->eof;
    default:
        return 0;
    }
}

static BIO_METHOD *bio_method_new(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    if (!m) return NULL;
    if (BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl)) return m;
    BIO_meth_free(m);
    return NULL;
}

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
    BIO_meth_free(c->bio_method);
    pthread_mutex_destroy(&c->lock);
    c->magic = 0;
    free(c);
}

static struct tls_ctx *ctx_new(const SSL_METHOD *method)
{
    struct tls_ctx *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->magic = TLS_CTX_MAGIC;
    atomic_init(&c->refs, 1);
    pthread_mutex_init(&c->lock, NULL);
    list_init(&c->sessions);
    c->bio_method = bio_method_new();
    c->ssl_ctx = SSL_CTX_new(method);
    if (!c->bio_method || !c->ssl_ctx || !SSL_CTX_set_min_proto_version(c->ssl_ctx, TLS1_2_VERSION)) {
        ctx_unref(c);
        return NULL;
    }
    SSL_CTX_set_options(c->ssl_ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(c->ssl_ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(c->ssl_ctx, 1);
    SSL_CTX_set_default_read_buffer_len(c->ssl_ctx, READ_BUFFER_BYTES);
    return c;
}

/* "h2,http/1.1" -> the length-prefixed list of RFC 7301, 3.1. */
static bool alpn_wire(const char *text, struct strbuf *wire)
{
    struct str rest = str_c(text), name;
    strbuf_init(wire, 256);
    while (str_split(&rest, ',', &name)) {
        name = str_trim(name);
        if (name.n == 0 || name.n > 255) return false;
        strbuf_ch(wire, (char)name.n);
        strbuf_str(wire, name);
    }
    return !wire->failed && wire->n > 0;
}

static bool ctx_set_alpn(struct tls_ctx *c, const char *alpn)
{
    struct strbuf wire;
    /* The one call of this family in which 0 means success. */
    bool ok = alpn_wire(alpn, &wire) &&
              SSL_CTX_set_alpn_protos(c->ssl_ctx, (const unsigned char *)wire.p, (unsigned)wire.n) == 0;
    strbuf_free(&wire);
    return ok;
}

static const char *openssl_reason(void)
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
        snprintf(msg, n, "cannot load the CA certificates of %s: %s", o->ca_file, openssl_reason());
        return ERR_CONFIG;
    }
    if (SSL_CTX_set_default_verify_paths(c->ssl_ctx)) return ERR_OK;
    snprintf(msg, n, "cannot use the system's CA certificates: %s", openssl_reason());
    return ERR_CONFIG;
}

enum err tls_client_ctx_create(const struct tls_client_options *o, struct tls_ctx **out, char *msg, size_t n)
{
    *out = NULL;
    ERR_clear_error();
    struct tls_ctx *c = ctx_new(TLS_client_method());
    if (!c) {
        snprintf(msg, n, "cannot set up TLS: %s", openssl_reason());
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
    ctx_unref(t->ctx);
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
    bool reset = number == ECONNRESET || number == EPIPE || number == ECONNABORTED || number == ETIMEDOUT ||
                 number == EHOSTUNREACH || number == ENETUNREACH;
    return conn_break(t, reset ? ERR_RESET : ERR_IO, number ? strerror(number) : "connection lost");
}

/* What a failed SSL call means; never ERR_OK. */
static enum err conn_result(struct tls_conn *t, int rc, bool *needs_other)
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
        return conn_break(t, ERR_TLS, openssl_reason());
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
    } else if (t->eof) {
        snprintf(why, sizeof why, "connection closed during the TLS handshake");
    } else {
        e = conn_result(t, rc, NULL);
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
    if (SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_WRITE) return conn_result(t, rc, &t->read_needs_write);
    return conn_result(t, rc, NULL);
}

/* Plaintext of the next record: a piece of the caller's memory where it fills a record (or is all there is), else
 * pieces copied together into `gather`. */
static const void *next_record(const struct iovec *iov, unsigned n, size_t skip, size_t pending, char *gather, size_t *len)
{
    const char *first = (const char *)iov[0].iov_base + skip;
    size_t first_bytes = iov[0].iov_len - skip;
    if (first_bytes >= RECORD_BYTES || n == 1) {
        *len = first_bytes < RECORD_BYTES ? first_bytes : RECORD_BYTES;
    } else {
        size_t at = 0;
        for (unsigned i = 0; i < n && at < RECORD_BYTES; i++) {
            size_t part = iov[i].iov_len - skip;
            if (part > RECORD_BYTES - at) part = RECORD_BYTES - at;
            if (part) memcpy(gather + at, (const char *)iov[i].iov_base + skip, part);
            at += part;
            skip = 0;
        }
        first = gather;
        *len = at;
    }
    CHECK(*len >= pending);
    return first;
}

static enum err write_record(struct tls_conn *t, const void *p, size_t len, size_t *put)
{
    t->write_needs_read = false;
    ERR_clear_error();
    int rc = SSL_write_ex(t->ssl, p, len, put);
    if (rc == 1) {
        t->pending_bytes = 0;
        return ERR_OK;
    }
    *put = 0;
    int what = SSL_get_error(t->ssl, rc);
    if (what == SSL_ERROR_WANT_WRITE) t->pending_bytes = len;
    enum err e = conn_result(t, rc, what == SSL_ERROR_WANT_READ ? &t->write_needs_read : NULL);
    if (what == SSL_ERROR_SYSCALL && !t->eof) {
        t->write_broken = e;
        t->broken = ERR_OK;
        t->error_number = 0;
    }
    return e;
}

enum err tls_conn_writev(struct tls_conn *t, const struct iovec *iov, unsigned n, size_t *put)
{
    char gather[RECORD_BYTES];
    size_t skip = 0;
    *put = 0;
    if (t->broken != ERR_OK) return t->broken;
    if (t->write_broken != ERR_OK) return t->write_broken;
    for (;;) {
        while (n && skip >= iov->iov_len) {
            skip -= iov->iov_len;
            iov++;
            n--;
        }
        if (n == 0) return ERR_OK;
        size_t len, part;
        const void *p = next_record(iov, n, skip, t->pending_bytes, gather, &len);
        enum err e = write_record(t, p, len, &part);
        if (e != ERR_OK) return *put ? ERR_OK : e; /* a failure is told again by the next call */
        *put += part;
        skip += part;
    }
}

enum err tls_conn_shutdown(struct tls_conn *t)
{
    /* Nothing that could be ended in order: also when a record was begun and its writer gave up on it. */
    if (t->broken != ERR_OK || t->write_broken != ERR_OK || t->pending_bytes || !SSL_is_init_finished(t->ssl))
        return ERR_OK;
    ERR_clear_error();
    int rc = SSL_shutdown(t->ssl);
    if (rc >= 0) return ERR_OK;
    int what = SSL_get_error(t->ssl, rc);
    ERR_clear_error();
    return what == SSL_ERROR_WANT_WRITE ? ERR_AGAIN : ERR_OK;
}

bool tls_conn_idle_broken(struct tls_conn *t)
{
    char byte;
    size_t got;
    if (t->broken != ERR_OK || t->write_broken != ERR_OK) return true;
    ERR_clear_error();
    int rc = SSL_peek_ex(t->ssl, &byte, 1, &got);
    if (rc == 1) return true;
    return conn_result(t, rc, NULL) != ERR_AGAIN;
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
