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

/* Never longer than it was. */
static struct str unescaped(struct pool *pool, struct str s)
{
    char *text = pool_alloc(pool, s.n + 1), *w = text;

    if (!text) return (struct str){NULL, 0};
    for (size_t i = 0; i < s.n; i++) {
        size_t end = s.p[i] == '&' ? str_find(str_make(s.p + i, s.n - i), ';') : 0;
        size_t put = end > 1 && i + end < s.n ? entity(s.p + i + 1, end - 1, w) : 0;
        if (!put) {
            *w++ = s.p[i];
            continue;
        }
        w += put;
        i += end;
    }
    return str_make(text, (size_t)(w - text));
}

/* An element's text, decoded; {NULL, 0}: memory ran out. One that is not there is empty. */
static struct str text_of(struct pool *pool, struct str item, const char *name)
{
    struct str t = element(&item, name);
    return t.p ? unescaped(pool, t) : str_make("", 0);
}

/* Some write spaces as forms do; a plus sign itself is always encoded. */
static struct str url_decoded(struct pool *pool, struct str k)
{
    for (size_t i = 0; i < k.n; i++)
        if (k.p[i] == '+') ((char *)(uintptr_t)k.p)[i] = ' ';
    return uri_decode(pool, k);
}

static bool escapes_are_whole(struct str k)
{
    uint64_t v;
    for (size_t i = 0; i < k.n; i++)
        if (k.p[i] == '%' && (i + 2 >= k.n || !str_hex_to_u64(str_make(k.p + i + 1, 2), &v))) return false;
    return true;
}

static enum err entry_read(struct pool *pool, struct str item, bool encoded, struct listing_entry *e)
{
    const char *name = e->is_prefix ? "Prefix" : "Key";
    struct str part = item, size, raw = element(&part, name);

    if (!raw.p) return ERR_PROTOCOL;
    e->key = unescaped(pool, raw);
    if (!e->key.p) return ERR_NOMEM;
    if (encoded && !escapes_are_whole(e->key)) return ERR_PROTOCOL;
    if (encoded) e->key = url_decoded(pool, e->key);
    if (!e->key.p) return ERR_NOMEM;
    if (e->is_prefix) return ERR_OK;
    size = text_of(pool, item, "Size");
    e->etag = text_of(pool, item, "ETag");
    e->modified = text_of(pool, item, "LastModified");
    e->storage_class = text_of(pool, item, "StorageClass");
    if (!size.p || !e->etag.p || !e->modified.p || !e->storage_class.p) return ERR_NOMEM;
    return size.n == 0 || str_to_u64(size, &e->size) ? ERR_OK : ERR_PROTOCOL;
}

struct entries {
    struct pool *pool;
    bool encoded;
    bool (*entry)(void *arg, const struct listing_entry *e);
    void *arg;
};

static enum err entries_parse(const struct entries *w, struct str page, const char *name)
{
    bool is_prefix = strcmp(name, "CommonPrefixes") == 0;
    struct str item;

    while ((item = element(&page, name)).p) {
        struct listing_entry e = {.is_prefix = is_prefix};
        enum err why = entry_read(w->pool, item, w->encoded, &e);
        if (why != ERR_OK) return why;
        if (!w->entry(w->arg, &e)) return ERR_NOMEM;
        pool_reset(w->pool);
    }
    return ERR_OK;
}

static bool is_document(struct str document, const char *root)
{
    char open[64], close[64];
    int n = snprintf(open, sizeof open, "<%s", root), m = snprintf(close, sizeof close, "</%s>", root);
    return document.n && memmem(document.p, document.n, open, (size_t)n) && memmem(document.p, document.n, close, (size_t)m);
}

/* What leads to the next page. */
static enum err token_read(struct str document, char **token)
{
    struct str part = document, truncated = element(&part, "IsTruncated");

    if (!str_eq(truncated, STR_LIT("true"))) return ERR_OK;
    part = document;
    if (!element(&part, "NextContinuationToken").n) return ERR_PROTOCOL; /* there is more, and no way to it */
    *token = listing_text(document, "NextContinuationToken");
    return *token ? ERR_OK : ERR_NOMEM;
}

enum err listing_entries(struct str document, bool (*entry)(void *arg, const struct listing_entry *e), void *arg, char **token)
{
    struct str part = document;
    struct entries w = {.pool = pool_create(SIZE_MAX / 2), .entry = entry, .arg = arg};
    enum err e = is_document(document, "ListBucketResult") ? ERR_OK : ERR_PROTOCOL;

    *token = NULL;
    if (!w.pool) return ERR_NOMEM;
    w.encoded = str_eq(element(&part, "EncodingType"), STR_LIT("url"));
    if (e == ERR_OK) e = entries_parse(&w, document, "Contents");
    if (e == ERR_OK) e = entries_parse(&w, document, "CommonPrefixes");
    pool_destroy(w.pool);
    return e == ERR_OK ? token_read(document, token) : e;
}

struct keys {
    bool (*key)(void *arg, struct str key);
    void *arg;
};

static bool keys_entry(void *arg, const struct listing_entry *e)
{
    const struct keys *k = arg;
    return e->is_prefix || k->key(k->arg, e->key);
}

enum err listing_parse(struct str document, bool (*key)(void *arg, struct str key), void *arg, char **token)
{
    struct keys k = {key, arg};
    return listing_entries(document, keys_entry, &k, token);
}

enum err listing_buckets(struct str document, bool (*bucket)(void *arg, struct str name, struct str created), void *arg)
{
    struct str rest = document, item;
    struct pool *pool = pool_create(SIZE_MAX / 2);
    enum err e = is_document(document, "ListAllMyBucketsResult") ? ERR_OK : ERR_PROTOCOL;

    if (!pool) return ERR_NOMEM;
    while (e == ERR_OK && (item = element(&rest, "Bucket")).p) {
        struct str name = text_of(pool, item, "Name"), created = text_of(pool, item, "CreationDate");
        if (!name.p || !created.p || !bucket(arg, name, created)) e = ERR_NOMEM;
        pool_reset(pool);
    }
    pool_destroy(pool);
    return e;
}

enum err listing_deleted(struct str document, bool (*failed)(void *arg, struct str key, struct str code, struct str message),
                         void *arg)
{
    struct str rest = document, item;
    struct pool *pool = pool_create(SIZE_MAX / 2);
    enum err e = is_document(document, "DeleteResult") ? ERR_OK : ERR_PROTOCOL;

    if (!pool) return ERR_NOMEM;
    while (e == ERR_OK && (item = element(&rest, "Error")).p) {
        struct str key = text_of(pool, item, "Key"), code = text_of(pool, item, "Code"), message = text_of(pool, item, "Message");
        if (!key.p || !code.p || !message.p || !failed(arg, key, code, message)) e = ERR_NOMEM;
        pool_reset(pool);
    }
    pool_destroy(pool);
    return e;
}

char *listing_text(struct str document, const char *name)
{
    struct str t = element(&document, name);
    struct pool *pool = t.p ? pool_create(SIZE_MAX / 2) : NULL;
    struct str text = pool ? unescaped(pool, t) : (struct str){NULL, 0};
    char *copy = text.p ? strndup(text.p, text.n) : NULL;

    pool_destroy(pool);
    return copy;
}
