"""bench: what it says of the proxy must be so - bytes are checked, hits are told from misses, errors are counted - and it
leaves behind what it should and no more."""
import json
import os
import signal

import cli as cli_module
import conftest
import net
import pytest

pytestmark = pytest.mark.ways("h1", "h2tls", san=("h1",))
KIB = 1 << 10


@pytest.fixture
def moto(start, moto_server, bucket, cli):
    """A proxy in front of moto with an empty bucket, asked by `cli`: (proxy, boto3 client to moto, bucket)."""
    direct = conftest.client(moto_server.url)
    direct.create_bucket(Bucket=bucket)
    p = start(conftest.s3_origin(moto_server.url))
    cli.to(p)
    return p, direct, bucket


@pytest.fixture
def files(start, tmp_path, cli):
    """files({"name": size}, **server) -> a proxy in front of these files in bucket b (zeros, and sparse)."""
    def begin(names, **kw):
        root = tmp_path / "root" / "b"
        root.mkdir(parents=True)
        for name, size in names.items():
            (root / name).parent.mkdir(exist_ok=True)
            with open(root / name, "wb") as f:
                f.truncate(size)
        p = start({"type": "file", "root": str(root.parent)}, **kw)
        cli.to(p)
        return p
    return begin


def keys(direct, bucket):
    return sorted(o["Key"] for o in direct.list_objects_v2(Bucket=bucket).get("Contents", ()))


def names(n, prefix="p/"):
    return ["%ss3dlio-bench-%08d" % (prefix, i) for i in range(n)]


def quantiles_rise(q):
    return 0 < q["p50"] <= q["p90"] <= q["p99"] <= q["p999"] <= q["max"]


def listed(origin, *names):
    """The scriptable origin answers listings with these, of 1000 bytes each."""
    rows = "".join("<Contents><Key>%s</Key><Size>1000</Size></Contents>" % n for n in names)
    body = "<ListBucketResult><IsTruncated>false</IsTruncated>%s</ListBucketResult>" % rows
    origin.on(when=lambda r: "list-type=2" in r.query, status=200, body=body.encode())


# ---- what is measured

def test_get_puts_what_is_missing_and_measures_what_it_reads(moto, cli):
    p, direct, bucket = moto
    uri = "s3://%s/p" % bucket
    j = cli("bench", "get", uri, "-n", 12, "-s", "1KiB:300KiB", "-c", 4, "--ops", 60, "--verify", "--json").json()
    g = j["get"]
    assert keys(direct, bucket) == names(12) and j["prepared"] == 12 and not j["interrupted"] and "put" not in j
    assert g["operations"] == 60 and g["errors"] == g["wrong"] == g["retries"] == 0
    assert quantiles_rise(g["first_byte_ms"]) and quantiles_rise(g["total_ms"])
    assert g["first_byte_ms"]["p50"] <= g["total_ms"]["p50"]
    told = net.wait_until("all are counted", lambda: (c := p.stats()["requests"]["cache"])["hit"] + c["miss"] + c["partial"] >= 60 and c)
    assert (g["cache"]["HIT"], g["cache"]["MISS"]) == (told["hit"], told["miss"])
    assert 0 < g["cache"]["MISS"] < 60 and g["hit_ratio"] == pytest.approx(g["cache"]["HIT"] / 60)
    assert sum(s["operations"] for s in j["series"]["steps"]) == 60 and sum(s["bytes"] for s in j["series"]["steps"]) == g["bytes"]
    assert g["bytes_per_s"] == pytest.approx(g["bytes"] / j["seconds"])
    sizes = {o["Size"] for o in direct.list_objects_v2(Bucket=bucket)["Contents"]}
    assert len(sizes) > 6 and min(sizes) >= KIB and max(sizes) <= 300 * KIB, "sizes are spread"
    # again, with what is there: and that it was the cache is said
    ran = cli("bench", "get", uri, "-n", 12, "-s", "1KiB:300KiB", "-c", 4, "--ops", 60, "--verify").ok()
    assert ran.err == "" and "60 done, 0 failed, all bytes as they should be" in ran.out
    assert "came out of the cache" in ran.out and "hit ratio" in ran.out


def test_put_writes_and_mixed_does_both(moto, cli):
    p, direct, bucket = moto
    j = cli("bench", "put", "s3://" + bucket, "-n", 10, "-s", "70KB", "-c", 3, "--ops", 15, "--json").json()
    assert keys(direct, bucket) == names(10, "") and "get" not in j
    assert j["put"]["operations"] == 15 and j["put"]["bytes"] == 15 * 70000 and quantiles_rise(j["put"]["total_ms"])
    j = cli("bench", "mixed", "s3://" + bucket, "-n", 10, "-s", "70KB", "-c", 3, "--ops", 60, "--puts", 50, "--verify", "--json").json()
    assert j["prepared"] == 0 and j["get"]["operations"] + j["put"]["operations"] == 60
    assert j["get"]["operations"] > 5 and j["put"]["operations"] > 5 and j["get"]["errors"] == 0


def test_a_wrong_byte_is_found_and_named(moto, cli):
    p, direct, bucket = moto
    args = ("bench", "get", "s3://%s/p" % bucket, "-n", 4, "-s", "50KiB", "-c", 2, "--ops", 40, "--verify")
    cli(*args, "--json").json()
    body = bytearray(direct.get_object(Bucket=bucket, Key=names(4)[2])["Body"].read())
    body[49 * KIB] ^= 1
    direct.put_object(Bucket=bucket, Key=names(4)[2], Body=bytes(body))
    p.purge(all=True)
    ran = cli(*args).failed(cli_module.FAILED, "%s: wrong bytes" % names(4)[2])
    assert "WRONG" in ran.out and "wrong bytes\n" in ran.out and not any(n in ran.err for n in names(4)[:2])
    assert ran.err.count("wrong bytes") <= 5, "the first ones are shown, the rest is counted"
    ran = cli(*args, "--json").failed(cli_module.FAILED)
    g = json.loads(ran.out)["get"]
    assert g["wrong"] == g["errors"] == 40 - g["operations"] > 0


def test_ranges_are_read_at_random_and_checked(moto, cli):
    p, direct, bucket = moto
    j = cli("bench", "get", "s3://%s/p" % bucket, "-n", 3, "-s", "3MiB", "-c", 4, "--ops", 50, "--ranges", "--range-size", "10KiB",
            "--verify", "--json").json()
    assert j["get"]["operations"] == 50 and j["get"]["bytes"] == 50 * 10 * KIB and j["get"]["wrong"] == 0
    p.purge(all=True)
    j = cli("bench", "get", "s3://%s/p" % bucket, "-n", 3, "-s", "3MiB", "--ops", 3, "--ranges", "--range-size", "4MiB",
            "--verify", "--json").json()
    assert j["get"]["bytes"] == 9 << 20, "a range larger than the object is the object"


def test_what_is_there_is_read_and_nothing_written(files, cli):
    p = files({"d/x.bin": 5000, "d/y.bin": 0, "e": 70000})
    j = cli("bench", "get", "s3://b/d/", "--no-prepare", "--ops", 30, "--json").json()
    assert j["objects"] == 2 and j["get"]["operations"] == 30 and j["get"]["errors"] == 0 and j["object_bytes"] is None
    assert cli("bench", "get", "s3://b/", "--no-prepare", "-n", 1, "--ops", 3, "--json").json()["objects"] == 1
    cli("bench", "get", "s3://b/nothing", "--no-prepare").failed(cli_module.NOT_THERE, "no objects below s3://b/nothing")
    ran = cli("bench", "get", "s3://b/e", "--no-prepare", "--ops", 2, "--verify").failed(cli_module.FAILED, "s3://b/e: wrong bytes")
    assert p.stats()["requests"]["methods"]["PUT"] == 0 and ran.out


def test_past_the_cache_where_the_route_allows_it(files, cli):
    routes = [{"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]},
              {"path": "/free/", "origin": "o", "auth": "none", "cache": "main", "cache_header": "all"},
              {"path": "/", "origin": "o", "auth": "none", "cache": "main"}]
    p = files({"x": 1000}, server={"routes": routes})
    ran = cli("--retries", "0", "bench", "get", "s3://b/", "--no-prepare", "--ops", 5, "--bypass").failed(cli_module.FAILED)
    assert "0 done, 5 failed" in ran.out and "failed 5 times: 403" in ran.out
    os.rename(p.tmp.parent / "root" / "b", p.tmp.parent / "root" / "free")
    j = cli("bench", "get", "s3://free/", "--no-prepare", "--ops", 5, "--bypass", "--json").json()
    assert j["get"]["cache"]["BYPASS"] == 5 and j["get"]["hit_ratio"] is None and j["bypass"]


def test_answers_without_a_cache_are_told(cli, origin):
    """Straight to something that is no proxy of ours."""
    listed(origin, "k")
    origin.put("/b/k", 1000)
    cli.way.two = False
    ran = cli.to(origin.url)("bench", "get", "s3://b/", "--no-prepare", "--ops", 5).ok()
    assert "untold 5 (100.0%)" in ran.out and "did not come through a cache" in ran.out


# ---- what is left behind

def test_cleanup_removes_what_this_run_put_and_nothing_else(moto, cli):
    p, direct, bucket = moto
    uri = "s3://%s/p" % bucket
    cli("bench", "get", uri, "-n", 5, "-s", "1KiB", "--prepare").ok()
    direct.put_object(Bucket=bucket, Key="p/s3dlio-bench-mine", Body=b"x")
    direct.put_object(Bucket=bucket, Key="p/s3dlio-bench-00000009", Body=b"another size")
    before = keys(direct, bucket)
    for kind in ("get", "put", "mixed"):
        ran = cli("bench", kind, uri, "-n", 8, "-s", "1KiB", "--ops", 20, "--cleanup").ok()
        assert keys(direct, bucket) == before and "removed 3 objects" in ran.err, kind


@pytest.mark.ways("h1")
def test_preparing_alone(moto, cli):
    p, direct, bucket = moto
    uri = "s3://%s/p" % bucket
    assert "7 objects are there, 7 of them new" in cli("bench", "get", uri, "-n", 7, "-s", "1KiB", "--prepare").ok().out
    j = cli("bench", "get", uri, "-n", 9, "-s", "1KiB", "--prepare", "--json").json()
    assert j == {"objects": 9, "prepared": 2} and len(keys(direct, bucket)) == 9
    assert p.stats()["requests"]["methods"]["GET"] < 10, "no load"


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_prints_what_was_measured_and_cleans_up(moto, cli, sig):
    p, direct, bucket = moto
    run = cli.start("bench", "get", "s3://%s/p" % bucket, "-n", 6, "-s", "10KiB", "-c", 4, "-d", "1h", "--json", "--cleanup")
    net.wait_until("load", lambda: p.stats()["requests"]["cache"]["hit"] > 10)
    ran = run.interrupt(sig, timeout=20)
    assert ran.code == cli_module.INTERRUPTED, ran
    j = json.loads(ran.out)
    assert j["interrupted"] and j["get"]["operations"] > 10 and j["get"]["errors"] == 0 and 0 < j["seconds"] < 600
    assert keys(direct, bucket) == [] and "removed 6 objects" in ran.err


# ---- when it goes wrong

def test_a_duration_ends_whatever_is_under_way(files, cli, http, origin):
    listed(origin, "k")
    origin.on(path="/b/k", never=True)
    ran = cli.to(http())("bench", "get", "s3://b/", "--no-prepare", "-c", 2, "-d", "300ms", "--json")
    g = ran.json()["get"]
    assert g["operations"] == g["errors"] == 0, "what was cut off by the end is no failure"


def test_failures_are_counted_by_their_reasons(cli, http, origin):
    listed(origin, "k0", "k1")
    origin.put("/b/k0", 1000)
    ran = cli.to(http())("bench", "get", "s3://b/", "--no-prepare", "-c", 2, "--ops", 40).failed(cli_module.FAILED)
    assert "times: 404 NoSuchKey" in ran.out
    origin.put("/b/k1", 999)   # the listing says 1000
    ran = cli("bench", "get", "s3://b/", "--no-prepare", "-c", 2, "--ops", 40).failed(cli_module.FAILED)
    assert "another length than it should have" in ran.out and "s3://b/k1" in ran.err


@pytest.mark.ways("h1")
def test_it_gives_up_on_what_only_fails(cli, http, origin):
    listed(origin, "k")
    ran = cli.to(http())("bench", "get", "s3://b/", "--no-prepare", "-c", 8, "-d", "1h").failed(cli_module.FAILED, "given up after 2")
    assert "0 done" in ran.out


def test_a_bucket_that_is_not_there(moto, cli):
    for kind in ("get", "put"):
        cli("bench", kind, "s3://no-such-bucket-%s/p" % kind, "-n", 2, "-s", "1KiB", "--ops", 4).failed(
            cli_module.NOT_THERE if kind == "get" else cli_module.FAILED)


@pytest.mark.ways("h1")
@pytest.mark.parametrize("args, says", [
    (("get",), "too few"), (("head", "s3://b/"), "expected get, put or mixed"), (("get", "b/p"), "expected s3://BUCKET/PREFIX"),
    (("get", "s3://"), "expected s3://BUCKET/PREFIX"), (("get", "s3://b/", "--size", "2KiB:1KiB"), "--size 2KiB:1KiB"),
    (("get", "s3://b/", "-c", "0"), "--concurrency 0"), (("get", "s3://b/", "--ops", "1", "-d", "1s"), "exclude each other"),
    (("get", "s3://b/", "--range-size", "1KiB"), "is of --ranges"), (("put", "s3://b/", "--verify"), "are of get and mixed"),
    (("put", "s3://b/", "--no-prepare"), "is of get"), (("mixed", "s3://b/", "--no-prepare"), "is of get"),
    (("get", "s3://b/", "--puts", "10"), "is of mixed"), (("get", "s3://b/", "--no-prepare", "--cleanup"), "there is nothing"),
    (("get", "s3://b/", "--prepare", "--cleanup"), "not with --cleanup"), (("put", "s3://b/", "--prepare"), "of get and mixed"),
])
def test_wrong_usage_is_told(cli, args, says):
    cli.to("http://127.0.0.1:9")("bench", *args).failed(cli_module.USAGE, says)


# ---- beside it

def test_the_op_log_has_every_operation(moto, cli, tmp_path):
    p, direct, bucket = moto
    cli("--op-log", tmp_path / "log.tsv.zst", "bench", "mixed", "s3://%s/p" % bucket, "-n", 5, "-s", "20KiB", "-c", 4, "--ops", 30,
        "--cleanup").ok()
    rows = cli_module.oplog(tmp_path / "log.tsv.zst")
    ops = [r["op"] for r in rows]
    assert ops[0] == "LIST" and ops[1:6] == ["PUT"] * 5 and ops[-5:] == ["DELETE"] * 5 and len(rows) == 1 + 5 + 30 + 5
    for r in rows:
        assert r["error"] == "" and int(r["thread"]) < 4 and r["endpoint"].split("/")[2] == p.url.split("/")[2]
        assert r["file"].startswith("/%s/p/" % bucket) and r["start"] <= r["end"] and int(r["duration_ns"]) >= 0
        assert int(r["bytes"]) == (20 * KIB if r["op"] in ("GET", "PUT") else 0)
        assert r["op"] != "GET" or r["start"] < r["first_byte"] <= r["end"]


@pytest.mark.nosan
@pytest.mark.ways("h1")
def test_memory_does_not_follow_sizes_or_numbers(files, cli):
    files({"big%d" % i: 64 << 20 for i in range(4)}, cache={"memory": "300MiB"})
    limit = ("prlimit", "--as=%d" % (180 << 20))   # 16 of them under way would be a GiB
    j = cli("bench", "get", "s3://b/big", "--no-prepare", "-c", 16, "--ops", 16, "--json", prefix=limit, timeout=60).json()
    assert j["get"]["bytes"] == 1 << 30
    ran = cli("bench", "put", "s3://b/x", "-n", 100000000, "-s", "5GiB", "-c", 2, "-d", "100ms", prefix=limit)
    assert ran.code in (cli_module.OK, cli_module.FAILED) and "out of memory" not in ran.err, "two bits an object"


def test_progress_on_a_terminal(moto, cli):
    p, direct, bucket = moto
    t = cli.terminal("bench", "get", "s3://%s/p" % bucket, "-n", 5, "-s", "10KiB", "-c", 2, "-d", "900ms", columns=100)
    t.shows("bench get  ", "/s", timeout=20)
    t.shows("GET: ", "throughput", timeout=20)
    assert t.wait() == cli_module.OK
    assert "\rbench get" not in t.screen.text() and not any(line.startswith("bench get  ") for line in t.screen.text().split("\n"))
