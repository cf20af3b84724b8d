"""What the protocols say at their edges: names spelled differently, writes of unknown outcome, answers meant for one
person, loops, fields that must be there and fields that must not."""
import json
import socket
import struct
import threading
import time

import net
import pytest
import raw
from content import content
from test_caching import together

KIB, MIB = 1 << 10, 1 << 20


def cache_of(p, target, **headers):
    return p.get(target, headers).get("x-cache")


# one object, several spellings

def test_spellings_of_one_s3_key_share_an_entry_and_go_on_as_sent(s3ish, origin):
    p = s3ish()
    origin.put("/b/x~y=1", 100)
    assert cache_of(p, "/b/x~y=1") == "MISS"
    for other in ("/b/x%7Ey=1", "/b/x%7ey%3D1", "/b/%78~y%3d1"):
        assert cache_of(p, other) == "HIT"
    assert p.fetch("PUT", "/b/x%7Ey%3D1", body=b"new").status == 200
    assert origin.log()[-1].target == "/b/x%7Ey%3D1"
    r = p.get("/b/x~y=1")
    assert r.body == b"new" and r.get("x-cache") == "MISS"
    assert origin.log()[-1].target == "/b/x~y=1"


def test_plus_and_space_are_never_mixed_up_but_a_write_drops_both(s3ish, origin):
    p = s3ish()
    spellings = ["/b/a+b", "/b/a%2Bb", "/b/a%20b"]
    for t in spellings:
        origin.on(when=lambda r, t=t: r.method == "GET" and r.target == t, status=200, body=t.encode(), headers={"ETag": '"%d"' % len(t)})
    for want in ("MISS", "HIT"):
        for t in spellings:
            r = p.get(t)
            assert (r.body, r.get("x-cache")) == (t.encode(), want)
    assert p.fetch("PUT", "/b/a%20b", body=b"x").status == 200
    assert [cache_of(p, t) for t in spellings] == ["MISS"] * 3


def test_spellings_of_a_plain_http_path_are_apart_but_a_write_drops_all(http, origin):
    p = http()
    spellings = ["/b/x~y", "/b/x%7Ey", "/b/x%7ey"]
    for t in spellings:
        origin.on(when=lambda r, t=t: r.method == "GET" and r.target == t, status=200, body=t.encode(), headers={"ETag": '"e"'})
    for want in ("MISS", "HIT"):
        for t in spellings:
            assert p.get(t).body == t.encode() and cache_of(p, t) in ("HIT",)
    assert p.fetch("DELETE", "/b/x%7Ey").status == 204
    assert [cache_of(p, t) for t in spellings] == ["MISS"] * 3


def test_a_literal_percent_sign_is_not_an_escape(s3ish, origin):
    p = s3ish()
    for t in ("/b/a%zz", "/b/a%25zz"):
        origin.on(when=lambda r, t=t: r.target == t, status=200, body=t.encode(), headers={"ETag": '"e"'})
    for t in ("/b/a%zz", "/b/a%25zz") * 2:
        assert p.get(t).body == t.encode()


def test_purge_finds_every_spelling(s3ish, origin):
    p = s3ish()
    origin.put("/b/x~y", 100)
    p.get("/b/x%7Ey")
    assert json.loads(p.purge(uri="/b/x~y").body)["purged"] == 1
    p.get("/b/x%7Ey")
    assert json.loads(p.purge(uri="s3://b/x~y").body)["purged"] == 1
    p.get("/b/x%7Ey")
    assert json.loads(p.purge(prefix="s3://b/x~").body)["purged"] == 1


def test_bucket_in_the_host_name_has_no_case(start, origin):
    p = start({"type": "s3", "endpoint": origin.url, "credentials": {"source": "none"}},
              server={"routes": [{"path": "/", "origin": "o", "cache": "main", "base_domains": ["s3.test"]},
                                 {"path": "/_s3dlio/", "handler": "admin"}]})
    origin.put("/data/k", 100)
    assert p.get("/k", {"Host": "DATA.s3.test"}).get("x-cache") == "MISS"
    assert p.get("/k", {"Host": "data.s3.test."}).get("x-cache") == "HIT"
    assert p.get("/data/k").get("x-cache") == "HIT"
    assert [r.target for r in origin.log()] == ["/data/k"]


def test_two_origins_that_are_one_place_forget_together(start, origin):
    p = start({"type": "http", "endpoint": origin.url},
              origins={"writes": {"type": "http", "endpoint": origin.url}},
              server={"routes": [{"path": "/", "origin": "o", "cache": "main"},
                                 {"path": "/", "hosts": ["w.test"], "origin": "writes"},
                                 {"path": "/_s3dlio/", "handler": "admin"}]})
    origin.put("/b/k", 100)
    p.get("/b/k")
    assert p.fetch("PUT", "/b/k", {"Host": "w.test"}, b"new").status == 200
    assert p.get("/b/k").body == b"new"


# writes

@pytest.mark.parametrize("status", [201, 204, 303, 404, 412, 500, 502])
def test_answers_to_a_write_that_mean_the_entry_is_worth_nothing(http, origin, status):
    p = http(o={"retry": {"attempts": 1}})
    origin.put("/b/k", 100)
    p.get("/b/k")
    origin.on(method="POST", status=status, body=b"", headers={"Location": "/b/other"})
    assert p.fetch("POST", "/b/k", body=b"x").status == status
    assert cache_of(p, "/b/k") != "HIT"


@pytest.mark.parametrize("status", [400, 403, 409, 411, 501])
def test_answers_to_a_write_that_did_not_happen(http, origin, status):
    p = http(o={"retry": {"attempts": 1}})
    origin.put("/b/k", 100)
    p.get("/b/k")
    origin.on(method="POST", status=status, body=b"")
    assert p.fetch("POST", "/b/k", body=b"x").status == status
    if status != 501:
        assert cache_of(p, "/b/k") == "HIT"


def test_a_write_that_is_answered_before_it_is_done(s3ish, origin):
    """S3 sends the head of CompleteMultipartUpload's answer and blanks long before the object is there."""
    p = s3ish()
    origin.put("/b/k", 1000)
    gate = threading.Event()
    origin.on(method="POST", path="/b/k", status=200, body=b" " * 10 + b"<Done/>", chunked=True, mid_gate=(10, gate))
    origin.on(method="GET", path="/b/k", times=1)
    done = []
    t = threading.Thread(target=lambda: done.append(p.fetch("POST", "/b/k?uploadId=u", body=b"<x/>")))
    t.start()
    net.wait_until("the origin has begun to answer", lambda: any(r.status for r in origin.log(method="POST")))
    net.settle() if hasattr(net, "settle") else time.sleep(0.2)
    p.get_checked("/b/k", 1000)          # the old one, cached after the head of the answer
    origin.put("/b/k", 2000, version=2)  # now it is there
    gate.set()
    t.join(20)
    assert done and done[0].body.endswith(b"<Done/>")
    p.get_checked("/b/k", 2000, versions=(2,))


@pytest.mark.parametrize("how", ["no answer", "client leaves", "client leaves in the answer"])
def test_while_a_write_is_in_doubt_nothing_of_its_key_is_kept(s3ish, origin, how):
    p = s3ish(o={"retry": {"attempts": 1}})
    origin.put("/b/k", 1000)
    gate = threading.Event()
    if how == "no answer":
        origin.on(method="POST", raw=b"")   # once it has all of it
        assert p.fetch("POST", "/b/k?uploadId=u", body=b"<x/>").status == 502
    else:
        body = b" " * 10 + b"<Done/>"
        origin.on(method="POST", status=200, body=body, chunked=True,
                  **({"gate": gate} if how == "client leaves" else {"mid_gate": (10, gate)}))
        with p.connect() as c:
            c.request("POST", "/b/k?uploadId=u", {}, b"<x/>")
            net.wait_until("it is there", lambda: [r.received for r in origin.log(method="POST")] == [4])
            if how == "client leaves in the answer":
                c.head()
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))   # gone, not half-closed
        net.wait_until("the proxy has noticed", lambda: p.stats()["requests"]["in_flight"] <= 1)
    p.get_checked("/b/k", 1000)          # old: the write takes effect only now
    origin.put("/b/k", 1000, version=2)
    gate.set()
    r, _ = p.get_checked("/b/k", 1000, versions=(2,))
    assert r.get("x-cache") == "BYPASS"


def test_an_upload_cut_short_puts_nothing_in_doubt(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000)
    p.get("/b/k")
    with p.connect() as c:
        c.request("PUT", "/b/k", {"Content-Length": "1000000"})
        c.send(b"x" * 1000)
        net.wait_until("it is on its way", lambda: origin.count(method="PUT") == 1)
    net.wait_until("the proxy has noticed", lambda: p.stats()["requests"]["in_flight"] <= 1)
    assert [cache_of(p, "/b/k") for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize("method,target", [("DELETE", "/b"), ("POST", "/b/"), ("PUT", "/b?versioning"), ("POST", "/b?delete")])
def test_writes_to_a_bucket_drop_what_is_in_it_and_only_that(s3ish, origin, method, target):
    p = s3ish()
    for path in ("/b/k", "/b/dir/k", "/bb/k"):
        origin.put(path, 10)
        p.get(path)
    origin.on(method=method, status=200, body=b"")
    assert p.fetch(method, target, body=b"x").status == 200
    assert [cache_of(p, t) for t in ("/b/k", "/b/dir/k", "/bb/k")] == ["MISS", "MISS", "HIT"]


def test_a_write_that_never_left_puts_nothing_in_doubt(s3ish, origin):
    p = s3ish(o={"retry": {"attempts": 1}})
    origin.put("/b/k", 1000)
    p.get("/b/k")
    origin.stop()
    net.wait_until("its connections are gone", lambda: p.stats()["origins"]["o"]["connections"]["open"] == 0)
    assert p.fetch("PUT", "/b/k", body=b"x").status == 502
    assert cache_of(p, "/b/k") == "HIT"


def test_rename_drops_both_names(s3ish, origin):
    p = s3ish()
    for k in ("from", "to"):
        origin.put("/b/" + k, 100)
        p.get("/b/" + k)
    origin.on(method="PUT", status=200, body=b"")
    assert p.fetch("PUT", "/b/to?renameObject", {"x-amz-rename-source": "from"}, b"").status == 200
    assert cache_of(p, "/b/from") == cache_of(p, "/b/to") == "MISS"


def test_an_unanswered_conditional_write_is_not_repeated(s3ish, origin):
    p = s3ish()
    origin.on(method="PUT", close="fin", times=1)
    r = p.fetch("PUT", "/b/new", {"If-None-Match": "*", "Content-Length": "0"})
    assert r.status == 502 and origin.count(method="PUT") == 1
    origin.on(method="PUT", close="fin", times=1)
    assert p.fetch("PUT", "/b/new", {"Content-Length": "0"}).status == 200  # this one can be


# fields

def test_via_goes_on_with_the_request(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k", {"Via": "1.0 first"})
    p.fetch("PUT", "/b/k", {"Via": "1.0 first"}, b"x")
    for r in origin.log():
        assert r.all("via")[0] == "1.0 first" and "s3dlio-proxy" in r.all("via")[1]


@pytest.mark.ways("h1")   # it asks itself, over HTTP/1.1
def test_a_loop_is_noticed(start):
    port = net.free_port()
    p = start({"type": "http", "endpoint": "http://127.0.0.1:%d" % port},
              server={"listen": ["127.0.0.1:%d" % port]}, ready=False)
    address = ("127.0.0.1", port)
    net.wait_until("it listens", lambda: net.can_connect(port))
    for method in ("GET", "PUT", "HEAD"):
        t = time.monotonic()
        r = raw.fetch(address, method, "/b/k", body=b"x" if method == "PUT" else None)
        assert r.status == 508 and time.monotonic() - t < 3 * net.SLOW
    assert p.process.poll() is None


def test_two_proxies_in_a_row_are_no_loop(start, http, origin):
    inner = http()
    outer = start({"type": "http", "endpoint": inner.url, **({"tls": {"ca_file": inner.ca}} if inner.ca else {})})
    origin.put("/b/k", 100 * KIB, headers={"Cache-Control": "max-age=60"})
    r, _ = outer.get_checked("/b/k", 100 * KIB)
    assert r.all("x-cache") == ["MISS"] and len(r.all("date")) == 1
    assert sum("s3dlio-proxy" in v for v in r.all("via")) == 2
    r, _ = outer.get_checked("/b/k", 100 * KIB)
    assert r.all("x-cache") == ["HIT"]
    r = outer.get("/b/k", {"Cache-Control": "no-cache"})
    assert r.get("x-cache") == "REVALIDATED"
    assert origin.log()[-1].status == 304, "no-cache has to reach the origin through all caches"
    r = outer.fetch("PUT", "/b/k", body=b"x")
    assert r.all("x-cache") == ["BYPASS"]


def test_passed_answers_keep_the_date_of_the_origin(http, origin):
    p = http()
    date = "Mon, 01 Jan 2024 00:00:00 GMT"
    origin.on(method="POST", status=200, body=b"x", headers={"Date": date, "X-Cache": "HIT"})
    r = p.fetch("POST", "/b/k", body=b"x")
    assert r.all("date") == [date] and r.all("x-cache") == ["BYPASS"]


def test_age_is_for_what_the_origin_was_not_asked_for(http, origin):
    p = http()
    origin.put("/b/k", 10)
    assert p.get("/b/k").get("age") is None
    assert p.get("/b/k").get("age") is not None
    assert p.get("/b/none").get("age") is None


def test_cookies_go_to_who_asked_and_to_nobody_else(http, origin):
    p = http()
    origin.put("/b/k", 10, headers={"Set-Cookie": "id=1", "Cache-Control": "max-age=60"})
    assert p.get("/b/k").get("set-cookie") == "id=1"
    r = p.get("/b/k")
    assert r.get("x-cache") == "HIT" and r.get("set-cookie") is None
    origin.on(path="/login", status=302, body=b"", headers={"Location": "/b/k", "Set-Cookie": "id=2"})
    assert p.get("/login").get("set-cookie") == "id=2"


def test_405_says_what_is_allowed(http):
    p = http(server={"routes": [{"path": "/", "origin": "o", "methods": ["GET", "HEAD"]},
                                {"path": "/_s3dlio/", "handler": "admin"}]})
    assert p.fetch("DELETE", "/b/k").get("allow") == "GET, HEAD"
    assert "GET" in p.fetch("TRACE", "/b/k").get("allow")


def test_several_range_fields_are_several_ranges(http, origin):
    p = http()
    origin.put("/b/k", 100)
    for _ in range(2):
        r = p.get("/b/k", [("Range", "bytes=0-1"), ("Range", "bytes=5-6")])
        assert r.status == 200 and len(r.body) == 100


# what selects a representation

def test_vary_compares_all_lines_of_a_field_and_its_absence(http, origin):
    p = http()
    origin.put("/b/k", 10, headers={"Vary": "X-A"})
    kinds = [[], [("X-A", "")], [("X-A", "1")], [("X-A", "1"), ("X-A", "2")], [("X-A", "1"), ("X-A", "3")]]
    for want in ("MISS", "HIT"):
        for fields in kinds:
            assert p.get("/b/k", fields).get("x-cache") == want, fields
    assert p.get("/b/k", [("x-a", "1, 2")]).get("x-cache") == "HIT"
    assert p.get("/b/k", [("X-A", "2"), ("X-A", "1")]).get("x-cache") == "MISS"


def test_pages_of_other_sites_do_not_share_s3_answers(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 10)
    origin.on(path="/b/k", when=lambda r: r.get("origin"), headers={"Access-Control-Allow-Origin": "*"})
    assert p.get("/b/k").get("access-control-allow-origin") is None
    assert p.get("/b/k", {"Origin": "http://a.test"}).get("access-control-allow-origin") == "*"
    assert cache_of(p, "/b/k", Origin="http://a.test") == "HIT"
    p.fetch("DELETE", "/b/k")
    assert p.get("/b/k", {"Origin": "http://a.test"}).status == 404


def test_bucket_owner_is_checked_by_the_origin_each_time(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 10)
    p.get("/b/k")
    origin.on(when=lambda r: r.get("x-amz-expected-bucket-owner") == "999", status=403, body=b"<Error/>")
    assert p.get("/b/k", {"x-amz-expected-bucket-owner": "999"}).status == 403
    assert cache_of(p, "/b/k") == "HIT"


def test_checksums_of_a_part_are_not_told_as_the_objects(s3ish, origin):
    p = s3ish(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "64KiB"}})
    origin.put("/b/k", 200 * KIB)
    origin.on(path="/b/k", when=lambda r: r.range_header, headers={"x-amz-checksum-crc32": "AAAAAA=="})
    for _ in range(2):
        r, _ = p.get_checked("/b/k", 200 * KIB)
        assert r.get("x-amz-checksum-crc32") is None


# answers for one person

def test_refusals_of_a_web_server_are_not_shared_in_line(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    gate = threading.Event()
    origin.on(path="/b/k", when=lambda r: not r.get("authorization"), status=401, body=b"who are you", gate=gate)
    got = {}

    def ask(name, headers):
        got[name] = p.get("/b/k", headers)

    first = threading.Thread(target=ask, args=("first", {}))
    first.start()
    net.wait_until("the first asks", lambda: origin.count() == 1)
    second = threading.Thread(target=ask, args=("second", {"Authorization": "Basic x"}))
    second.start()
    time.sleep(0.2 * net.SLOW)
    gate.set()
    first.join(20), second.join(20)
    assert got["first"].status == 401 and got["second"].status == 200


# what the request asks of the cache

def test_only_if_cached_never_reaches_the_origin(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "64KiB"}})
    only = {"Cache-Control": "only-if-cached"}
    size = 200 * KIB
    origin.put("/b/k", size)
    p.get("/b/k", {"Range": "bytes=0-9"})
    n = origin.count()
    assert p.get("/b/k", {"Range": "bytes=5-9", **only}).status == 206
    assert p.get("/b/k", only).status == 504
    assert p.fetch("HEAD", "/b/k", only).status == 200
    assert p.get("/b/k", {"Cache-Control": "only-if-cached, no-store"}).status == 504
    assert origin.count() == n
    origin.put("/b/private", 10, headers={"Cache-Control": "private"})
    p.get("/b/private")
    n = origin.count()
    assert p.get("/b/private", only).status == 504
    assert origin.count() == n


def test_max_age_0_asks_the_origin_at_once(http, origin):
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k")
    time.sleep(0.05)
    r = p.get("/b/k", {"Cache-Control": "max-age=0"})
    assert r.get("x-cache") == "REVALIDATED" and "fwd=request" in r.get("cache-status")


def test_max_stale_is_told_as_stale(http, origin):
    p = http(cache={"fresh_for": "200ms"})
    origin.put("/b/k", 10)
    p.get("/b/k")
    time.sleep(0.3)
    r = p.get("/b/k", {"Cache-Control": "max-stale=100"})
    assert r.get("x-cache") == "STALE" and "ttl=-" in r.get("cache-status")


def test_a_new_version_behind_a_validation_is_a_miss(http, origin):
    p = http(cache={"fresh_for": "200ms"})
    origin.put("/b/k", 10)
    p.get("/b/k")
    time.sleep(0.3)
    origin.put("/b/k", 20, version=2)
    r, _ = p.get_checked("/b/k", 20, versions=(2,))
    assert r.get("x-cache") == "MISS" and "fwd=stale" in r.get("cache-status")


def test_all_who_stood_in_line_for_a_dead_origin_are_told_stale(http, origin):
    p = http(cache={"fresh_for": "200ms", "stale_if_error": "1h"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", 10)
    p.get("/b/k")
    time.sleep(0.3)
    origin.on(path="/b/k", status=503, delay=0.3)
    got = []
    together(p, 8, lambda i: got.append(p.get("/b/k").get("x-cache")))
    assert got == ["STALE"] * 8


def test_conditions_on_an_answer_of_unknown_length(http, origin):
    p = http()
    origin.put("/b/k", 1000, etag='"e1"')
    origin.on(path="/b/k", chunked=True)
    assert p.get("/b/k", {"If-None-Match": '"e1"'}).status == 304
    assert p.get("/b/k", {"If-Match": '"e2"'}).status == 412
    assert p.get("/b/k", {"If-Match": '"e1"'}).body == content("/b/k", 1, 0, 1000)


def test_304_after_dates_only_says_each_field_once(http, origin):
    p = http(cache={"fresh_for": "200ms"})
    origin.put("/b/k", 10, etag="", headers={})
    p.get("/b/k")
    time.sleep(0.3)
    origin.on(path="/b/k", status=304, headers={"Content-Type": "text/other", "Cache-Control": "max-age=60"})
    p.get("/b/k")
    r = p.get("/b/k")
    assert r.all("content-type") == ["binary/octet-stream"] and r.all("cache-control") == ["max-age=60"]


def test_a_304_about_another_version_refreshes_nothing(http, origin):
    p = http(cache={"fresh_for": "200ms"})
    origin.put("/b/k", 1000, etag='"e1"')
    p.get("/b/k")
    time.sleep(0.3)
    origin.put("/b/k", 1000, version=2, etag='"e2"')
    origin.on(path="/b/k", times=1, status=304, headers={"ETag": '"e2"', "Cache-Control": "max-age=60"})
    r = p.get("/b/k")
    assert (r.status, r.get("etag"), r.body) == (200, '"e2"', content("/b/k", 2, 0, 1000))
    assert [x.status for x in origin.log()][1] == 304 and "if-none-match" not in origin.log()[-1].headers


# requests to S3

def test_signatures_in_the_query_stay_here(s3ish, origin):
    p = s3ish()
    auth = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a&X-Amz%2DSignature=b&X-Amz-Expires=9&X-Amz-Security-Token=t"
    origin.put("/b/k", 10)
    fields = {"Authorization": "AWS4-HMAC-SHA256 x", "x-amz-security-token": "t", "x-amz-date": "d"}
    assert p.get("/b/k?" + auth, fields).status == 200
    assert p.fetch("PUT", "/b/k?" + auth, fields, b"x").status == 200
    assert p.get("/b/k?tagging&" + auth, fields).status == 200
    assert [r.target for r in origin.log()] == ["/b/k", "/b/k", "/b/k?tagging"]
    for r in origin.log():
        assert not any(r.get(n) for n in fields), r.headers


def test_unsigned_trailer_uploads_without_a_length_get_one(s3ish, origin):
    p = s3ish()
    data = b"0123456789" * 1000
    body = b"%x\r\n%s\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n" % (len(data), data)
    with p.connect() as c:
        c.request("PUT", "/b/k", {"x-amz-content-sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
                                  "x-amz-decoded-content-length": str(len(data)), "Content-Encoding": "aws-chunked",
                                  "x-amz-trailer": "x-amz-checksum-crc32"}, streamed=True)
        c.send_part(body)
        c.send_end()
        assert c.response("PUT").status == 200
    rec = origin.log()[0]
    assert rec.get("transfer-encoding") is None and int(rec.get("content-length")) == len(rec.body)
    assert rec.body.startswith(b"2710\r\n0123") and b"x-amz-checksum-crc32:AAAAAA==" in rec.body


# routes and readiness

def test_allow_and_deny_see_through_mapped_addresses(tmp_path, start, origin):
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    p = start({"type": "http", "endpoint": origin.url},
              server={"routes": [{"path": "/", "origin": "o", "deny": ["::ffff:127.0.0.1/128"]},
                                 {"path": "/open/", "origin": "o", "allow": ["::ffff:127.0.0.0/104"]},
                                 {"path": "/_s3dlio/", "handler": "admin"}]})
    origin.put("/open/k", 10)
    assert p.get("/b/k").status == 403
    assert p.get("/open/k").status == 200


def test_the_route_that_names_the_host_best_wins(start, origin):
    from origin import Origin
    others = [Origin(), Origin()]
    try:
        p = start({"type": "http", "endpoint": origin.url},
                  origins={"any": {"type": "http", "endpoint": others[0].url},
                           "exact": {"type": "http", "endpoint": others[1].url}},
                  server={"routes": [{"path": "/", "hosts": ["*.test"], "origin": "any"},
                                     {"path": "/", "hosts": ["a.test"], "origin": "exact"},
                                     {"path": "/", "origin": "o"},
                                     {"path": "/_s3dlio/", "handler": "admin"}]})
        for host, o in (("a.test", others[1]), ("A.TEST.:80", others[1]), ("b.test", others[0]), ("test", origin)):
            n = o.count()
            p.get("/b/k", {"Host": host})
            assert o.count() == n + 1, host
    finally:
        for o in others:
            o.stop()


def test_not_ready_while_no_origin_can_be_reached(http, origin):
    p = http(o={"retry": {"attempts": 1}})
    origin.put("/b/k", 10)
    assert p.get("/_s3dlio/ready").status == 200
    origin.stop()
    for _ in range(6):
        p.get("/b/none")
    assert p.get("/_s3dlio/ready").status == 503
    assert p.get("/_s3dlio/health").status == 200


def test_statistics_while_the_workers_end(http, origin):
    """One worker is still busy when the other has nothing left and takes its origins down."""
    import signal
    p = http(workers=4)
    origin.put("/b/k", 10)
    conns = [p.conn() for _ in range(16)]
    try:
        for c in conns:
            c.request("GET", "/b/k")
            c.response()
            c.send("GET /_s3dlio/stats HTTP/1.1\r\n")   # begun, so it is served even in a drain
        p.signal(signal.SIGTERM)
        for c in conns:
            time.sleep(0.02)
            c.send("Host: x\r\n\r\n")
            assert json.loads(c.response().body)["origins"]["o"]["requests"] == 1
    finally:
        for c in conns:
            c.close()
    assert p.wait() == 0
    p.ended()


def test_a_failed_validation_does_not_make_everybody_wait_in_turn(http, origin):
    p = http(cache={"fresh_for": "200ms"}, o={"retry": {"attempts": 1}})
    origin.put("/b/k", 10)
    p.get("/b/k")
    time.sleep(0.3)
    origin.on(path="/b/k", status=500, delay=0.3)
    start = time.monotonic()
    together(p, 40, lambda i: _is(p.get("/b/k").status, 500))
    assert time.monotonic() - start < 4 * net.SLOW


def _is(got, want):
    assert got == want


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_suffix_of_what_is_not_there(s3ish, origin, status):
    p = s3ish(o={"retry": {"attempts": 1}})
    origin.on(path="/b/none", status=status, body=b"<Error>why</Error>")
    for method, body in (("GET", b"<Error>why</Error>"), ("HEAD", b"")):
        r = p.fetch(method, "/b/none", {"Range": "bytes=-5"})
        assert r.status == status and r.body == body
    together(p, 10, lambda i: _is(p.get("/b/none", {"Range": "bytes=-5"}).body, b"<Error>why</Error>"))
    assert origin.count() <= 30


def test_a_file_origin_does_not_mind_who_asks(start, tmp_path):
    (tmp_path / "root" / "b").mkdir(parents=True)
    (tmp_path / "root" / "b" / "k").write_bytes(b"data")
    p = start({"type": "file", "root": str(tmp_path / "root")})
    auth = {"Authorization": "AWS4-HMAC-SHA256 x"}
    assert [p.get("/b/k", auth).get("x-cache") for _ in range(2)] == ["MISS", "HIT"]
