/* cache_support.h - what the tests of the cache share: small caches, objects, one loop. */
#ifndef CACHE_SUPPORT_H
#define CACHE_SUPPORT_H

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
#define KEY(s) (&(struct cache_key){.base = STR_LIT(s)})

static inline struct cache *cache_new(unsigned slices, uint64_t max_objects)
{
    struct cache_options o = {.memory_bytes = (uint64_t)slices * SS, .max_objects = max_objects, .index_bytes = 64u << 20, .slice_bytes = SS};
    struct cache *c;
    char msg[256];
    assert_int_equal(cache_create(&o, &c, msg, sizeof msg), ERR_OK);
    return c;
}

static inline struct cache_stats stats_of(struct cache *c)
{
    struct cache_stats s;
    cache_get_stats(c, &s);
    return s;
}

/* Nothing is left but what is in the index, and after a purge nothing at all. */
static inline void cache_end(struct cache *c)
{
    cache_purge(c, PURGE_ALL, (struct str){NULL, 0});
    struct cache_stats s = stats_of(c);
    assert_int_equal(s.objects, 0);
    assert_int_equal(s.slices, 0);
    assert_int_equal(s.reserved_bytes, 0);
    assert_int_equal(s.used, 0);
    cache_destroy(c);
}

static inline struct meta *meta_new(uint64_t size, uint64_t version)
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

static inline uint64_t version_of(const struct meta *m)
{
    uint64_t v;
    memcpy(&v, m->user, sizeof v);
    return v;
}

static inline struct object *object_get(struct cache *c, const struct cache_key *k, bool *created)
{
    struct object *o;
    assert_int_equal(cache_find_or_create(c, k, NULL, NULL, &o, created), ERR_OK);
    return o;
}

static inline struct object *object_put(struct cache *c, const struct cache_key *k, uint64_t size)
{
    bool created;
    unsigned n = 0;
    struct object *o = object_get(c, k, &created);
    assert_true(created);
    assert_int_equal(object_publish(o, meta_new(size, 1), 0, &n, NULL), ERR_OK);
    return o;
}

static inline struct slice *claim(struct object *o, uint64_t index)
{
    struct slice *s;
    assert_int_equal(object_claim(o, index, true, &s), ERR_OK);
    return s;
}

static inline void fill(struct object *o, uint64_t index)
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

static inline void env_open(struct env *e)
{
    *e = (struct env){0};
    assert_int_equal(loop_create(&e->loop), ERR_OK);
    assert_int_equal(mailbox_create(e->loop, &e->mb), ERR_OK);
}

static inline void env_close(struct env *e)
{
    mailbox_destroy(e->mb);
    loop_destroy(e->loop);
}

static inline void stop_now(struct timer *t) { loop_stop(t->loop); }

static inline void env_run(struct env *e, uint64_t ms)
{
    struct timer t;
    timer_init(&t, e->loop, stop_now);
    timer_set(&t, ms);
    loop_run(e->loop);
}

static inline void count_call(void *arg) { ((struct env *)arg)->calls++; }

#endif
