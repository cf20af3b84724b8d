/* bodies.c - request bodies out of memory and out of files. See call.h.
 *
 * A body of a file reads into buffers of its own that its consumer holds: at most BUFFERS of them are out at a time, then a
 * pull waits for one to come back. The body lives until it is closed and the last buffer has come back. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/call.h"

struct memory_body {
    struct body body;
    struct str left;
};

static enum err memory_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct memory_body *m = container_of(b, struct memory_body, body);
    size_t take = m->left.n < max_bytes ? m->left.n : max_bytes;

    if (take == 0 || max == 0) return ERR_END;
    out[0] = (struct chunk){.data = (const uint8_t *)m->left.p, .len = take, .fd = -1};
    m->left = str_make(m->left.p + take, m->left.n - take);
    *n = 1;
    return ERR_OK;
}

static void memory_close(struct body *b) { free(container_of(b, struct memory_body, body)); }

struct body *body_of_memory(struct str bytes)
{
    static const struct body_ops ops = {memory_pull, memory_close};
    struct memory_body *m = calloc(1, sizeof *m);

    if (!m) return NULL;
    m->body = (struct body){.ops = &ops, .length = (int64_t)bytes.n};
    m->left = bytes;
    return &m->body;
}

/* ---- files */

#define BUFFER_BYTES ((size_t)256 << 10)
#define BUFFERS 4u

struct file_body;
struct file_buffer {
    struct file_body *owner;
    bool out;
    uint8_t *bytes;
};
struct file_body {
    struct body body;
    int fd;
    uint64_t at, left;
    struct file_buffer buffers[BUFFERS];
    unsigned out;
    bool starved; /* a pull found no buffer: tell when one is back */
    bool closed;
};

static void file_free(struct file_body *f)
{
    for (unsigned i = 0; i < BUFFERS; i++) free(f->buffers[i].bytes);
    free(f);
}

static void buffer_back(void *owner, enum chunk_end how)
{
    struct file_buffer *b = owner;
    struct file_body *f = b->owner;

    (void)how;
    b->out = false;
    f->out--;
    if (f->closed) {
        if (f->out == 0) file_free(f);
        return;
    }
    if (!f->starved) return;
    f->starved = false;
    body_notify(&f->body);
}

static struct file_buffer *buffer_get(struct file_body *f)
{
    for (unsigned i = 0; i < BUFFERS; i++) {
        struct file_buffer *b = &f->buffers[i];
        if (b->out) continue;
        if (!b->bytes) b->bytes = malloc(BUFFER_BYTES);
        return b->bytes ? b : NULL;
    }
    return NULL;
}

static enum err read_fully(int fd, uint8_t *to, size_t n, uint64_t at)
{
    while (n) {
        ssize_t got = pread(fd, to, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return ERR_IO; /* also: it has become shorter */
        to += got;
        n -= (size_t)got;
        at += (uint64_t)got;
    }
    return ERR_OK;
}

static enum err file_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct file_body *f = container_of(b, struct file_body, body);
    size_t take = f->left < BUFFER_BYTES ? (size_t)f->left : BUFFER_BYTES;

    if (f->left == 0 || max == 0) return ERR_END;
    struct file_buffer *buf = buffer_get(f);
    if (!buf && f->out == 0) return ERR_NOMEM;
    if (!buf) {
        f->starved = true;
        return ERR_AGAIN;
    }
    if (take > max_bytes) take = max_bytes;
    enum err e = read_fully(f->fd, buf->bytes, take, f->at);
    if (e != ERR_OK) return e;
    buf->out = true;
    f->out++;
    f->at += take;
    f->left -= take;
    out[0] = (struct chunk){.data = buf->bytes, .len = take, .fd = -1, .owner = buf, .release = buffer_back};
    *n = 1;
    return ERR_OK;
}

static void file_close(struct body *b)
{
    struct file_body *f = container_of(b, struct file_body, body);

    f->closed = true;
    if (f->out == 0) file_free(f);
}

struct body *body_of_file(int fd, uint64_t offset, uint64_t length)
{
    static const struct body_ops ops = {file_pull, file_close};
    struct file_body *f = calloc(1, sizeof *f);

    if (!f) return NULL;
    f->body = (struct body){.ops = &ops, .length = (int64_t)length};
    f->fd = fd;
    f->at = offset;
    f->left = length;
    for (unsigned i = 0; i < BUFFERS; i++) f->buffers[i].owner = f;
    return &f->body;
}
