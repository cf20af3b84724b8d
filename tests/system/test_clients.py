"""curl, wget, requests, httpx, nghttp and h2load, as people use them, each over every protocol that it speaks."""
import asyncio
import os
import shutil
import subprocess

import httpx
import net
import pytest
import requests
from content import Checker, content

MIB = 1 << 20
SIZE = 9 * MIB + 77


def run(*argv, code=0):
    if not shutil.which(argv[0]):
        if os.environ.get("CI"):
            pytest.fail("%s is required in CI" % argv[0])
        pytest.skip("no " + argv[0])
    r = subprocess.run(argv, capture_output=True, timeout=60 * net.SLOW, stdin=subprocess.DEVNULL)
    assert code is None or r.returncode == code, (argv, r.returncode, r.stderr[-2000:])
    return r


@pytest.fixture
def curl(way):
    """curl(...) runs it in this test's protocol."""
    protocol = {"h1": "--http1.1", "h1tls": "--http1.1", "h2c": "--http2-prior-knowledge", "h2tls": "--http2"}[way.name]

    def begin(*argv, **kw):
        return run("curl", "-q", *begin.options, *argv, **kw)
    begin.options = ["-sS", protocol, "--cacert", str(way.pki.ca)]
    return begin


def httpx_options(p):
    return dict(base_url=p.url, http1=not p.way.two, http2=p.way.two, verify=p.way.context or False, trust_env=False,
                timeout=httpx.Timeout(30 * net.SLOW, pool=None), limits=httpx.Limits(max_connections=16))


def of_its_way(p, r):
    assert r.http_version == ("HTTP/2" if p.way.two else "HTTP/1.1")
    return r


def test_curl(http, origin, tmp_path, curl):
    p = http()
    o = origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    url = p.url + "/b/k"
    assert curl("-f", url).stdout == body
    version = curl("-f", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", url).stdout
    assert version == (b"2 200" if p.way.two else b"1.1 200")
    assert curl("-f", "-r", "100-199", url).stdout == body[100:200]
    assert curl("-f", "-r", "-50", url).stdout == body[-50:]
    head = curl("-fI", url).stdout.decode().lower()
    assert "content-length: %d" % SIZE in head and "x-cache: hit" in head
    assert curl("-o", "/dev/null", "-w", "%{http_code}", "-H", "If-None-Match: " + o.etag, url).stdout == b"304"
    part = tmp_path / "part"
    part.write_bytes(body[:1000000])
    curl("-f", "-C", "-", "-o", str(part), url)
    assert part.read_bytes() == body
    curl("-f", "-T", str(part), p.url + "/b/new")
    assert origin.objects["/b/new"].data == body
    curl("-f", "-X", "DELETE", p.url + "/b/new")
    assert curl("-f", p.url + "/b/new", code=22)
    big = tmp_path / "big"   # an Expect: 100-continue upload
    big.write_bytes(b"x" * (2 * MIB))
    curl("-f", "-H", "Expect: 100-continue", "-T", str(big), p.url + "/b/big")
    if not p.way.two:
        assert curl("-f", "--http1.0", url).stdout == body
        curl("-f", "-H", "Transfer-Encoding: chunked", "-T", str(part), p.url + "/b/chunked")
        assert origin.objects["/b/chunked"].data == body


NO_PRIOR = pytest.mark.ways("h1", "h1tls", "h2tls")   # curl 7.88 cannot use such a connection again, not that of nghttpd either


@NO_PRIOR
def test_curl_reuses_its_connection(http, origin, curl):
    p = http()
    origin.put("/b/k", 1000)
    r = curl("-o", "/dev/null", "-o", "/dev/null", "-w", "%{num_connects} ", p.url + "/b/k", p.url + "/b/k")
    assert r.stdout == b"1 0 "


@pytest.mark.ways("h1")
def test_curl_as_a_client_of_an_http_proxy_and_asking_for_an_upgrade(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    r = run("curl", "-q", "-sSf", "-x", p.url, "http://somewhere.test/b/k")   # absolute-form
    assert r.stdout == content("/b/k", 1, 0, 1000)
    r = run("curl", "-q", "-sSf", "--http2", "-w", "%{stderr}%{http_version}", p.url + "/b/k")   # Upgrade: h2c
    assert r.stdout == content("/b/k", 1, 0, 1000) and r.stderr == b"1.1"


@NO_PRIOR
def test_curl_parallel_ranges(http, origin, curl):
    p = http()
    origin.put("/b/k", SIZE)
    r = curl("-Z", *sum((["-f", "-r", "%d-%d" % (i * MIB, (i + 1) * MIB - 1), "-o", "/dev/null", p.url + "/b/k", "--next",
                          *curl.options] for i in range(7)), []), "-f", "-r", "7340032-8388607", "-o", "/dev/null",
             p.url + "/b/k")
    assert r.returncode == 0
    assert origin.bytes_sent() <= SIZE


@pytest.mark.ways("h1", "h1tls")
def test_wget(http, origin, tmp_path):
    p = http()
    ca = ["--ca-certificate", p.ca] if p.ca else []
    origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    out = tmp_path / "out"
    run("wget", *ca, "-q", "-O", str(out), p.url + "/b/k")
    assert out.read_bytes() == body
    part = tmp_path / "k"
    part.write_bytes(body[:12345])
    run("wget", *ca, "-q", "-c", "-P", str(tmp_path), p.url + "/b/k")
    assert part.read_bytes() == body
    assert run("wget", *ca, "-q", "-O", "/dev/null", p.url + "/b/none", code=None).returncode == 8


@pytest.mark.ways("h1", "h1tls")
def test_requests(http, origin):
    p = http()
    o = origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    with requests.Session() as s:
        s.verify = p.ca or True
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
    o = origin.put("/b/k", SIZE)
    body = content("/b/k", 1, 0, SIZE)
    with httpx.Client(**httpx_options(p)) as c:
        for want in ("MISS", "HIT"):
            r = of_its_way(p, c.get("/b/k"))
            assert r.content == body and r.headers["x-cache"] == want
        assert c.get("/b/k", headers={"Range": "bytes=0-0"}).status_code == 206
        assert c.head("/b/k").headers["content-length"] == str(SIZE)
        assert c.get("/b/k", headers={"If-None-Match": o.etag}).status_code == 304
        assert c.put("/b/new", content=b"new").status_code == 200
        assert c.put("/b/gen", content=(b"x" * 1000 for _ in range(100))).status_code == 200
        assert origin.objects["/b/gen"].size == 100000
        assert c.get("/b/new").content == b"new"
        assert c.delete("/b/new").status_code == 204
        assert c.get("/b/new").status_code == 404
        assert c.get("/b/k", headers={"X-%d" % i: "x" * 8000 for i in range(9)}).status_code == 431
        with c.stream("GET", "/b/k") as r:   # left half-way
            next(r.iter_raw(1000))
        assert c.get("/b/k").content == body


def test_httpx_64_downloads_at_once_on_few_connections(http, origin):
    p = http()
    sizes = [1 + i * 7919 for i in range(64)]
    for i, n in enumerate(sizes):
        origin.put("/b/%d" % i, n)
    before = p.stats()["connections"]["accepted"]

    async def one(c, i):
        check = Checker("/b/%d" % i)
        async with c.stream("GET", check.path) as r:
            assert of_its_way(p, r).status_code == 200
            async for data in r.aiter_raw():
                check.feed(data)
        assert check.position == sizes[i]

    async def all_twice():
        async with httpx.AsyncClient(**httpx_options(p)) as c:
            for _ in range(2):
                await asyncio.gather(*(one(c, i) for i in range(64)))
    asyncio.run(all_twice())   # not threads: httpx then sends stream ids out of order, which RFC 9113 5.1.1 forbids
    assert p.stats()["connections"]["accepted"] - before <= 17
    assert origin.bytes_sent() == sum(sizes)


@pytest.mark.ways("h2c", "h2tls")
def test_nghttp(http, origin):
    p = http()
    origin.put("/b/k", 300000)
    for windows in (("-w", "20", "-W", "24"), ("-w", "16", "-W", "16")):
        r = run("nghttp", "--no-verify-peer", *windows, p.url + "/b/k")
        assert r.stdout == content("/b/k", 1, 0, 300000), r.stderr


def test_h2load(http, origin):
    p = http()
    origin.put("/b/k", 20000)
    r = run("h2load", "-n", "2000", "-c", "10", *(["-m", "100"] if p.way.two else ["--h1"]), p.url + "/b/k")
    out = r.stdout.decode()
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in out, out
    assert "status codes: 2000 2xx" in out and origin.count("/b/k") == 1
