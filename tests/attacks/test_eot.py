"""EOT as facts: seeded draws, averaged; independent of batch, company and the caller's own randomness."""

from functools import cache

import pytest
import torch
from torch import Tensor

from helpers.attack_cases import ALL, Wavy, by_key, same, targets
from iqa_attacks import AttackError, ThreatModel, create_attack, draw_seeds, expected_score, stored_score


class Noisy(Wavy):
    """Adds noise to its input, drawn from torch's global generator, one draw a batch."""

    def __init__(self) -> None:
        super().__init__(is_stochastic=True)

    def predict(self, images: Tensor) -> Tensor:
        noise = 0.05 * torch.randn(images.shape[1:], dtype=images.dtype)
        return super().predict((images + noise).clamp(0, 1))


class ByImage(Noisy):
    """The same, with a generator an image: it can be asked for all draws of several images at once."""

    draws_by_image = True

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[int] = []

    def predict(self, images: Tensor) -> Tensor:
        self.passes.append(len(images))
        return super().predict(images)

    def predict_drawn(self, images: Tensor, seeds) -> Tensor:
        self.passes.append(len(images))
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.randn(images.shape[1:], dtype=images.dtype, generator=g) for g in generators]
        return Wavy.predict(self, (images + 0.05 * torch.stack(noise)).clamp(0, 1))


def _attack(kind="pgd", **settings):
    steps = {"pgd": {"steps": 4, "step_size": 0.02}, "apgd": {"steps": 4}, "mifgsm": {"steps": 4}}[kind]
    if kind == "mifgsm":
        steps = {**steps, "step_size": 0.02}
    defaults = {"objectives": ALL, "seed": 7, "restarts": 2, "eot_samples": 3, "batch": 3, **steps}
    return create_attack(kind, threat=ThreatModel("inf", 0.05), **{**defaults, **settings})


@pytest.mark.parametrize("kind", ["pgd", "mifgsm", "apgd"])
def test_results_repeat_whatever_the_company(kind):
    """The same numbers in every chunk and grouping, alone or shared; the caller's generator is left alone."""
    model, (images, ids, mos) = Noisy().eval(), targets([(8, 8)] * 5)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = by_key(_attack(kind, steps=2).run(model, images, ids, mos))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = by_key(_attack(kind, steps=2).run(model, images, ids, mos, chunk=1))
    assert all(same(found, again[key]) for key, found in whole.items())
    for objective in ALL:
        alone = by_key(_attack(kind, steps=2, objectives=(objective,)).run(model, images, ids, mos))
        assert all(same(alone[i, objective, 2], whole[i, objective, 2]) for i in range(5))
    last = by_key(_attack(kind, steps=2).run(model, images[3:], ids[3:], mos[3:]))
    assert all(same(found, whole[i + 3, o, s]) for (i, o, s), found in last.items())


def test_every_point_costs_its_draws():
    """K draws are K forwards and K backwards, counted."""
    model, on = Noisy().eval(), targets()
    settings = {"objectives": ("raise",), "restarts": 1}
    assert _attack(**settings).run(model, *on).cost[0, 4] == (3 * 5, 3 * 4, 0)
    assert _attack(**settings).run(Wavy().eval(), *on).cost[0, 4] == (5, 4, 0)


def test_a_deterministic_model_is_evaluated_once():
    """EOT changes nothing, bit for bit, on a model whose card says that it is deterministic."""
    model, on = Wavy().eval(), targets()
    with_eot = by_key(_attack().run(model, *on))
    without = by_key(_attack(eot_samples=None).run(model, *on))
    assert all(same(found, with_eot[key]) for key, found in without.items())


@pytest.mark.slow
def test_scores_and_gradients_are_means_of_the_draws():
    """On a linear model with additive noise the mean gradient is the gradient; scores are means."""
    model, (images, ids, mos) = Noisy().eval(), targets(low=0.3, high=0.7)
    result = _attack(objectives=("raise",), restarts=1, eot_samples=20).run(model, images, ids, mos)
    for i, image in enumerate(images):
        assert float(result.clean[i]) == stored_score(model, image, seed=7, image_id=ids[i], draws=20)
        exact = Wavy().eval()(image.unsqueeze(0)).item()
        assert float(result.clean[i]) == pytest.approx(exact, abs=0.05)


def test_averaging_makes_the_attack_stronger():
    """More draws reach a higher true expected score, measured on draws the attack never saw."""

    class VeryNoisy(Noisy):
        def predict(self, images: Tensor) -> Tensor:
            noise = 0.5 * torch.randn(images.shape[1:], dtype=images.dtype)
            return self.linear((images + noise).clamp(0, 1)) + 0.3 * Wavy.predict(
                self, (images + noise).clamp(0, 1)
            )

    model, (images, ids, mos) = VeryNoisy().eval(), targets([(8, 8)] * 6, low=0.3, high=0.7)

    def reach(draws):
        attack = _attack(objectives=("raise",), restarts=1, eot_samples=draws, keep="last")
        found = by_key(attack.run(model, images, ids, mos))
        return sum(
            stored_score(model, found[i, "raise", 4].example.pixels, seed=99, image_id=ids[i], draws=60)
            for i in range(len(images))
        )

    assert reach(20) > reach(1)


def test_a_stochastic_model_without_eot_is_refused():
    """Its numbers would overstate robustness; the message names the setting."""
    with pytest.raises(AttackError, match="set eot_samples"):
        _attack(eot_samples=None).run(Noisy().eval(), *targets())


@pytest.mark.parametrize("keep", ["best", "last"])
def test_every_mean_is_kept_in_float64(keep):
    """Also that of the last iterate, of which no gradient is taken."""
    model, (images, ids, mos) = Noisy().eval(), targets([(8, 8)] * 3)
    found = _attack(objectives=("raise", "lower"), keep=keep).run(model, images, ids, mos).found
    for each in found:
        moment = (each.example.restart, each.example.step)
        seeds = draw_seeds(7, ids[each.image], moment, 3)
        assert each.example.score == expected_score(model, each.example.pixels, seeds)
    assert {4} <= {each.example.step for each in found}


@cache
def _one_by_one(kind):
    """Images of two sizes, and what is found on them by a model that draws for one image at a time."""
    on = targets([(8, 8), (6, 9), (8, 8), (8, 8)])
    return on, _attack(kind).run(Noisy().eval(), *on)


@pytest.mark.parametrize("chunk", [1, 2, 8, 64])
@pytest.mark.parametrize("kind", ["pgd", "apgd"])
def test_a_model_that_draws_by_image_finds_the_same_in_fewer_passes(kind, chunk):
    """All draws of several images together are those of each image alone, bit for bit, in any chunk."""
    on, one_by_one = _one_by_one(kind)
    model = ByImage().eval()
    result = _attack(kind).run(model, *on, chunk=chunk)
    expected = by_key(one_by_one)
    assert all(same(found, expected[key]) for key, found in by_key(result).items())
    assert result.cost == one_by_one.cost
    # Clean scores are of one draw at a time, as all that is stored.
    assert max(model.passes) <= chunk
    assert model.passes[: 4 * 3] == [1] * 12
    searched = model.passes[12:]
    assert sum(searched) == sum(c.forwards for c in result.cost.values())
    assert chunk < 8 or len(searched) <= sum(searched) / 4


def test_the_company_of_an_image_does_not_touch_its_draws():
    """Of a model that draws by image the last images alone give what they give behind others."""
    model, (images, ids, mos) = ByImage().eval(), targets([(8, 8)] * 5)
    whole = by_key(_attack().run(model, images, ids, mos, chunk=64))
    last = by_key(_attack().run(model, images[3:], ids[3:], mos[3:]))
    assert all(same(found, whole[i + 3, o, s]) for (i, o, s), found in last.items())
