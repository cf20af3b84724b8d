/* test_listing.c - pages of ListObjectsV2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "s3/listing.h"

static char keys[16][64];
static unsigned nkeys, refuse_at;

static bool on_key(void *arg, struct str key)
{
    (void)arg;
    if (++nkeys == refuse_at) return false;
    assert_true(nkeys <= 16 && key.n < 64);
    memcpy(keys[nkeys - 1], key.p, key.n);
    keys[nkeys - 1][key.n] = '\0';
    return true;
}

static enum err parse(const char *text, char **token)
{
    nkeys = 0;
    return listing_parse(str_c(text), on_key, NULL, token);
}

#define HEAD "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name>"

static void keys_and_the_way_on(void **state)
{
    char *token;
    (void)state;
    assert_int_equal(parse(HEAD "<IsTruncated>true</IsTruncated><Contents><Key>a/1</Key><Size>1</Size></Contents>"
                           "<NextContinuationToken>t&amp;1=</NextContinuationToken><Contents><Key>b&lt;&#38;&#x2f;&quot;&nope;&</Key>"
                           "</Contents></ListBucketResult>", &token), ERR_OK);
    assert_int_equal(nkeys, 2);
    assert_string_equal(keys[0], "a/1");
    assert_string_equal(keys[1], "b<&/\"&nope;&");
    assert_string_equal(token, "t&1=");
    free(token);
    assert_int_equal(parse(HEAD "<IsTruncated>false</IsTruncated></ListBucketResult>", &token), ERR_OK);
    assert_int_equal(nkeys, 0);
    assert_null(token);
}

static void encoded_keys(void **state)
{
    char *token;
    (void)state;
    assert_int_equal(parse(HEAD "<EncodingType>url</EncodingType><Contents><Key>a%2Bb+c%26%C3%BC</Key></Contents>"
                           "</ListBucketResult>", &token), ERR_OK);
    assert_string_equal(keys[0], "a+b c&\xc3\xbc");
    assert_int_equal(parse(HEAD "<Contents><Key>a%2Bb+c &#252;&#x20ac;&#x1F600;</Key></Contents></ListBucketResult>", &token), ERR_OK);
    assert_string_equal(keys[0], "a%2Bb+c \xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80");
}

static void what_is_no_listing(void **state)
{
    static const char *const bad[] = {"", "x", "<Error><Code>NoSuchBucket</Code></Error>",
                                      HEAD "<Contents><Size>1</Size></Contents></ListBucketResult>",
                                      HEAD "<IsTruncated>true</IsTruncated></ListBucketResult>"};
    char *token;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(parse(bad[i], &token), ERR_PROTOCOL);
        assert_null(token);
    }
    /* cut short */
    assert_int_equal(parse(HEAD "<Contents><Key>a</Key></Contents><Contents><Key>b</Key>", &token), ERR_PROTOCOL);
    assert_int_equal(nkeys, 0);
}

static void memory_that_runs_out(void **state)
{
    char *token;
    (void)state;
    refuse_at = 2;
    assert_int_equal(parse(HEAD "<Contents><Key>a</Key></Contents><Contents><Key>b</Key></Contents></ListBucketResult>", &token),
                     ERR_NOMEM);
    refuse_at = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_the_way_on),
        cmocka_unit_test(encoded_keys),
        cmocka_unit_test(what_is_no_listing),
        cmocka_unit_test(memory_that_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
