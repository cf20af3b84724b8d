"""What can go wrong: one hierarchy, whose root is an OSError as file-like code expects.

Every error carries what is known of `status` (HTTP), `code` (S3's own, https://docs.aws.amazon.com/AmazonS3/latest/API/
ErrorResponses.html), `request_id` and `uri`. They can be pickled, so that a worker process can hand one to its parent.
No error's text contains credentials or a signature.

    Error
      TransportError               no complete answer came
        ConnectionFailedError        also a ConnectionError
        RequestTimeoutError          also a TimeoutError
        TruncatedError               a body ended early, and retries did not mend it
        ProtocolError                an answer that cannot be one: wrong range, malformed XML
      ResponseError                the server said no
        BadRequestError              400
        AccessDeniedError            403; also a PermissionError
        NotFoundError                404; also a FileNotFoundError
          NoSuchKeyError, NoSuchBucketError
        ConflictError                409
        PreconditionFailedError      412
        RangeError                   416; `size` is the object's, where it was told
        ServerError                  500 and above, 429
      ObjectChangedError           the object is no longer the version that was being read
      IntegrityError               bytes are complete but are not those that the checksum is of
      BatchError                   some of many failed; `errors` has one for each
      WarmError                    a warm job failed or was cancelled; `job` is what became of it
"""

from __future__ import annotations

import errno
import re
from typing import Any, Optional

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")


class Error(OSError):
    """The root. `message` is one line; str() adds what else is known."""

    def __init__(self, message: str, *, status: Optional[int] = None, code: Optional[str] = None,
                 request_id: Optional[str] = None, uri: Optional[str] = None, **more: Any) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.request_id = request_id
        self.uri = uri
        for name, value in more.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        known = [f"{name} {value}" for name, value in (("status", self.status), ("code", self.code),
                                                       ("request id", self.request_id)) if value]
        where = _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", f"{self.uri}: " if self.uri else "")   # one line, always
        return f"{where}{self.message}" + (f" ({', '.join(known)})" if known else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.message, dict(self.__dict__))


def _rebuilt(cls: type[Error], message: str, fields: dict[str, Any]) -> Error:
    e = cls(message)
    e.__dict__.update(fields)
    return e


class TransportError(Error):
    """No complete answer came; whether the request had an effect is not known."""


class ConnectionFailedError(TransportError, ConnectionError):
    """No connection could be made, or it broke. `unsent` is true when the server cannot have seen the request."""

    unsent: bool = False


class RequestTimeoutError(TransportError, TimeoutError):
    """Nothing came for as long as the client's timeout allows."""

    unsent: bool = False


class TruncatedError(TransportError):
    """A body ended before its length was reached, more often than the client retries."""


class ProtocolError(TransportError):
    """An answer that does not belong to the request, or is not what the protocol says."""


class ResponseError(Error):
    """The server answered, and the answer is an error."""


class BadRequestError(ResponseError):
    """400, or another 4xx that has no class of its own."""


class AccessDeniedError(ResponseError, PermissionError):
    """401 or 403."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.errno = errno.EACCES


class NotFoundError(ResponseError, FileNotFoundError):
    """404: the object, the bucket or the admin's thing is not there."""

    def __init__(self, message: str, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.errno = errno.ENOENT


class NoSuchKeyError(NotFoundError):
    """There is no such object. The answer to a HEAD has no code and is a plain NotFoundError."""


class NoSuchBucketError(NotFoundError):
    """There is no such bucket."""


class ConflictError(ResponseError):
    """409: a bucket that exists or is not empty, or a write against another one."""


class PreconditionFailedError(ResponseError):
    """412: for instance, an object that exists already was to be made anew."""


class RangeError(ResponseError):
    """416: the range begins past the end of the object."""

    size: Optional[int] = None


class ServerError(ResponseError):
    """The server failed (5xx) or asks to slow down (429, 503), more often than the client retries."""

    retry_after: Optional[str] = None


class ObjectChangedError(Error):
    """The object is no longer the version that was being read; nothing of two versions was ever mixed."""


class IntegrityError(Error):
    """The bytes that came are not those that the checksum is of, or not as many."""


class BatchError(Error):
    """Some of many failed."""

    errors: list[Error]


class WarmError(Error):
    """A warm job ended as failed or cancelled, or with objects that could not be read."""

    job: Any


def from_response(status: int, code: Optional[str], message: str, **fields: Any) -> ResponseError:
    """The error that a status and S3's code stand for."""
    cls: type[ResponseError]
    if code == "NoSuchBucket":
        cls = NoSuchBucketError
    elif code == "NoSuchKey":
        cls = NoSuchKeyError
    elif status >= 500 or status == 429:
        cls = ServerError
    else:
        cls = _OF_STATUS.get(status, BadRequestError)
    return cls(message, status=status, code=code, **fields)


_OF_STATUS: dict[int, type[ResponseError]] = {
    401: AccessDeniedError,
    403: AccessDeniedError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    416: RangeError,
}
