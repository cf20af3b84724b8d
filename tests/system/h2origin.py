"""A scriptable origin that speaks HTTP/2 (python-h2) where it is asked to, and HTTP/1.1 like origin.py where not: in
cleartext the first bytes decide (prior knowledge), over TLS what ALPN chose. Objects, rules and the log are those of
origin.py; a record says `version` "HTTP/2" and has the stream (`sid`) and its connection (`h2`).

One thread per connection does all of its input and output (an SSL object is no thing for two), one thread per stream
answers. What python-h2 has to say against the proxy's frames is in `violations`, and fails the test at the end.

Rules beyond (and in place of) those of origin.py:

    reset=code           RST_STREAM instead of an answer (the request body is not read)
    cut_after=n          with cut="reset": RST_STREAM(code); "fin" and "rst" are the connection's
    end_after=n          END_STREAM after n bytes          extra=bytes     sent behind the body
    interim=[(status, fields)]  before the head            trailers=fields
    no_length=True       no Content-Length                 frames=f(record) -> bytes: these frames are the answer
    keep_open=True       with frames: the stream's thread does not end the record before the stream is gone
    upload_gate=Event    the request body is not acknowledged before that, so one window of it comes
    pad=n                DATA frames with so much padding
"""
import select
import socket
import ssl
import threading
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hpack
import hyperframe.frame
from content import Checker
from origin import Origin, Record, reset

Code = h2.errors.ErrorCodes
Setting = h2.settings.SettingCodes
OUT_BYTES = 512 << 10   # framed and not yet sent: more of it is not made


class Gone(Exception):
    """The stream or its connection is over."""


def block(fields):
    """A header block that leaves no trace in anybody's table."""
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(n, v) for n, v in fields])


def frame(kind, flags, sid, payload=b""):
    return (len(payload).to_bytes(3, "big") + bytes([kind, flags]) + sid.to_bytes(4, "big") + payload)


def headers_frame(sid, fields, end=False):
    return frame(1, 4 | (1 if end else 0), sid, block(fields))


def data_frame(sid, data, end=False):
    return frame(0, 1 if end else 0, sid, data)


class Stream:
    def __init__(self, sid):
        self.sid, self.data, self.ended, self.over = sid, [], False, False


class Connection:
    def __init__(self, origin, sock, number):
        self.origin, self.sock, self.number = origin, sock, number
        self.cond = threading.Condition(threading.RLock())
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=False, header_encoding="latin-1", validate_outbound_headers=False,
            normalize_outbound_headers=True))
        self.h2.decoder.max_header_list_size = 1 << 22
        self.out, self.streams = bytearray(), {}
        self.settled = False      # our settings were acknowledged
        self.last = None          # streams above are not answered any more (GOAWAY)
        self.cut, self.closed = None, False
        self.dead = origin.dead   # nothing is read or written, not even a PING answered
        self.pings = 0            # received
        self.peak = 0             # streams at once
        self.free_at = 0.0
        self.requests = 0
        self.wake_r, self.wake_w = socket.socketpair()
        self.wake_w.setblocking(False)

    # what tests call

    def goaway(self, last=None, code=Code.NO_ERROR):
        """Streams above `last` (the highest so far) are not answered."""
        with self.cond:
            if last is None:
                last = max(self.streams, default=0)
            self.last = last
            self.out += self.h2.data_to_send()
            self.out += hyperframe.frame.GoAwayFrame(0, last_stream_id=last, error_code=int(code)).serialize()
            self._wake()

    def raw(self, data):
        with self.cond:
            self.out += self.h2.data_to_send() + data
            self._wake()

    def settings(self, values):
        with self.cond:
            self.h2.update_settings(values)
            self._flush()

    def close(self, how="fin"):
        with self.cond:
            self.cut = how
            self._wake()

    # the connection's thread

    def run(self):
        with self.cond:
            want = {Setting.MAX_CONCURRENT_STREAMS: self.origin.max_streams, Setting.ENABLE_PUSH: 0,
                    Setting.INITIAL_WINDOW_SIZE: self.origin.initial_window, Setting.MAX_HEADER_LIST_SIZE: 1 << 22}
            self.h2.local_settings = h2.settings.Settings(client=False, initial_values={
                k: v for k, v in want.items() if v is not None})
            self.h2.initiate_connection()
            # Requests sent before the limit was known are refused one by one, as servers do, and are no violation.
            self.h2.local_settings[Setting.MAX_CONCURRENT_STREAMS] = 1 << 20
            self.h2.local_settings.acknowledge()
            self._flush()
        self.sock.setblocking(False)
        try:
            while not self.origin.stopping.is_set() and self._round():
                pass
        except h2.exceptions.ProtocolError as e:
            self.origin.violations.append("%s: %s" % (type(e).__name__, e))
        except (OSError, ValueError):
            pass
        finally:
            with self.cond:
                self.closed = True
                self.cond.notify_all()
            self.wake_r.close()
            if self.cut == "rst":
                reset(self.sock)
            else:
                self.sock.settimeout(None)

    def _round(self):
        if self.dead:
            time.sleep(0.01)
            return True
        with self.cond:
            want = bool(self.out)
            if self.cut and not want:
                return False
        readable, writable, _ = select.select([self.sock, self.wake_r], [self.sock] if want else [], [], 0.5)
        if self.wake_r in readable:
            self.wake_r.recv(4096)
        if writable:
            self._write()
        return self.sock not in readable or self._read()

    def _write(self):
        with self.cond:
            part = bytes(self.out[:1 << 18])
        try:
            n = self.sock.send(part)
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return
        with self.cond:
            del self.out[:n]
            if len(self.out) < OUT_BYTES:
                self.cond.notify_all()

    def _read(self):
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except (BlockingIOError, ssl.SSLWantReadError):
                return True
            if not data:
                return False
            with self.cond:
                for e in self.h2.receive_data(data):
                    self._event(e)
                self._flush()
                self.cond.notify_all()
            if not isinstance(self.sock, ssl.SSLSocket) or not self.sock.pending():
                return True

    def _event(self, e):
        s = self.streams.get(getattr(e, "stream_id", None))
        if isinstance(e, h2.events.RequestReceived):
            self._request(e)
        elif isinstance(e, h2.events.SettingsAcknowledged):
            self.settled = True
        elif isinstance(e, h2.events.PingReceived):
            self.pings += 1
        elif isinstance(e, h2.events.DataReceived):
            if s is None or s.over:
                self._acknowledge(e.stream_id, e.flow_controlled_length)
            else:
                s.data.append((e.data, e.flow_controlled_length))
        elif s is None:
            return
        elif isinstance(e, h2.events.StreamEnded):
            s.ended = True
        elif isinstance(e, h2.events.StreamReset):
            s.over = True

    def _request(self, e):
        if self.last is not None and e.stream_id > self.last:
            return
        running, limit = self.h2.open_inbound_streams, self.origin.max_streams
        if limit is not None and running > limit:
            if self.settled:
                self.origin.violations.append("stream %d is one more than %d" % (e.stream_id, limit))
            self.origin.refused += 1
            self.h2.reset_stream(e.stream_id, Code.REFUSED_STREAM)
            return
        fields = dict(e.headers[:4])
        rec = Record(self.number, self.requests + 1, fields[":method"], fields[":path"], "HTTP/2",
                     [("Host", fields.get(":authority", ""))] + [h for h in e.headers if h[0][0] != ":"])
        rec.h2, rec.sid, rec.scheme = self, e.stream_id, fields[":scheme"]
        self.requests += 1
        s = self.streams[e.stream_id] = Stream(e.stream_id)
        self.peak = max(self.peak, running)
        threading.Thread(target=self._stream, args=(s, rec), daemon=True).start()

    def _acknowledge(self, sid, length):
        """The connection's window is given back whatever became of the stream. To the byte and at once: what python-h2 does by
        itself loses count when INITIAL_WINDOW_SIZE changes under streams."""
        if not length:
            return
        self.h2.increment_flow_control_window(length)
        try:
            self.h2.increment_flow_control_window(length, sid)
        except (h2.exceptions.ProtocolError, KeyError):   # it has ended
            pass

    def _wake(self):
        try:
            self.wake_w.send(b"x")
        except (BlockingIOError, OSError):
            pass

    def _flush(self):
        data = self.h2.data_to_send()
        if data:
            self.out += data
            self._wake()

    # the streams' threads

    def _stream(self, s, rec):
        with self.origin.lock:
            self.origin.records.append(rec)
            what = next((r.what for r in self.origin.rules if r.matches(rec)), {})
        try:
            self._answer(s, rec, what)
        except (Gone, h2.exceptions.ProtocolError, OSError) as e:   # ProtocolError: the stream ended under us
            rec.error = repr(e)
        finally:
            with self.cond:
                s.over = True
                if not self.closed:
                    self._acknowledge(s.sid, sum(length for _, length in s.data))
                    self._flush()
                self.cond.notify_all()
            rec.done.set()

    def _check(self, s):
        if self.closed or self.cut or s.over or (self.last is not None and s.sid > self.last):
            raise Gone

    def _until(self, s, event, timeout=60):
        """Wait for the event; an end of the stream ends the wait."""
        end = time.monotonic() + timeout
        while not event.wait(0.02) and time.monotonic() < end:
            with self.cond:
                self._check(s)

    def _send(self, s, call):
        with self.cond:
            self._check(s)
            call()
            self._flush()

    def _hold(self, s):
        while True:
            with self.cond:
                self._check(s)
                self.cond.wait(0.5)

    def _read_body(self, s, rec, what):
        check = Checker(rec.path, 0, [self.origin.uploads[rec.path]]) if rec.path in self.origin.uploads else None
        if (rec.get("expect") or "").lower() == "100-continue" and not what.get("no_continue"):
            self._send(s, lambda: self.h2.send_headers(s.sid, [(":status", "100")]))
        if "upload_gate" in what:
            self._until(s, what["upload_gate"])
        small = bytearray()
        while True:
            with self.cond:
                while not s.data and not s.ended:
                    self._check(s)
                    self.cond.wait(0.5)
                if not s.data:
                    break
                data, length = s.data.pop(0)
                self._acknowledge(s.sid, length)
                self._flush()
            rec.received += len(data)
            if check and rec.body_ok is not False:
                try:
                    check.feed(data)
                    rec.body_ok = True
                except AssertionError as e:
                    rec.body_ok, rec.error = False, str(e)
            if rec.received <= 1 << 24:
                small += data
            if "read_delay" in what:
                time.sleep(what["read_delay"])
        rec.body = bytes(small)

    def _answer(self, s, rec, what):
        if "call" in what:
            what["call"](rec)
        if "reset" in what:
            self._send(s, lambda: self.h2.reset_stream(s.sid, what["reset"]))
            return
        if what.get("close"):
            return self.close("rst" if what["close"] == "rst" else "fin")
        if not what.get("early"):
            self._read_body(s, rec, what)
        if what.get("never"):
            self._hold(s)
        if "gate" in what:
            self._until(s, what["gate"])
        delay = what.get("delay", self.origin.first_byte_delay)
        if delay:
            self.origin.stopping.wait(delay)
        if "frames" in what:
            self._check(s)
            self.raw(what["frames"](rec))
            if what.get("keep_open"):
                self._hold(s)
            return
        status, fields, chunks, length = self.origin._response(rec, what)
        rec.status = status
        self._respond(s, rec, what, status, fields, chunks, length)

    def _respond(self, s, rec, what, status, fields, chunks, length):
        fields = [(":status", str(status)), *((n.lower(), v) for n, v in fields), ("server", "TestOrigin"),
                  ("x-amz-request-id", "ORIGIN%d.%d" % (self.number, s.sid))]
        if "content_length" in what:
            fields.append(("content-length", str(what["content_length"])))
        elif length is not None and not what.get("no_length"):
            fields.append(("content-length", str(length)))
        for code, more in what.get("interim", ()):
            self._send(s, lambda: self.h2.send_headers(s.sid, [(":status", str(code)), *more]))
        empty = rec.method == "HEAD" or status in (204, 304) or length is None
        trailers = what.get("trailers")
        self._send(s, lambda: self.h2.send_headers(s.sid, fields, end_stream=empty and not trailers))
        if not empty:
            self._body(s, rec, what, chunks)
            if "extra" in what:
                self._data(s, rec, memoryview(what["extra"]), what)
        if trailers:
            self._send(s, lambda: self.h2.send_headers(s.sid, trailers, end_stream=True))
        elif not empty:
            self._send(s, lambda: self.h2.end_stream(s.sid))

    def _body(self, s, rec, what, chunks):
        stops = []
        for name, act in (("mid_delay", lambda v: self.origin.stopping.wait(v[1])),
                          ("mid_gate", lambda v: self._until(s, v[1])), ("mid_call", lambda v: v[1](rec))):
            if name in what:
                stops.append((what[name][0], lambda v=what[name], act=act: act(v)))
        if "cut_after" in what:
            stops.append((what["cut_after"], lambda: self._cut(s, what)))
        if "truncate" in what:
            stops.append((what["truncate"], lambda: self._hold(s)))
        if "end_after" in what:
            stops.append((what["end_after"], None))
        stops.sort(key=lambda x: x[0])
        for chunk in chunks:
            while len(chunk):
                while stops and stops[0][0] <= rec.sent:
                    _, act = stops.pop(0)
                    if act is None:
                        return
                    act()
                n = min(len(chunk), stops[0][0] - rec.sent) if stops else len(chunk)
                self._data(s, rec, chunk[:n], what)
                chunk = chunk[n:]
        for _, act in stops:
            if act:
                act()

    def _data(self, s, rec, view, what):
        step, pause = what.get("trickle", (1 << 20, 0))
        pad = what.get("pad")
        while len(view):
            with self.cond:
                self._check(s)
                n = min(self.h2.local_flow_control_window(s.sid) - (pad + 1 if pad else 0),
                        self.h2.max_outbound_frame_size - 256, len(view), step)
                if n <= 0 or len(self.out) >= OUT_BYTES:
                    self.cond.wait(0.5)
                    continue
                wait = 0
                if self.origin.throttle:
                    n = min(n, 65536)
                    now = time.monotonic()
                    start = max(now, self.free_at)
                    self.free_at = start + n / self.origin.throttle
                    wait = start - now
                self.h2.send_data(s.sid, bytes(view[:n]), pad_length=pad)
                rec.sent += n
                self._flush()
            view = view[n:]
            if wait > 0 or pause:
                time.sleep(wait + pause)

    def _cut(self, s, what):
        if what.get("cut", "fin") == "reset":
            self._send(s, lambda: self.h2.reset_stream(s.sid, what.get("code", Code.INTERNAL_ERROR)))
        else:
            self.close(what.get("cut", "fin"))
        raise Gone


class H2Origin(Origin):
    def __init__(self, tls=None, max_streams=None, initial_window=None, alpn=("h2", "http/1.1"), **kw):
        """alpn: what a TLS origin offers; () = nothing. max_streams, initial_window: its SETTINGS."""
        self.max_streams, self.initial_window = max_streams, initial_window
        self.violations, self.refused, self.h2conns = [], 0, []
        self.dead = False      # new connections read and write nothing
        self.h2_only = False   # HTTP/1.1 connections are closed without a word
        if tls and alpn:
            tls.set_alpn_protocols(list(alpn))
        super().__init__(tls, **kw)

    def _one(self, s, reader, conn, number):
        if number == 1 and self._speaks_h2(s):
            c = Connection(self, s, conn)
            with self.lock:
                self.h2conns.append(c)
            c.run()
            return False
        if self.h2_only:
            return False
        return super()._one(s, reader, conn, number)

    def _speaks_h2(self, s):
        if self.tls:
            return s.selected_alpn_protocol() == "h2"
        return s.recv(4, socket.MSG_PEEK) == b"PRI "

    def versions(self, path=None, method=None):
        return [r.version for r in self.log(path, method)]
