"""Telling a caller how far something is: a function, or a bar of tqdm (the extra `progress`)."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Callable, Optional, Union

ProgressFunction = Callable[[int, Optional[int]], None]
Progress = Union[bool, ProgressFunction, None]


class Reporter:
    """Adds up and tells. `progress`: None or False for nobody; True for a bar; or function(done, total), called in the
    thread that did it, one at a time. An exception of that function ends what it was told of."""

    def __init__(self, progress: Progress, total: Optional[int], what: str, unit: str = "B") -> None:
        self.done = 0
        self.total = total
        self._lock = threading.Lock()
        self._tell: Optional[ProgressFunction] = progress if callable(progress) else None
        self._bar: Any = _bar(total, what, unit) if progress is True else None

    def add(self, n: int) -> None:
        """n more are done."""
        if self._tell is None and self._bar is None:
            return
        with self._lock:
            self.done += n
            if self._tell:
                self._tell(self.done, self.total)
            if self._bar is not None:
                self._bar.update(n)

    def at(self, done: int, total: Optional[int]) -> None:
        """So many are done, of so many."""
        with self._lock:
            self.total = total
            if self._bar is not None:
                self._bar.total = total
        if done != self.done or done == 0:
            self.add(done - self.done)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        if self._bar is not None:
            self._bar.close()


def _bar(total: Optional[int], what: str, unit: str) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        raise ImportError("progress=True needs tqdm: pip install 's3dlio-proxy[progress]', or give a function") from None
    return tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B", unit_divisor=1024)
