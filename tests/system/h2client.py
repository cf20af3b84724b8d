"""HTTP/2 by hand (python-h2 over a blocking socket), cleartext with prior knowledge or TLS: streams that are read slowly,
reset or never acknowledged, which ordinary clients do not let a test do. One connection, one thread."""
import socket
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


class Stream:
    """A request and what came back. `hold`: its DATA is counted and compared but never acknowledged, so that the proxy
    may send one window of it and no more."""

    def __init__(self, sid, checker=None, hold=False):
        self.sid, self.checker, self.hold = sid, checker, hold
        self.response, self.body, self.received = None, b"", 0
        self.complete, self.reset = False, None

    @property
    def over(self):
        return self.complete or self.reset is not None


class H2Conn:
    def __init__(self, address, tls=None, timeout=20, stream_window=1 << 20, server_name=None, validate=True):
        """tls: an ssl.SSLContext that offers h2. validate=False: malformed fields may be sent."""
        self.sock = socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=server_name or "localhost")
            assert self.sock.selected_alpn_protocol() == "h2"
        self.timeout = timeout
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=validate,
            normalize_outbound_headers=validate))
        self.streams, self.goaways, self.closed = {}, [], False
        self.scheme = "https" if tls else "http"
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

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def request(self, method, path, headers=(), checker=None, hold=False):
        sid = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":scheme", self.scheme), (":authority", "proxy.test"), (":path", path)]
        fields += list(headers.items()) if isinstance(headers, dict) else list(headers)
        self.h2.send_headers(sid, fields, end_stream=True)
        s = self.streams[sid] = Stream(sid, checker, hold)
        self.flush()
        return s

    def reset(self, stream, error=h2.errors.ErrorCodes.CANCEL):
        self.h2.reset_stream(stream.sid, error)
        self.flush()

    def pump(self, timeout=None):
        """One read and what follows from it. False when nothing came in that time."""
        self.sock.settimeout(self.timeout if timeout is None else timeout)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            if timeout is None:
                raise
            return False
        except ConnectionResetError:
            data = b""
        finally:
            self.sock.settimeout(self.timeout)
        if not data:
            self.closed = True
            return False
        for event in self.h2.receive_data(data):
            self._event(event)
        try:
            self.flush()
        except (BrokenPipeError, ConnectionResetError):
            pass   # what the proxy sent before it closed is still to be read
        return True

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
        elif isinstance(e, h2.events.DataReceived):
            s.received += len(e.data)
            if s.checker:
                s.checker.feed(e.data)
            else:
                s.body += e.data
            if not s.hold and e.flow_controlled_length:
                try:
                    self.h2.acknowledge_received_data(e.flow_controlled_length, s.sid)
                except h2.exceptions.StreamClosedError:
                    pass
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
            self.pump(max(0.01, end - time.monotonic()))

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
            self.pump(max(0.01, end - time.monotonic()))
        return self.closed
