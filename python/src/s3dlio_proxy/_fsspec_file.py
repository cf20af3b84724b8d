"""The files that S3dlioFileSystem opens.

Reading: fsspec's buffered file over an ObjectReader, so that a pass over the file is few requests and every byte is of the
version that was opened, in this process and in one that gets the file by pickle.

Writing: nothing is in the store before the file is closed well. What becomes of a writer:

    close(), leaving a `with`               the object is made; in a transaction only when that ends
    leaving a `with` by an exception        nothing is made, and no part is left behind
    discard(), a transaction that fails     the same
    forgotten without close()               the same, and a ResourceWarning; in a transaction as if it were closed
    anything in a forked child              nothing: the object is the parent's to make; write() raises RuntimeError
    flush()                                 does nothing: there is no half an object

"ab" begins with what is there: copied by the store when it is 5 MiB or more, read otherwise. S3 has no append, so another
writer of the same object in the meantime loses. "xb" fails where something is, also when it came while this was written.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional

from fsspec.spec import AbstractBufferedFile

from . import errors
from ._copy import CopyUpload, like
from ._files import ObjectReader
from ._upload import PART_MIN, MultipartUpload, PutOptions, check_process, put_plain

if TYPE_CHECKING:
    from .fsspec import S3dlioFileSystem

READ_BLOCK = 256 << 10   # of fsspec's read-ahead; the ranges below it grow by themselves
HELD_MAX = 1 << 20       # what a file of a transaction may keep in memory until the end


class S3dlioFile(AbstractBufferedFile):
    """A file of S3dlioFileSystem, see above. Of one thread at a time."""

    closed: bool   # a property there

    def __init__(self, fs: S3dlioFileSystem, path: str, mode: str = "rb", block_size: Optional[int] = None,
                 autocommit: bool = True, cache_type: str = "readahead", cache_options: Optional[dict[str, Any]] = None,
                 size: Optional[int] = None, etag: Optional[str] = None, options: Optional[PutOptions] = None) -> None:
        self._reader: Optional[ObjectReader] = None
        self._reading = threading.Lock()   # some of fsspec's caches fetch on threads of their own
        self._pid = os.getpid()
        self._upload: Optional[MultipartUpload] = None
        self._tail = bytearray()
        self._options = options or PutOptions()
        self._pending = False              # written, and not made or discarded yet
        if mode == "rb":
            self._details = self._opened(fs, path, size, etag)
            size = self._details["size"]
        super().__init__(fs, path, mode, block_size or READ_BLOCK, autocommit, cache_type, cache_options, size)
        if mode != "rb":
            self.blocksize = self._options.part_size
            self._begin()

    # ---- reading

    @staticmethod
    def _opened(fs: S3dlioFileSystem, path: str, size: Optional[int], etag: Optional[str]) -> dict[str, Any]:
        details = fs.info(path, refresh=True)
        if details["type"] == "directory":
            raise IsADirectoryError(21, os.strerror(21), path)
        if (etag is not None and etag != details.get("ETag")) or (size is not None and size != details["size"]):
            raise errors.ObjectChangedError("the object is no longer the version that was opened", uri=fs.uri(path))
        return details

    def _fetch_range(self, start: int, end: int) -> bytes:
        buffer = io.BytesIO(bytes(max(0, min(end, self.size) - start)))
        with self._reading, buffer.getbuffer() as view:
            if self._reader is None or self._pid != os.getpid():   # a socket must not be read in two processes
                self._pid = os.getpid()
                self._reader = self.fs.reader(self.path, self._details)
            self._reader.seek(start)
            n = self._reader.readinto(view)
            if n != len(view):
                raise errors.TruncatedError(f"{n} of {len(view)} bytes at {start}", uri=self.fs.uri(self.path))
        return buffer.getvalue()

    def __reduce__(self) -> tuple[Any, ...]:
        if self.mode != "rb":
            raise TypeError("a file that is being written cannot be pickled")
        return _reopened, (self.fs, self.path, self.blocksize, self.loc, self.size, self._details.get("ETag"),
                           self.cache.name if self.cache else "none")

    # ---- writing

    def _begin(self) -> None:
        """Of the modes that write."""
        self._pending = True
        try:
            if self.mode == "xb":
                if self.fs.exists(self.path):
                    raise FileExistsError(17, os.strerror(17), self.path)
                self._options = like_options(self._options, exclusive=True)
            elif self.mode == "ab":
                self._begin_with_what_is_there()
        except BaseException:
            self.discard()
            raise

    def _begin_with_what_is_there(self) -> None:
        try:
            info = self.fs.client.stat(self.fs.uri(self.path))
        except errors.NotFoundError:
            return
        self._options = like(info, self._options)
        self.loc = info.size
        if info.size < PART_MIN:
            with self.fs.reader(self.path, {"size": info.size, "ETag": info.etag}) as reader:
                self._tail += reader.readall()
            return
        upload = CopyUpload(self.fs.transport, self.fs.uri(self.path), self._options)
        self._upload = upload
        upload.add_all(info)

    def write(self, data: Any) -> int:
        """Takes all of it. When a part fails, what it failed with is raised, and nothing will be made."""
        if self.mode == "rb":
            raise io.UnsupportedOperation("not opened for writing")
        if self.closed:
            raise ValueError("I/O operation on closed file")
        check_process(self._pid)
        with memoryview(data) as given, given.cast("B") as view:
            total, at = len(view), 0
            try:
                while at < total:
                    limit = self._upload.next_part_size if self._upload else self._options.part_size
                    n = min(total - at, limit - len(self._tail))
                    self._tail += view[at:at + n]
                    at += n
                    if len(self._tail) >= limit:
                        self._send_tail()
            except BaseException:
                self.discard()
                raise
        self.loc += total
        return total

    def _send_tail(self) -> None:
        if self._upload is None:
            self._upload = MultipartUpload(self.fs.transport, self.fs.uri(self.path), self._options)
        part, self._tail = self._tail, bytearray()
        self._upload.add(part)

    @property
    def inherited(self) -> bool:
        """Whether it was opened for writing in another process, which forked this one."""
        return self.mode != "rb" and self._pid != os.getpid()

    def flush(self, force: bool = False) -> None:   # noqa: ARG002 - of the class above
        """Does nothing, see the head of this file."""
        if self.closed:
            raise ValueError("flush of closed file")

    def close(self) -> None:
        """Makes the object, unless a transaction does that. Raises Error, and then there is none of this writer."""
        if self.closed:
            return
        if self.mode == "rb":
            super().close()
            reader, self._reader = self._reader, None
            if reader is not None and self._pid == os.getpid():
                reader.close()
            return
        self.closed = True
        if self.inherited:
            self.discard()
        elif self.autocommit:
            self.commit()
        elif self._tail and (self._upload or len(self._tail) > HELD_MAX):
            try:
                self._send_tail()
            except BaseException:
                self.discard()
                raise

    def commit(self) -> None:
        """Makes the object, once. Does nothing after discard()."""
        if self.inherited:
            self.discard()
        if not self._pending:
            return
        self._pending = False
        self.closed = True
        upload, self._upload = self._upload, None
        tail, self._tail = self._tail, bytearray()
        try:
            if upload is None:
                put_plain(self.fs.transport, self.fs.uri(self.path), tail, self._options)
            else:
                _complete(upload, tail)
        except errors.PreconditionFailedError as e:
            if self.mode != "xb":
                raise
            raise FileExistsError(17, os.strerror(17), self.path) from e
        finally:
            self.fs.invalidate_cache(self.path)

    def discard(self) -> None:
        """Makes nothing and leaves nothing behind. Does nothing after commit()."""
        self.closed = True
        self._pending = False
        upload, self._upload = self._upload, None
        self._tail = bytearray()
        if upload is not None:
            upload.abort()

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is not None and self.mode != "rb":
            self.discard()
        else:
            self.close()

    def __del__(self) -> None:
        if getattr(self, "mode", "rb") == "rb":
            with contextlib.suppress(Exception):
                self.close()
        else:
            self.forget()

    def forget(self) -> None:
        """Nobody has it any more: it is discarded with a warning, unless it was closed or a transaction has it."""
        if self._pending and self.autocommit:
            inherited = self.inherited
            self.discard()
            if not inherited:
                warnings.warn(f"{self.path} was opened for writing and not closed: nothing was written", ResourceWarning,
                              stacklevel=3, source=self)


def _complete(upload: MultipartUpload, tail: bytearray) -> None:
    if tail:
        try:
            upload.add(tail)
        except BaseException:
            upload.abort()
            raise
    upload.complete()


def like_options(options: PutOptions, *, exclusive: bool) -> PutOptions:
    """The same, exclusive or not."""
    return PutOptions(options.content_type, options.metadata, options.headers, options.part_size, options.threads, exclusive)


def _reopened(fs: S3dlioFileSystem, path: str, block_size: int, position: int, size: int, etag: Optional[str],
              cache_type: str) -> S3dlioFile:
    """What a pickle of a file becomes: the same version at the same place."""
    file: S3dlioFile = fs.open(path, "rb", block_size=block_size, size=size, etag=etag, cache_type=cache_type)
    file.seek(position)
    return file


class Layered(io.BufferedIOBase):
    """What compresses, over the file that it writes to: both are closed, or after an exception the file is discarded."""

    def __init__(self, top: Any, file: S3dlioFile) -> None:
        super().__init__()
        self._top, self.file = top, file

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any) -> int:
        """Takes all of it."""
        with memoryview(data) as view:
            n = view.nbytes
            self._top.write(data)
        return n

    def tell(self) -> int:
        """Bytes before they were compressed."""
        at: int = self._top.tell()
        return at

    def close(self) -> None:
        """Ends the compressed data and makes the object."""
        if self.file.inherited:
            self.discard()
        if not self.closed:
            super().close()
            try:
                self._top.close()
            except BaseException:
                self.file.discard()
                raise
            self.file.close()

    def discard(self) -> None:
        """Makes nothing."""
        if not self.closed:
            super().close()
            self.file.discard()
            with contextlib.suppress(ValueError):   # its last bytes find a closed file
                self._top.close()

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        _forget(self, getattr(self, "file", None))


class TextWriter(io.TextIOWrapper):
    """Text over a file of ours, or one that compresses; an exception in its `with` discards what was written."""

    def __init__(self, below: Any, **options: Any) -> None:
        self._below = below
        self._file: S3dlioFile = below.file if isinstance(below, Layered) else below
        super().__init__(below, **options)

    def close(self) -> None:
        """Writes what it holds, and makes the object."""
        if self._file.inherited:
            self.discard()
        else:
            super().close()

    def discard(self) -> None:
        """Makes nothing."""
        self._below.discard()
        with contextlib.suppress(ValueError):   # what it still holds finds a closed file
            super().close()

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __del__(self) -> None:
        _forget(self, getattr(self, "_file", None))


def _forget(layer: Any, file: Optional[S3dlioFile]) -> None:
    """Of what stands over a file and was forgotten; io's own finalisers would close it, and so make half an object. What
    a transaction has is closed: it is made at the end of that, as a plain file is."""
    if file is None:
        return
    if file.autocommit:
        file.forget()
    with contextlib.suppress(Exception):   # what it still holds finds a closed file, or the interpreter ends
        layer.close()
