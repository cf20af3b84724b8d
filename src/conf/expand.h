/* expand.h - variables of the environment in the values of a configuration file. */
#ifndef S3P_CONF_EXPAND_H
#define S3P_CONF_EXPAND_H

#include "base/str.h"

enum { EXPAND_MAX_BYTES = 64 * 1024 };

/* ${NAME} is the variable's value, ${NAME:-text} gives text where it is unset or empty, $$ is one $. Values are not
 * expanded again. ERR_CONFIG with the reason in `why` (never a variable's value): unset without a default, malformed, too
 * long. ERR_NOMEM. `out` is an initialised buffer with a bound of EXPAND_MAX_BYTES. */
enum err expand_variables(struct str text, struct strbuf *out, char *why, size_t n);

#endif
