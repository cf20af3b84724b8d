/* test_log.c - the error log and other log files: writer thread, rotation, drops, forged lines. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/str.h"

struct dir {
    char path[64], log[96], other[96];
};

static int setup(void **state)
{
    struct dir *d = calloc(1, sizeof *d);
    snprintf(d->path, sizeof d->path, "/tmp/test_log.XXXXXX");
    if (!mkdtemp(d->path)) return -1;
    snprintf(d->log, sizeof d->log, "%s/log", d->path);
    snprintf(d->other, sizeof d->other, "%s/other", d->path);
    *state = d;
    return 0;
}

static int teardown(void **state)
{
    struct dir *d = *state;
    log_close();
    unlink(d->log);
    unlink(d->other);
    rmdir(d->path);
    free(d);
    return 0;
}

static struct strbuf file_read(const char *path)
{
    struct strbuf b;
    char buf[65536];
    strbuf_init(&b, (size_t)64 << 20);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    ssize_t n;
    while ((n = read(fd, buf, sizeof buf)) > 0) strbuf_add(&b, buf, (size_t)n);
    close(fd);
    strbuf_ch(&b, '\0');
    b.n--;
    return b;
}

static unsigned lines_with(struct str text, const char *needle)
{
    unsigned count = 0;
    struct str line;
    while (text.n && str_split(&text, '\n', &line)) count += memmem(line.p, line.n, needle, strlen(needle)) != NULL;
    return count;
}

static void lines_before_the_writer_are_written_at_once(void **state)
{
    struct dir *d = *state;
    assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
    struct stat st;
    assert_int_equal(stat(d->log, &st), 0);
    assert_int_equal(st.st_mode & 0777 & ~0640U, 0);
    errno = EBUSY;
    log_info("hello %d", 1);
    assert_int_equal(errno, EBUSY);
    log_debug("not this");
    assert_true(log_enabled(LOG_INFO));
    assert_false(log_enabled(LOG_DEBUG));
    struct strbuf b = file_read(d->log);
    assert_int_equal(lines_with(strbuf_get(&b), "Z [info] hello 1"), 1);
    assert_int_equal(lines_with(strbuf_get(&b), "not this"), 0);
    assert_int_equal(b.p[10], 'T');
    strbuf_free(&b);
}

static void control_bytes_cannot_forge_a_line(void **state)
{
    struct dir *d = *state;
    assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
    log_error("key %s", "a\n2030-01-01 [error] forged\x1b[2J\x7f");
    struct strbuf b = file_read(d->log);
    assert_int_equal(lines_with(strbuf_get(&b), "a\\x0a2030-01-01 [error] forged\\x1b[2J\\x7f"), 1);
    assert_int_equal(lines_with(strbuf_get(&b), ""), 1);
    strbuf_free(&b);
}

static void long_lines_are_cut(void **state)
{
    struct dir *d = *state;
    char *big = malloc(20001);
    memset(big, 'y', 20000);
    big[20000] = '\0';
    assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
    log_error("%s", big);
    memset(big, '\n', 20000);
    log_error("%s", big);
    free(big);
    struct strbuf b = file_read(d->log);
    assert_in_range(b.n, 8000, 2 * 8192);
    assert_int_equal(lines_with(strbuf_get(&b), "[error] "), 2);
    assert_int_equal(b.p[b.n - 1], '\n');
    strbuf_free(&b);
}

static void off_and_unwritable(void **state)
{
    (void)state;
    assert_int_equal(log_open("off", LOG_DEBUG), ERR_OK);
    assert_false(log_enabled(LOG_ERROR));
    log_error("nowhere");
    errno = 0;
    assert_int_equal(log_open("/nonexistent/dir/log", LOG_INFO), ERR_IO);
    assert_int_equal(errno, ENOENT);
    struct log_file *f;
    assert_int_equal(log_file_open("/nonexistent/dir/log", &f), ERR_IO);
    assert_null(f);
    assert_int_equal(log_file_open("off", &f), ERR_OK);
    log_file_write(f, "x\n", 2);
    log_file_reopen(f);
    log_file_close(f);
}

#define THREADS 4
#define LINES_EACH 1000

static void *log_many(void *arg)
{
    for (int i = 0; i < LINES_EACH; i++) log_info("thread %d line %d end", *(int *)arg, i);
    return NULL;
}

static void every_thread_s_lines_arrive_whole_and_in_order(void **state)
{
    struct dir *d = *state;
    pthread_t threads[THREADS];
    int ids[THREADS];
    assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
    assert_int_equal(log_start_writer(), ERR_OK);
    for (int i = 0; i < THREADS; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, log_many, &ids[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    log_close();
    struct strbuf b = file_read(d->log);
    int next[THREADS] = {0};
    struct str rest = strbuf_get(&b), line;
    while (rest.n && str_split(&rest, '\n', &line)) {
        const char *at = memmem(line.p, line.n, "thread ", 7);
        int id, number, used = 0;
        assert_non_null(at);
        assert_int_equal(sscanf(at, "thread %d line %d end%n", &id, &number, &used), 2);
        assert_ptr_equal(at + used, line.p + line.n);
        assert_in_range(id, 0, THREADS - 1);
        assert_int_equal(number, next[id]++);
    }
    for (int i = 0; i < THREADS; i++) assert_int_equal(next[i], LINES_EACH);
    strbuf_free(&b);
}

static void wait_for_size(const char *path, off_t at_least)
{
    struct stat st;
    for (int i = 0; i < 500; i++) {
        if (stat(path, &st) == 0 && st.st_size >= at_least) return;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    fail_msg("%s did not grow", path);
}

static void wait_for_file(const char *path)
{
    for (int i = 0; i < 500 && access(path, F_OK) != 0; i++) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(access(path, F_OK), 0);
}

static void reopen_after_rotation(void **state)
{
    struct dir *d = *state;
    for (int with_writer = 0; with_writer < 2; with_writer++) {
        assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
        if (with_writer) assert_int_equal(log_start_writer(), ERR_OK);
        log_info("before");
        wait_for_size(d->log, 10);
        assert_int_equal(rename(d->log, d->other), 0);
        log_reopen();
        wait_for_file(d->log);
        log_info("after");
        log_close();
        struct strbuf old = file_read(d->other), new = file_read(d->log);
        assert_int_equal(lines_with(strbuf_get(&old), "before"), 1);
        assert_int_equal(lines_with(strbuf_get(&old), "after"), 0);
        assert_int_equal(lines_with(strbuf_get(&new), "after"), 1);
        strbuf_free(&old);
        strbuf_free(&new);
        unlink(d->log);
        unlink(d->other);
    }
}

/* A pipe whose reader sleeps: the queue fills, the rest is dropped, and the two numbers add up. */
static void a_stuck_reader_costs_lines_not_time(void **state)
{
    struct dir *d = *state;
    enum { LINE_BYTES = 100, LINES = 100000 };
    char line[LINE_BYTES + 1];
    assert_int_equal(log_open(d->log, LOG_INFO), ERR_OK);
    assert_int_equal(mkfifo(d->other, 0600), 0);
    int reader = open(d->other, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct log_file *f;
    assert_int_equal(log_file_open(d->other, &f), ERR_OK);
    memset(line, 'z', sizeof line);
    for (int i = 0; i < LINES; i++) {
        int n = snprintf(line, sizeof line, "%08d", i);
        line[n] = 'z';
        line[LINE_BYTES - 1] = '\n';
        log_file_write(f, line, LINE_BYTES);
    }
    /* Now read all of it; one more line makes the writer tell. */
    size_t bytes = 0;
    unsigned idle = 0;
    bool last_sent = false;
    char buf[65536];
    while (idle < 50) {
        ssize_t n = read(reader, buf, sizeof buf);
        if (n > 0) {
            bytes += (size_t)n;
            idle = 0;
            continue;
        }
        if (bytes > (size_t)3 << 20 && !last_sent) {
            log_file_write(f, line, LINE_BYTES);
            last_sent = true;
        }
        idle++;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    close(reader);
    log_file_close(f);
    assert_int_equal(bytes % LINE_BYTES, 0);
    unsigned long written = bytes / LINE_BYTES, dropped = 0;
    assert_in_range(bytes, ((size_t)4 << 20) - LINE_BYTES, ((size_t)4 << 20) + 400000); /* queue and pipe */

    struct strbuf b = file_read(d->log);
    struct str rest = strbuf_get(&b), part;
    while (rest.n && str_split(&rest, '\n', &part)) {
        const char *at = memmem(part.p, part.n, "[warn] ", 7);
        unsigned long n;
        if (at && sscanf(at, "[warn] %lu lines of", &n) == 1) dropped += n;
    }
    strbuf_free(&b);
    assert_int_equal(written + dropped, LINES + 1);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(lines_before_the_writer_are_written_at_once),
        T(control_bytes_cannot_forge_a_line),
        T(long_lines_are_cut),
        T(off_and_unwritable),
        T(every_thread_s_lines_arrive_whole_and_in_order),
        T(reopen_after_rotation),
        T(a_stuck_reader_costs_lines_not_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
