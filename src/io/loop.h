/* loop.h - one worker's event loop on libevent: edge-triggered watches, cheap timers, deferred tasks, a clock.
 *
 * Everything here belongs to the thread that runs the loop. Callbacks never nest: a task scheduled while another
 * callback runs is called later in the same turn. Objects that embed a watch, timer or task must stop it before they
 * are freed; after the stop call returns it will not be called again. */
#ifndef S3P_IO_LOOP_H
#define S3P_IO_LOOP_H

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/err.h"
#include "base/list.h"

struct loop;

enum err loop_create(struct loop **out);
void loop_destroy(struct loop *l); /* nothing may be armed any more */
void loop_run(struct loop *l);     /* until loop_stop */
void loop_stop(struct loop *l);    /* from a callback of this loop */
struct loop *loop_current(void);   /* the loop this thread runs, or NULL */
struct event_base *loop_base(struct loop *l);

/* Monotonic time, read once per turn of the loop. */
uint64_t loop_now_ms(const struct loop *l);
uint64_t loop_now_ns(const struct loop *l);
uint64_t clock_ns(void);     /* CLOCK_MONOTONIC, read now */
uint64_t wallclock_ms(void); /* CLOCK_REALTIME, read now */

/* ---- file descriptors: edge-triggered. The callback must use the descriptor until AGAIN, or schedule a task to do so:
 * it will not be told twice about the same bytes. READY_CLOSED: the peer has shut down its sending side (EPOLLRDHUP) or
 * the connection broke; reads tell which. */
enum { READY_READ = 1, READY_WRITE = 2, READY_CLOSED = 4 };
struct watch;
typedef void watch_fn(struct watch *w, unsigned ready);
struct watch {
    struct event ev;
    watch_fn *fn;
    struct loop *loop;
    int fd; /* -1: not armed */
};
void watch_init(struct watch *w, struct loop *l, watch_fn *fn);
/* Arms READ|WRITE|CLOSED for a non-blocking fd until watch_stop. ERR_NOMEM. Does not own fd. */
enum err watch_start(struct watch *w, int fd);
void watch_stop(struct watch *w);

/* ---- timers: resolution about 8 ms (a hashed wheel); setting, moving and stopping one is O(1). */
struct timer;
typedef void timer_fn(struct timer *t);
struct timer {
    struct list link;
    timer_fn *fn;
    struct loop *loop;
    uint64_t due_ms; /* loop time; 0 = not set */
};
void timer_init(struct timer *t, struct loop *l, timer_fn *fn);
void timer_set(struct timer *t, uint64_t delay_ms); /* (re)arms; never fires early */
void timer_stop(struct timer *t);

/* ---- tasks: called once, soon, on this loop, before it sleeps. Scheduling a scheduled task does nothing. */
struct task;
typedef void task_fn(struct task *t);
struct task {
    struct list link;
    task_fn *fn;
    struct loop *loop;
};
void task_init(struct task *t, struct loop *l, task_fn *fn);
void task_schedule(struct task *t);
void task_cancel(struct task *t);

#endif
