/* tls_out.c - the way out of a TLS connection: records are sealed several at a time and leave with one send.
 *
 * OpenSSL writes each record of at most 16 KiB by itself; one send per record costs about a third of the throughput. So
 * while application data is written, OpenSSL's records are gathered in a batch (on the stack: nothing is kept per
 * connection), and the batch is sent. How many records are sealed at once is bounded by what the socket has room for:
 * what it does not take is the connection's backlog until it is writable, normally less than two records.
 *
 * A record in the backlog is sealed, but its writer was told that its bytes did not go out, and offers them again: they
 * are counted, not sealed again. So nothing is ever reported that the kernel does not have, and a writer that gives up
 * instead has a stream that ends without close_notify.
 *
 *   sealed_bytes | plaintext in the backlog               | offered again by the writer, not out
 *   credit_bytes | plaintext that left with the backlog   | offered again by the writer, reported then
 *
 * OpenSSL's own records (alerts, key updates, tickets) go to the socket directly, or behind the backlog.
 *
 * The BIO: that of OpenSSL writes with write(2), which raises SIGPIPE, and it does not tell an end of file from an error
 * afterwards. With kernel TLS OpenSSL hands the keys of the sending side to the BIO; from then on data does not come
 * here (stream.c sends it like plain bytes), only OpenSSL's own records, which the kernel must be told the type of.
 * Receiving stays with OpenSSL. */
#include <errno.h>
#include <linux/sock_diag.h>
#include <linux/tls.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "io/tls_impl.h"

#define RECORD_BYTES ((size_t)16384)        /* RFC 8446, 5.1: at most 2^14 bytes of plaintext in a record */
#define RECORD_OVERHEAD_BYTES ((size_t)512) /* header, nonce, padding, tag: OpenSSL's bound is 325 */
/* One more for a record of OpenSSL's own that found no room before. */
#define BATCH_BYTES ((TLS_BATCH_RECORDS + 1) * (RECORD_BYTES + RECORD_OVERHEAD_BYTES))
#define BACKLOG_MAX_BYTES (BATCH_BYTES + 65536)
#define KEY_UPDATES_MAX 1000 /* OpenSSL itself asks for none; GnuTLS sends one after 2^24 records */

/* The controls by which OpenSSL offers the kernel its keys: numbers that openssl/bio.h reserves and names. */
#define CTRL_SET_KTLS 72
#define CTRL_SET_KTLS_RECORD_TYPE 74
#define CTRL_CLEAR_KTLS_RECORD_TYPE 75

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

struct tls_batch {
    size_t n;
    unsigned char bytes[BATCH_BYTES];
};

bool tls_lost(int error_number)
{
    switch (error_number) {
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
    case ETIMEDOUT: /* keep-alive or retransmission gave up */
    case EHOSTUNREACH:
    case ENETUNREACH: return true;
    default: return false;
    }
}

/* ---- the backlog */

static size_t backlog_left(const struct tls_conn *t) { return t->backlog_n - t->backlog_at; }

static bool backlog_add(struct tls_conn *t, const void *p, size_t n)
{
    unsigned char *grown = realloc(t->backlog, t->backlog_n + n);
    if (!grown) return false;
    memcpy(grown + t->backlog_n, p, n);
    t->backlog = grown;
    t->backlog_n += n;
    return true;
}

void tls_out_free(struct tls_conn *t)
{
    free(t->backlog);
    t->backlog = NULL;
    t->backlog_n = t->backlog_at = 0;
    t->nmarks = t->next_mark = 0;
}

static enum err write_break(struct tls_conn *t, enum err e, const char *why)
{
    t->write_broken = e;
    snprintf(t->error, sizeof t->error, "%s", why);
    return e;
}

/* Sends until all is out (ERR_OK), or the socket is full (ERR_AGAIN), or fails. */
static enum err socket_send(struct tls_conn *t, const unsigned char *p, size_t n, int flags, size_t *sent)
{
    *sent = 0;
    while (*sent < n) {
        ssize_t w = send(t->fd, p + *sent, n - *sent, flags | MSG_NOSIGNAL);
        if (w >= 0) {
            *sent += (size_t)w;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return ERR_AGAIN;
        } else if (errno != EINTR) {
            return write_break(t, tls_lost(errno) ? ERR_RESET : ERR_IO, strerror(errno));
        }
    }
    return ERR_OK;
}

enum err tls_conn_flush(struct tls_conn *t)
{
    size_t sent;
    if (backlog_left(t) == 0) return ERR_OK;
    if (t->write_broken != ERR_OK) return t->write_broken;
    enum err e = socket_send(t, t->backlog + t->backlog_at, backlog_left(t), 0, &sent);
    t->backlog_at += sent;
    for (; t->next_mark < t->nmarks && t->marks[t->next_mark].end <= t->backlog_at; t->next_mark++) {
        t->sealed_bytes -= t->marks[t->next_mark].plain_bytes;
        t->credit_bytes += t->marks[t->next_mark].plain_bytes;
    }
    if (backlog_left(t) == 0) tls_out_free(t);
    return e;
}

bool tls_conn_flush_wanted(const struct tls_conn *t) { return backlog_left(t) && t->sealed_bytes == 0; }

/* ---- the BIO */

static int bio_result(struct tls_conn *t, BIO *b, ssize_t r, int retry_flag)
{
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
    if (t->key_updates > KEY_UPDATES_MAX) {
        t->error_number = EPROTO;
        return -1;
    }
    do r = recv(t->fd, buf, (size_t)n, 0);
    while (r < 0 && errno == EINTR);
    if (r == 0) t->eof = true;
    return bio_result(t, b, r, BIO_FLAGS_READ);
}

/* A record that is not application data, on a socket whose records the kernel makes: all of it or EAGAIN. */
static ssize_t ktls_send_control(struct tls_conn *t, const char *buf, size_t n)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(1)];
    } control = {.head = {.cmsg_len = CMSG_LEN(1), .cmsg_level = SOL_TLS, .cmsg_type = TLS_SET_RECORD_TYPE}};
    struct iovec iov = {(void *)(uintptr_t)buf, n};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    *CMSG_DATA(&control.head) = t->ktls_record_type;
    ssize_t w = sendmsg(t->fd, &msg, MSG_NOSIGNAL);
    if (w >= 0) t->ktls_control = false;
    return w;
}

static int bio_write(BIO *b, const char *buf, int n)
{
    struct tls_conn *t = BIO_get_data(b);
    ssize_t w = n;
    BIO_clear_retry_flags(b);
    if (t->batch && (size_t)n <= BATCH_BYTES - t->batch->n) {
        memcpy(t->batch->bytes + t->batch->n, buf, (size_t)n);
        t->batch->n += (size_t)n;
        return n;
    }
    if (t->batch || (backlog_left(t) && t->backlog_n + (size_t)n > BACKLOG_MAX_BYTES)) {
        errno = EAGAIN; /* OpenSSL keeps the record, and writes it before any other */
        w = -1;
    } else if (backlog_left(t)) {
        if (!backlog_add(t, buf, (size_t)n)) {
            errno = ENOMEM;
            w = -1;
        }
    } else {
        do w = t->ktls_control ? ktls_send_control(t, buf, (size_t)n) : send(t->fd, buf, (size_t)n, MSG_NOSIGNAL);
        while (w < 0 && errno == EINTR);
    }
    return bio_result(t, b, w, BIO_FLAGS_WRITE);
}

/* OpenSSL's own socket BIO knows how the keys are laid out for the kernel: it is made for this one call. */
static long bio_start_ktls(struct tls_conn *t, long sending, void *keys)
{
    if (!sending || !t->ctx->server || backlog_left(t)) return 0;
    BIO *socket_bio = BIO_new_socket(t->fd, BIO_NOCLOSE);
    if (!socket_bio) return 0;
    t->ktls = BIO_ctrl(socket_bio, CTRL_SET_KTLS, sending, keys) > 0;
    BIO_free(socket_bio);
    return t->ktls;
}

static long bio_ctrl(BIO *b, int cmd, long num, void *ptr)
{
    struct tls_conn *t = BIO_get_data(b);
    switch (cmd) {
    case BIO_CTRL_FLUSH: return 1;
    case BIO_CTRL_EOF: return t && t->eof;
    case BIO_CTRL_GET_KTLS_SEND: return t && t->ktls;
    case CTRL_SET_KTLS: return t ? bio_start_ktls(t, num, ptr) : 0;
    case CTRL_SET_KTLS_RECORD_TYPE:
        t->ktls_control = true;
        t->ktls_record_type = (unsigned char)num;
        return 0;
    case CTRL_CLEAR_KTLS_RECORD_TYPE: t->ktls_control = false; return 0;
    default: return 0;
    }
}

BIO_METHOD *tls_bio_method_new(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE");
    if (!m) return NULL;
    if (BIO_meth_set_read(m, bio_read) && BIO_meth_set_write(m, bio_write) && BIO_meth_set_ctrl(m, bio_ctrl)) return m;
    BIO_meth_free(m);
    return NULL;
}

/* ---- writing */

struct cursor {
    const struct iovec *iov;
    unsigned n;
    size_t skip; /* of the first */
    size_t left;
};

static void cursor_init(struct cursor *c, const struct iovec *iov, unsigned n)
{
    *c = (struct cursor){.iov = iov, .n = n};
    for (unsigned i = 0; i < n; i++) c->left += iov[i].iov_len;
}

static void cursor_advance(struct cursor *c, size_t by)
{
    c->left -= by;
    c->skip += by;
    while (c->n && c->skip >= c->iov->iov_len) {
        c->skip -= c->iov->iov_len;
        c->iov++;
        c->n--;
    }
}

/* The next record's plaintext: where it lies if it lies in one piece, gathered otherwise. */
static const void *cursor_record(const struct cursor *c, unsigned char *gather, size_t *len)
{
    size_t at = 0, skip = c->skip;
    *len = c->left < RECORD_BYTES ? c->left : RECORD_BYTES;
    if (c->iov->iov_len - skip >= *len) return (const char *)c->iov->iov_base + skip;
    for (unsigned i = 0; at < *len; i++, skip = 0) {
        size_t part = c->iov[i].iov_len - skip;
        if (part > *len - at) part = *len - at;
        if (part) memcpy(gather + at, (const char *)c->iov[i].iov_base + skip, part);
        at += part;
    }
    return gather;
}

/* How many records the socket will take now, and one to find its end with. A guess is enough. */
static unsigned records_wanted(const struct tls_conn *t, size_t left)
{
    uint32_t mem[SK_MEMINFO_VARS];
    socklen_t n = sizeof mem;
    size_t want = (left + RECORD_BYTES - 1) / RECORD_BYTES;
    if (want > TLS_BATCH_RECORDS) want = TLS_BATCH_RECORDS;
    if (want <= 2 || getsockopt(t->fd, SOL_SOCKET, SO_MEMINFO, mem, &n) != 0 || n < sizeof mem) return (unsigned)want;
    size_t sndbuf = mem[SK_MEMINFO_SNDBUF], queued = mem[SK_MEMINFO_WMEM_QUEUED];
    size_t fits = (sndbuf > queued ? sndbuf - queued : 0) / RECORD_BYTES + 1;
    return (unsigned)(want < fits ? want : fits);
}

static enum err seal(struct tls_conn *t, const void *p, size_t len)
{
    size_t put;
    ERR_clear_error();
    int rc = SSL_write_ex(t->ssl, p, len, &put);
    if (rc == 1 && put == len) return ERR_OK;
    return tls_conn_result(t, rc, SSL_get_error(t->ssl, rc) == SSL_ERROR_WANT_READ ? &t->write_needs_read : NULL);
}

/* What of a batch did not go out is kept; `*put` grows by what did. */
static enum err batch_settle(struct tls_conn *t, const struct tls_batch *b, size_t sent, const struct tls_mark *marks,
                             unsigned nmarks, size_t *put)
{
    unsigned i = 0;
    for (; i < nmarks && marks[i].end <= sent; i++) *put += marks[i].plain_bytes;
    if (sent == b->n) return ERR_OK;
    if (!backlog_add(t, b->bytes + sent, b->n - sent)) return write_break(t, ERR_NOMEM, "out of memory");
    for (; i < nmarks; i++) {
        t->marks[t->nmarks++] = (struct tls_mark){marks[i].end - sent, marks[i].plain_bytes};
        t->sealed_bytes += marks[i].plain_bytes;
    }
    return ERR_AGAIN;
}

static enum err write_batch(struct tls_conn *t, struct cursor *c, bool more, size_t *put)
{
    struct tls_batch batch;
    struct tls_mark marks[TLS_BATCH_RECORDS];
    unsigned char gather[RECORD_BYTES];
    unsigned n = 0, want = records_wanted(t, c->left);
    enum err e = ERR_OK;

    batch.n = 0;
    t->batch = &batch;
    for (; n < want && c->left; n++) {
        size_t len;
        const void *p = cursor_record(c, gather, &len);
        if ((e = seal(t, p, len)) != ERR_OK) break;
        marks[n] = (struct tls_mark){batch.n, len};
        cursor_advance(c, len);
    }
    t->batch = NULL;
    if (batch.n == 0) return e;

    size_t sent;
    enum err sent_e = socket_send(t, batch.bytes, batch.n, more || c->left ? MSG_MORE : 0, &sent);
    if (sent_e != ERR_OK && sent_e != ERR_AGAIN) return sent_e;
    sent_e = batch_settle(t, &batch, sent, marks, n, put);
    return e != ERR_OK ? e : sent_e;
}

enum err tls_conn_writev(struct tls_conn *t, const struct iovec *iov, unsigned n, bool more, size_t *put)
{
    struct cursor c;
    *put = 0;
    t->write_needs_read = false;
    if (t->broken != ERR_OK) return t->broken;
    if (t->write_broken != ERR_OK) return t->write_broken;
    CHECK(!t->ktls);

    enum err e = tls_conn_flush(t);
    cursor_init(&c, iov, n);
    *put = t->credit_bytes < c.left ? t->credit_bytes : c.left;
    t->credit_bytes -= *put;
    cursor_advance(&c, *put);
    while (e == ERR_OK && c.left) e = write_batch(t, &c, more, put);
    return *put ? ERR_OK : e; /* a failure is told again by the next call */
}

void tls_conn_ktls_wrote(struct tls_conn *t, enum err e, bool all)
{
    t->ktls_short = !all;
    if (e == ERR_RESET || e == ERR_IO) t->write_broken = e;
}

enum err tls_conn_shutdown(struct tls_conn *t)
{
    if (t->broken != ERR_OK || t->write_broken != ERR_OK || !SSL_is_init_finished(t->ssl)) return ERR_OK;
    /* A writer gave up: this is no end in order. */
    if (t->sealed_bytes || t->credit_bytes || t->ktls_short) return ERR_OK;
    enum err e = tls_conn_flush(t);
    if (e != ERR_OK) return e == ERR_AGAIN ? e : ERR_OK;
    ERR_clear_error();
    int rc = SSL_shutdown(t->ssl);
    if (rc >= 0) return ERR_OK;
    int what = SSL_get_error(t->ssl, rc);
    ERR_clear_error();
    return what == SSL_ERROR_WANT_WRITE ? ERR_AGAIN : ERR_OK;
}
