/* test_sigv4.c - exact signatures, from AWS's published S3 examples (Amazon S3 API Reference, "Signature Calculations
 * for the Authorization Header" and "... Using Query Parameters") and from botocore for what those leave out, each both
 * signed and verified; and what the verifier has to refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/pool.h"
#include "http/h1_parse.h"
#include "http/uri.h"
#include "s3/sigv4.h"

#define KEY_ID "AKIAIOSFODNN7EXAMPLE"
#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define NOW INT64_C(1369353600) /* 2013-05-24T00:00:00Z */
#define HOST "examplebucket.s3.amazonaws.com"
#define SCOPE "/20130524/us-east-1/s3/aws4_request"
#define MAX_HDRS 100
#define POOL_BYTES ((size_t)1 << 20)

struct request {
    struct pool *pool;
    char *text;
    struct hdr hdrs[MAX_HDRS];
    struct head head;
    struct target target;
    struct str host;
};

/* A request as it comes off the wire. */
static void request_open(struct request *r, const char *text)
{
    const struct h1_limits limits = {1 << 16, 1 << 15, MAX_HDRS};
    size_t scanned = 0, used = 0;
    *r = (struct request){.pool = pool_create(POOL_BYTES), .text = strdup(text)};
    assert_non_null(r->pool);
    assert_int_equal(h1_parse_request(r->text, strlen(text), &scanned, &limits, r->hdrs, &r->head, &used), ERR_OK);
    assert_int_equal(used, strlen(text));
    assert_int_equal(target_parse(r->head.target, &r->target), ERR_OK);
    r->host = head_value(&r->head, HDR_HOST);
}

static void request_close(struct request *r)
{
    pool_destroy(r->pool);
    free(r->text);
}

static bool lookup(void *arg, struct str access_key, struct str *secret)
{
    (void)arg;
    if (!str_eq(access_key, STR_LIT(KEY_ID)) && !str_eq(access_key, STR_LIT("AK/with/slashes"))) return false;
    *secret = STR_LIT(SECRET);
    return true;
}

static enum err verify_at(const char *text, int64_t now_s)
{
    struct request r;
    request_open(&r, text);
    enum err e = sigv4_verify(&r.head, r.target.path, r.target.query, r.host, now_s, lookup, NULL, r.pool);
    request_close(&r);
    return e;
}

static enum err verify(const char *text) { return verify_at(text, NOW); }

static const struct credentials example_credentials = {.access_key = KEY_ID, .secret_key = SECRET};

/* Signs method, target and fields of `text` (x-amz-date and friends left out by the signer) and gives the header. */
static void sign_text(struct sigv4_key *key, const struct credentials *c, const char *region, const char *text,
                      char *authorization, size_t n)
{
    struct request r;
    struct hdr out[4];
    unsigned nout = 0;
    request_open(&r, text);
    struct sigv4_request s = {.method = r.head.method_text,
                              .path = r.target.path,
                              .query = r.target.query,
                              .host = r.host,
                              .hdrs = r.head.hdrs,
                              .nhdrs = r.head.nhdrs,
                              .payload_hash = head_value(&r.head, HDR_AMZ_CONTENT_SHA256),
                              .region = str_c(region),
                              .now_s = NOW};
    assert_int_equal(sigv4_sign(key, c, &s, r.pool, out, &nout), ERR_OK);
    assert_int_equal(nout, c->session_token[0] ? 4 : 3);
    assert_true(str_eq(out[0].name, STR_LIT("x-amz-date")));
    assert_true(str_eq(out[0].value, STR_LIT("20130524T000000Z")));
    assert_true(str_eq(out[1].name, STR_LIT("x-amz-content-sha256")));
    assert_int_equal(out[1].id, HDR_AMZ_CONTENT_SHA256);
    assert_int_equal(out[nout - 1].id, HDR_AUTHORIZATION);
    snprintf(authorization, n, STR_FMT, STR_ARG(out[nout - 1].value));
    request_close(&r);
}

struct example {
    const char *name;
    const char *start; /* request line to the end of the other fields, CRLF after each */
    const char *payload_hash;
    const char *region, *signed_names, *signature, *token;
};

#define GET_HEAD(target) "GET " target " HTTP/1.1\r\nHost: " HOST "\r\n"

static const struct example examples[] = {
    /* published */
    {"GET object with a range", GET_HEAD("/test.txt") "Range: bytes=0-9\r\n", SIGV4_EMPTY_SHA256, "us-east-1",
     "host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
     ""},
    {"PUT object",
     "PUT /test$file.text HTTP/1.1\r\nHost: " HOST "\r\nDate: Fri, 24 May 2013 00:00:00 GMT\r\n"
     "x-amz-storage-class: REDUCED_REDUNDANCY\r\nContent-Length: 25\r\n",
     "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "us-east-1",
     "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
     "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd", ""},
    {"GET bucket lifecycle", GET_HEAD("/?lifecycle"), SIGV4_EMPTY_SHA256, "us-east-1",
     "host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", ""},
    {"GET bucket list", GET_HEAD("/?max-keys=2&prefix=J"), SIGV4_EMPTY_SHA256, "us-east-1",
     "host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7", ""},
    /* botocore */
    {"repeated field, order kept", GET_HEAD("/k") "x-amz-meta-a: v4\r\nX-Amz-Meta-A: v1\r\nx-amz-meta-a: v3\r\n",
     SIGV4_EMPTY_SHA256, "us-east-1", "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a",
     "33156514feca27b04aa2240d5519b70efd46ca761c88e2a57d20b3405c39c6c8", ""},
    {"values trimmed and folded", GET_HEAD("/k") "X-Amz-Meta-B: \"a   b   c\"\r\nX-AMZ-META-A:   a   b   c \r\n",
     SIGV4_EMPTY_SHA256, "us-east-1", "host;x-amz-content-sha256;x-amz-date;x-amz-meta-a;x-amz-meta-b",
     "0f0f6a466c002c961c9cf28e45acc921f1bab900c2d6080037ef904961d5968f", ""},
    {"empty value", GET_HEAD("/k") "x-amz-meta-e:\r\n", SIGV4_EMPTY_SHA256, "us-east-1",
     "host;x-amz-content-sha256;x-amz-date;x-amz-meta-e",
     "5e857c05b36af082cdc16e5d46cc9bde78c5c98a153a268a13fd13849cd1810a", ""},
    {"query sorted by name, then value",
     GET_HEAD("/?%E1%88%B4=Value1&Param-3=Value3&Param=Value2&Param=a%20b&a-b=1&a=2&acl="), SIGV4_EMPTY_SHA256,
     "us-east-1", "host;x-amz-content-sha256;x-amz-date",
     "10a9d6fd0fd437bdec90bb156eab2b7940bfd8535e2963cb487a3a869dad6c06", ""},
    {"the same query, written otherwise",
     GET_HEAD("/?acl&&a=2&a%2Db=%31&Param=a+b&Param=Value2&%e1%88%b4=Value1&Param-3=Value3&"), SIGV4_EMPTY_SHA256,
     "us-east-1", "host;x-amz-content-sha256;x-amz-date",
     "10a9d6fd0fd437bdec90bb156eab2b7940bfd8535e2963cb487a3a869dad6c06", ""},
    {"path encoded once, dots and slashes kept",
     GET_HEAD("/a%20b%2Bc%21%2A%27%28%29~-._%24%25%26%40%3D%3A%2C%3B/%E1%88%B4//./../x/"), SIGV4_EMPTY_SHA256,
     "us-east-1", "host;x-amz-content-sha256;x-amz-date",
     "9460e3f7e6ce0fdf717063ab3eb6574c9fad9798013f008e91329317c831b9fb", ""},
    {"the same path, written otherwise", GET_HEAD("/a%20b+c!*'()%7e-._$%25&@=:,;/%e1%88%b4//./%2E%2E/x/"),
     SIGV4_EMPTY_SHA256, "us-east-1", "host;x-amz-content-sha256;x-amz-date",
     "9460e3f7e6ce0fdf717063ab3eb6574c9fad9798013f008e91329317c831b9fb", ""},
    {"a percent sign that escapes nothing stands for itself", GET_HEAD("/100%/%zz/a%2"), SIGV4_EMPTY_SHA256,
     "us-east-1", "host;x-amz-content-sha256;x-amz-date",
     "7755bb98abecab282dcc9be253ee0f9add2cf07d28ed34640b1ab4a519a0d055", ""},
    {"session token", GET_HEAD("/k"), SIGV4_EMPTY_SHA256, "us-east-1",
     "host;x-amz-content-sha256;x-amz-date;x-amz-security-token",
     "d7f026fec0a33bc4d03165cbc2257399a96c442b92e40ad04601e62cbf7889c7", "TOKEN/+=="},
    {"another region", "DELETE /k?versionId=abc HTTP/1.1\r\nHost: " HOST "\r\n", SIGV4_EMPTY_SHA256, "eu-central-1",
     "host;x-amz-content-sha256;x-amz-date", "475fb589c6f2334c20babce0437e6c726410e3934036c8caae62e77e43c09e36", ""},
};

static void example_authorization(const struct example *x, char *to, size_t n)
{
    snprintf(to, n,
             "AWS4-HMAC-SHA256 Credential=" KEY_ID "/20130524/%s/s3/aws4_request, SignedHeaders=%s, Signature=%s",
             x->region, x->signed_names, x->signature);
}

/* The whole request a client would send. */
static void example_text(const struct example *x, char *to, size_t n)
{
    char authorization[1024];
    example_authorization(x, authorization, sizeof authorization);
    snprintf(to, n, "%s%s%s%sx-amz-content-sha256: %s\r\nX-Amz-Date: 20130524T000000Z\r\nAuthorization: %s\r\n\r\n",
             x->start, x->token[0] ? "x-amz-security-token: " : "", x->token, x->token[0] ? "\r\n" : "",
             x->payload_hash, authorization);
}

static void test_examples_signed(void **state)
{
    (void)state;
    struct sigv4_key key = {0};
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        const struct example *x = &examples[i];
        struct credentials c = example_credentials;
        char want[1024], got[1024], text[4096];
        snprintf(c.session_token, sizeof c.session_token, "%s", x->token);
        snprintf(text, sizeof text, "%sx-amz-content-sha256: %s\r\n\r\n", x->start, x->payload_hash);
        example_authorization(x, want, sizeof want);
        sign_text(&key, &c, x->region, text, got, sizeof got);
        if (strcmp(got, want) != 0) fail_msg("%s:\n got  %s\n want %s", x->name, got, want);
    }
}

static void test_examples_verified(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(examples); i++) {
        char text[4096];
        example_text(&examples[i], text, sizeof text);
        enum err e = verify(text);
        if (e) fail_msg("%s: %s", examples[i].name, err_name(e));
    }
}

static void test_fields_a_hop_may_change_are_not_signed(void **state)
{
    (void)state;
    struct sigv4_key key = {0};
    char got[1024];
    sign_text(
        &key, &example_credentials, "us-east-1",
        GET_HEAD("/test.txt") "Range: bytes=0-9\r\nUser-Agent: x\r\nExpect: 100-continue\r\nConnection: close\r\n"
                              "Content-Length: 0\r\nX-Amzn-Trace-Id: Root=1\r\nTE: trailers\r\nVia: 1.1 "
                              "x\r\nX-Forwarded-For: 10.0.0.1\r\n"
                              "Forwarded: for=10.0.0.1\r\nAccept-Encoding: gzip\r\nAuthorization: Basic eDp5\r\n\r\n",
        got, sizeof got);
    assert_non_null(strstr(got, "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "));
    assert_non_null(strstr(got, "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"));
}

static void test_anonymous_is_not_signed(void **state)
{
    (void)state;
    struct credentials c = {.anonymous = true};
    struct sigv4_key key = {0};
    struct hdr out[4];
    unsigned n = 9;
    struct pool *pool = pool_create(POOL_BYTES);
    struct sigv4_request r = {.method = STR_LIT("GET"), .path = STR_LIT("/"), .host = STR_LIT("h")};
    assert_int_equal(sigv4_sign(&key, &c, &r, pool, out, &n), ERR_OK);
    assert_int_equal(n, 0);
    pool_destroy(pool);
}

/* The cached key must follow each thing it was made from, and come back right. */
static void test_key_follows_secret_day_and_region(void **state)
{
    (void)state;
    struct sigv4_key key = {0};
    struct credentials other = example_credentials;
    char first[1024], changed[1024], again[1024];
    snprintf(other.secret_key, sizeof other.secret_key, "rotated under the same id");
    sign_text(&key, &example_credentials, "us-east-1", GET_HEAD("/a") "\r\n", first, sizeof first);
    sign_text(&key, &other, "us-east-1", GET_HEAD("/a") "\r\n", changed, sizeof changed);
    assert_string_not_equal(first, changed);
    sign_text(&key, &example_credentials, "eu-west-1", GET_HEAD("/a") "\r\n", changed, sizeof changed);
    assert_string_not_equal(first, changed);
    sign_text(&key, &example_credentials, "us-east-1", GET_HEAD("/a") "\r\n", again, sizeof again);
    assert_string_equal(first, again);
    assert_string_equal(key.date, "20130524");
}

static void test_sign_without_room_or_region(void **state)
{
    (void)state;
    struct sigv4_key key = {0};
    struct hdr out[4], hdrs[] = {{STR_LIT("X-Amz-Meta-Upper"), STR_LIT("value"), HDR_OTHER}};
    unsigned n;
    char region[80];
    struct sigv4_request r = {.method = STR_LIT("GET"),
                              .path = STR_LIT("/b/k"),
                              .query = STR_LIT("b=1&a=2"),
                              .host = STR_LIT("h"),
                              .hdrs = hdrs,
                              .nhdrs = 1,
                              .region = STR_LIT("us-east-1"),
                              .now_s = NOW};
    for (size_t max = 0; max < 2048; max += 16) {
        struct pool *pool = pool_create(max);
        enum err e = sigv4_sign(&key, &example_credentials, &r, pool, out, &n);
        assert_true(e == ERR_NOMEM || (e == ERR_OK && max > 512));
        assert_int_equal(n, e ? 0 : 3);
        pool_destroy(pool);
    }
    struct pool *pool = pool_create(POOL_BYTES);
    memset(region, 'r', sizeof region);
    r.region = str_make(region, sizeof region);
    assert_int_equal(sigv4_sign(&key, &example_credentials, &r, pool, out, &n), ERR_CREDENTIALS);
    r.region = str_make(NULL, 0);
    assert_int_equal(sigv4_sign(&key, &example_credentials, &r, pool, out, &n), ERR_CREDENTIALS);
    pool_destroy(pool);
}

/* ---- verifier */

#define AUTH(names, sig) \
    "Authorization: AWS4-HMAC-SHA256 Credential=" KEY_ID SCOPE ",SignedHeaders=" names ",Signature=" sig "\r\n"
#define EX1_SIG "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
#define EX1_NAMES "host;range;x-amz-content-sha256;x-amz-date"
#define SHA "x-amz-content-sha256: " SIGV4_EMPTY_SHA256 "\r\n"
#define DATE "x-amz-date: 20130524T000000Z\r\n"
#define EX1 GET_HEAD("/test.txt") "Range: bytes=0-9\r\n" SHA DATE AUTH(EX1_NAMES, EX1_SIG)

/* The seed request of the published chunked upload example. */
static void test_published_chunked_upload_is_verified(void **state)
{
    (void)state;
    const char *text = "PUT /examplebucket/chunkObject.txt HTTP/1.1\r\nHost: s3.amazonaws.com\r\n" DATE
                       "x-amz-storage-class: REDUCED_REDUNDANCY\r\n"
                       "Authorization: AWS4-HMAC-SHA256 Credential=" KEY_ID SCOPE
                       ",SignedHeaders=content-encoding;content-length;host;"
                       "x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class,"
                       "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9\r\n"
                       "x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD\r\nContent-Encoding: aws-chunked\r\n"
                       "x-amz-decoded-content-length: 66560\r\nContent-Length: 66824\r\n\r\n";
    assert_int_equal(verify(text), ERR_OK);
}

static char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    assert_non_null(at);
    size_t n = strlen(text) + strlen(to) + 1;
    char *out = malloc(n);
    assert_non_null(out);
    snprintf(out, n, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

struct tamper {
    const char *from, *to;
    enum err want;
};

static void check_tampers(const char *text, const struct tamper *t, size_t n)
{
    assert_int_equal(verify(text), ERR_OK);
    for (size_t i = 0; i < n; i++) {
        char *bad = replaced(text, t[i].from, t[i].to);
        enum err e = verify(bad);
        if (e != t[i].want) fail_msg("%s -> %s: %s, not %s", t[i].from, t[i].to, err_name(e), err_name(t[i].want));
        free(bad);
    }
}

static void test_tampering_with_a_signed_request(void **state)
{
    (void)state;
    static const struct tamper tampers[] = {
        {"GET ", "PUT ", ERR_SIGNATURE},
        {"/test.txt", "/test.txu", ERR_SIGNATURE},
        {"/test.txt", "/test.txt/", ERR_SIGNATURE},
        {"/test.txt", "//test.txt", ERR_SIGNATURE},
        {"/test.txt", "/./test.txt", ERR_SIGNATURE},
        {"/test.txt", "/test.txt?acl", ERR_SIGNATURE},
        {"/test.txt", "/test.txt?x=1", ERR_SIGNATURE},
        {"/test.txt", "/test.tx%74", ERR_OK}, /* the same name */
        {"Host: examplebucket", "Host: examplebucker", ERR_SIGNATURE},
        {"bytes=0-9", "bytes=0-8", ERR_SIGNATURE},
        {"Range: bytes=0-9\r\n", "", ERR_SIGNATURE},
        {"Range: bytes=0-9\r\n", "Range: bytes=0-9\r\nRange: bytes=0-9\r\n", ERR_SIGNATURE},
        {"e3b0c4", "e3b0c5", ERR_SIGNATURE},
        {"e3b0c4", "E3B0C4", ERR_BAD_REQUEST},
        {"T000000Z", "T000001Z", ERR_SIGNATURE},
        {"us-east-1", "us-east-2", ERR_SIGNATURE},
        {"/s3/", "/s4/", ERR_BAD_REQUEST},
        {"aws4_request", "aws5_request", ERR_BAD_REQUEST},
        {"20130524/", "20130525/", ERR_BAD_REQUEST}, /* not the day of x-amz-date */
        {"Signature=f", "Signature=e", ERR_SIGNATURE},
        {"Signature=f0", "Signature=f", ERR_SIGNATURE},
        {"Signature=f0", "Signature=f0f0", ERR_SIGNATURE},
        {"Signature=f0e8bdb8", "Signature=F0E8BDB8", ERR_SIGNATURE},
        {"SignedHeaders=host;", "SignedHeaders=", ERR_ACCESS_DENIED}, /* host has to be signed */
        {"SignedHeaders=host;range;", "SignedHeaders=host;", ERR_SIGNATURE},
        {"SignedHeaders=host;", "SignedHeaders=host;host;", ERR_SIGNATURE},
        {"SignedHeaders=host;", "SignedHeaders=absent;host;", ERR_SIGNATURE},
        {";x-amz-date,", ",", ERR_ACCESS_DENIED},
        {"x-amz-date: 2", "x-amz-acl: public-read\r\nx-amz-date: 2", ERR_ACCESS_DENIED}, /* slipped in */
        {"x-amz-date: 2", "X-Extra: 1\r\nx-amz-date: 2", ERR_OK},
        {KEY_ID "/2", "AKIAOTHER/2", ERR_ACCESS_DENIED},
        {KEY_ID "/2", "AK/with/slashes/2", ERR_OK}, /* the same secret; the id itself is not hashed */
        {KEY_ID "/2", "/2", ERR_BAD_REQUEST},
        {"/us-east-1/", "//", ERR_BAD_REQUEST},
        {"us-east-1/s3", "us-east-1", ERR_BAD_REQUEST},
    };
    check_tampers(EX1 "\r\n", tampers, ARRAY_LEN(tampers));
}

static void test_malformed_claims(void **state)
{
    (void)state;
    static const struct tamper tampers[] = {
        {"AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256", ERR_BAD_REQUEST},
        {"AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 ", ERR_BAD_REQUEST},
        {"AWS4-HMAC-SHA256 Credential=", "AWS " KEY_ID ":", ERR_BAD_REQUEST},
        {"AWS4-HMAC-SHA256 ", "Basic ", ERR_BAD_REQUEST},
        {"Credential=", "credential=", ERR_BAD_REQUEST},
        {"Credential=", "Credential", ERR_BAD_REQUEST},
        {",Signature=", ",Signature=1,Signature=", ERR_BAD_REQUEST},
        {",Signature=" EX1_SIG, "", ERR_BAD_REQUEST},
        {",Signature=" EX1_SIG, ",Signature=", ERR_BAD_REQUEST},
        {",SignedHeaders=" EX1_NAMES, "", ERR_BAD_REQUEST},
        {",SignedHeaders=" EX1_NAMES, ",SignedHeaders=", ERR_BAD_REQUEST},
        {",SignedHeaders=", ", SignedHeaders=", ERR_OK},
        {"aws4_request,", "aws4_request ,", ERR_OK},
        {DATE, "", ERR_BAD_REQUEST},
        {DATE, "x-amz-date: 20130524\r\n", ERR_BAD_REQUEST},
        {DATE, DATE DATE, ERR_BAD_REQUEST},
        {SHA, "", ERR_BAD_REQUEST},
        {SHA, SHA SHA, ERR_BAD_REQUEST},
        {SHA, "x-amz-content-sha256: nonsense\r\n", ERR_BAD_REQUEST},
        {"Authorization:", "Authorization: x\r\nAuthorization:", ERR_BAD_REQUEST},
        {"Authorization:", "X-Authorization:", ERR_ACCESS_DENIED},     /* not signed at all */
        {"/test.txt", "/test.txt?X-Amz-Signature=1", ERR_BAD_REQUEST}, /* signed twice over */
    };
    check_tampers(EX1 "\r\n", tampers, ARRAY_LEN(tampers));
}

static void test_clock_skew(void **state)
{
    (void)state;
    assert_int_equal(verify_at(EX1 "\r\n", NOW + 900), ERR_OK);
    assert_int_equal(verify_at(EX1 "\r\n", NOW + 901), ERR_ACCESS_DENIED);
    assert_int_equal(verify_at(EX1 "\r\n", NOW - 900), ERR_OK);
    assert_int_equal(verify_at(EX1 "\r\n", NOW - 901), ERR_ACCESS_DENIED);
}

static void test_date_field_serves_where_there_is_no_amz_date(void **state)
{
    (void)state;
    static const struct tamper tampers[] = {
        {"May 2013 00:00:00", "May 2013 00:00:01", ERR_SIGNATURE},
        {"Fri, 24 May 2013 00:00:00 GMT", "yesterday", ERR_BAD_REQUEST},
        {"24 May", "23 May", ERR_BAD_REQUEST}, /* not the scope's day */
    };
    check_tampers(GET_HEAD("/k") SHA "Date: Fri, 24 May 2013 00:00:00 GMT\r\n" AUTH(
                      "date;host;x-amz-content-sha256",
                      "837ed25892a3edc6bdc038bab5135bbee0c3dd2e77bbebaf907a64253891b1ff") "\r\n",
                  tampers, ARRAY_LEN(tampers));
}

#define PRESIGNED_QUERY(expires)                                                                               \
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" KEY_ID "%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&" \
    "X-Amz-Date=20130524T000000Z&X-Amz-Expires=" expires "&X-Amz-SignedHeaders=host&X-Amz-Signature="          \
    "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
#define PRESIGNED GET_HEAD("/test.txt?" PRESIGNED_QUERY("86400")) "\r\n"

static void test_published_presigned_url(void **state)
{
    (void)state;
    assert_int_equal(verify(PRESIGNED), ERR_OK);
    assert_int_equal(verify_at(PRESIGNED, NOW + 86400), ERR_OK);
    assert_int_equal(verify_at(PRESIGNED, NOW + 86401), ERR_ACCESS_DENIED);
    assert_int_equal(verify_at(PRESIGNED, NOW - 900), ERR_OK);
    assert_int_equal(verify_at(PRESIGNED, NOW - 901), ERR_ACCESS_DENIED);
    /* extra unsigned fields are allowed: a Range may be fanned out under the client's signature */
    assert_int_equal(verify(GET_HEAD("/test.txt?" PRESIGNED_QUERY("86400")) "Range: bytes=0-9\r\n\r\n"), ERR_OK);
}

static void test_tampering_with_a_presigned_url(void **state)
{
    (void)state;
    static const struct tamper tampers[] = {
        {"GET ", "HEAD ", ERR_SIGNATURE},
        {"/test.txt", "/test.txu", ERR_SIGNATURE},
        {"Host: example", "Host: axample", ERR_SIGNATURE},
        {"Expires=86400", "Expires=86401", ERR_SIGNATURE},
        {"Expires=86400", "Expires=604800", ERR_SIGNATURE},
        {"Expires=86400", "Expires=604801", ERR_BAD_REQUEST},
        {"Expires=86400", "Expires=-1", ERR_BAD_REQUEST},
        {"Expires=86400", "Expires=", ERR_BAD_REQUEST},
        {"Expires=86400", "Expires=99999999999999999999", ERR_BAD_REQUEST},
        {"T000000Z", "T000001Z", ERR_SIGNATURE},
        {"us-east-1", "us-east-2", ERR_SIGNATURE},
        {"AWS4-HMAC-SHA256", "AWS4-HMAC-SHA257", ERR_BAD_REQUEST},
        {"aeeed9", "beeed9", ERR_SIGNATURE},
        {"&X-Amz-SignedHeaders=host", "", ERR_BAD_REQUEST},
        {"SignedHeaders=host", "SignedHeaders=hosts", ERR_SIGNATURE},
        {"X-Amz-Algorithm=AWS4-HMAC-SHA256&", "", ERR_BAD_REQUEST},
        {"&X-Amz-Date=", "&versionId=1&X-Amz-Date=", ERR_SIGNATURE},
        {"&X-Amz-Date=", "&X-Amz-Date=1&X-Amz-Date=", ERR_BAD_REQUEST},
        {"&X-Amz-Date=", "&X-Amz%2DDate=", ERR_OK}, /* the same name */
        {"&X-Amz-Date=", "&&X-Amz-Date=", ERR_OK},
        {KEY_ID, "AKIAOTHER", ERR_ACCESS_DENIED},
        {"\r\nHost", "\r\nx-amz-acl: public-read\r\nHost", ERR_ACCESS_DENIED},
        {"\r\nHost", "\r\nAuthorization: x\r\nHost", ERR_BAD_REQUEST},
        {"\r\nHost", "\r\nx-amz-content-sha256: " SIGV4_EMPTY_SHA256 "\r\nHost", ERR_SIGNATURE},
        {"\r\nHost", "\r\nx-amz-content-sha256: " SIGV4_UNSIGNED "\r\nHost", ERR_OK},
    };
    check_tampers(PRESIGNED, tampers, ARRAY_LEN(tampers));
}

static void test_unsigned_request_is_denied(void **state)
{
    (void)state;
    assert_int_equal(verify(GET_HEAD("/test.txt") "\r\n"), ERR_ACCESS_DENIED);
}

/* A list of names as long as a head may be costs no more than its fields allow. */
static void test_endless_signed_names(void **state)
{
    (void)state;
    static char names[30001], text[40000];
    for (size_t i = 0; i + 2 <= sizeof names; i += 2) memcpy(names + i, "a;", 2);
    names[sizeof names - 1] = '\0';
    snprintf(text, sizeof text,
             GET_HEAD("/k") "a: 1\r\n" SHA DATE "Authorization: AWS4-HMAC-SHA256 Credential=" KEY_ID SCOPE
                            ", SignedHeaders=%s, Signature=" EX1_SIG "\r\n\r\n",
             names);
    assert_int_equal(verify(text), ERR_SIGNATURE);
}

/* What we sign, we verify: fields, queries and paths of many shapes. */
static void test_signed_requests_verify(void **state)
{
    (void)state;
    static const char *const targets[] = {
        "/",
        "/b",
        "/b/",
        "/b/k",
        "/b//k",
        "/b/./../k",
        "/b/a%2Fb",
        "/b/%",
        "/b/%4",
        "/b/%%%",
        "/b/+%2B%20",
        "/b/%C3%A4%ff%00",
        "/b?",
        "/b?=",
        "/b?=v",
        "/b?a",
        "/b?a=",
        "/b?a==b",
        "/b?a&a&a",
        "/b?b=2&b=1&a-=1&a=1&a.=1",
        "/b?list-type=2&prefix=a%2Fb%20c+d&delimiter=%2F&continuation-token=1%2F%2B%3D",
        "/b/k?x=%&y=%zz&%=1&%41=%61",
    };
    for (size_t i = 0; i < ARRAY_LEN(targets); i++) {
        struct request r;
        struct sigv4_key key = {0};
        struct hdr all[MAX_HDRS], out[4];
        unsigned nout;
        char text[512];
        snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: h:8080\r\nX-Amz-Meta-Z: a  b\r\nrange: bytes=1-2\r\n\r\n",
                 targets[i]);
        request_open(&r, text);
        struct sigv4_request s = {.method = r.head.method_text,
                                  .path = r.target.path,
                                  .query = r.target.query,
                                  .host = r.host,
                                  .hdrs = r.head.hdrs,
                                  .nhdrs = r.head.nhdrs,
                                  .payload_hash = STR_LIT(SIGV4_UNSIGNED),
                                  .region = STR_LIT("r"),
                                  .now_s = NOW};
        assert_int_equal(sigv4_sign(&key, &example_credentials, &s, r.pool, out, &nout), ERR_OK);
        memcpy(all, r.head.hdrs, r.head.nhdrs * sizeof *all);
        memcpy(all + r.head.nhdrs, out, nout * sizeof *all);
        r.head.hdrs = all;
        r.head.nhdrs += nout;
        enum err e = sigv4_verify(&r.head, r.target.path, r.target.query, r.host, NOW, lookup, NULL, r.pool);
        if (e) fail_msg("%s: %s", targets[i], err_name(e));
        request_close(&r);
    }
}

static void test_query_is_masked_for_logs(void **state)
{
    (void)state;
    static const struct {
        const char *query, *want;
    } rows[] = {
        {"", ""},
        {"a=1&b", "a=1&b"},
        {"X-Amz-Signature=abc", "X-Amz-Signature=..."},
        {"X-Amz-Signature", "X-Amz-Signature=..."},
        {"X-Amz-Signature=", "X-Amz-Signature=..."},
        {"a=1&x-amz-SIGNATURE=abc&b=2", "a=1&x-amz-SIGNATURE=...&b=2"},
        {"X-Amz-%53ignature=abc", "X-Amz-%53ignature=..."},
        {"X-Amz-Security-Token=t=&&X-Amz-Credential=c&X-Amz-Date=d",
         "X-Amz-Security-Token=...&&X-Amz-Credential=...&X-Amz-Date=d"},
        {"AWSAccessKeyId=AK&Signature=s&Expires=1", "AWSAccessKeyId=...&Signature=...&Expires=1"},
        {"X-Amz-Signatures=abc", "X-Amz-Signatures=abc"},
    };
    struct pool *pool = pool_create(POOL_BYTES);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct str got = sigv4_mask_query(pool, str_c(rows[i].query));
        if (!str_eq(got, str_c(rows[i].want))) fail_msg("%s -> " STR_FMT, rows[i].query, STR_ARG(got));
    }
    struct pool *small = pool_create(16);
    assert_true(str_eq(sigv4_mask_query(small, STR_LIT("X-Amz-Signature=abc")), STR_LIT("...")));
    pool_destroy(small);
    pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples_signed),
        cmocka_unit_test(test_examples_verified),
        cmocka_unit_test(test_fields_a_hop_may_change_are_not_signed),
        cmocka_unit_test(test_anonymous_is_not_signed),
        cmocka_unit_test(test_key_follows_secret_day_and_region),
        cmocka_unit_test(test_sign_without_room_or_region),
        cmocka_unit_test(test_published_chunked_upload_is_verified),
        cmocka_unit_test(test_tampering_with_a_signed_request),
        cmocka_unit_test(test_malformed_claims),
        cmocka_unit_test(test_clock_skew),
        cmocka_unit_test(test_date_field_serves_where_there_is_no_amz_date),
        cmocka_unit_test(test_published_presigned_url),
        cmocka_unit_test(test_tampering_with_a_presigned_url),
        cmocka_unit_test(test_unsigned_request_is_denied),
        cmocka_unit_test(test_endless_signed_names),
        cmocka_unit_test(test_signed_requests_verify),
        cmocka_unit_test(test_query_is_masked_for_logs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
