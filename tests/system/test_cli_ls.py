"""ls, list-buckets and stat: what is listed, how, from the first page on, whatever keys and servers are like."""
import os
import signal
import subprocess
import threading
import time

import botocore.exceptions
import cli as cli_module
import net
import pytest

FAILED, USAGE, NOT_THERE, INTERRUPTED = cli_module.FAILED, cli_module.USAGE, cli_module.NOT_THERE, cli_module.INTERRUPTED
ODD = ["a b", "a+b", "%41", "ünï/ß", "d//x", "/lead", "<&>\"'", "new\nline", "tab\tx", "..", "d/./x", "~!*'()", "z ", "💾", "\u0085"]
pytestmark = pytest.mark.ways("h1")
both = pytest.mark.ways("h1", "h2tls", san=("h1",))


@pytest.fixture
def root(tmp_path):
    r = tmp_path / "root"
    (r / "b/dir/sub").mkdir(parents=True)
    (r / "empty").mkdir()
    (r / "b/big").write_bytes(b"x" * 3000000)
    (r / "b/small").write_bytes(b"123")
    for i in range(3):
        (r / ("b/dir/k%d.txt" % i)).write_bytes(b"x" * i)
    (r / "b/dir/sub/deep").write_bytes(b"deep")
    for p in r.rglob("*"):
        os.utime(p, (1700000000, 1700000000))
    return r


@pytest.fixture
def files(cli, start, root):
    return cli.to(start({"type": "file", "root": str(root)}))


def page(keys, token=None, more="", encoded=False):
    """A page of a listing as S3 writes it."""
    entries = "".join("<Contents><Key>%s</Key><Size>%d</Size><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
                      "<ETag>&quot;e&quot;</ETag></Contents>" % (k, i) for i, k in enumerate(keys))
    return ("<?xml version=\"1.0\"?><ListBucketResult>%s<IsTruncated>%s</IsTruncated>%s%s%s</ListBucketResult>" %
            ("<EncodingType>url</EncodingType>" if encoded else "", "true" if token else "false",
             "<NextContinuationToken>%s</NextContinuationToken>" % token if token else "", entries, more)).encode()


# ---- what is shown

@pytest.mark.ways("h1", "h2c", "h1tls", "h2tls")
def test_one_level_with_sizes_times_and_directories(files):
    assert files("ls", "s3://b").ok().out == ("2023-11-14T22:13:20Z       2.9 MiB  s3://b/big\n"
                                              "2023-11-14T22:13:20Z           3 B  s3://b/small\n"
                                              "                               DIR  s3://b/dir/\n")
    assert files("list", "s3://b/dir/", "--bytes").ok().out.split("\n")[1] == "2023-11-14T22:13:20Z             1  s3://b/dir/k1.txt"


def test_a_prefix_is_of_keys_not_of_directories(files):
    assert [line.split()[-1] for line in files("ls", "s3://b/d").ok().out.splitlines()] == ["s3://b/dir/"]
    assert files("ls", "-1", "s3://b/dir/k").ok().out == "s3://b/dir/k0.txt\ns3://b/dir/k1.txt\ns3://b/dir/k2.txt\n"
    assert files("ls", "-1", "s3://b/small").ok().out == "s3://b/small\n"


def test_recursive(files):
    assert files("ls", "-r1", "s3://b/").ok().out.split() == ["s3://b/" + k for k in (
        "big", "dir/k0.txt", "dir/k1.txt", "dir/k2.txt", "dir/sub/deep", "small")]


def test_patterns_are_searched_for_in_the_key(files):
    def keys(*args):
        return files("ls", "-r1", "s3://b/", *args).ok().out.split()
    assert keys("-p", r"\d\.txt$") == ["s3://b/dir/k%d.txt" % i for i in range(3)]
    assert keys("--pattern", "^(big|small)$") == ["s3://b/big", "s3://b/small"]
    assert keys("-pk[12]") == ["s3://b/dir/k1.txt", "s3://b/dir/k2.txt"]


@pytest.mark.parametrize("pattern, why", [("(?i)x", "(?...)"), ("a+?b", "+?"), ("(", "Unmatched"), (r"\pL", r"\p"), (r"[\d]", r"\d")])
def test_patterns_that_would_mean_something_else_are_refused(files, pattern, why):
    ran = files("ls", "s3://b/", "-r", "-p", pattern).failed(USAGE, why)
    assert ran.out == "" and ran.err.count("\n") == 1


def test_count_only(files):
    assert files("ls", "-c", "s3://b").ok().out == "2 objects, 2.9 MiB, 1 directories\n"
    assert files("ls", "-rc", "--bytes", "s3://b").ok().out == "6 objects, 3000010 bytes\n"
    assert files("ls", "-rc", "--json", "s3://b/dir").json() == {"objects": 4, "bytes": 7, "prefixes": 0}
    assert files("ls", "-rc", "s3://b/nothing").ok().out == "0 objects, 0 B\n"


def test_json_is_one_object_per_line(files):
    got = files("ls", "--json", "s3://b/").json_lines()
    assert {k: got[1][k] for k in ("uri", "key", "size", "storage_class")} == {
        "uri": "s3://b/small", "key": "small", "size": 3, "storage_class": "STANDARD"}
    assert got[1]["modified"].startswith("2023-11-14T22:13:20") and got[1]["etag"].startswith('"')
    assert got[2] == {"uri": "s3://b/dir/", "key": "dir/", "prefix": True}


def test_buckets(files):
    text = files("ls").ok().out
    assert [line.split()[-1] for line in text.splitlines()] == ["s3://b", "s3://empty"]
    assert text == files("list-buckets").ok().out == files("ls", "s3://").ok().out
    assert [b["name"] for b in files("ls", "--json").json()["buckets"]] == ["b", "empty"]


def test_paths_are_those_of_the_sdks(cli, s3ish, origin):
    cli.to(s3ish())
    cli("list-buckets")
    cli("ls", "s3://b")
    cli("stat", "s3://b//k /")
    assert [r.target.split("?")[0] for r in origin.log()] == ["/", "/b", "/b//k%20/"]


def test_what_is_not_there(files):
    assert files("ls", "s3://b/nope").failed(NOT_THERE).err == "s3dlio-cli: nothing begins with s3://b/nope\n"
    assert "NoSuchBucket" in files("ls", "s3://nope").failed(NOT_THERE).err
    files("ls", "-r", "-p", "nope", "s3://b").failed(NOT_THERE, "nothing matches")
    assert files("ls", "s3://empty").ok().out == ""


@pytest.mark.parametrize("args", [["b/dir"], ["/b/dir"], ["s3:///x"], ["s3://b", "s3://c"], ["s3://b*d/x"], ["-x"]])
def test_wrong_usage_is_one_line(files, args):
    ran = files("ls", *args).failed(USAGE)
    assert ran.err.count("\n") == 1 and ran.out == ""


# ---- odd keys

def stored(backend, bucket, keys):
    """Those of the keys that this server has as they are: some refuse or change line ends, slashes and dots."""
    for k in keys:
        try:
            backend.direct.put_object(Bucket=bucket, Key=k, Body=b"1")
        except (botocore.exceptions.ClientError, botocore.exceptions.ParamValidationError):
            pass
    there = {o["Key"] for o in backend.direct.list_objects_v2(Bucket=bucket)["Contents"]}
    kept = [k for k in keys if k in there]
    for k in there - set(kept):
        backend.direct.delete_object(Bucket=bucket, Key=k)
    assert len(kept) >= 8, kept
    return kept


@both
def test_odd_keys_of_a_real_server(cli, s3):
    p, backend, _, bucket = s3
    keys = stored(backend, bucket, ODD)
    cli.to(p)
    got = cli("ls", "-r0", "s3://" + bucket).ok().out_bytes
    assert sorted(got.split(b"\0")) == sorted([b""] + [("s3://%s/%s" % (bucket, k)).encode() for k in keys])
    assert sorted(e["key"] for e in cli("ls", "-r", "--json", "s3://" + bucket).json_lines()) == sorted(keys)
    for k in keys:
        assert cli("stat", "--json", "s3://%s/%s" % (bucket, k)).json()["size"] == 1, k
    shown = cli("ls", "-r1", "s3://" + bucket).ok().out
    assert len(shown.splitlines()) == len(keys)


def test_keys_as_servers_may_encode_them(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(method="GET", path="/b", status=200, body=page(
        ["a%2Bb+c", "%E2%82%AC", "bad%FF", "%00nul", "..%2F..%2Fetc", "x%0A%1B%5B2J"], encoded=True))
    lines = cli("ls", "-r1", "s3://b").ok().out_bytes.split(b"\n")
    assert lines[:6] == [b"s3://b/a+b c", "s3://b/€".encode(), b"s3://b/bad\\xff", b"s3://b/\\x00nul", b"s3://b/../../etc",
                         b"s3://b/x\\x0a\\x1b[2J"]
    assert b"s3://b/bad\xff\0s3://b/\0nul\0" in cli("ls", "-r0", "s3://b").ok().out_bytes
    got = cli("ls", "-r", "--json", "s3://b").json_lines()
    assert [e["key"] for e in got[1:4]] == ["€", "bad\\xff", "\x00nul"]


# ---- pages, streams

def test_pages_follow_each_other_to_the_last(cli, s3ish, origin, tmp_path):
    cli.to(s3ish())
    origin.on(when=lambda r: "continuation-token=t%2F%2B2" in r.query, status=200, body=page(["e", "f"]))
    origin.on(when=lambda r: "continuation-token=t%201" in r.query, status=200, body=page(["c", "d"], "t/+2"))
    origin.on(path="/b", status=200, body=page(["a", "b"], "t 1", "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>"))
    log = tmp_path / "log.tsv.zst"
    assert cli("ls", "-1", "s3://b", "--op-log", log).ok().out.split() == ["s3://b/" + k for k in ("a", "b", "p/", "c", "d", "e", "f")]
    assert [r["op"] for r in cli_module.oplog(log)] == ["LIST"] * 3
    first = origin.log()[0]
    assert "list-type=2" in first.query and "delimiter=%2F" in first.query and "encoding-type=url" in first.query


def test_a_page_that_leads_to_itself_ends_it(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(path="/b", status=200, body=page(["a"], "same"))
    assert cli("ls", "-1", "s3://b").failed(FAILED).err == "s3dlio-cli: cannot list s3://b: malformed response from the server\n"
    assert origin.count("/b") == 2


@both
def test_pages_are_asked_for_again_when_the_server_is_busy_or_breaks_off(cli, s3ish, origin):
    cli.to(s3ish(o={"retry": {"attempts": 1}}))
    body = page(["k%d" % i for i in range(500)])
    origin.on(path="/b", times=1, status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    origin.on(path="/b", times=1, status=200, body=body, cut_after=5000, cut="rst")
    origin.on(path="/b", status=200, body=body)
    assert len(cli("ls", "-1", "s3://b").ok().out.splitlines()) == 500


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"{}", b"<ListBucketResult><Contents></Contents></ListBucketResult>",
                                  b"<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
                                  b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
                                  b"\0\xff" * 1000, b"<ListBucketResult>" + b"<Contents>" * 1000])
def test_what_is_no_listing_is_one_line(cli, s3ish, origin, body):
    cli.to(s3ish())
    origin.on(path="/b", status=200, body=body)
    ran = cli("ls", "s3://b").failed(FAILED, "cannot list s3://b: malformed response")
    assert ran.err.count("\n") == 1 and ran.out == ""


def test_errors_say_what_the_server_said(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(path="/b", status=403, body=b"<Error><Code>AccessDenied</Code><Message>No &lt;way&gt;\x1b[31m</Message></Error>")
    assert cli("ls", "s3://b").failed(FAILED).err == "s3dlio-cli: cannot list s3://b: 403 AccessDenied: No <way>?[31m\n"


@both
def test_the_first_page_is_shown_while_the_second_is_waited_for(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(when=lambda r: "continuation-token" in r.query, never=True)
    origin.on(path="/b", status=200, body=page(["a", "b"], "t"))
    r = cli.start("ls", "-1", "s3://b")
    net.wait_until("the first page is out", lambda: r.stdout.read_text() == "s3://b/a\ns3://b/b\n")
    ran = r.interrupt()
    assert ran.code == INTERRUPTED and ran.err == ""


@both
@pytest.mark.skipif(net.SANITIZER == "tsan", reason="ThreadSanitizer holds signals back while libc waits in a write")
def test_an_interrupt_ends_it_also_when_nobody_reads_what_it_prints(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(path="/b", status=200, body=page(["k%05d" % i for i in range(20000)]))
    read, write = os.pipe()
    try:
        r = cli.start("ls", "-r", "s3://b", stdout=write)
        os.close(write)
        net.wait_until("it waits for the pipe", lambda: "pipe" in open("/proc/%d/wchan" % r.pid).read() or blocked(r.pid))
        r.signal(signal.SIGINT)
        ran = r.wait(5)
        assert ran.code == INTERRUPTED and ran.err == ""
    finally:
        os.close(read)


def blocked(pid):
    """It sleeps, and does not use the processor."""
    def ticks():
        with open("/proc/%d/stat" % pid) as f:
            parts = f.read().rsplit(")", 1)[1].split()
        return parts[0], int(parts[11]) + int(parts[12])
    before = ticks()
    time.sleep(0.2)
    return before == ticks() and before[0] == "S" and before[1] > 0


def test_a_reader_that_leaves_ends_it_quietly(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(path="/b", status=200, body=page(["k%05d" % i for i in range(5000)]))
    for extra in ([], ["--json"], ["-0"]):
        p = subprocess.Popen([cli_module.BINARY, *cli.options(), "ls", "-r", "s3://b", *extra], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env=cli_module.environment())
        p.stdout.read(10)
        p.stdout.close()
        assert p.wait(20 * net.SLOW) == 0 and p.stderr.read() == b""
        p.stderr.close()


def test_a_full_disk_is_told(files):
    with open("/dev/full", "wb") as full:
        r = files.start("ls", "-r", "s3://b", stdout=full)
        assert r.wait().failed(FAILED).err == "s3dlio-cli: cannot write to standard output: No space left on device\n"


@pytest.mark.nosan
def test_memory_is_flat_whatever_the_number_of_objects(cli, s3ish, origin):
    """Twenty pages or four hundred: no more than a few of them are held."""
    cli.to(s3ish())
    pages = [page(["%s/%05d/%03d" % ("x" * 100, n, i) for i in range(200)], "t%d" % (n + 1)) for n in range(400)]
    most = {}
    for count in (20, 400):
        gate = threading.Event()
        origin.clear_rules()
        for n in range(count):
            origin.on(when=lambda r, n=n: r.query.endswith("token=t%d" % n) if n else "token" not in r.query, status=200, body=pages[n])
        origin.on(status=200, body=page(["end"]), gate=gate)
        r = cli.start("ls", "-r1", "s3://b")
        net.wait_until("all but the last page are out", lambda: r.stdout.read_bytes().count(b"\n") == 200 * count, 60)
        most[count] = r.rss_kib("VmHWM")
        gate.set()
        assert r.wait().ok().out.endswith("s3://b/end\n")
    assert most[400] < most[20] + 4096, most   # the listing is 30 MB


# ---- stat

def test_stat_shows_what_a_head_says(cli, s3):
    p, _, client, bucket = s3
    client.put_object(Bucket=bucket, Key="k", Body=b"12345", ContentType="text/x-test", CacheControl="max-age=7",
                      ContentLanguage="de", Metadata={"colour": "blue"})
    cli.to(p)
    text = cli("stat", "s3://%s/k" % bucket).ok().out.split("\n")
    assert text[0] == "s3://%s/k" % bucket
    shown = dict(line.split(None, 1) for line in text[1:] if line)
    assert shown["size"] == "5 (5 B)" and shown["content-type"] == "text/x-test" and shown["x-amz-meta-colour"] == "blue"
    assert shown["etag"] == client.head_object(Bucket=bucket, Key="k")["ETag"] and shown["cache-control"] == "max-age=7"
    got = cli("stat", "--json", "s3://%s/k" % bucket).json()
    assert got["metadata"] == {"colour": "blue"} and got["size"] == 5 and got["headers"]["content-language"] == "de"
    assert got["etag"] == shown["etag"] and got["content_type"] == "text/x-test" and got["last_modified"].endswith("GMT")
    assert not any(h in got["headers"] for h in ("date", "server", "x-amz-request-id", "content-length"))


def test_stat_of_several_tells_all_and_fails_for_one(files, tmp_path):
    log = tmp_path / "log.tsv.zst"
    ran = files("stat", "--json", "s3://b/small", "s3://b/nope", "s3://b/big", "--op-log", log)
    ran.failed(NOT_THERE, "cannot stat s3://b/nope: 404")
    assert [line.split('"size":')[1].split(",")[0] for line in ran.out.splitlines()] == ["3", "3000000"]
    assert [(r["op"], r["error"][:3]) for r in cli_module.oplog(log)] == [("HEAD", ""), ("HEAD", "404"), ("HEAD", "")]
    assert files("stat", "s3://b").ok().out.startswith("s3://b\n")
    files("stat", "s3://nope").failed(NOT_THERE)


def test_stat_of_hostile_headers(cli, s3ish, origin):
    cli.to(s3ish())
    origin.on(status=200, headers={"x-amz-meta-a": "\x1b]0;title\x07\x9b", "ETag": "no quotes", "x-amz-meta-b": "ü" * 1000})
    out = cli("stat", "s3://b/k").out
    assert "\x1b" not in out and "\x07" not in out and "\x9b" not in out
