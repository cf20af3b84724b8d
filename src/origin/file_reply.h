/* file_reply.h - response heads of the file origin: what S3 would say about a regular file. */
#ifndef S3P_ORIGIN_FILE_REPLY_H
#define S3P_ORIGIN_FILE_REPLY_H

#include "base/pool.h"
#include "http/msg.h"
#include "io/disk.h"
#include "origin/origin.h"

#define FILE_REPLY_HDRS 20

struct file_reply {
    unsigned status;
    struct hdr hdrs[FILE_REPLY_HDRS];
    unsigned nhdrs;
    int64_t content_length; /* as the head says it */
    uint64_t first, end;    /* bytes of the file to be sent: [first, end) */
    struct strbuf doc;      /* else this document */
    bool failed;            /* out of memory */
};
void file_reply_init(struct file_reply *p);
void file_reply_free(struct file_reply *p);
void file_reply_hdr(struct file_reply *p, enum hdr_id id, struct str value);
/* An S3 error document. */
void file_reply_error(struct file_reply *p, struct pool *mem, enum err e, struct str resource);
void file_reply_document(struct file_reply *p, struct pool *mem); /* 200 with the XML that is in doc */
/* GET or HEAD of the file: 200, 206, 304, 412 or 416 by ranges and preconditions. */
void file_reply_object(struct file_reply *p, struct pool *mem, const struct origin_request *r, const struct stat *st,
                       const char *path);

#endif
