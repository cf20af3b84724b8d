/* disk.h - file operations off the workers' threads: a small pool of threads that do them and post the result back.
 * Submitting and completion happen on the submitter's loop; nothing here blocks it. */
#ifndef S3P_IO_DISK_H
#define S3P_IO_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/str.h"
#include "io/mailbox.h"

struct disk; /* one per process */
enum disk_op { DISK_OPEN_STAT, DISK_READ, DISK_CLOSE, DISK_LIST, DISK_RUN };

/* The regular files beneath a directory, however deep, by their path relative to it; sorted bytewise by path. Symbolic
 * links to files count as files, links to directories are not followed. */
struct disk_entry {
    struct str path; /* NUL-terminated besides */
    uint64_t size, device, inode;
    struct timespec mtime;
    bool is_prefix; /* LIST with fold: a directory that holds files; its path ends in '/', the rest is not filled */
};
struct disk_list {
    struct disk_entry *entries;
    size_t n;
    bool truncated; /* there are more behind the last entry */
    char *paths;    /* memory behind the entries' paths */
};
void disk_list_free(struct disk_list *list);

struct disk_job;
typedef void disk_done_fn(struct disk_job *j);
/* Caller-owned until done was called on its loop; cannot be withdrawn, so a canceller sets a flag of its own and frees
 * it in done. */
struct disk_job {
    enum disk_op op;
    int dir_fd;        /* OPEN_STAT: openat2 beneath this directory (RESOLVE_BENEATH; O_RDONLY|O_NONBLOCK, regular
                          files only unless want_dir) */
    const char *path;  /* OPEN_STAT; LIST: the directory, "." for dir_fd itself. Must live until done. */
    bool want_dir;     /* OPEN_STAT: a directory, and nothing else */
    int fd;            /* OPEN_STAT: result (caller owns); READ, CLOSE: input */
    struct stat st;    /* OPEN_STAT: result */
    struct iovec iov;  /* READ: where to */
    uint64_t offset;   /* READ */
    size_t got;        /* READ: bytes read, short only at end of file */
    struct str prefix; /* LIST: only paths that begin with it */
    struct str after;  /* LIST: only paths that sort after it */
    size_t max;        /* LIST: at most so many */
    bool fold;         /* LIST: directories below prefix are not walked but given as one entry each */
    struct disk_list list; /* LIST: result, the caller frees it with disk_list_free */
    enum err result;   /* ERR_OK, ERR_NOT_FOUND, ERR_ACCESS_DENIED (also: the path leads out of dir_fd), ERR_OVERLOAD
                          (out of descriptors; LIST: a directory of more than a million names), ERR_NOMEM, ERR_IO */
    /* RUN: called on one of the disk's threads (directory walks, read-and-verify); may block, sets result itself */
    void (*run)(struct disk_job *j);
    disk_done_fn *done;
    void *arg;
    /* private */
    struct mail mail;
    struct mailbox *reply_to;
    struct disk_job *next;
};
/* ERR_NOT_SUPPORTED (logged) when the kernel has no openat2(2), i.e. is older than Linux 5.6. */
enum err disk_create(unsigned threads, struct disk **out);
void disk_submit(struct disk *d, struct disk_job *j, struct mailbox *reply_to);
void disk_destroy(struct disk *d); /* finishes what is queued, joins */

#endif
