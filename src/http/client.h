/* client.h - one request to an origin, whatever protocol carries it: what the connection tells the caller.
 *
 * Order: head once; then (space, filled)*; end once, last. After client-side cancel nothing is called any more. All
 * calls come on the worker's loop, never from inside submit/resume/cancel. Inside any of these callbacks the receiver
 * may cancel this very request. */
#ifndef S3P_HTTP_CLIENT_H
#define S3P_HTTP_CLIENT_H

#include <sys/uio.h>

#include "http/msg.h"
#include "io/body.h"

struct client_events {
    /* Final response head (1xx are skipped); slices are valid only during the call. body_length: -1 = unknown. */
    void (*head)(void *arg, const struct head *resp, int64_t body_length);
    /* Where the next body bytes go: fills up to max entries, returns how many; 0 = pause until resume. The memory must
     * stay valid until filled or end, or cancel returned. */
    unsigned (*space)(void *arg, struct iovec *iov, unsigned max);
    void (*filled)(void *arg, size_t n); /* that many bytes were put into the space, in order */
    /* ERR_OK: the body came whole (length known: exactly that many bytes; chunked: last chunk; until close: clean end) */
    void (*end)(void *arg, enum err why);
};

struct client_request {
    struct str method, target; /* as they go on the wire */
    enum method method_id;
    struct str authority;      /* Host / :authority */
    const struct hdr *hdrs;    /* all else, no hop-by-hop; Content-Length comes from body_length */
    unsigned nhdrs;
    struct body *body;         /* NULL: none. Pulled on the same loop. */
    int64_t body_length;       /* -1 with body: chunked; ignored without body, unless send_zero_length */
    bool send_zero_length;     /* no body but Content-Length: 0 (PUT, POST) */
    bool expect_continue;      /* send Expect: 100-continue and wait (at most 1 s) before the body */
};

#endif
