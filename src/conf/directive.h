/* directive.h - the tables of the configuration: one row per directive. They drive reading, defaults, bounds, freeing,
 * help, reference and dump; there is no second list.
 *
 * A scope is a struct of the configuration and the rows that fill it. A row's name is relative to its scope; what stands
 * before its dot is the group it is written in ("log.level" is `log: {level: ...}`). The rows of a group stand together.
 * A row holds one value, a list of values, or items that are a scope of their own: named ones (`caches: {NAME: {...}}`) or
 * a list (`servers: [{...}]`), or a single one (`tls: {...}`). Rows are read in the order of the table, not of the file: what is referred to by others
 * comes first. More rows (or rows put together at run time) need nothing but a scope that points at them. */
#ifndef S3P_CONF_DIRECTIVE_H
#define S3P_CONF_DIRECTIVE_H

#include "conf/conf.h"
#include "conf/value.h"

enum row_shape {
    ROW_ONE,   /* one value of `type` at `offset` */
    ROW_LIST,  /* `offset`: pointer to an array of `type`, `count_offset`: unsigned */
    ROW_ITEMS, /* the same of `child` structs, written as a list */
    ROW_NAMED, /* the same, written as a map of names */
    ROW_CHILD  /* the same, one or none, written as a map */
};

struct directive {
    const char *name;
    enum row_shape shape;
    const struct value_type *type; /* ROW_ONE, ROW_LIST */
    const struct scope *child;     /* ROW_ITEMS, ROW_NAMED, ROW_CHILD */
    size_t offset, count_offset;   /* in the scope's struct */
    const char *preset;            /* the default as one would write it; NULL: unset */
    const char *preset_note;       /* what unset means, for the help */
    uint64_t min, max;             /* of numbers; of the length of strings; of the count of lists and items */
    bool power_of_two;
    bool required;
    const char *words; /* word types: the values, separated by a space */
    const char *later; /* values that are known but not supported yet; "*": any that is not understood */
    unsigned only;     /* bits 1u << value of the scope's `kind` row; 0 = always applicable */
    const char *help;  /* one line */
};

struct scope {
    const char *name; /* "" the top level, "cache", "origin", "server", "route", "listen", ... */
    size_t size;      /* of its struct */
    const struct directive *rows;
    size_t nrows;
    bool named;            /* items of a ROW_NAMED: the first member of the struct is its `char *name` */
    const char *shorthand; /* the row a plain value in place of the map is for; NULL: none */
    const char *kind;      /* the word row that `only` refers to; NULL: none */
};

extern const struct scope conf_scope; /* struct conf */

static inline void *row_field(const struct directive *row, void *item) { return (char *)item + row->offset; }
static inline const void *row_field_const(const struct directive *row, const void *item)
{
    return (const char *)item + row->offset;
}
/* Lists and items. */
void row_array(const struct directive *row, const void *item, void **array, unsigned *count);
void row_array_set(const struct directive *row, void *item, void *array, unsigned count);

const struct directive *scope_row(const struct scope *s, const char *name); /* NULL if there is none */
/* The name's part before the dot ({NULL,0} without one) and after it. */
struct str row_group(const struct directive *row);
struct str row_key(const struct directive *row);
bool row_applies(const struct scope *s, const struct directive *row, const void *item);
/* "s3, http": to which kinds a row is limited. Empty when it is not. Returns buf. */
char *row_kinds(const struct scope *s, const struct directive *row, char *buf, size_t n);
/* "64KiB..16MiB, a power of two", "json | combined": empty when there are none. Returns buf. */
char *row_bounds(const struct directive *row, char *buf, size_t n);
/* "size", "list of CIDR", "map of NAME". Returns buf. */
char *row_type(const struct directive *row, char *buf, size_t n);

/* All defaults into a zeroed struct; ERR_NOMEM. */
enum err scope_init(const struct scope *s, const struct conf *c, void *item);
/* Frees all fields of a struct, not itself. */
void scope_clear(const struct scope *s, void *item);

#endif
