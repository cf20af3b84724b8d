/* test_repr.c - what is kept of a response, what selects it, what a 304 changes; and how the cache names objects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "proxy/proxy.h"

#define MOST 16

/* A head of name, value pairs, NULL at the end. */
struct test_head {
    struct head head;
    struct hdr hdrs[MOST];
};

static const struct head *make(struct test_head *t, unsigned status, const char *const *fields)
{
    memset(t, 0, sizeof *t);
    t->head = (struct head){.status = status, .minor = 1, .hdrs = t->hdrs, .content_length = -1};
    for (; *fields; fields += 2) {
        assert_true(t->head.nhdrs < MOST);
        t->hdrs[t->head.nhdrs++] = (struct hdr){str_c(fields[0]), str_c(fields[1]), hdr_id_of(str_c(fields[0]))};
    }
    return &t->head;
}
#define FIELDS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define NO_FIELDS ((const char *const[]){NULL})

static struct meta *stored(const char *const *asked, unsigned status, uint64_t size, const char *const *fields)
{
    struct test_head req, resp;
    struct source src = {.req = *make(&req, 0, asked)};
    struct cache_verdict v = {.storable = true, .fresh_ms = 1000, .stale_if_error_s = -1};
    struct meta *m = NULL;

    assert_int_equal(repr_create(&src, make(&resp, status, fields), size, &v, 5, &m), ERR_OK);
    return m;
}

static struct meta *refreshed(struct meta *old, const char *const *fields)
{
    struct test_head req, resp;
    struct source src = {.req = *make(&req, 0, NO_FIELDS)};
    struct meta *m = NULL;

    assert_int_equal(repr_refresh(old, &src, fields ? make(&resp, 304, fields) : NULL, &m), ERR_OK);
    meta_unref(old);
    return m;
}

static unsigned count(const struct meta *m, const char *name)
{
    unsigned n = 0;
    for (unsigned i = 0; i < repr_of(m)->nhdrs; i++) n += str_eq_ci(repr_of(m)->hdrs[i].name, str_c(name));
    return n;
}

static struct str value(const struct meta *m, const char *name)
{
    for (unsigned i = 0; i < repr_of(m)->nhdrs; i++)
        if (str_eq_ci(repr_of(m)->hdrs[i].name, str_c(name))) return repr_of(m)->hdrs[i].value;
    return (struct str){NULL, 0};
}

static bool matches(const struct meta *m, const char *const *asked)
{
    struct test_head req;
    return repr_matches((void *)(uintptr_t)make(&req, 0, asked), m);
}

/* ---- what is kept */

static void test_fields_of_the_message_and_the_hop_are_not_kept(void **state)
{
    struct meta *m =
        stored(NO_FIELDS, 200, 10,
               FIELDS("Content-Length", "10", "Date", "x", "Server", "s", "x-amz-request-id", "1", "x-amz-id-2", "2",
                      "Connection", "x-hop", "X-Hop", "1", "Age", "5", "X-Cache", "HIT", "X-Stays", "", "ETag", "\"e\"",
                      "Content-Type", "t", "Keep-Alive", "1", "x-amz-meta-a", "b"));
    (void)state;
    assert_int_equal(repr_of(m)->nhdrs, 4);
    assert_int_equal(count(m, "x-stays"), 1);
    assert_non_null(value(m, "x-stays").p);
    assert_true(str_eq(repr_of(m)->etag, STR_LIT("\"e\"")));
    assert_true(repr_of(m)->etag_strong);
    assert_true(str_eq(repr_of(m)->content_type, STR_LIT("t")));
    meta_unref(m);
}

static void test_checksums_of_a_part_are_not_the_objects(void **state)
{
    static const char *const sum = "x-amz-checksum-crc32";
    struct meta *whole = stored(NO_FIELDS, 200, 10, FIELDS(sum, "a"));
    struct meta *all = stored(NO_FIELDS, 206, 10, FIELDS(sum, "a", "Content-Range", "bytes 0-9/10"));
    struct meta *part = stored(NO_FIELDS, 206, 10, FIELDS(sum, "a", "Content-Range", "bytes 0-8/10"));
    (void)state;
    assert_int_equal(count(whole, sum), 1);
    assert_int_equal(count(all, sum), 1);
    assert_int_equal(count(part, sum), 0);
    meta_unref(whole);
    meta_unref(all);
    meta_unref(part);
}

static void test_a_date_close_to_the_answer_is_no_validator(void **state)
{
    static const char *const date = "Wed, 12 Oct 2022 17:50:00 GMT";
    struct meta *far =
        stored(NO_FIELDS, 200, 1, FIELDS("Last-Modified", date, "Date", "Wed, 12 Oct 2022 17:51:00 GMT"));
    struct meta *near =
        stored(NO_FIELDS, 200, 1, FIELDS("Last-Modified", date, "Date", "Wed, 12 Oct 2022 17:50:59 GMT"));
    struct meta *tagged = stored(NO_FIELDS, 200, 1, FIELDS("Last-Modified", date, "Date", date, "ETag", "W/\"e\""));
    (void)state;
    assert_int_equal(repr_of(far)->last_modified.n, 29);
    assert_int_equal(repr_of(near)->last_modified.n, 0);
    assert_int_equal(repr_of(near)->last_modified_s, repr_of(far)->last_modified_s);
    assert_int_equal(repr_of(tagged)->last_modified.n, 29);
    assert_false(repr_of(tagged)->etag_strong);
    meta_unref(far);
    meta_unref(near);
    meta_unref(tagged);
}

static void test_freshness_ends_at_the_end_of_time(void **state)
{
    struct meta *m = stored(NO_FIELDS, 200, 1, NO_FIELDS);
    struct cache_verdict v = {.fresh_ms = UINT64_MAX - 3, .stale_if_error_s = 2};
    (void)state;
    assert_int_equal(repr_of(m)->fresh_until_ms, 1005);
    assert_int_equal(repr_of(m)->stale_if_error_ms, UINT64_MAX);
    repr_set_freshness(m, &v, 100);
    assert_int_equal(repr_of(m)->fresh_until_ms, UINT64_MAX);
    assert_int_equal(repr_of(m)->stale_if_error_ms, 2000);
    meta_unref(m);
}

/* ---- Vary */

static void test_vary_compares_absent_empty_and_several_lines(void **state)
{
    struct meta *none = stored(NO_FIELDS, 200, 1, FIELDS("Vary", "X-A"));
    struct meta *empty = stored(FIELDS("x-a", ""), 200, 1, FIELDS("Vary", "X-A"));
    struct meta *lines = stored(FIELDS("X-A", "1", "Other", "0", "x-a", "2"), 200, 1, FIELDS("Vary", "X-A"));
    (void)state;
    assert_true(matches(none, NO_FIELDS));
    assert_true(matches(none, FIELDS("X-B", "1")));
    assert_false(matches(none, FIELDS("X-A", "")));
    assert_true(matches(empty, FIELDS("X-A", "")));
    assert_false(matches(empty, NO_FIELDS));
    assert_false(matches(empty, FIELDS("X-A", "1")));
    assert_false(matches(empty, FIELDS("X-A", "", "X-A", "")));
    assert_true(matches(lines, FIELDS("X-A", "1", "X-A", "2")));
    assert_true(matches(lines, FIELDS("X-A", "1, 2")));
    assert_false(matches(lines, FIELDS("X-A", "2", "X-A", "1")));
    assert_false(matches(lines, FIELDS("X-A", "1")));
    assert_false(matches(lines, FIELDS("X-A", "1", "X-A", "2", "X-A", "3")));
    assert_false(matches(lines, FIELDS("X-A", "1", "X-A", "22")));
    meta_unref(none);
    meta_unref(empty);
    meta_unref(lines);
}

static void test_vary_on_several_fields_in_several_lines(void **state)
{
    struct meta *m = stored(FIELDS("Accept-Encoding", "gzip", "X-A", "1"), 200, 1,
                            FIELDS("Vary", "accept-encoding, X-A", "Vary", "Range"));
    (void)state;
    assert_int_equal(repr_of(m)->nvary, 3);
    assert_true(matches(m, FIELDS("X-a", "1", "ACCEPT-ENCODING", "gzip")));
    assert_false(matches(m, FIELDS("X-A", "1", "Accept-Encoding", "br")));
    assert_false(matches(m, FIELDS("X-A", "1", "Accept-Encoding", "gzip", "Range", "bytes=0-")));
    meta_unref(m);
}

/* ---- refreshing */

static void test_a_304_replaces_what_is_not_about_the_bytes(void **state)
{
    struct meta *m = stored(NO_FIELDS, 200, 7,
                            FIELDS("ETag", "\"e\"", "Content-Type", "t", "x-amz-meta-a", "old", "x-amz-meta-b", "b",
                                   "Set-Cookie", "c", "Cache-Control", "max-age=1", "Cache-Control", "public"));
    (void)state;
    m = refreshed(m, FIELDS("ETag", "\"other\"", "Content-Type", "u", "X-Amz-Meta-A", "new", "Cache-Control",
                            "max-age=2", "Content-Length", "99", "Date", "d", "x-new", "n"));
    assert_int_equal(m->size, 7);
    assert_true(str_eq(value(m, "etag"), STR_LIT("\"e\"")));
    assert_true(str_eq(value(m, "content-type"), STR_LIT("t")));
    assert_true(str_eq(value(m, "x-amz-meta-a"), STR_LIT("new")));
    assert_true(str_eq(value(m, "x-amz-meta-b"), STR_LIT("b")));
    assert_int_equal(count(m, "cache-control"), 1);
    assert_int_equal(count(m, "content-type"), 1);
    assert_int_equal(count(m, "set-cookie"), 0);
    assert_int_equal(count(m, "content-length"), 0);
    assert_int_equal(count(m, "x-new"), 1);
    assert_false(repr_of(m)->stale);
    meta_unref(m);
}

static void test_a_304_for_a_dated_object_does_not_double_its_fields(void **state)
{
    static const char *const date = "Wed, 12 Oct 2022 17:50:00 GMT";
    struct meta *m = stored(NO_FIELDS, 200, 7, FIELDS("Last-Modified", date, "Content-Type", "t"));
    (void)state;
    m = refreshed(m, FIELDS("Last-Modified", date, "Content-Type", "u", "ETag", "\"late\""));
    assert_int_equal(count(m, "content-type"), 1);
    assert_int_equal(count(m, "last-modified"), 1);
    assert_true(str_eq(value(m, "content-type"), STR_LIT("t")));
    assert_false(repr_of(m)->etag_strong); /* it came after the bytes */
    meta_unref(m);
}

static void test_without_an_answer_everything_stays_and_is_called_stale(void **state)
{
    struct meta *m = stored(FIELDS("X-A", "1"), 200, 7, FIELDS("ETag", "\"e\"", "x-amz-meta-a", "old"));
    (void)state;
    m = refreshed(m, NULL);
    assert_true(repr_of(m)->stale);
    assert_int_equal(repr_of(m)->nhdrs, 2);
    assert_int_equal(repr_of(m)->fresh_until_ms, 1005);
    assert_true(repr_of(m)->etag_strong);
    m = refreshed(m, NO_FIELDS);
    assert_false(repr_of(m)->stale);
    meta_unref(m);
}

static void test_failures_keep_their_body_and_know_for_whom_they_are(void **state)
{
    struct test_head t;
    struct meta *m = NULL;
    (void)state;
    assert_int_equal(repr_create_failure(make(&t, 404, FIELDS("Content-Length", "3", "Date", "d", "X-Cache", "MISS")),
                                         STR_LIT("no\0"), false, ERR_OK, &m),
                     ERR_OK);
    assert_int_equal(repr_of(m)->status, 404);
    assert_int_equal(repr_of(m)->nhdrs, 1);
    assert_int_equal(repr_of(m)->body.n, 3);
    assert_false(repr_of(m)->personal);
    meta_unref(m);
    repr_create_failure(make(&t, 404, FIELDS("Set-Cookie", "a=b")), STR_LIT(""), false, ERR_OK, &m);
    assert_true(repr_of(m)->personal);
    meta_unref(m);
    repr_create_failure(make(&t, 404, FIELDS("Cache-Control", "max-age=1, Private")), STR_LIT(""), false, ERR_OK, &m);
    assert_true(repr_of(m)->personal);
    meta_unref(m);
    repr_create_failure(NULL, (struct str){NULL, 0}, false, ERR_REFUSED, &m);
    assert_int_equal(repr_of(m)->status, 0);
    assert_int_equal(repr_of(m)->err, ERR_REFUSED);
    meta_unref(m);
}

/* ---- keys */

static struct pool *pool;

static void key_is(enum origin_type type, const char *bucket, const char *path, const char *base, const char *marks)
{
    struct origin_conf o = {.name = "o", .type = type};
    struct str b, m;

    assert_int_equal(key_make(pool, &o, str_c(bucket), str_c(path), &b, &m), ERR_OK);
    assert_true(b.n > 2 && b.p[0] == 'o' && b.p[1] == '\0');
    assert_int_equal(b.n - 2, strlen(base));
    assert_memory_equal(b.p + 2, base, strlen(base));
    assert_int_equal(m.n, strlen(marks));
    if (m.n) assert_memory_equal(m.p, marks, m.n);
}

static void test_keys_of_s3_are_decoded_once(void **state)
{
    (void)state;
    key_is(ORIGIN_S3, "", "/b/plain/key", "/b/plain/key", "");
    key_is(ORIGIN_S3, "", "/b/x~y=1", "/b/x~y=1", "");
    key_is(ORIGIN_S3, "", "/b/%78%7ey%3D1", "/b/x~y=1", "");
    key_is(ORIGIN_S3, "", "/b/a%2Fb/../%2e", "/b/a/b/../.", "");
    key_is(ORIGIN_S3, "", "/b/%e2%82%AC", "/b/\xe2\x82\xac", "");
    key_is(ORIGIN_S3, "", "/b/%252F", "/b/%2F", "e");
    key_is(ORIGIN_S3, "bucket", "/k", "/bucket/k", "");
    key_is(ORIGIN_FILE, "", "/b/%41", "/b/A", "");
}

static void test_what_may_mean_different_keys_shares_only_the_base(void **state)
{
    (void)state;
    key_is(ORIGIN_S3, "", "/b/a+b", "/b/a b", "r");
    key_is(ORIGIN_S3, "", "/b/a%2Bb", "/b/a b", "p");
    key_is(ORIGIN_S3, "", "/b/a%20b", "/b/a b", "s");
    key_is(ORIGIN_S3, "", "/b/+%20+", "/b/   ", "rsr");
    key_is(ORIGIN_S3, "", "/b/%zz%25", "/b/%zz%", "le");
    key_is(ORIGIN_S3, "", "/b/%25zz%", "/b/%zz%", "el");
    key_is(ORIGIN_S3, "", "/b/%2", "/b/%2", "l");
    key_is(ORIGIN_HTTP, "", "/b/x%7Ey", "/b/x~y", "/b/x%7Ey");
    key_is(ORIGIN_HTTP, "", "/b/x~y", "/b/x~y", "");
    key_is(ORIGIN_HTTP, "", "/b/a+b", "/b/a b", "");
}

static void test_our_own_mark_in_via_is_a_loop(void **state)
{
    struct test_head t;
    struct proxy us = {.via_id = "0123456789abcdef"}, other = {.via_id = "fedcba9876543210"};
    struct exchange one = {.req.minor = 1}, zero = {.req.minor = 0}, two = {.req.minor = 1, .proto = PROTO_H2};
    struct str mine = source_via(&us, &one, pool), theirs = source_via(&other, &zero, pool);
    (void)state;
    assert_true(str_eq(mine, STR_LIT("1.1 s3dlio-proxy (0123456789abcdef)")));
    assert_true(str_starts(theirs, STR_LIT("1.0 s3dlio-proxy (")));
    assert_true(str_starts(source_via(&us, &two, pool), STR_LIT("2.0 s3dlio-proxy (")));
    assert_false(source_loops(&us, make(&t, 0, NO_FIELDS)));
    assert_false(source_loops(&us, make(&t, 0, FIELDS("Via", "", "Via", "1.1 s3dlio-proxy", "Via", theirs.p))));
    assert_true(source_loops(&us, make(&t, 0, FIELDS("Via", "1.1 a", "Via", mine.p))));
    assert_true(source_loops(&us, make(&t, 0, FIELDS("Via", "1.1 s3dlio-proxy (0123456789abcdef), 1.1 b"))));
    assert_false(source_loops(&us, make(&t, 0, FIELDS("X-Via", mine.p))));
}

static int make_pool(void **state)
{
    (void)state;
    pool = pool_create(1 << 20);
    return pool ? 0 : -1;
}

static int drop_pool(void **state)
{
    (void)state;
    pool_destroy(pool);
    return 0;
}

static void test_a_stored_head_takes_little_more_than_its_fields(void **state)
{
    (void)state;
    struct meta *m = stored(NO_FIELDS, 200, 10, FIELDS("ETag", "\"d41d8cd98f00b204e9800998ecf8427e\"", "Content-Type",
                                                       "application/octet-stream", "Last-Modified",
                                                       "Thu, 01 Jan 1970 00:00:00 GMT", "x-amz-meta-a", "b"));
    assert_in_range(m->bytes, 300, 1024);
    meta_unref(m);
    char big[20000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    m = stored(NO_FIELDS, 200, 10, FIELDS("x-amz-meta-a", big));
    assert_in_range(m->bytes, 20000, 22000);
    meta_unref(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_of_the_message_and_the_hop_are_not_kept),
        cmocka_unit_test(test_checksums_of_a_part_are_not_the_objects),
        cmocka_unit_test(test_a_date_close_to_the_answer_is_no_validator),
        cmocka_unit_test(test_freshness_ends_at_the_end_of_time),
        cmocka_unit_test(test_a_stored_head_takes_little_more_than_its_fields),
        cmocka_unit_test(test_vary_compares_absent_empty_and_several_lines),
        cmocka_unit_test(test_vary_on_several_fields_in_several_lines),
        cmocka_unit_test(test_a_304_replaces_what_is_not_about_the_bytes),
        cmocka_unit_test(test_a_304_for_a_dated_object_does_not_double_its_fields),
        cmocka_unit_test(test_without_an_answer_everything_stays_and_is_called_stale),
        cmocka_unit_test(test_failures_keep_their_body_and_know_for_whom_they_are),
        cmocka_unit_test(test_keys_of_s3_are_decoded_once),
        cmocka_unit_test(test_what_may_mean_different_keys_shares_only_the_base),
        cmocka_unit_test(test_our_own_mark_in_via_is_a_loop),
    };
    return cmocka_run_group_tests(tests, make_pool, drop_pool);
}
