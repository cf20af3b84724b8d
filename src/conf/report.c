/* report.c - the errors of one configuration file. */
#include "conf/report.h"

#include <stdarg.h>
#include <stdlib.h>

#include "base/check.h"

void report_init(struct report *r, const char *name)
{
    r->name = name;
    r->found = 0;
    r->n = 0;
}

void report_add(struct report *r, unsigned line, unsigned column, const char *fmt, ...)
{
    va_list ap;

    r->found++;
    if (r->n == REPORT_LINES) return;
    struct report_line *l = &r->lines[r->n];
    l->line = line;
    l->column = column;
    l->order = r->n++;
    va_start(ap, fmt);
    vsnprintf(l->text, sizeof l->text, fmt, ap);
    va_end(ap);
}

static int line_compare(const void *pa, const void *pb)
{
    const struct report_line *a = pa, *b = pb;
    if (a->line != b->line) return a->line < b->line ? -1 : 1;
    if (a->column != b->column) return a->column < b->column ? -1 : 1;
    return a->order < b->order ? -1 : a->order > b->order;
}

void report_print(struct report *r, FILE *out)
{
    qsort(r->lines, r->n, sizeof r->lines[0], line_compare);
    for (unsigned i = 0; i < r->n; i++) {
        const struct report_line *l = &r->lines[i];
        if (l->line)
            fprintf(out, "%s:%u:%u: %s\n", r->name, l->line, l->column, l->text);
        else
            fprintf(out, "%s: %s\n", r->name, l->text);
    }
}

char *report_show(struct str s, char *buf, size_t n)
{
    CHECK(n > 4);
    size_t keep = s.n < n ? s.n : n - 4;
    for (size_t i = 0; i < keep; i++) buf[i] = s.p[i] >= 0x20 && s.p[i] < 0x7f ? s.p[i] : '?';
    memcpy(buf + keep, s.n < n ? "" : "...", s.n < n ? 1 : 4);
    return buf;
}
