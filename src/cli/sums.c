/* sums.c - see the header.
 *
 * CRCs are the reflected kind. CRC-32C uses the processor's instruction where there is one, three runs at a time to hide its
 * latency. The others fold 64 bytes at a time by carry-less multiplication (Gopal et al., "Fast CRC Computation for Generic
 * Polynomials Using PCLMULQDQ Instruction", Intel 2009), down to 16, which go by tables, eight bytes at a time, as everything
 * does on other processors. Joining two CRCs multiplies the first by x^(8n) modulo the polynomial. */
#include "cli/sums.h"

#include <endian.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#endif

#define POLY_CRC32 0xedb88320u
#define POLY_CRC32C 0x82f63b78u
#define POLY_CRC64NVME 0x9a6c9329ac4bc9b5u
#define RUN_BYTES ((size_t)4096) /* of three that go side by side */

enum { TABLE_CRC32, TABLE_CRC32C, TABLE_CRC64NVME, TABLES };
static uint64_t tables[TABLES][8][256];
static uint32_t run_shift[4][256]; /* CRC-32C moved over RUN_BYTES zeros */
#if defined(__x86_64__)
static bool has_crc32c, has_clmul;
#endif
/* For folding over 512 bits and over 128: x^(64+D-1), x^(D-1); a product of reflected halves comes out times x. */
static uint64_t folds[TABLES][2][2];
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

/* ---- polynomials modulo P, reflected: the highest bit is x^0 */

static uint64_t poly_times(uint64_t a, uint64_t b, uint64_t poly, unsigned bits)
{
    uint64_t out = 0, top = 1ull << (bits - 1);

    for (uint64_t m = top; m; m >>= 1) {
        if (a & m) out ^= b;
        b = b & 1 ? b >> 1 ^ poly : b >> 1;
    }
    return out;
}

/* x^n */
static uint64_t poly_xn(uint64_t n, uint64_t poly, unsigned bits)
{
    uint64_t out = 1ull << (bits - 1), square = 1ull << (bits - 2); /* x^0, x^1 */

    for (; n; n >>= 1) {
        if (n & 1) out = poly_times(out, square, poly, bits);
        square = poly_times(square, square, poly, bits);
    }
    return out;
}

static uint64_t poly_x8n(uint64_t n, uint64_t poly, unsigned bits) { return poly_xn(8 * n, poly, bits); }

static void table_make(uint64_t t[8][256], uint64_t poly)
{
    for (unsigned i = 0; i < 256; i++) {
        uint64_t c = i;
        for (unsigned k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ poly : c >> 1;
        t[0][i] = c;
    }
    for (unsigned i = 0; i < 256; i++)
        for (unsigned k = 1; k < 8; k++) t[k][i] = t[k - 1][i] >> 8 ^ t[0][t[k - 1][i] & 0xff];
}

static void folds_make(uint64_t k[2][2], uint64_t poly, unsigned bits)
{
    static const unsigned over[2] = {512, 128};

    for (unsigned i = 0; i < 2; i++) {
        k[i][0] = poly_xn(64 + over[i] - 1, poly, bits) << (64 - bits);
        k[i][1] = poly_xn(over[i] - 1, poly, bits) << (64 - bits);
    }
}

static void tables_make(void)
{
    uint64_t shift = poly_x8n(RUN_BYTES, POLY_CRC32C, 32);

    table_make(tables[TABLE_CRC32], POLY_CRC32);
    table_make(tables[TABLE_CRC32C], POLY_CRC32C);
    table_make(tables[TABLE_CRC64NVME], POLY_CRC64NVME);
    for (unsigned k = 0; k < 4; k++)
        for (uint64_t i = 0; i < 256; i++) run_shift[k][i] = (uint32_t)poly_times(shift, i << 8 * k, POLY_CRC32C, 32);
#if defined(__x86_64__)
    has_crc32c = __builtin_cpu_supports("sse4.2");
    has_clmul = __builtin_cpu_supports("pclmul") && has_crc32c;
#endif
    folds_make(folds[TABLE_CRC32], POLY_CRC32, 32);
    folds_make(folds[TABLE_CRC64NVME], POLY_CRC64NVME, 64);
}

static uint64_t load8(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static uint64_t crc_by_table(uint64_t t[8][256], uint64_t crc, const uint8_t *p, size_t n)
{
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = load8(p) ^ crc;
        crc = 0;
        for (unsigned k = 0; k < 8; k++) crc ^= t[7 - k][v >> 8 * k & 0xff];
    }
    for (; n; n--) crc = crc >> 8 ^ t[0][(crc ^ *p++) & 0xff];
    return crc;
}

#if defined(__x86_64__)
__attribute__((target("pclmul,sse4.2"))) static __m128i fold(__m128i x, __m128i k, __m128i next)
{
    __m128i both = _mm_xor_si128(_mm_clmulepi64_si128(x, k, 0x00), _mm_clmulepi64_si128(x, k, 0x11));
    return _mm_xor_si128(both, next);
}

static __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }

/* n >= 64 */
__attribute__((target("pclmul,sse4.2"))) static uint64_t crc_by_folding(unsigned table, uint64_t crc, const uint8_t *p, size_t n)
{
    const __m128i far = load16((const uint8_t *)folds[table][0]), near = load16((const uint8_t *)folds[table][1]);
    __m128i a[4];
    uint8_t rest[16];

    for (unsigned i = 0; i < 4; i++) a[i] = load16(p + 16 * i);
    a[0] = _mm_xor_si128(a[0], _mm_set_epi64x(0, (long long)crc));
    for (p += 64, n -= 64; n >= 64; p += 64, n -= 64)
        for (unsigned i = 0; i < 4; i++) a[i] = fold(a[i], far, load16(p + 16 * i));
    for (unsigned i = 1; i < 4; i++) a[0] = fold(a[0], near, a[i]);
    _mm_storeu_si128((__m128i *)(void *)rest, a[0]);
    return crc_by_table(tables[table], crc_by_table(tables[table], 0, rest, sizeof rest), p, n);
}

static uint32_t run_skip(uint32_t crc)
{
    return run_shift[0][crc & 0xff] ^ run_shift[1][crc >> 8 & 0xff] ^ run_shift[2][crc >> 16 & 0xff] ^ run_shift[3][crc >> 24];
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_by_cpu(uint32_t crc, const uint8_t *p, size_t n)
{
    uint64_t a = crc, b, c;

    for (; n >= 3 * RUN_BYTES; p += 3 * RUN_BYTES, n -= 3 * RUN_BYTES) {
        b = c = 0;
        for (size_t i = 0; i < RUN_BYTES; i += 8) {
            a = _mm_crc32_u64(a, load8(p + i));
            b = _mm_crc32_u64(b, load8(p + RUN_BYTES + i));
            c = _mm_crc32_u64(c, load8(p + 2 * RUN_BYTES + i));
        }
        a = run_skip((uint32_t)a) ^ b;
        a = run_skip((uint32_t)a) ^ c;
    }
    for (; n >= 8; p += 8, n -= 8) a = _mm_crc32_u64(a, load8(p));
    for (; n; n--) a = _mm_crc32_u8((uint32_t)a, *p++);
    return (uint32_t)a;
}
#endif

uint32_t sum_crc32c(uint32_t crc, const void *p, size_t n)
{
    pthread_once(&tables_once, tables_make);
#if defined(__x86_64__)
    if (has_crc32c) return ~crc32c_by_cpu(~crc, p, n);
#endif
    return (uint32_t)~crc_by_table(tables[TABLE_CRC32C], ~crc, p, n);
}

uint32_t sum_crc32c_join(uint32_t first, uint32_t second, uint64_t second_bytes)
{
    return (uint32_t)sum_crc_moved(SUM_CRC32C, first, second_bytes) ^ second;
}

static uint64_t crc_any(unsigned table, uint64_t crc, const uint8_t *p, size_t n)
{
#if defined(__x86_64__)
    if (has_clmul && n >= 128) return crc_by_folding(table, crc, p, n);
#endif
    return crc_by_table(tables[table], crc, p, n);
}

/* ---- sums of any kind */

static const struct {
    const char *name;
    struct str header;
    size_t bytes;
} kinds[] = {
    [SUM_NONE] = {"none", {NULL, 0}, 0},
#define X(kind, header, bytes) [SUM_##kind] = {#kind, {header, sizeof header - 1}, bytes},
    SUM_TABLE(X)
#undef X
};

const char *sum_name(enum sum_kind kind) { return kinds[kind].name; }
struct str sum_header(enum sum_kind kind) { return kinds[kind].header; }
size_t sum_bytes(enum sum_kind kind) { return kinds[kind].bytes; }

bool sum_begin(struct sum *s, enum sum_kind kind)
{
    *s = (struct sum){.kind = kind};
    pthread_once(&tables_once, tables_make);
    if (kind != SUM_MD5 && kind != SUM_SHA1 && kind != SUM_SHA256) return true;
    s->digest = EVP_MD_CTX_new();
    const EVP_MD *md = kind == SUM_MD5 ? EVP_md5() : kind == SUM_SHA1 ? EVP_sha1() : EVP_sha256();
    if (s->digest && EVP_DigestInit_ex(s->digest, md, NULL) == 1) return true;
    sum_drop(s);
    return false;
}

void sum_add(struct sum *s, const void *p, size_t n)
{
    switch (s->kind) {
    case SUM_NONE: break;
    case SUM_CRC32C: s->crc = sum_crc32c((uint32_t)s->crc, p, n); break;
    case SUM_CRC32: s->crc = (uint32_t)~crc_any(TABLE_CRC32, (uint32_t)~s->crc, p, n); break;
    case SUM_CRC64NVME: s->crc = ~crc_any(TABLE_CRC64NVME, ~s->crc, p, n); break;
    default: EVP_DigestUpdate(s->digest, p, n); break;
    }
}

bool sum_is_crc(enum sum_kind kind) { return kind == SUM_CRC32C || kind == SUM_CRC64NVME || kind == SUM_CRC32; }

uint64_t sum_crc_moved(enum sum_kind kind, uint64_t crc, uint64_t bytes_behind)
{
    uint64_t poly = kind == SUM_CRC32C ? POLY_CRC32C : kind == SUM_CRC32 ? POLY_CRC32 : POLY_CRC64NVME;
    unsigned bits = kind == SUM_CRC64NVME ? 64 : 32;

    return poly_times(poly_x8n(bytes_behind, poly, bits), crc, poly, bits);
}

void sum_of_crc(enum sum_kind kind, uint64_t crc, struct sum_value *out)
{
    size_t n = sum_bytes(kind);

    *out = (struct sum_value){.kind = kind};
    for (size_t i = 0; i < n; i++) out->bytes[i] = (uint8_t)(crc >> 8 * (n - 1 - i));
}

void sum_end(struct sum *s, struct sum_value *out)
{
    if (s->digest) {
        *out = (struct sum_value){.kind = s->kind};
        EVP_DigestFinal_ex(s->digest, out->bytes, NULL);
    } else {
        sum_of_crc(s->kind, s->crc, out);
    }
    sum_drop(s);
}

void sum_drop(struct sum *s)
{
    EVP_MD_CTX_free(s->digest);
    *s = (struct sum){.kind = SUM_NONE};
}

bool sum_equal(const struct sum_value *a, const struct sum_value *b)
{
    return a->kind == b->kind && memcmp(a->bytes, b->bytes, sum_bytes(a->kind)) == 0;
}

/* ---- as text */

char *sum_base64(const struct sum_value *v, char *buf)
{
    EVP_EncodeBlock((unsigned char *)buf, v->bytes, (int)sum_bytes(v->kind));
    return buf;
}

static bool read_base64(struct str text, enum sum_kind kind, struct sum_value *out)
{
    uint8_t raw[64];
    size_t want = sum_bytes(kind);

    /* "value-N" is the checksum of checksums of parts */
    if (text.n != (want + 2) / 3 * 4 || text.n > 44) return false;
    if (EVP_DecodeBlock(raw, (const unsigned char *)text.p, (int)text.n) < (int)want) return false;
    out->kind = kind;
    memcpy(out->bytes, raw, want);
    return true;
}

void sum_of_etag(struct str etag, struct sum_value *out)
{
    *out = (struct sum_value){.kind = SUM_NONE};
    if (etag.n != 34 || etag.p[0] != '"' || etag.p[33] != '"') return;
    for (size_t i = 0; i < 16; i++) {
        uint64_t v;
        if (!str_hex_to_u64(str_make(etag.p + 1 + 2 * i, 2), &v)) return;
        out->bytes[i] = (uint8_t)v;
    }
    out->kind = SUM_MD5;
}

static bool is_secret(const struct head *h)
{
    const struct hdr *sse = head_find_name(h, STR_LIT("x-amz-server-side-encryption"));

    if (head_find_name(h, STR_LIT("x-amz-server-side-encryption-customer-algorithm"))) return true;
    return sse && str_starts(sse->value, STR_LIT("aws:kms"));
}

/* "...-3": uploaded in parts. */
static bool is_of_parts(struct str etag)
{
    size_t dash = str_find(etag, '-');
    return dash < etag.n && dash > 1;
}

/* A checksum that may be of the parts' checksums, and not of the bytes: some stores do not say which it is. */
static bool is_doubtful(const struct head *h, enum sum_kind kind)
{
    const struct hdr *type = head_find_name(h, STR_LIT("x-amz-checksum-type"));

    if (type) return !str_eq_ci(type->value, STR_LIT("FULL_OBJECT"));
    return kind != SUM_CRC64NVME && is_of_parts(head_value(h, HDR_ETAG));
}

void sum_expected(const struct head *h, struct sum_value *out)
{
    *out = (struct sum_value){.kind = SUM_NONE};
    for (enum sum_kind k = SUM_CRC32C; k <= SUM_SHA256; k++) {
        const struct hdr *f = head_find_name(h, sum_header(k));
        if (f && !is_doubtful(h, k) && read_base64(f->value, k, out)) return;
    }
    if (!is_secret(h)) sum_of_etag(head_value(h, HDR_ETAG), out);
}
