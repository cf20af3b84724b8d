"""A scriptable HTTP/1.1 origin with the manners of S3, one thread per connection.

It serves objects whose bytes are computed (content.py), keeps a record of every request with the bytes really sent, and
misbehaves where a test told it to: `origin.on(...)` adds a rule, the first rule that matches and is not used up decides.

    origin.put("/b/k", 64 << 20)
    origin.on(path="/b/k", nth=2, cut_after=1000, cut="rst")
    origin.bytes_sent("/b/k")
"""
import email.utils
import hashlib
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse

from content import Checker, content, runs

S3_DATE = "Wed, 12 Oct 2022 17:50:00 GMT"


class Object:
    """One object. `data` None: bytes from the pool, by path and version."""

    def __init__(self, path, size, version=1, data=None, etag=None, headers=None, last_modified=S3_DATE):
        self.path, self.version, self.data = path, version, data
        self.size = size if data is None else len(data)
        if etag is None:
            etag = '"%s"' % hashlib.md5(("%s %d %d" % (path, version, self.size)).encode() + (data or b"")).hexdigest()
        self.etag = etag            # "" = no ETag field
        self.headers = dict(headers or {})
        self.last_modified = last_modified  # None = no field

    def chunks(self, first, length):
        if self.data is not None:
            yield memoryview(self.data)[first:first + length]
        else:
            yield from runs(self.path, self.version, first, length)

    def body(self):
        return self.data if self.data is not None else content(self.path, self.version, 0, self.size)


class Record:
    """What one request was and what became of it. Fields are complete once `done` is set."""

    def __init__(self, conn, number, method, target, version, headers):
        self.conn, self.number = conn, number  # connection id, number of the request on it (1..)
        self.method, self.target, self.version = method, target, version
        self.headers = headers                 # [(name, value)] as received
        self.path = target.split("?", 1)[0]
        self.query = target.split("?", 1)[1] if "?" in target else ""
        self.started = time.monotonic()
        self.status = None
        self.sent = 0                          # body bytes handed to the kernel
        self.received = 0                      # request body bytes
        self.body = b""                        # request body, when small
        self.body_ok = None                    # result of expect_upload
        self.range = None                      # (first, last) answered
        self.error = None
        self.done = threading.Event()

    def get(self, name, default=None):
        for n, v in self.headers:
            if n.lower() == name.lower():
                return v
        return default

    def all(self, name):
        return [v for n, v in self.headers if n.lower() == name.lower()]

    @property
    def range_header(self):
        return self.get("range")

    def range_start(self):
        r = self.range_header
        if not r or not r.startswith("bytes=") or r[6] == "-":
            return None
        return int(r[6:].split("-")[0])

    def __repr__(self):
        return "<%s %s range=%s if-match=%s -> %s sent=%d conn=%d#%d>" % (
            self.method, self.target, self.range_header, self.get("if-match"), self.status, self.sent, self.conn,
            self.number)


class Rule:
    """When (method, path, when) and for how often (times; nth = only the nth match), and what then. What:

    delay=s             before the head                  gate=Event       wait for it before the head
    mid_delay=(n, s)    pause after n body bytes         mid_gate=(n, Event)
    cut_after=n         close after n body bytes, cut="fin"|"rst"; n counts from this response's first byte
    close=True          close without any answer ("fin"|"rst" too)
    never=True          never answer; the connection stays open
    status, body, headers   this answer instead of the object's; `headers` alone are added to the normal answer
    drop=(names)        fields left out of the normal answer
    content_length=n    the field says n whatever is sent
    content_range=text  the field says that
    ignore_range=True   200 with the whole object        chunked=True     chunked body
    truncate=n          send only n body bytes but stay open (Content-Length as announced)
    trickle=(n, s)      n bytes at a time with s between head_trickle=(n, s) for the head
    raw=bytes           exactly these bytes, then close (keep=True: stay open)
    connection_close=True   announce and close           silent_close=True  close after the response, unannounced
    call=f(record)      called first, in the connection's thread
    """

    def __init__(self, method=None, path=None, when=None, times=None, nth=None, **what):
        self.method, self.path, self.when, self.times, self.nth = method, path, when, times, nth
        self.what, self.seen, self.used = what, 0, 0

    def matches(self, rec):
        if self.method and rec.method != self.method:
            return False
        if self.path and urllib.parse.unquote(rec.path) != self.path and rec.path != self.path:
            return False
        if self.when and not self.when(rec):
            return False
        self.seen += 1
        if self.nth is not None and self.seen != self.nth:
            return False
        if self.times is not None and self.used >= self.times:
            return False
        self.used += 1
        return True


class _Close(Exception):
    pass


class Reader:
    """A buffer over a socket. Not makefile(): that would keep the descriptor open after close(), and a cut would not
    be one."""

    def __init__(self, sock):
        self.sock, self.buf = sock, b""

    def readline(self, limit):
        while b"\n" not in self.buf and len(self.buf) < limit:
            more = self.sock.recv(65536)
            if not more:
                break
            self.buf += more
        end = self.buf.find(b"\n") + 1 or len(self.buf)
        line, self.buf = self.buf[:end], self.buf[end:]
        return line

    def read1(self, n):
        if self.buf:
            data, self.buf = self.buf[:n], self.buf[n:]
            return data
        return self.sock.recv(n)


def reset(sock):
    """Close with a RST."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass
    sock.close()


class Origin:
    def __init__(self, tls=None, host="127.0.0.1", port=0):
        """tls: an ssl.SSLContext for a server."""
        self.tls = tls
        self.lock = threading.RLock()
        self.objects, self.rules, self.records, self.uploads = {}, [], [], {}
        self.connections = 0            # accepted so far
        self.open = {}                  # id -> socket
        self.throttle = None            # bytes per second and connection
        self.first_byte_delay = 0.0
        self.stopping = threading.Event()
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(1024)
        self.host, self.port = self.listener.getsockname()
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    # what tests call

    @property
    def url(self):
        return "%s://%s:%d" % ("https" if self.tls else "http", self.host, self.port)

    def put(self, path, size=0, version=1, **kw):
        o = Object(path, size, version, **kw)
        with self.lock:
            self.objects[path] = o
        return o

    def on(self, method=None, path=None, when=None, times=None, nth=None, **what):
        r = Rule(method, path, when, times, nth, **what)
        with self.lock:
            self.rules.append(r)
        return r

    def clear_rules(self):
        with self.lock:
            self.rules.clear()

    def clear_log(self):
        with self.lock:
            self.records.clear()

    def expect_upload(self, path, version=1):
        """The next PUT bodies of that path are compared with content(path, version)."""
        with self.lock:
            self.uploads[path] = version

    def log(self, path=None, method=None):
        with self.lock:
            return [r for r in self.records if (path is None or r.path == path)
                    and (method is None or r.method == method)]

    def count(self, path=None, method=None):
        return len(self.log(path, method))

    def bytes_sent(self, path=None):
        """Body bytes so far. A client may have its last byte before the sending thread has counted it: that much
        patience, no more (some requests never end)."""
        end = time.monotonic() + 0.5
        for r in self.log(path):
            r.done.wait(max(0, end - time.monotonic()))
        return sum(r.sent for r in self.log(path))

    def settle(self, timeout=10):
        """Wait until no request is under way."""
        end = time.monotonic() + timeout
        for r in self.log():
            if not r.done.wait(max(0, end - time.monotonic())):
                raise AssertionError("origin: still busy with %r" % r)

    def close_idle(self):
        """FIN on every open connection that waits for a request. Returns how many."""
        with self.lock:
            busy = {r.conn for r in self.records if not r.done.is_set()}
            idle = [s for c, s in self.open.items() if c not in busy]
        for s in idle:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        return len(idle)

    def stop(self):
        self.stopping.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        with self.lock:
            for s in list(self.open.values()):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        self.thread.join(5)

    # connections

    def _accept(self):
        while not self.stopping.is_set():
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                conn = self.connections
            threading.Thread(target=self._connection, args=(s, conn), daemon=True).start()

    def _connection(self, s, conn):
        try:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                s.settimeout(10)
                s = self.tls.wrap_socket(s, server_side=True)
                s.settimeout(None)
            with self.lock:
                self.open[conn] = s
            reader, number = Reader(s), 0
            while not self.stopping.is_set():
                number += 1
                if not self._one(s, reader, conn, number):
                    break
        except (OSError, _Close, ValueError, ssl.SSLError):
            pass
        finally:
            with self.lock:
                self.open.pop(conn, None)
            self._finish(s)

    @staticmethod
    def _finish(s):
        """FIN rather than RST, whatever the other side had still sent: what we sent must arrive."""
        try:
            s.shutdown(socket.SHUT_WR)
            s.settimeout(1)
            while s.recv(65536):
                pass
        except (OSError, ValueError):
            pass
        try:
            s.close()
        except OSError:
            pass

    def _one(self, s, reader, conn, number):
        line = reader.readline(65536)
        if not line:
            return False
        parts = line.decode("latin-1").split()
        if len(parts) != 3:
            return False
        headers = []
        while True:
            h = reader.readline(65536)
            if not h:
                return False
            if h in (b"\r\n", b"\n"):
                break
            name, _, value = h.decode("latin-1").partition(":")
            headers.append((name, value.strip()))
        rec = Record(conn, number, parts[0], parts[1], parts[2], headers)
        with self.lock:
            self.records.append(rec)
            what = next((r.what for r in self.rules if r.matches(rec)), {})
        try:
            return self._answer(s, reader, rec, what)
        except (OSError, _Close) as e:
            rec.error = repr(e)
            return False
        finally:
            rec.done.set()

    def _read_body(self, s, reader, rec, what):
        if (rec.get("expect") or "").lower() == "100-continue" and not what.get("no_continue"):
            s.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        check = Checker(rec.path, 0, [self.uploads[rec.path]]) if rec.path in self.uploads else None
        small = bytearray()

        def take(data):
            rec.received += len(data)
            if check and rec.body_ok is not False:
                try:
                    check.feed(data)
                    rec.body_ok = True
                except AssertionError as e:
                    rec.body_ok, rec.error = False, str(e)
            if rec.received <= 1 << 24:
                small.extend(data)

        if "chunked" in (rec.get("transfer-encoding") or "").lower():
            while True:
                n = int(reader.readline(1000).split(b";")[0], 16)
                left = n
                while left:
                    d = reader.read1(min(left, 1 << 20))
                    if not d:
                        raise _Close
                    take(d)
                    left -= len(d)
                if n == 0:
                    while reader.readline(65536) not in (b"\r\n", b"\n", b""):
                        pass
                    break
                reader.readline(10)
        else:
            left = int(rec.get("content-length") or 0)
            while left:
                d = reader.read1(min(left, 1 << 20))
                if not d:
                    raise _Close
                take(d)
                left -= len(d)
                if "read_delay" in what:
                    time.sleep(what["read_delay"])
        rec.body = bytes(small)

    def _answer(self, s, reader, rec, what):
        if "call" in what:
            what["call"](rec)
        if what.get("close"):
            if what["close"] == "rst":
                reset(s)
            raise _Close
        if "gate_body" in what:   # read nothing of the request body until then
            what["gate_body"].wait(60)
        if not what.get("early"):
            self._read_body(s, reader, rec, what)
        if what.get("never"):
            self._hold(s, reader)
            raise _Close
        if "gate" in what:
            what["gate"].wait(60)
        delay = what.get("delay", self.first_byte_delay)
        if delay:
            self.stopping.wait(delay)
        if "raw" in what:
            s.sendall(what["raw"])
            if what.get("keep"):
                self._hold(s, reader)
            raise _Close
        status, fields, chunks, length = self._response(rec, what)
        return self._send(s, reader, rec, what, status, fields, chunks, length)

    @staticmethod
    def _hold(s, reader):
        """Until the other side leaves."""
        s.settimeout(120)
        while reader.read1(65536):
            pass

    # answers

    def _response(self, rec, what):
        """-> status, [(name, value)], chunks, length (None = no body at all)"""
        if "status" in what:
            body = what.get("body", b"")
            return what["status"], list(what.get("headers", {}).items()), [memoryview(body)], len(body)
        path = rec.path if rec.path in self.objects else urllib.parse.unquote(rec.path)
        with self.lock:
            if rec.method == "PUT":
                return self._stored(rec, path)
            if rec.method == "DELETE":
                self.objects.pop(path, None)
                return 204, [], [], None
            o = self.objects.get(path)
        if rec.method == "POST":
            return 200, [("Content-Type", "application/xml")], [memoryview(b"<Result/>")], 9
        if o is None:
            return self._error(404, "NoSuchKey", "The specified key does not exist.")
        return self._object(rec, what, o)

    def _stored(self, rec, path):
        if path in self.uploads:
            o = Object(path, rec.received, self.uploads[path])
        else:
            o = Object(path, 0, data=rec.body)
        self.objects[path] = o
        return 200, [("ETag", o.etag)], [], 0

    @staticmethod
    def _error(status, code, message, extra=()):
        body = ('<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>'
                '<RequestId>0123456789ABCDEF</RequestId></Error>' % (code, message)).encode()
        return status, [("Content-Type", "application/xml"), *extra], [memoryview(body)], len(body)

    def _object(self, rec, what, o):
        fields = [("Content-Type", "binary/octet-stream"), ("Accept-Ranges", "bytes")]
        if o.last_modified:
            fields.append(("Last-Modified", o.last_modified))
        if o.etag:
            fields.append(("ETag", o.etag))
        fields += list(o.headers.items())
        fields += list(what.get("headers", {}).items())
        fields = [f for f in fields if f[0].lower() not in [d.lower() for d in what.get("drop", ())]]
        verdict = self._precondition(rec, o)
        if verdict == 412:
            return self._error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
        if verdict == 304:
            return 304, [f for f in fields if f[0].lower() not in ("content-type", "accept-ranges")], [], None
        r = rec.range_header
        first, last = 0, o.size - 1
        if not self._if_range(rec, o) or what.get("ignore_range"):
            r = None
        spec = re.fullmatch(r"bytes=(\d*)-(\d*)", r or "")
        if spec and spec.groups() != ("", "") and not (all(spec.groups()) and int(spec[1]) > int(spec[2])):
            a, b = spec.groups()
            if a == "":
                first, last = max(0, o.size - int(b)), o.size - 1
                bad = int(b) == 0
            else:
                first, last = int(a), min(int(b), o.size - 1) if b else o.size - 1
                bad = False
            if bad or first >= o.size:
                return self._error(416, "InvalidRange", "The requested range is not satisfiable",
                                   [("Content-Range", "bytes */%d" % o.size)])
            fields.append(("Content-Range", what.get("content_range", "bytes %d-%d/%d" % (first, last, o.size))))
            rec.range = (first, last)
            return 206, fields, o.chunks(first, last - first + 1), last - first + 1
        return 200, fields, o.chunks(0, o.size), o.size

    @staticmethod
    def _date(text):
        try:
            return email.utils.parsedate_to_datetime(text)
        except (TypeError, ValueError):
            return None

    def _precondition(self, rec, o):
        """RFC 9110 section 13.2.2 for GET and HEAD: 304, 412 or None."""
        tags = lambda value: [t.strip() for t in value.split(",")]
        im, inm = rec.get("if-match"), rec.get("if-none-match")
        modified = self._date(o.last_modified)
        since, unless = self._date(rec.get("if-modified-since")), self._date(rec.get("if-unmodified-since"))
        if im is not None:
            if im != "*" and (not o.etag or o.etag.startswith("W/") or o.etag not in tags(im)):
                return 412
        elif unless and modified and modified > unless:
            return 412
        if inm is not None:
            if inm == "*" or o.etag and o.etag.removeprefix("W/") in [t.removeprefix("W/") for t in tags(inm)]:
                return 304
        elif since and modified and modified <= since:
            return 304
        return None

    def _if_range(self, rec, o):
        value = rec.get("if-range")
        if value is None:
            return True
        if value.startswith('"'):
            return value == o.etag
        return value == o.last_modified

    def _send(self, s, reader, rec, what, status, fields, chunks, length):
        rec.status = status
        bodyless = rec.method == "HEAD" or status in (204, 304) or length is None
        head = ["HTTP/1.1 %d %s" % (status, what.get("reason", "X"))]
        if not any(n.lower() == "date" for n, _ in fields) and "date" not in [d.lower() for d in what.get("drop", ())]:
            fields = [("Date", email.utils.formatdate(usegmt=True)), *fields]
        head += ["%s: %s" % f for f in fields]
        head.append("x-amz-request-id: ORIGIN%d.%d" % (rec.conn, rec.number))
        head.append("Server: TestOrigin")
        if what.get("chunked"):
            head.append("Transfer-Encoding: chunked")
        elif what.get("until_close"):
            pass
        elif length is not None and "content_length" not in what:
            head.append("Content-Length: %d" % length)
        elif "content_length" in what:
            head.append("Content-Length: %s" % what["content_length"])
        if what.get("connection_close") or what.get("until_close"):
            head.append("Connection: close")
        raw = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")
        if "head_trickle" in what:
            n, pause = what["head_trickle"]
            for i in range(0, len(raw), n):
                s.sendall(raw[i:i + n])
                self.stopping.wait(pause)
        else:
            s.sendall(raw)
        if not bodyless:
            self._send_body(s, rec, what, chunks)
        if what.get("chunked") and not bodyless:
            s.sendall(b"0\r\n\r\n")
        if what.get("early"):
            self._read_body(s, reader, rec, what)
        if "truncate" in what:
            self._hold(s, reader)
            return False
        return not (what.get("connection_close") or what.get("silent_close") or what.get("until_close")
                    or (rec.get("connection") or "").lower() == "close")

    def _send_body(self, s, rec, what, chunks):
        stops = []   # (offset, action)
        if "mid_delay" in what:
            stops.append((what["mid_delay"][0], lambda: self.stopping.wait(what["mid_delay"][1])))
        if "mid_gate" in what:
            stops.append((what["mid_gate"][0], lambda: what["mid_gate"][1].wait(60)))
        if "mid_call" in what:
            stops.append((what["mid_call"][0], lambda: what["mid_call"][1](rec)))
        if "cut_after" in what:
            stops.append((what["cut_after"], lambda: self._cut(s, what)))
        if "truncate" in what:
            stops.append((what["truncate"], None))
        stops.sort(key=lambda x: x[0])
        step, pause = what.get("trickle", (None, 0))
        if self.throttle and not step:
            step = 256 << 10
        for chunk in chunks:
            at = 0
            while at < len(chunk):
                while stops and stops[0][0] <= rec.sent:
                    _, act = stops.pop(0)
                    if act is None:
                        return
                    act()
                n = min(len(chunk) - at, step or 1 << 20)
                if stops:
                    n = min(n, stops[0][0] - rec.sent)
                part = chunk[at:at + n]
                started = time.monotonic()
                if what.get("chunked"):
                    s.sendall(b"%x\r\n" % n + bytes(part) + b"\r\n")
                else:
                    s.sendall(part)
                rec.sent += n
                at += n
                if pause:
                    self.stopping.wait(pause)
                elif self.throttle:
                    rest = n / self.throttle - (time.monotonic() - started)
                    if rest > 0:
                        time.sleep(rest)
        while stops:
            _, act = stops.pop(0)
            if act is not None:
                act()

    @staticmethod
    def _cut(s, what):
        if what.get("cut", "fin") == "rst":
            reset(s)
        raise _Close
