"""HTTP/2 clients that mean harm, frame by frame: what becomes of them, that it is counted, that the proxy's memory and CPU
time stay bounded meanwhile, and that somebody else on the same proxy is served. In cleartext and over TLS; of the latter
a part under sanitizers (WAYS, EVERYWHERE)."""
import contextlib
import socket
import ssl
import struct
import threading
import time

import hpack
import net
import proxy as proxy_module
import pytest
import yaml
from pki import Pki

pytestmark = pytest.mark.ways("h1")   # each attacker is its own way
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
SETTINGS_TIMEOUT, REFUSED_STREAM, CANCEL, CALM = 4, 7, 8, 11
INITIAL_WINDOW = 4
MIB = 1 << 20
SMALL = 100_000
BIG = 4 * MIB
WAYS = ["h2c", pytest.param("tls", marks=pytest.mark.nosan)]
EVERYWHERE = pytest.mark.parametrize("proxy", ["h2c", "tls"], indirect=True)


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def u32(n):
    return struct.pack(">I", n)


def head(path="/b/small", method="GET", more=()):
    """A header block that leaves the HPACK table as it is."""
    fields = [(":method", method), (":scheme", "http"), (":authority", "proxy.test"), (":path", path), *more]
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*f) for f in fields])


class Attacker:
    """A connection with its preface and SETTINGS sent. Keeps what came: GOAWAY error, resets, statuses, bytes of DATA."""

    def __init__(self, address, settings=b"", preface=True, rcvbuf=None, tls=None):
        self.sock = socket.socket()
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(10 * net.SLOW)
        self.sock.connect(address)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname="localhost", suppress_ragged_eofs=False)
            assert self.sock.selected_alpn_protocol() == "h2"
        self.buf, self.decoder = b"", hpack.Decoder()
        self.goaway, self.resets, self.status, self.data, self.acks, self.pongs = None, {}, {}, {}, 0, 0
        self.ended, self.sent, self.end = set(), 0, None     # end: "closed" or "reset"
        if preface:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def close(self):
        self.sock.close()

    def send(self, data):
        """False: the proxy broke the connection."""
        try:
            self.sock.sendall(data)
            self.sent += len(data)
            return True
        except (ConnectionResetError, BrokenPipeError, ssl.SSLError):
            self.end = "reset"
            return False

    def take(self, timeout=0.0):
        """What is there now, or comes within the time. False: nothing came."""
        try:
            self.sock.settimeout(max(timeout, 0.0001))
            more = self.sock.recv(1 << 18)
        except (TimeoutError, BlockingIOError):
            return False
        except (ConnectionResetError, ssl.SSLError):
            self.end = "reset"
            return False
        finally:
            self.sock.settimeout(10 * net.SLOW)
        if not more:
            self.end = self.end or "closed"
            return False
        self.buf += more
        while len(self.buf) >= 9:
            length = int.from_bytes(self.buf[:3], "big")
            if len(self.buf) < 9 + length:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buf[3:9])
            payload, self.buf = self.buf[9:9 + length], self.buf[9 + length:]
            self.took(kind, flags, stream, payload)
        return True

    def took(self, kind, flags, stream, payload):
        if kind == GOAWAY:
            self.goaway = struct.unpack(">I", payload[4:8])[0]
        elif kind == RST_STREAM:
            self.resets[stream] = struct.unpack(">I", payload)[0]
        elif kind == HEADERS:
            assert flags & END_HEADERS
            self.status.setdefault(stream, dict(self.decoder.decode(payload)).get(":status"))
        elif kind == DATA:
            self.data[stream] = self.data.get(stream, 0) + len(payload)
        elif kind == SETTINGS and flags & ACK:
            self.acks += 1
        elif kind == PING and flags & ACK:
            self.pongs += 1
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)

    def until(self, what, condition, timeout=10):
        end = time.monotonic() + timeout * net.SLOW
        while not condition():
            if self.end or time.monotonic() > end:
                raise AssertionError("not seen: %s; goaway=%s resets=%s status=%s end=%s" % (
                    what, self.goaway, self.resets, self.status, self.end))
            self.take(0.05)

    def flood(self, pieces):
        """Sends until the proxy says GOAWAY or breaks the connection; how many pieces went out."""
        n = 0
        for piece in pieces:
            if self.goaway is not None or self.end or not self.send(piece):
                break
            n += 1
            if n % 16 == 0 or len(piece) > 4096:
                while self.take():
                    pass
        while self.goaway is None and not self.end:
            if not self.take(5 * net.SLOW) and not self.end:
                raise AssertionError("no GOAWAY and no reset after %d pieces, %d bytes" % (n, self.sent))
        return n

    def calmed(self):
        """The outcome of a flood: told so, then closed."""
        end = time.monotonic() + 10 * net.SLOW
        while not self.end and time.monotonic() < end:
            self.take(0.2)
        if self.end == "reset" and self.sent > MIB:
            return   # more than is read for a GOAWAY to arrive safely; the counters say what it was
        assert self.goaway == CALM, "goaway=%s end=%s" % (self.goaway, self.end)
        assert self.end, "the connection stays open after the GOAWAY"


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    p = Pki(tmp_path_factory.mktemp("pki"))
    p.server = p.make("server")
    return p


@pytest.fixture(params=WAYS)
def proxy(request, start, origin, pki):
    """proxy(**server) -> a proxy that has /b/small and /b/big in its cache; it listens in cleartext, and where the
    attackers come with TLS for that as well."""
    def begin(**server):
        origin.put("/b/small", SMALL)
        origin.put("/b/big", BIG)
        port = net.free_port()
        listen = ["127.0.0.1:@PORT@", {"address": "127.0.0.1:%d" % port,
                                       "tls": {"certificate": pki.server[0], "key": pki.server[1]}}]
        tls = request.param == "tls"
        conf = proxy_module.config(0, {"type": "http", "endpoint": origin.url},
                                   server={**server, "listen": listen if tls else listen[:1]})
        p = start(None, text=yaml.safe_dump(conf, sort_keys=False))
        p.attacked, p.attack_tls = (("127.0.0.1", port), ssl.create_default_context(cafile=str(pki.ca))) if tls else (
            p.address, None)
        if tls:
            p.attack_tls.set_alpn_protocols(["h2"])
        p.get_checked("/b/small", SMALL)
        p.get_checked("/b/big", BIG)
        return p
    return begin


@pytest.fixture
def attack():
    made = []

    def begin(p, *args, **kw):
        made.append(Attacker(p.attacked, *args, tls=p.attack_tls, **kw))
        return made[-1]
    yield begin
    for a in made:
        a.close()


class Watch(threading.Thread):
    """The other client: small objects one after another on connections of its own, every byte compared; and the proxy's
    anonymous memory at its highest."""

    def __init__(self, p):
        super().__init__(daemon=True)
        self.p, self.over, self.served, self.slowest, self.error, self.peak = p, threading.Event(), 0, 0.0, None, 0

    def run(self):
        try:
            while True:
                began = time.monotonic()
                self.p.get_checked("/b/small", SMALL)
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.served += 1
                self.peak = max(self.peak, self.p.memory_kib()[1])
                if self.over.wait(0.01):
                    return
        except Exception as e:  # told by bounded()
            self.error = e


@contextlib.contextmanager
def bounded(p, memory_mib=24, cpu_s=1.0):
    memory, cpu = p.memory_kib()[1], p.cpu_seconds()
    w = Watch(p)
    w.start()
    try:
        yield w
    finally:
        w.over.set()
        w.join(30 * net.SLOW)
    assert w.error is None, "the other client: %r" % w.error
    assert w.served >= 1 and w.slowest < 2 * net.SLOW, (w.served, w.slowest)
    room_kib = memory_mib * 1024 * (8 if net.SANITIZER else 1)
    assert w.peak - memory < room_kib, "RssAnon went from %d to %d KiB" % (memory, w.peak)
    used = p.cpu_seconds() - cpu
    assert used < cpu_s * net.SLOW, "%.2f s of CPU time" % used


def counted(p, kind, n=1):
    floods = p.stats()["http2"]["floods"]
    assert floods == {**dict.fromkeys(floods, 0), kind: n}, floods


def nobody_left(p, *attackers):
    """No stream and no connection of HTTP/2 remains once the attackers are gone; they may go at once (no lingering)."""
    for a in attackers:
        a.close()
    net.wait_until("the connections are gone", lambda: p.stats()["connections"]["h2"] == 0)
    net.wait_until("the requests are gone", lambda: p.stats()["requests"]["in_flight"] <= 1)  # this one


def resets(path):
    for i in range(20000):
        yield frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head(path(i))) + frame(RST_STREAM, 0, 2 * i + 1, u32(CANCEL))


@EVERYWHERE
@pytest.mark.parametrize("what", ["cached", "absent", "origin"])
def test_rapid_reset(proxy, origin, attack, what):
    p = proxy()
    gate = threading.Event()
    origin.on(when=lambda rec: rec.path.startswith("/b/slow"), gate=gate)
    path = {"cached": lambda i: "/b/big", "absent": lambda i: "/b/none", "origin": lambda i: "/b/slow%d" % i}[what]
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0))
    try:
        with bounded(p):
            n = a.flood(resets(path))
            a.calmed()
    finally:
        gate.set()
    assert n < 2000
    counted(p, "RESET")
    assert p.stats()["http2"]["resets_received"] >= 400
    nobody_left(p, a)


def test_resets_that_the_proxy_is_made_to_send(proxy, attack):
    """The same without a single RST_STREAM of the client's: it makes the proxy reset (MadeYouReset)."""
    p = proxy()
    a = attack(p)

    def pieces():
        for i in range(20000):
            yield (frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/b/big"))
                   + frame(WINDOW_UPDATE, 0, 2 * i + 1, u32(0x7fffffff)))  # beyond 2^31 - 1
    with bounded(p):
        a.flood(pieces())
        a.calmed()
    counted(p, "RESET")
    nobody_left(p, a)


def field(size):
    """One field in so many bytes: few of them, so that it is the block that is too large, not the list."""
    if size < 200:
        return b"\x82"[:size]
    n = size - 6 - 127
    return b"\x00\x01x\x7f" + bytes([n & 0x7f | 0x80, n >> 7]) + b"v" * (n + 127)


@pytest.mark.parametrize("size", [0, 1, 1000, 16384])
def test_continuation_flood(proxy, attack, size):
    p = proxy()
    a = attack(p)

    def pieces():
        yield frame(HEADERS, 0, 1, head())
        while True:
            yield frame(CONTINUATION, 0, 1, field(size))
    with bounded(p):
        n = a.flood(pieces())
        a.calmed()
    assert n < 500
    counted(p, "CONTINUATION")
    nobody_left(p, a)


def repeat(piece, times=2_000_000):
    for _ in range(times):
        yield piece


def entries(n, window=65535):
    return frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, window) * n)


@pytest.mark.parametrize("kind, one", [
    ("SETTINGS", frame(SETTINGS)),
    ("SETTINGS", entries(32)),
    ("PING", frame(PING, 0, 0, b"12345678")),
    ("PING", frame(PING, ACK, 0, b"12345678")),
    ("PRIORITY", frame(PRIORITY, 0, 1001, u32(0) + b"\x10")),
    ("PRIORITY", frame(0xee, 0, 0, b"unknown")),
    ("WINDOW", frame(WINDOW_UPDATE, 0, 0, u32(1))),
], ids=["settings", "settings-full", "ping", "ping-ack", "priority", "unknown", "window"])
@pytest.mark.parametrize("reads", [True, False], ids=["reads", "deaf"])
def test_cheap_frames(proxy, attack, kind, one, reads):
    p = proxy()
    a = attack(p)
    with bounded(p):
        if reads:
            a.flood(repeat(one * 10))
        else:
            for _ in range(300):
                if not a.send(one * 10):
                    break
        net.wait_until("it was counted", lambda: p.stats()["http2"]["floods"][kind] == 1)
        if a.end != "reset":  # a client that goes on sending may lose the GOAWAY
            a.calmed()
    assert a.sent < 8 * MIB
    counted(p, kind)
    nobody_left(p, a)


def test_too_many_settings_at_once(proxy, attack):
    """One frame is enough."""
    p = proxy(http2={"settings_entries": 40})
    with bounded(p):
        good = attack(p)
        good.send(entries(40, MIB) + frame(WINDOW_UPDATE, 0, 0, u32(MIB)) + frame(HEADERS, END_HEADERS | END_STREAM, 1, head()))
        good.until("a whole object", lambda: 1 in good.ended)
        assert good.goaway is None
        counted(p, "SETTINGS", 0)
        a = attack(p)
        a.send(entries(41))
        a.calmed()
        counted(p, "SETTINGS")
        b = attack(p)
        b.send(entries(2730))
        b.calmed()
    counted(p, "SETTINGS", 2)
    assert p.stats()["http2"]["protocol_errors"] == 0
    nobody_left(p, good, a, b)


@pytest.mark.parametrize("one", [frame(DATA, 0, 1), frame(DATA, PADDED, 1, b"\x00"), frame(DATA, PADDED, 1, b"\x09" + bytes(9))],
                         ids=["empty", "padding-0", "padding"])
def test_empty_data(proxy, attack, one):
    p = proxy()
    a = attack(p)
    a.send(frame(HEADERS, END_HEADERS, 1, head("/b/up", "PUT")))
    with bounded(p):
        n = a.flood(repeat(one))
        a.calmed()
    assert n < 2000
    counted(p, "EMPTY")
    nobody_left(p, a)


def bomb(stream, references, first):
    """A field of 3.5 KiB into the table once, then references to it of one byte each."""
    block = head()
    if first:
        block += b"\x40\x01x" + b"\x7f" + bytes([(3500 - 127) & 0x7f | 0x80, (3500 - 127) >> 7]) + b"v" * 3500
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, block + b"\xbe" * references)


@EVERYWHERE
def test_hpack_bomb(proxy, attack):
    """12,000 references, 42 MB of fields: that is no mistake, the connection ends."""
    p = proxy()
    a = attack(p)
    with bounded(p):
        a.send(bomb(1, 12000, True))
        a.calmed()
    assert not a.status
    counted(p, "HEAD")
    assert p.stats()["http2"]["heads_too_large"] == 1
    nobody_left(p, a)


def test_hpack_bombs_in_trailers(proxy, attack):
    """Nobody looks at trailers; to inflate them would cost as much as if somebody did. A reset each, until there are too
    many."""
    p = proxy()
    a = attack(p)
    field = b"\x40\x01x" + b"\x7f" + bytes([(3500 - 127) & 0x7f | 0x80, (3500 - 127) >> 7]) + b"v" * 3500

    def trailers():
        for i in range(500):
            stream = 2 * i + 1
            yield (frame(HEADERS, END_HEADERS, stream, head("/b/up", "PUT"))
                   + frame(HEADERS, END_HEADERS | END_STREAM, stream, (b"" if i else field) + b"\xbe" * 12000))
    with bounded(p):
        a.flood(trailers())
        a.calmed()
    counted(p, "HEAD")
    assert 16 <= p.stats()["http2"]["heads_too_large"] <= 40
    nobody_left(p, a)


def test_hpack_bombs_that_are_small(proxy, attack):
    """20 references, 70 KB: an answer each, until there are too many."""
    p = proxy()
    a = attack(p)
    with bounded(p):
        a.send(bomb(1, 20, True))
        a.until("431", lambda: a.status.get(1) == "431")
        assert p.stats()["http2"]["heads_too_large"] == 1
        a.flood(bomb(2 * i + 1, 20, False) for i in range(1, 500))
        a.calmed()
    counted(p, "HEAD")
    assert 16 <= p.stats()["http2"]["heads_too_large"] <= 40
    nobody_left(p, a)


def large(stream):
    # plain literals of 1000 bytes: 40,000 bytes against limits.head_size of 32 KiB, in three frames
    block = head() + b"".join(b"\x00\x04x-%02d" % i + b"\x7f\xe9\x06" + b"v" * 1000 for i in range(40))
    parts = [block[i:i + 16000] for i in range(0, len(block), 16000)]
    out = frame(HEADERS, END_STREAM, stream, parts[0])
    for part in parts[1:]:
        out += frame(CONTINUATION, END_HEADERS if part is parts[-1] else 0, stream, part)
    return out


def test_header_list_too_large(proxy, attack):
    p = proxy()
    a = attack(p)
    with bounded(p):
        a.send(large(1))
        a.until("431", lambda: a.status.get(1) == "431")
        a.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, head("/b/none")))  # the connection still serves
        a.until("404", lambda: a.status.get(3) == "404")
        assert p.stats()["http2"]["heads_too_large"] == 1
        counted(p, "HEAD", 0)
        a.flood(large(2 * i + 1) for i in range(2, 500))
        a.calmed()
    counted(p, "HEAD")
    nobody_left(p, a)


@EVERYWHERE
def test_zero_windows(proxy, attack):
    p = proxy(timeouts={"send": "1s"})
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0))
    streams = [2 * i + 1 for i in range(64)]
    with bounded(p):
        for s in streams:
            a.send(frame(HEADERS, END_HEADERS | END_STREAM, s, head("/b/big")))
        a.until("all reset", lambda: len(a.resets) == 64)
    assert set(a.resets.values()) == {CANCEL} and set(a.status.values()) == {"200"}
    assert not a.data and a.goaway is None
    assert p.stats()["http2"]["stalled"] == 64
    a.send(frame(WINDOW_UPDATE, 0, 0, u32(MIB)) + frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW, MIB))
           + frame(HEADERS, END_HEADERS | END_STREAM, 201, head()))  # nothing of the connection is spoiled
    a.until("a whole object", lambda: 201 in a.ended)
    assert a.data[201] == SMALL


def test_no_window_for_the_connection(proxy, attack):
    """Stream windows as large as can be, and the connection's 65,535 bytes never renewed."""
    p = proxy(timeouts={"send": "1s"})
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0x7fffffff))
    with bounded(p):
        for i in range(32):
            a.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/b/big")))
        a.until("all reset", lambda: len(a.resets) == 32)
    assert set(a.resets.values()) == {CANCEL} and sum(a.data.values()) == 65535
    assert p.stats()["http2"]["stalled"] == 32


def test_one_byte_windows(proxy, attack):
    p = proxy(timeouts={"send": "1s"})
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 1))
    streams = [2 * i + 1 for i in range(16)]
    with bounded(p):
        for s in streams:
            a.send(frame(HEADERS, END_HEADERS | END_STREAM, s, head("/b/big")))
        end = time.monotonic() + 10 * net.SLOW
        while len(a.resets) < 16 and time.monotonic() < end:
            a.send(b"".join(frame(WINDOW_UPDATE, 0, s, u32(1)) for s in streams if s not in a.resets))
            time.sleep(0.05)
            while a.take():
                pass
    assert a.goaway is None, a.goaway
    assert len(a.resets) == 16 and set(a.resets.values()) == {CANCEL}
    assert 16 < sum(a.data.values()) < 16 * 1024
    assert p.stats()["http2"]["stalled"] == 16


def test_one_byte_at_a_time_for_the_connection(proxy, attack):
    """The streams' windows are large, the connection's grows by a byte now and then: less than http2.send_min for all."""
    p = proxy(timeouts={"send": "1s"})
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0x7fffffff))
    with bounded(p):
        for i in range(16):
            a.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/b/big")))
        a.until("the first window", lambda: sum(a.data.values()) == 65535)
        end = time.monotonic() + 10 * net.SLOW
        while len(a.resets) < 16 and time.monotonic() < end:
            a.send(frame(WINDOW_UPDATE, 0, 0, u32(1)))
            time.sleep(0.02)
            while a.take():
                pass
    assert set(a.resets.values()) == {CANCEL} and len(a.resets) == 16 and a.goaway is None
    assert p.stats()["http2"]["stalled"] == 16


@pytest.mark.nosan   # compares CPU times
def test_a_drip_costs_no_more_than_as_many_requests(proxy, attack):
    """WINDOW_UPDATE of one byte as fast as can be: a frame and a write for each byte, but only so many of them. What they
    cost is compared with what an ordinary client's requests do."""
    p = proxy()
    good = attack(p)
    before = p.cpu_seconds()
    for i in range(2500):
        good.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/b/small", "HEAD")))
        good.until("an answer", lambda i=i: 2 * i + 1 in good.ended)
    usual = p.cpu_seconds() - before
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 1))
    a.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head("/b/big")))
    before, drops = p.cpu_seconds(), 0
    while a.goaway is None and not a.end and drops < 20000:
        a.send(frame(WINDOW_UPDATE, 0, 1, u32(1)))
        drops += 1
        a.take(0.001)
    a.calmed()
    cost = p.cpu_seconds() - before
    counted(p, "WINDOW")
    assert a.data[1] <= drops + 1
    # 2000 at once, then 200 a second: how many they were depends on how long it took
    assert cost < 0.1 + 3 * usual * drops / 2500, "%.2f s for %d drops, %.2f s for 2500 requests" % (cost, drops, usual)
    nobody_left(p, a, good)


def test_a_drip_by_settings(proxy, attack):
    """The same with SETTINGS that let the window grow by one."""
    p = proxy()
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0))
    a.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, head("/b/big")))
    with bounded(p):
        n = a.flood(entries(1, i) for i in range(1, 100000))
        a.calmed()
    assert n < 1000
    counted(p, "SETTINGS")
    nobody_left(p, a)


@EVERYWHERE
def test_a_client_that_does_not_read(proxy, attack):
    """Windows without end, and nothing taken from the socket."""
    p = proxy(timeouts={"send": "1s"})
    a = attack(p, struct.pack(">HI", INITIAL_WINDOW, 0x7fffffff), rcvbuf=4096)
    with bounded(p):
        a.send(frame(WINDOW_UPDATE, 0, 0, u32(0x7fffffff - 65535)))
        for i in range(64):
            a.send(frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, head("/b/big")))
        net.wait_until("it is thrown out", lambda: p.stats()["http2"]["timeouts"] == 1)
    end = time.monotonic() + 10 * net.SLOW
    while not a.end and time.monotonic() < end:
        a.take(0.2)
    assert a.end == "reset" and len(a.ended) < 64
    nobody_left(p, a)


def test_half_open_streams(proxy, attack):
    """Bodies that never come: no more streams than allowed, and none for longer than the body's timeout."""
    p = proxy(timeouts={"body": "1s"}, http2={"max_streams": 32})
    a = attack(p)
    with bounded(p):
        for i in range(100):
            a.send(frame(HEADERS, END_HEADERS, 2 * i + 1, head("/b/up%d" % i, "PUT", [("content-length", "1000000")])))
        a.until("the surplus is refused", lambda: list(a.resets.values()).count(REFUSED_STREAM) == 68)
        assert p.stats()["requests"]["in_flight"] <= 33
        a.until("all ended", lambda: len(set(a.resets) | a.ended) == 100)
    assert all(a.status.get(s, "408") == "408" for s in range(1, 64, 2)), a.status
    assert p.stats()["http2"]["timeouts"] == 32
    nobody_left(p, a)


@pytest.mark.parametrize("piece", [frame(HEADERS, 0, 1, head()), frame(HEADERS, END_HEADERS | END_STREAM, 1, head())[:-1]],
                         ids=["no-continuation", "last-byte-missing"])
def test_header_block_without_end(proxy, attack, piece):
    p = proxy(timeouts={"head": "1s"})
    a = attack(p)
    with bounded(p):
        a.send(piece)
        a.until("GOAWAY", lambda: a.goaway is not None)
        a.calmed()
    assert p.stats()["http2"]["timeouts"] == 1
    nobody_left(p, a)


@pytest.mark.parametrize("piece", [PREFACE, PREFACE + frame(SETTINGS, 0, 0, bytes(6))[:12]], ids=["preface", "half"])
def test_settings_that_do_not_come(proxy, attack, piece):
    p = proxy(timeouts={"head": "1s"})
    crowd = [attack(p, preface=False) for _ in range(50)]
    with bounded(p):
        for a in crowd:
            a.send(piece)
        for a in crowd:
            a.until("GOAWAY", lambda a=a: a.goaway is not None)
            assert a.goaway == SETTINGS_TIMEOUT
    assert p.stats()["http2"]["timeouts"] == 50
    nobody_left(p, *crowd)
