"""Are a run's stored scores those of its models as they are now? See `evidence.stored_scores`."""

from __future__ import annotations

from collections.abc import Collection

from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.cells.scoring import stored_scores
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.evidence.stored_scores import difference, some
from iqa_results import ResultStore


def changed_score(
    work: Work, store: ResultStore, device: str, entrant: Entrant, missing: Collection[str]
) -> str | None:
    """Say which stored clean score is not the model's, of some that are scored again; None if none is.

    Args:
        work: the plan.
        store: of the cells.
        device: torch device.
        entrant: a model of the plan, on the device.
        missing: keys of cells that are not stored.
    """
    mine = [
        cell
        for cell in work.cells
        if cell.label == entrant.label and cell.attack is None and cell.key not in missing
    ]
    found = (_difference(cell, entrant, work, device, store) for cell in some(mine))
    return next((words for words in found if words is not None), None)


def _difference(cell: Cell, entrant: Entrant, work: Work, device: str, store: ResultStore) -> str | None:
    row = store.read_cell(cell.key).slice(cell.count // 2, 1).to_pylist()[0]
    image = to_tensor(work.images_of(cell.split).read(row["position"]), device)
    (now,) = stored_scores(entrant.model, [image], [row["image_id"]], seed=cell.seed, draws=cell.draws)
    return difference(entrant.model.spec, row["image_id"], now, row["clean_score"], store.root)
