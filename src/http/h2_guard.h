/* h2_guard.h - looks at the frame headers a client sends before the HTTP/2 session sees them (RFC 9113).
 *
 * The session (nghttp2) forgets streams when they are closed and then ignores frames on them; the guard remembers the
 * client's half of the last H2_GUARD_STREAMS streams and finds what must not be ignored: frames on a half the client
 * has closed, HEADERS on streams it skipped, streams that depend on themselves. And it counts what a client can send
 * for next to nothing while it costs us something. Each kind has a bucket of `burst` tokens, refilled by
 * `per_second`; some kinds are also earned by work done, because an honest client sends them in proportion to it.
 *
 * It needs no state of the session: a frame is judged by what the client sent before it. Bytes are only looked at,
 * never kept (but for nine bytes of header and five of payload), and never changed. */
#ifndef S3P_HTTP_H2_GUARD_H
#define S3P_HTTP_H2_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, what, burst, per second). RESET: RST_STREAM, and resets of ours that the client provoked. CONTINUATION: also
 * bounded by `continuations` per header block. SETTINGS: also by `settings_entries` per frame. */
#define H2_FLOOD_TABLE(X)                                                                                   \
    X(RESET, "reset streams", 500, 25)          /* earned: 1 per answer */                                  \
    X(CONTINUATION, "CONTINUATION", 64, 16)                                                                 \
    X(SETTINGS, "SETTINGS", 32, 2)                                                                          \
    X(PING, "PING", 100, 20)                    /* earned: 1 per 16 KiB sent */                             \
    X(PRIORITY, "PRIORITY and unknown", 500, 50) /* earned: 4 per request */                                \
    X(WINDOW, "WINDOW_UPDATE", 2000, 200)       /* earned: 1 per 512 bytes sent, 4 per request */           \
    X(EMPTY, "empty DATA", 100, 10)                                                                         \
    X(HEAD, "oversized header lists", 16, 1)
enum h2_flood {
#define X(name, what, burst, rate) H2_FLOOD_##name,
    H2_FLOOD_TABLE(X)
#undef X
    H2_FLOODS
};

struct h2_rate {
    uint32_t burst, per_second;
};
struct h2_guard_conf {
    struct h2_rate rates[H2_FLOODS];
    unsigned continuations;    /* per header block */
    unsigned settings_entries; /* per SETTINGS frame */
    size_t header_block_bytes; /* compressed, all frames of a block together */
};
void h2_guard_conf_defaults(struct h2_guard_conf *c);

struct h2_fault {
    uint32_t error;      /* RFC 9113 error code for the GOAWAY */
    enum h2_flood flood; /* H2_FLOODS: a protocol error */
    const char *text;
};

enum { H2_GUARD_STREAMS = 1024 }; /* a power of two */

struct h2_bucket {
    uint64_t refilled_ms;
    uint32_t tokens;
};
struct h2_guard {
    const struct h2_guard_conf *conf;
    struct h2_bucket buckets[H2_FLOODS];
    uint32_t ping_bytes, window_bytes; /* sent, not yet turned into tokens */
    uint32_t acks_due;                 /* PINGs of ours not yet answered */
    /* where in the byte stream we are */
    uint32_t preface_left, payload_left;
    uint8_t header[9], head_n;
    uint8_t peek[5], peek_n, peek_want; /* first bytes of the payload where they matter */
    /* the frame whose payload comes, the header block it belongs to */
    uint8_t type, flags;
    uint32_t stream;
    bool in_block;
    unsigned continuations;
    size_t block_bytes;
    uint64_t blocks; /* header blocks begun */
    /* client's streams: bit (id / 2) % H2_GUARD_STREAMS, right for the last H2_GUARD_STREAMS odd ids up to last_id */
    uint32_t last_id;
    uint64_t opened[H2_GUARD_STREAMS / 64], ended[H2_GUARD_STREAMS / 64];
};

/* conf must outlive the guard. */
void h2_guard_init(struct h2_guard *g, const struct h2_guard_conf *conf, uint64_t now_ms);
/* Looks at the next n bytes. Returns n, or fewer with *fault filled: the session may see only these, then the
 * connection ends. */
size_t h2_guard_scan(struct h2_guard *g, const uint8_t *p, size_t n, uint64_t now_ms, struct h2_fault *fault);
/* One more of that kind, seen elsewhere. False: too many, *fault filled. */
bool h2_guard_take(struct h2_guard *g, enum h2_flood kind, uint64_t now_ms, struct h2_fault *fault);
/* One of our PINGs: its answer is not counted. */
static inline void h2_guard_pinged(struct h2_guard *g) { g->acks_due++; }
/* Work done for the client. */
void h2_guard_sent(struct h2_guard *g, size_t data_bytes);
void h2_guard_request(struct h2_guard *g);
void h2_guard_answered(struct h2_guard *g);

#endif
