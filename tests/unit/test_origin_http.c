/* test_origin_http.c - calls over HTTP/1.1: what arrives, every timeout, truncation, pauses, cancels everywhere, request
 * bodies, the free retry, signing. */
#include "origin_env.h"

#include "origin/http.h"

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
    get_path(&g, &env, path, 1 << 20);
    assert_int_equal(g.ends, 1);
    enum err e = g.end;
    get_free(&g);
    return e;
}

static void test_bodies_arrive_whole(void **state)
{
    (void)state;
    const char *paths[] = {"/size/3000000", "/chunked/3000000", "/until/3000000"};
    env_open(&env, &conf, NULL);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct get g;
        get_init(&g, &env, paths[i], 3000001);
        g.step = 100003;
        get_run(&g);
        assert_int_equal(g.end, ERR_OK);
        assert_int_equal(g.status, 200);
        assert_int_equal(g.heads, 1);
        assert_int_equal(g.body_length, i == 0 ? 3000000 : -1);
        assert_true(get_is_pattern(&g, 0, 3000000));
        get_free(&g);
    }
    assert_int_equal(stat_get(&stats()->requests), 3);
    assert_int_equal(stat_get(&stats()->bytes), 9000000);
    assert_int_equal(stat_get(&stats()->in_flight), 0);
    assert_int_equal(stat_get(&stats()->first_byte_us.count), 3);
    env_close(&env);
}

static void test_head_has_a_length_but_no_body(void **state)
{
    (void)state;
    struct get g;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/size/1234", 10);
    g.r.method = METHOD_HEAD;
    g.r.method_text = STR_LIT("HEAD");
    get_run(&g);
    assert_int_equal(g.end, ERR_OK);
    assert_int_equal(g.content_length, 1234);
    assert_int_equal(g.n, 0);
    get_free(&g);
    assert_int_equal(end_of("/size/10"), ERR_OK);
    assert_int_equal(stat_get(&stats()->conn_reused), 1);
    env_close(&env);
}

static void test_what_is_sent(void **state)
{
    (void)state;
    struct get g;
    const struct hdr extra[] = {{STR_LIT("x-mine"), STR_LIT("1"), HDR_OTHER},
                                {STR_LIT("range"), STR_LIT("bytes=7-"), HDR_RANGE}};
    strcpy(conf.endpoint.prefix, "/echo/base");
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/b/a%20b//c?x=1", 4096);
    g.r.hdrs = extra;
    g.r.nhdrs = 2;
    g.r.has_range = true;
    g.r.first = 5;
    g.r.last = 18446744073709551614u;
    g.r.if_match = STR_LIT("\"tag\"");
    get_run(&g);
    g.buf[g.n] = '\0';
    const char *text = (const char *)g.buf;
    char host[64];
    snprintf(host, sizeof host, "Host: 127.0.0.1:%u\r\n", server.port);
    assert_non_null(strstr(text, "GET /echo/base/b/a%20b//c?x=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(text, host));
    assert_non_null(strstr(text, "x-mine: 1\r\n"));
    assert_non_null(strstr(text, "range: bytes=5-18446744073709551614\r\n"));
    assert_null(strstr(text, "bytes=7-"));
    assert_non_null(strstr(text, "if-match: \"tag\"\r\n"));
    assert_null(strcasestr(text, "authorization"));
    get_free(&g);
    env_close(&env);
}

static void test_host_header_is_configurable(void **state)
{
    (void)state;
    struct get g;
    conf.host_header = (char *)"files.example";
    env_open(&env, &conf, NULL);
    get_path(&g, &env, "/echo", 4096);
    g.buf[g.n] = '\0';
    assert_non_null(strstr((char *)g.buf, "Host: files.example\r\n"));
    get_free(&g);
    env_close(&env);
}

/* ---- failures */

static void test_refused(void **state)
{
    (void)state;
    unsigned port;
    int fd = listen_any(&port); /* bound, but not listening */
    conf.endpoint.port = port;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_REFUSED);
    assert_int_equal(stat_get(&stats()->errors_connect), 1);
    assert_int_equal(stat_get(&stats()->conn_open), 0);
    env_close(&env);
    close(fd);
}

static void test_connect_timeout(void **state)
{
    (void)state;
    unsigned port;
    int fd = listen_any(&port), fill[8];
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(listen(fd, 0), 0);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) { /* the backlog is full: further SYNs are dropped */
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(fill[i], (struct sockaddr *)&a, sizeof a) == 0) continue;
    }
    sleep_ms(50);
    conf.endpoint.port = port;
    conf.connect_ms = 200;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_CONNECT_TIMEOUT);
    assert_int_equal(stat_get(&stats()->errors_timeout), 1);
    env_close(&env);
    for (size_t i = 0; i < ARRAY_LEN(fill); i++) close(fill[i]);
    close(fd);
}

static void test_unknown_name(void **state)
{
    (void)state;
    strcpy(conf.endpoint.host, "no-such-name.invalid");
    conf.connect_ms = 10000;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_DNS);
    assert_int_equal(stat_get(&stats()->errors_dns), 1);
    env_close(&env);
}

static void test_localhost_is_looked_up(void **state)
{
    (void)state;
    strcpy(conf.endpoint.host, "localhost"); /* may give ::1 first: then the next address must be tried */
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/1"), ERR_OK);
    env_close(&env);
}

static void test_cancel_during_a_lookup(void **state)
{
    (void)state;
    strcpy(conf.endpoint.host, "localhost");
    for (int i = 0; i < 20; i++) {
        struct get g;
        env_open(&env, &conf, NULL);
        get_init(&g, &env, "/size/1", 10);
        get_submit(&g);
        if (i % 2) env_run(&env, 1);
        if (!g.done) origin_cancel(g.call);
        env_close(&env);
        get_free(&g);
    }
}

static void test_tls_to_a_plain_server_fails(void **state)
{
    (void)state;
    conf.endpoint.https = true;
    conf.tls_ms = 500;
    env_open(&env, &conf, NULL);
    enum err e = end_of("/garbage");
    assert_true(e == ERR_TLS || e == ERR_CONNECT_TIMEOUT);
    env_close(&env);
}

static void test_each_timeout(void **state)
{
    (void)state;
    conf.first_byte_ms = 100;
    conf.stall_ms = 150;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/mute"), ERR_FIRST_BYTE_TIMEOUT);
    assert_int_equal(end_of("/stall/1000/10"), ERR_STALL_TIMEOUT);
    env_close(&env);
    conf.first_byte_ms = conf.stall_ms = 5000;
    conf.operation_ms = 100;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/mute"), ERR_OPERATION_TIMEOUT);
    assert_int_equal(end_of("/stall/1000/10"), ERR_OPERATION_TIMEOUT);
    assert_int_equal(stat_get(&stats()->errors_timeout), 2);
    env_close(&env);
}

static void test_truncation_and_garbage(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/cut/100000/99999"), ERR_TRUNCATED);
    assert_int_equal(end_of("/garbage"), ERR_PROTOCOL);
    enum err e = end_of("/close");
    assert_true(e == ERR_CLOSED || e == ERR_RESET);
    assert_int_equal(stat_get(&stats()->errors_protocol), 1);
    assert_int_equal(stat_get(&stats()->errors_reset), 2);
    env_close(&env);
}

/* ---- backpressure */

static void test_pause_holds_the_origin_back(void **state)
{
    (void)state;
    struct get g;
    const size_t size = 64u << 20;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/size/67108864", size);
    g.pause_at = 1 << 20;
    get_submit(&g);
    assert_false(env_run(&env, 200));
    assert_true(g.paused);
    assert_int_equal(g.n, 1 << 20);
    assert_false(env_run(&env, 100));
    assert_int_equal(g.n, 1 << 20); /* nothing moves while it is paused */
    g.paused = false;
    g.pause_at = SIZE_MAX;
    origin_resume(g.call);
    assert_int_equal(g.n, 1 << 20); /* and nothing from inside resume */
    assert_true(env_run(&env, 15000));
    assert_int_equal(g.end, ERR_OK);
    assert_true(get_is_pattern(&g, 0, size));
    get_free(&g);
    env_close(&env);
}

static void test_stall_is_not_counted_while_paused(void **state)
{
    (void)state;
    struct get g;
    conf.stall_ms = 100;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/size/100000", 100001);
    g.pause_at = 10;
    get_submit(&g);
    assert_false(env_run(&env, 400));
    assert_int_equal(g.ends, 0);
    g.pause_at = SIZE_MAX;
    origin_resume(g.call);
    assert_true(env_run(&env, 5000));
    assert_int_equal(g.end, ERR_OK);
    get_free(&g);
    env_close(&env);
}

/* ---- cancels */

static void test_cancel_inside_every_event(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    for (int where = CANCEL_HEAD; where <= CANCEL_END; where++)
        for (int kind = 0; kind < 3; kind++) {
            const char *paths[] = {"/size/500000", "/chunked/500000", "/until/500000"};
            struct get g;
            get_init(&g, &env, paths[kind], 500001);
            g.cancel_in = where;
            get_run(&g);
            assert_true(g.cancelled);
            assert_int_equal(g.ends, where == CANCEL_END);
            size_t n = g.n;
            env_run(&env, 20);
            assert_int_equal(g.n, n); /* no event after a cancel */
            assert_int_equal(g.ends, where == CANCEL_END);
            get_free(&g);
        }
    assert_int_equal(stat_get(&stats()->in_flight), 0);
    assert_int_equal(end_of("/size/100"), ERR_OK);
    env_close(&env);
}

static void test_cancel_at_any_moment(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    for (unsigned ms = 0; ms < 30; ms++) {
        struct get g;
        get_init(&g, &env, ms % 2 ? "/size/20000000" : "/late/15", 20000001);
        get_submit(&g);
        if (ms) env_run(&env, ms);
        if (!g.done) origin_cancel(g.call);
        get_free(&g);
    }
    assert_int_equal(end_of("/size/100"), ERR_OK);
    env_close(&env);
}

static void test_cancel_while_waiting_for_a_connection(void **state)
{
    (void)state;
    struct get a, b;
    conf.connections_max = 1;
    env_open(&env, &conf, NULL);
    get_init(&a, &env, "/late/100", 10);
    get_init(&b, &env, "/size/2", 10);
    get_submit(&a);
    get_submit(&b);
    assert_false(env_run(&env, 30));
    assert_int_equal(stat_get(&stats()->waiting), 1);
    origin_cancel(b.call);
    assert_int_equal(stat_get(&stats()->waiting), 0);
    assert_true(env_run(&env, 5000));
    assert_int_equal(a.end, ERR_OK);
    assert_int_equal(b.ends, 0);
    get_free(&a);
    get_free(&b);
    env_close(&env);
}

/* ---- request bodies */

struct source {
    struct body body;
    uint64_t left;
    bool closed;
    bool slow; /* gives nothing until told */
    unsigned pulls;
    uint8_t data[65536];
};

static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    (void)max;
    s->pulls++;
    if (s->slow) return ERR_AGAIN;
    if (s->left == 0) return ERR_END;
    size_t len = sizeof s->data < max_bytes ? sizeof s->data : max_bytes;
    if (len > s->left) len = (size_t)s->left;
    s->left -= len;
    out[0] = (struct chunk){.data = s->data, .len = len, .fd = -1};
    *n = 1;
    return ERR_OK;
}

static void source_close(struct body *b) { container_of(b, struct source, body)->closed = true; }

static const struct body_ops source_ops = {.pull = source_pull, .close = source_close};

static void put_init(struct get *g, struct source *s, const char *path, uint64_t n)
{
    get_init(g, &env, path, 4096);
    *s = (struct source){.left = n, .body = {.ops = &source_ops, .length = (int64_t)n}};
    g->r.method = METHOD_PUT;
    g->r.method_text = STR_LIT("PUT");
    g->r.body = &s->body;
    g->r.body_length = (int64_t)n;
}

static void test_put_streams_its_body(void **state)
{
    (void)state;
    struct get g;
    static struct source s;
    env_open(&env, &conf, NULL);
    put_init(&g, &s, "/sink", 20000000);
    get_run(&g);
    g.buf[g.n] = '\0';
    assert_int_equal(g.end, ERR_OK);
    assert_string_equal((char *)g.buf, "20000000");
    assert_true(s.closed);
    assert_int_equal(stat_get(&stats()->bytes_sent), 20000000);
    get_free(&g);
    env_close(&env);
}

static void test_put_waits_for_a_slow_source(void **state)
{
    (void)state;
    struct get g;
    static struct source s;
    env_open(&env, &conf, NULL);
    put_init(&g, &s, "/sink", 1000);
    s.slow = true;
    get_submit(&g);
    assert_false(env_run(&env, 100));
    assert_int_equal(g.ends, 0);
    s.slow = false;
    body_notify(&s.body);
    assert_true(env_run(&env, 5000));
    assert_int_equal(g.end, ERR_OK);
    get_free(&g);
    env_close(&env);
}

static void test_untouched_body_stays_open(void **state)
{
    (void)state;
    struct get g;
    static struct source s;
    unsigned port;
    int fd = listen_any(&port);
    conf.endpoint.port = port;
    env_open(&env, &conf, NULL);
    put_init(&g, &s, "/sink", 1000);
    get_run(&g);
    assert_int_equal(g.end, ERR_REFUSED);
    assert_false(s.closed);
    assert_non_null(s.body.ops);
    assert_null(s.body.notify);
    get_free(&g);
    env_close(&env);
    close(fd);
}

static void test_zero_length_put(void **state)
{
    (void)state;
    struct get g;
    env_open(&env, &conf, NULL);
    get_init(&g, &env, "/echo", 4096);
    g.r.method = METHOD_PUT;
    g.r.method_text = STR_LIT("PUT");
    g.r.send_zero_length = true;
    get_run(&g);
    g.buf[g.n] = '\0';
    assert_non_null(strcasestr((char *)g.buf, "content-length: 0\r\n"));
    get_free(&g);
    env_close(&env);
}

/* ---- the free retry */

static void test_free_retry_on_a_reused_connection(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    assert_int_equal(end_of("/once"), ERR_OK); /* closed on us without a word, once */
    assert_int_equal(stat_get(&stats()->retries), 1);
    assert_int_equal(atomic_load(&server.accepted), 2);
    /* A fresh connection gets none. */
    env_close(&env);
    env_open(&env, &conf, NULL);
    enum err e = end_of("/close");
    assert_true(e == ERR_CLOSED || e == ERR_RESET);
    assert_int_equal(stat_get(&stats()->retries), 0);
    env_close(&env);
}

static void test_free_retry_happens_once(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    enum err e = end_of("/close");
    assert_true(e == ERR_CLOSED || e == ERR_RESET);
    assert_int_equal(stat_get(&stats()->retries), 1);
    assert_int_equal(atomic_load(&server.requests), 3);
    env_close(&env);
}

static void test_no_free_retry_for_post_or_touched_bodies(void **state)
{
    (void)state;
    struct get g;
    static struct source s;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    get_init(&g, &env, "/once", 64);
    g.r.method = METHOD_POST;
    g.r.method_text = STR_LIT("POST");
    g.r.send_zero_length = true;
    get_run(&g);
    assert_true(g.end == ERR_CLOSED || g.end == ERR_RESET);
    get_free(&g);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    put_init(&g, &s, "/once", 100);
    get_run(&g);
    assert_int_not_equal(g.end, ERR_OK);
    assert_true(s.closed);
    get_free(&g);
    assert_int_equal(stat_get(&stats()->retries), 0);
    env_close(&env);
}

static void test_no_free_retry_after_a_response_byte(void **state)
{
    (void)state;
    env_open(&env, &conf, NULL);
    assert_int_equal(end_of("/size/5"), ERR_OK);
    assert_int_equal(end_of("/cut/10/1"), ERR_TRUNCATED);
    assert_int_equal(stat_get(&stats()->retries), 0);
    env_close(&env);
}

/* ---- s3 */

static void s3_conf(void)
{
    conf.type = ORIGIN_S3;
    conf.creds.source = CREDS_STATIC;
    conf.creds.access_key = "AKIDEXAMPLE";
    conf.creds.secret_key = "secret";
    conf.region = (char *)"eu-west-3";
}

static void s3_get(struct get *g, const char *bucket, const char *key)
{
    get_init(g, &env, "/ignored", 4096);
    g->r.address = (struct s3_address){.bucket = str_c(bucket), .key = str_c(key)};
}

static void test_s3_signs(void **state)
{
    (void)state;
    struct get g;
    s3_conf();
    env_open(&env, &conf, NULL);
    s3_get(&g, "echo", "a/b%20c");
    g.r.has_range = true;
    g.r.last = 9;
    get_run(&g);
    g.buf[g.n] = '\0';
    const char *text = (char *)g.buf;
    assert_non_null(strstr(text, "GET /echo/a/b%20c HTTP/1.1\r\n"));
    assert_non_null(strstr(text, "authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
    assert_non_null(strstr(text, "/eu-west-3/s3/aws4_request"));
    assert_non_null(strstr(text, "x-amz-content-sha256: " SIGV4_EMPTY_SHA256 "\r\n"));
    assert_non_null(strstr(text, "x-amz-date: "));
    assert_non_null(strstr(text, "range;"));
    get_free(&g);
    env_close(&env);
}

static void test_s3_body_is_unsigned_unless_told(void **state)
{
    (void)state;
    struct get g;
    static struct source s;
    s3_conf();
    env_open(&env, &conf, NULL);
    for (int i = 0; i < 2; i++) {
        put_init(&g, &s, "/x", 0);
        g.r.address = (struct s3_address){.bucket = STR_LIT("echo"), .key = STR_LIT("k")};
        if (i) g.r.payload_hash = STR_LIT("STREAMING-UNSIGNED-PAYLOAD-TRAILER");
        get_run(&g);
        g.buf[g.n] = '\0';
        assert_non_null(strstr((char *)g.buf, i ? "x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER\r\n"
                                                : "x-amz-content-sha256: UNSIGNED-PAYLOAD\r\n"));
        get_free(&g);
    }
    put_init(&g, &s, "/x", 5);
    g.r.address = (struct s3_address){.bucket = STR_LIT("echo"), .key = STR_LIT("k")};
    g.r.body_length = -1;
    get_run(&g);
    assert_int_equal(g.end, ERR_LENGTH_REQUIRED);
    get_free(&g);
    env_close(&env);
}

static void test_s3_anonymous_is_not_signed(void **state)
{
    (void)state;
    struct get g;
    s3_conf();
    conf.creds = (struct creds_conf){.source = CREDS_NONE};
    env_open(&env, &conf, NULL);
    s3_get(&g, "echo", "k");
    get_run(&g);
    g.buf[g.n] = '\0';
    assert_null(strstr((char *)g.buf, "authorization"));
    assert_null(strstr((char *)g.buf, "x-amz-"));
    get_free(&g);
    env_close(&env);
}

static int64_t signed_at(void)
{
    struct get g;
    s3_get(&g, "echo", "k");
    get_run(&g);
    g.buf[g.n] = '\0';
    char *at = strstr((char *)g.buf, "x-amz-date: ");
    assert_non_null(at);
    int64_t t = date_parse_amz(str_make(at + 12, 16));
    get_free(&g);
    return t;
}

static void test_s3_learns_the_origins_clock(void **state)
{
    (void)state;
    struct get g;
    s3_conf();
    env_open(&env, &conf, NULL);
    assert_true(llabs(signed_at() - (int64_t)time(NULL)) <= 2);
    s3_get(&g, "skew", "k");
    get_run(&g);
    assert_int_equal(g.status, 403);
    get_free(&g);
    assert_true(llabs(signed_at() - (int64_t)time(NULL) - 3600) <= 2);
    env_close(&env);
}

static void test_bad_ca_file_is_a_message(void **state)
{
    (void)state;
    struct origin *o = NULL;
    char msg[256] = "";
    conf.endpoint.https = true;
    conf.ca_file = (char *)"/nonexistent/ca.pem";
    assert_int_not_equal(origin_create(&conf, 1, NULL, &o, msg, sizeof msg), ERR_OK);
    assert_null(o);
    assert_true(strlen(msg) > 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_bodies_arrive_whole),
        T(test_head_has_a_length_but_no_body),
        T(test_what_is_sent),
        T(test_host_header_is_configurable),
        T(test_refused),
        T(test_connect_timeout),
        T(test_unknown_name),
        T(test_localhost_is_looked_up),
        T(test_cancel_during_a_lookup),
        T(test_tls_to_a_plain_server_fails),
        T(test_each_timeout),
        T(test_truncation_and_garbage),
        T(test_pause_holds_the_origin_back),
        T(test_stall_is_not_counted_while_paused),
        T(test_cancel_inside_every_event),
        T(test_cancel_at_any_moment),
        T(test_cancel_while_waiting_for_a_connection),
        T(test_put_streams_its_body),
        T(test_put_waits_for_a_slow_source),
        T(test_untouched_body_stays_open),
        T(test_zero_length_put),
        T(test_free_retry_on_a_reused_connection),
        T(test_free_retry_happens_once),
        T(test_no_free_retry_for_post_or_touched_bodies),
        T(test_no_free_retry_after_a_response_byte),
        T(test_s3_signs),
        T(test_s3_body_is_unsigned_unless_told),
        T(test_s3_anonymous_is_not_signed),
        T(test_s3_learns_the_origins_clock),
        T(test_bad_ca_file_is_a_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
