/* address.c - bucket and key of a request, and where they go at the origin.
 *
 * Nothing is decoded or normalised: bucket and key are slices of what the client sent. What cannot be a bucket's host
 * name goes path-style, which every S3 understands for such buckets. */
#include "s3/address.h"

#define BUCKET_MIN 3
#define BUCKET_MAX 63

/* ---- client side */

/* The part of host in front of ".base", {NULL,0} if host does not end so. */
static struct str host_label(struct str host, struct str base)
{
    if (base.n == 0 || host.n < base.n + 2) return (struct str){NULL, 0};
    size_t at = host.n - base.n;
    if (host.p[at - 1] != '.' || !str_eq_ci(str_make(host.p + at, base.n), base)) return (struct str){NULL, 0};
    return str_make(host.p, at - 1);
}

/* The longest base domain wins: with "s3.local" and "eu.s3.local" the bucket of b.eu.s3.local is "b". */
static struct str virtual_bucket(struct str host, const char *const *base_domains, unsigned n)
{
    struct str best = {NULL, 0};
    if (host.n && host.p[host.n - 1] == '.') host.n--; /* the root's dot */
    for (unsigned i = 0; i < n; i++) {
        struct str label = host_label(host, str_c(base_domains[i]));
        if (label.n && (best.n == 0 || label.n < best.n)) best = label;
    }
    return best;
}

void address_from_request(struct str host, struct str raw_path, const char *const *base_domains, unsigned n,
                          struct s3_address *out)
{
    *out = (struct s3_address){{NULL, 0}, {NULL, 0}};
    if (raw_path.n == 0 || raw_path.p[0] != '/') return;
    struct str rest = str_make(raw_path.p + 1, raw_path.n - 1);

    out->bucket = virtual_bucket(host, base_domains, n);
    if (out->bucket.n) {
        out->key = rest;
        return;
    }
    if (rest.n == 0) return;
    size_t at = str_find(rest, '/');
    out->bucket = str_make(rest.p, at);
    /* "/bucket/" leaves an empty key that is not NULL, so that the slash can be sent on. */
    if (at < rest.n) out->key = str_make(rest.p + at + 1, rest.n - at - 1);
}

/* ---- origin side */

static bool is_label_char(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'; }

/* Can the bucket stand in front of a host name? With dots it would not match a TLS certificate's wildcard. */
static bool bucket_fits_host(struct str b, bool https)
{
    bool digits_and_dots = true;
    if (b.n < BUCKET_MIN || b.n > BUCKET_MAX) return false;
    for (size_t i = 0; i < b.n; i++) {
        char c = b.p[i];
        bool at_edge = i == 0 || i == b.n - 1 || b.p[i - 1] == '.' || b.p[i + 1] == '.';
        if (c == '.') {
            if (https || i == 0 || i == b.n - 1 || b.p[i - 1] == '.') return false;
            continue;
        }
        if (!is_label_char(c) || (c == '-' && at_edge)) return false;
        if (c < '0' || c > '9') digits_and_dots = false;
    }
    /* 10.0.0.1 in front of a name is no valid bucket; all digits without a dot is. */
    return !(digits_and_dots && str_find(b, '.') < b.n);
}

/* A name can have names below it, a literal address cannot. */
static bool is_ip_address(struct str host)
{
    if (str_find(host, ':') < host.n) return true;
    for (size_t i = 0; i < host.n; i++)
        if (host.p[i] != '.' && (host.p[i] < '0' || host.p[i] > '9')) return false;
    return true;
}

static struct str host_field(struct pool *pool, struct str bucket, struct str host, unsigned port, bool https)
{
    bool brackets = host.n && host.p[0] != '[' && str_find(host, ':') < host.n;
    unsigned usual = https ? 443 : 80;
    char port_text[16] = "";
    if (port && port != usual) {
        char digits[20];
        size_t n = u64_to_dec(port, digits);
        port_text[0] = ':';
        memcpy(port_text + 1, digits, n < sizeof port_text - 2 ? n : sizeof port_text - 2);
    }
    return pool_f(pool, STR_FMT "%s%s" STR_FMT "%s%s", STR_ARG(bucket), bucket.n ? "." : "", brackets ? "[" : "",
                  STR_ARG(host), brackets ? "]" : "", port_text);
}

enum err address_to_origin(const struct s3_address *a, bool virtual_hosted, struct str endpoint_host, unsigned port,
                           bool https, struct str prefix, struct pool *pool, struct str *host, struct str *path)
{
    struct str label = {NULL, 0};
    bool in_host = virtual_hosted && !is_ip_address(endpoint_host) && bucket_fits_host(a->bucket, https);

    if (a->bucket.n > INT32_MAX || a->key.n > INT32_MAX) return ERR_URI_TOO_LONG;
    if (in_host) label = a->bucket;
    *host = host_field(pool, label, endpoint_host, port, https);
    if (in_host || !a->bucket.p)
        *path = pool_f(pool, STR_FMT "/" STR_FMT, STR_ARG(prefix), STR_ARG(a->key));
    else
        *path = pool_f(pool, STR_FMT "/" STR_FMT "%s" STR_FMT, STR_ARG(prefix), STR_ARG(a->bucket), a->key.p ? "/" : "",
                       STR_ARG(a->key));
    return host->p && path->p ? ERR_OK : ERR_NOMEM;
}
