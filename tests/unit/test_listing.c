/* test_listing.c - the documents of S3 that clients read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
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

/* ---- entries, buckets, what could not be deleted: as lines of text */

static char lines[2048];

static bool on_entry(void *arg, const struct listing_entry *e)
{
    size_t n = strlen(lines);
    (void)arg;
    if (e->is_prefix) snprintf(lines + n, sizeof lines - n, "DIR " STR_FMT "\n", STR_ARG(e->key));
    else
        snprintf(lines + n, sizeof lines - n, STR_FMT " %llu " STR_FMT " " STR_FMT " " STR_FMT "\n", STR_ARG(e->key),
                 (unsigned long long)e->size, STR_ARG(e->etag), STR_ARG(e->modified), STR_ARG(e->storage_class));
    return true;
}

static void entries_with_all_they_have(void **state)
{
    char *token;
    (void)state;
    lines[0] = '\0';
    assert_int_equal(listing_entries(str_c(HEAD "<Prefix>x/</Prefix><EncodingType>url</EncodingType><CommonPrefixes><Prefix>a%2F+b%2F</Prefix>"
                                           "</CommonPrefixes><Contents><Key>k%20</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
                                           "<ETag>&quot;e&quot;</ETag><Size>18446744073709551615</Size><StorageClass>GLACIER</StorageClass>"
                                           "</Contents><Contents><Key>m</Key></Contents></ListBucketResult>"),
                                     on_entry, NULL, &token), ERR_OK);
    assert_string_equal(lines, "k  18446744073709551615 \"e\" 2026-01-02T03:04:05.000Z GLACIER\nm 0   \nDIR a/ b/\n");
    assert_null(token);
}

static void entries_that_cannot_be(void **state)
{
    static const char *const bad[] = {"<Contents><Key>k</Key><Size>-1</Size></Contents>", "<Contents><Key>k</Key><Size>18446744073709551616</Size></Contents>",
                                      "<Contents><Key>k</Key><Size>1e3</Size></Contents>", "<CommonPrefixes></CommonPrefixes>",
                                      "<EncodingType>url</EncodingType><Contents><Key>a%4</Key></Contents>",
                                      "<EncodingType>url</EncodingType><Contents><Key>a%4g</Key></Contents>",
                                      "<EncodingType>url</EncodingType><CommonPrefixes><Prefix>%</Prefix></CommonPrefixes>"};
    char text[512], *token;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(text, sizeof text, HEAD "%s</ListBucketResult>", bad[i]);
        assert_int_equal(listing_entries(str_c(text), on_entry, NULL, &token), ERR_PROTOCOL);
        assert_null(token);
    }
}

static bool on_bucket(void *arg, struct str name, struct str created)
{
    size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, STR_FMT " " STR_FMT "\n", STR_ARG(name), STR_ARG(created));
    return arg == NULL;
}

static void buckets(void **state)
{
    static const char doc[] = "<ListAllMyBucketsResult><Owner><ID>o</ID></Owner><Buckets><Bucket><Name>a</Name><CreationDate>2026</CreationDate></Bucket>"
                              "<Bucket><CreationDate>x</CreationDate><Name>b&amp;</Name></Bucket><Bucket></Bucket></Buckets></ListAllMyBucketsResult>";
    (void)state;
    lines[0] = '\0';
    assert_int_equal(listing_buckets(str_c(doc), on_bucket, NULL), ERR_OK);
    assert_string_equal(lines, "a 2026\nb& x\n \n");
    assert_int_equal(listing_buckets(str_c(doc), on_bucket, lines), ERR_NOMEM);
    assert_int_equal(listing_buckets(str_c(HEAD "</ListBucketResult>"), on_bucket, NULL), ERR_PROTOCOL);
    assert_int_equal(listing_buckets(str_c("<ListAllMyBucketsResult><Bucket><Name>a</Name></Bucket>"), on_bucket, NULL), ERR_PROTOCOL);
    assert_int_equal(listing_buckets((struct str){NULL, 0}, on_bucket, NULL), ERR_PROTOCOL);
}

static bool on_failed(void *arg, struct str key, struct str code, struct str message)
{
    size_t n = strlen(lines);
    snprintf(lines + n, sizeof lines - n, STR_FMT " " STR_FMT " " STR_FMT "\n", STR_ARG(key), STR_ARG(code), STR_ARG(message));
    return arg == NULL;
}

static void what_could_not_be_deleted(void **state)
{
    (void)state;
    lines[0] = '\0';
    assert_int_equal(listing_deleted(str_c("<DeleteResult xmlns=\"x\"><Deleted><Key>a</Key></Deleted><Error><Key>b&#10;</Key><Code>AccessDenied</Code>"
                                           "<Message>No.</Message></Error><Error><Key>c</Key></Error></DeleteResult>"), on_failed, NULL), ERR_OK);
    assert_string_equal(lines, "b\n AccessDenied No.\nc  \n");
    assert_int_equal(listing_deleted(str_c("<DeleteResult></DeleteResult>"), on_failed, NULL), ERR_OK);
    assert_int_equal(listing_deleted(str_c("<DeleteResult><Error></Error></DeleteResult>"), on_failed, lines), ERR_NOMEM);
    assert_int_equal(listing_deleted(str_c("<Error><Code>InternalError</Code></Error>"), on_failed, NULL), ERR_PROTOCOL);
    assert_int_equal(listing_deleted(str_c("<DeleteResult>"), on_failed, NULL), ERR_PROTOCOL);
}

static void single_elements(void **state)
{
    static const struct {
        const char *text, *expected;
    } cases[] = {{"<a><M>x&lt;</M><M>y</M></a>", "x<"}, {"<M></M>", ""}, {"<M>x", NULL}, {"", NULL}, {"<N>x</N>", NULL}, {"</M>x<M>", NULL}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *got = listing_text(str_c(cases[i].text), "M");
        if (cases[i].expected) assert_string_equal(got, cases[i].expected);
        else assert_null(got);
        free(got);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_the_way_on),
        cmocka_unit_test(encoded_keys),
        cmocka_unit_test(what_is_no_listing),
        cmocka_unit_test(memory_that_runs_out),
        cmocka_unit_test(entries_with_all_they_have),
        cmocka_unit_test(entries_that_cannot_be),
        cmocka_unit_test(buckets),
        cmocka_unit_test(what_could_not_be_deleted),
        cmocka_unit_test(single_elements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
