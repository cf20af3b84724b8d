"""HTTP/2 by hand, cleartext with prior knowledge or TLS: streams that are read slowly, reset or never acknowledged, which
ordinary clients do not let a test do. One connection, one thread.

python-h2 keeps the protocol's state and judges every frame but DATA. DATA is taken apart here, for it costs python-h2
100 us a frame, and judged here: never before the head, never after the end, never beyond a window, never padded."""
import socket
import ssl
import struct
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import hyperframe.frame
from content import Checker
from raw import Broken, Response

WINDOW = 1 << 30
DATA, WINDOW_UPDATE, END_STREAM, PADDED = 0, 8, 1, 8


class Stream:
    """A request and what came back. `hold`: its DATA is counted and compared but never acknowledged, so that the proxy
    may send one window of it and no more."""

    def __init__(self, sid, window, checker=None, hold=False):
        self.sid, self.checker, self.hold = sid, checker, hold
        self.window = self.full = window
        self.response, self.parts, self.received = None, [], 0
        self.complete, self.reset = False, None

    @property
    def over(self):
        return self.complete or self.reset is not None

    @property
    def body(self):
        if len(self.parts) > 1:
            self.parts = [b"".join(self.parts)]
        return self.parts[0] if self.parts else b""


class H2Conn:
    def __init__(self, address, tls=None, timeout=20, stream_window=4 << 20, server_name=None, validate=True, rcvbuf=None):
        """tls: an ssl.SSLContext that offers h2. validate=False: malformed fields may be sent."""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.sock.settimeout(timeout)
        try:
            self.sock.connect(address)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                self.sock = tls.wrap_socket(self.sock, server_hostname=server_name or "localhost",
                                            suppress_ragged_eofs=False)
                assert self.sock.selected_alpn_protocol() == "h2"
        except BaseException:
            self.sock.close()
            raise
        self.room = bytearray(16384 if tls else 1 << 18)   # of TLS no more than a record comes at once
        self.timeout = timeout
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="latin-1", validate_outbound_headers=validate,
            normalize_outbound_headers=validate))
        self.streams, self.goaways, self.closed, self.deaf = {}, [], False, False
        self.scheme = "https" if tls else "http"
        self.window, self.stream_window = 65535 + WINDOW, stream_window
        self.part, self.data_left, self.data_stream, self.data_ends = b"", 0, None, False
        # python-h2 takes no frame after a GOAWAY, not even of the streams that go on: kept out of its state
        self.h2._frame_dispatch_table[hyperframe.frame.GoAwayFrame] = self._goaway
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: stream_window})
        self.h2.increment_flow_control_window(WINDOW)
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    # asking

    def flush(self, more=b""):
        data = self.h2.data_to_send() + more
        if data and not self.deaf:
            try:
                self.sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                self.deaf = True   # what the proxy sent before it closed is still to be read

    def request(self, method, path, headers=(), checker=None, hold=False, end=True, host="proxy.test"):
        """end=False: send() gives the body."""
        sid = self.h2.get_next_available_stream_id()
        headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        host = next((v for n, v in headers if n.lower() == "host"), host)
        fields = [(":method", method), (":scheme", self.scheme), (":authority", host), (":path", path)]
        fields += [(n, v) for n, v in headers if n.lower() != "host"]
        self.h2.send_headers(sid, [tuple(x.encode("latin-1") if isinstance(x, str) else x for x in f) for f in fields],
                             end_stream=end)
        s = self.streams[sid] = Stream(sid, self.stream_window, checker, hold)
        self.flush()
        return s

    def send(self, stream, data, end=False):
        """Some of the body, as the windows allow. What a stream that is over would not take is left out."""
        view, queued = memoryview(data), 0
        while len(view) and not stream.over and not self.closed:
            room = min(self.h2.local_flow_control_window(stream.sid), self.h2.max_outbound_frame_size, len(view))
            if room:
                self.h2.send_data(stream.sid, bytes(view[:room]))
                view, queued = view[room:], queued + room
                if queued < 1 << 18:
                    continue
            self.flush()
            queued = 0
            if not room:
                self.pump()
        if end and not stream.over and not self.closed:
            self.h2.end_stream(stream.sid)
        self.flush()

    def reset(self, stream, error=h2.errors.ErrorCodes.CANCEL):
        self.h2.reset_stream(stream.sid, error)
        self.flush()

    def release(self, stream):
        """The stream is held no longer."""
        stream.hold = False
        self.flush(self._refill(stream))

    # reading

    def pump(self, timeout=None):
        """One read and what follows from it. False when nothing came in that time."""
        self.sock.settimeout(self.timeout if timeout is None else max(0.001, timeout))
        try:
            n = self.sock.recv_into(self.room)
        except TimeoutError:
            if timeout is None:
                raise
            return False
        except (ConnectionResetError, ssl.SSLEOFError):
            n = 0
        finally:
            self.sock.settimeout(self.timeout)
        if not n:
            self.closed = True
            return False
        self.flush(self._take(memoryview(self.room)[:n]))
        return True

    def _take(self, data):
        """Frames as far as they are there; what is left of the last one waits for the next read. Window updates to send."""
        if self.part:
            data, self.part = memoryview(self.part + bytes(data)), b""
        at, end, updates = 0, len(data), []
        while True:
            if self.data_stream:
                n = min(self.data_left, end - at)
                if n:
                    self._payload(self.data_stream, bytes(data[at:at + n]))
                    at, self.data_left = at + n, self.data_left - n
                if self.data_left:
                    break
                updates.append(self._data_done())
            if end - at < 9:
                break
            word, flags, sid = struct.unpack_from(">IBI", data, at)
            length, kind, sid = word >> 8, word & 255, sid & 0x7fffffff
            if kind == DATA:
                self._data_begins(sid, length, flags)
                at += 9
                continue
            if end - at < 9 + length:
                break
            for event in self.h2.receive_data(bytes(data[at:at + 9 + length])):
                self._event(event)
            at += 9 + length
        self.part = bytes(data[at:])
        return b"".join(updates)

    def _data_begins(self, sid, length, flags):
        s = self.streams.get(sid)
        assert s is not None and s.response is not None and not s.complete, "DATA of no stream that awaits it (%d)" % sid
        assert not flags & PADDED and length <= self.h2.max_inbound_frame_size, (flags, length)
        self.window -= length
        s.window -= length
        assert self.window >= 0 and s.window >= 0, "beyond a window: %d, %d of stream %d" % (self.window, s.window, sid)
        self.data_stream, self.data_left, self.data_ends = s, length, bool(flags & END_STREAM)

    def _payload(self, s, data):
        s.received += len(data)
        if s.checker:
            s.checker.feed(data)
        else:
            s.parts.append(data)

    def _data_done(self):
        s, self.data_stream = self.data_stream, None
        if self.data_ends and s.sid in self.h2.streams:
            # python-h2 learns of the end, and compares the length with the head's
            self.h2.streams[s.sid]._actual_content_length = s.received
            for event in self.h2.receive_data(struct.pack(">IBI", DATA, END_STREAM, s.sid)):
                self._event(event)
        update = b""
        if self.window < WINDOW // 2:
            update, self.window = struct.pack(">IBII", 4 << 8 | WINDOW_UPDATE, 0, 0, WINDOW - self.window), WINDOW
        if not s.hold and not s.over and s.window <= s.full // 2:
            update += self._refill(s)
        return update

    def _refill(self, s):
        n, s.window = s.full - s.window, s.full
        return struct.pack(">IBII", 4 << 8 | WINDOW_UPDATE, 0, s.sid, n) if n and not s.over else b""

    def _goaway(self, frame):
        self.goaways.append((frame.last_stream_id, frame.error_code))
        return [], []

    def _event(self, e):
        s = self.streams.get(getattr(e, "stream_id", None))
        if s is None:
            return
        if isinstance(e, h2.events.ResponseReceived):
            fields = dict(e.headers)
            s.response = Response("HTTP/2", int(fields[":status"]), "", [h for h in e.headers if h[0][0] != ":"])
        elif isinstance(e, h2.events.StreamEnded):
            s.complete = True
        elif isinstance(e, h2.events.StreamReset):
            s.reset = e.error_code

    def until(self, what, condition):
        end = time.monotonic() + self.timeout
        while not condition():
            if self.closed:
                raise Broken("closed before: " + what)
            if time.monotonic() > end:
                raise AssertionError("waited %.0f s in vain for: %s" % (self.timeout, what))
            self.pump(end - time.monotonic())

    def wait(self, *streams):
        """Until all of them are over; the responses, which must be whole."""
        self.until("%d streams" % len(streams), lambda: all(s.over for s in streams))
        for s in streams:
            assert s.complete and s.response is not None, "stream %d: reset %s" % (s.sid, s.reset)
            s.response.body, s.response.complete = s.body, True
        return [s.response for s in streams]

    def fetch(self, method, path, headers=()):
        return self.wait(self.request(method, path, headers))[0]

    def get_checked(self, path, size):
        check = Checker(path)
        r = self.wait(self.request("GET", path, checker=check))[0]
        assert r.status == 200 and check.position == size, r
        return r

    def wait_closed(self):
        end = time.monotonic() + self.timeout
        while not self.closed and time.monotonic() < end:
            self.pump(end - time.monotonic())
        return self.closed


class Exchanges(H2Conn):
    """One request after the other, asked and read as on a raw.Conn. It reads from the socket only when it is asked for
    more, so a slow test is a slow client."""

    def __init__(self, address, timeout=20, rcvbuf=None, tls=None):
        super().__init__(address, tls, timeout, rcvbuf=rcvbuf, **({"stream_window": 65535} if rcvbuf else {}))
        self.now, self.left = None, None

    def request(self, method, target, headers=(), body=None, host="proxy.test", streamed=False):
        headers = list(headers.items()) if isinstance(headers, dict) else list(headers)
        length = next((v for n, v in headers if n.lower() == "content-length"), None)
        if body is not None and length is None:
            headers.append(("content-length", str(len(body))))
        self.left = None if body is not None or streamed else int(length or 0)
        self.now = super().request(method, target, headers, host=host,
                                   end=not body and not streamed and not self.left)
        if body:
            super().send(self.now, body, True)

    def send(self, data):
        """Some of the body; the stream ends with what Content-Length said."""
        if self.left is not None:
            self.left -= len(data)
        super().send(self.now, data, self.left == 0)
        if self.deaf or self.closed:
            raise BrokenPipeError("the proxy closed the connection")

    def send_part(self, data):
        super().send(self.now, data)

    def send_end(self):
        super().send(self.now, b"", True)

    def _broken(self):
        if self.closed:
            raise Broken("closed", self.now.response)
        raise Broken("reset", self.now.response)

    def head(self):
        s = self.now
        while s.response is None:
            if s.over or self.closed:
                self._broken()
            self.pump()
        assert len(s.response.all("content-length")) <= 1 and not s.response.all("transfer-encoding"), s.response
        return s.response

    def pieces(self, r, method="GET"):
        """The body as it comes. Broken if it is not whole."""
        s = self.now
        while True:
            parts, s.parts = s.parts, []
            yield from parts
            if s.complete and not s.parts:
                break
            if not s.parts:
                if s.over or self.closed:
                    self._broken()
                self.pump()
        assert method != "HEAD" or not s.received, "DATA in answer to HEAD"
        r.complete = True

    def body(self, r, method="GET", checker=None, pause=None):
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

    def is_closed(self, timeout=5):
        """True when the proxy closed and sent nothing more of an answer."""
        end, got = time.monotonic() + timeout, self.now.received if self.now else 0
        while not self.closed and time.monotonic() < end:
            self.pump(end - time.monotonic())
        return self.closed and (not self.now or self.now.received == got)

    def response(self, method="GET", checker=None, pause=None):
        r = self.head()
        self.body(r, method, checker, pause)
        return r
