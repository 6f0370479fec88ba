"""SSIM as facts: the field's two implementations agree, its slope is right, the floor is kept."""

import piq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import structural_similarity
from torch.utils._python_dispatch import TorchDispatchMode

from iqa_attacks import AttackError, BadAttackOption, Reference, ThreatModel, measure, ssim
from iqa_attacks.images import similarity


def _pair(seed, shape=(3, 3, 24, 31), spread=0.1):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(shape, generator=generator, dtype=torch.float64)
    change = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    return (clean + change).clamp(0, 1), clean


@pytest.mark.parametrize("spread", [1e-4, 0.02, 0.5])
def test_it_is_the_ssim_of_piq_and_scikit_image(spread):
    """Both libraries, told to use the paper's windows and no reduction in size, give the same numbers."""
    images, clean = _pair(0, spread=spread)
    theirs = piq.ssim(images, clean, data_range=1.0, reduction="none", downsample=False)
    assert torch.allclose(ssim(images, clean), theirs, rtol=0, atol=1e-10)
    for image, original, value in zip(images, clean, ssim(images, clean), strict=True):
        other = structural_similarity(
            original.numpy(), image.numpy(), data_range=1.0, channel_axis=0, gaussian_weights=True,
            sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert float(value) == pytest.approx(other, abs=1e-10)


def test_products_of_matrices_are_the_sums_of_shifted_maps():
    """What a card computes: the same means to rounding, down and across, of sides that differ."""
    maps = torch.randn(2, 3, 24, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    window = similarity._blur(torch.eye(11, dtype=torch.float64)[None])  # only its own weights
    weights = torch.exp(-(torch.arange(11, dtype=torch.float64) - 5).square() / (2 * 1.5**2))
    weights = weights / weights.sum()
    assert float(window) == pytest.approx(float(weights.square().sum()), rel=1e-14)
    found = similarity._by_matrices(maps, weights)
    assert found.shape == (2, 3, 14, 21)
    torch.testing.assert_close(found, similarity._blur(maps), rtol=0, atol=1e-14)


def test_an_image_is_wholly_similar_to_itself():
    """The similarity of equal images is 1, and no other image reaches it."""
    images, clean = _pair(1)
    assert torch.allclose(ssim(clean, clean), torch.ones(3).double(), atol=1e-12)
    assert (ssim(images, clean) < 1).all()


def test_its_slope_is_the_slope_of_its_values():
    """Automatic differentiation agrees with finite differences."""
    images, clean = _pair(2, (1, 1, 12, 13))
    assert torch.autograd.gradcheck(lambda x: ssim(x, clean), images.requires_grad_(), atol=1e-7)


class Made(TorchDispatchMode):
    """Notes how many numbers every operator makes, views aside."""

    def __init__(self):
        super().__init__()
        self.largest = self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result._base is None:
            self.largest = max(self.largest, result.numel())
            self.total += result.numel()
        return result


def test_versions_of_one_image_are_compared_one_by_one_and_its_own_moments_taken_once():
    """Memory does not grow with the number of versions; each costs less than with moments of its own."""
    images, clean = _pair(5, (20, 3, 32, 32), spread=0.05)
    clean = clean[:1]
    images = (images * 0.2 + clean * 0.8).float()
    made = {}
    for name, compared in (
        ("one", lambda: ssim(images[:1], clean)),
        ("shared", lambda: Reference(clean).ssim(images)),
        ("own", lambda: torch.cat([ssim(image.unsqueeze(0), clean) for image in images])),
    ):
        with Made() as made[name]:
            values = compared()
        assert torch.equal(values, ssim(images[: len(values)], clean))
    # The versions in float64 are the one thing made of all of them.
    assert made["shared"].largest <= max(images.numel(), made["one"].largest)
    assert made["shared"].total < 0.8 * made["own"].total


def test_pulling_to_the_floor_takes_the_memory_of_one_image():
    """Sixteen images need no larger maps than one, and each comes out as it does alone."""
    images, clean = _pair(6, (16, 3, 24, 24), spread=0.3)
    threat = ThreatModel("inf", 1.0, ssim_floor=0.9)
    with Made() as one:
        alone = threat.project(images[:1], clean[:1])
    with Made() as all_of_them:
        together = threat.project(images, clean)
    assert torch.equal(together[:1], alone)
    assert all_of_them.largest <= max(images.numel(), one.largest)


def test_an_image_smaller_than_the_window_is_refused():
    """Eleven pixels a side are needed, and the message says so."""
    small = torch.zeros(1, 3, 10, 40)
    with pytest.raises(AttackError, match="at least 11 x 11 pixels, not 10 x 40"):
        ssim(small, small)
    assert ssim(torch.zeros(1, 3, 11, 11), torch.zeros(1, 3, 11, 11)) == 1


@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["inf", "2", "rmse"]),
    floor=st.floats(0.3, 0.999),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=40, deadline=None)
def test_what_a_perceptual_budget_admits_lies_in_ball_box_and_above_the_floor(seed, norm, floor, dtype):
    """Whatever goes in; and what comes out goes through unchanged."""
    images, clean = (x.to(dtype) for x in _pair(seed, (2, 3, 12, 14), spread=0.6))
    threat = ThreatModel(norm, {"inf": 0.3, "2": 4.0, "rmse": 0.2}[norm], ssim_floor=floor)
    inside = threat.admit(images, clean)
    assert threat.violation(inside, clean) is None
    assert (threat.size(measure(inside, clean)) <= threat.epsilon + 1e-6).all()
    assert inside.min() >= 0
    assert inside.max() <= 1
    assert (ssim(inside, clean) >= floor).all()
    again = threat.admit(inside, clean)
    assert torch.allclose(again, inside, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-12)


def test_the_floor_is_used_up():
    """A change that is too visible is shortened no more than it must be; one that is not is left alone."""
    images, clean = _pair(3, spread=0.3)
    threat = ThreatModel("inf", 1.0, ssim_floor=0.9)
    pulled = threat.project(images, clean)
    assert torch.allclose(ssim(pulled, clean), torch.full((3,), 0.9).double(), atol=1e-3)
    assert torch.equal(threat.project(pulled, clean), pulled)
    assert threat.constraint == "ssim>=0.9"
    assert "SSIM" in threat.violation(images, clean)


@pytest.mark.parametrize("floor", [0.0, 1.0, -0.5, float("nan")])
def test_a_floor_out_of_range_is_refused(floor):
    """A floor lies between 0 and 1, ends excluded."""
    with pytest.raises(BadAttackOption, match="ssim_floor"):
        ThreatModel("inf", 0.1, ssim_floor=floor)
