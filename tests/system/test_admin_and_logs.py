"""The admin routes and the access log: what an operator sees."""
import json
import re
import time

import net
import pytest
from proxy import log_lines

MIB = 1 << 20


def test_health_and_ready(http):
    p = http()
    assert p.get("/_s3dlio/health").status == 200
    assert p.get("/_s3dlio/ready").status == 200
    assert p.fetch("HEAD", "/_s3dlio/health").status == 200


def test_stats_is_one_json_object_with_the_promised_fields(http):
    p = http()
    s = p.stats()
    for path in ("version", "uptime_s", "workers", "connections.open", "connections.h1", "connections.accepted",
                 "requests.total", "requests.in_flight", "requests.methods", "requests.statuses", "requests.cache.hit",
                 "requests.cache.partial", "requests.cache.miss", "requests.cache.revalidated", "requests.cache.stale",
                 "requests.cache.bypass", "bytes.sent", "bytes.origin_received", "bytes.saved",
                 "latency_ms.first_byte.p50", "latency_ms.first_byte.p999", "latency_ms.total.max",
                 "caches.main.memory.used", "caches.main.memory.capacity", "caches.main.memory.slices",
                 "caches.main.memory.objects", "caches.main.memory.evictions", "caches.main.memory.rejected",
                 "caches.main.hit_ratio", "caches.main.byte_hit_ratio", "caches.main.coalesced", "origins.o.requests",
                 "origins.o.bytes", "origins.o.errors", "origins.o.retries", "origins.o.slow_down",
                 "origins.o.connections.open", "origins.o.connections.idle", "origins.o.connections.created",
                 "origins.o.connections.reused", "origins.o.in_flight", "origins.o.first_byte_ms.p50", "buckets",
                 "connections.tls", "origins.o.hedges.issued", "origins.o.hedges.won", "origins.o.window"):
        at = s
        for k in path.split("."):
            assert k in at, "%s is missing in %s" % (path, json.dumps(s)[:2000])
            at = at[k]
    r = p.get("/_s3dlio/stats")
    assert r.get("content-type") == "application/json"


def test_numbers_of_stats_are_the_sums_of_what_happened(start, origin):
    """All of DESIGN's that can be known exactly, over both workers."""
    p = start({"type": "http", "endpoint": origin.url, "http2": "off"}, cache={"slice_size": "64KiB"})
    sizes = {"/a/k%d" % i: 10000 * i for i in range(1, 9)}
    for path, size in sizes.items():
        origin.put(path, size)
    before = p.stats()
    for path, size in list(sizes.items()) * 3:
        p.get_checked(path, size)
    p.get("/b/none")
    for i in range(3):
        assert p.fetch("PUT", "/b/put%d" % i, body=b"x" * 700).status == 200
    origin.settle()
    net.wait_until("all are counted", lambda: p.stats()["requests"]["methods"]["PUT"] == 3 and
                   sum(b["gets"] for b in p.stats()["buckets"].values()) == 25)
    s, whole = p.stats(), sum(sizes.values())
    assert s["requests"]["cache"] == {"hit": 16, "partial": 0, "miss": 9, "revalidated": 0, "stale": 0,
                                      "bypass": s["requests"]["cache"]["bypass"]}
    assert s["requests"]["statuses"]["4xx"] == 1 and s["requests"]["statuses"]["2xx"] >= 27
    assert s["requests"]["methods"]["GET"] - before["requests"]["methods"]["GET"] >= 25
    assert s["buckets"]["a"] == {"gets": 24, "puts": 0, "bytes_sent": 3 * whole, "bytes_saved": 2 * whole}
    assert (s["buckets"]["b"]["gets"], s["buckets"]["b"]["puts"]) == (1, 3)
    assert s["bytes"]["received"] == 2100 and s["bytes"]["saved"] == 2 * whole
    o, missing = s["origins"]["o"], next(r for r in origin.log("/b/none"))
    assert o["requests"] == origin.count() == 12 and o["bytes_sent"] == 2100
    assert o["bytes"] == s["bytes"]["origin_received"] >= whole + missing.sent
    assert o["connections"]["created"] == origin.connections == 12 - o["connections"]["reused"]
    assert o["in_flight"] == 0 and o["connections"]["open"] == o["connections"]["idle"] and o["window"] == 16
    assert not any(o["errors"].values()) and o["retries"] == o["slow_down"] == 0 and o["hedges"] == {"issued": 0, "won": 0}
    c = s["caches"]["main"]
    assert c["memory"]["objects"] == 8 and c["memory"]["slices"] == sum((n + 65535) // 65536 for n in sizes.values())
    assert c["hit_ratio"] == pytest.approx(16 / 24, abs=0.03) and c["byte_hit_ratio"] == pytest.approx(2 / 3, abs=0.001)
    assert whole <= c["memory"]["used"] <= c["memory"]["capacity"] and c["memory"]["evictions"] == 0


def test_admin_is_only_for_those_it_allows(start, origin):
    p = start({"type": "http", "endpoint": origin.url}, ready=False,
              server={"routes": [{"path": "/_s3dlio/", "handler": "admin", "allow": ["10.0.0.0/8"]},
                                 {"path": "/open/", "handler": "admin", "allow": ["127.0.0.1"]},
                                 {"path": "/denied/", "origin": "o", "deny": ["127.0.0.0/8"]},
                                 {"path": "/", "origin": "o"}]})
    net.wait_until("it listens", lambda: net.can_connect(p.port) and (not p.way.tls or net.can_connect(p.tls_address[1])))
    r = p.get("/_s3dlio/stats")
    assert r.status == 403 and b"<Code>AccessDenied</Code>" in r.body
    assert p.get("/open/health").status == 200
    assert p.get("/denied/k").status == 403
    assert p.fetch("PUT", "/denied/k", body=b"x").status == 403
    assert origin.count() == 0


def test_unknown_admin_paths_and_methods(http, origin):
    p = http()
    assert p.get("/_s3dlio/nothing").status == 404
    assert p.fetch("POST", "/_s3dlio/stats", body=b"").status == 405
    assert p.get("/_s3dlio/purge").status == 405
    assert origin.count() == 0


@pytest.fixture
def four(http, origin):
    p = http()
    for k in ("/a/x/1", "/a/x/2", "/a/y/1", "/b/x/1"):
        origin.put(k, 1000)
        p.get(k)
        assert p.get(k).get("x-cache") == "HIT"
    return p


def kept(p):
    return [k for k in ("/a/x/1", "/a/x/2", "/a/y/1", "/b/x/1") if p.get(k).get("x-cache") == "HIT"]


def test_purge_of_one_object(four):
    r = four.purge(uri="/a/x/1")
    assert r.status == 200 and json.loads(r.body)["purged"] == 1
    assert kept(four) == ["/a/x/2", "/a/y/1", "/b/x/1"]


def test_purge_of_a_prefix(four):
    r = four.purge(prefix="/a/x/")
    assert json.loads(r.body)["purged"] == 2
    assert kept(four) == ["/a/y/1", "/b/x/1"]


def test_purge_of_everything(four):
    r = four.purge(all=True)
    assert json.loads(r.body)["purged"] == 4
    assert four.stats()["caches"]["main"]["memory"]["objects"] == 0
    assert kept(four) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"uri": 5}', b'{"nonsense": 1}', b'{"uri": "/a", "all": true}',
                                  b"x" * 3000000], ids=["empty", "cut", "list", "nothing", "number", "unknown", "two", "huge"])
def test_bad_purges_are_refused_and_purge_nothing(four, body):
    try:
        r = four.fetch("POST", "/_s3dlio/purge", {"Content-Type": "application/json"}, body)
        assert 400 <= r.status < 500
    except OSError:
        assert len(body) > 1000000   # refused while still being sent
    assert len(kept(four)) == 4


@pytest.mark.parametrize("path", ["purge", "warm", "mark"])
def test_hostile_json_is_refused(four, path):
    for body in (b'{"uri": "/a/x/1", "uri": "/a/x/1"}', b'{"prefix": "/a\\u0000"}', b'{"prefix": "/a/\xff"}', b'{"all": 1e999}',
                 b'{"all": 99999999999999999999999}', b'\xef\xbb\xbf{"all": true}', b'{"all": true} x', b'{"all": true, }', b"{" * 3000,
                 b"[" * 60000, b'{"a":' * 5000, b'"' + b"a" * 60000, b"{'all': true}", b"\0", b'{"all": true\0}', b"nul", b"true", b"5"):
        r = four.fetch("POST", "/_s3dlio/" + path, body=body)
        assert r.status == 400 and b"<Code>Invalid" in r.body, (body[:50], r)
    assert len(kept(four)) == 4 and json.loads(four.get("/_s3dlio/warm").body) == {"jobs": []}


def test_a_page_of_another_site_in_somebodys_browser_changes_nothing(four):
    for fields in ({"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                   {"Origin": "http://127.0.0.1:1"}):
        for method, path in (("POST", "purge"), ("POST", "warm"), ("POST", "mark"), ("DELETE", "warm/x")):
            r = four.fetch(method, "/_s3dlio/" + path, {**fields, "Content-Type": "text/plain"}, b'{"all": true}')
            assert r.status == 403 and b"<Code>AccessDenied</Code>" in r.body
        assert four.get("/_s3dlio/health", fields).status == 200
    assert len(kept(four)) == 4
    assert four.fetch("POST", "/_s3dlio/purge", {"Sec-Fetch-Site": "same-origin"}, b'{"all": true}').status == 200


def test_purge_while_a_fill_is_under_way(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB"}})
    origin.put("/b/k", 4 * MIB)
    origin.throttle = 4 * MIB
    with p.connect() as c:
        c.request("GET", "/b/k")
        r = c.head()
        assert p.purge(all=True).status == 200
        origin.put("/b/k", 4 * MIB, version=2)
        from content import Checker
        from raw import Broken
        check = Checker("/b/k")
        try:
            c.body(r, "GET", check)
        except Broken:
            pass
    p.get_checked("/b/k", 4 * MIB, versions=(2,))


def test_config_output_is_the_effective_one_without_secrets(http):
    p = http()
    r = p.get("/_s3dlio/config")
    assert r.status == 200 and b"slice_size" in r.body and b"max_in_flight" in r.body


def test_config_output_masks_what_came_out_of_the_environment(start, origin):
    secrets = {"S3P_TEST_KEY": "AKIAOUTOFENV", "S3P_TEST_SECRET": "secretoutofenv", "S3P_TEST_TOKEN": "tokenoutofenv"}
    p = start({"type": "s3", "endpoint": origin.url, "region": "${S3P_TEST_REGION:-eu-test-9}", "credentials": {
        "source": "static", "access_key": "${S3P_TEST_KEY}", "secret_key": "${S3P_TEST_SECRET}",
        "session_token": "pre-${S3P_TEST_TOKEN:-defaulttoken}"}}, env=secrets)
    text = p.get("/_s3dlio/config").body.decode()
    assert "eu-test-9" in text and text.count("********") == 3
    assert not any(v in text + p.stderr() for v in [*secrets.values(), "defaulttoken", "pre-"])


# access log

def lines_of(log, count):
    """The log's lines that are not about the admin route."""
    def enough():
        got = [x for x in log_lines(log, 0) if "_s3dlio" not in x]
        return got if len(got) >= count else None
    return net.wait_until("%d lines" % count, enough)


def test_json_access_log_says_what_happened(http, origin, tmp_path):
    log = tmp_path / "access.log"
    p = http(access_log={"file": str(log), "format": "json"})
    origin.put("/b/k", 5000)
    origin.on(path="/b/k", times=1, delay=0.2)
    # One after the other's line: each worker writes its own, and two of them keep no order.
    p.get("/b/k", {"User-Agent": 'q"uo\\te~', "Range": "bytes=0-99"})
    lines_of(log, 1)
    p.get("/b/k", {"Range": "bytes=0-99"})
    lines_of(log, 2)
    p.get("/b/none")
    lines_of(log, 3)
    p.fetch("PUT", "/b/put", body=b"12345")
    lines = [json.loads(x) for x in lines_of(log, 4)]
    cold, warm, missing, put = lines
    assert [x["status"] for x in lines] == [206, 206, 404, 200]
    assert [x["method"] for x in lines] == ["GET", "GET", "GET", "PUT"]
    assert (cold["cache_result"], warm["cache_result"]) == ("MISS", "HIT")
    assert (cold["bucket"], cold["key"], cold["origin"], cold["cache"]) == ("b", "k", "o", "main")
    assert (cold["sent_bytes"], put["received_bytes"], cold["range"]) == (100, 5, "bytes=0-99")
    assert cold["user_agent"] == 'q"uo\\te~' and cold["target"] == "/b/k" and cold["error"] is None
    assert 190000 <= cold["first_byte_us"] <= cold["total_us"] < 5000000 * net.SLOW
    assert warm["first_byte_us"] < 150000 * net.SLOW
    assert cold["origin_bytes"] >= 100 and warm["origin_bytes"] == 0



def test_combined_access_log_has_the_usual_shape(http, origin, tmp_path):
    log = tmp_path / "access.log"
    p = http(access_log={"file": str(log), "format": "combined"})
    origin.put("/b/k", 5000)
    p.get("/b/k", {"User-Agent": 'a"b', "Referer": "http://r/"})
    line = lines_of(log, 1)[0]
    assert re.match(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /b/k HTTP/%s" 200 5000 '
                    r'"http://r/" "a(\\"|\\x22)b"' % (r"2\.0" if p.way.two else r"1\.1"), line), line



def test_a_client_that_leaves_is_in_the_log_with_what_it_got(http, origin, tmp_path):
    log = tmp_path / "access.log"
    p = http(access_log={"file": str(log)})
    origin.put("/b/k", 64 * MIB)
    with p.connect(rcvbuf=16384) as c:
        c.request("GET", "/b/k")
        c.head()
    line = json.loads(lines_of(log, 1)[0])
    assert line["status"] == 200 and line["error"] and line["sent_bytes"] < 64 * MIB


def test_log_lines_cannot_be_forged_by_requests(http, origin, tmp_path):
    log = tmp_path / "access.log"
    p = http(access_log={"file": str(log)})
    with p.conn() as c:
        c.send(b"GET /b/%0a%22}{x HTTP/1.1\r\nHost: x\r\nUser-Agent: \xff\xfe\t\"\\u0000\r\n\r\n")
        c.response()
    time.sleep(0.3)
    for line in log_lines(log, 1):
        json.loads(line)


def test_every_request_of_a_pipelining_client_has_its_line(http, origin, tmp_path):
    log = tmp_path / "access.log"
    p = http(access_log={"file": str(log)})
    origin.put("/b/k", 10)
    p.get("/b/k")
    n = 3000
    with p.conn(timeout=60) as c:
        for start in range(0, n, 100):
            c.send(b"GET /b/k HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
            for _ in range(100):
                assert c.response().status == 200
    net.wait_until("all lines", lambda: sum("/b/k" in x for x in log_lines(log, 1)) >= n + 1)
