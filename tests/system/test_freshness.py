"""RFC 9111 for a shared cache: what is stored, how long it is fresh, what a stale entry costs."""
import email.utils
import time

import net
import pytest
from content import content
from test_caching import together

SIZE = 1000


def date(seconds):
    return email.utils.formatdate(time.time() + seconds, usegmt=True)


def hits(p, **fields):
    """X-Cache of two requests in a row."""
    return [p.get("/b/k", fields.get("headers", ())).get("x-cache") for _ in range(2)]


@pytest.mark.parametrize("fields", [
    {"Cache-Control": "max-age=60"}, {"Cache-Control": "public, max-age=60"}, {"Cache-Control": "MAX-AGE=60"},
    {"Cache-Control": 'max-age="60"'}, {"Cache-Control": "max-age=1, s-maxage=60"}, {"Expires": "@60"},
    {"Cache-Control": "max-age=60", "Expires": "@-60"}, {}, {"Cache-Control": "immutable"},
    {"Cache-Control": "max-age=60", "Age": "10"}, {"Cache-Control": "foo=bar, max-age=60"}],
    ids=lambda f: " ".join("%s:%s" % i for i in f.items()) or "nothing_said")
def test_is_stored_and_fresh(http, origin, fields):
    p = http()
    origin.put("/b/k", SIZE, headers={k: date(int(v[1:])) if v[0] == "@" else v for k, v in fields.items()})
    assert hits(p) == ["MISS", "HIT"]
    assert origin.count() == 1


@pytest.mark.parametrize("fields", [
    {"Cache-Control": "no-store"}, {"Cache-Control": "private"}, {"Cache-Control": "max-age=60, private"},
    {"Cache-Control": "max-age=60, no-store"}, {"Vary": "*"}, {"Cache-Control": "NO-STORE"}],
    ids=lambda f: " ".join("%s:%s" % i for i in f.items()))
def test_is_not_stored(http, origin, fields):
    p = http()
    origin.put("/b/k", SIZE, headers=fields)
    for _ in range(3):
        r, _v = p.get_checked("/b/k", SIZE)
        assert r.get("x-cache") in ("MISS", "BYPASS")
    assert origin.count() == 3
    assert all(r.get("if-none-match") is None for r in origin.log())


@pytest.mark.parametrize("fields", [
    {"Cache-Control": "max-age=0"}, {"Cache-Control": "no-cache"}, {"Cache-Control": "max-age=60, no-cache"},
    {"Expires": "0"}, {"Expires": "@-60"}, {"Cache-Control": "max-age=60", "Age": "100"},
    {"Cache-Control": "s-maxage=0, max-age=60"}, {"Cache-Control": "max-age=60", "Date": "@-3600"}],
    ids=lambda f: " ".join("%s:%s" % i for i in f.items()))
def test_is_stored_but_asked_for_each_time(http, origin, fields):
    p = http()
    origin.put("/b/k", SIZE, headers={k: date(int(v[1:])) if v[0] == "@" else v for k, v in fields.items()})
    assert p.get("/b/k").get("x-cache") == "MISS"
    for _ in range(2):
        r, _v = p.get_checked("/b/k", SIZE)
        assert r.get("x-cache") == "REVALIDATED"
    assert [r.status for r in origin.log()] == [200, 304, 304] or [r.status for r in origin.log()] == [206, 304, 304]
    assert origin.bytes_sent() == SIZE


def test_stale_object_is_revalidated_with_its_etag_and_fresh_again(http, origin):
    p = http(cache={"fresh_for": "700ms"})
    o = origin.put("/b/k", SIZE)
    assert hits(p) == ["MISS", "HIT"]
    time.sleep(0.8)
    r = p.get("/b/k")
    assert r.get("x-cache") == "REVALIDATED" and r.body == content("/b/k", 1, 0, SIZE)
    assert p.get("/b/k").get("x-cache") == "HIT"
    last = origin.log()[-1]
    assert last.get("if-none-match") == o.etag and last.status == 304


def test_without_etag_the_date_is_used(http, origin):
    p = http(cache={"fresh_for": "300ms"})
    o = origin.put("/b/k", SIZE, etag="")
    p.get("/b/k")
    time.sleep(0.4)
    assert p.get("/b/k").get("x-cache") == "REVALIDATED"
    assert origin.log()[-1].get("if-modified-since") == o.last_modified


def test_changed_object_is_seen_once_stale(http, origin):
    p = http(cache={"fresh_for": "500ms"})
    origin.put("/b/k", SIZE)
    p.get_checked("/b/k", SIZE)
    origin.put("/b/k", 2 * SIZE, version=2)
    time.sleep(0.6)
    for _ in range(2):
        p.get_checked("/b/k", 2 * SIZE, versions=(2,))


def test_deleted_object_is_gone_once_stale(http, origin):
    p = http(cache={"fresh_for": "300ms"})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    del origin.objects["/b/k"]
    time.sleep(0.4)
    for _ in range(2):
        assert p.get("/b/k").status == 404


def test_one_revalidation_for_all_waiters(http, origin):
    p = http(cache={"fresh_for": "1s"})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(1.1)
    origin.on(path="/b/k", delay=0.3)
    together(p, 20, lambda i: p.get_checked("/b/k", SIZE))
    assert origin.count() == 2
    assert origin.log()[-1].status == 304


def test_304_updates_the_stored_fields(http, origin):
    p = http(cache={"fresh_for": "300ms"})
    origin.put("/b/k", SIZE, headers={"x-amz-meta-a": "old"})
    p.get("/b/k")
    origin.put("/b/k", SIZE, headers={"x-amz-meta-a": "new", "Cache-Control": "max-age=60"})
    time.sleep(0.4)
    assert p.get("/b/k").get("x-amz-meta-a") == "new"
    time.sleep(0.4)
    r = p.get("/b/k")
    assert r.get("x-cache") == "HIT" and r.get("x-amz-meta-a") == "new"


def test_a_range_of_a_stale_object_is_revalidated_too(http, origin):
    p = http(cache={"fresh_for": "300ms"})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(0.4)
    r, _ = p.get_checked("/b/k", SIZE, 10, 20)
    assert r.get("x-cache") == "REVALIDATED"


def test_clients_condition_on_a_stale_object(http, origin):
    p = http(cache={"fresh_for": "300ms"})
    o = origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(0.4)
    assert p.get("/b/k", {"If-None-Match": o.etag}).status == 304
    time.sleep(0.4)
    assert p.get("/b/k", {"If-None-Match": '"other"'}).status == 200


def test_vary_keeps_the_representations_apart(http, origin):
    p = http()
    for lang in ("de", "fr"):
        origin.on(path="/b/k", when=lambda r, lang=lang: r.get("accept-language") == lang, status=200,
                  body=lang.encode() * 10, headers={"Vary": "Accept-Language", "ETag": '"%s"' % lang,
                                                    "Cache-Control": "max-age=60"})
    for want in ("MISS", "HIT"):
        for lang in ("de", "fr"):
            r = p.get("/b/k", {"Accept-Language": lang})
            assert r.body == lang.encode() * 10
            assert r.get("x-cache") == want
            assert r.get("vary").lower() == "accept-language"


def test_vary_on_a_field_nobody_sends(http, origin):
    p = http()
    origin.put("/b/k", SIZE, headers={"Vary": "Origin, Access-Control-Request-Method"})
    assert hits(p) == ["MISS", "HIT"]
    assert p.get("/b/k", {"Origin": "http://a"}).get("x-cache") == "MISS"


# what the request says

def test_request_no_store_and_no_cache(http, origin):
    p = http()
    origin.put("/b/k", SIZE)
    p.get("/b/k", {"Cache-Control": "no-store"})
    assert p.get("/b/k").get("x-cache") == "MISS"
    assert p.get("/b/k").get("x-cache") == "HIT"
    n = origin.count()
    assert p.get("/b/k", {"Cache-Control": "no-cache"}).get("x-cache") in ("REVALIDATED", "MISS", "BYPASS")
    assert p.get("/b/k", {"Pragma": "no-cache"}).get("x-cache") in ("REVALIDATED", "MISS", "BYPASS")
    assert origin.count() == n + 2
    time.sleep(1.1)   # the age is counted in whole seconds
    assert p.get("/b/k", {"Cache-Control": "max-age=0"}).get("x-cache") == "REVALIDATED"


def test_only_if_cached(http, origin):
    p = http()
    origin.put("/b/k", SIZE)
    assert p.get("/b/k", {"Cache-Control": "only-if-cached"}).status == 504
    assert origin.count() == 0
    p.get("/b/k")
    assert p.get("/b/k", {"Cache-Control": "only-if-cached"}).status == 200


def test_max_age_and_min_fresh_of_the_request(http, origin):
    p = http()
    origin.put("/b/k", SIZE, headers={"Cache-Control": "max-age=100"})
    p.get("/b/k")
    time.sleep(1.1)
    assert p.get("/b/k", {"Cache-Control": "max-age=50"}).get("x-cache") == "HIT"
    assert p.get("/b/k", {"Cache-Control": "min-fresh=50"}).get("x-cache") == "HIT"
    assert p.get("/b/k", {"Cache-Control": "min-fresh=200"}).get("x-cache") == "REVALIDATED"


# Authorization, on an origin to which it is passed on

@pytest.mark.parametrize("fields,stored", [
    ({}, False), ({"Cache-Control": "max-age=60"}, False), ({"Cache-Control": "public, max-age=60"}, True),
    ({"Cache-Control": "s-maxage=60"}, True), ({"Cache-Control": "must-revalidate, max-age=60"}, True)],
    ids=lambda f: str(f))
def test_answers_to_authorized_requests(http, origin, fields, stored):
    p = http()
    origin.put("/b/k", SIZE, headers=fields)
    auth = {"Authorization": "Basic YTpi"}
    assert p.get("/b/k", auth).status == 200
    r = p.get("/b/k", auth)
    assert (r.get("x-cache") == "HIT") == stored, r
    assert origin.log()[0].get("authorization") == "Basic YTpi"
    p.get("/b/k")
    assert origin.count() == (1 if stored else 3)


# stale answers when the origin fails

def test_stale_if_error_of_the_config(http, origin):
    p = http(cache={"fresh_for": "300ms", "stale_if_error": "1h"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(0.4)
    for what in ({"status": 500}, {"status": 503}, {"close": "fin"}):
        origin.on(path="/b/k", times=2 if "close" in what else 1, **what)
        r, _ = p.get_checked("/b/k", SIZE)
        assert r.get("x-cache") == "STALE", what
        origin.clear_rules()
    assert p.get("/b/k").get("x-cache") == "REVALIDATED"


def test_without_stale_if_error_the_failure_is_told(http, origin):
    p = http(cache={"fresh_for": "300ms"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(0.4)
    origin.on(path="/b/k", status=500)
    assert p.get("/b/k").status == 500


def test_must_revalidate_forbids_stale(http, origin):
    p = http(cache={"stale_if_error": "1h"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", SIZE, headers={"Cache-Control": "max-age=0, must-revalidate"})
    p.get("/b/k")
    origin.on(path="/b/k", status=503)
    assert p.get("/b/k").status in (502, 503, 504)


def test_stale_if_error_of_the_response(http, origin):
    p = http(o={"retry": {"attempts": 1}})
    origin.put("/b/k", SIZE, headers={"Cache-Control": "max-age=0, stale-if-error=60"})
    p.get("/b/k")
    origin.on(path="/b/k", status=503)
    assert p.get("/b/k").get("x-cache") == "STALE"


def test_a_dead_origin_and_a_stale_object(http, origin):
    p = http(cache={"fresh_for": "300ms", "stale_if_error": "1h"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", SIZE)
    p.get("/b/k")
    time.sleep(0.4)
    origin.stop()
    r, _ = p.get_checked("/b/k", SIZE)
    assert r.get("x-cache") == "STALE" and int(r.get("age")) >= 0
    assert p.get("/b/other").status == 502
    net.wait_until("still there", lambda: p.get("/b/k").status == 200)
