/* h1_out.c - see h1_out.h. */
#include "http/h1_out.h"

#include <stdlib.h>

static const char chunk_end_text[] = "\r\n";
static const char body_end_text[] = "\r\n0\r\n\r\n";

void h1_out_init(struct h1_out *o)
{
    memset(o, 0, sizeof(*o));
}

void h1_out_free(struct h1_out *o)
{
    CHECK(!h1_out_has_chunks(o));
    free(o->bytes);
    o->bytes = NULL;
    o->n = o->off = o->cap = 0;
}

void h1_out_reset(struct h1_out *o)
{
    for (unsigned i = o->first; i < o->count; i++) {
        bool touched = (o->by_file >> i & 1) && i == o->first && o->first_off > 0;
        if (touched) o->held->v[o->held->n++] = o->chunks[i];
        else chunk_release(&o->chunks[i], CHUNK_COPIED);
    }
    o->n = o->off = 0;
    o->first = o->count = 0;
    o->first_off = 0;
    o->by_file = 0;
    o->tail_n = 0;
    o->complete = o->blocked = o->notified = false;
    o->held = NULL;
    o->file_min = 0;
}

char *h1_out_room(struct h1_out *o, size_t n)
{
    if (o->off == o->n) o->off = o->n = 0;
    if (o->cap - o->n < n) {
        size_t cap = o->cap ? o->cap : 2048;
        while (cap - o->n < n) {
            if (cap > SIZE_MAX / 4) return NULL;
            cap *= 2;
        }
        char *p = realloc(o->bytes, cap);
        if (!p) return NULL;
        o->bytes = p;
        o->cap = cap;
    }
    return o->bytes + o->n;
}

bool h1_out_add(struct h1_out *o, const void *p, size_t n)
{
    char *to = h1_out_room(o, n);
    if (!to) return false;
    memcpy(to, p, n);
    o->n += n;
    return true;
}

void h1_out_begin_body(struct h1_out *o, enum h1_framing f, uint64_t left)
{
    o->framing = f;
    o->left = left;
    o->complete = f == H1_FRAME_LENGTH && left == 0;
    o->blocked = o->notified = false;
}

/* A slot of `held` is reserved now, so that moving a chunk there later cannot fail. Queued chunks that go by file are
 * not in held->n yet, hence `queued`. */
static bool held_reserve(struct h1_held *h, unsigned queued)
{
    if (h->n + queued < h->cap) return true;
    unsigned cap = h->cap ? h->cap * 2 : 16;
    while (cap <= h->n + queued) cap *= 2;
    struct chunk *v = realloc(h->v, cap * sizeof(*v));
    if (!v) return false;
    h->v = v;
    h->cap = cap;
    return true;
}

static void choose_sendfile(struct h1_out *o, unsigned from)
{
    for (unsigned i = from; i < o->count; i++) {
        struct chunk *c = &o->chunks[i];
        if (c->fd < 0 || c->len < o->file_min || c->len > o->file_max_held) continue;
        if (o->held->bytes > o->file_max_held - c->len || !held_reserve(o->held, i + 1)) continue;
        o->by_file |= UINT64_C(1) << i;
        o->held->bytes += c->len;
    }
}

static bool frame_chunk(struct h1_out *o, size_t bytes)
{
    char line[24];
    unsigned i = sizeof(line);
    line[--i] = '\n';
    line[--i] = '\r';
    do {
        line[--i] = "0123456789abcdef"[bytes & 15];
        bytes >>= 4;
    } while (bytes);
    return h1_out_add(o, line + i, sizeof(line) - i);
}

/* One pull: a producer gives what belongs together (of an object, bytes of one slice), so that a reader who is slow to take
 * it holds no more than that. */
static enum err pull_batch(struct h1_out *o, struct body *b, size_t *total)
{
    size_t room = H1_OUT_BATCH, got = 0;
    unsigned n;

    if (o->framing == H1_FRAME_LENGTH && o->left < room) room = (size_t)o->left;
    if (room == 0) return ERR_OK;
    o->notified = false;
    enum err e = body_pull(b, o->chunks, H1_OUT_CHUNKS, room, &n);
    if (e != ERR_OK) return e;
    if (n == 0 || n > H1_OUT_CHUNKS) return ERR_INTERNAL;
    o->count = n;
    for (unsigned i = 0; i < n; i++) got += o->chunks[i].len;
    if (got == 0 || got > room) return ERR_INTERNAL;
    if (o->file_min && o->held) choose_sendfile(o, 0);
    *total = got;
    if (o->framing == H1_FRAME_LENGTH) o->left -= got;
    return ERR_OK;
}

enum err h1_out_fill(struct h1_out *o, struct body *b)
{
    size_t total = 0;
    o->first = o->count = 0;
    o->first_off = 0;
    o->by_file = 0;
    enum err e = pull_batch(o, b, &total);
    if (e != ERR_OK && e != ERR_AGAIN && e != ERR_END) return e;
    if (o->framing == H1_FRAME_LENGTH) {
        if (o->left == 0) {
            o->complete = true;
            return ERR_OK;
        }
        if (e == ERR_END) return ERR_TRUNCATED;
    } else {
        o->complete = e == ERR_END;
    }
    if (o->framing == H1_FRAME_CHUNKED) {
        if (total) {
            if (!frame_chunk(o, total)) return ERR_NOMEM;
            o->tail = o->complete ? body_end_text : chunk_end_text;
            o->tail_n = o->complete ? sizeof(body_end_text) - 1 : sizeof(chunk_end_text) - 1;
        } else if (o->complete && !h1_out_add(o, body_end_text + 2, sizeof(body_end_text) - 3)) {
            return ERR_NOMEM;
        }
    }
    o->blocked = e == ERR_AGAIN && !o->notified;
    return e == ERR_AGAIN ? ERR_AGAIN : ERR_OK;
}

/* Takes `put` accepted bytes off the queue, and empty chunks with them. */
static void account(struct h1_out *o, size_t put)
{
    o->put = put;
    o->put_body = 0;
    size_t own = o->n - o->off < put ? o->n - o->off : put;
    o->off += own;
    put -= own;
    while (h1_out_has_chunks(o) && (put || o->chunks[o->first].len == 0)) {
        struct chunk *c = &o->chunks[o->first];
        size_t take = c->len - o->first_off < put ? c->len - o->first_off : put;
        o->first_off += take;
        o->put_body += take;
        put -= take;
        if (o->first_off < c->len) break;
        if (o->by_file >> o->first & 1) o->held->v[o->held->n++] = *c;
        else chunk_release(c, CHUNK_COPIED);
        o->first++;
        o->first_off = 0;
    }
    o->tail += put;
    o->tail_n -= put;
}

static enum err flush_file(struct h1_out *o, struct stream *s)
{
    const struct chunk *c = &o->chunks[o->first];
    size_t put = 0;
    enum err e = stream_sendfile(s, c->fd, c->fd_off + o->first_off, c->len - o->first_off, &put);
    if (e != ERR_OK) return e;
    account(o, put);
    o->put_file = put;
    return ERR_OK;
}

bool h1_out_last_flush(const struct h1_out *o)
{
    if (!o->complete) return false;
    /* Everything left goes in one call unless a chunk by file stands behind what the call takes. */
    unsigned after = o->first + (o->off == o->n && o->first < o->count && (o->by_file >> o->first & 1));
    return after >= o->count || o->by_file >> after == 0;
}

enum err h1_out_flush(struct h1_out *o, struct stream *s)
{
    struct iovec iov[H1_OUT_CHUNKS + 2];
    unsigned n = 0, i = o->first;
    o->put_file = 0;
    if (o->off < o->n) iov[n++] = (struct iovec){o->bytes + o->off, o->n - o->off};
    else if (i < o->count && (o->by_file >> i & 1)) return flush_file(o, s);
    size_t skip = o->first_off;
    for (; i < o->count && !(o->by_file >> i & 1); i++, skip = 0) {
        const struct chunk *c = &o->chunks[i];
        if (c->len > skip) iov[n++] = (struct iovec){(void *)(uintptr_t)(c->data + skip), c->len - skip};
    }
    bool more = i < o->count;
    if (!more && o->tail_n) iov[n++] = (struct iovec){(void *)(uintptr_t)o->tail, o->tail_n};
    size_t put = 0;
    enum err e = more ? stream_writev_more(s, iov, n, &put, true) : stream_writev(s, iov, n, &put);
    if (e == ERR_OK) account(o, put);
    return e;
}

void h1_held_release(struct h1_held *h, enum chunk_end how)
{
    for (unsigned i = 0; i < h->n; i++) chunk_release(&h->v[i], how);
    h->n = 0;
    h->bytes = 0;
}

void h1_held_free(struct h1_held *h)
{
    CHECK(h->n == 0);
    free(h->v);
    h->v = NULL;
    h->cap = 0;
}
