"""Fixtures of the tests with HTTP/2 origins: certificates, scriptable origins (judged at the end), proxies before them."""
import ssl

import proxy as proxy_module
import pytest
from h2origin import H2Origin
from pki import Pki

KIB, MIB = 1 << 10, 1 << 20
ONCE = {"retry": {"attempts": 1}}
SMALL_PARTS = {"fetch": {"part_size": "256KiB", "max_in_flight": 8}, "retry": {"base": "10ms", "cap": "50ms"}}
SLICES = {"slice_size": "64KiB"}
UNCACHED = {"routes": [{"path": "/_s3dlio/", "handler": "admin", "allow": ["127.0.0.0/8"]},
                       {"path": "/", "origin": "o", "auth": "none"}]}


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    p = Pki(tmp_path_factory.mktemp("pki"))
    p.server = p.make("server", ("localhost", "127.0.0.1"))
    return p


def server_context(pki):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*pki.server)
    return c


@pytest.fixture
def far(pki):
    """far(tls=False, **kw) -> an H2Origin. At the end nothing that the proxy sent may have broken the protocol."""
    made = []

    def make(tls=False, **kw):
        made.append(H2Origin(server_context(pki) if tls else None, **kw))
        return made[-1]
    yield make
    for o in made:
        o.stop()
    said = [v for o in made for v in o.violations]
    assert not said, said


@pytest.fixture
def near(start, pki):
    """near(origin, o={...}, **config) -> a proxy in front of it. HTTP/2 with prior knowledge unless `o` says otherwise."""
    def begin(origin, o=None, **kw):
        conf = {"type": "http", "endpoint": origin.url, "http2": "prior-knowledge"}
        if origin.tls:
            conf["tls"] = {"ca_file": str(pki.ca)}
        return start(proxy_module.merge(conf, o or {}), **kw)
    return begin


@pytest.fixture(params=["h2c", "h2_tls"])
def pair(request, far, near):
    """pair(o, far={...}, **config) -> (proxy, origin), in cleartext and over TLS."""
    def begin(o=None, far_=None, **kw):
        origin = far(tls=request.param == "h2_tls", **(far_ or {}))
        return near(origin, o, **kw), origin
    return begin


@pytest.fixture
def clear(far, near):
    """The same in cleartext only, for what does not depend on TLS."""
    def begin(o=None, far_=None, **kw):
        origin = far(**(far_ or {}))
        return near(origin, o, **kw), origin
    return begin


def protocol(p):
    return p.stats()["origins"]["o"]["protocol"]


def connections(p):
    return p.stats()["origins"]["o"]["connections"]
