"""Requests over kept connections: one pool for each process, retries, signing, and errors made of what went wrong.

Threads share a Transport. A fork is noticed: the child drops the sockets that it inherited without using or shutting
them down, and opens its own; locks that another thread held at the fork are made anew. A pickle carries settings only.

`requests` brings TLS (REQUESTS_CA_BUNDLE and the like) and the pool of urllib3; the pool is then asked directly, because
what requests adds to a request - cookies, redirects, hooks, normalised paths - costs more than a small object does and
would change keys such as `a/../b`. Proxies of the environment (http_proxy) are not used: the endpoint is the proxy.

Retries: failures to connect, connections that break, time-outs, 500, 502, 503, 504 and 429, after a pause drawn from
[0, min(cap, base * 2**n)] or of Retry-After. A request that is not idempotent is sent again only when the server cannot
have acted on it: it was never sent, or refused by 429 or 503.
"""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import http.client
import os
import queue
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Optional, Union
from urllib.parse import urlsplit

import requests
import requests.adapters
import urllib3
import urllib3.exceptions

from . import _xml, errors
from ._version import __version__
from .sigv4 import EMPTY, UNSIGNED, Credentials, Signer

Body = Union[bytes, bytearray, memoryview]
Timeout = Union[float, tuple[float, float]]

RETRIED = frozenset((429, 500, 502, 503, 504))
REFUSED = frozenset((429, 503))
_ERROR_BYTES = 64 << 10
_AGENT = f"s3dlio-proxy-python/{__version__}"


@dataclass(frozen=True)
class Retry:
    """How often and how patiently.

    attempts: tries in all, at least 1. base, cap: seconds, of the pause before try n + 1, which is drawn from
    [0, min(cap, base * 2**(n - 1))]. retry_after: seconds; the longest pause that a server may ask for.
    """

    attempts: int = 5
    base: float = 0.1
    cap: float = 5.0
    retry_after: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.base < 0 or self.cap < 0 or self.retry_after < 0:
            raise ValueError("expected attempts of at least 1 and pauses that are not negative")


class Cancel:
    """Ends what is under way for a caller who has lost interest: no further try, and bodies that are being read end."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.RLock()   # the collector may end a forgotten iterator in any of these methods
        self._bodies: set[Any] = set()

    @property
    def is_set(self) -> bool:
        """Whether it was called off."""
        return self._event.is_set()

    def set(self) -> None:
        """Calls it off; bodies that threads wait for end at once."""
        self._event.set()
        with self._lock:   # all of it: a body that is removed meanwhile must not have given its connection to another
            for body in list(self._bodies):
                with contextlib.suppress(OSError, AttributeError):   # it has ended by itself
                    _socket_of(body).shutdown(socket.SHUT_RDWR)
            self._bodies.clear()

    def wait(self, seconds: float) -> None:
        """Sleeps, but not when it is called off."""
        self._event.wait(seconds)

    def check(self) -> None:
        """Raises when it was called off."""
        if self._event.is_set():
            raise Cancelled

    def add(self, body: Any) -> None:
        """`body` is being read."""
        with self._lock:
            self._bodies.add(body)
        self.check()

    def remove(self, body: Any) -> None:
        """`body` is done."""
        with self._lock:
            self._bodies.discard(body)


class Cancelled(BaseException):
    """Never leaves this package."""


def _socket_of(raw: Any) -> Any:
    return raw._connection.sock or raw._fp.fp.raw._sock


class Attempts:
    """Counts the tries of one operation, and pauses between them. Of one thread."""

    def __init__(self, retry: Retry, cancel: Optional[Cancel] = None) -> None:
        self._retry = retry
        self._cancel = cancel
        self.made = 1

    def again(self, failure: Exception) -> None:
        """Pauses; raises `failure` when there is no further try."""
        if self._cancel:
            self._cancel.check()
        if self.made >= self._retry.attempts:
            raise failure
        pause = random.uniform(0, min(self._retry.cap, self._retry.base * 2.0 ** (self.made - 1)))
        asked = _seconds(getattr(failure, "retry_after", None))
        if asked is not None:
            pause = max(pause, min(asked, self._retry.retry_after))
        self.made += 1
        if self._cancel:
            self._cancel.wait(pause)
            self._cancel.check()
        else:
            time.sleep(pause)

    def progressed(self) -> None:
        """Much has come since the last failure: the next one is a new one."""
        self.made = 1


def _seconds(retry_after: Optional[str]) -> Optional[float]:
    """Of Retry-After, https://www.rfc-editor.org/rfc/rfc9110#field.retry-after: seconds or a date."""
    if not retry_after:
        return None
    if retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def check_url(url: str) -> tuple[str, str, str]:
    """(scheme://host:port, host:port, base path without its last slash); ValueError says what was expected."""
    parts = urlsplit(url)
    try:
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("expected the URL of an endpoint, http://host:port or https://host:port, without user, query "
                         "and fragment")
    return f"{parts.scheme}://{parts.netloc}", parts.netloc, parts.path.rstrip("/")


def _timeout(timeout: Timeout) -> urllib3.Timeout:
    connect, read = timeout if isinstance(timeout, tuple) else (timeout, timeout)
    if not (connect > 0 and read > 0):
        raise ValueError("expected a timeout in seconds, or (connect, read), more than 0")
    return urllib3.Timeout(connect=connect, read=read)


_living: weakref.WeakSet[Transport] = weakref.WeakSet()


def _forked() -> None:
    for transport in list(_living):
        transport.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class Transport:
    """Requests to one endpoint. See the head of this file."""

    def __init__(self, url: str, *, credentials: Optional[Credentials], pool: int, timeout: Timeout, retry: Retry,
                 verify: Union[bool, str], headers: Mapping[str, str]) -> None:
        self.url, self.host, self.base = check_url(url)
        if pool < 1:
            raise ValueError("expected a pool of at least 1 connection")
        self.pool_size = pool
        self.retry = retry
        self._timeout = _timeout(timeout)
        self._verify = verify
        self._headers = {"Host": self.host, "User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        self._signer = Signer(credentials) if credentials else None
        self._sign_body = self.url.startswith("http:")
        self._lock = threading.Lock()
        self._pool: Optional[tuple[int, Any, Any]] = None   # the process, the pool, the adapter that keeps it
        _living.add(self)

    # ---- the pool of this process

    def _make_pool(self) -> Any:
        with self._lock:
            if self._pool and self._pool[0] == os.getpid():
                return self._pool[1]
            adapter = requests.adapters.HTTPAdapter(pool_connections=1, pool_maxsize=self.pool_size, max_retries=0)
            with requests.Session() as session:
                settings = session.merge_environment_settings(self.url, {}, None, self._verify, None)
            prepared = requests.Request("GET", self.url).prepare()
            pool: Any = adapter.get_connection_with_tls_context(prepared, settings["verify"], {}, settings["cert"])
            pool.timeout = self._timeout
            pool.pool.maxsize = 0   # finish() keeps to the bound; urllib3 would warn of each connection beyond it
            pool.pool.kept = self.pool_size
            self._pool = os.getpid(), pool, adapter
            return pool

    def _pool_now(self) -> Any:
        known = self._pool
        return known[1] if known and known[0] == os.getpid() else self._make_pool()

    def forget(self) -> None:
        """In the child of a fork, which has one thread: the inherited sockets are closed here and live on there."""
        self._lock = threading.Lock()
        known, self._pool = self._pool, None
        if not known:
            return
        idle = known[1].pool
        if idle is None:
            return
        idle.mutex = threading.Lock()   # another thread may have held it
        for name in ("not_empty", "not_full", "all_tasks_done"):
            setattr(idle, name, threading.Condition(idle.mutex))
        with contextlib.suppress(queue.Empty):
            while True:
                connection = idle.get_nowait()
                if connection is not None and connection.sock is not None:
                    os.close(connection.sock.detach())   # without what close() would say to the peer over TLS

    def close(self) -> None:
        """Closes this process's idle connections; the next request opens new ones."""
        with self._lock:
            known, self._pool = self._pool, None
        if known and known[0] == os.getpid():
            known[2].close()

    # ---- one request

    def send(self, method: str, path: str, query: str, headers: Mapping[str, str], body: Optional[Body]) -> Any:
        """One try: the response of urllib3, whose body is not read yet. Raises TransportError."""
        fields: MutableMapping[str, str] = {**self._headers, **headers}
        target = self.base + path
        if self._signer:
            digest = EMPTY if not body else hashlib.sha256(body).hexdigest() if self._sign_body else UNSIGNED
            fields.update(self._signer.sign(method, target, query, fields, digest))
        try:
            return self._pool_now().urlopen(method, f"{target}?{query}" if query else target, body, fields,
                                            retries=False, redirect=False, assert_same_host=False, preload_content=False,
                                            decode_content=False)
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as e:
            raise transport_error(e, self.url) from e

    def open(self, method: str, path: str, *, query: str = "", headers: Mapping[str, str] = {},
             body: Optional[Body] = None, expect: tuple[int, ...] = (200,), idempotent: bool = True,
             uri: Optional[str] = None, attempts: Optional[Attempts] = None, cancel: Optional[Cancel] = None) -> Any:
        """The response to a request, tried again as the head of this file says; the body is the caller's to read and
        release. Raises Error."""
        attempts = attempts or Attempts(self.retry, cancel)
        while True:
            failure: errors.Error
            try:
                raw = self.send(method, path, query, headers, body)
            except errors.TransportError as e:
                failure = e
                again = (idempotent or getattr(e, "unsent", False)) and not _is_final(e)
            else:
                if raw.status in expect:
                    return raw
                failure = self._response_error(raw, uri)
                again = raw.status in (RETRIED if idempotent else REFUSED) or self._clock_was_wrong(failure, raw)
            failure.uri = uri or failure.uri
            if not again:
                raise failure
            attempts.again(failure)

    def _clock_was_wrong(self, failure: errors.Error, raw: Any) -> bool:
        """Once for each skew, S3's RequestTimeTooSkewed is mended with the server's own clock."""
        if not self._signer or failure.code != "RequestTimeTooSkewed":
            return False
        try:
            then = email.utils.parsedate_to_datetime(raw.headers.get("date") or "").timestamp()
        except (TypeError, ValueError):
            return False
        offset = then - time.time()
        if abs(offset - self._signer.offset_s) < 60:
            return False
        self._signer.offset_s = offset
        return True

    @staticmethod
    def _response_error(raw: Any, uri: Optional[str]) -> errors.ResponseError:
        try:
            data = raw._fp.read(_ERROR_BYTES) if raw._fp is not None else b""
            whole = not raw._fp.fp
        except (OSError, http.client.HTTPException, AttributeError):
            data, whole = b"", False
        finish(raw, reuse=whole)
        code, message, request_id = _xml.error_of(data) if data else (None, None, None)
        headers = raw.headers
        text = " ".join((message or http.client.responses.get(raw.status) or "no reason given").split())
        e = errors.from_response(raw.status, code, text[:1000], uri=uri,
                                 request_id=request_id or headers.get("x-amz-request-id"))
        if isinstance(e, errors.ServerError):
            e.retry_after = headers.get("retry-after")
        if isinstance(e, errors.RangeError):
            size = (headers.get("content-range") or "").rpartition("*/")[2]
            e.size = int(size) if size.isdigit() else None
        return e

    def request(self, method: str, path: str, *, limit: int = _xml.MAX_BYTES, uri: Optional[str] = None,
                attempts: Optional[Attempts] = None, **kw: Any) -> tuple[Any, bytes]:
        """(response, its whole body) of a request whose answer is small; a body that breaks off is asked for again when
        the request is idempotent. limit: bytes of the body."""
        attempts = attempts or Attempts(self.retry)
        while True:
            raw = self.open(method, path, uri=uri, attempts=attempts, **kw)
            try:
                return raw, read_small(raw, method, limit, uri)
            except errors.TruncatedError as e:
                if not kw.get("idempotent", True):
                    raise
                attempts.again(e)


def read_small(raw: Any, method: str, limit: int, uri: Optional[str]) -> bytes:
    """The whole body, of at most `limit` bytes; the connection is given back. TruncatedError, ProtocolError."""
    want = None if method == "HEAD" else raw.headers.get("content-length")
    try:
        data: bytes = raw._fp.read(limit + 1)
    except (OSError, http.client.HTTPException) as e:
        finish(raw, reuse=False)
        raise errors.TruncatedError(f"the answer broke off: {describe(e)}", uri=uri) from e
    if len(data) > limit:
        finish(raw, reuse=False)
        raise errors.ProtocolError(f"the answer has more than {limit} bytes", uri=uri)
    if want is not None and want.isdigit() and len(data) != int(want):
        finish(raw, reuse=False)
        raise errors.TruncatedError(f"the answer ended after {len(data)} of {want} bytes", uri=uri)
    finish(raw, reuse=True)
    return data


def finish(raw: Any, reuse: bool) -> None:
    """The connection goes back to the pool; its socket stays open only when the body was read to its end."""
    with contextlib.suppress(OSError, http.client.HTTPException, urllib3.exceptions.HTTPError):
        if reuse and not raw._fp.isclosed():
            raw._fp.read(0)   # http.client notices the end of an empty body only when it is read
        spare = _is_spare(raw._pool)
        if spare or not reuse or not raw._fp.isclosed():
            raw.close()
        if not spare:
            raw.release_conn()


def _is_spare(pool: Any) -> bool:
    """Whether there are as many connections in the pool as it keeps (places for some count as such)."""
    idle = pool.pool if pool is not None else None
    return idle is None or idle.qsize() >= getattr(idle, "kept", 0)


def describe(e: BaseException) -> str:
    """One line, without the object addresses that urllib3 likes to print."""
    text = str(e.args[-1] if isinstance(e, urllib3.exceptions.HTTPError) and e.args else e)
    return f"{type(e).__name__}: {text.rpartition('>: ')[2]}"[:300]


def _is_final(e: BaseException) -> bool:
    """A certificate that is not trusted will not be on the next try either."""
    cause: Optional[BaseException] = e.__cause__
    return any(isinstance(a, ssl.SSLCertVerificationError) for a in (cause, *getattr(cause, "args", ())))


_UNSENT = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)


def transport_error(e: BaseException, where: str) -> errors.TransportError:
    """What a failure of urllib3, http.client or the socket is to our callers."""
    unsent = isinstance(e, _UNSENT)
    failure: errors.TransportError
    if isinstance(e, (urllib3.exceptions.TimeoutError, socket.timeout)) and \
            not isinstance(e, urllib3.exceptions.NewConnectionError):
        failure = errors.RequestTimeoutError(f"{where}: {'no connection' if unsent else 'no answer'} in time", unsent=unsent)
    elif isinstance(e, (urllib3.exceptions.SSLError, ssl.SSLError)):
        failure = errors.ConnectionFailedError(f"{where}: TLS failed: {describe(e)}")
    elif isinstance(e, http.client.HTTPException) and not isinstance(e, http.client.RemoteDisconnected):
        failure = errors.ProtocolError(f"{where}: {describe(e)}")
    else:
        failure = errors.ConnectionFailedError(f"{where}: {describe(e)}", unsent=unsent)
    return failure
