"""Objectives as facts, against closed forms."""

import math

import pytest
import torch

from iqa_attacks import BadAttackOption, UnknownAttack, create_objective, list_objectives

F = torch.tensor([0.2, 0.8, 0.5], dtype=torch.float64)
Y = torch.tensor([0.1, 0.6, 0.9], dtype=torch.float64)
CLEAN = torch.tensor([0.3, 0.8, 0.4], dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "loss", "weight"),
    [
        ("mse", [0.01, 0.04, 0.16], [0.2, 0.4, -0.8]),
        ("drift", [0.01, 0.0, 0.01], [-0.2, 1.0, 0.2]),
        ("raise", [0.2, 0.8, 0.5], [1.0, 1.0, 1.0]),
        ("lower", [-0.2, -0.8, -0.5], [-1.0, -1.0, -1.0]),
    ],
)
def test_an_image_wise_objective_equals_its_formula(name, loss, weight):
    """Loss and dL/df are the hand-computed ones; at its target a distance points up."""
    evaluation = create_objective(name).evaluate(F, Y, CLEAN)
    assert torch.allclose(evaluation.loss, torch.tensor(loss, dtype=torch.float64), atol=1e-15)
    assert torch.allclose(evaluation.weight, torch.tensor(weight, dtype=torch.float64), atol=1e-15)


def test_pairwise_inversion_equals_equation_32():
    """The mean over pairs y_i > y_j of log(1 + exp(-(f_i - f_j) / tau)), with its derivative."""
    tau = 0.1
    pairs = [(1, 0), (2, 0), (2, 1)]
    expected = sum(math.log1p(math.exp(-(float(F[i] - F[j])) / tau)) for i, j in pairs) / 3
    slope = [0.0, 0.0, 0.0]
    for i, j in pairs:
        pull = 1 / (1 + math.exp(float(F[i] - F[j]) / tau)) / tau / 3
        slope[i] -= pull
        slope[j] += pull
    evaluation = create_objective("pairwise_inversion", tau=tau).evaluate(F, Y, CLEAN)
    assert evaluation.loss.tolist() == pytest.approx([expected] * 3, abs=1e-14)
    assert evaluation.weight.tolist() == pytest.approx(slope, abs=1e-14)


def test_a_batch_without_pairs_moves_nothing():
    """Equal labels, or a single image, give loss 0 and weight 0."""
    objective = create_objective("pairwise_inversion")
    for n in (1, 3):
        same = torch.full((n,), 0.5, dtype=torch.float64)
        evaluation = objective.evaluate(F[:n], same, CLEAN[:n])
        assert evaluation.loss.tolist() == [0.0] * n
        assert evaluation.weight.tolist() == [0.0] * n


def test_large_differences_stay_finite():
    """A perfectly wrong order far apart gives a large finite loss, a right one gives nearly 0."""
    objective = create_objective("pairwise_inversion", tau=1e-3)
    wrong = objective.evaluate(-1e3 * Y, Y, CLEAN)
    right = objective.evaluate(1e3 * Y, Y, CLEAN)
    assert wrong.loss.isfinite().all()
    assert wrong.loss[0] > 1e5
    assert right.loss[0] == 0


def test_objectives_are_known_by_name():
    """The catalogue is what the papers and the composed worst case need, and nothing else is accepted."""
    assert list_objectives() == ["drift", "lower", "mse", "pairwise_inversion", "raise"]
    with pytest.raises(UnknownAttack, match="no objective 'msee'"):
        create_objective("msee")
    with pytest.raises(BadAttackOption, match="tau"):
        create_objective("pairwise_inversion", tau=0)
