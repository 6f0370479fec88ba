"""A store of ten million rows: how long a leaderboard, a page and a plain query over the rows take.

    python tests/benchmarks/bench_leaderboard.py [--models 20] [--images 10000]

Rows are generated (numbers mean nothing) in parts as a run writes them. The leaderboard reads what the run's
aggregation stored, as it always does; the query reads every row. Each step runs in a process of its own, so
that its peak memory is its own. The aggregation itself, from rows to the run's tables with its bootstraps, is
timed with --aggregate: it takes long at full size.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from iqa_results import (
    FLAG_SCHEMA,
    INTERVAL_SCHEMA,
    MEASURE_SCHEMA,
    ROW_SCHEMA,
    TABLE_SCHEMA,
    CellRecord,
    DataRecord,
    ModelRecord,
    Provenance,
    ResultStore,
    RunManifest,
)

ATTACKS = ("fgsm", "pgd", "mifgsm", "apgd", "square")
OBJECTIVES = ("mse", "drift", "pairwise_inversion", "raise", "lower")
STEPS = (10, 40)
EPSILON = 2 / 255
PART = 1000
SUITE = """
name = "generated"
summary = "generated rows"
seed = 0
main_epsilon = "2/255"
suite_min = ["pgd/mse", "pgd/drift", "pgd/pairwise_inversion"]
step_sweep = "pgd"
[data]
name = "generated"
[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255"]
objectives = ["mse", "drift", "pairwise_inversion", "raise", "lower"]
steps = 40
"""


def main() -> None:
    """Generate, then run each step in a process of its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--aggregate", action="store_true")
    parser.add_argument("--step", choices=("leaderboard", "page", "query", "aggregate"))
    parser.add_argument("--store", type=Path)
    given = parser.parse_args()
    if given.step:
        run_step(given.step, given.store)
        return
    with tempfile.TemporaryDirectory() as name:
        store = given.store or Path(name) / "store"
        began = time.perf_counter()
        rows = generate(ResultStore(store), given.models, given.images)
        size = sum(path.stat().st_size for path in store.rglob("*.parquet"))
        print(f"{rows:,} rows in {size / 1e6:,.0f} MB, generated in {time.perf_counter() - began:.0f} s")  # noqa: T201
        steps = ["leaderboard", "page", "query", *(["aggregate"] if given.aggregate else [])]
        for step in steps:
            command = [sys.executable, __file__, "--step", step, "--store", str(store)]
            subprocess.run(command, check=True)


def run_step(step: str, root: Path) -> None:
    """Run one step and print its time and its process's peak memory."""
    began = time.perf_counter()
    if step == "leaderboard":
        from iqa_harness.reporting.results import results_of
        from iqa_harness.reporting.runs import find_runs, read_runs
        from iqa_reports import Inputs, build_report
        from iqa_reports.leaderboard import write_leaderboard

        runs, unread = read_runs(find_runs([root]), intervals=False)
        frames = {"results": results_of(runs)}
        report = build_report(Inputs(runs, frames, papers=False, figures=False, unread=unread))
        page = write_leaderboard(report, root / "board")[0]
        note = f"leaderboard.html {page.stat().st_size / 1e6:.2f} MB"
    elif step == "page":
        from iqa_harness.reporting.runs import FoundRun, read_run
        from iqa_reports import Inputs, build_report, render_report

        run = read_run(FoundRun(ResultStore(root), "generated"))
        page = render_report(build_report(Inputs([run])), root / "page", ["html"])[0]
        note = f"index.html {page.stat().st_size / 1e6:.2f} MB"
    elif step == "query":
        wanted = ["model", "attack", "adv_score", "clean_score"]
        rows = ds.dataset(root / "cells", schema=ROW_SCHEMA).to_table(
            columns=wanted, filter=pc.field("final")
        )
        drift = pc.abs(pc.subtract(rows["adv_score"], rows["clean_score"]))
        table = (
            rows.append_column("drift", drift).group_by(["model", "attack"]).aggregate([("drift", "mean")])
        )
        note = f"{table.num_rows} groups of {rows.num_rows:,} rows"
    else:
        from iqa_harness.tables.robustness import robustness_table

        store = ResultStore(root)
        note = f"{robustness_table(store, store.read_manifest('generated')).table.num_rows} values"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{step:12} {time.perf_counter() - began:6.1f} s  {peak:5.2f} GB peak  {note}")  # noqa: T201


def generate(store: ResultStore, models: int, images: int) -> int:
    """Write cells, manifest and tables of a run; return the number of rows."""
    generator = np.random.default_rng(0)
    names = [f"model-{i:02d}" for i in range(models)]
    mos = generator.uniform(0, 1, images)
    cells, rows = [], 0
    for name in names:
        clean = mos + generator.normal(0, 0.2, images)
        for attack in ("clean", *ATTACKS):
            for first in range(0, images, PART):
                key = hashlib.sha256(f"{name}/{attack}/{first}".encode()).hexdigest()
                place = np.arange(first, min(first + PART, images))
                table = part(key, name, attack, place, mos, clean, generator)
                path = Path(str(store.cell_path(key)))
                path.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(table, path, compression="zstd", write_page_checksum=True)
                rows += table.num_rows
                cells.append(record(key, name, attack, first, len(place)))
    store.write_manifest(manifest(names, images, cells))
    write_tables(store, names, images, mos, generator)
    return rows


def part(key, name, attack, place, mos, clean, generator):
    """Return the rows of one cell."""
    kinds = [("none", 0)] if attack == "clean" else [(o, s) for o in OBJECTIVES for s in STEPS]
    count = len(place) * len(kinds)
    at = np.repeat(place, len(kinds))
    objective = np.tile([o for o, _ in kinds], len(place))
    steps = np.tile([s for _, s in kinds], len(place))
    score = clean[at] if attack == "clean" else clean[at] + generator.normal(0, 0.4, count)
    columns = {}
    for field in ROW_SCHEMA:
        if field.type == pa.string():
            columns[field.name] = pa.array([""], pa.string()).take(pa.array(np.zeros(count, np.int64)))
        elif field.type == pa.bool_():
            columns[field.name] = pa.array(steps == max(s for _, s in kinds))
        elif field.type == pa.int64():
            columns[field.name] = pa.array(np.ones(count, np.int64))
        else:
            columns[field.name] = pa.array(np.full(count, 0.01))
    ids = [f"image-{i}" for i in at]
    ball = "none" if attack == "clean" else "inf"
    words = {"cell": key, "model": name, "attack": attack, "kind": attack, "norm": ball, "split": "test"}
    for column, word in words.items():
        columns[column] = pa.array([word] * count)
    columns |= {"image_id": pa.array(ids), "reference": pa.array(ids), "position": pa.array(at)}
    columns |= {"objective": pa.array(objective), "steps": pa.array(steps), "mos": pa.array(mos[at])}
    columns |= {"epsilon": pa.array(np.full(count, 0.0 if attack == "clean" else EPSILON))}
    columns |= {"clean_score": pa.array(clean[at]), "adv_score": pa.array(score)}
    columns |= {"adv_score_8bit": pa.array(score)}
    return pa.Table.from_pydict(columns, schema=ROW_SCHEMA)


def write_tables(store, names, images, mos, generator) -> None:
    """Write the run's tables as an aggregation would, with drawn numbers."""
    rows = []
    for name in names:
        for metric in ("srocc", "plcc"):
            kinds = [("clean", "", "", 0.0, 0, True)]
            for epsilon in (EPSILON / 2, EPSILON, 2 * EPSILON, 4 * EPSILON):
                kinds += [(case, "", "", epsilon, 40, True) for case in ("suite_min", "composed")]
                kinds += [
                    ("attack", a, o, epsilon, s, s == STEPS[-1])
                    for a in ATTACKS
                    for o in OBJECTIVES
                    for s in STEPS
                ]
            for row, attack, objective, epsilon, steps, final in kinds:
                value = float(generator.uniform(-0.5, 0.9))
                fields = dict.fromkeys(TABLE_SCHEMA.names) | {
                    "model": name, "data": "generated", "split": "test", "images": images, "row": row,
                    "attack": attack, "objective": objective, "norm": "none" if row == "clean" else "inf",
                    "epsilon": epsilon, "steps": steps, "final": final, "metric": metric, "clean": 0.9,
                    "value": value, "low": value - 0.02, "high": value + 0.02, "drop": value - 0.9,
                    "drop_low": value - 0.92, "drop_high": value - 0.88, "value_8bit": value,
                    "mapping": "none", "interval": "BCa over images", "units": images, "verdict": "sound",
                    "flags": "",
                }  # fmt: skip
                rows.append(fields)
    store.write_table("generated", rows)
    low = np.tile(mos, len(names)) - 0.2
    count = len(names) * images
    columns = {
        "model": np.repeat(names, images), "norm": ["inf"] * count, "epsilon": np.full(count, EPSILON),
        "image_id": [f"image-{i}" for i in range(images)] * len(names), "mos": np.tile(mos, len(names)),
        "clean": low + 0.2, "s_min": low, "s_max": low + 0.4, "composed_srocc": low, "composed_plcc": low,
    }  # fmt: skip
    folder = Path(str(store.run_folder("generated")))
    pq.write_table(pa.Table.from_pydict(columns, schema=INTERVAL_SCHEMA), folder / "intervals.parquet")
    pq.write_table(FLAG_SCHEMA.empty_table(), folder / "flags.parquet")
    pq.write_table(MEASURE_SCHEMA.empty_table(), folder / "measures.parquet")


def record(key: str, name: str, attack: str, first: int, count: int) -> CellRecord:
    """Return a done cell's record."""
    epsilon = 0.0 if attack == "clean" else EPSILON
    return CellRecord(
        key=key,
        model=name,
        attack=attack,
        epsilon=epsilon,
        split="test",
        first=first,
        count=count,
        status="done",
    )


def manifest(names, images, cells) -> RunManifest:
    """Return the run's manifest."""
    return RunManifest(
        run="generated", suite="generated", suite_sha256="5" * 64, suite_text=SUITE, main_epsilon=EPSILON,
        suite_min=("pgd/mse", "pgd/drift", "pgd/pairwise_inversion"), step_sweep="pgd", seed=0,
        models=tuple(
            ModelRecord(name=n, sha256=hashlib.sha256(n.encode()).hexdigest(), card={"name": n},
                        checkpoint=None, checks={})
            for n in names
        ),
        data=DataRecord(name="generated", sha256="d" * 64, split="test", images=images, label="MOS", card={}),
        cells=tuple(cells), status="complete", started="2026-01-01T00:00:00Z", ended="2026-01-01T01:00:00Z",
        forwards=1, backwards=1, seconds=1.0,
        provenance=Provenance(packages={}, python="3.11", platform="generated", device="cpu", threads=1,
                              commit=None, dirty=None),
    )  # fmt: skip


if __name__ == "__main__":
    main()
