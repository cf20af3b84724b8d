"""s3dlio-cli where its surroundings misbehave: servers that answer what was not asked, descriptors that are closed or slow,
files that were tampered with, targets that lie in their sources."""
import os
import signal
import subprocess
import threading
import time

import cli as cli_module
import conftest
import net
import pytest
from content import content

pytestmark = pytest.mark.ways("h1")
KIB = 1 << 10


@pytest.fixture
def direct(cli, origin):
    """The scriptable origin itself is what cli speaks to: no proxy in between makes its answers right."""
    cli.to(origin.url)
    return origin


def listing(*keys):
    rows = "".join("<Contents><Key>%s</Key><Size>10</Size></Contents>" % k for k in keys)
    return ("<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>" % rows).encode()


# ---- answers

def test_keys_that_are_not_below_the_prefix_are_no_listing(cli, direct, tmp_path):
    direct.on(when=lambda r: "list-type=2" in r.query, status=200, body=listing("dir/sub/a", "x"))
    direct.put("/b/dir/sub/a", 10)
    direct.put("/b/x", 10)
    cli("get", "-r", "s3://b/dir/sub/", tmp_path / "out").failed(cli_module.FAILED, "malformed response")
    assert not (tmp_path / "out" / "x").exists()
    cli("ls", "-r", "s3://b/dir/sub/").failed(cli_module.FAILED, "malformed response")
    ran = cli("rm", "-r", "s3://b/dir/sub/")
    assert ran.code == cli_module.FAILED and "malformed response" in ran.err
    assert not [r for r in direct.log("/b/x") if r.method == "DELETE"]
    assert not [r for r in direct.log() if r.method == "POST" and b"<Key>x</Key>" in r.body], "deleted what was not asked for"


def raw(head, body):
    return b"HTTP/1.1 206 Partial Content\r\nETag: \"e\"\r\n" + head + b"\r\n\r\n" + body


@pytest.mark.parametrize("answer", [
    raw(b"Content-Range: bytes 0-99/100\r\nContent-Length: 5000", b"a" * 5000),
    raw(b"Content-Range: bytes 0-99/100\r\nTransfer-Encoding: chunked", b"1388\r\n" + b"a" * 5000 + b"\r\n0\r\n\r\n"),
    raw(b"Content-Range: bytes 0-4999/5000\r\nContent-Length: 100", b"a" * 100),
], ids=["longer", "longer, chunked", "shorter"])
def test_a_body_that_is_not_as_long_as_its_range_is_refused(cli, direct, tmp_path, answer):
    direct.on(path="/b/k", raw=answer)
    cli("--retries", "0", "get", "--no-check", "s3://b/k", tmp_path / "k").failed(cli_module.FAILED, "malformed response")
    assert os.listdir(tmp_path) == sorted({"cli"} & set(os.listdir(tmp_path))), "no file of it"


def test_an_upload_that_is_never_begun_ends_with_an_interrupt(cli, direct, tmp_path):
    direct.on(method="POST", never=True)
    (tmp_path / "big").write_bytes(bytes(6 << 20))
    run = cli.start("put", "--part-size", "5MiB", tmp_path / "big", "s3://b/big")
    net.wait_until("the upload is asked for", lambda: direct.count("/b/big") == 1)
    ran = run.interrupt()
    assert ran.code == cli_module.INTERRUPTED and "parts of an upload may be left" in ran.err, ran


# ---- descriptors

def closed(cli, redirection, *args):
    """A run by a shell, which closes descriptors."""
    argv = [cli_module.BINARY, *cli.options(), *[str(a) for a in args]]
    p = subprocess.run(["sh", "-c", 'exec "$0" "$@" ' + redirection, *argv], stdin=subprocess.DEVNULL, capture_output=True,
                       env=cli_module.environment(), timeout=30 * net.SLOW)
    return cli_module.Ran(argv, p.returncode, p.stdout, p.stderr)


def test_a_closed_output_is_no_place_for_sockets(cli, direct):
    direct.put("/b/k", 100 * KIB)
    ran = closed(cli, ">&-", "get", "--no-check", "s3://b/k", "-").failed(cli_module.FAILED, "cannot write standard output")
    assert "Bad file descriptor" in ran.err
    ran = closed(cli, "2>&-", "get", "--no-check", "s3://b/k", "-").ok()
    assert ran.out_bytes == content("/b/k", 1, 0, 100 * KIB)
    assert closed(cli, ">&- 2>&- <&-", "get", "--no-check", "s3://b/k", "-").code == cli_module.FAILED


def test_standard_output_by_its_name_is_not_replaced(cli, direct, tmp_path):
    direct.put("/b/k", 100 * KIB)
    with open(tmp_path / "out", "wb") as f:   # a regular file: it looks like a target that could be replaced
        run = cli.start("get", "--no-check", "s3://b/k", "/proc/self/fd/1", stdout=f)
        assert run.wait().code == cli_module.OK
    assert (tmp_path / "out").read_bytes() == content("/b/k", 1, 0, 100 * KIB)


def test_a_regular_file_below_dev_is_replaced_like_any_other(cli, direct):
    direct.put("/b/k", 100 * KIB)
    path = "/dev/shm/s3dlio-test-%d-%s" % (os.getpid(), time.time_ns())
    try:
        with open(path, "wb") as f:
            f.write(b"x" * 300 * KIB)   # longer than what comes
        before = os.stat(path).st_ino
        cli("get", "--no-check", "s3://b/k", path).ok()
        with open(path, "rb") as f:
            assert f.read() == content("/b/k", 1, 0, 100 * KIB)
        assert os.stat(path).st_ino != before, "a file appears whole, in the place of the old one"
    finally:
        os.unlink(path)


def test_standard_output_by_its_name_keeps_its_position(cli, direct, tmp_path):
    direct.put("/b/k", 100 * KIB)
    with open(tmp_path / "out", "wb", buffering=0) as f:
        f.write(b"head")
        assert cli.start("get", "--no-check", "s3://b/k", "/dev/stdout", stdout=f).wait().code == cli_module.OK
    assert (tmp_path / "out").read_bytes() == b"head" + content("/b/k", 1, 0, 100 * KIB)


def test_a_pipe_that_does_not_block_is_waited_for(cli, direct):
    direct.put("/b/k", 2048 * KIB)
    r, w = os.pipe()
    os.set_blocking(w, False)
    run = cli.start("get", "--no-check", "s3://b/k", "-", stdout=w)
    os.close(w)
    time.sleep(0.3)   # it is full
    with open(r, "rb") as f:
        got = f.read()
    assert run.wait().code == cli_module.OK and got == content("/b/k", 1, 0, 2048 * KIB)


def test_a_list_is_worked_on_while_it_comes(cli, direct, tmp_path):
    for i in range(3):
        direct.put("/b/d/k%d" % i, 1000)
    r, w = os.pipe()
    run = cli.start("get", "--no-check", "--keylist", "-", "s3://b/d/", tmp_path / "out", stdin=r)
    os.close(r)
    os.write(w, b"k0\r\n\ns3://b/d/k1\nk")
    net.wait_until("the first ones are there", lambda: (tmp_path / "out" / "k1").exists() and (tmp_path / "out" / "k0").exists())
    os.write(w, b"2")   # no line end
    os.close(w)
    assert run.wait().code == cli_module.OK
    assert sorted(os.listdir(tmp_path / "out")) == ["k0", "k1", "k2"]


def test_a_line_without_an_end_is_bounded(cli, direct, tmp_path):
    ran = cli("get", "--keylist", "-", "s3://b/", tmp_path / "out", stdin=b"x" * 200000).failed(cli_module.FAILED, "a line is too long")
    assert ran.out == ""


@pytest.mark.parametrize("what", ["list", "pipe"])
def test_an_interrupt_while_others_are_waited_for_says_nothing(cli, direct, tmp_path, what):
    direct.put("/b/k", 1000)
    os.mkfifo(tmp_path / "fifo")
    r, w = os.pipe()
    args = ("--keylist", "-", "s3://b/", tmp_path / "out") if what == "list" else ("s3://b/k", tmp_path / "fifo")
    run = cli.start("get", *args, stdin=r)
    time.sleep(.3)
    ran = run.interrupt()
    os.close(r)
    os.close(w)
    assert ran.code == cli_module.INTERRUPTED and ran.err == "", ran


# ---- what lies there

@pytest.mark.parametrize("part", [1, 100, 18446744073709551615, -1, 1 << 40])
def test_a_state_that_no_run_wrote_is_not_believed(cli, direct, tmp_path, part):
    size = 300 * KIB
    o = direct.put("/b/k", size)
    etag = (o or direct.objects["/b/k"]).etag
    (tmp_path / ".k.s3dlio-part").write_bytes(bytes(size))
    (tmp_path / ".k.s3dlio-state").write_text("s3dlio-state 1\netag %s\nsize %d\npart %d\n\n%s" % (etag, size, part, "--------\n" * 40))
    cli("get", "--continue", "--no-check", "--part-size", "64KiB", "s3://b/k", tmp_path / "k").ok()
    assert (tmp_path / "k").read_bytes() == content("/b/k", 1, 0, size)
    assert len(direct.log("/b/k")) < 12, "a request for each part of a sane size"


def test_a_copy_does_not_copy_what_it_copies(start, moto_server, bucket, cli):
    s3 = conftest.client(moto_server.url)
    s3.create_bucket(Bucket=bucket)
    for i in range(3):
        s3.put_object(Bucket=bucket, Key="a/%d" % i, Body=b"x")
    cli.to(start(conftest.s3_origin(moto_server.url)))

    def keys():
        return sorted(o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"])
    want = sorted(["a/%d" % i for i in range(3)] + ["a/copy/%d" % i for i in range(3)])
    for _ in range(2):   # the second one finds the copies of the first below its source
        cli("cp", "-r", "s3://%s/a" % bucket, "s3://%s/a/copy/" % bucket).ok()
        assert keys() == want


def test_a_copy_up_the_tree_is_a_copy(start, moto_server, bucket, cli):
    s3 = conftest.client(moto_server.url)
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="d/2024/a", Body=b"x")
    cli.to(start(conftest.s3_origin(moto_server.url)))
    cli("cp", "-r", "s3://%s/d/2024/" % bucket, "s3://%s/d/" % bucket).ok()
    assert sorted(o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]) == ["d/2024/a", "d/a"]


def test_operands_that_would_be_one_are_refused(cli, tmp_path):
    cli("download", "s3://b/x/1", "s3://b/y/1", tmp_path / "out").failed(cli_module.USAGE, "would be the same file")
    cli("cp", "s3://b/x/1", "s3://b/y/1", tmp_path / "out").failed(cli_module.USAGE, "would be the same file")
    cli("cp", "s3://b/x/1", "s3://b/y/1", "s3://b/z/").failed(cli_module.USAGE, "would be the same object")


@pytest.mark.nosan
def test_a_slow_reader_of_a_stream_costs_no_memory(start, tmp_path, cli):
    (tmp_path / "root" / "b").mkdir(parents=True)
    with open(tmp_path / "root" / "b" / "k", "wb") as f:
        f.truncate(600 << 20)
    cli.to(start({"type": "file", "root": str(tmp_path / "root")}, cache={"memory": "64MiB"}))
    r, w = os.pipe()
    run = cli.start("get", "--no-check", "--part-size", "5GiB", "s3://b/k", "-", stdout=w)
    os.close(w)
    got = 0
    for _ in range(20):   # nobody reads more than this for two seconds
        got += len(os.read(r, 65536))
        time.sleep(.1)
    assert run.rss_kib("VmHWM") < 220 * KIB
    while data := os.read(r, 1 << 20):
        got += len(data)
    os.close(r)
    assert run.wait().code == cli_module.OK and got == 600 << 20


# ---- limits

@pytest.mark.nosan
def test_a_low_limit_of_descriptors_is_raised_where_it_may_be(cli, origin, start):
    origin.put("/b/k", 1000)
    origin.on(when=lambda r: "list-type=2" in r.query, status=200, body=listing("k").replace(b">10<", b">1000<"))
    cli.to(start({"type": "http", "endpoint": origin.url}))
    ran = cli("bench", "get", "s3://b/", "--no-prepare", "-c", 300, "--ops", 1000, prefix=("prlimit", "--nofile=64:2000")).ok()
    assert "1000 done, 0 failed" in ran.out


def test_as_many_connections_as_jobs(cli, origin):
    """All requests are under way at once, or the gate never opens."""
    gate, seen = threading.Event(), set()

    def count(record):
        seen.add(record.conn)
        if len(seen) == 100:
            gate.set()
    names = ["k%d" % i for i in range(100)]
    for n in names:
        origin.put("/b/" + n, 10)
        origin.on("GET", "/b/" + n, call=count, gate=gate)
    cli.to(origin.url)("get", "--no-check", "-j", 100, *["s3://b/" + n for n in names], "out").ok()


# ---- stores that changed, or are slow to forget

def test_what_is_copied_is_what_is_there_now(start, moto_server, bucket, cli):
    """Not the version that the proxy has in its cache."""
    s3 = conftest.client(moto_server.url)
    s3.create_bucket(Bucket=bucket)
    p = start(conftest.s3_origin(moto_server.url))
    s3.put_object(Bucket=bucket, Key="k", Body=b"a" * (6 << 20))
    assert p.get("/%s/k" % bucket).status == p.fetch("HEAD", "/%s/k" % bucket).status == 200
    s3.put_object(Bucket=bucket, Key="k", Body=b"b" * (7 << 20))
    assert p.fetch("HEAD", "/%s/k" % bucket).get("content-length") == str(6 << 20), "it is cached"
    cli.to(p)("cp", "--part-size", "5MiB", "s3://%s/k" % bucket, "s3://%s/l" % bucket).ok()
    assert s3.get_object(Bucket=bucket, Key="l")["Body"].read() == b"b" * (7 << 20)


def test_an_upload_is_taken_back_twice_when_parts_were_cut_off(cli, direct, tmp_path):
    """A part that was under way may be stored after the first time."""
    begun = b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
    direct.on("POST", when=lambda r: r.query == "uploads", status=200, body=begun)
    direct.on("PUT", never=True)
    direct.on("DELETE", status=204, body=b"")
    (tmp_path / "big").write_bytes(bytes(12 << 20))
    run = cli.start("put", "--part-size", "5MiB", tmp_path / "big", "s3://b/big")
    net.wait_until("a part is under way", lambda: direct.log("/b/big", "PUT"))
    ran = run.interrupt()
    assert ran.code == cli_module.INTERRUPTED and ran.err == "", ran
    assert [r.query for r in direct.log("/b/big", "DELETE")] == ["uploadId=u1"] * 2


# ---- operands

def test_names_that_would_be_one_are_found_among_many(cli, tmp_path):
    cli.to("http://127.0.0.1:9")
    uris = ["s3://b/some/longer/prefix/k%06d" % i for i in range(20000)]
    ran = cli("get", *uris, "s3://b/x/k000007", tmp_path / "out", timeout=10).failed(cli_module.USAGE, "would be the same file")
    assert "s3://b/x/k000007" in ran.err
    for d in ("a", "c"):
        (tmp_path / d).mkdir()
        (tmp_path / d / "n.txt").write_text(d)
    cli("put", tmp_path / "a" / "n.txt", tmp_path / "c" / "n.txt", "s3://b/p/").failed(cli_module.USAGE, "would be the same object")
    cli("--retries", "0", "upload", tmp_path / "a" / "*.txt", tmp_path / "c" / "*.txtt", "s3://b/p/").failed(cli_module.FAILED, "refused")
