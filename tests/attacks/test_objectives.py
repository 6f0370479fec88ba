"""Objectives as facts, against closed forms."""

import copy
import math

import pytest
import torch
from scipy.stats import spearmanr

from iqa_attacks import (
    AttackFailed,
    BadAttackOption,
    Objective,
    ThreatModel,
    UnknownAttack,
    create_attack,
    create_objective,
    list_objectives,
    objectives,
    register_objective,
)
from iqa_models import create_model

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
    assert list_objectives() == [
        "drift",
        "lower",
        "mse",
        "pairwise_inversion",
        "plcc",
        "raise",
        "soft_spearman",
        "srocc",
    ]
    with pytest.raises(UnknownAttack, match="no objective 'msee', did you mean 'mse'"):
        create_objective("msee")
    with pytest.raises(BadAttackOption, match="tau"):
        create_objective("pairwise_inversion", tau=0)
    with pytest.raises(BadAttackOption, match="rank_temperature"):
        create_objective("soft_spearman", rank_temperature=0)


def _scores(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mos = torch.rand(n, generator=generator, dtype=torch.float64)
    return mos + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64), mos


def test_soft_spearman_tends_to_spearman():
    """At a low temperature the loss is minus SciPy's SROCC, ties of the labels shared."""
    scores, mos = _scores()
    mos = (mos * 10).round()  # ties
    loss = create_objective("soft_spearman", rank_temperature=1e-5).evaluate(scores, mos, scores).loss
    assert loss.tolist() == pytest.approx([-spearmanr(scores, mos).statistic] * 40, abs=1e-9)
    usual = create_objective("soft_spearman").evaluate(scores, mos, scores).loss
    assert float(usual[0]) == pytest.approx(float(loss[0]), abs=0.01)


def test_soft_spearman_has_the_derivative_it_says():
    """Its weights agree with finite differences, and no shift or stretch of the scores changes the loss."""
    scores, mos = _scores(12)
    objective = create_objective("soft_spearman")
    evaluation = objective.evaluate(scores, mos, scores)
    for i in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[i] = 1e-6
        difference = (
            objective.loss(scores + step, mos, scores) - objective.loss(scores - step, mos, scores)
        )[0]
        assert float(evaluation.weight[i]) == pytest.approx(float(difference) / 2e-6, abs=1e-6)
    other = objective.evaluate(7 * scores - 3, mos, scores)
    assert torch.allclose(other.loss, evaluation.loss, atol=1e-12)


def test_soft_spearman_without_an_order_is_defined():
    """Equal scores move against the labels; equal labels, or one image, move nothing; nothing is NaN."""
    objective = create_objective("soft_spearman")
    equal = objective.evaluate(torch.full_like(F, 0.4), Y, CLEAN)
    assert equal.loss.tolist() == [0.0] * 3
    assert equal.weight.sign().tolist() == [1.0, 0.0, -1.0]
    for n in (1, 3):
        flat = objective.evaluate(F[:n], torch.full((n,), 0.5, dtype=torch.float64), CLEAN[:n])
        assert flat.loss.tolist() == [0.0] * n
        assert flat.weight.tolist() == [0.0] * n


class FarFromMiddle(Objective):
    """|f - 1/2|^3: an objective of a user's own."""

    name = "far_from_middle"

    def loss(self, scores, mos, clean):
        return (scores - 0.5).abs() ** 3


def test_an_objective_of_ones_own_is_taken_by_name(monkeypatch):
    """Registered once, under a free name, creatable without arguments; then it is one of the catalogue."""
    monkeypatch.setattr("iqa_attacks.objectives._OBJECTIVES", copy.deepcopy(objectives._OBJECTIVES))
    assert register_objective(FarFromMiddle) is FarFromMiddle
    register_objective(FarFromMiddle)  # the same class again is the same
    weight = create_objective("far_from_middle").evaluate(F, Y, CLEAN).weight
    assert torch.allclose(weight, 3 * (F - 0.5) ** 2 * (F - 0.5).sign())
    with pytest.raises(BadAttackOption, match="taken"):
        register_objective(type("Twin", (FarFromMiddle,), {}))
    for name, message in (("Bad Name", "lower case"), ("mse", "taken"), ("lowest_seen", "taken")):
        with pytest.raises(BadAttackOption, match=message):
            register_objective(type("Named", (FarFromMiddle,), {"name": name}))
    with pytest.raises(BadAttackOption, match="objective ''"):
        register_objective(type("Nameless", (Objective,), {}))

    class Needy(FarFromMiddle):
        name = "needy"

        def __init__(self, power):
            self.power = power

    with pytest.raises(BadAttackOption, match="without arguments"):
        register_objective(Needy)


class Made(Objective):
    """An objective of somebody's own, by the formula of its loss."""

    name = "made"

    def __init__(self, formula, *, batch_level=False):
        self.formula, self.batch_level = formula, batch_level

    def loss(self, scores, mos, clean):
        return self.formula(scores, mos, clean)


UNUSABLE = [
    (lambda f, y, c: torch.where(y > 0.5, torch.nan, f), "the loss is nan at score .*, label 0.6"),
    (lambda f, y, c: ((f - y) ** 2).mean(), r"shape \(4,\), one number an image, not \(\)"),
    (lambda f, y, c: (f - y)[:-1], r"shape \(4,\), one number an image, not \(3,\)"),
    (lambda f, y, c: 1.0, "not float"),
]


@pytest.mark.parametrize("batch_level", [False, True])
@pytest.mark.parametrize(("formula", "message"), UNUSABLE)
@pytest.mark.parametrize("kind", ["pgd", "apgd", "square"])
def test_a_loss_that_is_no_finite_number_an_image_fails_the_attack(kind, formula, message, batch_level):
    """Dropped or spread over the batch instead, images would be missing, or depend on their company."""
    if kind == "square" and batch_level:
        batch_level = False  # refused for its coupling before
    own = {"pgd": {"steps": 3, "step_size": 0.01}, "apgd": {"steps": 3}, "square": {"queries": 5}}[kind]
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 8, 8, generator=generator) for _ in range(4)]
    attack = create_attack(
        kind, threat=ThreatModel("inf", 0.02), objectives=(Made(formula, batch_level=batch_level),), **own
    )
    with pytest.raises(AttackFailed, match=f"objective 'made': .*{message}"):
        attack.run(create_model("linear"), images, list("abcd"), torch.tensor([0.1, 0.4, 0.6, 0.9]))


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda f, y, c: (f - f.detach()).sqrt(), "the slope of the loss is inf at score 0.2, label 0.1"),
        (lambda f, y, c: (f - y).detach(), "does not depend on the scores"),
    ],
)
def test_a_loss_without_a_finite_slope_is_refused(formula, message):
    """Its sign would be no direction."""
    with pytest.raises(AttackFailed, match=f"objective 'made': .*{message}"):
        Made(formula).evaluate(F, Y, CLEAN)
