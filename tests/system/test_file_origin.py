"""Origins of type file: a directory served like a bucket, and nothing outside of it."""
import os
import time

import pytest
from content import content

MIB = 1 << 20
SIZE = 20 * MIB + 11


@pytest.fixture
def site(start, tmp_path):
    root = tmp_path / "root"
    (root / "b/dir").mkdir(parents=True)
    (root / "b/k").write_bytes(content("/k", 1, 0, SIZE))
    (root / "b/small.txt").write_bytes(b"small")
    (root / "b/empty").write_bytes(b"")
    (root / "b/sp ace+€").write_bytes(b"odd")
    (tmp_path / "outside").write_bytes(b"SECRET")
    os.symlink(str(tmp_path / "outside"), str(root / "b/link"))
    return start({"type": "file", "root": str(root)}), root


def test_get_head_ranges_and_conditions(site):
    p, root = site
    for want in ("MISS", "HIT"):
        r = p.get("/b/k")
        assert r.status == 200 and r.get("x-cache") == want and r.body == content("/k", 1, 0, SIZE)
    assert r.get("etag") and r.get("last-modified") and r.get("content-type")
    r = p.get("/b/k", {"Range": "bytes=100-199"})
    assert r.status == 206 and r.body == content("/k", 1, 100, 100)
    assert p.get("/b/k", {"Range": "bytes=-5"}).body == content("/k", 1, SIZE - 5, 5)
    assert p.get("/b/k", {"Range": "bytes=%d-" % SIZE}).status == 416
    assert p.fetch("HEAD", "/b/k").get("content-length") == str(SIZE)
    assert p.fetch("HEAD", "/b/small.txt").get("content-length") == "5"
    assert p.get("/b/k", {"If-None-Match": r.get("etag")}).status == 304
    assert p.get("/b/empty").body == b"" and p.get("/b/empty", {"Range": "bytes=0-"}).status == 416
    assert p.get("/b/sp%20ace+%E2%82%AC").body == b"odd"


def test_missing_files_and_directories_are_no_such_key(site):
    p, root = site
    for target in ("/b/none", "/b/dir", "/b/dir/", "/none/k", "/b/k/below", "/b/" + "x" * 300):
        r = p.get(target)
        assert r.status == 404 and b"<Code>NoSuch" in r.body, (target, r)


@pytest.mark.parametrize("target", ["/b/../../outside", "/../outside", "/b/%2e%2e/%2e%2e/outside", "/..%2foutside",
                                    "/b/link", "//etc/passwd", "/b/dir/../../../outside", "/b/%00k"])
def test_nothing_outside_the_root_is_served(site, target):
    p, root = site
    r = p.get(target)
    assert r.status in (400, 403, 404) and b"SECRET" not in r.body and b"root:" not in r.body


def test_a_replaced_file_is_another_version(start, tmp_path):
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    (root / "b/k").write_bytes(content("/k", 1, 0, SIZE))
    p = start({"type": "file", "root": str(root)}, cache={"fresh_for": "300ms"})
    p.get("/b/k", {"Range": "bytes=0-99"})
    (root / "b/new").write_bytes(content("/k", 2, 0, SIZE))
    os.rename(root / "b/new", root / "b/k")
    time.sleep(0.4)
    for _ in range(2):
        assert p.get("/b/k").body == content("/k", 2, 0, SIZE)


def test_unreadable_special_files(site):
    p, root = site
    os.mkfifo(root / "b/fifo")
    r = p.get("/b/fifo", timeout=10)
    assert r.status in (403, 404)


def test_writes_to_a_file_origin_have_a_defined_answer(site):
    p, root = site
    r = p.fetch("PUT", "/b/new", body=b"x")
    assert r.status in (403, 405, 501) and b"<Error>" in r.body
    assert p.fetch("DELETE", "/b/small.txt").status in (403, 405, 501)
    assert (root / "b/small.txt").exists()
