"""The little of S3's XML that a client reads and writes.

What is read is bounded in size (MAX_BYTES) and has no DOCTYPE, so no entity can grow. Namespaces are dropped: servers
disagree about them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Optional
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from . import errors

MAX_BYTES = 64 << 20
# XML 1.0 has no way to write these (https://www.w3.org/TR/xml/#charsets): a key with one cannot stand in a batch.
_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


def parse(data: bytes, uri: Optional[str] = None) -> ElementTree.Element:
    """The root element, names without namespaces; ProtocolError where it is none."""
    try:
        if b"<!DOCTYPE" in data:
            raise errors.ProtocolError("the answer is XML with a DOCTYPE, which S3 never sends", uri=uri)
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as e:
        raise errors.ProtocolError(f"the answer is no XML: {e}", uri=uri) from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def text(element: ElementTree.Element, name: str, default: str = "") -> str:
    """The text of a child."""
    return element.findtext(name) or default


def error_of(data: bytes) -> tuple[Optional[str], Optional[str], Optional[str]]:
    """(code, message, request id) of an error document, each None where it is not told."""
    try:
        root = parse(data)
    except errors.ProtocolError:
        return None, None, None
    if root.tag != "Error":
        return None, None, None
    return root.findtext("Code"), root.findtext("Message"), root.findtext("RequestId")


def can_be_written(key: str) -> bool:
    """Whether XML can contain the key."""
    return not _UNWRITABLE.search(key)


def _written(value: str) -> str:
    # A parser turns \r, and in attributes more, into \n unless it is a reference.
    return escape(value, {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})


def delete_request(keys: Iterable[str]) -> bytes:
    """The body of DeleteObjects, quiet."""
    objects = "".join(f"<Object><Key>{_written(k)}</Key></Object>" for k in keys)
    return ('<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Quiet>true</Quiet>{objects}</Delete>").encode()


def complete_request(etags: Iterable[str]) -> bytes:
    """The body of CompleteMultipartUpload: the ETags of parts 1, 2, ..."""
    parts = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{_written(e)}</ETag></Part>"
                    for n, e in enumerate(etags, 1))
    return ('<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUpload '
            f'xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{parts}</CompleteMultipartUpload>').encode()


def create_bucket_request(region: str) -> bytes:
    """The body of CreateBucket; empty for the region that has no name there."""
    if region == "us-east-1":
        return b""
    return ('<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><LocationConstraint>'
            f"{_written(region)}</LocationConstraint></CreateBucketConfiguration>").encode()


def children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """The children of a name."""
    return iter(element.findall(name))
