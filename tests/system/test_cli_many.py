"""s3dlio-cli with many objects, and with large ones: all arrive, and memory does not grow with their number or size."""
import hashlib
import os

import cli as cli_module
import conftest
import net
import pytest
from content import content

pytestmark = [pytest.mark.ways("h1", "h2tls", san=("h1",)), pytest.mark.heavy]
N = 3000 if not net.SANITIZER else 600
ROOM_KIB = 24 << 10 if not net.SANITIZER else 512 << 10   # beyond what a run with one object takes


@pytest.fixture
def tree(start, tmp_path, cli):
    root, pool = tmp_path / "root", os.urandom(70000)
    (root / "b/one").mkdir(parents=True)
    (root / "b/one/x").write_bytes(b"x")
    want = {}
    for i in range(N):
        d = root / "b/d" / ("%02d" % (i % 20))
        d.mkdir(parents=True, exist_ok=True)
        size = i * 37 % 3000 if i % 50 else 60000 + i % 1000
        want["%02d/%05d" % (i % 20, i)] = data = pool[i % 1000:i % 1000 + size]
        (d / ("%05d" % i)).write_bytes(data)
    cli.to(start({"type": "file", "root": str(root)}))
    return cli, want


def most_memory(run):
    """Waits for it, and says the most it had."""
    most = 0
    while run.process.poll() is None:
        try:
            most = max(most, run.rss_kib("VmHWM"))
        except (OSError, ProcessLookupError):
            break
    run.wait(60).ok()
    return most


def digest(data):
    return hashlib.md5(data).hexdigest()


def test_thousands_of_objects_come_down_in_flat_memory(tree):
    c, want = tree
    little = most_memory(c.start("get", "-r", "s3://b/one/", "little"))
    most = most_memory(c.start("get", "-r", "s3://b/d/", "out"))
    got = {os.path.relpath(os.path.join(w, n), c.tmp / "out"): digest(open(os.path.join(w, n), "rb").read())
           for w, _, names in os.walk(c.tmp / "out") for n in names}
    assert got == {n: digest(d) for n, d in want.items()}
    assert most < little + ROOM_KIB, (little, most)


@pytest.mark.ways("h1")
def test_thousands_of_files_go_up_in_flat_memory(tree, start, versitygw_server, bucket):
    c, want = tree
    p = start(conftest.s3_origin(versitygw_server.url))
    conftest.client(versitygw_server.url).create_bucket(Bucket=bucket)
    source = c.tmp.parent / "root/b"
    c.to(p)
    little = most_memory(c.start("upload", "-r", source / "one", "s3://%s/" % bucket))
    most = most_memory(c.start("upload", "-r", source / "d", "s3://%s/up/" % bucket))
    assert most < little + ROOM_KIB, (little, most)
    done = c("--json", "get", "-r", "s3://%s/up/" % bucket, "back").json()
    assert done["objects"] == N and done["bytes"] == sum(map(len, want.values()))


@pytest.mark.ways("h1")
def test_a_large_object_takes_no_more_memory_than_its_buffers(cli, origin):
    size = 96 << 20
    origin.put("/b/k", size, etag='"x-1"')
    most = most_memory(cli.to(origin.url).start("get", "s3://b/k", "f"))
    assert most < 48 << 10 or net.SANITIZER, most
    with open(cli.tmp / "f", "rb") as f:
        assert digest(f.read()) == digest(content("/b/k", 1, 0, size))
    os.unlink(cli.tmp / "f")


@pytest.mark.ways("h1")
def test_a_slow_reader_of_a_stream_bounds_what_is_read_ahead(cli, origin):
    size = 160 << 20
    origin.put("/b/k", size, etag='"x-1"')
    r, w = os.pipe()
    run = cli.to(origin.url).start("get", "s3://b/k", "-", stdout=w)
    os.close(w)
    net.wait_until("the window to fill", lambda: origin.count("/b/k", "GET") >= 8)
    total = hashlib.md5(os.read(r, 1000))
    before = -1
    while before != origin.count("/b/k"):   # until nothing moves any more
        before = origin.count("/b/k")
        run.process.poll()
        net.time.sleep(0.3)
    assert origin.bytes_sent("/b/k") < (64 + 24) << 20
    assert run.rss_kib() < 112 << 10 or net.SANITIZER, run.rss_kib()
    got = 1000
    while data := os.read(r, 1 << 20):
        total.update(data)
        got += len(data)
    assert got == size and total.hexdigest() == digest(content("/b/k", 1, 0, size)) and run.wait().code == cli_module.OK
    os.close(r)
