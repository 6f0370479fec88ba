"""DyT, rescaler and GateFuse: formulas by hand, bounds by property."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_models.srm import SRMConfig
from iqa_models.srm.gate_fuse import DyT, GateFuse, balance_loss, cap_gain, entropy_loss, map_rms
from iqa_models.srm.rescaler import Rescaler, scale_loss, vector_rms
from iqa_models.srm.tokens import merge_heads, normalise_tokens, split_heads, to_maps, to_tokens


def randn(*shape, seed=0):
    """Draw normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_tokens_and_heads_fold_back():
    """Maps to tokens to heads and back is the identity, and a token is a pixel."""
    maps = randn(2, 8, 3, 5)
    tokens = to_tokens(maps)
    assert torch.equal(tokens[1, 7], maps[1, :, 1, 2])
    assert torch.equal(to_maps(tokens, 3, 5), maps)
    assert torch.equal(merge_heads(split_heads(tokens, 4)), tokens)
    assert torch.equal(split_heads(tokens, 4)[0, 1, 6], tokens[0, 6, 2:4])


def test_normalised_tokens_have_length_one_and_zeros_stay():
    """Divided by length plus 1e-6: unit length, and zero tokens with a finite gradient."""
    tokens = torch.stack([10 * randn(8), torch.zeros(8)]).requires_grad_()
    unit = normalise_tokens(tokens)
    torch.testing.assert_close(unit.detach().norm(dim=1), torch.tensor([1.0, 0.0]))
    (gradient,) = torch.autograd.grad(unit.sum(), tokens)
    assert torch.isfinite(gradient).all()


def test_dyt_is_a_scaled_tanh_with_its_first_values():
    """It is w tanh(a x) + b with a = 0.5, w = 1, b = 0 at first."""
    layer, x = DyT(SRMConfig(width=8)), randn(2, 3, 8)
    torch.testing.assert_close(layer(x), torch.tanh(0.5 * x))
    assert [tuple(p.shape) for p in layer.parameters()] == [(), (8,), (8,)]


def test_the_vector_rms_is_the_length_of_centred_tokens():
    """It is the root mean square length of tokens minus their mean, head by head over batch and tokens."""
    heads = randn(3, 2, 5, 4)
    for head in range(2):
        tokens = heads[:, head].reshape(-1, 4)
        expected = (tokens - tokens.mean(0)).square().sum(1).mean().sqrt()
        torch.testing.assert_close(vector_rms(heads)[head], expected)


def test_the_running_scale_moves_in_training_only():
    """In training it is 0.99 old + 0.01 new; in eval mode it does not move by a bit."""
    rescaler, heads = Rescaler(SRMConfig(width=8, heads=2)), randn(3, 2, 5, 4)
    assert torch.equal(rescaler.ema, torch.full((2,), 2.0))
    rescaler.eval()(heads)
    assert torch.equal(rescaler.ema, torch.full((2,), 2.0))
    rescaler.train()(heads)
    torch.testing.assert_close(rescaler.ema, 0.99 * torch.full((2,), 2.0) + 0.01 * vector_rms(heads))


def test_gamma_starts_at_one_and_is_bounded_in_training_only():
    """exp(theta) multiplies; a training pass brings theta back to its bounds, an eval pass leaves it."""
    rescaler, heads = Rescaler(SRMConfig(width=8, heads=2)), randn(3, 2, 5, 4)
    assert torch.equal(rescaler(heads)[0], heads)
    with torch.no_grad():
        rescaler.theta.copy_(torch.tensor([5.0, -5.0]))
    assert rescaler.eval()(heads)[2].tolist() == pytest.approx([math.exp(5), math.exp(-5)])
    assert rescaler.train()(heads)[2].tolist() == pytest.approx([10, 0.1])


def test_the_scale_loss_equals_a_hand_computed_value():
    """Mean of squared logarithms of gamma s / sqrt d; nothing at gamma s = sqrt d."""
    loss = scale_loss(torch.tensor([1.0, 2.0]), torch.tensor([2 * math.e - 1e-6, 1.0 - 5e-7]), 4)
    assert loss.item() == pytest.approx(0.5, abs=1e-6)


def test_the_scale_loss_drives_gamma_s_to_sqrt_d():
    """Gradient descent on the loss alone brings gamma times the running scale to sqrt d in every head."""
    rescaler = Rescaler(SRMConfig(width=16, heads=2, ema_momentum=0.5)).train()
    heads = randn(4, 2, 50, 8) * torch.tensor([0.3, 3.0])[:, None, None]
    optimiser = torch.optim.SGD(rescaler.parameters(), lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        rescaler(heads)
        rescaler.loss().backward()
        optimiser.step()
    reached = rescaler.gamma.detach() * vector_rms(heads)
    torch.testing.assert_close(reached, torch.full((2,), math.sqrt(8)), rtol=1e-3, atol=0)


def test_the_running_scale_is_a_constant_of_the_loss():
    """The loss trains gamma and nothing else: heads get no gradient from it."""
    rescaler, heads = Rescaler(SRMConfig(width=8, heads=2)).train(), randn(3, 2, 5, 4).requires_grad_()
    rescaler(heads)
    loss = rescaler.loss()
    loss.backward()
    assert heads.grad is None
    assert rescaler.theta.grad is not None


def test_entropy_and_balance_losses_equal_hand_computed_values():
    """Two samples, one uniform and one nearly one-hot, against the formulas by hand."""
    weights = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.9, 0.05, 0.05]])
    entropy = -(weights * weights.log()).sum(1)
    low = -(0.9 * math.log(0.9) + 0.1 * math.log(0.05))
    floor = 0.5 * math.log(3)
    assert entropy_loss(entropy, floor).item() == pytest.approx((floor - low) / 2, rel=1e-5)
    means = [(1 / 3 + 0.9) / 2, (1 / 3 + 0.05) / 2, (1 / 3 + 0.05) / 2]
    assert balance_loss(weights).item() == pytest.approx(sum((m - 1 / 3) ** 2 for m in means), rel=1e-5)


def test_one_hot_routing_has_no_entropy_and_a_finite_gradient():
    """Logits so far apart that weights are exactly 0: entropy 0, and gradients finite."""
    gate = GateFuse(3, SRMConfig(width=4))
    logits = torch.tensor([[500.0, 0, -500]], requires_grad=True)
    fused = gate.fuse([randn(1, 4, 7, 7) for _ in range(3)], logits)
    assert fused.entropy.item() == 0
    (gradient,) = torch.autograd.grad(sum(gate.losses(fused).values()), logits)
    assert torch.isfinite(gradient).all()


def test_fusion_is_the_weighted_sum_of_pooled_stages():
    """Without cap the output is sum pi_s U_s, with pi the softmax of logits over the temperature."""
    gate = GateFuse(3, SRMConfig(width=4, gain_cap=False, temperature=2.0))
    stages, logits = [randn(2, 4, 7, 7, seed=s) for s in range(3)], randn(2, 3)
    weights = torch.softmax(logits / 2, dim=1)
    expected = sum(weights[:, s, None, None, None] * stages[s] for s in range(3))
    torch.testing.assert_close(gate.fuse(stages, logits).output, expected)


@settings(max_examples=60, deadline=None)
@given(
    exponent=st.floats(-40, 38),
    seed=st.integers(0, 2**16),
    spread=st.floats(0, 20),
    beta=st.sampled_from([0.5, 2.0, 7.0]),
)
def test_the_fused_map_never_exceeds_its_gain(exponent, seed, spread, beta):
    """||F_out||_rms <= beta for maps of any size and unevenness, each sample by itself."""
    maps = randn(3, 4, 7, 7, seed=seed)
    maps = maps * torch.exp(-spread * randn(3, 4, 7, 7, seed=seed + 1).abs())
    maps = (maps / maps.abs().amax()) * torch.tensor([1, 1e-3, 0.0])[:, None, None, None] * 10.0**exponent
    capped, _, factor = cap_gain(maps, beta)
    assert (factor <= 1).all()
    assert (map_rms(capped.double()) <= beta * (1 + 1e-6)).all()
    gate = GateFuse(3, SRMConfig(width=4, beta=beta))
    output = gate.fuse([maps, maps.flip(0), maps.roll(1, 0)], randn(3, 3, seed=seed)).output
    assert (map_rms(output.double()) <= beta * (1 + 1e-6)).all()


def test_the_cap_leaves_small_maps_alone_and_has_a_gradient_at_zero():
    """Below beta the factor is exactly 1; a map of zeros passes with a finite gradient."""
    small = 0.1 * randn(1, 4, 7, 7)
    assert torch.equal(cap_gain(small, 2.0)[0], small)
    zeros = torch.zeros(1, 4, 7, 7, requires_grad=True)
    capped, rms, factor = cap_gain(zeros, 2.0)
    (gradient,) = torch.autograd.grad(capped.sum() + rms.sum() + factor.sum(), zeros)
    assert torch.equal(gradient, torch.ones_like(zeros))


def test_the_gradient_of_the_capped_map_is_right():
    """Gradcheck passes above the cap, where factor and map both vary."""
    maps = (5 * randn(2, 2, 3, 3).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: cap_gain(m, 2.0)[0], (maps,))
