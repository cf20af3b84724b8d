/* test_module.c - the registry: checks before anything runs, init and exit in order, hooks in a stable order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../src/module/module.c"

static const char *fake_config(const char *path)
{
    (void)path;
    return NULL;
}

static const s3p_api api = {.abi = S3P_ABI_VERSION, .config = fake_config};

/* What the modules of a test did, one character each. */
static char trace[64];

static void note(char c)
{
    size_t n = strlen(trace);
    assert_true(n + 1 < sizeof trace);
    trace[n] = c;
    trace[n + 1] = '\0';
}

static enum s3p_result hook(s3p_request *r)
{
    (void)r;
    return S3P_OK;
}
static void log_hook(const s3p_request *r) { (void)r; }

static int init_a(const s3p_api *got, char *why, size_t n)
{
    assert_ptr_equal(got, &api);
    assert_true(n > 0);
    assert_int_equal(why[0], '\0');
    note('A');
    return 0;
}
static void exit_a(void) { note('a'); }
static void reopen_a(void) { note('1'); }
static int init_b(const s3p_api *got, char *why, size_t n)
{
    (void)got, (void)why, (void)n;
    note('B');
    return 0;
}
static void exit_b(void) { note('b'); }
static void reopen_b(void) { note('2'); }
static int init_refuses(const s3p_api *got, char *why, size_t n)
{
    (void)got;
    snprintf(why, n, "the file is not writable");
    return -1;
}
static int init_refuses_without_words(const s3p_api *got, char *why, size_t n)
{
    (void)got, (void)why, (void)n;
    return 1;
}
static int init_fills_the_buffer(const s3p_api *got, char *why, size_t n)
{
    (void)got;
    memset(why, 'x', n); /* and forgets the end */
    return 1;
}

#define MODULE(text) .abi = S3P_ABI_VERSION, .name = text

static enum err create(const s3p_module *const *table, struct modules **m, char msg[256])
{
    trace[0] = '\0';
    return modules_create_from(table, &api, m, msg, 256);
}

static void expect_refused(const s3p_module *const *table, enum err want, const char *message)
{
    struct modules *m = (struct modules *)&api;
    char msg[256];
    assert_int_equal(create(table, &m, msg), want);
    assert_null(m);
    assert_string_equal(msg, message);
    assert_string_equal(trace, ""); /* nobody was initialised */
}

static void an_empty_table_is_fine(void **state)
{
    static const s3p_module *const table[] = {NULL};
    struct modules *m;
    char msg[256];
    (void)state;
    assert_int_equal(create(table, &m, msg), ERR_OK);
    assert_int_equal(modules_count(m), 0);
    assert_null(modules_access(m)[0]);
    assert_null(modules_head_filters(m)[0]);
    assert_null(modules_log(m)[0]);
    assert_null(modules_handler(m, "admin"));
    modules_reopen(m);
    modules_destroy(m);
    modules_destroy(NULL);
}

static void another_abi_is_refused_before_anything_runs(void **state)
{
    static const s3p_module good = {MODULE("good"), .init = init_a, .exit = exit_a};
    static const s3p_module newer = {.abi = S3P_ABI_VERSION + 1, .name = "newer", .init = init_b};
    static const s3p_module nameless = {.abi = 0, .init = init_b};
    static const s3p_module *const table[] = {&good, &newer, NULL}, *const other[] = {&nameless, NULL};
    (void)state;
    expect_refused(table, ERR_NOT_SUPPORTED, "module newer: built for module ABI 2, this program has 1");
    expect_refused(other, ERR_NOT_SUPPORTED, "module without a name: built for module ABI 0, this program has 1");
}

static void names_are_checked(void **state)
{
    static const char want[] = "a module has no valid name: 1 to 64 of a-z, 0-9, - and _ expected";
    static const char *const bad[] = {NULL, "", "Upper", "a b", "a.b", "a\n", "\xc3\xa4",
                                      "a1234567890123456789012345678901234567890123456789012345678901234"};
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        const s3p_module mod = {MODULE(bad[i]), .init = init_a};
        const s3p_module *const table[] = {&mod, NULL};
        expect_refused(table, ERR_CONFIG, want);
    }
    const s3p_module longest = {MODULE("a123456789012345678901234567890123456789012345678901234567890123")};
    const s3p_module *const table[] = {&longest, NULL};
    struct modules *m;
    char msg[256];
    assert_int_equal(create(table, &m, msg), ERR_OK);
    modules_destroy(m);
}

static void two_modules_of_one_name_are_refused(void **state)
{
    static const s3p_module a = {MODULE("twin"), .init = init_a}, b = {MODULE("other")}, c = {MODULE("twin")};
    static const s3p_module *const table[] = {&a, &b, &c, NULL}, *const itself[] = {&a, &a, NULL};
    (void)state;
    expect_refused(table, ERR_CONFIG, "two modules are named twin");
    expect_refused(itself, ERR_CONFIG, "two modules are named twin");
}

static void two_handlers_of_one_name_are_refused(void **state)
{
    static const s3p_module a = {MODULE("one"), .handler_name = "web", .handler = hook, .init = init_a};
    static const s3p_module b = {MODULE("two"), .handler_name = "web", .handler = hook};
    static const s3p_module *const table[] = {&a, &b, NULL};
    (void)state;
    expect_refused(table, ERR_CONFIG, "modules one and two both serve handler: web");
}

static void half_a_handler_is_refused(void **state)
{
    static const s3p_module a = {MODULE("one"), .handler_name = "web"}, b = {MODULE("two"), .handler = hook};
    static const s3p_module c = {MODULE("three"), .handler_name = "", .handler = hook};
    static const s3p_module *const ta[] = {&a, NULL}, *const tb[] = {&b, NULL}, *const tc[] = {&c, NULL};
    (void)state;
    expect_refused(ta, ERR_CONFIG, "module one: handler_name and handler come together, it has only the name");
    expect_refused(tb, ERR_CONFIG, "module two: handler_name and handler come together, it has only the handler");
    expect_refused(tc, ERR_CONFIG,
                   "module three: its handler has no valid name: 1 to 64 of a-z, 0-9, - and _ expected");
}

static void init_goes_forward_and_exit_backward(void **state)
{
    static const s3p_module a = {MODULE("z"), .init = init_a, .exit = exit_a, .reopen = reopen_a, .order = 9};
    static const s3p_module silent = {MODULE("silent")};
    static const s3p_module b = {MODULE("b"), .init = init_b, .exit = exit_b, .reopen = reopen_b, .order = 1};
    static const s3p_module *const table[] = {&a, &silent, &b, NULL};
    struct modules *m;
    char msg[256] = "old";
    (void)state;
    assert_int_equal(create(table, &m, msg), ERR_OK);
    assert_string_equal(msg, "");
    assert_string_equal(trace, "AB");
    modules_reopen(m);
    assert_string_equal(trace, "AB12");
    modules_destroy(m);
    assert_string_equal(trace, "AB12ba");
}

static void a_module_that_refuses_undoes_those_before_it(void **state)
{
    static const s3p_module a = {MODULE("a"), .init = init_a, .exit = exit_a};
    static const s3p_module b = {MODULE("b"), .init = init_b, .exit = exit_b};
    static const s3p_module bad = {MODULE("bad"), .init = init_refuses, .exit = exit_a};
    static const s3p_module *const table[] = {&a, &b, &bad, &a, NULL};
    static const s3p_module *const three[] = {&a, &b, &bad, NULL};
    struct modules *m = (struct modules *)&api;
    char msg[256];
    (void)state;
    expect_refused(table, ERR_CONFIG, "two modules are named a");
    assert_int_equal(create(three, &m, msg), ERR_IO);
    assert_null(m);
    assert_string_equal(msg, "module bad: the file is not writable");
    assert_string_equal(trace, "ABba");
}

static void a_reason_always_ends_and_always_is_there(void **state)
{
    static const s3p_module silent = {MODULE("silent"), .init = init_refuses_without_words};
    static const s3p_module loud = {MODULE("loud"), .init = init_fills_the_buffer};
    static const s3p_module *const ts[] = {&silent, NULL}, *const tl[] = {&loud, NULL};
    struct modules *m;
    char msg[256];
    (void)state;
    assert_int_equal(create(ts, &m, msg), ERR_IO);
    assert_string_equal(msg, "module silent: did not start, and gave no reason");
    assert_int_equal(create(tl, &m, msg), ERR_IO);
    assert_int_equal(strlen(msg), sizeof msg - 1);
    assert_int_equal(strspn(msg + strlen("module loud: "), "x"), sizeof msg - 1 - strlen("module loud: "));
    assert_int_equal(modules_create_from(tl, &api, &m, NULL, 0), ERR_IO);
}

static void expect_order(const s3p_module *const *hooks, const char *names)
{
    char got[64] = "";
    for (; *hooks; hooks++) {
        strcat(got, (*hooks)->name);
        strcat(got, " ");
    }
    assert_string_equal(got, names);
}

static void hooks_run_by_order_then_by_name_whatever_the_table(void **state)
{
    static const s3p_module mods[] = {
        {MODULE("late"), .order = 90, .access = hook, .head_filter = hook, .log = log_hook},
        {MODULE("delta"), .order = 50, .access = hook, .log = log_hook},
        {MODULE("alpha"), .order = 50, .access = hook, .head_filter = hook},
        {MODULE("early"), .order = -5, .access = hook, .log = log_hook},
        {MODULE("none"), .order = 0},
        {MODULE("lowest"), .order = INT32_MIN, .log = log_hook},
        {MODULE("highest"), .order = INT32_MAX, .log = log_hook},
    };
    enum { N = ARRAY_LEN(mods) };
    (void)state;
    for (unsigned shift = 0; shift < N; shift++) {
        const s3p_module *table[N + 1] = {NULL};
        struct modules *m;
        char msg[256];
        for (unsigned i = 0; i < N; i++) table[i] = &mods[(i + shift) % N];
        assert_int_equal(create(table, &m, msg), ERR_OK);
        expect_order(modules_access(m), "early alpha delta late ");
        expect_order(modules_head_filters(m), "alpha late ");
        expect_order(modules_log(m), "lowest early delta late highest ");
        for (unsigned i = 0; i < N; i++) {
            assert_ptr_equal(modules_at(m, i), table[i]);
            assert_int_equal(modules_index(m, table[i]), i);
        }
        assert_int_equal(modules_count(m), N);
        modules_destroy(m);
    }
}

static void what_is_not_there_is_not_found(void **state)
{
    static const s3p_module a = {MODULE("a"), .handler_name = "web", .handler = hook}, b = {MODULE("b")};
    static const s3p_module *const table[] = {&a, &b, NULL};
    const s3p_module copy = a;
    struct modules *m;
    char msg[256];
    (void)state;
    assert_int_equal(create(table, &m, msg), ERR_OK);
    assert_ptr_equal(modules_handler(m, "web"), &a);
    assert_null(modules_handler(m, "we"));
    assert_null(modules_handler(m, "a"));
    assert_null(modules_handler(m, NULL));
    assert_int_equal(modules_index(m, &copy), -1);
    modules_destroy(m);
}

static void too_many_modules_are_refused(void **state)
{
    static const s3p_module a = {MODULE("a")};
    const s3p_module *table[MODULES_MAX + 2] = {NULL};
    (void)state;
    for (unsigned i = 0; i <= MODULES_MAX; i++) table[i] = &a;
    expect_refused(table, ERR_CONFIG, "too many modules: at most 256 expected");
}

static void the_built_in_modules_fit_together(void **state)
{
    struct modules *m;
    char msg[256];
    (void)state;
    assert_int_equal(modules_create(&api, &m, msg, sizeof msg), ERR_OK);
    assert_int_equal(modules_count(m), 2);
    assert_non_null(modules_handler(m, "admin"));
    assert_string_equal(modules_handler(m, "admin")->name, "admin");
    expect_order(modules_log(m), "access_log ");
    modules_reopen(m);
    modules_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_table_is_fine),
        cmocka_unit_test(another_abi_is_refused_before_anything_runs),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(two_modules_of_one_name_are_refused),
        cmocka_unit_test(two_handlers_of_one_name_are_refused),
        cmocka_unit_test(half_a_handler_is_refused),
        cmocka_unit_test(init_goes_forward_and_exit_backward),
        cmocka_unit_test(a_module_that_refuses_undoes_those_before_it),
        cmocka_unit_test(a_reason_always_ends_and_always_is_there),
        cmocka_unit_test(hooks_run_by_order_then_by_name_whatever_the_table),
        cmocka_unit_test(what_is_not_there_is_not_found),
        cmocka_unit_test(too_many_modules_are_refused),
        cmocka_unit_test(the_built_in_modules_fit_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
