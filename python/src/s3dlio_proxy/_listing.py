"""Listing and deleting: page by page, batch by batch, so that memory does not grow with the number of objects.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html and API_DeleteObjects.html
"""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Optional
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element

from . import _uri, _xml, errors
from ._transport import Transport
from ._types import BucketInfo, ObjectInfo, iso_time

PAGE_MAX = 1000
BATCH = 1000


def list_objects(transport: Transport, bucket: str, prefix: str, delimiter: Optional[str], start_after: Optional[str],
                 page_size: int) -> Iterator[ObjectInfo]:
    """The objects, and with a delimiter the common prefixes, in the order of their keys within a page."""
    if not 1 <= page_size <= PAGE_MAX:
        raise ValueError(f"expected a page_size from 1 to {PAGE_MAX}")
    return _pages(transport, bucket, prefix, delimiter, start_after, page_size)


def _pages(transport: Transport, bucket: str, prefix: str, delimiter: Optional[str], start_after: Optional[str],
           page_size: int) -> Iterator[ObjectInfo]:
    token: Optional[str] = None
    uri = _uri.join(bucket, prefix)
    while True:
        query = _uri.query({"list-type": "2", "encoding-type": "url", "max-keys": str(page_size), "prefix": prefix or None,
                            "delimiter": delimiter or None, "start-after": start_after, "continuation-token": token})
        _, data = transport.request("GET", f"/{bucket}", query=query, uri=uri)
        root = _xml.parse(data, uri)
        if root.tag != "ListBucketResult":
            raise errors.ProtocolError(f"expected a listing, got <{root.tag}>", uri=uri)
        yield from sorted(_entries(root, bucket), key=lambda o: o.uri.encode("utf-8", "surrogateescape"))
        following = root.findtext("NextContinuationToken")
        if root.findtext("IsTruncated") != "true":
            return
        if not following or following == token:
            raise errors.ProtocolError("the listing says that there is more, but not where", uri=uri)
        token = following


def _entries(root: Element, bucket: str) -> Iterator[ObjectInfo]:
    coded = (root.findtext("EncodingType") or "").lower() == "url"

    def name(text: str) -> str:
        # Servers that follow S3 to the letter write a space as '+', and a '+' as %2B.
        return unquote_plus(text, errors="surrogateescape") if coded else text

    for item in _xml.children(root, "Contents"):
        size = _xml.text(item, "Size", "0")
        if not size.isdigit():
            raise errors.ProtocolError(f"the listing has an object of size {size[:50]!r}")
        yield ObjectInfo(uri=_uri.join(bucket, name(_xml.text(item, "Key"))), size=int(size),
                         etag=item.findtext("ETag"), last_modified=iso_time(item.findtext("LastModified")),
                         storage_class=item.findtext("StorageClass"))
    for item in _xml.children(root, "CommonPrefixes"):
        yield ObjectInfo(uri=_uri.join(bucket, name(_xml.text(item, "Prefix"))), size=0, is_prefix=True)


def list_buckets(transport: Transport) -> Iterator[BucketInfo]:
    """All that the endpoint shows."""
    token: Optional[str] = None
    while True:
        _, data = transport.request("GET", "/", query=_uri.query({"continuation-token": token}))
        root = _xml.parse(data)
        for item in root.iter("Bucket"):
            yield BucketInfo(_xml.text(item, "Name"), iso_time(item.findtext("CreationDate")))
        following = root.findtext("ContinuationToken")
        if not following or following == token:
            return
        token = following


def delete_one(transport: Transport, uri: str, version_id: Optional[str] = None) -> None:
    """Also well where nothing is, as S3 has it."""
    path = _uri.path(*_uri.split_object(uri))
    transport.request("DELETE", path, query=_uri.query({"versionId": version_id}), expect=(200, 204), uri=uri)


def delete_many(transport: Transport, uris: Iterable[str]) -> int:
    """In batches; goes on after failures. How many; BatchError at the end with one error for each that failed."""
    failures: list[errors.Error] = []
    total = 0
    source = iter(uris)
    while True:
        batch = list(itertools.islice(source, BATCH))
        if not batch:
            break
        total += len(batch)
        keys: dict[str, list[str]] = {}
        for uri in batch:
            bucket, key = _uri.split_object(uri)
            keys.setdefault(bucket, []).append(key)
        for bucket, of_bucket in keys.items():
            failures += _delete_batch(transport, bucket, of_bucket)
    if failures:
        raise errors.BatchError(f"{len(failures)} of {total} objects could not be deleted; the first: {failures[0]}",
                                errors=failures)
    return total


def _delete_batch(transport: Transport, bucket: str, keys: list[str]) -> Iterator[errors.Error]:
    together = [k for k in keys if _xml.can_be_written(k)]
    for key in keys:
        if not _xml.can_be_written(key):   # no XML can name it, but a path can
            try:
                delete_one(transport, _uri.join(bucket, key))
            except errors.Error as e:
                yield e
    if not together:
        return
    body = _xml.delete_request(together)
    digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
    try:
        _, data = transport.request("POST", f"/{bucket}", query="delete=", body=body, uri=_uri.join(bucket, ""),
                                    headers={"Content-MD5": digest, "Content-Type": "application/xml"})
        root = _xml.parse(data)
        if root.tag != "DeleteResult":   # a 200 may carry an error, which came up after the head had been sent
            raise errors.ProtocolError(f"the answer is <{root.tag[:40]}> and no DeleteResult {_xml.text(root, 'Code')[:80]}")
    except errors.Error as e:
        for key in together:
            yield _failure(e.status, e.code, e.message, bucket, key)
        return
    for item in _xml.children(root, "Error"):
        yield _failure(None, item.findtext("Code"), _xml.text(item, "Message", "no reason given"), bucket,
                       _xml.text(item, "Key"))


def _failure(status: Optional[int], code: Optional[str], message: str, bucket: str, key: str) -> errors.Error:
    return errors.ResponseError(message, status=status, code=code, uri=_uri.join(bucket, key))
