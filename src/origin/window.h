/* window.h - how many parts of one client request may be under way: the seam for the adaptive window (about twice the
 * bandwidth-delay product, a later change). Today: the configured number. One per worker and origin; not thread-safe. */
#ifndef S3P_ORIGIN_WINDOW_H
#define S3P_ORIGIN_WINDOW_H

#include "conf/conf.h"

struct window {
    unsigned limit;
    /* what an adaptive limit will be computed from */
    uint64_t parts_done, bytes_done, first_byte_us_sum;
};
void window_init(struct window *w, const struct origin_conf *conf);
unsigned window_limit(const struct window *w);
/* Told by fetch.c when a part has ended whole. */
void window_part_done(struct window *w, uint64_t bytes, uint64_t first_byte_us, uint64_t total_us);

#endif
