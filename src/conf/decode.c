/* decode.c - the tree into the structs.
 *
 * Each map is read in two steps: first every key of the file finds its row (or is unknown, or given twice), then the rows
 * are read in the table's order. A value that is wrong is reported and the default stays, so that one mistake does not
 * show up as several. All arrays are made in their full size before anything is read into them: addresses of items are
 * stable and name them for the checks. */
#include "conf/decode.h"

#include <stdlib.h>

#include "base/check.h"
#include "conf/expand.h"

#define SHOW_BYTES 64
#define KEYS_MAX 2048 /* of a map: looking for keys given twice compares each with each */

/* ---- reporting */

static void error_at(struct decoder *d, struct decoded *r, const struct yaml_node *n, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void error_at(struct decoder *d, struct decoded *r, const struct yaml_node *n, const char *fmt, ...)
{
    char text[REPORT_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r) r->failed = true;
    report_add(d->report, n->line, n->column, "%s", text);
}

/* "caches.main.memory" in the pool; "" when memory is short (nomem is noted). */
static const char *path_join(struct decoder *d, const char *path, const char *name)
{
    struct str s = pool_f(d->pool, *path ? "%s.%s" : "%s%s", path, name);
    if (!s.p) d->nomem = true;
    return s.p ? s.p : "";
}

/* ---- did you mean */

static unsigned least(unsigned a, unsigned b) { return a < b ? a : b; }

/* Changed, added, left out letters between two short names (Levenshtein). */
static unsigned edit_distance(struct str a, struct str b)
{
    unsigned row[SHOW_BYTES + 1];
    if (a.n > SHOW_BYTES || b.n > SHOW_BYTES) return UINT32_MAX;
    for (unsigned j = 0; j <= b.n; j++) row[j] = j;
    for (unsigned i = 1; i <= a.n; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.n; j++) {
            unsigned changed = diagonal + (a.p[i - 1] != b.p[j - 1]);
            diagonal = row[j];
            row[j] = least(changed, least(row[j], row[j - 1]) + 1);
        }
    }
    return row[b.n];
}

/* What may stand in a map as a key: a row's key in its group, or at the scope's own level the groups and rows. Each once. */
static struct str key_at(const struct scope *s, struct str group, size_t i)
{
    struct str of = row_group(&s->rows[i]);
    if (group.p) return str_eq(of, group) ? row_key(&s->rows[i]) : str_make(NULL, 0);
    if (!of.p) return row_key(&s->rows[i]);
    bool first = i == 0 || !str_eq(row_group(&s->rows[i - 1]), of);
    return first ? of : str_make(NULL, 0);
}

static void unknown_key(struct decoder *d, struct decoded *r, struct str group, const struct yaml_node *key)
{
    char shown[SHOW_BYTES], place[128] = "";
    struct str best = {NULL, 0}, name;
    unsigned distance = least(3, (unsigned)key->text.n / 2 + 1);
    struct strbuf all;

    if (d->report->n == REPORT_LINES) { /* nobody would read the suggestion */
        error_at(d, r, key, "unknown key");
        return;
    }
    strbuf_init(&all, 360);
    for (size_t i = 0; i < r->scope->nrows; i++) {
        if (!(name = key_at(r->scope, group, i)).p) continue;
        strbuf_f(&all, all.n ? ", " STR_FMT : STR_FMT, STR_ARG(name));
        unsigned at = edit_distance(key->text, name);
        if (at >= distance) continue;
        distance = at;
        best = name;
    }
    if (*r->path || group.n)
        snprintf(place, sizeof place, " in %s%s" STR_FMT, r->path, *r->path && group.n ? "." : "", STR_ARG(group));
    report_show(key->text, shown, sizeof shown);
    if (best.p)
        error_at(d, r, key, "unknown key '%s'%s; did you mean '" STR_FMT "'?", shown, place, STR_ARG(best));
    else
        error_at(d, r, key, "unknown key '%s'%s, expected one of " STR_FMT, shown, place, STR_ARG(strbuf_get(&all)));
    strbuf_free(&all);
}

/* ---- scalars */

/* How many bytes follow the first one of a character; 9: none can begin so. */
static unsigned utf8_more(unsigned char c)
{
    if (c < 0x80) return 0;
    if (c >= 0xc2 && c < 0xe0) return 1;
    if (c >= 0xe0 && c < 0xf0) return 2;
    return c >= 0xf0 && c < 0xf5 ? 3 : 9;
}

/* Text that a later dump, log line or header could not carry. */
static bool text_valid(struct str s)
{
    for (size_t i = 0; i < s.n;) {
        unsigned char c = (unsigned char)s.p[i++];
        if (c < 0x20 || c == 0x7f) return false;
        unsigned more = utf8_more(c);
        if (more > s.n - i) return false;
        uint32_t point = more ? c & (0x3fu >> more) : c;
        for (unsigned k = 0; k < more; k++) {
            unsigned char m = (unsigned char)s.p[i++];
            if ((m & 0xc0) != 0x80) return false;
            point = point << 6 | (m & 0x3fu);
        }
        bool overlong = (more == 2 && point < 0x800) || (more == 3 && point < 0x10000);
        if (overlong || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return false;
    }
    return true;
}

/* A value the row says is for later: in its list of words, or ("*") anything not understood. */
static bool is_later(const struct directive *row, struct str text, enum err parsed)
{
    if (!row->later) return false;
    if (strcmp(row->later, "*") == 0) return parsed == ERR_CONFIG;
    return words_find(row->later, text) >= 0;
}

static const char *expected_of(const struct directive *row, char *buf, size_t n)
{
    if (!row->words && !row->type->number) return row->type->expects;
    char bounds[160];
    row_bounds(row, bounds, sizeof bounds);
    if (row->words)
        snprintf(buf, n, "%s", bounds);
    else
        snprintf(buf, n, "%s, within %s", row->type->expects, bounds);
    return buf;
}

static void value_refused(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                          const char *path, struct str text, const char *why)
{
    char shown[SHOW_BYTES], expected[256];
    if (*why)
        error_at(d, r, n, "%s: %s", path, why);
    else if (row->type->secret)
        error_at(d, r, n, "%s: not a value that can be used, expected %s", path, row->type->expects);
    else
        error_at(d, r, n, "%s: '%s' is not valid, expected %s", path, report_show(text, shown, sizeof shown),
                 expected_of(row, expected, sizeof expected));
}

/* The expanded text of a scalar; false when it was reported. `text` is NUL-terminated and lives in `b`. */
static bool scalar_text(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                        const char *path, struct strbuf *b, struct str *text)
{
    char why[256] = "", expected[256];
    const char *wanted = expected_of(row, expected, sizeof expected);

    if (n->kind == NODE_BROKEN) {
        r->failed = true;
        return false;
    }
    if (n->kind != NODE_SCALAR) {
        error_at(d, r, n, "%s: %s, expected %s", path, node_kind_text(n), wanted);
        return false;
    }
    if (node_is_null(n)) {
        error_at(d, r, n, "%s: no value, expected %s", path, wanted);
        return false;
    }
    enum err e = expand_variables(n->text, b, why, sizeof why);
    *text = strbuf_get(b);
    strbuf_ch(b, '\0');
    text->p = b->p;
    if (e == ERR_NOMEM || (!e && b->failed)) {
        d->nomem = true;
        return false;
    }
    if (e)
        error_at(d, r, n, "%s: %s", path, why);
    else if (text->n == 0)
        error_at(d, r, n, "%s: empty, expected %s", path, wanted);
    else if (!text_valid(*text))
        error_at(d, r, n, "%s: control characters or bytes that are not UTF-8, expected %s", path, wanted);
    else
        return true;
    return false;
}

static void decode_scalar(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                          const char *path, void *field)
{
    char why[384] = "", shown[SHOW_BYTES], expected[256];
    struct strbuf b;
    struct str text;

    if (row->type->later) {
        error_at(d, r, n, "%s: not supported yet, expected it to be left out", path);
        return;
    }
    strbuf_init(&b, EXPAND_MAX_BYTES + 1);
    if (scalar_text(d, r, row, n, path, &b, &text)) {
        enum err e = row->type->parse(d->conf, row, text, field, why, sizeof why);
        if (is_later(row, text, e))
            error_at(d, r, n, "%s: '%s' is not supported yet, expected %s", path,
                     report_show(text, shown, sizeof shown), expected_of(row, expected, sizeof expected));
        else if (e == ERR_NOMEM)
            d->nomem = true;
        else if (e)
            value_refused(d, r, row, n, path, text, why);
    }
    strbuf_free(&b);
}

/* ---- lists and items */

static void decode_item(struct decoder *d, const struct scope *s, const struct yaml_node *n, const char *path,
                        void *item);

/* Room for what the node holds, zeroed, set in the struct; NULL when there is nothing to read (reported). */
static void *array_create(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                          const char *path, enum node_kind kind, size_t size)
{
    void *array;
    if (n->kind != kind) {
        bool map = kind == NODE_MAP;
        if (n->kind == NODE_BROKEN)
            r->failed = true;
        else
            error_at(d, r, n, "%s: %s, expected %s", path, node_is_null(n) ? "no value" : node_kind_text(n),
                     map ? "a map of names" : "a list");
        return NULL;
    }
    if (n->count < row->min || n->count > row->max) {
        error_at(d, r, n, "%s: %u entries, expected %u to %u", path, n->count, (unsigned)row->min, (unsigned)row->max);
        return NULL;
    }
    if (n->count == 0) return NULL;
    array = calloc(n->count, size);
    if (!array) {
        d->nomem = true;
        return NULL;
    }
    row_array_set(row, (void *)(uintptr_t)r->item, array, n->count);
    return array;
}

static void decode_list(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                        const char *path)
{
    char *array = array_create(d, r, row, n, path, NODE_LIST, row->type->size);
    if (!array) return;
    for (const struct yaml_node *child = n->first; child; child = child->next, array += row->type->size)
        decode_scalar(d, r, row, child, path, array);
}

static void decode_items(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                         const char *path)
{
    unsigned i = 0;
    char *array = array_create(d, r, row, n, path, NODE_LIST, row->child->size);
    if (!array) return;
    for (const struct yaml_node *child = n->first; child; child = child->next, i++) {
        struct str at = pool_f(d->pool, "%s[%u]", path, i);
        if (!at.p) d->nomem = true;
        if (d->nomem) return;
        decode_item(d, row->child, child, at.p, array + i * row->child->size);
    }
}

static void decode_named(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                         const char *path)
{
    char shown[SHOW_BYTES];
    char *array = array_create(d, r, row, n, path, NODE_MAP, row->child->size);
    if (!array) return;
    for (const struct yaml_node *child = n->first; child && !d->nomem; child = child->next, array += row->child->size) {
        struct str name = child->key->text;
        for (const struct yaml_node *other = n->first; other != child; other = other->next) {
            if (!str_eq(other->key->text, name)) continue;
            error_at(d, r, child->key, "duplicate name '%s' in %s, expected it once (first in line %u)",
                     report_show(name, shown, sizeof shown), path, other->key->line);
            break;
        }
        if (!name_valid(name)) {
            error_at(d, r, child->key, "'%s' cannot be a name in %s, expected %s",
                     report_show(name, shown, sizeof shown), path, value_name.expects);
            name = STR_LIT("_"); /* the rest of it is still worth reading */
        }
        char *owned = str_dup(name);
        if (!owned) d->nomem = true;
        memcpy(array, &owned, sizeof owned);
        if (owned) decode_item(d, row->child, child, path_join(d, path, owned), array);
    }
}

static void decode_child(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n,
                         const char *path)
{
    if (n->kind == NODE_BROKEN) {
        r->failed = true;
        return;
    }
    if (n->kind != NODE_MAP) {
        error_at(d, r, n, "%s: %s, expected a map", path, node_is_null(n) ? "no value" : node_kind_text(n));
        return;
    }
    void *child = calloc(1, row->child->size);
    if (!child) {
        d->nomem = true;
        return;
    }
    row_array_set(row, (void *)(uintptr_t)r->item, child, 1);
    decode_item(d, row->child, n, path, child);
}

static void decode_row(struct decoder *d, struct decoded *r, const struct directive *row, const struct yaml_node *n)
{
    const char *path = path_join(d, r->path, row->name);
    void *item = (void *)(uintptr_t)r->item;
    if (d->nomem) return;
    switch (row->shape) {
    case ROW_ONE: decode_scalar(d, r, row, n, path, row_field(row, item)); break;
    case ROW_LIST: decode_list(d, r, row, n, path); break;
    case ROW_ITEMS: decode_items(d, r, row, n, path); break;
    case ROW_NAMED: decode_named(d, r, row, n, path); break;
    case ROW_CHILD: decode_child(d, r, row, n, path); break;
    }
}

/* ---- maps */

static size_t row_find(const struct scope *s, struct str group, struct str key)
{
    size_t i = 0;
    while (i < s->nrows && !(str_eq(row_group(&s->rows[i]), group) && str_eq(row_key(&s->rows[i]), key))) i++;
    return i;
}

static bool is_group(const struct scope *s, struct str key)
{
    for (size_t i = 0; i < s->nrows; i++)
        if (key.n && str_eq(row_group(&s->rows[i]), key)) return true;
    return false;
}

/* The same key before it in the same map. */
static const struct yaml_node *key_before(const struct yaml_node *map, const struct yaml_node *n)
{
    for (const struct yaml_node *at = map->first; at != n; at = at->next)
        if (str_eq(at->key->text, n->key->text)) return at->key;
    return NULL;
}

static void collect_keys(struct decoder *d, struct decoded *r, struct str group, const struct yaml_node *map)
{
    char shown[SHOW_BYTES];
    if (map->count > KEYS_MAX) {
        error_at(d, r, map, "too many keys, expected at most %d in a map", KEYS_MAX);
        return;
    }
    for (const struct yaml_node *n = map->first; n; n = n->next) {
        struct str key = n->key->text;
        size_t i = row_find(r->scope, group, key);
        const struct yaml_node *before = key_before(map, n);
        if (before) {
            error_at(d, r, n->key, "duplicate key '%s', expected it once (first in line %u)",
                     report_show(key, shown, sizeof shown), before->line);
        } else if (i < r->scope->nrows) {
            r->given[i] = n;
        } else if (group.p || !is_group(r->scope, key)) {
            unknown_key(d, r, group, n->key);
        } else if (n->kind == NODE_MAP) {
            collect_keys(d, r, key, n);
        } else if (n->kind == NODE_BROKEN) {
            r->failed = true;
        } else {
            error_at(d, r, n, "%s%s" STR_FMT ": %s, expected a map", r->path, *r->path ? "." : "", STR_ARG(key),
                     node_is_null(n) ? "no value" : node_kind_text(n));
        }
    }
}

static void row_missing(struct decoder *d, struct decoded *r, const struct directive *row)
{
    char expected[256];
    const char *wanted = row->shape == ROW_ONE ? expected_of(row, expected, sizeof expected) : "a list with an entry";
    error_at(d, r, r->node, "%s%s%s: missing, expected %s", r->path, *r->path ? "." : "", row->name, wanted);
}

static void row_not_applicable(struct decoder *d, struct decoded *r, const struct directive *row,
                               const struct yaml_node *n)
{
    char kinds[64];
    unsigned value;
    const struct directive *kind = scope_row(r->scope, r->scope->kind);
    memcpy(&value, row_field_const(kind, r->item), sizeof value);
    error_at(d, r, n->key, "%s.%s: not for %s " STR_FMT ", expected only for %s", r->path, row->name, kind->name,
             STR_ARG(words_at(kind->words, value)), row_kinds(r->scope, row, kinds, sizeof kinds));
}

static void decode_rows(struct decoder *d, struct decoded *r)
{
    const struct scope *s = r->scope;
    bool kind_known = true; /* else: what applies cannot be told, and its row is the error */

    for (size_t i = 0; i < s->nrows && !d->nomem; i++) {
        const struct directive *row = &s->rows[i];
        const struct yaml_node *n = r->given[i];
        bool applies = !kind_known || row_applies(s, row, r->item);
        unsigned found = d->report->found;

        if (n && applies)
            decode_row(d, r, row, n);
        else if (n)
            row_not_applicable(d, r, row, n);
        else if (row->required && applies && (kind_known || !row->only))
            row_missing(d, r, row);
        if (s->kind && strcmp(row->name, s->kind) == 0)
            kind_known = n && n->kind != NODE_BROKEN && d->report->found == found;
    }
}

static struct decoded *record(struct decoder *d, const struct scope *s, const struct yaml_node *n, const char *path,
                              const void *item)
{
    struct decoded *r = pool_zalloc(d->pool, sizeof *r);
    const struct yaml_node **given = pool_zalloc(d->pool, s->nrows * sizeof *given);
    if (!r || !given) {
        d->nomem = true;
        return NULL;
    }
    *r = (struct decoded){.next = d->all, .scope = s, .item = item, .path = path, .node = n, .given = given};
    d->all = r;
    return r;
}

static void decode_item(struct decoder *d, const struct scope *s, const struct yaml_node *n, const char *path,
                        void *item)
{
    struct decoded *r = record(d, s, n, path, item);
    if (!r) return;
    if (item != d->conf && scope_init(s, d->conf, item)) {
        d->nomem = true;
        return;
    }
    if (n->kind == NODE_MAP) {
        collect_keys(d, r, str_make(NULL, 0), n);
        decode_rows(d, r);
    } else if (n->kind == NODE_SCALAR && s->shorthand && !node_is_null(n)) {
        const struct directive *row = scope_row(s, s->shorthand);
        r->given[row - s->rows] = n;
        decode_row(d, r, row, n);
    } else if (n->kind == NODE_BROKEN) {
        r->failed = true;
    } else {
        error_at(d, r, n, "%s%s%s, expected a map", path, *path ? ": " : "",
                 node_is_null(n) ? "no value" : node_kind_text(n));
    }
}

enum err decode(struct decoder *d, const struct yaml_node *root)
{
    decode_item(d, &conf_scope, root, "", d->conf);
    return d->nomem ? ERR_NOMEM : ERR_OK;
}

/* ---- for the checks */

const struct decoded *decoded_find(const struct decoder *d, const void *item)
{
    const struct decoded *r = d->all;
    while (r && r->item != item) r = r->next;
    return r;
}

const struct yaml_node *decoded_given(const struct decoded *r, const char *row_name)
{
    const struct directive *row = scope_row(r->scope, row_name);
    CHECK(row != NULL);
    return r->given[row - r->scope->rows];
}

void decoded_error(struct decoder *d, const struct decoded *r, const char *row_name, const char *other, const char *fmt,
                   ...)
{
    char text[REPORT_TEXT_BYTES - 128];
    const struct yaml_node *at = decoded_given(r, row_name);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!at && other) at = decoded_given(r, other);
    if (!at) at = r->node;
    report_add(d->report, at->line, at->column, "%s%s%s: %s", r->path, *r->path ? "." : "", row_name, text);
}
