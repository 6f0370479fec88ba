"""The loss and the learning rate as facts."""

import numpy as np
import pytest
import scipy.stats
import torch

from iqa_harness.training.losses import one_cycle, plcc_loss, quality_loss


def test_the_correlation_loss_is_one_minus_pearson():
    """On random vectors the loss equals 1 - scipy's Pearson correlation."""
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=16), rng.uniform(size=16)
    expected = 1 - scipy.stats.pearsonr(scores, targets).statistic
    assert plcc_loss(torch.tensor(scores), torch.tensor(targets)).item() == pytest.approx(expected, abs=1e-6)


def test_the_correlation_loss_ends_at_zero_and_two():
    """Perfect agreement costs 0, perfect disagreement 2, whatever offset and scale."""
    targets = torch.linspace(0, 1, 8, dtype=torch.float64)
    assert plcc_loss(5 + 3 * targets, targets).item() == pytest.approx(0, abs=1e-6)
    assert plcc_loss(5 - 3 * targets, targets).item() == pytest.approx(2, abs=1e-6)


@pytest.mark.parametrize("size", [1, 8])
def test_constant_scores_cost_one_and_have_a_finite_gradient(size):
    """Constant scores, a batch of one included, cost exactly 1 and give a finite gradient."""
    scores = torch.full((size,), 0.3, requires_grad=True)
    loss = plcc_loss(scores, torch.linspace(0, 1, size))
    loss.backward()
    assert loss.item() == 1
    assert torch.isfinite(scores.grad).all()


def test_the_loss_adds_its_two_parts():
    """Errors of 0.05 and 0.5 cost smooth L1 in closed form, plus the weighted PLCC part."""
    scores, targets = torch.tensor([0.05, 1.5]), torch.tensor([0.0, 1.0])
    smooth = (0.5 * 0.05**2 / 0.1 + (0.5 - 0.05)) / 2
    assert quality_loss(scores, targets, beta=0.1, plcc_weight=0).item() == pytest.approx(smooth, rel=1e-5)
    both = quality_loss(scores, 1 - targets, beta=0.1, plcc_weight=0.2)
    without = quality_loss(scores, 1 - targets, beta=0.1, plcc_weight=0)
    assert (both - without).item() == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_the_learning_rate_rises_once_and_falls_once(steps, warmup):
    """Every share lies in (0, 1], and the shares rise to one peak and fall from it."""
    shares = [one_cycle(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    peak = int(np.argmax(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


def test_the_learning_rate_is_the_usual_one_cycle():
    """At every step the share equals that of torch's own scheduler with its default factors."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=50, pct_start=0.3, cycle_momentum=False
    )
    for step in range(50):
        assert one_cycle(step, 50, warmup=0.3) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        if step < 49:
            scheduler.step()
