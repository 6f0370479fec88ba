"""Which version of every image makes a set's correlation lowest: the search behind set-level adversaries.

Of some candidate scores an image one is chosen, so that the SET's SROCC or PLCC is as low as found. Exact
minimisation is combinatorial; this is coordinate descent on the exact correlation from several starts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Choice = NDArray[np.intp]

DESCENTS = 3
"""How many of the given starts, the lowest first, are descended from; all count as they are."""

_GAIN = 1e-12  # smaller gains are rounding; without it two equal choices could alternate for ever
_PATIENCE = 3  # shorter lists of changes that are tried after the best so far


def lowest_choice(
    candidates: Sequence[Vector],
    mos: Vector,
    metric: Literal["srocc", "plcc"],
    starts: Sequence[Choice] = (),
    value: Callable[[Choice], float] | None = None,
) -> Choice:
    """Choose one candidate an image so that the correlation of the set is as low as found.

    Args:
        candidates: for each of 3 images or more the finite scores (k_i,) of its versions, k_i >= 1.
        mos: (n,) labels, not all equal.
        metric: `srocc` on exact average ranks, or `plcc`.
        starts: choices to start from besides our own.
        value: what choices are compared by in the end, +inf where there is no correlation; the judge's own
            correlation without it.

    Returns:
        (n,) index of the chosen candidate of every image.
    """
    judge = judge_of(candidates, mos, metric)
    height = value or judge.of
    ours = [_ends_by_mos(candidates, mos), *_walks_by_mos(candidates, mos)]
    given = sorted(starts, key=height)
    descents = [descend(judge, choice) for choice in (*ours, *given[:DESCENTS])]
    return min((*descents, *ours, *given), key=height)


def judge_of(candidates: Sequence[Vector], mos: Vector, metric: Literal["srocc", "plcc"]) -> Judge:
    """Return what judges choices among candidates by a metric."""
    return (Ranks if metric == "srocc" else Products)(candidates, mos)


def _ranks(place: Choice, places: int) -> Vector:
    """Return the average ranks (n,), from 1, of images by their place among `places` ascending values."""
    count = np.bincount(place, minlength=places)
    ranks: Vector = ((2 * np.cumsum(count) - count + 1) / 2)[place]
    return ranks


def _firsts(candidates: Sequence[Vector]) -> Choice:
    """Return where the candidates of each image begin when all stand in one row."""
    sizes = [len(c) for c in candidates]
    return np.cumsum([0, *sizes], dtype=np.intp)[: len(sizes)]


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


class Judge(ABC):
    """Judges choices and changes of one image by the exact correlation of the set."""

    def __init__(self, candidates: Sequence[Vector], weight: Vector) -> None:
        sizes = np.array([len(c) for c in candidates])
        self.rows = np.arange(len(candidates))
        # Short rows are filled up with their first candidate: choosing it again gains nothing.
        columns = np.arange(sizes.max(initial=1))
        self.column = np.where(columns < sizes[:, None], columns, 0)
        self.weight = weight - weight.mean()

    @abstractmethod
    def of(self, choice: Choice) -> float:
        """Return the correlation of a choice, +inf if it has none."""

    @abstractmethod
    def of_changes(self, choice: Choice) -> NDArray[np.float64]:
        """Return the correlation (n, k) after changing one image of a choice to one candidate."""


def descend(judge: Judge, start: Choice) -> Choice:
    """Go down from a choice, round after round, until no change of one image goes further down."""
    choice = start.copy()
    if len(choice) < 3:
        return choice
    value = judge.of(choice)
    while True:
        after = judge.of_changes(choice)
        best = judge.column[judge.rows, after.argmin(axis=1)]
        lowest_after = after.min(axis=1)
        gain = np.zeros(len(choice))
        defined = np.isfinite(lowest_after)
        gain[defined] = (after[judge.rows, choice] - np.where(defined, lowest_after, 0))[defined]
        order = np.argsort(-gain, kind="stable")
        many = int((gain > _GAIN).sum())
        lowest, chosen, worse = value, choice, 0
        while many and worse < _PATIENCE:
            tried = choice.copy()
            tried[order[:many]] = best[order[:many]]
            reached = judge.of(tried)
            better = reached < lowest - _GAIN
            worse = 0 if better else worse + (chosen is not choice)
            if better:
                lowest, chosen = reached, tried
            many //= 2
        if chosen is choice:
            return choice
        choice, value = chosen, lowest


class Ranks(Judge):
    """SROCC: average ranks against the ranks of the labels.

    Candidates are known by their place among all distinct candidates, so ranks come from counting how
    many images are at each place. A score rises by one rank for every image that moves below it and by a
    half for one that moves onto it; a group of t equal scores takes (t^3 - t) / 12 from the spread.
    """

    def __init__(self, candidates: Sequence[Vector], mos: Vector) -> None:
        labels, rank = np.unique(mos, return_inverse=True)
        super().__init__(candidates, _ranks(rank, len(labels)))
        values, place = np.unique(np.concatenate(candidates), return_inverse=True)
        self.place = place[_firsts(candidates)[:, None] + self.column]
        self.places = len(values)
        # Where each place stands in that table, place after place.
        self.cells = np.argsort(self.place, axis=None, kind="stable")
        self.begins = np.concatenate([[0], np.cumsum(np.bincount(self.place.ravel(), minlength=len(values)))])
        n = len(candidates)
        self.square = float(self.weight @ self.weight)
        self.full = (n**3 - n) / 12

    def of(self, choice: Choice) -> float:
        """Return the SROCC from ranks."""
        ranks = _ranks(self.place[self.rows, choice], self.places)
        spread = float(((ranks - ranks.mean()) ** 2).sum()) * self.square
        return float(ranks @ self.weight) / np.sqrt(spread) if spread > 0 else np.inf

    def of_changes(self, choice: Choice) -> NDArray[np.float64]:
        """Return the SROCC after every change, from counts and sums of weights by place."""
        at = self.place[self.rows, choice]
        weight = self.weight
        count = np.bincount(at, minlength=self.places)
        pull = np.bincount(at, weights=weight, minlength=self.places)
        upto, pull_upto = np.cumsum(count), np.cumsum(pull)
        # Twice the rank, in whole numbers, and twice what the images above and at a place weigh.
        rank2 = 2 * upto - count + 1
        above2 = 2.0 * (pull_upto[-1] - pull_upto) + pull
        covariance2 = float(weight @ rank2[at])
        ties = float((count.astype(np.float64) ** 3 - count).sum()) / 12
        # Image i taken out: those above lose a rank, those beside it a half.
        group = count[at]
        without2 = covariance2 - weight * rank2[at] - (above2[at] - weight)
        ties_without = ties - group * (group - 1) / 4

        # Image i put in elsewhere. Its share in the sums of the new place, which are of all images, comes to
        # -w_i whether it came from below or from above; where it is already, nothing changes.
        to = self.place
        covariance2s = above2[to]
        covariance2s += (without2 - weight)[:, None]
        covariance2s += weight[:, None] * rank2[to]
        # Hardly any place is taken: the spread is the image's own, but for the places that are.
        alone = self.full - ties_without
        result = _over(covariance2s, alone[:, None], self.square)
        taken = self._cells_at(np.flatnonzero(count))
        row, place = taken // to.shape[1], to.ravel()[taken]
        spread = alone[row] - (count * (count + 1) / 4)[place]
        result.ravel()[taken] = _over(covariance2s.ravel()[taken], spread, self.square)
        here = taken[place == at[row]]
        result.ravel()[here] = self.of(choice)
        return result

    def _cells_at(self, places: Choice) -> Choice:
        """Return where candidates of some places stand in the table, flattened."""
        begins, sizes = self.begins[places], self.begins[places + 1] - self.begins[places]
        cells: Choice = self.cells[
            np.repeat(begins - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        ]
        return cells


def _over(covariance2: Vector, spread: Vector, square: float) -> Vector:
    """Return half a covariance over the root of spread times square; inf where nothing is spread."""
    length = 2 * np.sqrt(np.maximum(spread, 0) * square)
    result: Vector = np.divide(covariance2, np.where(spread > 0, length, 1))
    return np.where(spread > 0, result, np.inf) if (spread <= 0).any() else result


class Products(Judge):
    """PLCC: sums and products of scores, shifted to lose no digits."""

    def __init__(self, candidates: Sequence[Vector], mos: Vector) -> None:
        super().__init__(candidates, mos)
        flat = np.concatenate(candidates)
        flat = flat - flat.mean()
        self.scores = flat[_firsts(candidates)[:, None] + self.column]
        self.length = float(np.linalg.norm(self.weight))
        self.floor = 1e-18 * max(1.0, float(np.abs(flat).max()) ** 2)

    def of(self, choice: Choice) -> float:
        """Return the correlation of the chosen scores."""
        scores = self.scores[self.rows, choice]
        scores = scores - scores.mean()
        spread = float(scores @ scores)
        return (
            float(scores @ self.weight) / (np.sqrt(spread) * self.length) if spread > self.floor else np.inf
        )

    def of_changes(self, choice: Choice) -> NDArray[np.float64]:
        """Return the correlation after every change, from running sums."""
        chosen = self.scores[self.rows, choice]
        shift = chosen.mean()
        chosen, trial = chosen - shift, self.scores - shift
        total = trial - chosen[:, None] + chosen.sum()
        spread = trial**2 - chosen[:, None] ** 2 + chosen @ chosen - total**2 / len(chosen)
        covariance = (trial - chosen[:, None]) * self.weight[:, None] + chosen @ self.weight
        result = np.full(trial.shape, np.inf)
        np.divide(
            covariance, np.sqrt(np.maximum(spread, 0)) * self.length, out=result, where=spread > self.floor
        )
        return result
