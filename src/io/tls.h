/* tls.h - OpenSSL contexts, and one connection's TLS state for stream.c. A context is immutable once built (its session
 * store and ticket keys have locks) and may be used by every worker; a connection belongs to its stream. */
#ifndef S3P_IO_TLS_H
#define S3P_IO_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
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

enum tls_verify { TLS_VERIFY_OFF, TLS_VERIFY_OPTIONAL, TLS_VERIFY_REQUIRED };
struct tls_certificate {
    const char *certificate; /* PEM file: the certificate, then what stands between it and the CA */
    const char *key;         /* PEM file, not encrypted; NULL: in the same file */
};
struct tls_server_options {
    const struct tls_certificate *certificates; /* chosen by the names in them; the first where none fits */
    unsigned ncertificates;                     /* at least one */
    const char *client_ca;                      /* PEM file; with verify */
    enum tls_verify verify;                     /* of clients' certificates */
    bool tls13_only;
    const char *ciphers;         /* TLS 1.2, as OpenSSL writes them; NULL: ECDHE with AES-GCM or ChaCha20 */
    const char *ciphersuites;    /* TLS 1.3; NULL: all usual ones */
    const char *alpn;            /* by preference, "h2,http/1.1"; NULL: none */
    uint64_t ticket_rotation_ms; /* keys of session tickets seal so long and open twice as long; 0: no tickets */
    struct tls_ctx *previous;    /* its tickets stay good (unless who may connect has changed); NULL: none */
};
/* Reads the files. On failure *out is NULL and msg one line that names the file and what is wrong with it: cannot be
 * read, encrypted, weak, expired, not valid yet, key of another certificate, unknown cipher... A reload makes a new
 * context, and destroys the old one when that was possible. Blocks: not on a worker. */
enum err tls_server_ctx_create(const struct tls_server_options *o, struct tls_ctx **out, char *msg, size_t n);
struct tls_ctx *tls_ctx_ref(struct tls_ctx *c); /* any thread */
/* Connections that still use the context keep it until they end. NULL is fine. */
void tls_ctx_destroy(struct tls_ctx *c);

/* ---- for stream.c: TLS over a non-blocking fd that stays the caller's. Results as in io/stream.h. */
struct tls_conn;
enum err tls_conn_client(struct tls_ctx *c, int fd, const char *server_name, struct tls_conn **out);
enum err tls_conn_server(struct tls_ctx *c, int fd, struct tls_conn **out);
void tls_conn_destroy(struct tls_conn *t); /* sends nothing */
enum err tls_conn_handshake(struct tls_conn *t);
enum err tls_conn_read(struct tls_conn *t, void *buf, size_t n, size_t *got);
/* Not with tls_conn_ktls. more: further bytes follow at once. */
enum err tls_conn_writev(struct tls_conn *t, const struct iovec *iov, unsigned n, bool more, size_t *put);
/* True: bytes of TLS's own wait for the socket: tls_conn_flush when it is writable. (A writer's wait for the writer.) */
bool tls_conn_flush_wanted(const struct tls_conn *t);
enum err tls_conn_flush(struct tls_conn *t);
enum err tls_conn_shutdown(struct tls_conn *t); /* close_notify; ERR_AGAIN: call again when writable */
/* True when the peer has closed, failed, or sent application data; consumes none. Takes in session tickets. */
bool tls_conn_idle_broken(struct tls_conn *t);
/* After ERR_AGAIN from a read the socket must become writable, after one from a write readable. */
bool tls_conn_read_needs_write(const struct tls_conn *t);
bool tls_conn_write_needs_read(const struct tls_conn *t);
/* The kernel seals: application data is written to the descriptor as it is, and how that went is told. */
bool tls_conn_ktls(const struct tls_conn *t);
void tls_conn_ktls_wrote(struct tls_conn *t, enum err e, bool all);
/* Of the certificate of a client, if it was verified: "CN=loader-7,O=Example" (RFC 2253); "" without. Returns buf. */
char *tls_conn_peer_subject(const struct tls_conn *t, char *buf, size_t n);
enum { TLS_SUBJECT_BYTES = 1024 };
/* The same, at most that long, kept with the connection; NULL: there is none (or no memory for it). */
const char *tls_conn_peer(struct tls_conn *t);
unsigned tls_conn_version(const struct tls_conn *t); /* 12, 13; 0: not known yet */
bool tls_conn_resumed(const struct tls_conn *t);
const char *tls_conn_alpn(const struct tls_conn *t);
const char *tls_conn_error(const struct tls_conn *t); /* "" if none */

#endif
