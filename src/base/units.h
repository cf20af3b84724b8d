/* units.h - sizes ("512KiB", "4GiB", "10MB", "1000") and durations ("250ms", "15s", "1h30m", "1d"). */
#ifndef S3P_BASE_UNITS_H
#define S3P_BASE_UNITS_H

#include "base/str.h"

/* ERR_CONFIG when it is not a size or overflows. Decimals with binary or decimal units: B K KB KiB M MB MiB G GB GiB T
 * TB TiB (K, M, G, T alone are binary). Fractions ("1.5GiB") are allowed when the result is whole bytes. */
enum err units_parse_size(struct str s, uint64_t *bytes);
/* ns us ms s m h d, several terms allowed in falling order. A bare number is an error except "0". */
enum err units_parse_duration(struct str s, uint64_t *ms);
/* Shortest exact text, e.g. 8MiB, 1536KiB, 1001B; buf of at least 32 bytes; returns buf. */
char *units_format_size(uint64_t bytes, char *buf, size_t n);
char *units_format_duration(uint64_t ms, char *buf, size_t n);

#endif
