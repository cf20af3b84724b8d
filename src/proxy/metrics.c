/* metrics.c - the statistics in the Prometheus text format (version 0.0.4), out of a snapshot.
 *
 * One row per family: where its values stand in the tree ('*' is any name, which becomes a label), its name and what it
 * says. Names carry their unit; counters end in _total; ratios are given as their two counters. How many lines there can
 * be is bounded by the configuration and by the number of buckets that are told apart (stats.c). */
#include <stdlib.h>

#include "proxy/proxy.h"
#include "proxy/snapshot.h"

#define MAX_DEPTH 6
#define PREFIX "s3dlio_proxy_"

struct family {
    const char *path;      /* in the tree, dots between names; of a ratio, `part` or `whole` */
    const char *name;      /* without the prefix */
    const char *labels[2]; /* for the '*' in path, in order */
    const char *help;
};

static const struct family families[] = {
    {"uptime_s", "uptime_seconds", {NULL}, "Time since the process started."},
    {"workers", "workers", {NULL}, "Worker threads."},
    {"system.cpus", "cpus", {NULL}, "CPUs that the process may run on."},
    {"system.cpu_limit", "cpu_limit_cpus", {NULL}, "CPU time its control group grants, in CPUs; absent without a limit."},
    {"system.memory_limit", "memory_limit_bytes", {NULL}, "Memory limit of its control group; absent without one."},
    {"memory_bytes", "memory_bytes", {NULL}, "Memory of requests and buffers beside the caches."},
    {"connections.open", "client_connections", {NULL}, "Client connections that are open."},
    {"connections.h1", "client_connections_http1", {NULL}, "Client connections that speak HTTP/1.1."},
    {"connections.h2", "client_connections_http2", {NULL}, "Client connections that speak HTTP/2."},
    {"connections.tls", "client_connections_tls", {NULL}, "Client connections over TLS."},
    {"connections.accepted", "client_connections_accepted_total", {NULL}, "Client connections accepted."},
    {"tls.pending", "tls_handshakes_pending", {NULL}, "TLS handshakes under way."},
    {"tls.*", "tls_handshakes_total", {"event"}, "TLS handshakes of clients by what became or was known of them."},
    {"http2.floods.*", "http2_floods_total", {"kind"}, "HTTP/2 connections ended for a flood of frames."},
    {"http2.*", "http2_events_total", {"event"}, "What clients did to HTTP/2 and what was done about it."},
    {"requests.total", "requests_total", {NULL}, "Requests whose head was read."},
    {"requests.in_flight", "requests_in_flight", {NULL}, "Requests that are being answered."},
    {"requests.bad", "requests_bad_total", {NULL}, "Requests refused by the HTTP parser."},
    {"requests.shed", "requests_shed_total", {NULL}, "Requests refused for lack of room."},
    {"requests.restarts", "requests_restarts_total", {NULL}, "Requests begun anew as their object had changed."},
    {"requests.methods.*", "requests_by_method_total", {"method"}, "Requests by method."},
    {"requests.statuses.*", "responses_total", {"class"}, "Responses by class of status."},
    {"requests.cache.*", "requests_by_cache_result_total", {"result"}, "Requests by what the cache did."},
    {"bytes.sent", "sent_bytes_total", {NULL}, "Response body bytes sent to clients."},
    {"bytes.received", "received_bytes_total", {NULL}, "Request body bytes received from clients."},
    {"bytes.origin_received", "origin_received_bytes_total", {NULL}, "Body bytes received from all origins."},
    {"bytes.saved", "saved_bytes_total", {NULL}, "Body bytes sent to clients that no origin had to send for them."},
    {"bytes.sendfile", "sendfile_bytes_total", {NULL}, "Body bytes that the kernel sent out of the cache's memory."},
    {"latency_ms.first_byte", "request_first_byte_seconds", {NULL}, "From a request's first byte to its response's."},
    {"latency_ms.total", "request_duration_seconds", {NULL},
     "From a request's first byte to the end of its response."},
    {"caches.*.memory.used", "cache_used_bytes", {"cache"}, "Memory that holds slices."},
    {"caches.*.memory.capacity", "cache_capacity_bytes", {"cache"}, "Memory configured for slices."},
    {"caches.*.memory.slices", "cache_slices", {"cache"}, "Slices in memory."},
    {"caches.*.memory.objects", "cache_objects", {"cache"}, "Objects in the index."},
    {"caches.*.memory.index_bytes", "cache_index_bytes", {"cache"}, "Memory of keys and stored heads."},
    {"caches.*.memory.reserved", "cache_reserved_bytes", {"cache"},
     "Memory that is being filled or kept for a reader."},
    {"caches.*.memory.pinned", "cache_pinned_bytes", {"cache"}, "Memory of slices that are not evicted."},
    {"caches.*.memory.evictions", "cache_evictions_total", {"cache"}, "Slices that made room for others."},
    {"caches.*.memory.rejected", "cache_rejected_total", {"cache"},
     "Slices that lost to the one they would replace."},
    {"caches.*.memory.punched", "cache_punched_total", {"cache"}, "Slices whose pages were given back before reuse."},
    {"caches.*.hit_ratio.whole", "cache_lookups_total", {"cache"}, "Lookups in the cache."},
    {"caches.*.hit_ratio.part", "cache_hits_total", {"cache"}, "Lookups that found what they looked for."},
    {"caches.*.byte_hit_ratio.whole", "cache_lookup_bytes_total", {"cache"}, "Bytes served through the cache."},
    {"caches.*.byte_hit_ratio.part", "cache_hit_bytes_total", {"cache"}, "Bytes served that were in the cache."},
    {"caches.*.coalesced", "cache_coalesced_total", {"cache"},
     "Requests that waited for an answer another had asked for."},
    {"origins.*.requests", "origin_requests_total", {"origin"}, "Requests sent to the origin."},
    {"origins.*.bytes", "origin_bytes_total", {"origin"}, "Body bytes received from the origin."},
    {"origins.*.bytes_sent", "origin_sent_bytes_total", {"origin"}, "Body bytes sent to the origin."},
    {"origins.*.errors.*", "origin_errors_total", {"origin", "error"},
     "Requests to the origin that failed, by reason."},
    {"origins.*.retries", "origin_retries_total", {"origin"}, "Requests sent to the origin again."},
    {"origins.*.slow_down", "origin_slow_down_total", {"origin"},
     "Answers of the origin that asked for fewer requests."},
    {"origins.*.hedges.issued", "origin_hedges_total", {"origin"}, "Second requests sent as the first was slow."},
    {"origins.*.hedges.won", "origin_hedges_won_total", {"origin"},
     "Second requests that answered before the first."},
    {"origins.*.connections.open", "origin_connections", {"origin"}, "Connections to the origin that are open."},
    {"origins.*.connections.idle", "origin_connections_idle", {"origin"},
     "Connections to the origin that wait for use."},
    {"origins.*.connections.waiting", "origin_connections_waiting", {"origin"},
     "Requests that wait for a connection."},
    {"origins.*.connections.h2", "origin_connections_http2", {"origin"},
     "Connections to the origin that speak HTTP/2."},
    {"origins.*.connections.created", "origin_connections_created_total", {"origin"},
     "Connections to the origin opened."},
    {"origins.*.connections.reused", "origin_connections_reused_total", {"origin"},
     "Requests on a connection used before."},
    {"origins.*.protocol.h2_requests", "origin_http2_requests_total", {"origin"}, "Requests sent over HTTP/2."},
    {"origins.*.protocol.h2_refused", "origin_http2_refused_total", {"origin"}, "Streams that the origin refused."},
    {"origins.*.protocol.h2_goaways", "origin_http2_goaways_total", {"origin"}, "GOAWAY frames of the origin."},
    {"origins.*.in_flight", "origin_requests_in_flight", {"origin"}, "Requests to the origin under way."},
    {"origins.*.window", "origin_window_requests", {"origin"}, "Parts of one request that may be under way at once."},
    {"origins.*.first_byte_ms", "origin_first_byte_seconds", {"origin"},
     "From a request to the origin to its response's first byte."},
    {"buckets.*.gets", "bucket_gets_total", {"bucket"}, "Objects read, by bucket."},
    {"buckets.*.puts", "bucket_puts_total", {"bucket"}, "Objects and parts written, by bucket."},
    {"buckets.*.bytes_sent", "bucket_sent_bytes_total", {"bucket"}, "Response body bytes sent, by bucket."},
    {"buckets.*.bytes_saved", "bucket_saved_bytes_total", {"bucket"},
     "Response body bytes that no origin had to send, by bucket."},
};

static const struct {
    uint64_t us;
    const char *text;
} bounds[] = {{500, "0.0005"}, {1000, "0.001"}, {2500, "0.0025"}, {5000, "0.005"}, {10000, "0.01"}, {25000, "0.025"},
              {50000, "0.05"}, {100000, "0.1"}, {250000, "0.25"}, {500000, "0.5"}, {1000000, "1"}, {2500000, "2.5"},
              {5000000, "5"}, {10000000, "10"}, {30000000, "30"}, {60000000, "60"}};

struct writer {
    const struct snapshot *snapshot;
    const struct family *family;
    struct strbuf out;
    const char *values[2]; /* of the labels, on the way down */
    unsigned nvalues;
    bool headed; /* HELP and TYPE are written */
};

static void put_header(struct writer *w, const char *type)
{
    if (w->headed) return;
    w->headed = true;
    strbuf_f(&w->out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", w->family->name, w->family->help, w->family->name, type);
}

/* {label="value",...}; more: one more pair, or NULL. */
static void put_labels(struct writer *w, const char *more)
{
    if (w->nvalues == 0 && !more) return;
    strbuf_z(&w->out, "{");
    for (unsigned i = 0; i < w->nvalues; i++) {
        strbuf_f(&w->out, "%s%s=\"", i ? "," : "", w->family->labels[i]);
        for (const char *p = w->values[i]; *p; p++) {
            if (*p == '\n') strbuf_z(&w->out, "\\n");
            else if (*p == '"' || *p == '\\') strbuf_f(&w->out, "\\%c", *p);
            else strbuf_add(&w->out, p, 1);
        }
        strbuf_z(&w->out, "\"");
    }
    if (more) strbuf_f(&w->out, "%s%s", w->nvalues ? "," : "", more);
    strbuf_z(&w->out, "}");
}

static void put_integer(struct writer *w, const char *type, json_int_t v)
{
    put_header(w, type);
    strbuf_f(&w->out, PREFIX "%s", w->family->name);
    put_labels(w, NULL);
    strbuf_f(&w->out, " %lld\n", (long long)v);
}

static void put_gauge(struct writer *w, const json_t *v)
{
    if (json_is_integer(v)) {
        put_integer(w, "gauge", json_integer_value(v));
    } else if (json_is_real(v)) {
        put_header(w, "gauge");
        strbuf_f(&w->out, PREFIX "%s", w->family->name);
        put_labels(w, NULL);
        strbuf_f(&w->out, " %.6f\n", json_real_value(v));
    }
}

static void put_hist(struct writer *w, const struct hist_sum *h)
{
    char le[32];

    put_header(w, "histogram");
    for (size_t i = 0; i <= ARRAY_LEN(bounds); i++) {
        bool last = i == ARRAY_LEN(bounds);
        snprintf(le, sizeof le, "le=\"%s\"", last ? "+Inf" : bounds[i].text);
        strbuf_f(&w->out, PREFIX "%s_bucket", w->family->name);
        put_labels(w, le);
        strbuf_f(&w->out, " %llu\n", (unsigned long long)(last ? h->count : hist_at_most(h, bounds[i].us)));
    }
    strbuf_f(&w->out, PREFIX "%s_sum", w->family->name);
    put_labels(w, NULL);
    strbuf_f(&w->out, " %.6f\n" PREFIX "%s_count", (double)h->sum / 1e6, w->family->name);
    put_labels(w, NULL);
    strbuf_f(&w->out, " %llu\n", (unsigned long long)h->count);
}

/* rest: which of the two, for a ratio. */
static void put_leaf(struct writer *w, const json_t *v, const char *rest)
{
    const struct hist_sum *h;

    switch (snapshot_leaf(v)) {
    case LEAF_COUNT: put_integer(w, "counter", json_integer_value(v)); break;
    case LEAF_GAUGE: put_gauge(w, json_array_get(v, 0)); break;
    case LEAF_RATIO:
        v = json_array_get(json_object_get(v, "$ratio"), strcmp(rest, "whole") == 0);
        put_integer(w, "counter", json_integer_value(v));
        break;
    case LEAF_HIST:
        h = snapshot_hist_of(w->snapshot, v);
        if (h) put_hist(w, h);
        break;
    case LEAF_NONE: break;
    }
}

/* A row of its own stands before the row with '*' that would match it, too: tls.pending. */
static bool is_named_elsewhere(const struct family *f, const char *name)
{
    size_t stem = strlen(f->path) - 1; /* up to the '*' */
    if (strcmp(f->path + stem, "*") != 0) return false;
    for (const struct family *o = families; o < f; o++)
        if (strncmp(o->path, f->path, stem) == 0 && strcmp(o->path + stem, name) == 0) return true;
    return false;
}

static void walk(struct writer *w, const json_t *tree, const char *path)
{
    size_t n = strcspn(path, ".");
    const char *rest = path[n] ? path + n + 1 : NULL, *name;
    bool any = n == 1 && path[0] == '*';
    json_t *v;

    json_object_foreach((json_t *)(uintptr_t)tree, name, v)
    {
        if (!any && (strncmp(name, path, n) != 0 || name[n] != '\0')) continue;
        if (any && !rest && is_named_elsewhere(w->family, name)) continue;
        if (any) w->values[w->nvalues++] = name;
        if (rest && snapshot_leaf(v) == LEAF_NONE) walk(w, v, rest);
        else if (!rest == (snapshot_leaf(v) != LEAF_RATIO)) put_leaf(w, v, rest);
        if (any) w->nvalues--;
    }
}

char *metrics_text(struct proxy *p)
{
    struct snapshot *s;
    struct writer w;

    if (stats_snapshot(p, &s) != ERR_OK) return NULL;
    w = (struct writer){.snapshot = s};
    strbuf_init(&w.out, 16 << 20);
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        w.family = &families[i];
        w.headed = false;
        walk(&w, s->tree, families[i].path);
    }
    snapshot_free(s);
    strbuf_add(&w.out, "", 1);
    char *text = w.out.failed ? NULL : strdup(w.out.p);
    strbuf_free(&w.out);
    return text;
}
