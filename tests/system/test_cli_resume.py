"""s3dlio-cli get --continue: what a run leaves when it is killed or interrupted, and that the next one goes on with it - or does not,
where the object or the file is no longer what it was."""
import base64
import os
import zlib
from signal import SIGINT, SIGKILL

import cli as cli_module
import net
import pytest
from content import content
from test_cli_get import files_in, put

pytestmark = pytest.mark.ways("h1")
MIB = 1 << 20
BIG = 10 * MIB + 777
PART, STATE = ".f.s3dlio-part", ".f.s3dlio-state"
ARGS = ("get", "--continue", "--part-size", "1MiB", "-j", "4", "s3://b/k", "f")


def marks(tmp):
    try:
        text = (tmp / STATE).read_text()
    except FileNotFoundError:
        return 0
    return sum(1 for line in text.split("\n\n", 1)[-1].split() if line != "-" * 8)


def left_behind(cli, origin, sig=SIGKILL, args=ARGS):
    """A run that has some parts and hangs in others is ended."""
    origin.on("GET", "/b/k", when=lambda r: (r.range_start() or 0) >= 5 * MIB, mid_delay=(1000, 60))
    run = cli.to(origin.url).start(*args)
    net.wait_until("five parts", lambda: marks(cli.tmp) >= 5)
    run.signal(sig)
    ran = run.wait()
    origin.clear_rules()
    origin.clear_log()
    return ran


def own_files(tmp):
    return {n: d for n, d in files_in(tmp).items() if not n.startswith("run")}


@pytest.mark.parametrize("sig", [SIGINT, SIGKILL])
def test_a_run_goes_on_where_the_last_one_was_ended(cli, origin, sig):
    data = put(origin, "/b/k", BIG)
    ran = left_behind(cli, origin, sig)
    assert sig == SIGKILL or (ran.code == cli_module.INTERRUPTED and ran.err == "")
    assert set(own_files(cli.tmp)) == {PART, STATE}
    ran = cli(*ARGS).ok()
    assert ran.err == "s3dlio-cli: f: going on, %d of %d bytes are there\n" % (5 * MIB, BIG)
    assert own_files(cli.tmp) == {"f": data}
    gets = origin.log("/b/k", "GET")
    assert sorted(r.range_start() for r in gets) == [n * MIB for n in range(5, 11)]
    assert {r.get("if-match") for r in gets} == {origin.objects["/b/k"].etag}


def test_what_was_there_is_part_of_the_check(cli, origin):
    data = content("/b/k", 1, 0, BIG)
    crc = base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    origin.put("/b/k", data=data, etag='"x-1"', headers={"x-amz-checksum-crc32": crc, "x-amz-checksum-type": "FULL_OBJECT"})
    left_behind(cli, origin)
    origin.objects["/b/k"].headers["x-amz-checksum-crc32"] = "AAAAAA=="
    cli(*ARGS).failed(cli_module.FAILED, "does not match its CRC32")
    assert own_files(cli.tmp) == {}
    origin.objects["/b/k"].headers["x-amz-checksum-crc32"] = crc
    left_behind(cli, origin)
    cli(*ARGS).ok()
    assert own_files(cli.tmp) == {"f": data}


def test_without_continue_nothing_stays_even_when_it_is_killed(cli, origin):
    put(origin, "/b/k", BIG)
    origin.on("GET", "/b/k", when=lambda r: (r.range_start() or 0) >= 5 * MIB, mid_delay=(1000, 60))
    run = cli.to(origin.url).start("get", "--part-size", "1MiB", "s3://b/k", "f")
    net.wait_until("parts", lambda: origin.count("/b/k", "GET") > 6)
    run.signal(SIGKILL)
    run.wait()
    assert own_files(cli.tmp) == {}


def test_another_version_is_read_from_the_start(cli, origin):
    put(origin, "/b/k", BIG)
    left_behind(cli, origin)
    new = content("/b/k", 2, 0, BIG)
    origin.put("/b/k", data=new, etag='"new-3"')
    ran = cli(*ARGS).ok()
    assert "going on" not in ran.err and own_files(cli.tmp) == {"f": new}


@pytest.mark.parametrize("spoil", ["part", "state", "no-part", "longer", "empty-state"])
def test_what_is_not_as_it_was_left_is_not_trusted(cli, origin, spoil):
    data = put(origin, "/b/k", BIG, md5=False)
    left_behind(cli, origin)
    if spoil == "part":
        with open(cli.tmp / PART, "r+b") as f:
            f.seek(2 * MIB + 5)
            f.write(b"spoilt")
    elif spoil == "state":
        text = (cli.tmp / STATE).read_bytes()
        (cli.tmp / STATE).write_bytes(text[:len(text) // 2])
    elif spoil == "empty-state":
        (cli.tmp / STATE).write_bytes(b"")
    elif spoil == "no-part":
        os.unlink(cli.tmp / PART)
    else:
        with open(cli.tmp / PART, "ab") as f:
            f.truncate(BIG + 5 * MIB)
    cli(*ARGS).ok()
    assert own_files(cli.tmp) == {"f": data}
    if spoil == "part":
        assert sorted(r.range_start() for r in origin.log("/b/k", "GET")) == [n * MIB for n in (2, *range(5, 11))]


def test_an_object_that_is_gone_is_said_and_what_is_there_stays(cli, origin):
    put(origin, "/b/k", BIG)
    left_behind(cli, origin)
    del origin.objects["/b/k"]
    cli(*ARGS).failed(cli_module.NOT_THERE, "404")


def test_two_runs_do_not_write_one_file(cli, origin):
    put(origin, "/b/k", BIG)
    origin.on("GET", "/b/k", when=lambda r: (r.range_start() or 0) >= 5 * MIB, mid_delay=(1000, 60))
    cli.to(origin.url).start(*ARGS)
    net.wait_until("parts", lambda: marks(cli.tmp) >= 5)
    cli(*ARGS).failed(cli_module.FAILED, "another run is downloading f")


def test_finished_files_are_left_alone_and_old_ones_are_not(cli, start, tmp_path):
    root = tmp_path / "root"
    (root / "b").mkdir(parents=True)
    for n in "abc":
        (root / "b" / n).write_bytes(n.encode() * 1000)
    c = cli.to(start({"type": "file", "root": str(root)}))
    c("get", "-r", "s3://b/", "out").ok()
    (c.tmp / "out/b").write_bytes(b"short")
    os.utime(c.tmp / "out/c", (1, 1))
    (c.tmp / "out/c").write_bytes(b"x" * 1000)
    os.utime(c.tmp / "out/c", (1, 1))
    done = c("--json", "get", "--continue", "-r", "s3://b/", "out").json()
    assert (done["objects"], done["skipped"]) == (2, 1)
    assert files_in(c.tmp / "out") == {n: n.encode() * 1000 for n in "abc"}
