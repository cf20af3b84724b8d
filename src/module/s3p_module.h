/* s3p_module.h - the only header a module sees.
 *
 * A module is a `struct s3p_module`: a name, an ABI version, and functions hooked into phases. The proxy calls
 * init once in the main thread, worker_init on every worker, then the hooks on workers (several threads at once: a module
 * keeps per-request state in requests, per-worker state in what worker_init returned). Hooks must not block.
 *
 * Phases of a request, in order: ROUTE decided -> ACCESS hooks -> the route's HANDLER (a module's, or the cache and origin)
 * -> HEAD_FILTER hooks (before the response head goes out) -> LOG writers (after the end). Inside a phase hooks run by
 * rising `order`, then by name. Strings are {pointer, length}, valid until the request's end unless said otherwise. */
#ifndef S3P_MODULE_H
#define S3P_MODULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define S3P_ABI_VERSION 1u

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    const char *p;
    size_t n;
} s3p_str;

typedef struct s3p_request s3p_request; /* opaque */
struct s3p_module;

enum s3p_result {
    S3P_OK,       /* go on (access: this hook has no objection) */
    S3P_DENY,     /* access: 403 AccessDenied */
    S3P_DECLINED, /* handler: not mine, 404 */
    S3P_ERROR     /* 500 InternalError */
};

/* How a question to the process went. */
enum s3p_outcome {
    S3P_DONE,
    S3P_NO_MEMORY,
    S3P_MALFORMED, /* what was given is not what was expected */
    S3P_UNKNOWN,   /* there is no such thing */
    S3P_FULL       /* there are as many as there may be */
};

/* What is known of a request. Times are nanoseconds of the monotonic clock unless named otherwise. */
typedef struct {
    s3p_str method, target, path, query; /* raw; query with signatures masked */
    s3p_str host, user_agent, referer, range;
    s3p_str peer, local;      /* "address:port" */
    s3p_str protocol;         /* "HTTP/1.1", "HTTP/1.0", "HTTP/2" */
    s3p_str operation;        /* "GET", "HEAD", "LIST", "PUT", "DELETE", ... as the op-log names them */
    s3p_str bucket, key;      /* raw */
    s3p_str origin, cache;    /* names from the configuration, empty if none */
    s3p_str cache_result;     /* HIT PARTIAL MISS REVALIDATED STALE BYPASS, or empty */
    s3p_str route;            /* the route's path */
    s3p_str request_id;       /* 16 hex digits, also sent as x-amz-request-id of our own errors */
    s3p_str error;            /* why the response broke off, empty when whole */
    bool tls;
    unsigned status;          /* 0: no response was sent */
    uint64_t sent_bytes;      /* response body */
    uint64_t received_bytes;  /* request body */
    uint64_t origin_bytes;    /* body bytes asked of the origin for this request */
    int64_t start_unix_ns;    /* wall clock */
    uint64_t start_ns, first_byte_ns, end_ns; /* first_byte_ns 0: none was sent; end_ns 0: still running */
    s3p_str tls_protocol; /* "TLSv1.3", "TLSv1.2"; empty: cleartext */
    s3p_str tls_client;   /* subject of the client's verified certificate (RFC 2253), empty: it showed none */
} s3p_request_info;

/* What to read: one of paths, prefix, manifest. Paths as clients send them: "/bucket/key", "/bucket/prefix". */
typedef struct {
    const s3p_str *paths;
    size_t npaths;
    s3p_str prefix;
    s3p_str manifest;     /* an object with a URI on each line: s3://bucket/key, the key as it is, or a path */
    bool pin;             /* not evicted until purged or changed, as far as the cache's `pinned` allows */
    unsigned concurrency; /* objects at a time; 0: 8. At most limits.warm_concurrency */
} s3p_warm;

/* Functions the proxy offers. Grows at its end only. */
typedef struct s3p_api {
    uint32_t abi;
    /* requests: on the request's worker only */
    void (*request_info)(const s3p_request *r, s3p_request_info *out);
    s3p_str (*request_header)(const s3p_request *r, const char *lower_name); /* {NULL,0} if absent */
    /* The whole request body (at most max bytes), then done; body.p NULL: too large or the client failed. */
    void (*request_body)(s3p_request *r, size_t max, void (*done)(s3p_request *r, s3p_str body, void *arg), void *arg);
    /* HEAD_FILTER: add, replace (value.p set) or remove (value.p NULL) a response field; true on success. */
    bool (*response_set)(s3p_request *r, const char *name, s3p_str value);
    unsigned (*response_status)(const s3p_request *r);
    /* HANDLER: answer and finish. The body is copied. content_type may be NULL. */
    void (*respond)(s3p_request *r, unsigned status, const char *content_type, s3p_str body);
    /* HANDLER, ACCESS: answer with an S3 error document. */
    void (*respond_error)(s3p_request *r, unsigned status, const char *s3_code, const char *message);
    void *(*alloc)(s3p_request *r, size_t n); /* freed at the request's end; NULL on failure */
    void *(*worker_data)(const s3p_request *r, const struct s3p_module *m);

    /* the process: any worker */
    char *(*stats_json)(void);  /* malloc'ed; one JSON object */
    char *(*config_yaml)(void); /* malloc'ed; secrets masked */
    bool (*ready)(void);        /* false while starting, draining or without a usable origin */
    /* Drop from all caches: kind "uri" (path as a client would send it, /bucket/key), "prefix" (of the same) or "all".
     * Returns how many objects were dropped, -1 for an unknown kind. */
    int64_t (*purge)(const char *kind, s3p_str what);
    const char *(*version)(void);
    uint64_t (*uptime_ms)(void);
    void (*log)(int level, const char *text); /* 0 error 1 warn 2 info 3 debug */
    /* text files written by a background thread: for logs */
    void *(*file_open)(const char *path, char *why, size_t n); /* "stderr", "stdout" or a path; NULL and a reason */
    void (*file_write)(void *f, const char *line, size_t n);   /* any thread; queued */
    void (*file_reopen)(void *f);
    void (*file_close)(void *f);
    /* configuration of this module: scalar at a dotted path ("access_log.file"), NULL if unset; lives as long as the
     * configuration. */
    const char *(*config)(const char *path);

    /* More of the process: any worker. Texts are malloc'ed, NULL when out of memory. */
    char *(*metrics)(void); /* what stats_json says, in the Prometheus text format 0.0.4 */
    /* Named points of time. *json: {"label", "at"}; label: 1 to 64 printable ASCII characters, else S3P_MALFORMED. */
    enum s3p_outcome (*mark)(s3p_str label, char **json);
    char *(*marks_json)(void);
    /* stats_json with the differences since a mark; S3P_UNKNOWN: there is no such mark. */
    enum s3p_outcome (*stats_since_json)(s3p_str label, char **json);
    /* What the caches hold whose path (as a client would send it) begins with `prefix`: {"objects": [...], "next": token or
     * null}. At most max (1 to 10000) on a page, perhaps fewer. after: the token of the page before, {NULL, 0} at first;
     * S3P_MALFORMED: that is none. */
    enum s3p_outcome (*objects_json)(s3p_str prefix, unsigned max, s3p_str after, char **json);
    /* Jobs that read objects into the caches. Starting one: on the request's worker, with what its client may read; it goes
     * on when the request ends. *json: {"id"}. S3P_FULL: too many jobs run. */
    enum s3p_outcome (*warm)(s3p_request *r, const s3p_warm *what, char **json);
    enum s3p_outcome (*warm_json)(s3p_str id, char **json); /* S3P_UNKNOWN */
    char *(*warm_list_json)(void);
    enum s3p_outcome (*warm_cancel)(s3p_str id, char **json);
} s3p_api;

struct s3p_module {
    uint32_t abi; /* S3P_ABI_VERSION */
    const char *name;
    /* Main thread, once. Non-zero stops the start; why gets one line. */
    int (*init)(const s3p_api *api, char *why, size_t n);
    void (*exit)(void);
    void (*reopen)(void); /* logs were rotated (SIGUSR1); main thread */
    void *(*worker_init)(unsigned worker); /* NULL is fine */
    void (*worker_exit)(void *worker_data);
    /* hooks; NULL = not in this phase. order: lower runs earlier; 0..100 the proxy's own, default 50 */
    int order;
    enum s3p_result (*access)(s3p_request *r);
    const char *handler_name; /* `handler:` of routes that this module serves */
    enum s3p_result (*handler)(s3p_request *r); /* S3P_OK: has answered or will */
    enum s3p_result (*head_filter)(s3p_request *r);
    void (*log)(const s3p_request *r);
};
typedef struct s3p_module s3p_module;

#ifdef __cplusplus
}
#endif
#endif
