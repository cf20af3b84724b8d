/* test_system.c - what a container grants is seen: CPU quotas and memory limits of control groups of both versions, nested
 * and in namespaces, out of a made-up /proc and /sys; io_uring under seccomp filters that forbid it in different ways. */
#include "../../src/cache/room.c"
#include "../../src/proxy/system.c"

#include <errno.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char root[64];

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/s3p-system-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
    (void)st, (void)flag, (void)at;
    return remove(path);
}

static int teardown(void **state)
{
    (void)state;
    return nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const char *text)
{
    char path[256];
    assert_true((size_t)snprintf(path, sizeof path, "%s/%s", root, name) < sizeof path);
    for (char *p = path + strlen(root) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = '\0';
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static uint64_t cpu_limit(void)
{
    struct cpus cpus;
    cpus_look(root, &cpus);
    assert_true(cpus.seen >= 1 && cpus.available >= 1 && cpus.available <= cpus.seen);
    if (cpus.limit_milli && cpus.seen >= 2) assert_int_equal(cpus.available > 1, cpus.limit_milli > 1000);
    return cpus.limit_milli;
}

/* ---- control groups */

static void without_control_groups_there_are_no_limits(void **state)
{
    (void)state;
    assert_int_equal(cpu_limit(), 0);
    assert_int_equal(room_limit(root), 0);
    put("proc/self/cgroup", "");
    assert_int_equal(cpu_limit(), 0);
    assert_int_equal(room_limit(root), 0);
}

static void a_container_of_v2_with_a_namespace_has_its_limits_at_the_mount(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/cpu.max", "150000 100000\n");
    put("sys/fs/cgroup/memory.max", "536870912\n");
    assert_int_equal(cpu_limit(), 1500);
    assert_int_equal(room_limit(root), 512 << 20);
    put("sys/fs/cgroup/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/memory.max", "max\n");
    assert_int_equal(cpu_limit(), 0);
    assert_int_equal(room_limit(root), 0);
}

static void the_tightest_of_nested_groups_counts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/kubepods.slice/pod1/app\n");
    put("sys/fs/cgroup/kubepods.slice/pod1/app/cpu.max", "400000 100000\n");
    put("sys/fs/cgroup/kubepods.slice/pod1/cpu.max", "25000 50000\n");
    put("sys/fs/cgroup/kubepods.slice/cpu.max", "max 100000\n");
    put("sys/fs/cgroup/kubepods.slice/pod1/app/memory.max", "max\n");
    put("sys/fs/cgroup/kubepods.slice/pod1/memory.max", "1073741824\n");
    put("sys/fs/cgroup/kubepods.slice/memory.max", "2147483648\n");
    assert_int_equal(cpu_limit(), 500);
    assert_int_equal(room_limit(root), 1 << 30);
}

/* Without a namespace the path is the host's and the mount the container's own. */
static void a_path_of_the_host_is_passed_over(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/docker/0123456789abcdef\n");
    put("sys/fs/cgroup/cpu.max", "250000 100000\n");
    put("sys/fs/cgroup/memory.max", "67108864\n");
    assert_int_equal(cpu_limit(), 2500);
    assert_int_equal(room_limit(root), 64 << 20);
}

static void a_path_out_of_the_namespace_is_not_followed(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/../../neighbour\n");
    put("sys/fs/neighbour/cpu.max", "10000 100000\n");
    put("sys/fs/neighbour/memory.max", "1048576\n");
    put("sys/neighbour/cpu.max", "10000 100000\n");
    put("sys/neighbour/memory.max", "1048576\n");
    put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    put("sys/fs/cgroup/memory.max", "33554432\n");
    assert_int_equal(cpu_limit(), 2000);
    assert_int_equal(room_limit(root), 32 << 20);
}

static void v1_has_its_own_names_and_mounts(void **state)
{
    (void)state;
    put("proc/self/cgroup", "12:memory:/docker/abc\n7:cpu,cpuacct:/docker/abc\n3:cpuset:/docker/abc\n1:name=systemd:/x\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "75000\n");
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
    assert_int_equal(cpu_limit(), 750);
    assert_int_equal(room_limit(root), 256 << 20);
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(cpu_limit(), 750);
    assert_int_equal(room_limit(root), 256 << 20);
    put("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_int_equal(cpu_limit(), 0);
    assert_int_equal(room_limit(root), 0);
}

static void hybrid_mounts_are_looked_at_both_ways(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/a\n1:cpu:/a\n0::/a\n");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000\n");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    put("sys/fs/cgroup/unified/a/cpu.max", "120000 100000\n");
    put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "4194304\n");
    put("sys/fs/cgroup/unified/a/memory.max", "8388608\n");
    assert_int_equal(cpu_limit(), 1200);
    assert_int_equal(room_limit(root), 4 << 20);
}

static void fractions_are_kept_and_rounded_up_for_workers(void **state)
{
    static const struct {
        const char *text;
        uint64_t milli;
    } rows[] = {{"1000 100000", 10},       {"99999 100000", 1000}, {"100000 100000", 1000},        {"100001 100000", 1001},
                {"1 1000000", 1},          {"33333 100000", 334},  {"6400000 100000", 64000},      {"0 100000", 0},
                {"-5 100000", 0},          {"100000 0", 0},        {"9223372036854775807 1", 0},   {"100000", 0},
                {"", 0},                   {"many 100000", 0}};
    (void)state;
    put("proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        put("sys/fs/cgroup/cpu.max", rows[i].text);
        assert_int_equal(cpu_limit(), rows[i].milli);
    }
}

static void a_cache_larger_than_the_memory_limit_is_refused(void **state)
{
    char msg[256];
    (void)state;
    put("proc/meminfo", "MemTotal: 99999999 kB\nMemAvailable: 99999999 kB\n");
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/memory.max", "134217728\n");
    put("sys/fs/cgroup/memory.current", "67108864\n");
    put("sys/fs/cgroup/memory.stat", "inactive_file 33554432\nactive_file 0\n"); /* can be given back */
    assert_true(room_check(root, 96 << 20, msg, sizeof msg));
    assert_false(room_check(root, 97 << 20, msg, sizeof msg));
    assert_string_equal(msg, "97MiB of cache memory configured, but the memory limit of this cgroup leaves only 96MiB");
}

/* ---- what is said */

static void the_line_of_the_log_says_what_was_found(void **state)
{
    struct system_facts f = {.cpus = {.seen = 64, .limit_milli = 1500, .available = 2}, .memory_limit = 4ull << 30,
                             .uring = URING_NOT_PERMITTED};
    char buf[256];
    (void)state;
    assert_string_equal(system_text(&f, 2, buf, sizeof buf),
                        "64 CPUs seen, CPU limit 1.500, memory limit 4GiB, io_uring not permitted; 2 workers");
    f = (struct system_facts){.cpus = {.seen = 8, .available = 8}, .uring = URING_AVAILABLE};
    assert_string_equal(system_text(&f, 8, buf, sizeof buf),
                        "8 CPUs seen, no CPU limit, no memory limit, io_uring available; 8 workers");
}

static void the_statistics_have_null_where_there_is_no_limit(void **state)
{
    struct system_facts f = {.cpus = {.seen = 4, .limit_milli = 500, .available = 1}, .memory_limit = 1 << 20,
                             .uring = URING_NOT_SUPPORTED};
    (void)state;
    for (int limited = 1; limited >= 0; limited--) {
        json_t *o = system_json(&f, 3);
        assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "cpus"), 0)), 4);
        assert_int_equal(json_integer_value(json_array_get(json_object_get(o, "workers"), 0)), 3);
        assert_string_equal(json_string_value(json_array_get(json_object_get(o, "io_uring"), 0)), "not supported");
        json_t *cpu = json_array_get(json_object_get(o, "cpu_limit"), 0);
        json_t *memory = json_array_get(json_object_get(o, "memory_limit"), 0);
        assert_true(limited ? json_real_value(cpu) > 0.499 && json_real_value(cpu) < 0.501 : json_is_null(cpu));
        assert_true(limited ? json_integer_value(memory) == 1 << 20 : json_is_null(memory));
        json_decref(o);
        f.cpus.limit_milli = f.memory_limit = 0;
    }
}

/* ---- io_uring */

/* From here on io_uring_setup has this outcome, for this process and its children. */
static bool forbid_io_uring(uint32_t outcome)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, outcome),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {ARRAY_LEN(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* The probe in a process of its own, as a filter cannot be taken off again; 100 where there are no filters. */
static int probe_under(uint32_t outcome)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(forbid_io_uring(outcome) ? (int)uring_probe() : 100);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFEXITED(status)) fail_msg("the process that asked was killed: status %d", status);
    return WEXITSTATUS(status);
}

static void a_seccomp_filter_that_forbids_io_uring_is_noticed(void **state)
{
    (void)state;
    if (probe_under(SECCOMP_RET_ALLOW) == 100) skip();
    assert_int_equal(probe_under(SECCOMP_RET_ERRNO | EPERM), URING_NOT_PERMITTED);
    assert_int_equal(probe_under(SECCOMP_RET_ERRNO | EACCES), URING_NOT_PERMITTED);
    assert_int_equal(probe_under(SECCOMP_RET_ERRNO | ENOSYS), URING_NOT_SUPPORTED);
}

static void a_filter_that_kills_does_not_end_the_process_that_asks(void **state)
{
    (void)state;
    if (probe_under(SECCOMP_RET_ALLOW) == 100) skip();
    assert_int_equal(probe_under(SECCOMP_RET_KILL_PROCESS), URING_NOT_PERMITTED);
}

static void the_kernels_own_answer_is_the_probes(void **state)
{
    long params[15] = {0};
    (void)state;
    long fd = syscall(SYS_io_uring_setup, 1u, params);
    enum uring expected = fd >= 0 ? URING_AVAILABLE : errno == ENOSYS ? URING_NOT_SUPPORTED : URING_NOT_PERMITTED;
    if (fd >= 0) close((int)fd);
    assert_int_equal(uring_probe(), expected);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(without_control_groups_there_are_no_limits),
        TEST(a_container_of_v2_with_a_namespace_has_its_limits_at_the_mount),
        TEST(the_tightest_of_nested_groups_counts),
        TEST(a_path_of_the_host_is_passed_over),
        TEST(a_path_out_of_the_namespace_is_not_followed),
        TEST(v1_has_its_own_names_and_mounts),
        TEST(hybrid_mounts_are_looked_at_both_ways),
        TEST(fractions_are_kept_and_rounded_up_for_workers),
        TEST(a_cache_larger_than_the_memory_limit_is_refused),
        TEST(the_line_of_the_log_says_what_was_found),
        TEST(the_statistics_have_null_where_there_is_no_limit),
        TEST(a_seccomp_filter_that_forbids_io_uring_is_noticed),
        TEST(a_filter_that_kills_does_not_end_the_process_that_asks),
        TEST(the_kernels_own_answer_is_the_probes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
