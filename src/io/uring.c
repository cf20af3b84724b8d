/* uring.c - one io_uring_setup, to know whether there is such a thing here.
 *
 * Nothing in the proxy depends on the answer; it is said in the log and in the statistics, as a machine where disks are
 * read with threads only is a slower one. The call is made in a child: a seccomp profile may kill whoever makes it, and a
 * question must not end the proxy. */
#include "io/uring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stddef.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define KILLED 255

/* 0, or the errno of the call. */
static int uring_try(void)
{
    struct io_uring_params params = {0};
    long fd = syscall(SYS_io_uring_setup, 1u, &params);

    if (fd < 0) return errno;
    close((int)fd);
    return 0;
}

static enum uring uring_of_errno(int error)
{
    if (error == 0) return URING_AVAILABLE;
    return error == ENOSYS ? URING_NOT_SUPPORTED : URING_NOT_PERMITTED;
}

enum uring uring_probe(void)
{
    const struct rlimit no_core = {0, 0};
    int status;
    pid_t child = fork();

    if (child < 0) return uring_of_errno(uring_try());
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &no_core);
        int error = uring_try();
        _exit(error < KILLED ? error : KILLED);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return uring_of_errno(uring_try());
    return uring_of_errno(WIFEXITED(status) ? WEXITSTATUS(status) : KILLED);
}

const char *uring_text(enum uring u)
{
    switch (u) {
    case URING_AVAILABLE: return "available";
    case URING_NOT_PERMITTED: return "not permitted";
    case URING_NOT_SUPPORTED: break;
    }
    return "not supported";
}
