/* test_base.c - str, strbuf, pool, iov, hash, stat, err, list and check. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/iov.h"
#include "base/list.h"
#include "base/pool.h"
#include "base/stat.h"
#include "base/str.h"

#define S(z) STR_LIT(z)

static void failed_check_aborts_and_says_where(void **state)
{
    (void)state;
    int out[2];
    char line[256] = "";
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(out[1], STDERR_FILENO);
        check_failed("1 == 2", "some/file.c", 4711);
    }
    close(out[1]);
    ssize_t n = read(out[0], line, sizeof line - 1);
    close(out[0]);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(n > 0);
    assert_string_equal(line, "check failed: 1 == 2 at some/file.c:4711\n");
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void every_code_has_its_row(void **state)
{
    (void)state;
    assert_string_equal(err_name(ERR_OK), "OK");
    assert_string_equal(err_name(ERR_FIRST_BYTE_TIMEOUT), "FIRST_BYTE_TIMEOUT");
    assert_int_equal(err_status(ERR_FIRST_BYTE_TIMEOUT), 504);
    assert_string_equal(err_s3_code(ERR_NOT_FOUND), "NoSuchKey");
    assert_int_equal(err_status(ERR_RANGE), 416);
    assert_string_equal(err_text(ERR_NOT_SUPPORTED), "not supported");
    for (int e = ERR_OK; e <= ERR_NOT_SUPPORTED; e++) {
        assert_true(err_text((enum err)e)[0] != '\0');
        assert_in_range(err_status((enum err)e), 200, 599);
    }
}

static void str_comparisons(void **state)
{
    (void)state;
    struct str none = {NULL, 0};
    assert_true(str_eq(none, S("")));
    assert_false(str_eq(S("a"), S("b")));
    assert_true(str_eq_ci(S("Content-LENGTH"), S("content-length")));
    assert_false(str_eq_ci(S("@"), S("`"))); /* differ only in the bit that makes letters' case */
    assert_false(str_eq_ci(S("\xc4"), S("\xe4")));
    assert_true(str_starts(S("abc"), S("")));
    assert_true(str_starts(S("abc"), S("abc")));
    assert_false(str_starts(S("ab"), S("abc")));
    assert_true(str_starts(none, none));
    assert_true(str_eq(str_trim(S(" \t a b\t ")), S("a b")));
    assert_int_equal(str_trim(S(" \t ")).n, 0);
    assert_true(str_eq(str_trim(S("\ra")), S("\ra")));
    assert_int_equal(str_find(S("abc"), 'c'), 2);
    assert_int_equal(str_find(S("abc"), 'd'), 3);
    assert_int_equal(str_find(none, 'd'), 0);
}

static void str_split_keeps_empty_parts(void **state)
{
    (void)state;
    struct str rest = S("a,,b,"), part;
    const char *want[] = {"a", "", "b", ""};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_true(str_split(&rest, ',', &part));
        assert_true(str_eq(part, str_c(want[i])));
    }
    assert_false(str_split(&rest, ',', &part));
    rest = S("");
    assert_true(str_split(&rest, ',', &part));
    assert_int_equal(part.n, 0);
    assert_false(str_split(&rest, ',', &part));
}

static void numbers_are_checked(void **state)
{
    (void)state;
    uint64_t v = 7;
    assert_true(str_to_u64(S("18446744073709551615"), &v));
    assert_true(v == UINT64_MAX);
    assert_true(str_to_u64(S("007"), &v));
    assert_int_equal(v, 7);
    const char *bad[] = {"", "18446744073709551616", "99999999999999999999", "-1", "+1", " 1", "1 ", "0x1", "1a"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) assert_false(str_to_u64(str_c(bad[i]), &v));
    assert_true(str_hex_to_u64(S("fFfFfFfFfFfFfFfF"), &v));
    assert_true(v == UINT64_MAX);
    assert_true(str_hex_to_u64(S("0000000000000000000a"), &v));
    assert_int_equal(v, 10);
    const char *bad_hex[] = {"", "10000000000000000", "g", "0x1", "-1", " 1"};
    for (size_t i = 0; i < ARRAY_LEN(bad_hex); i++) assert_false(str_hex_to_u64(str_c(bad_hex[i]), &v));

    char digits[20];
    assert_int_equal(u64_to_dec(0, digits), 1);
    assert_memory_equal(digits, "0", 1);
    assert_int_equal(u64_to_dec(UINT64_MAX, digits), 20);
    assert_memory_equal(digits, "18446744073709551615", 20);
}

static void str_dup_copies(void **state)
{
    (void)state;
    char *z = str_dup(str_make("abcdef", 3));
    assert_string_equal(z, "abc");
    free(z);
    z = str_dup(str_make(NULL, 0));
    assert_string_equal(z, "");
    free(z);
}

static void strbuf_grows_and_prints(void **state)
{
    (void)state;
    struct strbuf b;
    strbuf_init(&b, 0);
    for (int i = 0; i < 1000; i++) strbuf_f(&b, "%d,", i);
    strbuf_z(&b, "end");
    strbuf_ch(&b, '.');
    strbuf_u64(&b, 42);
    strbuf_str(&b, S("!"));
    strbuf_add(&b, NULL, 0);
    assert_false(b.failed);
    assert_int_equal(b.n, 10 * 2 + 90 * 3 + 900 * 4 + 7);
    assert_memory_equal(b.p + b.n - 7, "end.42!", 7);

    char big[2000];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    strbuf_f(&b, "<%s>", big);
    assert_false(b.failed);
    assert_memory_equal(b.p + b.n - 3, "xx>", 3);
    strbuf_free(&b);
    assert_null(b.p);
}

static void strbuf_bound_sticks(void **state)
{
    (void)state;
    struct strbuf b;
    strbuf_init(&b, 10);
    strbuf_z(&b, "0123456789");
    assert_false(b.failed);
    strbuf_ch(&b, 'x');
    assert_true(b.failed);
    assert_int_equal(b.n, 10);
    strbuf_z(&b, "");
    assert_true(b.failed);
    strbuf_free(&b);
    assert_false(b.failed);
    strbuf_f(&b, "%s", "0123456789");
    assert_false(b.failed);
    strbuf_free(&b);
    strbuf_f(&b, "%01000d", 1);
    assert_true(b.failed);
    assert_int_equal(b.n, 0);
    strbuf_free(&b);
}

static void pool_aligns_bounds_and_resets(void **state)
{
    (void)state;
    struct pool *p = pool_create(100000);
    assert_non_null(p);
    char *prev = NULL;
    for (int i = 0; i < 300; i++) {
        char *at = pool_alloc(p, 1 + (size_t)i);
        assert_non_null(at);
        assert_int_equal((uintptr_t)at % 16, 0);
        memset(at, i, 1 + (size_t)i);
        assert_true(at != prev);
        prev = at;
    }
    assert_null(pool_alloc(p, 100000));
    assert_null(pool_alloc(p, SIZE_MAX));
    assert_null(pool_alloc(p, SIZE_MAX - 15));
    pool_reset(p);
    char *big = pool_zalloc(p, 100000); /* the whole bound, one block */
    assert_non_null(big);
    for (size_t i = 0; i < 100000; i++) assert_int_equal(big[i], 0);
    assert_null(pool_alloc(p, 1));
    assert_null(pool_str(p, S("")).p);
    assert_null(pool_f(p, "x").p);
    pool_reset(p);
    assert_non_null(pool_alloc(p, 0));
    pool_destroy(p);
    pool_destroy(NULL);
}

static void pool_copies_strings(void **state)
{
    (void)state;
    struct pool *p = pool_create(1 << 20);
    struct str s = pool_str(p, str_make("abcdef", 3));
    assert_int_equal(s.n, 3);
    assert_string_equal(s.p, "abc");
    s = pool_str(p, str_make(NULL, 0));
    assert_non_null(s.p);
    assert_int_equal(s.n, 0);
    s = pool_f(p, "%s-%d", "x", 5);
    assert_string_equal(s.p, "x-5");
    assert_int_equal(s.n, 3);
    s = pool_f(p, "%0600d", 5);
    assert_int_equal(s.n, 600);
    assert_int_equal(s.p[599], '5');
    assert_int_equal(s.p[600], '\0');
    pool_destroy(p);
}

static void iov_advances_over_empty_and_partial_entries(void **state)
{
    (void)state;
    char a[3], b[5];
    struct iovec v[4] = {{a, 3}, {NULL, 0}, {b, 5}, {NULL, 0}}, *at = v;
    assert_int_equal(iov_bytes(v, 4), 8);
    unsigned n = iov_advance(&at, 4, 1);
    assert_int_equal(n, 4);
    assert_ptr_equal(at->iov_base, a + 1);
    n = iov_advance(&at, n, 2);
    assert_int_equal(n, 2);
    assert_ptr_equal(at->iov_base, b);
    n = iov_advance(&at, n, 4);
    assert_int_equal(n, 2);
    assert_int_equal(iov_bytes(at, n), 1);
    assert_int_equal(iov_advance(&at, n, 1), 0);
}

static void hash_is_keyed_and_stable(void **state)
{
    (void)state;
    assert_int_equal(hash_init(), ERR_OK);
    struct hash128 a = hash_bytes("bucket/key", 10), b = hash_bytes("bucket/key", 10), c = hash_bytes("bucket/kez", 10);
    assert_true(a.lo == b.lo && a.hi == b.hi);
    assert_false(a.lo == c.lo && a.hi == c.hi);
    (void)hash_bytes(NULL, 0);
    char big[1000] = {0};
    struct hash128 big_a = hash_bytes(big, sizeof big);
    big[999] = 1;
    struct hash128 big_b = hash_bytes(big, sizeof big);
    assert_false(big_a.lo == big_b.lo);
    assert_int_equal(hash_init(), ERR_OK); /* a new secret: other values */
    b = hash_bytes("bucket/key", 10);
    assert_false(a.lo == b.lo && a.hi == b.hi);
}

static void random_numbers_differ(void **state)
{
    (void)state;
    uint64_t ones = 0, seen = random_u64();
    for (int i = 0; i < 1000; i++) {
        uint64_t v = random_u64();
        assert_true(v != seen);
        ones += (uint64_t)__builtin_popcountll(v);
    }
    assert_in_range(ones, 31000, 33000);
}

static struct hist hist; /* too big for comfort on the stack */
static struct hist_sum hist_copy;

static void histogram_error_is_below_a_sixteenth(void **state)
{
    (void)state;
    uint64_t values[] = {0, 1, 15, 16, 17, 31, 32, 33, 1000, 123456789, (UINT64_C(1) << 40), UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        memset(&hist, 0, sizeof hist);
        memset(&hist_copy, 0, sizeof hist_copy);
        hist_add(&hist, values[i]);
        hist_collect(&hist_copy, &hist);
        assert_int_equal(hist_copy.count, 1);
        uint64_t q = hist_quantile(&hist_copy, 1.0);
        assert_true(q <= values[i]);
        if (values[i] <= UINT64_C(1) << 40) assert_true(values[i] - q <= values[i] / 16);
        assert_true(hist_copy.max == values[i]);
    }
}

static void quantiles_of_a_uniform_distribution(void **state)
{
    (void)state;
    memset(&hist, 0, sizeof hist);
    memset(&hist_copy, 0, sizeof hist_copy);
    assert_int_equal(hist_quantile(&hist_copy, 0.5), 0);
    for (uint64_t v = 1; v <= 100000; v++) hist_add(&hist, v);
    hist_collect(&hist_copy, &hist);
    hist_collect(&hist_copy, &hist); /* two workers */
    assert_int_equal(hist_copy.count, 200000);
    assert_in_range(hist_quantile(&hist_copy, 0.5), 50000 - 3125, 50000 + 3125);
    assert_in_range(hist_quantile(&hist_copy, 0.99), 99000 - 6188, 100000);
    assert_int_equal(hist_quantile(&hist_copy, 1.0), 100000);
    assert_in_range(hist_quantile(&hist_copy, 0.0), 0, 1);
    assert_int_equal(hist_copy.sum, 2 * UINT64_C(100000) * 100001 / 2);
}

static void counters_count(void **state)
{
    (void)state;
    stat_t s = 0;
    stat_add(&s, 5);
    stat_sub(&s, 2);
    assert_int_equal(stat_get(&s), 3);
}

static void lists_splice_and_remove(void **state)
{
    (void)state;
    struct list a, b, n[4];
    list_init(&a);
    list_init(&b);
    for (int i = 0; i < 4; i++) list_init(&n[i]);
    list_push_back(&a, &n[0]);
    list_push_back(&a, &n[1]);
    list_push_back(&b, &n[2]);
    list_push_front(&b, &n[3]);
    list_splice_back(&a, &b);
    assert_true(list_empty(&b));
    assert_ptr_equal(list_last(&a), &n[2]);
    LIST_EACH_SAFE(it, next, &a)
    {
        if (it == &n[3]) list_remove(it);
    }
    assert_false(list_linked(&n[3]));
    assert_ptr_equal(list_pop_front(&a), &n[0]);
    assert_ptr_equal(list_pop_front(&a), &n[1]);
    assert_ptr_equal(list_pop_front(&a), &n[2]);
    assert_null(list_pop_front(&a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failed_check_aborts_and_says_where),
        cmocka_unit_test(every_code_has_its_row),
        cmocka_unit_test(str_comparisons),
        cmocka_unit_test(str_split_keeps_empty_parts),
        cmocka_unit_test(numbers_are_checked),
        cmocka_unit_test(str_dup_copies),
        cmocka_unit_test(strbuf_grows_and_prints),
        cmocka_unit_test(strbuf_bound_sticks),
        cmocka_unit_test(pool_aligns_bounds_and_resets),
        cmocka_unit_test(pool_copies_strings),
        cmocka_unit_test(iov_advances_over_empty_and_partial_entries),
        cmocka_unit_test(hash_is_keyed_and_stable),
        cmocka_unit_test(random_numbers_differ),
        cmocka_unit_test(histogram_error_is_below_a_sixteenth),
        cmocka_unit_test(quantiles_of_a_uniform_distribution),
        cmocka_unit_test(counters_count),
        cmocka_unit_test(lists_splice_and_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
