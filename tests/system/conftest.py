import os
import re

import boto3
import botocore.config
import cli as cli_module
import net
import origin as origin_module
import proxy as proxy_module
import pytest
import servers
import ways
from pki import Pki

pytest_plugins = ["h2fixtures"]
CI = bool(os.environ.get("CI"))


def pytest_configure(config):
    config.addinivalue_line("markers", "heavy: big bodies or many clients")
    config.addinivalue_line("markers", "nosan: not run against sanitizer builds (nothing of the proxy's own that the "
                                       "others do not run, or only speed)")
    config.addinivalue_line("markers", "ways(names, san=...): the protocols a test runs over, see ways.py")


def pytest_generate_tests(metafunc):
    if "way" in metafunc.fixturenames:
        names = ways.of(metafunc.function, metafunc.definition.get_closest_marker("ways"), metafunc.fixturenames)
        if names != ["h1"]:
            metafunc.parametrize("way", names, indirect=True)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if not item.get_closest_marker("nosan"):
            item.add_marker("san")


@pytest.fixture(scope="session", autouse=True)
def _clean_environment():
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = "/nonexistent"
    for name in [n for n in os.environ if n.lower() in ("http_proxy", "https_proxy", "all_proxy") or
                 n in ("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE")]:
        del os.environ[name]


@pytest.fixture
def origin():
    o = origin_module.Origin()
    yield o
    o.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA and a certificate of the proxy by it."""
    p = Pki(tmp_path_factory.mktemp("pki"))
    p.server = p.make("server", ("localhost", "127.0.0.1"))
    return p


@pytest.fixture
def way(request, certificates):
    """The protocol this run of the test is asked over, see ways.py."""
    return ways.Way(getattr(request, "param", "h1"), certificates)


@pytest.fixture
def start(tmp_path, way):
    """start(origin_conf, cache=..., server=..., **top) -> a ready Proxy; all are stopped and judged at the end."""
    running = []

    def begin(origin, cache=None, server=None, env=None, prefix=(), ready=True, text=None, **top):
        d = tmp_path / ("proxy%d" % len(running))
        d.mkdir()
        port = net.free_port()
        conf = text.replace("@PORT@", str(port)) if text else proxy_module.config(port, origin, cache, server, **top)
        p = proxy_module.Proxy(d, conf, port, env, prefix, way=way)
        running.append(p)
        if ready:
            p.wait_ready()
        return p

    yield begin
    failures = []
    for p in running:
        try:
            p.stop()
        except AssertionError as e:
            failures.append(str(e))
        finally:
            p.kill()
    assert not failures, "\n".join(failures)


@pytest.fixture
def cli(tmp_path, way):
    """cli.to(proxy)("ls", "s3://b/") -> what came of that run of s3dlio-cli; see cli.py."""
    d = tmp_path / "cli"
    d.mkdir()
    c = cli_module.Cli(d, way=way)
    yield c
    c.stop()


@pytest.fixture
def http(start, origin):
    """http(**config) -> a proxy in front of the scriptable origin as type http. Keyword `o` changes the origin's block."""
    def begin(o=None, **kw):
        return start(proxy_module.merge({"type": "http", "endpoint": origin.url}, o or {}), **kw)
    return begin


@pytest.fixture
def s3ish(start, origin):
    """The same with an origin of type s3, unsigned: S3's own rules for subresources, writes and checksums."""
    def begin(o=None, **kw):
        return start(proxy_module.merge({"type": "s3", "endpoint": origin.url, "credentials": {"source": "none"}}, o or {}),
                     **kw)
    return begin


def s3_origin(url, **over):
    return proxy_module.merge({
        "type": "s3", "endpoint": url, "region": servers.REGION, "addressing": "path",
        "credentials": {"source": "static", "access_key": servers.ACCESS, "secret_key": servers.SECRET},
    }, over)


def client(url, ca=None, **config):
    """A boto3 client; path-style, few retries. It verifies the certificate of an https url."""
    config.setdefault("retries", {"max_attempts": 1})
    config.setdefault("s3", {"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=url, aws_access_key_id=servers.ACCESS,
                        aws_secret_access_key=servers.SECRET, region_name=servers.REGION, verify=ca,
                        config=botocore.config.Config(signature_version="s3v4", max_pool_connections=32,
                                                      read_timeout=60 * net.SLOW, **config))


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory):
    s = servers.moto(tmp_path_factory.mktemp("moto"))
    yield s
    s.stop()


@pytest.fixture(scope="session")
def versitygw_server(tmp_path_factory):
    if not servers.versitygw_binary():
        if CI:
            pytest.fail("versitygw is required in CI: tests/run builds it where Go 1.24 or newer is found")
        pytest.skip("no versitygw (tests/run builds it where Go 1.24 or newer is found)")
    s = servers.versitygw(tmp_path_factory.mktemp("vgw"))
    yield s
    s.stop()


@pytest.fixture(scope="session")
def nginx_server(tmp_path_factory):
    s = servers.nginx(tmp_path_factory.mktemp("nginx"))
    yield s
    s.stop()


@pytest.fixture
def bucket(request):
    """A bucket name of this test's own."""
    return re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40] + "-" + os.urandom(4).hex()


class Backend:
    """A real S3 origin: where it is, and clients to it directly and through a proxy."""

    def __init__(self, name, server):
        self.name, self.server, self.url = name, server, server.url
        self.direct = client(server.url)


@pytest.fixture(params=["moto", "versitygw"])
def backend(request):
    return Backend(request.param, request.getfixturevalue(request.param + "_server"))


@pytest.fixture
def s3(start, backend, bucket):
    """A proxy that re-signs for moto or versitygw, with an empty bucket: (proxy, backend, boto3 client, bucket)."""
    backend.direct.create_bucket(Bucket=bucket)
    p = start(s3_origin(backend.url))
    return p, backend, client(p.url, p.ca), bucket
