/* test_evict.c - hit ratios on generated traces against an LRU, accounting, refusals, threads, the price of a touch. */
#include "../../src/cache/evict.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define UNIT (1024u * 1024u)
#define C 1000u /* capacity in units for the traces */

/* ---- random numbers and traces ---- */

static uint64_t seed;
static uint64_t rnd(void)
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static double uniform(void) { return (double)(rnd() >> 11) * 0x1p-53; }

struct trace {
    uint32_t *key, n, cap;
    uint32_t keys; /* all keys are below it */
};

static void trace_add(struct trace *t, uint32_t key)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 4096;
        t->key = realloc(t->key, t->cap * sizeof *t->key);
        assert_non_null(t->key);
    }
    t->key[t->n++] = key;
    if (key >= t->keys) t->keys = key + 1;
}

static void add_cyclic(struct trace *t, uint32_t from, uint32_t n, unsigned epochs)
{
    while (epochs--)
        for (uint32_t i = 0; i < n; i++) trace_add(t, from + i);
}

static void add_shuffled(struct trace *t, uint32_t from, uint32_t n, unsigned epochs)
{
    uint32_t *p = malloc(n * sizeof *p);
    assert_non_null(p);
    while (epochs--) {
        for (uint32_t i = 0; i < n; i++) p[i] = from + i;
        for (uint32_t i = n; i > 1; i--) {
            uint32_t j = (uint32_t)(rnd() % i), k = p[i - 1];
            p[i - 1] = p[j];
            p[j] = k;
        }
        for (uint32_t i = 0; i < n; i++) trace_add(t, p[i]);
    }
    free(p);
}

/* i^-a for a = 1 or 0.8 without libm: the fifth root by Newton's method */
static double zipf_weight(uint32_t i, double a)
{
    double x = (double)i, r = 1;
    if (a > 0.9) return 1 / x;
    while (r * r * r * r * r < x) r *= 2;
    for (unsigned k = 0; k < 60; k++) r -= (r * r * r * r * r - x) / (5 * r * r * r * r);
    return r / x;
}

struct zipf {
    double *sum;
    uint32_t n;
};

static struct zipf zipf_make(uint32_t n, double a)
{
    struct zipf z = {malloc(n * sizeof(double)), n};
    double s = 0;
    assert_non_null(z.sum);
    for (uint32_t i = 0; i < n; i++) z.sum[i] = s += zipf_weight(i + 1, a);
    return z;
}

static uint32_t zipf_draw(const struct zipf *z)
{
    double x = uniform() * z->sum[z->n - 1];
    uint32_t lo = 0, hi = z->n - 1;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (z->sum[mid] < x)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void add_zipf(struct trace *t, uint32_t from, const struct zipf *z, uint32_t n)
{
    while (n--) trace_add(t, from + zipf_draw(z));
}

/* ---- the two caches ---- */

struct item {
    struct evict_entry entry;
    bool resident;
};
struct sim {
    struct evict *e;
    struct item *item;
    uint32_t *bytes; /* by key; NULL: one unit each */
    uint64_t capacity, used, hits, hit_bytes;
};

static bool sim_evicted(void *arg, struct evict_entry *n)
{
    struct sim *s = arg;
    struct item *it = container_of(n, struct item, entry);
    assert_true(it->resident && n->area == AREA_NONE && !list_linked(&n->link));
    it->resident = false;
    s->used -= n->charge;
    return true;
}

static bool sim_get(struct sim *s, uint32_t key)
{
    struct item *it = &s->item[key];
    uint32_t bytes = s->bytes ? s->bytes[key] : UNIT;
    if (it->resident) {
        evict_touch(s->e, &it->entry);
        s->hits++;
        s->hit_bytes += bytes;
        return true;
    }
    if (s->used + bytes > s->capacity) evict_run(s->e, s->used + bytes - s->capacity, sim_evicted, s);
    assert_true(s->used + bytes <= s->capacity);
    evict_note(s->e, mix(key + 1));
    evict_insert(s->e, &it->entry, mix(key + 1), bytes);
    it->resident = true;
    s->used += bytes;
    return false;
}

static void check_sums(struct evict *e)
{
    uint64_t entries = 0;
    for (unsigned a = AREA_WINDOW; a <= AREA_PROTECTED; a++) {
        uint64_t bytes = 0;
        LIST_EACH_SAFE(l, tmp, &e->queue[a].list) {
            struct evict_entry *n = container_of(l, struct evict_entry, link);
            assert_int_equal(n->area, a);
            bytes += n->charge;
            entries++;
        }
        assert_true(bytes == e->queue[a].bytes);
    }
    assert_true(entries == e->entries);
}

/* Hit ratio after the first quarter, as the reference simulation counts it. */
static double run_policy(const struct trace *t, uint32_t capacity, uint32_t skip)
{
    struct sim s = {.e = evict_create((uint64_t)capacity * UNIT, UNIT),
                    .item = calloc(t->keys, sizeof(struct item)),
                    .capacity = (uint64_t)capacity * UNIT};
    assert_non_null(s.e);
    assert_non_null(s.item);
    for (uint32_t i = 0; i < t->n; i++) {
        if (i == skip) s.hits = 0;
        sim_get(&s, t->key[i]);
    }
    check_sums(s.e);
    evict_destroy(s.e);
    free(s.item);
    return (double)s.hits / (t->n - skip);
}

struct lru_item {
    struct list link;
};

static double run_lru(const struct trace *t, uint32_t capacity, uint32_t skip)
{
    struct lru_item *item = calloc(t->keys, sizeof *item);
    struct list order;
    uint32_t n = 0, hits = 0;
    assert_non_null(item);
    list_init(&order);
    for (uint32_t i = 0; i < t->n; i++) {
        struct list *l = &item[t->key[i]].link;
        if (i == skip) hits = 0;
        if (l->next) {
            hits++;
            list_remove(l);
        } else if (n == capacity) {
            struct list *oldest = list_pop_front(&order);
            oldest->next = NULL;
        } else {
            n++;
        }
        list_push_back(&order, l);
    }
    free(item);
    return (double)hits / (t->n - skip);
}

/* ---- the table ---- */

enum {
    CYCLIC,
    EPOCHS_1_25,
    EPOCHS_2,
    EPOCHS_4,
    EPOCHS_10,
    CYCLIC_10,
    ZIPF_08,
    ZIPF_10,
    ZIPF_SCAN,
    MOVING,
    TWO_JOBS,
    TRACES
};
static const struct {
    const char *name;
    double margin2, at_least; /* margin 2 alone, in the reference simulation */
} rows[TRACES] = {
    [CYCLIC] = {"cyclic scan 2C", .495, .492},
    [EPOCHS_1_25] = {"shuffled epochs 1.25C", .784, .784},
    [EPOCHS_2] = {"shuffled epochs 2C", .495, .492},
    [EPOCHS_4] = {"shuffled epochs 4C", .248, .245},
    [EPOCHS_10] = {"shuffled epochs 10C", .090, .090},
    [CYCLIC_10] = {"cyclic scan 10C", .099, .085},
    [ZIPF_08] = {"Zipf 0.8 over 20C", .461, .458},
    [ZIPF_10] = {"Zipf 1.0 over 20C", .698, .693},
    [ZIPF_SCAN] = {"Zipf 1.0 and scans of 3C", .434, .429},
    [MOVING] = {"popular set moves 5 times", .691, .745},
    [TWO_JOBS] = {"one job of 2C, then another", .271, .45},
};

static void trace_make(unsigned which, struct trace *t, uint32_t c)
{
    struct zipf z = {0};
    *t = (struct trace){0};
    switch (which) {
    case CYCLIC: add_cyclic(t, 0, 2 * c, 12); break;
    case EPOCHS_1_25: add_shuffled(t, 0, c + c / 4, 16); break;
    case EPOCHS_2: add_shuffled(t, 0, 2 * c, 16); break;
    case EPOCHS_4: add_shuffled(t, 0, 4 * c, 10); break;
    case EPOCHS_10: add_shuffled(t, 0, 10 * c, 8); break;
    case CYCLIC_10: add_cyclic(t, 0, 10 * c, 12); break;
    case ZIPF_08:
        z = zipf_make(20 * c, .8);
        add_zipf(t, 0, &z, 120 * c);
        break;
    case ZIPF_10:
        z = zipf_make(20 * c, 1);
        add_zipf(t, 0, &z, 120 * c);
        break;
    case ZIPF_SCAN:
        z = zipf_make(20 * c, 1);
        for (uint32_t i = 0; i < 20; i++) {
            add_zipf(t, 0, &z, 5 * c);
            add_cyclic(t, 20 * c + i * 3 * c, 3 * c, 1);
        }
        break;
    case MOVING:
        z = zipf_make(5 * c, 1);
        for (uint32_t i = 0; i < 5; i++) add_zipf(t, i * 5 * c, &z, 24 * c);
        break;
    case TWO_JOBS:
        add_shuffled(t, 0, 2 * c, 10);
        add_shuffled(t, 2 * c, 2 * c, 10);
        break;
    default: fail();
    }
    free(z.sum);
}

static void test_hit_ratios_against_lru(void **state)
{
    (void)state;
    printf("  %-28s %6s %9s %6s\n", "trace, C = 1000", "LRU", "margin 2", "this");
    for (unsigned i = 0; i < TRACES; i++) {
        struct trace t;
        seed = 42;
        trace_make(i, &t, C);
        double lru = run_lru(&t, C, t.n / 4), ours = run_policy(&t, C, t.n / 4);
        printf("  %-28s %6.3f %9.3f %6.3f\n", rows[i].name, lru, rows[i].margin2, ours);
        assert_true(ours >= rows[i].at_least);
        assert_true(ours > lru);
        free(t.key);
    }
}

static void test_hit_ratios_of_a_small_and_a_big_cache(void **state)
{
    (void)state;
    static const uint32_t size[] = {50, 4000};
    for (unsigned k = 0; k < ARRAY_LEN(size); k++)
        for (unsigned i = 0; i < TRACES; i++) {
            struct trace t;
            seed = 43;
            trace_make(i, &t, size[k]);
            double lru = run_lru(&t, size[k], t.n / 4), ours = run_policy(&t, size[k], t.n / 4);
            printf("  C = %4u, %-28s %6.3f %6.3f\n", size[k], rows[i].name, lru, ours);
            /* four units of window are 8 % of 50 */
            assert_true(ours >= rows[i].at_least * (size[k] < 100 ? .8 : .985));
            free(t.key);
        }
}

/* Objects of 1 KiB .. 1 MiB, sizes independent of popularity: the sketch grows with the number of entries. */
static void test_hit_ratios_of_mixed_sizes(void **state)
{
    (void)state;
    enum { N = 40000, USES = 600000, CAPACITY = 256 };
    struct zipf z = zipf_make(N, 1);
    struct trace t = {0};
    struct sim s = {.e = evict_create((uint64_t)CAPACITY * UNIT, UNIT),
                    .item = calloc(N, sizeof(struct item)),
                    .bytes = malloc(N * sizeof(uint32_t)),
                    .capacity = (uint64_t)CAPACITY * UNIT};
    struct lru {
        struct list link;
        uint32_t bytes;
    } *lru = calloc(N, sizeof *lru);
    struct list order;
    uint64_t lru_used = 0, lru_hits = 0, lru_hit_bytes = 0, all_bytes = 0;
    assert_true(s.e && s.item && s.bytes && lru);
    seed = 5;
    for (uint32_t i = 0; i < N; i++) { /* ten doublings, evenly */
        uint64_t step = rnd() % 10;
        s.bytes[i] = lru[i].bytes = (uint32_t)((1024u << step) + rnd() % (1024u << step));
    }
    add_zipf(&t, 0, &z, USES);
    list_init(&order);
    uint32_t lines = atomic_load(&s.e->sketch)->lines;
    for (uint32_t i = 0; i < USES; i++) {
        struct lru *l = &lru[t.key[i]];
        sim_get(&s, t.key[i]);
        all_bytes += l->bytes;
        if (l->link.next) {
            lru_hits++;
            lru_hit_bytes += l->bytes;
            list_remove(&l->link);
        } else {
            for (lru_used += l->bytes; lru_used > s.capacity;) {
                struct lru *oldest = container_of(list_pop_front(&order), struct lru, link);
                oldest->link.next = NULL;
                lru_used -= oldest->bytes;
            }
        }
        list_push_back(&order, &l->link);
    }
    double hits = (double)s.hits / USES, bytes = (double)s.hit_bytes / (double)all_bytes;
    double lhits = (double)lru_hits / USES, lbytes = (double)lru_hit_bytes / (double)all_bytes;
    printf("  Zipf 1.0, 1 KiB .. 1 MiB: hits LRU %.3f this %.3f, bytes LRU %.3f this %.3f; %u entries\n", lhits, hits,
           lbytes, bytes, (unsigned)s.e->entries);
    assert_true(hits > lhits + .02 && bytes > lbytes + .05);
    assert_true(atomic_load(&s.e->sketch)->lines > lines);
    check_sums(s.e);
    evict_destroy(s.e);
    free(s.item);
    free(s.bytes);
    free(lru);
    free(z.sum);
    free(t.key);
}

/* Fills in flight take up to a tenth of the memory, now and then, out of the policy's sight. */
static void test_bursts_of_fills_do_not_wash_out_the_main_area(void **state)
{
    (void)state;
    struct trace t = {0};
    struct sim s = {.e = evict_create((uint64_t)C * UNIT, UNIT),
                    .item = calloc(2 * C, sizeof(struct item)),
                    .capacity = (uint64_t)C * UNIT};
    assert_true(s.e && s.item);
    seed = 9;
    add_shuffled(&t, 0, 2 * C, 16);
    for (uint32_t i = 0; i < t.n; i++) {
        if (i == t.n / 4) s.hits = 0;
        s.capacity = (uint64_t)(i / 150 % 2 ? C - C / 10 : C) * UNIT;
        if (s.used > s.capacity) evict_run(s.e, s.used - s.capacity, sim_evicted, &s);
        sim_get(&s, t.key[i]);
    }
    double ratio = (double)s.hits / (t.n - t.n / 4);
    printf("  shuffled epochs 2C while 0 .. 10 %% are in flight: %.3f (best possible about .45)\n", ratio);
    assert_true(ratio > .43);
    evict_destroy(s.e);
    free(s.item);
    free(t.key);
}

/* ---- behaviour ---- */

struct plain {
    struct evict_entry entry;
    bool in_use, gone;
};
struct asked {
    unsigned calls, gone;
    bool refuse_all;
};

static bool try_plain(void *arg, struct evict_entry *n)
{
    struct asked *a = arg;
    struct plain *p = container_of(n, struct plain, entry);
    a->calls++;
    assert_int_equal(n->area, AREA_NONE);
    assert_false(p->gone);
    if (p->in_use || a->refuse_all) return false;
    memset(n, 0xa5, sizeof *n); /* it may be freed: nobody may look at it again */
    p->gone = true;
    a->gone++;
    return true;
}

static void fill(struct evict *e, struct plain *p, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        evict_note(e, i);
        evict_insert(e, &p[i].entry, i, UNIT);
    }
}

static void test_everything_can_be_evicted(void **state)
{
    (void)state;
    struct plain p[300] = {0};
    struct asked a = {0};
    struct evict_stats s;
    struct evict *e = evict_create(300ull * UNIT, UNIT);
    fill(e, p, 300);
    for (unsigned i = 0; i < 300; i += 3) evict_touch(e, &p[i].entry);
    evict_get_stats(e, &s);
    assert_true(s.entries == 300 && s.window_bytes + s.main_bytes == 300ull * UNIT && s.window_bytes == 4ull * UNIT);
    assert_true(evict_run(e, 10ull * UNIT, try_plain, &a) == 10ull * UNIT);
    assert_true(evict_run(e, 10ull * UNIT - 5, try_plain, &a) == 10ull * UNIT);
    check_sums(e);
    assert_true(evict_run(e, UINT64_MAX, try_plain, &a) == 280ull * UNIT);
    assert_int_equal(a.gone, 300);
    assert_int_equal(a.calls, 300);
    assert_true(evict_run(e, 1, try_plain, &a) == 0);
    evict_get_stats(e, &s);
    assert_true(s.entries == 0 && s.window_bytes == 0 && s.main_bytes == 0 && s.evictions == 300);
    evict_destroy(e);
    evict_destroy(NULL);
}

static void test_entries_in_use_stay_and_refusals_are_bounded(void **state)
{
    (void)state;
    struct plain p[300] = {0};
    struct asked a = {.refuse_all = true};
    struct evict_stats s;
    struct evict *e = evict_create(300ull * UNIT, UNIT);
    fill(e, p, 300);
    assert_true(evict_run(e, 50ull * UNIT, try_plain, &a) == 0);
    assert_int_equal(a.calls, REFUSALS_MAX);
    evict_get_stats(e, &s);
    assert_true(s.entries == 300 && s.evictions == 0);
    check_sums(e);

    a = (struct asked){0};
    for (unsigned i = 0; i < 300; i++) p[i].in_use = i % 4 != 0;
    uint64_t freed = 0;
    for (unsigned i = 0; i < 20; i++) freed += evict_run(e, UINT64_MAX, try_plain, &a);
    assert_true(freed == 75ull * UNIT);
    for (unsigned i = 0; i < 300; i++) assert_true(p[i].gone == (i % 4 == 0));
    check_sums(e);
    evict_destroy(e);
}

static void test_window_in_use_does_not_block_eviction(void **state)
{
    (void)state;
    struct plain p[100] = {0};
    struct asked a = {0};
    struct evict *e = evict_create(100ull * UNIT, UNIT);
    fill(e, p, 100);
    for (unsigned i = 0; i < 100; i++) p[i].in_use = p[i].entry.area == AREA_WINDOW;
    assert_true(evict_run(e, 2ull * UNIT, try_plain, &a) == 2ull * UNIT);
    evict_destroy(e);
}

static void test_remove_and_insert_again(void **state)
{
    (void)state;
    struct plain p[10] = {0};
    struct evict_stats s;
    struct evict *e = evict_create(100ull * UNIT, UNIT);
    evict_remove(e, &p[0].entry); /* never inserted */
    fill(e, p, 10);
    for (unsigned i = 0; i < 10; i += 2) evict_remove(e, &p[i].entry);
    evict_remove(e, &p[2].entry);
    evict_get_stats(e, &s);
    assert_true(s.entries == 5 && s.window_bytes + s.main_bytes == 5ull * UNIT && s.evictions == 0);
    evict_insert(e, &p[2].entry, 2, 4096);
    evict_get_stats(e, &s);
    assert_true(s.entries == 6 && s.window_bytes + s.main_bytes == 5ull * UNIT + 4096);
    check_sums(e);
    evict_destroy(e);
}

static void test_candidate_needs_two_uses_more_than_the_victim(void **state)
{
    (void)state;
    struct plain p[101] = {0};
    struct asked a = {0};
    struct evict_stats s;
    struct evict *e = evict_create(100ull * UNIT, UNIT);
    fill(e, p, 100);
    unsigned oldest = 100;
    for (unsigned i = 100; i-- > 0;)
        if (p[i].entry.area == AREA_WINDOW) oldest = i;
    evict_run(e, UNIT, try_plain, &a); /* all were used once: the candidate loses */
    assert_true(p[oldest].gone);
    evict_get_stats(e, &s);
    assert_int_equal(s.rejected, 1);
    evict_note(e, oldest + 1);
    evict_note(e, oldest + 1); /* three against one */
    evict_insert(e, &p[100].entry, 100, UNIT);
    evict_run(e, UNIT, try_plain, &a);
    assert_false(p[oldest + 1].gone);
    assert_true(p[0].gone);
    evict_destroy(e);
}

static void use_all(struct evict *e, struct plain *p, unsigned n, unsigned times)
{
    for (unsigned k = 0; k < times; k++)
        for (unsigned i = 0; i < n; i++) evict_touch(e, &p[i].entry);
}

/* As a cache does: room first, then the entry. */
static void bring(struct evict *e, struct plain *p, unsigned from, unsigned n, uint16_t wanted, struct asked *a)
{
    for (unsigned i = from; i < from + n; i++) {
        evict_note(e, i);
        evict_run(e, UNIT, try_plain, a);
        atomic_store(&p[i].entry.wanted, wanted);
        evict_insert(e, &p[i].entry, i, UNIT);
    }
}

static unsigned resident(const struct plain *p, unsigned from, unsigned n)
{
    unsigned there = 0;
    for (unsigned i = from; i < from + n; i++) there += !p[i].gone;
    return there;
}

static void test_what_was_asked_for_displaces_what_was_not(void **state)
{
    (void)state;
    static struct plain p[2000];
    memset(p, 0, sizeof p);
    struct asked a = {0};
    struct evict *e = evict_create(300ull * UNIT, UNIT);
    fill(e, p, 300);
    use_all(e, p, 300, 6);
    bring(e, p, 300, 100, 0, &a); /* unasked: they lose */
    assert_true(resident(p, 300, 100) <= 10 && resident(p, 0, 300) >= 290);
    bring(e, p, 400, 200, 7, &a);
    assert_int_equal(resident(p, 400, 200), 200);
    assert_true(resident(p, 0, 300) >= 90);
    bring(e, p, 600, 400, 7, &a); /* more than there is room for: the first ones stay */
    assert_int_equal(resident(p, 400, 200), 200);
    assert_true(resident(p, 400, 600) >= 280 && resident(p, 400, 600) <= 300);
    bring(e, p, 1000, 100, 8, &a); /* whoever asks later */
    assert_int_equal(resident(p, 1000, 100), 100);
    bring(e, p, 1100, 300, 0, &a); /* and they are no weaker than any others */
    assert_true(resident(p, 1000, 100) >= 95);
    check_sums(e);
    evict_destroy(e);
}

static void test_the_serial_number_of_what_is_asked_for_may_wrap(void **state)
{
    (void)state;
    struct evict_entry none = {0}, late = {0}, early = {0};
    atomic_store(&late.wanted, 3);
    atomic_store(&early.wanted, 65000);
    assert_true(is_wanted_more(&late, &early) && !is_wanted_more(&early, &late) && !is_wanted_more(&late, &late));
    assert_true(is_wanted_more(&early, &none) && !is_wanted_more(&none, &early) && !is_wanted_more(&none, &none));
}

static void test_counts_saturate_and_halve_all_at_once(void **state)
{
    (void)state;
    struct evict *e = evict_create(100ull * UNIT, UNIT);
    for (unsigned i = 0; i < 40; i++) evict_note(e, 77);
    evict_note(e, 78);
    evict_note(e, 78);
    evict_note(e, 79);
    assert_int_equal(count_of(e, 77), 15);
    assert_int_equal(count_of(e, 78), 2);
    while (atomic_load(&e->halvings) == 0) evict_note(e, 80);
    assert_true(atomic_load(&e->uses) >= 400);
    assert_int_equal(count_of(e, 77), 7);
    assert_int_equal(count_of(e, 78), 1);
    assert_int_equal(count_of(e, 79), 0);
    atomic_fetch_add(&e->halvings, 5);
    assert_int_equal(count_of(e, 77), 0);
    evict_destroy(e);
}

/* ---- threads ---- */

enum { THREADS = 4, SHARED = 512, OPS = 30000 };
struct slot {
    struct evict_entry entry;
    pthread_mutex_t lock; /* plays the index shard's lock */
    bool in;
};
static struct slot slots[SHARED];
static _Atomic uint64_t resident_bytes;

static bool try_slot(void *arg, struct evict_entry *n)
{
    struct slot *s = container_of(n, struct slot, entry);
    (void)arg;
    if (pthread_mutex_trylock(&s->lock) != 0) return false;
    bool gone = s->in;
    if (gone) {
        s->in = false;
        atomic_fetch_sub(&resident_bytes, n->charge);
    }
    pthread_mutex_unlock(&s->lock);
    return gone;
}

static void *thread_use(void *arg)
{
    struct evict *e = arg;
    struct evict_stats stats;
    uint64_t x = (uint64_t)(uintptr_t)&stats;
    for (unsigned op = 0; op < OPS; op++) {
        x = mix(x + op);
        struct slot *s = &slots[x % SHARED];
        uint32_t bytes = 4096 + (uint32_t)(x >> 20) % UNIT;
        if (op % 1000 == 0) evict_get_stats(e, &stats);
        if (atomic_load(&resident_bytes) + bytes > 100ull * UNIT) evict_run(e, bytes, try_slot, NULL);
        pthread_mutex_lock(&s->lock);
        if (!s->in) {
            evict_note(e, (uint64_t)(s - slots));
            evict_insert(e, &s->entry, (uint64_t)(s - slots), bytes);
            atomic_fetch_add(&resident_bytes, bytes);
            s->in = true;
        } else if (x >> 50 & 15) {
            evict_touch(e, &s->entry);
        } else {
            s->in = false;
            atomic_fetch_sub(&resident_bytes, s->entry.charge);
            evict_remove(e, &s->entry);
        }
        pthread_mutex_unlock(&s->lock);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t t[THREADS];
    struct evict_stats s;
    struct evict *e = evict_create(100ull * UNIT, UNIT);
    for (unsigned i = 0; i < SHARED; i++) pthread_mutex_init(&slots[i].lock, NULL);
    for (unsigned i = 0; i < THREADS; i++) assert_int_equal(pthread_create(&t[i], NULL, thread_use, e), 0);
    for (unsigned i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    check_sums(e);
    evict_get_stats(e, &s);
    assert_true(s.window_bytes + s.main_bytes == atomic_load(&resident_bytes));
    uint64_t in = 0;
    for (unsigned i = 0; i < SHARED; i++) in += slots[i].in;
    assert_true(s.entries == in);
    evict_destroy(e);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define TOUCH_NS_MAX 2000.0
#else
#define TOUCH_NS_MAX 100.0 /* under 20 on a quiet machine */
#endif

static void test_price_of_a_touch(void **state)
{
    (void)state;
    enum { N = 2000, ROUNDS = 300 };
    static struct plain p[N];
    struct evict *e = evict_create((uint64_t)N * UNIT, UNIT);
    struct timespec from, to;
    fill(e, p, N);
    double best = 1e9;
    for (unsigned r = 0; r < ROUNDS; r++) {
        clock_gettime(CLOCK_MONOTONIC, &from);
        for (unsigned i = 0; i < N; i++) evict_touch(e, &p[(i * 617u) % N].entry);
        clock_gettime(CLOCK_MONOTONIC, &to);
        double ns = (double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec);
        if (ns / N < best) best = ns / N;
    }
    printf("  a touch takes %.1f ns\n", best);
    assert_true(best < TOUCH_NS_MAX);
    evict_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hit_ratios_against_lru),
        cmocka_unit_test(test_hit_ratios_of_a_small_and_a_big_cache),
        cmocka_unit_test(test_hit_ratios_of_mixed_sizes),
        cmocka_unit_test(test_bursts_of_fills_do_not_wash_out_the_main_area),
        cmocka_unit_test(test_everything_can_be_evicted),
        cmocka_unit_test(test_entries_in_use_stay_and_refusals_are_bounded),
        cmocka_unit_test(test_window_in_use_does_not_block_eviction),
        cmocka_unit_test(test_remove_and_insert_again),
        cmocka_unit_test(test_candidate_needs_two_uses_more_than_the_victim),
        cmocka_unit_test(test_what_was_asked_for_displaces_what_was_not),
        cmocka_unit_test(test_the_serial_number_of_what_is_asked_for_may_wrap),
        cmocka_unit_test(test_counts_saturate_and_halve_all_at_once),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_price_of_a_touch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
