/* climb.c - see the header. Pure arithmetic: who calls it has the clock and the connections. */
#include "origin/climb.h"

void climb_init(struct climb *c, unsigned start, unsigned max)
{
    *c = (struct climb){.max = max ? max : 1};
    c->target = c->start = start < c->max ? start : c->max;
}

static void measure_again(struct climb *c)
{
    c->periods = 0;
    c->bytes = c->ms = 0;
}

static void trial_begin(struct climb *c)
{
    unsigned twice = c->target > c->max / 2 ? c->max : c->target * 2;
    if (twice == c->target) return;
    c->before = c->target;
    c->before_rate = c->rate;
    c->target = twice;
}

static void trial_end(struct climb *c, uint64_t now_ms)
{
    bool better = c->rate / 6 >= c->before_rate / 5;
    if (!better) {
        c->target = c->before;
        c->rate = c->before_rate;
        c->next_try_ms = now_ms + CLIMB_REST_MS;
    }
    c->before = 0;
}

void climb_period(struct climb *c, uint64_t now_ms, unsigned open, uint64_t bytes, uint64_t ms, bool busy)
{
    if (!busy || ms == 0) return measure_again(c);
    if (open < c->target) { /* on trial this is the wait for connections; else they have fallen idle */
        unsigned floor = c->target < c->start ? c->target : c->start;
        if (!c->before) c->target = open > floor ? open : floor;
        return measure_again(c);
    }
    if (++c->periods <= CLIMB_WARM_PERIODS) return;
    c->bytes += bytes;
    c->ms += ms;
    if (c->periods < CLIMB_WARM_PERIODS + CLIMB_MEASURE_PERIODS) return;
    c->rate = c->bytes * 1000 / c->ms;
    measure_again(c);
    if (c->before) trial_end(c, now_ms);
    if (!c->before && now_ms >= c->next_try_ms) trial_begin(c);
}

void climb_stop(struct climb *c, uint64_t now_ms, unsigned open)
{
    c->target = open ? open : 1;
    c->before = 0;
    c->next_try_ms = now_ms + CLIMB_REST_MS;
    measure_again(c);
}
