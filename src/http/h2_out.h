/* h2_out.h - what an HTTP/2 connection has to write: bytes of our own (frame headers, HEADERS, small payloads) and
 * references to body chunks, in the order of the wire.
 *
 * It is filled only while it is empty, up to a batch, and then written until it is empty again: what has been put
 * into it cannot be overtaken by more urgent streams. The batch follows what the socket takes at once, so a slow
 * client holds few chunks. A chunk goes with the segment that uses its last byte and is released when that is
 * written; as a stream's bytes are written in order, all its earlier bytes are out by then. */
#ifndef S3P_HTTP_H2_OUT_H
#define S3P_HTTP_H2_OUT_H

#include "base/str.h"
#include "http/exchange.h"
#include "io/stream.h"

enum {
    H2_OUT_SEGS = 512,
    H2_OUT_BYTES = 64 * 1024, /* of our own: no more is gathered beyond */
    H2_OUT_BATCH_MIN = 128 * 1024,
    H2_OUT_BATCH_MAX = 1 << 20
};

struct h2_seg {
    const uint8_t *p;   /* NULL: at bytes + at */
    uint32_t at, n;
    struct exchange *x; /* whose response body this is; counts what is written. NULL: not body */
    void *owner;        /* of the chunk that ends here; release NULL: none does */
    void (*release)(void *owner, enum chunk_end how);
};
struct h2_out {
    struct h2_out *next;
    char *bytes;
    size_t bytes_n, bytes_cap;
    unsigned first, count;
    uint32_t first_off;
    size_t pending; /* bytes not yet written */
    struct h2_seg segs[H2_OUT_SEGS];
};

struct h2_out *h2_out_create(void);
void h2_out_free(struct h2_out *o);  /* what is queued is released */
void h2_out_reset(struct h2_out *o); /* same, and ready for use */
/* Copies; false when out of memory. There is room for `segs` further segments if h2_out_has_room said so. */
bool h2_out_add(struct h2_out *o, const void *p, size_t n, struct exchange *x);
/* Part of a chunk; `last`: it may be released when these bytes are out (the caller's chunk is void then). */
void h2_out_refer(struct h2_out *o, struct chunk *c, size_t off, size_t n, bool last, struct exchange *x);
static inline bool h2_out_has_room(const struct h2_out *o, unsigned segs, size_t batch)
{
    return o->count + segs <= H2_OUT_SEGS && o->bytes_n < H2_OUT_BYTES && o->pending < batch;
}
/* One write. ERR_OK: *put bytes moved; else as stream.h. */
enum err h2_out_flush(struct h2_out *o, struct stream *s, size_t *put);

#endif
