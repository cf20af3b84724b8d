/* range.h - Range and Content-Range (RFC 9110 section 14), as S3 answers them. */
#ifndef S3P_HTTP_RANGE_H
#define S3P_HTTP_RANGE_H

#include "base/str.h"

enum range_kind {
    RANGE_NONE,   /* no Range, another unit, malformed, or several ranges: S3 answers 200 with the whole object */
    RANGE_SPAN,   /* first-last, both given */
    RANGE_FROM,   /* first- */
    RANGE_SUFFIX  /* -n */
};
struct range {
    enum range_kind kind;
    uint64_t first, last; /* SUFFIX: last = n */
};
struct range range_parse(struct str value);
/* Against an object of `size` bytes: ERR_OK with [*first, *last] inclusive, or ERR_RANGE (416: first past the end, empty
 * object, suffix of 0). RANGE_NONE gives the whole object; for size 0 ERR_OK with *first = 0, *last = UINT64_MAX
 * never - callers treat size 0 with RANGE_NONE before. */
enum err range_resolve(const struct range *r, uint64_t size, uint64_t *first, uint64_t *last);
/* "bytes 0-9/100", with an unknown size (size = UINT64_MAX) or with an asterisk for the range (unsatisfied = true). */
struct content_range {
    uint64_t first, last, size;
    bool unsatisfied;
};
enum err content_range_parse(struct str value, struct content_range *out); /* ERR_PROTOCOL */

#endif
