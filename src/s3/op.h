/* op.h - what an S3 request is, from method, address and query (Amazon S3 API Reference). */
#ifndef S3P_S3_OP_H
#define S3P_S3_OP_H

#include "http/msg.h"
#include "s3/address.h"

enum s3_op {
    OP_OTHER,          /* passes through, drops nothing */
    OP_GET_OBJECT,     /* cacheable: plain, or with versionId/partNumber/response-* */
    OP_HEAD_OBJECT,
    OP_LIST,           /* bucket listings, list-buckets */
    OP_READ_OTHER,     /* any other GET/HEAD: subresources (?acl, ?tagging, ?uploads, ?attributes, ...) */
    OP_WRITE_OBJECT,   /* PUT/DELETE/POST that replaces or removes this key on success (put, copy, complete multipart,
                          delete, restore, rename) */
    OP_WRITE_PART,     /* upload part, create/abort multipart, put acl/tagging...: object bytes unchanged. Tagging and ACL
                          changes alter response headers: they count as OP_WRITE_OBJECT */
    OP_DELETE_MANY,    /* POST bucket?delete */
    OP_WRITE_BUCKET    /* delete bucket and other bucket-level writes */
};
struct s3_request {
    enum s3_op op;
    struct s3_address address;
    struct str key_query; /* part of the cache key: versionId, partNumber, response-* sorted, raw "a=b&c=d"; n == 0 if none */
    bool whole_object;    /* no partNumber: ranges may be fanned out */
    bool cacheable;       /* OP_GET_OBJECT/HEAD without SSE-C headers */
};
enum err op_classify(const struct head *req, struct str host_no_port, struct str raw_path, struct str query,
                     const char *const *base_domains, unsigned n, struct pool *pool, struct s3_request *out);
const char *op_name(enum s3_op op); /* "GET", "HEAD", "LIST", "PUT", "DELETE"...: for logs */

#endif
