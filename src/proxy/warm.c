/* warm.c - jobs that read objects into the caches: named ones, those below a prefix, or those that a manifest lists.
 *
 * A job belongs to the worker that was asked for it. Its objects are read as inner requests (inner.h) on all workers, so
 * many at a time, with the rights of whoever asked (warm_read.c); more names are fetched (warm_names.c) while fewer than a
 * few wait, and what waits counts against limits.memory. What others see of a job - numbers, state - is guarded by one
 * mutex for all jobs; the rest is its worker's alone. The last limits.warm_jobs jobs are remembered; one that runs is never
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

#include "proxy/warm_job.h"

#define NAMES_LOW 64u /* fewer waiting: get more */

static const char *const state_names[] = {"running", "done", "failed", "cancelled"};

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

static void warm_error_free(struct warm_error *e)
{
    free(e->uri);
    free(e->message);
}

static void job_free(struct job *j)
{
    for (unsigned i = 0; i < j->nerrors; i++) warm_error_free(&j->errors[i]);
    names_free_all(j);
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

void job_ref(struct job *j)
{
    pthread_mutex_lock(&j->jobs->lock);
    j->refs++;
    pthread_mutex_unlock(&j->jobs->lock);
}

void job_unref(struct job *j)
{
    struct warm_jobs *all = j->jobs;
    pthread_mutex_lock(&all->lock);
    job_unref_locked(j);
    pthread_mutex_unlock(&all->lock);
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

void job_error(struct job *j, const char *path, const char *message)
{
    struct pool *pool = pool_create(SIZE_MAX / 2);
    struct str decoded = pool && path ? uri_decode(pool, str_c(path)) : (struct str){NULL, 0};
    char *uri = NULL, *text = strdup(message);

    if (decoded.p && memchr(decoded.p, '\0', decoded.n) == NULL && asprintf(&uri, "s3:/" STR_FMT, STR_ARG(decoded)) < 0) uri = NULL;
    pthread_mutex_lock(&j->jobs->lock);
    /* The last place is for what ends the job, however many objects failed before. */
    if (text && j->nerrors == WARM_ERRORS_KEPT && !path) warm_error_free(&j->errors[--j->nerrors]);
    if (text && j->nerrors < WARM_ERRORS_KEPT - (path != NULL)) {
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

static void job_stop(struct job *j, enum warm_state state)
{
    if (j->ended) return;
    j->ended = true;
    task_cancel(&j->task);
    if (j->names_from) inner_cancel(j->names_from);
    j->names_from = NULL;
    readings_stop(j);
    names_free_all(j);
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

    job_stop(j, WARM_CANCELLED);
    job_unref(j);
}

void warm_worker_stop(struct worker *w)
{
    struct list *n;
    while ((n = list_first(&w->warm_jobs)) != NULL) job_stop(container_of(n, struct job, worker_link), WARM_CANCELLED);
    warm_readings_drain(w);
}

/* ---- the job */

static void job_step(struct task *t)
{
    struct job *j = container_of(t, struct job, task);
    enum err e = ERR_OK;

    if (atomic_load(&j->worker->proxy->draining)) return; /* other workers read no more; we are told to stop soon */
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
    e = ERR_OK; /* what waits is read all the same */
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
        e = name_add(j, what->paths[i]);
    uint64_t most = r->conf->target_bytes;
    if (e == ERR_URI_TOO_LONG || what->prefix.n > most || what->manifest.n > most) e = ERR_BAD_REQUEST;
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
            j->displaced_before = warm_displaced(r->worker->proxy, j->batch);
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
