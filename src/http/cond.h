/* cond.h - preconditions (RFC 9110 section 13): the five conditional fields, their precedence, If-Range. */
#ifndef S3P_HTTP_COND_H
#define S3P_HTTP_COND_H

#include "http/msg.h"

enum cond_result { COND_PASS, COND_NOT_MODIFIED /* 304 */, COND_FAILED /* 412 */ };
/* etag {NULL,0} and last_modified_s -1 when the representation has none. GET and HEAD semantics. */
enum cond_result cond_check(const struct head *req, struct str etag, int64_t last_modified_s);
bool cond_any(const struct head *req); /* any of If-Match, -None-Match, -Modified-Since, -Unmodified-Since */
/* If-Range: true when the Range is to be honoured (field absent, strong tag match, or exact strong date match as RFC 9110
 * 13.1.5 - S3 treats a date mismatch as whole object). */
bool cond_if_range(const struct head *req, struct str etag, int64_t last_modified_s);
bool etag_strong_eq(struct str a, struct str b);
bool etag_weak_eq(struct str a, struct str b);
bool etag_is_strong(struct str e); /* a well-formed, not weak entity tag */

#endif
