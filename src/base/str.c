/* str.c - byte slices and the bounded growable buffer. */
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

#define STRBUF_MAX_DEFAULT ((size_t)16 << 20)
#define STRBUF_FIRST_BYTES 256

static unsigned char ascii_lower(char c)
{
    unsigned char u = (unsigned char)c;
    return u >= 'A' && u <= 'Z' ? (unsigned char)(u | 0x20) : u;
}

bool str_eq_ci(struct str a, struct str b)
{
    if (a.n != b.n) return false;
    for (size_t i = 0; i < a.n; i++)
        if (ascii_lower(a.p[i]) != ascii_lower(b.p[i])) return false;
    return true;
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && (prefix.n == 0 || memcmp(s.p, prefix.p, prefix.n) == 0);
}

static bool is_ows(char c)
{
    return c == ' ' || c == '\t';
}

struct str str_trim(struct str s)
{
    while (s.n && is_ows(s.p[0])) {
        s.p++;
        s.n--;
    }
    while (s.n && is_ows(s.p[s.n - 1])) s.n--;
    return s;
}

bool str_split(struct str *rest, char sep, struct str *out)
{
    if (!rest->p) return false;
    size_t at = str_find(*rest, sep);
    *out = str_make(rest->p, at);
    if (at == rest->n)
        *rest = str_make(NULL, 0);
    else
        *rest = str_make(rest->p + at + 1, rest->n - at - 1);
    return true;
}

bool str_to_u64(struct str s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0) return false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') return false;
        if (__builtin_mul_overflow(v, (uint64_t)10, &v)) return false;
        if (__builtin_add_overflow(v, (uint64_t)(s.p[i] - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bool str_hex_to_u64(struct str s, uint64_t *out)
{
    uint64_t v = 0;
    if (s.n == 0) return false;
    for (size_t i = 0; i < s.n; i++) {
        int d = hex_value(s.p[i]);
        if (d < 0 || v >> 60) return false;
        v = v << 4 | (unsigned)d;
    }
    *out = v;
    return true;
}

size_t str_find(struct str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? (size_t)(at - s.p) : s.n;
}

char *str_dup(struct str s)
{
    char *z = malloc(s.n + 1);
    if (!z) return NULL;
    if (s.n) memcpy(z, s.p, s.n);
    z[s.n] = '\0';
    return z;
}

/* ---- strbuf */

void strbuf_init(struct strbuf *b, size_t max)
{
    *b = (struct strbuf){.max = max ? max : STRBUF_MAX_DEFAULT};
}

void strbuf_free(struct strbuf *b)
{
    free(b->p);
    strbuf_init(b, b->max);
}

/* Room for n more bytes, or `failed`. */
static bool strbuf_reserve(struct strbuf *b, size_t n)
{
    if (b->failed) return false;
    if (n <= b->cap - b->n) return true;
    if (n > b->max - b->n) goto fail;

    size_t want = b->n + n;
    size_t cap = b->cap ? b->cap : STRBUF_FIRST_BYTES;
    while (cap < want) cap = cap > b->max / 2 ? b->max : cap * 2;
    if (cap > b->max) cap = b->max;
    char *p = realloc(b->p, cap);
    if (!p) goto fail;
    b->p = p;
    b->cap = cap;
    return true;
fail:
    b->failed = true;
    return false;
}

void strbuf_add(struct strbuf *b, const void *p, size_t n)
{
    if (n == 0 || !strbuf_reserve(b, n)) return;
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

void strbuf_str(struct strbuf *b, struct str s)
{
    strbuf_add(b, s.p, s.n);
}

void strbuf_z(struct strbuf *b, const char *z)
{
    strbuf_add(b, z, strlen(z));
}

void strbuf_ch(struct strbuf *b, char c)
{
    strbuf_add(b, &c, 1);
}

void strbuf_u64(struct strbuf *b, uint64_t v)
{
    char digits[20];
    strbuf_add(b, digits, u64_to_dec(v, digits));
}

void strbuf_f(struct strbuf *b, const char *fmt, ...)
{
    char small[512], *big = NULL;
    va_list ap;

    if (b->failed) return;
    va_start(ap, fmt);
    int n = vsnprintf(small, sizeof small, fmt, ap);
    va_end(ap);
    if (n < 0) goto fail;
    if ((size_t)n < sizeof small) {
        strbuf_add(b, small, (size_t)n);
        return;
    }
    if ((size_t)n > b->max - b->n) goto fail;
    big = malloc((size_t)n + 1);
    if (!big) goto fail;
    va_start(ap, fmt);
    n = vsnprintf(big, (size_t)n + 1, fmt, ap);
    va_end(ap);
    if (n >= 0) strbuf_add(b, big, (size_t)n);
    free(big);
    if (n >= 0) return;
fail:
    b->failed = true;
}

size_t u64_to_dec(uint64_t v, char *buf)
{
    char rev[20];
    size_t n = 0;
    do {
        rev[n++] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    for (size_t i = 0; i < n; i++) buf[i] = rev[n - 1 - i];
    return n;
}
