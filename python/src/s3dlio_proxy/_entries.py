"""What S3dlioFileSystem knows of paths and entries, ranges and callbacks; nothing here asks a server."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Any, Callable, Optional

from fsspec.callbacks import DEFAULT_CALLBACK

from . import _uri
from ._dircache import Entry
from ._types import ObjectInfo


def missing(path: str) -> FileNotFoundError:
    """Of a path where nothing is."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def split(path: str) -> tuple[str, str]:
    """(bucket, key), each perhaps empty."""
    bucket, _, key = path.partition("/")
    return bucket, key


def directory_entry(path: str) -> Entry:
    """The entry of one."""
    return {"name": path, "size": 0, "type": "directory"}


def path_of(uri: str) -> str:
    """Of s3://bucket/key."""
    return uri[len(_uri.SCHEME):]


def file_entry(info: ObjectInfo) -> Entry:
    """Of an object in a listing or of stat()."""
    entry: Entry = {"name": path_of(info.uri), "size": info.size, "type": "file", "ETag": info.etag,
                    "LastModified": info.last_modified, "StorageClass": info.storage_class or "STANDARD"}
    if info.last_modified is not None:
        entry["mtime"] = info.last_modified.timestamp()
    if info.headers:   # of a HEAD
        entry.update(ContentType=info.content_type, VersionId=info.version_id, metadata=dict(info.metadata))
    return entry


def is_plain(name: str) -> bool:
    """Whether a key below a directory can be walked to: no name in it is empty."""
    return "" not in name.split("/")


def outermost(paths: list[str]) -> list[str]:
    """Of sorted paths those that are not below another."""
    out: list[str] = []
    known: set[str] = set()
    for p in paths:
        parts = p.split("/")
        if not any("/".join(parts[:n]) in known for n in range(1, len(parts))):
            out.append(p)
            known.add(p)
    return out


def merged(paths: list[str], starts: list[Any], ends: list[Any],
            max_gap: Optional[int]) -> list[tuple[list[int], str, Optional[int], Optional[int]]]:
    """(numbers of the ranges, path, start, end) of what to read; ranges with an open or negative end stay alone."""
    single = [([n], p, s, e) for n, (p, s, e) in enumerate(zip(paths, starts, ends))]
    if max_gap is None:
        return single
    out: list[tuple[list[int], str, Optional[int], Optional[int]]] = []
    plain = [i for i in single if i[2] is not None and i[3] is not None and 0 <= i[2] < i[3]]
    for numbers, path, start, end in sorted(plain, key=lambda i: (i[1], i[2], i[3])):
        last = out[-1] if out else None
        if last and last[1] == path and start - (last[3] or 0) <= max_gap:
            out[-1] = (last[0] + numbers, path, last[2], max(last[3] or 0, end))
        else:
            out.append((numbers, path, start, end))
    merged = {n for item in out for n in item[0]}
    return out + [i for i in single if i[0][0] not in merged]


def check_below(root: str, targets: Iterable[str]) -> None:
    """ValueError where a name with ".." in it leads out of the local directory that a tree goes to: keys may have such
    names. `root` as make_path_posix() has it."""
    top = os.path.realpath(root)
    for target in targets:
        if ".." in target[len(root.rstrip("/")):].split("/") and \
                os.path.commonpath([top, os.path.realpath(target)]) != top:
            raise ValueError(f"expected keys that stay below {root}, and one leads to {target[:200]}")


def progress_of(callback: Any) -> Optional[Callable[[int, Optional[int]], None]]:
    """A Client's progress for a callback of fsspec; nothing is told to nobody."""
    if callback is DEFAULT_CALLBACK:
        return None
    known: list[Optional[int]] = [None]

    def tell(done: int, total: Optional[int]) -> None:
        if total is not None and known[0] != total:
            known[0] = total
            callback.set_size(total)
        callback.absolute_update(done)
    return tell
