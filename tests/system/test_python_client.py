"""The Python client's reading, writing, listing and deleting, through the proxy, before real S3 servers."""
import hashlib
import io
import os
import tracemalloc

import net
import numpy
import pytest
from content import content
from pyserved import each_served, new_bucket, served, served_moto, served_versitygw  # noqa: F401 - fixtures

from s3dlio_proxy import Client, ObjectInfo, errors  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
MIB = 1 << 20
PART = 5 * MIB

# What both servers can hold. More, which only a server without directories can, is below.
ODD = ["a b", "a+b", "p%41q", "ü/ñ/日本", "q?x=1&y", "#f", "&<>'\"", "(x)!*'", "~t", "a=b;c:@,$", "\u2028", "dot.", ".hidden", "...", "a\tb"]
ODDER = ["a//b", "//", "a/./b", "a/../b", "./x", "../x", "..", ".", "a/", "\x7f"]


@pytest.fixture
def there(each_served, request):  # noqa: F811
    """(client through a proxy, s3://bucket/)"""
    return Client(each_served.url), "s3://%s/" % new_bucket(each_served, request.node.name)


@pytest.fixture
def moto(served, request):  # noqa: F811
    return Client(served.url), "s3://%s/" % new_bucket(served, request.node.name)


def noise(n, seed="x"):
    return content("/py/" + seed, 1, 0, n)


def round_trip(c, b, keys):
    for n, k in enumerate(keys):
        data = b"%d " % n + k.encode()
        r = c.put(b + k, data)
        assert r.uri == b + k and r.size == len(data) and r.parts == 0
        assert c.get(b + k) == data, k
        assert c.get_range(b + k, 1, 2) == data[1:3] and c.stat(b + k).size == len(data) and c.exists(b + k)
    listed = {o.uri: o for o in c.list(b)}
    assert set(listed) == {b + k for k in keys}
    assert [o.key for o in c.list(b)] == sorted(keys, key=str.encode)
    assert all(o.last_modified.tzinfo and o.etag.startswith('"') for o in listed.values())
    assert c.delete(list(listed)) == len(keys) and list(c.list(b)) == []


def test_odd_keys_are_kept_as_they_are(there):
    round_trip(*there, ODD)


def test_keys_of_slashes_dots_and_line_ends_are_kept_as_they_are(moto):
    round_trip(*moto, ODD + ODDER)


def test_the_path_is_sent_as_it_is(origin):
    c = Client(origin.url + "/base/")
    for key, path in (("a/../b/./c//d/", "a/../b/./c//d/"), ("..", ".."), (" +%?#~", "%20%2B%25%3F%23~"), ("a\r\nb\0", "a%0D%0Ab%00"), ("ü\udcff", "%C3%BC%FF")):
        with pytest.raises(errors.NoSuchKeyError) as e:
            c.get("s3://b/" + key)
        assert "\n" not in str(e.value)
        assert origin.log()[-1].target == "/base/b/" + path


@pytest.mark.parametrize("uri", ["", "b/k", "/b/k", "http://b/k", "s3:/b/k", "s3://", "s3:///k", "s3://b", "s3://b/", "s3://b c/k",
                                 "s3://../k", "s3://ü/k"])
def test_what_is_no_object_is_refused_before_anything_is_sent(origin, uri):
    c = Client(origin.url)
    for call in (c.get, c.stat, c.exists, c.delete, lambda u: c.put(u, b""), lambda u: c.readinto(u, bytearray(1)),
                 lambda u: c.open(u, "wb"), lambda u: c.get_range(u, 0), lambda u: list(c.get_many([u]))):
        with pytest.raises(ValueError, match="expected s3://bucket/key"):
            call(uri)
    assert origin.count() == 0


# ---- reading

def test_ranges(there):
    c, b = there
    data = noise(100_000)
    c.put(b + "k", data)
    assert c.get_range(b + "k", 0) == data and c.get_range(b + "k", 99_999) == data[-1:]
    assert c.get_range(b + "k", 500, 1) == data[500:501] and c.get_range(b + "k", 99_000, 5000) == data[99_000:]
    assert c.get_range(b + "k", -10) == data[-10:] and c.get_range(b + "k", -200_000) == data
    assert c.get_range(b + "k", 7, 0) == b""
    with pytest.raises(errors.RangeError) as e:
        c.get_range(b + "k", 100_000)
    assert e.value.status == 416 and e.value.code == "InvalidRange" and e.value.size == 100_000
    for bad in ((-5, 2), (0, -1)):
        with pytest.raises(ValueError):
            c.get_range(b + "k", *bad)


def test_an_empty_object(there):
    c, b = there
    c.put(b + "empty", b"")
    assert c.get(b + "empty") == b"" and c.stat(b + "empty").size == 0
    assert c.readinto(b + "empty", bytearray(5)) == 0 and c.open(b + "empty").read() == b""
    with pytest.raises(errors.RangeError):
        c.get_range(b + "empty", 0, 1)
    assert [x for _, x in c.get_many([b + "empty"] * 3)] == [b""] * 3


def test_readinto_fills_what_can_be_written_to(there):
    c, b = there
    data = noise(MIB + 17)
    c.put(b + "k", data)
    whole = bytearray(len(data))
    assert c.readinto(b + "k", whole) == len(data) and whole == data
    part = bytearray(100)
    assert c.readinto(b + "k", memoryview(part)[10:20], offset=1000) == 10
    assert part == bytes(10) + data[1000:1010] + bytes(80)
    table = numpy.zeros((64, 100), dtype=numpy.float32)
    assert c.readinto(b + "k", table, offset=3) == table.nbytes and table.tobytes() == data[3:3 + table.nbytes]
    records = numpy.zeros(50, dtype=[("a", ">i4"), ("b", "S3")])
    assert c.readinto(b + "k", records) == 350 and records.tobytes() == data[:350]
    big = numpy.zeros(10, dtype=">u8")
    assert c.readinto(b + "k", big[2:4]) == 16 and big[2:4].tobytes() == data[:16] and not big[4:].any()
    longer = bytearray(100)
    assert c.readinto(b + "k", longer, offset=len(data) - 7) == 7 and longer == data[-7:] + bytes(93)
    for offset in (len(data), len(data) + 1):
        assert c.readinto(b + "k", longer, offset=offset) == 0
    assert c.readinto(b + "k", bytearray()) == 0 and c.readinto(b + "k", numpy.zeros((0, 3))) == 0


def test_readinto_refuses_what_it_cannot_fill(served):  # noqa: F811
    c = Client(served.url)
    for bad in (b"bytes", memoryview(bytes(5)), numpy.zeros((4, 4))[:, 1], numpy.asfortranarray(numpy.zeros((4, 4))), "text", 5):
        with pytest.raises(TypeError):
            c.readinto("s3://b/k", bad)
    with pytest.raises(ValueError):
        c.readinto("s3://b/k", bytearray(5), offset=-1)


def traced_peak(run):
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_second_copy_of_a_body_is_ever_made(http, origin, tmp_path):
    p = http()
    size = 32 * MIB
    origin.put("/b/k", size, etag='"no-sum"')
    c, buffer = Client(p.url), bytearray(size)
    c.readinto("s3://b/k", buffer)
    assert buffer == content("/b/k", 1, 0, size)
    assert traced_peak(lambda: c.readinto("s3://b/k", buffer)) < MIB
    assert traced_peak(lambda: c.get("s3://b/k")) < size + MIB
    assert traced_peak(lambda: c.open("s3://b/k").read()) < 2 * size + MIB   # BufferedReader's own joining
    assert traced_peak(lambda: c.open("s3://b/k").readinto(buffer)) < MIB
    assert traced_peak(lambda: c.download("s3://b/k", tmp_path / "f")) < 6 * MIB
    assert c.get("s3://b/k") == buffer == (tmp_path / "f").read_bytes()


def test_stat_tells_what_the_server_knows(there):
    c, b = there
    c.put(b + "k", b"hello", content_type="text/x-test", metadata={"Author": "me", "n": "1 2"}, headers={"Cache-Control": "max-age=60"})
    o = c.stat(b + "k")
    assert isinstance(o, ObjectInfo) and (o.uri, o.bucket, o.key, o.size) == (b + "k", b[5:-1], "k", 5)
    assert o.etag == '"%s"' % hashlib.md5(b"hello").hexdigest() and o.content_type == "text/x-test"
    assert o.metadata == {"author": "me", "n": "1 2"} and o.headers["cache-control"] == "max-age=60"
    assert o.last_modified.year > 2000 and o.cache in ("HIT", "MISS") and not o.is_prefix
    with pytest.raises(errors.NotFoundError) as e:
        c.stat(b + "none")
    assert e.value.status == 404 and isinstance(e.value, FileNotFoundError) and not c.exists(b + "none")


def test_versions_of_an_object(moto, served):  # noqa: F811
    c, b = moto
    served.backend.direct.put_bucket_versioning(Bucket=b[5:-1], VersioningConfiguration={"Status": "Enabled"})
    old, new = c.put(b + "k", b"old one"), c.put(b + "k", b"new")
    assert old.version_id and new.version_id and old.version_id != new.version_id
    assert c.get(b + "k") == b"new" and c.get(b + "k", version_id=old.version_id) == b"old one"
    assert c.stat(b + "k", version_id=old.version_id).size == 7
    assert c.open(b + "k", version_id=old.version_id).read() == b"old one"
    with pytest.raises(errors.ObjectChangedError):
        c.get_range(b + "k", 0, 2, etag=old.etag)


def test_past_the_cache_only_where_the_route_allows_it(http, origin):
    p = http()
    origin.put("/b/k", 100)
    for use in ("bypass", "refresh"):
        with pytest.raises(errors.AccessDeniedError):
            Client(p.url).get("s3://b/k", cache=use)
    p = http(server={"routes": [{"path": "/_s3dlio/", "handler": "admin"},
                                {"path": "/", "origin": "o", "cache": "main", "cache_header": "all"}]})
    c = Client(p.url)
    for _ in range(2):
        assert c.get("s3://b/k") == content("/b/k", 1, 0, 100) and c.stat("s3://b/k").cache == "HIT"
    had = origin.count()
    assert c.get("s3://b/k", cache="bypass") and c.stat("s3://b/k", cache="bypass").cache == "BYPASS"
    assert origin.count() == had + 2


# ---- listing

def test_a_listing_of_many_pages(there):
    c, b = there
    keys = ["d/%03d x+%%" % i for i in range(23)] + ["d/e/%d" % i for i in range(4)] + ["other"]
    for k in keys:
        c.put(b + k, k.encode())
    assert [o.key for o in c.list(b, page_size=5)] == sorted(keys)
    assert [o.key for o in c.list(b + "d/0", page_size=7)] == keys[:23]
    level = list(c.list(b + "d/", delimiter="/", page_size=6))
    assert [o.key for o in level] == keys[:23] + ["d/e/"] and [o.is_prefix for o in level] == [False] * 23 + [True]
    assert [(o.key, o.is_prefix) for o in c.list(b, delimiter="/")] == [("d/", True), ("other", False)]
    assert [o.key for o in c.list(b, start_after="d/e/1", page_size=2)] == ["d/e/2", "d/e/3", "other"]
    assert list(c.list(b + "nothing")) == [] and [o.size for o in c.list(b + "other")] == [5]


def test_a_listing_is_read_as_it_is_used(there):
    c, b = there
    for i in range(6):
        c.put(b + "k%d" % i, b"")
    before = c.stats()["requests"]["methods"]["GET"]
    it = c.list(b, page_size=2)
    assert next(it).key == "k0" and next(it).key == "k1"
    net.wait_until("it is counted", lambda: c.stats(since=None)["requests"]["methods"]["GET"] > before)
    c.delete(b + "k5")
    assert [o.key for o in it] == ["k2", "k3", "k4"]


def test_listing_what_is_not_there(there):
    c, _ = there
    with pytest.raises(errors.NoSuchBucketError) as e:
        list(c.list("s3://no-such-bucket-anywhere/x"))
    assert e.value.code == "NoSuchBucket" and e.value.status == 404 and isinstance(e.value, FileNotFoundError)
    for bad in (0, 1001):
        with pytest.raises(ValueError):
            c.list("s3://b/", page_size=bad)


def test_buckets(there):
    c, _ = there
    name = "made-" + os.urandom(4).hex()
    c.create_bucket(name)
    assert name in {x.name for x in c.list_buckets()} and next(x for x in c.list_buckets() if x.name == name).created.tzinfo
    c.put("s3://%s/k" % name, b"x")
    with pytest.raises(errors.ConflictError) as e:
        c.delete_bucket("s3://" + name)
    assert e.value.code == "BucketNotEmpty"
    c.delete("s3://%s/k" % name)
    c.delete_bucket("s3://" + name)
    assert name not in {x.name for x in c.list_buckets()}
    with pytest.raises(errors.NoSuchBucketError):
        c.delete_bucket(name)
    for bad in ("a/b", "", "s3://a/b", "ü"):
        with pytest.raises(ValueError):
            c.create_bucket(bad)


# ---- writing

class Slow(io.RawIOBase):
    """A stream that cannot seek and gives little at a time."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def readable(self):
        return True

    def read(self, n=-1):
        n = min(n, 300_001)
        data = self.data[self.at:self.at + n]
        self.at += len(data)
        return data


@pytest.mark.parametrize("size", [0, 1000, 2 * PART, 2 * PART + 1, 3 * PART + 12345])
def test_bytes_paths_and_files_of_all_sizes(there, tmp_path, size):
    c, b = there
    data = noise(size)
    (tmp_path / "f").write_bytes(b"skipped" + data)
    (tmp_path / "g").write_bytes(data)
    sources = {"bytes": data, "bytearray": bytearray(data), "view": memoryview(b"x" + data)[1:], "path": tmp_path / "g",
               "stream": Slow(data), "memory": io.BytesIO(data)}
    for name, source in sources.items():
        told = []
        r = c.put(b + name, source, part_size=PART, threads=3, metadata={"how": name},
                  progress=lambda done, total: told.append((done, total)))
        assert r.size == size and (r.parts > 1 or size <= 2 * PART)
        assert sorted(told) == told and told[-1][0] == size
        assert told[-1][1] == (None if name in ("stream", "memory") else size)
        o = c.stat(b + name)
        assert o.size == size and o.etag == r.etag and o.metadata == {"how": name}
        assert c.get(b + name) == data
    with open(tmp_path / "f", "rb") as f:
        f.seek(7)
        c.put(b + "rest", f, part_size=PART)
    assert c.get(b + "rest") == data
    table = numpy.frombuffer(data[:size // 8 * 8], dtype=numpy.float64)
    assert c.put(b + "table", table, part_size=PART).size == table.nbytes and c.get(b + "table") == table.tobytes()


def test_what_cannot_be_put_is_refused_before_anything_is_sent(origin, tmp_path):
    c = Client(origin.url)
    for bad in ("text", 5, None, io.StringIO("text"), numpy.zeros((4, 4))[:, 1]):
        with pytest.raises((TypeError, ValueError)):
            c.put("s3://b/k", bad)
    for bad in ({"part_size": PART - 1}, {"threads": 0}, {"metadata": {"n": "ü"}}, {"metadata": {"a b": "x"}},
                {"metadata": {"a": "x\r\ny: z"}}):
        with pytest.raises(ValueError):
            c.put("s3://b/k", b"x", **bad)
    for bad in (tmp_path / "none", tmp_path):
        with pytest.raises(OSError):
            c.put("s3://b/k", bad)
    assert origin.count() == 0


def test_upload_and_download_are_each_others_reverse(there, tmp_path):
    c, b = there
    data = noise(3 * PART)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/file").write_bytes(data)
    r = c.upload(tmp_path / "in/file", b + "dir/", part_size=PART)
    assert r.uri == b + "dir/file" and r.parts == 3
    told = []
    assert c.download(b + "dir/file", str(tmp_path), progress=lambda *x: told.append(x)) == len(data)
    assert (tmp_path / "file").read_bytes() == data and told[-1] == (len(data), len(data))
    assert c.download(b + "dir/file", tmp_path / "part", offset=100, length=50) == 50
    assert (tmp_path / "part").read_bytes() == data[100:150]
    c.upload(str(tmp_path / "part"), b + "small")
    assert c.get(b + "small") == data[100:150]
    assert sorted(os.listdir(tmp_path)) == ["file", "in", "part"]


def test_only_where_nothing_is(there):
    c, b = there
    assert c.put(b + "k", b"first", exclusive=True).size == 5
    with pytest.raises(errors.PreconditionFailedError):
        c.put(b + "k", b"second", exclusive=True)
    assert c.get(b + "k") == b"first"


def test_a_write_is_seen_at_once(there):
    c, b = there
    for n in range(3):
        c.put(b + "k", b"version %d" % n)
        assert c.get(b + "k") == b"version %d" % n == c.get(b + "k")
    c.delete(b + "k")
    assert not c.exists(b + "k")


# ---- deleting

def test_one_or_many_are_deleted_whether_they_are_there_or_not(there, monkeypatch):
    monkeypatch.setattr("s3dlio_proxy._listing.BATCH", 4)
    c, b = there
    for i in range(10):
        c.put(b + "k%d" % i, b"x")
    assert c.delete(b + "k0") == 1 and c.delete(b + "none") == 1
    assert c.delete(b + "k%d" % i for i in range(1, 9)) == 8
    assert [o.key for o in c.list(b)] == ["k9"] and c.delete([]) == 0


def test_failures_of_a_batch_are_told_one_by_one_and_the_rest_is_deleted(origin):
    origin.on(method="POST", status=200, body=b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error>"
              b"<Error><Key>c&amp;</Key><Code>InternalError</Code><Message>oh</Message></Error></DeleteResult>")
    origin.on(method="DELETE", path="/x/%01", status=403)
    with pytest.raises(errors.BatchError) as e:
        Client(origin.url).delete(["s3://x/a", "s3://x/b", "s3://x/c&", "s3://x/\x01"])
    assert {(f.uri, f.code) for f in e.value.errors} == {("s3://x/b", "AccessDenied"), ("s3://x/c&", "InternalError"), ("s3://x/\x01", None)}
    body = origin.log(method="POST")[0]
    assert body.query == "delete=" and body.body.count(b"<Key>") == 3 and b"<Key>c&amp;</Key>" in body.body
    assert origin.log(method="DELETE")[0].target == "/x/%01"


def test_a_batch_that_is_refused_is_a_failure_of_each(origin):
    origin.on(method="POST", status=403, body=b"<Error><Code>AccessDenied</Code><Message>no</Message><RequestId>r1</RequestId></Error>")
    with pytest.raises(errors.BatchError) as e:
        Client(origin.url).delete(["s3://x/a", "s3://x/b"])
    assert [(f.uri, f.status, f.code) for f in e.value.errors] == [("s3://x/a", 403, "AccessDenied"), ("s3://x/b", 403, "AccessDenied")]


# ---- the client itself

def test_the_endpoint_is_the_first_that_is_given(monkeypatch):
    monkeypatch.delenv("S3DLIO_PROXY_URL", raising=False)
    assert Client().url == "http://127.0.0.1:8080"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1/x/")
    assert Client().url == "http://127.0.0.1:1/x"
    monkeypatch.setenv("S3DLIO_PROXY_URL", "https://localhost:2")
    assert Client().url == "https://localhost:2" and Client("http://h").url == "http://h"


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://h", "http://", "http://h:x", "http://h:99999", "http://user:pw@h", "http://h/?q",
                                 "http://h/#f"])
def test_urls_that_are_none(url):
    with pytest.raises(ValueError, match="expected the URL") as e:
        Client(url or "http:")
    assert "pw" not in str(e.value)


@pytest.mark.parametrize("bad", [{"pool": 0}, {"timeout": 0}, {"timeout": (1, -1)}, {"retries": -1}, {"admin_path": "x"}])
def test_settings_that_cannot_be(bad):
    with pytest.raises(ValueError, match="expected"):
        Client("http://h", **bad)


@pytest.mark.ways("h1tls", "h2tls")
def test_https_is_verified(http, origin):
    origin.put("/b/k", MIB)
    p = http()
    assert Client(p.url, verify=p.ca).get("s3://b/k") == content("/b/k", 1, 0, MIB)
    buffer = bytearray(MIB)
    assert Client(p.url, verify=p.ca).readinto("s3://b/k", buffer) == MIB and buffer == content("/b/k", 1, 0, MIB)
    with pytest.raises(errors.ConnectionFailedError, match="TLS"):
        Client(p.url, retries=50).get("s3://b/k")   # and is not tried again: that would take minutes


@pytest.mark.ways("h1tls")
def test_the_environment_names_the_certificates(http, origin, monkeypatch):
    origin.put("/b/k", 10)
    p = http()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", p.ca)
    assert len(Client(p.url).get("s3://b/k")) == 10
