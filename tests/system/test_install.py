"""make install puts things where they belong, and quickstart shows the thing working."""
import os
import re
import shutil
import signal
import subprocess

import net
import pytest
import raw
from proxy import BINARY, TOP, environment, run

pytestmark = pytest.mark.nosan


@pytest.fixture(scope="module")
def dest(tmp_path_factory):
    build = os.path.dirname(BINARY)
    if not os.path.exists(os.path.join(build, "Makefile")):
        pytest.skip("S3P_BINARY is not in a build directory")
    d = tmp_path_factory.mktemp("dest")
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    subprocess.run(["make", "-C", build, "install", "DESTDIR=%s" % d], check=True, capture_output=True, env=env)
    return d


def find(dest, name):
    return [os.path.join(r, f) for r, _, files in os.walk(dest) for f in files if f == name]


def test_install_puts_binary_config_man_page_unit_and_module_header(dest):
    for name in ("s3dlio-proxy", "s3dlio-proxy.8", "s3dlio-proxy.service", "s3p_module.h"):
        files = find(dest, name)
        if not files and name.endswith(".8"):
            files = find(dest, "s3dlio-proxy.1") + find(dest, "s3dlio-proxy.8.gz")
        assert len(files) == 1, (name, files)
    assert "/bin/" in find(dest, "s3dlio-proxy")[0]
    assert [f for r, _, fs in os.walk(dest) for f in fs if f.endswith((".yaml", ".yml")) and "/etc/" in r + "/"]
    unit = open(find(dest, "s3dlio-proxy.service")[0]).read()
    assert re.search(r"^ExecStart=\S*s3dlio-proxy -c \S+\.ya?ml", unit, re.M) and not re.search(r"@\w+@", unit)


def test_the_installed_binary_accepts_the_installed_config(dest):
    conf = [os.path.join(r, f) for r, _, fs in os.walk(dest) for f in fs if f.endswith((".yaml", ".yml"))]
    for f in conf:
        code, out, err = run(["-c", f, "--test"], env={"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"},
                             binary=find(dest, "s3dlio-proxy")[0])
        assert code == 0, err


def test_the_man_page_renders(dest):
    if not shutil.which("groff") and not shutil.which("man"):
        pytest.skip("neither man nor groff here")
    page = [os.path.join(r, f) for r, _, fs in os.walk(dest) for f in fs if "/man/" in r][0]
    cmd = ["groff", "-man", "-Tutf8", "-ww", page] if shutil.which("groff") else ["man", "-l", page]
    r = subprocess.run(cmd, capture_output=True, text=True)
    assert r.returncode == 0 and "s3dlio-proxy" in r.stdout and not r.stderr.strip(), r.stderr


def quickstart_env(tmp_path):
    env = environment({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "S3P_QUICKSTART_BUILT": "1"})
    return env


@pytest.mark.skipif(BINARY != os.path.join(TOP, "s3dlio-proxy"), reason="quickstart runs the tree's own build")
def test_quickstart_demo_shows_cold_warm_range_and_stats_and_exits_0(tmp_path):
    r = subprocess.run([os.path.join(TOP, "quickstart"), "--demo-only"], env=quickstart_env(tmp_path), capture_output=True,
                       text=True, timeout=170, stdin=subprocess.DEVNULL)
    assert r.returncode == 0, r.stdout + r.stderr
    for word in ("cold", "warm", "range", "stats", "MISS", "HIT"):
        assert re.search(word, r.stdout, re.I), (word, r.stdout)


@pytest.mark.skipif(BINARY != os.path.join(TOP, "s3dlio-proxy"), reason="quickstart runs the tree's own build")
def test_quickstart_serves_until_interrupted_and_takes_another_port_when_8080_is_taken(tmp_path):
    import socket
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        held.bind(("127.0.0.1", 8080))
        held.listen()
    except OSError:
        pass   # then somebody else holds it: just as well
    p = subprocess.Popen([os.path.join(TOP, "quickstart")], env=quickstart_env(tmp_path), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL, start_new_session=True)
    lines = []
    try:
        port = None
        for line in p.stdout:
            lines.append(line)
            m = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            port = int(m[1]) if m else port
            if "Ctrl-C" in line:
                break
        text = "".join(lines)
        assert port and port != 8080 and "8080" in text, text
        assert raw.get(("127.0.0.1", port), "/_s3dlio/health").status == 200
        os.killpg(p.pid, signal.SIGINT)
        assert p.wait(20) == 0, "".join(lines) + p.stdout.read()
        assert not net.can_connect(port)
    finally:
        held.close()
        if p.poll() is None:
            os.killpg(p.pid, signal.SIGKILL)
            p.wait()


def test_quickstart_tells_how_to_use_it():
    r = subprocess.run([os.path.join(TOP, "quickstart"), "--help"], capture_output=True, text=True,
                       stdin=subprocess.DEVNULL)
    assert r.returncode == 0 and "--demo-only" in r.stdout and "s3://" in r.stdout
    r = subprocess.run([os.path.join(TOP, "quickstart"), "--nonsense"], capture_output=True, text=True,
                       stdin=subprocess.DEVNULL)
    assert r.returncode == 2 and "--nonsense" in r.stderr
