/* cmd_get.c - get and download: objects into files, a directory, or standard output. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cli/cmd_transfer.h"
#include "cli/commands.h"
#include "cli/download.h"
#include "cli/paths.h"
#include "cli/sources.h"

#define RANGE_MAX ((uint64_t)1 << 60) /* so that sums of two do not overflow */
#define AT(field) offsetof(struct get_opts, field)
#define GET_OPTS                                                                                                              \
    TRANSFER_OPTS(struct get_opts, common),                                                                                   \
        {'r', "recursive", OPT_FLAG, NULL, AT(recursive), 0, 0, "everything below KEY/"},                       \
        {'o', "output", OPT_TEXT, "TARGET", AT(output), 0, 0, "the target, instead of a last argument"},                      \
        {0, "keylist", OPT_TEXT, "FILE", AT(keylist), 0, 0, "names one per line from FILE (-: standard input): URIs, or keys below the URI"}, \
        {0, "continue", OPT_FLAG, NULL, AT(resume), 0, 0, "go on with what an earlier run left, and leave it for the next"},  \
        {0, "no-clobber", OPT_FLAG, NULL, AT(no_clobber), 0, 0, "leave files that exist alone"},                              \
        {0, "preserve-mtime", OPT_FLAG, NULL, AT(keep_mtime), 0, 0, "files get the time of the object"}

static const struct opt get_opts[] = {
    GET_OPTS,
    {0, "offset", OPT_SIZE, "BYTES", AT(offset), 0, RANGE_MAX, "begin there (of a single object)"},
    {0, "length", OPT_SIZE, "BYTES", AT(length), 1, RANGE_MAX, "so many bytes at most"},
    {.name = NULL},
};
static const struct opt download_opts[] = {GET_OPTS, {.name = NULL}};
#undef AT

static void get_defaults(void *opts)
{
    struct get_opts *o = opts;

    transfer_defaults(&o->common);
    o->length = UINT64_MAX;
}

/* ---- where to */

#define DISCARD_PART_BYTES ((uint64_t)1 << 30) /* nothing is done beside reading: without -j or --part-size, one request is best */
#define STREAM_PART_MAX ((uint64_t)16 << 20)

struct get {
    struct cli *cli;
    const struct get_opts *o;
    struct remote_source_conf source;
    struct download_conf conf;
    char *made; /* a target that was put together */
};

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* "-", /dev/stdout, /dev/fd/3: an open descriptor, which keeps its position; -1: it is no such name. */
static int descriptor_of(const char *path)
{
    unsigned fd;
    int used = 0;

    if (strcmp(path, "-") == 0 || strcmp(path, "/dev/stdout") == 0) return STDOUT_FILENO;
    if (strcmp(path, "/dev/stderr") == 0) return STDERR_FILENO;
    if (sscanf(path, "/dev/fd/%u%n", &fd, &used) != 1 && sscanf(path, "/proc/self/fd/%u%n", &fd, &used) != 1) return -1;
    return !path[used] && fd < 1u << 20 && fcntl((int)fd, F_GETFD) >= 0 ? (int)fd : -1;
}

/* A pipe, a device, an open descriptor: written as it comes. A regular file below /dev (/dev/shm) is a file like any other. */
static bool is_special(const char *path)
{
    struct stat st;
    if (descriptor_of(path) >= 0) return !is_dir(path);
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

static int to_stream(struct get *g, const char *target)
{
    struct stat st;

    if (stat(strcmp(target, "-") == 0 ? "/dev/stdout" : target, &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)) {
        g->conf.discard = true;
        g->source.file = target;
        return -1;
    }
    int fd = descriptor_of(target);
    g->conf.stream_name = fd == STDOUT_FILENO ? "standard output" : target;
    if (fd == STDOUT_FILENO) g->conf.stream_fd = fd;
    else g->conf.stream_fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : open(target, O_WRONLY | O_CLOEXEC);
    if (g->conf.stream_fd >= 0) return -1;
    if (net_interrupted(&g->cli->net)) return EXIT_INTERRUPTED; /* a pipe that nobody reads */
    cli_error("cannot open %s: %s", target, strerror(errno));
    return EXIT_FAILED;
}

/* One object by name: the file, or the directory for it. */
static int single_target(struct get *g, const char *target, struct str key)
{
    size_t n = target ? strlen(target) : 0;
    const char *bad;

    if (target && strcmp(target, "-") != 0 && n && target[n - 1] != '/' && !is_dir(target)) {
        g->source.file = target;
        return -1;
    }
    bad = path_objection(path_base(key));
    if (bad) {
        cli_error("%s: %s; name a file", g->source.uris[0], bad);
        return EXIT_USAGE;
    }
    g->source.dir = target ? target : ".";
    return -1;
}

/* -1: go on; else the exit code. */
static int choose_target(struct get *g, const char *target, bool many)
{
    bool stream = target && (strcmp(target, "-") == 0 || is_special(target));
    struct place p;

    if (stream && many) {
        cli_error("%s takes a single object", strcmp(target, "-") == 0 ? "standard output" : target);
        return EXIT_USAGE;
    }
    if (stream) return to_stream(g, target);
    if (many && target && *target && !is_dir(target) && access(target, F_OK) == 0) {
        cli_error("%s is not a directory", target);
        return EXIT_FAILED;
    }
    if (many) {
        g->source.dir = target ? target : ".";
        return -1;
    }
    place_parse(g->source.uris[0], &p);
    return single_target(g, target, p.key);
}

static int check_uris(const struct get *g, bool need_key)
{
    struct place p;

    for (int i = 0; i < g->source.nuris; i++) {
        if (place_parse(g->source.uris[i], &p) != ERR_OK || p.bucket.n == 0) {
            cli_error("%s: expected s3://BUCKET/KEY", g->source.uris[i]);
            return EXIT_USAGE;
        }
        if (p.key.n || !need_key) continue;
        cli_error("%s: names a bucket; give -r for all that is in it", g->source.uris[i]);
        return EXIT_USAGE;
    }
    return -1;
}

/* ---- running */

static int start(struct get *g)
{
    struct transfer t = {.cli = g->cli, .net = &g->cli->net, .begin = download_begin, .arg = &g->conf};

    transfer_take_opts(&t.o, &g->o->common);
    t.o.resume = g->o->resume;
    t.o.no_clobber = g->o->no_clobber;
    t.o.keep_mtime = g->o->keep_mtime;
    t.o.climb_from = g->conf.discard; /* there is nothing to be done beside reading */
    if (g->conf.discard && t.o.climb && t.o.part_bytes == TRANSFER_PART_BYTES) t.o.part_bytes = DISCARD_PART_BYTES;
    if (g->conf.stream_fd >= 0) {
        /* a part waits in memory until those before it have been written */
        if (t.o.part_bytes > STREAM_PART_MAX) t.o.part_bytes = STREAM_PART_MAX;
        t.max_buffers = download_stream_buffers(&t.o);
        t.blocked_io = true;
    }
    t.source = source_remote(&g->source);
    if (!t.source) {
        cli_error("%s", err_text(ERR_NOMEM));
        return EXIT_FAILED;
    }
    int code = transfer_run(&t, "downloading");
    if (g->conf.stream_fd > STDERR_FILENO) close(g->conf.stream_fd);
    return code;
}

static bool is_many(const struct get *g, bool globs)
{
    struct place p;

    if (g->source.nuris != 1 || g->o->recursive || g->o->keylist) return true;
    if (!globs) return false;
    place_parse(g->source.uris[0], &p);
    return place_has_glob(p.key) || p.key.n == 0 || p.key.p[p.key.n - 1] == '/';
}

int get_run(struct cli *cli, const struct get_opts *o, int nargs, char **args, bool globs)
{
    struct get g = {.cli = cli, .o = o, .conf = {.stream_fd = -1, .offset = o->offset, .length = o->length}};
    const char *target = o->output;
    int code;

    if (!target && nargs && !place_is_remote(args[nargs - 1])) target = args[--nargs];
    if (nargs == 0 && !o->keylist) {
        cli_error("name an object: s3://BUCKET/KEY");
        return EXIT_USAGE;
    }
    g.source = (struct remote_source_conf){.cli = cli, .uris = args, .nuris = nargs, .keylist = o->keylist, .recursive = o->recursive, .globs = globs};
    if (o->keylist && nargs > 1) {
        cli_error("--keylist takes one URI, which the keys are below");
        return EXIT_USAGE;
    }
    g.conf.ranged = o->offset != 0 || o->length != UINT64_MAX;
    code = check_uris(&g, !globs && !o->recursive && !o->keylist);
    bool many = code < 0 && is_many(&g, globs);
    if (code < 0 && many && g.conf.ranged) {
        cli_error("--offset and --length are for a single object");
        code = EXIT_USAGE;
    }
    if (code < 0 && many && !o->recursive && !o->keylist && !(globs && have_pattern(g.source.uris, g.source.nuris)))
        code = paths_collide(g.source.uris, g.source.nuris, "file") ? EXIT_USAGE : -1;
    if (code < 0) code = choose_target(&g, target, many);
    return code < 0 ? start(&g) : code;
}

static int run_get(struct cli *cli, const void *opts, int nargs, char **args) { return get_run(cli, opts, nargs, args, false); }
static int run_download(struct cli *cli, const void *opts, int nargs, char **args) { return get_run(cli, opts, nargs, args, true); }

#define FILES_DETAILS                                                                                                         \
    "A file appears under its name when it is complete and its checksum, or its ETag where that is an MD5, is right. It\n"    \
    "replaces what was there. Nothing is synced to the disk. With --continue parts of large objects stay where a run ends,\n" \
    "as .NAME.s3dlio-part with .NAME.s3dlio-state, and files as large and as new as their objects are left alone.\n"          \
    "Keys that are no paths below the directory ('..', '//', a leading slash) are refused one by one.\n"

const struct command command_get = {
    .name = "get",
    .args = "s3://BUCKET/KEY... [TARGET]",
    .summary = "Read objects into files, or one to standard output",
    .details = "TARGET is a file, a directory, or - for standard output; without one objects get the last part of their keys\n"
               "as names here. With -r everything below KEY/ is read, and paths behind that slash are kept: run1 never means\n"
               "run10 (download s3://BUCKET/run1** does). To /dev/null nothing is checked,\n"
               "and without -j objects come in one piece.\n" FILES_DETAILS,
    .opts = get_opts,
    .opts_bytes = sizeof(struct get_opts),
    .max_args = -1,
    .defaults = get_defaults,
    .adjust = transfer_adjust,
    .run = run_get,
};

const struct command command_download = {
    .name = "download",
    .args = "s3://BUCKET/[PREFIX/|PATTERN|KEY]... DIRECTORY",
    .summary = "Read many objects into a directory, by prefix or pattern",
    .details = "A URI that ends with a slash is a prefix. In patterns * and ? stop at slashes, ** does not (with -r * does not,\n"
               "either), [a-z] is a set, a backslash takes the meaning away. Paths behind the last slash before the first\n"
               "special character are kept.\n" FILES_DETAILS,
    .opts = download_opts,
    .opts_bytes = sizeof(struct get_opts),
    .max_args = -1,
    .defaults = get_defaults,
    .adjust = transfer_adjust,
    .run = run_download,
};
