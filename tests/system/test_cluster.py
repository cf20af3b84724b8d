"""Three proxies behind HAProxy, as compose.cluster.yaml and the Kubernetes overlay `shared` run them, with the same
haproxy.cfg: the cluster holds each object once, a node that dies takes its own share and nothing else, and no client gets
a wrong byte of it."""
import json
import os
import shutil
import signal
import threading

import conftest
import net
import proxy as proxy_module
import pytest
import raw
import servers
from content import content
from proxy import TOP

pytestmark = pytest.mark.nosan
CFG = os.path.join(TOP, "docker", "haproxy", "haproxy.cfg")
KIB, MIB = 1 << 10, 1 << 20
NODES = (1, 2, 3)
OBJECTS = ["/b/dir%d/object-%03d.bin" % (i % 7, i) for i in range(240)]
SIZE = 3 * KIB


def haproxy_binary():
    binary = servers.program("haproxy")
    if not binary:
        assert not conftest.CI, "haproxy is required in CI: tests/run installs it"
        pytest.skip("no haproxy (tests/run installs it)")
    return binary


class Cluster:
    """The nodes by number, and the front before them."""

    def __init__(self, tmp, origin, **front_env):
        self.tmp, self.origin, self.starts, self.nodes, self.front = tmp, origin, 0, {}, None
        self.ports = {n: net.free_port() for n in NODES}
        try:
            for n in NODES:
                self.begin(n)
            for n in NODES:
                self.nodes[n].wait_ready()
            port = net.free_port()
            env = {"PATH": os.environ.get("PATH", ""), "S3DLIO_HAPROXY_LISTEN": "127.0.0.1:%d" % port,
                   "S3DLIO_HAPROXY_CHECK": "200ms", **front_env,
                   **{"S3DLIO_HAPROXY_NODE%d" % n: "127.0.0.1:%d" % self.ports[n] for n in NODES}}
            self.address = ("127.0.0.1", port)
            self.front = servers.Server([haproxy_binary(), "-db", "-f", CFG], port, str(tmp / "haproxy.log"), env)
            net.wait_until("the front to be ready", lambda: self.get("/_s3dlio/ready").status == 200)
        except BaseException:
            self.end()
            raise

    def begin(self, n):
        self.starts += 1
        d = self.tmp / ("node%d-%d" % (n, self.starts))
        d.mkdir()
        conf = proxy_module.config(self.ports[n], self.origin, {"memory": "128MiB"}, workers=1)
        self.nodes[n] = proxy_module.Proxy(d, conf, self.ports[n])
        return self.nodes[n]

    def kill(self, n):
        self.nodes[n].kill()

    def back(self, n):
        self.begin(n).wait_ready()
        net.wait_until("the front to see node %d again" % n, lambda: self.is_up(n))

    def is_up(self, n):
        return self.get("/_s3dlio/node/%d/ready" % n).status == 200

    def end(self):
        for p in self.nodes.values():
            p.kill()
        if self.front:
            self.front.stop()

    def stop(self):
        """The nodes' own judgement of their end."""
        self.front.stop()
        for p in self.nodes.values():
            p.stop()

    # asking it

    def get(self, target, headers=(), **kw):
        return raw.get(self.address, target, headers, **kw)

    def read_all(self, paths=OBJECTS, size=SIZE):
        """Every object with every byte right; what X-Cache said of each."""
        return {path: raw.get_checked(self.address, path, size)[0].get("x-cache") for path in paths}

    def held(self):
        """node -> the objects it has."""
        there = {}
        for n, p in self.nodes.items():
            if p.stopped:
                continue
            names, after = set(), ""
            while after is not None:
                r = raw.get(p.address, "/_s3dlio/objects?prefix=/b/&max=1000" + (after and "&after=" + after))
                assert r.status == 200, r
                page = json.loads(r.body)
                names |= {o["uri"] for o in page["objects"]}
                after = page["next"]
            there[n] = {u.replace("s3://", "/", 1) for u in names}
        return there


@pytest.fixture
def cluster(tmp_path, origin):
    for path in OBJECTS:
        origin.put(path, SIZE)
    c = Cluster(tmp_path, {"type": "http", "endpoint": origin.url})
    yield c
    c.end()


def misses(results):
    return {path for path, said in results.items() if said == "MISS"}


def test_the_cluster_holds_each_object_once(cluster, origin):
    assert misses(cluster.read_all()) == set(OBJECTS)
    assert set(cluster.read_all().values()) == {"HIT"}
    held = cluster.held()
    assert sum(len(h) for h in held.values()) == len(OBJECTS) and set.union(*held.values()) == set(OBJECTS)
    assert all(0.2 < len(h) / len(OBJECTS) < 0.5 for h in held.values()), {n: len(h) for n, h in held.items()}
    assert origin.count() == len(OBJECTS), "the origin was asked once for each"
    stats = [p.stats()["requests"]["cache"] for p in cluster.nodes.values()]
    assert sum(s["miss"] for s in stats) == sum(s["hit"] for s in stats) == len(OBJECTS)
    cluster.stop()


def test_a_node_that_dies_takes_its_own_share_and_gets_it_back(cluster, origin):
    cluster.read_all()
    before = cluster.held()
    share = before[2]
    origin.clear_log()
    cluster.kill(2)
    # At once: the front has not noticed yet, and no client may.
    assert misses(cluster.read_all()) == share
    assert len(share) < len(OBJECTS) / 2 and {r.path for r in origin.log()} == share
    # Until the front knows, it hands a request on to the ring's next node, which need not be the one of the ring without
    # node 2: some of that share are fetched once more, and nothing else is.
    net.wait_until("the front to see it gone", lambda: not cluster.is_up(2))
    assert misses(cluster.read_all()) <= share
    assert set(cluster.read_all().values()) == {"HIT"}
    others = cluster.held()
    assert others[1] >= before[1] and others[3] >= before[3] and others[1] | others[3] == set(OBJECTS)
    assert others[1] - before[1] and others[3] - before[3], "both take of its share"
    assert others[1] & others[3] <= share

    cluster.back(2)
    assert misses(cluster.read_all()) == share, "its own share, as before, and nothing else"
    assert cluster.held()[2] == share
    assert set(cluster.read_all().values()) == {"HIT"}
    cluster.stop()


def test_no_request_fails_while_a_node_is_restarted(cluster):
    cluster.read_all()
    share, wrong, stop = cluster.held()[3], [], threading.Event()

    def reader(paths):
        while not stop.is_set():
            for path in paths:
                try:
                    raw.get_checked(cluster.address, path, SIZE)
                except Exception as e:  # pylint: disable=broad-except
                    wrong.append("%s: %r" % (path, e))
    threads = [threading.Thread(target=reader, args=(OBJECTS[k::3],)) for k in range(3)]
    for t in threads:
        t.start()
    try:
        cluster.nodes[3].stop()   # SIGTERM: it drains
        net.wait_until("the front to see it gone", lambda: not cluster.is_up(3))
        assert misses(cluster.read_all()) <= share
        cluster.back(3)
    finally:
        stop.set()
        for t in threads:
            t.join(60)
    assert not wrong, wrong[:5]
    cluster.read_all()
    assert set(cluster.read_all().values()) == {"HIT"}


def test_large_objects_and_their_ranges_meet_on_one_node(cluster, origin):
    size = 24 * MIB + 4321
    paths = ["/b/large/%d" % i for i in range(3)]
    for path in paths:
        origin.put(path, size)
        raw.get_checked(cluster.address, path, size, 5 * MIB + 1, 3 * MIB)
        raw.get_checked(cluster.address, path, size)
        for first, length in ((0, 1), (size - 70000, 70000), (9 * MIB - 5, 10)):
            r, _ = raw.get_checked(cluster.address, path, size, first, length)
            assert r.status == 206 and r.get("x-cache") == "HIT"
        r = raw.fetch(cluster.address, "HEAD", path)
        assert r.status == 200 and r.get("x-cache") == "HIT" and int(r.get("content-length")) == size
        assert origin.bytes_sent(path) == size, "every byte was fetched once, by one node"
    held = cluster.held()
    assert all(sum(path in h for h in held.values()) == 1 for path in paths)


def test_an_object_is_on_one_node_however_its_name_is_written(cluster, origin):
    for i in range(8):
        origin.put("/b/n%d/a b~c" % i, SIZE)
        for name in ("a%20b~c", "a%20b%7Ec", "%61%20b%7ec", "a%20b~c?x-id=GetObject"):
            r = cluster.get("/b/n%d/%s" % (i, name))
            assert r.status == 200 and len(r.body) == SIZE
    held = cluster.held()
    for i in range(8):
        assert sum(any(o.startswith("/b/n%d/" % i) for o in h) for h in held.values()) == 1, held


def test_a_node_that_dies_within_a_body_breaks_it_off_and_the_next_try_is_right(cluster, origin):
    size = 24 * MIB
    paths = ["/b/slow/%d" % i for i in range(9)]
    for path in paths:
        origin.put(path, size)
    begun, killed = threading.Barrier(len(paths) + 1), threading.Event()
    done, broken, wrong = [], [], []

    def reader(path):
        try:
            with raw.Conn(cluster.address, 60, rcvbuf=64 * KIB) as c:
                c.request("GET", path)
                got, r = 0, c.head()
                for piece in c.pieces(r):
                    assert bytes(piece) == content(path, 1, got, len(piece)), "wrong bytes"
                    if got < MIB <= got + len(piece):
                        begun.wait(60)
                        killed.wait(60)   # nobody reads meanwhile: most of the body is still on its way
                    got += len(piece)
                done.append(path)
                assert got == size
        except (raw.Broken, OSError):
            broken.append(path)
        except BaseException as e:  # pylint: disable=broad-except
            wrong.append("%s: %r" % (path, e))
    threads = [threading.Thread(target=reader, args=(path,)) for path in paths]
    for t in threads:
        t.start()
    begun.wait(60)
    on_it = cluster.held()[1] & set(paths)
    cluster.kill(1)
    killed.set()
    for t in threads:
        t.join(120)
    assert not wrong, wrong
    assert broken and set(broken) <= on_it and set(broken) | set(done) == set(paths), (done, broken, on_it)
    for path in paths:
        raw.get_checked(cluster.address, path, size)


def test_writes_through_the_front_are_seen_at_once(tmp_path, versitygw_server, bucket):
    backend = conftest.client(versitygw_server.url)
    backend.create_bucket(Bucket=bucket)
    c = Cluster(tmp_path, conftest.s3_origin(versitygw_server.url))
    try:
        s3 = conftest.client("http://%s:%d" % c.address)
        for i in range(12):
            key = "dir/k%d" % i
            for body in (b"first %d" % i, b"second, longer %d" % i):
                s3.put_object(Bucket=bucket, Key=key, Body=body)
                for _ in range(2):
                    assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == body
        assert len(s3.list_objects_v2(Bucket=bucket)["Contents"]) == 12
        big = os.urandom(6 * MIB)
        up = s3.create_multipart_upload(Bucket=bucket, Key="big")["UploadId"]
        parts = [{"PartNumber": k + 1, "ETag": s3.upload_part(Bucket=bucket, Key="big", UploadId=up, PartNumber=k + 1,
                                                              Body=part)["ETag"]}
                 for k, part in enumerate((big[:5 * MIB], big[5 * MIB:]))]
        s3.complete_multipart_upload(Bucket=bucket, Key="big", UploadId=up, MultipartUpload={"Parts": parts})
        assert s3.get_object(Bucket=bucket, Key="big")["Body"].read() == big
        s3.delete_object(Bucket=bucket, Key="dir/k0")
        with pytest.raises(s3.exceptions.NoSuchKey):
            s3.get_object(Bucket=bucket, Key="dir/k0")
        c.stop()
    finally:
        c.end()


def test_the_admin_api_is_each_nodes_own(cluster):
    assert cluster.get("/_s3dlio/health").status == 200
    assert cluster.get("/_s3dlio/stats").status == 404
    cluster.read_all(OBJECTS[:30])
    totals = []
    for n in NODES:
        r = cluster.get("/_s3dlio/node/%d/stats" % n)
        assert r.status == 200
        totals.append(json.loads(r.body)["caches"]["main"]["memory"]["objects"])
    assert sum(totals) == 30
    assert cluster.get("/_s3dlio/node/7/stats").status == 404
    assert cluster.get("/_s3dlio/node/x/stats").status == 404
    cluster.kill(1)
    net.wait_until("the front to see it gone", lambda: not cluster.is_up(1))
    assert cluster.get("/_s3dlio/node/1/stats").status == 503, "not by another node"
    assert cluster.get("/_s3dlio/ready").status == 200
    for n in (2, 3):
        cluster.kill(n)
    net.wait_until("no node to be left", lambda: cluster.get("/_s3dlio/ready").status == 503)
    assert cluster.get("/_s3dlio/health").status == 200
    assert cluster.get(OBJECTS[0]).status == 503


def test_the_admin_api_is_closed_to_other_networks(tmp_path, origin):
    origin.put("/b/k", SIZE)
    c = Cluster(tmp_path, {"type": "http", "endpoint": origin.url}, S3DLIO_HAPROXY_ADMIN_ALLOW="10.11.12.0/24")
    try:
        assert c.get("/_s3dlio/ready").status == 200
        assert c.get("/_s3dlio/node/1/stats").status == 403
        assert raw.fetch(c.address, "POST", "/_s3dlio/node/1/purge", body=b'{"all": true}').status == 403
        raw.get_checked(c.address, "/b/k", SIZE)
    finally:
        c.end()
