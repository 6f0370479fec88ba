"""Times a suite with one worker process and with several, in turn.

Run by hand: ``python tests/benchmarks/bench_workers.py [--suite demo] [--model demo_lite0] [--workers 2]
[--repeats 3] [--limit IMAGES]``.

Every run is whole, in a store of its own, without tuning, which would choose by timing, and each worker has
one thread. Two times are taken: of what workers do, their start and what each measures last included, and of
the run, which begins and ends with what one process does alone: checks, tables. Prints both ratios, least,
median and most; fails if the rows of the runs differ. It needs as many idle cores as there are workers.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import iqa_harness as iqa
from iqa_harness.api.attack import plan
from iqa_harness.running.executors import Executor
from iqa_harness.running.task import Job, Outcome, Task


class Timed:
    """An executor that notes how long its workers took."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.name, self.seconds = inner, inner.name, 0.0

    def run(self, job: Job, tasks: Sequence[Task]) -> Generator[Outcome, None, None]:
        """Run the tasks."""
        began = time.perf_counter()
        yield from self.inner.run(job, tasks)
        self.seconds = time.perf_counter() - began


class Took(NamedTuple):
    """Seconds of a run, and its scores."""

    workers: float
    run: float
    scores: NDArray[np.float64]


def one_run(given: argparse.Namespace, workers: int) -> Took:
    """Run the suite with so many workers."""
    with tempfile.TemporaryDirectory() as store:
        planned = plan(
            given.suite, given.model, progress=False, store=store, limit=given.limit, tune="off",
            executor="processes", workers=workers, threads=1,
        )  # fmt: skip
        timed = Timed(planned.executor)
        began = time.perf_counter()
        run: iqa.Run = replace(planned, executor=timed).run(progress=False)
        took = time.perf_counter() - began
        rows = run.rows().sort_values(["model", "cell", "image_id", "objective", "steps"])
        return Took(timed.seconds, took, rows[["adv_score", "adv_score_8bit"]].to_numpy())


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", default="demo")
    parser.add_argument("--model", nargs="+", default=["demo_lite0"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=int, help="only the first so many images")
    given = parser.parse_args()
    ratios: dict[str, list[float]] = {"workers": [], "run": []}
    for _ in range(given.repeats):
        one, many = (one_run(given, workers) for workers in (1, given.workers))
        if not np.array_equal(one.scores, many.scores):
            raise SystemExit("the rows differ")
        for what, found in ratios.items():
            found.append(getattr(one, what) / getattr(many, what))
        for name, took in (("1 worker", one), (f"{given.workers} workers", many)):
            print(f"  {name}: {took.workers:.1f} s of a run's {took.run:.1f} s", flush=True)
        print(f"  load {os.getloadavg()[0]:.1f}", flush=True)
    for what, found in ratios.items():
        print(
            f"1 / {given.workers} workers, {what}: least {min(found):.2f}, median "
            f"{statistics.median(found):.2f}, most {max(found):.2f}"
        )


if __name__ == "__main__":
    main()
