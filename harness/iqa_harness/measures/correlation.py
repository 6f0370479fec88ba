"""Agreement between scores and opinion: SROCC, KROCC, and PLCC with a frozen logistic.

A value that does not exist (constant scores, fewer than three images, NaN) is an explicit `undefined`
with its reason; it is never 0 and never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit
from scipy.stats import kendalltau

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
    return float((a / np.linalg.norm(a)) @ (b / np.linalg.norm(b)))


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


STEEPEST, FURTHEST = 50.0, 5.0
"""Bounds of b2 and b3, in standard deviations of the scores: nearly a step, beyond all scores."""
STEEPNESS = np.geomspace(1e-3, STEEPEST, 41)
SHIFT = np.linspace(-FURTHEST, FURTHEST, 81)
"""Points at which b2 and b3 are tried; the other three parameters then follow."""
GAPS = 120
"""Gaps between neighbouring scores, at the most, in whose middle b3 is tried besides: where a step may be."""
VALLEYS = 8
"""Lowest points of that map, each below its neighbours, that are searched to their bottom."""
CLOSER, NARROWER = 8, 0.5
"""How often a map of 5 x 5 points is drawn around a valley, each so much smaller than the one before."""


def fit_logistic(scores: Vector, mos: Vector) -> Fit:
    """Fit the five-parameter logistic by bounded least squares.

    The curve is linear in b1, b4 and b5, so these follow from b2 and b3 (variable projection, Golub & Pereyra
    1973), which are looked for on a map of points; from its deepest valleys all five are searched together.

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
    centre, scale = float(scores.mean()), float(scores.std())
    q = (scores - centre) / scale
    spread = float(np.ptp(mos))
    floor = np.array([0.0, STEEPNESS[0], -FURTHEST, 0.0, float(mos.min()) - 3 * spread])
    # Bounds keep the curve rising and its parts from cancelling each other out of range.
    ceiling = np.array([10 * spread, STEEPEST, FURTHEST, spread, float(mos.max()) + 3 * spread])

    def residuals(b: Vector) -> Vector:
        return _logistic(b, q) - mos

    def jacobian(b: Vector) -> Vector:
        rise = expit(b[1] * (q - b[2]))
        slope = b[0] * rise * (1 - rise)
        columns = (rise - 0.5, slope * (q - b[2]), -slope * b[1], q, np.ones_like(q))
        return np.stack(columns, axis=1)

    valleys = _valleys(q, mos, floor, ceiling)
    tried = [
        least_squares(residuals, start, jac=jacobian, bounds=(floor, ceiling), x_scale=ceiling - floor)
        for start in valleys
    ]
    # A search goes down only; where it stops early its place counts all the same.
    best = min(tried, key=lambda fit: float(fit.cost))
    # A predictor that falls with opinion is fitted best by a constant, which correlates with nothing.
    if np.ptp(_logistic(best.x, q)) < 1e-3 * spread:
        return Fit(None, "the best rising curve is a constant: scores do not rise with the labels")
    b = [float(value) for value in best.x]
    residual = float(np.sqrt(2 * best.cost / len(q)))
    logistic = Logistic(centre, scale, (b[0], b[1], b[2], b[3], b[4]), residual)
    converged = sum(bool(fit.success) for fit in tried)
    return Fit(logistic, f"{converged} of {len(tried)} searches converged")


def _valleys(q: Vector, mos: Vector, floor: Vector, ceiling: Vector) -> list[Vector]:
    """Return the parameters (5,) at the bottom of the map's valleys, the deepest of the map first."""
    values = np.unique(q)
    middles = (values[1:] + values[:-1]) / 2
    some = np.unique(np.linspace(0, len(middles) - 1, GAPS).round().astype(int))
    shifts = np.unique(np.concatenate([SHIFT, middles[some].clip(-FURTHEST, FURTHEST)]))
    steep, shift = (each.ravel() for each in np.meshgrid(STEEPNESS, shifts, indexing="ij"))
    cost = np.concatenate([_projected(q, mos, k, shifts, floor, ceiling)[1] for k in STEEPNESS])
    grid = cost.reshape(len(STEEPNESS), len(shifts))
    walled = np.pad(grid, 1, constant_values=np.inf)
    around = [
        walled[1 + i : 1 + i + grid.shape[0], 1 + j : 1 + j + grid.shape[1]]
        for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)
    ]  # fmt: skip
    low = np.flatnonzero((grid <= np.min(around, axis=0)).ravel())
    first = low[np.argsort(cost[low], kind="stable")][:VALLEYS]
    return [_deepest(q, mos, steep[i], shift[i], floor, ceiling) for i in first]


def _deepest(q: Vector, mos: Vector, steep: float, shift: float, floor: Vector, ceiling: Vector) -> Vector:
    """Return the parameters (5,) at the bottom of a valley, by maps that draw closer and closer."""
    wide, across = np.log(STEEPNESS[1] / STEEPNESS[0]), SHIFT[1] - SHIFT[0]
    around = np.linspace(-1, 1, 5)
    found = np.empty(5)
    for _ in range(CLOSER):
        rows = np.clip(steep * np.exp(wide * around), floor[1], ceiling[1])
        columns = np.clip(shift + across * around, floor[2], ceiling[2])
        parts = [_projected(q, mos, each, columns, floor, ceiling) for each in rows]
        cost = np.stack([part[1] for part in parts])
        i, j = np.unravel_index(int(cost.argmin()), cost.shape)
        steep, shift = float(rows[i]), float(columns[j])
        b1, b4, b5 = parts[i][0][j]
        found = np.array([b1, steep, shift, b4, b5])
        wide, across = NARROWER * wide, NARROWER * across
    return found


def _projected(
    q: Vector, mos: Vector, steep: float, shift: Vector, floor: Vector, ceiling: Vector
) -> tuple[Vector, Vector]:
    """Return b1, b4, b5 (m, 3) and the sum of squares (m,) that are best at one b2 and m values of b3.

    Of the bounds b1 >= 0 and b4 >= 0 every combination is tried; beyond the others the nearest point counts.
    """
    rise = expit(steep * (q - shift[:, None]))
    rise = rise - rise.mean(axis=1, keepdims=True)
    line, label = q - q.mean(), mos - mos.mean()
    rr, rl = (rise * rise).sum(axis=1), rise @ line
    ry, ll, ly = rise @ label, float(line @ line), float(line @ label)
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = rr * ll - rl * rl
        both = np.stack([(ry * ll - rl * ly) / whole, (rr * ly - rl * ry) / whole], axis=1)
        alone = np.stack([ry / rr, np.zeros_like(rr)], axis=1)
    straight = np.tile([0.0, ly / ll], (len(shift), 1))
    tried = np.nan_to_num(np.stack([both, alone, straight, np.zeros_like(both)]), nan=0.0)
    tried = np.clip(tried, 0, np.array([ceiling[0], ceiling[3]]))
    left = label - tried[..., :1] * rise - tried[..., 1:] * line
    cost = (left * left).sum(axis=-1)
    best = cost.argmin(axis=0)
    rows = np.arange(len(shift))
    b1, b4 = tried[best, rows].T
    mean = expit(steep * (q - shift[:, None])).mean(axis=1) - 0.5
    b5 = np.clip(mos.mean() - b1 * mean - b4 * q.mean(), floor[4], ceiling[4])
    return np.stack([b1, b4, b5], axis=1), cost[best, rows]
