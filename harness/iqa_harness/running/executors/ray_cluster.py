"""A Ray cluster, joined or started on this machine: any number of nodes, whole GPUs or shares of one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from iqa_harness.entrants.plugins import need
from iqa_harness.errors import RunError
from iqa_harness.machine.scratch import scratch_folder, sweep
from iqa_harness.running.executors.worker import pack, run_packed
from iqa_harness.running.task import Job, Outcome, Place, Task

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRIES = 3
"""Workers or nodes that may die on one task, besides the first, before it is given up."""

_LOCAL: dict[str, Any] = {
    # By default it binds the host's own address, shows a dashboard and takes a third of the memory.
    "_node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "log_to_driver": False,
    "object_store_memory": 512 * 2**20,
}


class RayCluster:
    """Runs tasks on a Ray cluster; Ray places them, moves the weights and retries what a dead worker had."""

    name = "ray"

    def __init__(
        self,
        address: str = "local",
        *,
        cpus: float = 1,
        gpus: float = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Take where the cluster is and what a task needs.

        Args:
            address: `local` starts one on this machine and stops it in the end; `auto` or HOST:PORT joins
                one that runs.
            cpus: cores of a task, and threads of its operations if it is at least one.
            gpus: GPUs of a task, a fraction for several tasks on one.
            options: more arguments of `ray.init`.
        """
        self._address, self._cpus, self._gpus, self._options = address, cpus, gpus, dict(options or {})

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield outcomes as tasks end."""
        if not tasks:
            return
        ray = need("ray", "ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            if self._address == "local":
                ray.init(**{**_LOCAL, **self._options})
            else:
                ray.init(address=self._address, log_to_driver=False, **self._options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(f"Ray at {self._address!r} cannot be used: {error}") from error
        try:
            yield from self._run(ray, job, tasks)
        finally:
            ray.shutdown()
            sweep()  # what its workers of this machine had; they were ended from outside

    def _run(self, ray: Any, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        slots = self._slots(ray.cluster_resources())
        place = Place("cuda:0" if self._gpus else "cpu", max(1, int(self._cpus)))
        with scratch_folder() as folder:
            files = pack(job.folder(folder))
        # Sent to a node once, and only if a task there asks for it.
        weights = {name: ray.put(files.pop(name)) for name in list(files) if name.endswith(".safetensors")}
        name, rest = os.urandom(16).hex(), ray.put(files)
        remote = ray.remote(_remote).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_retries=RETRIES, retry_exceptions=False
        )
        waiting = deque(tasks)
        running: dict[Any, Task] = {}
        while waiting or running:
            # Twice what can run: a freed place has its next task at once, the queue stays short.
            while waiting and len(running) < 2 * slots:
                task = waiting.popleft()
                running[remote.remote(name, rest, weights, task, place)] = task
            done, _ = ray.wait(list(running), num_returns=1, timeout=60)
            for reference in done:
                task = running.pop(reference)
                try:
                    yield ray.get(reference)
                except (
                    ray.exceptions.WorkerCrashedError,
                    ray.exceptions.NodeDiedError,
                    ray.exceptions.OutOfMemoryError,
                    ray.exceptions.ObjectLostError,
                ) as error:
                    yield Outcome(task.number, (), None, lost=f"{type(error).__name__}: {error}")
                except ray.exceptions.RayTaskError as error:
                    raise RunError(f"a Ray worker cannot make what it needs: {error.cause}") from error

    def _slots(self, there: Mapping[str, float]) -> int:
        """Return how many tasks fit on the cluster at once; a request nobody can satisfy waits for ever."""
        cpus, gpus = there.get("CPU", 0.0), there.get("GPU", 0.0)
        if self._cpus > cpus or self._gpus > gpus:
            raise RunError(
                f"a task asks for {self._cpus:g} CPU and {self._gpus:g} GPU, the Ray cluster at "
                f"{self._address!r} has {cpus:g} CPU and {gpus:g} GPU in all; ask for less or add nodes"
            )
        fitting = [have / want for have, want in ((cpus, self._cpus), (gpus, self._gpus)) if want > 0]
        return max(1, int(min(fitting, default=1)))


def _remote(name: str, files: Any, weights: Mapping[str, Any], task: Task, place: Place) -> Outcome:
    import ray

    return run_packed(name, files, lambda inside: ray.get(weights[inside]), task, place)
