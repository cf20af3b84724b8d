/* lister.h - the objects below a prefix, page by page (S3 API Reference, ListObjectsV2), fetched ahead while they are used.
 * Bounded: the next page is asked for when fewer than LISTER_LOW entries wait. Every page is an operation in net's op-log.
 * Main thread only. */
#ifndef S3P_CLI_LISTER_H
#define S3P_CLI_LISTER_H

#include "base/list.h"
#include "cli/call.h"

struct lister;
/* One object, or (with a delimiter) what several begin with. One allocation: free() it. */
struct listed {
    struct list link;          /* free for whoever took it */
    uint64_t size;             /* bytes */
    struct str key, etag;      /* key NUL-terminated, as well; etag with its quotes; "" if there is none */
    struct str modified;       /* ISO 8601, as it came */
    struct str storage_class;
    bool is_prefix;            /* key ends with the delimiter; the rest is empty */
};
/* changed (may be NULL) is called from the loop when a lister_next that said ERR_AGAIN may say something else. Strings are
 * copied. delimiter {NULL, 0}: everything, however deep. page: keys in one page, 0: 1000. */
enum err lister_open(struct net *net, struct str bucket, struct str prefix, struct str delimiter, unsigned page,
                     void (*changed)(void *arg), void *arg, struct lister **out);
void lister_close(struct lister *l); /* NULL is fine */
/* ERR_OK: *out is the caller's. ERR_AGAIN: not here yet. ERR_END: there are no more. Anything else: final, lister_failure
 * says why. Every key begins with the prefix. */
enum err lister_next(struct lister *l, struct listed **out);
/* The same, running the loop until there is one; ERR_CANCELLED when interrupted. Not while others need the loop. */
enum err lister_wait(struct lister *l, struct listed **out);
const struct call_result *lister_failure(const struct lister *l);

#endif
