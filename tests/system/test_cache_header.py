"""S3dlio-Cache: bypass | refresh - a client asks to be served past the cache, or for the object to be fetched anew; where the
route lets it."""
import pytest

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
