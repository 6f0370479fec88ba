"""The composed worst case: the adversary chooses, image by image, what hurts the set most.

For a classifier the worst case of an ensemble is taken an image at a time: misclassified or not. A rank
correlation belongs to the set, so the choice for one image depends on the choices for the others. Among
all admissible images that any attack, restart or step found (the clean one included) the adversary picks
one for every image, so that the SET's correlation is lowest. Exact minimisation is combinatorial; this is
coordinate descent on the exact correlation from several starts, among them every attack's own result, so
the composed value is never above any single attack's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from iqa_harness.metrics import Metric, Value, Vector, plcc, srocc

Choice = NDArray[np.intp]

DESCENTS = 3
"""How many of the given starts, the lowest first, are descended from; all count as they are."""

_GAIN = 1e-12  # smaller gains are rounding; without it two equal choices could alternate for ever


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
    descend = _descend_srocc if metric == "srocc" else _descend_plcc

    def judged(choice: Choice) -> Composed:
        scores = np.array([c[i] for c, i in zip(candidates, choice, strict=True)])
        return Composed(measure(scores, mos), choice, scores)

    ours = [judged(c) for c in (_ends_by_mos(candidates, mos), *_walks_by_mos(candidates, mos))]
    given = sorted((judged(c) for c in starts), key=_height)
    descents = [judged(descend(candidates, mos, c.choice)) for c in (*ours, *given[:DESCENTS])]
    return min((*descents, *ours, *given), key=_height)


def _height(composed: Composed) -> float:
    """Order by value, undefined last."""
    return np.inf if composed.value.value is None else composed.value.value


def _ends_by_mos(candidates: Sequence[Vector], mos: Vector) -> Choice:
    """Images below the median MOS go to their highest score, the others to their lowest."""
    middle = np.median(mos)
    ends = [c.argmax() if y < middle else c.argmin() for c, y in zip(candidates, mos, strict=True)]
    return np.array(ends, dtype=np.intp)


def _walks_by_mos(candidates: Sequence[Vector], mos: Vector) -> list[Choice]:
    """Build a reversed order greedily, once from the lowest MOS down and once from the highest MOS up.

    Every image takes the score nearest to the one before it on the far side, or its own far end if all
    of its scores lie on the near side.
    """
    walks = []
    for order, side in ((np.argsort(mos, kind="stable"), 1), (np.argsort(-mos, kind="stable"), -1)):
        choice = np.zeros(len(mos), dtype=np.intp)
        limit = np.inf
        for i in order:
            scores = side * candidates[i]
            below = np.where(scores < limit, scores, -np.inf)
            choice[i] = below.argmax() if np.isfinite(below).any() else scores.argmin()
            limit = min(limit, scores[choice[i]])
        walks.append(choice)
    return walks


def _descend_srocc(candidates: Sequence[Vector], mos: Vector, start: Choice) -> Choice:
    """Change one image at a time while the exact SROCC falls.

    With image i taken out, the ranks of the others change by 1 above a new score and by 1/2 at a tie, so
    every candidate is judged from prefix sums over the sorted others, without ranking the set again.
    """
    choice = start.copy()
    n = len(choice)
    weight = rankdata(mos)
    weight = weight - weight.mean()
    scores = np.array([c[k] for c, k in zip(candidates, choice, strict=True)])
    improved = n >= 3
    while improved:
        improved = False
        for i in range(n):
            if len(candidates[i]) < 2:
                continue
            others = np.delete(scores, i)
            order = np.argsort(others, kind="stable")
            ranked, pull = others[order], np.delete(weight, i)[order]
            values = _srocc_of(candidates[i], ranked, pull, weight[i], n, weight)
            k = int(values.argmin())
            if values[k] < values[choice[i]] - _GAIN:
                choice[i], scores[i] = k, candidates[i][k]
                improved = True
    return choice


def _srocc_of(
    trial: Vector, ranked: Vector, pull: Vector, own: float, n: int, weight: Vector
) -> NDArray[np.float64]:
    """Return the SROCC of the set for every trial score of one image; +inf where it is undefined."""
    below = np.searchsorted(ranked, trial, side="left")
    upto = np.searchsorted(ranked, trial, side="right")
    sums = np.concatenate([[0.0], np.cumsum(pull)])
    left = np.searchsorted(ranked, ranked, side="left")
    right = np.searchsorted(ranked, ranked, side="right")
    base = float(pull @ (left + right + 1)) / 2
    ties_here = upto - below
    covariance = (
        base
        + (sums[-1] - sums[upto])
        + 0.5 * (sums[upto] - sums[below])
        + own * (below + 1 + 0.5 * ties_here)
    )
    # Every member of a group of t equal scores adds t^2 - 1: together t^3 - t.
    ties = float(((right - left) ** 2 - 1).sum()) / 12
    # A group of t equal scores that gains one member: ((t+1)^3 - (t+1)) - (t^3 - t) = 3 t (t + 1).
    spread = (n**3 - n) / 12 - ties - ties_here * (ties_here + 1) / 4
    result = np.full(len(trial), np.inf)
    np.divide(covariance, np.sqrt(np.maximum(spread, 0) * (weight @ weight)), out=result, where=spread > 0)
    return result


def _descend_plcc(candidates: Sequence[Vector], mos: Vector, start: Choice) -> Choice:
    """Change one image at a time while the exact Pearson correlation falls, from running sums."""
    choice = start.copy()
    n = len(choice)
    weight = mos - mos.mean()
    scores = np.array([c[k] for c, k in zip(candidates, choice, strict=True)])
    shift = scores.mean()  # sums around the mean lose no digits
    improved = n >= 3
    while improved:
        improved = False
        for i in range(n):
            trial = candidates[i] - shift
            rest = np.delete(scores, i) - shift
            total = rest.sum() + trial
            spread = (rest @ rest) + trial**2 - total**2 / n
            covariance = (np.delete(weight, i) @ rest) + weight[i] * trial
            values = np.full(len(trial), np.inf)
            floor = 1e-18 * max(1.0, float(np.abs(scores).max()) ** 2)
            np.divide(covariance, np.sqrt(np.maximum(spread, 0)), out=values, where=spread > floor)
            k = int(values.argmin())
            if values[k] < values[choice[i]] - _GAIN * float(np.linalg.norm(weight)):
                choice[i], scores[i] = k, candidates[i][k]
                improved = True
    return choice
