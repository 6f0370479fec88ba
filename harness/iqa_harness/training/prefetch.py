"""The next batches are read while a step is computed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD = 2
"""Items that wait to be taken."""


class Prefetched(Generic[T]):
    """Iterates over items that a thread makes ahead, in the same order; close it when stopping early.

    The thread reads and decodes (which release the interpreter's lock) and draws nothing at random, so
    it changes when a batch is made and not what it holds. An error of the items is raised where they are
    taken.
    """

    def __init__(self, items: Iterable[T]) -> None:
        self.waited = 0.0
        """Seconds the taker has waited so far: the share of the time that reading costs."""
        self._items = iter(items)
        self._thread = ThreadPoolExecutor(1)
        self._next = deque(self._thread.submit(next, self._items, None) for _ in range(AHEAD))

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                began = time.perf_counter()
                item = self._next.popleft().result()
                self.waited += time.perf_counter() - began
                if item is None:
                    return
                self._next.append(self._thread.submit(next, self._items, None))
                yield item
        finally:
            self.close()

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._thread.shutdown(cancel_futures=True)
