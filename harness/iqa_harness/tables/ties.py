"""Which models differ: intervals of the differences of all pairs of models at once, and ties."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from iqa_harness.measures.all_pairs import all_pairs
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
    drawn: str
    """What its bootstrap draws, in words."""
    replicates: Replicates


def difference_rows(standings: Mapping[Place, Sequence[Standing]], models: Sequence[str]) -> list[Difference]:
    """Compare every pair of models at every place.

    All models of a run draw the same images, so that the difference is paired. The pairs of a place are one
    family: all their 95 % intervals hold at once. A pair is tied if its own holds 0.

    Args:
        standings: the values there are; a pair of which one has none gets a row without a difference.
        models: all of the run, in the manifest's order.
    """
    return [row for place, found in standings.items() for row in _family(place, found, models)]


def _family(place: Place, found: Sequence[Standing], models: Sequence[str]) -> Iterator[Difference]:
    at = {standing.model: i for i, standing in enumerate(found)}
    pairs = all_pairs([standing.replicates for standing in found])
    defined = sum(standing.replicates.point.value is not None for standing in found)
    count = defined * (defined - 1) // 2
    how = f"t of {count} pairs at once" if count > 1 else "t of 1 pair"
    for first, second in itertools.combinations(models, 2):
        if first not in at or second not in at or found[at[first]].images != found[at[second]].images:
            names = (first, second, place.row, "", "", *place[1:])
            yield Difference(*names, None, None, None, 0, "", tied=True)
            continue
        a, b = found[at[first]], found[at[second]]
        point = float(pairs.difference[at[first], at[second]])
        low, high = pairs.interval(at[first], at[second])
        yield Difference(
            model_a=a.model,
            model_b=b.model,
            row=place.row,
            attack=a.attack if a.attack == b.attack else "",
            objective=a.objective if a[1:3] == b[1:3] else "",
            norm=place.norm,
            epsilon=place.epsilon,
            metric=place.metric,
            difference=None if math.isnan(point) else point,
            low=low,
            high=high,
            images=len(a.images),
            interval=f"{how} {a.drawn}" if low is not None else "",
            tied=low is None or high is None or low <= 0 <= high,
        )


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
