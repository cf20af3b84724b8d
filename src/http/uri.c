/* uri.c - cutting up request targets and percent-encoding.
 *
 * S3 keys are raw bytes: nothing here resolves dots, merges slashes or changes case of a path. Slices point into what
 * was given, decoded and encoded texts live in the caller's pool. */
#include "http/uri.h"

#include <arpa/inet.h>

/* RFC 3986 2.3 */
static const bool is_unreserved[256] = {
    ['-'] = true, ['.'] = true, ['_'] = true, ['~'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true,
    ['a' ... 'z'] = true,
};

static struct str str_from(struct str s, size_t at) { return str_make(s.p + at, s.n - at); }

static bool target_bytes_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= 0x20 || c >= 0x7f || c == '#') return false;
    }
    return s.n > 0;
}

/* Length of "http://" or "https://" at the start; 0 when it is neither. */
static size_t scheme_length(struct str s, bool *https)
{
    static const struct str plain = STR_LIT("http://"), secure = STR_LIT("https://");
    if (s.n >= plain.n && str_eq_ci(str_make(s.p, plain.n), plain)) {
        *https = false;
        return plain.n;
    }
    if (s.n >= secure.n && str_eq_ci(str_make(s.p, secure.n), secure)) {
        *https = true;
        return secure.n;
    }
    return 0;
}

enum err target_parse(struct str raw, struct target *out)
{
    struct target t = {0};
    struct str rest = raw, host;
    unsigned port;
    bool https;
    if (!target_bytes_ok(raw)) return ERR_BAD_URI;
    if (str_eq(raw, STR_LIT("*"))) {
        *out = (struct target){.path = raw};
        return ERR_OK;
    }
    size_t scheme = scheme_length(raw, &https);
    if (scheme > 0) {
        size_t end = scheme;
        while (end < raw.n && raw.p[end] != '/' && raw.p[end] != '?') end++;
        t.authority = str_make(raw.p + scheme, end - scheme);
        if (!authority_parse(t.authority, &host, &port)) return ERR_BAD_URI;
        rest = str_from(raw, end);
    } else if (raw.p[0] != '/') {
        return ERR_BAD_URI;
    }
    size_t question = str_find(rest, '?');
    t.path = str_make(rest.p, question);
    if (question < rest.n) t.query = str_from(rest, question + 1);
    if (t.path.n == 0) t.path = STR_LIT("/"); /* RFC 9110 4.2.3: an empty path is "/" */
    *out = t;
    return ERR_OK;
}

static bool ipv6_ok(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr addr;
    if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, 0, s.n)) return false;
    memcpy(text, s.p, s.n);
    text[s.n] = 0;
    return inet_pton(AF_INET6, text, &addr) == 1;
}

/* Names as they exist in DNS; sub-delims and percent-encoding, which RFC 3986 would allow, exist only in attacks. */
static bool host_name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (!is_unreserved[(unsigned char)s.p[i]]) return false;
    }
    return s.n > 0 && s.n <= 255;
}

/* Of "[v6]" the host is what is between the brackets. "host:" is a valid way to give no port. */
bool authority_parse(struct str s, struct str *host, unsigned *port)
{
    struct str h, p = {NULL, 0};
    uint64_t number = 0;
    if (s.n > 0 && s.p[0] == '[') {
        size_t close = str_find(s, ']');
        if (close == s.n) return false;
        h = str_make(s.p + 1, close - 1);
        if (!ipv6_ok(h)) return false;
        if (close + 1 < s.n && s.p[close + 1] != ':') return false;
        if (close + 2 < s.n) p = str_from(s, close + 2);
    } else {
        size_t colon = str_find(s, ':');
        h = str_make(s.p, colon);
        if (!host_name_ok(h)) return false;
        if (colon + 1 < s.n) p = str_from(s, colon + 1);
    }
    if (p.n > 0 && (!str_to_u64(p, &number) || number == 0 || number > 65535)) return false;
    *host = h;
    *port = (unsigned)number;
    return true;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

struct str uri_decode(struct pool *p, struct str s)
{
    const struct str none = {NULL, 0};
    char *out = pool_alloc(p, s.n + 1);
    size_t n = 0;
    if (!out) return none;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '%') {
            out[n++] = s.p[i];
            continue;
        }
        if (s.n - i < 3) return none;
        int high = hex_value(s.p[i + 1]), low = hex_value(s.p[i + 2]);
        if (high < 0 || low < 0) return none;
        out[n++] = (char)(unsigned char)(high << 4 | low);
        i += 2;
    }
    out[n] = 0;
    return str_make(out, n);
}

struct str uri_encode(struct pool *p, struct str s, bool keep_slash)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = 0;
    if (s.n > (SIZE_MAX - 1) / 3) return (struct str){NULL, 0};
    for (size_t i = 0; i < s.n; i++) {
        n += is_unreserved[(unsigned char)s.p[i]] || (keep_slash && s.p[i] == '/') ? 1 : 3;
    }
    char *out = pool_alloc(p, n + 1), *o = out;
    if (!out) return (struct str){NULL, 0};
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (is_unreserved[c] || (keep_slash && c == '/')) {
            *o++ = (char)c;
        } else {
            *o++ = '%';
            *o++ = hex[c >> 4];
            *o++ = hex[c & 15];
        }
    }
    *o = 0;
    return str_make(out, n);
}

enum err endpoint_parse(struct str url, struct endpoint *out)
{
    struct endpoint e = {0};
    struct str host;
    size_t at = scheme_length(url, &e.https), end = at;
    if (at == 0 || !target_bytes_ok(url) || str_find(url, '?') < url.n) return ERR_CONFIG;
    while (end < url.n && url.p[end] != '/') end++;
    if (!authority_parse(str_make(url.p + at, end - at), &host, &e.port)) return ERR_CONFIG;
    if (e.port == 0) e.port = e.https ? 443 : 80;
    struct str prefix = str_from(url, end);
    while (prefix.n > 0 && prefix.p[prefix.n - 1] == '/') prefix.n--;
    if (host.n >= sizeof(e.host) || prefix.n >= sizeof(e.prefix)) return ERR_CONFIG;
    for (size_t i = 0; i < host.n; i++) {
        char c = host.p[i];
        e.host[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    memcpy(e.prefix, prefix.p, prefix.n);
    *out = e;
    return ERR_OK;
}

bool query_next(struct str *rest, struct str *name, struct str *value)
{
    while (rest->n > 0) {
        size_t end = str_find(*rest, '&');
        struct str pair = str_make(rest->p, end);
        *rest = end < rest->n ? str_from(*rest, end + 1) : (struct str){NULL, 0};
        if (pair.n == 0) continue;
        size_t eq = str_find(pair, '=');
        *name = str_make(pair.p, eq);
        *value = eq < pair.n ? str_from(pair, eq + 1) : (struct str){NULL, 0};
        return true;
    }
    return false;
}
