/* replay.h - a request body whose beginning is kept, so that it can be sent once more.
 *
 * An HTTP/2 origin that is going away (GOAWAY) or full (REFUSED_STREAM) says so when a good part of the body may be under
 * way already. Until it has looked at a request it opens no window beyond the first, 64 KiB nearly everywhere; so much is
 * kept, and what never grew longer than that can be repeated from its first byte. */
#ifndef S3P_ORIGIN_REPLAY_H
#define S3P_ORIGIN_REPLAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/body.h"

enum { REPLAY_BYTES = 64 * 1024 };

struct replay {
    struct body *real; /* the caller's */
    uint8_t *kept;
    size_t n, given;   /* bytes of it; how many of them this try has been given */
    size_t room;
    enum err ended;    /* what real said at last; ERR_AGAIN: nothing yet */
    bool touched;      /* something was taken from real */
    bool lost;         /* more than is kept: there is no other time */
};
void replay_init(struct replay *r, struct body *real);
void replay_rewind(struct replay *r); /* not when lost: the next pull begins at the first byte */
/* As body_pull. keep: another try may follow. Chunks stay valid until they are released, or replay_free. */
enum err replay_pull(struct replay *r, bool keep, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n);
void replay_free(struct replay *r);

#endif
