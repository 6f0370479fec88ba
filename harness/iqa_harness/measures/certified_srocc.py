"""A floor under SROCC where of every score only an interval is known.

**What is minimised.** Let a_i be the centred midranks of the labels, R_i those of the scores, A^2 = sum
a_i^2 and D = sum R_i^2, so that SROCC = sum a_i R_i / (A sqrt(D)). D is at most F = (n^3 - n) / 12, less
where scores tie. Image i is surely below j if its interval ends before that of j begins.

**Why it is safe.** Let m be the minimum of N = sum a_i p_i over all orders p without ties in which whatever
is surely below comes first, or anything below that minimum. Then no choice of scores has an SROCC below m /
A^2 if m is negative, and below m / (A sqrt(F)) if it is not:

Take any choice with its ties and break them, in every group against the order of the labels; equal labels
stay tied. That adds e to the ranks, orthogonal to R, and takes c = -sum a_i e_i from N. Two labels lie at
least as far apart in a as in e, so c >= E = |e|^2; and D + E >= A^2, since what is still tied is tied in the
labels, too. The new order respects what is sure, so m <= N - c. If N >= 0 then m < 0 is below it, and m >= 0
gives N >= m, D <= F. If x = -N > 0 then x <= D by the rearrangement inequality (a is a mean of strict
orders), which gives x sqrt(D + E) <= (x + E) sqrt(D), and so x / sqrt(D) <= (x + E) / sqrt(D + E) <= -m / A.

**How m is found.** Images whose intervals hang together form components; components are in a fixed order,
and N is a sum over them. A component is exact if nothing in it is sure (labels reversed), or if its orders
are few enough to go through, down-set by down-set. A larger one is relaxed: for any two images either may
come first, under the implications "j before i, and i surely below k, so j before k". Half-integral; one
minimum cut has its value. One with too many pairs for that is relaxed further, to pairs without
implications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from iqa_harness.measures.correlation import Value, Vector, average_ranks, degenerate, srocc

SEARCHED = 50_000
"""Steps of the search through the orders of one component; beyond it is relaxed."""
RELAXED = 200_000
"""Pairs of a component that can come in either order, for one minimum cut; beyond, pairs are taken alone."""
ROUNDING = 1e-12
"""Taken from every floor: sums and roots in float64."""


class Floor(NamedTuple):
    """What a correlation cannot fall below."""

    value: Value
    exact: bool
    """Whether some choice of scores within the intervals comes as near to it as one likes."""


def settled(
    low: Vector,
    high: Vector,
    mos: Vector,
    measure: Callable[[Vector, Vector], Value],
    rounding: float,
) -> Floor | None:
    """Return the floor where nothing is open: no correlation at all, or every score known; else None.

    Args:
        low: (n,) lower ends.
        high: (n,) upper ends.
        mos: (n,) labels.
        measure: the correlation of scores and labels.
        rounding: taken from the floor.

    Raises:
        ValueError: other lengths, a NaN, or an interval whose end lies before its beginning.
    """
    if not len(low) == len(high) == len(mos):
        raise ValueError(f"{len(low)} and {len(high)} ends of intervals, {len(mos)} labels")
    if np.isnan(low).any() or np.isnan(high).any() or not (low <= high).all():
        raise ValueError("an interval is no interval: an end is NaN, or the high one below the low one")
    reason = degenerate(np.arange(len(mos), dtype=np.float64), mos)
    if reason:
        return Floor(Value.none(reason), exact=True)
    if (low < high).any():
        return None
    value = measure(low, mos)
    below = value if value.value is None else Value.of(max(-1.0, value.value - rounding))
    return Floor(below, exact=True)


def srocc_floor(low: Vector, high: Vector, mos: Vector) -> Floor:
    """Return an SROCC that no scores within given intervals go below.

    Args:
        low: (n,) lower ends, -inf for none.
        high: (n,) upper ends, inf for none.
        mos: (n,) labels, ties allowed.

    Raises:
        ValueError: as of `settled`.

    Returns:
        The floor over all choices that have an SROCC, at least -1; undefined where no choice has one.
    """
    known = settled(low, high, mos, srocc, ROUNDING)
    if known is not None:
        return known
    n = len(mos)
    weight = average_ranks(mos) - (n + 1) / 2
    least, exact = 0.0, True
    for first, images in _components(low, high):
        part, searched = _least(weight[images], low[images], high[images])
        least += part + first * float(weight[images].sum())
        exact &= searched
    square, full = float(weight @ weight), (n**3 - n) / 12
    found = least / square if least < 0 else least / float(np.sqrt(square * full))
    # Ends that touch can tie but not pass each other.
    touching = np.searchsorted(np.sort(low), high, "right") - np.searchsorted(np.sort(low), high, "left")
    exact = exact and square == full and not (touching > (low == high)).any()
    return Floor(Value.of(max(-1.0, found - ROUNDING)), bool(exact))


def _components(low: Vector, high: Vector) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Yield the images of each component by rising lower end, and how many are below all of them."""
    order = np.argsort(low, kind="stable")
    reach = np.maximum.accumulate(high[order])
    starts = [0, *(np.flatnonzero(low[order][1:] > reach[:-1]) + 1), len(order)]
    for first, end in pairwise(starts):
        yield int(first), order[first:end]


def _least(weight: Vector, low: Vector, high: Vector) -> tuple[float, bool]:
    """Return the least sum of weights times ranks from 1 in a component, and whether it is exact."""
    if high.min() >= low.max():  # any order is possible
        return float(-np.sort(-weight) @ np.arange(1, len(weight) + 1)), True
    found = _searched(weight, low, high)
    return (found, True) if found is not None else (_relaxed(weight, low, high), False)


def _searched(weight: Vector, low: Vector, high: Vector) -> float | None:
    """Go through all orders: of every down-set the least sum is kept. None if there are too many."""
    n, weights = len(weight), [float(w) for w in weight]
    layer, work = {0: 0.0}, 0
    lows, highs = low.tolist(), high.tolist()
    by_high = sorted(range(n), key=highs.__getitem__)
    for rank in range(1, n + 1):
        after: dict[int, float] = {}
        for placed, so_far in layer.items():
            end = next(highs[i] for i in by_high if not placed >> i & 1)
            i = (~placed & (placed + 1)).bit_length() - 1  # the first that is not placed
            while i < n and lows[i] <= end:
                if not placed >> i & 1:
                    then, value = placed | 1 << i, so_far + weights[i] * rank
                    if value < after.get(then, np.inf):
                        after[then] = value
                    work += 1
                i += 1
        layer = after
        if work > SEARCHED:
            return None
    return next(iter(layer.values()))


def _relaxed(weight: Vector, low: Vector, high: Vector) -> float:
    """Return a number at most the least sum: pair by pair, with the implications of what is sure."""
    n = len(weight)
    below = high[:, None] < low[None, :]
    free = ~(below | below.T | np.eye(n, dtype=bool))
    # Twice the gain of i before j in whole quarters: centred midranks are multiples of a half.
    ahead = np.rint(2 * (weight[:, None] - weight[None, :])).astype(np.int64)
    middle = float(weight.sum()) * (n + 1) / 2
    sure = -float(ahead[below].sum())
    if free.sum() > 2 * RELAXED:
        return middle + (sure - float(np.abs(ahead[free]).sum()) / 2) / 4
    gain = ahead[free]
    most = int(gain[gain > 0].sum())
    return middle + (sure - (most - _cut(free, gain, low, high))) / 4


def _cut(free: NDArray[np.bool_], gain: NDArray[np.int64], low: Vector, high: Vector) -> int:
    """Return what must be given up of all gains, so that the choices are closed under the implications.

    A node a pair in an order, (i, j) for i before j. In the row of i, (i, j) implies (i, k) for every k that
    begins after j ends; in the column of j, (i, j) implies (h, j) for every h that ends before i begins.
    Both are chains, so a row or column needs one node more a pair, and no edge a pair of pairs.
    """
    first, second = np.nonzero(free)
    count, n = len(first), len(free)
    place = np.full((n, n), -1)
    place[first, second] = np.arange(count)
    edges: list[NDArray[np.int64]] = []
    for flip in (False, True):
        start = count * (1 + flip)
        for i in range(n):
            others = np.flatnonzero(free[:, i] if flip else free[i])
            keys, asked = (-high[others], -low[others]) if flip else (low[others], high[others])
            ranked = np.argsort(keys, kind="stable")
            pairs = place[others, i] if flip else place[i, others]
            chain = start + np.arange(len(others))
            start += len(others)
            edges += [np.stack([chain, pairs[ranked]]), np.stack([chain[:-1], chain[1:]])]
            to = np.searchsorted(keys[ranked], asked, side="right")
            inside = to < len(others)
            edges.append(np.stack([pairs[inside], chain[to[inside]]]))
    source, sink = 3 * count, 3 * count + 1
    gains, costs = np.flatnonzero(gain > 0), np.flatnonzero(gain < 0)
    edges += [np.stack([np.full(len(gains), source), gains]), np.stack([costs, np.full(len(costs), sink)])]
    tails, heads = np.concatenate(edges, axis=1)
    never = int(gain[gains].sum()) + 1
    capacity = np.full(len(tails), never)
    capacity[len(tails) - len(gains) - len(costs) :] = np.abs(np.concatenate([gain[gains], gain[costs]]))
    graph = csr_array((capacity.astype(np.int32), (tails, heads)), shape=(sink + 1, sink + 1))
    return int(maximum_flow(graph, source, sink).flow_value)
