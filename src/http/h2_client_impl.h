/* h2_client_impl.h - private to h2_client.c (the connection), h2_client_call.c (one request on it) and
 * h2_client_frames.c (what nghttp2 reports).
 *
 * All work happens in client_run (h2_client.c), called from the stream's callback, the timers and the task. What the
 * receiver calls only changes state and schedules the task. Within a round nothing is freed but at one place, so that
 * whoever calls out may look at `told` afterwards:
 *
 *   a stream is | means                                         | goes on by
 *   live        | nothing of told, over                         | frames, timers, cancel
 *   over        | its result is known                           | end() once held bytes are taken (at once on failure)
 *   told        | end() was called, or it was cancelled         | freed when nghttp2 has closed it as well
 *   closed      | nghttp2 has forgotten it                      | -
 *
 * Receive windows: a stream's window bounds what we may have to hold for it, because bytes count as taken only when the
 * receiver took them. The connection's window counts bytes as taken on arrival: it is larger than the sum of the
 * streams' windows may become, so a slow receiver never holds up another one. */
#ifndef S3P_HTTP_H2_CLIENT_IMPL_H
#define S3P_HTTP_H2_CLIENT_IMPL_H

#include <nghttp2/nghttp2.h>

#include "http/h2_client.h"

#define H2_CLIENT_MAGIC 0x68324343u
#define H2_CALL_MAGIC 0x68325353u

enum {
    H2_IN_BYTES = 128 * 1024,  /* one read */
    H2_OUT_BYTES = 256 * 1024, /* gathered for one write */
    H2_ROUND_BYTES = 2 << 20,  /* moved in one go before the others get their turn */
    H2_FRAME_MAX = 128 * 1024, /* frames we take */
    H2_CONN_WINDOW = 64 << 20,
    H2_WINDOW_MIN = 256 * 1024, /* of a stream at its start: 100 of them are 25 MiB */
    H2_WINDOW_EXPECT_MAX = 2 << 20, /* given at once to a response known to be long */
    H2_WINDOW_MAX = 8 << 20,    /* what a stream may grow to */
    H2_GROWN_MAX = 38 << 20,    /* all streams together, beyond their minimum */
    H2_SPACE_IOVS = 16,
    H2_CHUNKS = 16,
    H2_PULL_BYTES = 256 * 1024,
    H2_EXPECT_WAIT_MS = 1000,
    H2_REQUEST_HEAD_MAX = 4 << 20, /* as nghttp2 counts; 64 KiB by itself */
    H2_MAX_INTERIM = 16,       /* 1xx responses before the final one */
    H2_MAX_CONTINUATIONS = 32, /* frames of one header block */
    H2_PING_QUIET_MS = 5000,   /* no byte for so long: ask whether the peer is there */
    H2_PING_RESTED_MS = 1000,  /* likewise when a request goes out after such a rest */
    H2_PING_SLOW_MS = 1000,    /* no new requests while it does not answer */
    H2_PING_WAIT_MS = 5000,    /* it is not there */
};

enum h2_timer_kind { H2_TIMER_NONE, H2_TIMER_EXPECT, H2_TIMER_SEND, H2_TIMER_FIRST_BYTE, H2_TIMER_STALL };

struct h2_client {
    uint32_t magic;
    struct stream *stream;
    struct loop *loop;
    nghttp2_session *session;
    struct h1_limits limits;
    struct client_timeouts timeouts;
    const struct h2_client_owner *owner;
    void *owner_arg;
    struct task task;
    struct timer health;
    bool readable, writable, write_broken;
    bool running, destroyed;
    bool changed;         /* the owner is to be told */
    bool goaway;          /* the peer takes no more requests */
    bool peer_settled;    /* its settings are known; bodies wait for them, heads do not */
    unsigned limit;       /* of streams, until then */
    bool settled;         /* the peer has acknowledged our settings */
    bool terminated;      /* by us: the peer breaks the protocol */
    bool no_continue;     /* the peer lets those wait who expect 100 Continue: nobody asks for it any more */
    enum err lost;        /* ERR_OK: the connection stands */
    struct list streams;  /* all */
    struct list due;      /* those with something to be done at the end of the round */
    unsigned nstreams;    /* all: also those told that nghttp2 has not closed yet */
    unsigned live;        /* not told */
    uint64_t grown_bytes; /* of windows, beyond H2_WINDOW_MIN each */
    struct meter memory;  /* counts what is held */
    /* the header block that is being received: there is never more than one */
    char *text;
    size_t text_n;
    struct hdr *hdrs;
    unsigned nhdrs, status, continuations;
    int64_t content_length;
    /* bytes */
    uint8_t *in;
    uint8_t *out;
    size_t out_n, out_off, out_cap;
    size_t budget;
    /* health */
    uint64_t last_recv_ms, ping_ms; /* ping_ms: when asked, 0 = no answer awaited */
    uint64_t rtt_ns, rtt_from_ns;   /* rtt_from_ns: of what is being measured, 0 = nothing */
    uint64_t requests, received_bytes, idle_since_ms;
};

struct h2_call {
    uint32_t magic;
    struct h2_client *client;
    struct list link, due;
    int32_t id;
    const struct client_events *ev;
    void *arg;
    bool over, told, closed;
    enum err result;
    bool unprocessed, refused, wants_h1;
    bool bystander;              /* see h2_call_bystander */
    struct timer timer;
    enum h2_timer_kind timer_kind;
    enum method method;
    /* the request */
    struct body *body;
    bool length_known;
    uint64_t left;               /* not yet pulled, when the length is known */
    struct chunk chunks[H2_CHUNKS];
    unsigned first, count;
    size_t first_off;            /* of chunks[first] */
    size_t have;                 /* bytes in chunks */
    bool body_end;               /* nothing more to pull */
    bool hold_body;              /* waiting for 100 Continue */
    bool deferred;               /* nghttp2 waits to be told that there is more */
    bool poke;                   /* tell it */
    bool notified;
    bool headers_sent, request_sent, sent_body;
    /* the response */
    uint64_t expect_bytes;
    bool got_bytes, head_told, whole; /* whole: END_STREAM came */
    bool peer_reset;
    unsigned interim;
    int64_t body_length;
    uint64_t announced, received; /* payload bytes: by frame headers, and in fact */
    uint8_t *hold;                /* came without space: hold[hold_off .. hold_off + hold_n) */
    size_t hold_off, hold_n, hold_cap;
    bool paused;
    uint32_t window;
    uint64_t taken;               /* since epoch_ns */
    uint64_t epoch_ns;
};

/* ---- h2_client.c */
static inline void h2_client_kick(struct h2_client *c) { task_schedule(&c->task); }
bool h2_client_out_add(struct h2_client *c, const void *p, size_t n);

/* ---- h2_client_call.c */
static inline void h2_call_due(struct h2_call *s)
{
    if (!list_linked(&s->due)) list_push_back(&s->client->due, &s->due);
}
static inline bool h2_call_is_live(const struct h2_call *s) { return !s->over && !s->told; }
void h2_call_timer(struct h2_call *s, enum h2_timer_kind kind);
/* The result is known; the first one stays. A stream that nghttp2 still has open is reset. */
void h2_call_finish(struct h2_call *s, enum err e);
/* No more of the request is sent. */
void h2_call_stop_request(struct h2_call *s);
/* What is due: held bytes, the end, memory. s may be gone. */
void h2_call_step(struct h2_call *s);
void h2_call_free(struct h2_call *s);
/* The body's next bytes have come. */
void h2_call_receive(struct h2_call *s, const uint8_t *data, size_t n);
void h2_call_window_open(struct h2_call *s); /* the request's head went out: a window for what is expected */
ssize_t h2_call_read_cb(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                          nghttp2_data_source *source, void *arg);
bool h2_call_put_body(struct h2_call *s, size_t n); /* n bytes of chunks into the connection's output */

/* ---- h2_client_frames.c */
enum err h2_client_session(struct h2_client *c); /* makes c->session and queues our settings */

#endif
