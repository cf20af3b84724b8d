"""Which S3dlioFileSystem is which: the clients that they share, and what tells them apart.

fsspec keeps one instance for equal arguments and takes two instances for equal where its token, a hash of the arguments'
repr, is the same. The repr of Credentials hides the secret, and that of a Client most of it, so with either an instance is
never taken from fsspec's cache, and its token covers what the repr does not show.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from dataclasses import astuple, is_dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Optional

from fsspec.spec import AbstractFileSystem

from .client import Client
from .sigv4 import Credentials

if TYPE_CHECKING:
    from .fsspec import S3dlioFileSystem

_clients: weakref.WeakValueDictionary[Any, Client] = weakref.WeakValueDictionary()
_clients_lock = threading.Lock()
_living: weakref.WeakValueDictionary[int, S3dlioFileSystem] = weakref.WeakValueDictionary()   # equal ones, too


def _forked() -> None:
    global _clients_lock  # noqa: PLW0603 - of this process from here on
    _clients_lock = threading.Lock()
    for fs in list(_living.values()):
        fs.forget_threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def remember(fs: S3dlioFileSystem) -> None:
    """It is told of a fork, while it lives."""
    _living[id(fs)] = fs


def shared_client(url: Optional[str], credentials: Optional[Credentials], options: Mapping[str, Any]) -> Client:
    """One for equal arguments, while somebody uses it."""
    key = (url, os.environ.get("S3DLIO_PROXY_URL"), os.environ.get("AWS_ENDPOINT_URL"), credentials,
           tuple(sorted((k, repr(v)) for k, v in options.items())))
    with _clients_lock:
        client = _clients.get(key)
        if client is None:
            client = _clients[key] = Client(url, credentials=credentials, **options)
        return client


def _identity(client: Client) -> str:
    """All settings, secrets among them; for a hash only."""
    settings = {k: astuple(v) if is_dataclass(v) and not isinstance(v, type) else v for k, v in client._settings.items()}
    return repr((type(client).__module__, type(client).__qualname__, sorted(settings.items())))


class Instances(type(AbstractFileSystem)):   # type: ignore[misc]
    """How an S3dlioFileSystem is made, see above."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        own = kwargs.get("client") is not None or kwargs.get("credentials") is not None
        if own:
            kwargs["skip_instance_cache"] = True
        fs = super().__call__(*args, **kwargs)
        if own:
            told = f"{fs._fs_token_}\0{_identity(fs.client)}"
            fs._fs_token_ = sha256(told.encode("utf-8", "surrogateescape")).hexdigest()
        return fs
