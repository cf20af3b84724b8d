"""HTTP/2 origins that go away, refuse, break off, fall silent or send garbage: what can be asked again is, for free where
the origin has not looked at it; what cannot ends in an error, never in a wrong or a short answer that looks whole."""
import socket
import threading
import time

import h2.errors
import net
import pytest
import raw
from content import content
from h2fixtures import KIB, MIB, ONCE, SLICES, SMALL_PARTS, UNCACHED, connections, protocol
from h2origin import Code, Setting, block, data_frame, frame, headers_frame
from origin import Origin
from test_caching import together
from test_origin_failures import is_error

pytestmark = pytest.mark.ways("h1")   # these are about the other side

SIZE = 4 * MIB + 1234
HEADERS, RST, SETTINGS, PUSH, PING, WINDOW, CONTINUATION = 1, 3, 4, 5, 6, 8, 9


# ---- GOAWAY


def test_goaway_in_mid_use(pair):
    """Streams above the last id go elsewhere at once, whatever their method; those below it end where they are."""
    p, origin = pair(ONCE, workers=1)
    for i in range(6):
        origin.put("/b/k%d" % i, 300000)
    gate = threading.Event()
    origin.on(method="GET", when=lambda r: r.conn == 1 and r.path != "/b/first", gate=gate)
    origin.put("/b/first", 10)
    p.get_checked("/b/first", 10)
    done = []

    def get(i):
        p.get_checked("/b/k%d" % i, 300000)
        done.append(i)
    threads = [threading.Thread(target=get, args=(i,)) for i in range(6)]
    for n, t in enumerate(threads):
        t.start()
        net.wait_until("it has come", lambda n=n: origin.count() == n + 2)
    put = threading.Thread(target=lambda: done.append(p.fetch("PUT", "/b/up", body=b"x" * 20000).status))
    post = threading.Thread(target=lambda: done.append(p.fetch("POST", "/b/post", body=b"y" * 20000).status))
    origin.on(method="PUT", when=lambda r: r.conn == 1, never=True)
    origin.on(method="POST", when=lambda r: r.conn == 1, never=True)
    put.start()
    post.start()
    net.wait_until("all are under way", lambda: origin.count() == 9)
    conn = origin.h2conns[0]
    old = {r.path: r for r in origin.log() if r.path.startswith("/b/k")}
    last = sorted(r.sid for r in old.values())[2]
    conn.goaway(last)
    net.wait_until("those above have moved", lambda: len(done) >= 5)
    assert done.count(200) == 2
    gate.set()
    for t in (*threads, put, post):
        t.join(30 * net.SLOW)
    assert sorted(i for i in done if i != 200) == list(range(6))
    for path, r in old.items():
        assert origin.count(path) == (1 if r.sid <= last else 2), path
    assert origin.count("/b/up") == 2 and origin.count("/b/post") == 2 and origin.objects["/b/up"].size == 20000
    net.wait_until("the old connection is gone", lambda: conn.closed)
    assert protocol(p)["h2_goaways"] == 1 and connections(p)["open"] == 1


def test_goaway_while_idle(pair):
    p, origin = pair(ONCE, workers=1)
    for i in range(3):
        origin.put("/b/k%d" % i, 1000)
        p.get_checked("/b/k%d" % i, 1000)
        origin.h2conns[-1].goaway()
        net.wait_until("it is closed", lambda: connections(p)["open"] == 0)
    assert len(origin.h2conns) == 3 and protocol(p)["h2_goaways"] == 3


def test_the_gentle_goaway_in_two_steps(pair):
    p, origin = pair(ONCE, workers=1)
    origin.put("/b/k", 300000)
    gate = threading.Event()
    origin.on(path="/b/k", mid_gate=(1000, gate))
    t = threading.Thread(target=lambda: p.get_checked("/b/k", 300000))
    t.start()
    net.wait_until("it has come", lambda: origin.count())
    conn = origin.h2conns[0]
    conn.goaway((1 << 31) - 1)
    net.wait_until("no new requests there", lambda: p.fetch("DELETE", "/b/l").status == 204 and
                   origin.log("/b/l")[-1].conn == 2)
    conn.goaway()
    gate.set()
    t.join(30 * net.SLOW)
    assert not t.is_alive() and origin.count("/b/k") == 1
    net.wait_until("closed", lambda: conn.closed)


def test_goaway_again_and_again_under_load(pair):
    """Like nginx, which says it after keepalive_requests."""
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    for i in range(120):
        origin.put("/b/k%d" % i, 90000)

    def maybe(rec):
        if rec.h2.requests % 7 == 0 and rec.h2.last is None:
            rec.h2.goaway()
    origin.on(call=maybe)

    def one(t):
        for i in range(t, 120, 12):
            p.get_checked("/b/k%d" % i, 90000)
            assert p.fetch("PUT", "/b/up%d" % i, body=content("/b/up", 1, 0, 30000)).status == 200
    together(p, 12, one)
    assert all(origin.objects["/b/up%d" % i].data == content("/b/up", 1, 0, 30000) for i in range(120))
    assert protocol(p)["h2_goaways"] >= 10


# ---- refused, reset, cut


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
def test_a_refused_stream_is_tried_again_for_free(pair, method):
    p, origin = pair(ONCE)
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", times=2, reset=Code.REFUSED_STREAM)
    r = p.fetch(method, "/b/k", body=b"z" * 40000 if method in ("PUT", "POST") else None)
    assert r.status == (204 if method == "DELETE" else 200)
    assert origin.count("/b/k", method) == 3 and protocol(p)["h2_refused"] == 2
    if method == "PUT":
        assert origin.objects["/b/k"].data == b"z" * 40000


def test_what_is_refused_for_ever_is_an_error(pair):
    p, origin = pair(ONCE)
    origin.on(reset=Code.REFUSED_STREAM)
    is_error(p.get("/b/k"), 502, "BadGateway")
    assert p.fetch("PUT", "/b/k", body=b"abc").status == 502
    assert origin.count() <= 12
    origin.clear_rules()
    assert p.fetch("PUT", "/b/k", body=b"abc").status == 200


def test_a_write_that_may_have_happened_is_not_repeated(pair):
    """Another reset than REFUSED_STREAM says nothing about what was done."""
    p, origin = pair(ONCE)
    for code in (Code.INTERNAL_ERROR, Code.CANCEL, Code.ENHANCE_YOUR_CALM, Code.NO_ERROR):
        for method in ("POST", "PUT"):
            origin.clear_rules()
            origin.clear_log()
            origin.on(path="/b/k", nth=1, reset=code)
            assert p.fetch(method, "/b/k", body=b"abc").status == 502
            assert origin.count() == 1, code


def test_http_1_1_required_is_obeyed(far, near):
    o = far(tls=True)
    p = near(o, {"http2": "auto", **ONCE})
    o.put("/b/k", 1000)
    o.on(path="/b/k", when=lambda r: r.version == "HTTP/2", reset=Code.HTTP_1_1_REQUIRED)
    p.get_checked("/b/k", 1000)
    assert o.versions("/b/k") == ["HTTP/2", "HTTP/1.1"]
    assert p.fetch("PUT", "/b/k", body=b"abc").status == 200


@pytest.mark.parametrize("cut", ["reset", "fin", "rst"])
def test_a_part_that_is_cut_resumes_where_it_was(pair, cut):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    o = origin.put("/b/k", SIZE)
    at = 100 * KIB
    origin.on(path="/b/k", nth=3, cut_after=at, cut=cut)
    p.get_checked("/b/k", SIZE)
    origin.settle()
    broken = next(r for r in origin.log() if r.error and r.sent == at)
    first = broken.range_start()
    again = [r for r in origin.log() if r is not broken and r.range and first <= r.range[0] < first + 256 * KIB]
    assert again and again[0].get("if-match") == o.etag
    if cut == "reset":   # the connection goes on, with all else on it
        assert again[0].range[0] == first + at and origin.bytes_sent() == SIZE
        assert len([r for r in origin.log() if r.error]) == 1
    p.get_checked("/b/k", SIZE)


def test_the_first_part_reset_resumes_too(pair):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    o = origin.put("/b/k", SIZE)
    origin.on(path="/b/k", nth=1, cut_after=70000, cut="reset", code=Code.CANCEL)
    p.get_checked("/b/k", SIZE)
    rest = [r for r in origin.log()[1:] if r.range and 0 <= r.range[0] < 256 * KIB]
    assert rest and rest[0].range[0] == 70000 and rest[0].get("if-match") == o.etag


@pytest.mark.parametrize("cut", ["reset", "fin"])
def test_cuts_everywhere_still_give_every_byte(pair, cut):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    origin.put("/b/k", SIZE)
    count = [0]

    def every_other(r):
        count[0] += 1
        return count[0] % 2 == 1
    origin.on(path="/b/k", when=every_other, cut_after=90000, cut=cut)
    p.get_checked("/b/k", SIZE)
    p.get_checked("/b/k", SIZE)


def test_one_broken_connection_is_not_an_outage(clear):
    """More responses share it than the budget of retries would pay for: each goes on where it was."""
    p, origin = clear({"retry": {"base": "10ms", "cap": "50ms"}, "connections": {"max": 1}, "fetch": {"max_in_flight": 200}},
                      {"max_streams": 200}, workers=1, cache=SLICES)
    count, size, gate, half = 100, 60000, threading.Event(), []
    for i in range(count):
        origin.put("/b/k%d" % i, size)

    def hold(rec):
        if rec.conn == origin.log()[0].conn:
            half.append(rec)
            gate.wait(60 * net.SLOW)
    origin.on(mid_call=(size // 2, hold))

    def cut():
        net.wait_until("all are half done", lambda: len(half) == count, 20)
        half[0].h2.sock.shutdown(socket.SHUT_RDWR)
        gate.set()
    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        together(p, count, lambda i: p.get_checked("/b/k%d" % i, size))
    finally:
        gate.set()
        cutter.join()


def test_an_object_that_changes_in_mid_read_is_never_mixed(pair):
    p, origin = pair(SMALL_PARTS, cache=SLICES)
    origin.put("/b/k", SIZE, version=1)
    origin.on(path="/b/k", nth=4, cut_after=50000, cut="reset", mid_call=(10000, lambda r: origin.put("/b/k", SIZE, version=2)))
    try:
        p.get_checked("/b/k", SIZE, versions=(1, 2))
    except raw.Broken:
        pass
    p.get_checked("/b/k", SIZE, versions=(2,))


def test_a_body_cut_in_passing_never_ends_cleanly(pair):
    p, origin = pair(ONCE, server=UNCACHED)
    origin.put("/b/k", MIB)
    for cut in ("reset", "fin", "rst"):
        origin.clear_rules()
        origin.on(path="/b/k", cut_after=100000, cut=cut)
        with pytest.raises(raw.Broken) as e:
            p.get("/b/k")
        got = e.value.response.body
        assert got == content("/b/k", 1, 0, len(got))
    origin.clear_rules()
    p.get_checked("/b/k", MIB)


def test_a_request_on_a_connection_that_has_just_died_is_retried_for_free(pair):
    p, origin = pair(ONCE, workers=1)
    for i in range(4):
        origin.put("/b/k%d" % i, 100)
    p.get("/b/k0")
    for n, how in ((1, "fin"), (2, "rst")):
        origin.on(path="/b/k%d" % n, times=1, close=how)
        p.get_checked("/b/k%d" % n, 100)
        assert origin.count("/b/k%d" % n) == 2


# ---- silence


def test_a_dead_idle_peer_is_noticed_by_ping(clear):
    p, origin = clear({"connections": {"idle_timeout": "300s"}}, workers=1)
    origin.put("/b/k", 100)
    p.get("/b/k")
    conn = origin.h2conns[0]
    net.wait_until("it is asked whether it is there", lambda: conn.pings >= 1, 20)
    assert connections(p)["open"] == 1
    conn.dead = True
    net.wait_until("it is given up", lambda: connections(p)["open"] == 0, 30)
    origin.put("/b/l", 100)
    p.get_checked("/b/l", 100)


def test_a_request_to_a_peer_that_died_while_it_rested_goes_elsewhere(pair):
    p, origin = pair({"connections": {"idle_timeout": "300s"}, **ONCE}, workers=1)
    origin.put("/b/k", 100)
    origin.put("/b/l", 100)
    p.get("/b/k")
    time.sleep(1.2)
    origin.h2conns[0].dead = True
    began = time.monotonic()
    p.get_checked("/b/l", 100)
    assert time.monotonic() - began < 9 * net.SLOW, "and not after timeouts.first_byte"
    assert len(origin.h2conns) == 2


def test_new_requests_avoid_a_peer_that_does_not_answer(clear):
    p, origin = clear({"connections": {"idle_timeout": "300s"}, **ONCE}, workers=1)
    for i in range(3):
        origin.put("/b/k%d" % i, 100)
    p.get("/b/k0")
    time.sleep(1.2)
    origin.h2conns[0].dead = True
    held = threading.Thread(target=lambda: p.get_checked("/b/k1", 100))
    held.start()
    time.sleep(1.5 * net.SLOW)
    began = time.monotonic()
    p.get_checked("/b/k2", 100)
    assert time.monotonic() - began < 2 * net.SLOW
    held.join(30 * net.SLOW)


def test_a_peer_that_never_says_anything(far, near):
    p = near(o := far(), {**ONCE, "timeouts": {"first_byte": "700ms", "stall": "700ms"}})
    o.dead = True
    for method in ("GET", "PUT"):
        began = time.monotonic()
        is_error(p.fetch(method, "/b/k", body=b"x" if method == "PUT" else None), 504, "GatewayTimeout")
        assert time.monotonic() - began < 6 * net.SLOW


@pytest.mark.parametrize("path", ["cached", "passed"])
def test_stalls_and_late_heads_are_bounded(pair, path):
    p, origin = pair({**ONCE, "timeouts": {"first_byte": "600ms", "stall": "600ms"}},
                     **({"server": UNCACHED} if path == "passed" else {}))
    origin.put("/b/k", MIB)
    origin.on(path="/b/late", never=True)
    origin.on(path="/b/k", truncate=100000)
    is_error(p.get("/b/late"), 504, "GatewayTimeout")
    began = time.monotonic()
    with pytest.raises(raw.Broken):
        p.get("/b/k")
    assert time.monotonic() - began < 8 * net.SLOW
    net.wait_until("the origin was told", lambda: all(r.done.is_set() for r in origin.log()))
    origin.clear_rules()
    p.get_checked("/b/k", MIB)


def test_operation_timeout_ends_what_never_ends(clear):
    p, origin = clear({**ONCE, "timeouts": {"operation": "1s"}})
    origin.put("/b/k", MIB)
    origin.on(path="/b/k", trickle=(1000, 0.1))
    began = time.monotonic()
    with pytest.raises(raw.Broken):
        p.get("/b/k")
    assert time.monotonic() - began < 8 * net.SLOW


# ---- garbage


def answer(*fields, end=True):
    return lambda r: headers_frame(r.sid, fields, end)


OK = (":status", "200")
GARBAGE = {
    "no_status": answer(("etag", '"e"')),
    "status_text": answer((":status", "abc")),
    "status_short": answer((":status", "20")),
    "status_zero": answer((":status", "000")),
    "status_twice": answer(OK, OK),
    "status_late": answer(("etag", '"e"'), OK),
    "status_101": answer((":status", "101")),
    "request_pseudo": answer(OK, (":path", "/")),
    "unknown_pseudo": answer(OK, (":what", "x")),
    "upper_case": answer(OK, ("X-Bad", "v")),
    "empty_name": answer(OK, ("", "v")),
    "space_in_name": answer(OK, ("x bad", "v")),
    "nul_in_value": answer(OK, ("x-bad", "a\0b")),
    "newline_in_value": answer(OK, ("x-bad", "a\r\nset-cookie: b")),
    "connection": answer(OK, ("connection", "close")),
    "chunked": answer(OK, ("transfer-encoding", "chunked")),
    "length_text": answer(OK, ("content-length", "3x"), end=False),
    "length_twice": lambda r: headers_frame(r.sid, [OK, ("content-length", "3"), ("content-length", "4")]) +
    data_frame(r.sid, b"abc", True),
    "length_huge": answer(OK, ("content-length", "99999999999999999999999"), end=False),
    "length_and_no_body": answer(OK, ("content-length", "10")),
    "interim_only": answer((":status", "103")),
    "interim_for_ever": lambda r: headers_frame(r.sid, [(":status", "103")]) * 200,
    "data_first": lambda r: data_frame(r.sid, b"abc", True),
    "too_many_fields": answer(OK, *(("x-%d" % i, "v") for i in range(300))),
    "head_too_large": lambda r: frame(HEADERS, 1, r.sid, block([OK])) + b"".join(
        frame(CONTINUATION, 0, r.sid, block([("x-%d" % i, "v" * 10000)])) for i in range(12)) +
    frame(CONTINUATION, 4, r.sid),
    "continuations": lambda r: frame(HEADERS, 1, r.sid, block([OK])) + frame(CONTINUATION, 0, r.sid) * 5000,
    "another_frame_within_a_head": lambda r: frame(HEADERS, 0, r.sid, block([OK])) + frame(PING, 0, 0, bytes(8)),
    "hpack_garbage": lambda r: frame(HEADERS, 5, r.sid, b"\xff\xff\xff\xff\xff\xff\xff"),
    "hpack_no_such_index": lambda r: frame(HEADERS, 5, r.sid, b"\xfe"),
    "hpack_table_size": lambda r: frame(HEADERS, 5, r.sid, b"\x3f\xff\xff\x7f\x88"),
    "data_on_stream_0": lambda r: data_frame(0, b"abc"),
    "data_on_an_idle_stream": lambda r: data_frame(r.sid + 100, b"abc"),
    "a_stream_of_its_own": lambda r: headers_frame(2, [OK]),
    "push": lambda r: frame(PUSH, 4, r.sid, (2).to_bytes(4, "big") + block([(":method", "GET"), (":path", "/x"),
                                                                            (":scheme", "http"), (":authority", "x")])),
    "ping_of_7": lambda r: frame(PING, 0, 0, bytes(7)),
    "settings_of_5": lambda r: frame(SETTINGS, 0, 0, bytes(5)),
    "settings_window": lambda r: frame(SETTINGS, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "settings_frame_size": lambda r: frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"),
    "window_of_0": lambda r: frame(WINDOW, 0, r.sid, bytes(4)),
    "window_overflow": lambda r: frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "frame_too_large": lambda r: headers_frame(r.sid, [OK]) + data_frame(r.sid, bytes(200000)),
    "padding_beyond_the_frame": lambda r: headers_frame(r.sid, [OK]) + frame(0, 9, r.sid, b"\xffabc"),
    "reset_of_3": lambda r: frame(RST, 0, r.sid, bytes(3)),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_502(clear, name):
    p, origin = clear({**ONCE, "timeouts": {"first_byte": "3s", "stall": "3s"}}, workers=1)
    origin.on(path="/b/k", frames=GARBAGE[name])
    for target in ("/b/k", "/b/k?acl"):   # cached way, passed way
        try:
            r = p.get(target)
            if name == "interim_only":
                assert r.status in (502, 504)
            else:
                is_error(r, 502, "BadGateway")
        except raw.Broken as e:   # a head had gone out
            assert name in ("frame_too_large", "padding_beyond_the_frame") and not (e.response and e.response.body)
    origin.clear_rules()
    origin.put("/b/k", 10)
    p.get_checked("/b/k", 10)


def test_what_breaks_one_stream_leaves_the_others_alone(clear):
    p, origin = clear(ONCE, workers=1)
    origin.put("/b/k", MIB)
    gate = threading.Event()
    origin.on(path="/b/k", times=1, mid_gate=(1000, gate))
    t = threading.Thread(target=lambda: p.get_checked("/b/k", MIB))
    t.start()
    net.wait_until("it has come", lambda: origin.count())
    for name in ("no_status", "upper_case", "connection", "length_and_no_body", "interim_for_ever", "too_many_fields"):
        origin.on(path="/b/" + name, frames=GARBAGE[name])
        is_error(p.get("/b/" + name), 502, "BadGateway")
    gate.set()
    t.join(30 * net.SLOW)
    assert not t.is_alive() and origin.count("/b/k") == 1 and len(origin.h2conns) == 1


@pytest.mark.parametrize("name", ["ping_of_7", "hpack_garbage", "data_on_stream_0", "settings_window"])
def test_what_breaks_the_connection_lets_bystanders_go_elsewhere(clear, name):
    p, origin = clear(ONCE, workers=1)
    for i in range(8):
        origin.put("/b/k%d" % i, 1000)
    p.get_checked("/b/k0", 1000)
    gate = threading.Event()
    origin.on(method="GET", when=lambda r: r.conn == 1, path="/b/bad", frames=GARBAGE[name])
    origin.on(when=lambda r: r.conn == 1 and r.path != "/b/k0", gate=gate)
    done = []

    def get(i):
        p.get_checked("/b/k%d" % i, 1000)
        done.append(i)
    threads = [threading.Thread(target=get, args=(i,)) for i in range(1, 8)]
    for t in threads:
        t.start()
    net.wait_until("they have come", lambda: origin.count() == 8)
    p.get("/b/bad")
    for t in threads:
        t.join(30 * net.SLOW)
    gate.set()
    assert sorted(done) == list(range(1, 8))


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_conditional_write_that_may_have_happened_is_not_repeated(clear, how):
    p, origin = clear(ONCE, workers=1)
    origin.put("/b/k", 10)
    p.get("/b/k")
    origin.on(method="DELETE", close=how)
    assert p.fetch("DELETE", "/b/k", {"If-Match": '"x"'}).status == 502
    assert origin.count(method="DELETE") == 1
    p.get("/b/k")
    assert p.fetch("DELETE", "/b/k").status == 502
    assert origin.count(method="DELETE") == 3, "one without a condition is, once"


def test_no_wrong_byte_when_the_frames_go_wrong_in_a_body(clear):
    """Every part breaks somewhere, each in its own way; the connection with it."""
    p, origin = clear(SMALL_PARTS, cache=SLICES)
    origin.put("/b/k", SIZE)
    bad = [frame(PING, 0, 0, bytes(7)), data_frame(0, b"evil"), frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2,
           frame(SETTINGS, 0, 0, bytes(5)), b"\0" * 100, b"HTTP/1.1 400 Bad Request\r\n\r\n"]
    n = [0]

    def spoil(rec):
        n[0] += 1
        if n[0] % 3 == 0:
            rec.h2.raw(bad[n[0] // 3 % len(bad)])
    origin.on(path="/b/k", mid_call=(60000, spoil))
    p.get_checked("/b/k", SIZE)
    assert n[0] >= 16


FLOODS = {
    "ping": frame(PING, 0, 0, bytes(8)) * 1000,
    "settings": frame(SETTINGS, 0, 0) * 1000,
    "window": frame(WINDOW, 0, 0, b"\0\0\0\1") * 1000,
    "unknown": frame(0xbb, 0, 0, bytes(100)) * 1000,
    "priority": frame(2, 0, 1, bytes(5)) * 1000,
    "ping_answers": frame(PING, 1, 0, bytes(8)) * 1000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_cost_no_memory_and_nobody_elses_answer(clear, name):
    p, origin = clear({**ONCE, "timeouts": {"first_byte": "5s"}}, workers=1)
    origin.put("/b/k", 10)
    p.get("/b/k")
    before = p.memory_kib()[1]

    def flood(rec):
        for _ in range(100):
            if not rec.h2.closed:
                rec.h2.raw(FLOODS[name])
    origin.on(path="/b/flood", call=flood)
    origin.put("/b/flood", 10)
    assert p.get("/b/flood").status in (200, 502)
    assert p.memory_kib()[1] - before < 8 * KIB * (4 if net.SANITIZER else 1)
    origin.put("/b/l", 10)
    p.get_checked("/b/l", 10)


def test_empty_frames_do_not_keep_a_body_alive(clear):
    p, origin = clear({**ONCE, "timeouts": {"stall": "1s"}}, server=UNCACHED, workers=1)
    gate = threading.Event()

    def empty(rec):
        with rec.h2.cond:
            rec.h2.raw(headers_frame(rec.sid, [OK, ("content-length", "1000")]) + data_frame(rec.sid, b"abc"))
        while not gate.wait(0.1):
            rec.h2.raw(data_frame(rec.sid, b"") * 20)
    origin.on(path="/b/k", frames=lambda r: b"", call=empty)
    began = time.monotonic()
    try:
        with pytest.raises(raw.Broken):
            p.get("/b/k")
        assert time.monotonic() - began < 8 * net.SLOW
    finally:
        gate.set()


def test_an_origin_without_http2_under_prior_knowledge_is_502(start, origin):
    p = start({"type": "http", "endpoint": origin.url, "http2": "prior-knowledge", **ONCE})
    origin.put("/b/k", 10)
    is_error(p.get("/b/k"), 502, "BadGateway")


def test_a_server_that_speaks_something_else(start):
    s = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve():
        s.settimeout(0.1)
        while not stop.is_set():
            try:
                c, _ = s.accept()
            except TimeoutError:
                continue
            c.sendall(b"220 mail.example ESMTP\r\n" * 100)
            c.close()
    t = threading.Thread(target=serve)
    t.start()
    try:
        p = start({"type": "http", "endpoint": "http://127.0.0.1:%d" % s.getsockname()[1], "http2": "prior-knowledge", **ONCE})
        is_error(p.get("/b/k"), 502, "BadGateway")
        is_error(p.fetch("PUT", "/b/k", body=b"x"), 502, "BadGateway")
    finally:
        stop.set()
        t.join()
        s.close()


def test_limits_that_change_in_mid_use(clear):
    p, origin = clear(SMALL_PARTS, workers=1, cache=SLICES)
    origin.put("/b/k", SIZE)
    n = [0]

    def change(rec):
        n[0] += 1
        rec.h2.settings({Setting.INITIAL_WINDOW_SIZE: 1000 + 60000 * (n[0] % 3), Setting.HEADER_TABLE_SIZE: n[0] % 2 * 4096})
    origin.on(call=change)
    p.get_checked("/b/k", SIZE)
    answers = [None] * 8

    def upload(i):
        answers[i] = p.fetch("PUT", "/b/up%d" % i, body=content("/b/up", 1, 0, 300000))
    together(p, 8, upload)
    assert [r.status for r in answers] == [200] * 8, answers
    assert all(origin.objects["/b/up%d" % i].data == content("/b/up", 1, 0, 300000) for i in range(8))


def test_a_proxy_that_ends_in_the_middle_of_everything(pair):
    p, origin = pair(SMALL_PARTS, shutdown_timeout="500ms", cache=SLICES)
    for i in range(8):
        origin.put("/b/k%d" % i, 64 * MIB)
    origin.throttle = 4 * MIB
    conns = [p.conn() for _ in range(8)]
    for i, c in enumerate(conns):
        c.request("GET", "/b/k%d" % i)
    for c in conns:
        c.head()
    p.stop()
    for c in conns:
        c.close()
