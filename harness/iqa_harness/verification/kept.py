"""Attacked images that a store keeps, scored again by models that have seen nothing yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from iqa_attacks import AttackError
from iqa_harness.cells.examples import stored
from iqa_harness.cells.plan import Cell
from iqa_harness.cells.scoring import Scorer
from iqa_harness.verification.finding import Finding, row_name, shown, within
from iqa_harness.verification.recompute import AGAIN_SLACK, Again
from iqa_harness.verification.rows import BUDGET_SLACK
from iqa_results import ResultStore


def kept_differ(again: Again, store: ResultStore) -> Iterator[tuple[int, list[Finding]]]:
    """Score all kept images of the main radius again; yield the number of rows of a cell and what differs.

    Last cell and image first, each alone, before a model is shown anything else: one that remembers what it
    was shown in the run has another past here.
    """
    for entrant in again.entrants:
        main = [c for c in again.possible(entrant.label) if again.is_main(c) and c.surrogate is None]
        for cell in reversed(main):
            images = again.work.images
            result = stored(cell, images, again.runtime.device, store)
            if result is None:
                continue
            scorer = Scorer(again.models[cell.label], seed=cell.seed, draws=cell.draws)
            scores: dict[int, float] = {}
            try:
                for found in reversed(result.found):
                    name = images.records[cell.first + found.image].image_id
                    if id(found.example) not in scores:
                        (scores[id(found.example)],) = scorer.of([found.example.pixels], [name])
            except AttackError as error:
                yield 0, [Finding("cell", cell.label, f"its kept images cannot be scored: {error}")]
                continue
            places = {
                (found.objective, found.steps, cell.first + found.image): scores[id(found.example)]
                for found in result.found
            }
            yield len(places), list(_differing(again, cell, places))


def _differing(again: Again, cell: Cell, places: Mapping[tuple[Any, ...], float]) -> Iterator[Finding]:
    low, high = again.models[cell.label].spec.score_range
    for row in again.parts[cell.key].to_pylist():
        now = places.get((row["objective"], row["steps"], row["position"]))
        if now is None or row["projection_moved"] > BUDGET_SLACK:
            continue
        if not within(row["adv_score"], now, AGAIN_SLACK * (high - low)):
            detail = (
                f"adv_score: {shown(row['adv_score'])} is stored, the kept image has {shown(now)} where no "
                "other was scored before it"
            )
            yield Finding("row", f"{cell.label}, {row_name(row)}", detail)
