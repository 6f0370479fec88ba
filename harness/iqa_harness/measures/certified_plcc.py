"""A floor under PLCC where of every score only an interval is known.

Let b be the centred labels at unit length and P s the centred scores, so that PLCC = b.s / |P s|. With a
rising map of scores (the frozen logistic) the ends are mapped first, and the floor is one of the mapped
scores' PLCC.

**Where b.s can be negative** the minimum is a convex problem. For c in [0, 1] and any centred z with |z| <=
1 and b + c z = u, -b.s - c |P s| <= -u.s <= g = sum_i max(-u_i low_i, -u_i high_i), so that no choice has a
PLCC below -c - g / |P s|; and |P s| is at least the largest distance of two intervals over sqrt(2). At the
minimiser g is 0 for z = P s / |P s|. It lies on a curve of two numbers, s_i = m - k b_i cut off at the ends,
with m their mean and k = |P s|^2 / -b.s. Whatever the search found, what is returned is shown by its z.

**Where it cannot** the minimum is concave, and safe is: |P s| <= (|s - m|^2 / t + t) / 2 for all m and t >
0, so b.s - c |P s| is at least a sum over images that each end decides. If that is at least 0, no choice has
a PLCC below c. Where the ends chosen have the mean m and the length t themselves, it is exact.
"""

from __future__ import annotations

import numpy as np

from iqa_harness.measures.certified_srocc import Floor, settled
from iqa_harness.measures.correlation import Value, Vector, plcc

ROUNDING = 1e-9
"""Taken from every floor, and asked of every proof: sums of float64."""
_HALVINGS = 52
_TRIES = 12
_STEPS = 1e-9, 1e9
"""Where k is looked for: scores are within 1 of 0."""


def plcc_floor(low: Vector, high: Vector, mos: Vector) -> Floor:
    """Return a PLCC that no scores within given intervals go below.

    Args:
        low: (n,) lower ends, mapped as the scores are; -inf for none.
        high: (n,) upper ends, inf for none.
        mos: (n,) labels.

    Raises:
        ValueError: as of `settled`.

    Returns:
        The floor over all choices that have a PLCC, at least -1; undefined where no choice has one.
    """
    known = settled(low, high, mos, plcc, ROUNDING)
    if known is not None:
        return known
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return Floor(Value.of(-1.0), exact=False)
    b = mos - mos.mean()
    b /= np.linalg.norm(b)
    # A correlation knows no zero and no unit: digits are not lost to either.
    centre = float((low + high).mean()) / 2
    unit = max(float(np.abs(low - centre).max()), float(np.abs(high - centre).max()))
    low, high = (low - centre) / unit, (high - centre) / unit
    if float(np.where(b > 0, low, high) @ b) < 0:
        best, shown = _reversed(low, high, b)
        # No search finds less than the minimum: where it found what is shown, that is it.
        return Floor(Value.of(max(-1.0, shown - ROUNDING)), exact=best - shown < 1e-6)
    best, shown = _kept(low, high, b)
    return Floor(Value.of(shown - ROUNDING), exact=best - shown < 1e-6)


def _reversed(low: Vector, high: Vector, b: Vector) -> tuple[float, float]:
    """Return the lowest PLCC found, and one that nothing goes below."""
    if high.min() > low.max():
        return -1.0, -1.0
    # At the minimum k = |P s|^2 / -b.s; below that k the right side is larger, above it smaller.
    small, large = _STEPS
    for _ in range(_HALVINGS + 8):
        step = float(np.sqrt(small * large))
        s = _on_curve(low, high, b, step)
        falls = -float(b @ s)
        longer = falls <= 0 or float(((s - s.mean()) ** 2).sum()) > step * falls
        small, large = (step, large) if longer else (small, step)
    best = _of(s, b)
    if not best < 0:
        return 0.0, -1.0
    z = (s - s.mean()) / np.linalg.norm(s - s.mean())
    z = (z - z.mean()) * (1 - 1e-15)
    u = b - best * z
    over = max(0.0, float(np.maximum(-u * low, -u * high).sum())) + ROUNDING * 1e-3
    apart = float(low.max() - high.min()) / np.sqrt(2)
    return best, max(-1.0, best - over / apart) if apart > 0 else -1.0


def _on_curve(low: Vector, high: Vector, b: Vector, step: float) -> Vector:
    """Return the scores s = m - step * b cut off at the ends whose mean is m."""
    below, above = float(low.min()), float(high.max())
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        if float(np.clip(middle - step * b, low, high).mean()) > middle:
            below = middle
        else:
            above = middle
    return np.clip((below + above) / 2 - step * b, low, high)


def _kept(low: Vector, high: Vector, b: Vector) -> tuple[float, float]:
    """Return the lowest PLCC found where none is negative, and one that nothing goes below."""
    starts = [np.where(b > 0, low, high), (low + high) / 2]
    best, value = min(_of(s, b) for s in starts), 0.0
    for start in starts:
        s = start
        for _ in range(_TRIES):
            mean, length = float(s.mean()), float(np.linalg.norm(s - s.mean()))
            if length <= 0:
                break
            value = max(value, _shown_at(low, high, b, mean, length))
            best = min(best, _of(s, b))
            ends = [b * e - best * (e - mean) ** 2 / (2 * length) for e in (low, high)]
            after = np.where(ends[0] <= ends[1], low, high)
            if (after == s).all():
                break
            s = after
    return best, value


def _shown_at(low: Vector, high: Vector, b: Vector, mean: float, length: float) -> float:
    """Return the largest c for which the sum over images is not negative."""
    least, most = 0.0, 1.0
    for _ in range(_HALVINGS):
        c = (least + most) / 2
        ends = [b * e - c * (e - mean) ** 2 / (2 * length) for e in (low, high)]
        safe = float(np.minimum(*ends).sum()) - c * length / 2 >= ROUNDING * 1e-3
        least, most = (c, most) if safe else (least, c)
    return least


def _of(scores: Vector, b: Vector) -> float:
    """Return the PLCC of scores; inf where they are all equal."""
    centred = scores - scores.mean()
    length = float(np.linalg.norm(centred))
    return float(b @ centred) / length if length > 1e-12 else np.inf
