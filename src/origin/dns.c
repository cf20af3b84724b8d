/* dns.c - the address cache of one origin.
 *
 * Everything is under one lock, held for copies only. At most one lookup runs at a time; who asks meanwhile waits for its
 * result (or is served the old one). The lookup thread is detached and holds a reference: a resolver that hangs delays
 * nobody's shutdown. Results are posted under the lock, so a waiter that takes the lock in its delivery knows that the
 * poster is done with its mailbox. */
#include "origin/dns.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"

#define DNS_MAGIC 0x646e7363u
#define REFRESH_MS 30000
#define STALE_MAX_MS 300000 /* older than this, a waiter rather waits for the refresh */
#define AFTER_FAILURE_MS 1000
#define AVOID_MS 10000

struct dns {
    uint32_t magic;
    char *host;
    char port[8];
    bool numeric;
    pthread_mutex_t lock;
    /* under the lock */
    unsigned refs;
    bool looking;
    uint64_t good_ms, tried_ms; /* last success, last attempt's end; 0 = never */
    bool last_failed;
    struct dns_list list; /* in getaddrinfo's order */
    uint64_t failed_ms[DNS_ADDRESSES_MAX];
    struct list waiters;
};

static uint64_t now_ms(void) { return clock_ns() / 1000000; }

/* ---- ordering */

/* Indexes of one family, rotated by a random start. */
static unsigned family_take(const struct dns *d, bool same, unsigned *out)
{
    unsigned n = 0, tmp[DNS_ADDRESSES_MAX];
    sa_family_t first = d->list.at[0].ss.ss_family;
    for (unsigned i = 0; i < d->list.n; i++)
        if ((d->list.at[i].ss.ss_family == first) == same) tmp[n++] = i;
    unsigned start = n ? (unsigned)(random_u64() % n) : 0;
    for (unsigned i = 0; i < n; i++) out[i] = tmp[(start + i) % n];
    return n;
}

static void list_order_locked(const struct dns *d, struct dns_list *out)
{
    unsigned a[DNS_ADDRESSES_MAX], b[DNS_ADDRESSES_MAX], mixed[DNS_ADDRESSES_MAX], n = 0;
    uint64_t now = now_ms();
    unsigned na = family_take(d, true, a), nb = family_take(d, false, b);
    for (unsigned i = 0; i < na || i < nb; i++) { /* RFC 8305 section 4: families take turns */
        if (i < na) mixed[n++] = a[i];
        if (i < nb) mixed[n++] = b[i];
    }
    out->n = 0;
    for (int avoided = 0; avoided < 2; avoided++)
        for (unsigned i = 0; i < n; i++) {
            uint64_t failed = d->failed_ms[mixed[i]];
            if ((failed && now - failed < AVOID_MS) == avoided) out->at[out->n++] = d->list.at[mixed[i]];
        }
}

/* ---- the lookup */

static void list_from(const struct addrinfo *ai, struct dns_list *out)
{
    out->n = 0;
    for (; ai && out->n < DNS_ADDRESSES_MAX; ai = ai->ai_next) {
        if (ai->ai_family != AF_INET && ai->ai_family != AF_INET6) continue;
        if (ai->ai_addrlen > sizeof out->at[0].ss) continue;
        struct address *a = &out->at[out->n++];
        memset(a, 0, sizeof *a);
        memcpy(&a->ss, ai->ai_addr, ai->ai_addrlen);
        a->len = ai->ai_addrlen;
    }
}

static bool address_eq(const struct address *a, const struct address *b)
{
    return a->len == b->len && memcmp(&a->ss, &b->ss, a->len) == 0;
}

static enum err host_resolve(const struct dns *d, int flags, struct dns_list *out)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV}, *ai = NULL;
    int rc = getaddrinfo(d->host, d->port, &hints, &ai);
    if (rc != 0) {
        if (!(flags & AI_NUMERICHOST)) log_warn("cannot resolve %s: %s", d->host, gai_strerror(rc));
        return ERR_DNS;
    }
    list_from(ai, out);
    freeaddrinfo(ai);
    return out->n ? ERR_OK : ERR_DNS;
}

/* Addresses that stay keep what is known of their failures. */
static void list_replace_locked(struct dns *d, const struct dns_list *fresh)
{
    uint64_t failed[DNS_ADDRESSES_MAX] = {0};
    for (unsigned i = 0; i < fresh->n; i++)
        for (unsigned k = 0; k < d->list.n; k++)
            if (address_eq(&fresh->at[i], &d->list.at[k])) failed[i] = d->failed_ms[k];
    d->list = *fresh;
    memcpy(d->failed_ms, failed, sizeof failed);
}

static void wait_fill_locked(struct dns *d, struct dns_wait *w)
{
    w->list.n = 0;
    w->result = d->list.n ? ERR_OK : ERR_DNS;
    if (d->list.n) list_order_locked(d, &w->list);
}

static void dns_unref_locked_unlock(struct dns *d)
{
    bool last = --d->refs == 0;
    pthread_mutex_unlock(&d->lock);
    if (!last) return;
    pthread_mutex_destroy(&d->lock);
    free(d->host);
    free(d);
}

static void lookup_done_locked(struct dns *d, const struct dns_list *fresh)
{
    d->looking = false;
    d->tried_ms = now_ms();
    d->last_failed = fresh == NULL;
    if (fresh) {
        d->good_ms = d->tried_ms;
        list_replace_locked(d, fresh);
    }
    for (struct list *n; (n = list_pop_front(&d->waiters)) != NULL;) {
        struct dns_wait *w = container_of(n, struct dns_wait, link);
        wait_fill_locked(d, w);
        w->posted = true;
        mailbox_post_any_thread(w->mailbox, &w->mail);
    }
}

static void *lookup_thread(void *arg)
{
    struct dns *d = arg;
    struct dns_list fresh = {0};
    enum err e = host_resolve(d, 0, &fresh);
    pthread_mutex_lock(&d->lock);
    lookup_done_locked(d, e == ERR_OK ? &fresh : NULL);
    dns_unref_locked_unlock(d);
    return NULL;
}

static void lookup_start_locked(struct dns *d)
{
    sigset_t all, old;
    pthread_t thread;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) != 0) {
        lookup_done_locked(d, NULL);
        return;
    }
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* the new thread takes no signals meant for the process */
    d->looking = true;
    d->refs++;
    int rc = pthread_create(&thread, &attr, lookup_thread, d);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    if (rc == 0) return;
    log_error("cannot start a thread to resolve %s: %s", d->host, strerror(rc));
    d->refs--;
    lookup_done_locked(d, NULL);
}

/* ---- interface */

enum err dns_create(const char *host, unsigned port, struct dns **out)
{
    struct dns *d = calloc(1, sizeof *d);
    if (!d) return ERR_NOMEM;
    d->magic = DNS_MAGIC;
    d->refs = 1;
    d->host = str_dup(str_c(host));
    list_init(&d->waiters);
    snprintf(d->port, sizeof d->port, "%u", port & 0xffffu);
    if (!d->host || pthread_mutex_init(&d->lock, NULL) != 0) {
        free(d->host);
        free(d);
        return ERR_NOMEM;
    }
    d->numeric = host_resolve(d, AI_NUMERICHOST, &d->list) == ERR_OK;
    *out = d;
    return ERR_OK;
}

void dns_destroy(struct dns *d)
{
    CHECK_OBJ(d, DNS_MAGIC);
    pthread_mutex_lock(&d->lock);
    CHECK(list_empty(&d->waiters));
    dns_unref_locked_unlock(d);
}

static void wait_mail(struct mail *m)
{
    struct dns_wait *w = container_of(m, struct dns_wait, mail);
    pthread_mutex_lock(&w->dns->lock); /* the poster has let go of our mailbox */
    pthread_mutex_unlock(&w->dns->lock);
    w->done(w);
}

enum err dns_lookup(struct dns *d, struct dns_wait *w)
{
    CHECK_OBJ(d, DNS_MAGIC);
    w->dns = d;
    w->posted = false;
    w->mail.fn = wait_mail;
    list_init(&w->link);

    pthread_mutex_lock(&d->lock);
    uint64_t now = now_ms();
    bool fresh = d->numeric || (d->good_ms && now - d->good_ms < REFRESH_MS);
    bool just_failed = d->last_failed && now - d->tried_ms < AFTER_FAILURE_MS;
    if (!fresh && !d->looking && !just_failed) lookup_start_locked(d);
    bool usable = d->list.n && (fresh || !d->looking || now - d->good_ms < STALE_MAX_MS);
    enum err e = ERR_AGAIN;
    if (usable || !d->looking) {
        wait_fill_locked(d, w);
        e = w->result;
    } else {
        list_push_back(&d->waiters, &w->link);
    }
    pthread_mutex_unlock(&d->lock);
    return e;
}

bool dns_withdraw(struct dns_wait *w)
{
    pthread_mutex_lock(&w->dns->lock);
    bool ours = !w->posted;
    if (ours) list_remove(&w->link);
    pthread_mutex_unlock(&w->dns->lock);
    return ours;
}

void dns_mark(struct dns *d, const struct address *a, bool ok)
{
    pthread_mutex_lock(&d->lock);
    for (unsigned i = 0; i < d->list.n; i++)
        if (address_eq(a, &d->list.at[i])) d->failed_ms[i] = ok ? 0 : now_ms();
    pthread_mutex_unlock(&d->lock);
}
