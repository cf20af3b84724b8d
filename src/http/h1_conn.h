/* h1_conn.h - private to h1_server.c, h1_respond.c and h1_request_body.c: one client connection.
 *
 * Everything a connection does happens in conn_run (h1_server.c), called from the stream's callback, timers and the
 * connection's task. What the handler calls - respond, reset, inform, pulls - only changes state and asks for another
 * round with h1_conn_kick, so the handler is never called from inside its own calls and a connection is freed at one
 * place only.
 *
 *   HEAD      waits for a request; without a byte of it the connection holds no h1_work (idle connections are small)
 *   EXCHANGE  begin() was called, end() was not
 *   REFUSE    an error response of our own is going out
 *   LINGER    we have sent FIN and drop what the client still sends, so that a reset does not destroy our last words */
#ifndef S3P_HTTP_H1_CONN_H
#define S3P_HTTP_H1_CONN_H

#include "http/h1_out.h"
#include "http/h1_server.h"

/* What one request needs; borrowed from the server while there is a byte of a request. */
struct h1_work {
    struct h1_work *next;
    struct pool *pool;
    struct h1_out out;
    struct hdr *hdrs; /* limits.headers of them */
    unsigned max_hdrs;
    size_t cap;       /* of in */
    char *in;
};

/* Request body bytes as they came from the socket; chunks point into it and each holds a reference. */
struct h1_body_buf {
    struct h1_body_buf *next;
    struct h1_server *server;
    unsigned refs; /* the connection's and one per chunk */
    size_t cap, start, end;
    uint8_t data[];
};

struct h1_request_body {
    struct h1_body_buf *buf;
    struct h1_chunked chunked;
    uint64_t left;     /* not yet given: of the body, or of the current chunk */
    bool present, is_chunked, done;
    bool want_continue; /* Expect: 100-continue, not answered yet */
    bool waiting;      /* a pull got ERR_AGAIN: notify when the socket has more */
    bool hint;         /* notify in the next round */
    enum err error;    /* sticks */
};

enum h1_conn_state { H1_CONN_HEAD, H1_CONN_EXCHANGE, H1_CONN_REFUSE, H1_CONN_LINGER };
enum h1_timer_kind { H1_TIMER_NONE, H1_TIMER_IDLE, H1_TIMER_HEAD, H1_TIMER_BODY, H1_TIMER_LINGER };

struct h1_conn {
    uint32_t magic;
    enum h1_conn_state state;
    struct h1_server *server;
    struct stream *stream;
    const struct h1_server_conf *conf;
    struct list link; /* server->conns */
    struct task task;
    struct timer timer, send_timer;
    enum h1_timer_kind timer_kind;
    /* readable, writable: no ERR_AGAIN since the last edge. peer_eof: FIN read. closed_seen: READY_CLOSED came, so no
     * edge will tell about the end again. */
    bool readable, writable, closed_seen, peer_eof, tls;
    bool running, kicked;
    enum err fail; /* set: the connection is to be ended hard */
    /* input: work->in[in_start..in_end) is not consumed */
    struct h1_work *work;
    size_t in_start, in_end, scanned;
    uint64_t head_begin_ns;
    uint64_t requests;
    /* sendfile proof, see h1_server.c */
    struct h1_held held;
    bool next_pipelined, ever_pipelined;
    uint64_t lingered; /* bytes dropped */
    size_t budget;     /* bytes this round may still write */
    /* the exchange */
    bool responded, keep_alive;
    struct body *resp_body;
    struct h1_request_body body;
    struct exchange x;
    struct address peer, local;
    void *listener_data;
};

struct h1_server {
    struct loop *loop;
    const struct exchange_handler *handler;
    void *handler_arg;
    struct h1_server_stats stats;
    struct list conns;
    bool draining;
    void (*drained)(void *arg);
    void *drained_arg;
    struct task drained_task;
    struct h1_work *free_work;
    unsigned free_works;
    struct h1_body_buf *free_bufs;
    unsigned free_buf_count;
    uint64_t date_until_ms; /* loop time up to which date_line is right */
    char date_line[40];     /* "Date: ...\r\n" */
    char *scratch;          /* where lingering connections read to */
};

#define H1_CONN_MAGIC 0x68314331u
enum { H1_SCRATCH_BYTES = 64 * 1024 };

static inline struct h1_conn *h1_conn_of(const struct exchange *x)
{
    struct h1_conn *c = container_of(x, struct h1_conn, x);
    CHECK_OBJ(c, H1_CONN_MAGIC);
    return c;
}
/* Another round of conn_run, soon. */
static inline void h1_conn_kick(struct h1_conn *c)
{
    if (c->running) c->kicked = true;
    else task_schedule(&c->task);
}
/* Ends the connection hard in the next round. The first reason stays. */
static inline void h1_conn_fail(struct h1_conn *c, enum err why)
{
    if (c->fail == ERR_OK) c->fail = why;
    h1_conn_kick(c);
}
/* Stopping only forgets what the timer was for: it is about to be pushed back anyway, which is cheaper than taking it
 * out of the wheel and putting it in again with every request. */
static inline void h1_conn_timer(struct h1_conn *c, enum h1_timer_kind kind, uint64_t ms)
{
    c->timer_kind = kind;
    if (kind != H1_TIMER_NONE) timer_set(&c->timer, ms);
}

/* ---- h1_respond.c */
extern const struct exchange_ops h1_exchange_ops;
/* A whole response of our own with Connection: close into work->out. False when out of memory. */
bool h1_respond_error(struct h1_conn *c, enum err e, bool with_body);

/* ---- h1_request_body.c */
/* After the head was consumed: sets up x.req_body. ERR_OK, ERR_BODY_TOO_LARGE, ERR_EXPECTATION. */
enum err h1_request_body_begin(struct h1_conn *c);
/* True when the rest of the body, if any, is in memory: the connection can be used again. */
bool h1_request_body_at_hand(const struct h1_conn *c);
/* Drops what was not pulled of a body at hand, gives bytes after the body back to work->in, frees the buffer. */
void h1_request_body_end(struct h1_conn *c);
/* Queues 100 Continue when it is still wanted and useful. */
void h1_request_body_continue(struct h1_conn *c);
void h1_request_bodies_free(struct h1_server *s); /* the free list */

#endif
