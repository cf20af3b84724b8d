/* lister.c - see the header. */
#include "cli/lister.h"

#include <stdlib.h>

#include "cli/oplog.h"
#include "s3/listing.h"

#define LISTER_LOW 2000u              /* fewer wait: the next page is asked for */
#define PAGE_BYTES ((size_t)16 << 20) /* the longest page that is taken */
#define SPACE_BYTES ((size_t)64 << 10)

struct lister {
    struct net *net;
    struct pool *mem;
    struct str bucket, prefix, delimiter;
    unsigned page;
    void (*changed)(void *arg);
    void *arg;
    struct call *call;        /* a page under way */
    struct list entries;
    size_t waiting;
    char *token;
    bool ended;               /* no more pages: the last came, or failure says why not */
    bool foreign;             /* something was listed that does not begin with the prefix */
    bool hungry;              /* somebody was told ERR_AGAIN */
    struct call_result failure;
    struct strbuf text;
    char *space;
};

static void page_start(struct lister *l);

static void tell(struct lister *l)
{
    if (!l->hungry) return;
    l->hungry = false;
    if (l->changed) l->changed(l->arg);
}

static char *put(char **w, struct str s, struct str *out)
{
    if (s.n) memcpy(*w, s.p, s.n);
    *out = str_make(*w, s.n);
    return *w += s.n;
}

static bool take_entry(void *arg, const struct listing_entry *e)
{
    struct lister *l = arg;
    struct listed *d = malloc(sizeof *d + e->key.n + 1 + e->etag.n + e->modified.n + e->storage_class.n);
    char *w = (char *)(d + 1);

    if (!d) return false;
    if (!str_starts(e->key, l->prefix)) {
        l->foreign = true; /* a server that does not know prefixes: whoever works on what is listed would do harm */
        free(d);
        return false;
    }
    put(&w, e->key, &d->key);
    *w++ = '\0';
    put(&w, e->etag, &d->etag);
    put(&w, e->modified, &d->modified);
    put(&w, e->storage_class, &d->storage_class);
    d->size = e->size;
    d->is_prefix = e->is_prefix;
    list_push_back(&l->entries, &d->link);
    l->waiting++;
    return true;
}

/* ---- a page */

static bool page_head(void *arg, const struct head *h, int64_t length)
{
    struct lister *l = arg;
    (void)h;
    (void)length;
    l->text.n = 0; /* of a try that broke off */
    return true;
}

static unsigned page_space(void *arg, struct iovec *iov, unsigned max)
{
    struct lister *l = arg;
    (void)max;
    iov[0] = (struct iovec){l->space, SPACE_BYTES};
    return 1;
}

static void page_filled(void *arg, size_t n)
{
    struct lister *l = arg;
    strbuf_add(&l->text, l->space, n);
    if (!l->text.failed) return;
    call_cancel(l->call);
    l->call = NULL;
    l->failure = (struct call_result){.err = ERR_BODY_TOO_LARGE};
    l->ended = true;
    tell(l);
}

static void page_log(const struct lister *l, uint64_t entries)
{
    const struct call_result *r = &l->failure;
    char why[512];
    struct op o = {.op = "LIST", .n_objects = entries, .bucket = l->bucket, .key = l->prefix, .start_ns = r->start_ns,
                   .first_byte_ns = r->bytes ? r->first_byte_ns : 0, .end_ns = r->end_ns};

    if (r->err != ERR_OK) o.error = call_why(r, why, sizeof why);
    oplog_add(l->net->oplog, &o);
}

static void page_end(void *arg, const struct call_result *r)
{
    struct lister *l = arg;
    char *token = NULL;
    size_t before = l->waiting;

    l->call = NULL;
    l->failure = *r;
    if (r->err == ERR_OK) {
        l->failure.err = listing_entries(strbuf_get(&l->text), take_entry, l, &token);
        if (l->foreign) l->failure.err = ERR_PROTOCOL;
        /* a page that leads to itself would never end */
        if (token && l->token && strcmp(token, l->token) == 0) l->failure.err = ERR_PROTOCOL;
    }
    page_log(l, l->waiting - before);
    free(l->token);
    l->token = token;
    l->text.n = 0;
    l->ended = l->failure.err != ERR_OK || !token;
    if (!l->ended && l->waiting < LISTER_LOW) page_start(l);
    tell(l);
}

static struct str page_query(struct lister *l, struct pool *mem)
{
    struct str prefix = uri_encode(mem, l->prefix, false), delimiter = uri_encode(mem, l->delimiter, false),
               token = uri_encode(mem, str_c(l->token), false);

    if (!prefix.p || !delimiter.p || !token.p) return (struct str){NULL, 0};
    return pool_f(mem, "list-type=2&encoding-type=url&max-keys=%u&prefix=" STR_FMT "%s" STR_FMT "%s" STR_FMT, l->page,
                  STR_ARG(prefix), delimiter.n ? "&delimiter=" : "", STR_ARG(delimiter), l->token ? "&continuation-token=" : "",
                  STR_ARG(token));
}

static void page_start(struct lister *l)
{
    static const struct call_events events = {page_head, page_space, page_filled, page_end};
    struct pool *mem = pool_create((size_t)1 << 20);
    struct str query = mem ? page_query(l, mem) : (struct str){NULL, 0};
    struct call_request q = {.method = METHOD_GET, .bucket = l->bucket, .query = query, .afresh = true};

    l->failure.err = query.p ? call_start(l->net, &q, &events, l, &l->call) : ERR_NOMEM;
    if (l->failure.err != ERR_OK) l->ended = true;
    pool_destroy(mem);
}

/* ---- interface */

enum err lister_open(struct net *net, struct str bucket, struct str prefix, struct str delimiter, unsigned page,
                     void (*changed)(void *arg), void *arg, struct lister **out)
{
    struct lister *l = calloc(1, sizeof *l);

    *out = NULL;
    if (!l) return ERR_NOMEM;
    l->net = net;
    l->page = page ? page : 1000;
    l->changed = changed;
    l->arg = arg;
    list_init(&l->entries);
    strbuf_init(&l->text, PAGE_BYTES);
    l->space = malloc(SPACE_BYTES);
    l->mem = pool_create((size_t)1 << 20);
    if (l->mem) {
        l->bucket = pool_str(l->mem, bucket);
        l->prefix = pool_str(l->mem, prefix);
        l->delimiter = pool_str(l->mem, delimiter);
    }
    if (!l->space || !l->bucket.p || !l->prefix.p || !l->delimiter.p) {
        lister_close(l);
        return ERR_NOMEM;
    }
    page_start(l);
    *out = l;
    return ERR_OK;
}

void lister_close(struct lister *l)
{
    struct list *n;

    if (!l) return;
    call_cancel(l->call);
    while ((n = list_pop_front(&l->entries)) != NULL) free(container_of(n, struct listed, link));
    strbuf_free(&l->text);
    pool_destroy(l->mem);
    free(l->token);
    free(l->space);
    free(l);
}

enum err lister_next(struct lister *l, struct listed **out)
{
    struct list *n = list_pop_front(&l->entries);

    *out = NULL;
    if (n) {
        *out = container_of(n, struct listed, link);
        l->waiting--;
        if (!l->ended && !l->call && l->waiting < LISTER_LOW) page_start(l);
        return ERR_OK;
    }
    if (l->ended) return l->failure.err == ERR_OK ? ERR_END : l->failure.err;
    l->hungry = true;
    return ERR_AGAIN;
}

static void wait_over(void *arg)
{
    struct lister *l = arg;
    net_stop(l->net);
}

enum err lister_wait(struct lister *l, struct listed **out)
{
    void (*changed)(void *) = l->changed;
    void *arg = l->arg;
    enum err e;

    l->changed = wait_over;
    l->arg = l;
    while ((e = lister_next(l, out)) == ERR_AGAIN)
        if (!net_run(l->net)) {
            e = ERR_CANCELLED;
            break;
        }
    l->changed = changed;
    l->arg = arg;
    return e;
}

const struct call_result *lister_failure(const struct lister *l) { return &l->failure; }
