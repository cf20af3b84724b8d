"""The Python client's side of the admin endpoints: statistics, marks, what is cached, warming, purging."""
import threading

import net
import pytest
import yaml
from content import content
from prometheus_client.parser import text_string_to_metric_families
from pyserved import SOURCE  # noqa: F401 - the package's path

from s3dlio_proxy import Client, WarmJob, WarmStatus, errors  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]


@pytest.fixture
def six(http, origin):
    """(client, URIs) of a proxy before six objects of 1000 bytes."""
    for i in range(6):
        origin.put("/b/d%d/k%d" % (i // 3, i), 1000)
    return Client(http().url), ["s3://b/d%d/k%d" % (i // 3, i) for i in range(6)]


def settled(c, requests):
    net.wait_until("all are counted", lambda: sum(c.stats()["requests"]["cache"].values()) >= requests)


def test_health_stats_metrics_and_config(six):
    c, uris = six
    assert c.health() and c.ready()
    c.get(uris[0])
    settled(c, 1)
    s = c.stats()
    assert s["requests"]["cache"]["miss"] == 1 and s["caches"]["main"]["memory"]["objects"] == 1
    names = {f.name for f in text_string_to_metric_families(c.metrics())}
    assert len(names) > 10 and all(n.startswith("s3dlio_proxy") or n.startswith("process") for n in names), names
    assert yaml.safe_load(c.config())["caches"]["main"]


def test_a_mark_tells_an_epoch_from_the_one_before(six):
    c, uris = six
    list(c.get_many(uris))
    settled(c, 6)
    m = c.mark("epoch 1")
    assert m.label == "epoch 1" and m.at.endswith("Z") and "epoch 1" in repr(m)
    list(c.get_many(uris + uris[:2]))
    settled(c, 14)
    for told in (m.since(), c.stats(since="epoch 1")):
        assert told["requests"]["cache"]["hit"] == 8 and told["requests"]["cache"]["miss"] == 0
    with pytest.raises(errors.NotFoundError):
        c.stats(since="no such mark")
    for bad in ("", "x" * 65, "ü"):
        with pytest.raises(errors.BadRequestError):
            c.mark(bad)


def test_a_mark_as_a_context_holds_the_difference(six):
    c, uris = six
    c.get(uris[0])
    settled(c, 1)
    with c.mark() as outer:
        with c.mark() as inner:
            c.get(uris[0])
            settled(c, 2)
        list(c.get_many(uris[1:3]))
        settled(c, 4)
    assert outer.label != inner.label
    assert inner.difference["requests"]["cache"]["hit"] == 1 and inner.difference["requests"]["cache"]["miss"] == 0
    assert outer.difference["requests"]["cache"]["hit"] == 1 and outer.difference["requests"]["cache"]["miss"] == 2
    with pytest.raises(ZeroDivisionError), c.mark("failing") as m:
        1 / 0  # noqa: B018
    assert "requests" in m.difference


def test_an_exception_under_way_is_not_hidden_by_a_mark(start, origin):
    p = start({"type": "http", "endpoint": origin.url})
    c = Client(p.url, retries=0)
    with pytest.raises(ZeroDivisionError), c.mark() as m:
        p.stop()
        1 / 0  # noqa: B018
    assert m.difference == {} and not c.health() and not c.ready()
    with pytest.raises(errors.ConnectionFailedError):
        c.stats()


def test_what_is_cached(six, origin, monkeypatch):
    monkeypatch.setattr("s3dlio_proxy._admin._PAGE", 2)
    c, uris = six
    list(c.get_many(uris))
    c.get(uris[0])
    origin.put("/b/large", 3 << 20)
    c.get_range("s3://b/large", 0, 10)
    net.wait_until("all is there", lambda: len(list(c.objects())) == 7)
    found = {o.uri: o for o in c.objects()}
    o = found[uris[0]]
    assert (o.size, o.cached, o.fraction, o.pinned) == (1000, 1000, 1.0, False) and 0 <= o.age_s < 600 and o.raw["cache"] == "main"
    assert 0 < found["s3://b/large"].fraction <= 1 and found["s3://b/large"].size == 3 << 20
    assert sorted(o.uri for o in c.objects("s3://b/d1/")) == uris[3:] and list(c.objects("s3://b/none")) == []
    with pytest.raises(ValueError):
        c.objects("b/")


def test_purge_of_one_some_and_all(six):
    c, uris = six
    list(c.get_many(uris))
    assert c.purge(uris[0]) == 1 and c.purge(uris[0]) == 0
    assert c.purge(prefix="s3://b/d1/") == 3
    assert sorted(o.uri for o in c.objects()) == uris[1:3]
    assert c.purge(all=True) == 2 and list(c.objects()) == []
    for bad in ({}, {"uri": uris[0], "all": True}, {"prefix": "b"}, {"uri": "s3://b/"}, {"prefix": "s3://b/", "all": True}):
        with pytest.raises(ValueError):
            c.purge(**bad)


def test_odd_keys_are_found_warmed_and_purged(http, origin):
    c = Client(http().url)
    keys = {"a b": "/b/a%20b", "p+q": "/b/p%2Bq", "%": "/b/%25", "ü": "/b/%C3%BC", "x\udcff": "/b/x%FF", "?#": "/b/%3F%23"}
    for path in keys.values():
        origin.put(path, 10)
    uris = {"s3://b/" + k for k in keys}
    s = c.warm(uris)
    assert s.done == len(keys) and s.failed == 0 and origin.count() == len(keys)
    assert {o.uri for o in c.objects()} == uris
    for u in uris:
        assert len(c.get(u)) == 10
    assert origin.count() == len(keys)
    assert [c.purge(u) for u in uris] == [1] * len(keys)


def test_warm_waits_and_tells_how_far_it_is(six, origin):
    c, uris = six
    told = []
    s = c.warm(uris, progress=lambda done, total: told.append((done, total)), concurrency=2)
    assert isinstance(s, WarmStatus) and (s.state, s.total, s.done, s.failed, s.bytes_done, s.errors) == ("done", 6, 6, 0, 6000, ())
    assert told[-1] == (6, 6) and sorted(told) == told
    count = origin.count()
    assert [d for _, d in c.get_many(uris)] == [content("/" + u[5:], 1, 0, 1000) for u in uris] and origin.count() == count
    assert c.warm(uris[0], pin=True).done == 1 and next(iter(c.objects(uris[0]))).pinned


def test_warm_of_a_prefix_and_of_a_manifest(start, tmp_path):
    (tmp_path / "root/b/d").mkdir(parents=True)
    for i in range(7):
        (tmp_path / ("root/b/d/k%d" % i)).write_bytes(b"x" * 10)
    (tmp_path / "root/b/list").write_text("s3://b/d/k1\ns3://b/d/k2\n")
    c = Client(start({"type": "file", "root": str(tmp_path / "root")}).url)
    assert c.warm(manifest="s3://b/list").done == 2
    assert c.warm(prefix="s3://b/d/").done == 7
    with pytest.raises(errors.WarmError) as e:
        c.warm(prefix="s3://none/x")
    assert e.value.job.state == "failed" and "404" in str(e.value)


def test_objects_that_cannot_be_warmed_are_an_error_that_says_which(six):
    c, uris = six
    with pytest.raises(errors.WarmError, match="1 of 3 objects failed.*s3://b/none") as e:
        c.warm([*uris[:2], "s3://b/none"])
    assert e.value.job.done == 2 and e.value.job.failed == 1 and e.value.job.errors[0][0] == "s3://b/none"


def test_a_job_that_is_not_waited_for(six, origin):
    c, uris = six
    gate = threading.Event()
    origin.on(gate=gate)
    job = c.warm(uris, wait=False, concurrency=1)
    assert isinstance(job, WarmJob) and job.status().state == "running" and job.id in repr(job)
    with pytest.raises(errors.RequestTimeoutError, match="still running"):
        job.wait(timeout=0.2)
    assert job.cancel().state == "cancelled"
    gate.set()
    with pytest.raises(errors.WarmError, match="cancelled"):
        job.wait()
    again = c.warm(uris, wait=False)
    assert again.wait(timeout=30).done == 6
    with pytest.raises(errors.NotFoundError):
        WarmJob(c._admin, "nothing").status()


@pytest.mark.parametrize("bad", [{}, {"uris": ["s3://b/k"], "prefix": "s3://b/"}, {"uris": ["b/k"]}, {"manifest": ""}])
def test_jobs_that_cannot_be_are_refused_before_anything_is_sent(origin, bad):
    with pytest.raises(ValueError, match="expected"):
        Client(origin.url).warm(**bad)
    assert origin.count() == 0


def test_jobs_that_the_proxy_refuses(six):
    c, _ = six
    for bad in ({"uris": []}, {"uris": ["s3://b/"]}, {"uris": ["s3://b/k"], "concurrency": 0}):
        with pytest.raises(errors.BadRequestError, match="Expected"):
            c.warm(**bad)


def test_a_job_is_never_made_twice(origin):
    """The answer was lost: it may run, and is not asked for again."""
    origin.on(method="POST", close=True)
    with pytest.raises(errors.ConnectionFailedError):
        Client(origin.url).warm(["s3://b/k"])
    assert origin.count() == 1


def test_another_place_for_the_admin_route(start, origin):
    p = start({"type": "http", "endpoint": origin.url}, ready=False, server={"routes": [
        {"path": "/my/admin/", "handler": "admin"}, {"path": "/", "origin": "o", "cache": "main"}]})
    net.wait_until("it listens", lambda: net.can_connect(p.port))
    assert Client(p.url, admin_path="/my/admin").health() and Client(p.url, admin_path="/my/admin/").stats()["version"]
    assert not Client(p.url).health()


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"<html>"])
def test_an_endpoint_that_is_no_such_proxy(origin, body):
    origin.on(status=200, body=body)
    with pytest.raises(errors.ProtocolError, match="is this an s3dlio-proxy"):
        Client(origin.url).stats()


def test_bars_are_tqdms(six, origin, tmp_path, capsys):
    c, uris = six
    c.warm(uris, progress=True)
    origin.put("/b/large", 5 << 20, etag='"e"')
    c.download("s3://b/large", tmp_path / "f", progress=True)
    c.put("s3://b/new", b"x" * 5000, progress=True)
    err = capsys.readouterr().err
    assert "warm: 100%" in err and " 6/6 " in err and "large: 100%" in err and "5.00M/5.00M" in err and "new: 100%" in err


def test_without_tqdm_a_bar_is_an_error_that_says_what_to_install(six, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    c, uris = six
    with pytest.raises(ImportError, match=r"s3dlio-proxy\[progress\]"):
        c.warm(uris, progress=True)
