"""Origins that fail: 502, 503 and 504 as S3 XML before the head is out, a broken connection after it; never a short body
that ends cleanly, never a hang."""
import socket
import time

import net
import pytest
import raw
from content import Checker
from origin import Origin

KIB, MIB = 1 << 10, 1 << 20
ONCE = {"retry": {"attempts": 1}}
QUICK = {"retry": {"attempts": 1}, "timeouts": {"first_byte": "500ms", "stall": "500ms", "connect": "500ms"}}


def is_error(r, status, code):
    assert r.status == status, (r, r.body)
    assert r.body.startswith(b"<?xml") and b"<Code>%s</Code>" % code.encode() in r.body, r.body
    assert r.get("content-type") == "application/xml"
    assert r.get("content-length") == str(len(r.body))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_refused_connection_is_502(start, method):
    p = start({"type": "http", "endpoint": "http://127.0.0.1:%d" % net.free_port(), **ONCE})
    r = p.fetch(method, "/b/k", body=b"x" if method == "PUT" else None)
    if method == "HEAD":
        assert r.status == 502 and not r.body
    else:
        is_error(r, 502, "BadGateway")
    assert p.stats()["origins"]["o"]["errors"]


def test_unresolvable_name_is_502(start):
    p = start({"type": "http", "endpoint": "http://no-such-host.invalid:80", **ONCE})
    start_at = time.monotonic()
    is_error(p.get("/b/k", timeout=30), 502, "BadGateway")
    assert time.monotonic() - start_at < 20


def test_name_resolution_works_and_does_not_block_the_worker(start, origin):
    origin.put("/b/k", 10)
    p = start({"type": "http", "endpoint": "http://localhost:%d" % origin.port}, workers=1)
    assert p.get("/b/k").status == 200


def test_connect_timeout_is_504(start):
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    try:
        for _ in range(4):   # a full backlog drops SYNs
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex(full.getsockname())
            fillers.append(s)
        time.sleep(0.1)
        p = start({"type": "http", "endpoint": "http://127.0.0.1:%d" % full.getsockname()[1], **QUICK})
        begin = time.monotonic()
        is_error(p.get("/b/k"), 504, "GatewayTimeout")
        assert time.monotonic() - begin < 5 * net.SLOW
    finally:
        for s in (*fillers, full):
            s.close()


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_no_first_byte_is_504(http, origin, method):
    p = http(o=QUICK)
    origin.put("/b/k", 10)
    origin.on(path="/b/k", never=True)
    begin = time.monotonic()
    is_error(p.fetch(method, "/b/k", body=b"x" if method == "PUT" else None), 504, "GatewayTimeout")
    assert 0.4 < time.monotonic() - begin < 5 * net.SLOW
    origin.clear_rules()
    assert p.get("/b/k").status == 200


def test_half_a_head_is_504(http, origin):
    p = http(o=QUICK)
    origin.on(path="/b/k", raw=b"HTTP/1.1 200 OK\r\nContent-Le", keep=True)
    is_error(p.get("/b/k"), 504, "GatewayTimeout")


def test_operation_timeout_ends_what_never_ends(http, origin):
    p = http(o={"retry": {"attempts": 1}, "timeouts": {"operation": "1s"}})
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", trickle=(1000, 0.1))
    begin = time.monotonic()
    try:
        p.get("/b/k")
        raise AssertionError("it ended cleanly")
    except raw.Broken:
        pass
    assert time.monotonic() - begin < 8 * net.SLOW


GARBAGE = {
    "not_http": b"hello, this is not HTTP\r\n\r\n",
    "nothing": b"",
    "binary": bytes(range(256)) * 4,
    "status_text": b"HTTP/1.1 abc OK\r\n\r\n",
    "status_out_of_range": b"HTTP/1.1 099 X\r\n\r\n",
    "version": b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "length_twice": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "length_and_chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length_garbage": b"HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n\r\nabc",
    "length_negative": b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
    "unknown_coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    "obs_fold": b"HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 3\r\n\r\nabc",
    "space_before_colon": b"HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc",
    "bare_cr": b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 3\r\n\r\nabc",
    "nul": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 3\r\n\r\nabc",
    "head_without_end": b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 100000,
    "informational_forever": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10000,
    "switching_protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_502(http, origin, name):
    p = http(o=ONCE)
    origin.on(path="/b/k", raw=GARBAGE[name])
    for target in ("/b/k", "/b/k?acl"):   # cached way, passed way
        is_error(p.get(target), 502, "BadGateway")
    origin.clear_rules()
    origin.put("/b/k", 10)
    assert p.get("/b/k").status == 200


def test_informational_answers_before_the_real_one_are_skipped(http, origin):
    p = http()
    origin.on(path="/b/k", raw=b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
                               b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nETag: \"e\"\r\n\r\nabc")
    assert p.get("/b/k").body == b"abc"


BAD_RANGES = {
    "other_place": "bytes 5-1004/{size}",
    "too_short": "bytes 0-1/{size}",
    "backwards": "bytes 9-0/{size}",
    "size_smaller_than_range": "bytes 0-262143/100",
    "nonsense": "bytes x-y/z",
    "another_unit": "lines 0-9/10",
    "unsatisfied": "bytes */{size}",
}


@pytest.mark.parametrize("name", BAD_RANGES)
def test_a_206_with_a_wrong_content_range_is_502(http, origin, name):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB"}, **ONCE})
    size = MIB
    origin.put("/b/k", size)
    origin.on(path="/b/k", content_range=BAD_RANGES[name].format(size=size))
    is_error(p.get("/b/k"), 502, "BadGateway")
    origin.clear_rules()
    p.get_checked("/b/k", size)


def test_a_206_without_content_range_is_502(http, origin):
    p = http(o=ONCE)
    origin.on(path="/b/k", status=206, body=b"abc")
    is_error(p.get("/b/k"), 502, "BadGateway")


def broken_or_error(p, path, size):
    """Whatever happens, it is not a clean whole answer, and no wrong byte came."""
    check = Checker(path)
    try:
        r = p.get(path, checker=None)
    except raw.Broken as e:
        if e.response and e.response.body:
            check.feed(e.response.body)
        return
    assert r.status in (502, 503, 504), "a clean %d with %d of %d bytes" % (r.status, len(r.body), size)


PASSAGES = ["cached", "passed", "whole"]


@pytest.fixture(params=PASSAGES)
def passage(request, http, origin):
    """The three ways that a body takes: fanned-out parts, pass-through without a cache, an origin that ignores ranges."""
    def begin(**o):
        conf = {"fetch": {"part_size": "256KiB", "max_in_flight": 4}, **ONCE, **o}
        if request.param == "passed":
            return http(o=conf, server={"routes": [{"path": "/_s3dlio/", "handler": "admin"},
                                                   {"path": "/", "origin": "o"}]}), {}
        extra = {"ignore_range": True} if request.param == "whole" else {}
        return http(o=conf, cache={"slice_size": "64KiB"}), extra
    return begin


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_body_cut_short_never_ends_cleanly(passage, origin, cut):
    """Parts that are cut may be resumed, with progress even for ever; what cannot be is broken off."""
    p, extra = passage()
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", cut_after=100000, cut=cut, **extra)
    if extra or "cache" not in p.conf["servers"][0]["routes"][1]:
        broken_or_error(p, "/b/k", MIB)
    else:
        try:
            p.get_checked("/b/k", MIB)
        except raw.Broken:
            pass
    origin.clear_rules()
    p.get_checked("/b/k", MIB)


def test_parts_that_are_cut_without_progress_end_in_an_error(passage, origin):
    p, extra = passage(retry={"attempts": 3, "base": "10ms", "cap": "20ms"})
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", when=lambda r: (r.range_start() or 0) > 0, close="rst", **extra)
    origin.on(path="/b/k", cut_after=100000, **extra)
    begin = time.monotonic()
    broken_or_error(p, "/b/k", MIB)
    assert time.monotonic() - begin < 10 * net.SLOW
    assert origin.count("/b/k") < 100
    origin.clear_rules()
    p.get_checked("/b/k", MIB)


def test_a_body_that_stalls_ends_the_connection(passage, origin):
    p, extra = passage(timeouts={"stall": "500ms"})
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", truncate=100000, **extra)
    begin = time.monotonic()
    broken_or_error(p, "/b/k", MIB)
    assert time.monotonic() - begin < 8 * net.SLOW


def test_content_length_longer_than_the_body(passage, origin):
    p, extra = passage()
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", content_length=2000, silent_close=True, **extra)
    broken_or_error(p, "/b/k", 1000)


def test_content_length_shorter_than_the_body(passage, origin):
    """The bytes beyond it must not become the next response on that connection."""
    p, extra = passage()
    origin.put("/b/k", 1000)
    origin.put("/b/l", 500)
    origin.on(path="/b/k", content_length=600, **extra)
    try:
        r = p.get("/b/k")
        assert r.status in (200, 502, 503)
    except raw.Broken:
        pass
    p.get_checked("/b/l", 500)
    p.get_checked("/b/l", 500)


@pytest.mark.parametrize("body", [b"5\r\nhello\r\nzz\r\n", b"5\r\nhelloo\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nx",
                                  b"5\r\nhel"], ids=["bad_size", "no_crlf", "overflow", "cut"])
@pytest.mark.parametrize("target", ["/b/k", "/b/k?acl"])
def test_a_chunked_body_that_breaks_never_ends_cleanly(http, origin, body, target):
    p = http(o=ONCE)
    origin.on(path="/b/k", raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    try:
        r = p.get(target)
        assert r.status in (502, 503)
    except raw.Broken as e:
        assert e.response is None or e.response.body in (b"", b"hello", b"hel")


def test_bytes_after_a_response_poison_the_connection_not_the_next_request(http, origin):
    p = http(workers=1)
    origin.put("/b/l", 500)
    origin.on(path="/b/k", raw=b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
                               b"evil", keep=True)
    assert p.get("/b/k").body == b"abc"
    p.get_checked("/b/l", 500)
    assert p.get("/b/l").get("x-cache") == "HIT"


def test_head_answered_with_a_body_does_not_desynchronise(http, origin):
    p = http(workers=1)
    origin.put("/b/l", 500)
    origin.on(method="HEAD", path="/b/k", raw=b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", keep=True)
    r = p.fetch("HEAD", "/b/k")
    assert r.status == 200
    p.get_checked("/b/l", 500)


def test_one_sick_connection_among_many_is_survived(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "128KiB", "max_in_flight": 8},
                                               "timeouts": {"stall": "500ms"}, "retry": {"base": "10ms"}})
    size = 4 * MIB
    origin.put("/b/k", size)
    origin.on(path="/b/k", nth=5, truncate=1000)
    origin.on(path="/b/k", nth=9, cut_after=50000, cut="rst")
    origin.on(path="/b/k", nth=12, status=500)
    origin.on(path="/b/k", nth=14, raw=b"garbage\r\n\r\n")
    begin = time.monotonic()
    p.get_checked("/b/k", size)
    assert time.monotonic() - begin < 6 * net.SLOW


def test_slow_loris_of_an_origin_is_bounded_by_first_byte(http, origin):
    p = http(o={"retry": {"attempts": 1}, "timeouts": {"first_byte": "1s"}})
    origin.put("/b/k", 10)
    origin.on(path="/b/k", head_trickle=(1, 0.1))
    begin = time.monotonic()
    is_error(p.get("/b/k"), 504, "GatewayTimeout")
    assert time.monotonic() - begin < 6 * net.SLOW


def test_waiters_of_a_failing_fill_all_get_an_answer(http, origin):
    from test_caching import together
    p = http(o=QUICK)
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", delay=0.2, close="rst")
    statuses = []

    def ask(_):
        try:
            statuses.append(p.get("/b/k").status)
        except raw.Broken:
            statuses.append("broken")
    together(p, 20, ask)
    assert len(statuses) == 20 and set(statuses) <= {502, 503, 504}, statuses


def test_the_origin_comes_back(start):
    port = net.free_port()
    p = start({"type": "http", "endpoint": "http://127.0.0.1:%d" % port, **ONCE})
    assert p.get("/b/k").status == 502
    o = Origin(port=port)
    try:
        o.put("/b/k", 1000)
        p.get_checked("/b/k", 1000)
    finally:
        o.stop()
