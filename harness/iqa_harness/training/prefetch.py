"""The next batches are read while a step is computed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetched(Generic[T]):
    """Iterates over items that a thread makes ahead, in the same order; close it when stopping early.

    The thread reads and decodes (which release the interpreter's lock) and draws nothing at random, so
    it changes when a batch is made and not what it holds. An error of the items is raised where they are
    taken.
    """

    def __init__(self, items: Iterable[T], depth: int = 2) -> None:
        self.waited = 0.0
        """Seconds the taker has waited so far: the share of the time that reading costs."""
        self._items: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(maxsize=depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(items,), daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            began = time.perf_counter()
            ok, item = self._items.get()
            self.waited += time.perf_counter() - began
            if not ok:
                if item is not None:
                    assert isinstance(item, BaseException)  # noqa: S101 - narrows the type
                    raise item
                return
            yield item  # type: ignore[misc]  # ok items are T

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._items.get_nowait()
            except queue.Empty:
                self._thread.join(timeout=0.05)

    def _fill(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                self._put((True, item))
                if self._stop.is_set():
                    return
            self._put((False, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the taker
            self._put((False, error))

    def _put(self, entry: tuple[bool, T | BaseException | None]) -> None:
        while not self._stop.is_set():
            try:
                self._items.put(entry, timeout=0.1)
                return
            except queue.Full:
                continue
