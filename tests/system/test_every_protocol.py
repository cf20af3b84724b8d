"""What only HTTP/2 and only TLS have: streams side by side, GOAWAY, certificates. What a client gets whatever the protocol
is tested by all of the other files, see ways.py."""
import json
import os
import random
import signal
import socket
import ssl
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

import h2.errors
import httpx
import net
import proxy as proxy_module
import pytest
import yaml
from content import Checker, content
from h2client import H2Conn
from pki import DAY, Pki
from proxy import log_lines, run
from ways import trusting

pytestmark = pytest.mark.ways("h1")   # its proxies listen both ways at once
MIB = 1 << 20
WAYS = {"h1": (False, False), "h2c": (False, True), "h1_tls": (True, False), "h2_tls": (True, True)}
H2_WAYS = ["h2c", "h2_tls"]


@pytest.fixture(scope="module")
def pki(certificates):
    return certificates


def text_of(origin_url, pki, tls_port, tls=None, **top):
    """A configuration with a cleartext and a TLS listen address; the type of the origin is s3, unsigned."""
    tls = tls or {"certificate": pki.server[0], "key": pki.server[1]}
    server = {"listen": ["127.0.0.1:@PORT@", {"address": "127.0.0.1:%d" % tls_port, "tls": tls}]}
    origin = {"type": "s3", "endpoint": origin_url, "credentials": {"source": "none"}}
    return yaml.safe_dump(proxy_module.config(0, origin, None, server, **top), sort_keys=False)


@pytest.fixture
def both(start, origin, pki):
    """both(**config) -> a proxy that listens in cleartext (p.address) and with TLS (p.tls_address)."""
    def begin(tls=None, **top):
        port = net.free_port()
        p = start(None, text=text_of(origin.url, pki, port, tls, **top))
        p.tls_address = ("127.0.0.1", port)
        return p
    return begin


def h2_conn(p, name, pki, **kw):
    tls = WAYS[name][0]
    return H2Conn(p.tls_address if tls else p.address, trusting(pki, "h2") if tls else None,
                  kw.pop("timeout", 30) * net.SLOW, **kw)


# ---- HTTP/2: streams side by side

@pytest.fixture(params=H2_WAYS)
def h2_way(request):
    return request.param


def test_64_slow_streams_do_not_hold_back_a_fast_one(both, origin, pki, h2_way):
    p, size = both(), 4 * MIB
    origin.put("/b/k", size)
    with h2_conn(p, h2_way, pki, stream_window=65535) as c:
        c.get_checked("/b/k", size)
        slow = [c.request("GET", "/b/k", checker=Checker("/b/k"), hold=True) for _ in range(64)]
        fast = Checker("/b/k")
        r = c.wait(c.request("GET", "/b/k", checker=fast))[0]
        assert r.status == 200 and fast.position == size
        c.until("a window of each slow one", lambda: all(s.received == 65535 for s in slow))
        assert not any(s.over for s in slow)
        for s in slow[:60]:
            c.reset(s)
        for s in slow[60:]:
            c.release(s)
        c.wait(*slow[60:])
        assert all(s.checker.position == size for s in slow[60:])
    net.wait_until("nothing is under way", lambda: p.stats()["requests"]["in_flight"] <= 1)


def test_reset_in_the_body_leaves_the_connection_good(both, origin, pki, h2_way):
    p, size = both(), 8 * MIB
    origin.put("/b/k", size)
    with h2_conn(p, h2_way, pki, stream_window=65535) as c:
        for _ in range(20):
            s = c.request("GET", "/b/k", checker=Checker("/b/k"), hold=True)
            c.until("some of it", lambda s=s: s.received > 0)
            c.reset(s)
        c.get_checked("/b/k", size)
        assert not c.goaways
    stats = p.stats()
    # python-h2 sends another one for each frame that was on its way to a stream it had reset
    assert stats["http2"]["resets_received"] >= 20 and stats["http2"]["floods"]["RESET"] == 0
    net.wait_until("nothing is under way", lambda: p.stats()["requests"]["in_flight"] <= 1)
    origin.settle()


def test_a_reset_that_comes_together_with_bytes(both, origin, pki, h2_way):
    """The kernel tells of both in one event, and the read gets the bytes alone."""
    p = both()
    origin.put("/b/k", 10)
    origin.on(path="/b/k", never=True)
    for _ in range(8):
        c = h2_conn(p, h2_way, pki)
        c.request("GET", "/b/k")
        net.wait_until("it is under way", lambda: p.stats()["requests"]["in_flight"] == 2)
        c.h2.ping(b"12345678")
        c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        c.flush()
        c.close()
        net.wait_until("it is gone", lambda: p.stats()["connections"]["h2"] == 0)
    net.wait_until("nothing is under way", lambda: p.stats()["requests"]["in_flight"] <= 1)


def test_a_client_that_is_gone_in_the_body(both, origin, pki, h2_way):
    p, size = both(), 8 * MIB
    origin.put("/b/k", size)
    with h2_conn(p, h2_way, pki, stream_window=65535) as c:
        streams = [c.request("GET", "/b/k", hold=True) for _ in range(8)]
        c.until("some of each", lambda: all(s.received for s in streams))
    net.wait_until("it is gone", lambda: p.stats()["connections"]["h2"] == 0)
    with h2_conn(p, h2_way, pki) as c:
        c.get_checked("/b/k", size)


@pytest.mark.heavy
def test_1000_streams_on_10_connections(both, origin, pki, h2_way):
    p, rng = both(), random.Random(h2_way)
    sizes = [rng.choice([0, 1, 100, 5000, 16384, 60000, 200000, 1 << 20]) + rng.randrange(100) for _ in range(40)]
    for i, n in enumerate(sizes):
        origin.put("/b/%d" % i, n)

    def one(k):
        order = random.Random(k)
        with h2_conn(p, h2_way, pki, timeout=60) as c:
            picks = [order.randrange(len(sizes)) for _ in range(100)]
            streams = [c.request("GET", "/b/%d" % i, checker=Checker("/b/%d" % i)) for i in picks]
            for i, r, s in zip(picks, c.wait(*streams), streams):
                assert r.status == 200 and s.checker.position == sizes[i]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(one, range(10)))
    assert origin.bytes_sent() <= sum(sizes)


def test_drain_is_goaway_twice_and_streams_end_whole(both, origin, pki, h2_way):
    p, size, gate = both(shutdown_timeout="20s"), 4 * MIB, threading.Event()
    origin.put("/b/k", size)
    origin.on(path="/b/k", mid_gate=(100000, gate))
    with h2_conn(p, h2_way, pki) as c:
        check = Checker("/b/k")
        s = c.request("GET", "/b/k", checker=check)
        c.until("its head", lambda: s.response)
        p.signal(signal.SIGTERM)
        c.until("both GOAWAYs", lambda: len(c.goaways) == 2)
        assert c.goaways == [((1 << 31) - 1, h2.errors.ErrorCodes.NO_ERROR), (s.sid, h2.errors.ErrorCodes.NO_ERROR)]
        assert p.process.poll() is None and not s.over
        gate.set()
        c.until("the rest", lambda: s.over)
        assert s.complete and check.position == size
        assert c.wait_closed()
    assert p.wait() == 0
    p.ended()


@pytest.mark.parametrize("field", [("connection", "close"), ("keep-alive", "timeout=5"), ("transfer-encoding", "chunked"),
                                   ("upgrade", "h2c"), ("proxy-connection", "close"), ("te", "gzip"), ("Upper", "x")])
def test_connection_specific_fields_are_refused(both, origin, pki, field):
    p = both()
    origin.put("/b/k", 10)
    with h2_conn(p, "h2c", pki, validate=False) as c:
        s = c.request("GET", "/b/k", [field])
        c.until("an end", lambda: s.over)
        assert s.reset == h2.errors.ErrorCodes.PROTOCOL_ERROR or (s.response and s.response.status == 400), s.reset
        assert origin.count() == 0
        assert c.fetch("GET", "/b/k").status == 200   # only the stream is lost


def test_upgrade_h2c_stays_on_http1(both, origin):
    p = both()
    origin.put("/b/k", 10)
    r = p.get("/b/k", {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"})
    assert r.status == 200 and r.version == "HTTP/1.1" and r.body == content("/b/k", 1, 0, 10)


# ---- TLS

def shown(address, pki, name="localhost", **kw):
    """(common name of the certificate, protocol, ALPN) that a new connection gets."""
    c = trusting(pki, "h2", "http/1.1", **kw)
    c.check_hostname = False
    with socket.create_connection(address, 20 * net.SLOW) as raw_sock:
        with c.wrap_socket(raw_sock, server_hostname=name) as s:
            subject = dict(x[0] for x in s.getpeercert()["subject"])
            return subject["commonName"], s.version(), s.selected_alpn_protocol()


def test_sni_chooses_the_certificate(both, pki):
    one, two, wild = (pki.make(f, n) for f, n in (("one", ("one.test",)), ("two", ("two.test", "zwei.test")),
                                                    ("wild", ("*.wild.test",))))
    p = both(tls={"certificate": one[0], "key": one[1],
                  "certificates": [{"certificate": c, "key": k} for c, k in (two, wild)]})
    for asked, got in (("one.test", "one.test"), ("two.test", "two.test"), ("zwei.test", "two.test"),
                       ("TWO.test", "two.test"), ("a.wild.test", "*.wild.test"), ("a.b.wild.test", "one.test"),
                       ("unknown.test", "one.test"), (None, "one.test")):
        assert shown(p.tls_address, pki, asked)[0] == got, asked


def test_alpn_and_versions(both, pki, origin):
    assert shown(both().tls_address, pki) == ("localhost", "TLSv1.3", "h2")
    tls = {"certificate": pki.server[0], "key": pki.server[1]}
    p = both(tls={**tls, "alpn": ["http/1.1"], "min_version": "1.3"})
    assert shown(p.tls_address, pki)[2] == "http/1.1"
    old = trusting(pki)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), socket.create_connection(p.tls_address, 20 * net.SLOW) as s:
        old.wrap_socket(s, server_hostname="localhost")
    net.wait_until("it was counted", lambda: p.stats()["tls"]["failed"] == 1)


def test_reload_changes_new_connections_and_drops_none(both, origin, pki):
    cert, key = pki.make("changing", common_name="first")
    p, size, gate = both(tls={"certificate": cert, "key": key}), MIB, threading.Event()
    origin.put("/b/k", size)
    origin.put("/b/slow", size)
    origin.on(path="/b/slow", mid_gate=(1000, gate))
    assert shown(p.tls_address, pki)[0] == "first"
    with h2_conn(p, "h2_tls", pki) as c, h2_conn(p, "h2_tls", pki) as idle:
        slow = c.request("GET", "/b/slow", checker=Checker("/b/slow"))
        c.until("its head", lambda: slow.response)
        pki.make("changing", common_name="second")
        p.signal(signal.SIGHUP)
        net.wait_until("the new one", lambda: shown(p.tls_address, pki)[0] == "second")
        with open(key, "w") as f:
            f.write("no key\n")
        p.signal(signal.SIGHUP)
        net.wait_until("a line in the log", lambda: "the old one stays in use" in p.stderr())
        assert shown(p.tls_address, pki)[0] == "second"
        gate.set()
        c.wait(slow)
        assert slow.checker.position == size
        for conn in (c, idle):
            conn.get_checked("/b/k", size)
            assert not conn.goaways


@pytest.mark.parametrize("case,names", [("missing", "gone.pem"), ("garbage", "garbage.pem"), ("mismatch", "key"),
                                        ("expired", "expired"), ("early", "valid"), ("weak", "weak"),
                                        ("no_ca", "gone.pem")])
def test_bad_certificate_files_are_one_line_and_exit_1(tmp_path, pki, case, names):
    good, tls = pki.server, None
    if case == "missing":
        tls = {"certificate": str(tmp_path / "gone.pem"), "key": good[1]}
    elif case == "garbage":
        (tmp_path / "garbage.pem").write_text("no certificate\n")
        tls = {"certificate": str(tmp_path / "garbage.pem"), "key": good[1]}
    elif case == "mismatch":
        tls = {"certificate": good[0], "key": pki.make("another")[1]}
    elif case == "no_ca":
        tls = {"certificate": good[0], "key": good[1], "client_ca": str(tmp_path / "gone.pem"), "verify": "required"}
    else:
        kw = {"expired": {"since": -3 * DAY, "until": -DAY}, "early": {"since": DAY}, "weak": {"rsa_bits": 1024}}[case]
        tls = dict(zip(("certificate", "key"), pki.make("file-" + case[:2], **kw)))
    conf, port = tmp_path / "p.yaml", net.free_port()
    conf.write_text(text_of("http://127.0.0.1:1", pki, port, tls).replace("@PORT@", str(net.free_port())))
    for extra in ([], ["--test"]):
        code, out, err = run(["-c", str(conf), *extra])
        assert code == 1 and not out, (code, out, err)
        assert len(err.splitlines()) == 1 and "127.0.0.1:%d" % port in err and names in err, err


@pytest.mark.parametrize("verify", ["required", "optional"])
def test_client_certificates(both, origin, pki, tmp_path, verify):
    log = tmp_path / "access.log"
    p = both(tls={"certificate": pki.server[0], "key": pki.server[1], "client_ca": str(pki.ca), "verify": verify},
             access_log={"file": str(log), "format": "json"})
    origin.put("/b/k", 10)
    url = "https://127.0.0.1:%d/b/k" % p.tls_address[1]
    mine = pki.make("mine", ("client.test",), common_name='a "client"')
    stranger_dir = tmp_path / "stranger"
    stranger_dir.mkdir()
    stranger = Pki(stranger_dir).make("stranger", common_name="a stranger")

    def get(chain, two):
        with httpx.Client(verify=trusting(pki, chain=chain), http2=two, http1=not two, trust_env=False,
                          timeout=20 * net.SLOW) as c:
            return c.get(url).status_code
    for two in (False, True):
        assert get(mine, two) == 200
        with pytest.raises((httpx.TransportError, ssl.SSLError)):
            get(stranger, two)
        if verify == "optional":
            assert get(None, two) == 200
        else:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):
                get(None, two)
    assert origin.count() == 1
    assert p.stats()["tls"]["client_certificates"] == 2
    wanted = ['CN=a \\"client\\"'] * 2 + [None] * (2 if verify == "optional" else 0)
    lines = net.wait_until("the log", lambda: (lambda x: x if len(x) == len(wanted) else None)(
        [json.loads(x) for x in log_lines(log, 0) if "/b/k" in x]))
    assert sorted((x["tls_client"] for x in lines), key=str) == sorted(wanted, key=str)
    assert all(x["tls"] and x["tls_protocol"] == "TLSv1.3" for x in lines)
    assert sorted(x["protocol"] for x in lines) == sorted(["HTTP/1.1", "HTTP/2"] * (len(lines) // 2))


def test_cleartext_to_a_tls_port_and_slow_handshakes_hurt_nobody(both, origin, pki):
    p = both()
    origin.put("/b/k", 1000)
    idle = [socket.create_connection(p.tls_address, 5) for _ in range(20)]
    try:
        with socket.create_connection(p.tls_address, 20 * net.SLOW) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            s.settimeout(20 * net.SLOW)
            try:
                while s.recv(65536):
                    pass
            except ConnectionResetError:
                pass
        with h2_conn(p, "h2_tls", pki) as c:
            c.get_checked("/b/k", 1000)
    finally:
        for s in idle:
            s.close()


def test_stats_say_how_clients_came(both, origin, pki):
    p = both()
    origin.put("/b/k", 10)
    for name, (tls, two) in WAYS.items():
        url = "https://127.0.0.1:%d/b/k" % p.tls_address[1] if tls else p.url + "/b/k"
        with httpx.Client(http1=not two, http2=two, verify=trusting(pki), trust_env=False, timeout=20 * net.SLOW) as c:
            assert c.get(url).status_code == 200
            now = p.stats()["connections"]
            assert now["h2"] == (1 if two else 0) and now["tls"] == (1 if tls else 0), (name, now)
        net.wait_until("it is closed", lambda: p.stats()["connections"]["open"] == 1)   # the one that asks
