"""What the tests of the Python package's extras share: one proxy before a real S3 server for many tests, and a bucket of
each test's own. Test modules import the fixtures they use."""
import os
import re
import sys

import fsspec
import net
import proxy as proxy_module
import pytest
import servers
from conftest import CI, Backend, client, s3_origin

SOURCE = os.path.join(proxy_module.TOP, "python", "src")
if SOURCE not in sys.path:
    sys.path.insert(0, SOURCE)
# What the entry point does where the package is installed; that it does: test_python_fsspec.py.
fsspec.register_implementation("s3dlio", "s3dlio_proxy.fsspec.S3dlioFileSystem", clobber=True)


class Served:
    """proxy: before `backend`. url: the proxy's."""

    def __init__(self, tmp, backend):
        port = net.free_port()
        self.backend = backend
        conf = proxy_module.config(port, s3_origin(backend.url), cache={"memory": "256MiB"})
        self.proxy = proxy_module.Proxy(tmp, conf, port).wait_ready()
        self.url = self.proxy.url
        self.boto3 = client(self.url)


def serve(request, name, tmp_path_factory):
    s = Served(tmp_path_factory.mktemp("served-" + name), Backend(name, request.getfixturevalue(name + "_server")))
    try:
        yield s
    finally:
        s.proxy.stop()


@pytest.fixture(scope="session")
def served_moto(request, tmp_path_factory):
    yield from serve(request, "moto", tmp_path_factory)


@pytest.fixture(scope="session")
def served_versitygw(request, tmp_path_factory):
    yield from serve(request, "versitygw", tmp_path_factory)


@pytest.fixture
def served(served_moto):
    """A proxy before moto."""
    return served_moto


@pytest.fixture(params=["moto", "versitygw"])
def each_served(request):
    """A proxy before moto, and one before versitygw."""
    return request.getfixturevalue("served_" + request.param)


@pytest.fixture
def served_fast(request):
    """The one that is quicker, where it is there: for many tests."""
    return request.getfixturevalue("served_versitygw" if servers.versitygw_binary() or CI else "served_moto")


def new_bucket(served, name):
    name = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40] + "-" + os.urandom(4).hex()
    served.backend.direct.create_bucket(Bucket=name)
    return name


def counted(served, do):
    """(what it returns, the requests by method that the proxy got of it)."""
    before = served.proxy.stats()["requests"]["methods"]
    result = do()
    after = served.proxy.stats()["requests"]["methods"]
    # one GET is for the statistics themselves
    return result, {m: n - before.get(m, 0) - (m == "GET") for m, n in after.items() if n - before.get(m, 0) - (m == "GET")}
