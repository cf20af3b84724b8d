/* warm_names.c - what a job of warm.c reads: names that wait, and where more come from, a listing or a manifest.
 *
 * All on the job's worker. A page of a listing is parsed when it is whole; a manifest is read on while few names wait. */
#include <stdlib.h>

#include "proxy/warm_job.h"
#include "s3/listing.h"

#define NAMES_HIGH 1024u        /* so many waiting: the manifest is not read on */
#define PAGE_BYTES (8u << 20)   /* the largest page of a listing */
#define LINE_BYTES 8192u        /* the longest line of a manifest */

static uint64_t name_cost(size_t n) { return sizeof(struct name) + n + 1 + 16; /* malloc's own */ }

void name_free(struct job *j, struct name *m)
{
    proxy_unaccount(j->worker->proxy, name_cost(m->n));
    free(m);
}

void names_free_all(struct job *j)
{
    struct list *n;
    while ((n = list_pop_front(&j->names)) != NULL) name_free(j, container_of(n, struct name, link));
    j->nnames = 0;
}

enum err name_add(struct job *j, struct str path)
{
    struct proxy *p = j->worker->proxy;

    if (path.n > p->conf->target_bytes) return ERR_URI_TOO_LONG;
    if (!proxy_account(p, name_cost(path.n))) return ERR_OVERLOAD;
    struct name *m = malloc(sizeof *m + path.n + 1);
    if (!m) {
        proxy_unaccount(p, name_cost(path.n));
        return ERR_NOMEM;
    }
    m->n = path.n;
    memcpy(m->path, path.p, path.n);
    m->path[path.n] = '\0';
    list_push_back(&j->names, &m->link);
    j->nnames++;
    pthread_mutex_lock(&j->jobs->lock);
    j->total++;
    pthread_mutex_unlock(&j->jobs->lock);
    return ERR_OK;
}

/* One that is named, but cannot be read. */
static void name_fails(struct job *j, const char *why)
{
    job_error(j, NULL, why);
    pthread_mutex_lock(&j->jobs->lock);
    j->total++;
    j->failed++;
    pthread_mutex_unlock(&j->jobs->lock);
}

/* "s3://bucket/key", the key as it is, or "/bucket/key" as clients send it, to a path as clients send it. ERR_BAD_URI. */
static enum err name_add_uri(struct job *j, struct str uri)
{
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str path = uri;
    enum err e = ERR_OK;

    if (!pool) return ERR_NOMEM;
    if (str_starts(uri, STR_LIT("s3://"))) path = uri_encode(pool, str_make(uri.p + 4, uri.n - 4), true);
    if (!path.p) e = ERR_NOMEM;
    size_t slash = e == ERR_OK && path.n > 1 && path.p[0] == '/' ? str_find(str_make(path.p + 1, path.n - 1), '/') : path.n;
    if (e == ERR_OK && (slash == 0 || slash + 2 >= path.n)) e = ERR_BAD_URI;
    for (size_t i = 0; e == ERR_OK && i < path.n; i++)
        if (path.p[i] <= 0x20 || path.p[i] >= 0x7f) e = ERR_BAD_URI;
    if (e == ERR_OK) e = name_add(j, path);
    pool_destroy(pool);
    return e;
}

void names_over(struct job *j, const char *failure)
{
    j->more = false;
    strbuf_free(&j->text);
    pthread_mutex_lock(&j->jobs->lock);
    j->listed = !failure;
    pthread_mutex_unlock(&j->jobs->lock);
    if (!failure) return;
    j->names_failed = true;
    job_error(j, NULL, failure);
}

static bool names_head(void *arg, struct request *r)
{
    struct job *j = arg;
    j->names_status = r->status;
    return true;
}

/* ---- names out of a listing (S3 API Reference, ListObjectsV2) */

static void page_data(void *arg, const uint8_t *p, size_t n)
{
    struct job *j = arg;
    strbuf_add(&j->text, p, n);
}

static bool page_add_key(void *arg, struct str key)
{
    struct job *j = arg;
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str bucket = pool ? uri_encode(pool, j->prefix_bucket, false) : (struct str){NULL, 0};
    struct str name = bucket.p ? uri_encode(pool, key, true) : (struct str){NULL, 0};
    struct str path = name.p ? pool_f(pool, "/" STR_FMT "/" STR_FMT, STR_ARG(bucket), STR_ARG(name)) : name;
    enum err e = path.p ? name_add(j, path) : ERR_NOMEM;
    pool_destroy(pool);
    if (e == ERR_URI_TOO_LONG) name_fails(j, "in the listing: a key that is too long");
    return e == ERR_OK || e == ERR_URI_TOO_LONG;
}

static void page_read(struct job *j)
{
    char *before = j->token;
    enum err e = j->text.failed ? ERR_BODY_TOO_LARGE : listing_parse(strbuf_get(&j->text), page_add_key, j, &j->token);

    if (e == ERR_NOMEM) names_over(j, err_text(e));
    else if (e != ERR_OK) names_over(j, "the listing is not what a listing should be");
    else if (!j->token) names_over(j, NULL);
    else if (before && strcmp(before, j->token) == 0) names_over(j, "the listing goes in circles");
    free(before);
    strbuf_free(&j->text);
}

static void page_end(void *arg, enum err why)
{
    struct job *j = arg;
    char message[200];

    j->names_from = NULL;
    if (why != ERR_OK || j->names_status != 200) {
        if (why != ERR_OK) snprintf(message, sizeof message, "the listing failed: %s", err_text(why));
        else snprintf(message, sizeof message, "the listing failed: status %u", j->names_status);
        names_over(j, message);
    } else {
        page_read(j);
    }
    task_schedule(&j->task);
}

static const struct inner_events page_events = {names_head, page_data, NULL, page_end};

static enum err page_start(struct job *j)
{
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str bucket = pool ? uri_encode(pool, j->prefix_bucket, false) : (struct str){NULL, 0};
    struct str prefix = bucket.p ? uri_encode(pool, j->prefix_key, false) : bucket;
    struct str token = prefix.p && j->token ? uri_encode(pool, str_c(j->token), false) : STR_LIT("");
    struct str target = prefix.p && token.p
                            ? pool_f(pool, "/" STR_FMT "/?list-type=2&encoding-type=url&prefix=" STR_FMT "%s" STR_FMT,
                                     STR_ARG(bucket), STR_ARG(prefix), j->token ? "&continuation-token=" : "", STR_ARG(token))
                            : (struct str){NULL, 0};
    strbuf_init(&j->text, PAGE_BYTES);
    enum err e = !target.p                                          ? ERR_NOMEM
                 : target.n > j->worker->proxy->conf->target_bytes ? ERR_URI_TOO_LONG
                                                                   : inner_get(&j->asker, target, &page_events, j, &j->names_from);
    pool_destroy(pool);
    return e;
}

/* ---- names out of a manifest: one URI on a line, without the blanks around it; empty lines and those that begin with #
 * do not count, nor does a mark of UTF-8 at the beginning */

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

static struct str manifest_trim(struct job *j, struct str line)
{
    static const struct str utf8_mark = STR_LIT("\xef\xbb\xbf");

    if (!j->began && str_starts(line, utf8_mark)) line = str_make(line.p + utf8_mark.n, line.n - utf8_mark.n);
    j->began = true;
    while (line.n && is_blank(line.p[line.n - 1])) line.n--;
    while (line.n && is_blank(line.p[0])) line = str_make(line.p + 1, line.n - 1);
    return line;
}

static void manifest_line(struct job *j)
{
    struct str line = manifest_trim(j, strbuf_get(&j->text));
    char message[300];

    if (!j->text.failed && (line.n == 0 || line.p[0] == '#')) return;
    enum err e = j->text.failed ? ERR_URI_TOO_LONG : name_add_uri(j, line);
    if (e == ERR_OK) return;
    int shown = line.n < 100 ? (int)line.n : 100;
    snprintf(message, sizeof message, "in the manifest: %s: expected s3://bucket/key or /bucket/key, got '%.*s'", err_text(e),
             shown, line.p ? line.p : "");
    for (char *c = message; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c > 0x7e) *c = '?';
    name_fails(j, message);
}

static void manifest_data(void *arg, const uint8_t *p, size_t n)
{
    struct job *j = arg;

    if (j->names_status != 200) return;
    while (n) {
        const uint8_t *end = memchr(p, '\n', n);
        size_t take = end ? (size_t)(end - p) : n;
        strbuf_add(&j->text, p, take);
        if (end) {
            manifest_line(j);
            strbuf_free(&j->text);
            strbuf_init(&j->text, LINE_BYTES);
            take++;
        }
        p += take;
        n -= take;
    }
    task_schedule(&j->task);
}

static bool manifest_ready(void *arg)
{
    struct job *j = arg;
    return j->nnames < NAMES_HIGH;
}

static void manifest_end(void *arg, enum err why)
{
    struct job *j = arg;
    char message[200];

    j->names_from = NULL;
    if (why == ERR_OK && j->names_status == 200) {
        manifest_line(j);
        names_over(j, NULL);
    } else {
        if (why == ERR_OK) snprintf(message, sizeof message, "the manifest could not be read: status %u", j->names_status);
        else snprintf(message, sizeof message, "the manifest could not be read: %s", err_text(why));
        names_over(j, message);
    }
    task_schedule(&j->task);
}

static const struct inner_events manifest_events = {names_head, manifest_data, manifest_ready, manifest_end};

enum err names_get(struct job *j)
{
    if (j->manifest.p) {
        strbuf_init(&j->text, LINE_BYTES);
        return inner_get(&j->asker, j->manifest, &manifest_events, j, &j->names_from);
    }
    return page_start(j);
}
