/* warm_read.c - reads the objects of a job of warm.c: on all workers in turn, as one core is less than what a network and
 * an origin may give.
 *
 * A reading goes by mail from the job's worker to another (or to itself), is an inner request there, and comes back:
 *
 *   where           | fields            | leaves by
 *   on its way      | nobody's          | go: the inner request begins, or, as that worker drains, it is over
 *   there           | that worker's     | its end, stop (the job is over), the worker drains -> over
 *   on its way back | nobody's          | over: counted, freed
 *
 * It holds its job; the job's worker and every stop that is on its way hold it. */
#include <stdlib.h>

#include "proxy/warm_job.h"

struct reading {
    /* the job's worker's */
    struct list link;
    struct mail go, over, stop;
    _Atomic unsigned refs;
    struct worker *on;
    struct job *job;
    struct name *name;
    /* on's, from go to over */
    struct list on_link;
    struct inner_asker asker; /* the job's, through a listener of that worker */
    struct inner *inner; /* NULL: not begun, or over */
    struct object *object; /* NULL: not yet, or none */
    bool cancelled;
    char message[160]; /* why it does not count; "": nothing yet */
};

static void reading_unref(struct reading *g)
{
    if (atomic_fetch_sub(&g->refs, 1) == 1) free(g);
}

/* ---- back on the job's worker */

uint64_t warm_displaced(const struct proxy *p, uint16_t batch)
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
    uint64_t n = warm_displaced(j->worker->proxy, j->batch) - j->displaced_before;

    pthread_mutex_lock(&j->jobs->lock);
    if (j->state == WARM_RUNNING) j->displaced = n;
    pthread_mutex_unlock(&j->jobs->lock);
    if (g->object && n > object_capacity(g->object) / 2) j->useless = true;
}

static void reading_over(struct mail *m)
{
    struct reading *g = container_of(m, struct reading, over);
    struct job *j = g->job;

    if (g->message[0]) job_error(j, g->name->path, g->message);
    pthread_mutex_lock(&j->jobs->lock);
    if (j->state == WARM_RUNNING && !g->cancelled) {
        if (g->message[0]) j->failed++;
        else j->done++;
    }
    pthread_mutex_unlock(&j->jobs->lock);
    reading_displaced(g);
    list_remove(&g->link);
    j->nreadings--;
    if (!j->ended) task_schedule(&j->task);
    object_unref(g->object);
    name_free(j, g->name);
    job_unref(j);
    reading_unref(g);
}

/* ---- on the worker that reads */

static void reading_return(struct reading *g)
{
    if (g->object) object_want(g->object, 0);
    g->inner = NULL;
    list_remove(&g->on_link);
    if (atomic_load(&g->job->worker->proxy->joined)) reading_over(&g->over); /* that worker's mailbox may be gone */
    else mailbox_post_any_thread(g->job->worker->mailbox, &g->over);
}

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

static void reading_end(void *arg, enum err why)
{
    struct reading *g = arg;

    if (why != ERR_OK && !g->message[0]) snprintf(g->message, sizeof g->message, "%s", err_text(why));
    if (!g->message[0] && g->object) reading_check(g);
    reading_return(g);
}

static const struct inner_events reading_events = {reading_head, reading_data, NULL, reading_end};

static void reading_go(struct mail *m)
{
    struct reading *g = container_of(m, struct reading, go);
    enum err e;

    g->cancelled = g->on->draining;
    if (g->cancelled) {
        reading_return(g);
        return;
    }
    list_push_back(&g->on->warm_readings, &g->on_link);
    e = inner_get(&g->asker, str_make(g->name->path, g->name->n), &reading_events, g, &g->inner);
    if (e == ERR_OK) return;
    snprintf(g->message, sizeof g->message, "%s", err_text(e));
    reading_return(g);
}

static void reading_cancel(struct reading *g)
{
    inner_cancel(g->inner);
    g->cancelled = true;
    reading_return(g);
}

static void reading_stop(struct mail *m)
{
    struct reading *g = container_of(m, struct reading, stop);
    if (g->inner) reading_cancel(g); /* else it is over already */
    reading_unref(g);
}

void warm_readings_drain(struct worker *w)
{
    struct list *n;
    while ((n = list_first(&w->warm_readings)) != NULL) reading_cancel(container_of(n, struct reading, on_link));
}

/* ---- on the job's worker */

static struct worker *reading_place(struct job *j)
{
    struct proxy *p = j->worker->proxy;
    return &p->workers[(j->worker->index + j->next_worker++) % p->nworkers];
}

enum err reading_start(struct job *j)
{
    struct reading *g = calloc(1, sizeof *g);
    if (!g) return ERR_NOMEM;
    g->job = j;
    g->name = container_of(list_pop_front(&j->names), struct name, link);
    j->nnames--;
    g->on = reading_place(j);
    g->asker = j->asker;
    g->asker.via = &g->on->listener_refs[j->asker.via - j->worker->listener_refs];
    g->go.fn = reading_go;
    g->over.fn = reading_over;
    g->stop.fn = reading_stop;
    atomic_init(&g->refs, 1);
    list_init(&g->on_link);
    list_push_back(&j->readings, &g->link);
    j->nreadings++;
    job_ref(j);
    mailbox_post_any_thread(g->on->mailbox, &g->go);
    return ERR_OK;
}

void readings_stop(struct job *j)
{
    for (struct list *n = j->readings.next; n != &j->readings; n = n->next) {
        struct reading *g = container_of(n, struct reading, link);
        atomic_fetch_add(&g->refs, 1);
        mailbox_post_any_thread(g->on->mailbox, &g->stop);
    }
}
