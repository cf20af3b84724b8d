"""The client in processes that were forked, spawned or sent it by pickle, as the workers of data loaders are."""
import concurrent.futures
import gc
import multiprocessing
import os
import pickle
import socket
import sys
import threading
import time

import net
import pytest
from content import content
from pyserved import SOURCE  # noqa: F401 - the package's path

from s3dlio_proxy import Client, Credentials, Retry, errors  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1"),
              pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")]
SIZE = 300_000


def right(c, names):
    return all(c.get("s3:/" + n) == content(n, 1, 0, SIZE) for n in names)


def put_all(origin, n=8):
    names = ["/b/k%d" % i for i in range(n)]
    for name in names:
        origin.put(name, SIZE, etag='"e"')
    return names


def in_child(run):
    """Runs in a fork of this process; its exit status says how it went. Bounded."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if run() else 2
        except BaseException:   # noqa: BLE001
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(code)
    end = time.monotonic() + 30 * net.SLOW
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "hung"


def sockets():
    return {os.readlink("/proc/self/fd/" + f) for f in os.listdir("/proc/self/fd") if os.path.islink("/proc/self/fd/" + f)}


def connections_of(c):
    return [x for x in c._transport._pool[1].pool.queue if x is not None]


def test_a_forked_child_has_connections_of_its_own(origin):
    names = put_all(origin)
    c = Client(origin.url, retries=0)
    assert right(c, names)
    fds = [x.sock.fileno() for x in connections_of(c)]
    links = [os.readlink("/proc/self/fd/%d" % f) for f in fds]
    assert len(fds) == 1

    def child():
        held = sockets()
        return not any(link in held for link in links) and right(c, names)
    for _ in range(3):
        assert in_child(child) == 0
    conns = {r.conn for r in origin.log()}
    assert len(conns) == 4
    assert right(c, names) and {r.conn for r in origin.log()} == conns, "the parent's connection is as it was"


def test_many_children_and_the_parent_at_once(origin):
    names = put_all(origin)
    c = Client(origin.url, retries=0)
    assert right(c, names)
    stop = threading.Event()
    bad = []

    def busy():
        while not stop.is_set():
            if not right(c, names[:3]):
                bad.append(1)
    threads = [threading.Thread(target=busy) for _ in range(4)]
    for t in threads:
        t.start()
    try:   # forks while other threads use the pool: whatever lock they hold is no trouble to the child
        results = [in_child(lambda: right(c, names) and not c.close() and right(c, names)) for _ in range(15)]
    finally:
        stop.set()
        for t in threads:
            t.join(30)
    assert results == [0] * 15 and not bad


def test_locks_that_were_held_at_the_fork(origin):
    """The worst moment: both the client's lock and the pool's are taken by another thread, for ever."""
    names = put_all(origin, 2)
    c = Client(origin.url, retries=0)
    assert right(c, names)
    pool = c._transport._pool[1].pool
    held, release = threading.Event(), threading.Event()

    def holder():
        with c._transport._lock, pool.mutex:
            held.set()
            release.wait(60)
    t = threading.Thread(target=holder)
    t.start()
    held.wait(10)

    def child():
        ok = right(c, names)
        gc.collect()   # the inherited pool goes
        return ok
    try:
        assert in_child(child) == 0
    finally:
        release.set()
        t.join(30)


def test_a_file_is_read_on_in_the_child_and_in_the_parent(origin):
    names = put_all(origin, 1)
    c, data = Client(origin.url, retries=0), content("/b/k0", 1, 0, SIZE)
    f = c.open("s3:/" + names[0], buffer_size=1000)
    assert f.read(1500) == data[:1500]
    assert in_child(lambda: f.read() == data[1500:]) == 0
    assert in_child(lambda: f.read(10) == data[1500:1510] and f.seek(0) == 0 and f.read() == data) == 0
    assert f.read() == data[1500:]


def test_an_iterator_of_before_the_fork_says_so_and_harms_nobody(origin):
    names = ["s3:/" + n for n in put_all(origin)]
    gate = threading.Event()
    origin.on(path="/b/k2", mid_gate=(SIZE // 2, gate))
    c = Client(origin.url, retries=0)
    it = c.get_many(names, threads=3)
    next(it)
    net.wait_until("a body is being read", lambda: it._shared.cancel._bodies)

    def child():
        with pytest.raises(RuntimeError, match="before the fork"):
            next(it)
        it.close()   # shuts no socket down that the parent reads from
        return [u for u, _ in c.get_many(names[3:])] == names[3:]
    assert in_child(child) == 0
    gate.set()
    assert [u for u, _ in it] == names[1:]


def test_a_forked_child_leaves_the_parents_upload_alone(origin):
    part = 5 << 20
    origin.on(method="POST", when=lambda r: r.query == "uploads=", status=200,
              body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    origin.on(method="POST", when=lambda r: r.query == "uploadId=u", status=200,
              body=b"<CompleteMultipartUploadResult><ETag>\"e-2\"</ETag></CompleteMultipartUploadResult>")
    c = Client(origin.url, retries=0)
    large, small = c.open("s3://b/large", "wb", part_size=part), c.open("s3://b/small", "wb")
    large.write(bytes(part))
    small.write(b"held")
    net.wait_until("the part is there", lambda: any(r.method == "PUT" and r.status for r in origin.log("/b/large")))
    had = origin.count()

    def child():
        upload = large._upload
        for go_on in (lambda: large.write(b"x"), lambda: small.write(b"x"), lambda: upload.add(b"x"), upload.complete):
            with pytest.raises(RuntimeError, match="before the fork"):
                go_on()
        upload.abort()
        large.abort()
        small.abort()
        return large.closed and small.closed

    def other_child():
        large.close()
        small.close()
        return large.result is None and small.result is None
    assert in_child(child) == 0 and in_child(other_child) == 0
    assert origin.count() == had, "nothing was sent"
    large.write(bytes(10))
    large.close()
    small.close()
    assert large.result.etag == '"e-2"' and large.result.parts == 2 and small.result.size == 4


@pytest.mark.ways("h1tls")
def test_over_tls_the_parents_session_lives_on(http, origin):
    names = put_all(origin, 2)
    p = http()
    c = Client(p.url, verify=p.ca, retries=0)
    assert right(c, names)
    before = p.stats()["connections"]["accepted"]
    assert in_child(lambda: right(c, names)) == 0
    assert right(c, names)
    assert p.stats()["connections"]["accepted"] == before + 2, "the child's, and that of this question"


def work(c, names):
    """In a worker process, of whatever kind."""
    assert right(c, names)
    assert [u for u, _ in c.get_many(["s3:/" + n for n in names], threads=3)] == ["s3:/" + n for n in names]
    return os.getpid(), repr(c)


def fail(c):
    c.get("s3://b/none")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_are_given_a_client(origin, method):
    names = put_all(origin)
    c = Client(origin.url, retries=Retry(attempts=2), headers={"X-Mine": "1"})
    assert right(c, names)   # it has connections, which must not travel
    context = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=context) as pool:
        done = [f.result(60 * net.SLOW) for f in [pool.submit(work, c, names) for _ in range(4)]]
        assert all(pid != os.getpid() and r == repr(c) for pid, r in done)
        with pytest.raises(errors.NoSuchKeyError) as e:   # an error comes back as what it was
            pool.submit(fail, c).result(60 * net.SLOW)
    assert e.value.status == 404 and e.value.code == "NoSuchKey" and e.value.uri == "s3://b/none"
    assert right(c, names) and all(r.get("x-mine") == "1" for r in origin.log())


def test_a_pickle_carries_settings_and_no_sockets(origin):
    names = put_all(origin, 1)
    c = Client(origin.url + "/", credentials=Credentials("AK", "secret", "token", "eu-west-1"), pool=3, timeout=(1, 9), retries=2,
               admin_path="/adm", headers={"X-A": "b"})
    assert right(c, names)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        d = pickle.loads(pickle.dumps(c, protocol))
        assert d._settings == c._settings and d.url == c.url and repr(d) == repr(c) and "secret" not in repr(d)
        assert d._transport._pool is None and right(d, names)
    r = origin.log()[-1]
    assert "/eu-west-1/s3/aws4_request" in r.get("authorization") and r.get("x-amz-security-token") == "token"


class Mine(Client):
    pass


def test_a_subclass_stays_one_through_a_pickle():
    assert type(pickle.loads(pickle.dumps(Mine("http://h")))) is Mine


def test_close_closes_and_it_can_be_used_again(origin):
    names = put_all(origin, 1)
    with Client(origin.url, retries=0) as c:
        assert right(c, names)
        sock = connections_of(c)[0].sock
        c.close()
        assert sock.fileno() == -1 and isinstance(sock, socket.socket)
        assert right(c, names)
    c.close()
    assert right(c, names) and len({r.conn for r in origin.log()}) == 3


def test_a_client_that_is_forgotten_closes_its_connections(origin):
    names = put_all(origin, 1)
    c = Client(origin.url)
    assert right(c, names)
    net.wait_until("it is open", lambda: len(origin.open) == 1)
    del c
    gc.collect()
    net.wait_until("it is closed", lambda: not origin.open)
