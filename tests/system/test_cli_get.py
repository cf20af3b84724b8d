"""s3dlio-cli get and download: where objects go, that they are right, what refuses to be a file, and what is said of failures."""
import base64
import hashlib
import os
import stat
import time
import zlib

import cli as cli_module
import net
import pytest
from content import content

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
BIG = (20 << 20) + 12345


def put(origin, path, size, md5=True, **kw):
    """An object with an honest ETag: an MD5, or one that is none."""
    data = content(path, 1, 0, size)
    etag = '"%s"' % hashlib.md5(data).hexdigest()
    origin.put(path, data=data, etag=etag if md5 else etag[:-1] + '-3"', **kw)
    return data


def files_in(directory):
    """Relative path -> bytes of every file below it, hidden ones too."""
    found = {}
    for where, _, names in os.walk(directory):
        for n in names:
            path = os.path.join(where, n)
            with open(path, "rb") as f:
                found[os.path.relpath(path, directory)] = f.read()
    return found


@pytest.fixture
def files(start, tmp_path, cli):
    """files({"b/key": bytes}) -> the CLI, against a proxy in front of such a directory."""
    def begin(tree):
        root = tmp_path / "root"
        for name, data in tree.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        return cli.to(start({"type": "file", "root": str(root)}))
    return begin


@pytest.mark.parametrize("size", [0, 1, 65536, 256 << 10, (256 << 10) + 1, 8 << 20, (8 << 20) + 1, BIG])
def test_an_object_becomes_a_file_under_the_last_part_of_its_key(cli, http, origin, size):
    data = put(origin, "/b/dir/k.bin", size)
    ran = cli.to(http())("get", "s3://b/dir/k.bin").ok()
    assert ran.out == "" and ran.err == ""
    assert files_in(cli.tmp) == {"k.bin": data}


@pytest.mark.ways("h1")
def test_a_small_object_costs_one_request_and_a_large_one_its_parts_and_a_head(cli, origin):
    put(origin, "/b/small", 5000)
    put(origin, "/b/large", BIG)
    cli.to(origin.url)("get", "s3://b/small", "s3://b/large", ".").ok()
    assert [r.method for r in origin.log("/b/small")] == ["GET"]
    large = origin.log("/b/large")
    assert sorted(r.method for r in large) == ["GET", "GET", "GET", "HEAD"]
    ranges = sorted((r for r in large if r.method == "GET"), key=lambda r: r.range_start())
    assert [r.range_header for r in ranges] == ["bytes=0-8388607", "bytes=8388608-16777215", "bytes=16777216-%d" % (BIG - 1)]
    assert [r.get("if-match") for r in ranges] == [None] + [origin.objects["/b/large"].etag] * 2


def test_standard_output_gets_the_bytes_in_order(cli, http, origin):
    data = put(origin, "/b/k", BIG)
    p = http()
    assert cli.to(p)("get", "s3://b/k", "-").ok().out_bytes == data
    assert cli("get", "-j", "3", "--part-size", "1MiB", "s3://b/k", "-").ok().out_bytes == data
    assert files_in(cli.tmp) == {}


@pytest.mark.ways("h1")
def test_what_goes_to_dev_null_is_read_and_the_device_stays(cli, origin):
    put(origin, "/b/k", BIG)
    cli.to(origin.url)
    for args, requests in ((("s3://b/k", "/dev/null"), 1), (("-j", "4", "s3://b/k", "/dev/null"), 3)):
        assert cli("--json", "get", *args).json()["bytes"] == BIG
        assert len(origin.log("/b/k", "GET")) == requests and origin.bytes_sent("/b/k") == BIG
        origin.clear_log()
    with open("/dev/null", "wb") as null:
        assert cli.start("get", "s3://b/k", "-", stdout=null).wait().code == cli_module.OK
    assert origin.bytes_sent("/b/k") == BIG and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_ranges_are_parts_of_the_object(cli, http, origin):
    data = put(origin, "/b/k", BIG)
    cli.to(http())("get", "--offset", "5", "--length", "17MiB", "s3://b/k", "part").ok()
    assert (cli.tmp / "part").read_bytes() == data[5:5 + (17 << 20)]
    assert cli("get", "--offset", str(BIG - 10), "s3://b/k", "-").ok().out_bytes == data[-10:]
    assert cli("get", "--length", "7", "s3://b/k", "-").ok().out_bytes == data[:7]
    cli("get", "--offset", str(BIG), "s3://b/k", "-").failed(cli_module.FAILED, "416")


def test_several_objects_go_to_a_directory_that_is_made(cli, http, origin):
    want = {"%d" % i: put(origin, "/b/x/%d" % i, 1000 * i) for i in range(5)}
    cli.to(http())("get", *["s3://b/x/%s" % n for n in want], "out/deeper").ok()
    assert files_in(cli.tmp / "out/deeper") == want
    cli("get", "s3://b/x/1", "s3://b/y/1", "out").failed(cli_module.USAGE, "would be the same file")
    (cli.tmp / "plain").write_text("x")
    cli("get", "s3://b/x/1", "s3://b/x/2", "plain").failed(cli_module.FAILED, "plain is not a directory")


def test_a_prefix_keeps_its_paths(files):
    tree = {"b/data/%s" % n: os.urandom(10 + i) for i, n in enumerate(("a", "deep/er/b", "deep/c", "z.npz"))}
    c = files({**tree, "b/other": b"no"})
    c("get", "-r", "s3://b/data/", "out").ok()
    assert files_in(c.tmp / "out") == {k[7:]: v for k, v in tree.items()}
    (c.tmp.parent / "root/b/data10").write_bytes(b"not this")
    c("get", "-r", "s3://b/data", "same").ok()
    assert files_in(c.tmp / "same") == files_in(c.tmp / "out")
    ran = c("--json", "get", "-r", "s3://b/data/", "again")
    assert {k: ran.json()[k] for k in ("objects", "bytes", "failed")} == {"objects": 4, "bytes": sum(map(len, tree.values())), "failed": 0}


@pytest.mark.parametrize("pattern,names", [
    ("*.npz", {"a.npz", "b.npz"}),
    ("**.npz", {"a.npz", "b.npz", "sub/c.npz"}),
    ("[!a].*", {"b.npz", "x.txt"}),
    ("?.t?t", {"x.txt"}),
    ("sub/*", {"c.npz"}),
    ("", {"a.npz", "b.npz", "sub/c.npz", "x.txt"}),
])
def test_download_takes_patterns_and_prefixes(files, pattern, names):
    c = files({"b/d/%s" % n: n.encode() for n in ("a.npz", "b.npz", "x.txt", "sub/c.npz")} | {"b/e/a.npz": b"no"})
    c("download", "s3://b/d/" + pattern, "out").ok()
    assert set(files_in(c.tmp / "out")) == names
    c("download", "s3://b/d/nothing*", "out").failed(cli_module.NOT_THERE, "nothing is there that matches s3://b/d/nothing*")


def test_a_keylist_names_objects(files):
    c = files({"b/d/%d" % i: b"%d" % i for i in range(5)})
    (c.tmp / "list").write_text("s3://b/d/1\n\ns3://b/d/3\r\n")
    c("get", "--keylist", "list", "s3://b/d/", "out").ok()
    assert files_in(c.tmp / "out") == {"1": b"1", "3": b"3"}
    c("get", "--keylist", "-", "s3://b", "whole", stdin=b"d/2\nd/4").ok()
    assert files_in(c.tmp / "whole") == {"d/2": b"2", "d/4": b"4"}
    ran = c("get", "--keylist", "-", "s3://b/d", "some", stdin=b"0\nmissing\n").failed(cli_module.FAILED)
    assert "cannot get s3://b/d/missing: 404" in ran.err and files_in(c.tmp / "some") == {"0": b"0"}
    c("get", "--keylist", "-", "none", stdin=b"d/2\n").failed(cli_module.FAILED, "-:1: expected s3://BUCKET/KEY")


@pytest.mark.ways("h1")
@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x", "a//b", "./x", "a/./b", ".."])
def test_a_key_that_leaves_the_directory_is_refused_and_the_others_go_on(cli, origin, key):
    put(origin, "/b/p/good", 10)
    names = "s3://b/p/%s\ns3://b/p/good\n" % key
    ran = cli.to(origin.url)("get", "--keylist", "-", "s3://b/p/", "out", stdin=names.encode()).failed(cli_module.FAILED)
    assert "s3://b/p/%s: the key " % key in ran.err and len(ran.err.splitlines()) == 1
    assert files_in(cli.tmp) == {"out/good": origin.objects["/b/p/good"].data}
    assert origin.count() == 1   # it was not even asked for


@pytest.mark.ways("h1")
def test_what_does_not_match_its_checksum_is_no_file(cli, origin):
    data = content("/b/k", 1, 0, 3000)
    origin.put("/b/md5", data=data, etag='"%s"' % hashlib.md5(b"other").hexdigest())
    origin.put("/b/crc", data=data, etag='"x-1"', headers={"x-amz-checksum-crc32": base64.b64encode(b"\0\0\0\1").decode(),
                                                              "x-amz-checksum-type": "FULL_OBJECT"})
    big = content("/b/big", 1, 0, BIG)
    origin.put("/b/big", data=big, etag='"%s"' % hashlib.md5(b"other").hexdigest())
    good = zlib.crc32(big).to_bytes(4, "big")
    origin.put("/b/right", data=big, etag='"x-1"', headers={"x-amz-checksum-crc32": base64.b64encode(good).decode(),
                                                              "x-amz-checksum-type": "FULL_OBJECT"})
    cli.to(origin.url)
    cli("get", "s3://b/md5", "f").failed(cli_module.FAILED, "does not match its ETag, an MD5")
    cli("get", "s3://b/crc", "f").failed(cli_module.FAILED, "does not match its CRC32")
    cli("get", "s3://b/big", "f").failed(cli_module.FAILED, "does not match its ETag")
    cli("get", "s3://b/big", "-").failed(cli_module.FAILED, "does not match its ETag")
    assert files_in(cli.tmp) == {}
    cli("get", "--no-check", "s3://b/big", "f").ok()
    cli("get", "s3://b/right", "g").ok()
    assert files_in(cli.tmp) == {"f": big, "g": big}


@pytest.mark.ways("h1")
@pytest.mark.parametrize("late", ["the sum is known first", "the bytes come first", "in between"])
def test_a_crc_is_made_of_parts_in_any_order(cli, origin, late):
    data = content("/b/k", 1, 0, BIG)
    crc = lambda d: {"x-amz-checksum-crc32": base64.b64encode(zlib.crc32(d).to_bytes(4, "big")).decode(), "x-amz-checksum-type": "FULL_OBJECT"}  # noqa: E731
    if late == "the bytes come first":
        origin.on("HEAD", delay=0.5)
    elif late == "in between":
        origin.on("HEAD", delay=0.1)
        origin.on("GET", when=lambda r: r.range_start() % (3 << 20) == 0 and r.range_start(), mid_delay=(300000, 0.3))
    else:
        origin.on("GET", when=lambda r: r.range_start(), delay=0.2)
    args = ("get", "--part-size", "1MiB", "-j", "8", "s3://b/k", "f")
    origin.put("/b/k", data=data, etag='"x-1"', headers=crc(data))
    cli.to(origin.url)(*args).ok()
    assert files_in(cli.tmp) == {"f": data}
    origin.put("/b/k", data=data, etag='"x-1"', headers=crc(data[:-1] + b"x"))
    cli(*args[:-1], "g").failed(cli_module.FAILED, "does not match its CRC32")
    assert files_in(cli.tmp) == {"f": data}


@pytest.mark.ways("h1")
def test_checksums_that_are_of_parts_or_of_secrets_are_not_compared(cli, origin):
    data = content("/b/k", 1, 0, 3000)
    md5 = '"%s"' % hashlib.md5(b"other").hexdigest()
    origin.put("/b/kms", data=data, etag=md5, headers={"x-amz-server-side-encryption": "aws:kms"})
    origin.put("/b/composite", data=data, etag=md5[:-1] + '-2"', headers={"x-amz-checksum-crc32": "AAAAAA==-2", "x-amz-checksum-type": "COMPOSITE"})
    cli.to(origin.url)("get", "s3://b/kms", "s3://b/composite", ".").ok()
    assert files_in(cli.tmp) == {"kms": data, "composite": data}


@pytest.mark.ways("h1")
def test_two_versions_never_mix(cli, origin):
    old, new = content("/b/k", 1, 0, BIG), content("/b/k", 2, 0, BIG + 77)

    def change(rec):
        if origin.objects["/b/k"].size == BIG:
            origin.put("/b/k", data=new, etag='"new-2"')

    origin.put("/b/k", data=old, etag='"old-2"')
    origin.on("GET", "/b/k", nth=2, call=change)
    cli.to(origin.url)("get", "s3://b/k", "f").ok()
    assert files_in(cli.tmp) == {"f": new}
    os.unlink(cli.tmp / "f")
    origin.clear_rules()
    n = [0]

    def always(rec):
        n[0] += 1
        origin.put("/b/k", data=new, etag='"v%d-2"' % n[0])

    origin.on("GET", "/b/k", call=always)
    cli("get", "s3://b/k", "f").failed(cli_module.FAILED, "the object changed 4 times while it was read")
    assert files_in(cli.tmp) == {}


@pytest.mark.ways("h1")
def test_a_stream_never_mixes_versions_either(cli, origin):
    new = content("/b/k", 2, 0, BIG)
    origin.put("/b/k", data=content("/b/k", 1, 0, BIG), etag='"old-2"')
    origin.on("GET", "/b/k", when=lambda r: (r.range_start() or 0) >= 16 << 20, nth=1, delay=0.3,
              call=lambda r: origin.put("/b/k", data=new, etag='"new-2"'))
    ran = cli.to(origin.url)("get", "-j", "1", "s3://b/k", "-")
    ran.failed(cli_module.FAILED, "the object changed while it was read")
    assert content("/b/k", 1, 0, BIG).startswith(ran.out_bytes)


@pytest.mark.ways("h1")
def test_a_stream_that_is_being_written_is_not_begun_again(cli, origin):
    """The first bytes go into a pipe that nobody reads yet: that they are not through does not mean that they are not out."""
    old = content("/b/k", 1, 0, BIG)
    origin.put("/b/k", data=old, etag='"old-2"')
    origin.on("GET", "/b/k", when=lambda r: (r.range_start() or 0) > 0, nth=1, delay=0.5,
              call=lambda r: origin.put("/b/k", data=content("/b/k", 2, 0, BIG), etag='"new-2"'))
    r, w = os.pipe()
    run = cli.to(origin.url).start("get", "-j", "2", "s3://b/k", "-", stdout=w)
    os.close(w)
    net.wait_until("the other version", lambda: origin.objects["/b/k"].etag == '"new-2"')
    time.sleep(0.3)
    with open(r, "rb") as f:
        got = f.read()
    ran = run.wait()
    assert ran.code == cli_module.FAILED and "the object changed while it was read" in ran.err
    assert old.startswith(got)


@pytest.mark.ways("h1")
def test_cut_and_refused_answers_are_tried_again(cli, origin):
    data = put(origin, "/b/k", BIG)
    origin.on("GET", "/b/k", nth=1, cut_after=1000, cut="rst")
    origin.on("GET", "/b/k", nth=3, status=503, body=b"<Error><Code>SlowDown</Code></Error>")
    origin.on("GET", "/b/k", nth=5, cut_after=3 << 20, cut="fin")
    cli.to(origin.url)("get", "s3://b/k", "f").ok()
    assert files_in(cli.tmp) == {"f": data}
    origin.clear_rules()
    origin.on("GET", "/b/k", cut_after=1000, cut="rst")
    ran = cli("--retries", "1", "get", "s3://b/k", "g")
    assert ran.code == cli_module.FAILED and "cannot get s3://b/k: " in ran.err and len(ran.err.splitlines()) == 1
    assert files_in(cli.tmp) == {"f": data}


@pytest.mark.ways("h1")
def test_servers_without_ranges_or_strong_etags_are_read_in_one_piece(cli, origin):
    data = content("/b/k", 1, 0, BIG)
    origin.put("/b/k", data=data, etag="")
    cli.to(origin.url)("get", "s3://b/k", "f").ok()
    origin.put("/b/k", data=data, etag='"x-1"')
    origin.on("GET", "/b/k", ignore_range=True)
    cli("get", "s3://b/k", "g").ok()
    origin.clear_rules()
    origin.on("GET", "/b/k", ignore_range=True, chunked=True)
    cli("get", "s3://b/k", "h").ok()
    assert cli("get", "s3://b/k", "-").ok().out_bytes == data
    assert files_in(cli.tmp) == {"f": data, "g": data, "h": data}
    cli("get", "--offset", "5", "s3://b/k", "i").failed(cli_module.FAILED, "the server ignores ranges")


def test_failures_are_one_line_each_and_the_others_go_on(cli, http, origin):
    good = {n: put(origin, "/b/" + n, 100) for n in ("a", "c")}
    (cli.tmp / "d").mkdir()
    put(origin, "/b/d", 10)
    ran = cli.to(http())("get", "s3://b/a", "s3://b/missing", "s3://b/c", "s3://b/d", ".").failed(cli_module.FAILED)
    lines = sorted(ran.err.splitlines())
    assert len(lines) == 2 and "cannot get s3://b/missing: 404" in lines[1]
    assert lines[0] == "s3dlio-cli: cannot get s3://b/d: cannot finish ./d: Is a directory"
    assert files_in(cli.tmp) == good
    cli("get", "s3://b/missing").failed(cli_module.NOT_THERE, "404")
    cli("get", "s3://b/a", "x" * 256).failed(cli_module.FAILED, "File name too long")
    cli("get", "s3://b/a", "/proc/nowhere/x").failed(cli_module.FAILED, "cannot create /proc/nowhere/x")


def test_what_is_there_is_replaced_unless_forbidden(cli, http, origin):
    data = put(origin, "/b/k", 1000)
    (cli.tmp / "k").write_text("old")
    ran = cli.to(http())("get", "--no-clobber", "s3://b/k").ok()
    assert "is there already" in ran.err and (cli.tmp / "k").read_text() == "old"
    cli("get", "s3://b/k").ok()
    assert files_in(cli.tmp) == {"k": data}
    assert stat.S_IMODE(os.stat(cli.tmp / "k").st_mode) == 0o666 & ~current_umask()


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.ways("h1")
def test_a_full_disk_is_said_and_leaves_nothing(cli, origin, tmp_path):
    put(origin, "/b/k", BIG)
    put(origin, "/b/small", 3000)
    limit = ("prlimit", "--fsize=1000")
    for name in ("k", "small"):
        ran = cli.to(origin.url)("get", "s3://b/" + name, prefix=("sh", "-c", 'trap "" XFSZ; exec "$@"', "sh", *limit))
        ran.failed(cli_module.FAILED, "cannot get s3://b/%s: cannot write ./%s: File too large" % (name, name))
        assert files_in(cli.tmp) == {}


@pytest.mark.ways("h1")
def test_a_reader_that_leaves_ends_it_quietly(cli, origin):
    put(origin, "/b/k", BIG)
    r, w = os.pipe()
    run = cli.to(origin.url).start("get", "s3://b/k", "-", stdout=w)
    os.close(w)
    assert os.read(r, 100)
    os.close(r)
    assert run.wait().err == ""


@pytest.mark.ways("h1")
def test_an_interrupt_leaves_nothing_and_says_nothing(cli, origin):
    for key, target in (("k", "f"), ("l", "-")):   # one each: a late record of the first must not be taken for one of the second
        put(origin, "/b/" + key, BIG)
        origin.on("GET", "/b/" + key, mid_delay=(1 << 20, 30))
        run = cli.to(origin.url).start("get", "s3://b/" + key, target)
        cli_module.net.wait_until("a part under way", lambda: origin.count("/b/" + key) >= 1)
        ran = run.interrupt()
        assert ran.code == cli_module.INTERRUPTED and ran.err == "", ran
        assert [n for n in files_in(cli.tmp) if not n.startswith("run")] == []


@pytest.mark.ways("h1")
def test_every_request_is_in_the_op_log(cli, origin):
    put(origin, "/b/k", BIG)
    put(origin, "/b/s", 10)
    cli.to(origin.url)("--op-log", "log", "get", "s3://b/k", "s3://b/s", "s3://b/none", ".").failed(cli_module.FAILED)
    rows = cli_module.oplog(cli.tmp / "log")
    assert sorted((r["op"], r["file"].rsplit("/", 1)[1], int(r["bytes"])) for r in rows) == sorted(
        [("GET", "k", 8 << 20)] * 2 + [("GET", "k", BIG - (16 << 20)), ("HEAD", "k", 0), ("GET", "s", 10), ("GET", "none", 0)])
    assert [bool(r["error"]) for r in rows if r["file"].endswith("none")] == [True]


@pytest.mark.parametrize("args,says", [
    (["get"], "name an object"),
    (["get", "s3://b"], "names a bucket"),
    (["get", "s3:///k"], "expected s3://BUCKET/KEY"),
    (["get", "s3://b/x/"], "the key is empty"),
    (["get", "-r", "s3://b/x/", "-"], "takes a single object"),
    (["get", "--offset", "1", "s3://b/1", "s3://b/2", "d"], "for a single object"),
    (["get", "-j", "0", "s3://b/1"], "--jobs 0"),
    (["download", "s3://b/x/*", "-"], "takes a single object"),
])
@pytest.mark.ways("h1")
def test_bad_usage_is_said(cli, args, says):
    cli.to("http://127.0.0.1:9")(*args).failed(cli_module.USAGE, says)
