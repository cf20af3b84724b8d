/* test_retry.c - which failures are tried again, when, and how often; the window's seam. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/hash.h"
#include "origin/retry.h"
#include "origin/window.h"

static const struct origin_conf conf = {
    .retry_attempts = 5, .retry_base_ms = 100, .retry_cap_ms = 5000, .max_in_flight = 16};
static struct retry_budget budget;
static uint64_t delay;

static int setup(void **state)
{
    (void)state;
    retry_budget_init(&budget);
    return 0;
}

static bool once(enum err e, unsigned status, const char *code)
{
    struct retry r = {0};
    retry_budget_init(&budget);
    return retry_next(&r, &budget, &conf, e, status, str_c(code), -1, 0, &delay);
}

static void test_connection_errors_and_timeouts_are_worth_it(void **state)
{
    (void)state;
    const enum err yes[] = {ERR_CLOSED,       ERR_RESET,     ERR_REFUSED, ERR_UNREACHABLE,     ERR_DNS,
                            ERR_TLS,          ERR_TRUNCATED, ERR_IO,      ERR_CONNECT_TIMEOUT, ERR_FIRST_BYTE_TIMEOUT,
                            ERR_STALL_TIMEOUT};
    const enum err no[] = {ERR_OK,    ERR_OPERATION_TIMEOUT, ERR_OVERLOAD,  ERR_PROTOCOL,  ERR_CHANGED,
                           ERR_NOMEM, ERR_CREDENTIALS,       ERR_CANCELLED, ERR_NOT_FOUND, ERR_INCOMPLETE_BODY};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) assert_true(once(yes[i], 0, ""));
    for (size_t i = 0; i < ARRAY_LEN(no); i++) assert_false(once(no[i], 0, ""));
    assert_true(once(ERR_TRUNCATED, 206, "")); /* began well, broke */
    assert_false(once(ERR_OK, 200, ""));
}

static void test_statuses(void **state)
{
    (void)state;
    const unsigned yes[] = {429, 500, 502, 503, 504}, no[] = {400, 401, 403, 404, 405, 412, 416, 501, 505};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) assert_true(once(ERR_OK, yes[i], ""));
    for (size_t i = 0; i < ARRAY_LEN(no); i++) assert_false(once(ERR_OK, no[i], "NoSuchKey"));
    assert_true(once(ERR_OK, 400, "RequestTimeout"));
    assert_true(once(ERR_OK, 403, "RequestTimeTooSkewed"));
    assert_true(once(ERR_OK, 500, "InternalError"));
    assert_false(once(ERR_RESET, 403, "AccessDenied")); /* the answer counts, not how its document ended */
}

static void test_attempts_are_bounded_and_progress_starts_over(void **state)
{
    (void)state;
    struct retry r = {0};
    for (int i = 0; i < 4; i++) assert_true(retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay));
    assert_false(retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay));
    assert_int_equal(r.attempt, 5);
    for (int i = 0; i < 10; i++)
        assert_true(retry_next(&r, &budget, &conf, ERR_RESET, 206, str_c(""), -1, 1, &delay));
}

static void test_backoff_doubles_up_to_the_cap_with_full_jitter(void **state)
{
    (void)state;
    struct origin_conf c = conf;
    c.retry_attempts = 1000;
    uint64_t most[80] = {0};
    for (int round = 0; round < 300; round++) {
        struct retry r = {0};
        for (int i = 0; i < 80; i++) {
            budget.tokens = 50;
            assert_true(retry_next(&r, &budget, &c, ERR_RESET, 0, str_c(""), -1, 0, &delay));
            if (delay > most[i]) most[i] = delay;
        }
    }
    for (int i = 0; i < 80; i++) {
        uint64_t limit = i < 6 ? 100u << i : 5000;
        if (limit > 5000) limit = 5000;
        assert_in_range(most[i], limit * 9 / 10, limit);
    }
}

static void test_retry_after_is_a_lower_bound_within_the_cap(void **state)
{
    (void)state;
    struct retry r = {0};
    assert_true(retry_next(&r, &budget, &conf, ERR_OK, 503, str_c("SlowDown"), 3, 0, &delay));
    assert_int_equal(delay, 3000);
    assert_true(retry_next(&r, &budget, &conf, ERR_OK, 503, str_c("SlowDown"), INT64_MAX, 0, &delay));
    assert_int_equal(delay, 5000);
    assert_true(retry_next(&r, &budget, &conf, ERR_OK, 503, str_c("SlowDown"), 0, 0, &delay));
    assert_in_range(delay, 0, 400);
}

static void test_the_budget_stops_a_storm_and_refills_with_requests(void **state)
{
    (void)state;
    unsigned granted = 0;
    for (int i = 0; i < 200; i++) {
        struct retry r = {0};
        granted += retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay);
    }
    assert_int_equal(granted, 50);
    for (int i = 0; i < 6; i++) retry_budget_request(&budget);
    struct retry r = {0};
    assert_true(retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay));
    assert_false(retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay));
    for (int i = 0; i < 1000; i++) retry_budget_request(&budget);
    assert_true(budget.tokens <= 50);
}

/* One connection's end can be that of a hundred responses: going on in each is no storm. */
static void test_going_on_is_not_charged(void **state)
{
    (void)state;
    for (int i = 0; i < 200; i++) {
        struct retry r = {0};
        assert_true(retry_next(&r, &budget, &conf, ERR_TRUNCATED, 206, str_c(""), -1, 64 * 1024, &delay));
    }
    struct retry r = {0};
    assert_true(retry_next(&r, &budget, &conf, ERR_RESET, 0, str_c(""), -1, 0, &delay));
    for (int i = 0; i < 49; i++) {
        struct retry a_byte = {0};
        assert_true(retry_next(&a_byte, &budget, &conf, ERR_TRUNCATED, 206, str_c(""), -1, 1, &delay));
    }
    struct retry last = {0};
    assert_false(retry_next(&last, &budget, &conf, ERR_TRUNCATED, 206, str_c(""), -1, 1, &delay));
}

static void test_one_attempt_means_no_retry(void **state)
{
    (void)state;
    struct origin_conf c = conf;
    struct retry r = {0};
    c.retry_attempts = 1;
    assert_false(retry_next(&r, &budget, &c, ERR_RESET, 0, str_c(""), -1, 0, &delay));
}

static void test_window_is_the_configured_number(void **state)
{
    (void)state;
    struct window w;
    struct origin_conf c = conf;
    window_init(&w, &c);
    assert_int_equal(window_limit(&w), 16);
    window_part_done(&w, 8 << 20, 20000, 100000);
    assert_int_equal(window_limit(&w), 16);
    assert_int_equal(w.bytes_done, 8 << 20);
    c.max_in_flight = 0;
    window_init(&w, &c);
    assert_int_equal(window_limit(&w), 1);
}

int main(void)
{
    if (hash_init() != ERR_OK) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_connection_errors_and_timeouts_are_worth_it, setup),
        cmocka_unit_test_setup(test_statuses, setup),
        cmocka_unit_test_setup(test_attempts_are_bounded_and_progress_starts_over, setup),
        cmocka_unit_test_setup(test_backoff_doubles_up_to_the_cap_with_full_jitter, setup),
        cmocka_unit_test_setup(test_retry_after_is_a_lower_bound_within_the_cap, setup),
        cmocka_unit_test_setup(test_the_budget_stops_a_storm_and_refills_with_requests, setup),
        cmocka_unit_test_setup(test_going_on_is_not_charged, setup),
        cmocka_unit_test_setup(test_one_attempt_means_no_retry, setup),
        cmocka_unit_test_setup(test_window_is_the_configured_number, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
