from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data import ImageSet, check_data, list_data, open_data
from iqa_harness.data.embedded.recipes import RECIPES
from iqa_harness.data.hashing import pixel_sha256, set_fingerprint
from iqa_harness.data.image_set import DataCard, ImageRecord
from iqa_harness.errors import DataError
from iqa_suites import EMBEDDED


class TwoImages(ImageSet):
    """Two images of zeros with whatever records a test gives them."""

    card = DataCard("two", "MOS", (0.0, 1.0), "", "")

    def __init__(self, *records: ImageRecord) -> None:
        self.records = records
        self.fingerprint = set_fingerprint("two", (0.0, 1.0), records)

    def read(self, index: int) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def subset(self, indices: object) -> ImageSet:
        raise NotImplementedError


RECORD = ImageRecord("a", 0.5, "test", "a", None, None, pixel_sha256(np.zeros((2, 2, 3), np.uint8)))


def test_listed_sets_have_cards() -> None:
    """Every listed set is a pseudo-MOS set in [0, 1] whose card names its photographs; nothing is built."""
    cards = {card.name: card for card in list_data()}
    assert {"demo-core", "smoke"} <= set(cards)
    for card in cards.values():
        assert card.label == "pseudo-MOS"
        assert card.mos_range == (0.0, 1.0)
        assert "astronaut" in card.source
        assert "pseudo-MOS" in card.notes[0]


def test_opening_by_name(smoke: ImageSet, smoke_cache: Path) -> None:
    """`smoke` opens by name from the given cache."""
    assert open_data("smoke", cache_dir=smoke_cache, progress=False).fingerprint == smoke.fingerprint


def test_opening_by_path(tmp_path: Path) -> None:
    """A path to a CSV file opens, with its MOS range."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "own.csv").write_text("path,mos\na.png,3\n")
    images = open_data(str(tmp_path / "own.csv"), mos_range=(1, 5))
    assert images.card.name == "own"
    assert images.card.mos_range == (1.0, 5.0)


@pytest.mark.parametrize(("name", "meant"), [("dmeo", "demo"), ("smok", "smoke"), ("demo_core", "demo-core")])
def test_unknown_name(name: str, meant: str) -> None:
    """An unknown name answers with the nearest one."""
    with pytest.raises(DataError, match=f"did you mean '{meant}'"):
        open_data(name)


def test_range_of_an_embedded_set_is_its_own(tmp_path: Path) -> None:
    """A MOS range for an embedded set is refused."""
    with pytest.raises(DataError, match="own MOS range"):
        open_data("smoke", cache_dir=tmp_path, mos_range=(0, 5))


def test_sound_set_has_no_problem() -> None:
    """Two sound records give an empty list."""
    assert check_data(TwoImages(RECORD, RECORD._replace(image_id="b", reference="b"))) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "appears twice"),
        ({"image_id": "b", "mos": 1.5}, "outside"),
        ({"image_id": "b", "mos": float("nan")}, "outside"),
        ({"image_id": "b", "split": "tset", "reference": "b"}, "unknown split"),
        ({"image_id": "b", "split": "train"}, "two splits"),
    ],
)
def test_each_problem_is_found(change: dict[str, object], expected: str) -> None:
    """Double ids, labels out of range, unknown splits and leaking references are named."""
    (problem,) = check_data(TwoImages(RECORD, RECORD._replace(**change)))
    assert expected in problem


def test_foreign_fingerprint_and_no_images() -> None:
    """A fingerprint of other records is a problem, and so is an empty set."""
    images = TwoImages(RECORD)
    images.records = ()
    assert check_data(images) == ["no images", "the fingerprint is not that of the records"]


def test_pixel_hash_sees_the_shape() -> None:
    """The same bytes in another shape are another image."""
    pixels = np.zeros((2, 8, 3), np.uint8)
    assert pixel_sha256(pixels) != pixel_sha256(pixels.reshape(4, 4, 3))
    assert pixel_sha256(pixels) == pixel_sha256(np.asfortranarray(pixels))


def test_a_suite_knows_which_sets_are_embedded():
    """It refuses a label scale for them without opening any."""
    assert tuple(RECIPES) == EMBEDDED
