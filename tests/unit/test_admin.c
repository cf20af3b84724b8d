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
static const char *fake_version(void) { return "0.9.1"; }

static const s3p_api api = {
    .abi = S3P_ABI_VERSION,
    .request_info = fake_info,
    .request_body = fake_body,
    .response_set = fake_set,
    .respond = fake_respond,
    .respond_error = fake_error,
    .stats_json = fake_stats,
    .config_yaml = fake_config,
    .ready = fake_ready,
    .purge = fake_purge,
    .version = fake_version,
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
    static const char *const names[] = {"", "health", "ready", "stats", "config", "purge"};
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
        assert_string_equal(json_string_value(json_array_get(methods, 0)), i == 5 ? "POST" : "GET");
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

static void unknown_paths_are_404(void **state)
{
    static const char *const paths[] = {"healthz", "health/", "Health", "heal", "objects", "warm", "warm/1",
                                        "mark", "metrics", "dashboard", "/", "%68ealth"};
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
        cmocka_unit_test(health_and_ready_say_so),
        cmocka_unit_test(stats_and_config_are_passed_on),
        cmocka_unit_test(without_memory_the_answer_is_slow_down),
        cmocka_unit_test(the_route_itself_lists_what_there_is),
        cmocka_unit_test(a_route_without_a_slash_serves_the_same),
        cmocka_unit_test(unknown_paths_are_404),
        cmocka_unit_test(a_wrong_method_is_405_and_says_which),
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
