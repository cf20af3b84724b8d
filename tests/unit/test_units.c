/* test_units.c - sizes and durations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/units.h"

static void sizes_that_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } rows[] = {
        {"0", 0},
        {"1000", 1000},
        {"0B", 0},
        {"17B", 17},
        {"512KiB", 524288},
        {"1K", 1024},
        {"1KB", 1000},
        {"10MB", 10000000},
        {"8M", 8388608},
        {"4GiB", UINT64_C(4294967296)},
        {"1G", UINT64_C(1073741824)},
        {"1GB", UINT64_C(1000000000)},
        {"2TiB", UINT64_C(2199023255552)},
        {"2TB", UINT64_C(2000000000000)},
        {"1.5GiB", UINT64_C(1610612736)},
        {"0.5KiB", 512},
        {"1.0B", 1},
        {"1.50KB", 1500},
        {"0.0009765625KiB", 1},
        {"18446744073709551615", UINT64_MAX},
        {"16777215TiB", UINT64_C(16777215) << 40},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t bytes = 99;
        assert_int_equal(units_parse_size(str_c(rows[i].text), &bytes), ERR_OK);
        assert_true(bytes == rows[i].bytes);
    }
}

static void sizes_that_are_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "", "B", "KiB", "-1", "+1", "1 KiB", " 1", "1 ", "1kib", "1Kib", "1mb", "1PiB", "1.", "1.B", ".5KiB", "1.5",
        "1.5B", "1.1KiB", "1.2.3KiB", "18446744073709551616", "16777216TiB", "1e3", "0x10", "1KiBB", "1,5GiB",
        "1.0000000000000000001GiB",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t bytes = 99;
        assert_int_equal(units_parse_size(str_c(rows[i]), &bytes), ERR_CONFIG);
        assert_int_equal(bytes, 99);
    }
    uint64_t bytes;
    assert_int_equal(units_parse_size(str_make("1\0KiB", 5), &bytes), ERR_CONFIG);
}

static void durations_that_are_understood(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t ms;
    } rows[] = {
        {"0", 0},
        {"0s", 0},
        {"250ms", 250},
        {"15s", 15000},
        {"1h30m", 5400000},
        {"1d", 86400000},
        {"1d2h3m4s5ms", 93784005},
        {"90m", 5400000},
        {"2000us", 2},
        {"1ms1000000ns", 2},
        {"1m", 60000},
        {"1m5ms", 60005},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t ms = 99;
        assert_int_equal(units_parse_duration(str_c(rows[i].text), &ms), ERR_OK);
        assert_true(ms == rows[i].ms);
    }
}

static void durations_that_are_refused(void **state)
{
    (void)state;
    static const char *const rows[] = {
        "", "1", "s", "1.5s", "-1s", "1 s", "1s ", "1S", "30m1h", "1s1s", "1h1", "500us", "1ns", "1min", "1w",
        "18446744073709551616ms", "18446744073709551615d", "00", "1h30m ", "s1",
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint64_t ms = 99;
        assert_int_equal(units_parse_duration(str_c(rows[i]), &ms), ERR_CONFIG);
        assert_int_equal(ms, 99);
    }
}

static void formatting_is_shortest_and_reads_back(void **state)
{
    (void)state;
    char buf[32];
    assert_string_equal(units_format_size(0, buf, sizeof buf), "0B");
    assert_string_equal(units_format_size(8 << 20, buf, sizeof buf), "8MiB");
    assert_string_equal(units_format_size(1536 << 10, buf, sizeof buf), "1536KiB");
    assert_string_equal(units_format_size(1001, buf, sizeof buf), "1001B");
    assert_string_equal(units_format_size(UINT64_C(1) << 60, buf, sizeof buf), "1048576TiB");
    assert_string_equal(units_format_duration(0, buf, sizeof buf), "0s");
    assert_string_equal(units_format_duration(250, buf, sizeof buf), "250ms");
    assert_string_equal(units_format_duration(5400000, buf, sizeof buf), "90m");
    assert_string_equal(units_format_duration(86400000, buf, sizeof buf), "1d");

    static const uint64_t values[] = {0, 1, 999, 1000, 1023, 1024, 60000, 3600000, 86400000, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(values); i++) {
        uint64_t back;
        assert_int_equal(units_parse_size(str_c(units_format_size(values[i], buf, sizeof buf)), &back), ERR_OK);
        assert_true(back == values[i]);
        assert_int_equal(units_parse_duration(str_c(units_format_duration(values[i], buf, sizeof buf)), &back), ERR_OK);
        assert_true(back == values[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_that_are_understood),
        cmocka_unit_test(sizes_that_are_refused),
        cmocka_unit_test(durations_that_are_understood),
        cmocka_unit_test(durations_that_are_refused),
        cmocka_unit_test(formatting_is_shortest_and_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
