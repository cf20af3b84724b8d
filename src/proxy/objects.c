/* objects.c - what the caches hold, as JSON, a page at a time.
 *
 * Pages go through cache after cache, shard after shard, by the objects' names (cache/listing.c): a token says where to go
 * on. A page ends when it is full or when it has taken its time, so that no worker stands still for a large index; a short
 * page, even an empty one, is not the last as long as it names a next. */
#include <jansson.h>
#include <stdlib.h>

#include "proxy/proxy.h"

#define PAGE_NS 5000000u /* after so long no more is looked for */

struct place {
    unsigned cache, shard;
    uint64_t from; /* names of that shard, see cache_list */
};

struct page {
    struct proxy *proxy;
    json_t *list;
    uint64_t max;
    struct place at;
};

static void token_write(const struct place *at, char out[64])
{
    snprintf(out, 64, "%u.%u.%llx", at->cache, at->shard, (unsigned long long)at->from);
}

static bool token_read(struct str token, struct place *at)
{
    char text[64], again[64];
    unsigned long long from;
    int end = 0;

    *at = (struct place){0};
    if (token.n == 0) return true;
    if (token.n >= sizeof text) return false;
    memcpy(text, token.p, token.n);
    text[token.n] = '\0';
    if (sscanf(text, "%4u.%4u.%16llx%n", &at->cache, &at->shard, &from, &end) != 3 || (size_t)end != token.n) return false;
    at->from = from;
    token_write(at, again);
    return at->shard < cache_shards() && strcmp(text, again) == 0; /* sscanf is generous */
}

/* "/bucket/key" as the URI that the other endpoints take; a name that is no UTF-8 as a path with escapes. */
static json_t *uri_json(struct str path)
{
    struct strbuf b;
    json_t *v;

    strbuf_init(&b, 4 * path.n + 16);
    strbuf_z(&b, "s3:/");
    strbuf_str(&b, path);
    v = b.failed ? NULL : json_stringn(b.p, b.n);
    if (!v && !b.failed) {
        b.n = 0;
        for (size_t i = 0; i < path.n; i++) {
            unsigned char c = (unsigned char)path.p[i];
            if (c > 0x20 && c < 0x7f && c != '%' && c != '?' && c != '#') strbuf_ch(&b, (char)c);
            else strbuf_f(&b, "%%%02X", c);
        }
        v = b.failed ? NULL : json_stringn(b.p, b.n);
    }
    strbuf_free(&b);
    return v;
}

/* The path as it was asked for: the base folds what may or may not mean the same, marks tell how it was written
 * (source.c, key_decode). */
static struct str path_unfold(struct pool *pool, struct str path, struct str marks, bool http)
{
    if (marks.n == 0) return path;
    if (http) {
        struct str exact = uri_decode(pool, marks);
        return exact.p ? exact : path;
    }
    path = pool_str(pool, path);
    for (size_t i = 0, m = 0; path.p && i < path.n && m < marks.n; i++) {
        if (path.p[i] != ' ' && path.p[i] != '%') continue;
        if (marks.p[m] == 'r' || marks.p[m] == 'p') ((char *)(uintptr_t)path.p)[i] = '+';
        m++;
    }
    return path;
}

static bool is_http(const struct conf *c, struct str base)
{
    for (unsigned i = 0; i < c->norigins; i++)
        if (strcmp(c->origins[i].name, base.p) == 0) return c->origins[i].type == ORIGIN_HTTP;
    return false;
}

/* Of a variant (source.c, make_variant) the query, and the marks. */
static struct str variant_split(struct str variant, struct str *marks)
{
    size_t n = str_find(variant, '\n');
    *marks = n < variant.n ? str_make(variant.p + n + 1, variant.n - n - 1) : (struct str){NULL, 0};
    marks->n = str_find(*marks, '\n');
    return str_make(variant.p, n);
}

static bool page_add(struct page *g, struct object *o)
{
    const struct conf *c = g->proxy->conf;
    struct str marks, base = object_key_base(o), query = variant_split(object_key_variant(o), &marks);
    size_t origin = strnlen(base.p, base.n) + 1;
    uint64_t now = clock_ns() / 1000000, size = object_size(o), cached = object_cached_bytes(o);
    struct meta *m = object_meta(o);
    const struct repr *r = m ? repr_of(m) : NULL;
    uint64_t age = r ? r->initial_age_s + (now > r->received_ms ? (now - r->received_ms) / 1000 : 0) : 0;
    struct pool *pool = pool_create(SIZE_MAX / 2);
    json_t *uri = pool ? uri_json(path_unfold(pool, str_make(base.p + origin, base.n - origin), marks, is_http(c, base))) : NULL;
    pool_destroy(pool);
    json_t *item = json_pack("{sosIsIsfsIsbsbss%ss}", "uri", uri, "size",
                             (json_int_t)size, "cached", (json_int_t)cached, "fraction",
                             size ? (double)cached / (double)size : 1.0, "age_s", (json_int_t)age, "fresh",
                             r && now < r->fresh_until_ms, "pinned", object_pinned(o), "origin", base.p, origin - 1, "cache",
                             c->caches[g->at.cache].name);
    if (item && query.n) json_object_set_new(item, "query", json_stringn(query.p, query.n)); /* UTF-8, or not shown */
    meta_unref(m);
    return json_array_append_new(g->list, item) == 0;
}

/* Some of one shard, as far as there is room. */
static enum err page_shard(struct page *g, const struct str *prefixes, unsigned n)
{
    struct object **all;
    size_t count, room = (size_t)g->max - json_array_size(g->list);
    bool end;
    enum err e = cache_list(g->proxy->caches[g->at.cache], g->at.shard, prefixes, n, &g->at.from, room, &all, &count, &end);

    if (e != ERR_OK) return e;
    for (size_t i = 0; i < count && e == ERR_OK; i++)
        if (!page_add(g, all[i])) e = ERR_NOMEM;
    cache_list_free(all, count);
    if (end) g->at = (struct place){g->at.cache, g->at.shard + 1, 0};
    if (g->at.shard == cache_shards()) g->at = (struct place){g->at.cache + 1, 0, 0};
    return e;
}

static enum err page_fill(struct page *g, const struct str *prefixes, unsigned n)
{
    uint64_t began = clock_ns();
    enum err e = ERR_OK;

    while (e == ERR_OK && g->at.cache < g->proxy->conf->ncaches && json_array_size(g->list) < g->max &&
           clock_ns() - began < PAGE_NS)
        e = page_shard(g, prefixes, n);
    return e;
}

static json_t *token_json(const struct page *g)
{
    char text[64];

    if (g->at.cache >= g->proxy->conf->ncaches) return json_null();
    token_write(&g->at, text);
    return json_string(text);
}

static enum err prefixes_make(struct pool *pool, const struct conf *c, struct str path, struct str *out)
{
    struct str marks;
    for (unsigned i = 0; i < c->norigins; i++)
        if (key_make(pool, &c->origins[i], (struct str){NULL, 0}, path, &out[i], &marks) != ERR_OK) return ERR_NOMEM;
    return ERR_OK;
}

enum err objects_json(struct proxy *p, struct str path, uint64_t max, struct str after, char **json)
{
    struct page g = {.proxy = p, .max = max};
    struct pool *pool;
    enum err e = ERR_NOMEM;

    if (!token_read(after, &g.at) || max == 0) return ERR_BAD_REQUEST;
    pool = pool_create(SIZE_MAX / 2);
    struct str *prefixes = pool ? pool_alloc(pool, (p->conf->norigins + 1) * sizeof *prefixes) : NULL;
    g.list = json_array();
    if (prefixes && g.list) e = prefixes_make(pool, p->conf, path, prefixes);
    if (e == ERR_OK) e = page_fill(&g, prefixes, p->conf->norigins);
    if (e == ERR_OK) {
        json_t *o = json_pack("{sOso}", "objects", g.list, "next", token_json(&g));
        *json = o ? json_dumps(o, JSON_REAL_PRECISION(6)) : NULL;
        json_decref(o);
        if (!*json) e = ERR_NOMEM;
    }
    json_decref(g.list);
    pool_destroy(pool);
    return e;
}
