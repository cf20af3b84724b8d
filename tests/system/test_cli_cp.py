"""s3dlio-cli cp: files to objects and back, and objects to objects at the far side."""
import os

import cli as cli_module
import net
import pytest
from content import content
from test_cli_get import files_in
from test_cli_put import Multipart, body, keys, store, uploads  # noqa: F401

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
MIB = 1 << 20
BIG = 13 * MIB + 4321


def test_files_go_there_and_come_back(store):  # noqa: F811
    c, client, bucket = store
    tree = {"a": b"a", "sub/b": b"bb" * 1000, "sub/deep/c": content("/c", 1, 0, 300000)}
    for name, data in tree.items():
        (c.tmp / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (c.tmp / "d" / name).write_bytes(data)
    c("cp", "-r", "d", "s3://%s/x" % bucket).ok()
    assert keys(client, bucket) == {"x/" + n for n in tree}
    c("cp", "-r", "s3://%s/x/" % bucket, "back").ok()
    assert files_in(c.tmp / "back") == tree
    c("cp", "d/a", "s3://%s/one" % bucket).ok()
    c("cp", "s3://%s/one" % bucket, "one").ok()
    assert c("cp", "s3://%s/one" % bucket, "-").ok().out_bytes == b"a" == (c.tmp / "one").read_bytes()


def test_objects_are_copied_at_the_far_side(store, backend):  # noqa: F811
    c, client, bucket = store
    odd = "a b+ä" if backend.name == "moto" else "a"   # versitygw does not decode x-amz-copy-source, of boto3 neither
    for name in ("p/" + odd, "p/q/c", "p/q/d", "other"):
        client.put_object(Bucket=bucket, Key=name, Body=name.encode(), ContentType="text/x-one", Metadata={"m": "1"})
    c("cp", "s3://%s/p/%s" % (bucket, odd), "s3://%s/new" % bucket).ok()
    assert body(client, bucket, "new") == ("p/" + odd).encode()
    head = client.head_object(Bucket=bucket, Key="new")
    assert head["ContentType"] == "text/x-one" and head["Metadata"] == {"m": "1"}
    c("cp", "s3://%s/p/q/c" % bucket, "s3://%s/dir/" % bucket).ok()
    c("cp", "-r", "s3://%s/p/" % bucket, "s3://%s/all" % bucket).ok()
    assert keys(client, bucket) >= {"dir/c", "all/" + odd, "all/q/c", "all/q/d"}
    assert body(client, bucket, "all/q/d") == b"p/q/d"
    c("cp", "--content-type", "text/x-two", "--metadata", "n=2", "s3://%s/new" % bucket, "s3://%s/typed" % bucket).ok()
    head = client.head_object(Bucket=bucket, Key="typed")
    assert head["ContentType"] == "text/x-two" and head["Metadata"] == {"n": "2"}
    if backend.name == "moto":   # a storage class is not metadata
        for how in ((), ("--part-size", "5MiB")):
            c("cp", "--storage-class", "STANDARD_IA", *how, "s3://%s/new" % bucket, "s3://%s/cold" % bucket).ok()
            head = client.head_object(Bucket=bucket, Key="cold")
            assert head["ContentType"] == "text/x-one" and head["Metadata"] == {"m": "1"} and head["StorageClass"] == "STANDARD_IA"
    c("cp", "s3://%s/none" % bucket, "s3://%s/x" % bucket).failed(cli_module.NOT_THERE, "cannot copy s3://%s/none" % bucket)
    c("cp", "-r", "s3://%s/none/" % bucket, "s3://%s/x" % bucket).failed(cli_module.NOT_THERE, "nothing is there that matches")


def test_large_objects_are_copied_in_parts(store):  # noqa: F811
    c, client, bucket = store
    data = content("/big", 1, 0, BIG)
    client.put_object(Bucket=bucket, Key="big", Body=data, ContentType="text/x-one", Metadata={"m": "1"})
    c("cp", "--part-size", "5MiB", "s3://%s/big" % bucket, "s3://%s/copy" % bucket).ok()
    assert body(client, bucket, "copy") == data and uploads(client, bucket) == []
    head = client.head_object(Bucket=bucket, Key="copy")
    assert head["ETag"].endswith('-3"') and head["ContentType"] == "text/x-one" and head["Metadata"] == {"m": "1"}


@pytest.mark.ways("h1")
def test_an_error_in_an_answer_of_200_is_a_failure(cli, origin):
    origin.put("/b/k", 10)
    origin.on("PUT", status=200, body=b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>")
    ran = cli.to(origin.url)("cp", "s3://b/k", "s3://b/new")
    ran.failed(cli_module.FAILED, "cannot copy s3://b/k to s3://b/new: 500 InternalError: Try again.")


@pytest.mark.ways("h1")
@pytest.mark.parametrize("how", ["fails", "interrupted"])
def test_a_copy_in_parts_that_does_not_end_is_taken_back(cli, origin, how):
    origin.put("/b/big", BIG)
    m = Multipart(origin)
    what = {"delay": 30} if how == "interrupted" else {"status": 412, "body": b"<Error><Code>PreconditionFailed</Code></Error>"}
    origin.on("PUT", when=lambda r: "partNumber=2" in r.query, **what)
    m.parts(body=b"<CopyPartResult><ETag>&quot;e&quot;</ETag></CopyPartResult>")
    run = cli.to(origin.url).start("cp", "--part-size", "5MiB", "s3://b/big", "s3://b/new")
    if how == "interrupted":
        net.wait_until("the part", lambda: len(origin.log("/b/new", "PUT")) == 3)
        ran = run.interrupt()
        assert ran.code == cli_module.INTERRUPTED and ran.err == ""
    else:
        run.wait().failed(cli_module.FAILED, "412 PreconditionFailed")
    assert m.aborted.is_set()
    part = origin.log("/b/new", "PUT")[0]
    assert part.get("x-amz-copy-source") == "/b/big" and part.get("x-amz-copy-source-if-match") == origin.objects["/b/big"].etag
    asked = {r.get("x-amz-copy-source-range") for r in origin.log("/b/new", "PUT")}
    first, last = {"bytes=0-5242879", "bytes=5242880-10485759"}, {"bytes=10485760-%d" % (BIG - 1)}
    assert first <= asked <= first | last and (how == "fails" or asked == first | last)   # a refusal may come before the third


@pytest.mark.ways("h1")
def test_every_copy_is_in_the_op_log(cli, origin):
    origin.put("/b/k", 10)
    origin.on("PUT", status=200, body=b"<CopyObjectResult><ETag>&quot;e&quot;</ETag></CopyObjectResult>")
    cli.to(origin.url)("--op-log", "log", "cp", "s3://b/k", "s3://b/new").ok()
    assert [(r["op"], os.path.basename(r["file"])) for r in cli_module.oplog(cli.tmp / "log")] == [("HEAD", "k"), ("PUT", "new")]
