/* test_origin_pool.c - the keepalive pool: the bound over all workers, who gets the next connection, idle connections. */
#include "origin_env.h"

#include "origin/http.h"
#include "origin/pool.h"

static struct server server;
static struct origin_conf conf;
static struct env env;

static int setup(void **state)
{
    (void)state;
    server_start(&server);
    conf = env_conf(server.port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_stop(&server);
    return 0;
}

static struct origin_stats *stats(void) { return origin_worker_stats(env.worker); }

static enum err end_of(const char *path)
{
    struct get g;
    get_path(&g, &env, path, 1 << 16);
    enum err e = g.end;
    get_free(&g);
    return e;
}

/* n calls at once; returns how many ended well. */
static unsigned many(unsigned n, const char *path)
{
    struct get *g = calloc(n, sizeof *g);
    unsigned left = n, good = 0;
    for (unsigned i = 0; i < n; i++) {
        get_init(&g[i], &env, path, 1 << 16);
        g[i].left = &left;
        get_submit(&g[i]);
    }
    assert_true(env_run(&env, 20000));
    for (unsigned i = 0; i < n; i++) {
        good += g[i].end == ERR_OK && g[i].ends == 1;
        get_free(&g[i]);
    }
    free(g);
    return good;
}

static void test_connections_are_reused(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 50; i++) assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_int_equal(atomic_load(&server.accepted), 1);
    assert_int_equal(stat_get(&stats()->conn_created), 1);
    assert_int_equal(stat_get(&stats()->conn_reused), 49);
    assert_int_equal(stat_get(&stats()->conn_open), 1);
    assert_int_equal(stat_get(&stats()->conn_idle), 1);
    env_close(&env);
}

static struct get chain[30];
static unsigned chain_next;

static void chain_on(struct get *g)
{
    (void)g;
    if (chain_next == ARRAY_LEN(chain)) return;
    struct get *n = &chain[chain_next++];
    get_submit(n);
}

static void test_a_call_from_end_takes_the_connection_just_freed(void **state)
{
    (void)state;
    unsigned left = ARRAY_LEN(chain);
    env_open(&env, &conf, NULL);
    for (size_t i = 0; i < ARRAY_LEN(chain); i++) {
        get_init(&chain[i], &env, "/size/1000", 1001);
        chain[i].on_end = chain_on;
        chain[i].left = &left;
    }
    chain_next = 1;
    get_submit(&chain[0]);
    assert_true(env_run(&env, 10000));
    for (size_t i = 0; i < ARRAY_LEN(chain); i++) {
        assert_int_equal(chain[i].end, ERR_OK);
        get_free(&chain[i]);
    }
    assert_int_equal(atomic_load(&server.accepted), 1);
    env_close(&env);
}

static void test_max_is_never_exceeded_and_all_are_served(void **state)
{
    (void)state;
    conf.connections_max = 4;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(60, "/late/5"), 60);
    assert_true(atomic_load(&server.open_max) <= 4);
    assert_int_equal(atomic_load(&server.accepted), 4);
    assert_int_equal(stat_get(&stats()->waiting), 0);
    env_close(&env);
}

static void test_waiting_too_long_is_overload(void **state)
{
    (void)state;
    struct get a, b;
    unsigned left = 2;
    conf.connections_max = 1;
    conf.operation_ms = 200;
    env_open(&env, &conf, NULL);
    get_init(&a, &env, "/mute", 10);
    get_init(&b, &env, "/size/1", 10);
    a.left = b.left = &left;
    get_submit(&a);
    get_submit(&b);
    assert_true(env_run(&env, 5000));
    assert_int_equal(a.end, ERR_OPERATION_TIMEOUT);
    assert_int_equal(b.end, ERR_OVERLOAD);
    get_free(&a);
    get_free(&b);
    env_close(&env);
}

static struct http_worker *http_worker(void) { return env.worker->priv; }

static void test_most_recently_used_first(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(5, "/late/20"), 5);
    assert_int_equal(stat_get(&stats()->conn_idle), 5);
    assert_int_equal(end_of("/size/1"), ERR_OK);
    struct conn_wait w;
    conn_wait_init(&w);
    struct conn *first = conn_pool_get(http_worker()->pool, &w);
    assert_non_null(first);
    conn_pool_put(http_worker()->pool, first);
    for (int i = 0; i < 5; i++) { /* always the same one: the others may fall idle */
        struct conn *c = conn_pool_get(http_worker()->pool, &w);
        assert_ptr_equal(c, first);
        conn_pool_put(http_worker()->pool, c);
    }
    env_run(&env, 1);
    env_close(&env);
}

static void test_idle_timeout(void **state)
{
    (void)state;
    conf.idle_timeout_ms = 400;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(3, "/late/20"), 3);
    for (int i = 0; i < 4; i++) { /* one is kept busy now and then, the others go */
        env_run(&env, 150);
        assert_int_equal(end_of("/size/1"), ERR_OK);
    }
    assert_int_equal(stat_get(&stats()->conn_open), 1);
    env_run(&env, 600);
    assert_int_equal(stat_get(&stats()->conn_open), 0);
    assert_int_equal(stat_get(&stats()->conn_idle), 0);
    assert_int_equal(atomic_load(&server.accepted), 3);
    env_close(&env);
}

static void test_idle_close_by_the_origin_is_noticed(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/idle/50"), ERR_OK);
    assert_int_equal(stat_get(&stats()->conn_idle), 1);
    env_run(&env, 200);
    assert_int_equal(stat_get(&stats()->conn_idle), 0);
    assert_int_equal(stat_get(&stats()->conn_open), 0);
    assert_int_equal(end_of("/size/1"), ERR_OK);
    assert_int_equal(stat_get(&stats()->retries), 0);
    env_close(&env);
}

static void test_an_origin_that_always_closes_idle_connections(void **state)
{
    (void)state;
    struct timespec t = {.tv_nsec = 3000000};
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 60; i++) { /* closing races with reuse: no call may notice */
        assert_int_equal(end_of("/idle/1"), ERR_OK);
        if (i % 3) nanosleep(&t, NULL);
    }
    env_close(&env);
}

static void test_failed_connects_give_their_slots_back(void **state)
{
    (void)state;
    unsigned port;
    int fd = listen_any(&port);
    conf.endpoint.port = port;
    conf.connections_max = 2;
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 5; i++) assert_int_equal(many(6, "/size/1"), 0);
    assert_int_equal(stat_get(&stats()->errors_connect), 30);
    env_close(&env); /* checks that no slot is left */
    close(fd);
}

static void test_a_spare_connect_serves_whoever_comes_next(void **state)
{
    (void)state;
    struct get g;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/size/1", 10);
    get_submit(&g);
    env_run(&env, 0);
    if (!g.done) origin_cancel(g.call);
    get_free(&g);
    env_run(&env, 50);
    assert_int_equal(end_of("/size/1"), ERR_OK);
    assert_int_equal(atomic_load(&server.accepted), 1);
    env_close(&env);
}

/* ---- several workers */

#define WORKERS 4
struct crew {
    struct origin *origin;
    unsigned index, calls, at_once, started, ended, good;
    uint64_t start_after_ms, longest_ms;
    const char *path;
    struct env env;
    struct get *gets;
    uint64_t *since;
    bool idle_first; /* warm up, then sit on idle connections until told */
    _Atomic bool *stop;
};

static void crew_end(struct get *g);

static void crew_start(struct crew *c)
{
    struct get *g = &c->gets[c->started];
    get_init(g, &c->env, c->path, 1 << 16);
    g->arg = c;
    g->on_end = crew_end;
    unsigned *never = malloc(sizeof *never);
    *never = 2;
    g->left = never;
    c->since[c->started++] = clock_ns();
    get_submit(g);
}

static void crew_end(struct get *g)
{
    struct crew *c = g->arg;
    uint64_t ms = (clock_ns() - c->since[g - c->gets]) / 1000000;
    if (ms > c->longest_ms) c->longest_ms = ms;
    c->good += g->end == ERR_OK;
    free(g->left);
    get_free(g);
    if (++c->ended == c->calls)
        loop_stop(c->env.loop);
    else if (c->started < c->calls)
        crew_start(c);
}

static void *crew_main(void *arg)
{
    struct crew *c = arg;
    env_open_worker(&c->env, c->origin, c->index);
    c->gets = calloc(c->calls, sizeof *c->gets);
    c->since = calloc(c->calls, sizeof *c->since);
    if (c->start_after_ms) env_run(&c->env, c->start_after_ms);
    for (unsigned i = 0; i < c->at_once && i < c->calls; i++) crew_start(c);
    bool in_time = env_run(&c->env, 60000);
    if (c->idle_first) /* go on living with what is idle */
        while (!atomic_load(c->stop)) env_run(&c->env, 10);
    if (!in_time) fprintf(stderr, "worker %u: %u of %u\n", c->index, c->ended, c->calls);
    free(c->gets);
    free(c->since);
    if (in_time) env_close_worker(&c->env);
    return NULL;
}

static struct origin *crew_origin(unsigned nworkers)
{
    struct origin *o = NULL;
    char msg[128];
    assert_int_equal(origin_create(&conf, nworkers, NULL, &o, msg, sizeof msg), ERR_OK);
    return o;
}

static void crew_go(struct crew *crews, unsigned n)
{
    pthread_t t[WORKERS];
    for (unsigned i = 0; i < n; i++) assert_int_equal(pthread_create(&t[i], NULL, crew_main, &crews[i]), 0);
    for (unsigned i = 0; i < n; i++) pthread_join(t[i], NULL);
}

static void crew_check(unsigned max, unsigned calls, unsigned at_once, const char *path)
{
    struct crew crews[WORKERS] = {0};
    conf.connections_max = max;
    struct origin *o = crew_origin(WORKERS);
    for (unsigned i = 0; i < WORKERS; i++)
        crews[i] = (struct crew){.origin = o, .index = i, .calls = calls, .at_once = at_once, .path = path};
    crew_go(crews, WORKERS);
    for (unsigned i = 0; i < WORKERS; i++) assert_int_equal(crews[i].good, calls);
    assert_int_equal(slots_open_any_thread(((struct http_origin *)o->priv)->slots), 0);
    origin_destroy(o);
}

static void test_max_over_all_workers(void **state)
{
    (void)state;
    crew_check(6, 60, 5, "/late/2");
    /* Counted by requests: the server learns of a closed connection a moment after room was made for the next. */
    assert_in_range(atomic_load(&server.late_max), 1, 6);
}

static void test_fewer_connections_than_workers(void **state)
{
    (void)state;
    crew_check(1, 25, 2, "/size/100");
    crew_check(2, 25, 3, "/late/1");
}

static void test_idle_connections_of_others_are_given_up_at_once(void **state)
{
    (void)state;
    _Atomic bool stop = false;
    struct crew crews[2] = {0};
    pthread_t t;
    conf.connections_max = 3;
    conf.idle_timeout_ms = 60000;
    struct origin *o = crew_origin(2);
    crews[0] = (struct crew){
        .origin = o, .index = 0, .calls = 3, .at_once = 3, .path = "/late/30", .idle_first = true, .stop = &stop};
    crews[1] =
        (struct crew){.origin = o, .index = 1, .calls = 3, .at_once = 3, .path = "/size/1", .start_after_ms = 300};
    assert_int_equal(pthread_create(&t, NULL, crew_main, &crews[0]), 0);
    crew_main(&crews[1]);
    atomic_store(&stop, true);
    pthread_join(t, NULL);
    assert_int_equal(crews[1].good, 3);
    assert_true(crews[1].longest_ms < 2000);
    assert_true(atomic_load(&server.accepted) >= 4); /* one that was handed over may have served all */
    origin_destroy(o);
}

static void test_a_busy_worker_does_not_starve_another(void **state)
{
    (void)state;
    struct crew crews[2] = {0};
    conf.connections_max = 2;
    struct origin *o = crew_origin(2);
    crews[0] = (struct crew){.origin = o, .index = 0, .calls = 300, .at_once = 20, .path = "/late/5"};
    crews[1] =
        (struct crew){.origin = o, .index = 1, .calls = 5, .at_once = 1, .path = "/size/1", .start_after_ms = 50};
    uint64_t start = clock_ns();
    crew_go(crews, 2);
    assert_int_equal(crews[0].good, 300);
    assert_int_equal(crews[1].good, 5);
    /* 300 calls of 5 ms over 2 connections take 750 ms and more; none of the few waits for the end of that. */
    assert_true(crews[1].longest_ms < (clock_ns() - start) / 1000000 / 2);
    origin_destroy(o);
}

static void test_a_worker_leaves_while_others_wait(void **state)
{
    (void)state;
    struct crew crews[3] = {0};
    conf.connections_max = 1;
    struct origin *o = crew_origin(3);
    crews[0] = (struct crew){.origin = o, .index = 0, .calls = 1, .at_once = 1, .path = "/late/30"};
    crews[1] = (struct crew){.origin = o, .index = 1, .calls = 40, .at_once = 4, .path = "/size/1"};
    crews[2] = (struct crew){.origin = o, .index = 2, .calls = 3, .at_once = 3, .path = "/late/3"};
    crew_go(crews, 3);
    for (int i = 0; i < 3; i++) assert_int_equal(crews[i].good, crews[i].calls);
    origin_destroy(o);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_connections_are_reused),
        T(test_a_call_from_end_takes_the_connection_just_freed),
        T(test_max_is_never_exceeded_and_all_are_served),
        T(test_waiting_too_long_is_overload),
        T(test_most_recently_used_first),
        T(test_idle_timeout),
        T(test_idle_close_by_the_origin_is_noticed),
        T(test_an_origin_that_always_closes_idle_connections),
        T(test_failed_connects_give_their_slots_back),
        T(test_a_spare_connect_serves_whoever_comes_next),
        T(test_max_over_all_workers),
        T(test_fewer_connections_than_workers),
        T(test_idle_connections_of_others_are_given_up_at_once),
        T(test_a_busy_worker_does_not_starve_another),
        T(test_a_worker_leaves_while_others_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
