/* test_route.c - which route takes a request, and who may use it. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/proxy.h"

static char *any_test[] = {"*.test"}, *sub_test[] = {"*.a.test"}, *exact[] = {"x.a.test"}, *two[] = {"one", "two"};

static const char *found(const struct route_conf *routes, unsigned n, const char *host, const char *path)
{
    struct server_conf s = {.routes = (struct route_conf *)(uintptr_t)routes, .nroutes = n};
    const struct route_conf *rt = route_find(&s, str_c(host), str_c(path));
    return rt ? rt->handler : NULL;
}

static void test_the_longest_path_wins(void **state)
{
    static const struct route_conf routes[] = {
        {.path = "/", .handler = "root"}, {.path = "/a/", .handler = "a"}, {.path = "/a/b/", .handler = "ab"}};
    (void)state;
    assert_string_equal(found(routes, 3, "h", "/"), "root");
    assert_string_equal(found(routes, 3, "h", "/a"), "root");
    assert_string_equal(found(routes, 3, "h", "/a/"), "a");
    assert_string_equal(found(routes, 3, "h", "/a/bc"), "a");
    assert_string_equal(found(routes, 3, "h", "/a/b/c"), "ab");
    assert_string_equal(found(routes, 3, "h", "/A/b/c"), "root");
    assert_string_equal(found(routes, 3, "h", "/%61/b/"), "root");
    assert_null(found(routes + 1, 2, "h", "/"));
    assert_null(found(routes + 1, 2, "h", "*"));
    assert_null(found(routes, 0, "h", "/"));
}

static void test_the_best_host_wins_among_equal_paths(void **state)
{
    static const struct route_conf routes[] = {
        {.path = "/", .handler = "none"},
        {.path = "/", .hosts = any_test, .nhosts = 1, .handler = "any"},
        {.path = "/", .hosts = exact, .nhosts = 1, .handler = "exact"},
        {.path = "/", .hosts = sub_test, .nhosts = 1, .handler = "sub"},
        {.path = "/", .hosts = two, .nhosts = 2, .handler = "two"},
        {.path = "/long/", .handler = "long"},
    };
    (void)state;
    assert_string_equal(found(routes, 6, "x.a.test", "/k"), "exact");
    assert_string_equal(found(routes, 6, "X.A.Test.", "/k"), "exact");
    assert_string_equal(found(routes, 6, "y.a.test", "/k"), "sub");
    assert_string_equal(found(routes, 6, "a.test", "/k"), "any");
    assert_string_equal(found(routes, 6, "test", "/k"), "none");
    assert_string_equal(found(routes, 6, ".test", "/k"), "none");
    assert_string_equal(found(routes, 6, "two", "/k"), "two");
    assert_string_equal(found(routes, 6, "", "/k"), "none");
    assert_string_equal(found(routes, 6, "x.a.test", "/long/k"), "long");
}

static void test_no_host_no_route_for_hosts(void **state)
{
    static const struct route_conf routes[] = {{.path = "/", .hosts = two, .nhosts = 2, .handler = "two"}};
    (void)state;
    assert_null(found(routes, 1, "", "/"));
    assert_null(found(routes, 1, ".", "/"));
    assert_null(found(routes, 1, "three", "/"));
}

static struct cidr cidr(const char *text, unsigned bits)
{
    struct cidr c = {.bits = bits};
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        c.addr[10] = c.addr[11] = 0xff;
        memcpy(c.addr + 12, &v4, 4);
        c.bits += 96;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, c.addr), 1);
    }
    return c;
}

static struct address peer(const char *text)
{
    struct address a;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&a.ss;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a.ss;
    memset(&a, 0, sizeof a);
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        a.len = sizeof *v4;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
        v6->sin6_family = AF_INET6;
        a.len = sizeof *v6;
    }
    return a;
}

static bool allows(struct route_conf rt, const char *who)
{
    struct address a = peer(who);
    return route_allows(&rt, &a);
}

static void test_allow_lists_shut_everybody_else_out(void **state)
{
    struct cidr allow[] = {cidr("10.0.0.0", 8), cidr("192.168.1.128", 25), cidr("2001:db8::", 33), cidr("::1", 128)};
    struct route_conf rt = {.allow = allow, .nallow = 4};
    (void)state;
    assert_true(allows((struct route_conf){0}, "1.2.3.4"));
    assert_true(allows(rt, "10.255.255.255"));
    assert_false(allows(rt, "11.0.0.0"));
    assert_true(allows(rt, "192.168.1.128"));
    assert_false(allows(rt, "192.168.1.127"));
    assert_true(allows(rt, "2001:db8:7fff::1"));
    assert_false(allows(rt, "2001:db8:8000::1"));
    assert_true(allows(rt, "::1"));
    assert_false(allows(rt, "::2"));
}

static void test_mapped_addresses_are_the_v4_ones(void **state)
{
    struct cidr allow[] = {cidr("10.0.0.0", 8)}, deny[] = {cidr("::ffff:10.1.0.0", 112)};
    struct route_conf rt = {.allow = allow, .nallow = 1, .deny = deny, .ndeny = 1};
    (void)state;
    assert_true(allows(rt, "::ffff:10.2.3.4"));
    assert_true(allows(rt, "10.2.3.4"));
    assert_false(allows(rt, "::ffff:10.1.3.4"));
    assert_false(allows(rt, "10.1.3.4"));
    assert_false(allows(rt, "::10.2.3.4"));
}

static void test_deny_goes_before_allow(void **state)
{
    struct cidr all[] = {cidr("0.0.0.0", 0)}, one[] = {cidr("10.0.0.1", 32)};
    (void)state;
    assert_false(allows((struct route_conf){.allow = all, .nallow = 1, .deny = one, .ndeny = 1}, "10.0.0.1"));
    assert_true(allows((struct route_conf){.allow = all, .nallow = 1, .deny = one, .ndeny = 1}, "10.0.0.2"));
    assert_true(allows((struct route_conf){.deny = one, .ndeny = 1}, "::1"));
    assert_false(allows((struct route_conf){.allow = one, .nallow = 1, .deny = all, .ndeny = 1}, "10.0.0.1"));
}

static void test_methods(void **state)
{
    char *methods[] = {"GET", "HEAD"};
    struct route_conf some = {.methods = methods, .nmethods = 2}, all = {0};
    (void)state;
    assert_true(route_allows_method(&some, STR_LIT("HEAD")));
    assert_false(route_allows_method(&some, STR_LIT("PUT")));
    assert_false(route_allows_method(&some, STR_LIT("get")));
    assert_false(route_allows_method(&some, STR_LIT("GE")));
    assert_true(route_allows_method(&all, STR_LIT("PUT")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_longest_path_wins),
        cmocka_unit_test(test_the_best_host_wins_among_equal_paths),
        cmocka_unit_test(test_no_host_no_route_for_hosts),
        cmocka_unit_test(test_allow_lists_shut_everybody_else_out),
        cmocka_unit_test(test_mapped_addresses_are_the_v4_ones),
        cmocka_unit_test(test_deny_goes_before_allow),
        cmocka_unit_test(test_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
