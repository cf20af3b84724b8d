/* test_access_log.c - the access log's lines, driven through a fake s3p_api: the module needs nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../modules/access_log/access_log.c"

#define S(literal) ((s3p_str){literal, sizeof(literal) - 1})

/* ---- the proxy that is not there */

static struct {
    const char *file, *format; /* configuration */
    bool refuse;
    char opened[64], line[65536];
    size_t line_n;
    unsigned lines, reopened, closed;
    s3p_request_info info;
} fake;

static const char *fake_config(const char *path)
{
    if (strcmp(path, "access_log.file") == 0) return fake.file;
    if (strcmp(path, "access_log.format") == 0) return fake.format;
    return NULL;
}
static void *fake_open(const char *path, char *why, size_t n)
{
    if (fake.refuse) {
        snprintf(why, n, "%s: Permission denied", path);
        return NULL;
    }
    snprintf(fake.opened, sizeof fake.opened, "%s", path);
    return &fake;
}
static void fake_write(void *f, const char *line, size_t n)
{
    assert_ptr_equal(f, &fake);
    assert_true(n <= LINE_BYTES);
    memcpy(fake.line, line, n);
    fake.line[n] = '\0';
    fake.line_n = n;
    fake.lines++;
}
static void fake_reopen(void *f)
{
    assert_ptr_equal(f, &fake);
    fake.reopened++;
}
static void fake_close(void *f)
{
    assert_ptr_equal(f, &fake);
    fake.closed++;
}
static void fake_info(const s3p_request *r, s3p_request_info *out)
{
    assert_ptr_equal(r, &fake.info);
    *out = fake.info;
}

static const s3p_api api = {
    .abi = S3P_ABI_VERSION,
    .request_info = fake_info,
    .file_open = fake_open,
    .file_write = fake_write,
    .file_reopen = fake_reopen,
    .file_close = fake_close,
    .config = fake_config,
};

static const s3p_request_info usual = {
    .method = {"GET", 3},
    .target = {"/data/a%20b?X-Amz-Signature=secret", 34},
    .path = {"/data/a%20b", 11},
    .query = {"X-Amz-Signature=...", 19},
    .host = {"localhost", 9},
    .user_agent = {"boto3/1.34", 10},
    .referer = {"http://page/?q=1", 16},
    .range = {"bytes=0-99", 10},
    .peer = {"192.0.2.7:54321", 15},
    .local = {"127.0.0.1:8080", 14},
    .protocol = {"HTTP/1.1", 8},
    .operation = {"GET", 3},
    .bucket = {"data", 4},
    .key = {"a%20b", 5},
    .origin = {"s3", 2},
    .cache = {"main", 4},
    .cache_result = {"PARTIAL", 7},
    .route = {"/", 1},
    .request_id = {"0123456789ABCDEF", 16},
    .status = 206,
    .sent_bytes = 100,
    .received_bytes = 5,
    .origin_bytes = 1048576,
    .start_unix_ns = INT64_C(1709210096123456789),
    .start_ns = 1000000,
    .first_byte_ns = 13345678,
    .end_ns = 21000999,
    .tls_protocol = {"TLSv1.3", 7},
    .tls_client = {"CN=a \\\"b\\\"", 10},
};

static void start(const char *file_name, const char *format)
{
    char why[256] = "";
    memset(&fake, 0, sizeof fake);
    fake.file = file_name;
    fake.format = format;
    fake.info = usual;
    assert_int_equal(s3p_access_log_module.init(&api, why, sizeof why), 0);
    assert_string_equal(why, "");
}

static void write_line(void)
{
    s3p_access_log_module.log((const s3p_request *)(const void *)&fake.info);
}

static void stop(void) { s3p_access_log_module.exit(); }

/* The line as JSON; it is one line, and valid. */
static json_t *line_json(void)
{
    json_error_t why;
    write_line();
    assert_true(fake.line_n > 0 && memchr(fake.line, '\n', fake.line_n) == fake.line + fake.line_n - 1);
    json_t *root = json_loadb(fake.line, fake.line_n, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    if (!root) fail_msg("%s: %.*s", why.text, (int)fake.line_n, fake.line);
    return root;
}

static const char *text_of(const json_t *root, const char *key) { return json_string_value(json_object_get(root, key)); }

/* ---- start and stop */

static void off_and_unset_do_nothing(void **state)
{
    static const char *const off[] = {"off", NULL};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        start(off[i], "json");
        write_line();
        s3p_access_log_module.reopen();
        stop();
        assert_int_equal(fake.lines + fake.reopened + fake.closed, 0);
        assert_string_equal(fake.opened, "");
    }
}

static void an_unknown_format_is_refused(void **state)
{
    char why[256] = "";
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.file = "off";
    fake.format = "JSON";
    assert_int_not_equal(s3p_access_log_module.init(&api, why, sizeof why), 0);
    assert_string_equal(why, "access_log.format is \"JSON\": json or combined expected");
}

static void a_file_that_cannot_be_opened_stops_the_start(void **state)
{
    char why[256] = "";
    (void)state;
    memset(&fake, 0, sizeof fake);
    fake.file = "/nowhere/log";
    fake.refuse = true;
    assert_int_not_equal(s3p_access_log_module.init(&api, why, sizeof why), 0);
    assert_string_equal(why, "access_log.file: /nowhere/log: Permission denied");
    write_line();
    stop();
    assert_int_equal(fake.lines + fake.closed, 0);
}

static void reopen_and_exit_reach_the_file(void **state)
{
    (void)state;
    start("/log/a", NULL);
    assert_string_equal(fake.opened, "/log/a");
    s3p_access_log_module.reopen();
    assert_int_equal(fake.reopened, 1);
    stop();
    assert_int_equal(fake.closed, 1);
    stop();
    assert_int_equal(fake.closed, 1);
}

/* ---- JSON */

static void a_json_line_says_everything(void **state)
{
    (void)state;
    start("f", "json");
    write_line();
    assert_string_equal(
        fake.line,
        "{\"time\":\"2024-02-29T12:34:56.123456789Z\",\"request_id\":\"0123456789ABCDEF\",\"peer\":\"192.0.2.7:54321\","
        "\"method\":\"GET\",\"target\":\"/data/a%20b?X-Amz-Signature=...\",\"host\":\"localhost\",\"protocol\":"
        "\"HTTP/1.1\",\"tls\":false,\"tls_protocol\":\"TLSv1.3\",\"tls_client\":\"CN=a \\\\\\\"b\\\\\\\"\",\"status\":206,\"operation\":\"GET\",\"bucket\":\"data\",\"key\":\"a%20b\","
        "\"origin\":\"s3\",\"cache\":\"main\",\"cache_result\":\"PARTIAL\",\"route\":\"/\",\"sent_bytes\":100,"
        "\"received_bytes\":5,\"origin_bytes\":1048576,\"first_byte_us\":12345,\"total_us\":20000,\"user_agent\":"
        "\"boto3/1.34\",\"referer\":\"http://page/?q=1\",\"range\":\"bytes=0-99\",\"error\":null}\n");
    stop();
}

static void an_empty_request_is_still_json(void **state)
{
    (void)state;
    start("f", "json");
    memset(&fake.info, 0, sizeof fake.info);
    fake.info.error = S("connection reset by the origin");
    fake.info.tls = true;
    json_t *root = line_json();
    assert_int_equal(json_object_size(root), 27);
    assert_string_equal(text_of(root, "time"), "1970-01-01T00:00:00.000000000Z");
    assert_string_equal(text_of(root, "target"), "");
    assert_string_equal(text_of(root, "error"), "connection reset by the origin");
    assert_true(json_is_true(json_object_get(root, "tls")));
    assert_true(json_is_null(json_object_get(root, "first_byte_us")));
    assert_true(json_is_null(json_object_get(root, "tls_protocol")) && json_is_null(json_object_get(root, "tls_client")));
    assert_int_equal(json_integer_value(json_object_get(root, "total_us")), 0);
    assert_int_equal(json_integer_value(json_object_get(root, "status")), 0);
    json_decref(root);
    stop();
}

static void numbers_reach_their_ends(void **state)
{
    (void)state;
    start("f", "json");
    fake.info.sent_bytes = UINT64_MAX;
    fake.info.first_byte_ns = fake.info.start_ns - 1; /* a clock that lies */
    write_line();
    assert_non_null(strstr(fake.line, "\"sent_bytes\":18446744073709551615,"));
    assert_non_null(strstr(fake.line, "\"first_byte_us\":0,"));
    stop();
}

static void times_are_right(void **state)
{
    static const struct {
        int64_t ns;
        const char *text;
    } rows[] = {
        {0, "1970-01-01T00:00:00.000000000Z"},
        {-1, "1969-12-31T23:59:59.999999999Z"},
        {INT64_C(951782400000000001), "2000-02-29T00:00:00.000000001Z"},
        {INT64_C(951868799999999999), "2000-02-29T23:59:59.999999999Z"},
        {INT64_C(951868800000000000), "2000-03-01T00:00:00.000000000Z"},
        {INT64_C(1735689599000000000), "2024-12-31T23:59:59.000000000Z"},
        {INT64_C(4107542400000000000), "2100-03-01T00:00:00.000000000Z"},
        {INT64_MAX, "2262-04-11T23:47:16.854775807Z"},
        {INT64_MIN, "1677-09-21T00:12:43.145224192Z"},
    };
    (void)state;
    start("f", "json");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake.info.start_unix_ns = rows[i].ns;
        json_t *root = line_json();
        assert_string_equal(text_of(root, "time"), rows[i].text);
        json_decref(root);
    }
    stop();
}

static void json_text_comes_back_as_it_was_or_replaced(void **state)
{
    static const struct {
        s3p_str in;
        const char *out;
    } rows[] = {
        {{"", 0}, ""},
        {{NULL, 0}, ""},
        {{"plain, longer than eight bytes", 30}, "plain, longer than eight bytes"},
        {{"1234567\"", 8}, "1234567\""},
        {{"\\\"/\b\f\n\r\t\x1f\x7f", 10}, "\\\"/\b\f\n\r\t\x1f\x7f"},
        {{"12345678\x7f", 9}, "12345678\x7f"},
        {{"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z", 10}, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z"},
        {{"a\xff\xfe" "b", 4}, "a\xef\xbf\xbd\xef\xbf\xbd" "b"},
        {{"\x80", 1}, "\xef\xbf\xbd"},
        {{"\xc0\xaf", 2}, "\xef\xbf\xbd\xef\xbf\xbd"},                          /* overlong */
        {{"\xe0\x80\xaf", 3}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},          /* overlong */
        {{"\xed\xa0\x80", 3}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},          /* a surrogate */
        {{"\xf4\x90\x80\x80", 4}, "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* past U+10FFFF */
        {{"\xe2\x82\xac", 2}, "\xef\xbf\xbd\xef\xbf\xbd"},                      /* cut */
    };
    (void)state;
    start("f", "json");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake.info.user_agent = rows[i].in;
        json_t *root = line_json();
        assert_string_equal(text_of(root, "user_agent"), rows[i].out);
        json_decref(root);
    }
    fake.info.user_agent = S("a\0b");
    json_t *root = line_json();
    assert_int_equal(json_string_length(json_object_get(root, "user_agent")), 3);
    json_decref(root);
    stop();
}

static void every_byte_at_every_place_gives_valid_json(void **state)
{
    char text[24];
    (void)state;
    start("f", "json");
    for (int c = 0; c < 256; c++) {
        for (size_t at = 0; at < sizeof text; at++) {
            memset(text, 'a', sizeof text);
            text[at] = (char)c;
            fake.info.key = (s3p_str){text, sizeof text};
            json_t *root = line_json();
            const json_t *key = json_object_get(root, "key");
            if (c < 0x80) {
                assert_int_equal(json_string_length(key), sizeof text);
                assert_memory_equal(json_string_value(key), text, sizeof text);
            } else {
                assert_int_equal(json_string_length(key), sizeof text + 2);
            }
            json_decref(root);
        }
    }
    stop();
}

static uint64_t random_next(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

/* Random bytes, mostly such that matter, of random lengths up to far beyond a line, in every text at once. */
static void random_bytes_give_valid_json_and_printable_combined(void **state)
{
    static const char loved[] = "\"\\\x00\x1f\x7f\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\xff?&a";
    static char pool[65536];
    uint64_t seed = 88172645463325252u;
    (void)state;
    for (size_t i = 0; i < sizeof pool; i++) {
        uint64_t x = random_next(&seed);
        pool[i] = x & 0x300 ? loved[x % (sizeof loved - 1)] : (char)x;
    }
    for (int round = 0; round < 600; round++) {
        start("f", round & 1 ? "combined" : "json");
        s3p_str *texts[] = {&fake.info.method, &fake.info.path, &fake.info.query, &fake.info.host,
                            &fake.info.user_agent, &fake.info.referer, &fake.info.range, &fake.info.peer,
                            &fake.info.protocol, &fake.info.operation, &fake.info.bucket, &fake.info.key,
                            &fake.info.origin, &fake.info.cache, &fake.info.cache_result, &fake.info.route,
                            &fake.info.request_id, &fake.info.error, &fake.info.tls_client};
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            size_t n = (size_t)(random_next(&seed) % (UINT64_C(1) << (random_next(&seed) % 16)));
            *texts[i] = (s3p_str){pool + random_next(&seed) % (sizeof pool - n), n};
        }
        if (round & 1) {
            write_line();
            for (size_t i = 0; i + 1 < fake.line_n; i++) assert_in_range(fake.line[i], 0x20, 0x7e);
            assert_int_equal(fake.line[fake.line_n - 1], '\n');
        } else {
            json_t *root = line_json();
            assert_int_equal(json_object_size(root), 27);
            json_decref(root);
        }
        assert_int_equal(fake.lines, 1);
        stop();
    }
}

static void only_what_is_long_is_cut(void **state)
{
    static char longish[12000], big[40000];
    (void)state;
    memset(longish, 'k', sizeof longish);
    memset(big, 'u', sizeof big);
    start("f", "json");

    fake.info.key = (s3p_str){longish, sizeof longish}; /* fits: whole */
    json_t *root = line_json();
    assert_int_equal(json_string_length(json_object_get(root, "key")), sizeof longish);
    json_decref(root);

    fake.info.user_agent = (s3p_str){big, sizeof big}; /* with this it does not */
    root = line_json();
    assert_int_equal(json_string_length(json_object_get(root, "key")), 4096 + 3);
    assert_int_equal(json_string_length(json_object_get(root, "user_agent")), 4096 + 3);
    assert_string_equal(text_of(root, "key") + 4096, "...");
    assert_string_equal(text_of(root, "target"), "/data/a%20b?X-Amz-Signature=...");
    assert_string_equal(text_of(root, "range"), "bytes=0-99");
    json_decref(root);
    stop();
}

static void a_cut_never_splits_a_sequence_or_an_escape(void **state)
{
    static char text[60001];
    (void)state;
    start("f", "json");
    for (size_t shift = 0; shift < 8; shift++) {
        memset(text, 'x', sizeof text);
        for (size_t i = shift; i + 8 <= sizeof text; i += 8) memcpy(text + i, "\xf0\x9f\x98\x80\x01\xe2\x82\xac", 8);
        fake.info.path = (s3p_str){text, sizeof text};
        json_t *root = line_json();
        const char *target = text_of(root, "target");
        size_t n = strlen(target);
        assert_string_equal(target + n - 3, "...");
        assert_memory_equal(target, text, n - 3);
        assert_null(strstr(target, "\xef\xbf\xbd"));
        json_decref(root);
    }
    stop();
}

static void a_target_has_its_query_only_if_there_was_one(void **state)
{
    (void)state;
    start("f", "json");
    fake.info.query = (s3p_str){NULL, 0};
    json_t *root = line_json();
    assert_string_equal(text_of(root, "target"), "/data/a%20b");
    json_decref(root);
    fake.info.query = S("");
    root = line_json();
    assert_string_equal(text_of(root, "target"), "/data/a%20b?");
    json_decref(root);
    stop();
}

static void a_presigned_referer_loses_its_query(void **state)
{
    static const struct {
        s3p_str in;
        const char *out;
    } rows[] = {
        {{NULL, 0}, ""},
        {{"?", 1}, "?"},
        {{"http://h/p", 10}, "http://h/p"},
        {{"http://h/p?a=b&c", 16}, "http://h/p?a=b&c"},
        {{"http://h/p?a=token", 18}, "http://h/p?a=token"},
        {{"http://h/p?a=%20", 16}, "http://h/p?a=%20"},
        {{"http://h/p?a=1&x-amz-SIGNATURE=abc", 34}, "http://h/p?..."},
        {{"http://h/p?Signature=abc", 24}, "http://h/p?..."},
        {{"http://h/p?X-Amz-Security-Token=abc&b=2", 39}, "http://h/p?..."},
        {{"http://h/p?X-Amz-Credential=abc", 31}, "http://h/p?..."},
        {{"http://h/p?AWSAccessKeyId=abc", 29}, "http://h/p?..."},
        {{"http://h/p?X%2DAmz%2DSign%61ture=abc", 36}, "http://h/p?..."},
        {{"http://h/p?token", 16}, "http://h/p?..."},
    };
    (void)state;
    start("f", "json");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake.info.referer = rows[i].in;
        json_t *root = line_json();
        assert_string_equal(text_of(root, "referer"), rows[i].out);
        json_decref(root);
    }
    stop();
}

/* ---- combined */

static void a_combined_line_is_apaches_and_two_words_more(void **state)
{
    (void)state;
    start("f", "combined");
    write_line();
    assert_string_equal(fake.line,
                        "192.0.2.7 - - [29/Feb/2024:12:34:56 +0000] \"GET /data/a%20b?X-Amz-Signature=... HTTP/1.1\" "
                        "206 100 \"http://page/?q=1\" \"boto3/1.34\" PARTIAL 0.012345\n");
    stop();
}

static void a_combined_line_has_dashes_for_what_is_missing(void **state)
{
    (void)state;
    start("f", "combined");
    memset(&fake.info, 0, sizeof fake.info);
    write_line();
    assert_string_equal(fake.line, "- - - [01/Jan/1970:00:00:00 +0000] \"-\" 000 0 \"-\" \"-\" - -\n");
    stop();
}

static void combined_escapes_as_nginx_does(void **state)
{
    (void)state;
    start("f", "combined");
    fake.info.user_agent = S("a\"b\\c\n\x7f\xc3\xa4");
    fake.info.referer = S("http://h/\t");
    fake.info.path = S("/a\"b");
    fake.info.query = (s3p_str){NULL, 0};
    write_line();
    assert_non_null(strstr(fake.line, "\"GET /a\\x22b HTTP/1.1\""));
    assert_non_null(strstr(fake.line, "\"http://h/\\x09\" \"a\\x22b\\x5Cc\\x0A\\x7F\\xC3\\xA4\" "));
    stop();
}

static void combined_gives_the_address_without_its_port(void **state)
{
    static const struct {
        s3p_str in;
        const char *out;
    } rows[] = {
        {{"[2001:db8::1]:443", 17}, "2001:db8::1 -"},
        {{"10.0.0.1", 8}, "10.0.0.1 -"},
        {{":80", 3}, "- -"},
    };
    (void)state;
    start("f", "combined");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        fake.info.peer = rows[i].in;
        write_line();
        assert_memory_equal(fake.line, rows[i].out, strlen(rows[i].out));
    }
    stop();
}

static void combined_counts_seconds(void **state)
{
    (void)state;
    start("f", "combined");
    fake.info.first_byte_ns = fake.info.start_ns + UINT64_C(61000042000);
    write_line();
    assert_non_null(strstr(fake.line, " PARTIAL 61.000042\n"));
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(off_and_unset_do_nothing),
        cmocka_unit_test(an_unknown_format_is_refused),
        cmocka_unit_test(a_file_that_cannot_be_opened_stops_the_start),
        cmocka_unit_test(reopen_and_exit_reach_the_file),
        cmocka_unit_test(a_json_line_says_everything),
        cmocka_unit_test(an_empty_request_is_still_json),
        cmocka_unit_test(numbers_reach_their_ends),
        cmocka_unit_test(times_are_right),
        cmocka_unit_test(json_text_comes_back_as_it_was_or_replaced),
        cmocka_unit_test(every_byte_at_every_place_gives_valid_json),
        cmocka_unit_test(random_bytes_give_valid_json_and_printable_combined),
        cmocka_unit_test(only_what_is_long_is_cut),
        cmocka_unit_test(a_cut_never_splits_a_sequence_or_an_escape),
        cmocka_unit_test(a_target_has_its_query_only_if_there_was_one),
        cmocka_unit_test(a_presigned_referer_loses_its_query),
        cmocka_unit_test(a_combined_line_is_apaches_and_two_words_more),
        cmocka_unit_test(a_combined_line_has_dashes_for_what_is_missing),
        cmocka_unit_test(combined_escapes_as_nginx_does),
        cmocka_unit_test(combined_gives_the_address_without_its_port),
        cmocka_unit_test(combined_counts_seconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
