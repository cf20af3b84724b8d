"""Marks (what happened since a named moment) and metrics (the same numbers for Prometheus)."""
import json
import os
import shutil
import subprocess
import threading

import net
import pytest
import servers
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
KIB = 1 << 10


def mark(p, label):
    r = p.fetch("POST", "/_s3dlio/mark", body=json.dumps({"label": label}).encode())
    assert r.status == 200, r
    return json.loads(r.body)


def since(p, label):
    r = p.get("/_s3dlio/stats?since=" + label)
    assert r.status == 200, r
    return json.loads(r.body)


def families(p):
    r = p.get("/_s3dlio/metrics")
    assert r.status == 200 and r.get("content-type").startswith("text/plain; version=0.0.4")
    return {f.name: f for f in text_string_to_metric_families(r.body.decode())}


def value(fams, name, **labels):
    family = fams[name[:-6] if name.endswith("_total") else name]
    return next(s.value for s in family.samples if s.name == name and s.labels == labels)


def settle(p, requests):
    net.wait_until("all are counted", lambda: p.stats()["requests"]["cache"]["hit"] + p.stats()["requests"]["cache"]["miss"]
                   >= requests)


def test_an_epoch_is_told_from_the_one_before(http, origin):
    p = http()
    for i in range(4):
        origin.put("/b/k%d" % i, 100 * KIB)
    for i in range(4):
        p.get_checked("/b/k%d" % i, 100 * KIB)
    settle(p, 4)
    said = mark(p, "epoch 1")
    assert said["label"] == "epoch 1" and said["at"].endswith("Z")
    for i in range(4):
        p.get_checked("/b/k%d" % i, 100 * KIB)
    p.get_checked("/b/k0", 100 * KIB)
    settle(p, 9)
    s, whole = since(p, "epoch%201"), p.stats()
    assert s["since"]["label"] == "epoch 1" and s["since"]["at"] == said["at"] and 0 < s["since"]["seconds"] < 600
    assert s["requests"]["cache"]["hit"] == 5 and s["requests"]["cache"]["miss"] == 0
    assert s["caches"]["main"]["hit_ratio"] == 1 and s["caches"]["main"]["byte_hit_ratio"] == 1
    assert s["origins"]["o"]["requests"] == 0 and s["bytes"]["origin_received"] == 0
    assert s["buckets"]["b"]["gets"] == 5 and s["buckets"]["b"]["bytes_saved"] == 500 * KIB
    assert s["caches"]["main"]["memory"]["objects"] == 4, "a level is what it is now"
    assert whole["requests"]["cache"] == {**whole["requests"]["cache"], "hit": 5, "miss": 4}
    assert 0 < whole["caches"]["main"]["hit_ratio"] < 1 and "since" not in whole
    assert 0 < s["latency_ms"]["total"]["p50"] <= s["latency_ms"]["total"]["max"] <= whole["latency_ms"]["total"]["max"]


def test_marks_are_listed_replaced_and_bounded(http):
    p = http(limits={"marks": 3})
    for label in ("a", "b", "a", "c", "d"):
        mark(p, label)
    r = json.loads(p.get("/_s3dlio/mark").body)
    assert [m["label"] for m in r["marks"]] == ["a", "c", "d"]
    assert p.get("/_s3dlio/stats?since=b").status == 404
    assert p.get("/_s3dlio/stats?since=").status == 404
    assert since(p, "d")["requests"]["total"] >= 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"label": 1}', b'{"label": ""}', b'{"label": "a\\n"}',
                                  b'{"label": "%s"}' % (b"x" * 65), b'{"label": "a", "b": 1}', '{"label": "é"}'.encode()])
def test_bad_marks_are_refused(http, body):
    p = http()
    r = p.fetch("POST", "/_s3dlio/mark", body=body)
    assert r.status == 400 and b"label" in r.body
    assert json.loads(p.get("/_s3dlio/mark").body) == {"marks": []}


def test_marks_from_many_at_once(http):
    p = http(limits={"marks": 8})

    def some(k):
        for i in range(10):
            mark(p, "m%d" % (i * k % 16))
            r = p.get("/_s3dlio/stats?since=m%d" % i)
            assert r.status in (200, 404)
    threads = [threading.Thread(target=some, args=(k,)) for k in (1, 3, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60 * net.SLOW)
    assert len(json.loads(p.get("/_s3dlio/mark").body)["marks"]) == 8


def test_metrics_are_what_stats_says(http, origin):
    p = http()
    origin.put("/b/k", 300 * KIB)
    for _ in range(3):
        p.get_checked("/b/k", 300 * KIB)
    p.get("/b/none")
    net.wait_until("all are counted", lambda: p.stats()["requests"]["statuses"]["4xx"] == 1)
    m, s = families(p), p.stats()
    pre = "s3dlio_proxy_"
    assert value(m, pre + "sent_bytes_total") >= 900 * KIB
    assert value(m, pre + "origin_requests_total", origin="o") == s["origins"]["o"]["requests"]
    assert value(m, pre + "requests_by_cache_result_total", result="hit") == 2
    assert value(m, pre + "responses_total", **{"class": "4xx"}) == 1
    assert value(m, pre + "cache_capacity_bytes", cache="main") == s["caches"]["main"]["memory"]["capacity"]
    assert value(m, pre + "cache_hits_total", cache="main") == 2
    assert value(m, pre + "bucket_gets_total", bucket="b") == 4
    assert value(m, pre + "tls_handshakes_pending") == 0
    for name, labels in (("request_first_byte_seconds", {}), ("request_duration_seconds", {}),
                         ("origin_first_byte_seconds", {"origin": "o"})):
        samples = [x for x in m[pre + name].samples if x.name.endswith("_bucket")]
        counts = [x.value for x in samples]
        assert m[pre + name].type == "histogram" and counts == sorted(counts) and samples[-1].labels["le"] == "+Inf"
        assert counts[-1] == value_of(m[pre + name], "_count", labels) > 0
        assert value_of(m[pre + name], "_sum", labels) > 0
    assert all(f.documentation and f.type in ("counter", "gauge", "histogram") for f in m.values())
    assert all(f.name.startswith(pre) for f in m.values())


def value_of(family, suffix, labels):
    return next(s.value for s in family.samples if s.name == family.name + suffix and s.labels == labels)


SHOWN_OTHERWISE = {"version", "system.workers", "system.io_uring", "protocol.choice", "protocol.why",
                   "protocol.first_byte_ms.http/1.1", "protocol.first_byte_ms.h2", "protocol.bulk_bytes_per_s.http/1.1", "protocol.bulk_bytes_per_s.h2"}


def leaves(o, path=()):
    if isinstance(o, dict) and set(o) != {"p50", "p90", "p99", "p999", "max"}:
        return [x for k, v in o.items() for x in leaves(v, (*path, k)) if v is not None]
    return [".".join(path)]


def test_no_number_of_stats_is_missing_in_metrics(http, origin):
    """As many series as numbers: a counter that is added to stats only is forgotten here."""
    p = http()
    origin.put("/b/k", 10)
    p.get("/b/k")
    net.wait_until("it is counted", lambda: "b" in p.stats()["buckets"])
    numbers = [x for x in leaves(p.stats()) if x not in SHOWN_OTHERWISE and x.removeprefix("origins.o.") not in SHOWN_OTHERWISE]
    ratios = sum(x.endswith("_ratio") for x in numbers)
    series = sum(len({tuple(sorted((k, v) for k, v in s.labels.items() if k != "le")) for s in f.samples})
                 for f in families(p).values())
    assert series == len(numbers) + ratios


def promtool():
    for p in (os.environ.get("S3P_PROMTOOL"), os.path.join(servers.TOP, "build/promtool"), shutil.which("promtool")):
        if p and os.access(p, os.X_OK):
            return p
    if os.environ.get("CI"):
        pytest.fail("promtool is required in CI: tests/run unpacks it")
    pytest.skip("no promtool (tests/run unpacks it where apt has the package prometheus)")


def test_promtool_accepts_the_metrics(http, origin):
    tool = promtool()
    p = http()
    origin.put("/b/k", 10)
    for path in ("/b/k", '/a"b/k', "/a\\c/k", "/%FF/k"):
        p.get(path)
    net.wait_until("all are counted", lambda: len(p.stats()["buckets"]) == 4)
    done = subprocess.run([tool, "check", "metrics"], input=p.get("/_s3dlio/metrics").body, capture_output=True, timeout=60)
    assert done.returncode == 0 and not done.stderr and not done.stdout, done


def test_so_many_buckets_are_told_apart_whoever_asks(http, origin):
    """Of both workers together, and for good: a bucket that has a row keeps it, or counters would fall."""
    p = http(workers=2)
    strange = ['a"b', "a\\c", "a%0Ad", "%C3%BC", "%FF%FE", "a%00b", "(other)", "{}"]
    for name in strange:
        origin.put("/%s/k" % name, 10)
        p.get("/%s/k" % name)
    for i in range(120):
        origin.put("/early%d/k" % i, 10)
    for i in range(300):
        origin.put("/late%d/k" % i, 10)
    for turn in range(3):
        for i in range(120):   # on connections of their own: some come to one worker only
            p.get("/early%d/k" % i)

    def total(s):
        return sum(b["gets"] for b in s["buckets"].values())
    net.wait_until("all are counted", lambda: total(p.stats()) == 8 + 360)
    early = {n for n in p.stats()["buckets"] if n.startswith("early")}
    mark(p, "m")
    for i in range(300):
        p.get("/late%d/k" % i)
    for i in range(120):
        p.get("/early%d/k" % i)
    net.wait_until("all are counted", lambda: total(p.stats()) == 8 + 360 + 300 + 120)
    s, whole = since(p, "m"), p.stats()
    assert len(whole["buckets"]) <= 256 and early <= set(whole["buckets"])
    assert total(s) == 420 and s["buckets"]["(other)"]["gets"] == 300 - (255 - 7 - 120)
    assert all(s["buckets"][n]["gets"] == 1 for n in early) and len(early) == 120
    assert {'a"b', "a\\c"} <= set(whole["buckets"]) and whole["buckets"]["(other)"]["gets"] == 1 + 300 - (255 - 7 - 120)
    series = [x for f in families(p).values() for x in f.samples if "bucket" in x.labels]
    assert len(series) <= 4 * 256 and {'a"b', "a\\c", "(other)"} <= {x.labels["bucket"] for x in series}


def test_percentiles_since_a_mark_are_of_what_came_since(http, origin):
    p = http()
    origin.put("/b/k", 10)
    origin.on(path="/b/slow", delay=0.4, status=404, body=b"")
    p.get("/b/k")
    for _ in range(3):
        p.get("/b/slow")
    net.wait_until("all are counted", lambda: p.stats()["requests"]["statuses"]["4xx"] == 3)
    mark(p, "m")
    for _ in range(20):
        p.get("/b/k")
    settle(p, 24)
    whole, s = p.stats()["latency_ms"]["total"], since(p, "m")["latency_ms"]["total"]
    assert whole["max"] >= 390 and s["max"] < whole["max"] and s["p50"] <= s["p90"] <= s["p99"] <= s["p999"] <= s["max"]
    assert s["p50"] < 390 * net.SLOW


def test_counters_and_histograms_never_fall(http, origin):
    p = http()
    origin.put("/b/k", 1000)
    origin.on(path="/b/slow", delay=0.3)
    last = {}
    for turn in range(15):
        p.get("/b/k" if turn % 5 else "/b/slow?%d" % turn)
        for f in families(p).values():
            if f.type == "gauge":
                continue
            for x in f.samples:
                key = x.name, tuple(sorted(x.labels.items()))
                assert x.value >= last.get(key, 0), key
                last[key] = x.value
