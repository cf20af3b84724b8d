/* test_memory.c - extents: rounding loss, no overlap, fragmentation under churn, punching, threads. */
#include "../../src/cache/memory.c"
#include "../../src/cache/room.c"

#include <setjmp.h>
#include <stdarg.h>
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <cmocka.h>

#define KIB 1024u
#define MIB (1024u * KIB)

static uint64_t seed = 1;
static uint64_t rnd(void)
{
    uint64_t z = seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}
static double uniform(void) { return (double)(rnd() >> 11) * 0x1p-53; }

/* exp and log without libm: 2^x for x in 0..32, close enough for drawing sizes */
static double pow2(double x)
{
    double r = 1, f;
    unsigned whole = (unsigned)x;
    f = (x - whole) * 0.69314718056;
    r = 1 + f * (1 + f / 2 * (1 + f / 3 * (1 + f / 4 * (1 + f / 5 * (1 + f / 6)))));
    return r * (double)(UINT64_C(1) << whole);
}
/* log-uniform in [2^lo, 2^hi] */
static uint32_t draw(double lo, double hi) { return (uint32_t)pow2(lo + (hi - lo) * uniform()); }

static struct memory *make(uint64_t capacity)
{
    struct memory *m;
    char msg[256] = "";
    assert_int_equal(memory_create(capacity, &m, msg, sizeof msg), ERR_OK);
    return m;
}

/* The slab lists, bitmaps and counters agree with each other. */
static void check_consistent(struct memory *m)
{
    uint64_t nfree = 0, slabs = 0, live = 0;
    for (uint32_t b = 0; b < m->blocks; b++) {
        bool bit = m->free_bits[b / 64] >> b % 64 & 1;
        nfree += bit;
        assert_true((m->free_words[b / 64 / 64] >> b / 64 % 64 & 1) == (m->free_bits[b / 64] != 0));
        if (bit) assert_true(b / 64 >= m->low);
        if (m->block[b].class == NO_CLASS) continue;
        struct block *s = &m->block[b];
        assert_false(bit);
        slabs++;
        live += (m->class[s->class].slots - s->nfree) * m->class[s->class].charge;
        assert_int_equal(s->nfree, __builtin_popcountll(s->free[0]) + __builtin_popcountll(s->free[1]));
        assert_true(s->nfree < m->class[s->class].slots);
    }
    assert_true(nfree == m->free_blocks);
    assert_true(slabs == m->slab_blocks);
    assert_true(live == m->slab_live_bytes);
}

static void test_create_rounds_down_and_starts_empty(void **state)
{
    (void)state;
    struct memory_stats s;
    struct memory *m = make(10 * MIB + 12345);
    memory_get_stats(m, &s);
    assert_true(s.capacity == 10 * MIB && s.used == 0 && s.slab_bytes == 0 && s.slab_wasted == 0 && s.punched == 0);
    assert_true(memory_free_bytes(m) == 10 * MIB);
    assert_true(fcntl(memory_fd(m), F_GETFD) & FD_CLOEXEC);
    assert_true(ftruncate(memory_fd(m), 4096) < 0 && errno == EPERM);
    memory_destroy(m);
    memory_destroy(NULL);
}

static void test_more_than_the_machine_has_is_refused_with_a_reason(void **state)
{
    (void)state;
    struct memory *m;
    char msg[256] = "";
    assert_int_equal(memory_create(UINT64_C(1) << 46, &m, msg, sizeof msg), ERR_NOMEM);
    assert_null(m);
    assert_non_null(strstr(msg, "64TiB of cache memory configured, but"));
    assert_int_equal(memory_create(1000, &m, msg, sizeof msg), ERR_NOMEM);
    assert_non_null(strstr(msg, "64KiB"));
    assert_int_equal(memory_create(UINT64_MAX, &m, msg, sizeof msg), ERR_NOMEM);
}

static void write_file(const char *dir, const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_limits_of_a_cgroup_and_its_parents(void **state)
{
    (void)state;
    char dir[] = "/tmp/test_memory.XXXXXX", sub[64], path[600], msg[256];
    assert_non_null(mkdtemp(dir));
    snprintf(sub, sizeof sub, "%s/in", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    struct cgroup_files v2 = {"", "memory.max", "memory.current", {"inactive_file", "active_file"}};

    assert_true(least_upwards(dir, &v2, "/in/absent", cgroup_room) == UINT64_MAX);
    write_file(sub, "memory.max", "max\n");
    assert_true(least_upwards(dir, &v2, "/in/absent", cgroup_room) == UINT64_MAX);
    write_file(dir, "memory.max", "1000000\n");
    assert_true(least_upwards(dir, &v2, "/in/absent", cgroup_room) == 1000000);
    write_file(dir, "memory.current", "700000\n");
    write_file(dir, "memory.stat", "anon 5\ninactive_file 100000\nactive_file 200000\nshmem 300\n");
    assert_true(least_upwards(dir, &v2, "/in", cgroup_room) == 600000);
    write_file(sub, "memory.max", "5000\n");
    write_file(sub, "memory.current", "6000\n");
    assert_true(least_upwards(dir, &v2, "/in", cgroup_room) == 0);
    assert_true(least_upwards(dir, &v2, "", cgroup_room) == 600000);

    snprintf(sub, sizeof sub, "%s/proc", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    write_file(sub, "meminfo", "MemTotal:   9000 kB\nMemAvailable:   2048 kB\n");
    snprintf(sub, sizeof sub, "%s/proc/self", dir);
    assert_int_equal(mkdir(sub, 0700), 0);
    write_file(sub, "cgroup", "0::/nowhere/at/all\n");
    assert_true(room_check(dir, 2 * MIB, msg, sizeof msg));
    assert_false(room_check(dir, 3 * MIB, msg, sizeof msg));
    assert_string_equal(msg, "3MiB of cache memory configured, but the machine has only 2MiB available");
    assert_true(room_check("/nonexistent", 3 * MIB, msg, sizeof msg));

    const char *names[] = {"in/memory.max", "in/memory.current", "memory.max", "memory.current",
                           "memory.stat",   "proc/meminfo",      "proc/self/cgroup", "proc/self", "proc", "in"};
    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        assert_int_equal(remove(path), 0);
    }
    assert_int_equal(rmdir(dir), 0);
}

static void test_file_size_limit_is_a_reason_not_a_signal(void **state)
{
    (void)state;
    struct rlimit old, low;
    struct memory *m;
    char msg[256] = "";
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = old;
    low.rlim_cur = MIB;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    enum err e = memory_create(2 * MIB, &m, msg, sizeof msg);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(e, ERR_NOMEM);
    assert_non_null(strstr(msg, "ulimit -f"));
}

static void test_plan_covers_every_size_and_loses_less_than_an_eighth(void **state)
{
    (void)state;
    struct memory *m = make(4 * MIB);
    double worst = 0, sum = 0, pieces_sum = 0;
    uint32_t worst_at = 0, samples = 0;
    for (uint32_t bytes = 1; bytes <= MIB + 65; bytes += bytes < 4096 ? 1 : bytes / 1013) {
        uint8_t class[PIECES_MAX];
        uint32_t blocks, usable, charge;
        unsigned pieces = plan_make(m, bytes, &blocks, class);
        usable = charge = blocks * MEMORY_BLOCK_BYTES;
        for (unsigned i = 0; i < pieces; i++) {
            usable += m->class[class[i]].slot_bytes;
            charge += m->class[class[i]].charge;
            if (i) assert_true(class[i] <= class[i - 1]); /* largest first */
        }
        assert_true(usable >= bytes);
        if (bytes < KIB) continue;
        double loss = (double)(charge - bytes) / charge;
        if (loss > worst) worst = loss, worst_at = bytes;
        if (bytes < 4096 && bytes % 4) continue; /* about log-uniform */
        sum += loss;
        pieces_sum += pieces + (blocks > 0);
        samples++;
    }
    printf("rounding loss of the charge, 1 KiB .. 1 MiB: mean %.2f %%, worst %.2f %% at %u bytes; %.2f pieces\n",
           100 * sum / samples, 100 * worst, worst_at, pieces_sum / samples);
    assert_true(worst < 0.125);
    memory_destroy(m);
}

static void test_rounding_loss_of_real_allocations_tails_included(void **state)
{
    (void)state;
    struct memory *m = make(512 * MIB);
    struct extent *e = calloc(1 << 16, sizeof *e);
    uint64_t asked = 0, charged = 0;
    unsigned n = 0;
    seed = 7;
    while (n < 1 << 16) {
        uint32_t bytes = draw(10, 20);
        if (memory_alloc(m, bytes, &e[n])) break;
        assert_int_equal(e[n].bytes, bytes);
        asked += bytes;
        charged += e[n++].charge;
    }
    struct memory_stats s;
    memory_get_stats(m, &s);
    check_consistent(m);
    assert_true(charged == s.used - s.slab_wasted);
    printf("%u extents, asked %.1f MiB, blocks used %.1f MiB: loss %.2f %%\n", n, (double)asked / MIB,
           (double)s.used / MIB, 100.0 * (double)(s.used - asked) / (double)s.used);
    assert_true((double)(s.used - asked) / (double)s.used < 0.125);
    while (n) memory_free(m, &e[--n], false);
    memory_get_stats(m, &s);
    assert_true(s.used == 0 && s.slab_bytes == 0 && s.slab_wasted == 0);
    check_consistent(m);
    free(e);
    memory_destroy(m);
}

static void test_one_slice_is_one_contiguous_run(void **state)
{
    (void)state;
    struct memory *m = make(8 * MIB);
    struct extent e[8], last;
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(memory_alloc(m, MIB, &e[i]), ERR_OK);
        assert_int_equal(e[i].nruns, 1);
        assert_int_equal(e[i].runs[0].blocks, 16);
        assert_true(e[i].charge == MIB && e[i].bytes == MIB);
        assert_true(memory_at(m, &e[i].runs[0]) == m->base + memory_offset(m, &e[i].runs[0]));
    }
    assert_int_equal(memory_alloc(m, 1, &last), ERR_NOMEM);
    assert_null(last.runs);
    assert_true(memory_free_bytes(m) == 0);
    memory_free(m, &e[3], false);
    assert_null(e[3].runs);
    assert_int_equal(memory_alloc(m, MIB, &e[3]), ERR_OK);
    assert_int_equal(e[3].nruns, 1);
    for (unsigned i = 0; i < 8; i++) memory_free(m, &e[i], false);
    memory_destroy(m);
}

static void test_scattered_blocks_still_make_a_slice(void **state)
{
    (void)state;
    struct memory *m = make(4 * MIB);
    struct extent one[64], big;
    for (unsigned i = 0; i < 64; i++) assert_int_equal(memory_alloc(m, MEMORY_BLOCK_BYTES, &one[i]), ERR_OK);
    for (unsigned i = 0; i < 64; i += 2) memory_free(m, &one[i], false);
    assert_int_equal(memory_alloc(m, 2 * MIB, &big), ERR_OK);
    assert_int_equal(big.nruns, 32);
    assert_true(memory_free_bytes(m) == 0);
    memory_free(m, &big, false);
    memory_free(m, &one[11], false);
    assert_int_equal(memory_alloc(m, 5 * MEMORY_BLOCK_BYTES, &big), ERR_OK); /* blocks 10..12 make one run of three */
    assert_int_equal(big.nruns, 3);
    memory_free(m, &big, false);
    for (unsigned i = 1; i < 64; i += 2)
        if (one[i].runs) memory_free(m, &one[i], false);
    check_consistent(m);
    memory_destroy(m);
}

static void test_failed_allocation_takes_nothing(void **state)
{
    (void)state;
    struct memory *m = make(MIB);
    struct extent e, f;
    struct memory_stats s;
    assert_int_equal(memory_alloc(m, 15 * MEMORY_BLOCK_BYTES, &e), ERR_OK);
    assert_int_equal(memory_alloc(m, MEMORY_BLOCK_BYTES + 600, &f), ERR_NOMEM); /* the slot would take the last block */
    memory_get_stats(m, &s);
    assert_true(s.used == 15 * MEMORY_BLOCK_BYTES && s.slab_bytes == 0);
    assert_int_equal(memory_alloc(m, UINT32_MAX, &f), ERR_NOMEM);
    assert_int_equal(memory_alloc(m, 2 * MIB, &f), ERR_NOMEM);
    memory_free(m, &e, false);
    check_consistent(m);
    memory_destroy(m);
}

static void test_iov_gives_exactly_the_bytes_asked_for(void **state)
{
    (void)state;
    struct memory *m = make(4 * MIB);
    struct extent e;
    struct iovec iov[8];
    uint32_t bytes = 3 * MEMORY_BLOCK_BYTES + 40000;
    assert_int_equal(memory_alloc(m, bytes, &e), ERR_OK);
    assert_true(e.nruns >= 2);
    unsigned n = memory_iov(m, &e, 0, bytes, iov, 8);
    uint32_t at = 0;
    for (unsigned i = 0; i < n; i++)
        for (size_t j = 0; j < iov[i].iov_len; j++) ((uint8_t *)iov[i].iov_base)[j] = (uint8_t)(at++ % 251);
    assert_int_equal(at, bytes);
    for (unsigned t = 0; t < 200; t++) {
        uint32_t from = (uint32_t)(rnd() % bytes), len = (uint32_t)(rnd() % (bytes - from)), got = 0;
        n = memory_iov(m, &e, from, len, iov, 8);
        for (unsigned i = 0; i < n; i++)
            for (size_t j = 0; j < iov[i].iov_len; j++, got++)
                if (((uint8_t *)iov[i].iov_base)[j] != (uint8_t)((from + got) % 251)) fail();
        assert_int_equal(got, len);
    }
    assert_int_equal(memory_iov(m, &e, bytes, 0, iov, 8), 0);
    assert_int_equal(memory_iov(m, &e, 0, bytes, iov, 1), 1); /* no more than there is room for */
    memory_free(m, &e, false);
    memory_destroy(m);
}

static void test_extents_never_overlap(void **state)
{
    (void)state;
    enum { N = 1500 };
    struct memory *m = make(32 * MIB);
    struct extent e[N] = {0};
    struct iovec iov[64];
    seed = 3;
    for (unsigned op = 0; op < 20000; op++) {
        unsigned i = (unsigned)(rnd() % N);
        uint8_t tag = (uint8_t)(i * 7 + 1);
        if (e[i].runs) {
            unsigned n = memory_iov(m, &e[i], 0, e[i].bytes, iov, 64);
            for (unsigned k = 0; k < n; k++) {
                const uint8_t *p = iov[k].iov_base;
                if (p[0] != tag || memcmp(p, p + 1, iov[k].iov_len - 1) != 0) fail_msg("extent %u was overwritten", i);
            }
            memory_free(m, &e[i], false);
        } else if (memory_alloc(m, draw(0, 18), &e[i]) == ERR_OK) {
            unsigned n = memory_iov(m, &e[i], 0, e[i].bytes, iov, 64);
            for (unsigned k = 0; k < n; k++) memset(iov[k].iov_base, tag, iov[k].iov_len);
        }
    }
    check_consistent(m);
    for (unsigned i = 0; i < N; i++)
        if (e[i].runs) memory_free(m, &e[i], false);
    assert_true(memory_free_bytes(m) == 32 * MIB);
    memory_destroy(m);
}

/* ---- churn ---- */

/* A cache of extents with random eviction; on ERR_NOMEM it empties sparse slabs first when it is told to. */
struct item {
    struct extent e;
    uint32_t at; /* in the pool's live list */
};
struct churn {
    struct memory *m;
    struct item **live;
    uint32_t n, cap;
    uint64_t asked, evicted;
    bool use_sparse;
};

static void churn_evict(struct churn *c, struct item *it)
{
    c->asked -= it->e.bytes;
    memory_free(c->m, &it->e, false);
    c->live[it->at] = c->live[--c->n];
    c->live[it->at]->at = it->at;
    free(it);
    c->evicted++;
}

static bool hold_any(void *owner) { return owner != NULL; }

static void churn_make_room(struct churn *c)
{
    void *owner[MEMORY_SLOTS_MAX];
    unsigned n = c->use_sparse ? memory_sparse(c->m, hold_any, owner, MEMORY_SLOTS_MAX) : 0;
    if (n == 0) {
        assert_true(c->n > 0); /* with everything evicted, everything is free */
        churn_evict(c, c->live[rnd() % c->n]);
    }
    for (unsigned i = 0; i < n; i++) churn_evict(c, owner[i]);
}

static void churn_run(struct churn *c, double lo, double hi, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        struct item *it = calloc(1, sizeof *it);
        uint32_t bytes = draw(lo, hi);
        assert_non_null(it);
        while (memory_alloc(c->m, bytes, &it->e)) churn_make_room(c);
        memory_set_owner(c->m, &it->e, it);
        if (c->n == c->cap) {
            c->cap = c->cap ? c->cap * 2 : 1024;
            c->live = realloc(c->live, c->cap * sizeof(struct item *));
            assert_non_null(c->live);
        }
        it->at = c->n;
        c->live[c->n++] = it;
        c->asked += bytes;
    }
}

static double churn_ratio(struct churn *c, const char *what)
{
    struct memory_stats s;
    memory_get_stats(c->m, &s);
    double runs = 0;
    for (uint32_t i = 0; i < c->n; i++) runs += c->live[i]->e.nruns;
    double ratio = (double)s.used / (double)c->asked;
    printf("  %-42s used/live %.3f, free slots %5.2f %% of capacity, %6u live, %.2f runs each, %u evicted\n", what,
           ratio, 100.0 * (double)s.slab_wasted / (double)s.capacity, c->n, runs / c->n, (unsigned)c->evicted);
    c->evicted = 0;
    return ratio;
}

static void churn_end(struct churn *c)
{
    check_consistent(c->m);
    while (c->n) churn_evict(c, c->live[rnd() % c->n]);
    assert_true(memory_free_bytes(c->m) == (uint64_t)c->m->blocks * MEMORY_BLOCK_BYTES);
    check_consistent(c->m);
    free((void *)c->live);
    memory_destroy(c->m);
}

static void churn_story(bool use_sparse, double ratio[5])
{
    struct churn c = {.m = make(256 * MIB), .use_sparse = use_sparse};
    seed = 11;
    printf("churn with random eviction, 256 MiB, %s memory_sparse\n", use_sparse ? "with" : "without");
    churn_run(&c, 10, 20, 300000);
    ratio[0] = churn_ratio(&c, "1 KiB .. 1 MiB");
    churn_run(&c, 9, 14, 600000);
    ratio[1] = churn_ratio(&c, "then 512 B .. 16 KiB");
    churn_run(&c, 14, 20, 1000);
    ratio[2] = churn_ratio(&c, "then 16 KiB .. 1 MiB, at once");
    churn_run(&c, 14, 20, 50000);
    ratio[3] = churn_ratio(&c, "  settled");
    churn_run(&c, 9, 20, 300000);
    ratio[4] = churn_ratio(&c, "then 512 B .. 1 MiB");
    churn_end(&c);
}

static void test_churn_and_shifts_of_size_do_not_fragment(void **state)
{
    (void)state;
    double r[5];
    churn_story(false, r);
    /* alone it recovers in the long run; what happens in between is what memory_sparse is for */
    assert_true(r[0] < 1.3 && r[1] < 1.3);
    churn_story(true, r);
    for (unsigned i = 0; i < 5; i++) assert_true(r[i] < 1.2);
}

static bool hold_none(void *owner)
{
    (void)owner;
    return false;
}

static void test_sparse_names_each_owner_of_the_sparsest_slab_once(void **state)
{
    (void)state;
    struct memory *m = make(2 * MIB);
    struct extent e[32 * 64 + 1]; /* the last one fails */
    void *owner[MEMORY_SLOTS_MAX];
    unsigned n = 0;
    while (memory_alloc(m, 1024, &e[n]) == ERR_OK) {
        memory_set_owner(m, &e[n], &e[n]);
        n++;
    }
    assert_int_equal(n, 32 * 64);
    assert_int_equal(memory_sparse(m, hold_any, owner, MEMORY_SLOTS_MAX), 0); /* all full */
    for (unsigned i = 0; i < n; i++)
        if (i % 64 >= 40) memory_free(m, &e[i], false);                               /* each slab keeps 40 of 64 .. */
    for (unsigned i = 64 * 5 + 3; i < 64 * 5 + 40; i++) memory_free(m, &e[i], false); /* .. one keeps three */
    assert_int_equal(memory_sparse(m, hold_none, owner, MEMORY_SLOTS_MAX), 0);
    assert_int_equal(memory_sparse(m, hold_any, owner, MEMORY_SLOTS_MAX), 3);
    for (unsigned i = 0; i < 3; i++) assert_ptr_equal(owner[i], &e[64 * 5 + i]);
    for (unsigned i = 0; i < 3; i++) memory_free(m, owner[i], false);
    assert_true(memory_free_bytes(m) == MEMORY_BLOCK_BYTES);
    check_consistent(m);
    for (unsigned i = 0; i < n; i++)
        if (e[i].runs) memory_free(m, &e[i], false);
    assert_true(memory_free_bytes(m) == 2 * MIB);
    memory_destroy(m);
}

/* ---- punching ---- */

static void socket_pair_tcp(int *a, int *b)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof sa;
    int l = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(l, (struct sockaddr *)&sa, n), 0);
    assert_int_equal(listen(l, 1), 0);
    assert_int_equal(getsockname(l, (struct sockaddr *)&sa, &n), 0);
    *a = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(*a, (struct sockaddr *)&sa, n), 0);
    *b = accept(l, NULL, NULL);
    assert_true(*b >= 0);
    close(l);
}

/* Bytes given to sendfile and still unread keep their old content when the extent is freed with `punch` and filled again;
 * also when the kernel was asked to make huge pages of the mapping. */
static void test_punched_memory_does_not_show_new_bytes_to_an_old_reader(void **state)
{
    (void)state;
    struct memory *m = make(4 * MIB);
    struct extent e;
    int a, b;
    memset(m->base, 'x', 4 * MIB);
#ifdef MADV_COLLAPSE
    assert_true(madvise(m->base, 4 * MIB, MADV_COLLAPSE) < 0);
#endif
    m->cursor = 5;
    assert_int_equal(memory_alloc(m, MEMORY_BLOCK_BYTES, &e), ERR_OK);
    assert_int_equal(e.runs[0].block, 5);
    memset(memory_at(m, &e.runs[0]), 'o', MEMORY_BLOCK_BYTES);

    socket_pair_tcp(&a, &b);
    off_t at = (off_t)memory_offset(m, &e.runs[0]);
    ssize_t sent = sendfile(a, memory_fd(m), &at, MEMORY_BLOCK_BYTES);
    assert_true(sent > 0);
    memory_free(m, &e, true);
    m->cursor = 5;
    assert_int_equal(memory_alloc(m, MEMORY_BLOCK_BYTES, &e), ERR_OK);
    assert_int_equal(e.runs[0].block, 5);
    memset(memory_at(m, &e.runs[0]), 'n', MEMORY_BLOCK_BYTES);
    for (ssize_t got = 0; got < sent;) {
        char buf[4096];
        ssize_t n = read(b, buf, sizeof buf);
        assert_true(n > 0);
        for (ssize_t i = 0; i < n; i++)
            if (buf[i] != 'o') fail_msg("byte %zd is '%c'", got + i, buf[i]);
        got += n;
    }
    struct memory_stats s;
    memory_get_stats(m, &s);
    assert_true(s.punched == MEMORY_BLOCK_BYTES && s.retired == 0);
    close(a);
    close(b);
    memory_free(m, &e, false);
    memory_destroy(m);
}

static void test_blocks_the_kernel_will_not_punch_are_never_used_again(void **state)
{
    (void)state;
    struct memory *m = make(MIB);
    struct extent e;
    struct memory_stats s;
    assert_int_equal(memory_alloc(m, 3 * MEMORY_BLOCK_BYTES + 700, &e), ERR_OK);
    int fd = m->fd;
    uint8_t *base = m->base;
    m->fd = -1;
    m->base = (uint8_t *)1; /* unaligned: madvise fails as well */
    memory_free(m, &e, true);
    m->fd = fd;
    m->base = base;
    memory_get_stats(m, &s);
    assert_true(s.retired == 3 * MEMORY_BLOCK_BYTES && s.used == s.retired && s.slab_bytes == 0 && s.punched == 0);
    memory_destroy(m);
}

/* ---- threads ---- */

static void *thread_churn(void *arg)
{
    enum { N = 200 };
    struct memory *m = arg;
    struct extent e[N] = {0};
    struct iovec iov[64];
    uint64_t s = (uint64_t)(uintptr_t)&s;
    for (unsigned op = 0; op < 20000; op++) {
        s = s * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        unsigned i = (unsigned)(s >> 33) % N;
        if (e[i].runs) {
            memory_free(m, &e[i], op % 61 == 0);
        } else if (memory_alloc(m, 1 + (uint32_t)(s >> 40) % 200000 / (1 + op % 50), &e[i]) == ERR_OK) {
            memory_set_owner(m, &e[i], &e[i]);
            unsigned n = memory_iov(m, &e[i], 0, e[i].bytes, iov, 64);
            for (unsigned k = 0; k < n; k++) memset(iov[k].iov_base, (int)i, iov[k].iov_len < 64 ? iov[k].iov_len : 64);
        } else {
            void *owner[MEMORY_SLOTS_MAX];
            memory_sparse(m, hold_none, owner, MEMORY_SLOTS_MAX);
        }
    }
    for (unsigned i = 0; i < N; i++)
        if (e[i].runs) memory_free(m, &e[i], false);
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct memory *m = make(16 * MIB);
    pthread_t t[4];
    for (unsigned i = 0; i < 4; i++) assert_int_equal(pthread_create(&t[i], NULL, thread_churn, m), 0);
    for (unsigned i = 0; i < 4; i++) pthread_join(t[i], NULL);
    assert_true(memory_free_bytes(m) == 16 * MIB);
    check_consistent(m);
    memory_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_rounds_down_and_starts_empty),
        cmocka_unit_test(test_more_than_the_machine_has_is_refused_with_a_reason),
        cmocka_unit_test(test_limits_of_a_cgroup_and_its_parents),
        cmocka_unit_test(test_file_size_limit_is_a_reason_not_a_signal),
        cmocka_unit_test(test_plan_covers_every_size_and_loses_less_than_an_eighth),
        cmocka_unit_test(test_rounding_loss_of_real_allocations_tails_included),
        cmocka_unit_test(test_one_slice_is_one_contiguous_run),
        cmocka_unit_test(test_scattered_blocks_still_make_a_slice),
        cmocka_unit_test(test_failed_allocation_takes_nothing),
        cmocka_unit_test(test_iov_gives_exactly_the_bytes_asked_for),
        cmocka_unit_test(test_extents_never_overlap),
        cmocka_unit_test(test_churn_and_shifts_of_size_do_not_fragment),
        cmocka_unit_test(test_sparse_names_each_owner_of_the_sparsest_slab_once),
        cmocka_unit_test(test_punched_memory_does_not_show_new_bytes_to_an_old_reader),
        cmocka_unit_test(test_blocks_the_kernel_will_not_punch_are_never_used_again),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
