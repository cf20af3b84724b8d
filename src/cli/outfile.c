/* outfile.c - see the header. */
#include "cli/outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/hash.h"

/* A file system without O_TMPFILE, or no /proc to link from: found out once. */
static atomic_bool no_tmpfile, asked_proc;

void outfile_init(struct outfile *f, const char *path) { *f = (struct outfile){.path = path, .fd = -1, .doing = "create"}; }

static size_t dir_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

char *outfile_beside(const char *path, const char *suffix)
{
    size_t dir = dir_length(path), n = strlen(path) + strlen(suffix) + 40;
    const char *name = path + dir;
    char *out = malloc(n);

    if (!out) return NULL;
    if (strlen(name) + strlen(suffix) + 1 <= NAME_MAX) {
        snprintf(out, n, "%.*s.%s%s", (int)dir, path, name, suffix);
        return out;
    }
    uint64_t h = 14695981039346656037u; /* FNV-1a: the same in every run */
    for (const char *p = name; *p; p++) h = (h ^ (unsigned char)*p) * 1099511628211u;
    snprintf(out, n, "%.*s.%016llx%s", (int)dir, path, (unsigned long long)h, suffix);
    return out;
}

/* ---- directories */

static int make_dirs(const char *path)
{
    char *p = strdup(path);
    int why = p ? 0 : ENOMEM;

    for (char *slash = p ? strchr(p + 1, '/') : NULL; slash && !why; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(p, 0777) != 0 && errno != EEXIST) why = errno;
        *slash = '/';
    }
    free(p);
    return why;
}

static int open_again(const char *path, int flags, mode_t mode, const char *whole)
{
    int fd = open(path, flags, mode);

    if (fd >= 0 || errno != ENOENT || make_dirs(whole) != 0) return fd;
    return open(path, flags, mode);
}

/* ---- opening */

static bool try_tmpfile(struct outfile *f)
{
    char dir[PATH_MAX];
    size_t n = dir_length(f->path);

    if (!atomic_exchange(&asked_proc, true) && access("/proc/self/fd", X_OK) != 0) atomic_store(&no_tmpfile, true);
    if (atomic_load(&no_tmpfile)) return false;
    snprintf(dir, sizeof dir, "%.*s", n ? (int)n : 1, n ? f->path : ".");
    f->fd = open_again(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0666, f->path);
    if (f->fd >= 0) return true;
    if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) atomic_store(&no_tmpfile, true);
    return false;
}

int outfile_open(struct outfile *f)
{
    char suffix[48];

    f->doing = "create";
    if (strlen(f->path) >= PATH_MAX || strlen(f->path) - dir_length(f->path) > NAME_MAX) return ENAMETOOLONG;
    if (try_tmpfile(f)) return 0;
    if (errno != EOPNOTSUPP && !atomic_load(&no_tmpfile)) return errno;
    for (int tries = 0; tries < 8; tries++) {
        snprintf(suffix, sizeof suffix, ".s3dlio-part.%08llx", (unsigned long long)random_u64() & 0xffffffffu);
        f->temp = outfile_beside(f->path, suffix);
        if (!f->temp) return ENOMEM;
        f->fd = open_again(f->temp, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666, f->path);
        if (f->fd >= 0) return 0;
        int why = errno;
        free(f->temp);
        f->temp = NULL;
        if (why != EEXIST) return why;
    }
    return EEXIST;
}

int outfile_open_kept(struct outfile *f, bool *there)
{
    struct stat st, named;

    f->doing = "create";
    *there = false;
    if (strlen(f->path) >= PATH_MAX || strlen(f->path) - dir_length(f->path) > NAME_MAX) return ENAMETOOLONG;
    f->temp = outfile_beside(f->path, ".s3dlio-part");
    if (!f->temp) return ENOMEM;
    f->fd = open_again(f->temp, O_CREAT | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0666, f->path);
    int why = f->fd < 0 ? errno : flock(f->fd, LOCK_EX | LOCK_NB) != 0 ? (errno == EWOULDBLOCK ? EBUSY : errno) : 0;
    if (!why && fstat(f->fd, &st) != 0) why = errno;
    /* locked too late: the other run has given it its name, or dropped it */
    if (!why && (lstat(f->temp, &named) != 0 || named.st_ino != st.st_ino || named.st_dev != st.st_dev)) why = EBUSY;
    if (!why) *there = st.st_size > 0;
    if (why) outfile_drop(f, true);
    return why;
}

int outfile_write(struct outfile *f, const void *p, size_t n, uint64_t at)
{
    const char *from = p;

    f->doing = "write";
    while (n) {
        ssize_t put = pwrite(f->fd, from, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return put < 0 ? errno : EIO;
        from += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return 0;
}

/* ---- the end */

/* A name for what has none. */
static int give_name(struct outfile *f, const char *name)
{
    char self[40];

    snprintf(self, sizeof self, "/proc/self/fd/%d", f->fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0 ? 0 : errno;
}

static bool is_directory(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int name_over(struct outfile *f)
{
    char suffix[48];

    if (is_directory(f->path)) return EISDIR;
    snprintf(suffix, sizeof suffix, ".s3dlio-part.%08llx", (unsigned long long)random_u64() & 0xffffffffu);
    f->temp = outfile_beside(f->path, suffix);
    if (!f->temp) return ENOMEM;
    int why = give_name(f, f->temp);
    if (why) {
        free(f->temp);
        f->temp = NULL;
        return why;
    }
    return rename(f->temp, f->path) == 0 ? 0 : errno;
}

static int name_it(struct outfile *f, bool no_clobber)
{
    if (f->temp && no_clobber) {
        if (renameat2(AT_FDCWD, f->temp, AT_FDCWD, f->path, RENAME_NOREPLACE) == 0) return 0;
        if (errno != EINVAL && errno != ENOSYS) return errno;
        if (link(f->temp, f->path) != 0) return errno;
        unlink(f->temp);
        return 0;
    }
    if (f->temp) return rename(f->temp, f->path) == 0 ? 0 : errno;
    int why = give_name(f, f->path);
    if (why == EEXIST && !no_clobber) return name_over(f);
    return why;
}

int outfile_commit(struct outfile *f, bool no_clobber, int64_t mtime_s)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = (time_t)mtime_s}};
    int why = 0;

    f->doing = "finish";
    if (mtime_s >= 0 && futimens(f->fd, times) != 0) why = errno;
    if (!why) why = name_it(f, no_clobber);
    if (!why) {
        free(f->temp);
        f->temp = NULL;
    }
    outfile_drop(f, false);
    return why;
}

void outfile_drop(struct outfile *f, bool keep)
{
    if (f->temp && !keep) unlink(f->temp);
    free(f->temp);
    f->temp = NULL;
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}
