"""Attacks by queries as facts: inside, seeded, shared, published schedule, far beyond noise."""

import math

import pytest
import torch
from torch import Tensor

from helpers.attack_cases import BOTH, CASES, EPSILON, PER_IMAGE, Counting, Wavy, by_key, same, targets
from iqa_attacks import BadAttackOption, Ensemble, ThreatModel, create_attack, measure
from iqa_attacks.square import Square, halvings
from iqa_models import create_model


def _square(norm="inf", **settings):
    settings = {"objectives": PER_IMAGE, "queries": 60, "restarts": 2, "seed": 7, **settings}
    return create_attack("square", threat=ThreatModel(norm, EPSILON[norm]), **settings)


@pytest.mark.parametrize("box", ["inactive", "active"])
@pytest.mark.parametrize("norm", ["2", "rmse"])
def test_in_norm_2_it_goes_most_of_the_way_on_a_linear_model(norm, box):
    """Both ways beyond half of what the gradient reaches, where noise gets a quarter; the radius used up."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = (
        targets([(8, 8)] * 2, low=0.3, high=0.7) if box == "inactive" else targets([(8, 8)] * 2)
    )
    threat = ThreatModel(norm, 0.3 if norm == "2" else 0.3 / math.sqrt(192))
    settings = {"threat": threat, "objectives": ("raise", "lower")}
    kinds = {
        "pgd": {"steps": 60, "step_size": threat.epsilon / 5},
        "square": {"queries": 450},
        "noise": {"samples": 100},
    }
    reach = {}
    for kind, own in kinds.items():
        result = create_attack(kind, **settings, **own).run(model, images, ids, mos)
        gains = [f.loss for f in result.found if f.loss is not None]
        signed = [c * s for c in result.clean.tolist() for s in (1, -1)]
        reach[kind] = sum(gains) - sum(signed)
        if kind == "square":
            for found in result.found:
                pixels, clean = found.example.pixels.unsqueeze(0), images[found.image].unsqueeze(0)
                assert threat.violation(pixels, clean) is None
                assert float(measure(pixels, clean).l2) == pytest.approx(0.3, rel=0.02)
    assert reach["square"] > 0.5 * reach["pgd"]
    assert reach["noise"] < 0.3 * reach["pgd"]


def test_a_move_in_norm_2_keeps_the_length_of_the_change():
    """Away from the box every version has length eps, and one query changes two windows only."""
    clean = torch.full((2, 3, 20, 30), 0.5, dtype=torch.float64)
    moves = Square(threat=ThreatModel("2", 1.0), objectives=("raise",), queries=1000)
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    at = moves.start(clean, generators).unsqueeze(0)
    for query in range(1, 30):
        tried = moves.propose(at, clean, generators, query)
        lengths = (tried - clean).flatten(2).norm(dim=2)
        assert torch.allclose(lengths, torch.ones_like(lengths), rtol=1e-5)
        side = max(1, round(math.sqrt(0.1 / 2 ** halvings(query, 1000) * 600)))
        changed = (tried - at).abs().amax(dim=(0, 2)) > 1e-4
        assert all(0 < int(image.sum()) <= 2 * side**2 for image in changed)
        at = tried


@pytest.mark.parametrize("box", ["inactive", "active"])
def test_it_reaches_nearly_the_optimum_of_a_linear_model(box):
    """Both ways it goes most of the way to the known optimum, where noise goes next to nowhere."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = (
        targets([(8, 8)] * 2, low=0.2, high=0.8) if box == "inactive" else targets([(8, 8)] * 2)
    )
    both = ("raise", "lower")
    attack = _square(objectives=both, queries=1000, restarts=1)
    found = by_key(attack.run(model, images, ids, mos))
    threat = attack.threat
    noise = by_key(
        create_attack("noise", threat=threat, objectives=both, samples=100).run(model, images, ids, mos)
    )
    weight = model.weight(8, 8).detach()
    for i, image in enumerate(images):
        clean = model(image.unsqueeze(0)).item()
        for objective, side in (("raise", 1), ("lower", -1)):
            best = (image + side * 0.05 * weight.sign()).clamp(0, 1)
            reach = model(best.unsqueeze(0)).item() - clean
            assert (found[i, objective, 1000].example.score - clean) / reach > 0.9
            assert (noise[i, objective, 0].example.score - clean) / reach < 0.5


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_slopes_from_pairs_of_scores_lead_most_of_the_way_on_a_linear_model(norm):
    """Both ways beyond most of what the gradient reaches, in norm inf the closed form; noise gets a third."""
    model, (images, ids, mos) = (
        create_model("linear", dtype="float64"),
        targets([(8, 8)] * 2, low=0.3, high=0.7),
    )
    threat = ThreatModel(norm, {"inf": 0.05, "2": 0.3}[norm])
    reach = {}
    kinds = {"spsa": {"queries": 901, "side": 1}, "noise": {"samples": 100}, "fgsm": {}}
    for kind, own in kinds.items():
        result = create_attack(kind, threat=threat, objectives=BOTH, **own).run(model, images, ids, mos)
        found = [f for f in result.found if f.objective in BOTH]
        reach[kind] = sum(abs(f.example.score - float(result.clean[f.image])) for f in found)
    assert 0.75 * reach["fgsm"] < reach["spsa"] <= reach["fgsm"] * (1 + 1e-9)
    assert reach["noise"] < 0.4 * reach["fgsm"]


@pytest.mark.parametrize("kind", ["square", "spsa"])
def test_a_number_of_queries_reports_the_best_of_so_many(kind):
    """Of the scores the model gave, in order; later numbers are no worse, and cost what they asked."""
    model, on = Counting().eval(), targets([(8, 8)])
    attack = CASES[kind].attack(objectives=("raise",), queries=23, restarts=1, report_steps=(1, 7, 22))
    result = attack.run(model, *on)
    found, seen = by_key(result), model.seen[1:]  # the first is the clean image's
    for queries in (1, 7, 22, 23):
        assert found[0, "raise", queries].example.score == max(seen[:queries])
        assert found[0, "lowest_seen", queries].example.score == min(seen[:queries])
        assert result.cost[0, queries] == (queries, 0, 0)
    assert len(seen) == 23


def test_queries_and_restarts_never_hurt():
    """More restarts can only raise a loss, and one query is the stripes."""
    model, (images, ids, mos) = Wavy().eval(), targets([(8, 8)] * 4)
    one = by_key(_square(queries=1, restarts=1).run(model, images, ids, mos))
    few = by_key(_square(restarts=1).run(model, images, ids, mos))
    more = by_key(_square(restarts=3).run(model, images, ids, mos))
    for (i, objective, _), found in one.items():
        if found.loss is not None:
            assert found.loss <= few[i, objective, 60].loss <= more[i, objective, 60].loss
            change = found.example.pixels - images[i]
            inside = (images[i] > 0.05) & (images[i] < 0.95)
            assert torch.allclose(change[inside].abs(), torch.tensor(0.05).double())


def test_the_schedule_of_squares_is_the_published_one():
    """The area is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 queries of 10,000."""
    published = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000]
    for number, limit in enumerate(published):
        assert halvings(limit, 10_000) == number
        assert halvings(limit + 1, 10_000) == number + 1
    assert halvings(500 + 1, 5_000) == 5


def test_a_stochastic_model_is_searched_on_mean_scores():
    """With EOT the search repeats, and every query costs its draws."""

    class Noisy(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            noise = 0.05 * torch.randn(images.shape[1:], dtype=images.dtype)
            return super().predict((images + noise).clamp(0, 1))

    model, on = Noisy(is_stochastic=True).eval(), targets([(8, 8)] * 3)
    attack = _square(eot_samples=2, queries=8)
    results = [attack.run(model, *on) for _ in range(2)]
    assert all(same(f, by_key(results[1])[key]) for key, f in by_key(results[0]).items())
    assert results[0].cost[0, 8].forwards == 2 * 2 * (1 + 7 * 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"queries": 0}, "queries: Input should be greater than or equal to 1, not 0"),
        ({"first_area": 0}, "first_area"),
        ({"objectives": ("pairwise_inversion",)}, "a loss of a batch"),
        ({"steps": 5}, "no setting 'steps'"),
        ({"report_steps": (6,)}, "report_steps 6 is not within 1..5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    """A setting that makes no sense is refused with the reason."""
    with pytest.raises(BadAttackOption, match=message):
        create_attack(
            "square",
            **{"threat": ThreatModel("inf", 0.1), "objectives": ("raise",), "queries": 5, **settings},
        )


def test_the_mean_of_models_is_of_scores_in_units_of_their_ranges():
    """So that no model speaks louder for having a wider scale; stochastic if one of them is."""
    one, two = create_model("linear", dtype="float64"), Wavy(score_range=(-3, 5)).eval()
    images = torch.stack(targets([(8, 8)] * 3)[0])
    mean = Ensemble([one, two])
    assert torch.allclose(mean(images), (one(images) + (two(images) + 3) / 8) / 2)
    assert mean.spec.score_range == (0, 1)
    assert not mean.is_stochastic
    assert Ensemble([one, Wavy(is_stochastic=True)]).is_stochastic
    on = targets([(8, 8)] * 3)
    result = create_attack("fgsm", threat=ThreatModel("inf", 0.05), objectives=BOTH).run(mean, *on)
    assert result.clean.tolist() == pytest.approx(mean(images).tolist())
