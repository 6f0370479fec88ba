"""Progress on stderr: a bar on a terminal, one line an epoch (and a minute) everywhere else."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from iqa_harness.wording import in_words

MINUTE = 60.0


class Reporter:
    """Shows how far a run is; a silent one shows nothing."""

    def __init__(self, name: str, steps: int, *, show: bool) -> None:
        self._console = Console(stderr=True, quiet=not show)
        self._name = name
        self._steps = steps
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (show and self._console.is_terminal),
        )
        self._task = self._bar.add_task(name, total=steps)
        self._said = self._began = time.monotonic()
        self._first: int | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def at(self, step: int, loss: float | None = None) -> None:
        """Move the bar to a step; without a bar say so once a minute, with the time that is left."""
        self._bar.update(self._task, completed=step)
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = step, now
        if self._bar.disable and now - self._said >= MINUTE:
            self._said = now
            done = step - self._first
            left = f", {in_words((self._steps - step) * (now - self._began) / done)} left" if done else ""
            self.line(
                f"step {step}/{self._steps}" + (f"  loss {loss:.4f}" if loss is not None else "") + left
            )

    def line(self, text: str) -> None:
        """Print one line that stays."""
        self._said = time.monotonic()
        self._console.print(
            f"{self._name}: {text}", highlight=False, soft_wrap=True, markup=False, emoji=False
        )
