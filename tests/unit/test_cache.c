/* test_cache.c - objects, slices, waiters, reserves, streams and bounds of the cache, one thing at a time. All at once is
 * test_cache_threads.c. */
#include "cache_support.h"

#ifdef __SANITIZE_THREAD__
#define HUGE_BYTES (UINT64_C(5) << 34) /* memory that nobody touches is not free there */
#else
#define HUGE_BYTES (UINT64_C(5) << 40)
#endif

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

/* 64 MiB for the index, a MiB in each shard: heads of 100 KiB leave room for some ten in each. */
static void keys_and_heads_are_bounded_in_bytes(void **state)
{
    (void)state;
    struct cache *c = cache_new(16, 1000000);
    unsigned n = 0;
    bool created;
    char name[32];

    for (unsigned i = 0; i < 5000; i++) {
        struct cache_key k = {.base = str_make(name, (size_t)snprintf(name, sizeof name, "o%u", i))};
        struct object *o = object_get(c, &k, &created);
        struct meta *m = meta_new(SS, 1);
        m->bytes = 100 << 10;
        assert_int_equal(object_publish(o, m, 0, &n, NULL), ERR_OK);
        object_unref(o);
    }
    assert_in_range(stats_of(c).index_bytes, 40u << 20, 64u << 20);
    assert_in_range(stats_of(c).objects, 400, 640);
    /* A head that changes is counted as it is then; one that leaves is not counted any more. */
    struct cache_key k = {.base = STR_LIT("o4999")};
    struct object *o = object_get(c, &k, &created);
    assert_false(created);
    uint64_t before = stats_of(c).index_bytes;
    object_set_meta(o, meta_new(SS, 2));
    assert_int_equal(before - stats_of(c).index_bytes, 100 << 10);
    object_unref(o);
    cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
    assert_int_equal(stats_of(c).index_bytes, 0);
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
        struct cache_key k = {.base = STR_LIT("a/1"), .variant = str_make(&"uvw"[i], 1)};
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
        T(keys_and_heads_are_bounded_in_bytes),
        T(purges_take_what_they_name),
        T(slices_outlive_their_object_in_the_hands_of_a_reader),
        T(leased_slices_are_not_evicted),
        T(a_reserve_is_kept_until_its_reader_has_passed),
        T(a_reserve_out_of_order_is_let_go_in_the_end),
        T(publishing_leaves_memory_to_other_readers),
        T(private_slices_are_forgotten_behind_their_reader),
        T(one_stream_is_waited_for_and_replaced_where_it_has_passed),
        T(bytes_that_cannot_be_joined_come_from_one_stream_only),
    };
    if (hash_init() != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
