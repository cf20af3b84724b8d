"""curl, wget, requests and httpx, as people use them."""
import subprocess

import httpx
import net
import requests
from content import content

MIB = 1 << 20
SIZE = 9 * MIB + 77


def run(*argv, code=0):
    r = subprocess.run(argv, capture_output=True, timeout=60 * net.SLOW, stdin=subprocess.DEVNULL)
    assert code is None or r.returncode == code, (argv, r.returncode, r.stderr[-2000:])
    return r


def test_curl(http, origin, tmp_path):
    p = http()
    o = origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    url = p.url + "/b/k"
    assert run("curl", "-sSf", url).stdout == body
    assert run("curl", "-sSf", "--http1.0", url).stdout == body
    assert run("curl", "-sSf", "-r", "100-199", url).stdout == body[100:200]
    assert run("curl", "-sSf", "-r", "-50", url).stdout == body[-50:]
    head = run("curl", "-sSfI", url).stdout.decode().lower()
    assert "content-length: %d" % SIZE in head and "x-cache: hit" in head
    assert run("curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", "If-None-Match: " + o.etag, url).stdout == b"304"
    part = tmp_path / "part"
    part.write_bytes(body[:1000000])
    run("curl", "-sSf", "-C", "-", "-o", str(part), url)
    assert part.read_bytes() == body
    run("curl", "-sSf", "-T", str(part), p.url + "/b/new")
    assert origin.objects["/b/new"].data == body
    run("curl", "-sSf", "-X", "DELETE", p.url + "/b/new")
    assert run("curl", "-sSf", p.url + "/b/new", code=22)
    big = tmp_path / "big"   # an Expect: 100-continue upload
    big.write_bytes(b"x" * (2 * MIB))
    run("curl", "-sSf", "-H", "Expect: 100-continue", "-T", str(big), p.url + "/b/big")
    run("curl", "-sSf", "-H", "Transfer-Encoding: chunked", "-T", str(part), p.url + "/b/chunked")
    assert origin.objects["/b/chunked"].data == body


def test_curl_reuses_its_connection_and_works_as_http_proxy_client(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    r = run("curl", "-sS", "-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", p.url + "/b/k", p.url + "/b/k")
    assert r.stdout == b"1 0 "
    r = run("curl", "-sSf", "-x", p.url, "http://somewhere.test/b/k")   # absolute-form
    assert r.stdout == content("/b/k", 1, 0, 1000)


def test_curl_parallel_ranges(http, origin):
    p = http()
    origin.put("/b/k", SIZE)
    r = run("curl", "-sSf", "-Z", *sum((["-r", "%d-%d" % (i * MIB, (i + 1) * MIB - 1), "-o", "/dev/null", p.url + "/b/k",
                                         "--next"] for i in range(8)), [])[:-1])
    assert r.returncode == 0
    assert origin.bytes_sent() <= SIZE


def test_wget(http, origin, tmp_path):
    p = http()
    origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    out = tmp_path / "out"
    run("wget", "-q", "-O", str(out), p.url + "/b/k")
    assert out.read_bytes() == body
    part = tmp_path / "k"
    part.write_bytes(body[:12345])
    run("wget", "-q", "-c", "-P", str(tmp_path), p.url + "/b/k")
    assert part.read_bytes() == body
    assert run("wget", "-q", "-O", "/dev/null", p.url + "/b/none", code=None).returncode == 8


def test_requests(http, origin):
    p = http()
    o = origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    with requests.Session() as s:
        for want in ("MISS", "HIT"):
            r = s.get(p.url + "/b/k", timeout=30)
            assert r.content == body and r.headers["X-Cache"] == want
        r = s.get(p.url + "/b/k", headers={"Range": "bytes=5-9"}, timeout=30)
        assert r.status_code == 206 and r.content == body[5:10]
        assert s.head(p.url + "/b/k", timeout=30).headers["Content-Length"] == str(SIZE)
        assert s.get(p.url + "/b/k", headers={"If-None-Match": o.etag}, timeout=30).status_code == 304
        assert s.put(p.url + "/b/new", data=b"new", timeout=30).status_code == 200
        assert s.put(p.url + "/b/gen", data=(b"x" * 1000 for _ in range(100)), timeout=30).status_code == 200
        assert origin.objects["/b/gen"].size == 100000
        assert s.get(p.url + "/b/new", timeout=30).content == b"new"
        assert s.delete(p.url + "/b/new", timeout=30).status_code == 204
        assert s.get(p.url + "/b/new", timeout=30).status_code == 404
        with s.get(p.url + "/b/k", stream=True, timeout=30) as r:   # left half-way
            next(r.iter_content(1000))
        assert s.get(p.url + "/b/k", timeout=30).content == body


def test_httpx(http, origin):
    p = http()
    origin.put("/b/k", SIZE)
    with httpx.Client(timeout=30) as c:
        for _ in range(2):
            assert c.get(p.url + "/b/k").content == content("/b/k", 1, 0, SIZE)
        assert c.get(p.url + "/b/k", headers={"Range": "bytes=0-0"}).status_code == 206
