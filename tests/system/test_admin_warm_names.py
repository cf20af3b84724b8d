"""warm: where names come from - listings and manifests of all kinds - and what that may cost."""
import json
import threading
import urllib.parse

import net
import pytest
from test_admin_warm import ended, job, objects, warm

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
MIB = 1 << 20
PAGE = '<?xml version="1.0"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>%s</ListBucketResult>'


def page(keys, token=None, encoding=""):
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>%s</NextContinuationToken>" % token if token else ""
    return (PAGE % (encoding + more + "".join("<Contents><Key>%s</Key><Size>3</Size></Contents>" % k for k in keys))).encode()


def lists(origin, pages):
    """Answers of the bucket's listing: {token or None: body}."""
    for token, body in pages.items():
        origin.on(when=lambda r, t=token: r.path == "/b/" and
                  urllib.parse.parse_qs(r.query).get("continuation-token", [None])[0] == t, status=200, body=body)


def test_keys_of_a_listing_in_every_spelling(s3ish, origin):
    p = s3ish()
    keys = ["d/a&amp;b", "d/&#x26;", "d/&#38;2", "d/&lt;&gt;&quot;&apos;", "d/sp ace", "d/pl+us", "d/per%25cent", "d/über", "d//double",
            "d/q?m", "d/ha#sh", "d/&amp;lt;"]
    real = ["d/a&b", "d/&", "d/&2", "d/<>\"'", "d/sp ace", "d/pl+us", "d/per%25cent", "d/über", "d//double", "d/q?m", "d/ha#sh", "d/&lt;"]
    for k in real:
        origin.put("/b/" + urllib.parse.quote(k), 3)
    lists(origin, {None: page(keys)})
    j = ended(p, warm(p, prefix="s3://b/d/"))
    assert j["state"] == "done" and j["objects"] == {"total": len(keys), "done": len(keys), "failed": 0}, j
    assert set(objects(p, "/b/d/")) == {"s3://b/" + k for k in real}
    asked = urllib.parse.parse_qs(origin.log("/b/")[0].query)
    assert asked["prefix"] == ["d/"] and asked["encoding-type"] == ["url"]


def test_a_listing_that_fails_half_way_has_warmed_what_it_named(s3ish, origin):
    p = s3ish(o={"retry": {"attempts": 1}})
    for i in range(20):
        origin.put("/b/k%d" % i, 3)
    lists(origin, {None: page(["k%d" % i for i in range(20)], "t+/=1"), "t+/=1": b"<Error/>"})
    origin.rules[-1].what["status"] = 500
    j = ended(p, warm(p, prefix="s3://b/"))
    assert j["state"] == "failed" and not j["listed"] and j["objects"] == {"total": 20, "done": 20, "failed": 0}
    assert "500" in j["errors"][0]["message"] and len(objects(p, "/b/")) == 20


def test_a_listing_that_goes_in_circles_ends(s3ish, origin):
    p = s3ish()
    lists(origin, {None: page([], "again"), "again": page([], "again")})
    j = ended(p, warm(p, prefix="s3://b/"))
    assert j["state"] == "failed" and "circles" in j["errors"][0]["message"] and origin.count("/b/") == 2


def test_a_listing_too_large_is_an_error(s3ish, origin):
    p = s3ish()
    lists(origin, {None: page(["x" * 1000] * 9000)})
    j = ended(p, warm(p, prefix="s3://b/"))
    assert j["state"] == "failed" and "listing" in j["errors"][0]["message"] and j["objects"]["total"] == 0


def test_names_that_no_client_could_ask_for_are_not_asked_for(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 3)
    origin.on(when=lambda r: r.path == "/b/manifest", status=200, body=b"/b/" + b"%41" * 2700 + b"\n/b/k\n")
    lists(origin, {None: page(["x" * 9000, "&amp;" * 9000, "k"], "t" * 9000)})
    for what in ({"uris": ["s3://b/" + "x" * 9000]}, {"uris": ["s3://b/k", "s3://b/" + "%" * 3000]}, {"prefix": "s3://b/" + "x" * 9000},
                 {"manifest": "/b/" + "x" * 9000}):
        assert warm(p, 400, **what).status == 400
    assert origin.count() == 0
    j = ended(p, warm(p, prefix="s3://b/"))
    assert j["state"] == "failed" and j["objects"] == {"total": 3, "done": 1, "failed": 2}, j
    assert "too long" in j["errors"][0]["message"] and len(j["errors"]) == 3 and origin.count("/b/") == 1
    j = ended(p, warm(p, manifest="s3://b/manifest"))
    assert j["state"] == "done" and j["objects"] == {"total": 2, "done": 1, "failed": 1}, j
    assert all(len(r.target) <= 8192 for r in origin.log())


def test_the_listing_takes_the_route_of_the_objects(start, origin):
    p = start({"type": "s3", "endpoint": origin.url, "credentials": {"source": "none"}}, server={"routes": [
        {"path": "/_s3dlio/", "handler": "admin"}, {"path": "/b/", "origin": "o", "cache": "main"}]})
    origin.put("/b/k", 3)
    lists(origin, {None: page(["k"])})
    assert ended(p, warm(p, prefix="s3://b"))["objects"]["done"] == 1
    assert ended(p, warm(p, prefix="/b/k"))["objects"]["done"] == 1


def test_lines_of_a_manifest_in_every_spelling(http, origin):
    p = http()
    paths = ["/b/a%20b", "/b/pl%2Bus", "/b/%C3%BC", "/b//double", "/b/per%25", "/b/q%3F", "/b/tail"]
    for path in paths:
        origin.put(path, 3)
    lines = "\ufeffs3://b/a b\r\n\r\n  \r\n# s3://b/comment\r\n\ts3://b/pl+us \r\ns3://b/ü\n/b//double\ns3://b/per%\n/b/q%3F\n" \
            "s3://b/a b\ns3://b\ns3:/b/k\n/b\n/\nb/k\ns3://b/" + "x" * 9000 + "\ns3://b/tail"
    origin.put("/b/manifest", data=lines.encode())
    j = ended(p, warm(p, manifest="s3://b/manifest"))
    assert j["objects"] == {"total": 14, "done": 8, "failed": 6} and j["listed"], j
    assert all(origin.count(path) == 1 for path in paths), "and a line that comes twice costs nothing"
    assert sum("manifest" in e["message"] and e["uri"] is None for e in j["errors"]) == 6


def test_a_manifest_that_breaks_off_has_warmed_what_it_named(http, origin):
    p = http(o={"retry": {"attempts": 1}})
    for i in range(100):
        origin.put("/b/k%03d" % i, 3)
    origin.put("/b/manifest", data=b"".join(b"s3://b/k%03d\n" % i for i in range(100)))
    origin.on(path="/b/manifest", cut_after=500, cut="rst")
    j = ended(p, warm(p, manifest="s3://b/manifest"))
    assert j["state"] == "failed" and not j["listed"] and "manifest" in j["errors"][-1]["message"]
    assert j["objects"]["done"] == j["objects"]["total"] <= 41 and len(objects(p, "/b/k")) == j["objects"]["done"]


@pytest.mark.nosan   # how much memory
def test_a_manifest_of_any_length_is_read_as_it_is_needed(http, origin):
    p = http(workers=1, cache={"memory": "64MiB"})
    origin.put("/b/manifest", data=b"".join(b"s3://b/k%07d\n" % i for i in range(1000000)))
    p.get("/b/manifest")
    gate = threading.Event()
    origin.on(when=lambda r: r.path != "/b/manifest", gate=gate, status=404, body=b"")
    before = p.memory_kib()[1]
    id_ = warm(p, manifest="s3://b/manifest", concurrency=1)
    net.wait_until("it has begun", lambda: origin.count() > 1)
    assert 0 < job(p, id_)["objects"]["total"] < 20000 and p.memory_kib()[1] - before < 8192
    gate.set()
    net.wait_until("it goes on", lambda: job(p, id_)["objects"]["failed"] > 100)
    assert p.fetch("DELETE", "/_s3dlio/warm/" + id_).status == 200


@pytest.mark.nosan   # how much memory
def test_a_body_that_becomes_large_when_it_is_parsed_is_refused(http):
    p = http(workers=1)
    before = p.memory_kib()[1]
    for body in (b'{"uris":[' + b'"",' * 2700000 + b'""]}', b"[" * 8000000, b'{"uris":[' + b"{}," * 2700000 + b"{}]}"):
        assert p.fetch("POST", "/_s3dlio/warm", body=body, timeout=60).status == 413
    assert p.memory_kib()[1] - before < 40000
    try:
        assert p.fetch("POST", "/_s3dlio/warm", body=b" " * (9 << 20)).status == 413
    except OSError:
        pass   # refused while still being sent


def test_names_that_wait_count_against_the_limit_of_memory(http, origin):
    p = http(limits={"memory": "16MiB", "warm_jobs": 100})
    origin.on(never=True)

    def used():
        return p.stats()["memory_bytes"]
    idle = used()
    uris = ["s3://b/%s%05d" % ("x" * 100, i) for i in range(20000)]
    running = []
    while len(running) < 50:
        r = p.fetch("POST", "/_s3dlio/warm", body=json.dumps({"uris": uris}).encode())
        if r.status == 503:
            break
        running.append(json.loads(r.body)["id"])
    assert 1 <= len(running) <= 5 and r.get("retry-after")
    assert used() > idle + len(running) * 20000 * 100
    for id_ in running:
        assert p.fetch("DELETE", "/_s3dlio/warm/" + id_).status == 200
    net.wait_until("it is given back", lambda: used() < idle + MIB)
