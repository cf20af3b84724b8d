/* listen.h - a listening socket of one worker (SO_REUSEPORT), and what happens when descriptors run out: a spare
 * descriptor is used to take and close one connection, accepting pauses for 100 ms, and it is logged once per minute. */
#ifndef S3P_IO_LISTEN_H
#define S3P_IO_LISTEN_H

#include <sys/socket.h>

#include "io/loop.h"

struct address {
    struct sockaddr_storage ss;
    socklen_t len;
};
/* "127.0.0.1:8080", "[::1]:8080", "*:8080", ":8080", "unix:/path" is ERR_NOT_SUPPORTED. Numeric only. */
enum err address_parse(const char *text, struct address *out);
/* "127.0.0.1:8080" / "[::1]:8080"; buf at least 64 bytes; returns buf. */
char *address_format(const struct sockaddr *sa, char *buf, size_t n);

/* Bound and listening, non-blocking, SO_REUSEPORT (backlog bounded by somaxconn). errno tells why on ERR_IO. */
enum err listen_open(const struct address *a, int backlog, int *fd);
struct listener;
typedef void accept_fn(void *arg, int fd, const struct address *peer);
/* Takes over fd. The callback owns each accepted (non-blocking, close-on-exec) descriptor. */
enum err listener_start(struct loop *l, int fd, accept_fn *fn, void *arg, struct listener **out);
void listener_stop(struct listener *ls); /* closes the socket */

#endif
