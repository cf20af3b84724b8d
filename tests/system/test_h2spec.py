"""HTTP/2 conformance: every case of h2spec against the proxy, in cleartext and over TLS. tests/run builds h2spec."""
import os
import re
import shutil
import subprocess

import conftest
import net
import proxy as proxy_module
import pytest
import servers

CASES = {"": 145, "--strict": 146}  # h2spec leaves one case out where it is not strict


def h2spec_binary():
    for p in (os.environ.get("S3P_H2SPEC"), os.path.join(servers.TOP, "build/go-bin/h2spec"), shutil.which("h2spec")):
        if p and os.access(p, os.X_OK):
            return p
    return None


@pytest.fixture(scope="module")
def h2spec():
    binary = h2spec_binary()
    if not binary:
        if conftest.CI:
            pytest.fail("h2spec is required in CI: tests/run builds it where Go is found")
        pytest.skip("no h2spec (tests/run builds it where Go is found)")
    return binary


def listener(tmp_path, port, tls):
    if not tls:
        return "127.0.0.1:%d" % port
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"], cwd=tmp_path,
                   check=True, capture_output=True)
    return {"address": "127.0.0.1:%d" % port,
            "tls": {"certificate": str(tmp_path / "cert.pem"), "key": str(tmp_path / "key.pem")}}


@pytest.mark.parametrize("path", ["/b/k", "/absent"])
@pytest.mark.parametrize("strict", ["", "--strict"], ids=["usual", "strict"])
@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "tls"])
def test_h2spec(h2spec, origin, tmp_path, tls, strict, path):
    origin.put("/b/k", 200000)
    port, spec_port = net.free_port(), net.free_port()
    conf = proxy_module.config(port, {"type": "http", "endpoint": origin.url})
    conf["servers"][0]["listen"] = ["127.0.0.1:%d" % port, listener(tmp_path, spec_port, tls)]
    p = proxy_module.Proxy(tmp_path, conf, port)
    try:
        p.wait_ready()
        args = [h2spec, "-h", "127.0.0.1", "-p", str(spec_port), "-P", path, "-o", str(int(3 * net.SLOW))]
        r = subprocess.run(args + (["-t", "-k"] if tls else []) + ([strict] if strict else []), capture_output=True,
                           text=True, stdin=subprocess.DEVNULL, timeout=150)
        found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", r.stdout)
        assert found, r.stdout[-3000:] + r.stderr[-1000:]
        assert [int(n) for n in found.groups()] == [CASES[strict], CASES[strict], 0, 0], r.stdout[-6000:]
        assert r.returncode == 0, r.stdout[-3000:]
        p.get_checked("/b/k", 200000)
        p.stop()
    finally:
        p.kill()
