/* ask.h - a request of a transfer whose answer is a short document, or nothing but a head: PUT, and all about multipart uploads
 * and copies. An answer of 200 that holds an <Error> (S3 API Reference, "CopyObject", "CompleteMultipartUpload") is a failure. */
#ifndef S3P_CLI_ASK_H
#define S3P_CLI_ASK_H

#include "cli/sums.h"
#include "cli/transfer.h"

struct ask {
    struct transfer *t;
    struct request request;
    const char *op;          /* of the op-log */
    struct str bucket, key;
    uint64_t bytes;          /* for the op-log */
    struct strbuf text;      /* of the answer, until the next start */
    char space[2048];
    char etag[128];          /* with its quotes; "": none */
    struct sum_value sum;    /* what the head says of what is stored */
    void (*head)(struct ask *a, const struct head *h); /* set by the owner; NULL: nothing more to look at */
    void (*done)(struct ask *a, const struct call_result *r);
};
/* Zeroed before the first time. bucket and key of q outlive it. */
enum err ask_start(struct transfer *t, struct ask *a, const char *op, const struct call_request *q,
                   void (*done)(struct ask *a, const struct call_result *r));
void ask_cancel(struct ask *a); /* also when it never started */
void ask_free(struct ask *a);   /* of one that is not under way */
static inline bool ask_busy(const struct ask *a) { return a->request.call != NULL; }

#endif
