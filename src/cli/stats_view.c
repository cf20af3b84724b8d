/* stats_view.c - see the header.
 *
 * What is not in the answer (an older or a newer proxy) counts as zero and is not shown where it would be a row of its own.
 * Names of buckets are those of clients: they may hold anything, and are made printable. */
#include "cli/stats_view.h"

#include <stdio.h>
#include <string.h>

#include "cli/cli.h"

#define LINE_BYTES 1024u
#define BUCKET_ROWS 12u

struct page {
    const struct stats_view *v;
    struct strbuf *out;
    double seconds; /* that the rates are over; 0: unknown */
};

/* ---- numbers of the document */

/* "requests.total": the number at that path, 0 where there is none. */
static double num(const json_t *o, const char *path)
{
    struct str rest = str_c(path), name;
    char key[64];

    while (o && str_split(&rest, '.', &name)) {
        snprintf(key, sizeof key, STR_FMT, STR_ARG(name));
        o = json_object_get(o, key);
    }
    return json_number_value(o);
}

static double seconds_between(const json_t *now, const json_t *before)
{
    if (before) return num(now, "uptime_s") - num(before, "uptime_s");
    return json_object_get(now, "since") ? num(now, "since.seconds") : num(now, "uptime_s");
}

static double rate_of(double now, double before, double seconds) { return seconds > 0 && now > before ? (now - before) / seconds : 0; }

static double rate(const struct page *p, const json_t *now, const json_t *before, const char *path)
{
    return rate_of(num(now, path), num(before, path), p->seconds);
}

bool stats_comparable(const json_t *now, const json_t *before)
{
    return before && num(now, "uptime_s") > num(before, "uptime_s") && num(now, "requests.total") >= num(before, "requests.total");
}

static const char *const outcomes[] = {"hit", "partial", "miss", "revalidated", "stale", "bypass"};

/* Requests that found all they wanted, of those that asked a cache; < 0: there were none. */
static double hit_ratio(const json_t *now, const json_t *before)
{
    double found = 0, all = 0;

    for (unsigned i = 0; i + 1 < ARRAY_LEN(outcomes); i++) {
        char path[48];
        snprintf(path, sizeof path, "requests.cache.%s", outcomes[i]);
        double n = num(now, path) - num(before, path);
        all += n;
        if (i != 1 && i != 2) found += n;
    }
    return all > 0 ? found / all : -1;
}

void stats_history_add(struct stats_history *h, const json_t *now, const json_t *before)
{
    double s = seconds_between(now, before);
    unsigned at = (unsigned)(h->n++ % STATS_HISTORY);

    h->entries[at].requests_per_s = rate_of(num(now, "requests.total"), num(before, "requests.total"), s);
    h->entries[at].bytes_per_s = rate_of(num(now, "bytes.sent"), num(before, "bytes.sent"), s);
    h->entries[at].hit_ratio = hit_ratio(now, before);
}

/* ---- text */

/* Up to seven digits as they are, more in thousands, millions, ... */
static const char *count(double n, char *buf, size_t size)
{
    static const char units[] = {' ', 'k', 'M', 'G', 'T', 'P'};
    unsigned u = 0;

    if (n >= 1e7)
        for (; n >= 1000 && u + 1 < sizeof units; u++) n /= 1000;
    if (u) snprintf(buf, size, "%.2f%c", n, units[u]);
    else snprintf(buf, size, "%.0f", n);
    return buf;
}

static const char *per_second(double n, char *buf, size_t size)
{
    if (n >= 100) return count(n, buf, size);
    snprintf(buf, size, "%.1f", n);
    return buf;
}

static const char *percent(double ratio, char *buf, size_t size)
{
    if (ratio < 0) snprintf(buf, size, "-");
    else snprintf(buf, size, "%.1f%%", ratio * 100);
    return buf;
}

#define COUNT(n) count((n), (char[24]){0}, 24)
#define RATE(n) per_second((n), (char[24]){0}, 24)
#define BYTES(n) human_bytes((n), (char[32]){0}, 32)
#define PERCENT(n) percent((n), (char[24]){0}, 24)

/* The text up to so many characters (of UTF-8), whole ones. */
static size_t cut(const char *text, unsigned columns)
{
    size_t i = 0;

    for (; text[i]; i++) {
        bool begins = ((unsigned char)text[i] & 0xc0) != 0x80;
        if (begins && columns == 0) break;
        columns -= begins;
    }
    return i;
}

static void vline(const struct page *p, bool bold, const char *fmt, va_list args)
{
    char text[LINE_BYTES];
    bool mark = bold && p->v->bold;

    vsnprintf(text, sizeof text, fmt, args);
    size_t n = cut(text, p->v->columns);
    while (n && text[n - 1] == ' ') n--;
    if (mark) strbuf_z(p->out, "\033[1m");
    strbuf_add(p->out, text, n);
    if (mark) strbuf_z(p->out, "\033[m");
    strbuf_ch(p->out, '\n');
}

__attribute__((format(printf, 2, 3))) static void line(const struct page *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vline(p, false, fmt, args);
    va_end(args);
}

__attribute__((format(printf, 2, 3))) static void title(const struct page *p, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    strbuf_ch(p->out, '\n');
    vline(p, true, fmt, args);
    va_end(args);
}

/* A name for a column of n characters; long ones lose their end. */
static const char *name_in(const char *name, unsigned n, char *buf, size_t size)
{
    struct strbuf b;

    strbuf_init(&b, 0);
    const char *text = printable(str_c(name), &b);
    size_t bytes = cut(text, n), characters = 0;
    for (size_t i = 0; i < bytes; i++) characters += ((unsigned char)text[i] & 0xc0) != 0x80;
    snprintf(buf, size, "%.*s%*s", (int)bytes, text, characters < n ? (int)(n - characters) : 0, "");
    strbuf_free(&b);
    return buf;
}
#define NAME(s, n) name_in((s), (n), (char[128]){0}, 128)

/* "GET 12  PUT 3": those of an object that are not zero. */
static void nonzero(const struct page *p, const char *label, const char *path)
{
    char text[LINE_BYTES] = "";
    size_t n = 0;
    const char *name;
    json_t *o = json_object_get(json_object_get(p->v->now, "requests"), path), *value;

    json_object_foreach(o, name, value)
    {
        if (json_number_value(value) <= 0 || n + 64 > sizeof text) continue;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %s", n ? "  " : "", name, COUNT(json_number_value(value)));
    }
    line(p, "  %-14s%s", label, n ? text : "none");
}

/* ---- the sections */

static void head(const struct page *p)
{
    const json_t *now = p->v->now, *since = json_object_get(now, "since");
    const char *version = json_string_value(json_object_get(now, "version"));
    char up[32], ago[32];

    line(p, "s3dlio-proxy %s at %s, up %s, %.0f worker%s", version ? version : "?", p->v->url,
         human_duration(num(now, "uptime_s"), up, sizeof up), num(now, "workers"), num(now, "workers") == 1 ? "" : "s");
    if (since) {
        const char *label = json_string_value(json_object_get(since, "label")), *at = json_string_value(json_object_get(since, "at"));
        struct strbuf b;
        strbuf_init(&b, 0);
        line(p, "since the mark \"%s\" of %s, %s ago", printable(str_c(label ? label : ""), &b), at ? at : "?",
             human_duration(num(since, "seconds"), ago, sizeof ago));
        strbuf_free(&b);
    }
    if (p->v->trouble) line(p, "%s", p->v->trouble);
}

static void requests(const struct page *p)
{
    const json_t *now = p->v->now, *before = p->v->before;
    double ratio = hit_ratio(now, before);
    char text[LINE_BYTES] = "";
    size_t n = 0;

    title(p, "%-16s%10s%10s%12s%8s%8s", "Requests", "all", "/s", "in flight", "bad", "shed");
    line(p, "%-16s%10s%10s%12s%8s%8s", "", COUNT(num(now, "requests.total")), RATE(rate(p, now, before, "requests.total")),
         COUNT(num(now, "requests.in_flight")), COUNT(num(now, "requests.bad")), COUNT(num(now, "requests.shed")));
    nonzero(p, "methods", "methods");
    nonzero(p, "answers", "statuses");
    for (unsigned i = 0; i < ARRAY_LEN(outcomes); i++) {
        char path[48];
        snprintf(path, sizeof path, "requests.cache.%s", outcomes[i]);
        if (num(now, path) > 0 || i == 0 || i == 2)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s %s", n ? "  " : "", outcomes[i], COUNT(num(now, path)));
    }
    line(p, "  %-14s%s%s%s%s", "cache", text, ratio >= 0 ? "  (" : "", ratio >= 0 ? PERCENT(ratio) : "",
         ratio < 0 ? "" : before ? " found, lately)" : " found)");
}

static void traffic(const struct page *p)
{
    static const struct {
        const char *label, *path;
    } rows[] = {{"to clients", "bytes.sent"},
                {"from clients", "bytes.received"},
                {"from origins", "bytes.origin_received"},
                {"saved", "bytes.saved"}};
    const json_t *now = p->v->now, *before = p->v->before;

    title(p, "%-16s%12s%14s", "Bytes", "all", "/s");
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++)
        line(p, "  %-14s%12s%12s/s", rows[i].label, BYTES(num(now, rows[i].path)), BYTES(rate(p, now, before, rows[i].path)));
    title(p, "%-16s%10s%10s%10s%10s%12s%10s", "Connections", "open", "http/1.1", "h2", "tls", "accepted", "/s");
    line(p, "%-16s%10s%10s%10s%10s%12s%10s", "", COUNT(num(now, "connections.open")), COUNT(num(now, "connections.h1")),
         COUNT(num(now, "connections.h2")), COUNT(num(now, "connections.tls")), COUNT(num(now, "connections.accepted")),
         RATE(rate(p, now, before, "connections.accepted")));
}

static void latency(const struct page *p)
{
    static const char *const labels[] = {"first byte", "total"}, *const paths[] = {"first_byte", "total"};

    title(p, "%-16s%10s%10s%10s%10s%10s", "Latency, ms", "p50", "p90", "p99", "p99.9", "max");
    for (unsigned i = 0; i < ARRAY_LEN(labels); i++) {
        const json_t *o = json_object_get(json_object_get(p->v->now, "latency_ms"), paths[i]);
        line(p, "  %-14s%10.2f%10.2f%10.2f%10.2f%10.2f", labels[i], num(o, "p50"), num(o, "p90"), num(o, "p99"), num(o, "p999"),
             num(o, "max"));
    }
}

static void caches(const struct page *p)
{
    const char *name;
    json_t *all = json_object_get(p->v->now, "caches"), *o;

    if (json_object_size(all) == 0) return;
    title(p, "%-16s%8s%9s%12s%12s%9s%9s%9s%10s", "Cache", "hits", "by byte", "used", "of", "objects", "evicted", "rejected", "coalesced");
    json_object_foreach(all, name, o)
    {
        line(p, "  %s%8s%9s%12s%12s%9s%9s%9s%10s", NAME(name, 14), PERCENT(num(o, "hit_ratio")), PERCENT(num(o, "byte_hit_ratio")),
             BYTES(num(o, "memory.used")), BYTES(num(o, "memory.capacity")), COUNT(num(o, "memory.objects")),
             COUNT(num(o, "memory.evictions")), COUNT(num(o, "memory.rejected")), COUNT(num(o, "coalesced")));
    }
}

static double sum_of(json_t *o)
{
    const char *name;
    json_t *v;
    double sum = 0;

    json_object_foreach(o, name, v) sum += json_number_value(v);
    return sum;
}

static void origins(const struct page *p)
{
    const char *name;
    json_t *all = json_object_get(p->v->now, "origins"), *o;

    if (json_object_size(all) == 0) return;
    title(p, "%-16s%9s%8s%12s%12s%8s%9s%6s%6s%9s%9s", "Origin", "requests", "/s", "bytes", "/s", "errors", "retries", "open", "busy",
          "p50 ms", "p99 ms");
    json_object_foreach(all, name, o)
    {
        const json_t *old = json_object_get(json_object_get(p->v->before, "origins"), name);
        line(p, "  %s%9s%8s%12s%10s/s%8s%9s%6s%6s%9.2f%9.2f", NAME(name, 14), COUNT(num(o, "requests")), RATE(rate(p, o, old, "requests")),
             BYTES(num(o, "bytes")), BYTES(rate(p, o, old, "bytes")), COUNT(sum_of(json_object_get(o, "errors"))),
             COUNT(num(o, "retries")), COUNT(num(o, "connections.open")), COUNT(num(o, "in_flight")), num(o, "first_byte_ms.p50"),
             num(o, "first_byte_ms.p99"));
    }
}

/* The busiest ones, most first. */
static void buckets(const struct page *p)
{
    json_t *all = json_object_get(p->v->now, "buckets");
    double below = 1e300;
    const char *last = "";
    unsigned shown = 0;

    if (json_object_size(all) == 0) return;
    title(p, "%-16s%10s%10s%12s%14s%12s", "Bucket", "gets", "puts", "sent", "/s", "saved");
    for (; shown < BUCKET_ROWS; shown++) {
        const char *name, *best = NULL;
        json_t *o;
        double most = -1;
        json_object_foreach(all, name, o)
        {
            double n = num(o, "gets") + num(o, "puts");
            bool later = n < below || (n == below && strcmp(name, last) > 0);
            if (later && (n > most || (n == most && strcmp(name, best) < 0))) best = name, most = n;
        }
        if (!best) break;
        below = most;
        last = best;
        const json_t *row = json_object_get(all, best), *old = json_object_get(json_object_get(p->v->before, "buckets"), best);
        line(p, "  %s%10s%10s%12s%12s/s%12s", NAME(best, 14), COUNT(num(row, "gets")), COUNT(num(row, "puts")),
             BYTES(num(row, "bytes_sent")), BYTES(rate(p, row, old, "bytes_sent")), BYTES(num(row, "bytes_saved")));
    }
    if (json_object_size(all) > shown) line(p, "  and %zu more", json_object_size(all) - shown);
}

/* ---- what went before */

static double history_value(const struct stats_history *h, unsigned long long i, unsigned which)
{
    unsigned at = (unsigned)(i % STATS_HISTORY);
    return which == 0 ? h->entries[at].requests_per_s : which == 1 ? h->entries[at].bytes_per_s : h->entries[at].hit_ratio;
}

static const char *block(bool utf8, double part)
{
    static const char *const blocks[] = {" ", "\xe2\x96\x81", "\xe2\x96\x82", "\xe2\x96\x83", "\xe2\x96\x84",
                                         "\xe2\x96\x85", "\xe2\x96\x86", "\xe2\x96\x87", "\xe2\x96\x88"};
    static const char *const ascii[] = {" ", ".", ".", ":", "-", "=", "+", "*", "#"};
    unsigned i = part <= 0 ? 0 : part >= 1 ? 8 : (unsigned)(part * 7) + 1;

    return utf8 ? blocks[i] : ascii[i];
}

/* One row of bars, the latest rightmost; `top` 0: the largest value of the row is a whole bar. */
static void bars(const struct page *p, const char *label, unsigned which, double top)
{
    const struct stats_history *h = p->v->history;
    unsigned width = p->v->columns > 51 ? p->v->columns - 50 : 1;
    char text[LINE_BYTES / 2] = "", now[40], max[40];
    unsigned long long kept = h->n < STATS_HISTORY ? h->n : STATS_HISTORY, shown = kept < width ? kept : width;
    size_t n = 0;
    double most = 0;

    if (shown > sizeof text / 4) shown = sizeof text / 4;
    for (unsigned long long i = h->n - shown; i < h->n; i++)
        if (history_value(h, i, which) > most) most = history_value(h, i, which);
    for (unsigned long long i = h->n - shown; i < h->n; i++) {
        double of = top > 0 ? top : most;
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", block(p->v->utf8, of > 0 ? history_value(h, i, which) / of : 0));
    }
    double last = history_value(h, h->n - 1, which);
    if (which == 1) snprintf(now, sizeof now, "%s/s", BYTES(last)), snprintf(max, sizeof max, "at most %s/s", BYTES(most));
    else if (which == 0) snprintf(now, sizeof now, "%s/s", RATE(last)), snprintf(max, sizeof max, "at most %s/s", RATE(most));
    else snprintf(now, sizeof now, "%s", PERCENT(last)), max[0] = '\0';
    line(p, "  %-12s%12s  %s  %s", label, now, text, max);
}

static void history(const struct page *p)
{
    if (!p->v->history || p->v->history->n == 0) return;
    title(p, "Lately");
    bars(p, "requests", 0, 0);
    bars(p, "to clients", 1, 0);
    bars(p, "found", 2, 1);
}

void stats_render(const struct stats_view *v, struct strbuf *out)
{
    struct page p = {v, out, seconds_between(v->now, v->before)};

    head(&p);
    history(&p);
    requests(&p);
    traffic(&p);
    latency(&p);
    caches(&p);
    origins(&p);
    buckets(&p);
}
