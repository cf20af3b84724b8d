/* test_cli_call.c - one request with its tries against a server that follows a script: what is tried again and what is not,
 * how a body is resumed or begun anew, where a call may be cancelled, and that nothing endless is waited for. */
#include "cli_server.h"

static struct cli_server server;
static struct net net;

static void open_all(const struct reply *r, unsigned n, unsigned retries)
{
    cli_server_start(&server, r, n);
    cli_net_open(&net, server.port, retries);
}
#define SCRIPT(retries, ...)                                     \
    static const struct reply script[] = {__VA_ARGS__};          \
    open_all(script, sizeof script / sizeof *script, retries)

static void close_all(void)
{
    net_close(&net);
    cli_server_stop(&server);
}

/* ---- a call that remembers */

enum where { NOWHERE, IN_HEAD, IN_SPACE, IN_FILLED };
struct seen {
    struct call *call;
    char body[4096], space[64];
    size_t n;
    unsigned heads, ends;
    struct call_result result;
    enum where cancel;
    bool refuse, restarts;
};

static void cancel_it(struct seen *s)
{
    call_cancel(s->call);
    s->call = NULL;
    net_stop(&net);
}
static bool seen_head(void *arg, const struct head *h, int64_t length)
{
    struct seen *s = arg;
    (void)h;
    (void)length;
    s->heads++;
    if (s->restarts) s->n = 0;
    return !s->refuse;
}
static unsigned seen_space(void *arg, struct iovec *iov, unsigned max)
{
    struct seen *s = arg;
    (void)max;
    if (s->cancel == IN_SPACE) return cancel_it(s), 0;
    iov[0] = (struct iovec){s->space, sizeof s->space};
    return 1;
}
static void seen_filled(void *arg, size_t n)
{
    struct seen *s = arg;
    assert_true(s->n + n <= sizeof s->body);
    memcpy(s->body + s->n, s->space, n);
    s->n += n;
    if (s->cancel == IN_FILLED) cancel_it(s);
}
static void seen_end(void *arg, const struct call_result *r)
{
    struct seen *s = arg;
    s->ends++;
    s->result = *r;
    s->call = NULL;
    net_stop(&net);
}
static const struct call_events seen_events = {seen_head, seen_space, seen_filled, seen_end};

static void run(struct seen *s, const struct call_request *q)
{
    s->restarts = q->afresh;
    assert_int_equal(call_start(&net, q, &seen_events, s, &s->call), ERR_OK);
    while (s->call && net_run(&net)) {
    }
}
static struct call_request get_k(void) { return (struct call_request){.method = METHOD_GET, .bucket = STR_LIT("b"), .key = STR_LIT("k")}; }

#define OK5 {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nx-amz-request-id: R1\r\n\r\nhello", NULL, 0, THEN_KEEP}
#define ERROR(status, code) \
    {"HTTP/1.1 " status "\r\nContent-Length: 58\r\n\r\n<Error><Code>" code "</Code><Message>&lt;m</Message></Error>", NULL, 0, THEN_KEEP}

/* ---- answers */

static void a_whole_answer(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    SCRIPT(3, OK5);
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    assert_int_equal(s.result.status, 200);
    assert_int_equal(s.result.tries, 1);
    assert_int_equal(s.result.bytes, 5);
    assert_memory_equal(s.body, "hello", 5);
    assert_string_equal(s.result.request_id, "R1");
    assert_true(s.result.start_ns <= s.result.first_byte_ns && s.result.first_byte_ns <= s.result.end_ns);
    assert_int_equal(s.heads, 1);
    assert_int_equal(s.ends, 1);
    close_all();
}

static void paths(void **state)
{
    static const struct {
        const char *bucket, *key, *line;
    } cases[] = {{"", "", "GET / HTTP"}, {"b", "", "GET /b HTTP"}, {"b", "a b+%/../ü", "GET /b/a%20b%2B%25/../%C3%BC HTTP"},
                 {"b", "/", "GET /b// HTTP"}};
    (void)state;
    SCRIPT(0, OK5);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct seen s = {0};
        struct call_request q = {.method = METHOD_GET, .bucket = str_c(cases[i].bucket), .key = str_c(cases[i].key)};
        run(&s, &q);
        assert_int_equal(strncmp(server.requests[i], cases[i].line, strlen(cases[i].line)), 0);
    }
    close_all();
}

static void an_error_with_its_document(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    char why[256];
    (void)state;
    SCRIPT(3, ERROR("404 Not Found", "NoSuch"));
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_NOT_FOUND);
    assert_true(call_not_found(&s.result));
    assert_string_equal(call_why(&s.result, why, sizeof why), "404 NoSuch: <m");
    assert_false(s.result.by_proxy);
    assert_int_equal(s.heads, 0);
    close_all();
}

static void an_error_of_the_proxy_itself_is_told_apart(void **state)
{
    struct call_request q = get_k();
    static const bool expected[] = {true, false, false};
    (void)state;
    SCRIPT(0, {"HTTP/1.1 404 N\r\nContent-Length: 45\r\n\r\n<Error><HostId>s3dlio-proxy</HostId></Error>\n", NULL, 0, THEN_KEEP},
           {"HTTP/1.1 404 N\r\nVia: 1.1 s3dlio-proxy\r\nContent-Length: 45\r\n\r\n<Error><HostId>s3dlio-proxy</HostId></Error>\n", NULL, 0,
            THEN_KEEP},
           {"HTTP/1.1 404 N\r\nContent-Length: 0\r\n\r\n", NULL, 0, THEN_KEEP});
    for (unsigned i = 0; i < 3; i++) {
        struct seen s = {0};
        run(&s, &q);
        assert_int_equal(s.result.by_proxy, expected[i]);
    }
    close_all();
}

static void garbage(void **state)
{
    static const struct reply all[] = {{"SSH-2.0-x\r\n\r\n", NULL, 0, THEN_CLOSE}, {"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", NULL, 0, THEN_CLOSE},
                                       {"\x16\x03\x01\x02", NULL, 0, THEN_CLOSE}};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        struct seen s = {0};
        struct call_request q = get_k();
        open_all(&all[i], 1, 0);
        run(&s, &q);
        assert_true(s.result.err != ERR_OK && s.result.status == 0 && s.ends == 1 && s.heads == 0);
        close_all();
    }
}

/* ---- further tries */

static void what_is_worth_another_try(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    SCRIPT(4, ERROR("503 Slow Down", "SlowDo"), {NULL, NULL, 0, THEN_CLOSE}, ERROR("400 Bad", "Intern"),
           OK5);
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_BAD_REQUEST); /* a 400 is an answer */
    assert_int_equal(s.result.tries, 2);             /* a used connection that ends without an answer costs none */
    assert_int_equal(cli_server_requests(&server), 3);
    s = (struct seen){0};
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    close_all();
}

static void tries_are_bounded(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    SCRIPT(2, ERROR("500 Internal", "Intern"));
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_INTERNAL);
    assert_string_equal(s.result.code, "Intern");
    assert_int_equal(s.result.tries, 3);
    assert_int_equal(cli_server_requests(&server), 3);
    close_all();
}

static void once_is_once_unless_it_was_refused(void **state)
{
    struct call_request q = {.method = METHOD_POST, .bucket = STR_LIT("b"), .once = true};
    struct seen s = {0};
    (void)state;
    SCRIPT(4, ERROR("500 Internal", "Intern"), ERROR("503 Slow Down", "SlowDo"), OK5);
    run(&s, &q);
    assert_int_equal(s.result.tries, 1);
    s = (struct seen){0};
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    assert_int_equal(s.result.tries, 2);
    close_all();
}

static struct body *some_body(void *arg)
{
    ++*(unsigned *)arg;
    return body_of_memory(STR_LIT("0123456789"));
}

static void a_body_is_made_anew_for_every_try(void **state)
{
    unsigned made = 0;
    struct call_request q = {.method = METHOD_PUT, .bucket = STR_LIT("b"), .key = STR_LIT("k"), .body = some_body, .body_arg = &made,
                             .body_length = 10};
    struct seen s = {0};
    (void)state;
    SCRIPT(4, ERROR("503 Slow Down", "SlowDo"), OK5);
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    assert_int_equal(made, 2);
    for (unsigned i = 0; i < 2; i++) assert_non_null(strstr(server.requests[i], "\r\n\r\n0123456789"));
    close_all();
}

static void a_body_that_nobody_touched_is_closed(void **state)
{
    unsigned made = 0;
    struct call_request q = {.method = METHOD_PUT, .bucket = STR_LIT("b"), .key = STR_LIT("k"), .body = some_body, .body_arg = &made,
                             .body_length = 10};
    struct seen s = {0};
    (void)state;
    SCRIPT(0, OK5);
    net_close(&net);
    cli_server_stop(&server);
    cli_net_open(&net, server.port, 2); /* nobody listens there any more */
    run(&s, &q);                        /* leaks are the sanitizer's to find */
    assert_int_equal(s.result.err, ERR_REFUSED);
    assert_int_equal(made, 3);
    net_close(&net);
}

/* ---- bodies that break off */

#define PART(etag) {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" etag "\r\n01234", NULL, 0, THEN_CLOSE}
#define REST(etag) {"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n" etag "\r\n56789", NULL, 0, THEN_KEEP}

static void the_rest_of_that_version_is_asked_for(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    SCRIPT(2, PART("ETag: \"e\"\r\n"), REST("ETag: \"e\"\r\n"));
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    assert_int_equal(s.n, 10);
    assert_memory_equal(s.body, "0123456789", 10);
    assert_int_equal(s.heads, 1);
    assert_non_null(strcasestr(server.requests[1], "\r\nrange: bytes=5-9\r\n"));
    assert_non_null(strcasestr(server.requests[1], "\r\nif-match: \"e\"\r\n"));
    close_all();
}

static void another_version_is_never_joined_to_it(void **state)
{
    static const struct reply second[] = {REST("ETag: \"other\"\r\n"), REST(""), OK5, ERROR("412 Failed", "Precon"), ERROR("404 Gone", "NoSuch")};
    static const enum err expected[] = {ERR_CHANGED, ERR_CHANGED, ERR_PROTOCOL, ERR_CHANGED, ERR_CHANGED};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(second); i++) {
        const struct reply script[] = {PART("ETag: \"e\"\r\n"), second[i]};
        struct seen s = {0};
        struct call_request q = get_k();
        q.afresh = true; /* even then: what came is not known to be gone */
        open_all(script, 2, 3);
        run(&s, &q);
        assert_int_equal(s.result.err, expected[i]);
        assert_int_equal(s.n, 5);
        assert_int_equal(s.result.tries, 2);
        close_all();
    }
}

static void without_a_strong_etag_it_cannot_be_resumed(void **state)
{
    static const struct reply all[] = {PART(""), PART("ETag: W/\"e\"\r\n"), PART("ETag: e\r\n")};
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        struct seen s = {0};
        struct call_request q = get_k();
        open_all(&all[i], 1, 3);
        run(&s, &q);
        assert_true(s.result.err != ERR_OK);
        assert_int_equal(s.result.tries, 1);
        assert_int_equal(s.result.bytes, 5);
        close_all();
    }
}

static void but_begun_anew_where_the_caller_can(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    q.afresh = true;
    SCRIPT(3, PART(""), {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n", NULL, 0, THEN_CLOSE}, OK5);
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_OK);
    assert_int_equal(s.heads, 3);
    assert_int_equal(s.n, 5);
    assert_memory_equal(s.body, "hello", 5);
    assert_int_equal(s.result.bytes, 5);
    assert_null(strcasestr(server.requests[2], "\r\nrange:"));
    close_all();
}

static void one_that_always_breaks_off_ends(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    (void)state;
    q.afresh = true;
    SCRIPT(3, PART(""));
    run(&s, &q);
    assert_true(s.result.err != ERR_OK);
    assert_int_equal(s.result.tries, 4);
    close_all();
}

/* ---- the end before the end */

static void cancelled_where_it_may_be(void **state)
{
    (void)state;
    SCRIPT(3, OK5);
    for (int where = IN_SPACE; where <= IN_FILLED; where++) {
        struct seen s = {.cancel = (enum where)where};
        struct call_request q = get_k();
        run(&s, &q);
        assert_int_equal(s.ends, 0);
        assert_int_equal(s.heads, 1);
    }
    /* before it began */
    struct seen s = {0};
    struct call_request q = get_k();
    assert_int_equal(call_start(&net, &q, &seen_events, &s, &s.call), ERR_OK);
    call_cancel(s.call);
    call_cancel(NULL);
    close_all();
    assert_int_equal(s.ends, 0);
}

struct later {
    struct timer timer;
    struct seen *seen;
};
static void cancel_later(struct timer *t)
{
    struct later *l = container_of(t, struct later, timer);
    if (cli_server_requests(&server) == 0) timer_set(t, 5);
    else if (l->seen) cancel_it(l->seen);
    else raise(SIGINT);
}

static void cancelled_while_it_waits_for_another_try(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    struct later l = {.seen = &s};
    (void)state;
    SCRIPT(3, ERROR("503 Slow Down", "SlowDo"));
    net.conf.retry_base_ms = net.conf.retry_cap_ms = 3600000; /* longer than the test, but for one in a million */
    timer_init(&l.timer, net.loop, cancel_later);
    timer_set(&l.timer, 5);
    run(&s, &q);
    timer_stop(&l.timer);
    assert_int_equal(s.ends, 0);
    assert_null(s.call);
    close_all();
}

static void what_nobody_wants_is_not_waited_for(void **state)
{
    struct seen s = {.refuse = true};
    struct call_request q = get_k();
    (void)state;
    SCRIPT(3, {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", NULL, 0, THEN_HANG});
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_CANCELLED);
    assert_int_equal(s.n, 0);
    close_all();
}

static void an_endless_error_ends(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    static const char more[] = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
    (void)state;
    SCRIPT(3, {"HTTP/1.1 403 No\r\n\r\n<Error><Code>Denied</Code></Error>", more, 1u << 20, THEN_HANG});
    run(&s, &q);
    assert_int_equal(s.result.err, ERR_ACCESS_DENIED);
    assert_string_equal(s.result.code, "Denied");
    close_all();
}

static void what_an_error_says_is_bounded_and_printable(void **state)
{
    struct seen s = {0};
    struct call_request q = get_k();
    char why[64];
    static char text[4096];
    (void)state;
    int n = snprintf(text, sizeof text, "HTTP/1.1 403 No\r\nx-amz-request-id: %0300d\r\n\r\n<Error><Code>A\033[2J\xc2\x9b" "2J%0500d</Code><Message>%01000d</Message>"
                     "</Error>", 1, 2, 3);
    assert_true(n > 0 && (size_t)n < sizeof text);
    const struct reply script[] = {{text, NULL, 0, THEN_CLOSE}};
    open_all(script, 1, 0);
    run(&s, &q);
    assert_int_equal(strncmp(s.result.code, "A?[2J??2J000", 12), 0);
    assert_true(strlen(s.result.code) < sizeof s.result.code && strlen(s.result.message) < sizeof s.result.message);
    assert_true(strlen(call_why(&s.result, why, sizeof why)) == sizeof why - 1);
    close_all();
}

/* ---- call_wait */

static void waiting_for_one(void **state)
{
    struct strbuf body;
    struct call_sync s = {.body = &body};
    struct call_request q = get_k();
    struct call_result r;
    (void)state;
    SCRIPT(3, PART(""), OK5);
    strbuf_init(&body, 100);
    call_wait(&net, &q, &s, &r);
    assert_int_equal(r.err, ERR_OK);
    assert_true(str_eq(strbuf_get(&body), STR_LIT("hello")));
    strbuf_free(&body);
    call_wait(&net, &q, NULL, &r); /* nobody looks at it */
    assert_int_equal(r.err, ERR_OK);
    close_all();
}

static void more_than_there_is_room_for(void **state)
{
    struct strbuf body;
    struct call_sync s = {.body = &body};
    struct call_request q = get_k();
    struct call_result r;
    (void)state;
    SCRIPT(3, {"HTTP/1.1 200 OK\r\n\r\n", "0123456789", 1u << 22, THEN_HANG});
    strbuf_init(&body, 1000);
    call_wait(&net, &q, &s, &r);
    assert_int_equal(r.err, ERR_BODY_TOO_LARGE);
    strbuf_free(&body);
    close_all();
}

static void stop_now(struct timer *t)
{
    net_stop(&net);
    timer_set(t, 1);
}

static void others_that_stop_the_loop_do_not_end_it(void **state)
{
    struct strbuf body;
    struct call_sync s = {.body = &body};
    struct call_request q = get_k();
    struct call_result r;
    struct timer t;
    (void)state;
    SCRIPT(9, ERROR("503 Slow Down", "SlowDo"), ERROR("503 Slow Down", "SlowDo"), ERROR("503 Slow Down", "SlowDo"), OK5);
    net.conf.retry_base_ms = net.conf.retry_cap_ms = 30;
    timer_init(&t, net.loop, stop_now);
    timer_set(&t, 1);
    strbuf_init(&body, 100);
    call_wait(&net, &q, &s, &r);
    timer_stop(&t);
    assert_int_equal(r.err, ERR_OK);
    assert_int_equal(body.n, 5);
    strbuf_free(&body);
    close_all();
}

static void interrupted(void **state)
{
    struct call_request q = get_k();
    struct call_result r;
    struct later l = {.seen = NULL};
    (void)state;
    SCRIPT(3, {"", NULL, 0, THEN_HANG});
    timer_init(&l.timer, net.loop, cancel_later);
    timer_set(&l.timer, 5);
    call_wait(&net, &q, NULL, &r);
    timer_stop(&l.timer);
    assert_int_equal(r.err, ERR_CANCELLED);
    assert_true(net.interrupted && net_interrupted(&net));
    call_wait(&net, &q, NULL, &r); /* nothing is begun any more */
    assert_int_equal(r.err, ERR_CANCELLED);
    assert_int_equal(cli_server_requests(&server), 1);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_answer),
        cmocka_unit_test(paths),
        cmocka_unit_test(an_error_with_its_document),
        cmocka_unit_test(an_error_of_the_proxy_itself_is_told_apart),
        cmocka_unit_test(garbage),
        cmocka_unit_test(what_is_worth_another_try),
        cmocka_unit_test(tries_are_bounded),
        cmocka_unit_test(once_is_once_unless_it_was_refused),
        cmocka_unit_test(a_body_is_made_anew_for_every_try),
        cmocka_unit_test(a_body_that_nobody_touched_is_closed),
        cmocka_unit_test(the_rest_of_that_version_is_asked_for),
        cmocka_unit_test(another_version_is_never_joined_to_it),
        cmocka_unit_test(without_a_strong_etag_it_cannot_be_resumed),
        cmocka_unit_test(but_begun_anew_where_the_caller_can),
        cmocka_unit_test(one_that_always_breaks_off_ends),
        cmocka_unit_test(cancelled_where_it_may_be),
        cmocka_unit_test(cancelled_while_it_waits_for_another_try),
        cmocka_unit_test(what_nobody_wants_is_not_waited_for),
        cmocka_unit_test(an_endless_error_ends),
        cmocka_unit_test(what_an_error_says_is_bounded_and_printable),
        cmocka_unit_test(waiting_for_one),
        cmocka_unit_test(more_than_there_is_room_for),
        cmocka_unit_test(others_that_stop_the_loop_do_not_end_it),
        cmocka_unit_test(interrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
