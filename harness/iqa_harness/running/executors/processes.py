"""Processes of this machine: one a device, or several on the CPU with a share of its threads each."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from iqa_harness.errors import RunError
from iqa_harness.machine.devices import usable_cores
from iqa_harness.machine.scratch import scratch_folder
from iqa_harness.running.executors.worker import measure_again, run_task, start_worker
from iqa_harness.running.task import Job, Outcome, Place, Task
from iqa_results.storage import Location

ATTEMPTS = 3
"""Workers that may die on one task before it is given up."""


def places(devices: Sequence[str], each: int, threads: int | None) -> list[Place]:
    """Return what the processes run on: so many a device, with equal shares of the cores unless told."""
    count = len(devices) * each
    share = threads or max(1, usable_cores() // count)
    return [Place(device, share) for _ in range(each) for device in devices]


class _Worker:
    """A process of its own, made again after its death: a pool of one, so that a death is one task's."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None

    def start(self) -> None:
        """Start the process without waiting for it: it has torch to load."""
        spawn = multiprocessing.get_context("spawn")  # a forked torch with threads can hang
        self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=start_worker)
        self._pid = self._pool.submit(os.getpid)

    def submit(self, folder: str, task: Task) -> Future[Outcome]:
        """Give the process a task, starting it first if there is none.

        Raises:
            RunError: it cannot be started.
        """
        if self._pool is not None and self._begun():
            try:
                return self._pool.submit(run_task, folder, task, self.place)
            except BrokenProcessPool:  # killed while it had nothing to do
                self.end()
        if self._pool is None:
            self.start()
        assert self._pool is not None and self._pid is not None  # noqa: S101 - just started
        try:
            self._pid.result()
            return self._pool.submit(run_task, folder, task, self.place)
        except BrokenProcessPool as error:
            raise RunError("a worker process cannot be started: it ended at once") from error

    def _begun(self) -> bool:
        return self._pid is not None and self._pid.done() and self._pid.exception() is None

    def measure_again(self, folder: str) -> Future[Outcome] | None:
        """Ask the process, which has nothing to do, for what it measures last; None if there is none."""
        if self._pool is None:
            return None
        try:
            return self._pool.submit(measure_again, folder, self.place)
        except BrokenProcessPool:  # killed while it had nothing to do
            return None

    def end(self) -> None:
        """End the process, in the middle of a cell if need be."""
        if self._pool is not None:
            if self._pid is not None and self._begun():
                with suppress(OSError):  # it has ended; Windows has several words for that
                    os.kill(self._pid.result(), signal.SIGTERM)
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool, self._pid = None, None


class Processes:
    """Runs tasks in processes of this machine."""

    name = "processes"

    def __init__(
        self, places: Sequence[Place], *, attempts: int = ATTEMPTS, root: Location | None = None
    ) -> None:
        """Take what the processes run on.

        Args:
            places: device and threads of every process.
            attempts: how many may die on one task.
            root: store below which models and data for them lie meanwhile; None for the system's own place.
        """
        self._places, self._attempts, self._root = tuple(places), attempts, root

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield outcomes as tasks end; a task whose process dies goes to another one."""
        waiting, deaths = deque(tasks), dict.fromkeys((task.number for task in tasks), 0)
        idle = [_Worker(place) for place in self._places[: len(tasks)]]
        busy: dict[Future[Outcome], tuple[_Worker, Task]] = {}
        if not tasks:
            return
        with scratch_folder(self._root) as folder:
            try:
                for worker in idle:  # all at once, and beside the writing of what they will read
                    worker.start()
                job.folder(folder)
                while waiting or busy:
                    while waiting and idle:
                        worker, task = idle.pop(), waiting.popleft()
                        busy[worker.submit(str(folder.resolve()), task)] = worker, task
                    for future in wait(busy, return_when=FIRST_COMPLETED).done:
                        worker, task = busy.pop(future)
                        idle.append(worker)
                        try:
                            outcome = future.result()
                        except BrokenProcessPool:
                            worker.end()
                            deaths[task.number] += 1
                            if deaths[task.number] < self._attempts:
                                waiting.appendleft(task)
                                continue
                            outcome = Outcome(
                                task.number, (), None, lost=f"{self._attempts} worker(s) died on it"
                            )
                        yield outcome
                measured = [worker.measure_again(str(folder.resolve())) for worker in idle]
                for last in filter(None, measured):
                    try:
                        outcome = last.result()
                    except BrokenProcessPool:  # the driver's own measurement stands
                        continue
                    yield outcome
            finally:
                for worker in [*idle, *(worker for worker, _ in busy.values())]:
                    worker.end()
