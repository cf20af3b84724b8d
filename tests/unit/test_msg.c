/* test_msg.c - names, lists and look-ups in heads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "http/msg.h"

static void assert_str(struct str s, const char *z)
{
    assert_int_equal(s.n, strlen(z));
    assert_memory_equal(s.p ? s.p : "", z, s.n);
}

static struct hdr field(const char *name, const char *value)
{
    return (struct hdr){.name = str_c(name), .value = str_c(value), .id = hdr_id_of(str_c(name))};
}

static void every_known_name_has_its_id_in_any_case(void **state)
{
    (void)state;
    for (unsigned id = 1; id < HDR_COUNT; id++) {
        struct str name = hdr_name((enum hdr_id)id);
        char upper[64], wrong[64];
        assert_int_equal(hdr_id_of(name), id);
        for (size_t i = 0; i < name.n; i++) {
            upper[i] = (char)(name.p[i] >= 'a' && name.p[i] <= 'z' ? name.p[i] - 32 : name.p[i]);
        }
        assert_int_equal(hdr_id_of(str_make(upper, name.n)), id);
        for (size_t i = 0; i < name.n; i++) {
            memcpy(wrong, name.p, name.n);
            wrong[i] = '_';
            assert_int_equal(hdr_id_of(str_make(wrong, name.n)), HDR_OTHER);
            wrong[i] = (char)(name.p[i] & ~0x20); /* a control, where it is no letter */
            bool letter = name.p[i] >= 'a' && name.p[i] <= 'z';
            if (name.p[i] != wrong[i]) assert_int_equal(hdr_id_of(str_make(wrong, name.n)), letter ? id : HDR_OTHER);
            wrong[i] = (char)(name.p[i] | 0x80);
            assert_int_equal(hdr_id_of(str_make(wrong, name.n)), HDR_OTHER);
        }
    }
    assert_int_equal(hdr_id_of(str_c("")), HDR_OTHER);
    assert_int_equal(hdr_id_of((struct str){NULL, 0}), HDR_OTHER);
    assert_int_equal(hdr_id_of(str_c("x-amz-meta-thing")), HDR_OTHER);
    assert_int_equal(hdr_id_of(str_c("a-name-that-is-longer-than-any-we-know-of")), HDR_OTHER);
}

static void methods_are_case_sensitive(void **state)
{
    (void)state;
    assert_int_equal(method_of(str_c("GET")), METHOD_GET);
    assert_int_equal(method_of(str_c("HEAD")), METHOD_HEAD);
    assert_int_equal(method_of(str_c("CONNECT")), METHOD_CONNECT);
    assert_int_equal(method_of(str_c("OPTIONS")), METHOD_OPTIONS);
    assert_int_equal(method_of(str_c("get")), METHOD_OTHER);
    assert_int_equal(method_of(str_c("GETS")), METHOD_OTHER);
    assert_int_equal(method_of(str_c("")), METHOD_OTHER);
}

static void lists_are_walked_with_quotes_respected(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *out[5];
    } t[] = {
        {"a", {"a"}},
        {"a,b", {"a", "b"}},
        {" a\t, ,,b ,", {"a", "b"}},
        {"", {NULL}},
        {" , ,", {NULL}},
        {"a=\"x,y\", b", {"a=\"x,y\"", "b"}},
        {"\"a\\\",b\", c", {"\"a\\\",b\"", "c"}},
        {"a, \"unclosed, b", {"a", "\"unclosed, b"}},
        {"\"\\", {"\"\\"}},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct str rest = str_c(t[i].in), member;
        size_t k = 0;
        while (hdr_list_next(&rest, &member)) {
            assert_non_null(t[i].out[k]);
            assert_str(member, t[i].out[k++]);
        }
        assert_null(t[i].out[k]);
    }
}

static void tokens_are_found_in_all_fields_of_the_name(void **state)
{
    (void)state;
    struct hdr hdrs[] = {field("Connection", "x-a, Keep-Alive"), field("Via", "close"), field("connection", "\"y, CLOSE")};
    struct head h = {.hdrs = hdrs, .nhdrs = 3};
    assert_true(head_has_token(&h, HDR_CONNECTION, STR_LIT("keep-alive")));
    assert_true(head_has_token(&h, HDR_CONNECTION, STR_LIT("close")));
    assert_false(head_has_token(&h, HDR_CONNECTION, STR_LIT("keep")));
    assert_false(head_has_token(&h, HDR_UPGRADE, STR_LIT("close")));
}

static void fields_are_found(void **state)
{
    (void)state;
    struct hdr hdrs[] = {field("X-Amz-Meta-A", "1"), field("ETag", "\"x\""), field("etag", "\"y\"")};
    struct head h = {.hdrs = hdrs, .nhdrs = 3};
    assert_ptr_equal(head_find(&h, HDR_ETAG), &hdrs[1]);
    assert_null(head_find(&h, HDR_AGE));
    assert_str(head_value(&h, HDR_ETAG), "\"x\"");
    assert_null(head_value(&h, HDR_AGE).p);
    assert_ptr_equal(head_find_name(&h, STR_LIT("x-amz-meta-a")), &hdrs[0]);
    assert_null(head_find_name(&h, STR_LIT("x-amz-meta-b")));
}

static void hop_by_hop_fields_are_known(void **state)
{
    (void)state;
    struct hdr hdrs[] = {field("Connection", "X-Hop, host, range, authorization"),
                         field("x-hop", "1"), field("Host", "h"), field("Range", "bytes=0-1"),
                         field("Authorization", "a"), field("TE", "trailers"), field("X-Other", "1"),
                         field("Keep-Alive", "1"), field("Upgrade", "h2c"), field("Transfer-Encoding", "chunked")};
    static const bool hop[] = {true, true, false, false, false, true, false, true, true, true};
    struct head h = {.hdrs = hdrs, .nhdrs = sizeof(hdrs) / sizeof(hdrs[0])};
    for (unsigned i = 0; i < h.nhdrs; i++) assert_int_equal(hdr_is_hop_by_hop(&h, &hdrs[i]), hop[i]);
}

static void reasons_are_given(void **state)
{
    (void)state;
    assert_string_equal(status_reason(200), "OK");
    assert_string_equal(status_reason(416), "Range Not Satisfiable");
    assert_string_equal(status_reason(799), "Unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_known_name_has_its_id_in_any_case),
        cmocka_unit_test(methods_are_case_sensitive),
        cmocka_unit_test(lists_are_walked_with_quotes_respected),
        cmocka_unit_test(tokens_are_found_in_all_fields_of_the_name),
        cmocka_unit_test(fields_are_found),
        cmocka_unit_test(hop_by_hop_fields_are_known),
        cmocka_unit_test(reasons_are_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
