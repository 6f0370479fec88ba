"""Progress on stderr: a bar on a terminal, one line an epoch everywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
    """Shows how far a run is; a silent one shows nothing."""

    def __init__(self, name: str, steps: int, *, show: bool) -> None:
        self._console = Console(stderr=True, quiet=not show)
        self._name = name
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

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def at(self, step: int) -> None:
        """Move the bar to a step."""
        self._bar.update(self._task, completed=step)

    def line(self, text: str) -> None:
        """Print one line that stays."""
        self._console.print(f"{self._name}: {text}", highlight=False, soft_wrap=True, markup=False)
