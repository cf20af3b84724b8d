/* worker.c - the process and its threads: building everything up, accepting, draining, taking everything down.
 *
 * Start is done by the main thread as far as it can fail (memory, ports, origins, modules), so that a bad start is one line
 * and an exit code; only then threads run. Draining: listeners close, connections end after their response, then parts
 * and discoveries that nobody waits for are cancelled, origin workers close, and the loop stops when nothing is left. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/log.h"
#include "module/builtin.h"
#include "proxy/front.h"
#include "proxy/warm.h"

#define DISK_THREADS 4
#define UNUSABLE_FAILURES 3u
#define UNUSABLE_MS 10000u

bool proxy_account(struct proxy *p, uint64_t bytes)
{
    if (atomic_fetch_add(&p->memory_bytes, bytes) + bytes <= p->conf->memory_bytes) return true;
    atomic_fetch_sub(&p->memory_bytes, bytes);
    return false;
}

void proxy_unaccount(struct proxy *p, uint64_t bytes) { atomic_fetch_sub(&p->memory_bytes, bytes); }

/* ---- can the origins be reached */

static bool is_unreachable(enum err e)
{
    switch (e) {
    case ERR_IO:
    case ERR_CLOSED:
    case ERR_RESET:
    case ERR_REFUSED:
    case ERR_UNREACHABLE:
    case ERR_DNS:
    case ERR_TLS:
    case ERR_CREDENTIALS:
    case ERR_CONNECT_TIMEOUT:
    case ERR_FIRST_BYTE_TIMEOUT: return true;
    default: return false;
    }
}

void proxy_origin_seen(struct proxy *p, const struct origin *o, enum err e)
{
    unsigned i = 0;

    while (i < p->conf->norigins && p->origins[i] != o) i++;
    if (i == p->conf->norigins) return;
    struct origin_health *h = &p->health[i];
    if (is_unreachable(e)) {
        atomic_store_explicit(&h->failed_ms, clock_ns() / 1000000, memory_order_relaxed);
        atomic_fetch_add_explicit(&h->failures, 1, memory_order_relaxed);
    } else if (e == ERR_OK && atomic_load_explicit(&h->failures, memory_order_relaxed)) {
        atomic_store_explicit(&h->failures, 0, memory_order_relaxed);
    }
}

/* An origin that nobody could reach lately. After a while it gets another chance: only requests can find out. */
static bool origin_is_usable(struct origin_health *h)
{
    if (atomic_load_explicit(&h->failures, memory_order_relaxed) < UNUSABLE_FAILURES) return true;
    return clock_ns() / 1000000 - atomic_load_explicit(&h->failed_ms, memory_order_relaxed) > UNUSABLE_MS;
}

bool proxy_is_ready(struct proxy *p)
{
    if (!atomic_load(&p->ready) || atomic_load(&p->draining)) return false;
    for (unsigned i = 0; i < p->conf->norigins; i++)
        if (origin_is_usable(&p->health[i])) return true;
    return p->conf->norigins == 0;
}

/* ---- ending */

/* What the origins of this worker counted outlives them: others may still be asked for statistics. */
static void worker_keep_origin_stats(struct worker *w)
{
    struct proxy *p = w->proxy;

    pthread_mutex_lock(&p->stats_lock);
    for (unsigned i = 0; i < p->conf->norigins; i++)
        memcpy(&w->last_origin_stats[i], origin_worker_stats(w->origins[i]), sizeof w->last_origin_stats[i]);
    w->origins_gone = true;
    pthread_mutex_unlock(&p->stats_lock);
}

static void worker_origin_closed(void *arg)
{
    struct worker *w = arg;
    if (--w->origin_closes == 0) loop_stop(w->loop);
}

static void worker_drained(void *arg)
{
    struct worker *w = arg;

    if (w->drained) return;
    w->drained = true;
    timer_stop(&w->drain_timer);
    worker_cancel_discoveries(w);
    worker_cancel_parts(w);
    worker_keep_origin_stats(w);
    w->origin_closes = w->proxy->conf->norigins + 1;
    for (unsigned i = 0; i < w->proxy->conf->norigins; i++) origin_worker_destroy(w->origins[i], worker_origin_closed, w);
    worker_origin_closed(w);
}

static void worker_drain_timeout(struct timer *t)
{
    struct worker *w = container_of(t, struct worker, drain_timer);
    log_warn("worker %u: connections still open after the shutdown timeout, closing them", w->index);
    front_kill(w);
}

static void worker_drain(struct mail *m)
{
    struct worker *w = container_of(m, struct worker, drain_mail);

    if (w->draining) return;
    w->draining = true;
    timer_set(&w->drain_timer, w->proxy->conf->shutdown_timeout_ms);
    warm_worker_stop(w);
    front_drain(w, worker_drained);
}

/* ---- building up */

static enum err worker_create(struct proxy *p, unsigned index, char *msg, size_t n)
{
    struct worker *w = &p->workers[index];
    const struct conf *c = p->conf;

    w->proxy = p;
    w->index = index;
    list_init(&w->discoveries);
    list_init(&w->parts);
    list_init(&w->warm_jobs);
    list_init(&w->warm_readings);
    w->origins = calloc(c->norigins + 1, sizeof(void *));
    w->windows = calloc(c->norigins + 1, sizeof *w->windows);
    w->budgets = calloc(c->norigins + 1, sizeof *w->budgets);
    w->module_data = calloc(modules_count(p->modules) + 1, sizeof(void *));
    w->last_origin_stats = calloc(c->norigins + 1, sizeof *w->last_origin_stats);
    if (!w->origins || !w->windows || !w->budgets || !w->module_data || !w->last_origin_stats || bucket_stats_create(p->bucket_names, &w->buckets) != ERR_OK ||
        loop_create(&w->loop) != ERR_OK || mailbox_create(w->loop, &w->mailbox) != ERR_OK) {
        snprintf(msg, n, "out of memory or descriptors for worker %u", index);
        return ERR_NOMEM;
    }
    w->drain_mail.fn = worker_drain;
    timer_init(&w->drain_timer, w->loop, worker_drain_timeout);
    for (unsigned i = 0; i < c->norigins; i++) {
        window_init(&w->windows[i], &c->origins[i]);
        retry_budget_init(&w->budgets[i]);
    }
    return front_create(w, msg, n);
}

/* On the worker's own thread, before its loop runs. */
static enum err worker_open(struct worker *w)
{
    const struct conf *c = w->proxy->conf;

    for (unsigned i = 0; i < c->norigins; i++)
        if (origin_worker_create(w->proxy->origins[i], w->index, w->mailbox, &w->origins[i]) != ERR_OK) return ERR_NOMEM;
    if (front_open(w) != ERR_OK) return ERR_NOMEM;
    for (unsigned i = 0; i < modules_count(w->proxy->modules); i++) {
        const s3p_module *m = modules_at(w->proxy->modules, i);
        w->module_data[i] = m->worker_init ? m->worker_init(w->index) : NULL;
    }
    return ERR_OK;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    char name[16];

    snprintf(name, sizeof name, "s3p-worker-%u", w->index % 1000);
    pthread_setname_np(pthread_self(), name);
    w->opened = worker_open(w);
    pthread_barrier_wait(&w->proxy->opened);
    if (w->opened == ERR_OK) loop_run(w->loop);
    for (unsigned i = 0; i < modules_count(w->proxy->modules); i++) {
        const s3p_module *m = modules_at(w->proxy->modules, i);
        if (m->worker_exit) m->worker_exit(w->module_data[i]);
    }
    return NULL;
}

static bool handler_exists(const char *name)
{
    for (const s3p_module *const *m = builtin_modules; *m; m++)
        if ((*m)->handler_name && strcmp((*m)->handler_name, name) == 0) return true;
    return false;
}

static void tell_no_handler(const struct conf *c, const struct route_conf *rt, FILE *out)
{
    const char *before = "";

    fprintf(out, "%s:%u:%u: no module serves handler '%.64s', expected one of: ", c->file, rt->handler_line, rt->handler_column,
            rt->handler);
    for (const s3p_module *const *m = builtin_modules; *m; m++) {
        if (!(*m)->handler_name) continue;
        fprintf(out, "%s%s", before, (*m)->handler_name);
        before = ", ";
    }
    fputc('\n', out);
}

bool proxy_check_conf(const struct conf *c, FILE *out)
{
    bool good = c->ncaches <= MAX_CACHES;

    if (!good) fprintf(out, "%s: %u caches, expected at most %d\n", c->file, c->ncaches, MAX_CACHES);
    for (unsigned i = 0; i < c->nservers; i++)
        for (unsigned k = 0; k < c->servers[i].nroutes; k++) {
            const struct route_conf *rt = &c->servers[i].routes[k];
            if (!rt->handler || handler_exists(rt->handler)) continue;
            tell_no_handler(c, rt, out);
            good = false;
        }
    return good;
}

enum err proxy_create(struct conf *c, struct proxy **out, char *msg, size_t n)
{
    struct proxy *p = calloc(1, sizeof *p);
    enum err e = ERR_OK;

    *out = p;
    if (!p) return ERR_NOMEM;
    p->conf = conf_ref(c);
    p->nworkers = c->workers;
    p->started_ms = clock_ns() / 1000000;
    modapi_set_proxy(p);
    p->workers = calloc(p->nworkers, sizeof *p->workers);
    p->caches = calloc(c->ncaches + 1, sizeof(void *));
    p->origins = calloc(c->norigins + 1, sizeof(void *));
    p->health = calloc(c->norigins + 1, sizeof *p->health);
    pthread_mutex_init(&p->stats_lock, NULL);
    snprintf(p->via_id, sizeof p->via_id, "%016llx", (unsigned long long)random_u64());
    snprintf(msg, n, "out of memory");
    if (pthread_barrier_init(&p->opened, NULL, p->nworkers + 1) != 0) return ERR_NOMEM;
    if (!p->workers || !p->caches || !p->origins || !p->health || disk_create(DISK_THREADS, &p->disk) != ERR_OK) return ERR_NOMEM;
    if (marks_create(c->max_marks, &p->marks) != ERR_OK || warm_jobs_create(c->max_warm_jobs, &p->warm_jobs) != ERR_OK ||
        bucket_names_create(&p->bucket_names) != ERR_OK)
        return ERR_NOMEM;
    char why[512] = "";
    for (unsigned i = 0; e == ERR_OK && i < c->ncaches; i++) {
        const struct cache_conf *cc = &c->caches[i];
        struct cache_options o = {.memory_bytes = cc->memory_bytes, .max_objects = cc->max_objects,
                                  .index_bytes = cc->index_bytes, .pinned_bytes = cc->pinned_bytes,
                                  .slice_bytes = (uint32_t)cc->slice_bytes};
        e = cache_create(&o, &p->caches[i], why, sizeof why);
        if (e != ERR_OK) snprintf(msg, n, "cache %s: %s", cc->name, why);
    }
    for (unsigned i = 0; e == ERR_OK && i < c->norigins; i++) {
        e = origin_create(&c->origins[i], p->nworkers, p->disk, &p->origins[i], why, sizeof why);
        if (e != ERR_OK) snprintf(msg, n, "origin %s: %s", c->origins[i].name, why);
        else origin_set_meter(p->origins[i], (struct meter){&p->memory_bytes, c->memory_bytes});
    }
    if (e == ERR_OK) e = front_tls_create(c, &p->tls, msg, n);
    if (e == ERR_OK && (e = modules_create(&module_api, &p->modules, why, sizeof why)) != ERR_OK)
        snprintf(msg, n, "%s", why);
    for (unsigned i = 0; e == ERR_OK && i < p->nworkers; i++) e = worker_create(p, i, msg, n);
    return e;
}

enum err proxy_start(struct proxy *p, char *msg, size_t n)
{
    enum err e = ERR_OK;
    unsigned started = 0;

    /* Every worker opens in its thread; all wait for all, so a failure is known before anything is served. */
    for (unsigned i = 0; i < p->nworkers; i++) {
        if (pthread_create(&p->workers[i].thread, NULL, worker_main, &p->workers[i]) != 0) {
            /* Those already waiting could not be released: nothing is served yet, so end here. */
            fprintf(stderr, PROXY_NAME ": cannot start worker %u: %s\n", i, strerror(errno));
            _exit(1);
        }
        p->workers[i].started = true;
        started++;
    }
    pthread_barrier_wait(&p->opened);
    for (unsigned i = 0; i < started; i++)
        if (p->workers[i].opened != ERR_OK) e = p->workers[i].opened;
    if (e != ERR_OK) snprintf(msg, n, "cannot start the workers: %s", err_text(e));
    atomic_store(&p->ready, e == ERR_OK);
    return e;
}

void proxy_drain(struct proxy *p)
{
    if (atomic_exchange(&p->draining, true)) return;
    for (unsigned i = 0; i < p->nworkers; i++)
        if (p->workers[i].started) mailbox_post_any_thread(p->workers[i].mailbox, &p->workers[i].drain_mail);
}

void proxy_join(struct proxy *p)
{
    for (unsigned i = 0; i < p->nworkers; i++)
        if (p->workers[i].started) pthread_join(p->workers[i].thread, NULL);
}

static void worker_destroy(struct worker *w)
{
    front_destroy(w);
    if (w->mailbox) mailbox_destroy(w->mailbox);
    if (w->loop) loop_destroy(w->loop);
    bucket_stats_destroy(w->buckets);
    free(w->origins);
    free(w->windows);
    free(w->budgets);
    free(w->module_data);
    free(w->last_origin_stats);
}

/* Workers are joined (or were never started). */
void proxy_destroy(struct proxy *p)
{
    if (!p) return;
    for (unsigned i = 0; p->workers && i < p->nworkers; i++) worker_destroy(&p->workers[i]);
    if (p->modules) modules_destroy(p->modules);
    front_tls_destroy(p->tls, conf_listens(p->conf));
    if (p->disk) disk_destroy(p->disk);
    for (unsigned i = 0; p->origins && i < p->conf->norigins; i++)
        if (p->origins[i]) origin_destroy(p->origins[i]);
    for (unsigned i = 0; p->caches && i < p->conf->ncaches; i++)
        if (p->caches[i]) cache_destroy(p->caches[i]);
    marks_destroy(p->marks);
    warm_jobs_destroy(p->warm_jobs);
    bucket_names_destroy(p->bucket_names);
    pthread_barrier_destroy(&p->opened);
    free(p->workers);
    free(p->caches);
    free(p->origins);
    free(p->health);
    pthread_mutex_destroy(&p->stats_lock);
    conf_unref(p->conf);
    free(p);
}
