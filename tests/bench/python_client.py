#!/usr/bin/env python3
"""The Python client beside requests and boto3, through one warm proxy, in turns; prints ratios of medians.

    tests/bench/python_client.py [--objects 10000] [--size 65536] [--threads 16] [--rounds 3] [--large 1073741824]

Many small objects: get_many() against a pool of threads that call requests.Session.get(), and boto3's get_object(). One
large object: readinto() of a bytearray that is there already, and get(), against requests' `.content` and boto3's read().
Every round checks how many bytes came. The origin is a directory; nothing but this machine is asked. Timings of a busy
machine are worth nothing, ratios of neighbours a little.
"""
import argparse
import concurrent.futures
import os
import pathlib
import statistics
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(TOP / "tests/system"), str(TOP / "python/src")]

import boto3  # noqa: E402
import botocore.config  # noqa: E402
import net  # noqa: E402
import proxy  # noqa: E402
import requests  # noqa: E402
from s3dlio_proxy import Client  # noqa: E402


def race(what, runners, rounds, want):
    """Each runner once in each round, in turns."""
    seconds, used = {name: [] for name in runners}, {name: [] for name in runners}
    for n in range(rounds + 1):   # the first does not count
        for name, run in runners.items():
            began, had = time.perf_counter(), time.process_time()
            got = run()
            if n:
                seconds[name].append(time.perf_counter() - began)
                used[name].append(time.process_time() - had)
            assert got == want, f"{name}: {got} bytes, expected {want}"
    base = statistics.median(next(iter(seconds.values())))
    cpu_base = statistics.median(next(iter(used.values())))
    print(what)
    for name, all_ in seconds.items():
        m, c = statistics.median(all_), statistics.median(used[name])
        print(f"  {name:34} {m:8.3f} s  {want / m / 1e6:8.0f} MB/s   time x{m / base:5.2f}   cpu {c:7.3f} s x{c / cpu_base:5.2f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--objects", type=int, default=10000)
    ap.add_argument("--size", type=int, default=65536)
    ap.add_argument("--threads", type=int, default=16)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("--large", type=int, default=1 << 30)
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as d:
        tmp = pathlib.Path(d)
        bucket = tmp / "root/b"
        bucket.mkdir(parents=True)
        for i in range(a.objects):
            (bucket / f"k{i:05}").write_bytes(os.urandom(a.size))
        if a.large:
            with open(bucket / "large", "wb") as f:
                for _ in range(a.large >> 20):
                    f.write(os.urandom(1 << 20))
        memory = (a.objects * a.size * 5 // 4 + a.large * 5 // 4 >> 20) + 256
        port = net.free_port()
        (tmp / "proxy").mkdir()
        p = proxy.Proxy(tmp / "proxy", proxy.config(port, {"type": "file", "root": str(tmp / "root")},
                                                    {"memory": f"{memory}MiB"}), port).wait_ready()
        try:
            compare(p, a)
        finally:
            p.kill()


def compare(p, a):
    client = Client(p.url, pool=a.threads)
    session = requests.Session()
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=a.threads))
    s3 = boto3.client("s3", endpoint_url=p.url, aws_access_key_id="x", aws_secret_access_key="x", region_name="us-east-1",
                      config=botocore.config.Config(max_pool_connections=a.threads, s3={"addressing_style": "path"}))
    keys = [f"k{i:05}" for i in range(a.objects)]

    def many():
        return sum(len(data) for _, data in client.get_many((f"s3://b/{k}" for k in keys), threads=a.threads))

    def pooled(get):
        with concurrent.futures.ThreadPoolExecutor(a.threads) as pool:
            return sum(pool.map(get, keys))

    race(f"{a.objects} objects of {a.size} bytes, {a.threads} threads, warm", {
        "get_many()": many,
        "get_many(ordered=False)": lambda: sum(
            len(d) for _, d in client.get_many((f"s3://b/{k}" for k in keys), threads=a.threads, ordered=False)),
        "requests.Session, threads": lambda: pooled(lambda k: len(session.get(f"{p.url}/b/{k}").content)),
        "boto3, threads": lambda: pooled(lambda k: len(s3.get_object(Bucket="b", Key=k)["Body"].read())),
        "get(), threads": lambda: pooled(lambda k: len(client.get(f"s3://b/{k}"))),
    }, a.rounds, a.objects * a.size)
    if a.large:
        buffer = bytearray(a.large)
        race(f"1 object of {a.large} bytes, warm", {
            "readinto(bytearray)": lambda: client.readinto("s3://b/large", buffer),
            "get()": lambda: len(client.get("s3://b/large")),
            "requests.get().content": lambda: len(session.get(f"{p.url}/b/large").content),
            "boto3 read()": lambda: len(s3.get_object(Bucket="b", Key="large")["Body"].read()),
        }, a.rounds, a.large)


if __name__ == "__main__":
    main()
