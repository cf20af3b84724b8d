/* room.h - whether the machine and the cgroup have so many bytes of memory to give. */
#ifndef S3P_CACHE_ROOM_H
#define S3P_CACHE_ROOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At start-up only (reads files). False with a reason of one line in msg. */
bool room_for(uint64_t bytes, char *msg, size_t n);
/* The least memory limit of the process's cgroup and of those above it, 0: none. root is put before /proc and /sys: "" but
 * in tests. */
uint64_t room_limit(const char *root);

#endif
