"""The losses as facts: golden values, closed forms, and batches without an order."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from iqa_harness.training.config import TrainConfig
from iqa_harness.training.losses import (
    correlation_loss,
    hinge_loss,
    pairwise_author_loss,
    pairwise_loss,
    plcc_loss,
    quality_loss,
    rank_author_loss,
    rank_loss,
    soft_spearman_loss,
    training_loss,
)

A = ((60, 42.5, 71, 55, 30), (58, 50, 80, 40, 33))
B = ((0.1, 0.4, 0.35, 0.8), (0, 1, 2, 3))


def make(**values):
    """Return settings with a loss of its own."""
    return TrainConfig(name="x", model="linear", epochs=1, **values)


def tensors(pair):
    """Return scores that carry a gradient, and labels, in float64."""
    p, q = pair
    return torch.tensor(p, dtype=torch.float64, requires_grad=True), torch.tensor(q, dtype=torch.float64)


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


@pytest.mark.parametrize(
    ("pair", "settings", "value"),
    [
        (A, {"loss": "l1"}, 7.3),
        (B, {"loss": "l1"}, 1.1375),
        (A, {"loss": "l2"}, 75.05),
        (B, {"loss": "l2"}, 1.983125),
        (A, {"loss": "srcc", "loss_reading": "author"}, 0.1520215566),
        (B, {"loss": "srcc", "loss_reading": "author"}, 0.0866308735),
        (A, {"loss": "rank", "loss_reading": "author"}, 5.5),
        (B, {"loss": "rank", "loss_reading": "author"}, 0.175),
        (A, {"loss": "rank"}, 8.25),
        (B, {"loss": "rank"}, 1.325),
        (A, {"loss": "pairwise", "loss_reading": "author"}, 0.0992884766),
        (B, {"loss": "pairwise", "loss_reading": "author"}, 0.0538594278),
    ],
)
def test_the_losses_have_their_golden_values(pair, settings, value):
    """Both worked examples of SMART-IQA's losses come out to ten digits."""
    assert training_loss(make(**settings), *tensors(pair), 1.0).item() == pytest.approx(value, abs=5e-11)


@pytest.mark.parametrize(("pair", "value"), [(A, 1.26), (B, 0.025)])
def test_the_hinge_is_added_with_its_weight(pair, value):
    """The margin loss has its golden value, and comes on top of the loss."""
    p, q = tensors(pair)
    assert hinge_loss(p, q, margin=0.1).item() == pytest.approx(value, abs=1e-12)
    both = training_loss(make(loss="l1", hinge_weight=2.0), p, q, 1.0)
    assert both.item() == pytest.approx((p - q).abs().mean().item() + 2 * value, abs=1e-12)


@pytest.mark.parametrize(
    ("loss", "slopes"),
    [
        (correlation_loss, (0.203425, 0.400217, -0.672188, 0.068546)),
        (pairwise_author_loss, (-0.091257, 0.218247, -0.183942, 0.056952)),
        (rank_author_loss, (0, 1 / 6, -1 / 6, 0)),
    ],
)
def test_the_authors_losses_have_their_golden_gradients(loss, slopes):
    """The gradient of the second example is that of the author's code."""
    p, q = tensors(B)
    loss(p, q).backward()
    assert p.grad.tolist() == pytest.approx(slopes, abs=1e-6)


def test_the_corrected_fidelity_is_thurstones_model():
    """On one pair the loss is the fidelity of two normal distribution functions, whatever the scale."""
    p, q = (0.3, 0.7), (0.4, 0.5)
    phi = [0.5 * (1 + math.erf((v[0] - v[1]) / 0.1 / 2)) for v in (q, p)]
    terms = [math.sqrt(a * b + 1e-8) for a, b in ((phi[0], phi[1]), (1 - phi[0], 1 - phi[1]))]
    unit = pairwise_loss(*tensors((p, q)), sigma=0.1)
    assert unit.item() == pytest.approx(1 - sum(terms), abs=1e-12)
    p100, q100 = tuple(100 * v for v in p), tuple(100 * v for v in q)
    assert pairwise_loss(*tensors((p100, q100)), sigma=10).item() == pytest.approx(unit.item(), abs=1e-12)
    scaled = training_loss(make(loss="pairwise"), *tensors((p100, q100)), 100.0)
    assert scaled.item() == pytest.approx(unit.item(), abs=1e-12)


def test_the_authors_fidelity_has_no_slope_on_a_scale_of_a_hundred():
    """Ten points apart the author's reading gives no gradient; the corrected one does."""
    pair = ((40.0, 60.0), (60.0, 40.0))
    author, q = tensors(pair)
    pairwise_author_loss(author, q).backward()
    ours, q = tensors(pair)
    pairwise_loss(ours, q, sigma=10.0).backward()
    assert author.grad.abs().max() < 1e-8
    assert ours.grad.abs().max() > 1e-3


def test_soft_spearman_tends_to_spearman():
    """At a low temperature the loss is 1 - scipy's Spearman correlation, and it ignores the scores' scale."""
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=20), rng.integers(0, 6, size=20).astype(float)
    expected = 1 - scipy.stats.spearmanr(p, q).statistic
    sharp = soft_spearman_loss(*tensors((p, q)), temperature=1e-4)
    assert sharp.item() == pytest.approx(expected, abs=1e-6)
    soft = soft_spearman_loss(*tensors((p, q)), temperature=0.1).item()
    assert soft_spearman_loss(*tensors((7 * p - 3, q)), temperature=0.1).item() == pytest.approx(
        soft, abs=1e-9
    )
    assert abs(soft - expected) < 0.1
    named = training_loss(make(loss="srcc"), *tensors((p, q)), 1.0)
    assert named.item() == soft == training_loss(make(loss="soft_spearman"), *tensors((p, q)), 1.0).item()


@pytest.mark.parametrize("loss", ["l1", "l2", "srcc", "rank", "pairwise", "soft_spearman", "smooth_l1_plcc"])
@pytest.mark.parametrize("reading", ["author", "fixed"])
@pytest.mark.parametrize("pair", [((1, 1, 1), (0, 1, 2)), ((0, 1, 2), (1, 1, 1)), ((1,), (2,))])
def test_a_batch_without_an_order_has_a_finite_gradient(loss, reading, pair):
    """Equal scores, equal labels and a batch of one give finite losses and gradients."""
    p, q = tensors(tuple(tuple(float(v) for v in side) for side in pair))
    value = training_loss(make(loss=loss, loss_reading=reading, hinge_weight=1), p, q, 1.0)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(p.grad).all()


def test_pairs_of_equal_labels_do_not_count():
    """The ranking losses are means over pairs of different labels only."""
    p, q = tensors(((0.0, 5.0, 1.0), (1.0, 1.0, 2.0)))
    assert rank_loss(p, q).item() == pytest.approx((0 + 5) / 2)
    assert rank_loss(p[:2], q[:2]).item() == 0
