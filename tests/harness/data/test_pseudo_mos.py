import numpy as np
import piq
import pytest
import torch
from numpy.typing import NDArray

from iqa_harness.data.embedded.pseudo_mos import PRISTINE_LABEL, fit_anchors, haarpsi_to, pseudo_mos

MEANS = (0.95, 0.9, 0.7, 0.6, 0.5)
HUMAN = (4.5, 4.0, 3.0, 2.0, 1.5)


def test_haarpsi_of_identical_images_is_one(photos: list[NDArray[np.uint8]]) -> None:
    """A photograph with itself gives 1, and so does a black image, which has no detail to weigh."""
    assert haarpsi_to(photos[0])(photos[0]) == pytest.approx(1.0, abs=1e-12)
    black = np.zeros((32, 32, 3), np.uint8)
    assert haarpsi_to(black)(black) == 1.0


@pytest.mark.parametrize("shape", [(128, 128), (33, 40), (40, 33), (17, 17)])
def test_haarpsi_is_piqs(photos: list[NDArray[np.uint8]], shape: tuple[int, int]) -> None:
    """The library's value in float64, at even and odd sides, of a small and a large difference."""
    reference = photos[0][: shape[0], : shape[1]]
    noise = np.random.default_rng(0).normal(0, 30, reference.shape)
    for distorted in ((reference + noise).clip(0, 255).astype(np.uint8), reference ^ 1):
        x, y = (
            torch.from_numpy(p.copy()).permute(2, 0, 1)[None].double() / 255 for p in (distorted, reference)
        )
        assert haarpsi_to(reference)(distorted) == pytest.approx(float(piq.haarpsi(x, y)), abs=1e-12)


def test_haarpsi_is_symmetric(photos: list[NDArray[np.uint8]]) -> None:
    """Which image is the reference does not matter, and two photographs have little in common."""
    one, other = haarpsi_to(photos[1])(photos[0]), haarpsi_to(photos[0])(photos[1])
    assert one == pytest.approx(other, abs=1e-12)
    assert one < 0.6


def test_haarpsi_sees_the_smallest_change(photos: list[NDArray[np.uint8]]) -> None:
    """One channel of one pixel changed by 1 counts, though little."""
    changed = photos[0].copy()
    changed[64, 64, 0] ^= 1
    assert 1e-12 < 1.0 - haarpsi_to(photos[0])(changed) < 1e-4


def test_level_means_get_the_human_means() -> None:
    """At the mean HaarPSI of a level the label is its human mean, and at 1 the pristine label."""
    anchors = fit_anchors(MEANS, HUMAN)
    assert [4 * pseudo_mos(x, anchors) + 1 for x in MEANS] == pytest.approx(HUMAN)
    assert pseudo_mos(1.0, anchors) == PRISTINE_LABEL == (4.65 - 1) / 4


def test_map_is_monotone_within_its_range() -> None:
    """Labels never fall with HaarPSI and stay in [0, 1], also far below the last level."""
    labels = [pseudo_mos(x, fit_anchors(MEANS, HUMAN)) for x in np.linspace(0, 1, 501)]
    assert (np.diff(labels) >= 0).all()
    assert min(labels) == 0.0
    assert max(labels) == PRISTINE_LABEL


def test_last_slope_goes_on() -> None:
    """Below the last point the slope of the last piece continues."""
    anchors = fit_anchors(MEANS, HUMAN)
    assert 4 * pseudo_mos(0.48, anchors) + 1 == pytest.approx(1.5 - 0.02 * (2.0 - 1.5) / (0.6 - 0.5))


def test_level_that_changes_nothing_is_no_anchor() -> None:
    """A level with HaarPSI 1 is left out, and so is one that does not fall."""
    anchors = fit_anchors((1.0, 0.9, 0.92, 0.6, 0.5), HUMAN)
    assert anchors.haarpsi == (1.0, 0.9, 0.6, 0.5)
    assert anchors.mos == (4.65, 4.0, 2.0, 1.5)


@pytest.mark.parametrize(
    ("means", "human"),
    [((0.9, 0.8), (4.0,)), ((0.9, 0.8), (3.0, 4.0)), ((0.9,), (4.7,)), ((1.0, 1.0), (4.0, 3.0))],
)
def test_impossible_anchors_are_refused(means: tuple[float, ...], human: tuple[float, ...]) -> None:
    """Unequal lengths, rising human means and levels that all look pristine raise ValueError."""
    with pytest.raises(ValueError, match=r"need one|no level"):
        fit_anchors(means, human)
