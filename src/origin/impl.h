/* impl.h - what an origin type implements (included by origin.c and the types only). */
#ifndef S3P_ORIGIN_IMPL_H
#define S3P_ORIGIN_IMPL_H

#include "origin/origin.h"

struct choice;
struct origin_type_ops {
    const char *name;
    enum err (*open)(struct origin *o, struct disk *disk, unsigned nworkers, char *msg, size_t n);
    void (*close)(struct origin *o);
    enum err (*worker_open)(struct origin_worker *w, unsigned index);
    void (*worker_close)(struct origin_worker *w, void (*done)(void *), void *arg);
    enum err (*submit)(struct origin_worker *w, const struct origin_request *r, const struct client_events *ev, void *arg,
                       struct origin_call **out);
    void (*resume)(struct origin_call *c);
    void (*cancel)(struct origin_call *c);
    const struct choice *(*choice)(const struct origin *o); /* NULL: no HTTP */
};
extern const struct origin_type_ops origin_http_ops, origin_s3_ops, origin_file_ops;

struct origin {
    uint32_t magic;
    const struct origin_type_ops *ops;
    const struct origin_conf *conf; /* outlives the origin */
    void *priv;                     /* the type's shared state */
    struct meter memory;            /* of what is held for receivers that are not ready */
};
struct origin_worker {
    uint32_t magic;
    struct origin *origin;
    struct mailbox *mailbox;
    struct loop *loop;
    struct origin_stats stats;
    void *priv; /* the type's per-worker state */
    void (*closed)(void *arg); /* origin.c: who destroyed it is to be told */
    void *closed_arg;
};
/* Types begin their call with this. */
struct origin_call {
    struct origin_worker *worker;
};

#endif
