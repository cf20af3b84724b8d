"""get_many: order, bounds, errors, and that what is no longer wanted ends."""
import gc
import itertools
import threading
import time

import net
import pytest
from content import content
from pyserved import SOURCE  # noqa: F401 - the package's path

from s3dlio_proxy import Client, Retry, errors  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
MIB = 1 << 20
QUICK = Retry(attempts=2, base=0.001, cap=0.002)


@pytest.fixture
def c(origin):
    return Client(origin.url, retries=QUICK)


def uris(origin, n, size=1000):
    for i in range(n):
        origin.put("/b/k%03d" % i, size)
    return ["s3://b/k%03d" % i for i in range(n)]


def right(uri, data, size=1000, first=0):
    return data == content("/" + uri[5:], 1, first, size)


def workers():
    return [t for t in threading.enumerate() if t.name.startswith("s3dlio-get-")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    gc.collect()
    net.wait_until("the threads have ended", lambda: not workers())


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("threads, window", [(1, 1), (4, None), (16, 3), (3, 100)])
def test_each_item_comes_once(http, origin, ordered, threads, window):
    names = uris(origin, 60)
    c = Client(http().url)
    got = list(c.get_many(iter(names), threads=threads, window=window, ordered=ordered))
    assert (got if ordered else sorted(got)) == [(u, content("/" + u[5:], 1, 0, 1000)) for u in names]


def test_the_same_object_many_times_and_none(c, origin):
    u = uris(origin, 1)[0]
    assert [x for x, d in c.get_many([u] * 30, threads=5) if right(x, d)] == [u] * 30
    it = c.get_many([])
    assert list(it) == [] and list(it) == []


def test_ranges_are_items_too(c, origin):
    u = uris(origin, 1, 5000)[0]
    items = [(u, 10, 20), u, (u, 4990, 100), (u, 7, None), (u, -5, None)]
    assert [(i, d) for i, d in c.get_many(items)] == list(zip(items, (content("/b/k000", 1, *r) for r in (
        (10, 20), (0, 5000), (4990, 10), (7, 4993), (4995, 5)))))
    for bad in ((u, 0, 0), (u, -1, 5), (u, 1)):
        with pytest.raises(ValueError):
            list(c.get_many([bad]))


def test_order_is_kept_while_the_first_is_late(c, origin):
    names = uris(origin, 20)
    gate = threading.Event()
    origin.on(path="/b/k000", gate=gate)
    it = c.get_many(names, threads=4, window=8)
    threading.Timer(0.3, gate.set).start()
    assert [u for u, _ in it] == names


def test_what_is_done_first_comes_first_when_order_does_not_matter(c, origin):
    names = uris(origin, 20)
    gate = threading.Event()
    origin.on(path="/b/k000", gate=gate)
    with c.get_many(names, threads=4, window=8, ordered=False) as it:
        assert sorted(u for u, _ in itertools.islice(it, 19)) == names[1:]
        gate.set()
        assert next(it)[0] == names[0]


def test_no_more_than_the_window_is_asked_for_ahead(c, origin):
    taken = []

    def source():
        for u in uris(origin, 50):
            taken.append(u)
            yield u
    it = c.get_many(source(), threads=3, window=5)
    assert taken == [] and workers() == []
    for n in range(1, 11):
        next(it)
        time.sleep(0.02)
        assert len(taken) <= n - 1 + 5 and origin.count() <= n - 1 + 5
    it.close()


def test_an_endless_source_is_no_trouble(c, origin):
    u = uris(origin, 1)[0]
    with c.get_many(itertools.repeat(u), threads=4) as it:
        assert sum(1 for _ in itertools.islice(it, 100)) == 100


def bytes_ahead(origin, consumed):
    return sum(r.sent for r in origin.log()) - consumed


@pytest.mark.parametrize("ordered", [True, False])
def test_memory_is_bounded_while_the_consumer_is_slow(origin, ordered):
    size, limit = 8 * MIB, 20 * MIB
    names = uris(origin, 16, size)
    c = Client(origin.url)
    got = 0
    with c.get_many(names, threads=8, window=16, max_bytes=limit, ordered=ordered) as it:
        for n, (u, d) in enumerate(it):
            assert right(u, d, size)
            got += size
            if n < 4:   # by then the threads have run into the bound
                time.sleep(0.3)
                held = sum(len(x[3]) for x in list_of(it._shared.results)) + sum(len(x[2]) for x in it._waiting.values())
                assert held <= limit + size and it._shared.budget._used <= limit + size
    assert got == 16 * size


def list_of(q):
    """What is in a SimpleQueue, which stays there."""
    out = []
    while not q.empty():
        out.append(q.get())
    for x in out:
        q.put(x)
    return out


def test_an_object_larger_than_the_bound_is_still_read(origin):
    names = uris(origin, 6, 3 * MIB)
    c = Client(origin.url)
    for ordered in (True, False):
        got = list(c.get_many(names, max_bytes=MIB, threads=6, ordered=ordered))
        assert sorted(u for u, _ in got) == names and all(right(u, d, 3 * MIB) for u, d in got)


def test_the_first_failure_is_raised_in_its_place(c, origin):
    names = uris(origin, 20)
    names[7] = "s3://b/none"
    got = []
    with pytest.raises(errors.NoSuchKeyError) as e:
        for u, _ in c.get_many(names, threads=4):
            got.append(u)
    assert got == names[:7] and e.value.uri == "s3://b/none"


def test_failures_can_be_results(c, origin):
    names = uris(origin, 10)
    names[3], names[8] = "s3://b/none", "s3://b/broken"
    origin.put("/b/broken", 1000)
    origin.on(path="/b/broken", cut_after=5)
    got = list(c.get_many(names, threads=4, errors="return"))
    assert [u for u, _ in got] == names
    assert isinstance(got[3][1], errors.NoSuchKeyError) and isinstance(got[8][1], errors.TruncatedError)
    assert all(right(u, d) for n, (u, d) in enumerate(got) if n not in (3, 8))
    with pytest.raises(ValueError):   # a mistake is no result
        list(c.get_many(["nonsense"], errors="return"))


def test_an_iterator_that_has_failed_has_ended(c, origin):
    it = c.get_many(["s3://b/none", *uris(origin, 5)])
    with pytest.raises(errors.NoSuchKeyError):
        next(it)
    assert list(it) == []


def test_an_exception_of_the_source_is_the_callers(c, origin):
    def source():
        yield from uris(origin, 3)
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        list(c.get_many(source(), window=1))


@pytest.mark.parametrize("how", ["close", "with", "forget"])
def test_leaving_early_ends_the_rest_at_once(c, origin, how):
    """Bodies under way are cut, tries and pauses end, and nothing new is asked for."""
    names = uris(origin, 100, 4 * MIB)
    release = threading.Event()
    origin.on(path="/b/k001", mid_gate=(MIB, release))
    origin.on(path="/b/k002", times=1, status=503, headers={"Retry-After": "25"})
    it = c.get_many(names, threads=4, window=8)
    assert next(it)[0] == names[0]
    net.wait_until("all are busy", lambda: origin.count("/b/k001") and origin.count("/b/k002"))
    time.sleep(0.05)
    began = time.monotonic()
    if how == "close":
        it.close()
        it.close()
    elif how == "with":
        with it:
            pass
    del it
    gc.collect()
    net.wait_until("the threads have ended", lambda: not workers(), 5)
    assert time.monotonic() - began < 5 * net.SLOW + 1
    count = origin.count()
    time.sleep(0.2)
    assert origin.count() == count <= 20 and origin.count("/b/k002") == 1
    release.set()
    assert right(names[9], c.get(names[9]), 4 * MIB)   # the client is as good as before


def test_after_close_there_is_nothing(c, origin):
    it = c.get_many(uris(origin, 5))
    next(it)
    it.close()
    assert list(it) == []


@pytest.mark.parametrize("bad", [{"threads": 0}, {"window": 0}, {"max_bytes": 0}, {"errors": "ignore"}])
def test_bounds_that_cannot_be(c, bad):
    with pytest.raises(ValueError, match="expected"):
        c.get_many([], **bad)


def test_an_object_that_grows_between_two_tries(c, origin):
    """The second answer may be larger than what was reserved for the first; it is right nevertheless."""
    origin.put("/b/k", 1000)
    origin.on(path="/b/k", nth=1, cut_after=10, call=lambda r: None)
    origin.on(path="/b/k", nth=1, call=lambda r: origin.put("/b/k", 50_000, version=2))
    assert dict(c.get_many(["s3://b/k"], max_bytes=2000))["s3://b/k"] == content("/b/k", 2, 0, 50_000)


def test_more_threads_than_kept_connections(origin, caplog):
    """The bound is kept without a word in the log, and what is beyond it is closed."""
    names = uris(origin, 80, 100_000)
    c = Client(origin.url, pool=2, retries=0)
    assert len(list(c.get_many(names, threads=12))) == 80
    assert [r for r in caplog.records if r.levelname != "DEBUG"] == []
    net.wait_until("the others are closed", lambda: len(origin.open) <= 2)
    for u in names[:5]:
        c.get(u)
    assert len(origin.open) <= 2
