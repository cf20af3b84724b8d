/* listing.h - S3's documents as far as clients need them: pages of ListObjectsV2, ListBuckets, DeleteObjects, single
 * elements (S3 API Reference). Strings given to callbacks live during the call. */
#ifndef S3P_S3_LISTING_H
#define S3P_S3_LISTING_H

#include "base/str.h"

/* Calls key for each <Contents><Key>, decoded (entities, and percent-encoding where <EncodingType>url</EncodingType> says
 * so); it returns false for ERR_NOMEM. *token: malloc'ed <NextContinuationToken>, NULL on the last page. ERR_PROTOCOL: that
 * is no such document. */
enum err listing_parse(struct str document, bool (*key)(void *arg, struct str key), void *arg, char **token);

struct listing_entry {
    struct str key;           /* as it is; of a common prefix: the prefix, with its delimiter */
    bool is_prefix;           /* nothing below is filled */
    uint64_t size;            /* bytes */
    struct str etag;          /* with its quotes, if it came with them */
    struct str modified;      /* ISO 8601, as it came */
    struct str storage_class;
};
/* The same with all of <Contents>, then of <CommonPrefixes>. */
enum err listing_entries(struct str document, bool (*entry)(void *arg, const struct listing_entry *e), void *arg, char **token);
/* <Bucket>s of ListBuckets, with their CreationDate ("" where there is none). */
enum err listing_buckets(struct str document, bool (*bucket)(void *arg, struct str name, struct str created), void *arg);

/* <Error>s of a DeleteResult (DeleteObjects). */
enum err listing_deleted(struct str document, bool (*failed)(void *arg, struct str key, struct str code, struct str message),
                         void *arg);

/* Text of the first element of that name, entities decoded; malloc'ed, NULL: there is none, or memory ran out. */
char *listing_text(struct str document, const char *name);

#endif
