"""How strong an attack was on every image, on one scale for all attacks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from iqa_harness.measures.correlation import Vector
from iqa_harness.measures.model_scores import Attacked, AttackKey, Judged

STEPPED = ("pgd", "mifgsm", "apgd")
"""Kinds of gradient attack that take many steps."""
BLACK_BOX = ("transfer", "square", "spsa")
OBJECTIVES = ("raise", "lower", "drift", "mse")
"""Objectives with a strength an image; those of a batch have none."""


class Pair(NamedTuple):
    """Two attacks on the same images, by strength; NaN if a score of one is none."""

    ratio: float
    """Mean of the first over mean of the second."""
    errors: float
    """Mean paired difference (first minus second) in standard errors."""


def strength(judged: Judged, objective: str, scores: Vector) -> Vector:
    """Return what an objective gained over the clean image on every image, in score ranges.

    `raise` and `lower`: the change in the wanted direction; `drift`: its size; `mse`: what was added to the
    distance from the label.
    """
    low, high = judged.score_range
    change: Vector = (scores - judged.clean) / (high - low)
    if objective == "raise":
        return change
    if objective == "lower":
        return -change
    if objective == "drift":
        return np.abs(change)
    attacked, clean = (np.abs((s - low) / (high - low) - judged.unit_mos) for s in (scores, judged.clean))
    return np.asarray(attacked - clean)


class Grouped(NamedTuple):
    """The objectives of one attack at one radius and number of steps."""

    kind: str
    reach: float
    """Steps times step size over the radius; infinite for an attack that chooses its own."""
    scores: dict[str, Vector]
    """Attacked scores by objective."""


Group = tuple[str, str, float, int]
"""attack, norm, epsilon, steps."""


def grouped(attacked: Mapping[AttackKey, Attacked], *, final: bool = True) -> dict[Group, Grouped]:
    """Collect attacks with all their objectives: those at full strength, or all."""
    groups: dict[Group, Grouped] = {}
    for key, found in attacked.items():
        if (final and not found.final) or key.objective not in OBJECTIVES:
            continue
        first = found.rows.iloc[0]
        # A transfer's own steps were taken on the surrogate.
        kind = str(first["kind"])
        free = kind not in ("pgd", "mifgsm")
        reach = math.inf if free else key.steps * float(first["step_size"]) / key.epsilon
        name = (key.attack, key.norm, key.epsilon, key.steps)
        groups.setdefault(name, Grouped(kind, reach, {})).scores[key.objective] = found.score
    return groups


def compare(judged: Judged, one: Grouped, other: Grouped) -> Pair | None:
    """Compare two attacks over `raise` and `lower`, else over what they share; None if they share none."""
    shared = [o for o in OBJECTIVES if o in one.scores and o in other.scores]
    shared = [o for o in shared if o in OBJECTIVES[:2]] or shared
    if not shared:
        return None
    a = total(judged, one, shared)
    b = total(judged, other, shared)
    difference = a - b
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    gap = float(difference.mean())
    if math.isnan(gap):
        return Pair(math.nan, math.nan)
    errors = gap / error if error > 0 else math.copysign(math.inf, gap) if gap else 0.0
    return Pair(_ratio(float(a.mean()), float(b.mean())), errors)


def total(judged: Judged, group: Grouped, objectives: Iterable[str]) -> Vector:
    """Return the mean strength over objectives, an image."""
    return np.asarray(np.mean([strength(judged, o, group.scores[o]) for o in objectives], axis=0))


def strongest(judged: Judged, groups: Sequence[Grouped], objective: str) -> Grouped | None:
    """Return the group with the largest mean strength in an objective, None if none has it.

    One whose strength is no number comes first: it must not hide behind another.
    """

    def size(group: Grouped) -> float:
        mean = float(strength(judged, objective, group.scores[objective]).mean())
        return math.inf if math.isnan(mean) else mean

    return max((g for g in groups if objective in g.scores), key=size, default=None)


def _ratio(a: float, b: float) -> float:
    """Return a / b for strengths; an attack of no strength is infinitely weaker than any, equal to none."""
    if b > 0:
        return a / b
    return 1.0 if a <= b else math.inf
