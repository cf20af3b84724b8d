/* delete_doc.h - the document of a DeleteObjects request (S3 API Reference), and its digests. */
#ifndef S3P_CLI_DELETE_DOC_H
#define S3P_CLI_DELETE_DOC_H

#include "base/str.h"
#include "http/msg.h"

#define DELETE_KEYS_MAX 1000u
#define DELETE_DOC_BYTES ((size_t)1 << 20) /* no further key is added to a document that has reached this size */

/* XML 1.0 can hold it: UTF-8 without control characters but tab and line ends. Others are deleted one by one. */
bool delete_doc_fits(struct str key);
/* Some server on the way may take "." and ".." for directories: such a key is better not sent in a path. */
bool key_has_dot_segment(struct str key);

struct delete_doc {
    struct strbuf xml;
    unsigned keys;
    char sha256[65];      /* hex */
    char digest[64];      /* base64 */
    struct hdr hdrs[2];   /* Content-Type, and Content-MD5 or, where there is no MD5, x-amz-checksum-sha256 */
};
void delete_doc_begin(struct delete_doc *d);
void delete_doc_add(struct delete_doc *d, struct str key);
bool delete_doc_is_full(const struct delete_doc *d);
/* The document stays where it is from here on: hdrs point into it. False: memory ran out. */
bool delete_doc_end(struct delete_doc *d);
void delete_doc_free(struct delete_doc *d);

#endif
