/* print.h - the tables as text; the functions themselves are declared in conf.h (conf_print_help, conf_print_reference,
 * conf_dump). Here: one value as text, for conf_get. */
#ifndef S3P_CONF_PRINT_H
#define S3P_CONF_PRINT_H

#include "conf/directive.h"

/* The row's value in a struct, unquoted; secrets masked. False when it has none (or is not a single value). */
bool print_value(const struct conf *c, const struct directive *row, const void *item, struct strbuf *out);

#endif
