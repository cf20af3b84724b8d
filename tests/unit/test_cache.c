/* test_cache.c - objects, slices, waiters, streams and bounds of the cache: first one thing at a time on one loop, then
 * everything at once: readers, fillers, validators, purgers on several threads, a cache far too small for them, and every
 * byte compared with what its version should hold. Build it with the thread sanitizer, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/cache.h"
#include "io/loop.h"
#include "io/mailbox.h"

#define SS 65536u
#ifdef __SANITIZE_THREAD__
#define REQUESTS 60
#define HUGE_BYTES (UINT64_C(5) << 34) /* memory that nobody touches is not free there */
#else
#define REQUESTS 250
#define HUGE_BYTES (UINT64_C(5) << 40)
#endif
#define KEY(s) (&(struct cache_key){.base = STR_LIT(s)})

/* ---- support ---- */

static struct cache *cache_new(unsigned slices, uint64_t max_objects)
{
    struct cache_options o = {.memory_bytes = (uint64_t)slices * SS, .max_objects = max_objects, .slice_bytes = SS};
    struct cache *c;
    char msg[256];
    assert_int_equal(cache_create(&o, &c, msg, sizeof msg), ERR_OK);
    return c;
}

static struct cache_stats stats_of(struct cache *c)
{
    struct cache_stats s;
    cache_get_stats(c, &s);
    return s;
}

/* Nothing is left but what is in the index, and after a purge nothing at all. */
static void cache_end(struct cache *c)
{
    cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
    struct cache_stats s = stats_of(c);
    assert_int_equal(s.objects, 0);
    assert_int_equal(s.slices, 0);
    assert_int_equal(s.reserved_bytes, 0);
    assert_int_equal(s.used, 0);
    cache_destroy(c);
}

static struct meta *meta_new(uint64_t size, uint64_t version)
{
    struct meta *m = calloc(1, sizeof *m);
    assert_non_null(m);
    atomic_init(&m->refs, 1);
    m->size = size;
    m->user = malloc(sizeof version);
    assert_non_null(m->user);
    memcpy(m->user, &version, sizeof version);
    m->user_free = free;
    return m;
}

static uint64_t version_of(const struct meta *m)
{
    uint64_t v;
    memcpy(&v, m->user, sizeof v);
    return v;
}

static struct object *object_get(struct cache *c, const struct cache_key *k, bool *created)
{
    struct object *o;
    assert_int_equal(cache_find_or_create(c, k, NULL, NULL, &o, created), ERR_OK);
    return o;
}

static struct object *object_put(struct cache *c, const struct cache_key *k, uint64_t size)
{
    bool created;
    unsigned n = 0;
    struct object *o = object_get(c, k, &created);
    assert_true(created);
    assert_int_equal(object_publish(o, meta_new(size, 1), 0, &n, NULL), ERR_OK);
    return o;
}

static struct slice *claim(struct object *o, uint64_t index)
{
    struct slice *s;
    assert_int_equal(object_claim(o, index, true, &s), ERR_OK);
    return s;
}

static void fill(struct object *o, uint64_t index)
{
    struct slice *s = claim(o, index);
    slice_progress(s, slice_length(s));
    slice_unref(s);
}

struct env {
    struct loop *loop;
    struct mailbox *mb;
    int calls;
};

static void env_open(struct env *e)
{
    *e = (struct env){0};
    assert_int_equal(loop_create(&e->loop), ERR_OK);
    assert_int_equal(mailbox_create(e->loop, &e->mb), ERR_OK);
}

static void env_close(struct env *e)
{
    mailbox_destroy(e->mb);
    loop_destroy(e->loop);
}

static void stop_now(struct timer *t) { loop_stop(t->loop); }

static void env_run(struct env *e, uint64_t ms)
{
    struct timer t;
    timer_init(&t, e->loop, stop_now);
    timer_set(&t, ms);
    loop_run(e->loop);
}

static void count_call(void *arg) { ((struct env *)arg)->calls++; }

/* ---- waiters ---- */

static void a_waiter_is_called_once_and_can_be_used_again(void **state)
{
    (void)state;
    struct env e;
    env_open(&e);
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 3 * SS);
    struct slice *s = claim(o, 0);
    struct waiter *w = waiter_create(e.mb, count_call, &e);

    assert_true(slice_wait(s, 0, w));
    assert_true(waiter_pending(w));
    slice_progress(s, 10);
    slice_progress(s, 20);
    env_run(&e, 10);
    assert_int_equal(e.calls, 1);
    assert_false(waiter_pending(w));
    assert_true(slice_wait(s, 20, w));
    slice_progress(s, 20); /* nothing new */
    env_run(&e, 10);
    assert_int_equal(e.calls, 1);
    slice_progress(s, SS);
    env_run(&e, 10);
    assert_int_equal(e.calls, 2);
    assert_false(slice_wait(s, SS - 1, w)); /* nothing to wait for */

    waiter_destroy(w);
    slice_unref(s);
    object_unref(o);
    cache_end(c);
    env_close(&e);
}

static void a_cancelled_waiter_is_not_called(void **state)
{
    (void)state;
    struct env e;
    env_open(&e);
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), SS);
    struct slice *s = claim(o, 0);
    struct waiter *w = waiter_create(e.mb, count_call, &e);

    assert_true(slice_wait(s, 0, w));
    waiter_cancel(w);
    slice_progress(s, 1);
    env_run(&e, 10);
    assert_int_equal(e.calls, 0);

    assert_true(slice_wait(s, 1, w));
    slice_progress(s, 2);
    waiter_cancel(w); /* its mail is on its way */
    assert_false(waiter_pending(w));
    env_run(&e, 10);
    assert_int_equal(e.calls, 0);

    assert_true(slice_wait(s, 2, w));
    slice_progress(s, 3);
    waiter_cancel(w);
    assert_true(slice_wait(s, 3, w)); /* the mail on its way will do */
    env_run(&e, 10);
    assert_int_equal(e.calls, 1);

    assert_true(slice_wait(s, 3, w));
    slice_progress(s, 4);
    waiter_destroy(w); /* while posted: freed by the delivery */
    env_run(&e, 10);
    assert_int_equal(e.calls, 1);

    slice_fail(s, ERR_AGAIN);
    slice_unref(s);
    object_unref(o);
    cache_end(c);
    env_close(&e);
}

static void everyone_wakes_when_a_slice_dies_or_is_done(void **state)
{
    (void)state;
    struct env e;
    env_open(&e);
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 2 * SS);
    struct waiter *w[6];

    for (int round = 0; round < 2; round++) {
        struct slice *s = claim(o, (uint64_t)round);
        e.calls = 0;
        for (int i = 0; i < 6; i++) {
            w[i] = waiter_create(e.mb, count_call, &e);
            assert_true(slice_wait(s, (uint32_t)i * 1000, w[i]));
        }
        if (round)
            slice_progress(s, SS);
        else
            slice_fail(s, ERR_RESET);
        env_run(&e, 10);
        assert_int_equal(e.calls, 6);
        assert_int_equal(slice_error(s), round ? ERR_OK : ERR_RESET);
        for (int i = 0; i < 6; i++) waiter_destroy(w[i]);
        slice_unref(s);
    }
    object_unref(o);
    cache_end(c);
    env_close(&e);
}

/* ---- objects ---- */

static void publishing_claims_before_anybody_can(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    bool created;
    struct object *o = object_get(c, KEY("k"), &created), *other;
    struct slice *s[8], *more;
    unsigned n = 8;

    assert_true(created);
    other = object_get(c, KEY("k"), &created);
    assert_false(created);
    assert_ptr_equal(o, other);
    assert_int_equal(object_publish(o, meta_new(3 * SS + 7, 1), 1, &n, s), ERR_OK);
    assert_int_equal(n, 3);
    assert_int_equal(object_claim(o, 1, true, &more), ERR_AGAIN);
    assert_int_equal(object_claim(o, 3, true, &more), ERR_AGAIN);
    assert_int_equal(slice_length(s[0]), SS);
    assert_int_equal(slice_length(s[2]), 7);
    for (unsigned i = 0; i < n; i++) {
        slice_progress(s[i], slice_length(s[i]));
        slice_unref(s[i]);
    }
    uint64_t ready, absent;
    object_count(o, 1, 3, &ready, &absent);
    assert_int_equal(ready, 3);
    assert_int_equal(absent, 0);
    object_count(o, 0, 99, &ready, &absent);
    assert_int_equal(absent, 1);
    object_unref(o);
    object_unref(other);
    cache_end(c);
}

static void sizes_around_a_slice_have_the_right_slices(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {0, 1, SS - 1, SS, SS + 1, 8 * SS};
    struct cache *c = cache_new(16, 100);

    for (unsigned i = 0; i < ARRAY_LEN(sizes); i++) {
        bool created;
        unsigned n = 16;
        struct slice *s[16];
        struct object *o = object_get(c, KEY("k"), &created);
        assert_int_equal(object_publish(o, meta_new(sizes[i], 1), 0, &n, s), ERR_OK);
        assert_int_equal(n, (sizes[i] + SS - 1) / SS);
        uint64_t sum = 0;
        for (unsigned k = 0; k < n; k++) {
            sum += slice_length(s[k]);
            slice_fail(s[k], ERR_AGAIN);
            slice_unref(s[k]);
        }
        assert_int_equal(sum, sizes[i]);
        object_drop(o);
        object_unref(o);
    }
    cache_end(c);
}

/* An object of 5 TiB costs what is there of it, and one of absurd size is refused. */
static void huge_objects_are_cheap_and_absurd_ones_refused(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    uint64_t size = HUGE_BYTES, ready, absent, from = clock_ns();
    struct object *o = object_put(c, KEY("k"), size);

    object_count(o, 0, size / SS - 1, &ready, &absent);
    assert_int_equal(absent, size / SS);
    fill(o, 0);
    fill(o, size / SS - 1);
    object_count(o, 0, size / SS - 1, &ready, &absent);
    assert_true(ready > 0 && absent > 0);
    object_drop(o);
    object_unref(o);
    assert_true(clock_ns() - from < UINT64_C(200) * 1000000); /* walking the table took seconds */

    bool created;
    unsigned n = 0;
    struct meta *m = meta_new(INT64_MAX, 1);
    o = object_get(c, KEY("l"), &created);
    assert_int_equal(object_publish(o, m, 0, &n, NULL), ERR_NOMEM);
    assert_int_equal(object_state(o), OBJECT_NEW);
    object_fail(o, NULL);
    meta_unref(m);
    object_unref(o);
    cache_end(c);
}

static void what_was_dropped_while_new_stays_out(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    bool created;
    unsigned n = 0;
    struct object *o = object_get(c, KEY("k"), &created), *p;

    assert_int_equal(cache_purge(c, PURGE_BASE, STR_LIT("k")), 1);
    assert_int_equal(object_publish(o, meta_new(SS, 1), 0, &n, NULL), ERR_OK);
    assert_false(object_indexed(o));
    assert_null(cache_find(c, KEY("k"), NULL, NULL));
    p = object_get(c, KEY("k"), &created);
    assert_true(created);
    object_fail(p, NULL);
    object_unref(p);
    object_unref(o);
    cache_end(c);
}

static void a_successor_takes_the_place_unless_a_write_came_between(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);

    for (int write = 0; write < 2; write++) {
        struct object *old = object_put(c, KEY("k"), SS), *next, *found;
        unsigned n = 0;
        fill(old, 0);
        assert_true(object_validate_begin(old));
        assert_false(object_validate_begin(old));
        assert_int_equal(object_create_successor(old, &next), ERR_OK);
        if (write) cache_purge(c, PURGE_BASE, STR_LIT("k"));
        assert_int_equal(object_publish(next, meta_new(2 * SS, 2), 0, &n, NULL), ERR_OK);
        object_validate_end(old, NULL);
        assert_false(object_indexed(old));
        assert_int_equal(object_indexed(next), !write);
        found = cache_find(c, KEY("k"), NULL, NULL);
        assert_ptr_equal(found, write ? NULL : next);
        object_unref(found);
        object_drop(next);
        object_unref(next);
        object_unref(old);
    }
    cache_end(c);
}

static void waiters_for_an_object_are_told_of_every_end(void **state)
{
    (void)state;
    struct env e;
    env_open(&e);
    struct cache *c = cache_new(16, 100);
    struct waiter *w = waiter_create(e.mb, count_call, &e);
    bool created;

    for (int how = 0; how < 4; how++) {
        struct object *o = object_get(c, KEY("k"), &created);
        unsigned n = 0;
        e.calls = 0;
        assert_true(object_wait(o, w));
        assert_true(object_has_waiters(o));
        if (how == 0) object_fail(o, meta_new(0, 7));
        if (how == 1) object_mark_uncacheable(o, 1000, 500);
        if (how >= 2) object_publish(o, meta_new(SS, 1), 0, &n, NULL);
        if (how == 3) {
            env_run(&e, 10);
            assert_false(object_wait(o, w));
            assert_true(object_validate_begin(o));
            assert_true(object_wait(o, w));
            object_validate_end(o, meta_new(SS, 9));
        }
        env_run(&e, 10);
        assert_int_equal(e.calls, how == 3 ? 2 : 1);
        assert_false(object_has_waiters(o));
        if (how == 0) {
            struct meta *f = object_failure(o);
            assert_int_equal(version_of(f), 7);
            meta_unref(f);
        }
        if (how == 1) {
            assert_false(object_uncacheable_expired(o, 1499));
            assert_true(object_uncacheable_expired(o, 1500));
        }
        object_drop(o);
        object_unref(o);
    }
    waiter_destroy(w);
    cache_end(c);
    env_close(&e);
}

/* ---- bounds and purges ---- */

static void objects_are_bounded_although_old_ones_are_held(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 64); /* two in every shard */
    static struct object *held[1000];
    char name[32];

    for (unsigned i = 0; i < 10000; i++) {
        struct cache_key k = {.base = str_make(name, (size_t)snprintf(name, sizeof name, "o%u", i))};
        struct object *o = object_put(c, &k, SS);
        if (i < ARRAY_LEN(held))
            held[i] = o;
        else
            object_unref(o);
    }
    /* At least as many are held; of the others hardly more than the bound may be left. */
    assert_true(stats_of(c).objects <= ARRAY_LEN(held) + 2 * 64);
    for (unsigned i = 0; i < ARRAY_LEN(held); i++) object_unref(held[i]);
    for (unsigned i = 0; i < 3000; i++) {
        struct cache_key k = {.base = str_make(name, (size_t)snprintf(name, sizeof name, "p%u", i))};
        object_unref(object_put(c, &k, SS));
    }
    assert_true(stats_of(c).objects <= ARRAY_LEN(held) + 2 * 64);
    cache_end(c);
}

static void purges_take_what_they_name(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 10000);
    char name[32];

    for (unsigned i = 0; i < 1000; i++) {
        struct cache_key k = {.base = str_make(name, (size_t)snprintf(name, sizeof name, "%c/%u", i % 2 ? 'a' : 'b', i))};
        object_unref(object_put(c, &k, SS));
    }
    for (unsigned i = 0; i < 3; i++) {
        struct cache_key k = {.base = STR_LIT("a/1"), .variant = str_make("uvw" + i, 1)};
        object_unref(object_put(c, &k, SS));
    }
    assert_int_equal(cache_purge(c, PURGE_BASE, STR_LIT("a/1")), 4);
    assert_int_equal(cache_purge(c, PURGE_BASE, STR_LIT("a/1")), 0);
    assert_int_equal(cache_purge(c, PURGE_PREFIX, STR_LIT("a/")), 499);
    assert_int_equal(stats_of(c).objects, 500);
    assert_int_equal(cache_purge(c, PURGE_PREFIX, STR_LIT("b/99")), 5); /* 990, 992 .. 998 */
    assert_int_equal(cache_purge(c, PURGE_ALL, (struct str){NULL, 0}), 495);
    cache_end(c);
}

static void slices_outlive_their_object_in_the_hands_of_a_reader(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), SS);
    struct iovec iov[4];

    struct slice *s = claim(o, 0);
    assert_int_equal(memory_iov(cache_memory(c), slice_extent(s), 0, SS, iov, 4), 1);
    memset(iov[0].iov_base, 'x', SS);
    slice_progress(s, SS);
    object_unref(o);
    cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
    struct object *p = object_put(c, KEY("p"), 64 * SS);
    for (unsigned i = 0; i < 15; i++) fill(p, i); /* all other memory is written anew */
    assert_int_equal(((char *)iov[0].iov_base)[SS - 1], 'x');
    slice_unref(s);
    object_unref(p);
    cache_end(c);
}

/* ---- memory ---- */

static void leased_slices_are_not_evicted(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 100 * SS);
    struct slice *held[16], *s;

    for (unsigned i = 0; i < 16; i++) {
        fill(o, i);
        held[i] = object_lease(o, i, true);
        assert_non_null(held[i]);
    }
    assert_int_equal(object_claim(o, 50, true, &s), ERR_NOMEM);
    slice_unref(held[3]);
    fill(o, 50);
    assert_null(object_lease(o, 3, false));
    for (unsigned i = 0; i < 16; i++)
        if (i != 3) slice_unref(held[i]);
    object_unref(o);
    cache_end(c);
}

static void a_reserve_is_kept_until_its_reader_has_passed(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 1000 * SS);
    struct list reserve;
    struct slice *s;

    list_init(&reserve);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(object_claim(o, i, false, &s), ERR_OK);
        reserve_add(&reserve, s);
        slice_progress(s, SS);
        slice_unref(s);
    }
    assert_int_equal(stats_of(c).reserved_bytes, 8 * SS);
    assert_int_equal(object_claim(o, 8, false, &s), ERR_NOMEM); /* half is read-ahead's share */
    for (unsigned i = 100; i < 300; i++) fill(o, i);
    for (unsigned i = 0; i < 8; i++) {
        s = object_lease(o, i, true);
        assert_non_null(s);
        slice_unref(s);
    }
    reserve_settle(&reserve, 3);
    assert_int_equal(stats_of(c).reserved_bytes, 5 * SS);
    s = claim(o, 9);
    reserve_add(&reserve, s);
    slice_fail(s, ERR_RESET); /* dead in the reserve */
    slice_unref(s);
    object_drop(o);
    object_unref(o); /* with its slices still in the reserve */
    reserve_settle(&reserve, UINT64_MAX);
    assert_true(list_empty(&reserve));
    cache_end(c);
}

/* The file's order of claiming is not always that of the slices: what was lost is claimed again, late. */
static void a_reserve_out_of_order_is_let_go_in_the_end(void **state)
{
    (void)state;
    static const uint64_t order[] = {5, 6, 7, 2, 8};
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 100 * SS);
    struct list reserve;

    list_init(&reserve);
    for (unsigned i = 0; i < ARRAY_LEN(order); i++) {
        struct slice *s = claim(o, order[i]);
        reserve_add(&reserve, s);
        slice_progress(s, SS);
        slice_unref(s);
    }
    reserve_settle(&reserve, 3);
    assert_int_equal(stats_of(c).reserved_bytes, 5 * SS);
    reserve_settle(&reserve, 8);
    assert_int_equal(stats_of(c).reserved_bytes, SS);
    reserve_settle(&reserve, 9);
    assert_int_equal(stats_of(c).reserved_bytes, 0);
    object_unref(o);
    cache_end(c);
}

static void publishing_leaves_memory_to_other_readers(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    bool created;
    struct slice *s[32], *more;
    unsigned n = 32;
    struct object *o = object_get(c, KEY("k"), &created), *p = object_put(c, KEY("p"), SS);

    assert_int_equal(object_publish(o, meta_new(100 * SS, 1), 0, &n, s), ERR_OK);
    assert_int_equal(n, 8);
    assert_int_equal(object_claim(p, 0, true, &more), ERR_OK);
    slice_fail(more, ERR_AGAIN);
    slice_unref(more);
    for (unsigned i = 0; i < n; i++) {
        slice_fail(s[i], ERR_AGAIN);
        slice_unref(s[i]);
    }
    object_unref(o);
    object_unref(p);
    cache_end(c);
}

static void private_slices_are_forgotten_behind_their_reader(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct object *o;
    unsigned n = 0;

    assert_int_equal(object_create_private(c, KEY("k"), &o), ERR_OK);
    assert_int_equal(object_publish(o, meta_new(4 * SS, 1), 0, &n, NULL), ERR_OK);
    fill(o, 0);
    struct slice *s = object_lease(o, 0, true);
    slice_forget(s);
    slice_unref(s);
    assert_null(object_lease(o, 0, true));
    assert_int_equal(stats_of(c).slices, 0);
    s = claim(o, 1);
    slice_forget(s); /* not READY: stays */
    slice_progress(s, SS);
    slice_unref(s);
    s = object_lease(o, 1, true);
    assert_non_null(s);
    slice_unref(s);
    object_unref(o);
    cache_end(c);
}

/* ---- streams ---- */

static void one_stream_is_waited_for_and_replaced_where_it_has_passed(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    struct object *o = object_put(c, KEY("k"), 100 * SS);
    struct slice *s, *t;
    uint64_t one, two;

    object_set_sequential(o, false);
    assert_true(object_sequential(o));
    assert_int_equal(object_stream_claim(o, 2, &one, &s), ERR_OK);
    object_stream_at(o, one, 3);
    assert_int_equal(object_stream_claim(o, 2, &two, &t), ERR_AGAIN); /* being filled */
    assert_int_equal(object_furthest_reader(o), 2 * SS);
    assert_int_equal(object_stream_claim(o, 50, &two, &t), ERR_AGAIN); /* on its way, and knows that it is waited for */
    assert_int_equal(object_furthest_reader(o), 50 * SS);
    assert_int_equal(object_stream_claim(o, 1, &two, &t), ERR_OK); /* behind it */
    assert_false(object_stream_is(o, one));
    assert_true(object_stream_is(o, two));
    assert_int_equal(object_furthest_reader(o), SS);
    object_stream_at(o, two, 2);
    object_reader_at(o, 70 * SS); /* ahead of the stream: does not follow it */
    assert_int_equal(object_furthest_reader(o), SS);
    object_reader_at(o, 2 * SS);
    assert_int_equal(object_furthest_reader(o), 2 * SS);
    object_stream_end(o, one); /* not the object's any more: changes nothing */
    assert_true(object_stream_is(o, two));
    object_stream_end(o, two);
    slice_fail(s, ERR_AGAIN);
    slice_unref(s);
    slice_fail(t, ERR_AGAIN);
    slice_unref(t);
    assert_int_equal(object_stream_claim(o, 50, &two, &t), ERR_OK);
    slice_fail(t, ERR_AGAIN);
    slice_unref(t);
    object_unref(o);
    cache_end(c);
}

static void bytes_that_cannot_be_joined_come_from_one_stream_only(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 100);
    bool created;
    struct object *o = object_get(c, KEY("k"), &created);
    struct slice *s[4], *t;
    unsigned n = 1;

    object_set_sequential(o, true);
    uint64_t one = object_stream_first(o, 0), two;
    assert_int_equal(object_publish(o, meta_new(4 * SS, 1), 0, &n, s), ERR_OK);
    object_stream_at(o, one, 1);
    assert_false(object_stream_missed(o, 0, 3));
    slice_fail(s[0], ERR_RESET);
    slice_unref(s[0]);
    assert_true(object_stream_missed(o, 0, 3));
    assert_false(object_stream_missed(o, 1, 3));
    assert_int_equal(object_stream_claim(o, 0, &two, &t), ERR_CHANGED);
    assert_int_equal(object_stream_claim(o, 1, &two, &t), ERR_AGAIN);
    object_stream_end(o, one);
    assert_int_equal(object_stream_claim(o, 1, &two, &t), ERR_CHANGED);
    assert_true(object_stream_missed(o, 1, 3));
    object_unref(o);
    cache_end(c);
}

/* ---- everything at once ---- */

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
        if (!object_wait(a->o, a->w)) task_schedule(&a->task);
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
        T(a_waiter_is_called_once_and_can_be_used_again),
        T(a_cancelled_waiter_is_not_called),
        T(everyone_wakes_when_a_slice_dies_or_is_done),
        T(publishing_claims_before_anybody_can),
        T(sizes_around_a_slice_have_the_right_slices),
        T(huge_objects_are_cheap_and_absurd_ones_refused),
        T(what_was_dropped_while_new_stays_out),
        T(a_successor_takes_the_place_unless_a_write_came_between),
        T(waiters_for_an_object_are_told_of_every_end),
        T(objects_are_bounded_although_old_ones_are_held),
        T(purges_take_what_they_name),
        T(slices_outlive_their_object_in_the_hands_of_a_reader),
        T(leased_slices_are_not_evicted),
        T(a_reserve_is_kept_until_its_reader_has_passed),
        T(a_reserve_out_of_order_is_let_go_in_the_end),
        T(publishing_leaves_memory_to_other_readers),
        T(private_slices_are_forgotten_behind_their_reader),
        T(one_stream_is_waited_for_and_replaced_where_it_has_passed),
        T(bytes_that_cannot_be_joined_come_from_one_stream_only),
        T(no_wake_up_is_lost_to_cancels_and_destroys),
        T(readers_fillers_purgers_and_evictors_never_mix_bytes),
    };
    if (hash_init() != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
