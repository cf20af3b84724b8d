/* units.c - sizes and durations as people write them in a config file. Strict: what is not wholly understood, or would
 * have to be rounded, is refused. */
#include "base/units.h"

#include <stdio.h>

#include "base/check.h"

typedef unsigned __int128 u128;

struct unit {
    struct str name;
    uint64_t factor;
};

#define KIB UINT64_C(1024)
#define KB UINT64_C(1000)

static const struct unit size_units[] = {
    {{"B", 1}, 1},
    {{"K", 1}, KIB},
    {{"KB", 2}, KB},
    {{"KiB", 3}, KIB},
    {{"M", 1}, KIB *KIB},
    {{"MB", 2}, KB *KB},
    {{"MiB", 3}, KIB *KIB},
    {{"G", 1}, KIB *KIB *KIB},
    {{"GB", 2}, KB *KB *KB},
    {{"GiB", 3}, KIB *KIB *KIB},
    {{"T", 1}, KIB *KIB *KIB *KIB},
    {{"TB", 2}, KB *KB *KB *KB},
    {{"TiB", 3}, KIB *KIB *KIB *KIB},
};

#define US_NS UINT64_C(1000)
#define MS_NS (US_NS * 1000)
#define S_NS (MS_NS * 1000)
#define M_NS (S_NS * 60)
#define H_NS (M_NS * 60)
#define D_NS (H_NS * 24)

static const struct unit time_units[] = {
    {{"ns", 2}, 1}, {{"us", 2}, US_NS}, {{"ms", 2}, MS_NS}, {{"s", 1}, S_NS},
    {{"m", 1}, M_NS}, {{"h", 1}, H_NS}, {{"d", 1}, D_NS},
};

static const struct unit *unit_find(const struct unit *units, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(units[i].name, name)) return &units[i];
    return NULL;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static struct str take_digits(struct str *s)
{
    size_t n = 0;
    while (n < s->n && is_digit(s->p[n])) n++;
    struct str digits = str_make(s->p, n);
    *s = str_make(s->p + n, s->n - n);
    return digits;
}

static struct str take_letters(struct str *s)
{
    size_t n = 0;
    while (n < s->n && !is_digit(s->p[n])) n++;
    struct str letters = str_make(s->p, n);
    *s = str_make(s->p + n, s->n - n);
    return letters;
}

enum err units_parse_size(struct str s, uint64_t *bytes)
{
    uint64_t whole, fraction = 0, scale = 1;
    if (s.n == 0 || !str_to_u64(take_digits(&s), &whole)) return ERR_CONFIG;
    if (s.n && s.p[0] == '.') {
        s = str_make(s.p + 1, s.n - 1);
        struct str digits = take_digits(&s);
        while (digits.n && digits.p[digits.n - 1] == '0') digits.n--;
        if (digits.n > 18) return ERR_CONFIG;
        /* "1.0GiB" is left without digits here, "1." without a unit below. */
        if (digits.n && !str_to_u64(digits, &fraction)) return ERR_CONFIG;
        for (size_t i = 0; i < digits.n; i++) scale *= 10;
        if (s.n == 0 || s.p[-1] == '.') return ERR_CONFIG;
    }
    uint64_t factor = 1;
    if (s.n) {
        const struct unit *u = unit_find(size_units, ARRAY_LEN(size_units), s);
        if (!u) return ERR_CONFIG;
        factor = u->factor;
    }
    u128 part = (u128)fraction * factor;
    if (part % scale) return ERR_CONFIG;
    u128 sum = (u128)whole * factor + part / scale;
    if (sum > UINT64_MAX) return ERR_CONFIG;
    *bytes = (uint64_t)sum;
    return ERR_OK;
}

enum err units_parse_duration(struct str s, uint64_t *ms)
{
    u128 ns = 0;
    uint64_t last = UINT64_MAX;

    if (str_eq(s, STR_LIT("0"))) {
        *ms = 0;
        return ERR_OK;
    }
    if (s.n == 0) return ERR_CONFIG;
    while (s.n) {
        uint64_t count;
        if (!str_to_u64(take_digits(&s), &count)) return ERR_CONFIG;
        const struct unit *u = unit_find(time_units, ARRAY_LEN(time_units), take_letters(&s));
        if (!u || u->factor >= last) return ERR_CONFIG;
        last = u->factor;
        ns += (u128)count * u->factor; /* at most 7 terms below 2^111 each */
    }
    if (ns % MS_NS || ns / MS_NS > UINT64_MAX) return ERR_CONFIG;
    *ms = (uint64_t)(ns / MS_NS);
    return ERR_OK;
}

char *units_format_size(uint64_t bytes, char *buf, size_t n)
{
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned i = 0;
    while (bytes && bytes % KIB == 0 && i + 1 < ARRAY_LEN(names)) {
        bytes /= KIB;
        i++;
    }
    snprintf(buf, n, "%llu%s", (unsigned long long)bytes, names[i]);
    return buf;
}

char *units_format_duration(uint64_t ms, char *buf, size_t n)
{
    static const struct {
        const char *name;
        uint64_t ms;
    } steps[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
    size_t i = 0;
    while (ms % steps[i].ms) i++;
    if (ms == 0) i = ARRAY_LEN(steps) - 2;
    snprintf(buf, n, "%llu%s", (unsigned long long)(ms / steps[i].ms), steps[i].name);
    return buf;
}
