/* conf.c - loading a configuration: the bytes, the tree, the structs, the checks; then reference counting.
 *
 * Until it is returned a configuration belongs to the loading thread; afterwards nothing in it changes but the count. */
#include "conf/conf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/check.h"
#include "conf/rules.h"
#include "conf/decode.h"
#include "conf/print.h"

#define POOL_MAX_BYTES ((size_t)64 << 20)

/* The value of a top-level directive as text, made at load so that conf_get can lend it out. */
struct conf_text {
    const char *path; /* the row's name */
    char *text;       /* NULL: unset */
};

/* ---- end */

static void conf_free(struct conf *c)
{
    for (unsigned i = 0; i < c->ntexts; i++) free(c->texts[i].text);
    free(c->texts);
    free(c->file);
    scope_clear(&conf_scope, c);
    free(c);
}

struct conf *conf_ref(struct conf *c)
{
    unsigned before = atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    CHECK(before > 0);
    return c;
}

void conf_unref(struct conf *c)
{
    if (!c) return;
    unsigned before = atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel);
    CHECK(before > 0);
    if (before == 1) conf_free(c);
}

/* ---- conf_get */

static enum err make_texts(struct conf *c)
{
    c->texts = calloc(conf_scope.nrows, sizeof *c->texts);
    if (!c->texts) return ERR_NOMEM;
    for (size_t i = 0; i < conf_scope.nrows; i++) {
        const struct directive *row = &conf_scope.rows[i];
        struct strbuf b;
        if (row->shape != ROW_ONE) continue;
        strbuf_init(&b, 0);
        struct conf_text *t = &c->texts[c->ntexts++];
        t->path = row->name;
        bool set = print_value(c, row, c, &b);
        strbuf_ch(&b, '\0');
        if (b.failed || !set)
            strbuf_free(&b);
        else
            t->text = b.p;
        if (set && !t->text) return ERR_NOMEM;
    }
    return ERR_OK;
}

const char *conf_get(const struct conf *c, const char *dotted_path)
{
    for (unsigned i = 0; i < c->ntexts; i++)
        if (strcmp(c->texts[i].path, dotted_path) == 0) return c->texts[i].text;
    return NULL;
}

/* ---- loading */

static enum err conf_create(const char *name, struct conf **out)
{
    struct conf *c = calloc(1, sizeof *c);
    if (!c) return ERR_NOMEM;
    atomic_init(&c->refs, 1);
    c->file = str_dup(str_c(name));
    *out = c;
    return c->file ? scope_init(&conf_scope, c, c) : ERR_NOMEM;
}

static enum err read_tree(struct str text, struct conf *c, struct pool *pool, struct report *report)
{
    struct decoder d = {.conf = c, .report = report, .pool = pool};
    struct yaml_node *root;

    enum err e = yaml_parse(text, pool, report, &root);
    if (e) return e;
    if (!root) {
        report_add(report, 1, 1, "empty, expected a map with at least servers");
        return ERR_CONFIG;
    }
    if ((e = decode(&d, root))) return e;
    rules_check(&d);
    return report->found ? ERR_CONFIG : make_texts(c);
}

enum err conf_parse(const char *name, const char *text, size_t n, FILE *errors, struct conf **out)
{
    struct report *report = malloc(sizeof *report);
    struct pool *pool = pool_create(POOL_MAX_BYTES);
    struct conf *c = NULL;
    enum err e = ERR_NOMEM;

    *out = NULL;
    if (report && pool) {
        report_init(report, name);
        e = conf_create(name, &c);
        if (!e) e = read_tree(str_make(text, n), c, pool, report);
        if (e == ERR_CONFIG) report_print(report, errors);
    }
    if (e == ERR_NOMEM) fprintf(errors, "%s: out of memory\n", name);
    if (e) {
        if (c) conf_free(c);
    } else {
        *out = c;
    }
    pool_destroy(pool);
    free(report);
    return e;
}

/* All of a file, but not more than can be a configuration. */
static enum err read_all(int fd, struct strbuf *b)
{
    char block[8192];
    for (;;) {
        ssize_t got = read(fd, block, sizeof block);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return ERR_IO;
        if (got == 0) return ERR_OK;
        strbuf_add(b, block, (size_t)got);
        if (b->n > YAML_MAX_BYTES) return ERR_OK; /* the parser says what is wrong with it */
        if (b->failed) return ERR_NOMEM;
    }
}

enum err conf_load(const char *path, FILE *errors, struct conf **out)
{
    bool is_stdin = strcmp(path, "-") == 0;
    struct strbuf b;

    *out = NULL;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        fprintf(errors, "%s: cannot be opened: %s\n", path, strerror(errno));
        return ERR_CONFIG;
    }
    strbuf_init(&b, YAML_MAX_BYTES + 65536);
    enum err e = read_all(fd, &b);
    if (e == ERR_IO)
        fprintf(errors, "%s: cannot be read: %s\n", path, strerror(errno));
    else if (e)
        fprintf(errors, "%s: out of memory\n", path);
    else
        e = conf_parse(is_stdin ? "stdin" : path, b.p, b.n, errors, out);
    if (!is_stdin) close(fd);
    strbuf_free(&b);
    return e == ERR_IO ? ERR_CONFIG : e;
}
