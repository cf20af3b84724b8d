/* h1_parse.c - HTTP/1.x heads and chunked framing.
 *
 * A head is parsed in two steps. First its end is looked for, line feed by line feed, going on where the last call left
 * off; nothing is parsed before it is complete, so input that trickles in costs one scan altogether, and slices never
 * have to survive the buffer moving. Then the complete head is cut up in one pass. Both steps look at bytes in the same
 * order however they arrived: a message gets the same verdict in one piece and byte by byte.
 *
 * The chunked decoder is a byte automaton over the framing alone; data bytes are never looked at. */
#include "http/h1_parse.h"

#include "base/check.h"
#include "http/uri.h"

#define LEADING_LINES_MAX 4          /* empty lines before a request (RFC 9112 2.2) */
#define CHUNK_LINE_MAX 256u          /* size, extensions and line end of one chunk */
#define TRAILER_MAX (16u * 1024)     /* all trailer lines */
#define CHUNK_SIZE_MAX (UINT64_MAX >> 1)

/* RFC 9110 5.6.2 */
static const bool is_tchar[256] = {
    ['!'] = true, ['#'] = true, ['$'] = true, ['%'] = true, ['&'] = true, ['\''] = true, ['*'] = true,
    ['+'] = true, ['-'] = true, ['.'] = true, ['^'] = true, ['_'] = true, ['`'] = true,  ['|'] = true,
    ['~'] = true, ['0' ... '9'] = true, ['A' ... 'Z'] = true, ['a' ... 'z'] = true,
};

static size_t token_length(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && is_tchar[(unsigned char)p[i]]) i++;
    return i;
}

static bool is_control(char c)
{
    unsigned char u = (unsigned char)c;
    return u < 0x20 || u == 0x7f;
}

/* Does any of the 8 bytes look like a control? Exact for the question "any?", which is all that is asked. */
static bool any_control8(uint64_t w)
{
    const uint64_t ones = 0x0101010101010101u, highs = 0x80 * ones;
    uint64_t below_space = (w - 0x20 * ones) & ~w;
    uint64_t del = w ^ (0x7f * ones);
    return (((below_space) | ((del - ones) & ~del)) & highs) != 0;
}

/* True when no control byte is in it; HTAB is let through when `tab`. */
static bool text_is_clean(const char *p, size_t n, bool tab)
{
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        if (likely(!any_control8(w))) continue;
        for (size_t k = i; k < i + 8; k++) {
            if (is_control(p[k]) && !(tab && p[k] == '\t')) return false;
        }
    }
    for (; i < n; i++) {
        if (is_control(p[i]) && !(tab && p[i] == '\t')) return false;
    }
    return true;
}

/* Looks for the empty line within the first `window` bytes. ERR_OK: *end is behind it. */
static enum err head_end_find(const char *buf, size_t start, size_t window, size_t *scanned, size_t *end)
{
    size_t at = *scanned > start ? *scanned : start;
    while (at < window) {
        const char *lf = memchr(buf + at, '\n', window - at);
        if (!lf) break;
        size_t i = (size_t)(lf - buf);
        if (i == start || buf[i - 1] != '\r') return ERR_BAD_REQUEST;
        if (i >= start + 2 && buf[i - 2] == '\n') {
            *end = i + 1;
            *scanned = i + 1;
            return ERR_OK;
        }
        at = i + 1;
    }
    if (window > *scanned) *scanned = window;
    return ERR_AGAIN;
}

/* [p, end) is complete and ends with the empty line. */
static enum err fields_parse(const char *p, const char *end, unsigned max, struct hdr *hdrs, unsigned *count)
{
    unsigned n = 0;
    while (end - p > 2) {
        const char *cr = memchr(p, '\r', (size_t)(end - p));
        if (cr[1] != '\n') return ERR_BAD_REQUEST;
        size_t name_n = token_length(p, (size_t)(cr - p));
        if (name_n == 0 || p[name_n] != ':') return ERR_BAD_REQUEST;
        if (n == max) return ERR_HEAD_TOO_LARGE;
        const char *v = p + name_n + 1, *v_end = cr;
        while (v < v_end && (*v == ' ' || *v == '\t')) v++;
        while (v < v_end && (v_end[-1] == ' ' || v_end[-1] == '\t')) v_end--;
        if (!text_is_clean(v, (size_t)(v_end - v), true)) return ERR_BAD_REQUEST;
        hdrs[n].name = str_make(p, name_n);
        hdrs[n].value = str_make(v, (size_t)(v_end - v));
        hdrs[n].id = hdr_id_of(hdrs[n].name);
        n++;
        p = cr + 2;
    }
    *count = n;
    return ERR_OK;
}

struct codings {
    unsigned fields, chunked;
    bool last_is_chunked, other;
};

/* Plain commas: a transfer coding with parameters is an unknown one anyway. Empty members are not let pass. */
static bool codings_add(struct codings *c, struct str value)
{
    c->fields++;
    for (bool more = true; more;) {
        size_t end = str_find(value, ',');
        struct str m = str_trim(str_make(value.p, end));
        if (m.n == 0) return false;
        c->last_is_chunked = str_eq_ci(m, STR_LIT("chunked"));
        if (c->last_is_chunked) {
            c->chunked++;
        } else {
            c->other = true;
        }
        more = end < value.n;
        value = more ? str_make(value.p + end + 1, value.n - end - 1) : value;
    }
    return true;
}

/* RFC 9112 6.1 and 6.3, without the leeway they give. */
static enum err codings_judge(const struct codings *c, struct head *out)
{
    if (out->minor == 0 || out->content_length >= 0) return ERR_BAD_REQUEST;
    if (!c->last_is_chunked || c->chunked > 1) return ERR_BAD_REQUEST;
    if (c->other) return ERR_NOT_IMPLEMENTED;
    out->chunked = true;
    return ERR_OK;
}

static enum err length_parse(struct str value, struct head *out)
{
    uint64_t v;
    if (out->content_length >= 0) return ERR_BAD_REQUEST; /* repeated, even when it says the same */
    if (!str_to_u64(value, &v) || v > INT64_MAX) return ERR_BAD_REQUEST;
    out->content_length = (int64_t)v;
    return ERR_OK;
}

static enum err host_check(struct str value, unsigned *hosts)
{
    struct str host;
    unsigned port;
    if (++*hosts > 1 || !authority_parse(value, &host, &port)) return ERR_BAD_REQUEST;
    return ERR_OK;
}

/* Fills in the framing members of *out from its fields. */
static enum err framing_parse(struct head *out, bool request)
{
    struct codings codings = {0};
    unsigned hosts = 0, connections = 0;
    bool close = false, keep = false;
    enum err e = ERR_OK;
    out->content_length = -1;
    for (unsigned i = 0; i < out->nhdrs; i++) {
        const struct hdr *f = &out->hdrs[i];
        switch (f->id) {
        case HDR_HOST:
            if (request) e = host_check(f->value, &hosts);
            break;
        case HDR_CONTENT_LENGTH: e = length_parse(f->value, out); break;
        case HDR_TRANSFER_ENCODING:
            if (!codings_add(&codings, f->value)) e = ERR_BAD_REQUEST;
            break;
        case HDR_CONNECTION:
            if (connections++ > 0) break; /* head_has_token looks at all of them */
            close = head_has_token(out, HDR_CONNECTION, STR_LIT("close"));
            keep = head_has_token(out, HDR_CONNECTION, STR_LIT("keep-alive"));
            break;
        case HDR_EXPECT:
            if (request && out->minor > 0 && str_eq_ci(f->value, STR_LIT("100-continue"))) out->expect_continue = true;
            break;
        default: break;
        }
        if (e != ERR_OK) return e;
    }
    if (request && out->minor > 0 && hosts == 0) return ERR_BAD_REQUEST;
    out->keep_alive = !close && (out->minor > 0 || keep);
    return codings.fields > 0 ? codings_judge(&codings, out) : ERR_OK;
}

/* "HTTP/1.x"; a later minor version speaks 1.1 to us (RFC 9110 2.5). */
static enum err version_parse(const char *p, unsigned *minor)
{
    if (memcmp(p, "HTTP/", 5) != 0 || p[5] < '0' || p[5] > '9' || p[6] != '.' || p[7] < '0' || p[7] > '9')
        return ERR_BAD_REQUEST;
    if (p[5] != '1') return ERR_VERSION;
    *minor = p[7] == '0' ? 0 : 1;
    return ERR_OK;
}

/* The line without its end. Bytes of the target above 0x7f are left to target_parse, which knows the better error. */
static enum err request_line_parse(const char *p, size_t n, const struct h1_limits *limits, struct head *out)
{
    size_t method_n = token_length(p, n);
    if (method_n == 0 || method_n == n || p[method_n] != ' ') return ERR_BAD_REQUEST;
    const char *target = p + method_n + 1;
    size_t left = n - method_n - 1;
    const char *space = memchr(target, ' ', left);
    size_t target_n = space ? (size_t)(space - target) : left;
    if (target_n > limits->target_bytes) return ERR_URI_TOO_LONG;
    if (!space || target_n == 0 || !text_is_clean(target, target_n, false)) return ERR_BAD_REQUEST;
    if (left - target_n - 1 != 8) return ERR_BAD_REQUEST;
    enum err e = version_parse(space + 1, &out->minor);
    if (e != ERR_OK) return e;
    out->method_text = str_make(p, method_n);
    out->method = method_of(out->method_text);
    out->target = str_make(target, target_n);
    return ERR_OK;
}

/* The head did not fit: was it the target? */
static enum err too_large(const char *p, size_t n, const struct h1_limits *limits)
{
    const char *first = memchr(p, ' ', n), *line_end = memchr(p, '\r', n);
    size_t line_n = line_end ? (size_t)(line_end - p) : n;
    if (!first || (size_t)(first - p) >= line_n) return ERR_HEAD_TOO_LARGE;
    size_t left = line_n - (size_t)(first - p) - 1;
    const char *second = memchr(first + 1, ' ', left);
    size_t target_n = second ? (size_t)(second - first) - 1 : left;
    return target_n > limits->target_bytes ? ERR_URI_TOO_LONG : ERR_HEAD_TOO_LARGE;
}

/* ERR_OK: *start is where the request line begins, and its first byte is there and may begin one. */
static enum err leading_lines_skip(const char *buf, size_t n, size_t *start)
{
    size_t at = 0;
    while (at < n && buf[at] == '\r') {
        if (at == 2 * LEADING_LINES_MAX) return ERR_BAD_REQUEST;
        if (at + 1 == n) return ERR_AGAIN;
        if (buf[at + 1] != '\n') return ERR_BAD_REQUEST;
        at += 2;
    }
    if (at == n) return ERR_AGAIN;
    *start = at;
    return is_tchar[(unsigned char)buf[at]] ? ERR_OK : ERR_BAD_REQUEST;
}

enum err h1_parse_request(const char *buf, size_t n, size_t *scanned, const struct h1_limits *limits, struct hdr *hdrs,
                          struct head *out, size_t *used)
{
    CHECK(*scanned <= n);
    size_t start, end, window = n < limits->head_bytes ? n : limits->head_bytes;
    enum err e = leading_lines_skip(buf, window, &start);
    if (e == ERR_OK) {
        e = head_end_find(buf, start, window, scanned, &end);
        if (e == ERR_AGAIN && n >= limits->head_bytes) return too_large(buf + start, window - start, limits);
    } else if (e == ERR_AGAIN && n >= limits->head_bytes) {
        return ERR_HEAD_TOO_LARGE;
    }
    if (e != ERR_OK) return e;

    *out = (struct head){.hdrs = hdrs};
    const char *line = buf + start;
    const char *cr = memchr(line, '\r', end - start);
    if (cr[1] != '\n') return ERR_BAD_REQUEST;
    e = request_line_parse(line, (size_t)(cr - line), limits, out);
    if (e == ERR_OK) e = fields_parse(cr + 2, buf + end, limits->headers, hdrs, &out->nhdrs);
    if (e == ERR_OK) e = framing_parse(out, true);
    if (e != ERR_OK) return e;
    /* What follows a CONNECT may already be meant for a tunnel that we do not open. */
    if (out->method == METHOD_CONNECT) out->keep_alive = false;
    *used = end;
    return ERR_OK;
}

/* "HTTP/1.1 200 OK"; the space before an empty reason is missing often enough to be let go, it hides nothing. */
static enum err status_line_parse(const char *p, size_t n, struct head *out)
{
    if (n < 12 || p[8] != ' ' || (n > 12 && p[12] != ' ')) return ERR_PROTOCOL;
    if (version_parse(p, &out->minor) != ERR_OK) return ERR_PROTOCOL;
    unsigned status = 0;
    for (size_t i = 9; i < 12; i++) {
        if (p[i] < '0' || p[i] > '9') return ERR_PROTOCOL;
        status = status * 10 + (unsigned)(p[i] - '0');
    }
    if (status < 100) return ERR_PROTOCOL;
    if (n > 13 && !text_is_clean(p + 13, n - 13, true)) return ERR_PROTOCOL;
    out->status = status;
    out->reason = n > 13 ? str_make(p + 13, n - 13) : str_make(p + n, 0);
    return ERR_OK;
}

enum err h1_parse_response(const char *buf, size_t n, size_t *scanned, const struct h1_limits *limits, struct hdr *hdrs,
                           struct head *out, size_t *used)
{
    CHECK(*scanned <= n);
    size_t end, window = n < limits->head_bytes ? n : limits->head_bytes;
    if (window > 0 && buf[0] != 'H') return ERR_PROTOCOL;
    enum err e = head_end_find(buf, 0, window, scanned, &end);
    if (e == ERR_AGAIN && n < limits->head_bytes) return ERR_AGAIN;
    if (e != ERR_OK) return ERR_PROTOCOL;

    *out = (struct head){.hdrs = hdrs};
    const char *cr = memchr(buf, '\r', end);
    if (cr[1] != '\n') return ERR_PROTOCOL;
    e = status_line_parse(buf, (size_t)(cr - buf), out);
    if (e == ERR_OK) e = fields_parse(cr + 2, buf + end, limits->headers, hdrs, &out->nhdrs);
    if (e == ERR_OK) e = framing_parse(out, false);
    if (e != ERR_OK) return ERR_PROTOCOL;
    *used = end;
    return ERR_OK;
}

/* What the next byte has to be. */
enum chunk_state {
    SIZE_FIRST, /* at least one digit */
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA, /* `left` bytes of it, taken by the caller */
    DATA_CR,
    DATA_LF,
    TRAILER_FIRST, /* a field, or the CR of the last line */
    TRAILER_NAME,
    TRAILER_VALUE,
    TRAILER_LF,
    LAST_LF,
    DONE,
    BROKEN
};

void h1_chunked_init(struct h1_chunked *c) { *c = (struct h1_chunked){.state = SIZE_FIRST}; }

void h1_chunked_took(struct h1_chunked *c, size_t n)
{
    CHECK(c->state == DATA && n <= c->left);
    c->left -= n;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

static unsigned size_step(struct h1_chunked *c, char b)
{
    int v = hex_value(b);
    if (v >= 0) {
        if (c->left > CHUNK_SIZE_MAX >> 4) return BROKEN;
        c->left = c->left << 4 | (unsigned)v;
        return SIZE;
    }
    if (c->state == SIZE_FIRST) return BROKEN;
    return b == '\r' ? SIZE_LF : b == ';' ? EXTENSION : BROKEN;
}

static unsigned trailer_step(unsigned state, char b)
{
    switch (state) {
    case TRAILER_FIRST: return b == '\r' ? LAST_LF : is_tchar[(unsigned char)b] ? TRAILER_NAME : BROKEN;
    case TRAILER_NAME: return b == ':' ? TRAILER_VALUE : is_tchar[(unsigned char)b] ? TRAILER_NAME : BROKEN;
    case TRAILER_VALUE: return b == '\r' ? TRAILER_LF : is_control(b) && b != '\t' ? BROKEN : TRAILER_VALUE;
    case TRAILER_LF: return b == '\n' ? TRAILER_FIRST : BROKEN;
    default: return b == '\n' ? DONE : BROKEN;
    }
}

static unsigned chunk_step(struct h1_chunked *c, char b)
{
    switch (c->state) {
    case SIZE_FIRST:
    case SIZE:
        if (++c->line_bytes > CHUNK_LINE_MAX) return BROKEN;
        return size_step(c, b);
    case EXTENSION:
        if (++c->line_bytes > CHUNK_LINE_MAX) return BROKEN;
        return b == '\r' ? SIZE_LF : is_control(b) && b != '\t' ? BROKEN : EXTENSION;
    case SIZE_LF:
        c->line_bytes = 0;
        if (b != '\n') return BROKEN;
        return c->left > 0 ? DATA : TRAILER_FIRST;
    case DATA_CR: return b == '\r' ? DATA_LF : BROKEN;
    case DATA_LF: return b == '\n' ? SIZE_FIRST : BROKEN;
    default:
        if (++c->trailer_bytes > TRAILER_MAX) return BROKEN;
        return trailer_step(c->state, b);
    }
}

enum err h1_chunked_next(struct h1_chunked *c, const char *buf, size_t n, size_t *used)
{
    *used = 0;
    if (c->state == DATA && c->left == 0) c->state = DATA_CR;
    while (c->state != DATA && c->state != DONE && c->state != BROKEN && *used < n) {
        c->state = chunk_step(c, buf[(*used)++]);
    }
    switch (c->state) {
    case DATA: return ERR_OK;
    case DONE: return ERR_END;
    case BROKEN: c->left = 0; return ERR_BAD_CHUNK;
    default: return ERR_AGAIN;
    }
}
