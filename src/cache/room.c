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
    const char *root, *limit, *usage, *reclaim[2];
};

/* What one cgroup leaves: its limit less what it uses and cannot give back. Page cache proper can be given back; shmem
 * (which is what we are) is not in the *_file counters. */
static uint64_t cgroup_room(const struct cgroup_files *v, const char *dir)
{
    char path[4400];
    uint64_t limit, usage = 0, reclaim = 0;
    snprintf(path, sizeof path, "%s/%s", dir, v->limit);
    if (!read_number(path, &limit)) return UINT64_MAX;
    snprintf(path, sizeof path, "%s/%s", dir, v->usage);
    if (!read_number(path, &usage)) usage = 0;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (!read_fields(path, v->reclaim[0], v->reclaim[1], &reclaim)) reclaim = 0;
    usage = usage > reclaim ? usage - reclaim : 0;
    return limit > usage ? limit - usage : 0;
}

/* The tightest of a cgroup and its parents. A container sees its own group as the root, so parts of the path that are not
 * there are passed over. */
static uint64_t cgroup_room_upwards(const struct cgroup_files *v, const char *group)
{
    char dir[4200];
    uint64_t least = UINT64_MAX;
    int n = snprintf(dir, sizeof dir, "%s%s", v->root, group);
    if (n < 0 || (size_t)n >= sizeof dir) return least;
    for (;;) {
        uint64_t room = cgroup_room(v, dir);
        if (room < least) least = room;
        char *slash = strrchr(dir, '/');
        if (!slash || slash < dir + strlen(v->root)) return least;
        *slash = '\0';
    }
}

static uint64_t cgroups_room(const char *proc_self_cgroup)
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
    FILE *f = fopen(proc_self_cgroup, "re");
    if (!f) return least;
    while (fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *at = strchr(line, ':');
        char *group = at ? strchr(at + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        if (strcmp(at + 1, "memory") == 0) {
            if ((room = cgroup_room_upwards(&v1, group)) < least) least = room;
        } else if (at[1] == '\0') {
            for (unsigned i = 0; i < ARRAY_LEN(v2); i++)
                if ((room = cgroup_room_upwards(&v2[i], group)) < least) least = room;
        }
    }
    fclose(f);
    return least;
}

/* Whether `bytes` can be had at all; says why not. Sizes are checked here and not by touching the pages: those come when
 * they are filled. */
static bool room_check(uint64_t bytes, const char *meminfo, const char *proc_self_cgroup, char *msg, size_t n)
{
    char want[32], have[32];
    uint64_t kib, room;
    struct rlimit lim;

    units_format_size(bytes, want, sizeof want);
    if (read_fields(meminfo, "MemAvailable:", NULL, &kib) && bytes / 1024 > kib) {
        snprintf(msg, n, "%s of cache memory configured, but the machine has only %s available", want,
                 units_format_size(kib / 1024 << 20, have, sizeof have));
        return false;
    }
    room = cgroups_room(proc_self_cgroup);
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
    return room_check(bytes, "/proc/meminfo", "/proc/self/cgroup", msg, n);
}
