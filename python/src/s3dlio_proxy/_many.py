"""get_many: many objects or ranges at once, on threads, with a bound on what is in memory.

The consumer's thread takes items from the caller's iterable, at most `window` ahead of what it has handed out, and gives
them to the workers; results come back over a queue. A worker that knows how large its body will be asks the Budget for
so many bytes before it reads them; whoever is next to be handed out gets them in any case, so that nothing can wait for
what waits for it. Memory is therefore at most max_bytes and one body more, beside what the consumer keeps.

close(), leaving a `with`, or forgetting the iterator ends it: nothing new is asked for, and bodies that are being read
are cut. The threads are daemons and end by themselves; none is waited for.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import errors
from ._stream import Stream
from ._transport import Cancel, Cancelled

Item = Union[str, tuple[str, int, Optional[int]]]
I = TypeVar("I", bound=Item)   # noqa: E741 - of the items, as given
T = TypeVar("T")
Opener = Callable[[Item, Cancel], Stream]


class Budget:
    """Bytes that may be in memory. `turn` is the number of the item that the consumer waits for."""

    def __init__(self, limit: int, ordered: bool) -> None:
        self._limit = limit
        self._ordered = ordered
        self._used = 0
        self._turn = 0
        self._changed = threading.Condition()

    def take(self, number: int, n: int, cancel: Cancel) -> None:
        """Waits until n more fit, or nothing else is there, or it is the item's turn."""
        with self._changed:
            while self._used and self._used + n > self._limit and not (self._ordered and number == self._turn):
                self._changed.wait(1.0)
                cancel.check()
            self._used += n

    def give(self, n: int, turn: int) -> None:
        """n are the consumer's now, who waits for item `turn`."""
        with self._changed:
            self._used -= n
            self._turn = turn
            self._changed.notify_all()


class _Shared:
    """What the workers see; not the iterator itself, so that it can be forgotten while they work."""

    def __init__(self, opener: Opener, budget: Budget) -> None:
        self.opener = opener
        self.budget = budget
        self.cancel = Cancel()
        self.tasks: queue.SimpleQueue[Optional[tuple[int, Item]]] = queue.SimpleQueue()
        self.results: queue.SimpleQueue[tuple[int, Item, int, Union[bytes, BaseException]]] = queue.SimpleQueue()


def _work(shared: _Shared) -> None:
    while True:
        task = shared.tasks.get()
        if task is None or shared.cancel.is_set:
            return
        number, item = task
        taken = 0
        result: Union[bytes, BaseException]
        try:
            stream = shared.opener(item, shared.cancel).open()
            try:
                size = (stream.end or stream.position) - stream.position
                shared.budget.take(number, size, shared.cancel)
                taken = size
                result = stream.read_all()
            finally:
                stream.close()
        except Cancelled:
            return
        except Exception as e:   # noqa: BLE001 - it is raised where the consumer is
            result = e
        shared.results.put((number, item, taken, result))
        del result   # or this thread would hold on to it until its next one is there


class GetMany(Generic[I, T]):
    """The iterator: (item, bytes), or with errors="return" (item, bytes or Error). Of one thread."""

    def __init__(self, items: Iterable[I], opener: Opener, *, threads: int, ordered: bool, window: int, max_bytes: int,
                 return_errors: bool) -> None:
        self._source: Iterator[I] = iter(items)
        self._shared = _Shared(opener, Budget(max_bytes, ordered))
        self._ordered, self._window, self._return_errors = ordered, window, return_errors
        self._threads_max, self._threads = threads, 0
        self._given = self._handed = 0            # items to the workers, results to the consumer
        self._waiting: dict[int, tuple[Any, int, Any]] = {}   # results that came before their turn
        self._pid = os.getpid()
        self._exhausted = self._closed = False

    def __iter__(self) -> GetMany[I, T]:
        return self

    def _refill(self) -> None:
        while not self._exhausted and self._given - self._handed < self._window:
            try:
                item = next(self._source)
            except StopIteration:
                self._exhausted = True
                return
            self._shared.tasks.put((self._given, item))
            self._given += 1
            if self._threads < self._threads_max:
                self._threads += 1
                threading.Thread(target=_work, args=(self._shared,), daemon=True,
                                 name=f"s3dlio-get-{self._threads}").start()

    def _next_result(self) -> tuple[Any, int, Any]:
        while True:
            if self._ordered and self._handed in self._waiting:
                return self._waiting.pop(self._handed)
            number, item, taken, result = self._shared.results.get()
            if not self._ordered or number == self._handed:
                return item, taken, result
            self._waiting[number] = item, taken, result

    def __next__(self) -> tuple[I, T]:
        if self._closed:
            raise StopIteration
        if self._pid != os.getpid():
            raise RuntimeError("this iterator was begun before the fork: its threads are in the parent process")
        try:
            self._refill()
            if self._handed == self._given:
                self.close()
                raise StopIteration
            item, taken, result = self._next_result()
            self._handed += 1
            self._shared.budget.give(taken, self._handed)
            if isinstance(result, BaseException) and not (self._return_errors and isinstance(result, errors.Error)):
                raise result
        except BaseException:
            self.close()
            raise
        return item, result

    def close(self) -> None:
        """Ends it. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():   # threads and sockets are the parent's
            return
        self._shared.cancel.set()
        for _ in range(self._threads):
            self._shared.tasks.put(None)
        self._waiting.clear()

    def __enter__(self) -> GetMany[I, T]:
        return self

    def __exit__(self, kind: Optional[type[BaseException]], e: Optional[BaseException],
                 trace: Optional[TracebackType]) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_closed"):
            self.close()
