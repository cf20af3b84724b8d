/* test_cli_options.c - the command line as the tables say, lines that are still being typed, and what is printed for people. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/cli.h"

struct dig_opts {
    bool deep, wet;
    const char *tool;
    uint64_t depth, time_ms, bytes;
};
static const struct opt dig_options[] = {
    {'d', "deep", OPT_FLAG, NULL, offsetof(struct dig_opts, deep), 0, 0, "deep"},
    {'w', "wet", OPT_FLAG, NULL, offsetof(struct dig_opts, wet), 0, 0, "wet"},
    {'t', "tool", OPT_TEXT, "TOOL", offsetof(struct dig_opts, tool), 0, 0, "with it"},
    {'n', "depth", OPT_UINT, "N", offsetof(struct dig_opts, depth), 2, 9, "so deep"},
    {0, "time", OPT_DURATION, "TIME", offsetof(struct dig_opts, time_ms), 1, 0, "so long"},
    {0, "bytes", OPT_SIZE, "SIZE", offsetof(struct dig_opts, bytes), 0, 0, "so many"},
    {.name = NULL},
};
static void dig_defaults(void *opts) { ((struct dig_opts *)opts)->depth = 5; }
static const struct command dig = {.name = "dig", .alias = "dg", .args = "HOLE...", .summary = "Dig", .opts = dig_options,
                                   .opts_bytes = sizeof(struct dig_opts), .min_args = 1, .max_args = 2, .defaults = dig_defaults};
static const struct command rest = {.name = "rest", .args = "", .summary = "Rest"};
const struct command *const cli_commands[] = {&dig, &rest, NULL};

static struct cli cli;
static struct dig_opts got;
static int nargs;
static char **args, *line[16];

/* What cli_parse says to a line of words; what it prints goes nowhere. */
static int parse(const char *text)
{
    static char copy[512];
    void *opts;
    int n = 0, saved = dup(STDERR_FILENO), out = dup(STDOUT_FILENO);

    fflush(stdout);
    snprintf(copy, sizeof copy, "prog %s", text);
    for (char *w = strtok(copy, " "); w; w = strtok(NULL, " ")) line[n++] = w;
    line[n] = NULL;
    memset(&cli, 0, sizeof cli);
    assert_non_null(freopen("/dev/null", "w", stderr));
    assert_non_null(freopen("/dev/null", "w", stdout));
    int code = cli_parse(&cli, n, line, &opts, &nargs, &args);
    fflush(stderr);
    fflush(stdout);
    dup2(saved, STDERR_FILENO);
    dup2(out, STDOUT_FILENO);
    close(saved);
    close(out);
    memset(&got, 0, sizeof got);
    if (opts && cli.command == &dig) got = *(struct dig_opts *)opts;
    free(opts);
    return code;
}

static void options_in_all_ways(void **state)
{
    static const char *const same[] = {"dig -d -w -t spade -n 7 hole", "dig -dwt spade -n7 hole", "dig -dwtspade -n 7 hole", "dig hole --deep --wet --tool spade --depth 7",
                                       "dg --tool=spade -wdn 7 -- hole", "dig -wdn7 --tool=spade hole"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        assert_int_equal(parse(same[i]), -1);
        assert_true(cli.command == &dig && got.deep && got.wet && got.depth == 7 && nargs == 1);
        assert_string_equal(got.tool, "spade");
        assert_string_equal(args[0], "hole");
    }
}

static void values_of_all_types(void **state)
{
    (void)state;
    assert_int_equal(parse("dig h --time 1m30s --bytes 1.5KiB --tool="), -1);
    assert_true(got.time_ms == 90000 && got.bytes == 1536 && got.depth == 5);
    assert_string_equal(got.tool, "");
    assert_int_equal(parse("--retries 0 --json -q dig --timeout 3s a b --region=x --admin-path /a/"), -1);
    assert_true(cli.json && cli.quiet && cli.net_options.first_byte_ms == 3000 && cli.net_options.retries == 0 && nargs == 2);
    assert_string_equal(cli.net_options.region, "x");
    assert_string_equal(cli.admin_path, "/a/");
    assert_int_equal(parse("rest"), -1);
    assert_int_equal(cli.net_options.retries, 4);
    assert_string_equal(cli.admin_path, "/_s3dlio/");
}

static void what_looks_like_an_option_and_is_none(void **state)
{
    (void)state;
    assert_int_equal(parse("dig -- -d --wet"), -1);
    assert_true(nargs == 2 && !got.deep && !got.wet);
    assert_string_equal(args[0], "-d");
    assert_int_equal(parse("dig - h"), -1);
    assert_string_equal(args[0], "-");
    assert_int_equal(parse("dig -t -d h"), -1); /* a value is a value */
    assert_string_equal(got.tool, "-d");
}

static void what_is_wrong(void **state)
{
    static const char *const bad[] = {"", "bury h", "dig", "dig a b c", "rest x", "dig -x h", "dig --dee h", "dig h --depth", "dig h -n", "dig h -n 1", "dig h -n 10",
                                      "dig h -n x", "dig h -n -1", "dig h -n 99999999999999999999", "dig h --time 5", "dig h --time 0", "dig h --bytes 1X",
                                      "dig h --deep=1", "dig h -d -d", "dig h -dd", "dig h --deep -d", "dig h --json --json", "--deep dig h", "-d dig h", "dig h -dx",
                                      "--progress maybe dig h", "--retries 101 rest", "--connections 0 rest", "--nope", "-Z", "dig h ---", "dig h --=x"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (parse(bad[i]) != EXIT_USAGE) fail_msg("'%s' was taken", bad[i]);
}

static void help_and_version_end_it(void **state)
{
    static const char *const good[] = {"--help", "-h", "--version", "-V", "--help=man", "dig --help", "dig -x --help"};
    (void)state;
    for (size_t i = 0; i + 1 < ARRAY_LEN(good); i++) assert_int_equal(parse(good[i]), EXIT_OK);
    assert_int_equal(parse(good[ARRAY_LEN(good) - 1]), EXIT_USAGE); /* what is wrong before it comes first */
    assert_int_equal(parse("dig h --version"), EXIT_USAGE);
}

static struct cli_scanned scanned;
static void scan(int n, const char *const *words)
{
    char *copy[16] = {NULL};
    for (int i = 0; i < n; i++) copy[i] = (char *)(uintptr_t)words[i];
    memset(&cli, 0, sizeof cli);
    cli_scan(&cli, n, copy, &scanned);
}
#define SCAN(...)                                    \
    do {                                             \
        const char *const w[] = {"prog", __VA_ARGS__}; \
        scan((int)ARRAY_LEN(w), w);                  \
    } while (0)

static void lines_that_are_still_being_typed(void **state)
{
    (void)state;
    SCAN("di");
    assert_true(!scanned.command && !scanned.wants && scanned.operands == 0 && !scanned.ended);
    SCAN("--region", "");
    assert_true(scanned.wants == cli_find_option(NULL, STR_LIT("region")));
    SCAN("--region", "x", "--json", "dig", "h", "-dt", "");
    assert_true(scanned.command == &dig && scanned.wants == &dig_options[2] && scanned.operands == 1 && cli.json);
    assert_string_equal(cli.net_options.region, "x");
    SCAN("dig", "--tool=x", "-n7", "--endpoint-url=u", "h", "");
    assert_true(!scanned.wants && scanned.operands == 1);
    assert_string_equal(cli.net_options.url, "u");
    SCAN("dig", "--", "-t", "");
    assert_true(scanned.ended && !scanned.wants && scanned.operands == 1);
    SCAN("dig", "-q", "--nope", "-", "-x", "--retries", "x", "");
    assert_true(cli.quiet && scanned.operands == 1 && !scanned.wants);
    SCAN("");
    assert_true(!scanned.command);
    assert_true(cli_find_option(&dig, STR_LIT("deep")) == dig_options && !cli_find_option(NULL, STR_LIT("deep")));
}

/* ---- what is printed */

static void bytes_and_times_for_people(void **state)
{
    char b[32];
    (void)state;
    assert_string_equal(human_bytes(0, b, sizeof b), "0 B");
    assert_string_equal(human_bytes(1023, b, sizeof b), "1023 B");
    assert_string_equal(human_bytes(1024, b, sizeof b), "1.0 KiB");
    assert_string_equal(human_bytes(1048575, b, sizeof b), "1.0 MiB");
    assert_string_equal(human_bytes(1.5 * 1024 * 1024 * 1024, b, sizeof b), "1.5 GiB");
    assert_string_equal(human_bytes(18446744073709551615.0, b, sizeof b), "16.0 EiB");
    assert_string_equal(human_duration(0.04, b, sizeof b), "0.0 s");
    assert_string_equal(human_duration(125, b, sizeof b), "2:05");
    assert_string_equal(human_duration(3723, b, sizeof b), "1:02:03");
}

static void nothing_that_a_terminal_acts_on(void **state)
{
    static const struct {
        struct str text;
        const char *shown;
    } cases[] = {
        {{"a b\xc3\xbc\xf0\x9f\x92\xbe", 9}, "a b\xc3\xbc\xf0\x9f\x92\xbe"}, {{"\x1b[2J\n\t\0\x7f", 8}, "\\x1b[2J\\x0a\\x09\\x00\\x7f"},
        {{"\xff\xc3", 2}, "\\xff\\xc3"}, {{"\xc2\x9b" "31m", 5}, "\\xc2\\x9b31m"}, {{"\xc0\x80", 2}, "\\xc0\\x80"}, {{"\xed\xa0\x80", 3}, "\\xed\\xa0\\x80"},
        {{"\xe2\x82", 2}, "\\xe2\\x82"}, {{"", 0}, ""}, {{"\xc2\xa0", 2}, "\xc2\xa0"},
    };
    struct strbuf b;
    (void)state;
    strbuf_init(&b, 0);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) assert_string_equal(printable(cases[i].text, &b), cases[i].shown);
    assert_string_equal(printable_time(STR_LIT("2026-11-28T18:40:36.241Z"), &b), "2026-11-28T18:40:36Z");
    assert_string_equal(printable_time(STR_LIT("2026-11-28T18:40:36Z"), &b), "2026-11-28T18:40:36Z");
    assert_string_equal(printable_time(STR_LIT("\n"), &b), "\\x0a");
    assert_string_equal(printable_time(STR_LIT(""), &b), "");
    strbuf_free(&b);
}

static void json_of_bytes(void **state)
{
    (void)state;
    json_t *v = cli_json_str(STR_LIT("ü\n"));
    assert_string_equal(json_string_value(v), "ü\n");
    json_decref(v);
    v = cli_json_str(STR_LIT("ü\xff"));
    assert_string_equal(json_string_value(v), "\\xc3\\xbc\\xff");
    json_decref(v);
    v = cli_json_str((struct str){NULL, 0});
    assert_string_equal(json_string_value(v), "");
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_in_all_ways),
        cmocka_unit_test(values_of_all_types),
        cmocka_unit_test(what_looks_like_an_option_and_is_none),
        cmocka_unit_test(what_is_wrong),
        cmocka_unit_test(help_and_version_end_it),
        cmocka_unit_test(lines_that_are_still_being_typed),
        cmocka_unit_test(bytes_and_times_for_people),
        cmocka_unit_test(nothing_that_a_terminal_acts_on),
        cmocka_unit_test(json_of_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
