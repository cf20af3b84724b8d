"""Start, signals, exit: draining, the second signal, log rotation, and what keeps it from starting (one line, exit 1)."""
import json
import os
import signal
import socket
import subprocess
import threading
import time

import net
import proxy as proxy_module
import pytest
import raw
import ways
import yaml
from content import Checker
from proxy import run

MIB = 1 << 20


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_an_idle_proxy_at_once_with_status_0(http, origin, sig):
    p = http()
    origin.put("/b/k", 10)
    with p.connect() as c:   # an idle keep-alive connection does not hold it
        c.request("GET", "/b/k")
        c.response()
        begin = time.monotonic()
        p.signal(sig)
        assert p.wait() == 0
        assert time.monotonic() - begin < 5 * net.SLOW
        assert c.is_closed()
    p.ended()


def test_drain_finishes_the_download_under_way_and_takes_no_more(http, origin):
    p = http(shutdown_timeout="20s")
    size, gate = 8 * MIB, threading.Event()
    origin.put("/b/k", size)
    origin.on(path="/b/k", mid_gate=(100000, gate))
    check = Checker("/b/k")
    with p.connect() as c:
        c.request("GET", "/b/k")
        r = c.head()
        p.signal(signal.SIGTERM)
        net.wait_until("the listener is closed", lambda: not net.can_connect(p.port))
        assert p.process.poll() is None
        gate.set()
        c.body(r, "GET", check)
        assert check.position == size
        assert c.is_closed()
    assert p.wait() == 0
    p.ended()


@pytest.mark.ways("h1", "h1tls")
def test_drain_answers_the_request_that_came_in_time_with_connection_close(http, origin):
    p = http()
    gate = threading.Event()
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", gate=gate)
    with p.conn() as c:
        c.request("GET", "/b/k")
        net.wait_until("it is under way", lambda: origin.count("/b/k") == 1)
        p.signal(signal.SIGTERM)
        time.sleep(0.2)
        gate.set()
        r = c.response()
        assert r.status == 200 and r.get("connection").lower() == "close"
    assert p.wait() == 0
    p.ended()


def test_drain_is_bounded_by_shutdown_timeout(http, origin):
    p = http(shutdown_timeout="500ms")
    origin.put("/b/k", 10)
    origin.on(path="/b/k", never=True)
    with p.connect() as c:
        c.request("GET", "/b/k")
        net.wait_until("it is under way", lambda: origin.count("/b/k") == 1)
        begin = time.monotonic()
        p.signal(signal.SIGTERM)
        assert p.wait() == 0
        assert 0.3 < time.monotonic() - begin < 6 * net.SLOW
        with pytest.raises((raw.Broken, OSError)):
            c.response()
    p.ended()


def test_second_signal_ends_it_at_once(http, origin):
    # that it leaves its threads running is what is wanted here
    p = http(shutdown_timeout="60s", env={"TSAN_OPTIONS": "exitcode=66:report_thread_leaks=0"})
    origin.put("/b/k", 10)
    origin.on(path="/b/k", never=True)
    with p.connect() as c:
        c.request("GET", "/b/k")
        net.wait_until("it is under way", lambda: origin.count("/b/k") == 1)
        p.signal(signal.SIGTERM)
        time.sleep(0.3)
        assert p.process.poll() is None
        begin = time.monotonic()
        p.signal(signal.SIGTERM)
        p.wait()
        assert time.monotonic() - begin < 3 * net.SLOW
    p.ended()


@pytest.mark.ways(*ways.ALL)
def test_exit_with_uploads_downloads_and_waiters_under_way_frees_everything(http, origin):
    """What a leak checker is for: end it in the middle of everything."""
    p = http(shutdown_timeout="200ms", cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "128KiB"}})
    origin.put("/b/k", 64 * MIB)
    origin.throttle = MIB
    conns = []
    for i in range(6):
        c = p.connect()
        c.request("GET", "/b/k")
        conns.append(c)
    c = p.connect()
    c.request("PUT", "/b/put", {"Content-Length": str(MIB)})
    c.send(b"x" * 1000)
    conns.append(c)
    c = raw.Conn(p.address)
    c.send(b"GET /b/k HTT")
    conns.append(c)
    c = p.connect()
    c.request("GET", "/b/k?acl")
    conns.append(c)
    time.sleep(0.3)
    p.signal(signal.SIGTERM)
    assert p.wait() == 0
    p.ended()
    for c in conns:
        c.close()


def test_sigusr1_reopens_the_logs(start, origin, tmp_path):
    log, access = tmp_path / "error.log", tmp_path / "access.log"
    origin.put("/b/k", 10)
    p = start({"type": "http", "endpoint": origin.url}, log={"file": str(log)}, access_log={"file": str(access)})
    p.get("/b/k")
    net.wait_until("a line", lambda: access.exists() and access.read_text().count("/b/k") == 1)
    for f in (log, access):
        f.rename(str(f) + ".1")
    p.signal(signal.SIGUSR1)
    net.wait_until("both are there again", lambda: log.exists() and access.exists())
    p.get("/b/k")
    net.wait_until("the new line in the new file", lambda: access.read_text().count("/b/k") == 1)


def test_sigpipe_and_sighup_do_not_kill_it(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.signal(signal.SIGPIPE)
    time.sleep(0.1)
    assert p.get("/b/k").status == 200


def test_version_help_and_config_help():
    code, out, err = run(["--version"])
    assert code == 0 and "s3dlio-proxy" in out
    code, out, err = run(["--help"])
    assert code == 0 and "--help-config" in out + err
    code, out, err = run(["--help-config"])
    assert code == 0
    for word in ("slice_size", "max_in_flight", "fresh_for", "read_ahead", "shutdown_timeout", "ca_file"):
        assert word in out


@pytest.mark.parametrize("args", [["--nonsense"], ["-c"], ["-c", "/nonexistent/file.yaml"], ["extra"]])
def test_wrong_arguments_are_one_clear_line_and_exit_2(args):
    code, out, err = run(args)
    assert code in (1, 2) and err.strip()
    assert "nonexistent" not in args[-1] or "/nonexistent/file.yaml" in err


def write(tmp_path, conf):
    f = tmp_path / "c.yaml"
    f.write_text(yaml.safe_dump(conf, sort_keys=False))
    return str(f)


def fails_to_start(tmp_path, conf, *words, prefix=()):
    code, out, err = run(["-c", write(tmp_path, conf)], prefix=prefix)
    lines = [line for line in err.splitlines() if line.strip()]
    assert code == 1, (code, err)
    assert any(all(w in line for w in words) for line in lines), err
    assert len(lines) <= 3, err
    return err


def some(port=None, origin=None, **kw):
    return proxy_module.config(port or net.free_port(), origin or {"type": "http", "endpoint": "http://127.0.0.1:9"}, **kw)


def test_port_in_use(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        fails_to_start(tmp_path, some(port), str(port), "in use")


def test_port_in_use_by_another_proxy(http, tmp_path):
    """SO_REUSEPORT would let two of them share a port and split the clients."""
    p = http()
    fails_to_start(tmp_path, some(p.port), str(p.port), "in use")
    assert p.get("/_s3dlio/health").status == 200


def test_unwritable_logs(tmp_path):
    fails_to_start(tmp_path, some(log={"file": "/nonexistent/dir/error.log"}), "/nonexistent/dir/error.log")
    fails_to_start(tmp_path, some(access_log={"file": "/nonexistent/dir/access.log"}), "/nonexistent/dir/access.log")


def test_missing_ca_file(tmp_path):
    o = {"type": "http", "endpoint": "https://127.0.0.1:9", "tls": {"ca_file": "/nonexistent/ca.pem"}}
    fails_to_start(tmp_path, some(origin=o), "/nonexistent/ca.pem")


def test_ca_file_that_is_no_certificate(tmp_path):
    bad = tmp_path / "ca.pem"
    bad.write_text("not a certificate\n")
    o = {"type": "http", "endpoint": "https://127.0.0.1:9", "tls": {"ca_file": str(bad)}}
    fails_to_start(tmp_path, some(origin=o), str(bad))


def test_missing_root_of_a_file_origin(tmp_path):
    fails_to_start(tmp_path, some(origin={"type": "file", "root": "/nonexistent/root"}), "/nonexistent/root")


def test_missing_credentials(tmp_path):
    o = {"type": "s3", "endpoint": "http://127.0.0.1:9", "credentials": {"source": "env"}}
    fails_to_start(tmp_path, some(origin=o), "AWS_ACCESS_KEY_ID")


def test_missing_profile(tmp_path):
    f = tmp_path / "credentials"
    f.write_text("[default]\naws_access_key_id = A\naws_secret_access_key = verysecretvalue\n")
    o = {"type": "s3", "endpoint": "http://127.0.0.1:9",
         "credentials": {"source": "profile", "profile": "absent", "file": str(f)}}
    assert "verysecretvalue" not in fails_to_start(tmp_path, some(origin=o), "absent")


@pytest.mark.nosan
def test_too_little_memory_for_the_cache(tmp_path):
    fails_to_start(tmp_path, some(cache={"memory": "32TiB"}), "32")
    fails_to_start(tmp_path, some(cache={"memory": "4GiB"}), "memory", prefix=("prlimit", "--as=2000000000", "--"))


def test_workers_follow_the_affinity_of_the_process(start, origin):
    p = start({"type": "http", "endpoint": origin.url}, workers="auto", prefix=("taskset", "-c", "0"))
    assert p.stats()["workers"] == 1


def test_start_and_stop_ten_times_on_one_port(tmp_path, origin):
    origin.put("/b/k", 10)
    port = net.free_port()
    for i in range(10 if not net.SANITIZER else 3):
        d = tmp_path / str(i)
        d.mkdir()
        p = proxy_module.Proxy(d, proxy_module.config(port, {"type": "http", "endpoint": origin.url}), port)
        try:
            p.wait_ready()
            assert p.get("/b/k").status == 200
            p.stop()
        finally:
            p.kill()


def test_descriptors_do_not_pile_up(http, origin):
    p = http()
    for i in range(50):
        origin.put("/b/k%d" % i, 1000)
    p.get("/b/k0")
    net.wait_until("calm", lambda: p.stats()["connections"]["open"] <= 1)
    before = p.descriptors()
    for i in range(50):
        p.get("/b/k%d" % i)
        p.get("/b/none")
        with p.conn() as c:
            c.send(b"garbage\r\n\r\n")
    net.wait_until("calm", lambda: p.stats()["connections"]["open"] <= 1)
    net.wait_until("descriptors are given back", lambda: p.descriptors() <= before + 6)


def test_the_binary_does_not_write_to_where_it_is_started(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k")
    assert sorted(os.listdir(p.tmp)) == ["proxy.stderr", "proxy.yaml"]


def test_secrets_are_in_no_log_and_no_config_output(start, origin, tmp_path):
    access = tmp_path / "access.log"
    secret = "verysecretvalue0123456789"
    p = start({"type": "s3", "endpoint": origin.url, "credentials": {
        "source": "static", "access_key": "AKIDEXAMPLE", "secret_key": secret, "session_token": "tokensecretvalue"}},
        log={"level": "debug"}, access_log={"file": str(access)})
    origin.put("/b/k", 10)
    p.get("/b/k?X-Amz-Signature=signaturevalue&X-Amz-Credential=credentialvalue&X-Amz-Security-Token=tokenvalue")
    p.get("/b/none")
    conf = p.get("/_s3dlio/config")
    net.wait_until("log lines", lambda: access.exists() and access.read_text().count("\n") >= 2)
    for text in (conf.body.decode(), p.stderr(), access.read_text(), json.dumps(p.stats())):
        for s in (secret, "tokensecretvalue", "signaturevalue", "tokenvalue"):
            assert s not in text, "%s in %s" % (s, text[:500])


def test_test_option_checks_and_does_not_start(tmp_path):
    conf = some()
    code, out, err = run(["-c", write(tmp_path, conf), "--test"])
    assert code == 0
    assert not net.can_connect(int(conf["servers"][0]["listen"][0].split(":")[1]))


def test_configuration_from_standard_input(tmp_path, origin):
    port = net.free_port()
    p = subprocess.Popen([proxy_module.BINARY, "-c", "-"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         env=proxy_module.environment())
    try:
        p.stdin.write(yaml.safe_dump(proxy_module.config(port, {"type": "http", "endpoint": origin.url})).encode())
        p.stdin.close()
        net.wait_until("it serves", lambda: net.can_connect(port))
        p.send_signal(signal.SIGTERM)
        assert p.wait(20 * net.SLOW) == 0
    finally:
        if p.poll() is None:
            p.kill()
            p.wait()
