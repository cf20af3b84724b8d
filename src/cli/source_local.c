/* source_local.c - files, directories and patterns on this machine. See sources.h.
 *
 * Directories are walked one at a time, entries in the order in which the file system gives them; at most DEPTH_MAX of them are
 * open. Symbolic links to files are followed, those to directories are not: they may lead back. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/paths.h"
#include "cli/sources.h"

#define DEPTH_MAX 200u

struct level {
    DIR *dir;
    size_t path_n; /* of its path in local.path */
};
struct local {
    struct source base;
    struct local_source_conf c;
    int at;
    glob_t found;      /* of paths[at], when it was a pattern */
    size_t found_at;
    bool globbed;
    struct level levels[DEPTH_MAX];
    unsigned depth;
    struct strbuf path; /* of where the walk is, NUL-terminated */
    size_t root_n;      /* of what does not belong to keys */
    int code;
};

static void failed(struct local *l, const char *path, int why)
{
    cli_error("%s: %s", path, strerror(why));
    if (l->code == EXIT_OK) l->code = why == ENOENT ? EXIT_NOT_THERE : EXIT_FAILED;
}

static enum err make_item(struct local *l, const char *path, struct str name, const struct stat *st, struct item **out)
{
    bool adds = l->c.key.n == 0 || l->c.key.p[l->c.key.n - 1] == '/';
    struct strbuf key;

    strbuf_init(&key, 0);
    strbuf_str(&key, l->c.key);
    if (adds) strbuf_str(&key, name);
    *out = key.failed ? NULL : item_make(l->c.bucket, strbuf_get(&key), NULL, str_c(path));
    strbuf_free(&key);
    if (!*out) return ERR_NOMEM;
    (*out)->has_size = true;
    (*out)->size = (uint64_t)st->st_size;
    return ERR_OK;
}

/* ---- directories */

static void set_path(struct local *l, size_t n, const char *name)
{
    l->path.n = n;
    if (name && n && l->path.p[n - 1] != '/') strbuf_ch(&l->path, '/');
    if (name) strbuf_z(&l->path, name);
    strbuf_ch(&l->path, '\0');
    l->path.n--;
}

static void descend(struct local *l)
{
    DIR *d = NULL;

    if (l->depth == DEPTH_MAX) errno = ELOOP;
    else d = opendir(l->path.p);
    if (!d) {
        failed(l, l->path.p, errno);
        return;
    }
    l->levels[l->depth++] = (struct level){d, l->path.n};
}

static enum err take_entry(struct local *l, const struct dirent *e, struct item **out)
{
    struct stat st;

    set_path(l, l->levels[l->depth - 1].path_n, e->d_name);
    if (l->path.failed) return ERR_NOMEM;
    if (lstat(l->path.p, &st) == 0 && S_ISDIR(st.st_mode)) {
        descend(l);
        return ERR_AGAIN;
    }
    if (stat(l->path.p, &st) != 0) {
        failed(l, l->path.p, errno);
        return ERR_AGAIN;
    }
    if (!S_ISREG(st.st_mode)) return ERR_AGAIN; /* sockets, devices, links to directories */
    return make_item(l, l->path.p, str_make(l->path.p + l->root_n, l->path.n - l->root_n), &st, out);
}

/* ERR_AGAIN: the walk is over. */
static enum err walk(struct local *l, struct item **out)
{
    while (l->depth) {
        struct level *top = &l->levels[l->depth - 1];
        errno = 0;
        const struct dirent *e = readdir(top->dir);
        if (!e) {
            set_path(l, top->path_n, NULL);
            if (errno) failed(l, l->path.p, errno);
            closedir(top->dir);
            l->depth--;
            continue;
        }
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        enum err got = take_entry(l, e, out);
        if (got != ERR_AGAIN) return got;
    }
    return ERR_AGAIN;
}

/* ---- operands */

/* ERR_AGAIN: nothing (more) to be had of it for now. */
static enum err take_path(struct local *l, const char *path, struct item **out)
{
    struct stat st;

    if (stat(path, &st) != 0) {
        failed(l, path, errno);
        return ERR_AGAIN;
    }
    if (S_ISDIR(st.st_mode) && l->c.recursive) {
        l->path.n = 0;
        strbuf_z(&l->path, path);
        set_path(l, l->path.n, "");
        if (l->path.failed) return ERR_NOMEM;
        l->root_n = l->path.n;
        descend(l);
        return ERR_AGAIN;
    }
    if (S_ISDIR(st.st_mode)) {
        cli_error("%s is a directory (give -r to upload what is in it)", path);
        l->code = EXIT_FAILED;
        return ERR_AGAIN;
    }
    return make_item(l, path, path_base(str_c(path)), &st, out);
}

static const char *next_path(struct local *l)
{
    if (l->globbed && l->found_at < l->found.gl_pathc) return l->found.gl_pathv[l->found_at++];
    if (l->globbed) globfree(&l->found);
    l->globbed = false;
    if (l->at == l->c.npaths) return NULL;
    const char *path = l->c.paths[l->at++];
    if (!place_has_glob(str_c(path)) || access(path, F_OK) == 0) return path;
    if (glob(path, 0, NULL, &l->found) != 0) {
        globfree(&l->found);
        return path; /* the message of a file that is not there is right */
    }
    l->globbed = true;
    l->found_at = 0;
    return l->found.gl_pathv[l->found_at++];
}

static enum err local_next(struct source *s, struct item **out, int *code)
{
    struct local *l = container_of(s, struct local, base);
    const char *path;

    for (;;) {
        enum err e = walk(l, out);
        if (e == ERR_AGAIN) {
            path = next_path(l);
            if (!path) break;
            e = take_path(l, path, out);
        }
        if (e == ERR_AGAIN) continue;
        if (e != ERR_OK) *code = EXIT_FAILED;
        return e;
    }
    *code = l->code;
    return ERR_END;
}

static void local_close(struct source *s)
{
    struct local *l = container_of(s, struct local, base);

    while (l->depth) closedir(l->levels[--l->depth].dir);
    if (l->globbed) globfree(&l->found);
    strbuf_free(&l->path);
    free(l);
}

struct source *source_local(const struct local_source_conf *c)
{
    struct local *l = calloc(1, sizeof *l);

    if (!l) return NULL;
    l->base.next = local_next;
    l->base.close = local_close;
    l->c = *c;
    strbuf_init(&l->path, (size_t)1 << 20);
    return &l->base;
}
