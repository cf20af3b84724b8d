"""Every byte of a 1 GiB object compared: cold and warm, whole and in ranges, alone and with 64 clients, beside slow readers
and clients that leave. Smaller under sanitizers."""
import random
import threading
import time

import net
import pytest
import raw
import ways
from content import Checker
from test_caching import together

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(300), pytest.mark.xdist_group("gibibyte"),
              pytest.mark.ways(*ways.ALL, san=ways.ALL)]
MIB = 1 << 20
GIBIBYTE = (1 << 30 if not net.SANITIZER else 96 * MIB) + 4321


@pytest.fixture
def size(way):
    """Of what is read in other ways than by one client: the whole of it over one protocol, a good part over the others."""
    return GIBIBYTE if way.name == "h1" else GIBIBYTE // 4 if not net.SANITIZER else GIBIBYTE // 3


def memory(size):
    return "%dMiB" % (size // MIB + 64)


def test_one_client_whole_cold_and_warm(http, origin):
    p = http(cache={"memory": memory(GIBIBYTE)})
    origin.put("/b/k", GIBIBYTE)
    p.get_checked("/b/k", GIBIBYTE, timeout=120)
    assert origin.bytes_sent() == GIBIBYTE
    r, _ = p.get_checked("/b/k", GIBIBYTE, timeout=120)
    assert r.get("x-cache") == "HIT" and origin.bytes_sent() == GIBIBYTE


def test_one_client_twice_what_does_not_fit(http, origin, size):
    p = http(cache={"memory": "%dMiB" % max(16, size // MIB // 8)})
    origin.put("/b/k", size)
    for _ in range(2):
        p.get_checked("/b/k", size, timeout=120)


def test_64_clients_in_random_ranges_cold_then_warm(http, origin, size):
    p = http(cache={"memory": memory(size)})
    origin.put("/b/k", size)

    def ranges(i):
        rng = random.Random(i)
        for _ in range(6):
            first = rng.randrange(size)
            p.get_checked("/b/k", size, first, min(size - first, rng.randrange(1, size // 128)), timeout=120)
    together(p, 64, ranges)
    origin.settle(60)
    assert origin.bytes_sent() <= size, "some slice was fetched twice"
    p.get_checked("/b/k", size, timeout=120)
    assert origin.bytes_sent() == size
    together(p, 64, ranges)
    assert origin.bytes_sent() == size


def test_64_clients_whole_and_at_once_with_slow_readers_and_leavers(http, origin, size):
    """64 clients read the object from different places to its end or to their own; 8 read slowly, 16 leave mid-way."""
    p = http(cache={"memory": memory(size)})
    origin.put("/b/k", size)

    def work(i):
        rng = random.Random(i)
        if i < 8:     # slow: 2 MiB of it, 64 KiB at a time
            check, n = Checker("/b/k"), [0]

            def pause(got):
                if got - n[0] > 65536:
                    n[0] = got
                    time.sleep(0.01)
            with p.connect(timeout=60, rcvbuf=65536) as c:
                c.request("GET", "/b/k", {"Range": "bytes=0-%d" % (2 * MIB - 1)})
                c.response("GET", check, pause)
            assert check.position == 2 * MIB
        elif i < 24:  # leaves
            check = Checker("/b/k")
            with p.connect(timeout=60) as c:
                c.request("GET", "/b/k")
                r = c.head()
                assert r.status == 200
                for data in c.pieces(r):
                    check.feed(data)
                    if check.position >= rng.randrange(1, 16 * MIB):
                        break
        elif i == 24:
            p.get_checked("/b/k", size, timeout=180)
        else:
            first, n = rng.randrange(size - size // 42), size // 42
            p.get_checked("/b/k", size, first, n, timeout=180)
    together(p, 64, work)
    origin.settle(60)
    assert origin.bytes_sent() <= size + 64 * MIB, "much was fetched twice"
    net.wait_until("all requests ended", lambda: p.stats()["requests"]["in_flight"] <= 1)
    p.get_checked("/b/k", size, timeout=120)


def test_whole_reads_while_it_is_overwritten_through_and_behind_the_proxy(http, origin, size):
    p = http(cache={"memory": memory(size), "fresh_for": "200ms"}, o={"retry": {"base": "10ms"}})
    size = size // 4
    origin.put("/b/k", size)
    version, stop, outcomes, lock = [1], threading.Event(), [], threading.Lock()

    def write():
        rng = random.Random(3)
        while not stop.wait(rng.uniform(0.3, 0.8)):
            v = version[0] + 1
            if rng.random() < 0.7:
                version[0] = v
                origin.put("/b/k", size, version=v)
            else:   # a small file over it would change the size: upload the same size
                origin.expect_upload("/b/k", v)
                version[0] = v
                from test_writes import upload
                assert upload(p, "/b/k", size, version=v).status == 200

    writer = threading.Thread(target=write)
    writer.start()

    def read(i):
        end = time.monotonic() + (8 if p.way.name == "h1" else 4)
        while time.monotonic() < end:
            check = Checker("/b/k", 0, range(1, version[0] + 200))
            try:
                r = p.get("/b/k", checker=check, timeout=60)
                assert r.status in (200, 503), r
                with lock:
                    outcomes.append("whole" if r.status == 200 and check.position == size else str(r.status))
            except raw.Broken:
                with lock:
                    outcomes.append("broken")
    try:
        together(p, 4, read)
    finally:
        stop.set()
        writer.join(60)
    assert outcomes
    origin.settle(60)
    time.sleep(0.3)
    p.get_checked("/b/k", size, versions=(version[0],), timeout=120)
