/* test_admin.c - the admin API, driven through a fake s3p_api: the module needs nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../modules/admin/admin.c"

#define S(literal) ((s3p_str){literal, sizeof(literal) - 1})

/* ---- the proxy that is not there: one request at a time */

static struct {
    s3p_request_info info;
    s3p_str body; /* p NULL: too large */
    bool body_later;
    void (*body_done)(s3p_request *r, s3p_str body, void *arg);
    void *body_arg;
    bool not_ready, no_memory, refuse_fields, refuse_purge;
    enum s3p_outcome outcome;
    char asked[300];
    const char *origin, *site, *host; /* fields of the request; NULL: absent */
    char memory[1024]; /* of the request */
    size_t memory_n;
    /* what was done */
    unsigned answers, status, purges;
    char type[64], code[64], text[8192], cache_control[64], allow[64];
    char purge_kind[16], purge_what[512];
    size_t body_max;
} fake;

static s3p_request *request(void) { return (s3p_request *)(void *)&fake; }
static void expect_request(const s3p_request *r) { assert_ptr_equal(r, &fake); }

static void fake_info(const s3p_request *r, s3p_request_info *out)
{
    expect_request(r);
    *out = fake.info;
}
static void fake_body(s3p_request *r, size_t max, void (*done)(s3p_request *r, s3p_str body, void *arg), void *arg)
{
    expect_request(r);
    fake.body_max = max;
    fake.body_done = done;
    fake.body_arg = arg;
    if (!fake.body_later) done(r, fake.body, arg);
}
static s3p_str fake_header(const s3p_request *r, const char *lower_name)
{
    expect_request(r);
    const char *v = strcmp(lower_name, "origin") == 0           ? fake.origin
                    : strcmp(lower_name, "sec-fetch-site") == 0 ? fake.site
                    : strcmp(lower_name, "host") == 0           ? fake.host
                                                                : NULL;
    return v ? str_of(v) : (s3p_str){NULL, 0};
}
static bool fake_set(s3p_request *r, const char *name, s3p_str value)
{
    expect_request(r);
    assert_int_equal(fake.answers, 0); /* before the answer, or it is too late */
    if (fake.refuse_fields) return false;
    char *field = strcmp(name, "Cache-Control") == 0 ? fake.cache_control : strcmp(name, "Allow") == 0 ? fake.allow : NULL;
    assert_non_null(field);
    snprintf(field, 64, "%.*s", (int)value.n, value.p);
    return true;
}
static void fake_respond(s3p_request *r, unsigned status, const char *content_type, s3p_str body)
{
    expect_request(r);
    fake.answers++;
    fake.status = status;
    snprintf(fake.type, sizeof fake.type, "%s", content_type);
    assert_true(body.n < sizeof fake.text);
    memcpy(fake.text, body.p, body.n);
    fake.text[body.n] = '\0';
}
static void fake_error(s3p_request *r, unsigned status, const char *s3_code, const char *message)
{
    expect_request(r);
    fake.answers++;
    fake.status = status;
    snprintf(fake.code, sizeof fake.code, "%s", s3_code);
    snprintf(fake.text, sizeof fake.text, "%s", message);
}
static void *fake_alloc(s3p_request *r, size_t n)
{
    expect_request(r);
    if (n > sizeof fake.memory - fake.memory_n) return NULL;
    fake.memory_n += n;
    return fake.memory + fake.memory_n - n;
}
static char *fake_stats(void) { return fake.no_memory ? NULL : strdup("{\"version\":\"1\"}"); }
static char *fake_config(void) { return fake.no_memory ? NULL : strdup("workers: 2\n"); }
static bool fake_ready(void) { return !fake.not_ready; }
static int64_t fake_purge(const char *kind, s3p_str what)
{
    fake.purges++;
    snprintf(fake.purge_kind, sizeof fake.purge_kind, "%s", kind);
    snprintf(fake.purge_what, sizeof fake.purge_what, "%.*s", (int)what.n, what.p);
    return fake.refuse_purge ? -1 : 42;
}
static char *fake_metrics(void) { return fake.no_memory ? NULL : strdup("# HELP\n"); }
static char *fake_marks(void) { return fake.no_memory ? NULL : strdup("{\"marks\": []}"); }
static char *fake_jobs(void) { return fake.no_memory ? NULL : strdup("{\"jobs\": []}"); }
/* What was asked, and the outcome that the test wants. */
static enum s3p_outcome note(char **json, const char *what, s3p_str name)
{
    snprintf(fake.asked, sizeof fake.asked, "%s %.*s", what, (int)name.n, name.p ? name.p : "");
    *json = fake.outcome == S3P_DONE ? strdup("{\"ok\": true}") : NULL;
    return fake.outcome;
}
static enum s3p_outcome fake_mark(s3p_str label, char **json) { return note(json, "mark", label); }
static enum s3p_outcome fake_since(s3p_str label, char **json) { return note(json, "since", label); }
static enum s3p_outcome fake_warm_json(s3p_str id, char **json) { return note(json, "job", id); }
static enum s3p_outcome fake_warm_cancel(s3p_str id, char **json) { return note(json, "cancel", id); }
static enum s3p_outcome fake_objects(s3p_str prefix, unsigned max, s3p_str after, char **json)
{
    char text[256];
    int n = snprintf(text, sizeof text, "%.*s %u %.*s", (int)prefix.n, prefix.p, max, (int)after.n, after.p ? after.p : "");
    return note(json, "objects", (s3p_str){text, (size_t)n});
}
static enum s3p_outcome fake_warm(s3p_request *r, const s3p_warm *w, char **json)
{
    char text[256];
    expect_request(r);
    s3p_str first = w->npaths ? w->paths[0] : w->prefix.n ? w->prefix : w->manifest;
    int n = snprintf(text, sizeof text, "%s %zu %.*s pin=%d at=%u", w->npaths ? "paths" : w->prefix.n ? "prefix" : "manifest",
                     w->npaths, (int)first.n, first.p, w->pin, w->concurrency);
    return note(json, "warm", (s3p_str){text, (size_t)n});
}
static const char *fake_version(void) { return "0.9.1"; }

static const s3p_api api = {
    .abi = S3P_ABI_VERSION,
    .request_info = fake_info,
    .request_body = fake_body,
    .request_header = fake_header,
    .response_set = fake_set,
    .respond = fake_respond,
    .respond_error = fake_error,
    .stats_json = fake_stats,
    .config_yaml = fake_config,
    .ready = fake_ready,
    .purge = fake_purge,
    .version = fake_version,
    .alloc = fake_alloc,
    .metrics = fake_metrics,
    .mark = fake_mark,
    .marks_json = fake_marks,
    .stats_since_json = fake_since,
    .objects_json = fake_objects,
    .warm = fake_warm,
    .warm_json = fake_warm_json,
    .warm_list_json = fake_jobs,
    .warm_cancel = fake_warm_cancel,
};

static int start(void **state)
{
    char why[64] = "";
    (void)state;
    return s3p_admin_module.init(&api, why, sizeof why);
}

static void prepare(const char *method, const char *path)
{
    memset(&fake, 0, sizeof fake);
    fake.info.method = str_of(method);
    fake.info.path = str_of(path);
    fake.info.route = S("/_s3dlio/");
}

static void run(void)
{
    assert_int_equal(s3p_admin_module.handler(request()), S3P_OK);
    assert_int_equal(fake.answers, 1);
    if (!fake.refuse_fields) assert_string_equal(fake.cache_control, "no-store");
}

static void ask(const char *method, const char *path)
{
    prepare(method, path);
    run();
}

static void purge_bytes(s3p_str body)
{
    prepare("POST", "/_s3dlio/purge");
    fake.body = body;
    run();
    assert_int_equal(fake.body_max, 65536);
}

static void purge(const char *json) { purge_bytes(str_of(json)); }

static void expect_error(unsigned status, const char *code)
{
    assert_int_equal(fake.status, status);
    assert_string_equal(fake.code, code);
    assert_int_equal(fake.purges, 0);
}

/* ---- pages of other sites */

static void pages_of_other_sites_change_nothing(void **state)
{
    static const struct {
        const char *origin, *site, *host;
        bool refused;
    } all[] = {
        {NULL, NULL, "h:8080", false},
        {"http://h:8080", NULL, "h:8080", false},
        {"https://h:8080", "same-origin", "h:8080", false},
        {NULL, "none", "h", false},
        {"https://in.front", "same-origin", "h:8080", false}, /* somebody between us changed Host */
        {"http://h", NULL, "h:8080", true},
        {"http://h:80801", NULL, "h:8080", true},
        {"http://evil.example", NULL, "h:8080", true},
        {"null", NULL, "h:8080", true},
        {"", NULL, "h:8080", true},
        {"://", NULL, "", true},
        {NULL, "cross-site", "h:8080", true},
        {NULL, "same-site", "h:8080", true},
        {"http://h:8080", "cross-site", "h:8080", true},
    };
    static const char *const methods[] = {"POST", "DELETE", "GET", "HEAD"};
    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        for (size_t m = 0; m < 4; m++) {
            prepare(methods[m], m == 1 || m > 1 ? "/_s3dlio/warm" : "/_s3dlio/purge");
            fake.body = S("{\"all\": true}");
            fake.origin = all[i].origin;
            fake.site = all[i].site;
            fake.host = all[i].host;
            run();
            assert_int_equal(fake.status == 403, all[i].refused && m < 2);
            assert_int_equal(fake.purges, m == 0 && !all[i].refused);
        }
    }
}

/* ---- reading */

static void health_and_ready_say_so(void **state)
{
    static const char *const methods[] = {"GET", "HEAD"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        ask(methods[i], "/_s3dlio/health");
        assert_int_equal(fake.status, 200);
        assert_string_equal(fake.type, "application/json");
        assert_string_equal(fake.text, "{\"status\":\"ok\"}\n");
        ask(methods[i], "/_s3dlio/ready");
        assert_int_equal(fake.status, 200);
        prepare(methods[i], "/_s3dlio/ready");
        fake.not_ready = true;
        run();
        assert_int_equal(fake.status, 503);
        assert_string_equal(fake.type, "application/json");
    }
}

static void stats_and_config_are_passed_on(void **state)
{
    (void)state;
    ask("GET", "/_s3dlio/stats");
    assert_int_equal(fake.status, 200);
    assert_string_equal(fake.type, "application/json");
    assert_string_equal(fake.text, "{\"version\":\"1\"}");
    ask("GET", "/_s3dlio/config");
    assert_int_equal(fake.status, 200);
    assert_string_equal(fake.type, "application/yaml");
    assert_string_equal(fake.text, "workers: 2\n");
}

static void without_memory_the_answer_is_slow_down(void **state)
{
    static const char *const paths[] = {"/_s3dlio/stats", "/_s3dlio/config"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        prepare("GET", paths[i]);
        fake.no_memory = true;
        run();
        expect_error(503, "SlowDown");
        prepare("GET", paths[i]);
        fake.refuse_fields = true;
        run();
        expect_error(503, "SlowDown");
    }
}

static void the_route_itself_lists_what_there_is(void **state)
{
    static const char *const names[] = {"", "health", "ready", "stats", "metrics", "mark", "objects", "config", "purge", "warm"};
    (void)state;
    ask("GET", "/_s3dlio/");
    assert_int_equal(fake.status, 200);
    assert_string_equal(fake.type, "application/json");
    json_t *root = json_loads(fake.text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "version")), "0.9.1");
    const json_t *list = json_object_get(root, "endpoints");
    assert_int_equal(json_array_size(list), sizeof names / sizeof names[0]);
    for (size_t i = 0; i < json_array_size(list); i++) {
        char path[64];
        snprintf(path, sizeof path, "/_s3dlio/%s", names[i]);
        const json_t *e = json_array_get(list, i), *methods = json_object_get(e, "methods");
        assert_string_equal(json_string_value(json_object_get(e, "path")), path);
        assert_string_equal(json_string_value(json_array_get(methods, 0)), i == 8 ? "POST" : "GET");
    }
    json_decref(root);
}

static void a_route_without_a_slash_serves_the_same(void **state)
{
    static const struct {
        const char *route, *path;
        unsigned status;
    } rows[] = {
        {"/adm", "/adm", 200},      {"/adm", "/adm/", 200},      {"/adm", "/adm/health", 200},
        {"/adm", "/admhealth", 404}, {"/adm", "/adm//health", 404}, {"/", "/", 200},
        {"/", "/health", 200},      {"/adm/", "/adm", 404},      {"/adm/", "/other/health", 404},
        {"", "/health", 200},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare("GET", rows[i].path);
        fake.info.route = str_of(rows[i].route);
        run();
        assert_int_equal(fake.status, rows[i].status);
    }
    prepare("GET", "/adm");
    fake.info.route = S("/adm");
    run();
    assert_non_null(strstr(fake.text, "\"/adm/health\""));
}

/* What is open to everybody must not be a way to the rest. */
static void a_route_of_one_endpoint_serves_nothing_else(void **state)
{
    static const struct {
        const char *route, *path;
        unsigned status;
    } rows[] = {
        {"/_s3dlio/ready", "/_s3dlio/ready", 200},        {"/_s3dlio/ready", "/_s3dlio/ready/", 200},
        {"/_s3dlio/ready", "/_s3dlio/ready/ready", 404},  {"/_s3dlio/ready", "/_s3dlio/ready/config", 404},
        {"/_s3dlio/ready", "/_s3dlio/readyconfig", 404},  {"/_s3dlio/ready", "/_s3dlio/ready/../config", 404},
        {"/health", "/health", 200},                      {"/health", "/health/stats", 404},
        {"/unhealth", "/unhealth/health", 200},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare("GET", rows[i].path);
        fake.info.route = str_of(rows[i].route);
        run();
        assert_int_equal(fake.status, rows[i].status);
        if (rows[i].status == 200) assert_null(strstr(fake.text, "endpoints"));
    }
}

static void questions_with_a_query(void **state)
{
    static const struct {
        const char *path, *query, *asked;
        unsigned status;
    } rows[] = {
        {"stats", "since=epoch%201", "since epoch 1", 200},
        {"stats", "x=1&since=a+b&since=c", "since a b", 200},
        {"stats", "since=%4", "since %4", 200},
        {"stats", "sinc=a&sincea", "", 200},
        {"objects", "", "objects / 1000 ", 200},
        {"objects", "prefix=s3%3A%2F%2Fb%2Fa%20b&max=7&after=0.1.2", "objects /b/a%20b 7 0.1.2", 200},
        {"objects", "prefix=b", "", 400},
        {"objects", "max=0", "", 400},
        {"objects", "max=10001", "", 400},
        {"objects", "max=1x", "", 400},
        {"warm/00ff", "", "job 00ff", 200},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/_s3dlio/%s", rows[i].path);
        prepare("GET", path);
        fake.info.query = str_of(rows[i].query);
        run();
        assert_int_equal(fake.status, rows[i].status);
        assert_string_equal(fake.asked, rows[i].asked);
    }
    ask("DELETE", "/_s3dlio/warm/00ff");
    assert_string_equal(fake.asked, "cancel 00ff");
}

static void warm_is_asked_as_it_was_said(void **state)
{
    static const struct {
        const char *body, *asked;
    } rows[] = {
        {"{\"uris\": [\"s3://b/a b\", \"/b/c\"]}", "warm paths 2 /b/a%20b pin=0 at=0"},
        {"{\"prefix\": \"s3://b\", \"pin\": true}", "warm prefix 0 /b/ pin=1 at=0"},
        {"{\"manifest\": \"/b/m\", \"concurrency\": 5}", "warm manifest 0 /b/m pin=0 at=5"},
        {"{\"uris\": [\"s3://b/a\", \"s3://b\"]}", ""},
        {"{\"uris\": {}}", ""},
        {"{\"prefix\": \"b\"}", ""},
        {"{\"prefix\": \"/b\", \"concurrency\": -1}", ""},
        {"{\"prefix\": \"/b\", \"pin\": null}", ""},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare("POST", "/_s3dlio/warm");
        fake.body = str_of(rows[i].body);
        run();
        assert_string_equal(fake.asked, rows[i].asked);
        assert_int_equal(fake.status, rows[i].asked[0] ? 202 : 400);
    }
}

static void outcomes_have_their_answers(void **state)
{
    static const struct {
        enum s3p_outcome outcome;
        unsigned status;
        const char *code;
    } rows[] = {{S3P_NO_MEMORY, 503, "SlowDown"}, {S3P_MALFORMED, 400, "InvalidArgument"}, {S3P_UNKNOWN, 404, "NoSuchKey"},
                {S3P_FULL, 503, "SlowDown"}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        prepare("POST", "/_s3dlio/mark");
        fake.body = S("{\"label\": \"x\"}");
        fake.outcome = rows[i].outcome;
        run();
        assert_int_equal(fake.status, rows[i].status);
        assert_string_equal(fake.code, rows[i].code);
        assert_string_equal(fake.asked, "mark x");
    }
}

static void unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {"healthz", "health/", "Health", "heal", "warmer/1", "stats/1",
                                        "dashboard", "/", "%68ealth"};
    (void)state;
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/_s3dlio/%s", paths[i]);
        ask("GET", path);
        expect_error(404, "NoSuchKey");
        ask("POST", path);
        expect_error(404, "NoSuchKey");
    }
}

static void a_wrong_method_is_405_and_says_which(void **state)
{
    static const char *const reads[] = {"", "health", "ready", "stats", "config"};
    static const char *const wrong[] = {"POST", "PUT", "DELETE", "OPTIONS", "get", "GETS"};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        for (size_t k = 0; k < sizeof reads / sizeof reads[0]; k++) {
            char path[64];
            snprintf(path, sizeof path, "/_s3dlio/%s", reads[k]);
            ask(wrong[i], path);
            expect_error(405, "MethodNotAllowed");
            assert_string_equal(fake.allow, "GET, HEAD");
        }
    }
    static const char *const not_post[] = {"GET", "HEAD", "PUT", "DELETE", "OPTIONS"};
    for (size_t i = 0; i < sizeof not_post / sizeof not_post[0]; i++) {
        ask(not_post[i], "/_s3dlio/purge");
        expect_error(405, "MethodNotAllowed");
        assert_string_equal(fake.allow, "POST");
    }
}

/* ---- purge */

static void expect_purged(const char *kind, const char *what)
{
    assert_int_equal(fake.status, 200);
    assert_string_equal(fake.type, "application/json");
    assert_string_equal(fake.text, "{\"purged\": 42}\n");
    assert_int_equal(fake.purges, 1);
    assert_string_equal(fake.purge_kind, kind);
    assert_string_equal(fake.purge_what, what);
}

static void purge_takes_one_of_three(void **state)
{
    static const struct {
        const char *body, *kind, *what;
    } rows[] = {
        {"{\"uri\": \"/b/k\"}", "uri", "/b/k"},
        {" {\"uri\":\"\\/b\\/dir\\/\"}\n", "uri", "/b/dir/"},
        {"{\"prefix\": \"/b/pre\"}", "prefix", "/b/pre"},
        {"{\"prefix\": \"/b\"}", "prefix", "/b"},
        {"{\"prefix\": \"/\"}", "prefix", "/"},
        {"{\"all\": true}", "all", ""},
        {"{\"uri\": \"s3://b/k/l\"}", "uri", "/b/k/l"},
        {"{\"prefix\": \"s3://b/pre\"}", "prefix", "/b/pre"},
        {"{\"prefix\": \"s3://b\"}", "prefix", "/b/"},
        {"{\"prefix\": \"s3://b/\"}", "prefix", "/b/"},
        /* paths are as clients send them, keys of s3:// stand for themselves */
        {"{\"uri\": \"/b/a%20b+c\"}", "uri", "/b/a%20b+c"},
        {"{\"uri\": \"/b/a b\\u00e4\"}", "uri", "/b/a%20b%C3%A4"},
        {"{\"uri\": \"s3://b/a b\\u00e4+%?#~\"}", "uri", "/b/a%20b%C3%A4%2B%25%3F%23~"},
        {"{\"uri\": \"s3://b//k\"}", "uri", "/b//k"},
        {"{\"uri\": \"/b//k\"}", "uri", "/b//k"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        purge(rows[i].body);
        expect_purged(rows[i].kind, rows[i].what);
    }
}

static void purge_answers_when_the_body_has_come(void **state)
{
    (void)state;
    prepare("POST", "/_s3dlio/purge");
    fake.body_later = true;
    assert_int_equal(s3p_admin_module.handler(request()), S3P_OK);
    assert_int_equal(fake.answers, 0);
    fake.body_done(request(), S("{\"all\":true}"), fake.body_arg);
    assert_int_equal(fake.answers, 1);
    assert_string_equal(fake.cache_control, "no-store");
    expect_purged("all", "");
}

static void purge_refuses_what_is_no_json(void **state)
{
    static const char *const bodies[] = {"", " ", "{", "all", "{\"all\":true", "{\"all\":true} x", "{'all':true}",
                                         "{\"uri\":\"/b/k\",\"uri\":\"/b/l\"}", "{\"uri\":\"/b/\xff\"}",
                                         "{\"uri\":\"/b/\\u0000\"}", "uri=/b/k"};
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        purge(bodies[i]);
        expect_error(400, "InvalidRequest");
        assert_non_null(strstr(fake.text, "Expected a JSON object with one member"));
    }
    purge_bytes(S("{\"all\":true}\0"));
    expect_error(400, "InvalidRequest");
}

static void purge_refuses_other_members(void **state)
{
    static const char *const bodies[] = {"{}", "[]", "[{\"all\":true}]", "{\"url\":\"/b/k\"}",
                                         "{\"uri\":\"/b/k\",\"all\":true}", "{\"all\":true,\"more\":1}",
                                         "{\"uri\":\"/b/k\",\"prefix\":\"/b\"}", "{\"\":true}"};
    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        purge(bodies[i]);
        expect_error(400, "InvalidArgument");
        assert_non_null(strstr(fake.text, "Expected a JSON object with one member"));
    }
}

static void purge_refuses_other_values(void **state)
{
    static const struct {
        const char *body, *expected;
    } rows[] = {
        {"{\"all\":false}", "\"all\" to be true"},
        {"{\"all\":1}", "\"all\" to be true"},
        {"{\"all\":\"true\"}", "\"all\" to be true"},
        {"{\"uri\":1}", "\"uri\" to be a string"},
        {"{\"uri\":null}", "\"uri\" to be a string"},
        {"{\"uri\":[\"/b/k\"]}", "\"uri\" to be a string"},
        {"{\"uri\":\"\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"b/k\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"/\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"/b\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"/b/\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"//k\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"s3://\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"s3://b\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"s3://b/\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"s3:///k\"}", "\"uri\" to be a string"},
        {"{\"uri\":\"http://h/b/k\"}", "\"uri\" to be a string"},
        {"{\"prefix\":\"\"}", "\"prefix\" to be a string"},
        {"{\"prefix\":\"b\"}", "\"prefix\" to be a string"},
        {"{\"prefix\":\"s3://\"}", "\"prefix\" to be a string"},
        {"{\"prefix\":\"s3:///k\"}", "\"prefix\" to be a string"},
        {"{\"prefix\":true}", "\"prefix\" to be a string"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        purge(rows[i].body);
        expect_error(400, "InvalidArgument");
        if (!strstr(fake.text, rows[i].expected)) fail_msg("%s: %s", rows[i].body, fake.text);
    }
}

static void purge_refuses_deep_nesting(void **state)
{
    static char body[60000];
    (void)state;
    memset(body, '[', sizeof body);
    purge_bytes((s3p_str){body, sizeof body});
    expect_error(400, "InvalidRequest");
}

static void purge_of_a_large_body_is_413(void **state)
{
    (void)state;
    static char body[65537] = "{\"all\":true}";
    memset(body + 12, ' ', sizeof body - 12);
    purge_bytes((s3p_str){body, sizeof body - 1}); /* as much as it may be */
    assert_int_equal(fake.status, 200);
    purge_bytes((s3p_str){body, sizeof body});
    expect_error(413, "EntityTooLarge");
    purge_bytes((s3p_str){NULL, 0});
    expect_error(413, "EntityTooLarge");
    assert_non_null(strstr(fake.text, "65536"));
}

static void purge_that_fails_is_500(void **state)
{
    (void)state;
    prepare("POST", "/_s3dlio/purge");
    fake.body = S("{\"all\":true}");
    fake.refuse_purge = true;
    run();
    assert_int_equal(fake.status, 500);
    assert_string_equal(fake.code, "InternalError");
}

/* ---- memory that runs out, at every place */

/* What takes little in the body takes much when it is parsed. */
static void so_many_values_and_no_more(void **state)
{
    static const char strange[] = "\"a,[{\\\",[{\\\\\",";
    static char body[BODY_MAX_VALUES * 3 + 100];
    (void)state;
    for (int more = 0; more < 2; more++) {
        char *p = body + sprintf(body, "{\"uris\":[\"s3://b/k\"");
        for (int i = 0; i < BODY_MAX_VALUES - 3 + more; i++) p += sprintf(p, ",1");
        p += sprintf(p, "]}");
        prepare("POST", "/_s3dlio/warm");
        fake.body = (s3p_str){body, (size_t)(p - body)};
        run();
        assert_int_equal(fake.status, more ? 413 : 400); /* 1 is no URI */
    }
    assert_int_equal(count_values(S("")), 1);
    assert_int_equal(count_values((s3p_str){strange, sizeof strange - 1}), 2);
    assert_int_equal(count_values(S("\"\\")), 1);
}

static int allocs_left;
static void *scarce_malloc(size_t n) { return allocs_left-- > 0 ? malloc(n) : NULL; }

static void jansson_without_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    json_set_alloc_funcs(scarce_malloc, free);
    for (int n = 0, status = 0; status != 200; n++) {
        allocs_left = n;
        ask("GET", "/_s3dlio/");
        status = (int)fake.status;
        if (status != 200) expect_error(503, "SlowDown");
        assert_true(n < 1000);
    }
    for (int n = 0, status = 0; status != 200; n++) {
        allocs_left = n;
        purge("{\"uri\":\"/b/k\"}");
        status = (int)fake.status;
        /* jansson calls a token that it found no memory for an invalid one */
        if (status != 200) expect_error((unsigned)status, status == 503 ? "SlowDown" : "InvalidRequest");
        assert_true(n < 1000);
    }
    json_set_alloc_funcs(malloc, free);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_other_sites_change_nothing),
        cmocka_unit_test(so_many_values_and_no_more),
        cmocka_unit_test(health_and_ready_say_so),
        cmocka_unit_test(stats_and_config_are_passed_on),
        cmocka_unit_test(without_memory_the_answer_is_slow_down),
        cmocka_unit_test(the_route_itself_lists_what_there_is),
        cmocka_unit_test(a_route_without_a_slash_serves_the_same),
        cmocka_unit_test(a_route_of_one_endpoint_serves_nothing_else),
        cmocka_unit_test(unknown_paths_are_404),
        cmocka_unit_test(a_wrong_method_is_405_and_says_which),
        cmocka_unit_test(questions_with_a_query),
        cmocka_unit_test(warm_is_asked_as_it_was_said),
        cmocka_unit_test(outcomes_have_their_answers),
        cmocka_unit_test(purge_takes_one_of_three),
        cmocka_unit_test(purge_answers_when_the_body_has_come),
        cmocka_unit_test(purge_refuses_what_is_no_json),
        cmocka_unit_test(purge_refuses_other_members),
        cmocka_unit_test(purge_refuses_other_values),
        cmocka_unit_test(purge_refuses_deep_nesting),
        cmocka_unit_test(purge_of_a_large_body_is_413),
        cmocka_unit_test(purge_that_fails_is_500),
        cmocka_unit_test(jansson_without_memory_is_an_error_and_leaks_nothing),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
