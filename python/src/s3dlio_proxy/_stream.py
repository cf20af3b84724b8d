"""The bytes of one version of an object, in order, over as many responses as it takes.

A body that breaks off is resumed by a range at the first byte that is missing, with If-Match on the ETag that the first
response had; the answer must have that ETag, begin there and tell the same size. So bytes of two versions are never
mixed. An object without a strong ETag cannot be resumed (https://www.rfc-editor.org/rfc/rfc9110#section-13.1.1).

Bytes go from the socket into the caller's buffer; nothing is copied in between. A Stream is of one thread.
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Mapping
from typing import Any, Callable, Optional, TypeVar

from . import errors
from ._transport import Attempts, Cancel, Transport, finish, transport_error

BLOCK = 1 << 20   # a read that fails is repeated from its begin: what a break costs, at most
SMALL = 1 << 20   # up to here a whole body is one read, and a break costs all of it
T = TypeVar("T")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19})\Z")


class Stream:
    """[first, first + length) of an object; `length` None: to its end; `first` < 0: the last -first bytes.

    `position` is the next byte's offset in the object. After open(): `headers` of the first response, `end` the offset
    after the last byte (None where the server does not say: then the body ends where it ends), `size` of the object.
    etag: the only version to read.
    """

    def __init__(self, transport: Transport, uri: str, path: str, *, query: str = "", first: int = 0,
                 length: Optional[int] = None, etag: Optional[str] = None, headers: Optional[Mapping[str, str]] = None,
                 cancel: Optional[Cancel] = None) -> None:
        self._transport, self._uri, self._path, self._query = transport, uri, path, query
        self._headers = headers or {}
        self._cancel = cancel
        self._attempts = Attempts(transport.retry, cancel)
        self._raw: Any = None
        self._pinned = etag is not None
        self._since_failure = self._received = 0
        self.etag = etag
        self.position = first
        self.end: Optional[int] = None if length is None else first + length
        self._asked = self.position, self.end   # what open() makes of it is of one version only
        self.ranged = first != 0 or length is not None
        self.size: Optional[int] = None
        self.headers: Mapping[str, str] = {}
        self._opened = False
        self._ended = False

    # ---- responses

    def open(self) -> Stream:
        """Asks for it. Raises Error, ObjectChangedError where `etag` is not the object's any more."""
        if self._raw is None and not self._ended:
            self._connect()
        return self

    def _range(self) -> str:
        if self.position < 0:
            return f"bytes={self.position}"
        return f"bytes={self.position}-" + ("" if self.end is None else str(self.end - 1))

    def _connect(self) -> None:
        fields = dict(self._headers)
        if self.ranged or self.position:
            fields["Range"] = self._range()
        if self.etag is not None:
            fields["If-Match"] = self.etag
        try:
            raw = self._transport.open("GET", self._path, query=self._query, headers=fields, expect=(200, 206),
                                       uri=self._uri, attempts=self._attempts, cancel=self._cancel)
        except errors.PreconditionFailedError as e:
            if self.etag is None:
                raise
            raise self._changed(e) from e
        except errors.RangeError as e:
            if self._opened:   # it was long enough before
                raise self._changed(e) from e
            raise
        self._raw = raw
        try:
            if self._cancel:
                self._cancel.add(raw)
            self._accept(raw)
        except BaseException:
            self._drop(reuse=False)
            raise

    def _changed(self, e: errors.Error) -> errors.ObjectChangedError:
        return errors.ObjectChangedError("the object is no longer the version that was being read", uri=self._uri,
                                         status=e.status, code=e.code, request_id=e.request_id)

    def _accept(self, raw: Any) -> None:
        """Takes the head of a response, or raises because it is not one to the question."""
        headers = raw.headers
        etag = headers.get("etag")
        if self.etag is not None and etag != self.etag and (self._opened or self._pinned):
            raise errors.ObjectChangedError(f"the server answered with version {etag} for {self.etag}", uri=self._uri)
        told = headers.get("content-length")
        length = int(told) if told is not None and told.isdigit() else None
        first: int
        end: Optional[int]
        size: Optional[int]
        if raw.status == 206:
            first, end, size = self._content_range(headers.get("content-range") or "")
            if length is not None and length != end - first:
                raise errors.ProtocolError(f"Content-Length {length} does not fit the range {first}-{end - 1}",
                                           uri=self._uri)
        elif self.ranged or self.position:
            raise errors.ProtocolError("the server ignored the range that was asked for", uri=self._uri)
        else:
            first, end, size = 0, length, length
        if self._opened and self.size is not None and size != self.size:
            raise errors.ObjectChangedError(f"the object has {size} bytes now, and had {self.size}", uri=self._uri)
        if not self._opened:
            self.headers, self.size, self._opened = headers, size, True
            if etag is not None and not etag.startswith("W/"):
                self.etag = etag
        self.position, self.end = first, end

    def _content_range(self, text: str) -> tuple[int, int, int]:
        """(first, end, size) of an answer that begins where it was asked to."""
        m = _CONTENT_RANGE.match(text)
        if m:
            first, end, size = int(m[1]), int(m[2]) + 1, int(m[3])
            wanted = self.position if self.position >= 0 else max(0, size + self.position)
            last = size if self.end is None or self.position < 0 else min(self.end, size)
            if first == wanted and end == last:
                return first, end, size
        raise errors.ProtocolError(f"the answer to {self._range()} is for another range: {text[:100]!r}", uri=self._uri)

    def _drop(self, reuse: bool) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            if self._cancel:
                self._cancel.remove(raw)
            finish(raw, reuse)

    def close(self) -> None:
        """Gives the connection back; it stays open when the body was read to its end."""
        self._drop(reuse=self._ended)
        self._ended = True

    # ---- bytes

    def _failed(self, failure: errors.TransportError) -> None:
        """Pauses before a resumption, or raises."""
        self._drop(reuse=False)
        failure.uri = self._uri
        self._received += self._since_failure
        if self.etag is None and self._received:
            raise errors.TruncatedError("the body broke off, and an object without a strong ETag cannot be resumed",
                                        uri=self._uri) from failure
        if self._since_failure >= BLOCK:
            self._attempts.progressed()
        self._since_failure = 0
        self._attempts.again(failure)

    def readinto(self, view: memoryview) -> int:
        """Fills the view, with less only at the end of the range: 0 there. Raises Error; how much of the view has been
        overwritten then is not told."""
        done, want = 0, len(view)
        while done < want and not self._ended:
            if self._raw is None:
                self._connect()
            if self.end is not None and self.position >= self.end:
                self._finish_body()
                break
            part = view[done:min(want, done + BLOCK)]
            n = self._read_part(part)
            done += n
        return done

    def _read_part(self, part: memoryview) -> int:
        """One read; 0 after a failure that will be tried again, and at the end of a body of unknown length."""
        if self._cancel:
            self._cancel.check()
        try:
            n: int = self._raw._fp.readinto(part)
        except (OSError, http.client.HTTPException, ValueError) as e:   # ValueError: the socket was closed under it
            self._failed(transport_error(e, self._transport.url))
            return 0
        self.position += n
        self._since_failure += n
        if self.end is not None:
            if self.position >= self.end:
                self._finish_body()
            elif n < len(part):
                self._failed(errors.TruncatedError(f"the body ended {self.end - self.position} bytes early"))
        elif n == 0:
            self.end = self.position
            self._finish_body()
        return n

    def _finish_body(self) -> None:
        self._ended = True
        self._drop(reuse=True)

    def read_all(self) -> bytes:
        """All of it. When it changes or cannot be resumed while it is read, it is begun again, within the tries."""
        return self._restarting(self._read_once)

    def fill(self, view: memoryview) -> int:
        """The same into a view, which is as long as the range: how many bytes."""
        return self._restarting(lambda: self.readinto(view))

    def _restarting(self, read: Callable[[], T]) -> T:
        left = self._transport.retry.attempts - 1   # of these: bytes that are read again are no progress
        while True:
            try:
                return read()
            except (errors.ObjectChangedError, errors.TruncatedError) as e:
                self._drop(reuse=False)
                if self._pinned or left == 0:
                    raise
                left -= 1
                self._restart()
                self._attempts.again(e)

    def _restart(self) -> None:
        self.position, self.end = self._asked
        self.etag = self.size = None
        self._opened = self._ended = False
        self._since_failure = self._received = 0

    def _read_once(self) -> bytes:
        self.open()
        if self.end is None:
            return self._read_unknown()
        left = self.end - self.position
        if left > SMALL:
            # A zeroed bytes object costs no memory until it is written to; BytesIO lets it be filled and hands it out.
            buffer = io.BytesIO(bytes(left))
            with buffer.getbuffer() as view:
                self.readinto(view)
            return buffer.getvalue()
        try:
            data: bytes = self._raw._fp.read(left)
        except (OSError, http.client.HTTPException, ValueError) as e:
            raise errors.TruncatedError(f"the body broke off: {type(e).__name__}", uri=self._uri) from e
        if len(data) != left:
            raise errors.TruncatedError(f"the body ended {left - len(data)} bytes early", uri=self._uri)
        self.position += left
        self._finish_body()
        return data

    def _read_unknown(self) -> bytes:
        parts = []
        while not self._ended:
            block = bytearray(BLOCK)
            n = self.readinto(memoryview(block))
            parts.append(memoryview(block)[:n])
        return b"".join(parts)
