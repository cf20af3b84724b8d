/* print.c - help, reference and dump: three walks over the same tables. */
#include "conf/print.h"

#include <stdlib.h>

#include "base/check.h"

#define DUMP_MAX_BYTES ((size_t)64 << 20)

/* ---- help and reference */

struct columns {
    char name[96], type[48], preset[64], bounds[160];
};
typedef void row_fn(void *arg, const struct scope *s, const struct directive *row, const char *path);
typedef void scope_fn(void *arg, const struct scope *s, const char *path);

/* How a child's place is written: "caches.NAME", "servers[].routes[]". */
static void child_path(const struct directive *row, const char *path, char *buf, size_t n)
{
    const char *which = row->shape == ROW_NAMED ? ".NAME" : row->shape == ROW_ITEMS ? "[]" : "";
    snprintf(buf, n, "%s%s%s%s", path, *path ? "." : "", row->name, which);
}

/* Every row of a scope, then those of its children. */
static void walk(const struct scope *s, const char *path, scope_fn *on_scope, row_fn *on_row, void *arg)
{
    char at[96];
    if (on_scope) on_scope(arg, s, path);
    for (size_t i = 0; i < s->nrows; i++) on_row(arg, s, &s->rows[i], path);
    for (size_t i = 0; i < s->nrows; i++) {
        if (!s->rows[i].child) continue;
        child_path(&s->rows[i], path, at, sizeof at);
        walk(s->rows[i].child, at, on_scope, on_row, arg);
    }
}

static void columns_of(const struct directive *row, const char *path, struct columns *c)
{
    snprintf(c->name, sizeof c->name, "%s%s%s", path, *path ? "." : "", row->name);
    row_type(row, c->type, sizeof c->type);
    row_bounds(row, c->bounds, sizeof c->bounds);
    if (row->preset)
        snprintf(c->preset, sizeof c->preset, "%s", row->preset);
    else if (row->required)
        snprintf(c->preset, sizeof c->preset, "required");
    else
        snprintf(c->preset, sizeof c->preset, "%s", row->preset_note ? row->preset_note : "-");
}

/* " (s3, http only; not yet: auto)", or nothing. */
static void print_remarks(FILE *out, const struct scope *s, const struct directive *row)
{
    char kinds[48];
    bool later = row->later && strcmp(row->later, "*") != 0;
    row_kinds(s, row, kinds, sizeof kinds);
    if (*kinds || later)
        fprintf(out, " (%s%s%s%s%s)", *kinds ? "only " : "", kinds, *kinds && later ? "; " : "",
                later ? "not yet: " : "", later ? row->later : "");
}

struct widths {
    int name, type, preset, bounds;
};

static void widen(int *width, const char *text)
{
    int n = (int)strlen(text);
    if (n > *width) *width = n;
}

static void measure_row(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    struct widths *w = arg;
    struct columns c;
    (void)s;
    columns_of(row, path, &c);
    widen(&w->name, c.name);
    widen(&w->type, c.type);
    widen(&w->preset, c.preset);
    widen(&w->bounds, c.bounds);
}

struct help {
    FILE *out;
    struct widths w;
};

static void help_row(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    struct help *h = arg;
    struct columns c;
    columns_of(row, path, &c);
    fprintf(h->out, "%-*s  %-*s  %-*s  %-*s  %s", h->w.name, c.name, h->w.type, c.type, h->w.preset, c.preset,
            h->w.bounds, c.bounds, row->help);
    print_remarks(h->out, s, row);
    fputc('\n', h->out);
}

void conf_print_help(FILE *out)
{
    struct help h = {.out = out, .w = {.name = 9, .type = 4, .preset = 7, .bounds = 8}};
    walk(&conf_scope, "", NULL, measure_row, &h.w);
    fprintf(out, "%-*s  %-*s  %-*s  %-*s  %s\n", h.w.name, "DIRECTIVE", h.w.type, "TYPE", h.w.preset, "DEFAULT",
            h.w.bounds, "EXPECTED", "WHAT IT IS FOR");
    walk(&conf_scope, "", NULL, help_row, &h);
}

/* A cell of a table must not end it. */
static void cell(FILE *out, const char *text, bool code)
{
    if (!*text) code = false;
    if (code) fputc('`', out);
    for (; *text; text++) {
        if (*text == '|') fputc('\\', out);
        fputc(*text, out);
    }
    if (code) fputc('`', out);
    fputs(" | ", out);
}

static void reference_scope(void *arg, const struct scope *s, const char *path)
{
    FILE *out = arg;
    (void)s;
    fprintf(out, *path ? "\n## `%s`\n\n" : "\n## Top level%s\n\n", path);
    fputs("| directive | type | default | expected | what it is for |\n|---|---|---|---|---|\n", out);
}

static void reference_row(void *arg, const struct scope *s, const struct directive *row, const char *path)
{
    FILE *out = arg;
    struct columns c;
    (void)path;
    columns_of(row, "", &c);
    fputs("| ", out);
    cell(out, c.name, true);
    cell(out, c.type, false);
    cell(out, c.preset, row->preset != NULL);
    cell(out, c.bounds, false);
    fputs(row->help, out);
    print_remarks(out, s, row);
    fputs(" |\n", out);
}

void conf_print_reference(FILE *out)
{
    fputs("# Configuration reference\n\n"
          "Made by `s3dlio-proxy --help-config=markdown` from the tables the proxy reads its configuration with.\n\n"
          "The file is YAML. A name with a dot is written as a map: `log.level` is `log: {level: ...}`. Unknown\n"
          "keys, wrong types, duplicates and values out of bounds are errors. Sizes are written `512KiB` or `4GiB`,\n"
          "durations `250ms`, `15s` or `1h`. In values, `${VAR}` and `${VAR:-default}` stand for variables of the\n"
          "environment and `$$` for one dollar sign; inside `{ }` and `[ ]` such a value needs quotes.\n",
          out);
    walk(&conf_scope, "", reference_scope, reference_row, out);
}

/* ---- dump */

struct dumper {
    const struct conf *conf;
    struct strbuf out;
    bool dash; /* the next line begins an item of a list */
};

bool print_value(const struct conf *c, const struct directive *row, const void *item, struct strbuf *out)
{
    struct strbuf unused;
    if (row->shape != ROW_ONE) return false;
    if (!row->type->secret) return row->type->format(c, row, row_field_const(row, item), out);
    strbuf_init(&unused, 0);
    bool set = row->type->format(c, row, row_field_const(row, item), &unused);
    strbuf_free(&unused);
    if (set) strbuf_z(out, VALUE_MASK);
    return set;
}

static bool plain_char(char c, bool first)
{
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '_') return true;
    return !first && (c == '-' || c == '.');
}

static bool plain_safe(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!plain_char(s.p[i], i == 0)) return false;
    return s.n && !str_eq_ci(s, STR_LIT("null"));
}

/* Words that are texts here, but truth values to many another reader of YAML. */
static bool looks_like_bool(struct str s) { return words_find("on off yes no true false", s) >= 0; }

/* One character of valid UTF-8, written as YAML's \U: some of them would be line breaks to a reader. */
static size_t dump_wide(struct strbuf *out, struct str s)
{
    unsigned char c = (unsigned char)s.p[0];
    size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    uint32_t point = c & (0x7fu >> n);
    for (size_t i = 1; i < n && i < s.n; i++) point = point << 6 | ((unsigned char)s.p[i] & 0x3fu);
    strbuf_f(out, "\\U%08X", point);
    return n;
}

/* So that reading it again gives the same text: quoted where YAML would see more in it, `$` doubled. */
static void dump_text(struct strbuf *out, struct str s, const struct value_type *type)
{
    if (plain_safe(s) && (type == &value_bool || !looks_like_bool(s))) {
        strbuf_str(out, s);
        return;
    }
    strbuf_ch(out, '"');
    for (size_t i = 0; i < s.n;) {
        if ((unsigned char)s.p[i] >= 0x80) {
            i += dump_wide(out, str_make(s.p + i, s.n - i));
            continue;
        }
        if (s.p[i] == '"' || s.p[i] == '\\') strbuf_ch(out, '\\');
        if (s.p[i] == '$') strbuf_ch(out, '$');
        strbuf_ch(out, s.p[i++]);
    }
    strbuf_ch(out, '"');
}

static void dump_indent(struct dumper *d, unsigned indent)
{
    CHECK(indent >= (d->dash ? 2u : 0u));
    for (unsigned i = 0; i < indent - (d->dash ? 2u : 0u); i++) strbuf_ch(&d->out, ' ');
    if (d->dash) strbuf_z(&d->out, "- ");
    d->dash = false;
}

static void dump_scope(struct dumper *d, const struct scope *s, const void *item, unsigned indent);

/* "[a, b]"; nothing for an empty one. */
static void dump_list(struct dumper *d, const struct directive *row, const void *array, unsigned count)
{
    strbuf_z(&d->out, " [");
    for (unsigned i = 0; i < count; i++) {
        struct strbuf text;
        strbuf_init(&text, 0);
        if (i) strbuf_z(&d->out, ", ");
        row->type->format(d->conf, row, (const char *)array + i * row->type->size, &text);
        dump_text(&d->out, strbuf_get(&text), row->type);
        d->out.failed |= text.failed;
        strbuf_free(&text);
    }
    strbuf_z(&d->out, "]\n");
}

static void dump_items(struct dumper *d, const struct directive *row, const void *array, unsigned count,
                       unsigned indent)
{
    strbuf_ch(&d->out, '\n');
    if (row->shape == ROW_CHILD) {
        dump_scope(d, row->child, array, indent + 2);
        return;
    }
    for (unsigned i = 0; i < count; i++) {
        const void *item = (const char *)array + i * row->child->size;
        if (row->shape == ROW_NAMED) {
            const char *name;
            memcpy(&name, item, sizeof name);
            dump_indent(d, indent + 2);
            dump_text(&d->out, str_c(name), &value_name);
            strbuf_z(&d->out, ":\n");
        } else {
            d->dash = true;
        }
        dump_scope(d, row->child, item, indent + 4);
    }
}

/* The line "key:" of a row, with that of its group before it when it is the group's first. */
static void dump_key(struct dumper *d, const struct directive *row, struct str *group, unsigned *indent)
{
    struct str of = row_group(row);
    if (of.p && !str_eq(of, *group)) {
        dump_indent(d, *indent);
        strbuf_str(&d->out, of);
        strbuf_z(&d->out, ":\n");
    }
    *group = of;
    if (of.p) *indent += 2;
    dump_indent(d, *indent);
    strbuf_str(&d->out, row_key(row));
    strbuf_ch(&d->out, ':');
}

static void dump_row(struct dumper *d, const struct directive *row, const void *item, struct str *group,
                     unsigned indent)
{
    struct strbuf text;
    void *array;
    unsigned count;

    if (row->shape != ROW_ONE) {
        row_array(row, item, &array, &count);
        if (!count) return;
        dump_key(d, row, group, &indent);
        if (row->shape == ROW_LIST)
            dump_list(d, row, array, count);
        else
            dump_items(d, row, array, count, indent);
        return;
    }
    strbuf_init(&text, 0);
    if (print_value(d->conf, row, item, &text)) {
        dump_key(d, row, group, &indent);
        strbuf_ch(&d->out, ' ');
        dump_text(&d->out, strbuf_get(&text), row->type);
        strbuf_ch(&d->out, '\n');
    }
    d->out.failed |= text.failed;
    strbuf_free(&text);
}

static void dump_scope(struct dumper *d, const struct scope *s, const void *item, unsigned indent)
{
    struct str group = {NULL, 0};
    for (size_t i = 0; i < s->nrows; i++)
        if (row_applies(s, &s->rows[i], item)) dump_row(d, &s->rows[i], item, &group, indent);
}

char *conf_dump(const struct conf *c)
{
    struct dumper d = {.conf = c};
    strbuf_init(&d.out, DUMP_MAX_BYTES);
    dump_scope(&d, &conf_scope, c, 0);
    strbuf_ch(&d.out, '\0');
    if (!d.out.failed) return d.out.p;
    strbuf_free(&d.out);
    return NULL;
}
