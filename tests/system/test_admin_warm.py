"""warm: jobs that read objects into the cache."""
import json
import os
import threading
import time

import net
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
KIB = 1 << 10
MIB = 1 << 20


def warm(p, status=202, **what):
    r = p.fetch("POST", "/_s3dlio/warm", body=json.dumps(what).encode())
    assert r.status == status, r
    return json.loads(r.body)["id"] if status == 202 else r


def job(p, id_):
    r = p.get("/_s3dlio/warm/" + id_)
    assert r.status == 200, r
    return json.loads(r.body)


def ended(p, id_, timeout=30):
    net.wait_until("the job has ended", lambda: job(p, id_)["state"] != "running", timeout)
    return job(p, id_)


def objects(p, prefix="/"):
    found, after = {}, ""
    for _ in range(1000):   # a short page is not the last
        answer = json.loads(p.get("/_s3dlio/objects?max=10000&prefix=%s&after=%s" % (prefix, after)).body)
        found.update((o["uri"], o) for o in answer["objects"])
        after = answer["next"]
        if after is None:
            return found
    raise AssertionError("pages without end")


def test_named_objects_are_there_afterwards(http, origin):
    p = http()
    sizes = [0, 1, 70 * KIB, 9 * MIB]
    for i, n in enumerate(sizes):
        origin.put("/b/k%d" % i, n)
    origin.put("/b/a%20b", 10)
    id_ = warm(p, uris=["s3://b/k0", "/b/k1", "s3://b/k2", "s3://b/k3", "s3://b/a b"])
    j = ended(p, id_)
    assert 0 < j.pop("seconds") < 600
    assert j == {"id": id_, "state": "done", "listed": True, "objects": {"total": 5, "done": 5, "failed": 0},
                 "bytes": {"done": sum(sizes) + 10, "displaced": 0}, "errors": []}
    count = origin.count()
    for i, n in enumerate(sizes):
        assert p.get_checked("/b/k%d" % i, n)[0].get("x-cache") == "HIT"
    assert p.get("/b/a%20b").get("x-cache") == "HIT" and origin.count() == count
    assert all(o["fraction"] == 1 and not o["pinned"] for o in objects(p).values())


def test_it_is_no_clients_request(http, origin):
    p = http()
    origin.put("/b/k", 100 * KIB)
    ended(p, warm(p, uris=["s3://b/k"]))
    s = p.stats()
    assert s["requests"]["cache"]["miss"] == s["requests"]["cache"]["hit"] == 0
    assert s["caches"]["main"]["hit_ratio"] == 0 and s["buckets"] == {} and s["origins"]["o"]["bytes"] == 100 * KIB
    p.get("/b/k")
    net.wait_until("it is counted", lambda: p.stats()["requests"]["cache"]["hit"] == 1)
    assert p.stats()["caches"]["main"]["hit_ratio"] == 1


def test_failures_are_told_and_the_others_go_on(http, origin):
    p = http(o={"retry": {"attempts": 1}})
    origin.put("/b/good", 10)
    origin.put("/b/broken", 10)
    origin.on(path="/b/broken", status=500)
    origin.put("/b/private", 10, headers=[("Cache-Control", "no-store")])
    origin.put("/b/cut", 4 * MIB)
    origin.on(path="/b/cut", cut_after=1000, cut="rst")
    j = ended(p, warm(p, uris=["s3://b/missing", "s3://b/broken", "s3://b/private", "s3://b/cut", "s3://b/good"]))
    assert j["state"] == "done" and j["objects"] == {"total": 5, "done": 1, "failed": 4}
    said = {e["uri"]: e["message"] for e in j["errors"]}
    assert "404" in said["s3://b/missing"] and "500" in said["s3://b/broken"]
    assert "stored" in said["s3://b/private"] and said["s3://b/cut"]
    assert p.get("/b/good").get("x-cache") == "HIT"


def test_errors_are_bounded(http):
    p = http()
    j = ended(p, warm(p, uris=["s3://b/missing%d" % i for i in range(100)]))
    assert j["objects"]["failed"] == 100 and 1 <= len(j["errors"]) <= 16


def test_so_many_at_a_time(http, origin):
    p = http()
    for i in range(12):
        origin.put("/b/k%d" % i, 10)
    gate, under_way, most = threading.Event(), set(), [0]
    lock = threading.Lock()

    def hold(rec):
        with lock:
            under_way.add(rec.path)
            most[0] = max(most[0], len(under_way))
        gate.wait(20 * net.SLOW)
        with lock:
            under_way.discard(rec.path)
    origin.on(call=hold)
    id_ = warm(p, uris=["s3://b/k%d" % i for i in range(12)], concurrency=3)
    net.wait_until("three are under way", lambda: len(under_way) == 3)
    time.sleep(0.2)
    assert most[0] == 3 and job(p, id_)["state"] == "running"
    gate.set()
    assert ended(p, id_)["objects"]["done"] == 12 and most[0] <= 3


def test_a_prefix_by_pages_of_its_listing(file_proxy_with_many):
    p, count = file_proxy_with_many
    j = ended(p, warm(p, prefix="s3://b/dir/", concurrency=16), 60)
    assert j["state"] == "done" and j["objects"] == {"total": count, "done": count, "failed": 0}, j
    assert p.get("/b/dir/a%20%26%3C%2B%25%C3%BC").get("x-cache") == "HIT"
    assert p.get("/b/dir/k0001").get("x-cache") == "HIT" and p.get("/b/other").get("x-cache") == "MISS"


@pytest.fixture
def file_proxy_with_many(start, tmp_path):
    root = tmp_path / "root"
    (root / "b/dir").mkdir(parents=True)
    for i in range(2500):
        (root / ("b/dir/k%04d" % i)).write_bytes(b"%d" % i)
    (root / "b/dir/a &<+%ü").write_bytes(b"strange")
    (root / "b/other").write_bytes(b"other")
    return start({"type": "file", "root": str(root)}), 2501


def test_a_prefix_of_a_real_s3_server(s3):
    p, _, client, bucket = s3
    keys = ["d/k%d" % i for i in range(7)] + ["d/a b+c%&=ü"]
    for k in keys:
        client.put_object(Bucket=bucket, Key=k, Body=k.encode())
    j = ended(p, warm(p, prefix="s3://%s/d/" % bucket))
    assert j["state"] == "done" and j["objects"] == {"total": len(keys), "done": len(keys), "failed": 0}, j
    assert {"s3://%s/%s" % (bucket, k) for k in keys} <= set(objects(p, "/%s/d/" % bucket))


def test_a_prefix_where_nothing_is(start, tmp_path):
    (tmp_path / "root/b").mkdir(parents=True)
    p = start({"type": "file", "root": str(tmp_path / "root")})
    assert ended(p, warm(p, prefix="s3://b/none"))["objects"]["total"] == 0
    j = ended(p, warm(p, prefix="s3://nobucket/x"))
    assert j["state"] == "failed" and "404" in j["errors"][0]["message"]


def test_a_listing_that_is_none(http, origin):
    p = http()
    origin.put("/b", 100)
    j = ended(p, warm(p, prefix="s3://b/x"))
    assert j["state"] == "failed" and "listing" in j["errors"][0]["message"]


def test_a_manifest_of_thousands_of_lines(file_proxy_with_many, tmp_path):
    p, _ = file_proxy_with_many
    lines = ["# what the epoch reads", ""] + ["s3://b/dir/k%04d" % i for i in range(2000)] + ["/b/dir/k2001\r", "nonsense",
                                                                                             "s3://b/" + "x" * 9000, "s3://b/other"]
    (tmp_path / "root/b/manifest").write_text("\n".join(lines))
    j = ended(p, warm(p, manifest="s3://b/manifest"), 60)
    assert j["state"] == "done" and j["objects"] == {"total": 2004, "done": 2002, "failed": 2}, j
    assert "nonsense" in j["errors"][0]["message"]
    assert p.get("/b/other").get("x-cache") == "HIT" and p.get("/b/dir/k2001").get("x-cache") == "HIT"
    j = ended(p, warm(p, manifest="s3://b/no-manifest"))
    assert j["state"] == "failed" and "404" in j["errors"][0]["message"]


def worker_switches(p):
    """How often each worker's thread has slept so far."""
    found = {}
    for t in os.listdir("/proc/%d/task" % p.pid):
        with open("/proc/%d/task/%s/status" % (p.pid, t)) as f:
            fields = dict(line.split(":", 1) for line in f)
        if "s3p-worker-" in fields["Name"]:
            found[fields["Name"].strip()] = int(fields["voluntary_ctxt_switches"])
    return found


def test_all_workers_read_for_one_job(http, origin):
    p = http(workers=4)
    for i in range(200):
        origin.put("/b/k%d" % i, 10)
    id_ = warm(p, uris=["s3://b/first"])   # whatever happens at first has happened
    ended(p, id_)
    before = worker_switches(p)
    id_ = warm(p, uris=["s3://b/k%d" % i for i in range(200)], concurrency=4)
    net.wait_until("all are read", lambda: origin.count() >= 201, every=0.1)   # and nobody asks the proxy meanwhile
    after = worker_switches(p)
    assert len(before) == 4 and all(after[w] - before[w] >= 20 for w in before), (before, after)
    assert ended(p, id_)["objects"]["done"] == 200


def test_cancel_ends_it_at_once(http, origin):
    p = http()
    for i in range(50):
        origin.put("/b/k%d" % i, 10)
    origin.on(never=True)
    id_ = warm(p, uris=["s3://b/k%d" % i for i in range(50)])
    net.wait_until("as many as may are under way", lambda: origin.count() == 8)
    r = p.fetch("DELETE", "/_s3dlio/warm/" + id_)
    assert r.status == 200 and json.loads(r.body)["state"] == "cancelled"
    net.wait_until("the origin is let go", lambda: p.stats()["origins"]["o"]["in_flight"] == 0)
    count = origin.count()
    time.sleep(0.3)
    assert origin.count() == count and job(p, id_)["state"] == "cancelled"
    assert p.fetch("DELETE", "/_s3dlio/warm/" + id_).status == 200
    assert p.fetch("DELETE", "/_s3dlio/warm/nothing").status == p.get("/_s3dlio/warm/nothing").status == 404
    assert p.fetch("DELETE", "/_s3dlio/warm").status == 404


def test_it_goes_on_without_its_client_and_ends_with_the_process(http, origin):
    p = http(shutdown_timeout="500ms")
    gate = threading.Event()
    origin.put("/b/k", 10)
    origin.on(path="/b/k", gate=gate)
    with p.connect() as c:
        c.request("POST", "/_s3dlio/warm", {"Content-Length": "23"})
        c.send(b'{"uris": ["s3://b/k"]} ')
        id_ = json.loads(c.response("POST").body)["id"]
    gate.set()
    assert ended(p, id_)["state"] == "done"
    for i in range(20):
        origin.put("/b/n%d" % i, 10)
    origin.on(when=lambda r: r.path.startswith("/b/n"), never=True)
    warm(p, uris=["s3://b/n%d" % i for i in range(20)])
    net.wait_until("it has begun", lambda: origin.count() > 1)
    p.stop()


@pytest.mark.ways("h1")
def test_a_client_that_does_not_even_wait_for_the_answer(http, origin):
    p = http()
    origin.put("/b/k", 10)
    body = b'{"uris": ["s3://b/k"]}'
    with p.conn() as c:
        c.send(b"POST /_s3dlio/warm HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    net.wait_until("its job is done", lambda: [j["state"] for j in json.loads(p.get("/_s3dlio/warm").body)["jobs"]] == ["done"])
    assert p.get("/b/k").get("x-cache") == "HIT"


def test_jobs_are_remembered_and_bounded(http, origin):
    p = http(limits={"warm_jobs": 3, "warm_concurrency": 2})
    origin.put("/b/k", 10)
    ids = []
    for _ in range(3):
        ids.append(warm(p, uris=["s3://b/k"]))
        ended(p, ids[-1])
    newer = warm(p, uris=["s3://b/k"])
    assert p.get("/_s3dlio/warm/" + ids[0]).status == 404
    assert [j["id"] for j in json.loads(p.get("/_s3dlio/warm").body)["jobs"]] == ids[1:] + [newer]
    ended(p, newer)
    gate = threading.Event()
    origin.on(path="/b/slow", gate=gate)
    origin.put("/b/slow", 10)
    running = [warm(p, uris=["s3://b/slow"]) for _ in range(3)]
    assert warm(p, 503, uris=["s3://b/k"]).get("retry-after")
    gate.set()
    for i in running:
        ended(p, i)
    ended(p, warm(p, uris=["s3://b/k"]))


def test_pinned_objects_stay(http, origin):
    p = http(cache={"memory": "32MiB", "slice_size": "64KiB"}, workers=1)
    for i in range(8):
        origin.put("/b/pin%d" % i, 1 * MIB)
    assert ended(p, warm(p, uris=["s3://b/pin%d" % i for i in range(8)], pin=True))["objects"]["done"] == 8
    assert p.stats()["caches"]["main"]["memory"]["pinned"] >= 8 * MIB
    for i in range(80):
        origin.put("/b/k%d" % i, 1 * MIB)
        for _ in range(2):
            p.get_checked("/b/k%d" % i, 1 * MIB)
    count = origin.count()
    for i in range(8):
        assert p.get_checked("/b/pin%d" % i, 1 * MIB)[0].get("x-cache") == "HIT"
    assert origin.count() == count and all(objects(p, "/b/pin")["s3://b/pin%d" % i]["pinned"] for i in range(8))
    assert p.fetch("POST", "/_s3dlio/purge", body=b'{"prefix": "/b/pin"}').status == 200
    net.wait_until("the memory is given back", lambda: p.stats()["caches"]["main"]["memory"]["pinned"] == 0)


def test_no_more_is_pinned_than_there_may_be(http, origin):
    p = http(cache={"memory": "32MiB", "slice_size": "64KiB", "pinned": "4MiB"}, workers=1)
    for i in range(8):
        origin.put("/b/pin%d" % i, 1 * MIB)
    j = ended(p, warm(p, uris=["s3://b/pin%d" % i for i in range(8)], pin=True, concurrency=1))
    assert j["state"] == "done" and j["objects"]["done"] == 4 and "pin" in j["errors"][0]["message"]
    assert p.stats()["caches"]["main"]["memory"]["pinned"] <= 4 * MIB
    for i in range(60):   # and there is room for others
        origin.put("/b/k%d" % i, 1 * MIB)
        p.get_checked("/b/k%d" % i, 1 * MIB)
    for i in range(4):
        assert p.get_checked("/b/pin%d" % i, 1 * MIB)[0].get("x-cache") == "HIT"


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"uris": []}', '{"uris": "s3://b/k"}', '{"uris": ["s3://b"]}', '{"uris": [1]}',
                                  '{"uris": ["s3://b/k"], "prefix": "s3://b/"}', '{"prefix": ""}', '{"prefix": "/"}',
                                  '{"manifest": "s3://b"}', '{"uris": ["s3://b/k"], "pin": 1}',
                                  '{"uris": ["s3://b/k"], "concurrency": 0}', '{"uris": ["s3://b/k"], "concurrency": 1.5}',
                                  '{"uris": ["s3://b/k"], "other": 1}'])
def test_bad_jobs_are_refused(http, body):
    p = http()
    r = p.fetch("POST", "/_s3dlio/warm", body=body.encode())
    assert r.status == 400 and b"Expected" in r.body, r
    assert json.loads(p.get("/_s3dlio/warm").body) == {"jobs": []}


def test_it_may_read_what_who_asked_may_read(start, origin):
    p = start({"type": "http", "endpoint": origin.url}, server={"routes": [
        {"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]},
        {"path": "/denied/", "origin": "o", "cache": "main", "deny": ["127.0.0.0/8"]},
        {"path": "/uncached/", "origin": "o"}, {"path": "/", "origin": "o", "cache": "main"}]})
    for k in ("/denied/k", "/uncached/k", "/b/k"):
        origin.put(k, 10)
    j = ended(p, warm(p, uris=["/denied/k", "/uncached/k", "/b/k"]))
    assert j["objects"] == {"total": 3, "done": 1, "failed": 2} and origin.count("/denied/k") == 0
    said = {e["uri"]: e["message"] for e in j["errors"]}
    assert "403" in said["s3://denied/k"] and "cache" in said["s3://uncached/k"]


def test_a_full_cache_makes_room_and_what_finds_none_is_told(http, origin):
    p = http(cache={"memory": "32MiB", "slice_size": "64KiB"}, workers=1)
    for i in range(40):
        origin.put("/b/old%d" % i, 1 * MIB)
    for _ in range(4):   # used so often that nothing that is asked for once gets in
        for i in range(40):
            p.get("/b/old%d" % i)
    for i in range(60):
        origin.put("/b/new%d" % i, 1 * MIB)

    def there():
        return sum(o["fraction"] == 1 for o in objects(p, "/b/new").values())
    j = ended(p, warm(p, uris=["s3://b/new%d" % i for i in range(16)]))
    assert j["objects"] == {"total": 16, "done": 16, "failed": 0} and there() == 16
    assert j["bytes"] == {"done": 16 * MIB, "displaced": 0}
    j = ended(p, warm(p, uris=["s3://b/new%d" % i for i in range(40)]))
    assert j["state"] == "done" and MIB < j["bytes"]["displaced"] <= 16 * MIB and 20 <= there() <= 32
    j = ended(p, warm(p, uris=["s3://b/new%d" % i for i in range(100, 400)] + ["s3://b/new%d" % i for i in range(60)]))
    assert j["state"] == "failed" and "room" in j["errors"][-1]["message"]
    assert j["objects"]["failed"] >= 300 - 8, "all that are not there, but what was still under way when it ended"
    assert 20 <= there() <= 32 and origin.count("/b/new59") == 0, "the first ones stay, the last ones are not read in vain"


def test_an_object_larger_than_the_cache_is_not_read_for_nothing(http, origin):
    p = http(cache={"memory": "16MiB", "slice_size": "64KiB"})
    origin.put("/b/k", 400 * MIB)
    origin.throttle = 64 * MIB
    j = ended(p, warm(p, uris=["s3://b/k"]))
    assert j["objects"]["failed"] == 1 and "larger than the cache" in j["errors"][0]["message"]
    origin.settle()
    assert origin.bytes_sent("/b/k") < 200 * MIB


def test_numbers_of_a_cancelled_job_do_not_move(http, origin):
    p = http()
    gate = threading.Event()
    for i in range(20):
        origin.put("/b/k%d" % i, 10)
    origin.on(gate=gate)
    id_ = warm(p, uris=["s3://b/k%d" % i for i in range(20)])
    net.wait_until("some are under way", lambda: origin.count() >= 8)
    said = json.loads(p.fetch("DELETE", "/_s3dlio/warm/" + id_).body)
    gate.set()
    origin.settle()
    net.wait_until("the origin is let go", lambda: p.stats()["origins"]["o"]["in_flight"] == 0)
    assert job(p, id_) == said and said["state"] == "cancelled"


def test_jobs_begin_and_are_cancelled_and_watched_from_everywhere(http, origin):
    """And the process ends in the midst of them."""
    p = http(limits={"warm_jobs": 8}, workers=2)
    for i in range(40):
        origin.put("/b/k%d" % i, 300 * KIB)
    origin.put("/b/manifest", data=b"".join(b"s3://b/k%d\n" % (i % 40) for i in range(2000)))
    origin.on(nth=7, cut_after=1000, cut="rst")
    wrong = []

    def some(k):
        for i in range(12):
            what = [{"uris": ["s3://b/k%d" % n for n in range(40)], "pin": i % 2 == 0}, {"manifest": "s3://b/manifest"},
                    {"prefix": "s3://b/"}][(i + k) % 3]
            r = p.fetch("POST", "/_s3dlio/warm", body=json.dumps(what).encode())
            if r.status not in (202, 503):
                wrong.append(r)
            ids = [j["id"] for j in json.loads(p.get("/_s3dlio/warm").body)["jobs"]]
            for id_ in ids[k::2]:
                if p.get("/_s3dlio/warm/" + id_).status not in (200, 404) or \
                        i % 2 and p.fetch("DELETE", "/_s3dlio/warm/" + id_).status not in (200, 404):
                    wrong.append(id_)
            p.purge(prefix="/b/k%d" % i)
            for path in ("objects?max=7", "objects?prefix=s3://b/k1&max=10000", "metrics", "stats?since=none", "stats"):
                if p.get("/_s3dlio/" + path).status not in (200, 404):
                    wrong.append(path)
    threads = [threading.Thread(target=some, args=(k,)) for k in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60 * net.SLOW)
    assert not wrong and not any(t.is_alive() for t in threads)
    origin.throttle = MIB
    p.purge(all=True)
    for id_ in [j["id"] for j in json.loads(p.get("/_s3dlio/warm").body)["jobs"]]:
        p.fetch("DELETE", "/_s3dlio/warm/" + id_)
    for _ in range(4):
        warm(p, manifest="s3://b/manifest")
    net.wait_until("they run", lambda: p.stats()["origins"]["o"]["in_flight"] > 2)
    p.stop()
