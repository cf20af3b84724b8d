/* test_origin_file.c - a directory that answers like S3: objects, ranges, preconditions, listings, what must not be
 * reachable, files that change while they are read. */
#include "origin_env.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "s3/error_xml.h"

static char root[64];
static struct disk *disk;
static struct origin_conf conf;
static struct env env;

static void write_file(const char *name, const void *data, size_t n)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        mkdir(path, 0755);
        *p = '/';
    }
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void write_pattern(const char *name, size_t n)
{
    uint8_t *p = calloc(1, n ? n : 1);
    for (size_t i = 0; i < n; i++) p[i] = pattern_at(i);
    write_file(name, p, n);
    free(p);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/test_origin_file.XXXXXX");
    if (!mkdtemp(root) || disk_create(2, &disk) != ERR_OK) return -1;
    conf = env_conf(0);
    conf.type = ORIGIN_FILE;
    conf.root = root;
    env_open(&env, &conf, disk);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    env_close(&env);
    disk_destroy(disk);
    snprintf(command, sizeof command, "rm -rf %s", root);
    return system(command);
}

static struct get g;

static void fetch(const char *method, const char *path, const char *name, const char *value)
{
    struct hdr h = {str_c(name), str_c(value), name ? hdr_id_of(str_c(name)) : HDR_OTHER};
    get_free(&g);
    get_init(&g, &env, path, 4 << 20);
    g.r.method = method_of(str_c(method));
    g.r.method_text = str_c(method);
    g.r.hdrs = &h;
    g.r.nhdrs = name ? 1 : 0;
    get_run(&g);
    assert_int_equal(g.ends, 1);
    g.buf[g.n < g.cap ? g.n : g.cap - 1] = '\0';
}

static void get(const char *path) { fetch("GET", path, NULL, NULL); }

static bool code_is(const char *code) { return str_eq(error_xml_code(str_make((char *)g.buf, g.n)), str_c(code)); }

static const char *field(const char *name)
{
    static char value[256];
    char key[64];
    snprintf(key, sizeof key, "%s: ", name);
    const char *at = strstr(g.text, key);
    if (!at) return NULL;
    at += strlen(key);
    snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "\n"), at);
    return value;
}

static bool has(const char *text) { return strstr((char *)g.buf, text) != NULL; }

/* ---- objects */

static void test_get_whole(void **state)
{
    (void)state;
    write_pattern("b/dir/x.txt", 1000000);
    get("/b/dir/x.txt");
    assert_int_equal(g.end, ERR_OK);
    assert_int_equal(g.status, 200);
    assert_int_equal(g.body_length, 1000000);
    assert_true(get_is_pattern(&g, 0, 1000000));
    assert_string_equal(field("content-type"), "text/plain");
    assert_string_equal(field("accept-ranges"), "bytes");
    assert_string_equal(field("content-length"), "1000000");
    assert_int_equal(field("etag")[0], '"');
    assert_true(date_parse(str_c(field("last-modified"))) > 0);
    assert_int_equal(stat_get(&origin_worker_stats(env.worker)->bytes), 1000000);
    assert_int_equal(stat_get(&origin_worker_stats(env.worker)->in_flight), 0);
}

static void test_head(void **state)
{
    (void)state;
    write_pattern("b/x.parquet", 5000);
    fetch("HEAD", "/b/x.parquet", NULL, NULL);
    assert_int_equal(g.status, 200);
    assert_int_equal(g.content_length, 5000);
    assert_int_equal(g.n, 0);
    fetch("HEAD", "/b/none", NULL, NULL);
    assert_int_equal(g.status, 404);
    assert_int_equal(g.n, 0);
}

static void test_empty_object(void **state)
{
    (void)state;
    write_pattern("b/empty", 0);
    get("/b/empty");
    assert_int_equal(g.status, 200);
    assert_int_equal(g.end, ERR_OK);
    assert_int_equal(g.n, 0);
    fetch("GET", "/b/empty", "range", "bytes=0-9");
    assert_int_equal(g.status, 416);
    assert_string_equal(field("content-range"), "bytes */0");
}

static void test_ranges(void **state)
{
    (void)state;
    write_pattern("b/x", 600000);
    static const struct {
        const char *range;
        unsigned status;
        size_t first, n;
    } t[] = {{"bytes=0-", 206, 0, 600000},
             {"bytes=10-19", 206, 10, 10},
             {"bytes=-7", 206, 599993, 7},
             {"bytes=599999-700000", 206, 599999, 1},
             {"bytes=262143-524289", 206, 262143, 262147},
             {"bytes=-900000", 206, 0, 600000},
             {"bytes=5-1", 200, 0, 600000},
             {"bytes=0-1,5-6", 200, 0, 600000},
             {"lines=1-2", 200, 0, 600000}};
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        fetch("GET", "/b/x", "range", t[i].range);
        assert_int_equal(g.status, t[i].status);
        assert_true(get_is_pattern(&g, t[i].first, t[i].n));
    }
    fetch("GET", "/b/x", "range", "bytes=10-19");
    assert_string_equal(field("content-range"), "bytes 10-19/600000");
    fetch("GET", "/b/x", "range", "bytes=600000-");
    assert_int_equal(g.status, 416);
    assert_true(code_is("InvalidRange"));
    assert_string_equal(field("content-range"), "bytes */600000");
}

static void test_range_and_if_match_of_the_caller(void **state)
{
    (void)state;
    char etag[128];
    write_pattern("b/x", 100000);
    fetch("HEAD", "/b/x", NULL, NULL);
    strcpy(etag, field("etag"));
    for (int wrong = 0; wrong < 2; wrong++) {
        get_free(&g);
        get_init(&g, &env, "/b/x", 1 << 20);
        g.r.has_range = true;
        g.r.first = 1000;
        g.r.last = 1999;
        g.r.if_match = wrong ? STR_LIT("\"other\"") : str_c(etag);
        get_run(&g);
        assert_int_equal(g.status, wrong ? 412 : 206);
        if (!wrong) assert_true(get_is_pattern(&g, 1000, 1000));
        if (wrong) assert_true(code_is("PreconditionFailed"));
    }
}

static void test_preconditions(void **state)
{
    (void)state;
    char etag[128], modified[64];
    write_pattern("b/x", 10);
    get("/b/x");
    strcpy(etag, field("etag"));
    strcpy(modified, field("last-modified"));
    fetch("GET", "/b/x", "if-none-match", etag);
    assert_int_equal(g.status, 304);
    assert_int_equal(g.n, 0);
    assert_string_equal(field("etag"), etag);
    fetch("GET", "/b/x", "if-modified-since", modified);
    assert_int_equal(g.status, 304);
    fetch("GET", "/b/x", "if-none-match", "\"x\"");
    assert_int_equal(g.status, 200);
    fetch("GET", "/b/x", "if-match", "\"x\"");
    assert_int_equal(g.status, 412);
    fetch("GET", "/b/x", "if-match", etag);
    assert_int_equal(g.status, 200);
    fetch("GET", "/b/x", "if-unmodified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_int_equal(g.status, 412);
    write_pattern("b/x", 11);
    fetch("GET", "/b/x", "if-none-match", etag);
    assert_int_equal(g.status, 200);
}

static void test_names_are_decoded(void **state)
{
    (void)state;
    write_pattern("b/a b+c", 3);
    write_pattern("b/\xc3\xa9/%41", 4);
    get("/b/a%20b+c");
    assert_int_equal(g.status, 200);
    get("/b/%C3%A9/%2541");
    assert_int_equal(g.n, 4);
    get("/b/%zz");
    assert_int_equal(g.status, 400);
    assert_true(code_is("InvalidURI"));
}

static void test_part_numbers_and_overrides(void **state)
{
    (void)state;
    write_pattern("b/x", 10);
    get("/b/x?partNumber=1");
    assert_int_equal(g.status, 206);
    assert_string_equal(field("content-range"), "bytes 0-9/10");
    get("/b/x?partNumber=2");
    assert_int_equal(g.status, 416);
    get("/b/x?partNumber=0");
    assert_int_equal(g.status, 400);
    get("/b/x?response-content-type=a%2Fb&response-content-disposition=inline&x-id=GetObject");
    assert_int_equal(g.status, 200);
    assert_string_equal(field("content-type"), "a/b");
    assert_string_equal(field("content-disposition"), "inline");
    get("/b/x?response-content-type=a%0d%0ab");
    assert_int_equal(g.status, 400);
}

/* ---- what is not there, or not to be had */

static void test_missing(void **state)
{
    (void)state;
    write_pattern("b/dir/x", 10);
    static const char *const no_key[] = {"/b/none",    "/b/dir",          "/b/dir/",
                                         "/b/x/y/z",   "/b/dir/x/",       "/b//dir/x",
                                         "/b/./dir/x", "/b/dir/../dir/x", "/b/dir%2F..%2Fdir/x",
                                         "/b/x%00y"};
    for (size_t i = 0; i < ARRAY_LEN(no_key); i++) {
        get(no_key[i]);
        assert_int_equal(g.status, 404);
        assert_true(code_is("NoSuchKey"));
        assert_string_equal(field("content-type"), "application/xml");
    }
    static const char *const no_bucket[] = {"/none", "/none/", "/none/x", "/../x", "/./x", "/%2e%2e/x", "/b%2Fdir/x"};
    for (size_t i = 0; i < ARRAY_LEN(no_bucket); i++) {
        get(no_bucket[i]);
        assert_int_equal(g.status, 404);
        assert_true(code_is("NoSuchBucket"));
    }
    write_pattern("plain-file", 10);
    get("/plain-file/x");
    assert_int_equal(g.status, 404);
    assert_true(code_is("NoSuchBucket"));
}

static void test_symbolic_links_do_not_lead_out(void **state)
{
    (void)state;
    char path[256];
    write_pattern("b/x", 10);
    snprintf(path, sizeof path, "%s/b/passwd", root);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    snprintf(path, sizeof path, "%s/b/up", root);
    assert_int_equal(symlink("../../..", path), 0);
    snprintf(path, sizeof path, "%s/b/inside", root);
    assert_int_equal(symlink("x", path), 0);
    snprintf(path, sizeof path, "%s/b/pipe", root);
    assert_int_equal(mkfifo(path, 0644), 0);
    get("/b/passwd");
    assert_true(g.status == 403 || g.status == 404);
    get("/b/up/etc/passwd");
    assert_true(g.status == 403 || g.status == 404);
    get("/b/pipe");
    assert_int_equal(g.status, 404);
    get("/b/inside");
    assert_int_equal(g.status, 200);
}

static void test_other_methods(void **state)
{
    (void)state;
    const char *methods[] = {"PUT", "POST", "DELETE", "OPTIONS", "PATCH"};
    write_pattern("b/x", 10);
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        fetch(methods[i], "/b/x", NULL, NULL);
        assert_int_equal(g.status, 405);
        assert_true(code_is("MethodNotAllowed"));
    }
    get("/b/x?acl");
    assert_int_equal(g.status, 501);
    assert_true(code_is("NotImplemented"));
    get("/b?versioning");
    assert_int_equal(g.status, 501);
    get("/b?location");
    assert_int_equal(g.status, 200);
    assert_true(has("<LocationConstraint "));
    get("/none?location");
    assert_int_equal(g.status, 404);
}

/* ---- changes while it is read */

static void test_change_while_reading_ends_it(void **state)
{
    (void)state;
    char path[128];
    for (int how = 0; how < 3; how++) {
        write_pattern("b/x", 3 << 20);
        get_free(&g);
        get_init(&g, &env, "/b/x", 4 << 20);
        g.pause_at = 600000;
        get_submit(&g);
        assert_false(env_run(&env, 100));
        assert_true(g.paused);
        snprintf(path, sizeof path, "%s/b/x", root);
        if (how == 0) assert_int_equal(truncate(path, 700000), 0);
        if (how == 1) write_pattern("b/x", 3 << 20); /* in place, same size */
        if (how == 2) {                              /* replaced by another file: the one that is open is still whole */
            write_pattern("b/y", 100);
            char other[140];
            snprintf(other, sizeof other, "%s/b/y", root);
            assert_int_equal(rename(other, path), 0);
        }
        g.pause_at = SIZE_MAX;
        origin_resume(g.call);
        assert_true(env_run(&env, 5000));
        if (how == 0) assert_true(g.end == ERR_CHANGED || g.end == ERR_TRUNCATED);
        if (how == 1) assert_int_equal(g.end, ERR_CHANGED);
        if (how == 2) assert_int_equal(g.end, ERR_OK);
        if (how < 2) assert_true(g.n < 3 << 20);
        for (size_t i = 0; i < g.n; i++) assert_int_equal(g.buf[i], pattern_at(i));
    }
}

/* ---- the caller's side */

static void test_pause_and_small_spaces(void **state)
{
    (void)state;
    write_pattern("b/x", 900000);
    get_free(&g);
    get_init(&g, &env, "/b/x", 1 << 20);
    g.step = 1001;
    g.pause_at = 300000;
    get_submit(&g);
    assert_false(env_run(&env, 100));
    assert_int_equal(g.n, 300000);
    g.pause_at = SIZE_MAX;
    origin_resume(g.call);
    assert_int_equal(g.n, 300000);
    assert_true(env_run(&env, 5000));
    assert_int_equal(g.end, ERR_OK);
    assert_true(get_is_pattern(&g, 0, 900000));
}

static void test_cancel_everywhere(void **state)
{
    (void)state;
    const char *paths[] = {"/b/x", "/b/none", "/b", "/", "/none/x"};
    write_pattern("b/x", 900000);
    for (int where = CANCEL_HEAD; where <= CANCEL_END; where++)
        for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
            get_free(&g);
            get_init(&g, &env, paths[i], 1 << 20);
            g.cancel_in = where;
            get_run(&g);
            assert_true(g.cancelled);
        }
    for (int ms = 0; ms < 12; ms++)
        for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
            get_free(&g);
            get_init(&g, &env, paths[i], 1 << 20);
            get_submit(&g);
            if (ms > 1) env_run(&env, (uint64_t)(ms - 2) / 4);
            if (!g.done) origin_cancel(g.call);
        }
    assert_int_equal(stat_get(&origin_worker_stats(env.worker)->in_flight), 0);
}

static void test_worker_waits_for_cancelled_jobs(void **state)
{
    (void)state;
    write_pattern("b/x", 900000);
    for (int i = 0; i < 10; i++) {
        struct env e2;
        struct get h;
        env_open(&e2, &conf, disk);
        get_init(&h, &e2, "/b/x", 1 << 20);
        get_submit(&h);
        env_run(&e2, (uint64_t)i % 3);
        if (!h.done) origin_cancel(h.call);
        env_close(&e2);
        get_free(&h);
    }
}

static void test_operation_timeout(void **state)
{
    (void)state;
    struct env e2;
    struct get h;
    write_pattern("b/x", 900000);
    conf.operation_ms = 60;
    env_open(&e2, &conf, disk);
    get_init(&h, &e2, "/b/x", 1 << 20);
    h.pause_at = 10;
    get_run(&h);
    assert_int_equal(h.end, ERR_OPERATION_TIMEOUT);
    env_close(&e2);
    get_free(&h);
}

static void test_missing_root_is_a_message(void **state)
{
    (void)state;
    struct origin *o = NULL;
    char msg[256] = "";
    struct origin_conf c = conf;
    c.root = (char *)"/nonexistent/dir";
    assert_int_equal(origin_create(&c, 1, disk, &o, msg, sizeof msg), ERR_IO);
    assert_non_null(strstr(msg, "/nonexistent/dir"));
}

/* ---- listings */

static void test_list_buckets(void **state)
{
    (void)state;
    write_pattern("zeta/x", 1);
    write_pattern("alpha/x", 1);
    write_pattern(".hidden/x", 1);
    write_pattern("file", 1);
    get("/");
    assert_int_equal(g.status, 200);
    assert_true(has("<ListAllMyBucketsResult"));
    assert_true(has("<Name>alpha</Name>") && has("<Name>zeta</Name>"));
    assert_true(strstr((char *)g.buf, "alpha") < strstr((char *)g.buf, "zeta"));
    assert_false(has("hidden") || has("<Name>file"));
    fetch("HEAD", "/alpha", NULL, NULL);
    assert_int_equal(g.status, 200);
    fetch("HEAD", "/none", NULL, NULL);
    assert_int_equal(g.status, 404);
}

static void make_tree(void)
{
    const char *names[] = {"a", "a-b", "a.d/1", "a/1", "a/2", "a/c/3", "b/x&y", "b/\xc3\xa9", "c", "d/e/f/g"};
    /* "a" cannot be a file and a directory at once: the directory is called aa here */
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char name[64];
        if (strncmp(names[i], "a/", 2) == 0)
            snprintf(name, sizeof name, "l/aa/%s", names[i] + 2);
        else
            snprintf(name, sizeof name, "l/%s", names[i]);
        write_pattern(name, i);
    }
    char path[128];
    snprintf(path, sizeof path, "%s/l/nothing/deep", root);
    *strrchr(path, '/') = '\0';
    mkdir(path, 0755);
    strcat(path, "/deep");
    mkdir(path, 0755);
}

/* The keys and common prefixes of a listing, in order of appearance, joined by spaces. */
static const char *keys(void)
{
    static char out[8192];
    out[0] = '\0';
    for (const char *at = (char *)g.buf; (at = strchr(at, '<')) != NULL; at++) {
        const char *end = NULL;
        if (strncmp(at, "<Key>", 5) == 0)
            end = strstr(at += 5, "</Key>");
        else if (strncmp(at, "<CommonPrefixes><Prefix>", 24) == 0)
            end = strstr(at += 24, "</Prefix>");
        if (!end) continue;
        snprintf(out + strlen(out), sizeof out - strlen(out), "%s%.*s", out[0] ? " " : "", (int)(end - at), at);
    }
    return out;
}

static void test_list_objects(void **state)
{
    (void)state;
    make_tree();
    get("/l?list-type=2");
    assert_int_equal(g.status, 200);
    assert_string_equal(keys(), "a a-b a.d/1 aa/1 aa/2 aa/c/3 b/x&amp;y b/\xc3\xa9 c d/e/f/g");
    assert_true(has("<KeyCount>10</KeyCount>") && has("<IsTruncated>false</IsTruncated>"));
    assert_true(has("<Size>5</Size>") && has("<Name>l</Name>"));
    get("/l/?prefix=aa/");
    assert_string_equal(keys(), "aa/1 aa/2 aa/c/3");
    get("/l?prefix=a");
    assert_string_equal(keys(), "a a-b a.d/1 aa/1 aa/2 aa/c/3");
    get("/l?prefix=zzz");
    assert_string_equal(keys(), "");
    get("/l?encoding-type=url&prefix=b/");
    assert_string_equal(keys(), "b/x%26y b/%C3%A9");
    assert_true(has("<EncodingType>url</EncodingType>"));
    get("/l?list-type=2&max-keys=0");
    assert_string_equal(keys(), "");
    assert_true(has("<IsTruncated>false</IsTruncated>"));
    get("/none?list-type=2");
    assert_int_equal(g.status, 404);
    assert_true(code_is("NoSuchBucket"));
    get("/l?max-keys=x");
    assert_int_equal(g.status, 400);
    get("/l?list-type=2&continuation-token=zz");
    assert_int_equal(g.status, 400);
}

static void test_list_with_delimiter(void **state)
{
    (void)state;
    make_tree();
    get("/l?list-type=2&delimiter=/");
    assert_string_equal(keys(), "a a-b c a.d/ aa/ b/ d/"); /* no empty directory */
    get("/l?list-type=2&delimiter=%2F&prefix=aa/");
    assert_string_equal(keys(), "aa/1 aa/2 aa/c/");
    get("/l?list-type=2&delimiter=/&prefix=a");
    assert_string_equal(keys(), "a a-b a.d/ aa/");
    get("/l?delimiter=a");
    assert_string_equal(keys(), "b/x&amp;y b/\xc3\xa9 c d/e/f/g a");
    get("/l?delimiter=/c&prefix=");
    assert_string_equal(keys(), "a a-b a.d/1 aa/1 aa/2 b/x&amp;y b/\xc3\xa9 c d/e/f/g aa/c");
}

static void collect_pages(const char *query, const char *token_name, const char *from, char *all, size_t n)
{
    char path[512], token[256] = "";
    all[0] = '\0';
    for (int pages = 0; pages < 40; pages++) {
        snprintf(path, sizeof path, "/l?%s%s%s%s%s", query, token[0] ? "&" : "", token[0] ? token_name : "",
                 token[0] ? "=" : "", token);
        get(path);
        assert_int_equal(g.status, 200);
        snprintf(all + strlen(all), n - strlen(all), "%s%s", all[0] ? " " : "", keys());
        char open[64];
        snprintf(open, sizeof open, "<%s>", from);
        const char *at = strstr((char *)g.buf, open);
        assert_int_equal(at != NULL, has("<IsTruncated>true"));
        if (!at) return;
        at += strlen(open);
        snprintf(token, sizeof token, "%.*s", (int)strcspn(at, "<"), at);
    }
    fail_msg("endless");
}

static void test_list_pages(void **state)
{
    (void)state;
    char all[4096], query[128];
    make_tree();
    for (int max = 1; max < 12; max++) {
        snprintf(query, sizeof query, "list-type=2&max-keys=%d", max);
        collect_pages(query, "continuation-token", "NextContinuationToken", all, sizeof all);
        assert_string_equal(all, "a a-b a.d/1 aa/1 aa/2 aa/c/3 b/x&amp;y b/\xc3\xa9 c d/e/f/g");
    }
    snprintf(query, sizeof query, "list-type=2&delimiter=/&max-keys=1");
    collect_pages(query, "continuation-token", "NextContinuationToken", all, sizeof all);
    assert_string_equal(all, "a a-b a.d/ aa/ b/ c d/");
    collect_pages("delimiter=/&max-keys=1&encoding-type=url", "marker", "NextMarker", all, sizeof all);
    assert_string_equal(all, "a a-b a.d/ aa/ b/ c d/");
    collect_pages("list-type=2&delimiter=a&max-keys=1", "continuation-token", "NextContinuationToken", all, sizeof all);
    assert_string_equal(all, "a b/x&amp;y b/\xc3\xa9 c d/e/f/g");
    get("/l?list-type=2&start-after=aa/2");
    assert_string_equal(keys(), "aa/c/3 b/x&amp;y b/\xc3\xa9 c d/e/f/g");
    get("/l?list-type=2&start-after=aa/2&delimiter=/");
    assert_string_equal(keys(), "c aa/ b/ d/");
    get("/l?marker=b/");
    assert_string_equal(keys(), "b/x&amp;y b/\xc3\xa9 c d/e/f/g");
}

static void test_list_of_many(void **state)
{
    (void)state;
    char name[64];
    unsigned n = 0;
    for (int i = 0; i < 2345; i++) {
        snprintf(name, sizeof name, "m/%02d/%05d", i % 7, i);
        write_pattern(name, 0);
    }
    char path[256] = "/m?list-type=2";
    for (int page = 0; page < 4; page++) {
        get(path);
        for (const char *at = (char *)g.buf; (at = strstr(at, "<Key>")) != NULL; at++) n++;
        const char *at = strstr((char *)g.buf, "<NextContinuationToken>");
        if (!at) break;
        snprintf(path, sizeof path, "/m?list-type=2&continuation-token=%.*s", (int)strcspn(at + 23, "<"), at + 23);
    }
    assert_int_equal(n, 2345);
    get("/m?delimiter=/");
    assert_string_equal(keys(), "00/ 01/ 02/ 03/ 04/ 05/ 06/");
    /* The listing's ETag is the object's. */
    get("/m?prefix=03/00003");
    char etag[128];
    const char *at = strstr((char *)g.buf, "<ETag>&quot;");
    assert_non_null(at);
    snprintf(etag, sizeof etag, "\"%.*s\"", (int)strcspn(at + 12, "&"), at + 12);
    fetch("HEAD", "/m/03/00003", NULL, NULL);
    assert_string_equal(field("etag"), etag);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        T(test_get_whole),
        T(test_head),
        T(test_empty_object),
        T(test_ranges),
        T(test_range_and_if_match_of_the_caller),
        T(test_preconditions),
        T(test_names_are_decoded),
        T(test_part_numbers_and_overrides),
        T(test_missing),
        T(test_symbolic_links_do_not_lead_out),
        T(test_other_methods),
        T(test_change_while_reading_ends_it),
        T(test_pause_and_small_spaces),
        T(test_cancel_everywhere),
        T(test_worker_waits_for_cancelled_jobs),
        T(test_operation_timeout),
        T(test_missing_root_is_a_message),
        T(test_list_buckets),
        T(test_list_objects),
        T(test_list_with_delimiter),
        T(test_list_pages),
        T(test_list_of_many),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    get_free(&g);
    return failed;
}
