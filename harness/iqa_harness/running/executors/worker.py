"""The functions that run in other processes: importable by name, given plain data, giving plain data."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iqa_harness.machine.allocator import keep_buffers
from iqa_harness.machine.scratch import Scratch
from iqa_harness.running.executors.bench import Bench
from iqa_harness.running.executors.snapshot import Fetch, open_snapshot
from iqa_harness.running.task import Outcome, Place, Task


def run_task(folder: str, task: Task, place: Place) -> Outcome:
    """Compute a task; suite, images and models are made once a process.

    Args:
        folder: a snapshot.
        task: what to compute.
        place: device and threads.
    """
    return _bench(folder, place).run(task)


def run_tasks(folder: str, tasks: tuple[Task, ...], place: Place) -> list[Outcome]:
    """Compute several tasks, one after the other, and measure the models again."""
    return [*(run_task(folder, task, place) for task in tasks), measure_again(folder, place)]


def measure_again(folder: str, place: Place) -> Outcome:
    """Measure again the models that this process has attacked: see `Bench.last`."""
    return _bench(folder, place).last()


def run_packed(name: str, files: Mapping[str, bytes], fetch: Fetch, task: Task, place: Place) -> Outcome:
    """Compute a task from a snapshot that came as bytes.

    Args:
        name: what tells this snapshot from others.
        files: its files by their paths in it, without the weights.
        fetch: returns a file of weights; called once a process and model.
        task: what to compute.
        place: device and threads.
    """
    held = _held(name)
    if not held:
        scratch = Scratch()  # of a worker that is killed the next one deletes it
        for inside, content in files.items():
            path = scratch.path / inside
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        bench = _open(scratch.path, place, fetch)
        weakref.finalize(bench, scratch.close)
        held.append(bench)
    return held[0].run(task)


def pack(folder: Path) -> dict[str, bytes]:
    """Return a snapshot's files by their paths in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def start_worker() -> None:
    """Prepare a process that works for another one of this machine.

    Ctrl-C is the other one's business, which ends this one too; so does its death, however sudden.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


@functools.lru_cache(maxsize=1)
def _held(name: str) -> list[Bench]:
    """Return the place where a process keeps the snapshot of a name; the former one's is given up."""
    return []


@functools.lru_cache(maxsize=1)
def _bench(folder: str, place: Place) -> Bench:
    return _open(Path(folder), place, None)


def _open(folder: Path, place: Place, fetch: Fetch | None) -> Bench:
    import torch

    keep_buffers()
    if place.threads is not None:
        torch.set_num_threads(place.threads)
    if place.device.startswith("cuda:"):
        torch.cuda.set_device(place.device)  # a card of its own: nothing of this process is on another
    return open_snapshot(folder, place, fetch)
