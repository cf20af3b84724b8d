/* iov.c - arithmetic on iovec arrays. */
#include "base/iov.h"

#include "base/check.h"

size_t iov_bytes(const struct iovec *iov, unsigned n)
{
    size_t sum = 0;
    for (unsigned i = 0; i < n; i++) sum += iov[i].iov_len;
    return sum;
}

unsigned iov_advance(struct iovec **iov, unsigned n, size_t bytes)
{
    /* Entries that are (or became) empty are dropped too: a remaining count of 0 means that all is done. */
    while (n && (*iov)->iov_len <= bytes) {
        bytes -= (*iov)->iov_len;
        (*iov)++;
        n--;
    }
    CHECK(n > 0 || bytes == 0);
    if (bytes) {
        (*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
        (*iov)->iov_len -= bytes;
    }
    return n;
}
