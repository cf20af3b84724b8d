"""`http2: auto`: what ALPN says is obeyed, bulk goes over HTTP/1.1 and small objects over HTTP/2, and measurements change
that; the statistics say what is chosen, and why."""
import net
import pytest
from h2fixtures import MIB, ONCE, protocol
from origin import Origin
from test_caching import together

pytestmark = pytest.mark.ways("h1")   # these are about the other side

AUTO = {"http2": "auto"}
BULK = {**AUTO, "fetch": {"part_size": "1MiB", "max_in_flight": 16}}
RULE = "h2 for small, http/1.1 for bulk"


def small_objects(p, origin, count, first=0, at_once=16):
    for i in range(first, first + count):
        origin.put("/s/k%d" % i, 2000)
    together(p, at_once, lambda t: [p.get_checked("/s/k%d" % i, 2000) for i in range(first + t, first + count, at_once)])


def share_of_h2(origin, since=0):
    seen = origin.versions()[since:]
    return seen.count("HTTP/2") / len(seen)


def test_small_objects_by_h2_and_bulk_by_h1_is_the_rule(far, near):
    o = far(tls=True)
    p = near(o, BULK)
    before = protocol(p)
    assert before["why"] == "the origin has not been asked for h2 yet"
    small_objects(p, o, 200)
    assert share_of_h2(o) > 0.9
    o.clear_log()
    o.put("/b/big", 40 * MIB)
    p.get_checked("/b/big", 40 * MIB)
    assert share_of_h2(o) < 0.2
    now = protocol(p)
    assert now["choice"] == RULE and now["why"].startswith("the rule:")
    assert now["first_byte_ms"]["h2"] > 0 and now["bulk_bytes_per_s"]["http/1.1"] > 0


def test_measurement_moves_small_objects_to_h1(far, near):
    o = far(tls=True)
    p = near(o, AUTO)
    o.on(when=lambda r: r.version == "HTTP/2", delay=0.05 * net.SLOW)
    done = 0
    while not protocol(p)["why"].startswith("measured"):
        assert done < 4000, protocol(p)
        small_objects(p, o, 200, done, at_once=32)
        done += 200
    assert protocol(p)["choice"] == "http/1.1"
    assert protocol(p)["why"] == "measured: HTTP/1.1 answers small requests clearly sooner"
    before = o.count()
    small_objects(p, o, 200, done)
    assert share_of_h2(o, before) < 0.2
    # And back, when it is no longer so.
    o.clear_rules()
    o.on(when=lambda r: r.version == "HTTP/1.1", delay=0.05 * net.SLOW)
    while protocol(p)["choice"] != RULE:
        assert done < 8000, protocol(p)
        done += 200
        small_objects(p, o, 200, done, at_once=32)


def test_measurement_moves_bulk_to_h2(far, near):
    o = far(tls=True)
    p = near(o, {**BULK, "fetch": {"part_size": "1MiB", "max_in_flight": 4}}, cache={"memory": "512MiB"}, workers=1)
    o.on(when=lambda r: r.version == "HTTP/1.1" and r.path.startswith("/b/"), delay=0.2 * net.SLOW)
    done = 0
    while protocol(p)["choice"] != "h2":
        assert done < 24, protocol(p)
        for i in range(4):
            o.put("/b/k%d" % (done + i), 16 * MIB)
        together(p, 4, lambda i: p.get_checked("/b/k%d" % (done + i), 16 * MIB))
        done += 4
    assert protocol(p)["why"] == "measured: h2 moves bulk clearly faster"
    before = o.count()
    o.put("/b/last", 16 * MIB)
    p.get_checked("/b/last", 16 * MIB)
    assert share_of_h2(o, before) > 0.8
    seen = protocol(p)["bulk_bytes_per_s"]
    assert seen["h2"] > seen["http/1.1"] > 0


@pytest.mark.parametrize("alpn", [("http/1.1",), ()], ids=["http11_only", "no_alpn"])
def test_an_origin_that_does_not_offer_h2_gets_http_1_1(far, near, alpn):
    o = far(tls=True, alpn=alpn)
    p = near(o, {**AUTO, **ONCE})
    o.put("/b/k", 3 * MIB)
    p.get_checked("/b/k", 3 * MIB)
    small_objects(p, o, 40)
    assert p.fetch("PUT", "/b/up", body=b"x" * 100000).status == 200
    assert set(o.versions()) == {"HTTP/1.1"}
    assert (protocol(p)["choice"], protocol(p)["why"]) == ("http/1.1", "the origin does not offer h2")
    assert protocol(p)["h2_requests"] == 0


def test_an_origin_that_speaks_nothing_but_h2(far, near):
    o = far(tls=True)
    o.h2_only = True
    o.tls.set_alpn_protocols(["h2"])
    p = near(o, {**BULK, **ONCE})
    small_objects(p, o, 10)
    o.put("/b/k", 20 * MIB)
    p.get_checked("/b/k", 20 * MIB)
    assert p.fetch("PUT", "/b/up", body=b"x" * 3 * MIB).status == 200
    assert set(o.versions()) == {"HTTP/2"}
    assert (protocol(p)["choice"], protocol(p)["why"]) == ("h2", "the origin ends HTTP/1.1 connections without an answer")


def test_off_never_offers_it(far, near):
    o = far(tls=True)
    p = near(o, {"http2": "off"})
    small_objects(p, o, 20)
    assert set(o.versions()) == {"HTTP/1.1"}
    assert (protocol(p)["choice"], protocol(p)["why"]) == ("http/1.1", "configured: http2 off")


def test_cleartext_is_http_1_1_unless_told_otherwise(far, near):
    o = far()
    p = near(o, AUTO)
    small_objects(p, o, 20)
    assert set(o.versions()) == {"HTTP/1.1"}
    assert protocol(p)["why"] == "no TLS, so the origin cannot offer h2"


def test_an_http_1_1_origin_says_nothing_of_h2(http, origin):
    p = http()
    assert isinstance(origin, Origin) and protocol(p)["choice"] == "http/1.1"
