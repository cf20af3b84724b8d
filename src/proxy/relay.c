/* relay.c - see relay.h. The ring is released in the order in which it was given out: a short queue of lengths remembers
 * what the outstanding chunks were. The memory lives until both the relay and its last chunk are gone. */
#include "proxy/relay.h"

#include <stdlib.h>

#define MAX_OUTSTANDING 64u

struct relay {
    uint8_t *ring;
    size_t cap;
    uint64_t in, given, released; /* stream offsets: received, handed out, given back */
    size_t lengths[MAX_OUTSTANDING];
    unsigned first, outstanding;
    struct upcall *call;
    struct body body;
    bool ended, paused, destroyed;
    enum err why;
    void (*before)(void *arg, enum err what);
    void *before_arg;
};

struct relay *relay_create(size_t capacity)
{
    struct relay *y = calloc(1, sizeof *y);
    if (!y) return NULL;
    y->cap = capacity < 16384 ? 16384 : capacity;
    y->ring = malloc(y->cap);
    if (!y->ring) {
        free(y);
        return NULL;
    }
    return y;
}

static void relay_maybe_free(struct relay *y)
{
    if (!y->destroyed || y->outstanding) return;
    free(y->ring);
    free(y);
}

static unsigned relay_space(void *arg, struct iovec *iov, unsigned max)
{
    struct relay *y = arg;
    size_t room = y->cap - (size_t)(y->in - y->released);
    size_t at = (size_t)(y->in % y->cap);
    size_t run = y->cap - at < room ? y->cap - at : room;

    y->paused = room == 0;
    if (room == 0 || max == 0) return 0;
    iov[0] = (struct iovec){y->ring + at, run};
    if (run == room || max == 1) return 1;
    iov[1] = (struct iovec){y->ring, room - run};
    return 2;
}

static void relay_filled(void *arg, size_t n)
{
    struct relay *y = arg;
    if (y->before) y->before(y->before_arg, ERR_AGAIN);
    y->in += n;
    body_notify(&y->body);
}

static void relay_end(void *arg, enum err why)
{
    struct relay *y = arg;
    y->call = NULL;
    if (y->before) y->before(y->before_arg, why);
    y->ended = true;
    y->why = why;
    body_notify(&y->body);
}

static void relay_head(void *arg, const struct head *resp, int64_t length)
{
    (void)arg;
    (void)resp;
    (void)length;
}

const struct client_events relay_events = {relay_head, relay_space, relay_filled, relay_end};

static void relay_chunk_release(void *owner, enum chunk_end how)
{
    struct relay *y = owner;

    (void)how;
    y->released += y->lengths[y->first];
    y->first = (y->first + 1) % MAX_OUTSTANDING;
    y->outstanding--;
    if (y->destroyed) {
        relay_maybe_free(y);
    } else if (y->paused && y->call) {
        y->paused = false;
        upcall_resume(y->call);
    }
}

static enum err relay_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct relay *y = container_of(b, struct relay, body);

    while (*n < max && max_bytes > 0 && y->given < y->in && y->outstanding < MAX_OUTSTANDING) {
        size_t at = (size_t)(y->given % y->cap), len = y->cap - at;
        if (len > y->in - y->given) len = (size_t)(y->in - y->given);
        if (len > max_bytes) len = max_bytes;
        y->lengths[(y->first + y->outstanding++) % MAX_OUTSTANDING] = len;
        out[(*n)++] = (struct chunk){.data = y->ring + at, .len = len, .fd = -1, .owner = y, .release = relay_chunk_release};
        y->given += len;
        max_bytes -= len;
    }
    if (*n) return ERR_OK;
    if (y->given < y->in || !y->ended) return ERR_AGAIN;
    return y->why == ERR_OK ? ERR_END : y->why;
}

static void relay_close(struct body *b) { (void)b; }
static const struct body_ops relay_ops = {relay_pull, relay_close};

void relay_set_call(struct relay *y, struct upcall *call) { y->call = call; }

void relay_watch(struct relay *y, void (*before)(void *arg, enum err what), void *arg)
{
    y->before = before;
    y->before_arg = arg;
}

uint64_t relay_received(const struct relay *y) { return y->in; }

struct body *relay_body(struct relay *y, int64_t length)
{
    y->body.ops = &relay_ops;
    y->body.length = length;
    return &y->body;
}

void relay_destroy(struct relay *y)
{
    if (!y) return;
    upcall_cancel(y->call);
    y->call = NULL;
    y->destroyed = true;
    y->before = NULL;
    y->body.notify = NULL;
    relay_maybe_free(y);
}
