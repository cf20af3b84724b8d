/* test_cli_oplog.c - the op-log: its columns, its times, what names may hold, and that a log which is not whole is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <zstd.h>

#include "cli/oplog.h"

#define HEADER "idx\tthread\top\tclient_id\tn_objects\tbytes\tendpoint\tfile\terror\tstart\tfirst_byte\tend\tduration_ns"

static char path[] = "/tmp/s3p-oplog-XXXXXX";

static int make_path(void **state)
{
    (void)state;
    strcpy(path, "/tmp/s3p-oplog-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static struct oplog *opened(void)
{
    struct oplog *l;
    char msg[256];

    if (!oplog_open(path, "http://127.0.0.1:8080", "me", &l, msg, sizeof msg)) fail_msg("%s", msg);
    return l;
}

/* The file, decompressed, NUL-terminated; it must be one whole frame. */
static char *closed(struct oplog *l)
{
    char msg[256];
    FILE *f;
    static char raw[1 << 20];

    if (!oplog_close(l, msg, sizeof msg)) fail_msg("%s", msg);
    assert_non_null(f = fopen(path, "rb"));
    size_t n = fread(raw, 1, sizeof raw, f), cap = (size_t)32 << 20;
    fclose(f);
    char *text = malloc(cap + 1);
    size_t got = ZSTD_decompress(text, cap, raw, n);
    assert_false(ZSTD_isError(got));
    assert_int_equal(ZSTD_findFrameCompressedSize(raw, n), n);
    text[got] = '\0';
    return text;
}

/* Field `column` of line `line`, in a static buffer. */
static const char *field(const char *text, unsigned line, unsigned column)
{
    static char buf[8192];

    while (line--) text = strchr(text, '\n') + 1;
    while (column--) text = strchr(text, '\t') + 1;
    snprintf(buf, sizeof buf, "%.*s", (int)strcspn(text, "\t\n"), text);
    return buf;
}

static unsigned columns_of(const char *text, unsigned line)
{
    unsigned n = 1;

    while (line--) text = strchr(text, '\n') + 1;
    for (; *text && *text != '\n'; text++) n += *text == '\t';
    return n;
}

static int64_t nanoseconds(const char *rfc3339)
{
    struct tm tm = {0};
    const char *dot = strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm);

    assert_non_null(dot);
    assert_int_equal(strlen(dot), 11); /* .123456789Z */
    assert_int_equal(dot[0], '.');
    assert_int_equal(dot[10], 'Z');
    return (int64_t)timegm(&tm) * 1000000000 + strtol(dot + 1, NULL, 10);
}

static void an_empty_log_has_its_header(void **state)
{
    (void)state;
    char *text = closed(opened());
    assert_string_equal(text, HEADER "\n");
    free(text);
}

static void an_operation_has_its_thirteen_columns(void **state)
{
    (void)state;
    struct timespec now;
    struct oplog *l = opened();
    uint64_t t = clock_ns();

    oplog_add(l, &(struct op){.op = "GET", .thread = 7, .n_objects = 1, .bytes = 4096, .bucket = STR_LIT("b"), .key = STR_LIT("a/k"),
                              .start_ns = t, .first_byte_ns = t + 1000000, .end_ns = t + 2500000000u});
    oplog_add(l, &(struct op){.op = "LIST", .n_objects = 1000, .bucket = STR_LIT("b"), .error = "404 NoSuchBucket", .start_ns = t,
                              .end_ns = t + 1});
    clock_gettime(CLOCK_REALTIME, &now);
    char *text = closed(l);
    static const char *const want[] = {"0", "7", "GET", "me", "1", "4096", "http://127.0.0.1:8080", "/b/a/k", ""};
    for (unsigned i = 0; i < ARRAY_LEN(want); i++) assert_string_equal(field(text, 1, i), want[i]);
    int64_t start = nanoseconds(field(text, 1, 9)), first = nanoseconds(field(text, 1, 10)), end = nanoseconds(field(text, 1, 11));
    assert_int_equal(first - start, 1000000);
    assert_int_equal(end - start, 2500000000u);
    assert_string_equal(field(text, 1, 12), "2500000000");
    int64_t since_then = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - start;
    assert_true(since_then >= -1000000000 && since_then < INT64_C(600) * 1000000000);
    assert_int_equal(columns_of(text, 1), 13);
    assert_int_equal(columns_of(text, 2), 13);
    assert_string_equal(field(text, 2, 0), "1");
    assert_string_equal(field(text, 2, 4), "1000");
    assert_string_equal(field(text, 2, 7), "/b");
    assert_string_equal(field(text, 2, 8), "404 NoSuchBucket");
    assert_string_equal(field(text, 2, 10), "");
    free(text);
}

static const char *name_of(const char *key, size_t n)
{
    static char got[8192];
    struct oplog *l = opened();

    oplog_add(l, &(struct op){.op = "PUT", .n_objects = 1, .bucket = STR_LIT("b"), .key = str_make(key, n), .start_ns = 1, .end_ns = 2});
    char *text = closed(l);
    assert_int_equal(columns_of(text, 1), 13);
    assert_string_equal(strchr(strchr(text, '\n') + 1, '\n'), "\n"); /* one line and no more */
    snprintf(got, sizeof got, "%s", field(text, 1, 7));
    free(text);
    return got;
}

static void names_cannot_make_lines_or_columns(void **state)
{
    (void)state;
    static const struct {
        struct str key;
        const char *field;
    } rows[] = {
        {STR_LIT("a\tb"), "/b/a\\tb"},
        {STR_LIT("a\nb\rc"), "/b/a\\nb\\rc"},
        {STR_LIT("a\\tb"), "/b/a\\\\tb"},
        {STR_LIT("nul\0\x1b[m\x7f"), "/b/nul\\x00\\x1b[m\\x7f"},
        {STR_LIT("say \"hi\""), "\"/b/say \"\"hi\"\"\""},
        {STR_LIT("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x98"), "/b/gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x98"},
        {STR_LIT("\xff\xc3(\xc0\x80"), "/b/\\xff\\xc3(\\xc0\\x80"},
        {STR_LIT("\xed\xa0\x80\xf4\x90\x80\x80\xe0\x80\x80\xe2\x82"), "/b/\\xed\\xa0\\x80\\xf4\\x90\\x80\\x80\\xe0\\x80\\x80\\xe2\\x82"},
        {STR_LIT("//"), "/b///"},
    };
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) assert_string_equal(name_of(rows[i].key.p, rows[i].key.n), rows[i].field);
}

static void a_call_says_why_it_failed_and_when_its_body_began(void **state)
{
    (void)state;
    struct oplog *l = opened();
    struct call_result r = {.err = ERR_OK, .status = 200, .bytes = 10, .start_ns = 100, .first_byte_ns = 150, .end_ns = 200};

    oplog_call(l, "GET", 3, STR_LIT("b"), STR_LIT("k"), r.bytes, &r);
    r = (struct call_result){.err = ERR_NOT_FOUND, .status = 404, .start_ns = 100, .first_byte_ns = 150, .end_ns = 200, .code = "NoSuchKey"};
    oplog_call(l, "GET", 3, STR_LIT("b"), STR_LIT("k"), 0, &r);
    r = (struct call_result){.err = ERR_OK, .status = 200, .start_ns = 100, .first_byte_ns = 150, .end_ns = 200};
    oplog_call(l, "PUT", 4, STR_LIT("b"), STR_LIT("k"), 77, &r);
    oplog_call(NULL, "PUT", 4, STR_LIT("b"), STR_LIT("k"), 77, &r);
    char *text = closed(l);
    assert_string_equal(field(text, 1, 8), "");
    assert_string_not_equal(field(text, 1, 10), "");
    assert_string_equal(field(text, 2, 8), "404 NoSuchKey");
    assert_string_equal(field(text, 2, 10), "");
    assert_string_equal(field(text, 3, 5), "77");
    assert_string_equal(field(text, 3, 10), ""); /* a PUT's answer is no body */
    free(text);
}

/* More than all buffers hold, and nothing is lost or out of order. */
static void a_hundred_thousand_operations(void **state)
{
    (void)state;
    struct oplog *l = opened();
    char key[64];
    const char *at;
    uint64_t mix = 88172645463325252u; /* xorshift: names that do not compress to nothing */

    for (unsigned i = 0; i < 100000; i++) {
        mix ^= mix << 13, mix ^= mix >> 7, mix ^= mix << 17;
        snprintf(key, sizeof key, "%06u", i);
        oplog_add(l, &(struct op){.op = "GET", .thread = i % 8, .n_objects = 1, .bytes = mix % 100, .bucket = STR_LIT("b"),
                                  .key = str_c(key), .start_ns = i, .end_ns = i + 1});
    }
    char *text = closed(l);
    at = text;
    for (unsigned i = 0; i < 100000; i++) {
        at = strchr(at, '\n') + 1;
        assert_int_equal(strtoul(at, NULL, 10), i);
        snprintf(key, sizeof key, "\t/b/%06u\t", i);
        assert_non_null(memmem(at, strcspn(at, "\n"), key, strlen(key)));
    }
    assert_string_equal(strchr(at, '\n'), "\n");
    free(text);
}

static void what_cannot_be_written_is_told(void **state)
{
    (void)state;
    struct oplog *l;
    char msg[256] = "";

    assert_false(oplog_open("/dev/null/x", "u", NULL, &l, msg, sizeof msg));
    assert_string_equal(msg, "cannot create /dev/null/x: Not a directory");
    assert_null(l);
    assert_true(oplog_open("/dev/full", "u", NULL, &l, msg, sizeof msg));
    oplog_add(l, &(struct op){.op = "GET", .bucket = STR_LIT("b"), .start_ns = 1, .end_ns = 2});
    assert_false(oplog_close(l, msg, sizeof msg));
    assert_string_equal(msg, "/dev/full is not whole: No space left on device");
    assert_true(oplog_close(NULL, msg, sizeof msg));
}

static void the_client_is_host_and_process_unless_named(void **state)
{
    (void)state;
    struct oplog *l;
    char msg[256], host[256] = "", want[300];

    assert_true(oplog_open(path, "u", NULL, &l, msg, sizeof msg));
    oplog_add(l, &(struct op){.op = "GET", .bucket = STR_LIT("b"), .start_ns = 1, .end_ns = 2});
    char *text = closed(l);
    gethostname(host, sizeof host - 1);
    snprintf(want, sizeof want, "%s-%ld", host, (long)getpid());
    assert_string_equal(field(text, 1, 3), want);
    free(text);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, make_path, remove_path)
    const struct CMUnitTest tests[] = {
        T(an_empty_log_has_its_header),
        T(an_operation_has_its_thirteen_columns),
        T(names_cannot_make_lines_or_columns),
        T(a_call_says_why_it_failed_and_when_its_body_began),
        T(a_hundred_thousand_operations),
        T(what_cannot_be_written_is_told),
        T(the_client_is_host_and_process_unless_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
