/* system.c - what the machine, or the container, grants this process: said once in the log, and always in the statistics.
 *
 * In a container the CPUs one sees are not the CPU time one gets, memory ends before the machine's does, and system calls
 * are missing. What follows from it (workers, the bound on cache memory) is decided where it belongs; here it is told. */
#include "proxy/system.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/units.h"
#include "cache/room.h"
#include "proxy/snapshot.h"

void system_look(const char *root, struct system_facts *f)
{
    cpus_look(root, &f->cpus);
    f->memory_limit = room_limit(root);
    f->uring = uring_probe();
}

char *system_text(const struct system_facts *f, unsigned workers, char *buf, size_t n)
{
    char cpu[40] = "no CPU limit", memory[64] = "no memory limit", size[32];

    if (f->cpus.limit_milli)
        snprintf(cpu, sizeof cpu, "CPU limit %" PRIu64 ".%03" PRIu64, f->cpus.limit_milli / 1000,
                 f->cpus.limit_milli % 1000);
    if (f->memory_limit)
        snprintf(memory, sizeof memory, "memory limit %s", units_format_size(f->memory_limit, size, sizeof size));
    snprintf(buf, n, "%u CPUs seen, %s, %s, io_uring %s; %u workers", f->cpus.seen, cpu, memory, uring_text(f->uring),
             workers);
    return buf;
}

void system_log(const struct system_facts *f, unsigned workers)
{
    char text[256];
    log_info("system: %s", system_text(f, workers, text, sizeof text));
    if (f->cpus.limit_milli && workers > f->cpus.available)
        log_warn("system: %u workers, but CPU time of only %u CPUs is granted: they will be throttled", workers,
                 f->cpus.available);
}

json_t *system_json(const struct system_facts *f, unsigned workers)
{
    json_t *o = json_object();

    snapshot_level(o, "cpus", f->cpus.seen);
    snapshot_gauge(o, "cpu_limit", f->cpus.limit_milli ? json_real((double)f->cpus.limit_milli / 1000.0) : json_null());
    snapshot_gauge(o, "memory_limit", f->memory_limit ? json_integer((json_int_t)f->memory_limit) : json_null());
    snapshot_level(o, "workers", workers);
    snapshot_gauge(o, "io_uring", json_string(uring_text(f->uring)));
    return o;
}
