/* replay.c - see the header. */
#include "origin/replay.h"

#include <stdlib.h>
#include <string.h>

void replay_init(struct replay *r, struct body *real)
{
    *r = (struct replay){.real = real, .ended = ERR_AGAIN, .room = REPLAY_BYTES};
    if (real && real->length >= 0 && real->length < REPLAY_BYTES) r->room = (size_t)real->length;
}

void replay_rewind(struct replay *r)
{
    CHECK(!r->lost);
    r->given = 0;
}

static bool keep_copy(struct replay *r, const struct chunk *c, unsigned n)
{
    if (!r->kept) r->kept = malloc(r->room ? r->room : 1);
    if (!r->kept) return false;
    for (unsigned i = 0; i < n; i++) {
        if (c[i].len > r->room - r->n) return false;
        memcpy(r->kept + r->n, c[i].data, c[i].len);
        r->n += c[i].len;
    }
    r->given = r->n;
    return true;
}

enum err replay_pull(struct replay *r, bool keep, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    *n = 0;
    if (r->given < r->n) {
        size_t len = r->n - r->given < max_bytes ? r->n - r->given : max_bytes;
        out[0] = (struct chunk){.data = r->kept + r->given, .len = len, .fd = -1};
        r->given += len;
        *n = 1;
        return ERR_OK;
    }
    if (r->ended != ERR_AGAIN) return r->ended;
    if (!r->real || !r->real->ops) return ERR_INCOMPLETE_BODY; /* the caller has closed it under us */
    if (r->lost || r->n == r->room) keep = false;
    if (keep && max_bytes > r->room - r->n) max_bytes = r->room - r->n;
    enum err e = body_pull(r->real, out, max, max_bytes, n);
    if (e == ERR_AGAIN) return e;
    r->touched = true;
    if (e != ERR_OK) r->ended = e;
    else if (!keep || !keep_copy(r, out, *n)) r->lost = true;
    return e;
}

void replay_free(struct replay *r)
{
    free(r->kept);
    *r = (struct replay){.ended = ERR_AGAIN};
}
