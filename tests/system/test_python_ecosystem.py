"""pandas, pyarrow and xarray over the file system of the Python package; s3fs and s3dlio with nothing but the endpoint set.
boto3, requests and others: test_sigv4_boto3.py, test_clients.py."""
import os
import subprocess
import sys
import zipfile

import net
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
import pytest
import servers
import xarray
from pyserved import counted, new_bucket, served, served_fast, served_moto, served_versitygw  # noqa: F401 - fixtures

import fsspec
import s3fs
from s3dlio_proxy.fsspec import S3dlioFileSystem

pytestmark = pytest.mark.nosan
MIB = 1 << 20


@pytest.fixture
def root(served_fast, request):  # noqa: F811
    return "s3dlio://" + new_bucket(served_fast, request.node.name)


@pytest.fixture
def options(served_fast):  # noqa: F811
    return {"endpoint_url": served_fast.url}


def table(n=50000):
    rng = np.random.default_rng(1)
    return pandas.DataFrame({"id": np.arange(n), "year": 2020 + np.arange(n) % 4, "name": ["n%d" % (i % 977) for i in range(n)],
                             "value": rng.standard_normal(n)})


# ---- pandas

@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet", "t.pkl"])
def test_pandas_writes_and_reads(root, options, name):
    frame = table()
    url = root + "/some where/" + name
    if name.endswith(".jsonl"):
        frame.to_json(url, orient="records", lines=True, double_precision=15, storage_options=options)
        again = pandas.read_json(url, orient="records", lines=True, precise_float=True, storage_options=options)
    elif name.endswith(".pkl"):
        frame.to_pickle(url, storage_options=options)
        again = pandas.read_pickle(url, storage_options=options)
    elif name.endswith(".parquet"):
        frame.to_parquet(url, storage_options=options, row_group_size=5000)
        again = pandas.read_parquet(url, storage_options=options)
    else:
        frame.to_csv(url, index=False, storage_options=options)
        again = pandas.read_csv(url, storage_options=options)
    pandas.testing.assert_frame_equal(frame, again, check_exact=not name.endswith(".jsonl"))


def test_pandas_reads_some_columns_of_a_parquet_file_with_some_of_its_bytes(served_fast, root, options):  # noqa: F811
    frame = table(400000)
    url = root + "/wide.parquet"
    frame.to_parquet(url, storage_options=options, compression=None)
    size = S3dlioFileSystem(**options).info(url)["size"]
    before = served_fast.proxy.stats()["bytes"]["sent"]
    again = pandas.read_parquet(url, columns=["value"], storage_options=options)
    assert served_fast.proxy.stats()["bytes"]["sent"] - before < 0.75 * size
    pandas.testing.assert_series_equal(again["value"], frame["value"])
    parts = pandas.read_csv(csv_of(frame.head(1000), root, options), storage_options=options, chunksize=100)
    assert sum(len(p) for p in parts) == 1000


def csv_of(frame, root, options):
    frame.to_csv(root + "/head.csv", index=False, storage_options=options)
    return root + "/head.csv"


# ---- pyarrow

def test_pyarrow_partitioned_dataset(served_fast, root, options):  # noqa: F811
    fs = S3dlioFileSystem(**options)
    frame = table()
    where = pa.fs.PyFileSystem(pa.fs.FSSpecHandler(fs))
    bucket = root[len("s3dlio://"):]
    pyarrow.dataset.write_dataset(pa.Table.from_pandas(frame), bucket + "/ds", format="parquet", filesystem=where,
                                  partitioning=["year"], partitioning_flavor="hive", max_rows_per_group=2000,
                                  max_rows_per_file=4000)
    assert {os.path.basename(p) for p in fs.ls(bucket + "/ds", detail=False)} == {"year=%d" % y for y in range(2020, 2024)}
    dataset = pyarrow.dataset.dataset(bucket + "/ds", filesystem=where, partitioning="hive")
    assert dataset.count_rows() == len(frame)

    def some():
        return dataset.to_table(filter=(pyarrow.dataset.field("year") == 2021), columns=["id", "value"])
    got, asked = counted(served_fast, some)
    want = frame[frame.year == 2021]
    assert sorted(got["id"].to_pylist()) == list(want.id) and asked["HEAD"] <= 2 * len(fs.ls(bucket + "/ds/year=2021"))
    everything = pyarrow.parquet.read_table(bucket + "/ds", filesystem=fs).to_pandas()
    assert everything["value"].sum() == pytest.approx(frame["value"].sum()) and len(everything) == len(frame)
    with_url = pandas.read_parquet(root + "/ds", storage_options=options, filters=[("year", "==", 2023)])
    assert len(with_url) == (frame.year == 2023).sum()
    pyarrow.dataset.write_dataset(pa.table({"id": [1]}), bucket + "/ds", format="parquet", filesystem=where,
                                  existing_data_behavior="delete_matching", partitioning=None)
    assert fs.ls(bucket + "/ds", detail=False) == [bucket + "/ds/part-0.parquet"]
    info = where.get_file_info([bucket + "/ds/part-0.parquet", bucket + "/ds", bucket + "/none"])
    assert [i.type for i in info] == [pa.fs.FileType.File, pa.fs.FileType.Directory, pa.fs.FileType.NotFound]
    assert info[0].size > 0 and info[0].mtime is not None


def test_pyarrow_streams_an_ipc_file(root, options):
    fs = S3dlioFileSystem(**options)
    data = pa.Table.from_pandas(table())
    with fs.open(root + "/t.arrow", "wb") as f, pa.ipc.new_file(f, data.schema) as writer:
        writer.write_table(data, max_chunksize=1000)
    with fs.open(root + "/t.arrow") as f:
        reader = pa.ipc.open_file(f)
        assert reader.num_record_batches == 50 and reader.get_batch(31)["id"].to_pylist() == list(range(31000, 32000))


# ---- xarray

def grid():
    rng = np.random.default_rng(2)
    return xarray.Dataset({"t": (("time", "y", "x"), rng.random((12, 50, 60)).astype("f4"))},
                          coords={"time": pandas.date_range("2024-01-01", periods=12), "y": np.arange(50), "x": np.arange(60)},
                          attrs={"title": "made up"})


@pytest.mark.parametrize("version", [2, 3])
def test_xarray_zarr_store(root, options, version):
    made = grid()
    url = root + "/grid.zarr"
    made.to_zarr(url, storage_options=options, zarr_format=version, encoding={"t": {"chunks": (1, 25, 60)}}, mode="w",
                 consolidated=version == 2)
    with xarray.open_zarr(url, storage_options=options, consolidated=version == 2, chunks=None) as found:
        assert found.attrs["title"] == "made up"
        np.testing.assert_array_equal(found["t"].sel(time="2024-01-05").values, made["t"].sel(time="2024-01-05").values)
        xarray.testing.assert_equal(found.load(), made)
    later = made.assign_coords(time=made.time + np.timedelta64(12, "D"))
    later.to_zarr(url, storage_options=options, append_dim="time", consolidated=version == 2)
    with xarray.open_zarr(url, storage_options=options, consolidated=version == 2, chunks=None) as found:
        assert found.sizes["time"] == 24
        np.testing.assert_array_equal(found["t"].values[12:], made["t"].values)


def test_xarray_netcdf_file(root, options, tmp_path):
    made = grid()
    made.to_netcdf(tmp_path / "grid.nc", engine="h5netcdf")
    fs = S3dlioFileSystem(**options)
    fs.put_file(str(tmp_path / "grid.nc"), root + "/grid.nc")
    with fs.open(root + "/grid.nc") as f, xarray.open_dataset(f, engine="h5netcdf") as found:
        np.testing.assert_array_equal(found["t"].isel(time=7).values, made["t"].isel(time=7).values)
        xarray.testing.assert_equal(found.load(), made)


# ---- fsspec's own caches over it

def test_fsspec_caches_files_locally_over_it(served_fast, root, options, tmp_path):  # noqa: F811
    fs = S3dlioFileSystem(**options)
    data = os.urandom(3 * MIB)
    fs.pipe(root + "/k", data)
    url = "simplecache::" + root + "/k"
    for _ in range(2):
        with fsspec.open(url, s3dlio=options, simplecache={"cache_storage": str(tmp_path)}) as f:
            assert f.read() == data
    with fsspec.open("blockcache::" + root + "/k", s3dlio=options, blockcache={"cache_storage": str(tmp_path / "b")}) as f:
        f.seek(2 * MIB)
        assert f.read(100) == data[2 * MIB:2 * MIB + 100]
    with fs.open(root + "/z.zip", "wb") as f, zipfile.ZipFile(f, "w") as z:
        z.writestr("in/it", b"zipped")
    assert fsspec.open("zip://in/it::" + root + "/z.zip", s3dlio=options).open().read() == b"zipped"


# ---- others' clients, with the endpoint set

def environment(served):  # noqa: F811
    return {**{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, "AWS_ENDPOINT_URL": served.url,
            "AWS_ACCESS_KEY_ID": servers.ACCESS, "AWS_SECRET_ACCESS_KEY": servers.SECRET, "AWS_REGION": servers.REGION,
            "AWS_DEFAULT_REGION": servers.REGION, "AWS_EC2_METADATA_DISABLED": "true"}


def test_s3fs(served, request):  # noqa: F811
    bucket = new_bucket(served, request.node.name)
    fs = s3fs.S3FileSystem(endpoint_url=served.url, key=servers.ACCESS, secret=servers.SECRET, skip_instance_cache=True,
                           client_kwargs={"region_name": servers.REGION}, config_kwargs={"s3": {"addressing_style": "path"}})
    data = os.urandom(12 * MIB + 3)
    fs.pipe(bucket + "/d/small", b"small")
    with fs.open(bucket + "/d/large", "wb", block_size=5 * MIB) as f:
        f.write(data)
    assert fs.ls(bucket + "/d", detail=False) == [bucket + "/d/large", bucket + "/d/small"]
    assert fs.cat(bucket + "/d/large") == data and fs.cat_file(bucket + "/d/large", start=100, end=200) == data[100:200]
    before = served.proxy.stats()["origins"]["o"]["bytes"]
    with fs.open(bucket + "/d/large") as f:
        f.seek(11 * MIB)
        assert f.read(1000) == data[11 * MIB:11 * MIB + 1000]
    assert served.proxy.stats()["origins"]["o"]["bytes"] == before, "it is cached"
    fs.cp_file(bucket + "/d/small", bucket + "/copy")
    fs.rm(bucket + "/d", recursive=True)
    assert fs.find(bucket) == [bucket + "/copy"]
    fs.pipe(bucket + "/copy", b"overwritten")
    assert fs.cat(bucket + "/copy") == b"overwritten", "a write through the proxy is seen at once"


S3DLIO = """
import os, sys
import s3dlio
bucket, size = sys.argv[1], 9000001
root = "s3://" + bucket + "/"
data = os.urandom(4096) * (size // 4096 + 1)
data = data[:size]
s3dlio.put_bytes(root + "d/large", data)
for i in range(30):
    s3dlio.put_bytes(root + "d/n%02d" % i, b"x" * i)
for _ in range(2):
    assert bytes(s3dlio.get(root + "d/large")) == data
assert bytes(s3dlio.get_range(root + "d/large", 5, 7)) == data[5:12]
names = sorted(u.rpartition("/")[2] for u in s3dlio.list(root + "d/", recursive=True))
assert names == sorted(["large"] + ["n%02d" % i for i in range(30)]), names
assert s3dlio.stat(root + "d/large")["size"] == size
many = s3dlio.get_many([root + "d/n%02d" % i for i in range(30)], max_in_flight=8)
assert sorted(len(bytes(b)) for _, b in many) == list(range(30))
s3dlio.delete(root + "d/n00")
assert not s3dlio.exists(root + "d/n00") and s3dlio.exists(root + "d/n01")
print("well")
"""


def test_s3dlio(served, request):  # noqa: F811
    bucket = new_bucket(served, request.node.name)
    r = subprocess.run([sys.executable, "-c", S3DLIO, bucket], capture_output=True, text=True, env=environment(served),
                       timeout=120 * net.SLOW)
    assert r.returncode == 0 and r.stdout.strip().endswith("well"), r.stdout + r.stderr
