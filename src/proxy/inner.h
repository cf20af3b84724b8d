/* inner.h - GET requests that the proxy makes of itself: a client's way through route, access checks, cache and origin,
 * without a connection. They are not counted as clients' requests and not logged. One worker only.
 *
 * Order: head once; data*; end once, last, after which the inner request is gone. When it fails before, end comes alone.
 * Calls come from the loop, never from inside inner_get. After inner_cancel nothing comes. */
#ifndef S3P_PROXY_INNER_H
#define S3P_PROXY_INNER_H

#include "proxy/proxy.h"

struct inner;
struct inner_events {
    /* What answers r: its status, its object if it came through the cache. False: the body is not wanted; end comes with
     * ERR_CANCELLED. */
    bool (*head)(void *arg, struct request *r);
    void (*data)(void *arg, const uint8_t *p, size_t n); /* NULL: not wanted, only that it comes */
    bool (*ready)(void *arg);                            /* NULL: always. False: no more data until inner_resume */
    void (*end)(void *arg, enum err why);
};
/* In whose name: as if the request came in through `via` from `peer`. */
struct inner_asker {
    const struct listener_ref *via;
    struct address peer;
    struct str host; /* may be empty */
    bool tls;
    unsigned tls_version;
    char *tls_client; /* subject of the verified certificate, NULL: none */
};
/* who must stay until the end; target is copied. ERR_NOMEM. */
enum err inner_get(const struct inner_asker *who, struct str target, const struct inner_events *ev, void *arg,
                   struct inner **out);
void inner_resume(struct inner *i);
void inner_cancel(struct inner *i);
struct request *inner_request(struct inner *i); /* while it lasts; NULL: it failed to start */

#endif
