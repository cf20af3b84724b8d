/* admin.c - the admin API, below the path of a route with `handler: admin`.
 *
 *   GET  (the route's path itself)   what there is, as JSON
 *   GET  health                      200 while the process answers
 *   GET  ready                       200, or 503 while starting, draining or without a usable origin
 *   GET  stats                       counters, as JSON
 *   GET  config                      the effective configuration, secrets masked, as YAML
 *   POST purge                       {"uri": U}, {"prefix": P} or {"all": true} -> {"purged": count}
 *
 * U and P are paths as clients send them, /bucket/key, or s3://bucket/key with the key as it is. HEAD does as
 * GET; the proxy drops the bodies. Every answer says Cache-Control: no-store.
 *
 * Built against s3p_module.h alone, and jansson. Who may come here is the route's matter (`allow`). A handler
 * may answer at once or after the body has come; it answers exactly once. */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "s3p_module.h"

#define BODY_MAX_BYTES 65536
#define PURGE_EXPECTED                                                                                       \
    "Expected a JSON object with one member: {\"uri\": \"/bucket/key\"}, {\"prefix\": \"/bucket/pre\"} or "  \
    "{\"all\": true}; s3://bucket/key does for a path."

extern const s3p_module s3p_admin_module;

static const s3p_api *proxy; /* set by init, before there are workers */

struct endpoint {
    const char *name; /* below the route; "" is the route itself */
    bool post;        /* POST; otherwise GET and HEAD */
    const char *about;
    void (*serve)(s3p_request *r, const s3p_request_info *info);
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

static void serve_stats(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    answer_owned(r, "application/json", proxy->stats_json());
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

static void purge_body(s3p_request *r, s3p_str body, void *arg)
{
    json_error_t why;
    char message[512];

    (void)arg;
    if (!body.p || body.n > BODY_MAX_BYTES) { /* or the client failed; then nobody reads this */
        answer_error(r, 413, "EntityTooLarge", "Expected a request body of at most 65536 bytes.");
        return;
    }
    json_t *root = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &why);
    if (root) {
        purge_members(r, root);
        json_decref(root);
        return;
    }
    /* Without memory it often says nothing at all; of bad input it always speaks. */
    if (why.text[0] == '\0' || json_error_code(&why) == json_error_out_of_memory) {
        answer_error(r, 503, "SlowDown", "Out of memory.");
        return;
    }
    /* The parser's own words quote the body, which may be anything; where it stopped is enough. */
    if (body.n == 0) snprintf(message, sizeof message, "The request body is empty. %s", PURGE_EXPECTED);
    else
        snprintf(message, sizeof message, "The request body is no JSON: error in line %d, column %d. %s",
                 why.line, why.column, PURGE_EXPECTED);
    answer_error(r, 400, "InvalidRequest", message);
}

static void serve_purge(s3p_request *r, const s3p_request_info *info)
{
    (void)info;
    proxy->request_body(r, BODY_MAX_BYTES, purge_body, NULL);
}

/* ---- what there is */

static void serve_index(s3p_request *r, const s3p_request_info *info);

static const struct endpoint endpoints[] = {
    {"", false, "what there is", serve_index},
    {"health", false, "200 while the process answers", serve_health},
    {"ready", false, "200, or 503 while starting, draining or without a usable origin", serve_ready},
    {"stats", false, "counters as JSON", serve_stats},
    {"config", false, "the effective configuration as YAML, secrets masked", serve_config},
    {"purge", true,
     "drop from the caches: {\"uri\": \"/bucket/key\"}, {\"prefix\": \"/bucket/pre\"} or {\"all\": true}",
     serve_purge},
};
#define NENDPOINTS (sizeof endpoints / sizeof endpoints[0])

static json_t *describe_endpoint(const struct endpoint *e, s3p_str route)
{
    const char *slash = route.n && route.p[route.n - 1] == '/' ? "" : "/";
    json_t *path = json_sprintf("%.*s%s%s", (int)route.n, route.n ? route.p : "", slash, e->name);
    json_t *methods = e->post ? json_pack("[s]", "POST") : json_pack("[ss]", "GET", "HEAD");
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

static const struct endpoint *endpoint_find(const s3p_request_info *info)
{
    s3p_str rest;
    if (!path_below(info->path, info->route, &rest)) return NULL;
    for (size_t i = 0; i < NENDPOINTS; i++)
        if (str_is(rest, endpoints[i].name)) return &endpoints[i];
    return NULL;
}

static enum s3p_result admin_handler(s3p_request *r)
{
    s3p_request_info info;

    proxy->request_info(r, &info);
    const struct endpoint *e = endpoint_find(&info);
    if (!e) {
        answer_error(r, 404, "NoSuchKey",
                     "There is no such admin endpoint; the route's own path lists those there are.");
        return S3P_OK;
    }
    bool allowed =
        e->post ? str_is(info.method, "POST") : str_is(info.method, "GET") || str_is(info.method, "HEAD");
    if (allowed) e->serve(r, &info);
    else if (begin_answer(r, e->post ? "POST" : "GET, HEAD"))
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
