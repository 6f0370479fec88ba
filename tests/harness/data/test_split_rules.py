"""Who is in which split, by which rule."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data import open_data
from iqa_harness.data.public.layout import SplitRule
from iqa_harness.data.public.sets import LAYOUTS
from iqa_harness.data.splits import divide
from iqa_harness.errors import DataError

Tree = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "references", "counts"),
    [
        ("tid2013", 25, (15, 5, 5)),
        ("kadid10k", 81, (65, 8, 8)),
        ("csiq", 30, (18, 6, 6)),
        ("live", 29, (17, 6, 6)),
    ],
)
def test_official_numbers_of_references(name: str, references: int, counts: tuple[int, int, int]) -> None:
    """A whole set is divided as stated: TID2013's 25 references 15/5/5, and so on."""
    homes = Counter(divide([f"i{n:02}" for n in range(references)], LAYOUTS[name].shares, 0).values())
    assert (homes["train"], homes["val"], homes["test"]) == counts
    rule: SplitRule = "references"
    assert LAYOUTS[name].splits[0] == rule


def test_division_of_known_names() -> None:
    """The hash of seed and name decides: these names divide like this on every machine, for ever."""
    homes = divide(["i5", "i1", "i3", "i2", "i4", "i1"], (3, 1, 1), 0)
    assert homes == divide(["i1", "i2", "i3", "i4", "i5"], (3, 1, 1), 0)
    # sha256 of "0/i4" begins with 85, of i3 with 98, i2 9c, i1 bc, i5 e3.
    assert homes == {"i4": "train", "i3": "train", "i2": "train", "i1": "val", "i5": "test"}


def test_too_few_contents() -> None:
    """Two contents are refused with the way out."""
    with pytest.raises(DataError, match="train and val and test; take split=all"):
        divide(["a", "b", "a"], (3, 1, 1), 0)


def test_every_image_is_test(tree: Tree) -> None:
    """`split=all` makes every image a test image, the cross-data-set setting."""
    images = open_data(f"agiqa3k:{tree('agiqa3k')}?split=all", progress=False)
    assert {record.split for record in images.records} == {"test"}
    assert len(images.split("test")) == 12


def test_lists_of_the_authors(tree: Tree, scored_list: Callable[..., Path]) -> None:
    """JSON lists choose images and splits; labels stay the set's own; the card holds the lists' hashes."""
    root = tree("koniq10k")
    scored_list(root / "koniq_train.json", {f"{1000 + 37 * i}.jpg": 0 for i in range(5)})
    scored_list(root / "koniq_test.json", {f"{1000 + 37 * i}.jpg": 0 for i in (9, 11)})
    (root / "koniq10k_distributions_sets.csv").unlink()  # not needed then
    images = open_data(f"koniq10k:{root}?train=koniq_train.json&test=koniq_test.json", progress=False)
    assert Counter(r.split for r in images.records) == {"train": 5, "test": 2}
    assert {r.image_id: r.mos for r in images.records}["1333.jpg"] == 10 + 6.5 * 9
    assert "koniq_test.json (2 images, sha256 " in images.card.split_rule
    held_out = open_data(
        f"koniq10k:{root}?train=koniq_train.json&test=koniq_test.json&val_share=0.4", progress=False
    )
    assert Counter(r.split for r in held_out.records) == {"train": 3, "val": 2, "test": 2}
    assert held_out.fingerprint != images.fingerprint


def test_whole_contents_are_held_out(tree: Tree, scored_list: Callable[..., Path]) -> None:
    """Of a set with originals no picture of a validation image stays in training."""
    root = tree("kadid10k")
    names = [f"I{r:02}_10_{level:02}.png" for r in range(1, 7) for level in (1, 5)]
    scored_list(root / "train.json", dict.fromkeys(names[:8], 0))
    scored_list(root / "test.json", dict.fromkeys(names[8:], 0))
    images = open_data(f"kadid10k:{root}?train=train.json&test=test.json&val_share=0.25", progress=False)
    assert Counter(r.split for r in images.records) == {"train": 6, "val": 2, "test": 4}
    assert len({r.reference for r in images.split("val").records}) == 1
    assert "of train 2 images held out as val" in images.card.split_rule


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ({"1000.jpg": 1}, {"9.jpg": 1}, "test.json item 0: 9.jpg is no image of the set"),
        ({"1000.jpg": 1}, {"1000.jpg": 1}, "1000.jpg is in test and in train"),
    ],
)
def test_lists_that_do_not_fit(
    tree: Tree, scored_list: Callable[..., Path], train: object, test: object, expected: str
) -> None:
    """An image of no set and an image in two lists are found, by their place."""
    root = tree("koniq10k")
    scored_list(root / "train.json", train)
    scored_list(root / "test.json", test)
    with pytest.raises(DataError, match=expected):
        open_data(f"koniq10k:{root}?train=train.json&test=test.json", progress=False)


@pytest.mark.parametrize(
    "text",
    ["", "{}", '[{"image": "a.png"}]', '[{"score": 1}]', "[1]", '[{"image": 3, "score": 1}]', "[" * 100_000],
)
def test_bad_list(tmp_path: Path, text: str) -> None:
    """What is no list of {image, score} is one error with its path."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json"):
        open_data(f"json:{tmp_path}?test=x.json", progress=False)


def test_scores_of_a_list_are_labels(tmp_path: Path) -> None:
    """`json:` takes images by base name from anywhere below the folder, and the list's scores as labels."""
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for i, place in enumerate(("a.png", "deep/b.png", "deep/er/c.png")):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / place)
    items = [{"image": f"x/{name}", "score": 10.0 * i} for i, name in enumerate(("a.png", "b.png", "c.png"))]
    (tmp_path / "list.json").write_text(json.dumps(items))
    images = open_data(f"json:{tmp_path}?test=list.json&mos_range=0,100", progress=False)
    assert [(r.image_id, r.mos, r.split) for r in images.records] == [
        ("a.png", 0.0, "test"),
        ("b.png", 10.0, "test"),
        ("c.png", 20.0, "test"),
    ]
    assert images.read(2)[0, 0, 0] == 2
    items.append({"image": "gone.png", "score": 5})
    (tmp_path / "list.json").write_text(json.dumps(items))
    with pytest.raises(DataError, match=r"gone\.png: no such file"):
        open_data(f"json:{tmp_path}?test=list.json&mos_range=0,100", progress=False)


def test_csv_can_be_divided(tmp_path: Path) -> None:
    """A CSV without splits is divided by its references if asked; its own column counts otherwise."""
    rows = ["path,mos,reference"]
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        rows.append(f"{i}.png,{i},scene{i // 2}")
    (tmp_path / "own.csv").write_text("\n".join(rows) + "\n")
    images = open_data(f"{tmp_path / 'own.csv'}?split=references&split_seed=4&mos_range=0,20", progress=False)
    assert Counter(r.split for r in images.records) == {"train": 8, "val": 2, "test": 2}
    assert images.card.mos_range == (0, 20)
    assert images.card.split_rule == "references: 4/1/1 references for train/val/test, seed 4"
    assert {r.split for r in open_data(tmp_path / "own.csv", progress=False).records} == {"test"}


def test_shares_of_ones_own(tree: Tree) -> None:
    """`shares=8:0:2` divides as HyperIQA's code does: four fifths for training, none for validation."""
    images = open_data(f"koniq10k:{tree('koniq10k')}?split=random&shares=8:0:2&split_seed=3", progress=False)
    assert Counter(record.split for record in images.records) == {"train": 10, "test": 2}
    assert images.card.split_rule == "random: 10/0/2 images for train/val/test, seed 3"
    whole = divide([str(i) for i in range(10_073)], (8, 0, 2), 0)
    assert Counter(whole.values()) == {"train": 8058, "test": 2015}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("shares=8:2&split=random", "write train, val and test in proportion"),
        ("shares=a:0:2&split=random", "write train, val and test in proportion"),
        ("shares=0:1:1&split=random", "write train, val and test in proportion"),
        ("shares=8:0:2", "no effect on the split rule 'official'"),
    ],
)
def test_shares_that_are_none(tree: Tree, query: str, message: str) -> None:
    """Other than three whole numbers, none for training, or a rule that divides nothing is refused."""
    with pytest.raises(DataError, match=message):
        open_data(f"koniq10k:{tree('koniq10k')}?{query}", progress=False)
