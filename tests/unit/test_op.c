/* test_op.c - the table of S3 requests: what each is, what of its query belongs to the cache key. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "http/uri.h"
#include "s3/op.h"

static const char *const bases[] = {"s3.local"};

static enum err classify_in(struct pool *pool, const char *method, const char *host, const char *target,
                            struct hdr *hdrs, unsigned nhdrs, struct s3_request *out)
{
    struct head head = {.method = method_of(str_c(method)), .method_text = str_c(method), .hdrs = hdrs, .nhdrs = nhdrs};
    struct target t;
    assert_int_equal(target_parse(str_c(target), &t), ERR_OK);
    return op_classify(&head, str_c(host), t.path, t.query, bases, 1, pool, out);
}

struct row {
    const char *method, *target;
    enum s3_op op;
};

static void test_operations(void **state)
{
    (void)state;
    static const struct row rows[] = {
        /* service */
        {"GET", "/", OP_LIST},
        {"GET", "/?x-id=ListBuckets", OP_LIST},
        {"GET", "/?max-buckets=10", OP_LIST},
        {"HEAD", "/", OP_READ_OTHER},
        {"PUT", "/", OP_OTHER},
        {"POST", "/", OP_OTHER},
        {"DELETE", "/", OP_OTHER},
        {"OPTIONS", "*", OP_OTHER},
        {"OPTIONS", "/", OP_OTHER},
        {"GET", "//key", OP_OTHER},
        /* bucket: reads */
        {"GET", "/b", OP_LIST},
        {"GET", "/b/", OP_LIST},
        {"GET", "/b?list-type=2&prefix=", OP_LIST},
        {"GET", "/b?list-type=2&prefix=a/&delimiter=/&continuation-token=x&start-after=&fetch-owner=true", OP_LIST},
        {"GET", "/b?prefix&marker&max-keys=2&encoding-type=url", OP_LIST},
        {"GET", "/b?versions", OP_LIST},
        {"GET", "/b?versions=&key-marker=&version-id-marker=", OP_LIST},
        {"HEAD", "/b", OP_READ_OTHER},
        {"GET", "/b?uploads", OP_READ_OTHER},
        {"GET", "/b?location", OP_READ_OTHER},
        {"GET", "/b?location=", OP_READ_OTHER},
        {"GET", "/b?acl", OP_READ_OTHER},
        {"GET", "/b?policy", OP_READ_OTHER},
        {"GET", "/b?policyStatus", OP_READ_OTHER},
        {"GET", "/b?lifecycle", OP_READ_OTHER},
        {"GET", "/b?cors", OP_READ_OTHER},
        {"GET", "/b?tagging", OP_READ_OTHER},
        {"GET", "/b?versioning", OP_READ_OTHER},
        {"GET", "/b?encryption", OP_READ_OTHER},
        {"GET", "/b?website", OP_READ_OTHER},
        {"GET", "/b?logging", OP_READ_OTHER},
        {"GET", "/b?notification", OP_READ_OTHER},
        {"GET", "/b?replication", OP_READ_OTHER},
        {"GET", "/b?requestPayment", OP_READ_OTHER},
        {"GET", "/b?accelerate", OP_READ_OTHER},
        {"GET", "/b?analytics&id=1", OP_READ_OTHER},
        {"GET", "/b?inventory&id=1", OP_READ_OTHER},
        {"GET", "/b?metrics&id=1", OP_READ_OTHER},
        {"GET", "/b?intelligent-tiering&id=1", OP_READ_OTHER},
        {"GET", "/b?object-lock", OP_READ_OTHER},
        {"GET", "/b?ownershipControls", OP_READ_OTHER},
        {"GET", "/b?publicAccessBlock", OP_READ_OTHER},
        {"GET", "/b?metadataTable", OP_READ_OTHER},
        {"GET", "/b?metadataConfiguration", OP_READ_OTHER},
        {"GET", "/b?session", OP_READ_OTHER},
        {"GET", "/b?abac", OP_READ_OTHER},
        {"GET", "/b?something-new", OP_READ_OTHER},
        {"GET", "/b?l%6Fcation", OP_READ_OTHER},
        /* bucket: writes */
        {"PUT", "/b", OP_WRITE_BUCKET},
        {"DELETE", "/b", OP_WRITE_BUCKET},
        {"PUT", "/b?policy", OP_WRITE_BUCKET},
        {"DELETE", "/b/?lifecycle", OP_WRITE_BUCKET},
        {"POST", "/b?delete", OP_DELETE_MANY},
        {"POST", "/b/?delete=", OP_DELETE_MANY},
        {"POST", "/b?%64elete", OP_DELETE_MANY},
        {"POST", "/b?x-id=DeleteObjects&delete", OP_DELETE_MANY},
        {"POST", "/b", OP_WRITE_BUCKET}, /* form upload: the key is in the body */
        {"POST", "/b?metadataTable", OP_WRITE_BUCKET},
        {"OPTIONS", "/b", OP_OTHER},
        /* object: reads */
        {"GET", "/b/k", OP_GET_OBJECT},
        {"HEAD", "/b/k", OP_HEAD_OBJECT},
        {"GET", "/b/k/", OP_GET_OBJECT},
        {"GET", "/b//", OP_GET_OBJECT},
        {"GET", "/b/acl", OP_GET_OBJECT},
        {"GET", "/b/k?", OP_GET_OBJECT},
        {"GET", "/b/k?&&", OP_GET_OBJECT},
        {"GET", "/b/k?x-id=GetObject", OP_GET_OBJECT},
        {"GET", "/b/k?x-id", OP_GET_OBJECT},
        {"GET", "/b/k?foo=acl", OP_GET_OBJECT},
        {"GET", "/b/k?ACL=1", OP_GET_OBJECT}, /* names are case-sensitive */
        {"GET", "/b/k?versionId=v", OP_GET_OBJECT},
        {"GET", "/b/k?partNumber=1", OP_GET_OBJECT},
        {"GET", "/b/k?response-content-type=a/b", OP_GET_OBJECT},
        {"GET",
         "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=c&X-Amz-Date=d&X-Amz-Expires=60"
         "&X-Amz-SignedHeaders=host&X-Amz-Signature=s&X-Amz-Security-Token=t",
         OP_GET_OBJECT},
        {"GET", "/b/k?X-Amz-Security-Token=", OP_GET_OBJECT},
        {"GET", "/b/k?AWSAccessKeyId=a&Signature=s&Expires=1", OP_GET_OBJECT},
        {"GET", "/b/k?acl", OP_READ_OTHER},
        {"GET", "/b/k?acl=", OP_READ_OTHER},
        {"GET", "/b/k?acl=x", OP_READ_OTHER},
        {"GET", "/b/k?%61cl", OP_READ_OTHER},
        {"HEAD", "/b/k?acl", OP_READ_OTHER},
        {"GET", "/b/k?versionId=v&tagging", OP_READ_OTHER},
        {"GET", "/b/k?attributes", OP_READ_OTHER},
        {"GET", "/b/k?legal-hold", OP_READ_OTHER},
        {"GET", "/b/k?retention", OP_READ_OTHER},
        {"GET", "/b/k?torrent", OP_READ_OTHER},
        {"GET", "/b/k?uploadId=u", OP_READ_OTHER},
        {"GET", "/b/k?uploadId=u&max-parts=2&part-number-marker=1", OP_READ_OTHER},
        {"GET", "/b/k?uploads", OP_READ_OTHER},
        {"GET", "/b/k?restore", OP_READ_OTHER},
        {"GET", "/b/k?something-new", OP_READ_OTHER},
        {"GET", "/b/k?something-new=", OP_READ_OTHER},
        {"GET", "/b/k?something-new=1", OP_GET_OBJECT}, /* S3 ignores it */
        {"GET", "/b/k?response-x-new=1", OP_READ_OTHER},
        {"GET", "/b/k?a%zz=1", OP_READ_OTHER}, /* who knows how the origin reads it */
        {"GET", "/b/k?versionI%6=1", OP_READ_OTHER},
        /* object: writes */
        {"PUT", "/b/k", OP_WRITE_OBJECT},
        {"PUT", "/b/k?x-id=PutObject", OP_WRITE_OBJECT},
        {"PUT", "/b/k?x-id=CopyObject", OP_WRITE_OBJECT},
        {"PUT", "/b/k?something-new", OP_WRITE_OBJECT},
        {"PUT", "/b/k?acl", OP_WRITE_OBJECT},
        {"PUT", "/b/k?tagging", OP_WRITE_OBJECT},
        {"PUT", "/b/k?retention", OP_WRITE_OBJECT},
        {"PUT", "/b/k?legal-hold", OP_WRITE_OBJECT},
        {"PUT", "/b/k?renameObject", OP_WRITE_OBJECT},
        {"PUT", "/b/k?encryption", OP_WRITE_OBJECT},
        {"PUT", "/b/k?partNumber=1&uploadId=u", OP_WRITE_PART},
        {"PUT", "/b/k?uploadId=u&partNumber=1&x-id=UploadPart", OP_WRITE_PART},
        {"PUT", "/b/k?%75ploadId=u&partNumber=1", OP_WRITE_PART},
        {"PUT", "/b/k?partNumber=1", OP_WRITE_OBJECT},
        {"DELETE", "/b/k", OP_WRITE_OBJECT},
        {"DELETE", "/b/k?versionId=v", OP_WRITE_OBJECT},
        {"DELETE", "/b/k?tagging", OP_WRITE_OBJECT},
        {"DELETE", "/b/k?uploadId=u", OP_WRITE_PART},
        {"POST", "/b/k?uploads", OP_WRITE_PART},
        {"POST", "/b/k?uploads=", OP_WRITE_PART},
        {"POST", "/b/k?uploadId=u", OP_WRITE_OBJECT},
        {"POST", "/b/k?restore", OP_WRITE_OBJECT},
        {"POST", "/b/k?restore&versionId=v", OP_WRITE_OBJECT},
        {"POST", "/b/k?select&select-type=2", OP_OTHER},
        {"POST", "/b/k?delete", OP_WRITE_OBJECT},
        {"POST", "/b/k", OP_WRITE_OBJECT},
        {"PATCH", "/b/k", OP_WRITE_OBJECT},
        {"COPY", "/b/k", OP_WRITE_OBJECT}, /* unknown methods may write */
        {"get", "/b/k", OP_WRITE_OBJECT},
        {"OPTIONS", "/b/k", OP_OTHER},
        {"TRACE", "/b/k", OP_OTHER},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pool *pool = pool_create(1 << 16);
        struct s3_request r;
        assert_int_equal(classify_in(pool, rows[i].method, "localhost", rows[i].target, NULL, 0, &r), ERR_OK);
        if (r.op != rows[i].op)
            fail_msg("%s %s: %s, not %s", rows[i].method, rows[i].target, op_name(r.op), op_name(rows[i].op));
        assert_int_equal(r.cacheable, r.op == OP_GET_OBJECT || r.op == OP_HEAD_OBJECT);
        pool_destroy(pool);
    }
}

static void test_key_query(void **state)
{
    (void)state;
    static const struct {
        const char *target, *key_query;
        bool whole, cacheable;
    } rows[] = {
        {"/b/k", "", true, true},
        {"/b/k?x-id=GetObject&foo=bar", "", true, true},
        {"/b/k?versionId=abc", "versionId=abc", true, true},
        {"/b/k?partNumber=2", "partNumber=2", false, true},
        {"/b/k?versionId=v&partNumber=2", "partNumber=2&versionId=v", false, true},
        {"/b/k?versionId", "versionId=", true, true},
        {"/b/k?version%49d=a%2Fb", "versionId=a%2Fb", true, true},
        {"/b/k?p%61rtNumber=1", "partNumber=1", false, true},
        {"/b/k?response-expires=e&response-content-type=t&response-cache-control=c&response-content-language=l"
         "&response-content-encoding=n&response-content-disposition=d&versionId=v&partNumber=1",
         "partNumber=1&response-cache-control=c&response-content-disposition=d&response-content-encoding=n"
         "&response-content-language=l&response-content-type=t&response-expires=e&versionId=v",
         false, true},
        {"/b/k?X-Amz-Signature=s&versionId=v&X-Amz-Date=d&X-Amz-Credential=c", "versionId=v", true, true},
        {"/b/k?response-content-type=a+b%20c", "response-content-type=a+b%20c", true, true},
        /* which one counts? */
        {"/b/k?versionId=a&versionId=b", "versionId=a", true, false},
        {"/b/k?partNumber=1&version%49d=a&versionId=a", "partNumber=1&versionId=a", false, false},
        {"/b/"
         "k?versionId=a&versionId=b&versionId=c&versionId=d&versionId=e&versionId=f&versionId=g&versionId=h&versionId="
         "i",
         "versionId=a", true, false},
        {"/b/k?VersionId=a", "", true, true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct pool *pool = pool_create(1 << 16);
        struct s3_request r;
        assert_int_equal(classify_in(pool, i % 2 ? "HEAD" : "GET", "localhost", rows[i].target, NULL, 0, &r), ERR_OK);
        if (!str_eq(r.key_query, str_c(rows[i].key_query)) || r.whole_object != rows[i].whole ||
            r.cacheable != rows[i].cacheable)
            fail_msg("%s: \"" STR_FMT "\" whole %d cacheable %d", rows[i].target, STR_ARG(r.key_query), r.whole_object,
                     r.cacheable);
        pool_destroy(pool);
    }
}

static void test_sse_c_is_not_cacheable(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1 << 16);
    struct s3_request r;
    struct hdr plain[] = {{STR_LIT("x-amz-checksum-mode"), STR_LIT("ENABLED"), HDR_AMZ_CHECKSUM_MODE},
                          {STR_LIT("x-amz-server-side-encryption"), STR_LIT("aws:kms"), HDR_OTHER},
                          {STR_LIT("range"), STR_LIT("bytes=0-1"), HDR_RANGE}};
    struct hdr sse_c[] = {{STR_LIT("host"), STR_LIT("h"), HDR_HOST},
                          {STR_LIT("X-Amz-Server-Side-Encryption-Customer-Key"), STR_LIT("k"), HDR_OTHER}};
    assert_int_equal(classify_in(pool, "GET", "localhost", "/b/k", plain, 3, &r), ERR_OK);
    assert_true(r.cacheable && r.key_query.n == 0 && r.whole_object);
    assert_int_equal(classify_in(pool, "GET", "localhost", "/b/k", sse_c, 2, &r), ERR_OK);
    assert_int_equal(r.op, OP_GET_OBJECT);
    assert_false(r.cacheable);
    pool_destroy(pool);
}

static void test_copy_writes_its_destination(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1 << 16);
    struct s3_request r;
    struct hdr copy[] = {{STR_LIT("x-amz-copy-source"), STR_LIT("/other/source"), HDR_AMZ_COPY_SOURCE}};
    assert_int_equal(classify_in(pool, "PUT", "localhost", "/b/target", copy, 1, &r), ERR_OK);
    assert_int_equal(r.op, OP_WRITE_OBJECT);
    assert_true(str_eq(r.address.bucket, STR_LIT("b")) && str_eq(r.address.key, STR_LIT("target")));
    assert_int_equal(classify_in(pool, "PUT", "localhost", "/b/target?partNumber=1&uploadId=u", copy, 1, &r), ERR_OK);
    assert_int_equal(r.op, OP_WRITE_PART);
    pool_destroy(pool);
}

static void test_virtual_hosted_requests(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1 << 16);
    struct s3_request r;
    assert_int_equal(classify_in(pool, "GET", "bucket.s3.local", "/k?versionId=1", NULL, 0, &r), ERR_OK);
    assert_int_equal(r.op, OP_GET_OBJECT);
    assert_true(str_eq(r.address.bucket, STR_LIT("bucket")) && str_eq(r.address.key, STR_LIT("k")));
    assert_int_equal(classify_in(pool, "GET", "bucket.s3.local", "/?list-type=2", NULL, 0, &r), ERR_OK);
    assert_int_equal(r.op, OP_LIST);
    assert_int_equal(classify_in(pool, "POST", "bucket.s3.local", "/?delete", NULL, 0, &r), ERR_OK);
    assert_int_equal(r.op, OP_DELETE_MANY);
    assert_int_equal(classify_in(pool, "GET", "s3.local", "/", NULL, 0, &r), ERR_OK);
    assert_int_equal(r.op, OP_LIST);
    pool_destroy(pool);
}

/* Too little memory is an error or a request that is not cached: never a versioned read taken for a plain one. */
static void test_out_of_memory(void **state)
{
    (void)state;
    for (size_t max = 0; max < 1024; max += 16) {
        struct pool *pool = pool_create(max);
        struct s3_request r;
        enum err e = classify_in(pool, "GET", "localhost", "/b/k?version%49d=v", NULL, 0, &r);
        bool safe = e == ERR_NOMEM || r.op == OP_READ_OTHER || str_eq(r.key_query, STR_LIT("versionId=v"));
        assert_true(safe);
        pool_destroy(pool);
    }
}

static void test_names(void **state)
{
    (void)state;
    static const enum s3_op all[] = {OP_OTHER,        OP_GET_OBJECT, OP_HEAD_OBJECT, OP_LIST,        OP_READ_OTHER,
                                     OP_WRITE_OBJECT, OP_WRITE_PART, OP_DELETE_MANY, OP_WRITE_BUCKET};
    assert_string_equal(op_name(OP_GET_OBJECT), "GET");
    assert_string_equal(op_name(OP_LIST), "LIST");
    for (size_t i = 0; i < ARRAY_LEN(all); i++) assert_true(strlen(op_name(all[i])) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_key_query),
        cmocka_unit_test(test_sse_c_is_not_cacheable),
        cmocka_unit_test(test_copy_writes_its_destination),
        cmocka_unit_test(test_virtual_hosted_requests),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
