/* slots.c - the shared count of open connections and the line of workers waiting for one.
 *
 * Invariant under the lock: somebody stands in line only while open == max, where open counts connections, connects under
 * way and granted slots not yet collected. Every one of those ends in a release, or becomes idle and is given up because
 * its owner sees that others wait; so nobody in line is forgotten.
 *
 * The line is of workers, not of calls: one place each, first come first served, and who still needs more after a grant
 * goes to its end. The lock is taken when connections are opened, closed or fought for, never on the way of a call over a
 * warm connection: there one atomic load says that nobody waits. */
#include "origin/slots.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define MEMBER_MAGIC 0x736c6d62u
/* A loaded worker keeps its connections for its own calls this long while others wait: each hand-over costs a connect. */
#define YIELD_AFTER_MS 50

struct slot_member {
    uint32_t magic;
    unsigned index;
    struct slots *slots;
    slots_wake_fn *wake;
    void *arg;
    struct mail mail;
    _Atomic unsigned spare; /* owner writes, those in line read */
    /* under the lock */
    struct mailbox *mailbox; /* NULL: not joined */
    struct list link;        /* in the line */
    uint64_t since_ms;       /* when it stepped into line */
    bool mail_queued;
    unsigned granted;
};

struct slots {
    uint64_t max;
    unsigned nmembers;
    _Atomic unsigned waiting; /* length of the line; written under the lock, read by anyone */
    _Atomic uint64_t open;    /* likewise */
    pthread_mutex_t lock;
    struct list line;
    struct slot_member members[];
};

enum err slots_create(uint64_t max, unsigned nworkers, struct slots **out)
{
    struct slots *s = calloc(1, sizeof *s + nworkers * sizeof s->members[0]);
    if (!s) return ERR_NOMEM;
    s->max = max ? max : 1;
    s->nmembers = nworkers;
    list_init(&s->line);
    if (pthread_mutex_init(&s->lock, NULL) != 0) {
        free(s);
        return ERR_NOMEM;
    }
    for (unsigned i = 0; i < nworkers; i++) {
        struct slot_member *m = &s->members[i];
        m->magic = MEMBER_MAGIC;
        m->index = i;
        m->slots = s;
        list_init(&m->link);
    }
    *out = s;
    return ERR_OK;
}

void slots_destroy(struct slots *s)
{
    CHECK(atomic_load(&s->open) == 0 && list_empty(&s->line));
    pthread_mutex_destroy(&s->lock);
    free(s);
}

uint64_t slots_open_any_thread(const struct slots *s)
{
    return atomic_load_explicit(&((struct slots *)s)->open, memory_order_relaxed);
}

static uint64_t now_ms(void) { return clock_ns() / 1000000; }

static void line_add_locked(struct slot_member *m)
{
    list_push_back(&m->slots->line, &m->link);
    m->since_ms = now_ms();
    atomic_fetch_add(&m->slots->waiting, 1);
}

static void line_remove_locked(struct slot_member *m)
{
    list_remove(&m->link);
    atomic_fetch_sub(&m->slots->waiting, 1);
}

/* Posting under the lock lets a leaving member be sure that no poster still touches its mailbox. */
static void member_post_locked(struct slot_member *m)
{
    if (m->mail_queued || !m->mailbox) return;
    m->mail_queued = true;
    mailbox_post_any_thread(m->mailbox, &m->mail);
}

static void member_mail(struct mail *mail)
{
    struct slot_member *m = container_of(mail, struct slot_member, mail);
    CHECK_OBJ(m, MEMBER_MAGIC);
    pthread_mutex_lock(&m->slots->lock);
    m->mail_queued = false;
    pthread_mutex_unlock(&m->slots->lock);
    m->wake(m->arg);
}

struct slot_member *slots_join(struct slots *s, unsigned index, struct mailbox *mb, slots_wake_fn *wake, void *arg)
{
    CHECK(index < s->nmembers);
    struct slot_member *m = &s->members[index];
    CHECK_OBJ(m, MEMBER_MAGIC);
    m->wake = wake;
    m->arg = arg;
    m->mail.fn = member_mail;
    atomic_store(&m->spare, 0);
    pthread_mutex_lock(&s->lock);
    CHECK(!m->mailbox && m->granted == 0);
    m->mailbox = mb;
    pthread_mutex_unlock(&s->lock);
    return m;
}

/* One slot is free: to the first in line (but `not`), or back to the count. */
static void slot_pass_on_locked(struct slots *s, const struct slot_member * not )
{
    for (struct list *n = s->line.next; n != &s->line; n = n->next) {
        struct slot_member *m = container_of(n, struct slot_member, link);
        if (m == not ) continue;
        line_remove_locked(m);
        m->granted++;
        member_post_locked(m);
        return;
    }
    struct slot_member *first = list_empty(&s->line) ? NULL : container_of(s->line.next, struct slot_member, link);
    if (first) { /* only `not` itself waits after all: the others have left the line in between */
        line_remove_locked(first);
        first->granted++;
        member_post_locked(first);
        return;
    }
    uint64_t open = atomic_load_explicit(&s->open, memory_order_relaxed);
    CHECK(open > 0);
    atomic_store_explicit(&s->open, open - 1, memory_order_relaxed);
}

bool slots_leave(struct slot_member *m)
{
    struct slots *s = m->slots;
    pthread_mutex_lock(&s->lock);
    if (list_linked(&m->link)) line_remove_locked(m);
    for (; m->granted; m->granted--) slot_pass_on_locked(s, m);
    bool gone = !m->mail_queued;
    if (gone) m->mailbox = NULL;
    pthread_mutex_unlock(&s->lock);
    return gone;
}

bool slots_acquire(struct slot_member *m)
{
    struct slots *s = m->slots;
    bool got = false;
    pthread_mutex_lock(&s->lock);
    uint64_t open = atomic_load_explicit(&s->open, memory_order_relaxed);
    if (open < s->max) {
        atomic_store_explicit(&s->open, open + 1, memory_order_relaxed);
        got = true;
    } else if (!list_linked(&m->link)) {
        line_add_locked(m); /* before looking at what others can spare: see slots_spare_set */
        for (unsigned i = 0; i < s->nmembers; i++) {
            struct slot_member *other = &s->members[i];
            if (other != m && atomic_load(&other->spare) > 0) member_post_locked(other);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return got;
}

unsigned slots_collect(struct slot_member *m)
{
    pthread_mutex_lock(&m->slots->lock);
    unsigned n = m->granted;
    m->granted = 0;
    pthread_mutex_unlock(&m->slots->lock);
    return n;
}

void slots_step_out(struct slot_member *m)
{
    if (atomic_load(&m->slots->waiting) == 0) return; /* m itself would be counted: it is not in line */
    pthread_mutex_lock(&m->slots->lock);
    if (list_linked(&m->link)) line_remove_locked(m);
    pthread_mutex_unlock(&m->slots->lock);
}

void slots_release(struct slot_member *m)
{
    pthread_mutex_lock(&m->slots->lock);
    slot_pass_on_locked(m->slots, NULL);
    pthread_mutex_unlock(&m->slots->lock);
}

void slots_release_to_other(struct slot_member *m)
{
    pthread_mutex_lock(&m->slots->lock);
    slot_pass_on_locked(m->slots, m);
    pthread_mutex_unlock(&m->slots->lock);
}

void slots_spare_set(struct slot_member *m, unsigned spare) { atomic_store(&m->spare, spare); }

bool slots_others_wait(struct slot_member *m)
{
    struct slots *s = m->slots;
    if (atomic_load(&s->waiting) == 0) return false;
    pthread_mutex_lock(&s->lock);
    unsigned n = atomic_load(&s->waiting) - (list_linked(&m->link) ? 1u : 0u);
    pthread_mutex_unlock(&s->lock);
    return n > 0;
}

bool slots_must_yield(struct slot_member *m)
{
    struct slots *s = m->slots;
    bool yield = false;
    if (atomic_load(&s->waiting) == 0) return false;
    pthread_mutex_lock(&s->lock);
    struct list *n = s->line.next;
    if (n == &m->link) n = n->next;
    if (n != &s->line) yield = now_ms() - container_of(n, struct slot_member, link)->since_ms >= YIELD_AFTER_MS;
    pthread_mutex_unlock(&s->lock);
    return yield;
}
