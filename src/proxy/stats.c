/* stats.c - the numbers of DESIGN 7 as one snapshot: sums over the workers' own counters and histograms. */
#include <stdlib.h>

#include "proxy/front.h"
#include "proxy/snapshot.h"
#include "version.h"

#define MAX_BUCKETS 256u

/* Which buckets are told apart is decided once for all workers: a name that has a row of its own keeps it, the others
 * share "(other)". Else a name that only one worker knows would move there when others came before it, its counter would
 * be gone, and what happened since a mark would be wrong. */
struct bucket_names {
    pthread_mutex_t lock;
    unsigned n;
    char *all[MAX_BUCKETS]; /* [0] is "(other)" */
};

/* Per worker; its mutex is contended only while somebody looks at the statistics. */
struct bucket_row {
    const char *name; /* of the bucket_names */
    uint64_t gets, puts, sent, saved;
};
struct bucket_stats {
    pthread_mutex_t lock;
    struct bucket_names *names;
    unsigned n;
    struct bucket_row rows[MAX_BUCKETS];
};

enum err bucket_names_create(struct bucket_names **out)
{
    struct bucket_names *b = calloc(1, sizeof *b);
    if (b) b->all[0] = strdup("(other)");
    if (!b || !b->all[0]) {
        free(b);
        return ERR_NOMEM;
    }
    b->n = 1;
    pthread_mutex_init(&b->lock, NULL);
    *out = b;
    return ERR_OK;
}

void bucket_names_destroy(struct bucket_names *b)
{
    if (!b) return;
    for (unsigned i = 0; i < b->n; i++) free(b->all[i]);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

enum err bucket_stats_create(struct bucket_names *names, struct bucket_stats **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out) return ERR_NOMEM;
    (*out)->names = names;
    pthread_mutex_init(&(*out)->lock, NULL);
    return ERR_OK;
}

void bucket_stats_destroy(struct bucket_stats *b)
{
    if (!b) return;
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* Names come out of clients' paths; JSON and Prometheus want text. */
static bool bucket_is_text(struct str name)
{
    json_t *v;
    for (size_t i = 0; i < name.n; i++)
        if ((unsigned char)name.p[i] < 0x20 || name.p[i] == 0x7f) return false;
    v = json_stringn(name.p, name.n); /* NULL: no UTF-8 */
    json_decref(v);
    return v != NULL;
}

/* The name to count under, for good; at most `most` are told apart. */
static const char *bucket_name(struct bucket_names *b, struct str name, unsigned most)
{
    const char *found = NULL;

    pthread_mutex_lock(&b->lock);
    for (unsigned i = 0; i < b->n && !found; i++)
        if (str_eq(str_c(b->all[i]), name)) found = b->all[i];
    if (!found && b->n < most && bucket_is_text(name) && (b->all[b->n] = str_dup(name)) != NULL) found = b->all[b->n++];
    pthread_mutex_unlock(&b->lock);
    return found ? found : b->all[0];
}

static struct bucket_row *bucket_row(struct bucket_stats *b, struct str name, unsigned most)
{
    for (unsigned i = 0; i < b->n; i++)
        if (str_eq(str_c(b->rows[i].name), name)) return &b->rows[i];
    const char *shown = bucket_name(b->names, name, most);
    for (unsigned i = 0; i < b->n; i++)
        if (b->rows[i].name == shown) return &b->rows[i];
    b->rows[b->n].name = shown;
    return &b->rows[b->n++];
}

void bucket_stats_add(struct bucket_stats *b, struct str bucket, bool proven, bool get, bool put, uint64_t sent, uint64_t saved)
{
    pthread_mutex_lock(&b->lock);
    struct bucket_row *row = bucket_row(b, bucket, proven ? MAX_BUCKETS : MAX_BUCKETS / 2);
    row->gets += get;
    row->puts += put;
    row->sent += sent;
    row->saved += saved;
    pthread_mutex_unlock(&b->lock);
}

#define put snapshot_count
#define level snapshot_level

#define SUM(p, expr)                                                         \
    ({                                                                       \
        uint64_t sum_ = 0;                                                   \
        for (unsigned w_ = 0; w_ < (p)->nworkers; w_++) {                    \
            struct worker *w = &(p)->workers[w_];                            \
            sum_ += (expr);                                                  \
        }                                                                    \
        sum_;                                                                \
    })

#define H1SUM(p, name) SUM(p, stat_get(&h1_server_stats(w->h1)->name))
#define H2SUM(p, name) SUM(p, stat_get(&h2_server_stats(w->h2)->name))

static json_t *json_connections(struct proxy *p)
{
    json_t *o = json_object();
    level(o, "open", atomic_load(&p->connections)); /* with those that have not said yet what they speak */
    level(o, "h1", H1SUM(p, open));
    level(o, "h2", H2SUM(p, open));
    level(o, "tls", atomic_load(&p->tls_connections));
    put(o, "accepted", SUM(p, stat_get(&w->stats.accepted)));
    return o;
}

/* What clients did to HTTP/2, and what was done about it. */
static json_t *json_http2(struct proxy *p)
{
    static const char *const floods[] = {
#define X(name, what, burst, rate) #name,
        H2_FLOOD_TABLE(X)
#undef X
    };
    json_t *o = json_object(), *f = json_object();
    put(o, "resets_received", H2SUM(p, resets_received));
    put(o, "resets_sent", H2SUM(p, resets_sent));
    put(o, "protocol_errors", H2SUM(p, protocol_errors));
    put(o, "stalled", H2SUM(p, stalled));
    put(o, "timeouts", H2SUM(p, timeouts));
    put(o, "heads_too_large", H2SUM(p, heads_too_large));
    for (unsigned i = 0; i < ARRAY_LEN(floods); i++) put(f, floods[i], H2SUM(p, floods[i]));
    json_object_set_new(o, "floods", f);
    return o;
}

static json_t *json_tls(struct proxy *p)
{
#define X(name) {#name, offsetof(struct tls_acceptor_stats, name)},
    static const struct {
        const char *name;
        size_t at;
    } counters[] = {X(accepted) X(failed) X(timeouts) X(refused) X(tls12) X(tls13) X(resumed) X(ktls)
                        X(client_certificates)};
#undef X
    json_t *o = json_object();
    level(o, "pending", SUM(p, front_tls_stat(w, offsetof(struct tls_acceptor_stats, pending))));
    for (unsigned i = 0; i < ARRAY_LEN(counters); i++) put(o, counters[i].name, SUM(p, front_tls_stat(w, counters[i].at)));
    return o;
}

static json_t *json_requests(struct proxy *p)
{
    static const char *const methods[] = {"OTHER",
#define X(m) #m,
                                          METHOD_TABLE(X)
#undef X
    };
    static const char *const statuses[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};
    json_t *o = json_object(), *m = json_object(), *s = json_object(), *c = json_object();

    put(o, "total", SUM(p, stat_get(&w->stats.requests)));
    level(o, "in_flight", SUM(p, stat_get(&w->stats.in_flight)));
    put(o, "bad", H1SUM(p, bad_requests) + H2SUM(p, bad_requests));
    put(o, "shed", SUM(p, stat_get(&w->stats.shed)));
    put(o, "restarts", SUM(p, stat_get(&w->stats.restarts)));
    for (unsigned i = 0; i < ARRAY_LEN(methods); i++) put(m, methods[i], SUM(p, stat_get(&w->stats.methods[i])));
    for (unsigned i = 0; i < ARRAY_LEN(statuses); i++) put(s, statuses[i], SUM(p, stat_get(&w->stats.statuses[i])));
    for (unsigned i = RESULT_HIT; i < RESULT_COUNT; i++) {
        char name[16];
        struct str t = cache_result_text(i);
        for (size_t k = 0; k <= t.n; k++) name[k] = k < t.n ? (char)(t.p[k] | 0x20) : '\0';
        put(c, name, SUM(p, stat_get(&w->stats.results[i])));
    }
    json_object_set_new(o, "methods", m);
    json_object_set_new(o, "statuses", s);
    json_object_set_new(o, "cache", c);
    return o;
}

static void collect_latency(struct snapshot *s, struct proxy *p)
{
    json_t *o = json_object();
    struct hist_sum *first = snapshot_hist(s, o, "first_byte", 1000.0), *total = snapshot_hist(s, o, "total", 1000.0);
    for (unsigned i = 0; i < p->nworkers; i++) {
        if (first) hist_collect(first, &p->workers[i].stats.first_byte_us);
        if (total) hist_collect(total, &p->workers[i].stats.total_us);
    }
    json_object_set_new(s->tree, "latency_ms", o);
}

static json_t *json_caches(struct proxy *p)
{
    json_t *all = json_object();
    for (unsigned i = 0; i < p->conf->ncaches; i++) {
        struct cache_stats cs;
        json_t *o = json_object(), *m = json_object();
        cache_get_stats(p->caches[i], &cs);
        level(m, "used", cs.used);
        level(m, "capacity", cs.capacity);
        level(m, "slices", cs.slices);
        level(m, "objects", cs.objects);
        level(m, "index_bytes", cs.index_bytes);
        put(m, "evictions", cs.evictions);
        put(m, "rejected", cs.rejected);
        level(m, "reserved", cs.reserved_bytes);
        level(m, "pinned", cs.pinned_bytes);
        put(m, "punched", cs.punched);
        json_object_set_new(o, "memory", m);
        snapshot_ratio(o, "hit_ratio", SUM(p, stat_get(&w->stats.per_cache_hits[i])),
                       SUM(p, stat_get(&w->stats.per_cache_lookups[i])));
        snapshot_ratio(o, "byte_hit_ratio", SUM(p, stat_get(&w->stats.per_cache_hit_bytes[i])),
                       SUM(p, stat_get(&w->stats.per_cache_bytes[i])));
        put(o, "coalesced", SUM(p, stat_get(&w->stats.per_cache_coalesced[i])));
        json_object_set_new(all, p->conf->caches[i].name, o);
    }
    return all;
}

/* The proxy's stats_lock is held: the worker's origins do not go away under us. */
static struct origin_stats *origin_stats_locked(struct worker *w, unsigned i)
{
    return w->origins_gone ? &w->last_origin_stats[i] : origin_worker_stats(w->origins[i]);
}

/* Of HTTP/1.1 and HTTP/2, null where nothing has been measured yet. */
static json_t *json_both(const uint64_t v[2], double unit)
{
    static const char *const names[2] = {"http/1.1", "h2"};
    json_t *o = json_object();
    for (int i = 0; i < 2; i++) snapshot_gauge(o, names[i], v[i] ? json_real((double)v[i] / unit) : json_null());
    return o;
}

/* The stats_lock is held. */
static json_t *json_protocol_locked(struct proxy *p, unsigned i)
{
    struct origin_protocol_seen seen;
    const char *choice, *why;
    json_t *o = json_object();
    origin_protocol_choice(p->origins[i], &choice, &why);
    origin_protocol_seen(p->origins[i], &seen);
    snapshot_gauge(o, "choice", json_string(choice));
    snapshot_gauge(o, "why", json_string(why));
    json_object_set_new(o, "first_byte_ms", json_both(seen.first_byte_us, 1000.0));
    json_object_set_new(o, "bulk_bytes_per_s", json_both(seen.bulk_bytes_per_s, 1.0));
#define OSUM(name) SUM(p, stat_get(&origin_stats_locked(w, i)->name))
    put(o, "h2_requests", OSUM(h2_requests));
    put(o, "h2_refused", OSUM(h2_refused));
    put(o, "h2_goaways", OSUM(h2_goaways));
#undef OSUM
    return o;
}

static json_t *json_origin_locked(struct snapshot *s, struct proxy *p, unsigned i)
{
    json_t *o = json_object(), *errors = json_object(), *conns = json_object(), *hedges = json_object();
#define OSUM(name) SUM(p, stat_get(&origin_stats_locked(w, i)->name))
    put(o, "requests", OSUM(requests));
    put(o, "bytes", OSUM(bytes));
    put(o, "bytes_sent", OSUM(bytes_sent));
    put(errors, "connect", OSUM(errors_connect));
    put(errors, "tls", OSUM(errors_tls));
    put(errors, "dns", OSUM(errors_dns));
    put(errors, "timeout", OSUM(errors_timeout));
    put(errors, "protocol", OSUM(errors_protocol));
    put(errors, "reset", OSUM(errors_reset));
    put(errors, "status_5xx", OSUM(status_5xx));
    json_object_set_new(o, "errors", errors);
    put(o, "retries", OSUM(retries));
    put(o, "slow_down", OSUM(slow_down));
    put(hedges, "issued", 0); /* true as long as fetch.hedge can only be off */
    put(hedges, "won", 0);
    json_object_set_new(o, "hedges", hedges);
    level(conns, "open", OSUM(conn_open));
    level(conns, "idle", OSUM(conn_idle));
    put(conns, "created", OSUM(conn_created));
    put(conns, "reused", OSUM(conn_reused));
    level(conns, "waiting", OSUM(waiting));
    level(conns, "h2", OSUM(h2_open));
    json_object_set_new(o, "connections", conns);
    json_object_set_new(o, "protocol", json_protocol_locked(p, i));
    level(o, "in_flight", OSUM(in_flight));
    level(o, "window", p->conf->origins[i].max_in_flight);
#undef OSUM
    struct hist_sum *h = snapshot_hist(s, o, "first_byte_ms", 1000.0);
    for (unsigned k = 0; h && k < p->nworkers; k++)
        hist_collect(h, &origin_stats_locked(&p->workers[k], i)->first_byte_us);
    return o;
}

static void add_bucket(json_t *all, const struct bucket_row *row)
{
    json_t *o = json_object_get(all, row->name);
    if (!o) {
        o = json_object();
        if (json_object_set_new(all, row->name, o) != 0) return; /* no memory */
    }
    const struct {
        const char *name;
        uint64_t v;
    } fields[] = {{"gets", row->gets}, {"puts", row->puts}, {"bytes_sent", row->sent}, {"bytes_saved", row->saved}};
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        put(o, fields[i].name, fields[i].v + (uint64_t)json_integer_value(json_object_get(o, fields[i].name)));
}

static json_t *json_buckets(struct proxy *p)
{
    json_t *all = json_object();
    for (unsigned i = 0; i < p->nworkers; i++) {
        struct bucket_stats *b = p->workers[i].buckets;
        pthread_mutex_lock(&b->lock);
        for (unsigned k = 0; k < b->n; k++) add_bucket(all, &b->rows[k]);
        pthread_mutex_unlock(&b->lock);
    }
    return all;
}

enum err stats_snapshot(struct proxy *p, struct snapshot **out)
{
    uint64_t received = 0;
    struct snapshot *s;
    enum err e = snapshot_create(2 + p->conf->norigins, &s);
    if (e != ERR_OK) return e;
    json_t *o = s->tree, *bytes = json_object(), *origins = json_object();

    s->taken_ms = clock_ns() / 1000000;
    s->taken_unix_ms = (int64_t)wallclock_ms();
    snapshot_gauge(o, "version", json_string(S3P_VERSION));
    snapshot_gauge(o, "uptime_s", json_real((double)(s->taken_ms - p->started_ms) / 1000.0));
    level(o, "workers", p->nworkers);
    json_object_set_new(o, "system", system_json(&p->system, p->nworkers));
    json_object_set_new(o, "connections", json_connections(p));
    json_object_set_new(o, "tls", json_tls(p));
    json_object_set_new(o, "http2", json_http2(p));
    json_object_set_new(o, "requests", json_requests(p));
    pthread_mutex_lock(&p->stats_lock);
    for (unsigned i = 0; i < p->conf->norigins; i++) {
        received += SUM(p, stat_get(&origin_stats_locked(w, i)->bytes));
        json_object_set_new(origins, p->conf->origins[i].name, json_origin_locked(s, p, i));
    }
    pthread_mutex_unlock(&p->stats_lock);
    put(bytes, "sent", SUM(p, stat_get(&w->stats.sent_bytes)));
    put(bytes, "received", SUM(p, stat_get(&w->stats.received_bytes)));
    put(bytes, "origin_received", received);
    put(bytes, "saved", SUM(p, stat_get(&w->stats.saved_bytes)));
    put(bytes, "sendfile", SUM(p, stat_get(&h1_server_stats(w->h1)->sendfile_bytes)));
    json_object_set_new(o, "bytes", bytes);
    level(o, "memory_bytes", atomic_load(&p->memory_bytes));
    collect_latency(s, p);
    json_object_set_new(o, "caches", json_caches(p));
    json_object_set_new(o, "origins", origins);
    json_object_set_new(o, "buckets", json_buckets(p));
    *out = s;
    return ERR_OK;
}
