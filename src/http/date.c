/* date.c - dates of HTTP and S3, computed on the proleptic Gregorian calendar: no locale, no time zone, no static state.
 *
 * Dates before 1970 read as 0, so that -1 is free to mean "no date"; nothing stored at an origin is older. */
#include "http/date.h"

#include <time.h>

#define DAY_S 86400
#define TIME_MAX_S INT64_C(253402300799) /* 9999-12-31T23:59:59Z: four digits of year */

static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const long_days[7] = {"Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"};
static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

struct civil {
    int year, month, day, hour, minute, second; /* month, day: from 1 */
};

/* Years counted from March, so that the leap day is the last one (H. Hinnant, "chrono-compatible date algorithms"). */
static int64_t days_from_civil(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void civil_from_days(int64_t n, struct civil *c)
{
    n += 719468;
    int64_t era = n / 146097; /* n is never negative: times are clamped to 1970 */
    int64_t doe = n - era * 146097;
    int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    int64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    int64_t mp = (5 * doy + 2) / 153;
    c->day = (int)(doy - (153 * mp + 2) / 5 + 1);
    c->month = (int)(mp < 10 ? mp + 3 : mp - 9);
    c->year = (int)(yoe + era * 400 + (c->month <= 2));
}

static int month_days(int year, int month)
{
    static const int n[12] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : n[month - 1];
}

/* A second of 60 is a leap second and counts as the next one (RFC 9110 5.6.7). */
static int64_t civil_seconds(const struct civil *c)
{
    if (c->month < 1 || c->month > 12 || c->day < 1 || c->day > month_days(c->year, c->month)) return -1;
    if (c->hour > 23 || c->minute > 59 || c->second > 60) return -1;
    int64_t t = days_from_civil(c->year, c->month, c->day) * DAY_S + c->hour * 3600 + c->minute * 60 + c->second;
    return t < 0 ? 0 : t;
}

static void civil_of(int64_t t, struct civil *c, int *weekday)
{
    t = t < 0 ? 0 : t > TIME_MAX_S ? TIME_MAX_S : t;
    int64_t day = t / DAY_S;
    int s = (int)(t % DAY_S);
    civil_from_days(day, c);
    c->hour = s / 3600;
    c->minute = s / 60 % 60;
    c->second = s % 60;
    *weekday = (int)((day + 4) % 7);
}

/* Reading along a text: every step either takes what it expects or spoils the cursor for good. */
struct cursor {
    const char *p, *end;
    bool bad;
};

static void take_text(struct cursor *c, const char *text)
{
    size_t n = strlen(text);
    if (c->bad || (size_t)(c->end - c->p) < n || memcmp(c->p, text, n) != 0) {
        c->bad = true;
        return;
    }
    c->p += n;
}

static int take_digits(struct cursor *c, int n)
{
    int v = 0;
    for (; n > 0; n--) {
        if (c->bad || c->p == c->end || *c->p < '0' || *c->p > '9') {
            c->bad = true;
            return 0;
        }
        v = v * 10 + (*c->p++ - '0');
    }
    return v;
}

/* One of `count` names of three letters; its index from 0. */
static int take_name(struct cursor *c, const char (*names)[4], int count)
{
    for (int i = 0; !c->bad && c->end - c->p >= 3 && i < count; i++) {
        if (memcmp(c->p, names[i], 3) == 0) {
            c->p += 3;
            return i;
        }
    }
    c->bad = true;
    return 0;
}

static void take_clock(struct cursor *c, struct civil *v)
{
    v->hour = take_digits(c, 2);
    take_text(c, ":");
    v->minute = take_digits(c, 2);
    take_text(c, ":");
    v->second = take_digits(c, 2);
}

static int64_t finish(const struct cursor *c, const struct civil *v)
{
    return c->bad || c->p != c->end ? -1 : civil_seconds(v);
}

/* "Sun, 06 Nov 1994 08:49:37 GMT" */
static int64_t imf_parse(struct cursor c)
{
    struct civil v;
    take_name(&c, days, 7);
    take_text(&c, ", ");
    v.day = take_digits(&c, 2);
    take_text(&c, " ");
    v.month = take_name(&c, months, 12) + 1;
    take_text(&c, " ");
    v.year = take_digits(&c, 4);
    take_text(&c, " ");
    take_clock(&c, &v);
    take_text(&c, " GMT");
    return finish(&c, &v);
}

/* "Sun Nov  6 08:49:37 1994" */
static int64_t asctime_parse(struct cursor c)
{
    struct civil v;
    take_name(&c, days, 7);
    take_text(&c, " ");
    v.month = take_name(&c, months, 12) + 1;
    take_text(&c, " ");
    if (!c.bad && c.p < c.end && *c.p == ' ') {
        c.p++;
        v.day = take_digits(&c, 1);
    } else {
        v.day = take_digits(&c, 2);
    }
    take_text(&c, " ");
    take_clock(&c, &v);
    take_text(&c, " ");
    v.year = take_digits(&c, 4);
    return finish(&c, &v);
}

/* "Sunday, 06-Nov-94 08:49:37 GMT"; a year that looks more than 50 years ahead is of the century before. */
static int64_t rfc850_parse(struct cursor c)
{
    struct civil v, now;
    int weekday;
    size_t n = 0;
    for (int i = 0; i < 7 && n == 0; i++) {
        struct cursor probe = c;
        take_text(&probe, long_days[i]);
        if (!probe.bad) n = strlen(long_days[i]);
    }
    if (n == 0) return -1;
    c.p += n;
    take_text(&c, ", ");
    v.day = take_digits(&c, 2);
    take_text(&c, "-");
    v.month = take_name(&c, months, 12) + 1;
    take_text(&c, "-");
    v.year = take_digits(&c, 2);
    take_text(&c, " ");
    take_clock(&c, &v);
    take_text(&c, " GMT");
    civil_of((int64_t)time(NULL), &now, &weekday);
    v.year += now.year / 100 * 100;
    if (v.year > now.year + 50) v.year -= 100;
    return finish(&c, &v);
}

int64_t date_parse(struct str s)
{
    s = str_trim(s);
    if (s.n < 24) return -1;
    struct cursor c = {s.p, s.p + s.n, false};
    if (s.p[3] == ',') return imf_parse(c);
    return s.p[3] == ' ' ? asctime_parse(c) : rfc850_parse(c);
}

int64_t date_parse_amz(struct str s)
{
    struct cursor c = {s.p, s.n > 0 ? s.p + s.n : s.p, false};
    struct civil v;
    v.year = take_digits(&c, 4);
    v.month = take_digits(&c, 2);
    v.day = take_digits(&c, 2);
    take_text(&c, "T");
    v.hour = take_digits(&c, 2);
    v.minute = take_digits(&c, 2);
    v.second = take_digits(&c, 2);
    take_text(&c, "Z");
    return finish(&c, &v);
}

/* Digits are written by hand: a Date goes out with every response, and snprintf would be the most of its cost. */
static char *put_digits(char *p, int v, int n)
{
    for (int i = n - 1; i >= 0; i--, v /= 10) p[i] = (char)('0' + v % 10);
    return p + n;
}

static char *put_text(char *p, const char *text, size_t n)
{
    memcpy(p, text, n);
    return p + n;
}

static char *put_clock(char *p, const struct civil *c)
{
    p = put_digits(p, c->hour, 2);
    *p++ = ':';
    p = put_digits(p, c->minute, 2);
    *p++ = ':';
    return put_digits(p, c->second, 2);
}

void date_format(int64_t t, char buf[30])
{
    struct civil c;
    int weekday;
    civil_of(t, &c, &weekday);
    char *p = put_text(buf, days[weekday], 3);
    p = put_text(p, ", ", 2);
    p = put_digits(p, c.day, 2);
    *p++ = ' ';
    p = put_text(p, months[c.month - 1], 3);
    *p++ = ' ';
    p = put_digits(p, c.year, 4);
    *p++ = ' ';
    p = put_clock(p, &c);
    memcpy(p, " GMT", 5);
}

void date_format_amz(int64_t t, char buf[17])
{
    struct civil c;
    int weekday;
    civil_of(t, &c, &weekday);
    char *p = put_digits(buf, c.year, 4);
    p = put_digits(p, c.month, 2);
    p = put_digits(p, c.day, 2);
    *p++ = 'T';
    p = put_digits(p, c.hour, 2);
    p = put_digits(p, c.minute, 2);
    p = put_digits(p, c.second, 2);
    memcpy(p, "Z", 2);
}

void date_format_iso_ms(int64_t ms, char buf[25])
{
    struct civil c;
    int weekday;
    if (ms < 0) ms = 0;
    if (ms / 1000 > TIME_MAX_S) ms = TIME_MAX_S * 1000 + 999;
    civil_of(ms / 1000, &c, &weekday);
    char *p = put_digits(buf, c.year, 4);
    *p++ = '-';
    p = put_digits(p, c.month, 2);
    *p++ = '-';
    p = put_digits(p, c.day, 2);
    *p++ = 'T';
    p = put_clock(p, &c);
    *p++ = '.';
    p = put_digits(p, (int)(ms % 1000), 3);
    memcpy(p, "Z", 2);
}
