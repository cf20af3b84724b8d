/* admin.c - the admin API, below the path of a route with `handler: admin`.
 *
 *   GET  (the route's path itself)   what there is, as JSON
 *   GET  health                      200 while the process answers
 *   GET  ready                       200, or 503 while starting, draining or without a usable origin
 *   GET  stats                       counters, as JSON; stats?since=LABEL: what was counted since that mark
 *   GET  metrics                     the same in the Prometheus text format
 *   POST mark                        {"label": L} names this moment -> {"label", "at"}
 *   GET  mark                        the marks there are
 *   GET  objects?prefix=P&max=N&after=T  what is cached there -> {"objects": [...], "next": T or null}
 *   POST warm                        {"uris": [U...]}, {"prefix": P} or {"manifest": U}, and "pin", "concurrency"
 *                                    -> 202 {"id"}; GET warm: all jobs; GET warm/ID: one; DELETE warm/ID: cancels it
 *   GET  config                      the effective configuration, secrets masked, as YAML
 *   POST purge                       {"uri": U}, {"prefix": P} or {"all": true} -> {"purged": count}
 *
 * U and P are paths as clients send them, /bucket/key, or s3://bucket/key with the key as it is. HEAD does as
 * GET; the proxy drops the bodies. Every answer says Cache-Control: no-store.
 *
 * A route whose path ends in the name of an endpoint, such as /_s3dlio/ready, is of that endpoint and nothing below
 * it: so it can be open to more people than the rest.
 *
 * Built against s3p_module.h alone, and jansson. Who may come here is the route's matter (`allow`). A handler
 * may answer at once or after the body has come; it answers exactly once. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "s3p_module.h"

#define BODY_MAX_BYTES 65536
#define WARM_BODY_BYTES (8u << 20)
#define BODY_MAX_VALUES 100000 /* parsed, each takes some hundred bytes, whatever it takes in the body */
#define PURGE_EXPECTED                                                                                       \
    "Expected a JSON object with one member: {\"uri\": \"/bucket/key\"}, {\"prefix\": \"/bucket/pre\"} or "  \
    "{\"all\": true}; s3://bucket/key does for a path."
#define MARK_EXPECTED "Expected a JSON object {\"label\": L}, L being 1 to 64 printable ASCII characters."

extern const s3p_module s3p_admin_module;

static const s3p_api *proxy; /* set by init, before there are workers */

typedef void serve_fn(s3p_request *r, const s3p_request_info *info);
struct endpoint {
    const char *name; /* below the route; "" is the route itself */
    const char *about;
    serve_fn *get;  /* GET and HEAD; NULL: not allowed */
    serve_fn *post;
    serve_fn *del;
    bool below; /* what stands below it, "name/...", is its own, too */
};

/* ---- answers */

static s3p_str str_of(const char *z) { return (s3p_str){z, strlen(z)}; }

/* The fields of every answer; allow may be NULL. False: memory ran out, and r is answered. */
static bool begin_answer(s3p_request *r, const char *allow)
{
    if (proxy->response_set(r, "Cache-Control", str_of("no-store")) &&
        (!allow || proxy->response_set(r, "Allow", str_of(allow))))
        return true;
    proxy->respond_error(r, 503, "SlowDown", "Out of memory.");
    return false;
}

static void answer(s3p_request *r, unsigned status, const char *type, const char *text)
{
    if (begin_answer(r, NULL)) proxy->respond(r, status, type, str_of(text));
}

static void answer_error(s3p_request *r, unsigned status, const char *code, const char *message)
{
    if (begin_answer(r, NULL)) proxy->respond_error(r, status, code, message);
}

/* text is malloc'ed and taken; NULL: memory ran out. */
static void answer_owned(s3p_request *r, const char *type, char *text)
{
    if (text) answer(r, 200, type, text);
    else answer_error(r, 503, "SlowDown", "Out of memory.");
    free(text);
}

/* ---- reading endpoints */

static void serve_health(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    answer(r, 200, "application/json", "{\"status\":\"ok\"}\n");
}

static void serve_ready(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    if (proxy->ready()) answer(r, 200, "application/json", "{\"status\":\"ready\"}\n");
    else answer(r, 503, "application/json", "{\"status\":\"not ready\"}\n");
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char hex_byte(const char *p) { return (char)(unsigned char)(hex_digit(p[0]) << 4 | hex_digit(p[1])); }

/* The value of a parameter of the query, decoded, in the request's memory; {NULL, 0}: it is not there, or memory ran out. */
static s3p_str query_value(s3p_request *r, s3p_str query, const char *name)
{
    size_t length = strlen(name);
    const char *p = query.p, *end = query.p + query.n, *stop;

    for (; p && p < end; p = stop + 1) {
        stop = memchr(p, '&', (size_t)(end - p));
        if (!stop) stop = end;
        if ((size_t)(stop - p) <= length || memcmp(p, name, length) != 0 || p[length] != '=') continue;
        char *text = proxy->alloc(r, (size_t)(stop - p)), *t = text;
        if (!text) break;
        for (p += length + 1; p < stop; p++) {
            bool coded = *p == '%' && stop - p > 2 && hex_digit(p[1]) >= 0 && hex_digit(p[2]) >= 0;
            *t++ = coded ? hex_byte(p + 1) : *p == '+' ? ' ' : *p;
            if (coded) p += 2;
        }
        return (s3p_str){text, (size_t)(t - text)};
    }
    return (s3p_str){NULL, 0};
}

/* json is malloc'ed and taken. */
static void answer_outcome(s3p_request *r, enum s3p_outcome o, unsigned status, char *json, const char *malformed,
                           const char *unknown)
{
    switch (o) {
    case S3P_DONE: answer(r, status, "application/json", json); break;
    case S3P_MALFORMED: answer_error(r, 400, "InvalidArgument", malformed); break;
    case S3P_UNKNOWN: answer_error(r, 404, "NoSuchKey", unknown); break;
    case S3P_FULL: answer_error(r, 503, "SlowDown", "There is no room for one more of these; try again later."); break;
    case S3P_NO_MEMORY: answer_error(r, 503, "SlowDown", "Out of memory."); break;
    }
    free(json);
}

static void serve_stats(s3p_request *r, const s3p_request_info *info)
{
    s3p_str label = query_value(r, info->query, "since");
    char *json = NULL;

    if (!label.p) {
        answer_owned(r, "application/json", proxy->stats_json());
        return;
    }
    enum s3p_outcome o = proxy->stats_since_json(label, &json);
    answer_outcome(r, o, 200, json, "", "There is no mark of that label; GET mark lists those there are.");
}

static void serve_metrics(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    answer_owned(r, "text/plain; version=0.0.4; charset=utf-8", proxy->metrics());
}

static void serve_marks(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    answer_owned(r, "application/json", proxy->marks_json());
}

static void serve_config(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    answer_owned(r, "application/yaml", proxy->config_yaml());
}

/* ---- purge */

/* Clients percent-encode all but these in a path. */
static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("-._~/", c));
}

/* What cannot stand in a request target anyway. */
static bool is_printable(unsigned char c) { return c > 0x20 && c < 0x7F; }

/* "/" (unless it is there), s with %XX for bytes that are not kept, and the tail; malloc'ed, NULL when memory
 * ran out. */
static char *encode_path(s3p_str s, bool (*keep)(unsigned char c), const char *tail)
{
    static const char hex[] = "0123456789ABCDEF";
    char *text = malloc(1 + 3 * s.n + strlen(tail) + 1), *p = text;

    if (!text) return NULL;
    if (s.n == 0 || s.p[0] != '/') *p++ = '/';
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (keep(c)) {
            *p++ = (char)c;
            continue;
        }
        *p++ = '%';
        *p++ = hex[c >> 4];
        *p++ = hex[c & 15];
    }
    memcpy(p, tail, strlen(tail) + 1);
    return text;
}

/* "/bucket/key" or "s3://bucket/key" as a path. A key in an s3:// URI stands for itself ('%' is a '%'), so it
 * is encoded as the SDKs do; one in a path is encoded already. s3://bucket means what is in that bucket, not
 * what begins like its name. False: it is neither. */
static bool place_to_path(s3p_str s, bool is_prefix, char **out)
{
    static const char scheme[] = "s3://";
    size_t skip = sizeof scheme - 1;
    bool is_s3 = s.n > skip && memcmp(s.p, scheme, skip) == 0;
    s3p_str rest = is_s3 ? (s3p_str){s.p + skip, s.n - skip} : (s3p_str){s.p + 1, s.n ? s.n - 1 : 0};
    const char *slash = rest.n ? memchr(rest.p, '/', rest.n) : NULL;
    bool has_key = slash && slash > rest.p && slash < rest.p + rest.n - 1;

    if (!is_s3 && (s.n == 0 || s.p[0] != '/')) return false;
    if (is_prefix ? is_s3 && slash == rest.p : !has_key) return false;
    if (is_s3) *out = encode_path(rest, is_unreserved, slash ? "" : "/");
    else *out = encode_path(s, is_printable, "");
    return true;
}

static void answer_purged(s3p_request *r, const char *kind, s3p_str what)
{
    char text[64];
    int64_t purged = proxy->purge(kind, what);

    if (purged < 0) {
        answer_error(r, 500, "InternalError", "The caches could not be purged.");
        return;
    }
    snprintf(text, sizeof text, "{\"purged\": %" PRId64 "}\n", purged);
    answer(r, 200, "application/json", text);
}

static void purge_place(s3p_request *r, const char *kind, const json_t *value)
{
    bool is_prefix = strcmp(kind, "prefix") == 0;
    s3p_str place = {json_string_value(value), json_string_length(value)};
    char *path = NULL;

    if (!place.p || !place_to_path(place, is_prefix, &path)) {
        answer_error(
            r, 400, "InvalidArgument",
            is_prefix
                ? "Expected \"prefix\" to be a string: /bucket/pre, s3://bucket/pre or s3://bucket."
                : "Expected \"uri\" to be a string with a bucket and a key: /bucket/key or s3://bucket/key.");
        return;
    }
    if (path) answer_purged(r, kind, str_of(path));
    else answer_error(r, 503, "SlowDown", "Out of memory.");
    free(path);
}

static void purge_members(s3p_request *r, const json_t *root)
{
    const json_t *uri = json_object_get(root, "uri"), *prefix = json_object_get(root, "prefix"),
                 *all = json_object_get(root, "all");

    if (!json_is_object(root) || json_object_size(root) != 1 || !(uri || prefix || all))
        answer_error(r, 400, "InvalidArgument", PURGE_EXPECTED);
    else if (uri) purge_place(r, "uri", uri);
    else if (prefix) purge_place(r, "prefix", prefix);
    else if (json_is_true(all)) answer_purged(r, "all", (s3p_str){"", 0});
    else answer_error(r, 400, "InvalidArgument", "Expected \"all\" to be true.");
}

/* What is done with the JSON of a request's body, and what it should have been. */
struct body_use {
    void (*use)(s3p_request *r, const json_t *root);
    const char *expected;
    size_t max; /* bytes of the body */
};

/* At least as many as a parser would make: what stands behind a bracket or a comma, outside of strings. */
static size_t count_values(s3p_str body)
{
    size_t n = 1;
    bool in_string = false;

    for (size_t i = 0; i < body.n; i++) {
        char c = body.p[i];
        if (c == '"') in_string = !in_string;
        else if (in_string) i += c == '\\';
        else n += c == ',' || c == '[' || c == '{';
    }
    return n;
}

static void body_read(s3p_request *r, s3p_str body, void *arg)
{
    const struct body_use *u = arg;
    json_error_t why;
    char message[512];

    if (!body.p || body.n > u->max) { /* or the client failed; then nobody reads this */
        snprintf(message, sizeof message, "Expected a request body of at most %zu bytes.", u->max);
        answer_error(r, 413, "EntityTooLarge", message);
        return;
    }
    if (body.n && memchr(body.p, '\0', body.n)) { /* the parser would overlook some */
        answer_error(r, 400, "InvalidRequest", "The request body is no JSON: there is a NUL byte in it.");
        return;
    }
    if (count_values(body) > BODY_MAX_VALUES) {
        snprintf(message, sizeof message, "Expected at most %d values; a manifest may name any number of objects.",
                 BODY_MAX_VALUES);
        answer_error(r, 413, "EntityTooLarge", message);
        return;
    }
    json_t *root = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &why);
    if (root) {
        u->use(r, root);
        json_decref(root);
        return;
    }
    /* Without memory it often says nothing at all; of bad input it always speaks. */
    if (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory) {
        answer_error(r, 503, "SlowDown", "Out of memory.");
        return;
    }
    /* The parser's own words quote the body, which may be anything; where it stopped is enough. */
    if (body.n == 0) snprintf(message, sizeof message, "The request body is empty. %s", u->expected);
    else
        snprintf(message, sizeof message, "The request body is no JSON: error in line %d, column %d. %s",
                 why.line, why.column, u->expected);
    answer_error(r, 400, "InvalidRequest", message);
}

static void body_use(s3p_request *r, const struct body_use *u)
{
    proxy->request_body(r, u->max, body_read, (void *)(uintptr_t)u);
}

static void serve_purge(s3p_request *r, const s3p_request_info *info)
{
    static const struct body_use use = {purge_members, PURGE_EXPECTED, BODY_MAX_BYTES};
    (void)info;
    body_use(r, &use);
}

/* ---- mark */

static void mark_members(s3p_request *r, const json_t *root)
{
    const json_t *label = json_object_get(root, "label");
    s3p_str text = {json_string_value(label), json_string_length(label)};
    char *json = NULL;
    bool good = json_is_object(root) && json_object_size(root) == 1 && text.p;
    enum s3p_outcome o = good ? proxy->mark(text, &json) : S3P_MALFORMED;

    answer_outcome(r, o, 200, json, MARK_EXPECTED, "");
}

static void serve_mark(s3p_request *r, const s3p_request_info *info)
{
    static const struct body_use use = {mark_members, MARK_EXPECTED, BODY_MAX_BYTES};
    (void)info;
    body_use(r, &use);
}

/* ---- objects */

#define PAGE_DEFAULT 1000u
#define PAGE_MAX 10000u

static void serve_objects(s3p_request *r, const s3p_request_info *info)
{
    s3p_str place = query_value(r, info->query, "prefix"), after = query_value(r, info->query, "after"),
            number = query_value(r, info->query, "max");
    char *path = NULL, *json = NULL, digits[8] = "";
    unsigned max = PAGE_DEFAULT;

    if (number.p) {
        char *end = digits;
        if (number.n < sizeof digits) memcpy(digits, number.p, number.n);
        max = (unsigned)strtoul(digits, &end, 10);
        if (hex_digit(digits[0]) < 0 || end != digits + number.n || max < 1 || max > PAGE_MAX) {
            answer_error(r, 400, "InvalidArgument", "Expected max to be a number from 1 to 10000.");
            return;
        }
    }
    if (!place_to_path(place.n ? place : str_of("/"), true, &path)) {
        answer_error(r, 400, "InvalidArgument", "Expected prefix to be /bucket/pre, s3://bucket/pre or s3://bucket.");
        return;
    }
    enum s3p_outcome o = path ? proxy->objects_json(str_of(path), max, after, &json) : S3P_NO_MEMORY;
    answer_outcome(r, o, 200, json, "Expected after to be what next said on the page before.", "");
    free(path);
}

/* ---- warm */

#define WARM_EXPECTED                                                                                        \
    "Expected a JSON object with \"uris\": [\"s3://bucket/key\", ...], \"prefix\": \"s3://bucket/pre\" or "   \
    "\"manifest\": \"s3://bucket/key\", and perhaps \"pin\": true and \"concurrency\": N; /bucket/key does for " \
    "a URI."

struct warm_paths {
    char **all;
    s3p_str *strs;
    size_t n;
};

static void warm_paths_free(struct warm_paths *w)
{
    for (size_t i = 0; i < w->n; i++) free(w->all[i]);
    free(w->all);
    free(w->strs);
}

/* Takes one more; false: it is no such place. all[n] NULL: memory ran out. */
static bool warm_path_add(struct warm_paths *w, const json_t *v, bool is_prefix)
{
    s3p_str place = {json_string_value(v), json_string_length(v)};
    if (!place.p || !place_to_path(place, is_prefix, &w->all[w->n])) return false;
    if (w->all[w->n]) w->strs[w->n] = str_of(w->all[w->n]);
    w->n++;
    return true;
}

static enum s3p_outcome warm_read(const json_t *root, s3p_warm *what, struct warm_paths *w)
{
    const json_t *uris = json_object_get(root, "uris"), *prefix = json_object_get(root, "prefix"),
                 *manifest = json_object_get(root, "manifest"), *pin = json_object_get(root, "pin"),
                 *concurrency = json_object_get(root, "concurrency");
    size_t n = uris ? json_array_size(uris) : 1;
    unsigned known = (uris ? 1u : 0u) + (prefix ? 1u : 0u) + (manifest ? 1u : 0u);
    unsigned more = (pin ? 1u : 0u) + (concurrency ? 1u : 0u);

    if (!json_is_object(root) || known != 1 || json_object_size(root) != known + more ||
        (pin && !json_is_boolean(pin)) || (uris && !json_is_array(uris)) || n == 0)
        return S3P_MALFORMED;
    json_int_t c = json_integer_value(concurrency);
    if (concurrency && (!json_is_integer(concurrency) || c < 1 || c > 10000)) return S3P_MALFORMED;
    w->all = calloc(n, sizeof *w->all);
    w->strs = calloc(n, sizeof *w->strs);
    if (!w->all || !w->strs) return S3P_NO_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = uris ? json_array_get(uris, i) : prefix ? prefix : manifest;
        if (!warm_path_add(w, v, prefix != NULL)) return S3P_MALFORMED;
        if (!w->all[i]) return S3P_NO_MEMORY;
    }
    if (uris) *what = (s3p_warm){.paths = w->strs, .npaths = n};
    else if (prefix) what->prefix = w->strs[0];
    else what->manifest = w->strs[0];
    what->pin = json_is_true(pin);
    what->concurrency = (unsigned)c;
    return S3P_DONE;
}

static void warm_members(s3p_request *r, const json_t *root)
{
    struct warm_paths w = {0};
    s3p_warm what = {0};
    char *json = NULL;
    enum s3p_outcome o = warm_read(root, &what, &w);

    if (o == S3P_DONE) o = proxy->warm(r, &what, &json);
    warm_paths_free(&w);
    answer_outcome(r, o, 202, json, WARM_EXPECTED, "");
}

static void serve_warm(s3p_request *r, const s3p_request_info *info)
{
    static const struct body_use use = {warm_members, WARM_EXPECTED, WARM_BODY_BYTES};
    (void)info;
    body_use(r, &use);
}

static bool path_below(s3p_str path, s3p_str route, s3p_str *rest);

/* ID of "warm/ID"; empty for "warm". */
static s3p_str warm_id(const s3p_request_info *info)
{
    s3p_str rest;
    if (!path_below(info->path, info->route, &rest) || rest.n < sizeof "warm/" - 1) return (s3p_str){"", 0};
    return (s3p_str){rest.p + (sizeof "warm/" - 1), rest.n - (sizeof "warm/" - 1)};
}

static void serve_warm_get(s3p_request *r, const s3p_request_info *info)
{
    s3p_str id = warm_id(info);
    char *json = NULL;

    if (id.n == 0) {
        answer_owned(r, "application/json", proxy->warm_list_json());
        return;
    }
    enum s3p_outcome o = proxy->warm_json(id, &json);
    answer_outcome(r, o, 200, json, "", "There is no such job; GET warm lists those there are.");
}

static void serve_warm_delete(s3p_request *r, const s3p_request_info *info)
{
    char *json = NULL;
    enum s3p_outcome o = proxy->warm_cancel(warm_id(info), &json);
    answer_outcome(r, o, 200, json, "", "There is no such job; GET warm lists those there are.");
}

/* ---- what there is */

static void serve_index(s3p_request *r, const s3p_request_info *info);

static const struct endpoint endpoints[] = {
    {"", "what there is", .get = serve_index},
    {"health", "200 while the process answers", .get = serve_health},
    {"ready", "200, or 503 while starting, draining or without a usable origin", .get = serve_ready},
    {"stats", "counters as JSON; ?since=LABEL: what was counted since that mark", .get = serve_stats},
    {"metrics", "the same in the Prometheus text format", .get = serve_metrics},
    {"mark", "names this moment: {\"label\": L}; GET lists the marks", .get = serve_marks, .post = serve_mark},
    {"objects", "what is cached: ?prefix=P&max=N&after=TOKEN", .get = serve_objects},
    {"config", "the effective configuration as YAML, secrets masked", .get = serve_config},
    {"purge", "drop from the caches: {\"uri\": \"/bucket/key\"}, {\"prefix\": \"/bucket/pre\"} or {\"all\": true}",
     .post = serve_purge},
    {"warm", "read into the caches: {\"uris\": [...]}, {\"prefix\": P} or {\"manifest\": U}; GET and DELETE warm/ID",
     .get = serve_warm_get, .post = serve_warm, .del = serve_warm_delete, .below = true},
};
#define NENDPOINTS (sizeof endpoints / sizeof endpoints[0])

static json_t *describe_endpoint(const struct endpoint *e, s3p_str route)
{
    const char *slash = route.n && route.p[route.n - 1] == '/' ? "" : "/";
    json_t *path = json_sprintf("%.*s%s%s", (int)route.n, route.n ? route.p : "", slash, e->name);
    json_t *methods = json_array();
    if (e->get) json_array_append_new(methods, json_string("GET"));
    if (e->get) json_array_append_new(methods, json_string("HEAD"));
    if (e->post) json_array_append_new(methods, json_string("POST"));
    if (e->del) json_array_append_new(methods, json_string("DELETE"));
    /* "o" takes its reference even when packing fails, and fails for NULL. */
    return json_pack("{sososs}", "path", path, "methods", methods, "about", e->about);
}

static char *describe_all(s3p_str route)
{
    json_t *list = json_array();
    for (size_t i = 0; i < NENDPOINTS; i++) {
        if (json_array_append_new(list, describe_endpoint(&endpoints[i], route)) == 0) continue;
        json_decref(list);
        return NULL;
    }
    json_t *root = json_pack("{ssso}", "version", proxy->version(), "endpoints", list);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    return text;
}

static void serve_index(s3p_request *r, const s3p_request_info *info)
{
    answer_owned(r, "application/json", describe_all(info->route));
}

/* ---- the module */

static bool str_is(s3p_str s, const char *z)
{
    return s.n == strlen(z) && (s.n == 0 || memcmp(s.p, z, s.n) == 0);
}

/* What stands below the route, without the slash between; false: path is not below it. */
static bool path_below(s3p_str path, s3p_str route, s3p_str *rest)
{
    if (path.n < route.n || (route.n && memcmp(path.p, route.p, route.n) != 0)) return false;
    *rest = (s3p_str){path.p + route.n, path.n - route.n};
    if (rest->n == 0 || (route.n && route.p[route.n - 1] == '/')) return true;
    if (rest->p[0] != '/') return false;
    rest->p++;
    rest->n--;
    return true;
}

/* The endpoint a route is of, when its path ends in the name of one. */
static const struct endpoint *endpoint_of_route(s3p_str route)
{
    for (size_t i = 0; i < NENDPOINTS; i++) {
        size_t n = strlen(endpoints[i].name);
        if (n && route.n > n && route.p[route.n - n - 1] == '/' && memcmp(route.p + route.n - n, endpoints[i].name, n) == 0)
            return &endpoints[i];
    }
    return NULL;
}

static const struct endpoint *endpoint_find(const s3p_request_info *info)
{
    s3p_str rest;
    if (!path_below(info->path, info->route, &rest)) return NULL;
    const struct endpoint *only = endpoint_of_route(info->route);
    if (only) return rest.n == 0 ? only : NULL;
    for (size_t i = 0; i < NENDPOINTS; i++) {
        const struct endpoint *e = &endpoints[i];
        size_t n = strlen(e->name);
        if (str_is(rest, e->name)) return e;
        if (e->below && rest.n > n + 1 && memcmp(rest.p, e->name, n) == 0 && rest.p[n] == '/') return e;
    }
    return NULL;
}

static serve_fn *endpoint_method(const struct endpoint *e, s3p_str method)
{
    if (str_is(method, "POST")) return e->post;
    if (str_is(method, "DELETE")) return e->del;
    return str_is(method, "GET") || str_is(method, "HEAD") ? e->get : NULL;
}

static bool str_same(s3p_str a, s3p_str b) { return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0); }

/* A page of another site in a browser that runs where the route allows clients (https://fetch.spec.whatwg.org/, Origin
 * header; https://www.w3.org/TR/fetch-metadata/): whoever sees it has not asked for what it does. Browsers say so; other
 * clients send neither field. */
static bool is_of_another_site(s3p_request *r, const s3p_request_info *info)
{
    s3p_str site = proxy->request_header(r, "sec-fetch-site"), origin = proxy->request_header(r, "origin");

    if (site.p) return !str_is(site, "same-origin") && !str_is(site, "none");
    if (!origin.p) return false; /* else of a browser too old for the other */
    const char *slashes = origin.n > 3 ? memmem(origin.p, origin.n, "://", 3) : NULL; /* else "null": nobody's */
    s3p_str authority = slashes ? (s3p_str){slashes + 3, (size_t)(origin.p + origin.n - slashes - 3)} : origin;
    s3p_str host = proxy->request_header(r, "host");
    return !str_same(authority, host.p ? host : info->host);
}

static enum s3p_result admin_handler(s3p_request *r)
{
    s3p_request_info info;

    proxy->request_info(r, &info);
    const struct endpoint *e = endpoint_find(&info);
    if (!str_is(info.method, "GET") && !str_is(info.method, "HEAD") && is_of_another_site(r, &info)) {
        answer_error(r, 403, "AccessDenied", "This was asked for by a page of another site.");
        return S3P_OK;
    }
    if (!e) {
        answer_error(r, 404, "NoSuchKey",
                     "There is no such admin endpoint; the route's own path lists those there are.");
        return S3P_OK;
    }
    serve_fn *serve = endpoint_method(e, info.method);
    const char *allow = e->del ? "GET, HEAD, POST, DELETE" : !e->get ? "POST" : e->post ? "GET, HEAD, POST" : "GET, HEAD";
    if (serve) serve(r, &info);
    else if (begin_answer(r, allow))
        proxy->respond_error(r, 405, "MethodNotAllowed",
                             "The specified method is not allowed against this resource.");
    return S3P_OK;
}

static int admin_init(const s3p_api *api, char *why, size_t n)
{
    (void)why;
    (void)n;
    proxy = api;
    return 0;
}

const s3p_module s3p_admin_module = {
    .abi = S3P_ABI_VERSION,
    .name = "admin",
    .init = admin_init,
    .order = 50,
    .handler_name = "admin",
    .handler = admin_handler,
};
