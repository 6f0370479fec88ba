"""Agreement between scores and opinion: SROCC, KROCC, and PLCC with a frozen logistic.

A value that does not exist (constant scores, fewer than three images, NaN) is an explicit `undefined`
with its reason; it is never 0 and never dropped.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

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
    reason = degenerate(scores, mos)
    return Value.none(reason) if reason else Value.of(_pearson(average_ranks(scores), average_ranks(mos)))


def average_ranks(values: NDArray[Any]) -> Vector:
    """Return the ranks (n,) of values (n,), from 1; equal ones share their mean: SciPy's rankdata, faster."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    last = np.append(first[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((first + 1 + last) / 2, last - first)
    return ranks


def krocc(scores: Vector, mos: Vector) -> Value:
    """Kendall's tau-b of raw scores (n,) with labels (n,)."""
    from scipy.stats import kendalltau  # a third of a second, which commands without it need not wait

    reason = degenerate(scores, mos)
    return Value.none(reason) if reason else Value.of(float(kendalltau(scores, mos).statistic))


def plcc(scores: Vector, mos: Vector, *, mapped: bool = False) -> Value:
    """Pearson's correlation of scores (n,) with labels (n,).

    Args:
        scores: map them with `Logistic` first.
        mos: labels.
        mapped: whether they were: the reason of an undefined value says so, as different scores may be mapped
            to one.
    """
    reason = degenerate(scores, mos, "mapped scores" if mapped else "scores")
    return Value.none(reason) if reason else Value.of(_pearson(scores, mos))


def _pearson(a: Vector, b: Vector) -> float:
    a, b = a - a.mean(), b - b.mean()
    product = (a / np.linalg.norm(a)) @ (b / np.linalg.norm(b))
    return float(np.clip(product, -1, 1))  # rounding may step over the ends


def degenerate(scores: Vector, mos: Vector, called: str = "scores") -> str | None:
    """Return why no correlation of these vectors exists, or None; `called` names the scores in words."""
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
        return f"all {called} are equal"
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

    @property
    def on_scores(self) -> tuple[float, float, float, float, float]:
        """Parameters b1..b5 of the same curve on scores as they are, not standardised."""
        b1, b2, b3, b4, b5 = self.b
        slope = b4 / self.scale
        return b1, b2 / self.scale, self.centre + self.scale * b3, slope, b5 - slope * self.centre

    def __call__(self, scores: Vector) -> Vector:
        """Map scores (n,) to predicted labels (n,)."""
        return _logistic(np.asarray(self.b), (np.asarray(scores) - self.centre) / self.scale)


def _logistic(b: Vector, q: Vector) -> Vector:
    result: Vector = b[0] * (expit(b[1] * (q - b[2])) - 0.5) + b[3] * q + b[4]
    return result


class Fit(NamedTuple):
    """A logistic, or why there is none."""

    logistic: Logistic | None
    detail: str
    """Of a fit, how many starts converged; otherwise the reason why there is none."""

    @property
    def status(self) -> str:
        """`ok` or `failed`."""
        return "ok" if self.logistic else "failed"

    @property
    def mark(self) -> str:
        """What a table says beside a PLCC."""
        return "ok" if self.logistic else f"failed: {self.detail}"


STEEPNESS = (0.5, 1.5, 5.0, 20.0)
SHIFT = (-1.0, -0.3, 0.3, 1.0)
"""Starts of the fit, in standard deviations of the scores: from nearly straight to nearly a step."""

SEARCHED = np.geomspace(0.25, 50, 12)
"""Steepness of the curves that are searched besides."""
PLACES = 200
"""Most places, at scores and between neighbouring ones, where such a curve is tried to rise."""
STARTS, EVALUATIONS, BETTER = 3, 150, 1e-6
"""Of them so many are descended from, with so many evaluations at the most; and by what share of the sum of
squares they must fit better to count: what is nearer is the same optimum."""


def fit_logistic(scores: Vector, mos: Vector) -> Fit:
    """Fit the five-parameter logistic by bounded least squares from several starts.

    Where scores hardly follow labels there are many local optima. Given steepness and place of the rise the
    rest is a linear problem (Golub & Pereyra 1973); it is solved all over a grid of them, too, and the best
    of that are further starts.

    Args:
        scores: (n,) clean predictions.
        mos: (n,) labels.

    Returns:
        The best rising fit; none if the input is degenerate, has fewer than MIN_FIT images, or scores fall
        with the labels. A falling curve is not allowed: it would turn a reversed order into a good PLCC.
    """
    if len(scores) < MIN_FIT:
        return Fit(None, f"{len(scores)} images, at least {MIN_FIT} are needed")
    reason = degenerate(scores, mos)
    if reason:
        return Fit(None, reason)
    return _fitted(np.asarray(scores, np.float64).tobytes(), np.asarray(mos, np.float64).tobytes())


@functools.lru_cache(maxsize=64)
def _fitted(scores_bytes: bytes, mos_bytes: bytes) -> Fit:
    """Fit from all starts, which may take a second; the tables of a run ask for the same fits each time."""
    from scipy.optimize import least_squares  # a third of a second, as above

    scores, mos = np.frombuffer(scores_bytes), np.frombuffer(mos_bytes)
    centre, scale = float(scores.mean()), float(scores.std())
    q = (scores - centre) / scale
    spread = float(np.ptp(mos))
    # Bounds keep the curve rising and its parts from cancelling each other out of range.
    floor = np.array([0.0, 1e-3, -5.0, 0.0, float(mos.min()) - 3 * spread])
    ceiling = np.array([10 * spread, 50.0, 5.0, spread, float(mos.max()) + 3 * spread])

    def residuals(b: Vector) -> Vector:
        return _logistic(b, q) - mos

    def jacobian(b: Vector) -> Vector:
        rise, found = expit(b[1] * (q - b[2])), np.ones((len(q), 5))
        slope = b[0] * rise * (1 - rise)
        for place, column in enumerate((rise - 0.5, slope * (q - b[2]), -slope * b[1], q)):
            found[:, place] = column
        return found

    def descend(start: Vector, most: int | None = None) -> Any:
        return least_squares(residuals, start, jac=jacobian, bounds=(floor, ceiling), max_nfev=most)

    starts = [np.array([spread, k, shift, 0.0, mos.mean()]) for k in STEEPNESS for shift in SHIFT]
    starts.append(np.array([0.0, 1.0, 0.0, spread / 4, mos.mean()]))  # a straight line
    converged = [fit for fit in map(descend, starts) if fit.success]
    searched = [descend(start, EVALUATIONS) for start in _searched(q, mos, floor, ceiling)]
    other = min(searched, key=lambda fit: float(fit.cost))
    best = min(converged, key=lambda fit: float(fit.cost), default=other)
    detail = f"{len(converged)} of {len(starts)} starts converged"
    if other.cost < best.cost * (1 - BETTER):
        best, detail = other, f"found by a search; {detail}"
    # A predictor that falls with opinion is fitted best by a constant, which correlates with nothing.
    if np.ptp(_logistic(best.x, q)) < 1e-3 * spread:
        return Fit(None, "the best rising curve is a constant: scores do not rise with the labels")
    b = [float(value) for value in best.x]
    residual = float(np.sqrt(2 * best.cost / len(q)))
    logistic = Logistic(centre, scale, (b[0], b[1], b[2], b[3], b[4]), residual)
    return Fit(logistic, detail)


def _searched(q: Vector, mos: Vector, floor: Vector, ceiling: Vector) -> list[Vector]:
    """Return starts (5,), best first: of every steepness the best place, height, slope and level.

    Height and slope are what least squares without negative numbers gives (n,) standardised scores at each
    place; the level follows from the means.
    """
    level, n = float(mos.mean()), len(q)
    own = np.unique(q)
    grid = np.sort(np.concatenate([own, (own[1:] + own[:-1]) / 2]))
    if len(grid) > PLACES:
        grid = np.quantile(grid, np.linspace(0, 1, PLACES))
    along = float(q @ (mos - level))
    best = []
    for steepness in SEARCHED:
        beyond = np.array([1.0, 3.0]) / steepness
        places = np.concatenate([grid, own[0] - beyond, own[-1] + beyond]).clip(floor[2], ceiling[2])
        rise = expit(steepness * (q - places[:, None])) - 0.5
        means = rise.mean(axis=1)
        rise -= means[:, None]
        square, shared, up = (rise * rise).sum(axis=1), rise @ q, rise @ (mos - level)
        # Both together, or the height alone where the slope would be negative; the level is bounded, too.
        height = _over(up * n - along * shared, square * n - shared**2)
        height = np.where(along > shared * height, height, _over(up, square)).clip(0, ceiling[0])
        room = np.where(means > 0, level - floor[4], ceiling[4] - level)
        height = np.minimum(height, room / np.abs(means).clip(1e-9))
        slope = (along - shared * height).clip(0) / n
        length = height**2 * square + 2 * height * slope * shared + slope**2 * n
        gain = 2 * (height * up + slope * along) - length
        j = int(gain.argmax())
        start = np.array([height[j], steepness, places[j], slope[j], level - height[j] * means[j]])
        best.append((float(gain[j]), start.clip(floor, ceiling)))
    return [start for _, start in sorted(best, key=lambda found: -found[0])[:STARTS]]


def _over(top: Vector, bottom: Vector) -> Vector:
    """Return quotients, 0 where nothing is divided by."""
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
