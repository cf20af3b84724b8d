/* test_conf.c - the configuration: every directive at and outside its bounds with the right place in the message, what is
 * read, dump and reload, help, files, and memory that runs out at every single allocation. */
#include "conf_support.h"

/* ---- every directive */

/* same: lines beside the directive in its group; more: other lines of the item. Values are separated by " ; ". */
struct directive_case {
    const char *scope, *row, *same, *more, *good, *bad;
};
#define S3_TYPE "type: s3\nendpoint: http://h\n"
#define HTTP_TYPE "type: http\nendpoint: http://h\n"
#define SERVER_REST "listen: [\":1\"]\nroutes: [{path: /, handler: h}]\n"
#define STATIC_REST "source: static\naccess_key: a\n"
#define TIMES "1ms ; 1d ; 1h30m ; 86400s", "0 ; 1ns ; 86401s ; 10 ; soon ; -1s ; 1d1d"

static const struct directive_case cases[] = {
    {"", "workers", "", "", "auto ; 1 ; 1024 ; \"4\"", "0 ; 1025 ; all ; 1.5 ; -1 ; 99999999999999999999"},
    {"", "log.level", "", "", "error ; warn ; info ; debug", "fatal ; INFO ; 1"},
    {"", "log.file", "", "", "stderr ; /var/log/x ; \"off\" ; \"ü\"", "\"a\\nb\" ; \"a\\0b\" ; \"\""},
    {"", "access_log.file", "", "", "off ; /x", "\"\" ; {a: b}"},
    {"", "access_log.format", "", "", "json ; combined", "JSON"},
    {"", "limits.connections", "", "", "1 ; 10000000", "0 ; 10000001 ; x"},
    {"", "limits.marks", "", "", "1 ; 10000", "0 ; 10001 ; x"},
    {"", "limits.warm_jobs", "", "", "1 ; 10000", "0 ; 10001"},
    {"", "limits.warm_concurrency", "", "", "1 ; 10000", "0 ; 10001"},
    {"", "limits.handshakes", "", "", "1 ; 1000000", "0 ; 1000001 ; x"},
    {"", "limits.head_size", "target_size: 256\nrequest_memory: 2MiB\n", "", "1KiB ; 1MiB ; 1.5KiB ; 2000",
     "1023 ; 1048577 ; 8kib ; 1.0001KiB"},
    {"", "limits.target_size", "head_size: 1MiB\nrequest_memory: 2MiB\n", "", "256 ; 1MiB", "255 ; 1048577"},
    {"", "limits.headers", "", "", "8 ; 10000", "7 ; 10001"},
    {"", "limits.body_buffer", "", "", "16KiB ; 64MiB", "16383 ; 67108865"},
    {"", "limits.max_body", "", "", "0 ; 1 ; 5TiB ; 1024TiB", "1025TiB ; -1 ; 99999999999TiB"},
    {"", "limits.request_memory", "head_size: 1KiB\ntarget_size: 256\n", "", "16KiB ; 64MiB", "16383 ; 65MiB"},
    {"", "limits.requests_per_connection", "", "", "0 ; 1000000000", "1000000001 ; 1k"},
    {"", "limits.memory", "", "", "16MiB ; 64TiB", "15MiB ; 65TiB"},
    {"", "shutdown_timeout", "", "", "0 ; 0s ; 1d", "1d1ms ; 5"},
    {"", "caches", "", "", "{} ; {a: {}, B-1_x.y: {}}", "~ ; [] ; x"},
    {"", "origins", "", "", "{o: {type: file, root: /}}", "~ ; [] ; x"},
    {"", "servers", "", "", "[{listen: [\"[::1]:0\"], routes: [{path: /, handler: h}]}]", "~ ; [] ; {} ; x"},
    {"cache", "memory", "", "slice_size: 64KiB\n", "1MiB ; 64TiB", "1048575 ; 65TiB"},
    {"cache", "slice_size", "", "", "64KiB ; 128KiB ; 16MiB", "32KiB ; 65537 ; 3MiB ; 32MiB ; 0"},
    {"cache", "fresh_for", "", "", "0 ; 3650d", "3651d ; 1y"},
    {"cache", "stale_if_error", "", "", "0 ; 3650d", "3651d"},
    {"cache", "sendfile_after", "", "", "0 ; 1000000", "1000001"},
    {"cache", "index", "", "", "1MiB ; 1TiB", "1048575B ; 2TiB"},
    {"cache", "pinned", "", "", "0B ; 1MiB ; 768MiB", "769MiB ; x"},
    {"cache", "max_objects", "", "", "16 ; 1000000000", "15 ; 1000000001"},
    {"cache", "disk", "", "", "", "[{path: /v, size: 1GiB}] ; [] ; off ; {}"},
    {"origin", "type", "", "endpoint: http://h\n", "s3 ; http", "gopher ; S3"},
    {"origin", "endpoint", "", "type: s3\n",
     "http://h ; https://h:1 ; https://[::1]:65535 ; https://h/p/q/ ; http://127.0.0.1:9000",
     "h ; ftp://h ; https:// ; https://h:0 ; https://h:65536 ; https://h:x ; https://u:secret@h ; https://h/?q"},
    {"origin", "root", "", "type: file\n", "/ ; rel/ative", "\"\""},
    {"origin", "host", "", HTTP_TYPE, "example.com ; a:81", "a b ; a/b"},
    {"origin", "region", "", S3_TYPE, "eu-central-1 ; x", "a b ; a/b"},
    {"origin", "addressing", "", S3_TYPE, "path ; virtual", "auto"},
    {"origin", "credentials.source", "", S3_TYPE, "auto ; env ; profile ; none", "magic ; container ; imds"},
    {"origin", "credentials.access_key", "source: static\nsecret_key: b\n", S3_TYPE, "AKIAIOSFODNN7EXAMPLE",
     "\"\" ; [a]"},
    {"origin", "credentials.secret_key", STATIC_REST, S3_TYPE, "\"abc/$$+\"", "\"\" ; \"a\\nb\""},
    {"origin", "credentials.session_token", STATIC_REST "secret_key: b\n", S3_TYPE, "t", "\"\""},
    {"origin", "credentials.profile", "", S3_TYPE, "p", "\"\""},
    {"origin", "credentials.file", "", S3_TYPE, "/f", "\"\""},
    {"origin", "http2", "", S3_TYPE, "auto ; off ; prior-knowledge", "on ; h2"},
    {"origin", "connections.max", "", S3_TYPE, "1 ; 65535", "0 ; 65536"},
    {"origin", "connections.idle_timeout", "", S3_TYPE, TIMES},
    {"origin", "timeouts.connect", "", S3_TYPE, TIMES},
    {"origin", "timeouts.tls", "", S3_TYPE, TIMES},
    {"origin", "timeouts.first_byte", "", S3_TYPE, TIMES},
    {"origin", "timeouts.stall", "", S3_TYPE, TIMES},
    {"origin", "timeouts.operation", "", S3_TYPE, "1ms ; 7d", "0 ; 8d"},
    {"origin", "retry.attempts", "", S3_TYPE, "1 ; 100", "0 ; 101"},
    {"origin", "retry.base", "cap: 10m\n", S3_TYPE, "1ms ; 10m", "0 ; 601s"},
    {"origin", "retry.cap", "base: 1ms\n", S3_TYPE, "1ms ; 10m", "0 ; 601s"},
    {"origin", "fetch.part_size", "read_ahead: 1GiB\n", S3_TYPE, "64KiB ; 1GiB", "65535 ; 2GiB"},
    {"origin", "fetch.max_in_flight", "", S3_TYPE, "1 ; 1024", "0 ; 1025 ; auto"},
    {"origin", "fetch.read_ahead", "part_size: 64KiB\n", S3_TYPE, "64KiB ; 1TiB", "65535 ; 2TiB"},
    {"origin", "fetch.hedge", "", S3_TYPE, "off", "10ms ; on ; p95"},
    {"origin", "tls.ca_file", "", S3_TYPE, "/ca.pem", "\"\""},
    {"origin", "tls.verify", "", S3_TYPE, "true ; false ; on ; off ; yes ; no", "maybe ; 1"},
    {"origin", "tls.server_name", "", S3_TYPE, "s3.example.com", "\"*.x\" ; a..b ; a:1"},
    {"server", "listen", "", "routes: [{path: /, handler: h}]\n",
     "[\"127.0.0.1:0\"] ; [{address: \"*:80\"}] ; [\"[::]:65535\", \"127.0.0.1:1\"]", "[] ; {} ; \"127.0.0.1:1\""},
    {"server", "timeouts.idle", "", "listen: [\":1\"]\nroutes: [{path: /, handler: h}]\n", TIMES},
    {"server", "timeouts.head", "", "listen: [\":1\"]\nroutes: [{path: /, handler: h}]\n", TIMES},
    {"server", "timeouts.body", "", "listen: [\":1\"]\nroutes: [{path: /, handler: h}]\n", TIMES},
    {"server", "timeouts.send", "", "listen: [\":1\"]\nroutes: [{path: /, handler: h}]\n", TIMES},
    {"server", "timeouts.handshake", "", SERVER_REST, TIMES},
    {"server", "http2.enabled", "", SERVER_REST, "true ; off", "maybe ; 1"},
    {"server", "http2.max_streams", "", SERVER_REST, "1 ; 65536", "0 ; 65537"},
    {"server", "http2.max_frame_size", "", SERVER_REST, "16KiB ; 16777215", "16383 ; 16MiB"},
    {"server", "http2.header_table_size", "", SERVER_REST, "0 ; 1MiB", "1048577 ; x"},
    {"server", "http2.stream_window", "", SERVER_REST, "65535 ; 2147483647", "65534 ; 2GiB"},
    {"server", "http2.connection_window", "", SERVER_REST, "65535 ; 2147483647", "65534 ; 2GiB"},
    {"server", "http2.max_queued_frames", "", SERVER_REST, "16 ; 1000000", "15 ; 1000001"},
    {"server", "http2.send_min", "", SERVER_REST, "0 ; 1GiB", "1025MiB ; x"},
    {"server", "http2.header_block_size", "", SERVER_REST, "1KiB ; 16MiB", "1023 ; 17MiB"},
    {"server", "http2.continuations", "", SERVER_REST, "0 ; 10000", "10001 ; -1"},
    {"server", "http2.settings_entries", "", SERVER_REST, "8 ; 2730", "7 ; 2731"},
    {"server", "http2.reset_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.reset_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.continuation_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.continuation_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.settings_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.settings_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.ping_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.ping_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.priority_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.priority_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.window_update_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.window_update_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.empty_data_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.empty_data_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.large_head_burst", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "http2.large_head_rate", "", SERVER_REST, "1 ; 1000000", "0 ; 1000001"},
    {"server", "routes", "", "listen: [\":1\"]\n", "[{path: /, handler: h}]", "[] ; {} ; x"},
    {"listen", "address", "", "", "\"127.0.0.1:8080\" ; \"[::1]:1\" ; \"*:65535\" ; \":80\"",
     "localhost:1 ; 127.0.0.1 ; \"127.0.0.1:65536\" ; \"127.0.0.1:x\" ; \"::1:80\" ; \"unix:/x\""},
    {"listen", "tls", "", "address: \":1\"\n", "{certificate: c, key: k} ; {certificates: [c]}", "off ; [c] ; c"},
    {"tls", "certificate", "", "", "c.pem ; /etc/ü.pem", "\"\""},
    {"tls", "key", "", "certificate: c.pem\n", "k.pem", "\"\" ; [k]"},
    {"tls", "certificates", "", "", "[{certificate: c}] ; [c] ; [{certificate: c, key: k}, {certificate: d, key: e}]", "[] ; {} ; c"},
    {"tls", "client_ca", "", "certificate: c.pem\nverify: required\n", "ca.pem", "\"\""},
    {"tls", "verify", "", "certificate: c.pem\n", "off", "on ; true"},
    {"tls", "min_version", "", "certificate: c.pem\n", "1.2 ; 1.3", "1.1 ; 2"},
    {"tls", "ciphers", "", "certificate: c.pem\n", "ECDHE-RSA-AES256-GCM-SHA384:@STRENGTH", "\"\""},
    {"tls", "ciphersuites", "", "certificate: c.pem\n", "TLS_AES_256_GCM_SHA384", "\"\""},
    {"tls", "ticket_rotation", "", "certificate: c.pem\n", "0 ; 1h ; 7d", "8d ; 5"},
    {"tls", "alpn", "", "certificate: c.pem\n", "[h2] ; [http/1.1, h2] ; [h2, http/1.1]", "[] ; h2 ; [h2, http/1.1, h2]"},
    {"certificate", "certificate", "", "", "c", "\"\" ; [a]"},
    {"certificate", "key", "", "certificate: c\n", "k", "\"\""},
    {"route", "path", "", "handler: h\n", "/ ; /a/b ; /%20", "a ; \"/a b\" ; /a?b ; \"/a#b\" ; \"/ü\""},
    {"route", "hosts", "", "path: /\nhandler: h\n", "[a] ; [A.example.com, \"*.b\", \"[::1]\"]", "[] ; a"},
    {"route", "handler", "", "path: /\n", "admin", "a b ; \"\""},
    {"route", "origin", "", "path: /\n", "o", "p ; O"},
    {"route", "cache", "", "path: /\norigin: o\n", "c", "d"},
    {"route", "cache_header", "", "path: /\norigin: o\n", "off ; bypass ; refresh ; all", "on ; [bypass]"},
    {"route", "auth", "", "path: /\norigin: o\n", "none", "sigv4 ; transparent ; basic"},
    {"route", "allow", "", "path: /\norigin: o\n", "[127.0.0.1, \"::1\", 10.0.0.0/8, \"2001:db8::/32\", 0.0.0.0/0]",
     "[] ; 10.0.0.0/8"},
    {"route", "deny", "", "path: /\norigin: o\n", "[10.1.0.0/16]", "[] ; x"},
    {"route", "base_domains", "", "path: /\norigin: o\n", "[s3.Example.com]", "[] ; x"},
    {"route", "methods", "", "path: /\norigin: o\n", "[GET, HEAD, M-SEARCH]", "[] ; GET"},
};

/* Each of `lines` behind `indent` spaces. */
static void add_lines(struct strbuf *b, const char *lines, unsigned indent)
{
    struct str rest = str_c(lines), line;
    while (str_split(&rest, '\n', &line)) {
        if (line.n) strbuf_f(b, "%*s" STR_FMT "\n", (int)indent, "", STR_ARG(line));
    }
}

static const char *intro_of(const char *scope, unsigned *indent)
{
    static const struct {
        const char *scope, *intro;
        unsigned indent;
    } intros[] = {
        {"", "", 0},
        {"cache", "caches:\n  c:\n", 4},
        {"origin", "origins:\n  o:\n", 4},
        {"server", "origins: {o: {type: file, root: /}}\nservers:\n  -\n", 4},
        {"listen", "servers:\n  - routes: [{path: /, handler: h}]\n    listen:\n      -\n", 8},
        {"tls", "servers:\n  - routes: [{path: /, handler: h}]\n    listen:\n      - address: \":1\"\n        tls:\n", 10},
        {"certificate",
         "servers:\n  - routes: [{path: /, handler: h}]\n    listen:\n      - address: \":1\"\n        tls:\n"
         "          certificates:\n            -\n",
         14},
        {"route",
         "origins: {o: {type: file, root: /}}\ncaches: {c: {}}\nservers:\n  - listen: [\":1\"]\n    routes:\n      -\n",
         8},
    };
    for (size_t i = 0; i < ARRAY_LEN(intros); i++) {
        if (strcmp(intros[i].scope, scope)) continue;
        *indent = intros[i].indent;
        return intros[i].intro;
    }
    fail_msg("no scope %s", scope);
    return NULL;
}

static bool is_one_of(const char *row, const char *a, const char *b)
{
    return strcmp(row, a) == 0 || strcmp(row, b) == 0;
}

/* A whole file with the value in its place; returns where that is. */
static void build(const struct directive_case *t, struct str value, struct strbuf *b, unsigned *line, unsigned *column)
{
    unsigned indent = 0;
    const char *dot = strchr(t->row, '.');
    strbuf_z(b, intro_of(t->scope, &indent));
    if (dot) {
        strbuf_f(b, "%*s%.*s:\n", (int)indent, "", (int)(dot - t->row), t->row);
        indent += 2;
    }
    strbuf_f(b, "%*s%s: ", (int)indent, "", dot ? dot + 1 : t->row);
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < b->n; i++) {
        *column = b->p[i] == '\n' ? 1 : *column + 1;
        *line += b->p[i] == '\n';
    }
    strbuf_f(b, STR_FMT "\n", STR_ARG(value));
    add_lines(b, t->same, indent);
    add_lines(b, t->more, indent - (dot ? 2 : 0));
    if (!*t->scope && strcmp(t->row, "origins") != 0) strbuf_z(b, ORIGIN);
    if (!*t->scope && strcmp(t->row, "servers") != 0) strbuf_z(b, SERVER);
    if (is_one_of(t->scope, "cache", "origin"))
        strbuf_z(b, "servers: [{listen: [\":1\"], routes: [{path: /, handler: h}]}]\n");
    strbuf_ch(b, '\0');
}

static bool next_value(struct str *rest, struct str *value)
{
    if (!rest->n) return false;
    const char *end = strstr(rest->p, " ; ");
    *value = str_make(rest->p, end ? (size_t)(end - rest->p) : rest->n);
    *rest = end ? str_c(end + 3) : str_make(NULL, 0);
    return true;
}

static void test_every_directive_at_and_outside_its_bounds(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct str rest = str_c(cases[i].good), value;
        struct strbuf b;
        unsigned line, column;
        for (int good = 1; good >= 0; good--, rest = str_c(cases[i].bad)) {
            while (next_value(&rest, &value)) {
                strbuf_init(&b, 0);
                build(&cases[i], value, &b, &line, &column);
                if (good)
                    accept_it(b.p);
                else {
                    refuse_at(b.p, line, column, cases[i].row);
                    if (error_lines() != 1 && strcmp(cases[i].row, "origins") != 0)
                        fail_msg("more than one error:\n%s", errors);
                    assert_null(strstr(errors, "secret@"));
                }
                strbuf_free(&b);
            }
        }
    }
}

/* No value, or one of the wrong shape, for every directive. */
static void test_every_directive_refuses_wrong_types(void **state)
{
    (void)state;
    static const char *const wrong[] = {"~", "", "{a: b}", "[[a]]"};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (size_t k = 0; k < ARRAY_LEN(wrong); k++) {
            struct strbuf b;
            unsigned line, column;
            strbuf_init(&b, 0);
            build(&cases[i], str_c(wrong[k]), &b, &line, &column);
            if (load(b.p) == ERR_OK) fail_msg("accepted:\n%s", b.p);
            assert_non_null(strstr(errors, cases[i].row));
            strbuf_free(&b);
        }
    }
}

static void covered(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    (void)arg, (void)path;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (strcmp(cases[i].scope, s->name) == 0 && strcmp(cases[i].row, row->name) == 0) return;
    fail_msg("directive %s of %s has no case here", row->name, s->name);
}

static void test_every_directive_has_a_case(void **state)
{
    (void)state;
    walk(&conf_scope, "", NULL, covered, NULL);
}

/* ---- what is read */

static void test_defaults(void **state)
{
    (void)state;
    load_good("caches: {c: {}}\norigins: {o: {type: s3, endpoint: http://h}}\n"
              "servers: [{listen: [\"127.0.0.1:1\"], routes: [{path: /, origin: o}]}]\n");
    assert_int_equal(conf->workers, cpus_available(""));
    assert_int_equal(conf->log_level, LOG_INFO);
    assert_string_equal(conf->log_file, "stderr");
    assert_string_equal(conf->access_log_file, "off");
    assert_int_equal(conf->access_log_format, FORMAT_JSON);
    assert_int_equal(conf->max_connections, 10000);
    assert_int_equal(conf->max_handshakes, 4096);
    assert_int_equal(conf->max_marks, 32);
    assert_int_equal(conf->head_bytes, 32 << 10);
    assert_int_equal(conf->target_bytes, 8 << 10);
    assert_int_equal(conf->max_headers, 100);
    assert_int_equal(conf->body_buffer_bytes, 256 << 10);
    assert_int_equal(conf->max_body_bytes, 0);
    assert_int_equal(conf->request_memory_bytes, 256 << 10);
    assert_int_equal(conf->requests_per_connection, 0);
    assert_int_equal(conf->memory_bytes, 1 << 30);
    assert_int_equal(conf->shutdown_timeout_ms, 30000);
    const struct cache_conf *c = &conf->caches[0];
    assert_string_equal(c->name, "c");
    assert_int_equal(c->memory_bytes, 1 << 30);
    assert_int_equal(c->slice_bytes, 1 << 20);
    assert_int_equal(c->fresh_for_ms, 3600000);
    assert_int_equal(c->stale_if_error_ms, 0);
    assert_int_equal(c->sendfile_after, 2);
    assert_int_equal(c->max_objects, 1000000);
    assert_int_equal(c->index_bytes, 256 << 20);
    const struct origin_conf *o = &conf->origins[0];
    assert_int_equal(o->type, ORIGIN_S3);
    assert_null(o->region);
    assert_false(o->virtual_hosted);
    assert_int_equal(o->creds.source, CREDS_AUTO);
    assert_int_equal(o->connections_max, 128);
    assert_int_equal(o->idle_timeout_ms, 15000);
    assert_int_equal(o->connect_ms, 3000);
    assert_int_equal(o->tls_ms, 5000);
    assert_int_equal(o->first_byte_ms, 10000);
    assert_int_equal(o->stall_ms, 20000);
    assert_int_equal(o->operation_ms, 600000);
    assert_int_equal(o->retry_attempts, 5);
    assert_int_equal(o->retry_base_ms, 100);
    assert_int_equal(o->retry_cap_ms, 5000);
    assert_int_equal(o->part_bytes, 8 << 20);
    assert_int_equal(o->max_in_flight, 16);
    assert_int_equal(o->read_ahead_bytes, 128 << 20);
    assert_true(o->tls_verify);
    const struct server_conf *s = &conf->servers[0];
    assert_int_equal(s->idle_ms, 75000);
    assert_int_equal(s->head_ms, 15000);
    assert_int_equal(s->body_ms, 60000);
    assert_int_equal(s->send_ms, 60000);
    assert_int_equal(s->handshake_ms, 10000);
    assert_int_equal(o->http2, HTTP2_AUTO);
    assert_null(s->listens[0].tls);
    assert_true(s->http2.enabled);
    assert_int_equal(s->http2.max_streams, 256);
    assert_int_equal(s->http2.max_frame_bytes, 16 << 10);
    assert_int_equal(s->http2.header_table_bytes, 4 << 10);
    assert_int_equal(s->http2.stream_window_bytes, 2 << 20);
    assert_int_equal(s->http2.connection_window_bytes, 16 << 20);
    assert_int_equal(s->http2.max_queued_frames, 1000);
    assert_int_equal(s->http2.send_min_bytes, 1 << 10);
    assert_int_equal(s->http2.header_block_bytes, 64 << 10);
    assert_int_equal(s->http2.continuations, 8);
    assert_int_equal(s->http2.settings_entries, 32);
#define X(name, what, burst_, rate_)                                       \
    assert_int_equal(s->http2.floods[H2_FLOOD_##name].burst, burst_); \
    assert_int_equal(s->http2.floods[H2_FLOOD_##name].per_second, rate_);
    H2_FLOOD_TABLE(X)
#undef X
    assert_int_equal(s->routes[0].origin, 0);
    assert_int_equal(s->routes[0].cache, -1);
    assert_null(s->routes[0].handler);
    assert_int_equal(s->routes[0].nallow, 0);
    drop();
}

/* Everything set, each to something else than the default. */
static const char everything[] =
    "workers: 3\n"
    "log: {level: debug, file: \"/tmp/a \\\"b\\\" $$c ü\\u2028\"}\n"
    "access_log: {file: stdout, format: combined}\n"
    "limits: {connections: 5, head_size: 4KiB, target_size: 2KiB, headers: 20, body_buffer: 1MiB, max_body: 1GiB,\n"
    "         request_memory: 64KiB, requests_per_connection: 7, memory: 100MiB}\n"
    "shutdown_timeout: 5s\n"
    "caches:\n"
    "  big: {memory: 100MiB, slice_size: 4MiB, fresh_for: 90s, stale_if_error: 1d12h, sendfile_after: 0, max_objects: "
    "99}\n"
    "  small: {memory: 16MiB}\n"
    "servers:\n"
    "  - listen: [\"127.0.0.1:8080\", {address: \"[::1]:8081\", tls: {certificate: a.pem, key: a.key, certificates: [b.pem, "
    "{certificate: c.pem, key: c.key}], client_ca: ca.pem, verify: optional, min_version: 1.3, ciphersuites: "
    "TLS_AES_128_GCM_SHA256, ticket_rotation: 1h, alpn: [http/1.1]}}]\n"
    "    timeouts: {idle: 1s, head: 2s, body: 3s, send: 4s, handshake: 5s}\n"
    "    http2: {enabled: off, max_streams: 7, max_frame_size: 32KiB, header_table_size: 0, stream_window: 64KiB,\n"
    "            connection_window: 128KiB, max_queued_frames: 99, send_min: 2KiB, header_block_size: 9KiB, continuations: 3,\n"
    "            settings_entries: 9, reset_burst: 11, reset_rate: 12, empty_data_burst: 13, empty_data_rate: 14}\n"
    "    routes:\n"
    "      - {path: /_s3dlio/, handler: admin, allow: [127.0.0.0/8, \"::1\"], deny: [127.0.0.2]}\n"
    "      - {path: /, origin: s3, cache: big, hosts: [\"*.Example.com\", x], base_domains: [S3.example.com],\n"
    "         methods: [GET, HEAD], auth: none}\n"
    "      - {path: /, origin: s3, cache: small, hosts: [y]}\n"
    "  - listen: [\":9\"]\n"
    "    routes: [{path: /, origin: files}, {path: /w, origin: web}]\n"
    "origins:\n"
    "  s3:\n"
    "    type: s3\n"
    "    endpoint: https://S3.example.com:9443/base/\n"
    "    region: eu-central-1\n"
    "    addressing: virtual\n"
    "    credentials: {source: static, access_key: AKIDEXAMPLE, secret_key: \"wJalr/K7MDENG+b\", session_token: "
    "TOKEN==}\n"
    "    http2: prior-knowledge\n"
    "    connections: {max: 7, idle_timeout: 1m}\n"
    "    timeouts: {connect: 1ms, tls: 2ms, first_byte: 3ms, stall: 4ms, operation: 5ms}\n"
    "    retry: {attempts: 1, base: 2ms, cap: 3ms}\n"
    "    fetch: {part_size: 5MiB, max_in_flight: 3, read_ahead: 9MiB, hedge: off}\n"
    "    tls: {ca_file: /ca.pem, verify: no, server_name: other.example.com}\n"
    "  files: {type: file, root: /srv/data}\n"
    "  web: {type: http, endpoint: \"http://[::1]:81\", host: www.example.com:80}\n";

static void test_everything_is_read(void **state)
{
    (void)state;
    load_good(everything);
    assert_int_equal(conf->workers, 3);
    assert_int_equal(conf->log_level, LOG_DEBUG);
    assert_string_equal(conf->log_file, "/tmp/a \"b\" $c \xc3\xbc\xe2\x80\xa8");
    assert_int_equal(conf->access_log_format, FORMAT_COMBINED);
    assert_int_equal(conf->max_body_bytes, 1 << 30);
    assert_int_equal(conf->ncaches, 2);
    assert_int_equal(conf->caches[0].slice_bytes, 4 << 20);
    assert_int_equal(conf->caches[0].stale_if_error_ms, 36 * 3600000);
    assert_int_equal(conf->norigins, 3);
    const struct origin_conf *o = &conf->origins[0];
    assert_string_equal(o->name, "s3");
    assert_true(o->endpoint.https);
    assert_string_equal(o->endpoint.host, "s3.example.com");
    assert_int_equal(o->endpoint.port, 9443);
    assert_string_equal(o->endpoint.prefix, "/base");
    assert_true(o->virtual_hosted);
    assert_int_equal(o->creds.source, CREDS_STATIC);
    assert_string_equal(o->creds.access_key, "AKIDEXAMPLE");
    assert_string_equal(o->creds.secret_key, "wJalr/K7MDENG+b");
    assert_string_equal(o->creds.session_token, "TOKEN==");
    assert_int_equal(o->part_bytes, 8 << 20); /* 5 MiB in whole slices of 4 MiB */
    assert_false(o->tls_verify);
    assert_string_equal(o->tls_server_name, "other.example.com");
    assert_string_equal(conf->origins[1].root, "/srv/data");
    assert_string_equal(conf->origins[2].host_header, "www.example.com:80");
    const struct server_conf *s = &conf->servers[0];
    assert_int_equal(s->nlistens, 2);
    assert_string_equal(s->listens[1].text, "[::1]:8081");
    assert_int_equal(s->listens[1].address.ss.ss_family, AF_INET6);
    assert_int_equal(s->nroutes, 3);
    assert_string_equal(s->routes[0].handler, "admin");
    const struct listen_tls_conf *t = s->listens[1].tls;
    assert_null(s->listens[0].tls);
    assert_int_equal(s->listens[1].ntls, 1);
    assert_string_equal(t->certificate, "a.pem");
    assert_string_equal(t->key, "a.key");
    assert_int_equal(t->ncertificates, 2);
    assert_string_equal(t->certificates[0].certificate, "b.pem");
    assert_null(t->certificates[0].key);
    assert_string_equal(t->certificates[1].key, "c.key");
    assert_string_equal(t->client_ca, "ca.pem");
    assert_int_equal(t->verify, TLS_VERIFY_OPTIONAL);
    assert_true(t->tls13_only);
    assert_null(t->ciphers);
    assert_string_equal(t->ciphersuites, "TLS_AES_128_GCM_SHA256");
    assert_int_equal(t->ticket_rotation_ms, 3600000);
    assert_int_equal(t->nalpn, 1);
    assert_int_equal(t->alpn[0], PROTOCOL_HTTP11);
    assert_int_equal(s->handshake_ms, 5000);
    assert_false(s->http2.enabled);
    assert_int_equal(s->http2.max_streams, 7);
    assert_int_equal(s->http2.max_frame_bytes, 32 << 10);
    assert_int_equal(s->http2.header_table_bytes, 0);
    assert_int_equal(s->http2.stream_window_bytes, 64 << 10);
    assert_int_equal(s->http2.connection_window_bytes, 128 << 10);
    assert_int_equal(s->http2.max_queued_frames, 99);
    assert_int_equal(s->http2.send_min_bytes, 2 << 10);
    assert_int_equal(s->http2.header_block_bytes, 9 << 10);
    assert_int_equal(s->http2.continuations, 3);
    assert_int_equal(s->http2.settings_entries, 9);
    assert_int_equal(s->http2.floods[H2_FLOOD_RESET].burst, 11);
    assert_int_equal(s->http2.floods[H2_FLOOD_RESET].per_second, 12);
    assert_int_equal(s->http2.floods[H2_FLOOD_EMPTY].burst, 13);
    assert_int_equal(s->http2.floods[H2_FLOOD_EMPTY].per_second, 14);
    assert_int_equal(o->http2, HTTP2_PRIOR_KNOWLEDGE);
    assert_int_equal(s->routes[0].handler_line, 17);
    assert_int_equal(s->routes[0].handler_column, 36);
    assert_int_equal(s->routes[0].origin, -1);
    assert_int_equal(s->routes[0].nallow, 2);
    assert_int_equal(s->routes[0].allow[0].bits, 96 + 8);
    assert_memory_equal(s->routes[0].allow[0].addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\0", 16);
    assert_int_equal(s->routes[0].allow[1].bits, 128);
    assert_string_equal(s->routes[1].hosts[0], "*.example.com");
    assert_string_equal(s->routes[1].base_domains[0], "s3.example.com");
    assert_string_equal(s->routes[1].methods[1], "HEAD");
    assert_int_equal(s->routes[1].cache, 0);
    assert_int_equal(conf->servers[1].routes[1].origin, 2);
    drop();
}

/* ---- dump, get */

static void round_trip(const char *text)
{
    load_good(text);
    char *first = conf_dump(conf);
    assert_non_null(first);
    drop();
    load_good(first);
    char *second = conf_dump(conf);
    assert_string_equal(first, second);
    drop();
    free(first);
    free(second);
}

static void test_dump_loads_again_and_is_the_same(void **state)
{
    (void)state;
    round_trip(everything);
    round_trip(MINIMAL);
    round_trip("caches: {\"null\": {}, \"1\": {}, \"-x\": {}, \"on\": {}}\n" MINIMAL);
    assert_int_equal(setenv("S3P_TEST_ODD", "a: [b, 'c'] # {d} *e &f \"g\" \\ $ ${h} \xf0\x9f\x98\x80 \xc2\x85", 1), 0);
    round_trip("log: {file: \"${S3P_TEST_ODD}\"}\n" MINIMAL);
}

static void test_dump_shows_no_secret(void **state)
{
    (void)state;
    load_good(everything);
    char *dump = conf_dump(conf);
    assert_null(strstr(dump, "AKIDEXAMPLE"));
    assert_null(strstr(dump, "wJalr"));
    assert_null(strstr(dump, "TOKEN"));
    assert_non_null(strstr(dump, "secret_key: \"" VALUE_MASK "\"\n"));
    free(dump);
    drop();
}

static void test_refused_secrets_are_not_repeated(void **state)
{
    (void)state;
    struct strbuf b;
    strbuf_init(&b, 0);
    strbuf_z(&b,
             "origins: {o: {type: s3, endpoint: http://h, credentials: {source: static, access_key: a, secret_key: ");
    for (int i = 0; i < 40; i++) strbuf_z(&b, "geheim");
    strbuf_z(&b, "}}}\n" SERVER);
    assert_int_equal(load_n(b.p, b.n), ERR_CONFIG);
    assert_non_null(strstr(errors, "credentials.secret_key: 240 bytes long, expected 1 to 159"));
    assert_null(strstr(errors, "geheim"));
    strbuf_free(&b);
}

static void test_get(void **state)
{
    (void)state;
    load_good("access_log: {file: /var/log/a$$.log, format: combined}\n" MINIMAL);
    assert_string_equal(conf_get(conf, "access_log.file"), "/var/log/a$.log");
    assert_string_equal(conf_get(conf, "access_log.format"), "combined");
    assert_string_equal(conf_get(conf, "limits.head_size"), "32KiB");
    assert_string_equal(conf_get(conf, "shutdown_timeout"), "30s");
    assert_null(conf_get(conf, "access_log"));
    assert_null(conf_get(conf, "origins"));
    assert_null(conf_get(conf, "no.such"));
    struct conf *again = conf_ref(conf);
    drop();
    assert_string_equal(conf_get(again, "access_log.format"), "combined");
    conf_unref(again);
    conf_unref(NULL);
}

/* ---- help */

static char *printed(void (*print)(FILE *))
{
    char *text;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    print(f);
    fclose(f);
    return text;
}

static void help_has(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    char name[128];
    (void)s;
    snprintf(name, sizeof name, "\n%s%s%s ", path, *path ? "." : "", row->name);
    assert_non_null(strstr(arg, name));
    assert_non_null(strstr(arg, row->help));
}

static void reference_has(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    char name[128];
    (void)s;
    if (*path) {
        snprintf(name, sizeof name, "\n## `%s`\n", path);
        assert_non_null(strstr(arg, name));
    }
    snprintf(name, sizeof name, "\n| `%s` | ", row->name);
    assert_non_null(strstr(arg, name));
}

static void test_help_lists_every_directive(void **state)
{
    (void)state;
    char *help = printed(conf_print_help), *reference = printed(conf_print_reference);
    walk(&conf_scope, "", NULL, help_has, help);
    walk(&conf_scope, "", NULL, reference_has, reference);
    assert_non_null(strstr(reference, "json \\| combined"));
    free(help);
    free(reference);
}

/* What directive.h promises of the tables. */
static void table_is_sound(void *arg, const struct scope *s, const char *path)
{
    (void)arg, (void)path;
    for (size_t i = 0; i < s->nrows; i++) {
        const struct directive *row = &s->rows[i];
        assert_true(row->help && *row->help);
        assert_ptr_equal(scope_row(s, row->name), row);
        assert_null(strchr(row_key(row).p, '.'));
        bool has_child = row->shape == ROW_ITEMS || row->shape == ROW_NAMED || row->shape == ROW_CHILD;
        assert_int_equal(has_child, row->child != NULL);
        if (row->only) assert_non_null(s->kind);
        if (row->child) assert_int_equal(row->child->named, row->shape == ROW_NAMED);
        struct str group = row_group(row);
        for (size_t k = 0; group.p && k < i; k++)
            if (str_eq(row_group(&s->rows[k]), group)) assert_true(str_eq(row_group(&s->rows[i - 1]), group));
    }
    if (s->shorthand) assert_non_null(scope_row(s, s->shorthand));
    if (s->kind) assert_int_equal(scope_row(s, s->kind)->only, 0);
}

static void no_row(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    (void)arg, (void)s, (void)row, (void)path;
}

static void test_tables_are_sound(void **state)
{
    (void)state;
    walk(&conf_scope, "", table_is_sound, no_row, NULL);
}

/* ---- files, CPUs, memory */

static char dir[] = "/tmp/s3p_test_conf.XXXXXX";

static char *put(const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        assert_true(mkdir(path, 0700) == 0 || errno == EEXIST);
        *p = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

static enum err load_path(const char *path)
{
    size_t size;
    free(errors);
    FILE *f = open_memstream(&errors, &size);
    enum err e = conf_load(path, f, &conf);
    fclose(f);
    return e;
}

static void test_files(void **state)
{
    (void)state;
    char line[400];
    char *path = put("good.yaml", MINIMAL);
    assert_int_equal(load_path(path), ERR_OK);
    assert_string_equal(conf->file, path);
    drop();
    path = put("bad.yaml", "workers: 0\n" MINIMAL);
    assert_int_equal(load_path(path), ERR_CONFIG);
    snprintf(line, sizeof line, "%s:1:10: workers: '0' is out of range, expected 1..1024\n", path);
    assert_string_equal(errors, line);
    assert_int_equal(load_path("/nonexistent/x"), ERR_CONFIG);
    assert_string_equal(errors, "/nonexistent/x: cannot be opened: No such file or directory\n");
    assert_int_equal(load_path("/"), ERR_CONFIG);
    assert_string_equal(errors, "/: cannot be read: Is a directory\n");
    assert_int_equal(load_path("/dev/zero"), ERR_CONFIG);
    assert_string_equal(errors, "/dev/zero: the file is too large, expected at most 1MiB\n");
}

static void test_installed_configuration_is_good(void **state)
{
    (void)state;
    char path[512];
    const char *top = getenv("srcdir");
    snprintf(path, sizeof path, "%s/conf/s3dlio-proxy.yaml", top ? top : ".");
    if (access(path, R_OK) != 0) skip();
    unsetenv("S3DLIO_PROXY_CACHE");
    unsetenv("S3DLIO_PROXY_ENDPOINT");
    unsetenv("S3DLIO_PROXY_REGION");
    if (load_path(path) != ERR_OK) fail_msg("%s", errors);
    assert_int_equal(conf->caches[0].memory_bytes, UINT64_C(2) << 30);
    assert_string_equal(conf->servers[0].listens[0].text, "127.0.0.1:8080");
    assert_string_equal(conf->servers[0].routes[0].handler, "admin");
    drop();
}

static void test_cpus(void **state)
{
    (void)state;
    unsigned all = cpus_available("/nonexistent");
    assert_true(all >= 1);
    put("proc/self/cgroup", "12:memory:/a\n3:cpu,cpuacct:/a/b\n0::/a/b\nnonsense\n");
    assert_int_equal(cpus_available(dir), all);
    put("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    assert_int_equal(cpus_available(dir), all);
    put("sys/fs/cgroup/a/cpu.max", "100001 100000\n"); /* 2 after rounding, of the group above */
    assert_int_equal(cpus_available(dir), all < 2 ? all : 2);
    put("sys/fs/cgroup/cpu.max", "1000 100000\n"); /* the container's own, at the mount */
    assert_int_equal(cpus_available(dir), 1);
    put("sys/fs/cgroup/cpu.max", "0 0\n");
    put("sys/fs/cgroup/a/cpu.max", "x\n");
    assert_int_equal(cpus_available(dir), all);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(cpus_available(dir), all);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
    assert_int_equal(cpus_available(dir), 1);
    put("proc/self/cgroup", "3:cpu,cpuacct:/../../elsewhere\n");
    assert_int_equal(cpus_available(dir), 1);
}

/* Whichever allocation fails: an error and nothing left behind, or success without it. */
static void sweep(const char *text, enum err otherwise)
{
    for (unsigned long at = 1;; at++) {
        oom_at = at;
        oom_count = 0;
        enum err e = load(text);
        bool reached = oom_count >= at;
        oom_at = 0;
        if (e == ERR_OK) {
            assert_non_null(conf);
            drop();
        } else {
            assert_null(conf);
            assert_true(e == ERR_NOMEM || e == otherwise);
            assert_true(*errors != '\0');
        }
        if (reached) continue;
        assert_int_equal(e, otherwise);
        return;
    }
}

static void test_memory_running_out_anywhere(void **state)
{
    (void)state;
    setenv("S3P_TEST_A", "/log/$", 1);
    sweep(everything, ERR_OK);
    sweep("log: {file: \"${S3P_TEST_A}x$$\"}\ncaches: {a: {memory: 1}, \"b b\": {}, a: {x: 1}}\n" MINIMAL, ERR_CONFIG);
    sweep("servers: [{listen: [\":1\"], routes: [{path: /, origin: o, hosts: [x, \"\"], zzzzzzz: 1}]}]\n", ERR_CONFIG);
    load_good(everything);
    char *whole = conf_dump(conf);
    for (oom_at = 1;; oom_at++) {
        oom_count = 0;
        char *dump = conf_dump(conf);
        bool reached = oom_count >= oom_at;
        assert_true(dump || reached);
        if (dump) assert_string_equal(dump, whole);
        free(dump);
        if (!reached) break;
    }
    oom_at = 0;
    free(whole);
    drop();
}

static int begin(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
    char command[64];
    (void)state;
    free(errors);
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_directive_has_a_case),
        cmocka_unit_test(test_every_directive_at_and_outside_its_bounds),
        cmocka_unit_test(test_every_directive_refuses_wrong_types),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_everything_is_read),
        cmocka_unit_test(test_dump_loads_again_and_is_the_same),
        cmocka_unit_test(test_dump_shows_no_secret),
        cmocka_unit_test(test_refused_secrets_are_not_repeated),
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_help_lists_every_directive),
        cmocka_unit_test(test_tables_are_sound),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_installed_configuration_is_good),
        cmocka_unit_test(test_cpus),
        cmocka_unit_test(test_memory_running_out_anywhere),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
