"""What is not a cacheable GET or HEAD passes through, streamed; a successful write drops the object from the cache."""
import threading
import time

import net
import pytest
import raw
from content import Checker, content, runs

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def cached(p, path, size, version=1):
    p.get_checked(path, size, versions=(version,))
    r, _ = p.get_checked(path, size, versions=(version,))
    assert r.get("x-cache") == "HIT"


def test_overwrite_through_the_proxy_is_seen_at_once(http, origin):
    p = http()
    origin.put("/b/k", 100000)
    cached(p, "/b/k", 100000)
    assert p.fetch("PUT", "/b/k", body=b"new bytes").status == 200
    r = p.get("/b/k")
    assert r.body == b"new bytes" and r.get("x-cache") == "MISS"


def test_delete_through_the_proxy_is_seen_at_once(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    cached(p, "/b/k", 1000)
    assert p.fetch("DELETE", "/b/k").status == 204
    assert p.get("/b/k").status == 404
    assert p.fetch("HEAD", "/b/k").status == 404


def test_delete_many_drops_the_bucket_keys(s3ish, origin):
    p = s3ish()
    for i in range(3):
        origin.put("/b/k%d" % i, 1000)
        cached(p, "/b/k%d" % i, 1000)
    body = (b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Object><Key>k0</Key></Object>'
            b"<Object><Key>k1</Key></Object></Delete>")
    for i in range(2):
        del origin.objects["/b/k%d" % i]
    assert p.fetch("POST", "/b?delete", {"Content-Type": "application/xml"}, body).status == 200
    assert p.get("/b/k0").status == 404 and p.get("/b/k1").status == 404
    p.get_checked("/b/k2", 1000)


@pytest.mark.parametrize("request_of", [
    ("PUT", "/b/k?tagging", b"<Tagging/>"), ("PUT", "/b/k?acl", b""), ("POST", "/b/k?uploadId=u", b"<Complete/>"),
    ("DELETE", "/b/k?versionId=1", None)], ids=lambda r: r[0] + r[1].replace("/", "_"))
def test_other_writes_to_the_key_drop_it_too(s3ish, origin, request_of):
    p = s3ish()
    origin.put("/b/k", 1000)
    cached(p, "/b/k", 1000)
    method, target, body = request_of
    origin.on(method=method, path="/b/k", status=200, body=b"<ok/>")
    assert p.fetch(method, target, body=body).status == 200
    origin.put("/b/k", 1000, version=2)
    p.get_checked("/b/k", 1000, versions=(2,))


def test_upload_part_and_aborted_upload_leave_the_object_cached(s3ish, origin):
    p = s3ish()
    origin.put("/b/k", 1000)
    cached(p, "/b/k", 1000)
    origin.on(method="PUT", path="/b/k", status=200, headers={"ETag": '"part"'})
    origin.on(method="DELETE", path="/b/k", status=204)
    assert p.fetch("PUT", "/b/k?partNumber=1&uploadId=u", body=b"part").status == 200
    assert p.fetch("DELETE", "/b/k?uploadId=u").status == 204
    assert p.get("/b/k").get("x-cache") == "HIT"


def test_failed_write_keeps_the_object(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    cached(p, "/b/k", 1000)
    origin.on(method="PUT", path="/b/k", status=403, body=b"<Error/>")
    assert p.fetch("PUT", "/b/k", body=b"x").status == 403
    p.get_checked("/b/k", 1000)


def test_write_whose_answer_is_lost_drops_the_object(http, origin):
    """Nobody knows whether it happened, so the old bytes must not be served as if it had not."""
    p = http()
    origin.put("/b/k", 1000)
    cached(p, "/b/k", 1000)
    origin.on(method="PUT", path="/b/k", call=lambda r: origin.put("/b/k", 1000, version=2), early=True, close="rst")
    r = p.fetch("PUT", "/b/k", body=b"x")
    assert r.status in (502, 504)
    p.get_checked("/b/k", 1000, versions=(2,))


def test_writes_are_not_sent_twice_after_a_failure(s3ish, origin):
    p = s3ish()
    origin.on(method="POST", path="/b/k", close="fin")
    assert p.fetch("POST", "/b/k?uploads", body=b"x").status == 502
    assert origin.count("/b/k", "POST") == 1


def test_a_fill_that_began_before_a_write_never_lands_after_it(http, origin):
    p = http(cache={"slice_size": "64KiB"}, o={"fetch": {"part_size": "256KiB", "max_in_flight": 2}})
    size, gate = MIB, threading.Event()
    origin.put("/b/k", size)
    origin.on(path="/b/k", method="GET", times=2, mid_gate=(100000, gate))
    out = []

    def read():
        check = Checker("/b/k")
        try:
            p.get("/b/k", checker=check)
            out.append("whole")
        except raw.Broken:
            out.append("broken")
        except AssertionError as e:
            out.append(e)
    t = threading.Thread(target=read)
    t.start()
    net.wait_until("the fill is under way", lambda: origin.count("/b/k") >= 1)
    origin.expect_upload("/b/k", 2)
    assert p.fetch("PUT", "/b/k", body=content("/b/k", 2, 0, size)).status == 200
    gate.set()
    t.join(30)
    assert out in (["whole"], ["broken"]), out
    for _ in range(2):
        p.get_checked("/b/k", size, versions=(2,))
        p.get_checked("/b/k", size, 300000, 1000, versions=(2,))


def test_request_fields_and_bodies_pass_through(http, origin):
    p = http()
    r = p.fetch("PUT", "/b/k%20x?x=1", {"x-amz-meta-a": "1", "Content-Type": "text/x", "Content-MD5": "q"}, b"body")
    assert r.status == 200 and r.get("etag")
    rec = origin.log()[0]
    assert (rec.method, rec.target, rec.body) == ("PUT", "/b/k%20x?x=1", b"body")
    assert rec.get("x-amz-meta-a") == "1" and rec.get("content-type") == "text/x" and rec.get("content-md5") == "q"
    assert rec.all("content-length") == ["4"]


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_empty_bodies_keep_their_length_of_zero(http, origin, method):
    p = http()
    p.fetch(method, "/b/k?x", {"Content-Length": "0"})
    assert origin.log()[0].all("content-length") == ["0"]
    assert origin.log()[0].get("transfer-encoding") is None


def test_options_passes_through(http, origin):
    p = http()
    origin.on(method="OPTIONS", path="/b/k", status=200, headers={"Access-Control-Allow-Origin": "*"})
    assert p.fetch("OPTIONS", "/b/k", {"Origin": "http://x", "Access-Control-Request-Method": "GET"}).get(
        "access-control-allow-origin") == "*"


def upload(p, path, size, pause=None, version=1):
    with p.connect(timeout=120) as c:
        c.request("PUT", path, {"Content-Length": str(size)})
        sent = 0
        for run in runs(path, version, 0, size):
            for at in range(0, len(run), MIB):
                c.send(run[at:at + MIB])
                sent += len(run[at:at + MIB])
                if pause:
                    pause(sent)
        return c.response("PUT")


@pytest.mark.heavy
def test_put_of_a_gibibyte_holds_a_few_mebibytes(http, origin):
    p = http()
    size = 128 * MIB if net.SANITIZER else GIB if p.way.name == "h1" else 256 * MIB
    origin.expect_upload("/b/big")
    before, peak = p.memory_kib(), [0]
    origin.on(method="PUT", path="/b/big", read_delay=0.0005)

    def watch(sent):
        if sent % (32 * MIB) == 0:
            peak[0] = max(peak[0], p.memory_kib()[0])
    assert upload(p, "/b/big", size, watch).status == 200
    rec = origin.log("/b/big", "PUT")[0]
    assert rec.body_ok is True and rec.received == size
    if not net.SANITIZER:
        assert peak[0] - before[0] < 8 << 10, "grew by %d KiB" % (peak[0] - before[0])


def test_an_origin_that_does_not_read_holds_the_client_back(http, origin):
    """Backpressure: what the proxy takes before the origin reads is bounded by buffers, not by the body."""
    p = http()
    gate, size = threading.Event(), 256 * MIB
    origin.on(method="PUT", path="/b/k", gate_body=gate)
    before = p.memory_kib()[1]
    with p.connect() as c:
        c.request("PUT", "/b/k", {"Content-Length": str(size)})
        c.timeout = 1   # of reading the windows of HTTP/2
        c.sock.settimeout(1)
        sent, block = 0, b"x" * MIB
        try:
            while sent < size:
                c.send(block)
                sent += MIB
        except TimeoutError:
            pass
        assert sent < 64 * MIB
        if not net.SANITIZER:
            assert p.memory_kib()[1] - before < 8 << 10
        gate.set()


def test_a_client_that_leaves_in_its_upload_does_not_make_it_whole(http, origin):
    p = http()
    with p.connect() as c:
        c.request("PUT", "/b/k", {"Content-Length": str(MIB)})
        c.send(b"x" * 100000)
        net.wait_until("it arrives", lambda: origin.count("/b/k") == 1)
    with p.connect() as c:
        c.request("PUT", "/b/c", streamed=True)
        c.send_part(b"x" * 65536)
        net.wait_until("it arrives", lambda: origin.count("/b/c") == 1)
    time.sleep(0.2)
    origin.settle()
    assert "/b/k" not in origin.objects and "/b/c" not in origin.objects
    assert p.stats()["requests"]["in_flight"] <= 1


def test_an_early_answer_of_the_origin_reaches_the_client(http, origin):
    p = http()
    origin.on(method="PUT", path="/b/k", early=True, status=403, body=b"<Error><Code>AccessDenied</Code></Error>",
              silent_close=True)
    with p.connect() as c:
        c.request("PUT", "/b/k", {"Content-Length": str(64 * MIB)})
        try:
            for _ in range(64):
                c.send(b"x" * MIB)
        except OSError:
            pass
        try:
            r = c.response("PUT")
            assert r.status == 403 and b"AccessDenied" in r.body
        except raw.Broken:
            pass   # TCP may lose it when the sender keeps pushing; it may never look like a success
    # an upload cannot be sent again: it may meet the connection that is just being closed
    net.wait_until("uploads work", lambda: p.fetch("PUT", "/b/other", body=b"x").status == 200)


def test_large_answers_that_are_not_cached_are_streamed(http, origin):
    p = http(server={"routes": [{"path": "/_s3dlio/", "handler": "admin"}, {"path": "/", "origin": "o"}]})
    size = 256 * MIB if not net.SANITIZER else 64 * MIB
    origin.put("/b/k", size)
    before = p.memory_kib()[1]
    peak = [0]

    def slow(got):
        if got % 8 == 0:
            peak[0] = max(peak[0], p.memory_kib()[1])
    r, _ = p.get_checked("/b/k", size, pause=slow)
    assert r.get("x-cache") == "BYPASS"
    if not net.SANITIZER:
        assert max(peak[0], p.memory_kib()[1]) - before < 8 << 10
