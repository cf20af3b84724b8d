"""The file system s3dlio:// of the Python package: fsspec's own suites for implementations, and what they do not ask."""
import contextlib
import datetime
import gc
import gzip
import io
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
import warnings

import net
import pytest
from pyserved import (SOURCE, counted, each_served, new_bucket, served, served_fast, served_moto,  # noqa: F401 - fixtures
                      served_versitygw)
from test_python_processes import in_child

import fsspec
import fsspec.callbacks
import fsspec.tests.abstract as abstract
from s3dlio_proxy import Client, Credentials, Retry, errors
from s3dlio_proxy._dircache import Listings
from s3dlio_proxy._entries import check_below
from s3dlio_proxy.fsspec import S3dlioFileSystem

pytestmark = [pytest.mark.nosan, pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")]
MIB = 1 << 20


def make(served, **options):
    return S3dlioFileSystem(served.url, skip_instance_cache=True, **options)


def noise(n):
    return (os.urandom(4096) * (n // 4096 + 1))[:n]


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, served_fast):
        return make(served_fast)

    @pytest.fixture
    def fs_path(self, served_fast):
        return new_bucket(served_fast, "abstract")

    @pytest.fixture
    def supports_empty_directories(self):
        return False


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass


@pytest.fixture
def fs(each_served):
    return make(each_served)


@pytest.fixture
def root(each_served, request):
    return new_bucket(each_served, request.node.name)


@pytest.fixture
def direct(each_served):
    """boto3, past the proxy."""
    return each_served.backend.direct


TREE = {"a": b"1", "dir/b": b"22", "dir/c": b"333", "dir/sub/d": b"4444", "dir/sub/deep/e": b"55555", "dirt": b"666666"}


@pytest.fixture
def tree(fs, root):
    fs.pipe({root + "/" + k: v for k, v in TREE.items()})
    return root


# ---- what is there

def test_listing_walking_and_measuring(fs, tree):
    def below(*names):
        return [tree + "/" + n for n in names]
    for _ in range(2):   # from the server, and from the cache
        assert fs.ls(tree, detail=False) == below("a", "dir", "dirt")
        assert [(e["type"], e["size"]) for e in fs.ls(tree + "/dir")] == [("file", 2), ("file", 3), ("directory", 0)]
        assert fs.ls(tree + "/a", detail=False) == below("a")
        assert fs.find(tree) == below(*sorted(TREE))
        assert fs.find(tree + "/dir", maxdepth=1) == below("dir/b", "dir/c")
        assert fs.find(tree + "/dir", maxdepth=2, withdirs=True) == \
            below("dir", "dir/b", "dir/c", "dir/sub", "dir/sub/d", "dir/sub/deep")
        assert fs.find(tree + "/dirt") == below("dirt")
        assert list(fs.walk(tree)) == [
            (tree, ["dir"], ["a", "dirt"]), (tree + "/dir", ["sub"], ["b", "c"]), (tree + "/dir/sub", ["deep"], ["d"]),
            (tree + "/dir/sub/deep", [], ["e"])]
        assert fs.glob(tree + "/d*") == below("dir", "dirt")
        assert fs.glob(tree + "/dir/?") == below("dir/b", "dir/c")
        assert fs.glob(tree + "/d*/s*/d*") == below("dir/sub/d", "dir/sub/deep")
        assert fs.glob("s3dlio://" + tree + "/**/e") == below("dir/sub/deep/e")
        assert fs.glob(tree + "/nothing*") == []
        assert fs.du(tree) == 21 and fs.du(tree + "/dir", total=False)[tree + "/dir/c"] == 3
        assert fs.info(tree + "/dir/")["type"] == "directory" and fs.info("s3dlio://" + tree + "/a")["size"] == 1
        assert fs.isdir(tree) and fs.isdir(tree + "/dir") and not fs.isdir(tree + "/a") and not fs.isdir(tree + "/di")
        assert fs.isfile(tree + "/dir/b") and not fs.isfile(tree + "/dir") and not fs.exists(tree + "/dir/bb")
    assert tree in fs.ls("", detail=False) and fs.isdir("")
    assert fs.find(tree, prefix="dir/s") == below("dir/sub/d", "dir/sub/deep/e")
    assert fs.expand_path(tree + "/dir", recursive=True) == \
        below("dir", "dir/b", "dir/c", "dir/sub", "dir/sub/d", "dir/sub/deep", "dir/sub/deep/e")


def test_what_is_missing_is_a_file_not_found_error(fs, root, tmp_path):
    fs.pipe(root + "/a/b", b"x")
    for path in (root + "/none", root + "/a/none", root + "x", root + "x/y", root + "/a/b/c"):
        for ask in (fs.info, fs.ls, fs.cat, fs.open, fs.rm, fs.modified, lambda p: fs.get(p, str(tmp_path / "x"))):
            with pytest.raises(FileNotFoundError):
                ask(path)
        assert not fs.exists(path) and fs.find(path) == [] and os.listdir(tmp_path) == []
    for ask in (fs.cat_file, fs.open, fs.rm):
        with pytest.raises(IsADirectoryError):
            ask(root + "/a")


def test_an_unreachable_proxy_is_no_answer_about_existence(served):  # noqa: F811
    fs = S3dlioFileSystem("http://127.0.0.1:%d" % net.free_port(), client_options={"retries": 0}, skip_instance_cache=True)
    for ask in (fs.exists, fs.isdir, fs.isfile, fs.info, fs.ls, fs.find, fs.cat):
        with pytest.raises(ConnectionError):
            ask("bucket/key")


def test_more_than_a_page_is_listed_and_removed(served_fast):  # noqa: F811
    fs, bucket = make(served_fast, threads=8), new_bucket(served_fast, "pages")
    fs.pipe({"%s/p/%04d" % (bucket, i): b"" for i in range(1003)})
    fs.pipe(bucket + "/q", b"stays")
    assert len(fs.ls(bucket + "/p")) == len(fs.find(bucket)) - 1 == 1003
    assert fs.glob(bucket + "/p/10*") == ["%s/p/%04d" % (bucket, i) for i in range(1000, 1003)]
    fs.rm(bucket + "/p", recursive=True)
    assert fs.find(bucket) == [bucket + "/q"]


def test_listings_are_remembered_until_a_write_or_their_time(served_fast):  # noqa: F811
    fs, bucket = make(served_fast), new_bucket(served_fast, "remembered")
    fs.pipe({bucket + "/d/a": b"1", bucket + "/d/b": b"2"})
    assert len(fs.find(bucket)) == 2
    _, asked = counted(served_fast, lambda: [fs.ls(bucket + "/d"), fs.info(bucket + "/d/a"), fs.isdir(bucket + "/d"),
                                             list(fs.walk(bucket)), fs.glob(bucket + "/d/*")])
    assert asked == {}, "one listing of all told it already"
    other = make(served_fast)
    other.pipe(bucket + "/d/c", b"3")
    assert len(fs.ls(bucket + "/d")) == 2 and fs.exists(bucket + "/d/c"), "that a listing lacks it is not believed"
    assert len(fs.ls(bucket + "/d", refresh=True)) == 3
    for write in (lambda: fs.pipe(bucket + "/d/e", b"5"), lambda: fs.rm(bucket + "/d/e"),
                  lambda: fs.cp_file(bucket + "/d/a", bucket + "/d/f"), lambda: fs.mv(bucket + "/d/f", bucket + "/d/g/h"),
                  lambda: fs.touch(bucket + "/d/i"), lambda: fs.rm(bucket + "/d/g", recursive=True)):
        fs.find(bucket), fs.ls(bucket), fs.ls(bucket + "/d")
        write()
        assert fs.ls(bucket + "/d", detail=False) == fs.ls(bucket + "/d", detail=False, refresh=True)
        assert fs.find(bucket) == other.find(bucket, refresh=True)
    brief = make(served_fast, listings_expiry_time=0.2)
    before = brief.ls(bucket + "/d")
    other.pipe(bucket + "/d/z", b"9")
    net.wait_until("the listing to expire", lambda: len(brief.ls(bucket + "/d")) == len(before) + 1)
    never = make(served_fast, use_listings_cache=False)
    never.ls(bucket + "/d")
    other.rm(bucket + "/d/z")
    assert len(never.ls(bucket + "/d")) == len(before)


def test_the_cache_of_listings_is_bounded():
    cache = Listings(None, 10)
    for i in range(100):
        cache["d%d" % i] = [{"name": "d%d/%d" % (i, j), "type": "file"} for j in range(3)]
    assert list(cache) == ["d98", "d99"] and len(cache) == 2
    cache["d98"]   # used, so the other goes
    cache["e"] = [{"name": "e/f", "type": "file"}] * 2
    assert "d98" in cache and "d99" not in cache
    cache["big"] = [{"name": "big/%d" % j, "type": "file"} for j in range(100)]
    assert "big" not in cache and "e" in cache
    cache.clear()
    cache["f"] = []
    assert cache["f"] == [] and cache.entry("f", "f/x") is None


def test_markers_are_directories_and_odd_names_are_names(fs, root, direct, each_served):  # noqa: F811
    direct.put_object(Bucket=root, Key="marked/")
    assert fs.isdir(root + "/marked") and fs.ls(root + "/marked") == [] and fs.find(root) == []
    fs.rmdir(root + "/marked")
    assert not fs.exists(root + "/marked")
    odd = ["sp ace", "per%20cent", "plus+", "ünï ☃", "hash#", "quo'\"te", "a&b=c;d", "tilde~", "co:lon,"]
    fs.pipe({root + "/odd/" + n: n.encode() for n in odd})
    assert fs.ls(root + "/odd", detail=False) == sorted(root + "/odd/" + n for n in odd)
    for n in odd:
        assert fs.cat(root + "/odd/" + n) == n.encode() and fs.info(root + "/odd/" + n, refresh=True)["size"] == len(n.encode())
    if each_served.backend.name == "moto":   # versitygw takes the encoded name of a copy's source for the name itself
        fs.copy(root + "/odd", root + "/odd2", recursive=True)
        assert len(fs.find(root + "/odd2")) == len(odd)
        fs.rm(root + "/odd2", recursive=True)
    fs.rm(root + "/odd", recursive=True)
    assert fs.ls(root) == []
    if each_served.backend.name == "moto":   # what no file system below can hold
        fs.pipe({root + "/e//x": b"1", root + "/same": b"2", root + "/same/below": b"3"})
        assert fs.cat(root + "/e//x") == b"1" and root + "/e//x" in fs.find(root)
        assert [f for _, _, f in fs.walk(root + "/e")] == [[]] and fs.ls(root + "/e") == []
        assert fs.isfile(root + "/same") and fs.ls(root + "/same", detail=False) == [root + "/same/below"]
        assert fs.cat(root + "/same") == b"2"
        fs.rm(root + "/e", recursive=True)
        assert not fs.exists(root + "/e//x")


def test_versions_are_told_apart_and_dated(fs, root):
    path = root + "/k"
    fs.pipe(path, b"one")
    first = fs.checksum(path), fs.ukey(path)
    assert (fs.checksum(path), fs.ukey(path)) == first
    age = datetime.datetime.now(datetime.timezone.utc) - fs.modified(path)
    assert abs(age) < datetime.timedelta(minutes=10) and fs.created(path) == fs.modified(path)
    fs.pipe(path, b"two")
    assert fs.checksum(path) != first[0] and fs.ukey(path) != first[1]
    with pytest.raises(IsADirectoryError):
        fs.modified(root)


# ---- reading

def test_ranges_of_an_object(fs, root):
    data = bytes(range(256)) * 20
    path = root + "/k"
    fs.pipe({path: data, root + "/empty": b""})
    for start, end in ((None, None), (0, 10), (100, 200), (5, None), (None, 7), (-10, None), (-10, -3), (None, -5000), (3, 3),
                       (9, 5), (5000, 9000), (6000, 7000), (None, -1), (5, -5), (-9999, 4)):
        assert fs.cat_file(path, start, end) == data[start:end], (start, end)
    assert fs.cat_file(root + "/empty") == fs.cat_file(root + "/empty", 0, 5) == b""
    assert fs.head(path, 9) == data[:9] and fs.tail(path, 9) == data[-9:]
    assert fs.read_block(path, 250, 10) == data[250:260]


def test_many_ranges_at_once(served_fast):  # noqa: F811
    fs, bucket = make(served_fast), new_bucket(served_fast, "ranges")
    data = {bucket + "/%d" % i: noise(10000) for i in range(3)}
    fs.pipe(data)
    paths = [p for p in data for _ in range(5)]
    starts, ends = [0, 50, 2000, 120, -10] * 3, [50, 100, 3000, 130, None] * 3
    want = [data[p][s:e] for p, s, e in zip(paths, starts, ends)]
    assert fs.cat_ranges(paths, starts, ends) == want
    got, asked = counted(served_fast, lambda: fs.cat_ranges(paths, starts, ends, max_gap=20))
    assert got == want and asked == {"GET": 9}, "0-100 and 120-130 are near enough to be one"
    found = fs.cat_ranges([bucket + "/0", bucket + "/none"], 0, 5)
    assert found[0] == data[bucket + "/0"][:5] and isinstance(found[1], FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([bucket + "/0", bucket + "/none"], 0, 5, on_error="raise")
    assert fs.cat(bucket + "/*") == data == fs.cat(bucket, recursive=True) == fs.cat(list(data))
    assert set(fs.cat([bucket + "/0", bucket + "/none"], on_error="omit")) == {bucket + "/0"}
    with pytest.raises(ValueError):
        fs.cat_ranges(paths, [0], ends)


def test_a_file_is_read_in_any_order(fs, root):
    data = b"".join(b"line %d\n" % i for i in range(200000))
    path = root + "/lines"
    fs.pipe(path, data)
    for cache_type in ("readahead", "none", "bytes", "blockcache", "all"):
        with fs.open(path, cache_type=cache_type) as f:
            assert f.read(10) == data[:10] and f.tell() == 10 and f.size == len(data)
            assert f.seek(-20, 2) == len(data) - 20 and f.read() == data[-20:] and f.read(1) == b""
            assert f.seek(1000000) == 1000000 and f.readline() == data[1000000:].split(b"\n")[0] + b"\n"
            f.seek(5)
            buffer = bytearray(3000)
            assert f.readinto(buffer) == 3000 and buffer == data[5:3005]
            assert not f.writable() and f.readable() and f.seekable()
    with fs.open(path, "r", encoding="ascii") as f:
        assert sum(1 for _ in f) == 200000
    with fs.open(path) as f, pytest.raises(io.UnsupportedOperation):
        f.write(b"x")


def test_reading_a_file_from_end_to_end_is_few_requests(served_fast):  # noqa: F811
    fs, bucket = make(served_fast), new_bucket(served_fast, "sequential")
    data = noise(24 * MIB + 5)
    fs.pipe(bucket + "/k", data)

    def read():
        with fs.open(bucket + "/k") as f:
            return b"".join(iter(lambda: f.read(100000), b""))
    got, asked = counted(served_fast, read)
    assert got == data and asked["GET"] < 12 and asked["HEAD"] == 1


def test_an_object_that_changes_under_a_reader_is_an_error(fs, root, each_served):  # noqa: F811
    path = root + "/k"
    fs.pipe(path, noise(3 * MIB))
    with fs.open(path) as f:
        f.read(10)
        kept = pickle.dumps(f)
        make(each_served).pipe(path, noise(3 * MIB))
        f.seek(2 * MIB)
        with pytest.raises(errors.ObjectChangedError):
            f.read(10)
    with pytest.raises(errors.ObjectChangedError):
        pickle.loads(kept)
    fs.ls(root)
    make(each_served).pipe(path, b"short")   # what a listing said is not what is opened
    assert fs.open(path).read() == b"short"


# ---- writing

def test_small_and_large_writes(fs, root, direct):
    for n in (0, 1, 5 * MIB, 5 * MIB + 1, 17 * MIB):
        data, path = noise(n), root + "/w%d" % n
        with fs.open(path, "wb", block_size=5 * MIB, content_type="x/y", metadata={"of": "test"}) as f:
            for at in range(0, len(data), 700001):
                assert f.write(memoryview(data)[at:at + 700001]) == len(data[at:at + 700001])
                f.flush()
            assert f.tell() == len(data) and not f.readable() and not f.seekable()
            assert not fs.exists(path)
        assert direct.get_object(Bucket=root, Key="w%d" % n)["Body"].read() == data
        told = fs.info(path, refresh=True)
        assert (told["size"], told["ContentType"], told["metadata"]) == (len(data), "x/y", {"of": "test"})
    assert direct.head_object(Bucket=root, Key="w%d" % (17 * MIB))["ETag"].endswith('-4"')
    for mode in ("r+b", "w+b", "ab+"):
        with pytest.raises((NotImplementedError, ValueError)):
            fs.open(root + "/w1", mode)


def test_appending(fs, root, direct):
    path = root + "/log"
    want = b""
    for more in (b"first ", noise(100000), noise(6 * MIB), b"after a large one ", noise(11 * MIB), b"", b"last"):
        with fs.open(path, "ab", block_size=5 * MIB) as f:
            assert f.tell() == len(want)
            f.write(more)
        want += more
        assert fs.cat(path) == want
    direct.put_object(Bucket=root, Key="typed", Body=b"x" * (6 * MIB), ContentType="a/b", Metadata={"k": "v"})
    with fs.open(root + "/typed", "ab") as f:
        f.write(b"y")
    told = fs.info(root + "/typed", refresh=True)
    assert (told["size"], told["ContentType"], told["metadata"]) == (6 * MIB + 1, "a/b", {"k": "v"})


def uploads(direct, bucket):
    return direct.list_multipart_uploads(Bucket=bucket).get("Uploads", [])


@pytest.mark.parametrize("mode", ["wb", "w", "gzip", "ab", "text gzip"])
def test_an_exception_leaves_nothing(fs, root, direct, mode):
    fs.pipe(root + "/there", b"before")
    for path in (root + "/new", root + "/there"):
        options = {"compression": "gzip"} if "gzip" in mode else {}
        text = mode in ("w", "text gzip")
        with pytest.raises(ZeroDivisionError), \
                fs.open(path, {"gzip": "wb", "text gzip": "w"}.get(mode, mode), block_size=5 * MIB, **options) as f:
            for _ in range(7):
                f.write(os.urandom(MIB).hex() if text else os.urandom(MIB))
            1 / 0
        assert f.closed
    assert not fs.exists(root + "/new") and fs.cat(root + "/there") == b"before" and uploads(direct, root) == []


def test_a_forgotten_writer_makes_nothing_and_says_so(fs, root, direct):
    f = fs.open(root + "/k", "wb", block_size=5 * MIB)
    f.write(noise(6 * MIB))
    with pytest.warns(ResourceWarning, match="not closed: nothing was written"):
        del f
    assert fs.find(root, refresh=True) == [] and uploads(direct, root) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f = fs.open(root + "/k", "wb")
        f.write(b"x")
        f.discard()
        del f
    with pytest.raises(TypeError):
        pickle.dumps(fs.open(root + "/l", "xb"))


WRAPPED = {"text": ("w", None), "gzip": ("wb", "gzip"), "text gzip": ("w", "gzip")}


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("cycle", [False, True])
def test_a_forgotten_text_or_compressed_writer_makes_nothing_and_says_so(fs, root, direct, kind, cycle):
    mode, compression = WRAPPED[kind]
    for n in (10, 6 * MIB):   # held, and a part that has been sent
        f = fs.open(root + "/k", mode, block_size=5 * MIB, compression=compression)
        f.write(noise(n).hex() if mode == "w" else noise(n))
        if cycle:   # then the collector decides who is first
            loop = [f]
            loop.append(loop)
            del loop
        with pytest.warns(ResourceWarning, match="not closed: nothing was written"):
            del f
            gc.collect()
        assert fs.find(root, refresh=True) == [] and uploads(direct, root) == []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with fs.open(root + "/k", mode, compression=compression) as f:
            f.write("x" if mode == "w" else b"x")
        del f
        with pytest.raises(LookupError):
            fs.open(root + "/l", "w", compression=compression, encoding="none such").write("x")
    assert fs.find(root, refresh=True) == [root + "/k"]


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_writer_that_a_transaction_has_is_made_at_its_end_though_dropped(fs, root, kind):
    mode, compression = WRAPPED[kind]
    data = "x" * 100 if mode == "w" else b"x" * 100
    with fs.transaction:
        fs.open(root + "/dropped", mode, compression=compression).write(data)
        with fs.open(root + "/closed", mode, compression=compression) as f:
            f.write(data)
        del f
        gc.collect()
        assert fs.find(root, refresh=True) == []
    for name in ("dropped", "closed"):
        with fs.open(root + "/" + name, mode.replace("w", "r"), compression=compression) as f:
            assert f.read() == data
    with pytest.raises(ZeroDivisionError), fs.transaction:
        fs.open(root + "/never", mode, compression=compression).write(data)
        1 / 0
    gc.collect()
    assert not fs.exists(root + "/never", refresh=True)


def test_a_part_that_fails_ends_the_writer(fs, root, direct):
    with pytest.raises(errors.Error), fs.open(root + "/k", "wb", block_size=5 * MIB) as f:
        f.write(noise(6 * MIB))
        upload = uploads(direct, root)[0]["UploadId"]
        net.wait_until("a part to be there", lambda: direct.list_parts(Bucket=root, Key="k", UploadId=upload).get("Parts"))
        direct.abort_multipart_upload(Bucket=root, Key="k", UploadId=upload)
        for _ in range(20):
            f.write(noise(6 * MIB))
    assert f.closed and not fs.exists(root + "/k") and uploads(direct, root) == []
    f.close()
    assert not fs.exists(root + "/k")


def test_exclusive_creation(fs, root):
    with fs.open(root + "/new", "xb") as f:
        f.write(b"mine")
    with pytest.raises(FileExistsError):
        fs.open(root + "/new", "xb")
    for n in (3, 6 * MIB):
        with pytest.raises(FileExistsError), fs.open(root + "/race%d" % n, "xb", block_size=5 * MIB) as f:
            f.write(noise(n))
            fs.pipe(root + "/race%d" % n, b"theirs")
        assert fs.cat(root + "/race%d" % n) == b"theirs"
    with pytest.raises(FileExistsError):
        fs.put_file(__file__, root + "/new", mode="create")
    fs.put_file(__file__, root + "/newer", mode="create")


def test_text_and_compression(fs, root):
    with fs.open(root + "/t.txt.gz", "w", compression="infer", encoding="utf-8", newline="\n") as f:
        f.write("grüß\n" * 1000)
    assert gzip.decompress(fs.cat(root + "/t.txt.gz")).decode() == "grüß\n" * 1000
    with fs.open(root + "/t.txt.gz", "r", compression="infer", encoding="utf-8") as f:
        assert f.readlines() == ["grüß\n"] * 1000
    with fs.open(root + "/t", "w") as f:
        print("plain", file=f)
    assert fs.cat(root + "/t") == b"plain\n"
    fs.write_text(root + "/u", "x")
    assert fs.read_text(root + "/u") == "x"


def test_transactions(fs, root, direct):
    big = noise(12 * MIB)
    with fs.transaction:
        with fs.open(root + "/t/a", "wb") as f:
            f.write(b"a")
        with fs.open(root + "/t/big", "wb", block_size=5 * MIB) as f:
            f.write(big)
        with fs.open(root + "/t/text", "w") as f:
            f.write("text")
        fs.pipe(root + "/t/piped", b"p" * (2 * MIB))
        fs.put_file(__file__, root + "/t/put")
        assert fs.find(root, refresh=True) == []
    assert fs.ls(root + "/t", detail=False) == [root + "/t/" + n for n in ("a", "big", "piped", "put", "text")]
    assert fs.cat(root + "/t/big") == big and fs.cat(root + "/t/text") == b"text"
    with pytest.raises(ZeroDivisionError), fs.transaction:
        with fs.open(root + "/u/a", "wb") as f:
            f.write(b"a")
        with fs.open(root + "/u/big", "wb", block_size=5 * MIB) as f:
            f.write(big)
        1 / 0
    assert not fs.exists(root + "/u") and uploads(direct, root) == []
    with fs.open(root + "/after", "wb") as f:
        f.write(b"now")
    assert fs.cat(root + "/after") == b"now"
    with fs.transaction:
        with pytest.raises(ZeroDivisionError), fs.open(root + "/v", "wb") as f:
            f.write(b"a")
            1 / 0
    assert not fs.exists(root + "/v")


def test_files_and_trees_go_there_and_back(fs, root, tmp_path):
    there, back = tmp_path / "there", tmp_path / "back"
    files = {"a.json": b"{}", "d/b.bin": noise(100000), "d/e/c": noise(18 * MIB), "empty": b""}
    for name, data in files.items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(data)

    class Watch(fsspec.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.children = {}

        def branched(self, one, two, **kw):
            self.children[os.path.basename(str(one))] = child = fsspec.callbacks.Callback()
            return child
    up, down = Watch(), Watch()
    fs.put(str(there) + "/", root + "/t", recursive=True, callback=up)
    assert {p[len(root) + 3:] for p in fs.find(root + "/t")} == set(files)
    assert fs.info(root + "/t/a.json", refresh=True)["ContentType"] == "application/json"
    fs.get(root + "/t/", str(back), recursive=True, callback=down)
    assert {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()} == files
    for watch in (up, down):
        assert watch.size == watch.value >= len(files)
        assert (watch.children["c"].size, watch.children["c"].value) == (18 * MIB, 18 * MIB)
    out = io.BytesIO()
    fs.get_file(root + "/t/d/e/c", out)
    assert out.getvalue() == files["d/e/c"]
    fs.get([root + "/t/a.json", root + "/t/empty"], [str(tmp_path / "1"), str(tmp_path / "2")])
    assert (tmp_path / "1").read_bytes() == b"{}"
    with pytest.raises(FileNotFoundError):
        fs.get([root + "/t/a.json", root + "/t/none"], [str(tmp_path / "3"), str(tmp_path / "4")])
    assert not (tmp_path / "4").exists()
    mapper = fs.get_mapper(root + "/map")
    mapper["x/y"] = b"z"
    assert dict(mapper) == {"x/y": b"z"} and "x/n" not in mapper
    del mapper["x/y"]
    assert list(mapper) == []


def test_copies_are_made_by_the_store(fs, root, direct, each_served):  # noqa: F811
    data = noise(17 * MIB)
    direct.put_object(Bucket=root, Key="k", Body=data, ContentType="a/b", Metadata={"m": "n"})
    other = new_bucket(each_served, "copy-target")
    sent = each_served.proxy.stats()["bytes"]["sent"]
    fs.cp_file(root + "/k", other + "/plain")
    fs.copy_limit, fs.copy_part = MIB, 5 * MIB   # as if it were more than 5 GiB
    fs.cp_file(root + "/k", other + "/in parts")
    assert each_served.proxy.stats()["bytes"]["sent"] - sent < MIB
    for name in ("plain", "in parts"):
        told = fs.info(other + "/" + name, refresh=True)
        assert (told["size"], told["ContentType"], told["metadata"]) == (len(data), "a/b", {"m": "n"})
        assert fs.cat(other + "/" + name) == data
    assert direct.head_object(Bucket=other, Key="in parts")["ETag"].endswith('-3"')
    with pytest.raises(shutil.SameFileError):
        fs.cp_file(root + "/k", root + "/k")
    with pytest.raises(FileNotFoundError):
        fs.cp_file(root + "/none", root + "/x")
    with pytest.raises(FileNotFoundError):
        fs.copy(root + "/none", root + "/x")


def test_moving(fs, tree):
    fs.mv(tree + "/a", tree + "/moved")
    assert not fs.exists(tree + "/a") and fs.cat(tree + "/moved") == b"1"
    fs.mv(tree + "/dir", tree + "/new", recursive=True)
    assert not fs.exists(tree + "/dir") and fs.cat(tree + "/new/sub/deep/e") == b"55555"
    with pytest.raises(FileNotFoundError):
        fs.mv(tree + "/none", tree + "/moved")
    assert fs.cat(tree + "/moved") == b"1"
    fs.rename(tree + "/moved", tree + "/moved")
    assert fs.exists(tree + "/moved")


def test_removing(fs, tree):
    with pytest.raises(IsADirectoryError):
        fs.rm([tree + "/a", tree + "/dir"])
    with pytest.raises(FileNotFoundError):
        fs.rm([tree + "/a", tree + "/none"])
    assert fs.exists(tree + "/a"), "nothing is removed when not all can be"
    fs.rm([tree + "/a", tree + "/dirt"])
    fs.rm(tree + "/dir", recursive=True, maxdepth=1)
    assert fs.find(tree) == [tree + "/dir/sub/d", tree + "/dir/sub/deep/e"]
    fs.rm([tree + "/dir", tree + "/dir/sub"], recursive=True)
    assert fs.find(tree) == []
    fs.pipe(tree + "/x/y", b"")
    fs.rm(tree, recursive=True)
    assert not fs.exists(tree)


def test_buckets(fs, root):
    new = root[:50] + "-new"
    with pytest.raises(FileExistsError):
        fs.mkdir(root)
    fs.makedirs(root, exist_ok=True)
    fs.mkdir(root + "/anything")
    with pytest.raises(FileNotFoundError):
        fs.mkdir(new + "/x", create_parents=False)
    fs.mkdir(new + "/x")
    assert fs.isdir(new) and new in fs.ls("", detail=False) and fs.ls(new) == []
    fs.touch(new + "/k")
    with pytest.raises(OSError, match="not empty"):
        fs.rmdir(new)
    with pytest.raises(NotADirectoryError):
        fs.rmdir(new + "/k")
    with pytest.raises(NotImplementedError):
        fs.touch(new + "/k", truncate=False)
    fs.rm(new + "/k")
    fs.rmdir(new)
    assert not fs.exists(new)
    with pytest.raises(FileNotFoundError):
        fs.rmdir(new)
    with pytest.raises(errors.NoSuchBucketError):
        fs.pipe(new + "/k", b"x")


# ---- processes, threads, instances

def child_reads(fs, file, path, queue):
    try:
        queue.put((fs.cat(path), file.read(7), sorted(fs.cat([path, path + "2"]).values())))
    except BaseException as e:
        queue.put(repr(e))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(served_fast, method):  # noqa: F811
    fs, bucket = make(served_fast), new_bucket(served_fast, "workers")
    path, data = bucket + "/k", noise(MIB)
    fs.pipe({path: data, path + "2": b"2"})
    fs.cat([path, path + "2"])   # the pool and connections are there
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            fs.cat([path, path + "2"]), fs.ls(bucket, refresh=True)
    threads = [threading.Thread(target=busy) for _ in range(3)]
    for t in threads:
        t.start()
    try:
        file = fs.open(path)
        assert file.read(100) == data[:100]
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        for _ in range(4 if method == "fork" else 1):
            worker = context.Process(target=child_reads, args=(fs, file, path, queue))
            worker.start()
            assert queue.get(timeout=60 * net.SLOW) == (data, data[100:107], sorted([data, b"2"]))
            worker.join(30 * net.SLOW)
            assert worker.exitcode == 0
        file.seek(MIB - 10)
        assert file.read() == data[-10:]
    finally:
        stop.set()
        for t in threads:
            t.join()


@pytest.mark.parametrize("kind", ["binary", "small", "transaction", *WRAPPED])
def test_a_forked_child_leaves_the_parents_writer_alone(fs, root, direct, kind):
    """Whatever it does with it: the upload goes on in the parent, and the object is what that wrote."""
    mode, compression = WRAPPED.get(kind, ("wb", None))
    data = (noise(100) if kind == "small" else noise(6 * MIB))
    data = data.hex() if mode == "w" else data

    def child_with(f):
        def child(do):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                do()
                return f.closed
        return child
    more = data[:50]
    stack = contextlib.ExitStack()
    with stack:
        if kind == "transaction":
            stack.enter_context(fs.transaction)
        f = fs.open(root + "/k", mode, block_size=5 * MIB, compression=compression)
        f.write(data)
        child = child_with(f)
        assert in_child(lambda: child(f.close)) == 0
        assert in_child(lambda: child(f.discard)) == 0
        assert in_child(lambda: child(lambda: f.__exit__(ValueError, ValueError(), None))) == 0
        if kind == "transaction":
            assert in_child(lambda: child(lambda: fs.transaction.complete(True))) == 0
        if mode == "wb" and not compression:
            def write():
                with pytest.raises(RuntimeError, match="before the fork"):
                    f.write(more)
            assert in_child(lambda: child(lambda: (write(), f.close()))) == 0
        assert not fs.exists(root + "/k", refresh=True) and not f.closed
        f.write(more)
        f.close()
    with fs.open(root + "/k", mode.replace("w", "r"), compression=compression) as f:
        assert f.read() == data + more
    assert uploads(direct, root) == []


def test_instances_share_a_client_and_travel(served):  # noqa: F811
    options = {"endpoint_url": served.url, "key": "AK", "secret": "SK", "client_options": {"retries": 1}}
    one = fsspec.filesystem("s3dlio", **options)
    assert one is fsspec.filesystem("s3dlio", **options) and isinstance(one, S3dlioFileSystem)
    found = []
    t = threading.Thread(target=lambda: found.append(fsspec.filesystem("s3dlio", **options)))
    t.start()
    t.join()
    assert found[0].client is one.client and one.fsid == found[0].fsid
    assert fsspec.filesystem("s3dlio", **{**options, "secret": "other"}).client is not one.client
    again = pickle.loads(pickle.dumps(one))
    assert again == one and "SK" not in repr(one) + repr(one.client)
    assert json.loads(one.to_json())["protocol"] == "s3dlio"
    mine = Client(served.url)
    assert S3dlioFileSystem(client=mine, skip_instance_cache=True).client is mine
    for wrong, error in (({"threads": 0}, ValueError), ({"key": "k"}, ValueError), ({"end_point": "x"}, TypeError)):
        with pytest.raises(error):
            S3dlioFileSystem(served.url, skip_instance_cache=True, **wrong)


def test_instances_with_other_secrets_or_clients_are_others(served):  # noqa: F811
    """What their repr does not show tells them apart."""
    def with_secret(secret, token=None):
        return {"endpoint_url": served.url, "credentials": Credentials("AK", secret, token)}
    options = [with_secret("one"), with_secret("two"), with_secret("two", "token"),
               {"client": Client(served.url)}, {"client": Client(served.url, headers={"x": "y"})},
               {"client": Client(served.url, retries=Retry(attempts=2))}]
    made = [fsspec.filesystem("s3dlio", **o) for o in options]
    for i, fs in enumerate(made):
        assert fs.client is options[i].get("client", fs.client)
        assert fs.client._settings["credentials"] == options[i].get("credentials")
        again, travelled = fsspec.filesystem("s3dlio", **options[i]), pickle.loads(pickle.dumps(fs))
        assert again == fs == travelled and hash(again) == hash(fs) and travelled.client._settings == fs.client._settings
        for other in made[:i]:
            assert fs is not other and fs != other and hash(fs) != hash(other)


def test_requests_are_signed_with_the_options_credentials(served):  # noqa: F811
    """To the S3 server itself, which asks for a signature."""
    bucket = new_bucket(served, "signed")
    import servers
    straight = S3dlioFileSystem(served.backend.url, key=servers.ACCESS, secret=servers.SECRET, region=servers.REGION,
                                skip_instance_cache=True)
    straight.pipe(bucket + "/k", b"v")
    assert make(served).cat(bucket + "/k") == b"v"


def test_the_entry_point_makes_urls_work(served, tmp_path):  # noqa: F811
    """What pyproject.toml tells fsspec is put where an installation would put it."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        pytest.skip("no tomllib")
    with open(os.path.join(SOURCE, "..", "pyproject.toml"), "rb") as f:
        points = tomllib.load(f)["project"]["entry-points"]
    info = tmp_path / "site" / "s3dlio_proxy-0.0.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: s3dlio-proxy\nVersion: 0.0.0\n")
    (info / "entry_points.txt").write_text("".join(
        "[%s]\n%s\n" % (group, "\n".join("%s = %s" % kv for kv in names.items())) for group, names in points.items()))
    bucket = new_bucket(served, "entry")
    code = ("import fsspec, sys\n"
            "url = sys.argv[1]\n"
            "with fsspec.open(url, 'wb') as f: f.write(b'through a URL')\n"
            "assert fsspec.open(url).open().read() == b'through a URL'\n"
            "fs, path = fsspec.url_to_fs(url)\n"
            "print(type(fs).__name__, path, fs.unstrip_protocol(path))\n")
    url = "s3dlio://%s/a/b.txt" % bucket
    r = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, timeout=60 * net.SLOW, env={
        **os.environ, "S3DLIO_PROXY_URL": served.url, "PYTHONPATH": os.pathsep.join([SOURCE, str(tmp_path / "site")])})
    assert r.returncode == 0, r.stderr
    assert r.stdout.split() == ["S3dlioFileSystem", bucket + "/a/b.txt", url]


# ---- trees: what goes where, in which order, and what may be missing

def test_a_tree_goes_whole_into_a_bucket_that_it_makes(fs, tree, tmp_path, monkeypatch):
    """The bucket is slow to come: no file may be asked for before it is there."""
    for name, data in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    make_bucket = fs.client.create_bucket

    def slowly(bucket):
        time.sleep(0.3)
        make_bucket(bucket)
    monkeypatch.setattr(fs.client, "create_bucket", slowly)
    for n, fill in enumerate((lambda to: fs.copy(tree, to, recursive=True), lambda to: fs.mv(tree, to, recursive=True),
                              lambda to: fs.put(str(tmp_path), to, recursive=True))):
        new = "%s-%d" % (tree[:50], n)
        fill(new)
        assert {p[len(new) + 1:]: fs.cat(p) for p in fs.find(new, refresh=True)} == TREE


def losing(monkeypatch, fs, direct, bucket, key):
    """Another client deletes the object when it has been listed and not been copied yet."""
    plan = S3dlioFileSystem._planned

    def planned(self, *arguments):
        pairs = plan(self, *arguments)
        direct.delete_object(Bucket=bucket, Key=key)
        return pairs
    monkeypatch.setattr(S3dlioFileSystem, "_planned", planned)


def test_a_copy_of_a_tree_passes_over_what_is_gone_and_nothing_else(fs, tree, direct, monkeypatch):
    losing(monkeypatch, fs, direct, tree, "dir/b")
    fs.copy(tree + "/dir", tree + "/again", recursive=True)
    assert [p[len(tree) + 7:] for p in fs.find(tree + "/again")] == ["c", "sub/d", "sub/deep/e"]
    nowhere = tree[:50] + "-none"
    monkeypatch.setattr(S3dlioFileSystem, "makedirs", lambda *a, **kw: None)   # the bucket is not made, or removed again
    with pytest.raises(FileNotFoundError):
        fs.copy(tree + "/again", nowhere + "/x", recursive=True)
    assert fs.exists(tree + "/again/c")


def test_errors_of_a_copy_are_raised_by_either_spelling(fs, tree, direct, monkeypatch):
    """mv() of older releases says onerror="raise", and removes the source afterwards."""
    losing(monkeypatch, fs, direct, tree, "dir/b")
    for how in ({"on_error": "raise"}, {"onerror": "raise"}):
        fs.pipe(tree + "/dir/b", b"22")
        with pytest.raises(FileNotFoundError):
            fs.copy(tree + "/dir", tree + "/again", recursive=True, **how)


def test_keys_that_lead_out_of_the_target_are_refused(served, tmp_path, monkeypatch):  # noqa: F811
    """Also with a release of fsspec that does not look."""
    if hasattr(fsspec.spec, "check_contained"):
        monkeypatch.setattr(fsspec.spec, "check_contained", lambda *a: None)
    fs, bucket = make(served), new_bucket(served, "leads-out")
    fs.pipe(bucket + "/t/a", b"a")
    target = tmp_path / "in" / "it"
    target.mkdir(parents=True)
    check_below(str(target), [str(target), str(target) + "/b/../c"])   # these stay
    fs.pipe(bucket + "/t/../../out", b"out")
    for lpath in (str(target) + "/", target):
        with pytest.raises(ValueError, match="stay below"):
            fs.get(bucket + "/t/", lpath, recursive=True)
    assert os.listdir(tmp_path) == ["in"] and os.listdir(tmp_path / "in") == ["it"] and os.listdir(target) == []
    os.symlink(tmp_path / "in", tmp_path / "elsewhere")   # the user's own links are theirs to make
    fs.get(bucket + "/t/a", str(tmp_path / "elsewhere" / "a"))
    assert (tmp_path / "in" / "a").read_bytes() == b"a"


def test_what_is_told_of_an_object_holds_in_a_transaction_too(fs, root, tmp_path):
    (tmp_path / "x.json").write_bytes(b"{}")
    options = {"metadata": {"of": "test"}, "headers": {"Cache-Control": "no-cache"}}
    with fs.transaction:
        fs.pipe_file(root + "/piped", b"p", content_type="x/y", **options)
        fs.put_file(str(tmp_path / "x.json"), root + "/put", **options)
    for name, kind in (("piped", "x/y"), ("put", "application/json")):
        told = fs.client.stat("s3://%s/%s" % (root, name))
        assert (told.content_type, told.metadata, told.headers.get("cache-control")) == (kind, {"of": "test"}, "no-cache")


def test_positions_from_the_end_are_of_one_version(fs, root, each_served, monkeypatch):  # noqa: F811
    """The object changes between the question for its size and the one for its bytes."""
    path, old, new = root + "/k", bytes(range(200)), bytes(range(100, 250)) * 2
    other = make(each_served)
    fs.pipe(path, old)
    info, again = fs.info, []

    def asked(*a, **kw):
        found = info(*a, **kw)
        if len(again) < 1:
            again.append(1)
            other.pipe(path, new)
        return found
    monkeypatch.setattr(fs, "info", asked)
    for start, end in ((-20, -5), (None, -7), (5, -5)):
        again.clear()
        other.pipe(path, old)
        assert fs.cat_file(path, start, end) == new[start:end]
