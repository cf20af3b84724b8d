"""HTTP/2 towards origins: what an answer may be, uploads, the peer's limits, back-pressure, ALPN and the choice."""
import threading
import time

import net
import pytest
import raw
from content import Checker, content
from h2fixtures import KIB, MIB, ONCE, SLICES, SMALL_PARTS, UNCACHED, connections, protocol
from h2origin import Setting, data_frame, headers_frame
from test_caching import together
from test_origin_failures import is_error

pytestmark = pytest.mark.ways("h1")   # these are about the other side

SIZE = 4 * MIB + 1234


def all_h2(origin):
    assert set(origin.versions()) == {"HTTP/2"}, origin.versions()


# ---- answers


def test_a_cold_object_is_parts_side_by_side_on_streams(pair):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    o = origin.put("/b/k", SIZE)
    origin.first_byte_delay = 0.05
    p.get_checked("/b/k", SIZE)
    origin.settle()
    at = 0
    for first, last in sorted(r.range for r in origin.log()):
        assert first == at, "a gap or an overlap at %d" % at
        at = last + 1
    assert at == SIZE and origin.bytes_sent() == SIZE
    all_h2(origin)
    log = origin.log()
    assert all(r.get("if-match") == o.etag for r in log[1:])
    assert {r.scheme for r in log} == {"https" if origin.tls else "http"}
    assert log[0].get("host") == "127.0.0.1:%d" % origin.port
    assert not any(r.get(n) for r in log for n in ("connection", "keep-alive", "te", "transfer-encoding"))
    assert max(c.peak for c in origin.h2conns) >= 4
    seen = protocol(p)
    assert seen["choice"] == "h2" and seen["why"] == "configured: http2 prior-knowledge"
    assert seen["h2_requests"] == len(log)
    assert connections(p)["h2"] == connections(p)["open"] >= 1
    p.get_checked("/b/k", SIZE)
    assert origin.count() == len(log), "the second one came from the cache"


def test_head_and_the_statuses_that_are_answers(pair):
    p, origin = pair(cache={"fresh_for": "0s"})
    o = origin.put("/b/k", 1000)
    origin.put("/b/empty", 0)
    r = p.fetch("HEAD", "/b/k")
    assert r.status == 200 and r.get("content-length") == "1000" and r.get("etag") == o.etag
    p.get_checked("/b/k", 1000)
    r = p.get("/b/k")
    assert r.get("x-cache") == "REVALIDATED" and origin.log("/b/k")[-1].status == 304
    assert p.get("/b/k", {"If-None-Match": o.etag}).status == 304
    assert p.get("/b/k", {"If-Match": '"other"'}).status == 412
    assert p.get("/b/k", {"Range": "bytes=2000-"}).status == 416
    assert p.get("/b/k", {"Range": "bytes=10-19"}).body == content("/b/k", 1, 10, 10)
    assert p.get("/b/empty").body == b""
    r = p.get("/b/none")
    assert r.status == 404 and b"NoSuchKey" in r.body
    assert p.fetch("HEAD", "/b/none").status == 404
    assert p.fetch("DELETE", "/b/k").status == 204
    assert p.get("/b/k").status == 404
    all_h2(origin)


def test_heads_in_between_and_trailers_behind(pair):
    p, origin = pair()
    origin.put("/b/k", 100000)
    origin.on(path="/b/k", interim=[(102, []), (103, [("link", "</x>")])], trailers=[("x-checksum", "abc")])
    for target in ("/b/k", "/b/k?acl"):
        r = p.get(target)
        assert r.status == 200 and r.body == content("/b/k", 1, 0, 100000) and not r.get("link")
    p.get_checked("/b/k", 100000)
    origin.on(path="/b/empty", trailers=[("x-checksum", "abc")], status=404)
    assert p.get("/b/empty").status == 404


def test_bodies_without_a_length(pair):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    origin.put("/b/part", MIB)
    origin.put("/b/whole", MIB)
    origin.on(path="/b/part", no_length=True)
    origin.on(path="/b/whole", no_length=True, ignore_range=True)
    for path in ("/b/part", "/b/whole"):
        with p.conn() as c:
            check = Checker(path)
            c.request("GET", path)
            assert c.response(checker=check).status == 200 and check.position == MIB


@pytest.mark.parametrize("cut", ["reset", "fin"])
def test_a_body_without_a_length_that_breaks_never_ends_cleanly(clear, cut):
    p, origin = clear(ONCE, server=UNCACHED)
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", no_length=True, cut_after=300000, cut=cut)
    with pytest.raises(raw.Broken) as e:
        p.get("/b/k")
    got = e.value.response.body
    assert got == content("/b/k", 1, 0, len(got))


WRONG = {
    "field_says_more": {"content_length": 2000},
    "field_says_less": {"content_length": 600},
    "ends_early": {"end_after": 300},
    "extra_bytes": {"extra": b"evil" * 5000},
    "extra_without_length": {"extra": b"evil" * 5000, "no_length": True},
}


@pytest.mark.parametrize("path", ["cached", "passed", "whole"])
@pytest.mark.parametrize("name", WRONG)
def test_a_length_that_is_wrong_makes_no_wrong_answer(clear, name, path):
    p, origin = clear(ONCE, **({"server": UNCACHED} if path == "passed" else {}))
    origin.put("/b/k", 1000)
    origin.put("/b/l", 500)
    rule = dict(WRONG[name], **({"ignore_range": True} if path == "whole" else {}))
    origin.on(path="/b/k", **rule)
    try:
        r = p.get("/b/k")
        # Where nothing says how long it is, what came is the answer.
        free = name == "extra_without_length" and path != "cached"
        if r.status == 200 and not free:
            assert r.body == content("/b/k", 1, 0, 1000) and name.startswith("extra")
        else:
            assert free or r.status in (502, 503), r
    except raw.Broken as e:
        if e.response:
            assert content("/b/k", 1, 0, 1000).startswith(e.response.body)
    p.get_checked("/b/l", 500)
    origin.clear_rules()
    p.purge(all=True)
    p.get_checked("/b/k", 1000)


def test_padding_is_dropped_and_its_window_given_back(clear):
    p, origin = clear(SMALL_PARTS)
    origin.put("/b/k", 16 * MIB)
    origin.on(path="/b/k", pad=255, trickle=(500, 0))
    p.get_checked("/b/k", 16 * MIB, 0, 4 * MIB)


def test_an_answer_to_head_has_no_body_whatever_the_origin_sends(clear):
    p, origin = clear(ONCE)
    origin.put("/b/l", 500)
    origin.on(method="HEAD", path="/b/k", frames=lambda r: headers_frame(
        r.sid, [(":status", "200"), ("content-length", "4"), ("etag", '"e"')]) + data_frame(r.sid, b"evil", True))
    assert p.fetch("HEAD", "/b/k").status in (200, 502)
    p.get_checked("/b/l", 500)


def test_a_thousand_small_objects_share_few_connections(pair):
    p, origin = pair()
    for i in range(1000):
        origin.put("/b/k%d" % i, 700 + i)
    together(p, 16, lambda t: [p.get_checked("/b/k%d" % i, 700 + i) for i in range(t, 1000, 16)])
    all_h2(origin)
    assert connections(p)["created"] <= 8 and origin.count() == 1000


def test_heads_as_large_as_the_configuration_allows(pair):
    p, origin = pair(limits={"head_size": "256KiB", "request_memory": "1MiB"})
    origin.put("/b/k", 1000)
    fields = [("X-Amz-Meta-%d" % i, "v" * 3000) for i in range(70)]
    assert p.get("/b/k", fields).status == 200
    assert p.fetch("PUT", "/b/up", fields, body=b"abc").status == 200
    assert len([n for n, v in origin.log("/b/up")[0].headers if n.startswith("x-amz-meta-")]) == 70


# ---- uploads


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_uploads_of_all_sizes(pair, chunked):
    p, origin = pair()
    for size in (0, 1, 65535, 65536, 300001, 5 * MIB + 3):
        path = "/b/up%d" % size
        origin.expect_upload(path)
        body = content(path, 1, 0, size)
        with p.conn() as c:
            if chunked:
                c.request("PUT", path, {"Transfer-Encoding": "chunked"})
                for at in range(0, size, 100000):
                    part = body[at:at + 100000]
                    c.send(b"%x\r\n" % len(part) + part + b"\r\n")
                c.send(b"0\r\n\r\n")
            else:
                c.request("PUT", path, body=body)
            assert c.response("PUT").status == 200
        rec = origin.log(path, "PUT")[0]
        assert rec.received == size and (rec.body_ok or size == 0), rec.error
        assert rec.get("content-length") == (None if chunked else str(size))
        p.get_checked(path, size)


def test_an_upload_waits_for_a_slow_origin(pair):
    """One window of it goes out, and the client is held up, not the proxy's memory filled."""
    p, origin = pair()
    size = 48 * MIB
    origin.expect_upload("/b/up")
    gate = threading.Event()
    origin.on(method="PUT", upload_gate=gate)
    before = p.memory_kib()[1]
    sent = [0]
    with p.conn(timeout=60) as c:
        def send():
            c.send(b"PUT /b/up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
            body = content("/b/up", 1, 0, size)
            for at in range(0, size, 65536):
                c.send(body[at:at + 65536])
                sent[0] = at
        t = threading.Thread(target=send)
        t.start()
        net.wait_until("the upload has begun", lambda: origin.count("/b/up"))
        last = -1
        while last != sent[0]:   # until it stands still
            last = sent[0]
            time.sleep(0.5)
        held = [x for conn in origin.h2conns for s in conn.streams.values() for x in s.data]
        assert 0 < sum(length for _, length in held) <= 65535
        assert last < 24 * MIB and p.memory_kib()[1] - before < 16 * KIB * (4 if net.SANITIZER else 1)
        p.fetch("HEAD", "/b/other")   # the connection is not held up
        gate.set()
        t.join(60 * net.SLOW)
        assert c.response("PUT").status == 200
    assert origin.log("/b/up")[0].body_ok


@pytest.mark.parametrize("answers", [True, False], ids=["100", "silent"])
def test_expect_100_continue(pair, answers):
    p, origin = pair()
    origin.on(method="PUT", no_continue=not answers)
    body = b"x" * 100000
    with p.conn() as c:
        for i in range(3):
            c.request("PUT", "/b/k%d" % i, {"Expect": "100-continue", "Content-Length": str(len(body))})
            assert c.head().status == 100
            c.send(body)
            began = time.monotonic()
            assert c.response("PUT").status == 200
            took = time.monotonic() - began
    assert [r.received for r in origin.log()] == [len(body)] * 3
    # An origin that has once not answered is not waited for again.
    assert took < 0.8 * net.SLOW


def test_an_answer_before_the_body_is_read_ends_the_upload(pair):
    p, origin = pair()
    origin.on(method="PUT", early=True, status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    with p.conn() as c:
        c.send(b"PUT /b/up HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (64 * MIB) + bytes(200000))
        assert c.head().status == 403
    origin.clear_rules()
    assert p.fetch("PUT", "/b/l", body=b"abc").status == 200


def test_a_client_that_leaves_an_upload_resets_the_stream(clear):
    p, origin = clear(workers=1)
    with p.conn() as c:
        c.send(b"PUT /b/up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + bytes(100000))
        net.wait_until("the upload has begun", lambda: origin.count("/b/up"))
    net.wait_until("the stream is reset", lambda: origin.log("/b/up")[0].done.is_set())
    assert origin.log("/b/up")[0].error and origin.objects == {}
    assert p.fetch("PUT", "/b/l", body=b"abc").status == 200
    assert len(origin.h2conns) == 1


# ---- limits of the peer, connections


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("most", [1, 64], ids=["one_connection", "many"])
def test_the_peers_limit_of_streams_is_kept(pair, limit, most):
    p, origin = pair({**SMALL_PARTS, "connections": {"max": most}}, {"max_streams": limit}, workers=1, cache=SLICES)
    origin.put("/b/first", 10)
    p.get_checked("/b/first", 10)
    origin.put("/b/k", SIZE)
    origin.first_byte_delay = 0.02
    p.get_checked("/b/k", SIZE)
    together(p, 8, lambda t: p.fetch("PUT", "/b/up%d" % t, body=b"x" * 200000))
    assert all(c.peak <= limit for c in origin.h2conns)
    assert origin.bytes_sent("/b/k") == SIZE
    if most == 1:
        assert len(origin.h2conns) == 1
    else:
        assert len(origin.h2conns) >= 3, "further connections where streams are the cap"
    assert origin.count(method="PUT") == 8


def test_a_herd_meets_the_limit_unprepared(pair):
    """All at once on a connection whose limit is not known yet: refused ones come again, nobody notices."""
    p, origin = pair({**ONCE, "connections": {"max": 4}}, {"max_streams": 2}, workers=1)
    for i in range(40):
        origin.put("/b/k%d" % i, 5000)
    origin.first_byte_delay = 0.01
    together(p, 40, lambda i: p.get_checked("/b/k%d" % i, 5000))
    assert len(origin.h2conns) <= 4 and all(c.peak <= 2 for c in origin.h2conns)


def test_a_peer_that_allows_no_stream_costs_one_connection(pair):
    p, origin = pair(ONCE, workers=1)
    origin.put("/b/k", 10)
    origin.put("/b/l", 10)
    p.get_checked("/b/k", 10)
    origin.max_streams = 0
    conn = origin.h2conns[0]
    conn.settings({Setting.MAX_CONCURRENT_STREAMS: 0})
    together(p, 8, lambda i: is_error(p.get("/b/l"), 503, "SlowDown"))
    assert len(origin.h2conns) == 1 and origin.count("/b/l") == 0
    origin.max_streams = 10
    conn.settings({Setting.MAX_CONCURRENT_STREAMS: 10})
    net.wait_until("it is told", lambda: p.get("/b/l").status == 200)
    assert len(origin.h2conns) == 1


def test_a_peer_that_allows_no_stream_from_the_start(pair):
    p, origin = pair({**ONCE, "connections": {"max": 16}}, {"max_streams": 0}, workers=1)
    r = p.get("/b/k")
    assert r.status in (502, 503), r
    assert len(origin.h2conns) <= 5


def test_more_connections_where_throughput_is_the_cap(pair):
    p, origin = pair({"fetch": {"part_size": "1MiB", "max_in_flight": 32}}, workers=1)
    size = 96 * MIB if not net.SANITIZER else 48 * MIB
    origin.put("/b/k", size)
    origin.throttle = 10 * MIB   # of a connection
    p.get_checked("/b/k", size)
    by = {}
    for r in origin.log("/b/k"):
        by[r.conn] = by.get(r.conn, 0) + r.sent
    assert len(by) >= (3 if net.SANITIZER else 4), by
    assert max(by.values()) < size * 3 // 4, by
    assert connections(p)["h2"] >= 2


def test_where_another_connection_brings_nothing_it_is_given_up(clear):
    """The origin's own rate is the cap, whatever the number of connections."""
    p, origin = clear({"fetch": {"part_size": "256KiB", "max_in_flight": 128}}, cache=SLICES, workers=1)
    origin.put("/b/k", 36 * MIB)
    lock, free = threading.Lock(), [0.0]

    def wait(_):
        with lock:
            now = time.monotonic()
            free[0] = max(free[0], now) + 1 / 48   # a part
        time.sleep(max(0, free[0] - now))
    origin.on(path="/b/k", call=wait)
    p.get_checked("/b/k", 36 * MIB)
    assert len(origin.h2conns) <= 8   # those to begin with, and one try


# ---- back-pressure


def test_a_reader_that_stands_still_stops_the_origin(pair):
    p, origin = pair(server=UNCACHED)
    size = 64 * MIB
    origin.put("/b/k", size)
    with p.conn(rcvbuf=16384, timeout=60) as c:
        c.request("GET", "/b/k")
        r = c.head()
        time.sleep(1.5)
        origin.put("/b/l", MIB)
        p.get_checked("/b/l", MIB)   # on the same connection
        sent = origin.log("/b/k")[0].sent
        assert sent < 12 * MIB, "the origin has sent %d bytes that nobody reads" % sent
        time.sleep(0.5)
        assert origin.log("/b/k")[0].sent == sent, "and goes on"
        check = Checker("/b/k")
        c.body(r, checker=check)
        assert check.position == size


def test_many_readers_that_stand_still_cost_little_memory(clear):
    p, origin = clear(server=UNCACHED, workers=1, limits={"body_buffer": "64KiB"})
    origin.put("/b/k", 64 * MIB)
    before = p.memory_kib()[1]
    readers = []
    try:
        for _ in range(60):
            c = p.conn(rcvbuf=8192)
            c.request("GET", "/b/k")
            readers.append(c)
        for c in readers:
            c.head()
        last = -1
        while last != (sent := sum(r.sent for r in origin.log())):   # until all of them stand still
            last = sent
            time.sleep(0.5)
        origin.put("/b/l", 4 * MIB)
        p.get_checked("/b/l", 4 * MIB)
        # What each holds beyond its buffer is counted too: a window of it.
        assert p.stats()["memory_bytes"] >= 60 * (64 + 256) * KIB
        if not net.SANITIZER:
            assert p.memory_kib()[1] - before < 120 * KIB, "%d KiB" % (p.memory_kib()[1] - before)
    finally:
        for c in readers:
            c.close()
    net.wait_until("all is given back", lambda: p.stats()["memory_bytes"] < MIB)


def test_a_small_cache_holds_the_origin_up_and_loses_no_byte(pair):
    p, origin = pair({"fetch": {"part_size": "1MiB", "max_in_flight": 8}}, cache={"memory": "16MiB", "slice_size": "256KiB"})
    size = 24 * MIB
    for i in range(6):
        origin.put("/b/k%d" % i, size)
    with p.conn(rcvbuf=16384) as slow:
        slow.request("GET", "/b/k0")
        slow.head()
        together(p, 5, lambda i: p.get_checked("/b/k%d" % (i + 1), size))
        assert sum(r.sent for r in origin.log("/b/k0")) < 20 * MIB
    all_h2(origin)


def test_64_slow_readers_beside_a_fast_one(clear):
    p, origin = clear(server=UNCACHED, workers=1)
    origin.put("/b/slow", 8 * MIB)
    origin.put("/b/fast", 32 * MIB)
    slow = []
    try:
        for _ in range(64):
            c = p.conn(rcvbuf=8192)
            c.request("GET", "/b/slow")
            slow.append(c)
        for c in slow:
            c.head()
        began = time.monotonic()
        p.get_checked("/b/fast", 32 * MIB)
        assert time.monotonic() - began < 10 * net.SLOW
    finally:
        for c in slow:
            c.close()
