"""Requests over HTTP/2 that are refused while their body is on its way (RFC 9113 section 8.1): the client gets the whole
answer; if its body has much left then, or does not end soon, RST_STREAM(NO_ERROR) after it, which says that the rest is
not wanted, and otherwise nothing. And the ids that S3 clients print, on errors that no handler made."""
import re

import net
import pytest
import raw
from test_h2_abuse import (CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Attacker, frame, head)

pytestmark = pytest.mark.ways("h1")   # they speak HTTP/2 by hand

NO_ERROR = 0
KIB = 1 << 10

# name: (status, method, path, more fields)
REFUSED = {
    "too_large_by_its_length": (413, "PUT", "/b/up", [("content-length", "60000")]),
    "too_large_on_the_way": (413, "PUT", "/b/up", []),
    "method_of_the_route": (405, "PUT", "/only-get/up", []),
    "expectation": (417, "PUT", "/b/up", [("expect", "a-miracle")]),
    "target": (414, "PUT", "/b/" + "k" * 9000, []),
    "not_allowed": (403, "PUT", "/denied/up", []),
}


@pytest.fixture
def proxy(http):
    routes = [{"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]},
              {"path": "/only-get/", "origin": "o", "methods": ["GET"]},
              {"path": "/denied/", "origin": "o", "deny": ["127.0.0.0/8"]},
              {"path": "/", "origin": "o", "cache": "main"}]
    return http(server={"routes": routes}, limits={"max_body": "16KiB"})


def body(stream, size, ends):
    pieces = [b"x" * min(16 * KIB, size - at) for at in range(0, size, 16 * KIB)]
    return b"".join(frame(DATA, END_STREAM if ends and i == len(pieces) - 1 else 0, stream, p) for i, p in enumerate(pieces))


@pytest.mark.parametrize("ends", [True, False], ids=["whole_body", "half_a_body"])
@pytest.mark.parametrize("name", REFUSED)
def test_refused_upload_gets_its_answer(proxy, origin, name, ends):
    status, method, path, more = REFUSED[name]
    size = 60000 if ends else 30000   # within the window of a client that acknowledges no SETTINGS
    a = Attacker(proxy.address)
    try:
        block = head(path, method, more)
        for stream in (1, 3):   # the connection stays good
            a.send(frame(HEADERS, END_HEADERS, stream, block) + body(stream, size, ends))
            a.until("the answer's end", lambda: stream in a.ended)
            assert a.status.get(stream) == str(status), (a.status, a.resets)
            assert a.data[stream] > 100, (a.data, a.resets)
        a.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, head("/b/none")))
        a.until("404", lambda: a.status.get(5) == "404")
        if not ends:
            a.until("the rest to be declined", lambda: set(a.resets) == {1, 3})
        net.wait_until("the exchanges are gone", lambda: proxy.stats()["requests"]["in_flight"] <= 1)
        a.take(0.1)
        assert a.resets == ({} if ends else {1: NO_ERROR, 3: NO_ERROR})
        assert a.goaway is None
    finally:
        a.close()
    assert not origin.objects


def test_refused_large_upload_is_declined_at_once(proxy):
    """It says how much is to come: more than is worth waiting for."""
    a = Attacker(proxy.address)
    try:
        a.send(frame(HEADERS, END_HEADERS, 1, head("/b/up", "PUT", [("content-length", "1000000000")])))
        a.until("the answer", lambda: 1 in a.ended and 1 in a.resets)
        assert a.status[1] == "413" and a.resets == {1: NO_ERROR}
    finally:
        a.close()


# ---- ids

H1_ERRORS = {
    431: b"GET /b/k HTTP/1.1\r\nHost: x\r\nX: " + b"v" * 40000 + b"\r\n\r\n",
    414: b"GET /b/" + b"k" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    413: b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
    501: b"PUT /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    400: b"GET /b/k HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    417: b"PUT /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: a-miracle\r\n\r\n",
    505: b"GET /b/k HTTP/3.0\r\nHost: x\r\n\r\n",
}


def same_id(text, given):
    found = re.search(rb"<RequestId>([0-9A-F]{16})</RequestId>", text)
    assert found, text
    assert given == found[1].decode(), (given, text)
    return given


@pytest.mark.parametrize("status", H1_ERRORS)
def test_errors_of_the_parser_have_a_request_id(proxy, status):
    ids = set()
    for _ in range(2):
        with proxy.conn() as c:
            try:
                c.send(H1_ERRORS[status])
            except (BrokenPipeError, ConnectionResetError):
                pass
            r = c.response()
            assert r.status == status, r
            ids.add(same_id(r.body, r.get("x-amz-request-id")))
    assert len(ids) == 2


def test_a_head_that_does_not_end_has_a_request_id_too(http):
    p = http(server={"timeouts": {"head": "300ms"}})
    with p.conn() as c:
        c.send("GET /b/k HTTP/1.1\r\nHo")
        r = c.response()
    assert r.status == 408
    same_id(r.body, r.get("x-amz-request-id"))


class Teller(Attacker):
    """Keeps fields and bodies."""

    def __init__(self, *args):
        self.fields, self.bodies = {}, {}
        super().__init__(*args)

    def took(self, kind, flags, stream, payload):
        if kind == HEADERS:
            self.fields[stream] = dict(self.decoder.decode(payload))
            self.status[stream] = self.fields[stream][":status"]
            if flags & END_STREAM:
                self.ended.add(stream)
            return
        if kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        super().took(kind, flags, stream, payload)


def test_errors_of_http_2_have_a_request_id(proxy):
    a = Teller(proxy.address)
    big = head("/b/k", "GET", [("x-%d" % i, "v" * 1000) for i in range(40)])
    try:
        a.send(frame(HEADERS, END_STREAM, 1, big[:16000]) + frame(CONTINUATION, 0, 1, big[16000:32000])
               + frame(CONTINUATION, END_HEADERS, 1, big[32000:]))
        a.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, head("/b/" + "k" * 9000)))
        a.send(frame(HEADERS, END_HEADERS | END_STREAM, 5, head("/b/k", "GET", [("expect", "a-miracle")])))
        a.until("answers", lambda: {1, 3, 5} <= a.ended)
        assert a.status == {1: "431", 3: "414", 5: "417"}
        ids = {same_id(a.bodies[s], a.fields[s]["x-amz-request-id"]) for s in (1, 3, 5)}
        assert len(ids) == 3
    finally:
        a.close()


def test_those_over_the_limit_are_told_an_id(http):
    p = http(limits={"connections": 2})
    held = []
    try:
        answers = []
        for _ in range(90):   # beyond the slack of 64 they are not even read
            c = p.conn()
            held.append(c)
            c.request("GET", "/b/none")
            try:
                answers.append(c.response())
            except (raw.Broken, ConnectionResetError, BrokenPipeError):
                pass
        refused = [r for r in answers if r.status == 503]
        assert len(refused) > 70
        for r in refused:
            same_id(r.body, r.get("x-amz-request-id"))
    finally:
        for c in held:
            c.close()
