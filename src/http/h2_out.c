/* h2_out.c - see h2_out.h. */
#include "http/h2_out.h"

#include <stdlib.h>

struct h2_out *h2_out_create(void)
{
    struct h2_out *o = malloc(sizeof(*o));
    if (!o) return NULL;
    o->next = NULL;
    o->bytes = NULL;
    o->bytes_n = o->bytes_cap = o->pending = 0;
    o->first = o->count = 0;
    o->first_off = 0;
    return o;
}

static void seg_release(struct h2_seg *g)
{
    if (g->release) g->release(g->owner, CHUNK_COPIED);
    g->release = NULL;
}

void h2_out_reset(struct h2_out *o)
{
    for (unsigned i = o->first; i < o->count; i++) seg_release(&o->segs[i]);
    o->bytes_n = o->pending = 0;
    o->first = o->count = 0;
    o->first_off = 0;
}

void h2_out_free(struct h2_out *o)
{
    h2_out_reset(o);
    free(o->bytes);
    free(o);
}

static bool bytes_grow(struct h2_out *o, size_t n)
{
    size_t cap = o->bytes_cap ? o->bytes_cap : 16 * 1024;
    while (cap - o->bytes_n < n) {
        if (cap > UINT32_MAX / 4) return false;
        cap *= 2;
    }
    char *p = realloc(o->bytes, cap);
    if (!p) return false;
    o->bytes = p;
    o->bytes_cap = cap;
    return true;
}

bool h2_out_add(struct h2_out *o, const void *p, size_t n, struct exchange *x)
{
    if (n == 0) return true;
    if (o->bytes_cap - o->bytes_n < n && !bytes_grow(o, n)) return false;
    struct h2_seg *last = o->count > o->first ? &o->segs[o->count - 1] : NULL;
    memcpy(o->bytes + o->bytes_n, p, n);
    if (last && !last->p && !last->x && !x) {
        last->n += (uint32_t)n; /* bytes of our own always follow one another */
    } else {
        CHECK(o->count < H2_OUT_SEGS);
        o->segs[o->count++] = (struct h2_seg){NULL, (uint32_t)o->bytes_n, (uint32_t)n, x, NULL, NULL};
    }
    o->bytes_n += n;
    o->pending += n;
    return true;
}

void h2_out_refer(struct h2_out *o, struct chunk *c, size_t off, size_t n, bool last, struct exchange *x)
{
    CHECK(o->count < H2_OUT_SEGS && n <= UINT32_MAX);
    struct h2_seg *g = &o->segs[o->count++];
    *g = (struct h2_seg){c->data + off, 0, (uint32_t)n, x, NULL, NULL};
    if (last) {
        g->owner = c->owner;
        g->release = c->release;
        c->release = NULL;
    }
    o->pending += n;
}

static void account(struct h2_out *o, size_t put)
{
    uint64_t now_ns = clock_ns();
    o->pending -= put;
    while (o->first < o->count && (put || o->segs[o->first].n == o->first_off)) {
        struct h2_seg *g = &o->segs[o->first];
        size_t take = g->n - o->first_off < put ? g->n - o->first_off : put;
        o->first_off += (uint32_t)take;
        put -= take;
        if (g->x) {
            g->x->sent_bytes += take;
            if (!g->x->first_byte_ns) g->x->first_byte_ns = now_ns;
        }
        if (o->first_off < g->n) break;
        seg_release(g);
        o->first++;
        o->first_off = 0;
    }
    if (o->first == o->count) h2_out_reset(o);
}

enum err h2_out_flush(struct h2_out *o, struct stream *s, size_t *put)
{
    struct iovec iov[H2_OUT_SEGS];
    unsigned n = 0;
    size_t skip = o->first_off;
    for (unsigned i = o->first; i < o->count; i++, skip = 0) {
        const struct h2_seg *g = &o->segs[i];
        if (g->n == skip) continue;
        char *p = g->p ? (char *)(uintptr_t)g->p : o->bytes + g->at;
        /* Small payloads were copied right behind their frame header. */
        if (n && (char *)iov[n - 1].iov_base + iov[n - 1].iov_len == p + skip) iov[n - 1].iov_len += g->n - skip;
        else iov[n++] = (struct iovec){p + skip, g->n - skip};
    }
    *put = 0;
    enum err e = stream_writev(s, iov, n, put);
    if (e == ERR_OK) account(o, *put);
    return e;
}
