"""Requests on which two parsers could disagree: 400 and the connection closed, and nothing of it reaches the origin."""
import pytest

CASES = {
    "content_length_twice_different": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "content_length_twice_equal": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "content_length_list": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\nhello",
    "content_length_plus": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
    "content_length_minus": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello",
    "content_length_hex": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello",
    "content_length_space_inside": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5 0\r\n\r\nhello",
    "content_length_empty": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\nhello",
    "content_length_overflow": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "length_and_transfer_encoding": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer_encoding_and_length": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked_not_last": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked_twice": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked_in_two_fields": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_in_1_0": b"POST /b/k HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_misspelt": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "transfer_encoding_vertical_tab": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "space_before_colon": b"POST /b/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "tab_before_colon": b"POST /b/k HTTP/1.1\r\nHost: x\r\nContent-Length\t: 5\r\n\r\nhello",
    "space_before_name": b"POST /b/k HTTP/1.1\r\n Host: x\r\n\r\n",
    "obs_fold": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n Transfer-Encoding: chunked\r\n\r\n",
    "obs_fold_tab": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n\tb\r\n\r\n",
    "bare_cr_in_value": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: 1\rX-B: 2\r\n\r\n",
    "bare_cr_line_end": b"GET /b/k HTTP/1.1\rHost: x\r\r",
    "bare_lf_line_end": b"GET /b/k HTTP/1.1\r\nHost: x\nX-A: 1\r\n\r\n",
    "bare_lf_everywhere": b"GET /b/k HTTP/1.1\nHost: x\n\n",
    "nul_in_value": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    "nul_in_name": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX\x00A: a\r\n\r\n",
    "control_in_value": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: a\x01b\r\n\r\n",
    "delete_in_value": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A: a\x7fb\r\n\r\n",
    "no_colon": b"GET /b/k HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n",
    "empty_name": b"GET /b/k HTTP/1.1\r\nHost: x\r\n: v\r\n\r\n",
    "no_host": b"GET /b/k HTTP/1.1\r\n\r\n",
    "two_hosts": b"GET /b/k HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "host_with_path": b"GET /b/k HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "host_with_user": b"GET /b/k HTTP/1.1\r\nHost: a@x\r\n\r\n",
    "two_spaces_in_the_request_line": b"GET  /b/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab_in_the_request_line": b"GET\t/b/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "space_in_the_target": b"GET /b/k k HTTP/1.1\r\nHost: x\r\n\r\n",
    "control_in_the_target": b"GET /b/\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "lower_case_version": b"GET /b/k http/1.1\r\nHost: x\r\n\r\n",
    "version_without_digits": b"GET /b/k HTTP/x.y\r\nHost: x\r\n\r\n",
    "http_0_9": b"GET /b/k\r\n\r\n",
    "no_method": b" /b/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad_method_bytes": b"G@T /b/k HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls_hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "binary": bytes(range(256)),
}
BODIES = {
    "chunk_size_garbage": b"zz\r\nhello\r\n0\r\n\r\n",
    "chunk_size_empty": b"\r\nhello\r\n0\r\n\r\n",
    "chunk_size_negative": b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk_size_plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk_size_0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk_size_space_before": b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk_size_overflow": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "chunk_size_endless": b"0" * 100000,
    "chunk_bare_lf": b"5\nhello\r\n0\r\n\r\n",
    "chunk_bare_cr": b"5\rhello\r\n0\r\n\r\n",
    "chunk_too_long": b"5\r\nhelloo\r\n0\r\n\r\n",
    "chunk_no_crlf_after_data": b"5\r\nhelloXX0\r\n\r\n",
    "chunk_lf_after_data": b"5\r\nhello\n0\r\n\r\n",
    "chunk_huge_extension": b"5;" + b"e" * 20000 + b"\r\nhello\r\n0\r\n\r\n",
    "trailer_huge": b"0\r\n" + b"".join(b"X-%d: %s\r\n" % (i, b"v" * 100) for i in range(1000)) + b"\r\n",
}
NEXT = b"GET /b/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One proxy for all of them: none may hurt the next."""
    import net
    import proxy as proxy_module
    from origin import Origin
    o = Origin()
    o.put("/b/k", 10)
    o.put("/b/smuggled", 10)
    d = tmp_path_factory.mktemp("smuggling")
    port = net.free_port()
    p = proxy_module.Proxy(d, proxy_module.config(port, {"type": "http", "endpoint": o.url},
                                                  server={"timeouts": {"head": "3s", "body": "3s"}}), port)
    p.wait_ready()
    yield p, o
    try:
        p.stop()
    finally:
        p.kill()
        o.stop()


def refused(p, o, data, statuses):
    import net
    before = o.count("/b/smuggled")
    with p.conn() as c:
        c.send(data)
        answer, how = c.rest(6 * net.SLOW)
    assert how != "open", "the connection was left open after %r" % answer[:200]
    status = int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None
    assert status in statuses, answer[:300]
    if status:
        assert b"<Error>" in answer
    assert answer.count(b"HTTP/1.1 ") <= 1, "a second request was answered: %r" % answer
    assert o.count("/b/smuggled") == before, "what followed was taken for a request"


@pytest.mark.parametrize("name", CASES)
def test_ambiguous_request_is_refused_and_the_connection_closed(shared, name):
    p, o = shared
    statuses = (400, 501) if "chunked_not_last" in name or "misspelt" in name else (400,)
    if name in ("bare_cr_line_end", "http_0_9"):
        statuses = (400, 408)   # may be taken for an unfinished head
    if name == "version_without_digits" or name == "lower_case_version":
        statuses = (400, 505)
    refused(p, o, CASES[name] + NEXT, statuses)


@pytest.mark.parametrize("name", BODIES)
def test_ambiguous_chunked_body_is_refused_and_the_connection_closed(shared, name):
    p, o = shared
    head = b"PUT /b/put-%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % name.encode()
    refused(p, o, head + BODIES[name] + NEXT, (400, 431, None))
    assert "/b/put-%s" % name not in o.objects, "the origin took the broken body for a whole one"


def test_http_2_preface_and_http_3_are_refused(shared):
    p, o = shared
    refused(p, o, b"GET /b/k HTTP/2.0\r\nHost: x\r\n\r\n" + NEXT, (505,))
    refused(p, o, b"GET /b/k HTTP/3.0\r\nHost: x\r\n\r\n" + NEXT, (505,))


def test_a_body_longer_than_its_length_is_the_next_request(shared):
    p, o = shared
    with p.conn() as c:
        c.send(b"PUT /b/five HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET /b/k HTTP/1.1\r\nHost: x\r\n\r\n")
        assert c.response("PUT").status == 200
        assert c.response().status == 200
    assert o.objects["/b/five"].data == b"hello"


def test_a_get_with_a_body_does_not_desynchronise(shared):
    p, o = shared
    with p.conn() as c:
        c.send(b"GET /b/k HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(NEXT) + NEXT)
        first = c.response()
        assert first.status in (200, 400)
        if first.status == 200 and (first.get("connection") or "").lower() != "close":
            c.request("GET", "/b/k")
            assert c.response().status == 200
    assert o.count("/b/smuggled") == 0


def test_crlf_in_a_percent_encoded_target_stays_encoded(shared):
    p, o = shared
    p.get("/b/a%0d%0aX-Injected:%201")
    rec = [r for r in o.log() if "Injected" in r.target]
    assert rec and all(r.get("x-injected") is None for r in rec)
