/* access_log.c - one line for each request, as JSON or in Apache's combined format.
 *
 * Built against s3p_module.h alone. Configuration: access_log.file ("off": the module does nothing) and
 * access_log.format.
 *
 * A line is put together on the worker's stack and handed to the proxy's file thread, so nothing here
 * allocates, locks or blocks. It holds at most LINE_BYTES. A request whose texts need more is written again
 * with ever smaller limits for each text until it fits: long ones lose their ends (marked "..."), short ones
 * stay whole, and the line's form never suffers.
 *
 * Whatever clients send, a JSON line is valid JSON in valid UTF-8 (a byte that is no UTF-8 becomes U+FFFD),
 * and a combined line is printable ASCII (other bytes become \xXX, as nginx does). Times are when the request
 * began, in UTC.
 *
 * Secrets: path and query come masked. A Referer can be a presigned URL too; its query is left out when it
 * looks so. */
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#include "s3p_module.h"

#define LINE_BYTES 16384
/* The last resort: 19 texts of this length and all the rest stay below LINE_BYTES. */
#define TEXT_LIMIT_MIN 512

extern const s3p_module s3p_access_log_module;

/* Set by init, before there are workers, and not changed until they are gone. */
static const s3p_api *proxy;
static void *file; /* NULL: off */
static bool combined;

/* ---- a line under construction */

struct line {
    size_t n;
    size_t text_limit; /* most bytes one text may take, without the mark of its cut */
    bool full;         /* something did not fit: the line is useless */
    char p[LINE_BYTES];
};

static void put(struct line *l, const char *p, size_t n)
{
    if (n > sizeof l->p - l->n) {
        l->full = true;
        return;
    }
    memcpy(l->p + l->n, p, n);
    l->n += n;
}
#define PUT(l, literal) put(l, literal, sizeof(literal) - 1)

static void put_u64(struct line *l, uint64_t v)
{
    char digits[20], *p = digits + sizeof digits;
    do *--p = (char)('0' + v % 10);
    while (v /= 10);
    put(l, p, (size_t)(digits + sizeof digits - p));
}

/* Exactly n digits, with zeros in front. */
static void put_digits(struct line *l, uint64_t v, size_t n)
{
    char digits[20];
    for (size_t i = n; i-- > 0; v /= 10) digits[i] = (char)('0' + v % 10);
    put(l, digits, n);
}

/* ---- escaping */

/* Length of the UTF-8 sequence that starts here (RFC 3629: no overlong forms, no surrogates, none past
 * U+10FFFF); 0: none does. */
static size_t utf8_length(const unsigned char *p, size_t n)
{
    unsigned char low = 0x80, high = 0xBF; /* bounds of the second byte */
    size_t len;

    if (p[0] < 0x80) return 1;
    if (p[0] < 0xC2 || p[0] > 0xF4) return 0;
    len = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (p[0] == 0xE0) low = 0xA0;
    if (p[0] == 0xED) high = 0x9F;
    if (p[0] == 0xF0) low = 0x90;
    if (p[0] == 0xF4) high = 0x8F;
    if (len > n || p[1] < low || p[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    return len;
}

/* How many of the bytes stand as they are in both formats: 0x20..0x7E without the quote and the backslash.
 * Eight at a time, because this is where the time goes. */
static size_t plain_length(const unsigned char *p, size_t n)
{
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = UINT64_C(0x8080808080808080);
    size_t i = 0;

    for (; n - i >= 8; i += 8) {
        uint64_t x, quote, slash, del;
        memcpy(&x, p + i, 8);
        quote = x ^ (ones * '"');
        slash = x ^ (ones * '\\');
        del = x ^ (ones * 0x7F);
        if ((x | ((x - ones * 0x20) & ~x) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash) |
             ((del - ones) & ~del)) &
            tops)
            break;
    }
    while (i < n && p[i] >= 0x20 && p[i] < 0x7F && p[i] != '"' && p[i] != '\\') i++;
    return i;
}

/* Writes the escaped form of what stands at p[0] - a byte, or a whole sequence - and says how many bytes of
 * it that was. */
typedef size_t escape_fn(const unsigned char *p, size_t n, char out[8], size_t *used);

static size_t escape_json(const unsigned char *p, size_t n, char out[8], size_t *used)
{
    static const char hex[] = "0123456789abcdef";
    static const char control[32] = {['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    unsigned char c = p[0];

    *used = 1;
    if (c == '"' || c == '\\' || (c < 0x20 && control[c])) {
        out[0] = '\\';
        out[1] = c < 0x20 ? control[c] : (char)c;
        return 2;
    }
    if (c < 0x80) {
        memcpy(out, "\\u00", 4);
        out[4] = hex[c >> 4];
        out[5] = hex[c & 15];
        return 6;
    }
    size_t len = utf8_length(p, n);
    if (len == 0) {
        memcpy(out, "\\ufffd", 6);
        return 6;
    }
    memcpy(out, p, len);
    *used = len;
    return len;
}

static size_t escape_combined(const unsigned char *p, size_t n, char out[8], size_t *used)
{
    static const char hex[] = "0123456789ABCDEF";
    (void)n;
    out[0] = '\\';
    out[1] = 'x';
    out[2] = hex[p[0] >> 4];
    out[3] = hex[p[0] & 15];
    *used = 1;
    return 4;
}

/* Takes what it writes from *limit. False: cut, and marked so. */
static bool put_text(struct line *l, s3p_str s, escape_fn *escape, size_t *limit)
{
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = s.p ? s.n : 0;

    while (n && !l->full) {
        char out[8];
        size_t used = plain_length(p, n), len = used;
        const char *from = (const char *)p;
        if (used == 0) {
            len = escape(p, n, out, &used);
            from = out;
        } else if (len > *limit) {
            put(l, from, *limit);
        }
        if (len > *limit) {
            PUT(l, "...");
            *limit = 0;
            return false;
        }
        put(l, from, len);
        *limit -= len;
        p += used;
        n -= used;
    }
    return true;
}

/* ---- what both formats say */

/* a?b, or a alone: path and query, a referer and its query. */
struct url {
    s3p_str a, b;
    bool has_b;
};

static void put_url(struct line *l, struct url u, escape_fn *escape)
{
    size_t limit = l->text_limit;
    if (!put_text(l, u.a, escape, &limit) || !u.has_b) return;
    PUT(l, "?");
    put_text(l, u.b, escape, &limit);
}

static bool contains_ci(s3p_str s, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= s.n; i++)
        if (strncasecmp(s.p + i, word, n) == 0) return true;
    return false;
}

/* Does a parameter's name speak of credentials, or is it encoded, so that one cannot tell? */
static bool query_is_secret(s3p_str query)
{
    static const char *const words[] = {"signature", "credential", "token", "accesskey",
                                        "secret",    "password",   "%"};
    while (query.n) {
        const char *amp = memchr(query.p, '&', query.n);
        size_t n = amp ? (size_t)(amp - query.p) : query.n;
        const char *equals = memchr(query.p, '=', n);
        s3p_str name = {query.p, equals ? (size_t)(equals - query.p) : n};
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if (contains_ci(name, words[i])) return true;
        if (!amp) return false;
        query.p += n + 1;
        query.n -= n + 1;
    }
    return false;
}

static struct url referer_url(s3p_str referer)
{
    const char *mark = referer.p && referer.n ? memchr(referer.p, '?', referer.n) : NULL;
    if (!mark) return (struct url){.a = referer};
    struct url u = {.a = {referer.p, (size_t)(mark - referer.p)}, .has_b = true};
    u.b = (s3p_str){mark + 1, referer.n - u.a.n - 1};
    if (query_is_secret(u.b)) u.b = (s3p_str){"...", 3};
    return u;
}

static struct url target_url(const s3p_request_info *i)
{
    return (struct url){.a = i->path, .b = i->query, .has_b = i->query.p != NULL};
}

static uint64_t elapsed_us(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

struct civil {
    unsigned year, month, day, hour, minute, second, ns; /* month and day count from 1 */
};

/* From nanoseconds since 1970, UTC. Ours because the C library's takes a lock that all workers share. The
 * algorithm counts days from 1 March of year 0, so that leap days come last (H. Hinnant, "chrono-compatible
 * low-level date algorithms"); years of an int64_t of nanoseconds are 1677 to 2262. */
static struct civil civil_from_ns(int64_t unix_ns)
{
    const int64_t day_ns = INT64_C(86400000000000);
    int64_t days = unix_ns / day_ns, ns = unix_ns % day_ns;
    if (ns < 0) {
        ns += day_ns;
        days--;
    }
    uint64_t z = (uint64_t)(days + 719468), era = z / 146097, doe = z % 146097;
    uint64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    uint64_t doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    uint64_t month = mp < 10 ? mp + 3 : mp - 9, seconds = (uint64_t)ns / 1000000000;
    return (struct civil){.year = (unsigned)(yoe + era * 400 + (month <= 2)),
                          .month = (unsigned)month,
                          .day = (unsigned)(doy - (153 * mp + 2) / 5 + 1),
                          .hour = (unsigned)(seconds / 3600),
                          .minute = (unsigned)(seconds / 60 % 60),
                          .second = (unsigned)(seconds % 60),
                          .ns = (unsigned)((uint64_t)ns % 1000000000)};
}

static void put_clock(struct line *l, const struct civil *t)
{
    put_digits(l, t->hour, 2);
    PUT(l, ":");
    put_digits(l, t->minute, 2);
    PUT(l, ":");
    put_digits(l, t->second, 2);
}

/* ---- JSON */

/* 2024-02-29T12:34:56.123456789Z (RFC 3339) */
static void put_rfc3339(struct line *l, int64_t unix_ns)
{
    struct civil t = civil_from_ns(unix_ns);
    put_digits(l, t.year, 4);
    PUT(l, "-");
    put_digits(l, t.month, 2);
    PUT(l, "-");
    put_digits(l, t.day, 2);
    PUT(l, "T");
    put_clock(l, &t);
    PUT(l, ".");
    put_digits(l, t.ns, 9);
    PUT(l, "Z");
}

static void put_json_text(struct line *l, s3p_str s)
{
    size_t limit = l->text_limit;
    PUT(l, "\"");
    put_text(l, s, escape_json, &limit);
    PUT(l, "\"");
}

static void put_json_url(struct line *l, struct url u)
{
    PUT(l, "\"");
    put_url(l, u, escape_json);
    PUT(l, "\"");
}

#define TEXT(key, s) (PUT(l, ",\"" key "\":"), put_json_text(l, s))
#define URL(key, u) (PUT(l, ",\"" key "\":"), put_json_url(l, u))
#define NUMBER(key, v) (PUT(l, ",\"" key "\":"), put_u64(l, v))
#define OPTIONAL(key, s) ((s).n ? TEXT(key, s) : PUT(l, ",\"" key "\":null"))
static void render_json(struct line *l, const s3p_request_info *i)
{
    PUT(l, "{\"time\":\"");
    put_rfc3339(l, i->start_unix_ns);
    PUT(l, "\"");
    TEXT("request_id", i->request_id);
    TEXT("peer", i->peer);
    TEXT("method", i->method);
    URL("target", target_url(i));
    TEXT("host", i->host);
    TEXT("protocol", i->protocol);
    put(l, i->tls ? ",\"tls\":true" : ",\"tls\":false", i->tls ? 11 : 12);
    OPTIONAL("tls_protocol", i->tls_protocol);
    OPTIONAL("tls_client", i->tls_client);
    NUMBER("status", i->status);
    TEXT("operation", i->operation);
    TEXT("bucket", i->bucket);
    TEXT("key", i->key);
    TEXT("origin", i->origin);
    TEXT("cache", i->cache);
    TEXT("cache_result", i->cache_result);
    TEXT("route", i->route);
    NUMBER("sent_bytes", i->sent_bytes);
    NUMBER("received_bytes", i->received_bytes);
    NUMBER("origin_bytes", i->origin_bytes);
    if (i->first_byte_ns) NUMBER("first_byte_us", elapsed_us(i->start_ns, i->first_byte_ns));
    else PUT(l, ",\"first_byte_us\":null");
    NUMBER("total_us", elapsed_us(i->start_ns, i->end_ns));
    TEXT("user_agent", i->user_agent);
    URL("referer", referer_url(i->referer));
    TEXT("range", i->range);
    OPTIONAL("error", i->error);
    PUT(l, "}\n");
}
#undef OPTIONAL
#undef TEXT
#undef URL
#undef NUMBER

/* ---- combined: peer - - [time] "request" status bytes "referer" "agent" CACHE first_byte_seconds */

/* [29/Feb/2024:12:34:56 +0000] */
static void put_apache_time(struct line *l, int64_t unix_ns)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    struct civil t = civil_from_ns(unix_ns);
    PUT(l, "[");
    put_digits(l, t.day, 2);
    PUT(l, "/");
    put(l, months + 3 * (t.month - 1), 3);
    PUT(l, "/");
    put_digits(l, t.year, 4);
    PUT(l, ":");
    put_clock(l, &t);
    PUT(l, " +0000]");
}

static void put_combined_text(struct line *l, s3p_str s)
{
    size_t limit = l->text_limit;
    if (s.n) put_text(l, s, escape_combined, &limit);
    else PUT(l, "-");
}

/* The address without its port: "192.0.2.1:80" and "[2001:db8::1]:80". */
static s3p_str peer_address(s3p_str peer)
{
    const char *colon = peer.n ? memrchr(peer.p, ':', peer.n) : NULL;
    if (colon) peer.n = (size_t)(colon - peer.p);
    if (peer.n >= 2 && peer.p[0] == '[' && peer.p[peer.n - 1] == ']')
        return (s3p_str){peer.p + 1, peer.n - 2};
    return peer;
}

static void put_request_line(struct line *l, const s3p_request_info *i)
{
    if (i->method.n == 0 && i->path.n == 0) {
        PUT(l, "-");
        return;
    }
    put_combined_text(l, i->method);
    PUT(l, " ");
    put_url(l, target_url(i), escape_combined);
    PUT(l, " ");
    put_combined_text(l, i->protocol);
    if (i->protocol.n == 6 && memcmp(i->protocol.p, "HTTP/2", 6) == 0) PUT(l, ".0"); /* as Apache and nginx write it */
}

static void render_combined(struct line *l, const s3p_request_info *i)
{
    put_combined_text(l, peer_address(i->peer));
    PUT(l, " - - ");
    put_apache_time(l, i->start_unix_ns);
    PUT(l, " \"");
    put_request_line(l, i);
    PUT(l, "\" ");
    put_digits(l, i->status, 3); /* 000: none was sent */
    PUT(l, " ");
    put_u64(l, i->sent_bytes);
    PUT(l, " \"");
    if (i->referer.n) put_url(l, referer_url(i->referer), escape_combined);
    else PUT(l, "-");
    PUT(l, "\" \"");
    put_combined_text(l, i->user_agent);
    PUT(l, "\" ");
    put_combined_text(l, i->cache_result);
    PUT(l, " ");
    if (i->first_byte_ns) {
        uint64_t us = elapsed_us(i->start_ns, i->first_byte_ns);
        put_u64(l, us / 1000000);
        PUT(l, ".");
        put_digits(l, us % 1000000, 6);
    } else {
        PUT(l, "-");
    }
    PUT(l, "\n");
}

/* ---- the module */

static void render(struct line *l, const s3p_request_info *i)
{
    for (size_t limit = LINE_BYTES; limit >= TEXT_LIMIT_MIN; limit /= 2) {
        l->n = 0;
        l->full = false;
        l->text_limit = limit;
        if (combined) render_combined(l, i);
        else render_json(l, i);
        if (!l->full) return;
    }
}

static void access_log_log(const s3p_request *r)
{
    s3p_request_info info;
    struct line l; /* not initialised: 16 KiB */

    if (!file) return;
    proxy->request_info(r, &info);
    render(&l, &info);
    if (!l.full) proxy->file_write(file, l.p, l.n);
}

static int access_log_init(const s3p_api *api, char *why, size_t n)
{
    const char *path = api->config("access_log.file"), *format = api->config("access_log.format");
    char reason[256] = "";

    proxy = api;
    file = NULL;
    combined = format && strcmp(format, "combined") == 0;
    if (format && !combined && strcmp(format, "json") != 0) {
        snprintf(why, n, "access_log.format is \"%s\": json or combined expected", format);
        return 1;
    }
    if (!path || strcmp(path, "off") == 0) return 0;
    file = api->file_open(path, reason, sizeof reason);
    if (file) return 0;
    snprintf(why, n, "access_log.file: %s", reason[0] ? reason : "cannot be opened");
    return 1;
}

static void access_log_exit(void)
{
    if (file) proxy->file_close(file);
    file = NULL;
}

static void access_log_reopen(void)
{
    if (file) proxy->file_reopen(file);
}

const s3p_module s3p_access_log_module = {
    .abi = S3P_ABI_VERSION,
    .name = "access_log",
    .init = access_log_init,
    .exit = access_log_exit,
    .reopen = access_log_reopen,
    .order = 50,
    .log = access_log_log,
};
