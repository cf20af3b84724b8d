/* tls.h - OpenSSL contexts, and one connection's TLS state for stream.c. A context is immutable once built (its session
 * store has a lock) and may be used by every worker; a connection belongs to its stream. */
#ifndef S3P_IO_TLS_H
#define S3P_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/err.h"

struct tls_ctx;
struct tls_client_options {
    const char *ca_file; /* NULL: the system's store */
    bool verify;
    const char *alpn; /* "http/1.1" or "h2,http/1.1"; NULL none */
};
/* On failure a line for people is written to msg. Sessions are remembered per server name inside the context. */
enum err tls_client_ctx_create(const struct tls_client_options *o, struct tls_ctx **out, char *msg, size_t n);
/* Connections that still use the context keep it until they end. NULL is fine. */
void tls_ctx_destroy(struct tls_ctx *c);

/* ---- for stream.c: TLS over a non-blocking fd that stays the caller's. Results as in io/stream.h. */
struct tls_conn;
enum err tls_conn_client(struct tls_ctx *c, int fd, const char *server_name, struct tls_conn **out);
enum err tls_conn_server(struct tls_ctx *c, int fd, struct tls_conn **out);
void tls_conn_destroy(struct tls_conn *t); /* sends nothing */
enum err tls_conn_handshake(struct tls_conn *t);
enum err tls_conn_read(struct tls_conn *t, void *buf, size_t n, size_t *got);
enum err tls_conn_writev(struct tls_conn *t, const struct iovec *iov, unsigned n, size_t *put);
enum err tls_conn_shutdown(struct tls_conn *t); /* close_notify; ERR_AGAIN: call again when writable */
/* True when the peer has closed, failed, or sent application data; consumes none. Takes in session tickets. */
bool tls_conn_idle_broken(struct tls_conn *t);
/* After ERR_AGAIN from a read the socket must become writable, after one from a write readable. */
bool tls_conn_read_needs_write(const struct tls_conn *t);
bool tls_conn_write_needs_read(const struct tls_conn *t);
bool tls_conn_resumed(const struct tls_conn *t);
const char *tls_conn_alpn(const struct tls_conn *t);
const char *tls_conn_error(const struct tls_conn *t); /* "" if none */

#endif
