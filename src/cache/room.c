/* room.c - is there that much memory to be had?
 *
 * The least of three answers: the machine's MemAvailable, what the memory limits of the process's cgroup and of its
 * parents leave (v1, v2 and hybrid mounts), and RLIMIT_FSIZE, which holds for memfds too (and would raise SIGXFSZ).
 * What cannot be read limits nothing. */
#include "cache/room.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/check.h"
#include "base/units.h"

static bool read_number(const char *path, uint64_t *v)
{
    char buf[64];
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool got = fgets(buf, sizeof buf, f) && buf[0] >= '0' && buf[0] <= '9'; /* "max" is no number: no limit */
    fclose(f);
    if (got) *v = strtoull(buf, NULL, 10);
    return got;
}

/* Sum of the values of lines "<name> <value> ..." for two names; false if neither is there. */
static bool read_fields(const char *path, const char *a, const char *b, uint64_t *sum)
{
    char line[256];
    bool got = false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    *sum = 0;
    while (fgets(line, sizeof line, f)) {
        char *gap = strpbrk(line, " \t");
        if (!gap) continue;
        *gap = '\0';
        if (strcmp(line, a) != 0 && (!b || strcmp(line, b) != 0)) continue;
        *sum += strtoull(gap + 1, NULL, 10);
        got = true;
    }
    fclose(f);
    return got;
}

struct cgroup_files {
    const char *mount, *limit, *usage, *reclaim[2];
};
typedef uint64_t cgroup_fn(const struct cgroup_files *v, const char *dir);

/* v1 writes "no limit" as the largest multiple of a page. */
#define NO_LIMIT_FROM (UINT64_C(1) << 60)

static uint64_t cgroup_limit(const struct cgroup_files *v, const char *dir)
{
    char path[4400];
    uint64_t limit;
    snprintf(path, sizeof path, "%s/%s", dir, v->limit);
    return read_number(path, &limit) && limit < NO_LIMIT_FROM ? limit : UINT64_MAX;
}

/* What one cgroup leaves: its limit less what it uses and cannot give back. Page cache proper can be given back; shmem
 * (which is what we are) is not in the *_file counters. */
static uint64_t cgroup_room(const struct cgroup_files *v, const char *dir)
{
    char path[4400];
    uint64_t limit = cgroup_limit(v, dir), usage = 0, reclaim = 0;
    if (limit == UINT64_MAX) return limit;
    snprintf(path, sizeof path, "%s/%s", dir, v->usage);
    if (!read_number(path, &usage)) usage = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (!read_fields(path, v->reclaim[0], v->reclaim[1], &reclaim)) reclaim = 0;
    usage = usage > reclaim ? usage - reclaim : 0;
    return limit > usage ? limit - usage : 0;
}

/* The tightest of a cgroup and its parents. A container sees its own group as the root, so parts of the path that are not
 * there are passed over. */
static uint64_t least_upwards(const char *root, const struct cgroup_files *v, const char *group, cgroup_fn *fn)
{
    char dir[4200];
    uint64_t least = UINT64_MAX;
    size_t top = strlen(root) + strlen(v->mount);
    /* A path that leads out of the namespace's root ("/../x") says nothing that could be looked up. */
    int n = snprintf(dir, sizeof dir, "%s%s%s", root, v->mount, strstr(group, "/..") ? "" : group);
    if (n < 0 || (size_t)n >= sizeof dir) return least;
    for (;;) {
        uint64_t room = fn(v, dir);
        if (room < least) least = room;
        char *slash = strrchr(dir, '/');
        if (!slash || slash < dir + top) return least;
        *slash = '\0';
    }
}

static uint64_t least_of_cgroups(const char *root, cgroup_fn *fn)
{
    static const struct cgroup_files v1 = {"/sys/fs/cgroup/memory",
                                           "memory.limit_in_bytes",
                                           "memory.usage_in_bytes",
                                           {"total_inactive_file", "total_active_file"}};
    static const struct cgroup_files v2[] = {
        {"/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}},
        {"/sys/fs/cgroup/unified", "memory.max", "memory.current", {"inactive_file", "active_file"}}};
    char line[4200];
    uint64_t least = UINT64_MAX, room;
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *f = fopen(line, "re");
    if (!f) return least;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *at = strchr(line, ':');
        char *group = at ? strchr(at + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        if (strcmp(at + 1, "memory") == 0) {
            if ((room = least_upwards(root, &v1, group, fn)) < least) least = room;
        } else if (at[1] == '\0') {
            for (unsigned i = 0; i < ARRAY_LEN(v2); i++)
                if ((room = least_upwards(root, &v2[i], group, fn)) < least) least = room;
        }
    }
    fclose(f);
    return least;
}

uint64_t room_limit(const char *root)
{
    uint64_t limit = least_of_cgroups(root, cgroup_limit);
    return limit == UINT64_MAX ? 0 : limit;
}

/* Whether `bytes` can be had at all; says why not. Sizes are checked here and not by touching the pages: those come when
 * they are filled. */
static bool room_check(const char *root, uint64_t bytes, char *msg, size_t n)
{
    char want[32], have[32], meminfo[4200];
    uint64_t kib, room;
    struct rlimit lim;

    units_format_size(bytes, want, sizeof want);
    snprintf(meminfo, sizeof meminfo, "%s/proc/meminfo", root);
    if (read_fields(meminfo, "MemAvailable:", NULL, &kib) && bytes / 1024 > kib) {
        snprintf(msg, n, "%s of cache memory configured, but the machine has only %s available", want,
                 units_format_size(kib / 1024 << 20, have, sizeof have));
        return false;
    }
    room = least_of_cgroups(root, cgroup_room);
    if (bytes > room) {
        snprintf(msg, n, "%s of cache memory configured, but the memory limit of this cgroup leaves only %s", want,
                 units_format_size(room >> 20 << 20, have, sizeof have));
        return false;
    }
    if (getrlimit(RLIMIT_FSIZE, &lim) == 0 && lim.rlim_cur != RLIM_INFINITY && bytes > lim.rlim_cur) {
        snprintf(msg, n, "%s of cache memory configured, but the file size limit (ulimit -f) is %s", want,
                 units_format_size(lim.rlim_cur, have, sizeof have));
        return false;
    }
    return true;
}

bool room_for(uint64_t bytes, char *msg, size_t n)
{
    return room_check("", bytes, msg, n);
}
