"""An fsspec file system: `s3dlio://bucket/key` for pandas, pyarrow, xarray, dask and all else that speaks fsspec.

    fsspec.open("s3dlio://bucket/key")
    pandas.read_parquet("s3dlio://bucket/table/", storage_options={"endpoint_url": "http://127.0.0.1:8080"})
    fs = fsspec.filesystem("s3dlio", endpoint_url="http://127.0.0.1:8080")

Paths are `bucket/key`, and the key is itself: nothing in it is encoded. Directories are what S3 makes of them: there where
an object is below them, or an empty object whose key ends in "/". Such markers are not listed as files; a key with an
empty name in it ("a//b") can be opened and is found by find(), but ls() and walk() do not show it.

Answers about existence come from the server unless a listing of the last `listings_expiry_time` seconds has the path;
that it lacks one is never believed. Writes through this instance forget what they may have changed.

Bytes go through the proxy in parallel: cat(), cat_ranges(), get(), put() and pipe() of many use `threads`, copies are made
by the store, deletions go in batches. An instance may be used in forked children and travels by pickle. fsspec makes one
instance for each thread; they share a Client. With client= or credentials= every call makes an instance of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import mimetypes
import os
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any, Callable, Optional

try:
    from fsspec.callbacks import DEFAULT_CALLBACK
    from fsspec.implementations.local import make_path_posix
    from fsspec.spec import AbstractFileSystem
    from fsspec.utils import isfilelike, stringify_path
except ImportError as e:
    raise ImportError(f"s3dlio_proxy.fsspec needs fsspec, and it cannot be imported: {e}") from e

from . import _uri, errors
from ._copy import COPY_PART, copy_object
from ._dircache import Entry, Listings
from ._entries import (
    check_below,
    directory_entry,
    file_entry,
    is_plain,
    merged,
    missing,
    outermost,
    path_of,
    progress_of,
    split,
)
from ._files import ObjectReader
from ._fsspec_file import Layered, S3dlioFile, TextWriter
from ._instances import Instances, remember, shared_client
from ._transport import Transport
from ._types import ObjectInfo
from ._upload import MIB, PART_MIN, PLAIN_MAX, PutOptions
from .client import Client
from .sigv4 import Credentials

__all__ = ["S3dlioFile", "S3dlioFileSystem"]

# What libraries pass to every file system.
_OF_OTHERS = frozenset(("asynchronous", "loop", "batch_size", "max_paths", "add_docs", "add_aliases"))


class S3dlioFileSystem(AbstractFileSystem, metaclass=Instances):
    """See the head of this file.

    endpoint_url: of the proxy, as the url of Client. key, secret, token, region: sign requests with these; or
    credentials. client: a Client instead. client_options: further arguments of Client (timeout, retries, pool, verify,
    headers, admin_path).
    threads: requests at a time of calls for many. part_size: of uploads, 5 MiB or more; upload_threads: parts at a time.
    listings_expiry_time: seconds; None: never; use_listings_cache=False: none are kept. listings_max: entries in all.
    """

    protocol = "s3dlio"
    root_marker = ""
    copy_limit, copy_part = PLAIN_MAX, COPY_PART

    def __init__(self, endpoint_url: Optional[str] = None, *, key: Optional[str] = None, secret: Optional[str] = None,
                 token: Optional[str] = None, region: str = "us-east-1", credentials: Optional[Credentials] = None,
                 client: Optional[Client] = None, client_options: Optional[Mapping[str, Any]] = None, threads: int = 16,
                 part_size: int = 16 * MIB, upload_threads: int = 4, use_listings_cache: bool = True,
                 listings_expiry_time: Optional[float] = 60.0, listings_max: int = 1_000_000,
                 **storage_options: Any) -> None:
        if self._cached:
            return
        if threads < 1:
            raise ValueError("expected threads to be at least 1")
        if (key is None) != (secret is None):
            raise ValueError("expected both key and secret, or neither")
        unknown = sorted(set(storage_options) - _OF_OTHERS)
        if unknown:
            raise TypeError(f"unknown storage options: {', '.join(unknown)}")
        super().__init__(**storage_options)
        if key is not None and secret is not None:
            credentials = Credentials(key, secret, token, region)
        self.client = client if client is not None else shared_client(endpoint_url, credentials, client_options or {})
        self.threads = threads
        self._options = PutOptions(part_size=max(part_size, PART_MIN), threads=upload_threads)
        self.dircache = Listings(listings_expiry_time if use_listings_cache else 0, listings_max)
        self._pool_lock = threading.Lock()
        self._pool: Optional[concurrent.futures.ThreadPoolExecutor] = None
        remember(self)

    def forget_threads(self) -> None:
        """In the child of a fork: the parent's threads are not here, and locks may be held by them."""
        self._pool_lock = threading.Lock()
        self._pool = None
        self.dircache.renew_locks()

    @property
    def transport(self) -> Transport:
        """What requests go through."""
        return self.client._transport

    @property
    def fsid(self) -> str:
        """Tells file systems apart, in every process alike."""
        return "s3dlio-" + sha256(self.client.url.encode()).hexdigest()[:32]

    # ---- paths

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        path = stringify_path(path)
        for scheme in ("s3dlio://", "s3dlio::", "s3://"):
            if path.startswith(scheme):
                path = path[len(scheme):]
                break
        return path.strip("/")

    def uri(self, path: str) -> str:
        """s3://bucket/key of a path, which must name both."""
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if not key:
            if not self.exists(bucket):
                raise missing(path)
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return _uri.SCHEME + path

    def reader(self, path: str, details: Mapping[str, Any]) -> ObjectReader:
        """A raw reader of the version that `details`, an entry with size and ETag, are of."""
        uri = self.uri(path)
        info = ObjectInfo(uri=uri, size=details["size"], etag=details.get("ETag"))
        return ObjectReader(self.transport, _uri.path(*_uri.split_object(uri)), "", info, {})

    def invalidate_cache(self, path: Optional[str] = None) -> None:
        """Forgets listings: all, or what a change of `path` may have changed."""
        if path is None:
            self.dircache.clear()
        else:
            self.dircache.forget(self._strip_protocol(path))
        super().invalidate_cache(path)

    # ---- what is there

    def info(self, path: str, refresh: bool = False, **kwargs: Any) -> Entry:
        """An object's or a directory's entry; refresh: asked of the server. FileNotFoundError."""
        path = self._strip_protocol(path)
        bucket, key = split(path)
        if not bucket:
            return directory_entry("")
        if not refresh:
            known = self.dircache.entry(self._parent(path), path)
            if known is not None:
                return dict(known)
        if not key:
            return self._bucket(bucket)
        try:
            return file_entry(self.client.stat(_uri.SCHEME + path))
        except errors.NotFoundError:
            if self._has_below(path):
                return directory_entry(path)
            raise missing(path) from None

    def _bucket(self, bucket: str) -> Entry:
        try:
            self.transport.request("HEAD", f"/{bucket}", uri=_uri.join(bucket, ""))
        except errors.NotFoundError:
            raise missing(bucket) from None
        return directory_entry(bucket)

    def _has_below(self, path: str) -> bool:
        try:
            return next(iter(self.client.list(f"{_uri.SCHEME}{path}/", page_size=1)), None) is not None
        except errors.NotFoundError:
            return False

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Whether there is an object or a directory. Other failures than that it is missing are raised: a proxy that
        cannot be reached says nothing about what is there."""
        try:
            self.info(path, **kwargs)
        except FileNotFoundError:
            return False
        return True

    def isdir(self, path: str) -> bool:
        """Whether it is a directory or a bucket."""
        return self._type(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether it is an object."""
        return self._type(path) == "file"

    def _type(self, path: str) -> Optional[str]:
        try:
            kind: str = self.info(path)["type"]
        except FileNotFoundError:
            return None
        return kind

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        """The entries of a directory, or the one of a file. FileNotFoundError."""
        path = self._strip_protocol(path)
        entries = None if refresh else self.dircache.get(path)
        if entries is None:
            entries = self._listed(path, refresh)
        return [dict(e) for e in entries] if detail else [e["name"] for e in entries]

    def _listed(self, path: str, refresh: bool) -> list[Entry]:
        bucket, key = split(path)
        if not bucket:
            entries = [{**directory_entry(b.name), "LastModified": b.created} for b in self.client.list_buckets()]
            self.dircache[""] = entries
            return entries
        entries, there = self._entries(path, "")
        if not there and key:
            entry = self.info(path, refresh=refresh)   # a file, or FileNotFoundError
            if entry["type"] == "file":
                return [entry]
        self.dircache[path] = entries
        return entries

    def _entries(self, path: str, prefix: str) -> tuple[list[Entry], bool]:
        """What is in a directory and begins with a prefix; and whether the server knew anything at all there."""
        base = path + "/"
        entries, there = [], False
        try:
            for o in self.client.list(_uri.SCHEME + base + prefix, delimiter="/"):
                there = True
                name = path_of(o.uri)
                if o.is_prefix:
                    if is_plain(name[len(base):-1]):
                        entries.append(directory_entry(name[:-1]))
                elif not name.endswith("/"):
                    entries.append(file_entry(o))
        except errors.NotFoundError:
            raise missing(path) from None
        return entries, there

    def find(self, path: str, maxdepth: Optional[int] = None, withdirs: bool = False, detail: bool = False,
             prefix: str = "", refresh: bool = False, **kwargs: Any) -> Any:
        """All objects below a directory; prefix: whose path below it begins so. Without `maxdepth` it is one listing."""
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth must be at least 1")
        path = self._strip_protocol(path)
        if refresh:
            self.invalidate_cache(path)
        if not path and maxdepth is None:
            found: dict[str, Entry] = {}
            for bucket in self.ls(""):
                if bucket["name"].startswith(prefix):
                    found.update(self.find(bucket["name"], None, withdirs, True))
        elif maxdepth is None:
            found = self._below(path, prefix, withdirs)
        else:
            found = {}
            self._to_depth(path, maxdepth, prefix, withdirs, found)
        if withdirs and path and not prefix and (found or self.isdir(path)):
            found.setdefault(path, directory_entry(path))
        if not found and path and not prefix and self.isfile(path):
            found[path] = self.info(path)
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _below(self, path: str, prefix: str, withdirs: bool) -> dict[str, Entry]:
        """All depths by one listing, which also tells every directory's entries."""
        base = path + "/"
        files: dict[str, Entry] = {}
        tree: dict[str, dict[str, Entry]] = {path: {}}
        with contextlib.suppress(errors.NotFoundError):
            for o in self.client.list(_uri.SCHEME + base + prefix):
                name = path_of(o.uri)
                marker = name.endswith("/")
                if not marker:
                    files[name] = file_entry(o)
                if is_plain(name[len(base):].rstrip("/") or "."):
                    self._grow(tree, path, name.rstrip("/"), None if marker else files[name])
        if not prefix and (files or len(tree) > 1):
            for directory, entries in tree.items():
                self.dircache[directory] = sorted(entries.values(), key=lambda e: str(e["name"]))
        if withdirs:
            for directory in tree:
                if directory != path:
                    files.setdefault(directory, directory_entry(directory))
        return files

    @staticmethod
    def _grow(tree: dict[str, dict[str, Entry]], root: str, path: str, entry: Optional[Entry]) -> None:
        """Adds a file, or with no entry a directory, and what it is in up to the root."""
        if entry is None:
            if path == root or path in tree:
                return
            tree[path] = {}
            entry = directory_entry(path)
        while True:
            parent = path.rpartition("/")[0]
            known = parent in tree
            entries = tree.setdefault(parent, {})
            if entry["type"] == "file" or path not in entries:
                entries[path] = entry
            if known:
                return
            path, entry = parent, directory_entry(parent)

    def _to_depth(self, path: str, depth: int, prefix: str, withdirs: bool, found: dict[str, Entry]) -> None:
        head, _, rest = prefix.partition("/")
        try:
            entries = self._entries(path, prefix)[0] if prefix and path and not rest else self.ls(path)
        except FileNotFoundError:
            return
        for e in entries:
            below = e["name"][len(path):].lstrip("/")
            if not below.startswith(head) or e["name"] == path:
                continue
            if e["type"] == "file" or withdirs:
                found[e["name"]] = e
            if e["type"] == "directory" and depth > 1:
                self._to_depth(e["name"], depth - 1, rest if below == head else "", withdirs, found)

    def glob(self, path: str, maxdepth: Optional[int] = None, **kwargs: Any) -> Any:
        """As fsspec's; what is before the first magic character is a prefix of the listing."""
        stripped = self._strip_protocol(path)
        magic = [stripped.find(c) for c in "*?[" if c in stripped]
        if magic:
            kwargs.setdefault("prefix", stripped[:min(magic)].rpartition("/")[2])
        return super().glob(path, maxdepth=maxdepth, **kwargs)

    def du(self, path: str, total: bool = True, maxdepth: Optional[int] = None, withdirs: bool = False,
           **kwargs: Any) -> Any:
        """Bytes of all objects below; without total of each."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True, **kwargs)
        sizes = {name: entry["size"] for name, entry in found.items()}
        return sum(sizes.values()) if total else sizes

    def modified(self, path: str) -> datetime:
        """When the object was written, in UTC."""
        at: Optional[datetime] = self.info(path, refresh=True).get("LastModified")
        if at is None:
            raise IsADirectoryError(errno.EISDIR, "directories of S3 have no times", path)
        return at

    def created(self, path: str) -> datetime:
        """The same: an object is never changed, only replaced."""
        return self.modified(path)

    def checksum(self, path: str) -> int:
        """A number that another content of the object would change."""
        return int(self.ukey(path)[:32], 16)

    def ukey(self, path: str) -> str:
        """Of the object's present version."""
        entry = self.info(path, refresh=True)
        told = [entry["name"], entry["type"], str(entry["size"]), entry.get("ETag") or str(entry.get("LastModified"))]
        return sha256("\0".join(told).encode("utf-8", "surrogateescape")).hexdigest()

    # ---- many at once

    def _map(self, do: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        """On threads; the first failure is raised when none is running any more, and what has not begun never does."""
        items = list(items)
        if len(items) < 2 or threading.current_thread().name.startswith("s3dlio-fs"):   # no waiting for one's own pool
            return [do(i) for i in items]
        with self._pool_lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(self.threads, thread_name_prefix="s3dlio-fs")
            pool = self._pool
        futures = [pool.submit(do, i) for i in items]
        try:
            done, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_EXCEPTION)
        finally:
            for f in futures:
                f.cancel()
            concurrent.futures.wait(futures)
        for f in futures:
            if f in done and not f.cancelled():
                f.result()
        return [f.result() for f in futures]

    def _planned(self, method: str, call: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
        """The (source, target) pairs that fsspec's own method for many would do one after the other. What it knows of
        globs, trailing slashes and depths is used as it is, on a double of this instance that only notes them."""
        pairs: list[tuple[Any, Any]] = []
        double = object.__new__(type(self))
        double.__dict__.update(self.__dict__)
        double.__dict__[method] = lambda source, target, **_: pairs.append((source, target))
        call(double)
        return pairs

    def _run(self, pairs: list[tuple[Any, Any]], callback: Any, do: Callable[[Any, Any, Any], Any],
             is_directory: Callable[[Any], bool] = lambda _: False) -> None:
        callback.set_size(len(pairs))
        lock = threading.Lock()

        def one(pair: tuple[Any, Any]) -> None:
            with lock:
                branch = callback.branched(*pair)
            try:
                do(*pair, branch)
            finally:
                with lock:
                    branch.close()
                    callback.relative_update(1)
        self._directories_first(one, pairs, [is_directory(source) for source, _ in pairs])

    def _directories_first(self, do: Callable[[Any], Any], pairs: list[tuple[Any, Any]], are: list[bool]) -> None:
        """They make the bucket that the files go to, which must not be asked for before."""
        for now in (True, False):
            self._map(do, [pair for pair, is_one in zip(pairs, are) if is_one is now])

    # ---- reading

    def cat_file(self, path: str, start: Optional[int] = None, end: Optional[int] = None, **kwargs: Any) -> bytes:
        """The object's bytes, or those of [start, end), which count from the end when negative."""
        uri = self.uri(path)
        if (start or 0) < 0 and end is None:
            return self._ranged(uri, start or 0, None)
        if (start or 0) < 0 or (end or 0) < 0:
            return self._from_the_end(uri, start or 0, end)
        start = start or 0
        if end is not None and end <= start:
            return b""
        if start == 0 and end is None:
            return self._read(uri)
        return self._ranged(uri, start, None if end is None else end - start)

    def _from_the_end(self, uri: str, start: int, end: Optional[int], tries: int = 3) -> bytes:
        """Positions that were computed from a size are of the version that had it."""
        entry = self.info(path_of(uri), refresh=True)
        size, etag = entry["size"], entry.get("ETag")
        first = max(0, size + start) if start < 0 else start
        last = size if end is None else size + end if end < 0 else end
        if last <= first:
            return b""
        try:
            return self._ranged(uri, first, last - first, None if etag and etag.startswith("W/") else etag)
        except errors.ObjectChangedError:
            if tries < 2:
                raise
            return self._from_the_end(uri, start, end, tries - 1)

    def _read(self, uri: str) -> bytes:
        try:
            return self.client.get(uri)
        except errors.NotFoundError as e:
            raise self._why_missing(uri, e) from None

    def _ranged(self, uri: str, offset: int, length: Optional[int], etag: Optional[str] = None) -> bytes:
        try:
            return self.client.get_range(uri, offset, length, etag=etag)
        except errors.RangeError:
            return b""   # past the end, as files have it
        except errors.NotFoundError as e:
            raise self._why_missing(uri, e) from None

    def _why_missing(self, uri: str, e: errors.NotFoundError) -> OSError:
        path = path_of(uri)
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path) if self._has_below(path) else e

    def cat_ranges(self, paths: list[str], starts: Any, ends: Any, max_gap: Optional[int] = None,
                   on_error: str = "return", **kwargs: Any) -> list[Any]:
        """[start, end) of each path, in parallel. max_gap: ranges of a file at most so far apart are read as one."""
        if not isinstance(paths, list):
            raise TypeError("expected paths to be a list")
        starts = starts if isinstance(starts, list) else [starts] * len(paths)
        ends = ends if isinstance(ends, list) else [ends] * len(paths)
        if not len(paths) == len(starts) == len(ends):
            raise ValueError("expected as many starts and ends as paths")

        def read(item: tuple[list[int], str, Optional[int], Optional[int]]) -> list[tuple[int, Any]]:
            numbers, path, first, last = item
            try:
                data = self.cat_file(path, first, last)
            except Exception as e:
                if on_error != "return":
                    raise
                return [(n, e) for n in numbers]
            if len(numbers) == 1:
                return [(numbers[0], data)]
            return [(n, data[starts[n] - (first or 0):ends[n] - (first or 0)]) for n in numbers]

        out: list[Any] = [None] * len(paths)
        for results in self._map(read, merged(paths, starts, ends, max_gap)):
            for n, data in results:
                out[n] = data
        return out

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The bytes of an object, or {path: bytes} of many, read in parallel."""
        paths = self.expand_path(path, recursive=recursive, **kwargs)
        if len(paths) == 1 and not isinstance(path, list) and paths[0] == self._strip_protocol(path):
            return self.cat_file(paths[0], **kwargs)
        if recursive:
            paths = [p for p in paths if not self.isdir(p)]

        def read(p: str) -> Any:
            try:
                return self.cat_file(p, **kwargs)
            except Exception as e:
                if on_error == "raise":
                    raise
                return e
        found = zip(paths, self._map(read, paths))
        return {p: data for p, data in found if on_error == "return" or not isinstance(data, Exception)}

    def get_file(self, rpath: str, lpath: Any, callback: Any = DEFAULT_CALLBACK, outfile: Any = None,
                 **kwargs: Any) -> None:
        """An object into a file, which appears when it is complete and checked, or into an open one."""
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is not None:
            self._get_into(self.uri(rpath), outfile, callback)
            return
        if not split(self._strip_protocol(rpath))[1] and self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
            return
        uri = self.uri(rpath)
        target = os.fspath(lpath)
        os.makedirs(os.path.dirname(target) or ".", exist_ok=True)
        if os.path.isdir(target) and not self.isdir(rpath):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        try:
            self.client.download(uri, target, progress=progress_of(callback))
        except errors.NotFoundError:
            if not self.isdir(rpath):
                raise
            os.makedirs(target, exist_ok=True)

    def _get_into(self, uri: str, outfile: Any, callback: Any) -> None:
        with self.client.open(uri, "rb", buffer_size=MIB) as source:
            callback.set_size(source.raw.info.size)   # type: ignore[attr-defined]
            while data := source.read(4 * MIB):
                outfile.write(data)
                callback.relative_update(len(data))

    def get(self, rpath: Any, lpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
            maxdepth: Optional[int] = None, **kwargs: Any) -> None:
        """Objects or trees to files, in parallel; see fsspec for what goes where. ValueError, and nothing is written, where
        a key's ".." leads out of lpath."""
        lpath = stringify_path(lpath)
        pairs = self._planned("get_file", lambda double: AbstractFileSystem.get(
            double, rpath, lpath, recursive=recursive, maxdepth=maxdepth))
        if not isinstance(lpath, list):
            check_below(make_path_posix(lpath), (target for _, target in pairs))
        self._run(pairs, callback, lambda source, target, branch: self.get_file(source, target, callback=branch, **kwargs))

    # ---- writing

    def _write_options(self, *, content_type: Optional[str] = None, metadata: Optional[Mapping[str, str]] = None,
                       headers: Optional[Mapping[str, str]] = None, block_size: Optional[int] = None,
                       exclusive: bool = False) -> PutOptions:
        o = self._options
        return PutOptions(content_type=content_type, metadata=metadata or {}, headers=headers or {},
                          part_size=max(block_size or o.part_size, PART_MIN), threads=o.threads, exclusive=exclusive)

    def open(self, path: str, mode: str = "rb", block_size: Optional[int] = None, cache_options: Any = None,
             compression: Optional[str] = None, **kwargs: Any) -> Any:
        """As fsspec's. Leaving a `with` by an exception discards what was written, also of text and compressed files."""
        if "b" not in mode:
            text = {k: kwargs.pop(k) for k in ("encoding", "errors", "newline") if k in kwargs}
            binary = mode.replace("t", "") + "b"
            if binary == "rb":
                return super().open(path, mode, block_size, cache_options, compression, **kwargs, **text)
            below = self.open(path, binary, block_size, cache_options, compression, **kwargs)
            try:
                return TextWriter(below, **text)
            except BaseException:   # of an encoding that there is not
                below.discard()
                raise
        if mode == "rb" or compression is None:
            return super().open(path, mode, block_size, cache_options, compression, **kwargs)
        from fsspec.compression import compr
        from fsspec.core import get_compression
        name = get_compression(self._strip_protocol(path), compression)
        file = super().open(path, mode, block_size, cache_options, **kwargs)
        return file if name is None else Layered(compr[name](file, mode="w"), file)

    def _open(self, path: str, mode: str = "rb", block_size: Optional[int] = None, autocommit: bool = True,
              cache_options: Optional[dict[str, Any]] = None, **kwargs: Any) -> S3dlioFile:
        self.uri(path)
        if mode == "rb":
            return S3dlioFile(self, path, mode, block_size, autocommit, cache_options=cache_options, **kwargs)
        if mode not in ("wb", "ab", "xb"):
            raise NotImplementedError(f"expected the mode rb, wb, ab or xb, not {mode!r}: no object is changed in place")
        return S3dlioFile(self, path, mode, autocommit=autocommit,
                          options=self._write_options(block_size=block_size, **kwargs))

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Bytes into an object; mode "create": FileExistsError where there is one."""
        self._write(path, mode, lambda exclusive: self.client.put(
            self.uri(path), value, part_size=self._options.part_size, threads=self._options.threads, exclusive=exclusive,
            **kwargs), lambda file: file.write(value), kwargs)

    def _write(self, path: str, mode: str, put: Callable[[bool], Any], write: Callable[[Any], Any],
               options: Mapping[str, Any]) -> None:
        if mode not in ("overwrite", "create"):
            raise ValueError(f"expected the mode 'overwrite' or 'create', not {mode!r}")
        create = mode == "create"
        if self._intrans:
            kept = {k: v for k, v in options.items() if k != "progress"}
            with self.open(path, "xb" if create else "wb", **kept) as file:
                write(file)
            return
        if create and self.exists(path):   # not every server knows If-None-Match
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        try:
            put(create)
        except errors.PreconditionFailedError as e:
            if not create:
                raise
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path) from e
        finally:
            self.invalidate_cache(path)

    def pipe(self, path: Any, value: Any = None, **kwargs: Any) -> None:
        """Bytes into an object, or {path: bytes} into many, in parallel."""
        if isinstance(path, str):
            self.pipe_file(self._strip_protocol(path), value, **kwargs)
        elif isinstance(path, dict):
            self._map(lambda item: self.pipe_file(self._strip_protocol(item[0]), item[1], **kwargs), path.items())
        else:
            raise ValueError("expected a path and its bytes, or a dict of them")

    def put_file(self, lpath: Any, rpath: str, callback: Any = DEFAULT_CALLBACK, mode: str = "overwrite",
                 content_type: Optional[str] = None, **kwargs: Any) -> None:
        """A file into an object; a directory makes nothing, as S3 has none. content_type: guessed unless given."""
        source = os.fspath(lpath)
        if os.path.isdir(source):
            self.makedirs(rpath, exist_ok=True)
            return
        told = {"content_type": content_type or mimetypes.guess_type(source)[0], **kwargs}

        def write(file: Any) -> None:
            with open(source, "rb") as local:
                callback.set_size(os.fstat(local.fileno()).st_size)
                while data := local.read(4 * MIB):
                    file.write(data)
                    callback.relative_update(len(data))
        self._write(rpath, mode, lambda exclusive: self.client.upload(
            source, self.uri(rpath), part_size=self._options.part_size, threads=self._options.threads, exclusive=exclusive,
            progress=progress_of(callback), **told), write, told)

    def put(self, lpath: Any, rpath: Any, recursive: bool = False, callback: Any = DEFAULT_CALLBACK,
            maxdepth: Optional[int] = None, **kwargs: Any) -> None:
        """Files or trees to objects, in parallel; see fsspec for what goes where."""
        pairs = self._planned("put_file", lambda double: AbstractFileSystem.put(
            double, lpath, rpath, recursive=recursive, maxdepth=maxdepth))
        self._run(pairs, callback, lambda source, target, branch: self.put_file(source, target, callback=branch, **kwargs),
                  lambda source: os.path.isdir(os.fspath(source)))

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """A copy made by the store, of any size, with its content type and metadata."""
        path1, path2 = self._strip_protocol(path1), self._strip_protocol(path2)
        if path1 == path2:
            raise shutil.SameFileError(errno.EINVAL, "source and target are the same object", path1)
        if self.info(path1)["type"] == "directory":
            self.makedirs(path2, exist_ok=True)
            return
        try:
            copy_object(self.transport, self.client.stat(self.uri(path1)), self.uri(path2), self._options, self.copy_limit,
                        self.copy_part)
        finally:
            self.invalidate_cache(path2)

    def copy(self, path1: Any, path2: Any, recursive: bool = False, maxdepth: Optional[int] = None,
             on_error: Optional[str] = None, onerror: Optional[str] = None, **kwargs: Any) -> None:
        """Objects or trees, in parallel; see fsspec for what goes where. on_error: "raise" or "ignore", which passes over
        objects that are gone when their turn comes; of trees that is the default. onerror: as older fsspec spells it."""
        on_error = on_error or onerror
        ignore = on_error == "ignore" or (on_error is None and recursive)
        pairs = self._planned("cp_file", lambda double: AbstractFileSystem.copy(
            double, path1, path2, recursive=recursive, maxdepth=maxdepth))

        def one(pair: tuple[str, str]) -> None:
            try:
                self.cp_file(*pair)
            except FileNotFoundError:
                if not ignore or self.exists(pair[0], refresh=True):   # then it is the target that is missing
                    raise
        self._directories_first(one, pairs, self._map(lambda pair: self.isdir(pair[0]), pairs))

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Makes an empty object. Without truncate it fails where there is one: an object's time cannot be set."""
        if not truncate and self.exists(path):
            raise NotImplementedError("an object's time cannot be changed without writing it anew")
        self.pipe_file(path, b"", **kwargs)

    # ---- buckets and what stands for directories

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Makes a bucket. Below one there is nothing to make, and with create_parents the bucket is made if need be."""
        bucket, key = split(self._strip_protocol(path))
        if not bucket:
            raise ValueError("expected the name of a bucket")
        there = self.exists(bucket)
        if not key and there:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), bucket)
        if there:
            return
        if key and not create_parents:
            raise missing(bucket)
        try:
            self.client.create_bucket(bucket)
        except errors.ConflictError as e:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), bucket) from e
        finally:
            self.invalidate_cache(bucket)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """As mkdir(); a bucket that exists is an error unless exist_ok."""
        try:
            self.mkdir(path, create_parents=True)
        except FileExistsError:
            if not exist_ok:
                raise

    def rmdir(self, path: str) -> None:
        """Removes an empty bucket, or the marker of an empty directory."""
        path = self._strip_protocol(path)
        bucket, key = split(path)
        try:
            if not key:
                self.client.delete_bucket(bucket)
                return
            below = [o.uri for o, _ in zip(self.client.list(f"{_uri.SCHEME}{path}/", page_size=2), range(2))]
            if not below:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) if self.isfile(path) else \
                    missing(path)
            if below != [f"{_uri.SCHEME}{path}/"]:
                raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
            self.client.delete(below[0])
        except errors.ConflictError as e:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path) from e
        finally:
            self.invalidate_cache(path)

    # ---- removing

    def rm_file(self, path: str) -> None:
        """One object. FileNotFoundError."""
        self.rm(path)

    def _rm(self, path: str) -> None:
        self.rm(path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: Optional[int] = None) -> None:
        """Objects, in batches; with recursive all below them, and a bucket with what is in it. Nothing is removed when a
        path is missing, or is a directory without recursive."""
        if recursive and maxdepth is not None:
            roots = [p for p in self.expand_path(path, recursive=True, maxdepth=maxdepth) if not self.isdir(p)]
            recursive = False
        else:
            roots = outermost(self.expand_path(path, recursive=False)) if recursive else self.expand_path(path)
        kinds = self._map(lambda p: self.info(p, refresh=True)["type"], roots)
        for p, kind in zip(roots, kinds):
            if kind == "directory" and not recursive:
                raise IsADirectoryError(errno.EISDIR, "expected recursive=True to remove a directory", p)
        try:
            self.client.delete(self._victims(roots) if recursive else [self.uri(p) for p in roots])
            for bucket in (p for p in roots if "/" not in p):
                self.client.delete_bucket(bucket)
        finally:
            for p in roots:
                self.invalidate_cache(p)

    def _victims(self, roots: Iterable[str]) -> Iterator[str]:
        """Markers too, which find() does not show."""
        for p in roots:
            if "/" in p:
                yield _uri.SCHEME + p
            for o in self.client.list(f"{_uri.SCHEME}{p}/"):
                yield o.uri
