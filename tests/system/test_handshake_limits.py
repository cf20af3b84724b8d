"""Clients in their TLS handshake: how many there may be and for how long, and that all of it is counted."""
import socket
import ssl

import net
import proxy as proxy_module
import pytest
import raw
import yaml
from pki import Pki

pytestmark = pytest.mark.ways("h1")   # they make their own listeners


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    p = Pki(tmp_path_factory.mktemp("pki"))
    p.server = p.make("server")
    return p


@pytest.fixture
def secured(start, origin, pki):
    """secured(**top) -> a proxy with a cleartext (p.address) and a TLS address (p.tls_address)."""
    def begin(timeouts=None, **top):
        port = net.free_port()
        tls = {"certificate": pki.server[0], "key": pki.server[1]}
        server = {"listen": ["127.0.0.1:@PORT@", {"address": "127.0.0.1:%d" % port, "tls": tls}],
                  "timeouts": timeouts or {}}
        conf = proxy_module.config(0, {"type": "http", "endpoint": origin.url}, None, server, **top)
        p = start(None, text=yaml.safe_dump(conf, sort_keys=False))
        p.tls_address = ("127.0.0.1", port)
        origin.put("/b/k", 10)
        return p
    return begin


def silent(p, n):
    return [socket.create_connection(p.tls_address, 10 * net.SLOW) for _ in range(n)]


def is_closed(s, timeout):
    s.settimeout(timeout)
    try:
        return s.recv(100) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def request(p, pki):
    """Status of a request over TLS; None: it did not get that far."""
    try:
        with socket.create_connection(p.tls_address, 10 * net.SLOW) as raw_sock:
            c = ssl.create_default_context(cafile=str(pki.ca))
            with c.wrap_socket(raw_sock, server_hostname="localhost") as s:
                s.sendall(b"GET /b/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return int(s.recv(1000).split(b" ")[1])
    except (OSError, IndexError):
        return None


def test_handshakes_are_bounded_in_number_and_time(secured, pki):
    """Of all workers together; cleartext is not concerned."""
    p = secured({"handshake": "%dms" % (1500 * net.SLOW)}, limits={"handshakes": 4}, workers=3)
    assert request(p, pki) == 200
    net.wait_until("it is over", lambda: p.stats()["connections"]["open"] <= 1)
    crowd = silent(p, 12)
    try:
        net.wait_until("the others are refused", lambda: p.stats()["tls"]["refused"] == 8)
        seen = p.stats()
        assert seen["tls"]["pending"] == 4 and seen["tls"]["failed"] == 0
        assert 5 <= seen["connections"]["open"] <= 6, "they are connections: %s" % seen["connections"]
        assert p.get("/b/k").status == 200
        gone = [s for s in crowd if is_closed(s, 5 * net.SLOW)]   # the refused ones at once, the silent ones in time
        assert len(gone) == 12
    finally:
        for s in crowd:
            s.close()
    net.wait_until("none is left", lambda: p.stats()["tls"]["pending"] == 0)
    seen = p.stats()["tls"]
    assert seen["timeouts"] == 4 and seen["refused"] == 8 and seen["accepted"] == 1
    assert request(p, pki) == 200
    net.wait_until("their places are free", lambda: p.stats()["connections"]["open"] <= 1)


def test_failed_handshakes_are_counted_and_give_their_place_back(secured, pki):
    p = secured(limits={"handshakes": 2})
    for i in range(6):
        with socket.create_connection(p.tls_address, 10 * net.SLOW) as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" if i % 2 else b"\x16\x03\x01\x00\x05hello")
            while not is_closed(s, 10 * net.SLOW):
                pass
        net.wait_until("it was counted", lambda i=i: p.stats()["tls"]["failed"] == i + 1)
        net.wait_until("it is gone", lambda: p.stats()["tls"]["pending"] == 0)
    assert p.stats()["tls"]["refused"] == 0
    assert request(p, pki) == 200
    assert p.stats()["tls"]["accepted"] == 1


def test_handshakes_count_as_connections(secured, pki):
    """A crowd that never says anything meets limits.connections as if it spoke cleartext."""
    p = secured({"handshake": "1h"}, limits={"connections": 10})
    crowd = silent(p, 100)
    try:
        net.wait_until("those beyond the slack are closed", lambda: sum(is_closed(s, 0.001) for s in crowd) >= 26)
        try:
            assert raw.get(p.address, "/b/k", timeout=10 * net.SLOW).status == 503
        except (raw.Broken, OSError):
            pass   # closed before it had said all
    finally:
        for s in crowd:
            s.close()
    net.wait_until("they are gone", lambda: request(p, pki) == 200)
    assert p.stats()["requests"]["shed"] >= 26 and p.stats()["tls"]["refused"] == 0
    net.wait_until("their places are free", lambda: p.stats()["connections"]["open"] <= 1)
