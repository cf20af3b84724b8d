/* yaml.c - libyaml's events into a tree.
 *
 * Recursion follows the nesting of the file and is bounded by YAML_MAX_DEPTH. An error of syntax ends the reading, for
 * what follows cannot be understood; the refused constructs do not. Every event is deleted where it was taken. */
#include "conf/yaml.h"

#include <yaml.h>

#include "base/check.h"

struct reader {
    yaml_parser_t parser;
    struct str text;
    struct pool *pool;
    struct report *report;
    unsigned nodes;
};

const char *node_kind_text(const struct yaml_node *n)
{
    static const char *const names[] = {"a single value", "a map", "a list", "nothing usable"};
    return names[n->kind];
}

bool node_is_null(const struct yaml_node *n)
{
    if (n->kind != NODE_SCALAR || !n->plain) return false;
    return n->text.n == 0 || str_eq(n->text, STR_LIT("~")) || str_eq_ci(n->text, STR_LIT("null"));
}

static unsigned mark_line(yaml_mark_t m) { return (unsigned)m.line + 1; }

static unsigned mark_column(yaml_mark_t m) { return (unsigned)m.column + 1; }

static void report_mark(struct reader *y, yaml_mark_t m, const char *what)
{
    report_add(y->report, mark_line(m), mark_column(m), "%s", what);
}

/* ---- errors of syntax */

/* libyaml gives the bytes it cannot read by their offset alone. */
static void report_bytes(struct reader *y)
{
    size_t at = y->parser.problem_offset < y->text.n ? y->parser.problem_offset : y->text.n;
    unsigned line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        bool more = ((unsigned char)y->text.p[i] & 0xc0) == 0x80;
        if (y->text.p[i] == '\n') {
            line++;
            column = 1;
        } else if (!more) {
            column++;
        }
    }
    report_add(y->report, line, column, "not readable: %s, expected UTF-8 text", y->parser.problem);
}

/* In { } and [ ] an unquoted ${VAR} reads as the begin of another map: the most likely mistake deserves its own hint. */
static bool line_has_bare_variable(struct reader *y, size_t line)
{
    struct str rest = y->text, l;
    for (size_t i = 0; str_split(&rest, '\n', &l); i++) {
        if (i < line) continue;
        for (size_t at = 0; at + 1 < l.n; at++)
            if (l.p[at] == '$' && l.p[at + 1] == '{') return true;
        return false;
    }
    return false;
}

static void report_syntax(struct reader *y)
{
    yaml_parser_t *p = &y->parser;
    bool context = p->context && p->context_mark.line < p->problem_mark.line;
    char where[160] = "";

    if (context)
        snprintf(where, sizeof where, " %s that begins in line %u", p->context, mark_line(p->context_mark));
    else if (p->context)
        snprintf(where, sizeof where, " %s", p->context);
    report_add(y->report, mark_line(p->problem_mark), mark_column(p->problem_mark), "not valid YAML: %s%s%s",
               p->problem ? p->problem : "unreadable", where,
               line_has_bare_variable(y, p->problem_mark.line) ? "; inside { } and [ ] write \"${VAR}\" in quotes"
                                                               : "");
}

static enum err next_event(struct reader *y, yaml_event_t *ev)
{
    if (yaml_parser_parse(&y->parser, ev)) return ERR_OK;
    if (y->parser.error == YAML_MEMORY_ERROR) return ERR_NOMEM;
    if (y->parser.error == YAML_READER_ERROR)
        report_bytes(y);
    else
        report_syntax(y);
    return ERR_CONFIG;
}

/* ---- nodes */

static enum err node_create(struct reader *y, enum node_kind kind, yaml_mark_t m, struct yaml_node **out)
{
    if (y->nodes++ == YAML_MAX_NODES) {
        report_mark(y, m, "too many values, expected at most 50000 in a file");
        return ERR_CONFIG;
    }
    struct yaml_node *n = pool_zalloc(y->pool, sizeof *n);
    if (!n) return ERR_NOMEM;
    n->kind = kind;
    n->line = mark_line(m);
    n->column = mark_column(m);
    *out = n;
    return ERR_OK;
}

/* Anchors and tags go with any node; the value itself is still worth checking. */
static void refuse_properties(struct reader *y, yaml_mark_t m, const yaml_char_t *anchor, const yaml_char_t *tag)
{
    if (anchor) report_mark(y, m, "anchors (&name) are not supported, expected the value to be written out");
    if (tag) report_mark(y, m, "tags (!name) are not supported, expected a plain value");
}

static enum err read_node(struct reader *y, const yaml_event_t *ev, unsigned depth, struct yaml_node **out);

static enum err read_scalar(struct reader *y, const yaml_event_t *ev, struct yaml_node **out)
{
    refuse_properties(y, ev->start_mark, ev->data.scalar.anchor, ev->data.scalar.tag);
    enum err e = node_create(y, NODE_SCALAR, ev->start_mark, out);
    if (e) return e;
    (*out)->plain = ev->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    (*out)->text = pool_str(y->pool, str_make((const char *)ev->data.scalar.value, ev->data.scalar.length));
    return (*out)->text.p ? ERR_OK : ERR_NOMEM;
}

static void node_append(struct yaml_node *parent, struct yaml_node ***tail, struct yaml_node *child)
{
    **tail = child;
    *tail = &child->next;
    parent->count++;
}

static enum err read_list(struct reader *y, const yaml_event_t *start, unsigned depth, struct yaml_node **out)
{
    refuse_properties(y, start->start_mark, start->data.sequence_start.anchor, start->data.sequence_start.tag);
    enum err e = node_create(y, NODE_LIST, start->start_mark, out);
    if (e) return e;
    struct yaml_node **tail = &(*out)->first;
    for (;;) {
        yaml_event_t ev;
        struct yaml_node *child = NULL;
        if ((e = next_event(y, &ev))) return e;
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        if (!end) e = read_node(y, &ev, depth + 1, &child);
        yaml_event_delete(&ev);
        if (end || e) return e;
        node_append(*out, &tail, child);
    }
}

static bool key_usable(struct reader *y, const struct yaml_node *key)
{
    if (key->kind == NODE_BROKEN) return false;
    if (key->kind != NODE_SCALAR) {
        report_add(y->report, key->line, key->column, "%s as a key, expected a name", node_kind_text(key));
        return false;
    }
    if (key->plain && str_eq(key->text, STR_LIT("<<"))) {
        report_add(y->report, key->line, key->column,
                   "merge keys (<<) are not supported, expected the values to be written out");
        return false;
    }
    return true;
}

static enum err read_map(struct reader *y, const yaml_event_t *start, unsigned depth, struct yaml_node **out)
{
    refuse_properties(y, start->start_mark, start->data.mapping_start.anchor, start->data.mapping_start.tag);
    enum err e = node_create(y, NODE_MAP, start->start_mark, out);
    if (e) return e;
    struct yaml_node **tail = &(*out)->first;
    for (;;) {
        yaml_event_t ev;
        struct yaml_node *key = NULL, *child = NULL;

        if ((e = next_event(y, &ev))) return e;
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        if (!end) e = read_node(y, &ev, depth + 1, &key);
        yaml_event_delete(&ev);
        if (end || e) return e;

        if ((e = next_event(y, &ev))) return e;
        e = read_node(y, &ev, depth + 1, &child);
        yaml_event_delete(&ev);
        if (e) return e;
        if (!key_usable(y, key)) continue;
        child->key = key;
        node_append(*out, &tail, child);
    }
}

static enum err read_node(struct reader *y, const yaml_event_t *ev, unsigned depth, struct yaml_node **out)
{
    if (depth >= YAML_MAX_DEPTH) {
        report_mark(y, ev->start_mark, "nested too deeply, expected at most 16 levels");
        return ERR_CONFIG;
    }
    switch (ev->type) {
    case YAML_SCALAR_EVENT: return read_scalar(y, ev, out);
    case YAML_SEQUENCE_START_EVENT: return read_list(y, ev, depth, out);
    case YAML_MAPPING_START_EVENT: return read_map(y, ev, depth, out);
    case YAML_ALIAS_EVENT:
        report_mark(y, ev->start_mark,
                    "aliases (*name) are not supported, expected the value to be written out "
                    "(in quotes where it begins with a star)");
        return node_create(y, NODE_BROKEN, ev->start_mark, out);
    default: return ERR_INTERNAL; /* the event grammar of libyaml has no other here */
    }
}

/* ---- the document */

static enum err read_document(struct reader *y, struct yaml_node **root)
{
    for (;;) {
        yaml_event_t ev;
        enum err e = next_event(y, &ev);
        if (e) return e;
        bool end = ev.type == YAML_STREAM_END_EVENT;
        if (ev.type == YAML_DOCUMENT_START_EVENT) {
            if (*root) {
                report_mark(y, ev.start_mark, "a second document (---), expected one document in a file");
                e = ERR_CONFIG;
            } else if (ev.data.document_start.tag_directives.start != ev.data.document_start.tag_directives.end) {
                report_mark(y, ev.start_mark, "tag directives (%TAG) are not supported, expected none");
            }
        } else if (!end && ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_END_EVENT) {
            e = read_node(y, &ev, 0, root);
        }
        yaml_event_delete(&ev);
        if (end || e) return e;
    }
}

enum err yaml_parse(struct str text, struct pool *pool, struct report *report, struct yaml_node **root)
{
    *root = NULL;
    if (text.n > YAML_MAX_BYTES) {
        report_add(report, 0, 0, "the file is too large, expected at most 1MiB");
        return ERR_CONFIG;
    }
    if (str_starts(text, STR_LIT("\xef\xbb\xbf"))) text = str_make(text.p + 3, text.n - 3); /* byte order mark */
    struct reader y = {.text = text, .pool = pool, .report = report};
    if (!yaml_parser_initialize(&y.parser)) return ERR_NOMEM;
    /* Said outright, so that a file is not taken for UTF-16 by its first bytes. */
    yaml_parser_set_encoding(&y.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
    enum err e = read_document(&y, root);
    yaml_parser_delete(&y.parser);
    /* A document that is just an empty line with "---" is no content either. */
    if (!e && *root && node_is_null(*root)) *root = NULL;
    return e;
}
