"""The functions that run in other processes: importable by name, given plain data, giving plain data."""

from __future__ import annotations

import functools
import os
import signal
import tempfile
import threading
from pathlib import Path

from iqa_harness.executors.bench import Bench
from iqa_harness.executors.snapshot import open_snapshot
from iqa_harness.executors.task import Outcome, Place, Task


def run_task(folder: str, task: Task, place: Place) -> Outcome:
    """Compute a task; suite, images and models are made once a process.

    Args:
        folder: a snapshot.
        task: what to compute.
        place: device and threads.
    """
    return _bench(folder, place).run(task)


def run_tasks(folder: str, tasks: tuple[Task, ...], place: Place) -> list[Outcome]:
    """Compute several tasks, one after the other."""
    return [run_task(folder, task, place) for task in tasks]


def run_packed(files: dict[str, bytes], name: str, task: Task, place: Place) -> Outcome:
    """Compute a task from a snapshot that came as bytes; they are unpacked once a process.

    Args:
        files: the snapshot's files by their paths in it.
        name: what tells this snapshot from others.
        task: what to compute.
        place: device and threads.
    """
    return run_task(_unpacked(name, _Files(files)).name, task, place)


def pack(folder: Path) -> dict[str, bytes]:
    """Return a snapshot as bytes by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def start_worker() -> None:
    """Prepare a process that works for another one of this machine.

    Ctrl-C is the other one's business, which ends this one too; so does its death, however sudden.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:

        def end_with_it() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=end_with_it, daemon=True).start()


class _Files(dict[str, bytes]):
    """Equal to every other: a cache must not hash a hundred megabytes to find what its name says."""

    def __hash__(self) -> int:  # type: ignore[override]
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Files)


@functools.lru_cache(maxsize=1)
def _unpacked(name: str, files: _Files) -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="iqa-harness-")
    for inside, content in files.items():
        path = Path(folder.name) / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@functools.lru_cache(maxsize=1)
def _bench(folder: str, place: Place) -> Bench:
    import torch

    if place.threads is not None:
        torch.set_num_threads(place.threads)
    return open_snapshot(Path(folder), place)
