/* window.c - how many parts of one client request may be under way: the configured number. What an adaptive limit will
 * be computed from is gathered already, so that the change stays inside this file. */
#include "origin/window.h"

void window_init(struct window *w, const struct origin_conf *conf)
{
    uint64_t limit = conf->max_in_flight ? conf->max_in_flight : 1;
    *w = (struct window){.limit = limit > UINT32_MAX ? UINT32_MAX : (unsigned)limit};
}

unsigned window_limit(const struct window *w) { return w->limit; }

void window_part_done(struct window *w, uint64_t bytes, uint64_t first_byte_us, uint64_t total_us)
{
    (void)total_us; /* the bandwidth half of the product; the fixed limit needs neither */
    w->parts_done++;
    w->bytes_done += bytes;
    w->first_byte_us_sum += first_byte_us;
}
