"""From stored rows to a run's tables: seconds, peak memory, and where the time goes.

    python tests/benchmarks/bench_tables.py [--rows 1000000] [--models 10] [--profile 25] [--store FOLDER]

Rows are drawn from a fixed seed in the shape of a run: five kinds of attack at four radii, with prefixes of
PGD and the ends of all scores seen; larger radii and more steps move scores further. They are written by
`ResultStore.write_cell`, a part 32 images, and read by what `report` calls. The tables are made in a process
of its own, whose peak memory is its own; `--profile` repeats that under cProfile and prints its top lines.
"""

# ruff: noqa: T201 - a script that prints its numbers

from __future__ import annotations

import argparse
import cProfile
import hashlib
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from iqa_results import CellRecord, DataRecord, ModelRecord, Provenance, ResultStore, RunManifest

OBJECTIVES = ("mse", "drift", "pairwise_inversion", "raise", "lower")
ENDS = ("lowest_seen", "highest_seen")
ATTACKS = {
    "noise": (1,),
    "fgsm": (1,),
    "mifgsm": (10,),
    "apgd": (20,),
    "pgd": (1, 5, 10, 20, 40),
}
"""Steps whose results are kept, by attack; the last is full strength."""
RADII = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255)
PART = 32
RUN = "generated"


def main() -> None:
    """Write a store, then make its tables in a process of their own."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--models", type=int, default=10)
    parser.add_argument("--profile", type=int, default=0, help="print so many lines of a profile, too")
    parser.add_argument("--store", type=Path, help="keep the rows here; one that is there is taken as it is")
    parser.add_argument("--step", choices=("tables", "profile", "again"))
    given = parser.parse_args()
    if given.step:
        make_tables(ResultStore(given.store), given.step, given.profile)
        return
    with tempfile.TemporaryDirectory() as name:
        root = given.store or Path(name)
        if not (root / "runs").is_dir():
            generate(ResultStore(root), given.rows, given.models)
        parts = list((root / "cells").rglob("*.parquet"))
        print(f"{len(parts):,} parts, {sum(part.stat().st_size for part in parts) / 1e6:,.1f} MB")
        for step in ("tables", "again", *(["profile"] if given.profile else [])):
            command = [sys.executable, __file__, "--step", step, "--store", str(root)]
            subprocess.run([*command, "--profile", str(given.profile)], check=True)


def make_tables(store: ResultStore, step: str, lines: int) -> None:
    """Make the tables, or read them again, and print what that took."""
    from iqa_harness.api.reading import aggregated

    if step != "again":
        store.table_path(RUN).unlink(missing_ok=True)
    profile = cProfile.Profile()
    wall, processor = time.perf_counter(), time.process_time()
    if step == "profile":
        profile.enable()
    _, made = aggregated(store, RUN)
    profile.disable()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    digest = hashlib.sha256(repr(made.table.to_pylist()).encode()).hexdigest()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{step:8} {wall:6.1f} s wall, {processor:6.1f} s of processor, {peak:.2f} GB at the peak; "
        f"{made.table.num_rows} values, sha256 {digest[:16]}",
        flush=True,
    )
    if step == "profile":
        pstats.Stats(profile).sort_stats("tottime").print_stats(lines)


def generate(store: ResultStore, rows: int, models: int) -> None:
    """Write cells and manifest of a run of about so many rows."""
    kinds = [kind for attack in ATTACKS for kind in kinds_of(attack)]
    images = rows // (models * (1 + len(kinds) * len(RADII)))
    generator = np.random.default_rng(0)
    mos = generator.uniform(0, 1, images)
    cells: list[CellRecord] = []
    written = 0
    for name in (f"model-{i:02d}" for i in range(models)):
        clean = mos + generator.normal(0, 0.2, images)
        reach = 0.1 * np.abs(generator.standard_normal(images))
        for attack, epsilon in [("clean", 0.0), *((a, e) for a in ATTACKS for e in RADII)]:
            for first in range(0, images, PART):
                places = range(first, min(first + PART, images))
                key = hashlib.sha256(f"{name}/{attack}/{epsilon}/{first}".encode()).hexdigest()
                drawn = generator.uniform(0.5, 1, (len(places), 64))
                part = [
                    row
                    for i, draws in zip(places, drawn, strict=True)
                    for row in image_rows(key, name, attack, epsilon, i, mos[i], clean[i], reach[i] * draws)
                ]
                size = Path(str(store.write_cell(key, part))).stat().st_size
                written += len(part)
                cells.append(
                    CellRecord(
                        key=key, model=name, attack=attack, epsilon=epsilon, split="test", first=first,
                        count=len(places), status="done", bytes=size,
                    )
                )  # fmt: skip
    store.write_manifest(manifest(models, images, cells))
    print(f"{written:,} rows of {models} models, {images} images, {len(kinds)} results a radius", end="; ")


def kinds_of(attack: str) -> list[tuple[str, int]]:
    """Return objective and steps of every result of an attack on one image."""
    if attack == "clean":
        return [("none", 0)]
    ends = ENDS if attack != "fgsm" else ()
    return [(objective, steps) for objective in (*OBJECTIVES, *ends) for steps in ATTACKS[attack]]


def image_rows(key, model, attack, epsilon, i, mos, clean, reach):
    """Return the rows of one image of a cell."""
    rows = []
    for number, (objective, steps) in enumerate(kinds_of(attack)):
        strength = epsilon * 255 * (1 + np.log1p(steps)) if attack != "noise" else epsilon * 25
        down = objective in ("lower", "lowest_seen") or (
            objective not in ("raise", "highest_seen") and mos > 0.5
        )
        score = (
            float(clean + (-1 if down else 1) * strength * reach[number])
            if attack != "clean"
            else float(clean)
        )
        rows.append(
            {
                "cell": key, "model": model, "model_sha256": "a" * 64, "data": RUN, "data_sha256": "d" * 64,
                "split": "test", "image_id": f"image-{i:05d}", "position": i, "reference": f"image-{i:05d}",
                "distortion": "jpeg", "level": 1, "mos": float(mos), "attack": attack, "kind": attack,
                "objective": objective, "norm": "none" if attack == "clean" else "inf", "epsilon": epsilon,
                "threat": "none" if attack == "clean" else "ball", "steps": steps,
                "final": steps == max(ATTACKS.get(attack, (0,))), "step_size": epsilon / 4, "restarts": 1,
                "seed": 0, "clean_score": float(clean), "adv_score": score,
                "adv_score_8bit": round(score, 3), "adv_score_jpeg": round(score, 2), "attack_score": score,
                "loss": None if objective in ("none", *ENDS) else score, "best_restart": 0,
                "best_step": steps, "linf": epsilon, "l2": epsilon * 400, "rmse": epsilon,
                "ssim": 1 - epsilon, "projection_moved": 0.0, "forwards": steps + 1, "backwards": steps,
                "zero_gradients": 0, "gradient_l1": 100.0 if attack == "clean" else None, "seconds": 0.01,
                "device": "cpu", "harness": "generated",
            }
        )  # fmt: skip
    return rows


def manifest(models: int, images: int, cells: list[CellRecord]) -> RunManifest:
    """Return the run's manifest."""
    return RunManifest(
        run=RUN, suite=RUN, suite_sha256="5" * 64, suite_text="", main_epsilon=RADII[1],
        suite_min=("pgd/mse", "pgd/drift", "pgd/pairwise_inversion"), step_sweep="pgd", seed=0,
        models=tuple(
            ModelRecord(name=f"model-{i:02d}", sha256="a" * 64, card={"score_range": [-1.0, 2.0]},
                        checkpoint=None, checks={})
            for i in range(models)
        ),
        data=DataRecord(name=RUN, sha256="d" * 64, split="test", images=images, label="MOS", card={}),
        cells=tuple(cells), status="complete", started="2026-01-01T00:00:00Z", ended="2026-01-01T01:00:00Z",
        forwards=1, backwards=1, seconds=1.0,
        provenance=Provenance(packages={}, python="3.11", platform=RUN, device="cpu", threads=1,
                              commit=None, dirty=None),
    )  # fmt: skip


if __name__ == "__main__":
    main()
