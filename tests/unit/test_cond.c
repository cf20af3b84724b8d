/* test_cond.c - the conditional fields, alone and in every order of precedence that matters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/cond.h"

#define MODIFIED INT64_C(784111777) /* Sun, 06 Nov 1994 08:49:37 GMT */
#define SAME "Sun, 06 Nov 1994 08:49:37 GMT"
#define EARLIER "Sun, 06 Nov 1994 08:49:36 GMT"
#define LATER "Sun, 06 Nov 1994 08:49:38 GMT"

struct fields {
    const char *im, *inm, *ims, *ius, *ir;
};

static struct head head_of(const struct fields *f, struct hdr hdrs[5])
{
    const char *const values[] = {f->im, f->inm, f->ims, f->ius, f->ir};
    static const enum hdr_id ids[] = {HDR_IF_MATCH, HDR_IF_NONE_MATCH, HDR_IF_MODIFIED_SINCE, HDR_IF_UNMODIFIED_SINCE,
                                      HDR_IF_RANGE};
    unsigned n = 0;
    for (unsigned i = 0; i < 5; i++) {
        if (values[i]) hdrs[n++] = (struct hdr){.name = hdr_name(ids[i]), .value = str_c(values[i]), .id = ids[i]};
    }
    return (struct head){.method = METHOD_GET, .hdrs = hdrs, .nhdrs = n};
}

static void preconditions_follow_rfc_9110(void **state)
{
    (void)state;
    static const struct {
        struct fields f;
        const char *etag;
        enum cond_result want;
    } t[] = {
        {{0}, "\"a\"", COND_PASS},
        {{.im = "\"a\""}, "\"a\"", COND_PASS},
        {{.im = "\"b\""}, "\"a\"", COND_FAILED},
        {{.im = "\"b\", \"a\""}, "\"a\"", COND_PASS},
        {{.im = "*"}, "\"a\"", COND_PASS},
        {{.im = "*"}, NULL, COND_PASS},
        {{.im = "\"a\""}, NULL, COND_FAILED},
        {{.im = "W/\"a\""}, "\"a\"", COND_FAILED},
        {{.im = "W/\"a\""}, "W/\"a\"", COND_FAILED},
        {{.im = "\"a\""}, "W/\"a\"", COND_FAILED},
        {{.im = "a"}, "\"a\"", COND_PASS},
        {{.im = "b"}, "\"a\"", COND_FAILED},
        {{.im = ""}, "\"a\"", COND_FAILED},
        {{.im = "\"a"}, "\"a\"", COND_FAILED},
        {{.im = "\"a\"x"}, "\"a\"", COND_FAILED},
        {{.im = "\"A\""}, "\"a\"", COND_FAILED},
        {{.im = "\"x,y\", \"a,b\""}, "\"a,b\"", COND_PASS},
        {{.im = "\"x\\\", \"a\""}, "\"a\"", COND_PASS},
        {{.inm = "\"a\""}, "\"a\"", COND_NOT_MODIFIED},
        {{.inm = "\"b\""}, "\"a\"", COND_PASS},
        {{.inm = "W/\"a\""}, "\"a\"", COND_NOT_MODIFIED},
        {{.inm = "\"b\",W/\"a\""}, "W/\"a\"", COND_NOT_MODIFIED},
        {{.inm = "*"}, NULL, COND_NOT_MODIFIED},
        {{.inm = "\"a\""}, NULL, COND_PASS},
        {{.inm = "a"}, "\"a\"", COND_NOT_MODIFIED},
        {{.inm = "W/a"}, "\"a\"", COND_PASS},
        {{.ims = SAME}, "\"a\"", COND_NOT_MODIFIED},
        {{.ims = LATER}, "\"a\"", COND_NOT_MODIFIED},
        {{.ims = EARLIER}, "\"a\"", COND_PASS},
        {{.ims = "yesterday"}, "\"a\"", COND_PASS},
        {{.ius = SAME}, "\"a\"", COND_PASS},
        {{.ius = LATER}, "\"a\"", COND_PASS},
        {{.ius = EARLIER}, "\"a\"", COND_FAILED},
        {{.ius = "0"}, "\"a\"", COND_PASS},
        /* precedence */
        {{.im = "\"a\"", .ius = EARLIER}, "\"a\"", COND_PASS},
        {{.im = "\"b\"", .ius = LATER}, "\"a\"", COND_FAILED},
        {{.inm = "\"b\"", .ims = LATER}, "\"a\"", COND_PASS},
        {{.inm = "\"a\"", .ims = EARLIER}, "\"a\"", COND_NOT_MODIFIED},
        {{.im = "\"b\"", .inm = "\"a\""}, "\"a\"", COND_FAILED},
        {{.im = "\"a\"", .inm = "\"a\""}, "\"a\"", COND_NOT_MODIFIED},
        {{.im = "\"a\"", .ims = LATER}, "\"a\"", COND_NOT_MODIFIED},
        {{.ius = EARLIER, .inm = "\"a\""}, "\"a\"", COND_FAILED},
        {{.ius = LATER, .ims = EARLIER}, "\"a\"", COND_PASS},
        {{.ius = LATER, .ims = LATER}, "\"a\"", COND_NOT_MODIFIED},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[5];
        struct head h = head_of(&t[i].f, hdrs);
        enum cond_result r = cond_check(&h, str_c(t[i].etag), MODIFIED);
        if (r != t[i].want) fail_msg("row %zu: %d instead of %d", i, (int)r, (int)t[i].want);
        assert_int_equal(cond_any(&h), h.nhdrs > 0);
    }
}

static void dates_do_not_count_without_last_modified(void **state)
{
    (void)state;
    struct hdr hdrs[5];
    struct fields ius = {.ius = EARLIER}, ims = {.ims = LATER};
    struct head h = head_of(&ius, hdrs);
    assert_int_equal(cond_check(&h, STR_LIT("\"a\""), -1), COND_PASS);
    h = head_of(&ims, hdrs);
    assert_int_equal(cond_check(&h, STR_LIT("\"a\""), -1), COND_PASS);
}

static struct hdr field(enum hdr_id id, const char *value)
{
    return (struct hdr){.name = hdr_name(id), .value = str_c(value), .id = id};
}

static void repeated_fields_list_tags_together_and_void_dates(void **state)
{
    (void)state;
    struct hdr tags[] = {field(HDR_IF_NONE_MATCH, "\"b\""), field(HDR_IF_NONE_MATCH, "\"a\"")};
    struct hdr dates[] = {field(HDR_IF_MODIFIED_SINCE, LATER), field(HDR_IF_MODIFIED_SINCE, LATER)};
    struct head h = {.hdrs = tags, .nhdrs = 2};
    assert_int_equal(cond_check(&h, STR_LIT("\"a\""), MODIFIED), COND_NOT_MODIFIED);
    h.hdrs = dates;
    assert_int_equal(cond_check(&h, STR_LIT("\"a\""), MODIFIED), COND_PASS);
}

static void if_range_needs_a_strong_match(void **state)
{
    (void)state;
    static const struct {
        const char *ir, *etag;
        int64_t modified;
        bool want;
    } t[] = {
        {NULL, "\"a\"", MODIFIED, true},
        {"\"a\"", "\"a\"", MODIFIED, true},
        {"\"b\"", "\"a\"", MODIFIED, false},
        {"W/\"a\"", "\"a\"", MODIFIED, false},
        {"W/\"a\"", "W/\"a\"", MODIFIED, false},
        {"\"a\"", "W/\"a\"", MODIFIED, false},
        {"\"a\"", NULL, MODIFIED, false},
        {"\"a\", \"b\"", "\"a\"", MODIFIED, false},
        {"a", "\"a\"", MODIFIED, false},
        {"*", "\"a\"", MODIFIED, false},
        {"", "\"a\"", MODIFIED, false},
        {SAME, "\"a\"", MODIFIED, true},
        {LATER, "\"a\"", MODIFIED, false},
        {EARLIER, "\"a\"", MODIFIED, false},
        {SAME, "\"a\"", -1, false},
        {"nonsense", "\"a\"", -1, false},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[5];
        struct fields f = {.ir = t[i].ir};
        struct head h = head_of(&f, hdrs);
        if (cond_if_range(&h, str_c(t[i].etag), t[i].modified) != t[i].want) fail_msg("row %zu", i);
        assert_false(cond_any(&h));
    }
    struct hdr twice[] = {field(HDR_IF_RANGE, "\"a\""), field(HDR_IF_RANGE, "\"a\"")};
    struct head h = {.hdrs = twice, .nhdrs = 2};
    assert_false(cond_if_range(&h, STR_LIT("\"a\""), MODIFIED));
}

/* RFC 9110 8.8.3.2, table 3, and malformed ones */
static void tags_compare(void **state)
{
    (void)state;
    static const struct {
        const char *a, *b;
        bool strong, weak;
    } t[] = {
        {"W/\"1\"", "W/\"1\"", false, true}, {"W/\"1\"", "W/\"2\"", false, false}, {"W/\"1\"", "\"1\"", false, true},
        {"\"1\"", "\"1\"", true, true},      {"\"1\"", "\"2\"", false, false},     {"1", "1", false, false},
        {"\"1", "\"1", false, false},        {"", "", false, false},               {"\"\"", "\"\"", true, true},
        {"w/\"1\"", "w/\"1\"", false, false}, {"\"a b\"", "\"a b\"", false, false}, {"\"", "\"", false, false},
        {"\"a\"b\"", "\"a\"b\"", false, false},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        assert_int_equal(etag_strong_eq(str_c(t[i].a), str_c(t[i].b)), t[i].strong);
        assert_int_equal(etag_weak_eq(str_c(t[i].a), str_c(t[i].b)), t[i].weak);
    }
    assert_true(etag_is_strong(str_c("\"d41d8cd98f00b204e9800998ecf8427e-5\"")));
    assert_false(etag_is_strong(str_c("W/\"x\"")));
    assert_false(etag_is_strong((struct str){NULL, 0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preconditions_follow_rfc_9110),
        cmocka_unit_test(dates_do_not_count_without_last_modified),
        cmocka_unit_test(repeated_fields_list_tags_together_and_void_dates),
        cmocka_unit_test(if_range_needs_a_strong_match),
        cmocka_unit_test(tags_compare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
