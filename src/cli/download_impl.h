/* download_impl.h - what the files of download_*.c share. */
#ifndef S3P_CLI_DOWNLOAD_IMPL_H
#define S3P_CLI_DOWNLOAD_IMPL_H

#include "cli/download.h"
#include "cli/outfile.h"
#include "cli/sums.h"

#define DOWNLOAD_MAGIC 0x6c6e7764u
#define STREAM_AHEAD_BYTES ((uint64_t)64 << 20) /* what of a stream may wait for its turn */

struct download;
/* A request for a range (or for everything) and what has come of it. */
struct part {
    struct list link;         /* download.parts, by position */
    struct download *d;
    struct request request;
    uint64_t first, bytes;    /* in the object; UINT64_MAX: to its end */
    uint64_t got;
    struct buffer *cur;       /* being filled */
    struct buffer_wait wait;
    struct list full;         /* of a stream: what waits for its turn */
    unsigned writes;          /* jobs */
    bool ended;               /* the request, well or not */
    bool whole;               /* all bytes came */
    enum sum_kind crc;        /* made as its bytes are written; SUM_NONE: not */
    bool flushed;             /* a buffer has left: too late to begin with that */
    enum err refused;         /* why its answer was not wanted */
};
/* The state that --continue needs, beside the file: download_state.c. */
struct kept_state {
    char *path;               /* NULL: not kept */
    int fd;
    size_t header_bytes;
};
struct download {
    uint32_t magic;
    struct xfer x;
    const struct download_conf *c;
    struct task settle;       /* every event schedules it; it decides what comes next */
    struct outfile file;
    struct list parts;
    struct request head;      /* a HEAD, for checksums or to go on */
    char etag[256];           /* strong; "": none */
    uint64_t begin, end;      /* of the object's bytes: what is wanted; end UINT64_MAX: not known yet */
    uint64_t next;            /* where the next part begins */
    uint64_t part_bytes, nparts;
    uint8_t *have;            /* for each part: PART_HERE when it is in the file, and PART_SUMMED */
    int64_t mtime_s;
    uint64_t shown;           /* of progress */
    unsigned jobs;            /* of the disk's threads */
    unsigned restarts;
    bool started, probing;    /* the first request has been made; has not been answered */
    bool single;              /* one request without a range */
    bool whole_try;           /* an empty object, or one that cannot be told from others: single from the start */
    bool small;               /* all of it in one buffer */
    bool resuming;            /* HEAD and state decide where to go on */
    bool head_wanted, head_done;
    bool failing, restarting, finishing, finished, detached;
    enum xfer_end how;
    /* the check */
    struct sum_value want;
    bool want_known;
    struct sum sum;
    bool summing;             /* a job is under way */
    uint64_t ready;           /* in order, from begin on */
    uint64_t summed;          /* so far: in order, or (of a CRC) of any parts */
    uint64_t crc;             /* of those parts */
    uint64_t sum_from, sum_part; /* all before are in it; the one that is read back */
    uint8_t *sum_bytes;
    struct disk_job job;      /* of sum, finish, resume: one at a time */
    uint64_t sum_at;
    size_t sum_n;
    int error;                /* of the job: errno */
    bool sum_wrong;
    /* a stream */
    bool writing;
    uint64_t written;         /* position in the object up to which all has been written */
    struct kept_state state;
};

enum { PART_HERE = 1, PART_SUMMED = 2 };
/* The sum is a CRC, made of parts in any order. */
static inline bool is_summed_apart(const struct download *d) { return d->have && sum_is_crc(d->want.kind); }
static inline uint64_t part_length(const struct download *d, uint64_t part)
{
    uint64_t all = d->end - d->begin, at = part * d->part_bytes;
    return all - at < d->part_bytes ? all - at : d->part_bytes;
}
static inline bool is_stream(const struct download *d) { return d->c->stream_fd >= 0; }

/* download.c */
void download_settle(struct download *d); /* soon */
/* "cannot get s3://b/k: why": told at once, once. */
void download_fail(struct download *d, enum xfer_end how, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void download_restart(struct download *d); /* another version of the object has come up */
void download_job(struct download *d, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg);
/* Begins every done function; false: nothing else is to be done. */
bool download_job_returned(struct download *d);
/* "cannot DOING FILE: why" */
void download_file_failed(struct download *d, int why);

/* download_part.c */
bool part_start(struct download *d); /* at d->next; false: no memory */
void part_free(struct part *p);
bool download_open(struct download *d); /* the file of a large object */
void stream_push(struct download *d);

/* download_finish.c */
void sum_step(struct download *d);
bool sum_is_over(const struct download *d);
void finish_start(struct download *d);
void finish_small(struct download *d); /* once its bytes and what to compare them with are there */

/* download_state.c */
/* True: there is one, and the HEAD that decides about it has to be made. */
bool state_exists(struct download *d);
/* The object is as HEAD says: goes on with what is there of it, if it is the same. A job; settles. */
void state_resume(struct download *d);
int state_create(struct download *d);   /* 0 or errno */
void state_mark(struct download *d, uint64_t part);
void state_drop(struct download *d, bool keep);

#endif
