"""S3dlio-Cache: bypass | refresh - a client asks to be served past the cache, or for the object to be fetched anew; where the
route lets it."""
import threading

import net
import pytest
from content import Checker

pytestmark = pytest.mark.ways("h1", "h2c", "h2tls", san=("h1",))
KIB = 1 << 10
ASKING = {"S3dlio-Cache": "bypass"}, {"S3dlio-Cache": "Refresh"}


def routed(http, allowed, **kw):
    route = {"path": "/", "origin": "o", "auth": "none", "cache": "main", **({"cache_header": allowed} if allowed else {})}
    return http(server={"routes": [{"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]}, route]}, **kw)


def seen(origin, path="/b/k"):
    for r in origin.log(path):
        assert not any(n.lower() == "s3dlio-cache" for n, _ in r.headers)
    return origin.count(path)


def test_bypass_goes_past_the_cache_and_leaves_it_alone(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 100 * KIB)
    for _ in range(2):
        r = p.get_checked("/b/k", 100 * KIB, headers=ASKING[0])[0]
        assert r.get("x-cache") == "BYPASS" and "fwd=bypass" in r.get("cache-status")
    assert seen(origin) == 2
    p.get_checked("/b/k", 100 * KIB)
    assert seen(origin) == 3, "nothing was stored"
    r = p.get_checked("/b/k", 100 * KIB)[0]
    assert r.get("x-cache") == "HIT" and seen(origin) == 3
    origin.put("/b/k", 100 * KIB, version=2)
    assert p.get_checked("/b/k", 100 * KIB, headers=ASKING[0], versions=(2,))[0].get("x-cache") == "BYPASS"
    assert p.get_checked("/b/k", 100 * KIB, versions=(1,))[0].get("x-cache") == "HIT"
    assert p.fetch("HEAD", "/b/k", headers=ASKING[0]).get("x-cache") == "BYPASS"


def test_refresh_fetches_anew_and_stays(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 300 * KIB)
    p.get_checked("/b/k", 300 * KIB)
    before = origin.bytes_sent("/b/k")
    r = p.get_checked("/b/k", 300 * KIB, headers=ASKING[1])[0]
    assert r.get("x-cache") != "HIT" and origin.bytes_sent("/b/k") - before >= 300 * KIB, "not even the same version is kept"
    assert not any(n.lower() == "if-none-match" for r in origin.log("/b/k") for n, _ in r.headers)
    origin.put("/b/k", 300 * KIB, version=2)
    assert p.get_checked("/b/k", 300 * KIB, versions=(1,))[0].get("x-cache") == "HIT"
    p.get_checked("/b/k", 300 * KIB, headers=ASKING[1], versions=(2,))
    count = seen(origin)
    assert p.get_checked("/b/k", 300 * KIB, versions=(2,))[0].get("x-cache") == "HIT" and seen(origin) == count


def test_refresh_of_what_is_not_there_is_a_miss(http, origin):
    p = routed(http, "refresh")
    origin.put("/b/k", 10)
    assert p.get_checked("/b/k", 10, headers=ASKING[1])[0].get("x-cache") == "MISS"
    assert p.get_checked("/b/k", 10)[0].get("x-cache") == "HIT"


def test_a_refresh_that_fails_leaves_what_is_there(http, origin):
    p = routed(http, "all", o={"retry": {"attempts": 1}})
    origin.put("/b/k", 10)
    p.get_checked("/b/k", 10)
    rule = origin.on(path="/b/k", status=503)
    assert p.get("/b/k", headers=ASKING[1]).status == 503
    origin.rules.remove(rule)
    assert p.get_checked("/b/k", 10)[0].get("x-cache") == "HIT"


@pytest.mark.parametrize("allowed", [None, "off", "bypass", "refresh"])
@pytest.mark.parametrize("asked", ASKING)
def test_it_is_refused_unless_the_route_allows_it(http, origin, allowed, asked):
    p = routed(http, allowed)
    origin.put("/b/k", 10)
    r = p.get("/b/k", headers=asked)
    if asked["S3dlio-Cache"].lower() == allowed:
        assert r.status == 200
    else:
        assert r.status == 403 and b"<Code>AccessDenied</Code>" in r.body and b"S3dlio-Cache" in r.body
        assert origin.count() == 0
    assert p.get("/_s3dlio/health", headers=asked).status == 200


def test_another_value_is_400(http, origin):
    p = routed(http, "all")
    r = p.get("/b/k", headers={"S3dlio-Cache": "sometimes"})
    assert r.status == 400 and b"<Code>InvalidArgument</Code>" in r.body and origin.count() == 0


def test_more_than_one_field_is_400(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 10)
    for fields in ([("S3dlio-Cache", "bypass")] * 2, [("S3dlio-Cache", "refresh"), ("S3dlio-Cache", "bypass")],
                   [("S3dlio-Cache", "")], [("S3dlio-Cache", "bypass, refresh")]):
        assert p.get("/b/k", headers=fields).status == 400
    assert origin.count() == 0


def test_a_range_and_a_condition_are_kept(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 300 * KIB)
    etag = p.get("/b/k").get("etag")
    for how in ("bypass", "refresh"):
        r, _ = p.get_checked("/b/k", 300 * KIB, first=100000, length=100, headers={"S3dlio-Cache": how})
        assert r.status == 206 and r.get("x-cache") != "HIT"
        assert p.get("/b/k", headers={"S3dlio-Cache": how, "If-None-Match": etag}).status == 304
        assert p.get("/b/k", headers={"S3dlio-Cache": how, "If-Match": '"other"'}).status == 412
    assert p.fetch("HEAD", "/b/k", headers=ASKING[1]).get("content-length") == str(300 * KIB)
    seen(origin)


def test_writes_do_what_they_do_without_it(http, origin):
    p = routed(http, "all")
    for how in ("bypass", "refresh"):
        origin.put("/b/k", 10)
        p.get("/b/k")
        assert p.get("/b/k").get("x-cache") == "HIT"
        assert p.fetch("PUT", "/b/k", headers={"S3dlio-Cache": how}, body=b"other").status == 200
        assert p.get("/b/k").body == b"other", "what was cached is not served any more"
        seen(origin)
    p = routed(http, None)
    count = origin.count()
    assert p.fetch("PUT", "/b/k", headers=ASKING[0], body=b"third").status == 403 and origin.count() == count


def test_who_reads_the_old_version_while_it_is_refreshed_reads_it_to_the_end(http, origin):
    p = routed(http, "all", cache={"slice_size": "64KiB"})
    size = 8 << 20
    origin.put("/b/k", size)
    p.get_checked("/b/k", size)
    with p.connect(rcvbuf=16384) as c:
        c.request("GET", "/b/k")
        r = c.head()
        origin.put("/b/k", size, version=2)
        p.get_checked("/b/k", size, headers=ASKING[1], versions=(2,))
        check = Checker("/b/k")
        c.body(r, "GET", check)
        assert check.position == size
    assert p.get_checked("/b/k", size, versions=(2,))[0].get("x-cache") == "HIT"


def test_a_refresh_is_not_content_with_somebody_elses_validation(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 300 * KIB)
    p.get_checked("/b/k", 300 * KIB)
    gate = threading.Event()
    origin.on(when=lambda r: r.get("if-none-match"), gate=gate)
    other = threading.Thread(target=p.get, args=("/b/k", {"Cache-Control": "no-cache"}))
    other.start()
    net.wait_until("the origin is asked whether it changed", lambda: origin.count("/b/k") == 2)
    before, got = origin.bytes_sent("/b/k"), []
    refresh = threading.Thread(target=lambda: got.append(p.get_checked("/b/k", 300 * KIB, headers=ASKING[1])[0]))
    refresh.start()
    net.wait_until("it stands in line", lambda: p.stats()["caches"]["main"]["coalesced"] == 1)
    gate.set()
    for t in (other, refresh):
        t.join(30 * net.SLOW)
    assert got and got[0].get("x-cache") == "MISS" and origin.bytes_sent("/b/k") - before >= 300 * KIB


def test_many_refresh_at_once(http, origin):
    p = routed(http, "all")
    origin.put("/b/k", 300 * KIB)
    p.get_checked("/b/k", 300 * KIB)
    origin.put("/b/k", 300 * KIB, version=2)
    origin.on(path="/b/k", delay=0.2, times=1)
    wrong = []

    def one(how):
        try:
            p.get_checked("/b/k", 300 * KIB, headers=how, versions=(2,) if how else (1, 2))
        except AssertionError as e:
            wrong.append(e)
    threads = [threading.Thread(target=one, args=(ASKING[1] if i % 2 else (),)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30 * net.SLOW)
    assert not wrong and not any(t.is_alive() for t in threads)
    assert p.get_checked("/b/k", 300 * KIB, versions=(2,))[0].get("x-cache") == "HIT"
