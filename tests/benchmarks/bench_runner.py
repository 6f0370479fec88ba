"""How long planning and resuming take at sizes nobody runs by accident, and how much memory.

Run as ``python tests/benchmarks/bench_runner.py [--cells N]``. It makes a synthetic set of 10,000 images
(records only: planning reads no pixel) and plans it for one model. Then it fills a store with so many parts
(one real part under every key), whose manifest knows them, and starts the run again; and a small store whose
parts no manifest knows, so that each is read first. Nothing is attacked. Prints seconds, the memory that a
plan takes, and the peak of the process.

With ``--memory N`` it attacks N images instead (one gradient each), makes the tables, and prints the peak of
the process after each step; ``--memory 500,10000`` does it for both, each in a process of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from iqa_harness.api.attack import load_run
from iqa_harness.cells.compute import run_cell
from iqa_harness.cells.plan import Work, plan
from iqa_harness.data import DataCard, ImageRecord, ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.ledger import Ledger, planned
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import missing_cells, run_suite
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import Suite, parse_suite

SUITE = """
name = "large"
summary = "for the benchmark"
seed = 0
main_epsilon = "1/255"
suite_min = ["pgd/mse"]
cell_images = 8

[data]
name = "synthetic"

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = [{radii}]
objectives = ["mse"]
steps = 1
relative_step_size = 1.0
"""


class Synthetic(ImageSet):
    """Grey images that take no memory; a record an image."""

    def __init__(self, records: Sequence[ImageRecord]) -> None:
        self.card = DataCard("synthetic", "pseudo-MOS", (0.0, 1.0), "grey", "made by the benchmark")
        self.fingerprint, self.records = "0" * 64, records

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return a grey image."""
        return np.full((16, 16, 3), index % 256, np.uint8)

    def subset(self, indices: Sequence[int]) -> Synthetic:
        """Return some of them."""
        return Synthetic([self.records[i] for i in indices])


def synthetic(count: int) -> Synthetic:
    """Return so many test images."""
    digests = (hashlib.sha256(str(i).encode()).hexdigest() for i in range(count))
    return Synthetic(
        [
            ImageRecord(f"image-{i}", i / count, "test", f"scene-{i}", None, None, d)
            for i, d in enumerate(digests)
        ]
    )


def timed(what: str, call: Callable[[], object]) -> float:
    """Call once and print how long it took."""
    started, worked = time.perf_counter(), time.process_time()
    call()
    took = time.perf_counter() - started
    print(f"{what:64} {took:8.2f} s, {time.process_time() - worked:8.2f} s of the processor")  # noqa: T201
    return took


def planning(images: int) -> None:
    """Plan a set of so many images, once for time and once for memory."""
    entrants = [Entrant("linear", create_model("linear"))]
    suite = parse_suite(SUITE.format(radii='"1/255", "2/255", "4/255", "8/255"'), "benchmark")
    data = synthetic(images)
    timed(f"plan {images:,} images, 4 radii, 1 model", lambda: plan(suite, entrants, data))
    tracemalloc.start()
    work = plan(suite, entrants, data)
    size, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"  {len(work.cells):,} cells hold {size / 2**20:.1f} MB, {peak / 2**20:.1f} MB at the most")  # noqa: T201


def fill(store: ResultStore, work: Work, entrants: Sequence[Entrant], honest: bool) -> None:
    """Write a part a cell: one real one under every key, its rows' own key changed too if `honest`."""
    rows = run_cell(work.cells[-1], entrants[0].model, work.images, Runtime())
    content = store.write_cell(work.cells[-1].key, rows).read_bytes()
    for cell in work.cells:
        if honest:
            store.write_cell(cell.key, [{**row, "cell": cell.key} for row in rows])
        else:
            path = Path(str(store.cell_path(cell.key)))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def work_of(cells: int, entrants: Sequence[Entrant]) -> tuple[Suite, Synthetic, Work]:
    """Return a plan of about so many cells: 10,000 images by 8, as many radii as it takes."""
    radii = ['"1/255"', *(f"{i / 1000}" for i in range(10, 10 + cells // 1250 - 2))]
    suite = parse_suite(SUITE.format(radii=", ".join(radii)), "benchmark")
    data = synthetic(10_000)
    return suite, data, plan(suite, entrants, data)


def resuming(cells: int, folder: Path) -> None:
    """Start a run whose every part is stored and known to its manifest."""
    entrants = [Entrant("linear", create_model("linear"))]
    suite, data, work = work_of(cells, entrants)
    store = ResultStore(folder)
    print(f"a store of {len(work.cells):,} cells")  # noqa: T201
    timed("  fill it (not part of any run)", lambda: fill(store, work, entrants, honest=False))
    few = replace(work, cells=work.cells[:1])
    fill(store, few, entrants, honest=True)
    started = run_suite(few, entrants, RunConfig("large", ""), store)
    sizes = store.cell_sizes()
    done = [
        record.model_copy(
            update={"status": "done", "bytes": sizes[record.key], "forwards": 8, "seconds": 0.1}
        )
        for record in planned(work.cells, None)
    ]
    manifest = started.model_copy(update={"cells": tuple(done)})
    store.write_manifest(manifest)
    del started, done
    took = timed("  plan", lambda: plan(suite, entrants, data))
    timed("  what is missing (one listing)", lambda: missing_cells(work, store))
    took += timed("  start the run again, nothing to compute", lambda: resume(work, entrants, store))
    print(f"  plan and start together {took:.2f} s")  # noqa: T201
    timed("  of that: read the manifest", lambda: store.read_manifest("large"))
    timed("  of that: compare with the listing", lambda: Ledger(store, planned(work.cells, manifest)))
    timed("  of that: write the manifest, once", lambda: store.write_manifest(manifest))
    size = (folder / "runs" / "large" / "manifest.json").stat().st_size
    print(f"  the manifest is {size / 2**20:.1f} MB")  # noqa: T201


def resume(work: Work, entrants: Sequence[Entrant], store: ResultStore) -> None:
    """Start a run and make sure that nothing was left to compute."""
    states: set[str] = set()
    run_suite(
        work, entrants, RunConfig("large", ""), store, Runtime(), lambda cell, status: states.add(status)
    )
    if states != {"cached"}:
        raise SystemExit(f"cells were computed: {states}")


def believing(folder: Path) -> None:
    """Start a run on parts that no manifest knows, as after a kill within a run's first minute."""
    entrants = [Entrant("linear", create_model("linear"))]
    _, _, work = work_of(2500, entrants)
    store, few = ResultStore(folder), replace(work, cells=work.cells[:1000])
    fill(store, few, entrants, honest=True)
    timed(f"read {len(few.cells):,} parts before believing them", lambda: resume(few, entrants, store))


class Pictures(Synthetic):
    """Noisy images of 64 x 64, drawn when they are read."""

    def read(self, index: int) -> NDArray[np.uint8]:
        """Return an image that no other is like."""
        return np.random.default_rng(index).integers(0, 256, (64, 64, 3)).astype(np.uint8)

    def subset(self, indices: Sequence[int]) -> Pictures:
        """Return some of them."""
        return Pictures([self.records[i] for i in indices])


def attacking(images: int) -> None:
    """Attack so many images and make the tables."""
    suite = parse_suite(SUITE.format(radii='"1/255"'), "benchmark")
    entrants = [Entrant("linear", create_model("linear"))]
    work = plan(suite, entrants, Pictures(synthetic(images).records))
    with tempfile.TemporaryDirectory() as folder:
        store = ResultStore(Path(folder))
        print(f"{images:,} images, {len(work.cells):,} cells planned: {peak()}")  # noqa: T201
        run_suite(work, entrants, RunConfig("large", ""), store)
        print(f"  attacked: {peak()}")  # noqa: T201
        run = load_run("large", store)
        print(f"  {len(run.table):,} lines of the table made: {peak()}")  # noqa: T201


def peak() -> str:
    """Say how much memory this process held at the most."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"peak of the process {most / (2**20 if sys.platform == 'darwin' else 2**10):.0f} MB"


def main() -> None:
    """Run both, or what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--memory", default="")
    given = parser.parse_args()
    if "," in given.memory:
        for images in given.memory.split(","):
            subprocess.run([sys.executable, __file__, "--memory", images], check=True)
        return
    if given.memory:
        attacking(int(given.memory))
        return
    planning(given.images)
    with tempfile.TemporaryDirectory() as folder:
        resuming(given.cells, Path(folder) / "large")
        believing(Path(folder) / "small")
    print(peak())  # noqa: T201


if __name__ == "__main__":
    main()
