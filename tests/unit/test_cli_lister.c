/* test_cli_lister.c - listings page by page: ahead of their reader but not far, and what servers do wrong. */
#include "cli_server.h"

#include "cli/lister.h"

static struct cli_server server;
static struct net net;
static unsigned changes;

static void changed(void *arg)
{
    (void)arg;
    changes++;
    net_stop(&net);
}

static void begin(const struct reply *r, unsigned n, const char *prefix, struct lister **l)
{
    changes = 0;
    cli_server_start(&server, r, n);
    cli_net_open(&net, server.port, 2);
    assert_int_equal(lister_open(&net, STR_LIT("b"), str_c(prefix), STR_LIT("/"), 0, changed, NULL, l), ERR_OK);
}

static void end(struct lister *l)
{
    lister_close(l);
    net_close(&net);
    cli_server_stop(&server);
}

#define HEAD "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListBucketResult>"
#define MORE(token) "<IsTruncated>true</IsTruncated><NextContinuationToken>" token "</NextContinuationToken>"
#define KEY(k) "<Contents><Key>" k "</Key><Size>7</Size><ETag>&quot;e&quot;</ETag><LastModified>T</LastModified></Contents>"
#define TAIL "</ListBucketResult>"
#define PAGE(text) {HEAD text TAIL, NULL, 0, THEN_CLOSE}

/* What lister_wait gives, its keys joined by blanks; the last result is *why. */
static const char *all(struct lister *l, enum err *why)
{
    static char text[4096];
    struct listed *e;
    text[0] = '\0';
    while ((*why = lister_wait(l, &e)) == ERR_OK) {
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s" STR_FMT "%s", n ? " " : "", STR_ARG(e->key), e->is_prefix ? "*" : "");
        free(e);
    }
    return text;
}

static void pages_one_after_the_other(void **state)
{
    static const struct reply script[] = {PAGE(MORE("t+1") KEY("p1") "<CommonPrefixes><Prefix>pd/</Prefix></CommonPrefixes>"),
                                          PAGE(MORE("t2")), PAGE(KEY("p2"))};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 3, "p", &l);
    assert_string_equal(all(l, &e), "p1 pd/* p2");
    assert_int_equal(e, ERR_END);
    assert_string_equal(all(l, &e), ""); /* and again */
    assert_int_equal(e, ERR_END);
    assert_non_null(strstr(server.requests[0], "GET /b?list-type=2&encoding-type=url&max-keys=1000&prefix=p&delimiter=%2F HTTP"));
    assert_non_null(strstr(server.requests[1], "&continuation-token=t%2B1 HTTP"));
    end(l);
}

static void an_entry_has_all_that_was_said(void **state)
{
    static const struct reply script[] = {PAGE(KEY("k"))};
    struct lister *l;
    struct listed *e;
    (void)state;
    begin(script, 1, "", &l);
    assert_int_equal(lister_wait(l, &e), ERR_OK);
    assert_int_equal(e->size, 7);
    assert_true(str_eq(e->etag, STR_LIT("\"e\"")) && str_eq(e->modified, STR_LIT("T")) && e->storage_class.n == 0 && !e->is_prefix);
    free(e);
    end(l);
}

static void who_does_not_wait_is_told(void **state)
{
    static const struct reply script[] = {PAGE(KEY("k"))};
    struct lister *l;
    struct listed *e;
    (void)state;
    begin(script, 1, "", &l);
    assert_int_equal(lister_next(l, &e), ERR_AGAIN);
    assert_int_equal(changes, 0);
    while (!changes) assert_true(net_run(&net));
    assert_int_equal(lister_next(l, &e), ERR_OK);
    free(e);
    assert_int_equal(lister_next(l, &e), ERR_END);
    assert_int_equal(changes, 1);
    end(l);
}

static void stop_later(struct timer *t) { loop_stop(t->loop); }

static void run_for(unsigned ms)
{
    struct timer t;
    timer_init(&t, net.loop, stop_later);
    timer_set(&t, ms);
    assert_true(net_run(&net));
    timer_stop(&t);
}

/* A thousand keys, and the way on by a token of its own. */
static const char *big_page(unsigned i)
{
    static char pages[6][3 << 15];
    size_t n = (size_t)snprintf(pages[i], sizeof pages[i], HEAD "<IsTruncated>true</IsTruncated><NextContinuationToken>t%u"
                                "</NextContinuationToken>", i);
    for (unsigned k = 0; k < 1000; k++) n += (size_t)snprintf(pages[i] + n, sizeof pages[i] - n, "<Contents><Key>%u</Key></Contents>", k);
    snprintf(pages[i] + n, sizeof pages[i] - n, TAIL);
    return pages[i];
}

static void ahead_of_its_reader_but_not_far(void **state)
{
    struct reply script[6];
    struct lister *l;
    struct listed *e;
    (void)state;
    for (unsigned i = 0; i < 6; i++) script[i] = (struct reply){big_page(i), NULL, 0, THEN_CLOSE};
    begin(script, 6, "", &l);
    for (unsigned i = 0; i < 500 && cli_server_requests(&server) < 2; i++) run_for(10);
    run_for(100);
    assert_int_equal(cli_server_requests(&server), 2); /* two thousand wait: enough */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(lister_next(l, &e), ERR_OK);
        free(e);
    }
    for (unsigned i = 0; i < 500 && cli_server_requests(&server) < 3; i++) run_for(10);
    assert_int_equal(cli_server_requests(&server), 3);
    end(l); /* with much that nobody took */
}

static void what_is_no_listing(void **state)
{
    static const struct reply bad[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", NULL, 0, THEN_KEEP},
        {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<html></html>", NULL, 0, THEN_CLOSE},
        PAGE(KEY("a") "<Contents></Contents>"),
        PAGE("<IsTruncated>true</IsTruncated>"),
        PAGE("<EncodingType>url</EncodingType>" KEY("a%zz")),
        {HEAD KEY("a"), NULL, 0, THEN_CLOSE},
    };
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(bad); i++) {
        struct lister *l;
        enum err e;
        begin(&bad[i], 1, "", &l);
        all(l, &e);
        assert_int_equal(e, ERR_PROTOCOL);
        assert_int_equal(lister_failure(l)->status, 200);
        end(l);
    }
}

static void a_page_that_leads_to_itself(void **state)
{
    static const struct reply script[] = {PAGE(MORE("t") KEY("a"))};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 1, "", &l);
    assert_string_equal(all(l, &e), "a a");
    assert_int_equal(e, ERR_PROTOCOL);
    end(l);
}

static void what_does_not_begin_with_the_prefix_is_given_to_nobody(void **state)
{
    static const struct reply script[] = {PAGE(KEY("run1/a") KEY("precious") KEY("run1/b"))};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 1, "run1", &l);
    assert_string_equal(all(l, &e), "run1/a");
    assert_int_equal(e, ERR_PROTOCOL);
    end(l);
}

static void a_page_without_end(void **state)
{
    static const struct reply script[] = {{HEAD, "                                                                ", 1u << 20, THEN_HANG}};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 1, "", &l);
    assert_string_equal(all(l, &e), "");
    assert_int_equal(e, ERR_BODY_TOO_LARGE);
    end(l);
}

static void an_error_behind_what_came(void **state)
{
    static const struct reply script[] = {PAGE(MORE("t") KEY("a")),
                                          {"HTTP/1.1 403 No\r\nContent-Length: 39\r\n\r\n<Error><Code>AccessDenied</Code></Error>", NULL, 0, THEN_KEEP}};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 2, "", &l);
    assert_string_equal(all(l, &e), "a");
    assert_int_equal(e, ERR_ACCESS_DENIED);
    assert_string_equal(lister_failure(l)->code, "AccessDenied");
    end(l);
}

static void a_page_that_breaks_off_is_asked_for_again(void **state)
{
    static const struct reply script[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n<ListBucketResult>" KEY("old"), NULL, 0, THEN_CLOSE},
                                          PAGE(KEY("a") KEY("b"))};
    struct lister *l;
    enum err e;
    (void)state;
    begin(script, 2, "", &l);
    assert_string_equal(all(l, &e), "a b");
    assert_int_equal(e, ERR_END);
    end(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_one_after_the_other),
        cmocka_unit_test(an_entry_has_all_that_was_said),
        cmocka_unit_test(who_does_not_wait_is_told),
        cmocka_unit_test(ahead_of_its_reader_but_not_far),
        cmocka_unit_test(what_is_no_listing),
        cmocka_unit_test(a_page_that_leads_to_itself),
        cmocka_unit_test(what_does_not_begin_with_the_prefix_is_given_to_nobody),
        cmocka_unit_test(a_page_without_end),
        cmocka_unit_test(an_error_behind_what_came),
        cmocka_unit_test(a_page_that_breaks_off_is_asked_for_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
