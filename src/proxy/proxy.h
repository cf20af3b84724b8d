/* proxy.h - the structs of the room where http, cache and origin meet. For files of src/proxy and main.c only.
 *
 * One `struct proxy` is the process; one `struct worker` a thread with its loop, connections and origin workers; one
 * `struct request` lives in its exchange's memory and never leaves its worker. What outlives a request - discoveries and
 * parts under way - belongs to the worker and only points back at the request (cleared when the request ends). */
#ifndef S3P_PROXY_PROXY_H
#define S3P_PROXY_PROXY_H

#include "cache/cache.h"
#include "conf/conf.h"
#include "http/cachectl.h"
#include "http/exchange.h"
#include "http/h1_server.h"
#include "http/range.h"
#include "io/disk.h"
#include "module/module.h"
#include "origin/origin.h"
#include "origin/retry.h"
#include "origin/window.h"
#include "proxy/system.h"

#define PROXY_NAME "s3dlio-proxy"

struct request;
struct worker;
struct face;
struct marks;
struct warm_jobs;
struct h2_server;
struct listen_tls;
struct sniffer;

/* X(id, text): what the cache did for a request. */
#define CACHE_RESULTS(X) \
    X(NONE, "") X(HIT, "HIT") X(PARTIAL, "PARTIAL") X(MISS, "MISS") X(REVALIDATED, "REVALIDATED") X(STALE, "STALE") \
    X(BYPASS, "BYPASS")
enum cache_result {
#define X(id, text) RESULT_##id,
    CACHE_RESULTS(X)
#undef X
    RESULT_COUNT
};
struct str cache_result_text(enum cache_result r);

struct bucket_stats;
struct bucket_names;
/* Written by the worker only. */
struct worker_stats {
    stat_t accepted, requests, in_flight, sent_bytes, received_bytes, saved_bytes, restarts, shed;
    stat_t methods[METHOD_CONNECT + 1], statuses[6], results[RESULT_COUNT];
    stat_t per_cache_hits[16], per_cache_lookups[16], per_cache_hit_bytes[16], per_cache_bytes[16],
        per_cache_coalesced[16];
    struct hist first_byte_us, total_us;
};

/* The most caches a configuration may have (the per-worker counters are arrays). */
#define MAX_CACHES 16

/* Whether an origin can be reached, as its calls show. Any thread. */
struct origin_health {
    _Atomic unsigned failures; /* in a row, without an answer in between */
    _Atomic uint64_t failed_ms; /* the last one */
};

struct proxy {
    struct conf *conf;
    struct system_facts system;
    char via_id[17]; /* tells our own mark in Via from those of other proxies of this name */
    struct origin_health *health; /* by origin */
    pthread_mutex_t stats_lock; /* statistics are being read, or a worker's origins go away */
    unsigned nworkers;
    struct worker *workers;
    struct cache **caches;
    struct origin **origins;
    struct disk *disk;
    struct listen_tls **tls; /* one per listen address */
    struct modules *modules;
    struct marks *marks;
    struct warm_jobs *warm_jobs;
    struct bucket_names *bucket_names;
    uint64_t started_ms;
    _Atomic uint64_t connections, tls_connections, handshakes, memory_bytes;
    _Atomic bool ready, draining, joined;
    pthread_barrier_t opened;
};

struct worker {
    struct proxy *proxy;
    unsigned index;
    pthread_t thread;
    struct loop *loop;
    struct mailbox *mailbox;
    struct h1_server *h1;
    struct listener **listeners;
    int *listen_fds;
    struct listener_ref *listener_refs;
    unsigned nlisteners;
    struct face *faces; /* one per server of the configuration */
    struct h2_server *h2;
    struct sniffer *sniffer;
    unsigned servers_draining;
    void (*front_drained)(void *arg);
    struct origin_worker **origins;
    struct window *windows;
    struct retry_budget *budgets;
    void **module_data;
    struct worker_stats stats;
    struct bucket_stats *buckets;
    /* The counters of origin workers that have ended; guarded by the proxy's stats_lock. */
    struct origin_stats *last_origin_stats;
    bool origins_gone;
    struct list discoveries, parts; /* under way */
    struct list warm_jobs;          /* that belong here */
    struct list warm_readings;      /* that run here, of whatever worker's jobs */
    unsigned origin_closes;         /* origin workers still closing */
    struct mail drain_mail;
    struct timer drain_timer;
    bool draining, drained, started;
    enum err opened;
    char refusal[1024];
};

/* Which way a connection came in: exchanges carry it as their listener_data. */
struct listener_ref {
    struct worker *worker;
    const struct server_conf *server;
    struct face *face;         /* front.c */
    struct listen_tls *tls;    /* NULL: cleartext */
    bool over_limit;           /* accepted only to be told so */
    struct listener_ref *over; /* the same listener for such connections */
};

/* ---- what it takes to ask the origin for bytes of an object again: shared by a request and the parts it caused; one
 * worker only. */
struct source {
    unsigned refs;
    struct worker *worker;
    struct origin_worker *origin;
    unsigned origin_index;
    struct pool *pool;
    struct head req;       /* a copy of the client's head: for Vary and freshness rules */
    struct s3_address address;
    struct str path, query;
    struct hdr *hdrs;      /* forwarded fields */
    unsigned nhdrs;
    bool authorized;       /* carried the client's own Authorization */
};
struct source *source_ref(struct source *s);
void source_unref(struct source *s);
/* Our mark for requests that go on to an origin, {NULL,0} when out of memory; and whether such a mark of this very process
 * is in the request: it goes in circles. */
struct str source_via(const struct proxy *p, const struct exchange *x, struct pool *pool);
bool source_loops(const struct proxy *p, const struct head *req);
/* The base of the cache key of what is at a raw path of an origin: its name, NUL, and the path decoded (behind the bucket
 * that stood in the host name, if there was one), so that all spellings of a path have one base. Spellings that need not
 * mean the same share the base but not the variant: a write through one of them drops them all, a read never gets another's
 * bytes. *marks: what tells them apart, usually nothing. */
enum err key_make(struct pool *pool, const struct origin_conf *o, struct str host_bucket, struct str path, struct str *base,
                  struct str *marks);
enum err request_make_key(struct request *r);

/* ---- a representation's head as stored: hangs at meta.user. Immutable. */
struct repr {
    struct str etag;       /* as sent, or {NULL,0} */
    bool etag_strong;
    int64_t last_modified_s; /* -1 none */
    struct str last_modified;
    struct hdr *hdrs;      /* end-to-end fields to replay, without validators' siblings of the message itself */
    unsigned nhdrs;
    struct str content_type;
    unsigned status;       /* a failure's status; 200 otherwise */
    struct str body;       /* a failure's body */
    enum err err;          /* a failure without response: what happened */
    bool head_only;        /* a failure learnt by HEAD: no body to show */
    uint64_t received_ms, fresh_until_ms, validated_ns;
    uint64_t initial_age_s;
    bool must_revalidate, no_cache;
    uint64_t stale_if_error_ms;
    bool checksums_asked;  /* x-amz-checksum-mode was on and the answer covered the whole object */
    bool stale;            /* kept in use because the origin could not be asked */
    bool personal;         /* a failure that was meant for who asked */
    struct hdr *vary;      /* selecting request fields with the values they had, several lines joined by ", "; absent: NULL */
    unsigned nvary;
};
/* From a response. size: of the whole object. ERR_NOMEM. */
enum err repr_create(const struct source *src, const struct head *resp, uint64_t size, const struct cache_verdict *v,
                     uint64_t now_ms, struct meta **out);
/* old's fields updated by those of a 304 (RFC 9111 section 4.3.4; resp NULL: as they were), looked at now, as fresh as it
 * was. repr_set_freshness may be called before the meta is shared. */
enum err repr_refresh(const struct meta *old, const struct source *src, const struct head *resp, struct meta **out);
void repr_set_freshness(struct meta *m, const struct cache_verdict *v, uint64_t now_ms);
enum err repr_create_failure(const struct head *resp, struct str body, bool head_only, enum err err, struct meta **out);
static inline const struct repr *repr_of(const struct meta *m) { return m->user; }
/* Can answers be told to be of one version, so that their bytes may be joined (RFC 9110 section 15.3.7.3)? */
static inline bool repr_joinable(const struct repr *r) { return r->etag_strong || (!r->etag.n && r->last_modified.n); }
/* object_match_fn; arg: const struct head * of the request. */
bool repr_matches(void *head, const struct meta *m);

/* ---- requests */
struct deliver;
struct pass;
struct discovery;
struct upcall;
struct fetch {
    struct request *request;
    unsigned in_flight;  /* parts of this request under way */
    struct list parts;   /* their links */
    struct list reserve; /* what they have claimed for it and it has not read yet */
    uint64_t reader_at;
    enum err error;      /* why a part of this request was given up */
};
struct request {
    uint32_t magic;
    struct exchange *x;
    struct worker *worker;
    struct conf *conf;
    const struct server_conf *server;
    const struct route_conf *route;
    uint64_t id;
    char id_text[17];
    int64_t start_unix_ns;
    uint64_t end_ns; /* 0: it still runs */
    struct target target;
    struct str host;        /* without port, as sent */
    struct str host_bucket; /* the bucket when it stood in the host name, lower case */
    struct s3_request s3;
    struct range range;
    struct cache *cache;
    int cache_index, origin_index;
    struct cache_key key;
    struct source *source;
    struct cache_request asked;
    bool head_only, cacheable, leader, asked_checksums;
    bool bypass, refresh; /* asked for by S3dlio-Cache */
    unsigned restarts, lookups;
    enum cache_result result;
    bool collapsed, stored;
    unsigned fwd_status;
    const char *fwd;        /* RFC 9211 fwd= reason */
    struct object *object;
    struct meta *meta;
    struct meta *failed;     /* the discovery this request leads failed with it */
    struct object *handed;   /* the discovery made a private object for this request */
    struct waiter *waiter;
    struct discovery *discovery; /* the one this request leads */
    struct deliver *deliver;
    struct pass *pass;
    struct fetch fetch;
    struct timer timer;
    void (*timer_fn)(struct request *r);
    uint64_t waiting_since_ms;
    struct task task;
    /* response under construction */
    struct hdr *hdrs;
    unsigned nhdrs, cap_hdrs;
    unsigned status;
    struct body text_body;
    struct str text;
    bool filtering, responded;
    enum err error;
    uint64_t origin_bytes;
    /* a module's handler */
    const struct s3p_module *handler;
    void (*body_done)(s3p_request *r, s3p_str body, void *arg);
    void *body_arg;
    struct strbuf body_text, answer_text;
    uint64_t accounted_bytes;
};
#define REQUEST_MAGIC 0x4e90e501u

extern const struct exchange_handler request_handler;
void request_lookup(struct request *r);             /* cached path: find, wait, ask or serve */
void request_fail(struct request *r, enum err e);   /* error document, or reset when the head is out */
void request_restart(struct request *r);            /* object changed before anything was sent */
enum err request_make_source(struct request *r);
void request_wait_timer(struct request *r, uint64_t ms, void (*fn)(struct request *r));
void request_not_cached(struct request *r);         /* only-if-cached, and it is not */
bool request_account(struct request *r, uint64_t bytes); /* until its end; false: over the limit */

/* respond.c: response heads */
/* Appends; strings must live. A value that is absent is an empty one: make sure of memory before. */
enum err respond_header(struct request *r, struct str name, struct str value);
void respond_remove(struct request *r, struct str lower_name);
void respond_send(struct request *r, unsigned status, int64_t content_length, struct body *body);
void respond_text(struct request *r, unsigned status, const char *content_type, struct str body);
void respond_error(struct request *r, unsigned status, const char *code, const char *message);
void respond_cache_headers(struct request *r);
void respond_failure(struct request *r, const struct repr *f);
exchange_error_fn respond_error_body; /* for the HTTP server's own errors */

/* route.c */
const struct route_conf *route_find(const struct server_conf *s, struct str host, struct str path);
bool route_allows(const struct route_conf *rt, const struct address *peer);
bool route_allows_method(const struct route_conf *rt, struct str method);

/* serve.c: a READY object answers (conditions, range, head, body) */
void serve_object(struct request *r);

/* deliver.c: the body */
enum err deliver_create(struct request *r, uint64_t first, uint64_t last, struct deliver **out);
/* Calls ready once the first bytes are there, or it failed - at once if so. Used before the head goes out. */
void deliver_prime(struct deliver *d, void (*ready)(struct request *r, enum err e));
struct body *deliver_body(struct deliver *d);
void deliver_destroy(struct deliver *d);
void deliver_part_ended(struct deliver *d); /* a part of this request ended: more may be asked */

/* upcall.c: an origin call whose events can be handed on to another receiver once the head is known. */
struct upcall;
enum err upcall_start(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                      struct upcall **out); /* errors and events as origin_submit */
void upcall_retarget(struct upcall *u, const struct client_events *ev, void *arg);
void upcall_resume(struct upcall *u);
void upcall_cancel(struct upcall *u); /* frees it; after the end event it is gone by itself */

/* fetch.c: parts */
struct part;
void fetch_init(struct fetch *f, struct request *r);
/* Starts parts for [*next, end) of the object while the request's share of the window and memory allow; needed: the
 * offset the reader waits for. Moves *next past what is asked for or present. ERR_NOMEM: the needed slice got no memory;
 * ERR_AGAIN: a stream is on its way to it; ERR_CHANGED: it can only be had of another version (the object is dropped). */
enum err fetch_pump(struct fetch *f, struct object *o, struct source *src, uint64_t *next, uint64_t end, uint64_t needed);
void fetch_reader_at(struct fetch *f, uint64_t offset, uint64_t index); /* it is past all slices below index */
void fetch_release(struct fetch *f); /* what was read ahead may be evicted */
#define MAX_RUN 128u /* slices in a part */
/* What a discovery hands on: a call whose head has come, and the slices claimed for its body. */
struct adoption {
    struct source *source;
    struct object *object;
    struct upcall *call;
    uint64_t start, end; /* of the object */
    uint64_t stream;     /* it is the object's stream: slices after the n first are claimed when it gets there */
    bool longer;         /* the body goes on after end */
    unsigned n;
    struct slice *slices[MAX_RUN];
};
/* A part that goes on with the call, which it takes with the leases. */
enum err part_adopt(struct fetch *f, const struct adoption *a);
void fetch_leave(struct fetch *f); /* the request ends: its parts go on alone */
void worker_cancel_parts(struct worker *w);

/* discover.c */
/* Asks the origin what r's object is (and for the first bytes r needs). r waits on o, or on old if that is given. */
enum discovery_kind {
    DISCOVER,  /* o is NEW */
    VALIDATE,  /* old is stale and its validation was begun: one conditional request; o is its NEW successor */
    CHECKSUMS  /* old lacks x-amz-checksum-*: HEAD with checksum mode; its validation was begun; o is NULL */
};
enum err discovery_start(struct request *r, enum discovery_kind kind, struct object *o, struct object *old);
void discovery_leader_left(struct discovery *d);
void worker_cancel_discoveries(struct worker *w);

/* pass.c */
void pass_start(struct request *r);
void pass_destroy(struct pass *p);
/* r is answered with a call of somebody else whose head has come, as it is unless r's conditions say otherwise. Takes the
 * upcall. */
void pass_adopt(struct request *r, const struct head *resp, int64_t length, struct upcall *call);
void pass_invalidate(struct request *r);

/* stats.c, marks.c, metrics.c: texts are malloc'ed, NULL when out of memory. Any thread. */
struct snapshot;
enum err stats_snapshot(struct proxy *p, struct snapshot **out);
char *stats_json(struct proxy *p);
char *metrics_text(struct proxy *p);
enum err marks_create(uint64_t max, struct marks **out);
void marks_destroy(struct marks *m);
/* label: 1 to 64 printable ASCII characters, else ERR_BAD_REQUEST. */
enum err mark_set(struct proxy *p, struct str label, char **json);
char *marks_json(struct proxy *p);
enum err stats_since_json(struct proxy *p, struct str label, char **json); /* ERR_NOT_FOUND: no such mark */
/* objects.c: a page of at most max objects below a path (as clients send it), after a token of the page before ({NULL,0}:
 * from the start). ERR_BAD_REQUEST: that is no token. */
enum err objects_json(struct proxy *p, struct str path, uint64_t max, struct str after, char **json);
enum err bucket_names_create(struct bucket_names **out);
void bucket_names_destroy(struct bucket_names *b);
enum err bucket_stats_create(struct bucket_names *names, struct bucket_stats **out);
void bucket_stats_destroy(struct bucket_stats *b);
/* proven: the bucket exists. Other names get only half of the rows. */
void bucket_stats_add(struct bucket_stats *b, struct str bucket, bool proven, bool get, bool put, uint64_t sent, uint64_t saved);

/* modapi.c */
extern const s3p_api module_api;
void modapi_set_proxy(struct proxy *p);
struct proxy *modapi_proxy(void);
void modapi_end(struct request *r); /* a handler that still waits for the request body is told that none will come */
enum s3p_result modapi_access(struct request *r);
void modapi_handler(struct request *r);
void modapi_head_filters(struct request *r);
void modapi_log(struct request *r);

/* worker.c */
enum err proxy_create(struct conf *c, struct proxy **out, char *msg, size_t n);
enum err proxy_start(struct proxy *p, char *msg, size_t n);
void proxy_drain(struct proxy *p);
void proxy_join(struct proxy *p);
void proxy_destroy(struct proxy *p);
/* Accounting of memory beside the caches; false: over the limit (and nothing was added). */
bool proxy_account(struct proxy *p, uint64_t bytes);
void proxy_unaccount(struct proxy *p, uint64_t bytes);
/* What is wrong with a configuration beyond its syntax, one line each with its place to out: handlers that no module has,
 * more caches than there can be. False: something is. */
bool proxy_check_conf(const struct conf *c, FILE *out);
/* A call to an origin was answered (whatever the status), or failed without an answer. */
void proxy_origin_seen(struct proxy *p, const struct origin *o, enum err e);
bool proxy_is_ready(struct proxy *p);

#endif
