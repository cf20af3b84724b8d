/* error_xml.c - writes S3's error documents and finds the code in those of others.
 *
 * Writing: whatever bytes come in, a well-formed UTF-8 document comes out; what XML 1.0 cannot hold is replaced.
 * Reading: only a document whose root is <Error> counts, so that an error nested in a result (DeleteResult) is not taken
 * for the answer's own. */
#include "s3/error_xml.h"

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* Length of the valid UTF-8 sequence at s (RFC 3629: no overlong forms, no surrogates); 0 if there is none. */
static size_t utf8_sequence(struct str s)
{
    const unsigned char *p = (const unsigned char *)s.p;
    unsigned char lo = 0x80, hi = 0xBF;
    size_t n;

    if (p[0] < 0x80) return 1;
    if (p[0] >= 0xC2 && p[0] <= 0xDF)
        n = 2;
    else if ((p[0] & 0xF0) == 0xE0)
        n = 3;
    else if (p[0] >= 0xF0 && p[0] <= 0xF4)
        n = 4;
    else
        return 0;
    if (s.n < n) return 0;
    if (p[0] == 0xE0) lo = 0xA0;
    if (p[0] == 0xED) hi = 0x9F;
    if (p[0] == 0xF0) lo = 0x90;
    if (p[0] == 0xF4) hi = 0x8F;
    if (p[1] < lo || p[1] > hi) return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    /* U+FFFE and U+FFFF are no XML characters. */
    return p[0] == 0xEF && p[1] == 0xBF && p[2] >= 0xBE ? 0 : n;
}

static void put_ascii(struct strbuf *out, char c)
{
    switch (c) {
    case '&': strbuf_z(out, "&amp;"); break;
    case '<': strbuf_z(out, "&lt;"); break;
    case '>': strbuf_z(out, "&gt;"); break;
    case '"': strbuf_z(out, "&quot;"); break;
    case '\'': strbuf_z(out, "&apos;"); break;
    case '\r': strbuf_z(out, "&#13;"); break; /* a bare CR would be read as LF */
    case '\t':
    case '\n': strbuf_ch(out, c); break;
    default:
        if ((unsigned char)c < 0x20)
            strbuf_z(out, REPLACEMENT);
        else
            strbuf_ch(out, c);
    }
}

static void put_text(struct strbuf *out, struct str s)
{
    while (s.n) {
        size_t n = utf8_sequence(s);
        if (n == 0)
            strbuf_z(out, REPLACEMENT);
        else if (n == 1)
            put_ascii(out, s.p[0]);
        else
            strbuf_add(out, s.p, n);
        if (n == 0) n = 1;
        s = str_make(s.p + n, s.n - n);
    }
}

void xml_text(struct strbuf *out, struct str s) { put_text(out, s); }

static void put_element(struct strbuf *out, const char *name, struct str text)
{
    strbuf_ch(out, '<');
    strbuf_z(out, name);
    strbuf_ch(out, '>');
    put_text(out, text);
    strbuf_z(out, "</");
    strbuf_z(out, name);
    strbuf_ch(out, '>');
}

enum err error_xml_build(struct strbuf *out, const char *code, const char *message, struct str resource,
                         struct str request_id)
{
    strbuf_z(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error>");
    put_element(out, "Code", str_c(code));
    put_element(out, "Message", str_c(message));
    put_element(out, "Resource", resource);
    put_element(out, "RequestId", request_id);
    put_element(out, "HostId", STR_LIT("s3dlio-proxy"));
    strbuf_z(out, "</Error>");
    return out->failed ? ERR_NOMEM : ERR_OK;
}

/* ---- reading */

static bool is_xml_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static struct str skip(struct str s, size_t n) { return str_make(s.p + n, s.n - n); }

static struct str skip_space(struct str s)
{
    while (s.n && is_xml_space(s.p[0])) s = skip(s, 1);
    return s;
}

/* What follows `end`; {NULL,0} when it does not occur. */
static struct str skip_past(struct str s, struct str end)
{
    const char *at = s.n ? memmem(s.p, s.n, end.p, end.n) : NULL;
    if (!at) return (struct str){NULL, 0};
    return skip(s, (size_t)(at - s.p) + end.n);
}

/* Behind the byte order mark, the declaration and comments. */
static struct str skip_prolog(struct str s)
{
    if (str_starts(s, STR_LIT("\xEF\xBB\xBF"))) s = skip(s, 3);
    for (;;) {
        s = skip_space(s);
        if (str_starts(s, STR_LIT("<?")))
            s = skip_past(s, STR_LIT("?>"));
        else if (str_starts(s, STR_LIT("<!--")))
            s = skip_past(s, STR_LIT("-->"));
        else
            return s;
    }
}

struct str error_xml_code(struct str document)
{
    const struct str none = {NULL, 0}, root = STR_LIT("<Error");
    struct str s = skip_prolog(document);

    if (!str_starts(s, root)) return none;
    s = skip(s, root.n);
    if (s.n == 0 || (s.p[0] != '>' && !is_xml_space(s.p[0]))) return none;
    s = skip_past(s, STR_LIT(">"));
    s = skip_past(s, STR_LIT("<Code>"));
    size_t n = str_find(s, '<');
    if (n == s.n || !str_starts(skip(s, n), STR_LIT("</Code>"))) return none;
    s.n = n;
    s = skip_space(s);
    while (s.n && is_xml_space(s.p[s.n - 1])) s.n--;
    return s.n ? s : none;
}
