/* report.h - collects what is wrong with a configuration file, so that one run shows all of it in the file's order.
 * Bounded: the first REPORT_LINES errors found are kept, further ones only counted. */
#ifndef S3P_CONF_REPORT_H
#define S3P_CONF_REPORT_H

#include <stdio.h>

#include "base/str.h"

enum { REPORT_LINES = 20, REPORT_TEXT_BYTES = 512 };

struct report_line {
    unsigned line, column; /* from 1; line 0: the file as a whole */
    unsigned order;        /* in which it was found; ties are printed so */
    char text[REPORT_TEXT_BYTES];
};
struct report {
    const char *name; /* of the file, borrowed */
    unsigned found;   /* all errors, kept or not */
    unsigned n;
    struct report_line lines[REPORT_LINES];
};

void report_init(struct report *r, const char *name);
void report_add(struct report *r, unsigned line, unsigned column, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Sorts, then writes `file:line:column: text` lines. */
void report_print(struct report *r, FILE *out);
/* Text of a file for a message: short, on one line, harmless to a terminal. Returns buf. */
char *report_show(struct str s, char *buf, size_t n);

#endif
