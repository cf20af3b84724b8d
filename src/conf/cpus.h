/* cpus.h - how many CPUs this process may use: what `workers: auto` means. */
#ifndef S3P_CONF_CPUS_H
#define S3P_CONF_CPUS_H

#include <stdint.h>

struct cpus {
    unsigned seen;        /* the online CPUs of the affinity mask */
    uint64_t limit_milli; /* CPU quota of the control group (v2 cpu.max, v1 cpu.cfs_quota_us) and of those above it, the
                             least of them, in thousandths of a CPU; 0: none */
    unsigned available;   /* the lesser of both, the quota rounded up; at least 1 */
};

/* root is put before /proc and /sys: "" but in tests. */
void cpus_look(const char *root, struct cpus *out);
unsigned cpus_available(const char *root);

#endif
