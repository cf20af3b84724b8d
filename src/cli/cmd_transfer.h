/* cmd_transfer.h - the options that get, put, upload, download and cp have in common. */
#ifndef S3P_CLI_CMD_TRANSFER_H
#define S3P_CLI_CMD_TRANSFER_H

#include "cli/transfer.h"

#define TRANSFER_JOBS 32u
#define TRANSFER_JOBS_MAX 1024u
#define TRANSFER_PART_BYTES ((uint64_t)8 << 20)
#define TRANSFER_PART_MIN ((uint64_t)64 << 10)
#define TRANSFER_PART_MAX ((uint64_t)5 << 30) /* S3 User Guide, "Amazon S3 multipart upload limits" */

struct transfer_opts {
    uint64_t jobs, part_size;
    bool no_check;
};
#define TRANSFER_OPTS(type, field)                                                                                              \
    {'j', "jobs", OPT_UINT, "N", offsetof(type, field.jobs), 1, TRANSFER_JOBS_MAX, "requests under way at once (default 32; parts of large objects: as many as help)"},  \
        {0, "part-size", OPT_SIZE, "SIZE", offsetof(type, field.part_size), TRANSFER_PART_MIN, TRANSFER_PART_MAX,                           \
         "larger objects go in parts of this size (default 8MiB)"},                                                             \
        {0, "no-check", OPT_FLAG, NULL, offsetof(type, field.no_check), 0, 0, "do not compare checksums"}

/* get, download and the half of cp that does the same */
struct get_opts {
    struct transfer_opts common;
    const char *output, *keylist;
    bool recursive, resume, no_clobber, keep_mtime;
    uint64_t offset, length;
};
/* globs: patterns, and prefixes that end with a slash, are understood. */
int get_run(struct cli *cli, const struct get_opts *o, int nargs, char **args, bool globs);

/* put, upload and the half of cp that does the same */
struct put_opts {
    struct transfer_opts common;
    const char *content_type, *cache_control, *storage_class, *metadata;
    bool recursive;
};
#define PUT_OPTS(type, field)                                                                                                  \
    {0, "content-type", OPT_TEXT, "TYPE", offsetof(type, field content_type), 0, 0, "of the objects"},                         \
        {0, "cache-control", OPT_TEXT, "TEXT", offsetof(type, field cache_control), 0, 0, "of the objects"},                   \
        {0, "storage-class", OPT_TEXT, "NAME", offsetof(type, field storage_class), 0, 0, "of the objects"},                   \
        {0, "metadata", OPT_TEXT, "K=V[,K=V]...", offsetof(type, field metadata), 0, 0, "x-amz-meta-K: V of the objects"}
int put_run(struct cli *cli, const struct put_opts *o, int nargs, char **args);
#define PUT_HDRS_MAX 24u
/* The headers those options ask for; false: what is wrong has been said. hdrs of at least PUT_HDRS_MAX; text is malloc'ed
 * behind their names, the caller's to free. */
bool put_hdrs(const struct put_opts *o, struct hdr *hdrs, unsigned *n, char **text);

static inline void transfer_defaults(struct transfer_opts *o)
{
    o->part_size = TRANSFER_PART_BYTES;
}
/* Of every command whose options begin with struct transfer_opts: as many connections as jobs. */
static inline void transfer_adjust(struct cli *cli, const void *opts)
{
    const struct transfer_opts *o = opts;
    if (!cli->net_options.connections && o->jobs > NET_CONNECTIONS) cli->net_options.connections = o->jobs;
}
static inline void transfer_take_opts(struct transfer_options *to, const struct transfer_opts *o)
{
    to->jobs = o->jobs ? o->jobs : TRANSFER_JOBS;
    to->climb = !o->jobs;
    to->part_bytes = o->part_size;
    to->check = !o->no_check;
}

#endif
