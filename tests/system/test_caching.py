"""What the cache does and says: hits without the origin, Cache-Status, X-Cache, Age, sharing, eviction, counters."""
import re
import threading
import time

import net
from content import Checker, content

KIB, MIB = 1 << 10, 1 << 20


def test_second_get_is_a_hit_and_the_origin_is_not_asked(http, origin):
    p = http()
    origin.put("/b/k", 3 * MIB)
    assert p.get_checked("/b/k", 3 * MIB)[0].get("x-cache") == "MISS"
    n = origin.count()
    for _ in range(5):
        assert p.get_checked("/b/k", 3 * MIB)[0].get("x-cache") == "HIT"
    assert origin.count() == n


def test_cache_status_says_it_in_rfc_9211(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000)
    cold, warm = p.get("/b/k").get("cache-status"), p.get("/b/k").get("cache-status")
    name = cold.split(";")[0].strip()
    assert re.fullmatch(r'[A-Za-z][A-Za-z0-9_.:/*-]*|"[^"]+"', name), cold
    assert re.search(r";\s*fwd=(uri-miss|miss|vary-miss|partial)\b", cold) and "hit" not in cold, cold
    assert warm.split(";")[0].strip() == name
    assert re.search(r";\s*hit\b", warm) and "fwd" not in warm, warm
    bypass = p.get("/b?list-type=2")
    assert "fwd=bypass" in bypass.get("cache-status").replace(" ", "") or "fwd=method" in bypass.get("cache-status")


def test_cache_status_of_the_origin_is_kept_before_ours(http, origin):
    p = http()
    origin.put("/b/k", 1000, headers={"Cache-Status": "Inner; hit"})
    got = ", ".join(p.get("/b/k").all("cache-status"))
    assert "Inner" in got and got.index("Inner") < got.rindex("fwd=")


def test_age_counts_from_the_origins_answer(http, origin):
    p = http()
    origin.put("/b/k", 1000, headers={"Age": "100", "Cache-Control": "max-age=1000"})
    p.get("/b/k")
    time.sleep(1.2)
    age = int(p.get("/b/k").get("age"))
    assert 101 <= age <= 105


def test_concurrent_readers_of_a_cold_object_share_one_fill(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB"}})
    size = 4 * MIB
    origin.put("/b/k", size)
    origin.first_byte_delay = 0.05
    together(p, 16, lambda i: p.get_checked("/b/k", size))
    assert origin.bytes_sent("/b/k") == size
    assert origin.count(method="HEAD") == 0


def together(p, n, work):
    """n threads at once; the first failure is raised."""
    errors, barrier = [], threading.Barrier(n)

    def run(i):
        try:
            barrier.wait(20)
            work(i)
        except Exception as e:
            errors.append(e)
    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120 * net.SLOW)
        assert not t.is_alive(), "a reader hangs"
    if errors:
        raise errors[0]


def test_a_small_object_asked_by_many_is_fetched_once(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", delay=0.2)
    together(p, 50, lambda i: p.get_checked("/b/k", 1000))
    assert origin.count("/b/k") == 1


def test_readers_who_wait_for_an_uncacheable_object_are_not_queued_one_by_one(http, origin):
    p = http()
    origin.put("/b/k", 1000, headers={"Cache-Control": "no-store"})
    origin.on(path="/b/k", delay=0.3)
    start = time.monotonic()
    together(p, 20, lambda i: p.get_checked("/b/k", 1000))
    assert time.monotonic() - start < 3 * net.SLOW, "20 readers of 0.3 s each came one after another"


def test_a_404_asked_by_many_reaches_all(http, origin):
    p = http()
    origin.on(path="/b/none", delay=0.2, status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")

    def ask(_):
        r = p.get("/b/none")
        assert r.status == 404 and b"NoSuchKey" in r.body
    together(p, 20, ask)


def test_cache_fills_up_and_evicts_without_ever_exceeding_its_memory(http, origin):
    p = http(cache={"memory": "16MiB", "slice_size": "64KiB"})
    for i in range(64):
        origin.put("/b/k%d" % i, MIB)
    for i in range(64):
        p.get_checked("/b/k%d" % i, MIB)
    m = p.stats()["caches"]["main"]["memory"]
    assert m["used"] <= m["capacity"] <= 16 * MIB
    assert m["evictions"] + m["rejected"] > 0
    p.get_checked("/b/k63", MIB)


def test_small_objects_do_not_waste_memory(http, origin):
    """2000 objects of 1 to 9 KiB, 10 MB in all, fit a 16 MiB cache although a slice is 1 MiB."""
    p = http(cache={"memory": "16MiB"}, limits={"memory": "256MiB"})
    sizes = [1000 + (i * 37) % 8000 for i in range(2000)]
    for i, n in enumerate(sizes):
        origin.put("/b/%d" % i, n)
    with p.connect() as c:
        for _ in range(2):
            for i, n in enumerate(sizes):
                check = Checker("/b/%d" % i)
                c.request("GET", "/b/%d" % i)
                c.response("GET", check)
                assert check.position == n
        hits = 0
        for i in range(0, 2000, 10):
            c.request("GET", "/b/%d" % i)
            hits += c.response().get("x-cache") == "HIT"
    assert hits >= 190, "only %d of 200 were kept" % hits


def test_stats_count_what_happened(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB"}})
    before = p.stats()
    origin.put("/b/k", MIB)
    p.get_checked("/b/k", MIB)
    p.get_checked("/b/k", MIB)
    p.get_checked("/b/k", MIB, 10, 100)
    p.get("/b/none")
    p.fetch("PUT", "/b/put", body=b"12345")
    # a request is counted when its connection has seen its end, a moment after the client has
    net.wait_until("all are counted", lambda: p.stats()["buckets"].get("b", {}).get("puts") == 1)
    s = p.stats()
    delta = lambda *path: _at(s, path) - _at(before, path)
    assert delta("requests", "cache", "miss") >= 1
    assert delta("requests", "cache", "hit") == 2
    assert delta("requests", "methods", "GET") >= 4
    assert delta("requests", "methods", "PUT") == 1
    assert delta("requests", "statuses", "404") == 1 if "404" in s["requests"]["statuses"] else True
    assert delta("bytes", "sent") >= 2 * MIB + 100
    assert MIB <= delta("bytes", "origin_received") < MIB + 2000
    assert delta("bytes", "saved") == MIB + 100
    assert delta("origins", "o", "requests") == origin.count()
    m = s["caches"]["main"]["memory"]
    assert m["slices"] == 16 and m["objects"] >= 1 and m["used"] >= MIB and m["capacity"] > 0
    net.wait_until("only this request is in flight", lambda: p.stats()["requests"]["in_flight"] <= 1)
    assert s["latency_ms"]["first_byte"]["p50"] <= s["latency_ms"]["first_byte"]["max"]
    assert s["latency_ms"]["total"]["p99"] > 0
    assert s["buckets"]["b"]["gets"] >= 4 and s["buckets"]["b"]["puts"] == 1
    assert s["workers"] == 2 and s["uptime_s"] >= 0 and s["version"]
    assert 0 < s["caches"]["main"]["hit_ratio"] < 1


def _at(d, path):
    for k in path:
        d = d.get(k, 0) if isinstance(d, dict) else d
    return d


def test_range_readers_of_one_object_share_its_slices(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "64KiB"}})
    size = 4 * MIB
    origin.put("/b/k", size)
    origin.first_byte_delay = 0.02
    together(p, 16, lambda i: p.get_checked("/b/k", size, (i % 4) * MIB, MIB))
    together(p, 8, lambda i: p.get_checked("/b/k", size))
    assert origin.bytes_sent("/b/k") == size


def test_two_origins_with_the_same_key_do_not_mix(start, origin):
    from origin import Origin
    other = Origin()
    try:
        origin.put("/b/k", 1000)
        other.put("/b/k", 1000, version=2)
        p = start({"type": "http", "endpoint": origin.url},
                  origins={"second": {"type": "http", "endpoint": other.url}},
                  server={"routes": [{"path": "/", "origin": "o", "cache": "main"},
                                     {"path": "/_s3dlio/", "handler": "admin"},
                                     {"path": "/", "hosts": ["second.test"], "origin": "second", "cache": "main"}]})
        for _ in range(2):
            p.get_checked("/b/k", 1000)
            assert p.get("/b/k", {"Host": "second.test"}).body == content("/b/k", 2, 0, 1000)
    finally:
        other.stop()


def test_longest_route_wins(start, origin):
    from origin import Origin
    other = Origin()
    try:
        origin.put("/data/k", 100)
        other.put("/data/special/k", 100)
        p = start({"type": "http", "endpoint": origin.url},
                  origins={"second": {"type": "http", "endpoint": other.url}},
                  server={"routes": [{"path": "/data/special/", "origin": "second", "cache": "main"},
                                     {"path": "/data/", "origin": "o", "cache": "main"},
                                     {"path": "/_s3dlio/", "handler": "admin"}]})
        p.get_checked("/data/k", 100)
        p.get_checked("/data/special/k", 100)
        assert p.get("/elsewhere").status in (403, 404)
    finally:
        other.stop()
