/* test_origin_h2.c - origins over HTTP/2: prior knowledge and ALPN, who goes over which protocol, sharing of connections,
 * free retries, what several connections are opened for. */
#include "origin_env.h"

#include <netinet/tcp.h>

#include "h2_origin.h"
#include "origin/choice.c"
#include "origin/climb.c"
#include "origin/h2_pool.c"
#undef POOL_MAGIC
#undef CONN_MAGIC
#include "origin/http.h"

static struct h2_origin server;
static struct origin_conf conf;
static struct env env;

static int start(int tls, enum origin_http2 mode)
{
    h2_origin_start(&server, tls);
    conf = env_conf(server.port);
    conf.http2 = mode;
    conf.endpoint.https = tls;
    conf.tls_verify = false;
    return 0;
}
static int setup(void **state)
{
    (void)state;
    return start(H2_TLS_NONE, HTTP2_PRIOR_KNOWLEDGE);
}
static int setup_tls(void **state)
{
    (void)state;
    return start(H2_TLS_BOTH, HTTP2_AUTO);
}
static int setup_tls_h1(void **state)
{
    (void)state;
    return start(H2_TLS_H1_ONLY, HTTP2_AUTO);
}
static int setup_tls_h2(void **state)
{
    (void)state;
    return start(H2_TLS_H2_ONLY, HTTP2_AUTO);
}
static int teardown(void **state)
{
    (void)state;
    h2_origin_stop(&server);
    return 0;
}

static struct origin_stats *stats(void) { return origin_worker_stats(env.worker); }
static struct http_worker *http_worker(void) { return env.worker->priv; }
static struct http_origin *http_origin(void) { return env.origin->priv; }

static enum err end_of(const char *path)
{
    struct get g;
    get_path(&g, &env, path, 1 << 20);
    assert_int_equal(g.ends, 1);
    enum err e = g.end;
    get_free(&g);
    return e;
}

/* n calls at once; returns how many ended well with the right bytes. */
static unsigned many(unsigned n, const char *path, size_t size)
{
    struct get *g = calloc(n, sizeof *g);
    unsigned left = n, good = 0;
    for (unsigned i = 0; i < n; i++) {
        get_init(&g[i], &env, path, size + 1);
        g[i].left = &left;
        get_submit(&g[i]);
    }
    assert_true(env_run(&env, 30000));
    for (unsigned i = 0; i < n; i++) {
        good += g[i].end == ERR_OK && g[i].ends == 1 && g[i].status == 200 && (!size || get_is_pattern(&g[i], 0, size));
        get_free(&g[i]);
    }
    free(g);
    return good;
}

static const char *choice_now(void)
{
    const char *choice, *why;
    origin_protocol_choice(env.origin, &choice, &why);
    return choice;
}
static const char *why_now(void)
{
    const char *choice, *why;
    origin_protocol_choice(env.origin, &choice, &why);
    return why;
}

/* ---- prior knowledge */

static void test_many_calls_share_a_connection(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(80, "/size/20000", 20000), 80);
    assert_int_equal(atomic_load(&server.shared.accepted), 1);
    for (int i = 0; i < 20; i++) assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_int_equal(atomic_load(&server.shared.accepted), 1);
    assert_int_equal(stat_get(&stats()->h2_requests), 100);
    assert_int_equal(stat_get(&stats()->h2_open), 1);
    assert_int_equal(stat_get(&stats()->conn_open), 1);
    assert_int_equal(stat_get(&stats()->conn_idle), 1);
    assert_int_equal(stat_get(&stats()->waiting), 0);
    assert_string_equal(choice_now(), "h2");
    env_close(&env);
}

static void test_a_thousand_calls_of_mixed_sizes(void **state)
{
    (void)state;
    enum { CALLS = 1000 };
    static struct get g[CALLS];
    static char paths[CALLS][32];
    unsigned left = CALLS;
    env_open(&env, &conf, NULL);
    for (unsigned i = 0; i < CALLS; i++) {
        size_t size = i % 10 == 0 ? 300000 + i : i * 7;
        snprintf(paths[i], sizeof paths[i], "/size/%zu", size);
        get_init(&g[i], &env, paths[i], size + 1);
        g[i].left = &left;
        get_submit(&g[i]);
    }
    assert_true(env_run(&env, 60000));
    for (unsigned i = 0; i < CALLS; i++) {
        size_t size = i % 10 == 0 ? 300000 + i : i * 7;
        assert_int_equal(g[i].end, ERR_OK);
        assert_true(get_is_pattern(&g[i], 0, size));
        get_free(&g[i]);
    }
    assert_true(atomic_load(&server.shared.open_max) >= 2); /* beyond 100 at once on each */
    assert_true(atomic_load(&server.shared.streams_max) <= 100);
    env_close(&env);
}

static void test_stream_limit_opens_connections_up_to_max(void **state)
{
    (void)state;
    server.shared.max_streams = 2;
    conf.connections_max = 3;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(200, "/size/1000", 1000), 200);
    assert_true(atomic_load(&server.shared.open_max) <= 3);
    env_close(&env);
}

static void test_a_limit_of_one_stream(void **state)
{
    (void)state;
    server.shared.max_streams = 1;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(300, "/size/1000", 1000), 300); /* nobody is refused again and again */
    assert_true(atomic_load(&server.shared.open_max) <= 16);
    assert_true(atomic_load(&server.shared.open_max) > 2);
    env_close(&env);
}

static void test_idle_connections_are_closed(void **state)
{
    (void)state;
    conf.idle_timeout_ms = 100;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_int_equal(stat_get(&stats()->conn_idle), 1);
    assert_false(env_run(&env, 250));
    assert_int_equal(stat_get(&stats()->conn_idle), 0);
    assert_int_equal(stat_get(&stats()->conn_open), 0);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    env_close(&env);
}

static void test_what_is_sent(void **state)
{
    (void)state;
    struct get g;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/echo", 4096);
    g.r.has_range = true;
    g.r.first = 5;
    g.r.last = 10;
    g.r.if_match = STR_LIT("\"tag\"");
    get_run(&g);
    g.buf[g.n] = '\0';
    char authority[64];
    snprintf(authority, sizeof authority, ":authority: 127.0.0.1:%u\n", server.port);
    assert_non_null(strstr((char *)g.buf, authority));
    assert_non_null(strstr((char *)g.buf, "range: bytes=5-10\n"));
    assert_non_null(strstr((char *)g.buf, "if-match: \"tag\"\n"));
    get_free(&g);
    env_close(&env);
}

static void test_s3_signs_over_h2(void **state)
{
    (void)state;
    struct get g;
    conf.type = ORIGIN_S3;
    conf.creds.source = CREDS_STATIC;
    conf.creds.access_key = "AKIDEXAMPLE";
    conf.creds.secret_key = "secret";
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/ignored", 4096);
    g.r.address = (struct s3_address){.bucket = STR_LIT("echo"), .key = STR_LIT("")};
    get_run(&g);
    g.buf[g.n] = '\0';
    assert_non_null(strstr((char *)g.buf, "ok"));
    get_free(&g);
    env_close(&env);
}

/* ---- failures */

static void test_refused_streams_are_retried_free(void **state)
{
    (void)state;
    server.shared.refuse = 3;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/refuse"), ERR_OK);
    assert_int_equal(stat_get(&stats()->h2_refused), 3);
    assert_int_equal(stat_get(&stats()->retries), 3);
    server.shared.refuse = 1000;
    assert_int_equal(end_of("/refuse"), ERR_RESET);
    env_close(&env);
}

static void test_posts_are_retried_when_unprocessed(void **state)
{
    (void)state;
    struct get g;
    server.shared.refuse = 1;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/refuse", 100);
    g.r.method = METHOD_POST;
    g.r.method_text = STR_LIT("POST");
    g.r.send_zero_length = true;
    get_run(&g);
    assert_int_equal(g.end, ERR_OK);
    get_free(&g);
    env_close(&env);
}

static void test_goaway_moves_the_rest_elsewhere(void **state)
{
    (void)state;
    struct get slow, above;
    unsigned left = 2;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_OK);
    get_init(&slow, &env, "/late/150", 10);
    get_init(&above, &env, "/goaway", 10);
    slow.left = above.left = &left;
    get_submit(&slow);
    get_submit(&above);
    assert_true(env_run(&env, 5000));
    assert_int_equal(slow.end, ERR_OK);
    assert_int_equal(above.end, ERR_OK);
    assert_int_equal(atomic_load(&server.shared.accepted), 2);
    assert_int_equal(stat_get(&stats()->retries), 1);
    get_free(&slow);
    get_free(&above);
    for (int i = 0; i < 30; i++) assert_int_equal(end_of("/bye"), ERR_OK);
    assert_false(env_run(&env, 50));
    assert_int_equal(stat_get(&stats()->h2_open), 0 + stat_get(&stats()->conn_open));
    assert_true(stat_get(&stats()->h2_goaways) >= 30);
    env_close(&env);
}

static void test_free_retry_on_a_reused_connection(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    assert_int_equal(end_of("/once"), ERR_OK);
    assert_int_equal(stat_get(&stats()->retries), 1);
    enum err e = end_of("/close");
    assert_true(e == ERR_CLOSED || e == ERR_RESET);
    env_close(&env);
}

static void test_failures_have_their_names(void **state)
{
    (void)state;
    conf.first_byte_ms = 100;
    conf.stall_ms = 150;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/rst/100000/1000"), ERR_RESET);
    assert_int_equal(end_of("/cut/1000/10"), ERR_TRUNCATED);
    assert_int_equal(end_of("/badname"), ERR_PROTOCOL);
    assert_int_equal(end_of("/mute"), ERR_FIRST_BYTE_TIMEOUT);
    assert_int_equal(end_of("/stall/1000/10"), ERR_STALL_TIMEOUT);
    assert_int_equal(atomic_load(&server.shared.accepted), 1);
    assert_int_equal(stat_get(&stats()->errors_timeout), 2);
    assert_int_equal(stat_get(&stats()->errors_protocol), 1);
    assert_int_equal(stat_get(&stats()->errors_reset), 2);
    env_close(&env);
}

static void test_operation_timeout_and_refused_connects(void **state)
{
    (void)state;
    unsigned port;
    int fd = listen_any(&port);
    conf.operation_ms = 100;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/mute"), ERR_OPERATION_TIMEOUT);
    env_close(&env);
    conf.endpoint.port = port;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(10, "/size/1", 1), 0);
    assert_int_equal(stat_get(&stats()->waiting), 0);
    assert_int_equal(stat_get(&stats()->conn_open), 0);
    env_close(&env);
    close(fd);
}

static void test_an_origin_that_does_not_speak_h2(void **state)
{
    (void)state;
    struct server plain;
    server_start(&plain);
    conf.endpoint.port = plain.port;
    conf.first_byte_ms = 300;
    env_open(&env, &conf, NULL);
    assert_int_not_equal(end_of("/size/1"), ERR_OK);
    env_close(&env);
    server_stop(&plain);
}

/* ---- cancels and pauses through the whole way */

static void test_cancel_inside_every_event(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    for (int where = CANCEL_HEAD; where <= CANCEL_END; where++) {
        struct get g;
        get_init(&g, &env, "/size/500000", 500001);
        g.cancel_in = where;
        get_run(&g);
        assert_true(g.cancelled);
        assert_int_equal(g.ends, where == CANCEL_END);
        env_run(&env, 20);
        get_free(&g);
    }
    assert_int_equal(stat_get(&stats()->in_flight), 0);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_int_equal(atomic_load(&server.shared.accepted), 1);
    env_close(&env);
}

static void test_cancel_at_any_moment(void **state)
{
    (void)state;
    for (unsigned ms = 0; ms < 20; ms++) {
        struct get g, h;
        env_open(&env, &conf, NULL);
        get_init(&g, &env, ms % 2 ? "/size/20000000" : "/late/15", 20000001);
        get_init(&h, &env, "/mute", 10);
        get_submit(&g);
        get_submit(&h);
        if (ms) env_run(&env, ms);
        if (!g.done) origin_cancel(g.call);
        if (!h.done) origin_cancel(h.call);
        env_close(&env);
        get_free(&g);
        get_free(&h);
    }
}

static void test_pause_holds_the_origin_back(void **state)
{
    (void)state;
    struct get g;
    const size_t size = 32u << 20;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/size/33554432", size);
    g.pause_at = 1 << 20;
    get_submit(&g);
    assert_false(env_run(&env, 200));
    assert_true(g.paused);
    assert_int_equal(g.n, 1 << 20);
    assert_int_equal(end_of("/size/1000"), ERR_OK); /* meanwhile others go on */
    g.paused = false;
    g.pause_at = SIZE_MAX;
    origin_resume(g.call);
    assert_true(env_run(&env, 15000));
    assert_int_equal(g.end, ERR_OK);
    assert_true(get_is_pattern(&g, 0, size));
    get_free(&g);
    env_close(&env);
}

/* ---- several connections for bulk */

static void test_bulk_that_one_connection_limits_gets_more(void **state)
{
    (void)state;
    enum { CALLS = 24 };
    static struct get g[CALLS];
    unsigned left = CALLS;
    const size_t size = 8u << 20;
    server.shared.bytes_per_step = 32768; /* each connection is slow, all together are not */
    env_open(&env, &conf, NULL);
    for (unsigned i = 0; i < CALLS; i++) {
        get_init(&g[i], &env, "/size/8388608", size);
        g[i].r.has_range = true;
        g[i].r.last = size - 1;
        g[i].r.if_match = STR_LIT("\"t\"");
        g[i].left = &left;
    }
    for (unsigned i = 0; i < 12; i++) get_submit(&g[i]);
    assert_false(env_run(&env, 400)); /* one connection, measured */
    for (unsigned i = 12; i < CALLS; i++) get_submit(&g[i]);
    assert_true(env_run(&env, 60000));
    for (unsigned i = 0; i < CALLS; i++) {
        assert_int_equal(g[i].end, ERR_OK);
        assert_true(get_is_pattern(&g[i], 0, size));
        get_free(&g[i]);
    }
    assert_true(atomic_load(&server.shared.open_max) >= 2);
    env_close(&env);
}

static void test_climb(void **state)
{
    (void)state;
    struct climb c;
    uint64_t now = 0;
    climb_init(&c, 1, 16);
    /* 10 MB/s each up to 4 connections, no more beyond. */
    for (int i = 0; i < 200; i++, now += 100)
        climb_period(&c, now, c.target, 1000000 * (c.target < 4 ? c.target : 4), 100, true);
    assert_int_equal(c.target, 4);
    assert_int_equal(c.before, 0);
    for (int i = 0; i < 30; i++, now += 100) climb_period(&c, now, 4, 10, 100, false); /* little to do: says nothing */
    assert_int_equal(c.target, 4);
    climb_stop(&c, now, 2);
    assert_int_equal(c.target, 2);
    for (int i = 0; i < 30; i++, now += 100) climb_period(&c, now, c.target, 1000000 * c.target, 100, true);
    assert_int_equal(c.target, 2); /* not before a minute has passed */
    now += CLIMB_REST_MS;
    for (int i = 0; i < 30; i++, now += 100) climb_period(&c, now, c.target, 1000000 * c.target, 100, true);
    assert_int_equal(c.target, 16);
    /* Those that fall idle are not missed, but for the few to begin with. */
    climb_init(&c, 4, 16);
    assert_int_equal(c.target, 4);
    climb_period(&c, now, 1, 1000, 100, true);
    assert_int_equal(c.target, 4);
    climb_stop(&c, now, 2);
    climb_period(&c, now, 1, 1000, 100, true);
    assert_int_equal(c.target, 2);
    climb_init(&c, 4, 2);
    assert_int_equal(c.target, 2);
}

/* ---- auto */

static struct get bulk_get;
static enum err bulk(void)
{
    get_init(&bulk_get, &env, "/size/2000000", 2000000);
    bulk_get.r.has_range = true;
    bulk_get.r.last = 1999999;
    bulk_get.r.if_match = STR_LIT("\"t\"");
    get_run(&bulk_get);
    assert_true(get_is_pattern(&bulk_get, 0, 2000000));
    enum err e = bulk_get.end;
    get_free(&bulk_get);
    return e;
}

static void test_auto_small_over_h2_bulk_over_h1(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_string_equal(choice_now(), "http/1.1");
    assert_string_equal(why_now(), "the origin has not been asked for h2 yet");
    for (int i = 0; i < 10; i++) assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_int_equal(stat_get(&stats()->h2_requests), 10);
    assert_int_equal(atomic_load(&server.shared.h1), 0);
    assert_string_equal(choice_now(), "h2 for small, http/1.1 for bulk");
    for (int i = 0; i < 5; i++) assert_int_equal(bulk(), ERR_OK);
    assert_int_equal(stat_get(&stats()->h2_requests), 10);
    assert_int_equal(atomic_load(&server.shared.h1), 1);
    assert_int_equal(many(50, "/size/5000", 5000), 50);
    struct origin_protocol_seen seen;
    origin_protocol_seen(env.origin, &seen);
    assert_true(seen.first_byte_us[PROTO_H2] > 0);
    assert_true(seen.bulk_bytes_per_s[PROTO_H1] > 0);
    env_close(&env);
}

static void test_auto_unknown_lengths_follow_what_was_usual(void **state)
{
    (void)state;
    struct get g;
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 8; i++) {
        get_init(&g, &env, "/size/3000000", 3000000);
        g.r.has_range = true; /* as when an object is asked for that nobody knows yet */
        g.r.last = 8388607;
        get_run(&g);
        assert_int_equal(g.end, ERR_OK);
        get_free(&g);
    }
    assert_true(stat_get(&stats()->h2_requests) < 8); /* the first ones: nothing was known */
    assert_true(atomic_load(&server.shared.h1) > 0);
    env_close(&env);
}

static void test_auto_without_tls_is_h1(void **state)
{
    (void)state;
    struct server plain;
    server_start(&plain);
    conf = env_conf(plain.port);
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    assert_null(http_worker()->h2_pool);
    assert_string_equal(choice_now(), "http/1.1");
    env_close(&env);
    server_stop(&plain);
}

static void test_off_is_h1(void **state)
{
    (void)state;
    conf.http2 = HTTP2_OFF;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(20, "/size/100", 100), 20);
    assert_null(http_worker()->h2_pool);
    assert_int_equal(stat_get(&stats()->h2_requests), 0);
    assert_string_equal(why_now(), "configured: http2 off");
    env_close(&env);
}

static void test_auto_with_an_origin_without_h2(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(20, "/size/100", 100), 20);
    assert_int_equal(stat_get(&stats()->h2_requests), 0);
    assert_int_equal(stat_get(&stats()->h2_open), 0);
    assert_string_equal(why_now(), "the origin does not offer h2");
    assert_int_equal(atomic_load(&server.shared.accepted), atomic_load(&server.shared.h1)); /* none was thrown away */
    assert_int_equal(bulk(), ERR_OK);
    env_close(&env);
}

static void test_auto_with_an_origin_without_h1(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(bulk(), ERR_OK); /* a try over HTTP/1.1 that nobody is told of */
    assert_int_equal(stat_get(&stats()->h2_requests), 1);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    for (int i = 0; i < 5; i++) assert_int_equal(bulk(), ERR_OK);
    assert_int_equal(stat_get(&stats()->h2_requests), 7);
    assert_true(stat_get(&stats()->conn_created) <= 3); /* h1 was tried twice: before and after h2 was known */
    assert_string_equal(choice_now(), "h2");
    env_close(&env);
}

static void test_prior_knowledge_over_tls(void **state)
{
    (void)state;
    conf.http2 = HTTP2_PRIOR_KNOWLEDGE;
    env_open(&env, &conf, NULL);
    assert_int_equal(many(20, "/size/100000", 100000), 20);
    assert_int_equal(bulk(), ERR_OK);
    assert_int_equal(stat_get(&stats()->h2_requests), 21);
    assert_int_equal(atomic_load(&server.shared.h1), 0);
    env_close(&env);
}

static void test_h1_required_goes_over_h1(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/h1"), ERR_OK);
    assert_int_equal(atomic_load(&server.shared.h1), 1);
    assert_int_equal(stat_get(&stats()->retries), 1);
    env_close(&env);
}

static void test_both_pools_share_the_slots(void **state)
{
    (void)state;
    conf.connections_max = 1;
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 5; i++) { /* the idle connection of the one is given up for the other */
        assert_int_equal(end_of("/size/100"), ERR_OK);
        assert_int_equal(bulk(), ERR_OK);
    }
    assert_true(atomic_load(&server.shared.open_max) <= 2); /* the server may see the close a moment late */
    assert_int_equal(slots_open_any_thread(http_origin()->slots), 1);
    env_close(&env);
}

/* ---- the choice by itself */

static void test_choice_changes_over_by_measurement(void **state)
{
    (void)state;
    struct choice c;
    choice_init(&c, HTTP2_AUTO, true);
    assert_int_equal(choice_pick(&c, 100, 0), PROTO_H2);
    assert_int_equal(choice_pick(&c, 2 << 20, 0), PROTO_H1);
    choice_offered(&c, true, 0);
    unsigned other = 0;
    for (int i = 0; i < 1600; i++) other += choice_pick(&c, 100, 0) == PROTO_H1;
    assert_int_equal(other, 100);
    for (int i = 0; i < 100; i++) choice_learn_small(&c, PROTO_H2, 1000);
    for (int i = 0; i < 15; i++) choice_learn_small(&c, PROTO_H1, 100);
    assert_int_equal(c.now[LOAD_SMALL], PROTO_H2); /* too few */
    choice_learn_small(&c, PROTO_H1, 100);
    assert_int_equal(c.now[LOAD_SMALL], PROTO_H1);
    for (int i = 0; i < 6400; i++) other += choice_pick(&c, 100, 0) == PROTO_H2; /* more seldom, now that it is known */
    assert_int_equal(other, 200);
    for (int i = 0; i < 100; i++) choice_learn_small(&c, PROTO_H1, 1200); /* worse, but not by a third */
    assert_int_equal(c.now[LOAD_SMALL], PROTO_H1);
    for (int i = 0; i < 100; i++) choice_learn_small(&c, PROTO_H1, 1500);
    assert_int_equal(c.now[LOAD_SMALL], PROTO_H2);
    for (int i = 0; i < 50; i++) choice_learn_bulk(&c, PROTO_H1, 8000000, 80000, 4); /* 400 MB/s in all */
    for (int i = 0; i < 50; i++) choice_learn_bulk(&c, PROTO_H2, 8000000, 80000, 5);
    assert_int_equal(c.now[LOAD_BULK], PROTO_H1);
    for (int i = 0; i < 50; i++) choice_learn_bulk(&c, PROTO_H2, 8000000, 80000, 6);
    assert_int_equal(c.now[LOAD_BULK], PROTO_H2);
    const char *choice, *why;
    choice_text(&c, 0, &choice, &why);
    assert_string_equal(choice, "h2");
    choice_offered(&c, false, 1000);
    assert_int_equal(choice_pick(&c, 100, 1001), PROTO_H1);
    assert_int_equal(choice_pick(&c, 100, 1000 + ASK_AGAIN_MS), PROTO_H2); /* it is asked again */
}

/* ---- several workers */

struct crew {
    struct env env;
    unsigned index, good;
};
static void *crew_main(void *arg)
{
    struct crew *c = arg;
    struct get g[40];
    env_open_worker(&c->env, env.origin, c->index);
    for (int round = 0; round < 5; round++) {
        unsigned left = ARRAY_LEN(g);
        for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
            bool big = i % 8 == 0;
            get_init(&g[i], &c->env, big ? "/size/1500000" : "/size/2000", 1500001);
            g[i].r.has_range = big;
            g[i].r.last = 1499999;
            g[i].r.if_match = STR_LIT("\"t\"");
            g[i].left = &left;
            get_submit(&g[i]);
        }
        if (!env_run(&c->env, 60000)) abort();
        for (unsigned i = 0; i < ARRAY_LEN(g); i++) {
            c->good += g[i].end == ERR_OK && get_is_pattern(&g[i], 0, i % 8 ? 2000 : 1500000);
            get_free(&g[i]);
        }
    }
    env_close_worker(&c->env);
    return NULL;
}

static void test_workers_share_the_choice_and_the_slots(void **state)
{
    (void)state;
    enum { WORKERS = 3 };
    static struct crew crew[WORKERS];
    pthread_t t[WORKERS];
    char msg[256];
    conf.connections_max = 8;
    assert_int_equal(origin_create(&conf, WORKERS, NULL, &env.origin, msg, sizeof msg), ERR_OK);
    for (unsigned i = 0; i < WORKERS; i++) {
        crew[i] = (struct crew){.index = i};
        assert_int_equal(pthread_create(&t[i], NULL, crew_main, &crew[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(crew[i].good, 200);
    }
    assert_int_equal(slots_open_any_thread(http_origin()->slots), 0);
    origin_destroy(env.origin);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TLS(name) cmocka_unit_test_setup_teardown(name, setup_tls, teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_many_calls_share_a_connection),
        T(test_a_thousand_calls_of_mixed_sizes),
        T(test_stream_limit_opens_connections_up_to_max),
        T(test_a_limit_of_one_stream),
        T(test_idle_connections_are_closed),
        T(test_what_is_sent),
        T(test_s3_signs_over_h2),
        T(test_refused_streams_are_retried_free),
        T(test_posts_are_retried_when_unprocessed),
        T(test_goaway_moves_the_rest_elsewhere),
        T(test_free_retry_on_a_reused_connection),
        T(test_failures_have_their_names),
        T(test_operation_timeout_and_refused_connects),
        T(test_an_origin_that_does_not_speak_h2),
        T(test_cancel_inside_every_event),
        T(test_cancel_at_any_moment),
        T(test_pause_holds_the_origin_back),
        T(test_bulk_that_one_connection_limits_gets_more),
        cmocka_unit_test(test_climb),
        TLS(test_auto_small_over_h2_bulk_over_h1),
        TLS(test_auto_unknown_lengths_follow_what_was_usual),
        TLS(test_auto_without_tls_is_h1),
        TLS(test_off_is_h1),
        cmocka_unit_test_setup_teardown(test_auto_with_an_origin_without_h2, setup_tls_h1, teardown),
        cmocka_unit_test_setup_teardown(test_auto_with_an_origin_without_h1, setup_tls_h2, teardown),
        TLS(test_prior_knowledge_over_tls),
        TLS(test_h1_required_goes_over_h1),
        TLS(test_both_pools_share_the_slots),
        cmocka_unit_test(test_choice_changes_over_by_measurement),
        TLS(test_workers_share_the_choice_and_the_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
