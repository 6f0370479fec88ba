"""Slurm through submitit: for a laboratory that has a queue and no Ray."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from iqa_harness.entrants.plugins import need
from iqa_harness.errors import RunError
from iqa_harness.running.executors.worker import run_tasks
from iqa_harness.running.task import Job, Outcome, Place, Task

MINUTES = 240
"""Time limit of a job, where `options` has no other `timeout_min`."""
ROUNDS = 3
"""Times what a killed job left is submitted again before it is given up; Slurm itself retries nothing."""


class Slurm:
    """Runs tasks as an array of Slurm jobs, each with its share of them."""

    name = "slurm"

    def __init__(
        self,
        folder: Path,
        *,
        jobs: int = 1,
        cpus: int = 1,
        gpus: int = 0,
        cluster: str | None = None,
        options: dict[str, Any] | None = None,
        poll: float = 5.0,
    ) -> None:
        """Take what a job needs.

        Args:
            folder: where jobs are described and their logs go; every node must see it, and the store.
            jobs: jobs at once.
            cpus: cores of a job, and threads of its operations.
            gpus: GPUs of a job; it uses the first.
            cluster: `slurm`, or `local` for processes of this machine; by default what submitit finds.
            options: more of submitit's parameters, such as `slurm_partition`.
            poll: seconds between two looks at the jobs.
        """
        self._folder, self._jobs, self._place = folder, jobs, Place("cuda:0" if gpus else "cpu", cpus)
        self._cluster, self._poll = cluster, poll
        self._parameters = {
            "name": "iqa-harness",
            "timeout_min": MINUTES,
            "cpus_per_task": cpus,
            "gpus_per_node": gpus,
            **(options or {}),
        }

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield the outcomes of each job as it ends."""
        if not tasks:
            return
        submitit = need("submitit", "slurm")
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = str(job.folder(self._folder / f"session-{time.time_ns()}"))
        waiting = list(tasks)
        for _ in range(ROUNDS):
            lost: list[Task] = []
            # Neighbours use the same model: a job gets a stretch of them, not every n-th.
            size = -(-len(waiting) // self._jobs)
            shares = [tuple(waiting[first : first + size]) for first in range(0, len(waiting), size)]
            for share, outcomes in self._round(submitit, folder, shares):
                if outcomes is None:
                    lost += share
                else:
                    yield from outcomes
            waiting = lost
            if not waiting:
                return
        for task in waiting:
            yield Outcome(
                task.number,
                (),
                None,
                lost=f"{ROUNDS} jobs ended in the middle of it; logs are in {self._folder}",
            )

    def _round(
        self, submitit: Any, folder: str, shares: Sequence[tuple[Task, ...]]
    ) -> Generator[tuple[tuple[Task, ...], list[Outcome] | None], None, None]:
        """Submit a job a share; yield each share with its outcomes, None if its job was killed."""
        executor = submitit.AutoExecutor(folder=self._folder / "jobs", cluster=self._cluster)
        try:
            executor.update_parameters(**self._parameters)
            with executor.batch():
                running = {executor.submit(run_tasks, folder, share, self._place): share for share in shares}
        except (RuntimeError, NameError, TypeError, FileNotFoundError) as error:
            raise RunError(f"jobs cannot be submitted: {error}") from error
        try:
            while running:
                for job in [job for job in running if job.done()]:
                    share = running.pop(job)
                    try:
                        yield share, job.result()
                    except submitit.core.utils.FailedJobError as error:
                        raise RunError(f"a job cannot make what it needs: {error}") from error
                    except submitit.core.utils.UncompletedJobError:
                        yield share, None
                if running:
                    time.sleep(self._poll)
        finally:
            for job in running:
                job.cancel(check=False)
