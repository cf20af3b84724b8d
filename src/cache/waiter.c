/* waiter.c - one-shot wake-ups from wherever a slice or object changes to the loop of the worker that waits.
 *
 * A waiter is linked under the shard's lock and posted (as a mail) under it; it becomes idle again on its own loop, when
 * the mail is delivered. Only the owner's thread cancels, so a posted waiter that was cancelled just finds its function
 * gone; one that was destroyed while posted is freed by the delivery. */
#include "cache/internal.h"

#include <stdlib.h>

static void waiter_delivered(struct mail *m)
{
    struct waiter *w = container_of(m, struct waiter, mail);

    if (w->orphan) {
        free(w);
        return;
    }
    bool cancelled = w->cancelled;
    w->cancelled = false;
    atomic_store(&w->state, WAITER_IDLE);
    if (!cancelled) w->fn(w->arg);
}

struct waiter *waiter_create(struct mailbox *mb, waiter_fn *fn, void *arg)
{
    struct waiter *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    w->mail.fn = waiter_delivered;
    w->mailbox = mb;
    w->fn = fn;
    w->arg = arg;
    list_init(&w->link);
    return w;
}

void waiter_cancel(struct waiter *w)
{
    if (atomic_load(&w->state) == WAITER_IDLE) return;
    pthread_mutex_lock(&w->shard->lock);
    if (atomic_load(&w->state) == WAITER_LINKED) {
        list_remove(&w->link);
        if (w->counter) atomic_fetch_sub(w->counter, 1);
        atomic_store(&w->state, WAITER_IDLE);
    } else {
        w->cancelled = true; /* the mail is on its way: it will find this mark */
    }
    pthread_mutex_unlock(&w->shard->lock);
}

void waiter_destroy(struct waiter *w)
{
    if (!w) return;
    waiter_cancel(w);
    if (atomic_load(&w->state) == WAITER_POSTED)
        w->orphan = true;
    else
        free(w);
}

bool waiter_pending(const struct waiter *w)
{
    return atomic_load(&w->state) != WAITER_IDLE && !w->cancelled;
}

void waiter_link_locked(struct waiter *w, struct shard *sh, struct list *l, _Atomic unsigned *counter, uint32_t want)
{
    int state = atomic_load(&w->state);
    if (state == WAITER_POSTED) {
        w->cancelled = false;
        return;
    }
    CHECK(state == WAITER_IDLE);
    w->shard = sh;
    w->counter = counter;
    w->want = want;
    atomic_store(&w->state, WAITER_LINKED);
    list_push_back(l, &w->link);
    if (counter) atomic_fetch_add(counter, 1);
}

void waiters_wake_locked(struct list *l, bool all, uint32_t filled)
{
    LIST_EACH_SAFE(n, tmp, l) {
        struct waiter *w = container_of(n, struct waiter, link);
        if (!all && w->want >= filled) continue;
        list_remove(&w->link);
        if (w->counter) atomic_fetch_sub(w->counter, 1);
        atomic_store(&w->state, WAITER_POSTED);
        mailbox_post_any_thread(w->mailbox, &w->mail);
    }
}
