"""nginx as a plain http origin."""
import os
import time

import pytest
from content import content

MIB = 1 << 20
SIZE = 20 * MIB + 11


@pytest.fixture
def site(start, nginx_server):
    name = "t" + os.urandom(4).hex()
    d = nginx_server.root / name
    d.mkdir()
    (d / "k").write_bytes(content("/k", 1, 0, SIZE))
    (d / "small.txt").write_bytes(b"small text\n")
    (d / "empty").write_bytes(b"")
    (d / "with space+plus.txt").write_bytes(b"odd name\n")
    return start({"type": "http", "endpoint": nginx_server.url}), "/" + name, d


def test_whole_cold_and_warm(site):
    p, base, _ = site
    for want in ("MISS", "HIT"):
        r = p.get(base + "/k")
        assert r.status == 200 and r.body == content("/k", 1, 0, SIZE) and r.get("x-cache") == want
    r = p.get(base + "/small.txt")
    assert r.body == b"small text\n" and r.get("content-type") == "text/plain"
    for _ in range(2):
        r = p.get(base + "/empty")
        assert (r.status, r.body) == (200, b"")
        assert p.get(base + "/empty", {"Range": "bytes=0-"}).status == 416
    assert p.get(base + "/with%20space+plus.txt").body == b"odd name\n"


def test_ranges_and_conditions(site):
    p, base, _ = site
    for _ in range(2):
        r = p.get(base + "/k", {"Range": "bytes=9999999-10000008"})
        assert r.status == 206 and r.body == content("/k", 1, 9999999, 10)
        r = p.get(base + "/k", {"Range": "bytes=-10"})
        assert r.status == 206 and r.body == content("/k", 1, SIZE - 10, 10)
        assert p.get(base + "/k", {"Range": "bytes=%d-" % SIZE}).status == 416
        etag = p.fetch("HEAD", base + "/k").get("etag")
        assert p.get(base + "/k", {"If-None-Match": etag}).status == 304
        p.get(base + "/k")


def test_errors_and_redirects_pass(site):
    p, base, _ = site
    assert p.get(base + "/none").status == 404
    r = p.get(base)
    assert r.status == 301 and r.get("location")


def test_no_store_is_honoured(site, nginx_server):
    p, base, d = site
    private = nginx_server.root / "private"
    private.mkdir(exist_ok=True)
    (private / "k").write_bytes(b"secret")
    for _ in range(2):
        assert p.get("/private/k").get("x-cache") in ("MISS", "BYPASS")


def test_a_listing_in_chunks(site, nginx_server):
    p, base, d = site
    many = nginx_server.root / "list"
    many.mkdir(exist_ok=True)
    for i in range(300):
        (many / ("file%04d" % i)).write_bytes(b"")
    with p.connect() as c:
        for _ in range(2):
            c.request("GET", "/list/")
            r = c.response()
            assert r.status == 200 and b"file0299" in r.body


def test_a_file_replaced_behind_the_proxy(start, nginx_server):
    name = "r" + os.urandom(4).hex()
    d = nginx_server.root / name
    d.mkdir()
    (d / "k").write_bytes(b"one")
    p = start({"type": "http", "endpoint": nginx_server.url}, cache={"fresh_for": "300ms"})
    assert p.get("/%s/k" % name).body == b"one"
    time.sleep(0.4)
    assert p.get("/%s/k" % name).get("x-cache") == "REVALIDATED"
    (d / "k").write_bytes(b"two!")
    time.sleep(0.4)
    assert p.get("/%s/k" % name).body == b"two!"
