"""Objects as files: a seekable reader, and a writer that makes the object when it is closed well.

A reader keeps to the version that it was opened on: every range has If-Match, and an object that has changed is
ObjectChangedError. Its ranges begin at what is asked for and grow while reads follow each other, so that one pass over a
large object is few requests and a jump throws little away. Files are of one thread at a time, as Python's own are.
"""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from . import errors
from ._stream import Stream
from ._transport import Transport
from ._upload import MultipartUpload, PutOptions, check_process, put_plain

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ._types import ObjectInfo, PutResult

READ_MIN, READ_MAX = 256 << 10, 64 << 20
SKIP_MAX = 256 << 10   # read and thrown away rather than a connection


class ObjectReader(io.RawIOBase):
    """The raw file; Client.open() puts a BufferedReader around it. `info` is the object's."""

    def __init__(self, transport: Transport, path: str, query: str, info: ObjectInfo, headers: dict[str, str]) -> None:
        super().__init__()
        self.info = info
        self.name = info.uri
        self.mode = "rb"
        self._transport, self._path, self._query, self._headers = transport, path, query, headers
        self._position = 0
        self._stream: Optional[Stream] = None
        self._next_size = READ_MIN
        self._pid = os.getpid()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes from the begin."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Asks nothing of the server."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.info.size}.get(whence)
        if base is None:
            raise ValueError(f"expected whence 0, 1 or 2, not {whence}")
        if base + offset < 0:
            raise ValueError(f"expected a position that is not negative, not {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills the buffer, with less only at the object's end. Raises Error."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        with memoryview(buffer).cast("B") as view:
            want = min(len(view), self.info.size - self._position)
            done = 0
            while done < want:
                stream = self._stream_at(self._position, want - done)
                n = stream.readinto(view[done:want])
                self._position += n
                done += n
            return max(done, 0)

    def readall(self) -> bytes:
        """The rest, in one request."""
        left = self.info.size - self._position
        if left <= 0:
            return b""
        self._next_size = max(self._next_size, left)
        buffer = io.BytesIO(bytes(left))
        with buffer.getbuffer() as view:
            self.readinto(view)
        return buffer.getvalue()

    def _stream_at(self, position: int, want: int) -> Stream:
        s = self._stream
        if s is not None and self._pid != os.getpid():   # forked: that socket is the parent's to read
            s.close()
            self._stream = s = None
        self._pid = os.getpid()
        if s is not None and s.end is not None:
            ahead = position - s.position
            if s.position <= position < s.end and ahead <= SKIP_MAX:
                if ahead:
                    s.readinto(memoryview(bytearray(ahead)))
                return s
            follows = position == s.end == s.position
            self._next_size = min(self._next_size * 2, READ_MAX) if follows else READ_MIN
            self._leave(s)
        size = min(max(want, self._next_size), self.info.size - position)
        self._stream = Stream(self._transport, self.info.uri, self._path, query=self._query, first=position, length=size,
                              etag=self.info.etag, headers=self._headers).open()
        if self._stream.size != self.info.size:
            raise errors.ObjectChangedError(f"the object has {self._stream.size} bytes now, and had {self.info.size}",
                                            uri=self.info.uri)
        return self._stream

    def _leave(self, s: Stream) -> None:
        """What is left of a range is read, when that is little, so that the connection stays open."""
        self._stream = None
        try:
            if s.end is not None and 0 < s.end - s.position <= SKIP_MAX:
                s.readinto(memoryview(bytearray(s.end - s.position)))
        except errors.Error:
            pass   # nobody wants these bytes
        finally:
            s.close()

    def close(self) -> None:
        """Gives the connection back."""
        if not self.closed:
            s, self._stream = self._stream, None
            if s is not None:
                s.close()
        super().close()


class ObjectWriter(io.BufferedIOBase):
    """Writes an object. close() makes it; leaving a `with` by an exception, abort(), or being forgotten makes nothing.
    `result` is what close() made. Memory: a part, and those under way. It is of the process that opened it: in a forked
    child close() and abort() leave the object to the parent, and write() raises RuntimeError."""

    def __init__(self, transport: Transport, uri: str, options: PutOptions) -> None:
        super().__init__()
        self.name = uri
        self.mode = "wb"
        self.result: Optional[PutResult] = None
        self._transport, self._uri, self._options = transport, uri, options
        self._buffer = bytearray()
        self._written = 0
        self._upload: Optional[MultipartUpload] = None
        self._pid = os.getpid()

    def writable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes written so far."""
        return self._written

    def write(self, data: Buffer) -> int:
        """Takes all of it. Raises what an earlier part failed with; then the file is aborted."""
        if self.closed:
            raise ValueError("I/O operation on closed file")
        check_process(self._pid)
        with memoryview(data) as given, given.cast("B") as view:
            size = len(view)
            try:
                at = 0
                while at < size:
                    limit = self._upload.next_part_size if self._upload else self._options.part_size
                    n = min(size - at, limit - len(self._buffer))
                    self._buffer += view[at:at + n]
                    at += n
                    if len(self._buffer) >= limit:
                        self._send_part()
            except BaseException:
                self.abort()
                raise
        self._written += size
        return size

    def _send_part(self) -> None:
        if self._upload is None:
            self._upload = MultipartUpload(self._transport, self._uri, self._options)
        part, self._buffer = self._buffer, bytearray()
        self._upload.add(part)

    def close(self) -> None:
        """Makes the object. Raises Error, and then there is none of this writer."""
        if self.closed:
            return
        super().close()
        upload, self._upload = self._upload, None
        buffer, self._buffer = self._buffer, bytearray()
        if self._pid != os.getpid():
            return
        if upload is None:
            self.result = put_plain(self._transport, self._uri, buffer, self._options)
            return
        if buffer:
            try:
                upload.add(buffer)
            except BaseException:
                upload.abort()
                raise
        self.result = upload.complete()

    def abort(self) -> None:
        """Makes nothing, and leaves nothing behind. Does nothing after close()."""
        if self.closed:
            return
        super().close()
        upload, self._upload = self._upload, None
        self._buffer = bytearray()
        if upload is not None:
            upload.abort()

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if hasattr(self, "_upload"):
            self.abort()
