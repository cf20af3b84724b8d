"""What the client hands out."""

from __future__ import annotations

import datetime
import email.utils
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from . import _uri, errors


@dataclass(frozen=True)
class ObjectInfo:
    """An object, or in a listing with a delimiter a common prefix (`is_prefix`; its size is 0).

    size: bytes. etag: with its quotes, as it was sent; None where there is none. last_modified: in UTC.
    cache: X-Cache of the answer (HIT, MISS, ...), only from stat(). headers: all fields of the answer, names in lower
    case, only from stat(). metadata: x-amz-meta-*, without that, only from stat().
    """

    uri: str
    size: int
    etag: Optional[str] = None
    last_modified: Optional[datetime.datetime] = None
    content_type: Optional[str] = None
    storage_class: Optional[str] = None
    version_id: Optional[str] = None
    is_prefix: bool = False
    cache: Optional[str] = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return _uri.split(self.uri)[0]

    @property
    def key(self) -> str:
        """The key, as it is."""
        return _uri.split(self.uri)[1]


@dataclass(frozen=True)
class BucketInfo:
    """A bucket of list_buckets()."""

    name: str
    created: Optional[datetime.datetime] = None


@dataclass(frozen=True)
class PutResult:
    """What a write made. etag: as the server said it. parts: 0 for a plain PUT, else of the multipart upload."""

    uri: str
    size: int
    etag: Optional[str] = None
    version_id: Optional[str] = None
    parts: int = 0


@dataclass(frozen=True)
class CachedObject:
    """An object of objects(): size and cached in bytes, fraction = cached / size, age_s in seconds."""

    uri: str
    size: Optional[int]
    cached: int
    fraction: float
    age_s: float
    pinned: bool
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class WarmStatus:
    """A warm job. state: "running", "done", "failed" or "cancelled". total: objects known so far; done, failed: of those.
    bytes_done: read into the cache. errors: (uri, message) of the first few that failed."""

    id: str
    state: str
    total: int
    done: int
    failed: int
    bytes_done: int
    errors: tuple[tuple[str, str], ...] = ()


def http_time(text: Optional[str]) -> Optional[datetime.datetime]:
    """Of Last-Modified and the like."""
    if not text:
        return None
    try:
        at = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)


def iso_time(text: Optional[str]) -> Optional[datetime.datetime]:
    """Of the XML documents, 2022-10-12T17:50:00.000Z."""
    if not text:
        return None
    head, _, rest = text.strip().rstrip("Z").partition(".")
    try:
        at = datetime.datetime.fromisoformat(head)
    except ValueError:
        return None
    digits = rest[:6]
    if digits.isdigit():
        at = at.replace(microsecond=int(digits.ljust(6, "0")))
    return at if at.tzinfo else at.replace(tzinfo=datetime.timezone.utc)


def object_info(uri: str, headers: Mapping[str, str]) -> ObjectInfo:
    """Of the answer to a HEAD. ProtocolError where it does not tell the size."""
    lower = {k.lower(): v for k, v in headers.items()}
    length = lower.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise errors.ProtocolError(f"the answer to a HEAD has no Content-Length that is one: {length[:40]!r}", uri=uri)
    return ObjectInfo(
        uri=uri, size=int(length), etag=lower.get("etag"),
        last_modified=http_time(lower.get("last-modified")), content_type=lower.get("content-type"),
        storage_class=lower.get("x-amz-storage-class"), version_id=lower.get("x-amz-version-id"),
        cache=lower.get("x-cache"), metadata=dict(_metadata(lower)), headers=lower)


def _metadata(lower: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    prefix = "x-amz-meta-"
    for k, v in lower.items():
        if k.startswith(prefix):
            yield k[len(prefix):], v
