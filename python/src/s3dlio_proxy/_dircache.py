"""What listings have told, for a while: path of a directory -> its entries.

Bounded in entries, not in listings, for one directory may have a million. Entries expire, because others write to the
store as well. Any thread may use it; a fork in the middle of a change is no harm (renew_locks()).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any, Optional

Entry = dict[str, Any]


class Listings(MutableMapping[str, list[Entry]]):
    """expiry_s: None for never, 0 for no cache at all. limit: entries in all."""

    def __init__(self, expiry_s: Optional[float], limit: int) -> None:
        self._expiry_s, self._limit = expiry_s, limit
        self._known: OrderedDict[str, tuple[float, list[Entry], dict[str, Entry]]] = OrderedDict()
        self._entries = 0
        self.renew_locks()

    def renew_locks(self) -> None:
        """In the child of a fork, whose parent's threads may have been inside."""
        self._lock = threading.RLock()

    def __getitem__(self, path: str) -> list[Entry]:
        return self._find(path)[1]

    def _find(self, path: str) -> tuple[float, list[Entry], dict[str, Entry]]:
        with self._lock:
            found = self._known[path]
            if self._expiry_s is not None and time.monotonic() - found[0] >= self._expiry_s:
                self._drop(path)
                raise KeyError(path)
            self._known.move_to_end(path)
            return found

    def entry(self, directory: str, path: str) -> Optional[Entry]:
        """Of a path in a directory that was listed; None where that is not known. A file comes before a directory of the
        same name."""
        try:
            return self._find(directory)[2].get(path)
        except KeyError:
            return None

    def __setitem__(self, path: str, entries: list[Entry]) -> None:
        if self._expiry_s == 0 or len(entries) + 1 > self._limit:
            self.pop(path, None)
            return
        by_name: dict[str, Entry] = {}
        for e in entries:
            if e["type"] == "file" or e["name"] not in by_name:
                by_name[e["name"]] = e
        with self._lock:
            self.pop(path, None)
            while self._known and self._entries + len(entries) + 1 > self._limit:
                self._drop(next(iter(self._known)))
            self._known[path] = time.monotonic(), entries, by_name
            self._entries += len(entries) + 1

    def _drop(self, path: str) -> None:
        self._entries -= len(self._known.pop(path)[1]) + 1

    def __delitem__(self, path: str) -> None:
        with self._lock:
            self._drop(path)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._known))

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._known.clear()
            self._entries = 0

    def forget(self, path: str) -> None:
        """What a write to `path` may have changed: the listings of it, of what is below it and of what it is in."""
        with self._lock:
            below = path + "/"
            for known in [k for k in self._known if k in ("", path) or k.startswith(below) or below.startswith(k + "/")]:
                self._drop(known)
