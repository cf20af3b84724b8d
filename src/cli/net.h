/* net.h - the connections of a command: one event loop on the main thread and, on it, the proxy's own client stack (pooled
 * keepalive connections, HTTP/1.1 and HTTP/2, TLS, time limits, signing), as one origin of type s3.
 *
 * Everything here belongs to the main thread; one net at a time. SIGINT and SIGTERM arrive on the loop: the first sets
 * `interrupted`, calls on_interrupt and stops the loop; outside of the loop it makes a write that blocks fail with EINTR. A
 * second one ends the process at once. */
#ifndef S3P_CLI_NET_H
#define S3P_CLI_NET_H

#include "origin/origin.h"
#include "origin/retry.h"

#define NET_CONNECTIONS 64u /* unless asked for others */
#define NET_DEFAULT_URL "http://127.0.0.1:8080"

/* What the command line says; strings live as long as the net. */
struct net_options {
    const char *url;         /* NULL: S3DLIO_PROXY_URL, AWS_ENDPOINT_URL, NET_DEFAULT_URL, in this order */
    const char *region;      /* NULL: from the environment or the profile */
    const char *profile;     /* of the AWS files; NULL: AWS_PROFILE, "default" */
    const char *ca_file;     /* PEM; NULL: AWS_CA_BUNDLE, the system's */
    const char *http2;       /* "auto" (NULL: the same), "off", "prior-knowledge" */
    bool insecure;           /* certificates are not checked */
    bool no_sign;            /* not even when there are credentials */
    uint64_t connections;    /* at most; 0: 64 */
    uint64_t connect_ms, first_byte_ms, stall_ms; /* 0: 5 s, 60 s, 60 s */
    uint64_t retries;        /* tries after the first one */
};
struct net {
    struct loop *loop;
    struct mailbox *mailbox;
    struct origin_conf conf;
    struct origin *origin;
    struct origin_worker *worker;
    struct retry_budget budget;
    char url[640];           /* the endpoint, without what could be secret */
    struct oplog *oplog;     /* oplog.h: where listers log their pages; NULL: nowhere. The owner of the net sets it */
    bool interrupted;
    void (*on_interrupt)(void *arg); /* cancels what is under way; NULL: only the loop stops */
    void *interrupt_arg;
    /* private */
    struct event *wake;
    bool closed;
};
/* False: one line for people is in msg. Credentials, if there are any in the environment or the profile files, sign;
 * without any, requests go unsigned. */
bool net_open(struct net *net, const struct net_options *o, char *msg, size_t n);
void net_close(struct net *net); /* all calls have ended or were cancelled */
/* Runs the loop until net_stop or an interrupt; false: interrupted. */
bool net_run(struct net *net);
void net_stop(struct net *net);
bool net_interrupted(const struct net *net); /* also by a signal that the loop has not seen yet */

#endif
