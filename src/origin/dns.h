/* dns.h - the addresses of one origin's name, looked up off the workers' threads and shared by all of them.
 *
 * getaddrinfo(3) in a short-lived thread: it honours /etc/hosts and nsswitch and tells no TTL, so names are looked up
 * again every 30 s while they are used. Old addresses go on being used while that runs, and when it fails. Numeric hosts
 * never need any of it. */
#ifndef S3P_ORIGIN_DNS_H
#define S3P_ORIGIN_DNS_H

#include "io/listen.h"
#include "io/mailbox.h"

#define DNS_ADDRESSES_MAX 16

struct dns;
struct dns_list {
    unsigned n;
    struct address at[DNS_ADDRESSES_MAX];
};
struct dns_wait;
typedef void dns_done_fn(struct dns_wait *w);
/* Caller-owned until done was called or dns_withdraw said that it will not be. */
struct dns_wait {
    struct mailbox *mailbox; /* where done is to be called */
    dns_done_fn *done;
    enum err result;      /* ERR_OK or ERR_DNS */
    struct dns_list list; /* in the order to be tried: spread at random, families alternating, recent failures last */
    /* private */
    struct dns *dns;
    struct list link;
    struct mail mail;
    bool posted;
};

/* host without brackets. */
enum err dns_create(const char *host, unsigned port, struct dns **out);
void dns_destroy(struct dns *d); /* nobody waits; a lookup under way ends by itself */
/* Any thread. ERR_OK: w->list is filled at once. ERR_AGAIN: done will be called. ERR_DNS: failed a moment ago. */
enum err dns_lookup(struct dns *d, struct dns_wait *w);
/* True: done will not be called, w is the caller's again. False: it is on its way. */
bool dns_withdraw(struct dns_wait *w);
/* How a connect to one of the addresses went: failed ones come last for some seconds. Any thread. */
void dns_mark(struct dns *d, const struct address *a, bool ok);

#endif
