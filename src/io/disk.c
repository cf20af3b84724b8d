/* disk.c - blocking file operations on a few threads.
 *
 * One queue for all threads; a job is the submitter's memory and comes back through its mailbox. Paths are resolved
 * beneath a directory by the kernel (openat2 with RESOLVE_BENEATH), so no check of ours can be raced by a renamed
 * directory or a new symbolic link.
 *
 * A listing walks depth-first. Within a directory, names are sorted as if directories ended in '/', which makes the
 * walk's order the bytewise order of whole paths; so it can skip what lies before `after` or outside `prefix` and stop
 * after `max` entries. No directory stays open while its children are walked. */
#include "io/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

#define DISK_MAGIC 0x6469736bu
#define OPEN_TRIES 16          /* openat2 gives EAGAIN when a rename elsewhere raced with the walk of ".." */
#define DIR_NAMES_MAX 1000000u /* in one directory */
#define PATHS_BYTES_MAX ((size_t)256 << 20)

struct disk {
    uint32_t magic;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct disk_job *head, **tail; /* under lock, like stop */
    bool stop;
    unsigned n_threads;
    pthread_t threads[];
};

static enum err errno_to_err(int number)
{
    switch (number) {
    case ENOENT:
    case ENOTDIR:
    case ENAMETOOLONG:
    case ENXIO: /* a socket, or a FIFO without a reader: no file */
    case ENODEV:
        return ERR_NOT_FOUND;
    case EACCES:
    case EPERM:
    case EXDEV: /* leads out of the directory */
    case ELOOP:
        return ERR_ACCESS_DENIED;
    case EMFILE:
    case ENFILE:
        return ERR_OVERLOAD;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return ERR_IO;
    }
}

/* ---- opening */

static int open_beneath(int dir_fd, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    for (unsigned tries = 0;;) {
        long fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
        if (fd >= 0) return (int)fd;
        if (errno == EINTR || (errno == EAGAIN && ++tries < OPEN_TRIES)) continue;
        return -1;
    }
}

static enum err run_open_stat(struct disk_job *j)
{
    int fd = open_beneath(j->dir_fd, j->path, O_RDONLY | O_NONBLOCK | O_NOCTTY | (j->want_dir ? O_DIRECTORY : 0));
    j->fd = -1;
    if (fd < 0) return errno_to_err(errno);
    if (fstat(fd, &j->st) != 0) {
        int saved = errno;
        close(fd);
        return errno_to_err(saved);
    }
    if (j->want_dir ? !S_ISDIR(j->st.st_mode) : !S_ISREG(j->st.st_mode)) {
        close(fd);
        return ERR_NOT_FOUND;
    }
    j->fd = fd;
    return ERR_OK;
}

static enum err run_read(struct disk_job *j)
{
    j->got = 0;
    if (j->offset > INT64_MAX - j->iov.iov_len) return ERR_IO;
    while (j->got < j->iov.iov_len) {
        ssize_t r = pread(j->fd, (char *)j->iov.iov_base + j->got, j->iov.iov_len - j->got,
                          (off_t)(j->offset + j->got));
        if (r == 0) break;
        if (r > 0)
            j->got += (size_t)r;
        else if (errno != EINTR)
            return errno_to_err(errno);
    }
    return ERR_OK;
}

/* ---- listing */

/* One name in a directory; `n` counts the '/' that a directory's name gets for sorting. */
struct dir_name {
    char *z;
    size_t n;
};
struct dir_names {
    struct dir_name *names;
    size_t n, cap;
};

struct walk {
    int root_fd;
    const struct disk_job *job;
    char path[PATH_MAX]; /* of the directory that is being walked, relative to root; ends in '/' or is empty */
    size_t path_n;
    struct disk_entry *entries; /* path.p is filled in at the end: `paths` moves while it grows */
    size_t n, cap;
    bool truncated;
    bool probing, found; /* only looking whether there is any file */
    struct strbuf paths;
};

static void names_free(struct dir_names *d)
{
    for (size_t i = 0; i < d->n; i++) free(d->names[i].z);
    free(d->names);
    *d = (struct dir_names){0};
}

static int compare_bytes(const char *a, size_t an, const char *b, size_t bn)
{
    size_t n = an < bn ? an : bn;
    int c = n ? memcmp(a, b, n) : 0;
    return c ? c : (an > bn) - (an < bn);
}

static int compare_names(const void *a, const void *b)
{
    const struct dir_name *x = a, *y = b;
    return compare_bytes(x->z, x->n, y->z, y->n);
}

/* Could a path that begins with `head` (all of it, when it is a file's) be wanted? */
static bool path_wanted(const struct disk_job *j, const char *head, size_t n, bool is_dir)
{
    size_t common = n < j->prefix.n ? n : j->prefix.n;
    if (common && memcmp(head, j->prefix.p, common) != 0) return false;
    if (!is_dir) return n >= j->prefix.n && compare_bytes(head, n, j->after.p, j->after.n) > 0;
    /* A directory's paths all sort before or at `after` only if its head already differs and is smaller. */
    common = n < j->after.n ? n : j->after.n;
    return common == 0 || memcmp(head, j->after.p, common) >= 0;
}

static enum err names_add(struct walk *w, struct dir_names *d, const char *name, bool is_dir)
{
    size_t n = strlen(name), total = w->path_n + n + is_dir;
    if (total >= sizeof w->path) return ERR_OK; /* a path that long cannot be opened either */
    memcpy(w->path + w->path_n, name, n);
    w->path[w->path_n + n] = '/';
    if (!path_wanted(w->job, w->path, total, is_dir)) return ERR_OK;

    if (d->n == d->cap) {
        if (d->n >= DIR_NAMES_MAX) return ERR_OVERLOAD;
        size_t cap = d->cap ? d->cap * 2 : 64;
        struct dir_name *more = realloc(d->names, cap * sizeof *more);
        if (!more) return ERR_NOMEM;
        d->names = more;
        d->cap = cap;
    }
    char *z = malloc(n + 2);
    if (!z) return ERR_NOMEM;
    memcpy(z, name, n);
    if (is_dir) z[n++] = '/';
    z[n] = '\0';
    d->names[d->n++] = (struct dir_name){z, n};
    return ERR_OK;
}

static bool entry_is_dir(int dir_fd, const struct dirent *de)
{
    struct stat st;
    if (de->d_type != DT_UNKNOWN) return de->d_type == DT_DIR;
    return fstatat(dir_fd, de->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

static enum err names_read(struct walk *w, DIR *dir, struct dir_names *d)
{
    enum err e = ERR_OK;
    while (e == ERR_OK) {
        errno = 0;
        const struct dirent *de = readdir(dir);
        if (!de) {
            if (errno) e = errno_to_err(errno);
            break;
        }
        if (strcmp(de->d_name, ".") == 0 || strcmp(de->d_name, "..") == 0) continue;
        bool other = de->d_type == DT_FIFO || de->d_type == DT_SOCK || de->d_type == DT_CHR || de->d_type == DT_BLK;
        if (!other) e = names_add(w, d, de->d_name, entry_is_dir(dirfd(dir), de));
        if (w->probing && d->n && de->d_type == DT_REG) break; /* most likely enough to say yes */
    }
    w->path[w->path_n] = '\0';
    if (e == ERR_OK && d->n) qsort(d->names, d->n, sizeof *d->names, compare_names);
    return e;
}

/* The sorted names of the directory w->path. One that vanished or may not be read is as good as empty. */
static enum err names_collect(struct walk *w, struct dir_names *d)
{
    *d = (struct dir_names){0};
    int fd = open_beneath(w->root_fd, w->path_n ? w->path : ".", O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (fd < 0) {
        enum err e = errno_to_err(errno);
        return e == ERR_NOT_FOUND || e == ERR_ACCESS_DENIED ? ERR_OK : e;
    }
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return ERR_NOMEM;
    }
    enum err e = names_read(w, dir, d);
    closedir(dir);
    if (e != ERR_OK) names_free(d);
    return e;
}

/* Metadata of the file w->path + name, through the same resolution by which it would be opened. */
static bool file_stat(struct walk *w, const struct dir_name *name, struct stat *st, enum err *e)
{
    memcpy(w->path + w->path_n, name->z, name->n + 1);
    int fd = open_beneath(w->root_fd, w->path, O_PATH);
    w->path[w->path_n] = '\0';
    if (fd < 0) {
        *e = errno_to_err(errno);
        if (*e == ERR_NOT_FOUND || *e == ERR_ACCESS_DENIED) *e = ERR_OK; /* vanished, or a link to nowhere */
        return false;
    }
    bool ok = fstat(fd, st) == 0 && S_ISREG(st->st_mode);
    close(fd);
    return ok;
}

/* Appends the entry named w->path + name; entry says everything but the path. */
static enum err entry_push(struct walk *w, struct str name, struct disk_entry entry)
{
    if (w->n == w->job->max) {
        w->truncated = true;
        return ERR_OK;
    }
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 64;
        struct disk_entry *more = realloc(w->entries, cap * sizeof *more);
        if (!more) return ERR_NOMEM;
        w->entries = more;
        w->cap = cap;
    }
    entry.path = (struct str){NULL, w->path_n + name.n};
    w->entries[w->n++] = entry;
    strbuf_add(&w->paths, w->path, w->path_n);
    strbuf_add(&w->paths, name.p, name.n);
    strbuf_ch(&w->paths, '\0');
    return w->paths.failed ? ERR_NOMEM : ERR_OK;
}

static enum err entry_add(struct walk *w, const struct dir_name *name)
{
    struct stat st;
    enum err e = ERR_OK;
    if (!file_stat(w, name, &st, &e)) return e;
    if (w->probing) {
        w->found = true;
        return ERR_OK;
    }
    return entry_push(w, str_make(name->z, name->n),
                      (struct disk_entry){.size = (uint64_t)st.st_size,
                                          .device = st.st_dev,
                                          .inode = st.st_ino,
                                          .mtime = st.st_mtim});
}

static enum err walk_dir(struct walk *w);

/* The directory w->path as one entry, unless it holds no file (S3 knows no empty prefixes). */
static enum err dir_fold(struct walk *w)
{
    w->probing = true;
    w->found = false;
    enum err e = walk_dir(w);
    w->probing = false;
    if (e != ERR_OK || !w->found) return e;
    return entry_push(w, STR_LIT(""), (struct disk_entry){.is_prefix = true});
}

static enum err walk_dir(struct walk *w)
{
    struct dir_names d;
    enum err e = names_collect(w, &d);
    for (size_t i = 0; e == ERR_OK && i < d.n && !w->truncated && !(w->probing && w->found); i++) {
        const struct dir_name *name = &d.names[i];
        if (name->z[name->n - 1] != '/') {
            e = entry_add(w, name);
            continue;
        }
        memcpy(w->path + w->path_n, name->z, name->n + 1);
        w->path_n += name->n;
        /* As deep as PATH_MAX allows: 2048 levels of a small frame. */
        bool fold = w->job->fold && !w->probing && w->path_n > w->job->prefix.n;
        e = fold ? dir_fold(w) : walk_dir(w);
        w->path_n -= name->n;
        w->path[w->path_n] = '\0';
    }
    names_free(&d);
    return e;
}

static enum err run_list(struct disk_job *j)
{
    j->list = (struct disk_list){0};
    struct walk *w = calloc(1, sizeof *w);
    if (!w) return ERR_NOMEM;
    w->job = j;
    strbuf_init(&w->paths, PATHS_BYTES_MAX);
    enum err e = ERR_OK;
    w->root_fd = open_beneath(j->dir_fd, j->path, O_PATH | O_DIRECTORY);
    if (w->root_fd < 0) e = errno_to_err(errno);
    if (e == ERR_OK) {
        e = walk_dir(w);
        close(w->root_fd);
    }
    if (e == ERR_OK) {
        const char *at = w->paths.p;
        for (size_t i = 0; i < w->n; i++) {
            w->entries[i].path.p = at;
            at += w->entries[i].path.n + 1;
        }
        j->list = (struct disk_list){w->entries, w->n, w->truncated, w->paths.p};
    } else {
        strbuf_free(&w->paths);
        free(w->entries);
    }
    free(w);
    return e;
}

void disk_list_free(struct disk_list *list)
{
    free(list->entries);
    free(list->paths);
    *list = (struct disk_list){0};
}

/* ---- threads */

static void job_run(struct disk_job *j)
{
    switch (j->op) {
    case DISK_OPEN_STAT:
        j->result = run_open_stat(j);
        break;
    case DISK_READ:
        j->result = run_read(j);
        break;
    case DISK_CLOSE:
        j->result = close(j->fd) == 0 ? ERR_OK : ERR_IO; /* never retried: the descriptor is gone either way */
        j->fd = -1;
        break;
    case DISK_LIST:
        j->result = run_list(j);
        break;
    case DISK_RUN:
        j->run(j);
        break;
    }
}

static void job_delivered(struct mail *m)
{
    struct disk_job *j = container_of(m, struct disk_job, mail);
    j->done(j);
}

static void *disk_main(void *arg)
{
    struct disk *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (!d->head && !d->stop) pthread_cond_wait(&d->wake, &d->lock);
        struct disk_job *j = d->head;
        if (!j) break;
        d->head = j->next;
        if (!d->head) d->tail = &d->head;
        pthread_mutex_unlock(&d->lock);
        job_run(j);
        mailbox_post_any_thread(j->reply_to, &j->mail);
        pthread_mutex_lock(&d->lock);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

static enum err threads_start(struct disk *d, unsigned threads)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals stay with the threads made for them */
    while (d->n_threads < threads && pthread_create(&d->threads[d->n_threads], NULL, disk_main, d) == 0) d->n_threads++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return d->n_threads == threads ? ERR_OK : ERR_NOMEM;
}

static bool kernel_has_openat2(void)
{
    int fd = open_beneath(AT_FDCWD, ".", O_PATH | O_DIRECTORY);
    if (fd >= 0) close(fd);
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) return true;
    log_error("file origins need openat2(2): Linux 5.6 or later, and not forbidden by a container's seccomp profile");
    return false;
}

enum err disk_create(unsigned threads, struct disk **out)
{
    *out = NULL;
    CHECK(threads > 0);
    if (!kernel_has_openat2()) return ERR_NOT_SUPPORTED;
    struct disk *d = calloc(1, sizeof *d + threads * sizeof d->threads[0]);
    if (!d) return ERR_NOMEM;
    d->magic = DISK_MAGIC;
    d->tail = &d->head;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    enum err e = threads_start(d, threads);
    if (e != ERR_OK) {
        disk_destroy(d);
        return e;
    }
    *out = d;
    return ERR_OK;
}

void disk_submit(struct disk *d, struct disk_job *j, struct mailbox *reply_to)
{
    CHECK_OBJ(d, DISK_MAGIC);
    j->mail.fn = job_delivered;
    j->reply_to = reply_to;
    j->next = NULL;
    pthread_mutex_lock(&d->lock);
    CHECK(!d->stop);
    *d->tail = j;
    d->tail = &j->next;
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
}

void disk_destroy(struct disk *d)
{
    if (!d) return;
    CHECK_OBJ(d, DISK_MAGIC);
    pthread_mutex_lock(&d->lock);
    d->stop = true;
    pthread_cond_broadcast(&d->wake);
    pthread_mutex_unlock(&d->lock);
    for (unsigned i = 0; i < d->n_threads; i++) pthread_join(d->threads[i], NULL);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->wake);
    d->magic = 0;
    free(d);
}
