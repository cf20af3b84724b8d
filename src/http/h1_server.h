/* h1_server.h - HTTP/1.x connections from clients (RFC 9112).
 *
 * One connection reads heads into a fixed buffer, runs one exchange at a time (pipelined requests wait in the buffer),
 * writes head and body with writev, or sendfile for hot chunks, pulling the next chunks only when the socket drained. */
#ifndef S3P_HTTP_H1_SERVER_H
#define S3P_HTTP_H1_SERVER_H

#include "base/stat.h"
#include "http/exchange.h"
#include "http/h1_parse.h"
#include "io/stream.h"

struct h1_server_conf {
    struct h1_limits limits;
    uint64_t idle_timeout_ms; /* between requests */
    uint64_t head_timeout_ms; /* from the first byte of a head to its end (slow loris) */
    uint64_t body_timeout_ms; /* between two reads of a request body */
    uint64_t send_timeout_ms; /* between two successful writes */
    uint64_t linger_ms;       /* how long a refused request's remaining body is read and dropped before closing */
    uint64_t linger_bytes;
    uint64_t max_body_bytes;  /* request body: beyond it 413; 0 = no bound */
    uint64_t max_requests;    /* per connection; 0 = no bound */
    size_t request_memory_bytes; /* bump memory of one request; the same for all confs of a server; 0 = 4 MiB */
    size_t sendfile_min;      /* chunks smaller than this are copied */
    uint64_t sendfile_max_unproven; /* bytes per connection held until the client proves that it read them */
    /* Body of the errors that end a request before the handler saw it, and its Content-Type. NULL: no body. */
    exchange_error_fn *error_body;
    const char *error_content_type;
    /* Keep this conf alive; called when a connection starts and when it is gone. NULL: it lives anyway. */
    void (*hold)(void *owner);
    void (*unhold)(void *owner);
    void *owner;
};
/* One per worker: the server's counters and its connections. */
struct h1_server_stats {
    stat_t accepted, open, requests, in_flight, bytes_sent, bytes_received, bad_requests, timeouts, sendfile_bytes;
};
struct h1_server;
enum err h1_server_create(struct loop *l, const struct exchange_handler *handler, void *handler_arg,
                          struct h1_server **out);
struct h1_server_stats *h1_server_stats(struct h1_server *s);
void *h1_server_arg(struct h1_server *s);
/* Takes over a connected stream; on error (ERR_NOMEM, ERR_IO) it stays with the caller. conf must outlive the connection:
 * hold/unhold are called with owner (a config reference) at start and end. `listener_data` is what
 * h1_exchange_listener_data returns. The handler is not called before the next turn of the loop. */
enum err h1_server_accept(struct h1_server *s, struct stream *st, const struct address *peer,
                          const struct h1_server_conf *conf, void *listener_data);
/* Same, with bytes that were already read from it: at most 4096. */
enum err h1_server_accept_with(struct h1_server *s, struct stream *st, const struct address *peer,
                               const struct h1_server_conf *conf, void *listener_data, const void *bytes, size_t n);
/* For exchanges of this server. */
void *h1_exchange_listener_data(const struct exchange *x);
void *h1_exchange_server_arg(const struct exchange *x);
/* Draining: idle connections close now, busy ones after their response (Connection: close). `drained` is called once
 * none is left (at once if so). h1_server_kill ends them all hard. */
void h1_server_drain(struct h1_server *s, void (*drained)(void *arg), void *arg);
void h1_server_kill(struct h1_server *s);
/* No connections left, and every chunk that was pulled from a request body released. */
void h1_server_destroy(struct h1_server *s);

#endif
