/* test_h1_parse.c - heads and chunked framing: what is accepted, what is refused and with which code, and that it makes
 * no difference in how many pieces the bytes arrive. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "http/h1_parse.h"

#define HEADERS 32
static const struct h1_limits limits = {.head_bytes = 4096, .target_bytes = 1024, .headers = HEADERS};

typedef enum err parse_fn(const char *, size_t, size_t *, const struct h1_limits *, struct hdr *, struct head *, size_t *);

/* An exact malloc, so that the sanitizer sees every read behind the end. */
static char *exact(const char *p, size_t n)
{
    char *copy = malloc(n ? n : 1);
    assert_non_null(copy);
    if (n) memcpy(copy, p, n);
    return copy;
}

static void assert_same_slice(struct str a, const char *base_a, struct str b, const char *base_b)
{
    assert_int_equal(a.n, b.n);
    if (a.n) assert_int_equal(a.p - base_a, b.p - base_b);
}

static void assert_same_head(const struct head *a, const char *base_a, const struct head *b, const char *base_b)
{
    assert_int_equal(a->method, b->method);
    assert_int_equal(a->status, b->status);
    assert_int_equal(a->minor, b->minor);
    assert_int_equal(a->content_length, b->content_length);
    assert_int_equal(a->chunked, b->chunked);
    assert_int_equal(a->keep_alive, b->keep_alive);
    assert_int_equal(a->expect_continue, b->expect_continue);
    assert_same_slice(a->target, base_a, b->target, base_b);
    assert_same_slice(a->method_text, base_a, b->method_text, base_b);
    assert_same_slice(a->reason, base_a, b->reason, base_b);
    assert_int_equal(a->nhdrs, b->nhdrs);
    for (unsigned i = 0; i < a->nhdrs; i++) {
        assert_int_equal(a->hdrs[i].id, b->hdrs[i].id);
        assert_same_slice(a->hdrs[i].name, base_a, b->hdrs[i].name, base_b);
        assert_same_slice(a->hdrs[i].value, base_a, b->hdrs[i].value, base_b);
    }
}

/* Parses in one piece and byte by byte, with what an earlier call remembered and without: all must agree. */
static enum err parse_every_way(parse_fn *parse, const char *text, size_t n, const struct h1_limits *lim,
                                struct hdr *hdrs, struct head *out, size_t *used)
{
    size_t scanned = 0, bytewise_scanned = 0;
    *used = 0;
    enum err whole = parse(text, n, &scanned, lim, hdrs, out, used);
    enum err e = ERR_AGAIN;
    for (size_t k = 0; k <= n && e == ERR_AGAIN; k++) {
        struct hdr h2[HEADERS], h3[HEADERS];
        struct head o2, o3;
        size_t used2 = 0, used3 = 0, fresh = 0;
        char *piece = exact(text, k);
        e = parse(piece, k, &bytewise_scanned, lim, h2, &o2, &used2);
        assert_int_equal(parse(piece, k, &fresh, lim, h3, &o3, &used3), e);
        if (e == ERR_OK) {
            assert_int_equal(used2, k);
            assert_int_equal(used2, *used);
            assert_same_head(out, text, &o2, piece);
            assert_same_head(out, text, &o3, piece);
        }
        free(piece);
    }
    assert_int_equal(e, whole);
    return whole;
}

static enum err request(const char *text, struct hdr *hdrs, struct head *out)
{
    size_t used;
    return parse_every_way(h1_parse_request, text, strlen(text), &limits, hdrs, out, &used);
}

static enum err response(const char *text, struct hdr *hdrs, struct head *out)
{
    size_t used;
    return parse_every_way(h1_parse_response, text, strlen(text), &limits, hdrs, out, &used);
}

static void assert_str(struct str s, const char *z)
{
    assert_int_equal(s.n, strlen(z));
    assert_memory_equal(s.p ? s.p : "", z, s.n);
}

static void request_is_cut_into_slices(void **state)
{
    (void)state;
    static const char text[] = "GET /b/k%20x?versionId=1 HTTP/1.1\r\nHost: s3.example:9000\r\nrANGE:\t bytes=0-9 \t\r\n"
                               "X-Odd!#$%&'*+-.^_`|~: \xc3\xa9\r\nX-Empty:\r\nX-Tab: a\tb\r\n\r\nGET /next";
    struct hdr hdrs[HEADERS];
    struct head h;
    size_t used;
    assert_int_equal(parse_every_way(h1_parse_request, text, sizeof(text) - 1, &limits, hdrs, &h, &used), ERR_OK);
    assert_int_equal(used, sizeof(text) - 1 - strlen("GET /next"));
    assert_int_equal(h.method, METHOD_GET);
    assert_str(h.method_text, "GET");
    assert_str(h.target, "/b/k%20x?versionId=1");
    assert_int_equal(h.minor, 1);
    assert_int_equal(h.nhdrs, 5);
    assert_int_equal(h.hdrs[0].id, HDR_HOST);
    assert_str(h.hdrs[0].value, "s3.example:9000");
    assert_int_equal(h.hdrs[1].id, HDR_RANGE);
    assert_str(h.hdrs[1].name, "rANGE");
    assert_str(h.hdrs[1].value, "bytes=0-9");
    assert_int_equal(h.hdrs[2].id, HDR_OTHER);
    assert_str(h.hdrs[2].value, "\xc3\xa9");
    assert_str(h.hdrs[3].value, "");
    assert_str(h.hdrs[4].value, "a\tb");
    assert_int_equal(h.content_length, -1);
    assert_false(h.chunked);
    assert_true(h.keep_alive);
}

static void request_framing_is_worked_out(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t length;
        bool chunked, keep_alive, expect;
        unsigned minor;
        enum method method;
    } t[] = {
        {"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", 5, false, true, false, 1, METHOD_PUT},
        {"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 0, false, true, false, 1, METHOD_PUT},
        {"PUT /a HTTP/1.1\r\nHost: h\r\nContent-Length: 9223372036854775807\r\n\r\n", INT64_MAX, false, true, false, 1,
         METHOD_PUT},
        {"PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n", -1, true, true,
         true, 1, METHOD_PUT},
        {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", -1, false, false, false, 1, METHOD_GET},
        {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: x-foo , CLOSE\r\n\r\n", -1, false, false, false, 1, METHOD_GET},
        {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n", -1, false, false, false, 1,
         METHOD_GET},
        {"GET /a HTTP/1.1\r\nHost: h\r\nConnection: \"x, close\r\n\r\n", -1, false, false, false, 1, METHOD_GET},
        {"GET /a HTTP/1.0\r\n\r\n", -1, false, false, false, 0, METHOD_GET},
        {"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", -1, false, true, false, 0, METHOD_GET},
        {"GET /a HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", -1, false, false, false, 0, METHOD_GET},
        {"PUT /a HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n", 1, false, false, false, 0, METHOD_PUT},
        {"GET /a HTTP/1.2\r\nHost: h\r\n\r\n", -1, false, true, false, 1, METHOD_GET},
        {"BREW /a HTTP/1.1\r\nHost: h\r\n\r\n", -1, false, true, false, 1, METHOD_OTHER},
        {"get /a HTTP/1.1\r\nHost: h\r\n\r\n", -1, false, true, false, 1, METHOD_OTHER},
        {"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", -1, false, true, false, 1, METHOD_OPTIONS},
        {"GET http://bucket.example/k HTTP/1.1\r\nHost: other\r\n\r\n", -1, false, true, false, 1, METHOD_GET},
        {"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n", -1, false, false, false, 1, METHOD_CONNECT},
        {"\r\n\r\n\r\n\r\nGET /a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", -1, false, true, false, 1, METHOD_GET},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[HEADERS];
        struct head h;
        if (request(t[i].text, hdrs, &h) != ERR_OK) fail_msg("refused: %s", t[i].text);
        assert_int_equal(h.content_length, t[i].length);
        assert_int_equal(h.chunked, t[i].chunked);
        assert_int_equal(h.keep_alive, t[i].keep_alive);
        assert_int_equal(h.expect_continue, t[i].expect);
        assert_int_equal(h.minor, t[i].minor);
        assert_int_equal(h.method, t[i].method);
    }
}

#define H "GET / HTTP/1.1\r\nHost: h\r\n"
#define P "POST / HTTP/1.1\r\nHost: h\r\n"
static void requests_that_smuggle_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum err e;
    } t[] = {
        /* line ends and controls */
        {"GET / HTTP/1.1\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: h\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: h\r\n\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\n\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\rHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: a\rb\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: a\r\r\n\r\n", ERR_BAD_REQUEST},
        {H "X\r: a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: a\x01\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: a\x7f\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: abcdefghijk\x0b\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: \x1f" "bcdefgh\r\n\r\n", ERR_BAD_REQUEST},
        {H "\r", ERR_AGAIN},
        {H "X: a\r\n folded\r\n\r\n", ERR_BAD_REQUEST},
        {H "X: a\r\n\tfolded\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\n Host: h\r\n\r\n", ERR_BAD_REQUEST},
        {"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"\rGET / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        /* field lines */
        {H "X : a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X\t: a\r\n\r\n", ERR_BAD_REQUEST},
        {H "Content-Length : 1\r\n\r\n", ERR_BAD_REQUEST},
        {H ": a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X\r\n\r\n", ERR_BAD_REQUEST},
        {H "X Y: a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X(: a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X\xc3\xa9: a\r\n\r\n", ERR_BAD_REQUEST},
        {H "X@Y: a\r\n\r\n", ERR_BAD_REQUEST},
        /* start line */
        {" GET / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET /  HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1 \r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET /\tHTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET /a\x0b HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET /\r\n\r\n", ERR_BAD_REQUEST},
        {"GET\r\n\r\n", ERR_BAD_REQUEST},
        {"GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / http/1.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.10\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/01.1\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.x\r\nHost: h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/2.0\r\nHost: h\r\n\r\n", ERR_VERSION},
        {"GET / HTTP/0.9\r\nHost: h\r\n\r\n", ERR_VERSION},
        {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ERR_VERSION},
        {"\x16\x03\x01\x02", ERR_BAD_REQUEST},
        /* Host */
        {"GET / HTTP/1.1\r\n\r\n", ERR_BAD_REQUEST},
        {H "Host: h\r\n\r\n", ERR_BAD_REQUEST},
        {H "HOST: other\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost:\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: h:x\r\n\r\n", ERR_BAD_REQUEST},
        {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", ERR_BAD_REQUEST},
        {"GET http://a/ HTTP/1.1\r\n\r\n", ERR_BAD_REQUEST},
        /* Content-Length */
        {P "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 5\r\nContent-Length: 6\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 5, 5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: +5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: -5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 0x5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 5 5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 5;\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: \"5\"\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length:\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 9223372036854775808\r\n\r\n", ERR_BAD_REQUEST},
        {P "Content-Length: 18446744073709551621\r\n\r\n", ERR_BAD_REQUEST},
        /* Transfer-Encoding */
        {P "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: gzip\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: identity\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked, identity\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked, chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: xchunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked;q=1\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: \"chunked\"\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: , chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: chunked,\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding:\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: \x0b" "chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding\x0b: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding : chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P " Transfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
        {P "Transfer-Encoding: gzip, chunked\r\n\r\n", ERR_NOT_IMPLEMENTED},
        {P "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_NOT_IMPLEMENTED},
        {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ERR_BAD_REQUEST},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[HEADERS];
        struct head h;
        enum err e = request(t[i].text, hdrs, &h);
        if (e != t[i].e) fail_msg("row %zu: %s instead of %s: %s", i, err_name(e), err_name(t[i].e), t[i].text);
    }
}

static void nul_bytes_are_refused_everywhere(void **state)
{
    (void)state;
    static const char text[] = "GET /a HTTP/1.1\r\nHost: h\r\nX-Name: some value\r\n\r\n";
    for (size_t i = 0; i + 5 < sizeof(text); i++) {
        char copy[sizeof(text)];
        struct hdr hdrs[HEADERS];
        struct head h;
        size_t used, scanned = 0;
        memcpy(copy, text, sizeof(text));
        copy[i] = 0;
        assert_int_equal(h1_parse_request(copy, sizeof(text) - 1, &scanned, &limits, hdrs, &h, &used), ERR_BAD_REQUEST);
    }
}

/* "GET /aaa... HTTP/1.1" with a target of n bytes, and a field of m bytes of value. */
static char *big_request(size_t n, size_t m)
{
    char *text = malloc(n + m + 128);
    assert_non_null(text);
    char *p = text + sprintf(text, "GET /");
    memset(p, 'a', n - 1);
    p += n - 1;
    p += sprintf(p, " HTTP/1.1\r\nHost: h\r\nX: ");
    memset(p, 'b', m);
    p += m;
    strcpy(p, "\r\n\r\n");
    return text;
}

static void limits_hold_to_the_byte(void **state)
{
    (void)state;
    static const struct {
        size_t target, value;
        enum err e;
    } t[] = {
        {1024, 10, ERR_OK},          {1025, 10, ERR_URI_TOO_LONG},     {5000, 10, ERR_URI_TOO_LONG},
        {1024, 8000, ERR_HEAD_TOO_LARGE}, {1025, 8000, ERR_URI_TOO_LONG}, {1, 8000, ERR_HEAD_TOO_LARGE},
    };
    struct hdr hdrs[HEADERS];
    struct head h;
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        char *text = big_request(t[i].target, t[i].value);
        assert_int_equal(request(text, hdrs, &h), t[i].e);
        free(text);
    }
    /* the whole head: exactly the limit, and one more */
    size_t base = strlen("GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n");
    char *fits = big_request(1, limits.head_bytes - base), *over = big_request(1, limits.head_bytes - base + 1);
    assert_int_equal(request(fits, hdrs, &h), ERR_OK);
    assert_int_equal(request(over, hdrs, &h), ERR_HEAD_TOO_LARGE);
    free(fits);
    free(over);
}

static void header_count_is_bounded(void **state)
{
    (void)state;
    struct hdr hdrs[HEADERS];
    struct head h;
    for (unsigned extra = HEADERS - 1; extra <= HEADERS; extra++) {
        char text[1024], *p = text;
        p += sprintf(p, "GET / HTTP/1.1\r\nHost: h\r\n");
        for (unsigned i = 0; i < extra; i++) p += sprintf(p, "X%u: v\r\n", i);
        strcpy(p, "\r\n");
        assert_int_equal(request(text, hdrs, &h), extra < HEADERS ? ERR_OK : ERR_HEAD_TOO_LARGE);
    }
}

static void endless_start_lines_end_at_the_limit(void **state)
{
    (void)state;
    struct hdr hdrs[HEADERS];
    struct head h;
    char text[5000];
    memset(text, 'A', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    assert_int_equal(request(text, hdrs, &h), ERR_HEAD_TOO_LARGE);
    assert_int_equal(response(text, hdrs, &h), ERR_PROTOCOL);
    text[0] = 'H';
    assert_int_equal(response(text, hdrs, &h), ERR_PROTOCOL);
}

static void response_is_cut_into_slices(void **state)
{
    (void)state;
    struct hdr hdrs[HEADERS];
    struct head h;
    assert_int_equal(response("HTTP/1.1 206 Partial  Content\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\n", hdrs, &h), ERR_OK);
    assert_int_equal(h.status, 206);
    assert_str(h.reason, "Partial  Content");
    assert_int_equal(h.content_length, 10);
    assert_int_equal(h.hdrs[0].id, HDR_ETAG);
    assert_true(h.keep_alive);
    assert_int_equal(response("HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\nConnection: Close\r\n\r\n", hdrs, &h), ERR_OK);
    assert_str(h.reason, "");
    assert_true(h.chunked);
    assert_false(h.keep_alive);
    assert_int_equal(response("HTTP/1.0 200\r\n\r\n", hdrs, &h), ERR_OK);
    assert_int_equal(h.content_length, -1);
    assert_int_equal(h.minor, 0);
    assert_false(h.keep_alive);
    assert_int_equal(response("HTTP/1.1 100 Continue\r\n\r\n", hdrs, &h), ERR_OK);
    assert_int_equal(h.status, 100);
}

static void malformed_responses_are_protocol_errors(void **state)
{
    (void)state;
#define R "HTTP/1.1 200 OK\r\n"
    static const char *const t[] = {
        "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1\r\n\r\n", "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200\tOK\r\n\r\n", "HTTP/1.1 200 O\x01K\r\n\r\n", "HTTP/1.1 200 OK\n\n", "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n", "<html>", R "X : y\r\n\r\n", R "X: y\r\n z\r\n\r\n", R "X: a\rb\r\n\r\n",
        R "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", R "Content-Length: -1\r\n\r\n",
        R "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", R "Transfer-Encoding: gzip\r\n\r\n",
        R "Transfer-Encoding: gzip, chunked\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        struct hdr hdrs[HEADERS];
        struct head h;
        enum err e = response(t[i], hdrs, &h);
        if (e != ERR_PROTOCOL) fail_msg("%s: %s", err_name(e), t[i]);
    }
}

/* Decodes with pieces of `step` bytes at most; *n data bytes to out. What is left over stays uncounted in *used. */
static enum err decode(const char *in, size_t in_n, size_t step, char *out, size_t *n, size_t *used)
{
    struct h1_chunked c;
    size_t at = 0, end = 0;
    *n = 0;
    h1_chunked_init(&c);
    for (;;) {
        size_t took = 0;
        char *piece = exact(in + at, end - at);
        enum err e = h1_chunked_next(&c, piece, end - at, &took);
        free(piece);
        at += took;
        *used = at;
        if (e == ERR_END || e == ERR_BAD_CHUNK) return e;
        if (e == ERR_OK && end > at) {
            assert_true(c.left > 0);
            size_t data = c.left < end - at ? (size_t)c.left : end - at;
            memcpy(out + *n, in + at, data);
            *n += data;
            at += data;
            h1_chunked_took(&c, data);
            continue;
        }
        if (end == in_n) return ERR_AGAIN;
        end = in_n - end < step ? in_n : end + step;
    }
}

static void chunked_bodies_decode(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        const char *data;
        size_t rest; /* bytes behind the body */
    } t[] = {
        {"0\r\n\r\n", "", 0},
        {"000\r\n\r\n", "", 0},
        {"5\r\nhello\r\n0\r\n\r\n", "hello", 0},
        {"5\r\nhello\r\nA\r\n0123456789\r\n0a\r\n\r\n\r\nabcdef\r\n0\r\n\r\nGET", "hello0123456789\r\n\r\nabcdef", 3},
        {"5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n", "hello", 0},
        {"1\r\na\r\n0\r\nX-Trailer: v\r\nx-amz-checksum-crc32: AAAA==\r\n\r\nrest", "a", 4},
        {"1\r\na\r\n0\r\nX-Empty:\r\n\r\n", "a", 0},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        for (size_t step = 1; step <= 64; step++) {
            char out[128];
            size_t n, used;
            assert_int_equal(decode(t[i].in, strlen(t[i].in), step, out, &n, &used), ERR_END);
            assert_int_equal(n, strlen(t[i].data));
            assert_memory_equal(out, t[i].data, n);
            assert_int_equal(used, strlen(t[i].in) - t[i].rest);
        }
    }
}

static void malformed_chunks_are_refused(void **state)
{
    (void)state;
    static const char *const t[] = {
        "\r\n", "g\r\n", " 5\r\nhello\r\n", "5 \r\nhello\r\n", "5\t;x\r\n", "+5\r\nhello\r\n", "-5\r\n", "0x5\r\nhello\r\n",
        "5\nhello\r\n", "5\r\r\n", "5\rhello", ";a\r\n", "5\r\nhello\n", "5\r\nhelloX\r\n", "5\r\nhello\rX",
        "5\r\nhelloo\r\n0\r\n\r\n", "5;a\nb\r\nhello\r\n", "5;a\x01\r\n", "5;a\rb\r\n", "0\r\n\n", "0\r\n\rX", "0\r\n X: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n", "0\r\nX\r\n\r\n", "0\r\n: y\r\n\r\n", "0\r\nX: y\n\r\n", "0\r\nX: \x02\r\n\r\n",
        "8000000000000000\r\n", "10000000000000005\r\n", "ffffffffffffffff\r\n", "5,5\r\n", "5\x0b\r\n",
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        for (size_t step = 1; step <= 32; step += 31) {
            char out[128];
            size_t n, used;
            enum err e = decode(t[i], strlen(t[i]), step, out, &n, &used);
            if (e != ERR_BAD_CHUNK) fail_msg("%s: %s", err_name(e), t[i]);
        }
    }
}

static void every_prefix_of_a_chunked_body_is_incomplete(void **state)
{
    (void)state;
    static const char in[] = "5;x=y\r\nhello\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n";
    for (size_t k = 0; k < sizeof(in) - 1; k++) {
        char out[64];
        size_t n, used;
        assert_int_equal(decode(in, k, 1, out, &n, &used), ERR_AGAIN);
        assert_int_equal(decode(in, k, 64, out, &n, &used), ERR_AGAIN);
    }
}

static void chunk_framing_is_bounded(void **state)
{
    (void)state;
    char in[40000], *p = in;
    size_t n, used;
    char out[8];
    p += sprintf(p, "1;");
    memset(p, 'x', 300);
    assert_int_equal(decode(in, 302, 302, out, &n, &used), ERR_BAD_CHUNK);
    memset(in, '0', 300);
    assert_int_equal(decode(in, 300, 300, out, &n, &used), ERR_BAD_CHUNK);
    p = in + sprintf(in, "0\r\n");
    for (int i = 0; i < 1000; i++) p += sprintf(p, "X-%04d: 0123456789\r\n", i);
    assert_int_equal(decode(in, (size_t)(p - in), 4096, out, &n, &used), ERR_BAD_CHUNK);
    p = in + sprintf(in, "0\r\n");
    for (int i = 0; i < 800; i++) p += sprintf(p, "X-%04d: 0123456789\r\n", i);
    p += sprintf(p, "\r\n");
    assert_int_equal(decode(in, (size_t)(p - in), 4096, out, &n, &used), ERR_END);
}

static void largest_chunk_size_is_taken(void **state)
{
    (void)state;
    struct h1_chunked c;
    size_t used;
    h1_chunked_init(&c);
    assert_int_equal(h1_chunked_next(&c, "7fffffffffffffff\r\n", 18, &used), ERR_OK);
    assert_true(c.left == INT64_MAX);
    assert_int_equal(used, 18);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_cut_into_slices),
        cmocka_unit_test(request_framing_is_worked_out),
        cmocka_unit_test(requests_that_smuggle_are_refused),
        cmocka_unit_test(nul_bytes_are_refused_everywhere),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(header_count_is_bounded),
        cmocka_unit_test(endless_start_lines_end_at_the_limit),
        cmocka_unit_test(response_is_cut_into_slices),
        cmocka_unit_test(malformed_responses_are_protocol_errors),
        cmocka_unit_test(chunked_bodies_decode),
        cmocka_unit_test(malformed_chunks_are_refused),
        cmocka_unit_test(every_prefix_of_a_chunked_body_is_incomplete),
        cmocka_unit_test(chunk_framing_is_bounded),
        cmocka_unit_test(largest_chunk_size_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
