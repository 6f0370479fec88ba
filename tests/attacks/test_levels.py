"""Eight-bit pixels as facts: whole grey levels, inside the ball, as near as the ball allows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_attacks import AttackError, BadAttackOption, ThreatModel, measure, nearest_levels, to_8_bits


def _pair(seed, dtype=torch.float32, spread=0.05):
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 256, (2, 3, 6, 7), generator=generator).to(dtype) / 255
    return clean + spread * torch.randn(clean.shape, generator=generator).to(dtype), clean


@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["inf", "2", "rmse"]),
    levels=st.sampled_from([1, 1.5, 4, 8]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=60, deadline=None)
def test_what_is_admitted_survives_an_8_bit_file(seed, norm, levels, dtype):
    """On 256 levels to the last bit, inside ball and box, and admitted again as it is."""
    images, clean = _pair(seed, dtype)
    size = levels / 255 * (11 if norm == "2" else 1)
    threat = ThreatModel(norm, size, pixels="8bit")
    admitted = threat.admit(images, clean)
    assert torch.equal(admitted, nearest_levels(admitted))
    assert threat.violation(admitted, clean) is None
    assert (threat.size(measure(admitted, clean)) <= size + 1e-6).all()
    assert torch.equal(threat.admit(admitted, clean), admitted)
    assert threat.constraint == "8bit"


def test_in_norm_inf_it_is_the_nearest_admissible_image():
    """Pixel by pixel no level of the ball lies nearer."""
    images, clean = _pair(1, torch.float64)
    admitted = ThreatModel("inf", 4 / 255, pixels="8bit").admit(images, clean)
    levels = torch.arange(256, dtype=torch.float64).view(-1, 1, 1, 1, 1) / 255
    distance = (levels - images).abs()
    distance[(levels - clean).abs() > 4.001 / 255] = torch.inf
    nearest = distance.amin(dim=0)
    assert torch.allclose((admitted - images).abs(), nearest, rtol=0, atol=1e-12)


def test_in_norm_2_a_change_below_half_a_level_is_not_lost():
    """Rounding to the nearest level would give the clean image back; ours keeps length and direction."""
    generator = torch.Generator().manual_seed(2)
    clean = torch.full((1, 3, 40, 40), 128 / 255, dtype=torch.float64)
    change = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    change = change / change.abs().max() * 0.49 / 255
    threat = ThreatModel("2", float(change.norm()), pixels="8bit")
    assert torch.equal(nearest_levels(clean + change), clean)
    kept = threat.admit(clean + change, clean) - clean
    assert float(kept.norm()) == pytest.approx(float(change.norm()), rel=0.01)
    assert float((kept * change).sum() / kept.norm() / change.norm()) > 0.3  # a sparse one of that length
    assert float(kept.norm()) <= float(change.norm())


def test_what_cannot_be_is_refused():
    """Less than one level cannot be moved, and a clean image between levels has no 8-bit neighbours."""
    with pytest.raises(BadAttackOption, match="less than one, 1/255"):
        ThreatModel("inf", 0.5 / 255, pixels="8bit")
    with pytest.raises(BadAttackOption, match="'float' or '8bit'"):
        ThreatModel("inf", 0.1, pixels="7bit")
    with pytest.raises(BadAttackOption, match="do not go together"):
        ThreatModel("inf", 0.1, pixels="8bit", ssim_floor=0.9)
    between = torch.full((1, 3, 4, 4), 0.5)
    for norm in ("inf", "2"):
        with pytest.raises(AttackError, match="multiples of 1/255"):
            ThreatModel(norm, 0.1, pixels="8bit").admit(between, between)


THREATS = {"inf": [0.25, 0.5, 1, 1.5, 2.55, 4], "2": [0.5, 11, 40], "rmse": [0.25, 1, 2.55]}
"""Radii in grey levels."""


@given(
    seed=st.integers(0, 10_000),
    which=st.sampled_from([(norm, levels) for norm, radii in THREATS.items() for levels in radii]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
@settings(max_examples=80, deadline=None)
def test_an_example_is_rounded_to_8_bits_without_leaving_its_ball(seed, which, dtype):
    """At every radius, whole grey levels or not, the rounded image is admissible and of 8 bits."""
    norm, levels = which
    threat = ThreatModel(norm, levels / 255)
    images, clean = _pair(seed, dtype, spread=0.3)
    example = threat.admit(images, clean)
    rounded = to_8_bits(example, clean, threat)
    assert torch.equal(rounded, nearest_levels(rounded))
    assert threat.violation(rounded, clean) is None
    if norm == "inf":
        grid = torch.arange(256, dtype=torch.float64).view(-1, 1, 1, 1, 1)
        distance = (grid - example.double() * 255).abs()
        distance[(grid - clean.double() * 255).abs() > levels + 1e-3] = torch.inf
        assert torch.allclose((rounded - example).double().abs() * 255, distance.amin(dim=0), atol=1e-3)
        assert levels >= 1 or torch.equal(rounded, clean)


def test_rounding_that_stays_in_the_ball_is_what_a_file_does():
    """At whole grey levels the nearest level is taken, in norm 2 wherever that is short enough."""
    images, clean = _pair(5)
    inside = ThreatModel("inf", 4 / 255).admit(images, clean)
    assert torch.equal(to_8_bits(inside, clean, ThreatModel("inf", 4 / 255)), nearest_levels(inside))
    small = ThreatModel("2", 3.0)
    assert torch.equal(to_8_bits(inside, clean, small), nearest_levels(inside))
    tight = ThreatModel("2", float(measure(inside, clean).l2.max()) * 0.9)
    example = tight.admit(images, clean)
    assert (measure(nearest_levels(example), clean).l2 > tight.epsilon).any()
    assert (measure(to_8_bits(example, clean, tight), clean).l2 <= tight.epsilon + 1e-6).all()


def test_rounding_keeps_the_similarity_that_is_asked():
    """Where the nearest levels break an SSIM floor the change is shortened, here not to nothing."""
    generator = torch.Generator().manual_seed(0)
    clean = nearest_levels(0.5 + 0.02 * torch.rand(4, 3, 24, 24, generator=generator))
    threat = ThreatModel("inf", 4 / 255, ssim_floor=0.95)
    example = threat.admit(clean + 0.01 * torch.randn(clean.shape, generator=generator), clean)
    assert threat.violation(nearest_levels(example), clean) is not None
    rounded = to_8_bits(example, clean, threat)
    assert threat.violation(rounded, clean) is None
    assert not torch.equal(rounded, clean)


def test_a_clean_image_between_levels_has_no_8_bit_neighbours():
    between = torch.full((1, 3, 4, 4), 0.5)
    for norm in ("inf", "2"):
        with pytest.raises(AttackError, match="multiples of 1/255"):
            to_8_bits(between, between, ThreatModel(norm, 0.1))
