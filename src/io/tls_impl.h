/* tls_impl.h - what the TLS files share: tls.c (client contexts, connections, reading), tls_out.c (the BIO, sealing and
 * sending), tls_server.c (server contexts), tls_ticket.c. Nobody else includes it.
 *
 * A context is immutable but for what a lock of its own guards. A connection belongs to one thread. */
#ifndef S3P_IO_TLS_IMPL_H
#define S3P_IO_TLS_IMPL_H

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/check.h"
#include "base/list.h"
#include "io/tls.h"

#define TLS_CTX_MAGIC 0x746c7363u
#define TLS_CONN_MAGIC 0x746c736eu
#define TLS_NAME_BYTES 256 /* a DNS name is at most 253 */
#define TLS_BATCH_RECORDS 16u

struct tls_cert;    /* io/tls_cert.h */
struct tls_tickets; /* of tls_ticket.c */

struct tls_server {
    struct tls_cert *certs;
    SSL_CTX **ssl_ctxs; /* of each certificate; the first is the context's own */
    unsigned n;
    unsigned char *alpn; /* wire format; NULL: none */
    unsigned alpn_n;
    struct tls_tickets *tickets; /* NULL: none are given */
};

struct tls_ctx {
    uint32_t magic;
    atomic_uint refs;
    SSL_CTX *ssl_ctx;
    BIO_METHOD *bio_method;
    bool verify;               /* client: the origin's certificate */
    struct tls_server *server; /* NULL: a client's context */
    /* client's sessions, under lock */
    pthread_mutex_t lock;
    struct list sessions; /* most recently used first */
    unsigned n_sessions;
};

/* A sealed record: where its ciphertext ends, and how much plaintext it carries. */
struct tls_mark {
    size_t end, plain_bytes;
};
struct tls_batch; /* of tls_out.c: records being sealed */

struct tls_conn {
    uint32_t magic;
    int fd;
    SSL *ssl;
    struct tls_ctx *ctx;
    int error_number; /* of the last failed recv or send */
    bool eof;         /* the peer's FIN was read */
    bool read_needs_write, write_needs_read;
    enum err broken;       /* ERR_OK: not */
    enum err write_broken; /* the socket takes no more; what the peer sent before can still be read (an early answer) */
    unsigned key_updates;  /* of the peer */

    /* tls_out.c: ciphertext that waits for room in the socket, and what it stands for */
    struct tls_batch *batch; /* NULL: records go to the socket (behind the backlog) */
    unsigned char *backlog;
    size_t backlog_n, backlog_at;
    struct tls_mark marks[TLS_BATCH_RECORDS]; /* of the backlog; ends count from its begin */
    unsigned nmarks, next_mark;
    size_t sealed_bytes; /* plaintext of records in the backlog: its writer was told that they did not go out */
    size_t credit_bytes; /* plaintext that went out since then */

    char *peer_subject; /* once it was asked for */

    bool ktls;         /* the kernel seals what is sent */
    bool ktls_short;   /* its last write did not take all */
    bool ktls_control; /* the next write of OpenSSL is a record of type ktls_record_type */
    unsigned char ktls_record_type;

    char name[TLS_NAME_BYTES]; /* client: of the server */
    char error[160];
};

/* tls.c */
struct tls_ctx *tls_ctx_new(const SSL_METHOD *method);
/* Of a context's certificates: one SSL_CTX each. NULL: out of memory. */
SSL_CTX *tls_ssl_ctx_new(const SSL_METHOD *method);
const char *tls_openssl_reason(void);
/* "h2,http/1.1" -> the length-prefixed list of RFC 7301, 3.1; malloc'ed. NULL: not such a list, or out of memory. */
unsigned char *tls_alpn_wire(const char *text, unsigned *n);
enum err tls_conn_result(struct tls_conn *t, int rc, bool *needs_other);

/* tls_out.c */
BIO_METHOD *tls_bio_method_new(void);
void tls_out_free(struct tls_conn *t);
bool tls_lost(int error_number); /* the connection is gone, in one of the ways a network has for it */

/* tls_server.c */
void tls_server_free(struct tls_server *s);

/* tls_ticket.c: keys for session tickets, changed every period; any thread. */
struct tls_tickets *tls_tickets_create(uint64_t period_ms); /* NULL: no memory or no randomness */
/* Another reference, and a new period. */
struct tls_tickets *tls_tickets_share(struct tls_tickets *k, uint64_t period_ms);
void tls_tickets_unref(struct tls_tickets *k);
/* As SSL_CTX_set_tlsext_ticket_key_evp_cb wants it. */
int tls_tickets_use(struct tls_tickets *k, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                    EVP_MAC_CTX *mac, int enc);

#endif
