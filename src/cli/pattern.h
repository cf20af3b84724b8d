/* pattern.h - --pattern: a POSIX extended regular expression, searched for in an object's key (what follows s3://BUCKET/).
 * \d and \D are understood besides glibc's own \w \W \s \S \b; what only Perl's expressions know is refused, not misread. */
#ifndef S3P_CLI_PATTERN_H
#define S3P_CLI_PATTERN_H

#include "base/str.h"

#define PATTERN_HELP "Patterns are POSIX extended regular expressions (and \\d \\w \\s), searched for in the key; ^ and $ bind them.\n"

struct pattern;
/* False: msg says what is wrong with it. */
bool pattern_open(const char *text, struct pattern **out, char *msg, size_t n);
bool pattern_matches(const struct pattern *p, struct str key); /* NULL matches everything */
void pattern_close(struct pattern *p);                         /* NULL is fine */

#endif
