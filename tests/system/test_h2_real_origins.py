"""Real servers as HTTP/2 origins: nginx, nghttpd, and nghttpx in front of versitygw (signed S3 through HTTP/2)."""
import hashlib
import os
import shutil

import pytest
import raw
import servers
from conftest import CI, client, s3_origin
from content import content
from h2fixtures import MIB, SLICES, SMALL_PARTS, connections, protocol
from test_caching import together

pytestmark = pytest.mark.ways("h1")   # these are about the other side

SIZE = 20 * MIB + 11


def required(*programs):
    missing = [p for p in programs if not servers.program(p)]
    if missing and CI:
        pytest.fail("%s is required in CI: tests/run installs it" % missing)
    if missing:
        pytest.skip("no %s" % missing)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory, pki):
    s = servers.nginx_h2(tmp_path_factory.mktemp("nginx-h2"), *pki.server)
    yield s
    s.stop()


NGINX_WAYS = {"auto": ("https", "port", "auto"), "prior_knowledge_tls": ("https", "port", "prior-knowledge"),
              "prior_knowledge": ("http", "clear_port", "prior-knowledge"), "alpn_without_h2": ("https", "h1_port", "auto"),
              "off": ("https", "port", "off")}


@pytest.fixture(params=NGINX_WAYS)
def site(request, start, nginx, pki):
    """(proxy, path, directory, name of the way)"""
    name = "t" + os.urandom(4).hex()
    (nginx.root / name).mkdir()
    (nginx.root / name).chmod(0o777)
    scheme, port, mode = NGINX_WAYS[request.param]
    o = {"type": "http", "endpoint": "%s://127.0.0.1:%d" % (scheme, getattr(nginx, port)), "http2": mode, **SMALL_PARTS}
    if scheme == "https":
        o["tls"] = {"ca_file": str(pki.ca)}
    return start(o, cache=SLICES), "/" + name, nginx.root / name, request.param


def by_h2(way):
    return way in ("auto", "prior_knowledge_tls", "prior_knowledge")


def test_nginx_whole_ranges_conditions_errors(site):
    p, base, d, way = site
    (d / "k").write_bytes(content("/k", 1, 0, SIZE))
    (d / "empty").write_bytes(b"")
    for want in ("MISS", "HIT"):
        r = p.get(base + "/k")
        assert r.status == 200 and r.body == content("/k", 1, 0, SIZE) and r.get("x-cache") == want
        assert p.get(base + "/empty").body == b""
        r = p.get(base + "/k", {"Range": "bytes=9999999-10000008"})
        assert r.status == 206 and r.body == content("/k", 1, 9999999, 10)
        assert p.get(base + "/k", {"Range": "bytes=%d-" % SIZE}).status == 416
        assert p.get(base + "/k", {"If-None-Match": r.get("etag")}).status == 304
    assert p.get(base + "/none").status == 404
    assert p.get(base).status == 301
    assert (protocol(p)["h2_requests"] > 0) == by_h2(way)
    assert (connections(p)["h2"] > 0) == by_h2(way)
    assert {"auto": "h2 for small, http/1.1 for bulk", "alpn_without_h2": "http/1.1",
            "off": "http/1.1"}.get(way, "h2") == protocol(p)["choice"]


def test_nginx_many_files_across_its_goaways(site):
    """40 requests to a connection: what is refused or above the last stream comes again by itself; uploads too."""
    p, base, d, way = site
    for i in range(200):
        (d / ("k%d" % i)).write_bytes(content("/k", 1, i, 50000))

    def some(t):
        for i in range(t, 200, 10):
            assert p.get("%s/k%d" % (base, i)).body == content("/k", 1, i, 50000)
            if i % 4 == 0:
                r = p.fetch("PUT", "%s/up%d" % (base, i), body=content("/up", 1, i, 30000))
                assert r.status == 201, r
    together(p, 10, some)
    for i in range(0, 200, 4):
        assert (d / ("up%d" % i)).read_bytes() == content("/up", 1, i, 30000)
    if by_h2(way):
        assert protocol(p)["h2_goaways"] >= 3
    assert p.fetch("DELETE", base + "/up0").status == 204 and not (d / "up0").exists()


def test_nginx_big_uploads(site):
    p, base, d, way = site
    body = content("/up", 1, 0, SIZE)
    assert p.fetch("PUT", base + "/big", body=body).status == 201
    assert (d / "big").read_bytes() == body
    with p.conn() as c:
        c.request("PUT", base + "/chunked", {"Transfer-Encoding": "chunked", "Expect": "100-continue"})
        assert c.head().status == 100
        for at in range(0, 2 * MIB, 100000):
            c.send(b"%x\r\n" % len(body[at:at + 100000]) + body[at:at + 100000] + b"\r\n")
        c.send(b"0\r\n\r\n")
        assert c.response("PUT").status == 201
    assert (d / "chunked").read_bytes() == body[:21 * 100000]
    assert p.get(base + "/big").body == body


def test_nginx_a_listing_without_a_length(site, nginx):
    p, _, _, _ = site
    for i in range(300):
        (nginx.root / "list" / ("file%04d" % i)).write_bytes(b"")
    for _ in range(2):
        r = p.get("/list/")
        assert r.status == 200 and b"file0299" in r.body


@pytest.mark.parametrize("tls", [False, True], ids=["h2c", "h2_tls"])
def test_nghttpd_which_speaks_nothing_else_and_no_ranges(start, tmp_path, pki, tls):
    required("nghttpd")
    s = servers.nghttpd(tmp_path, *(pki.server if tls else ()))
    try:
        (s.root / "k").write_bytes(content("/k", 1, 0, SIZE))
        (s.root / "empty").write_bytes(b"")
        for i in range(100):
            (s.root / ("k%d" % i)).write_bytes(content("/k", 1, i, 3000 * i))
        o = {"type": "http", "endpoint": "http%s://127.0.0.1:%d" % ("s" if tls else "", s.port),
             "http2": "auto" if tls else "prior-knowledge", **({"tls": {"ca_file": str(pki.ca)}} if tls else {})}
        p = start(o)
        for want in ("MISS", "HIT"):
            r = p.get("/k")
            assert r.status == 200 and r.body == content("/k", 1, 0, SIZE) and r.get("x-cache") == want
        assert p.get("/k", {"Range": "bytes=5000000-5000009"}).body == content("/k", 1, 5000000, 10)
        assert p.get("/empty").body == b""
        assert p.get("/none").status == 404
        assert p.fetch("HEAD", "/k").get("content-length") == str(SIZE)

        def some(t):
            for i in range(t, 100, 10):
                assert p.get("/k%d" % i).body == content("/k", 1, i, 3000 * i)
        together(p, 10, some)
        stats = p.stats()["origins"]["o"]
        assert stats["protocol"]["h2_requests"] >= 102 and stats["connections"]["h2"] == stats["connections"]["open"]
    finally:
        s.stop()


@pytest.fixture(params=["h2c", "h2_tls", "auto"])
def s3_by_h2(request, start, versitygw_server, tmp_path, pki, bucket):
    """(proxy, boto3 client through it, boto3 client to versitygw, bucket): proxy - h2 - nghttpx - versitygw."""
    required("nghttpx")
    client(versitygw_server.url).create_bucket(Bucket=bucket)
    tls = request.param != "h2c"
    front = servers.nghttpx(tmp_path, versitygw_server.port, *(pki.server if tls else ()))
    over = {"http2": "auto" if request.param == "auto" else "prior-knowledge", **({"tls": {"ca_file": str(pki.ca)}} if tls else {})}
    p = start(s3_origin("http%s://127.0.0.1:%d" % ("s" if tls else "", front.port), **over))
    yield p, client(p.url), client(versitygw_server.url), bucket
    front.stop()


def test_s3_put_get_head_range_list_delete(s3_by_h2):
    p, c, direct, bucket = s3_by_h2
    body = content("/x", 1, 0, 300000)
    put = c.put_object(Bucket=bucket, Key="a/b c+d", Body=body, Metadata={"colour": "blue"})
    for _ in range(2):
        got = c.get_object(Bucket=bucket, Key="a/b c+d")
        assert got["Body"].read() == body and got["ETag"] == put["ETag"] and got["Metadata"] == {"colour": "blue"}
        got = c.get_object(Bucket=bucket, Key="a/b c+d", Range="bytes=1000-1999")
        assert got["Body"].read() == body[1000:2000]
    assert c.head_object(Bucket=bucket, Key="a/b c+d")["ContentLength"] == len(body)
    assert direct.get_object(Bucket=bucket, Key="a/b c+d")["Body"].read() == body
    for i in range(12):
        c.put_object(Bucket=bucket, Key="l/%02d" % i, Body=b"x" * i)
    pages = c.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="l/", PaginationConfig={"PageSize": 5})
    assert [o["Key"] for page in pages for o in page["Contents"]] == ["l/%02d" % i for i in range(12)]
    c.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "l/%02d" % i} for i in range(6)]})
    c.delete_object(Bucket=bucket, Key="a/b c+d")
    assert [o["Key"] for o in direct.list_objects_v2(Bucket=bucket)["Contents"]] == ["l/%02d" % i for i in range(6, 12)]
    with pytest.raises(c.exceptions.NoSuchKey):
        c.get_object(Bucket=bucket, Key="a/b c+d")
    assert protocol(p)["h2_requests"] >= 15 and p.stats()["origins"]["o"]["errors"]["protocol"] == 0


def test_s3_a_large_object_in_parts_both_ways(s3_by_h2):
    p, c, direct, bucket = s3_by_h2
    body = content("/x", 1, 0, 24 * MIB + 7)
    up = c.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
    parts = []

    def part(n):
        tag = c.upload_part(Bucket=bucket, Key="big", UploadId=up, PartNumber=n + 1, Body=body[n * 8 * MIB:(n + 1) * 8 * MIB])["ETag"]
        parts.append({"PartNumber": n + 1, "ETag": tag})
    together(p, 4, part)
    c.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=up,
                                MultipartUpload={"Parts": sorted(parts, key=lambda x: x["PartNumber"])})
    want = hashlib.sha256(body).digest()
    assert hashlib.sha256(direct.get_object(Bucket=bucket, Key="big")["Body"].read()).digest() == want
    for cache in ("MISS", "HIT"):
        got = c.get_object(Bucket=bucket, Key="big")
        assert got["ResponseMetadata"]["HTTPHeaders"]["x-cache"] == cache
        assert hashlib.sha256(got["Body"].read()).digest() == want
