"""Agreement between scores and opinion: SROCC, PLCC with a frozen logistic, bootstrap intervals.

A value that does not exist (constant scores, fewer than three images, NaN) is an explicit `undefined`
with its reason; it is never 0 and never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau, rankdata

Vector = NDArray[np.float64]
Metric = Literal["srocc", "plcc"]

METRICS: tuple[Metric, ...] = ("srocc", "plcc")

MIN_FIT = 10
"""Images a logistic is fitted on at the least: five parameters through fewer points say nothing."""


class Value(NamedTuple):
    """A number, or the reason why there is none."""

    value: float | None
    undefined: str | None

    @classmethod
    def of(cls, value: float) -> Value:
        """Return a defined value."""
        return cls(float(value), None)

    @classmethod
    def none(cls, reason: str) -> Value:
        """Return an undefined value with its reason."""
        return cls(None, reason)


class Interval(NamedTuple):
    """Ends of a 95 % interval, both None if undefined."""

    low: float | None
    high: float | None


def srocc(scores: Vector, mos: Vector) -> Value:
    """Spearman's rank correlation of raw scores (n,) with labels (n,); ties get average ranks."""
    reason = _degenerate(scores, mos)
    return Value.none(reason) if reason else Value.of(_pearson(rankdata(scores), rankdata(mos)))


def krocc(scores: Vector, mos: Vector) -> Value:
    """Kendall's tau-b of raw scores (n,) with labels (n,)."""
    reason = _degenerate(scores, mos)
    return Value.none(reason) if reason else Value.of(float(kendalltau(scores, mos).statistic))


def plcc(mapped: Vector, mos: Vector) -> Value:
    """Pearson's correlation of mapped scores (n,) with labels (n,); map them with `Logistic` first."""
    reason = _degenerate(mapped, mos)
    return Value.none(reason) if reason else Value.of(_pearson(mapped, mos))


def _pearson(a: Vector, b: Vector) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)))


def _degenerate(scores: Vector, mos: Vector) -> str | None:
    """Return why no correlation of these vectors exists, or None."""
    if len(scores) != len(mos):
        raise ValueError(f"{len(scores)} scores and {len(mos)} labels")
    if len(scores) < 3:
        return f"only {len(scores)} images, at least 3 are needed"
    if not (np.isfinite(scores).all() and np.isfinite(mos).all()):
        return "a score or label is not finite"
    if np.ptp(mos) == 0:
        return "all labels are equal"
    # Four units in the last place of a float32 score: spread below that is rounding, not an order.
    if np.ptp(scores) <= 4 * np.finfo(np.float32).eps * float(np.abs(scores).max()):
        return "all scores are equal"
    return None


@dataclass(frozen=True)
class Logistic:
    """The five-parameter logistic of VQEG (SRM eq. 31).

    q -> b1 (1/2 - 1 / (1 + exp(b2 (q - b3)))) + b4 q + b5, on standardised scores q = (s - centre) / scale.
    """

    centre: float
    scale: float
    b: tuple[float, float, float, float, float]
    rmse: float
    """Root mean square residual of the fit, on the labels' scale."""

    def __call__(self, scores: Vector) -> Vector:
        """Map scores (n,) to predicted labels (n,)."""
        return _logistic(np.asarray(self.b), (np.asarray(scores) - self.centre) / self.scale)


def _logistic(b: Vector, q: Vector) -> Vector:
    result: Vector = b[0] * (expit(b[1] * (q - b[2])) - 0.5) + b[3] * q + b[4]
    return result


def fit_logistic(scores: Vector, mos: Vector) -> Logistic | None:
    """Fit the five-parameter logistic by least squares from several starts.

    Args:
        scores: (n,) clean predictions.
        mos: (n,) labels.

    Returns:
        The best rising fit, or None if the input is degenerate, has fewer than MIN_FIT images, no
        start converges, or scores fall with the labels. A falling curve is not allowed: it would turn a
        reversed order into a good PLCC.
    """
    if len(scores) < MIN_FIT or _degenerate(scores, mos):
        return None
    centre, scale = float(scores.mean()), float(scores.std())
    q = (scores - centre) / scale
    spread = float(np.ptp(mos))
    slope = spread / 4

    def residuals(b: Vector) -> Vector:
        return _logistic(b, q) - mos

    def jacobian(b: Vector) -> Vector:
        rise = expit(b[1] * (q - b[2]))
        slope = b[0] * rise * (1 - rise)
        columns = (rise - 0.5, slope * (q - b[2]), -slope * b[1], q, np.ones_like(q))
        return np.stack(columns, axis=1)

    best = None
    for steepness in (0.5, 1.5, 5.0):
        for shift in (-0.5, 0.5):
            start = np.array([spread, steepness, shift, 0.0, mos.mean()])
            # Bounds keep the curve rising and its parts from cancelling each other out of range.
            fit = least_squares(
                residuals,
                start,
                jac=jacobian,
                bounds=(
                    [0.0, 1e-3, -5.0, 0.0, mos.min() - 3 * spread],
                    [10 * spread, 50.0, 5.0, slope * 4, mos.max() + 3 * spread],
                ),
            )
            if fit.success and (best is None or fit.cost < best.cost):
                best = fit
    if best is None:
        return None
    b = [float(value) for value in best.x]
    # A predictor that falls with opinion is fitted best by a constant, which correlates with nothing.
    if np.ptp(_logistic(best.x, q)) < 1e-3 * spread:
        return None
    return Logistic(centre, scale, (b[0], b[1], b[2], b[3], b[4]), float(np.sqrt(2 * best.cost / len(q))))


class Bootstrap:
    """Percentile intervals over images, all from the same seeded resamples, so that rows are paired.

    Args:
        mos: (n,) labels of the images.
        resamples: how often the set is drawn again, with replacement.
        seed: of the draws.
    """

    def __init__(self, mos: Vector, *, resamples: int = 1000, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self._draws = generator.integers(0, max(1, len(mos)), size=(resamples, len(mos)))
        self._mos = np.asarray(mos, dtype=np.float64)
        drawn = self._mos[self._draws] if len(mos) else np.empty((resamples, 0))
        self._against = {"plcc": _unit_rows(drawn), "srocc": _unit_rows(rankdata(drawn, axis=1))}

    def interval(self, values: Vector, metric: Metric) -> Interval:
        """Return the 95 % interval of `metric` between values (n,) and the labels.

        Resamples on which the metric is undefined (all values or labels equal) are left out; if that
        is more than one in ten, the interval is undefined.
        """
        if _degenerate(values, self._mos):
            return Interval(None, None)
        drawn = values[self._draws]
        drawn = rankdata(drawn, axis=1) if metric == "srocc" else drawn
        correlations = (_unit_rows(drawn) * self._against[metric]).sum(axis=1)
        defined = correlations[np.isfinite(correlations)]
        if len(defined) < 0.9 * len(correlations):
            return Interval(None, None)
        low, high = np.percentile(defined, [2.5, 97.5])
        return Interval(float(low), float(high))


def _unit_rows(rows: Vector) -> Vector:
    """Centre every row and scale it to length one; NaN for a constant row."""
    if rows.shape[1] == 0:
        return rows
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    tiny = length <= 1e-12 * np.maximum(1.0, np.abs(rows).max(axis=1, keepdims=True))
    result: Vector = np.divide(centred, length, out=np.full_like(centred, np.nan), where=~tiny)
    return result
