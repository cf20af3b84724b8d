/* place.h - places that people name on the command line: s3://bucket/key, /bucket/key, or a local path. */
#ifndef S3P_CLI_PLACE_H
#define S3P_CLI_PLACE_H

#include "base/str.h"

/* Bucket and key as they are (not encoded). key is "" for the bucket itself; bucket "" is the service ("s3://"). They
 * point into the argument. */
struct place {
    struct str bucket, key;
};
/* True: text begins with s3:// (whatever follows). */
bool place_is_remote(const char *text);
/* "s3://bucket", "s3://bucket/key". ERR_BAD_URI: it is none, or the bucket's name could not be one (S3 User Guide, "Bucket
 * naming rules", as far as the request needs: 1 to 255 of letters, digits, '.', '-', '_'). */
enum err place_parse(const char *text, struct place *out);
/* Is there a '*', '?' or '[' in it? */
bool place_has_glob(struct str s);
/* Is there one in the key of any of the URIs? */
bool have_pattern(char **uris, int n);
/* What stands before the first of them: every match begins with it. */
struct str place_glob_prefix(struct str pattern);

#endif
