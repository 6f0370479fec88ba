"""Which models differ: paired intervals of the difference of two models' values, and ties."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from iqa_harness.measures.bootstrap import Replicates
from iqa_results import Difference, Estimate


class Place(NamedTuple):
    """A value that every model of a run may have."""

    row: str
    norm: str
    epsilon: float
    metric: str

    @classmethod
    def of(cls, row: Estimate) -> Place:
        """Return the place of a row."""
        return cls(row.row, row.norm, row.epsilon, row.metric)


class Standing(NamedTuple):
    """One model's value at a place."""

    model: str
    attack: str
    objective: str
    images: tuple[str, ...]
    """Ids of the images, which must be equal for two values to be paired."""
    label: str
    """How its interval is made."""
    replicates: Replicates


def difference_rows(standings: Mapping[Place, Sequence[Standing]], models: Sequence[str]) -> list[Difference]:
    """Compare every pair of models at every place.

    All models of a run draw the same images, so that the difference is paired. A pair is tied if its
    95 % interval holds 0; no correction is made for the number of pairs.

    Args:
        standings: the values there are; a pair of which one has none gets a row without a difference.
        models: all of the run, in the manifest's order.
    """
    rows = []
    for place, found in standings.items():
        by_name = {standing.model: standing for standing in found}
        for first, second in itertools.combinations(models, 2):
            a, b = by_name.get(first), by_name.get(second)
            if a is None or b is None or a.images != b.images:
                names = (first, second, place.row, "", "", *place[1:])
                rows.append(Difference(*names, None, None, None, 0, "", tied=True))
                continue
            difference = a.replicates - b.replicates
            low, high = difference.interval()
            rows.append(
                Difference(
                    model_a=a.model,
                    model_b=b.model,
                    row=place.row,
                    attack=a.attack if a.attack == b.attack else "",
                    objective=a.objective if a[1:3] == b[1:3] else "",
                    norm=place.norm,
                    epsilon=place.epsilon,
                    metric=place.metric,
                    difference=difference.point.value,
                    low=low,
                    high=high,
                    images=len(a.images),
                    interval=a.label if low is not None else "",
                    tied=low is None or high is None or low <= 0 <= high,
                )
            )
    return rows


def with_ties(table: Sequence[Estimate], differences: Sequence[Difference]) -> list[Estimate]:
    """Return the rows with `ties_with` where they were compared; with a missing value nothing is tied."""
    ties: dict[tuple[str, Place], list[str]] = {}
    for d in differences:
        if d.difference is None:
            continue
        place = Place(d.row, d.norm, d.epsilon, d.metric)
        for one, other in ((d.model_a, d.model_b), (d.model_b, d.model_a)):
            ties.setdefault((one, place), []).extend([other] if d.tied else [])
    marked = []
    for row in table:
        found = ties.get((row.model, Place.of(row))) if row.final else None
        marked.append(row if found is None else row._replace(ties_with=", ".join(found)))
    return marked
