/* aws_chunked.h - decoder of aws-chunked upload bodies (Amazon S3 API Reference, "Transferring Payload in Multiple
 * Chunks"), told by x-amz-content-sha256, never sniffed. Used when the chunk signatures of the client cannot be sent on:
 * the decoded bytes are re-sent under our own signature. As a body filter: pulls from `src`, gives decoded chunks. */
#ifndef S3P_S3_AWS_CHUNKED_H
#define S3P_S3_AWS_CHUNKED_H

#include "base/pool.h"
#include "http/msg.h"
#include "io/body.h"

enum aws_chunked_kind {
    AWS_CHUNKED_NONE,
    AWS_CHUNKED_SIGNED,          /* STREAMING-AWS4-HMAC-SHA256-PAYLOAD (or -ECDSA-) */
    AWS_CHUNKED_SIGNED_TRAILER,  /* STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER */
    AWS_CHUNKED_UNSIGNED_TRAILER /* STREAMING-UNSIGNED-PAYLOAD-TRAILER: may pass byte for byte */
};
enum aws_chunked_kind aws_chunked_kind_of(const struct head *req);

/* Transforms SIGNED -> plain decoded bytes, SIGNED_TRAILER -> STREAMING-UNSIGNED-PAYLOAD-TRAILER framing (the trailer's
 * checksum is kept, its signature dropped). out->length is known in both cases (decoded_length from
 * x-amz-decoded-content-length; trailer_names from x-amz-trailer). Errors from pull: ERR_BAD_CHUNK (sizes that overflow or
 * do not add up to decoded_length, malformed trailer), else what src said. Memory from pool, bounded. */
enum err aws_chunked_filter(struct body *src, enum aws_chunked_kind kind, uint64_t decoded_length,
                            struct str trailer_names, struct pool *pool, struct body **out);

#endif
