/* h1_out.h - the outgoing half of an HTTP/1.1 message, for h1_server.c and h1_client.c.
 *
 * A queue of three parts that leave in this order: bytes of our own (head, chunk framing), one batch of body chunks, a
 * short constant tail (chunk framing). A batch is pulled from the body only when the batch before it has been taken by
 * the socket, so at most H1_OUT_BATCH bytes of a body are held per connection. Chunks are released when the socket took
 * their bytes; those sent with sendfile move to `held` instead and their owner decides about them later. */
#ifndef S3P_HTTP_H1_OUT_H
#define S3P_HTTP_H1_OUT_H

#include "base/str.h"
#include "io/body.h"
#include "io/stream.h"

enum { H1_OUT_CHUNKS = 64, H1_OUT_BATCH = 1 << 20 };

enum h1_framing { H1_FRAME_LENGTH, H1_FRAME_CHUNKED, H1_FRAME_CLOSE };

/* Chunks given to sendfile whose pages the kernel may still refer to. */
struct h1_held {
    struct chunk *v;
    unsigned n, cap;
    uint64_t bytes; /* reserved when the decision for sendfile was made, so it includes chunks still in the queue */
};

struct h1_out {
    char *bytes;
    size_t n, off, cap;
    struct chunk chunks[H1_OUT_CHUNKS];
    unsigned first, count;
    size_t first_off; /* of chunks[first] */
    uint64_t by_file; /* bit i: chunks[i] goes by sendfile */
    const char *tail;
    size_t tail_n;
    /* the body */
    enum h1_framing framing;
    uint64_t left;  /* LENGTH: bytes not yet pulled */
    bool complete;  /* the end of the message is in the queue, or has left it */
    bool blocked;   /* the producer has nothing: no pull before h1_out_notified */
    bool notified;
    /* sendfile; held NULL: never */
    struct h1_held *held;
    size_t file_min;
    uint64_t file_max_held;
    /* what the last h1_out_flush moved */
    size_t put, put_body, put_file;
};

void h1_out_init(struct h1_out *o);
void h1_out_free(struct h1_out *o); /* the queue must be empty of chunks: h1_out_reset */
/* Ready for a new message. Chunks still queued are released, or moved to held when sendfile began with them. */
void h1_out_reset(struct h1_out *o);
/* Room for n more bytes of our own; NULL when out of memory. The caller writes them, then adds to o->n. */
char *h1_out_room(struct h1_out *o, size_t n);
bool h1_out_add(struct h1_out *o, const void *p, size_t n);
/* Starts the body. left: LENGTH only; 0 completes the message at once. */
void h1_out_begin_body(struct h1_out *o, enum h1_framing f, uint64_t left);

static inline bool h1_out_has_chunks(const struct h1_out *o) { return o->first < o->count; }
static inline bool h1_out_pending(const struct h1_out *o)
{
    return o->off < o->n || h1_out_has_chunks(o) || o->tail_n > 0;
}
/* The body's producer said that it may have more. */
static inline void h1_out_notified(struct h1_out *o)
{
    o->notified = true;
    o->blocked = false;
}
/* Pulls the next batch. Only with no chunks and no tail queued and the message not complete. ERR_OK: something was
 * queued, or the message is complete; ERR_AGAIN: blocked (something may have been queued all the same); else the body
 * is broken: the producer's error, ERR_TRUNCATED when it ended before its length, ERR_INTERNAL when it gave more than
 * it was asked for. */
enum err h1_out_fill(struct h1_out *o, struct body *b);
/* Whether the next flush may hand the message's last byte to the socket. */
bool h1_out_last_flush(const struct h1_out *o);
/* One write. ERR_OK: o->put bytes moved (put_body of them body, put_file of these by sendfile); else as stream.h. */
enum err h1_out_flush(struct h1_out *o, struct stream *s);

void h1_held_release(struct h1_held *h, enum chunk_end how); /* all of them */
void h1_held_free(struct h1_held *h);

#endif
