/* h2_conn.h - private to h2_server.c, h2_stream.c, h2_respond.c and h2_request_body.c: one client connection and its
 * streams.
 *
 * As with HTTP/1.1, everything a connection does happens in conn_run (h2_server.c); what the handler calls only
 * changes state and asks for another round with h2_conn_kick. The handler's begin is called from inside the session's
 * receiving, end and the request bodies' notifications from conn_run only.
 *
 * A stream is in one of two lists:
 *   streams  the session knows it
 *   closed   the session has closed it; it waits until what it has in the out queue is written (closed_at), because its
 *            chunks may lie in its pool, then end() is called and it is freed */
#ifndef S3P_HTTP_H2_CONN_H
#define S3P_HTTP_H2_CONN_H

#include <nghttp2/nghttp2.h>

#include "http/h2_out.h"
#include "http/h2_server.h"

enum { H2_STREAM_CHUNKS = 8 };

/* Request body bytes, copied from the read buffer; chunks point into it and each holds a reference. */
struct h2_body_buf {
    struct list link;         /* stream->in.bufs, or free */
    struct h2_server *server;
    struct h2_stream *stream; /* NULL: it has ended, nobody's window waits for these bytes */
    unsigned refs;            /* one per chunk, and the stream's while `held` */
    bool held;                /* has bytes to give out, or room for more */
    uint32_t cap, start, end; /* [start, end) not given out yet */
    uint8_t data[];
};
struct h2_request_body {
    struct list bufs;         /* in order; the held ones are the last */
    struct h2_body_buf *from; /* the first held one, or NULL */
    uint64_t received;
    bool present, ended; /* ended: END_STREAM came */
    bool dropped;        /* the handler wants no more */
    bool declined;       /* the whole answer has left: the client may still end its body by itself */
    size_t grace;        /* declined: so many more bytes of it are taken and dropped */
    bool want_continue;
    bool waiting;        /* a pull got ERR_AGAIN: notify when something comes */
    struct list hint;    /* conn->hints: notify in the next round */
    enum err error;      /* sticks */
};

struct h2_stream {
    uint32_t magic;
    int32_t id;
    struct h2_conn *conn;
    struct list link;   /* conn->streams or conn->closed, or free */
    struct list resume; /* conn->resumes */
    struct timer body_timer;
    /* the request's head while it comes in */
    struct str authority, scheme, path;
    unsigned hdr_cap, cookies;
    size_t head_bytes, cookie_bytes, trailer_bytes;
    enum err refuse; /* answered by us */
    bool malformed, said_priority;
    /* life */
    bool begun;     /* begin() was called, end() was not */
    bool in_done;   /* the client has ended its half */
    bool complete;  /* our END_STREAM is in the out queue, or has left it */
    bool is_closed; /* by the session */
    bool resetting; /* RST_STREAM of our own is on its way */
    enum err fail;  /* why we reset it */
    uint64_t closed_at, last_out; /* positions in the connection's output */
    /* the response */
    bool responded, bounded, pull_end, notified;
    bool deferred; /* the session waits for resume */
    struct body *body;
    struct chunk chunks[H2_STREAM_CHUNKS];
    unsigned first, count;
    size_t first_off, have; /* have: bytes in chunks not yet in the out queue */
    bool first_shared;      /* the out queue refers to earlier bytes of chunks[first] */
    uint64_t left;          /* bounded: not yet pulled */
    uint64_t framed;        /* body bytes in frames so far */
    uint64_t progress_ms, progress_bytes; /* when the client was last seen to let enough pass, and `framed` then */
    struct h2_request_body in;
    struct exchange x;
};

enum h2_timer_kind { H2_TIMER_NONE, H2_TIMER_IDLE, H2_TIMER_HEAD, H2_TIMER_LINGER };
enum h2_drain { H2_DRAIN_NO, H2_DRAIN_NOTICE, H2_DRAIN_FINAL };

struct h2_conn {
    uint32_t magic;
    struct h2_server *server;
    struct stream *stream;
    const struct h2_server_conf *conf;
    nghttp2_session *session;
    struct h2_guard guard;
    struct list link; /* server->conns */
    struct task task;
    struct timer timer, send_timer, stall_timer, drain_timer;
    enum h2_timer_kind timer_kind;
    enum h2_drain drain;
    int32_t drain_last; /* when final: the last stream that our GOAWAY lets the client count on */
    bool readable, writable, closed_seen, peer_eof, tls;
    bool unsure;           /* a read left room and was taken for the last: what a reset said with it is not known yet */
    bool running, kicked, lingering, terminating, settings_seen;
    bool all_out;          /* at the end of this round there was nothing left to write */
    unsigned resets_counted; /* RST_STREAMs of the session's own that were counted before they left it */
    bool goaway_error;     /* a GOAWAY with an error has left the session, ours or its own */
    enum err fail;         /* set: the connection is to be ended hard */
    void *early;           /* bytes that were read before we got the connection */
    size_t early_n;
    struct list streams, closed, resumes, hints;
    unsigned live; /* in streams */
    struct h2_stream *in_head; /* whose header block comes in */
    uint64_t blocks_seen; /* guard.blocks when the head timer was set */
    struct h2_out *out;   /* borrowed from the server while there is something to write */
    size_t batch;
    uint32_t stream_window; /* that we grant */
    size_t probe_bytes;     /* request body bytes since the last probe */
    bool probing;           /* a PING measures how many come in a round trip */
    uint64_t sent;   /* position in the output: bytes written */
    uint64_t framed, framed_before; /* body bytes framed: now, and when stalls were last looked for */
    size_t budget;
    uint64_t read_ns, lingered, requests;
    struct address peer, local;
    void *listener_data;
};

struct h2_server {
    struct loop *loop;
    const struct exchange_handler *handler;
    void *handler_arg;
    struct h2_server_stats stats;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    struct list conns;
    bool draining;
    void (*drained)(void *arg);
    void *drained_arg;
    struct task drained_task;
    struct list free_streams;
    unsigned free_stream_count;
    struct h2_out *free_outs;
    unsigned free_out_count;
    struct list free_bufs; /* of the largest size */
    unsigned free_buf_count;
    uint64_t date_until_ms;
    char date[32];
    uint8_t *scratch; /* what connections read to */
};

#define H2_CONN_MAGIC 0x68324331u
#define H2_STREAM_MAGIC 0x68325331u

static inline struct h2_stream *h2_stream_of(const struct exchange *x)
{
    struct h2_stream *s = container_of(x, struct h2_stream, x);
    CHECK_OBJ(s, H2_STREAM_MAGIC);
    return s;
}
/* Another round of conn_run, soon. */
static inline void h2_conn_kick(struct h2_conn *c)
{
    if (c->running) c->kicked = true;
    else task_schedule(&c->task);
}
/* Ends the connection hard in the next round. The first reason stays. */
static inline void h2_conn_fail(struct h2_conn *c, enum err why)
{
    if (c->fail == ERR_OK) c->fail = why;
    h2_conn_kick(c);
}
/* Position in the output behind all that is queued. */
static inline uint64_t h2_conn_queued(const struct h2_conn *c)
{
    return c->sent + (c->out ? c->out->pending : 0);
}
static inline struct h2_stream *h2_stream_find(struct h2_conn *c, int32_t id)
{
    return id > 0 ? nghttp2_session_get_stream_user_data(c->session, id) : NULL;
}

/* ---- h2_server.c */
/* Starts the graceful end of this connection. */
void h2_conn_drain(struct h2_conn *c);
/* A PING, told apart by its eight bytes; false: the connection fails. */
bool h2_conn_ping(struct h2_conn *c, const uint8_t *opaque);
/* It came back: one round trip has passed. */
void h2_conn_ping_acked(struct h2_conn *c, const uint8_t *opaque);
/* The client went too far: GOAWAY, and nothing more of what it sent is looked at. The first fault stays. */
void h2_conn_fault(struct h2_conn *c, const struct h2_fault *fault);
/* One more of what the guard counts, seen by the session. */
void h2_conn_count(struct h2_conn *c, enum h2_flood kind);

/* ---- h2_stream.c */
nghttp2_session_callbacks *h2_callbacks_create(void); /* NULL when out of memory */
/* RST_STREAM. why: what end() is told. */
void h2_stream_reset(struct h2_stream *s, uint32_t error, enum err why);
/* Ends what can be ended of c->closed; all of it, written or not, when hard. */
void h2_streams_reap(struct h2_conn *c, bool hard);
/* The session is gone: every stream goes to closed. */
void h2_streams_close_all(struct h2_conn *c);
void h2_streams_free(struct h2_server *s); /* the free list */

/* ---- h2_respond.c */
extern const struct exchange_ops h2_exchange_ops;
/* An answer of our own to a request that does not reach the handler. */
void h2_respond_error(struct h2_stream *s, enum err e);
int h2_send_data(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                 nghttp2_data_source *source, void *user);
ssize_t h2_read_length(nghttp2_session *session, uint8_t frame_type, int32_t stream_id, int32_t session_window,
                       int32_t stream_window, uint32_t max_frame_size, void *user);
void h2_response_drop(struct h2_stream *s); /* its chunks */

/* ---- h2_request_body.c */
/* After the head: sets up x.req_body. ERR_OK, ERR_BODY_TOO_LARGE, ERR_EXPECTATION. */
enum err h2_request_body_begin(struct h2_stream *s);
/* DATA came. False when out of memory. */
bool h2_request_body_data(struct h2_stream *s, const uint8_t *p, size_t n);
void h2_request_body_ended(struct h2_stream *s);
/* Our END_STREAM is on its way and theirs has not come: waits a little for it, or resets. */
void h2_request_body_decline(struct h2_stream *s);
void h2_request_body_continue(struct h2_stream *s);
/* No more calls from the handler: what it did not take is dropped. */
void h2_request_body_end(struct h2_stream *s);
void h2_request_body_timer(struct timer *t);
extern const uint8_t h2_probe_ping[8];
void h2_window_probed(struct h2_conn *c); /* the probe's PING is back */
void h2_request_bodies_free(struct h2_server *s); /* the free list */

#endif
