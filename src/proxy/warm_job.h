/* warm_job.h - a job of warm.c, for the three files that run it: warm.c (jobs), warm_names.c (what to read), warm_read.c
 * (reading it). */
#ifndef S3P_PROXY_WARM_JOB_H
#define S3P_PROXY_WARM_JOB_H

#include "proxy/inner.h"
#include "proxy/warm.h"

#define WARM_ERRORS_KEPT 16u

enum warm_state { WARM_RUNNING, WARM_DONE, WARM_FAILED, WARM_CANCELLED };
struct warm_error {
    char *uri; /* NULL: of the job itself */
    char *message;
};
struct name {
    struct list link;
    size_t n;
    char path[]; /* encoded as clients send it */
};
struct job {
    /* guarded by the lock */
    struct list link;
    unsigned refs;
    char id[17];
    enum warm_state state;
    bool cancel, listed; /* listed: total is all there will be */
    uint64_t total, done, failed, bytes, displaced;
    uint64_t began_ns, ended_ns; /* 0: it runs */
    struct warm_error errors[WARM_ERRORS_KEPT];
    unsigned nerrors;
    /* immutable once it runs */
    struct warm_jobs *jobs;
    struct worker *worker;
    struct inner_asker asker;
    uint16_t batch;
    uint64_t displaced_before; /* in its batch's counters */
    bool pin;
    unsigned concurrency;
    /* its worker's */
    struct mail mail;
    struct task task;
    struct list worker_link;
    struct list names;
    unsigned nnames, nreadings, next_worker;
    struct list readings; /* on whatever worker */
    struct str prefix_bucket, prefix_key; /* decoded; of a listing */
    char *token;
    struct str manifest;
    bool more;           /* names may still come */
    bool began;          /* the manifest's first line is behind us */
    struct inner *names_from;
    struct strbuf text;  /* a page, or a line that is not whole yet */
    bool names_failed, useless, ended;
    unsigned names_status;
};
struct warm_jobs {
    pthread_mutex_t lock;
    struct list list; /* oldest first */
    uint64_t n, max;
    uint16_t batches;
};

/* warm.c. path NULL: of the job itself; else as clients send it. Any thread. */
void job_error(struct job *j, const char *path, const char *message);
void job_ref(struct job *j);
void job_unref(struct job *j);

/* warm_names.c, on the job's worker */
/* ERR_URI_TOO_LONG: a client could not ask for it either; ERR_OVERLOAD, ERR_NOMEM. */
enum err name_add(struct job *j, struct str path);
void name_free(struct job *j, struct name *m);
void names_free_all(struct job *j);
enum err names_get(struct job *j); /* begins to get more */
void names_over(struct job *j, const char *failure); /* there are no more; NULL: these were all */

/* warm_read.c, on the job's worker */
enum err reading_start(struct job *j); /* of the first name; ERR_NOMEM */
void readings_stop(struct job *j);
void warm_readings_drain(struct worker *w); /* those that run on w */
uint64_t warm_displaced(const struct proxy *p, uint16_t batch);

#endif
