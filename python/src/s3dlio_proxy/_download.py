"""An object into a file, which appears under its name only when it is complete and checked.

The bytes go to a new file beside it, `.NAME.RANDOM.part`, which is removed when anything fails. Checked are the size, and
the MD5 that a plain upload's ETag is or an x-amz-checksum-* of the whole object where the answer has one; the ETag of a
multipart upload, or of an object that is encrypted with a customer's or a KMS key, is no sum of its bytes
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html).
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import zlib
from collections.abc import Mapping
from typing import Callable, Optional, Protocol

from . import errors
from ._progress import Reporter
from ._stream import Stream

BUFFER = 4 << 20
_MD5_ETAG = re.compile(r'"([0-9a-f]{32})"\Z')


class _Sum(Protocol):
    def update(self, data: memoryview) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


_SUMS: tuple[tuple[str, Callable[[], _Sum]], ...] = (
    ("x-amz-checksum-crc32", _Crc32),
    ("x-amz-checksum-sha256", hashlib.sha256),
    ("x-amz-checksum-sha1", lambda: hashlib.sha1(usedforsecurity=False)),
)


class Checker:
    """The sum that the head of an answer lets be checked, if any: `name`, or None."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self.name: Optional[str] = None
        self._sum: Optional[_Sum] = None
        self._want = b""
        etag = _MD5_ETAG.match(headers.get("etag") or "")
        kms = (headers.get("x-amz-server-side-encryption") or "").startswith("aws:kms")
        if etag and not kms and not headers.get("x-amz-server-side-encryption-customer-algorithm"):
            self.name, self._sum = "MD5", hashlib.md5(usedforsecurity=False)
            self._want = bytes.fromhex(etag[1])
            return
        if (headers.get("x-amz-checksum-type") or "FULL_OBJECT") != "FULL_OBJECT":
            return
        for name, make in _SUMS:
            value = headers.get(name)
            if value and "-" not in value:   # "-N": of the parts' sums
                with contextlib.suppress(ValueError):
                    self._want = base64.b64decode(value, validate=True)
                    self.name, self._sum = name[len("x-amz-checksum-"):].upper(), make()
                    return

    def update(self, data: memoryview) -> None:
        """The next bytes."""
        if self._sum:
            self._sum.update(data)

    def check(self, uri: str) -> None:
        """Raises IntegrityError when the sum is another."""
        if self._sum and self._sum.digest() != self._want:
            raise errors.IntegrityError(f"the {self.name} of what came is {self._sum.digest().hex()}, expected "
                                        f"{self._want.hex()}", uri=uri)


def download(open_stream: Callable[[], Stream], uri: str, path: str, reporter: Callable[[Optional[int]], Reporter]) -> int:
    """The object's bytes into the file `path`; how many they are. An object that changes on the way is begun again once.
    Raises Error, OSError of the file system; then `path` is what it was."""
    path = _replaceable(path)
    try:
        return _download(open_stream(), uri, path, reporter)
    except errors.ObjectChangedError:
        return _download(open_stream(), uri, path, reporter)


def _replaceable(path: str) -> str:
    """Where the file is to be; OSError where what is there must not be replaced by one."""
    path = os.path.realpath(path)
    with contextlib.suppress(FileNotFoundError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):   # of a directory os.replace() says so
            raise OSError(errno.EINVAL, "only a regular file can be replaced by a download", path)
    return path


def _download(stream: Stream, uri: str, path: str, reporter: Callable[[Optional[int]], Reporter]) -> int:
    folder, name = os.path.split(path)
    kept = os.fsdecode(os.fsencode(name)[:200])   # a file system counts bytes
    part = os.path.join(folder, f".{kept}.{secrets.token_hex(6)}.part")
    with contextlib.closing(stream):
        first = stream.open().position
        check = Checker({} if stream.ranged else stream.headers)
        try:
            with reporter(stream.end and stream.end - first) as report, open(part, "xb", buffering=0) as file:
                with memoryview(bytearray(BUFFER)) as buffer:
                    while n := stream.readinto(buffer):
                        _write(file.fileno(), buffer[:n])
                        check.update(buffer[:n])
                        report.add(n)
                size = os.fstat(file.fileno()).st_size
            want = stream.position - first
            if size != want or (not stream.ranged and stream.size is not None and size != stream.size):
                raise errors.IntegrityError(f"the file has {size} bytes, expected {want} of {stream.size}", uri=uri)
            check.check(uri)
            os.replace(part, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise
    return size


def _write(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view):]
