/* test_aws_chunked.c - the decoder of aws-chunked uploads against every way its input can be cut, and against input that
 * is wrong. The source hands out pieces in memory of their own, freed with their release, so that a slice used too long
 * is found by the sanitizer, and a piece never released by the leak check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/pool.h"
#include "s3/aws_chunked.h"

#define SIG "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648"
#define EXT ";chunk-signature=" SIG

/* ---- a scripted source */

struct source {
    struct body body;
    const char *p;
    size_t n, at;
    size_t cut, cut2;   /* pieces end at these offsets (0: none) ... */
    size_t piece;       /* ... and after at most so many bytes (0: no bound) */
    bool again_between; /* ERR_AGAIN before each piece */
    bool again_said;
    enum err at_end; /* ERR_END, or what breaks there */
    unsigned held, again_count;
    bool closed, unproven;
};

struct piece {
    struct source *source;
    uint8_t data[];
};

static void piece_release(void *owner, enum chunk_end how)
{
    struct piece *p = owner;
    assert_true(p->source->held > 0);
    p->source->held--;
    if (how == CHUNK_UNPROVEN) p->source->unproven = true;
    free(p);
}

static enum err source_pull(struct body *b, struct chunk *out, unsigned max, size_t max_bytes, unsigned *n)
{
    struct source *s = container_of(b, struct source, body);
    assert_false(s->closed);
    assert_true(max > 0 && max_bytes > 0);
    *n = 0;
    if (s->again_between && !s->again_said) {
        s->again_said = true;
        s->again_count++;
        return ERR_AGAIN;
    }
    s->again_said = false;
    if (s->at == s->n) return s->at_end;
    size_t len = s->n - s->at;
    if (s->cut > s->at && s->cut - s->at < len) len = s->cut - s->at;
    if (s->cut2 > s->at && s->cut2 - s->at < len) len = s->cut2 - s->at;
    if (s->piece && len > s->piece) len = s->piece;
    if (len > max_bytes) len = max_bytes;
    struct piece *p = malloc(sizeof *p + len);
    assert_non_null(p);
    p->source = s;
    memcpy(p->data, s->p + s->at, len);
    *out = (struct chunk){
        .data = p->data, .len = len, .fd = 7, .fd_off = 1000 + s->at, .owner = p, .release = piece_release};
    s->at += len;
    s->held++;
    *n = 1;
    return ERR_OK;
}

static void source_close(struct body *b)
{
    struct source *s = container_of(b, struct source, body);
    assert_false(s->closed);
    s->closed = true;
}

static const struct body_ops source_ops = {source_pull, source_close};

static void source_init(struct source *s, const char *text, size_t n)
{
    *s = (struct source){.body = {.ops = &source_ops, .length = (int64_t)n}, .p = text, .n = n, .at_end = ERR_END};
}

/* ---- a consumer */

struct consumer {
    unsigned max;     /* entries per pull */
    size_t max_bytes; /* bytes per pull */
    bool hold_all;    /* release only at the very end */
};
static const struct consumer greedy = {16, SIZE_MAX, false};

struct outcome {
    enum err end;
    int64_t length; /* promised */
    struct strbuf bytes;
};

#define HELD_MAX 4096

static struct outcome run(struct source *s, enum aws_chunked_kind kind, uint64_t decoded, const char *trailers,
                          const struct consumer *how)
{
    static struct chunk held[HELD_MAX];
    struct outcome o = {.length = -1};
    struct pool *pool = pool_create(1 << 18);
    struct body *b = NULL;
    unsigned nheld = 0, stuck = 0;

    strbuf_init(&o.bytes, 1 << 24);
    o.end = aws_chunked_filter(&s->body, kind, decoded, str_c(trailers), pool, &b);
    if (o.end) goto out;
    o.length = b->length;
    for (;;) {
        struct chunk c[16];
        unsigned n = 0;
        size_t sum = 0;
        o.end = body_pull(b, c, how->max, how->max_bytes, &n);
        if (o.end == ERR_AGAIN) {
            assert_true(s->again_between && ++stuck < 100000);
            continue;
        }
        if (o.end) break;
        assert_true(n > 0 && n <= how->max);
        for (unsigned i = 0; i < n; i++) {
            assert_true(c[i].len > 0);
            sum += c[i].len;
            strbuf_add(&o.bytes, c[i].data, c[i].len);
            if (c[i].fd >= 0) assert_memory_equal(c[i].data, s->p + (c[i].fd_off - 1000), c[i].len);
            if (how->hold_all && nheld < HELD_MAX)
                held[nheld++] = c[i];
            else
                chunk_release(&c[i], CHUNK_COPIED);
        }
        assert_true(sum <= how->max_bytes);
    }
    /* an end stays one */
    struct chunk c;
    unsigned n;
    assert_int_equal(body_pull(b, &c, 1, 1, &n), o.end);
    for (unsigned i = 0; i < nheld; i++) chunk_release(&held[i], CHUNK_UNPROVEN);
    body_close(b);
    assert_true(s->closed);
out:
    assert_int_equal(s->held, 0);
    pool_destroy(pool);
    return o;
}

static void expect(struct source *s, enum aws_chunked_kind kind, uint64_t decoded, const char *trailers,
                   const struct consumer *how, const char *want, size_t want_n)
{
    struct outcome o = run(s, kind, decoded, trailers, how);
    if (o.end != ERR_END) fail_msg("%s (cut %zu %zu piece %zu)", err_name(o.end), s->cut, s->cut2, s->piece);
    assert_int_equal(o.length, want_n);
    if (!str_eq(strbuf_get(&o.bytes), str_make(want, want_n)))
        fail_msg("got \"" STR_FMT "\" want \"%.*s\"", STR_ARG(strbuf_get(&o.bytes)), (int)want_n, want);
    strbuf_free(&o.bytes);
}

static enum err failure(const char *text, enum aws_chunked_kind kind, uint64_t decoded, const char *trailers,
                        size_t *got)
{
    struct source s;
    source_init(&s, text, strlen(text));
    struct outcome o = run(&s, kind, decoded, trailers, &greedy);
    if (got) *got = o.bytes.n;
    strbuf_free(&o.bytes);
    return o.end;
}

/* ---- good input */

#define SIGNED_BODY "5" EXT "\r\nhello\r\nC" EXT "\r\n wonderful w\r\n05" EXT "\r\norld!\r\n0" EXT "\r\n\r\n"
#define DECODED "hello wonderful world!"
#define DATA_N (sizeof DECODED - 1)
#define TRAILER_BODY                                                                                                  \
    "16" EXT "\r\n" DECODED "\r\n0" EXT "\r\nx-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:" SIG "\r\n\r" \
                                                                                                             "\n"
#define UNSIGNED_BODY "16\r\n" DECODED "\r\n0\r\nx-amz-checksum-crc32c:sOO8/Q==\r\n\r\n"

struct sample {
    const char *body;
    enum aws_chunked_kind kind;
    const char *trailers, *want;
};
static const struct sample samples[] = {
    {SIGNED_BODY, AWS_CHUNKED_SIGNED, NULL, DECODED},
    {TRAILER_BODY, AWS_CHUNKED_SIGNED_TRAILER, "x-amz-checksum-crc32c", UNSIGNED_BODY},
    {UNSIGNED_BODY, AWS_CHUNKED_UNSIGNED_TRAILER, "x-amz-checksum-crc32c", UNSIGNED_BODY},
};

static void check_sample(const struct sample *x, const struct consumer *how, size_t cut, size_t cut2, size_t piece,
                         bool again)
{
    struct source s;
    source_init(&s, x->body, strlen(x->body));
    s.cut = cut;
    s.cut2 = cut2;
    s.piece = piece;
    s.again_between = again;
    expect(&s, x->kind, DATA_N, x->trailers, how, x->want, strlen(x->want));
    if (how->hold_all) assert_true(s.unproven); /* how the consumer ended reaches the source */
}

static void test_every_split(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
        size_t n = strlen(samples[i].body);
        for (size_t cut = 0; cut < n; cut++) check_sample(&samples[i], &greedy, cut, 0, 0, cut & 1);
        for (size_t cut = 1; cut < n; cut += 3)
            for (size_t cut2 = cut + 1; cut2 < n; cut2 += 5) check_sample(&samples[i], &greedy, cut, cut2, 0, true);
        for (size_t piece = 1; piece < 40; piece++) check_sample(&samples[i], &greedy, 0, 0, piece, piece & 1);
    }
}

static void test_every_appetite(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(samples); i++)
        for (size_t bytes = 1; bytes < 40; bytes++)
            for (unsigned max = 1; max < 5; max++) {
                const struct consumer how = {max, bytes, bytes % 2 == 0};
                check_sample(&samples[i], &how, 0, 0, bytes % 7, max & 1);
            }
}

static void test_empty_bodies(void **state)
{
    (void)state;
    struct source s;
    source_init(&s, "0" EXT "\r\n\r\n", strlen("0" EXT "\r\n\r\n"));
    expect(&s, AWS_CHUNKED_SIGNED, 0, NULL, &greedy, "", 0);
    static const char in[] = "0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
    source_init(&s, in, sizeof in - 1);
    expect(&s, AWS_CHUNKED_UNSIGNED_TRAILER, 0, "x-amz-checksum-crc32", &greedy, in, sizeof in - 1);
    static const char bare[] = "0" EXT "\r\nx-amz-trailer-signature:" SIG "\r\n\r\n";
    source_init(&s, bare, sizeof bare - 1);
    expect(&s, AWS_CHUNKED_SIGNED_TRAILER, 0, "", &greedy, "0\r\n\r\n", 5);
    static const char one[] = "1" EXT "\r\nx\r\n0" EXT "\r\n\r\n";
    source_init(&s, one, sizeof one - 1);
    expect(&s, AWS_CHUNKED_SIGNED, 1, NULL, &greedy, "x", 1);
}

/* Ways in which clients in the field write their trailers. */
static void test_trailer_dialects(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "2" EXT "\r\nhi\r\n0" EXT "\r\nx-amz-checksum-crc32c:wdBDMA==\n\r\nx-amz-trailer-signature:" SIG "\r\n\r\n",
        "2" EXT "\r\nhi\r\n0" EXT "\r\nX-Amz-Checksum-CRC32C: wdBDMA==\r\nX-Amz-Trailer-Signature: " SIG "\r\n\r\n",
        "2" EXT "\r\nhi\r\n0" EXT "\r\nx-amz-checksum-crc32c:wdBDMA==\r\nx-amz-trailer-signature:" SIG "\r\n",
        "2" EXT "\r\nhi\r\n0" EXT "\nx-amz-checksum-crc32c:wdBDMA==\nx-amz-trailer-signature:" SIG "\n\n",
    };
    static const char want[] = "2\r\nhi\r\n0\r\nx-amz-checksum-crc32c:wdBDMA==\r\n\r\n";
    for (size_t i = 0; i + 1 < ARRAY_LEN(bodies); i++) {
        struct source s;
        source_init(&s, bodies[i], strlen(bodies[i]));
        expect(&s, AWS_CHUNKED_SIGNED_TRAILER, 2, "x-amz-checksum-crc32c", &greedy, want, sizeof want - 1);
    }
    /* but a size line ends with CRLF */
    assert_int_equal(failure(bodies[3], AWS_CHUNKED_SIGNED_TRAILER, 2, "x-amz-checksum-crc32c", NULL), ERR_BAD_CHUNK);
}

static void test_several_trailers_keep_the_announced_order(void **state)
{
    (void)state;
    static const char in[] = "2\r\nhi\r\n0\r\nx-amz-checksum-sha256:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=\r\n"
                             "x-amz-checksum-crc64nvme:AAAAAAAAAAA=\r\n\r\n";
    static const char want[] = "2\r\nhi\r\n0\r\nx-amz-checksum-crc64nvme:AAAAAAAAAAA=\r\n"
                               "x-amz-checksum-sha256:LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564=\r\n\r\n";
    struct source s;
    source_init(&s, in, sizeof in - 1);
    expect(&s, AWS_CHUNKED_UNSIGNED_TRAILER, 2, "x-amz-checksum-crc64nvme, x-amz-checksum-sha256", &greedy, want,
           sizeof want - 1);
}

/* ---- big bodies: several output chunks, few input ones, and the other way round */

static char *big_input(size_t data_n, size_t chunk_n, const char *ending, size_t *n)
{
    struct strbuf b;
    strbuf_init(&b, 1 << 26);
    for (size_t at = 0; at < data_n; at += chunk_n) {
        size_t len = data_n - at < chunk_n ? data_n - at : chunk_n;
        strbuf_f(&b, "%zx" EXT "\r\n", len);
        for (size_t i = 0; i < len; i++) strbuf_ch(&b, (char)((at + i) * 2654435761u >> 13));
        strbuf_z(&b, "\r\n");
    }
    strbuf_z(&b, ending);
    assert_false(b.failed);
    *n = b.n;
    return b.p;
}

/* Takes the output's framing off again: fixed chunks, then the trailer. */
static void check_framed(struct str out, size_t data_n)
{
    size_t at = 0;
    while (at < data_n) {
        char header[32];
        size_t len = data_n - at < 0x100000 ? data_n - at : 0x100000;
        int h = snprintf(header, sizeof header, "%zx\r\n", len);
        assert_true(str_starts(out, str_make(header, (size_t)h)));
        out = str_make(out.p + h, out.n - (size_t)h);
        for (size_t i = 0; i < len; i++) assert_true(out.p[i] == (char)((at + i) * 2654435761u >> 13));
        out = str_make(out.p + len, out.n - len);
        assert_true(str_starts(out, STR_LIT("\r\n")));
        out = str_make(out.p + 2, out.n - 2);
        at += len;
    }
    assert_true(str_eq(out, STR_LIT("0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n")));
}

static void check_big(size_t data_n, size_t chunk_n, size_t piece)
{
    size_t n;
    struct source s;
    char *in = big_input(data_n, chunk_n,
                         "0" EXT "\r\nx-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:" SIG "\r\n\r\n", &n);
    source_init(&s, in, n);
    s.piece = piece;
    const struct consumer how = {8, 70000, false};
    struct outcome o = run(&s, AWS_CHUNKED_SIGNED_TRAILER, data_n, "x-amz-checksum-crc32", &how);
    assert_int_equal(o.end, ERR_END);
    assert_int_equal(o.length, o.bytes.n);
    check_framed(strbuf_get(&o.bytes), data_n);
    strbuf_free(&o.bytes);
    free(in);
}

static void test_big_bodies(void **state)
{
    (void)state;
    static const size_t sizes[] = {0xfffff, 0x100000, 0x100001, 0x200000, 0x2abcde};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        check_big(sizes[i], 65536, 16384);
        check_big(sizes[i], 0x400000, 99991);
        check_big(sizes[i], 1000, 65536);
    }
}

/* The promised length for sizes no test can send. */
static void test_length_of_enormous_bodies(void **state)
{
    (void)state;
    struct pool *pool = pool_create(1 << 16);
    struct source s;
    struct body *b;
    uint64_t tib5 = (uint64_t)5 << 40;
    source_init(&s, "", 0);
    assert_int_equal(
        aws_chunked_filter(&s.body, AWS_CHUNKED_UNSIGNED_TRAILER, tib5, STR_LIT("x-amz-checksum-crc32"), pool, &b),
        ERR_OK);
    assert_int_equal(b->length, tib5 + (tib5 >> 20) * 10 + 5 + 31);
    assert_int_equal(aws_chunked_filter(&s.body, AWS_CHUNKED_SIGNED, tib5, STR_LIT(""), pool, &b), ERR_OK);
    assert_int_equal(b->length, tib5);
    assert_int_equal(aws_chunked_filter(&s.body, AWS_CHUNKED_SIGNED, UINT64_MAX, STR_LIT(""), pool, &b),
                     ERR_BODY_TOO_LARGE);
    assert_int_equal(aws_chunked_filter(&s.body, AWS_CHUNKED_UNSIGNED_TRAILER, INT64_MAX, STR_LIT(""), pool, &b),
                     ERR_BODY_TOO_LARGE);
    pool_destroy(pool);
}

/* Holds are reused: memory does not grow with the body. */
static void test_memory_is_bounded(void **state)
{
    (void)state;
    size_t n;
    char *in = big_input(100000, 10, "0" EXT "\r\n\r\n", &n);
    struct source s;
    struct chunk c[4];
    struct body *b;
    struct pool *pool = pool_create(4096);
    unsigned got;
    size_t sum = 0;
    enum err e;
    source_init(&s, in, n);
    s.piece = 17;
    assert_int_equal(aws_chunked_filter(&s.body, AWS_CHUNKED_SIGNED, 100000, STR_LIT(""), pool, &b), ERR_OK);
    while ((e = body_pull(b, c, 4, 1000, &got)) == ERR_OK)
        for (unsigned i = 0; i < got; i++) {
            sum += c[i].len;
            chunk_release(&c[i], CHUNK_COPIED);
        }
    assert_int_equal(e, ERR_END);
    assert_int_equal(sum, 100000);
    body_close(b);
    pool_destroy(pool);
    free(in);
}

/* ---- bad input */

static void test_malformed_signed_bodies(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "",
        "\r\n",
        "5" EXT,
        "5" EXT "\r\nhello",
        "5" EXT "\r\nhello\r\n",             /* no last chunk */
        "5" EXT "\r\nhello\r\n0" EXT "\r\n", /* no end */
        "5" EXT "\r\nhello\r\n0" EXT "\r\n\r",
        "5" EXT "\r\nhello\r\n0" EXT "\r\n\r\nx", /* and on it goes */
        "5" EXT "\r\nhello\r\n0" EXT "\r\n\r\n0" EXT "\r\n\r\n",
        "4" EXT "\r\nhell\r\n0" EXT "\r\n\r\n", /* too little */
        "0" EXT "\r\n\r\n",
        "6" EXT "\r\nhello!\r\n0" EXT "\r\n\r\n", /* too much */
        "3" EXT "\r\nhel\r\n3" EXT "\r\nlo!\r\n0" EXT "\r\n\r\n",
        "5" EXT "\r\nhello\r\n1" EXT "\r\n!\r\n0" EXT "\r\n\r\n",
        "5" EXT "\r\nhello!\r\n0" EXT "\r\n\r\n", /* size and data disagree */
        "5" EXT "\r\nhello\n0" EXT "\r\n\r\n",
        "5" EXT "\r\nhello\r0" EXT "\r\n\r\n",
        "5" EXT "\nhello\r\n0" EXT "\r\n\r\n",
        "10000000000000005" EXT "\r\nhello\r\n0" EXT "\r\n\r\n", /* overflow */
        "ffffffffffffffff" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "-5" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "+5" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "0x5" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        " 5" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "5 " EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "g" EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        EXT "\r\nhello\r\n0" EXT "\r\n\r\n",
        "5;a\rb\r\nhello\r\n0" EXT "\r\n\r\n",
        "5;a\001b\r\nhello\r\n0" EXT "\r\n\r\n",
        "5" EXT "\r\nhello\r\n0" EXT "\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n", /* a trailer where none belongs */
        "hello",
    };
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        size_t got;
        enum err e = failure(bodies[i], AWS_CHUNKED_SIGNED, 5, NULL, &got);
        if (e != ERR_BAD_CHUNK) fail_msg("%s: %s", bodies[i], err_name(e));
        assert_true(got < 5); /* never whole: the origin must not take it for an object */
    }
}

static void test_malformed_trailers(void **state)
{
    (void)state;
#define BEGIN "2" EXT "\r\nhi\r\n0" EXT "\r\n"
#define CRC "x-amz-checksum-crc32c:wdBDMA==\r\n"
#define END "x-amz-trailer-signature:" SIG "\r\n"
    static const char *const bodies[] = {
        BEGIN END "\r\n", /* the announced one is missing */
        BEGIN CRC "\r\n", /* the signature is */
        BEGIN CRC,
        BEGIN CRC CRC END "\r\n",
        BEGIN CRC END END "\r\n",
        BEGIN END CRC "\r\n",                                     /* behind the signature */
        BEGIN CRC "x-amz-checksum-crc32:AAAAAA==\r\n" END "\r\n", /* not announced */
        BEGIN CRC "x-other:1\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c:\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c:wdBDMA=\r\n" END "\r\n", /* no CRC32C is that long */
        BEGIN "x-amz-checksum-crc32c:wdBDMAAAA==\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c:wd\x01"
              "DMA==\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c:wd=DMA==\r\n" END "\r\n",
        BEGIN "x-amz-checksum-crc32c:wd\rDMA==\r\n" END "\r\n",
        BEGIN CRC END "\r\nx",
        BEGIN CRC END "\r\n\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        size_t got;
        enum err e = failure(bodies[i], AWS_CHUNKED_SIGNED_TRAILER, 2, "x-amz-checksum-crc32c", &got);
        if (e != ERR_BAD_CHUNK) fail_msg("%s: %s", bodies[i], err_name(e));
        assert_int_equal(got, strlen("2\r\nhi")); /* the last chunk has not been given */
    }
}

static void test_lines_without_end(void **state)
{
    (void)state;
    static char text[40000];
    memset(text, '0', sizeof text - 1);
    assert_int_equal(failure(text, AWS_CHUNKED_SIGNED, 5, NULL, NULL), ERR_BAD_CHUNK);
    text[1] = ';';
    assert_int_equal(failure(text, AWS_CHUNKED_SIGNED, 0, NULL, NULL), ERR_BAD_CHUNK);
    memcpy(text, "0\r\n", 3);
    for (size_t i = 3; i < sizeof text - 1; i++) text[i] = '\n';
    assert_int_equal(failure(text, AWS_CHUNKED_SIGNED_TRAILER, 0, "", NULL), ERR_BAD_CHUNK);
    memset(text + 3, 'x', sizeof text - 4);
    assert_int_equal(failure(text, AWS_CHUNKED_UNSIGNED_TRAILER, 0, "x-amz-checksum-crc32", NULL), ERR_BAD_CHUNK);
}

static void test_announced_trailers_are_checked(void **state)
{
    (void)state;
    assert_int_equal(failure("", AWS_CHUNKED_SIGNED_TRAILER, 0, "x-amz-meta-a", NULL), ERR_NOT_IMPLEMENTED);
    assert_int_equal(failure("", AWS_CHUNKED_SIGNED_TRAILER, 0, "x-amz-checksum-crc32,X-AMZ-CHECKSUM-CRC32", NULL),
                     ERR_BAD_REQUEST);
    assert_int_equal(failure("", AWS_CHUNKED_SIGNED_TRAILER, 0,
                             "x-amz-checksum-crc32,x-amz-checksum-crc32c,x-amz-checksum-crc64nvme,x-amz-checksum-sha1,"
                             "x-amz-checksum-sha256,x-amz-checksum-sha512,x-amz-checksum-md5,x-amz-checksum-xxhash64,"
                             "x-amz-checksum-xxhash3",
                             NULL),
                     ERR_BAD_REQUEST);
}

static void test_errors_of_the_source_are_passed_on(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof SIGNED_BODY - 1; n++) {
        struct source s;
        source_init(&s, SIGNED_BODY, n);
        s.at_end = ERR_INCOMPLETE_BODY;
        struct outcome o = run(&s, AWS_CHUNKED_SIGNED, DATA_N, NULL, &greedy);
        assert_int_equal(o.end, ERR_INCOMPLETE_BODY);
        assert_true(o.bytes.n < DATA_N);
        strbuf_free(&o.bytes);
    }
    /* even behind the last byte: only a clean end completes the upload */
    struct source s;
    source_init(&s, SIGNED_BODY, sizeof SIGNED_BODY - 1);
    s.at_end = ERR_CLOSED;
    struct outcome o = run(&s, AWS_CHUNKED_SIGNED, DATA_N, NULL, &greedy);
    assert_int_equal(o.end, ERR_CLOSED);
    assert_int_equal(o.bytes.n, DATA_N - 1);
    strbuf_free(&o.bytes);
}

/* ---- protocol between consumer and source */

static void count_notify(void *arg) { ++*(unsigned *)arg; }

static void test_backpressure_and_notification(void **state)
{
    (void)state;
    struct source s;
    struct body *b;
    struct chunk c[4];
    struct pool *pool = pool_create(1 << 16);
    unsigned n, notified = 0;
    source_init(&s, SIGNED_BODY, sizeof SIGNED_BODY - 1);
    s.again_between = true;
    assert_int_equal(aws_chunked_filter(&s.body, AWS_CHUNKED_SIGNED, DATA_N, STR_LIT(""), pool, &b), ERR_OK);
    b->notify = count_notify;
    b->notify_arg = &notified;
    assert_int_equal(body_pull(b, c, 4, 100, &n), ERR_AGAIN);
    assert_int_equal(n, 0);
    body_notify(&s.body); /* what the source says goes on to the consumer */
    assert_int_equal(notified, 1);
    /* a small appetite: the source is asked once, the rest of its piece waits */
    assert_int_equal(body_pull(b, c, 4, 3, &n), ERR_OK);
    assert_int_equal(n, 1);
    assert_int_equal(c[0].len, 3);
    assert_int_equal(s.held, 1);
    chunk_release(&c[0], CHUNK_COPIED);
    assert_int_equal(s.held, 1);
    assert_int_equal(body_pull(b, c, 1, 100, &n), ERR_OK);
    assert_int_equal(c[0].len, 2);
    assert_int_equal(s.again_count, 1);
    /* closing in the middle: what was given stays valid */
    body_close(b);
    assert_true(s.closed);
    assert_int_equal(s.held, 1);
    assert_memory_equal(c[0].data, "lo", 2);
    chunk_release(&c[0], CHUNK_UNPROVEN);
    assert_int_equal(s.held, 0);
    assert_true(s.unproven);
    pool_destroy(pool);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    bool whole = false;
    for (size_t max = 0; max < 4096 && !whole; max += 64) {
        struct source s;
        struct body *b;
        struct chunk c[16];
        unsigned n;
        struct pool *pool = pool_create(max);
        source_init(&s, TRAILER_BODY, sizeof TRAILER_BODY - 1);
        enum err e =
            aws_chunked_filter(&s.body, AWS_CHUNKED_SIGNED_TRAILER, DATA_N, STR_LIT("x-amz-checksum-crc32c"), pool, &b);
        if (!e) {
            while ((e = body_pull(b, c, 16, 1000, &n)) == ERR_OK)
                for (unsigned i = 0; i < n; i++) chunk_release(&c[i], CHUNK_COPIED);
            body_close(b);
        }
        assert_true(e == ERR_NOMEM || e == ERR_END);
        assert_int_equal(s.held, 0);
        whole = e == ERR_END;
        pool_destroy(pool);
    }
    assert_true(whole);
}

static void test_kinds(void **state)
{
    (void)state;
    static const struct {
        const char *hash;
        enum aws_chunked_kind kind;
    } rows[] = {
        {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", AWS_CHUNKED_SIGNED},
        {"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", AWS_CHUNKED_SIGNED},
        {"STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER", AWS_CHUNKED_SIGNED_TRAILER},
        {"STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER", AWS_CHUNKED_SIGNED_TRAILER},
        {"STREAMING-UNSIGNED-PAYLOAD-TRAILER", AWS_CHUNKED_UNSIGNED_TRAILER},
        {"UNSIGNED-PAYLOAD", AWS_CHUNKED_NONE},
        {"STREAMING-", AWS_CHUNKED_NONE},
        {"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", AWS_CHUNKED_NONE},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct hdr h = {STR_LIT("x-amz-content-sha256"), str_c(rows[i].hash), HDR_AMZ_CONTENT_SHA256};
        const struct head req = {.hdrs = &h, .nhdrs = 1};
        assert_int_equal(aws_chunked_kind_of(&req), rows[i].kind);
    }
    const struct head none = {0};
    assert_int_equal(aws_chunked_kind_of(&none), AWS_CHUNKED_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_every_appetite),
        cmocka_unit_test(test_empty_bodies),
        cmocka_unit_test(test_trailer_dialects),
        cmocka_unit_test(test_several_trailers_keep_the_announced_order),
        cmocka_unit_test(test_big_bodies),
        cmocka_unit_test(test_length_of_enormous_bodies),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_malformed_signed_bodies),
        cmocka_unit_test(test_malformed_trailers),
        cmocka_unit_test(test_lines_without_end),
        cmocka_unit_test(test_announced_trailers_are_checked),
        cmocka_unit_test(test_errors_of_the_source_are_passed_on),
        cmocka_unit_test(test_backpressure_and_notification),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_kinds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
