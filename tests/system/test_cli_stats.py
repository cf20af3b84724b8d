"""stats: what the proxy counts, as a table, as JSON, since a mark, and as a live screen."""
import json
import os
import signal
import socket
import subprocess
import termios

import cli as cli_module
import net
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
KIB = 1 << 10


def used(http, origin, n=3):
    p = http()
    origin.put("/b/k", 100 * KIB)
    for _ in range(n):
        p.get_checked("/b/k", 100 * KIB)
    net.wait_until("all are counted", lambda: p.stats()["requests"]["cache"]["hit"] == n - 1)
    return p


def row(text, section, name):
    """The words of a row below a title."""
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(section))
    return next(line.split() for line in lines[at + 1:] if line.split()[:1] == [name])


def test_a_table_for_people(cli, http, origin):
    p = used(http, origin)
    text = cli.to(p)("stats").ok().out
    assert text.startswith("s3dlio-proxy ") and " at " + p.url + ", up " in text and "2 workers" in text
    assert row(text, "Requests", "cache")[:7] == ["cache", "hit", "2", "miss", "1", "(66.7%", "found)"]
    assert row(text, "Bytes", "saved")[1:3] == ["200.0", "KiB"]
    assert row(text, "Cache", "main")[1:3] == ["66.7%", "66.7%"]
    assert row(text, "Origin", "o")[1] == "1"
    assert row(text, "Bucket", "b")[1:3] == ["3", "0"]
    latency = [float(v) for v in row(text, "Latency", "total")[1:]]
    assert latency == sorted(latency) and latency[0] > 0
    assert "\033" not in text and all(len(line) < 120 for line in text.split("\n"))


def test_json_is_what_the_proxy_says(cli, http, origin):
    p = used(http, origin)
    s = cli.to(p)("stats", "--json").json()
    assert s["requests"]["cache"] == p.stats()["requests"]["cache"] and s["caches"]["main"]["hit_ratio"] > 0.6


def test_since_a_mark(cli, http, origin):
    p = used(http, origin)
    p.fetch("POST", "/_s3dlio/mark", body=json.dumps({"label": "epoch 2/+&%"}).encode())
    p.get_checked("/b/k", 100 * KIB)
    net.wait_until("it is counted", lambda: p.stats()["requests"]["cache"]["hit"] == 3)
    s = cli.to(p)("stats", "--since", "epoch 2/+&%", "--json").json()
    assert s["since"]["label"] == "epoch 2/+&%" and s["requests"]["cache"]["hit"] == 1
    text = cli("stats", "--since", "epoch 2/+&%").ok().out
    assert "since the mark \"epoch 2/+&%\"" in text and "100.0% found" in text
    cli("stats", "--since", "nonesuch").failed(cli_module.NOT_THERE, "404 NoSuchKey")


@pytest.mark.ways("h1")
def test_wrong_usage_is_told(cli):
    cli.to("http://127.0.0.1:9")
    cli("stats", "--count", "3").failed(cli_module.USAGE, "--count needs --watch")
    cli("stats", "--interval", "3s").failed(cli_module.USAGE, "--interval needs --watch")
    cli("stats", "--watch", "--interval", "1ms").failed(cli_module.USAGE, "--interval 1ms")
    cli("stats", "x").failed(cli_module.USAGE, "too many arguments")


@pytest.mark.ways("h1")
def test_no_proxy_and_what_is_no_proxy(cli, origin):
    gone = "http://127.0.0.1:%d" % net.free_port()
    for watch in ((), ("--watch",)):
        cli.to(gone)("--retries", "0", "stats", *watch).failed(cli_module.FAILED, "stats at " + gone, "refused")
    origin.put("/_s3dlio/stats", 1000)
    cli.to(origin.url)("stats").failed(cli_module.FAILED, "no admin route of s3dlio-proxy")
    cli("--admin-path", "/", "stats").failed(cli_module.USAGE, "--admin-path /")


def test_watching_without_a_terminal_prints_blocks(cli, http, origin):
    p = used(http, origin)
    ran = cli.to(p)("stats", "--watch", "--interval", "100ms", "--count", "3").ok()
    assert ran.out.count("s3dlio-proxy ") == 3 and "\033" not in ran.out
    lines = cli("stats", "-w", "-i100ms", "-n2", "--json").json_lines()
    assert len(lines) == 2 and lines[0]["requests"]["total"] < lines[1]["requests"]["total"]
    assert lines[1]["uptime_s"] - lines[0]["uptime_s"] > 0.05


def test_a_reader_that_leaves_ends_it_quietly(cli, http):
    cli.to(http())
    r, w = os.pipe()
    run = cli.start("stats", "--watch", "--interval", "100ms", stdout=w)
    os.close(w)
    assert os.read(r, 10)
    os.close(r)
    ran = run.wait()
    assert ran.code in (0, -signal.SIGPIPE) and ran.err == "", ran


def test_an_interrupt_ends_it(cli, http):
    run = cli.to(http()).start("stats", "--watch", "--interval", "1h")
    net.wait_until("the first block", lambda: os.path.getsize(run.stdout) > 0)
    ran = run.interrupt()
    assert ran.code == cli_module.INTERRUPTED and ran.err == "", ran


def test_a_live_screen_shows_rates_and_leaves_with_q(cli, http, origin):
    p = used(http, origin)
    t = cli.to(p).terminal("stats", "--watch", "--interval", "100ms", rows=45, columns=110)
    t.shows("Requests", "Lately", "Bucket", " up ")
    assert t.screen.alternate and not t.screen.cursor
    flags = termios.tcgetattr(t.fd)[3]
    assert not flags & (termios.ICANON | termios.ECHO)

    def busy(screen):
        p.get_checked("/b/k", 100 * KIB)
        return "found, lately)" in screen and "100.0%" in screen and "\u2588" in screen
    t.until("a history with bars and a hit ratio of the last interval", busy)
    t.keys(b"xq")
    assert t.wait() == cli_module.OK
    assert termios.tcgetattr(t.fd) == t.settings, "the terminal's settings are as they were"


def test_a_screen_follows_its_size(cli, http, origin):
    p = used(http, origin)
    t = cli.to(p).terminal("stats", "--watch", "--interval", "1h", rows=45, columns=110)
    t.shows("Bucket")
    t.quiet()         # what is still on its way is for the old size
    t.screen.lines.clear()
    t.resize(8, 40)   # Screen asserts that no line and no row is beyond
    t.until("drawn again", lambda s: "Requests" in s and "Bucket" not in s)
    t.resize(50, 120)
    t.shows("Bucket", "Latency")
    t.signal(signal.SIGINT)
    assert t.wait() == cli_module.INTERRUPTED
    assert termios.tcgetattr(t.fd) == t.settings


def test_a_screen_without_utf8_draws_with_ascii(cli, http, origin):
    p = used(http, origin)
    t = cli.to(p).terminal("stats", "--watch", "--interval", "100ms", rows=45, columns=110, env={"LC_ALL": "C"})

    def busy(screen):
        p.get_checked("/b/k", 100 * KIB)
        return "#" in screen
    t.until("bars", busy)
    t.keys(b"q")
    assert t.wait() == cli_module.OK and t.output.isascii()


@pytest.mark.ways("h1")
def test_a_screen_outlives_a_proxy_that_restarts(cli, http, origin):
    origin.put("/b/k", 100 * KIB)
    p = http()
    t = cli.to(p).terminal("--retries", "0", "stats", "--watch", "--interval", "100ms", rows=45, columns=110)
    t.shows("Requests")
    p.stop()
    t.shows("refused", " old")
    again = subprocess.Popen(p.process.args, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        t.until("it is asked again", lambda s: "refused" not in s and "up " in s)
    finally:
        again.terminate()
        again.wait(20 * net.SLOW)
    t.keys(b"q")
    assert t.wait() == cli_module.OK


@pytest.mark.ways("h1")
def test_q_leaves_while_an_answer_is_awaited(cli):
    """Of a proxy that accepts and says nothing."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(8)
        t = cli.to("http://127.0.0.1:%d" % s.getsockname()[1]).terminal("stats", "--watch")
        conn, _ = s.accept()
        t.read(0.3)
        t.keys(b"q")
        assert t.wait(5) == cli_module.OK
        conn.close()


def test_a_stop_gives_the_terminal_back(cli, http):
    t = cli.to(http()).terminal("stats", "--watch", "--interval", "100ms")
    t.shows("Requests")
    t.signal(signal.SIGTSTP)
    t.until("the usual screen", lambda s: not t.screen.alternate and t.screen.cursor)
    net.wait_until("it is stopped", lambda: open("/proc/%d/stat" % t.pid).read().rsplit(")", 1)[1].split()[0] == "T")
    t.signal(signal.SIGCONT)
    t.until("the other one", lambda s: t.screen.alternate and "Requests" in s)
    t.keys(b"q")
    assert t.wait() == cli_module.OK
