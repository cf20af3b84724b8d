"""The object changes while it is read: a client gets one version from the first byte to the last, or a broken
connection. Never two versions in one body."""
import random
import threading
import time

import net
import pytest
import raw
from content import Checker, content
from test_caching import together

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PARTS = {"cache": {"slice_size": "64KiB"}, "o": {"fetch": {"part_size": "256KiB", "max_in_flight": 4},
                                                 "retry": {"base": "10ms", "cap": "50ms"}}}
SIZE = 4 * MIB


def test_changed_before_the_first_byte_starts_again_on_the_new_version(http, origin):
    """The cached object is of an old version, its rest is missing: the 412 comes before anything was sent."""
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    p.get_checked("/b/k", SIZE, 2 * MIB, 100)       # a part of version 1 is cached
    origin.put("/b/k", SIZE, version=2)
    p.get_checked("/b/k", SIZE, versions=(2,))
    assert any(r.status == 412 for r in origin.log())
    p.get_checked("/b/k", SIZE, versions=(2,))
    p.get_checked("/b/k", SIZE, 2 * MIB, 100, versions=(2,))


def test_changed_after_the_first_byte_breaks_the_connection(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    gate = threading.Event()
    origin.on(path="/b/k", when=lambda r: (r.range_start() or 0) > 0, gate=gate)
    check = Checker("/b/k", versions=(1,))
    with p.connect() as c:
        c.request("GET", "/b/k")
        r = c.head()
        assert r.status == 200
        origin.put("/b/k", SIZE, version=2)
        gate.set()
        with pytest.raises(raw.Broken):
            c.body(r, "GET", check)
    assert check.position < SIZE
    origin.clear_rules()
    p.get_checked("/b/k", SIZE, versions=(2,))


@pytest.mark.parametrize("lie", ["etag_changes_but_if_match_ignored", "size_changes"])
def test_an_origin_that_ignores_if_match_is_caught_by_its_own_answer(http, origin, lie):
    """206 with another ETag or another size is another version, whatever If-Match said."""
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    later = lambda r: (r.range_start() or 0) >= 256 * KIB

    def change(rec):
        # as if the origin did not know If-Match: answer from the new version
        rec.headers = [h for h in rec.headers if h[0].lower() != "if-match"]
        origin.put("/b/k", SIZE + (MIB if lie == "size_changes" else 0), version=2)
    origin.on(path="/b/k", when=later, times=1, call=change)
    check = Checker("/b/k", versions=(1, 2))
    got = None
    try:
        got = p.get("/b/k", checker=check)
    except raw.Broken:
        pass
    if got is not None and got.status == 200:
        assert check.position == int(got.get("content-length"))   # then it was all of one version: Checker saw to it
    origin.clear_rules()
    p.get_checked("/b/k", origin.objects["/b/k"].size, versions=(2,))


def test_without_etag_a_changed_date_or_size_is_noticed(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE, etag="")
    origin.on(path="/b/k", when=lambda r: (r.range_start() or 0) >= 256 * KIB, times=1,
              call=lambda r: origin.put("/b/k", SIZE + 5, version=2, etag="",
                                        last_modified="Thu, 13 Oct 2022 17:50:00 GMT"))
    check = Checker("/b/k", versions=(1, 2))
    try:
        r = p.get("/b/k", checker=check)
        assert check.position == int(r.get("content-length"))
    except raw.Broken:
        pass


def test_a_waiter_on_a_changing_object_gets_one_version_too(http, origin):
    p = http(**PARTS)
    origin.put("/b/k", SIZE)
    changed = threading.Event()

    def change(_):
        if not changed.is_set():
            changed.set()
            origin.put("/b/k", SIZE, version=2)
    origin.on(path="/b/k", nth=4, call=change)
    outcomes = []

    def read(_):
        check = Checker("/b/k", versions=(1, 2))
        try:
            r = p.get("/b/k", checker=check)
            assert r.status in (200, 503), r
            outcomes.append("whole" if r.status == 200 and check.position == SIZE else r.status)
        except raw.Broken:
            outcomes.append("broken")
    together(p, 12, read)
    p.get_checked("/b/k", SIZE, versions=(2,))


def test_conflicting_changes_forever_end_with_an_error_not_a_loop(http, origin):
    p = http(o={"fetch": {"part_size": "64KiB"}, "retry": {"attempts": 3, "base": "10ms", "cap": "20ms"}},
             cache={"slice_size": "64KiB"})
    origin.put("/b/k", MIB)
    version = [1]

    def change(_):
        version[0] += 1
        origin.put("/b/k", MIB, version=version[0])
    origin.on(path="/b/k", call=change)
    start = time.monotonic()
    try:
        r = p.get("/b/k")
        assert r.status in (200, 503, 502)
    except raw.Broken:
        pass
    assert time.monotonic() - start < 15 * net.SLOW
    assert origin.count() < 200


class Churn:
    """Versions change at random, through the proxy and behind it, while readers compare."""

    def __init__(self, p, origin, path, size, seconds):
        self.p, self.origin, self.path, self.size = p, origin, path, size
        self.end = time.monotonic() + seconds
        self.version, self.ok, self.broken = 1, 0, 0
        self.lock = threading.Lock()

    def write(self, _):
        rng = random.Random(1)
        while time.monotonic() < self.end:
            time.sleep(rng.uniform(0.05, 0.2))
            v = self.version + 1
            if rng.random() < 0.5:
                self.version = v
                self.origin.put(self.path, self.size, version=v)    # behind
            else:
                self.origin.expect_upload(self.path, v)
                self.version = v
                r = self.p.fetch("PUT", self.path, body=content(self.path, v, 0, self.size))
                assert r.status == 200
                low = self.version
                # what a read that begins now gets is this version
                check = Checker(self.path, 0, [low])
                try:
                    r = self.p.get(self.path, checker=check)
                    assert r.status == 200, r
                except raw.Broken:
                    pass

    def read(self, i):
        rng = random.Random(i)
        while time.monotonic() < self.end:
            versions = range(1, self.version + 200)
            try:
                if rng.random() < 0.5:
                    check = Checker(self.path, 0, versions)
                    r = self.p.get(self.path, checker=check)
                    assert r.status == 200 and check.position == self.size, r
                else:
                    first = rng.randrange(self.size)
                    n = min(self.size - first, rng.randrange(1, MIB))
                    check = Checker(self.path, first, versions)
                    r = self.p.get(self.path, {"Range": "bytes=%d-%d" % (first, first + n - 1)}, checker=check)
                    assert r.status == 206 and check.position == n, r
                with self.lock:
                    self.ok += 1
            except raw.Broken:
                with self.lock:
                    self.broken += 1


@pytest.mark.heavy
def test_readers_under_overwrites_through_and_behind_the_proxy_never_see_two_versions(http, origin):
    p = http(cache={"slice_size": "64KiB", "fresh_for": "100ms"},
             o={"fetch": {"part_size": "256KiB", "max_in_flight": 4}, "retry": {"base": "10ms"}})
    origin.put("/b/k", 3 * MIB + 17)
    c = Churn(p, origin, "/b/k", 3 * MIB + 17, 6)
    together(p, 9, lambda i: c.write(i) if i == 0 else c.read(i))
    assert c.ok > 20, (c.ok, c.broken)
