/* call.h - one request to the proxy, tried again as often as the rules of retry.h allow, with its body resumed where a
 * connection broke. Main thread only.
 *
 *   outcome of a try               | then
 *   2xx, body whole                | end
 *   2xx, body breaks off           | GET with a strong ETag: the rest is asked for with If-Match; else, if the caller can
 *                                  | begin anew, again; else the end
 *   another status, worth a retry  | again, after a pause
 *   another status                 | end, with the error document's code and message
 *   no answer                      | again, if that is worth it
 */
#ifndef S3P_CLI_CALL_H
#define S3P_CLI_CALL_H

#include "cli/net.h"

struct call;

/* Copied by call_start, all but the bodies. */
struct call_request {
    enum method method;
    struct str bucket, key;      /* as they are; the key is encoded for the wire */
    struct str query;            /* raw, encoded: "list-type=2&prefix=a%2F"; {NULL,0}: none */
    const struct hdr *hdrs;      /* beyond what origin.h adds */
    unsigned nhdrs;
    bool has_range;              /* bytes first..last, both included */
    uint64_t first, last;
    struct str if_match;         /* with the quotes; {NULL,0}: none */
    /* A request body: made anew for every try; NULL when memory ran out or it cannot be read. */
    struct body *(*body)(void *arg);
    void *body_arg;
    int64_t body_length;
    struct str payload_hash;     /* hex SHA-256 of the body; {NULL,0}: not signed */
    bool afresh;                 /* a body that broke off and cannot be resumed is asked for anew, from its beginning:
                                    head comes again, what was filled before does not count */
    bool once;                   /* no other try once the request may have reached the proxy */
};
struct call_result {
    enum err err;                /* ERR_OK: 2xx, and all of the body. A status of 300 and more: what err.h says of it */
    unsigned status;             /* 0: no answer */
    unsigned tries;
    uint64_t bytes;              /* of the body, passed on */
    uint64_t start_ns, first_byte_ns, end_ns; /* CLOCK_MONOTONIC; first_byte_ns: of the body, of the head where there
                                                 is none; 0: none came */
    char code[64], message[256]; /* of the error document; "" without one */
    char request_id[128];
    bool by_proxy;               /* an error that s3dlio-proxy itself made up: neither an origin's nor another server's */
};
/* Order: head once (2xx; again with afresh), then (space, filled)*, end once, last. Never from inside call_start or call_cancel. The call may be
 * cancelled inside space and filled, not inside head, which has its return value for that. */
struct call_events {
    /* Slices of h are valid during the call only. body_length -1: unknown. False: the body is not wanted, end comes with
     * ERR_CANCELLED. NULL: nothing to look at. */
    bool (*head)(void *arg, const struct head *h, int64_t body_length);
    unsigned (*space)(void *arg, struct iovec *iov, unsigned max); /* as in client.h; 0: pause until call_resume */
    void (*filled)(void *arg, size_t n);
    void (*end)(void *arg, const struct call_result *r);
};
/* ERR_NOMEM, ERR_URI_TOO_LONG: nothing comes. *out is gone after end. */
enum err call_start(struct net *net, const struct call_request *q, const struct call_events *ev, void *arg, struct call **out);
void call_resume(struct call *c);
void call_cancel(struct call *c); /* nothing comes any more */

/* Starts it and runs the loop until it ended. body (may be NULL) takes the response's body, up to its bound; head (may be
 * NULL) as above. Interrupted: ERR_CANCELLED. */
struct call_sync {
    struct strbuf *body;
    bool (*head)(void *arg, const struct head *h, int64_t body_length);
    void *arg;
};
void call_wait(struct net *net, const struct call_request *q, const struct call_sync *s, struct call_result *out);

/* One line on what went wrong: "404 NoSuchKey: The specified key does not exist.", "connection refused". */
const char *call_why(const struct call_result *r, char *buf, size_t n);
/* True: the answer says that the object, bucket or whatever was named does not exist. */
bool call_not_found(const struct call_result *r);

/* ---- bodies to send: made by these, freed by their close */
struct body *body_of_memory(struct str bytes); /* the bytes stay the caller's and must outlive it */
/* length bytes of fd from offset on, read as they are pulled (pread; the descriptor stays the caller's). A file that has become
 * shorter: ERR_IO. */
struct body *body_of_file(int fd, uint64_t offset, uint64_t length);

#endif
