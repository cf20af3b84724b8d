"""The systemd unit: systemd accepts it, its exposure stays low, and the proxy works under the system calls it leaves."""
import os
import re
import shutil
import signal
import subprocess

import conftest
import net
import pytest
import seccomp
from proxy import BINARY, TOP

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
EPERM = 1
EXPOSURE = 16   # tenths


@pytest.fixture(scope="module")
def systemd_analyze():
    binary = shutil.which("systemd-analyze")
    if not binary:
        assert not conftest.CI, "systemd-analyze is required in CI: tests/run installs systemd"
        pytest.skip("no systemd-analyze")
    return binary


@pytest.fixture
def unit(tmp_path):
    """The unit as `make install` makes it, with a program and a configuration that are there."""
    with open(os.path.join(TOP, "conf", "s3dlio-proxy.service"), encoding="utf-8") as f:
        text = f.read()
    text = text.replace("/usr/bin/s3dlio-proxy", BINARY)
    file = tmp_path / "s3dlio-proxy.service"
    file.write_text(text)
    return file


def test_systemd_accepts_the_unit(systemd_analyze, unit):
    r = subprocess.run([systemd_analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    said = [line for line in r.stderr.splitlines() if "s3dlio-proxy" in line]
    assert r.returncode == 0 and not said, r.stderr


def test_its_exposure_is_low(systemd_analyze, unit):
    r = subprocess.run([systemd_analyze, "security", "--offline=yes", "--no-pager", "--threshold=%d" % EXPOSURE, str(unit)],
                       capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout + r.stderr
    assert float(re.search(r"exposure level for s3dlio-proxy.service: ([\d.]+)", r.stdout)[1]) <= EXPOSURE / 10


def allowed_by(unit):
    """The names that the SystemCallFilter lines of a unit leave."""
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.+)$", unit.read_text(), re.M):
        names = set()
        for word in line.lstrip("~").split():
            names |= seccomp.systemd_set(word) if word.startswith("@") else {word}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def test_the_proxy_works_under_the_units_system_calls(systemd_analyze, unit, http, origin):
    allowed = allowed_by(unit)
    assert len(allowed) > 200 and "io_uring_setup" in allowed and "mount" not in allowed and "chown" not in allowed
    numbers = seccomp.numbers_of(allowed | {"execve"})
    p = http(prefix=seccomp.allow_only(numbers, seccomp.ERRNO | EPERM), workers="auto")
    origin.put("/b/k", 20 << 20)
    for _ in range(4):   # cold, warm, with sendfile
        p.get_checked("/b/k", 20 << 20)
    assert p.fetch("PUT", "/b/new", body=b"x" * 100000).status in (200, 201, 204)
    assert p.purge(all=True).status == 200
    p.signal(signal.SIGHUP)
    net.wait_until("the reload", lambda: "read again" in p.stderr())
    p.get_checked("/b/k", 20 << 20)
    assert p.stats()["system"]["cpus"] == len(os.sched_getaffinity(0))
    p.stop()
    assert "cannot" not in p.stderr(), p.stderr()
