/* conf_support.h - for the tests of the configuration: the code itself, with allocations that can be made to fail, and
 * loading from text with the errors at hand. Included once by each test program. */
#ifndef S3P_TESTS_CONF_SUPPORT_H
#define S3P_TESTS_CONF_SUPPORT_H

#include "base/pool.h"
#include "conf/conf.h"

#include <stdlib.h>

/* Allocation number oom_at fails, all before and after succeed; 0: none does. */
static unsigned long oom_at, oom_count;
static inline bool oom(void) { return oom_at && ++oom_count == oom_at; }
#define malloc(n) (oom() ? NULL : malloc(n))
#define calloc(n, s) (oom() ? NULL : calloc(n, s))
#define str_dup(s) (oom() ? NULL : str_dup(s))
#define pool_create(n) (oom() ? NULL : pool_create(n))
#define pool_zalloc(p, n) (oom() ? NULL : pool_zalloc(p, n))
#define pool_str(p, s) (oom() ? str_make(NULL, 0) : pool_str(p, s))
#define pool_f(...) (oom() ? str_make(NULL, 0) : pool_f(__VA_ARGS__))
#define strbuf_str(b, s) (oom() ? (void)((b)->failed = true) : strbuf_str(b, s))
#define strbuf_z(b, s) (oom() ? (void)((b)->failed = true) : strbuf_z(b, s))
#define strbuf_ch(b, c) (oom() ? (void)((b)->failed = true) : strbuf_ch(b, c))

#include "../../src/conf/conf.c"
#include "../../src/conf/cpus.c"
#include "../../src/conf/decode.c"
#include "../../src/conf/directive.c"
#include "../../src/conf/expand.c"
#include "../../src/conf/print.c"
#include "../../src/conf/report.c"
#include "../../src/conf/rules.c"
#include "../../src/conf/value.c"
#include "../../src/conf/yaml.c"
#undef malloc
#undef calloc
#undef str_dup
#undef strbuf_str
#undef strbuf_z
#undef strbuf_ch
#undef pool_create

#include <setjmp.h>
#include <sys/stat.h>

#include <cmocka.h>

#define NAME "t.yaml"
#define ORIGIN "origins: {o: {type: file, root: /r}}\n"
#define SERVER "servers: [{listen: [\"127.0.0.1:1\"], routes: [{path: /, origin: o}]}]\n"
#define MINIMAL ORIGIN SERVER

static struct conf *conf; /* of the last load */
static char *errors;      /* what it wrote */
static inline enum err load_n(const char *text, size_t n)
{
    size_t size;
    free(errors);
    FILE *f = open_memstream(&errors, &size);
    assert_non_null(f);
    enum err e = conf_parse(NAME, text, n, f, &conf);
    fclose(f);
    return e;
}

static inline enum err load(const char *text) { return load_n(text, strlen(text)); }

static inline void load_good(const char *text)
{
    if (load(text) != ERR_OK) fail_msg("refused: %s\n%s", errors, text);
    assert_non_null(conf);
    assert_string_equal(errors, "");
}

static inline void drop(void)
{
    conf_unref(conf);
    conf = NULL;
}

static inline void accept_it(const char *text)
{
    load_good(text);
    drop();
}

static inline unsigned error_lines(void)
{
    unsigned n = 0;
    for (const char *p = errors; *p; p++) n += *p == '\n';
    return n;
}

/* Refused with exactly this line. */
static inline void refuse_with(const char *text, const char *line)
{
    char expected[700];
    if (load(text) == ERR_OK) fail_msg("accepted:\n%s", text);
    assert_null(conf);
    snprintf(expected, sizeof expected, NAME ":%s\n", line);
    assert_string_equal(errors, expected);
}

/* Refused; a line of this begin that has `part` in it is among the errors. */
static inline void refuse_at(const char *text, unsigned line, unsigned column, const char *part)
{
    char start[64];
    if (load(text) != ERR_CONFIG) fail_msg("accepted:\n%s", text);
    assert_null(conf);
    snprintf(start, sizeof start, NAME ":%u:%u: ", line, column);
    for (const char *p = errors; *p; p = strchr(p, '\n') + 1) {
        const char *at = strstr(p, part);
        if (strncmp(p, start, strlen(start)) == 0 && at && at < strchr(p, '\n')) return;
    }
    fail_msg("no '%s...%s' in:\n%s\nof:\n%s", start, part, errors, text);
}

#endif
