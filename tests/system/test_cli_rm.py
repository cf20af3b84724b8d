"""rm and the commands for buckets: what is deleted, what never is, what is told."""
import re
import threading
import time

import botocore.exceptions
import cli as cli_module
import net
import pytest
import servers

FAILED, USAGE, NOT_THERE, INTERRUPTED = cli_module.FAILED, cli_module.USAGE, cli_module.NOT_THERE, cli_module.INTERRUPTED
pytestmark = pytest.mark.ways("h1")
both = pytest.mark.ways("h1", "h2tls", san=("h1",))
ODD = ["a b", "a+b", "%41", "ünï/ß", "<&>\"' ", " z", "tab\tx", "new\nline", "~!*'()", "💾"]


@pytest.fixture
def files(cli, s3):
    """cli to a real server, with put(*keys) and keys()."""
    p, backend, _, bucket = s3
    cli.to(p)

    class Files:
        def __init__(self):
            self.bucket, self.uri, self.proxy = bucket, "s3://" + bucket, p

        def put(self, *keys):
            for k in keys:
                backend.direct.put_object(Bucket=bucket, Key=k, Body=b"x")

        def keys(self):
            found, token = [], {}
            while True:
                r = backend.direct.list_objects_v2(Bucket=bucket, **token)
                found += [o["Key"] for o in r.get("Contents", [])]
                if not r["IsTruncated"]:
                    return found
                token = {"ContinuationToken": r["NextContinuationToken"]}

        def rm(self, *args, **kw):
            return cli("rm", *args, **kw)
    return Files()


# ---- objects

def test_named_objects_and_nothing_else(files, tmp_path):
    files.put("a", "b", "c", "aa")
    assert files.proxy.get("/%s/a" % files.bucket).status == 200
    log = tmp_path / "log.tsv.zst"
    assert files.rm(files.uri + "/a", files.uri + "/c", "--op-log", log).ok().out == "2 objects deleted\n"
    assert files.keys() == ["aa", "b"]
    assert files.proxy.get("/%s/a" % files.bucket).status == 404   # and it is no longer cached
    rows = cli_module.oplog(log)
    assert sorted((r["op"], r["file"].rsplit("/", 1)[1], r["error"]) for r in rows) == [("DELETE", "a", ""), ("DELETE", "c", "")]


@both
def test_odd_keys_one_by_one_and_in_batches(files):
    for args in (lambda k: [files.uri + "/" + x for x in k], lambda k: ["-r", files.uri]):
        for k in ODD:
            try:
                files.put(k)
            except (botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError):
                pass   # this server cannot have it
        there = files.keys()
        assert len(there) >= 7, there
        assert files.rm("--json", *args(there)).json() == {"deleted": len(there), "failed": 0}
        assert files.keys() == []


def test_a_tree_ends_at_a_slash(files):
    files.put("run1/a", "run1/b/c", "run10/a", "run1x", "run")
    assert files.rm("-r", files.uri + "/run1").ok().out == "2 objects deleted\n"
    assert files.keys() == ["run", "run10/a", "run1x"]
    files.rm("-r", files.uri + "/run10/").ok()
    assert files.keys() == ["run", "run1x"]


def test_the_object_of_that_name_belongs_to_its_tree(cli, s3ish, origin):
    origin.on(method="GET", status=200, body=listing(["d", "d/a", "d-b", "d/c"]))
    origin.on(method="POST", status=200, body=b"<DeleteResult/>" + b"</DeleteResult>")
    assert cli.to(s3ish())("rm", "-r", "s3://b/d").ok().out == "3 objects deleted\n"
    assert keys_of(origin.log(method="POST")[0]) == ["d", "d/a", "d/c"]


def test_a_pattern_chooses(files):
    files.put("a1.txt", "a2.txt", "ax.txt", "b1.txt")
    files.rm("-r", "-p", r"^a\d\.txt$", files.uri).ok()
    assert files.keys() == ["ax.txt", "b1.txt"]
    files.rm("-r", "-p", "nothing", files.uri).failed(NOT_THERE, "nothing to delete")


def test_a_dry_run_deletes_nothing(files):
    files.put("d/a", "d/b", "e")
    assert files.rm("-rn", files.uri + "/d").ok().out == "would delete %s/d/a\nwould delete %s/d/b\n" % (files.uri, files.uri)
    assert [e["uri"] for e in files.rm("-rn", "--json", files.uri).json_lines()] == [files.uri + "/" + k for k in ("d/a", "d/b", "e")]
    assert files.rm("-n", files.uri + "/e").ok().out == "would delete %s/e\n" % files.uri
    assert files.keys() == ["d/a", "d/b", "e"]


@pytest.mark.parametrize("args", [["s3://b"], ["s3://b/"], ["s3://b/k", "s3://b/"], ["s3://"], ["-r", "s3://"], ["k"], [],
                                  ["-p", "x", "s3://b/k"], ["-r", "-p", "(", "s3://b"], ["-j", "0", "s3://b/k"]])
def test_what_names_no_object_deletes_nothing(cli, s3ish, origin, args):
    ran = cli.to(s3ish())("rm", *args).failed(USAGE)
    assert ran.err.count("\n") == 1 and ran.out == "" and origin.count() == 0


def test_deleting_what_is_not_there(files):
    files.rm(files.uri + "/nope").ok()
    files.rm("-r", files.uri + "/nope").failed(NOT_THERE, "nothing to delete")
    files.rm("-r", "s3://no-such-bucket-here/x").failed(NOT_THERE, "NoSuchBucket")


def listing(keys, token=None):
    return ("<ListBucketResult><IsTruncated>%s</IsTruncated>%s%s</ListBucketResult>" % (
        "true" if token else "false", "<NextContinuationToken>%s</NextContinuationToken>" % token if token else "",
        "".join("<Contents><Key>%s</Key><Size>1</Size></Contents>" % k for k in keys))).encode()


def keys_of(rec):
    return re.findall("<Key>(.*?)</Key>", rec.body.decode())


@both
def test_batches_of_a_thousand_with_a_checksum(cli, s3ish, origin, tmp_path):
    import base64
    import hashlib
    origin.on(method="GET", when=lambda r: "continuation" in r.query, status=200, body=listing(["k%04d" % i for i in range(1000, 2100)]))
    origin.on(method="GET", status=200, body=listing(["k%04d" % i for i in range(1000)], "t"))
    origin.on(method="POST", status=200, body=b"<DeleteResult></DeleteResult>")
    log = tmp_path / "log.tsv.zst"
    assert cli.to(s3ish())("rm", "-r", "--json", "s3://b", "--op-log", log).json() == {"deleted": 2100, "failed": 0}
    posts = origin.log(method="POST")
    assert sorted(k for r in posts for k in keys_of(r)) == ["k%04d" % i for i in range(2100)]
    assert max(len(keys_of(r)) for r in posts) == 1000 and len(posts) <= 4
    for r in posts:
        assert r.query == "delete" and r.get("content-md5") == base64.b64encode(hashlib.md5(r.body).digest()).decode()
    logged = [int(r["n_objects"]) for r in cli_module.oplog(log) if r["op"] == "DELETE"]
    assert sorted(logged) == sorted(len(keys_of(r)) for r in posts)


def test_batches_side_by_side_but_not_more_than_asked_for(cli, s3ish, origin):
    gate, under_way, most, lock = threading.Event(), [0], [0], threading.Lock()

    def hold(rec):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        gate.wait(20 * net.SLOW)
        with lock:
            under_way[0] -= 1
    origin.on(method="DELETE", call=hold)
    p = s3ish()
    r = cli.to(p).start("rm", "-j", "3", *["s3://b/k%d" % i for i in range(10)])
    net.wait_until("three are under way", lambda: under_way[0] == 3)
    time.sleep(0.2)
    assert under_way[0] == 3
    gate.set()
    assert r.wait().ok().out == "10 objects deleted\n" and most[0] == 3


def test_every_key_that_failed_is_told(cli, s3ish, origin, tmp_path):
    origin.on(method="GET", status=200, body=listing(["a", "b&amp;c", "d"]))
    origin.on(method="POST", status=200, body=b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code><Message>No.</Message></Error>"
              b"<Error><Key>b&amp;c</Key><Code>InternalError</Code></Error></DeleteResult>")
    ran = cli.to(s3ish())("rm", "-r", "--json", "s3://b").failed(FAILED)
    assert ran.err == ("s3dlio-cli: cannot delete s3://b/a: AccessDenied: No.\n"
                       "s3dlio-cli: cannot delete s3://b/b&c: InternalError\n")
    assert '"deleted": 1' in ran.out and '"failed": 2' in ran.out


def test_a_named_object_that_cannot_be_deleted_does_not_stop_the_others(cli, s3ish, origin):
    origin.on(method="DELETE", path="/b/k1", status=403, body=b"<Error><Code>AccessDenied</Code><Message>No.</Message></Error>")
    ran = cli.to(s3ish())("rm", "s3://b/k0", "s3://b/k1", "s3://b/k2").failed(FAILED)
    assert ran.err == "s3dlio-cli: cannot delete s3://b/k1: 403 AccessDenied: No.\n" and ran.out == "2 objects deleted\n"
    assert origin.count(method="DELETE") == 3


@pytest.mark.parametrize("answer", [dict(status=200, body=b"<html/>"), dict(status=403, body=b""), dict(status=200, body=b"")])
def test_a_batch_that_fails_ends_it(cli, s3ish, origin, answer):
    origin.on(method="GET", when=lambda r: "continuation" in r.query, status=200, body=listing(["k%04d" % i for i in range(1000, 2000)]))
    origin.on(method="GET", status=200, body=listing(["k%04d" % i for i in range(1000)], "t"))
    origin.on(method="POST", **answer)
    ran = cli.to(s3ish())("rm", "-r", "-j", "1", "s3://b").failed(FAILED, "cannot delete from s3://b: ", "1000 objects")
    assert ran.out == "0 objects deleted\n" and origin.count(method="POST") == 1


@both
def test_a_busy_server_is_asked_again(cli, s3ish, origin):
    origin.on(method="GET", status=200, body=listing(["a"]))
    origin.on(method="POST", times=2, status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    origin.on(method="POST", status=200, body=b"<DeleteResult></DeleteResult>")
    cli.to(s3ish())("rm", "-r", "s3://b").ok()
    assert [keys_of(r) for r in origin.log(method="POST")] == [["a"]] * 3


def test_keys_that_neither_xml_nor_a_path_can_hold(cli, s3ish, origin):
    """Control characters go one by one; a server may take dots in a path for directories, so those go in a document."""
    page = listing(["a%01b", "ok", "bad%FF", "x/../y", "%02/..", "%EF%BF%BF"]).replace(b"<ListBucketResult>",
                                                                                       b"<ListBucketResult><EncodingType>url</EncodingType>")
    origin.on(method="GET", status=200, body=page)
    origin.on(method="POST", status=200, body=b"<DeleteResult></DeleteResult>")
    ran = cli.to(s3ish())("rm", "-r", "s3://b").failed(FAILED, "neither a path nor XML")
    assert ran.out == "5 objects deleted\n"
    assert keys_of(origin.log(method="POST")[0]) == ["ok", "x/../y"]
    assert sorted(r.path for r in origin.log(method="DELETE")) == ["/b/%EF%BF%BF", "/b/a%01b", "/b/bad%FF"]
    origin.clear_log()
    cli("rm", "s3://b/x/../../y").ok()
    assert [keys_of(r) for r in origin.log(method="POST")] == [["x/../../y"]] and origin.count(method="DELETE") == 0


def test_a_server_that_lists_what_was_not_asked_for_loses_nothing(cli, s3ish, origin):
    origin.on(method="GET", status=200, body=listing(["precious", "run1/a", "zz"]))
    origin.on(method="POST", status=200, body=b"<DeleteResult></DeleteResult>")
    cli.to(s3ish())("rm", "-r", "s3://b/run1").failed(FAILED, "cannot list")
    assert origin.count(method="POST") == 0


@both
def test_an_answer_without_end_is_not_waited_for(cli, s3ish, origin):
    origin.on(method="DELETE", status=200, body=b"x" * (9 << 20))
    cli.to(s3ish())("rm", "s3://b/k").failed(FAILED, "cannot delete s3://b/k")


def test_an_interrupt_ends_it(cli, s3ish, origin):
    origin.on(method="GET", status=200, body=listing(["k%d" % i for i in range(10)]))
    origin.on(method="POST", never=True)
    p = s3ish()
    r = cli.to(p).start("rm", "-r", "s3://b")
    net.wait_until("a batch is out", lambda: origin.count(method="POST") == 1)
    ran = r.interrupt()
    assert ran.code == INTERRUPTED and ran.err == ""


# ---- buckets

@both
def test_buckets_come_and_go(cli, s3, bucket):
    p, backend, client, _ = s3
    cli.to(p)
    new = "new-" + bucket[-8:]
    assert cli("create-bucket", "s3://" + new).ok().out == "s3://%s created\n" % new
    assert new in [b["Name"] for b in backend.direct.list_buckets()["Buckets"]]
    assert new in [b["name"] for b in cli("list-buckets", "--json").json()["buckets"]]
    assert cli("create-bucket", new).ok().out.startswith("s3://%s " % new)   # mine already
    backend.direct.put_object(Bucket=new, Key="k", Body=b"x")
    cli("delete-bucket", new).failed(FAILED, "BucketNotEmpty")
    ran = cli("delete-bucket", "-f", new).ok()
    assert ran.out == "s3://%s deleted\n" % new and "1 objects deleted" in ran.err
    cli("delete-bucket", new).failed(NOT_THERE, "NoSuchBucket")
    cli("delete-bucket", "-f", new).failed(NOT_THERE, "NoSuchBucket")


def test_an_empty_bucket_is_deleted_by_force_too(cli, s3):
    p, backend, _, bucket = s3
    cli.to(p)("delete-bucket", "--force", bucket, "--json").ok()
    assert bucket not in [b["Name"] for b in backend.direct.list_buckets()["Buckets"]]


def test_a_region_is_asked_for(cli, s3ish, origin):
    origin.on(method="PUT", status=200)
    cli.to(s3ish())("create-bucket", "nb", "--region", "eu-west-3").ok()
    cli("create-bucket", "nb").ok()
    puts = origin.log(method="PUT")
    assert b"<LocationConstraint>eu-west-3</LocationConstraint>" in puts[0].body and puts[1].body == b""
    cli("create-bucket", "nb", "--region", "<x>").failed(USAGE)


@pytest.mark.parametrize("name", ["s3://b/k", "a/b", "", "s3://", "..", "a b"])
def test_what_is_no_bucket(cli, s3ish, origin, name):
    cli.to(s3ish())
    for command in ("create-bucket", "delete-bucket"):
        assert cli(command, name).failed(USAGE).err.count("\n") == 1
    assert origin.count() == 0


# ---- without a proxy

def test_a_server_that_checks_signatures_is_served_too(cli, backend, bucket):
    """Straight to S3, signed with what the environment has: paths, queries, documents and their hashes."""
    cli.to(backend.url, env={"AWS_ACCESS_KEY_ID": servers.ACCESS, "AWS_SECRET_ACCESS_KEY": servers.SECRET, "AWS_REGION": servers.REGION})
    cli("create-bucket", bucket).ok()
    for k in ("d/a b+%&=ü", "d/~!*'()", "d/plain", "e"):
        backend.direct.put_object(Bucket=bucket, Key=k, Body=b"x")
    uri = "s3://" + bucket
    assert bucket in [b["name"] for b in cli("list-buckets", "--json").json()["buckets"]]
    assert len(cli("ls", "-r1", uri + "/d/").ok().out.splitlines()) == 3
    assert cli("stat", "--json", uri + "/d/a b+%&=ü").json()["size"] == 1
    assert cli("rm", uri + "/d/~!*'()").ok().out == "1 object deleted\n"
    assert cli("rm", "-r", uri + "/d").ok().out == "2 objects deleted\n"
    if backend.name == "versitygw":   # moto lets everybody in
        cli("ls", uri, env={"AWS_SECRET_ACCESS_KEY": "wrong"}).failed(FAILED, "403 SignatureDoesNotMatch")
        cli("--no-sign", "ls", uri).failed(FAILED, "403")
    cli("delete-bucket", "-f", bucket).ok()
    assert bucket not in [b["Name"] for b in backend.direct.list_buckets()["Buckets"]]
