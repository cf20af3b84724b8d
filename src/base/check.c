/* check.c - what happens when one of our own invariants does not hold: one line on stderr, then a core.
 *
 * Nothing here allocates, locks or formats through stdio: the process is in an unknown state, and the line must come
 * out even if the failing thread holds the log's lock. */
#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t append(char *buf, size_t cap, size_t at, const char *s)
{
    size_t n = strlen(s);
    if (n > cap - at) n = cap - at;
    memcpy(buf + at, s, n);
    return at + n;
}

_Noreturn void check_failed(const char *what, const char *file, int line)
{
    char buf[512], digits[16];
    size_t at = 0, i = sizeof digits;
    unsigned v = line > 0 ? (unsigned)line : 0;

    digits[--i] = '\0';
    do {
        digits[--i] = (char)('0' + v % 10);
        v /= 10;
    } while (v && i);
    at = append(buf, sizeof buf - 1, at, "check failed: ");
    at = append(buf, sizeof buf - 1, at, what);
    at = append(buf, sizeof buf - 1, at, " at ");
    at = append(buf, sizeof buf - 1, at, file);
    at = append(buf, sizeof buf - 1, at, ":");
    at = append(buf, sizeof buf - 1, at, digits + i);
    buf[at++] = '\n';
    if (write(STDERR_FILENO, buf, at) < 0) abort(); /* nowhere to say it: the core still tells */
    abort();
}
