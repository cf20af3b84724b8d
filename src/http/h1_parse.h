/* h1_parse.h - strict, incremental, zero-copy parser of HTTP/1.x heads and chunked bodies (RFC 9112).
 *
 * Rejected, because intermediaries that disagree on them can be smuggled through: bare CR or LF inside a head (a lone LF
 * as line end too), obs-fold, white space before the colon or in the start line beyond single spaces, control bytes in
 * values, repeated or conflicting or signed Content-Length, Transfer-Encoding together with Content-Length, in HTTP/1.0,
 * or whose final coding is not chunked (request) / unknown codings (501), missing or repeated or invalid Host in
 * HTTP/1.1, chunk sizes with anything but hex digits or that overflow, and chunk extensions beyond a bound.
 * Leading empty lines before a request (at most 4) are skipped. */
#ifndef S3P_HTTP_H1_PARSE_H
#define S3P_HTTP_H1_PARSE_H

#include "http/msg.h"

struct h1_limits {
    size_t head_bytes;   /* whole head */
    size_t target_bytes; /* request-target: beyond it ERR_URI_TOO_LONG */
    unsigned headers;    /* count */
};
/* `scanned` is the caller's per-head memory of how far it was looked (start with 0). ERR_AGAIN: incomplete;
 * ERR_OK: *used bytes make the head, slices point into buf; hdrs has room for limits->headers entries.
 * Errors: ERR_BAD_REQUEST, ERR_HEAD_TOO_LARGE, ERR_URI_TOO_LONG, ERR_VERSION, ERR_NOT_IMPLEMENTED. */
enum err h1_parse_request(const char *buf, size_t n, size_t *scanned, const struct h1_limits *limits, struct hdr *hdrs,
                          struct head *out, size_t *used);
/* For responses every defect is ERR_PROTOCOL. The caller knows the request's method and applies RFC 9112 6.3 (HEAD, 1xx,
 * 204, 304 have no body; neither length nor chunked: until close). */
enum err h1_parse_response(const char *buf, size_t n, size_t *scanned, const struct h1_limits *limits, struct hdr *hdrs,
                           struct head *out, size_t *used);

/* Chunked decoding without copying: tells what the next bytes are. */
struct h1_chunked {
    uint64_t left; /* data bytes left in the current chunk */
    unsigned state, line_bytes;
    uint64_t trailer_bytes;
};
void h1_chunked_init(struct h1_chunked *c);
/* Consumes framing at the start of buf. ERR_OK: c->left > 0 data bytes follow after *used framing bytes - the caller
 * takes min(left, available) itself and calls h1_chunked_took. ERR_AGAIN: *used consumed, more input needed. ERR_END:
 * last chunk and trailers consumed. ERR_BAD_CHUNK: malformed (trailers are bounded to 16 KiB and dropped). */
enum err h1_chunked_next(struct h1_chunked *c, const char *buf, size_t n, size_t *used);
void h1_chunked_took(struct h1_chunked *c, size_t n);

#endif
