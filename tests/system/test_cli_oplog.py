"""--op-log: every operation in the columns that s3dlio's and warp's tools read, whatever becomes of the command."""
import csv
import datetime
import io

import cli as cli_module
import net
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))


@pytest.fixture
def files(start, tmp_path, cli):
    """files({"key": bytes}) -> a proxy in front of these objects of bucket b."""
    def begin(objects):
        root = tmp_path / "root" / "b"
        for name, data in objects.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
        p = start({"type": "file", "root": str(root.parent)})
        cli.to(p)
        return p
    return begin


def test_a_log_that_cannot_be_made_is_an_error_and_nothing_is_done(cli, http):
    ran = cli.to(http())("--op-log", "/dev/null/x.zst", "health").failed(cli_module.USAGE)
    assert ran.err == "s3dlio-cli: --op-log: cannot create /dev/null/x.zst: Not a directory\n" and ran.out == ""


def test_a_log_that_is_not_whole_fails_the_command(cli, http):
    ran = cli.to(http())("--op-log", "/dev/full", "health").failed(cli_module.FAILED)
    assert ran.err == "s3dlio-cli: --op-log: /dev/full is not whole: No space left on device\n"


def test_a_log_without_operations_has_its_header(cli, http, tmp_path):
    cli.to(http())("--op-log", tmp_path / "log.tsv.zst", "health").ok()
    assert cli_module.oplog(tmp_path / "log.tsv.zst") == []


def test_every_page_of_a_listing_is_a_line(cli, files, tmp_path):
    files({"d/%04d" % i: b"" for i in range(2345)})
    cli("--op-log", tmp_path / "log.tsv.zst", "ls", "-r", "s3://b/d/").ok()
    rows = cli_module.oplog(tmp_path / "log.tsv.zst")
    assert [(r["op"], r["file"], r["n_objects"]) for r in rows] == [("LIST", "/b/d/", n) for n in ("1000", "1000", "345")]


def test_times_are_those_of_the_wall_clock_and_in_order(cli, files, tmp_path):
    files({"k": bytes(3000)})
    before = datetime.datetime.now(datetime.timezone.utc)
    cli("--op-log", tmp_path / "log.tsv.zst", "get", "s3://b/k", "-").ok()
    after = datetime.datetime.now(datetime.timezone.utc)
    row = next(r for r in cli_module.oplog(tmp_path / "log.tsv.zst") if r["op"] == "GET")

    def at(text):
        assert len(text) == 30 and text.endswith("Z")
        return datetime.datetime.fromisoformat(text[:26] + "+00:00")
    second = datetime.timedelta(seconds=1)   # the clock may be slewed meanwhile
    assert before - second <= at(row["start"]) <= at(row["first_byte"]) <= at(row["end"]) <= after + second
    assert row["bytes"] == "3000" and row["error"] == ""


def test_names_of_any_kind_read_back(cli, files, tmp_path):
    names = ['say "hi"', "tab\there", "line\nend", "back\\slash", "gr\u00fc\u00df", "#x"]
    files({n: b"x" for n in names})
    cli("--op-log", tmp_path / "log.tsv.zst", "get", *["s3://b/" + n for n in names], tmp_path / "out").ok()
    import zstandard
    with open(tmp_path / "log.tsv.zst", "rb") as f:
        text = zstandard.ZstdDecompressor().decompressobj().decompress(f.read()).decode()
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", strict=True))
    escapes = {"\\\\": "\\", "\\t": "\t", "\\n": "\n"}

    def back(name):
        out, i = "", 0
        while i < len(name):
            n = 2 if name[i] == "\\" else 1
            out, i = out + escapes.get(name[i:i + n], name[i:i + n]), i + n
        return out
    assert sorted(back(r["file"]) for r in rows if r["op"] == "GET") == sorted("/b/" + n for n in names)
    assert all(None not in r and None not in r.values() for r in rows)


def test_what_failed_has_its_reason(cli, files, tmp_path):
    files({"k": b"x"})
    cli("--op-log", tmp_path / "log.tsv.zst", "get", "s3://b/none", "-").failed(cli_module.NOT_THERE)
    rows = cli_module.oplog(tmp_path / "log.tsv.zst")
    assert rows and all(r["error"].startswith("404") and r["bytes"] == "0" and r["first_byte"] == "" for r in rows)


def test_an_interrupted_command_leaves_a_whole_log(cli, http, origin, tmp_path):
    origin.put("/b/k", 100000)
    origin.on(path="/b/k", trickle=(100, .05))
    run = cli.to(http()).start("--op-log", tmp_path / "log.tsv.zst", "get", "s3://b/k", tmp_path / "k")
    net.wait_until("it is under way", lambda: origin.count("/b/k") > 0)
    assert run.interrupt().code == cli_module.INTERRUPTED
    cli_module.oplog(tmp_path / "log.tsv.zst")   # judges that it is whole
