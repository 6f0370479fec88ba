"""Are a run's stored scores those of its models as they are now? See `evidence.stored_scores`."""

from __future__ import annotations

from collections.abc import Collection

from iqa_attacks import stored_score
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import Cell, Work
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.stored_scores import difference, some
from iqa_results import ResultStore


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
    for cell in some(mine):
        _require_same(cell, entrant, work, device, store)


def _require_same(cell: Cell, entrant: Entrant, work: Work, device: str, store: ResultStore) -> None:
    images = work.images if cell.split == work.suite.data.split else work.validation
    row = store.read_cell(cell.key).slice(cell.count // 2, 1).to_pylist()[0]
    image = to_tensor(images.read(row["position"]), device)
    now = stored_score(entrant.model, image, seed=cell.seed, image_id=row["image_id"], draws=cell.draws)
    words = difference(entrant.model.spec, row["image_id"], now, row["clean_score"], store.root)
    if words is not None:
        raise RunError(f"model {entrant.label!r} {words}")
