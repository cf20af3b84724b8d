/* transfer.h - the engine of get, put, upload, download and cp: many objects, and parts of large ones, on their way at once on
 * the one loop, within a number of requests and an amount of memory.
 *
 *   source -> item -> xfer (one object under way) -> requests, and jobs of the disk's threads -> its end
 *
 * The pump lets objects that are under way start further requests, oldest first, and takes new items from the source while
 * there are requests to spare. An xfer frees itself when it has ended; nothing of it may be under way then.
 *
 * Main thread only, but for what jobs do. */
#ifndef S3P_CLI_TRANSFER_H
#define S3P_CLI_TRANSFER_H

#include "base/list.h"
#include "cli/cli.h"
#include "cli/oplog.h"
#include "cli/progress.h"
#include "io/disk.h"
#include "origin/climb.h"

#define BUFFER_BYTES ((size_t)256 << 10)

/* What is to be transferred. One allocation: free(). */
struct item {
    struct str bucket, key;     /* the object; of a copy: the target */
    struct str from_bucket, from_key; /* of a copy */
    const char *path;           /* the local file; NULL: none */
    bool has_size;
    uint64_t size;              /* bytes, as a listing or the file said */
    int64_t modified_s;         /* -1: not known */
    const char *bad;            /* why it cannot be done: told, counted, and nothing else; a text that stays */
};
/* Everything is copied; path: dir, '/' and name joined (dir NULL: name alone; name {NULL, 0}: no path). NULL: no memory. */
struct item *item_make(struct str bucket, struct str key, const char *dir, struct str name);
struct item *item_make_copy(struct str bucket, struct str key, struct str from_bucket, struct str from_key);

/* Where items come from. `changed` is told when a next() that said ERR_AGAIN may say something else. */
struct source {
    /* ERR_OK: *out is the caller's. ERR_AGAIN. ERR_END: no more; *code says how the source itself ended (what went wrong has
     * been told). */
    enum err (*next)(struct source *s, struct item **out, int *code);
    void (*close)(struct source *s);
    void (*changed)(void *arg);
    void *changed_arg;
};

struct transfer;
struct xfer;
struct xfer_ops {
    const char *verb;                 /* "get": for messages */
    bool (*more)(struct xfer *x);     /* starts one more request; false: none to start now */
    void (*cancel)(struct xfer *x);   /* interrupted: ends its requests and leaves nothing behind; jobs may still return */
};
struct xfer {
    struct list link;
    struct transfer *t;
    const struct xfer_ops *ops;
    struct item *item;
};

struct transfer_options {
    uint64_t jobs, part_bytes;
    bool climb;       /* of large objects only as many parts at once as make it faster, at most jobs */
    unsigned climb_from; /* so many at first; 0: the usual number */
    bool check;       /* sums are compared */
    bool resume;      /* --continue */
    bool no_clobber;
    bool keep_mtime;
};
struct transfer {
    struct cli *cli;
    struct net *net;
    struct transfer_options o;
    struct source *source;
    /* takes over the item; false: no memory */
    bool (*begin)(struct transfer *t, struct item *item);
    void *arg;               /* of whoever runs it */
    struct disk *disk;
    struct progress *progress;
    uint64_t objects, bytes, failed, skipped, missing; /* results */
    int code;                /* of the source */
    bool quiet_end;          /* the reader of standard output has left: no failure */
    bool stopping;           /* interrupted */
    bool blocked_io;         /* a job may hang on standard input or output: it is not waited for */
    /* private */
    struct list active;
    unsigned nactive, nrequests, njobs;
    bool source_ended;
    struct task pump;
    unsigned *slots;
    struct list buffers, hungry;
    unsigned nbuffers, max_buffers;
    uint64_t total_objects, total_bytes;
    struct climb climb;
    struct timer period;
    uint64_t period_bytes, period_ns;
    unsigned nparts;
    bool period_busy;
};

/* Takes over the source. what: "downloading". Runs until everything has ended, prints the summary (--json: to stdout), and
 * returns the exit code. */
int transfer_run(struct transfer *t, const char *what);

/* ---- for xfers */

void xfer_init(struct xfer *x, struct transfer *t, const struct xfer_ops *ops, struct item *item);
enum xfer_end { XFER_DONE, XFER_SKIPPED, XFER_FAILED, XFER_MISSING, XFER_STOPPED };
/* Out of the engine; frees the item, not x. */
void xfer_end(struct xfer *x, enum xfer_end how);
void transfer_pump(struct transfer *t); /* soon */
void transfer_progress(struct transfer *t, int64_t bytes);

/* Large objects: whether one more part may be asked for now. part_request counts it: +1, -1. */
bool transfer_part_may_start(struct transfer *t);
void transfer_part_count(struct transfer *t, int by);

/* A request within the bound of jobs (more() is only called below it). */
struct request {
    struct call *call; /* NULL: none */
    unsigned slot;
};
enum err request_start(struct transfer *t, struct request *r, const struct call_request *q, const struct call_events *ev,
                       void *arg);
/* In its end event; op "GET" writes the op-log's line. */
void request_ended(struct transfer *t, struct request *r, const char *op, struct str bucket, struct str key, uint64_t bytes,
                   const struct call_result *result);
void request_cancel(struct transfer *t, struct request *r); /* none: nothing happens */

/* Work for the disk's threads: run, then done on the loop, which begins with job_returned. */
void job_start(struct transfer *t, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg);
void job_returned(struct transfer *t);

/* Memory, bounded: NULL when there is none; then `ready` is called once there may be some, unless withdrawn. */
struct buffer {
    struct list link;
    struct disk_job job;
    void *owner;
    uint8_t *bytes; /* BUFFER_BYTES */
    size_t n;       /* used */
    uint64_t at;    /* in the file */
    int fd, error;  /* errno */
    size_t wrote;
    uint64_t crc;   /* moved to the end of the object */
};
struct buffer_wait {
    struct list link;
    void (*ready)(struct buffer_wait *w);
};
void buffer_wait_init(struct buffer_wait *w, void (*ready)(struct buffer_wait *w));
struct buffer *buffer_get(struct transfer *t, struct buffer_wait *w);
void buffer_put(struct transfer *t, struct buffer *b);

#endif
