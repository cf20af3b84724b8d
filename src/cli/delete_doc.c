/* delete_doc.c - see the header. S3 refuses a DeleteObjects without a checksum; all that speak S3 know Content-MD5. */
#include "cli/delete_doc.h"

#include <openssl/evp.h>
#include <stdio.h>

/* Bytes of the UTF-8 character at p that XML 1.0 allows (section 2.2), 0: none. */
static size_t xml_char(const unsigned char *p, size_t n)
{
    static const unsigned min[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    unsigned c = len == 1 ? p[0] : len == 4 ? p[0] & 0x07u : len == 3 ? p[0] & 0x0fu : p[0] & 0x1fu;

    if (len == 1) return c >= ' ' || c == '\t' || c == '\n' || c == '\r' ? 1 : 0;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < len) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    return c < min[len] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) || c == 0xfffe || c == 0xffff ? 0 : len;
}

bool delete_doc_fits(struct str key)
{
    for (size_t i = 0, step; i < key.n; i += step) {
        step = xml_char((const unsigned char *)key.p + i, key.n - i);
        if (!step) return false;
    }
    return key.n > 0;
}

bool key_has_dot_segment(struct str key)
{
    struct str part, rest = key;

    while (str_split(&rest, '/', &part))
        if (str_eq(part, STR_LIT(".")) || str_eq(part, STR_LIT(".."))) return true;
    return false;
}

void delete_doc_begin(struct delete_doc *d)
{
    strbuf_init(&d->xml, 4 * DELETE_DOC_BYTES);
    d->keys = 0;
    strbuf_z(&d->xml, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                      "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
}

/* Also spaces at the ends, which a parser may drop, and line ends, which it normalises. */
static void add_escaped(struct strbuf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < ' ' || (c == ' ' && (i == 0 || i + 1 == s.n)) || strchr("&<>\"'", c)) strbuf_f(b, "&#%u;", c);
        else strbuf_ch(b, (char)c);
    }
}

void delete_doc_add(struct delete_doc *d, struct str key)
{
    strbuf_z(&d->xml, "<Object><Key>");
    add_escaped(&d->xml, key);
    strbuf_z(&d->xml, "</Key></Object>");
    d->keys++;
}

bool delete_doc_is_full(const struct delete_doc *d) { return d->keys >= DELETE_KEYS_MAX || d->xml.n >= DELETE_DOC_BYTES; }

static unsigned digest(const char *name, struct str s, unsigned char *out)
{
    EVP_MD *md = EVP_MD_fetch(NULL, name, NULL);
    unsigned n = 0;

    if (!md || EVP_Digest(s.p, s.n, out, &n, md, NULL) != 1) n = 0;
    EVP_MD_free(md);
    return n;
}

bool delete_doc_end(struct delete_doc *d)
{
    unsigned char md5[EVP_MAX_MD_SIZE], sha[EVP_MAX_MD_SIZE];

    strbuf_z(&d->xml, "</Delete>\n");
    if (d->xml.failed) return false;
    struct str text = strbuf_get(&d->xml);
    unsigned n = digest("MD5", text, md5), m = digest("SHA256", text, sha);
    if (m != 32) return false;
    for (unsigned i = 0; i < m; i++) snprintf(d->sha256 + (size_t)2 * i, 3, "%02x", sha[i]);
    EVP_EncodeBlock((unsigned char *)d->digest, n ? md5 : sha, (int)(n ? n : m));
    d->hdrs[0] = (struct hdr){{"content-type", 12}, {"application/xml", 15}, HDR_CONTENT_TYPE};
    d->hdrs[1] = n ? (struct hdr){{"content-md5", 11}, str_c(d->digest), HDR_CONTENT_MD5}
                   : (struct hdr){{"x-amz-checksum-sha256", 21}, str_c(d->digest), HDR_OTHER};
    return true;
}

void delete_doc_free(struct delete_doc *d) { strbuf_free(&d->xml); }
