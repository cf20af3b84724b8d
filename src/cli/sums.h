/* sums.h - what tells whether bytes arrived as they were sent: the checksums of S3 (User Guide, "Checking object integrity") and
 * MD5, incremental, and as they stand in response heads. Any thread; one sum belongs to one thread at a time. */
#ifndef S3P_CLI_SUMS_H
#define S3P_CLI_SUMS_H

#include "http/msg.h"

#define SUM_BYTES_MAX 32

/* Cheapest first: where an object has several, the first is checked. */
#define SUM_TABLE(X)                                   \
    X(CRC32C, "x-amz-checksum-crc32c", 4)              \
    X(CRC64NVME, "x-amz-checksum-crc64nvme", 8)        \
    X(CRC32, "x-amz-checksum-crc32", 4)                \
    X(SHA1, "x-amz-checksum-sha1", 20)                 \
    X(SHA256, "x-amz-checksum-sha256", 32)             \
    X(MD5, "content-md5", 16)
enum sum_kind {
    SUM_NONE,
#define X(kind, header, bytes) SUM_##kind,
    SUM_TABLE(X)
#undef X
};
struct sum_value {
    enum sum_kind kind; /* SUM_NONE: there is none */
    uint8_t bytes[SUM_BYTES_MAX];
};
const char *sum_name(enum sum_kind kind);  /* "CRC32C" */
struct str sum_header(enum sum_kind kind); /* "x-amz-checksum-crc32c" */
size_t sum_bytes(enum sum_kind kind);

struct sum {
    enum sum_kind kind;
    uint64_t crc;
    void *digest;
};
bool sum_begin(struct sum *s, enum sum_kind kind); /* false: out of memory */
void sum_add(struct sum *s, const void *p, size_t n);
void sum_end(struct sum *s, struct sum_value *out); /* s is as after sum_drop */
void sum_drop(struct sum *s);                       /* zeroed is fine */
bool sum_equal(const struct sum_value *a, const struct sum_value *b);

/* CRCs can be made of pieces in any order: the CRC of everything is the exclusive or of those of all pieces, each moved over the
 * bytes behind it. */
bool sum_is_crc(enum sum_kind kind);
uint64_t sum_crc_moved(enum sum_kind kind, uint64_t crc, uint64_t bytes_behind); /* crc: of struct sum */
void sum_of_crc(enum sum_kind kind, uint64_t crc, struct sum_value *out);

/* CRC-32C of n more bytes; start with 0. */
uint32_t sum_crc32c(uint32_t crc, const void *p, size_t n);
/* Of two runs of bytes, one behind the other: from their CRC-32Cs and the length of the second. */
uint32_t sum_crc32c_join(uint32_t first, uint32_t second, uint64_t second_bytes);

/* The base64 text of a value, as headers want it; buf of at least 48 bytes, NUL-terminated; returns it. */
char *sum_base64(const struct sum_value *v, char *buf);
/* What can be checked of a whole object by the head of its GET or HEAD: a checksum of all of it, else an ETag that is an MD5
 * (32 hex digits; not of encryption with KMS or a client's key). SUM_NONE: nothing. */
void sum_expected(const struct head *h, struct sum_value *out);
/* An ETag (with its quotes) as the MD5 it may be. */
void sum_of_etag(struct str etag, struct sum_value *out);

#endif
