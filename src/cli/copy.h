/* copy.h - objects into objects, without their bytes coming here. */
#ifndef S3P_CLI_COPY_H
#define S3P_CLI_COPY_H

#include "cli/transfer.h"

#define COPY_WHOLE_MAX ((uint64_t)5 << 30) /* larger objects are copied in parts (S3 API Reference, "CopyObject") */

struct copy_conf {
    const struct hdr *hdrs; /* instead of the source's: content-type, x-amz-meta-*; at most 24 */
    unsigned nhdrs;
    uint64_t whole_max;     /* larger ones go in parts */
};
/* As transfer.begin; transfer.arg is the struct copy_conf, which outlives the transfer. */
bool copy_begin(struct transfer *t, struct item *item);

#endif
