/* oplog.h - the log of operations that s3dlio and warp tools replay: zstd-compressed TSV, one line of column names, then one
 * line per operation: idx thread op client_id n_objects bytes endpoint file error start first_byte end duration_ns. Times
 * are RFC 3339 in UTC with nanoseconds; first_byte is when the first byte of the body really came ("" when none did).
 *
 * Main thread only; lines are compressed as they come and written in large pieces. Tabs and line ends in names are escaped
 * as \t, \n, \r, a backslash as two. What could not be written is told once, by oplog_close. */
#ifndef S3P_CLI_OPLOG_H
#define S3P_CLI_OPLOG_H

#include "cli/call.h"

struct oplog;
/* Creates or truncates the file. False: cannot be created; msg says why. client_id: NULL: host name and process number. */
bool oplog_open(const char *path, const char *endpoint, const char *client_id, struct oplog **out, char *msg, size_t n);
struct op {
    const char *op;            /* GET PUT HEAD LIST DELETE */
    unsigned thread;           /* which of the jobs that run side by side */
    uint64_t n_objects, bytes; /* of the body */
    struct str bucket, key;
    const char *error;         /* NULL or "": none */
    uint64_t start_ns, first_byte_ns, end_ns; /* CLOCK_MONOTONIC, as in struct call_result; first_byte_ns 0: none */
};
void oplog_add(struct oplog *l, const struct op *o); /* l NULL: nothing happens */
/* The usual line for a call that ended. */
void oplog_call(struct oplog *l, const char *op, unsigned thread, struct str bucket, struct str key, uint64_t bytes,
                const struct call_result *r);
/* Ends the frame and closes the file; false: something could not be written, msg says what. NULL is fine. */
bool oplog_close(struct oplog *l, char *msg, size_t n);

#endif
