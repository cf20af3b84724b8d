"""The proxy's own endpoints: statistics, marks, what is cached, warming and purging.

They stand below the admin path of the proxy's configuration (a route with `handler: admin`, here `/_s3dlio/`). An
endpoint that is no s3dlio-proxy answers NotFoundError or another ResponseError.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Optional

from . import _uri, errors
from ._progress import Progress, Reporter
from ._transport import Transport, read_small
from ._types import CachedObject, WarmStatus

_PAGE = 1000
_POLL_MIN, _POLL_MAX = 0.05, 1.0
_serial = itertools.count(1)


class Mark:
    """A named moment. `since()` is what was counted from then on; as a context manager, `difference` holds that after the
    `with`, be it left by an exception or not.

        with client.mark("epoch 1") as epoch:
            train()
        print(epoch.difference["requests"]["cache"])
    """

    def __init__(self, admin: Admin, label: str, at: str) -> None:
        self.label = label
        self.at = at
        self.difference: dict[str, Any] = {}
        self._admin = admin

    def since(self) -> dict[str, Any]:
        """The statistics' difference from the mark to now, in the form of stats()."""
        return self._admin.stats(since=self.label)

    def __enter__(self) -> Mark:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        try:
            self.difference = self.since()
        except errors.Error:
            if kind is None:   # else the exception under way says more
                raise

    def __repr__(self) -> str:
        return f"Mark({self.label!r}, at={self.at!r})"


class WarmJob:
    """A warm job of the proxy, which goes on whether this object exists or not."""

    def __init__(self, admin: Admin, id_: str) -> None:
        self.id = id_
        self._admin = admin

    def status(self) -> WarmStatus:
        """How far it is. NotFoundError: the proxy has forgotten it, or was started anew."""
        return _warm_status(self._admin.json("GET", f"warm/{_uri.encode(self.id)}"))

    def cancel(self) -> WarmStatus:
        """Ends it; what it has read stays cached."""
        return _warm_status(self._admin.json("DELETE", f"warm/{_uri.encode(self.id)}"))

    def wait(self, *, timeout: Optional[float] = None, progress: Progress = None) -> WarmStatus:
        """Until it has ended; timeout: seconds, then RequestTimeoutError, and the job goes on. progress counts objects.
        Raises WarmError, whose `job` is the status, when it failed or was cancelled, or an object could not be read."""
        end = None if timeout is None else time.monotonic() + timeout
        pause = _POLL_MIN
        with Reporter(progress, None, "warm", " objects") as report:
            while True:
                s = self.status()
                report.at(s.done + s.failed, s.total)
                if s.state != "running":
                    break
                if end is not None and time.monotonic() + pause > end:
                    raise errors.RequestTimeoutError(f"warm job {self.id} is still running: {s.done} of {s.total} objects")
                time.sleep(pause)
                pause = min(pause * 1.5, _POLL_MAX)
        if s.state != "done" or s.failed:
            first = f"; the first: {s.errors[0][0]}: {s.errors[0][1]}" if s.errors else ""
            raise errors.WarmError(f"warm job {self.id} is {s.state}, {s.failed} of {s.total} objects failed{first}", job=s)
        return s

    def __repr__(self) -> str:
        return f"WarmJob({self.id!r})"


class Admin:
    """Asks the admin endpoints. Thread-safe, as the transport is."""

    def __init__(self, transport: Transport, path: str) -> None:
        if not path.startswith("/"):
            raise ValueError("expected an admin_path that begins with '/'")
        self._transport = transport
        self._path = path if path.endswith("/") else path + "/"

    def ask(self, method: str, name: str, *, query: str = "", document: Optional[Mapping[str, Any]] = None,
            idempotent: bool = True, expect: tuple[int, ...] = (200,)) -> bytes:
        """The body of an answer."""
        body = None if document is None else json.dumps(document).encode("ascii")
        headers = {"Content-Type": "application/json"} if body is not None else {}
        _, data = self._transport.request(method, self._path + name, query=query, body=body, headers=headers,
                                          idempotent=idempotent, expect=expect)
        return data

    def once(self, name: str) -> bool:
        """Whether one question is answered with 200; raises TransportError."""
        raw = self._transport.send("GET", self._path + name, "", {}, None)
        read_small(raw, "GET", 1 << 20, None)
        return bool(raw.status == 200)

    def json(self, method: str, name: str, **kw: Any) -> dict[str, Any]:
        """The JSON object of an answer."""
        data = self.ask(method, name, **kw)
        try:
            value = json.loads(data)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise errors.ProtocolError(f"the answer of {self._path}{name} is no JSON object: is this an s3dlio-proxy?")
        return value

    def stats(self, since: Optional[str]) -> dict[str, Any]:
        """See Client.stats()."""
        return self.json("GET", "stats", query=_uri.query({"since": since}))

    def mark(self, label: Optional[str]) -> Mark:
        """See Client.mark()."""
        name = label if label is not None else f"python-{os.getpid()}-{time.time_ns():x}-{next(_serial)}"
        said = self.json("POST", "mark", document={"label": name})
        return Mark(self, name, str(said.get("at", "")))

    def purge(self, document: Mapping[str, Any]) -> int:
        """See Client.purge()."""
        said = self.json("POST", "purge", document=document)
        with _expected("purge"):
            return int(said.get("purged", 0))

    def warm(self, document: Mapping[str, Any]) -> WarmJob:
        """See Client.warm()."""
        said = self.json("POST", "warm", document=document, expect=(202,), idempotent=False)
        with _expected("warm"):
            return WarmJob(self, str(said["id"]))

    def objects(self, prefix: str) -> Iterator[CachedObject]:
        """See Client.objects()."""
        after: Optional[str] = None
        while True:
            query = _uri.query({"prefix": prefix or None, "max": str(_PAGE), "after": after})
            page = self.json("GET", "objects", query=query)
            with _expected("objects"):
                found = [_cached_object(o) for o in page["objects"]]
            yield from found
            after = page.get("next")
            if after is None:
                return


def place(uri: str) -> str:
    """A URI for the admin endpoints. What is no UTF-8 can stand in a path only."""
    bucket, key = _uri.split(uri)
    try:
        uri.encode()
    except UnicodeEncodeError:
        return _uri.path(bucket, key)
    return uri


def _cached_uri(told: str) -> str:
    return "s3:/" + _uri.decode(told) if told.startswith("/") else told


def _cached_object(o: Mapping[str, Any]) -> CachedObject:
    return CachedObject(uri=_cached_uri(o["uri"]), size=o.get("size"), cached=o["cached"], fraction=o["fraction"],
                        age_s=o["age_s"], pinned=o["pinned"], raw=o)


def _warm_status(d: Mapping[str, Any]) -> WarmStatus:
    with _expected("warm"):
        o = d["objects"]
        return WarmStatus(id=str(d["id"]), state=d["state"], total=o["total"], done=o["done"], failed=o["failed"],
                          bytes_done=d["bytes"]["done"],
                          errors=tuple((str(e.get("uri", "")), str(e.get("message", ""))) for e in d.get("errors", ())))


@contextlib.contextmanager
def _expected(name: str) -> Iterator[None]:
    """ProtocolError where an answer lacks what is taken from it, or has another kind of value there."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.ProtocolError(f"the answer of {name} is none of an s3dlio-proxy: {type(e).__name__}: {e}") from e


def warm_document(uris: Optional[Iterable[str]], prefix: Optional[str], manifest: Optional[str], pin: bool,
                  concurrency: Optional[int]) -> dict[str, Any]:
    """The body of POST warm; ValueError unless exactly one of the first three is given."""
    if sum(x is not None for x in (uris, prefix, manifest)) != 1:
        raise ValueError("expected one of uris, prefix and manifest")
    document: dict[str, Any] = {}
    if uris is not None:
        document["uris"] = [place(u) for u in ([uris] if isinstance(uris, str) else uris)]
    elif prefix is not None:
        document["prefix"] = place(prefix)
    elif manifest is not None:
        document["manifest"] = place(manifest)
    if pin:
        document["pin"] = True
    if concurrency is not None:
        document["concurrency"] = concurrency
    return document
