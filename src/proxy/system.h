/* system.h - what the machine, or the container, grants this process. */
#ifndef S3P_PROXY_SYSTEM_H
#define S3P_PROXY_SYSTEM_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/cpus.h"
#include "io/uring.h"

struct system_facts {
    struct cpus cpus;
    uint64_t memory_limit; /* bytes; 0: none */
    enum uring uring;
};

/* Before there are threads. root is put before /proc and /sys: "" but in tests. */
void system_look(const char *root, struct system_facts *f);
/* One line without an end; returns buf. */
char *system_text(const struct system_facts *f, unsigned workers, char *buf, size_t n);
void system_log(const struct system_facts *f, unsigned workers);
/* `system` of the statistics, in the leaves of snapshot.h. */
json_t *system_json(const struct system_facts *f, unsigned workers);

#endif
