"""Where cells are computed: this process, others on this machine, a Ray cluster, a Slurm queue.

All of them take the same tasks and give the same rows; see `task.Executor`, the seam between them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

from iqa_harness.entrants.options import read_value
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import EXECUTORS, Runtime
from iqa_harness.running.task import Executor, Job, Outcome, Place, Task, tasks_of
from iqa_results import ResultStore

__all__ = ["Executor", "Inline", "Job", "Outcome", "Place", "Task", "make_executor", "tasks_of"]


class Inline:
    """In this process, one task after the other: the default, and what all others must equal."""

    name = "inline"

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Yield the outcomes in order."""
        return (job.here(task) for task in tasks)


def make_executor(runtime: Runtime, store: ResultStore) -> Executor:
    """Return the executor a user asked for.

    Raises:
        RunError: no such executor, or options it has no use for.
    """
    name = runtime.executor_name
    if name not in EXECUTORS:
        raise RunError(f"no executor {name!r}; there are {', '.join(EXECUTORS)}")
    _refuse_unused(runtime)
    if name == "inline":
        return Inline()
    if name == "processes":
        from iqa_harness.running.executors.processes import Processes, places

        return Processes(places(runtime.devices, runtime.workers or 1, runtime.threads), root=store.root)
    options = _settings(runtime.settings)
    if name == "ray":
        from iqa_harness.running.executors.ray_cluster import RayCluster

        return RayCluster(runtime.address, cpus=runtime.cpus or 1, gpus=runtime.gpus, options=options)
    from iqa_harness.running.executors.slurm import Slurm

    cluster = options.pop("cluster", None)
    folder = options.pop("folder", store.root / "slurm" if isinstance(store.root, Path) else "iqa-slurm")
    return Slurm(
        Path(folder).resolve(),
        jobs=runtime.workers or 1,
        cpus=runtime.cpus or 1,
        gpus=round(runtime.gpus),
        cluster=cluster,
        options=options,
    )


def _refuse_unused(runtime: Runtime) -> None:
    """Refuse options that would be dropped in silence."""
    name = runtime.executor_name
    far = name in ("ray", "slurm")
    wrong = {
        # One process is what inline has.
        "--workers": (runtime.workers or 1) > 1
        if name == "inline"
        else bool(runtime.workers) and name == "ray",
        "several devices in --device": len(runtime.devices) > 1 and name != "processes",
        "--threads": runtime.threads is not None and far,
        "--cpus": runtime.cpus is not None and not far,
        "--gpus": bool(runtime.gpus) and not far,
        "--set": bool(runtime.settings) and not far,
        "--address": runtime.address != "local" and name != "ray",
    }
    for option, is_wrong in wrong.items():
        if is_wrong:
            instead = " (use --cpus)" if option == "--threads" else ""
            raise RunError(f"{option} means nothing to the executor {name!r}{instead}")
    if name == "slurm" and runtime.gpus != round(runtime.gpus):
        raise RunError(f"--gpus {runtime.gpus:g}: Slurm gives whole GPUs; fractions are Ray's")


def _settings(texts: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not (key and sign):
            raise RunError(f"--set {text!r} is not KEY=VALUE")
        found[key] = read_value(value)
    return found
