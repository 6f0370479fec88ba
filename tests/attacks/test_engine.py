"""The engine against a model whose optimum is known, and against runs of one objective at a time."""

import itertools

import pytest
import torch
from torch import Tensor

from helpers.attack_cases import ALL, SIZES, Counting, Wavy
from helpers.attack_cases import by_key as _by_key
from helpers.attack_cases import targets as _targets
from iqa_attacks import (
    HIGHEST_SEEN,
    LOWEST_SEEN,
    AttackError,
    AttackFailed,
    BadAttackOption,
    ThreatModel,
    UnknownAttack,
    create_attack,
)
from iqa_attacks.engine.batches import batches
from iqa_models import create_model

FEW = [(8, 8)] * 4


def _pgd(norm="inf", epsilon=4 / 255, **settings):
    settings = {"objectives": ALL, "steps": 6, "step_size": epsilon / 3, "restarts": 2, "seed": 7, **settings}
    return create_attack("pgd", threat=ThreatModel(norm, epsilon), **settings)


@pytest.mark.parametrize("box", ["inactive", "active"])
@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_the_inf_optimum_of_a_linear_model_is_reached(kind, box):
    """Raise and lower end at clip(x +- eps sign(w), 0, 1) and its exact score."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = _targets(FEW, low=0.2, high=0.8) if box == "inactive" else _targets(FEW)
    epsilon = 8 / 255
    threat = ThreatModel("inf", epsilon)
    settings = {} if kind == "fgsm" else {"steps": 12, "step_size": epsilon / 4, "restarts": 2}
    attack = create_attack(kind, threat=threat, objectives=("raise", "lower"), **settings)
    found = _by_key(attack.run(model, images, ids, mos))
    weight = model.weight(8, 8).detach()
    steps = attack.schedule.steps
    for i, image in enumerate(images):
        for objective, side in (("raise", 1), ("lower", -1)):
            best = (image + side * epsilon * weight.sign()).clamp(0, 1)
            optimum = model(best.unsqueeze(0)).item()
            example = found[i, objective, steps].example
            assert example.score == pytest.approx(optimum, abs=1e-12)
            moves = weight != 0  # where w is 0 every value is optimal
            assert torch.allclose(example.pixels[moves], best[moves], atol=1e-12)


def test_the_2_norm_optimum_of_a_linear_model_is_reached():
    """Far from the box the ends are f(x) +- eps ||w||_2 / n."""
    model = create_model("linear", dtype="float64")
    images, ids, mos = _targets(FEW, low=0.4, high=0.6)
    epsilon = 0.2
    attack = _pgd("2", epsilon, objectives=("raise", "lower"), steps=60, step_size=epsilon / 4)
    result = attack.run(model, images, ids, mos)
    reach = epsilon * float(model.weight(8, 8).detach().norm()) / 192
    for (i, objective, _), found in _by_key(result).items():
        side = {"raise": 1, "lower": -1, HIGHEST_SEEN: 1, LOWEST_SEEN: -1}[objective]
        assert found.example.score == pytest.approx(float(result.clean[i]) + side * reach, abs=1e-9)


def test_mse_and_drift_take_the_farther_end():
    """On a linear model, with a start at the clean image, mse goes to the side away from the label."""
    model = create_model("linear", dtype="float64")
    images, ids, _ = _targets(low=0.2, high=0.8)
    clean = torch.stack([model(x.unsqueeze(0)).detach().squeeze() for x in images])
    mos = torch.tensor([0.0, 1.0] * 6, dtype=torch.float64)[: len(images)]
    found = _by_key(_pgd(objectives=("mse",), random_start=False, restarts=1).run(model, images, ids, mos))
    for i in range(len(images)):
        assert (found[i, "mse", 6].example.score > float(clean[i])) == (float(mos[i]) == 0.0)


def test_sharing_saves_gradients():
    """Five objectives cost far less than five runs: at most two points an image and restart after a step."""
    model, targets = Wavy().eval(), _targets()
    attack = _pgd(steps=6)
    together = attack.run(model, *targets)
    separate = sum(_pgd(objectives=(o,)).run(model, *targets).cost[0, 6].backwards for o in ALL)
    assert separate == 5 * 6 * 2
    assert all(together.cost[i, 6].backwards <= 0.5 * separate for i in range(len(SIZES)))
    assert together.cost[0, 6].forwards > together.cost[0, 6].backwards


def test_the_best_iterate_is_the_best_of_a_replay():
    """A replay written here, step by step, finds the same best loss, its start and end included."""
    model, (images, ids, mos) = Wavy().eval(), _targets(FEW)
    attack = _pgd(objectives=("drift",), restarts=1, steps=9, step_size=0.02)
    found = _by_key(attack.run(model, images, ids, mos))
    first = _by_key(
        _pgd(objectives=("drift",), restarts=1, steps=1, step_size=1e-300).run(model, images, ids, mos)
    )
    for i, image in enumerate(images):
        clean = model(image.unsqueeze(0)).item()
        x = first[i, "drift", 1].example.pixels.clone()
        losses = []
        for _ in range(10):
            x = x.detach().requires_grad_()
            value = model(x.unsqueeze(0)).squeeze()
            losses.append((value.item() - clean) ** 2)
            (gradient,) = torch.autograd.grad((value - clean) ** 2, x)
            x = (x + 0.02 * gradient.sign()).clamp(image - 4 / 255, image + 4 / 255).clamp(0, 1)
        assert found[i, "drift", 9].loss == pytest.approx(max(losses), rel=1e-9)
        assert found[i, "drift", 9].example.step == max(range(10), key=losses.__getitem__)


def test_keep_last_is_the_last_iterate():
    """For parity with other tools the end of the path can be asked for, better or not."""
    model, targets = Wavy().eval(), _targets()
    last = _pgd(keep="last", restarts=1, step_size=0.03).run(model, *targets)
    kept = [f for f in last.found if f.objective in ALL]
    assert {f.example.step for f in kept} == {6}


def test_best_is_never_below_last_and_restarts_never_hurt():
    """Keeping the best iterate and adding restarts can only raise the loss."""
    model, targets = Wavy().eval(), _targets()
    last = _by_key(_pgd(keep="last", restarts=1).run(model, *targets))
    best = _by_key(_pgd(restarts=1).run(model, *targets))
    more = _by_key(_pgd(restarts=4).run(model, *targets))
    for key, found in last.items():
        if found.loss is not None:
            assert found.loss <= best[key].loss <= more[key].loss


def test_pairwise_inversion_keeps_one_moment_for_a_batch():
    """All images of a batch of 8 come from the same restart and iterate, the last short batch included."""
    model, targets = Wavy().eval(), _targets([(8, 8)] * 19)
    result = _pgd(objectives=("pairwise_inversion",), restarts=3).run(model, *targets)
    moments = {
        f.image: (f.example.restart, f.example.step, f.loss)
        for f in result.found
        if f.objective == "pairwise_inversion"
    }
    for first in (0, 8, 16):
        assert len({moments[i] for i in range(first, min(first + 8, 19))}) == 1
    assert len(set(moments.values())) == 3


def test_zero_gradients_are_counted_not_hidden():
    """A model that ignores its input through the graph shows as many zero gradients as gradients."""

    class Flat(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            return (images * 0).sum((1, 2, 3)) + 0.5

    cost = _pgd().run(Flat().eval(), *_targets()).cost[0, 6]
    assert cost.zero_gradients == cost.backwards > 0


def test_unusable_models_are_refused():
    """No number is made from a detached graph, a NaN, a training-mode or a stochastic model."""

    class Detached(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            return images.detach().sum((1, 2, 3))

    class Broken(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            return images.sum((1, 2, 3)).sub(1e9).sqrt()

    targets = _targets()
    with pytest.raises(AttackFailed, match="detached"):
        _pgd().run(Detached().eval(), *targets)
    with pytest.raises(AttackFailed, match="not finite"):
        _pgd().run(Broken().eval(), *targets)
    with pytest.raises(AttackError, match="training mode"):
        _pgd().run(Wavy().train(), *targets)
    with pytest.raises(AttackError, match="EOT"):
        _pgd().run(Wavy(is_stochastic=True).eval(), *targets)


def test_unusable_targets_are_refused():
    """Lengths must agree, ids be unique and labels lie on [0, 1]."""
    model, (images, ids, mos) = Wavy().eval(), _targets()
    with pytest.raises(AttackError, match="must be equal"):
        _pgd().run(model, images, ids[1:], mos)
    with pytest.raises(AttackError, match="unique"):
        _pgd().run(model, images, ["same"] * len(ids), mos)
    with pytest.raises(AttackError, match=r"\[0, 1\]"):
        _pgd().run(model, images, ids, mos * 100)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 1, not 0"),
        ({"step_size": 0.0}, "step_size"),
        ({"step_size": 1}, "more than twice the radius .* write grey levels as a fraction"),
        ({"step_size": float("nan")}, "step_size"),
        ({"keep": "first"}, "keep"),
        ({"objectives": ()}, "at least one"),
        ({"objectives": ("mse", "mse")}, "twice"),
        ({"random_start": False}, "all do the same"),
        ({"report_steps": (7,)}, "within 1..6"),
        ({"stepsize": 1}, "did you mean 'step_size'"),
        ({"batch": 1}, "batch"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    """A setting that makes no sense is refused with the reason."""
    with pytest.raises(BadAttackOption, match=message):
        _pgd(**settings)


def test_unknown_attack_names_the_nearest():
    """A mistyped attack is answered with the one meant."""
    with pytest.raises(UnknownAttack, match="did you mean 'pgd'"):
        create_attack("pdg")
    with pytest.raises(BadAttackOption, match="missing"):
        create_attack("pgd", threat=ThreatModel("inf", 0.1))


@pytest.mark.parametrize("objective", ["pairwise_inversion", "soft_spearman"])
@pytest.mark.parametrize("kind", ["pgd", "apgd"])
def test_an_image_left_alone_joins_the_batch_before_it(kind, objective):
    """Of nine images in batches of eight the ninth is attacked, as in one of nine; of ten two are a batch."""
    settings = {"steps": 4, "restarts": 2, **({"step_size": 0.01} if kind == "pgd" else {})}
    model, nine = Wavy().eval(), _targets([(8, 8)] * 9)
    threat = ThreatModel("inf", 4 / 255)

    def attack(batch):
        return create_attack(kind, threat=threat, objectives=(objective,), batch=batch, **settings)

    found, whole = (_by_key(attack(batch).run(model, *nine)) for batch in (8, 9))
    assert all(torch.equal(f.example.pixels, whole[key].example.pixels) for key, f in found.items())
    ninth = found[8, objective, 4]
    assert ninth.loss != 0
    assert ninth.loss == found[0, objective, 4].loss
    ten = _by_key(attack(8).run(model, *_targets([(8, 8)] * 10)))
    assert ten[8, objective, 4].loss == ten[9, objective, 4].loss != ten[7, objective, 4].loss


def test_batches_hold_every_image_once_and_none_alone():
    for count, size in itertools.product(range(2, 40), range(2, 10)):
        parts = batches(count, size)
        assert [i for part in parts for i in range(count)[part]] == list(range(count))
        lengths = [part.stop - part.start for part in parts]
        assert min(lengths) >= 2
        assert set(lengths[:-1]) <= {size}
        assert lengths[-1] <= size + 1


def test_one_image_alone_has_none_to_be_compared_with():
    """A loss of a batch would leave it where it is: it is refused, not passed for robust."""
    model, (images, ids, mos) = Wavy().eval(), _targets()
    with pytest.raises(AttackError, match="'image-0' is the only one: attack two or more together"):
        _pgd().run(model, images[:1], ids[:1], mos[:1])
    with pytest.raises(AttackError, match="no images"):
        _pgd().run(model, [], [], torch.empty(0))


def test_an_image_too_small_for_an_ssim_floor_is_named_before_the_attack():
    model, on = Counting().eval(), _targets([(24, 24), (10, 24)])
    threat = ThreatModel("inf", 0.05, ssim_floor=0.9)
    attack = create_attack("pgd", threat=threat, objectives=("raise",), steps=3, step_size=0.02)
    with pytest.raises(AttackError, match="image 'image-1': SSIM needs images of at least 11 x 11 pixels"):
        attack.run(model, *on)
    assert model.forwards == 0


@pytest.mark.parametrize("weights", [torch.float16, torch.bfloat16])
def test_a_model_that_cannot_mix_its_precision_with_the_images_says_so(weights):
    """One error that names both; what the model itself converts is taken."""

    class Net(Wavy):
        def __init__(self, converts: bool) -> None:
            super().__init__()
            self.linear.float()
            self.net, self.converts = torch.nn.Conv2d(3, 1, 3).to(weights), converts

        def predict(self, images: Tensor) -> Tensor:
            scores = self.net(images.to(weights) if self.converts else images).mean((1, 2, 3))
            return scores.double()

    pixels, ids, mos = _targets()
    on = [image.float() for image in pixels], ids, mos
    attack = _pgd(objectives=("raise",))
    message = f"weights are {weights} and torch.float32, the images torch.float32, and it cannot mix them"
    with pytest.raises(AttackFailed, match=message):
        attack.run(Net(converts=False).eval(), *on)
    assert attack.run(Net(converts=True).eval(), *on).found


def test_dropout_of_a_stochastic_model_may_stay_in_training_mode():
    """It keeps no state; of a model that says it is deterministic it is refused."""

    class Dropping(Wavy):
        def __init__(self, **card) -> None:
            super().__init__(**card)
            self.drop = torch.nn.Dropout(0.2)

        def train(self, mode: bool = True):
            super().train(mode)
            if hasattr(self, "drop"):
                self.drop.train()
            return self

        def predict(self, images: Tensor) -> Tensor:
            return super().predict(self.drop(images).clamp(0, 1))

    on = _targets(FEW)
    assert _pgd(eot_samples=2).run(Dropping(is_stochastic=True).eval(), *on).found
    with pytest.raises(AttackError, match=r"'drop' \(Dropout\) is in training mode"):
        _pgd(eot_samples=2).run(Dropping().eval(), *on)


def test_a_model_made_under_inference_mode_says_what_is_wrong():
    with torch.inference_mode():
        model = Wavy().eval()
    with pytest.raises(AttackError, match=r"made under torch.inference_mode\(\)"):
        _pgd().run(model, *_targets())


def test_a_copy_for_gradients_has_the_batches_of_the_attack():
    """Of nine images the ninth is in the batch of the other eight, also where losses are worked out again."""
    model, on = Wavy().eval(), _targets([(8, 8)] * 9)
    attack = _pgd(objectives=("pairwise_inversion",), restarts=1)
    plain, copied = (_by_key(attack.run(model, *on, gradients=copy)) for copy in (None, model))
    for key, found in plain.items():
        assert copied[key].loss == (
            found.loss if found.loss is None else pytest.approx(found.loss, rel=1e-12)
        )
