"""What a container takes away is noticed: CPU time (control groups), memory, and io_uring (seccomp), each said in the log
at start and in the statistics."""
import ctypes
import os
import subprocess

import net
import pytest
from seccomp import ALLOW, ERRNO, KILL, forbid

pytestmark = pytest.mark.ways("h1")
SYS_IO_URING_SETUP = 425   # on every architecture
EPERM, ENOSYS = 1, 38


def kernels_own():
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_IO_URING_SETUP, 1, ctypes.create_string_buffer(120))
    if fd >= 0:
        os.close(fd)
        return "available"
    return "not supported" if ctypes.get_errno() == ENOSYS else "not permitted"


def system_line(p):
    def line():   # the log has a thread of its own
        return [text for text in p.stderr().splitlines() if "system: " in text and "CPUs seen" in text]
    return net.wait_until("the line of the log", line)[0]


def can_mount():
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"],
                                                capture_output=True, check=False).returncode == 0


def in_control_groups(tmp_path, files, own="0::/"):
    """A prefix: a mount namespace in which these are the files of /sys/fs/cgroup, and /proc/self/cgroup says `own`."""
    top = tmp_path / "cgroup"
    for name, text in files.items():
        f = top / name
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(text)
    (tmp_path / "own").write_text(own + "\n")
    script = 'mount --bind "$1" /sys/fs/cgroup && mount --bind "$2" /proc/$$/cgroup && shift 2 && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh", str(top), str(tmp_path / "own")]


@pytest.mark.parametrize("outcome, expected", [(ERRNO | EPERM, "not permitted"), (ERRNO | ENOSYS, "not supported"),
                                               (KILL, "not permitted"), (ALLOW, None)])
def test_io_uring_under_seccomp_is_noticed_and_the_proxy_serves(http, origin, outcome, expected):
    p = http(prefix=forbid(SYS_IO_URING_SETUP, outcome))
    expected = expected or kernels_own()
    assert "io_uring " + expected in system_line(p)
    assert p.stats()["system"]["io_uring"] == expected
    origin.put("/b/k", 3 << 20)
    p.get_checked("/b/k", 3 << 20)


@pytest.mark.nosan
def test_without_limits_the_system_is_the_machine(http):
    p = http(workers="auto")
    s = p.stats()["system"]
    assert s["cpus"] == len(os.sched_getaffinity(0)) and s["workers"] == p.stats()["workers"]
    assert 1 <= s["workers"] <= s["cpus"]
    assert s["cpu_limit"] is None or s["workers"] == min(s["cpus"], -(-s["cpu_limit"] // 1))
    assert s["io_uring"] == kernels_own()
    text = p.get("/_s3dlio/metrics").body.decode()
    assert "s3dlio_proxy_cpus %d\n" % s["cpus"] in text


@pytest.mark.nosan
@pytest.mark.parametrize("own, files, cpu, memory", [
    # version 2: a namespace of its own; nested below the host's; version 1 as Docker mounts it
    ("0::/", {"cpu.max": "50000 100000\n", "memory.max": "536870912\n"}, 0.5, 512 << 20),
    ("0::/kubepods/pod/app", {"kubepods/pod/cpu.max": "99000 100000\n", "kubepods/pod/app/cpu.max": "max 100000\n",
                              "kubepods/memory.max": "805306368\n"}, 0.99, 768 << 20),
    ("5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123", {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n",
                                                           "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                                                           "memory/memory.limit_in_bytes": "536870912\n"}, 1, 512 << 20),
])
def test_the_limits_of_control_groups_are_noticed(http, origin, tmp_path, own, files, cpu, memory):
    if not can_mount():
        pytest.skip("needs mount namespaces")
    p = http(workers="auto", prefix=in_control_groups(tmp_path, files, own))
    s = p.stats()["system"]
    assert s["cpu_limit"] == cpu and s["memory_limit"] == memory
    assert s["workers"] == p.stats()["workers"] == 1, "a worker per CPU that is granted, not per CPU that is there"
    line = system_line(p)
    assert "CPU limit %.3f" % cpu in line and "memory limit %dMiB" % (memory >> 20) in line and "; 1 workers" in line
    text = p.get("/_s3dlio/metrics").body.decode()
    assert "s3dlio_proxy_cpu_limit_cpus %.6f\n" % cpu in text and "s3dlio_proxy_memory_limit_bytes %d\n" % memory in text
    origin.put("/b/k", 3 << 20)
    p.get_checked("/b/k", 3 << 20)


@pytest.mark.nosan
def test_more_workers_than_cpu_time_is_a_warning(http, tmp_path):
    if not can_mount():
        pytest.skip("needs mount namespaces")
    p = http(workers=3, prefix=in_control_groups(tmp_path, {"cpu.max": "100000 100000\n"}))
    assert p.stats()["workers"] == 3
    net.wait_until("the warning", lambda: "3 workers, but CPU time of only 1 CPUs is granted" in p.stderr())


@pytest.mark.nosan
def test_a_cache_that_the_memory_limit_has_no_room_for_is_refused_at_start(http, tmp_path):
    if not can_mount():
        pytest.skip("needs mount namespaces")
    p = http(ready=False, cache={"memory": "256MiB"}, prefix=in_control_groups(tmp_path, {"memory.max": "134217728\n"}))
    assert p.wait() == 1
    assert "256MiB of cache memory configured, but the memory limit of this cgroup leaves only 128MiB" in p.stderr()
    p.ended()


@pytest.mark.nosan
def test_a_real_cpu_quota_is_noticed(http):
    """Where control groups of version 1 can be made: the kernel's own files."""
    group = "/sys/fs/cgroup/cpu/s3p-test-%d" % os.getpid()
    try:
        os.mkdir(group)
    except OSError:
        pytest.skip("no control group can be made here")
    try:
        if not os.path.exists(group + "/cpu.cfs_quota_us"):
            pytest.skip("no CPU quotas of version 1 here")
        with open(group + "/cpu.cfs_quota_us", "w") as f:
            f.write("70000")
        p = http(workers="auto", prefix=["sh", "-c", 'echo $$ > "$1/cgroup.procs" && shift && exec "$@"', "sh", group])
        s = p.stats()["system"]
        assert s["cpu_limit"] == 0.7 and s["workers"] == 1
        p.stop()
    finally:
        net.wait_until("the group to be empty", lambda: not open(group + "/cgroup.procs").read())
        os.rmdir(group)
