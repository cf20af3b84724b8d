/* body.h - a stream of bytes pulled by its consumer: the one shape in which bodies travel, both ways, whatever protocol
 * carries them. Single-threaded: producer and consumer run on the same loop.
 *
 * The consumer calls body_pull when it can take more (its socket has drained) and gets chunks: memory it must not
 * change, each with a hold that it releases when done. A producer that has nothing yet answers ERR_AGAIN and calls
 * body_notify once that may have changed; the notification is only a hint.
 *
 *   state        | legal calls
 *   open         | body_pull -> ERR_OK (n >= 1 chunks), ERR_AGAIN, ERR_END (whole body was given), or an error (final)
 *   after END or error | body_close
 *   any time     | body_close: the consumer wants no more; chunks already given stay valid until released */
#ifndef S3P_IO_BODY_H
#define S3P_IO_BODY_H

#include "base/check.h"
#include "base/err.h"

/* How a chunk's consumer ended with it. */
enum chunk_end {
    CHUNK_COPIED,  /* the bytes were copied out (or are not needed): nobody refers to the memory any more */
    CHUNK_UNPROVEN /* handed to sendfile and the reader never proved that it read them: the kernel may still refer to
                      the pages (see ARCHITECTURE.md, "sendfile"), they must not be overwritten in place */
};

struct chunk {
    const uint8_t *data;
    size_t len;
    int fd;          /* a file that holds the same bytes at fd_off, fit for sendfile; -1 = memory only */
    uint64_t fd_off;
    void *owner;
    void (*release)(void *owner, enum chunk_end how); /* NULL: nothing to release */
};
static inline void chunk_release(struct chunk *c, enum chunk_end how)
{
    if (c->release) c->release(c->owner, how);
    c->release = NULL;
}

struct body;
struct body_ops {
    /* Up to max chunks of together at most max_bytes (at least one byte). */
    enum err (*pull)(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n);
    void (*close)(struct body *b); /* exactly once */
};
typedef void body_notify_fn(void *arg);
struct body {
    const struct body_ops *ops; /* NULL: no body, or closed */
    int64_t length;             /* bytes in all; -1 = not known beforehand */
    body_notify_fn *notify;     /* set by the consumer before its first pull */
    void *notify_arg;
};

static inline enum err body_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    *n = 0;
    return b->ops->pull(b, out, max, max_bytes, n);
}
static inline void body_close(struct body *b)
{
    const struct body_ops *ops = b->ops;
    b->ops = NULL;
    b->notify = NULL;
    if (ops && ops->close) ops->close(b);
}
static inline void body_notify(struct body *b)
{
    if (b->notify) b->notify(b->notify_arg);
}

#endif
