/* mailbox.c - a lock-free stack of mails and an eventfd that wakes the loop.
 *
 * Posters push; the loop takes the whole stack with one exchange and turns it around, which restores the order of every
 * poster. Only the poster that found the stack empty wakes the loop. The eventfd is never read: in edge-triggered mode
 * every write is a new edge, and a counter of 64 bits does not fill.
 *
 * `posters` counts threads inside a post, so that the owner can wait for one that has already delivered its mail but not
 * yet left: without it, destroying the mailbox upon the last expected mail would race with the poster's wake-up. */
#include "io/mailbox.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"

#define MAILBOX_MAGIC 0x6d61696cu

struct mailbox {
    uint32_t magic;
    struct loop *loop;
    int wake_fd;
    struct watch watch;    /* posts of other threads */
    struct task own_posts; /* posts of the loop's own thread */
    bool delivering;
    _Alignas(64) _Atomic(struct mail *) head;
    atomic_uint posters;
};

static void mailbox_deliver(struct mailbox *mb)
{
    struct mail *newest_first = atomic_exchange_explicit(&mb->head, NULL, memory_order_acquire);
    struct mail *m = NULL;
    while (newest_first) {
        struct mail *next = newest_first->next;
        newest_first->next = m;
        m = newest_first;
        newest_first = next;
    }
    mb->delivering = true;
    while (m) {
        struct mail *next = m->next; /* the function may free or re-post the mail */
        m->fn(m);
        m = next;
    }
    mb->delivering = false;
}

static void on_wake(struct watch *w, unsigned ready)
{
    (void)ready;
    mailbox_deliver(container_of(w, struct mailbox, watch));
}

static void on_own_posts(struct task *t)
{
    mailbox_deliver(container_of(t, struct mailbox, own_posts));
}

enum err mailbox_create(struct loop *l, struct mailbox **out)
{
    *out = NULL;
    struct mailbox *mb = aligned_alloc(_Alignof(struct mailbox), sizeof *mb);
    if (!mb) return ERR_NOMEM;
    mb->magic = MAILBOX_MAGIC;
    mb->loop = l;
    mb->delivering = false;
    atomic_init(&mb->head, NULL);
    atomic_init(&mb->posters, 0);
    watch_init(&mb->watch, l, on_wake);
    task_init(&mb->own_posts, l, on_own_posts);
    mb->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (mb->wake_fd < 0) {
        free(mb);
        return ERR_IO;
    }
    enum err e = watch_start(&mb->watch, mb->wake_fd);
    if (e != ERR_OK) {
        close(mb->wake_fd);
        free(mb);
        return e;
    }
    *out = mb;
    return ERR_OK;
}

void mailbox_destroy(struct mailbox *mb)
{
    if (!mb) return;
    CHECK_OBJ(mb, MAILBOX_MAGIC);
    CHECK(!mb->delivering);
    do {
        while (atomic_load_explicit(&mb->posters, memory_order_acquire)) sched_yield();
        mailbox_deliver(mb);
    } while (atomic_load_explicit(&mb->head, memory_order_acquire) ||
             atomic_load_explicit(&mb->posters, memory_order_acquire));
    task_cancel(&mb->own_posts);
    watch_stop(&mb->watch);
    close(mb->wake_fd);
    mb->magic = 0;
    free(mb);
}

static void wake(struct mailbox *mb)
{
    if (loop_current() == mb->loop) {
        task_schedule(&mb->own_posts);
        return;
    }
    uint64_t one = 1;
    while (write(mb->wake_fd, &one, sizeof one) < 0) CHECK(errno == EINTR);
}

void mailbox_post_any_thread(struct mailbox *mb, struct mail *m)
{
    atomic_fetch_add_explicit(&mb->posters, 1, memory_order_relaxed);
    struct mail *old = atomic_load_explicit(&mb->head, memory_order_relaxed);
    do {
        m->next = old;
    } while (!atomic_compare_exchange_weak_explicit(&mb->head, &old, m, memory_order_release, memory_order_relaxed));
    if (!old) wake(mb);
    atomic_fetch_sub_explicit(&mb->posters, 1, memory_order_release);
}

struct loop *mailbox_loop(struct mailbox *mb)
{
    return mb->loop;
}
