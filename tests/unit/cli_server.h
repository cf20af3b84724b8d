/* cli_server.h - what the tests of src/cli share: a server that gives one scripted answer after the other, whatever connection
 * the requests come on, and remembers the requests; and a net to ask it with. */
#ifndef S3P_TESTS_CLI_SERVER_H
#define S3P_TESTS_CLI_SERVER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/call.h"

#define REQUESTS_MAX 32u

struct reply {
    const char *text;  /* head and beginning of the body; NULL: the connection is closed without an answer */
    const char *more;  /* sent `times` times behind it */
    unsigned times;
    enum { THEN_KEEP, THEN_CLOSE, THEN_HANG } then;
};
struct cli_server {
    int fd;
    unsigned port;
    pthread_t thread;
    pthread_mutex_t lock;
    const struct reply *replies; /* the last one again and again */
    unsigned nreplies, nrequests;
    char requests[REQUESTS_MAX][2048];
    _Atomic bool stop;
    _Atomic unsigned threads;
};
struct cli_peer {
    struct cli_server *s;
    int fd;
};

static inline void peer_wait(struct cli_peer *c)
{
    char b[4096];
    while (!atomic_load(&c->s->stop)) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        if (poll(&p, 1, 20) > 0 && recv(c->fd, b, sizeof b, 0) <= 0) return;
    }
}

static inline bool peer_send(struct cli_peer *c, const char *text)
{
    for (size_t n = strlen(text); n;) {
        struct pollfd p = {.fd = c->fd, .events = POLLOUT};
        if (atomic_load(&c->s->stop)) return false;
        if (poll(&p, 1, 20) == 0) continue;
        ssize_t put = send(c->fd, text, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put <= 0) return false;
        text += put;
        n -= (size_t)put;
    }
    return true;
}

/* One request, head and body, into the server's list; false: the connection ended. */
static inline bool peer_read(struct cli_peer *c, char *buf, size_t max)
{
    size_t n = 0, want = 0;
    do {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        while (!atomic_load(&c->s->stop) && poll(&p, 1, 20) == 0) {
        }
        ssize_t got = atomic_load(&c->s->stop) || n + 1 >= max ? 0 : recv(c->fd, buf + n, max - 1 - n, 0);
        if (got <= 0) return false;
        n += (size_t)got;
        buf[n] = '\0';
        const char *end = strstr(buf, "\r\n\r\n"), *length = strcasestr(buf, "content-length:");
        if (end) want = (size_t)(end + 4 - buf) + (length && length < end ? strtoul(length + 15, NULL, 10) : 0);
    } while (!want || n < want);
    return true;
}

static inline void *peer_main(void *arg)
{
    struct cli_peer *c = arg;
    struct cli_server *s = c->s;
    char buf[2048];
    bool on = true;
    while (on && peer_read(c, buf, sizeof buf)) {
        pthread_mutex_lock(&s->lock);
        const struct reply *r = &s->replies[s->nrequests < s->nreplies ? s->nrequests : s->nreplies - 1];
        if (s->nrequests < REQUESTS_MAX) strcpy(s->requests[s->nrequests], buf);
        s->nrequests++;
        pthread_mutex_unlock(&s->lock);
        on = r->text && peer_send(c, r->text);
        for (unsigned i = 0; on && i < r->times; i++) on = peer_send(c, r->more);
        if (on && r->then == THEN_HANG) peer_wait(c);
        on = on && r->then == THEN_KEEP;
    }
    close(c->fd);
    free(c);
    atomic_fetch_sub(&s->threads, 1);
    return NULL;
}

static inline void *cli_server_main(void *arg)
{
    struct cli_server *s = arg;
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {.fd = s->fd, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0) continue;
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0) continue;
        struct cli_peer *c = calloc(1, sizeof *c);
        pthread_t t;
        *c = (struct cli_peer){s, fd};
        atomic_fetch_add(&s->threads, 1);
        if (pthread_create(&t, NULL, peer_main, c) != 0) abort();
        pthread_detach(t);
    }
    return NULL;
}

static inline void cli_server_start(struct cli_server *s, const struct reply *replies, unsigned n)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    s->replies = replies;
    s->nreplies = n;
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(s->fd, 64) != 0) abort();
    getsockname(s->fd, (struct sockaddr *)&a, &len);
    s->port = ntohs(a.sin_port);
    if (pthread_create(&s->thread, NULL, cli_server_main, s) != 0) abort();
}

static inline void cli_server_stop(struct cli_server *s)
{
    struct timespec pause = {.tv_nsec = 5000000};
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 1000 && atomic_load(&s->threads); i++) nanosleep(&pause, NULL);
    assert_int_equal(atomic_load(&s->threads), 0);
    close(s->fd);
    pthread_mutex_destroy(&s->lock);
}

static inline unsigned cli_server_requests(struct cli_server *s)
{
    pthread_mutex_lock(&s->lock);
    unsigned n = s->nrequests;
    pthread_mutex_unlock(&s->lock);
    return n;
}

/* A net to it: unsigned, so many further tries. */
static inline void cli_net_open(struct net *net, unsigned port, unsigned retries)
{
    static char url[64];
    char msg[256];
    struct net_options o = {.url = url, .no_sign = true, .retries = retries, .http2 = "off", .first_byte_ms = 20000, .stall_ms = 20000};
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    if (!net_open(net, &o, msg, sizeof msg)) {
        fprintf(stderr, "net_open: %s\n", msg);
        abort();
    }
    net->conf.retry_base_ms = 2; /* tests do not wait */
    net->conf.retry_cap_ms = 5;
}

#endif
