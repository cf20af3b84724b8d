"""The client: everything that a program does through s3dlio-proxy, or to it.

A Client is cheap to make, opens connections when it needs them, and may be shared by threads. It survives a fork (the
child opens its own connections) and can be pickled (settings travel, credentials among them; sockets never), so it may
be a member of a data set that worker processes read.

Bytes come as they are stored: nothing is decompressed. A body that breaks off is resumed within the retries, never from
another version of the object; what cannot be resumed is an error, never short data.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import pathlib
import stat as stat_module
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Optional, Union, cast, overload

from . import _listing, _uri, _xml, errors
from ._admin import Admin, Mark, WarmJob, place, warm_document
from ._download import download as _download
from ._files import ObjectReader, ObjectWriter
from ._many import GetMany, I, Item
from ._progress import Progress, Reporter
from ._stream import Stream
from ._transport import Cancel, Retry, Timeout, Transport
from ._types import BucketInfo, CachedObject, ObjectInfo, PutResult, WarmStatus, object_info
from ._upload import PutOptions, Source, put_bytes, put_file
from .sigv4 import Credentials

if TYPE_CHECKING:
    from typing_extensions import Buffer

DEFAULT_URL = "http://127.0.0.1:8080"
CacheUse = Literal["bypass", "refresh"]
MIB = 1 << 20


def _cache_header(cache: Optional[CacheUse]) -> dict[str, str]:
    return {} if cache is None else {"S3dlio-Cache": cache}


def _writable(buffer: Any) -> memoryview:
    """A buffer's bytes, without a copy. TypeError where it is read-only or not contiguous."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise TypeError("expected a buffer that is writable and C-contiguous")
    if view.nbytes == 0:
        return memoryview(bytearray())
    try:
        return view.cast("B")
    except (TypeError, ValueError):   # a format that memoryview does not know, as of numpy's structures
        return memoryview((ctypes.c_char * view.nbytes).from_buffer(view)).cast("B")


class Client:
    """Access to the objects behind one s3dlio-proxy, or any endpoint that speaks S3.

    url: of the endpoint, http or https; None: S3DLIO_PROXY_URL, else AWS_ENDPOINT_URL, else http://127.0.0.1:8080.
    credentials: sign requests (SigV4); the proxy itself asks for none where its route says `auth: none`.
    pool: connections that are kept open, in each process; more may be open at a time.
    timeout: seconds to connect, and the longest silence of an answer; or one number for both. It is no limit on the
    whole: a large object may take as long as its bytes keep coming.
    retries: how often a request is tried again; a Retry says more.
    verify: of https: True, or a file of CA certificates (REQUESTS_CA_BUNDLE does, too), or False.
    admin_path: where the proxy's admin route is. headers: sent with every request.

    Every method raises errors.Error (an OSError) for what the server or the network did, and ValueError or TypeError for
    arguments that cannot be right. URIs are s3://bucket/key with the key as it is, not percent-encoded.
    """

    def __init__(self, url: Optional[str] = None, *, credentials: Optional[Credentials] = None, pool: int = 64,
                 timeout: Timeout = (5.0, 60.0), retries: Union[int, Retry] = 4, verify: Union[bool, str] = True,
                 admin_path: str = "/_s3dlio/", headers: Optional[Mapping[str, str]] = None) -> None:
        if url is None:
            url = os.environ.get("S3DLIO_PROXY_URL") or os.environ.get("AWS_ENDPOINT_URL") or DEFAULT_URL
        if credentials is not None and not isinstance(credentials, Credentials):
            raise TypeError("expected credentials to be a Credentials")
        self._settings: dict[str, Any] = {
            "url": url, "credentials": credentials, "pool": pool, "timeout": timeout, "retries": retries, "verify": verify,
            "admin_path": admin_path, "headers": dict(headers or {})}
        self.url = url.rstrip("/")
        retry = retries if isinstance(retries, Retry) else Retry(attempts=retries + 1)
        self._transport = Transport(url, credentials=credentials, pool=pool, timeout=timeout, retry=retry, verify=verify,
                                    headers=dict(headers or {}))
        self._admin = Admin(self._transport, admin_path)
        self._region = credentials.region if credentials else "us-east-1"

    def __repr__(self) -> str:
        return f"Client({self.url!r}{', signing' if self._settings['credentials'] else ''})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self._settings)

    def close(self) -> None:
        """Closes this process's connections. The client can still be used, and opens new ones then."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    # ---- reading

    def _stream(self, uri: str, *, first: int = 0, length: Optional[int] = None, etag: Optional[str] = None,
                version_id: Optional[str] = None, cache: Optional[CacheUse] = None, cancel: Optional[Cancel] = None,
                headers: Optional[dict[str, str]] = None) -> Stream:
        return Stream(self._transport, uri, _uri.path(*_uri.split_object(uri)), first=first, length=length, etag=etag,
                      query=_uri.query({"versionId": version_id}) if version_id else "",
                      headers={**_cache_header(cache), **(headers or {})}, cancel=cancel)

    def get(self, uri: str, *, version_id: Optional[str] = None, cache: Optional[CacheUse] = None) -> bytes:
        """The whole object. https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html

        cache: "bypass" asks to be served past the proxy's cache, "refresh" to have the object fetched anew; a proxy whose
        route does not allow it refuses (AccessDeniedError). Raises NoSuchKeyError, TruncatedError, ...
        """
        return self._stream(uri, version_id=version_id, cache=cache).read_all()

    def get_range(self, uri: str, offset: int, length: Optional[int] = None, *, etag: Optional[str] = None,
                  version_id: Optional[str] = None, cache: Optional[CacheUse] = None) -> bytes:
        """`length` bytes from `offset` on, fewer where the object ends before; None: to its end. A negative offset, with
        no length: the last -offset bytes. etag: only of that version, else ObjectChangedError. RangeError (416) where the
        offset is not before the object's end. https://www.rfc-editor.org/rfc/rfc9110#section-14
        """
        _check_range(offset, length)
        if length == 0:
            return b""
        return self._stream(uri, first=offset, length=length, etag=etag, version_id=version_id, cache=cache).read_all()

    def readinto(self, uri: str, buffer: Buffer, offset: int = 0, *, etag: Optional[str] = None,
                 version_id: Optional[str] = None, cache: Optional[CacheUse] = None) -> int:
        """Fills a bytearray, memoryview, numpy array or other writable contiguous buffer with the object's bytes from
        `offset` on, from the socket and without a copy. How many bytes: fewer than the buffer holds only where the object
        ends, 0 at or after its end. On an exception the buffer's content is undefined. etag: as for get_range().
        """
        if offset < 0:
            raise ValueError("expected an offset that is not negative")
        with _writable(buffer) as view:
            if len(view) == 0:
                return 0
            stream = self._stream(uri, first=offset, length=len(view), etag=etag, version_id=version_id, cache=cache)
            try:
                return stream.fill(view)
            except errors.RangeError:
                return 0
            finally:
                stream.close()

    @overload
    def get_many(self, items: Iterable[I], *, threads: int = ..., ordered: bool = ..., window: Optional[int] = ...,
                 max_bytes: int = ..., errors: Literal["raise"] = ..., cache: Optional[CacheUse] = ...,
                 ) -> GetMany[I, bytes]: ...

    @overload
    def get_many(self, items: Iterable[I], *, threads: int = ..., ordered: bool = ..., window: Optional[int] = ...,
                 max_bytes: int = ..., errors: Literal["return"], cache: Optional[CacheUse] = ...,
                 ) -> GetMany[I, Union[bytes, errors.Error]]: ...

    def get_many(self, items: Iterable[I], *, threads: int = 16, ordered: bool = True, window: Optional[int] = None,
                 max_bytes: int = 256 * MIB, errors: Literal["raise", "return"] = "raise",
                 cache: Optional[CacheUse] = None) -> GetMany[I, Any]:
        """Many objects, read by threads: an iterator over (item, bytes). An item is a URI or (uri, offset, length) as for
        get_range(). The iterable is consumed as it goes, in the thread that iterates.

        ordered: in the order of the items, else as they are complete. window: how many items may be under way or waiting
        for the consumer, twice the threads unless given. max_bytes: how many bytes; one object larger than that is read
        alone. errors: "raise" the first failure where its result would be, which ends the iteration, or "return" an Error
        in place of the bytes. close(), a `with` or forgetting the iterator ends it at once. Of one thread, one process.
        """
        if threads < 1 or max_bytes < 1 or (window is not None and window < 1):
            raise ValueError("expected threads, window and max_bytes of at least 1")
        if errors not in ("raise", "return"):
            raise ValueError("expected errors to be 'raise' or 'return'")

        def opener(item: Item, cancel: Cancel) -> Stream:
            if isinstance(item, str):
                return self._stream(item, cache=cache, cancel=cancel)
            uri, offset, length = item
            _check_range(offset, length)
            if length == 0:
                raise ValueError("expected a length of at least 1")
            return self._stream(uri, first=offset, length=length, cache=cache, cancel=cancel)

        return GetMany(items, opener, threads=threads, ordered=ordered, window=window or 2 * threads, max_bytes=max_bytes,
                       return_errors=errors == "return")

    @overload
    def open(self, uri: str, mode: Literal["rb", "r"] = ..., **options: Any) -> io.BufferedReader: ...

    @overload
    def open(self, uri: str, mode: Literal["wb", "w", "xb", "x"], **options: Any) -> ObjectWriter: ...

    @overload
    def open(self, uri: str, mode: str, **options: Any) -> Union[io.BufferedReader, ObjectWriter]: ...

    def open(self, uri: str, mode: str = "rb", *, buffer_size: int = 256 << 10, info: Optional[ObjectInfo] = None,
             version_id: Optional[str] = None, cache: Optional[CacheUse] = None,
             **writing: Any) -> Union[io.BufferedReader, ObjectWriter]:
        """The object as a binary file ("r" and "rb" are the same; io.TextIOWrapper makes text of it).

        "rb": seekable, buffered by `buffer_size` bytes, and bound to the version that it has now: ObjectChangedError
        later. info: of stat(), which is asked otherwise. "wb": an ObjectWriter, which makes the object when it is closed,
        in parts when it is large, and nothing when a `with` is left by an exception; "xb": only where there is none, else
        PreconditionFailedError when it is closed. `writing`: as for put(). A file is of one thread at a time.
        """
        if mode in ("wb", "w", "xb", "x"):
            _uri.split_object(uri)
            return ObjectWriter(self._transport, uri, PutOptions(exclusive=mode.startswith("x"), **writing))
        if mode not in ("rb", "r"):
            raise ValueError(f"expected the mode 'rb', 'wb' or 'xb', not {mode!r}")
        if writing:
            raise TypeError(f"{', '.join(writing)}: only for writing")
        known = info or self.stat(uri, version_id=version_id, cache=cache)
        query = _uri.query({"versionId": version_id}) if version_id else ""
        raw = ObjectReader(self._transport, _uri.path(*_uri.split_object(uri)), query, known, _cache_header(cache))
        return io.BufferedReader(raw, buffer_size)

    def stat(self, uri: str, *, version_id: Optional[str] = None, cache: Optional[CacheUse] = None) -> ObjectInfo:
        """Size, ETag, times, metadata. NotFoundError where it is not.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html"""
        raw, _ = self._transport.request("HEAD", _uri.path(*_uri.split_object(uri)), headers=_cache_header(cache), uri=uri,
                                         query=_uri.query({"versionId": version_id}))
        return object_info(uri, raw.headers)

    def exists(self, uri: str) -> bool:
        """Whether there is such an object; other errors than 404 are raised."""
        try:
            self.stat(uri)
        except errors.NotFoundError:
            return False
        return True

    def download(self, uri: str, path: Union[str, os.PathLike[str]], *, offset: int = 0, length: Optional[int] = None,
                 progress: Progress = None, version_id: Optional[str] = None, cache: Optional[CacheUse] = None) -> int:
        """The object, or a range of it as for get_range(), into a file, or below its own last name into a directory. How
        many bytes.

        The file appears under its name, and replaces another, only when it is complete and its size and MD5 or checksum,
        where the answer tells one, are right: IntegrityError. A symbolic link stays, and what it leads to is replaced; a
        device or a pipe is not: OSError, EINVAL. progress: True for a bar (extra `progress`), or function(done, total) in
        bytes. Memory: 4 MiB.
        """
        _check_range(offset, length)
        if length == 0:
            raise ValueError("expected a length of at least 1")
        target = os.fspath(path)
        if os.path.isdir(target):
            name = _uri.split_object(uri)[1].rstrip("/").rpartition("/")[2]
            if name in ("", ".", ".."):
                raise ValueError(f"expected a file's name, for {uri} has none of its own")
            target = os.path.join(target, name)

        def stream() -> Stream:
            return self._stream(uri, first=offset, length=length, version_id=version_id, cache=cache)

        return _download(stream, uri, target, lambda total: Reporter(progress, total, uri.rpartition("/")[2]))

    # ---- listing

    def list(self, uri: str, *, delimiter: Optional[str] = None, start_after: Optional[str] = None,
             page_size: int = 1000) -> Iterator[ObjectInfo]:
        """What begins with s3://bucket/prefix, a page at a time, in the order of the keys.

        delimiter: "/" for one level, as of a directory; what is deeper is then one entry with `is_prefix`. start_after: a
        key. page_size: 1 to 1000. https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
        """
        bucket, prefix = _uri.split(uri)
        return _listing.list_objects(self._transport, bucket, prefix, delimiter, start_after, page_size)

    def list_buckets(self) -> builtins.list[BucketInfo]:
        """The buckets that the endpoint shows."""
        return [*_listing.list_buckets(self._transport)]

    def create_bucket(self, bucket: str) -> None:
        """Makes a bucket, "name" or "s3://name", in the credentials' region. ConflictError where there is one.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html"""
        name = _uri.bucket_name(bucket)
        self._transport.request("PUT", f"/{name}", body=_xml.create_bucket_request(self._region), idempotent=False,
                                uri=f"s3://{name}")

    def delete_bucket(self, bucket: str) -> None:
        """Removes an empty bucket. NoSuchBucketError, ConflictError where it is not empty."""
        name = _uri.bucket_name(bucket)
        self._transport.request("DELETE", f"/{name}", expect=(200, 204), idempotent=False, uri=f"s3://{name}")

    # ---- writing

    def put(self, uri: str, data: Source, *, content_type: Optional[str] = None,
            metadata: Optional[Mapping[str, str]] = None, headers: Optional[Mapping[str, str]] = None,
            part_size: int = 16 * MIB, threads: int = 4, exclusive: bool = False, progress: Progress = None) -> PutResult:
        """Writes an object from bytes-like data (not copied), a pathlib.Path, or a binary file from its position on.

        What is larger than two parts of `part_size` bytes (a file: than one) is a multipart upload, `threads` parts at a
        time; when anything fails it is aborted, and the object is what it was. metadata: x-amz-meta-*, printable ASCII.
        headers: further fields, such as Cache-Control. exclusive: PreconditionFailedError where there is one already.
        progress: as for download(). https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html
        """
        _uri.split_object(uri)
        options = PutOptions(content_type=content_type, metadata=metadata or {}, headers=headers or {},
                             part_size=part_size, threads=threads, exclusive=exclusive)
        name = uri.rpartition("/")[2]
        if isinstance(data, os.PathLike):
            with builtins.open(data, "rb") as file:
                size = os.fstat(file.fileno())
                known = size.st_size if stat_module.S_ISREG(size.st_mode) else None
                with Reporter(progress, known, name) as report:
                    return put_file(self._transport, uri, file, known, options, report)
        if isinstance(cast(object, data), str):
            raise TypeError("expected bytes, a pathlib.Path or a binary file; text must be encoded, a path be a Path")
        if callable(getattr(data, "read", None)):
            with Reporter(progress, None, name) as report:
                return put_file(self._transport, uri, cast(BinaryIO, data), None, options, report)
        view = memoryview(cast(bytes, data))
        with Reporter(progress, view.nbytes, name) as report:
            return put_bytes(self._transport, uri, data if isinstance(data, bytes) else view, options, report)

    def upload(self, path: Union[str, os.PathLike[str]], uri: str, *, progress: Progress = None,
               **options: Any) -> PutResult:
        """A file to an object; a URI that ends with '/' gets the file's name. Options are those of put()."""
        source = os.fspath(path)
        if _uri.split(uri)[1] == "" or uri.endswith("/"):
            uri = (uri if uri.endswith("/") else uri + "/") + os.path.basename(source)
        return self.put(uri, pathlib.Path(source), progress=progress, **options)

    def delete(self, uris: Union[str, Iterable[str]]) -> int:
        """Deletes one object, or many in batches of 1000. An object that is not there counts as deleted, as with S3. How
        many; BatchError, whose `errors` are one for each, when some of many failed - the others are deleted.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html"""
        if isinstance(uris, str):
            _listing.delete_one(self._transport, uris)
            return 1
        return _listing.delete_many(self._transport, uris)

    # ---- the proxy itself

    def health(self) -> bool:
        """Whether a proxy answers at all. False when nobody does or it says no; it is not tried again."""
        return self._asks_well("health")

    def ready(self) -> bool:
        """Whether the proxy takes work: not while it starts, drains or has no usable origin."""
        return self._asks_well("ready")

    def _asks_well(self, name: str) -> bool:
        try:
            return self._admin.once(name)
        except errors.Error:
            return False

    def stats(self, since: Optional[str] = None) -> dict[str, Any]:
        """The proxy's counters and percentiles; since: the label of a mark, for what was counted since then.
        NotFoundError where there is no such mark."""
        return self._admin.stats(since)

    def metrics(self) -> str:
        """The same in Prometheus' text format, version 0.0.4."""
        return self._admin.ask("GET", "metrics").decode()

    def config(self) -> str:
        """The configuration in force, YAML, secrets masked."""
        return self._admin.ask("GET", "config").decode()

    def mark(self, label: Optional[str] = None) -> Mark:
        """Names this moment, so that stats(since=label) tells what happened after it; also a context manager, see Mark.
        label: 1 to 64 printable ASCII characters; None: a new one. A label that exists moves to now."""
        return self._admin.mark(label)

    @overload
    def warm(self, uris: Union[str, Iterable[str], None] = ..., *, prefix: Optional[str] = ...,
             manifest: Optional[str] = ..., pin: bool = ..., concurrency: Optional[int] = ...,
             wait: Literal[True] = ..., timeout: Optional[float] = ...,
             progress: Progress = ...) -> WarmStatus: ...

    @overload
    def warm(self, uris: Union[str, Iterable[str], None] = ..., *, prefix: Optional[str] = ...,
             manifest: Optional[str] = ..., pin: bool = ..., concurrency: Optional[int] = ...,
             wait: Literal[False], timeout: Optional[float] = ...,
             progress: Progress = ...) -> WarmJob: ...

    def warm(self, uris: Union[str, Iterable[str], None] = None, *, prefix: Optional[str] = None,
             manifest: Optional[str] = None, pin: bool = False, concurrency: Optional[int] = None, wait: bool = True,
             timeout: Optional[float] = None, progress: Progress = None) -> Union[WarmStatus, WarmJob]:
        """Lets the proxy read objects into its cache: URIs (their list at most 8 MiB), all below a prefix, or those that
        a manifest, an object with a URI in each line, names.

        pin: keep them until they are purged or change. concurrency: objects at a time. wait: until it is done - then the
        result is its WarmStatus, and WarmJob.wait() says what timeout, progress and exceptions are - else the WarmJob.
        """
        job = self._admin.warm(warm_document(uris, prefix, manifest, pin, concurrency))
        return job.wait(timeout=timeout, progress=progress) if wait else job

    def purge(self, uri: Optional[str] = None, *, prefix: Optional[str] = None, all: bool = False) -> int:
        """Drops an object, all below a prefix, or all from the proxy's caches; how many."""
        if (uri is not None) + (prefix is not None) + bool(all) != 1:
            raise ValueError("expected one of uri, prefix and all")
        if uri is not None:
            _uri.split_object(uri)
            return self._admin.purge({"uri": place(uri)})
        return self._admin.purge({"prefix": place(prefix)} if prefix is not None else {"all": True})

    def objects(self, prefix: Optional[str] = None) -> Iterator[CachedObject]:
        """What is cached below s3://bucket/prefix, or all of it, a page at a time, in no order; none comes twice."""
        return self._admin.objects(place(prefix) if prefix is not None else "")


def _check_range(offset: int, length: Optional[int]) -> None:
    if length is not None and (length < 0 or offset < 0):
        raise ValueError("expected an offset and a length that are not negative; a negative offset goes without a length")


def _unpickled(cls: type[Client], settings: dict[str, Any]) -> Client:
    return cls(**settings)
