"""GET and HEAD of objects: the same bytes and the same fields cold and warm."""
import pytest
from content import content

KIB, MIB = 1 << 10, 1 << 20
SMALL = {"cache": {"slice_size": "64KiB"}, "o": {"fetch": {"part_size": "256KiB", "max_in_flight": 4}}}


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 256 * KIB, 256 * KIB + 1,
                                  3 * MIB + 12345])
def test_whole_object_is_right_cold_and_warm(http, origin, size):
    p = http(**SMALL)
    origin.put("/b/k", size)
    cold, _ = p.get_checked("/b/k", size)
    assert cold.get("content-length") == str(size)
    assert cold.get("x-cache") == "MISS"
    origin.clear_log()
    warm, _ = p.get_checked("/b/k", size)
    assert warm.get("x-cache") == "HIT"
    assert warm.get("content-length") == str(size)
    assert origin.count() == 0


def test_default_slices_and_parts(http, origin):
    p = http()
    size = 21 * MIB + 77
    origin.put("/b/k", size)
    p.get_checked("/b/k", size)
    p.get_checked("/b/k", size)
    p.get_checked("/b/k", size, 8 * MIB - 5, 10)
    assert origin.bytes_sent("/b/k") == size


def test_metadata_fields_are_replayed_cold_and_warm(http, origin):
    p = http()
    fields = {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "identity-ish",
              "Content-Disposition": 'attachment; filename="a b.bin"', "Content-Language": "en, fr",
              "Cache-Control": "max-age=600", "x-amz-meta-colour": "blue", "x-amz-meta-empty": "",
              "x-amz-version-id": "v123", "x-amz-storage-class": "STANDARD_IA",
              "x-amz-server-side-encryption": "AES256"}
    o = origin.put("/b/k", 1000, headers=fields)
    for want in ("MISS", "HIT"):
        r = p.get("/b/k")
        assert r.get("x-cache") == want
        for name, value in fields.items():
            assert value in r.all(name), (want, name, r)
        assert r.get("etag") == o.etag
        assert r.get("last-modified") == o.last_modified
        assert r.get("accept-ranges") == "bytes"


def test_request_ids_and_the_origins_server_are_not_replayed_from_the_cache(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    first = p.get("/b/k")
    second = p.get("/b/k")
    ids = origin.log()[0].conn, origin.log()[0].number
    assert second.get("x-amz-request-id") != "ORIGIN%d.%d" % ids
    assert second.get("date") and len(second.all("date")) == 1
    assert len(first.all("server")) <= 1 and len(second.all("server")) <= 1


def test_hop_by_hop_fields_of_the_origin_stay_there(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    origin.on(headers={"Connection": "X-Hop", "X-Hop": "secret", "Keep-Alive": "timeout=5", "X-Stays": "1",
                       "Proxy-Authenticate": "Basic"})
    for _ in range(2):
        r = p.get("/b/k")
        assert r.get("x-hop") is None and r.get("proxy-authenticate") is None
        assert "timeout=5" not in (r.get("keep-alive") or "")
        assert r.get("x-stays") == "1"


@pytest.mark.ways("h1", "h1tls")   # what HTTP/2 does about them is in test_every_protocol.py
def test_hop_by_hop_fields_of_the_client_are_not_sent_on(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k", {"Connection": "close, X-Hop", "X-Hop": "1", "Proxy-Authorization": "Basic x", "TE": "trailers",
                   "Keep-Alive": "5", "Proxy-Connection": "keep-alive", "Upgrade": "h2c", "X-Stays": "1"})
    rec = origin.log()[0]
    for name in ("x-hop", "proxy-authorization", "te", "keep-alive", "proxy-connection", "upgrade"):
        assert rec.get(name) is None, (name, rec.headers)
    assert len(rec.all("host")) == 1


def test_via_names_the_proxy_on_both_sides(http, origin):
    p = http()
    origin.put("/b/k", 10)
    for _ in range(2):
        assert "1.1 " in p.get("/b/k").get("via")


def test_head_of_a_cold_object_sends_no_body_and_asks_for_none(http, origin):
    p = http()
    origin.put("/b/k", 5 * MIB)
    r = p.fetch("HEAD", "/b/k")
    assert r.status == 200 and r.get("content-length") == str(5 * MIB)
    assert origin.bytes_sent() == 0


def test_head_is_answered_from_a_cached_get(http, origin):
    p = http()
    o = origin.put("/b/k", 5000, headers={"x-amz-meta-a": "1"})
    p.get("/b/k")
    origin.clear_log()
    with p.connect() as c:
        c.request("HEAD", "/b/k")
        r = c.response("HEAD")
        assert (r.status, r.get("content-length"), r.get("etag")) == (200, "5000", o.etag)
        assert r.get("x-cache") == "HIT" and r.get("x-amz-meta-a") == "1"
        c.request("HEAD", "/b/k", {"Range": "bytes=0-9"})
        r = c.response("HEAD")
        assert r.status in (200, 206)
        c.request("HEAD", "/b/k", {"If-None-Match": o.etag})
        assert c.response("HEAD").status == 304
    assert origin.count() == 0


def test_missing_object_is_the_origins_answer_and_not_remembered(http, origin):
    p = http()
    r = p.get("/b/none")
    assert r.status == 404 and b"NoSuchKey" in r.body
    assert p.fetch("HEAD", "/b/none").status == 404
    origin.put("/b/none", 10)
    assert p.get("/b/none").status == 200


@pytest.mark.parametrize("status", [403, 400, 409, 451])
def test_errors_of_the_origin_pass_as_they_came(http, origin, status):
    p = http()
    origin.put("/b/k", 10)
    origin.on(path="/b/k", times=2, status=status, body=b"<Error><Code>Special</Code></Error>",
              headers={"Content-Type": "application/xml", "x-amz-meta-why": "because"})
    for method in ("GET", "PUT"):
        r = p.fetch(method, "/b/k", body=b"x" if method == "PUT" else None)
        assert r.status == status and r.body == b"<Error><Code>Special</Code></Error>"
        assert r.get("x-amz-meta-why") == "because"
    assert p.get("/b/k").status == 200


@pytest.mark.parametrize("target", [
    "/b/a+b", "/b/a%20b", "/b/a%2Fb", "/b/!*'()", "/b/%E2%82%AC", "/b//double", "/b/x/./y", "/b/x/../y", "/b/dir/",
    "/b/per%25cent", "/b/a%2Bb", "/b/~tilde", "/b/semi;colon=1,2", "/b/%41BC", "/b/a:b@c&d=e$f", "/b/%e2%82%ac"])
def test_the_raw_path_is_the_key_and_goes_on_as_sent(http, origin, target):
    p = http()
    origin.put(target, 500)
    for want in ("MISS", "HIT"):
        r, _ = p.get_checked(target, 500)
        assert r.get("x-cache") == want
    assert [r.target for r in origin.log()] == [target]


def test_two_spellings_of_a_dotted_path_are_two_keys(http, origin):
    p = http()
    origin.put("/b/x/../y", 500)
    origin.put("/b/y", 500, version=2)
    p.get_checked("/b/x/../y", 500)
    p.get_checked("/b/y", 500, versions=(2,))


def test_query_selects_another_representation(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 100)
    for q in ("versionId=1", "versionId=2", "response-content-type=text/a", "partNumber=1"):
        origin.on(path="/b/k", when=lambda r, q=q: r.query == q, status=200, body=q.encode(),
                  headers={"ETag": '"e"', "Cache-Control": "max-age=60"})
    for _ in range(2):
        for q in ("versionId=1", "versionId=2", "response-content-type=text/a", "partNumber=1"):
            assert p.get("/b/k?" + q).body == q.encode()
        assert p.get("/b/k").body == content("/b/k", 1, 0, 100)


@pytest.mark.parametrize("sub", ["acl", "tagging", "uploads", "attributes", "legal-hold", "retention", "torrent"])
def test_subresources_pass_through_and_are_not_cached(s3ish, origin, sub):
    p = s3ish()
    origin.put("/b/k", 100)
    origin.on(path="/b/k", when=lambda r: r.query == sub, status=200, body=b"<sub/>",
              headers={"ETag": '"e"', "Cache-Control": "max-age=60"})
    for _ in range(2):
        r = p.get("/b/k?" + sub)
        assert r.body == b"<sub/>" and r.get("x-cache") == "BYPASS"
    assert origin.count("/b/k") == 2


def test_a_plain_http_origin_has_no_subresources(http, origin):
    """There a query is part of the key like any other."""
    p = http()
    origin.on(path="/b/k", status=200, body=b"answer", headers={"Cache-Control": "max-age=60"})
    assert [p.get("/b/k?acl").get("x-cache") for _ in range(2)] == ["MISS", "HIT"]
    assert p.get("/b/k?tagging").get("x-cache") == "MISS"


def test_listings_pass_through_and_are_not_cached(s3ish, origin):
    p = s3ish()
    origin.on(path="/b", status=200, body=b"<ListBucketResult/>", headers={"Content-Type": "application/xml"})
    for _ in range(2):
        assert p.get("/b?list-type=2&prefix=a%2Fb").body == b"<ListBucketResult/>"
    assert [r.target for r in origin.log("/b")] == ["/b?list-type=2&prefix=a%2Fb"] * 2


def test_customer_key_encryption_bypasses_the_cache(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 100)
    key = {"x-amz-server-side-encryption-customer-algorithm": "AES256",
           "x-amz-server-side-encryption-customer-key": "a2V5", "x-amz-server-side-encryption-customer-key-MD5": "bWQ1"}
    for _ in range(2):
        r = p.get("/b/k", key)
        assert r.status == 200 and r.get("x-cache") == "BYPASS"
    assert origin.count() == 2
    assert origin.log()[1].get("x-amz-server-side-encryption-customer-key") == "a2V5"


def test_checksums_are_replayed_on_whole_objects_and_dropped_from_ranges(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000, headers={"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-type": "FULL_OBJECT"})
    mode = {"x-amz-checksum-mode": "ENABLED"}
    for _ in range(2):
        assert p.get("/b/k", mode).get("x-amz-checksum-crc32") == "AAAAAA=="
    r = p.get("/b/k", {"Range": "bytes=0-9", **mode})
    assert r.status == 206 and r.get("x-amz-checksum-crc32") is None


def test_checksum_mode_after_a_fetch_without_it_asks_the_origin(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000)
    asked = lambda r: (r.get("x-amz-checksum-mode") or "").upper() == "ENABLED"
    origin.on(path="/b/k", when=asked, headers={"x-amz-checksum-crc32": "AAAAAA=="})
    assert p.get("/b/k", {"Range": "bytes=0-9"}).get("x-amz-checksum-crc32") is None
    assert p.get("/b/k", {"x-amz-checksum-mode": "ENABLED"}).get("x-amz-checksum-crc32") == "AAAAAA=="


def test_an_object_without_etag_or_length_still_arrives(http, origin):
    p = http()
    origin.put("/b/noetag", 3 * MIB, etag="")
    origin.put("/b/chunked", 3 * MIB)
    origin.put("/b/untilclose", 3 * MIB)
    origin.on(path="/b/chunked", ignore_range=True, chunked=True)
    origin.on(path="/b/untilclose", ignore_range=True, until_close=True)
    for path in ("/b/noetag", "/b/chunked", "/b/untilclose"):
        for _ in range(2):
            p.get_checked(path, 3 * MIB)


def test_an_origin_that_ignores_ranges_is_read_once_and_whole(http, origin):
    p = http(**SMALL)
    size = 3 * MIB + 5
    origin.put("/b/k", size)
    origin.on(path="/b/k", ignore_range=True)
    p.get_checked("/b/k", size)
    p.get_checked("/b/k", size)
    p.get_checked("/b/k", size, MIB + 7, 100)
    assert origin.bytes_sent() <= 2 * size


def test_a_range_from_an_origin_that_ignores_ranges(http, origin):
    p = http(**SMALL)
    size = 3 * MIB + 5
    origin.put("/b/k", size)
    origin.on(path="/b/k", ignore_range=True)
    p.get_checked("/b/k", size, MIB + 7, 100)
    p.get_checked("/b/k", size, 5, 100)


def test_weak_etag_is_kept_but_never_used_as_if_match(http, origin):
    p = http(**SMALL)
    size = MIB
    origin.put("/b/k", size, etag='W/"weak"')
    for _ in range(2):
        r, _v = p.get_checked("/b/k", size)
        assert r.get("etag") == 'W/"weak"'
    assert all(r.get("if-match") is None for r in origin.log())


def test_objects_larger_than_the_cache_stream_through(http, origin):
    """16 MiB of cache, 48 MiB of object."""
    p = http(cache={"memory": "16MiB", "slice_size": "256KiB"}, o={"fetch": {"part_size": "1MiB"}})
    origin.put("/b/k", 48 * MIB)
    for _ in range(2):
        p.get_checked("/b/k", 48 * MIB, timeout=60)
    used = p.stats()["caches"]["main"]["memory"]
    assert used["used"] <= used["capacity"] <= 16 * MIB
