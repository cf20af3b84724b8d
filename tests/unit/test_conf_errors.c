/* test_conf_errors.c - what a configuration is refused for, line by line: variables, what is not supported yet, unknown
 * and duplicate keys, references, rules across values, wrong places, YAML beyond what is needed, and how much is said. */
#include "conf_support.h"

/* ---- variables */

static void refuse_variable(const char *value, const char *what)
{
    char text[512], line[512];
    snprintf(text, sizeof text, "log:\n  file: %s\n" MINIMAL, value);
    snprintf(line, sizeof line, "2:9: log.file: %s", what);
    refuse_with(text, line);
}

static void expands(const char *value, const char *expected)
{
    char text[512];
    snprintf(text, sizeof text, "log:\n  file: %s\n" MINIMAL, value);
    load_good(text);
    assert_string_equal(conf->log_file, expected);
    drop();
}

static void test_variables(void **state)
{
    (void)state;
    setenv("S3P_TEST_A", "a b", 1);
    setenv("S3P_TEST_EMPTY", "", 1);
    setenv("S3P_TEST_DOLLAR", "${S3P_TEST_A}$", 1);
    setenv("S3P_TEST_BAD", "a\nb", 1);
    setenv("S3P_TEST_NOT_UTF8", "a\xff", 1);
    unsetenv("S3P_TEST_UNSET");
    expands("x${S3P_TEST_A}y", "xa by");
    expands("'${S3P_TEST_A}${S3P_TEST_A}'", "a ba b");
    expands("${S3P_TEST_UNSET:-d:-e}", "d:-e");
    expands("${S3P_TEST_EMPTY:-d}", "d");
    expands("x${S3P_TEST_EMPTY}", "x");
    expands("x${S3P_TEST_UNSET:-}", "x");
    expands("${S3P_TEST_UNSET:-a$$b}", "a$b");
    expands("${S3P_TEST_A:-d}", "a b");
    expands("$${S3P_TEST_A} $$", "${S3P_TEST_A} $");
    expands("${S3P_TEST_DOLLAR}", "${S3P_TEST_A}$"); /* not expanded again */
    refuse_variable("${S3P_TEST_UNSET}",
                    "variable S3P_TEST_UNSET is not set, expected it in the environment or a default: "
                    "${S3P_TEST_UNSET:-value}");
    static const char *const bad[] = {"$",
                                      "a$b",
                                      "${",
                                      "${}",
                                      "${1}",
                                      "${A",
                                      "${A-b}",
                                      "${A:b}",
                                      "\"${A B}\"",
                                      "${S3P_TEST_UNSET:-${S3P_TEST_A}}",
                                      "${S3P_TEST_UNSET:-$}",
                                      "${S3P_TEST_UNSET:-a$b}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        refuse_variable(bad[i], "malformed variable, expected ${NAME}, ${NAME:-default}, or $$ for a dollar sign");
    refuse_variable("${S3P_TEST_EMPTY}", "empty, expected text");
    refuse_variable("${S3P_TEST_BAD}", "control characters or bytes that are not UTF-8, expected text");
    refuse_variable("${S3P_TEST_NOT_UTF8}", "control characters or bytes that are not UTF-8, expected text");

    char *big = malloc(70000);
    memset(big, 'x', 70000);
    big[69999] = '\0';
    setenv("S3P_TEST_A", big, 1);
    refuse_variable("${S3P_TEST_A}", "too long with its variables, expected at most 64KiB");
    big[5000] = '\0';
    setenv("S3P_TEST_A", big, 1);
    refuse_variable("${S3P_TEST_A}", "5000 bytes long, expected 1 to 4096");
    free(big);
}

/* ---- what is refused */

static void test_not_supported_yet(void **state)
{
    (void)state;
#define O(rest) "origins:\n  o:\n    type: s3\n    endpoint: http://h\n    " rest "\n" SERVER
    refuse_with("caches:\n  c:\n    disk: [{path: x, size: 1GiB}]\n" MINIMAL,
                "3:11: caches.c.disk: not supported yet, expected it to be left out");
    refuse_with(O("http2: on"), "5:12: origins.o.http2: 'on' is not known, expected auto | off | prior-knowledge");
    static const char *const sources[] = {"container", "web_identity", "imds"};
    for (int i = 0; i < 3; i++) {
        char text[512], line[256];
        snprintf(text, sizeof text, O("credentials: {source: %s}"), sources[i]);
        snprintf(line, sizeof line,
                 "5:27: origins.o.credentials.source: '%s' is not supported yet, "
                 "expected auto | env | profile | static | none",
                 sources[i]);
        refuse_with(text, line);
    }
    refuse_with(
        O("fetch: {max_in_flight: auto}"),
        "5:28: origins.o.fetch.max_in_flight: 'auto' is not supported yet, expected a whole number, within 1..1024");
    refuse_with(O("fetch: {hedge: 30ms}"), "5:20: origins.o.fetch.hedge: '30ms' is not supported yet, expected off");
#define R(rest) ORIGIN "servers:\n- listen: [\":1\"]\n  routes: [{path: /, origin: o, " rest "}]\n"
    refuse_with(R("auth: sigv4"), "4:39: servers[0].routes[0].auth: 'sigv4' is not supported yet, expected none");
    refuse_with(R("auth: transparent"),
                "4:39: servers[0].routes[0].auth: 'transparent' is not supported yet, expected none");
    refuse_with("access_log: {format: common}\n" MINIMAL,
                "1:22: access_log.format: 'common' is not supported yet, expected json | combined");
    refuse_with("servers: [{listen: [\"unix:/run/x\"], routes: [{path: /, handler: h}]}]\n",
                "1:21: servers[0].listen[0].address: 'unix:/run/x' is not supported yet, expected an address such as "
                "127.0.0.1:8080");
}

static void test_tls_of_a_listener(void **state)
{
    (void)state;
#define T(rest) "servers:\n- routes: [{path: /, handler: h}]\n  listen:\n  - address: \":1\"\n    tls: {" rest "}\n"
#define TLS "servers[0].listen[0].tls"
    accept_it(T("certificate: c"));
    accept_it(T("certificates: [{certificate: c}]"));
    accept_it(T("certificate: c, verify: required, client_ca: d"));
    refuse_with(T(""), "5:10: " TLS ".certificate: missing, expected a PEM file, or certificates");
    refuse_at(T("key: k"), 5, 16, TLS ".key: without a certificate, expected certificate beside it");
    refuse_with(T("certificates: [{key: k}]"),
                "5:26: " TLS ".certificates[0].certificate: missing, expected text");
    refuse_with(T("certificate: c, verify: optional"), "5:35: " TLS ".client_ca: missing, expected a PEM file with verify");
    refuse_with(T("certificate: c, client_ca: d"),
                "5:38: " TLS ".client_ca: has no effect here, expected only with verify optional or required");
    refuse_with(T("certificate: c, min_version: 1.3, ciphers: ALL"),
                "5:54: " TLS ".ciphers: has no effect with min_version 1.3, expected ciphersuites");
    refuse_with(T("certificate: c, min_version: 1.1"),
                "5:40: " TLS ".min_version: '1.1' is not known, expected 1.2 | 1.3");
    refuse_with(T("certificate: c, alpn: [h2, h2]"), "5:33: " TLS ".alpn: the same twice, expected each once");
    refuse_with(T("certificate: c, alpn: [h3]"), "5:34: " TLS ".alpn: 'h3' is not known, expected h2 | http/1.1");
    refuse_with(T("certificat: c, certificate: c"), "5:11: unknown key 'certificat' in " TLS "; did you mean 'certificate'?");
    refuse_with("servers:\n- http2: {enabled: false}\n  routes: [{path: /, handler: h}]\n"
                "  listen: [{address: \":1\", tls: {certificate: c, alpn: [http/1.1, h2]}}]\n",
                "4:56: " TLS ".alpn: h2 without http2.enabled, expected http/1.1 alone");
    refuse_with("servers:\n- routes: [{path: /, handler: h}]\n  listen: [{address: \":1\", tls: [c]}]\n",
                "3:33: " TLS ": a list, expected a map");
}

static void test_unknown_keys(void **state)
{
    (void)state;
    refuse_with("worker: 1\n" MINIMAL, "1:1: unknown key 'worker'; did you mean 'workers'?");
    refuse_with("acces_log: {file: off}\n" MINIMAL, "1:1: unknown key 'acces_log'; did you mean 'access_log'?");
    refuse_with("log: {levle: info}\n" MINIMAL, "1:7: unknown key 'levle' in log; did you mean 'level'?");
    refuse_with("log.level: info\n" MINIMAL,
                "1:1: unknown key 'log.level', expected one of workers, log, access_log, limits, "
                "shutdown_timeout, caches, origins, servers");
    refuse_with("caches: {c: {mem: 1GiB}}\n" MINIMAL,
                "1:14: unknown key 'mem' in caches.c, expected one of memory, "
                "slice_size, fresh_for, stale_if_error, sendfile_after, max_objects, index, pinned, disk");
    refuse_with(O("retry: {atempts: 1}"), "5:13: unknown key 'atempts' in origins.o.retry; did you mean 'attempts'?");
    refuse_with(R("orign: o"), "4:33: unknown key 'orign' in servers[0].routes[0]; did you mean 'origin'?");
    refuse_with("\"\": 1\n" MINIMAL, "1:1: unknown key '', expected one of workers, log, access_log, limits, "
                                     "shutdown_timeout, caches, origins, servers");
    refuse_at("\"a\\e[31m\\n\\0\": 1\n" MINIMAL, 1, 1,
              "unknown key 'a?[31m?"
              "?'");
}

static void test_duplicates(void **state)
{
    (void)state;
    refuse_with("workers: 1\nworkers: 1\n" MINIMAL, "2:1: duplicate key 'workers', expected it once (first in line 1)");
    refuse_with("log: {level: info}\nlog: {file: x}\n" MINIMAL,
                "2:1: duplicate key 'log', expected it once (first in line 1)");
    refuse_with("log: {file: x, file: y}\n" MINIMAL, "1:16: duplicate key 'file', expected it once (first in line 1)");
    refuse_with("caches:\n  c: {}\n  c: {}\n" MINIMAL,
                "3:3: duplicate name 'c' in caches, expected it once (first in line 2)");
    refuse_with(
        "servers:\n- listen: [\"127.0.0.1:1\"]\n  routes: [{path: /, handler: h}]\n"
        "- listen: [\"*:1\", {address: \"127.0.0.1:1\"}]\n  routes: [{path: /, handler: h}]\n",
        "4:29: servers[1].listen[1].address: duplicate address '127.0.0.1:1', expected it once (first in line 2)");
    refuse_with(
        "servers: [{listen: [\"[::1]:80\", \"[0::1]:80\"], routes: [{path: /, handler: h}]}]\n",
        "1:33: servers[0].listen[1].address: duplicate address '[0::1]:80', expected it once (first in line 1)");
    accept_it("servers: [{listen: [\"127.0.0.1:0\", \"127.0.0.1:0\", \"*:1\", \"[::]:1\"], routes: [{path: /, handler: "
              "h}]}]\n");
#define TWO(a, b) \
    "servers:\n- listen: [\":1\"]\n  routes:\n  - {path: " a ", handler: h}\n  - {path: " b ", handler: h}\n"
#define TWICE \
    "5:12: servers[0].routes[1].path: duplicate route for '/x', expected one for a path and host (first in line 4)"
    refuse_with(TWO("/x", "/x"), TWICE);
    refuse_with(TWO("/x, hosts: [a, b]", "/x, hosts: [c, B]"), TWICE);
    accept_it(TWO("/x", "/x, hosts: [a]"));
    accept_it(TWO("/x, hosts: [a]", "/x, hosts: [b]"));
    accept_it(TWO("/x", "/x/"));
}

static void test_references_and_missing(void **state)
{
    (void)state;
#define S(routes) "servers:\n- listen: [\":1\"]\n  routes: [" routes "]\n"
    refuse_with(S("{path: /, origin: o}"),
                "3:30: servers[0].routes[0].origin: there is no origin 'o', expected one that "
                "origins: defines, and there are none");
    refuse_with("origins: {a: {type: file, root: /}, b: {type: file, root: /}}\n" S("{path: /, origin: o}"),
                "4:30: servers[0].routes[0].origin: there is no origin 'o', expected one of a, b");
    refuse_with(ORIGIN S("{path: /, origin: o, cache: c}"), "4:40: servers[0].routes[0].cache: there is no cache 'c', "
                                                            "expected one that caches: defines, and there are none");
    refuse_with(S("{path: /}"),
                "3:12: servers[0].routes[0].origin: missing, expected exactly one of origin and handler");
    refuse_with(ORIGIN S("{path: /, origin: o, handler: h}"),
                "4:42: servers[0].routes[0].handler: beside an origin, expected exactly one of origin and handler");
    refuse_with("caches: {c: {}}\n" S("{path: /, handler: h, cache: c}"),
                "4:41: servers[0].routes[0].cache: has no effect with a handler, expected only with an origin");
    refuse_with(S("{path: /, handler: h, base_domains: [a]}"),
                "3:48: servers[0].routes[0].base_domains: has no effect with a handler, expected only with an origin");
    refuse_with(S("{handler: h}"),
                "3:12: servers[0].routes[0].path: missing, expected a path that begins with '/', without "
                "spaces, '?' or '#', percent-encoded");
    refuse_with("workers: 1\n", "1:1: servers: missing, expected a list with an entry");
    refuse_with("servers:\n- {}\n", "2:3: servers[0].listen: missing, expected a list with an entry\n" NAME
                                    ":2:3: servers[0].routes: missing, expected a list with an entry");
    refuse_with("servers: [{listen: [{}], routes: [{path: /, handler: h}]}]\n",
                "1:21: servers[0].listen[0].address: missing, "
                "expected an address such as 127.0.0.1:8080, [::1]:8080 or *:8080");
    refuse_with("origins: {o: {}}\n" SERVER, "1:14: origins.o.type: missing, expected s3 | http | file");
    refuse_with("origins: {o: {type: s3}}\n" SERVER,
                "1:14: origins.o.endpoint: missing, expected a URL such as https://host:port");
    refuse_with("origins: {o: {type: http}}\n" SERVER,
                "1:14: origins.o.endpoint: missing, expected a URL such as https://host:port");
    refuse_with("origins: {o: {type: file}}\n" SERVER, "1:14: origins.o.root: missing, expected text");
}

static void test_rules_across_values(void **state)
{
    (void)state;
    refuse_with("caches: {c: {memory: 15MiB}}\n" MINIMAL,
                "1:22: caches.c.memory: 15MiB is too little, expected at least 16 slices (16MiB)");
    accept_it("caches: {c: {memory: 16MiB}}\n" MINIMAL);
    refuse_with("limits: {head_size: 1KiB}\n" MINIMAL,
                "1:21: limits.target_size: larger than limits.head_size, expected at most 1KiB");
    refuse_with("limits: {head_size: 1MiB}\n" MINIMAL,
                "1:21: limits.request_memory: too little for two heads, expected at least 2MiB");
    refuse_with(O("retry: {base: 6s}"), "5:19: origins.o.retry.base: longer than retry.cap, expected at most as long");
    refuse_with(O("fetch: {read_ahead: 1MiB}"),
                "5:25: origins.o.fetch.read_ahead: 1MiB is less than one part, expected at least 8MiB");
    refuse_with("caches: {c: {memory: 1GiB, slice_size: 16MiB}}\norigins: {o: {type: file, root: /, fetch: "
                "{read_ahead: 9MiB}}}\n" S("{path: /, origin: o, cache: c}"),
                "2:56: origins.o.fetch.read_ahead: 9MiB is less than one part, expected at least 16MiB");
    refuse_with(O("credentials: {source: static}"),
                "5:27: origins.o.credentials.access_key: missing, expected with credentials.source static\n" NAME
                ":5:27: origins.o.credentials.secret_key: missing, expected with credentials.source static");
    refuse_with(O("credentials: {source: env, session_token: t}"),
                "5:47: origins.o.credentials.session_token: has no effect "
                "here, expected only with credentials.source static");
    refuse_with(O("credentials: {source: none, profile: p}"),
                "5:42: origins.o.credentials.profile: has no effect here, "
                "expected only with credentials.source auto or profile");
    refuse_with("origins: {o: {type: file, root: /, endpoint: http://h}}\n" SERVER,
                "1:36: origins.o.endpoint: not for type file, expected only for s3, http");
    refuse_with("origins: {o: {type: http, endpoint: http://h, region: x}}\n" SERVER,
                "1:47: origins.o.region: not for type http, expected only for s3");
    /* A type that is not understood says nothing about what goes with it. */
    refuse_with("origins: {o: {type: ftp, root: /, endpoint: http://h}}\n" SERVER,
                "1:21: origins.o.type: 'ftp' is not known, expected s3 | http | file");
}

static void test_part_size_is_whole_slices_of_every_cache_in_use(void **state)
{
    (void)state;
    load_good("caches: {a: {slice_size: 64KiB}, b: {slice_size: 2MiB}, unused: {slice_size: 16MiB}}\n"
              "origins: {o: {type: file, root: /, fetch: {part_size: 65537}}, p: {type: file, root: /, fetch: "
              "{part_size: 70000}}}\n" S(
                  "{path: /, origin: o, cache: b}, {path: /a, origin: o, cache: a}, {path: /p, origin: p, cache: a}"));
    assert_int_equal(conf->origins[0].part_bytes, 2 << 20);
    assert_int_equal(conf->origins[1].part_bytes, 128 << 10);
    drop();
}

static void test_wrong_places(void **state)
{
    (void)state;
    refuse_with("log: info\n" MINIMAL, "1:6: log: a single value, expected a map");
    refuse_with("log:\n" MINIMAL, "1:5: log: no value, expected a map");
    refuse_with("caches: {c: 1GiB}\n" MINIMAL, "1:13: caches.c: a single value, expected a map");
    refuse_with("caches: {\"a b\": {}}\n" MINIMAL,
                "1:10: 'a b' cannot be a name in caches, expected 1 to 64 letters, digits, '-', '_' or '.'");
    refuse_with("servers: [x]\n", "1:11: servers[0]: a single value, expected a map");
    refuse_with(R("hosts: a"), "4:40: servers[0].routes[0].hosts: a single value, expected a list");
    refuse_with(R("hosts: []"), "4:40: servers[0].routes[0].hosts: 0 entries, expected 1 to 1024");
    refuse_with(R("allow: [10.0.0.1/8]"),
                "4:41: servers[0].routes[0].allow: '10.0.0.1/8' has bits set behind its prefix, "
                "expected a network such as 10.0.0.0/8");
    static const char *const lists[] = {
        "allow: [x]",         "allow: [1.2.3]",       "allow: [1.2.3.4/33]",     "allow: [\"::1/129\"]",
        "allow: [1.2.3.4/]",  "allow: [1.2.3.4/8/8]", "hosts: [\"a:1\"]",        "hosts: [\"*\"]",
        "hosts: [\"[::x]\"]", "methods: [get]",       "base_domains: [\"*.a\"]", "hosts: [~]",
        "hosts: [[a]]",       "hosts: [\"\"]"};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        char text[256];
        snprintf(text, sizeof text, R("%s"), lists[i]);
        refuse_at(text, 4, 33 + (unsigned)strcspn(lists[i], "[") + 1, "servers[0].routes[0].");
    }
}

static void test_yaml_beyond_configuration(void **state)
{
    (void)state;
    refuse_with("", "1:1: empty, expected a map with at least servers");
    refuse_with("# only this\n---\n", "1:1: empty, expected a map with at least servers");
    refuse_with("- a\n", "1:1: a list, expected a map");
    refuse_with("log: &a {level: info}\n" MINIMAL,
                "1:6: anchors (&name) are not supported, expected the value to be written out");
    refuse_with("log: {level: *a}\n" MINIMAL,
                "1:14: aliases (*name) are not supported, expected the value to be written out "
                "(in quotes where it begins with a star)");
    refuse_with("log: {<<: {level: info}}\n" MINIMAL,
                "1:7: merge keys (<<) are not supported, expected the values to be written out");
    refuse_with("workers: !!int 3\n" MINIMAL, "1:10: tags (!name) are not supported, expected a plain value");
    refuse_with("%TAG ! x\n---\n" MINIMAL, "1:1: tag directives (%TAG) are not supported, expected none");
    refuse_with(MINIMAL "---\nworkers: 1\n", "3:1: a second document (---), expected one document in a file");
    refuse_with("? [a]\n: b\n" MINIMAL, "1:3: a list as a key, expected a name");
    refuse_with("log: {file: ${X}}\n" MINIMAL,
                "1:14: not valid YAML: did not find expected ',' or '}' while parsing a flow "
                "mapping; inside { } and [ ] write \"${VAR}\" in quotes");
    refuse_at("log:\n\tfile: x\n", 2, 1, "not valid YAML: found character that cannot start any token");
    refuse_at("log: {file: x\nb: c\n", 2, 2, "that begins in line 1");
    refuse_with("log: {file: x,\n  l\xc3\xbc: \xff}\n",
                "2:7: not readable: invalid leading UTF-8 octet, expected UTF-8 text");
    refuse_at("[[[[[[[[[[[[[[[[[[[[", 1, 17, "nested too deeply, expected at most 16 levels");
    accept_it("\xef\xbb\xbf" MINIMAL);
    accept_it("%YAML 1.1\n---\n" MINIMAL "...\n");
    assert_int_equal(load_n("workers: 1\0\n", 12), ERR_CONFIG);

    char *big = malloc(YAML_MAX_BYTES + 2);
    memset(big, '\n', YAML_MAX_BYTES + 1);
    big[YAML_MAX_BYTES + 1] = '\0';
    assert_int_equal(load(big), ERR_CONFIG);
    assert_string_equal(errors, NAME ": the file is too large, expected at most 1MiB\n");
    memcpy(big, MINIMAL, strlen(MINIMAL));
    big[YAML_MAX_BYTES] = '\0';
    accept_it(big);
    memset(big, '[', 1);
    for (size_t i = 1; i + 2 <= YAML_MAX_BYTES; i += 2) memcpy(big + i, "a,", 2);
    refuse_at(big, 1, 100000, "too many values, expected at most 50000 in a file");
    free(big);
}

static void test_all_errors_of_a_file_in_its_order_but_at_most_20(void **state)
{
    (void)state;
    refuse_with("servers: []\nworkers: 0\nlog: {level: x, file: []}\n",
                "1:10: servers: 0 entries, expected 1 to 64\n" NAME
                ":2:10: workers: '0' is out of range, expected 1..1024\n" NAME
                ":3:14: log.level: 'x' is not known, expected error | warn | info | debug\n" NAME
                ":3:23: log.file: a list, expected text");
    struct strbuf b;
    strbuf_init(&b, 0);
    for (int i = 0; i < 20; i++) strbuf_f(&b, "key%d: 1\n", i);
    strbuf_z(&b, MINIMAL);
    assert_int_equal(load_n(b.p, b.n), ERR_CONFIG);
    assert_int_equal(error_lines(), 20);
    assert_non_null(strstr(errors, NAME ":20:1: "));
    for (int i = 0; i < 1500; i++) strbuf_f(&b, "other%d: 1\n", i);
    assert_int_equal(load_n(b.p, b.n), ERR_CONFIG);
    assert_int_equal(error_lines(), 20);
    for (int i = 0; i < 1500; i++) strbuf_f(&b, "more%d: 1\n", i);
    assert_int_equal(load_n(b.p, b.n), ERR_CONFIG);
    assert_non_null(strstr(errors, NAME ":1:1: too many keys, expected at most 2048 in a map\n"));
    strbuf_free(&b);
}

static int end(void **state)
{
    (void)state;
    free(errors);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables),
        cmocka_unit_test(test_not_supported_yet),
        cmocka_unit_test(test_tls_of_a_listener),
        cmocka_unit_test(test_unknown_keys),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_references_and_missing),
        cmocka_unit_test(test_rules_across_values),
        cmocka_unit_test(test_part_size_is_whole_slices_of_every_cache_in_use),
        cmocka_unit_test(test_wrong_places),
        cmocka_unit_test(test_yaml_beyond_configuration),
        cmocka_unit_test(test_all_errors_of_a_file_in_its_order_but_at_most_20),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
