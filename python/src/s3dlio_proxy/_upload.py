"""Writing: a plain PUT when it is small, a multipart upload when it is not.

Every body carries Content-MD5, so that a server that takes other bytes than were sent says so. An upload that fails is
aborted - after its parts have ended, for a part that arrives after the abort would stay and be paid for - and so is one
whose caller raises. Memory: at most (threads + 1) parts of a file or a stream; bytes are sent from where they are.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Callable, Optional, Union

from . import _uri, _xml, errors
from ._progress import Reporter
from ._transport import Attempts, Body, Transport
from ._types import PutResult

MIB = 1 << 20
PARTS_MAX = 10_000
PART_MIN, PART_MAX = 5 * MIB, 5 << 30
PLAIN_MAX = 5 << 30
Source = Union[Body, "os.PathLike[str]", BinaryIO]
_MD5 = re.compile(r'"?([0-9a-f]{32})"?\Z')


@dataclass(frozen=True)
class PutOptions:
    """How to write. part_size: bytes, 5 MiB to 5 GiB; what is larger than this is uploaded in parts, `threads` at a
    time. exclusive: only where nothing is (If-None-Match: *), else PreconditionFailedError."""

    content_type: Optional[str] = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    part_size: int = 16 * MIB
    threads: int = 4
    exclusive: bool = False

    def __post_init__(self) -> None:
        if not PART_MIN <= self.part_size <= PART_MAX:
            raise ValueError("expected a part_size from 5 MiB to 5 GiB")
        if self.threads < 1:
            raise ValueError("expected at least 1 thread")
        for k, v in self.metadata.items():
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", k) or not re.fullmatch(r"[ -~\t]*", v):
                raise ValueError(f"expected metadata of printable ASCII with a token as its name, got {k!r}")

    def fields(self) -> dict[str, str]:
        """Of the request that makes the object."""
        out = dict(self.headers)
        if self.content_type:
            out["Content-Type"] = self.content_type
        out.update({f"x-amz-meta-{k}": v for k, v in self.metadata.items()})
        return out

    def part_size_for(self, size: int) -> int:
        """So large that 10,000 parts do."""
        least = -(-size // PARTS_MAX)
        return max(self.part_size, -(-least // MIB) * MIB)


def _md5(body: Body) -> Any:
    return hashlib.md5(body, usedforsecurity=False)


def _content_md5(body: Body) -> str:
    return base64.b64encode(_md5(body).digest()).decode()


def check_process(pid: int) -> None:
    """RuntimeError in another process than `pid`, which began to write."""
    if pid != os.getpid():
        raise RuntimeError("this object was begun to be written before the fork: only the parent process can go on")


class MultipartUpload:
    """One upload. add() and complete() are of one thread; the parts travel on others, `threads` at most. It is of the
    process that began it: in a forked child abort() does nothing, and add() and complete() raise RuntimeError."""

    def __init__(self, transport: Transport, uri: str, options: PutOptions, report: Optional[Reporter] = None) -> None:
        self.uri = uri
        self._transport, self._options, self._report = transport, options, report
        self._path = _uri.path(*_uri.split_object(uri))
        self._room = threading.Semaphore(options.threads)
        self._parts: list[concurrent.futures.Future[str]] = []
        self._size = 0
        self._failure: Optional[BaseException] = None
        self._pid = os.getpid()
        _, data = transport.request("POST", self._path, query="uploads=", headers=options.fields(), idempotent=False,
                                    uri=uri)
        self._id = _xml.text(_xml.parse(data, uri), "UploadId")
        if not self._id:
            raise errors.ProtocolError("the answer to CreateMultipartUpload has no UploadId", uri=uri)
        self._pool = concurrent.futures.ThreadPoolExecutor(options.threads, thread_name_prefix="s3dlio-upload")

    @property
    def next_part_size(self) -> int:
        """Of a stream whose size is not known: it grows, so that 10,000 parts reach further than a terabyte."""
        return min(self._options.part_size << (len(self._parts) // 2000), PART_MAX)

    def add(self, body: Body) -> None:
        """Sends a part, of 5 MiB or more unless it is the last; waits while `threads` are under way. The body must not
        change until complete(). Raises what a part before it failed with."""
        self._add(len(body), self._send, body)

    def _add(self, size: int, send: Callable[..., str], *arguments: Any) -> None:
        """The next part, whose ETag is what send(number, *arguments) returns on another thread."""
        check_process(self._pid)
        if len(self._parts) >= PARTS_MAX:
            raise ValueError(f"{self.uri}: more than {PARTS_MAX} parts: a larger part_size is needed")
        self._room.acquire()
        if self._failure:
            self._room.release()
            raise self._failure
        self._size += size
        self._parts.append(self._pool.submit(self._travel, size, send, len(self._parts) + 1, *arguments))

    def _send(self, number: int, body: Body) -> str:
        query = _uri.query({"partNumber": str(number), "uploadId": self._id})
        raw, _ = self._transport.request("PUT", self._path, query=query, body=body, uri=self.uri,
                                         headers={"Content-MD5": _content_md5(body)})
        etag: Optional[str] = raw.headers.get("etag")
        if not etag:
            raise errors.ProtocolError(f"the answer to part {number} has no ETag", uri=self.uri)
        return etag

    def _travel(self, size: int, send: Callable[..., str], *arguments: Any) -> str:
        try:
            if self._failure:
                raise self._failure
            etag = send(*arguments)
            if self._report:
                self._report.add(size)
            return etag
        except BaseException as e:
            self._failure = self._failure or e
            raise
        finally:
            self._room.release()

    def complete(self) -> PutResult:
        """Waits for the parts and makes the object. On failure the upload is aborted."""
        check_process(self._pid)
        try:
            etags = [p.result() for p in self._parts]
            self._pool.shutdown()
            etag, version = self._complete(etags)
        except BaseException:
            self.abort()
            raise
        return PutResult(self.uri, self._size, etag, version, len(etags))

    def _complete(self, etags: list[str]) -> tuple[Optional[str], Optional[str]]:
        fields = {"Content-Type": "application/xml"}
        if self._options.exclusive:
            fields["If-None-Match"] = "*"
        attempts, unclear = Attempts(self._transport.retry), False
        while True:
            try:
                raw, data = self._transport.request("POST", self._path, query=_uri.query({"uploadId": self._id}),
                                                    headers=fields, body=_xml.complete_request(etags), uri=self.uri,
                                                    idempotent=False, attempts=attempts)
                root = _xml.parse(data, self.uri)
                if root.tag == "Error":   # a 200 that became an error while the client was kept waiting
                    raise errors.from_response(500 if _xml.text(root, "Code") == "InternalError" else 400,
                                               _xml.text(root, "Code"), _xml.text(root, "Message"), uri=self.uri,
                                               request_id=root.findtext("RequestId"))
                return root.findtext("ETag"), raw.headers.get("x-amz-version-id")
            except (errors.TransportError, errors.ServerError) as e:
                unclear = True   # it may be done; then the upload is gone, and the object tells
                attempts.again(e)
            except (errors.NotFoundError, errors.PreconditionFailedError) as e:
                # There is an object, or no upload any more: both are what a first try that was done leads to.
                gone = isinstance(e, errors.PreconditionFailedError) or e.code == "NoSuchUpload"
                made = self._made(etags) if unclear and gone else None
                if made is None:
                    raise
                return made

    def _made(self, etags: list[str]) -> Optional[tuple[Optional[str], Optional[str]]]:
        """(ETag, version id) of the object, where its ETag shows that it is made of these parts."""
        sums = [_MD5.match(e) for e in etags]
        raw, _ = self._transport.request("HEAD", self._path, uri=self.uri)
        etag = raw.headers.get("etag")
        if not all(sums):
            return None
        digest = _md5(b"".join(bytes.fromhex(m[1]) for m in sums if m)).hexdigest()
        return (etag, raw.headers.get("x-amz-version-id")) if etag == f'"{digest}-{len(etags)}"' else None

    def abort(self) -> None:
        """Ends it and leaves nothing behind, as far as the server can be reached."""
        if self._pid != os.getpid():   # the upload and its threads are the parent's
            return
        self._pool.shutdown(wait=True, cancel_futures=True)
        with contextlib.suppress(errors.Error):
            self._transport.request("DELETE", self._path, query=_uri.query({"uploadId": self._id}), expect=(200, 204),
                                    uri=self.uri)


def put_plain(transport: Transport, uri: str, body: Body, options: PutOptions,
              report: Optional[Reporter] = None) -> PutResult:
    """One PUT."""
    fields = options.fields()
    fields["Content-MD5"] = _content_md5(body)
    if options.exclusive:
        fields["If-None-Match"] = "*"
    raw, _ = transport.request("PUT", _uri.path(*_uri.split_object(uri)), headers=fields, body=body, uri=uri,
                               idempotent=not options.exclusive)
    if report:
        report.add(len(body))
    return PutResult(uri, len(body), raw.headers.get("etag"), raw.headers.get("x-amz-version-id"))


def put_bytes(transport: Transport, uri: str, body: Body, options: PutOptions, report: Reporter) -> PutResult:
    """From memory, without a copy."""
    view = memoryview(body).cast("B")
    if len(view) <= 2 * options.part_size:
        return put_plain(transport, uri, body if isinstance(body, bytes) else view, options, report)
    step = options.part_size_for(len(view))
    upload = MultipartUpload(transport, uri, options, report)
    try:
        for at in range(0, len(view), step):
            upload.add(view[at:at + step])
    except BaseException:
        upload.abort()
        raise
    return upload.complete()


def _read_full(file: BinaryIO, n: int) -> bytes:
    """n bytes, fewer only at the end."""
    parts, got = [], 0
    while got < n:
        data = file.read(n - got)
        if not data:
            if data is None:
                raise ValueError("expected a file that blocks")
            break
        if not isinstance(data, (bytes, bytearray)):
            raise TypeError(f"expected a binary file, whose read() returns bytes, not {type(data).__name__}")
        parts.append(bytes(data))
        got += len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def put_file(transport: Transport, uri: str, file: BinaryIO, size: Optional[int], options: PutOptions,
             report: Reporter) -> PutResult:
    """From a file's position to its end. size: what is expected to be there, which is checked; None: not known."""
    step = options.part_size_for(size) if size is not None else options.part_size
    data = _read_full(file, step)
    if len(data) < step:
        _check_size(uri, size, len(data))
        return put_plain(transport, uri, data, options, report)
    upload = MultipartUpload(transport, uri, options, report)
    try:
        total = 0
        while data:
            total += len(data)
            upload.add(data)
            data = _read_full(file, step if size is not None else upload.next_part_size)
        _check_size(uri, size, total)
    except BaseException:
        upload.abort()
        raise
    return upload.complete()


def _check_size(uri: str, size: Optional[int], got: int) -> None:
    if size is not None and size != got:
        raise errors.IntegrityError(f"the file had {size} bytes and gave {got}: it changed while it was read", uri=uri)
