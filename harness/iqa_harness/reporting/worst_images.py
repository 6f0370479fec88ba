"""The worst images of a run: found again by the same attacks, made small, for a page that opens offline."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import AttackResult
from iqa_harness.cells.compute import attacked_model, to_tensor
from iqa_harness.cells.examples import recreate
from iqa_harness.cells.plan import Cell, plan
from iqa_harness.cells.scoring import Scorer
from iqa_harness.cells.selection import recorded_selection, recorded_suite
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import choices_of
from iqa_harness.measures.correlation import average_ranks
from iqa_harness.verification.recompute import AGAIN_SLACK
from iqa_models import QualityModel
from iqa_reports import StoredRun, Triptych
from iqa_reports.inputs.stored_run import same
from iqa_results import INTERVAL, ResultStore

LARGE, SMALL = 320, 128
"""Longer side of a picture in the page, in pixels: of a model's ENLARGED images, and of the others."""

ENLARGED = 2
"""Images of a model that the page shows large."""

QUALITY = 82
"""JPEG quality of the pictures; the difference is taken before."""

GAIN = 20
"""How many times the difference is enlarged, around mid-grey."""


PAGE_BYTES = 5_000_000
"""A page that a phone opens at once."""

MODEL_BYTES, LARGE_BYTES, SMALL_BYTES = 200_000, 40_000, 7_500
"""Bytes that a model's figures and tables, and a picture of either size, take: measured, rounded up."""


class _Worst(NamedTuple):
    """An image of the composed worst case and the row that holds the chosen score."""

    image_id: str
    moved: float
    """How many places in the order its score moved."""
    row: Mapping[str, Any]


def worst_images(
    store: ResultStore,
    run: StoredRun,
    entrants: Sequence[Entrant],
    data: ImageSet,
    count: int,
) -> tuple[Triptych, ...]:
    """Return for every model the images whose place in the order the composed worst case moved farthest.

    Each one's example is read from the store where the run kept it; else its attack runs again on the images
    of its cell, which costs up to `count` cells a model.

    Args:
        store: of the run.
        run: as read.
        entrants: its models.
        data: its images.
        count: images a model.

    Raises:
        RunError: a cell is not in the suite's plan any more.
    """
    manifest = run.manifest
    runtime = Runtime(choices=choices_of(manifest))
    stored = set(run.intervals.column("image_id").to_pylist())
    work = plan(recorded_suite(manifest), entrants, data, recorded_selection(manifest, data, stored))
    cells = {cell.key: cell for cell in work.cells}
    models = {entrant.label: entrant.model.to(runtime.device) for entrant in entrants}
    made: list[Triptych] = []
    for entrant in entrants:
        held: dict[str, AttackResult] = {}
        for place, worst in enumerate(_worst(store, run, entrant.label, count)):
            cell = cells.get(worst.row["cell"])
            if cell is None:
                raise RunError(
                    f"run {manifest.run!r}: the cell of {worst.image_id} is not in the suite's plan any "
                    "more; a package that decides the cells' keys has changed since"
                )
            source = cells[cell.surrogate.cell] if cell.surrogate else cell
            if source.key not in held:
                held = {
                    source.key: recreate(
                        source, attacked_model(source, models.__getitem__), work.images, runtime, store
                    )
                }
            target, large = models[entrant.label], place < ENLARGED
            made.append(_triptych(worst, cell, held[source.key], work.images, target, large=large))
    return tuple(made)


def _worst(store: ResultStore, run: StoredRun, model: str, count: int) -> list[_Worst]:
    """Return the images that moved farthest, largest first, each with the row its worst score came from."""
    manifest = run.manifest
    every = INTERVAL.rows(run.intervals)
    reached = [r for r in every if r.model == model and same(r.epsilon, manifest.main_epsilon)]
    before = average_ranks(np.array([r.clean for r in reached]))
    after = average_ranks(np.array([r.composed_srocc for r in reached]))
    moved = np.abs(after - before)
    # Equal moves: the farther score first, so that the choice does not hang on the order of rows.
    change = [abs(r.composed_srocc - r.clean) for r in reached]
    order = sorted(range(len(reached)), key=lambda i: (-moved[i], -change[i]))
    chosen = [i for i in order if change[i]][:count]
    keys = [
        cell.key
        for cell in manifest.cells
        if cell.model == model
        and cell.status == "done"
        and cell.attack != "clean"
        and cell.epsilon <= manifest.main_epsilon * (1 + 1e-9)
    ]
    rows = store.read_cells(keys).to_pylist()
    found = []
    for i in chosen:
        matches = [
            row
            for row in rows
            if row["image_id"] == reached[i].image_id and row["adv_score"] == reached[i].composed_srocc
        ]
        if matches:
            # The full run of a named objective says more than a prefix or an end of all scores seen.
            best = max(matches, key=lambda row: (row["final"], row["loss"] is not None, row["epsilon"]))
            found.append(_Worst(reached[i].image_id, float(moved[i]), best))
    return found


def _triptych(
    worst: _Worst, cell: Cell, result: AttackResult, images: ImageSet, target: QualityModel, *, large: bool
) -> Triptych:
    row = worst.row
    offset = int(row["position"]) - cell.first
    objective = cell.surrogate.objective if cell.surrogate else row["objective"]
    example = next(
        f.example
        for f in result.found
        if (f.image, f.objective, f.steps) == (offset, objective, row["steps"])
    )
    low, high = target.spec.score_range
    (score,) = Scorer(target, seed=cell.seed, draws=cell.draws).of([example.pixels], [worst.image_id])
    clean = to_tensor(images.read(int(row["position"])), "cpu")
    attacked = example.pixels.detach().cpu().clamp(0, 1)
    change = attacked - clean
    error = float(change.double().pow(2).mean())
    difference = (0.5 + GAIN * change).clamp(0, 1)
    side = LARGE if large else SMALL
    return Triptych(
        cell.label,
        worst.image_id,
        f"{row['attack']}/{row['objective']}",
        picture(clean, side),
        picture(attacked, side),
        picture(difference, side),
        float(row["mos"]),
        float(row["clean_score"]),
        float(row["adv_score"]),
        math.inf if error == 0 else -10 * math.log10(error),
        row.get("ssim"),
        row["distortion"] or "",
        large,
        None if abs(score - row["adv_score"]) <= AGAIN_SLACK * (high - low) else score,
    )


def picture(image: Tensor, side: int) -> str:
    """Return an image (3, H, W) in [0, 1] as a ``data:`` address of a JPEG of at most `side` pixels."""
    from PIL import Image

    pixels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    shown = Image.fromarray(pixels)
    shown.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def check_count(count: int, runs: Sequence[StoredRun]) -> None:
    """Refuse a count of images that would make the page larger than PAGE_BYTES.

    Raises:
        RunError: too many; the message says how many would do.
    """
    models = max(1, sum(len(run.manifest.models) for run in runs))
    room = (PAGE_BYTES // models - MODEL_BYTES) // 3  # bytes for each model's originals, say
    room = min(room // LARGE_BYTES, ENLARGED) + max(0, room - ENLARGED * LARGE_BYTES) // SMALL_BYTES
    if count > room:
        wish = f"take --images {room}" if room > 0 else "report fewer models at once, or leave out --images"
        raise RunError(
            f"--images {count} for {models} models would make a page of more than {PAGE_BYTES / 1e6:g} MB; "
            f"{wish}"
        )
