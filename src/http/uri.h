/* uri.h - request targets (RFC 9112 section 3.2) and percent-encoding. Paths are never normalised. */
#ifndef S3P_HTTP_URI_H
#define S3P_HTTP_URI_H

#include "base/pool.h"

struct target {
    struct str authority; /* absolute-form: host[:port]; else {NULL,0} */
    struct str path;      /* raw, starts with '/' ("*" for OPTIONS *) */
    struct str query;     /* raw, without '?'; {NULL,0} when there is no '?' */
};
/* origin-form, absolute-form (http/https), "*"; rejects fragments, spaces, control and non-ASCII bytes: ERR_BAD_URI. */
enum err target_parse(struct str raw, struct target *out);
/* A valid Host / authority: host[:port]. Splits it; port 0 when absent. */
bool authority_parse(struct str s, struct str *host, unsigned *port);
/* Decoded bytes (may hold any byte incl. NUL); '+' stays '+'. {NULL,0} with p NULL when malformed or out of memory. */
struct str uri_decode(struct pool *p, struct str s);
/* RFC 3986 unreserved kept, all else %XX upper case; slashes kept when keep_slash. */
struct str uri_encode(struct pool *p, struct str s, bool keep_slash);
/* Endpoint URL "http(s)://host[:port][/prefix]". */
struct endpoint {
    bool https;
    char host[256];
    unsigned port;
    char prefix[256]; /* without trailing slash */
};
enum err endpoint_parse(struct str url, struct endpoint *out); /* ERR_CONFIG */
/* Next "name=value" of a raw query (value {NULL,0} without '='); false at the end. */
bool query_next(struct str *rest, struct str *name, struct str *value);

#endif
