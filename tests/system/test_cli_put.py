"""s3dlio-cli put and upload against real stores: bytes arrive, parts are checked and taken back where something fails."""
import base64
import fcntl
import hashlib
import os
import struct
import termios
import threading
import zlib

import cli as cli_module
import conftest
import net
import pytest
import servers
from content import content

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
MIB = 1 << 20
BIG = 13 * MIB + 4321


@pytest.fixture
def store(cli, s3):
    """(the CLI by way of a proxy that signs anew, its back end's own client, an empty bucket)"""
    p, backend, _, bucket = s3
    return cli.to(p), backend.direct, bucket


def body(client, bucket, key):
    return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def keys(client, bucket):
    return {o["Key"] for o in client.list_objects_v2(Bucket=bucket).get("Contents", [])}


def uploads(client, bucket):
    return client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])


@pytest.mark.parametrize("size", [0, 1, 256 << 10, (256 << 10) + 1, 5 * MIB, BIG])
def test_a_file_becomes_an_object(store, backend, size):
    c, client, bucket = store
    data = content("/f", 1, 0, size)
    (c.tmp / "f.bin").write_bytes(data)
    ran = c("put", "--part-size", "5MiB", "f.bin", "s3://%s/dir/ä b+c.bin" % bucket).ok()
    assert ran.out == "" and ran.err == ""
    assert body(client, bucket, "dir/ä b+c.bin") == data
    head = client.head_object(Bucket=bucket, Key="dir/ä b+c.bin")
    assert ("-3" in head["ETag"]) == (size == BIG)
    assert uploads(client, bucket) == []
    # moto without awscrt answers with a CRC-32 and calls it a CRC-32C
    check = ["--no-check"] if backend.name == "moto" and size == BIG else []
    c("get", *check, "s3://%s/dir/ä b+c.bin" % bucket, "back").ok()
    assert (c.tmp / "back").read_bytes() == data


@pytest.mark.parametrize("size", [0, 100, 5 * MIB, 10 * MIB, BIG])
def test_standard_input_becomes_an_object(store, size):
    c, client, bucket = store
    data = content("/in", 1, 0, size)
    c("put", "--part-size", "5MiB", "-", "s3://%s/in" % bucket, stdin=data).ok()
    assert body(client, bucket, "in") == data and uploads(client, bucket) == []


def test_type_and_metadata_are_stored(store):
    c, client, bucket = store
    (c.tmp / "f").write_bytes(b"x")
    (c.tmp / "big").write_bytes(bytes(BIG))
    options = ["--content-type", "text/x-some", "--metadata", "one=1,Two=a b=c", "--cache-control", "max-age=5"]
    c("put", *options, "f", "s3://%s/" % bucket).ok()
    c("put", *options, "big", "s3://%s/big" % bucket).ok()
    for key in ("f", "big"):
        head = client.head_object(Bucket=bucket, Key=key)
        assert head["ContentType"] == "text/x-some" and head["Metadata"] == {"one": "1", "two": "a b=c"}
        assert head["CacheControl"] == "max-age=5"


def test_directories_and_patterns_go_below_a_prefix(store):
    c, client, bucket = store
    tree = {"a.npz": b"a", "b.npz": b"bb", "sub/deep/c": b"ccc", "sub/d.txt": b""}
    for name, data in tree.items():
        (c.tmp / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (c.tmp / "d" / name).write_bytes(data)
    os.symlink("a.npz", c.tmp / "d/link")
    os.symlink(".", c.tmp / "d/loop")
    c("upload", "-r", "d", "s3://%s/all" % bucket).ok()
    assert keys(client, bucket) == {"all/" + n for n in [*tree, "link"]}
    assert all(body(client, bucket, "all/" + n) == data for n, data in tree.items())
    c("upload", "d/*.npz", "d/sub/d.txt", "s3://%s/some/" % bucket).ok()
    assert keys(client, bucket) >= {"some/a.npz", "some/b.npz", "some/d.txt"}
    ran = c("upload", "d", "d/a.npz", "d/none", "s3://%s/" % bucket).failed(cli_module.FAILED)
    assert "d is a directory" in ran.err and "d/none: No such file" in ran.err and "a.npz" in keys(client, bucket)


def test_what_cannot_be_read_is_said(store, tmp_path):
    c, client, bucket = store
    c("put", "none", "s3://%s/k" % bucket).failed(cli_module.NOT_THERE, "none: No such file or directory")
    c("put", "/dev/null", "s3://%s/k" % bucket).failed(cli_module.FAILED, "not a regular file")
    (c.tmp / "f").write_bytes(b"x")
    c("put", "f", "s3://no-such-bucket/k").failed(cli_module.NOT_THERE, "NoSuchBucket")
    assert keys(client, bucket) == set()


@pytest.mark.ways("h1")
def test_requests_say_what_their_bytes_are(cli, origin):
    data = os.urandom(1000)
    (cli.tmp / "f").write_bytes(data)
    origin.on("PUT", status=200, headers={"ETag": '"%s"' % hashlib.md5(data).hexdigest()})
    cli.to(origin.url)("put", "f", "s3://b/k").ok()
    sent = origin.log("/b/k", "PUT")[0]
    assert sent.body == data and base64.b64decode(sent.get("x-amz-checksum-crc32c")) == crc32c(data)
    cli("put", "--no-check", "f", "s3://b/k").ok()
    assert origin.log("/b/k", "PUT")[1].get("x-amz-checksum-crc32c") is None


def crc32c(data):
    c = 0xffffffff
    for b in data:
        c ^= b
        for _ in range(8):
            c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
    return (c ^ 0xffffffff).to_bytes(4, "big")


@pytest.mark.ways("h1")
@pytest.mark.parametrize("headers", [{"ETag": '"%s"' % hashlib.md5(b"other").hexdigest()}, {"ETag": '"x"', "x-amz-checksum-crc32c": "AAAAAA=="}])
def test_other_bytes_at_the_far_side_are_a_failure(cli, origin, headers):
    (cli.tmp / "f").write_bytes(b"some")
    origin.on("PUT", status=200, headers=headers)
    cli.to(origin.url)("put", "f", "s3://b/k").failed(cli_module.FAILED, "has stored other bytes than were sent")
    cli("put", "--no-check", "f", "s3://b/k").ok()


class Multipart:
    """What an S3 store answers to multipart uploads, out of the scriptable origin."""

    def __init__(self, origin):
        self.origin, self.aborted, self.completed = origin, threading.Event(), []
        is_abort = lambda r: r.method == "DELETE" and "uploadId=" in r.query   # noqa: E731
        origin.on("POST", when=lambda r: r.query == "uploads", status=200,
                  body=b"<InitiateMultipartUploadResult><UploadId>i/d+1</UploadId></InitiateMultipartUploadResult>")
        origin.on("DELETE", when=is_abort, status=204, call=lambda r: self.aborted.set())

    def parts(self, **what):
        self.origin.on("PUT", when=lambda r: "partNumber=" in r.query, **{"status": 200, "headers": {"ETag": '"p"'}, **what})

    def complete(self, **what):
        self.origin.on("POST", when=lambda r: "uploadId=" in r.query, **what)


COMPLETE = b"<CompleteMultipartUploadResult><ETag>&quot;x-3&quot;</ETag></CompleteMultipartUploadResult>"


@pytest.mark.ways("h1")
def test_parts_are_numbered_and_their_sums_joined(cli, origin):
    data = content("/f", 1, 0, BIG)
    (cli.tmp / "f").write_bytes(data)
    m = Multipart(origin)
    m.parts()
    m.complete(status=200, body=COMPLETE)
    cli.to(origin.url)("put", "--part-size", "5MiB", "f", "s3://b/k").ok()
    parts = sorted((r for r in origin.log("/b/k", "PUT")), key=lambda r: r.query)
    assert [r.query for r in parts] == ["partNumber=%d&uploadId=i%%2Fd%%2B1" % i for i in (1, 2, 3)]
    assert b"".join(r.body for r in parts) == data
    done = origin.log("/b/k", "POST")[1]
    assert done.body.count(b"<Part>") == 3 and b"<PartNumber>3</PartNumber><ETag>&quot;p&quot;</ETag>" in done.body
    small = content("/f", 1, 0, 1000)
    assert len(done.get("x-amz-checksum-crc32c")) == 8 and done.get("x-amz-checksum-type") == "FULL_OBJECT"
    assert parts[0].get("x-amz-checksum-crc32c") != parts[1].get("x-amz-checksum-crc32c") and small
    assert not m.aborted.is_set()


@pytest.mark.ways("h1")
@pytest.mark.parametrize("case", ["part", "complete", "error-in-200", "no-etag"])
def test_a_multipart_upload_that_fails_is_taken_back(cli, origin, case):
    (cli.tmp / "f").write_bytes(bytes(BIG))
    m = Multipart(origin)
    if case == "part":
        origin.on("PUT", when=lambda r: "partNumber=2" in r.query, status=403, body=b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>")
    m.parts(**({"headers": {}} if case == "no-etag" else {}))
    m.complete(**({"status": 400, "body": b"<Error><Code>InvalidPart</Code></Error>"} if case == "complete" else
                  {"status": 200, "body": b"<Error><Code>InternalError</Code><Message>Later.</Message></Error>"}))
    says = {"part": "403 AccessDenied: No.", "complete": "400 InvalidPart", "error-in-200": "500 InternalError: Later.", "no-etag": "the answer to a part has no ETag"}[case]
    ran = cli.to(origin.url)("put", "--part-size", "5MiB", "f", "s3://b/k").failed(cli_module.FAILED, "cannot put f to s3://b/k: " + says)
    assert len(ran.err.splitlines()) == 1
    assert m.aborted.is_set() and len(origin.log("/b/k", "DELETE")) in (1, 2)   # twice, when parts were under way


@pytest.mark.ways("h1")
def test_an_interrupted_upload_is_taken_back(cli, origin):
    (cli.tmp / "f").write_bytes(bytes(BIG))
    m = Multipart(origin)
    m.parts(delay=30)
    run = cli.to(origin.url).start("put", "--part-size", "5MiB", "f", "s3://b/k")
    net.wait_until("parts on their way", lambda: origin.log("/b/k", "PUT"))
    ran = run.interrupt()
    assert ran.code == cli_module.INTERRUPTED and ran.err == "" and m.aborted.is_set()


@pytest.mark.ways("h1")
def test_an_interrupt_does_not_wait_for_standard_input(cli, origin):
    r, w = os.pipe()
    run = cli.to(origin.url).start("put", "-", "s3://b/k", stdin=r)
    os.write(w, b"some")
    net.wait_until("it to read", lambda: struct.unpack("i", fcntl.ioctl(r, termios.FIONREAD, b"1234"))[0] == 0)
    ran = run.interrupt()
    assert ran.code == cli_module.INTERRUPTED and ran.err == "" and origin.count() == 0
    os.close(w)
    os.close(r)


@pytest.mark.ways("h1")
def test_refused_and_broken_uploads_are_tried_again(cli, origin):
    data = content("/f", 1, 0, BIG)
    (cli.tmp / "f").write_bytes(data)
    m = Multipart(origin)
    origin.on("PUT", when=lambda r: "partNumber=1" in r.query, nth=1, status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    origin.on("PUT", when=lambda r: "partNumber=2" in r.query, nth=1, close="rst")
    m.parts()
    m.complete(status=200, body=COMPLETE)
    cli.to(origin.url)("put", "--part-size", "5MiB", "f", "s3://b/k").ok()
    good = {r.query: r.body for r in origin.log("/b/k", "PUT") if r.status == 200}
    assert b"".join(good[q] for q in sorted(good)) == data and not m.aborted.is_set()


@pytest.mark.ways("h1")
def test_a_file_that_shrinks_is_said(cli, origin):
    (cli.tmp / "f").write_bytes(bytes(BIG))
    m = Multipart(origin)
    origin.on("PUT", when=lambda r: "partNumber=1" in r.query, status=200, headers={"ETag": '"p"'},
              call=lambda r: os.truncate(cli.tmp / "f", 6 * MIB))
    m.parts()
    ran = cli.to(origin.url)("--retries", "0", "put", "-j", "1", "--part-size", "5MiB", "f", "s3://b/k")
    ran.failed(cli_module.FAILED, "cannot put f to s3://b/k: ")
    assert m.aborted.is_set()


@pytest.mark.ways("h1")
def test_a_file_that_is_written_meanwhile_is_no_object_of_two_versions(cli, origin):
    (cli.tmp / "f").write_bytes(bytes(BIG))
    m = Multipart(origin)

    def rewrite(_):
        with open(cli.tmp / "f", "r+b") as f:
            f.write(b"x" * BIG)
    origin.on("PUT", when=lambda r: "partNumber=1" in r.query, status=200, headers={"ETag": '"p"'}, call=rewrite)
    m.parts()
    m.complete(status=200, body=COMPLETE)
    ran = cli.to(origin.url)("put", "-j", "1", "--part-size", "5MiB", "f", "s3://b/k")
    ran.failed(cli_module.FAILED, "cannot put f to s3://b/k: the file changed while it was read")
    assert m.aborted.is_set()


@pytest.mark.ways("h1")
@pytest.mark.parametrize("args,says", [
    (["put", "f"], "too few arguments"),
    (["put", "f", "nowhere"], "expected s3://BUCKET/KEY"),
    (["put", "f", "g", "s3://b/k"], "need a prefix that ends with a slash"),
    (["put", "-", "s3://b/"], "name its key"),
    (["put", "--part-size", "1MiB", "f", "s3://b/k"], "at least 5MiB"),
    (["put", "--metadata", "x", "f", "s3://b/k"], "expected NAME=VALUE"),
    (["put", "--metadata", "x:y=1", "f", "s3://b/k"], "expected NAME=VALUE"),
    (["put", "--content-type", "a\nb", "f", "s3://b/k"], "control characters"),
    (["cp", "f", "g"], "neither side"),
    (["cp", "f", "s3://b/x", "g"], "either all"),
])
def test_bad_usage_is_said(cli, args, says):
    cli.to("http://127.0.0.1:9")(*args).failed(cli_module.USAGE, says)


def test_signed_uploads_are_taken_by_a_store_that_checks(cli, versitygw_server, bucket):
    client = conftest.client(versitygw_server.url)
    client.create_bucket(Bucket=bucket)
    data = content("/f", 1, 0, BIG)
    (cli.tmp / "f").write_bytes(data)
    env = {"AWS_ACCESS_KEY_ID": servers.ACCESS, "AWS_SECRET_ACCESS_KEY": servers.SECRET, "AWS_REGION": servers.REGION}
    cli.way = None
    c = cli.to(versitygw_server.url, env)
    c("put", "f", "s3://%s/k" % bucket).ok()
    assert body(client, bucket, "k") == data
    head = client.head_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert zlib.crc32(data) and head.get("ChecksumCRC32C") and head.get("ChecksumType") == "FULL_OBJECT"
    c("get", "s3://%s/k" % bucket, "back").ok()
    assert (c.tmp / "back").read_bytes() == data


def test_every_request_is_in_the_op_log(store):
    c, _, bucket = store
    (c.tmp / "f").write_bytes(bytes(BIG))
    c("--op-log", "log", "put", "--part-size", "5MiB", "f", "s3://%s/k" % bucket).ok()
    rows = cli_module.oplog(c.tmp / "log")
    assert sorted((r["op"], int(r["bytes"])) for r in rows if r["op"] == "PUT") == sorted([("PUT", 5 * MIB)] * 2 + [("PUT", BIG - 10 * MIB)])
