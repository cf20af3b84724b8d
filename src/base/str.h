/* str.h - byte slices that own nothing, and a growable buffer with a bound. */
#ifndef S3P_BASE_STR_H
#define S3P_BASE_STR_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

struct str {
    const char *p; /* not NUL-terminated; NULL only when n == 0 */
    size_t n;
};

#define STR_LIT(s) ((struct str){(s), sizeof(s) - 1})
#define STR_FMT "%.*s"
#define STR_ARG(s) (int)(s).n, (s).p ? (s).p : ""

static inline struct str str_make(const char *p, size_t n) { return (struct str){p, n}; }
static inline struct str str_c(const char *z) { return (struct str){z, z ? strlen(z) : 0}; }
static inline bool str_eq(struct str a, struct str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }
bool str_eq_ci(struct str a, struct str b); /* ASCII case only */
bool str_starts(struct str s, struct str prefix);
struct str str_trim(struct str s); /* SP and HTAB at both ends (RFC 9110 OWS) */
/* Splits off what stands before the first `sep`; false when `rest` is exhausted (rest->p == NULL). */
bool str_split(struct str *rest, char sep, struct str *out);
bool str_to_u64(struct str s, uint64_t *out);     /* 1*DIGIT, overflow-checked, nothing else */
bool str_hex_to_u64(struct str s, uint64_t *out); /* 1*HEXDIG, overflow-checked */
/* Position of c, or s.n. */
size_t str_find(struct str s, char c);
/* malloc'ed NUL-terminated copy, NULL when out of memory; the caller frees. */
char *str_dup(struct str s);

/* A growable byte buffer. `failed` sticks when memory or the bound ran out: check once at the end. */
struct strbuf {
    char *p;
    size_t n, cap, max; /* max: bound in bytes; 0 = 16 MiB */
    bool failed;
};
void strbuf_init(struct strbuf *b, size_t max);
void strbuf_free(struct strbuf *b);
void strbuf_add(struct strbuf *b, const void *p, size_t n);
void strbuf_str(struct strbuf *b, struct str s);
void strbuf_z(struct strbuf *b, const char *z);
void strbuf_ch(struct strbuf *b, char c);
void strbuf_u64(struct strbuf *b, uint64_t v);
void strbuf_f(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline struct str strbuf_get(const struct strbuf *b) { return (struct str){b->p, b->n}; }

/* Decimal digits of v into buf (at least 20 bytes); returns the length. No NUL. */
size_t u64_to_dec(uint64_t v, char *buf);

#endif
