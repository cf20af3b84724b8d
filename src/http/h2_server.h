/* h2_server.h - HTTP/2 connections from clients (RFC 9113), TLS or cleartext with prior knowledge.
 *
 * nghttp2 keeps the protocol's state, h2_guard stands in front of it and counts. Every stream is an exchange. Bodies
 * go out without a copy: a DATA frame is a nine byte header in the out queue and references to the body's chunks, one
 * write takes many frames of many streams. Streams share the connection by bytes; where the client states priorities
 * (RFC 9218) they are followed. */
#ifndef S3P_HTTP_H2_SERVER_H
#define S3P_HTTP_H2_SERVER_H

#include "base/stat.h"
#include "http/exchange.h"
#include "http/h1_parse.h"
#include "http/h2_guard.h"
#include "io/stream.h"

struct h2_server_conf {
    struct h1_limits limits;  /* head_bytes: as SETTINGS_MAX_HEADER_LIST_SIZE counts (32 more per field) */
    uint64_t idle_timeout_ms; /* without streams */
    uint64_t head_timeout_ms; /* for the preface with SETTINGS, and for a header block from its first byte to its last */
    uint64_t body_timeout_ms; /* between two pieces of a request body the handler waits for */
    uint64_t send_timeout_ms; /* see send_min_bytes; and between two successful writes */
    uint64_t linger_ms;       /* how long and how much of what a client still sends is dropped after our last bytes */
    uint64_t linger_bytes;
    uint64_t max_body_bytes;  /* request body: beyond it 413; 0 = no bound */
    uint64_t max_requests;    /* per connection; 0 = no bound */
    size_t request_memory_bytes; /* bump memory of one request; the same for all confs of a server; 0 = 4 MiB */
    /* Body of the errors that end a request before the handler saw it, and its Content-Type. NULL: no body. */
    exchange_error_fn *error_body;
    const char *error_content_type;
    /* Keep this conf alive; called when a connection starts and when it is gone. NULL: it lives anyway. */
    void (*hold)(void *owner);
    void (*unhold)(void *owner);
    void *owner;
    /* HTTP/2 only; h2_server_conf_defaults fills them */
    uint32_t max_streams;             /* at once, per connection */
    uint32_t max_frame_bytes;         /* that clients may send: 16384 .. 16777215 */
    uint32_t header_table_bytes;      /* HPACK table of what clients send */
    uint32_t stream_window_bytes;     /* of a request body not yet consumed, per stream, to begin with */
    uint32_t stream_window_max_bytes; /* what it grows to where bandwidth times round trip ask for it */
    uint32_t connection_window_bytes; /* and of all of a connection: bounds what it holds */
    size_t max_queued_frames;         /* of ours waiting for a client that does not read: then it is not read either */
    /* A stream whose client grants less than this within send_timeout_ms is reset: zero and one byte windows. */
    uint64_t send_min_bytes;
    struct h2_guard_conf guard;
};
void h2_server_conf_defaults(struct h2_server_conf *c);

/* One per worker: the server's counters and its connections. */
struct h2_server_stats {
    stat_t accepted, open, requests, in_flight, bytes_sent, bytes_received, bad_requests;
    stat_t timeouts;        /* connections ended, and request bodies given up, for lack of time; but see stalled */
    stat_t resets_received; /* streams that clients broke off */
    stat_t resets_sent;
    stat_t protocol_errors; /* connections ended for that */
    stat_t stalled;         /* streams reset because the client granted no window */
    stat_t heads_too_large; /* requests, and trailers; where there was an answer also counted as bad requests */
    stat_t floods[H2_FLOODS]; /* connections ended for that */
};
struct h2_server;
enum err h2_server_create(struct loop *l, const struct exchange_handler *handler, void *handler_arg,
                          struct h2_server **out);
struct h2_server_stats *h2_server_stats(struct h2_server *s);
void *h2_server_arg(struct h2_server *s);
/* Takes over a connected stream (TLS: after the handshake chose "h2"); on error (ERR_NOMEM, ERR_IO) it stays with the
 * caller. `bytes`: what was already read from it, from the preface on; copied. conf must outlive the connection:
 * hold/unhold are called with owner (a config reference) at start and end. `listener_data` becomes the exchanges'. The
 * handler is not called before the next turn of the loop. */
enum err h2_server_accept(struct h2_server *s, struct stream *st, const struct address *peer,
                          const struct h2_server_conf *conf, void *listener_data, const void *bytes, size_t n);
/* For exchanges of this server. */
void *h2_exchange_listener_data(const struct exchange *x);
void *h2_exchange_server_arg(const struct exchange *x);
/* Draining (RFC 9113 section 6.8): a GOAWAY that names no stream, a round trip or a second later the real one;
 * streams in flight end whole, then the connection closes. `drained` is called once none is left (at once if so).
 * h2_server_kill ends them all hard. */
void h2_server_drain(struct h2_server *s, void (*drained)(void *arg), void *arg);
void h2_server_kill(struct h2_server *s);
/* No connections left, and every chunk that was pulled from a request body released. */
void h2_server_destroy(struct h2_server *s);

#endif
