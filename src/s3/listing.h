/* listing.h - pages of ListObjectsV2 (S3 API Reference), as far as somebody who wants the keys needs them. */
#ifndef S3P_S3_LISTING_H
#define S3P_S3_LISTING_H

#include "base/str.h"

/* Calls key for each <Contents><Key>, decoded (entities, and percent-encoding where <EncodingType>url</EncodingType> says
 * so); it returns false for ERR_NOMEM. *token: malloc'ed <NextContinuationToken>, NULL on the last page. ERR_PROTOCOL: that
 * is no such document. */
enum err listing_parse(struct str document, bool (*key)(void *arg, struct str key), void *arg, char **token);

#endif
