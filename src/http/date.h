/* date.h - HTTP dates (RFC 9110 5.6.7) and the other time texts S3 uses. UTC, thread-safe. */
#ifndef S3P_HTTP_DATE_H
#define S3P_HTTP_DATE_H

#include "base/str.h"

/* IMF-fixdate, RFC 850 and asctime forms; -1 when it is none of them. Seconds since the epoch. */
int64_t date_parse(struct str s);
void date_format(int64_t t, char buf[30]);         /* "Sun, 06 Nov 1994 08:49:37 GMT", NUL-terminated */
void date_format_amz(int64_t t, char buf[17]);     /* "19941106T084937Z" */
int64_t date_parse_amz(struct str s);              /* the same back; -1 */
void date_format_iso_ms(int64_t ms, char buf[25]); /* "1994-11-06T08:49:37.123Z" */

#endif
