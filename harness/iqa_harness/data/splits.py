"""Which scenes go where, and in which order images are visited."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Final

import numpy as np

from iqa_harness.data.image_set import SPLITS, Split
from iqa_harness.errors import DataError

SHARES: Final = (17, 4, 7)
"""Scenes for train, val and test of 28."""


def split_scenes(scenes: Sequence[str], seed: int, shares: tuple[int, int, int] = SHARES) -> dict[str, Split]:
    """Return the split of each scene, at least one for val and test each.

    Args:
        scenes: Names, in any order.
        seed: Of the shuffle.
        shares: Of train, val and test, in proportion.

    Raises:
        DataError: for fewer than three scenes.
    """
    if len(scenes) < 3:
        raise DataError(
            f"{len(scenes)} photographs found, at least 3 are needed: train, val and test share none"
        )
    return divide(scenes, shares, seed, ("train", "test", "val"))


def divide(
    names: Sequence[str], shares: tuple[int, int, int], seed: int, order: Sequence[Split] = SPLITS
) -> dict[str, Split]:
    """Return the split of each distinct name, in proportions, at least one where one is due.

    Args:
        names: In any order.
        shares: Of train, val and test, in proportion.
        seed: Of the shuffle.
        order: In which the shuffled names fill the splits.

    Raises:
        DataError: fewer names than splits.
    """
    distinct = set(names)
    wanted = [split for split, share in zip(SPLITS, shares, strict=True) if share]
    if len(distinct) < len(wanted):
        raise DataError(
            f"{len(distinct)} contents cannot be divided into {' and '.join(wanted)}; take split=all"
        )
    val, test = (max(1, round(len(distinct) * s / sum(shares))) if s else 0 for s in shares[1:])
    counts = {"train": len(distinct) - val - test, "val": val, "test": test}
    first, second, last = order
    ends = counts[first], counts[first] + counts[second]
    return {
        name: first if place < ends[0] else second if place < ends[1] else last
        for place, name in enumerate(seeded_order(distinct, seed))
    }


def balanced_order(factors: Sequence[tuple[Hashable, ...]], seed: int) -> list[int]:
    """Return an order of the items in which every beginning is balanced over each factor.

    Greedy: next comes the item whose values (scene, type, level, ...) have so far been visited least,
    relative to how often they occur at all; ties fall by a seeded shuffle. So batches of neighbours
    are varied and the first n items are a fair draw.

    Args:
        factors: For each item its values, one a factor.
        seed: Of the shuffle that breaks ties.
    """
    if not factors:
        return []
    shuffled = sorted(range(len(factors)), key=lambda i: _draw(seed, repr((i, factors[i]))))
    columns = []
    for column in zip(*(factors[i] for i in shuffled), strict=True):
        code = {value: number for number, value in enumerate(dict.fromkeys(column))}
        counts = Counter(column)
        columns.append((np.array([code[v] for v in column]), np.array([1 / counts[v] for v in code])))
    load = np.zeros(len(shuffled))
    for codes, share in columns:
        load += share[codes] / 2
    order = []
    for _ in shuffled:
        chosen = int(np.argmin(load))
        order.append(shuffled[chosen])
        for codes, share in columns:
            load[codes == codes[chosen]] += share[codes[chosen]]
        load[chosen] = np.inf
    return order


def seeded_order(names: Iterable[str], seed: int) -> list[str]:
    """Return names in an order that depends on the names and the seed alone."""
    return sorted(names, key=lambda name: (_draw(seed, name), name))


def _draw(seed: int, name: str) -> str:
    """Return a hash to sort by: a shuffle that no version of a random generator can change."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
