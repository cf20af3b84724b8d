/* test_cli_paths.c - which keys may be paths, what patterns match, and files that appear when they are whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"
#include "cli/outfile.h"
#include "cli/paths.h"

static void keys_that_leave_a_directory_are_told_from_paths(void **state)
{
    static const char *const good[] = {"a", "a/b", "..a/b..", ".a/...", "a b/\xc3\xa4", "a\\..\\b"};
    static const char *const bad[] = {"", "/a", "a/", "a//b", "..", ".", "../a", "a/..", "a/../b", "./a", "a/./b", "/", "//"};

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) assert_null(path_objection(str_c(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_non_null(path_objection(str_c(bad[i])));
    assert_non_null(path_objection(str_make("a\0b", 3)));
}

static void patterns_match_as_shells_do(void **state)
{
    static const struct {
        const char *pattern, *text;
        bool flat, deep;
    } rows[] = {
        {"a", "a", true, true},
        {"a", "b", false, false},
        {"a", "ab", false, false},
        {"*", "", true, true},
        {"*", "abc", true, true},
        {"*", "a/b", false, true},
        {"**", "a/b", true, true},
        {"a/*.npz", "a/x.npz", true, true},
        {"a/*.npz", "a/b/x.npz", false, true},
        {"a/**.npz", "a/b/x.npz", true, true},
        {"a/*/x", "a/b/x", true, true},
        {"a/*/x", "a/b/c/x", false, true},
        {"**/x", "a/b/c/x", true, true},
        {"*a*b*c", "xaxbxc", true, true},
        {"*a*b*c", "xaxbx", false, false},
        {"?", "/", false, true},
        {"?b", "ab", true, true},
        {"[a-c]x", "bx", true, true},
        {"[!a-c]x", "bx", false, false},
        {"[^a-c]x", "dx", true, true},
        {"[]a]", "]", true, true},
        {"[a-]", "-", true, true},
        {"[!a]", "/", false, true},
        {"[a", "[a", true, true},
        {"\\*", "*", true, true},
        {"\\*", "a", false, false},
        {"**a*b", "x/ay/b", false, true},
        {"**a*b", "x/a/ab", true, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (path_match(str_c(rows[i].pattern), str_c(rows[i].text), false) != rows[i].flat ||
            path_match(str_c(rows[i].pattern), str_c(rows[i].text), true) != rows[i].deep)
            fail_msg("%s against %s", rows[i].pattern, rows[i].text);
    }
}

/* A pattern that makes naive matchers try for ever. */
static void matching_takes_bounded_time(void **state)
{
    char text[5001], pattern[201];

    (void)state;
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    for (size_t i = 0; i < 200; i += 2) memcpy(pattern + i, "*a", 2);
    pattern[199] = 'b';
    pattern[200] = '\0';
    assert_false(path_match(str_c(pattern), str_c(text), true));
    assert_false(path_match(str_c(pattern), str_c(text), false));
}

static unsigned entries(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);

    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static void a_file_appears_when_it_is_committed(void **state)
{
    char dir[] = "/tmp/test_outfile.XXXXXX", path[128], sub[128];
    struct outfile f;
    struct stat st;
    bool there;

    (void)state;
    assert_int_equal(hash_init(), ERR_OK);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/made/on/the/way", dir);
    snprintf(sub, sizeof sub, "%s/made/on/the", dir);
    for (int round = 0; round < 3; round++) {
        outfile_init(&f, path);
        assert_int_equal(outfile_open(&f), 0);
        assert_int_equal(outfile_write(&f, "some", 4, 0), 0);
        if (round == 0) {
            outfile_drop(&f, false);
            assert_int_equal(entries(sub), 0);
            continue;
        }
        assert_int_equal(outfile_commit(&f, false, 1000 * round), 0);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mtime, 1000 * round);
        assert_int_equal(entries(sub), 1);
    }
    outfile_init(&f, path);
    assert_int_equal(outfile_open(&f), 0);
    assert_int_equal(outfile_commit(&f, true, -1), EEXIST);
    assert_int_equal(entries(sub), 1);
    outfile_init(&f, sub);
    assert_int_equal(outfile_open(&f), 0);
    assert_int_equal(outfile_commit(&f, false, -1), EISDIR);
    outfile_init(&f, path);
    assert_int_equal(outfile_open_kept(&f, &there), 0);
    assert_false(there);
    assert_int_equal(outfile_write(&f, "x", 1, 0), 0);
    struct outfile other;
    outfile_init(&other, path);
    assert_int_equal(outfile_open_kept(&other, &there), EBUSY);
    outfile_drop(&f, true);
    assert_int_equal(entries(sub), 2);
    outfile_init(&f, path);
    assert_int_equal(outfile_open_kept(&f, &there), 0);
    assert_true(there);
    assert_int_equal(outfile_commit(&f, false, -1), 0);
    assert_int_equal(entries(sub), 1);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 1);
    /* what was kept, to a name that must be free; the kept name is gone with it */
    outfile_init(&f, path);
    assert_int_equal(outfile_open_kept(&f, &there), 0);
    assert_int_equal(outfile_commit(&f, true, -1), EEXIST);
    unlink(path);
    outfile_init(&f, path);
    assert_int_equal(outfile_open_kept(&f, &there), 0);
    assert_int_equal(outfile_commit(&f, true, -1), 0);
    unlink(path);
    assert_int_equal(entries(sub), 0);
    for (unsigned left = 4; left; left--, *strrchr(sub, '/') = '\0') assert_int_equal(rmdir(sub), 0);
}

static void names_that_are_too_long_are_refused_at_once(void **state)
{
    char name[300] = "/tmp/", *beside;
    struct outfile f;

    (void)state;
    memset(name + 5, 'x', 256);
    outfile_init(&f, name);
    assert_int_equal(outfile_open(&f), ENAMETOOLONG);
    name[5 + 255] = '\0'; /* just fits; what stands beside it does not, and is shortened */
    beside = outfile_beside(name, ".s3dlio-part");
    assert_true(strlen(beside) < 100);
    free(beside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_that_leave_a_directory_are_told_from_paths),
        cmocka_unit_test(patterns_match_as_shells_do),
        cmocka_unit_test(matching_takes_bounded_time),
        cmocka_unit_test(a_file_appears_when_it_is_committed),
        cmocka_unit_test(names_that_are_too_long_are_refused_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
