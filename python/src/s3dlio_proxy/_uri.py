"""`s3://bucket/key` and what goes into a request for it.

The key stands for itself: a `%`, `?`, `#`, a space or a slash in it is part of the name, and `.` and `..` are names like
others. On the wire it is percent-encoded as S3's signing wants it (RFC 3986 unreserved characters and `/` stay), and that
text is sent as it is: nothing may normalise it. Bytes that are no UTF-8 are lone surrogates, as in Python's file names.
"""

from __future__ import annotations

import re
from typing import Optional
from urllib.parse import quote, unquote

SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def split(uri: str) -> tuple[str, str]:
    """(bucket, key) of s3://bucket[/[key]]; the key may be empty. ValueError says what was expected."""
    if not isinstance(uri, str):
        raise TypeError(f"expected a URI as str, not {type(uri).__name__}")
    if not uri.startswith(SCHEME):
        raise ValueError(f"expected s3://bucket/key, got {uri[:200]!r}")
    bucket, _, key = uri[len(SCHEME):].partition("/")
    if not _BUCKET.match(bucket):
        raise ValueError(f"expected s3://bucket/key with a bucket of letters, digits, '.', '-' and '_', got {uri[:200]!r}")
    return bucket, key


def split_object(uri: str) -> tuple[str, str]:
    """(bucket, key), both there."""
    bucket, key = split(uri)
    if not key:
        raise ValueError(f"expected s3://bucket/key, got {uri[:200]!r}, which has no key")
    return bucket, key


def bucket_name(text: str) -> str:
    """Of "bucket" or s3://bucket."""
    bucket, key = split(text if text.startswith(SCHEME) else SCHEME + text)
    if key:
        raise ValueError(f"expected the name of a bucket, got {text[:200]!r}")
    return bucket


def join(bucket: str, key: str) -> str:
    """The URI of a key."""
    return f"{SCHEME}{bucket}/{key}"


def encode(text: str, safe: str = "") -> str:
    """Percent-encoded but for unreserved characters and those in `safe`."""
    return quote(text, safe=safe + "~", encoding="utf-8", errors="surrogateescape")


def decode(text: str) -> str:
    """The inverse; a '+' stays one."""
    return unquote(text, encoding="utf-8", errors="surrogateescape")


def path(bucket: str, key: str) -> str:
    """The path of a request, below the endpoint's own."""
    return f"/{bucket}/{encode(key, '/')}"


def query(parameters: dict[str, Optional[str]]) -> str:
    """The query in the canonical order of signing; None is left out."""
    pairs = sorted((encode(k), encode(v)) for k, v in parameters.items() if v is not None)
    return "&".join(f"{k}={v}" for k, v in pairs)
