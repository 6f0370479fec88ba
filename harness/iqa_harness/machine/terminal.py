"""What is said to the person at the terminal: lines as they are written, and how far long work is."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from iqa_harness.wording import in_words

if TYPE_CHECKING:
    from rich.console import Console

MINUTE = 60.0
"""Seconds between two lines of progress where there is no terminal to draw a bar on."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def plain(text: str) -> str:
    """Return a text without control characters, which could move a terminal's cursor or colour it.

    Nor does it hold halves of characters, as names of files that are no UTF-8 do: nothing can write them.
    """
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def say(text: str, *, err: bool = False) -> None:
    """Print lines as they are written, without markup, emoji, colour or folding; names in them are a user's.

    Args:
        text: one line or more.
        err: to standard error, for what is no result.
    """
    print(plain(text), file=sys.stderr if err else sys.stdout, flush=True)


def console() -> Console:
    """Return a console on standard output that says so if who reads it has gone, instead of ending with 1."""
    from rich.console import Console

    class Piped(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    return Piped()


class Meter:
    """How far long work is, on standard error; a context manager, silent with ``show=False``.

    A bar on a terminal or in a notebook; elsewhere a line a minute and one at the end.
    """

    def __init__(self, name: str, total: int, *, show: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.name, self.total = name, total
        self._console = Console(stderr=True, quiet=not show)
        self._drawn = show and (self._console.is_terminal or self._console.is_jupyter)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._drawn,
        )
        self._task = self._bar.add_task(plain(name), total=total)
        self._show = show
        self._done = 0
        self._first: int | None = None
        self._said = self._began = self._entered = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        if kind is None and self._show and not self._drawn:
            self.line(f"{self._done}/{self.total} in {in_words(time.monotonic() - self._entered)}")

    def expect(self, seconds: float) -> None:
        """Say about how long the work takes, before any of it is done."""
        if self._show:
            self.line(f"about {in_words(seconds)}, by gradients timed on this machine")

    def advance(self, *, doing: str | None = None) -> None:
        """Count a finished piece of work; `doing` names what is at hand."""
        self.at(self._done + 1, doing=doing)

    def at(self, done: int, *, doing: str | None = None, note: str = "") -> None:
        """Say how much is finished; without a bar once a minute, with share done, `note` and time left."""
        self._bar.update(self._task, completed=done, description=plain(doing or self.name))
        self._done = done
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
        if self._show and not self._drawn and now - self._said >= MINUTE:
            since = done - self._first
            left = (self.total - done) * (now - self._began) / since if since else None
            words = f"{done}/{self.total} ({done / max(self.total, 1):.0%})" + (f"  {note}" if note else "")
            self.line(f"{words}{'' if left is None else f', {in_words(left)} left'}")

    def line(self, text: str) -> None:
        """Print one line that stays, with the name of the work before it."""
        self._said = time.monotonic()
        self._console.print(
            plain(f"{self.name}: {text}"), highlight=False, soft_wrap=True, markup=False, emoji=False
        )


@contextmanager
def progress_bar(text: str, total: int, *, show: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one piece of work, shown as `Meter` shows it."""
    with Meter(text, total, show=show) as meter:
        yield meter.advance
