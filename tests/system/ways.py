"""The ways a client comes to the proxy: HTTP/1.1 or HTTP/2, in cleartext or over TLS. What it gets does not depend on
that, so the suite runs over all of them: each test that starts a proxy is called once for each way (conftest.py) and asks
through Proxy.get(), fetch(), get_checked() and connect().

    @pytest.mark.ways("h1", "h1tls")           only these: the test is about bytes of HTTP/1.1, or its client speaks no more
    @pytest.mark.ways(*ways.ALL, san=ways.ALL) against sanitizer builds too over all, not only over h1 and h2tls

A test that says nothing and uses p.conn() (bytes of HTTP/1.1) or p.address (whatever it does there) runs over h1 alone."""
import copy
import inspect
import re
import ssl

import h2client
import net
import raw

ALL = ("h1", "h2c", "h1tls", "h2tls")
UNDER_SANITIZERS = ("h1", "h2tls")


class Way:
    def __init__(self, name, pki=None):
        """pki: a Pki with `server`, a certificate for localhost and 127.0.0.1, where the way has TLS."""
        assert name in ALL
        self.name, self.two, self.tls, self.pki = name, name.startswith("h2"), name.endswith("tls"), pki
        self.context = trusting(pki, "h2" if self.two else "http/1.1") if self.tls else None

    def with_listener(self, conf):
        """A copy of conf, whose first server listens with TLS too, and that address."""
        assert isinstance(conf, dict), "text of its own: mark the test with ways(\"h1\")"
        port, conf = net.free_port(), copy.deepcopy(conf)
        tls = {"certificate": self.pki.server[0], "key": self.pki.server[1]}
        conf["servers"][0]["listen"] = [*conf["servers"][0]["listen"], {"address": "127.0.0.1:%d" % port, "tls": tls}]
        return conf, ("127.0.0.1", port)

    def connect(self, address, timeout, rcvbuf=None):
        return (h2client.Exchanges if self.two else raw.Conn)(address, timeout, rcvbuf, tls=self.context)


def trusting(pki, *alpn, chain=None):
    """A client's side of TLS that trusts the CA of the tests."""
    c = ssl.create_default_context(cafile=str(pki.ca))
    if alpn:
        c.set_alpn_protocols(list(alpn))
    if chain:
        c.load_cert_chain(*chain)
    return c


def of(function, marker, fixtures):
    """The names of the ways that a test is called for."""
    if marker:
        names, san = marker.args, marker.kwargs.get("san", UNDER_SANITIZERS)
    elif "s3" in fixtures:   # boto3
        names, san = ("h1", "h1tls"), ("h1",)
    else:
        names = ("h1",) if re.search(r"\bp\.(conn\(|address\b)", inspect.getsource(function)) else ALL
        san = UNDER_SANITIZERS
    assert names and set(names) <= set(ALL), names
    if net.SANITIZER:   # not nothing, where the test is about a way that is left out
        names = [n for n in names if n in san] or names[:1]
    return list(names)
