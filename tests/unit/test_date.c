/* test_date.c - the three HTTP date forms and the texts of S3, against the C library's calendar. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "http/date.h"

#define T INT64_C(784111777)

static void dates_parse(void **state)
{
    (void)state;
    static const struct {
        const char *in;
        int64_t want;
    } t[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", T},
        {" Sun, 06 Nov 1994 08:49:37 GMT\t", T},
        {"Sunday, 06-Nov-94 08:49:37 GMT", T},
        {"Sun Nov  6 08:49:37 1994", T},
        {"Wed Nov 16 08:49:37 1994", T + 864000},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Wed, 31 Dec 1969 23:59:59 GMT", 0},
        {"Mon, 01 Jan 0000 00:00:00 GMT", 0},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
        {"Thu, 29 Feb 2024 00:00:00 GMT", 1709164800},
        {"Fri, 31 Dec 9999 23:59:59 GMT", 253402300799},
        {"Tue, 19 Jan 2038 03:14:08 GMT", 2147483648},
        {"Wednesday, 01-Jan-70 00:00:01 GMT", -2}, /* depends on the century, see below */
        {"", -1},
        {"0", -1},
        {"-1", -1},
        {"now", -1},
        {"sun, 06 nov 1994 08:49:37 gmt", -1},
        {"Sun, 6 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:37", -1},
        {"Sun, 06 Nov 1994 08:49:37 UTC", -1},
        {"Sun, 06 Nov 1994 08:49:37 GMT+1", -1},
        {"Sun, 06 Nov 94 08:49:37 GMT   ", -1},
        {"Sun, 31 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 00 Nov 1994 08:49:37 GMT", -1},
        {"Wed, 29 Feb 2023 00:00:00 GMT", -1},
        {"Wed, 29 Feb 1900 00:00:00 GMT", -1},
        {"Sun, 06 Nov 1994 24:00:00 GMT", -1},
        {"Sun, 06 Nov 1994 08:60:37 GMT", -1},
        {"Sun, 06 Nov 1994 08:49:61 GMT", -1},
        {"Xyz, 06 Nov 1994 08:49:37 GMT", -1},
        {"Sun, 06 Xyz 1994 08:49:37 GMT", -1},
        {"Sun, 06-Nov-1994 08:49:37 GMT", -1},
        {"Sunday, 06 Nov 94 08:49:37 GMT", -1},
        {"Sunnyday, 06-Nov-94 08:49:37 GMT", -1},
        {"Sun Nov 6 08:49:37 1994 ", -1},
        {"Sun Nov 06 08:49:37 1994 GMT", -1},
        {"784111777784111777784111777", -1},
        {"Sun, +6 Nov 1994 08:49:37 GMT", -1},
    };
    for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
        int64_t v = date_parse(str_c(t[i].in));
        if (t[i].want != -2 && v != t[i].want) fail_msg("%s: %lld", t[i].in, (long long)v);
    }
    assert_int_equal(date_parse((struct str){NULL, 0}), -1);
}

static void two_digit_years_are_at_most_50_ahead(void **state)
{
    (void)state;
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    int year = tm.tm_year + 1900;
    for (int ahead = -49; ahead <= 50; ahead++) {
        char text[80];
        snprintf(text, sizeof(text), "Monday, 01-Jul-%02d 12:00:00 GMT", (year + ahead) % 100);
        struct tm want = {.tm_year = year + ahead - 1900, .tm_mon = 6, .tm_mday = 1, .tm_hour = 12};
        int64_t seconds = (int64_t)timegm(&want);
        assert_true(date_parse(str_c(text)) == (seconds < 0 ? 0 : seconds));
    }
}

static void formats_agree_with_the_c_library(void **state)
{
    (void)state;
    for (int64_t t = 0; t < INT64_C(5000000000); t += 4567891) {
        time_t c = (time_t)t;
        struct tm tm;
        char want[64], got[30], amz[17], iso[25];
        gmtime_r(&c, &tm);
        strftime(want, sizeof(want), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        date_format(t, got);
        assert_string_equal(got, want);
        assert_true(date_parse(str_c(got)) == t);
        strftime(want, sizeof(want), "%Y%m%dT%H%M%SZ", &tm);
        date_format_amz(t, amz);
        assert_string_equal(amz, want);
        assert_true(date_parse_amz(str_c(amz)) == t);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%S.007Z", &tm);
        date_format_iso_ms(t * 1000 + 7, iso);
        assert_string_equal(iso, want);
    }
}

static void formats_stay_in_their_bounds(void **state)
{
    (void)state;
    char http[30], amz[17], iso[25];
    date_format(-1, http);
    assert_string_equal(http, "Thu, 01 Jan 1970 00:00:00 GMT");
    date_format(INT64_MAX, http);
    assert_string_equal(http, "Fri, 31 Dec 9999 23:59:59 GMT");
    date_format(INT64_MIN, http);
    date_format_amz(INT64_MAX, amz);
    assert_string_equal(amz, "99991231T235959Z");
    date_format_iso_ms(INT64_MAX, iso);
    assert_string_equal(iso, "9999-12-31T23:59:59.999Z");
    date_format_iso_ms(-5, iso);
    assert_string_equal(iso, "1970-01-01T00:00:00.000Z");
}

static void amz_dates_are_strict(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "19941106T084937", "19941106T084937Zx", "19941106t084937Z", "1994-1106T084937Z",
                                      "19941306T084937Z", "19941132T084937Z", "19941106T254937Z", "19941106"};
    assert_true(date_parse_amz(str_c("19941106T084937Z")) == T);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) assert_true(date_parse_amz(str_c(bad[i])) == -1);
    assert_true(date_parse_amz((struct str){NULL, 0}) == -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates_parse),
        cmocka_unit_test(two_digit_years_are_at_most_50_ahead),
        cmocka_unit_test(formats_agree_with_the_c_library),
        cmocka_unit_test(formats_stay_in_their_bounds),
        cmocka_unit_test(amz_dates_are_strict),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
