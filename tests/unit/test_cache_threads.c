/* test_cache_threads.c - the cache with everything at once: readers, fillers, validators, purgers on several threads, a
 * cache far too small for them, and every byte compared with what its version should hold; waiters that are cancelled and
 * destroyed while they are woken. Build it with the thread sanitizer, too. */
#include "cache_support.h"

#ifdef __SANITIZE_THREAD__
#define REQUESTS 60
#else
#define REQUESTS 250
#endif
#define KEYS 6
#define ACTORS 6
#define THREADS 4
#define OBJECT_SLICES 7

static _Atomic uint64_t versions[KEYS];

struct thread {
    pthread_t thread;
    struct env env;
    struct cache *cache;
    uint64_t seed;
    unsigned index, jobs, actors;
    struct actor *all;
    uint64_t reads, verified, failures;
};
/* A filler: one slice, written bit by bit. */
struct job {
    struct task task;
    struct thread *t;
    struct object *o;
    struct meta *m;
    struct slice *s;
    uint64_t index;
    unsigned key;
};
struct actor {
    struct thread *t;
    struct waiter *w;
    struct timer timer;
    struct task task;
    struct object *o;
    struct meta *m;
    struct slice *cur;
    struct list reserve;
    uint64_t pos, end;
    unsigned key, left, tries;
};

static uint64_t rnd(struct thread *t)
{
    uint64_t z = t->seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    return (z ^ z >> 27) >> 7;
}

static uint8_t byte_at(unsigned key, uint64_t version, uint64_t off)
{
    return (uint8_t)((off ^ off >> 8 ^ off >> 16) * 7 + version * 31 + key * 13);
}

static void actor_go(struct actor *a);

static void thread_maybe_stop(struct thread *t)
{
    if (t->jobs == 0 && t->actors == 0) loop_stop(t->env.loop);
}

static void job_step(struct task *task)
{
    struct job *j = container_of(task, struct job, task);
    struct thread *t = j->t;
    uint32_t from = slice_filled(j->s), length = slice_length(j->s), n = (uint32_t)(rnd(t) % 30000 + 1);
    struct iovec iov[16];

    if (n > length - from) n = length - from;
    if (rnd(t) % 40 == 0) {
        slice_fail(j->s, rnd(t) % 2 ? ERR_AGAIN : ERR_RESET);
    } else {
        unsigned k = memory_iov(cache_memory(t->cache), slice_extent(j->s), from, n, iov, 16);
        uint64_t off = j->index * SS + from;
        for (unsigned i = 0; i < k; i++)
            for (size_t b = 0; b < iov[i].iov_len; b++)
                ((uint8_t *)iov[i].iov_base)[b] = byte_at(j->key, version_of(j->m), off++);
        slice_progress(j->s, from + n);
    }
    if (slice_state(j->s) == SLICE_FILLING) {
        task_schedule(&j->task);
        return;
    }
    slice_unref(j->s);
    object_unref(j->o);
    meta_unref(j->m);
    free(j);
    t->jobs--;
    thread_maybe_stop(t);
}

static void job_start(struct actor *a, struct object *o, struct meta *m, struct slice *s, uint64_t index)
{
    struct job *j = calloc(1, sizeof *j);
    assert_non_null(j);
    *j = (struct job){.t = a->t, .o = object_ref(o), .m = meta_ref(m), .s = s, .index = index, .key = a->key};
    if (rnd(a->t) % 8) reserve_add(&a->reserve, s);
    task_init(&j->task, a->t->env.loop, job_step);
    task_schedule(&j->task);
    a->t->jobs++;
}

static void actor_drop(struct actor *a)
{
    waiter_cancel(a->w);
    timer_stop(&a->timer);
    reserve_settle(&a->reserve, UINT64_MAX);
    if (a->cur) slice_unref(a->cur);
    a->cur = NULL;
    if (a->o && a->m) object_reader_leave(a->o);
    object_unref(a->o);
    meta_unref(a->m);
    a->o = NULL;
    a->m = NULL;
}

static void actor_next(struct actor *a)
{
    actor_drop(a);
    if (--a->left > 0) {
        if (rnd(a->t) % 4 == 0) { /* some waiters are destroyed while their mail is on its way */
            waiter_destroy(a->w);
            a->w = waiter_create(a->t->env.mb, (waiter_fn *)actor_go, a);
            assert_non_null(a->w);
        }
        task_schedule(&a->task);
        return;
    }
    waiter_destroy(a->w);
    a->w = NULL;
    a->t->actors--;
    thread_maybe_stop(a->t);
}

static struct meta *actor_discover(struct actor *a)
{
    uint64_t size = (rnd(a->t) % OBJECT_SLICES) * SS + rnd(a->t) % SS;
    return meta_new(size, atomic_load(&versions[a->key]));
}

static void actor_publish(struct actor *a, struct object *o)
{
    struct slice *s[4];
    struct meta *m = actor_discover(a);
    unsigned n = (unsigned)(rnd(a->t) % 4);

    meta_ref(m);
    assert_int_equal(object_publish(o, m, 0, &n, s), ERR_OK);
    for (unsigned i = 0; i < n; i++) job_start(a, o, m, s[i], i);
    meta_unref(m);
}

static void actor_lead(struct actor *a)
{
    switch (rnd(a->t) % 10) {
    case 0: object_fail(a->o, NULL); break;
    case 1: object_mark_uncacheable(a->o, 0, 0); break;
    default: actor_publish(a, a->o);
    }
}

/* A new version takes the old one's place. */
static void actor_replace(struct actor *a)
{
    struct object *next;

    if (!object_validate_begin(a->o)) return;
    if (rnd(a->t) % 2) {
        struct meta *old = object_meta(a->o), *same = meta_new(object_size(a->o), version_of(old));
        object_validate_end(a->o, same);
        meta_unref(old);
        return;
    }
    assert_int_equal(object_create_successor(a->o, &next), ERR_OK);
    atomic_fetch_add(&versions[a->key], 1);
    if (rnd(a->t) % 4)
        actor_publish(a, next);
    else
        object_fail(next, NULL);
    object_validate_end(a->o, NULL);
    object_unref(next);
}

static void actor_begin(struct actor *a)
{
    char name[16];
    bool created;

    a->key = (unsigned)(rnd(a->t) % KEYS);
    a->tries = 0;
    struct cache_key k = {.base = str_make(name, (size_t)snprintf(name, sizeof name, "key%u", a->key))};
    a->o = object_get(a->t->cache, &k, &created);
    if (created) actor_lead(a);
    actor_go(a);
}

static void actor_task(struct task *t) { actor_begin(container_of(t, struct actor, task)); }
static void actor_timer(struct timer *t) { actor_go(container_of(t, struct actor, timer)); }

/* Bytes that are there are those of the object's version. */
static void actor_verify(struct actor *a, uint32_t to)
{
    struct iovec iov[16];
    uint32_t in = (uint32_t)(a->pos % SS);
    unsigned k = memory_iov(cache_memory(a->t->cache), slice_extent(a->cur), in, to - in, iov, 16);

    for (unsigned i = 0; i < k; i++)
        for (size_t b = 0; b < iov[i].iov_len; b += 61, a->t->verified++)
            if (((uint8_t *)iov[i].iov_base)[b] != byte_at(a->key, version_of(a->m), a->pos + b)) {
                a->t->failures++;
                return;
            } else if (b + 61 >= iov[i].iov_len) {
                a->pos += iov[i].iov_len;
                break;
            }
}

/* False: it waits, or is over. */
static bool actor_lease(struct actor *a)
{
    uint64_t index = a->pos / SS;

    while (!(a->cur = object_lease(a->o, index, true))) {
        struct slice *s;
        enum err e = object_claim(a->o, index, true, &s);
        if (e == ERR_OK) {
            job_start(a, a->o, a->m, s, index);
        } else if (e == ERR_NOMEM) {
            reserve_settle(&a->reserve, UINT64_MAX);
            if (++a->tries > 50)
                actor_next(a);
            else
                timer_set(&a->timer, 5);
            return false;
        }
        while (index + 1 < (a->end + SS - 1) / SS && rnd(a->t) % 3 && object_claim(a->o, ++index, false, &s) == ERR_OK)
            job_start(a, a->o, a->m, s, index);
        index = a->pos / SS;
    }
    return true;
}

static void actor_read(struct actor *a)
{
    while (a->pos < a->end) {
        if (!a->cur && !actor_lease(a)) return;
        uint32_t in = (uint32_t)(a->pos % SS), filled = slice_filled(a->cur);
        if (filled > in) {
            actor_verify(a, filled);
            if (a->t->failures || rnd(a->t) % 60 == 0) break; /* a client that leaves */
        } else if (slice_state(a->cur) != SLICE_DEAD && slice_wait(a->cur, in, a->w)) {
            if (rnd(a->t) % 50 == 0) break; /* leaves while it waits */
            return;
        } else if (slice_state(a->cur) == SLICE_DEAD) {
            slice_unref(a->cur);
            a->cur = NULL;
        }
        if (a->cur && a->pos % SS == 0) {
            reserve_settle(&a->reserve, a->pos / SS);
            slice_unref(a->cur);
            a->cur = NULL;
        }
    }
    a->t->reads++;
    actor_next(a);
}

static void actor_go(struct actor *a)
{
    switch (object_state(a->o)) {
    case OBJECT_NEW:
        if (!object_wait(a->o, a->w)) actor_go(a); /* not NEW any more */
        return;
    case OBJECT_READY: break;
    default:
        object_drop(a->o);
        actor_next(a);
        return;
    }
    if (!a->m) {
        if (rnd(a->t) % 10 == 0) actor_replace(a);
        a->m = object_meta(a->o);
        a->pos = 0;
        a->end = object_size(a->o);
        object_reader_enter(a->o);
    }
    actor_read(a);
}

static void *thread_main(void *arg)
{
    struct thread *t = arg;
    struct actor actors[ACTORS] = {0};

    env_open(&t->env);
    t->actors = ACTORS;
    for (unsigned i = 0; i < ACTORS; i++) {
        struct actor *a = &actors[i];
        a->t = t;
        a->left = REQUESTS;
        a->w = waiter_create(t->env.mb, (waiter_fn *)actor_go, a);
        list_init(&a->reserve);
        timer_init(&a->timer, t->env.loop, actor_timer);
        task_init(&a->task, t->env.loop, actor_task);
        task_schedule(&a->task);
    }
    loop_run(t->env.loop);
    env_close(&t->env);
    return NULL;
}

static _Atomic bool purging;

static void *purger_main(void *arg)
{
    struct cache *c = arg;
    char name[16];

    for (unsigned i = 0; atomic_load(&purging); i++) {
        unsigned key = i % KEYS;
        struct str base = str_make(name, (size_t)snprintf(name, sizeof name, "key%u", key));
        atomic_fetch_add(&versions[key], 1);
        if (i % 16 == 0)
            cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
        else
            cache_purge(c, i % 5 ? PURGE_BASE : PURGE_PREFIX, base);
        struct cache_stats s = stats_of(c);
        assert_true(s.used <= s.capacity);
        struct timespec ts = {.tv_nsec = 300000};
        nanosleep(&ts, NULL);
    }
    return NULL;
}

static void readers_fillers_purgers_and_evictors_never_mix_bytes(void **state)
{
    (void)state;
    static struct thread threads[THREADS];
    struct cache *c = cache_new(16, 100);
    pthread_t purger;

    atomic_store(&purging, true);
    assert_int_equal(pthread_create(&purger, NULL, purger_main, c), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        threads[i] = (struct thread){.cache = c, .index = i, .seed = 1000 + i};
        assert_int_equal(pthread_create(&threads[i].thread, NULL, thread_main, &threads[i]), 0);
    }
    uint64_t reads = 0, verified = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i].thread, NULL);
        assert_int_equal(threads[i].failures, 0);
        reads += threads[i].reads;
        verified += threads[i].verified;
    }
    atomic_store(&purging, false);
    pthread_join(purger, NULL);
    assert_true(reads > THREADS * ACTORS * REQUESTS / 4 && verified > 100000);
    assert_true(stats_of(c).evictions > 100);
    cache_end(c);
}

/* ---- waiters against fillers on other threads ---- */

struct race {
    struct object *o;
    _Atomic bool over;
};

static void *race_filler(void *arg)
{
    struct race *r = arg;

    while (!atomic_load(&r->over)) {
        struct slice *s;
        if (object_claim(r->o, 0, true, &s) != ERR_OK) continue;
        for (uint32_t n = 1; n < 2000; n += 3) slice_progress(s, n);
        slice_fail(s, ERR_AGAIN);
        slice_unref(s);
    }
    return NULL;
}

struct racer {
    struct env env;
    struct race *race;
    struct waiter *w;
    struct timer timer, watchdog;
    struct task task;
    struct slice *cur;
    uint64_t seed;
    unsigned woken, lost, left;
};

static void racer_go(void *arg);
static void racer_late(struct timer *t)
{
    struct racer *r = container_of(t, struct racer, watchdog);
    r->lost++;
    racer_go(r);
}

static void racer_task(struct task *t) { racer_go(container_of(t, struct racer, task)); }

static void racer_go(void *arg)
{
    struct racer *r = arg;

    timer_stop(&r->watchdog);
    r->woken++;
    if (r->cur) slice_unref(r->cur);
    if (--r->left == 0) {
        waiter_destroy(r->w);
        loop_stop(r->env.loop);
        return;
    }
    r->cur = object_lease(r->race->o, 0, false);
    if (!r->cur || !slice_wait(r->cur, slice_filled(r->cur), r->w)) {
        task_schedule(&r->task);
        return;
    }
    r->seed = r->seed * 6364136223846793005u + 1442695040888963407u;
    switch (r->seed >> 60) {
    case 0:
        waiter_cancel(r->w);
        task_schedule(&r->task);
        return;
    case 1:
        waiter_destroy(r->w);
        r->w = waiter_create(r->env.mb, racer_go, r);
        task_schedule(&r->task);
        return;
    default: timer_set(&r->watchdog, 5000);
    }
}

static void *racer_main(void *arg)
{
    struct racer *r = arg;
    env_open(&r->env);
    r->w = waiter_create(r->env.mb, racer_go, r);
    task_init(&r->task, r->env.loop, racer_task);
    timer_init(&r->watchdog, r->env.loop, racer_late);
    task_schedule(&r->task);
    loop_run(r->env.loop);
    timer_stop(&r->watchdog);
    env_close(&r->env);
    return NULL;
}

static void no_wake_up_is_lost_to_cancels_and_destroys(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct race race = {.o = object_put(c, KEY("k"), SS)};
    struct racer r[2] = {{.race = &race, .seed = 1, .left = 4000}, {.race = &race, .seed = 2, .left = 4000}};
    pthread_t f, t[2];

    assert_int_equal(pthread_create(&f, NULL, race_filler, &race), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, racer_main, &r[i]), 0);
    for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
    atomic_store(&race.over, true);
    pthread_join(f, NULL);
    assert_int_equal(r[0].lost + r[1].lost, 0);
    object_unref(race.o);
    cache_end(c);
}

#define T(f) cmocka_unit_test(f)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(no_wake_up_is_lost_to_cancels_and_destroys),
        T(readers_fillers_purgers_and_evictors_never_mix_bytes),
    };
    if (hash_init() != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
