/* lines.c - see the header.
 *
 * Nothing is read before poll says that a read will not wait; the descriptor's mode stays as it is, since standard input is
 * shared with others. */
#include "cli/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/loop.h"

struct lines {
    int fd;
    bool own;            /* to be closed */
    bool ended;
    struct event *ready;
    void (*more)(void *arg);
    void *arg;
    size_t start, end;   /* of what is in bytes and has not been given */
    char bytes[LINES_MAX_BYTES + 1];
};

static void is_ready(evutil_socket_t fd, short what, void *arg)
{
    struct lines *l = arg;

    (void)fd;
    (void)what;
    l->more(l->arg);
}

int lines_open(struct loop *loop, const char *path, void (*more)(void *arg), void *arg, struct lines **out)
{
    struct lines *l = malloc(sizeof *l);

    *out = NULL;
    if (!l) return ENOMEM;
    *l = (struct lines){.fd = STDIN_FILENO, .more = more, .arg = arg};
    l->own = strcmp(path, "-") != 0;
    if (l->own) l->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe that nobody writes to is not waited for */
    if (l->fd >= 0) l->ready = event_new(loop_base(loop), l->fd, EV_READ, is_ready, l);
    if (l->ready) {
        *out = l;
        return 0;
    }
    int why = l->fd < 0 ? errno : ENOMEM;
    l->own = l->own && l->fd >= 0;
    lines_close(l);
    return why;
}

void lines_close(struct lines *l)
{
    if (!l) return;
    if (l->ready) event_free(l->ready);
    if (l->own) close(l->fd);
    free(l);
}

/* A whole line, or what is left at the end. */
static bool take(struct lines *l, struct str *line)
{
    char *p = l->bytes + l->start, *nl = memchr(p, '\n', l->end - l->start);
    size_t n = nl ? (size_t)(nl - p) : l->end - l->start;

    if (!nl && (!l->ended || n == 0)) return false;
    l->start += n + (nl != NULL);
    if (n && nl && p[n - 1] == '\r') n--;
    p[n] = '\0';
    *line = str_make(p, n);
    return true;
}

static enum err fill(struct lines *l)
{
    struct pollfd p = {.fd = l->fd, .events = POLLIN};

    memmove(l->bytes, l->bytes + l->start, l->end - l->start);
    l->end -= l->start;
    l->start = 0;
    if (l->end == LINES_MAX_BYTES) {
        errno = EMSGSIZE;
        return ERR_IO;
    }
    if (poll(&p, 1, 0) <= 0) {
        event_add(l->ready, NULL);
        return ERR_AGAIN;
    }
    ssize_t n = read(l->fd, l->bytes + l->end, LINES_MAX_BYTES - l->end);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return ERR_OK;
    if (n < 0) return ERR_IO;
    l->ended = n == 0;
    l->end += (size_t)n;
    return ERR_OK;
}

enum err lines_next(struct lines *l, struct str *line)
{
    while (!take(l, line)) {
        enum err e = l->ended ? ERR_END : fill(l);
        if (e != ERR_OK) return e;
    }
    return ERR_OK;
}
