/* msg.c - names, methods and reasons of HTTP, and looking things up in a head.
 *
 * Everything here works on slices and allocates nothing. A field's id is found by its length first: the length switch
 * leaves at most a handful of compile-time names to compare with, so a new row in HDR_TABLE needs no change here. */
#include "http/msg.h"

#include "base/check.h"

#define NAME_MAX_BYTES 32 /* longest name in HDR_TABLE; longer ones are HDR_OTHER without looking */

enum method method_of(struct str text)
{
#define X(m) \
    if (text.n == sizeof(#m) - 1 && memcmp(text.p, #m, sizeof(#m) - 1) == 0) return METHOD_##m;
    METHOD_TABLE(X)
#undef X
    return METHOD_OTHER;
}

/* n is a constant at every call, so all rows of another length vanish. */
static inline __attribute__((always_inline)) enum hdr_id id_among_length(const char *lower, size_t n)
{
#define X(id, name)                                                                               \
    _Static_assert(sizeof(name) - 1 <= NAME_MAX_BYTES, "raise NAME_MAX_BYTES and the switch");     \
    if (sizeof(name) - 1 == n && memcmp(lower, name, sizeof(name) - 1) == 0) return HDR_##id;
    HDR_TABLE(X)
#undef X
    return HDR_OTHER;
}

/* ASCII upper case to lower, eight bytes at once; every other byte stays what it is. */
static inline uint64_t lower8(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low7 = w & (0x7f * ones);
    uint64_t from_a = low7 + (0x80 - 'A') * ones;
    uint64_t past_z = low7 + (0x7f - 'Z') * ones;
    uint64_t upper = ~w & (from_a ^ past_z) & (0x80 * ones);
    return w | (upper >> 2);
}

enum hdr_id hdr_id_of(struct str name)
{
    uint64_t w[NAME_MAX_BYTES / 8] = {0};
    if (name.n == 0 || name.n > NAME_MAX_BYTES) return HDR_OTHER;
    memcpy(w, name.p, name.n);
    for (size_t i = 0; i < (name.n + 7) / 8; i++) w[i] = lower8(w[i]);
    const char *lower = (const char *)w;
    switch (name.n) {
#define L(n) \
    case n: return id_among_length(lower, n);
        L(1) L(2) L(3) L(4) L(5) L(6) L(7) L(8) L(9) L(10) L(11) L(12) L(13) L(14) L(15) L(16)
        L(17) L(18) L(19) L(20) L(21) L(22) L(23) L(24) L(25) L(26) L(27) L(28) L(29) L(30) L(31) L(32)
#undef L
    default: return HDR_OTHER;
    }
}

struct str hdr_name(enum hdr_id id)
{
    static const struct str names[HDR_COUNT] = {
        [HDR_OTHER] = {"", 0},
#define X(id, name) [HDR_##id] = {name, sizeof(name) - 1},
        HDR_TABLE(X)
#undef X
    };
    CHECK((unsigned)id < HDR_COUNT);
    return names[id];
}

const struct hdr *head_find(const struct head *h, enum hdr_id id)
{
    for (unsigned i = 0; i < h->nhdrs; i++) {
        if (h->hdrs[i].id == id) return &h->hdrs[i];
    }
    return NULL;
}

const struct hdr *head_find_name(const struct head *h, struct str lower_name)
{
    for (unsigned i = 0; i < h->nhdrs; i++) {
        if (str_eq_ci(h->hdrs[i].name, lower_name)) return &h->hdrs[i];
    }
    return NULL;
}

struct str head_value(const struct head *h, enum hdr_id id)
{
    const struct hdr *f = head_find(h, id);
    return f ? f->value : (struct str){NULL, 0};
}

/* Index behind the quoted string that starts at i; s.n when it is never closed. */
static size_t quoted_end(struct str s, size_t i)
{
    for (i++; i < s.n; i++) {
        if (s.p[i] == '\\') {
            i++;
        } else if (s.p[i] == '"') {
            return i + 1;
        }
    }
    return s.n;
}

/* An unclosed quote swallows the rest: that keeps the walk linear, whatever is in the field. */
bool hdr_list_next(struct str *rest, struct str *member)
{
    while (rest->n > 0) {
        size_t end = 0;
        while (end < rest->n && rest->p[end] != ',') end = rest->p[end] == '"' ? quoted_end(*rest, end) : end + 1;
        struct str m = str_trim(str_make(rest->p, end));
        size_t used = end < rest->n ? end + 1 : end;
        rest->p += used;
        rest->n -= used;
        if (m.n > 0) {
            *member = m;
            return true;
        }
    }
    return false;
}

/* Tokens hold neither commas nor quotes, so plain commas part them; a quote somewhere else in the field must not be
 * able to hide a token such as "close". */
static bool lists_token(struct str value, struct str token)
{
    while (value.n > 0) {
        size_t end = str_find(value, ',');
        if (str_eq_ci(str_trim(str_make(value.p, end)), token)) return true;
        size_t used = end < value.n ? end + 1 : end;
        value.p += used;
        value.n -= used;
    }
    return false;
}

bool head_has_token(const struct head *h, enum hdr_id id, struct str token)
{
    for (unsigned i = 0; i < h->nhdrs; i++) {
        if (h->hdrs[i].id == id && lists_token(h->hdrs[i].value, token)) return true;
    }
    return false;
}

/* A Connection field may name only fields this program gives no meaning to. Otherwise "Connection: range" or
 * "Connection: host" would let a sender strip, between the cache and the origin, what the cache has decided upon
 * (RFC 9110 7.6.1: fields for all recipients are never appropriate as connection options). */
bool hdr_is_hop_by_hop(const struct head *h, const struct hdr *f)
{
    switch (f->id) {
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_TRANSFER_ENCODING:
    case HDR_TE:
    case HDR_TRAILER:
    case HDR_UPGRADE:
    case HDR_PROXY_AUTHENTICATE:
    case HDR_PROXY_AUTHORIZATION:
    case HDR_S3DLIO_CACHE: /* meant for us */
    case HDR_HTTP2_SETTINGS: return true;
    case HDR_OTHER: return head_has_token(h, HDR_CONNECTION, f->name);
    default: return false;
    }
}

const char *status_reason(unsigned status)
{
    switch (status) {
    case 100: return "Continue";
    case 101: return "Switching Protocols";
    case 103: return "Early Hints";
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 203: return "Non-Authoritative Information";
    case 204: return "No Content";
    case 205: return "Reset Content";
    case 206: return "Partial Content";
    case 300: return "Multiple Choices";
    case 301: return "Moved Permanently";
    case 302: return "Found";
    case 303: return "See Other";
    case 304: return "Not Modified";
    case 307: return "Temporary Redirect";
    case 308: return "Permanent Redirect";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 406: return "Not Acceptable";
    case 407: return "Proxy Authentication Required";
    case 408: return "Request Timeout";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 416: return "Range Not Satisfiable";
    case 417: return "Expectation Failed";
    case 421: return "Misdirected Request";
    case 422: return "Unprocessable Content";
    case 426: return "Upgrade Required";
    case 428: return "Precondition Required";
    case 429: return "Too Many Requests";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 502: return "Bad Gateway";
    case 503: return "Service Unavailable";
    case 504: return "Gateway Timeout";
    case 505: return "HTTP Version Not Supported";
    case 507: return "Insufficient Storage";
    default: return "Unknown";
    }
}
