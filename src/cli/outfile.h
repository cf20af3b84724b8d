/* outfile.h - a file that appears under its name only when it is complete: until then it has no name (O_TMPFILE), or a
 * temporary one beside it: where the file system cannot do without, and where a later run shall go on with it.
 *
 * Functions return 0 or an errno, with what was being done in `doing`. Directories on the way are made. Nothing is synced: what
 * a crash of the machine leaves is the file system's affair. Any thread; one file belongs to one at a time. */
#ifndef S3P_CLI_OUTFILE_H
#define S3P_CLI_OUTFILE_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

struct outfile {
    const char *path;  /* the caller's, longer-lived */
    char *temp;        /* NULL: it has no name */
    int fd;            /* -1: none */
    const char *doing; /* "create", "write": for messages */
};
void outfile_init(struct outfile *f, const char *path);
int outfile_open(struct outfile *f);
/* ".NAME.s3dlio-part" beside it, locked against other runs (EBUSY); *there: it held something. */
int outfile_open_kept(struct outfile *f, bool *there);
int outfile_write(struct outfile *f, const void *p, size_t n, uint64_t at);
/* Under its name; EEXIST with no_clobber. mtime_s -1: now. The file is closed whatever comes. */
int outfile_commit(struct outfile *f, bool no_clobber, int64_t mtime_s);
/* Closes; keep: a named temporary stays. */
void outfile_drop(struct outfile *f, bool keep);
/* The path of a file beside it, ".NAME" and suffix, shortened where it would be too long; malloc'ed, NULL: no memory. */
char *outfile_beside(const char *path, const char *suffix);

#endif
