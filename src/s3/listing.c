/* listing.c - see the header. Reads the text as S3 and those like it write it: no comments or CDATA inside of what matters. */
#include "s3/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/uri.h"

/* What is between <name> and </name>, from *rest on, which moves behind it; {NULL, 0}: there is none any more. */
static struct str element(struct str *rest, const char *name)
{
    char open[64], close[64];
    int n = snprintf(open, sizeof open, "<%s>", name), m = snprintf(close, sizeof close, "</%s>", name);
    const char *a = rest->n ? memmem(rest->p, rest->n, open, (size_t)n) : NULL;
    const char *from = a ? a + n : NULL, *end = rest->p + rest->n;
    const char *b = from ? memmem(from, (size_t)(end - from), close, (size_t)m) : NULL;

    if (!b) return (struct str){NULL, 0};
    *rest = str_make(b + m, (size_t)(end - (b + m)));
    return str_make(from, (size_t)(b - from));
}

static size_t utf8_put(char *w, unsigned long c)
{
    if (c < 0x80) return w[0] = (char)c, 1;
    if (c < 0x800) return w[0] = (char)(0xc0 | c >> 6), w[1] = (char)(0x80 | (c & 0x3f)), 2;
    if (c < 0x10000)
        return w[0] = (char)(0xe0 | c >> 12), w[1] = (char)(0x80 | (c >> 6 & 0x3f)), w[2] = (char)(0x80 | (c & 0x3f)), 3;
    w[0] = (char)(0xf0 | c >> 18);
    w[1] = (char)(0x80 | (c >> 12 & 0x3f));
    w[2] = (char)(0x80 | (c >> 6 & 0x3f));
    w[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

/* One entity at p (behind the '&', up to the ';'); 0: it is none. */
static size_t entity(const char *p, size_t n, char *w)
{
    static const struct {
        const char *name;
        char c;
    } known[] = {{"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};
    char number[12], *end;

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (n == strlen(known[i].name) && memcmp(p, known[i].name, n) == 0) return w[0] = known[i].c, 1;
    if (n < 2 || p[0] != '#' || n >= sizeof number) return 0;
    bool hex = p[1] == 'x';
    memcpy(number, p + 1 + hex, n - 1 - hex);
    number[n - 1 - hex] = '\0';
    unsigned long c = strtoul(number, &end, hex ? 16 : 10);
    return *end || end == number || c == 0 || c > 0x10ffff ? 0 : utf8_put(w, c);
}

#define ENTITY_MAX 10u /* "&#x10ffff;" */

/* Of what begins with '&', up to the ';'; 0: that is no entity. */
static size_t entity_end(struct str s)
{
    size_t end = str_find(str_make(s.p, s.n < ENTITY_MAX ? s.n : ENTITY_MAX), ';');
    return end < s.n && s.p[end] == ';' ? end : 0;
}

/* Never longer than it was. */
static struct str unescaped(struct pool *pool, struct str s)
{
    char *text = pool_alloc(pool, s.n + 1), *w = text;

    if (!text) return (struct str){NULL, 0};
    for (size_t i = 0; i < s.n; i++) {
        size_t end = s.p[i] == '&' ? entity_end(str_make(s.p + i, s.n - i)) : 0;
        size_t put = end > 1 ? entity(s.p + i + 1, end - 1, w) : 0;
        if (!put) {
            *w++ = s.p[i];
            continue;
        }
        w += put;
        i += end;
    }
    return str_make(text, (size_t)(w - text));
}

static enum err keys_parse(struct pool *pool, struct str page, bool encoded, bool (*key)(void *arg, struct str key), void *arg)
{
    struct str item;

    while ((item = element(&page, "Contents")).p) {
        struct str k = element(&item, "Key");
        if (!k.p) return ERR_PROTOCOL;
        k = unescaped(pool, k);
        if (k.p && encoded) {
            /* Some write spaces as forms do; a plus sign itself is always encoded. */
            for (size_t i = 0; i < k.n; i++)
                if (k.p[i] == '+') ((char *)(uintptr_t)k.p)[i] = ' ';
            k = uri_decode(pool, k);
        }
        if (!k.p || !key(arg, k)) return ERR_NOMEM;
        pool_reset(pool);
    }
    return ERR_OK;
}

enum err listing_parse(struct str document, bool (*key)(void *arg, struct str key), void *arg, char **token)
{
    struct str rest = document, part = document, truncated, next;
    struct pool *pool = pool_create(SIZE_MAX / 2);

    *token = NULL;
    if (!pool) return ERR_NOMEM;
    bool is_listing = document.n && memmem(document.p, document.n, "<ListBucketResult", 17) &&
                      memmem(document.p, document.n, "</ListBucketResult>", 19);
    struct str encoding = element(&part, "EncodingType");
    enum err e = is_listing ? keys_parse(pool, rest, str_eq(encoding, STR_LIT("url")), key, arg) : ERR_PROTOCOL;
    part = document;
    truncated = element(&part, "IsTruncated");
    part = document;
    next = element(&part, "NextContinuationToken");
    if (e == ERR_OK && str_eq(truncated, STR_LIT("true"))) {
        struct str t = unescaped(pool, next);
        if (!next.n) e = ERR_PROTOCOL; /* there is more, and no way to it */
        else if (!t.p || !(*token = strndup(t.p, t.n))) e = ERR_NOMEM;
    }
    pool_destroy(pool);
    return e;
}
