/* warm.c - jobs that read objects into the caches: named ones, those below a prefix, or those that a manifest lists.
 *
 * A job belongs to the worker that was asked for it and runs there as inner requests (inner.h), so many at a time, with the
 * rights of whoever asked; more names are fetched (a page of the listing, lines of the manifest) while fewer than a few
 * wait, and what waits counts against limits.memory. What others see of a job - numbers, state - is guarded by one mutex
 * for all jobs; the rest is the worker's alone. The last limits.warm_jobs jobs are remembered; one that runs is never
 * forgotten, so beyond that many a new one is refused.
 *
 * An object is done when all of it is in the cache: what a job reads displaces what was not asked for, or what an earlier
 * job asked for (object_want), but not what the job itself read before. What finds no room at once is a failure; what loses
 * its place while the job runs is counted as displaced, and a job that displaces what it read on and on is ended.
 *
 *   state     | leaves it by
 *   RUNNING   | all objects read or failed -> DONE; names could not be had -> FAILED; cancel, shutdown -> CANCELLED */
#include <jansson.h>
#include <stdlib.h>

#include "proxy/inner.h"
#include "proxy/warm.h"
#include "s3/listing.h"

#define ERRORS_KEPT 16u
#define NAMES_LOW 64u           /* fewer waiting: get more */
#define NAMES_HIGH 1024u        /* so many waiting: the manifest is not read on */
#define PAGE_BYTES (8u << 20)   /* the largest page of a listing */
#define LINE_BYTES 8192u        /* the longest line of a manifest */

enum warm_state { WARM_RUNNING, WARM_DONE, WARM_FAILED, WARM_CANCELLED };
static const char *const state_names[] = {"running", "done", "failed", "cancelled"};

struct warm_error {
    char *uri; /* NULL: of the job itself */
    char *message;
};
struct name {
    struct list link;
    size_t n;
    char path[]; /* encoded as clients send it */
};
struct reading {
    struct list link;
    struct job *job;
    struct inner *inner;
    struct name *name;
    struct object *object; /* NULL: not yet, or none */
    char message[160]; /* why it does not count; "": nothing yet */
};
struct job {
    /* guarded by the lock */
    struct list link;
    unsigned refs;
    char id[17];
    enum warm_state state;
    bool cancel, listed; /* listed: total is all there will be */
    uint64_t total, done, failed, bytes, displaced;
    uint64_t began_ns, ended_ns; /* 0: it runs */
    struct warm_error errors[ERRORS_KEPT];
    unsigned nerrors;
    /* immutable */
    struct warm_jobs *jobs;
    struct worker *worker;
    struct inner_asker asker;
    uint16_t batch;
    uint64_t displaced_before; /* in its batch's counters */
    bool pin;
    unsigned concurrency;
    /* the worker's */
    struct mail mail;
    struct task task;
    struct list worker_link;
    struct list names;
    unsigned nnames, nreadings;
    struct list readings;
    struct str prefix_bucket, prefix_key; /* decoded; of a listing */
    char *token;
    struct str manifest;
    bool more;           /* names may still come */
    bool began;          /* the manifest's first line is behind us */
    struct inner *names_from;
    struct strbuf text;  /* a page, or a line that is not whole yet */
    bool names_failed, useless, ended;
    unsigned names_status;
};
struct warm_jobs {
    pthread_mutex_t lock;
    struct list list; /* oldest first */
    uint64_t n, max;
    uint16_t batches;
};

enum err warm_jobs_create(uint64_t max, struct warm_jobs **out)
{
    struct warm_jobs *all = calloc(1, sizeof *all);
    if (!all) return ERR_NOMEM;
    pthread_mutex_init(&all->lock, NULL);
    list_init(&all->list);
    all->max = max;
    *out = all;
    return ERR_OK;
}

static uint64_t name_cost(size_t n) { return sizeof(struct name) + n + 1 + 16; /* malloc's own */ }

static void name_free(struct job *j, struct name *m)
{
    proxy_unaccount(j->worker->proxy, name_cost(m->n));
    free(m);
}

static void name_free_all(struct job *j)
{
    struct list *n;
    while ((n = list_pop_front(&j->names)) != NULL) name_free(j, container_of(n, struct name, link));
    j->nnames = 0;
}

static void warm_error_free(struct warm_error *e)
{
    free(e->uri);
    free(e->message);
}

static void job_free(struct job *j)
{
    for (unsigned i = 0; i < j->nerrors; i++) warm_error_free(&j->errors[i]);
    name_free_all(j);
    free((char *)(uintptr_t)j->asker.host.p);
    free(j->asker.tls_client);
    free((char *)(uintptr_t)j->prefix_bucket.p);
    free((char *)(uintptr_t)j->prefix_key.p);
    free((char *)(uintptr_t)j->manifest.p);
    free(j->token);
    strbuf_free(&j->text);
    free(j);
}

static void job_unref_locked(struct job *j)
{
    if (--j->refs == 0) job_free(j);
}

void warm_jobs_destroy(struct warm_jobs *all)
{
    struct list *n;
    if (!all) return;
    while ((n = list_pop_front(&all->list)) != NULL) job_unref_locked(container_of(n, struct job, link));
    pthread_mutex_destroy(&all->lock);
    free(all);
}

/* ---- what others see */

static void job_error(struct job *j, const char *path, const char *message)
{
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str decoded = pool && path ? uri_decode(pool, str_c(path)) : (struct str){NULL, 0};
    char *uri = NULL, *text = strdup(message);

    if (decoded.p && memchr(decoded.p, '\0', decoded.n) == NULL && asprintf(&uri, "s3:/" STR_FMT, STR_ARG(decoded)) < 0) uri = NULL;
    pthread_mutex_lock(&j->jobs->lock);
    /* The last place is for what ends the job, however many objects failed before. */
    if (text && j->nerrors == ERRORS_KEPT && !path) warm_error_free(&j->errors[--j->nerrors]);
    if (text && j->nerrors < ERRORS_KEPT - (path != NULL)) {
        j->errors[j->nerrors++] = (struct warm_error){uri, text};
        uri = text = NULL;
    }
    pthread_mutex_unlock(&j->jobs->lock);
    free(uri);
    free(text);
    pool_destroy(pool);
}

static json_t *job_json_locked(const struct job *j)
{
    json_t *errors = json_array();
    for (unsigned i = 0; i < j->nerrors; i++) {
        const struct warm_error *e = &j->errors[i];
        json_t *o = json_object();
        json_t *uri = e->uri ? json_string(e->uri) : NULL; /* NULL, too, if it is no UTF-8 */
        json_object_set_new(o, "uri", uri ? uri : json_null());
        json_object_set_new(o, "message", json_string(e->message));
        json_array_append_new(errors, o);
    }
    uint64_t ns = (j->ended_ns ? j->ended_ns : clock_ns()) - j->began_ns;
    return json_pack("{sssssfsbs{sIsIsI}s{sIsI}so}", "id", j->id, "state", state_names[j->state], "seconds", (double)ns / 1e9,
                     "listed", j->listed, "objects", "total", (json_int_t)j->total, "done", (json_int_t)j->done, "failed",
                     (json_int_t)j->failed, "bytes", "done", (json_int_t)j->bytes, "displaced",
                     (json_int_t)j->displaced, "errors", errors);
}

static char *dump(json_t *o)
{
    char *text = o ? json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) : NULL;
    json_decref(o);
    return text;
}

static struct job *job_find_locked(struct warm_jobs *all, struct str id)
{
    for (struct list *n = all->list.next; n != &all->list; n = n->next) {
        struct job *j = container_of(n, struct job, link);
        if (str_eq(str_c(j->id), id)) return j;
    }
    return NULL;
}

enum err warm_json(struct proxy *p, struct str id, char **json)
{
    struct warm_jobs *all = p->warm_jobs;
    pthread_mutex_lock(&all->lock);
    const struct job *j = job_find_locked(all, id);
    json_t *o = j ? job_json_locked(j) : NULL;
    pthread_mutex_unlock(&all->lock);
    *json = dump(o);
    return *json ? ERR_OK : j ? ERR_NOMEM : ERR_NOT_FOUND;
}

char *warm_list_json(struct proxy *p)
{
    json_t *list = json_array();
    pthread_mutex_lock(&p->warm_jobs->lock);
    for (struct list *n = p->warm_jobs->list.next; n != &p->warm_jobs->list; n = n->next)
        json_array_append_new(list, job_json_locked(container_of(n, struct job, link)));
    pthread_mutex_unlock(&p->warm_jobs->lock);
    return dump(json_pack("{so}", "jobs", list));
}

enum err warm_cancel(struct proxy *p, struct str id, char **json)
{
    struct warm_jobs *all = p->warm_jobs;
    pthread_mutex_lock(&all->lock);
    struct job *j = job_find_locked(all, id);
    if (j && j->state == WARM_RUNNING && !j->cancel) {
        j->cancel = true;
        j->state = WARM_CANCELLED; /* what is under way counts no more */
        j->ended_ns = clock_ns();
        j->refs++;
        mailbox_post_any_thread(j->worker->mailbox, &j->mail);
    }
    json_t *o = j ? job_json_locked(j) : NULL;
    pthread_mutex_unlock(&all->lock);
    *json = dump(o);
    return *json ? ERR_OK : j ? ERR_NOMEM : ERR_NOT_FOUND;
}

/* ---- the end of a job, on its worker */

/* Of whatever way a reading ends. */
static void reading_free(struct reading *g)
{
    if (g->object) object_want(g->object, 0);
    object_unref(g->object);
    name_free(g->job, g->name);
    free(g);
}

static void job_stop(struct job *j, enum warm_state state)
{
    struct list *n;

    if (j->ended) return;
    j->ended = true;
    task_cancel(&j->task);
    if (j->names_from) inner_cancel(j->names_from);
    j->names_from = NULL;
    while ((n = list_pop_front(&j->readings)) != NULL) {
        struct reading *g = container_of(n, struct reading, link);
        inner_cancel(g->inner);
        reading_free(g);
    }
    j->nreadings = 0;
    name_free_all(j);
    list_remove(&j->worker_link);
    pthread_mutex_lock(&j->jobs->lock);
    if (j->state == WARM_RUNNING) {
        j->state = state;
        j->ended_ns = clock_ns();
    }
    job_unref_locked(j);
    pthread_mutex_unlock(&j->jobs->lock);
}

static void job_on_cancel(struct mail *m)
{
    struct job *j = container_of(m, struct job, mail);
    struct warm_jobs *all = j->jobs;

    job_stop(j, WARM_CANCELLED);
    pthread_mutex_lock(&all->lock);
    job_unref_locked(j);
    pthread_mutex_unlock(&all->lock);
}

void warm_worker_stop(struct worker *w)
{
    struct list *n;
    while ((n = list_first(&w->warm_jobs)) != NULL) job_stop(container_of(n, struct job, worker_link), WARM_CANCELLED);
}

/* ---- reading objects */

static bool reading_head(void *arg, struct request *r)
{
    struct reading *g = arg;

    if (r->status != 200) {
        snprintf(g->message, sizeof g->message, "answered with status %u", r->status);
        return r->status >= 400;
    }
    if (!r->object || !object_indexed(r->object)) {
        snprintf(g->message, sizeof g->message, "%s", r->cache ? "the answer may not be stored" : "its route has no cache");
        return false;
    }
    if (object_size(r->object) > object_capacity(r->object)) {
        snprintf(g->message, sizeof g->message, "larger than the cache");
        return false;
    }
    g->object = object_ref(r->object);
    object_want(g->object, g->job->batch);
    if (g->job->pin) object_pin(g->object);
    return true;
}

/* All of it was read: is it there? */
static void reading_check(struct reading *g)
{
    uint64_t size = object_size(g->object), cached = object_cached_bytes(g->object);

    if (!object_indexed(g->object)) /* changed, written, purged, or too many objects */
        snprintf(g->message, sizeof g->message, "read, but it was dropped from the cache meanwhile");
    else if (cached < size)
        snprintf(g->message, sizeof g->message, "read, but the cache had room for %llu of %llu bytes only",
                 (unsigned long long)cached, (unsigned long long)size);
    else if (g->job->pin && !object_pin(g->object)) /* slices that came late may have found no room among the pinned */
        snprintf(g->message, sizeof g->message, "read, but there is no room to pin all of it");
}

static void reading_data(void *arg, const uint8_t *p, size_t n)
{
    struct reading *g = arg;
    struct request *r = inner_request(g->inner);
    (void)p;
    if (r && r->status != 200) return;
    pthread_mutex_lock(&g->job->jobs->lock);
    if (g->job->state == WARM_RUNNING) g->job->bytes += n;
    pthread_mutex_unlock(&g->job->jobs->lock);
}

static uint64_t displaced(const struct proxy *p, uint16_t batch)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < p->conf->ncaches; i++) n += cache_displaced(p->caches[i], batch);
    return n;
}

/* What was read lost its place to other slices: of the job itself, as a rule. To go on would cost the origin much and help
 * nobody. */
static void reading_displaced(struct reading *g)
{
    struct job *j = g->job;
    uint64_t n = displaced(j->worker->proxy, j->batch) - j->displaced_before;

    pthread_mutex_lock(&j->jobs->lock);
    if (j->state == WARM_RUNNING) j->displaced = n;
    pthread_mutex_unlock(&j->jobs->lock);
    if (g->object && n > object_capacity(g->object) / 2) j->useless = true;
}

static void reading_end(void *arg, enum err why)
{
    struct reading *g = arg;
    struct job *j = g->job;

    if (why != ERR_OK && !g->message[0]) snprintf(g->message, sizeof g->message, "%s", err_text(why));
    if (!g->message[0] && g->object) reading_check(g);
    if (g->message[0]) job_error(j, g->name->path, g->message);
    pthread_mutex_lock(&j->jobs->lock);
    if (j->state == WARM_RUNNING) {
        if (g->message[0]) j->failed++;
        else j->done++;
    }
    pthread_mutex_unlock(&j->jobs->lock);
    reading_displaced(g);
    list_remove(&g->link);
    j->nreadings--;
    reading_free(g);
    task_schedule(&j->task);
}

static const struct inner_events reading_events = {reading_head, reading_data, NULL, reading_end};

static enum err reading_start(struct job *j)
{
    struct reading *g = calloc(1, sizeof *g);
    if (!g) return ERR_NOMEM;
    g->job = j;
    g->name = container_of(list_pop_front(&j->names), struct name, link);
    j->nnames--;
    enum err e = inner_get(&j->asker, str_make(g->name->path, g->name->n), &reading_events, g, &g->inner);
    if (e != ERR_OK) {
        list_push_front(&j->names, &g->name->link);
        j->nnames++;
        free(g);
        return e;
    }
    list_push_back(&j->readings, &g->link);
    j->nreadings++;
    return ERR_OK;
}

/* ---- names */

/* False: there is no memory for it. */
static bool name_add(struct job *j, struct str path)
{
    if (!proxy_account(j->worker->proxy, name_cost(path.n))) return false;
    struct name *m = malloc(sizeof *m + path.n + 1);
    if (!m) {
        proxy_unaccount(j->worker->proxy, name_cost(path.n));
        return false;
    }
    m->n = path.n;
    memcpy(m->path, path.p, path.n);
    m->path[path.n] = '\0';
    list_push_back(&j->names, &m->link);
    j->nnames++;
    pthread_mutex_lock(&j->jobs->lock);
    j->total++;
    pthread_mutex_unlock(&j->jobs->lock);
    return true;
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
    if (e == ERR_OK && !name_add(j, path)) e = ERR_NOMEM;
    pool_destroy(pool);
    return e;
}

static void names_over(struct job *j, const char *failure)
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
    bool ok = path.p && name_add(j, path);
    pool_destroy(pool);
    return ok;
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
    enum err e = target.p ? inner_get(&j->asker, target, &page_events, j, &j->names_from) : ERR_NOMEM;
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
    job_error(j, NULL, message);
    pthread_mutex_lock(&j->jobs->lock);
    j->total++;
    j->failed++;
    pthread_mutex_unlock(&j->jobs->lock);
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

/* ---- the job */

static enum err names_get(struct job *j)
{
    if (j->manifest.p) {
        strbuf_init(&j->text, LINE_BYTES);
        return inner_get(&j->asker, j->manifest, &manifest_events, j, &j->names_from);
    }
    return page_start(j);
}

static void job_step(struct task *t)
{
    struct job *j = container_of(t, struct job, task);
    enum err e = ERR_OK;

    if (j->useless) {
        job_error(j, NULL, "ended, as what it reads displaces what it read before: the cache has no room for all of it");
        job_stop(j, WARM_FAILED);
        return;
    }
    if (j->more && j->nnames < NAMES_LOW) {
        if (!j->names_from) e = names_get(j);
        else inner_resume(j->names_from);
    }
    if (e != ERR_OK) names_over(j, err_text(e));
    while (e == ERR_OK && j->nnames && j->nreadings < j->concurrency) e = reading_start(j);
    if (e != ERR_OK && j->nnames && j->nreadings == 0) {
        job_error(j, NULL, err_text(e));
        job_stop(j, WARM_FAILED);
    } else if (!j->more && j->nnames == 0 && j->nreadings == 0) {
        job_stop(j, j->names_failed ? WARM_FAILED : WARM_DONE);
    }
}

static struct str copy_of(struct str s)
{
    char *p = malloc(s.n + 1);
    if (p && s.n) memcpy(p, s.p, s.n);
    if (p) p[s.n] = '\0';
    return (struct str){p, p ? s.n : 0};
}

/* "/bucket/prefix" or "/bucket", encoded. */
static enum err job_set_prefix(struct job *j, struct str path)
{
    struct pool *pool = pool_create(SIZE_MAX / 2);
    enum err e = pool ? ERR_OK : ERR_NOMEM;

    if (e == ERR_OK) {
        size_t slash = path.n ? 1 + str_find(str_make(path.p + 1, path.n - 1), '/') : 0;
        struct str bucket = path.n > 1 ? uri_decode(pool, str_make(path.p + 1, slash - 1)) : (struct str){NULL, 0};
        struct str key = slash + 1 < path.n ? uri_decode(pool, str_make(path.p + slash + 1, path.n - slash - 1)) : STR_LIT("");
        if (!bucket.n || !key.p) e = ERR_BAD_REQUEST;
        if (e == ERR_OK) j->prefix_bucket = copy_of(bucket);
        if (e == ERR_OK) j->prefix_key = copy_of(key);
        if (e == ERR_OK && (!j->prefix_bucket.p || !j->prefix_key.p)) e = ERR_NOMEM;
    }
    j->more = true;
    pool_destroy(pool);
    return e;
}

static struct job *job_new(struct request *r, const struct warm_what *what)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j) return NULL;
    j->refs = 1;
    j->jobs = r->worker->proxy->warm_jobs;
    j->worker = r->worker;
    j->asker = (struct inner_asker){.via = r->x->listener_data, .peer = *r->x->peer, .tls = r->x->tls,
                                    .host = copy_of(head_value(&r->x->req, HDR_HOST)), .tls_version = r->x->tls_version,
                                    .tls_client = r->x->tls_client ? strdup(r->x->tls_client) : NULL};
    j->pin = what->pin;
    j->concurrency = what->concurrency;
    j->mail.fn = job_on_cancel;
    task_init(&j->task, r->worker->loop, job_step);
    list_init(&j->link);
    list_init(&j->worker_link);
    list_init(&j->names);
    list_init(&j->readings);
    snprintf(j->id, sizeof j->id, "%016llx", (unsigned long long)random_u64());
    return j;
}

static enum err job_fill(struct job *j, const struct request *r, const struct warm_what *what)
{
    enum err e = j->asker.host.p && (!r->x->tls_client || j->asker.tls_client) ? ERR_OK : ERR_NOMEM;

    for (size_t i = 0; e == ERR_OK && i < what->npaths; i++)
        if (!name_add(j, what->paths[i])) e = ERR_OVERLOAD;
    if (e == ERR_OK && what->prefix.n) e = job_set_prefix(j, what->prefix);
    if (e == ERR_OK && what->manifest.n) {
        j->manifest = copy_of(what->manifest);
        j->more = true;
        if (!j->manifest.p) e = ERR_NOMEM;
    }
    j->listed = !j->more;
    return e;
}

/* The oldest that does not run makes room. */
static bool jobs_make_room_locked(struct warm_jobs *all)
{
    if (all->n < all->max) return true;
    LIST_EACH_SAFE(n, tmp, &all->list) {
        struct job *j = container_of(n, struct job, link);
        if (j->state == WARM_RUNNING || j->refs > 1) continue;
        list_remove(&j->link);
        all->n--;
        job_unref_locked(j);
        return true;
    }
    return false;
}

enum err warm_start(struct request *r, const struct warm_what *what, char **json)
{
    struct warm_jobs *all = r->worker->proxy->warm_jobs;
    struct job *j = r->worker->draining ? NULL : job_new(r, what);
    enum err e = j ? job_fill(j, r, what) : r->worker->draining ? ERR_OVERLOAD : ERR_NOMEM;

    if (e == ERR_OK && asprintf(json, "{\"id\": \"%s\"}\n", j->id) < 0) {
        *json = NULL;
        e = ERR_NOMEM;
    }
    if (e == ERR_OK) {
        pthread_mutex_lock(&all->lock);
        if (jobs_make_room_locked(all)) {
            list_push_back(&all->list, &j->link);
            all->n++;
            if (++all->batches == 0) all->batches = 1;
            j->batch = all->batches;
            j->displaced_before = displaced(r->worker->proxy, j->batch);
            j->began_ns = clock_ns();
            j->refs++; /* the list's; the other is the worker's until it stops */
        } else {
            e = ERR_OVERLOAD;
        }
        pthread_mutex_unlock(&all->lock);
    }
    if (e != ERR_OK) {
        if (j) job_free(j);
        free(*json);
        *json = NULL;
        return e;
    }
    list_push_back(&r->worker->warm_jobs, &j->worker_link);
    task_schedule(&j->task);
    return ERR_OK;
}
