/* sigv4.c - AWS Signature Version 4: the canonical request, and the two users of it, signer and verifier.
 *
 * Raw paths and queries are what we route and cache by; here, and only here, they are brought into canonical form: every
 * name and value is percent-decoded once and encoded once, which is what the servers do before they compare. No dot
 * segments are removed and no slashes merged (S3 keys may hold both). A '%' without two hex digits stands for itself.
 * '+' is a plus in a path and a space in a query, as S3 and its clones read them.
 *
 * Everything is built in pool memory through a writer that knows its room; the room is worked out beforehand, and a
 * writer that runs out of it only ever fails the request. The signing key is the one thing that outlives a call. */
#include "s3/sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/check.h"
#include "http/date.h"
#include "http/uri.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define SERVICE "s3"
#define TERMINATOR "aws4_request"
#define SKEW_S 900
#define EXPIRES_MAX_S (7 * 24 * 3600)
#define DIGEST_BYTES 32
#define DIGEST_HEX 64
#define BLOCK_BYTES 64
#define REGION_BYTES 63
#define AMZ_DATE_CHARS 16 /* 20130524T000000Z */
#define DAY_CHARS 8

/* ---- SHA-256 and HMAC */

/* Fetching an algorithm takes OpenSSL's locks and a search; once per process is enough. Never written after that. */
static const EVP_MD *sha256_md;
static pthread_once_t sha256_once = PTHREAD_ONCE_INIT;

static void sha256_fetch(void) { sha256_md = EVP_MD_fetch(NULL, "SHA256", NULL); }

static bool sha256(EVP_MD_CTX *ctx, const void *p, size_t n, unsigned char out[DIGEST_BYTES])
{
    return EVP_DigestInit_ex(ctx, sha256_md, NULL) == 1 && EVP_DigestUpdate(ctx, p, n) == 1 &&
           EVP_DigestFinal_ex(ctx, out, NULL) == 1;
}

/* One half of RFC 2104: H(block || data). */
static bool hmac_half(EVP_MD_CTX *ctx, const unsigned char block[BLOCK_BYTES], const void *p, size_t n,
                      unsigned char out[DIGEST_BYTES])
{
    return EVP_DigestInit_ex(ctx, sha256_md, NULL) == 1 && EVP_DigestUpdate(ctx, block, BLOCK_BYTES) == 1 &&
           EVP_DigestUpdate(ctx, p, n) == 1 && EVP_DigestFinal_ex(ctx, out, NULL) == 1;
}

/* HMAC() of OpenSSL 3 fetches MAC and digest on each call, which costs more than the hashing itself. `out` may be key. */
static bool hmac(EVP_MD_CTX *ctx, const void *key, size_t key_bytes, const void *p, size_t n,
                 unsigned char out[DIGEST_BYTES])
{
    unsigned char block[BLOCK_BYTES] = {0}, inner[DIGEST_BYTES];
    bool ok = true;

    if (key_bytes > BLOCK_BYTES)
        ok = sha256(ctx, key, key_bytes, block);
    else if (key_bytes)
        memcpy(block, key, key_bytes);
    for (size_t i = 0; i < BLOCK_BYTES; i++) block[i] ^= 0x36;
    ok = ok && hmac_half(ctx, block, p, n, inner);
    for (size_t i = 0; i < BLOCK_BYTES; i++) block[i] ^= 0x36 ^ 0x5c;
    ok = ok && hmac_half(ctx, block, inner, sizeof inner, out);
    OPENSSL_cleanse(block, sizeof block);
    return ok;
}

static void hex_of(const unsigned char in[DIGEST_BYTES], char out[DIGEST_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < DIGEST_BYTES; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
}

static bool is_lower_hex(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] >= 'a' && s.p[i] <= 'f'))) return false;
    return s.n > 0;
}

/* ---- a writer with known room */

struct writer {
    char *p;
    size_t n, cap;
    bool failed;
};

static bool writer_init(struct writer *w, struct pool *pool, size_t cap)
{
    *w = (struct writer){.p = pool_alloc(pool, cap), .cap = cap};
    return w->p != NULL;
}

static inline void put_ch(struct writer *w, char c)
{
    if (likely(w->n < w->cap))
        w->p[w->n++] = c;
    else
        w->failed = true;
}

static void put(struct writer *w, struct str s)
{
    if (unlikely(s.n > w->cap - w->n)) {
        w->failed = true;
        return;
    }
    if (s.n) memcpy(w->p + w->n, s.p, s.n);
    w->n += s.n;
}

static inline struct str written(const struct writer *w) { return str_make(w->p, w->n); }

/* ---- canonical forms */

static int hex_value(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* The next byte that `s` stands for; *i moves behind it. */
static inline unsigned char next_decoded(struct str s, size_t *i, bool plus_is_space)
{
    char c = s.p[(*i)++];
    if (likely(c != '%')) return c == '+' && plus_is_space ? ' ' : (unsigned char)c;
    if (s.n - *i < 2) return '%';
    int hi = hex_value(s.p[*i]), lo = hex_value(s.p[*i + 1]);
    if (hi < 0 || lo < 0) return '%';
    *i += 2;
    return (unsigned char)(hi << 4 | lo);
}

static inline bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
           c == '_' || c == '~';
}

/* Writes at most three bytes for each of s. */
static void put_reencoded(struct writer *w, struct str s, bool in_path)
{
    static const char digits[] = "0123456789ABCDEF";
    for (size_t i = 0; i < s.n;) {
        unsigned char c = next_decoded(s, &i, !in_path);
        if (is_unreserved(c) || (in_path && c == '/')) {
            put_ch(w, (char)c);
        } else {
            put_ch(w, '%');
            put_ch(w, digits[c >> 4]);
            put_ch(w, digits[c & 15]);
        }
    }
}

static bool decodes_to(struct str raw, struct str plain, bool any_case)
{
    size_t at = 0;
    for (size_t i = 0; i < raw.n; at++) {
        unsigned char c = next_decoded(raw, &i, true);
        if (at == plain.n) return false;
        unsigned char want = (unsigned char)plain.p[at];
        if (c == want) continue;
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!any_case || !letter || (c | 0x20) != (want | 0x20)) return false;
    }
    return at == plain.n;
}

struct param {
    struct str name, value; /* canonical */
};

static int str_order(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static int param_order(const void *a, const void *b)
{
    const struct param *x = a, *y = b;
    int c = str_order(x->name, y->name);
    return c ? c : str_order(x->value, y->value);
}

static struct str put_param_part(struct writer *w, struct str raw)
{
    size_t at = w->n;
    put_reencoded(w, raw, false);
    return str_make(w->p + at, w->n - at);
}

/* Sorted by encoded name, then value; `skip` (of a presigned query: the signature itself) is left out. */
static enum err put_query(struct writer *w, struct str query, struct str skip, struct pool *pool)
{
    struct str rest = query, name, value;
    size_t most = 1, n = 0;
    struct writer text;

    if (query.n == 0) return ERR_OK;
    for (size_t i = 0; i < query.n; i++) most += query.p[i] == '&';
    struct param *params = pool_alloc(pool, most * sizeof *params);
    if (!params || !writer_init(&text, pool, query.n * 3)) return ERR_NOMEM;
    while (query_next(&rest, &name, &value)) {
        if (name.n == 0 && value.n == 0) continue;
        if (skip.n && decodes_to(name, skip, false)) continue;
        CHECK(n < most);
        params[n].name = put_param_part(&text, name);
        params[n].value = put_param_part(&text, value);
        n++;
    }
    qsort(params, n, sizeof *params, param_order);
    for (size_t i = 0; i < n; i++) {
        if (i) put_ch(w, '&');
        put(w, params[i].name);
        put_ch(w, '=');
        put(w, params[i].value);
    }
    return text.failed ? ERR_INTERNAL : ERR_OK;
}

static inline bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* Trimmed, runs of blanks folded to one space - inside quotes too: that is what the SDKs and S3 do, whatever older
 * documents say. */
static void put_folded(struct writer *w, struct str value)
{
    struct str s = str_trim(value);
    for (size_t i = 0; i < s.n; i++) {
        if (!is_blank(s.p[i]))
            put_ch(w, s.p[i]);
        else if (!is_blank(s.p[i - 1])) /* i > 0: trimmed */
            put_ch(w, ' ');
    }
}

/* A header field as it is signed: name in lower case. */
struct field {
    struct str name, value;
    size_t order; /* qsort is not stable; repeated fields keep their order */
};

static int field_order(const void *a, const void *b)
{
    const struct field *x = a, *y = b;
    int c = str_order(x->name, y->name);
    return c ? c : (x->order > y->order) - (x->order < y->order);
}

/* "name:v1,v2\n" for each run of fields of one name, and their names joined by ';'. */
static void put_fields(struct writer *w, struct writer *names, const struct field *f, size_t n)
{
    for (size_t i = 0; i < n;) {
        put(w, f[i].name);
        put_ch(w, ':');
        put_folded(w, f[i].value);
        if (i) put_ch(names, ';');
        put(names, f[i].name);
        size_t next = i + 1;
        for (; next < n && str_eq(f[next].name, f[i].name); next++) {
            put_ch(w, ',');
            put_folded(w, f[next].value);
        }
        put_ch(w, '\n');
        i = next;
    }
}

struct canon {
    struct str method, path, query, skip_param, payload_hash;
    const struct field *fields; /* sorted, or in the order a client listed */
    size_t nfields;
    struct str signed_names; /* result */
};

/* The canonical request's digest. */
static enum err canon_digest(struct canon *c, struct pool *pool, EVP_MD_CTX *ctx, unsigned char out[DIGEST_BYTES])
{
    struct writer w, names;
    size_t field_bytes = 0, name_bytes = 0;

    for (size_t i = 0; i < c->nfields; i++) {
        field_bytes += c->fields[i].name.n + c->fields[i].value.n + 2;
        name_bytes += c->fields[i].name.n + 1;
    }
    /* Query: each of at most n + 1 parameters may gain a '='. */
    size_t cap = c->method.n + c->path.n * 3 + c->query.n * 4 + field_bytes + name_bytes + c->payload_hash.n + 16;
    if (!writer_init(&w, pool, cap) || !writer_init(&names, pool, name_bytes + 1)) return ERR_NOMEM;
    put(&w, c->method);
    put_ch(&w, '\n');
    put_reencoded(&w, c->path, true);
    if (c->path.n == 0) put_ch(&w, '/');
    put_ch(&w, '\n');
    enum err e = put_query(&w, c->query, c->skip_param, pool);
    if (e) return e;
    put_ch(&w, '\n');
    put_fields(&w, &names, c->fields, c->nfields);
    put_ch(&w, '\n');
    c->signed_names = written(&names);
    put(&w, c->signed_names);
    put_ch(&w, '\n');
    put(&w, c->payload_hash);
    if (w.failed || names.failed) return ERR_INTERNAL;
    return sha256(ctx, w.p, w.n, out) ? ERR_OK : ERR_INTERNAL;
}

/* ---- keys and signatures */

static bool derive_key(EVP_MD_CTX *ctx, struct str secret, struct str day, struct str region,
                       unsigned char key[DIGEST_BYTES])
{
    char start[4 + 256] = "AWS4";
    if (secret.n > sizeof start - 4) return false;
    if (secret.n) memcpy(start + 4, secret.p, secret.n);
    bool ok = hmac(ctx, start, 4 + secret.n, day.p, day.n, key) &&
              hmac(ctx, key, DIGEST_BYTES, region.p, region.n, key) &&
              hmac(ctx, key, DIGEST_BYTES, SERVICE, sizeof SERVICE - 1, key) &&
              hmac(ctx, key, DIGEST_BYTES, TERMINATOR, sizeof TERMINATOR - 1, key);
    OPENSSL_cleanse(start, sizeof start);
    return ok;
}

static enum err signature(EVP_MD_CTX *ctx, const unsigned char key[DIGEST_BYTES], const char amz_date[AMZ_DATE_CHARS],
                          struct str region, const unsigned char canonical[DIGEST_BYTES], char hex[DIGEST_HEX])
{
    char text[320], canonical_hex[DIGEST_HEX];
    unsigned char mac[DIGEST_BYTES];
    struct writer w = {.p = text, .cap = sizeof text};

    hex_of(canonical, canonical_hex);
    put(&w, STR_LIT(ALGORITHM "\n"));
    put(&w, str_make(amz_date, AMZ_DATE_CHARS));
    put_ch(&w, '\n');
    put(&w, str_make(amz_date, DAY_CHARS));
    put_ch(&w, '/');
    put(&w, region);
    put(&w, STR_LIT("/" SERVICE "/" TERMINATOR "\n"));
    put(&w, str_make(canonical_hex, DIGEST_HEX));
    if (w.failed || !hmac(ctx, key, DIGEST_BYTES, w.p, w.n, mac)) return ERR_INTERNAL;
    hex_of(mac, hex);
    return ERR_OK;
}

static EVP_MD_CTX *crypto_begin(void)
{
    pthread_once(&sha256_once, sha256_fetch);
    return sha256_md ? EVP_MD_CTX_new() : NULL;
}

/* ---- signing */

static enum err key_refresh(struct sigv4_key *key, EVP_MD_CTX *ctx, const struct credentials *c, const char *amz_date,
                            struct str region)
{
    if (memcmp(key->date, amz_date, DAY_CHARS) == 0 && str_eq(str_c(key->region), region) &&
        strcmp(key->key_id, c->access_key) == 0 && strcmp(key->secret, c->secret_key) == 0)
        return ERR_OK;
    if (region.n > REGION_BYTES || region.n == 0 || memchr(region.p, '\0', region.n)) return ERR_CREDENTIALS;
    key->date[0] = '\0'; /* no match should the derivation fail half-way */
    if (!derive_key(ctx, str_c(c->secret_key), str_make(amz_date, DAY_CHARS), region, key->key)) return ERR_INTERNAL;
    memcpy(key->region, region.p, region.n);
    key->region[region.n] = '\0';
    memcpy(key->key_id, c->access_key, sizeof key->key_id);
    memcpy(key->secret, c->secret_key, sizeof key->secret);
    memcpy(key->date, amz_date, DAY_CHARS);
    key->date[DAY_CHARS] = '\0';
    return ERR_OK;
}

/* Fields that a hop between us and the origin may drop or rewrite, and those we add ourselves. */
static bool is_left_unsigned(const struct hdr *h)
{
    switch (h->id) {
    case HDR_HOST:
    case HDR_AUTHORIZATION:
    case HDR_AMZ_DATE:
    case HDR_AMZ_CONTENT_SHA256:
    case HDR_AMZ_SECURITY_TOKEN:
    case HDR_CONNECTION:
    case HDR_KEEP_ALIVE:
    case HDR_PROXY_CONNECTION:
    case HDR_PROXY_AUTHENTICATE:
    case HDR_PROXY_AUTHORIZATION:
    case HDR_TRANSFER_ENCODING:
    case HDR_TE:
    case HDR_TRAILER:
    case HDR_UPGRADE:
    case HDR_CONTENT_LENGTH:
    case HDR_EXPECT:
    case HDR_USER_AGENT:
    case HDR_ACCEPT_ENCODING:
    case HDR_VIA:
    case HDR_PRIORITY: return true;
    case HDR_OTHER:
        return str_eq_ci(h->name, STR_LIT("x-amzn-trace-id")) || str_eq_ci(h->name, STR_LIT("forwarded")) ||
               (h->name.n > 12 && str_eq_ci(str_make(h->name.p, 12), STR_LIT("x-forwarded-")));
    default: return false;
    }
}

static bool lower_name(const struct hdr *h, struct pool *pool, struct str *out)
{
    if (h->id != HDR_OTHER) {
        *out = hdr_name(h->id);
        return true;
    }
    *out = h->name;
    size_t i = 0;
    while (i < h->name.n && !(h->name.p[i] >= 'A' && h->name.p[i] <= 'Z')) i++;
    if (i == h->name.n) return true;
    char *p = pool_alloc(pool, h->name.n);
    if (!p) return false;
    for (i = 0; i < h->name.n; i++) {
        char c = h->name.p[i];
        p[i] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
    }
    *out = str_make(p, h->name.n);
    return true;
}

static void field_add(struct field *f, size_t *n, struct str name, struct str value)
{
    f[*n] = (struct field){name, value, *n};
    (*n)++;
}

static enum err fields_to_sign(const struct sigv4_request *r, const struct hdr *added, unsigned nadded,
                               struct pool *pool, struct canon *c)
{
    size_t n = 0;
    struct field *f = pool_alloc(pool, ((size_t)r->nhdrs + nadded + 1) * sizeof *f);
    if (!f) return ERR_NOMEM;
    field_add(f, &n, STR_LIT("host"), r->host);
    for (unsigned i = 0; i < nadded; i++) field_add(f, &n, added[i].name, added[i].value);
    for (unsigned i = 0; i < r->nhdrs; i++) {
        struct str name;
        if (is_left_unsigned(&r->hdrs[i])) continue;
        if (!lower_name(&r->hdrs[i], pool, &name)) return ERR_NOMEM;
        field_add(f, &n, name, r->hdrs[i].value);
    }
    qsort(f, n, sizeof *f, field_order);
    c->fields = f;
    c->nfields = n;
    return ERR_OK;
}

static enum err put_authorization(struct hdr *out, const struct sigv4_key *key, struct str names,
                                  const char hex[DIGEST_HEX], struct pool *pool)
{
    struct str key_id = str_c(key->key_id), region = str_c(key->region);
    struct writer w;
    if (!writer_init(&w, pool, key_id.n + region.n + names.n + 192)) return ERR_NOMEM;
    put(&w, STR_LIT(ALGORITHM " Credential="));
    put(&w, key_id);
    put_ch(&w, '/');
    put(&w, str_make(key->date, DAY_CHARS));
    put_ch(&w, '/');
    put(&w, region);
    put(&w, STR_LIT("/" SERVICE "/" TERMINATOR ", SignedHeaders="));
    put(&w, names);
    put(&w, STR_LIT(", Signature="));
    put(&w, str_make(hex, DIGEST_HEX));
    if (w.failed) return ERR_INTERNAL;
    *out = (struct hdr){STR_LIT("authorization"), written(&w), HDR_AUTHORIZATION};
    return ERR_OK;
}

enum err sigv4_sign(struct sigv4_key *key, const struct credentials *c, const struct sigv4_request *r,
                    struct pool *pool, struct hdr *out, unsigned *nout)
{
    char date[AMZ_DATE_CHARS + 1], hex[DIGEST_HEX];
    unsigned char digest[DIGEST_BYTES];
    unsigned n = 0;

    *nout = 0;
    if (c->anonymous) return ERR_OK;
    date_format_amz(r->now_s, date);
    struct str date_value = pool_str(pool, str_make(date, AMZ_DATE_CHARS));
    if (!date_value.p) return ERR_NOMEM;
    struct canon canon = {.method = r->method,
                          .path = r->path,
                          .query = r->query,
                          .payload_hash = r->payload_hash.n ? r->payload_hash : STR_LIT(SIGV4_EMPTY_SHA256)};
    out[n++] = (struct hdr){STR_LIT("x-amz-date"), date_value, HDR_AMZ_DATE};
    out[n++] = (struct hdr){STR_LIT("x-amz-content-sha256"), canon.payload_hash, HDR_AMZ_CONTENT_SHA256};
    if (c->session_token[0])
        out[n++] = (struct hdr){STR_LIT("x-amz-security-token"), str_c(c->session_token), HDR_AMZ_SECURITY_TOKEN};

    EVP_MD_CTX *ctx = crypto_begin();
    if (!ctx) return ERR_NOMEM;
    enum err e = fields_to_sign(r, out, n, pool, &canon);
    if (!e) e = canon_digest(&canon, pool, ctx, digest);
    if (!e) e = key_refresh(key, ctx, c, date, r->region);
    if (!e) e = signature(ctx, key->key, date, r->region, digest, hex);
    if (!e) e = put_authorization(&out[n++], key, canon.signed_names, hex, pool);
    EVP_MD_CTX_free(ctx);
    if (!e) *nout = n;
    return e;
}

/* ---- verifying: what a client claims */

struct claim {
    struct str access_key, day, region; /* from the credential scope */
    struct str signed_names, signature;
    struct str payload_hash;
    char amz_date[AMZ_DATE_CHARS + 1];
    int64_t time_s, expires_s; /* expires_s -1: signed header, not presigned */
};

/* AK/20130524/us-east-1/s3/aws4_request, split from the end: some servers hand out access keys with slashes. */
static enum err claim_credential(struct claim *c, struct str s)
{
    struct str part[4];
    for (int i = 3; i >= 0; i--) {
        size_t at = s.n;
        while (at > 0 && s.p[at - 1] != '/') at--;
        if (at == 0) return ERR_BAD_REQUEST;
        part[i] = str_make(s.p + at, s.n - at);
        s.n = at - 1;
    }
    if (s.n == 0 || part[0].n != DAY_CHARS || part[1].n == 0 || part[1].n > REGION_BYTES) return ERR_BAD_REQUEST;
    if (!str_eq(part[2], STR_LIT(SERVICE)) || !str_eq(part[3], STR_LIT(TERMINATOR))) return ERR_BAD_REQUEST;
    c->access_key = s;
    c->day = part[0];
    c->region = part[1];
    return ERR_OK;
}

static enum err claim_time(struct claim *c, int64_t t)
{
    if (t < 0) return ERR_BAD_REQUEST;
    c->time_s = t;
    date_format_amz(t, c->amz_date);
    return memcmp(c->amz_date, c->day.p, DAY_CHARS) == 0 ? ERR_OK : ERR_BAD_REQUEST;
}

static bool is_payload_hash(struct str s)
{
    if (s.n == DIGEST_HEX && is_lower_hex(s)) return true;
    return str_eq(s, STR_LIT(SIGV4_UNSIGNED)) || str_starts(s, STR_LIT("STREAMING-"));
}

/* Sets *out once: a second occurrence is refused, since readers differ on which one counts. */
static bool set_once(struct str *out, struct str value)
{
    if (out->p || value.n == 0) return false;
    *out = value;
    return true;
}

static enum err claim_authorization_fields(struct claim *c, struct str rest)
{
    struct str credential = {NULL, 0}, item;
    while (str_split(&rest, ',', &item)) {
        item = str_trim(item);
        size_t at = str_find(item, '=');
        if (at == item.n) return ERR_BAD_REQUEST;
        struct str name = str_make(item.p, at), value = str_make(item.p + at + 1, item.n - at - 1);
        struct str *to = str_eq(name, STR_LIT("Credential"))      ? &credential
                         : str_eq(name, STR_LIT("SignedHeaders")) ? &c->signed_names
                         : str_eq(name, STR_LIT("Signature"))     ? &c->signature
                                                                  : NULL;
        if (!to || !set_once(to, value)) return ERR_BAD_REQUEST;
    }
    if (!credential.p || !c->signed_names.p || !c->signature.p) return ERR_BAD_REQUEST;
    return claim_credential(c, credential);
}

static enum err claim_from_header(struct claim *c, const struct head *req, struct str authorization)
{
    struct str scheme = STR_LIT(ALGORITHM);
    if (!str_starts(authorization, scheme) || authorization.n == scheme.n || !is_blank(authorization.p[scheme.n]))
        return ERR_BAD_REQUEST;
    enum err e = claim_authorization_fields(c, str_make(authorization.p + scheme.n, authorization.n - scheme.n));
    if (e) return e;

    const struct hdr *date = head_find(req, HDR_AMZ_DATE);
    e = claim_time(c, date ? date_parse_amz(date->value) : date_parse(head_value(req, HDR_DATE)));
    if (e) return e;
    c->payload_hash = head_value(req, HDR_AMZ_CONTENT_SHA256);
    c->expires_s = -1;
    return is_payload_hash(c->payload_hash) ? ERR_OK : ERR_BAD_REQUEST;
}

/* The parameters of a presigned query, still encoded. */
struct presigned {
    struct str algorithm, credential, date, expires, signed_names, signature, payload_hash;
};

static bool presigned_collect(struct presigned *p, struct str query)
{
    const struct {
        struct str name;
        struct str *to;
    } known[] = {{STR_LIT("X-Amz-Algorithm"), &p->algorithm},
                 {STR_LIT("X-Amz-Credential"), &p->credential},
                 {STR_LIT("X-Amz-Date"), &p->date},
                 {STR_LIT("X-Amz-Expires"), &p->expires},
                 {STR_LIT("X-Amz-SignedHeaders"), &p->signed_names},
                 {STR_LIT("X-Amz-Signature"), &p->signature},
                 {STR_LIT("X-Amz-Content-Sha256"), &p->payload_hash}};
    struct str rest = query, name, value;
    while (query_next(&rest, &name, &value)) {
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (decodes_to(name, known[i].name, false) && !set_once(known[i].to, value)) return false;
    }
    return true;
}

static struct str decoded(struct pool *pool, struct str raw)
{
    char *p = pool_alloc(pool, raw.n + 1);
    size_t n = 0;
    if (!p) return (struct str){NULL, 0};
    for (size_t i = 0; i < raw.n;) p[n++] = (char)next_decoded(raw, &i, true);
    return str_make(p, n);
}

static enum err claim_from_query(struct claim *c, const struct head *req, const struct presigned *p, struct pool *pool)
{
    uint64_t expires;

    if (!decodes_to(p->algorithm, STR_LIT(ALGORITHM), false)) return ERR_BAD_REQUEST;
    if (!p->credential.p || !p->date.p || !p->expires.p || !p->signed_names.p || !p->signature.p)
        return ERR_BAD_REQUEST;
    struct str credential = decoded(pool, p->credential);
    c->signed_names = decoded(pool, p->signed_names);
    if (!credential.p || !c->signed_names.p) return ERR_NOMEM;
    c->signature = p->signature;
    enum err e = claim_credential(c, credential);
    if (e) return e;
    if (!str_to_u64(p->expires, &expires) || expires > EXPIRES_MAX_S) return ERR_BAD_REQUEST;
    c->expires_s = (int64_t)expires;
    e = claim_time(c, date_parse_amz(p->date));
    if (e) return e;
    const struct hdr *hash = head_find(req, HDR_AMZ_CONTENT_SHA256);
    c->payload_hash = p->payload_hash.p ? p->payload_hash : hash ? hash->value : STR_LIT(SIGV4_UNSIGNED);
    return is_payload_hash(c->payload_hash) ? ERR_OK : ERR_BAD_REQUEST;
}

static unsigned count_of(const struct head *req, enum hdr_id id)
{
    unsigned n = 0;
    for (unsigned i = 0; i < req->nhdrs; i++) n += req->hdrs[i].id == id;
    return n;
}

/* Reads the claim; `skip` becomes the parameter that is not part of what was signed. */
static enum err claim_read(struct claim *c, const struct head *req, struct str query, struct pool *pool,
                           struct str *skip)
{
    struct presigned p = {0};
    unsigned authorizations = count_of(req, HDR_AUTHORIZATION);

    /* These decide what was signed: which of several counted would be a guess. */
    if (authorizations > 1 || count_of(req, HDR_AMZ_DATE) > 1 || count_of(req, HDR_AMZ_CONTENT_SHA256) > 1)
        return ERR_BAD_REQUEST;
    if (!presigned_collect(&p, query)) return ERR_BAD_REQUEST;
    if (p.algorithm.p || p.signature.p) {
        *skip = STR_LIT("X-Amz-Signature");
        return authorizations ? ERR_BAD_REQUEST : claim_from_query(c, req, &p, pool);
    }
    *skip = str_make(NULL, 0);
    if (authorizations == 0) return ERR_ACCESS_DENIED;
    return claim_from_header(c, req, head_value(req, HDR_AUTHORIZATION));
}

static enum err claim_check_time(const struct claim *c, int64_t now_s)
{
    if (c->time_s > now_s + SKEW_S) return ERR_ACCESS_DENIED;
    int64_t valid_s = c->expires_s >= 0 ? c->expires_s : SKEW_S;
    return now_s > c->time_s + valid_s ? ERR_ACCESS_DENIED : ERR_OK;
}

/* ---- verifying: what was really sent */

static bool is_amz(struct str name) { return name.n > 6 && str_eq_ci(str_make(name.p, 6), STR_LIT("x-amz-")); }

static const struct field *field_find(const struct canon *c, struct str name)
{
    for (size_t i = 0; i < c->nfields; i++)
        if (str_eq_ci(c->fields[i].name, name)) return &c->fields[i];
    return NULL;
}

/* The fields a client listed, in its order. A name that was not sent, or is listed twice, cannot be part of a valid
 * signature; that bounds the work too. */
static enum err fields_to_verify(const struct claim *c, const struct head *req, struct str host, struct pool *pool,
                                 struct canon *canon)
{
    struct str rest = c->signed_names, name;
    size_t n = 0;
    /* Each field of the request matches one listed name at most; host comes from outside. */
    struct field *f = pool_alloc(pool, ((size_t)req->nhdrs + 1) * sizeof *f);

    if (!f) return ERR_NOMEM;
    canon->fields = f;
    for (; str_split(&rest, ';', &name); canon->nfields = n) {
        if (field_find(canon, name)) return ERR_SIGNATURE;
        if (str_eq_ci(name, STR_LIT("host"))) {
            field_add(f, &n, name, host);
            continue;
        }
        for (unsigned i = 0; i < req->nhdrs; i++)
            if (str_eq_ci(req->hdrs[i].name, name)) field_add(f, &n, name, req->hdrs[i].value);
        if (n == canon->nfields) return ERR_SIGNATURE;
    }
    return ERR_OK;
}

/* Fields with a meaning to S3 must not be slipped in beside the signature: host and every x-amz-* has to be signed. The
 * payload hash is exempt, since it is in the canonical request by itself. */
static enum err fields_cover(const struct canon *canon, const struct head *req)
{
    if (!field_find(canon, STR_LIT("host"))) return ERR_ACCESS_DENIED;
    for (unsigned i = 0; i < req->nhdrs; i++) {
        const struct hdr *h = &req->hdrs[i];
        if (h->id != HDR_AMZ_CONTENT_SHA256 && is_amz(h->name) && !field_find(canon, h->name)) return ERR_ACCESS_DENIED;
    }
    return ERR_OK;
}

enum err sigv4_verify(const struct head *req, struct str path, struct str query, struct str host, int64_t now_s,
                      sigv4_lookup_fn *lookup, void *arg, struct pool *pool)
{
    struct claim c = {0};
    struct str secret;
    char hex[DIGEST_HEX];
    unsigned char digest[DIGEST_BYTES], key[DIGEST_BYTES];
    struct canon canon = {.method = req->method_text, .path = path, .query = query};

    enum err e = claim_read(&c, req, query, pool, &canon.skip_param);
    if (e) return e;
    if (!lookup(arg, c.access_key, &secret)) return ERR_ACCESS_DENIED;
    e = claim_check_time(&c, now_s);
    if (!e) e = fields_to_verify(&c, req, host, pool, &canon);
    if (!e) e = fields_cover(&canon, req);
    if (e) return e;
    if (c.signature.n != DIGEST_HEX) return ERR_SIGNATURE;
    canon.payload_hash = c.payload_hash;

    EVP_MD_CTX *ctx = crypto_begin();
    if (!ctx) return ERR_NOMEM;
    e = canon_digest(&canon, pool, ctx, digest);
    if (!e && !derive_key(ctx, secret, c.day, c.region, key)) e = ERR_INTERNAL;
    if (!e) e = signature(ctx, key, c.amz_date, c.region, digest, hex);
    EVP_MD_CTX_free(ctx);
    OPENSSL_cleanse(key, sizeof key);
    if (!e && CRYPTO_memcmp(hex, c.signature.p, DIGEST_HEX) != 0) e = ERR_SIGNATURE;
    return e;
}

/* ---- logs */

static bool is_masked(struct str name)
{
    return decodes_to(name, STR_LIT("X-Amz-Signature"), true) ||
           decodes_to(name, STR_LIT("X-Amz-Security-Token"), true) ||
           decodes_to(name, STR_LIT("X-Amz-Credential"), true) ||
           decodes_to(name, STR_LIT("Signature"), true) || /* the older presigned form */
           decodes_to(name, STR_LIT("AWSAccessKeyId"), true);
}

struct str sigv4_mask_query(struct pool *pool, struct str query)
{
    struct str rest = query, item;
    struct writer w;
    bool found = false;

    if (query.n == 0) return query;
    /* "..." may be longer than the value it stands for: at most four bytes for each "&x" */
    if (!writer_init(&w, pool, query.n * 4 + 4)) return STR_LIT("...");
    for (bool first = true; str_split(&rest, '&', &item); first = false) {
        size_t at = str_find(item, '=');
        bool mask = is_masked(str_make(item.p, at));
        found |= mask;
        if (!first) put_ch(&w, '&');
        put(&w, mask ? str_make(item.p, at) : item);
        if (mask) put(&w, STR_LIT("=..."));
    }
    if (w.failed) return STR_LIT("...");
    return found ? written(&w) : query;
}
