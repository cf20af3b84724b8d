"""HTTP/1.1 by hand: requests as exact bytes, responses parsed strictly, so that what the proxy really sends is judged."""
import socket
import ssl
import time

from content import Checker


class Response:
    def __init__(self, version, status, reason, headers):
        self.version, self.status, self.reason, self.headers = version, status, reason, headers
        self.body = b""
        self.complete = False

    def get(self, name, default=None):
        for n, v in self.headers:
            if n.lower() == name.lower():
                return v
        return default

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    def __repr__(self):
        return "<%s %s %d bytes, complete=%s>" % (self.status, self.headers, len(self.body), self.complete)


class Broken(Exception):
    """The connection ended or broke before the response was whole. `response` has what came."""

    def __init__(self, what, response=None):
        super().__init__(what)
        self.response = response


class Conn:
    def __init__(self, address, timeout=20, rcvbuf=None, tls=None):
        """tls: an ssl.SSLContext. An end without close_notify is then no end but a reset."""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.sock = tls.wrap_socket(self.sock, server_hostname="localhost", suppress_ragged_eofs=False)
        except BaseException:
            self.sock.close()
            raise
        self.at_once = 16384 if tls else 1 << 20   # of TLS no more than a record comes at once
        self.buf, self.streamed = b"", False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, (bytes, memoryview)) else data.encode("latin-1"))

    def request(self, method, target, headers=(), body=None, host="proxy.test", version="HTTP/1.1", streamed=False):
        """streamed: send_part() and send_end() give a body of unknown length."""
        lines = ["%s %s %s" % (method, target, version)]
        headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        if host is not None and not any(n.lower() == "host" for n, _ in headers):
            lines.append("Host: " + host)
        lines += ["%s: %s" % h for h in headers]
        if streamed:
            lines.append("Transfer-Encoding: chunked")
        if body is not None and not any(n.lower() in ("content-length", "transfer-encoding") for n, _ in headers):
            lines.append("Content-Length: %d" % len(body))
        self.send("\r\n".join(lines) + "\r\n\r\n")
        if body:
            self.send(body)

    def send_part(self, data):
        self.send(b"%x\r\n" % len(data) + data + b"\r\n")

    def send_end(self):
        self.send(b"0\r\n\r\n")

    def _more(self, response=None):
        try:
            data = self.sock.recv(self.at_once)
        except (ConnectionResetError, ssl.SSLEOFError):
            raise Broken("reset", response) from None
        if not data:
            raise Broken("closed", response)
        self.buf += data

    def _line(self, response=None):
        while b"\r\n" not in self.buf:
            self._more(response)
        line, self.buf = self.buf.split(b"\r\n", 1)
        return line.decode("latin-1")

    def head(self):
        version, status, *reason = self._line().split(" ", 2)
        headers = []
        while True:
            line = self._line()
            if not line:
                break
            name, colon, value = line.partition(":")
            assert colon and name and name == name.strip(), "malformed field line %r" % line
            headers.append((name, value.strip()))
        r = Response(version, int(status), reason[0] if reason else "", headers)
        cl, te = r.all("content-length"), r.all("transfer-encoding")
        assert len(cl) <= 1, "repeated Content-Length: %r" % headers
        assert not (cl and te), "Content-Length with Transfer-Encoding: %r" % headers
        return r

    def response(self, method="GET", checker=None, pause=None):
        """The next final response with its body (kept unless a Checker takes it). Broken if it is not whole."""
        r = self.head()
        while 100 <= r.status < 200:
            r = self.head()
        self.body(r, method, checker, pause)
        return r

    def body(self, r, method="GET", checker=None, pause=None):
        """pause: called with the count of body bytes after each piece, to read slowly."""
        kept, got = [], 0
        try:
            for data in self.pieces(r, method):
                got += len(data)
                if checker:
                    checker.feed(data)
                else:
                    kept.append(data)
                if pause:
                    pause(got)
        finally:
            r.body = b"".join(kept)

    def pieces(self, r, method="GET"):
        """The body as it comes. Broken if it is not whole."""
        if method == "HEAD" or r.status in (204, 304):
            pass
        elif (r.get("transfer-encoding") or "").lower() == "chunked":
            yield from self._chunks(r)
        elif r.get("content-length") is not None:
            left = int(r.get("content-length"))
            while left:
                if not self.buf:
                    self._more(r)
                data, self.buf = self.buf[:left], self.buf[left:]
                left -= len(data)
                yield data
        else:
            try:
                while True:
                    if not self.buf:
                        self._more(r)
                    data, self.buf = self.buf, b""
                    yield data
            except Broken as e:
                if str(e) != "closed":
                    raise
        r.complete = True

    def _chunks(self, r):
        while True:
            n = int(self._line(r).split(";")[0], 16)
            while len(self.buf) < n + 2:
                self._more(r)
            assert self.buf[n:n + 2] == b"\r\n", "chunk does not end with CRLF"
            data, self.buf = self.buf[:n], self.buf[n + 2:]
            if n == 0:
                break
            yield data

    def rest(self, timeout=5):
        """Everything until the other side closes; (bytes, "closed"|"reset"|"open")."""
        end, data, self.buf = time.monotonic() + timeout, self.buf, b""
        try:
            while True:
                self.sock.settimeout(max(0.01, end - time.monotonic()))
                more = self.sock.recv(65536)
                if not more:
                    return data, "closed"
                data += more
        except (ConnectionResetError, ssl.SSLEOFError):
            return data, "reset"
        except (TimeoutError, socket.timeout):
            return data, "open"

    def is_closed(self, timeout=5):
        """True when the other side closed and sent nothing more."""
        data, how = self.rest(timeout)
        return how != "open" and not data


def ask(c, method, target, headers=(), body=None, checker=None, pause=None, **kw):
    """One request on a new connection of any protocol, which is closed then."""
    with c:
        c.request(method, target, headers, body, **kw)
        return c.response(method, checker, pause)


def ask_checked(c, path, size, first=0, length=None, versions=(1,), pause=None, headers=()):
    """GET (a range of) a pool object and compare every byte. Returns (response, version that it was)."""
    if length is None:
        length = size - first
    whole = first == 0 and length == size
    h = list(headers.items()) if isinstance(headers, dict) else list(headers)
    if not whole:
        h.append(("Range", "bytes=%d-%d" % (first, first + length - 1)))
    check = Checker(path, first, versions)
    r = ask(c, "GET", path, h, None, check, pause)
    assert r.status == (200 if whole else 206), r
    assert check.position == length, "%s: %d of %d bytes" % (path, check.position, length)
    if not whole:
        assert r.get("content-range") == "bytes %d-%d/%d" % (first, first + length - 1, size), r
    return r, check.versions[0]


# over HTTP/1.1 in cleartext

def fetch(address, method, target, headers=(), body=None, checker=None, timeout=20, **kw):
    return ask(Conn(address, timeout), method, target, headers, body, checker, **kw)


def get(address, target, headers=(), **kw):
    return fetch(address, "GET", target, headers, **kw)


def get_checked(address, path, size, first=0, length=None, timeout=60, rcvbuf=None, **kw):
    return ask_checked(Conn(address, timeout, rcvbuf), path, size, first, length, **kw)
