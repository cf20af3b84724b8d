"""The PyTorch datasets of the Python package with PyTorch's own DataLoader, workers forked and spawned."""
import importlib.util
import json
import os
import subprocess
import sys

import net
import pytest
from conftest import CI
from pyserved import SOURCE, new_bucket, served, served_fast, served_moto, served_versitygw  # noqa: F401 - fixtures

from s3dlio_proxy import Client

pytestmark = pytest.mark.nosan
HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
ITEMS = 53
PROBE = "import sys, torch; sys.stdout.write('%d.%d' % sys.version_info[:2])"


@pytest.fixture(scope="session")
def torch_python(tmp_path_factory):
    """(interpreter, PYTHONPATH) that have torch: this one, or Debian's with its package python3-torch, which gets from
    here what the package needs newer than Debian has it."""
    if importlib.util.find_spec("torch"):
        return sys.executable, [SOURCE]
    try:
        r = subprocess.run(["/usr/bin/python3", "-c", PROBE], capture_output=True, text=True, timeout=60 * net.SLOW)
    except OSError as e:
        r = subprocess.CompletedProcess([], 1, "", str(e))
    if r.returncode or r.stdout != "%d.%d" % sys.version_info[:2]:
        if CI:
            pytest.fail("PyTorch is required in CI (Debian's python3-torch, or in this environment): %s%s" % (r.stdout, r.stderr))
        pytest.skip("no PyTorch")
    links = tmp_path_factory.mktemp("links")
    for name in ("requests", "urllib3", "certifi", "idna", "charset_normalizer"):
        os.symlink(os.path.dirname(importlib.util.find_spec(name).origin), links / name)
    return "/usr/bin/python3", [SOURCE, str(links)]


@pytest.fixture(scope="session")
def prefix(request):
    """ITEMS objects, number n with n bytes, and what is no item."""
    serving = request.getfixturevalue("served_versitygw" if os.environ.get("S3P_VERSITYGW") or CI else "served_moto")
    bucket = new_bucket(serving, "torch")
    c = Client(serving.url)
    for n in range(ITEMS):
        c.put("s3://%s/set/%03d" % (bucket, n), b"x" * n)
    c.put("s3://%s/other/1" % bucket, b"not in the set")
    return serving, "s3://%s/set/" % bucket


@pytest.fixture
def job(torch_python, prefix):
    def run(name, **given):
        serving, where = prefix
        python, path = torch_python
        env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        # The threshold: what is freed goes back to the system, so that memory is what is held, not what malloc keeps.
        env.update(PYTHONPATH=os.pathsep.join(path), OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo",
                   MALLOC_MMAP_THRESHOLD_="131072")
        given = {"url": serving.url, "prefix": where, **given}
        r = subprocess.run([python, os.path.join(HERE, "torch_jobs.py"), name, json.dumps(given)], env=env, text=True,
                           capture_output=True, timeout=100 * net.SLOW, stdin=subprocess.DEVNULL)
        assert r.returncode == 0, r.stderr[-5000:]
        assert "Traceback" not in r.stderr, r.stderr[-5000:]
        return json.loads(r.stdout.splitlines()[-1])
    return run


ALL = list(range(ITEMS))


def test_map_style_data_set(job, prefix):
    where = prefix[1]
    uris = [where + "%03d" % n for n in ALL]
    got = job("map_style")
    assert got["uris"] == uris and got["length"] == ITEMS and got["first"] == [uris[0], 0] and got["last"] == uris[-1]
    assert got["batch"] == [uris[3], uris[1], uris[2]] and got["none"] == []
    assert got["where"] == [u for u in uris if u.endswith("7")]
    assert set(got["loaded"]) == {"None 0", "fork 3", "spawn 2"}
    for pairs in got["loaded"].values():
        assert pairs == [[n, n] for n in ALL]
    assert got["collated"] == ["Sample", uris[:4], [0, 1, 2, 3]]
    seen = sum(got["shares"], [])
    assert len(seen) == len(set(seen)) == ITEMS - ITEMS % 3 and got["shares"][0] != sorted(got["shares"][0])
    assert got["pickled"] == [4, 4]


def test_every_item_comes_exactly_once_over_ranks_and_workers(job):
    got = job("exactly_once")
    assert len(got) == 10
    for what, shares in got.items():
        assert sorted(sum(shares, [])) == ALL, what
        sizes = sorted(len(s) for s in shares)
        assert sizes[-1] - sizes[0] <= 1, what
        if ", shuffled" in what:
            assert any(s != sorted(s) for s in shares), what
        elif what.split(",")[0] in ("None 0", "fork 1"):
            assert shares == [ALL], what


def test_the_order_depends_on_seed_and_epoch_alone(job):
    got = job("epochs")
    assert got["alone"] == got["order"]
    first, second, third, again = got["alone"]
    assert again == second and len({str(first), str(second), str(third), str(ALL), str(got["other seed"])}) == 5
    for epoch, kept in zip(got["alone"], got["kept"]):
        assert kept == {"fork": epoch, "spawn": epoch}, "workers take turns, and a kept one knows the epoch"


def test_ranks_of_uneven_shares(job):
    got = job("uneven")
    assert sorted(len(s) for s in got["False"]) == [7] * 3 + [8] * 4
    assert len(set(sum(got["False"], []))) == ITEMS
    assert [len(s) for s in got["True"]] == [7] * 7 and len(set(sum(got["True"], []))) == 49
    assert got["environment"][:2] == [1, 4] and len(got["environment"][2]) == 13


def test_ranks_of_a_process_group(job):
    one, two = job("distributed", port=net.free_port())
    assert (one[:3], two[:3]) == ([0, 0, 2], [1, 1, 2])
    assert sorted(one[3] + two[3]) == ALL and one[4] == two[4] == sum(ALL)


def test_errors_say_which_object(job, prefix):
    got = job("failures")
    for kind in ("S3MapDataset", "S3IterableDataset"):
        for workers in (0, 1):
            name, text = got["%s %d" % (kind, workers)]
            assert name == "NoSuchKeyError" and prefix[1] + "missing" in text
    for name in ("not a URI", "rank", "half", "prefetch", "where"):
        assert "expected" in got[name], got[name]


def test_loops_that_are_left_early(job):
    assert job("left_early") == "left"


def test_read_ahead_is_bounded_in_bytes(job, prefix):
    serving, where = prefix
    where = where.replace("/set/", "/big/")
    c = Client(serving.url)
    for n in range(40):
        c.put(where + str(n), bytes(8 * MIB))
    got = job("memory", prefix=where, objects=40, bytes_ahead=24 * MIB)
    assert got["count"] == 40 and got["total"] == 320 * MIB
    assert got["grown"] < 72 * MIB, "32 objects of 8 MiB would have been read ahead"


def test_no_more_than_prefetch_objects_are_read_ahead(job):
    assert job("read_ahead", prefetch=5) == [5, 6, 7]


def test_the_order_of_a_rank_is_its_workers_in_turn(job):
    """By single items it is the order itself; by batches it depends on how many workers there are and how large they are."""
    got = job("interleaved")
    order = got["order"]
    assert got["2 of 1"] == got["3 of None"] == order
    for name in ("2 of 4", "3 of 4"):
        workers = int(name[0])
        shares = [order[w::workers] for w in range(workers)]
        cut = [[s[i:i + 4] for i in range(0, len(s), 4)] for s in shares]
        turns = [batch for i in range(len(cut[0])) for c in cut for batch in c[i:i + 1]]
        assert got[name] == sum(turns, [])


def test_a_list_of_uris_is_small(job):
    got = job("uri_list")
    assert got["same"] and all(got["slice"]) and got["index error"]
    assert got["pickle bytes each"] < len("s3://bucket/some/prefix/00000000") + 9
    assert got["count"] == 200000 and got["last"] == "s3://bucket/some/prefix/00199999"
