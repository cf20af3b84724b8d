/* meter.h - memory that somebody else's limit is to know of: bytes added to a count that all threads share. A meter without
 * a count counts nothing. */
#ifndef S3P_BASE_METER_H
#define S3P_BASE_METER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct meter {
    _Atomic uint64_t *used;
    uint64_t limit;
};

static inline void meter_add(const struct meter *m, uint64_t bytes)
{
    if (m->used) atomic_fetch_add_explicit(m->used, bytes, memory_order_relaxed);
}
static inline void meter_sub(const struct meter *m, uint64_t bytes)
{
    if (m->used) atomic_fetch_sub_explicit(m->used, bytes, memory_order_relaxed);
}
/* Half of it is in use: who can do with less should. */
static inline bool meter_is_tight(const struct meter *m)
{
    return m->used && atomic_load_explicit(m->used, memory_order_relaxed) > m->limit / 2;
}

#endif
