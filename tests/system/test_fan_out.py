"""One GET of a cold object becomes parallel ranged GETs: what the origin is asked, and what happens when parts fail."""
import threading
import time

import net
import pytest
from content import Checker
from test_caching import together

KIB, MIB = 1 << 10, 1 << 20
PARTS = {"cache": {"slice_size": "64KiB"}, "o": {"fetch": {"part_size": "256KiB", "max_in_flight": 8},
                                                 "retry": {"base": "10ms", "cap": "50ms"}}}
SIZE = 4 * MIB + 1234


def spans(origin, path="/b/k"):
    return sorted(r.range for r in origin.log(path, "GET") if r.range and r.status == 206)


def test_cold_get_is_split_into_parallel_parts_that_cover_it_once(http, origin):
    p = http(**PARTS)
    o = origin.put("/b/k", SIZE)
    origin.first_byte_delay = 0.05
    p.get_checked("/b/k", SIZE)
    origin.settle()
    got = spans(origin)
    assert len(got) >= SIZE // (256 * KIB)
    at = 0
    for first, last in got:
        assert first == at, "a gap or an overlap at %d: %s" % (at, got)
        at = last + 1
    assert at == SIZE and origin.bytes_sent() == SIZE
    assert origin.count(method="HEAD") == 0, "no HEAD first"
    log = origin.log()
    assert log[0].range_header and log[0].range_header.startswith("bytes=0-")
    assert log[0].get("if-match") is None
    assert all(r.get("if-match") == o.etag for r in log[1:])


def test_parts_are_asked_for_at_the_same_time_but_no_more_than_configured(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    now, peak, lock = [0], [0], threading.Lock()

    def enter(_):
        with lock:
            now[0] += 1
            peak[0] = max(peak[0], now[0])
        time.sleep(0.1)
        with lock:
            now[0] -= 1
    origin.on(path="/b/k", call=enter)
    p.get_checked("/b/k", SIZE)
    assert 4 <= peak[0] <= 8, peak


def test_a_throttled_origin_is_read_faster_than_one_stream(http, origin):
    p = http(o={"fetch": {"part_size": "1MiB", "max_in_flight": 16}})
    size = 32 * MIB
    origin.put("/b/k", size)
    origin.throttle = 8 * MIB    # per connection: 4 s in one stream
    start = time.monotonic()
    p.get_checked("/b/k", size)
    took = time.monotonic() - start
    if not net.SANITIZER:
        assert took < 1.5, "%.1f s" % took


def test_first_byte_does_not_wait_for_the_parts(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    gate = threading.Event()
    origin.on(path="/b/k", when=lambda r: (r.range_start() or 0) > 0, gate=gate)
    with p.connect() as c:
        c.request("GET", "/b/k")
        r = c.head()
        assert r.status == 200 and next(c.pieces(r))
        gate.set()


def test_bytes_of_a_slice_that_is_still_filling_are_streamed(http, origin):
    p = http()
    origin.put("/b/k", 3 * MIB)
    gate = threading.Event()
    origin.on(path="/b/k", times=1, mid_gate=(100000, gate))
    check = Checker("/b/k")
    with p.connect(timeout=5) as c:
        c.request("GET", "/b/k")
        r = c.head()
        pieces = c.pieces(r)
        while check.position < 100000:
            check.feed(next(pieces))
        gate.set()
        for data in pieces:
            check.feed(data)
        assert r.status == 200 and check.position == 3 * MIB


@pytest.mark.heavy
def test_herd_of_64_on_a_cold_64_mib_object_costs_the_origin_that_object_once(http, origin):
    p = http()
    size = 64 * MIB if p.way.name == "h1" and not net.SANITIZER else 16 * MIB
    origin.put("/b/k", size)
    origin.first_byte_delay = 0.01
    together(p, 64, lambda i: p.get_checked("/b/k", size))
    origin.settle()
    assert origin.bytes_sent() == size
    assert origin.count(method="HEAD") == 0
    assert p.stats()["caches"]["main"]["coalesced"] > 0


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_part_that_is_cut_resumes_where_it_was(http, origin, cut):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    cut_at = 100 * KIB
    origin.on(path="/b/k", nth=3, cut_after=cut_at, cut=cut)
    p.get_checked("/b/k", SIZE)
    origin.settle()
    broken = [r for r in origin.log() if r.error]
    assert len(broken) == 1
    first = broken[0].range_start()
    again = [r for r in origin.log() if r is not broken[0] and r.range and first <= r.range[0] < first + 256 * KIB]
    assert again, "nobody asked for the rest"
    if cut == "fin":   # a RST may swallow what was sent before it
        assert again[0].range[0] == first + cut_at, "resumed at %d, not at %d" % (again[0].range[0], first + cut_at)
        assert origin.bytes_sent() == SIZE
    assert again[0].get("if-match"), "the rest must be of the same version"
    p.get_checked("/b/k", SIZE)


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_the_first_part_cut_resumes_too(http, origin, cut):
    p = http(**PARTS)
    o = origin.put("/b/k", SIZE)
    origin.on(path="/b/k", nth=1, cut_after=70000, cut=cut)
    p.get_checked("/b/k", SIZE)
    rest = [r for r in origin.log()[1:] if r.range and 0 <= r.range[0] < 256 * KIB]
    assert rest and rest[0].get("if-match") == o.etag


def test_cuts_everywhere_still_give_every_byte(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    count = [0]

    def every_other(r):
        count[0] += 1
        return count[0] % 2 == 1
    origin.on(path="/b/k", when=every_other, cut_after=90000)
    p.get_checked("/b/k", SIZE)
    p.get_checked("/b/k", SIZE)


def test_slow_down_is_retried_with_a_pause(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    origin.on(path="/b/k", times=3, status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    p.get_checked("/b/k", SIZE)
    s = p.stats()["origins"]["o"]
    assert s["slow_down"] >= 3 and s["retries"] >= 3


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_server_errors_are_retried_a_bounded_number_of_times(http, origin, status):
    p = http(o={"retry": {"attempts": 3, "base": "10ms", "cap": "20ms"}})
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", status=status, body=b"<Error><Code>InternalError</Code></Error>")
    r = p.get("/b/k")
    assert r.status == status and b"InternalError" in r.body
    assert origin.count() == 3
    origin.clear_rules()
    assert p.get("/b/k").status == 200


def test_a_client_that_leaves_stops_the_rest_after_the_parts_in_flight(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB", "max_in_flight": 4,
                                                         "read_ahead": "1MiB"}})
    size = 64 * MIB
    origin.put("/b/k", size)
    origin.first_byte_delay = 0.02
    with p.connect() as c:
        c.request("GET", "/b/k")
        next(c.pieces(c.head()))
    time.sleep(0.3)
    origin.settle()
    sent = origin.bytes_sent()
    assert sent < 16 * MIB, "the origin sent %d bytes for a client that had left" % sent
    time.sleep(0.5)
    origin.settle()
    assert origin.bytes_sent() == sent
    net.wait_until("nothing in flight", lambda: p.stats()["requests"]["in_flight"] <= 1)
    p.get_checked("/b/k", size)


def test_a_client_that_leaves_does_not_spoil_anothers_read(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    origin.first_byte_delay = 0.05
    origin.throttle = 4 * MIB
    first = p.connect()
    first.request("GET", "/b/k")
    first.head()
    done = []
    t = threading.Thread(target=lambda: done.append(p.get_checked("/b/k", SIZE)))
    t.start()
    time.sleep(0.1)
    first.close()
    t.join(60)
    assert done
    assert origin.bytes_sent() == SIZE


def test_a_slow_reader_does_not_hold_the_others(http, origin):
    p = http(cache={"slice_size": "64KiB", "memory": "32MiB"}, o={"fetch": {"part_size": "256KiB", "max_in_flight": 4,
                                                                            "read_ahead": "1MiB"}})
    size = 24 * MIB
    origin.put("/b/k", size)
    slow = p.connect(rcvbuf=16384)
    try:
        slow.request("GET", "/b/k")
        slow.head()
        start = time.monotonic()
        p.get_checked("/b/k", size)
        assert time.monotonic() - start < 5 * net.SLOW
    finally:
        slow.close()


def test_a_slow_reader_of_a_cold_object_pulls_the_origin_no_further_than_its_horizon(http, origin):
    p = http(cache={"slice_size": "64KiB", "memory": "64MiB"}, o={"fetch": {"part_size": "256KiB", "max_in_flight": 4,
                                                                            "read_ahead": "2MiB"}})
    size = 48 * MIB
    origin.put("/b/k", size)
    with p.connect(rcvbuf=16384) as c:
        c.request("GET", "/b/k")
        c.head()
        time.sleep(1.0)
        sent = origin.bytes_sent()
        assert sent < 16 * MIB, "%d bytes read ahead of a client that does not read" % sent


def test_many_big_reads_at_once_do_not_starve_each_other_of_memory(http, origin):
    """16 MiB of cache, 12 readers of 8 MiB each: each goes on with at least its own slice."""
    p = http(cache={"slice_size": "256KiB", "memory": "16MiB"}, o={"fetch": {"part_size": "1MiB"}})
    for i in range(12):
        origin.put("/b/k%d" % i, 8 * MIB)
    together(p, 12, lambda i: p.get_checked("/b/k%d" % i, 8 * MIB))


def test_slow_readers_cannot_pin_the_whole_cache(http, origin):
    p = http(cache={"slice_size": "256KiB", "memory": "16MiB"}, o={"fetch": {"part_size": "1MiB"}})
    conns = []
    try:
        for i in range(40):
            origin.put("/b/s%d" % i, 8 * MIB)
            c = p.connect(rcvbuf=8192)
            c.request("GET", "/b/s%d" % i)
            conns.append(c)
        time.sleep(0.5)
        origin.put("/b/fast", 4 * MIB)
        p.get_checked("/b/fast", 4 * MIB)
    finally:
        for c in conns:
            c.close()


def test_max_connections_to_the_origin_is_honoured_across_workers(http, origin):
    p = http(workers=2, cache={"slice_size": "64KiB"}, o={"connections": {"max": 4}, "fetch": {"part_size": "64KiB"}})
    for i in range(8):
        origin.put("/b/k%d" % i, 2 * MIB)
    origin.throttle = 3 * MIB   # long enough to be looked at
    seen, done = [0], threading.Event()

    def look():
        while not done.is_set():
            seen.append(net.established_to(origin.port))
    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        together(p, 8, lambda i: p.get_checked("/b/k%d" % i, 2 * MIB))
    finally:
        done.set()
        watcher.join()
    assert 0 < max(seen) <= 4, "%d connections, 4 allowed" % max(seen)


def test_connections_to_the_origin_are_kept_and_used_again(http, origin):
    p = http(workers=1)
    for i in range(20):
        origin.put("/b/k%d" % i, 100)
        p.get("/b/k%d" % i)
    assert origin.connections == 1
    s = p.stats()["origins"]["o"]["connections"]
    assert s["created"] == 1 and s["reused"] == 19 and s["idle"] == 1


def test_idle_connections_to_the_origin_are_closed_in_time(http, origin):
    p = http(o={"connections": {"idle_timeout": "300ms"}})
    origin.put("/b/k", 100)
    p.get("/b/k")
    net.wait_until("the pool let go", lambda: not origin.open, 5)


def test_an_idle_connection_closed_by_the_origin_is_noticed(http, origin):
    p = http(workers=1)
    origin.put("/b/k", 100)
    origin.put("/b/l", 100)
    p.get("/b/k")
    origin.settle()
    assert origin.close_idle() == 1
    net.wait_until("the EOF is seen", lambda: p.stats()["origins"]["o"]["connections"]["open"] == 0)
    assert p.get("/b/l").status == 200


def test_a_reused_connection_that_fails_before_any_byte_is_retried_for_free(http, origin):
    """The origin closes just as the next request comes: invisible, even where retries are off."""
    p = http(workers=1, o={"retry": {"attempts": 1}})
    for i in range(4):
        origin.put("/b/k%d" % i, 100)
    p.get("/b/k0")
    origin.on(when=lambda r: r.number > 1, times=1, close="fin")
    p.get_checked("/b/k1", 100)
    origin.on(when=lambda r: r.number > 1, times=1, close="rst")
    p.get_checked("/b/k2", 100)
    assert origin.count("/b/k1") == 2 and origin.count("/b/k2") == 2


def test_a_connection_the_origin_wants_closed_is_not_used_again(http, origin):
    p = http(workers=1)
    origin.put("/b/k", 100)
    origin.put("/b/l", 100)
    origin.on(path="/b/k", connection_close=True)
    p.get("/b/k")
    p.get("/b/l")
    assert origin.connections == 2
