"""What is sent to a worker and what comes back: plain data, whatever the executor."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from iqa_harness.evidence.check import Check

if TYPE_CHECKING:  # who reads a run's state loads no torch
    from iqa_harness.cells.plan import Cell, CellRef

Status = Literal["done", "failed", "found"]
"""`found`: another process has stored the cell in the meantime."""


class Task(NamedTuple):
    """Cells that one worker computes in this order: an attack's own and those that use its examples."""

    number: int
    cells: tuple[CellRef, ...]
    sources: tuple[CellRef, ...] = ()
    """Cells not asked for whose attacks find examples that are."""
    keep: tuple[str, ...] = ()
    """Keys of the cells whose examples are stored."""


class CellReport(NamedTuple):
    """What became of one cell."""

    key: str
    status: Status
    error: str | None = None
    """Why it failed, with the traceback of the last attempt."""
    bytes: int | None = None
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    device: str | None = None
    harness: str | None = None


class WorkerReport(NamedTuple):
    """The process that computed a task, as it stands after it."""

    token: str
    """Random, one a process: says which reports are of the same one, not where it ran."""
    device: str
    device_name: str
    threads: int
    peak_memory: int | None
    chunks: dict[str, int]
    """Chunk by model, where memory ran out at the one asked for, or decided it."""
    unchanged: dict[str, Check] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    """By model, what measuring it again after the process's last task found; empty before that."""


class Outcome(NamedTuple):
    """What became of a task."""

    number: int | None
    """The task's, None for what a process measures after its last one."""
    cells: tuple[CellReport, ...]
    """One a cell of the task; none if the worker died."""
    worker: WorkerReport | None
    seconds: float = 0.0
    """Time the worker spent."""
    lost: str | None = None
    """Why there is no report: the worker died on every attempt."""


class Place(NamedTuple):
    """What a worker runs on."""

    device: str
    threads: int | None
    """Threads within one operation, None for what the process has."""


class Job(NamedTuple):
    """Everything a run's tasks have in common."""

    here: Callable[[Task], Outcome]
    """Computes a task in this process, with the models and images at hand."""
    folder: Callable[[Path], Path]
    """Writes models, data and suite into a folder, as files from which a worker makes them again."""


class Executor(Protocol):
    """Runs tasks somewhere and reports them as they end, in any order.

    A task may be run more than once, as when its worker dies; cells are stored whole and are equal
    whoever computes them, so nothing is lost or doubled. An exception in a cell is a report, not an
    exception here.
    """

    name: str

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield one outcome a task, and those of no task; closing the iterator stops the workers.

        Raises:
            RunError: workers cannot be started, or what was asked for does not exist.
        """
        ...


def tasks_of(cells: Mapping[str, Cell], missing: Iterable[str], keep: Iterable[str] = ()) -> list[Task]:
    """Group the missing cells of a plan: whoever uses the examples of one attack goes with it.

    Args:
        cells: the plan by key, in its order.
        missing: keys of the cells to compute.
        keep: keys of the cells whose examples are to be stored, computed already or not.
    """
    from iqa_harness.cells.plan import CellRef

    wanted, kept = set(missing), set(keep)
    groups: dict[str, list[Cell]] = {}
    for cell in cells.values():
        if cell.key in wanted or cell.key in kept:
            groups.setdefault(cell.surrogate.cell if cell.surrogate else cell.key, []).append(cell)
    tasks = []
    for number, (source, group) in enumerate(groups.items()):
        todo = tuple(CellRef.of(cell) for cell in group if cell.key in wanted)
        sources = () if source in {ref.key for ref in todo} else (CellRef.of(cells[source]),)
        tasks.append(Task(number, todo, sources, tuple(c.key for c in group if c.key in kept)))
    return tasks
