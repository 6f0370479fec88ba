"""Eight-bit pixels as facts: whole grey levels, inside the ball, as near as the ball allows."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_attacks import AttackError, BadAttackOption, ThreatModel, measure, nearest_levels


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
