/* test_cli_place.c - names on the command line: places, patterns; keys in the document that deletes them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "cli/delete_doc.h"
#include "cli/pattern.h"
#include "cli/place.h"

static void places(void **state)
{
    static const struct {
        const char *text, *bucket, *key; /* bucket NULL: it is none */
    } cases[] = {
        {"s3://b/k", "b", "k"}, {"s3://b", "b", ""}, {"s3://b/", "b", ""}, {"s3://", "", ""}, {"s3://b//k/", "b", "/k/"},
        {"s3://b/a b+%41?x#y", "b", "a b+%41?x#y"}, {"s3://b/../x", "b", "../x"}, {"s3://b/\n\xff", "b", "\n\xff"},
        {"s3://My.bucket-1_x/k", "My.bucket-1_x", "k"}, {"b/k", NULL, NULL}, {"/b/k", NULL, NULL}, {"S3://b/k", NULL, NULL},
        {"s3:/b", NULL, NULL}, {"s3:///k", NULL, NULL}, {"s3://../k", NULL, NULL}, {"s3://./k", NULL, NULL}, {"s3://a b/k", NULL, NULL},
        {"s3://b?x/k", NULL, NULL}, {"s3://ü/k", NULL, NULL}, {"s3://b*/k", NULL, NULL}, {"", NULL, NULL},
    };
    struct place p;
    char text[300];
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        enum err e = place_parse(cases[i].text, &p);
        assert_int_equal(e, cases[i].bucket ? ERR_OK : ERR_BAD_URI);
        if (e != ERR_OK) continue;
        assert_true(str_eq(p.bucket, str_c(cases[i].bucket)));
        assert_true(str_eq(p.key, str_c(cases[i].key)));
    }
    assert_int_equal(snprintf(text, sizeof text, "s3://%0255d", 0), 260);
    assert_int_equal(place_parse(text, &p), ERR_OK);
    assert_int_equal(snprintf(text, sizeof text, "s3://%0256d", 0), 261);
    assert_int_equal(place_parse(text, &p), ERR_BAD_URI);
    assert_true(place_is_remote("s3://") && !place_is_remote("s3:/") && !place_is_remote(""));
}

static void globs(void **state)
{
    (void)state;
    assert_true(place_has_glob(STR_LIT("a*")) && place_has_glob(STR_LIT("?")) && place_has_glob(STR_LIT("x[")));
    assert_false(place_has_glob(STR_LIT("a/b")) || place_has_glob(STR_LIT("")));
    assert_true(str_eq(place_glob_prefix(STR_LIT("a/b*c?")), STR_LIT("a/b")));
    assert_int_equal(place_glob_prefix(STR_LIT("*")).n, 0);
    assert_true(str_eq(place_glob_prefix(STR_LIT("ab")), STR_LIT("ab")));
}

static bool matches(const char *pattern, struct str key)
{
    struct pattern *p;
    char msg[256];
    if (!pattern_open(pattern, &p, msg, sizeof msg)) fail_msg("%s: %s", pattern, msg);
    bool yes = pattern_matches(p, key);
    pattern_close(p);
    return yes;
}

static void patterns_match_anywhere_in_the_key(void **state)
{
    static const struct {
        const char *pattern, *key;
        bool yes;
    } cases[] = {
        {"b", "abc", true}, {"^b", "abc", false}, {"c$", "abc", true}, {"\\.txt$", "x.txt", true}, {"\\.txt$", "xatxt", false},
        {"\\d", "d", false}, {"\\d{2}", "a42", true}, {"\\D", "42", false}, {"^\\w+\\s\\w$", "ab c", true}, {"a|b", "xb", true},
        {"[^/]+/x", "a/x", true}, {"[]x]", "]", true}, {"[^]x]", "]x", false}, {"[[:digit:]]+$", "k7", true}, {"[[:alpha:]d]", "7", false},
        {"[a\\]", "\\", true}, {"(ab)\\1", "abab", true}, {"", "", true}, {"^$", "", true}, {"^ü.$", "üx", true}, {"a{2}", "aa", true},
        {"\\\\d", "\\d", true}, {"x\\+", "x+", true}, {"^[0-9a-f]{4}-", "09af-", true}, {"A", "a", false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (matches(cases[i].pattern, str_c(cases[i].key)) != cases[i].yes) fail_msg("%s on %s", cases[i].pattern, cases[i].key);
    assert_true(matches("^a[^b]b$", str_make("a\0b", 3)));
    assert_true(matches("b$", str_make("a\0b", 3)));
    assert_true(matches("^a.b$", STR_LIT("a\nb")));
    assert_true(matches("^.$", STR_LIT("\xff")));
    assert_false(matches("c", str_make("abc", 2)));
    assert_true(pattern_matches(NULL, STR_LIT("x")));
    static char large[5000];
    memset(large, 'x', sizeof large);
    large[sizeof large - 1] = '7';
    assert_true(matches("^x+7$", str_make(large, sizeof large)));
}

static void patterns_that_mean_something_else_elsewhere_are_refused(void **state)
{
    static const char *const bad[] = {"(", "[", "a{2", "a{3,1}", "*", "(?:a)", "(?i)a", "a+?", "a*?", "a??", "a++", "a{1}?", "\\p", "\\x41",
                                      "\\A", "\\z", "[\\d]", "[a\\w]", "\\", "[[:nope:]]", "\\n"};
    struct pattern *p;
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char msg[256] = "";
        if (pattern_open(bad[i], &p, msg, sizeof msg)) fail_msg("%s was taken", bad[i]);
        assert_null(p);
        assert_true(msg[0]);
    }
    pattern_close(NULL);
}

static void keys_that_fit_into_xml(void **state)
{
    static const struct {
        struct str key;
        bool fits;
    } cases[] = {
        {{"a", 1}, true}, {{"", 0}, false}, {{"a b\t\n\r", 6}, true}, {{"\x01", 1}, false}, {{"a\0", 2}, false}, {{"\x7f", 1}, true},
        {{"\xc3\xbc", 2}, true}, {{"\xff", 1}, false}, {{"\xc3", 1}, false}, {{"\xc0\xaf", 2}, false}, {{"\xe0\x80\xaf", 3}, false},
        {{"\xed\xa0\x80", 3}, false}, {{"\xef\xbf\xbe", 3}, false}, {{"\xef\xbf\xbf", 3}, false}, {{"\xef\xbf\xbd", 3}, true},
        {{"\xf0\x9f\x92\xbe", 4}, true}, {{"\xf4\x90\x80\x80", 4}, false}, {{"\x80", 1}, false}, {{"\xf0\x9f\x92", 3}, false},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (delete_doc_fits(cases[i].key) != cases[i].fits) fail_msg("case %zu", i);
    assert_true(key_has_dot_segment(STR_LIT("..")) && key_has_dot_segment(STR_LIT("a/./b")) && key_has_dot_segment(STR_LIT("a/..")));
    assert_false(key_has_dot_segment(STR_LIT("...")) || key_has_dot_segment(STR_LIT("a..b/.c")) || key_has_dot_segment(STR_LIT("a//b")));
}

static void the_document_of_a_delete(void **state)
{
    struct delete_doc d;
    (void)state;
    delete_doc_begin(&d);
    delete_doc_add(&d, STR_LIT(" <a>&\"'\n "));
    delete_doc_add(&d, STR_LIT("b c"));
    assert_true(delete_doc_end(&d));
    struct str xml = strbuf_get(&d.xml);
    static const char expected[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>"
                                   "<Object><Key>&#32;&#60;a&#62;&#38;&#34;&#39;&#10;&#32;</Key></Object><Object><Key>b c</Key></Object></Delete>\n";
    assert_true(str_eq(xml, str_c(expected)));
    assert_int_equal(d.keys, 2);
    assert_int_equal(strlen(d.sha256), 64);
    assert_true(str_eq(d.hdrs[1].name, STR_LIT("content-md5")) && d.hdrs[1].value.n == 24);
    delete_doc_free(&d);
}

static void documents_are_bounded(void **state)
{
    struct delete_doc d;
    static char key[1024];
    (void)state;
    delete_doc_begin(&d);
    for (unsigned i = 0; i < DELETE_KEYS_MAX; i++) {
        assert_false(delete_doc_is_full(&d));
        delete_doc_add(&d, STR_LIT("k"));
    }
    assert_true(delete_doc_is_full(&d));
    delete_doc_free(&d);
    memset(key, '&', sizeof key); /* five bytes each */
    delete_doc_begin(&d);
    while (!delete_doc_is_full(&d)) delete_doc_add(&d, str_make(key, sizeof key));
    assert_in_range(d.keys, 150, DELETE_KEYS_MAX - 1);
    assert_true(delete_doc_end(&d));
    delete_doc_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(places),
        cmocka_unit_test(globs),
        cmocka_unit_test(patterns_match_anywhere_in_the_key),
        cmocka_unit_test(patterns_that_mean_something_else_elsewhere_are_refused),
        cmocka_unit_test(keys_that_fit_into_xml),
        cmocka_unit_test(the_document_of_a_delete),
        cmocka_unit_test(documents_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
