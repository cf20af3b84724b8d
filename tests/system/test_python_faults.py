"""The Python client against a server that fails: bodies that break off, objects that change, refusals, silence. It asks the
scriptable origin itself, for the proxy in between would mend most of it."""
import base64
import errno
import hashlib
import io
import os
import pickle
import socket
import stat
import threading
import time
import types
import zlib

import net
import pytest
from content import content
from pyserved import SOURCE  # noqa: F401 - the package's path

from s3dlio_proxy import Client, Credentials, Retry, errors  # noqa: E402
from s3dlio_proxy._transport import Cancel  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
MIB = 1 << 20
PART = 5 * MIB
SIZE = 3 * MIB + 1234
QUICK = Retry(attempts=4, base=0.001, cap=0.002)


@pytest.fixture
def c(origin):
    return Client(origin.url, retries=QUICK)


def whole(path="/b/k", version=1, size=SIZE):
    return content(path, version, 0, size)


def reading(c, tmp_path, uri="s3://b/k"):
    """Every way to read a whole object: name -> function."""
    def into():
        buffer = bytearray(SIZE + 1)
        return bytes(buffer[:c.readinto(uri, buffer)])

    def download():
        c.download(uri, tmp_path / "f")
        return (tmp_path / "f").read_bytes()

    def file():
        with c.open(uri) as f:
            return f.read()

    def pieces():
        with c.open(uri) as f:
            return b"".join(iter(lambda: f.read(100_000), b""))

    return {"get": lambda: c.get(uri), "get_range": lambda: c.get_range(uri, 0, SIZE + 5), "readinto": into, "file": file,
            "pieces": pieces, "download": download, "get_many": lambda: dict(c.get_many([uri]))[uri]}


@pytest.mark.parametrize("cut", ["fin", "rst"])
@pytest.mark.parametrize("size", [1000, SIZE])
def test_a_body_that_breaks_off_is_resumed(c, origin, tmp_path, cut, size):
    for name, read in reading(c, tmp_path).items():
        origin.clear_rules()
        origin.put("/b/k", size, etag='"e"')
        for n in (1, 2):
            origin.on(method="GET", path="/b/k", nth=1, cut_after=min(size - 1, 200_000 * n + 7), cut=cut)
        had = origin.count("/b/k", "GET")
        assert read() == whole(size=size), name
        asked = origin.log("/b/k", "GET")[had:]
        assert len(asked) >= (3 if size == SIZE else 2), name
        for r in asked[1:]:   # what follows a byte that was taken is of the same version
            assert r.get("if-match") == '"e"' or not r.range_start(), (name, r)
    if size == SIZE and cut == "fin":
        assert origin.log("/b/k", "GET")[-1].range_start() >= 200_007


def test_a_resumption_asks_for_what_is_missing_only(c, origin):
    origin.put("/b/k", SIZE)
    origin.on(nth=1, cut_after=2 * MIB + 5)
    assert c.get("s3://b/k") == whole()
    first, second = origin.log("/b/k")
    assert first.range_header is None and second.get("if-match") == origin.objects["/b/k"].etag
    assert second.range_header == "bytes=%d-%d" % (2 * MIB + 5, SIZE - 1)


def test_bodies_that_always_break_off_are_errors_and_never_short(c, origin, tmp_path):
    origin.put("/b/k", SIZE, etag='"e"')
    origin.on(method="GET", cut_after=1000)
    for name, read in reading(c, tmp_path).items():
        with pytest.raises(errors.TransportError) as e:
            read()
        assert e.value.uri == "s3://b/k", name
        assert os.listdir(tmp_path) == []
    with pytest.raises(errors.TruncatedError):
        Client(origin.url, retries=0).get("s3://b/k")


def test_progress_is_what_lets_it_go_on(origin):
    """Ten breaks are more than four tries, but a large object that comes a megabyte at a time does come."""
    origin.put("/b/k", 10 * MIB)
    origin.on(cut_after=MIB)
    assert Client(origin.url, retries=QUICK).get("s3://b/k") == whole(size=10 * MIB)


def change_after(origin, version=2, size=SIZE):
    """The first body breaks off, and then the object is another."""
    origin.put("/b/k", SIZE, version=1, etag='"v1"')
    origin.on(method="GET", path="/b/k", nth=1, cut_after=MIB + 5)
    origin.on(method="GET", path="/b/k", nth=1,   # of those that the rule before does not take
              call=lambda rec: origin.put("/b/k", size, version=version, etag='"v%d"' % version))


@pytest.mark.parametrize("size", [SIZE, SIZE - 1000, 10])
def test_an_object_that_changes_meanwhile_is_read_anew_and_never_mixed(c, origin, tmp_path, size):
    for name, read in reading(c, tmp_path).items():
        if name in ("file", "pieces"):   # bound to the version they were opened on
            continue
        origin.clear_rules()
        change_after(origin, size=size)
        assert read() == whole(version=2, size=size), name
        assert any(r.status == 412 for r in origin.log("/b/k"))


@pytest.mark.parametrize("size", [SIZE + 5000, SIZE - 1000])
def test_an_open_range_of_an_object_that_changes_meanwhile_is_of_the_new_version(c, origin, size):
    """Its positions in the old version say nothing of the new one."""
    for first in (10, -2 * MIB):
        for read in (lambda u, n: dict(c.get_many([(u, n, None)]))[u, n, None], c.get_range):
            origin.clear_rules()
            change_after(origin, size=size)
            assert read("s3://b/k", first) == whole(version=2, size=size)[first:]
            assert any(r.status == 412 for r in origin.log("/b/k"))


def test_an_object_that_never_holds_still_is_an_error(origin):
    versions = iter(range(2, 100))
    origin.put("/b/k", SIZE)
    origin.on(cut_after=MIB + 5, call=lambda rec: origin.put("/b/k", SIZE, version=next(versions)))
    for read in (lambda c: c.get("s3://b/k"), lambda c: c.readinto("s3://b/k", bytearray(SIZE))):
        with pytest.raises((errors.ObjectChangedError, errors.TruncatedError)):
            read(Client(origin.url, retries=QUICK))


def test_a_file_keeps_to_the_version_it_was_opened_on(c, origin):
    origin.put("/b/k", SIZE)
    f = c.open("s3://b/k")
    assert f.read(10) == whole()[:10]
    origin.put("/b/k", SIZE, version=2)
    f.seek(2 * MIB)
    with pytest.raises(errors.ObjectChangedError) as e:
        f.read(10)
    assert e.value.status == 412 and e.value.uri == "s3://b/k"
    with pytest.raises(errors.ObjectChangedError):
        c.get_range("s3://b/k", 0, 10, etag='"other"')
    with pytest.raises(errors.ObjectChangedError):
        c.readinto("s3://b/k", bytearray(10), etag='"other"')


@pytest.mark.parametrize("lie", [
    {"drop": ["ETag"]},
    {"content_range": "bytes 0-9/%d" % SIZE},
    {"content_range": "bytes %d-%d/%d" % (MIB + 5, SIZE - 1, SIZE + 1)},
    {"content_range": "nonsense"},
    {"ignore_range": True},
])
def test_an_answer_to_another_question_is_never_taken_for_the_rest(origin, lie):
    """A server that disregards If-Match or the range: the resumption is refused, and the object read anew or not at all."""
    origin.put("/b/k", SIZE)
    origin.on(method="GET", when=lambda r: r.range_header, **lie)
    origin.on(method="GET", cut_after=MIB + 5)
    with pytest.raises((errors.ProtocolError, errors.ObjectChangedError, errors.TruncatedError)):
        Client(origin.url, retries=QUICK).get("s3://b/k")
    assert any(r.range_header for r in origin.log("/b/k"))


@pytest.mark.parametrize("answer", [{"content_range": "bytes 0-9/%d" % SIZE}, {"ignore_range": True}, {"content_range": "x"}])
def test_a_range_that_was_not_asked_for_is_an_error(c, origin, answer):
    origin.put("/b/k", SIZE)
    origin.on(**answer)
    with pytest.raises(errors.ProtocolError):
        c.get_range("s3://b/k", 10, 10)
    with pytest.raises(errors.ProtocolError):
        c.readinto("s3://b/k", bytearray(10), 10)


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_strong_etag_it_is_begun_again(c, origin, tmp_path, etag):
    origin.put("/b/k", SIZE, etag=etag)
    origin.on(method="GET", nth=1, cut_after=2 * MIB)
    assert c.get("s3://b/k") == whole()
    assert [r.range_header for r in origin.log("/b/k")] == [None, None]
    assert all(r.get("if-match") is None for r in origin.log("/b/k"))
    origin.clear_rules()
    origin.on(method="GET", when=lambda r: True, cut_after=2 * MIB)
    with pytest.raises(errors.TruncatedError):
        c.download("s3://b/k", tmp_path / "f")
    assert os.listdir(tmp_path) == []


def test_bodies_of_unknown_length(c, origin, tmp_path):
    origin.put("/b/k", SIZE, etag='"e"')
    origin.on(method="GET", when=lambda r: not r.range_header, chunked=True)
    assert c.get("s3://b/k") == whole() and dict(c.get_many(["s3://b/k"]))["s3://b/k"] == whole()
    assert c.download("s3://b/k", tmp_path / "f") == SIZE and (tmp_path / "f").read_bytes() == whole()
    origin.clear_rules()
    origin.on(method="GET", nth=1, chunked=True, cut_after=MIB + 3)
    assert c.get("s3://b/k") == whole()


# ---- what is tried again

@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_failures_of_the_server_are_tried_again(c, origin, status):
    origin.put("/b/k", 10)
    origin.on(times=3, status=status)
    assert c.get("s3://b/k") == whole(size=10) and origin.count() == 4
    origin.on(status=status, body=b"<Error><Code>SlowDown</Code><Message>a\n b</Message><RequestId>r</RequestId></Error>")
    with pytest.raises(errors.ServerError) as e:
        c.get("s3://b/k")
    assert origin.count() == 8 and e.value.status == status
    assert (e.value.code, e.value.request_id, e.value.message, e.value.uri) == ("SlowDown", "r", "a b", "s3://b/k")


@pytest.mark.parametrize("status, kind", [(400, errors.BadRequestError), (403, errors.AccessDeniedError), (404, errors.NotFoundError),
                                          (409, errors.ConflictError), (412, errors.PreconditionFailedError), (301, errors.BadRequestError),
                                          (405, errors.BadRequestError), (501, errors.ServerError)])
def test_answers_are_not_tried_again(c, origin, status, kind):
    origin.on(status=status, headers={"x-amz-request-id": "r7"})
    with pytest.raises(kind) as e:
        c.get("s3://b/k")
    assert origin.count() == 1 and e.value.status == status and "r7" in e.value.request_id
    assert isinstance(e.value, errors.ResponseError) and isinstance(e.value, errors.Error) and isinstance(e.value, OSError)
    with pytest.raises(kind):
        c.stat("s3://b/k")


def clock(monkeypatch):
    """Pauses of the client, which do not take place."""
    pauses = []
    monkeypatch.setattr("s3dlio_proxy._transport.time",
                        types.SimpleNamespace(sleep=pauses.append, time=time.time, monotonic=time.monotonic))
    return pauses


def test_pauses_grow_and_are_random_and_bounded(origin, monkeypatch):
    pauses = clock(monkeypatch)
    origin.on(status=503)
    c = Client(origin.url, retries=Retry(attempts=7, base=1, cap=4))
    for _ in range(20):
        with pytest.raises(errors.ServerError):
            c.get("s3://b/k")
    rounds = [pauses[i:i + 6] for i in range(0, 120, 6)]
    for n, most in enumerate((1, 2, 4, 4, 4, 4)):
        of = [r[n] for r in rounds]
        assert all(0 <= p <= most for p in of) and len(set(of)) > 10 and max(of) > most / 2


def test_retry_after_is_heeded_within_a_bound(origin, monkeypatch):
    pauses = clock(monkeypatch)
    origin.put("/b/k", 1)
    for after in ("7", "9999999", "Fri, 31 Dec 2100 23:59:59 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", "soon", "-5"):
        origin.on(times=1, status=503, headers={"Retry-After": after})
        Client(origin.url, retries=Retry(base=0.5, retry_after=30)).get("s3://b/k")
    assert pauses[:3] == [7, 30, 30] and all(p <= 0.5 for p in pauses[3:]) and len(pauses) == 6


def test_a_connection_that_cannot_be_made(monkeypatch):
    pauses = clock(monkeypatch)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))   # nobody listens
        c = Client("http://127.0.0.1:%d" % s.getsockname()[1])
        with pytest.raises(errors.ConnectionFailedError) as e:
            c.get("s3://b/k")
        assert e.value.unsent and isinstance(e.value, ConnectionError) and len(pauses) == 4
        with pytest.raises(errors.ConnectionFailedError):
            c.create_bucket("b")   # was never sent, so it may be tried again
        assert len(pauses) == 8 and not c.health() and not c.ready()
    with pytest.raises(errors.ConnectionFailedError):
        Client("http://no-such-host.invalid", retries=0).get("s3://b/k")


def test_silence_is_an_error_in_time(origin):
    origin.put("/b/k", SIZE)
    origin.on(method="GET", path="/b/k", nth=1, never=True)
    c = Client(origin.url, timeout=(5, 0.3), retries=QUICK)
    assert c.get("s3://b/k") == whole()
    origin.clear_rules()
    origin.on(method="GET", path="/b/k", never=True)
    with pytest.raises(errors.RequestTimeoutError) as e:
        c.get("s3://b/k")
    assert isinstance(e.value, TimeoutError) and not e.value.unsent
    origin.clear_rules()
    origin.on(method="GET", path="/b/k", nth=1, mid_delay=(MIB, 2))   # in the middle of a body
    assert c.get("s3://b/k") == whole() and origin.log("/b/k")[-1].range_start() == MIB


def test_connections_that_the_server_has_closed_are_no_errors(origin):
    origin.put("/b/k", 10)
    c = Client(origin.url, retries=0)
    for _ in range(3):
        assert c.get("s3://b/k")
        origin.settle()
        assert origin.close_idle() == 1
        time.sleep(0.05)
    origin.on(connection_close=True)
    assert c.get("s3://b/k") and c.get("s3://b/k")


def test_connections_are_kept_whatever_is_read(origin, tmp_path):
    origin.put("/b/k", SIZE, etag='"e"')
    origin.put("/b/empty", 0)
    c = Client(origin.url)
    for read in reading(c, tmp_path).values():
        read()
    for _ in range(3):
        c.get("s3://b/empty")
        c.stat("s3://b/k")
        c.readinto("s3://b/k", bytearray(10), 5)
        c.put("s3://b/new", b"x")
        for bad in (lambda: c.get("s3://b/none"), lambda: c.stat("s3://b/none"), lambda: c.get_range("s3://b/k", SIZE)):
            with pytest.raises(errors.ResponseError):
                bad()
    assert origin.connections <= 2   # one, and one of the thread of get_many


# ---- writing

def test_a_put_is_sent_again_whole(c, origin):
    origin.on(method="PUT", times=1, status=503)
    origin.on(method="PUT", nth=1, close=True)
    origin.expect_upload("/b/k")
    c.put("s3://b/k", whole())
    assert [r.received for r in origin.log("/b/k")][-1] == SIZE and origin.log("/b/k")[-1].body_ok and origin.count() == 3
    digest = hashlib.md5(whole()).digest()
    assert origin.log("/b/k")[-1].get("content-md5") == base64.b64encode(digest).decode()


def test_what_is_not_idempotent_is_sent_again_only_where_it_cannot_have_been_done(c, origin):
    for call in (lambda: c.put("s3://b/k", b"x", exclusive=True), lambda: c.create_bucket("b"), lambda: c.delete_bucket("b")):
        for what, error in (({"status": 500}, errors.ServerError), ({"close": True}, errors.ConnectionFailedError)):
            origin.clear_rules()
            origin.clear_log()
            origin.on(**what)
            with pytest.raises(error):
                call()
            assert origin.count() == 1
        for status in (503, 429):
            origin.clear_rules()
            origin.clear_log()
            origin.on(times=2, status=status)
            origin.on(status=200)
            call()
            assert origin.count() == 3


class Store:
    """Multipart uploads by rules of the origin."""

    def __init__(self, origin):
        self.origin = origin
        self.origin.on(method="POST", when=lambda r: r.query == "uploads=", status=200,
                       body=b"<InitiateMultipartUploadResult><UploadId>u+/1</UploadId></InitiateMultipartUploadResult>")

    def complete(self, **what):
        self.origin.on(method="POST", when=lambda r: r.query.startswith("uploadId="), **what)

    def completed(self):
        self.complete(status=200, body=b"<CompleteMultipartUploadResult><ETag>\"whole-3\"</ETag></CompleteMultipartUploadResult>")

    def log(self, method, query=""):
        return [r for r in self.origin.log("/b/k", method) if r.query.startswith(query)]

    def aborted(self):
        return [r.query for r in self.log("DELETE")]


@pytest.fixture
def store(origin):
    return Store(origin)


def test_parts_are_sent_again_and_the_upload_completes(c, origin, store):
    store.completed()
    origin.on(method="PUT", nth=2, status=503)
    origin.on(method="PUT", nth=3, close="rst")
    r = c.put("s3://b/k", whole(size=3 * PART), part_size=PART, threads=3)
    assert r.etag == '"whole-3"' and r.parts == 3 and store.aborted() == []
    done = {r.query: r for r in store.log("PUT") if r.status == 200}
    assert set(done) == {"partNumber=%d&uploadId=u%%2B%%2F1" % n for n in (1, 2, 3)}
    body = store.log("POST", "uploadId=")[0].body
    assert [body.index(b"<PartNumber>%d</PartNumber><ETag>" % n) for n in (1, 2, 3)]


def sources(tmp_path):
    data = whole(size=4 * PART)
    (tmp_path / "f").write_bytes(data)
    return {"bytes": data, "path": tmp_path / "f", "file": io.BytesIO(data)}


@pytest.mark.parametrize("source", ["bytes", "path", "file", "writer"])
def test_an_upload_that_fails_is_aborted_and_leaves_nothing(c, origin, store, tmp_path, source):
    origin.on(method="PUT", when=lambda r: "partNumber=2&" in r.query, status=403, body=b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(errors.AccessDeniedError):
        if source == "writer":
            with c.open("s3://b/k", "wb", part_size=PART, threads=2) as f:
                for _ in range(20):
                    f.write(bytes(MIB))
        else:
            c.put("s3://b/k", sources(tmp_path)[source], part_size=PART, threads=2)
    assert store.aborted() == ["uploadId=u%2B%2F1"] and store.log("POST", "uploadId=") == []


def test_the_abort_comes_after_every_part(c, origin, store):
    """A part that arrives later would stay on the server, unseen."""
    under_way = []
    origin.on(method="PUT", when=lambda r: "partNumber=1&" in r.query, delay=0.5)
    origin.on(method="PUT", when=lambda r: "partNumber=2&" in r.query, status=403)
    origin.on(method="DELETE", call=lambda rec: under_way.extend(r for r in store.log("PUT") if r.status is None))
    with pytest.raises(errors.AccessDeniedError):
        c.put("s3://b/k", bytes(4 * PART), part_size=PART, threads=2)
    assert len(store.aborted()) == 1 and under_way == []
    assert {r.status for r in store.log("PUT")} == {200, 403}


def test_an_exception_of_the_caller_aborts(c, origin, store):
    class Bad(io.RawIOBase):
        given = 0

        def read(self, n=-1):
            Bad.given += 1
            if Bad.given > 12:
                raise KeyboardInterrupt
            return bytes(min(n, MIB))

    with pytest.raises(KeyboardInterrupt):
        c.put("s3://b/k", Bad(), part_size=PART)
    assert len(store.aborted()) == 1

    def tell(done, total):
        raise RuntimeError("enough")
    with pytest.raises(RuntimeError, match="enough"):
        c.put("s3://b/k", bytes(3 * PART), part_size=PART, progress=tell)
    assert len(store.aborted()) == 2
    with pytest.raises(ZeroDivisionError), c.open("s3://b/k", "wb", part_size=PART) as f:
        f.write(bytes(2 * PART))
        1 / 0  # noqa: B018
    assert len(store.aborted()) == 3 and f.closed and f.result is None
    f = c.open("s3://b/k", "wb", part_size=PART)
    f.write(bytes(PART))
    del f   # forgotten
    assert len(store.aborted()) == 4
    assert store.log("POST", "uploadId=") == []


def test_a_small_file_that_is_left_by_an_exception_is_never_sent(c, origin):
    with pytest.raises(ZeroDivisionError), c.open("s3://b/k", "wb") as f:
        f.write(b"half")
        1 / 0  # noqa: B018
    c.open("s3://b/k", "wb").write(b"forgotten")
    f = c.open("s3://b/k", "wb")
    f.write(b"called off")
    f.abort()
    assert origin.count() == 0 and f.closed
    with pytest.raises(ValueError):
        f.write(b"more")


def test_a_file_that_changes_while_it_is_sent(c, origin, store, tmp_path):
    (tmp_path / "f").write_bytes(bytes(3 * PART))

    def shrink(rec):
        os.truncate(tmp_path / "f", 2 * PART)
    origin.on(method="PUT", nth=1, call=shrink)
    with pytest.raises(errors.IntegrityError, match="changed"):
        c.put("s3://b/k", tmp_path / "f", part_size=PART, threads=1)
    assert len(store.aborted()) == 1


def test_a_completion_whose_answer_is_lost(c, origin, store):
    data = whole(size=3 * PART)
    parts = [data[i:i + PART] for i in range(0, len(data), PART)]
    tag = hashlib.md5(b"".join(hashlib.md5(p).digest() for p in parts)).hexdigest() + "-3"
    store.complete(times=1, close=True)

    def made(rec):
        origin.put("/b/k", len(data), etag='"%s"' % tag)
    store.complete(status=404, body=b"<Error><Code>NoSuchUpload</Code></Error>", call=made)
    for n, p in enumerate(parts, 1):
        origin.on(method="PUT", when=lambda r, n=n: "partNumber=%d&" % n in r.query, status=200,
                  headers={"ETag": '"%s"' % hashlib.md5(p).hexdigest()})
    r = c.put("s3://b/k", data, part_size=PART)
    assert r.etag == '"%s"' % tag and r.parts == 3 and store.aborted() == []
    origin.put("/b/k", 5)   # but another object is there: then it is not known to be done
    origin.rules = [r for r in origin.rules if r.what.get("call") is not made and not r.what.get("close")]
    store.complete(times=1, close=True)
    store.complete(status=404, body=b"<Error><Code>NoSuchUpload</Code></Error>")
    with pytest.raises(errors.NotFoundError) as e:
        c.put("s3://b/k", data, part_size=PART)
    assert e.value.code == "NoSuchUpload"


def test_an_exclusive_completion_whose_answer_is_lost(c, origin, store):
    """The second try finds an object: our own, or another's."""
    data = whole(size=3 * PART)
    sums = [hashlib.md5(data[i:i + PART]).digest() for i in range(0, len(data), PART)]
    tag = '"%s-3"' % hashlib.md5(b"".join(sums)).hexdigest()
    for n, s in enumerate(sums, 1):
        origin.on(method="PUT", when=lambda r, n=n: "partNumber=%d&" % n in r.query, status=200, headers={"ETag": '"%s"' % s.hex()})
    refusal = {"status": 412, "body": b"<Error><Code>PreconditionFailed</Code></Error>"}
    rules = list(origin.rules)
    for etag in (tag, '"another"'):
        origin.rules = list(rules)
        store.complete(times=1, close=True)
        store.complete(**refusal, call=lambda rec, etag=etag: origin.put("/b/k", len(data), etag=etag))
        if etag == tag:
            assert c.put("s3://b/k", data, part_size=PART, exclusive=True).etag == tag and store.aborted() == []
        else:
            with pytest.raises(errors.PreconditionFailedError):
                c.put("s3://b/k", data, part_size=PART, exclusive=True)
            assert len(store.aborted()) == 1
    origin.rules = list(rules)
    origin.put("/b/k", len(data), etag=tag)
    store.complete(**refusal)
    with pytest.raises(errors.PreconditionFailedError):   # nothing was unclear: that object was there before
        c.put("s3://b/k", data, part_size=PART, exclusive=True)


def test_a_completion_that_is_an_error_in_a_200(c, origin, store):
    store.complete(times=2, status=200, body=b"<Error><Code>InternalError</Code><Message>try again</Message></Error>")
    store.completed()
    assert c.put("s3://b/k", bytes(3 * PART), part_size=PART).etag == '"whole-3"'
    origin.clear_rules()
    Store(origin).complete(status=200, body=b"<Error><Code>InvalidPart</Code><Message>no</Message><RequestId>r</RequestId></Error>")
    with pytest.raises(errors.BadRequestError) as e:
        c.put("s3://b/k", bytes(3 * PART), part_size=PART)
    assert e.value.code == "InvalidPart" and e.value.request_id == "r" and len(store.aborted()) == 1


# ---- files of downloads

def test_a_download_whose_sum_is_wrong_is_no_file(c, origin, tmp_path):
    origin.put("/b/k", SIZE)   # the origin's ETag looks like an MD5 and is none of the bytes
    (tmp_path / "f").write_bytes(b"what was there")
    with pytest.raises(errors.IntegrityError, match="MD5"):
        c.download("s3://b/k", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"what was there" and os.listdir(tmp_path) == ["f"]
    origin.put("/b/k", SIZE, etag='"%s"' % hashlib.md5(whole()).hexdigest())
    assert c.download("s3://b/k", tmp_path / "f") == SIZE and (tmp_path / "f").read_bytes() == whole()


@pytest.mark.parametrize("name, value", [("x-amz-checksum-sha256", hashlib.sha256), ("x-amz-checksum-sha1", hashlib.sha1),
                                         ("x-amz-checksum-crc32", None)])
def test_checksums_of_the_whole_object_are_checked(c, origin, tmp_path, name, value):
    good = value(whole()).digest() if value else zlib.crc32(whole()).to_bytes(4, "big")
    for digest, fine in ((good, True), (bytes(len(good)), False)):
        text = base64.b64encode(digest).decode()
        origin.put("/b/k", SIZE, etag='"multi-3"', headers={name: text})
        if fine:
            assert c.download("s3://b/k", tmp_path / "f") == SIZE
        else:
            with pytest.raises(errors.IntegrityError):
                c.download("s3://b/k", tmp_path / "f")
            origin.put("/b/k", SIZE, etag='"multi-3"', headers={name: text + "-3"})   # of parts: no sum of the bytes
            assert c.download("s3://b/k", tmp_path / "f") == SIZE
    origin.put("/b/k", SIZE, headers={"x-amz-server-side-encryption": "aws:kms"})   # then the ETag is no MD5
    assert c.download("s3://b/k", tmp_path / "f") == SIZE


def test_a_download_that_is_called_off_leaves_nothing(c, origin, tmp_path):
    origin.put("/b/k", 20 * MIB, etag='"e"')

    def tell(done, total):
        assert total == 20 * MIB
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        c.download("s3://b/k", tmp_path / "f", progress=tell)
    assert os.listdir(tmp_path) == []
    with pytest.raises(FileNotFoundError):
        c.download("s3://b/k", tmp_path / "none/f")
    with pytest.raises(errors.NoSuchKeyError):
        c.download("s3://b/none", tmp_path / "f")
    assert os.listdir(tmp_path) == []


def test_a_download_replaces_files_only(c, origin, tmp_path):
    origin.put("/b/k", 1000, etag='"e"')
    os.mkfifo(tmp_path / "pipe")
    os.symlink("pipe", tmp_path / "to pipe")
    for name in ("pipe", "to pipe"):
        with pytest.raises(OSError) as e:
            c.download("s3://b/k", tmp_path / name)
        assert e.value.errno == errno.EINVAL and stat.S_ISFIFO(os.stat(tmp_path / name).st_mode)
    assert sorted(os.listdir(tmp_path)) == ["pipe", "to pipe"] and origin.count() == 0
    (tmp_path / "file").write_bytes(b"old")
    for target in ("file", "new"):
        os.symlink(target, tmp_path / ("link to " + target))
        c.download("s3://b/k", tmp_path / ("link to " + target))
        assert (tmp_path / ("link to " + target)).is_symlink() and (tmp_path / target).read_bytes() == whole(size=1000)
    long = "\u2603" * 80   # 240 bytes
    assert c.download("s3://b/k", tmp_path / long) == 1000 and (tmp_path / long).read_bytes() == whole(size=1000)


# ---- answers that are none

@pytest.mark.parametrize("length", [None, "many", "-1"])
def test_an_answer_without_a_size_is_none(c, origin, monkeypatch, length):
    from s3dlio_proxy._types import object_info
    headers = {"ETag": '"e"'} if length is None else {"ETag": '"e"', "Content-Length": length}
    with pytest.raises(errors.ProtocolError) as e:
        object_info("s3://b/k", headers)
    assert e.value.uri == "s3://b/k"
    assert object_info("s3://b/k", {"content-length": "0"}).size == 0


def test_batches_that_were_not_answered_as_such_have_failed(c, origin):
    for body in (b"<Error><Code>InternalError</Code><Message>no</Message></Error>", b"<html/>", b"not XML", b""):
        origin.clear_rules()
        origin.on(method="POST", status=200, body=body)
        with pytest.raises(errors.BatchError) as e:
            c.delete(["s3://b/1", "s3://b/2"])
        assert [x.uri for x in e.value.errors] == ["s3://b/1", "s3://b/2"], body
    origin.clear_rules()
    origin.on(method="POST", status=200, body=b"<DeleteResult/>")
    assert c.delete(["s3://b/1", "s3://b/2"]) == 2


@pytest.mark.parametrize("body", [b"{}", b'{"objects": 3}', b'{"objects": [3]}', b'{"objects": [{"uri": 5}]}', b'{"purged": "x"}',
                                  b'{"id": "j", "objects": {"a": 1}}'])
def test_the_proxys_answers_that_lack_what_is_expected(c, origin, body):
    origin.on(method="POST", path="/_s3dlio/warm", status=202, body=b'{"id": "j"}')
    job = c.warm(["s3://b/k"], wait=False)
    origin.clear_rules()
    origin.on(when=lambda r: r.method != "POST", status=200, body=body)
    origin.on(path="/_s3dlio/purge", status=200, body=b'{"purged": "x"}')
    origin.on(path="/_s3dlio/warm", status=202, body=b"{}")
    for ask in (lambda: list(c.objects()), job.status, job.cancel, lambda: c.purge(all=True),
                lambda: c.warm(["s3://b/k"], wait=False)):
        with pytest.raises(errors.ProtocolError):
            ask()


def test_calling_off_may_interrupt_itself():
    """As when the collector ends a forgotten get_many() while one of its methods has the lock."""
    cancel = Cancel()

    class Body:
        asked = 0

        def __init__(self):
            self._connection = self

        @property
        def sock(self):   # asked for while the lock is held
            self.asked += 1
            if self.asked == 1:
                cancel.set()
            raise OSError
    cancel.add(Body())
    t = threading.Thread(target=cancel.set, daemon=True)
    t.start()
    t.join(10 * net.SLOW)
    assert not t.is_alive() and cancel.is_set


def test_an_uploads_name_is_below_the_whole_of_its_uri(c, origin, tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    origin.on(method="PUT", status=200, headers={"ETag": '"e"'})
    for uri, made in (("s3://b", "b/f"), ("s3://b/", "b/f"), ("s3://b/a/", "b/a/f"), ("s3://b/a//", "b/a//f"), ("s3://b//", "b//f"),
                      ("s3://b/a", "b/a")):
        assert c.upload(tmp_path / "f", uri).uri == "s3://" + made



@pytest.mark.parametrize("body", [b"", b"<html>", b"<!DOCTYPE x [<!ENTITY a 'b'>]><ListBucketResult/>", b"<Other/>",
                                  b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
                                  b"<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>"])
def test_listings_that_are_none(c, origin, body):
    origin.on(status=200, body=body)
    with pytest.raises(errors.ProtocolError):
        list(c.list("s3://b/"))


def test_a_listing_that_leads_nowhere_ends(c, origin):
    origin.on(status=200, body=b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
              b"<Contents><Key>k</Key><Size>1</Size></Contents></ListBucketResult>")
    with pytest.raises(errors.ProtocolError):
        list(c.list("s3://b/"))
    assert origin.count() == 2


def test_listings_with_and_without_encoding(c, origin):
    entry = b"<Contents><Key>a+b%20%2Bc</Key><Size>1</Size></Contents></ListBucketResult>"
    origin.on(times=1, status=200, body=b"<ListBucketResult>" + entry)
    origin.on(status=200, body=b"<ListBucketResult><EncodingType>url</EncodingType>" + entry)
    assert [o.key for o in c.list("s3://b/")] == ["a+b%20%2Bc"]
    assert [o.key for o in c.list("s3://b/")] == ["a b +c"]
    assert "encoding-type=url" in origin.log()[0].query and "list-type=2" in origin.log()[0].query


def test_a_listing_that_breaks_off_is_asked_for_again(c, origin):
    body = b"<ListBucketResult><Contents><Key>k</Key><Size>1</Size></Contents></ListBucketResult>"
    origin.on(times=1, status=200, body=body, cut_after=40)
    origin.on(status=200, body=body)
    assert [o.key for o in c.list("s3://b/")] == ["k"] and origin.count() == 2


def test_error_bodies_are_read_only_so_far(c, origin):
    origin.on(status=403, body=b"x" * (20 * MIB))
    with pytest.raises(errors.AccessDeniedError):
        c.get("s3://b/k")
    assert origin.bytes_sent() < 20 * MIB


# ---- errors as objects

def test_errors_can_be_pickled_and_show_no_secret(origin):
    origin.on(status=403, body=b"<Error><Code>AccessDenied</Code><Message>m</Message><RequestId>r</RequestId></Error>")
    secret = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI", "token-1234")
    c = Client(origin.url, credentials=secret, retries=0)
    with pytest.raises(errors.AccessDeniedError) as e:
        c.get("s3://b/k")
    back = pickle.loads(pickle.dumps(e.value))
    assert type(back) is errors.AccessDeniedError and back.__dict__ == e.value.__dict__ and str(back) == str(e.value)
    assert (back.status, back.code, back.request_id, back.uri) == (403, "AccessDenied", "r", "s3://b/k")
    for text in (str(e.value), repr(e.value), repr(c), repr(secret), str(secret), repr(vars(e.value))):
        assert "wJalr" not in text and "token-1234" not in text and "Signature" not in text
    origin.on(close=True)
    batch = errors.BatchError("some", errors=[e.value])
    assert pickle.loads(pickle.dumps(batch)).errors[0].code == "AccessDenied"


def test_a_wrong_clock_is_mended_once(origin):
    def skewed(rec):
        return "skew" not in rec.get("x-amz-date", "") and rec.get("x-amz-date", "")[:4] != "2100"
    origin.put("/b/k", 5)
    origin.on(when=skewed, status=403, body=b"<Error><Code>RequestTimeTooSkewed</Code></Error>",
              headers={"Date": "Fri, 31 Dec 2100 12:00:00 GMT"})
    c = Client(origin.url, credentials=Credentials("a", "b"), retries=QUICK)
    assert len(c.get("s3://b/k")) == 5 and origin.count() == 2
    assert len(c.get("s3://b/k")) == 5 and origin.count() == 3
    origin.clear_rules()
    origin.on(status=403, body=b"<Error><Code>RequestTimeTooSkewed</Code></Error>", headers={"Date": "Fri, 31 Dec 2100 12:00:00 GMT"})
    with pytest.raises(errors.AccessDeniedError):
        c.get("s3://b/k")
    assert origin.count() == 4


def test_threads_share_a_client(c, origin):
    for i in range(20):
        origin.put("/b/k%d" % i, 50_000)
    failures = []

    def work(n):
        try:
            for i in range(20):
                k = "/b/k%d" % ((i + n) % 20)
                assert c.get("s3:/" + k) == content(k, 1, 0, 50_000)
        except BaseException as e:   # noqa: BLE001
            failures.append(e)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert failures == [] and origin.connections <= 8
