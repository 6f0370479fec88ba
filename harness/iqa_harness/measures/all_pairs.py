"""All pairs of models compared at once: one confidence for every interval, tie and rank of a board.

Of N models there are M = N (N - 1) / 2 differences. Each has an interval of the point, plus and minus the
same number of its own standard errors; that number is such that all M intervals hold the true differences at
once with the confidence asked for. So no order that the intervals show is wrong, with that confidence, and
what follows from them holds together: which two are not told apart (the interval holds 0), and between which
ranks each model lies (Mogstad, Romano, Shaikh, Wilhelm, Inference for Ranks, Rev. Econ. Studies 2024).

The number is the quantile of the largest |t| over the pairs in the draws of the bootstrap, which takes the
same images of all models: models that err alike on the same images are told apart by less than Bonferroni's
bound would ask for. A step-down version tells few pairs more apart, and has no intervals that agree with it.
How often all of it holds in simulation: tests/benchmarks/bench_ranks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iqa_harness.measures.bootstrap import CONFIDENCE, DEFINED, Replicates, widened_quantile
from iqa_harness.measures.correlation import Interval, Vector


@dataclass(frozen=True)
class AllPairs:
    """The differences of every two of N values, with intervals that hold at once."""

    difference: Vector
    """(N, N) value i minus value j; NaN where one is undefined."""
    error: Vector
    """(N, N) its standard error; NaN where it has no interval."""
    quantile: float
    """How many of them an interval reaches to each side."""

    def interval(self, i: int, j: int) -> Interval:
        """Return the interval of value i minus value j."""
        point, reach = float(self.difference[i, j]), self.quantile * float(self.error[i, j])
        return Interval(None, None) if np.isnan(reach) else Interval(point - reach, point + reach)


def all_pairs(values: Sequence[Replicates], confidence: float = CONFIDENCE) -> AllPairs:
    """Compare every two of N values.

    A pair of which fewer than DEFINED of the draws exist has no interval and takes no part. The quantile is
    widened for few units as every interval is. The standard error is about the point itself: the bias that
    draws of a minimum have counts, too.

    Args:
        values: of the same images with the same draws, of one `Bootstrap` or of equal ones.
        confidence: that all intervals hold.
    """
    n = len(values)
    points = np.array([np.nan if v.point.value is None else v.point.value for v in values])
    difference = points[:, None] - points[None, :]
    error = np.full((n, n), np.nan)
    if n < 2:
        return AllPairs(difference, error, np.nan)
    draws = np.stack([v.draws for v in values])
    largest = np.zeros(draws.shape[1])
    for i in range(n - 1):  # a model against all after it: a board of hundreds needs no more memory
        spread, size = _spreads(draws[i] - draws[i + 1 :] - difference[i, i + 1 :, None])
        error[i, i + 1 :] = error[i + 1 :, i] = spread
        np.maximum(largest, size, out=largest)
    quantile = float(np.quantile(largest, confidence))
    return AllPairs(difference, error, widened_quantile(quantile, values[0].units))


def at_once(values: Sequence[Replicates], confidence: float = CONFIDENCE) -> list[Interval]:
    """Return an interval of each value, all of which hold at once, made as those of `all_pairs`.

    Args:
        values: of the same images with the same draws, such as differences of pairs that were chosen before.
        confidence: that all intervals hold.
    """
    if not values:
        return []
    points = np.array([np.nan if v.point.value is None else v.point.value for v in values])
    spread, size = _spreads(np.stack([v.draws for v in values]) - points[:, None])
    reach = widened_quantile(float(np.quantile(size, confidence)), values[0].units) * spread
    return [
        Interval(None, None) if np.isnan(around) else Interval(float(point - around), float(point + around))
        for point, around in zip(points, reach, strict=True)
    ]


def _spreads(off: Vector) -> tuple[Vector, Vector]:
    """Return the standard errors of N values, and the largest distance of any in every draw.

    Args:
        off: (N, D) how far each draw is off its value, NaN where it is undefined.

    Returns:
        (N,) errors, NaN where fewer than DEFINED of the draws exist, and (D,) distances in such errors.
    """
    defined = np.isfinite(off)
    known = defined.mean(axis=1) >= DEFINED
    spread = np.full(len(off), np.nan)
    off = np.where(defined, off, 0.0)[known]
    spread[known] = np.sqrt((off**2).sum(axis=1) / defined[known].sum(axis=1))
    each = spread[known][:, None]
    size = np.divide(np.abs(off), each, out=np.zeros_like(off), where=each > 0)
    return spread, size.max(axis=0, initial=0.0)
