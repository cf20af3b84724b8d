/* download.h - objects into files, or one object into a stream. */
#ifndef S3P_CLI_DOWNLOAD_H
#define S3P_CLI_DOWNLOAD_H

#include "cli/transfer.h"

struct download_conf {
    int stream_fd;           /* -1: into files */
    const char *stream_name; /* for messages */
    bool discard;            /* instead: bytes are counted, and neither kept nor checked */
    bool ranged;             /* only `length` bytes from `offset` on (UINT64_MAX: all the rest) */
    uint64_t offset, length;
};
/* As transfer.begin; transfer.arg is the struct download_conf, which outlives the transfer. */
bool download_begin(struct transfer *t, struct item *item);
/* Memory that a stream needs, for transfer.max_buffers. */
unsigned download_stream_buffers(const struct transfer_options *o);

#endif
