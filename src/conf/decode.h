/* decode.h - walks the tree of a file along the tables and fills the structs. Finds all that one value or one map can
 * have wrong by itself; what must fit together is checked afterwards (rules.h), and asks here where a value stood. */
#ifndef S3P_CONF_DECODE_H
#define S3P_CONF_DECODE_H

#include "base/pool.h"
#include "conf/directive.h"
#include "conf/report.h"
#include "conf/yaml.h"

/* One struct that was filled: where, and from what. */
struct decoded {
    const struct decoded *next;
    const struct scope *scope;
    const void *item;
    const char *path;               /* "caches.main", "servers[0]"; "" the top level */
    const struct yaml_node *node;   /* the map (or the plain value of a shorthand) */
    const struct yaml_node **given; /* by row; NULL: not in the file */
    bool failed;                    /* something in it was reported: a check would report its consequences */
};
struct decoder {
    struct conf *conf;
    struct report *report;
    struct pool *pool; /* holds the decoded records; as long as the tree */
    const struct decoded *all;
    bool nomem;
};

/* Reads `root` into d->conf, which holds the defaults already. Errors go to the report; ERR_NOMEM. */
enum err decode(struct decoder *d, const struct yaml_node *root);

const struct decoded *decoded_find(const struct decoder *d, const void *item); /* NULL: never was read */
/* Of a row: where it was given; NULL if it was not. */
const struct yaml_node *decoded_given(const struct decoded *r, const char *row_name);
/* Reports "path.row: text" at the row's value; when it was not given, at that of `other` (which may be NULL); at the map
 * when neither was. */
void decoded_error(struct decoder *d, const struct decoded *r, const char *row_name, const char *other, const char *fmt,
                   ...) __attribute__((format(printf, 5, 6)));

#endif
