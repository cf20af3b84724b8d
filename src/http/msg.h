/* msg.h - heads of HTTP messages as slices of the bytes they came in (RFC 9110). Owns nothing. */
#ifndef S3P_HTTP_MSG_H
#define S3P_HTTP_MSG_H

#include "base/str.h"

#define METHOD_TABLE(X) X(GET) X(HEAD) X(PUT) X(POST) X(DELETE) X(OPTIONS) X(PATCH) X(TRACE) X(CONNECT)
enum method {
    METHOD_OTHER,
#define X(m) METHOD_##m,
    METHOD_TABLE(X)
#undef X
};
enum method method_of(struct str text); /* case-sensitive */

/* Header fields that this program looks at. X(id, lower-case name) */
#define HDR_TABLE(X)                                                                                      \
    X(HOST, "host") X(CONNECTION, "connection") X(KEEP_ALIVE, "keep-alive")                               \
    X(PROXY_CONNECTION, "proxy-connection") X(TRANSFER_ENCODING, "transfer-encoding") X(TE, "te")         \
    X(TRAILER, "trailer") X(UPGRADE, "upgrade") X(CONTENT_LENGTH, "content-length") X(EXPECT, "expect")   \
    X(RANGE, "range") X(IF_RANGE, "if-range") X(IF_MATCH, "if-match") X(IF_NONE_MATCH, "if-none-match")   \
    X(IF_MODIFIED_SINCE, "if-modified-since") X(IF_UNMODIFIED_SINCE, "if-unmodified-since")               \
    X(AUTHORIZATION, "authorization") X(CACHE_CONTROL, "cache-control") X(PRAGMA, "pragma")               \
    X(CONTENT_RANGE, "content-range") X(CONTENT_TYPE, "content-type") X(CONTENT_ENCODING, "content-encoding") \
    X(ETAG, "etag") X(LAST_MODIFIED, "last-modified") X(DATE, "date") X(EXPIRES, "expires") X(AGE, "age") \
    X(VARY, "vary") X(ACCEPT_RANGES, "accept-ranges") X(SERVER, "server") X(VIA, "via")                   \
    X(RETRY_AFTER, "retry-after") X(SET_COOKIE, "set-cookie") X(LOCATION, "location")                     \
    X(USER_AGENT, "user-agent") X(REFERER, "referer") X(ACCEPT_ENCODING, "accept-encoding")               \
    X(PROXY_AUTHENTICATE, "proxy-authenticate") X(PROXY_AUTHORIZATION, "proxy-authorization")             \
    X(CACHE_STATUS, "cache-status") X(X_CACHE, "x-cache") X(CONTENT_MD5, "content-md5")                   \
    X(AMZ_DATE, "x-amz-date") X(AMZ_CONTENT_SHA256, "x-amz-content-sha256")                               \
    X(AMZ_SECURITY_TOKEN, "x-amz-security-token") X(AMZ_REQUEST_ID, "x-amz-request-id")                   \
    X(AMZ_ID_2, "x-amz-id-2") X(AMZ_DECODED_LENGTH, "x-amz-decoded-content-length")                       \
    X(AMZ_TRAILER, "x-amz-trailer") X(AMZ_CHECKSUM_MODE, "x-amz-checksum-mode")                           \
    X(AMZ_COPY_SOURCE, "x-amz-copy-source") X(AMZ_MP_PARTS_COUNT, "x-amz-mp-parts-count")                 \
    X(HTTP2_SETTINGS, "http2-settings") X(PRIORITY, "priority") X(S3DLIO_CACHE, "s3dlio-cache")
enum hdr_id {
    HDR_OTHER,
#define X(id, name) HDR_##id,
    HDR_TABLE(X)
#undef X
    HDR_COUNT
};
enum hdr_id hdr_id_of(struct str name); /* case-insensitive; O(1) */
struct str hdr_name(enum hdr_id id);    /* lower case */

struct hdr {
    struct str name, value; /* value trimmed of OWS */
    enum hdr_id id;
};

struct head {
    /* request */
    enum method method;
    struct str method_text, target; /* target as sent, raw */
    /* response */
    unsigned status;
    struct str reason;
    /* both */
    unsigned minor; /* HTTP/1.minor; 1 for HTTP/2 */
    struct hdr *hdrs;
    unsigned nhdrs;
    /* framing, worked out by the parser (RFC 9112 section 6) */
    int64_t content_length; /* -1: none given */
    bool chunked;           /* Transfer-Encoding: chunked is the final coding */
    bool keep_alive;        /* the connection may be used again */
    bool expect_continue;
};
/* First field with that id, or NULL. */
const struct hdr *head_find(const struct head *h, enum hdr_id id);
const struct hdr *head_find_name(const struct head *h, struct str lower_name);
/* Value of the first such field, {NULL,0} if absent. */
struct str head_value(const struct head *h, enum hdr_id id);
/* Iterates over the members of a comma-separated field, quoted strings respected; false at the end. */
bool hdr_list_next(struct str *rest, struct str *member);
/* True when any field `id` lists `token` (case-insensitive). */
bool head_has_token(const struct head *h, enum hdr_id id, struct str token);
/* Hop-by-hop (RFC 9110 section 7.6.1): the fixed ones, or named in a Connection field of h. */
bool hdr_is_hop_by_hop(const struct head *h, const struct hdr *f);
const char *status_reason(unsigned status);

#endif
