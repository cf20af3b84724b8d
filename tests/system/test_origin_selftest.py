"""The scriptable origin and the raw client on their own: what the other tests stand on."""
import threading
import time

import pytest
import raw
from content import Checker, content
from origin import Origin

MIB = 1 << 20


@pytest.fixture
def o():
    o = Origin()
    yield o
    o.stop()


def addr(o):
    return (o.host, o.port)


def test_object_whole_and_range_carry_the_computed_bytes(o):
    o.put("/b/k", 3 * MIB + 17)
    raw.get_checked(addr(o), "/b/k", 3 * MIB + 17)
    raw.get_checked(addr(o), "/b/k", 3 * MIB + 17, MIB - 3, 1000)
    assert o.bytes_sent("/b/k") == 3 * MIB + 17 + 1000


def test_checker_sees_shifted_bytes_and_other_versions():
    Checker("/b/k").feed(content("/b/k", 1, 0, 5000))
    with pytest.raises(AssertionError, match="first wrong byte at 0"):
        Checker("/b/k").feed(content("/b/k", 1, 1, 5000))
    c = Checker("/b/k", versions=(1, 2))
    c.feed(content("/b/k", 2, 0, 100))
    with pytest.raises(AssertionError):
        c.feed(content("/b/k", 1, 100, 100))
    with pytest.raises(AssertionError, match="first wrong byte at 100"):
        Checker("/b/k").feed(content("/b/k", 1, 0, 100) + content("/b/k", 2, 100, 100))


def test_range_past_the_end_empty_object_and_missing_object(o):
    o.put("/b/k", 10)
    o.put("/b/empty", 0)
    r = raw.get(addr(o), "/b/k", {"Range": "bytes=10-"})
    assert (r.status, r.get("content-range")) == (416, "bytes */10")
    assert raw.get(addr(o), "/b/empty", {"Range": "bytes=0-"}).status == 416
    assert raw.get(addr(o), "/b/empty").body == b""
    assert raw.get(addr(o), "/b/no").status == 404


def test_if_match_and_if_none_match(o):
    ob = o.put("/b/k", 10)
    assert raw.get(addr(o), "/b/k", {"If-Match": '"x"'}).status == 412
    assert raw.get(addr(o), "/b/k", {"If-Match": ob.etag}).status == 200
    assert raw.get(addr(o), "/b/k", {"If-None-Match": ob.etag}).status == 304


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_cut_breaks_the_body_after_exactly_n_bytes(o, cut):
    o.put("/b/k", MIB)
    o.on(path="/b/k", times=1, cut_after=1000, cut=cut)
    check = Checker("/b/k")
    with raw.Conn(addr(o)) as c:
        c.request("GET", "/b/k")
        with pytest.raises(raw.Broken):
            c.response("GET", check)
    assert check.position <= 1000 if cut == "rst" else check.position == 1000
    assert o.log("/b/k")[0].sent == 1000
    raw.get_checked(addr(o), "/b/k", MIB)


def test_rules_are_used_in_order_and_used_up(o):
    o.put("/b/k", 10)
    o.on(path="/b/k", times=2, status=503, body=b"slow")
    o.on(path="/b/k", nth=1, status=500)
    got = [raw.get(addr(o), "/b/k").status for _ in range(4)]
    assert got == [503, 503, 500, 200]


def test_chunked_lying_length_raw_never_and_gates(o):
    o.put("/b/k", 100000)
    o.on(path="/b/k", times=1, chunked=True)
    assert raw.get(addr(o), "/b/k").body == content("/b/k", 1, 0, 100000)
    o.on(path="/b/k", times=1, content_length=100001, silent_close=True)
    with pytest.raises(raw.Broken):
        raw.get(addr(o), "/b/k")
    o.on(path="/b/k", times=1, raw=b"garbage")
    with raw.Conn(addr(o)) as c:
        c.request("GET", "/b/k")
        assert c.rest() == (b"garbage", "closed")
    o.on(path="/b/k", times=1, never=True)
    with raw.Conn(addr(o)) as c:
        c.request("GET", "/b/k")
        assert c.rest(0.3) == (b"", "open")
    gate = threading.Event()
    o.on(path="/b/k", times=1, mid_gate=(500, gate))
    with raw.Conn(addr(o)) as c:
        c.request("GET", "/b/k")
        r = c.head()
        data, how = c.rest(0.3)
        assert (len(data), how) == (500, "open")
        gate.set()
        data += c.rest(0.3)[0]
        assert len(data) == int(r.get("content-length"))


def test_put_stores_and_counts(o):
    r = raw.fetch(addr(o), "PUT", "/b/new", body=b"hello")
    assert r.status == 200
    assert raw.get(addr(o), "/b/new").body == b"hello"
    o.expect_upload("/b/big")
    with raw.Conn(addr(o)) as c:
        c.request("PUT", "/b/big", {"Content-Length": str(MIB), "Expect": "100-continue"})
        assert c.head().status == 100
        c.send(content("/b/big", 1, 0, MIB))
        assert c.response("PUT").status == 200
    assert o.log("/b/big")[0].body_ok is True
    raw.get_checked(addr(o), "/b/big", MIB)


def test_keep_alive_connections_are_counted_and_closed_when_idle(o):
    o.put("/b/k", 10)
    with raw.Conn(addr(o)) as c:
        for _ in range(3):
            c.request("GET", "/b/k")
            assert c.response().status == 200
        assert o.connections == 1
        o.settle()
        assert o.close_idle() == 1
        assert c.is_closed()


def test_it_is_fast_enough_for_gigabytes(o):
    o.put("/b/k", 256 * MIB)
    start = time.monotonic()
    raw.get_checked(addr(o), "/b/k", 256 * MIB)
    assert time.monotonic() - start < 5
