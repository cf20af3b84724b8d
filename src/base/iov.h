/* iov.h - arithmetic on iovec arrays. */
#ifndef S3P_BASE_IOV_H
#define S3P_BASE_IOV_H

#include <stddef.h>
#include <sys/uio.h>

size_t iov_bytes(const struct iovec *iov, unsigned n);
/* Drop the first `bytes` bytes; returns how many entries remain, *iov advanced in place (entries are edited). */
unsigned iov_advance(struct iovec **iov, unsigned n, size_t bytes);

#endif
