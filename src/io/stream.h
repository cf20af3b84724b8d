/* stream.h - a connected non-blocking socket as a stream of bytes, plain or TLS. Owned by one worker.
 *
 * Results of reads and writes: ERR_OK with at least one byte moved; ERR_AGAIN: nothing now, the ready callback will
 * come; ERR_END: orderly end of the peer's bytes (for TLS only after close_notify, a bare FIN is ERR_TRUNCATED);
 * ERR_RESET, ERR_IO, ERR_TLS: broken. EINTR is handled inside. SIGPIPE is never raised. With TLS, readiness is
 * translated (a read may need a write): the callback's READY_READ / READY_WRITE mean "try again". Bytes buffered inside
 * the TLS layer cause no new edge: read until ERR_AGAIN. */
#ifndef S3P_IO_STREAM_H
#define S3P_IO_STREAM_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "io/loop.h"

struct stream;
struct tls_ctx; /* io/tls.h */
typedef void stream_fn(struct stream *s, unsigned ready, void *arg);

/* Adopts an accepted or connecting non-blocking fd; sets TCP_NODELAY. On error fd is left to the caller. */
enum err stream_create(struct loop *l, int fd, stream_fn *fn, void *arg, struct stream **out);
/* Starts a non-blocking connect; the first READY_WRITE (or CLOSED) callback means: ask stream_connect_result. */
enum err stream_connect(struct loop *l, const struct sockaddr *sa, socklen_t len, stream_fn *fn, void *arg,
                        struct stream **out);
enum err stream_connect_result(struct stream *s); /* ERR_OK, ERR_AGAIN, ERR_REFUSED, ERR_UNREACHABLE, ERR_IO */
void stream_set_callback(struct stream *s, stream_fn *fn, void *arg);
/* Wrap in TLS as client (server_name for SNI and verification, session reuse by name+context) or as server. Then call
 * stream_handshake until ERR_OK (again on every callback); ERR_TLS with a reason in stream_error. */
enum err stream_tls_client(struct stream *s, struct tls_ctx *ctx, const char *server_name);
enum err stream_tls_server(struct stream *s, struct tls_ctx *ctx);
enum err stream_handshake(struct stream *s);
const char *stream_error(const struct stream *s); /* human text of the last failure, "" if none */
bool stream_is_tls(const struct stream *s);
const char *stream_alpn(const struct stream *s); /* negotiated protocol or "" */
unsigned stream_tls_version(const struct stream *s); /* 12, 13; 0: plain or not known yet */
bool stream_tls_resumed(const struct stream *s);
bool stream_ktls(const struct stream *s);        /* TLS whose sending side is the kernel's: stream_can_sendfile */
/* Subject of the client's verified certificate, "" if there is none (io/tls.h). Returns buf. */
char *stream_peer_subject(const struct stream *s, char *buf, size_t n);
const char *stream_peer(struct stream *s); /* the same, kept with the stream; NULL: there is none */

enum err stream_read(struct stream *s, void *buf, size_t n, size_t *got);
enum err stream_readv(struct stream *s, const struct iovec *iov, unsigned n, size_t *got);
/* TLS gathers small pieces into whole records and sends several at once; best with 64 KiB and more in one call. Bytes
 * that were offered and not put may be sealed already: with TLS the next calls must go on with the same bytes (at any
 * address, in pieces of any size). */
enum err stream_writev(struct stream *s, const struct iovec *iov, unsigned n, size_t *put);
/* more: further bytes follow at once (MSG_MORE on plain sockets). */
enum err stream_writev_more(struct stream *s, const struct iovec *iov, unsigned n, size_t *put, bool more);
bool stream_can_sendfile(const struct stream *s);
enum err stream_sendfile(struct stream *s, int fd, uint64_t off, size_t n, size_t *put);
void stream_shutdown_write(struct stream *s); /* FIN (TLS: close_notify) */
/* Idle check: true when the peer has closed or sent something unasked. Does not consume. */
bool stream_idle_broken(struct stream *s);
void stream_reset_on_close(struct stream *s); /* SO_LINGER 0: destroy sends RST, never a clean end */
int stream_fd(const struct stream *s);
struct loop *stream_loop(const struct stream *s);
void stream_destroy(struct stream *s); /* closes; no callback comes after it. Safe inside its own callback. */

#endif
