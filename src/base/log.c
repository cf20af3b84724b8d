/* log.c - append-only text files written by a thread of their own: the error log and the access logs.
 *
 * One `struct log_file` is a descriptor, a bounded buffer of whole lines and a writer thread. Posters append under the
 * lock; the writer swaps the full buffer for the empty one and writes without the lock, so a slow disk or pipe costs
 * posters nothing but lines, and those are counted. The writer naps for a few milliseconds after each round: under load
 * it is woken once per round, not once per line. The error log starts without its thread and then writes directly.
 *
 * Who may touch what: `lock` guards everything except `fd` and `path`; these belong to the writer thread while it runs,
 * and to whoever holds the lock before and after. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/str.h"

#define LOG_LINE_BYTES 8192
#define LOG_QUEUE_BYTES ((size_t)1 << 20)
#define LOG_FILE_QUEUE_BYTES ((size_t)4 << 20)
#define LOG_NAP_MS 5
#define LOG_STALL_MS 1000 /* how long a non-blocking pipe may stay full before a line is given up */

struct log_file {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    char *path; /* NULL: descriptor is not ours to reopen or close */
    int fd;     /* -1: off */
    struct strbuf queue;
    size_t in_write; /* bytes that the writer has taken and not finished: they count against the bound */
    uint64_t dropped;
    bool line_per_write, running, sleeping, stop, reopen;
    pthread_t writer;
};

/* The error log is the process's: one, usable before log_open (to stderr) and after log_close. */
static struct log_file error_log = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .wake = PTHREAD_COND_INITIALIZER,
    .fd = STDERR_FILENO,
    .queue = {.max = LOG_QUEUE_BYTES},
    .line_per_write = true,
};
static _Atomic int error_log_level = LOG_INFO;

/* ---- descriptors */

static int open_append(const char *path)
{
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640);
}

/* Sets path and fd from what the configuration says. */
static enum err file_set(struct log_file *f, const char *path)
{
    f->path = NULL;
    if (strcmp(path, "off") == 0) {
        f->fd = -1;
    } else if (strcmp(path, "stderr") == 0) {
        f->fd = STDERR_FILENO;
    } else if (strcmp(path, "stdout") == 0) {
        f->fd = STDOUT_FILENO;
    } else {
        int fd = open_append(path);
        if (fd < 0) return ERR_IO;
        f->path = strdup(path);
        if (!f->path) {
            close(fd);
            errno = ENOMEM;
            return ERR_IO;
        }
        f->fd = fd;
    }
    return ERR_OK;
}

static void file_unset(struct log_file *f)
{
    if (f->path) close(f->fd);
    free(f->path);
    f->path = NULL;
    f->fd = -1;
}

/* Keeps the old descriptor when the new file cannot be opened: a line in the rotated file is better than none. */
static void file_reopen_now(struct log_file *f)
{
    if (!f->path) return;
    int fd = open_append(f->path);
    if (fd < 0) {
        log_error("cannot reopen log file %s: %s", f->path, strerror(errno));
        return;
    }
    close(f->fd);
    f->fd = fd;
}

/* All n bytes; false when the file takes no more (full disk, broken or stuck pipe). */
static bool write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w > 0) {
            p += w;
            n -= (size_t)w;
            continue;
        }
        if (w < 0 && errno == EINTR) continue;
        if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            struct pollfd pfd = {.fd = fd, .events = POLLOUT};
            if (poll(&pfd, 1, LOG_STALL_MS) > 0 && !(pfd.revents & (POLLERR | POLLNVAL))) continue;
        }
        return false;
    }
    return true;
}

static uint64_t count_lines(struct str s)
{
    uint64_t lines = 0;
    struct str line;
    while (s.n && str_split(&s, '\n', &line)) lines++;
    return lines;
}

/* Returns how many lines were lost. */
static uint64_t write_lines(int fd, struct str text, bool line_per_write)
{
    if (fd < 0) return 0;
    if (!line_per_write) return write_all(fd, text.p, text.n) ? 0 : count_lines(text);
    while (text.n) {
        size_t end = str_find(text, '\n');
        size_t n = end < text.n ? end + 1 : text.n;
        if (!write_all(fd, text.p, n)) return count_lines(text);
        text = str_make(text.p + n, text.n - n);
    }
    return 0;
}

/* ---- the writer */

static void nap(void)
{
    struct timespec ts = {.tv_nsec = LOG_NAP_MS * 1000000L};
    nanosleep(&ts, NULL);
}

static void report_dropped(const struct log_file *f, uint64_t dropped)
{
    if (f == &error_log)
        log_warn("%llu log lines dropped", (unsigned long long)dropped);
    else
        log_warn("%llu lines of %s dropped", (unsigned long long)dropped, f->path ? f->path : "the access log");
}

/* Waits for work; false when there is none left and the end has come. Takes the queue in exchange for `empty`. */
static bool writer_take(struct log_file *f, struct strbuf *empty, bool *reopen, uint64_t *dropped)
{
    pthread_mutex_lock(&f->lock);
    f->in_write = 0;
    while (f->queue.n == 0 && !f->reopen && !f->stop) {
        f->sleeping = true;
        pthread_cond_wait(&f->wake, &f->lock);
    }
    f->sleeping = false;
    bool more = f->queue.n || f->reopen;
    struct strbuf full = f->queue;
    f->queue = *empty;
    *empty = full;
    f->in_write = full.n;
    *reopen = f->reopen;
    f->reopen = false;
    *dropped = more ? f->dropped : 0; /* at the end, the one who closes says it */
    f->dropped -= *dropped;
    pthread_mutex_unlock(&f->lock);
    return more;
}

static void *writer_main(void *arg)
{
    struct log_file *f = arg;
    struct strbuf buf;
    bool reopen, stop = false;
    uint64_t dropped;

    strbuf_init(&buf, f->queue.max);
    while (writer_take(f, &buf, &reopen, &dropped)) {
        if (reopen) file_reopen_now(f);
        uint64_t lost = write_lines(f->fd, strbuf_get(&buf), f->line_per_write);
        buf.n = 0;
        buf.failed = false;
        if (dropped) report_dropped(f, dropped);
        pthread_mutex_lock(&f->lock);
        f->dropped += lost; /* said once the file takes lines again */
        stop = f->stop;
        pthread_mutex_unlock(&f->lock);
        if (!stop) nap();
    }
    strbuf_free(&buf);
    return NULL;
}

/* Signals stay with the threads that were made for them. */
static enum err writer_start(struct log_file *f)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&f->writer, NULL, writer_main, f);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        errno = rc;
        return ERR_NOMEM;
    }
    f->running = true;
    return ERR_OK;
}

static void writer_stop(struct log_file *f)
{
    pthread_mutex_lock(&f->lock);
    bool running = f->running;
    f->stop = true;
    pthread_cond_signal(&f->wake);
    pthread_mutex_unlock(&f->lock);
    if (running) pthread_join(f->writer, NULL);

    pthread_mutex_lock(&f->lock);
    f->running = f->stop = false;
    /* A line that came in after the writer's last look. */
    f->dropped += write_lines(f->fd, strbuf_get(&f->queue), f->line_per_write);
    strbuf_free(&f->queue);
    uint64_t dropped = f->dropped;
    f->dropped = 0;
    pthread_mutex_unlock(&f->lock);
    if (dropped) report_dropped(f, dropped); /* the error log writes directly again */
}

static void queue_line_locked(struct log_file *f, const char *line, size_t n)
{
    if (n > f->queue.max - f->queue.n || f->queue.n + n > f->queue.max - f->in_write) {
        f->dropped++;
        return;
    }
    strbuf_add(&f->queue, line, n);
    if (f->queue.failed) {
        f->queue.failed = false; /* out of memory now; perhaps not for the next line */
        f->dropped++;
        return;
    }
    if (f->sleeping) {
        f->sleeping = false; /* one wake-up per sleep */
        pthread_cond_signal(&f->wake);
    }
}

/* ---- the error log */

enum err log_open(const char *path, enum log_level level)
{
    pthread_mutex_lock(&error_log.lock);
    CHECK(!error_log.running);
    struct log_file fresh = {.fd = -1};
    enum err e = file_set(&fresh, path);
    if (e == ERR_OK) {
        if (error_log.path) file_unset(&error_log);
        error_log.path = fresh.path;
        error_log.fd = fresh.fd;
        atomic_store_explicit(&error_log_level, fresh.fd < 0 ? -1 : (int)level, memory_order_relaxed);
    }
    pthread_mutex_unlock(&error_log.lock);
    return e;
}

enum err log_start_writer(void)
{
    pthread_mutex_lock(&error_log.lock);
    CHECK(!error_log.running);
    enum err e = writer_start(&error_log);
    pthread_mutex_unlock(&error_log.lock);
    return e;
}

void log_reopen(void)
{
    log_file_reopen(&error_log);
}

void log_close(void)
{
    writer_stop(&error_log);
    pthread_mutex_lock(&error_log.lock);
    file_unset(&error_log);
    error_log.fd = STDERR_FILENO;
    pthread_mutex_unlock(&error_log.lock);
    atomic_store_explicit(&error_log_level, LOG_INFO, memory_order_relaxed);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&error_log_level, memory_order_relaxed);
}

static size_t put_prefix(char *buf, size_t cap, enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    struct timespec ts;
    struct tm tm;
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(buf, cap, "%Y-%m-%dT%H:%M:%S", &tm);
    int more = snprintf(buf + n, cap - n, ".%03ldZ [%s] ", ts.tv_nsec / 1000000, names[level]);
    return n + (size_t)more;
}

/* What comes from outside may carry control bytes; on a terminal or in a log shipper these would forge lines. */
static size_t put_escaped(char *to, size_t cap, const char *from)
{
    static const char hex[] = "0123456789abcdef";
    size_t n = 0;
    for (; *from; from++) {
        unsigned char c = (unsigned char)*from;
        bool control = c < 0x20 || c == 0x7f;
        if (n + (control ? 4 : 1) > cap) break;
        if (!control) {
            to[n++] = (char)c;
            continue;
        }
        to[n++] = '\\';
        to[n++] = 'x';
        to[n++] = hex[c >> 4];
        to[n++] = hex[c & 15];
    }
    return n;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    if (!log_enabled(level)) return;

    int saved_errno = errno; /* logging must not change what the caller looks at next */
    char text[LOG_LINE_BYTES], line[LOG_LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    if (vsnprintf(text, sizeof text, fmt, ap) < 0) text[0] = '\0';
    va_end(ap);
    size_t n = put_prefix(line, 64, level);
    n += put_escaped(line + n, sizeof line - n - 1, text);
    line[n++] = '\n';

    pthread_mutex_lock(&error_log.lock);
    if (error_log.running)
        queue_line_locked(&error_log, line, n);
    else
        write_lines(error_log.fd, str_make(line, n), true);
    pthread_mutex_unlock(&error_log.lock);
    errno = saved_errno;
}

/* ---- other files */

enum err log_file_open(const char *path, struct log_file **out)
{
    *out = NULL;
    struct log_file *f = calloc(1, sizeof *f);
    if (!f) return ERR_NOMEM;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->wake, NULL);
    strbuf_init(&f->queue, LOG_FILE_QUEUE_BYTES);
    enum err e = file_set(f, path);
    if (e == ERR_OK && f->fd >= 0) e = writer_start(f);
    if (e != ERR_OK) {
        log_file_close(f);
        return e;
    }
    *out = f;
    return ERR_OK;
}

void log_file_write(struct log_file *f, const char *line, size_t n)
{
    if (!f->running) return; /* "off"; constant after open */
    pthread_mutex_lock(&f->lock);
    queue_line_locked(f, line, n);
    pthread_mutex_unlock(&f->lock);
}

void log_file_reopen(struct log_file *f)
{
    pthread_mutex_lock(&f->lock);
    if (f->running) {
        f->reopen = true;
        pthread_cond_signal(&f->wake);
        pthread_mutex_unlock(&f->lock);
        return;
    }
    pthread_mutex_unlock(&f->lock);
    file_reopen_now(f); /* start-up: still single-threaded */
}

void log_file_close(struct log_file *f)
{
    if (!f) return;
    writer_stop(f);
    file_unset(f);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->wake);
    free(f);
}
