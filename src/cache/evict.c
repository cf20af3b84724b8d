/* evict.c - W-TinyLFU with a margin and with an eye on residents that have died.
 *
 * Time is counted in uses. `units` is how many entries the memory holds (capacity over mean charge); a segment is units/8
 * uses, and every 4 x units uses all counts are halved.
 *
 * Counts. A count-min sketch whose rows lie within one cache line: a line knows how often it was halved and has 112
 * counters of 4 bits; a hash selects the line and four counters in it, of which only the smallest are raised. Halving is
 * lazy: a line that is behind catches up when it is next looked at; so all counts change at one point in time, at no
 * cost. Increments may get lost in races; nothing depends on them. How many uses there were is collected in tallies, one
 * for a thread or a few, and every 16th use moves them to the counters all threads share.
 *
 * Order. Three lists: window, probation, protected; oldest first. A touch only stamps the entry with the time;
 * whoever looks for a victim gives a stamped entry its second chance: to the end of the window, or from probation
 * to protected, whose oldest go back to probation. Lists and sums are under the mutex.
 *
 * Room. How much can be resident at once is what was resident when memory last ran out (`room`): rounding, free
 * slots and fills in flight take their part of the capacity. It falls at once and rises slowly, so that a burst of fills is
 * paid for by the window and not, again and again, by the main area. While the main area is below its share of it, what
 * leaves the window goes there without a contest.
 *
 * Death of residents. Counts alone remember a finished job for two to four epochs. So each segment compares how often
 * residents that are at least 8 segments old were hit with the long-term rate of that. Below a quarter is a lull; if it
 * lasts (see lull_bound), what was not used since its beginning is dead: it counts as never used, and every candidate
 * replaces it. Scans and epochs make lulls too, which end by themselves: the longest of these is remembered,
 * and only a lull twice as long is taken for death. Should old residents be hit again in between, it is called off. */
#include "cache/evict.h"

#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"

#define MAGIC 0x45564331u
#define LINE_WORDS 7u
#define LINE_COUNTERS (LINE_WORDS * 16u)
#define COUNT_MAX 15u
#define MARGIN 2u
#define HALVE_AFTER 4u        /* x units uses */
#define LINE_UNITS_MAX 4u     /* a line of counters serves one entry, or up to so many .. */
#define SKETCH_SHARE 256u     /* .. where the sketch would take more than 1/256 of the capacity */
#define SKETCH_SHARE_MAX 128u /* whatever the size of entries, it never takes much more than 1/64 */
#define UNITS_MIN 16u
#define TALLY_USES 16u
#define TALLIES 64u /* power of two */
#define SEGMENT_PER_UNITS 8u
#define SEGMENT_USES_MIN 16u
#define OLD_SEGMENTS 8u    /* residents younger than that say nothing about the old ones */
#define LULL_FIRST 8u      /* in segments: the longest lull we assume to be normal before we have seen any */
#define LULL_MIN 2u        /* no shorter lull is ever taken for death */
#define LULL_EVIDENCE 16.0 /* hits that should have come meanwhile */
#define RATE_MIN 0.02      /* with fewer hits there is nothing to lose */
#define LOOKS_MAX 128u     /* entries looked at to find one victim */
#define REFUSALS_MAX 64u   /* of one evict_run */
#define WINDOW_REFUSALS_MAX 16u
#define TABLES_MAX 40u

enum area { AREA_NONE, AREA_WINDOW, AREA_PROBATION, AREA_PROTECTED };

struct line {
    _Alignas(64) _Atomic uint64_t halvings; /* seen */
    _Atomic uint64_t word[LINE_WORDS];
};

struct sketch {
    uint32_t lines; /* power of two */
    struct line line[];
};

/* To be reported: uses (20 bits) | hits of old residents among them (20) | hits of young ones (20) */
struct tally {
    _Alignas(64) _Atomic uint64_t sum;
};
#define TALLY_BITS 20
#define TALLY_MASK ((UINT64_C(1) << TALLY_BITS) - 1)
#define TALLY_USE UINT64_C(1)
#define TALLY_OLD (UINT64_C(1) << TALLY_BITS)
#define TALLY_YOUNG (UINT64_C(1) << 2 * TALLY_BITS)

struct queue {
    struct list list;
    uint64_t bytes;
};

enum mood { MOOD_NORMAL, MOOD_LULL, MOOD_DEATH };

struct evict {
    uint32_t magic;
    uint64_t capacity, unit;
    /* read by every touch, written seldom */
    _Atomic(struct sketch *) sketch;
    _Atomic uint64_t halvings;
    _Atomic uint16_t now;    /* segments since the start */
    _Atomic uint16_t old;    /* entries born before it are old residents */
    _Atomic uint64_t period; /* uses between halvings */
    /* written by every 16th touch */
    _Alignas(64) _Atomic uint64_t uses;
    _Atomic uint64_t hits_old, hits_young, halve_at;
    /* under the mutex */
    _Alignas(64) pthread_mutex_t lock;
    struct queue queue[4]; /* by area */
    uint64_t entries, evictions, rejected;
    uint64_t window_max, room;
    uint64_t segment_uses;                       /* length of a segment */
    uint64_t segment_from, old_from, young_from; /* counters at its beginning */
    enum mood mood;
    double rate;       /* long-term hits of old residents per use */
    double lull_long;  /* longest lull that ended by itself, slowly forgotten; segments */
    uint32_t lull;     /* length of this one */
    double lull_young; /* hits of newcomers per use in it, summed over its segments */
    uint16_t lull_began;
    void *table[TABLES_MAX]; /* all there ever were: a touch may still be using an outgrown one */
    unsigned tables;
    struct tally tally[TALLIES];
};

/* ---- sketch ---- */

static uint64_t mix(uint64_t h)
{
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return h ^ h >> 32;
}

/* How many lines for so many entries; power of two. */
static uint32_t sketch_lines(const struct evict *e, uint64_t units)
{
    uint64_t want = e->capacity / SKETCH_SHARE / sizeof(struct line), lines = 4;
    if (want > units) want = units;
    if (want < units / LINE_UNITS_MAX) want = units / LINE_UNITS_MAX;
    while (lines < want && lines < UINT32_MAX / 2 && lines * sizeof(struct line) <= e->capacity / SKETCH_SHARE_MAX)
        lines *= 2;
    return (uint32_t)lines;
}

/* *raw is what is to be freed. Zero pages from calloc: a big table costs nothing until its lines are used. */
static struct sketch *sketch_new(uint32_t lines, void **raw)
{
    size_t bytes = sizeof(struct sketch) + (size_t)lines * sizeof(struct line);
    if (!(*raw = calloc(1, bytes + 63))) return NULL;
    struct sketch *s = (struct sketch *)(void *)((char *)*raw + (0 - (uintptr_t)*raw) % 64);
    s->lines = lines;
    return s;
}

static void line_halve(struct line *l, uint64_t seen, uint64_t halvings)
{
    uint64_t behind = halvings - seen;
    /* One thread does it. The others meanwhile see counts that are twice too high, once. */
    if (!atomic_compare_exchange_strong_explicit(&l->halvings, &seen, halvings, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    uint64_t keep = behind < 4 ? UINT64_C(0x1111111111111111) * (COUNT_MAX >> behind) : 0;
    for (unsigned w = 0; w < LINE_WORDS; w++) {
        uint64_t v = atomic_load_explicit(&l->word[w], memory_order_relaxed);
        atomic_store_explicit(&l->word[w], keep ? v >> behind & keep : 0, memory_order_relaxed);
    }
}

static struct line *line_get(struct evict *e, uint64_t h)
{
    struct sketch *s = atomic_load_explicit(&e->sketch, memory_order_acquire);
    struct line *l = &s->line[(uint32_t)h & (s->lines - 1)];
    uint64_t halvings = atomic_load_explicit(&e->halvings, memory_order_relaxed);
    uint64_t seen = atomic_load_explicit(&l->halvings, memory_order_relaxed);
    if (unlikely(seen < halvings)) line_halve(l, seen, halvings);
    return l;
}

/* The four counters of a hash, by 8 of its upper 32 bits each. */
struct place {
    unsigned word, shift;
};

static struct place place_of(uint64_t h, unsigned row)
{
    unsigned at = (unsigned)((h >> (32 + 8 * row) & 0xff) * LINE_COUNTERS >> 8);
    return (struct place){at / 16, at % 16 * 4};
}

static unsigned line_count(struct line *l, uint64_t h)
{
    unsigned least = COUNT_MAX;
    for (unsigned row = 0; row < 4; row++) {
        struct place p = place_of(h, row);
        unsigned c = (unsigned)(atomic_load_explicit(&l->word[p.word], memory_order_relaxed) >> p.shift & 15);
        if (c < least) least = c;
    }
    return least;
}

static void line_add(struct line *l, uint64_t h)
{
    struct place p[4];
    unsigned least = COUNT_MAX;
    for (unsigned row = 0; row < 4; row++) {
        p[row] = place_of(h, row);
        uint64_t v = atomic_load_explicit(&l->word[p[row].word], memory_order_relaxed);
        unsigned c = (unsigned)(v >> p[row].shift & 15);
        if (c < least) least = c;
    }
    if (least == COUNT_MAX) return;
    for (unsigned row = 0; row < 4; row++) { /* no branches: they would be mispredicted */
        uint64_t v = atomic_load_explicit(&l->word[p[row].word], memory_order_relaxed);
        uint64_t one = (v >> p[row].shift & 15) == least; /* read again: two rows may share a counter */
        atomic_store_explicit(&l->word[p[row].word], v + (one << p[row].shift), memory_order_relaxed);
    }
}

static unsigned count_of(struct evict *e, uint64_t hash)
{
    uint64_t h = mix(hash);
    return line_count(line_get(e, h), h);
}

/* Moves a tally to the shared counters; whoever carries them over the mark halves all counts. */
static void tally_flush(struct evict *e, struct tally *t)
{
    uint64_t sum = atomic_exchange_explicit(&t->sum, 0, memory_order_relaxed);
    uint64_t n = sum & TALLY_MASK, old = sum >> TALLY_BITS & TALLY_MASK, young = sum >> 2 * TALLY_BITS;
    if (old) atomic_fetch_add_explicit(&e->hits_old, old, memory_order_relaxed);
    if (young) atomic_fetch_add_explicit(&e->hits_young, young, memory_order_relaxed);
    uint64_t uses = atomic_fetch_add_explicit(&e->uses, n, memory_order_relaxed) + n;
    uint64_t at = atomic_load_explicit(&e->halve_at, memory_order_relaxed);
    if (uses < at) return;
    uint64_t next = uses + atomic_load_explicit(&e->period, memory_order_relaxed);
    if (atomic_compare_exchange_strong_explicit(&e->halve_at, &at, next, memory_order_relaxed, memory_order_relaxed))
        atomic_fetch_add_explicit(&e->halvings, 1, memory_order_relaxed);
}

static void use_count(struct evict *e, uint64_t hash, uint64_t what)
{
    uint64_t h = mix(hash);
    line_add(line_get(e, h), h);
    struct tally *t = &e->tally[(uint64_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15) >> 32 & (TALLIES - 1)];
    uint64_t sum = atomic_fetch_add_explicit(&t->sum, what, memory_order_relaxed);
    if ((sum & TALLY_MASK) >= TALLY_USES - 1) tally_flush(e, t);
}

/* Entries turned out smaller than expected. All counts begin anew, which the margin turns into a short standstill: nobody
 * has an advantage of two before some uses have been counted. */
static void sketch_grow_locked(struct evict *e, uint64_t units)
{
    struct sketch *now = atomic_load_explicit(&e->sketch, memory_order_relaxed);
    uint32_t lines = sketch_lines(e, units);
    if (lines <= now->lines || e->tables == TABLES_MAX) return;
    struct sketch *s = sketch_new(lines, &e->table[e->tables]);
    if (!s) return; /* coarser counts are no disaster */
    e->tables++;
    atomic_store_explicit(&e->sketch, s, memory_order_release);
}

/* ---- life and death of residents ---- */

static bool before(uint16_t a, uint16_t b) { return (int16_t)(uint16_t)(a - b) < 0; }

static uint16_t now_get(const struct evict *e) { return atomic_load_explicit(&e->now, memory_order_relaxed); }

static void old_set(struct evict *e, uint16_t segment)
{
    atomic_store_explicit(&e->old, segment, memory_order_relaxed);
}

static void units_update_locked(struct evict *e)
{
    uint64_t total = e->queue[AREA_WINDOW].bytes + e->queue[AREA_PROBATION].bytes + e->queue[AREA_PROTECTED].bytes;
    uint64_t mean = e->entries >= UNITS_MIN ? total / e->entries : e->unit;
    uint64_t units = e->capacity / (mean ? mean : 1);
    if (units < UNITS_MIN) units = UNITS_MIN;
    e->segment_uses = units / SEGMENT_PER_UNITS > SEGMENT_USES_MIN ? units / SEGMENT_PER_UNITS : SEGMENT_USES_MIN;
    atomic_store_explicit(&e->period, units * HALVE_AFTER, memory_order_relaxed);
    sketch_grow_locked(e, units);
}

/* Everything that was dead has been replaced: what the residents of now can do is to be learned. */
static void death_over_locked(struct evict *e)
{
    if (e->lull > e->lull_long) e->lull_long = e->lull;
    e->mood = MOOD_NORMAL;
    e->rate = 0;
    old_set(e, (uint16_t)(now_get(e) - OLD_SEGMENTS));
}

/* What a segment, or several at once, showed. */
struct look {
    uint32_t segments;
    double old, young; /* hits per use */
    uint16_t began;
};

static void mood_normal_locked(struct evict *e, const struct look *l)
{
    if (e->rate >= RATE_MIN && l->old < e->rate / 4) {
        e->mood = MOOD_LULL;
        e->lull = l->segments;
        e->lull_young = l->young * l->segments;
        e->lull_began = (uint16_t)(l->began - 1); /* it may have begun within the segment before */
        old_set(e, e->lull_began);
        return;
    }
    for (uint32_t i = 0; i < l->segments && i < 64; i++) {
        e->rate += (l->old - e->rate) / 8;
        if (e->rate >= RATE_MIN) e->lull_long -= e->lull_long / 128;
    }
    old_set(e, (uint16_t)(now_get(e) - OLD_SEGMENTS));
}

/* A scan shows nothing twice. When newcomers are hit instead of the old residents, the lull is no scan. */
static bool lull_is_long_locked(const struct evict *e)
{
    double bound = e->lull_long * 2;
    if (e->lull_young / e->lull >= e->rate / 4) bound = e->lull_long / 4;
    return e->lull >= LULL_MIN && e->lull >= bound &&
           e->rate * (double)e->lull * (double)e->segment_uses >= LULL_EVIDENCE;
}

static void mood_lull_locked(struct evict *e, const struct look *l)
{
    if (l->old >= e->rate / 4) { /* over, or death called off */
        if (e->lull > e->lull_long) e->lull_long = e->lull;
        e->mood = MOOD_NORMAL;
        old_set(e, (uint16_t)(now_get(e) - OLD_SEGMENTS));
        return;
    }
    e->lull += l->segments;
    e->lull_young += l->young * l->segments;
    if (lull_is_long_locked(e)) e->mood = MOOD_DEATH;
}

static uint64_t counter_since(const _Atomic uint64_t *c, uint64_t *from)
{
    uint64_t v = atomic_load_explicit(c, memory_order_relaxed), since = v - *from;
    *from = v;
    return since;
}

/* Ends a segment when it is time. */
static void tick_locked(struct evict *e)
{
    uint64_t uses = atomic_load_explicit(&e->uses, memory_order_relaxed) - e->segment_from;
    if (uses < e->segment_uses) return;

    uint64_t n = uses / e->segment_uses;
    struct look l = {.segments = n < 1024 ? (uint32_t)n : 1024, .began = now_get(e)};
    e->segment_from += uses;
    l.old = (double)counter_since(&e->hits_old, &e->old_from) / (double)uses;
    l.young = (double)counter_since(&e->hits_young, &e->young_from) / (double)uses;
    atomic_store_explicit(&e->now, (uint16_t)(l.began + l.segments), memory_order_relaxed);
    if (e->mood == MOOD_NORMAL)
        mood_normal_locked(e, &l);
    else
        mood_lull_locked(e, &l);
    units_update_locked(e);
}

/* A stamp is the low 7 bits of the time, and never 0. */
static uint8_t stamp_of(uint16_t segment) { return (uint8_t)((segment & 0x7f) | 0x80); }

/* Was it stamped after the lull began? Of longer lulls than stamps can tell, any stamp counts. */
static bool stamp_is_recent(const struct evict *e, uint8_t stamp)
{
    uint16_t now = now_get(e), since = (uint16_t)(now - e->lull_began);
    return stamp && (uint16_t)((now - stamp) & 0x7f) <= since;
}

static bool entry_is_dead(const struct evict *e, const struct evict_entry *n)
{
    return e->mood == MOOD_DEATH && before(atomic_load_explicit(&n->born, memory_order_relaxed), e->lull_began) &&
           !stamp_is_recent(e, atomic_load_explicit(&n->used, memory_order_relaxed));
}

/* Clears the stamp; true if there was one. */
static bool entry_was_used(struct evict *e, struct evict_entry *n)
{
    uint8_t stamp = atomic_load_explicit(&n->used, memory_order_relaxed);
    uint16_t now = now_get(e), born = atomic_load_explicit(&n->born, memory_order_relaxed);
    if (!stamp) return false;
    if (e->mood != MOOD_NORMAL && before(born, e->lull_began) && stamp_is_recent(e, stamp))
        atomic_store_explicit(&n->born, now, memory_order_relaxed); /* alive */
    else if (before(born, (uint16_t)(now - 16384)))
        atomic_store_explicit(&n->born, (uint16_t)(now - 16384),
                              memory_order_relaxed); /* before it looks like the future */
    atomic_store_explicit(&n->used, 0, memory_order_relaxed);
    return true;
}

/* ---- lists ---- */

static struct evict_entry *queue_first(const struct evict *e, enum area area)
{
    struct list *l = list_first(&e->queue[area].list);
    return l ? container_of(l, struct evict_entry, link) : NULL;
}

static void entry_unlink(struct evict *e, struct evict_entry *n)
{
    list_remove(&n->link);
    e->queue[n->area].bytes -= n->charge;
    e->entries--;
    n->area = AREA_NONE;
}

static void entry_link(struct evict *e, struct evict_entry *n, enum area area)
{
    n->area = (uint8_t)area;
    list_push_back(&e->queue[area].list, &n->link);
    e->queue[area].bytes += n->charge;
    e->entries++;
}

static void entry_move(struct evict *e, struct evict_entry *n, enum area area)
{
    entry_unlink(e, n);
    entry_link(e, n, area);
}

static uint64_t main_bytes(const struct evict *e)
{
    return e->queue[AREA_PROBATION].bytes + e->queue[AREA_PROTECTED].bytes;
}

static uint64_t main_max(const struct evict *e) { return e->room > e->window_max ? e->room - e->window_max : 0; }

/* What is too much for the window and has room in main goes there. */
static void window_settle_locked(struct evict *e)
{
    struct evict_entry *n;
    while (e->queue[AREA_WINDOW].bytes > e->window_max && (n = queue_first(e, AREA_WINDOW)) != NULL &&
           main_bytes(e) + n->charge <= main_max(e))
        entry_move(e, n, AREA_PROBATION);
}

/* The window's oldest that was not used again while it was there. */
static struct evict_entry *window_candidate_locked(struct evict *e)
{
    struct evict_entry *n = queue_first(e, AREA_WINDOW);
    for (unsigned looks = 0; n && looks < LOOKS_MAX && entry_was_used(e, n); looks++) {
        entry_move(e, n, AREA_WINDOW);
        n = queue_first(e, AREA_WINDOW);
    }
    return n;
}

/* Protected keeps to 80 % of main; what it gives up has probation's end as its last chance. */
static void protected_trim_locked(struct evict *e)
{
    struct evict_entry *n;
    for (unsigned looks = 0; looks < LOOKS_MAX; looks++) {
        if (e->queue[AREA_PROTECTED].bytes <= main_bytes(e) / 5 * 4 || !(n = queue_first(e, AREA_PROTECTED))) return;
        entry_move(e, n, !entry_is_dead(e, n) && entry_was_used(e, n) ? AREA_PROTECTED : AREA_PROBATION);
    }
}

/* While the dead are being replaced they come first, wherever they are. Protected's oldest may hide one behind an entry
 * that was used, so a few are looked at. NULL: none left, as far as can be seen. */
static struct evict_entry *main_dead_locked(struct evict *e)
{
    for (unsigned area = AREA_PROBATION; area <= AREA_PROTECTED; area++) {
        struct evict_entry *n = queue_first(e, (enum area)area);
        for (unsigned looks = 0; n && looks < LOOKS_MAX / 2; looks++) {
            if (entry_is_dead(e, n)) return n;
            bool used = entry_was_used(e, n);
            if (area == AREA_PROBATION && !used) break;
            entry_move(e, n, AREA_PROTECTED);
            n = queue_first(e, (enum area)area);
        }
    }
    return NULL;
}

static struct evict_entry *main_victim_locked(struct evict *e, bool *dead)
{
    struct evict_entry *n = NULL;
    *dead = false;
    if (e->mood == MOOD_DEATH) {
        if ((n = main_dead_locked(e)) != NULL) {
            *dead = true;
            return n;
        }
        death_over_locked(e);
    }
    for (unsigned looks = 0; looks < LOOKS_MAX && (n = queue_first(e, AREA_PROBATION)) != NULL; looks++) {
        if (!entry_was_used(e, n)) return n;
        entry_move(e, n, AREA_PROTECTED);
        protected_trim_locked(e);
    }
    n = queue_first(e, AREA_PROBATION); /* all used that were looked at: no second chance then */
    return n ? n : queue_first(e, AREA_PROTECTED);
}

/* ---- making room ---- */

struct pass {
    uint64_t wanted, freed;
    unsigned refusals, window_refusals;
};

/* The room there is: see the file's head. */
static void room_learn_locked(struct evict *e)
{
    uint64_t total = e->queue[AREA_WINDOW].bytes + main_bytes(e);
    if (total > e->room) {
        e->room += (total - e->room + 4095) / 4096;
    } else {
        e->room = total > e->capacity / 2 ? total : e->capacity / 2;
    }
    window_settle_locked(e);
}

static bool is_wanted_more(const struct evict_entry *a, const struct evict_entry *b)
{
    uint16_t x = atomic_load_explicit(&a->wanted, memory_order_relaxed);
    uint16_t y = atomic_load_explicit(&b->wanted, memory_order_relaxed);
    return x && (!y || before(y, x));
}

/* One of main that was not asked for, or earlier: main's victim may well be one of those that just came, as nobody has used
 * them yet, while what they are to displace is protected. NULL: none among the oldest. */
static struct evict_entry *main_unwanted_locked(const struct evict *e, const struct evict_entry *candidate)
{
    for (unsigned area = AREA_PROBATION; area <= AREA_PROTECTED; area++) {
        const struct list *head = &e->queue[area].list;
        unsigned looks = 0;
        for (struct list *l = head->next; l != head && looks < LOOKS_MAX / 2; l = l->next, looks++) {
            struct evict_entry *n = container_of(l, struct evict_entry, link);
            if (is_wanted_more(candidate, n)) return n;
        }
    }
    return NULL;
}

/* Who has to go next, decided by the contest; NULL when nothing is left. */
static struct evict_entry *victim_choose_locked(struct evict *e, const struct pass *p, bool *rejected)
{
    struct evict_entry *candidate = NULL, *victim;
    bool dead = false;
    uint64_t window = e->queue[AREA_WINDOW].bytes, missing = p->wanted - p->freed;

    *rejected = false;
    if ((window > e->window_max || missing > e->window_max - window) && p->window_refusals < WINDOW_REFUSALS_MAX)
        candidate = window_candidate_locked(e);
    victim = main_victim_locked(e, &dead);
    if (!candidate) return victim ? victim : window_candidate_locked(e);
    if (victim && !dead && atomic_load_explicit(&candidate->wanted, memory_order_relaxed) && !is_wanted_more(candidate, victim)) {
        struct evict_entry *other = main_unwanted_locked(e, candidate);
        if (other) return other;
    }
    if (victim && (dead || is_wanted_more(candidate, victim) ||
                   count_of(e, candidate->hash) >= count_of(e, victim->hash) + MARGIN)) return victim;
    *rejected = true;
    return candidate;
}

uint64_t evict_run(struct evict *e, uint64_t bytes, evict_fn *try_evict, void *arg)
{
    CHECK_OBJ(e, MAGIC);
    struct pass p = {.wanted = bytes};
    struct evict_entry *n;
    bool rejected;

    pthread_mutex_lock(&e->lock);
    tick_locked(e);
    room_learn_locked(e);
    while (p.freed < bytes && p.refusals < REFUSALS_MAX && (n = victim_choose_locked(e, &p, &rejected)) != NULL) {
        enum area area = (enum area)n->area;
        uint32_t charge = n->charge;
        entry_unlink(e, n);
        if (try_evict(arg, n)) { /* n may be freed by now */
            p.freed += charge;
            e->evictions++;
            e->rejected += rejected;
            if (area != AREA_WINDOW) window_settle_locked(e);
            continue;
        }
        entry_link(e, n, area == AREA_WINDOW ? AREA_WINDOW : AREA_PROTECTED);
        p.refusals++;
        if (area == AREA_WINDOW) {
            p.window_refusals++;
        } else { /* in use: not dead. What protected gives up instead may be had: else it would hide behind these. */
            atomic_store_explicit(&n->born, now_get(e), memory_order_relaxed);
            protected_trim_locked(e);
        }
    }
    pthread_mutex_unlock(&e->lock);
    return p.freed;
}

/* ---- the rest ---- */

struct evict *evict_create(uint64_t capacity_bytes, uint64_t unit_bytes)
{
    struct evict *e = aligned_alloc(64, (sizeof *e + 63) / 64 * 64);
    if (!e) return NULL;
    *e = (struct evict){.magic = MAGIC, .capacity = capacity_bytes, .unit = unit_bytes ? unit_bytes : 1};
    uint64_t units = capacity_bytes / e->unit > UNITS_MIN ? capacity_bytes / e->unit : UNITS_MIN;
    struct sketch *s = sketch_new(sketch_lines(e, units), &e->table[0]);
    if (!s) {
        free(e);
        return NULL;
    }
    e->tables = 1;
    atomic_init(&e->sketch, s);
    for (unsigned i = 0; i < ARRAY_LEN(e->queue); i++) list_init(&e->queue[i].list);
    pthread_mutex_init(&e->lock, NULL);

    e->window_max = capacity_bytes / 100 > 4 * e->unit ? capacity_bytes / 100 : 4 * e->unit;
    if (e->window_max > capacity_bytes / 4) e->window_max = capacity_bytes / 4;
    e->room = capacity_bytes;
    e->lull_long = LULL_FIRST;
    units_update_locked(e);
    atomic_init(&e->halve_at, atomic_load_explicit(&e->period, memory_order_relaxed));
    old_set(e, (uint16_t)(0 - OLD_SEGMENTS));
    return e;
}

void evict_destroy(struct evict *e)
{
    if (!e) return;
    CHECK_OBJ(e, MAGIC);
    pthread_mutex_destroy(&e->lock);
    for (unsigned i = 0; i < e->tables; i++) free(e->table[i]);
    e->magic = 0;
    free(e);
}

void evict_note(struct evict *e, uint64_t hash) { use_count(e, hash, TALLY_USE); }

void evict_touch(struct evict *e, struct evict_entry *n)
{
    uint16_t born = atomic_load_explicit(&n->born, memory_order_relaxed);
    uint8_t stamp = stamp_of(now_get(e));
    if (atomic_load_explicit(&n->used, memory_order_relaxed) != stamp)
        atomic_store_explicit(&n->used, stamp, memory_order_relaxed);
    bool old = before(born, atomic_load_explicit(&e->old, memory_order_relaxed));
    use_count(e, n->hash, TALLY_USE + (old ? TALLY_OLD : TALLY_YOUNG));
}

void evict_insert(struct evict *e, struct evict_entry *n, uint64_t hash, uint32_t charge)
{
    CHECK_OBJ(e, MAGIC);
    n->hash = hash;
    n->charge = charge;
    pthread_mutex_lock(&e->lock);
    CHECK(n->area == AREA_NONE);
    tick_locked(e);
    atomic_store_explicit(&n->used, 0, memory_order_relaxed);
    atomic_store_explicit(&n->born, now_get(e), memory_order_relaxed);
    list_init(&n->link);
    entry_link(e, n, AREA_WINDOW);
    window_settle_locked(e);
    pthread_mutex_unlock(&e->lock);
}

void evict_remove(struct evict *e, struct evict_entry *n)
{
    CHECK_OBJ(e, MAGIC);
    pthread_mutex_lock(&e->lock);
    if (n->area != AREA_NONE) entry_unlink(e, n);
    pthread_mutex_unlock(&e->lock);
}

void evict_get_stats(struct evict *e, struct evict_stats *out)
{
    CHECK_OBJ(e, MAGIC);
    pthread_mutex_lock(&e->lock);
    *out = (struct evict_stats){.entries = e->entries,
                                .window_bytes = e->queue[AREA_WINDOW].bytes,
                                .main_bytes = main_bytes(e),
                                .evictions = e->evictions,
                                .rejected = e->rejected};
    pthread_mutex_unlock(&e->lock);
}
