"""Copying inside the store: no byte of it passes through this machine.

One request up to 5 GiB, parts of a multipart upload for what is larger or is to be put before other bytes. The source is
pinned by its ETag, so a copy is of one version.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html and API_UploadPartCopy.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from . import _uri, _xml, errors
from ._transport import Transport
from ._types import ObjectInfo
from ._upload import MIB, PART_MIN, PARTS_MAX, PLAIN_MAX, MultipartUpload, PutOptions

COPY_PART = 512 * MIB


def _source(info: ObjectInfo) -> dict[str, str]:
    bucket, key = _uri.split_object(info.uri)
    fields = {"x-amz-copy-source": _uri.path(bucket, key)}
    if info.etag:
        fields["x-amz-copy-source-if-match"] = info.etag
    return fields


def _etag_of(data: bytes, uri: str) -> str:
    """Of a copy's result; a 200 may carry an error, which came up after the head had been sent."""
    root = _xml.parse(data, uri)
    if root.tag == "Error":
        code = _xml.text(root, "Code")
        raise errors.from_response(500 if code in ("InternalError", "SlowDown") else 400, code,
                                   _xml.text(root, "Message", "the copy failed"), uri=uri,
                                   request_id=root.findtext("RequestId"))
    etag = root.findtext("ETag")
    if not etag:
        raise errors.ProtocolError("the answer to a copy has no ETag", uri=uri)
    return etag


class CopyUpload(MultipartUpload):
    """A multipart upload, parts of which are ranges of objects that are there."""

    def add_copy(self, info: ObjectInfo, first: int, length: int) -> None:
        """[first, first + length) of an object as the next part, 5 MiB to 5 GiB unless it is the last."""
        self._add(length, self._copy, info, first, length)

    def add_all(self, info: ObjectInfo, part: int = COPY_PART) -> None:
        """A whole object, in parts of about `part` bytes."""
        for first, length in ranges(info.size, max(part, -(-info.size // (PARTS_MAX // 2)))):
            self.add_copy(info, first, length)

    def _copy(self, number: int, info: ObjectInfo, first: int, length: int) -> str:
        fields = {**_source(info), "x-amz-copy-source-range": f"bytes={first}-{first + length - 1}"}
        query = _uri.query({"partNumber": str(number), "uploadId": self._id})
        _, data = self._transport.request("PUT", self._path, query=query, headers=fields, uri=self.uri)
        return _etag_of(data, self.uri)


def ranges(size: int, part: int) -> Iterator[tuple[int, int]]:
    """(first, length) of parts of `part` bytes; the last is no shorter than S3 allows it to be before others."""
    first = 0
    while size - first >= part + PART_MIN:
        yield first, part
        first += part
    if size > first:
        yield first, size - first


def like(info: ObjectInfo, options: PutOptions) -> PutOptions:
    """`options` for an object that keeps the content type and metadata of another (of stat())."""
    return PutOptions(content_type=options.content_type or info.content_type,
                      metadata={**info.metadata, **options.metadata}, headers=options.headers,
                      part_size=options.part_size, threads=options.threads, exclusive=options.exclusive)


def copy_object(transport: Transport, info: ObjectInfo, target: str, options: PutOptions,
                limit: int = PLAIN_MAX, part: int = COPY_PART) -> Optional[str]:
    """Copies the object that stat() told of; what is larger than `limit` in parts of `part` bytes. The new ETag."""
    if info.size > limit:
        upload = CopyUpload(transport, target, like(info, options))
        try:
            upload.add_all(info, part)
        except BaseException:
            upload.abort()
            raise
        return upload.complete().etag
    _, data = transport.request("PUT", _uri.path(*_uri.split_object(target)), headers=_source(info), uri=target)
    return _etag_of(data, target)
