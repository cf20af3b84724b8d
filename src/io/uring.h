/* uring.h - whether this process may use io_uring: containers' seccomp profiles and a sysctl forbid it. */
#ifndef S3P_IO_URING_H
#define S3P_IO_URING_H

enum uring {
    URING_AVAILABLE,
    URING_NOT_PERMITTED, /* by a seccomp profile, by kernel.io_uring_disabled, or for want of lockable memory */
    URING_NOT_SUPPORTED, /* by this kernel, or what stands in for one */
};

/* Asks the kernel. At start, before there are threads: it forks. */
enum uring uring_probe(void);
/* "available", "not permitted", "not supported" */
const char *uring_text(enum uring u);

#endif
