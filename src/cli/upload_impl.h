/* upload_impl.h - what upload.c and upload_part.c share. */
#ifndef S3P_CLI_UPLOAD_IMPL_H
#define S3P_CLI_UPLOAD_IMPL_H

#include "cli/multipart.h"
#include "cli/upload.h"

#define UPLOAD_MAGIC 0x64616c75u

struct upload;
/* What one PUT carries: a part, or (number 0) all of an object. */
struct upart {
    struct list link;       /* upload.parts */
    struct upload *u;
    struct ask ask;
    struct disk_job job;    /* sum, read or check: one at a time */
    unsigned number;
    uint64_t at, n;         /* in the file */
    uint8_t *bytes;         /* in memory; NULL: in the file */
    uint32_t crc32c;
    enum { UPART_SUMMING, UPART_READY, UPART_SENT, UPART_CHECKING } state;
    int error;              /* of the job */
    struct sum_value md5;
    bool at_end;            /* read from standard input: there is no more */
};
struct upload {
    uint32_t magic;
    struct xfer x;
    const struct upload_conf *c;
    struct task settle;
    int fd;
    struct timespec mtime;  /* of the file, when it was opened */
    uint64_t size;          /* of the file; standard input: what was read so far */
    uint64_t next;          /* where the next part begins */
    unsigned number;        /* of the last part made */
    uint64_t part_bytes;
    struct list parts;
    unsigned nparts;        /* in that list */
    struct buffer *buffer;  /* a small file */
    struct buffer_wait no_wait;
    struct disk_job job;    /* the first look at the file */
    int error;
    uint32_t crc32c;
    unsigned jobs;
    bool prepared, multi, ended_input, reading, failing, finished, detached, aborted;
    enum xfer_end how;
    struct multipart multipart;
};

/* upload.c */
void upload_settle(struct upload *u);
void upload_fail(struct upload *u, enum xfer_end how, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void upload_job(struct upload *u, struct disk_job *j, void (*run)(struct disk_job *j), disk_done_fn *done, void *arg);
bool upload_job_returned(struct upload *u);
const char *upload_name(const struct upload *u);

/* upload_part.c */
int read_at(int fd, void *p, size_t n, uint64_t at); /* 0 or errno; ENODATA: the file is shorter */
struct upart *upart_make(struct upload *u, unsigned number, uint64_t at, uint64_t n); /* NULL: has failed */
void upart_free(struct upart *p);
void upart_sum(struct upart *p);   /* of the file */
void upart_read(struct upart *p);  /* of standard input */
bool upart_send(struct upart *p);

#endif
