"""The five conditional fields with RFC 9110's precedence, answered from the origin when cold and from the cache when warm."""
import pytest
from content import content

SIZE = 1000
OLD, SAME, NEW = ("Tue, 11 Oct 2022 17:50:00 GMT", "Wed, 12 Oct 2022 17:50:00 GMT", "Thu, 13 Oct 2022 17:50:00 GMT")


@pytest.fixture(params=["cold", "warm"])
def asked(http, origin, request):
    p = http()
    o = origin.put("/b/k", SIZE, etag='"tag"')
    if request.param == "warm":
        p.get("/b/k")
        origin.clear_log()

    def ask(fields, method="GET"):
        r = p.fetch(method, "/b/k", fields)
        if request.param == "warm":
            assert origin.count() == 0, "a cached object's preconditions are judged here"
        return r
    ask.etag = o.etag
    return ask


@pytest.mark.parametrize("fields,status", [
    ({"If-Match": '"tag"'}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"a", "tag"'}, 200),
    ({"If-Match": '"other"'}, 412),
    ({"If-Match": 'W/"tag"'}, 412),
    ({"If-None-Match": '"tag"'}, 304),
    ({"If-None-Match": 'W/"tag"'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"a","tag"'}, 304),
    ({"If-None-Match": '"other"'}, 200),
    ({"If-Modified-Since": OLD}, 200),
    ({"If-Modified-Since": SAME}, 304),
    ({"If-Modified-Since": NEW}, 304),
    ({"If-Modified-Since": "nonsense"}, 200),
    ({"If-Unmodified-Since": OLD}, 412),
    ({"If-Unmodified-Since": SAME}, 200),
    # precedence, RFC 9110 section 13.2.2
    ({"If-Match": '"tag"', "If-Unmodified-Since": OLD}, 200),
    ({"If-Match": '"other"', "If-None-Match": '"tag"'}, 412),
    ({"If-None-Match": '"other"', "If-Modified-Since": NEW}, 200),
    ({"If-None-Match": '"tag"', "If-Modified-Since": OLD}, 304),
    ({"If-Unmodified-Since": OLD, "If-None-Match": '"tag"'}, 412),
    ({"If-Match": '"tag"', "If-None-Match": '"tag"'}, 304),
])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_preconditions(asked, fields, status, method):
    r = asked(fields, method)
    assert r.status == status
    if status == 304:
        assert r.get("etag") == '"tag"' and not r.body
    if status == 412 and method == "GET":
        assert b"<Code>PreconditionFailed</Code>" in r.body
    if status == 200 and method == "GET":
        assert r.body == content("/b/k", 1, 0, SIZE)


@pytest.mark.parametrize("fields,status", [
    ({"If-Range": '"tag"'}, 206),
    ({"If-Range": '"other"'}, 200),
    ({"If-Range": 'W/"tag"'}, 200),
    ({"If-Range": SAME}, 206),
    ({"If-Range": OLD}, 200),
    ({"If-Range": NEW}, 200),
    ({"If-Match": '"other"'}, 412),
    ({"If-None-Match": '"tag"'}, 304),
    ({"If-Match": '"tag"'}, 206),
])
def test_range_with_a_precondition(asked, fields, status):
    r = asked({"Range": "bytes=10-19", **fields})
    assert r.status == status
    if status == 206:
        assert r.get("content-range") == "bytes 10-19/1000" and r.body == content("/b/k", 1, 10, 10)
    if status == 200:
        assert r.body == content("/b/k", 1, 0, SIZE)


def test_if_range_without_range_is_ignored(asked):
    r = asked({"If-Range": '"other"'})
    assert r.status == 200 and len(r.body) == SIZE


def test_a_cold_condition_does_not_spoil_the_entry(http, origin):
    p = http()
    origin.put("/b/k", SIZE, etag='"tag"')
    assert p.get("/b/k", {"If-None-Match": '"tag"'}).status == 304
    assert p.get("/b/k", {"If-Match": '"no"'}).status == 412
    p.get_checked("/b/k", SIZE)
    p.get_checked("/b/k", SIZE)
    assert p.get("/b/k", {"If-None-Match": '"tag"'}).status == 304


def test_crt_style_ranged_gets_with_if_match_are_served_from_the_cache(http, origin):
    p = http(cache={"slice_size": "64KiB"})
    size = 1 << 20
    origin.put("/b/k", size, etag='"tag"')
    p.get_checked("/b/k", size)
    origin.clear_log()
    assert p.fetch("HEAD", "/b/k").get("content-length") == str(size)
    for first in range(0, size, 256 << 10):
        p.get_checked("/b/k", size, first, 256 << 10, headers={"If-Match": '"tag"'})
    assert origin.count() == 0
