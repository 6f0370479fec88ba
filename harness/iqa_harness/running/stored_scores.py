"""Are stored scores those of the model as it is now? Asked before they are believed.

A model's key is a hash of all its state that can be seen. What cannot be seen (a file that is read when the
model scores, a global variable) would show an old model's results as the new one's.
"""

from __future__ import annotations

from collections.abc import Collection

from iqa_attacks import stored_score
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_results import ResultStore

SCORED_AGAIN = 3
"""Images of each model that are scored again, spread over what is stored."""
SLACK = 1e-3
"""Difference, in score ranges, that another device or thread count may make."""


def require_stored_scores(
    work: Work, entrant: Entrant, device: str, store: ResultStore, missing: Collection[str]
) -> None:
    """Score some images again whose clean scores are stored, and refuse a model that scores otherwise.

    Args:
        work: the plan.
        entrant: one of its models, on the device.
        device: torch device.
        store: of the cells.
        missing: keys of cells that are not stored.

    Raises:
        RunError: a stored clean score is not the model's.
    """
    mine = [
        cell
        for cell in work.cells
        if cell.label == entrant.label and cell.attack is None and cell.key not in missing
    ]
    for cell in mine[:: max(1, len(mine) // SCORED_AGAIN)][:SCORED_AGAIN]:
        _require_same(cell, entrant, work, device, store)


def _require_same(cell: Cell, entrant: Entrant, work: Work, device: str, store: ResultStore) -> None:
    images = work.images if cell.split == work.suite.data.split else work.validation
    row = store.read_cell(cell.key).slice(cell.count // 2, 1).to_pylist()[0]
    image = to_tensor(images.read(row["position"]), device)
    now = stored_score(entrant.model, image, seed=cell.seed, image_id=row["image_id"], draws=cell.draws)
    low, high = entrant.model.spec.score_range
    if not abs(now - row["clean_score"]) <= SLACK * (high - low):
        raise RunError(
            f"model {entrant.label!r} scores image {row['image_id']!r} {now:g} now, {row['clean_score']:g} "
            f"is stored under the same key in {store.root}: something decides its scores that is neither on "
            "its card nor in its weights or source (a file it reads, a global); give it another name "
            "(LABEL=...) in another --store, or put what decides it on its card"
        )
