/* cpus.c - the affinity mask and the CPU quotas of control groups.
 *
 * In a container without a cgroup namespace /proc/self/cgroup names a path of the host while /sys/fs/cgroup already is
 * the container's own group. So every directory from the named one up to the mount is tried and missing ones skipped;
 * the smallest quota counts, as in the kernel. */
#include "conf/cpus.h"

#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/str.h"

#define CPUS_MAX_ASKED (1 << 16)
#define NO_QUOTA UINT64_MAX

static unsigned cpus_of_mask(void)
{
    for (int cpus = 1024; cpus <= CPUS_MAX_ASKED; cpus *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)cpus);
        if (!set) break;
        size_t size = CPU_ALLOC_SIZE((size_t)cpus);
        int n = sched_getaffinity(0, size, set) == 0 ? CPU_COUNT_S(size, set) : 0;
        CPU_FREE(set);
        if (n > 0) return (unsigned)n;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 ? (unsigned)online : 1;
}

/* A small file of the kernel as one string; false when there is none. */
static bool file_text(const char *root, const char *dir, const char *group, const char *name, char *buf, size_t n)
{
    char path[PATH_MAX];
    int len = snprintf(path, sizeof path, "%s%s%s/%s", root, dir, group, name);
    if (len < 0 || (size_t)len >= sizeof path) return false;
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t got = fread(buf, 1, n - 1, f);
    fclose(f);
    buf[got] = '\0';
    return got > 0;
}

/* In thousandths of a CPU, rounded up, or NO_QUOTA. */
static uint64_t quota_milli(int64_t quota, int64_t period)
{
    if (quota <= 0 || period <= 0 || quota > INT64_MAX / 1000) return NO_QUOTA;
    return (uint64_t)(quota * 1000 / period + (quota * 1000 % period != 0));
}

static uint64_t quota_v2(const char *root, const char *dir, const char *group)
{
    char text[128];
    int64_t quota, period;
    if (!file_text(root, dir, group, "cpu.max", text, sizeof text)) return NO_QUOTA;
    if (sscanf(text, "%" SCNd64 " %" SCNd64, &quota, &period) != 2) return NO_QUOTA; /* "max 100000" */
    return quota_milli(quota, period);
}

static uint64_t quota_v1(const char *root, const char *dir, const char *group)
{
    char quota[64], period[64];
    if (!file_text(root, dir, group, "cpu.cfs_quota_us", quota, sizeof quota)) return NO_QUOTA;
    if (!file_text(root, dir, group, "cpu.cfs_period_us", period, sizeof period)) return NO_QUOTA;
    return quota_milli(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

typedef uint64_t quota_fn(const char *root, const char *dir, const char *group);

static uint64_t quota_upwards(quota_fn *fn, const char *root, const char *dir, const char *group)
{
    char at[PATH_MAX];
    uint64_t least = NO_QUOTA;
    if (snprintf(at, sizeof at, "%s", strcmp(group, "/") == 0 ? "" : group) >= (int)sizeof at) return NO_QUOTA;
    for (;;) {
        uint64_t quota = fn(root, dir, at);
        if (quota < least) least = quota;
        char *slash = strrchr(at, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

static bool controls_cpu(struct str controllers)
{
    struct str one;
    while (str_split(&controllers, ',', &one))
        if (str_eq(one, STR_LIT("cpu"))) return true;
    return false;
}

static uint64_t least_of(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* One line of /proc/self/cgroup: "number:controllers:path". */
static uint64_t quota_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group) return NO_QUOTA;
    *controllers++ = '\0';
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    /* A path that leads out of the namespace's root ("/../x") says nothing that could be looked up. */
    const char *at = group[0] != '/' || strstr(group, "/..") ? "/" : group;

    if (strcmp(line, "0") == 0 && !*controllers)
        return least_of(quota_upwards(quota_v2, root, "/sys/fs/cgroup", at),
                        quota_upwards(quota_v2, root, "/sys/fs/cgroup/unified", at));
    if (!controls_cpu(str_c(controllers))) return NO_QUOTA;
    return least_of(quota_upwards(quota_v1, root, "/sys/fs/cgroup/cpu", at),
                    quota_upwards(quota_v1, root, "/sys/fs/cgroup/cpu,cpuacct", at));
}

static uint64_t quota_of_groups(const char *root)
{
    char path[PATH_MAX], *line = NULL;
    size_t cap = 0;
    uint64_t quota = NO_QUOTA;

    if (snprintf(path, sizeof path, "%s/proc/self/cgroup", root) >= (int)sizeof path) return quota;
    FILE *f = fopen(path, "re");
    if (!f) return quota;
    while (getline(&line, &cap, f) > 0) quota = least_of(quota, quota_of_line(root, line));
    free(line);
    fclose(f);
    return quota;
}

void cpus_look(const char *root, struct cpus *out)
{
    uint64_t quota = quota_of_groups(root);

    out->seen = out->available = cpus_of_mask();
    out->limit_milli = quota == NO_QUOTA ? 0 : quota;
    if (quota == NO_QUOTA) return;
    uint64_t whole = quota / 1000 + (quota % 1000 != 0);
    if (whole < out->available) out->available = (unsigned)whole;
}

unsigned cpus_available(const char *root)
{
    struct cpus cpus;
    cpus_look(root, &cpus);
    return cpus.available;
}
