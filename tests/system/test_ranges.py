"""Ranges as S3 answers them, cold and warm, and what is asked of the origin for them."""
import random

import pytest
from content import content

KIB, MIB = 1 << 10, 1 << 20
SIZE = 1000


@pytest.fixture(params=["cold", "warm"])
def p(http, origin, request):
    p = http()
    origin.put("/b/k", SIZE)
    origin.put("/b/empty", 0)
    if request.param == "warm":
        p.get("/b/k")
        p.get("/b/empty")
    return p


@pytest.mark.parametrize("spec,first,last", [
    ("bytes=0-", 0, 999), ("bytes=0-0", 0, 0), ("bytes=10-19", 10, 19), ("bytes=990-", 990, 999),
    ("bytes=990-2000", 990, 999), ("bytes=-1", 999, 999), ("bytes=-100", 900, 999), ("bytes=-5000", 0, 999),
    ("bytes=0-999", 0, 999), ("bytes=999-999", 999, 999), ("bytes=0-18446744073709551615", 0, 999)])
def test_satisfiable_range_is_206(p, spec, first, last):
    r = p.get("/b/k", {"Range": spec})
    assert r.status == 206
    assert r.get("content-range") == "bytes %d-%d/1000" % (first, last)
    assert r.get("content-length") == str(last - first + 1)
    assert r.body == content("/b/k", 1, first, last - first + 1)


@pytest.mark.parametrize("spec", ["bytes=1000-", "bytes=1000-1001", "bytes=5000-6000", "bytes=-0"])
def test_range_past_the_end_is_416(p, spec):
    r = p.get("/b/k", {"Range": spec})
    assert r.status == 416
    assert r.get("content-range") == "bytes */1000"
    assert b"<Code>InvalidRange</Code>" in r.body
    p.get_checked("/b/k", SIZE)   # and the object is not spoiled by it


@pytest.mark.parametrize("spec", ["bytes=0-", "bytes=0-0", "bytes=-1", "bytes=5-10"])
def test_any_range_of_an_empty_object_is_416(p, spec):
    r = p.get("/b/empty", {"Range": spec})
    assert r.status == 416
    r = p.get("/b/empty")
    assert (r.status, r.body, r.get("content-length")) == (200, b"", "0")


@pytest.mark.parametrize("spec", ["bytes=0-1,5-6", "bytes=0-1,-2", "bytes=5-1", "bytes=x-y", "bytes=", "bytes=-",
                                  "lines=0-1", "bytes 0-1", "bytes=1-2-3", "bytes=0x1-2"])
def test_multi_range_and_nonsense_is_200_with_the_whole_object(p, spec):
    r = p.get("/b/k", {"Range": spec})
    assert r.status == 200
    assert r.get("content-range") is None
    assert r.body == content("/b/k", 1, 0, SIZE)


def test_random_ranges_of_a_large_object_compare(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "192KiB", "max_in_flight": 4}})
    size, rng = 7 * MIB + 4321, random.Random(5)
    origin.put("/b/k", size)
    for _ in range(60):
        first = rng.randrange(size)
        length = min(size - first, rng.choice([1, 2, 1000, 64 * KIB, 65 * KIB, MIB]))
        p.get_checked("/b/k", size, first, length)
    p.get_checked("/b/k", size)
    assert origin.bytes_sent("/b/k") <= size, "a slice was fetched twice"


def test_slice_edges(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "128KiB"}})
    size = 512 * KIB + 1
    origin.put("/b/k", size)
    for edge in (64 * KIB, 128 * KIB, 256 * KIB, 512 * KIB):
        for first, length in ((edge - 1, 2), (edge, 1), (edge - 1, 1), (edge - 65 * KIB, 65 * KIB + 1)):
            if first >= 0:
                p.get_checked("/b/k", size, first, min(length, size - first))


def test_a_small_range_of_a_cold_large_object_asks_for_little(http, origin):
    p = http()
    size = 1 << 30
    origin.put("/b/k", size)
    p.get_checked("/b/k", size, 512 * MIB, MIB)
    origin.settle()
    assert origin.bytes_sent("/b/k") <= 2 * MIB
    assert origin.count(method="HEAD") == 0


def test_suffix_range_of_a_cold_large_object(http, origin):
    p = http()
    size = 100 * MIB + 3
    origin.put("/b/k", size)
    r = p.get("/b/k", {"Range": "bytes=-1000"})
    assert r.status == 206 and r.body == content("/b/k", 1, size - 1000, 1000)
    origin.settle()
    assert origin.bytes_sent("/b/k") <= 2 * MIB


def test_partial_hit_fetches_only_what_is_missing(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "128KiB"}})
    size = MIB
    origin.put("/b/k", size)
    p.get_checked("/b/k", size, 256 * KIB, 128 * KIB)
    r, _ = p.get_checked("/b/k", size)
    assert r.get("x-cache") == "PARTIAL"
    assert origin.bytes_sent("/b/k") == size
    r, _ = p.get_checked("/b/k", size)
    assert r.get("x-cache") == "HIT"


def test_a_range_within_what_is_cached_is_a_hit(http, origin):
    p = http(cache={"slice_size": "64KiB"})
    origin.put("/b/k", MIB)
    p.get_checked("/b/k", MIB)
    origin.clear_log()
    r, _ = p.get_checked("/b/k", MIB, 100, 70 * KIB)
    assert r.get("x-cache") == "HIT" and origin.count() == 0
