/* test_uri.c - request targets, authorities, percent-encoding, endpoints, queries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/uri.h"

static void assert_str(struct str s, const char *z)
{
    if (!z) {
        assert_null(s.p);
        return;
    }
    assert_non_null(s.p);
    assert_int_equal(s.n, strlen(z));
    assert_memory_equal(s.p, z, s.n);
}

static void targets_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in, *authority, *path, *query;
    } good[] = {
        {"/", NULL, "/", NULL},
        {"/b/k?list-type=2&x", NULL, "/b/k", "list-type=2&x"},
        {"/b/k?", NULL, "/b/k", ""},
        {"/b/a?b?c", NULL, "/b/a", "b?c"},
        {"//b//../k/./+%20!*'()~/", NULL, "//b//../k/./+%20!*'()~/", NULL},
        {"/http://x", NULL, "/http://x", NULL},
        {"*", NULL, "*", NULL},
        {"http://h", "h", "/", NULL},
        {"http://h/", "h", "/", NULL},
        {"HTTP://h:81/b/k?q", "h:81", "/b/k", "q"},
        {"https://[::1]:9/k", "[::1]:9", "/k", NULL},
        {"http://h?q", "h", "/", "q"},
    };
    static const char *const bad[] = {"",          "b/k",          "*x",         "/a b",        "/a#b",     "/a\x7f",
                                      "/a\xc3\xa9", "/a\x01",       "http://",    "http:///k",   "ftp://h/", "http:/h/",
                                      "h:443",     "http://u@h/k", "http://h:0/", "http://h:x/", "?q",       "http://h,i/",
                                      "http://[::1/k"};
    struct target t;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(target_parse(str_c(good[i].in), &t), ERR_OK);
        assert_str(t.authority, good[i].authority);
        assert_str(t.path, good[i].path);
        assert_str(t.query, good[i].query);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (target_parse(str_c(bad[i]), &t) != ERR_BAD_URI) fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(target_parse(str_make("/a\0b", 4), &t), ERR_BAD_URI);
    assert_int_equal(target_parse((struct str){NULL, 0}, &t), ERR_BAD_URI);
}

static void authorities_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in, *host;
        unsigned port;
    } good[] = {
        {"h", "h", 0},           {"h:80", "h", 80},           {"h:", "h", 0},
        {"h:65535", "h", 65535}, {"a.b-c_d.example", "a.b-c_d.example", 0}, {"127.0.0.1:9000", "127.0.0.1", 9000},
        {"[::1]", "::1", 0},     {"[2001:db8::1]:443", "2001:db8::1", 443}, {"[::1]:", "::1", 0},
        {"h:0080", "h", 80},
    };
    static const char *const bad[] = {"", ":80", "h:0", "h:65536", "h:+1", "h:99999999999999999999", "h:80:80", "::1",
                                      "[::1", "[]", "[::1]x", "[::1]80", "[h]", "[::1%eth0]", "u@h", "h/x", "h x", "h\t",
                                      "a%41", "a,b", "h?", "h#", "[v1.x]", "\xc3\xa9"};
    struct str host;
    unsigned port;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(authority_parse(str_c(good[i].in), &host, &port));
        assert_str(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (authority_parse(str_c(bad[i]), &host, &port)) fail_msg("accepted: %s", bad[i]);
    }
    char longest[257];
    memset(longest, 'a', sizeof(longest));
    assert_true(authority_parse(str_make(longest, 255), &host, &port));
    assert_false(authority_parse(str_make(longest, 256), &host, &port));
    assert_false(authority_parse((struct str){NULL, 0}, &host, &port));
}

static void percent_encoding_goes_both_ways(void **state)
{
    (void)state;
    struct pool *p = pool_create(1 << 20);
    char all[256];
    for (int i = 0; i < 256; i++) all[i] = (char)i;
    struct str e = uri_encode(p, str_make(all, 256), false);
    assert_non_null(e.p);
    struct str d = uri_decode(p, e);
    assert_int_equal(d.n, 256);
    assert_memory_equal(d.p, all, 256);
    assert_str(uri_encode(p, str_c("a/b c+~\xc3\xa9"), true), "a/b%20c%2B~%C3%A9");
    assert_str(uri_encode(p, str_c("a/b"), false), "a%2Fb");
    assert_str(uri_encode(p, str_c(""), false), "");
    assert_str(uri_decode(p, str_c("a+b%2fc%2F")), "a+b/c/");
    assert_str(uri_decode(p, str_c("")), "");
    d = uri_decode(p, str_c("a%00b"));
    assert_int_equal(d.n, 3);
    assert_memory_equal(d.p, "a\0b", 3);
    static const char *const bad[] = {"%", "a%", "%4", "%zz", "%4g", "%%41", "% 41"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) assert_null(uri_decode(p, str_c(bad[i])).p);
    pool_destroy(p);
    p = pool_create(64);
    if (p) {
        static const char big[200] = {0};
        assert_null(uri_encode(p, str_make(big, sizeof(big)), false).p);
        assert_null(uri_decode(p, str_make(big, sizeof(big))).p);
        pool_destroy(p);
    }
}

static void endpoints_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        bool https;
        const char *host;
        unsigned port;
        const char *prefix;
    } good[] = {
        {"http://h", false, "h", 80, ""},
        {"https://S3.Example.com", true, "s3.example.com", 443, ""},
        {"https://h:9000/", true, "h", 9000, ""},
        {"http://[::1]:81/a/b//", false, "::1", 81, "/a/b"},
        {"http://h/A%20", false, "h", 80, "/A%20"},
    };
    static const char *const bad[] = {"", "h", "h:80", "ftp://h", "http://", "http:///x", "http://h?q", "http://h/x?q",
                                      "http://h#f", "http://u:p@h", "http://h:0", "http://h:70000", "http://h h", "/x"};
    struct endpoint e;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(endpoint_parse(str_c(good[i].in), &e), ERR_OK);
        assert_int_equal(e.https, good[i].https);
        assert_string_equal(e.host, good[i].host);
        assert_int_equal(e.port, good[i].port);
        assert_string_equal(e.prefix, good[i].prefix);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (endpoint_parse(str_c(bad[i]), &e) != ERR_CONFIG) fail_msg("accepted: %s", bad[i]);
    }
    char longer[300];
    memset(longer, 'p', sizeof(longer));
    memcpy(longer, "http://h/", 9);
    assert_int_equal(endpoint_parse(str_make(longer, 8 + 255), &e), ERR_OK);
    assert_int_equal(endpoint_parse(str_make(longer, 8 + 256), &e), ERR_CONFIG);
}

static void queries_are_walked(void **state)
{
    (void)state;
    struct str rest = str_c("a=1&b&&c=&=d&e=f=g&"), name, value;
    static const char *const want[][2] = {{"a", "1"}, {"b", NULL}, {"c", ""}, {"", "d"}, {"e", "f=g"}};
    for (size_t i = 0; i < 5; i++) {
        assert_true(query_next(&rest, &name, &value));
        assert_str(name, want[i][0]);
        assert_str(value, want[i][1]);
    }
    assert_false(query_next(&rest, &name, &value));
    assert_false(query_next(&rest, &name, &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_parse),     cmocka_unit_test(authorities_parse), cmocka_unit_test(percent_encoding_goes_both_ways),
        cmocka_unit_test(endpoints_parse),   cmocka_unit_test(queries_are_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
