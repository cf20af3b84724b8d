/* climb.h - how many HTTP/2 connections an origin is worth: found by trying.
 *
 * A few are taken for granted: parts of one object that are already on a connection cannot move when a better one comes.
 * As long as requests wait for bytes on every connection, the rate of all together is measured over some periods. Then the
 * number is doubled and measured again: it stays doubled if that brought at least a fifth more, else it goes back and the
 * next try is a minute away. A rate seen while there was too little to do says nothing and is dropped. */
#ifndef S3P_ORIGIN_CLIMB_H
#define S3P_ORIGIN_CLIMB_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CLIMB_PERIOD_MS = 100,
    CLIMB_WARM_PERIODS = 2, /* new connections start slowly */
    CLIMB_MEASURE_PERIODS = 3,
    CLIMB_REST_MS = 60000,
    CLIMB_BUSY_BYTES = 1 << 20, /* outstanding per connection: less is no load */
};

struct climb {
    unsigned target, start, max;
    unsigned before;      /* on trial: what target was; 0 = not on trial */
    uint64_t before_rate; /* bytes per second then */
    unsigned periods;     /* busy ones seen with this target */
    uint64_t bytes, ms;   /* of those that count */
    uint64_t rate;        /* last result */
    uint64_t next_try_ms;
};
void climb_init(struct climb *c, unsigned start, unsigned max);
/* One period has passed with `open` connections: `bytes` came in `ms`; busy: all through it every connection had enough
 * to do. Changes target. */
void climb_period(struct climb *c, uint64_t now_ms, unsigned open, uint64_t bytes, uint64_t ms, bool busy);
/* More than `open` connections are not to be had now. */
void climb_stop(struct climb *c, uint64_t now_ms, unsigned open);

#endif
