/* upload.h - files, or standard input, into objects. */
#ifndef S3P_CLI_UPLOAD_H
#define S3P_CLI_UPLOAD_H

#include "cli/transfer.h"

struct upload_conf {
    const struct hdr *hdrs; /* of the object: content-type, x-amz-meta-*; at most 24 */
    unsigned nhdrs;
    bool from_stdin;        /* instead of the item's path */
};
/* As transfer.begin; transfer.arg is the struct upload_conf, which outlives the transfer. */
bool upload_begin(struct transfer *t, struct item *item);

#endif
