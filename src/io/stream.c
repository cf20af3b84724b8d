/* stream.c - a socket as a stream of bytes, plain or TLS.
 *
 * The plain path is one system call per read or write and nothing else. With TLS everything goes through `tls`
 * (io/tls.c), which owns no descriptor; but where the kernel seals (kTLS), writes take the plain path. A stream's
 * callback may destroy it: nothing here touches it afterwards.
 *
 *   state       | entered by                  | what is legal
 *   connecting  | stream_connect              | stream_connect_result, destroy
 *   open        | create, connect_result OK   | read, write, shutdown, tls_client/tls_server, destroy
 *   handshake   | tls_client, tls_server      | stream_handshake, destroy
 *   open (TLS)  | handshake OK                | read, write, shutdown, destroy */
#include "io/stream.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "base/check.h"
#include "io/tls.h"

#define STREAM_MAGIC 0x7374726du
#define SENDFILE_MAX_BYTES ((size_t)1 << 30)

struct stream {
    uint32_t magic;
    int fd;
    stream_fn *fn;
    void *arg;
    struct tls_conn *tls;
    struct loop *loop;
    bool shutting_down; /* close_notify and FIN wait for room in the socket */
    bool reset;         /* the kernel reports a reset once: if a write got it, reads see a mere end */
    char error[96];
    struct watch watch;
};

static enum err fail(struct stream *s, enum err e, int error_number)
{
    snprintf(s->error, sizeof s->error, "%s", strerror(error_number));
    return e;
}

/* What became of a system call that moved no bytes. */
static enum err socket_error(struct stream *s, int error_number)
{
    switch (error_number) {
    case EAGAIN:
#if EAGAIN != EWOULDBLOCK
    case EWOULDBLOCK:
#endif
        return ERR_AGAIN;
    case ECONNRESET:
    case EPIPE:
    case ECONNABORTED:
    case ETIMEDOUT: /* keep-alive or retransmission gave up */
    case EHOSTUNREACH:
    case ENETUNREACH:
        s->reset = true;
        return fail(s, ERR_RESET, error_number);
    case ENOMEM:
    case ENOBUFS:
        return fail(s, ERR_NOMEM, error_number);
    default:
        return fail(s, ERR_IO, error_number);
    }
}

static enum err connect_error(struct stream *s, int error_number)
{
    switch (error_number) {
    case ECONNREFUSED:
        return fail(s, ERR_REFUSED, error_number);
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case ECONNRESET:
        return fail(s, ERR_UNREACHABLE, error_number);
    default:
        return fail(s, ERR_IO, error_number);
    }
}

/* ---- readiness */

static void shutdown_continue(struct stream *s)
{
    if (s->tls && tls_conn_shutdown(s->tls) == ERR_AGAIN) return;
    s->shutting_down = false;
    shutdown(s->fd, SHUT_WR);
}

static void on_ready(struct watch *w, unsigned ready)
{
    struct stream *s = container_of(w, struct stream, watch);
    if (s->shutting_down && ready & READY_WRITE) shutdown_continue(s);
    if (s->tls) {
        if (ready & READY_WRITE && tls_conn_flush_wanted(s->tls)) tls_conn_flush(s->tls); /* a failure: the writer's */
        if (ready & READY_WRITE && tls_conn_read_needs_write(s->tls)) ready |= READY_READ;
        if (ready & READY_READ && tls_conn_write_needs_read(s->tls)) ready |= READY_WRITE;
    }
    s->fn(s, ready, s->arg);
}

/* ---- life */

static enum err stream_new(struct loop *l, int fd, stream_fn *fn, void *arg, struct stream **out)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s) return ERR_NOMEM;
    s->magic = STREAM_MAGIC;
    s->fd = fd;
    s->fn = fn;
    s->arg = arg;
    s->loop = l;
    watch_init(&s->watch, l, on_ready);
    *out = s;
    return ERR_OK;
}

enum err stream_create(struct loop *l, int fd, stream_fn *fn, void *arg, struct stream **out)
{
    struct stream *s;
    *out = NULL;
    enum err e = stream_new(l, fd, fn, arg, &s);
    if (e != ERR_OK) return e;
    e = watch_start(&s->watch, fd);
    if (e != ERR_OK) {
        free(s);
        return e;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* a socket that is not TCP has no Nagle either */
    *out = s;
    return ERR_OK;
}

static enum err socket_open(int family, int *fd)
{
    *fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (*fd >= 0) return ERR_OK;
    switch (errno) {
    case EMFILE:
    case ENFILE:
        return ERR_OVERLOAD;
    case ENOMEM:
    case ENOBUFS:
        return ERR_NOMEM;
    case EAFNOSUPPORT:
        return ERR_UNREACHABLE; /* e.g. an IPv6 address on a host without it: the next address may do */
    default:
        return ERR_IO;
    }
}

enum err stream_connect(struct loop *l, const struct sockaddr *sa, socklen_t len, stream_fn *fn, void *arg,
                        struct stream **out)
{
    int fd;
    *out = NULL;
    enum err e = socket_open(sa->sa_family, &fd);
    if (e != ERR_OK) return e;
    struct stream *s;
    e = stream_new(l, fd, fn, arg, &s);
    if (e != ERR_OK) {
        close(fd);
        return e;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* A connect interrupted by a signal goes on in the background like one in progress (POSIX). */
    if (connect(fd, sa, len) != 0 && errno != EINPROGRESS && errno != EINTR)
        e = connect_error(s, errno);
    else
        e = watch_start(&s->watch, fd); /* reports at once if the connection already stands */
    if (e != ERR_OK) {
        stream_destroy(s);
        return e;
    }
    *out = s;
    return ERR_OK;
}

enum err stream_connect_result(struct stream *s)
{
    int error_number = 0;
    socklen_t n = sizeof error_number;
    if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error_number, &n) != 0) error_number = errno;
    if (error_number) return connect_error(s, error_number);

    struct sockaddr_storage peer;
    n = sizeof peer;
    if (getpeername(s->fd, (struct sockaddr *)&peer, &n) == 0) return ERR_OK;
    if (errno == ENOTCONN) return ERR_AGAIN;
    return fail(s, ERR_IO, errno);
}

void stream_set_callback(struct stream *s, stream_fn *fn, void *arg)
{
    s->fn = fn;
    s->arg = arg;
}

void stream_destroy(struct stream *s)
{
    if (!s) return;
    CHECK_OBJ(s, STREAM_MAGIC);
    watch_stop(&s->watch);
    tls_conn_destroy(s->tls);
    close(s->fd);
    s->magic = 0;
    free(s);
}

/* ---- TLS */

enum err stream_tls_client(struct stream *s, struct tls_ctx *ctx, const char *server_name)
{
    CHECK(!s->tls);
    return tls_conn_client(ctx, s->fd, server_name, &s->tls);
}

enum err stream_tls_server(struct stream *s, struct tls_ctx *ctx)
{
    CHECK(!s->tls);
    return tls_conn_server(ctx, s->fd, &s->tls);
}

enum err stream_handshake(struct stream *s)
{
    CHECK(s->tls);
    return tls_conn_handshake(s->tls);
}

const char *stream_error(const struct stream *s)
{
    const char *text = s->tls ? tls_conn_error(s->tls) : "";
    return text[0] ? text : s->error;
}

bool stream_is_tls(const struct stream *s)
{
    return s->tls != NULL;
}

const char *stream_alpn(const struct stream *s)
{
    return s->tls ? tls_conn_alpn(s->tls) : "";
}

unsigned stream_tls_version(const struct stream *s)
{
    return s->tls ? tls_conn_version(s->tls) : 0;
}

bool stream_tls_resumed(const struct stream *s)
{
    return s->tls && tls_conn_resumed(s->tls);
}

bool stream_ktls(const struct stream *s)
{
    return s->tls && tls_conn_ktls(s->tls);
}

char *stream_peer_subject(const struct stream *s, char *buf, size_t n)
{
    buf[0] = '\0';
    return s->tls ? tls_conn_peer_subject(s->tls, buf, n) : buf;
}

const char *stream_peer(struct stream *s) { return s->tls ? tls_conn_peer(s->tls) : NULL; }

/* ---- bytes */

enum err stream_read(struct stream *s, void *buf, size_t n, size_t *got)
{
    *got = 0;
    CHECK(n > 0); /* else 0 bytes would look like the end */
    if (s->tls) return tls_conn_read(s->tls, buf, n, got);
    ssize_t r;
    do
        r = recv(s->fd, buf, n, 0);
    while (unlikely(r < 0 && errno == EINTR));
    if (likely(r > 0)) {
        *got = (size_t)r;
        return ERR_OK;
    }
    return r < 0 ? socket_error(s, errno) : s->reset ? ERR_RESET : ERR_END;
}

static enum err tls_readv(struct tls_conn *t, const struct iovec *iov, unsigned n, size_t *got)
{
    for (unsigned i = 0; i < n; i++) {
        for (size_t at = 0, part; at < iov[i].iov_len; at += part) {
            enum err e = tls_conn_read(t, (char *)iov[i].iov_base + at, iov[i].iov_len - at, &part);
            if (e != ERR_OK) return *got ? ERR_OK : e; /* what ends the stream is told again by the next call */
            *got += part;
        }
    }
    return ERR_OK;
}

enum err stream_readv(struct stream *s, const struct iovec *iov, unsigned n, size_t *got)
{
    *got = 0;
    CHECK(n > 0);
    if (s->tls) return tls_readv(s->tls, iov, n, got);
    /* The cast drops a const that recvmsg does not write through. */
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n < IOV_MAX ? n : IOV_MAX};
    ssize_t r;
    do
        r = recvmsg(s->fd, &msg, 0);
    while (unlikely(r < 0 && errno == EINTR));
    if (likely(r > 0)) {
        *got = (size_t)r;
        return ERR_OK;
    }
    return r < 0 ? socket_error(s, errno) : s->reset ? ERR_RESET : ERR_END;
}

static void ktls_wrote(struct stream *s, const struct iovec *iov, unsigned n, enum err e, size_t put)
{
    size_t offered = 0;
    for (unsigned i = 0; i < n; i++) offered += iov[i].iov_len;
    tls_conn_ktls_wrote(s->tls, e, put == offered);
}

enum err stream_writev_more(struct stream *s, const struct iovec *iov, unsigned n, size_t *put, bool more)
{
    *put = 0;
    if (s->tls && !tls_conn_ktls(s->tls)) return tls_conn_writev(s->tls, iov, n, more, put);
    struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n < IOV_MAX ? n : IOV_MAX};
    int flags = MSG_NOSIGNAL | (more || n > IOV_MAX ? MSG_MORE : 0);
    ssize_t w;
    do
        w = sendmsg(s->fd, &msg, flags);
    while (unlikely(w < 0 && errno == EINTR));
    if (likely(w >= 0)) *put = (size_t)w;
    enum err e = likely(w >= 0) ? ERR_OK : socket_error(s, errno);
    if (s->tls) ktls_wrote(s, iov, n, e, *put);
    return e;
}

enum err stream_writev(struct stream *s, const struct iovec *iov, unsigned n, size_t *put)
{
    return stream_writev_more(s, iov, n, put, false);
}

bool stream_can_sendfile(const struct stream *s)
{
    return !s->tls || tls_conn_ktls(s->tls);
}

enum err stream_sendfile(struct stream *s, int fd, uint64_t off, size_t n, size_t *put)
{
    *put = 0;
    CHECK(stream_can_sendfile(s) && n > 0 && off <= INT64_MAX);
    off_t at = (off_t)off;
    ssize_t w;
    do
        w = sendfile(s->fd, fd, &at, n < SENDFILE_MAX_BYTES ? n : SENDFILE_MAX_BYTES);
    while (unlikely(w < 0 && errno == EINTR));
    enum err e = w > 0 ? ERR_OK : w < 0 ? socket_error(s, errno) : ERR_IO;
    if (likely(w > 0)) *put = (size_t)w;
    if (s->tls) tls_conn_ktls_wrote(s->tls, e, *put == n);
    if (likely(w != 0)) return e;
    snprintf(s->error, sizeof s->error, "the file ends before the bytes to send");
    return ERR_IO;
}

void stream_shutdown_write(struct stream *s)
{
    s->shutting_down = true;
    shutdown_continue(s);
}

bool stream_idle_broken(struct stream *s)
{
    if (s->tls) return tls_conn_idle_broken(s->tls);
    char byte;
    ssize_t r;
    do
        r = recv(s->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    while (r < 0 && errno == EINTR);
    return !(r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
}

void stream_reset_on_close(struct stream *s)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

int stream_fd(const struct stream *s)
{
    return s->fd;
}

struct loop *stream_loop(const struct stream *s)
{
    return s->loop;
}
