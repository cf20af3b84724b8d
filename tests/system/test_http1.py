"""HTTP/1.1 with clients: connections, pipelines, versions, targets, Expect."""
import time

import net
import pytest
from content import content

pytestmark = pytest.mark.ways("h1", "h1tls")
MIB = 1 << 20


def test_keep_alive_serves_many_requests_on_one_connection(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    with p.conn() as c:
        for _ in range(20):
            c.request("GET", "/b/k")
            r = c.response()
            assert r.status == 200 and (r.get("connection") or "").lower() != "close"
    assert p.stats()["connections"]["accepted"] >= 1


def test_pipelined_requests_are_answered_in_order(http, origin):
    p = http()
    for i in range(10):
        origin.put("/b/k%d" % i, 1000 + i)
    origin.on(path="/b/k0", delay=0.3)   # the first is the slowest
    with p.conn() as c:
        c.send(b"".join(b"GET /b/k%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(10)))
        for i in range(10):
            assert c.response().body == content("/b/k%d" % i, 1, 0, 1000 + i)


def test_pipelined_mix_of_methods_hits_and_errors(http, origin):
    p = http()
    origin.put("/b/k", 500)
    p.get("/b/k")
    with p.conn() as c:
        c.send(b"HEAD /b/k HTTP/1.1\r\nHost: x\r\n\r\n"
               b"GET /b/k HTTP/1.1\r\nHost: x\r\nRange: bytes=1-2\r\n\r\n"
               b"GET /b/none HTTP/1.1\r\nHost: x\r\n\r\n"
               b"PUT /b/new HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
               b"PUT /b/new2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
               b"GET /b/new HTTP/1.1\r\nHost: x\r\n\r\n"
               b"DELETE /b/new HTTP/1.1\r\nHost: x\r\n\r\n"
               b"GET /b/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert c.response("HEAD").get("content-length") == "500"
        assert c.response().status == 206
        assert c.response().status == 404
        assert c.response().status == 200
        assert c.response().status == 200
        assert c.response().body == b"hello"
        assert c.response().status == 204
        r = c.response()
        assert len(r.body) == 500 and r.get("connection").lower() == "close"
        assert c.is_closed()


def test_a_request_may_come_byte_by_byte(http, origin):
    p = http()
    origin.put("/b/k", 100)
    with p.conn() as c:
        for b in b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200 + b"\r\n\r\n":
            c.send(bytes([b]))
        assert c.response().status == 200


def test_empty_lines_before_a_request_are_skipped(http, origin):
    p = http()
    origin.put("/b/k", 100)
    with p.conn() as c:
        c.send(b"\r\n\r\nGET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
        assert c.response().status == 200


def test_http_1_0_closes_and_has_no_chunks(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    origin.on(path="/b/list", status=200, body=b"x" * 100, chunked=True)
    for target, n in (("/b/k", 1000), ("/b/k", 1000), ("/b/list", 100)):
        with p.conn() as c:
            c.request("GET", target, version="HTTP/1.0", host=None)
            r = c.response()
            assert len(r.body) == n and r.get("transfer-encoding") is None
            assert c.is_closed()


def test_http_1_0_keep_alive_when_asked(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    with p.conn() as c:
        for _ in range(2):
            c.request("GET", "/b/k", {"Connection": "keep-alive"}, version="HTTP/1.0")
            r = c.response()
            assert r.status == 200 and r.get("connection").lower() == "keep-alive"


def test_connection_close_is_honoured(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    with p.conn() as c:
        c.request("GET", "/b/k", {"Connection": "close"})
        assert c.response().get("connection").lower() == "close"
        assert c.is_closed()


def test_absolute_form_target_and_its_authority(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    for target in ("http://somewhere.test/b/k", "HTTP://somewhere.test:80/b/k", "http://somewhere.test/b/k?"):
        with p.conn() as c:
            c.request("GET", target, host="somewhere.test")
            assert c.response().body == content("/b/k", 1, 0, 1000), target
    assert origin.count("/b/k") <= 2
    assert all(r.target.startswith("/b/k") for r in origin.log())


@pytest.mark.parametrize("target", ["b/k", "*", "http://", "http:///b/k", "ftp://x/b/k", "/b/k#frag", "//"])
def test_a_strange_target_has_a_defined_answer(http, origin, target):
    p = http()
    origin.put("/b/k", 10)
    r = p.get(target)
    assert 400 <= r.status < 500
    assert b"<Error>" in r.body


def test_expect_100_continue_is_answered_promptly(http, origin):
    p = http()
    with p.conn() as c:
        start = time.monotonic()
        c.request("PUT", "/b/new", {"Expect": "100-continue", "Content-Length": "5"})
        assert c.head().status == 100
        assert time.monotonic() - start < 1 * net.SLOW
        c.send(b"hello")
        assert c.response("PUT").status == 200
        c.request("GET", "/b/new")     # and the connection goes on
        assert c.response().body == b"hello"


def test_expect_when_the_body_comes_at_once(http, origin):
    p = http()
    with p.conn() as c:
        c.request("PUT", "/b/new", {"Expect": "100-continue", "Content-Length": "5"}, body=b"hello")
        assert c.response("PUT").status == 200
    assert origin.objects["/b/new"].data == b"hello"


def test_expect_with_a_get_does_no_harm(http, origin):
    p = http()
    origin.put("/b/k", 10)
    with p.conn() as c:
        c.request("GET", "/b/k", {"Expect": "100-continue"})
        assert c.response().status == 200


def test_chunked_upload_reaches_the_origin_whole(http, origin):
    p = http()
    with p.conn() as c:
        c.request("PUT", "/b/new", {"Transfer-Encoding": "chunked"})
        for chunk in (b"a" * 10, b"b" * 70000, b"c"):
            c.send(b"%X;ext=1\r\n" % len(chunk) + chunk + b"\r\n")
        c.send(b"0\r\nTrailer: x\r\n\r\n")
        assert c.response("PUT").status == 200
    assert origin.objects["/b/new"].data == b"a" * 10 + b"b" * 70000 + b"c"


def test_chunked_answer_of_the_origin_reaches_the_client_whole(http, origin):
    p = http()
    body = content("/list", 1, 0, 300000)
    origin.on(path="/b", status=200, body=body, chunked=True)
    with p.conn() as c:
        for _ in range(2):
            c.request("GET", "/b?list-type=2")
            r = c.response()
            assert r.body == body


def test_every_response_has_one_date_and_one_length(http, origin):
    p = http()
    origin.put("/b/k", 10)
    for target in ("/b/k", "/b/k", "/b/none", "/_s3dlio/health"):
        r = p.get(target)
        assert len(r.all("date")) == 1
        assert len(r.all("content-length")) + len(r.all("transfer-encoding")) == 1


@pytest.mark.ways("h1")   # in TLS that is no half but a cut
def test_a_client_that_half_closes_after_its_request_still_gets_the_answer(http, origin):
    p = http()
    origin.put("/b/k", 3 * MIB)
    origin.on(path="/b/k", times=1, delay=0.2)
    import socket
    with p.conn() as c:
        c.request("GET", "/b/k")
        c.sock.shutdown(socket.SHUT_WR)
        assert len(c.response().body) == 3 * MIB


def test_many_connections_in_a_burst(http, origin):
    p = http()
    origin.put("/b/k", 100)
    p.get("/b/k")
    conns = [p.conn() for _ in range(300)]
    try:
        for c in conns:
            c.request("GET", "/b/k")
        for c in conns:
            assert c.response().status == 200
    finally:
        for c in conns:
            c.close()
    net.wait_until("connections closed", lambda: p.stats()["connections"]["open"] <= 2)


def test_worker_threads_share_the_connections(http, origin):
    p = http(workers=2)
    origin.put("/b/k", 100)
    for _ in range(20):
        assert p.get("/b/k").status == 200
