"""Intervals by drawing the images (or the contents they show) again, paired over everything compared.

A draw is a count an image: how often it was drawn. Ranks, means and correlations of a drawn set follow
from the counts without building it, so that one sorted order serves all draws, and drawing whole contents
(a cluster bootstrap) is the same arithmetic as drawing images. All statistics of a set share its draws:
the difference of two replicates is a replicate of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit

from iqa_harness.measures.correlation import Interval, Metric, Value, Vector, degenerate

Method = Literal["BCa", "percentile"]

CONFIDENCE = 0.95
RESAMPLES = 1000
MIN_REFERENCES = 5
"""Fewer contents than this are too few to draw again: images are drawn then, and the label says so."""
MIN_BCA = 50
"""Units below which the percentile interval is used: BCa's skewness is too uncertain there and costs coverage
(30 contents: 92.8 % instead of 94.0 % for a drop of PLCC, tests/benchmarks/bench_intervals.py)."""
LEFT_OUT = 250
"""Groups of the jackknife behind BCa at the most: with more units, several are left out together."""
KEPT = 4_000_000
"""Counts (images times draws) up to which all are kept as floats, with the labels ranked in every draw: some
100 MB. Of a larger set the draws go in parts, the labels of a part being ranked anew for every statistic."""
PART = 1_000_000
"""Counts in such a part."""
DEFINED = 0.9
"""Share of draws on which a statistic must exist for it to have an interval."""


@dataclass(frozen=True)
class Replicates:
    """A statistic on the set, on every draw and on the set without each unit."""

    point: Value
    """On the set itself."""
    draws: Vector
    """(resamples,) NaN where undefined."""
    left_out: Vector
    """(groups,) the jackknife; NaN where undefined."""
    units: int
    """Number of images or contents drawn."""
    smooth: bool = True
    """False for a minimum: BCa's corrections are for smooth statistics."""

    @property
    def method(self) -> Method:
        """The interval that suits the statistic and the number of units."""
        return "BCa" if self.smooth and self.units >= MIN_BCA else "percentile"

    def __sub__(self, other: Replicates) -> Replicates:
        """Return the paired difference; both must come from one `Bootstrap`, or from equal ones."""
        a, b = self.point, other.point
        point = Value.none(a.undefined or b.undefined or "")
        if a.value is not None and b.value is not None:
            point = Value.of(a.value - b.value)
        return Replicates(
            point,
            self.draws - other.draws,
            self.left_out - other.left_out,
            self.units,
            self.smooth and other.smooth,
        )

    def interval(self, method: Method | None = None, confidence: float = CONFIDENCE) -> Interval:
        """Return the interval; undefined if the point or more than one draw in ten is.

        BCa (Efron 1987) corrects the percentiles for bias and skewness; where its corrections do not
        exist (a jackknife without spread, all draws on one side) it is the percentile interval, as it is
        for a minimum. Both are widened for few units as a t interval is (Hesterberg 2015): draws from n
        units spread less than samples of n by (n - 1) / n, and do not know that the spread is estimated.
        """
        defined = self.draws[np.isfinite(self.draws)]
        if self.point.value is None or len(defined) < DEFINED * len(self.draws) or not len(defined):
            return Interval(None, None)
        tails = widened(confidence, self.units)
        if (method or self.method) == "BCa":
            tails = self._corrected(defined, tails)
        low, high = np.quantile(defined, tails)
        return Interval(float(low), float(high))

    def _corrected(self, defined: Vector, tails: Vector) -> Vector:
        point = self.point.value or 0.0
        # Draws equal to the point count half: a discrete statistic would be shifted otherwise.
        below = float((defined < point).mean() + (defined == point).mean() / 2)
        groups = self.left_out[np.isfinite(self.left_out)]
        pull = groups.mean() - groups if len(groups) >= 3 else np.zeros(1)
        spread = float((pull**2).sum()) ** 1.5
        if not (0 < below < 1 and spread > 0):
            return tails
        bias = ndtri(below)
        skew = float((pull**3).sum()) / (6 * spread)
        z = bias + ndtri(tails)
        room = 1 - skew * z
        if (room <= 0).any():
            return tails
        corrected: Vector = ndtr(bias + z / room)
        return corrected


def widened(confidence: float, units: int) -> Vector:
    """Return the lower and upper tail to read off the draws of a number of units."""
    if units < 2:
        return np.array([0.0, 1.0])
    quantile = float(stdtrit(units - 1, (1 + confidence) / 2)) * np.sqrt(units / (units - 1))
    return np.array([ndtr(-quantile), ndtr(quantile)])


def widened_quantile(quantile: float, units: int) -> float:
    """Return a quantile of a normal statistic, at least 0, widened likewise; infinite below two units."""
    if units < 2:
        return np.inf
    return -float(stdtrit(units - 1, ndtr(-quantile))) * float(np.sqrt(units / (units - 1)))


def lowest(members: Sequence[Replicates]) -> Replicates:
    """Return the minimum over members, taken anew in every draw: the choice of the member is part of it."""
    values = [m.point for m in members]
    undefined = next((v for v in values if v.value is None), None)
    point = undefined or Value.of(min(v.value for v in values if v.value is not None))
    # A draw in which a member is undefined has no minimum; np.min passes the NaN on.
    draws, left_out = (np.min([getattr(m, n) for m in members], axis=0) for n in ("draws", "left_out"))
    return Replicates(point, draws, left_out, members[0].units, smooth=len(members) == 1)


class Bootstrap:
    """Seeded draws of one set of images, the same for every statistic of the set.

    Args:
        mos: (n,) labels of the images.
        references: (n,) content of each image. Contents are drawn whole if there are at least
            MIN_REFERENCES of them and fewer than images: images of one content are not independent.
        resamples: number of draws.
        seed: of the draws.
    """

    def __init__(
        self,
        mos: Vector,
        references: Sequence[str] | None = None,
        *,
        resamples: int = RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.mos = np.asarray(mos, dtype=np.float64)
        n = len(self.mos)
        unit = np.arange(n)
        self.unit_name, note = "images", ""
        if references is not None and len(set(references)) < n:
            contents, index = np.unique(np.asarray(references), return_inverse=True)
            if len(contents) >= MIN_REFERENCES:
                unit, self.unit_name = index, "references"
            else:
                note = f" ({len(contents)} reference{'s' * (len(contents) != 1)}: too few to draw)"
        self.units = int(unit.max()) + 1 if n else 0
        self._note, self._resamples = note, resamples
        whole = n * (resamples + min(LEFT_OUT, self.units)) <= KEPT
        parts = _drawn_counts(self.units, resamples, seed, PART // max(1, n))
        # By image, so that taking images in another order copies whole rows.
        self._counts = [
            np.ascontiguousarray(part.T[unit]) for part in ([np.concatenate(list(parts))] if whole else parts)
        ]
        self._only = _Draws(self.mos, self._counts[0]) if whole else None

    def label(self, method: Method | None = None) -> str:
        """Say how the intervals are made: method (that of a smooth statistic if left out), what is drawn."""
        method = method or ("BCa" if self.units >= MIN_BCA else "percentile")
        return f"{method} {self.drawn}"

    @property
    def drawn(self) -> str:
        """What is drawn, in words: over images, or over references."""
        return f"over {self.unit_name}{self._note}"

    def replicates(self, point: Value, values: Vector, metric: Metric) -> Replicates:
        """Return a correlation of values (n,) with the labels on every draw.

        Args:
            point: the correlation on the set itself.
            values: raw scores for srocc, mapped ones for plcc.
            metric: srocc or plcc.
        """
        if degenerate(values, self.mos):
            every = np.full(sum(counts.shape[1] for counts in self._counts), np.nan)
        else:
            blocks = [self._only] if self._only else (_Draws(self.mos, counts) for counts in self._counts)
            every = np.concatenate([block.correlations(values, metric) for block in blocks])
        return Replicates(point, every[: self._resamples], every[self._resamples :], self.units)

    def medians(self, values: Vector) -> Vector:
        """Return the median of values (n,), which may be inf, on every draw: (resamples,)."""
        order = np.argsort(values, kind="stable")
        found = []
        for counts in self._counts:
            upto = np.cumsum(counts[order], axis=0, dtype=np.int64)
            drawn = upto[-1]
            # The two in the middle, which of an odd number are one.
            middle = [(upto < (drawn + more) // 2).sum(axis=0) for more in (1, 2)]
            found.append(sum(values[order][place] for place in middle) / 2)
        every: Vector = np.concatenate(found)
        return every[: self._resamples]


def _drawn_counts(units: int, resamples: int, seed: int, together: int) -> Iterator[NDArray[np.uint16]]:
    """Draw units again so many times, then leave each group of them out once: counts (draws, units)."""
    generator, together = np.random.default_rng(seed), max(1, together)
    for first in range(0, resamples, together):
        draws = min(together, resamples - first)
        drawn = generator.integers(0, max(1, units), size=(draws, units))
        places = (np.arange(draws)[:, None] * units + drawn).ravel()
        counts = np.bincount(places, minlength=draws * units).reshape(draws, units)
        yield counts.astype(np.uint16)
    groups = np.array_split(np.arange(units), min(LEFT_OUT, units)) if units else []
    for first in range(0, len(groups), together):
        some = groups[first : first + together]
        kept = np.ones((len(some), units), np.uint16)
        for row, group in enumerate(some):
            kept[row, group] = 0
        yield kept


class _Draws:
    """Some draws, and the labels as they are ranked and centred in each."""

    def __init__(self, mos: Vector, counts: NDArray[np.uint16]) -> None:
        """Take the labels (n,), and how often each image was drawn (n, R)."""
        self.mos, self._counts = mos, counts.astype(np.float64)
        self._drawn = self._counts.sum(axis=0)
        self._labels: dict[Metric, Vector] = {}

    def correlations(self, values: Vector, metric: Metric) -> Vector:
        """Return the correlation of values (n,) with the labels in every draw: (R,)."""
        found = self._of_ranks(values) if metric == "srocc" else self._of_values(values)
        return np.clip(found, -1, 1)  # rounding may step over the ends

    def _labels_by_image(self, metric: Metric) -> Vector:
        """Return counts times the labels, or their ranks, centred and of length one in every draw: (n, R)."""
        if metric not in self._labels:
            labels = np.broadcast_to(self.mos[:, None], self._counts.shape)
            if metric == "srocc":
                order, first = _ordered(self.mos)
                labels = np.empty_like(self._counts)
                labels[order] = _ranks(self._counts[order], first)
            self._labels[metric] = _standardised(labels, self._counts) * self._counts
        return self._labels[metric]

    def _of_ranks(self, values: Vector) -> Vector:
        """Return the SROCC of values with the labels in every draw: (R,).

        Of N drawn images of which groups of t are tied, ranks have the sum of squares (N^3 - N) / 12 less
        (t^3 - t) / 12 a group: whole numbers, so that a draw of equal scores is known as one.
        """
        order, first = _ordered(values)
        counts, labels = self._counts, self._labels_by_image("srocc")
        if not first.all():
            begins = np.flatnonzero(first)
            counts, labels = (np.add.reduceat(part[order], begins, axis=0) for part in (counts, labels))
            order = np.arange(len(begins))
        # The labels are centred: whatever is added to all ranks of a draw changes nothing.
        covariance = np.einsum("nr,nr->r", labels, counts) / -2
        below, term = np.zeros(len(covariance)), np.empty(len(covariance))
        for i in order:  # one image after the other: a few vectors stay in the processor's cache
            below += counts[i]
            covariance += np.multiply(labels[i], below, out=term)
        square = self._drawn**3 - np.einsum("nr,nr,nr->r", counts, counts, counts)
        result = np.full(len(square), np.nan)
        np.divide(covariance, np.sqrt(np.maximum(square, 0) / 12), out=result, where=square > 0)
        return result

    def _of_values(self, values: Vector) -> Vector:
        """Return the PLCC of values with the labels in every draw: (R,)."""
        centred = values - values.mean()
        total, square = np.stack([centred, centred**2]) @ self._counts
        left = square - total**2 / self._drawn
        # Where little is left of the squares, their difference has lost its digits.
        short = left <= 0.01 * square
        result = np.full(len(left), np.nan)
        labels = self._labels_by_image("plcc")
        np.divide(
            centred @ labels, np.sqrt(left, where=~short, out=np.ones_like(left)), out=result, where=~short
        )
        if short.any():
            counts = self._counts[:, short]
            standing = _standardised(np.broadcast_to(values[:, None], counts.shape), counts)
            result[short] = np.einsum("nr,nr->r", standing, labels[:, short])
        return result


def _ordered(values: Vector) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the ascending order of values (n,), and which of the ordered begin a group of equal ones."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    return order, np.concatenate([[True], ordered[1:] != ordered[:-1]])


def _ranks(counts: Vector, first: NDArray[np.bool_]) -> Vector:
    """Rank images within each drawn set, ties and repeated draws sharing their mean rank: (n, R).

    Args:
        counts: (n, R) how often each was drawn, images in ascending order of their values.
        first: (n,) True where a group of equal values begins.
    """
    whole = first.all()
    together = counts if whole else np.add.reduceat(counts, np.flatnonzero(first), axis=0)
    ranks: Vector = np.cumsum(together, axis=0)
    ranks -= (together - 1) / 2
    return ranks if whole else ranks[np.cumsum(first) - 1]


def _standardised(values: Vector, counts: Vector) -> Vector:
    """Centre every draw (n, R) by its counts and scale it to length one; NaN for a constant one."""
    if not len(values):
        return np.asarray(values)
    drawn = counts > 0
    spread = np.where(drawn, values, -np.inf).max(axis=0) - np.where(drawn, values, np.inf).min(axis=0)
    apart = spread > 1e-12 * np.abs(values).max()
    centred = values - (counts * values).sum(axis=0) / counts.sum(axis=0)
    length = np.sqrt((counts * centred**2).sum(axis=0))
    result: Vector = np.divide(centred, length, out=np.full_like(centred, np.nan), where=apart)
    return result
