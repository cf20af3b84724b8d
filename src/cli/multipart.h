/* multipart.h - one multipart upload (S3 User Guide, "Uploading and copying objects using multipart upload"): begun, its parts
 * noted, completed or aborted. The parts themselves are the owner's. */
#ifndef S3P_CLI_MULTIPART_H
#define S3P_CLI_MULTIPART_H

#include "cli/ask.h"

#define MULTIPART_PARTS_MAX 10000u

struct multipart_part {
    char *etag;
    uint32_t crc32c;
    uint64_t bytes;
};
struct multipart {
    struct transfer *t;
    const struct item *item;  /* bucket and key */
    bool summed;              /* parts come with their CRC-32C */
    char *id;                 /* encoded for a query; NULL: not begun */
    struct multipart_part *parts; /* by number - 1 */
    unsigned nparts, cap;     /* the highest number noted */
    unsigned noted;
    struct ask ask;           /* one thing at a time */
    struct strbuf doc;
    /* what it asked for has come, or failed: r->err */
    void (*done)(struct multipart *m, const struct call_result *r);
    bool beginning, completing, aborting;
    bool parts_cut_off;       /* set by the owner before multipart_abort: parts were under way and may still be stored */
    struct timer again;
};
void multipart_init(struct multipart *m, struct transfer *t, const struct item *item, bool summed,
                    void (*done)(struct multipart *m, const struct call_result *r));
enum err multipart_begin(struct multipart *m, const struct hdr *hdrs, unsigned nhdrs);
/* ERR_NOMEM */
enum err multipart_note(struct multipart *m, unsigned number, const char *etag, uint32_t crc32c, uint64_t bytes);
enum err multipart_complete(struct multipart *m);
/* Twice, where parts were cut off: "in-progress part uploads might or might not succeed", and then take up room (S3 API
 * Reference, "AbortMultipartUpload"). */
enum err multipart_abort(struct multipart *m);
void multipart_free(struct multipart *m); /* nothing is under way */
/* How large parts of an object of that size have to be. */
uint64_t multipart_part_bytes(uint64_t size, uint64_t wanted);
/* "partNumber=N&uploadId=ID" into buf. */
struct str multipart_query(const struct multipart *m, unsigned number, struct strbuf *buf);

#endif
