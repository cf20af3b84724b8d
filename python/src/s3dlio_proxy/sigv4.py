"""AWS Signature Version 4 for S3, in the Authorization header.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html

S3 differs from other services: the path is signed exactly as it is sent, encoded once, with no segment removed and no
slashes merged, and the hash of the payload is a header of its own. Only the host, content-type, content-md5 and the
x-amz- fields are signed; a Range is left free, so that a proxy may split a request. A Signer may be used from any thread.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256(b"").hexdigest()
_SIGNED = frozenset(("host", "content-type", "content-md5"))


@dataclass(frozen=True)
class Credentials:
    """What requests are signed with. Its repr shows no secret. A pickle of it does contain them, as a worker needs them."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: Optional[str] = field(default=None, repr=False)
    region: str = "us-east-1"

    def __post_init__(self) -> None:
        for name in ("access_key", "secret_key", "region"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise ValueError(f"expected {name} to be a str that is not empty")
        for name in ("access_key", "session_token", "region"):
            if any(c < "!" or c > "~" for c in getattr(self, name) or ""):
                raise ValueError(f"expected {name} to be printable ASCII without spaces")

    @classmethod
    def from_environment(cls) -> Optional[Credentials]:
        """Of AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION or AWS_DEFAULT_REGION; None
        where the first two are not both set."""
        access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if not access or not secret:
            return None
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return cls(access, secret, os.environ.get("AWS_SESSION_TOKEN") or None, region)


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Signer:
    """Signs for one set of credentials. `offset_s` is added to this machine's clock."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._key: tuple[str, bytes] = ("", b"")
        self.offset_s = 0.0

    def _signing_key(self, day: str) -> bytes:
        known, key = self._key
        if known != day:
            key = ("AWS4" + self._credentials.secret_key).encode()
            for part in (day, self._credentials.region, "s3", "aws4_request"):
                key = _hmac(key, part)
            self._key = day, key
        return key

    def sign(self, method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str,
             now: Optional[float] = None) -> dict[str, str]:
        """The fields to add.

        path: as it is sent. query: as it is sent, in canonical order. headers: what is sent, Host among it.
        payload_hash: hex SHA-256 of the body, or UNSIGNED. now: seconds since the epoch.
        """
        c = self._credentials
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime((time.time() if now is None else now) + self.offset_s))
        added = {"x-amz-date": stamp, "x-amz-content-sha256": payload_hash}
        if c.session_token:
            added["x-amz-security-token"] = c.session_token
        fields = {k.lower(): v for k, v in headers.items()}
        fields.update(added)
        signed = sorted(k for k in fields if k in _SIGNED or k.startswith("x-amz-"))
        names = ";".join(signed)
        canonical = "\n".join((method, path, query, *(f"{k}:{' '.join(fields[k].split())}" for k in signed), "", names,
                               payload_hash))
        scope = f"{stamp[:8]}/{c.region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode("utf-8")).hexdigest()
        signature = _hmac(self._signing_key(stamp[:8]), f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()
        added["Authorization"] = (f"AWS4-HMAC-SHA256 Credential={c.access_key}/{scope}, SignedHeaders={names}, "
                                  f"Signature={signature}")
        return added
