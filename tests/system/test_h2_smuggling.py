"""Requests over HTTP/2 that would mean something else once they are HTTP/1.1 to the origin (RFC 9113 section 8.2, 8.3, 10.3):
refused, each alone - the connection goes on - and nothing of them reaches the origin. And what does reach it, exactly."""
import hpack
import net
import proxy as proxy_module
import pytest
from origin import Origin
from test_h2_abuse import (DATA, END_HEADERS, END_STREAM, HEADERS, RST_STREAM, WINDOW_UPDATE, Attacker, frame, u32)

pytestmark = pytest.mark.ways("h1")   # they speak HTTP/2 by hand

PROTOCOL_ERROR = 1
METHOD, SCHEME, AUTHORITY, PATH = (b":method", b"PUT"), (b":scheme", b"http"), (b":authority", b"proxy.test"), (b":path", b"/b/k")
USUAL = [METHOD, SCHEME, AUTHORITY, PATH]


def usual(**other):
    """The four pseudo-fields with others' values; None: without it."""
    fields = [(n, other.get(n[1:].decode(), v)) for n, v in USUAL]
    return [(n, v) for n, v in fields if v is not None]


CASES = {
    "crlf_in_a_value": USUAL + [(b"x-a", b"1\r\nx-b: 2")],
    "cr_in_a_value": USUAL + [(b"x-a", b"1\rb")],
    "lf_in_a_value": USUAL + [(b"x-a", b"1\nx-b: 2")],
    "nul_in_a_value": USUAL + [(b"x-a", b"a\x00b")],
    "control_in_a_value": USUAL + [(b"x-a", b"a\x01b")],
    "delete_in_a_value": USUAL + [(b"x-a", b"a\x7fb")],
    "request_in_a_value": USUAL + [(b"x-a", b"1\r\n\r\nGET /b/smuggled HTTP/1.1\r\nhost: x\r\n\r\n")],
    "crlf_in_a_name": USUAL + [(b"x-a\r\nx-b", b"1")],
    "colon_in_a_name": USUAL + [(b"transfer-encoding: chunked\r\nx-a", b"1")],
    "space_in_a_name": USUAL + [(b"x a", b"1")],
    "space_behind_a_name": USUAL + [(b"transfer-encoding ", b"chunked")],
    "nul_in_a_name": USUAL + [(b"x\x00a", b"1")],
    "upper_case_name": USUAL + [(b"X-A", b"1")],
    "upper_case_in_the_middle": USUAL + [(b"transfer-Encoding", b"chunked")],
    "empty_name": USUAL + [(b"", b"1")],
    "colon_name": USUAL + [(b":", b"1")],
    "bytes_above_ascii_in_a_name": USUAL + [(b"x-\xe4", b"1")],
    "transfer_encoding": USUAL + [(b"transfer-encoding", b"chunked")],
    "transfer_encoding_identity": USUAL + [(b"transfer-encoding", b"identity")],
    "connection": USUAL + [(b"connection", b"close")],
    "connection_names_a_field": USUAL + [(b"connection", b"x-amz-date"), (b"x-amz-date", b"1")],
    "keep_alive": USUAL + [(b"keep-alive", b"timeout=5")],
    "proxy_connection": USUAL + [(b"proxy-connection", b"close")],
    "upgrade": USUAL + [(b"upgrade", b"websocket")],
    "te": USUAL + [(b"te", b"gzip")],
    "te_list": USUAL + [(b"te", b"trailers, chunked")],
    "length_twice": USUAL + [(b"content-length", b"5"), (b"content-length", b"5")],
    "length_twice_different": USUAL + [(b"content-length", b"5"), (b"content-length", b"6")],
    "length_list": USUAL + [(b"content-length", b"5, 5")],
    "length_plus": USUAL + [(b"content-length", b"+5")],
    "length_minus": USUAL + [(b"content-length", b"-5")],
    "length_hex": USUAL + [(b"content-length", b"0x5")],
    "length_empty": USUAL + [(b"content-length", b"")],
    "length_overflow": USUAL + [(b"content-length", b"18446744073709551621")],
    "length_too_small": USUAL + [(b"content-length", b"4")],
    "length_too_large": USUAL + [(b"content-length", b"6")],
    "length_zero_with_a_body": USUAL + [(b"content-length", b"0")],
    "pseudo_field_after_others": [METHOD, SCHEME, AUTHORITY, (b"x-a", b"1"), PATH],
    "pseudo_field_twice": USUAL + [PATH],
    "authority_twice": [METHOD, SCHEME, AUTHORITY, (b":authority", b"other.test"), PATH],
    "unknown_pseudo_field": [*USUAL, (b":x", b"1")],
    "status_in_a_request": [*USUAL, (b":status", b"200")],
    "protocol": [*USUAL, (b":protocol", b"websocket")],
    "no_method": usual(method=None),
    "no_scheme": usual(scheme=None),
    "no_path": usual(path=None),
    "no_authority": usual(authority=None),
    "empty_path": usual(path=b""),
    "empty_method": usual(method=b""),
    "request_line_in_the_method": usual(method=b"GET /b/smuggled HTTP/1.1\r\nhost: x\r\n\r\nPUT"),
    "space_in_the_method": usual(method=b"PUT /b/smuggled"),
    "version_in_the_path": usual(path=b"/b/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"),
    "space_in_the_path": usual(path=b"/b/k HTTP/1.1"),
    "tab_in_the_path": usual(path=b"/b/\tk"),
    "nul_in_the_path": usual(path=b"/b/\x00k"),
    "path_without_slash": usual(path=b"b/k"),
    "absolute_path": usual(path=b"http://other.test/b/k"),
    "asterisk_of_a_put": usual(path=b"*"),
    "fragment": usual(path=b"/b/k#x"),
    "authority_with_user": usual(authority=b"u@proxy.test"),
    "authority_with_path": usual(authority=b"proxy.test/b"),
    "authority_with_crlf": usual(authority=b"proxy.test\r\nx-a: 1"),
    "authority_empty": usual(authority=b""),
    "strange_scheme": usual(scheme=b"ftp"),
    "scheme_with_crlf": usual(scheme=b"http\r\nx-a: 1"),
    "host_says_something_else": USUAL + [(b"host", b"other.test")],
    "host_with_another_port": USUAL + [(b"host", b"proxy.test:1")],
    "two_hosts": usual(authority=None) + [(b"host", b"a.test"), (b"host", b"b.test")],
    "host_with_crlf": usual(authority=None) + [(b"host", b"a.test\r\nx-a: 1")],
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One proxy for all of them: none may hurt the next."""
    o = Origin()
    o.put("/b/fine", 10)
    port = net.free_port()
    p = proxy_module.Proxy(tmp_path_factory.mktemp("smuggling"),
                           proxy_module.config(port, {"type": "http", "endpoint": o.url}), port)
    p.wait_ready()
    yield p, o
    try:
        p.stop()
    finally:
        p.kill()
        o.stop()


@pytest.fixture
def client(shared):
    a = Attacker(shared[0].address)
    yield a
    a.close()


def encoded(fields):
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*f) for f in fields])


@pytest.mark.parametrize("name", CASES)
def test_request_that_is_no_http_is_refused(shared, client, name):
    p, o = shared
    before = len(o.log())
    fine = [(b":method", b"GET"), SCHEME, AUTHORITY, (b":path", b"/b/fine")]
    client.send(frame(HEADERS, END_HEADERS, 1, encoded(CASES[name])) + frame(DATA, END_STREAM, 1, b"hello"))
    client.until("its end", lambda: 1 in client.resets or 1 in client.ended)
    if 1 in client.ended:
        assert client.status[1] == "400"
    else:
        assert client.resets[1] == PROTOCOL_ERROR
        assert 1 not in client.status or client.status[1] in ("400", "502"), client.status
    client.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, encoded(fine)))
    client.until("the next request", lambda: 3 in client.ended)
    assert client.status[3] == "200" and client.goaway is None
    # not even a part of a body that is unlike its length is an object
    got = o.log()[before:]
    assert all(r.path in ("/b/fine", "/b/k") and r.get("x-a") is None and r.get("x-b") is None for r in got)
    assert "/b/k" not in o.objects, "taken for a whole request"
    if not name.startswith("length"):
        assert len(got) <= 1, [r.target for r in got]


class Seen:
    """What the origin got."""

    def __init__(self, o, path):
        self.all = [r for r in o.log() if r.path == path]

    def only(self):
        assert len(self.all) == 1, self.all
        return self.all[0]


def exchange(client, stream, fields, *pieces):
    client.send(frame(HEADERS, END_HEADERS | (0 if pieces else END_STREAM), stream, encoded(fields))
                + b"".join(frame(DATA, END_STREAM if i == len(pieces) - 1 else 0, stream, b) for i, b in enumerate(pieces)))
    client.until("its answer", lambda: stream in client.ended)
    return client.status[stream]


def test_what_reaches_the_origin_is_one_request(shared, client):
    p, o = shared
    fields = [(b":method", b"PUT"), SCHEME, AUTHORITY, (b":path", b"/b/one?x=a%0d%0ab"), (b"cookie", b"a=1"),
              (b"te", b"trailers"), (b"x-a", b"v"), (b"cookie", b"b=2"), (b"host", b"PROXY.test")]
    assert exchange(client, 1, fields, b"GET /b/smuggled HTTP/1.1\r\nhost: x\r\n\r\n") == "200"
    r = Seen(o, "/b/one").only()
    assert r.target == "/b/one?x=a%0d%0ab" and r.method == "PUT"
    assert r.get("cookie") == "a=1; b=2" and r.get("te") is None and r.get("x-a") == "v"
    assert o.count("/b/smuggled") == 0
    assert o.objects["/b/one"].data == b"GET /b/smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
    # without a length it is chunked there; and what looks like chunks here is data
    assert exchange(client, 3, usual(path=b"/b/two"), b"5\r\nhello\r\n", b"0\r\n\r\n") == "200"
    assert o.objects["/b/two"].data == b"5\r\nhello\r\n0\r\n\r\n"
    with_length = [(n, v if n != b":path" else b"/b/three") for n, v in USUAL] + [(b"content-length", b"15")]
    assert exchange(client, 5, with_length, b"5\r\nhello\r\n", b"0\r\n\r\n") == "200"
    assert o.objects["/b/three"].data == b"5\r\nhello\r\n0\r\n\r\n"
    assert Seen(o, "/b/three").only().get("content-length") == "15"


def test_trailers_do_not_become_fields(shared, client):
    p, o = shared
    client.send(frame(HEADERS, END_HEADERS, 1, encoded(usual(path=b"/b/trailed"))) + frame(DATA, 0, 1, b"hello")
                + frame(HEADERS, END_HEADERS | END_STREAM, 1, encoded([(b"x-amz-meta-late", b"1"), (b"content-length", b"99")])))
    client.until("its end", lambda: 1 in client.ended or 1 in client.resets)
    for r in Seen(o, "/b/trailed").all:
        assert r.get("x-amz-meta-late") is None and r.get("content-length") != "99"
    # a pseudo-field among them is malformed
    client.send(frame(HEADERS, END_HEADERS, 3, encoded(usual(path=b"/b/pseudo-trailed"))) + frame(DATA, 0, 3, b"hello")
                + frame(HEADERS, END_HEADERS | END_STREAM, 3, encoded([(b":path", b"/b/smuggled")])))
    client.until("its end", lambda: 3 in client.resets)
    assert client.resets[3] == PROTOCOL_ERROR and "/b/pseudo-trailed" not in o.objects and o.count("/b/smuggled") == 0


class Informed(Attacker):
    """Keeps every status of a stream."""

    def __init__(self, *args):
        self.statuses = {}
        super().__init__(*args)

    def took(self, kind, flags, stream, payload):
        if kind == HEADERS:
            self.statuses.setdefault(stream, []).append(dict(self.decoder.decode(payload))[":status"])
            if flags & END_STREAM:
                self.ended.add(stream)
        else:
            super().took(kind, flags, stream, payload)


def test_continue_is_asked_for_and_then_the_body_comes(shared):
    p, o = shared
    a = Informed(p.address)
    try:
        fields = usual(path=b"/b/continued") + [(b"content-length", b"5"), (b"expect", b"100-continue")]
        a.send(frame(HEADERS, END_HEADERS, 1, encoded(fields)))
        a.until("100", lambda: a.statuses.get(1) == ["100"])
        a.send(frame(DATA, END_STREAM, 1, b"hello"))
        a.until("the answer", lambda: 1 in a.ended)
        assert a.statuses[1] == ["100", "200"] and o.objects["/b/continued"].data == b"hello"
        # a reset between the question and the body; then an answer that needs no body
        a.send(frame(HEADERS, END_HEADERS, 3, encoded(fields)))
        a.until("100", lambda: a.statuses.get(3) == ["100"])
        a.send(frame(RST_STREAM, 0, 3, u32(8)) + frame(WINDOW_UPDATE, 0, 3, u32(1)))
        a.send(frame(HEADERS, END_HEADERS, 5, encoded([(b":method", b"TRACE"), *fields[1:]])))
        a.until("the answer", lambda: 5 in a.ended)
        assert a.statuses[5] in (["405"], ["501"]) and a.goaway is None
    finally:
        a.close()
    net.wait_until("the exchanges are gone", lambda: p.stats()["requests"]["in_flight"] <= 1)
