/* conf.h - the configuration: immutable once loaded, refcounted; a reload swaps it, running requests keep theirs.
 *
 * Everything is plain data that other rooms read. Strings are NUL-terminated and owned by the conf; absent = NULL. */
#ifndef S3P_CONF_CONF_H
#define S3P_CONF_CONF_H

#include <stdatomic.h>
#include <stdio.h>

#include "base/log.h"
#include "http/h2_guard.h"
#include "http/uri.h"
#include "io/listen.h"
#include "io/tls.h"
#include "s3/creds.h"

enum origin_type { ORIGIN_S3, ORIGIN_HTTP, ORIGIN_FILE };
enum origin_http2 { HTTP2_AUTO, HTTP2_OFF, HTTP2_PRIOR_KNOWLEDGE }; /* auto: where ALPN offers it */
enum route_auth { AUTH_NONE };
enum cache_header { CACHE_HEADER_OFF, CACHE_HEADER_BYPASS, CACHE_HEADER_REFRESH, CACHE_HEADER_ALL };
enum listen_protocol { PROTOCOL_H2, PROTOCOL_HTTP11 };
enum log_format { FORMAT_JSON, FORMAT_COMBINED };

struct cache_conf {
    char *name;
    uint64_t memory_bytes;     /* default 1GiB, at least 16 slices */
    uint64_t slice_bytes;      /* default 1MiB; power of two, 64KiB..16MiB */
    uint64_t fresh_for_ms;     /* default 1h */
    uint64_t stale_if_error_ms; /* default 0 */
    uint64_t sendfile_after;   /* uses of a slice before it is sent by sendfile; default 2; 0 = never */
    uint64_t index_bytes;      /* keys and heads; default 256 MiB */
    uint64_t pinned_bytes;     /* 0: half of the memory */
    uint64_t max_objects;      /* objects (heads) in the index; default 1000000 */
};
struct origin_conf {
    char *name;
    enum origin_type type;
    struct endpoint endpoint;  /* s3, http */
    char *root;                /* file */
    char *region;              /* s3; default: credentials' region or us-east-1 */
    bool virtual_hosted;       /* addressing: path (default) | virtual */
    struct creds_conf creds;
    uint64_t connections_max, idle_timeout_ms;  /* 128, 15s */
    uint64_t connect_ms, tls_ms, first_byte_ms, stall_ms, operation_ms; /* 3s 5s 10s 20s 600s */
    uint64_t retry_attempts, retry_base_ms, retry_cap_ms; /* 5 100ms 5s; attempts counts the first try */
    uint64_t part_bytes;       /* 8MiB; rounded up to whole slices */
    uint64_t max_in_flight;    /* parts per client request; 16 */
    uint64_t read_ahead_bytes; /* 128MiB */
    enum origin_http2 http2;   /* auto */
    char *ca_file;             /* tls: {ca_file, verify, server_name} */
    bool tls_verify;
    char *tls_server_name;
    char *host_header;         /* http: Host to send instead of the endpoint's */
};
struct cidr {
    unsigned char addr[16]; /* IPv4 mapped */
    unsigned bits;
};
struct route_conf {
    char *path;        /* prefix, raw */
    char **hosts; unsigned nhosts; /* Host names this route is for (exact or "*.suffix"), lower
                                         case, without port; none = any */
    char *handler;     /* module handler name ("admin"); NULL: origin */
    unsigned handler_line, handler_column; /* in conf.file, for "no such handler" once the modules are known */
    int origin, cache; /* indexes; -1 none */
    enum route_auth auth;
    enum cache_header cache_header;
    struct cidr *allow; unsigned nallow; /* none = everyone */
    struct cidr *deny; unsigned ndeny;
    char **base_domains; unsigned nbase_domains; /* virtual-hosted bucket requests from clients */
    char **methods; unsigned nmethods;           /* allowed methods; none = all */
};
struct listen_cert_conf {
    char *certificate, *key; /* PEM files; key NULL: in the same file */
};
struct listen_tls_conf {
    char *certificate, *key; /* the first, and the one where no name fits; NULL: the first of `certificates` */
    struct listen_cert_conf *certificates; unsigned ncertificates;
    char *client_ca;
    enum tls_verify verify;
    bool tls13_only;               /* min_version 1.3 */
    char *ciphers, *ciphersuites;  /* NULL: io/tls.h's choice */
    uint64_t ticket_rotation_ms;   /* 12h; 0: no tickets */
    enum listen_protocol *alpn; unsigned nalpn; /* none = both */
};
struct listen_conf {
    struct address address;
    char *text;
    struct listen_tls_conf *tls; unsigned ntls; /* NULL (and 0): cleartext */
};
/* http2: of clients' connections. See http/h2_server.h and h2_guard.h for what each bounds. */
struct http2_conf {
    bool enabled; /* cleartext with prior knowledge, and by ALPN */
    uint64_t max_streams, max_frame_bytes, header_table_bytes, stream_window_bytes, connection_window_bytes;
    uint64_t max_queued_frames, send_min_bytes, continuations, header_block_bytes, settings_entries;
    struct {
        uint64_t burst, per_second;
    } floods[H2_FLOODS];
};
struct server_conf {
    struct listen_conf *listens; unsigned nlistens;
    struct route_conf *routes; unsigned nroutes; /* longest path wins */
    /* timeouts: {idle 75s, head 15s, body 60s, send 60s} */
    uint64_t idle_ms, head_ms, body_ms, send_ms;
    uint64_t handshake_ms; /* timeouts.handshake: of TLS; 10s */
    struct http2_conf http2;
};
struct conf {
    _Atomic unsigned refs;
    unsigned workers;      /* auto = online CPUs (respecting the affinity mask and the cgroup CPU limit) */
    enum log_level log_level;
    char *log_file;
    char *access_log_file; /* "off" */
    enum log_format access_log_format;
    /* limits: */
    uint64_t max_connections;    /* 10000; per process */
    uint64_t max_handshakes;     /* 4096; per process */
    uint64_t max_marks;          /* 32 */
    uint64_t max_warm_jobs;      /* 16 */
    uint64_t max_warm_concurrency; /* 32 */
    uint64_t head_bytes;         /* 32KiB */
    uint64_t target_bytes;       /* 8KiB */
    uint64_t max_headers;        /* 100 */
    uint64_t body_buffer_bytes;  /* per passed-through body and direction; 256KiB */
    uint64_t max_body_bytes;     /* 0 = no bound */
    uint64_t request_memory_bytes; /* bump memory of one request; 256KiB */
    uint64_t requests_per_connection; /* 0 = no bound */
    uint64_t memory_bytes;       /* the whole process beside the caches' memory: 503 SlowDown beyond it; 1GiB */
    uint64_t shutdown_timeout_ms; /* drain at most this long; 30s */
    struct cache_conf *caches; unsigned ncaches;
    struct origin_conf *origins; unsigned norigins;
    struct server_conf *servers; unsigned nservers;
    /* not directives */
    char *file;               /* the name it was loaded from, for messages */
    struct conf_text *texts;  /* of conf.c: what conf_get gives */
    unsigned ntexts;
};

/* Reads and checks FILE ("-" is stdin). On failure returns ERR_CONFIG and writes every error (at most 20) as
 * `file:line:column: what, and what was expected` lines to `errors`. */
enum err conf_load(const char *path, FILE *errors, struct conf **out);
/* From memory, for tests and the embedded default; name stands in messages. */
enum err conf_parse(const char *name, const char *text, size_t n, FILE *errors, struct conf **out);
struct conf *conf_ref(struct conf *c);  /* any thread */
void conf_unref(struct conf *c);        /* any thread */
void conf_print_help(FILE *out);        /* --help-config: every directive with scope, type, default, bounds, help */
void conf_print_reference(FILE *out);   /* the same as Markdown (docs/config reference) */
/* Effective value of a directive of the top level, as text ("access_log.file" -> "off"); NULL if there is none of that
 * name. Lives as long as c. Any thread. */
const char *conf_get(const struct conf *c, const char *dotted_path);
/* Effective configuration as YAML (every directive with its value), secrets masked; malloc'ed, caller frees. */
char *conf_dump(const struct conf *c);

#endif
