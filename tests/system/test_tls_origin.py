"""TLS to the origin: verification with ca_file, names, SNI, session resumption, failures."""
import socket
import ssl
import subprocess
import threading

import net
import pytest
from origin import Origin

MIB = 1 << 20
ONCE = {"retry": {"attempts": 1}}


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A CA and certificates signed by it: for localhost, for another name, and one that has expired."""
    d = tmp_path_factory.mktemp("pki")

    def ssl_cmd(*args):
        subprocess.run(["openssl", *args], cwd=d, check=True, capture_output=True)
    ssl_cmd("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
            "-subj", "/CN=Test CA", "-keyout", "ca.key", "-out", "ca.pem")
    for name, san, days in (("good", "DNS:localhost,IP:127.0.0.1", "30"), ("other", "DNS:other.test", "30"),
                            ("expired", "DNS:localhost,IP:127.0.0.1", "-1")):
        (d / (name + ".ext")).write_text("subjectAltName=%s\n" % san)
        ssl_cmd("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=" + name,
                "-keyout", name + ".key", "-out", name + ".csr")
        when = ["-days", days]
        if name == "expired":
            ssl_cmd("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
                    "-subj", "/CN=unused", "-keyout", "u.key", "-out", "u.pem")
            when = ["-days", "1"]
        ssl_cmd("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", *when,
                "-extfile", name + ".ext", "-out", name + ".pem")
    return d


def context(pki, name):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(str(pki / (name + ".pem")), str(pki / (name + ".key")))
    return c


@pytest.fixture
def secure(pki):
    made = []

    def make(name="good", **kw):
        c = context(pki, name)
        o = Origin(tls=c)
        o.context = c
        made.append(o)
        return o
    yield make
    for o in made:
        o.stop()


def test_verified_with_a_ca_file(start, secure, pki):
    o = secure()
    size = 20 * MIB
    o.put("/b/k", size)
    for host in ("localhost", "127.0.0.1"):
        p = start({"type": "http", "endpoint": "https://%s:%d" % (host, o.port), "tls": {"ca_file": str(pki / "ca.pem")}})
        p.get_checked("/b/k", size)
        p.get_checked("/b/k", size)
    assert p.fetch("PUT", "/b/new", body=b"x" * 100000).status == 200
    assert o.objects["/b/new"].size == 100000


def test_unknown_authority_is_502(start, secure):
    o = secure()
    o.put("/b/k", 10)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, **ONCE})
    r = p.get("/b/k")
    assert r.status == 502 and b"<Code>BadGateway</Code>" in r.body
    assert o.count() == 0
    net.wait_until("it was logged", lambda: "certificate" in p.stderr().lower() or "tls" in p.stderr().lower())


def test_wrong_name_is_502(start, secure, pki):
    o = secure("other")
    o.put("/b/k", 10)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, "tls": {"ca_file": str(pki / "ca.pem")},
               **ONCE})
    assert p.get("/b/k").status == 502
    assert o.count() == 0


def test_server_name_is_verified_and_sent(start, secure, pki):
    o = secure("other")
    o.put("/b/k", 10)
    seen = []
    o.context.sni_callback = lambda sock, name, ctx: seen.append(name)
    p = start({"type": "http", "endpoint": "https://127.0.0.1:%d" % o.port,
               "tls": {"ca_file": str(pki / "ca.pem"), "server_name": "other.test"}})
    assert p.get("/b/k").status == 200
    assert seen and set(seen) == {"other.test"}


def test_no_server_name_is_sent_for_an_address(start, secure, pki):
    o = secure()
    o.put("/b/k", 10)
    seen = []
    o.context.sni_callback = lambda sock, name, ctx: seen.append(name)
    p = start({"type": "http", "endpoint": "https://127.0.0.1:%d" % o.port, "tls": {"ca_file": str(pki / "ca.pem")}})
    assert p.get("/b/k").status == 200
    assert set(seen) == {None}


def test_verification_can_be_turned_off(start, secure):
    o = secure("other")
    o.put("/b/k", 10)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, "tls": {"verify": False}})
    assert p.get("/b/k").status == 200


def test_sessions_are_resumed(start, secure, pki):
    o = secure()
    for i in range(6):
        o.put("/b/k%d" % i, 10)
    o.on(connection_close=True)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, "tls": {"ca_file": str(pki / "ca.pem")}},
              workers=1)
    for i in range(6):
        assert p.get("/b/k%d" % i).status == 200
    assert o.context.session_stats()["hits"] >= 3, o.context.session_stats()


@pytest.mark.parametrize("minimum", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(start, secure, pki, minimum):
    o = secure()
    o.context.minimum_version = o.context.maximum_version = minimum
    o.put("/b/k", MIB)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, "tls": {"ca_file": str(pki / "ca.pem")}})
    p.get_checked("/b/k", MIB)


def test_plain_server_on_a_tls_endpoint_is_502(start, origin):
    p = start({"type": "http", "endpoint": "https://127.0.0.1:%d" % origin.port, "timeouts": {"tls": "1s"}, **ONCE})
    assert p.get("/b/k").status in (502, 504)


def test_handshake_that_never_ends_is_504(start):
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    s.listen()
    held = []
    t = threading.Thread(target=lambda: held.append(s.accept()), daemon=True)
    t.start()
    try:
        p = start({"type": "http", "endpoint": "https://127.0.0.1:%d" % s.getsockname()[1], "timeouts": {"tls": "500ms"},
                   **ONCE})
        r = p.get("/b/k")
        assert r.status == 504 and b"GatewayTimeout" in r.body
    finally:
        s.close()
        for c, _ in held:
            c.close()


@pytest.mark.parametrize("cut", ["fin", "rst"])
def test_a_body_cut_inside_tls_never_ends_cleanly(start, secure, pki, cut):
    """No close_notify: a truncation attack looks like this. Chunked and until-close bodies must not pass as whole."""
    import raw
    o = secure()
    o.put("/b/k", MIB)
    p = start({"type": "http", "endpoint": "https://localhost:%d" % o.port, "tls": {"ca_file": str(pki / "ca.pem")}, **ONCE})
    for extra in ({}, {"ignore_range": True}, {"ignore_range": True, "chunked": True},
                  {"ignore_range": True, "until_close": True}):
        o.on(path="/b/k", cut_after=100000, cut=cut, **extra)
        try:
            r = p.get("/b/k")
            assert r.status in (502, 503, 504), extra
        except raw.Broken:
            pass
        o.clear_rules()
        p.purge(all=True)
    p.get_checked("/b/k", MIB)
