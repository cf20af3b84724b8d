/* cpus.h - how many CPUs this process may use: what `workers: auto` means. */
#ifndef S3P_CONF_CPUS_H
#define S3P_CONF_CPUS_H

/* The online CPUs of the affinity mask, at most the CPU quota of the control group (v2 cpu.max, v1 cpu.cfs_quota_us) and
 * of those above it, rounded up; at least 1. root is put before /proc and /sys: "" but in tests. */
unsigned cpus_available(const char *root);

#endif
