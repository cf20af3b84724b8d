/* test_disk.c - file operations off the loop: opening beneath a directory, reading, listing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/check.h"
#include "io/disk.h"

static struct loop *loop;
static struct mailbox *box;
static struct disk *disk;
static char root[] = "/tmp/test_disk.XXXXXX";
static int root_fd, top_fd;
static unsigned pending;

static void put_file(const char *path, const char *text)
{
    int fd = openat(top_fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* top/ holds what lies outside; top/root/ is what jobs may see. */
static int setup(void **state)
{
    (void)state;
    memcpy(root + sizeof root - 7, "XXXXXX", 6);
    if (!mkdtemp(root)) return -1;
    top_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    mkdirat(top_fd, "root", 0755);
    mkdirat(top_fd, "root/dir", 0755);
    put_file("secret", "secret");
    put_file("root/file", "0123456789");
    put_file("root/dir/inner", "inner");
    symlinkat("../secret", top_fd, "root/escape");
    symlinkat("/etc/passwd", top_fd, "root/absolute");
    symlinkat("dir/inner", top_fd, "root/inside");
    symlinkat("loop", top_fd, "root/loop");
    mkfifoat(top_fd, "root/fifo", 0644);
    root_fd = openat(top_fd, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (loop_create(&loop) != ERR_OK || mailbox_create(loop, &box) != ERR_OK) return -1;
    return disk_create(2, &disk) == ERR_OK ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *where)
{
    (void)st;
    (void)what;
    (void)where;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    disk_destroy(disk);
    mailbox_destroy(box);
    loop_destroy(loop);
    close(root_fd);
    close(top_fd);
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void on_done(struct disk_job *j)
{
    assert_ptr_equal(loop_current(), loop);
    (void)j;
    if (--pending == 0) loop_stop(loop);
}

static enum err run(struct disk_job *j)
{
    j->done = on_done;
    pending = 1;
    disk_submit(disk, j, box);
    loop_run(loop);
    return j->result;
}

static enum err open_path(const char *path, bool want_dir, struct disk_job *j)
{
    *j = (struct disk_job){.op = DISK_OPEN_STAT, .dir_fd = root_fd, .path = path, .want_dir = want_dir};
    return run(j);
}

static void files_open_beneath_only(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        enum err want;
    } rows[] = {
        {"file", ERR_OK},
        {"dir/inner", ERR_OK},
        {"inside", ERR_OK},
        {"dir/../file", ERR_OK},
        {"missing", ERR_NOT_FOUND},
        {"file/below", ERR_NOT_FOUND},
        {"", ERR_NOT_FOUND},
        {"dir", ERR_NOT_FOUND},
        {"fifo", ERR_NOT_FOUND},
        {"../secret", ERR_ACCESS_DENIED},
        {"dir/../../secret", ERR_ACCESS_DENIED},
        {"escape", ERR_ACCESS_DENIED},
        {"absolute", ERR_ACCESS_DENIED},
        {"/etc/passwd", ERR_ACCESS_DENIED},
        {"loop", ERR_ACCESS_DENIED},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct disk_job j;
        enum err e = open_path(rows[i].path, false, &j);
        if (e != rows[i].want) print_message("%s: %s\n", rows[i].path, err_name(e));
        assert_int_equal(e, rows[i].want);
        assert_int_equal(j.fd >= 0, e == ERR_OK);
        if (e != ERR_OK) continue;
        assert_true(S_ISREG(j.st.st_mode));
        assert_int_equal(j.st.st_size, strstr(rows[i].path, "file") ? 10 : 5);
        j.op = DISK_CLOSE;
        assert_int_equal(run(&j), ERR_OK);
        assert_int_equal(j.fd, -1);
    }
    char big[5000];
    struct disk_job j;
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    assert_int_equal(open_path(big, false, &j), ERR_NOT_FOUND);
}

static void directories_open_when_wanted(void **state)
{
    (void)state;
    struct disk_job j;
    assert_int_equal(open_path("dir", true, &j), ERR_OK);
    assert_true(S_ISDIR(j.st.st_mode));
    close(j.fd);
    assert_int_equal(open_path(".", true, &j), ERR_OK);
    close(j.fd);
    assert_int_equal(open_path("file", true, &j), ERR_NOT_FOUND);
}

static void reads_are_short_only_at_the_end(void **state)
{
    (void)state;
    struct disk_job j;
    char buf[16];
    assert_int_equal(open_path("file", false, &j), ERR_OK);
    int fd = j.fd;
    static const struct {
        uint64_t offset;
        size_t n, got;
    } rows[] = {{0, 4, 4}, {4, 16, 6}, {10, 4, 0}, {4711, 4, 0}, {0, 0, 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        j = (struct disk_job){.op = DISK_READ, .fd = fd, .iov = {buf, rows[i].n}, .offset = rows[i].offset};
        assert_int_equal(run(&j), ERR_OK);
        assert_int_equal(j.got, rows[i].got);
        assert_memory_equal(buf, &"0123456789"[rows[i].got ? rows[i].offset : 0], rows[i].got);
    }
    j = (struct disk_job){.op = DISK_READ, .fd = fd, .iov = {buf, 1}, .offset = UINT64_MAX};
    assert_int_equal(run(&j), ERR_IO);
    close(fd);
    j = (struct disk_job){.op = DISK_READ, .fd = root_fd, .iov = {buf, 1}};
    assert_int_equal(run(&j), ERR_IO);
}

static pthread_t main_thread;

static void on_run(struct disk_job *j)
{
    j->result = pthread_equal(pthread_self(), main_thread) ? ERR_INTERNAL : ERR_END;
}

static void own_functions_run_on_a_thread(void **state)
{
    (void)state;
    main_thread = pthread_self();
    struct disk_job j = {.op = DISK_RUN, .run = on_run};
    assert_int_equal(run(&j), ERR_END);
}

static void many_jobs_and_those_queued_at_the_end(void **state)
{
    (void)state;
    enum { N = 200 };
    static struct disk_job jobs[N];
    static char bufs[N];
    struct disk_job j;
    assert_int_equal(open_path("file", false, &j), ERR_OK);
    for (unsigned i = 0; i < N; i++) {
        jobs[i] = (struct disk_job){
            .op = DISK_READ, .fd = j.fd, .iov = {&bufs[i], 1}, .offset = i % 10, .done = on_done};
        pending = i + 1;
        disk_submit(disk, &jobs[i], box);
    }
    loop_run(loop);
    for (unsigned i = 0; i < N; i++) assert_int_equal(bufs[i], '0' + (int)(i % 10));

    for (unsigned i = 0; i < N; i++) disk_submit(disk, &jobs[i], box);
    pending = N;
    disk_destroy(disk); /* finishes them all */
    disk = NULL;
    loop_run(loop);
    close(j.fd);
}

static void no_descriptors_is_overload(void **state)
{
    (void)state;
    struct rlimit old, tight;
    struct disk_job j;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    tight = old;
    tight.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    enum err opened = open_path("file", false, &j);
    struct disk_job list = {.op = DISK_LIST, .dir_fd = root_fd, .path = ".", .max = 10};
    enum err listed = run(&list);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(opened, ERR_OVERLOAD);
    assert_int_equal(listed, ERR_OVERLOAD);
    assert_null(list.list.entries);
}

/* ---- listing */

static void make_tree(void)
{
    static const char *const dirs[] = {"root/tree", "root/tree/a", "root/tree/a/deep", "root/tree/empty", "root/tree/z"};
    static const char *const files[] = {
        "root/tree/a-b", "root/tree/a.b", "root/tree/a/1", "root/tree/a/2", "root/tree/a/deep/x", "root/tree/a0",
        "root/tree/b",   "root/tree/z/9", "root/tree/\xff",
    };
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) assert_int_equal(mkdirat(top_fd, dirs[i], 0755), 0);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) put_file(files[i], "12345");
    symlinkat("b", top_fd, "root/tree/link");
    symlinkat("a", top_fd, "root/tree/linkdir");
    symlinkat("nowhere", top_fd, "root/tree/linknone");
    symlinkat("../../secret", top_fd, "root/tree/linkout");
    mkfifoat(top_fd, "root/tree/pipe", 0644);
}

/* All paths of a listing, joined with spaces; '+' at the end when truncated. */
static const char *listed(const char *prefix, const char *after, size_t max)
{
    static char text[1024];
    struct disk_job j = {
        .op = DISK_LIST, .dir_fd = root_fd, .path = "tree", .prefix = str_c(prefix), .after = str_c(after), .max = max};
    assert_int_equal(run(&j), ERR_OK);
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < j.list.n; i++) {
        const struct disk_entry *e = &j.list.entries[i];
        assert_int_equal(e->path.n, strlen(e->path.p));
        assert_int_equal(e->size, 5);
        assert_true(e->inode != 0);
        assert_true(e->mtime.tv_sec > 1600000000);
        n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i ? " " : "", e->path.p);
    }
    if (j.list.truncated) snprintf(text + n, sizeof text - n, "+");
    disk_list_free(&j.list);
    disk_list_free(&j.list);
    return text;
}

#define ALL "a-b a.b a/1 a/2 a/deep/x a0 b link z/9 \xff"

static void listings_are_sorted_bytewise_by_whole_path(void **state)
{
    (void)state;
    make_tree();
    assert_string_equal(listed("", "", 1000), ALL);
    assert_string_equal(listed(NULL, NULL, 10), ALL);
    assert_string_equal(listed("a", "", 1000), "a-b a.b a/1 a/2 a/deep/x a0");
    assert_string_equal(listed("a/", "", 1000), "a/1 a/2 a/deep/x");
    assert_string_equal(listed("a/de", "", 1000), "a/deep/x");
    assert_string_equal(listed("a/deep/x", "", 1000), "a/deep/x");
    assert_string_equal(listed("a/deep/xy", "", 1000), "");
    assert_string_equal(listed("nothing", "", 1000), "");
    assert_string_equal(listed("empty/", "", 1000), "");
}

static void listings_page_with_after_and_max(void **state)
{
    (void)state;
    make_tree();
    assert_string_equal(listed("", "", 2), "a-b a.b+");
    assert_string_equal(listed("", "a.b", 2), "a/1 a/2+");
    assert_string_equal(listed("", "a/2", 3), "a/deep/x a0 b+");
    assert_string_equal(listed("", "b", 3), "link z/9 \xff");
    assert_string_equal(listed("", "\xff", 3), "");
    assert_string_equal(listed("", "a/deep", 2), "a/deep/x a0+");
    assert_string_equal(listed("", "a/deepest", 2), "a0 b+");
    assert_string_equal(listed("a/", "a/1", 1), "a/2+");
    assert_string_equal(listed("", "", 0), "+");
    assert_string_equal(listed("nothing", "", 0), "");
}

static void what_cannot_be_listed(void **state)
{
    (void)state;
    struct disk_job j = {.op = DISK_LIST, .dir_fd = root_fd, .path = "missing", .max = 10};
    assert_int_equal(run(&j), ERR_NOT_FOUND);
    j.path = "file";
    assert_int_equal(run(&j), ERR_NOT_FOUND);
    j.path = "..";
    assert_int_equal(run(&j), ERR_ACCESS_DENIED);
    j.path = ".";
    j.prefix = STR_LIT("dir/");
    assert_int_equal(run(&j), ERR_OK);
    assert_int_equal(j.list.n, 1);
    disk_list_free(&j.list);
}

/* Deeper than any path can be: the walk stops at the length of a path, quietly. */
static void absurdly_deep_trees_are_survived(void **state)
{
    (void)state;
    int fd = openat(root_fd, "dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum { DEPTH = 2500 };
    for (int i = 0; i < DEPTH; i++) {
        assert_int_equal(mkdirat(fd, "d", 0755), 0);
        int next = openat(fd, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(next >= 0);
        close(fd);
        fd = next;
    }
    struct disk_job j = {.op = DISK_LIST, .dir_fd = root_fd, .path = "dir", .max = 10};
    assert_int_equal(run(&j), ERR_OK);
    assert_int_equal(j.list.n, 1);
    assert_string_equal(j.list.entries[0].path.p, "inner");
    disk_list_free(&j.list);
    for (int i = 0; i < DEPTH; i++) { /* nftw could not name them */
        int up = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_int_equal(unlinkat(up, "d", AT_REMOVEDIR), 0);
        close(fd);
        fd = up;
    }
    close(fd);
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(files_open_beneath_only),
        T(directories_open_when_wanted),
        T(reads_are_short_only_at_the_end),
        T(own_functions_run_on_a_thread),
        T(many_jobs_and_those_queued_at_the_end),
        T(no_descriptors_is_overload),
        T(listings_are_sorted_bytewise_by_whole_path),
        T(listings_page_with_after_and_max),
        T(what_cannot_be_listed),
        T(absurdly_deep_trees_are_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
