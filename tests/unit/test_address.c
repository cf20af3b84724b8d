/* test_address.c - bucket and key of requests, and where they go at the origin. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "s3/address.h"

static const char *const bases[] = {"s3.local", "eu.s3.local", "10.0.0.1"};

struct incoming {
    const char *host, *path;
    const char *bucket, *key; /* NULL: none */
};

static bool same(struct str got, const char *want)
{
    return want ? got.p && str_eq(got, str_c(want)) : !got.p && got.n == 0;
}

static void test_bucket_and_key_of_a_request(void **state)
{
    (void)state;
    static const struct incoming rows[] = {
        {"localhost", "/", NULL, NULL},
        {"localhost", "/bucket", "bucket", NULL},
        {"localhost", "/bucket/", "bucket", ""},
        {"localhost", "/bucket/key", "bucket", "key"},
        {"localhost", "/bucket/a/b/", "bucket", "a/b/"},
        {"localhost", "/bucket//a//b", "bucket", "/a//b"},
        {"localhost", "/bucket/../x/./y", "bucket", "../x/./y"},
        {"localhost", "/bucket/a%2Fb+c%20!*'()", "bucket", "a%2Fb+c%20!*'()"},
        {"localhost", "//key", "", "key"},
        {"localhost", "*", NULL, NULL},
        {"localhost", "", NULL, NULL},
        {"", "/bucket/key", "bucket", "key"},
        /* virtual-hosted */
        {"bucket.s3.local", "/key", "bucket", "key"},
        {"bucket.s3.local", "/", "bucket", ""},
        {"bucket.s3.local", "//key/", "bucket", "/key/"},
        {"BUCKET.S3.Local", "/key", "BUCKET", "key"},
        {"my.dotted.bucket.s3.local", "/key", "my.dotted.bucket", "key"},
        {"bucket.s3.local.", "/key", "bucket", "key"},
        {"b.eu.s3.local", "/key", "b", "key"},
        {"eu.s3.local", "/bucket/key", "eu", "bucket/key"},
        {"s3.local", "/bucket/key", "bucket", "key"},
        {".s3.local", "/bucket/key", "bucket", "key"},
        {"xs3.local", "/bucket/key", "bucket", "key"},
        {"bucket.s3.local.evil.org", "/b/k", "b", "k"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct s3_address a;
        address_from_request(str_c(rows[i].host), str_c(rows[i].path), bases, ARRAY_LEN(bases), &a);
        if (!same(a.bucket, rows[i].bucket) || !same(a.key, rows[i].key))
            fail_msg("%s %s: " STR_FMT " / " STR_FMT, rows[i].host, rows[i].path, STR_ARG(a.bucket), STR_ARG(a.key));
    }
}

static void test_path_style_and_virtual_hosted_agree(void **state)
{
    (void)state;
    struct s3_address path, virtual;
    address_from_request(STR_LIT("s3.local"), STR_LIT("/bucket/a//b%20c"), bases, ARRAY_LEN(bases), &path);
    address_from_request(STR_LIT("bucket.s3.local"), STR_LIT("/a//b%20c"), bases, ARRAY_LEN(bases), &virtual);
    assert_true(str_eq(path.bucket, virtual.bucket));
    assert_true(str_eq(path.key, virtual.key));
}

static void test_no_base_domains_means_path_style(void **state)
{
    (void)state;
    struct s3_address a;
    const char *const empty[] = {"", NULL};
    address_from_request(STR_LIT("bucket.s3.local"), STR_LIT("/b/k"), NULL, 0, &a);
    assert_true(same(a.bucket, "b"));
    address_from_request(STR_LIT("bucket.s3.local"), STR_LIT("/b/k"), empty, 2, &a);
    assert_true(same(a.bucket, "b"));
}

struct outgoing {
    const char *bucket, *key;
    bool virtual_hosted;
    const char *endpoint;
    unsigned port;
    bool https;
    const char *prefix;
    const char *host, *path;
};

static void check_outgoing(const struct outgoing *r)
{
    struct pool *pool = pool_create(1 << 16);
    struct s3_address a = {str_c(r->bucket), str_c(r->key)};
    struct str host, path;
    assert_int_equal(address_to_origin(&a, r->virtual_hosted, str_c(r->endpoint), r->port, r->https, str_c(r->prefix),
                                       pool, &host, &path),
                     ERR_OK);
    if (!same(host, r->host) || !same(path, r->path))
        fail_msg("%s/%s: got " STR_FMT " " STR_FMT " want %s %s", r->bucket ? r->bucket : "", r->key ? r->key : "",
                 STR_ARG(host), STR_ARG(path), r->host, r->path);
    pool_destroy(pool);
}

static void test_host_and_path_at_the_origin(void **state)
{
    (void)state;
    static const struct outgoing rows[] = {
        {"bucket", "key", false, "s3.amazonaws.com", 443, true, "", "s3.amazonaws.com", "/bucket/key"},
        {"bucket", "key", true, "s3.amazonaws.com", 443, true, "", "bucket.s3.amazonaws.com", "/key"},
        {"bucket", NULL, true, "s3.amazonaws.com", 443, true, "", "bucket.s3.amazonaws.com", "/"},
        {"bucket", "", true, "s3.amazonaws.com", 443, true, "", "bucket.s3.amazonaws.com", "/"},
        {"bucket", NULL, false, "s3.amazonaws.com", 443, true, "", "s3.amazonaws.com", "/bucket"},
        {"bucket", "", false, "s3.amazonaws.com", 443, true, "", "s3.amazonaws.com", "/bucket/"},
        {NULL, NULL, false, "s3.amazonaws.com", 443, true, "", "s3.amazonaws.com", "/"},
        {NULL, NULL, true, "s3.amazonaws.com", 443, true, "", "s3.amazonaws.com", "/"},
        {"bucket", "//a/../%20b+/", true, "h", 80, false, "", "bucket.h", "///a/../%20b+/"},
        {"bucket", "//a/../%20b+/", false, "h", 80, false, "", "h", "/bucket///a/../%20b+/"},
        {"", "key", false, "h", 80, false, "", "h", "//key"},
        {"bucket", "key", false, "h", 80, false, "/pre/fix", "h", "/pre/fix/bucket/key"},
        {"bucket", "key", true, "h", 80, false, "/pre", "bucket.h", "/pre/key"},
        {NULL, NULL, true, "h", 80, false, "/pre", "h", "/pre/"},
        /* ports */
        {"bucket", "key", false, "h", 443, false, "", "h:443", "/bucket/key"},
        {"bucket", "key", false, "h", 80, true, "", "h:80", "/bucket/key"},
        {"bucket", "key", true, "h", 9000, false, "", "bucket.h:9000", "/key"},
        {"bucket", "key", true, "h", 65535, true, "", "bucket.h:65535", "/key"},
        {"bucket", "key", false, "h", 0, true, "", "h", "/bucket/key"},
        /* no bucket in front of an address */
        {"bucket", "key", true, "127.0.0.1", 9000, false, "", "127.0.0.1:9000", "/bucket/key"},
        {"bucket", "key", true, "::1", 9000, false, "", "[::1]:9000", "/bucket/key"},
        {"bucket", "key", true, "[::1]", 9000, false, "", "[::1]:9000", "/bucket/key"},
        /* buckets that are no host name */
        {"Bucket", "key", true, "h", 80, false, "", "h", "/Bucket/key"},
        {"my_bucket", "key", true, "h", 80, false, "", "h", "/my_bucket/key"},
        {"my%2Dbucket", "key", true, "h", 80, false, "", "h", "/my%2Dbucket/key"},
        {"ab", "key", true, "h", 80, false, "", "h", "/ab/key"},
        {"-bucket", "key", true, "h", 80, false, "", "h", "/-bucket/key"},
        {"bucket-", "key", true, "h", 80, false, "", "h", "/bucket-/key"},
        {"my.bucket", "key", true, "h", 80, false, "", "my.bucket.h", "/key"},
        {"my.bucket", "key", true, "h", 443, true, "", "h", "/my.bucket/key"},
        {"my..bucket", "key", true, "h", 80, false, "", "h", "/my..bucket/key"},
        {"my.-bucket", "key", true, "h", 80, false, "", "h", "/my.-bucket/key"},
        {"my-.bucket", "key", true, "h", 80, false, "", "h", "/my-.bucket/key"},
        {".bucket", "key", true, "h", 80, false, "", "h", "/.bucket/key"},
        {"bucket.", "key", true, "h", 80, false, "", "h", "/bucket./key"},
        {"192.168.5.4", "key", true, "h", 80, false, "", "h", "/192.168.5.4/key"},
        {"123", "key", true, "h", 80, false, "", "123.h", "/key"},
        {"a-1", "key", true, "h", 80, false, "", "a-1.h", "/key"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) check_outgoing(&rows[i]);
}

static void test_longest_bucket_in_a_host(void **state)
{
    (void)state;
    char bucket[65], want[80];
    memset(bucket, 'b', 64);
    bucket[64] = '\0';
    struct outgoing r = {bucket, "k", true, "h", 80, false, "", "h", want};
    snprintf(want, sizeof want, "/%s/k", bucket);
    check_outgoing(&r);
    bucket[63] = '\0';
    snprintf(want, sizeof want, "%s.h", bucket);
    r.host = want;
    r.path = "/k";
    check_outgoing(&r);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct s3_address a = {STR_LIT("bucket"), STR_LIT("key")};
    struct str host, path;
    for (size_t max = 0; max < 64; max += 16) {
        struct pool *pool = pool_create(max);
        enum err e = address_to_origin(&a, true, STR_LIT("h"), 80, false, STR_LIT(""), pool, &host, &path);
        assert_int_equal(e, max < 32 ? ERR_NOMEM : ERR_OK);
        pool_destroy(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket_and_key_of_a_request),
        cmocka_unit_test(test_path_style_and_virtual_hosted_agree),
        cmocka_unit_test(test_no_base_domains_means_path_style),
        cmocka_unit_test(test_host_and_path_at_the_origin),
        cmocka_unit_test(test_longest_bucket_in_a_host),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
