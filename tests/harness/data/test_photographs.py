from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iqa_harness.data.embedded import photographs as p
from iqa_harness.errors import DataError


def test_base_photographs_are_always_there() -> None:
    """The five photographs of required packages are installed, and every scene name is unique."""
    assert p.installed(p.BASE) == p.BASE
    assert len(p.BASE) == 5
    assert len({photograph.scene for photograph in p.ALL}) == len(p.ALL) == 27
    assert all(photograph.licence for photograph in p.ALL)


def test_missing_package_is_no_error_until_read() -> None:
    """A photograph of a package that is not installed is not there, and reading it says so."""
    nowhere = p.Photograph("x", "no_such_package", "x.png", "none")
    assert p.locate(nowhere) is None
    assert p.installed((nowhere, p.BASE[0])) == (p.BASE[0],)
    with pytest.raises(DataError, match="no_such_package"):
        p.read_crop(nowhere, 32)


def test_first_crop_is_the_centre() -> None:
    """A square photograph gives the whole of it, resized by Pillow's Lanczos."""
    path = p.locate(p.BASE[0])
    assert path is not None
    with Image.open(path) as image:
        assert image.size == (512, 512)
        expected = np.array(image.resize((64, 64), Image.Resampling.LANCZOS))
    assert np.array_equal(p.read_crop(p.BASE[0], 64), expected)


@pytest.mark.parametrize("photograph", p.BASE, ids=lambda photograph: photograph.scene)
def test_crops_differ_and_have_the_size(photograph: p.Photograph) -> None:
    """Three crops of a scene are square, natural (not flat) and different images."""
    crops = [p.read_crop(photograph, 256, number) for number in range(3)]
    assert {crop.shape for crop in crops} == {(256, 256, 3)}
    assert min(crop.std() for crop in crops) > 10
    assert not np.array_equal(crops[0], crops[1])
    assert not np.array_equal(crops[1], crops[2])


def test_no_crop_enlarges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of exactly the size gives itself in every crop, a smaller one is refused."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    monkeypatch.setattr(p, "locate", lambda _: tmp_path / "a.png")
    assert all(np.array_equal(p.read_crop(p.BASE[0], 64, crop), pixels) for crop in range(3))
    with pytest.raises(DataError, match="smaller"):
        p.read_crop(p.BASE[0], 65)
