/* sigv4.h - AWS Signature Version 4 for S3 (Amazon S3 API Reference, "Authenticating Requests (AWS Signature Version
 * 4)"): signing what we send, verifying what clients sent. Thread-safe; the derived key is cached by the caller's
 * struct sigv4_key (one per worker and origin). */
#ifndef S3P_S3_SIGV4_H
#define S3P_S3_SIGV4_H

#include "base/pool.h"
#include "http/msg.h"
#include "s3/creds.h"

#define SIGV4_UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGV4_EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

/* Signing key derived for (secret, date, region, service); refreshed when any of them changes. Not shared by threads.
 * Starts zeroed. */
struct sigv4_key {
    char date[9], region[64];
    char key_id[160], secret[160]; /* whose: a secret rotated under the same key id must not find the old key */
    unsigned char key[32];
};
struct sigv4_request {
    struct str method;
    struct str path;         /* raw path as it goes on the wire; canonicalised as S3 wants (no normalisation, one
                                encoding: decoded then re-encoded) */
    struct str query;        /* raw, {NULL,0} if none */
    struct str host;
    const struct hdr *hdrs;  /* what is sent: x-amz-*, content-type, content-md5, range... all are signed except those
                                a hop may change (user-agent, expect, connection, content-length, x-amzn-trace-id) */
    unsigned nhdrs;
    struct str payload_hash; /* hex sha256, UNSIGNED-PAYLOAD, STREAMING-... */
    struct str region;
    int64_t now_s;           /* wall clock (with the skew correction) */
};
/* Appends x-amz-date, x-amz-content-sha256, x-amz-security-token (if any) and authorization to `out` (room for 4;
 * *nout is set); memory from pool. */
enum err sigv4_sign(struct sigv4_key *key, const struct credentials *c, const struct sigv4_request *r,
                    struct pool *pool, struct hdr *out, unsigned *nout);

/* Verification of a request with an Authorization header or presigned query. lookup gives the secret of an access key
 * (false: unknown). ERR_OK, ERR_SIGNATURE, ERR_ACCESS_DENIED (unknown key, expired presigned, clock skew over 15 min,
 * not signed at all, host not signed), ERR_BAD_REQUEST (malformed). host: as the client sent it. */
typedef bool sigv4_lookup_fn(void *arg, struct str access_key, struct str *secret);
enum err sigv4_verify(const struct head *req, struct str path, struct str query, struct str host, int64_t now_s,
                      sigv4_lookup_fn *lookup, void *arg, struct pool *pool);
/* The signature of a request masked for logs: query with X-Amz-Signature / X-Amz-Security-Token / X-Amz-Credential values
 * replaced by "...". */
struct str sigv4_mask_query(struct pool *pool, struct str query);

#endif
