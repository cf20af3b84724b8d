/* directive.c - the tables themselves, and what can be asked of a row. A directive exists by its row here alone. */
#include "conf/directive.h"

#include <stdlib.h>

#include "base/check.h"

#define KIB UINT64_C(1024)
#define MIB (KIB * 1024)
#define GIB (MIB * 1024)
#define TIB (GIB * 1024)
#define SECOND UINT64_C(1000)
#define MINUTE (SECOND * 60)
#define DAY (MINUTE * 60 * 24)

/* Rows of the struct named by AT: the field, a list of fields, or child structs. */
#define ONE(kind, member) .shape = ROW_ONE, .type = &value_##kind, .offset = offsetof(struct AT, member)
#define NO_FIELD(kind) .shape = ROW_ONE, .type = &value_##kind
#define ARRAY_AT(member) .offset = offsetof(struct AT, member), .count_offset = offsetof(struct AT, n##member)
#define LIST(kind, member) .shape = ROW_LIST, .type = &value_##kind, ARRAY_AT(member), .min = 1
#define ITEMS(scope_, member) .shape = ROW_ITEMS, .child = &scope_, ARRAY_AT(member)
#define NAMED(scope_, member) .shape = ROW_NAMED, .child = &scope_, ARRAY_AT(member)
#define CHILD(scope_, member) .shape = ROW_CHILD, .child = &scope_, ARRAY_AT(member), .max = 1
#define SCOPE(name_, rows_) .name = name_, .size = sizeof(struct AT), .rows = rows_, .nrows = ARRAY_LEN(rows_)

_Static_assert(offsetof(struct cache_conf, name) == 0 && offsetof(struct origin_conf, name) == 0,
               "the first member of a named item is its name");

/* ---- caches.NAME */
#define AT cache_conf
static const struct directive cache_rows[] = {
    {"memory", ONE(size, memory_bytes), .preset = "1GiB", .min = MIB, .max = 64 * TIB,
     .help = "memory for slices; at least 16 of them"},
    {"slice_size", ONE(size, slice_bytes), .preset = "1MiB", .min = 64 * KIB, .max = 16 * MIB, .power_of_two = true,
     .help = "unit in which objects are cached"},
    {"fresh_for", ONE(duration, fresh_for_ms), .preset = "1h", .max = 3650 * DAY,
     .help = "how long an object is fresh when the origin's headers do not say"},
    {"stale_if_error", ONE(duration, stale_if_error_ms), .preset = "0s", .max = 3650 * DAY,
     .help = "how long beyond that it may be used while the origin fails"},
    {"sendfile_after", ONE(count, sendfile_after), .preset = "2", .max = 1000000,
     .help = "uses of a slice before it is sent with sendfile; 0: never"},
    {"max_objects", ONE(count, max_objects), .preset = "1000000", .min = 16, .max = 1000000000,
     .help = "objects the index may hold"},
    {"index", ONE(size, index_bytes), .preset = "256MiB", .min = MIB, .max = TIB,
     .help = "memory for the keys and stored heads of objects; about 1 KiB each"},
    {"pinned", ONE(size, pinned_bytes), .preset = "0B", .max = 64 * TIB,
     .help = "what pinned objects may keep, at most three quarters of memory; 0: half of it"},
    {"disk", NO_FIELD(later), .help = "volumes on disk"},
};
static const struct scope cache_scope = {SCOPE("cache", cache_rows), .named = true};
#undef AT

/* ---- origins.NAME */
#define AT origin_conf
#define S3 (1u << ORIGIN_S3)
#define HTTP (1u << ORIGIN_HTTP)
#define FILES (1u << ORIGIN_FILE)
static const struct directive origin_rows[] = {
    {"type", ONE(word, type), .words = "s3 http file", .required = true,
     .help = "S3 with signed requests, a plain HTTP server, or a directory"},
    {"endpoint", ONE(endpoint, endpoint), .required = true, .only = S3 | HTTP, .help = "where requests go"},
    {"root", ONE(string, root), .required = true, .only = FILES, .help = "directory whose files are the objects"},
    {"host", ONE(authority, host_header), .preset_note = "the endpoint's", .only = HTTP, .help = "Host header to send"},
    {"region", ONE(name, region), .preset_note = "the credentials' or us-east-1", .only = S3,
     .help = "region requests are signed for"},
    {"addressing", ONE(flag, virtual_hosted), .preset = "path", .words = "path virtual", .only = S3,
     .help = "bucket in the path, or in the host name"},
    {"credentials.source", ONE(word, creds.source), .preset = "auto", .words = "auto env profile static none",
     .later = "container web_identity imds", .only = S3,
     .help = "auto: environment, then profile; none: unsigned requests"},
    {"credentials.access_key", ONE(secret, creds.access_key), .max = 159, .only = S3, .help = "for source static"},
    {"credentials.secret_key", ONE(secret, creds.secret_key), .max = 159, .only = S3, .help = "for source static"},
    {"credentials.session_token", ONE(secret, creds.session_token), .max = 4095, .only = S3,
     .help = "for source static"},
    {"credentials.profile", ONE(string, creds.profile), .max = 255, .preset_note = "AWS_PROFILE or default", .only = S3,
     .help = "for sources auto and profile"},
    {"credentials.file", ONE(string, creds.file), .preset_note = "~/.aws/credentials", .only = S3,
     .help = "shared credentials file, for sources auto and profile"},
    {"http2", ONE(word, http2), .preset = "auto", .words = "auto off prior-knowledge", .only = S3 | HTTP,
     .help = "HTTP/2 to the origin; auto: where TLS agrees on it (ALPN)"},
    {"connections.max", ONE(count, connections_max), .preset = "128", .min = 1, .max = 65535, .only = S3 | HTTP,
     .help = "connections at a time, all workers together"},
    {"connections.idle_timeout", ONE(duration, idle_timeout_ms), .preset = "15s", .min = 1, .max = DAY,
     .only = S3 | HTTP, .help = "an idle connection is closed after this"},
    {"timeouts.connect", ONE(duration, connect_ms), .preset = "3s", .min = 1, .max = DAY, .only = S3 | HTTP,
     .help = "to resolve the name and connect"},
    {"timeouts.tls", ONE(duration, tls_ms), .preset = "5s", .min = 1, .max = DAY, .only = S3 | HTTP,
     .help = "for the TLS handshake"},
    {"timeouts.first_byte", ONE(duration, first_byte_ms), .preset = "10s", .min = 1, .max = DAY, .only = S3 | HTTP,
     .help = "from the request's end to the response's begin"},
    {"timeouts.stall", ONE(duration, stall_ms), .preset = "20s", .min = 1, .max = DAY, .only = S3 | HTTP,
     .help = "without a byte of the response"},
    {"timeouts.operation", ONE(duration, operation_ms), .preset = "10m", .min = 1, .max = 7 * DAY,
     .help = "for one request to the origin as a whole"},
    {"retry.attempts", ONE(count, retry_attempts), .preset = "5", .min = 1, .max = 100,
     .help = "attempts in all, the first counted"},
    {"retry.base", ONE(duration, retry_base_ms), .preset = "100ms", .min = 1, .max = 10 * MINUTE,
     .help = "delay before the first retry; it doubles with each"},
    {"retry.cap", ONE(duration, retry_cap_ms), .preset = "5s", .min = 1, .max = 10 * MINUTE,
     .help = "longest delay before a retry"},
    {"fetch.part_size", ONE(size, part_bytes), .preset = "8MiB", .min = 64 * KIB, .max = GIB,
     .help = "unit of fetching; rounded up to whole slices of the caches in use"},
    {"fetch.max_in_flight", ONE(count, max_in_flight), .preset = "16", .min = 1, .max = 1024, .later = "auto",
     .help = "parts asked for at a time, for one request of a client"},
    {"fetch.read_ahead", ONE(size, read_ahead_bytes), .preset = "128MiB", .min = 64 * KIB, .max = TIB,
     .help = "how far parts are fetched ahead of the reader; at least one part"},
    {"fetch.hedge", NO_FIELD(fixed), .preset = "off", .words = "off", .later = "*",
     .help = "ask twice for a part that is late"},
    {"tls.ca_file", ONE(string, ca_file), .preset_note = "the system's", .only = S3 | HTTP,
     .help = "certificates to trust, PEM"},
    {"tls.verify", ONE(bool, tls_verify), .preset = "true", .only = S3 | HTTP,
     .help = "verify the origin's certificate and name"},
    {"tls.server_name", ONE(domain, tls_server_name), .preset_note = "the endpoint's host", .only = S3 | HTTP,
     .help = "name to ask for and to verify"},
};
static const struct scope origin_scope = {SCOPE("origin", origin_rows), .named = true, .kind = "type"};
#undef AT

/* ---- servers[].listen[].tls */
#define AT listen_cert_conf
static const struct directive certificate_rows[] = {
    {"certificate", ONE(string, certificate), .required = true, .help = "PEM file: certificate, then its chain"},
    {"key", ONE(string, key), .preset_note = "in the certificate's file", .help = "PEM file, not encrypted"},
};
static const struct scope certificate_scope = {SCOPE("certificate", certificate_rows), .shorthand = "certificate"};
#undef AT

#define AT listen_tls_conf
static const struct directive listen_tls_rows[] = {
    {"certificate", ONE(string, certificate), .preset_note = "the first of certificates",
     .help = "PEM file: certificate, then its chain"},
    {"key", ONE(string, key), .preset_note = "in the certificate's file", .help = "PEM file, not encrypted"},
    {"certificates", ITEMS(certificate_scope, certificates), .min = 1, .max = 1024, .preset_note = "none",
     .help = "further ones, chosen by the name a client asks for (SNI)"},
    {"client_ca", ONE(string, client_ca), .help = "PEM file: who signs clients' certificates; with verify"},
    {"verify", ONE(word, verify), .preset = "off", .words = "off optional required", .help = "certificates of clients"},
    {"min_version", ONE(flag, tls13_only), .preset = "1.2", .words = "1.2 1.3", .help = "oldest version of TLS"},
    {"ciphers", ONE(string, ciphers), .preset_note = "ECDHE with AES-GCM or ChaCha20",
     .help = "for TLS 1.2, in OpenSSL's notation"},
    {"ciphersuites", ONE(string, ciphersuites), .preset_note = "AES-GCM and ChaCha20", .help = "for TLS 1.3"},
    {"ticket_rotation", ONE(duration, ticket_rotation_ms), .preset = "12h", .max = 7 * DAY,
     .help = "session tickets' key is changed after this; 0: no tickets"},
    {"alpn", LIST(word, alpn), .max = 2, .words = "h2 http/1.1", .preset_note = "h2, http/1.1",
     .help = "protocols to agree on, by preference"},
};
static const struct scope listen_tls_scope = {SCOPE("tls", listen_tls_rows)};
#undef AT

/* ---- servers[].listen[] */
#define AT listen_conf
static const struct directive listen_rows[] = {
    {"address", .shape = ROW_ONE, .type = &value_address, .required = true, .help = "numeric address and port"},
    {"tls", CHILD(listen_tls_scope, tls), .preset_note = "cleartext", .help = "clients speak TLS here"},
};
static const struct scope listen_scope = {SCOPE("listen", listen_rows), .shorthand = "address"};
#undef AT

/* ---- servers[].routes[] */
#define AT route_conf
static const struct directive route_rows[] = {
    {"path", ONE(path, path), .required = true, .help = "prefix of the paths this route is for; the longest wins"},
    {"hosts", LIST(host, hosts), .max = 1024, .preset_note = "any", .help = "Host names this route is for"},
    {"handler", ONE(name, handler), .help = "module that answers, such as admin; instead of an origin"},
    {"origin", ONE(origin, origin), .help = "origin that requests go to"},
    {"cache", ONE(cache, cache), .preset_note = "not cached", .help = "cache for what comes from the origin"},
    {"auth", ONE(word, auth), .preset = "none", .words = "none", .later = "sigv4 transparent",
     .help = "how clients prove who they are"},
    {"cache_header", ONE(word, cache_header), .preset = "off", .words = "off bypass refresh all",
     .help = "what clients may ask for with the field S3dlio-Cache: bypass, refresh"},
    {"allow", LIST(cidr, allow), .max = 1024, .preset_note = "everyone", .help = "clients that may use this route"},
    {"deny", LIST(cidr, deny), .max = 1024, .preset_note = "nobody",
     .help = "clients that may not, even if they are allowed above"},
    {"base_domains", LIST(domain, base_domains), .max = 1024, .preset_note = "path-style only",
     .help = "domains under which the first label is the bucket"},
    {"methods", LIST(method, methods), .max = 64, .preset_note = "all", .help = "methods that may be used"},
};
static const struct scope route_scope = {SCOPE("route", route_rows)};
#undef AT

/* ---- servers[] */
#define AT server_conf
/* What a client can send for next to nothing: so many at once, and so many per second in the long run. */
_Static_assert(H2_FLOODS == 8, "a row pair for each kind of flood");
#define FLOOD(name_, kind, burst_, rate_, what)                                                                       \
    {name_ "_burst", ONE(count, http2.floods[H2_FLOOD_##kind].burst), .preset = burst_, .min = 1, .max = 1000000,     \
     .help = what " of a client at once, before its connection is ended"},                                            \
    {name_ "_rate", ONE(count, http2.floods[H2_FLOOD_##kind].per_second), .preset = rate_, .min = 1, .max = 1000000,  \
     .help = what " per second beyond that"}
static const struct directive server_rows[] = {
    {"listen", ITEMS(listen_scope, listens), .min = 1, .max = 64, .required = true, .help = "addresses to listen on"},
    {"timeouts.idle", ONE(duration, idle_ms), .preset = "75s", .min = 1, .max = DAY,
     .help = "a client's connection without a request"},
    {"timeouts.head", ONE(duration, head_ms), .preset = "15s", .min = 1, .max = DAY,
     .help = "from a request's first byte to the end of its head"},
    {"timeouts.body", ONE(duration, body_ms), .preset = "60s", .min = 1, .max = DAY,
     .help = "without a byte of a request's body"},
    {"timeouts.send", ONE(duration, send_ms), .preset = "60s", .min = 1, .max = DAY,
     .help = "without the client taking a byte of the response"},
    {"timeouts.handshake", ONE(duration, handshake_ms), .preset = "10s", .min = 1, .max = DAY,
     .help = "from a connection to the end of its TLS handshake"},
    {"http2.enabled", ONE(bool, http2.enabled), .preset = "true",
     .help = "HTTP/2 from clients: in cleartext with prior knowledge, with TLS by ALPN"},
    {"http2.max_streams", ONE(count, http2.max_streams), .preset = "256", .min = 1, .max = 65536,
     .help = "requests at a time on a connection"},
    {"http2.max_frame_size", ONE(size, http2.max_frame_bytes), .preset = "16KiB", .min = 16 * KIB, .max = 16 * MIB - 1,
     .help = "largest frame that clients may send"},
    {"http2.header_table_size", ONE(size, http2.header_table_bytes), .preset = "4KiB", .max = MIB,
     .help = "HPACK table of what clients send"},
    {"http2.stream_window", ONE(size, http2.stream_window_bytes), .preset = "2MiB", .min = 65535, .max = 2 * GIB - 1,
     .help = "request body under way, for one request"},
    {"http2.connection_window", ONE(size, http2.connection_window_bytes), .preset = "16MiB", .min = 65535,
     .max = 2 * GIB - 1, .help = "request bodies under way, for a connection"},
    {"http2.max_queued_frames", ONE(count, http2.max_queued_frames), .preset = "1000", .min = 16, .max = 1000000,
     .help = "own frames that wait for a client that does not read; then it is not read either"},
    {"http2.send_min", ONE(size, http2.send_min_bytes), .preset = "1KiB", .max = GIB,
     .help = "a stream whose client grants less within timeouts.send is reset; 0: never"},
    {"http2.header_block_size", ONE(size, http2.header_block_bytes), .preset = "64KiB", .min = KIB, .max = 16 * MIB,
     .help = "header block, compressed, all its frames together"},
    {"http2.continuations", ONE(count, http2.continuations), .preset = "8", .max = 10000,
     .help = "CONTINUATION frames of a header block"},
    {"http2.settings_entries", ONE(count, http2.settings_entries), .preset = "32", .min = 8, .max = 2730,
     .help = "entries of a SETTINGS frame"},
    FLOOD("http2.reset", RESET, "500", "25", "streams reset"),
    FLOOD("http2.continuation", CONTINUATION, "64", "16", "CONTINUATION frames"),
    FLOOD("http2.settings", SETTINGS, "32", "2", "SETTINGS frames"),
    FLOOD("http2.ping", PING, "100", "20", "PING frames"),
    FLOOD("http2.priority", PRIORITY, "500", "50", "PRIORITY and unknown frames"),
    FLOOD("http2.window_update", WINDOW, "2000", "200", "WINDOW_UPDATE frames"),
    FLOOD("http2.empty_data", EMPTY, "100", "10", "empty DATA frames"),
    FLOOD("http2.large_head", HEAD, "16", "1", "header lists beyond limits.head_size"),
    {"routes", ITEMS(route_scope, routes), .min = 1, .max = 1024, .required = true, .help = "what is served where"},
};
static const struct scope server_scope = {SCOPE("server", server_rows)};
#undef AT

/* ---- the top level */
#define AT conf
static const struct directive conf_rows[] = {
    {"workers", ONE(workers, workers), .preset = "auto", .min = 1, .max = 1024,
     .help = "threads; auto: the CPUs this process may use"},
    {"log.level", ONE(word, log_level), .preset = "info", .words = "error warn info debug",
     .help = "least important lines to log"},
    {"log.file", ONE(string, log_file), .preset = "stderr", .help = "stderr, stdout, off, or a file"},
    {"access_log.file", ONE(string, access_log_file), .preset = "off", .help = "stderr, stdout, off, or a file"},
    {"access_log.format", ONE(word, access_log_format), .preset = "json", .words = "json combined", .later = "*",
     .help = "one line for each request"},
    {"limits.connections", ONE(count, max_connections), .preset = "10000", .min = 1, .max = 10000000,
     .help = "connections of clients"},
    {"limits.handshakes", ONE(count, max_handshakes), .preset = "4096", .min = 1, .max = 1000000,
     .help = "of them, in their TLS handshake; further ones are closed"},
    {"limits.head_size", ONE(size, head_bytes), .preset = "32KiB", .min = KIB, .max = MIB,
     .help = "request line and header fields together"},
    {"limits.target_size", ONE(size, target_bytes), .preset = "8KiB", .min = 256, .max = MIB,
     .help = "request target; at most head_size"},
    {"limits.headers", ONE(count, max_headers), .preset = "100", .min = 8, .max = 10000,
     .help = "header fields of a request"},
    {"limits.body_buffer", ONE(size, body_buffer_bytes), .preset = "256KiB", .min = 16 * KIB, .max = 64 * MIB,
     .help = "buffer of a body that is passed through"},
    {"limits.max_body", ONE(size, max_body_bytes), .preset = "0B", .max = 1024 * TIB,
     .help = "largest request body; 0: no bound"},
    {"limits.request_memory", ONE(size, request_memory_bytes), .preset = "256KiB", .min = 16 * KIB, .max = 64 * MIB,
     .help = "memory of one request beside bodies; at least twice head_size"},
    {"limits.requests_per_connection", ONE(count, requests_per_connection), .preset = "0", .max = 1000000000,
     .help = "a connection is closed after so many; 0: no bound"},
    {"limits.marks", ONE(count, max_marks), .preset = "32", .min = 1, .max = 10000,
     .help = "named points of time kept for `stats?since=`; the oldest makes room"},
    {"limits.warm_jobs", ONE(count, max_warm_jobs), .preset = "16", .min = 1, .max = 10000,
     .help = "jobs of `warm` that run or are remembered"},
    {"limits.warm_concurrency", ONE(count, max_warm_concurrency), .preset = "32", .min = 1, .max = 10000,
     .help = "objects that such a job may read at a time"},
    {"limits.memory", ONE(size, memory_bytes), .preset = "1GiB", .min = 16 * MIB, .max = 64 * TIB,
     .help = "the process beside the caches; beyond it requests get 503 SlowDown"},
    {"shutdown_timeout", ONE(duration, shutdown_timeout_ms), .preset = "30s", .max = DAY,
     .help = "requests under way may take this long at the end"},
    {"caches", NAMED(cache_scope, caches), .max = 256, .help = "caches by name"},
    {"origins", NAMED(origin_scope, origins), .max = 1024, .help = "origins by name"},
    {"servers", ITEMS(server_scope, servers), .min = 1, .max = 64, .required = true, .help = "what is listened on"},
};
const struct scope conf_scope = {SCOPE("", conf_rows)};
#undef AT

/* ---- asking a row */

void row_array(const struct directive *row, const void *item, void **array, unsigned *count)
{
    memcpy(array, (const char *)item + row->offset, sizeof *array);
    memcpy(count, (const char *)item + row->count_offset, sizeof *count);
}

void row_array_set(const struct directive *row, void *item, void *array, unsigned count)
{
    memcpy((char *)item + row->offset, &array, sizeof array);
    memcpy((char *)item + row->count_offset, &count, sizeof count);
}

const struct directive *scope_row(const struct scope *s, const char *name)
{
    for (size_t i = 0; i < s->nrows; i++)
        if (strcmp(s->rows[i].name, name) == 0) return &s->rows[i];
    return NULL;
}

struct str row_group(const struct directive *row)
{
    const char *dot = strchr(row->name, '.');
    return dot ? str_make(row->name, (size_t)(dot - row->name)) : str_make(NULL, 0);
}

struct str row_key(const struct directive *row)
{
    const char *dot = strchr(row->name, '.');
    return str_c(dot ? dot + 1 : row->name);
}

bool row_applies(const struct scope *s, const struct directive *row, const void *item)
{
    unsigned kind;
    if (!row->only) return true;
    memcpy(&kind, row_field_const(scope_row(s, s->kind), item), sizeof kind);
    return row->only & 1u << kind;
}

char *row_kinds(const struct scope *s, const struct directive *row, char *buf, size_t n)
{
    size_t at = 0;
    buf[0] = '\0';
    for (unsigned i = 0; row->only >> i && at < n; i++) {
        if (!(row->only & 1u << i)) continue;
        struct str word = words_at(scope_row(s, s->kind)->words, i);
        at += (size_t)snprintf(buf + at, n - at, "%s%.*s", at ? ", " : "", STR_ARG(word));
    }
    return buf;
}

static char *number_bounds(const struct directive *row, char *buf, size_t n)
{
    const struct value_type *type = row->type == &value_workers ? &value_count : row->type;
    const uint64_t ends[2] = {row->min, row->max};
    char text[2][32];
    for (int i = 0; i < 2; i++) {
        struct strbuf b;
        strbuf_init(&b, sizeof text[0] - 1);
        type->format(NULL, row, &ends[i], &b);
        snprintf(text[i], sizeof text[i], STR_FMT, STR_ARG(strbuf_get(&b)));
        strbuf_free(&b);
    }
    snprintf(buf, n, "%s..%s%s", text[0], text[1], row->power_of_two ? ", a power of two" : "");
    return buf;
}

static char *word_bounds(const struct directive *row, char *buf, size_t n)
{
    size_t at = 0;
    struct str word;
    for (unsigned i = 0; (word = words_at(row->words, i)).p && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%.*s", i ? " | " : "", STR_ARG(word));
    return buf;
}

char *row_bounds(const struct directive *row, char *buf, size_t n)
{
    buf[0] = '\0';
    if (row->words) return word_bounds(row, buf, n);
    return row->shape == ROW_ONE && row->type->number ? number_bounds(row, buf, n) : buf;
}

char *row_type(const struct directive *row, char *buf, size_t n)
{
    switch (row->shape) {
    case ROW_ONE: snprintf(buf, n, "%s", row->type->name); break;
    case ROW_LIST: snprintf(buf, n, "list of %s", row->type->name); break;
    case ROW_ITEMS: snprintf(buf, n, "list"); break;
    case ROW_NAMED: snprintf(buf, n, "map of names"); break;
    case ROW_CHILD: snprintf(buf, n, "map"); break;
    }
    return buf;
}

/* ---- whole structs */

enum err scope_init(const struct scope *s, const struct conf *c, void *item)
{
    char why[16];
    for (size_t i = 0; i < s->nrows; i++) {
        const struct directive *row = &s->rows[i];
        if (row->shape != ROW_ONE) continue;
        if (row->type->init) row->type->init(row_field(row, item));
        if (!row->preset) continue;
        enum err e = row->type->parse(c, row, str_c(row->preset), row_field(row, item), why, sizeof why);
        CHECK(e == ERR_OK || e == ERR_NOMEM); /* a default that is not valid is a bug of the table */
        if (e) return e;
    }
    return ERR_OK;
}

static void array_clear(const struct directive *row, void *item)
{
    void *array;
    unsigned count;
    row_array(row, item, &array, &count);
    for (unsigned i = 0; i < count; i++) {
        if (row->shape != ROW_LIST)
            scope_clear(row->child, (char *)array + i * row->child->size);
        else if (row->type->clear)
            row->type->clear((char *)array + i * row->type->size);
    }
    free(array);
    row_array_set(row, item, NULL, 0);
}

void scope_clear(const struct scope *s, void *item)
{
    if (s->named) value_name.clear(item);
    for (size_t i = 0; i < s->nrows; i++) {
        const struct directive *row = &s->rows[i];
        if (row->shape != ROW_ONE)
            array_clear(row, item);
        else if (row->type->clear)
            row->type->clear(row_field(row, item));
    }
}
