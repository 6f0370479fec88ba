"""How near each attack comes to the best that any attack does with as many gradients.

After AttackBench (Cinà et al. 2024), with the cost on the axis where that has the size of the change: an
attack's curve is the most damage it had done up to a cost, the envelope is the highest curve at every cost,
and the optimality is the area under the one over the area under the other, from one gradient to twice the
cost of the dearest attack. The axis is logarithmic: each doubling of the cost counts the same. An attack that
stops early keeps what it did; one that reports no prefixes has done nothing before its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from iqa_harness.measures.correlation import Value, Vector

Curve = Mapping[float, float]
"""Cost in gradients an image, above 0, to the damage done by it, 0 for none."""
Name = TypeVar("Name")

FORWARD = 1 / 3
"""A score without its gradient, in gradients: the way back is two ways there."""


def gradients_of(forwards: float, backwards: float) -> float:
    """Return a cost in gradients.

    Args:
        forwards: model evaluations, those of the gradients among them.
        backwards: gradients.
    """
    return backwards + FORWARD * (forwards - backwards)


def optimality(curves: Mapping[Name, Curve]) -> dict[Name, Value]:
    """Return the optimality of every attack in [0, 1], 1 for one that is the envelope.

    Undefined if no attack does damage.
    """
    costs = np.array(sorted({max(1.0, cost) for curve in curves.values() for cost in curve}))
    if not len(costs):
        return {name: Value.none("no attack has a cost") for name in curves}
    widths = np.diff(np.log(np.append(costs, 2 * costs[-1])))
    done = {name: _best_so_far(curve, costs) for name, curve in curves.items()}
    envelope = np.max(list(done.values()), axis=0)
    area = float(envelope @ widths)
    if not area > 0:
        return {name: Value.none("no attack does damage") for name in curves}
    return {name: Value.of(min(1.0, float(each @ widths) / area)) for name, each in done.items()}


def _best_so_far(curve: Curve, costs: Vector) -> Vector:
    """Return the most damage up to each cost."""
    at = [max((damage for cost, damage in curve.items() if max(1.0, cost) <= c), default=0.0) for c in costs]
    return np.maximum(at, 0.0)
