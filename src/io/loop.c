/* loop.c - one worker's event loop.
 *
 * A turn is: arm the wake-up, let libevent wait and call the ready watches, fire the timers that are due, run the tasks.
 * The clock is read once per turn, when first asked for after the wait.
 *
 * Timers sit in a hashed wheel of TICK_MS slots. A timer is linked in a slot that the wheel visits no later than the
 * timer is due; moving it later only changes due_ms (the common case: an idle timeout pushed back by every request),
 * and the visit re-links it. `occupied` may have bits of slots that became empty; the visit clears them. Only when
 * timers exist is libevent asked for a wake-up, one for all of them.
 *
 * The thread that runs a loop has SIGPIPE blocked: sendfile(2) knows no MSG_NOSIGNAL. */
#include "io/loop.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/check.h"

#define LOOP_MAGIC 0x6c6f6f70u
#define TICK_MS UINT64_C(8)
#define WHEEL_SLOTS 1024u /* one revolution: 8.2 s */
#define WHEEL_MASK (WHEEL_SLOTS - 1)
#define WHEEL_WORDS (WHEEL_SLOTS / 64)
#define TASK_ROUNDS 4 /* per turn; a task that keeps scheduling itself must not starve the descriptors */
#define DUE_MAX_MS (UINT64_MAX / 4)

struct loop {
    uint32_t magic;
    struct event_base *base;
    bool running, stop;
    struct list tasks;
    /* clock */
    bool now_known;
    uint64_t now_ns, now_ms;
    /* timers */
    struct event wakeup;
    uint64_t wheel_tick; /* the last tick whose slot was visited */
    uint64_t next_tick;  /* no slot needs a visit before; UINT64_MAX: no timers */
    uint64_t armed_tick; /* for which `wakeup` is armed; UINT64_MAX: it is not */
    uint64_t timers;
    uint64_t occupied[WHEEL_WORDS];
    struct list slots[WHEEL_SLOTS];
};

static _Thread_local struct loop *current_loop;

/* ---- clock */

uint64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

uint64_t wallclock_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/* Outside of loop_run there are no turns: then every question reads the clock. */
static void clock_refresh(struct loop *l)
{
    l->now_ns = clock_ns();
    l->now_ms = l->now_ns / 1000000;
    l->now_known = l->running;
}

uint64_t loop_now_ns(const struct loop *l)
{
    if (unlikely(!l->now_known)) clock_refresh((struct loop *)(uintptr_t)l);
    return l->now_ns;
}

uint64_t loop_now_ms(const struct loop *l)
{
    if (unlikely(!l->now_known)) clock_refresh((struct loop *)(uintptr_t)l);
    return l->now_ms;
}

/* ---- timers */

static uint64_t tick_now(const struct loop *l)
{
    return loop_now_ms(l) / TICK_MS;
}

/* The first tick at whose beginning the timer is due. */
static uint64_t tick_due(const struct timer *t)
{
    return (t->due_ms + TICK_MS - 1) / TICK_MS;
}

static void wheel_insert(struct loop *l, struct timer *t)
{
    uint64_t tick = tick_due(t);
    unsigned slot = (unsigned)(tick & WHEEL_MASK);
    list_push_back(&l->slots[slot], &t->link);
    l->occupied[slot / 64] |= UINT64_C(1) << (slot % 64);
    if (tick < l->next_tick) l->next_tick = tick;
}

/* Moves what is due to `expired`, the rest to where it belongs. */
static void wheel_visit(struct loop *l, unsigned slot, uint64_t now_tick, struct list *expired)
{
    struct list *head = &l->slots[slot];
    LIST_EACH_SAFE(n, next, head)
    {
        struct timer *t = container_of(n, struct timer, link);
        uint64_t tick = tick_due(t);
        if (tick <= now_tick) {
            list_remove(n);
            list_push_back(expired, n);
        } else if ((tick & WHEEL_MASK) != slot) {
            list_remove(n);
            wheel_insert(l, t);
        }
    }
    if (list_empty(head)) l->occupied[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}

/* The next tick after wheel_tick whose slot holds anything. */
static uint64_t wheel_next(const struct loop *l)
{
    if (l->timers == 0) return UINT64_MAX;
    uint64_t from = l->wheel_tick + 1;
    for (uint64_t ahead = 0; ahead < WHEEL_SLOTS;) {
        unsigned slot = (unsigned)((from + ahead) & WHEEL_MASK);
        uint64_t bits = l->occupied[slot / 64] >> (slot % 64);
        if (bits) return from + ahead + (unsigned)__builtin_ctzll(bits);
        ahead += 64 - slot % 64;
    }
    return from + WHEEL_SLOTS; /* all are in the list of expired ones right now */
}

static void timer_fire(struct loop *l, struct timer *t, uint64_t now_tick)
{
    if (tick_due(t) > now_tick) {
        wheel_insert(l, t); /* moved by the callback of a timer that fired before it */
        return;
    }
    t->due_ms = 0;
    l->timers--;
    t->fn(t);
}

static void wheel_advance(struct loop *l)
{
    uint64_t now_tick = tick_now(l);
    if (now_tick < l->next_tick) return;

    struct list expired;
    list_init(&expired);
    /* Slots before next_tick are known to hold nothing that is due. */
    uint64_t first = l->next_tick;
    if (now_tick - first >= WHEEL_SLOTS) first = now_tick - WHEEL_SLOTS + 1;
    l->next_tick = UINT64_MAX;
    for (uint64_t tick = first; tick <= now_tick; tick++) {
        unsigned slot = (unsigned)(tick & WHEEL_MASK);
        if (l->occupied[slot / 64] >> (slot % 64) & 1) wheel_visit(l, slot, now_tick, &expired);
    }
    l->wheel_tick = now_tick;
    for (struct list *n; (n = list_pop_front(&expired));)
        timer_fire(l, container_of(n, struct timer, link), now_tick);
    l->next_tick = wheel_next(l);
}

void timer_init(struct timer *t, struct loop *l, timer_fn *fn)
{
    list_init(&t->link);
    t->fn = fn;
    t->loop = l;
    t->due_ms = 0;
}

void timer_set(struct timer *t, uint64_t delay_ms)
{
    struct loop *l = t->loop;
    /* One more than asked: the current millisecond has already begun. */
    uint64_t due = loop_now_ms(l) + 1 + (delay_ms < DUE_MAX_MS ? delay_ms : DUE_MAX_MS);
    if (t->due_ms == 0) {
        l->timers++;
    } else if (due >= t->due_ms) {
        t->due_ms = due;
        return;
    } else {
        list_remove(&t->link);
    }
    t->due_ms = due;
    wheel_insert(l, t);
}

void timer_stop(struct timer *t)
{
    if (t->due_ms == 0) return;
    list_remove(&t->link);
    t->due_ms = 0;
    t->loop->timers--;
}

static void wakeup_fired(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop *l = arg;
    l->armed_tick = UINT64_MAX; /* the turn does the rest */
}

static void wakeup_arm(struct loop *l)
{
    if (l->timers == 0 || l->next_tick >= l->armed_tick) return;
    uint64_t at_ms = l->next_tick * TICK_MS, now_ms = loop_now_ms(l);
    uint64_t wait_ms = at_ms > now_ms ? at_ms - now_ms : 0;
    uint64_t longest_ms = WHEEL_SLOTS * TICK_MS;
    if (wait_ms > longest_ms) wait_ms = longest_ms;
    struct timeval tv = {.tv_sec = (time_t)(wait_ms / 1000), .tv_usec = (suseconds_t)(wait_ms % 1000 * 1000)};
    /* Out of memory for one heap entry: the next turn tries again; it cannot be long with traffic. */
    if (event_add(&l->wakeup, &tv) == 0) l->armed_tick = l->next_tick;
}

/* ---- tasks */

void task_init(struct task *t, struct loop *l, task_fn *fn)
{
    list_init(&t->link);
    t->fn = fn;
    t->loop = l;
}

void task_schedule(struct task *t)
{
    if (!list_linked(&t->link)) list_push_back(&t->loop->tasks, &t->link);
}

void task_cancel(struct task *t)
{
    list_remove(&t->link);
}

static void tasks_run(struct loop *l)
{
    for (unsigned round = 0; round < TASK_ROUNDS && !list_empty(&l->tasks); round++) {
        struct list batch;
        list_init(&batch);
        list_splice_back(&batch, &l->tasks);
        for (struct list *n; (n = list_pop_front(&batch));) {
            struct task *t = container_of(n, struct task, link);
            t->fn(t);
        }
    }
}

/* ---- watches */

static void watch_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    struct watch *w = arg;
    unsigned ready = 0;
    if (what & EV_READ) ready |= READY_READ;
    if (what & EV_WRITE) ready |= READY_WRITE;
    if (what & EV_CLOSED) ready |= READY_CLOSED;
    w->fn(w, ready); /* may free w */
}

void watch_init(struct watch *w, struct loop *l, watch_fn *fn)
{
    memset(&w->ev, 0, sizeof w->ev);
    w->fn = fn;
    w->loop = l;
    w->fd = -1;
}

enum err watch_start(struct watch *w, int fd)
{
    CHECK(w->fd < 0 && fd >= 0);
    short what = (short)(EV_READ | EV_WRITE | EV_CLOSED | EV_PERSIST | EV_ET);
    if (event_assign(&w->ev, w->loop->base, fd, what, watch_event, w) != 0) return ERR_INTERNAL;
    if (event_add(&w->ev, NULL) != 0) return ERR_NOMEM;
    w->fd = fd;
    return ERR_OK;
}

void watch_stop(struct watch *w)
{
    if (w->fd < 0) return;
    event_del(&w->ev);
    w->fd = -1;
}

/* ---- the loop */

static struct event_base *base_create(void)
{
    struct event_config *cfg = event_config_new();
    if (!cfg) return NULL;
    /* No locks: one thread. No timerfd: the wheel is coarser than epoll's milliseconds. */
    event_config_set_flag(cfg, EVENT_BASE_FLAG_NOLOCK);
    event_config_require_features(cfg, EV_FEATURE_ET | EV_FEATURE_O1 | EV_FEATURE_EARLY_CLOSE);
    struct event_base *base = event_base_new_with_config(cfg);
    event_config_free(cfg);
    return base;
}

enum err loop_create(struct loop **out)
{
    *out = NULL;
    struct loop *l = calloc(1, sizeof *l);
    if (!l) return ERR_NOMEM;
    l->magic = LOOP_MAGIC;
    l->base = base_create();
    if (!l->base) {
        free(l);
        return ERR_NOMEM;
    }
    list_init(&l->tasks);
    for (unsigned i = 0; i < WHEEL_SLOTS; i++) list_init(&l->slots[i]);
    evtimer_assign(&l->wakeup, l->base, wakeup_fired, l);
    l->wheel_tick = tick_now(l);
    l->next_tick = l->armed_tick = UINT64_MAX;
    *out = l;
    return ERR_OK;
}

void loop_destroy(struct loop *l)
{
    if (!l) return;
    CHECK_OBJ(l, LOOP_MAGIC);
    CHECK(!l->running && l->timers == 0 && list_empty(&l->tasks));
    event_del(&l->wakeup);
    event_base_free(l->base);
    l->magic = 0;
    free(l);
}

static void loop_turn(struct loop *l)
{
    int flags = EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY;
    if (!list_empty(&l->tasks)) flags |= EVLOOP_NONBLOCK;
    wakeup_arm(l);
    l->now_known = false;
    CHECK(event_base_loop(l->base, flags) >= 0);
    wheel_advance(l);
    tasks_run(l);
}

void loop_run(struct loop *l)
{
    CHECK_OBJ(l, LOOP_MAGIC);
    CHECK(!l->running && !current_loop);
    sigset_t pipe_only;
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, NULL);

    current_loop = l;
    l->running = true;
    l->stop = false;
    while (!l->stop) loop_turn(l);
    l->running = false;
    l->now_known = false;
    current_loop = NULL;
}

void loop_stop(struct loop *l)
{
    l->stop = true;
}

struct loop *loop_current(void)
{
    return current_loop;
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}
