/* fuzz_h1.c - libFuzzer target: the HTTP/1.x parser and everything that reads what it lets through.
 *
 * Each input is taken for a request, a response and a chunked body. Every one is handled in one piece and byte by byte,
 * and both must come to the same result: a parser whose verdict depends on packet boundaries can be smuggled through.
 * Buffers are exact allocations, so that AddressSanitizer sees a read one byte behind. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/cachectl.h"
#include "http/cond.h"
#include "http/date.h"
#include "http/h1_parse.h"
#include "http/range.h"
#include "http/uri.h"

#define HEADERS 24u
#define BYTEWISE_MAX 1500u /* longer inputs are only split in two: byte by byte costs the square */
static const struct h1_limits limits = {.head_bytes = 1200, .target_bytes = 300, .headers = HEADERS};

typedef enum err parse_fn(const char *, size_t, size_t *, const struct h1_limits *, struct hdr *, struct head *, size_t *);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define REQUIRE(cond) ((cond) ? (void)0 : fuzz_fail(#cond, __LINE__))
static void fuzz_fail(const char *what, int line)
{
    fprintf(stderr, "fuzz_h1.c:%d: not so: %s\n", line, what);
    abort();
}

static char *exact(const void *p, size_t n)
{
    char *copy = malloc(n ? n : 1);
    REQUIRE(copy != NULL);
    if (n) memcpy(copy, p, n);
    return copy;
}

static bool slice_within(struct str s, const char *buf, size_t n)
{
    return s.n == 0 || (s.p >= buf && s.p + s.n <= buf + n);
}

static bool same_slice(struct str a, const char *buf_a, struct str b, const char *buf_b)
{
    return a.n == b.n && (a.n == 0 || a.p - buf_a == b.p - buf_b);
}

static void require_same_head(const struct head *a, const char *pa, const struct head *b, const char *pb)
{
    REQUIRE(a->method == b->method && a->status == b->status && a->minor == b->minor);
    REQUIRE(a->content_length == b->content_length && a->chunked == b->chunked);
    REQUIRE(a->keep_alive == b->keep_alive && a->expect_continue == b->expect_continue);
    REQUIRE(same_slice(a->target, pa, b->target, pb) && same_slice(a->reason, pa, b->reason, pb));
    REQUIRE(a->nhdrs == b->nhdrs);
    for (unsigned i = 0; i < a->nhdrs; i++) {
        REQUIRE(a->hdrs[i].id == b->hdrs[i].id);
        REQUIRE(same_slice(a->hdrs[i].name, pa, b->hdrs[i].name, pb));
        REQUIRE(same_slice(a->hdrs[i].value, pa, b->hdrs[i].value, pb));
    }
}

/* What the parser promises about a head it let through. */
static void require_sound_head(const struct head *h, const char *buf, size_t used)
{
    unsigned lengths = 0, codings = 0;
    REQUIRE(used <= limits.head_bytes && h->nhdrs <= HEADERS);
    REQUIRE(h->target.n <= limits.target_bytes && slice_within(h->target, buf, used));
    REQUIRE(slice_within(h->reason, buf, used));
    for (unsigned i = 0; i < h->nhdrs; i++) {
        const struct hdr *f = &h->hdrs[i];
        REQUIRE(f->name.n > 0 && slice_within(f->name, buf, used) && slice_within(f->value, buf, used));
        REQUIRE(f->id == HDR_OTHER || str_eq_ci(f->name, hdr_name(f->id)));
        for (size_t k = 0; k < f->value.n; k++) {
            unsigned char c = (unsigned char)f->value.p[k];
            REQUIRE((c >= 0x20 && c != 0x7f) || c == '\t');
        }
        lengths += f->id == HDR_CONTENT_LENGTH;
        codings += f->id == HDR_TRANSFER_ENCODING;
    }
    REQUIRE(lengths <= 1 && !(lengths && codings));
    REQUIRE((h->content_length >= 0) == (lengths == 1) && h->chunked == (codings > 0));
}

/* The readers of heads: they must only not misbehave. */
static void use_head(const struct head *h)
{
    struct cache_verdict verdict;
    struct cache_request asked;
    struct content_range cr;
    struct range r = range_parse(head_value(h, HDR_RANGE));
    uint64_t first, last;
    cache_judge(h, h, true, 1000, 784111777, 5, &verdict);
    cache_request_parse(h, &asked);
    (void)cond_check(h, STR_LIT("\"a\""), 784111777);
    (void)cond_if_range(h, STR_LIT("\"a\""), 784111777);
    if (r.kind != RANGE_NONE && range_resolve(&r, 1000, &first, &last) == ERR_OK) REQUIRE(first <= last && last < 1000);
    (void)content_range_parse(head_value(h, HDR_CONTENT_RANGE), &cr);
    for (unsigned i = 0; i < h->nhdrs; i++) {
        struct str rest = h->hdrs[i].value, member;
        (void)hdr_is_hop_by_hop(h, &h->hdrs[i]);
        (void)date_parse(h->hdrs[i].value);
        (void)date_parse_amz(h->hdrs[i].value);
        while (hdr_list_next(&rest, &member)) REQUIRE(member.n > 0);
    }
}

static void use_target(struct str raw)
{
    struct target t;
    struct str name, value;
    if (target_parse(raw, &t) != ERR_OK) return;
    REQUIRE(t.path.n > 0 && (t.path.p[0] == '/' || str_eq(t.path, STR_LIT("*"))));
    struct pool *p = pool_create(1 << 16);
    if (!p) return;
    struct str plain = uri_decode(p, t.path);
    if (plain.p) {
        struct str again = uri_decode(p, uri_encode(p, plain, true));
        REQUIRE(str_eq(plain, again));
    }
    while (query_next(&t.query, &name, &value)) (void)uri_decode(p, value);
    pool_destroy(p);
}

static void check_head(parse_fn *parse, const uint8_t *data, size_t n)
{
    struct hdr hdrs[HEADERS], piece_hdrs[HEADERS];
    struct head whole, pieces;
    size_t scanned = 0, piece_scanned = 0, used = 0, piece_used = 0;
    char *buf = exact(data, n), *piece = NULL;
    enum err e = parse(buf, n, &scanned, &limits, hdrs, &whole, &used), pe = ERR_AGAIN;
    size_t step = n > BYTEWISE_MAX ? n / 2 + 1 : 1;
    for (size_t k = 0; pe == ERR_AGAIN; k = n - k < step ? n : k + step) {
        free(piece);
        piece = exact(data, k);
        pe = parse(piece, k, &piece_scanned, &limits, piece_hdrs, &pieces, &piece_used);
        if (k == n) break;
    }
    REQUIRE(e == pe);
    if (e == ERR_OK) {
        REQUIRE(used == piece_used);
        require_same_head(&whole, buf, &pieces, piece);
        require_sound_head(&whole, buf, used);
        use_head(&whole);
        use_target(whole.target);
    }
    free(piece);
    free(buf);
}

struct decoded {
    enum err e;
    size_t used, bytes;
    uint64_t sum; /* position-dependent, over the data bytes */
};

static struct decoded decode(const uint8_t *data, size_t n, size_t step)
{
    struct decoded d = {.e = ERR_AGAIN};
    struct h1_chunked c;
    size_t end = 0, took;
    h1_chunked_init(&c);
    for (;;) {
        char *piece = exact(data + d.used, end - d.used);
        d.e = h1_chunked_next(&c, piece, end - d.used, &took);
        REQUIRE(took <= end - d.used);
        free(piece);
        d.used += took;
        if (d.e == ERR_END || d.e == ERR_BAD_CHUNK) return d;
        REQUIRE(d.e == ERR_OK ? c.left > 0 : d.e == ERR_AGAIN && d.used == end);
        size_t have = end - d.used;
        if (have > 0) {
            size_t take = c.left < have ? (size_t)c.left : have;
            for (size_t i = 0; i < take; i++) d.sum = d.sum * 31 + data[d.used + i];
            d.used += take;
            d.bytes += take;
            h1_chunked_took(&c, take);
            continue;
        }
        if (end == n) return d;
        end = n - end < step ? n : end + step;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    check_head(h1_parse_request, data, n);
    check_head(h1_parse_response, data, n);
    struct decoded a = decode(data, n, n ? n : 1), b = decode(data, n, 1);
    REQUIRE(a.e == b.e && a.used == b.used && a.bytes == b.bytes && a.sum == b.sum);
    return 0;
}
