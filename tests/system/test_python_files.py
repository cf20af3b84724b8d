"""Objects as files: what Python's own files do, on objects."""
import csv
import gzip
import io
import os
import random
import shutil
import zipfile

import pytest
from content import content
from pyserved import each_served, new_bucket, served, served_moto, served_versitygw  # noqa: F401 - fixtures

from s3dlio_proxy import Client, errors  # noqa: E402

pytestmark = [pytest.mark.nosan, pytest.mark.ways("h1")]
MIB = 1 << 20
PART = 5 * MIB
SIZE = 3 * MIB + 777


@pytest.fixture
def there(each_served, request):  # noqa: F811
    return Client(each_served.url), "s3://%s/" % new_bucket(each_served, request.node.name)


@pytest.mark.parametrize("buffer_size", [1, 1000, 1 << 18])
def test_reads_and_seeks_at_random_are_those_of_a_local_file(http, origin, tmp_path, buffer_size):
    origin.put("/b/k", SIZE)
    data = content("/b/k", 1, 0, SIZE)
    (tmp_path / "f").write_bytes(data)
    rng = random.Random(7)
    with Client(http().url).open("s3://b/k", buffer_size=buffer_size) as f, open(tmp_path / "f", "rb") as g:
        for _ in range(150):
            do = rng.randrange(7)
            if do == 0:
                at = rng.choice([0, SIZE - 5, SIZE, SIZE + 5, rng.randrange(SIZE)])
                assert f.seek(at) == g.seek(at)
            elif do == 1:
                back = rng.randrange(min(g.tell(), 5000) + 1)
                assert f.seek(-back, os.SEEK_CUR) == g.seek(-back, os.SEEK_CUR)
            elif do == 2:
                at = -rng.randrange(SIZE)
                assert f.seek(at, os.SEEK_END) == g.seek(at, os.SEEK_END)
            elif do == 3:
                a, b = bytearray(rng.randrange(300_000)), bytearray(0)
                b = bytearray(len(a))
                assert f.readinto(a) == g.readinto(b) and a == b
            elif do == 4:
                assert f.readline(2000) == g.readline(2000)
            else:
                n = rng.choice([0, 1, 100, 70_000, 600_000])
                assert f.read(n) == g.read(n)
            assert f.tell() == g.tell()
        f.seek(100)
        assert f.read() == data[100:] and f.read() == b"" and f.read(5) == b""


def test_one_pass_is_few_requests_and_a_jump_reads_little(origin):
    size = 100 * MIB
    origin.put("/b/k", size)
    f = Client(origin.url).open("s3://b/k")
    at = 0
    while block := f.read(MIB):
        assert block == content("/b/k", 1, at, len(block))
        at += len(block)
    assert at == size and origin.count("/b/k", "GET") <= 10 and origin.bytes_sent() == size
    origin.clear_log()
    for at in (size - 100, 50 * MIB, 5, size - 5000):   # as of the footer of a column file
        f.seek(at)
        assert f.read(50) == content("/b/k", 1, at, 50)
    assert origin.bytes_sent() <= 4 * (1 << 19)
    assert origin.connections == 1


def test_what_is_no_position_or_mode(origin):
    origin.put("/b/k", 10)
    c = Client(origin.url)
    f = c.open("s3://b/k")
    for bad in (lambda: f.seek(-1), lambda: f.seek(-11, os.SEEK_END), lambda: f.seek(0, 9), lambda: c.open("s3://b/k", "ab"),
                lambda: c.open("s3://b/k", "r+b"), lambda: c.open("s3://b/k", "rt")):
        with pytest.raises(ValueError):
            bad()
    with pytest.raises(TypeError):
        c.open("s3://b/k", "rb", part_size=PART)
    with pytest.raises(io.UnsupportedOperation):
        f.write(b"x")
    assert f.readable() and f.seekable() and not f.writable() and f.name == "s3://b/k" and f.mode == "rb"
    f.close()
    f.close()
    for closed in (f.read, f.tell, lambda: f.seek(0)):
        with pytest.raises(ValueError):
            closed()


def test_a_file_that_is_not_there_is_told_when_it_is_opened(origin):
    with pytest.raises(FileNotFoundError):
        Client(origin.url).open("s3://b/none")
    assert origin.count() == 1


def test_known_objects_need_no_question(origin):
    origin.put("/b/k", 10)
    c = Client(origin.url)
    info = c.stat("s3://b/k")
    origin.clear_log()
    f = c.open("s3://b/k", info=info)
    assert origin.count() == 0 and len(f.read()) == 10 and origin.count() == 1
    origin.put("/b/k", 10, version=2)
    with pytest.raises(errors.ObjectChangedError):
        c.open("s3://b/k", info=info).read()


def test_other_libraries_read_and_write_them(there):
    c, b = there
    rows = [["%d" % i, "x" * (i % 50)] for i in range(5000)]
    with c.open(b + "t.csv", "wb") as raw, io.TextIOWrapper(raw, newline="") as text:
        csv.writer(text).writerows(rows)
    assert list(csv.reader(io.TextIOWrapper(c.open(b + "t.csv"), newline=""))) == rows
    with c.open(b + "t.zip", "wb") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as z:
        for i in range(20):
            z.writestr("f%d" % i, content("/z", 1, i, 100_000))
    with zipfile.ZipFile(c.open(b + "t.zip")) as z:
        assert z.testzip() is None and z.read("f7") == content("/z", 1, 7, 100_000) and len(z.namelist()) == 20
    with gzip.open(c.open(b + "t.gz", "wb"), "wb") as g:
        g.write(b"packed" * 1000)
    assert not c.exists(b + "t.gz")   # gzip does not close what it was given
    with c.open(b + "t.gz", "wb") as raw, gzip.open(raw, "wb") as g:
        g.write(b"packed" * 1000)
    assert gzip.open(c.open(b + "t.gz")).read() == b"packed" * 1000


@pytest.mark.parametrize("size", [0, 100, PART, PART + 1, 3 * PART + 99])
def test_a_writer_makes_the_object_when_it_is_closed(there, size):
    c, b = there
    data = content("/w", 1, 0, size)
    with c.open(b + "k", "wb", part_size=PART, threads=2, content_type="text/x", metadata={"a": "b"}) as f:
        assert f.writable() and not f.readable() and not f.seekable()
        view, at = memoryview(data), 0
        for n in itertools_sizes():
            if at >= size:
                break
            assert f.write(view[at:at + n]) == len(view[at:at + n])
            at += n
            assert f.tell() == min(at, size)
        assert not c.exists(b + "k")
    o = c.stat(b + "k")
    assert c.get(b + "k") == data and f.closed and f.result.etag == o.etag and f.result.size == size
    assert o.content_type == "text/x" and o.metadata == {"a": "b"} and f.result.parts == (0 if size < PART else -(-size // PART))
    f.close()
    with pytest.raises(ValueError):
        f.write(b"x")


def itertools_sizes():
    rng = random.Random(3)
    while True:
        yield rng.choice([1, 77, 65536, 1_000_003, 2 * PART + 1])


def test_a_buffer_may_change_after_it_was_written(there):
    c, b = there
    block, sent = bytearray(MIB), hashlib_of()
    with c.open(b + "k", "wb", part_size=PART) as f:
        for n in range(12):
            block[:] = bytes([n]) * MIB
            f.write(block)
            sent.update(block)
    got = hashlib_of()
    got.update(c.get(b + "k"))
    assert got.digest() == sent.digest()


def hashlib_of():
    import hashlib
    return hashlib.sha256()


def test_a_new_file_only_where_there_is_none(there):
    c, b = there
    with c.open(b + "k", "xb") as f:
        f.write(b"first")
    f = c.open(b + "k", "xb")
    f.write(b"second")
    with pytest.raises(errors.PreconditionFailedError):
        f.close()
    assert c.get(b + "k") == b"first"


def test_files_can_be_copied_from_one_to_the_other(there):
    c, b = there
    data = content("/c", 1, 0, 2 * PART + 5)
    c.put(b + "from", data)
    with c.open(b + "from") as f, c.open(b + "to", "wb", part_size=PART) as g:
        shutil.copyfileobj(f, g)
    assert c.get(b + "to") == data
