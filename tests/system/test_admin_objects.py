"""objects: what is cached of a prefix."""
import json
import random
import urllib.parse

import net
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
KIB = 1 << 10
MIB = 1 << 20


def page(p, **query):
    r = p.get("/_s3dlio/objects?" + urllib.parse.urlencode(query))
    assert r.status == 200, r
    return json.loads(r.body)


def listing(p, **query):
    found, after, pages = [], None, 0
    while True:
        answer = page(p, **query, **({"after": after} if after else {}))
        found += answer["objects"]
        after, pages = answer["next"], pages + 1
        assert pages < 1000
        if after is None:
            return found


def test_what_is_cached_with_fraction_and_age(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "64KiB", "read_ahead": "64KiB"}})
    origin.put("/b/dir/whole", 100 * KIB)
    origin.put("/b/dir/some", 4 * MIB)
    origin.put("/b/other", 10)
    origin.put("/b/dir/empty", 0)
    assert listing(p) == []
    p.get_checked("/b/dir/whole", 100 * KIB)
    p.get_checked("/b/dir/some", 4 * MIB, first=2 * MIB, length=10)
    p.get_checked("/b/other", 10)
    p.get("/b/dir/empty")
    by = {o["uri"]: o for o in listing(p, prefix="s3://b/dir/")}
    assert set(by) == {"s3://b/dir/whole", "s3://b/dir/some", "s3://b/dir/empty"}
    whole, some = by["s3://b/dir/whole"], by["s3://b/dir/some"]
    assert (whole["size"], whole["cached"], whole["fraction"]) == (100 * KIB, 100 * KIB, 1)
    assert some["size"] == 4 * MIB and 64 * KIB <= some["cached"] < 2 * MIB
    assert some["fraction"] == pytest.approx(some["cached"] / some["size"], rel=1e-5)
    assert all(o["fresh"] and not o["pinned"] and 0 <= o["age_s"] < 600 for o in by.values())
    assert whole["origin"] == "o" and whole["cache"] == "main" and by["s3://b/dir/empty"]["fraction"] == 1
    assert len(listing(p)) == 4 and len(listing(p, prefix="/b/o")) == 1 and listing(p, prefix="s3://bb") == []
    assert p.fetch("POST", "/_s3dlio/purge", body=b'{"uri": "s3://b/dir/whole"}').status == 200
    assert "s3://b/dir/whole" not in {o["uri"] for o in listing(p)}


def test_age_and_freshness_are_the_origins(http, origin):
    p = http()
    for name, age, lives in (("fresh", 100, 5000), ("stale", 100, 50)):
        origin.put("/b/" + name, 10, headers=[("Age", str(age)), ("Cache-Control", "max-age=%d" % lives)])
        p.get("/b/" + name)
    by = {o["uri"]: o for o in listing(p)}
    assert by["s3://b/fresh"]["fresh"] and not by["s3://b/stale"]["fresh"]
    assert all(100 <= o["age_s"] < 100 + 60 * net.SLOW for o in by.values())


def test_pages_show_every_object_once_while_others_come_and_go(http, origin):
    p = http()
    names = ["/b/k%04d" % i for i in range(300)]
    for n in names:
        origin.put(n, 1000)
        p.get(n)
    seen, after = [], None
    rng = random.Random(5)
    for turn in range(400):
        answer = page(p, prefix="s3://b/", max=7, **({"after": after} if after else {}))
        assert len(answer["objects"]) <= 7
        seen += [o["uri"] for o in answer["objects"]]
        after = answer["next"]
        if after is None:
            break
        origin.put("/b/new%d" % turn, 10)
        p.get("/b/new%d" % turn)
        gone = "/b/gone%d" % rng.randrange(50)
        p.fetch("POST", "/_s3dlio/purge", body=json.dumps({"uri": gone}).encode())
    assert after is None and len(seen) == len(set(seen))
    assert set(seen) >= {"s3:/" + n for n in names}


def test_strange_keys_are_given_so_that_they_can_be_purged(http, origin):
    p = http()
    paths = ["/b/a%20b", "/b/p%2Bq", "/b/%25", "/b/%C3%BC", "/b/%FFx", "/b/q%3F%23", "/b/quo%22te"]
    for path in paths:
        origin.put(path, 10)
        assert p.get(path).status == 200
    found = listing(p, prefix="s3://b/")
    assert {"s3://b/a b", "s3://b/p+q", "s3://b/%", "s3://b/ü", 's3://b/quo"te'} <= {o["uri"] for o in found}
    assert "/b/%FFx" in {o["uri"] for o in found}
    for o in found:
        r = p.fetch("POST", "/_s3dlio/purge", body=json.dumps({"uri": o["uri"]}).encode())
        assert r.status == 200 and json.loads(r.body)["purged"] >= 1, o
    assert listing(p) == []


@pytest.mark.parametrize("query", ["prefix=b", "prefix=s3:///", "max=0", "max=10001", "max=x", "max=", "max=99999999999",
                                   "after=x", "after=1.2", "after=0.64.0", "after=0.1.zz", "after=0.0."])
def test_bad_questions_are_refused(http, query):
    p = http()
    r = p.get("/_s3dlio/objects?" + query)
    assert r.status == 400 and b"Expected" in r.body, r
    assert p.get("/_s3dlio/objects?after=999.0.0").status == 200


def test_several_versions_of_a_key_and_their_queries(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k")
    p.get("/b/k?versionId=null")
    found = listing(p, prefix="/b/k")
    net.wait_until("it is there", lambda: found)
    assert {o["uri"] for o in found} == {"s3://b/k"}
    assert [o.get("query") for o in found].count(None) == 1


@pytest.mark.parametrize("token", ["+0.0.0", "-1.0.0", "0.0.-1", "0.0.0 ", " 0.0.0", "00.0.0", "0.0.0x0", "0.0.0%00"])
def test_only_tokens_that_were_given_are_taken(http, token):
    p = http()
    assert p.get("/_s3dlio/objects?after=" + token.replace("+", "%2B").replace(" ", "%20")).status == 400


def test_hostile_questions_have_an_answer(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k")
    for query in ("prefix=/b/%25zz", "prefix=/b/%00", "prefix=/b/%ff%fe", "prefix=s3://b/%25", "prefix=/" + "x" * 7000, "&&=&=&prefix&max",
                  "prefix=%2Fb%2F%25", "prefix=/b/k%00", "prefix=/b/%6B%3Fx"):
        r = p.get("/_s3dlio/objects?" + query)
        assert r.status == 200 and isinstance(json.loads(r.body)["objects"], list), query
    for query in ("max=1e3", "max=%00", "max=0x10", "max=5%00", "max=-1", "prefix=s3:///b", "prefix=%00"):
        assert p.get("/_s3dlio/objects?" + query).status == 400, query
    for query in ("since=%00", "since=" + "x" * 7000, "since=%ff", "since"):
        assert p.get("/_s3dlio/stats?" + query).status in (200, 404), query
