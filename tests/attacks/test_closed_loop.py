"""The closed loop: near the best assignment where that is known, within its budget, done when it is done."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import pearsonr, spearmanr

from helpers.attack_cases import EPSILON, Counting, Wavy, by_key, targets
from iqa_attacks import BadAttackOption, ThreatModel, create_attack, create_objective
from iqa_models import create_model

ORACLES = {"srocc": spearmanr, "plcc": pearsonr}


def _loop(norm="inf", objectives=("srocc",), share=1.0, **settings):
    own = {"steps": 4, "restarts": 3, "seed": 5, **settings}
    return create_attack(
        "closed_loop", threat=ThreatModel(norm, share * EPSILON[norm]), objectives=objectives, **own
    )


def _clean(model, images):
    with torch.no_grad():
        return np.array([float(model(image.unsqueeze(0))) for image in images])


def _intervals(model, images, threat):
    """Return the lowest and the highest score of every image's ball, in closed form, off the box's edges."""
    weight = model.weight(*images[0].shape[-2:]).detach()
    size = weight.abs().sum() if threat.norm == "inf" else weight.norm()
    if threat.norm == "rmse":
        size = size * weight.numel() ** 0.5
    clean = _clean(model, images)
    return clean, float(threat.epsilon * size / weight.numel())


def _lowest_srocc(low, high, mos):
    """Return the lowest SROCC of scores within intervals: all weak orders of the images are tried."""

    def orders(left):
        if not left:
            yield []
        for size in range(1, len(left) + 1):
            for first in itertools.combinations(left, size):
                for rest in orders([i for i in left if i not in first]):
                    yield [first, *rest]

    lowest = 1.0
    for order in orders(list(range(len(mos)))):
        # As low as they go, group after group; a group has one score in all of its intervals.
        at, possible = -np.inf, len(order) > 1
        for group in order:
            at = max(np.nextafter(at, np.inf), *(low[i] for i in group))
            possible &= at <= min(high[i] for i in group)
        if possible:
            ranks = np.empty(len(mos))
            for place, group in enumerate(order):
                ranks[list(group)] = place
            lowest = min(lowest, spearmanr(ranks, mos).statistic)
    return lowest


def _lowest_plcc(low, high, mos):
    """Return the lowest PLCC of scores within intervals, downhill from corners that go against labels."""
    found = []
    for label in mos:
        start = np.where(mos < label, high, low)
        if np.ptp(start) > 0:
            end = minimize(
                lambda s: pearsonr(s, mos).statistic, start, bounds=list(zip(low, high, strict=True))
            )
            found.append(end.fun)
    return min(found)


@pytest.mark.parametrize("metric", ["srocc", "plcc"])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_on_a_linear_model_it_is_within_a_hundredth_of_the_best_assignment(norm, metric):
    """Brute force over what closed-form intervals admit; narrow and wide ones, five images."""
    model = create_model("linear", dtype="float64").eval()
    for seed, share in ((0, 0.1), (1, 0.3)):
        images, ids, _ = targets([(8, 8)] * 5, seed=seed, low=0.3, high=0.7)
        attack = _loop(norm, (metric,), share)
        clean, reach = _intervals(model, images, attack.threat)
        mos = (np.argsort(np.argsort(clean)) + 1.0) / 6 + 0.02 * np.random.default_rng(seed).random(5)
        low, high = clean - reach, clean + reach
        best = (_lowest_srocc if metric == "srocc" else _lowest_plcc)(low, high, mos)
        found = by_key(attack.run(model, images, ids, torch.from_numpy(mos)))
        scores = np.array([found[i, metric, 4].example.score for i in range(5)])
        value = ORACLES[metric](scores, mos).statistic
        assert found[0, metric, 4].loss == pytest.approx(-value, abs=1e-12)
        assert best - 1e-6 <= value <= best + 0.01 * (ORACLES[metric](clean, mos).statistic - best) + 1e-9


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_it_goes_below_what_is_composed_of_attacks_on_single_images(norm):
    """On a wavy model, at no more gradients: PGD raises and lowers every image."""
    from iqa_harness.measures.composed import composed_worst_case

    images, ids, mos = targets([(8, 8)] * 24, seed=3)
    model, threat = Wavy().eval(), ThreatModel(norm, 0.2 * EPSILON[norm])
    clean = _clean(model, images)
    order = clean.argsort().argsort() / 24
    labels = torch.from_numpy(0.7 * order + 0.3 * mos.numpy())
    pgd = create_attack("pgd", threat=threat, objectives=("raise", "lower"), steps=7,
                        step_size=threat.epsilon, falling=True)  # fmt: skip
    single = pgd.run(model, images, ids, labels)
    candidates = [np.array([clean[i], *(f.example.score for f in single.found if f.image == i)])
                  for i in range(24)]  # fmt: skip
    composed = composed_worst_case(candidates, labels.numpy(), "srocc").value.value
    loop = _loop(norm, share=0.2).run(model, images, ids, labels)
    spent = [sum(cost.backwards for cost in result.cost.values()) for result in (single, loop)]
    assert spent[1] <= spent[0]
    assert -loop.found[0].loss < composed - 0.02


@pytest.mark.parametrize(("steps", "restarts"), [(1, 1), (3, 1), (2, 5)])
def test_it_spends_no_more_than_its_budget(steps, restarts):
    """Gradients of all images together, for one objective; with two of them shared ones are taken once."""
    on = targets([(8, 8)] * 9)
    for objectives in (("srocc",), ("srocc", "plcc")):
        model = Counting().eval()
        _loop(objectives=objectives, steps=steps, restarts=restarts).run(model, *on)
        assert 9 * steps <= model.backwards <= 9 * steps * restarts * len(objectives)


def test_gradients_go_where_the_set_gains():
    """Images whose labels lie in the middle of a set are visited less than those at its ends."""
    images, ids, _ = targets([(8, 8)] * 20, seed=8)
    model = Wavy().eval()
    clean = torch.from_numpy(_clean(model, images))
    mos = clean.argsort().argsort().double() / 20
    result = _loop(share=0.2, restarts=4, least_gain=1e-6).run(model, images, ids, mos)
    spent = np.array([result.cost[i, 4].backwards for i in range(20)])
    away = np.abs(mos.numpy() - 0.5)
    assert spent.min() == 4 < spent.max()
    assert spent[away > 0.25].mean() > spent[away <= 0.25].mean()


def test_it_stops_where_nothing_is_to_be_gained():
    """A set that one visit an image reverses is visited no second time."""
    images, ids, mos = targets([(8, 8)] * 8)
    result = _loop(share=20.0, restarts=9).run(Wavy().eval(), images, ids, mos)
    assert -result.found[0].loss == pytest.approx(-1)
    assert all(cost.backwards == 4 for cost in result.cost.values())


def test_labels_that_are_all_equal_leave_the_images_as_they_are():
    images, ids, _ = targets([(8, 8)] * 4)
    result = _loop().run(Wavy().eval(), images, ids, torch.full((4,), 0.5))
    assert all(torch.equal(f.example.pixels, images[f.image]) for f in result.found)
    assert {f.loss for f in result.found if f.objective == "srocc"} == {0.0}


def test_it_takes_no_objective_of_single_images():
    with pytest.raises(BadAttackOption, match="srocc"):
        _loop(objectives=("mse",))


@pytest.mark.parametrize("name", ORACLES)
def test_its_objectives_are_the_correlations_themselves(name):
    """SciPy's to rounding, ties included; every image goes against its label where there is no slope."""
    generator = torch.Generator().manual_seed(1)
    scores = (torch.rand(12, generator=generator, dtype=torch.float64) * 8).round()
    mos = torch.rand(12, generator=generator, dtype=torch.float64)
    objective = create_objective(name)
    loss, weight = objective.evaluate(scores, mos, scores)
    assert loss.tolist() == pytest.approx([-ORACLES[name](scores, mos).statistic] * 12, abs=1e-12)
    flat = objective.evaluate(torch.ones_like(scores), mos, scores)
    assert flat.loss.tolist() == [0.0] * 12
    for found in (flat.weight, *([weight] if name == "srocc" else [])):
        assert torch.equal(found.argsort(), (-mos).argsort())
