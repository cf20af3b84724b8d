/* test_cache_listing.c - looking around in a cache: what is listed, how much of an object is there, pins, and what was asked
 * for to be there. */
#include "cache_support.h"

/* By pages of so many. */
static unsigned list_all(struct cache *c, const char *prefix, size_t max)
{
    struct str p = str_c(prefix);
    unsigned total = 0;
    for (unsigned i = 0; i < cache_shards(); i++) {
        uint64_t from = 0, last = 0;
        for (bool end = false; !end;) {
            struct object **all;
            size_t n;
            uint64_t began = from;
            assert_int_equal(cache_list(c, i, &p, 1, &from, max, &all, &n, &end), ERR_OK);
            assert_true(n <= max && (end || from > began));
            for (size_t k = 0; k < n; k++) {
                assert_true(total == 0 || object_name(all[k]) >= last);
                assert_true(object_name(all[k]) >= began && (end || object_name(all[k]) < from));
                last = object_name(all[k]);
            }
            total += (unsigned)n;
            cache_list_free(all, n);
        }
    }
    return total;
}

static struct object *put(struct cache *c, unsigned i, unsigned slices)
{
    char name[32];
    snprintf(name, sizeof name, "o/k%u", i);
    struct cache_key k = {.base = str_c(name)};
    struct object *o = object_put(c, &k, (uint64_t)slices * SS);
    for (unsigned s = 0; s < slices; s++) fill(o, s);
    return o;
}

static void test_listed_are_those_that_are_ready(void **state)
{
    (void)state;
    struct cache *c = cache_new(64, 1000);
    bool created;
    object_unref(put(c, 1, 1));
    object_unref(put(c, 2, 1));
    struct object *new = object_get(c, KEY("o/k3"), &created); /* nobody knows yet whether it exists */
    assert_int_equal(list_all(c, "o/", 100), 2);
    assert_int_equal(list_all(c, "o/k1", 100), 1);
    assert_int_equal(list_all(c, "p", 100), 0);
    object_fail(new, NULL);
    object_unref(new);
    cache_end(c);
}

static void test_pages_of_any_size_show_the_same(void **state)
{
    static const size_t sizes[] = {1, 2, 7, 1000};
    (void)state;
    struct cache *c = cache_new(64, 100000);
    for (unsigned i = 0; i < 5000; i++) object_unref(put(c, i, 0));
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) assert_int_equal(list_all(c, "o/", sizes[i]), 5000);
    assert_int_equal(list_all(c, "o/k49", 3), 111);
    cache_end(c);
}

/* While somebody goes through it, the table of a shard grows to many times its size: what was there is seen once. */
static void test_none_is_missed_and_none_comes_twice_while_the_table_grows(void **state)
{
    static bool seen[3000];
    (void)state;
    struct cache *c = cache_new(64, 1000000);
    struct str p = STR_LIT("o/");
    unsigned more = 0;
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < 3000; i++) object_unref(put(c, i, 0));
    for (unsigned i = 0; i < cache_shards(); i++) {
        uint64_t from = 0;
        for (bool end = false; !end;) {
            struct object **all;
            size_t n;
            assert_int_equal(cache_list(c, i, &p, 1, &from, 3, &all, &n, &end), ERR_OK);
            for (size_t k = 0; k < n; k++) {
                char text[32] = "";
                memcpy(text, object_key_base(all[k]).p, object_key_base(all[k]).n);
                unsigned number = (unsigned)atoi(text + 3);
                if (number >= 3000) continue; /* came meanwhile */
                assert_false(seen[number]);
                seen[number] = true;
            }
            cache_list_free(all, n);
            for (unsigned k = 0; more < 110000 && k < 2000; k++) object_unref(put(c, 3000 + more++, 0));
        }
    }
    for (unsigned i = 0; i < 3000; i++) assert_true(seen[i]);
    cache_end(c);
}

static void test_objects_of_one_name_stay_together(void **state)
{
    static const char *const variants[] = {"a", "b", "c", "d", "e"};
    (void)state;
    struct cache *c = cache_new(64, 1000);
    struct str p = STR_LIT("o/");
    unsigned total = 0;
    for (size_t i = 0; i < ARRAY_LEN(variants); i++) {
        struct cache_key k = {STR_LIT("o/k"), str_c(variants[i])};
        object_unref(object_put(c, &k, 0));
    }
    for (unsigned i = 0; i < cache_shards(); i++) {
        uint64_t from = 0;
        for (bool end = false; !end;) {
            struct object **all;
            size_t n;
            assert_int_equal(cache_list(c, i, &p, 1, &from, 2, &all, &n, &end), ERR_OK);
            assert_true(n == 0 || n == ARRAY_LEN(variants));
            total += (unsigned)n;
            cache_list_free(all, n);
        }
    }
    assert_int_equal(total, ARRAY_LEN(variants));
    cache_end(c);
}

static void test_how_much_of_an_object_is_there(void **state)
{
    (void)state;
    struct cache *c = cache_new(64, 1000);
    struct object *o = object_put(c, KEY("o/k"), 3 * SS + 10);
    assert_int_equal(object_cached_bytes(o), 0);
    fill(o, 3);
    assert_int_equal(object_cached_bytes(o), 10);
    struct slice *s = claim(o, 0);
    slice_progress(s, SS - 1);
    assert_int_equal(object_cached_bytes(o), 10);
    slice_progress(s, SS);
    slice_unref(s);
    assert_int_equal(object_cached_bytes(o), SS + 10);
    object_unref(o);
    cache_end(c);
}

static unsigned all_there(struct cache *c, unsigned from, unsigned n)
{
    unsigned there = 0;
    for (unsigned i = from; i < from + n; i++) {
        char name[32];
        snprintf(name, sizeof name, "o/k%u", i);
        struct cache_key k = {.base = str_c(name)};
        struct object *o = cache_find(c, &k, NULL, NULL);
        there += o && object_cached_bytes(o) == object_size(o);
        object_unref(o);
    }
    return there;
}

static void test_pinned_slices_stay_and_are_given_back_with_their_object(void **state)
{
    (void)state;
    struct cache *c = cache_new(64, 1000); /* half of it may be pinned */
    for (unsigned i = 0; i < 5; i++) {
        struct object *o = put(c, i, 4);
        assert_true(object_pin(o) && object_pin(o) && object_pinned(o));
        object_unref(o);
    }
    assert_int_equal(stats_of(c).pinned_bytes, 20 * SS);
    for (unsigned i = 500; i < 600; i++) object_unref(put(c, i, 4));
    assert_int_equal(all_there(c, 0, 5), 5);
    cache_purge(c, PURGE_PREFIX, STR_LIT("o/k5"));
    struct object *o = put(c, 9, 16);
    assert_false(object_pin(o)); /* 20 + 16 > 32 */
    assert_true(stats_of(c).pinned_bytes <= 32 * SS);
    object_drop(o);
    object_unref(o);
    assert_int_equal(stats_of(c).pinned_bytes, 20 * SS);
    assert_int_equal(cache_purge(c, PURGE_PREFIX, STR_LIT("o/k0")), 1);
    assert_int_equal(stats_of(c).pinned_bytes, 16 * SS);
    cache_end(c);
}

static void test_slices_that_come_later_are_pinned_too(void **state)
{
    (void)state;
    struct cache *c = cache_new(64, 1000);
    struct object *o = object_put(c, KEY("o/k"), 4 * SS);
    fill(o, 0);
    assert_true(object_pin(o));
    assert_int_equal(stats_of(c).pinned_bytes, SS);
    for (unsigned i = 1; i < 4; i++) fill(o, i);
    assert_int_equal(stats_of(c).pinned_bytes, 4 * SS);
    object_unref(o);
    cache_end(c);
}

/* A full cache whose objects are used often lets nothing in, but what was asked for. */
static void test_what_was_asked_for_gets_in(void **state)
{
    (void)state;
    for (unsigned asked = 0; asked < 2; asked++) {
        struct cache *c = cache_new(64, 1000);
        for (unsigned i = 0; i < 80; i++) object_unref(put(c, i, 1));
        for (unsigned i = 0; i < 80 * 8; i++) {
            char name[32];
            snprintf(name, sizeof name, "o/k%u", i % 80);
            struct cache_key k = {.base = str_c(name)};
            struct object *o = cache_find(c, &k, NULL, NULL);
            struct slice *s = object_lease(o, 0, true);
            if (s) slice_unref(s);
            object_unref(o);
        }
        for (unsigned i = 100; i < 120; i++) {
            char name[32];
            snprintf(name, sizeof name, "o/k%u", i);
            struct cache_key k = {.base = str_c(name)};
            struct object *o = object_put(c, &k, 2 * SS);
            if (i % 2) fill(o, 0); /* before it is said, too */
            if (asked) object_want(o, 1);
            if (!(i % 2)) fill(o, 0);
            fill(o, 1);
            object_want(o, 0);
            object_unref(o);
        }
        if (asked) assert_int_equal(all_there(c, 100, 20), 20);
        else assert_true(all_there(c, 100, 20) <= 10);
        cache_end(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listed_are_those_that_are_ready),
        cmocka_unit_test(test_pages_of_any_size_show_the_same),
        cmocka_unit_test(test_none_is_missed_and_none_comes_twice_while_the_table_grows),
        cmocka_unit_test(test_objects_of_one_name_stay_together),
        cmocka_unit_test(test_how_much_of_an_object_is_there),
        cmocka_unit_test(test_pinned_slices_stay_and_are_given_back_with_their_object),
        cmocka_unit_test(test_slices_that_come_later_are_pinned_too),
        cmocka_unit_test(test_what_was_asked_for_gets_in),
    };
    if (hash_init() != ERR_OK) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
