from collections import Counter
from itertools import product

import pytest

from iqa_harness.data.splits import balanced_order, split_scenes
from iqa_harness.errors import DataError


@pytest.mark.parametrize(
    ("n", "train", "val", "test"), [(28, 17, 4, 7), (27, 16, 4, 7), (8, 5, 1, 2), (5, 3, 1, 1), (3, 1, 1, 1)]
)
def test_split_sizes(n: int, train: int, val: int, test: int) -> None:
    """Scenes are shared out 17 : 4 : 7 of 28, at least one each, every scene once."""
    splits = split_scenes([f"scene{i}" for i in range(n)], seed=0)
    assert len(splits) == n
    assert Counter(splits.values()) == {"train": train, "val": val, "test": test}


def test_splits_depend_on_the_seed_alone() -> None:
    """The order in which scenes are given does not matter; the seed does."""
    scenes = [f"scene{i}" for i in range(28)]
    assert split_scenes(scenes, 0) == split_scenes(scenes[::-1], 0)
    assert split_scenes(scenes, 0) != split_scenes(scenes, 1)


def test_too_few_scenes() -> None:
    """Two scenes cannot fill three splits."""
    with pytest.raises(DataError, match="at least 3"):
        split_scenes(["a", "b"], 0)


def test_every_beginning_is_balanced() -> None:
    """Counts of scenes, types and levels differ by at most two in any beginning of the order."""
    items = list(product(range(7), range(12), range(5)))
    order = balanced_order(items, seed=0)
    assert sorted(order) == list(range(len(items)))
    for n in (8, 40, 100, 200):
        for factor, size in enumerate((7, 12, 5)):
            counts = Counter(items[i][factor] for i in order[:n])
            assert max(counts.values()) - min(counts[v] for v in range(size)) <= 2


def test_order_is_seeded() -> None:
    """The same seed gives the same order, another seed another one; no items give none."""
    items = list(product(range(4), range(4)))
    assert balanced_order(items, 0) == balanced_order(items, 0) != balanced_order(items, 1)
    assert balanced_order([], 0) == []
