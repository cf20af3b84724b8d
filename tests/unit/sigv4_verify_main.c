/* sigv4_verify_main.c - checks the signature of one raw HTTP request head read from standard input.
 *
 *   sigv4_verify ACCESS_KEY SECRET_KEY [NOW]      NOW: seconds since the epoch, default: now
 *
 * Prints OK and exits 0, or prints the error's name and exits 1; 2: could not even try. What follows the head (a body)
 * is not looked at. Used by tests/system/test_sigv4_boto3.py. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "base/pool.h"
#include "http/h1_parse.h"
#include "http/uri.h"
#include "s3/sigv4.h"

#define INPUT_MAX ((size_t)1 << 18)
#define MAX_HDRS 200

struct account {
    struct str access_key, secret_key;
};

static bool lookup(void *arg, struct str access_key, struct str *secret)
{
    const struct account *a = arg;
    if (!str_eq(a->access_key, access_key)) return false;
    *secret = a->secret_key;
    return true;
}

static bool read_input(char *buf, size_t *n)
{
    *n = 0;
    while (*n < INPUT_MAX) {
        ssize_t got = read(STDIN_FILENO, buf + *n, INPUT_MAX - *n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return false;
        if (got == 0) break;
        *n += (size_t)got;
    }
    return true;
}

static enum err check(const char *buf, size_t n, struct account *account, int64_t now_s, struct pool *pool)
{
    const struct h1_limits limits = {INPUT_MAX, INPUT_MAX / 2, MAX_HDRS};
    struct hdr hdrs[MAX_HDRS];
    struct head head;
    struct target target;
    size_t scanned = 0, used = 0;

    enum err e = h1_parse_request(buf, n, &scanned, &limits, hdrs, &head, &used);
    if (!e) e = target_parse(head.target, &target);
    if (e) return e;
    return sigv4_verify(&head, target.path, target.query, head_value(&head, HDR_HOST), now_s, lookup, account, pool);
}

int main(int argc, char **argv)
{
    int status = 2;
    size_t n = 0;
    char *buf = malloc(INPUT_MAX);
    struct pool *pool = pool_create((size_t)8 << 20);

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s ACCESS_KEY SECRET_KEY [NOW] < request\n", argv[0]);
    } else if (!buf || !pool) {
        fprintf(stderr, "out of memory\n");
    } else if (!read_input(buf, &n)) {
        perror("standard input");
    } else {
        struct account account = {str_c(argv[1]), str_c(argv[2])};
        int64_t now_s = argc == 4 ? strtoll(argv[3], NULL, 10) : (int64_t)time(NULL);
        enum err e = check(buf, n, &account, now_s, pool);
        puts(err_name(e));
        status = e ? 1 : 0;
    }
    pool_destroy(pool);
    free(buf);
    return status;
}
