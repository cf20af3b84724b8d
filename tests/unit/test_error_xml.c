/* test_error_xml.c - S3's error documents, written and read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "s3/error_xml.h"

#define FFFD "\xEF\xBF\xBD"

static void test_document(void **state)
{
    (void)state;
    struct strbuf b;
    strbuf_init(&b, 0);
    assert_int_equal(error_xml_build(&b, "NoSuchKey", "The specified key does not exist.", STR_LIT("/b/k"),
                                     STR_LIT("0123456789ABCDEF")),
                     ERR_OK);
    static const char want[] = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>NoSuchKey</Code>"
                               "<Message>The specified key does not exist.</Message><Resource>/b/k</Resource>"
                               "<RequestId>0123456789ABCDEF</RequestId><HostId>s3dlio-proxy</HostId></Error>";
    assert_true(str_eq(strbuf_get(&b), STR_LIT(want)));
    assert_true(str_eq(error_xml_code(strbuf_get(&b)), STR_LIT("NoSuchKey")));
    strbuf_free(&b);
}

static void check_resource(struct str in, const char *want)
{
    struct strbuf b;
    char element[512];
    strbuf_init(&b, 0);
    assert_int_equal(error_xml_build(&b, "C", "M", in, STR_LIT("R")), ERR_OK);
    snprintf(element, sizeof element, "<Resource>%s</Resource>", want);
    strbuf_ch(&b, '\0');
    assert_false(b.failed);
    if (!strstr(b.p, element)) fail_msg("%s is not in %s", element, b.p);
    strbuf_free(&b);
}

static void test_text_is_escaped_and_made_valid(void **state)
{
    (void)state;
    static const struct {
        struct str in;
        const char *want;
    } rows[] = {
        {{NULL, 0}, ""},
        {{"/a&b<c>d\"e'f", 12}, "/a&amp;b&lt;c&gt;d&quot;e&apos;f"},
        {{"a\tb\nc\rd", 7}, "a\tb\nc&#13;d"},
        {{"a\0b\x01\x1f\x7f", 6}, "a" FFFD "b" FFFD FFFD "\x7f"},
        {{"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x99\x82", 9}, "\xC3\xA4\xE2\x82\xAC\xF0\x9F\x99\x82"},
        {{"\xC3", 1}, FFFD},
        {{"\xC3(", 2}, FFFD "("},
        {{"\xE2\x82", 2}, FFFD FFFD},
        {{"\xE2\x82(", 3}, FFFD FFFD "("},
        {{"\xF0\x9F\x99", 3}, FFFD FFFD FFFD},
        {{"\xC0\xAF", 2}, FFFD FFFD}, /* overlong */
        {{"\xE0\x80\xAF", 3}, FFFD FFFD FFFD},
        {{"\xF0\x80\x80\xAF", 4}, FFFD FFFD FFFD FFFD},
        {{"\xED\xA0\x80", 3}, FFFD FFFD FFFD},          /* surrogate */
        {{"\xF4\x90\x80\x80", 4}, FFFD FFFD FFFD FFFD}, /* beyond U+10FFFF */
        {{"\xF5\x80\x80\x80\xFF\x80", 6}, FFFD FFFD FFFD FFFD FFFD FFFD},
        {{"\xEF\xBF\xBE\xEF\xBF\xBD", 6}, FFFD FFFD FFFD FFFD},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) check_resource(rows[i].in, rows[i].want);
}

static void test_bounded_buffer(void **state)
{
    (void)state;
    struct strbuf b;
    strbuf_init(&b, 64);
    assert_int_equal(error_xml_build(&b, "SlowDown", "m", STR_LIT("/"), STR_LIT("1")), ERR_NOMEM);
    strbuf_free(&b);
}

static void test_code_is_read(void **state)
{
    (void)state;
    static const struct {
        const char *document, *want; /* NULL: none */
    } rows[] = {
        {"<Error><Code>SlowDown</Code></Error>", "SlowDown"},
        {"<?xml version=\"1.0\"?>\n<Error><Message>m</Message><Code>SlowDown</Code></Error>", "SlowDown"},
        {"\xEF\xBB\xBF<?xml version=\"1.0\"?><!-- a > b -->\r\n<Error xmlns=\"http://x/\">\n <Code> A </Code>", "A"},
        {"  <Error\n><Code>A</Code>", "A"},
        {"<Error><Code>A&amp;B</Code></Error>", "A&amp;B"},
        {"", NULL},
        {"<", NULL},
        {"<Error", NULL},
        {"<Error>", NULL},
        {"<Error><Code>", NULL},
        {"<Error><Code>Slow", NULL},
        {"<Error><Code>Slow<", NULL},
        {"<Error><Code>Slow</Cod", NULL},
        {"<Error><Code></Code></Error>", NULL},
        {"<Error><Code>  </Code></Error>", NULL},
        {"<Error><Code><X/></Code></Error>", NULL},
        {"<Errors><Code>A</Code></Errors>", NULL},
        {"<DeleteResult><Error><Code>AccessDenied</Code></Error></DeleteResult>", NULL},
        {"<?xml version=\"1.0\"", NULL},
        {"<!-- <Error><Code>A</Code>", NULL},
        {"<html><body>503</body></html>", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        /* a copy of exactly that size: nothing behind the end may be read */
        size_t n = strlen(rows[i].document);
        char *copy = malloc(n ? n : 1);
        assert_non_null(copy);
        memcpy(copy, rows[i].document, n);
        struct str got = error_xml_code(str_make(copy, n));
        bool ok = rows[i].want ? str_eq(got, str_c(rows[i].want)) : !got.p && got.n == 0;
        if (!ok) fail_msg("%s -> " STR_FMT, rows[i].document, STR_ARG(got));
        free(copy);
    }
    assert_null(error_xml_code((struct str){NULL, 0}).p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_document),
        cmocka_unit_test(test_text_is_escaped_and_made_valid),
        cmocka_unit_test(test_bounded_buffer),
        cmocka_unit_test(test_code_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
