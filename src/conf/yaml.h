/* yaml.h - a YAML file as a tree in which every node knows its line and column.
 *
 * Only what a configuration needs: maps, lists and scalars, one document. Anchors, aliases, merge keys and tags are
 * refused: they make one line mean something written elsewhere, and aliases let a small file grow without bound. Depth,
 * bytes and nodes are bounded. Scalars are text; what they mean is decided by the directive they are given to. */
#ifndef S3P_CONF_YAML_H
#define S3P_CONF_YAML_H

#include "base/pool.h"
#include "conf/report.h"

enum { YAML_MAX_BYTES = 1 << 20, YAML_MAX_DEPTH = 16, YAML_MAX_NODES = 50000 };

enum node_kind {
    NODE_SCALAR,
    NODE_MAP,
    NODE_LIST,
    NODE_BROKEN /* was reported already; stands where a value should be */
};

struct yaml_node {
    enum node_kind kind;
    unsigned line, column;       /* from 1 */
    bool plain;                  /* scalar without quotes */
    struct str text;             /* scalar; NUL-terminated as well, may hold NUL inside */
    const struct yaml_node *key; /* in a map: the scalar this is the value of */
    struct yaml_node *first;     /* children of a map or list, in the file's order */
    struct yaml_node *next;      /* sibling */
    unsigned count;              /* children */
};

/* The tree lives in `pool`; *root is NULL for a file without content. ERR_CONFIG: not YAML at all, or beyond a bound
 * (reported). ERR_OK with errors in the report: the refused constructs, whose places hold NODE_BROKEN. ERR_NOMEM. */
enum err yaml_parse(struct str text, struct pool *pool, struct report *report, struct yaml_node **root);

/* "a map", "a list", "a single value" */
const char *node_kind_text(const struct yaml_node *n);
/* A value left out: nothing, ~ or null, without quotes. */
bool node_is_null(const struct yaml_node *n);

#endif
