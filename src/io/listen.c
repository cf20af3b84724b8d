/* listen.c - listening sockets and numeric addresses.
 *
 * The descriptor is edge-triggered, so everything that stops accepting early (a long queue, no descriptors left) has to
 * arrange its own return: a task for the first, a timer for the second. `spare_fd` is a descriptor held back: when no
 * other is left it is given up for the moment it takes to accept and close one connection, which tells the client
 * something instead of leaving it in the queue, and shortens the queue. */
#include "io/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "base/str.h"

#define LISTENER_MAGIC 0x6c73746eu
#define ACCEPTS_PER_TURN 64
#define PAUSE_MS 100
#define LOG_EVERY_MS 60000

struct listener {
    uint32_t magic;
    int fd, spare_fd;
    accept_fn *fn;
    void *arg;
    struct loop *loop;
    struct watch watch;
    struct task more;
    struct timer pause;
    uint64_t logged_ms; /* 0: never */
    bool accepting, stopped;
};

/* ---- addresses */

static bool parse_port(struct str s, in_port_t *port)
{
    uint64_t v;
    if (!str_to_u64(s, &v) || v > 65535) return false;
    *port = htons((uint16_t)v);
    return true;
}

static enum err parse_v6(struct str host, in_port_t port, struct address *out)
{
    struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)&out->ss;
    char text[INET6_ADDRSTRLEN];
    if (host.n >= sizeof text) return ERR_CONFIG;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    if (inet_pton(AF_INET6, text, &sin6->sin6_addr) != 1) return ERR_CONFIG;
    sin6->sin6_family = AF_INET6;
    sin6->sin6_port = port;
    out->len = sizeof *sin6;
    return ERR_OK;
}

/* "" and "*": all IPv4 addresses; "[::]" is all IPv6 ones, and only these, so that both can be listed. */
static enum err parse_v4(struct str host, in_port_t port, struct address *out)
{
    struct sockaddr_in *sin = (struct sockaddr_in *)&out->ss;
    char text[INET_ADDRSTRLEN];
    if (host.n == 0 || str_eq(host, STR_LIT("*"))) host = STR_LIT("0.0.0.0");
    if (host.n >= sizeof text) return ERR_CONFIG;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    if (inet_pton(AF_INET, text, &sin->sin_addr) != 1) return ERR_CONFIG;
    sin->sin_family = AF_INET;
    sin->sin_port = port;
    out->len = sizeof *sin;
    return ERR_OK;
}

enum err address_parse(const char *text, struct address *out)
{
    struct str s = str_c(text);
    in_port_t port;
    memset(out, 0, sizeof *out);
    if (str_starts(s, STR_LIT("unix:"))) return ERR_NOT_SUPPORTED;
    if (s.n && s.p[0] == '[') {
        size_t end = str_find(s, ']');
        if (end + 1 >= s.n || s.p[end + 1] != ':' || !parse_port(str_make(s.p + end + 2, s.n - end - 2), &port))
            return ERR_CONFIG;
        return parse_v6(str_make(s.p + 1, end - 1), port, out);
    }
    size_t colon = str_find(s, ':');
    if (colon == s.n || !parse_port(str_make(s.p + colon + 1, s.n - colon - 1), &port)) return ERR_CONFIG;
    return parse_v4(str_make(s.p, colon), port, out);
}

char *address_format(const struct sockaddr *sa, char *buf, size_t n)
{
    char host[INET6_ADDRSTRLEN] = "";
    if (sa->sa_family == AF_INET) {
        const struct sockaddr_in *sin = (const struct sockaddr_in *)(const void *)sa;
        inet_ntop(AF_INET, &sin->sin_addr, host, sizeof host);
        snprintf(buf, n, "%s:%u", host, ntohs(sin->sin_port));
    } else if (sa->sa_family == AF_INET6) {
        const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)(const void *)sa;
        inet_ntop(AF_INET6, &sin6->sin6_addr, host, sizeof host);
        snprintf(buf, n, "[%s]:%u", host, ntohs(sin6->sin6_port));
    } else {
        snprintf(buf, n, "%s", sa->sa_family == AF_UNIX ? "unix:" : "unknown");
    }
    return buf;
}

/* ---- sockets */

enum err listen_open(const struct address *a, int backlog, int *fd)
{
    int on = 1;
    *fd = -1;
    int s = socket(a->ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (s < 0) return ERR_IO;
    if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0) goto fail;
    if (setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) goto fail;
    if (a->ss.ss_family == AF_INET6 && setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) goto fail;
    if (bind(s, (const struct sockaddr *)&a->ss, a->len) != 0) goto fail;
    if (listen(s, backlog) != 0) goto fail;
    *fd = s;
    return ERR_OK;
fail:;
    int saved = errno;
    close(s);
    errno = saved;
    return ERR_IO;
}

static int spare_open(void)
{
    return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void listener_pause(struct listener *ls, const char *why)
{
    uint64_t now = loop_now_ms(ls->loop);
    if (ls->logged_ms == 0 || now - ls->logged_ms >= LOG_EVERY_MS) {
        ls->logged_ms = now ? now : 1;
        log_error("cannot accept connections: %s; pausing for %d ms at a time", why, PAUSE_MS);
    }
    timer_set(&ls->pause, PAUSE_MS);
}

static void shed_one(struct listener *ls)
{
    if (ls->spare_fd < 0) return;
    close(ls->spare_fd);
    int fd = accept4(ls->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) close(fd);
    ls->spare_fd = spare_open();
}

/* Not the listening socket's fault but the one connection's: accept(2), "Error handling". */
static bool is_connection_error(int number)
{
    switch (number) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case EPERM: /* a firewall rule */
        return true;
    default:
        return false;
    }
}

/* False when there is nothing more to accept for now. */
static bool accept_one(struct listener *ls)
{
    struct address peer = {.len = sizeof peer.ss};
    int fd = accept4(ls->fd, (struct sockaddr *)&peer.ss, &peer.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        ls->fn(ls->arg, fd, &peer);
        return !ls->stopped;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (is_connection_error(errno)) return true;
    const char *why = strerror(errno);
    if (errno == EMFILE || errno == ENFILE) shed_one(ls);
    listener_pause(ls, why);
    return false;
}

static void listener_free(struct listener *ls)
{
    if (ls->spare_fd >= 0) close(ls->spare_fd);
    ls->magic = 0;
    free(ls);
}

static void accept_some(struct listener *ls)
{
    unsigned i = 0;
    ls->accepting = true;
    while (i < ACCEPTS_PER_TURN && accept_one(ls)) i++;
    ls->accepting = false;
    if (ls->stopped)
        listener_free(ls);
    else if (i == ACCEPTS_PER_TURN)
        task_schedule(&ls->more);
}

static void on_ready(struct watch *w, unsigned ready)
{
    struct listener *ls = container_of(w, struct listener, watch);
    (void)ready;
    if (ls->pause.due_ms == 0) accept_some(ls);
}

static void on_more(struct task *t)
{
    accept_some(container_of(t, struct listener, more));
}

static void on_pause_over(struct timer *t)
{
    struct listener *ls = container_of(t, struct listener, pause);
    if (ls->spare_fd < 0) ls->spare_fd = spare_open();
    accept_some(ls);
}

enum err listener_start(struct loop *l, int fd, accept_fn *fn, void *arg, struct listener **out)
{
    *out = NULL;
    struct listener *ls = calloc(1, sizeof *ls);
    if (!ls) return ERR_NOMEM;
    ls->magic = LISTENER_MAGIC;
    ls->fd = fd;
    ls->fn = fn;
    ls->arg = arg;
    ls->loop = l;
    watch_init(&ls->watch, l, on_ready);
    task_init(&ls->more, l, on_more);
    timer_init(&ls->pause, l, on_pause_over);
    ls->spare_fd = spare_open(); /* -1: then a full process closes nothing, it only pauses */
    enum err e = watch_start(&ls->watch, fd);
    if (e != ERR_OK) {
        listener_free(ls);
        return e;
    }
    *out = ls;
    return ERR_OK;
}

void listener_stop(struct listener *ls)
{
    if (!ls) return;
    CHECK_OBJ(ls, LISTENER_MAGIC);
    watch_stop(&ls->watch);
    task_cancel(&ls->more);
    timer_stop(&ls->pause);
    close(ls->fd);
    ls->fd = -1;
    ls->stopped = true;
    if (!ls->accepting) listener_free(ls); /* else accept_some does when the callback has returned */
}
