"""The smallest radius that reaches a goal, as facts: exact where it is known, no larger than by bisection."""

import itertools
import math

import pytest
import torch
from scipy.optimize import brentq

from helpers.attack_cases import EPSILON, GOALS, Counting, Wavy, targets
from iqa_attacks import (
    APGD,
    PGD,
    AttackError,
    AttackFailed,
    BadAttackOption,
    MinimumNorm,
    ThreatModel,
    measure,
    nearest_levels,
    spread_of,
    stored_score,
)
from iqa_models import create_model

LARGEST = {"inf": 1.0, "2": 8.0, "rmse": 1.0}


def _attack(norm="inf", epsilon=None, objectives=("raise", "lower"), pixels="float", **settings):
    threat = ThreatModel(norm, epsilon or LARGEST[norm], pixels=pixels)
    return MinimumNorm(threat=threat, objectives=objectives, **{"steps": 20, "spread": 0.1, **settings})


def _radii(attack, model, on):
    return {(r.image, r.objective): r for r in attack.radii(attack.run(model, *on))}


def _slope(model, image):
    image = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(image.unsqueeze(0)).sum(), image)
    return slope


def _exact(image, slope, amount, norm):
    """The smallest radius that moves a linear score by an amount within the box: one equation in one number.

    In norm inf every pixel goes as far as radius and box let it; in norm 2 the best change is a multiple of
    the slope, clipped to the box. A negative amount is a fall.
    """
    slope = slope * math.copysign(1, amount)
    room, slope = torch.where(slope > 0, 1 - image, image), slope.abs()

    def change(length):
        return torch.minimum(room, slope * length if norm != "inf" else torch.full_like(slope, length))

    top = brentq(lambda length: float((slope * change(length)).sum()) - abs(amount), 0, 1e6, xtol=1e-14)
    moved = change(top)
    if norm == "inf":
        return float(moved.max())
    return float(moved.norm()) / (1 if norm == "2" else math.sqrt(moved.numel()))


@pytest.mark.parametrize("goal", [0.2, 3.0, 6.0])
@pytest.mark.parametrize("norm", ["inf", "2", "rmse"])
def test_on_a_linear_model_the_radius_is_the_exact_one(norm, goal):
    """Within .5 % of |amount| / ||w||, dual norm; at the larger goals of the equation with the box."""
    model, on = create_model("linear", dtype="float64"), targets([(8, 8)] * 4)
    slope = _slope(model, on[0][0])
    for (i, objective), found in _radii(_attack(norm, goal=goal), model, on).items():
        amount = 0.1 * goal * (1 if objective == "raise" else -1)
        exact = _exact(on[0][i], slope, amount, norm)
        free = abs(amount) / {"inf": slope.abs().sum(), "2": slope.norm()}.get(
            norm, slope.norm() * math.sqrt(192)
        )
        assert exact >= free * (1 - 1e-9)
        assert exact > 1.01 * free or goal < 1  # the larger goals are those at which the box binds
        assert exact <= found.radius <= 1.005 * exact


@pytest.mark.parametrize("kind", ["pgd", "apgd"])
@pytest.mark.parametrize("norm", ["inf", "2"])
def test_attacks_of_one_radius_do_not_reach_the_goal_below_it(norm, kind):
    """Twice its steps at 98 % of what it found: a bisection over their radii ends no lower."""
    model, on, amount = Wavy().eval(), targets([(8, 8)]), 0.08
    clean = model(on[0][0].unsqueeze(0)).item()
    for found in _radii(_attack(norm, epsilon=EPSILON[norm], spread=amount), model, on).values():
        radius = 0.98 * found.radius
        settings = {"threat": ThreatModel(norm, radius), "objectives": (found.objective,), "steps": 40}
        attack = APGD(**settings) if kind == "apgd" else PGD(**settings, step_size=radius, falling=True)
        scores = [f.example.score for f in attack.run(model, *on).found if f.objective == found.objective]
        assert 0.9 * amount < abs(scores[0] - clean) < amount


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_a_farther_goal_needs_no_smaller_radius(norm):
    """Image by image, but for 1 % of search."""
    model, on = Wavy().eval(), targets([(8, 8)] * 5)
    radii = [_radii(_attack(norm, spread=0.02, goal=goal), model, on) for goal in (0.5, 1.0, 2.0)]
    for near, far in itertools.pairwise(radii):
        assert all(near[key].radius <= 1.01 * far[key].radius for key in near)


def test_what_is_found_reaches_its_goal_and_has_the_size_it_says():
    model, on = Wavy().eval(), targets([(8, 8), (6, 9), (8, 8), (8, 8)])
    attack = _attack(spread=0.03, objectives=GOALS)
    clean = attack.run(model, *on).clean
    goals = attack.goals(clean, on[2])
    for (i, objective), found in _radii(attack, model, on).items():
        pixels = found.example.pixels.unsqueeze(0)
        moved = model(pixels).item() - clean[i].item()
        fall, rise = goals[objective][i].tolist()
        assert -moved >= fall or moved >= rise
        assert found.radius == pytest.approx(measure(pixels, on[0][i].unsqueeze(0)).linf.item(), abs=1e-15)


def test_drift_is_the_nearer_way_and_costs_no_gradient_of_its_own():
    model, on = Wavy().eval(), targets([(8, 8)] * 5)
    found = _radii(_attack(spread=0.03, objectives=("raise", "lower", "drift")), model, on)
    fewer = _radii(_attack(spread=0.03), model, on)
    for i in range(5):
        assert found[i, "drift"].radius == min(found[i, way].radius for way in ("raise", "lower"))
        assert found[i, "drift"].gradients == fewer[i, "raise"].gradients == 1 + 2 * 19


def test_a_pair_is_turned_round_by_the_shorter_way_past_its_nearest_partner():
    """By hand: scores .1, .2, .4, .5 with labels 0, 1, 2, 1: the third is rightly above two others."""
    clean = torch.tensor([0.1, 0.2, 0.4, 0.5], dtype=torch.float64)
    attack = _attack(objectives=("pairwise_inversion",), spread=None)
    ways = attack.goals(clean, torch.tensor([0.0, 1.0, 2.0, 1.0]))["pairwise_inversion"]
    never = math.inf
    expected = [[never, 0.1], [0.1, 0.2], [0.2, never], [0.4, never]]
    torch.testing.assert_close(ways, torch.tensor(expected, dtype=torch.float64))
    done = attack.goals(clean, torch.tensor([3.0, 2.0, 1.0, 0.0]))["pairwise_inversion"]
    assert bool((done == 0).all())  # no pair in the right order is left
    assert bool(attack.goals(clean, torch.ones(4))["pairwise_inversion"].isinf().all())  # no pair at all


def test_an_image_that_is_there_already_has_radius_0_and_costs_nothing():
    model, on = Counting().eval(), targets([(8, 8)] * 4)
    on = (on[0], on[1], (-torch.cat([model(x.unsqueeze(0)) for x in on[0]])).sigmoid().detach())
    model.forwards = 0
    attack = _attack(objectives=("pairwise_inversion",), spread=None)
    result = attack.run(model, *on)
    assert [(r.radius, r.gradients) for r in attack.radii(result)] == [(0.0, 0)] * 4
    assert all(torch.equal(f.example.pixels, on[0][f.image]) for f in result.found)
    assert model.forwards == 4  # the clean scores


def test_what_no_radius_reaches_is_cut_off_at_the_largest():
    """No radius is claimed; the example is the one that went furthest, half the way to its goal."""
    model, on = create_model("linear", dtype="float64"), targets([(8, 8)] * 3, low=0.3, high=0.7)
    slope = _slope(model, on[0][0])
    amount = 2 * 0.05 * float(slope.abs().sum())
    attack = _attack(epsilon=0.05, spread=amount)
    for found in _radii(attack, model, on).values():
        assert found.radius is None
        moved = found.example.score - model(on[0][found.image].unsqueeze(0)).item()
        assert abs(moved) == pytest.approx(amount / 2, rel=1e-9)


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_with_pixels_of_8_bits_the_radius_holds_in_a_file(norm):
    """The example is of whole grey levels and reaches its goal as it is, for little more than without."""
    model, (images, *rest) = Wavy().eval(), targets([(8, 8)] * 4)
    on = ([nearest_levels(image) for image in images], *rest)
    attack = _attack(norm, spread=0.05, pixels="8bit")
    free = _radii(_attack(norm, spread=0.05), model, on)
    for key, found in _radii(attack, model, on).items():
        pixels, clean = found.example.pixels.unsqueeze(0), on[0][found.image].unsqueeze(0)
        assert torch.equal(pixels, nearest_levels(pixels))
        moved = model(pixels).item() - model(clean).item()
        assert (moved if found.objective == "raise" else -moved) >= 0.05
        slack = 1 / 255 if norm == "inf" else 0.15 * free[key].radius
        assert 0.98 * free[key].radius <= found.radius <= free[key].radius + slack


def test_training_takes_the_spread_of_the_stored_clean_scores():
    model, (images, ids, _) = Wavy().eval(), targets([(8, 8), (6, 9), (8, 8), (8, 8), (8, 8)])
    attack = _attack(spread=None).trained(model, images, ids)
    scores = [
        stored_score(model, x, seed=0, image_id=i, draws=None) for x, i in zip(images, ids, strict=True)
    ]
    assert attack.spread == spread_of(torch.tensor(scores, dtype=torch.float64))
    ordered = sorted(scores)
    assert attack.spread == pytest.approx(ordered[3] - ordered[1])


class Offset(Wavy):
    """A copy that is off: it moves half a percent further than the model."""

    def predict(self, images):
        return 1.005 * super().predict(images)


def test_what_misses_its_goal_on_the_model_itself_is_lengthened():
    """Gradients of a coarse copy choose the examples; that they reach their goals is the model's own word."""
    model, on = Wavy().eval(), targets([(8, 8)] * 4)
    attack = _attack(spread=0.05)
    plain = _radii(attack, model, on)
    result = attack.run(model, *on, gradients=Offset().eval())
    for found in attack.radii(result):
        moved = model(found.example.pixels.unsqueeze(0)).item() - result.clean[found.image].item()
        assert (moved if found.objective == "raise" else -moved) >= 0.05
        own = plain[found.image, found.objective].radius
        assert own * 0.99 <= found.radius <= own * 1.02


def test_what_it_cannot_do_is_refused():
    model, on = Wavy().eval(), targets([(8, 8)] * 3)
    with pytest.raises(AttackError, match="train it first"):
        _attack(spread=None).run(model, *on)
    with pytest.raises(AttackError, match="stochastic: its smallest radius would be that of the luckiest"):
        _attack(eot_samples=2).run(Counting(is_stochastic=True).eval(), *on)
    with pytest.raises(AttackFailed, match="half of the clean scores are equal"):
        _attack(spread=None).trained(model, [on[0][0]] * 3, on[1])
    with pytest.raises(BadAttackOption, match="its objectives are 'raise'"):
        _attack(objectives=("mse",))
    with pytest.raises(BadAttackOption, match="goal"):
        _attack(goal=0.0)


@pytest.mark.parametrize("norm", ["inf", "2", "rmse"])
def test_radii_of_images_project_each_as_its_own_threat_model_would(norm):
    images, *_ = targets([(8, 8)] * 4)
    clean, moved = torch.stack(images), torch.stack(targets([(8, 8)] * 4, seed=1, low=-1, high=2)[0])
    radii = EPSILON[norm] * torch.tensor([0.1, 0.5, 1.0, 0.9], dtype=torch.float64)
    together = ThreatModel(norm, EPSILON[norm]).project(moved, clean, radii)
    for i, radius in enumerate(radii.tolist()):
        alone = ThreatModel(norm, radius).project(moved[i : i + 1], clean[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)
