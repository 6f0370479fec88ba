"""Measures of an attack besides the correlations, each a formula of vectors over images.

Scores are higher-is-better; clean scores f, attacked scores f', labels y. A measure that does not exist
is undefined with its reason, as in `metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from iqa_harness.measures.correlation import Value, Vector, srocc

R_FLOOR = 1e-3
"""Smallest |f' - f| in an R score, in score ranges of the card: an unmoved score would give infinity."""


def self_srocc(clean: Vector, attacked: Vector) -> Value:
    """Spearman's correlation of clean with attacked scores; no labels, so never called SROCC."""
    return srocc(attacked, clean)


def gain(clean: Vector, attacked: Vector, kind: str) -> Value:
    """Return the mean change of the score.

    `signed`: mean(f' - f) / (max f - min f); `absolute`: mean |f' - f| over the same; `iqr`: mean
    |f' - f| over the interquartile range of f. The denominator is of clean scores on these images.
    """
    change = attacked - clean if kind == "signed" else np.abs(attacked - clean)
    if kind == "iqr":
        low, high = np.percentile(clean, [25, 75])
        name = "interquartile range"
    else:
        low, high = clean.min(), clean.max()
        name = "range"
    if not high > low:
        return Value.none(f"the clean scores have no {name}")
    return Value.of(float(change.mean()) / float(high - low))


def kept(clean: Vector, attacked: Vector, clean_later: Vector, attacked_later: Vector) -> Value:
    """Share of the mean absolute change that is left once both images went through a file.

    mean |f(later x') - f(later x)| / mean |f(x') - f(x)|; above 1 if the file made the change larger.
    """
    change = float(np.abs(attacked - clean).mean())
    if not change > 0:
        return Value.none("no score was moved")
    return Value.of(float(np.abs(attacked_later - clean_later).mean()) / change)


def mae(mapped: Vector, mos: Vector) -> Value:
    """Mean |g(f') - y| on the label scale, g being the frozen logistic."""
    return Value.of(float(np.abs(mapped - mos).mean()))


def rmse_score(mapped: Vector, mos: Vector) -> Value:
    """Root mean square of g(f') - y on the label scale."""
    return Value.of(float(np.sqrt(((mapped - mos) ** 2).mean())))


def r_scores(clean: Vector, attacked: Vector, score_range: tuple[float, float]) -> Vector:
    """R score of every image: log10(max(b1 - f, f - b2) / |f' - f|), higher is more robust.

    b1 and b2 are the upper and lower end of the card's score range. |f' - f| is at least R_FLOOR of it, so
    that no image has more than 3 for a clean score inside the range.
    """
    low, high = score_range
    room = np.maximum(high - clean, clean - low)
    moved = np.maximum(np.abs(attacked - clean), R_FLOOR * (high - low))
    return np.asarray(np.log10(room / moved), dtype=np.float64)


def pair_inversion(scores: Vector, mos: Vector) -> Value:
    """Share of pairs y_i > y_j with f_i < f_j; equal scores count half."""
    from scipy.stats import kendalltau  # a third of a second, which commands without it need not wait

    pairs = _pairs(mos)
    if not pairs:
        return Value.none("no two labels differ")
    # Kendall's tau-b holds the surplus of pairs in order over those out of it, a whole number.
    spread = math.sqrt(pairs) * math.sqrt(_pairs(scores))
    surplus = round(float(kendalltau(scores, mos).statistic) * spread) if spread else 0
    return Value.of((pairs - surplus) / (2 * pairs))


def _pairs(values: Vector) -> int:
    """Return the number of pairs of values that differ."""
    together = np.unique(values, return_counts=True)[1]
    return (len(values) * (len(values) - 1) - int((together * (together - 1)).sum())) // 2


def psnr_mean(rmse: Vector) -> Value:
    """Mean over images of -20 log10(rmse), pixels in [0, 1]."""
    unmoved = int((rmse == 0).sum())
    if unmoved:
        return Value.none(f"{unmoved} of {len(rmse)} examples are the clean image: infinite")
    return Value.of(float((-20 * np.log10(rmse)).mean()))


def drift_auc(radii: Sequence[float], drifts: Sequence[float]) -> Value:
    """Area under mean |f' - f| (in score ranges) against the radius, divided by the largest radius.

    The curve starts at (0, 0) and is straight between the radii: a mean drift over radii.
    """
    if not radii:
        return Value.none("no radius")
    order = np.argsort(radii)
    x = np.concatenate([[0.0], np.asarray(radii, dtype=np.float64)[order]])
    y = np.concatenate([[0.0], np.asarray(drifts, dtype=np.float64)[order]])
    return Value.of(float(np.trapezoid(y, x) / x[-1]))


def mean_of(values: Vector, what: str) -> Value:
    """Mean of values (n,), undefined if one is missing."""
    missing = int((~np.isfinite(values)).sum())
    if missing or not len(values):
        return Value.none(f"{missing} of {len(values)} images have no {what}")
    return Value.of(float(values.mean()))
