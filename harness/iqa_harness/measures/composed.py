"""The composed worst case: the adversary chooses, image by image, what hurts the set most.

For a classifier the worst case of an ensemble is taken an image at a time: misclassified or not. A rank
correlation belongs to the set, so the choice for one image depends on the choices for the others. Among
all admissible images that any attack, restart or step found (the clean one included) the adversary picks
one for every image, so that the SET's correlation is lowest (`iqa_attacks.assignment`). Every attack's own
result is a start of the search, so the composed value is never above any single attack's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from iqa_attacks import lowest_choice
from iqa_attacks.assignment import Choice
from iqa_harness.measures.correlation import Metric, Value, Vector, plcc, srocc


class Composed(NamedTuple):
    """The composed worst case of a set."""

    value: Value
    choice: Choice
    """(n,) index of the chosen candidate of every image."""
    scores: Vector
    """(n,) the chosen scores."""


def composed_worst_case(
    candidates: Sequence[Vector], mos: Vector, metric: Metric, starts: Sequence[Choice] = ()
) -> Composed:
    """Choose one candidate an image so that the correlation of the set is as low as found.

    Args:
        candidates: for each image the scores (k_i,) of its admissible versions, k_i >= 1; for `plcc`
            already mapped by the frozen logistic.
        mos: (n,) labels.
        metric: `srocc` on exact average ranks, or `plcc`.
        starts: choices to start from besides our own: the members' results.

    Raises:
        ValueError: a candidate is not finite.

    Returns:
        The lowest value found with its choice; undefined if no choice has a defined correlation.
    """
    if not all(np.isfinite(c).all() for c in candidates):
        raise ValueError("a candidate of the composed worst case is not finite")
    measure = srocc if metric == "srocc" else plcc
    flat = np.concatenate([*candidates, np.zeros(0)])
    first = np.cumsum([0, *map(len, candidates)], dtype=np.intp)[: len(candidates)]

    def judged(choice: Choice) -> Composed:
        scores = flat[first + choice]
        return Composed(measure(scores, mos), choice, scores)

    if len(mos) < 3 or np.ptp(mos) == 0:
        return judged(np.zeros(len(mos), dtype=np.intp))  # no choice has a correlation: no search
    return judged(lowest_choice(candidates, mos, metric, starts, lambda choice: _height(judged(choice))))


def _height(composed: Composed) -> float:
    """Order by value, undefined last."""
    return np.inf if composed.value.value is None else composed.value.value
