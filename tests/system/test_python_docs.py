"""Every example of docs/PYTHON.md is run as it stands there, but for the address, as a program of its own."""
import os
import re
import signal
import stat
import subprocess
import sys

import net
import pytest
from botocore.exceptions import ClientError
from proxy import TOP
from pyserved import SOURCE, served, served_moto  # noqa: F401 - fixtures
from test_python_torch import torch_python  # noqa: F401 - a fixture

pytestmark = pytest.mark.nosan
PAGE = os.path.join(TOP, "docs", "PYTHON.md")
ADDRESS = "http://127.0.0.1:8080"


def examples():
    with open(PAGE, encoding="utf-8") as f:
        text = f.read()
    assert text.count("```") % 2 == 0
    found, names = [], {}
    for at in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S):
        heading = re.findall(r"^## (.*)$", text[:at.start()], re.M)[-1]
        names[heading] = names.get(heading, 0) + 1
        found.append(pytest.param(at[1], at[2], id="%s %d" % (heading.lower(), names[heading])))
    return found


@pytest.fixture
def bucket(served):  # noqa: F811
    """The one that the page speaks of."""
    s3 = served.backend.direct
    try:
        s3.create_bucket(Bucket="bucket")
    except ClientError as e:
        assert e.response["Error"]["Code"] == "BucketAlreadyOwnedByYou"
    for n in range(20):
        s3.put_object(Bucket="bucket", Key="train/%04d" % n, Body=b"%04d" % n * 1000)
    for n in range(3):
        s3.put_object(Bucket="bucket", Key="images/%d.jpg" % n, Body=b"jpeg" * 5000)
    return served


@pytest.mark.parametrize("language, text", examples())
def test_example(bucket, tmp_path, request, language, text):
    python, path = sys.executable, [SOURCE]
    if "s3dlio_proxy.torch" in text:
        python, path = request.getfixturevalue("torch_python")
    site = tmp_path / "site"   # what an installation adds to fsspec's protocols
    (site / "s3dlio_proxy-0.0.0.dist-info").mkdir(parents=True)
    (site / "s3dlio_proxy-0.0.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: s3dlio-proxy\nVersion: 0.0.0\n")
    (site / "s3dlio_proxy-0.0.0.dist-info" / "entry_points.txt").write_text(
        "[fsspec.specs]\ns3dlio = s3dlio_proxy.fsspec:S3dlioFileSystem\n")
    text = text.replace(ADDRESS, bucket.url)
    work = tmp_path / "work"
    work.mkdir()
    if language == "python":
        (work / "example.py").write_text(text)
        command = [python, "-W", "error::ResourceWarning", "example.py"]
    else:
        assert language == "sh", "an example that is not run: " + text
        shim = tmp_path / "bin" / "python"
        shim.parent.mkdir()
        shim.write_text('#!/bin/sh\nexec "%s" "$@"\n' % python)
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
        command = ["sh", "-e", "-c", text]
    env = {k: v for k, v in os.environ.items() if k not in ("S3DLIO_PROXY_URL", "RANK", "WORLD_SIZE")}
    env.update(PYTHONPATH=os.pathsep.join([*path, str(site)]), PATH="%s:%s" % (tmp_path / "bin", os.environ["PATH"]),
               OMP_NUM_THREADS="1")
    for _ in range(3):
        r = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
                           timeout=120 * net.SLOW)
        # apache/arrow#34314: with any file system in Python a thread of pyarrow's may meet the interpreter's end
        if "pyarrow" not in text or (r.returncode, r.stderr) != (-signal.SIGABRT, "terminate called without an active exception\n"):
            break
    assert r.returncode == 0, r.stdout[-2000:] + r.stderr[-4000:]


def test_no_example_is_missed():
    kinds = [p.values[0] for p in examples()]
    assert kinds.count("python") >= 12 and "sh" in kinds and set(kinds) == {"python", "sh"}
